"""Goldens (figures of MeetEval, md-eval and dscore), equality with these tools, laws, planted errors."""

import contextlib
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner import formats
from speaker_reasoner.errors import DataError, ExtraError, FormatError
from speaker_reasoner.evaluate import (
    BoundaryCounts,
    Counts,
    DiarizationCounts,
    ErrorCounts,
    JaccardCounts,
    MeanError,
    Normalisation,
    Scores,
    processes,
    results,
    score,
    streams,
    times,
    total,
    words,
)
from speaker_reasoner.evaluate.pairs import Pair
from speaker_reasoner.transcript import Segment, Transcript

from .pooled import dies, fails, slow
from .references import made_meeting

REMEDY = "pip install 'speaker-reasoner[eval]'"
pytest.importorskip("meeteval", reason=REMEDY)
pytest.importorskip("pyannote.metrics", reason=REMEDY)

SHARED = Path(__file__).parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is absent")

MEETING = Transcript(
    "meeting",
    12.0,
    (
        Segment("ann", 0.5, 6.0, "so what did you find out about it", "female"),
        Segment("bob", 2.0, 2.6, "yeah", "male"),
        Segment("bob", 6.2, 9.0, "not much to be honest", "male"),
        Segment("ann", 8.5, 11.0, "你好 then let us start", "female"),
    ),
)
EMPTY = Transcript("meeting", 12.0)
AS_WRITTEN = Normalisation(nfkc=False, lower=False, punctuation=False, characters=False)
WORDS = 8 + 1 + 5 + 6


def read_pair(folder: str, reference: str, hypothesis: str) -> list[tuple[Transcript, Transcript]]:
    ours = {t.recording: t for t in formats.read(SHARED / folder / hypothesis)}
    return [(t, ours[t.recording]) for t in formats.read(SHARED / folder / reference)]


def relabel(transcript: Transcript, labels: dict[str, str]) -> Transcript:
    return transcript.with_segments(
        [replace(s, speaker=labels[s.speaker]) for s in transcript.segments]
    )


def retext(transcript: Transcript, index: int, text: str) -> Transcript:
    segments = list(transcript.segments)
    segments[index] = replace(segments[index], text=text)
    return transcript.with_segments(segments)


@needs_shared
def test_words_are_meetevals() -> None:
    pairs = read_pair("meeteval_examples", "ref.stm", "hyp.stm")
    scores = total(score(*pair, AS_WRITTEN) for pair in pairs)
    assert scores.cpwer == scores.tcpwer == ErrorCounts(8, 15, 2, 92)
    assert scores.orcwer == ErrorCounts(0, 7, 2, 92)
    stored = [
        json.loads((SHARED / f"meeteval_examples/hyp_{name}_per_reco.json").read_text())
        for name in ("cpwer", "tcpwer", "orcwer")
    ]
    for reference, hypothesis in pairs:
        one = score(reference, hypothesis, AS_WRITTEN)
        for counts, figures in zip((one.cpwer, one.tcpwer, one.orcwer), stored, strict=True):
            assert counts is not None
            assert counts.rate == pytest.approx(figures[reference.recording]["error_rate"])


@needs_shared
def test_wer_is_meetevals() -> None:
    pairs = read_pair("meeteval_examples", "ref_siso.stm", "hyp_siso.stm")
    counts = total(score(*pair, AS_WRITTEN) for pair in pairs).wer
    assert counts is not None
    assert (counts.errors, counts.reference_words) == (2, 31)


@needs_shared
def test_der_is_meetevals_md_eval() -> None:
    # A reference turn of no length is nobody's speech, but has a collar.
    pairs = read_pair("meeteval_examples", "ref.rttm", "hyp.rttm")
    stored = json.loads((SHARED / "meeteval_examples/hyp_md_eval_22_per_reco.json").read_text())
    for reference, hypothesis in pairs:
        der = score(reference, hypothesis).der_025
        figures = stored[reference.recording]
        assert der is not None
        assert der.rate == pytest.approx(figures["error_rate"], abs=1e-6)
        assert der.reference_s == pytest.approx(figures["scored_speaker_time"], abs=1e-6)
        assert der.false_alarm_s == pytest.approx(figures["falarm_speaker_time"], abs=1e-6)
        assert der.confusion_s == pytest.approx(figures["speaker_error_time"], abs=1e-6)
        assert der.missed_s == pytest.approx(0, abs=1e-6)


