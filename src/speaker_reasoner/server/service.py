"""What stands behind the routes: one model, its worker, the store, and the jobs under way."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from ..engines.base import Engine
from ..errors import ServerError, SettingsError
from ..longform import Transcriber
from ..transcript import Transcript
from ..voices.store import StoredClip
from . import intake
from .chat import parse_chat
from .corrections import History, apply, replay
from .documents import load_document, load_original
from .events import EventReader
from .failures import RequestError
from .forms import (
    Abilities,
    Hints,
    JobForm,
    TranscriptionForm,
    check_job,
    check_transcription,
    parse_form,
)
from .jobruns import EVENTS, JobRun
from .jobs import Job, undamaged
from .keeper import Keeper, Rules
from .lines import Document, chunk_spans
from .openai import sse
from .operations import Listen, Operation
from .runs import Defaults, RequestRun
from .sound import Pcm, peaks_of, recording_file
from .store import Store
from .transcription import PING_S, Transcription, too_slow
from .turns import Turns
from .uploads import (
    FILE,
    Limits,
    ReceivedForm,
    allowed_file,
    display_name,
    read_json,
    receive,
)
from .worker import Worker

T = TypeVar("T")

_DECODERS = 2
_CHAT_BYTES = 64 * 1024**2


class JobsAsked(BaseModel):
    """Which jobs a client wants to see."""

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


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How a server runs.

    Attributes:
        store: folder of jobs and uploads.
        database: SQLAlchemy URL; a SQLite file in the store if `None`.
        api_key: that requests must carry; `None` on loopback only.
        batch: dialogues at once.
        queue: recordings that may wait.
        limits: of what clients send.
        answer_s: longest time in which a request is answered; jobs have no such limit.
        allowed: folders whose files may become jobs by their path, resolved.
        voices: a voice store, whose people clients may name; `None` for none.
        channel: 0-based channel of uploads to keep; all mixed down if `None`.
        defaults: for what clients do not say.
        engine_api: whether turns are answered, as chat completions.
        rules: of leases, and of how long things are kept.
        origins: other sites whose pages may use the server.
        aliases: other names of the model, each with the name it stands for; empty for whatever there is.
        root_path: under which a proxy shows the server; empty at the top.
    """

    store: Path
    database: str | None = None
    api_key: str | None = None
    batch: int = 16
    queue: int = 256
    limits: Limits = field(default_factory=Limits)
    answer_s: float = 3600.0
    allowed: tuple[Path, ...] = ()
    voices: Path | None = None
    channel: int | None = None
    defaults: Defaults = field(default_factory=Defaults)
    engine_api: bool = False
    rules: Rules = field(default_factory=Rules)
    origins: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    root_path: str = ""


