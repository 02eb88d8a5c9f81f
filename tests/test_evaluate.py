"""Goldens (figures of MeetEval, md-eval and dscore), laws, planted errors, empty transcripts."""

import json
import math
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from speaker_reasoner import writers
from speaker_reasoner.errors import DataError
from speaker_reasoner.evaluate import (
    Counts,
    DiarizationCounts,
    ErrorCounts,
    Scores,
    bootstrap,
    normalise,
    score,
    total,
)
from speaker_reasoner.evaluate.scores import _assigned_errors, _permutation_errors
from speaker_reasoner.transcript import Segment, Transcript

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
WORDS = 8 + 1 + 5 + 6


def read_pair(folder: str, reference: str, hypothesis: str) -> list[tuple[Transcript, Transcript]]:
    ours = {t.recording: t for t in writers.read(SHARED / folder / hypothesis)}
    return [(t, ours[t.recording]) for t in writers.read(SHARED / folder / reference)]


def relabel(transcript: Transcript, labels: dict[str, str]) -> Transcript:
    return transcript.with_segments(
        [replace(s, speaker=labels[s.speaker]) for s in transcript.segments]
    )


def retext(transcript: Transcript, index: int, text: str) -> Transcript:
    segments = list(transcript.segments)
    segments[index] = replace(segments[index], text=text)
    return transcript.with_segments(segments)


@needs_shared
def test_cpwer_is_meetevals() -> None:
    pairs = read_pair("meeteval_examples", "ref.stm", "hyp.stm")
    counts = total(score(*pair) for pair in pairs).cpwer
    assert counts == ErrorCounts(8, 15, 2, 92)
    assert counts.rate == 25 / 92


@needs_shared
def test_wer_is_meetevals() -> None:
    pairs = read_pair("meeteval_examples", "ref_siso.stm", "hyp_siso.stm")
    counts = total(score(*pair) for pair in pairs).wer
    assert (counts.errors, counts.reference_words) == (2, 31)


@needs_shared
def test_der_of_a_real_meeting_is_md_evals_with_a_uem() -> None:
    [pair] = read_pair("alimeeting_der", "ref.rttm", "sys.rttm")
    scores = score(*pair)
    assert 100 * scores.der_0.rate == pytest.approx(9.00, abs=0.005)
    assert 100 * scores.der_025.rate == pytest.approx(1.93, abs=0.005)
    der = scores.der_0
    assert (der.reference_s, der.missed_s) == pytest.approx((1601.32, 3.43), abs=0.005)
    assert der.confusion_s == pytest.approx(40.75, abs=0.005)
    # md-eval without a UEM: 99.62 s. The system's speech before the reference's first segment
    # (0.11 s) and after its last (0.25 s) lies outside what md-eval then scores.
    assert der.false_alarm_s == pytest.approx(99.62 + 0.11 + 0.25, abs=0.005)


@needs_shared
def test_der_is_dscores() -> None:
    # No speech lies outside the reference here: the figures are the same with and without a UEM.
    [pair] = read_pair("dscore_tests", "ref.rttm", "sys.rttm")
    scores = score(*pair)
    assert 100 * scores.der_0.rate == pytest.approx(26.39, abs=0.005)
    assert 100 * scores.der_025.rate == pytest.approx(24.01, abs=0.005)


def test_a_transcript_has_no_errors_against_itself() -> None:
    scores = score(MEETING, MEETING)
    assert scores.wer == scores.cpwer == ErrorCounts(reference_words=WORDS)
    assert scores.der_0.errors_s == scores.der_025.errors_s == 0
    assert scores.der_0.reference_s == pytest.approx(11.4)
    assert scores.gender == Counts(4, 4)
    assert scores.speaker_count == Counts(1, 1)
    assert scores.speaker_count_error == 0


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
    assert scores.wer.errors == 0
    assert scores.cpwer == ErrorCounts(1, 1, 0, WORDS)


def test_empty_hypothesis_deletes_everything() -> None:
    scores = score(MEETING, EMPTY)
    assert scores.wer == scores.cpwer == ErrorCounts(0, WORDS, 0, WORDS)
    assert scores.der_0.missed_s == scores.der_0.reference_s > 0
    assert scores.gender == Counts(0, 4)
    assert (scores.speaker_count, scores.speaker_count_error) == (Counts(0, 1), 2)


def test_empty_reference_and_nothing_at_all() -> None:
    scores = score(EMPTY, MEETING)
    assert scores.wer == scores.cpwer == ErrorCounts(WORDS, 0, 0, 0)
    assert scores.wer.rate == scores.der_0.rate == math.inf
    assert scores.der_025.false_alarm_s == pytest.approx(11.4)
    assert scores.to_json()["wer"]["rate"] is None
    for nothing in (EMPTY, Transcript("meeting", 0.0)):
        assert score(nothing, nothing) == Scores(speaker_count=Counts(1, 1))
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
    assert scores.cpwer == ErrorCounts(44, 0, 0, 6)
    sides = [{"a": ["x", "y"], "b": ["z"]}, {"c": ["z", "z"], "d": ["x"], "e": ["q"]}]
    ours = _assigned_errors(*(list(side.values()) for side in sides))
    assert ours == _permutation_errors(*sides)


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
    assert "0.25 s" in found["conventions"]["der_025"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  Hello\t WORLD ", "hello world"),
        ("你好ABC世界", "你 好 abc 世 界"),
        ("ありがとう", "あ り が と う"),
        ("안녕 세상", "안녕 세상"),
        ("it's, fine.", "it's, fine."),
        ("", ""),
    ],
)
def test_normalise(text: str, words: str) -> None:
    assert normalise(text) == words
    assert normalise(words) == words


def test_bootstrap_covers_the_total_and_repeats() -> None:
    scores = [Scores(wer=ErrorCounts(substitutions=i % 4, reference_words=10)) for i in range(12)]
    low, high = bootstrap(scores, lambda s: s.wer.rate, draws=200)
    assert low < total(scores).wer.rate < high
    assert (low, high) == bootstrap(scores, lambda s: s.wer.rate, draws=200)
    assert bootstrap(scores[1:2], lambda s: s.wer.rate, draws=5) == (0.1, 0.1)
    with pytest.raises(DataError, match="no recordings"):
        bootstrap([], lambda s: s.wer.rate)


@pytest.mark.parametrize("module", ["meeteval.wer", "pyannote.metrics.diarization"])
def test_a_missing_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=r"speaker-reasoner\[eval\]"):
        score(MEETING, MEETING)
