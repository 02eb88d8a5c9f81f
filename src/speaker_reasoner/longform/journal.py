"""A journal beside the output: what was finished survives a kill at any moment.

One JSON object a line: first what is being transcribed and how, then each finished chunk. A line
that was cut off by the kill is dropped; everything before it is used again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import AudioError, FormatError, OutputError
from ..voices.finished import FinishedChunk
from .chunks import Chunk

_VERSION = 2
_PROBE_BYTES = 1 << 20


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file from another, or from itself changed: size, time, and both ends' hash.

    Raises:
        AudioError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        stat = path.stat()
        with path.open("rb") as file:
            digest.update(file.read(_PROBE_BYTES))
            file.seek(max(0, stat.st_size - _PROBE_BYTES))
            digest.update(file.read(_PROBE_BYTES))
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror}") from error
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest.hexdigest()}


class Journal:
    """Finished chunks of one recording on disk.

    Args:
        path: of the journal; made with the first chunk.
        about: what is transcribed and how (JSON-ready); a journal about anything else is refused.

    Raises:
        OutputError: the file is no journal, or is about another recording, model, version or
            settings.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self._about = {"journal": _VERSION, **json.loads(json.dumps(about))}
        self._kept: list[FinishedChunk] = []
        self._begun = path.exists()
        if self._begun:
            self._read()

    @property
    def kept(self) -> int:
        """Chunks that were found and not taken yet."""
        return len(self._kept)

    def next(self, chunk: Chunk) -> FinishedChunk | None:
        """The next finished chunk that was found; `None` when all were taken.

        Raises:
            OutputError: the chunk lies elsewhere than the one that was found.
        """
        if not self._kept:
            return None
        found = self._kept.pop(0)
        place = (chunk.start_samples, len(chunk.samples))
        if (found.start_samples, found.samples) != place:
            raise OutputError(
                f"{self.path}: expected a chunk of {place[1]} samples at {place[0]}, got "
                f"{found.samples} at {found.start_samples}: the recording was cut otherwise; delete "
                "the journal to start again"
            )
        return found

    def add(self, finished: FinishedChunk) -> None:
        """Write a chunk, all of it or nothing that counts.

        Raises:
            OutputError: it cannot be written.
        """
        rows = [] if self._begun else [self._about]
        rows.append(finished.to_json())
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot write the journal: {error.strerror}; what it holds is kept: "
                "free some space and run the same command again"
            ) from error
        self._begun = True

    def remove(self) -> None:
        """Delete the journal of a recording that is done."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot read the journal: {error.strerror}") from error
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.decode("utf-8", errors="replace").splitlines()
        if not lines:
            self._begun = False
            self.path.write_bytes(b"")
            return
        try:
            about = json.loads(lines[0])
            if about.get("journal") != _VERSION:
                raise ValueError("not a journal of this version")
            self._kept = [FinishedChunk.from_json(json.loads(line)) for line in lines[1:]]
        except (FormatError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OutputError(
                f"{self.path}: no journal that can be read ({error}); delete it to start again"
            ) from error
        for key in sorted({*about, *self._about}):
            if about.get(key) != self._about.get(key):
                raise OutputError(
                    f"{self.path}: this journal is about another {key}: got {about.get(key)!r}, "
                    f"expected {self._about.get(key)!r}; delete it to start again"
                )
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
