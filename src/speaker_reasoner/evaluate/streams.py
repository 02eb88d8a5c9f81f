"""The greedy search of ORC-WER, which assigns each segment of the reference to a stream of the hypothesis.

MeetEval's search (`greedy_combination_matching`: segments move one after the other to where they
cost least, first with substitutions of cost 2, then 1, until none moves), with the same result.
Where MeetEval fills whole tables of distances, this fills a band around their diagonals: a path of
cost C from corner to corner stays within it (Ukkonen, 1985). Every cost that is read is checked
against the band's width; if the band was too narrow, the pass is repeated with one twice as wide.
Of the columns behind each place one in `_BLOCK` is kept, from which the others are made again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .counts import Skip
from .extra import load
from .mapping import cheapest_mapping

_PASSES = 49  # MeetEval's bound for each cost of substitutions
_BLOCK = 64  # segments

_Ints = npt.NDArray[np.uint64]


class _TooNarrowError(Exception):
    """A cost was read that a path outside of the band may undercut."""


@dataclass(frozen=True, slots=True)
class _Band:
    """Width of the searched band: how many words more, or fewer, than its reference a stream may have."""

    more: int
    fewer: int

    @classmethod
    def around(cls, cost: int, drift: int, longest: int) -> "_Band":
        """Return a band for paths of a cost that end `drift` words off, with room for one more segment."""
        spare = longest + 16
        return cls((cost + drift) // 2 + spare, (cost - drift) // 2 + spare)

    def holds(self, cost: int, drift: int) -> bool:
        """Return whether all paths of a cost that end `drift` words off are in the band."""
        return cost + drift <= 2 * self.more and cost - drift <= 2 * self.fewer

    def twice(self) -> "_Band":
        return _Band(2 * self.more, 2 * self.fewer)

    @property
    def width(self) -> int:
        return self.more + self.fewer + 1


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
    def at_the_start(cls, size: int, band: _Band) -> "_Column":
        return cls(0, 0, np.arange(min(size, band.more) + 1, dtype=np.uint64))

    def after(self, segment: _Ints, stream: _Ints, band: _Band, substitution: int) -> "_Column":
        """The costs behind `segment`, if it comes next in this stream."""
        words = self.words + len(segment)
        low = min(max(0, words - band.fewer), len(stream))
        high = min(len(stream), words + band.more)
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
    """The words of one stream, and the costs before and behind a place of its reference."""

    def __init__(self, words: _Ints, segments: Sequence[_Ints], band: _Band, substitution: int):
        self._words, self._mirrored = words, words[::-1].copy()
        self._band, self._substitution = band, substitution
        self._segments = segments[::-1]
        self.front = _Column.at_the_start(len(words), band)
        column = _Column.at_the_start(len(words), band)
        self._kept = [
            column
        ]  # costs behind the place where 0, `_BLOCK`, twice `_BLOCK`, ... segments are left
        for number, before in enumerate(self._columns(column, 0), start=1):
            column = before
            if number % _BLOCK == 0:
                self._kept.append(column)
        self._block: list[_Column] = []  # the columns behind the next places, the next one last
        self._left = len(segments)
        self.cost = self._met(self.front, column)

    def _columns(self, column: _Column, behind: int) -> Iterator[_Column]:
        """Yield the column behind each place, from the last segment on, but for the last `behind` segments."""
        for segment in islice(self._segments, behind, None):
            mirrored = segment[::-1].copy()
            column = column.after(mirrored, self._mirrored, self._band, self._substitution)
            yield column

    def _behind(self, count: int) -> _Column:
        """Return the costs behind the place, where so many segments are left."""
        number, place = divmod(count, _BLOCK)
        if number < len(self._kept) - 1 or not self._block:
            del self._kept[number + 1 :]
            columns = islice(self._columns(self._kept[-1], number * _BLOCK), _BLOCK - 1)
            self._block = [self._kept[-1], *columns]
        return self._block[place]

    def front_with(self, segment: _Ints) -> _Column:
        """Return the costs before the place if `segment` comes next."""
        return self.front.after(segment, self._words, self._band, self._substitution)

    def with_next(self, segment: _Ints) -> tuple[_Column, int]:
        """Return the same, and the cost of the whole stream then."""
        front = self.front_with(segment)
        return front, self._met(front, self._behind(self._left))

    def without_next(self) -> int:
        """Return the cost of the stream without its next segment."""
        return self._met(self.front, self._behind(self._left - 1))

    def passed(self) -> None:
        """Move the place behind the next segment."""
        self._left -= 1

    def _met(self, front: _Column, behind: _Column) -> int:
        """The cost of the cheapest path through both columns."""
        size = len(self._words)
        end = size - behind.first  # the words that `behind` uses are counted from the end
        low = max(front.first, end - len(behind.costs) + 1)
        high = min(front.first + len(front.costs), end + 1)
        if low >= high:
            raise _TooNarrowError
        one = front.costs[low - front.first : high - front.first]
        other = behind.costs[end - high + 1 : end - low + 1][::-1]
        cost = int((one + other).min())
        if not self._band.holds(cost, size - front.words - behind.words):
            raise _TooNarrowError
        return cost


def assign(
    segments: Sequence[Sequence[str]],
    speakers: Sequence[str],
    streams: Sequence[Sequence[str]],
    largest: int | None = None,
) -> list[int]:
    """Give each reference segment to a stream of the hypothesis, so that all cost little.

    Args:
        segments: the words of each segment, in order; none is empty.
        speakers: of each segment.
        streams: the words of each stream; none is empty.
        largest: number of costs in all bands above which there is no search; `None` for any.

    Returns:
        For each segment the number of its stream.

    Raises:
        Skip: the search is larger than that.
    """
    codes: dict[str, int] = {}

    def coded(words: Sequence[str]) -> _Ints:
        return np.array([codes.setdefault(word, len(codes)) for word in words], dtype=np.uint64)

    rows, columns = [coded(one) for one in segments], [coded(one) for one in streams]
    assignment = _by_speaker(rows, speakers, columns)
    for substitution in (2, 1):
        for _ in range(_PASSES):
            before = assignment
            assignment = _pass(rows, columns, before, substitution, largest)
            if assignment == before:
                break
    return assignment


def _by_speaker(
    rows: Sequence[_Ints], speakers: Sequence[str], columns: Sequence[_Ints]
) -> list[int]:
    """Return the first assignment: cpWER's mapping; speakers who are left over go to their cheapest stream."""
    spoken: dict[str, list[_Ints]] = {}
    for speaker, row in zip(speakers, rows, strict=True):
        spoken.setdefault(speaker, []).append(row)
    said = [np.concatenate(parts) for parts in spoken.values()]
    distance = load("rapidfuzz.distance").Levenshtein.distance
    nothing = np.array([], dtype=np.uint64)
    mapping = dict(cheapest_mapping(said, columns, nothing, np.ndarray.tolist, distance))
    chosen = {}
    for number, (speaker, words) in enumerate(zip(spoken, said, strict=True)):
        chosen[speaker] = mapping[number]
        if mapping[number] >= len(columns):
            costs = [distance(words, column) for column in columns]
            chosen[speaker] = costs.index(min(costs))
    return [chosen[speaker] for speaker in speakers]


