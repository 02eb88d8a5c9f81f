"""The greedy search of ORC-WER, which assigns each segment of the reference to a stream of the hypothesis.

MeetEval's search (`greedy_combination_matching`: segments move one after the other to where they
cost least, first with substitutions of cost 2, then 1, until none moves), with the same result.
Where MeetEval fills whole tables of distances, this computes the few places of a column that a path
within a limit of cost can pass (Ukkonen, 1985): beyond them the costs rise by one a word. Every cost
that is read is checked against the limit; if that was too low, the pass is repeated with
one that leaves four times the room.
Of the columns behind each place, where all are too many, one in `_BLOCK` is kept, from which the
others are made again.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .counts import Skip
from .extra import load
from .mapping import cheapest_mapping, distance

_PASSES = 49  # MeetEval's bound for each cost of substitutions
_BLOCK = 64  # segments
_KEPT = 2**21  # costs that the columns of a stream may hold before they are thinned: assumed
_SPARE = 8  # words that may move within a pass: assumed

_Ints = npt.NDArray[np.uint64]
_WORD_BYTES = 8


class _TooLowError(Exception):
    """Paths that were left out may cost less than the cost that was read."""


class _Column(NamedTuple):
    """Costs before (or behind) a place of a stream's reference, by the number of the stream's words up to there.

    Beyond the stored costs, on both sides, costs rise by one a word. Most columns hold a single cost: those
    with no error near.

    Attributes:
        words: of the reference, before the place.
        first: number of words of the stream that `costs[0]` stands for.
        costs: one for each number of words from `first` on; neighbours differ by one at most.
    """

    words: int
    first: int
    costs: _Ints

    @property
    def last(self) -> int:
        return self.first + len(self.costs) - 1


class _Text:
    """The words of a stream, counted from one of its ends, and the limit for paths through them.

    Args:
        words: one number for each word.
        total: number of words of the stream's reference at the beginning of a pass.
        limit: cost above which paths are left out.
        substitution: cost of a substitution.
    """

    def __init__(self, words: _Ints, total: int, limit: int, substitution: int) -> None:
        self.words, self._bytes = words, words.tobytes()
        self._limit, self._substitution = limit, substitution
        self._more = (limit + len(words) - total) // 2  # words that a path can be ahead

    def after(self, column: _Column, segment: _Ints, total: int) -> _Column:
        """Return the column behind `segment`, if it comes next; the reference then has `total` words."""
        behind, count = column.words + len(segment), len(segment)
        if len(column.costs) == 1 and self.continues(column.first, segment):
            # No path is cheaper than the difference of the lengths, which these words reach.
            return _Column(behind, column.first + count, column.costs)
        high = max(column.last, min(len(self.words), behind + self._more))
        above = np.arange(1, high - column.last + 1, dtype=np.uint64)
        costs = np.concatenate((column.costs, column.costs[-1] + above))
        stretch = self.words[column.first : high]
        costs = _forward()(costs, stretch, segment, cost_substitution=self._substitution)
        return self._cut(behind, column.first, costs, len(self.words) - (total - behind))

    def continues(self, place: int, segment: _Ints) -> bool:
        """Return whether the words from a place on are those of `segment`."""
        begin = place * _WORD_BYTES
        return self._bytes[begin : begin + segment.nbytes] == segment.tobytes()

    def _cut(self, words: int, first: int, costs: _Ints, to_come: int) -> _Column:
        """Return a column without its ends that no path within the limit passes, or a single cost if all rise from it.

        From a place on, a path costs at least as many as there are words between the place and `to_come`. Cost and
        distance change by one a word at most, so that half of the excess over the limit is the number of words to cut.
        """
        last = first + len(costs) - 1
        below = int(costs[0]) + abs(first - to_come) - self._limit
        above = int(costs[-1]) + abs(last - to_come) - self._limit
        if below > 0 or above > 0:
            low = (max(below, 0) + 1) // 2
            costs = costs[low : len(costs) - (max(above, 0) + 1) // 2]
            first += low
            if not len(costs):
                raise _TooLowError
        place = int(costs.argmin())
        least, above = int(costs[place]), len(costs) - 1 - place
        if int(costs[0]) == least + place and int(costs[-1]) == least + above:
            first, costs = first + place, costs[place : place + 1].copy()
        return _Column(words, first, costs)


@cache
def _forward() -> Any:
    """MeetEval's loop over one column of the table after the other."""
    return load("meeteval.wer.matching.cy_greedy_combination_matching").cy_forward_col


