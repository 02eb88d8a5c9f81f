"""The engine: turns of the dialogue, answered from what recogniser and diarizer found in the chunk."""

import time
import zlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ...protocol import Box, Line, Overview, Profile, Turn, render_turn
from ...protocol.confidence import LineConfidence
from ...protocol.grammar import TurnRules, start
from ...protocol.markup import ANSWER
from ...protocol.matcher import advance, complete
from ...protocol.observations import Reference, box_ticks, line, observations
from ...protocol.turns import render_answer
from ...speech import Detect, Region, detector
from ...transcript import Word
from ...voices.choice import choose
from ...voices.linking import Trust
from ...voices.witness import Witness
from ..base import Reply, Request, Session
from .diarizer import Diarization, Diarizer
from .gender import genders
from .lines import SpokenLine, assign, lines, widened
from .recogniser import Recogniser, Recognition

PROFILE = Profile(
    name="native",
    chunk_s=90.0,
    max_turns=2000,
    max_speakers=30,
    domain="real speech, in the languages that the recogniser knows",
)
_TRUST = Trust(same=8.0, other=8.0, least=-30.0, most=30.0)
"""Its numbers are of voices already: a second comparison of single lines does not overrule them."""
_KEPT_CHUNKS = 4
_SHORTEST_GAP_S, _MARGIN_S = 0.4, 0.25
"""Speech so long without a word, and so far from one, is listened to once more."""
UNFIT = "they did not fit a line of the dialogue"


@dataclass(frozen=True, eq=False, slots=True)
class _TimedLine:
    """A line of the protocol, its words, and how sure its speaker is."""

    line: Line
    words: tuple[Word, ...]
    sure: float


@dataclass(frozen=True, eq=False, slots=True)
class _Draft:
    """What was found in a chunk.

    Attributes:
        groups: observations, each some lines in order of start; speakers count from 1 in order of
            appearance.
        boxes: of each observation.
        genders: by speaker.
        speakers: column of the diarization by speaker.
        diarization: of the chunk.
        recognition: words, language, what was left out.
        heard_again: regions that were listened to twice.
        seconds: by stage.
    """

    groups: tuple[tuple[_TimedLine, ...], ...]
    boxes: tuple[Box, ...]
    genders: tuple[str, ...]
    speakers: tuple[int, ...]
    diarization: Diarization
    recognition: Recognition
    heard_again: tuple[Region, ...]
    seconds: dict[str, float]


