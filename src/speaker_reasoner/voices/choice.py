"""Load a speaker embedding model ("witness") by name."""

from ..errors import SettingsError
from .others import ResemblyzerWitness, SpeechBrainWitness, XVectorWitness
from .witness import Witness

WITNESSES = ("auto", "tower", "campplus", "resemblyzer", "xvector", "speechbrain", "none")


def choose(name: str, device: str = "cpu") -> Witness | None:
    """Load a witness of another package.

    An engine may have one of its own: see `Engine.witness`.

    Args:
        name: `resemblyzer`, `xvector[=MODEL]`, `speechbrain[=MODEL]`, or `none`; MODEL is a local
            folder or a hub id.
        device: as torch names it.

    Raises:
        SettingsError: there is no witness of that name.
        CheckpointError: its model or its package cannot be used.
    """
    kind, _, model = name.partition("=")
    match kind:
        case "none" if not model:
            return None
        case "resemblyzer" if not model:
            return ResemblyzerWitness(device)
        case "xvector":
            return XVectorWitness(model or "microsoft/wavlm-base-plus-sv", device)
        case "speechbrain":
            return SpeechBrainWitness(model or "speechbrain/spkrec-ecapa-voxceleb", device)
    if name == "tower":
        raise SettingsError(
            "witness tower: this engine has no audio tower in this process to compare voices with; "
            "choose resemblyzer, xvector, speechbrain or none"
        )
    raise SettingsError(
        f"witness {name!r}: expected one of {', '.join(WITNESSES)}; xvector and speechbrain take a "
        "model, as in xvector=FOLDER"
    )
