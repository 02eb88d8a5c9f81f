"""Errors by subset, calibration of confidences, and the significance of a difference.

    subsets(pairs, scores, normalisation)           # by speakers, overlap, turn rate, position
    calibration(pairs, normalisation)               # ECE, bins of a reliability picture
    compare_results(result_a, result_b, "cpwer")    # paired bootstrap over recordings

Rates come from the counts of `scores`; only the position of word errors, and which words are right,
are computed here, by an alignment of all words in order of time (that of `Scores.wer`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..errors import DataError
from ..transcript import Segment, Transcript
from .counts import ErrorCounts
from .normalisation import Normalisation
from .pairs import Pair
from .scores import Scores, total
from .words import edits

CONVENTIONS = {
    "overlap": "share of the time with speech in which two or more reference speakers talk",
    "turn_rate": "changes of speaker between reference segments in order of start, per minute of the"
    " recording",
    "position": "word errors by quarter of the recording in which the middle of the reference word's"
    " segment lies; insertions go with the reference word before them",
    "calibration": "each word of the hypothesis is a sample; its confidence is that of its segment's"
    " words; it is right if the alignment of all words in order of time matches it; 10 bins of equal"
    " width (Guo et al., ICML 2017)",
}
"""Definitions of the groups and of the calibration."""

POSITIONS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")
_OVERLAPS = ((1e-6, "0 %"), (0.05, "0-5 %"), (0.15, "5-15 %"), (np.inf, "over 15 %"))
_TURN_RATES = ((5, "under 5"), (10, "5-10"), (20, "10-20"), (np.inf, "20 and over"))
_BINS = 10

_FRACTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(
        ("wer", "cpwer", "tcpwer", "orcwer"),
        (("insertions", "deletions", "substitutions"), "reference_words"),
    ),
    **dict.fromkeys(
        ("der_0", "der_025"), (("missed_s", "false_alarm_s", "confusion_s"), "reference_s")
    ),
    "jer": (("error_sum",), "speakers"),
}
"""For each error rate, the counts in its numerator, and the count in its denominator."""

Words = Callable[[str], list[str]]


def overlap_share(transcript: Transcript) -> float:
    """Share of speech time with two or more active speakers; 0 without speech."""
    edges = sorted(
        edge
        for s in transcript.segments
        for edge in ((s.start_s, 1, s.speaker), (s.end_s, -1, s.speaker))
    )
    speech_s = overlap_s = at_s = 0.0
    talking: Counter[str] = Counter()
    people = 0
    for time_s, change, speaker in edges:
        speech_s += (time_s - at_s) if people else 0.0
        overlap_s += (time_s - at_s) if people > 1 else 0.0
        at_s = time_s
        before = talking[speaker]
        talking[speaker] += change
        people += (talking[speaker] > 0) - (before > 0)
    return overlap_s / speech_s if speech_s else 0.0


def turn_rate(transcript: Transcript) -> float:
    """Changes of speaker per minute, from segment to segment in order of start."""
    segments = transcript.segments
    changes = sum(a.speaker != b.speaker for a, b in pairwise(segments))
    return 60 * changes / transcript.duration_s if transcript.duration_s else 0.0


def subsets(
    pairs: Sequence[Pair], scores: Sequence[Scores], normalisation: Normalisation
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return errors by group of recordings, and by position within them; JSON-ready.

    Args:
        pairs: reference and hypothesis of each recording.
        scores: of each pair, in the same order.
        normalisation: that of the scores.

    Returns:
        `speakers` (by number of reference speakers), `overlap` and `turn_rate`: label of the group
        to its total, as `Scores.to_json`, with its number of `recordings`; groups without
        recordings are left out. `position`: each of `POSITIONS` to `{"wer": ...}`. `CONVENTIONS`
        defines the groups.

    Raises:
        ExtraError: rapidfuzz is not installed.
    """
    groups: dict[str, dict[str, list[Scores]]] = {
        "speakers": {str(n): [] for n in sorted({len(pair.reference.speakers) for pair in pairs})},
        "overlap": {label: [] for _, label in _OVERLAPS},
        "turn_rate": {label: [] for _, label in _TURN_RATES},
    }
    by_position = [ErrorCounts()] * len(POSITIONS)
    for pair, one in zip(pairs, scores, strict=True):
        share, rate = overlap_share(pair.reference), turn_rate(pair.reference)
        groups["speakers"][str(len(pair.reference.speakers))].append(one)
        groups["overlap"][next(name for top, name in _OVERLAPS if share <= top)].append(one)
        groups["turn_rate"][next(name for top, name in _TURN_RATES if rate < top)].append(one)
        own = word_errors_by_position(pair, normalisation.words)
        by_position = [a + b for a, b in zip(by_position, own, strict=True)]
    result: dict[str, dict[str, dict[str, Any]]] = {
        kind: {
            label: {"recordings": len(members), **_total_json(members)}
            for label, members in by_label.items()
            if members
        }
        for kind, by_label in groups.items()
    }
    result["position"] = {
        label: {"wer": {**asdict(counts), "rate": _finite(counts.rate)}}
        for label, counts in zip(POSITIONS, by_position, strict=True)
    }
    return result


