"""The four tables of the paper: published figures first, then ours from stored evaluations.

    render("segmented", [json.loads(path.read_text())], "markdown")

Figures are percent with two decimals, as published; the best of a column is bold; "–" stands where
there is no figure, and a column without any is left out. Rows measured by us carry a mark, and a
line below says how they were scored. Sources of the published figures: `published.json`. Scoring,
and finding the stored evaluations, happen elsewhere.
"""

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import DataError, FormatError

SCHEMA = "speaker-reasoner/evaluation"
VERSION = 1

Style = Literal["markdown", "latex", "terminal"]

NONE = "–"


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of a data set.

    Attributes:
        key: its name in `published.json`.
        name: its name in the table's head.
        rises: whether a higher figure is better.
    """

    key: str
    name: str
    rises: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """One table of the paper.

    Attributes:
        title: what it compares.
        metrics: the columns of each data set.
        mode: of the evaluations it shows; `None` for any. One without a mode fits everywhere.
        characters: whether its word errors are called CER, as the paper does for Chinese.
    """

    title: str
    metrics: tuple[Metric, ...]
    mode: str | None = None
    characters: bool = False


_CHINESE = (
    Metric("DER", "DER"),
    Metric("CER", "CER"),
    Metric("cpCER", "cpCER"),
    Metric("delta_cp", "Δcp"),
)

TABLES: dict[str, Layout] = {
    "multi-domain": Layout(
        "Multi-domain evaluation",
        (
            Metric("WER", "WER"),
            Metric("cpWER", "cpWER"),
            Metric("DER", "DER"),
            Metric("delta_cp", "Δcp"),
        ),
    ),
    "segmented": Layout("Segmented evaluation (40–50 s)", _CHINESE, "segmented", True),
    "long-form": Layout("Long-form evaluation (whole recordings)", _CHINESE, "long-form", True),
    "attributes": Layout(
        "Speaker attributes",
        (
            Metric("gender_accuracy", "Gender ACC", rises=True),
            Metric("speaker_count_accuracy", "Speaker count ACC", rises=True),
        ),
    ),
}

_OUR_RATES = {
    "WER": "wer",
    "CER": "wer",
    "cpWER": "cpwer",
    "cpCER": "cpwer",
    "DER": "der_025",
    "gender_accuracy": "gender",
    "speaker_count_accuracy": "speaker_count",
}
_SETS_ABREAST: dict[Style, int] = {"markdown": 4, "latex": 4, "terminal": 2}

_Column = tuple[str, Metric]


@dataclass(slots=True)
class _TableRow:
    """One system; `mark` is the number of its note, 0 for published rows."""

    label: str
    mark: int = 0
    percent: dict[tuple[str, str], float] = field(default_factory=dict)  # data set, metric's key


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    rows: list[_TableRow]
    blocks: list[list[_Column]]
    best: dict[tuple[str, str], float]
    notes: list[str]

    def cell(self, row: _TableRow, column: _Column) -> tuple[str, bool]:
        """The figure with two decimals, and whether it is the best of its column."""
        data, metric = column
        value = row.percent.get((data, metric.key))
        if value is None:
            return NONE, False
        return f"{value:.2f}".replace("-", "−"), value == self.best[data, metric.key]

    def shown(self, columns: Sequence[_Column]) -> list[_TableRow]:
        """The rows of a block: those with a figure in it, and those without any figure at all."""
        here = {(data, metric.key) for data, metric in columns}
        all_shown = set(self.best)
        return [
            row
            for row in self.rows
            if here & row.percent.keys() or not all_shown & row.percent.keys()
        ]


def check_evaluation(result: object, where: str) -> Mapping[str, Any]:
    """Return a stored evaluation if it is one, of the version this program reads.

    Args:
        result: what was read from JSON.
        where: its name in an error message, such as its path.

    Raises:
        FormatError: it is other JSON, of another version, or without a system, data or scores.
    """
    schema = result.get("schema") if isinstance(result, Mapping) else None
    name, _, version = schema.rpartition("/") if isinstance(schema, str) else ("", "", "")
    if not isinstance(result, Mapping) or name != SCHEMA:
        got = f"schema {schema!r}" if isinstance(result, Mapping) else type(result).__name__
        raise FormatError(
            f'{where}: expected an evaluation with "schema": "{SCHEMA}/{VERSION}", got {got}; give '
            "the JSON that `speaker-reasoner evaluate` stored"
        )
    if version != str(VERSION):
        raise FormatError(
            f"{where}: evaluation version {version!r}, but this program reads version {VERSION}; "
            "read it with the release that wrote it"
        )
    for key, kind, expected in (
        ("system", str, "text"),
        ("data", str, "text"),
        ("scores", Mapping, "an object"),
    ):
        if not isinstance(result.get(key), kind):
            raise FormatError(f"{where}: {key}: expected {expected}, got {result.get(key)!r}")
    return result


@cache
def published() -> Mapping[str, Any]:
    """Return the published figures: `source`, `unit`, `notes`, and `tables` by name, each
    `{system: {data set: {metric: percent}}}`."""
    text = resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def render(table: str, results: Sequence[Mapping[str, Any]], style: Style) -> str:
    """Render a table of the paper, with our rows below the published ones.

    Args:
        table: one of `TABLES`.
        results: stored evaluations. Data sets are matched to the published ones by name, ignoring
            case; another name gets columns of its own. A segmented evaluation has no place in the
            long-form table, nor the other way round: a note counts those left out.
        style: `markdown`; `latex` for `\\usepackage{booktabs}`; `terminal` with ANSI codes for bold
            (`rich.text.Text.from_ansi` takes them away where they are not wanted).

    Raises:
        DataError: no such table or style, or two results for one cell.
        FormatError: a result is not an evaluation that this program reads.
    """
    if table not in TABLES:
        raise DataError(f"table {table!r}: expected one of {', '.join(TABLES)}")
    if style not in _SETS_ABREAST:
        raise DataError(f"style {style!r}: expected one of {', '.join(_SETS_ABREAST)}")
    checked = [check_evaluation(result, f"results[{i}]") for i, result in enumerate(results)]
    filled = _fill(TABLES[table], published()["tables"][table], checked, _SETS_ABREAST[style])
    writers = {"markdown": _markdown, "latex": _latex, "terminal": _terminal}
    return writers[style](filled)


def _fill(
    layout: Layout,
    figures: Mapping[str, Mapping[str, Mapping[str, float]]],
    results: Sequence[Mapping[str, Any]],
    abreast: int,
) -> _Table:
    rows = [
        _TableRow(
            system,
            percent={(data, key): x for data, of in by_set.items() for key, x in of.items()},
        )
        for system, by_set in figures.items()
    ]
    sets = list(dict.fromkeys(data for row in rows for data, _ in row.percent))
    fitting = [r for r in results if layout.mode is None or r.get("mode") in (layout.mode, None)]
    ours, notes = _our_rows(layout, fitting, sets)
    if len(fitting) < len(results):
        other = "long-form" if layout.mode == "segmented" else "segmented"
        count = len(results) - len(fitting)
        notes.append(f"Left out: {count} {other} evaluation{'s' * (count > 1)}.")
    rows += ours
    best: dict[tuple[str, str], float] = {}
    for metric in layout.metrics:
        for data in sets:
            values = [x for row in rows if (x := row.percent.get((data, metric.key))) is not None]
            if values:
                first = max(values) if metric.rises else min(values)
                best[data, metric.key] = first if len(values) > 1 else math.nan  # nothing to beat
    by_set = [
        [(data, metric) for metric in layout.metrics if (data, metric.key) in best] for data in sets
    ]
    by_set = [columns for columns in by_set if columns]
    blocks = [
        [column for columns in by_set[i : i + abreast] for column in columns]
        for i in range(0, len(by_set), abreast)
    ]
    return _Table(layout.title, rows, blocks, best, [*_caption(layout, bool(ours)), *notes])


def _caption(layout: Layout, ours: bool) -> Iterable[str]:
    source = published()["source"]
    yield "Percent; the best of several figures in a column is bold."
    if layout.characters:
        yield "CER counts characters of Chinese and words of other languages."
    without = "Rows without a mark are" if ours else "All rows are"
    yield (
        f"{without} as published: arXiv {source['arxiv']} and {source['readme']}; collar and text "
        "normalisation are not printed there."
    )


def _our_rows(
    layout: Layout, results: Sequence[Mapping[str, Any]], sets: list[str]
) -> tuple[list[_TableRow], list[str]]:
    """One row by system, mode and settings; data sets that are new are added to `sets`."""
    rows: dict[str, _TableRow] = {}
    grouped: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for result in results:
        mode = result.get("mode")
        settings = result.get("settings") or {}
        key = json.dumps([result["system"], mode, settings], sort_keys=True)
        label = result["system"] + (f", {mode}" if mode and layout.mode is None else "")
        row = rows.setdefault(key, _TableRow(label, len(rows) + 1))
        known = {name.casefold(): name for name in sets}
        data = known.get(result["data"].casefold(), result["data"])
        if data not in sets:
            sets.append(data)
        if data in dict(grouped.setdefault(key, [])):
            raise DataError(
                f"two evaluations of {label!r} on {data!r} with the same settings: a table has one "
                "cell for them; give one of them"
            )
        grouped[key].append((data, result))
        for metric in layout.metrics:
            value = _percent(metric.key, result["scores"])
            if value is not None:
                row.percent[data, metric.key] = value
    notes = [_note(layout, rows[key], entries) for key, entries in grouped.items()]
    return list(rows.values()), notes


def _percent(key: str, scores: Mapping[str, Any]) -> float | None:
    if key == "delta_cp":
        words, per_speaker = _rate("wer", scores), _rate("cpwer", scores)
        if words is None or per_speaker is None:
            return None
        return round(100 * (per_speaker - words), 2) + 0.0
    rate = _rate(_OUR_RATES[key], scores)
    return None if rate is None else round(100 * rate, 2) + 0.0


def _rate(name: str, scores: Mapping[str, Any]) -> float | None:
    counts = scores.get(name)
    rate = counts.get("rate") if isinstance(counts, Mapping) else None
    return rate if isinstance(rate, int | float) else None


def _note(layout: Layout, row: _TableRow, entries: list[tuple[str, Mapping[str, Any]]]) -> str:
    """How one of our rows was scored; its settings are the same for all its data sets."""
    settings = entries[0][1].get("settings") or {}
    conventions = settings.get("conventions") or {}
    modes = [mode for _, result in entries[:1] if (mode := result.get("mode"))]
    parts = [f"{_superscript(row.mark)} Measured by us{''.join(f' ({mode})' for mode in modes)}"]
    if any(metric.key == "DER" for metric in layout.metrics):
        der = conventions.get("der_025", "collar 0.25 s on each side")
        without = [
            f"{data} {100 * rate:.2f}"
            for data, result in entries
            if (rate := _rate("der_0", result["scores"])) is not None
        ]
        parts.append(f"DER: {der}" + f" (without a collar: {', '.join(without)})" * bool(without))
        parts.append(f"Words: {_describe(settings.get('normalisation'))}")
    else:
        parts += [
            f"{metric.name}: {conventions[_OUR_RATES[metric.key]]}"
            for metric in layout.metrics
            if _OUR_RATES[metric.key] in conventions
        ]
    return ". ".join(parts) + "."


def _describe(normalisation: object) -> str:
    """The switches of a normalisation in words: what is on, then what is off."""
    if not isinstance(normalisation, Mapping):
        return "normalisation not recorded" if normalisation is None else str(normalisation)
    on = [name for name, value in normalisation.items() if value is True]
    off = [name for name, value in normalisation.items() if value is False]
    named_steps = [f"{k} {v}" for k, v in normalisation.items() if not isinstance(v, bool | None)]
    text = ", ".join([*on, *named_steps]) or "as they are"
    return (text + f"; not {', '.join(off)}" * bool(off)).replace("_", " ")


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) if number else ""


def _arrow(metric: Metric) -> str:
    return "↑" if metric.rises else "↓"


def _plain(text: str) -> str:
    """On one line, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def _markdown(table: _Table) -> str:
    def escape(text: str) -> str:
        return "".join("\\" + c if c in r"\`*_[]<>|~" else c for c in _plain(text))

    lines = [f"**{escape(table.title)}**"]
    for columns in table.blocks:
        heads = [f"{escape(data)}<br>{metric.name} {_arrow(metric)}" for data, metric in columns]
        lines += ["", _pipes(["System", *heads]), _pipes(["---", *["---:"] * len(columns)])]
        for row in table.shown(columns):
            cells = [f"**{text}**" if best else text for text, best in _cells(table, row, columns)]
            lines.append(_pipes([escape(row.label) + _superscript(row.mark), *cells]))
    return "\n".join([*lines, "", "  \n".join(escape(note) for note in table.notes)]) + "\n"


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(table: _Table, row: _TableRow, columns: Sequence[_Column]) -> list[tuple[str, bool]]:
    return [table.cell(row, column) for column in columns]


