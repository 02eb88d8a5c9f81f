"""Errors in time: diarization, segment boundaries, and gender by time.

Speaker time is compared between all boundaries at once, as NIST defines it; the results are tested to
be those of pyannote.metrics, whose own time grows with the square of the number of segments.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from ..transcript import Segment, Transcript
from .counts import BoundaryCounts, Counts, DiarizationCounts, JaccardCounts
from .extra import load


class Sorted:
    """Segments in order of start, indexed by time."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._starts = [segment.start_s for segment in segments]
        self._latest_ends = list(accumulate((segment.end_s for segment in segments), max))

    def between(self, start_s: float, end_s: float) -> list[Segment]:
        """Segments that reach into a stretch of time, in order."""
        low = bisect_right(self._latest_ends, start_s)
        high = bisect_left(self._starts, end_s)
        return [segment for segment in self._segments[low:high] if segment.end_s > start_s]


def diarization(
    reference: Transcript,
    hypothesis: Transcript,
    collar_s: float,
    unscored: Sequence[tuple[float, float]] = (),
) -> tuple[DiarizationCounts, JaccardCounts]:
    """Compare speaker time from 0 to the end of the longer transcript (md-eval with such a UEM).

    Collars surround every boundary as written, also between touching segments of one speaker, as
    in md-eval. Time in which two segments of one speaker overlap counts once, not twice. For the DER
    speakers are mapped so that they share most time (md-eval), for the JER so that its sum is least
    (dscore).

    Args:
        reference: the reference.
        hypothesis: of the same recording.
        collar_s: time not scored on either side of a reference boundary.
        unscored: stretches that are not scored either, in seconds.
    """
    scored_s, ours, theirs = _activity(reference, hypothesis, collar_s, unscored)
    shared_s = (ours.multiply(scored_s) @ theirs.T).toarray()  # [R, H], seconds both speak
    assign = load("scipy.optimize").linear_sum_assignment
    pairs = [(i, j) for i, j in zip(*assign(-shared_s), strict=True) if shared_s[i, j] > 0]
    talking, hypothesised = (np.asarray(side.sum(axis=0)).ravel() for side in (ours, theirs))  # [T]
    right = np.zeros(len(scored_s))
    if pairs:
        rows, columns = (list(side) for side in zip(*pairs, strict=True))
        right = np.asarray(ours[rows].multiply(theirs[columns]).sum(axis=0)).ravel()
    counts = DiarizationCounts(
        missed_s=float(scored_s @ np.maximum(talking - hypothesised, 0)),
        false_alarm_s=float(scored_s @ np.maximum(hypothesised - talking, 0)),
        confusion_s=float(scored_s @ (np.minimum(talking, hypothesised) - right)),
        reference_s=float(scored_s @ talking),
    )
    reference_s, hypothesis_s = ours @ scored_s, theirs @ scored_s  # [R], [H]
    union_s = reference_s[:, None] + hypothesis_s[None, :] - shared_s
    fit = np.divide(shared_s, union_s, out=np.zeros_like(shared_s), where=union_s > 0)
    present = int(np.count_nonzero(reference_s))
    return counts, JaccardCounts(float(present - fit[assign(-fit)].sum()), present)


def _activity(
    reference: Transcript,
    hypothesis: Transcript,
    collar_s: float,
    unscored: Sequence[tuple[float, float]],
) -> tuple[npt.NDArray[Any], Any, Any]:
    """Cut time at every boundary; who speaks in each of the intervals between.

    Returns:
        Scored seconds of each interval, 0 where it is out of scoring `[T]`; and who speaks, for the
        speakers of either side in order of appearance, sparse, 0 or 1 `[R, T]`, `[H, T]`.
    """
    sides = [
        np.array([(s.start_s, s.end_s) for s in side.segments]).reshape(-1, 2)
        for side in (reference, hypothesis)
    ]
    duration_s = max(
        [reference.duration_s, hypothesis.duration_s, *(float(x.max()) for x in sides if len(x))]
    )
    left_out = np.array(unscored, dtype=float).reshape(-1, 2)
    if collar_s:
        points = left_out[left_out[:, 0] == left_out[:, 1], 0]
        borders = np.concatenate([sides[0].ravel(), points])
        left_out = np.concatenate([left_out, np.stack([borders - collar_s, borders + collar_s], 1)])
    left_out = np.clip(left_out, 0.0, duration_s)
    edges = np.unique(
        np.concatenate([[0.0, duration_s], left_out.ravel(), *(x.ravel() for x in sides)])
    )
    lengths_s = np.diff(edges)  # [T]
    change = np.zeros(len(edges), dtype=np.int64)
    np.add.at(change, np.searchsorted(edges, left_out[:, 0]), 1)
    np.add.at(change, np.searchsorted(edges, left_out[:, 1]), -1)
    scored_s = np.where(np.cumsum(change)[:-1] > 0, 0.0, lengths_s)
    return scored_s, *(
        _speaking(side, np.searchsorted(edges, times), len(lengths_s))
        for side, times in zip((reference, hypothesis), sides, strict=True)
    )


