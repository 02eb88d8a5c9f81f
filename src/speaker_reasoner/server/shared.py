"""A store that several servers share, on several machines: PostgreSQL, and a folder or a bucket.

Rows, events, journals and transcripts are in the database; recordings, voices and loudness in a depot. Jobs wait in the
database for any server with room, see `claims`. Leases are timed by the database's clock. Everything about a job is
written in one transaction that checks its token, so that a server whose lease was taken writes nothing, however late
it is.
"""

import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal, or_, select, update

from ..errors import ServerError
from ..longform.journal import Journal
from ..version import __version__
from .claims import claim, queue
from .database import (
    CORRECTIONS,
    DOCUMENTS,
    EVENTS,
    JOBS,
    JOURNALS,
    LEFTOVERS,
    Database,
)
from .depots import BucketDepot, Depot, FolderDepot
from .events import EVENTS as FILE
from .events import Event, EventLog, EventReader, Unnumbered
from .failures import StorageError, lost_lease, lost_upload
from .fleet import Announcement, Fleet
from .folders import identity, make_folders
from .jobs import WAITING, Job
from .ledger import Ledger
from .leftovers import Leftovers
from .processes import Processes
from .rows import NEXT_TOKEN
from .store import LEASE_S, Store

_PROBE_S = 30.0
"""Interval at which a bucket is probed (assumed)."""
_LOSSES = 10
"""Number of servers in a row (assumed) that may die over a job without finishing a chunk."""
_NOT_STARTED = or_(JOBS.c.owner.is_(None), JOBS.c.lease.is_(None))


def open_store(
    place: Path | str, database: str | None, lease_s: float, scratch: Path | None = None
) -> Store:
    """Open the store that options name: one of this server alone, or a shared one.

    Args:
        place: a folder, or the address of a place in a bucket.
        database: SQLAlchemy URL; SQLite in the folder if `None`.
        lease_s: how long a server that is gone keeps its jobs.
        scratch: folder for uploads, and for copies of a bucket's files.

    Raises:
        ServerError, OutputError, DataError, ExtraError: it cannot be used.
    """
    if database is not None and database.startswith("postgresql"):
        return SharedStore(place, database, lease_s, scratch)
    if isinstance(place, str):
        got = "SQLite" if database is None else f"--database {database.partition(':')[0]}://..."
        raise ServerError(
            f"--store {place}: expected a database that all servers reach, got {got}; add --database "
            "postgresql+psycopg://USER@HOST/NAME"
        )
    return Store(place, database, lease_s)


