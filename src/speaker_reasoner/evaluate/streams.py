"""The greedy search of ORC-WER: which stream of the hypothesis each segment of the reference goes to.

MeetEval's search (`greedy_combination_matching`: segments move one after the other to where they
cost least, first with substitutions of cost 2, then 1, until none moves), with the same result.
Where MeetEval fills whole tables of distances, this fills a band around their diagonals: a path of
cost C from corner to corner stays within it (Ukkonen, 1985). Every cost that is read is checked
against the band's width; if the band was too narrow, the pass is repeated with one twice as wide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .extra import load

_PASSES = 49  # MeetEval's bound for each cost of substitutions

_Ints = npt.NDArray[np.uint64]


class _TooNarrowError(Exception):
    """A cost was read that a path outside of the band may undercut."""


@dataclass(frozen=True, slots=True)
class _Column:
    """Costs in front of (or behind) a place of a stream's reference, by words of the stream used.

    Attributes:
        words: of the reference, before the place.
        first: number of words of the stream that `costs[0]` stands for.
        costs: one for each number of words from `first` on.
    """

    words: int
    first: int
    costs: _Ints

    @classmethod
    def at_the_start(cls, size: int, width: int) -> "_Column":
        return cls(0, 0, np.arange(min(size, width) + 1, dtype=np.uint64))

    def after(self, segment: _Ints, stream: _Ints, width: int, substitution: int) -> "_Column":
        """The costs behind `segment`, if it comes next in this stream."""
        words = self.words + len(segment)
        low = min(max(0, words - width), len(stream))
        high = min(len(stream), words + width)
        last = self.first + len(self.costs) - 1
        costs = self.costs
        if high > last:  # from beyond the band: insertions
            costs = np.append(costs, costs[-1] + np.arange(1, high - last + 1, dtype=np.uint64))
        stretch = stream[self.first : self.first + len(costs) - 1]
        costs = _forward()(costs, stretch, segment, cost_substitution=substitution)
        return _Column(words, low, costs[low - self.first :])


@cache
def _forward() -> Any:
    """MeetEval's loop over one column of the table after the other."""
    return load("meeteval.wer.matching.cy_greedy_combination_matching").cy_forward_col


class _Stream:
    """The words of one stream, and the costs of what is in front of a place and what is behind it."""

    def __init__(self, words: _Ints, segments: Sequence[_Ints], width: int, substitution: int):
        self._width = width
        self._size = len(words)
        self._after = partial(_Column.after, stream=words, width=width, substitution=substitution)
        self.front = _Column.at_the_start(self._size, width)
        mirrored = words[::-1].copy()
        self._behind = [_Column.at_the_start(self._size, width)]
        for segment in reversed(segments):
            self._behind.append(
                self._behind[-1].after(segment[::-1].copy(), mirrored, width, substitution)
            )
        self.cost = self._met(self.front, self._behind[-1])

    def with_next(self, segment: _Ints) -> tuple[_Column, int]:
        """The costs in front if `segment` comes next, and what the stream then costs in all."""
        front = self._after(self.front, segment)
        return front, self._met(front, self._behind[-1])

    def without_next(self) -> int:
        """What the stream costs without the segment that comes next in it."""
        return self._met(self.front, self._behind[-2])

    def passed(self) -> None:
        """The segment that came next has been dealt with."""
        self._behind.pop()

    def _met(self, front: _Column, behind: _Column) -> int:
        """The cost of the cheapest path through both columns."""
        end = self._size - behind.first  # the words that `behind` uses are counted from the end
        low = max(front.first, end - len(behind.costs) + 1)
        high = min(front.first + len(front.costs), end + 1)
        if low >= high:
            raise _TooNarrowError
        one = front.costs[low - front.first : high - front.first]
        other = behind.costs[end - high + 1 : end - low + 1][::-1]
        cost = int((one + other).min())
        if cost + abs(self._size - front.words - behind.words) > 2 * self._width:
            raise _TooNarrowError
        return cost