def _speaking(transcript: Transcript, spans: npt.NDArray[Any], intervals: int) -> Any:
    """Return speaker activity by interval, from the interval range `[first, last)` of each segment."""
    sparse = load("scipy.sparse")
    labels = {label: i for i, label in enumerate(transcript.speakers)}
    rows = np.array([labels[s.speaker] for s in transcript.segments], dtype=np.int64)
    sizes = spans[:, 1] - spans[:, 0]
    places = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    columns = places + np.repeat(spans[:, 0], sizes)
    shape = (len(labels), intervals)
    said = np.ones(len(columns), dtype=np.int8)
    matrix = sparse.csr_array((said, (np.repeat(rows, sizes), columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix.minimum(1).astype(float) if matrix.nnz else matrix.astype(float)


def genders(reference: Transcript, hypothesis: Transcript) -> tuple[Counts, Counts]:
    """Gender by reference segment, from the best fitting hypothesis segment's speaker.

    Fit is intersection over union: plain overlap would give a word said inside another person's
    segment to that person. Of segments that fit equally well one of the right gender is enough; a
    segment that nothing overlaps is wrong.

    Returns:
        Segments; and seconds: each segment counts its duration.
    """
    expected, got = reference.genders, hypothesis.genders
    ordered = Sorted(hypothesis.segments)
    segments = seconds = Counts()
    for segment in reference.segments:
        if expected[segment.speaker] == "unknown":
            continue
        near = ordered.between(segment.start_s, segment.end_s)
        fits = [(_fit(segment, other), got[other.speaker]) for other in near]
        best = max((fit for fit, _ in fits), default=0.0)
        right = best > 0 and (best, expected[segment.speaker]) in fits
        segments += Counts(int(right), 1)
        seconds += Counts(segment.duration_s * right, segment.duration_s)
    return segments, seconds


def _fit(one: Segment, other: Segment) -> float:
    """Intersection over union in time; not above 0 where they do not overlap."""
    common_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return common_s / (max(one.end_s, other.end_s) - min(one.start_s, other.start_s))


def boundaries(reference: Transcript, hypothesis: Transcript, tolerance_s: float) -> BoundaryCounts:
    """Match starts with starts and ends with ends, of any speakers.

    One to one, within the tolerance: as many as possible, and of all such matchings one with the
    least sum of time differences.
    """
    sides = reference.segments, hypothesis.segments
    starts = [np.sort([s.start_s for s in side]) for side in sides]
    ends = [np.sort([s.end_s for s in side]) for side in sides]
    matched_starts, start_errors_s = _matched(starts[0], starts[1], tolerance_s)
    matched_ends, end_errors_s = _matched(ends[0], ends[1], tolerance_s)
    return BoundaryCounts(
        matched_starts=matched_starts,
        matched_ends=matched_ends,
        reference=2 * len(sides[0]),
        hypothesis=2 * len(sides[1]),
        start_errors_s=start_errors_s,
        end_errors_s=end_errors_s,
    )


def _matched(
    reference: npt.NDArray[Any], hypothesis: npt.NDArray[Any], tolerance_s: float
) -> tuple[int, float]:
    """Return how many points match, and the sum of their distances.

    Of the best matchings one never crosses (points on a line), so that it can be computed as an alignment:
    `best[j]` is the best of all points so far with the first j of the hypothesis. Only the columns
    within the tolerance change in a row.
    """
    reach_s = tolerance_s + 1e-9  # 0.35 - 0.25 is a little over 0.1
    low = np.searchsorted(hypothesis, reference - reach_s, side="left").tolist()
    high = np.searchsorted(hypothesis, reference + reach_s, side="right").tolist()
    points = hypothesis.tolist()
    best = [(0, 0.0)]  # matched, minus the sum of distances
    for at, first, last in zip(reference.tolist(), low, high, strict=True):
        best += [best[-1]] * (last + 1 - len(best))
        before = best[first]
        for j in range(first, last):
            count, error = before
            before = best[j + 1]
            best[j + 1] = max(before, best[j], (count + 1, error - abs(at - points[j])))
    matched, error = best[-1]
    return matched, abs(error)
