"""The cascade's engine: answers the turns of the dialogue from a recogniser's words and a diarizer's speakers."""

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
from ...protocol.grammar import TurnRules
from ...protocol.markup import ANSWER
from ...protocol.turns import render_answer
from ...speech import Detect, Region, detector, uncovered
from ...transcript import Word
from ...voices.linking import Trust
from ...voices.witness import Points, Witness
from ..base import Reply, Request, Session
from ..comparing import load_witness
from .diarizer import Diarizer
from .drafts import UNFIT, Draft, TimedLine, lay_out, limited, spoken_lines, timed_line, within
from .gender import GendersOf
from .recogniser import Recogniser, Recognition
from .segmentation import Floats

PROFILE = Profile(
    name="native",
    chunk_s=90.0,
    max_turns=10_000,  # more than boxes of a chunk that advance by a tick each
    max_speakers=30,
    domain="real speech, in the languages that the recogniser knows",
)
_TRUST = Trust(same=8.0, other=8.0, least=-30.0, most=30.0)
"""High (assumed), because its speaker numbers come from embeddings already: the same embeddings, compared once
more line by line, shall not overrule them."""
_KEPT_CHUNKS = 64
"""Drafts that are kept, more than recordings are under way at once: a finished chunk is asked for again, by
the dialogues over speech without words."""


