"""Word errors: of all words in order, by speaker, by speaker and time, and by stream.

Words are aligned by MeetEval's functions, and above `LONG` by rapidfuzz. Where MeetEval's public
function cannot serve (more than 20 speakers, whole days of speech), the same definition is applied
here with its inner functions; the results are tested to be equal.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..transcript import Segment
from .counts import ErrorCounts, Skip
from .extra import load
from .mapping import cheapest_mapping, distance, edits_hint
from .streams import assign

LONG = 10**7
"""Reference words times hypothesis words above which rapidfuzz aligns: its time is a hundredth.

The number of errors is the same; where several alignments are equally cheap, it may divide into
insertions, deletions and substitutions in another way.
"""

ORC_EXACT = 10**7
"""Size of the exact ORC search up to which it is made; above it the greedy one of `streams` serves."""

ORC_LONG = 4 * 10**9
"""Reference words times hypothesis words up to which the greedy search is made, however many errors there are."""

ORC_COSTS = 10**9
"""Above that, greatest number of costs that it may compute; the more errors, the more costs (`streams`)."""

_SMALL = 10**6  # words times words up to which MeetEval's own mapping serves
_BLOCK = 2**18  # words times words that one call of the time-constrained alignment is worth

SegmentWords = Sequence[tuple[Segment, list[str]]]
"""Segments in order of start, each with its words."""

_Side = TypeVar("_Side")


def word_errors(reference: list[str], hypothesis: list[str]) -> ErrorCounts:
    """Count the edits of the cheapest alignment (Levenshtein); either side may be empty."""
    if not reference or not hypothesis:
        return ErrorCounts(len(hypothesis), len(reference), 0, len(reference))
    if len(reference) * len(hypothesis) <= LONG:
        counts = load("meeteval.wer.wer.utils").kaldialign_edit_distance(reference, hypothesis)
        return ErrorCounts(counts["ins"], counts["del"], counts["sub"], len(reference))
    tags = Counter(tag for tag, _, _ in edits(reference, hypothesis))
    return ErrorCounts(tags["insert"], tags["delete"], tags["replace"], len(reference))


def edits(reference: list[str], hypothesis: list[str]) -> list[tuple[str, int, int]]:
    """The edits of the cheapest alignment: `(replace | delete | insert, reference word, hypothesis word)`.

    An insertion stands before its reference word, which may be the one behind the last.
    """
    levenshtein = load("rapidfuzz.distance").Levenshtein
    return list(
        levenshtein.editops(
            reference, hypothesis, score_hint=edits_hint(reference, hypothesis)
        ).as_list()
    )


def _counted(rate: Any) -> ErrorCounts:
    return ErrorCounts(rate.insertions, rate.deletions, rate.substitutions, rate.length)


def permutation_errors(reference: SegmentWords, hypothesis: SegmentWords) -> ErrorCounts:
    """cpWER: each speaker's words in order, speakers mapped one to one at the least cost."""
    sides = _words_by_speaker(reference), _words_by_speaker(hypothesis)
    size = math.prod(sum(map(len, side.values())) for side in sides)
    if all(0 < len(side) <= 20 for side in sides) and size <= _SMALL:
        as_text = [{k: " ".join(v) for k, v in side.items()} for side in sides]
        unsorted = {"reference_sort": False, "hypothesis_sort": False}  # they are in order
        return _counted(load("meeteval.wer").cp_word_error_rate(*as_text, **unsorted))
    ours, theirs = (list(side.values()) for side in sides)
    return _mapped_errors(ours, theirs, [], list, distance, word_errors)


def _words_by_speaker(spoken: SegmentWords) -> dict[str, list[str]]:
    """The words of each speaker who has any."""
    words: dict[str, list[str]] = {}
    for segment, theirs in spoken:
        if theirs:
            words.setdefault(segment.speaker, []).extend(theirs)
    return words


def _mapped_errors(
    reference: list[_Side],
    hypothesis: list[_Side],
    nobody: _Side,
    said: Callable[[_Side], list[str]],
    distance: Callable[[_Side, _Side], int],
    errors: Callable[[_Side, _Side], ErrorCounts],
) -> ErrorCounts:
    """Sum of errors over the cheapest one-to-one mapping; the shorter side is filled up with `nobody`."""
    best = cheapest_mapping(reference, hypothesis, nobody, said, distance)
    return sum(
        (
            errors(
                reference[i] if i < len(reference) else nobody,
                hypothesis[j] if j < len(hypothesis) else nobody,
            )
            for i, j in best
        ),
        ErrorCounts(),
    )


@dataclass(frozen=True, slots=True)
class _Timed:
    """One speaker's words, and start and end of each in seconds."""

    words: list[str]
    times: list[tuple[float, float]]


def timed_errors(reference: SegmentWords, hypothesis: SegmentWords, collar_s: float) -> ErrorCounts:
    """tcpWER: as cpWER, but words match only if their times overlap (MeetEval's definition).

    A reference word lasts its share of its segment, by its number of characters; a hypothesis
    word is the middle of its share, with `collar_s` on either side.
    """
    ours = _timed_by_speaker(reference, _shares)
    theirs = _timed_by_speaker(hypothesis, lambda segment, words: _points(segment, words, collar_s))
    nobody = _Timed([], [])
    return _mapped_errors(ours, theirs, nobody, _words_of, _timed_distance, _timed_word_errors)


def _words_of(timed: "_Timed") -> list[str]:
    return timed.words


