"""Groups, positions, calibration and significance against arithmetic."""

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.errors import DataError
from speaker_reasoner.evaluate.breakdown import (
    POSITIONS,
    Facts,
    calibration,
    facts,
    overlap_share,
    subsets,
    turn_rate,
    word_errors_by_position,
)
from speaker_reasoner.evaluate.normalisation import Normalisation
from speaker_reasoner.evaluate.pairs import Pair
from speaker_reasoner.evaluate.resampling import (
    by_recording,
    compare,
    compare_results,
    counted,
    holm,
    interval,
)
from speaker_reasoner.evaluate.scores import ErrorCounts, Scores
from speaker_reasoner.transcript import Confidence, Segment, Transcript

pytest.importorskip("rapidfuzz", reason="pip install 'speaker-reasoner[eval]'")

NORMALISATION = Normalisation()


def known(*pairs: Pair) -> list[Facts]:
    """The facts of pairs, as they are stored."""
    return [
        Facts.from_json(json.loads(json.dumps(facts(pair, NORMALISATION).to_json())))
        for pair in pairs
    ]


def said(*rows: tuple[str, float, float, str], duration_s: float = 100.0) -> Transcript:
    return Transcript("r", duration_s, tuple(Segment(*row) for row in rows))


# --- groups -------------------------------------------------------------------------------------


def test_overlap_is_of_people_not_of_segments() -> None:
    assert overlap_share(said()) == 0
    assert overlap_share(said(("a", 0, 4, ""), ("b", 4, 6, ""))) == 0
    assert overlap_share(said(("a", 0, 4, ""), ("b", 3, 6, ""))) == pytest.approx(1 / 6)
    assert overlap_share(said(("a", 0, 4, ""), ("a", 2, 5, ""), ("b", 9, 10, ""))) == 0
    three = said(("a", 0, 10, ""), ("b", 2, 4, ""), ("c", 3, 6, ""), ("a", 3, 5, ""))
    assert overlap_share(three) == pytest.approx(0.4)


def test_turn_rate_counts_changes_of_speaker() -> None:
    rows = [("a", 0.0, 1.0, ""), ("a", 1.0, 2.0, ""), ("b", 2.0, 3.0, ""), ("a", 4.0, 5.0, "")]
    assert turn_rate(said(*rows, duration_s=30.0)) == 4
    assert turn_rate(said(duration_s=0.0)) == 0


def test_groups_hold_every_recording_once_and_their_own_totals() -> None:
    alone = said(("a", 0, 50, "one"))
    two = said(("a", 0, 50, "one"), ("b", 40, 90, "two"))
    busy = said(*(("ab"[i % 2], i, i + 1.0, "x") for i in range(40)))
    pairs = [Pair("r", t, t) for t in (alone, two, busy)]
    scores = [Scores(wer=ErrorCounts(i, 0, 0, 10)) for i in (1, 2, 4)]
    found = subsets(known(*pairs), scores)
    json.dumps(found, allow_nan=False)
    insertions = {
        kind: {label: (g["recordings"], g["wer"]["insertions"]) for label, g in groups.items()}
        for kind, groups in found.items()
        if kind != "position"
    }
    assert insertions == {
        "speakers": {"1": (1, 1), "2": (2, 6)},
        "overlap": {"0 %": (2, 5), "5-15 %": (1, 2)},
        "turn_rate": {"under 5": (2, 3), "20 and over": (1, 4)},
    }
    assert found["overlap"]["5-15 %"]["wer"]["rate"] == 0.2


# --- position -----------------------------------------------------------------------------------


def test_errors_are_where_they_were_planted() -> None:
    quarters = [("a", 25.0 * i, 25.0 * i + 20, f"w{i} x{i} y{i} z{i}") for i in range(4)]
    reference = said(*quarters)
    heard = [
        ("a", 0.0, 20.0, "uh w0 x0 y0 z0"),  # before any word
        ("a", 25.0, 45.0, "w1 other y1 z1"),
        ("a", 50.0, 70.0, "w2 z2"),
        ("a", 75.0, 95.0, "w3 x3 y3 z3 and more"),
    ]
    pair = Pair("r", reference, said(*heard))
    assert word_errors_by_position(pair, NORMALISATION.words) == [
        ErrorCounts(1, 0, 0, 4),
        ErrorCounts(0, 0, 1, 4),
        ErrorCounts(0, 2, 0, 4),
        ErrorCounts(2, 0, 0, 4),
    ]
    position = subsets(known(pair, pair), [Scores(), Scores()])["position"]
    assert list(position) == list(POSITIONS)
    assert position["50-75 %"]["wer"] == {
        "insertions": 0,
        "deletions": 4,
        "substitutions": 0,
        "reference_words": 8,
        "rate": 0.5,
    }


