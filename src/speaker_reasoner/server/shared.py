"""A store that several servers share, on several machines: PostgreSQL, and a folder or a bucket.

Rows, events, journals and transcripts lie in the database; recordings, voices and loudness in a depot. Jobs
wait in the database for whichever server has room, see `claims`. Leases are timed by the database's clock.
Whatever is written about a job is written in one transaction with a look at its token, so that a server
whose lease was taken, however late it comes, writes nothing.

Files are put before a row says that they are there, and deleted after it says so no more; what lies between,
when a server dies, is found in the table of leftovers.
"""

import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, literal, or_, select, update

from ..errors import OutputError, ServerError
from ..longform.journal import Journal, OtherJournal
from .claims import claim
from .database import (
    CORRECTIONS,
    DOCUMENTS,
    EVENTS,
    JOBS,
    JOURNALS,
    LEFTOVERS,
    SERVERS,
    Database,
)
from .depots import BucketDepot, Depot, FolderDepot
from .events import Event, EventLog, EventReader
from .failures import StorageError, lost_lease
from .fleet import Fleet
from .jobs import WAITING, Job
from .processes import Processes
from .store import LEASE_S, Store, identity

_PROBE_S = 30.0
_LOSSES = 10
"""So many servers may die over a job, one after the other, without finishing a chunk."""
_NOT_STARTED = or_(JOBS.c.owner.is_(None), JOBS.c.lease.is_(None))
_log = logging.getLogger(__name__)


def open_store(
    place: Path | str, database: str | None, lease_s: float, scratch: Path | None = None
) -> Store:
    """The store that options name: one of its own, or a shared one.

    Args:
        place: a folder, or the address of a place in a bucket.
        database: SQLAlchemy URL; SQLite in the folder if `None`.
        lease_s: how long a server that is gone keeps its jobs.
        scratch: folder for what comes in, and for copies of what lies in a bucket.

    Raises:
        ServerError, OutputError, DataError, ExtraError: it cannot be used.
    """
    if database is not None and not database.startswith("sqlite"):
        return SharedStore(place, database, lease_s, scratch)
    if isinstance(place, str):
        raise ServerError(
            f"--store {place}: a bucket needs a database that all servers reach; add "
            "--database postgresql+psycopg://USER@HOST/NAME"
        )
    return Store(place, database, lease_s)


