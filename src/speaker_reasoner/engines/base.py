"""The interface between the reasoner and the engines that write turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from ..audio import Samples
from ..protocol import Audio, Part, Profile
from ..protocol.confidence import LineConfidence
from ..protocol.grammar import TurnRules
from ..speech import Detect
from ..transcript import Word
from ..voices.linking import Trust
from ..voices.witness import Points, Witness


class Stop(StrEnum):
    """The reason a dialogue ended."""

    ANSWERED = "answered"
    TURN_LIMIT = "turn-limit"
    MALFORMED = "malformed"
    ENGINE = "engine"
    CONTEXT = "context"
    LENGTH = "length"
    EMPTY = "empty-reply"
    AUDIO_LIMIT = "audio-limit"
    MODEL_SWAPPED = "model-swapped"
    REFUSED = "refused"
    SERVER = "server"


OUTSIDE = frozenset({Stop.MODEL_SWAPPED, Stop.REFUSED, Stop.SERVER})
"""Stops that lie with a server and not with the recording: another run may end otherwise."""


@dataclass(eq=False, slots=True)
class Session:
    """One dialogue as an engine remembers it.

    Attributes:
        samples: the chunk X, float32 `[n]` at 16 kHz.
        cached: the clips of the speaker cache, the same way.
        language: of the recording, as far as it is known from chunks before this one.
        memory: the engine's own state between turns; dropped with the session.
    """

    samples: Samples
    cached: tuple[Samples, ...] = ()
    language: str | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    def clip(self, part: Audio) -> Samples:
        """The samples that an audio part stands for."""
        source = self.cached[part.clip - 1] if part.clip else self.samples
        return source[part.start_samples : part.end_samples]


@dataclass(frozen=True, slots=True)
class Request:
    """One more turn of a dialogue.

    Attributes:
        session: the dialogue.
        parts: the parts since the last reply.
        rules: the rules of a valid turn.
    """

    session: Session
    parts: tuple[Part, ...]
    rules: TurnRules


@dataclass(frozen=True, slots=True)
class Reply:
    """The text of a turn that an engine wrote, and data about it.

    Attributes:
        text: the turn, without its end token.
        ids: its token ids; empty where the engine works on text.
        sizes: bytes of `text` that each token spells.
        probabilities: probability of each token before the grammar was applied; empty if unknown.
        looped: whether a text was closed because it repeated itself.
        error: why the turn could not be written; the text then holds what can be kept of it.
        stop: reason under which the dialogue ends if there is an error.
        tokens: number of tokens written, where their ids are not known.
        noted: warnings about this turn for the reader of the transcript, each with a count.
        confidences: of each line of the thought, then of the answer, from an engine that knows them by
            line and not by token.
        embeddings: `[lines, d]` of the engine's own witness, of who speaks each of these lines; rows of
            NaN where it knows none, `None` where it knows none at all.
        words: of each of these lines, with times in seconds of the chunk; `None` where the engine does
            not know them, empty where it knows none at all.
        language: code of the language that was recognised in the chunk (ISO 639-1), and its probability.
        left_out: how many words were recognised and not passed on, by reason.
        seconds: time by stage (`encode`, `prefill`, `decode`, `grammar`), a batch's shared evenly.
    """

    text: str
    ids: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    looped: bool = False
    error: str | None = None
    stop: Stop = Stop.ENGINE
    tokens: int = 0
    noted: Mapping[str, int] = field(default_factory=dict)
    confidences: tuple[LineConfidence, ...] = ()
    embeddings: Points | None = field(default=None, compare=False)
    words: tuple[tuple[Word, ...] | None, ...] = ()
    language: tuple[str, float] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """Writes turns for many dialogues at once.

    `ask` takes one request of each of several sessions and returns their replies in order. The same
    requests give the same replies, alone or together; `describe` says where numbers are so short that a
    batch's rounding may choose another word.

    Attributes:
        profile: the protocol that its turns follow.
        name: as a transcript records it.
        in_order: whether the chunks of a recording are asked one after the other, because each gets the
            language of the earlier ones.
        trust: weight of its speaker numbers against embeddings.
    """

    profile: Profile
    name: str
    in_order: bool
    trust: Trust

    def ask(self, requests: Sequence[Request]) -> list[Reply]: ...

    def describe(self) -> dict[str, Any]: ...

    def detector(self, name: str) -> Detect:
        """Return a speech detector for cuts and coverage; `auto` is the engine's own choice.

        Raises:
            AudioError: there is no detector of that name, or its package is not installed.
        """

    def witness(self, name: str) -> Witness | None:
        """Return a witness, which compares voices; `auto` is the engine's own choice, `none` gives `None`.

        Raises:
            SettingsError: there is no witness of that name here.
            CheckpointError: its model or its package cannot be used.
        """