_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "–": "--",
    "Δ": r"$\Delta$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    **{c: "\\" + c for c in "&%$#_{}"},
    **{c: rf"\textsuperscript{{{i}}}" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def _latex(table: _Table) -> str:
    def escape(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in _plain(text))

    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table*}",
        r"  \centering\scriptsize\setlength{\tabcolsep}{3pt}",
        f"  \\caption{{{escape(table.title)}. {escape(' '.join(table.notes))}}}",
    ]
    for columns in table.blocks:
        sets = list(dict.fromkeys(data for data, _ in columns))
        widths = [sum(data == name for data, _ in columns) for name in sets]
        rules, at = [], 2
        for width in widths:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        over = [
            rf"\multicolumn{{{w}}}{{c}}{{{escape(n)}}}" for n, w in zip(sets, widths, strict=True)
        ]
        heads = [escape(f"{metric.name} {_arrow(metric)}") for _, metric in columns]
        lines += [
            rf"  \begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"    \toprule",
            "    " + " & ".join(["", *over]).lstrip() + r" \\",
            "    " + " ".join(rules),
            "    " + " & ".join(["System", *heads]) + r" \\",
            r"    \midrule",
        ]
        rows = table.shown(columns)
        for i, row in enumerate(rows):
            if row.mark and i and not rows[i - 1].mark:
                lines.append(r"    \midrule")
            cells = [
                rf"\textbf{{{escape(text)}}}" if best else escape(text)
                for text, best in _cells(table, row, columns)
            ]
            label = escape(row.label + _superscript(row.mark))
            lines.append("    " + " & ".join([label, *cells]) + r" \\")
        lines += [r"    \bottomrule", r"  \end{tabular}", ""]
    lines[-1] = r"\end{table*}"
    return "\n".join(lines) + "\n"


