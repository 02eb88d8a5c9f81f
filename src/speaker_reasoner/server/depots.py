"""Storage of the files of jobs that several servers share: a common folder, or a bucket.

Files of a bucket are fetched once into a folder of this process, and deleted there again when others need
the space, unless this process works on their job.
"""

import logging
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from ..bulk.buckets import Bucket
from ..errors import DataError, OutputError
from .failures import bucket_error, disk_error
from .jobs import Job

_CACHE_BYTES = 20 * 1024**3
"""Limit of the copies of a bucket's files (assumed)."""
_LOCKS = 64
_log = logging.getLogger(__name__)


class Depot(Protocol):
    """Files by job. All methods raise `StorageError` where it cannot be used now."""

    def put(self, job: Job, folder: Path) -> None:
        """Store all files of a folder, which is moved or left."""

    def local(self, job: Job) -> Path:
        """Return a folder of this machine with the files of a job."""

    def remove(self, job_id: str) -> None:
        """Delete the files of a job, if there are any."""

    def hold(self, jobs: Iterable[str]) -> None:
        """Keep the copies of these jobs, on which this process works, whatever their size; others may be deleted."""

    def copies(self) -> list[str]:
        """The jobs whose files were copied to this machine."""

    def forget(self, job_id: str) -> None:
        """Delete the copy of a job's files."""

    def probe(self, name: str) -> None:
        """Write a small file, and delete it again."""


class FolderDepot:
    """A folder that all servers see.

    Args:
        folder: one for each job is made in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, job: Job, folder: Path) -> None:
        try:
            folder.rename(self.local(job))
        except OSError as error:
            raise disk_error("keep the upload", error) from error

    def local(self, job: Job) -> Path:
        return self._folder / job.id

    def remove(self, job_id: str) -> None:
        try:
            shutil.rmtree(self._folder / job_id)
        except FileNotFoundError:
            return
        except OSError as error:
            raise disk_error("delete the recording", error) from error

    def hold(self, jobs: Iterable[str]) -> None:
        """Do nothing: there are no copies."""

    def copies(self) -> list[str]:
        return []

    def forget(self, job_id: str) -> None:
        """Do nothing: there are no copies."""

    def probe(self, name: str) -> None:
        """Do nothing: the store is probed as a whole."""


class BucketDepot:
    """A place in a bucket.

    Args:
        address: as `s3://bucket/prefix`.
        folder: of this process, for copies.
        cache_bytes: of copies that are kept; more, where the jobs under way need it.

    Raises:
        ExtraError, DataError: that kind of bucket cannot be used; see `Bucket`.
    """

    def __init__(self, address: str, folder: Path, cache_bytes: int = _CACHE_BYTES) -> None:
        self._bucket = Bucket(address)
        self._folder = folder
        self._most = cache_bytes
        self._held: frozenset[str] = frozenset()
        self._fetching = [threading.Lock() for _ in range(_LOCKS)]
        folder.mkdir(exist_ok=True)

    def put(self, job: Job, folder: Path) -> None:
        with _reported(f"store {job.id}"):
            for path in sorted(folder.iterdir()):
                self._bucket.send(path, _name(job.id, path.name))

    def local(self, job: Job) -> Path:
        """Return the folder of a job's files, fetched if they are not here yet. Their time of change is that of the
        job, so that the recording has the same fingerprint wherever it is fetched."""
        target = self._folder / job.id
        with self._fetching[hash(job.id) % _LOCKS]:
            with suppress(FileNotFoundError):
                os.utime(target)
                return target
            half = target.with_name(f"{job.id}.part")
            shutil.rmtree(half, ignore_errors=True)
            try:
                half.mkdir()
                with _reported(f"fetch {job.id}"):
                    for name in sorted(self._bucket.names(_name(job.id))):
                        self._bucket.fetch(_name(job.id, name), half / name)
                        at_ns = int(job.created * 1e9)
                        os.utime(half / name, ns=(at_ns, at_ns))
                self._make_room(but=job.id)
                half.rename(target)
            except OSError as error:
                raise disk_error("fetch the recording", error) from error
            finally:
                shutil.rmtree(half, ignore_errors=True)
        return target

    def remove(self, job_id: str) -> None:
        with _reported(f"delete {job_id}"):
            for name in self._bucket.names(_name(job_id)):
                self._bucket.remove(_name(job_id, name))
        self.forget(job_id)

    def hold(self, jobs: Iterable[str]) -> None:
        self._held = frozenset(jobs)

    def copies(self) -> list[str]:
        return [path.name for path in self._folder.iterdir() if not path.suffix]

    def forget(self, job_id: str) -> None:
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def probe(self, name: str) -> None:
        with _reported("write to the store"):
            self._bucket.probe(f"probes/{name}")

    def _make_room(self, but: str) -> None:
        """Delete copies down to the limit, the least recently used ones first, but none of jobs under way."""
        copies = []
        for folder in self._folder.iterdir():
            with suppress(OSError):
                size = sum(path.stat().st_size for path in folder.iterdir())
                copies.append((folder.stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in copies)
        for _, size, folder in sorted(copies):
            if total <= self._most:
                return
            if folder.name.partition(".")[0] not in {but, *self._held}:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """Convert an error of a bucket to a temporary one: the action is tried again later.

    Raises:
        StorageError: the action failed.
    """
    try:
        yield
    except (DataError, OutputError) as error:
        _log.warning("cannot %s: %s", what, error)
        raise bucket_error() from error


def _name(job_id: str, name: str = "") -> str:
    return f"jobs/{job_id}/{name}".rstrip("/")
