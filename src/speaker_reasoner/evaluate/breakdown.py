"""Errors by subset, and calibration of confidences.

    known = [facts(pair, normalisation) for pair in pairs]
    subsets(known, scores)      # by speakers, overlap, turn rate, position
    calibration(known)          # ECE, bins of a reliability picture

Rates come from the counts of `scores`; only the position of word errors, and which words are right,
are computed here, by an alignment of all words in order of time (that of `Scores.wer`).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from ..errors import DataError
from ..transcript import Segment, Transcript
from .counts import ErrorCounts, finite
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


@dataclass(frozen=True, slots=True)
class Facts:
    """The counts that one recording adds to subsets and calibration.

    Attributes:
        speakers: of the reference.
        overlap: `overlap_share` of the reference.
        turn_rate: `turn_rate` of the reference.
        position: word errors in each of `POSITIONS`.
        calibration: of each of ten bins the sum of the words' confidences, how many of them are
            right, and how many there are; `None` if no word has a confidence.
    """

    speakers: int
    overlap: float
    turn_rate: float
    position: tuple[ErrorCounts, ...]
    calibration: tuple[tuple[float, int, int], ...] | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Read the JSON that `to_json` gave."""
        bins = stored["calibration"]
        return cls(
            stored["speakers"],
            stored["overlap"],
            stored["turn_rate"],
            tuple(ErrorCounts(**counts) for counts in stored["position"]),
            bins and tuple((float(c), int(right), int(count)) for c, right, count in bins),
        )


def facts(pair: Pair, normalisation: Normalisation) -> Facts:
    """Count what subsets and calibration need of one recording.

    Raises:
        DataError: a confidence is not in 0..1.
        ExtraError: rapidfuzz is not installed.
    """
    return Facts(
        len(pair.reference.speakers),
        overlap_share(pair.reference),
        turn_rate(pair.reference),
        tuple(word_errors_by_position(pair, normalisation.words)),
        _bins(_confident(pair, normalisation.words)),
    )


def subsets(
    known: Sequence[Facts], scores: Sequence[Scores]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return errors by group of recordings, and by position within them; JSON-ready.

    Args:
        known: facts of each recording.
        scores: of each recording, in the same order.

    Returns:
        `speakers` (by number of reference speakers), `overlap` and `turn_rate`: label of the group
        to its total, as `Scores.to_json`, with its number of `recordings`; groups without
        recordings are left out. `position`: each of `POSITIONS` to `{"wer": ...}`. `CONVENTIONS`
        defines the groups.
    """
    groups: dict[str, dict[str, list[Scores]]] = {
        "speakers": {str(n): [] for n in sorted({one.speakers for one in known})},
        "overlap": {label: [] for _, label in _OVERLAPS},
        "turn_rate": {label: [] for _, label in _TURN_RATES},
    }
    by_position = [ErrorCounts()] * len(POSITIONS)
    for one, own in zip(known, scores, strict=True):
        groups["speakers"][str(one.speakers)].append(own)
        groups["overlap"][next(n for top, n in _OVERLAPS if one.overlap <= top)].append(own)
        groups["turn_rate"][next(n for top, n in _TURN_RATES if one.turn_rate < top)].append(own)
        by_position = [a + b for a, b in zip(by_position, one.position, strict=True)]
    result: dict[str, dict[str, dict[str, Any]]] = {
        kind: {
            label: {"recordings": len(members), **_total_json(members)}
            for label, members in by_label.items()
            if members
        }
        for kind, by_label in groups.items()
    }
    result["position"] = {
        label: {"wer": {**asdict(counts), "rate": finite(counts.rate)}}
        for label, counts in zip(POSITIONS, by_position, strict=True)
    }
    return result


def _total_json(scores: list[Scores]) -> dict[str, Any]:
    values = total(scores).to_json()
    values.pop("conventions", None)  # once for the whole result
    return values


@dataclass(frozen=True, slots=True)
class _Alignment:
    """The words of two transcripts, and the edits that turn the reference into the hypothesis.

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


def calibration(known: Sequence[Facts]) -> dict[str, Any] | None:
    """Compare the confidence of words with how many of them are right.

    Args:
        known: facts of each recording.

    Returns:
        `ece`, the expected calibration error in 0..1: mean over words of |accuracy - confidence| of
        their bin; and `bins`, ten of equal width: `low` < confidence <= `high` (0 is in the first),
        the words' mean `confidence`, their `accuracy`, and their number, `count`; without words the
        means are `None`. `None` if no words have a confidence.
    """
    rows = [one.calibration for one in known if one.calibration is not None]
    if not rows:
        return None
    expected, correct, count = np.array(rows).sum(axis=0).T  # [10] each, in words
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


def _bins(samples: list[tuple[float, int, int]]) -> tuple[tuple[float, int, int], ...] | None:
    """Confidence times words, right words and words, in ten bins of confidence."""
    if not samples:
        return None
    confidence, right, words = np.array(samples, dtype=float).T  # [segments] each
    home = np.digitize(confidence, np.arange(1, _BINS) / _BINS, right=True)
    columns = (
        np.bincount(home, weights=values, minlength=_BINS)
        for values in (confidence * words, right, words)
    )
    return tuple((float(c), int(r), int(n)) for c, r, n in zip(*columns, strict=True))


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