class _Stream:
    """The words of one stream, and the costs before and behind a place of its reference."""

    def __init__(
        self, words: _Ints, segments: Sequence[_Ints], limit: int, substitution: int
    ) -> None:
        total = sum(map(len, segments))
        self._text = _Text(words, total, limit, substitution)
        self._mirrored = _Text(words[::-1].copy(), total, limit, substitution)
        self._limit = limit
        self._totals = [total, total]  # words of the reference, the fewest and the most so far
        self._at_first = total
        self._segments = [segment[::-1].copy() for segment in reversed(segments)]
        self.front = _Column(0, 0, np.zeros(1, dtype=np.uint64))
        column = self.front
        self._kept = [
            column
        ]  # columns behind places with 0, `_step`, 2 * `_step`, ... segments left
        self._step, costs = 1, 0
        for number, before in enumerate(self._columns(column, 0), start=1):
            column = before
            if number % self._step == 0:
                self._kept.append(column)
                costs += len(column.costs)
            if self._step == 1 and costs > _KEPT:
                self._kept, self._step = self._kept[::_BLOCK], _BLOCK
        self._block: list[_Column] = []  # the columns behind the next places, the next one last
        self._left = len(segments)
        self.cost = self._met(self.front, column)

    def _columns(self, column: _Column, behind: int) -> Iterator[_Column]:
        """Yield the column behind each place, from the end on, but for those of the last `behind` segments."""
        for mirrored in islice(self._segments, behind, None):
            column = self._mirrored.after(column, mirrored, self._at_first)
            yield column

    def _behind(self, count: int) -> _Column:
        """Return the column behind the place at which `count` segments are left."""
        number, place = divmod(count, self._step)
        if number < len(self._kept) - 1 or not self._block:
            del self._kept[number + 1 :]
            columns = islice(self._columns(self._kept[-1], count - place), self._step - 1)
            self._block = [self._kept[-1], *columns]
        return self._block[place]

    def with_next(self, segment: _Ints) -> tuple[_Column, int]:
        """Return the column before the place if `segment` comes next, and the cost of the whole stream then."""
        behind = self._behind(self._left)
        front = self._front_with(segment, behind)
        return front, self._met(front, behind)

    def passed_by(self, segment: _Ints) -> _Column:
        """Return the column before the place behind `segment`, the next one of this stream."""
        return self._front_with(segment, self._behind(self._left - 1))

    def _front_with(self, segment: _Ints, behind: _Column) -> _Column:
        total = self.front.words + len(segment) + behind.words
        return self._text.after(self.front, segment, total)

    def without_next(self) -> int:
        """Return the cost of the stream without its next segment."""
        return self._met(self.front, self._behind(self._left - 1))

    def pass_by_right(self, segment: _Ints) -> bool:
        """Move the place behind the next segment where all paths cost least before and behind it, and its words follow.

        Then its words are all right, and without it the stream costs one more for each: no stream has more for it.
        """
        front, behind = self.front, self._behind(self._left - 1)
        end = front.first + len(segment)
        words = front.words + len(segment)
        if (
            len(front.costs) != 1
            or len(behind.costs) != 1
            or end + behind.first != len(self._text.words)
            or not self._totals[0] <= words + behind.words <= self._totals[1]
            or not self._text.continues(front.first, segment)
        ):
            return False
        self.front = _Column(words, end, front.costs)
        self._left -= 1
        return True

    def passed(self) -> None:
        """Move the place behind the next segment."""
        self._left -= 1

    def move_on(self, front: _Column, cost: int) -> None:
        """Set the column before the place and the cost of the whole stream."""
        self.front, self.cost = front, cost
        total = front.words + self._behind(self._left).words
        self._totals = [min(self._totals[0], total), max(self._totals[1], total)]

    def _met(self, front: _Column, behind: _Column) -> int:
        """Return the cost of the cheapest path through both columns."""
        size = len(self._text.words)
        first, last = size - behind.last, size - behind.first  # `behind` counts from the end
        low, high = max(front.first, first), min(front.last, last)
        if low <= high:
            one = front.costs[low - front.first : high - front.first + 1]
            other = behind.costs[last - high : last - low + 1][::-1]
            cost = int((one + other).min())
        else:
            end = 0 if front.first > last else -1
            cost = int(front.costs[end]) + int(behind.costs[end]) + low - high
        # Where a path was left out, so many words of the reference more or fewer were expected.
        total = front.words + behind.words
        expected = max(total - self._totals[0], self._totals[1] - total)
        if cost + expected >= self._limit:
            raise _TooLowError
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
        largest: number of costs above which there is no search; `None` for any.

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
    given: list[list[_Ints]] = [[] for _ in columns]
    for stream, row in zip(assignment, rows, strict=True):
        given[stream].append(row)
    least = [
        distance(np.concatenate([*mine, column[:0]]), column, substitution)
        for column, mine in zip(columns, given, strict=True)
    ]
    slack = 2 * (max(map(len, rows)) + _SPARE)
    while True:
        limits = [cost + slack for cost in least]
        costs = sum(
            sum(map(len, mine)) * min(len(column), limit)
            for column, mine, limit in zip(columns, given, limits, strict=True)
        )
        if largest is not None and costs > largest:
            raise Skip(f"too long for its errors: a search among {costs:,} costs, over {largest:,}")
        try:
            return _moved(
                rows,
                [
                    _Stream(column, mine, limit, substitution)
                    for column, mine, limit in zip(columns, given, limits, strict=True)
                ],
                assignment,
            )
        except _TooLowError:
            slack *= 4


def _moved(
    rows: Sequence[_Ints], streams: Sequence[_Stream], assignment: Sequence[int]
) -> list[int]:
    moved = []
    for row, now in zip(rows, assignment, strict=True):
        here = streams[now]
        if here.pass_by_right(row):
            moved.append(now)
            continue
        stays, front, without = here.cost, here.passed_by(row), here.without_next()
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
        streams[best].move_on(*after)
        moved.append(best)
    return moved