def test_an_insertion_goes_with_the_word_before_it() -> None:
    reference = said(("a", 0, 20, "one"), ("b", 80, 100, "two"))
    pair = Pair("r", reference, said(("a", 0, 20, "one"), ("a", 78, 99, "new two")))
    assert word_errors_by_position(pair, NORMALISATION.words)[0] == ErrorCounts(1, 0, 0, 1)


def test_one_side_without_words() -> None:
    words = said(("a", 0, 20, "one two"), ("a", 90, 100, "three"))
    nothing = Transcript("r", 0.0)
    deleted = word_errors_by_position(Pair("r", words, nothing), NORMALISATION.words)
    assert deleted == [ErrorCounts(0, n, 0, n) for n in (2, 0, 0, 1)]
    inserted = word_errors_by_position(Pair("r", nothing, words), NORMALISATION.words)
    assert inserted == [ErrorCounts(n, 0, 0, 0) for n in (2, 0, 0, 1)]
    found = subsets(known(Pair("r", nothing, words)), [Scores()])
    assert found["position"]["0-25 %"]["wer"]["rate"] is None
    assert found["speakers"] == {"0": found["speakers"]["0"]}
    assert word_errors_by_position(Pair("r", nothing, nothing), str.split) == [ErrorCounts()] * 4