def _terminal(table: _Table) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=120)
    console.print(Text(table.title, "bold"))

    def side(title: str, heads: Sequence[str], justify: Literal["left", "right"]) -> RichTable:
        part = RichTable(box=box.SIMPLE_HEAD, title=Text(title), pad_edge=False, padding=(0, 1))
        for head in heads:
            part.add_column(Text(head), justify=justify, no_wrap=True)
        return part

    for columns in table.blocks:
        sets = list(dict.fromkeys(data for data, _ in columns))
        rows = table.shown(columns)
        published_rows = sum(not row.mark for row in rows)
        names = side(" ", ["System"], "left")
        for row in rows:
            names.add_row(Text(_plain(row.label) + _superscript(row.mark)))
        parts = [names]
        for data in sets:
            mine = [column for column in columns if column[0] == data]
            part = side(_plain(data), [f"{m.name} {_arrow(m)}" for _, m in mine], "right")
            for row in rows:
                part.add_row(*(Text(t, "bold" * b) for t, b in _cells(table, row, mine)))
            parts.append(part)
        for part in parts:
            if 0 < published_rows < len(rows):
                part.rows[published_rows - 1].end_section = True
        grid = RichTable.grid(padding=(0, 2))
        grid.add_row(*parts)
        console.print(grid)
    for note in table.notes:
        console.print(Text(_plain(note), "dim"))
    return out.getvalue()
