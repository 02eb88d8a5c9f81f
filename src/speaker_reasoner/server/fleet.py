"""The servers of a store: each writes to the database that it lives, and its models."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import delete, insert, select, update

from .database import SERVERS, Database

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A server's entry for the others that share its store.

    Attributes:
        role: `server`, `worker`, or `front`, which has no engine; `starting` before it is any of them.
        version: of the program.
        model: that it transcribes with; empty without an engine.
        offer: its offer, see `Offer`; `None` without an engine.
    """

    role: str
    version: str
    model: str = ""
    offer: dict[str, Any] | None = None


def made_of(kind: type[T], data: Mapping[str, Any]) -> T:
    """Make a dataclass of its fields; fields that only a later version has are left out.

    Raises:
        TypeError: a field is missing.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in data.items() if name in names})


class Fleet:
    """The servers of a store, and this one among them.

    Args:
        database: that they share.
        store: its id.
        own: the name of this server.
        lease_s: how long a server counts as alive after its last sign of life.

    Attributes:
        seen: the servers that lived at this one's last sign of life, by name.
    """

    def __init__(self, database: Database, store: str, own: str, lease_s: float) -> None:
        self.own = own
        self._database = database
        self._store = store
        self._lease_s = lease_s
        self._announcement: str | None = None
        self.seen: Mapping[str, Announcement] = {}

    def announce(self, announcement: Announcement) -> None:
        """Set this server's announcement, which `show` writes from now on."""
        self._announcement = json.dumps(asdict(announcement))

    def show(self) -> None:
        """Write a sign of life, once this server is announced.

        Raises:
            StorageError: the database is out of reach.
        """
        if self._announcement is None:
            return
        now = {"seen": self._database.clock, "announcement": self._announcement}
        with self._database.begin() as connection:
            there = update(SERVERS).where(SERVERS.c.name == self.own).values(now)
            if not connection.execute(there).rowcount:
                row = {"name": self.own, "store": self._store, **now}
                connection.execute(insert(SERVERS).values(row))
            long_ago = self._database.clock - max(86_400.0, 10 * self._lease_s)
            connection.execute(delete(SERVERS).where(SERVERS.c.seen < long_ago))
        self.seen = self.living()

    def leave(self) -> None:
        """Remove this server from those that live.

        Raises:
            StorageError: the database is out of reach.
        """
        self._announcement = None
        with self._database.begin() as connection:
            connection.execute(delete(SERVERS).where(SERVERS.c.name == self.own))

    def living(self) -> dict[str, Announcement]:
        """Return the servers that live, by name, the latest sign of life first.

        Raises:
            StorageError: the database is out of reach.
        """
        alive = SERVERS.c.seen >= self._database.clock - self._lease_s
        query = select(SERVERS.c.name, SERVERS.c.announcement).where(
            SERVERS.c.store == self._store, alive
        )
        with self._database.begin() as connection:
            rows = connection.execute(query.order_by(SERVERS.c.seen.desc(), SERVERS.c.name)).all()
        known = {}
        for name, text in rows:
            try:
                known[str(name)] = made_of(Announcement, json.loads(text))
            except (ValueError, TypeError, AttributeError) as error:
                _log.warning("server %s: its announcement cannot be read: %s", name, error)
        return known
