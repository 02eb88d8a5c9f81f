"""The state behind the routes: one model, its worker, the store, and the jobs under way."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from ..engines.base import Engine
from ..errors import ServerError, SettingsError
from ..longform import Transcriber
from ..voices.store import StoredClip
from . import intake
from .chat import parse_chat
from .connections import connected
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
from .jobs import Job
from .keeper import Rules
from .manager import JobManager
from .offers import Models, Offer, offer_of
from .places import Places
from .relay import RelayedRun
from .runs import Defaults, RequestRun
from .shared import SharedStore, open_store
from .transcription import Transcription
from .transcripts import Transcripts
from .turns import Turns
from .uploads import (
    FILE,
    Limits,
    ReceivedForm,
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
    """Settings of a server.

    Attributes:
        store: folder of jobs and uploads, or the address of a place in a bucket.
        database: SQLAlchemy URL; a SQLite file in the store if `None`.
        api_key: that requests must carry; `None` on loopback only.
        more_keys: further valid keys, which distinguish clients; links to audio are signed with `api_key`.
        batch: dialogues at once.
        queue: recordings of a client that may wait.
        limits: of requests.
        answer_s: longest time in which a request is answered; jobs have no such limit.
        allowed: folders whose files may become jobs by their path, resolved.
        voices: a voice store, whose people clients may name; `None` for none.
        channel: 0-based channel of uploads to keep; all mixed down if `None`.
        separate: all channels are kept, each being one speaker's.
        defaults: for hints that clients do not give.
        engine_api: whether turns are answered, as chat completions.
        rules: of leases, and of how long things are kept.
        origins: other sites whose pages may use the server.
        aliases: other names, each with the model that it stands for; empty for the only one.
        root_path: under which a proxy shows the server; empty at the top.
        scratch: folder of this process's machine, for uploads and copies where the store is a bucket.
        work_only: whether jobs are done, and no requests are answered but for health and counts.
    """

    store: Path | str
    database: str | None = None
    api_key: str | None = None
    more_keys: tuple[str, ...] = ()
    batch: int = 16
    queue: int = 256
    limits: Limits = field(default_factory=Limits)
    answer_s: float = 3600.0
    allowed: tuple[Path, ...] = ()
    voices: Path | None = None
    channel: int | None = None
    separate: bool = False
    defaults: Defaults = field(default_factory=Defaults)
    engine_api: bool = False
    rules: Rules = field(default_factory=Rules)
    origins: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    root_path: str = ""
    scratch: Path | None = None
    work_only: bool = False


class Service:
    """One model that serves requests and jobs; without one, other servers of the store do.

    Args:
        transcriber: opens recordings; its engine is asked by the worker alone. Without one jobs and
            requests wait for the other servers of the store.
        settings: of the server.

    Attributes:
        worker: the engine thread, where there is an engine.
        own: the engine's offer.
        models: that recordings can be transcribed with.

    Raises:
        ServerError, OutputError, DataError, ExtraError: the store cannot be used, or its other servers have other
            settings.
    """

    def __init__(self, transcriber: Transcriber | None, settings: ServiceSettings) -> None:
        self.settings = settings
        self.registry = CollectorRegistry()
        self.created = int(time.time())
        self.own: Offer | None = None
        self.worker: Worker | None = None
        self.turns: Turns | None = None
        engine: tuple[Transcriber, Worker, str] | None = None
        if transcriber is not None:
            names = tuple(alias for alias, _ in settings.aliases)
            self.own = offer_of(
                transcriber, names, settings.defaults, settings.channel, settings.separate
            )
            for alias, meant in settings.aliases:
                if meant not in (self.own.able.model, ""):
                    raise ServerError(
                        f"--model-alias {alias}={meant}: this server has {self.own.able.model!r}"
                    )
        self.store = open_store(
            settings.store, settings.database, settings.rules.lease_s, settings.scratch
        )
        role = "front" if self.own is None else "worker" if settings.work_only else "server"
        try:
            self.models = Models(self.own, self.store, role, settings.aliases)
        except BaseException:
            self.store.close()
            raise
        if transcriber is not None and self.own is not None:
            self.worker = Worker(
                transcriber.engine,
                batch=settings.batch,
                registry=self.registry,
                room=self._claim_soon,
            )
            engine = transcriber, self.worker, self.own.able.model
            if settings.engine_api:
                self.turns = _turns(transcriber.engine, self.worker, settings.batch)
        self.places = Places(
            settings.queue, self._waiting, lambda: self.worker.pace_s if self.worker else 5
        )
        self.transcriber = transcriber
        self.decoders = anyio.CapacityLimiter(_DECODERS)
        self.jobs = JobManager(self.store, self.places, settings.defaults, settings.rules, engine)
        self.keeper = self.jobs.keeper
        self.transcripts = Transcripts(self.jobs, self.models.floor)

    @property
    def hears_voices(self) -> bool:
        """Return whether known speakers can be heard."""
        return self.transcriber is not None and self.transcriber.hears_voices

    def _claim_soon(self) -> None:
        self.keeper.claim_soon()

    def _waiting(self, client: str) -> int:
        """Return how many recordings of a client wait for an engine."""
        mine = self.worker.waiting(client) if self.worker is not None else 0
        theirs = self.store.waiting(client) if isinstance(self.store, SharedStore) else 0
        return mine + theirs

    def client_of(self, request: HTTPConnection) -> str:
        """Return a digest that identifies the client of a request, for a fair queue: of its key, if the server has
        several, else of its address."""
        who = ""
        if self.settings.more_keys:
            who = request.headers.get("authorization", "").partition(" ")[2].strip()
        who = who or (request.client.host if request.client else "")
        return hashlib.sha256(who.encode()).hexdigest()[:16]

    def start(self) -> None:
        """Start the worker, and the jobs that an earlier run left."""
        if self.worker is not None:
            self.worker.start()
        self.keeper.start()

    def drain(self) -> None:
        """Refuse new work and end event streams; for a signal handler."""
        self.jobs.closing = True
        self.places.close()
        if self.worker is not None:
            self.worker.drain()

    def stop(self) -> None:
        """Stop after the present round; jobs continue at the next start."""
        self.drain()
        if self.worker is not None:
            self.worker.stop()
        self.jobs.stop()
        self.store.close()

    # Requests

    async def transcribe(self, request: Request) -> Transcription:
        """Receive a recording and queue it.

        Raises:
            RequestError: it is not served.
            ClientDisconnect: the client is gone.
        """
        stack = ExitStack()
        try:
            place = await run_in_threadpool(self.places.reserve, self.client_of(request))
            stack.callback(place.release)
            folder = stack.enter_context(self.store.incoming())
            received = await receive(request, folder, self.settings.limits)
            form = parse_form(TranscriptionForm, received.values)
            offer = await run_in_threadpool(self.models.meant, form.model)
            form, said = check_transcription(form, self._meant(form.model, offer.able))
            if received.file is None:
                raise _no_file("a file")
            form, stored = await run_in_threadpool(intake.add_stored, form, self.settings.voices)
            gone = threading.Event()
            stack.callback(gone.set)
            taken = self._take(received, folder, form, offer, stored, gone.is_set)
            duration_s = await connected(request, taken, gone.set, self.settings.answer_s)
            run: RequestRun | RelayedRun
            if self.worker is not None and self.transcriber is not None:
                run = RequestRun(
                    self.transcriber,
                    folder,
                    form,
                    self.settings.defaults,
                    self.client_of(request),
                )
                stack.callback(self.worker.cancel, run)
                self.worker.submit(run, place)
            else:
                name = received.file.name
                job = await self._add(request, folder, name, duration_s, form, offer, waited=True)
                assert isinstance(self.store, SharedStore), "else there is an engine"
                run = RelayedRun(self.store, job, self.jobs.nobody)
                stack.callback(threading.Thread(target=run.close, daemon=True).start)
        except BaseException:
            stack.close()
            raise
        return Transcription(
            run, _with_names(form, offer), offer, said, self.settings.answer_s, stack
        )

    def _meant(self, name: str, able: Abilities) -> Abilities:
        """Return a model's abilities, with the name that the client called it by as its alias."""
        return able if name in (able.model, *able.aliases) else replace(able, aliases=(name,))

    async def _add(
        self,
        request: Request,
        folder: Path,
        name: str,
        duration_s: float,
        form: Hints,
        offer: Offer,
        *,
        waited: bool = False,
    ) -> Job:
        """Accept a job."""
        return await run_in_threadpool(
            self.store.add,
            folder,
            name,
            duration_s,
            form.speakers,
            form.known_speaker_names,
            form.language,
            self.client_of(request),
            offer.able.model if self.store.shared else None,
            self.store.owner if waited else None,
        )

    async def complete(self, request: Request) -> tuple[dict[str, Any], bool]:
        """Write one turn of a dialogue that the client leads; return its body, and whether to stream it.

        Raises:
            RequestError: it is not served.
            ClientDisconnect: the client is gone.
        """
        assert self.turns is not None and self.worker is not None and self.own is not None
        worker = self.worker
        most = min(self.settings.limits.body_bytes, _CHAT_BYTES)
        with ExitStack() as stack:
            place = await run_in_threadpool(self.places.reserve, self.client_of(request))
            stack.callback(place.release)
            form = parse_chat(await read_json(request, self.settings.limits, most), self.own.able)
            chat, clips = await self.turns.decoded(form)
            asked, key = self.turns.request(form, chat, clips)
            turn, reply = self.turns.submit(asked, place)
        written = await connected(
            request, reply, lambda: worker.cancel(turn), self.settings.answer_s
        )
        self.turns.keep(asked, key, written)
        return self.turns.body(form, written), bool(form.stream)

    async def _take(
        self,
        received: ReceivedForm,
        folder: Path,
        hints: Hints,
        offer: Offer,
        stored: Sequence[StoredClip],
        abandoned: Callable[[], bool] = lambda: False,
        path: Path | None = None,
    ) -> float:
        """Decode a recording and its voices as `intake.decode_all`, a few at a time; keep the channels that the model
        transcribes."""
        longest_s = self.settings.limits.duration_s

        def decode_all() -> float:
            return intake.decode_all(
                received,
                folder,
                hints,
                stored,
                longest_s,
                abandoned,
                path,
                offer.channel,
                offer.separate,
            )

        return await anyio.to_thread.run_sync(decode_all, limiter=self.decoders)

    # Jobs

    async def add_job(self, request: Request) -> dict[str, Any]:
        """Receive a long recording.

        Raises:
            RequestError: it is not served.
            ClientDisconnect: the client is gone before it was accepted.
        """
        with ExitStack() as stack:
            place = await run_in_threadpool(self.places.reserve, self.client_of(request))
            stack.callback(place.release)
            folder = stack.enter_context(self.store.incoming())
            received = await receive(request, folder, self.settings.limits)
            form = parse_form(JobForm, received.values)
            offer = await run_in_threadpool(self.models.meant, form.model)
            said = check_job(form, offer.able)
            if (received.file is None) == (form.path is None):
                raise _no_file("either a file or a path")
            path = None
            if form.path is not None:
                path = await run_in_threadpool(
                    intake.allowed_file, form.path, self.settings.allowed
                )
            form, stored = await run_in_threadpool(intake.add_stored, form, self.settings.voices)
            gone = threading.Event()
            taken = self._take(received, folder, form, offer, stored, gone.is_set, path)
            duration_s = await connected(request, taken, gone.set, self.settings.answer_s)
            file_name = received.file.name if received.file else display_name(str(path))
            name = form.name or file_name
            job = await self._add(request, folder, name, duration_s, form, offer)
            self.jobs.begin(job)
        return {**self.jobs.body(job), "warnings": said} if said else self.jobs.body(job)

    def health(self) -> dict[str, Any]:
        """Return whether the server takes work, and its problems."""
        problems = list(self.keeper.problems)
        status = "stopping" if self.jobs.closing else "degraded" if problems else "ok"
        waiting = self.jobs.waiting_for_storage
        body = {"status": status, "problems": problems, "jobs_waiting_for_storage": waiting}
        if isinstance(self.store, SharedStore):
            roles = Counter(one.role for one in self.store.fleet.seen.values())
            body["servers"] = {role: roles[role] for role in ("server", "worker", "front")}
        return body


def _with_names(form: TranscriptionForm, offer: Offer) -> TranscriptionForm:
    """Return a form with the names of speakers that its answer may hold."""
    if form.known_speaker_names:
        return form
    return form.model_copy(update={"known_speaker_names": list(offer.names)})


def _turns(engine: Engine, worker: Worker, batch: int) -> Turns:
    """Make the `Turns` of an engine.

    Raises:
        SettingsError: the engine needs whole recordings, and cannot answer single turns.
    """
    if engine.in_order:
        raise SettingsError(
            f"--engine-api: the {engine.name} needs whole recordings and has no turns to give; choose a "
            "checkpoint of the dialogue, such as --model tiny"
        )
    return Turns(worker, engine.profile, batch)


def _no_file(expected: str) -> RequestError:
    return RequestError(400, f"expected {expected}", code="missing_field", param=FILE)
