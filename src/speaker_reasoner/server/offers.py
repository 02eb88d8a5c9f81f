"""The models that a server offers: its own engine's, or those that live workers announce."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ServerError
from ..longform import Transcriber
from ..version import __version__
from .chat import public_profile
from .failures import RequestError, no_worker
from .fleet import Announcement, Fleet, made_of
from .forms import Abilities
from .jobs import Job
from .runs import Defaults
from .shared import SharedStore
from .store import Store

_log = logging.getLogger(__name__)

_DECIDE = ("engine", "recogniser", "diarizer", "dtype", "constrained", "language_given", "hotwords")
"""Keys of an engine's description on which transcripts depend, besides the model: not device and versions."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that recordings can be transcribed with.

    Attributes:
        able: its abilities.
        profile: see `public_profile`.
        names: of people who may be in a recording whose client names none.
        settings: a digest of all other settings on which transcripts depend, except versions.
        channel: 0-based channel of uploads that is kept; all mixed down if `None`.
        separate: whether all channels are kept, each being one speaker's.
    """

    able: Abilities
    profile: Mapping[str, Any]
    names: tuple[str, ...] = ()
    settings: str = ""
    channel: int | None = None
    separate: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Offer":
        """Read JSON of `to_json`.

        Raises:
            TypeError, KeyError: it is another version's.
        """
        able: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data["able"].items()
        }
        return cls(
            made_of(Abilities, able),
            data["profile"],
            tuple(data["names"]),
            data["settings"],
            data.get("channel"),
            data.get("separate", False),
        )


def offer_of(
    transcriber: Transcriber,
    aliases: Sequence[str],
    defaults: Defaults,
    channel: int | None,
    separate: bool,
) -> Offer:
    """Describe the model and abilities of an engine."""
    engine = transcriber.engine
    described = engine.describe()
    name = str(described.get("model", engine.name))
    recognises = "recogniser" in described
    languages = getattr(getattr(engine, "recogniser", None), "languages", ()) if recognises else ()
    able = Abilities(
        Path(name).name if Path(name).is_absolute() else name,
        tuple(aliases),
        None if recognises else engine.profile.language,
        tuple(code for code in languages if "-" not in code),  # zh-Hant is the server's choice
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
    profile = public_profile(engine.profile)
    return Offer(able, profile, names, digest.hexdigest(), channel, separate)


class Models:
    """The models that a server's clients can choose from.

    Args:
        own: its engine's offer; `None` without an engine.
        store: of the server; a shared one has the offers of other servers.
        role: of this server; see `Announcement`.
        aliases: other names, each with the name that it stands for; empty for the only one.

    Raises:
        ServerError: another server of the store has the same model with other settings; this one has no engine, or
            is a worker, and the store is not shared.
    """

    def __init__(
        self, own: Offer | None, store: Store, role: str, aliases: Sequence[tuple[str, str]]
    ) -> None:
        self._own = own
        self._fleet = store.fleet if isinstance(store, SharedStore) else None
        self._aliases = dict(aliases)
        if self._fleet is None and role != "server":
            raise ServerError(
                "--worker and --no-engine: SQLite is for the processes of one machine; add --database "
                "postgresql+psycopg://USER@HOST/NAME, the same for all servers"
            )
        if self._fleet is not None:
            self._join(self._fleet, role)

    def _join(self, fleet: Fleet, role: str) -> None:
        mine = Announcement(role, __version__)
        if self._own is not None:
            mine = replace(mine, model=self._own.able.model, offer=self._own.to_json())
        for name, other in fleet.living().items():
            if mine.offer is None or other.offer is None or other.model != mine.model:
                continue
            if other.version != mine.version:
                _log.warning(
                    "server %s has version %s, this one %s: a job that moves between them begins anew",
                    name,
                    other.version,
                    mine.version,
                )
            elif other.offer.get("settings") != mine.offer["settings"]:
                raise ServerError(
                    f"another server of this store ({name}) transcribes with {mine.model!r} and other "
                    "settings (--answer, --cache, --vad, --witness, --speakers, --dtype, ...): a job that "
                    "moves between them would change; give both the same, or stop that one"
                )
        fleet.announce(mine)

    def all(self) -> list[Offer]:
        """Return the models that recordings can be transcribed with.

        Raises:
            RequestError: 503, no worker lives.
            StorageError: the database is out of reach.
        """
        if self._own is not None:
            return [self._own]
        assert self._fleet is not None, "a server without an engine is one of a shared store"
        living = self._fleet.living().values()
        offers = {one.model: one.offer for one in living if one.offer}
        if not offers:
            raise no_worker()
        return [Offer.from_json(offer) for _, offer in sorted(offers.items())]

    def names(self) -> dict[str, Offer]:
        """Return the models by the names that clients may use; raises as `all`."""
        offers = self.all()
        known = {offer.able.model: offer for offer in offers}
        for offer in offers:
            known |= {alias: offer for alias in offer.able.aliases if alias not in known}
        for alias, meant in self._aliases.items():
            if alias not in known and (meant in known or (not meant and len(offers) == 1)):
                known[alias] = known.get(meant, offers[0])
        return known

    def meant(self, name: str | None) -> Offer:
        """Return the model that a client named.

        Args:
            name: of a model, or another name for one; `None` for the only one.

        Raises:
            RequestError: 404, there is none of this name; 400, it must be named; as `all`.
        """
        known = self.names()
        models = dict.fromkeys(offer.able.model for offer in known.values())
        listed = ", ".join(map(repr, models))
        if name is None and len(models) > 1:
            message = f"model: expected one of {listed}"
            raise RequestError(400, message, code="missing_field", param="model")
        if name is None:
            return next(iter(known.values()))
        if name not in known:
            raise RequestError(
                404,
                f"The model {name!r} does not exist; this server has {listed}",
                code="model_not_found",
                param="model",
            )
        return known[name]

    def floor(self, job: Job) -> float | None:
        """Return the word confidence under which the model of a job is not to be trusted; `None` if there is none."""
        offers = [] if self._fleet is None else [one.offer for one in self._fleet.seen.values()]
        theirs = [Offer.from_json(offer) for offer in offers if offer is not None]
        known = [*([] if self._own is None else [self._own]), *theirs]
        fits = [offer for offer in known if job.model in (None, offer.able.model)]
        return fits[0].profile["word_confidence_floor"] if fits else None