class SharedStore(Leftovers):
    """Jobs that several servers work on.

    Args:
        place: a folder that all servers see, or the address of a place in a bucket.
        database: SQLAlchemy URL of PostgreSQL.
        lease_s: how long a server that is gone keeps its jobs.
        scratch: folder of this machine; in the shared folder if `None`, which a bucket does not allow.

    Attributes:
        fleet: the servers.

    Raises:
        ServerError: the database cannot be used.
        OutputError: a folder cannot be written.
        DataError, ExtraError: the bucket cannot be used.
    """

    shared = True

    def __init__(
        self,
        place: Path | str,
        database: str,
        lease_s: float = LEASE_S,
        scratch: Path | None = None,
    ) -> None:
        folder = scratch if isinstance(place, str) else place
        assert folder is not None, "copies of a bucket's files need a place"
        self._lease_s = lease_s
        self._is_scratch = isinstance(place, str)
        self._erased = set()
        self._queue: dict[str | None, dict[str, int]] = {}
        self._probed_at = -_PROBE_S
        self._tidied_at = time.monotonic()
        make_folders(folder, ("jobs", "incoming", "live"), "--store or --scratch")
        with ExitStack() as stack:
            self._processes = Processes(folder / "processes", lease_s)
            stack.callback(self._processes.close)
            self.owner = self._processes.own
            self._folder = folder
            self._incoming = folder / "incoming" / self.owner
            self._incoming.mkdir()
            stack.callback(shutil.rmtree, self._incoming, ignore_errors=True)
            self._depot: Depot
            if isinstance(place, str):
                self._id = _id_of(place)
                copies = folder / "jobs" / self.owner
                self._depot = BucketDepot(place, copies)
                try:
                    self._depot.probe(self.owner)
                except StorageError as error:
                    raise ServerError(
                        f"--store {place}: {error.__cause__}; check the address and the account "
                        "(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)"
                    ) from error
                stack.callback(shutil.rmtree, copies, ignore_errors=True)
            else:
                self._id = identity(folder / "id")
                self._depot = FolderDepot(folder / "jobs")
            self._database = Database(database)
            stack.callback(self._database.close)
            assert self._database.has_clock, "see open_store"
            self._ledger = Ledger(self._database, self.writing)
            self.fleet = Fleet(self._database, self._id, self.owner, lease_s)
            self.fleet.announce(Announcement("starting", __version__))
            self.fleet.show()  # so that its files in the store are not those of a dead server
            self._sweep()
            self._open_things = stack.pop_all()

    def close(self) -> None:
        """Release jobs under way to the others at once, and close everything."""
        with suppress(StorageError):
            held = update(JOBS).where(JOBS.c.owner == self.owner, JOBS.c.status.in_(WAITING))
            with self._database.begin() as connection:
                connection.execute(held.values(owner=None, lease=None))
            self.fleet.leave()
        super().close()

    # Files

    def incoming(self) -> AbstractContextManager[Path]:
        return self._new_folder(self._incoming)

    def folder(self, job: Job) -> Path:
        return self._depot.local(job)

    def probe_files(self) -> None:
        if time.monotonic() - self._probed_at >= _PROBE_S:
            self._depot.probe(self.owner)
            self._probed_at = time.monotonic()  # one that fails is done again at the next look

    def event_log(self, job: Job, *, again: bool = False) -> EventLog:
        """Open the log of a job's events, as `Store.event_log` does.

        Events that a version without shared stores wrote to a file are copied into the database first;
        those of a job that is transcribed from the beginning once more are deleted.

        Raises:
            StorageError: the job is another's now, or the database is out of reach.
        """
        old = self._old_events(job)
        if old is not None:
            if job.listen is not None:
                with self.writing(job) as connection:
                    self._ledger.take_over(connection, job, EventReader(old))
            old.unlink(missing_ok=True)
        return self._ledger.event_log(job)

    def event_reader(self, job: Job, after: int = 0) -> EventReader:
        reader = self._ledger.event_reader(job, after)
        anew = job.under_way and job.listen is None
        old = None if anew else self._old_events(job)
        return reader if old is None else _ContinuedReader(EventReader(old, after), reader, after)

    def _old_events(self, job: Job) -> Path | None:
        """Return the file of events that a version without shared stores wrote; `None` where there is none."""
        if not isinstance(self._depot, FolderDepot):
            return None
        path = self.folder(job) / FILE
        return path if path.exists() else None

    def journal(self, job: Job, about: Mapping[str, Any]) -> tuple[Journal, str | None]:
        return self._ledger.journal(job, about)

    def keep_document(self, job: Job, transcript: str, lines: str) -> None:
        self._ledger.keep_document(job, transcript, lines)

    def document(self, job: Job) -> tuple[str, str]:
        return self._ledger.document(job) or super().document(job)

    @contextmanager
    def writing(self, job: Job) -> Iterator[Connection]:
        """Begin a transaction that writes about a job of this server.

        Raises:
            StorageError: it is another server's now, or the database is out of reach.
        """
        with self._database.begin() as connection:
            query = select(literal(1)).select_from(JOBS).where(*self._held(job)).with_for_update()
            if connection.scalar(query) is None:
                raise lost_lease()
            yield connection

    # Owners

    def take(self) -> list[Job]:
        """Return no jobs: see `claim`."""
        return []

    def claim(self, model: str, jobs: int, requests: int, running: Iterable[str] = ()) -> list[Job]:
        """Lease jobs, in fair order.

        Args:
            model: of this server.
            jobs, requests: greatest numbers of either kind.
            running: jobs that this server works on.

        Raises:
            StorageError: the database is out of reach.
        """
        taken: list[str] = []
        clock, running = self._database.clock, set(running)
        with self._database.begin() as connection:
            for most, waited_for in ((requests, True), (jobs, False)):
                most = min(most, requests - len(taken))
                if most > 0:
                    taken += claim(
                        connection,
                        self._id,
                        self.owner,
                        model,
                        clock,
                        self._lease_s,
                        most,
                        waited_for=waited_for,
                        running=running,
                    )
        if not taken:
            return []
        mine = (JOBS.c.owner == self.owner, JOBS.c.status.in_(WAITING))  # or cancelled just now
        known = {job.id: job for job in self._select(JOBS.c.id.in_(taken), *mine)}
        self._depot.hold([*running, *known])
        return [known[job_id] for job_id in taken if job_id in known]

    def is_hopeless(self, job: Job) -> bool:
        """Return whether a job has killed too many servers in a row."""
        return job.losses >= _LOSSES

    def waiting(self, client: str) -> int:
        """Return how many jobs of a client wait that no server has taken.

        Raises:
            StorageError: the database is out of reach.
        """
        query = select(func.count()).where(
            JOBS.c.store == self._id,
            JOBS.c.client == client,
            JOBS.c.status == "queued",
            _NOT_STARTED,
        )
        with self._database.begin() as connection:
            return int(connection.scalar(query) or 0)

    def renew(self, positions: Iterable[tuple[Job, float]]) -> set[str]:
        positions = list(positions)
        self._depot.hold([job.id for job, _ in positions])
        kept = super().renew(positions)
        self.fleet.show()
        with self._database.begin() as connection:
            self._queue = queue(connection, self._id, self._database.clock)
        return kept

    def line_up(self, job: Job) -> None:
        """Put a job that waits from now on behind those that `place` knows."""
        waiting = self._queue.setdefault(job.model, {})
        waiting[job.id] = len(waiting)

    def place(self, job: Job) -> int | None:
        """Return how many jobs are taken before one that waits, as of the last heartbeat.

        `None` where the job does not wait, or is far behind.
        """
        if job.status != "queued":
            return None
        # A server that has leased it without beginning begins it next.
        return self._queue.get(job.model, {}).get(job.id, None if job.owner is None else 0)

    def _leased(self) -> dict[str, Any]:
        return {
            "owner": None,
            "lease": None,
            "token": NEXT_TOKEN,
            "losses": 0,
        }

    # Changes

    def _tell(
        self, connection: Connection, job: Job, events: Sequence[Unnumbered], *, ended: bool
    ) -> None:
        self._ledger.tell(connection, job, events)
        if ended:  # its journal is of no use any more
            connection.execute(delete(JOURNALS).where(JOURNALS.c.job == job.id))

    def _accept(self, job: Job, incoming: Path, row: Mapping[str, Any]) -> None:
        mine = {"id": job.id, "store": self._id, "server": self.owner}
        with self._database.begin() as connection:
            connection.execute(insert(LEFTOVERS).values(mine))
        try:
            self._depot.put(job, incoming)
            own = delete(LEFTOVERS).where(
                LEFTOVERS.c.id == job.id, LEFTOVERS.c.server == self.owner
            )
            with self._database.begin() as connection:
                is_there = connection.execute(own).rowcount > 0
                if is_there:
                    connection.execute(insert(JOBS).values(row))
                else:  # files that were put after the others were deleted
                    connection.execute(insert(LEFTOVERS).values({**mine, "server": None}))
            if not is_there:
                raise lost_upload()
        except StorageError:
            with suppress(StorageError), self._database.begin() as connection:
                given_up = update(LEFTOVERS).where(LEFTOVERS.c.id == job.id)
                connection.execute(given_up.values(server=None))
            raise

    def erase(self, job: Job) -> bool:
        ended = delete(JOBS).where(JOBS.c.id == job.id, JOBS.c.status.not_in(WAITING))
        with self._database.begin() as connection:
            if not connection.execute(ended).rowcount:
                return False
            for table in (CORRECTIONS, EVENTS, JOURNALS, DOCUMENTS):
                connection.execute(delete(table).where(table.c.job == job.id))
            connection.execute(insert(LEFTOVERS).values(id=job.id, store=self._id))
        with suppress(StorageError):
            self._remove_files(job.id)
        return True


class _ContinuedReader(EventReader):
    """Reads a file until the database has its events, then the database; numbers are the same in both."""

    def __init__(self, file: EventReader, rows: EventReader, after: int) -> None:
        self._file, self._rows, self._after = file, rows, after

    def new(self) -> Iterator[Event]:
        for reader in (self._file, self._rows):
            for event in reader.new():
                if event.number > self._after:
                    self._after = event.number
                    yield event


def _id_of(address: str) -> str:
    """Return the id of the store at an address of a bucket: the same for every server."""
    return hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:24]
