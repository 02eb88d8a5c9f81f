"""Confidence intervals of error rates, and significance of differences between systems, by bootstrap.

    interval(list(counted(result, "cpwer").values()))   # 95 % interval over recordings
    compare_results(result_a, result_b, "cpwer")        # paired bootstrap over recordings
    holm([comparison.p for comparison in comparisons])  # many comparisons at once

Whole recordings are resampled: pieces of one recording are drawn together, because they share speakers, room and
microphone. All is computed from stored counts; nothing is scored here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

FRACTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(
        ("wer", "cpwer", "tcpwer", "orcwer"),
        (("insertions", "deletions", "substitutions"), "reference_words"),
    ),
    **dict.fromkeys(
        ("der_0", "der_025"), (("missed_s", "false_alarm_s", "confusion_s"), "reference_s")
    ),
    "jer": (("error_sum",), "speakers"),
}
"""Counts in the numerator of each error rate, and the count in its denominator."""


DRAWS = 10_000
"""Sets of recordings that a comparison draws."""

Fraction = tuple[float, float]
"""Errors, and their divisor."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same recordings; rates are fractions, lower is better.

    Attributes:
        a: error rate of the first system, over all recordings.
        b: error rate of the second.
        interval: 95 % percentile interval of `a - b`.
        p: two-sided: twice the smaller share of draws in which one of them is not better, at least
            2 / (draws + 1).
        a_better: share of the draws in which the rate of the first is the lower one: the
            probability of improvement of Bisani & Ney (ICASSP 2004).
        draws: how many sets of recordings were drawn.
        recordings: how many recordings there are.
    """

    a: float
    b: float
    interval: tuple[float, float]
    a_better: float
    draws: int
    recordings: int
    p: float

    @property
    def difference(self) -> float:
        return self.a - self.b


def compare(
    a: Mapping[str, Fraction],
    b: Mapping[str, Fraction],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare two systems by a paired bootstrap over recordings (Bisani & Ney, ICASSP 2004).

    Each draw takes as many recordings as there are, with replacement, the same for both systems.
    Draws in which the references are empty are left out.

    Args:
        a: by name of the recording, its errors and what they are divided by (reference words,
            seconds).
        b: the same of the other system.
        draws: how many sets of recordings are drawn.
        seed: the same seed gives the same result.

    Raises:
        DataError: the recordings or their references differ, or there is nothing to divide by.
    """
    only = [name for name in (*a, *b) if (name in a) != (name in b)]
    if only or not a:
        raise DataError(
            f"compare: {len(only)} recordings are in one result only ({', '.join(only[:5])}); score "
            "both systems on the same recordings"
            if only
            else "compare: got no recordings, expected one or more"
        )
    names = list(a)
    counts = np.array([(a[n][0], b[n][0], a[n][1]) for n in names], dtype=float)  # [recordings, 3]
    unequal = ~np.isclose(counts[:, 2], [b[n][1] for n in names], rtol=1e-6)
    if unequal.any():
        name = names[int(unequal.argmax())]
        raise DataError(
            f"compare: {int(unequal.sum())} references differ: {name!r} has {a[name][1]:g} in the "
            f"first result, {b[name][1]:g} in the second; score both with the same references and "
            "normalisation"
        )
    if not counts[:, 2].sum():
        raise DataError("compare: the references are empty; a rate needs something to divide by")
    drawn = _drawn(np.column_stack((counts[:, 0] - counts[:, 1], counts[:, 2])), draws, seed)
    differences = np.divide(*drawn)
    low, high = np.quantile(differences, [0.025, 0.975])
    rate_a, rate_b, _ = counts.sum(axis=0) / counts[:, 2].sum()
    fewer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Comparison(
        a=float(rate_a),
        b=float(rate_b),
        interval=(float(low), float(high)),
        a_better=float((differences < 0).mean()),
        draws=len(differences),
        recordings=len(names),
        p=min(1.0, 2 * (fewer + 1) / (len(differences) + 1)),
    )


