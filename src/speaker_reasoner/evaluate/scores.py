"""Word, speaker, time and gender errors of a transcript against its reference.

    scores = [score(reference, hypothesis) for reference, hypothesis in pairs]
    total(scores).cpwer.rate
    bootstrap(scores, lambda summed: summed.cpwer.rate)     # 95 % interval over recordings

Words are aligned by MeetEval, speaker time is compared by pyannote.metrics; both are imported when
first needed. What counts is said in `CONVENTIONS`, which is part of every `Scores.to_json()`.
Reading files, choosing pairs and printing tables happen elsewhere.
"""

import importlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from ..errors import DataError
from ..transcript import Segment, Transcript

COLLAR_S = 0.25
"""Time not scored on either side of a reference boundary in `Scores.der_025`, in seconds."""

CONVENTIONS = {
    "words": "lower case, split at white space and around each Han or kana character; no other"
    " normalisation: punctuation counts",
    "wer": "all segments in order of start, concatenated, speakers ignored",
    "cpwer": "per speaker in order of start, concatenated, best one-to-one mapping of speakers",
    "der_025": f"collar {COLLAR_S} s on each side, overlap scored, the whole recording scored",
    "der_0": "no collar, overlap scored, the whole recording scored",
    "gender": "reference segments of known gender; right if the speaker of the hypothesis segment"
    " with the largest intersection over union in time has that gender",
    "speaker_count": "recordings with the right number of speakers",
}
"""What is compared, and how: part of every result."""

_ALONE = re.compile(  # iteration marks, kana, Han and their compatibility forms
    r"([\u3005-\u3007\u3041-\u3096\u309d-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    r"\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af])"
)


@dataclass(frozen=True, slots=True)
class _Additive:
    """Counts that add field by field."""

    def __add__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))


def _error_rate(errors: float, reference: float) -> float:
    """Errors by reference: 0 where there is neither, infinite for errors without a reference."""
    if reference:
        return errors / reference
    return math.inf if errors else 0.0


@dataclass(frozen=True, slots=True)
class ErrorCounts(_Additive):
    """Word errors: what to insert, delete and substitute in the reference to get the hypothesis."""

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
class DiarizationCounts(_Additive):
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
class Counts(_Additive):
    """How many of how many are right."""

    right: int = 0
    total: int = 0

    @property
    def rate(self) -> float:
        """Share that is right; not a number where there is nothing to be right about."""
        return self.right / self.total if self.total else math.nan


