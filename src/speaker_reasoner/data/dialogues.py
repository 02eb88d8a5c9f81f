"""Reference segments to training dialogues."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from ..protocol import (
    Answer,
    Box,
    CacheEntry,
    Overview,
    Profile,
    Trace,
    Turn,
    observe,
    opening,
    render_turn,
)
from ..protocol.markup import ANSWER, ANSWER_END
from ..protocol.observations import (
    Reference,
    box_ticks,
    floor_ticks,
    line,
    observations,
    shortest_ticks,
    slice_samples,
)
from ..protocol.turns import render_answer


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
