"""Leaderboards: rows that were measured alike, paired comparisons, what is stored is not computed again."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner import cli
from speaker_reasoner.errors import DataError, FormatError
from speaker_reasoner.evaluate import leaderboard as module
from speaker_reasoner.evaluate.leaderboard import leaderboard
from speaker_reasoner.evaluate.leaderboard_files import before, write

from .browser import chromium, needs_axe, opened, violations

COUNT = 8


def counts(errors: int, words: int = 100) -> dict[str, Any]:
    return {
        "insertions": 0,
        "deletions": errors,
        "substitutions": 0,
        "reference_words": words,
        "rate": errors / words,
    }


def result(system: str, errors: int, count: int = COUNT, **changes: Any) -> dict[str, Any]:
    """A stored evaluation in which every recording has about the same errors."""
    rows = [
        {
            "name": f"r{i}",
            "duration_s": 60.0,
            "scores": {"cpwer": counts(errors + i % 2), "wer": counts(errors), "der_0": None},
            "lost": False,
        }
        for i in range(count)
    ]
    total = sum(row["scores"]["cpwer"]["deletions"] for row in rows)
    return {
        "schema": "speaker-reasoner/evaluation/1",
        "system": system,
        "data": "talks",
        "mode": "long-form",
        "made": {"command": "run <it>", "date": "2026-11-28", "version": "0.1.0"},
        "settings": {"normalisation": {"language": "en", "lower": True}, "conventions": {}},
        "scores": {
            "cpwer": counts(total, 100 * count),
            "wer": counts(errors * count, 100 * count),
            "speaker_count": {"rate": 0.5},
        },
        "speed": {"audio_s": 480.0, "wall_s": 60.0},
        "lost": [],
        "recordings": rows,
        **changes,
    }


def stored(folder: Path, *results: dict[str, Any]) -> list[Path]:
    paths = []
    for i, one in enumerate(results):
        paths.append(folder / f"{i}.json")
        paths[-1].write_text(json.dumps(one))
    return paths


def verdicts(board: dict[str, Any], metric: str = "cpwer") -> dict[tuple[str, str], str]:
    return {(r["a"], r["b"]): r["verdict"] for r in board["comparisons"][metric]}


def test_rows_are_sorted_and_compared(tmp_path: Path) -> None:
    paths = stored(tmp_path, result("bad", 30), result("good", 10), result("fair", 10))
    [board] = leaderboard(paths)["boards"]
    assert [row["system"] for row in board["rows"]] == ["fair", "good", "bad"]
    assert board["rows"][0]["metrics"]["cpwer"]["rate"] == pytest.approx(0.105)
    low, high = board["rows"][0]["metrics"]["cpwer"]["interval"]
    assert 0.1 <= low < 0.105 < high <= 0.11
    assert board["rows"][0]["speed"] == 8.0 and board["recordings"] == COUNT
    assert verdicts(board) == {
        ("bad", "good"): "b",
        ("bad", "fair"): "b",
        ("good", "fair"): "no difference shown",
    }
    assert set(verdicts(board, "der_0").values()) == {"not measured"}
    [one, *_] = board["comparisons"]["cpwer"]
    assert one["compared"]["difference"] == pytest.approx(0.2)
    assert one["p_adjusted"] == pytest.approx(3 * 2 / 10_001)


def test_units_data_and_scoring_have_boards_of_their_own(tmp_path: Path) -> None:
    pieces = {"mode": "segmented", "settings": {"pieces_s": [40, 50], "normalisation": {}}}
    paths = stored(
        tmp_path,
        result("a", 10),
        result("a", 10, **pieces),
        result("a", 10, data="calls"),
        result("a", 10, settings={"normalisation": {"lower": False}}),
    )
    boards = leaderboard(paths)["boards"]
    assert [(b["data"], b["unit"]) for b in boards] == [
        ("talks", "whole recordings"),
        ("talks", "pieces of 40 to 50 s"),
        ("calls", "whole recordings"),
        ("talks", "whole recordings"),
    ]
    assert all(len(board["rows"]) == 1 for board in boards)


@pytest.mark.parametrize(
    "other",
    [
        {"collars_s": {"der_025": 0.5}},
        {"as": {"tool": "sclite", "rules": "its own"}},
        {"uem": "talks.uem"},
        {"conventions": {"cpwer": "another"}},
    ],
)
def test_another_scoring_has_a_board_of_its_own(tmp_path: Path, other: dict[str, Any]) -> None:
    one = result("a", 10)
    two = result("b", 10, settings={**one["settings"], **other})
    assert len(leaderboard(stored(tmp_path, one, two))["boards"]) == 2


def test_each_cell_says_row_minus_column(tmp_path: Path) -> None:
    board = leaderboard(stored(tmp_path, result("bad", 30), result("good", 10)))
    write(board, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.count("| good |  | −20.0 [−20.0, −20.0]: better |") == 2  # cpWER and WER
    assert text.count("| bad | +20.0 [+20.0, +20.0]: worse |  |") == 2
    write(board, tmp_path / "page.html")
    rows = re.findall(r"<tr><th scope=row class=name>(good|bad)</th>(.*?)</tr>", page_of(tmp_path))
    cells = [re.sub("<[^>]*>", " ", cell) for name, cell in rows if "worse:" in cell]
    assert len(cells) == 2 and all("▲ +20.0 +20.0 to +20.0" in " ".join(c.split()) for c in cells)
    assert page_of(tmp_path).count("▼ −20.0<br><small>−20.0 to −20.0</small>") == 2


def page_of(folder: Path) -> str:
    return (folder / "page.html").read_text()


def test_only_the_same_recordings_are_paired(tmp_path: Path) -> None:
    other = result("other", 10)
    other["recordings"][0]["scores"]["cpwer"]["reference_words"] = 99
    paths = stored(tmp_path, result("a", 10), result("fewer", 30, count=7), other)
    [board] = leaderboard(paths)["boards"]
    assert set(verdicts(board).values()) == {"other recordings"}
    few = stored(tmp_path, result("a", 10, count=5), result("b", 90, count=5))
    [board] = leaderboard(few)["boards"]
    assert verdicts(board) == {("a", "b"): "too few recordings"}


def test_failures_are_shown_with_their_kind(tmp_path: Path) -> None:
    failed = result("a", 10, lost=["r0", "r1"])
    failed["usage"] = {"requests": 8, "input_tokens": 12_000}
    failed["failures"] = {"r0": {"reason": "loop", "message": "<b>again</b>"}}
    board = leaderboard(stored(tmp_path, failed))
    kinds = [one["reason"] for one in board["boards"][0]["rows"][0]["failures"]]
    assert kinds == ["loop", "no answer"]
    for name in ("page.html", "page.md"):
        write(board, tmp_path / name)
        text = (tmp_path / name).read_text()
        assert "8 requests, 12,000 tokens in" in text
        assert "2 (1 loop, 1 no answer)" in text and "<b>again" not in text
    assert "r0: loop: &lt;b&gt;again" in (tmp_path / "page.html").read_text()


def test_names_cannot_break_the_markdown(tmp_path: Path) -> None:
    board = leaderboard(stored(tmp_path, result("a\\|b [c](d)\n", 10), result("e", 20)))
    write(board, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.count("| a\\\\\\|b \\[c\\](d)  |") == 6  # row, two matrices twice, result
    assert "[c](" not in text


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many comparisons are computed."""
    calls: list[int] = []
    compare = module.compare

    def counting(*sides: Any, **options: Any) -> Any:
        calls.append(1)
        return compare(*sides, **options)

    monkeypatch.setattr(module, "compare", counting)
    return calls