@needs_shared
def test_der_of_a_real_meeting_is_md_evals_with_a_uem() -> None:
    [pair] = read_pair("alimeeting_der", "ref.rttm", "sys.rttm")
    scores = score(*pair)
    der = scores.der_0
    assert der is not None and scores.der_025 is not None
    assert 100 * der.rate == pytest.approx(9.00, abs=0.005)
    assert 100 * scores.der_025.rate == pytest.approx(1.93, abs=0.005)
    assert (der.reference_s, der.missed_s) == pytest.approx((1601.32, 3.43), abs=0.005)
    assert der.confusion_s == pytest.approx(40.75, abs=0.005)
    # md-eval without a UEM: 99.62 s. The system's speech before the reference's first segment
    # (0.11 s) and after its last (0.25 s) lies outside what md-eval then scores.
    assert der.false_alarm_s == pytest.approx(99.62 + 0.11 + 0.25, abs=0.005)


@needs_shared
@pytest.mark.parametrize(("collar_s", "percent"), [(0.0, 26.39), (0.2, 24.26), (0.25, 24.01)])
def test_der_is_dscores(collar_s: float, percent: float) -> None:
    # No speech lies outside the reference here: the figures are the same with and without a UEM.
    [pair] = read_pair("dscore_tests", "ref.rttm", "sys.rttm")
    der, _ = times.diarization(*pair, collar_s)
    assert 100 * der.rate == pytest.approx(percent, abs=0.005)


def made_pair() -> tuple[Transcript, Transcript]:
    """The made meeting, and what a poor system could hear: late, now and then somebody else's."""
    reference, rng = made_meeting(), random.Random(5)
    heard = [
        replace(
            s,
            speaker=s.speaker if rng.random() < 0.8 else rng.choice(reference.speakers),
            start_s=s.start_s + rng.uniform(0.0, 0.4),
            end_s=s.end_s + rng.uniform(0.0, 0.9),
        )
        for s in reference.segments
        if rng.random() < 0.9
    ]
    return reference, replace(reference, segments=tuple(heard), duration_s=reference.duration_s + 1)


@pytest.mark.parametrize(
    "folder",
    [
        "made",
        pytest.param("alimeeting_der", marks=[needs_shared, pytest.mark.slow]),
        pytest.param("dscore_tests", marks=needs_shared),
    ],
)
def test_time_is_pyannotes(folder: str) -> None:
    pair = made_pair()
    if folder != "made":
        [pair] = read_pair(folder, "ref.rttm", "sys.rttm")
    for collar_s in (0.0, 0.25):
        assert_is_pyannotes(*pair, collar_s)


def assert_is_pyannotes(reference: Transcript, hypothesis: Transcript, collar_s: float) -> None:
    from pyannote.core import Annotation, Timeline
    from pyannote.core import Segment as Span
    from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

    sides: list[Any] = []
    for transcript in (reference, hypothesis):
        annotation = Annotation()
        for track, segment in enumerate(transcript.segments):
            annotation[Span(segment.start_s, segment.end_s), track] = segment.speaker
        sides.append(annotation)
    ends = [s.end_s for s in (*reference.segments, *hypothesis.segments)]
    end_s = max(reference.duration_s, hypothesis.duration_s, *ends)
    der = DiarizationErrorRate()
    scored = der.extrude(Timeline([Span(0, end_s)]), sides[0], collar=2 * collar_s)
    sides = [side.support() for side in sides]
    expected = der(*sides, uem=scored, detailed=True)
    counts, jaccard = times.diarization(reference, hypothesis, collar_s)
    names = ("missed detection", "false alarm", "confusion", "total")
    found = (counts.missed_s, counts.false_alarm_s, counts.confusion_s, counts.reference_s)
    assert found == pytest.approx([expected[name] for name in names], abs=1e-4)
    if collar_s == 0:
        # pyannote maps speakers as for the DER, dscore so that the sum is least.
        expected = JaccardErrorRate()(*sides, uem=scored, detailed=True)
        assert jaccard.speakers == expected["speaker count"]
        assert jaccard.error_sum <= expected["speaker error"] + 1e-6
        ours, theirs = ([s.label_timeline(who) for who in s.labels()] for s in sides)
        theirs += [Timeline()] * len(ours)
        errors = [
            [
                1 - one.crop(other).duration() / one.union(other).support().duration()
                for other in theirs
            ]
            for one in ours
        ]
        sums = [
            sum(row[place] for row, place in zip(errors, order, strict=True))
            for order in permutations(range(len(theirs)), len(ours))
        ]
        assert jaccard.error_sum == pytest.approx(min(sums), abs=1e-6)


