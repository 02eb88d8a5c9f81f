"""A leaderboard as one HTML file: no outside resources, light and dark, readable on a phone.

    path.write_text(page(leaderboard(paths)))

The tables stand in the file as they are; its script only sorts them. The object itself is in the page,
so that a later call finds what was computed already.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .leaderboard import COMPARED, METRICS
from .leaderboard_text import (
    about,
    asked,
    bounds,
    by_pair,
    failures,
    oriented,
    percent,
    points,
    shown,
    speed,
    title,
    verdict,
)
from .published import of_data
from .standalone import fill, script
from .stored import LABELS
from .table_styles import NONE, plain

_SIGNS = {"better": "▼", "worse": "▲", "no difference shown": "≈", "too few recordings": "?"}


def page(board: Mapping[str, Any]) -> str:
    """Return the page."""
    body = "\n".join(_body(board))
    return fill("leaderboard.html", body=body, data=script("leaderboard", board))


def _body(whole: Mapping[str, Any]) -> Iterator[str]:
    made, boards = whole["made"], whole["boards"]
    systems = {row["system"] for board in boards for row in board["rows"]}
    yield "<header><h1>Leaderboard</h1>"
    yield (
        f"<p class=soft>{_count(len(systems), 'system')}, {_count(len(boards), 'board')}. Made on "
        f"{_text(made['date'])} by speaker-reasoner {_text(made['version'])}.</p></header>"
    )
    yield (
        "<p>Error rates: lower is better. Rows share a table only if they are of the same data, unit and "
        "scoring. The bar shows the 95 % interval over recordings. ▼ better, ▲ worse, ≈ no difference "
        "shown, ? too few recordings for a verdict (fewer than six).</p>"
    )
    if len(boards) > 1:
        yield from _glance(boards)
    for number, board in enumerate(boards):
        yield from _section(number, board)
    yield from _method(whole)


def _glance(boards: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One figure by system and board: cpWER, or DER where the reference has no words."""
    yield "<section><h2>At a glance</h2>"
    heads, columns = [], []
    for number, board in enumerate(boards):
        metric = next((m for m in ("cpwer", "der_0") if shown([m], board["rows"])), "cpwer")
        heads.append(
            f"<th scope=col><a href='#b{number}'>{_text(board['data'])}</a><br><small>{LABELS[metric]}; "
            f"{_text(board['unit'])}</small></th>"
        )
        columns.append(
            (board["recordings"], {r["system"]: r["metrics"].get(metric) for r in board["rows"]})
        )
    names = list(dict.fromkeys(row["system"] for board in boards for row in board["rows"]))
    yield "<div class=scroll><table><thead><tr><th scope=col class=name>system</th>"
    yield "".join(heads) + "</tr></thead><tbody>"
    for name in names:
        cells = []
        for count, column in columns:
            rates = [m["rate"] for m in column.values() if m]
            of = column.get(name)
            best = of is not None and len(rates) > 1 and of["rate"] == min(rates)
            cells.append(_rate(of, count, best=best, bar=False))
        yield f"<tr><th scope=row class=name>{_text(name)}</th>{''.join(cells)}</tr>"
    yield "</tbody></table></div></section>"


def _section(number: int, board: Mapping[str, Any]) -> Iterator[str]:
    rows = board["rows"]
    metrics = shown(METRICS, rows)
    yield f"<section id=b{number}><h2>{_text(title(board))}</h2><p class=soft>{_text(about(board))}</p>"
    heads = [*(LABELS[m] for m in metrics), "speakers right", "failures", "speed", "asked"]
    yield "<div class=scroll><table class=sortable><thead><tr><th scope=col class=name>system</th>"
    yield "".join(f"<th scope=col>{head}</th>" for head in heads) + "</tr></thead><tbody>"
    tops = {m: _top(rows, m) for m in metrics}
    least = {m: min(r["metrics"][m]["rate"] for r in rows if m in r["metrics"]) for m in metrics}
    for row in rows:
        cells = [
            _rate(
                of := row["metrics"].get(m),
                board["recordings"],
                best=len(rows) > 1 and of is not None and of["rate"] == least[m],
                top=tops[m],
            )
            for m in metrics
        ]
        cells.append(_sorted(row["speaker_count"], percent(row["speaker_count"])))
        cells.append(_sorted(len(row["failures"]), failures(row)))
        cells.append(_sorted(row["speed"], speed(row)))
        cells.append(_sorted(row["usage"].get("requests"), asked(row)))
        yield f"<tr><th scope=row class=name>{_text(row['system'])}</th>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    yield "".join(
        f"<p class=soft>{_text(row['system'])}: {_text(note)}</p>"
        for row in rows
        for note in row["notes"]
    )
    yield from _failed(rows)
    if len(rows) > 1:
        pairs = len(rows) * (len(rows) - 1) // 2
        for metric in (m for m in COMPARED if m in metrics):
            opened = " open" * (metric == metrics[0])
            yield (
                f"<details{opened}><summary>Who is better than whom: {LABELS[metric]}</summary><p class=soft>"
                f"Row minus column in points, with its 95 % interval; {_count(pairs, 'pair')}, p adjusted "
                "by Holm.</p>"
            )
            yield from _matrix([row["system"] for row in rows], board["comparisons"][metric])
            yield "</details>"
    yield from _published(board["data"])
    yield "</section>"