class Service:
    """One model that serves requests and jobs.

    Args:
        transcriber: opens recordings; its engine is asked by the worker alone.
        settings: of the server.

    Raises:
        ServerError, OutputError: the store cannot be used.
    """

    def __init__(self, transcriber: Transcriber, settings: ServiceSettings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        self.store = Store(settings.store, settings.database, settings.rules.lease_s)
        self.worker = Worker(
            transcriber.engine,
            batch=settings.batch,
            queue=settings.queue,
            registry=self.registry,
        )
        engine = transcriber.engine
        described = engine.describe()
        name = str(described.get("model", engine.name))
        self.model = Path(name).name if Path(name).is_absolute() else name
        self.profile = engine.profile
        recognises = "recogniser" in described
        for alias, meant in settings.aliases:
            if meant not in (self.model, ""):
                raise ServerError(f"--model-alias {alias}={meant}: this server has {self.model!r}")
        self.able = Abilities(
            self.model,
            tuple(alias for alias, _ in settings.aliases),
            None if recognises else self.profile.language,
            tuple(
                getattr(getattr(engine, "recogniser", None), "languages", ()) if recognises else ()
            ),
            described.get("word_times") is True,
        )
        self.created = int(time.time())
        self.closing = False
        self.turns = None
        if settings.engine_api:
            self.turns = _turns(engine, self.worker, self.model, settings.batch)
        self._transcriber = transcriber
        self._runs: dict[str, JobRun] = {}
        self._decoders = anyio.CapacityLimiter(_DECODERS)
        self.keeper = Keeper(
            self.store,
            settings.rules,
            runs=lambda: dict(self._runs),
            launch=lambda job: self._launch(job, resumed=True),
            submit=self.worker.submit,
            drop=self._drop,
        )

    def start(self) -> None:
        """Begin to work, with the jobs that were left."""
        self.worker.start()
        self.keeper.start()

    def drain(self) -> None:
        """Refuse new work and end event streams; for a signal handler."""
        self.closing = True
        self.worker.drain()

    def stop(self) -> None:
        """End after the round that is being written; jobs go on at the next start."""
        self.drain()
        self.worker.stop()
        self.keeper.stop()
        self.store.close()

    # Requests

    async def transcribe(self, request: Request) -> Transcription:
        """Take a recording in and let it wait for its turn.

        Raises:
            RequestError: it is not served.
            ClientDisconnect: the client is gone.
        """
        stack = ExitStack()
        try:
            place = self.worker.reserve()
            stack.callback(place.release)
            folder = stack.enter_context(self.store.incoming())
            received = await receive(request, folder, self.settings.limits)
            form = parse_form(TranscriptionForm, received.values)
            form, said = check_transcription(form, self.able)
            if received.file is None:
                raise _no_file("a file")
            form, stored = await run_in_threadpool(intake.add_stored, form, self.settings.voices)
            run = RequestRun(self._transcriber, folder, form, self.settings.defaults)
            stack.callback(self.worker.cancel, run)
            taken = self._take(received, folder, form, stored, lambda: run.cancelled)
            await self.connected(request, taken, lambda: self.worker.cancel(run))
            self.worker.submit(run, place)
        except BaseException:
            stack.close()
            raise
        return Transcription(run, self._with_names(form), said, self.settings.answer_s, stack)

    async def complete(self, request: Request) -> dict[str, Any]:
        """Write one turn of a dialogue that the client leads.

        Raises:
            RequestError: it is not served.
            ClientDisconnect: the client is gone.
        """
        assert self.turns is not None
        most = min(self.settings.limits.body_bytes, _CHAT_BYTES)
        with ExitStack() as stack:
            place = self.worker.reserve()
            stack.callback(place.release)
            form = parse_chat(await read_json(request, self.settings.limits, most), self.model)
            chat, clips = await self.turns.heard(form)
            asked, key = self.turns.request(form, chat, clips)
            turn, reply = self.turns.submit(asked, place)
        written = await self.connected(request, reply, lambda: self.worker.cancel(turn))
        self.turns.keep(asked, key, written)
        return self.turns.body(form, written)

    def _with_names(self, form: TranscriptionForm) -> TranscriptionForm:
        """A form with the names that its answer may hold."""
        names = [voice.name for voice in self.settings.defaults.voices]
        return (
            form
            if form.known_speaker_names
            else form.model_copy(update={"known_speaker_names": names})
        )

    async def connected(
        self, request: Request, work: Awaitable[T], abandon: Callable[[], None]
    ) -> T:
        """Do work as long as the client is there.

        Raises:
            ClientDisconnect: it hung up; the work was abandoned.
            RequestError: 504, the work took longer than a request may.
        """
        gone = asyncio.ensure_future(_gone(request))
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait(
                (gone, task),
                timeout=self.settings.answer_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task.done():
                return task.result()
            abandon()
            if gone.done():
                raise ClientDisconnect
            raise too_slow()
        finally:
            gone.cancel()
            task.cancel()
            await asyncio.gather(gone, task, return_exceptions=True)

    async def _take(
        self,
        received: ReceivedForm,
        folder: Path,
        hints: Hints,
        stored: Sequence[StoredClip],
        abandoned: Callable[[], bool] = lambda: False,
        path: Path | None = None,
    ) -> float:
        """Decode a recording and its voices as `intake.decode_all`, a few at a time."""
        longest_s = self.settings.limits.duration_s

        def decode_all() -> float:
            return intake.decode_all(
                received, folder, hints, stored, longest_s, abandoned, path, self.settings.channel
            )

        return await anyio.to_thread.run_sync(decode_all, limiter=self._decoders)

    # Jobs

    async def add_job(self, request: Request) -> dict[str, Any]:
        """Take a long recording in.

        Raises:
            RequestError: it is not served.
            ClientDisconnect: the client is gone before it was accepted.
        """
        with ExitStack() as stack:
            place = self.worker.reserve()
            stack.callback(place.release)
            folder = stack.enter_context(self.store.incoming())
            received = await receive(request, folder, self.settings.limits)
            form = parse_form(JobForm, received.values)
            said = check_job(form, self.able)
            if (received.file is None) == (form.path is None):
                raise _no_file("either a file or a path")
            path = None
            if form.path is not None:
                path = await run_in_threadpool(allowed_file, form.path, self.settings.allowed)
            form, stored = await run_in_threadpool(intake.add_stored, form, self.settings.voices)
            gone = threading.Event()
            taken = self._take(received, folder, form, stored, gone.is_set, path)
            duration_s = await self.connected(request, taken, gone.set)
            found = received.file.name if received.file else display_name(str(path))
            job = await run_in_threadpool(
                self.store.add,
                folder,
                form.name or found,
                duration_s,
                form.speakers,
                form.known_speaker_names,
                form.language,
            )
            self._launch(job)
        return {**self.body(job), "warnings": said} if said else self.body(job)

    def _launch(self, job: Job, *, resumed: bool = False) -> JobRun:
        run = JobRun(
            self._transcriber,
            self.store,
            job,
            self.settings.defaults,
            resumed=resumed,
            finished=self._forget,
            trouble=self.keeper.wake,
            leased_until=time.monotonic() + self.settings.rules.lease_s,
        )
        self._runs[job.id] = run
        self.worker.submit(run)
        return run

    def _forget(self, run: JobRun) -> None:
        if self._runs.get(run.job.id) is run:
            del self._runs[run.job.id]

    def _drop(self, run: JobRun) -> None:
        """Let go of a run that is not this process's any more, or has ended elsewhere."""
        self.worker.cancel(run)
        run.job = self.store.get(run.job.id, removed=True) or run.job
        run.close()

    def job(self, job_id: str) -> Job:
        """A job as it is now.

        Raises:
            RequestError: 404, there is none of this id.
        """
        run = self._runs.get(job_id)
        job = run.job if run is not None else self.store.get(job_id)
        if job is None:
            raise _no_job(job_id)
        return job

    def newest(self, asked: JobsAsked) -> dict[str, Any]:
        """A page of jobs as clients read them, newest first.

        Raises:
            RequestError: 404, there is no job `after`.
        """
        after = None
        if asked.after is not None:
            after = self.store.get(asked.after, removed=True)
            if after is None:
                raise _no_job(asked.after)
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
        """A job as clients read it."""
        run = self._runs.get(job.id)
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
            "speakers": run.speakers if run is not None and job.under_way else job.found,
            "queue_position": self.worker.position(run) if run is not None else None,
            "error": job.error,
            "problem": run.problem if run is not None else None,
            "revision": job.revision,
            "removed": job.removed,
        }

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
            raise _no_job(job_id)
        if job is None or job.under_way:
            message = f"the job is under way; end it first with POST /v1/jobs/{job_id}/cancel"
            raise RequestError(409, message, code="job_under_way")
        if erase:
            self.store.erase(job)
        elif not self.store.remove(job):
            raise _no_job(job_id)
        until = None if erase else time.time() + self.settings.rules.bin_s
        return {"id": job.id, "deleted": True, "restorable_until": until}

    def restore(self, job_id: str) -> dict[str, Any]:
        """Take a job out of the bin.

        Raises:
            RequestError: 404, there is none of this id; 409, it is not in the bin.
        """
        job = self.store.get(job_id, removed=True)
        if job is None:
            raise _no_job(job_id)
        if not self.store.restore(job):
            raise RequestError(409, "the job is not in the bin", code="job_not_removed")
        return self.body(replace(job, removed=None))

    def retry(self, job_id: str) -> dict[str, Any]:
        """Let a job that failed or was cancelled go on from its last finished chunk. One that waits
        for the disk or the database tries at once.

        Raises:
            RequestError: 404, there is none of this id; 409, it is under way or done; what
                `Worker.reserve` raises.
        """
        job, waits = self.job(job_id), self._runs.get(job_id)
        if waits is not None and waits.problem is not None:
            self.keeper.wake()
            return self.body(job)
        with ExitStack() as stack:
            stack.callback(self.worker.reserve().release)
            if not self.store.retry(job):
                message = (
                    f"the job is {self.job(job_id).status}; only one that failed or was cancelled"
                )
                raise RequestError(409, f"{message} can be tried again", code="job_not_failed")
            run = self._launch(replace(job, status="queued", error=None), resumed=True)
        return self.body(run.job)

    def health(self) -> dict[str, Any]:
        """Whether work is taken, and what is wrong."""
        problems = list(self.keeper.problems)
        status = "stopping" if self.closing else "degraded" if problems else "ok"
        waiting = sum(run.problem is not None for run in list(self._runs.values()))
        return {"status": status, "problems": problems, "jobs_waiting_for_storage": waiting}

    async def events(self, job_id: str, after: int, *, follow: bool = False) -> AsyncIterator[str]:
        """The events of a job as text: all after a number, then as they come, until it has ended.

        Args:
            follow: go on after that, with an event `job` whenever it is corrected or heard again.
        """
        job = await run_in_threadpool(self.job, job_id)
        reader = EventReader(self.store.folder(job) / EVENTS, after)
        told: dict[str, Any] = {}
        quiet_since = time.monotonic()
        try:
            while True:
                run = self._runs.get(job_id)
                with run.watch() if run is not None else nullcontext(asyncio.Event()) as changed:
                    over = run is None or run.over
                    job = run.job if run is not None else await run_in_threadpool(self.job, job_id)
                    body, last = self.body(job), over and not (job.under_way or follow)
                    if body != told and not last:
                        told, quiet_since = body, time.monotonic()
                        yield sse(body, event="job")
                    for event in reader.new():
                        quiet_since = time.monotonic()
                        yield sse(event.data, event=event.name, number=event.number)
                    if last:
                        yield sse(body, event="job")
                        return
                    if time.monotonic() - quiet_since > PING_S:
                        quiet_since = time.monotonic()
                        yield ": still here\n\n"
                    with suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), 1.0)
                    if self.closing and not changed.is_set():
                        return
        except RequestError as error:
            yield sse(error.body(), event="error")
            if error.code == "job_damaged":
                yield sse(self.body(job), event="job")

    # Documents

    def document(self, job_id: str, *, words: bool = False) -> dict[str, Any]:
        """The document of a job, corrections applied; with the words that have times, if asked for."""
        job = self._transcribed(job_id)
        document, history = load_document(self.store, job)
        return self._show(document, history, job.revision, words)

    def _show(
        self, document: Document, history: History, revision: int, words: bool
    ) -> dict[str, Any]:
        body = history.show(document, revision, words=words)
        return {**body, "confidence_floor": self.profile.word_confidence_floor}

    def transcript(self, job_id: str) -> Transcript:
        """The transcript of a job, corrections applied."""
        job = self._transcribed(job_id)
        document, _ = load_document(self.store, job)
        transcript = document.corrected()
        return replace(transcript, info={**transcript.info, "revision": job.revision})

    def trace(self, job_id: str, chunk: int) -> dict[str, Any]:
        """What the model saw and wrote in a chunk.

        Raises:
            RequestError: 404, the chunk does not exist or was silent.
        """
        for trace in self.transcript(job_id).traces:
            if trace["chunk"] == chunk:
                names = {"start_s": "start", "duration_s": "duration"}
                return {names.get(key, key): value for key, value in trace.items()}
        raise _no_chunk(chunk)

    def pcm(self, job_id: str) -> Pcm:
        """The audio of a job."""
        job = self.job(job_id)
        pcm = Pcm(recording_file(self.store.folder(job)))
        with undamaged(job, "the recording"):
            pcm.size  # noqa: B018
        return pcm

    def peaks(self, job_id: str) -> tuple[Job, bytes]:
        """A job, and the loudness of its audio as `sound.peaks_of` gives it."""
        job = self.job(job_id)
        with undamaged(job, "the recording"):
            return job, peaks_of(self.store.folder(job))

    def correct(
        self, job_id: str, revision: int, operation: Operation, *, words: bool = False
    ) -> tuple[int, dict[str, Any]]:
        """Apply a correction: status 200 and the document, or 202 and the job that listens again.

        Raises:
            RequestError: 409 for a job that is under way, or one that was corrected meanwhile; what
                `corrections.apply` raises.
        """
        job = self._transcribed(job_id)
        if job.under_way:
            raise RequestError(409, f"the job is {job.status}; wait", code="job_under_way")
        document, history = load_document(self.store, job)
        if revision != job.revision:
            raise _stale(revision, job.revision)
        if isinstance(operation, Listen):
            return 202, self._listen(job, operation, chunk_spans(document.transcript))
        made = operation.model_dump(by_alias=True, exclude_none=True)
        then = history.then(made)
        if made["op"] not in ("undo", "redo"):
            apply(document, made)
        if not self.store.correct(job, revision, made):
            raise _stale(revision, self.job(job_id).revision)
        return 200, self._after(job, then, words)

    def _after(self, job: Job, history: History, words: bool) -> dict[str, Any]:
        document, _ = replay(load_original(self.store, job), history.done)
        return self._show(document, history, job.revision + 1, words)

    def _listen(self, job: Job, operation: Listen, spans: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = operation.chunk
        if chunk not in [span["chunk"] for span in spans]:
            raise _no_chunk(chunk)
        if not self.store.listen(job, chunk, keep=operation.keep):
            message = "the job is under way, or was corrected meanwhile; fetch it again"
            raise RequestError(409, message, code="job_under_way")
        run = self._launch(
            replace(job, status="queued", listen=chunk, listen_keep=operation.keep, error=None)
        )
        return self.body(run.job)

    def _transcribed(self, job_id: str) -> Job:
        """A job that has a transcript."""
        job = self.job(job_id)
        if job.status != "done" and job.listen is None:
            raise RequestError(
                409, f"the job is {job.status}: it has no transcript", code="job_not_done"
            )
        return job


def _turns(engine: Engine, worker: Worker, model: str, batch: int) -> Turns:
    """Turns of an engine.

    Raises:
        SettingsError: it needs recordings, and turns do not do.
    """
    if engine.in_order:
        raise SettingsError(
            f"--engine-api: the {engine.name} hears whole recordings and has no turns to give; choose a "
            "checkpoint of the dialogue, such as --model tiny"
        )
    return Turns(worker, engine.profile, model, batch)


async def _gone(request: Request) -> None:
    """Wait until the client hangs up, after its body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_file(expected: str) -> RequestError:
    return RequestError(400, f"expected {expected}", code="missing_field", param=FILE)


def _no_job(job_id: str) -> RequestError:
    return RequestError(
        404,
        f"there is no job {job_id!r}; those that were removed are in GET /v1/jobs?removed=true",
        code="job_not_found",
    )


def _no_chunk(chunk: int) -> RequestError:
    return RequestError(
        404, f"chunk {chunk} does not exist, or is silent", code="chunk_not_found", param="chunk"
    )


def _stale(made_on: int, now: int) -> RequestError:
    return RequestError(
        409,
        f"made on revision {made_on}, but the transcript is at {now}; fetch it again",
        code="stale_revision",
        param="revision",
    )
