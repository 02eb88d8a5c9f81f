"""The report: what is in it, that it cannot be broken out of, and that it works in a browser."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.errors import DataError, FormatError
from speaker_reasoner.evaluate.report import CONFUSED, FALSE_ALARM, MISSED, compare, report
from speaker_reasoner.transcript import Missing, Segment, Transcript

from .browser import chromium, expect, needs_axe, opened, violations

REMEDY = "pip install 'speaker-reasoner[eval]'"
pytest.importorskip("scipy", reason=REMEDY)
pytest.importorskip("rapidfuzz", reason=REMEDY)

REFERENCE = Transcript(
    "kitchen",
    24.0,
    (
        Segment("ann", 0.5, 4.8, "so where did we leave the budget last week", "female"),
        Segment("bob", 4.6, 7.0, "on page four I think", "male"),
        Segment("ann", 7.4, 11.0, "right, page four, and it is still too high", "female"),
        Segment("chen", 11.5, 15.0, "我们 可以 明天 再看 one more time", "male"),
        Segment("bob", 15.2, 16.0, "fine", "male"),
        Segment("ann", 16.4, 22.0, "then let us meet at ten and bring the numbers", "female"),
    ),
)
HYPOTHESIS = Transcript(
    "kitchen",
    24.0,
    (
        Segment("Speaker1", 0.6, 4.9, "so where did we leave the budge last week", "female"),
        Segment("Speaker2", 4.9, 7.1, "on page for I think", "male"),
        Segment("Speaker1", 7.3, 11.2, "right, page four, and it is too high", "female"),
        Segment("Speaker3", 11.4, 13.9, "我们可以明天再看", "male"),
        Segment(
            "Speaker2", 16.4, 22.0, "then let us meet at ten and bring all the numbers", "male"
        ),
        Segment("Speaker4", 22.5, 23.4, "okay </script><b>bye", "unknown"),
    ),
    missing=(Missing(15.1, 16.2, "the turn ended early"),),
    warnings=("mean word confidence 0.41, expected at least 0.50; do not trust the words",),
    traces=(
        {
            "start_s": 0.0,
            "duration_s": 24.0,
            "parts": [
                {"text": "<|im_start|>user\n"},
                {"audio": [0, 384_000]},
                {"answer": "3 speakers"},
                {"audio": [8_000, 112_000]},
                {"answer": "Speaker1 ..."},
                {"audio": [116_800, 222_400]},
            ],
        },
    ),
)
EMPTY = Transcript("lost", 12.0)


def words(errors: tuple[int, int, int], total: int) -> dict[str, Any]:
    names = ("insertions", "deletions", "substitutions")
    rate = sum(errors) / total if total else None
    return {**dict(zip(names, errors, strict=True)), "reference_words": total, "rate": rate}


def times(errors: tuple[float, float, float], total: float) -> dict[str, Any]:
    names = ("missed_s", "false_alarm_s", "confusion_s")
    rate = sum(errors) / total if total else None
    return {**dict(zip(names, errors, strict=True)), "reference_s": total, "rate": rate}


def scores(rng: random.Random, share: float = 1.0) -> dict[str, Any]:
    """Scores of the stored kind; the counts need not fit any transcript."""
    total = rng.randint(80, 300)
    few = [int(share * rng.expovariate(1 / (0.05 * total))) for _ in range(3)]
    seconds = [share * rng.expovariate(1 / 4) for _ in range(3)]
    return {
        "cpwer": words((few[0] + 6, few[1] + 5, few[2]), total),
        "wer": words((few[0], few[1], few[2]), total),
        "orcwer": None,
        "der_025": times((seconds[0], seconds[1], seconds[2]), 90.0),
        "der_0": times((seconds[0] + 2, seconds[1] + 2, seconds[2]), 100.0),
        "gender": {"right": 9, "total": 10, "rate": 0.9},
        "speaker_count": {"right": 1, "total": 1, "rate": 1.0},
        "boundaries": {
            "0.25": {
                "matched": 40,
                "reference": 50,
                "hypothesis": 52,
                "precision": 0.77,
                "recall": 0.8,
                "f1": 0.78,
                "start_error_s": 0.08,
                "end_error_s": 0.11,
            }
        },
    }


def result(names: list[str], lost: tuple[str, ...] = ()) -> dict[str, Any]:
    rng = random.Random(1)
    return {
        "schema": "speaker-reasoner/evaluation/1",
        "system": "embedded",
        "data": "kitchen talks",
        "mode": "long-form",
        "made": {"command": "speaker-reasoner evaluate", "date": "2026-11-22", "version": "0.1.0"},
        "settings": {
            "normalisation": {},
            "conventions": {"der_025": "collar 0.25 s on each side, overlap scored"},
        },
        "scores": scores(rng),
        "intervals_95": {"cpwer": [0.11, 0.19], "wer": [0.07, 0.14], "der_025": [0.06, 0.12]},
        "subsets": {
            "speakers": {str(n): {**scores(rng), "recordings": 4 * n} for n in (2, 3, 4)},
            "overlap": {k: {**scores(rng), "recordings": 9} for k in ("0 %", "0-10 %", "10 %+")},
            "position": {
                f"{25 * k}-{25 * k + 25} %": {"wer": words((4, k, 5), 99)} for k in range(4)
            },
        },
        "calibration": {
            "ece": 0.071,
            "bins": [
                {
                    "low": k / 10,
                    "high": (k + 1) / 10,
                    "confidence": k / 10 + 0.05,
                    "accuracy": min(1.0, 0.15 + 0.75 * k / 10) if k > 1 else None,
                    "count": 30 * k * k if k > 1 else 0,
                }
                for k in range(10)
            ],
        },
        "speed": {"audio_s": 900.0, "wall_s": 310.0, "real_time_factor": 0.344},
        "skipped": {"orcwer": "more than 20 speakers"},
        "lost": list(lost),
        "recordings": [
            {"name": name, "duration_s": 24.0, "scores": scores(rng), "lost": name in lost}
            for name in names
        ],
    }


PAIRS = {
    "kitchen": (REFERENCE, HYPOTHESIS),
    "copy": (REFERENCE, REFERENCE),
    "lost": (REFERENCE, EMPTY),
}
PAGE_TITLE = "embedded on <kitchen> & more"


def page() -> str:
    return report(result([*PAIRS, "unseen"], lost=("lost",)), PAIRS, PAGE_TITLE)


def embedded(html: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="([^"]*)">(.*?)</script>', html, re.S)
    return {name: json.loads(text) for name, text in found}


def split(text: str) -> list[str]:
    return text.split()


def seconds(data: dict[str, Any], side: str, kind: int) -> float:
    lanes = [lane for lane in data["lanes"] if lane["side"] == side]
    return sum(end - start for lane in lanes for start, end, k in lane["errors"] if k == kind)


def test_nothing_is_fetched_and_nothing_breaks_out() -> None:
    html = page()
    assert not re.search(r'(src|href)\s*=\s*["\'](?!#)', html)
    assert "<b>bye" not in html and "\\u003c/script\\u003e\\u003cb\\u003ebye" in html
    assert html.count("<script") == html.count("</script>") == 1 + 1 + len(PAIRS)
    assert "<title>embedded on &lt;kitchen&gt; &amp; more</title>" in html
    assert "{{" not in html.split("<script>")[0]


def test_the_data_of_the_page_is_the_evaluations() -> None:
    data = embedded(page())
    assert set(data) == {"result", "data-0", "data-1", "data-2"}
    assert [one["name"] for one in data["result"]["recordings"]] == [*PAIRS, "unseen"]
    assert data["result"]["recordings"][0]["speakers"] == [3, 4]
    assert data["result"]["recordings"][3]["speakers"] is None


def test_lanes_of_a_pair_stand_together() -> None:
    data = compare(REFERENCE, HYPOTHESIS, split)
    lanes = [(lane["side"], lane["speaker"], lane["pair"]) for lane in data["lanes"]]
    assert lanes == [
        ("reference", "ann", 0),
        ("hypothesis", "Speaker1", 0),
        ("reference", "bob", 1),
        ("hypothesis", "Speaker2", 1),
        ("reference", "chen", 2),
        ("hypothesis", "Speaker3", 2),
        ("hypothesis", "Speaker4", None),
    ]
    assert data["lanes"][0]["segments"][0] == [0.5, 4.8, REFERENCE.segments[0].text]
    assert data["missing"] == [[15.1, 16.2, "the turn ended early"]]
    assert data["chunks"] == [[0.0, 24.0]]
    assert data["turns"] == [[0.5, 7.0, 1], [7.3, 13.9, 2]]


def test_labels_that_never_meet_share_a_lane() -> None:
    strangers = [Segment(f"S{k}", 10.0 * k, 10.0 * k + 5, "hello") for k in range(1, 9)]
    data = compare(EMPTY, Transcript("lost", 99.0, tuple(strangers)), split)
    [lane] = data["lanes"]
    assert lane["speaker"] == "S1, S2, S3, S4, S5, S6, S7, S8"
    assert lane["segments"][2] == [30.0, 35.0, "S3: hello"]
    assert [error[2] for error in lane["errors"]] == [FALSE_ALARM] * 8


def test_wrong_time_is_that_of_the_der() -> None:
    data = compare(REFERENCE, HYPOTHESIS, split)
    # Missed: ann's first 0.1 s, bob under ann, the end of chen's words, bob's "fine". Confused: ann's
    # last as Speaker2, and 0.1 s of bob as Speaker1.
    assert seconds(data, "reference", CONFUSED) == pytest.approx(5.7)
    assert seconds(data, "hypothesis", CONFUSED) == pytest.approx(5.7)
    assert seconds(data, "reference", MISSED) == pytest.approx(0.1 + 0.2 + 1.1 + 0.8)
    assert seconds(data, "hypothesis", FALSE_ALARM) == pytest.approx(0.1 * 3 + 0.2 + 0.9)


def test_wrong_time_is_pyannotes() -> None:
    pytest.importorskip("meeteval", reason=REMEDY)
    pytest.importorskip("pyannote.metrics", reason=REMEDY)
    from speaker_reasoner.evaluate.scores import score

    for seed in range(3):
        sides = [talk(random.Random(10 * seed + k), f"{'rs'[k]}", 40) for k in range(2)]
        data, der = compare(*sides, split), score(*sides).der_0
        assert seconds(data, "reference", MISSED) == pytest.approx(der.missed_s, abs=0.1)
        assert seconds(data, "hypothesis", FALSE_ALARM) == pytest.approx(der.false_alarm_s, abs=0.1)
        assert seconds(data, "reference", CONFUSED) == pytest.approx(der.confusion_s, abs=0.1)


def test_words_are_aligned_by_segment() -> None:
    first, second, third, alone = compare(REFERENCE, HYPOTHESIS, split)["alignments"]
    assert (first["reference"], first["hypothesis"]) == ("ann", "Speaker1")
    assert first["rows"][0][2] == [
        [0, "so where did we leave the", ""],
        [3, "budget", "budge"],
        [0, "last week", ""],
    ]
    assert [1, "still", ""] in first["rows"][1][2]
    assert first["counts"] == [16, 11, 0, 1]
    assert (second["reference"], third["hypothesis"]) == ("bob", "Speaker3")
    assert (alone["reference"], alone["hypothesis"]) == (None, "Speaker4")
    assert alone["counts"] == [0, 0, 2, 0]


def test_inserted_words_lose_none() -> None:
    data = compare(EMPTY, HYPOTHESIS, split)
    assert sum(one["counts"][2] for one in data["alignments"]) == len(HYPOTHESIS.text.split())
    data = compare(HYPOTHESIS, EMPTY, split)
    assert sum(one["counts"][1] for one in data["alignments"]) == len(HYPOTHESIS.text.split())
    assert compare(EMPTY, EMPTY, split)["alignments"] == []


def test_confusion_sums_to_the_speech() -> None:
    found = compare(REFERENCE, HYPOTHESIS, split)["confusion"]
    assert found["paired"] == [[0, 0], [1, 1], [2, 2]]
    assert found["seconds"][0][1] == pytest.approx(5.6)
    assert found["seconds"][1][-1] == pytest.approx(0.8)  # bob's "fine": nobody was heard
    assert found["seconds"][-1][3] == pytest.approx(0.9)


def test_other_json_and_strangers_are_refused() -> None:
    with pytest.raises(FormatError, match="report: evaluation version '2'"):
        report({**result([]), "schema": "speaker-reasoner/evaluation/2"}, {}, "x")
    with pytest.raises(DataError, match="'kitchen' was not scored"):
        report(result(["other"]), PAIRS, "x")
    with pytest.raises(FormatError, match="as JSON"):
        report({**result([]), "speed": float("nan")}, {}, "x")


def talk(rng: random.Random, prefix: str, count: int) -> Transcript:
    """A long meeting of four people, in turns with overlap."""
    at, segments = 0.0, []
    for _ in range(count):
        length = rng.uniform(0.6, 3.0)
        text = " ".join(
            rng.choices(
                ["we", "may", "see", "that", "number", "again", "next", "week", "or", "not"], k=6
            )
        )
        segments.append(Segment(f"{prefix}{rng.randrange(4)}", at, at + length, text))
        at += length + rng.uniform(-0.4, 0.6)
    return Transcript("talk", at + 1, tuple(segments))


# ---- in a real browser ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_recording_opens_in_a_browser(browser: Any, tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(), encoding="utf-8")
    tab, complaints = opened(browser, path, viewport={"width": width, "height": 900})
    assert tab.locator("#overview h1").inner_text() == PAGE_TITLE
    assert tab.locator(".list tbody tr").count() == 4
    tab.get_by_role("link", name="kitchen", exact=True).click()
    expect(tab.locator("#recording h1")).to_have_text("kitchen")
    lanes = tab.locator(".lane[data-side]")
    assert lanes.count() == 7
    assert "ann" in lanes.nth(0).inner_text() and "Speaker1" in lanes.nth(1).inner_text()
    assert tab.locator(".word.deleted").count() > 0
    assert tab.locator(".confusion td.paired").count() == 3
    drawn = "() => new Set(document.querySelector('.window canvas').getContext('2d')"
    drawn += ".getImageData(0, 0, 300, 200).data).size"
    assert tab.evaluate(drawn) > 10
    overflow = "document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(overflow), "the page scrolls sideways"
    tab.get_by_role("button", name="Next error").click()
    assert tab.locator(".readout").inner_text().startswith("missed, 0:13.90 to 0:15.00, chen")
    tab.get_by_role("link", name=re.compile("Next|Previous")).first.click()
    expect(tab.locator("#recording h1")).to_have_text(re.compile("^(copy|lost)$"))
    tab.get_by_role("link", name="All recordings").click()
    expect(tab.locator("#overview")).to_be_visible()
    assert tab.evaluate(overflow)
    assert complaints == []


@pytest.mark.slow
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(), encoding="utf-8")
    size = {"width": width, "height": 900}
    tab, _ = opened(browser, path, viewport=size, color_scheme=scheme, bypass_csp=True)
    assert violations(tab) == [], "the overview"
    tab.get_by_role("link", name="kitchen", exact=True).click()
    expect(tab.locator("#recording h1")).to_have_text("kitchen")
    tab.get_by_role("button", name="Next error").click()
    assert violations(tab) == [], "a recording"


@pytest.mark.slow
def test_an_hour_opens_and_scrolls(browser: Any, tmp_path: Path) -> None:
    pair = talk(random.Random(1), "r", 2000), talk(random.Random(2), "s", 2000)
    path = tmp_path / "report.html"
    path.write_text(report(result(["hour"]), {"hour": pair}, "hour"), encoding="utf-8")
    tab, complaints = opened(browser, path, viewport={"width": 1280, "height": 900})
    tab.get_by_role("link", name="hour", exact=True).click()
    expect(tab.locator("#recording h1")).to_have_text("hour")
    tab.locator(".window").evaluate("view => { view.scrollLeft = view.scrollWidth / 2 }")
    before = tab.locator(".window").evaluate("view => view.scrollWidth")
    tab.get_by_role("button", name="Zoom in").click()
    assert tab.locator(".window").evaluate("view => view.scrollWidth") > 1.5 * before
    assert complaints == []