def _pass(
    rows: Sequence[_Ints],
    columns: Sequence[_Ints],
    assignment: list[int],
    substitution: int,
    largest: int | None,
) -> list[int]:
    """Move each segment once, in order, to where all streams together cost least."""
    kinds = load("rapidfuzz.distance")
    distance = (kinds.Levenshtein if substitution == 1 else kinds.Indel).distance
    given: list[list[_Ints]] = [[] for _ in columns]
    for stream, row in zip(assignment, rows, strict=True):
        given[stream].append(row)
    longest = max(map(len, rows))
    lengths = [sum(map(len, mine)) for mine in given]
    bands = []
    for column, mine, length in zip(columns, given, lengths, strict=True):
        joined = np.concatenate([*mine, np.array([], dtype=np.uint64)])
        bands.append(_Band.around(distance(joined, column), len(column) - length, longest))
    while True:
        costs = sum(
            length * min(len(column), band.width)
            for length, column, band in zip(lengths, columns, bands, strict=True)
        )
        if largest is not None and costs > largest:
            raise Skip(f"too long for its errors: a search among {costs:,} costs, over {largest:,}")
        try:
            return _moved(
                rows,
                [
                    _Stream(column, mine, band, substitution)
                    for column, mine, band in zip(columns, given, bands, strict=True)
                ],
                assignment,
            )
        except _TooNarrowError:
            bands = [band.twice() for band in bands]


def _moved(
    rows: Sequence[_Ints], streams: Sequence[_Stream], assignment: Sequence[int]
) -> list[int]:
    moved = []
    for row, now in zip(rows, assignment, strict=True):
        here = streams[now]
        stays, front, without = here.cost, here.front_with(row), here.without_next()
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
