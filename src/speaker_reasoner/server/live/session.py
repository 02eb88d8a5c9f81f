"""One session of `/v1/realtime`: from a socket to the engine, and back.

The audio becomes a job, so that nothing is lost when the connection drops: it is on disk before the next piece is
read, and the job transcribes the whole of it when the session ends.
"""

import asyncio
import json
import logging
import secrets
import time
from contextlib import ExitStack, suppress
from typing import Any

import anyio
from fastapi import WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool

from ... import audio
from ...audio import SAMPLE_RATE_HZ
from ...errors import SpeakerReasonerError
from ..failures import RequestError, StorageError, as_request_error
from ..jobs import new_job_id
from ..service import Service
from .cuts import SHORTEST, Cut, Cutter, Stretch
from .events import (
    Session,
    SessionOver,
    decoded_audio,
    error_event,
    event,
    from_beta,
    parse_event,
    session_body,
    updated,
)
from .incoming import Began, Stopped
from .keeping import Keeping
from .known import FIELDS, KnownVoices
from .lines import LiveLines
from .listening import Broken, Guess, Live, News, Transcribed

_log = logging.getLogger(__name__)

LONGEST_S = 30.0
"""Longest stretch, also where the model would take more at once: lines shall appear while somebody speaks (assumed)."""
_BEHIND_S = 300.0
"""Seconds of audio that wait for the engine before reading pauses (assumed)."""
_GUESS_S = 1.5
"""Least time between two guesses; more if the engine takes longer for one (assumed)."""
_LAST_S = 10.0
"""Time that a client has to read the last events (assumed)."""
_EVENTS = 10_000
"""Number of events that wait for a client that reads none (assumed)."""


