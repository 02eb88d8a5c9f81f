"""The store of jobs: rows in a database, and a folder each.

A job's folder holds `audio.wav` (16 kHz mono), `voice-N.wav` of its known speakers, `journal` of
its finished chunks, `events.jsonl`, and in the end `transcript.json` with `lines.json` beside it.
A job is accepted when its row is written; until then its folder is marked, so that what a crash left
is told from the folders of a database that is not in use today. Rows carry the id of their store, so
that several servers may share a database; a folder serves one. A row that cannot be read is a job
that failed.
"""

import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy import event as database_event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from ..errors import OutputError, ServerError, SpeakerReasonerError
from ..formats import write_text_atomically
from ..locks import lock
from .openai import RequestError

WAITING = ("queued", "running")
"""States of a job that goes on after a restart."""

_log = logging.getLogger(__name__)

_STATES = (*WAITING, "done", "failed", "cancelled")
_ID = re.compile(r"job_[0-9a-f]{24}")
_STORE_ID = re.compile(r"[0-9a-f]{24}")
_MARK = "not-accepted"
"""A file in a folder whose row is not written yet, or is about to go."""
_metadata = MetaData()
_jobs = Table(
    "speaker_reasoner_jobs",
    _metadata,
    Column("id", String(32), primary_key=True),
    Column("store", String(32), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("speakers", String(8)),
    Column("voices", Text, nullable=False),
    Column("listen", Integer),
    Column("found", Integer),
    Column("error", Text),
)
_corrections = Table(
    "speaker_reasoner_corrections",
    _metadata,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("operation", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Job:
    """A long recording and what became of it.

    Attributes:
        id: made here, never by a client; also names the folder.
        name: what the client calls it.
        status: `queued`, `running`, `done`, `failed` or `cancelled`.
        created: seconds since 1970.
        duration_s: of the recording.
        speakers: hint on their number, as it was given.
        voices: name of each known voice; the n-th lies in `voice-n.wav`.
        listen: chunk that is to be heard again; `None` while the whole recording is.
        found: how many speakers were heard; `None` until it is done.
        error: of a failed job, or of the last attempt to hear a chunk again, in OpenAI's shape.
        revision: how many corrections were made.
    """

    id: str
    name: str
    status: str
    created: float
    duration_s: float
    speakers: str | None = None
    voices: tuple[str, ...] = ()
    listen: int | None = None
    found: int | None = None
    error: Mapping[str, Any] | None = None
    revision: int = 0


class Store:
    """Jobs of one folder.

    Args:
        folder: made if it does not exist; one server at a time.
        database: SQLAlchemy URL; a SQLite file in the folder if `None`.

    Raises:
        ServerError: another server uses the folder, or the database cannot be used.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for part in ("jobs", "incoming"):
                (folder / part).mkdir(exist_ok=True)
            held = lock(folder / "lock")
        except OSError as error:
            raise OutputError(
                f"{folder}: {error.strerror or error}; choose another folder for --store"
            ) from error
        if held is None:
            raise ServerError(
                f"{folder}: another server uses this store; stop it, or give another --store"
            )
        with ExitStack() as stack:
            stack.callback(held.release)
            self._id = _identity(folder / "id")
            self._open(database or f"sqlite:///{folder.absolute() / 'jobs.sqlite'}")
            stack.callback(self._database.dispose)
            with self._begin() as connection:
                _metadata.create_all(connection)
            self._clean()
            self._open_things = stack.pop_all()

    def _open(self, database: str) -> None:
        try:
            url = make_url(database)
            self._database = create_engine(url, pool_pre_ping=True)
            if url.get_backend_name() == "sqlite":
                database_event.listen(self._database, "connect", _durable)
            self._where = url.render_as_string(hide_password=True)
        except (ArgumentError, ImportError) as error:
            raise ServerError(
                f"--database: {' '.join(str(error).split())}; expected a SQLAlchemy URL as "
                "postgresql+psycopg://USER@HOST/NAME, and its driver installed"
            ) from error

    def close(self) -> None:
        """Let go of the database and the folder."""
        self._open_things.close()

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A new folder for an upload; removed in the end, unless it was moved elsewhere."""
        folder = self._folder / "incoming" / secrets.token_hex(12)
        try:
            folder.mkdir()
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror or error}; free some space") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def folder(self, job: Job) -> Path:
        """Where the files of a job lie."""
        return self._folder / "jobs" / job.id

    def add(
        self,
        incoming: Path,
        name: str,
        duration_s: float,
        speakers: str | None,
        voices: Sequence[str],
    ) -> Job:
        """Accept a job: its folder takes its place, then its row is written."""
        job = Job(
            f"job_{secrets.token_hex(12)}",
            name,
            "queued",
            time.time(),
            duration_s,
            speakers,
            tuple(voices),
        )
        try:
            (incoming / _MARK).touch()
            incoming.rename(self.folder(job))
        except OSError as error:
            raise OutputError(f"{incoming}: {error.strerror or error}") from error
        row = {
            "id": job.id,
            "store": self._id,
            "name": name,
            "status": job.status,
            "created": job.created,
            "duration_s": duration_s,
            "speakers": speakers,
            "voices": json.dumps(voices),
        }
        try:
            with self._begin() as connection:
                connection.execute(insert(_jobs).values(row))
        except ServerError:
            shutil.rmtree(self.folder(job), ignore_errors=True)
            raise
        (self.folder(job) / _MARK).unlink()
        return job

    def get(self, job_id: str) -> Job | None:
        """A job by its id; `None` where there is none."""
        found = self._select(_jobs.c.id == job_id)
        return found[0] if found else None

    def newest(self, most: int) -> list[Job]:
        """Jobs, newest first."""
        return self._select(limit=most)

    def unfinished(self) -> list[Job]:
        """Jobs that a stopped server left, oldest first."""
        return self._select(_jobs.c.status.in_(WAITING))[::-1]

    def change(self, job: Job, **values: Any) -> bool:
        """Set columns of a job, if it is still under way; whether it was."""
        if "error" in values:
            values["error"] = json.dumps(values["error"]) if values["error"] else None
        query = update(_jobs).where(_jobs.c.id == job.id, _jobs.c.status.in_(WAITING))
        with self._begin() as connection:
            return bool(connection.execute(query.values(values)).rowcount)

    def retry(self, job: Job) -> bool:
        """Queue a job once more that failed or was cancelled; whether it was so."""
        ended = _jobs.c.status.in_(("failed", "cancelled"))
        query = update(_jobs).where(_jobs.c.id == job.id, ended)
        with self._begin() as connection:
            return bool(connection.execute(query.values(status="queued", error=None)).rowcount)

    def remove(self, job: Job) -> None:
        """Forget a job, its corrections and its files."""
        if self.folder(job).exists():
            (self.folder(job) / _MARK).touch()
        with self._begin() as connection:
            connection.execute(delete(_corrections).where(_corrections.c.job == job.id))
            connection.execute(delete(_jobs).where(_jobs.c.id == job.id))
        shutil.rmtree(self.folder(job), ignore_errors=True)

    def corrections(self, job: Job) -> list[dict[str, Any]]:
        """Operations on a job's transcript, in order.

        Raises:
            RequestError: 500, one of them is damaged.
        """
        query = select(_corrections.c.operation).where(_corrections.c.job == job.id)
        with self._begin() as connection:
            texts = connection.scalars(query.order_by(_corrections.c.number)).all()
        with undamaged(job, "a correction"):
            return [_operation(text) for text in texts]

    def correct(self, job: Job, revision: int, operation: Mapping[str, Any]) -> bool:
        """Append an operation, if the job is done and `revision` is still the number of those there
        are; whether it was so."""
        row = {"job": job.id, "number": revision + 1, "operation": json.dumps(operation)}
        done = update(_jobs).where(_jobs.c.id == job.id, _jobs.c.status == "done")
        try:
            with self._begin() as connection:
                if not connection.execute(done.values(status="done")).rowcount:
                    return False
                connection.execute(insert(_corrections).values(row))
        except IntegrityError:
            return False
        return True

    def listen(self, job: Job, chunk: int) -> bool:
        """Queue a job that is done, and not corrected since it was read, to hear a chunk again;
        whether it was so."""
        count = select(func.count()).where(_corrections.c.job == job.id).scalar_subquery()
        query = update(_jobs).where(
            _jobs.c.id == job.id, _jobs.c.status == "done", count == job.revision
        )
        with self._begin() as connection:
            queued = query.values(status="queued", listen=chunk, error=None)
            return bool(connection.execute(queued).rowcount)

    def heard_again(self, job: Job, operation: Mapping[str, Any]) -> bool:
        """Append what a chunk, heard again, came to, and end the job; whether it was under way."""
        row = {"job": job.id, "number": job.revision + 1, "operation": json.dumps(operation)}
        ended = update(_jobs).where(_jobs.c.id == job.id, _jobs.c.status.in_(WAITING))
        with self._begin() as connection:
            if not connection.execute(ended.values(status="done", listen=None)).rowcount:
                return False
            connection.execute(insert(_corrections).values(row))
        return True

    def _select(self, *where: Any, limit: int | None = None) -> list[Job]:
        count = (
            select(func.count())
            .where(_corrections.c.job == _jobs.c.id)
            .scalar_subquery()
            .label("revision")
        )
        query = select(_jobs, count).where(_jobs.c.store == self._id, *where)
        query = query.order_by(_jobs.c.created.desc(), _jobs.c.id).limit(limit)
        with self._begin() as connection:
            rows = connection.execute(query).mappings().all()
        return [_job(row) for row in rows if _ID.fullmatch(row["id"])]

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """A transaction. A row that exists already is the caller's affair."""
        try:
            with self._database.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise ServerError(
                f"database {self._where}: {reason}; check --database, and that it can be written"
            ) from error

    def _clean(self) -> None:
        """Remove what a crash left: uploads under way, and folders whose row was never written."""
        with self._begin() as connection:
            known = set(connection.scalars(select(_jobs.c.id).where(_jobs.c.store == self._id)))
        for folder in (self._folder / "incoming").iterdir():
            shutil.rmtree(folder, ignore_errors=True)
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
                self._where,
            )


@contextmanager
def undamaged(job: Job, what: str) -> Iterator[None]:
    """Read what a job has kept; what cannot be read is told without paths.

    Raises:
        RequestError: 500, it is damaged.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, SpeakerReasonerError) as error:
        _log.warning("%s: %s: %s", job.id, what, error)
        raise damaged(what) from error


def damaged(what: str) -> RequestError:
    """Something that a job has kept cannot be used."""
    return RequestError(
        500, f"{what} of this job is damaged; remove the job, and send it again", code="job_damaged"
    )


def _operation(text: str) -> dict[str, Any]:
    operation = json.loads(text)
    if not isinstance(operation, dict) or not isinstance(operation.get("op"), str):
        raise ValueError(f"expected an operation, got {text[:80]!r}")
    return operation


def _job(row: Mapping[Any, Any]) -> Job:
    """A job from its row; one that cannot be read has failed."""
    try:
        voices, error = json.loads(row["voices"]), json.loads(row["error"] or "null")
        if not isinstance(voices, list) or not all(isinstance(name, str) for name in voices):
            raise ValueError(f"voices: expected a list of names, got {voices!r}")
        if row["status"] not in _STATES:
            raise ValueError(f"status: got {row['status']!r}, expected one of {_STATES}")
        if error is not None and not isinstance(error, dict):
            raise ValueError(f"error: expected an object, got {error!r}")
    except (ValueError, TypeError) as reason:
        _log.warning("%s: its row in the database: %s", row["id"], reason)
        error = damaged("the row in the database").body()["error"]
        times = (row["created"], row["duration_s"])
        return Job(row["id"], row["name"], "failed", *times, error=error)
    return Job(
        row["id"],
        row["name"],
        row["status"],
        row["created"],
        row["duration_s"],
        row["speakers"],
        tuple(voices),
        row["listen"],
        row["found"],
        error,
        row["revision"],
    )


def _durable(connection: Any, _: Any) -> None:
    """What SQLite has said to be written is on the disk, and readers do not wait."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _identity(path: Path) -> str:
    """The store's own id, made at its first start.

    Raises:
        ServerError: it is damaged; with another one the store's jobs would be nobody's.
    """
    if not path.exists():
        write_text_atomically(path, secrets.token_hex(12))
    text = path.read_bytes().decode(errors="replace").strip()
    if not _STORE_ID.fullmatch(text):
        raise ServerError(
            f"{path}: expected 24 letters and digits, got {text[:40]!r}: the file is damaged; take "
            "it from a backup, or choose another --store"
        )
    return text
