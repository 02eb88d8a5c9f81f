"""Tables written as Markdown, as LaTeX, or for the terminal."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

Style = Literal["markdown", "latex", "terminal"]

NONE = "–"
"""Stands where there is no figure."""


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


Column = tuple[str, Metric]


@dataclass(frozen=True, slots=True)
class SystemRow:
    """One system.

    Attributes:
        label: its name.
        unit: the unit that it took at once, in words.
        group: rows of one group were measured alike.
        mark: the number of its note; 0 without one.
        percent: by data set and key of the metric.
    """

    label: str
    unit: str
    group: str
    mark: int
    percent: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Table:
    """A table, ready to be written.

    Attributes:
        title: of the table.
        rows: from top to bottom.
        blocks: columns that stand side by side.
        notes: lines below it.
        units: whether a column says the unit of each row.
    """

    title: str
    rows: list[SystemRow]
    blocks: list[list[Column]]
    notes: list[str]
    units: bool

    @cached_property
    def best(self) -> dict[tuple[str, str, str], float]:
        """The best figure by group, data set and metric; NaN where there is nothing to beat."""
        values: dict[tuple[str, str, str], list[float]] = {}
        for row in self.rows:
            for (data, key), value in row.percent.items():
                values.setdefault((row.group, data, key), []).append(value)
        rises = {metric.key: metric.rises for columns in self.blocks for _, metric in columns}
        return {
            place: math.nan if len(of) < 2 else max(of) if rises[place[2]] else min(of)
            for place, of in values.items()
            if place[2] in rises
        }

    def cell(self, row: SystemRow, column: Column) -> tuple[str, bool]:
        """The figure with two decimals, and whether it is the best of its kind."""
        data, metric = column
        value = row.percent.get((data, metric.key))
        if value is None:
            return NONE, False
        text = f"{value:.2f}".replace("-", "−")
        return text, value == self.best[row.group, data, metric.key]

    def shown(self, columns: Sequence[Column]) -> list[SystemRow]:
        """The rows of a block: those with a figure in it, and those without any figure at all."""
        here = {(data, metric.key) for data, metric in columns}
        anywhere = {(data, m.key) for block in self.blocks for data, m in block}
        return [
            row
            for row in self.rows
            if here & row.percent.keys() or not anywhere & row.percent.keys()
        ]


def superscript(number: int) -> str:
    """Return the number of a note as a mark; nothing for 0."""
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) if number else ""


def _arrow(metric: Metric) -> str:
    return "↑" if metric.rises else "↓"


def plain(text: str) -> str:
    """Return the text on one line, with a blank for each character that cannot be printed."""
    return "".join(c if c.isprintable() else " " for c in text)


def escape_markdown(text: str) -> str:
    """Return the text so that Markdown shows it as it is, on one line."""
    return "".join("\\" + c if c in r"\`*_[]<>|~" else c for c in plain(text))


def markdown_row(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table; the cells are Markdown."""
    return "| " + " | ".join(cells) + " |"


def _markdown(table: Table) -> str:
    escape = escape_markdown
    lines = [f"**{escape(table.title)}**"]
    for columns in table.blocks:
        heads = [f"{escape(data)}<br>{metric.name} {_arrow(metric)}" for data, metric in columns]
        unit = ["Unit"] * table.units
        lines += ["", markdown_row(["System", *unit, *heads])]
        lines.append(markdown_row(["---", *["---"] * table.units, *["---:"] * len(columns)]))
        for row in table.shown(columns):
            cells = [f"**{text}**" if best else text for text, best in _cells(table, row, columns)]
            own = [escape(row.unit)] * table.units
            lines.append(markdown_row([escape(row.label) + superscript(row.mark), *own, *cells]))
    return "\n".join([*lines, "", "  \n".join(escape(note) for note in table.notes)]) + "\n"


def _cells(table: Table, row: SystemRow, columns: Sequence[Column]) -> list[tuple[str, bool]]:
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


def _latex(table: Table) -> str:
    def escape(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in plain(text))

    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table*}",
        r"  \centering\scriptsize\setlength{\tabcolsep}{3pt}",
        f"  \\caption{{{escape(table.title)}. {escape(' '.join(table.notes))}}}",
    ]
    for columns in table.blocks:
        sets = list(dict.fromkeys(data for data, _ in columns))
        widths = [sum(data == name for data, _ in columns) for name in sets]
        left = 1 + table.units
        rules, at = [], 1 + left
        for width in widths:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        over = [
            rf"\multicolumn{{{w}}}{{c}}{{{escape(n)}}}" for n, w in zip(sets, widths, strict=True)
        ]
        heads = [escape(f"{metric.name} {_arrow(metric)}") for _, metric in columns]
        lines += [
            rf"  \begin{{tabular}}{{{'l' * left}{'r' * len(columns)}}}",
            r"    \toprule",
            "    " + " & ".join([*[""] * left, *over]).lstrip() + r" \\",
            "    " + " ".join(rules),
            "    " + " & ".join(["System", *["Unit"] * table.units, *heads]) + r" \\",
            r"    \midrule",
        ]
        rows = table.shown(columns)
        for i, row in enumerate(rows):
            if i and row.group != rows[i - 1].group:
                lines.append(r"    \midrule")
            cells = [
                rf"\textbf{{{escape(text)}}}" if best else escape(text)
                for text, best in _cells(table, row, columns)
            ]
            label = escape(row.label + superscript(row.mark))
            own = [escape(row.unit)] * table.units
            lines.append("    " + " & ".join([label, *own, *cells]) + r" \\")
        lines += [r"    \bottomrule", r"  \end{tabular}", ""]
    lines[-1] = r"\end{table*}"
    return "\n".join(lines) + "\n"


def _terminal(table: Table) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=120)
    console.print(Text(table.title, "bold"))

    def side(title: str, heads: Sequence[str], justify: Literal["left", "right"]) -> RichTable:
        part = RichTable(
            box=box.SIMPLE_HEAD,
            title=Text(title),
            pad_edge=False,
            padding=(0, 1),
            min_width=len(title),
        )
        for head in heads:
            part.add_column(Text(head), justify=justify, no_wrap=True)
        return part

    for columns in table.blocks:
        sets = list(dict.fromkeys(data for data, _ in columns))
        rows = table.shown(columns)
        last = [i for i, row in enumerate(rows[1:]) if row.group != rows[i].group]
        names = side(" ", ["System"], "left")
        for row in rows:
            names.add_row(Text(plain(row.label) + superscript(row.mark)))
        parts = [names]
        if table.units:
            parts.append(side(" ", ["Unit"], "left"))
            for row in rows:
                parts[1].add_row(Text(plain(row.unit)))
        for data in sets:
            mine = [column for column in columns if column[0] == data]
            part = side(plain(data), [f"{m.name} {_arrow(m)}" for _, m in mine], "right")
            for row in rows:
                part.add_row(*(Text(t, "bold" * b) for t, b in _cells(table, row, mine)))
            parts.append(part)
        for part in parts:
            for i in last:
                part.rows[i].end_section = True
        grid = RichTable.grid(padding=(0, 2))
        grid.add_row(*parts)
        console.print(grid)
    for note in table.notes:
        console.print(Text(plain(note), "dim"))
    return out.getvalue()


WRITERS: dict[Style, Callable[[Table], str]] = {
    "markdown": _markdown,
    "latex": _latex,
    "terminal": _terminal,
}
"""How each style is written."""