def as_seglst(transcript: Transcript, normalisation: Normalisation) -> Any:
    from meeteval.io import SegLST

    return SegLST(
        [
            {
                "session_id": "one",
                "speaker": s.speaker,
                "start_time": s.start_s,
                "end_time": s.end_s,
                "words": " ".join(normalisation.words(s.text)),
            }
            for s in transcript.segments
        ]
    )


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Short ones, speakers overlapping themselves and each other, pauses longer than the collar."""
    tick = st.integers(0, 120).map(lambda n: n / 4)
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from("ABC"),
                tick,
                st.integers(1, 20).map(lambda n: n / 4),
                st.lists(st.sampled_from(["a", "bb", "ccc", "d"]), min_size=1, max_size=4),
            ),
            min_size=1,
            max_size=8,
        )
    )
    segments = [Segment(who, at, at + lasts, " ".join(said)) for who, at, lasts, said in rows]
    return Transcript("r", 40.0, tuple(segments))


@settings(max_examples=60, deadline=None)
@given(transcripts(), transcripts(), st.sampled_from([1, 8, 10**6]))
def test_words_equal_meeteval_on_anything(
    reference: Transcript, hypothesis: Transcript, block: int
) -> None:
    from meeteval.wer import cp_word_error_rate, orc_word_error_rate
    from meeteval.wer.wer.time_constrained import (
        time_constrained_minimum_permutation_word_error_rate as tcp,
    )

    sides = [as_seglst(side, Normalisation()) for side in (reference, hypothesis)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(words, "_BLOCK", block)
        ours = score(reference, hypothesis)
    assert ours.cpwer == words._counted(cp_word_error_rate(*sides))
    assert ours.tcpwer == words._counted(tcp(*sides, collar=5))
    assert ours.orcwer is not None
    assert ours.orcwer.errors == orc_word_error_rate(*sides).errors


@pytest.mark.no_cover
@settings(max_examples=150, deadline=None)
@given(
    transcripts(),
    transcripts(),
    st.sampled_from([0, 1, 16]),
    st.sampled_from([1, 2, 3, 64]),
    st.sampled_from([0, 40, 2**20]),
)
def test_the_greedy_search_gives_segments_to_the_streams_that_meeteval_gives_them(
    reference: Transcript, hypothesis: Transcript, spare: int, block: int, kept: int
) -> None:
    """Also where limits begin too low, and whatever columns are kept."""
    from meeteval.wer.wer.orc import greedy_orc_word_error_rate

    normalisation = Normalisation()
    spoken = [(s.speaker, normalisation.words(s.text)) for s in reference.segments]
    hypothesis_words: dict[str, list[str]] = {}
    for segment in hypothesis.segments:
        hypothesis_words.setdefault(segment.speaker, []).extend(normalisation.words(segment.text))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(streams, "_BLOCK", block)
        patched.setattr(streams, "_KEPT", kept)
        patched.setattr(streams, "_SPARE", spare)
        numbers = streams.assign(
            [said for _, said in spoken],
            [who for who, _ in spoken],
            list(hypothesis_words.values()),
        )
    expected = greedy_orc_word_error_rate(
        *(as_seglst(side, normalisation) for side in (reference, hypothesis))
    )
    assert [list(hypothesis_words)[number] for number in numbers] == list(expected.assignment)


def test_streams_that_no_band_can_hold_are_searched_whole() -> None:
    """A stream of one word and one of a hundred, and all that was said by one person."""
    said = [["a"]] * 40 + [["b"]] * 40
    assert streams.assign(said, ["A"] * 80, [["a"], ["b"] * 100]) == [0] + [1] * 79


@settings(max_examples=60, deadline=None)
@given(transcripts(), transcripts())
def test_times_equal_pyannote_on_anything(reference: Transcript, hypothesis: Transcript) -> None:
    for collar_s in (0.0, 0.25):
        assert_is_pyannotes(reference, hypothesis, collar_s)


def test_a_transcript_has_no_errors_against_itself() -> None:
    scores = score(MEETING, MEETING)
    for counts in (scores.wer, scores.cpwer, scores.tcpwer, scores.orcwer):
        assert counts == ErrorCounts(reference_words=WORDS)
    assert scores.delta_cp == 0
    assert scores.der_0.errors_s == scores.der_025.errors_s == scores.jer.error_sum == 0
    assert scores.der_0.reference_s == pytest.approx(11.4)
    assert scores.gender == Counts(4, 4)
    assert scores.gender_time == Counts(pytest.approx(11.4), pytest.approx(11.4))
    assert scores.speaker_count == Counts(1, 1)
    assert scores.speaker_count_error == MeanError(0, 1)
    for counts in scores.boundaries.values():
        assert counts == BoundaryCounts(4, 4, 8, 8)
    assert scores.skipped == {}


def test_labels_do_not_matter() -> None:
    worse = retext(MEETING, 1, "yeah sure")
    swapped = relabel(worse, {"ann": "bob", "bob": "ann"})
    assert score(MEETING, swapped) == score(MEETING, worse)
    assert score(MEETING, swapped).cpwer == ErrorCounts(insertions=1, reference_words=WORDS)


@pytest.mark.parametrize("plan", [(0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3), (2, 1, 3), (3, 3, 2)])
def test_planted_errors_are_counted(plan: tuple[int, int, int]) -> None:
    substitutions, deletions, insertions = plan
    rng = random.Random(str(plan))
    words = [f"word{i}" for i in range(30)]
    changed = [[word] for word in words]
    # Apart from each other, so that no cheaper alignment exists.
    places = rng.sample(range(0, 30, 3), substitutions + deletions + insertions)
    for i, place in enumerate(places):
        if i < substitutions:
            changed[place] = ["other"]
        elif i < substitutions + deletions:
            changed[place] = []
        else:
            changed[place].append("extra")
    reference = Transcript("r", 9.0, (Segment("a", 0, 9, " ".join(words)),))
    hypothesis = retext(reference, 0, " ".join(word for part in changed for word in part))
    scores = score(reference, hypothesis)
    assert scores.wer == scores.cpwer == ErrorCounts(insertions, deletions, substitutions, 30)


def test_wrong_speaker_costs_cpwer_only() -> None:
    wrong = list(MEETING.segments)
    wrong[1] = replace(wrong[1], speaker="ann")
    scores = score(MEETING, MEETING.with_segments(wrong))
    assert scores.wer.errors == scores.orcwer.errors == 0
    assert scores.cpwer == scores.tcpwer == ErrorCounts(1, 1, 0, WORDS)
    assert scores.delta_cp == 2 / WORDS


def test_empty_hypothesis_deletes_everything() -> None:
    scores = score(MEETING, EMPTY)
    for counts in (scores.wer, scores.cpwer, scores.tcpwer, scores.orcwer):
        assert counts == ErrorCounts(0, WORDS, 0, WORDS)
    assert scores.der_0.missed_s == scores.der_0.reference_s > 0
    assert scores.jer == JaccardCounts(2.0, 2)
    assert scores.gender == Counts(0, 4)
    assert scores.speaker_count == Counts(0, 1)
    assert scores.speaker_count_error == MeanError(2, 1)
    assert scores.boundaries["0.5"] == BoundaryCounts(0, 0, 8, 0)
    assert scores.to_json()["boundaries"]["0.5"]["precision"] is None


def test_empty_reference_and_nothing_at_all() -> None:
    scores = score(EMPTY, MEETING)
    for counts in (scores.wer, scores.cpwer, scores.tcpwer, scores.orcwer):
        assert counts == ErrorCounts(WORDS, 0, 0, 0)
    assert scores.wer.rate == scores.der_0.rate == math.inf
    assert scores.der_025.false_alarm_s == pytest.approx(11.4)
    assert scores.to_json()["wer"]["rate"] is None
    for nothing in (EMPTY, Transcript("meeting", 0.0)):
        expected = Scores(speaker_count=Counts(1, 1), speaker_count_error=MeanError(0, 1))
        assert score(nothing, nothing) == expected
    assert Scores().wer.rate == Scores().der_0.rate == 0
    assert math.isnan(Scores().gender.rate)


def test_time_of_one_speaker_counts_once() -> None:
    twice = (Segment("a", 0, 4, "x"), Segment("a", 2, 6, "y"))
    der = score(Transcript("r", 10, twice), Transcript("r", 10, (Segment("b", 0, 7, "x y"),))).der_0
    assert (der.reference_s, der.false_alarm_s, der.errors_s) == pytest.approx((6, 1, 1))


def test_false_alarms_after_the_reference_count() -> None:
    late = MEETING.with_segments([*MEETING.segments, Segment("bob", 11.5, 13.0, "")])
    assert score(MEETING, late).der_0.false_alarm_s == pytest.approx(1.5)


def test_gender_inside_another_speakers_segment() -> None:
    shorter = list(MEETING.segments)
    shorter[1] = replace(shorter[1], start_s=2.1, end_s=2.5)
    assert score(MEETING, MEETING.with_segments(shorter)).gender == Counts(4, 4)
    wrong = [replace(s, gender="female") for s in MEETING.segments]
    assert score(MEETING, MEETING.with_segments(wrong)).gender == Counts(2, 4)


def test_more_speakers_than_meeteval_takes() -> None:
    many = [Segment(f"s{i}", i, i + 1, f"word{i} again") for i in range(25)]
    reference = Transcript("r", 25, tuple(many[:3]))
    scores = score(reference, Transcript("r", 25, tuple(many)))
    assert scores.cpwer == scores.tcpwer == ErrorCounts(44, 0, 0, 6)
    assert scores.orcwer is None
    assert scores.skipped["orcwer"].startswith(
        "MeetEval takes up to 10 hypothesis speakers; there are more"
    )


def test_counts_add() -> None:
    one, two = score(MEETING, EMPTY), score(MEETING, retext(MEETING, 0, "what"))
    both = total([one, two])
    assert both == one + two == two + one
    assert both.cpwer.errors == one.cpwer.errors + two.cpwer.errors
    assert both.speaker_count == Counts(1, 2)
    assert total([]) == Scores()
    assert DiarizationCounts(1, 2, 3, 10).rate == 0.6


def test_json_holds_counts_rates_and_conventions() -> None:
    found = json.loads(json.dumps(score(MEETING, MEETING).to_json(), allow_nan=False))
    assert found["cpwer"]["reference_words"] == WORDS
    assert found["gender"] == {"right": 4, "total": 4, "rate": 1.0}
    assert found["jer"] == {"error_sum": 0.0, "speakers": 2, "rate": 0.0}
    assert found["speaker_count_error"] == {"error": 0, "recordings": 1, "rate": 0.0}
    assert found["boundaries"]["0.25"]["f1"] == 1.0
    assert (found["delta_cp"], found["skipped"]) == (0.0, {})
    assert "0.25 s" in found["conventions"]["der_025"]
    metrics = set(found) - {"skipped", "conventions"}
    assert metrics <= set(found["conventions"])


def test_both_sides_are_normalised_alike() -> None:
    shouted = MEETING.with_segments(
        [replace(one, text=f"UH, {one.text.upper()}!") for one in MEETING.segments]
    )
    for sides in ((MEETING, shouted), (shouted, MEETING)):
        scores = score(*sides, Normalisation(fillers=True))
        assert scores.wer == scores.cpwer == scores.tcpwer == ErrorCounts(reference_words=WORDS)
    assert score(MEETING, shouted).wer.insertions == 4
    assert score(MEETING, shouted, AS_WRITTEN).wer.errors > 4


def test_a_reference_without_words_skips_words_only() -> None:
    wordless = MEETING.with_segments([replace(s, text="") for s in MEETING.segments])
    scores = score(wordless, MEETING)
    assert scores.wer is scores.cpwer is scores.tcpwer is scores.orcwer is None
    assert math.isnan(scores.delta_cp)
    assert scores.skipped["wer"] == "the reference has no words (1 recording)"
    assert scores.to_json()["wer"] is None
    assert scores.der_0.errors_s == 0 and scores.gender == Counts(4, 4)
    assert score(MEETING, wordless).wer == ErrorCounts(0, WORDS, 0, WORDS)


def test_times_that_are_not_known_skip_times_only() -> None:
    scores = score(MEETING, MEETING, times=False)
    skipped = {"tcpwer", "der_025", "der_0", "jer", "gender", "gender_time", "boundaries"}
    assert set(scores.skipped) == skipped
    assert all(getattr(scores, name) is None for name in skipped)
    assert scores.wer == scores.cpwer == scores.orcwer == ErrorCounts(reference_words=WORDS)


def test_skipped_metrics_add_up() -> None:
    wordless = MEETING.with_segments([replace(s, text="") for s in MEETING.segments])
    parts = [score(MEETING, MEETING), score(wordless, MEETING), score(wordless, MEETING)]
    summed = total(parts)
    assert summed == total(parts[::-1])
    assert summed.wer == ErrorCounts(reference_words=WORDS)
    assert summed.skipped["cpwer"] == "the reference has no words (2 recordings)"
    assert total(parts[1:]).wer is None


def test_boundaries_match_most_then_nearest() -> None:
    def lasting(*starts_s: float) -> Transcript:
        return Transcript("r", 100, tuple(Segment("a", at, at + 50, "") for at in starts_s))

    def starts(reference: Transcript, hypothesis: Transcript) -> tuple[int, float]:
        counts = times.boundaries(reference, hypothesis, 0.25)
        assert counts.matched_starts == counts.matched_ends
        assert counts.start_errors_s == pytest.approx(counts.end_errors_s)
        return counts.matched_starts, counts.start_errors_s

    assert starts(lasting(1.0), lasting(0.8, 1.0, 1.1)) == (1, 0.0)
    # The nearest pair (1.2, 1.15) would leave the others alone.
    assert starts(lasting(1.0, 1.2), lasting(1.15, 1.4)) == (2, pytest.approx(0.35))
    assert starts(lasting(1.0), lasting(1.25)) == (1, pytest.approx(0.25))
    assert starts(lasting(1.0), lasting(1.26)) == (0, 0.0)
    assert starts(lasting(), lasting(1.0)) == starts(lasting(1.0), lasting()) == (0, 0.0)
    assert starts(lasting(2.0), lasting(1.0, 9.0)) == (0, 0.0)


@settings(max_examples=100, deadline=None)
@given(*[st.lists(st.integers(0, 30).map(lambda n: n / 10), max_size=6)] * 2)
def test_boundaries_are_the_best_matching(ours: list[float], theirs: list[float]) -> None:
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    sides = [np.sort(np.array(side, dtype=float)) for side in (ours, theirs)]
    apart = np.abs(sides[0][:, None] - sides[1][None, :])
    costs = np.where(apart <= 0.4 + 1e-9, apart, 1000.0)
    chosen = costs[linear_sum_assignment(costs)]
    count, error_s = times._matched(*sides, 0.4)
    assert count == (chosen < 1000).sum()
    assert error_s == pytest.approx(chosen[chosen < 1000].sum())


def test_gender_by_time_weighs_segments() -> None:
    wrong = [replace(s, gender="female") for s in MEETING.segments]
    scores = score(MEETING, MEETING.with_segments(wrong))
    assert scores.gender_time == Counts(pytest.approx(8.0), pytest.approx(11.4))


AISHELL = sorted(path.stem for path in SHARED.glob("aishell4_eval_stm/*.stm"))
REAL_NAME = "S_R004S04C01"
MADE_OR_REAL = ["made", pytest.param(REAL_NAME, marks=[needs_shared, pytest.mark.slow])]
"""Meetings to plant errors in: a small one in the shape of the real ones, and a real one."""


def meeting_called(name: str) -> Transcript:
    """A real meeting of AISHELL-4, or the one that is made in their image."""
    if name == "made":
        return made_meeting()
    [reference] = formats.read(SHARED / f"aishell4_eval_stm/{name}.stm")
    return reference.with_segments(
        [
            replace(s, gender="male" if s.speaker.endswith("-M") else "female")
            for s in reference.segments
        ]
    )


def plant(reference: Transcript, kind: str, count: int) -> Transcript:
    """Edit `count` words; new ones occur nowhere else, so that no cheaper alignment exists."""
    rng = random.Random(reference.recording)
    rows = [s.text.split() for s in reference.segments]
    places = [(i, j) for i, row in enumerate(rows) for j in range(len(row))]
    for number, (i, j) in enumerate(sorted(rng.sample(places, count), reverse=True)):
        edited = {"insertions": [f"new{number}", rows[i][j]], "deletions": []}
        rows[i][j : j + 1] = edited.get(kind, [f"new{number}"])
    return reference.with_segments(
        [replace(s, text=" ".join(row)) for s, row in zip(reference.segments, rows, strict=True)]
    )


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("place", "name"),
    [
        *((place, "made") for place in range(3)),
        *(
            pytest.param(i, name, marks=[needs_shared, pytest.mark.slow])
            for i, name in enumerate(AISHELL)
        ),
    ],
)
def test_words_planted_in_meetings(place: int, name: str) -> None:
    reference = meeting_called(name)
    kind = ("insertions", "deletions", "substitutions")[place % 3]
    hypothesis = plant(reference, kind, 100 + place)
    size = sum(len(s.text.split()) for s in reference.segments)
    expected = ErrorCounts(**{kind: 100 + place}, reference_words=size)
    scores = score(reference, hypothesis)
    # The greedy search of the ORC-WER starts from these and may only get better, which it cannot.
    for counts in (scores.wer, scores.cpwer, scores.tcpwer, scores.orcwer):
        assert counts == expected


@pytest.mark.parametrize("name", MADE_OR_REAL)
def test_speakers_planted_in_a_meeting(name: str) -> None:
    reference = meeting_called(name)
    one, other, *_ = reference.speakers
    mine = [i for i, s in enumerate(reference.segments) if s.speaker == one]
    moved = set(mine[10:20])
    assert len(moved) == 10
    segments = [
        replace(s, speaker=other if i in moved else s.speaker)
        for i, s in enumerate(reference.segments)
    ]
    count = sum(len(reference.segments[i].text.split()) for i in moved)
    scores = score(reference, reference.with_segments(segments))
    assert scores.wer.errors == scores.orcwer.errors == 0
    assert (scores.cpwer.insertions, scores.cpwer.deletions) == (count, count)
    assert scores.tcpwer == scores.cpwer
    assert scores.delta_cp == pytest.approx(2 * count / scores.wer.reference_words)
    names = dict(zip(reference.speakers, reversed(reference.speakers), strict=True))
    swapped = score(reference, relabel(reference, names))
    assert swapped.cpwer.errors == swapped.der_0.errors_s == swapped.jer.error_sum == 0


@pytest.mark.parametrize("name", MADE_OR_REAL)
def test_times_planted_in_a_meeting(name: str) -> None:
    reference = meeting_called(name)

    def shifted(by_s: float) -> Transcript:
        return reference.with_segments(
            [replace(s, start_s=s.start_s + by_s, end_s=s.end_s + by_s) for s in reference.segments]
        )

    scores = score(reference, shifted(0.2))
    assert scores.cpwer.errors == scores.tcpwer.errors == 0
    assert scores.der_0.errors_s > 0 == pytest.approx(scores.der_025.errors_s)
    size = len(reference.segments)
    for tolerance in ("0.25", "0.5"):
        counts = scores.boundaries[tolerance].to_json()
        assert (counts["matched"], counts["f1"]) == (2 * size, 1.0)
        assert counts["start_error_s"] == pytest.approx(0.2)
        assert counts["end_error_s"] == pytest.approx(0.2)
    words_said = scores.wer.reference_words
    late = score(reference, shifted(10_000.0))
    assert late.cpwer.errors == 0
    assert late.tcpwer == ErrorCounts(words_said, words_said, 0, words_said)
    assert late.der_0.missed_s == pytest.approx(late.der_0.reference_s)
    assert late.der_0.false_alarm_s == pytest.approx(late.der_0.reference_s)
    assert late.jer.rate == 1


@pytest.mark.parametrize("name", MADE_OR_REAL)
def test_a_speaker_lost_from_a_meeting(name: str) -> None:
    reference = meeting_called(name)
    lost = reference.speakers[-1]
    theirs = reference.with_segments([s for s in reference.segments if s.speaker == lost])
    rest = reference.with_segments([s for s in reference.segments if s.speaker != lost])
    scores, alone = score(reference, rest), score(theirs, EMPTY)
    assert scores.der_0.missed_s == pytest.approx(alone.der_0.reference_s)
    assert scores.der_0.errors_s == pytest.approx(scores.der_0.missed_s)
    assert scores.jer == JaccardCounts(pytest.approx(1.0), len(reference.speakers))
    assert scores.speaker_count_error == MeanError(1, 1)
    deleted = ErrorCounts(0, alone.wer.reference_words, 0, scores.wer.reference_words)
    assert scores.wer == scores.cpwer == scores.tcpwer == deleted
    other = {"female": "male", "male": "female"}
    changed = [
        replace(s, gender=other[s.gender] if s.speaker == lost else s.gender)
        for s in reference.segments
    ]
    gender = score(reference, reference.with_segments(changed)).gender
    size = len(reference.segments)
    assert gender == Counts(size - len(theirs.segments), size)


def test_long_texts_have_the_same_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rapidfuzz", reason=REMEDY)
    rng = random.Random(0)
    segments = [
        Segment(rng.choice("abc"), i, i + 0.9, " ".join(rng.choices("xyzuvw", k=6)))
        for i in range(120)
    ]
    others = [replace(s, text=" ".join(rng.choices("xyzuvw", k=6))) for s in segments]
    sides = [Transcript("r", 120, tuple(side)) for side in (segments, others)]
    expected = score(*sides)
    monkeypatch.setattr(words, "LONG", 10)
    monkeypatch.setattr(words, "ORC_LONG", 10)
    found = score(*sides)
    assert found.wer.errors == expected.wer.errors
    assert found.cpwer.errors == expected.cpwer.errors
    assert found.orcwer.errors == expected.orcwer.errors
    monkeypatch.setattr(words, "ORC_COSTS", 100_000)
    crowded = score(*sides)
    assert crowded.orcwer is None and "too long for its errors" in crowded.skipped["orcwer"]
    assert score(sides[0], sides[0]).orcwer.errors == 0  # few errors, few costs to look at


@pytest.mark.slow
def test_a_hundred_thousand_segments() -> None:
    rng = random.Random(0)
    vocabulary = [f"word{i}" for i in range(3000)]
    segments = [
        Segment(f"s{rng.randrange(6)}", i, i + rng.uniform(0.5, 2), " ".join(text), "male")
        for i in range(100_000)
        for text in [rng.choices(vocabulary, k=3)]
    ]
    reference = Transcript("r", 100_000, tuple(segments))
    hypothesis = reference.with_segments(
        [
            replace(s, text="new " + s.text if i % 20 == 0 else s.text)
            for i, s in enumerate(segments)
        ]
    )
    scores = score(reference, hypothesis)
    expected = ErrorCounts(5_000, 0, 0, 300_000)
    assert scores.wer == scores.cpwer == scores.tcpwer == scores.orcwer == expected
    assert scores.skipped == {}
    assert scores.der_0.errors_s == pytest.approx(0, abs=0.1)
    assert scores.gender == Counts(100_000, 100_000)
    assert scores.boundaries["0.1"] == BoundaryCounts(100_000, 100_000, 200_000, 200_000)


def test_stored_scores_are_the_scores() -> None:
    wordless = MEETING.with_segments([replace(s, text="") for s in MEETING.segments])
    for reference in (MEETING, wordless):
        one = score(reference, MEETING)
        assert Scores.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("module", ["meeteval.wer", "scipy.sparse"])
def test_a_missing_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraError, match=r"speaker-reasoner\[eval\]"):
        score(MEETING, MEETING)


def test_several_processes_give_what_one_gives() -> None:
    assert list(processes.each(abs, [-3, 2, -1], 2)) == [3, 2, 1]
    assert os.getpid() not in processes.each(slow, [0.0, 0.0], 2)
    assert set(processes.each(slow, [0.0, 0.0], 1)) == {os.getpid()}


def test_an_error_in_a_process_is_the_error_and_ends_the_others() -> None:
    with pytest.raises(FormatError, match=r"^the second of them$"):
        list(processes.each(fails, [0, 1, 2], 2))
    with pytest.raises(DataError, match="--jobs 1"):
        list(processes.each(dies, [1, 2], 2))
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        for _ in processes.each(slow, [0.0, 600.0, 600.0], 2):
            1 / 0  # noqa: B018  as an interrupt would come
    assert time.monotonic() - begun < 60
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals to a group of processes")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_processes_end_with_the_one_that_began_them(name: str) -> None:
    """Ctrl-C goes to all of them, the others to the first alone; the last end of standard error is theirs."""
    code = (  # what a shell runs in the background ignores interrupts
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.pooled import waits\nfrom speaker_reasoner.evaluate.processes import each\n"
        "list(each(waits, range(8), 2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert [process.stderr.readline() for _ in range(2)] == ["waits\n"] * 2
    number = getattr(signal, name)
    try:
        (os.killpg if name == "SIGINT" else os.kill)(process.pid, number)
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
    assert said.count("Traceback") == (name == "SIGINT"), said
    assert "semaphore" not in said or name == "SIGKILL", said
    assert process.returncode == (128 + number if name == "SIGTERM" else -number)


def test_a_result_of_several_processes_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_WORTH_PROCESSES", 1)
    pairs = [Pair(name, replace(MEETING, recording=name), MEETING) for name in "ab"]
    one, two = (
        results.evaluate(pairs, Normalisation(), system="s", data="d", quiet=True, jobs=jobs)
        for jobs in (1, 2)
    )
    assert json.dumps(one) == json.dumps(two)