def test_what_is_stored_is_not_computed_again(tmp_path: Path, drawn: list[int]) -> None:
    paths = stored(tmp_path, result("a", 10), result("b", 20), result("c", 30))
    first = leaderboard(paths)
    assert len(drawn) == 6  # three pairs, two metrics
    for name in ("page.html", "page.json"):
        write(first, tmp_path / name)
        again = leaderboard(paths, before(tmp_path / name))
        assert json.loads(json.dumps(first)) == again and len(drawn) == 6
    paths[2].write_text(json.dumps(result("c", 31)))
    other = leaderboard(paths, before(tmp_path / "page.html"))
    assert len(drawn) == 6 + 4 and other["inputs"] != first["inputs"]
    assert json.loads(json.dumps(leaderboard(paths))) == json.loads(json.dumps(other))


def test_the_second_call_takes_a_twentieth(tmp_path: Path) -> None:
    paths = stored(tmp_path, *(result(str(i), 10 + i, count=200) for i in range(8)))
    begun = time.process_time()
    first = leaderboard(paths)
    took = time.process_time() - begun
    write(first, tmp_path / "page.json")
    begun = time.process_time()
    leaderboard(paths, before(tmp_path / "page.json"))
    assert time.process_time() - begun < 0.05 * took


def test_other_code_computes_again(
    tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = stored(tmp_path, result("a", 10), result("b", 20))
    first = leaderboard(paths)
    monkeypatch.setattr(module, "_program", lambda: "other")
    leaderboard(paths, first)
    assert len(drawn) == 4


def test_bad_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two results of 'a' on 'talks' that were measured alike"):
        leaderboard(stored(tmp_path, result("a", 1), result("a", 2)))
    with pytest.raises(DataError, match=r"none\.json: cannot be read as an evaluation"):
        leaderboard([tmp_path / "none.json"])
    with pytest.raises(DataError, match="got no results"):
        leaderboard([])
    with pytest.raises(FormatError, match="expected counts of each recording; score again"):
        leaderboard(stored(tmp_path, result("a", 1, recordings=[])))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json: cannot be read as an evaluation"):
        leaderboard([tmp_path / "broken.json"])
    with pytest.raises(DataError, match=r"\.pdf: expected a name that ends in \.html"):
        write(leaderboard(stored(tmp_path, result("a", 1))), tmp_path / "page.pdf")


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    names = result("<script>alert(1)</script>", 10, data="AISHELL4-Eval")
    other = result("b", 20, data="AISHELL4-Eval")
    board = leaderboard(stored(tmp_path, names, other, result("b", 20)))
    write(board, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text and text.count("<script") == 2
    links = re.findall(r"(?:src|href)=[\"']?([^\"'>\s]*)", text)
    assert links == ["#b0", "#b1"] and "prefers-color-scheme: dark" in text
    assert before(tmp_path / "page.html") == json.loads(json.dumps(board))
    assert "Published figures of this data set" in text and "pieces of at most 5 min" in text


def test_the_command_writes_all_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    [path] = stored(tmp_path, result("a", 10))
    shutil.copy(path, folder / "evaluation.json")
    outputs = [tmp_path / "out" / f"page{end}" for end in (".html", ".json", ".md")]
    words = ["evaluate", "leaderboard", str(folder), *(f"-o={path}" for path in outputs)]
    assert cli.main(words) == 0
    assert all(path.exists() for path in outputs)
    assert "| a | 10.5 %" in outputs[2].read_text()
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", "leaderboard", str(folder), "-o", "page.pdf"])
    assert caught.value.code == 2 and ".html, .json or .md" in capsys.readouterr().err


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.slow
def test_the_page_sorts_and_fits_a_phone(tmp_path: Path, browser: Any) -> None:
    paths = stored(tmp_path, *(result(f"a rather long system {i}", 10 + 7 * i) for i in range(6)))
    write(leaderboard(paths), tmp_path / "page.html")
    small = {"width": 360, "height": 700}
    page, complaints = opened(browser, tmp_path / "page.html", viewport=small)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    names = "[...document.querySelectorAll('table.sortable tbody th')].map(x => x.textContent)"
    first = page.evaluate(names)
    page.click("table.sortable th:nth-child(2) button")
    page.click("table.sortable th:nth-child(2) button")
    assert page.evaluate(names) == first[::-1]
    assert complaints == []


@pytest.mark.slow
@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(tmp_path: Path, browser: Any, scheme: str) -> None:
    paths = stored(tmp_path, *(result(f"system {i}", 10 + 7 * i) for i in range(3)))
    write(leaderboard(paths), tmp_path / "page.html")
    page, _ = opened(browser, tmp_path / "page.html", color_scheme=scheme, bypass_csp=True)
    assert violations(page) == []