@dataclass(frozen=True, slots=True)
class Scores(_Additive):
    """All errors of one recording, or of several added up.

    Attributes:
        wer: words without speakers; the order of segments is that of their starts (the definition
            behind the published CER; not the ORC-WER).
        cpwer: concatenated minimum-permutation words (Watanabe et al., CHiME-6, 2020).
        der_025: diarization with a collar of `COLLAR_S` on each side of reference boundaries.
        der_0: diarization without a collar.
        gender: reference segments whose speaker's gender is known, and for how many it is right.
        speaker_count: recordings, and how many have the right number of speakers.
        speaker_count_error: absolute difference in the number of speakers, summed.
    """

    wer: ErrorCounts = ErrorCounts()
    cpwer: ErrorCounts = ErrorCounts()
    der_025: DiarizationCounts = DiarizationCounts()
    der_0: DiarizationCounts = DiarizationCounts()
    gender: Counts = Counts()
    speaker_count: Counts = Counts()
    speaker_count_error: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return counts, rates and conventions, JSON-ready; a rate without a number is `None`."""
        result: dict[str, Any] = asdict(self)
        for name, counts in result.items():
            if isinstance(counts, dict):
                rate = getattr(self, name).rate
                counts["rate"] = rate if math.isfinite(rate) else None
        return {**result, "conventions": dict(CONVENTIONS)}


def normalise(text: str) -> str:
    """Return the words that are compared, separated by single spaces.

    Lower-cases, and makes each Han or kana character a word of its own, so that a word error rate
    of Chinese is a character error rate. Nothing else: punctuation, numbers and spelling stay.
    """
    return " ".join(_ALONE.sub(r" \1 ", text.lower()).split())


def score(reference: Transcript, hypothesis: Transcript) -> Scores:
    """Compare a hypothesis with the reference of the same recording, following `CONVENTIONS`.

    The names of the recordings are not compared. Either transcript may be empty.

    Raises:
        DataError: MeetEval or pyannote.metrics is not installed.
    """
    expected, got = len(reference.speakers), len(hypothesis.speakers)
    return Scores(
        wer=_word_errors(normalise(reference.text).split(), normalise(hypothesis.text).split()),
        cpwer=_permutation_errors(_words_by_speaker(reference), _words_by_speaker(hypothesis)),
        der_025=_speaker_time(reference, hypothesis, COLLAR_S),
        der_0=_speaker_time(reference, hypothesis, 0.0),
        gender=_genders(reference, hypothesis),
        speaker_count=Counts(int(expected == got), 1),
        speaker_count_error=abs(expected - got),
    )


def total(scores: Iterable[Scores]) -> Scores:
    """Add up; of no scores, all counts are zero."""
    return sum(scores, Scores())


def bootstrap(
    scores: Sequence[Scores], pick: Callable[[Scores], float], *, seed: int = 0, draws: int = 1000
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a rate over recordings (Efron & Tibshirani, 1993).

    Args:
        scores: one for each recording; whole recordings are drawn, with replacement.
        pick: the rate, from scores added up. If it is not a number for some draw (no segment of
            known gender in it), neither are the bounds.
        seed: the same seed gives the same interval.
        draws: how many sets of recordings are drawn.

    Raises:
        DataError: there are no scores.
    """
    if not scores:
        raise DataError("bootstrap: got no recordings, expected one or more; score some first")
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(scores), size=(draws, len(scores)))  # [draws, recordings]
    rates = [pick(total(scores[i] for i in row)) for row in rows]
    low, high = np.quantile(rates, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def _load(module: str) -> Any:
    """Import a module of the `eval` extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"scoring needs {module}: {error}; pip install 'speaker-reasoner[eval]'"
        ) from error


def _words_by_speaker(transcript: Transcript) -> dict[str, list[str]]:
    """The words of each speaker who has any."""
    words: dict[str, list[str]] = {}
    for segment in transcript.segments:
        words.setdefault(segment.speaker, []).extend(normalise(segment.text).split())
    return {speaker: theirs for speaker, theirs in words.items() if theirs}


def _word_errors(reference: list[str], hypothesis: list[str]) -> ErrorCounts:
    """Levenshtein alignment; one side may be empty, which MeetEval does not take."""
    if not reference or not hypothesis:
        return ErrorCounts(len(hypothesis), len(reference), 0, len(reference))
    texts = " ".join(reference), " ".join(hypothesis)
    return _counted(_load("meeteval.wer").siso_word_error_rate(*texts))


def _counted(rate: Any) -> ErrorCounts:
    return ErrorCounts(rate.insertions, rate.deletions, rate.substitutions, rate.length)


def _permutation_errors(
    reference: dict[str, list[str]], hypothesis: dict[str, list[str]]
) -> ErrorCounts:
    """cpWER; what MeetEval refuses, over 20 speakers or none, is mapped here in the same way."""
    if not (0 < len(reference) <= 20 and 0 < len(hypothesis) <= 20):
        return _assigned_errors(list(reference.values()), list(hypothesis.values()))
    as_text = [{k: " ".join(v) for k, v in side.items()} for side in (reference, hypothesis)]
    return _counted(_load("meeteval.wer").cp_word_error_rate(*as_text))


def _assigned_errors(reference: list[list[str]], hypothesis: list[list[str]]) -> ErrorCounts:
    """Sum of word errors over the cheapest one-to-one mapping; the shorter side gets empty ones."""
    count = max(len(reference), len(hypothesis))
    rows = reference + [[]] * (count - len(reference))
    columns = hypothesis + [[]] * (count - len(hypothesis))
    pairs = [[_word_errors(row, column) for column in columns] for row in rows]
    costs = np.array([pair.errors for row in pairs for pair in row]).reshape(count, count)
    best = _load("scipy.optimize").linear_sum_assignment(costs)
    return sum((pairs[i][j] for i, j in zip(*best, strict=True)), ErrorCounts())


def _speaker_time(
    reference: Transcript, hypothesis: Transcript, collar_s: float
) -> DiarizationCounts:
    """Diarization errors from 0 to the end of the longer transcript (md-eval with such a UEM).

    Collars surround every boundary as written, also between touching segments of one speaker, as
    in md-eval. Time in which two segments of one speaker overlap counts once, not twice.
    """
    core = _load("pyannote.core")
    metric = _load("pyannote.metrics.diarization").DiarizationErrorRate()
    ends = [segment.end_s for segment in (*reference.segments, *hypothesis.segments)]
    duration_s = max([reference.duration_s, hypothesis.duration_s, *ends])
    annotations = []
    for transcript in (reference, hypothesis):
        annotation = core.Annotation()
        for track, segment in enumerate(transcript.segments):
            annotation[core.Segment(segment.start_s, segment.end_s), track] = segment.speaker
        annotations.append(annotation)
    whole = core.Timeline([core.Segment(0.0, duration_s)])
    scored = metric.extrude(whole, annotations[0], collar=2 * collar_s)  # takes the total width
    counts = metric(*(side.support() for side in annotations), uem=scored, detailed=True)
    names = ("missed detection", "false alarm", "confusion", "total")
    return DiarizationCounts(*(float(counts[name]) for name in names))


def _genders(reference: Transcript, hypothesis: Transcript) -> Counts:
    """Gender by reference segment, from the best fitting hypothesis segment's speaker.

    Fit is intersection over union: plain overlap would give a word said inside another person's
    segment to that person. Of segments that fit equally well one of the right gender is enough; a
    segment that nothing overlaps is wrong.
    """
    expected, got = reference.genders, hypothesis.genders
    known = [s for s in reference.segments if expected[s.speaker] != "unknown"]
    right = 0
    for segment in known:
        fits = [(_fit(segment, other), got[other.speaker]) for other in hypothesis.segments]
        best = max((fit for fit, _ in fits), default=0.0)
        right += best > 0 and (best, expected[segment.speaker]) in fits
    return Counts(right, len(known))


def _fit(one: Segment, other: Segment) -> float:
    """Intersection over union in time; not above 0 where they do not overlap."""
    common_s = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    return common_s / (max(one.end_s, other.end_s) - min(one.start_s, other.start_s))
