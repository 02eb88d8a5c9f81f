"""The target of a run: a folder, or a place in a bucket with a folder here that it is written through.

    TARGET/transcripts/          files of each recording; .speaker-reasoner in it: listing, journals, markers, failures
    TARGET/transcripts.jsonl     and the other tables, made of these in the order of the source

A failure is a file beside the markers. It is overwritten by the next attempt, and removed when that succeeds.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from platformdirs import user_cache_path

from ..errors import DataError, OutputError, SettingsError
from ..formats import as_json, file_name, write_text_atomically
from ..formats.files import remove_temporary
from ..locks import lock
from ..longform.batch import STATE
from ..longform.marker import Marker
from .buckets import Bucket, is_bucket
from .listing import Listing, Shard, write_listing
from .rows import Row

_WORKERS_WAIT_S = 60.0
"""Seconds that a new run waits for the workers of one that was killed, which end by themselves (assumed)."""


@dataclass(frozen=True, slots=True)
class RowFailure:
    """The error, by class and message, that left a recording without a whole transcript."""

    kind: str
    message: str


class Target:
    """The place that a run writes to.

    Args:
        where: a folder, or an address in a bucket.
        work: the folder for a bucket; in the user's cache by default.
    """

    def __init__(self, where: str, work: Path | None = None) -> None:
        self.where = where
        self.bucket = Bucket(where) if is_bucket(where) else None
        if self.bucket is None:
            self.folder = Path(where)
        elif work is not None:
            self.folder = work
        else:
            name = hashlib.sha256(where.encode()).hexdigest()[:16]
            self.folder = user_cache_path("speaker-reasoner") / "batch" / name
        self.transcripts = self.folder / "transcripts"
        self.state = self.transcripts / STATE

    @property
    def listing(self) -> Listing:
        """The listing of the source.

        Raises:
            SettingsError: no run was begun here.
        """
        if not self._listing.exists():
            raise SettingsError(f"{self.where}: no run of `batch` was begun here; check the path")
        return Listing(self._listing)

    @property
    def _listing(self) -> Path:
        return self.state / "listing.jsonl"

    def done(self, row: Row) -> bool:
        """Return whether the recording's transcript is whole, and no later attempt failed."""
        if row.fault or self.file(row, "failed").exists():
            return False
        return self.file(row, "done").exists()

    def marker(self, row: Row) -> Marker | None:
        return Marker.read(self.file(row, "done"))

    def transcript(self, row: Row) -> Path:
        """The JSON of a recording that is done."""
        return self.transcripts / f"{file_name(row.name)}.json"

    def failure(self, row: Row) -> RowFailure | None:
        """The error of the last attempt at a recording; `None` if none failed or none was made."""
        if row.fault:
            return RowFailure("DataError", row.fault)
        try:
            data = json.loads(self.file(row, "failed").read_text(encoding="utf-8"))
            return RowFailure(str(data["kind"]), str(data["message"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def failed(self, row: Row, failure: RowFailure) -> None:
        """Keep a failure; raises `OutputError` where it cannot be written."""
        text = as_json({"kind": failure.kind, "message": failure.message})
        path = self.file(row, "failed")
        write_text_atomically(path, text + "\n")
        self._send(path)

    def succeeded(self, row: Row, files: Sequence[Path]) -> None:
        """A recording is done: send its files, then its marker, and forget its failure."""
        failure = self.file(row, "failed")
        if self.bucket is not None:
            for path in files:
                self._send(path)
            self._send(self.file(row, "done"))
            self.bucket.remove(self._name(failure))
        failure.unlink(missing_ok=True)

    def fetch(self, rows: Sequence[Row]) -> None:
        """Bring the results of other machines for these recordings from the bucket."""
        if self.bucket is None:
            return
        there = self.bucket.names(self._name(self.state))
        for row in rows:
            for suffix in ("failed", "done"):
                path = self.file(row, suffix)
                if row.fault or path.name not in there or path.exists():
                    continue
                self.bucket.fetch(self._name(path), path)
                marker = self.marker(row) if suffix == "done" else None
                for name in marker.files if marker is not None else ():
                    here = self.transcripts / name
                    if not here.exists():
                        with suppress(DataError):  # it is made again
                            self.bucket.fetch(self._name(here), here)

    def fetch_listing(self) -> None:
        """Bring the listing from the bucket, where there is one; one process of a machine at a time."""
        if self.bucket is None:
            return
        self.state.mkdir(parents=True, exist_ok=True)
        with FileLock(self._listing.with_suffix(".lock"), thread_local=False):
            if self._listing.name in self.bucket.names(self._name(self.state)):
                self.bucket.fetch(self._name(self._listing), self._listing)

    def send_table(self, path: Path) -> None:
        """Send a file of the target, or all files of a folder, whose earlier files are removed."""
        if self.bucket is None:
            return
        if path.is_file():
            self._send(path)
            return
        files = sorted(path.iterdir())
        for name in self.bucket.names(self._name(path)) - {file.name for file in files}:
            self.bucket.remove(f"{self._name(path)}/{name}")
        for file in files:
            self._send(file)

    @contextmanager
    def admitted(self, source: str, shard: Shard) -> Iterator[tuple[Listing, str]]:
        """Keep others out of a shard while this process transcribes it.

        Yields:
            The listing, and a remark where it changed since the last run.

        Raises:
            OutputError: another process has the shard, or the target is divided otherwise by a process that
                still runs; the folder cannot be written to.
            SettingsError: the source has other recordings, and other processes still work by its old listing.
        """
        with ExitStack() as stack:
            try:
                self.locks.mkdir(parents=True, exist_ok=True)
                with FileLock(self.locks / "admission", thread_local=False):
                    stack.callback(self._take(shard).release)
                    others = self._others(shard)
                    listing, note = self._list(source, bool(others))
                    if not others:
                        remove_temporary(self.transcripts)
                        remove_temporary(self.state)
            except OSError as error:
                raise OutputError(
                    f"cannot write {self.folder}: {error.strerror or error}; choose a directory that can be "
                    "written to"
                ) from error
            yield listing, note

    @property
    def locks(self) -> Path:
        return self.state / "locks"

    def worker_lock(self, shard: Shard, name: str) -> BaseFileLock:
        """Show that a worker of a shard lives, until its process ends or it is released."""
        self.locks.mkdir(parents=True, exist_ok=True)
        held = FileLock(
            self.locks / f"worker-{shard.number}-of-{shard.count}-{name}", thread_local=False
        )
        held.acquire()
        return held

    def _take(self, shard: Shard) -> BaseFileLock:
        held = lock(self.locks / f"shard-{shard.number}-of-{shard.count}")
        if held is None:
            which = "" if shard.count == 1 else f"shard {shard} of "
            raise OutputError(
                f"{self.where}: another process transcribes {which}it already; wait for it, or choose another "
                "shard or target"
            )
        return held

    def _others(self, shard: Shard) -> list[str]:
        """The locks of other processes; those of other divisions are an error."""
        own, division = f"shard-{shard.number}-of-{shard.count}", f"-of-{shard.count}"
        mine = f"worker-{shard.number}-of-{shard.count}-"
        held = []
        for path in sorted(self.locks.iterdir()):
            if path.name in (own, "admission"):
                continue
            worker = path.name.startswith("worker-") and not path.name.startswith(mine)
            if worker and f"{division}-" in path.name:
                continue  # the lock of its shard counts
            try:
                waits_s = _WORKERS_WAIT_S if path.name.startswith(mine) else 0.0
                with FileLock(path, timeout=waits_s, thread_local=False):
                    if path.name.startswith(mine):
                        path.unlink()
            except Timeout:
                held.append(path.name)
                if path.name.startswith(mine) or f"{division}-" not in f"{path.name}-":
                    raise OutputError(
                        f"{self.where}: another process works on {path.name}; wait for it before you "
                        f"transcribe shard {shard}"
                    ) from None
        return held

    def _list(self, source: str, others: bool) -> tuple[Listing, str]:
        """Make the listing; where it is another than before, it takes its place if nobody works by it."""
        self.fetch_listing()
        new = self._listing.with_suffix(".new")
        try:
            write_listing(source, new, self._listing)
            existed = self._listing.exists()
            if existed and _digest(new) == _digest(self._listing):
                return self.listing, ""
            if existed and others:
                if not _has_more(new, self._listing):
                    note = (
                        "files of the source have changed, or are gone, since other processes began"
                    )
                    return self.listing, note
                raise SettingsError(
                    f"{source}: has changed since other processes began to transcribe it into {self.where}; "
                    "wait for them, or let this one have the source as it was"
                )
            new.replace(self._listing)
        finally:
            new.unlink(missing_ok=True)
        self._send(self._listing)
        return self.listing, "the source has changed since the last run" if existed else ""

    def file(self, row: Row, suffix: str) -> Path:
        """A file of a recording's state: its `journal`, `done`, `failed`, ..."""
        return self.state / f"{file_name(row.name)}.{suffix}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _send(self, path: Path) -> None:
        if self.bucket is not None:
            self.bucket.send(path, self._name(path))


def _has_more(new: Path, old: Path) -> bool:
    """Return whether a listing has recordings that another one has not; how files look is no difference.

    A file is looked at when it is transcribed; what is listed of it only balances shards.
    """

    def keys(path: Path) -> Iterator[int]:
        for row in Listing(path):
            length_s = row.duration_s if row.stretch else None
            version = (row.size, row.version) if is_bucket(row.path) else None
            yield hash((row.path, row.name, row.start_s, length_s, row.channel, version, row.fault))

    known = set(keys(old))
    return any(key not in known for key in keys(new))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Standing:
    """Progress of a shard: numbers of recordings, seconds of those that are done, and of all.

    Attributes:
        faults: number of failures by class of error.
    """

    recordings: int
    done: int
    failed: int
    done_s: float
    all_s: float
    faults: dict[str, int]

    @property
    def outstanding(self) -> int:
        return self.recordings - self.done - self.failed

    def to_json(self) -> dict[str, Any]:
        return {
            "recordings": self.recordings,
            "done": self.done,
            "failed": self.failed,
            "outstanding": self.outstanding,
            "done_s": round(self.done_s, 3),
            "all_s": round(self.all_s, 3),
            "faults": self.faults,
        }


def standing(target: Target, shard: Shard = Shard()) -> Standing:  # noqa: B008 - it is frozen
    """Return how far a target is, or one shard of it."""
    rows = done = failed = 0
    done_s = all_s = 0.0
    faults: Counter[str] = Counter()
    for row in target.listing.shard(shard):
        rows, all_s = rows + 1, all_s + row.weight_s
        if target.done(row):
            done, done_s = done + 1, done_s + row.weight_s
        elif (failure := target.failure(row)) is not None:
            failed += 1
            faults[failure.kind] += 1
    return Standing(rows, done, failed, done_s, all_s, dict(sorted(faults.items())))


def report(target: Target, shard: Shard, wall_s: float, audio_s: float) -> dict[str, Any]:
    """Return the report of a run as JSON: progress of the shard, audio transcribed by this call and its time."""
    return {
        "shard": str(shard),
        **standing(target, shard).to_json(),
        "wall_s": round(wall_s, 3),
        "audio_s": round(audio_s, 3),
        "times_real_time": round(audio_s / wall_s, 3) if wall_s else None,
    }
