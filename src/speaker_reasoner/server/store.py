"""The store of jobs: rows in a database, and a folder each.

A job's folder holds the recording, `voice-N.wav` of its known speakers, `journal` of its finished chunks,
`events.jsonl`, and at the end `transcript.json` with `lines.json`. A job is accepted when its row is written; until
then its folder is marked, so that leftovers of a crash are distinguished from folders of a database that is not in use
today. Rows carry the id of their store, so that several stores may share a database. A row that cannot be read is a job
that failed.

Several processes may serve a store. Each waiting or running job is leased by one of them, which renews its leases with
a heartbeat; another one takes over jobs whose leases were not renewed.

Removed jobs wait in a bin, as a date in their rows. An erased job's folder is moved away in one step that needs no
space, its files are deleted, then its row: this works on a full disk, too.
"""

import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update

from ..errors import ServerError
from ..formats import write_text_atomically
from ..longform.journal import Journal
from .database import CORRECTIONS, JOBS, Database
from .events import ANEW, EVENTS, EventLog, EventReader
from .failures import StorageError, disk_error
from .folders import empty, identity, make_folders
from .jobs import WAITING, Job, new_job_id
from .processes import Processes
from .rows import Rows

LEASE_S = 60.0
"""How long jobs stay with a process that does not renew its leases."""

_log = logging.getLogger(__name__)

_JOURNAL, _TRANSCRIPT, _LINES = "journal.jsonl", "transcript.json", "lines.json"
_MARK = "not-accepted"
"""The mark of a folder whose row is not written yet."""
_PROBE_BYTES = 1 << 18


