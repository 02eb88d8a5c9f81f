"""The journal of a recording: finished chunks on disk, which survive a kill at any moment.

One JSON object a line: first the recording, model and settings, then each finished chunk, with its channel
where channels are transcribed separately; where it holds the whole of a recording that was divided, in the
end what the reader noticed in the file. If a kill cut the last line off, that line is dropped. Chunks of a
recording that was divided may be in any order, and some may be missing between others.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AudioError, FormatError, OutputError
from ..formats import as_json, write_text_atomically
from ..voices.finished import FinishedChunk
from .chunks import Chunk

NOTICES = "notices"
"""Key of the last row of a journal that holds all of its recording."""
_VERSION = 3
_PROBE_BYTES = 1 << 20


def fingerprint(path: Path) -> dict[str, Any]:
    """Identify a version of a file: size, time of change, and a hash of its first and last MiB.

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


def stopwatch() -> Callable[[], float]:
    """A function that returns the seconds since its last call, at first since it was made."""
    last_s = time.monotonic()

    def lap() -> float:
        nonlocal last_s
        before_s, last_s = last_s, time.monotonic()
        return last_s - before_s

    return lap


class Tally:
    """Counts the samples of the chunks in a journal of one channel that another process writes.

    Args:
        path: of the journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._at = self._samples = 0

    def look(self) -> int:
        """Read what is new, and return the count; where that fails, as on a deleted journal, the last one."""
        try:
            with self._path.open("rb") as file:
                if (number := os.fstat(file.fileno()).st_ino) != self._file:
                    self._file, self._at, self._samples = number, 0, 0
                file.seek(self._at)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._samples += int(json.loads(line).get("samples", 0))
                    self._at += len(line)
        except (OSError, ValueError, TypeError, AttributeError):
            pass
        return self._samples


class OtherJournal(OutputError):
    """The file is no journal, or is about another recording, model, version or settings.

    Attributes:
        differs: the first key whose value differs; empty for a file that cannot be read.
    """

    def __init__(self, message: str, differs: str = "") -> None:
        super().__init__(message)
        self.differs = differs


class Journal:
    """Finished chunks of one recording on disk.

    Args:
        path: of the journal; made with the first chunk.
        about: recording, model and settings (JSON-ready); a journal about anything else is refused.
        lap: returns the seconds since its last call that count for this recording, where several share a
            machine; by default all.

    Attributes:
        elapsed_s: from opening to the last chunk, over all runs.
        share_s: the sum of laps, over all runs.
        notices: warnings of the reader of the file, of a journal that holds all of it; else `None`.

    Raises:
        OtherJournal: the file is no journal, or is about another recording, model, version or
            settings.
        OutputError: it cannot be read.
    """

    def __init__(
        self, path: Path, about: Mapping[str, Any], lap: Callable[[], float] | None = None
    ) -> None:
        self.path = path
        self.elapsed_s = self.share_s = 0.0
        self.notices: list[str] | None = None
        self._lap = lap or stopwatch()
        self.about = {"journal": _VERSION, **json.loads(json.dumps(about))}
        self._kept: dict[int | None, list[FinishedChunk]] = {}
        data = self._load()
        self._begun = data is not None
        if data is not None:
            self._read(data)
        self._opened_s = time.monotonic() - self.elapsed_s

    def chunks(self) -> list[Chunk]:
        """The stored chunks, in order, without their sound."""
        return [
            Chunk(one.start_samples, np.broadcast_to(np.float32(0), (one.samples,)))
            for one in self._kept.get(None, ())
        ]

    def channel(self, number: int) -> "ChannelJournal":
        """The chunks of one channel."""
        return ChannelJournal(self, number)

    def next(self, chunk: Chunk, channel: int | None = None) -> FinishedChunk | None:
        """The stored chunk of a channel with these bounds; `None` where all were taken, or only later ones are left.

        Raises:
            OutputError: the stored chunk has other bounds than this one.
        """
        kept = self._kept.get(channel)
        if not kept or kept[0].start_samples >= chunk.start_samples + len(chunk.samples):
            return None
        finished = kept.pop(0)
        place = (chunk.start_samples, len(chunk.samples))
        if (finished.start_samples, finished.samples) != place:
            raise OutputError(
                f"{self.path}: expected a chunk of {place[1]} samples at {place[0]}, got "
                f"{finished.samples} at {finished.start_samples}: the recording was cut otherwise; delete "
                "the journal to start again"
            )
        return finished

    def add(self, finished: FinishedChunk, channel: int | None = None) -> None:
        """Append a chunk; one that is written in part is dropped when it is read.

        Raises:
            OutputError: it cannot be written.
        """
        self.elapsed_s = round(time.monotonic() - self._opened_s, 3)
        self.share_s = round(self.share_s + self._lap(), 3)
        rows = [] if self._begun else [self.about]
        place = {} if channel is None else {"channel": channel}
        times = {"elapsed_s": self.elapsed_s, "share_s": self.share_s}
        rows.append({**finished.to_json(), **place, **times})
        self._append("".join(as_json(row) + "\n" for row in rows))
        self._begun = True

    def _append(self, text: str) -> None:
        """Write whole lines, so that they outlive the process."""
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

    @classmethod
    def anew(
        cls, path: Path, about: Mapping[str, Any], lap: Callable[[], float] | None = None
    ) -> tuple["Journal", str | None]:
        """Open a `Journal`; delete a journal about something else and begin a new one.

        Returns:
            The journal; and, if it was started again, the key in which the old one differs, else `None`.

        Raises:
            OutputError: it cannot be read or deleted.
        """
        try:
            return cls(path, about, lap), None
        except OtherJournal as error:
            path.unlink()
            return cls(path, about, lap), error.differs or "journal, which cannot be read"

    def remove(self) -> None:
        """Delete the journal of a recording that is done."""
        self.path.unlink(missing_ok=True)

    def finish(self, path: Path, notices: Sequence[str] | None = None) -> None:
        """Move the journal to where it counts as whole, also one without a chunk.

        Args:
            notices: warnings of the reader, where the file was read to its end.

        Raises:
            OutputError: it cannot be written.
        """
        if not self._begun:
            write_text_atomically(self.path, as_json(self.about) + "\n")
        if notices is not None:
            self._append(as_json({NOTICES: list(notices)}) + "\n")
        self.path.replace(path)

    def _load(self) -> bytes | None:
        """Read the journal, whose last line may be incomplete; `None` if there is no journal."""
        if not self.path.exists():
            return None
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot read the journal: {error.strerror}") from error

    def _cut(self, size: int) -> None:
        """Drop the bytes behind the whole lines."""
        os.truncate(self.path, size)

    def _read(self, data: bytes) -> None:
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.decode("utf-8", errors="replace").split("\n")[:-1]  # no other ends of lines
        if not lines:
            self._begun = False
            self._cut(0)
            return
        try:
            about = json.loads(lines[0])
            if about.get("journal") != _VERSION:
                raise ValueError("not a journal of this version")
            for line in lines[1:]:
                row = json.loads(line)
                if NOTICES in row:
                    self.notices = [str(one) for one in row[NOTICES]]
                    continue
                self.elapsed_s, self.share_s = (
                    float(row.pop("elapsed_s")),
                    float(row.pop("share_s")),
                )
                kept = self._kept.setdefault(row.pop("channel", None), [])
                kept.append(FinishedChunk.from_json(row))
        except (FormatError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise OtherJournal(
                f"{self.path}: no journal that can be read ({error}); delete it to start again"
            ) from error
        for chunks in self._kept.values():  # those of missing shares are added last
            chunks.sort(key=lambda one: one.start_samples)
        for key in sorted({*about, *self.about}):
            if about.get(key) != self.about.get(key):
                raise OtherJournal(
                    f"{self.path}: this journal is about another {key}: got {about.get(key)!r}, "
                    f"expected {self.about.get(key)!r}; delete it to start again",
                    key,
                )
        if len(whole) < len(data):
            self._cut(len(whole))


class ChannelJournal:
    """The chunks of one channel in the journal of its recording; see `Journal`."""

    def __init__(self, journal: Journal, number: int) -> None:
        self._journal = journal
        self._number = number

    @property
    def elapsed_s(self) -> float:
        return self._journal.elapsed_s

    def next(self, chunk: Chunk) -> FinishedChunk | None:
        return self._journal.next(chunk, self._number)

    def add(self, finished: FinishedChunk) -> None:
        self._journal.add(finished, self._number)


class ShareJournal:
    """The journal of one share of a recording: chunks before the share are passed over.

    Args:
        journal: of the chunks of the share.
        first_samples: where the share starts; see `shares.Share`.
    """

    def __init__(self, journal: Journal, first_samples: int) -> None:
        self._journal = journal
        self._first_samples = first_samples

    @property
    def elapsed_s(self) -> float:
        return self._journal.elapsed_s

    def next(self, chunk: Chunk) -> FinishedChunk | None:
        if chunk.start_samples < self._first_samples:
            return FinishedChunk(chunk.start_samples, len(chunk.samples))
        return self._journal.next(chunk)

    def add(self, finished: FinishedChunk) -> None:
        self._journal.add(finished)
