"""The folder of a run: kept answers, and the transcript files made from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..formats import FORMATS, file_name, write, write_text_atomically
from ..formats.files import set_aside
from ..longform.marker import file_hash
from ..transcript import Transcript
from .base import text_hash

ANSWERS, FAILURES, WRITTEN = "answers", "failures.jsonl", "written.json"
VERSION = 1
"""Version of the format of an answer's file."""


def kept_answer(path: Path | None, about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer to a question, where it is kept; an answer to another one is none.

    Args:
        path: of its file.
        about: the question, JSON-ready.
    """
    if path is None:
        return None
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = row["answer"] == VERSION and all(row[key] == about[key] for key in about)
        return row if same and {"raw", "model", "prompt", "usage", "asked"} <= set(row) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_files(
    folder: Path | None, recording: str, formats: Sequence[str], transcript: Transcript | None
) -> tuple[tuple[Path, ...], str]:
    """Write a transcript's files, or remove them where there is no transcript any more (`None`).

    Files that were changed by hand are renamed first.

    Returns:
        Their paths, and a remark.

    Raises:
        FormatError: a format cannot express the transcript.
        OutputError: a file cannot be written.
    """
    if folder is None:
        return (), ""
    stem = file_name(recording)
    record = folder / ANSWERS / stem / WRITTEN
    known, spared = _written_before(record), []
    for name in formats:
        path = folder / f"{stem}{FORMATS[name].suffix}"
        there = file_hash(path)
        if there is None:
            continue
        if there == known.get(path.name):
            if transcript is None:
                path.unlink()
        elif transcript is None or there != text_hash(FORMATS[name].render(transcript)):
            spared.append(set_aside(path, FORMATS[name].suffix).name)
    files = [] if transcript is None else write(transcript, folder, formats)
    hashes = {**known, **{path.name: file_hash(path) for path in files}}
    if hashes != known:
        write_text_atomically(record, json.dumps(hashes, indent=1, sort_keys=True) + "\n")
    note = f"not made by this command, kept as {', '.join(spared)}" if spared else ""
    return tuple(files), note


def _written_before(path: Path) -> dict[str, str | None]:
    """SHA-256 of each file as this command wrote it, by name."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
