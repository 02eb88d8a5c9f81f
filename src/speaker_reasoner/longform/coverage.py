"""Compares the lines of a chunk with detected speech: speech without a line, and lines in silence."""

from collections.abc import Iterable, Sequence

from ..protocol import Box
from ..reasoner import TranscribedLine
from ..speech import Region, uncovered

_MOST_BOXES = 8
"""Most observations that one chunk is asked for again (assumed)."""


def passed_over(
    speech: Sequence[Region], lines: Iterable[TranscribedLine], ticks_per_s: int
) -> Sequence[Region]:
    """Speech without a line; see `uncovered`.

    Args:
        speech: in seconds of the chunk, in order.
    """
    spans = ((one.line.start / ticks_per_s, one.line.end / ticks_per_s) for one in lines)
    return uncovered(speech, spans)


def boxes(gaps: Sequence[Region], ticks_per_s: int, chunk_ticks: int) -> list[Box]:
    """Observations over the longest gaps, the longest first."""
    boxes: list[Box] = []
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
        one
        for one in lines
        if any(
            a < one.line.end / ticks_per_s and one.line.start / ticks_per_s < b for a, b in speech
        )
    ]