class Store(Rows):
    """Jobs of one folder.

    Args:
        folder: made if it does not exist.
        database: SQLAlchemy URL; a SQLite file in the folder if `None`.
        lease_s: how long jobs stay with this process without a heartbeat.

    Attributes:
        owner, shared: see `Rows`.

    Raises:
        ServerError: the database cannot be used.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, database: str | None = None, lease_s: float = LEASE_S) -> None:
        self._folder = folder
        self._lease_s = lease_s
        make_folders(folder, ("jobs", "incoming", "erased"), "--store")
        with ExitStack() as stack:
            self._processes = Processes(folder / "processes", lease_s)
            stack.callback(self._processes.close)
            self.owner = self._processes.own
            self._id = identity(folder / "id")
            self._database = Database(database or f"sqlite:///{folder.absolute() / 'jobs.sqlite'}")
            stack.callback(self._database.close)
            self._check_machines()
            self._erased = {path.name for path in (folder / "erased").iterdir()}
            if self._processes.living()[1]:
                self._clean()
            self._open_things = stack.pop_all()

    def close(self) -> None:
        """Let go of the database and the folder."""
        self._open_things.close()

    def _check_machines(self) -> None:
        """Refuse SQLite to the processes of several machines, whose locks it cannot rely on.

        Raises:
            ServerError: a process of another machine serves the store.
        """
        if self._database.is_file and (other := self._processes.elsewhere()):
            raise ServerError(
                f"{self._folder}: a server on another machine ({other}) serves this store; SQLite is for "
                "the processes of one machine: stop that server, or give all of them "
                "--database postgresql+psycopg://USER@HOST/NAME"
            )

    # Files

    def incoming(self) -> AbstractContextManager[Path]:
        """Give a new folder for an upload; it is removed at the end, unless it was moved elsewhere.

        Raises:
            StorageError: it cannot be made.
        """
        return self._new_folder(self._folder / "incoming")

    @contextmanager
    def _new_folder(self, within: Path) -> Iterator[Path]:
        folder = within / secrets.token_hex(12)
        try:
            folder.mkdir()
        except OSError as error:
            raise disk_error("take the upload", error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def folder(self, job: Job) -> Path:
        """Return the folder of a job's files, or of copies of them."""
        return self._folder / "jobs" / job.id

    def event_log(self, job: Job, *, again: bool = False) -> EventLog:
        """Open the log to which a job's events are written; see `EventLog`."""
        return EventLog(self.folder(job) / EVENTS, again=again)

    def event_reader(self, job: Job, after: int = 0) -> EventReader:
        """Open the log of a job's events behind an event, to read."""
        return EventReader(self.folder(job) / EVENTS, after)

    def journal(self, job: Job, about: Mapping[str, Any]) -> tuple[Journal, str | None]:
        """Open the journal of a job's recording, as `Journal.anew`; if it is begun anew, an event says so.

        Raises:
            OutputError: the disk is full.
        """
        journal, other = Journal.anew(self.folder(job) / _JOURNAL, about)
        if other is not None:
            log = self.event_log(job)
            log.append(ANEW, {})
            log.close()
        return journal, other

    def keep_document(self, job: Job, transcript: str, lines: str) -> None:
        """Write a job's transcript, and which of its lines were sent under which id.

        Raises:
            OutputError: the disk is full.
        """
        write_text_atomically(self.folder(job) / _LINES, lines)
        write_text_atomically(self.folder(job) / _TRANSCRIPT, transcript)

    def document(self, job: Job) -> tuple[str, str]:
        """Read the document that `keep_document` wrote.

        Raises:
            OSError: it is not there.
        """
        folder = self.folder(job)
        return (folder / _TRANSCRIPT).read_text("utf-8"), (folder / _LINES).read_text("utf-8")

    def probe(self) -> None:
        """Write a small file, and delete it.

        Raises:
            StorageError: the disk is full, or cannot be written.
        """
        path = self._folder / f"probe-{self.owner}"
        try:
            with path.open("wb") as file:
                file.write(bytes(_PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error("write to the store", error) from error
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def probe_files(self) -> None:
        """Check that recordings can be stored, where that takes longer than on a disk.

        Raises:
            StorageError: they cannot.
        """

    # Owners

    def take(self) -> list[Job]:
        """Lease the jobs that wait or run and that no living process has, oldest first."""
        now = self._database.clock
        alive, _ = self._processes.living()
        here = JOBS.c.owner.startswith(self._processes.machine)
        free = or_(
            JOBS.c.owner.is_(None),
            JOBS.c.lease.is_(None),
            JOBS.c.lease < now,
            and_(here, JOBS.c.owner.not_in(alive)),
        )
        taken = []
        for job in self._select(JOBS.c.status.in_(WAITING), free)[::-1]:
            as_read = func.coalesce(JOBS.c.token, 0) == job.token
            query = update(JOBS).where(
                JOBS.c.id == job.id, JOBS.c.status.in_(WAITING), free, as_read
            )
            with self._database.begin() as connection:
                if connection.execute(query.values(self._leased())).rowcount:
                    taken.append(replace(job, owner=self.owner, token=job.token + 1))
        return taken

    def renew(self, positions: Iterable[tuple[Job, float]]) -> set[str]:
        """Renew the leases of jobs, with the seconds of each that are transcribed.

        Returns:
            Those that are still this process's, and under way.
        """
        kept = set()
        self._processes.show()
        with self._database.begin() as connection:
            for job, position_s in positions:
                until = {"lease": self._database.clock + self._lease_s, "position_s": position_s}
                if connection.execute(self._mine(job).values(until)).rowcount:
                    kept.add(job.id)
        return kept

    # Changes

    def add(
        self,
        incoming: Path,
        name: str,
        duration_s: float,
        speakers: str | None,
        voices: Sequence[str],
        language: str | None = None,
        client: str = "",
        model: str | None = None,
        waiter: str | None = None,
        job_id: str | None = None,
    ) -> Job:
        """Accept a job: its files take their place, then its row is written.

        Args:
            incoming: with its files; see `intake`.
            name, duration_s, speakers, voices, language, client, model, waiter: as `Job` has them.
            job_id: from `new_job_id`, if the client has it already.
        """
        now = self._database.now()
        job = Job(
            job_id or new_job_id(),
            name,
            "queued",
            now,
            duration_s,
            speakers,
            tuple(voices),
            changed=now,
            owner=None if self.shared else self.owner,
            language=language,
            token=1,
            client=client,
            model=model,
            waiter=waiter,
        )
        row = {
            "id": job.id,
            "store": self._id,
            "name": name,
            "status": job.status,
            "created": now,
            "changed": now,
            "duration_s": duration_s,
            "speakers": speakers,
            "voices": json.dumps(voices),
            "language": language,
            "client": client,
            "model": model,
            "waiter": waiter,
            **self._leased(),
            "token": job.token,
        }
        self._accept(job, incoming, row)
        return job

    def _accept(self, job: Job, incoming: Path, row: Mapping[str, Any]) -> None:
        try:
            (incoming / _MARK).touch()
            incoming.rename(self.folder(job))
        except OSError as error:
            raise disk_error("keep the upload", error) from error
        try:
            with self._database.begin() as connection:
                connection.execute(insert(JOBS).values(row))
        except StorageError:
            shutil.rmtree(self.folder(job), ignore_errors=True)
            raise
        with suppress(OSError):  # the next start does it
            (self.folder(job) / _MARK).unlink()

    # The bin

    def erase(self, job: Job) -> bool:
        """Delete a job that has ended, for good: its files at once; its row as soon as the database
        can be written, see `finish_erasing`.

        Returns:
            Whether it had ended, as the database has it.

        Raises:
            StorageError: its folder cannot be moved away.
        """
        try:
            with suppress(FileNotFoundError):
                self.folder(job).rename(self._folder / "erased" / job.id)
            (self._folder / "erased" / job.id).mkdir(exist_ok=True)
        except OSError as error:
            raise disk_error("delete the recording", error) from error
        self._erased.add(job.id)
        empty(self._folder / "erased" / job.id)
        with suppress(StorageError):
            self.finish_erasing()
        return True

    def finish_erasing(self) -> None:
        """Delete the rows of erased jobs.

        Raises:
            StorageError: the database cannot be written.
        """
        for job_id in list(self._erased):
            with self._database.begin() as connection:
                connection.execute(delete(CORRECTIONS).where(CORRECTIONS.c.job == job_id))
                connection.execute(delete(JOBS).where(JOBS.c.id == job_id))
            shutil.rmtree(self._folder / "erased" / job_id, ignore_errors=True)
            self._erased.discard(job_id)

    def _clean(self) -> None:
        """Remove leftovers of a crash: uploads under way, and folders whose row was never written."""
        with self._database.begin() as connection:
            known = set(connection.scalars(select(JOBS.c.id).where(JOBS.c.store == self._id)))
        for folder in (self._folder / "incoming").iterdir():
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.unlink(missing_ok=True)
        strange = 0
        for folder in (self._folder / "jobs").iterdir():
            if folder.name in known:
                (folder / _MARK).unlink(missing_ok=True)
            elif (folder / _MARK).exists():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                strange += 1
        if strange:
            _log.warning(
                "%s: %d folders belong to no job of the database %s; they are left alone",
                self._folder / "jobs",
                strange,
                self._database.where,
            )
        for job_id in self._erased:
            empty(self._folder / "erased" / job_id)
        with suppress(StorageError):
            self.finish_erasing()
