"""One session of `/v1/realtime`: from a socket to the engine, and back.

What is said becomes a job, so that nothing is lost when the connection drops: its audio is on disk before the
next piece is read, and the job hears the whole of it when the session ends.
"""

import asyncio
import base64
import binascii
import json
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool

from .. import audio
from ..audio import SAMPLE_RATE_HZ
from ..errors import SpeakerReasonerError
from ..spans import find_overlaps
from ..transcript import Segment, Transcript
from .failures import RequestError, StorageError, as_request_error
from .jobs import new_job_id
from .live import Broken, Guess, Heard, Hinted, Live, News
from .livecuts import SHORTEST, Began, Cut, Cutter, Stopped
from .livekeep import Keeping
from .openai import Letters, segment_body, usage_body
from .realtime import (
    TRANSCRIPTION,
    Session,
    error_event,
    event,
    from_beta,
    item_body,
    session_body,
    updated,
)
from .service import Service

LONGEST_S = 30.0
"""Of a stretch, where the model would hear more at once: lines shall come while one speaks."""
_BEHIND_S = 300.0
"""So much may wait for the engine before no more is read."""
_EVENTS = 10_000
"""So many may wait for a client that reads none."""


@dataclass
class _Item:
    """A piece of what was said.

    Attributes:
        id: of the conversation's item.
        end: where it ends, once it does.
        last: number of the stretch that ends it.
        lines: segments that were told, with their ids and speakers as they were told.
        text: the deltas so far.
    """

    id: str
    start: int = 0
    end: int = 0
    last: int = -1
    lines: list[str] = field(default_factory=list)
    begun: bool = False


@dataclass
class _Line:
    """A segment that was told."""

    item: str
    segment: Segment
    speaker: str
    overlap: bool