def _failed(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    failed = [(row["system"], one) for row in rows for one in row["failures"]]
    if failed:
        yield f"<details><summary>{_count(len(failed), 'failure')}</summary><ul>"
        for system, one in failed:
            message = f": {one['message']}" if one.get("message") else ""
            kind = one.get("reason") or "failed"
            yield f"<li>{_text(system)}, {_text(one['name'])}: {_text(kind)}{_text(message)}</li>"
        yield "</ul></details>"


def _matrix(names: Sequence[str], comparisons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    pairs = by_pair(comparisons)
    yield "<div class=scroll><table class=matrix><thead><tr><td class=name></td>"
    yield "".join(f"<th scope=col>{_text(name)}</th>" for name in names) + "</tr></thead><tbody>"
    for a in names:
        cells = []
        for b in names:
            if a == b:
                cells.append("<td class=same></td>")
                continue
            row, flipped = pairs[a, b]
            result = verdict(row, flipped)
            if not row.get("compared"):
                cells.append(f"<td class=soft>{_text(result)}</td>")
                continue
            difference, low, high = oriented(row, flipped)
            hint = f"{result}; adjusted p {row['p_adjusted']:.4f}; {row['compared']['recordings']} recordings"
            cells.append(
                f"<td class='{result if result in ('better', 'worse') else 'even'}' title='{_text(hint)}'>"
                f"<span class=sr>{_text(result)}: </span>{_SIGNS[result]} {points(difference)}<br><small>"
                f"{points(low)} to {points(high)}</small></td>"
            )
        yield f"<tr><th scope=row class=name>{_text(a)}</th>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _published(data: str) -> Iterator[str]:
    """Published figures of the same data set, each group with its unit and source."""
    groups = of_data(data)
    if not groups:
        return
    yield (
        "<details><summary>Published figures of this data set</summary><p class=soft>Not measured here; "
        "each table is of one source and one unit.</p>"
    )
    for group in groups:
        yield f"<h3>Unit: {_text(group.unit)}</h3><p class=soft>{_text(group.source.describe())}.</p>"
        rows = [(system, next(iter(of.values()))) for system, of in group.rows.items()]
        keys = list(dict.fromkeys(key for _, of in rows for key in of))
        heads = "".join(f"<th scope=col>{_text(key)}</th>" for key in keys)
        yield f"<div class=scroll><table><thead><tr><th scope=col class=name>system</th>{heads}</tr></thead>"
        yield "<tbody>"
        for system, of in rows:
            cells = "".join(f"<td>{f'{of[key]:.2f} %' if key in of else NONE}</td>" for key in keys)
            yield f"<tr><th scope=row class=name>{_text(system)}</th>{cells}</tr>"
        yield "</tbody></table></div>"
    yield "</details>"


def _method(whole: Mapping[str, Any]) -> Iterator[str]:
    yield "<section><h2>How this was measured</h2><dl>"
    for name, text in whole["method"].items():
        yield f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>"
    for board in whole["boards"][:1]:
        for metric in ("cpwer", "wer", "tcpwer", "der_025", "der_0"):
            if text := board["scoring"]["conventions"].get(metric):
                yield f"<dt>{LABELS[metric]}</dt><dd>{_text(text)}</dd>"
    yield "</dl><details><summary>Results that this page is made of</summary><div class=scroll><table>"
    yield "<thead><tr><th class=name>system</th><th>data</th><th>date</th><th>version</th><th>SHA-256</th>"
    yield "<th class=left>command</th></tr></thead><tbody>"
    for one in whole["results"]:
        cells = "".join(
            f"<td>{_text(one[key] or NONE)}</td>" for key in ("data", "date", "version")
        )
        yield (
            f"<tr><th scope=row class=name>{_text(one['system'])}</th>{cells}<td><code>{one['sha256'][:12]}"
            f"</code></td><td class=left><code>{_text(one['command'] or NONE)}</code></td></tr>"
        )
    yield "</tbody></table></div></details></section>"


def _top(rows: Sequence[Mapping[str, Any]], metric: str) -> float:
    """The end of a column's bars: its largest rate or bound, at most 1."""
    ends = [
        m["interval"][1] if m["interval"] else m["rate"]
        for r in rows
        if (m := r["metrics"].get(metric))
    ]
    return max(0.01, min(1.0, float(max(ends))))


def _rate(
    of: Mapping[str, Any] | None,
    recordings: int,
    *,
    best: bool,
    bar: bool = True,
    top: float = 1.0,
) -> str:
    """A cell: the rate, its interval in figures and as a bar."""
    if of is None:
        return f"<td data-v=''>{NONE}</td>"
    text = f"<b>{percent(of['rate'])}</b>" if best else percent(of["rate"])
    drawn = ""
    if bar and of["interval"] is not None:
        low, high, at = (100 * min(x / top, 1.0) for x in (*of["interval"], of["rate"]))
        drawn = (
            f"<svg class=bar viewBox='0 0 100 8' preserveAspectRatio=none aria-hidden=true><path class=track "
            f"d='M0 4H100'/><path class=range d='M{low:.1f} 4H{max(high, low + 0.5):.1f}'/><path class=point "
            f"d='M{at:.1f} 0V8'/></svg>"
        )
    return f"<td data-v='{of['rate']:.6f}'>{text}<br><small>{bounds(of, recordings)}</small>{drawn}</td>"


def _sorted(value: float | None, text: str) -> str:
    return f"<td data-v='{'' if value is None else value}'>{_text(text)}</td>"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _text(text: object) -> str:
    return html.escape(plain(str(text)), quote=True)