class SharedStore(Store):
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
        self._erased = set()
        self._probed_at = -_PROBE_S
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for part in ("jobs", "incoming"):
                (folder / part).mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{folder}: {error.strerror or error}; choose another folder for --store or --scratch"
            ) from error
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
                stack.callback(shutil.rmtree, copies, ignore_errors=True)
            else:
                self._id = identity(folder / "id")
                self._depot = FolderDepot(folder / "jobs")
            self._database = Database(database)
            stack.callback(self._database.close)
            if self._database.is_file or not self._database.has_clock:
                raise ServerError(
                    f"--database {self._database.where}: several servers share PostgreSQL alone"
                )
            self.fleet = Fleet(self._database, self._id, self.owner, lease_s)
            self._sweep(isinstance(place, str))
            self._open_things = stack.pop_all()

    def close(self) -> None:
        """Leave jobs under way to the others at once, and let go of everything."""
        with suppress(StorageError):
            held = update(JOBS).where(JOBS.c.owner == self.owner, JOBS.c.status.in_(WAITING))
            with self._database.begin() as connection:
                connection.execute(held.values(owner=None, lease=None))
            self.fleet.leave()
        super().close()

    def _sweep(self, copies: bool) -> None:
        """Delete what dead processes of this machine have left in its folder."""
        alive, _ = self._processes.living()
        for part in ("incoming", "jobs") if copies else ("incoming",):
            for folder in (self._folder / part).iterdir():
                mine = folder.name.startswith(self._processes.machine) or copies
                if folder.name not in alive and mine:
                    shutil.rmtree(folder, ignore_errors=True)

    # Files

    def incoming(self) -> AbstractContextManager[Path]:
        return self._new_folder(self._incoming)

    def folder(self, job: Job) -> Path:
        return self._depot.local(job)

    def probe(self) -> None:
        super().probe()
        if time.monotonic() - self._probed_at >= _PROBE_S:
            self._depot.probe(self.owner)
            self._probed_at = time.monotonic()  # one that fails is done again at the next beat

    def event_log(self, job: Job, *, again: bool = False) -> EventLog:
        return _SharedLog(self, job)

    def event_reader(self, job: Job, after: int = 0) -> EventReader:
        return _SharedReader(self, job, after)

    def journal(self, job: Job, about: Mapping[str, Any]) -> tuple[Journal, str | None]:
        try:
            return _SharedJournal(self, job, about), None
        except OtherJournal as error:
            with self.writing(job) as connection:
                for table in (JOURNALS, EVENTS):
                    connection.execute(delete(table).where(table.c.job == job.id))
            return _SharedJournal(
                self, job, about
            ), error.differs or "journal, which cannot be read"

    def keep_document(self, job: Job, transcript: str, lines: str) -> None:
        with self.writing(job) as connection:
            connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.job == job.id))
            row = {"job": job.id, "transcript": transcript, "lines": lines}
            connection.execute(insert(DOCUMENTS).values(row))

    def document(self, job: Job) -> tuple[str, str]:
        query = select(DOCUMENTS.c.transcript, DOCUMENTS.c.lines).where(DOCUMENTS.c.job == job.id)
        with self._database.begin() as connection:
            row = connection.execute(query).one_or_none()
        return super().document(job) if row is None else (str(row[0]), str(row[1]))

    @contextmanager
    def writing(self, job: Job) -> Iterator[Connection]:
        """A transaction that writes about a job that this server has.

        Raises:
            StorageError: it is another's now, or the database is out of reach.
        """
        with self._database.begin() as connection:
            query = select(literal(1)).select_from(JOBS).where(*self._held(job)).with_for_update()
            if connection.scalar(query) is None:
                raise lost_lease()
            yield connection

    # Who works on it

    def take(self) -> list[Job]:
        """Nothing: see `claim`."""
        return []

    def claim(self, model: str, jobs: int, requests: int, but: Iterable[str] = ()) -> list[Job]:
        """Lease jobs, in fair order.

        Args:
            model: that this server has.
            jobs, requests: so many of either kind.
            but: not these.

        Raises:
            StorageError: the database is out of reach.
        """
        taken: list[str] = []
        clock, but = self._database.clock, list(but)
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
                        but=but,
                    )
        if not taken:
            return []
        known = {job.id: job for job in self._select(JOBS.c.id.in_(taken))}
        return [known[job_id] for job_id in taken if job_id in known]

    def is_hopeless(self, job: Job) -> bool:
        """Whether a job seems to kill whichever server works on it."""
        return job.losses >= _LOSSES

    def waiting(self) -> int:
        """How many jobs wait that no server has begun.

        Raises:
            StorageError: the database is out of reach.
        """
        query = select(func.count()).where(
            JOBS.c.store == self._id, JOBS.c.status == "queued", _NOT_STARTED
        )
        with self._database.begin() as connection:
            return int(connection.scalar(query) or 0)

    def renew(self, positions: Iterable[tuple[Job, float]]) -> set[str]:
        kept = super().renew(positions)
        self.fleet.show()
        return kept

    def _leased(self) -> dict[str, Any]:
        return {
            "owner": None,
            "lease": None,
            "token": func.coalesce(JOBS.c.token, 0) + 1,
            "losses": 0,
        }

    # What becomes of it

    def _accept(self, job: Job, incoming: Path, row: Mapping[str, Any]) -> None:
        mine = {"id": job.id, "store": self._id, "server": self.owner}
        with self._database.begin() as connection:
            connection.execute(insert(LEFTOVERS).values(mine))
        try:
            self._depot.put(job, incoming)
            with self._database.begin() as connection:
                connection.execute(delete(LEFTOVERS).where(LEFTOVERS.c.id == job.id))
                connection.execute(insert(JOBS).values(row))
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

    def finish_erasing(self) -> None:
        """Delete the files of erased jobs, and of uploads that died with their server; end what dead
        servers' clients waited for."""
        alive = select(SERVERS.c.name).where(
            SERVERS.c.seen >= self._database.clock - max(300.0, 5 * self._lease_s)
        )
        gone = or_(
            LEFTOVERS.c.server.is_(None),
            and_(LEFTOVERS.c.server.not_in(alive), LEFTOVERS.c.server != self.owner),
        )
        left = select(LEFTOVERS.c.id).where(LEFTOVERS.c.store == self._id, gone)
        here = select(SERVERS.c.name).where(SERVERS.c.seen >= self._database.clock - self._lease_s)
        unheard = and_(JOBS.c.waiter.not_in(here), JOBS.c.waiter != self.owner)
        with self._database.begin() as connection:
            ids = connection.scalars(left).all()
        for job_id in ids:
            self._remove_files(job_id)
        for job in self._select(unheard):
            self.cancel(job)
            self.erase(job)

    def _remove_files(self, job_id: str) -> None:
        self._depot.remove(job_id)
        with self._database.begin() as connection:
            connection.execute(delete(LEFTOVERS).where(LEFTOVERS.c.id == job_id))

    # Events

    def add_event(self, job: Job, name: str, data: str) -> None:
        """Append an event of a job that this server has.

        Raises:
            StorageError: it is another's, or the database is out of reach.
        """
        with self.writing(job) as connection:
            last = select(func.coalesce(func.max(EVENTS.c.number), 0)).where(EVENTS.c.job == job.id)
            number = int(connection.scalar(last) or 0) + 1
            row = {"job": job.id, "number": number, "name": name, "data": data}
            connection.execute(insert(EVENTS).values(row))

    def events(self, job: Job, after: int) -> list[tuple[int, str, str]]:
        """Number, name and data (JSON) of a job's events after one.

        Raises:
            StorageError: the database is out of reach.
        """
        query = select(EVENTS.c.number, EVENTS.c.name, EVENTS.c.data)
        query = query.where(EVENTS.c.job == job.id, EVENTS.c.number > after)
        with self._database.begin() as connection:
            rows = connection.execute(query.order_by(EVENTS.c.number)).all()
        return [(int(number), str(name), str(data)) for number, name, data in rows]

    def lines(self, job: Job) -> list[str]:
        """The lines of a job's journal.

        Raises:
            StorageError: the database is out of reach.
        """
        query = select(JOURNALS.c.line).where(JOURNALS.c.job == job.id)
        with self._database.begin() as connection:
            return list(connection.scalars(query.order_by(JOURNALS.c.number)))

    def add_lines(self, job: Job, lines: Iterable[str]) -> None:
        """Append lines of a journal; raises as `add_event`."""
        with self.writing(job) as connection:
            last = select(func.coalesce(func.max(JOURNALS.c.number), 0))
            number = int(connection.scalar(last.where(JOURNALS.c.job == job.id)) or 0)
            for line in lines:
                number += 1
                row = {"job": job.id, "number": number, "line": line}
                connection.execute(insert(JOURNALS).values(row))
            connection.execute(update(JOBS).where(JOBS.c.id == job.id).values(losses=0))