def noisy(words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Change, drop or repeat each word with a probability of 1/10 each."""
    made: list[str] = []
    for word, chance in zip(words, rng.random(len(words)), strict=True):
        made += [] if chance < 0.1 else ["x"] if chance < 0.2 else [word] * (1 + (chance < 0.3))
    return made


def test_ten_thousand_words_take_no_time_and_add_up_to_meetevals_errors() -> None:
    meeteval = pytest.importorskip("meeteval.wer", reason="pip install 'speaker-reasoner[eval]'")
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in rng.integers(500, size=10_000)]
    sides = [
        said(*(("a", float(i), i + 1.0, " ".join(side[i::100])) for i in range(100)))
        for side in (words, noisy(words, rng))
    ]
    begun = time.process_time()
    found = word_errors_by_position(Pair("r", *sides), str.split)
    assert time.process_time() - begun < 2
    assert sum(c.reference_words for c in found) == 10_000
    small = [side.with_segments(side.segments[:12]) for side in sides]
    counts = sum(word_errors_by_position(Pair("r", *small), str.split), ErrorCounts())
    expected = meeteval.siso_word_error_rate(*(side.text for side in small))
    assert (counts.errors, counts.reference_words) == (expected.errors, expected.length)


# --- calibration --------------------------------------------------------------------------------


def confident(*rows: tuple[str, float | None]) -> Transcript:
    """One segment per row: its text and the confidence of its words."""
    return Transcript(
        "r",
        float(len(rows)),
        tuple(
            Segment("a", float(i), i + 1.0, text, confidence=Confidence(words=known))
            for i, (text, known) in enumerate(rows)
        ),
    )


def test_calibration_is_that_of_the_arithmetic() -> None:
    reference = confident(("a b c d", None), ("e f", None), ("g h i j", None))
    hypothesis = confident(
        ("a b c x", 0.95), ("", 0.5), ("e y", 0.3), ("g h i j", 0.91), ("z", None)
    )
    found = calibration(known(Pair("r", reference, hypothesis)))
    assert found is not None
    json.dumps(found, allow_nan=False)
    top = found["bins"][9]
    assert (top["low"], top["high"], top["count"]) == (0.9, 1.0, 8)
    assert (top["confidence"], top["accuracy"]) == pytest.approx((0.93, 7 / 8))
    assert found["bins"][2]["accuracy"] == 0.5  # 0.3 is the upper edge of its bin
    assert [b["count"] for b in found["bins"]] == [0, 0, 2, 0, 0, 0, 0, 0, 0, 8]
    assert found["bins"][0]["accuracy"] is None
    assert found["ece"] == pytest.approx((2 * abs(0.5 - 0.3) + 8 * abs(7 / 8 - 0.93)) / 10)


def test_edges_of_confidence() -> None:
    transcript = confident(("a", 0.0), ("b", 1.0))
    found = calibration(known(Pair("r", transcript, transcript)))
    assert found is not None
    assert [b["count"] for b in found["bins"]] == [1] + [0] * 8 + [1]
    assert found["ece"] == 0.5
    wrong = confident(("a", 87.0))
    with pytest.raises(DataError, match=r"confidence 87.0 is not in 0\.\.1"):
        calibration(known(Pair("r", transcript, wrong)))


@pytest.mark.parametrize(
    "hypothesis", [confident(), confident(("a b", None)), confident(("", 0.9))]
)
def test_without_confidences_there_is_no_calibration(hypothesis: Transcript) -> None:
    assert calibration(known(Pair("r", confident(("a", None)), hypothesis))) is None


# --- significance -------------------------------------------------------------------------------


def test_two_recordings_leave_three_differences() -> None:
    # Of both twice: +0.1 (1/4), one of each: -0.05 (1/2), -0.2 (1/4).
    a, b = {"x": (1, 10), "y": (0, 10)}, {"y": (2, 10), "x": (0, 10)}
    found = compare(a, b)
    assert (found.a, found.b, found.difference) == pytest.approx((0.05, 0.1, -0.05))
    assert found.interval == pytest.approx((-0.2, 0.1))
    assert found.a_better == pytest.approx(0.75, abs=0.02)
    assert (found.draws, found.recordings) == (10_000, 2)
    assert found == compare(a, b)
    assert compare(b, a).a_better == pytest.approx(0.25, abs=0.02)


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    rng = np.random.default_rng(1)
    errors = rng.integers(30, size=(2, 400))
    a, b = ({str(i): (int(e), 100) for i, e in enumerate(side)} for side in errors)
    begun = time.process_time()
    found = compare(a, b)
    assert time.process_time() - begun < 1
    differences = (errors[0] - errors[1]) / 100
    half = 1.96 * differences.std() / np.sqrt(len(differences))
    assert found.interval[1] - found.interval[0] == pytest.approx(2 * half, rel=0.05)


def test_a_system_is_not_better_than_itself() -> None:
    same = {"x": (1.5, 10.0), "y": (2.5, 10.0), "silent": (0.0, 0.0)}
    found = compare(same, same)
    assert (found.interval, found.a_better) == ((0, 0), 0)
    assert found.draws < 10_000  # those of the silent recording alone


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({"x": (1, 10)}, {"y": (1, 10)}, r"2 recordings are in one result only \(x, y\)"),
        ({"x": (1, 10)}, {"x": (1, 11)}, "1 references differ: 'x' has 10 in the first"),
        ({}, {}, "got no recordings"),
        ({"x": (1, 0)}, {"x": (1, 0)}, "the references are empty"),
    ],
)
def test_only_the_same_recordings_compare(a: Any, b: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(a, b)


def result(errors: int, **more: Any) -> dict[str, Any]:
    scores = Scores(wer=ErrorCounts(errors, 1, 1, 10)).to_json()
    return {
        "system": "mine",
        "settings": {"normalisation": {"case": True}},
        "skipped": {"jer": "no times"},
        "recordings": [{"name": "x", "scores": {**scores, "jer": None}}],
        **more,
    }


def test_stored_results_compare() -> None:
    a, b = result(1), result(3)
    found = compare_results(a, b, "wer")
    assert (found.a, found.b, found.a_better) == (0.3, 0.5, 1.0)
    with pytest.raises(DataError, match="mine has no jer for 'x': no times; choose another"):
        compare_results(a, b, "jer")
    with pytest.raises(DataError, match="unknown metric 'bleu'; known: wer, cpwer"):
        compare_results(a, b, "bleu")
    other = {**b, "settings": {"normalisation": {"case": False}}}
    with pytest.raises(DataError, match=r"differ in normalisation \(case\); score both alike"):
        compare_results(a, other, "wer")


# --- intervals, many comparisons, pieces ----------------------------------------------------------


def test_an_interval_covers_the_rate_and_repeats() -> None:
    counts = [(float(i % 4), 10.0) for i in range(12)]
    low, high = interval(counts, draws=200) or (0, 0)
    assert low < 0.15 < high and (low, high) == interval(counts, draws=200)
    assert interval([(1.0, 10.0)], draws=5) == (0.1, 0.1)
    assert interval([(1.0, 0.0), (0.0, 0.0)]) is None
    with pytest.raises(DataError, match="no recordings"):
        interval([])


def test_a_difference_in_every_recording_has_the_least_p() -> None:
    a = {str(i): (1.0, 10.0) for i in range(8)}
    b = {str(i): (2.0, 10.0) for i in range(8)}
    assert compare(a, b).p == compare(b, a).p == 2 / 10_001
    assert compare(a, a).p == 1.0


def test_holms_adjustment_is_that_of_his_paper() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0] and holm([]) == []


def test_pieces_of_a_recording_are_drawn_together() -> None:
    scores = {"wer": {"insertions": 1, "deletions": 0, "substitutions": 0, "reference_words": 10}}
    rows = [{"name": f"m-{i}", "of": "m", "scores": scores} for i in range(3)]
    one = {"system": "s", "recordings": [*rows, {"name": "n", "scores": scores}]}
    assert by_recording(one, counted(one, "wer")) == {"m": (3.0, 30.0), "n": (1.0, 10.0)}
