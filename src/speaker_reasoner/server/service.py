"""What stands behind the routes: one model, its worker, the store, and the jobs under way."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry
from starlette.requests import ClientDisconnect

from ..engines.base import Engine
from ..errors import ServerError, SettingsError
from ..longform import Transcriber
from ..voices.store import StoredClip
from . import intake
from .chat import parse_chat
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
from .keeper import Rules
from .manager import JobManager
from .runs import Defaults, RequestRun
from .store import Store
from .transcription import Transcription, too_slow
from .transcripts import Transcripts
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
        self.turns = None
        if settings.engine_api:
            self.turns = _turns(engine, self.worker, settings.batch)
        self.transcriber = transcriber
        self.decoders = anyio.CapacityLimiter(_DECODERS)
        self.jobs = JobManager(
            transcriber, self.store, self.worker, settings.defaults, settings.rules
        )
        self.keeper = self.jobs.keeper
        self.transcripts = Transcripts(self.jobs, self.profile.word_confidence_floor)

    def start(self) -> None:
        """Begin to work, with the jobs that were left."""
        self.worker.start()
        self.keeper.start()

    def drain(self) -> None:
        """Refuse new work and end event streams; for a signal handler."""
        self.jobs.closing = True
        self.worker.drain()

    def stop(self) -> None:
        """End after the round that is being written; jobs go on at the next start."""
        self.drain()
        self.worker.stop()
        self.jobs.stop()
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
            run = RequestRun(self.transcriber, folder, form, self.settings.defaults)
            stack.callback(self.worker.cancel, run)
            taken = self._take(received, folder, form, stored, lambda: run.cancelled)
            await self.connected(request, taken, lambda: self.worker.cancel(run))
            self.worker.submit(run, place)
        except BaseException:
            stack.close()
            raise
        return Transcription(run, self._with_names(form), said, self.settings.answer_s, stack)

    async def complete(self, request: Request) -> tuple[dict[str, Any], bool]:
        """Write one turn of a dialogue that the client leads; whether it is to be streamed.

        Raises:
            RequestError: it is not served.
            ClientDisconnect: the client is gone.
        """
        assert self.turns is not None
        most = min(self.settings.limits.body_bytes, _CHAT_BYTES)
        with ExitStack() as stack:
            place = self.worker.reserve()
            stack.callback(place.release)
            form = parse_chat(await read_json(request, self.settings.limits, most), self.able)
            chat, clips = await self.turns.heard(form)
            asked, key = self.turns.request(form, chat, clips)
            turn, reply = self.turns.submit(asked, place)
        written = await self.connected(request, reply, lambda: self.worker.cancel(turn))
        self.turns.keep(asked, key, written)
        return self.turns.body(form, written), bool(form.stream)

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

        return await anyio.to_thread.run_sync(decode_all, limiter=self.decoders)

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
            file_name = received.file.name if received.file else display_name(str(path))
            job = await run_in_threadpool(
                self.store.add,
                folder,
                form.name or file_name,
                duration_s,
                form.speakers,
                form.known_speaker_names,
                form.language,
            )
            self.jobs.launch(job)
        return {**self.jobs.body(job), "warnings": said} if said else self.jobs.body(job)

    def health(self) -> dict[str, Any]:
        """Whether work is taken, and what is wrong."""
        problems = list(self.keeper.problems)
        status = "stopping" if self.jobs.closing else "degraded" if problems else "ok"
        waiting = self.jobs.waiting_for_storage
        return {"status": status, "problems": problems, "jobs_waiting_for_storage": waiting}


def _turns(engine: Engine, worker: Worker, batch: int) -> Turns:
    """Turns of an engine.

    Raises:
        SettingsError: it needs recordings, and turns do not do.
    """
    if engine.in_order:
        raise SettingsError(
            f"--engine-api: the {engine.name} hears whole recordings and has no turns to give; choose a "
            "checkpoint of the dialogue, such as --model tiny"
        )
    return Turns(worker, engine.profile, batch)


async def _gone(request: Request) -> None:
    """Wait until the client hangs up, after its body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_file(expected: str) -> RequestError:
    return RequestError(400, f"expected {expected}", code="missing_field", param=FILE)
