"""Whether what a chunk's lines cover is what a detector hears as speech: nothing passed over, nothing made up."""

from collections.abc import Iterable, Sequence

from ..protocol import Box
from ..reasoner import TranscribedLine
from ..speech import Region, uncovered

_SHORTEST_GAP_S = 0.4
_MARGIN_S = 0.25
"""Speech this near to a line is taken for part of it: lines are drawn tighter than detectors hear."""
_MOST_BOXES = 8
"""Observations that are insisted on in one chunk."""


def passed_over(
    speech: Sequence[Region], lines: Iterable[TranscribedLine], ticks_per_s: int
) -> Sequence[Region]:
    """Speech outside all lines.

    Args:
        speech: in seconds of the chunk, in order.
    """
    covered = (
        (h.line.start / ticks_per_s - _MARGIN_S, h.line.end / ticks_per_s + _MARGIN_S)
        for h in lines
    )
    return uncovered(speech, covered, _SHORTEST_GAP_S)


def boxes(gaps: Sequence[Region], ticks_per_s: int, chunk_ticks: int) -> list[Box]:
    """Observations over the longest gaps, the longest first."""
    boxes = []
    for start_s, end_s in sorted(gaps, key=lambda gap: gap[0] - gap[1])[:_MOST_BOXES]:
        start, end = int(start_s * ticks_per_s) - 1, int(end_s * ticks_per_s) + 2
        box = Box(max(0, start), min(chunk_ticks, end))
        if box.end - box.start > ticks_per_s // 10:
            boxes.append(box)
    return boxes


def in_speech(
    speech: Sequence[Region], lines: Iterable[TranscribedLine], ticks_per_s: int
) -> list[TranscribedLine]:
    """The lines that do not lie in silence as a whole."""
    return [
        h
        for h in lines
        if any(a < h.line.end / ticks_per_s and h.line.start / ticks_per_s < b for a, b in speech)
    ]
