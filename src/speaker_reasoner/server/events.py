"""The events of a job: a log that outlives the server, and readers that follow it."""

import errno
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import OutputError
from .failures import RequestError

EVENTS = "events.jsonl"
ANEW = "anew"
"""The event after which earlier ones are void: the recording is transcribed from its beginning once more."""
Unnumbered = tuple[str, Mapping[str, Any]]
"""Name and data of an event that has no number yet."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a job: its number from 1, its name, its data."""

    number: int
    name: str
    data: dict[str, Any]


class EventLog:
    """The events of a job, one JSON line each, kept as long as the job.

    A line that a crash or a full disk cut off is removed when the log is next written to.

    Args:
        path: of the file; made with the first event.
        again: events that are in the log already, behind the last `ANEW`, are not added a second time: a run that
            continues after a restart repeats the turns of an unfinished chunk.
    """

    def __init__(self, path: Path, *, again: bool = False) -> None:
        self._path = path
        self._again = again
        self._there: frozenset[bytes] = frozenset()
        self._file: IO[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def append(self, name: str, data: Mapping[str, Any]) -> None:
        """Add an event, which readers see at once; nothing is added to a closed log.

        Raises:
            OutputError: the log cannot be written, as on a full disk.
        """
        row = json.dumps({"event": name, "data": data}, ensure_ascii=False).encode()
        with self._lock:
            if self._closed:
                return
            try:
                if self._file is None:
                    self._file = self._path.open("ab", buffering=0)
                    known = self._path.read_bytes()
                    self._file.truncate(known.rfind(b"\n") + 1)
                    if self._again:
                        rows = known.split(b"\n")[:-1]
                        begun = max((n for n, one in enumerate(rows) if one == _ANEW), default=-1)
                        self._there = frozenset(rows[begun + 1 :])
                if row in self._there:
                    return
                if self._file.write(row + b"\n") <= len(row):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                self._let_go()
                raise OutputError(
                    f"cannot store an event: {error.strerror or type(error).__name__}; free some "
                    "space in the server's --store"
                ) from error

    def close(self) -> None:
        """Let no further event be added; from any thread."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


_ANEW = json.dumps({"event": ANEW, "data": {}}).encode()


class EventReader:
    """Reads a log that still grows.

    Args:
        path: of the log.
        after: number of the last event that is not read again.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        self._path = path
        self._after = after
        self._number = self._at = 0

    def new(self) -> Iterator[Event]:
        """The events that were added since the last call.

        Raises:
            RequestError: 500, a line is damaged.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._at += len(line)
                self._number += 1
                if self._number > self._after:
                    yield self._event(line)

    def _event(self, line: bytes) -> Event:
        try:
            row = json.loads(line)
            return Event(self._number, row["event"], dict(row["data"]))
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(self._number, error) from error


def parse_event(number: int, name: str, data: str) -> Event:
    """Parse an event of the log.

    Raises:
        RequestError: 500, it is damaged.
    """
    try:
        return Event(number, name, dict(json.loads(data)))
    except (ValueError, TypeError) as error:
        raise _damaged(number, error) from error


def _damaged(number: int, error: Exception) -> RequestError:
    return RequestError(500, f"event {number} of this job is damaged: {error}", code="job_damaged")
