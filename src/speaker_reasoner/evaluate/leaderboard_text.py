"""A leaderboard in words and as Markdown: the content of its page, without colours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .leaderboard import COMPARED, METRICS
from .stored import LABELS
from .table_styles import NONE, escape_markdown, markdown_row

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
    """Return the number of failed recordings, by reason."""
    kinds = [str(one.get("reason") or "failed") for one in row["failures"]]
    if not kinds:
        return "0"
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return f"{len(kinds)} ({counted})"


def asked(row: _Row) -> str:
    """Return requests and tokens of a system in words, from the usage that its answers state."""
    names = {"requests": "requests", "input_tokens": "tokens in", "output_tokens": "tokens out"}
    known = [
        f"{row['usage'][key]:,.0f} {name}" for key, name in names.items() if key in row["usage"]
    ]
    return ", ".join(known) or NONE


def about(board: Mapping[str, Any]) -> str:
    """Describe the data and scoring that a board's rows share, in one sentence."""
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
    """Return the verdict of a comparison for its first system; for the second if `flipped`."""
    if row["verdict"] in ("a", "b"):
        return "better" if (row["verdict"] == "a") != flipped else "worse"
    return str(row["verdict"])


def by_pair(comparisons: Sequence[_Row]) -> dict[tuple[str, str], tuple[_Row, bool]]:
    """Comparisons by their two systems in either order, and whether that order is the other one."""
    return {
        names: (row, flipped)
        for row in comparisons
        for names, flipped in (((row["a"], row["b"]), False), ((row["b"], row["a"]), True))
    }


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
        yield f"- {escape_markdown(text)}"
    yield ""
    yield from _table(
        ["system", "data", "date", "version", "result"],
        [
            [escape_markdown(str(one[key])) for key in ("system", "data", "date", "version")]
            + [one["sha256"][:12]]
            for one in whole["results"]
        ],
    )


def _board(board: Mapping[str, Any]) -> Iterator[str]:
    rows = board["rows"]
    metrics = shown(METRICS, rows)
    yield ""
    yield f"## {escape_markdown(title(board))}"
    yield ""
    yield escape_markdown(about(board))
    yield ""
    yield from _table(
        [
            "system",
            *(LABELS[m] for m in metrics),
            "right number of speakers",
            "failures",
            "speed",
            "asked",
        ],
        [
            [
                escape_markdown(row["system"]),
                *(
                    f"{percent(of['rate'])} [{bounds(of, board['recordings'])}]"
                    if (of := row["metrics"].get(m))
                    else NONE
                    for m in metrics
                ),
                percent(row["speaker_count"]),
                escape_markdown(failures(row)),
                speed(row),
                asked(row),
            ]
            for row in rows
        ],
    )
    for row in rows:
        for note in row["notes"]:
            yield ""
            yield escape_markdown(f"{row['system']}: {note}")
    if len(rows) < 2:
        return
    for metric in (m for m in COMPARED if m in metrics):
        yield ""
        yield f"{LABELS[metric]}, row minus column in points (95 % interval):"
        yield ""
        names = [row["system"] for row in rows]
        pairs = by_pair(board["comparisons"][metric])
        shown_as = {name: escape_markdown(name) for name in names}
        yield from _table(
            ["", *shown_as.values()],
            [[shown_as[a], *(_cell(a, b, pairs) for b in names)] for a in names],
        )


def _cell(a: str, b: str, pairs: Mapping[tuple[str, str], tuple[_Row, bool]]) -> str:
    if a == b:
        return ""
    row, flipped = pairs[a, b]
    if not row.get("compared"):
        return str(row["verdict"])
    difference, low, high = oriented(row, flipped)
    return f"{points(difference)} [{points(low)}, {points(high)}]: {verdict(row, flipped)}"


def oriented(row: Mapping[str, Any], flipped: bool) -> tuple[float, float, float]:
    """Difference and interval of a comparison, for the system that comes first."""
    difference, (low, high) = row["compared"]["difference"], row["compared"]["interval"]
    return (-difference, -high, -low) if flipped else (difference, low, high)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table of cells that are Markdown."""
    yield markdown_row(head)
    yield "|---|" + "---:|" * (len(head) - 1)
    yield from map(markdown_row, rows)
