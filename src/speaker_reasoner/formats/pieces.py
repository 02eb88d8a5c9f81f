"""Sessions to pieces of 40 to 50 s: cut where nobody speaks, or where the fewest do.

Used by Sec. "Evaluation" (a) and the first two training stages (arXiv 2604.03074, which does not publish where it
cuts). A segment that a cut goes through belongs to the piece that holds most of it, and is clipped to that piece;
`Piece.clipped` counts them. Its words are clipped, too: if some of them lie outside, the times of all are dropped,
since its text stays whole.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import DataError
from ..transcript import Segment, Transcript, Word


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a session.

    Attributes:
        start_s: where it starts in the session.
        transcript: of the piece, in seconds of it; its recording is the session's with
            `-0001`, `-0002`, ... appended.
        clipped: segments that go on outside it.
    """

    start_s: float
    transcript: Transcript
    clipped: int


def cut(session: Transcript, shortest_s: float, longest_s: float) -> list[Piece]:
    """Cut a session into pieces that follow each other without a gap.

    Args:
        session: its segments and its duration.
        shortest_s: of a piece; only the last may be shorter.
        longest_s: of a piece.

    Raises:
        DataError: the lengths do not fit each other.
    """
    if not 0 < shortest_s < longest_s:
        raise DataError(
            f"pieces of {shortest_s:g} to {longest_s:g} s: expected 0 < shortest < longest"
        )
    edges = [0.0, *_cuts(session, shortest_s, longest_s), session.duration_s]
    inside: list[list[Segment]] = [[] for _ in edges[1:]]
    clipped = [0] * len(inside)
    for segment in session.segments:
        at = _home(segment, edges)
        start_s, end_s = max(segment.start_s, edges[at]), min(segment.end_s, edges[at + 1])
        clipped[at] += (start_s, end_s) != (segment.start_s, segment.end_s)
        inside[at].append(
            replace(
                segment,
                start_s=round(start_s - edges[at], 6),
                end_s=round(end_s - edges[at], 6),
                words=_words(segment, edges[at], edges[at + 1]),
            )
        )
    return [
        Piece(
            edges[i],
            Transcript(
                f"{session.recording}-{i + 1:04d}",
                round(edges[i + 1] - edges[i], 6),
                tuple(rows),
                unscored=_unscored(session, edges[i], edges[i + 1]),
            ),
            clipped[i],
        )
        for i, rows in enumerate(inside)
    ]


def _unscored(
    session: Transcript, first_s: float, last_s: float
) -> tuple[tuple[float, float], ...]:
    """The stretches of a piece that are not scored, in seconds of the piece."""
    return tuple(
        (round(max(start_s, first_s) - first_s, 6), round(min(end_s, last_s) - first_s, 6))
        for start_s, end_s in session.unscored
        if start_s < last_s and end_s > first_s
    )


def _words(segment: Segment, first_s: float, last_s: float) -> tuple[Word, ...] | None:
    """The words of a segment in a piece; `None` if one lies outside."""
    words = segment.words
    if words is None or any(w.start_s > last_s or w.end_s < first_s for w in words):
        return None
    return tuple(
        replace(
            word,
            start_s=round(max(word.start_s, first_s) - first_s, 6),
            end_s=round(min(word.end_s, last_s) - first_s, 6),
        )
        for word in words
    )


def _cuts(session: Transcript, shortest_s: float, longest_s: float) -> list[float]:
    """Greedy: each piece ends in the middle of the widest gap among those with the fewest talking."""
    starts = sorted(s.start_s for s in session.segments)
    ends = sorted(s.end_s for s in session.segments)
    events = sorted({*starts, *ends})
    cuts: list[float] = []
    at = 0.0
    while session.duration_s - at > longest_s:
        low, high = at + shortest_s, at + longest_s
        inner = events[bisect_right(events, low) : bisect_left(events, high)]
        at = _quietest([low, *inner, high], starts, ends)
        cuts.append(at)
    return cuts


def _quietest(edges: Sequence[float], starts: Sequence[float], ends: Sequence[float]) -> float:
    """The middle of the best interval between neighbouring edges."""

    def rank(i: int) -> tuple[int, float]:
        middle = (edges[i] + edges[i + 1]) / 2
        talking = bisect_right(starts, middle) - bisect_right(ends, middle)
        return talking, edges[i] - edges[i + 1]

    best = min(range(len(edges) - 1), key=rank)
    return round((edges[best] + edges[best + 1]) / 2, 3)


def _home(segment: Segment, edges: Sequence[float]) -> int:
    """The piece that holds most of a segment, the earlier of equals."""
    first = min(max(bisect_right(edges, segment.start_s) - 1, 0), len(edges) - 2)
    last = min(max(bisect_left(edges, segment.end_s) - 1, first), len(edges) - 2)
    return max(
        range(first, last + 1),
        key=lambda i: (min(segment.end_s, edges[i + 1]) - max(segment.start_s, edges[i]), -i),
    )
