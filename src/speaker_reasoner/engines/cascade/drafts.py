"""Lays out a chunk's recognition and diarization as the dialogue will hold them: boxes, and the lines of each.

For any recognition and diarization, a draft follows the grammar of the dialogue: boxes advance, new speakers
take the next number, and texts contain no markup. Words that fit no line are counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ...protocol import Box, Line, Profile
from ...protocol.grammar import LINE_BYTES, TurnRules
from ...protocol.matcher import State, Words, advance, end_here
from ...protocol.observations import Reference, box_ticks, floor_ticks, line, observations
from ...speech import Region
from ...transcript import Word
from .diarizer import Diarization
from .gender import GendersOf
from .lines import SpokenLine, assign, lines, widened
from .recogniser import Recognition

UNFIT = "they did not fit a line of the dialogue"
_TEXT: State = (Words(1 << 30, b"\n", lambda *_: end_here(), least=1),)


@dataclass(frozen=True, eq=False, slots=True)
class TimedLine:
    """A line of the protocol.

    Attributes:
        words: with times in seconds of the chunk, inside the line.
        sure: probability that it is this speaker.
        column: of the speaker in the diarization.
    """

    line: Line
    words: tuple[Word, ...]
    sure: float
    column: int

    @property
    def text(self) -> str:
        return self.line.text


@dataclass(frozen=True, eq=False, slots=True)
class Draft:
    """The content of a chunk's dialogue.

    Attributes:
        groups: observations, each some lines in order of start; speakers count from 1 in order of
            appearance.
        boxes: of each observation.
        genders: by speaker.
        speakers: column of the diarization by speaker.
        diarization: of the chunk; at least one column.
        recognition: words and language.
        left_out: how many words were recognised and are in no line, by reason.
        repeated: regions that were recognised twice.
        seconds: computing time by stage.
    """

    groups: tuple[tuple[TimedLine, ...], ...]
    boxes: tuple[Box, ...]
    genders: tuple[str, ...]
    speakers: tuple[int, ...]
    diarization: Diarization
    recognition: Recognition
    left_out: dict[str, int]
    repeated: tuple[Region, ...]
    seconds: dict[str, float]


def limited(given: Diarization, most: int) -> Diarization:
    """Keep at least one speaker, and at most `most`: those with the most activity."""
    active, embeddings = given.active, given.embeddings
    if active.size == 0:  # words without any active speaker are given to one
        return Diarization(np.zeros((max(1, len(active)), 1), np.float32))
    if active.shape[1] <= most:
        return given
    keep = np.sort(np.argsort(-active.sum(axis=0), kind="stable")[:most])
    return Diarization(active[:, keep], None if embeddings is None else embeddings[keep])


def lay_out(
    samples: Samples,
    recognition: Recognition,
    diarization: Diarization,
    profile: Profile,
    genders: GendersOf,
    repeated: tuple[Region, ...] = (),
) -> Draft:
    """Lay out the dialogue of a chunk.

    Args:
        diarization: see `limited`.
        genders: of speakers.
        repeated: regions that were recognised twice.
    """
    rows, unfit = spoken_lines(recognition, diarization)
    if floor_ticks(len(samples), profile) < profile.ticks_per_s // 10:
        unfit, rows = unfit + sum(len(row.words) for row in rows), []  # no line is so short
    rows = widened(rows, diarization.active, len(samples) / SAMPLE_RATE_HZ)
    groups, boxes, too_long = _observed(rows, len(samples), profile)
    order = tuple(dict.fromkeys(row.speaker for group in groups for row in group))
    people = genders(samples, diarization.active, order)
    numbers = {column: number for number, column in enumerate(order, start=1)}
    timed = tuple(
        tuple(timed_line(row, numbers[row.speaker], people, box, profile) for row in group)
        for group, box in zip(groups, boxes, strict=True)
    )
    left_out = Counter(recognition.left_out) + Counter({UNFIT: unfit + too_long})
    return Draft(
        timed, tuple(boxes), people, order, diarization, recognition, dict(left_out), repeated, {}
    )


def spoken_lines(
    recognition: Recognition, diarization: Diarization, columns: Sequence[int] | None = None
) -> tuple[list[SpokenLine], int]:
    """Lines that a dialogue can hold, and how many words are in none.

    Args:
        columns: of the diarization, from whom the speakers are chosen; all if `None`.
    """
    active = diarization.active if columns is None else diarization.active[:, list(columns)]
    who, sure = assign(recognition.words, active)
    if columns is not None:
        who = [columns[one] for one in who]
    rows: list[SpokenLine] = []
    unfit = 0
    for row in lines(recognition.words, recognition.joined, who, sure):
        parts, lost = fitting(row)
        rows += parts
        unfit += lost
    return rows, unfit


def fitting(row: SpokenLine) -> tuple[list[SpokenLine], int]:
    """A line as the dialogue can hold it, and how many of its words it cannot.

    A word with a character of the markup is left out. Where the text repeats itself too often, another
    line begins.
    """
    parts: list[SpokenLine] = []
    words: list[Word] = []
    text, state, at, lost = "", _TEXT, 0, 0

    def end() -> None:
        if words:
            end_s = max(word.end_s for word in words)
            parts.append(
                replace(row, words=tuple(words), text=text, start_s=words[0].start_s, end_s=end_s)
            )

    for word in row.words:
        space = " " if row.text[at] == " " else ""
        at += len(space) + len(word.text)
        alone = advance(_TEXT, _encoded(word.text))
        if not alone:
            lost += 1
            continue
        piece = (space if words else "") + word.text
        after = advance(state, _encoded(piece))
        if not after:
            end()
            words, text, piece, after = [], "", word.text, alone
        words.append(word)
        text, state = text + piece, after
    end()
    return parts, lost


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _observed(
    rows: Sequence[SpokenLine], length: int, profile: Profile
) -> tuple[list[list[SpokenLine]], list[Box], int]:
    """Lines by observation, the box of each, and how many words did not fit any box.

    A box that would not advance is merged with the one before.
    """
    ordered = sorted(rows, key=_samples)
    references = [Reference(1, "unknown", *_samples(row), str(i)) for i, row in enumerate(ordered)]
    rules = TurnRules(profile, turn=1, chunk=floor_ticks(length, profile))
    groups: list[list[SpokenLine]] = []
    boxes: list[Box] = []
    lost = 0
    for group in observations(references):
        members = sorted((ordered[int(one.text)] for one in group), key=_samples)
        box = box_ticks(group, length, profile)
        if boxes:
            box = Box(box.start, max(box.end, boxes[-1].end))
            if box == boxes[-1]:
                boxes.pop()
                members = groups.pop() + members
        box = _roomy(box, members, rules)
        members, more = within(members, rules.budget(box.end - box.start))
        lost += more
        if members:
            groups.append(members)
            boxes.append(box)
    return groups, boxes, lost


def _samples(row: SpokenLine) -> tuple[int, int]:
    start = round(row.start_s * SAMPLE_RATE_HZ)
    return start, max(round(row.end_s * SAMPLE_RATE_HZ), start + 1)


def _roomy(box: Box, rows: Sequence[SpokenLine], rules: TurnRules) -> Box:
    """Lengthen a box until its budget holds its texts, but not beyond the chunk."""
    short = sum(map(_bytes, rows)) - rules.budget(box.end - box.start)
    ticks = -(-max(0, short) * rules.profile.ticks_per_s // 60)
    return Box(box.start, min(box.end + ticks, rules.chunk))


_Row = TypeVar("_Row", SpokenLine, TimedLine)


def _bytes(row: SpokenLine | TimedLine) -> int:
    """The bytes that a line takes of a turn's budget."""
    return LINE_BYTES + len(row.text.encode())


def within(rows: Sequence[_Row], budget: int) -> tuple[list[_Row], int]:
    """Drop the longest lines until the others fit a turn's budget; also returns how many words were lost."""
    kept, lost = list(rows), 0
    total = sum(map(_bytes, rows))
    for row in sorted(rows, key=_bytes, reverse=True):
        if total <= budget:
            break
        total -= _bytes(row)
        lost += len(row.words)
        kept = [one for one in kept if one is not row]
    return kept, lost


def timed_line(
    row: SpokenLine, number: int, people: Sequence[str], box: Box, profile: Profile
) -> TimedLine:
    """A line in ticks of its box, its words inside it."""
    gender = people[number - 1] if number <= len(people) else "unknown"
    placed = line(Reference(number, gender, *_samples(row), row.text), box, profile)
    first_s, last_s = placed.start / profile.ticks_per_s, placed.end / profile.ticks_per_s
    words = tuple(
        replace(
            word,
            start_s=min(max(word.start_s, first_s), last_s),
            end_s=min(max(word.end_s, first_s), last_s),
        )
        for word in row.words
    )
    return TimedLine(placed, words, row.confidence, row.speaker)
