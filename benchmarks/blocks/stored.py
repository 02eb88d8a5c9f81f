"""Stored results, read and rendered as Markdown."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f} %"


def rate(scores: dict[str, Any], name: str) -> float | None:
    value: float | None = (scores.get(name) or {}).get("rate")
    return value


def table(head: str, rows: list[list[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    names = head.split("|")
    lines = [
        "| " + " | ".join(name.strip() for name in names) + " |",
        "|---|" + "--:|" * (len(names) - 1),
    ]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
