"""The jobs of a store: those under way in this process, and the states of the others."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from typing import Any, Literal

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field

from ..longform import Transcriber
from .events import ANEW, Event, EventReader
from .failures import RequestError, no_worker
from .jobruns import JobRun
from .jobs import Job
from .keeper import Keeper, Rules
from .openai import sse
from .places import Places
from .runs import Defaults
from .shared import SharedStore
from .store import Store
from .transcription import PING_S
from .worker import Worker

_AT_ONCE = 2
"""Number of jobs that are taken at once, so that other servers get some, too (assumed)."""
_LOOK_S = 0.5
"""Interval at which a stream looks for events of another server (assumed)."""
_log = logging.getLogger(__name__)


class JobsAsked(BaseModel):
    """A client's selection of jobs to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="So many at most.")
    after: str | None = Field(
        None, max_length=100, description="Those that follow this job: the last of the page before."
    )
    search: str = Field("", max_length=300, description="In their names.")
    since: float | None = Field(None, ge=0, le=1e11, description="Begun at or after: Unix time.")
    until: float | None = Field(None, ge=0, le=1e11, description="Begun before: Unix time.")
    status: Literal["queued", "running", "done", "failed", "cancelled"] | None = None
    removed: bool = Field(False, description="Those in the bin, instead of the others.")


