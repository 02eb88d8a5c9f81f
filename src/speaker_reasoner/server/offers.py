"""What a server can transcribe with: its own engine, or what the workers that live have told."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..longform import Transcriber
from .chat import told_profile
from .failures import RequestError, no_worker
from .fleet import Fleet
from .forms import Abilities
from .runs import Defaults

_DECIDE = ("engine", "recogniser", "diarizer", "dtype", "constrained", "language_given", "hotwords")
"""What of an engine's description transcripts depend on, besides the model: not device and versions."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that recordings can be transcribed with.

    Attributes:
        able: what it can do.
        profile: see `told_profile`.
        names: of people who may be in a recording of which its client says nothing.
        settings: a digest of everything else that transcripts depend on, but for versions.
    """

    able: Abilities
    profile: Mapping[str, Any]
    names: tuple[str, ...] = ()
    settings: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Offer":
        """What `to_json` gave, after a way through JSON.

        Raises:
            TypeError, KeyError: it is another version's.
        """
        able: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data["able"].items()
        }
        return cls(Abilities(**able), data["profile"], tuple(data["names"]), data["settings"])


def offer_of(
    transcriber: Transcriber, aliases: Sequence[str], defaults: Defaults, channel: int | None
) -> Offer:
    """What an engine offers."""
    engine = transcriber.engine
    described = engine.describe()
    name = str(described.get("model", engine.name))
    recognises = "recogniser" in described
    languages = getattr(getattr(engine, "recogniser", None), "languages", ()) if recognises else ()
    able = Abilities(
        Path(name).name if Path(name).is_absolute() else name,
        tuple(aliases),
        None if recognises else engine.profile.language,
        tuple(languages),
        described.get("word_times") is True,
    )
    names = tuple(voice.name for voice in defaults.voices)
    decides = {
        "settings": transcriber.about({}, speakers=defaults.speakers)["settings"],
        "engine": {key: described.get(key) for key in _DECIDE},
        "profile": repr(engine.profile),
        "voices": names,
        "channel": channel,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode())
    return Offer(able, told_profile(engine.profile), names, digest.hexdigest())


def living_offers(fleet: Fleet) -> list[Offer]:
    """What the workers that live offer, one offer a model.

    Raises:
        RequestError: 503, no worker lives.
        StorageError: the database is out of reach.
    """
    offers = {told.model: told for told in fleet.living().values() if told.offer is not None}
    if not offers:
        raise no_worker()
    return [Offer.from_json(told.offer or {}) for _, told in sorted(offers.items())]


def chosen(offers: Sequence[Offer], name: str | None, aliases: Sequence[tuple[str, str]]) -> Offer:
    """The model that a client means.

    Args:
        offers: there are.
        name: of a model, or another name for one; `None` for the only one.
        aliases: other names, each with the name that it stands for; empty for the only one.

    Raises:
        RequestError: 404, there is none of this name; 400, it must be named.
    """
    meant = dict(aliases).get(name, name) if name is not None else None
    if not meant and len(offers) == 1:
        return offers[0]
    models = ", ".join(repr(offer.able.model) for offer in offers)
    if not meant:
        message = f"model: expected one of {models}"
        raise RequestError(400, message, code="missing_field", param="model")
    for offer in offers:
        if meant in (offer.able.model, *offer.able.aliases):
            return offer
    raise RequestError(
        404,
        f"The model {name!r} does not exist; this server has {models}",
        code="model_not_found",
        param="model",
    )