def _shares(segment: Segment, words: list[str]) -> list[tuple[float, float]]:
    """Start and end of each word, its share of the segment by its number of characters (MeetEval)."""
    if len(words) == 1:
        return [(segment.start_s, segment.end_s)]
    reached = list(accumulate(map(len, words), initial=0))
    start_s, length_s = segment.start_s, (segment.end_s - segment.start_s) / reached[-1]
    edges = [start_s + length_s * characters for characters in reached]
    return list(pairwise(edges))


def _points(segment: Segment, words: list[str], collar_s: float) -> list[tuple[float, float]]:
    """The middle of each word's share, with a collar on either side."""
    middles = [(b + a) / 2 for a, b in _shares(segment, words)]
    return [(middle - collar_s, middle + collar_s) for middle in middles]


def _timed_by_speaker(
    spoken: SegmentWords, share: Callable[[Segment, list[str]], list[tuple[float, float]]]
) -> list[_Timed]:
    by_speaker: dict[str, _Timed] = {}
    for segment, words in spoken:
        if words:
            theirs = by_speaker.setdefault(segment.speaker, _Timed([], []))
            theirs.words.extend(words)
            theirs.times.extend(share(segment, words))
    return list(by_speaker.values())


def _timed_distance(reference: _Timed, hypothesis: _Timed) -> int:
    align = load("meeteval.wer.matching.cy_levenshtein").time_constrained_levenshtein_distance
    return sum(
        int(align(r.words, h.words, r.times, h.times)) for r, h in _apart(reference, hypothesis)
    )


def _timed_word_errors(reference: _Timed, hypothesis: _Timed) -> ErrorCounts:
    matching = load("meeteval.wer.matching.cy_levenshtein")
    align = matching.time_constrained_levenshtein_distance_with_alignment
    counts = ErrorCounts()
    for r, h in _apart(reference, hypothesis):
        edits = align(r.words, h.words, r.times, h.times)
        counts += ErrorCounts(
            edits["insertions"], edits["deletions"], edits["substitutions"], len(r.words)
        )
    return counts


def _apart(reference: _Timed, hypothesis: _Timed) -> Iterator[tuple[_Timed, _Timed]]:
    """Cut both sides where no earlier word overlaps a later one; the parts are aligned separately.

    No alignment pairs words across such a cut, so the errors of the parts add up to the whole's,
    and memory, which grows with the product of both lengths, stays small.
    """
    if not reference.words or not hypothesis.words:
        yield reference, hypothesis
        return
    (first_r, last_r), (first_h, last_h) = map(_reach, (reference.times, hypothesis.times))
    earliest = np.searchsorted(first_h, last_r, side="left")  # [R + 1]
    latest = np.searchsorted(last_h, first_r, side="right") - 1
    i = j = 0
    for at in map(int, np.flatnonzero(earliest <= latest)):  # the last is behind all words
        end = int(earliest[at]) if at < len(reference.words) else len(hypothesis.words)
        if at < len(reference.words) and (at - i) * (end - j) < _BLOCK:
            continue
        yield (
            _Timed(reference.words[i:at], reference.times[i:at]),
            _Timed(hypothesis.words[j:end], hypothesis.times[j:end]),
        )
        i, j = at, end


def _reach(times: list[tuple[float, float]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the first start after, and the last end before, each place between words; `[N + 1]` each."""
    starts, ends = np.array(times, dtype=float).T
    first = np.minimum.accumulate(starts[::-1])[::-1]
    return np.append(first, np.inf), np.insert(np.maximum.accumulate(ends), 0, -np.inf)


def combination_errors(reference: SegmentWords, hypothesis: SegmentWords) -> ErrorCounts:
    """ORC-WER: each reference segment goes to the hypothesis speaker that costs least.

    Exact where the search is no larger than `ORC_EXACT` (reference words times the product of the
    lengths of all hypothesis speakers). Above it MeetEval's greedy search starts from the mapping
    of cpWER and moves segments while that helps: an upper bound, and mostly equal.

    Raises:
        Skip: there are over 10 hypothesis speakers, which MeetEval refuses, or too many words for as
            many errors.
    """
    streams = _words_by_speaker(hypothesis)
    words = [sum(len(theirs) for _, theirs in side) for side in (reference, hypothesis)]
    if not all(words):
        return ErrorCounts(words[1], words[0], 0, words[0])
    if len(streams) > 10:
        raise Skip("MeetEval takes up to 10 hypothesis speakers; there are more")
    if words[0] * math.prod(len(theirs) + 1 for theirs in streams.values()) <= ORC_EXACT:
        exact = load("meeteval.wer.wer.orc").orc_word_error_rate
        return _counted(exact(_seglst(reference), _seglst(hypothesis)))
    spoken = [(segment.speaker, theirs) for segment, theirs in reference if theirs]
    said = [theirs for _, theirs in spoken]
    given: list[list[str]] = [[] for _ in streams]
    largest = ORC_COSTS if math.prod(words) > ORC_LONG else None
    numbers = assign(said, [who for who, _ in spoken], list(streams.values()), largest)
    for number, theirs in zip(numbers, said, strict=True):
        given[number].extend(theirs)
    return sum(map(word_errors, given, streams.values()), ErrorCounts())


def _seglst(spoken: SegmentWords) -> Any:
    rows = [
        {
            "session_id": "one",
            "speaker": segment.speaker,
            "start_time": segment.start_s,
            "end_time": segment.end_s,
            "words": " ".join(words),
        }
        for segment, words in spoken
        if words
    ]
    return load("meeteval.io").SegLST(rows)