class CascadeEngine:
    """Answers turns from a recogniser's words and a diarizer's speakers.

    Args:
        recogniser: samples to words.
        diarizer: samples to who speaks when.
        profile: chunk length and limits.
    """

    name = "cascade"
    in_order = True
    trust = _TRUST

    def __init__(
        self, recogniser: Recogniser, diarizer: Diarizer, profile: Profile = PROFILE
    ) -> None:
        self.recogniser = recogniser
        self.diarizer = diarizer
        self.profile = profile
        self._drafts: OrderedDict[tuple[Any, ...], _Draft] = OrderedDict()

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return {
            "engine": self.name,
            "model": f"cascade ({self.recogniser.name}, {self.diarizer.name})",
            "word_times": True,
            **self.recogniser.describe(),
            **self.diarizer.describe(),
        }

    def detector(self, name: str) -> Detect:
        """See `Engine`; its own choice is the diarizer's."""
        return self.diarizer.speech if name == "auto" else detector(name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`; its own is the diarizer's."""
        return self.diarizer.witness if name == "auto" else choose(name)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """See `Engine`. A chunk is listened to when its first turn is asked for."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        session, rules = request.session, request.rules
        draft = session.memory.get("draft")
        if draft is None:
            draft = session.memory["draft"] = self._draft(session, rules.count)
        if rules.turn == 0:
            return self._overview(draft, rules)
        box = rules.box or Box(0, rules.chunk)
        if rules.turn <= len(draft.boxes) and draft.boxes[rules.turn - 1] == box and not rules.last:
            return self._observation(draft, rules, draft.groups[rules.turn - 1])
        return self._insisted(session, draft, rules, box)

    def _overview(self, draft: _Draft, rules: TurnRules) -> Reply:
        people = list(draft.genders)
        low = rules.count[0] if rules.count is not None else 0
        people += ["unknown"] * (low - len(people))
        box = draft.boxes[0] if draft.boxes else None
        if box is None and people:  # whoever must be there was not understood
            box = Box(0, rules.chunk)
        code = draft.recognition.language
        return Reply(
            _finish(Turn(overview=Overview(tuple(people)), box=box), rules, draft),
            language=(code, draft.recognition.language_probability) if code else None,
            left_out=draft.recognition.left_out,
            seconds=draft.seconds,
        )

    def _observation(
        self, draft: _Draft, rules: TurnRules, own: Sequence[_TimedLine], again: bool = False
    ) -> Reply:
        """The lines of an observation, and the next box."""
        following = draft.boxes[rules.turn] if not again and rules.turn < len(draft.boxes) else None
        kept, lost = list(own), Counter[str]()
        while True:
            text = _finish(Turn(lines=tuple(row.line for row in kept), box=following), rules, draft)
            if complete(advance(start(rules), text.encode())) or not kept:
                break
            # Whatever does not fit (a text for its time too long, a character of the markup) goes, line by line.
            worst = max(range(len(kept)), key=lambda i: len(kept[i].line.text.encode()))
            lost[UNFIT] += len(kept.pop(worst).words)
        embeddings = None
        if draft.diarization.embeddings is not None:
            rows = [draft.speakers[row.line.speaker - 1] for row in kept]
            embeddings = draft.diarization.embeddings[rows]
        return Reply(
            text,
            confidences=tuple(_confidence(row) for row in kept),
            embeddings=embeddings,
            words=tuple(row.words for row in kept),
            left_out=dict(lost),
        )

    def _insisted(self, session: Session, draft: _Draft, rules: TurnRules, box: Box) -> Reply:
        """A box that the engine did not draw: what was listened to twice already says nothing more."""
        tick = self.profile.ticks_per_s
        region = (box.start / tick, box.end / tick)
        own: list[_TimedLine] = []
        if not any(a - 0.05 <= region[0] and region[1] <= b + 0.05 for a, b in draft.heard_again):
            found = self.recogniser.recognise(session.samples, [region], session.language)
            numbers = {column: n for n, column in enumerate(draft.speakers, start=1)}
            for spoken in _spoken(found, draft.diarization):
                if spoken.speaker in numbers:
                    own.append(self._timed(spoken, numbers[spoken.speaker], draft.genders, box))
        return self._observation(draft, rules, own, again=True)

    def _draft(self, session: Session, count: tuple[int, int] | None) -> _Draft:
        """Listen to a chunk; the last few are remembered by their samples."""
        samples = session.samples
        digest = zlib.crc32(np.ascontiguousarray(samples).data)
        key = (len(samples), digest, session.language, count)
        known = self._drafts.get(key)
        if known is not None:
            return known
        draft = self._listen(samples, session.language, count)
        self._drafts[key] = draft
        while len(self._drafts) > _KEPT_CHUNKS:
            self._drafts.popitem(last=False)
        return draft

    def _listen(
        self, samples: Samples, language: str | None, count: tuple[int, int] | None
    ) -> _Draft:
        began = time.perf_counter()
        diarization = self.diarizer.diarize(samples, count)
        speech = self.diarizer.speech(samples)
        told_apart = time.perf_counter()
        found = self.recogniser.recognise(samples, speech, language)
        again = tuple(_gaps(speech, found.words)) if found.words else ()
        if again:
            found = _together(found, self.recogniser.recognise(samples, again, found.language))
        understood = time.perf_counter()
        rows = widened(
            _spoken(found, diarization), diarization.active, len(samples) / SAMPLE_RATE_HZ
        )
        rows.sort(key=lambda row: (row.start_s, row.end_s))
        order = tuple(dict.fromkeys(row.speaker for row in rows))
        people = genders(samples, diarization.active, order)
        groups, boxes = self._observations(rows, order, people, len(samples))
        seconds = {"diarize": told_apart - began, "recognise": understood - told_apart}
        seconds["assign"] = time.perf_counter() - understood
        return _Draft(groups, boxes, people, order, diarization, found, again, seconds)

    def _observations(
        self, rows: Sequence[SpokenLine], order: Sequence[int], people: Sequence[str], length: int
    ) -> tuple[tuple[tuple[_TimedLine, ...], ...], tuple[Box, ...]]:
        """Lines by observation, and the box of each."""
        numbers = {column: n for n, column in enumerate(order, start=1)}
        references = {
            Reference(
                numbers[row.speaker],
                people[numbers[row.speaker] - 1],
                round(row.start_s * SAMPLE_RATE_HZ),
                max(round(row.end_s * SAMPLE_RATE_HZ), round(row.start_s * SAMPLE_RATE_HZ) + 1),
                str(i),
            ): row
            for i, row in enumerate(rows)
        }
        groups, boxes = [], []
        for group in observations(list(references)):
            box = box_ticks(group, length, self.profile)
            boxes.append(box)
            timed = [
                self._timed(references[one], one.speaker, people, box)
                for one in sorted(group, key=lambda one: (one.start_samples, one.end_samples))
            ]
            groups.append(tuple(timed))
        return tuple(groups), tuple(boxes)

    def _timed(
        self, spoken: SpokenLine, number: int, people: Sequence[str], box: Box
    ) -> _TimedLine:
        """A line in ticks of its box, its words inside it."""
        reference = Reference(
            number,
            people[number - 1],
            round(spoken.start_s * SAMPLE_RATE_HZ),
            round(spoken.end_s * SAMPLE_RATE_HZ),
            spoken.text,
        )
        placed, tick = line(reference, box, self.profile), self.profile.ticks_per_s
        first_s, last_s = placed.start / tick, placed.end / tick
        words = tuple(
            replace(
                word,
                start_s=min(max(word.start_s, first_s), last_s),
                end_s=min(max(word.end_s, first_s), last_s),
            )
            for word in spoken.words
        )
        return _TimedLine(placed, words, spoken.confidence)


def _finish(turn: Turn, rules: TurnRules, draft: _Draft) -> str:
    """A turn's text; the last one opens the answer, or writes it where that is asked for."""
    text = render_turn(turn, rules.profile)
    if turn.box is not None:
        return text
    if not rules.model_answer:
        return text + ANSWER
    every = [row.line for group in draft.groups for row in group]
    return text + render_answer(sorted(every, key=lambda one: one.start), rules.profile)


def _spoken(found: Recognition, diarization: Diarization) -> list[SpokenLine]:
    speakers, sure = assign(found.words, diarization.active)
    return lines(found.words, found.joined, speakers, sure)


def _confidence(row: _TimedLine) -> LineConfidence:
    sure = [word.confidence for word in row.words if word.confidence is not None]
    return LineConfidence(sum(sure) / len(sure) if sure else None, row.sure, None)


def _gaps(speech: Sequence[Region], words: Sequence[Word]) -> list[Region]:
    """Speech away from all words."""
    found = []
    spans = sorted((word.start_s - _MARGIN_S, word.end_s + _MARGIN_S) for word in words)
    for start_s, end_s in speech:
        at = start_s
        for low, high in spans:
            if high <= at or low >= end_s:
                continue
            found.append((at, low))
            at = max(at, high)
        found.append((at, end_s))
    return [(a, b) for a, b in found if b - a >= _SHORTEST_GAP_S]


def _together(one: Recognition, other: Recognition) -> Recognition:
    """Words of both, in order of start."""
    rows = [*zip(one.words, one.joined, strict=True), *zip(other.words, other.joined, strict=True)]
    rows.sort(key=lambda row: (row[0].start_s, row[0].end_s))
    left_out = dict(Counter(one.left_out) + Counter(other.left_out))
    return replace(
        one,
        words=tuple(word for word, _ in rows),
        joined=tuple(joined for _, joined in rows),
        left_out=left_out,
    )
