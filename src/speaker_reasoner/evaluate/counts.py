"""Counts of the metrics. Counts add up over recordings; rates are derived from the sums."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


class Skip(Exception):
    """A metric cannot be computed for this recording; the message says why."""


@dataclass(frozen=True, slots=True)
class Additive:
    """Counts that add field by field."""

    def __add__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def rate(self) -> float:
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return counts and rate, JSON-ready; a rate without a number is `None`."""
        return {**asdict(self), "rate": finite(self.rate)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read the counts that `to_json` gave."""
        return cls(**{field.name: stored[field.name] for field in fields(cls)})


def finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None


def _error_rate(errors: float, reference: float) -> float:
    """Errors by reference: 0 where there is neither, infinite for errors without a reference."""
    if reference:
        return errors / reference
    return math.inf if errors else 0.0


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


@dataclass(frozen=True, slots=True)
class ErrorCounts(Additive):
    """Word errors: insertions, deletions and substitutions that turn the reference into the hypothesis."""

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    reference_words: int = 0

    @property
    def errors(self) -> int:
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Errors by reference words; without reference words 0, or infinite if there are errors."""
        return _error_rate(self.errors, self.reference_words)


@dataclass(frozen=True, slots=True)
class DiarizationCounts(Additive):
    """Speaker time in seconds; where n people speak, one second counts n seconds (NIST RT-09)."""

    missed_s: float = 0.0
    false_alarm_s: float = 0.0
    confusion_s: float = 0.0
    reference_s: float = 0.0

    @property
    def errors_s(self) -> float:
        return self.missed_s + self.false_alarm_s + self.confusion_s

    @property
    def rate(self) -> float:
        """Errors by reference time, as `ErrorCounts.rate`."""
        return _error_rate(self.errors_s, self.reference_s)


@dataclass(frozen=True, slots=True)
class JaccardCounts(Additive):
    """Jaccard errors of reference speakers, each in 0..1, summed; and the number of speakers."""

    error_sum: float = 0.0
    speakers: int = 0

    @property
    def rate(self) -> float:
        """Mean over reference speakers; NaN where there are none."""
        return _share(self.error_sum, self.speakers)


@dataclass(frozen=True, slots=True)
class Counts(Additive):
    """A right part of a total: numbers of items, or seconds."""

    right: float = 0
    total: float = 0

    @property
    def rate(self) -> float:
        """Share that is right; NaN where the total is 0."""
        return _share(self.right, self.total)


@dataclass(frozen=True, slots=True)
class MeanError(Additive):
    """Absolute errors of recordings, summed; and the number of recordings."""

    error: int = 0
    recordings: int = 0

    @property
    def rate(self) -> float:
        """Mean over recordings; NaN where there are none."""
        return _share(self.error, self.recordings)


@dataclass(frozen=True, slots=True)
class BoundaryCounts(Additive):
    """Matches of segment boundaries between reference and hypothesis.

    Attributes:
        matched_starts: starts that match one on the other side.
        matched_ends: ends that match one on the other side.
        reference: starts and ends of the reference: twice its segments.
        hypothesis: starts and ends of the hypothesis.
        start_errors_s: absolute differences between matches, summed over starts, in seconds.
        end_errors_s: the same of ends.
    """

    matched_starts: int = 0
    matched_ends: int = 0
    reference: int = 0
    hypothesis: int = 0
    start_errors_s: float = 0.0
    end_errors_s: float = 0.0

    @property
    def matched(self) -> int:
        return self.matched_starts + self.matched_ends

    @property
    def precision(self) -> float:
        """Share of the hypothesis' boundaries that are matched."""
        return _share(self.matched, self.hypothesis)

    @property
    def recall(self) -> float:
        """Share of the reference's boundaries that are matched."""
        return _share(self.matched, self.reference)

    @property
    def rate(self) -> float:
        """F1: harmonic mean of precision and recall."""
        return _share(2 * self.matched, self.reference + self.hypothesis)

    def to_json(self) -> dict[str, Any]:
        """Return counts, rates and mean absolute errors, JSON-ready."""
        return {
            **asdict(self),
            "matched": self.matched,
            "precision": finite(self.precision),
            "recall": finite(self.recall),
            "f1": finite(self.rate),
            "start_error_s": finite(_share(self.start_errors_s, self.matched_starts)),
            "end_error_s": finite(_share(self.end_errors_s, self.matched_ends)),
        }
