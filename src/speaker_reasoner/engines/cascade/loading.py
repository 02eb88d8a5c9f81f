"""Loads the cascade and its parts by name."""

import importlib.util
from pathlib import Path

from ...cores import model_threads
from ...errors import SettingsError
from .diarizer import Diarizer
from .embedding import CampplusWitness
from .engine import CascadeEngine
from .funasr import Paraformer, SenseVoice
from .gender import Genders
from .local import LocalDiarizer
from .parakeet import Parakeet
from .pyannote import PyannoteDiarizer
from .recogniser import Recogniser
from .segmentation import Segmentation
from .weights import WEIGHTS_PACKAGE, installed
from .weights import weights_file as _file
from .weights import weights_folder as _weights
from .whisper import FasterWhisper

__all__ = ["RECOGNISERS", "WEIGHTS_PACKAGE", "installed", "load_cascade"]
RECOGNISERS = ("whisper", "paraformer", "sensevoice", "parakeet")


def load_cascade(
    model: str = "",
    *,
    recogniser: str | None = None,
    diarizer: str | None = None,
    language: str | None = None,
    hotwords: str | None = None,
    beam: int = 1,
    device: str | None = None,
) -> CascadeEngine:
    """Load a recogniser, a diarizer, and the gender classifier, if the package of weights is installed.

    Args:
        model: short for `recogniser="whisper=..."`; nothing if empty.
        recogniser: `whisper[=MODEL]`, `paraformer[=MODEL]`, `sensevoice[=MODEL]` or `parakeet[=MODEL]`. A
            model is a folder, a hub id or a name that the package knows, such as a size of Whisper
            (`large-v3-turbo`); the Whisper base of the weights package by default.
        diarizer: `local` (default) or `pyannote[=MODEL]`.
        language: ISO 639-1 code of the spoken language; recognised if `None`.
        hotwords: names and terms that are likely to occur.
        beam: hypotheses of Whisper's search.
        device: `cpu` or `cuda`; a GPU where there is one if `None`.

    Raises:
        CheckpointError: a model is missing or damaged.
        ExtraError: a package is missing.
        SettingsError: the recogniser does not know the language, or no hotwords; there is no such
            recogniser or diarizer.
    """
    threads = model_threads()
    if model and recogniser is not None:
        raise SettingsError(
            f"--model cascade={model} and --recogniser {recogniser}: both name a recogniser; give one"
        )
    name = f"cascade={_shown(model)}" if model else "cascade"
    if parts := [_shown(part) for part in (recogniser, diarizer) if part]:
        name += f" with {' and '.join(parts)}"
    words = _recogniser(recogniser or f"whisper={model}", language, hotwords, beam, device, threads)
    diarizes = load_diarizer(diarizer or "local", device, threads)
    packed = importlib.util.find_spec(WEIGHTS_PACKAGE) is not None
    genders = Genders(_file(_weights(), "gender.onnx"), threads) if packed else None
    return CascadeEngine(words, diarizes, genders=genders, model=name)


def _shown(part: str) -> str:
    """A model or `KIND=MODEL` for messages: of a local folder only its name."""
    kind, given, model = part.rpartition("=")
    local = Path(model).expanduser()
    return f"{kind}{given}{local.name if local.is_dir() else model}"


def _recogniser(
    name: str,
    language: str | None,
    hotwords: str | None,
    beam: int,
    device: str | None,
    threads: int,
) -> Recogniser:
    kind, _, model = name.partition("=")
    if kind in ("sensevoice", "parakeet") and hotwords is not None:
        raise SettingsError(
            f"--hotwords {hotwords}: {kind} has no use of them; leave them out, or take whisper or "
            "paraformer"
        )
    named = {"model": model} if model else {}
    match kind:
        case "whisper":
            return _whisper(model, language, hotwords, beam, device or "auto", threads)
        case "paraformer":
            return Paraformer(
                **named,
                language=language,
                hotwords=hotwords,
                device=_torch_device(device),
                threads=threads,
            )
        case "sensevoice":
            return SenseVoice(
                **named, language=language, device=_torch_device(device), threads=threads
            )
        case "parakeet":
            return Parakeet(**named, language=language, device=device or "auto")
    raise SettingsError(
        f"recogniser {name!r}: expected one of {', '.join(RECOGNISERS)}, with a model perhaps, as in "
        "whisper=large-v3-turbo"
    )


def _whisper(
    model: str,
    language: str | None,
    hotwords: str | None,
    beam: int,
    device: str,
    threads: int,
) -> FasterWhisper:
    name = None
    if not model:
        model, name = str(_weights() / "whisper-base"), "whisper base (8 bits)"
    return FasterWhisper(
        model,
        name=name,
        language=language,
        hotwords=hotwords,
        beam=beam,
        device=device,
        threads=threads,
    )


def _torch_device(device: str | None) -> str:
    if device is not None:
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_diarizer(name: str, device: str | None, threads: int) -> Diarizer:
    """Load a diarizer by its name, as `load_cascade` takes it; raises as `load_cascade`."""
    kind, _, model = name.partition("=")
    if kind == "pyannote":
        return PyannoteDiarizer(**({"model": model} if model else {}), device=device)
    if name != "local":
        raise SettingsError(f"diarizer {name!r}: expected local or pyannote[=MODEL]")
    folder = _weights()
    return LocalDiarizer(
        Segmentation(_file(folder, "segmentation.onnx"), threads),
        CampplusWitness(_file(folder, "embedding.onnx"), threads),
    )
