"""The paper's tables: what was published is there to the digit, ours beside it, marked."""

import re
from typing import Any

import pytest
from rich.text import Text

from speaker_reasoner.errors import DataError, FormatError
from speaker_reasoner.evaluate.published import groups, only_published
from speaker_reasoner.evaluate.stored import check_evaluation, unit_of
from speaker_reasoner.evaluate.tables import TABLES, render


def result(**changes: Any) -> dict[str, Any]:
    """A stored evaluation, as far as tables read it."""
    return {
        "schema": "speaker-reasoner/evaluation/1",
        "system": "mine",
        "data": "aishell4-eval",
        "mode": "segmented",
        "made": {"date": "2026-11-28"},
        "settings": {
            "pieces_s": [40, 50],
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
    for group in groups(name):
        for system, by_set in group.rows.items():
            figures = [f"{of[key]:.2f}" for of in by_set.values() for key in metrics if key in of]
            row = f"| {system}"
            lines = [line for line in text.splitlines() if line.startswith(row)]
            shown = [cell.strip() for line in lines for cell in line.split("|")[2:-1]]
            assert figures and not {f.replace("-", "−") for f in figures} - set(shown)


def test_the_papers_figures_are_of_the_paper() -> None:
    text = render("segmented", [], "markdown")
    assert "2604.03074" in text and "unit pieces of 40 to 50 s" in text and "Unit |" not in text
    assert cells(text, "SpeakerLM (212.25h)") == [
        *("–", "17.75", "26.14", "8.39"),
        *("–", "18.63", "32.22", "13.59"),
    ]
    assert "SpeakerLM (212.25h): published figures only, because neither code nor weights" in text
    assert "Gemini-2.5-Pro: published figures only, because the service ends on 2026-12-01" in text
    assert only_published("gemini-2.5-pro") and only_published("speakerlm")
    assert only_published("Gemini-3.1-pro-preview") is None


def test_figures_of_other_sources_say_unit_source_and_date() -> None:
    text = render("elsewhere", [result(system="mine", data="AMI-SDM")], "markdown")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    vibevoice = [row for row in rows if row.startswith("| VibeVoice-ASR")]
    assert "up to 60 min in one pass" in vibevoice[1] and "at most 5 min" in vibevoice[0]
    assert (
        next(r for r in rows if r.startswith("| mine¹²")).split("|")[2] == " pieces of 40 to 50 s "
    )
    notes = [line for line in text.splitlines() if line[:1] in "¹²³⁴⁵⁶⁷⁸⁹" and line]
    assert len(notes) == 12 and all("looked up on 2026-11-27" in note for note in notes[:-1])
    assert "third party" in notes[7] and "third party" not in notes[0]
    assert "collar: 0 s" in notes[5] and "collar: 0.25 s" in notes[6]


def test_only_figures_measured_alike_are_compared() -> None:
    text = render("elsewhere", [result(system="mine", data="AISHELL4-Eval")], "markdown")
    assert cells(text, "pyannote precision-2⁵")[1] == "**11.40**"  # of pyannote's own table
    assert cells(text, "pyannote 3⁷")[1] == "7.70" and cells(text, "mine¹²")[1] == "3.00"
    two = [result(), result(system="other", scores={"der_025": {"rate": 0.02}})]
    text = render("segmented", two, "markdown")
    assert cells(text, "other²")[0] == "**2.00**"
    two[1]["settings"] = {**two[1]["settings"], "pieces_s": [10, 20]}
    text = render("segmented", two, "markdown")
    assert cells(text, "other²")[:2] == ["pieces of 10 to 20 s", "2.00"]
    assert cells(text, "mine¹")[:2] == ["pieces of 40 to 50 s", "3.00"]


def test_units_have_words() -> None:
    assert unit_of(result()) == "pieces of 40 to 50 s"
    assert unit_of({"mode": "long-form"}) == "whole recordings"
    assert unit_of({"mode": "segmented"}) == "pieces" and unit_of({}) == "not stated"


def test_our_row_stands_below_with_its_setting() -> None:
    text = render("segmented", [result()], "markdown")
    assert cells(text, "mine¹") == ["3.00", "15.00", "14.91", "−0.09", *["–"] * 4]
    assert text.index("| mine¹ |") > text.index("| Speaker-Reasoner Multi-turn 7B |")
    note = "¹ Measured by us on 2026-11-28, unit: pieces of 40 to 50 s. DER: collar 0.25 s on each side"
    assert note in text
    assert (
        "(without a collar: AISHELL4-Eval 7.12). Words: lower, language auto; not fillers." in text
    )


def test_the_best_of_a_column_is_bold_whichever_way_is_better() -> None:
    worse = result(system="worse", scores={"gender": {"rate": 0.5}, "wer": {"rate": 0.1}})
    text = render("attributes", [result(), worse], "markdown")
    assert cells(text, "mine¹")[:2] == ["pieces of 40 to 50 s", "**98.00**"]
    assert cells(text, "worse²") == ["pieces of 40 to 50 s", "50.00", "–"]
    text = render("segmented", [], "markdown")
    assert text.count("**13.83**") == 2  # both of those that are best
    assert "**−0.14**" in text and "**97.12**" in render("attributes", [], "markdown")


def test_another_data_set_has_columns_of_its_own() -> None:
    text = render("long-form", [result(data="talks", mode="long-form")], "markdown")
    assert "talks<br>CER ↓" in text and "AISHELL4-Eval<br>CER ↓" not in text
    assert cells(text, "mine¹")[-4:] == ["3.00", "15.00", "14.91", "−0.09"]


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
