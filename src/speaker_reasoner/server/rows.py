"""The rows of a store's jobs. The store looks after their files.

A row is changed only if it is as it was when it was read, because any process may end, correct and remove a job. A
process writes about a job that it works on only while the job's `token` is that of its lease.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, case, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from .database import CORRECTIONS, JOBS, Database
from .events import Unnumbered
from .jobs import WAITING, Job, is_job_id, job_of_row, parse_operation_row, undamaged

NEXT_TOKEN = func.coalesce(JOBS.c.token, 0) + 1


class Rows:
    """Jobs of a store, as the database has them.

    Attributes:
        owner: this process, as rows name it.
        shared: whether jobs wait for any server with room, and not for this one; see `shared`.
    """

    owner: str
    shared = False
    _id: str
    _lease_s: float
    _database: Database
    _erased: set[str]

    def now(self) -> float:
        """Return the time in seconds since 1970, by the clock of the jobs' times.

        Raises:
            StorageError: the database is out of reach.
        """
        return self._database.now()

    def get(self, job_id: str, *, removed: bool = False) -> Job | None:
        """Return a job by its id; `None` if there is none, or it is in the bin and `removed` is not set."""
        bin_too = () if removed else (JOBS.c.removed.is_(None),)
        row = self._select(JOBS.c.id == job_id, *bin_too)
        return row[0] if row else None

    def newest(
        self,
        most: int,
        *,
        after: Job | None = None,
        search: str = "",
        since: float | None = None,
        until: float | None = None,
        status: str | None = None,
        removed: bool = False,
    ) -> list[Job]:
        """Return jobs, newest first.

        Args:
            most: greatest number of jobs.
            after: only those that follow this one.
            search: text in their names, ignoring case.
            since, until: bounds of the time when they were created, in seconds since 1970.
            status: only jobs in this state.
            removed: those in the bin, instead of the others.
        """
        where: list[Any] = [JOBS.c.removed.is_not(None) if removed else JOBS.c.removed.is_(None)]
        where.append(JOBS.c.waiter.is_(None))
        if after is not None:
            same = and_(JOBS.c.created == after.created, JOBS.c.id > after.id)
            where.append(or_(JOBS.c.created < after.created, same))
        if search:
            where.append(JOBS.c.name.icontains(search, autoescape=True))
        if since is not None:
            where.append(JOBS.c.created >= since)
        if until is not None:
            where.append(JOBS.c.created < until)
        if status is not None:
            where.append(JOBS.c.status == status)
        return self._select(*where, limit=most)

    def corrections(self, job: Job) -> list[dict[str, Any]]:
        """Operations on a job's transcript, in order.

        Raises:
            RequestError: 500, one of them is damaged.
        """
        query = select(CORRECTIONS.c.operation).where(CORRECTIONS.c.job == job.id)
        with self._database.begin() as connection:
            texts = connection.scalars(query.order_by(CORRECTIONS.c.number)).all()
        with undamaged(job, "a correction"):
            return [parse_operation_row(text) for text in texts]

    def _select(self, *where: Any, limit: int | None = None) -> list[Job]:
        count = (
            select(func.count())
            .where(CORRECTIONS.c.job == JOBS.c.id)
            .scalar_subquery()
            .label("revision")
        )
        query = select(JOBS, count).where(JOBS.c.store == self._id, *where)
        query = query.order_by(JOBS.c.created.desc(), JOBS.c.id).limit(limit)
        with self._database.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            job_of_row(row)
            for row in rows
            if is_job_id(row["id"]) and row["id"] not in self._erased
        ]

    def _leased(self) -> dict[str, Any]:
        """Return the column values of a job that this server leases when it begins or continues."""
        lease = self._database.clock + self._lease_s
        return {"owner": self.owner, "lease": lease, "token": NEXT_TOKEN}

    def _held(self, job: Job) -> list[Any]:
        """Return the condition that no other process has leased a job since this lease."""
        return [
            JOBS.c.id == job.id,
            JOBS.c.owner == self.owner,
            func.coalesce(JOBS.c.token, 0) == job.token,
        ]

    def _mine(self, job: Job) -> Any:
        """Return an update of a job that is under way here."""
        return update(JOBS).where(*self._held(job), JOBS.c.status.in_(WAITING))

    def change(self, job: Job, *, events: Sequence[Unnumbered] = (), **values: Any) -> bool:
        """Set columns of a job, if it is still under way in this process; return whether it was.

        Args:
            events: appended in the same transaction, where events are in the database; see `shared`.
        """
        if "error" in values:
            values["error"] = json.dumps(values["error"]) if values["error"] else None
        values = {"changed": self._database.clock, **values}
        with self._database.begin() as connection:
            if not connection.execute(self._mine(job).values(values)).rowcount:
                return False
            self._tell(connection, job, events, ended=values.get("status") == "done")
        return True

    def _tell(
        self, connection: Connection, job: Job, events: Sequence[Unnumbered], *, ended: bool
    ) -> None:
        """Append events in the transaction of a change."""

    def cancel(self, job: Job) -> bool:
        """End a job that is under way, in whatever process; return whether it was. A job that transcribes a chunk again
        keeps its transcript."""
        query = update(JOBS).where(JOBS.c.id == job.id, JOBS.c.status.in_(WAITING))
        status = case((JOBS.c.listen.is_(None), "cancelled"), else_="done")
        return self._update(query, status=status, listen=None, token=NEXT_TOKEN)

    def retry(self, job: Job) -> bool:
        """Queue a job that failed or was cancelled once more; return whether it was."""
        query = update(JOBS).where(
            JOBS.c.id == job.id,
            JOBS.c.status.in_(("failed", "cancelled")),
            JOBS.c.removed.is_(None),
        )
        return self._update(query, status="queued", error=None, **self._leased())

    def correct(self, job: Job, revision: int, operation: Mapping[str, Any]) -> bool:
        """Append an operation, if the job is done and `revision` is still its number of operations; return whether it
        was appended."""
        row = {"job": job.id, "number": revision + 1, "operation": json.dumps(operation)}
        done = update(JOBS).where(
            JOBS.c.id == job.id, JOBS.c.status == "done", JOBS.c.removed.is_(None)
        )
        try:
            with self._database.begin() as connection:
                if not connection.execute(done.values(changed=self._database.clock)).rowcount:
                    return False
                connection.execute(insert(CORRECTIONS).values(row))
        except IntegrityError:
            return False
        return True

    def listen(self, job: Job, chunk: int, *, keep: bool = True) -> bool:
        """Queue a job to transcribe a chunk again, if it is done, and was not corrected since it was read; return
        whether it was queued."""
        count = select(func.count()).where(CORRECTIONS.c.job == job.id).scalar_subquery()
        query = update(JOBS).where(
            JOBS.c.id == job.id,
            JOBS.c.status == "done",
            JOBS.c.removed.is_(None),
            count == job.revision,
        )
        values = {"status": "queued", "listen": chunk, "listen_keep": int(keep), "error": None}
        return self._update(query, **values, **self._leased())

    def heard_again(
        self,
        job: Job,
        operation: Mapping[str, Any],
        changed: float,
        events: Sequence[Unnumbered] = (),
    ) -> bool:
        """Append the new transcript of a chunk, and end the job; return whether it was under way here.

        Args:
            changed: time of the change, as `Job.changed`.
            events: as for `change`.
        """
        row = {"job": job.id, "number": job.revision + 1, "operation": json.dumps(operation)}
        ended = self._mine(job).values(status="done", listen=None, changed=changed)
        with self._database.begin() as connection:
            if not connection.execute(ended).rowcount:
                return False
            connection.execute(insert(CORRECTIONS).values(row))
            self._tell(connection, job, events, ended=True)
        return True

    def _update(self, query: Any, **values: Any) -> bool:
        with self._database.begin() as connection:
            values = {"changed": self._database.clock, **values}
            return bool(connection.execute(query.values(values)).rowcount)

    def remove(self, job: Job) -> bool:
        """Put a job that has ended into the bin; return whether it had ended, and was not there yet."""
        ended = update(JOBS).where(
            JOBS.c.id == job.id, JOBS.c.status.not_in(WAITING), JOBS.c.removed.is_(None)
        )
        return self._update(ended, removed=self._database.clock)

    def restore(self, job: Job) -> bool:
        """Take a job out of the bin; return whether it was there."""
        binned = update(JOBS).where(JOBS.c.id == job.id, JOBS.c.removed.is_not(None))
        return self._update(binned, removed=None)

    def outlived(self, keep_s: float | None, bin_s: float) -> list[Job]:
        """Return jobs to erase: removed more than `bin_s` ago, or ended and unchanged for `keep_s`."""
        now = self._database.clock
        old = JOBS.c.removed < now - bin_s
        if keep_s is not None:
            old = or_(old, func.coalesce(JOBS.c.changed, JOBS.c.created) < now - keep_s)
        return self._select(JOBS.c.status.not_in(WAITING), old)
