"""Spans of time: which overlap, and which part of one belongs to nobody else."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from .transcript import Segment


class Span(Protocol):
    """Anything with a start and an end in seconds."""

    @property
    def start_s(self) -> float: ...

    @property
    def end_s(self) -> float: ...


def overlap(one: Span, other: Span) -> bool:
    """Return whether two spans share any time."""
    return other.start_s < one.end_s and one.start_s < other.end_s


def overlapped(one: Span, spans: Iterable[Span]) -> bool:
    """Return whether another span than this very one shares time with it."""
    return any(other is not one and overlap(one, other) for other in spans)


def alone(one: Span, spans: Iterable[Span]) -> tuple[float, float]:
    """The longest part of a span that no other one overlaps, as start and end in seconds."""
    others = sorted((s.start_s, s.end_s) for s in spans if s is not one)
    best, at = (one.start_s, one.start_s), one.start_s
    for start_s, end_s in [*others, (one.end_s, one.end_s)]:
        last = min(start_s, one.end_s)
        if last - at > best[1] - best[0]:
            best = (at, last)
        at = max(at, min(end_s, one.end_s))
    return best


def find_overlaps(segments: Sequence[Segment]) -> list[bool]:
    """Return whether each of the segments, ordered by start, overlaps one of another speaker."""
    overlaps = [False] * len(segments)
    for i, segment in enumerate(segments):
        for j in range(i + 1, len(segments)):
            if segments[j].start_s >= segment.end_s:
                break
            if segments[j].speaker != segment.speaker:
                overlaps[i] = overlaps[j] = True
    return overlaps
