"""The engine: turns of the dialogue, answered from what recogniser and diarizer found in the chunk."""

import time
import zlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...audio import Samples
from ...protocol import Box, Overview, Profile, Turn, render_turn
from ...protocol.confidence import LineConfidence
from ...protocol.grammar import LINE_BYTES, TurnRules
from ...protocol.markup import ANSWER
from ...protocol.turns import render_answer
from ...speech import Detect, Region, detector, uncovered
from ...transcript import Word
from ...voices.linking import Trust
from ...voices.witness import Points, Witness
from ..base import Reply, Request, Session
from ..comparing import load_witness
from .diarizer import Diarizer
from .drafts import UNFIT, Draft, TimedLine, draft, limited, spoken, timed_line, within
from .recogniser import Recogniser, Recognition

PROFILE = Profile(
    name="native",
    chunk_s=90.0,
    max_turns=10_000,  # more than boxes that go on by a tick can be drawn
    max_speakers=30,
    domain="real speech, in the languages that the recogniser knows",
)
_TRUST = Trust(same=8.0, other=8.0, least=-30.0, most=30.0)
"""Its numbers are of voices already: a second comparison of single lines does not overrule them."""
_KEPT_CHUNKS = 64
"""More than recordings are under way at once: each chunk is asked for once more when it is finished."""
_SHORTEST_GAP_S, _MARGIN_S = 0.4, 0.25
"""Speech so long without a word, and so far from one, is listened to once more."""


