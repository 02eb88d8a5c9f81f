"""Events, journals and transcripts of the jobs of a shared store, in the database."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from ..longform.journal import Journal, OtherJournal
from .database import DOCUMENTS, EVENTS, JOBS, JOURNALS, Database
from .events import ANEW, Event, EventLog, EventReader, Unnumbered, parse_event
from .failures import RequestError
from .jobs import Job

_log = logging.getLogger(__name__)

Writing = Callable[[Job], AbstractContextManager[Connection]]
"""Begins a transaction that writes about a job of this server; raises `StorageError` if it is another's."""


class Ledger:
    """Events, journals and transcripts of jobs. Methods that write raise as `Writing`; all raise `StorageError` while
    the database is out of reach.

    Args:
        database: that servers share.
        writing: begins a transaction.
    """

    def __init__(self, database: Database, writing: Writing) -> None:
        self._database = database
        self._writing = writing

    def event_log(self, job: Job) -> EventLog:
        """Open the log to which a job's events are written."""
        return _Log(self, job)

    def event_reader(self, job: Job, after: int) -> EventReader:
        """Open a reader of the events of a job that follow event number `after`."""
        return _Reader(self, job, after)

    def journal(self, job: Job, about: Mapping[str, Any]) -> tuple[Journal, str | None]:
        """Open a journal like `Journal.anew`; the events before are deleted, and their numbers are not given again."""
        try:
            return _Journal(self, job, about), None
        except OtherJournal as error:
            with self._writing(job) as connection:
                connection.execute(delete(JOURNALS).where(JOURNALS.c.job == job.id))
                first = _append(connection, job, [(ANEW, "{}")])
                void = (EVENTS.c.job == job.id, EVENTS.c.number < first)
                connection.execute(delete(EVENTS).where(*void))
            differs = error.differs or "journal, which cannot be read"
            return _Journal(self, job, about), differs

    def keep_document(self, job: Job, transcript: str, lines: str) -> None:
        """Keep a document like `Store.keep_document`."""
        with self._writing(job) as connection:
            connection.execute(delete(DOCUMENTS).where(DOCUMENTS.c.job == job.id))
            row = {"job": job.id, "transcript": transcript, "lines": lines}
            connection.execute(insert(DOCUMENTS).values(row))

    def document(self, job: Job) -> tuple[str, str] | None:
        """Read what `keep_document` wrote; `None` if it wrote nothing."""
        query = select(DOCUMENTS.c.transcript, DOCUMENTS.c.lines).where(DOCUMENTS.c.job == job.id)
        with self._database.begin() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else (str(row[0]), str(row[1]))

    def add_event(self, job: Job, name: str, data: str) -> None:
        """Append an event, its data as JSON."""
        with self._writing(job) as connection:
            _append(connection, job, [(name, data)])

    def tell(self, connection: Connection, job: Job, events: Sequence[Unnumbered]) -> None:
        """Append events in a transaction that holds the job's row."""
        if events:
            _append(connection, job, [(name, _to_json(data)) for name, data in events])

    def take_over(self, connection: Connection, job: Job, events: EventReader) -> None:
        """Append the events of a file, unless it was done before, in a transaction that holds the job's row."""
        there = select(func.count()).where(EVENTS.c.job == job.id)
        if connection.scalar(there):
            return
        read: list[Unnumbered] = []
        try:
            for event in events.new():
                read.append((event.name, event.data))
        except RequestError as error:
            _log.warning("%s: its events are taken over up to a damaged one: %s", job.id, error)
        self.tell(connection, job, read)

    def events(self, job: Job, after: int) -> list[tuple[int, str, str]]:
        """Return number, name and data (JSON) of a job's events after number `after`."""
        query = select(EVENTS.c.number, EVENTS.c.name, EVENTS.c.data)
        query = query.where(EVENTS.c.job == job.id, EVENTS.c.number > after)
        with self._database.begin() as connection:
            rows = connection.execute(query.order_by(EVENTS.c.number)).all()
        return [(int(number), str(name), str(data)) for number, name, data in rows]

    def lines(self, job: Job) -> list[str]:
        """Return the lines of a job's journal."""
        query = select(JOURNALS.c.line).where(JOURNALS.c.job == job.id)
        with self._database.begin() as connection:
            return list(connection.scalars(query.order_by(JOURNALS.c.number)))

    def add_lines(self, job: Job, lines: list[str]) -> None:
        """Append lines to a job's journal, and reset the count of processes that died over it."""
        with self._writing(job) as connection:
            last = select(func.coalesce(func.max(JOURNALS.c.number), 0))
            number = int(connection.scalar(last.where(JOURNALS.c.job == job.id)) or 0)
            rows = [
                {"job": job.id, "number": number + n, "line": line}
                for n, line in enumerate(lines, 1)
            ]
            connection.execute(insert(JOURNALS), rows)
            connection.execute(update(JOBS).where(JOBS.c.id == job.id).values(losses=0))


def _append(connection: Connection, job: Job, events: Sequence[tuple[str, str]]) -> int:
    """Append events; return the number of the first."""
    last = select(func.coalesce(func.max(EVENTS.c.number), 0)).where(EVENTS.c.job == job.id)
    first = int(connection.scalar(last) or 0) + 1
    rows = [
        {"job": job.id, "number": number, "name": name, "data": data}
        for number, (name, data) in enumerate(events, first)
    ]
    connection.execute(insert(EVENTS), rows)
    return first


def _to_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


class _Log(EventLog):
    """A log in the database. Events since the last `done` are not appended twice: a server that continues a job repeats
    those of an unfinished chunk."""

    def __init__(self, ledger: Ledger, job: Job) -> None:
        self._ledger = ledger
        self._job = job
        self._appended: set[tuple[str, str]] | None = None
        self._closed = False
        self._lock = threading.Lock()

    def append(self, name: str, data: Mapping[str, Any]) -> None:
        row = _to_json(data)
        with self._lock:
            if self._closed:
                return
            if self._appended is None:
                self._appended = self._appended_before()
            if (name, row) not in self._appended:
                self._ledger.add_event(self._job, name, row)
                self._appended.add((name, row))

    def _appended_before(self) -> set[tuple[str, str]]:
        rows: set[tuple[str, str]] = set()
        for _, name, data in self._ledger.events(self._job, 0):
            if name == "done":
                rows.clear()
            rows.add((name, data))
        return rows

    def close(self) -> None:
        with self._lock:
            self._closed = True


class _Reader(EventReader):
    def __init__(self, ledger: Ledger, job: Job, after: int) -> None:
        self._ledger = ledger
        self._job = job
        self._after = after

    def new(self) -> Iterator[Event]:
        for number, name, data in self._ledger.events(self._job, self._after):
            self._after = number
            yield parse_event(number, name, data)


class _Journal(Journal):
    """A journal whose lines are in the database, for other servers to continue."""

    def __init__(self, ledger: Ledger, job: Job, about: Mapping[str, Any]) -> None:
        self._ledger = ledger
        self._job = job
        super().__init__(Path(job.id), about)

    def _load(self) -> bytes | None:
        lines = self._ledger.lines(self._job)
        return "".join(f"{line}\n" for line in lines).encode() if lines else None

    def _append(self, text: str) -> None:
        self._ledger.add_lines(self._job, text.split("\n")[:-1])

    def _cut(self, size: int) -> None:
        raise AssertionError("rows are whole lines")
