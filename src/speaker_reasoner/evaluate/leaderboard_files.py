"""Leaderboards to and from files.

write(leaderboard(paths), Path("page.html"))            # or .json, .md
leaderboard(paths, before(Path("page.html")))           # computes only what is new
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..formats import as_json, legible, write_text_atomically
from .leaderboard import SCHEMA
from .leaderboard_page import page
from .leaderboard_text import markdown
from .standalone import data_of


def before(path: Path) -> dict[str, Any] | None:
    """Read the leaderboard that a page or a JSON file holds; `None` where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            text = data_of(text, "leaderboard") or "null"
        stored = json.loads(text)
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and stored.get("schema") == SCHEMA else None


def write(board: Mapping[str, Any], path: Path) -> None:
    """Write a leaderboard in the format of the file's name: `.html`, `.json` or `.md`.

    Raises:
        DataError: the name has another ending.
        OutputError: the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"{path}: {EXPECTED}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, legible(FORMATS[path.suffix](board)))


def _json(board: Mapping[str, Any]) -> str:
    return as_json(board, indent=1, allow_nan=False) + "\n"


FORMATS = {".html": page, ".json": _json, ".md": markdown}
"""How a leaderboard is written, by the ending of the file's name."""

EXPECTED = "expected a name that ends in .html, .json or .md"
"""Message for a name that ends in none of `FORMATS`."""