class CascadeEngine:
    """Answers turns from a recogniser's words and a diarizer's speakers.

    Args:
        recogniser: samples to words.
        diarizer: samples to who speaks when.
        profile: chunk length and limits.
        genders: samples and who speaks when to the gender of each speaker; if `None`, all are unknown.
        model: the name that loads it, as a transcript records it.
    """

    name = "cascade"
    in_order = True
    trust = _TRUST

    def __init__(
        self,
        recogniser: Recogniser,
        diarizer: Diarizer,
        profile: Profile = PROFILE,
        genders: GendersOf | None = None,
        model: str = "cascade",
    ) -> None:
        self.model = model
        self.recogniser = recogniser
        self.diarizer = diarizer
        self.profile = profile
        self._genders = genders or _unknown
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
        """See `Engine`; `auto` is the diarizer's."""
        return self.diarizer.speech if name == "auto" else detector(name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`; its own is the diarizer's."""
        return self.diarizer.witness if name == "auto" else load_witness(name)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """See `Engine`. A chunk is drafted at its first turn."""
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
            following = draft.boxes[rules.turn] if rules.turn < len(draft.boxes) else None
            return _observation(draft, rules, draft.groups[rules.turn - 1], following)
        return self._one_more_box(session, draft, rules, box)

    def _overview(self, draft: Draft, rules: TurnRules) -> Reply:
        people = list(draft.genders)
        low = rules.count[0] if rules.count is not None else 0
        people += ["unknown"] * (min(low, self.profile.max_speakers) - len(people))
        box = draft.boxes[0] if draft.boxes else None
        if box is None and people and rules.chunk:  # there must be speakers, but there are no words
            box = Box(0, rules.chunk)
        text = render_turn(Turn(overview=Overview(tuple(people)), box=box), self.profile)
        if box is None:
            text += render_answer((), self.profile) if rules.model_answer else ANSWER
        code, doubt = draft.recognition.language, draft.recognition.doubt
        return Reply(
            text,
            noted={doubt: 1} if doubt else {},
            language=(code, draft.recognition.language_probability) if code else None,
            left_out=draft.left_out,
            seconds=draft.seconds,
        )

    def _one_more_box(self, session: Session, draft: Draft, rules: TurnRules, box: Box) -> Reply:
        """The observation of a box over speech without words.

        It has no lines where the regions of the box were recognised twice already, where they have words
        that fit no line, and where the box only stands for speakers who must be there.
        """
        tick = self.profile.ticks_per_s
        start_s, end_s = box.start / tick, box.end / tick
        twice = any(a - 0.05 <= start_s and end_s <= b + 0.05 for a, b in draft.repeated)
        known = any(start_s <= word.start_s < end_s for word in draft.recognition.words)
        if twice or known or not rules.last:
            return _observation(draft, rules, ())
        language = _again(session.language, draft.recognition)
        recognition = self.recogniser.recognise(session.samples, [(start_s, end_s)], language)
        columns = draft.speakers or (int(draft.diarization.active.sum(axis=0).argmax()),)
        rows, unfit = spoken_lines(recognition, draft.diarization, columns)
        rows, too_long = within(rows, rules.budget(box.end - box.start))
        if box.end - box.start < tick // 10:
            rows, too_long = [], too_long + sum(len(row.words) for row in rows)
        timed = [
            timed_line(row, columns.index(row.speaker) + 1, draft.genders, box, self.profile)
            for row in rows
        ]
        timed.sort(key=lambda row: row.line.start)
        left_out = Counter(recognition.left_out) + Counter({UNFIT: unfit + too_long})
        return replace(_observation(draft, rules, timed), left_out=dict(left_out))

    def _draft(self, session: Session, count: tuple[int, int] | None) -> Draft:
        """The draft of a chunk; those of the last chunks are kept, by their samples."""
        samples = session.samples
        digest = zlib.crc32(np.ascontiguousarray(samples).data)
        key = (len(samples), digest, session.language, count)
        drafted = self._drafts.get(key)
        if drafted is None:
            drafted = self._drafts[key] = self._listen(samples, session.language, count)
        self._drafts.move_to_end(key)
        while len(self._drafts) > _KEPT_CHUNKS:
            self._drafts.popitem(last=False)
        return drafted

    def _listen(
        self, samples: Samples, language: str | None, count: tuple[int, int] | None
    ) -> Draft:
        began = time.perf_counter()
        most = self.profile.max_speakers if count is None else count[1]
        diarization = limited(
            self.diarizer.diarize(samples, count), min(most, self.profile.max_speakers)
        )
        speech = self.diarizer.speech(samples)
        diarized = time.perf_counter()
        recognition = self.recogniser.recognise(samples, speech, language)
        gaps = tuple(_gaps(speech, recognition.words)) if recognition.words else ()
        if gaps:
            other = self.recogniser.recognise(samples, gaps, _again(language, recognition))
            recognition = _together(recognition, other)
        understood = time.perf_counter()
        draft = lay_out(samples, recognition, diarization, self.profile, self._genders, gaps)
        seconds = {"diarize": diarized - began, "recognise": understood - diarized}
        seconds["assign"] = time.perf_counter() - understood
        return replace(draft, seconds=seconds)


def _unknown(samples: Samples, active: Floats, speakers: Sequence[int]) -> tuple[str, ...]:
    return ("unknown",) * len(speakers)


def _observation(
    draft: Draft, rules: TurnRules, timed: Sequence[TimedLine], following: Box | None = None
) -> Reply:
    """The lines of an observation, then the next box, or the answer where that is asked for."""
    rows, lost = list(timed), 0
    text = render_turn(Turn(lines=tuple(row.line for row in timed), box=following), rules.profile)
    if following is None and not rules.model_answer:
        text += ANSWER
    elif following is None:
        every = sorted((row for group in draft.groups for row in group), key=_start)
        answer, lost = within(every, 2 * rules.budget(rules.chunk))
        text += render_answer([row.line for row in answer], rules.profile)
        rows += answer
    return Reply(
        text,
        confidences=tuple(_confidence(row) for row in rows),
        embeddings=_embeddings(draft, rows),
        words=tuple(row.words for row in rows),
        left_out={UNFIT: lost} if lost else {},
    )


def _start(row: TimedLine) -> int:
    return row.line.start


def _embeddings(draft: Draft, rows: Sequence[TimedLine]) -> Points | None:
    every = draft.diarization.embeddings
    return None if every is None else every[[row.column for row in rows]]


def _confidence(row: TimedLine) -> LineConfidence:
    sure = [word.confidence for word in row.words if word.confidence is not None]
    return LineConfidence(sum(sure) / len(sure) if sure else None, row.sure, None)


def _gaps(speech: Sequence[Region], words: Sequence[Word]) -> list[Region]:
    """Speech without a word; see `uncovered`."""
    return uncovered(speech, ((word.start_s, word.end_s) for word in words))


def _again(given: str | None, recognition: Recognition) -> str | None:
    """The language in which speech is listened to again: as it was given (`zh-Hant`), if it was recognised (`zh`)."""
    recognised = recognition.language
    if recognised is None or (given is not None and given.partition("-")[0] == recognised):
        return given
    return recognised


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
