"""The marker of a finished recording: the source of its transcript, and its files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..formats import as_json, write_text_atomically

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Marker:
    """The marker of a finished recording.

    Attributes:
        about: recording, model, version and settings; see `Transcriber.about`.
        files: SHA-256 of each, by name.
        measured: audio_s, wall_s (its share of the machine, over all lives), turns, tokens, stage_s.
        path: where the recording was; `None` if an earlier version wrote the marker.
    """

    about: Mapping[str, Any]
    files: Mapping[str, str | None]
    measured: Mapping[str, Any]
    path: str | None = None

    def write(self, path: Path) -> None:
        """Write it to a file, whole or not at all; raises `OutputError` where it cannot be written."""
        row = asdict(self)
        order = ("about", "files", "path", "measured")
        text = as_json({"marker": _VERSION} | {k: row[k] for k in order})
        write_text_atomically(path, text + "\n")

    @classmethod
    def read(cls, path: Path) -> "Marker | None":
        """The marker in a file; `None` where there is none that can be read."""
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            if row["marker"] != _VERSION:
                return None
            files, measured = dict(row["files"]), dict(row["measured"])
            return cls(dict(row["about"]), files, measured, row.get("path"))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file; `None` where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
