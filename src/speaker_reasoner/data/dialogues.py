"""Reference segments to observations, observations to training dialogues.

Observations follow the tau rule of Sec. 2 (arXiv 2604.03074): neighbours A, B with overlap d_AB
share an observation unless d_AB/d_A < tau and d_AB/d_B < tau. Differs from the paper: a segment is
compared with every segment of the open observation, not with the last one alone, so that the second
of two backchannels inside one long segment is heard together with it as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..audio import SAMPLE_RATE_HZ
from ..protocol import (
    Answer,
    Box,
    CacheEntry,
    Line,
    Overview,
    Profile,
    Trace,
    Turn,
    observe,
    opening,
    render_turn,
)
from ..protocol.markup import ANSWER, ANSWER_END
from ..protocol.turns import render_answer

TAU = 0.8
BOX_MARGIN_S = 0.05
"""A box spans its segments and this much around them, so that a box that is a little off when the
model draws it still holds every word."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference segment in samples of its chunk; `speaker` counts by order of appearance."""

    speaker: int
    gender: str
    start_samples: int
    end_samples: int
    text: str


def observations(segments: Sequence[Reference], tau: float = TAU) -> list[list[Reference]]:
    """Group segments, in order of start, into observations: every segment is in exactly one."""
    groups: list[list[Reference]] = []
    for segment in sorted(segments, key=lambda s: (s.start_samples, s.end_samples)):
        if groups and any(_heard_together(other, segment, tau) for other in groups[-1]):
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


def _heard_together(a: Reference, b: Reference, tau: float) -> bool:
    overlap = min(a.end_samples, b.end_samples) - max(a.start_samples, b.start_samples)
    shorter = min(a.end_samples - a.start_samples, b.end_samples - b.start_samples)
    return overlap >= tau * shorter


def box_ticks(group: Sequence[Reference], chunk_samples: int, profile: Profile) -> Box:
    """The observation's boundary: whole ticks around its segments and their margin, inside X."""
    margin = round(BOX_MARGIN_S * SAMPLE_RATE_HZ)
    first = max(0, min(s.start_samples for s in group) - margin)
    last = min(chunk_samples, max(s.end_samples for s in group) + margin)
    shortest, chunk = shortest_ticks(profile), floor_ticks(chunk_samples, profile)
    start = min(first * profile.ticks_per_s // SAMPLE_RATE_HZ, max(0, chunk - shortest))
    end = -(-last * profile.ticks_per_s // SAMPLE_RATE_HZ)
    return Box(start, max(min(end, chunk), start + shortest))


def floor_ticks(samples: int, profile: Profile) -> int:
    return samples * profile.ticks_per_s // SAMPLE_RATE_HZ


def shortest_ticks(profile: Profile) -> int:
    """0.1 s, the shortest box and segment of the protocol."""
    return profile.ticks_per_s // 10


def tick_samples(ticks: int, profile: Profile) -> int:
    return ticks * SAMPLE_RATE_HZ // profile.ticks_per_s


def line(segment: Reference, box: Box, profile: Profile) -> Line:
    """A segment as a line: nearest ticks, inside its box, at least 0.1 s long."""
    half = SAMPLE_RATE_HZ // 2
    start = (segment.start_samples * profile.ticks_per_s + half) // SAMPLE_RATE_HZ
    end = (segment.end_samples * profile.ticks_per_s + half) // SAMPLE_RATE_HZ
    shortest = shortest_ticks(profile)
    start = min(max(start, box.start), box.end - shortest)
    end = min(max(end, start + shortest), box.end)
    return Line(segment.speaker, segment.gender, start, end, segment.text)


def overview(segments: Sequence[Reference], cache: Sequence[CacheEntry] = ()) -> Overview:
    """Genders by speaker number: as the cache has it, else that of the speaker's first segment."""
    genders = {entry.speaker: entry.gender for entry in cache}
    for segment in sorted(segments, key=lambda s: (s.start_samples, s.end_samples)):
        genders.setdefault(segment.speaker, segment.gender)
    return Overview(tuple(genders[n] for n in sorted(genders)))


def dialogue(
    segments: Sequence[Reference],
    chunk_samples: int,
    profile: Profile,
    *,
    answer: bool = True,
    cache: Sequence[CacheEntry] = (),
) -> Trace:
    """The multi-turn dialogue over one chunk (stages 2 and 3), every assistant turn a target.

    Args:
        segments: numbered by order of appearance over cache and chunk.
        chunk_samples: length of the chunk X.
        cache: entries that stand before X (stage 3).
        answer: whether the last turn writes the whole transcript; without it that turn is cut after
            its opening tag, which is all that an assembled answer needs of the model.
    """
    groups = observations(segments)
    boxes = [box_ticks(group, chunk_samples, profile) for group in groups]
    lines = [
        tuple(line(s, box, profile) for s in group)
        for group, box in zip(groups, boxes, strict=True)
    ]
    everything = tuple(row for rows in lines for row in rows)
    trace = Trace(opening(profile, chunk_samples, cache=cache))
    for turn in range(len(groups) + 1):
        if turn:
            box = boxes[turn - 1]
            samples = slice_samples(box, chunk_samples, profile)
            trace += observe(profile, turn, *samples)
        text = render_turn(
            Turn(
                overview=None if turn else overview(segments, cache),
                lines=lines[turn - 1] if turn else (),
                box=boxes[turn] if turn < len(groups) else None,
            ),
            profile,
        )
        last = turn == len(groups)
        if last:
            text += render_answer(everything, profile) if answer else ANSWER
        trace += (Answer(text, closed=answer or not last),)
    return trace


def slice_samples(box: Box, chunk_samples: int, profile: Profile) -> tuple[int, int]:
    """The samples of an observation: a box's ticks, ended by the chunk's last sample."""
    return tick_samples(box.start, profile), min(tick_samples(box.end, profile), chunk_samples)


SINGLE_TURN = ("base", "sot", "times", "count")


def single_turn(
    task: str, segments: Sequence[Reference], chunk_samples: int, profile: Profile
) -> Trace:
    """A task of one turn over the whole chunk (stage 1).

    Args:
        task: `base`, the transcript with speakers, genders and times; `times`, the same without
            words; `sot`, the words alone, a new line wherever the speaker changes; `count`, how
            many speakers of which gender, as a dialogue's first turn says it.
        segments: numbered by order of appearance.
        chunk_samples: length of the chunk X.
    """
    parts = opening(profile, chunk_samples, task=task)
    return Trace((*parts, Answer(_single_answer(task, segments, chunk_samples, profile))))


def _single_answer(
    task: str, segments: Sequence[Reference], chunk_samples: int, profile: Profile
) -> str:
    if task == "count":
        return render_turn(Turn(overview=overview(segments)), profile)
    if task == "sot":
        by_start = sorted((s for s in segments if s.text), key=lambda s: s.start_samples)
        runs = groupby(by_start, key=lambda s: s.speaker)
        lines = ["".join(f" {s.text}" for s in run) + "\n" for _, run in runs]
        return f"{ANSWER}\n{''.join(lines)}{ANSWER_END}"
    whole = Box(0, max(floor_ticks(chunk_samples, profile), shortest_ticks(profile)))
    rows = [line(s, whole, profile) for s in sorted(segments, key=lambda s: s.start_samples)]
    if task == "times":
        rows = [replace(row, text="") for row in rows]
    return render_answer(rows, profile)