class LiveSession:
    """Serves one socket.

    Args:
        service: behind it.
        socket: accepted.
        keep: whether the audio becomes a job.
        beta: whether the client speaks the beta's form.
    """

    def __init__(self, service: Service, socket: WebSocket, *, keep: bool, beta: bool) -> None:
        self._service = service
        self._socket = socket
        self._beta = beta
        self._session = Session()
        self._id = f"sess_{secrets.token_hex(12)}"
        transcriber, worker, own = service.transcriber, service.worker, service.own
        assert transcriber is not None, "see add_realtime"
        assert worker is not None
        assert own is not None
        self._able = own.able
        client = service.client_of(socket)
        model = self._able.model if service.store.shared else None
        self._keeping = Keeping(service, new_job_id(), client, model) if keep else None
        self._live = Live(
            transcriber,
            worker,
            client,
            lambda: self._session,
            service.settings.defaults,
            self._news,
        )
        self._longest_s = min(LONGEST_S, transcriber.engine.profile.chunk_s)
        self._cutter: Cutter | None = None
        self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_EVENTS)
        defaults = service.settings.defaults
        self._default_names = frozenset(voice.name for voice in defaults.voices)
        self._lines = LiveLines(self._say, self._default_names, self._job, beta=beta)
        self._files = ExitStack()
        self._waits: dict[int, int] = {}  # samples by stretch
        self._less = asyncio.Event()
        self._guessed_at = self._guess_s = 0.0

    @property
    def _job(self) -> str | None:
        return None if self._keeping is None else self._keeping.job_id

    async def run(self, refused: RequestError | None = None) -> None:
        """Serve until the client leaves; then keep the recording.

        Args:
            refused: error that ends the session at once.
        """
        sender = asyncio.ensure_future(self._send_all())
        code = 1000
        try:
            if refused is not None:
                self._say(error_event(refused, None))
                code = 1008
                return
            self._say(self._session_event("created"))
            await self._serve()
        except WebSocketDisconnect:
            sender.cancel()
        except (StorageError, SessionOver) as error:
            code = 1013 if isinstance(error, StorageError) else 1008
            self._say(error_event(error, None))
        except Exception:
            code = 1011
            _log.exception("a live session met a bug")
            message = "internal error; see the server's log"
            self._say(error_event(RequestError(500, message, code="internal_error"), None))
        finally:
            self._live.close()
            with suppress(asyncio.QueueFull):
                self._out.put_nowait(None)
            ending = asyncio.ensure_future(self._end())
            await asyncio.wait((sender,), timeout=_LAST_S)
            sender.cancel()
            await asyncio.shield(ending)  # continues also if the server is stopping
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.close(code)

    async def _end(self) -> None:
        if self._keeping is not None:
            await self._keeping.end()
        await run_in_threadpool(self._files.close)

    async def _send_all(self) -> None:
        while (body := await self._out.get()) is not None:
            await self._socket.send_text(json.dumps(body, ensure_ascii=False))

    def _say(self, body: dict[str, Any]) -> None:
        try:
            self._out.put_nowait(body)
        except asyncio.QueueFull:
            raise WebSocketDisconnect(1008, "the client reads nothing") from None

    async def _serve(self) -> None:
        idle_s = self._service.settings.limits.live_idle_s
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                said = f"nothing came for {idle_s:g} s; what was said is kept"
                raise SessionOver(408, said, code="session_idle") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            cause: str | None = None
            try:
                sent = parse_event(message.get("text"))
                cause = sent["event_id"] if isinstance(sent.get("event_id"), str) else None
                await self._handle(sent)
            except (StorageError, SessionOver):
                raise
            except SpeakerReasonerError as error:
                self._say(error_event(as_request_error(error), cause))

    async def _handle(self, sent: dict[str, Any]) -> None:
        match sent["type"]:
            case "input_audio_buffer.append":
                await self._append(sent)
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                await self._clear()
            case "session.update" | "transcription_session.update" as kind:
                await self._update(sent, beta=kind == "transcription_session.update")
            case str(kind) if kind.partition(".")[0] in (
                "response",
                "conversation",
                "output_audio_buffer",
            ):
                message = f"{kind}: this is a transcription session; it has no responses"
                raise RequestError(400, message, code="unsupported_event", param="type")
            case kind:
                raise RequestError(
                    400,
                    f"type: got {kind!r}, no event that this server knows",
                    code="unknown_event",
                    param="type",
                )

    # Events of the client

    async def _update(self, sent: dict[str, Any], *, beta: bool) -> None:
        asked = sent.get("session")
        if not isinstance(asked, dict):
            raise RequestError(
                400, "session: expected an object", code="invalid_value", param="session"
            )
        if beta or "input_audio_format" in asked or "input_audio_transcription" in asked:
            asked = from_beta(asked)
        new, warnings = updated(self._session, asked, self._able)
        if self._cutter is not None and new.coding is not self._session.coding:
            message = "the format of audio cannot change after the first of it came"
            raise RequestError(
                400, message, code="invalid_value", param="session.audio.input.format"
            )
        if any(name in asked for name in FIELDS):
            new = await self._know(new)
        if self._cutter is not None:
            self._cutter.detect(new.audio.input.turn_detection)
            if new.speakers != self._session.speakers:
                warnings.append("session.speakers: without effect, the session has begun")
        self._session = new
        self._live.set_language(new.language)
        self._say(self._session_event("updated", beta=beta, warnings=warnings))

    async def _know(self, session: Session) -> Session:
        """Take the clips of known speakers; return the session without them."""
        service, param = self._service, "session.known_speaker_names"
        if self._cutter is not None:
            message = f"{param}: known speakers are to be named before the first audio comes"
            raise RequestError(400, message, code="invalid_value", param=param)
        if (session.known_speaker_names or session.voices) and not service.hears_voices:
            message = f"{param}: this server hears no voices: it runs without cache and witness"
            raise RequestError(400, message, code="invalid_value", param=param)
        with ExitStack() as files:
            folder = files.enter_context(service.store.incoming())
            known = await anyio.to_thread.run_sync(
                KnownVoices.take,
                session,
                folder,
                service.settings.voices,
                limiter=service.decoders,
            )
            self._files.close()  # clips that were given before
            self._files = files.pop_all()
        self._live.voices = known
        if self._keeping is not None:
            self._keeping.voices = known
        self._lines.know(frozenset(known.names) or self._default_names)
        return session.model_copy(update={"known_speaker_references": []})

    def _session_event(self, what: str, *, beta: bool = False, **ours: Any) -> dict[str, Any]:
        body = session_body(self._session, self._id, self._beta or beta, job=self._job)
        return event(
            f"{'transcription_session' if beta else 'session'}.{what}", session=body, **ours
        )

    async def _append(self, sent: dict[str, Any]) -> None:
        data = decoded_audio(sent.get("audio"), self._session.coding.width)
        if not data:
            return
        if self._keeping is not None:
            await self._keeping.append(data, self._session)
        if self._cutter is None:
            self._cutter = Cutter(self._session.coding, self._longest_s)
            self._cutter.detect(self._session.audio.input.turn_detection)
        most_s = self._service.settings.limits.duration_s
        cuts = await run_in_threadpool(self._cutter.feed, data)
        self._tell_cuts(cuts)
        self._guess()
        if audio.to_seconds(self._cutter.now) > most_s:
            said = f"the session is longer than {most_s:g} s, the most that is taken"
            raise SessionOver(413, said, code="audio_too_long")
        while sum(self._waits.values()) > _BEHIND_S * SAMPLE_RATE_HZ:
            self._less.clear()
            await self._less.wait()

    async def _commit(self) -> None:
        cuts = [] if self._cutter is None else await run_in_threadpool(self._cutter.commit)
        self._tell_cuts(cuts)
        if not any(isinstance(cut, Stretch) and cut.ends for cut in cuts):
            least_ms = 1000 * SHORTEST // SAMPLE_RATE_HZ
            message = f"the buffer is too small: expected at least {least_ms} ms of audio"
            raise RequestError(400, message, code="input_audio_buffer_commit_empty")

    async def _clear(self) -> None:
        if self._cutter is not None:
            start_s = audio.to_seconds(self._cutter.start)
            if self._keeping is not None:
                await self._keeping.silence(start_s)
            self._cutter.clear()
        self._lines.cleared(0 if self._cutter is None else self._cutter.start)

    def _tell_cuts(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            match cut:
                case Began(at):
                    self._lines.began(at)
                case Stopped(at):
                    self._lines.stopped(at)
                case Stretch(chunk, ends):
                    number = self._live.add(chunk, ends=ends)
                    self._waits[number] = len(chunk.samples)
                    self._lines.cut(number)
                    if ends:
                        self._lines.committed(number, chunk.start_samples + len(chunk.samples))

    def _guess(self) -> None:
        """Request a guess at the stretch that is being spoken, at most every `_GUESS_S`."""
        assert self._cutter is not None
        chunk, now = self._cutter.under_way, time.monotonic()
        long_enough = len(chunk.samples) >= SAMPLE_RATE_HZ
        pause_s = max(_GUESS_S, 1.5 * self._guess_s)
        if not long_enough or not self._cutter.speaking or now - self._guessed_at < pause_s:
            return
        if self._live.may_guess and chunk.audible:
            self._guessed_at = now
            self._live.guess(chunk)

    # News of the engine

    def _news(self, news: News) -> None:
        with suppress(WebSocketDisconnect):
            match news:
                case Guess():
                    self._guess_s = time.monotonic() - self._guessed_at
                    now = self._cutter.under_way if self._cutter is not None else None
                    if now is not None and now.start_samples == news.start_samples:
                        self._lines.guessed(news)
                case Transcribed():
                    self._passed(news.number)
                    self._lines.transcribed(news)
                case Broken(until, error):
                    for number in self._lines.broken(until, error):
                        self._passed(number)

    def _passed(self, stretch: int) -> None:
        self._waits.pop(stretch, None)
        self._less.set()