class JobManager:
    """Starts jobs, ends them, and reports their states.

    Args:
        store: of the jobs.
        places: of the queue.
        defaults: for hints that clients do not give.
        rules: of leases, and of how long things are kept.
        engine: opens recordings, its worker, and its model's name; `None` where other servers have engines.

    Attributes:
        keeper: the heartbeat.
        closing: whether streams end, because the server stops.
    """

    def __init__(
        self,
        store: Store,
        places: Places,
        defaults: Defaults,
        rules: Rules,
        engine: tuple[Transcriber, Worker, str] | None,
    ) -> None:
        self.store = store
        self.closing = False
        self._engine = engine
        self._places = places
        self._defaults = defaults
        self._rules = rules
        self._runs: dict[str, JobRun] = {}
        self.keeper = Keeper(
            store,
            rules,
            runs=lambda: dict(self._runs),
            launch=lambda job: self.launch(job, resumed=True),
            submit=self._submit,
            drop=self._drop,
            claim=self._claim if store.shared else None,
        )

    def stop(self) -> None:
        """End the heartbeat, and leave jobs under way to the next start."""
        self.keeper.stop()
        for run in list(self._runs.values()):
            run.rest()

    def begin(self, job: Job, *, resumed: bool = False) -> None:
        """Start a job that was just queued: here, or on any server with room."""
        if isinstance(self.store, SharedStore):
            self.store.line_up(job)
            self.keeper.claim_soon()
        else:
            self.launch(job, resumed=resumed)

    def begin_again(self, job_id: str, *, resumed: bool = False) -> None:
        """Start a job that was just queued again."""
        if (job := self.store.get(job_id)) is not None:
            self.begin(job, resumed=resumed)

    def _claim(self) -> int:
        """Take jobs from the shared queue, as far as there is room here; return their number."""
        store = self.store
        if self._engine is None or not isinstance(store, SharedStore):
            return 0
        jobs, requests = self._engine[1].rooms()
        taken = store.claim(self._engine[2], min(jobs, _AT_ONCE), requests, list(self._runs))
        for job in taken:
            before = self._runs.get(job.id)
            if before is not None:  # it was ended elsewhere, and begun again
                self._engine[1].cancel(before)
                before.close()
            if store.is_hopeless(job):
                _log.warning("%s: %d servers have died over it", job.id, job.losses)
                ended = (
                    {"status": "failed"}
                    if job.listen is None
                    else {"status": "done", "listen": None}
                )
                store.change(job, **ended, error=_worker_lost(job).body()["error"])
            else:
                self.launch(job, resumed=True)
        return len(taken)

    def _submit(self, run: JobRun) -> None:
        assert self._engine is not None, "without an engine there are no runs"
        self._engine[1].submit(run)

    def launch(self, job: Job, *, resumed: bool = False) -> JobRun:
        run = self.hold(job, resumed=resumed)
        self._submit(run)
        return run

    def hold(self, job: Job, *, resumed: bool = False) -> JobRun:
        """Keep a job for this process while its recording is still being made; `release` starts it."""
        assert self._engine is not None, "without an engine there are no runs"
        run = JobRun(
            self._engine[0],
            self.store,
            job,
            self._defaults,
            resumed=resumed,
            finished=self._forget,
            trouble=self.keeper.wake,
            leased_until=time.monotonic() + self._rules.lease_s,
        )
        self._runs[job.id] = run
        return run

    def release(self, run: JobRun) -> None:
        """Queue a job that was held, unless it was ended."""
        if not run.over:
            self._submit(run)

    def _forget(self, run: JobRun) -> None:
        if self._runs.get(run.job.id) is run:
            del self._runs[run.job.id]

    def _drop(self, run: JobRun) -> None:
        """Forget a run that is another process's now, or was ended elsewhere."""
        if self._engine is not None:
            self._engine[1].cancel(run)
        run.job = self.store.get(run.job.id, removed=True) or run.job
        run.close()

    def job(self, job_id: str) -> Job:
        """Return a job as it is now.

        Raises:
            RequestError: 404, there is none of this id.
        """
        run = self._runs.get(job_id)
        job = run.job if run is not None and not self.store.shared else self.store.get(job_id)
        if job is None:
            raise no_job(job_id)
        return run.job if run is not None and run.job.token == job.token else job

    def newest(self, asked: JobsAsked) -> dict[str, Any]:
        """Return a page of jobs as clients read them, newest first.

        Raises:
            RequestError: 404, there is no job `after`.
        """
        after = None
        if asked.after is not None:
            after = self.store.get(asked.after, removed=True)
            if after is None:
                raise no_job(asked.after)
        jobs = self.store.newest(
            asked.limit + 1,
            after=after,
            search=asked.search,
            since=asked.since,
            until=asked.until,
            status=asked.status,
            removed=asked.removed,
        )
        runs = dict(self._runs)
        shown = [runs[job.id].job if job.id in runs else job for job in jobs[: asked.limit]]
        return {"data": [self.body(job) for job in shown], "has_more": len(jobs) > asked.limit}

    def body(self, job: Job) -> dict[str, Any]:
        """Return a job as clients read it."""
        run = self._runs.get(job.id)
        if run is not None and run.job.token != job.token:
            run = None  # it goes on elsewhere
        ended = job.status == "done"
        position_s = job.duration_s if ended else job.position_s * job.under_way
        return {
            "id": job.id,
            "name": job.name,
            "status": job.status,
            "created": job.created,
            "changed": job.changed,
            "duration": job.duration_s,
            "position": run.position_s if run is not None else position_s,
            "speakers": run.speakers if run is not None and job.under_way else job.speaker_count,
            "queue_position": self._position(job, run),
            "error": job.error,
            "problem": run.problem if run is not None else self.nobody(job),
            "revision": job.revision,
            "removed": job.removed,
        }

    def _position(self, job: Job, run: JobRun | None) -> int | None:
        if run is not None and self._engine is not None:
            return self._engine[1].position(run)
        return self.store.place(job) if isinstance(self.store, SharedStore) else None

    def nobody(self, job: Job) -> str | None:
        """Say why a waiting job does not begin; `None` if nothing prevents it."""
        store = self.store
        if not isinstance(store, SharedStore) or not job.under_way:
            return None
        models = {one.model for one in store.fleet.seen.values() if one.offer is not None}
        fits = models if job.model is None else models & {job.model}
        return None if fits else str(no_worker(job.model))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """End a job that is under way; one that has ended stays as it is, and is never removed."""
        job = self.job(job_id)
        if self.store.cancel(job):
            run = self._runs.get(job_id)
            if run is not None:
                self._drop(run)
        return self.body(self.job(job_id))

    def remove(self, job_id: str, *, erase: bool) -> dict[str, Any]:
        """Put a job that has ended into the bin, or erase it, in the bin or not.

        Raises:
            RequestError: 404, there is none of this id; 409, it is under way; 507, the disk is too full
                for the bin.
        """
        job = self.store.get(job_id, removed=erase) if job_id not in self._runs else None
        if job is None and job_id not in self._runs:
            raise no_job(job_id)
        if job is None or job.under_way:
            message = f"the job is under way; end it first with POST /v1/jobs/{job_id}/cancel"
            raise RequestError(409, message, code="job_under_way")
        if erase:
            if not self.store.erase(job):
                raise no_job(job_id)
        elif not self.store.remove(job):
            raise no_job(job_id)
        until = None if erase else time.time() + self._rules.bin_s
        return {"id": job.id, "deleted": True, "restorable_until": until}

    def restore(self, job_id: str) -> dict[str, Any]:
        """Take a job out of the bin.

        Raises:
            RequestError: 404, there is none of this id; 409, it is not in the bin.
        """
        job = self.store.get(job_id, removed=True)
        if job is None:
            raise no_job(job_id)
        if not self.store.restore(job):
            raise RequestError(409, "the job is not in the bin", code="job_not_removed")
        return self.body(replace(job, removed=None))

    def retry(self, job_id: str) -> dict[str, Any]:
        """Continue a job that failed or was cancelled, from its last finished chunk. One that waits for the disk or the
        database is tried at once.

        Raises:
            RequestError: 404, there is none of this id; 409, it is under way or done; what
                `Worker.reserve` raises.
        """
        job, waits = self.job(job_id), self._runs.get(job_id)
        if waits is not None and waits.problem is not None:
            self.keeper.wake()
            return self.body(job)
        with ExitStack() as stack:
            stack.callback(self._places.reserve(job.client).release)
            if not self.store.retry(job):
                message = (
                    f"the job is {self.job(job_id).status}; only one that failed or was cancelled"
                )
                raise RequestError(409, f"{message} can be tried again", code="job_not_failed")
            self.begin_again(job_id, resumed=True)
        return self.body(self.job(job_id))

    @property
    def waiting_for_storage(self) -> int:
        """The number of jobs that continue when the storage does."""
        return sum(run.problem is not None for run in list(self._runs.values()))

    async def events(self, job_id: str, after: int, *, follow: bool = False) -> AsyncIterator[str]:
        """Yield the events of a job as text: those after a number, then new ones, until it has ended.

        Args:
            follow: continue after the end, with an event `job` for each correction.
        """
        job = await run_in_threadpool(self.job, job_id)
        reader = self.store.event_reader(job, after)
        last_body: dict[str, Any] = {}
        end_sent = after > 0  # whoever goes on learns it from the state
        quiet_since = time.monotonic()
        try:
            while True:
                run = self._runs.get(job_id)
                with run.watch() if run is not None else nullcontext(asyncio.Event()) as changed:
                    over = run is None or run.over
                    job = run.job if run is not None else await run_in_threadpool(self.job, job_id)
                    body, last = self.body(job), over and not (job.under_way or follow)
                    if body != last_body and not last:
                        last_body, quiet_since = body, time.monotonic()
                        yield sse(body, event="job")
                    events, failure = await run_in_threadpool(_news, reader)
                    for event in events:
                        quiet_since = time.monotonic()
                        end_sent = end_sent or event.name == "done"
                        yield sse(event.data, event=event.name, number=event.number)
                    if failure is not None:
                        raise failure
                    if last:
                        if job.status == "done" and not end_sent:  # killed between state and event
                            yield sse({"revision": job.revision}, event="done")
                        yield sse(body, event="job")
                        return
                    if time.monotonic() - quiet_since > PING_S:
                        quiet_since = time.monotonic()
                        yield ": still here\n\n"
                    with suppress(TimeoutError):
                        await asyncio.wait_for(
                            changed.wait(), _LOOK_S if self.store.shared else 1.0
                        )
                    if self.closing and not changed.is_set():
                        return
        except RequestError as error:
            yield sse(error.body(), event="error")
            if error.code == "job_damaged":
                yield sse(self.body(job), event="job")


def _news(reader: EventReader) -> tuple[list[Event], RequestError | None]:
    """Return new events that are not void, and the error of the one after them, if it is damaged."""
    events: list[Event] = []
    try:
        for event in reader.new():
            if event.name == ANEW:
                events.clear()
            events.append(event)
    except RequestError as error:
        return events, error
    return events, None


def _worker_lost(job: Job) -> RequestError:
    return RequestError(
        500,
        f"{job.losses} servers died while they worked on this job, and none of them finished a chunk of "
        "it; see their logs, and try it again on a machine with more memory",
        code="worker_lost",
    )


def no_job(job_id: str) -> RequestError:
    """Return the error 404: there is no such job."""
    return RequestError(
        404,
        f"there is no job {job_id!r}; those that were removed are in GET /v1/jobs?removed=true",
        code="job_not_found",
    )
