"""The four tables of the paper, and one of other sources: published figures, then stored results.

    render("segmented", [json.loads(path.read_text())], "markdown")

Figures are percent with two decimals, as published; "–" stands where there is no figure, and a column
without any is left out. Where rows differ in their unit, a column says each row's. A figure is bold
if it is the best of several that were measured alike: of one source, unit and scoring. Rows that the
caption does not cover carry a mark, and a line below says where they come from or how they were
scored. `published` has the published figures, `table_styles` writes the tables down.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from . import published
from .stored import check_evaluation, unit_of
from .table_styles import WRITERS, Metric, Style, SystemRow, Table, superscript


@dataclass(frozen=True, slots=True)
class Layout:
    """One table of the paper.

    Attributes:
        title: of the table.
        metrics: the columns of each data set.
        mode: of the evaluations it shows; `None` for any. One without a mode fits everywhere.
        characters: whether its word errors are character errors where the language is Chinese.
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
    "elsewhere": Layout(
        "Figures of other sources",
        (
            Metric("DER", "DER"),
            Metric("WER", "WER"),
            Metric("cpWER", "cpWER"),
            Metric("tcpWER", "tcpWER"),
        ),
        characters=True,
    ),
}

_OUR_RATES = {
    "WER": "wer",
    "CER": "wer",
    "cpWER": "cpwer",
    "cpCER": "cpwer",
    "tcpWER": "tcpwer",
    "DER": "der_025",
    "gender_accuracy": "gender",
    "speaker_count_accuracy": "speaker_count",
}
_SETS_ABREAST: dict[Style, int] = {"markdown": 4, "latex": 4, "terminal": 2}


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
    return WRITERS[style](_fill(table, checked, _SETS_ABREAST[style]))


def _fill(table: str, results: Sequence[Mapping[str, Any]], abreast: int) -> Table:
    layout = TABLES[table]
    rows, notes = _published_rows(table)
    sets = list(dict.fromkeys(data for row in rows for data, _ in row.percent))
    fitting = [r for r in results if layout.mode is None or r.get("mode") in (layout.mode, None)]
    ours, our_notes = _our_rows(layout, fitting, sets, len(notes))
    notes += our_notes
    if len(fitting) < len(results):
        other = "long-form" if layout.mode == "segmented" else "segmented"
        count = len(results) - len(fitting)
        notes.append(f"Left out: {count} {other} evaluation{'s' * (count > 1)}.")
    caption = list(_caption(table, rows, bool(ours)))
    rows += ours
    by_set = [
        [
            (data, metric)
            for metric in layout.metrics
            if any((data, metric.key) in row.percent for row in rows)
        ]
        for data in sets
    ]
    by_set = [columns for columns in by_set if columns]
    units = len({row.unit for row in rows}) > 1
    abreast = 1 if units and abreast == 2 else abreast  # the unit takes the room of a set
    blocks = [
        [column for columns in by_set[i : i + abreast] for column in columns]
        for i in range(0, len(by_set), abreast)
    ]
    return Table(layout.title, rows, blocks, [*caption, *notes], units)


def _published_rows(table: str) -> tuple[list[SystemRow], list[str]]:
    """The published rows; where they are of several sources, each carries a mark with a note."""
    rows, notes = [], []
    groups = published.groups(table)
    for number, group in enumerate(groups):
        mark = 0
        if len(groups) > 1:
            mark = number + 1
            notes.append(f"{superscript(mark)} {group.source.describe()}.")
        rows += [
            SystemRow(
                system,
                group.unit,
                f"published {number}",
                mark,
                {(data, key): x for data, of in by_set.items() for key, x in of.items()},
            )
            for system, by_set in group.rows.items()
        ]
    return rows, notes


def _caption(table: str, rows: Sequence[SystemRow], ours: bool) -> Iterator[str]:
    yield (
        "Percent; bold: the best of several figures that were measured alike (one source, one unit, "
        "one way of scoring)."
    )
    if TABLES[table].characters:
        yield "Word errors of Chinese are character errors; other languages count words."
    groups = published.groups(table)
    if len(groups) == 1:
        [group] = groups
        without = "Rows without a mark are" if ours else "All rows are"
        yield f"{without} as published, unit {group.unit}: {group.source.describe()}."
    names = {row.label: reason for row in rows if (reason := published.only_published(row.label))}
    for name, reason in names.items():
        yield f"{name}: published figures only, because {reason}."


def _our_rows(
    layout: Layout, results: Sequence[Mapping[str, Any]], sets: list[str], marks: int
) -> tuple[list[SystemRow], list[str]]:
    """One row by system, unit and settings; data sets that are new are added to `sets`."""
    rows: dict[str, SystemRow] = {}
    grouped: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for result in results:
        unit = unit_of(result)
        group = json.dumps([unit, result.get("settings") or {}], sort_keys=True)
        key = json.dumps([result["system"], group])
        label = result["system"]
        row = rows.setdefault(key, SystemRow(label, unit, group, marks + len(rows) + 1, {}))
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


def _note(layout: Layout, row: SystemRow, entries: list[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the footnote on the scoring of one of our rows; its settings are the same for all its data sets."""
    settings = entries[0][1].get("settings") or {}
    conventions = settings.get("conventions") or {}
    dates = sorted({made["date"] for _, result in entries if (made := result.get("made"))})
    on = f" on {dates[0]}" if len(dates) == 1 else f" from {dates[0]} to {dates[-1]}" * bool(dates)
    parts = [f"{superscript(row.mark)} Measured by us{on}, unit: {row.unit}"]
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
    """Describe the switches of a normalisation in words: those that are on, then those that are off."""
    if not isinstance(normalisation, Mapping):
        return "normalisation not recorded" if normalisation is None else str(normalisation)
    on = [name for name, value in normalisation.items() if value is True]
    off = [name for name, value in normalisation.items() if value is False]
    named_steps = [f"{k} {v}" for k, v in normalisation.items() if not isinstance(v, bool | None)]
    text = ", ".join([*on, *named_steps]) or "as they are"
    return (text + f"; not {', '.join(off)}" * bool(off)).replace("_", " ")