def _total_json(scores: list[Scores]) -> dict[str, Any]:
    values = total(scores).to_json()
    values.pop("conventions", None)  # once for the whole result
    return values


def _finite(rate: float) -> float | None:
    return rate if np.isfinite(rate) else None


@dataclass(frozen=True, slots=True)
class _Alignment:
    """The words of two transcripts, and what to edit in the reference to get the hypothesis.

    Attributes:
        reference: for each reference word, the index of its segment. [N]
        hypothesis: for each hypothesis word, the index of its segment. [M]
        edits: `(replace | delete | insert, reference word, hypothesis word)`; an insertion stands
            before its reference word, which may be the N-th.
    """

    reference: list[int]
    hypothesis: list[int]
    edits: list[tuple[str, int, int]]


def _align(pair: Pair, words: Words) -> _Alignment:
    """Align all words in order of their segments' starts, with the fewest edits."""
    said: list[list[str]] = []
    homes: list[list[int]] = []
    for transcript in (pair.reference, pair.hypothesis):
        rows = [words(segment.text) for segment in transcript.segments]
        said.append([word for row in rows for word in row])
        homes.append([i for i, row in enumerate(rows) for _ in row])
    return _Alignment(homes[0], homes[1], edits(*said))


def word_errors_by_position(pair: Pair, words: Words) -> list[ErrorCounts]:
    """Return the word errors in each of `POSITIONS`; they add up to those of `Scores.wer`.

    A word's place is the middle of its segment. An insertion is where the reference word before it
    is; without one, where the next is; without any reference words, where its own segment is.
    """
    aligned = _align(pair, words)
    quarters = [
        [_quarter(segment, pair.duration_s) for segment in side.segments]
        for side in (pair.reference, pair.hypothesis)
    ]
    reference = [quarters[0][home] for home in aligned.reference]
    counts = [Counter[str]() for _ in POSITIONS]
    for quarter in reference:
        counts[quarter]["word"] += 1
    for tag, at, in_hypothesis in aligned.edits:
        if tag != "insert":
            counts[reference[at]][tag] += 1
        elif reference:
            counts[reference[max(at - 1, 0)]][tag] += 1
        else:
            counts[quarters[1][aligned.hypothesis[in_hypothesis]]][tag] += 1
    return [ErrorCounts(c["insert"], c["delete"], c["replace"], c["word"]) for c in counts]


def _quarter(segment: Segment, duration_s: float) -> int:
    middle_s = (segment.start_s + segment.end_s) / 2
    count = len(POSITIONS)
    return min(int(count * middle_s / duration_s), count - 1) if duration_s else 0


def calibration(pairs: Sequence[Pair], normalisation: Normalisation) -> dict[str, Any] | None:
    """Compare the confidence of words with how many of them are right.

    Args:
        pairs: reference and hypothesis of each recording.
        normalisation: that of the scores.

    Returns:
        `ece`, the expected calibration error in 0..1: mean over words of |accuracy - confidence| of
        their bin; and `bins`, ten of equal width: `low` < confidence <= `high` (0 is in the first),
        the words' mean `confidence`, their `accuracy`, and their number, `count`; without words the
        means are `None`. `None` if no words have a confidence.

    Raises:
        DataError: a confidence is not in 0..1.
        ExtraError: rapidfuzz is not installed.
    """
    samples = [row for pair in pairs for row in _confident(pair, normalisation.words)]
    if not samples:
        return None
    confidence, right, words = np.array(samples, dtype=float).T  # [segments] each
    edges = np.arange(1, _BINS) / _BINS
    home = np.digitize(confidence, edges, right=True)
    expected, correct, count = (
        np.bincount(home, weights=values, minlength=_BINS)  # [10], in words
        for values in (confidence * words, right, words)
    )
    bins = [
        {
            "low": i / _BINS,
            "high": (i + 1) / _BINS,
            "confidence": float(expected[i] / count[i]) if count[i] else None,
            "accuracy": float(correct[i] / count[i]) if count[i] else None,
            "count": int(count[i]),
        }
        for i in range(_BINS)
    ]
    return {"ece": float(np.abs(correct - expected).sum() / count.sum()), "bins": bins}


