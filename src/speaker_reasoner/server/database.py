"""The database: its tables, connections, and errors.

Tables of older versions get missing columns; those of later versions are refused. SQLite and PostgreSQL are tested. If
several servers share it, times are those of the database's clock.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    cast,
    create_engine,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
)
from sqlalchemy import event as database_event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from ..errors import ServerError
from .failures import database_error

_log = logging.getLogger(__name__)

_metadata = MetaData()
JOBS = Table(
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
    Column("listen_keep", Integer),
    Column("found", Integer, key="speaker_count"),
    Column("error", Text),
    Column("changed", Float),
    Column("removed", Float),
    Column("owner", String(32)),
    Column("lease", Float),
    Column("position_s", Float),
    Column("language", String(16)),
    Column("token", Integer),
    Column("client", String(64)),
    Column("model", Text),
    Column("waiter", String(32)),
    Column("losses", Integer),
    Column("claimed", Float),
)
"""One row a job; `owner` is the process that works on it, until `lease` (seconds since 1970). `token` counts its
leases, `claimed` is the time of the last one."""
CORRECTIONS = Table(
    "speaker_reasoner_corrections",
    _metadata,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("operation", Text, nullable=False),
)
EVENTS = Table(
    "speaker_reasoner_events",
    _metadata,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(32), nullable=False),
    Column("data", Text, nullable=False),
)
JOURNALS = Table(
    "speaker_reasoner_journals",
    _metadata,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("line", Text, nullable=False),
)
"""The lines of `longform.journal`."""
DOCUMENTS = Table(
    "speaker_reasoner_documents",
    _metadata,
    Column("job", String(32), primary_key=True),
    Column("transcript", Text, nullable=False),
    Column("lines", Text, nullable=False),
)
SERVERS = Table(
    "speaker_reasoner_servers",
    _metadata,
    Column("name", String(32), primary_key=True),
    Column("store", String(32), nullable=False, index=True),
    Column("seen", Float, nullable=False),
    Column("told", Text, nullable=False, key="announcement"),
)
"""The servers of a store: the last sign of life of each, and its announcement as JSON."""
LEFTOVERS = Table(
    "speaker_reasoner_leftovers",
    _metadata,
    Column("id", String(32), primary_key=True),
    Column("store", String(32), nullable=False, index=True),
    Column("server", String(32)),
)
"""Files to delete: of erased jobs, and of uploads whose `server` has died."""
_SCHEMA = Table(
    "speaker_reasoner_schema",
    _metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)
_VERSION = 2
_LOCK = 0x5EA_50_0E
"""Lock of PostgreSQL, held while tables are made."""
Index("speaker_reasoner_jobs_client", JOBS.c.store, JOBS.c.client, JOBS.c.claimed)
Index("speaker_reasoner_jobs_status", JOBS.c.store, JOBS.c.status, JOBS.c.client)
_IDLE_MS = 20_000
_PATIENT = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""Options of libpq: a database whose machine is gone is an error after 20 s, and not a wait for hours."""


class Database:
    """A database that may be unreachable for a while.

    Args:
        url: of SQLAlchemy.

    Raises:
        ServerError: the URL is malformed, or the database cannot be used now.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            libpq = parsed.drivername in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2")
            given = {key: value for key, value in _PATIENT.items() if key not in parsed.query}
            self._engine = create_engine(
                parsed, pool_pre_ping=True, connect_args=given if libpq else {}
            )
            self.is_file = parsed.get_backend_name() == "sqlite"
            if self.is_file:
                database_event.listen(self._engine, "connect", _durable)
            elif parsed.get_backend_name() == "postgresql":
                database_event.listen(self._engine, "connect", _impatient)
        except (ArgumentError, ImportError) as error:
            raise ServerError(
                f"--database: {' '.join(str(error).split())}; expected a SQLAlchemy URL as "
                "postgresql+psycopg://USER@HOST/NAME, and its driver installed (the extra "
                "'postgresql')"
            ) from error
        self.where = parsed.render_as_string(hide_password=True)
        self.has_clock = self._engine.dialect.name == "postgresql"
        try:
            with self._engine.begin() as connection:
                self._prepare(connection)
        except ServerError:
            self._engine.dispose()
            raise
        except SQLAlchemyError as error:
            self._engine.dispose()
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise ServerError(
                f"database {self.where}: {reason}; check --database, and that it can be written"
            ) from error

    @property
    def clock(self) -> Any:
        """The time in seconds since 1970, as an expression: by the database's clock, if servers share it."""
        if self.has_clock:
            return cast(func.extract("epoch", func.clock_timestamp()), Float)
        return literal(time.time())

    def now(self) -> float:
        """Return the time in seconds since 1970, as `clock`.

        Raises:
            StorageError: the database is out of reach.
        """
        if not self.has_clock:
            return time.time()
        with self.begin() as connection:
            return float(connection.scalar(select(self.clock)) or 0.0)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Begin a transaction.

        Raises:
            IntegrityError: a row exists already.
            StorageError: the database is full or out of reach.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            _log.warning("database %s: %s", self.where, reason)
            raise database_error(error) from error

    def _prepare(self, connection: Connection) -> None:
        """Make the tables, or add columns that those of an older version lack.

        Raises:
            ServerError: they are those of a later version.
        """
        if self.has_clock:  # several servers may be started at once
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        tables = inspect(connection)
        old = tables.has_table(JOBS.name)
        version = None
        if tables.has_table(_SCHEMA.name):
            version = connection.scalar(select(func.max(_SCHEMA.c.version)))
        if version is not None and version > _VERSION:
            raise ServerError(
                f"database {self.where}: its tables are of version {version}, those of this program of "
                f"version {_VERSION}; a later version has used it: update speaker-reasoner here"
            )
        if old:
            self._add_columns(connection)
        _metadata.create_all(connection)
        for index in JOBS.indexes:
            index.create(connection, checkfirst=True)
        if version != _VERSION:
            connection.execute(_SCHEMA.delete())
            connection.execute(insert(_SCHEMA).values(version=_VERSION))
        connection.execute(JOBS.select().limit(1)).all()

    def _add_columns(self, connection: Connection) -> None:
        """Add the columns that a table of an older version lacks, each of which may be null."""
        there = {one["name"] for one in inspect(connection).get_columns(JOBS.name)}
        for column in JOBS.columns:
            if column.name in there or not column.nullable:
                continue
            kind = column.type.compile(self._engine.dialect)
            connection.execute(text(f"ALTER TABLE {JOBS.name} ADD COLUMN {column.name} {kind}"))


def _durable(connection: Any, _: Any) -> None:
    """Configure a SQLite connection: commits are on the disk when they return, readers do not wait for writers."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _impatient(connection: Any, _: Any) -> None:
    """Configure a PostgreSQL connection: a process that hangs in a transaction loses its locks, and short statements
    are not compiled, because that takes longer than they do."""
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {_IDLE_MS}")
    cursor.execute("SET jit = off")
    cursor.close()
    connection.autocommit = False