class LiveSession:
    """Serves one socket.

    Args:
        service: behind it.
        socket: accepted.
        keep: whether what is said becomes a job.
        beta: whether the client speaks the beta's form.
    """

    def __init__(self, service: Service, socket: WebSocket, *, keep: bool, beta: bool) -> None:
        self._service = service
        self._socket = socket
        self._beta = beta
        self._session = Session()
        self._id = f"sess_{secrets.token_hex(12)}"
        self._keeping = Keeping(service, new_job_id()) if keep else None
        self._live = Live(
            service.transcriber, service.worker, self._hinted, service.settings.defaults, self._news
        )
        self._longest_s = min(LONGEST_S, service.profile.chunk_s)
        self._cutter: Cutter | None = None
        self._out: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_EVENTS)
        self._letters = Letters(frozenset(v.name for v in service.settings.defaults.voices))
        self._item = _Item(_item_id())
        self._before: str | None = None
        self._items: dict[int, _Item] = {}  # by stretch
        self._lines: dict[str, _Line] = {}
        self._epoch = 0
        self._waits: dict[int, int] = {}  # samples by stretch
        self._less = asyncio.Event()
        self._words = _Agreed()
        self._words_of: dict[int, _Agreed] = {}
        self._guessed_at = self._guess_s = 0.0

    def _hinted(self) -> Hinted:
        return Hinted(self._session.language, self._session.count)

    async def run(self, refused: RequestError | None = None) -> None:
        """Serve until the client leaves; what was said is kept then.

        Args:
            refused: what ends the session at once.
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
        except (StorageError, _EndError) as error:
            code = 1013 if isinstance(error, StorageError) else 1008
            self._say(error_event(error, None))
        finally:
            self._live.close()
            if not sender.cancelled():
                with suppress(asyncio.QueueFull):
                    self._out.put_nowait(None)
            ending = asyncio.ensure_future(self._end())
            await asyncio.gather(sender, return_exceptions=True)
            await asyncio.shield(ending)  # which goes on also where the server is in a hurry
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.close(code)

    async def _end(self) -> None:
        if self._keeping is not None:
            await self._keeping.end()

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
                raise _EndError(408, said, code="session_idle") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            cause: str | None = None
            try:
                sent = _parse(message.get("text"))
                cause = sent["event_id"] if isinstance(sent.get("event_id"), str) else None
                await self._handle(sent)
            except (StorageError, _EndError):
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
                self._update(sent, beta=kind == "transcription_session.update")
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

    # What comes

    def _update(self, sent: dict[str, Any], *, beta: bool) -> None:
        asked = sent.get("session")
        if not isinstance(asked, dict):
            raise RequestError(
                400, "session: expected an object", code="invalid_value", param="session"
            )
        if beta or "input_audio_format" in asked or "input_audio_transcription" in asked:
            asked = from_beta(asked)
        new, warnings = updated(self._session, asked, self._service.able)
        if self._cutter is not None and new.coding is not self._session.coding:
            message = "the format of audio cannot change after the first of it came"
            raise RequestError(
                400, message, code="invalid_value", param="session.audio.input.format"
            )
        self._session = new
        if self._cutter is not None:
            self._cutter.detect(new.audio.input.turn_detection)
        self._say(self._session_event("updated", beta=beta, warnings=warnings))

    def _session_event(self, what: str, *, beta: bool = False, **ours: Any) -> dict[str, Any]:
        job = None if self._keeping is None else self._keeping.job_id
        body = session_body(self._session, self._id, self._beta or beta, job=job)
        return event(
            f"{'transcription_session' if beta else 'session'}.{what}", session=body, **ours
        )

    async def _append(self, sent: dict[str, Any]) -> None:
        data = _decoded(sent.get("audio"), self._session.coding.width)
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
            raise _EndError(413, said, code="audio_too_long")
        while sum(self._waits.values()) > _BEHIND_S * SAMPLE_RATE_HZ:
            self._less.clear()
            await self._less.wait()

    async def _commit(self) -> None:
        cuts = [] if self._cutter is None else await run_in_threadpool(self._cutter.commit)
        if not any(getattr(cut, "ends", False) for cut in cuts):
            self._tell_cuts(cuts)
            least_ms = 1000 * SHORTEST // SAMPLE_RATE_HZ
            message = f"the buffer is too small: expected at least {least_ms} ms of audio"
            raise RequestError(400, message, code="input_audio_buffer_commit_empty")
        self._tell_cuts(cuts)

    async def _clear(self) -> None:
        if self._cutter is not None:
            start_s = audio.to_seconds(self._cutter.start)
            if self._keeping is not None:
                await self._keeping.silence(start_s)
            self._cutter.clear()
            self._words = _Agreed()
            self._item = _Item(_item_id())
        self._say(event("input_audio_buffer.cleared"))

    def _tell_cuts(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            match cut:
                case Began(at):
                    self._item.start = at
                    ms = 1000 * at // SAMPLE_RATE_HZ
                    self._say(
                        event(_BUFFER + "speech_started", audio_start_ms=ms, item_id=self._item.id)
                    )
                case Stopped(at):
                    ms = 1000 * at // SAMPLE_RATE_HZ
                    self._say(
                        event(_BUFFER + "speech_stopped", audio_end_ms=ms, item_id=self._item.id)
                    )
                case _:
                    number = self._live.add(cut.chunk, ends=cut.ends)
                    self._items[number], self._words_of[number] = self._item, self._words
                    self._waits[number] = len(cut.chunk.samples)
                    self._words = _Agreed()
                    if cut.ends:
                        self._committed(number, cut.chunk.start_samples + len(cut.chunk.samples))

    def _committed(self, last: int, end: int) -> None:
        item, before = self._item, self._before
        item.last, item.end = last, end
        job = None if self._keeping is None else self._keeping.job_id
        self._say(event(_BUFFER + "committed", item_id=item.id, previous_item_id=before, job=job))
        kinds = ("created",) if self._beta else ("added", "done")
        for kind in kinds:
            body = item_body(item.id)
            self._say(event(f"conversation.item.{kind}", item=body, previous_item_id=before))
        self._before, self._item = item.id, _Item(_item_id(), start=end)

    def _guess(self) -> None:
        """Ask for what is being said just now, seldom enough."""
        assert self._cutter is not None
        chunk, now = self._cutter.under_way, time.monotonic()
        long_enough = len(chunk.samples) >= SAMPLE_RATE_HZ
        pause_s = max(_GUESS_S, 1.5 * self._guess_s)
        if not long_enough or not self._cutter.speaking or now - self._guessed_at < pause_s:
            return
        if self._live.may_guess and chunk.audible:
            self._guessed_at = now
            self._live.guess(chunk)

    # What becomes known

    def _news(self, news: News) -> None:
        with suppress(WebSocketDisconnect):
            match news:
                case Guess():
                    self._guessed(news)
                case Heard():
                    self._heard(news)
                case Broken():
                    self._broken(news)

    def _guessed(self, guess: Guess) -> None:
        self._guess_s = time.monotonic() - self._guessed_at
        if self._cutter is None or guess.start_samples != self._cutter.under_way.start_samples:
            return
        text = self._words.guess(" ".join(one.text for one in guess.segments))
        rows = [
            {"start": s.start_s, "end": s.end_s, "speaker": None, "text": s.text}
            for s in guess.segments
        ]
        self._delta(self._item, text, segments=rows, provisional=True)

    def _delta(self, item: _Item, text: str, **ours: Any) -> None:
        text = f" {text}" if text and item.begun else text
        item.begun = item.begun or bool(text)
        self._say(
            event(f"{TRANSCRIPTION}.delta", item_id=item.id, content_index=0, delta=text, **ours)
        )

    def _heard(self, heard: Heard) -> None:
        self._passed(heard.number)
        item, words = self._items.pop(heard.number), self._words_of.pop(heard.number)
        rest = words.rest(" ".join(one.text for one in heard.segments))
        self._delta(item, rest, segments=[], provisional=False)
        overlaps = find_overlaps(heard.segments)
        for segment, overlap in zip(heard.segments, overlaps, strict=True):
            label = f"{self._epoch}:{segment.speaker}" if self._epoch else segment.speaker
            number = len(self._lines)
            line = _Line(item.id, segment, label, overlap)
            body = self._segment(line, number)
            self._lines[body["id"]] = line
            item.lines.append(body["id"])
            self._say(event(f"{TRANSCRIPTION}.segment", item_id=item.id, content_index=0, **body))
        if item.last == heard.number:
            self._completed(item, heard.transcript)

    def _segment(self, line: _Line, number: int) -> dict[str, Any]:
        named = replace(line.segment, speaker=line.speaker)
        body = segment_body(named, number, self._letters, line.overlap)
        del body["type"]
        return body

    def _completed(self, item: _Item, transcript: Transcript | None) -> None:
        changed = self._relabel(transcript)
        lines = [(one, self._lines[one]) for one in item.lines]
        start_s, end_s = audio.to_seconds(item.start), audio.to_seconds(item.end)
        missing = [
            {"start": gap.start_s, "end": gap.end_s, "reason": gap.reason}
            for gap in (transcript.missing if transcript is not None else ())
            if gap.start_s < end_s and gap.end_s > start_s
        ]
        self._say(
            event(
                f"{TRANSCRIPTION}.completed",
                item_id=item.id,
                content_index=0,
                transcript=" ".join(line.segment.text for _, line in lines if line.segment.text),
                usage=usage_body(end_s - start_s),
                start=start_s,
                end=end_s,
                segments=[self._segment(line, int(one.partition("_")[2])) for one, line in lines],
                relabelled=[row for row in changed if row["item_id"] != item.id],
                missing=missing,
                warnings=list(transcript.warnings) if transcript is not None else [],
                job=None if self._keeping is None else self._keeping.job_id,
            )
        )

    def _relabel(self, transcript: Transcript | None) -> list[dict[str, Any]]:
        """Take over the labels of the last pass; lines that have another one now."""
        known = {
            (s.start_s, s.end_s, s.text): s
            for s in (transcript.segments if transcript is not None else ())
        }
        changed = []
        for one, line in self._lines.items():
            mine = line.segment
            final = known.get((mine.start_s, mine.end_s, mine.text))
            label = None if final is None else final.speaker
            if final is None or label is None:
                continue
            label = f"{self._epoch}:{label}" if self._epoch else label
            line.segment = final
            if label != line.speaker:
                line.speaker = label
                speaker = self._letters.of(label)
                changed.append({"item_id": line.item, "id": one, "speaker": speaker})
        return changed

    def _broken(self, broken: Broken) -> None:
        self._epoch += 1
        failed = {}
        for number in [n for n in self._items if n < broken.until]:
            item = self._items.pop(number)
            self._words_of.pop(number, None)
            self._passed(number)
            failed[item.id] = item
        body = as_request_error(broken.error).body()["error"]
        for item in failed.values():
            self._say(
                event(f"{TRANSCRIPTION}.failed", item_id=item.id, content_index=0, error=body)
            )

    def _passed(self, stretch: int) -> None:
        self._waits.pop(stretch, None)
        self._less.set()


_BUFFER = "input_audio_buffer."
_GUESS_S = 1.5
"""Between two guesses, at least; more where the engine takes longer for one (assumed)."""


class _EndError(RequestError):
    """What ends a session."""


class _Agreed:
    """Words of a stretch on which two guesses in a row agree: those are sent, and seldom change."""

    def __init__(self) -> None:
        self._last: list[str] = []
        self._sent: list[str] = []

    def guess(self, text: str) -> str:
        """Take a guess; the words that may be sent now."""
        words = text.split()
        agreed = 0
        while agreed < min(len(words), len(self._last)) and words[agreed] == self._last[agreed]:
            agreed += 1
        self._last = words
        new = words[len(self._sent) : agreed]
        self._sent += new
        return " ".join(new)

    def rest(self, text: str) -> str:
        """The words that are left to send, once the stretch is through."""
        return " ".join(text.split()[len(self._sent) :])


def _item_id() -> str:
    return f"item_{secrets.token_hex(10)}"


def _parse(text: str | None) -> dict[str, Any]:
    """An event of the client.

    Raises:
        RequestError: 400, it is none.
    """
    if text is None:
        raise RequestError(400, "expected an event as text, got bytes", code="invalid_json")
    try:
        sent = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the event is no JSON: {error}", code="invalid_json") from error
    if not isinstance(sent, dict) or not isinstance(sent.get("type"), str):
        raise RequestError(
            400, "expected an object with a type", code="missing_field", param="type"
        )
    return sent


def _decoded(data: object, width: int) -> bytes:
    """The samples of an append.

    Raises:
        RequestError: 400, they are none.
    """
    if not isinstance(data, str):
        raise RequestError(400, "audio: expected base64", code="invalid_value", param="audio")
    try:
        samples = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            400, f"audio: no base64: {error}", code="invalid_value", param="audio"
        ) from error
    if len(samples) % width:
        raise RequestError(
            400,
            f"audio: got {len(samples)} bytes, expected whole samples of {width} bytes",
            code="invalid_value",
            param="audio",
        )
    return samples
