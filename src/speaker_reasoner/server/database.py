"""The database: its tables, how it is opened, and what its failures become.

Tables of older versions get the columns that were added since. SQLite and PostgreSQL are tested.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
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
    inspect,
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
    Column("found", Integer),
    Column("error", Text),
    Column("changed", Float),
    Column("removed", Float),
    Column("owner", String(32)),
    Column("lease", Float),
    Column("position_s", Float),
    Column("language", String(16)),
)
"""One row a job; `owner` is the process that works on it, until `lease` (seconds since 1970)."""
CORRECTIONS = Table(
    "speaker_reasoner_corrections",
    _metadata,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("operation", Text, nullable=False),
)


class Database:
    """A database that may be out of reach for a while.

    Args:
        url: of SQLAlchemy.

    Raises:
        ServerError: the URL is none, or the database cannot be used now.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            self._engine = create_engine(parsed, pool_pre_ping=True)
            if parsed.get_backend_name() == "sqlite":
                database_event.listen(self._engine, "connect", _durable)
        except (ArgumentError, ImportError) as error:
            raise ServerError(
                f"--database: {' '.join(str(error).split())}; expected a SQLAlchemy URL as "
                "postgresql+psycopg://USER@HOST/NAME, and its driver installed (the extra "
                "'postgresql')"
            ) from error
        self.where = parsed.render_as_string(hide_password=True)
        try:
            _metadata.create_all(self._engine)
            self._add_columns()
        except SQLAlchemyError as error:
            self._engine.dispose()
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            raise ServerError(
                f"database {self.where}: {reason}; check --database, and that it can be written"
            ) from error

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction. A row that exists already is the caller's affair.

        Raises:
            IntegrityError: such a row.
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

    def _add_columns(self) -> None:
        """Add the columns that a table of an older version lacks, each of which may be null."""
        there = {one["name"] for one in inspect(self._engine).get_columns(JOBS.name)}
        for column in JOBS.columns:
            if column.name in there or not column.nullable:
                continue
            kind = column.type.compile(self._engine.dialect)
            with self._engine.begin() as connection:
                connection.execute(text(f"ALTER TABLE {JOBS.name} ADD COLUMN {column.name} {kind}"))
        with self._engine.begin() as connection:
            connection.execute(JOBS.select().limit(1)).all()


def _durable(connection: Any, _: Any) -> None:
    """What SQLite has said to be written is on the disk, and readers do not wait."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
