"""The dialogue over one chunk, without I/O of its own.

`Dialogue.request` returns the next request to an engine, `Dialogue.feed` takes its reply and returns the
turn's event. One loop therefore serves a single file, a batch, a server; `run` is the simplest driver. A
dialogue always ends, with a named reason; what was transcribed before a failure is kept, the rest is
reported as missing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from .audio import SAMPLE_RATE_HZ, Samples
from .engines.base import Engine, Reply, Request, Session, Stop
from .errors import ProtocolError
from .protocol import (
    Answer,
    Box,
    CacheEntry,
    Line,
    Part,
    Profile,
    Trace,
    Turn,
    observe,
    opening,
    parse_turn,
)
from .protocol.confidence import LineConfidence, line_confidences
from .protocol.grammar import TurnRules, start
from .protocol.markup import ANSWER, THINK, THINK_END
from .protocol.matcher import advance, complete
from .protocol.turns import parse_lines, render_box
from .transcript import Word
from .voices.witness import Points


@dataclass(frozen=True, slots=True)
class TranscribedLine:
    """One transcribed line of a chunk, with the confidence of its parts, and, where the engine knows
    them, its words with times in seconds of the chunk, and the embedding `[d]` of its speaker."""

    line: Line
    confidence: LineConfidence
    words: tuple[Word, ...] | None = None
    embedding: Points | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """The event of one turn, sent as soon as the turn is parsed.

    Attributes:
        turn: 0 for the overview, then the number of the observation.
        observation: its box; `None` in turn 0.
        lines: its segments, without duplicates of earlier ones; see `without_duplicates`.
        speakers: genders of speakers 1..n as the overview counts them; `None` in other turns.
        box: the next observation; `None` at the end.
        tokens: number of tokens written.
        looped: whether a text was closed because it repeated itself.
        duplicates: number of lines left out because they repeat an earlier one.
        seconds: run time of each of the engine's stages.
        language: code of the language that the engine recognised, and its probability.
        left_out: number of words that the engine recognised and did not pass on, by reason.
        noted: warnings about the turn for the reader of the transcript, each with its count.
    """

    turn: int
    observation: Box | None
    lines: tuple[TranscribedLine, ...]
    speakers: tuple[str, ...] | None
    box: Box | None
    tokens: int
    looped: bool
    duplicates: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    language: tuple[str, float] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a dialogue.

    Attributes:
        lines: all segments, in the order they were written.
        stop: why it ended.
        detail: more about a failure; empty otherwise.
        missing: the stretch of the chunk that was not transcribed, in ticks; `None` if none.
        trace: all parts that the model saw and wrote.
    """

    lines: tuple[TranscribedLine, ...]
    stop: Stop
    detail: str
    missing: Box | None
    trace: Trace


