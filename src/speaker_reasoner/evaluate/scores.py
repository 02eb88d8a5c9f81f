"""Word, speaker, time and gender errors of a transcript against its reference.

    scores = [score(reference, hypothesis) for reference, hypothesis in pairs]
    total(scores).cpwer.rate

Words are aligned by MeetEval, which is imported when first needed. Definitions of the metrics are in
`CONVENTIONS`, which is part of every `Scores.to_json()`, and in the `Normalisation`. Reading files,
choosing pairs and printing tables happen elsewhere.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import reduce
from operator import add
from typing import Any, TypeVar

from ..transcript import Transcript
from .counts import (
    Additive,
    BoundaryCounts,
    Counts,
    DiarizationCounts,
    ErrorCounts,
    JaccardCounts,
    MeanError,
    Skip,
    finite,
)
from .directives import scored
from .normalisation import Normalisation
from .times import boundaries, diarization, genders
from .words import SegmentWords, combination_errors, permutation_errors, timed_errors, word_errors

COLLAR_S = 0.25
"""Time not scored on either side of a reference boundary in `Scores.der_025`, in seconds."""

WORD_COLLAR_S = 5.0
"""Greatest distance in time of matching words in `Scores.tcpwer`, in seconds."""

TOLERANCES_S = (0.1, 0.25, 0.5)
"""Greatest distance of matching boundaries in `Scores.boundaries`, in seconds."""

CONVENTIONS = {
    "words": "both sides go through the same normalisation, which is stored beside",
    "directives": "stretches that the reference or a UEM takes out of scoring are left out on both"
    " sides, a word by its middle; of alternatives that one is the reference which needs the fewest"
    " edits of all words in order; an optional word that is not said counts as said (sclite -D)",
    "wer": "(insertions + deletions + substitutions) / reference words; all segments in order of"
    " start, concatenated, speakers ignored (the published CER and WER)",
    "cpwer": "per speaker in order of start, concatenated, best one-to-one mapping of speakers"
    " (Watanabe et al., CHiME-6, 2020; MeetEval)",
    "delta_cp": "cpwer - wer, of the rates: the errors that come from speaker labels",
    "tcpwer": f"cpwer in which words match only if the middle of the hypothesis word"
    f" lies less than {WORD_COLLAR_S:g} s from the reference word, a word's time being its share of its"
    " segment by characters (von Neumann et al., CHiME-7, 2023; MeetEval)",
    "orcwer": "each reference segment is given to the hypothesis speaker where it costs least"
    " (Sklyar et al., 2022; MeetEval): exact for small recordings, greedy above, see"
    " words.ORC_EXACT",
    "der_025": f"(missed + false alarm + confused) / reference speaker time; collar {COLLAR_S} s on"
    " each side, overlap scored, the whole recording scored: md-eval with a UEM of it (NIST RT-09)",
    "der_0": "the same without a collar",
    "jer": "mean over reference speakers of 1 - intersection / union of their time with that of the"
    " mapped hypothesis speaker, 1 without one; mapped so that the sum is least; no collar (DIHARD II,"
    " 2019; dscore)",
    "gender": "reference segments of known gender; right if the speaker of the hypothesis segment"
    " with the largest intersection over union in time has that gender",
    "gender_time": "the same, each segment weighted by its duration",
    "speaker_count": "recordings with the right number of speakers",
    "speaker_count_error": "mean over recordings of the absolute difference in number of speakers",
    "boundaries": "starts with starts and ends with ends of segments, whoever speaks, matched one"
    " to one within the tolerance in seconds: as many as possible, then the nearest; errors are"
    " means over matches",
}
"""Definition and source of each metric; part of every result."""

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Scores:
    """Errors of one recording, or the sum over several; `CONVENTIONS` defines each.

    A metric is `None` where it did not run. In a sum it covers the recordings where it did, and
    `skipped` says why and how many are missing.

    Attributes:
        wer: words without speakers (not the ORC-WER).
        cpwer: words by speaker.
        tcpwer: words by speaker and time.
        orcwer: words by hypothesis speaker.
        der_025: diarization with a collar of `COLLAR_S` on each side of reference boundaries.
        der_0: diarization without a collar.
        jer: diarization by reference speaker.
        gender: reference segments whose speaker's gender is known, and for how many it is right.
        gender_time: the same in seconds.
        speaker_count: recordings, and how many have the right number of speakers.
        speaker_count_error: absolute difference in the number of speakers.
        boundaries: starts and ends of segments, by tolerance in seconds (`0.1`, `0.25`, `0.5`).
        reasons: recordings where a metric did not run, by metric and reason.
    """

    wer: ErrorCounts | None = ErrorCounts()  # noqa: RUF009 - frozen
    cpwer: ErrorCounts | None = ErrorCounts()  # noqa: RUF009 - frozen
    tcpwer: ErrorCounts | None = ErrorCounts()  # noqa: RUF009 - frozen
    orcwer: ErrorCounts | None = ErrorCounts()  # noqa: RUF009 - frozen
    der_025: DiarizationCounts | None = DiarizationCounts()  # noqa: RUF009 - frozen
    der_0: DiarizationCounts | None = DiarizationCounts()  # noqa: RUF009 - frozen
    jer: JaccardCounts | None = JaccardCounts()  # noqa: RUF009 - frozen
    gender: Counts | None = Counts()  # noqa: RUF009 - frozen
    gender_time: Counts | None = Counts()  # noqa: RUF009 - frozen
    speaker_count: Counts = Counts()  # noqa: RUF009 - frozen
    speaker_count_error: MeanError = MeanError()  # noqa: RUF009 - frozen
    boundaries: Mapping[str, BoundaryCounts] | None = field(
        default_factory=lambda: {
            f"{tolerance_s:g}": BoundaryCounts() for tolerance_s in TOLERANCES_S
        }
    )
    reasons: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def __add__(self, other: "Scores") -> "Scores":
        sums: dict[str, Any] = {}
        for name in (each.name for each in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            if name == "reasons":
                sums[name] = dict(Counter(ours) + Counter(theirs))
            elif ours is None or theirs is None:
                sums[name] = theirs if ours is None else ours
            elif name == "boundaries":
                sums[name] = {tolerance: ours[tolerance] + theirs[tolerance] for tolerance in ours}
            else:
                sums[name] = ours + theirs
        return Scores(**sums)

    @property
    def delta_cp(self) -> float:
        """The errors that come from speaker labels, as a difference of rates; NaN without both."""
        if self.cpwer is None or self.wer is None:
            return math.nan
        return self.cpwer.rate - self.wer.rate

    @property
    def skipped(self) -> dict[str, str]:
        """By metric, the reasons it did not run, with the number of recordings of each."""
        by_metric: dict[str, list[str]] = {}
        for (metric, reason), count in sorted(self.reasons.items()):
            by_metric.setdefault(metric, []).append(
                f"{reason} ({count} recording{'s' if count > 1 else ''})"
            )
        return {metric: "; ".join(reasons) for metric, reasons in by_metric.items()}

    def to_json(self) -> dict[str, Any]:
        """Return counts, rates and conventions, JSON-ready; a rate without a number is `None`."""
        result: dict[str, Any] = {}
        for name in (each.name for each in fields(self) if each.name != "reasons"):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                result[name] = {key: counts.to_json() for key, counts in value.items()}
            else:
                result[name] = value.to_json() if isinstance(value, Additive) else None
        return {
            **result,
            "delta_cp": finite(self.delta_cp),
            "skipped": self.skipped,
            "conventions": dict(CONVENTIONS),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Scores":
        """Read the JSON that `to_json` gave for one recording.

        Raises:
            KeyError, TypeError: it was stored by another version.
        """
        made: dict[str, Any] = {}
        for name, kind in _KINDS.items():
            value = stored[name]
            if name == "boundaries" and value is not None:
                made[name] = {key: kind.from_json(counts) for key, counts in value.items()}
            else:
                made[name] = None if value is None else kind.from_json(value)
        ending = " (1 recording)"
        reasons = {(m, text.removesuffix(ending)): 1 for m, text in stored["skipped"].items()}
        return cls(**made, reasons=reasons)


_KINDS: dict[str, type[Additive]] = {
    **dict.fromkeys(("wer", "cpwer", "tcpwer", "orcwer"), ErrorCounts),
    **dict.fromkeys(("der_025", "der_0"), DiarizationCounts),
    "jer": JaccardCounts,
    **dict.fromkeys(("gender", "gender_time", "speaker_count"), Counts),
    "speaker_count_error": MeanError,
    "boundaries": BoundaryCounts,
}
"""The counts of each metric."""


def score(
    reference: Transcript,
    hypothesis: Transcript,
    normalisation: Normalisation = Normalisation(),  # noqa: B008 - frozen
    *,
    times: bool = True,
    words: bool = True,
) -> Scores:
    """Compare a hypothesis with the reference of the same recording, following `CONVENTIONS`.

    The names of the recordings are not compared. Either transcript may be empty. A reference that
    has segments but no text in any of them is one without words: word errors are skipped.

    Args:
        reference: the reference.
        hypothesis: of the same recording.
        normalisation: of the words of both sides.
        times: whether the hypothesis has real times. If not, metrics that need them are skipped; the
            order of segments is still that of their times.
        words: whether the hypothesis is of a system that gives words. If not, word errors are skipped.

    Raises:
        DataError: a library of the `eval` extra is missing.
    """
    reasons: dict[tuple[str, str], int] = {}

    def run(metrics: str, needs: str, compute: Callable[[], _Made]) -> _Made | None:
        """Compute, or note for each metric why it is skipped."""
        try:
            for need in needs.split():
                if lacks[need]:
                    raise Skip(lacks[need])
            return compute()
        except Skip as reason:
            reasons.update({(metric, str(reason)): 1 for metric in metrics.split()})
            return None

    wordless = reference.segments and not any(s.text.strip() for s in reference.segments)
    lacks = {
        "words": "the reference has no words"
        if wordless
        else ("" if words else "the system gives no words"),
        "times": "" if times else "the times are not known",
    }
    whole = reference, hypothesis  # collars surround the borders that the files have
    unscored = reference.unscored
    reference, hypothesis, skipped = scored(reference, hypothesis, normalisation.words)
    ours, theirs = (
        [(segment, normalisation.words(segment.text)) for segment in side.segments]
        for side in (reference, hypothesis)
    )
    said = ErrorCounts(reference_words=skipped)
    expected, got = len(reference.speakers), len(hypothesis.speakers)
    der_0 = run("der_0 jer", "times", lambda: diarization(*whole, 0.0, unscored))
    der_025 = run("der_025", "times", lambda: diarization(*whole, COLLAR_S, unscored))
    gender = run("gender gender_time", "times", lambda: genders(reference, hypothesis))
    return Scores(
        wer=run("wer", "words", lambda: word_errors(_all_words(ours), _all_words(theirs)) + said),
        cpwer=run("cpwer", "words", lambda: permutation_errors(ours, theirs) + said),
        tcpwer=run(
            "tcpwer", "words times", lambda: timed_errors(ours, theirs, WORD_COLLAR_S) + said
        ),
        orcwer=run("orcwer", "words", lambda: combination_errors(ours, theirs) + said),
        der_025=der_025 and der_025[0],
        der_0=der_0 and der_0[0],
        jer=der_0 and der_0[1],
        gender=gender and gender[0],
        gender_time=gender and gender[1],
        speaker_count=Counts(int(expected == got), 1),
        speaker_count_error=MeanError(abs(expected - got), 1),
        boundaries=run(
            "boundaries",
            "times",
            lambda: {f"{t:g}": boundaries(reference, hypothesis, t) for t in TOLERANCES_S},
        ),
        reasons=reasons,
    )


def _all_words(spoken: SegmentWords) -> list[str]:
    return [word for _, words in spoken for word in words]


def total(scores: Iterable[Scores]) -> Scores:
    """Add up; of no scores, all counts are zero."""
    listed = list(scores)
    return reduce(add, listed) if listed else Scores()
