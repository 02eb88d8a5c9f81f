"""The paper's tables: what was published is there to the digit, ours beside it, marked."""

import re
from typing import Any

import pytest
from rich.text import Text

from speaker_reasoner.errors import DataError, FormatError
from speaker_reasoner.evaluate.tables import TABLES, check_evaluation, published, render


def result(**changes: Any) -> dict[str, Any]:
    """A stored evaluation, as far as tables read it."""
    return {
        "schema": "speaker-reasoner/evaluation/1",
        "system": "mine",
        "data": "aishell4-eval",
        "mode": "segmented",
        "settings": {
            "normalisation": {"language": "auto", "lower": True, "fillers": False, "by": None},
            "conventions": {"der_025": "collar 0.25 s on each side", "gender": "by segment"},
        },
        "scores": {
            "wer": {"rate": 0.15},
            "cpwer": {"rate": 0.1491},
            "der_025": {"rate": 0.03},
            "der_0": {"rate": 0.0712},
            "gender": {"rate": 0.98},
            "speaker_count": {"rate": None},
        },
        **changes,
    }


def cells(markdown: str, system: str) -> list[str]:
    """The figures of a system, over all blocks of a Markdown table."""
    rows = [line for line in markdown.splitlines() if line.startswith(f"| {system} |")]
    return [cell.strip() for row in rows for cell in row.split("|")[2:-1]]


@pytest.mark.parametrize("name", TABLES)
def test_every_published_figure_is_shown(name: str) -> None:
    text = render(name, [], "markdown").replace("**", "")
    metrics = [metric.key for metric in TABLES[name].metrics]
    for system, by_set in published()["tables"][name].items():
        figures = [f"{of[key]:.2f}" for of in by_set.values() for key in metrics if key in of]
        shown = [cell for cell in cells(text, system) if cell != "–"]
        assert shown == [figure.replace("-", "−") for figure in figures]
    assert "2604.03074" in text


def test_our_row_stands_below_with_its_setting() -> None:
    text = render("segmented", [result()], "markdown")
    assert cells(text, "mine¹") == ["**3.00**", "15.00", "14.91", "**−0.09**", *["–"] * 4]
    assert text.index("| mine¹ |") > text.index("| Speaker-Reasoner Multi-turn 7B |")
    note = "¹ Measured by us (segmented). DER: collar 0.25 s on each side"
    assert note in text
    assert (
        "(without a collar: AISHELL4-Eval 7.12). Words: lower, language auto; not fillers." in text
    )


def test_the_best_of_a_column_is_bold_whichever_way_is_better() -> None:
    assert cells(render("attributes", [result()], "markdown"), "mine, segmented¹")[0] == "**98.00**"
    worse = result(scores={"gender": {"rate": 0.5}, "wer": {"rate": 0.1}})
    assert cells(render("attributes", [worse], "markdown"), "mine, segmented¹") == ["50.00", "–"]
    text = render("segmented", [], "markdown")
    assert text.count("**13.83**") == 2  # both of those that are best
    assert "**−0.14**" in text and "**97.12**" in render("attributes", [], "markdown")


def test_another_data_set_has_columns_of_its_own() -> None:
    text = render("long-form", [result(data="talks", mode="long-form")], "markdown")
    assert "talks<br>CER ↓" in text and "AISHELL4-Eval<br>CER ↓" not in text
    assert cells(text, "mine¹") == ["–", "–", "3.00", "15.00", "14.91", "−0.09"]


def test_rows_are_by_system_mode_and_settings() -> None:
    other = result(data="Alimeeting-Far")
    strict = result(settings={"normalisation": {"lower": False}})
    text = render("segmented", [result(), other, strict], "markdown")
    assert "–" not in cells(text, "mine¹") and "| mine² |" in text
    with pytest.raises(DataError, match=r"two evaluations of 'mine' on 'AISHELL4-Eval'.*give one"):
        render("segmented", [result(), result()], "markdown")


def test_what_does_not_fit_the_table_is_counted() -> None:
    text = render("long-form", [result(), result(mode=None)], "markdown")
    assert "Left out: 1 segmented evaluation." in text and "| mine¹ |" in text


def test_names_cannot_break_the_markup() -> None:
    bad = result(system="a|b_{c} & 50 %\n\x1b[2J", data="[bold]x[/bold] $\\y")
    markdown = render("segmented", [bad], "markdown")
    assert "a\\|b\\_{c} & 50 %  \\[2J¹" in markdown
    latex = render("segmented", [bad], "latex")
    assert r"a|b\_\{c\} \& 50 \%  [2J\textsuperscript{1} & " in latex
    assert r"\multicolumn{4}{c}{[bold]x[/bold] \$\textbackslash{}y}" in latex
    terminal = Text.from_ansi(render("segmented", [bad], "terminal")).plain
    assert "[bold]x[/bold] $\\y" in terminal and "\x1b[2J" not in render(
        "segmented", [bad], "terminal"
    )


@pytest.mark.parametrize("name", TABLES)
def test_latex_rows_have_as_many_cells_as_columns(name: str) -> None:
    text = render(name, [result(), result(data="talks")], "latex")
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == text.count(r"\end{tabular}")
    for block in re.findall(r"\\begin\{tabular\}\{(l+r+)\}(.*?)\\end\{tabular\}", text, re.S):
        rows = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert {row.count(" & ") + 1 for row in rows[1:]} == {len(block[0])}
    assert text.isascii()


@pytest.mark.parametrize("name", TABLES)
def test_the_terminal_table_fits_120_columns(name: str) -> None:
    text = Text.from_ansi(render(name, [result(), result(data="talks")], "terminal")).plain
    assert max(map(len, text.splitlines())) <= 120 and "…" not in text
    assert "\x1b[1m" in render(name, [], "terminal")


def test_other_json_is_refused() -> None:
    with pytest.raises(
        FormatError, match=r"results\[0\]: expected an evaluation .* got schema None"
    ):
        render("segmented", [{}], "markdown")
    with pytest.raises(FormatError, match=r"a.json: expected an evaluation .* got list"):
        check_evaluation([], "a.json")
    newer = result(schema="speaker-reasoner/evaluation/2")
    with pytest.raises(FormatError, match="version '2', but this program reads version 1; read it"):
        render("segmented", [newer], "markdown")
    with pytest.raises(FormatError, match=r"results\[0\]: scores: expected an object, got None"):
        render("segmented", [result(scores=None)], "markdown")


def test_unknown_tables_and_styles_are_refused() -> None:
    with pytest.raises(DataError, match="'x': expected one of multi-domain, segmented"):
        render("x", [], "markdown")
    with pytest.raises(DataError, match="'html': expected one of markdown"):
        render("segmented", [], "html")  # type: ignore[arg-type]