def assign(
    segments: Sequence[Sequence[str]], speakers: Sequence[str], streams: Sequence[Sequence[str]]
) -> list[int]:
    """Give each reference segment to a stream of the hypothesis, so that all cost little.

    Args:
        segments: the words of each segment, in order; none is empty.
        speakers: of each segment.
        streams: the words of each stream; none is empty.

    Returns:
        For each segment the number of its stream.
    """
    codes: dict[str, int] = {}

    def coded(words: Sequence[str]) -> _Ints:
        return np.array([codes.setdefault(word, len(codes)) for word in words], dtype=np.uint64)

    rows, columns = [coded(one) for one in segments], [coded(one) for one in streams]
    assignment = _by_speaker(rows, speakers, columns)
    for substitution in (2, 1):
        for _ in range(_PASSES):
            before = assignment
            assignment = _pass(rows, columns, before, substitution)
            if assignment == before:
                break
    return assignment


def _by_speaker(
    rows: Sequence[_Ints], speakers: Sequence[str], columns: Sequence[_Ints]
) -> list[int]:
    """Where the search starts: cpWER's mapping; speakers that it leaves over go where they cost least."""
    spoken: dict[str, list[_Ints]] = {}
    for speaker, row in zip(speakers, rows, strict=True):
        spoken.setdefault(speaker, []).append(row)
    nothing = np.array([], dtype=np.uint64)
    count = max(len(spoken), len(columns))
    said = [np.concatenate(parts) for parts in spoken.values()]
    said += [nothing] * (count - len(said))
    streams = [*columns, *[nothing] * (count - len(columns))]
    distance = load("rapidfuzz.distance").Levenshtein.distance
    costs = np.array([[distance(one, other) for other in streams] for one in said])
    matched = load("scipy.optimize").linear_sum_assignment(costs)[1]
    chosen = {
        speaker: int(stream) if stream < len(columns) else int(costs[i, : len(columns)].argmin())
        for i, (speaker, stream) in enumerate(zip(spoken, matched, strict=False))
    }
    return [chosen[speaker] for speaker in speakers]


def _pass(
    rows: Sequence[_Ints], columns: Sequence[_Ints], assignment: list[int], substitution: int
) -> list[int]:
    """Move each segment once, in order, to where all streams together cost least."""
    kinds = load("rapidfuzz.distance")
    distance = (kinds.Levenshtein if substitution == 1 else kinds.Indel).distance
    given: list[list[_Ints]] = [[] for _ in columns]
    for stream, row in zip(assignment, rows, strict=True):
        given[stream].append(row)
    longest = max(map(len, rows))
    widths = []
    for column, mine in zip(columns, given, strict=True):
        joined = np.concatenate([*mine, np.array([], dtype=np.uint64)])
        needed = distance(joined, column) + abs(len(joined) - len(column))
        widths.append(_enough(needed, longest))
    while True:
        try:
            return _moved(
                rows,
                [
                    _Stream(column, mine, width, substitution)
                    for column, mine, width in zip(columns, given, widths, strict=True)
                ],
                assignment,
            )
        except _TooNarrowError:
            widths = [2 * width for width in widths]


def _enough(needed: int, longest: int) -> int:
    """Width of a band in words: the paths that there are, one more segment, and a few moves."""
    return needed // 2 + longest + 16


def _moved(
    rows: Sequence[_Ints], streams: Sequence[_Stream], assignment: Sequence[int]
) -> list[int]:
    moved = []
    for row, now in zip(rows, assignment, strict=True):
        here = streams[now]
        stays, (front, without) = here.cost, (here.with_next(row)[0], here.without_next())
        best, least, after = now, stays - without, (front, stays)
        if least > -len(row):  # all of its words are right where it is: no stream has more for it
            for number, stream in enumerate(streams):
                if number != now:
                    front, costs = stream.with_next(row)
                    # Of equals the first, and the one where it is before any.
                    if costs - stream.cost < least:
                        best, least, after = number, costs - stream.cost, (front, costs)
        here.passed()
        if best != now:
            here.cost = without
        streams[best].front, streams[best].cost = after
        moved.append(best)
    return moved
