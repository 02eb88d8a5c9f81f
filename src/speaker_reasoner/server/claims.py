"""Chooses the next jobs for a server from a queue that several servers share; PostgreSQL alone.

Clients take turns: the next job is of the client with the fewest under way, and among those of the client whose last
job was given out longest ago. Requests with an open connection come before jobs. A job whose server did not renew its
lease waits like any other.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select, text, update

from .database import JOBS
from .jobs import WAITING
from .rows import NEXT_TOKEN

_TURNS = 32
"""Number of jobs of a client that are looked at (assumed)."""
_SHOWN = 5000
"""Number of waiting jobs whose position clients see (assumed)."""


def claim(
    connection: Connection,
    store: str,
    server: str,
    model: str,
    clock: Any,
    lease_s: float,
    most: int,
    *,
    waited_for: bool,
    running: Collection[str] = (),
) -> list[str]:
    """Lease jobs to a server.

    Args:
        connection: in a transaction.
        store: of the jobs.
        server: that gets them.
        model: of that server.
        clock: now, by the database.
        lease_s: duration of the lease.
        most: number of jobs.
        waited_for: choose requests with an open connection, or else jobs.
        running: jobs that the server works on. It does not know of others that are leased to it, because the
            database was lost at that moment.

    Returns:
        Their ids, the first to begin first.
    """
    forgotten = and_(JOBS.c.owner == server, JOBS.c.id.not_in(list(running)))
    died = and_(JOBS.c.owner != server, JOBS.c.status == "running")
    free = [
        JOBS.c.store == store,
        JOBS.c.status.in_(WAITING),
        or_(JOBS.c.owner.is_(None), JOBS.c.lease.is_(None), JOBS.c.lease < clock, forgotten),
        or_(JOBS.c.model.is_(None), JOBS.c.model == model),
        JOBS.c.waiter.is_not(None) if waited_for else JOBS.c.waiter.is_(None),
    ]
    ids = list(connection.scalars(_in_turn(store, free, clock, 4 * most + 16)))
    if not ids:
        return []
    order = case({job_id: place for place, job_id in enumerate(ids)}, value=JOBS.c.id)
    mine = select(JOBS.c.id).where(JOBS.c.id.in_(ids), *free).order_by(order).limit(most)
    taken = list(connection.scalars(mine.with_for_update(skip_locked=True)))
    connection.execute(
        update(JOBS)
        .where(JOBS.c.id.in_(taken))
        .values(
            owner=server,
            lease=clock + lease_s,
            token=NEXT_TOKEN,
            claimed=clock,
            losses=func.coalesce(JOBS.c.losses, 0) + case((died, 1), else_=0),
        )
    )
    return sorted(taken, key=ids.index)


def queue(connection: Connection, store: str, clock: Any) -> dict[str | None, dict[str, int]]:
    """Count how many jobs are to be taken before each job that no server has taken.

    Returns:
        The counts by job, by the model that the jobs are for; of the first `_SHOWN` jobs.
    """
    free = [
        JOBS.c.store == store,
        JOBS.c.status == "queued",
        or_(JOBS.c.owner.is_(None), JOBS.c.lease.is_(None), JOBS.c.lease < clock),
        JOBS.c.waiter.is_(None),
    ]
    ids = list(connection.scalars(_in_turn(store, free, clock, _SHOWN, _SHOWN)))
    if not ids:
        return {}
    query = select(JOBS.c.id, JOBS.c.model).where(JOBS.c.id.in_(ids))
    models = {row.id: row.model for row in connection.execute(query)}
    places: dict[str | None, dict[str, int]] = {}
    for job_id in ids:
        if job_id in models:  # else it was erased just now
            before = places.setdefault(models[job_id], {})
            before[job_id] = len(before)
    return places


def _in_turn(store: str, free: list[Any], clock: Any, most: int, turns: int = _TURNS) -> Any:
    """The ids of free jobs, in the order in which they are to be taken: at most `most`, and `turns` of a client."""
    turn = func.row_number().over(partition_by=JOBS.c.client, order_by=(JOBS.c.created, JOBS.c.id))
    every = select(JOBS.c.id, JOBS.c.created, JOBS.c.client, turn.label("turn")).where(*free)
    waiting = select(every.subquery()).where(text(f"turn <= {turns}")).cte("waiting")
    who = select(waiting.c.client).distinct().subquery()
    theirs = [JOBS.c.store == store, JOBS.c.client == who.c.client]
    under_way = select(func.count()).where(
        *theirs, JOBS.c.status.in_(WAITING), JOBS.c.owner.is_not(None), JOBS.c.lease >= clock
    )
    served = select(func.max(JOBS.c.claimed)).where(*theirs)
    clients = (
        select(
            who.c.client,
            under_way.scalar_subquery().label("under_way"),
            served.scalar_subquery().label("served"),
        )
        .cte("clients")
        .prefix_with("MATERIALIZED")
    )
    return (
        select(waiting.c.id)
        .join(clients, clients.c.client.is_not_distinct_from(waiting.c.client))
        .order_by(
            waiting.c.turn + clients.c.under_way,
            clients.c.served.asc().nulls_first(),
            waiting.c.created,
            waiting.c.id,
        )
        .limit(most)
    )
