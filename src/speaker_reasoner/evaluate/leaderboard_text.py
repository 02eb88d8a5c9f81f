"""A leaderboard in words and as Markdown: what its page says, without colours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .leaderboard import COMPARED, METRICS
from .published import Group, groups
from .tables import TABLES

NAMES = {
    "cpwer": "cpWER",
    "wer": "WER",
    "tcpwer": "tcpWER (5 s)",
    "der_0": "DER",
    "der_025": "DER (collar 0.25 s)",
}
"""The label of each metric."""

NONE = "–"

_Row = Mapping[str, Any]


def percent(rate: float | None) -> str:
    return NONE if rate is None else f"{100 * rate:.1f} %"


def points(difference: float) -> str:
    """A difference of rates in points, with a sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def shown(metrics: Sequence[str], rows: Sequence[_Row]) -> list[str]:
    """The metrics that some row has, in order."""
    return [name for name in metrics if any(name in row["metrics"] for row in rows)]


def bounds(metric: Mapping[str, Any], recordings: int) -> str:
    """The interval of a rate, or why there is none; and of how many recordings, if not of all."""
    some = f" ({metric['recordings']} of {recordings})" * (metric["recordings"] < recordings)
    if metric["interval"] is None:
        return f"one recording{some}"
    low, high = metric["interval"]
    return f"{100 * low:.1f}–{100 * high:.1f}{some}"


def speed(row: _Row) -> str:
    return NONE if row["speed"] is None else f"{row['speed']:.1f} ×"


def failures(row: _Row) -> str:
    """How many recordings failed, and of what kinds."""
    kinds = [str(one.get("reason") or "failed") for one in row["failures"]]
    if not kinds:
        return "0"
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return f"{len(kinds)} ({counted})"


def asked(row: _Row) -> str:
    """What a system was asked and used, as far as its answers say."""
    names = {"requests": "requests", "input_tokens": "tokens in", "output_tokens": "tokens out"}
    known = [
        f"{row['usage'][key]:,.0f} {name}" for key, name in names.items() if key in row["usage"]
    ]
    return ", ".join(known) or NONE


def about(board: Mapping[str, Any]) -> str:
    """What a board's rows have in common, in one sentence."""
    scoring = board["scoring"]
    steps = scoring["normalisation"] or {}
    on = ", ".join(name for name, value in steps.items() if value is True) or "none"
    hours, minutes = divmod(round(board["duration_s"] / 60), 60)
    length = f"{hours} h {minutes} min" if hours else f"{board['duration_s'] / 60:.1f} min"
    units = board["units"]
    count = f"{board['recordings']} recording{'s' * (board['recordings'] != 1)}"
    if units != board["recordings"]:
        count += f" in {units} pieces"
    rules = f" by the rules of {scoring['as']}," if scoring["as"] else ""
    uem = f" within {scoring['uem']}," if scoring["uem"] else ""
    return (
        f"Unit: {board['unit']}. {count}, {length}. Scored{rules}{uem} with text normalisation {on} "
        f"(language {steps.get('language', 'not recorded')}); DER without a collar unless the column says so."
    )


def title(board: Mapping[str, Any]) -> str:
    return f"{board['data']}, {board['unit']}"


def verdict(row: Mapping[str, Any], flipped: bool = False) -> str:
    """What a comparison says, for the system that comes first."""
    if row["verdict"] in ("a", "b"):
        return "better" if (row["verdict"] == "a") != flipped else "worse"
    return str(row["verdict"])


def published_for(data: str) -> list[tuple[str, Group]]:
    """Published figures of a data set: the table's name and the group, reduced to that set."""
    found = []
    for table in TABLES:
        for group in groups(table):
            rows = {
                system: {
                    name: of for name, of in by_set.items() if name.casefold() == data.casefold()
                }
                for system, by_set in group.rows.items()
            }
            rows = {system: of for system, of in rows.items() if of}
            if rows:
                found.append((table, Group(group.source, group.unit, rows)))
    return found


def markdown(board: Mapping[str, Any]) -> str:
    """Return the leaderboard as Markdown."""
    return "\n".join(_lines(board)) + "\n"


def _lines(whole: Mapping[str, Any]) -> Iterator[str]:
    made = whole["made"]
    yield "# Leaderboard"
    yield ""
    yield f"Made on {made['date']} by speaker-reasoner {made['version']}. Lower is better; in brackets 95 % intervals."
    for board in whole["boards"]:
        yield from _board(board)
    yield ""
    yield "## How this was measured"
    yield ""
    for text in whole["method"].values():
        yield f"- {_escape(text)}"
    yield ""
    yield from _table(
        ["system", "data", "date", "version", "result"],
        [
            [one["system"], one["data"], one["date"], one["version"], one["sha256"][:12]]
            for one in whole["results"]
        ],
    )


def _board(board: Mapping[str, Any]) -> Iterator[str]:
    rows = board["rows"]
    metrics = shown(METRICS, rows)
    yield ""
    yield f"## {_escape(title(board))}"
    yield ""
    yield _escape(about(board))
    yield ""
    yield from _table(
        [
            "system",
            *(NAMES[m] for m in metrics),
            "right number of speakers",
            "failures",
            "speed",
            "asked",
        ],
        [
            [
                row["system"],
                *(
                    f"{percent(of['rate'])} [{bounds(of, board['recordings'])}]"
                    if (of := row["metrics"].get(m))
                    else NONE
                    for m in metrics
                ),
                percent(row["speaker_count"]),
                failures(row),
                speed(row),
                asked(row),
            ]
            for row in rows
        ],
    )
    for row in rows:
        for note in row["notes"]:
            yield ""
            yield _escape(f"{row['system']}: {note}")
    if len(rows) < 2:
        return
    for metric in (m for m in COMPARED if m in metrics):
        yield ""
        yield f"{NAMES[metric]}, row minus column in points (95 % interval):"
        yield ""
        names = [row["system"] for row in rows]
        by_pair = {(one["a"], one["b"]): one for one in board["comparisons"][metric]}
        yield from _table(
            ["", *names],
            [[a, *(_cell(a, b, by_pair) for b in names)] for a in names],
        )


def _cell(a: str, b: str, by_pair: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    if a == b:
        return ""
    flipped = (a, b) not in by_pair
    row = by_pair[(b, a) if flipped else (a, b)]
    if not row.get("found"):
        return str(row["verdict"])
    difference, low, high = oriented(row, flipped)
    return f"{points(difference)} [{points(low)}, {points(high)}]: {verdict(row, flipped)}"


def oriented(row: Mapping[str, Any], flipped: bool) -> tuple[float, float, float]:
    """Difference and interval of a comparison, for the system that comes first."""
    found = row["found"]
    difference, (low, high) = found["difference"], found["interval"]
    return (-difference, -high, -low) if flipped else (difference, low, high)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(_escape(cell) for cell in head) + " |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(_escape(str(cell)) for cell in row) + " |"


def _escape(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join("\\" + c if c in "|<>`*_" else c for c in plain)