def interval(
    counts: Sequence[Fraction], *, draws: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of a rate over recordings (Efron & Tibshirani, 1993).

    Whole recordings are drawn, with replacement; draws in which the references are empty are left
    out. `None` without a reference in any recording.

    Args:
        counts: errors and divisor of each recording.
        draws: how many sets of recordings are drawn.
        seed: the same seed gives the same interval.

    Raises:
        DataError: there are no recordings.
    """
    if not counts:
        raise DataError("interval: got no recordings, expected one or more; score some first")
    table = np.array(counts, dtype=float)  # [recordings, 2]
    if not table[:, 1].sum():
        return None
    rates = np.divide(*_drawn(table, draws, seed))
    low, high = np.quantile(rates, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _drawn(table: npt.NDArray[np.float64], draws: int, seed: int) -> npt.NDArray[np.float64]:
    """Sums over drawn recordings of both columns, [2, draws]; draws without a divisor are left out.

    Args:
        table: a numerator and a divisor of each recording. [recordings, 2]
    """
    rng = np.random.default_rng(seed)
    step = max(1, 2_000_000 // len(table))  # draws at once: bounds the memory
    sums = np.empty((2, draws))
    for at in range(0, draws, step):
        size = (min(step, draws - at), len(table))
        rows = rng.integers(len(table), size=size, dtype=np.int32)  # [step, recordings]
        for kept, column in zip(sums, table.T, strict=True):
            kept[at : at + step] = column.take(rows).sum(axis=1)
    return sums[:, sums[1] > 0]


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values of several comparisons, so that all hold at once (Holm, 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, least = [1.0] * len(p), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = least
    return adjusted


def compare_results(a: Mapping[str, Any], b: Mapping[str, Any], metric: str) -> Comparison:
    """Compare two stored evaluations by an error rate, as `compare`, over whole recordings.

    Args:
        a: the object of an evaluation.
        b: that of the other system, on the same data.
        metric: `wer`, `cpwer`, `tcpwer`, `orcwer`, `der_0`, `der_025` or `jer`.

    Raises:
        DataError: the metric is unknown or was not scored, the normalisation differs, or `compare`
            refuses.
    """
    if metric not in FRACTIONS:
        raise DataError(f"compare: unknown metric {metric!r}; known: {', '.join(FRACTIONS)}")
    steps = [result["settings"]["normalisation"] for result in (a, b)]
    if steps[0] != steps[1]:
        differing = [k for k in {**steps[0], **steps[1]} if steps[0].get(k) != steps[1].get(k)]
        raise DataError(
            f"compare: the results differ in normalisation ({', '.join(differing)}); score both alike"
        )
    return compare(
        *(by_recording(result, counted(result, metric, whole=True)) for result in (a, b))
    )


def counted(result: Mapping[str, Any], metric: str, *, whole: bool = False) -> dict[str, Fraction]:
    """Return errors and divisor of each scored unit of a stored evaluation, by its name.

    Args:
        result: the object of an evaluation.
        metric: one of `FRACTIONS`.
        whole: refuse a result in which the metric did not run for some unit; otherwise such units
            are left out.

    Raises:
        DataError: the metric did not run for a unit, and `whole` refuses that.
    """
    errors, divisor = FRACTIONS[metric]
    counts = {}
    for recording in result["recordings"]:
        values = recording["scores"].get(metric)
        if values is not None:
            counts[recording["name"]] = (sum(values[key] for key in errors), values[divisor])
        elif whole:
            reason = result.get("skipped", {}).get(metric, "it is not in the result")
            raise DataError(
                f"compare: {result['system']} has no {metric} for {recording['name']!r}: {reason}; "
                "choose another metric"
            )
    return counts


def by_recording(result: Mapping[str, Any], counts: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Add up the counts of pieces of one recording; others stay as they are.

    Args:
        result: the evaluation that the counts are of; a piece's row names its recording in `of`.
        counts: by name of the scored unit.
    """
    home = {row["name"]: row.get("of") or row["name"] for row in result["recordings"]}
    sums: dict[str, Fraction] = {}
    for name, (errors, divisor) in counts.items():
        before = sums.get(home[name], (0.0, 0.0))
        sums[home[name]] = before[0] + errors, before[1] + divisor
    return sums