class CascadeEngine:
    """Answers turns from a recogniser's words and a diarizer's speakers.

    Args:
        recogniser: samples to words.
        diarizer: samples to who speaks when.
        profile: chunk length and limits.
        model: what a transcript records: the name that loads it.
    """

    name = "cascade"
    in_order = True
    trust = _TRUST

    def __init__(
        self,
        recogniser: Recogniser,
        diarizer: Diarizer,
        profile: Profile = PROFILE,
        model: str = "cascade",
    ) -> None:
        self.model = model
        self.recogniser = recogniser
        self.diarizer = diarizer
        self.profile = profile
        self._drafts: OrderedDict[tuple[Any, ...], Draft] = OrderedDict()

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return {
            "engine": self.name,
            "model": self.model,
            "recogniser": self.recogniser.name,
            "diarizer": self.diarizer.name,
            "word_times": True,
            **self.recogniser.describe(),
            **self.diarizer.describe(),
        }

    def detector(self, name: str) -> Detect:
        """See `Engine`; its own choice is the diarizer's."""
        return self.diarizer.speech if name == "auto" else detector(name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`; its own is the diarizer's."""
        return self.diarizer.witness if name == "auto" else load_witness(name)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """See `Engine`. A chunk is listened to when its first turn is asked for."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        session, rules = request.session, request.rules
        found = session.memory.get("draft")
        if found is None:
            found = session.memory["draft"] = self._draft(session, rules.count)
        if rules.turn == 0:
            return self._overview(found, rules)
        box = rules.box or Box(0, rules.chunk)
        if rules.turn <= len(found.boxes) and found.boxes[rules.turn - 1] == box and not rules.last:
            following = found.boxes[rules.turn] if rules.turn < len(found.boxes) else None
            return _observation(found, rules, found.groups[rules.turn - 1], following)
        return self._insisted(session, found, rules, box)

    def _overview(self, found: Draft, rules: TurnRules) -> Reply:
        people = list(found.genders)
        low = rules.count[0] if rules.count is not None else 0
        people += ["unknown"] * (min(low, self.profile.max_speakers) - len(people))
        box = found.boxes[0] if found.boxes else None
        if box is None and people and rules.chunk:  # whoever must be there was not understood
            box = Box(0, rules.chunk)
        text = render_turn(Turn(overview=Overview(tuple(people)), box=box), self.profile)
        if box is None:
            text += render_answer((), self.profile) if rules.model_answer else ANSWER
        code = found.recognition.language
        return Reply(
            text,
            language=(code, found.recognition.language_probability) if code else None,
            left_out=found.left_out,
            seconds=found.seconds,
        )

    def _insisted(self, session: Session, found: Draft, rules: TurnRules, box: Box) -> Reply:
        """A box that speech was found in without a word.

        Nothing is said in one that was listened to twice, in which something was understood that fits no
        line, or which only stands for people who must be there.
        """
        tick = self.profile.ticks_per_s
        start_s, end_s = box.start / tick, box.end / tick
        twice = any(a - 0.05 <= start_s and end_s <= b + 0.05 for a, b in found.heard_again)
        known = any(start_s <= word.start_s < end_s for word in found.recognition.words)
        if twice or known or not rules.last:
            return _observation(found, rules, ())
        language = found.recognition.language or session.language
        heard = self.recogniser.recognise(session.samples, [(start_s, end_s)], language)
        columns = found.speakers or (int(found.diarization.active.sum(axis=0).argmax()),)
        rows, unfit = spoken(heard, found.diarization, columns)
        rows, unpaid = within(rows, rules.budget(box.end - box.start))
        if box.end - box.start < tick // 10:
            rows, unpaid = [], unpaid + sum(len(row.words) for row in rows)
        timed = [
            timed_line(row, columns.index(row.speaker) + 1, found.genders, box, self.profile)
            for row in rows
        ]
        timed.sort(key=lambda row: row.line.start)
        left_out = Counter(heard.left_out) + Counter({UNFIT: unfit + unpaid})
        return replace(_observation(found, rules, timed), left_out=dict(left_out))

    def _draft(self, session: Session, count: tuple[int, int] | None) -> Draft:
        """Listen to a chunk; the last few are remembered by their samples."""
        samples = session.samples
        digest = zlib.crc32(np.ascontiguousarray(samples).data)
        key = (len(samples), digest, session.language, count)
        found = self._drafts.get(key)
        if found is None:
            found = self._drafts[key] = self._listen(samples, session.language, count)
        self._drafts.move_to_end(key)
        while len(self._drafts) > _KEPT_CHUNKS:
            self._drafts.popitem(last=False)
        return found

    def _listen(
        self, samples: Samples, language: str | None, count: tuple[int, int] | None
    ) -> Draft:
        began = time.perf_counter()
        most = self.profile.max_speakers if count is None else count[1]
        diarization = limited(
            self.diarizer.diarize(samples, count), min(most, self.profile.max_speakers)
        )
        speech = self.diarizer.speech(samples)
        told_apart = time.perf_counter()
        found = self.recogniser.recognise(samples, speech, language)
        again = tuple(_gaps(speech, found.words)) if found.words else ()
        if again:
            found = _together(found, self.recogniser.recognise(samples, again, found.language))
        understood = time.perf_counter()
        laid_out = draft(samples, found, diarization, self.profile, again)
        seconds = {"diarize": told_apart - began, "recognise": understood - told_apart}
        seconds["assign"] = time.perf_counter() - understood
        return replace(laid_out, seconds=seconds)


def _observation(
    found: Draft, rules: TurnRules, own: Sequence[TimedLine], following: Box | None = None
) -> Reply:
    """The lines of an observation, then the next box, or the answer where that is asked for."""
    told, lost = list(own), 0
    text = render_turn(Turn(lines=tuple(row.line for row in own), box=following), rules.profile)
    if following is None and not rules.model_answer:
        text += ANSWER
    elif following is None:
        answer = sorted((row for group in found.groups for row in group), key=_start)
        budget = 2 * rules.budget(rules.chunk)
        for row in sorted(answer, key=lambda row: -_bytes(row)):
            if sum(map(_bytes, answer)) <= budget:
                break
            answer.remove(row)
            lost += len(row.words)
        text += render_answer([row.line for row in answer], rules.profile)
        told += answer
    return Reply(
        text,
        confidences=tuple(_confidence(row) for row in told),
        embeddings=_embeddings(found, told),
        words=tuple(row.words for row in told),
        left_out={UNFIT: lost} if lost else {},
    )


def _start(row: TimedLine) -> int:
    return row.line.start


def _bytes(row: TimedLine) -> int:
    return LINE_BYTES + len(row.line.text.encode())


def _embeddings(found: Draft, rows: Sequence[TimedLine]) -> Points | None:
    every = found.diarization.embeddings
    return None if every is None else every[[row.column for row in rows]]


def _confidence(row: TimedLine) -> LineConfidence:
    sure = [word.confidence for word in row.words if word.confidence is not None]
    return LineConfidence(sum(sure) / len(sure) if sure else None, row.sure, None)


def _gaps(speech: Sequence[Region], words: Sequence[Word]) -> list[Region]:
    """Speech away from all words."""
    spans = ((word.start_s - _MARGIN_S, word.end_s + _MARGIN_S) for word in words)
    return uncovered(speech, spans, _SHORTEST_GAP_S)


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
