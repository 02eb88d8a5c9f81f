"""Errors in time: diarization, segment boundaries, and gender by time.

Speaker time is compared by pyannote.metrics, piece by piece: its own time grows with the square of
the number of segments, while seconds of error add up over pieces once the speakers are mapped.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..transcript import Segment, Transcript
from .counts import BoundaryCounts, Counts, DiarizationCounts, JaccardCounts
from .extra import load

_PIECE = 50  # segments of either side that begin in one piece


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
    reference: Transcript, hypothesis: Transcript, collar_s: float
) -> tuple[DiarizationCounts, JaccardCounts]:
    """Compare speaker time from 0 to the end of the longer transcript (md-eval with such a UEM).

    Collars surround every boundary as written, also between touching segments of one speaker, as
    in md-eval. Time in which two segments of one speaker overlap counts once, not twice. The
    speakers are mapped so that they share most time; both errors use that mapping.

    Args:
        reference: the reference.
        hypothesis: of the same recording.
        collar_s: time not scored on either side of a reference boundary.
    """
    metric = load("pyannote.metrics.identification").IdentificationErrorRate()
    pieces = list(_pieces(metric, reference, hypothesis, collar_s))
    rows, columns = (
        {label: i for i, label in enumerate(side.speakers)} for side in (reference, hypothesis)
    )
    shared_s = np.zeros((len(rows), len(columns)))  # both speak
    reference_s, hypothesis_s = np.zeros(len(rows)), np.zeros(len(columns))
    for one, other, _ in pieces:
        here = np.ix_([rows[s] for s in one.labels()], [columns[s] for s in other.labels()])
        shared_s[here] += one * other
        for speaker, seconds in one.chart():
            reference_s[rows[speaker]] += seconds
        for speaker, seconds in other.chart():
            hypothesis_s[columns[speaker]] += seconds
    best = zip(*load("scipy.optimize").linear_sum_assignment(-shared_s), strict=True)
    mapping = [(int(i), int(j)) for i, j in best if shared_s[i, j] > 0]
    partner = {j: i for i, j in mapping}
    ours = {speaker: f"reference {i}" for speaker, i in rows.items()}
    theirs = {
        speaker: f"reference {partner[j]}" if j in partner else f"hypothesis {j}"
        for speaker, j in columns.items()
    }
    counts = DiarizationCounts()
    for one, other, scored in pieces:
        sides = one.rename_labels(mapping=ours), other.rename_labels(mapping=theirs)
        components = metric.compute_components(*sides, uem=scored)
        keys = ("missed detection", "false alarm", "confusion", "total")
        counts += DiarizationCounts(*(float(components[key]) for key in keys))
    present = np.flatnonzero(reference_s)
    error_sum = len(present) - sum(
        shared_s[i, j] / (reference_s[i] + hypothesis_s[j] - shared_s[i, j]) for i, j in mapping
    )
    return counts, JaccardCounts(float(error_sum), len(present))


def _pieces(
    metric: Any, reference: Transcript, hypothesis: Transcript, collar_s: float
) -> Iterator[tuple[Any, Any, Any]]:
    """Annotations of both sides, and the scored time, as pyannote's types."""
    core = load("pyannote.core")
    sides = reference.segments, hypothesis.segments
    duration_s = max(
        [reference.duration_s, hypothesis.duration_s, *(s.end_s for side in sides for s in side)]
    )
    cuts = {round(s.start_s, 3) for side in sides for s in side[_PIECE::_PIECE]}
    ours, theirs = (Sorted(side) for side in sides)
    for start_s, end_s in pairwise(sorted({0.0, duration_s} | {c for c in cuts if c < duration_s})):
        whole = core.Timeline([core.Segment(start_s, end_s)])
        near = ours.between(start_s - collar_s, end_s + collar_s)
        scored = metric.extrude(whole, _annotation(near), collar=2 * collar_s)  # the total width
        said = (_annotation(side.between(start_s, end_s)).support() for side in (ours, theirs))
        yield (*metric.uemify(*said, uem=scored), scored)


def _annotation(segments: Sequence[Segment]) -> Any:
    core = load("pyannote.core")
    annotation = core.Annotation()
    for track, segment in enumerate(segments):
        annotation[core.Segment(segment.start_s, segment.end_s), track] = segment.speaker
    return annotation


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
    """Match starts with starts and ends with ends, whoever speaks.

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
    """How many points match, and the sum of their distances.

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