class Dialogue:
    """One chunk's dialogue.

    Args:
        samples: the chunk X, float32 `[n]` at 16 kHz, at most `Profile.chunk_s` long.
        profile: of the checkpoint that answers.
        answer: `assembled` builds the transcript from the turns; with `model` the model writes it once
            more, as published.
        cache: entries of the speaker cache, in the order of their speakers' numbers from 1.
        count: least and greatest number of speakers in the overview, those of the cache included.
        language: of the recording, as far as it is known.

    A dialogue that has ended keeps its turns and releases the samples.
    """

    def __init__(
        self,
        samples: Samples,
        profile: Profile,
        *,
        answer: str = "assembled",
        cache: Sequence[CacheEntry] = (),
        count: tuple[int, int] | None = None,
        language: str | None = None,
    ) -> None:
        if answer not in ("assembled", "model"):
            raise ProtocolError(f"answer {answer!r} is neither 'assembled' nor 'model'")
        if len(samples) == 0:
            raise ProtocolError("a dialogue needs a chunk of at least one sample")
        self.profile = profile
        self.session = Session(samples, tuple(entry.samples for entry in cache), language)
        self.chunk = len(samples) * profile.ticks_per_s // SAMPLE_RATE_HZ
        self.outcome: Outcome | None = None
        self.events: list[TurnEvent] = []
        self._model_answer = answer == "model"
        self._numbers: dict[str, int] = {}
        self._turn = 0
        self._box: Box | None = None
        self._last = profile.max_turns
        self._known = max((entry.speaker for entry in cache), default=0)
        self._cached = tuple({entry.speaker: entry.gender for entry in cache}.values())
        self._count = count
        self._new: tuple[Part, ...] = opening(profile, len(samples), cache=cache)
        self._trace = Trace(self._new)

    @property
    def rules(self) -> TurnRules:
        """The rules of the next turn."""
        return TurnRules(
            self.profile,
            turn=self._turn,
            chunk=self.chunk,
            box=self._box,
            speakers=max([self._known, *(one.line.speaker for one in self._lines())]),
            cached=self._cached,
            count=self._count,
            model_answer=self._model_answer,
            last=self._turn >= self._last,
        )

    @property
    def request(self) -> Request | None:
        """The next request to the engine; `None` when the dialogue has ended."""
        return None if self.outcome else Request(self.session, self._new, self.rules)

    def insist(self, samples: Samples, cache: Sequence[CacheEntry], box: Box) -> "Dialogue":
        """Make a dialogue that transcribes one given box: for speech that this dialogue skipped.

        It has the turns of this dialogue up to that box, then one observation of it, and ends.

        Args:
            samples: this dialogue's chunk X.
            cache: this dialogue's speaker cache.
            box: in ticks of the chunk.

        Raises:
            ProtocolError: this dialogue has not ended.
        """
        if self.outcome is None:
            raise ProtocolError(
                "this dialogue has not ended; only then can it transcribe another box"
            )
        extra = Dialogue(samples, self.profile, cache=cache, language=self.session.language)
        before = [
            e for e in self.events if e.observation is None or e.observation.start <= box.start
        ]
        parts: list[Part] = []
        turns = 0
        for part in self.outcome.trace.parts:
            if isinstance(part, Answer):
                turns += 1
                if turns == len(before):
                    parts.append(Answer(_with_box(part.text, box, self.profile)))
                    break
            parts.append(part)
        extra._turn, extra._last, extra._count = turns - 1, turns, self._count
        extra._known, extra._numbers = self.rules.speakers, dict(self._numbers)
        extra._trace = Trace(tuple(parts))
        extra._listen(box)
        extra._new = extra._trace.parts
        return extra

    def feed(self, reply: Reply) -> TurnEvent:
        """Take the engine's reply to the last request, and return the turn's event.

        Returns:
            The event. A reply that breaks the rules ends the dialogue; its event has the lines that can
            still be parsed.
        """
        if self.outcome:
            raise ProtocolError("the dialogue has ended")
        rules = self.rules
        cut = reply.error is not None or (reply.text.endswith(ANSWER) and not self._model_answer)
        self._trace += (Answer(reply.text, reply.ids or None, closed=not cut),)
        if reply.error is not None or not complete(advance(start(rules), reply.text.encode())):
            return self._salvage(reply)
        turn = parse_turn(reply.text, self.profile, first=self._turn == 0, numbers=self._numbers)
        event = self._event(reply, turn)
        if turn.box is None:
            self._finish(rules, turn, reply)
        else:
            self._listen(turn.box)
        return event

    def _lines(self) -> Iterator[TranscribedLine]:
        for event in self.events:
            yield from event.lines

    def _event(self, reply: Reply, turn: Turn) -> TurnEvent:
        lines = _with_confidences(turn.lines, _confidences(reply), reply.words, reply.embeddings)
        kept = without_duplicates(lines, self._lines())
        event = TurnEvent(
            self._turn,
            self._box,
            kept,
            turn.overview.genders if turn.overview else None,
            turn.box,
            len(reply.ids) or reply.tokens,
            reply.looped,
            len(lines) - len(kept),
            reply.seconds,
            reply.language,
            reply.left_out,
            reply.noted,
        )
        self.events.append(event)
        return event

    def _listen(self, box: Box) -> None:
        """Cut the observation out of the chunk and make it the next user turn."""
        self._turn += 1
        self._box = box
        first = box.start * SAMPLE_RATE_HZ // self.profile.ticks_per_s
        last = min(box.end * SAMPLE_RATE_HZ // self.profile.ticks_per_s, len(self.session.samples))
        self._new = observe(self.profile, self._turn, first, last)
        self._trace += self._new

    def _finish(self, rules: TurnRules, turn: Turn, reply: Reply) -> None:
        lines = tuple(self._lines())
        if turn.answer is not None:
            observed, confidences = len(turn.lines), _confidences(reply)
            lines = _with_confidences(
                turn.answer,
                confidences[max(0, len(confidences) - len(turn.answer)) :],
                reply.words[observed:],
                None if reply.embeddings is None else reply.embeddings[observed:],
            )
        box = self._box or Box(0, 0)
        cut = self._turn >= self.profile.max_turns and box.end < self.chunk
        self._end(
            Stop.TURN_LIMIT if cut else Stop.ANSWERED,
            lines,
            f"after {self.profile.max_turns} observations" if cut else "",
            Box(box.end, self.chunk) if cut else None,
        )

    def _salvage(self, reply: Reply) -> TurnEvent:
        """End the dialogue on a broken turn: keep its readable lines, report the rest as missing."""
        lines = () if self._turn == 0 else self._readable(reply.text)
        event = self._event(reply, Turn(lines=lines))
        stop = Stop.MALFORMED if reply.error is None else reply.stop
        detail = reply.error or f"turn {self._turn} broke the protocol: {reply.text[:120]!r}"
        done = max([self._box.start if self._box else 0, *(line.end for line in lines)])
        missing = Box(done, self.chunk) if done < self.chunk else None
        self._end(stop, tuple(self._lines()), detail, missing)
        return event

    def _readable(self, text: str) -> tuple[Line, ...]:
        """The lines of a broken turn up to the first that ends before it starts or outside X."""
        lines: list[Line] = []
        thought = text[text.find(THINK) + len(THINK) :] if THINK in text else text
        for row in thought.partition(THINK_END)[0].split("\n"):
            try:
                parsed = parse_lines(row, self.profile, self._numbers)
            except ProtocolError:
                break
            if any(line.end > self.chunk for line in parsed):
                break
            lines += parsed
        return tuple(lines)

    def _end(
        self, stop: Stop, lines: tuple[TranscribedLine, ...], detail: str, missing: Box | None
    ) -> None:
        self.outcome = Outcome(lines, stop, detail, missing, self._trace)
        self.session.memory.clear()
        self.session.samples, self.session.cached = np.zeros(0, dtype=np.float32), ()


def _with_box(text: str, box: Box, profile: Profile) -> str:
    """A turn with another box, or with one in place of the answer."""
    thought = text[: text.index(THINK_END) + len(THINK_END)]
    return thought + render_box(box, profile)


def without_duplicates(
    lines: Iterable[TranscribedLine], before: Iterable[TranscribedLine] = ()
) -> tuple[TranscribedLine, ...]:
    """Leave out lines that repeat an earlier one.

    Neighbouring observations may overlap in time, and the model may transcribe what lies in both
    twice. A line duplicates an earlier one if it has the same speaker and text, and the two overlap by
    more than half of the shorter.

    Args:
        lines: of one turn.
        before: of the turns before it.
    """
    known = [one.line for one in before]
    kept = []
    for one in lines:
        if not any(_is_duplicate(one.line, earlier) for earlier in known):
            kept.append(one)
            known.append(one.line)
    return tuple(kept)


def _is_duplicate(line: Line, earlier: Line) -> bool:
    common = min(line.end, earlier.end) - max(line.start, earlier.start)
    shorter = min(line.end - line.start, earlier.end - earlier.start)
    return (line.speaker, line.text) == (earlier.speaker, earlier.text) and 2 * common > shorter


def _confidences(reply: Reply) -> list[LineConfidence]:
    """The confidences of every line in a reply: those of the thought, then those of the answer."""
    if reply.confidences:
        return list(reply.confidences)
    return line_confidences(reply.text, reply.sizes, reply.probabilities)


def _with_confidences(
    lines: Sequence[Line],
    confidences: Sequence[LineConfidence],
    words: Sequence[tuple[Word, ...] | None] = (),
    embeddings: Points | None = None,
) -> tuple[TranscribedLine, ...]:
    """Lines with their confidences and words; a line of which none are known gets empty ones."""
    unknown = [LineConfidence()] * max(0, len(lines) - len(confidences))
    untimed = [None] * max(0, len(lines) - len(words))
    points: list[Points | None] = [None] * len(lines)
    if embeddings is not None:
        points = [None if np.isnan(row).any() else row for row in embeddings]
    rows = zip(lines, [*confidences, *unknown], [*words, *untimed], points, strict=False)
    return tuple(TranscribedLine(*row) for row in rows)


def run(dialogues: Sequence[Dialogue], engine: Engine) -> Iterator[tuple[Dialogue, TurnEvent]]:
    """Drive dialogues to their ends, one batched request a round; yields each turn when known."""
    while active := [dialogue for dialogue in dialogues if dialogue.request is not None]:
        yield from ask(active, engine)


class Asker(Protocol):
    """A source of requests to an engine: a dialogue here, or one that a client leads."""

    @property
    def request(self) -> Request | None:
        """The next request; `None` at the end."""

    def feed(self, reply: Reply) -> Any:
        """Take the reply to it."""


A = TypeVar("A", bound=Asker)


def ask(dialogues: Sequence[A], engine: Engine) -> Iterator[tuple[A, Any]]:
    """One round: one turn of each dialogue that has not ended."""
    asked = [(d, request) for d in dialogues if (request := d.request) is not None]
    replies = engine.ask([request for _, request in asked])
    for (dialogue, _), reply in zip(asked, replies, strict=True):
        yield dialogue, dialogue.feed(reply)