class _SharedLog(EventLog):
    """A job's events in the database. An event that is there is never added once more: whoever goes on
    tells the turns of an unfinished chunk again."""

    def __init__(self, store: SharedStore, job: Job) -> None:
        self._store = store
        self._job = job
        self._told: set[tuple[str, str]] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def append(self, name: str, data: Mapping[str, Any]) -> None:
        row = json.dumps(data, ensure_ascii=False)
        with self._lock:
            if self._closed:
                return
            if self._told is None:
                self._told = {(one, text) for _, one, text in self._store.events(self._job, 0)}
            if (name, row) not in self._told:
                self._store.add_event(self._job, name, row)
                self._told.add((name, row))

    def close(self) -> None:
        with self._lock:
            self._closed = True


class _SharedReader(EventReader):
    """Reads a job's events from the database; those of jobs of older versions from their folder."""

    def __init__(self, store: SharedStore, job: Job, after: int) -> None:
        self._store = store
        self._job = job
        self._after = after

    def new(self) -> Iterator[Event]:
        for number, name, data in self._store.events(self._job, self._after):
            self._after = number
            yield Event(number, name, json.loads(data))


class _SharedJournal(Journal):
    """A journal in the database, where another server finds it."""

    def __init__(self, store: SharedStore, job: Job, about: Mapping[str, Any]) -> None:
        self._store = store
        self._job = job
        super().__init__(Path(job.id), about)

    def _load(self) -> bytes | None:
        lines = self._store.lines(self._job)
        return "".join(f"{line}\n" for line in lines).encode() if lines else None

    def _append(self, text: str) -> None:
        self._store.add_lines(self._job, text.splitlines())

    def _cut(self, size: int) -> None:
        raise AssertionError("rows are whole lines")


def _id_of(address: str) -> str:
    """The id of the store at an address of a bucket: the same for every server."""
    return hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:24]