def _confident(pair: Pair, words: Words) -> list[tuple[float, int, int]]:
    """Confidence, right words and words of each hypothesis segment with a confidence and words."""
    segments = pair.hypothesis.segments
    if all(segment.confidence.words is None for segment in segments):
        return []
    aligned = _align(pair, words)
    said = Counter(aligned.hypothesis)
    wrong = Counter(aligned.hypothesis[at] for tag, _, at in aligned.edits if tag != "delete")
    rows = []
    for i, segment in enumerate(segments):
        known = segment.confidence.words
        if known is None or not said[i]:
            continue
        if not 0 <= known <= 1:
            raise DataError(
                f"{pair.name}: segment of {segment.speaker!r} [{segment.start_s}, {segment.end_s}]: "
                f"confidence {known} is not in 0..1; scale it, or leave it out"
            )
        rows.append((known, said[i] - wrong[i], said[i]))
    return rows


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same recordings; rates are fractions, lower is better.

    Attributes:
        a: error rate of the first system, over all recordings.
        b: error rate of the second.
        interval: 95 % percentile interval of `a - b`.
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

    @property
    def difference(self) -> float:
        return self.a - self.b


def compare(
    a: Mapping[str, tuple[float, float]],
    b: Mapping[str, tuple[float, float]],
    *,
    draws: int = 10_000,
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
    rng = np.random.default_rng(seed)
    step = max(1, 2_000_000 // len(names))  # draws at once: bounds the memory
    saved = np.empty((2, draws))  # errors of a less those of b, and what divides them
    for at in range(0, draws, step):
        size = (min(step, draws - at), len(names))
        rows = rng.integers(len(names), size=size, dtype=np.int32)  # [step, recordings]
        for sums, column in zip(saved, (counts[:, 0] - counts[:, 1], counts[:, 2]), strict=True):
            sums[at : at + step] = column.take(rows).sum(axis=1)
    differences = np.divide(*saved[:, saved[1] > 0])
    low, high = np.quantile(differences, [0.025, 0.975])
    rate_a, rate_b, _ = counts.sum(axis=0) / counts[:, 2].sum()
    return Comparison(
        a=float(rate_a),
        b=float(rate_b),
        interval=(float(low), float(high)),
        a_better=float((differences < 0).mean()),
        draws=len(differences),
        recordings=len(names),
    )


def compare_results(a: Mapping[str, Any], b: Mapping[str, Any], metric: str) -> Comparison:
    """Compare two stored evaluations by an error rate, as `compare`.

    Args:
        a: the object of an evaluation.
        b: that of the other system, on the same data.
        metric: `wer`, `cpwer`, `tcpwer`, `orcwer`, `der_0`, `der_025` or `jer`.

    Raises:
        DataError: the metric is unknown or was not scored, the normalisation differs, or `compare`
            refuses.
    """
    if metric not in _FRACTIONS:
        raise DataError(f"compare: unknown metric {metric!r}; known: {', '.join(_FRACTIONS)}")
    steps = [result["settings"]["normalisation"] for result in (a, b)]
    if steps[0] != steps[1]:
        differing = [k for k in {**steps[0], **steps[1]} if steps[0].get(k) != steps[1].get(k)]
        raise DataError(
            f"compare: the results differ in normalisation ({', '.join(differing)}); score both alike"
        )
    return compare(_counts(a, metric), _counts(b, metric))


def _counts(result: Mapping[str, Any], metric: str) -> dict[str, tuple[float, float]]:
    """Return errors and divisor of each recording."""
    errors, divisor = _FRACTIONS[metric]
    counts = {}
    for recording in result["recordings"]:
        values = recording["scores"].get(metric)
        if values is None:
            reason = result.get("skipped", {}).get(metric, "it is not in the result")
            raise DataError(
                f"compare: {result['system']} has no {metric} for {recording['name']!r}: {reason}; "
                "choose another metric"
            )
        counts[recording["name"]] = (sum(values[key] for key in errors), values[divisor])
    return counts
