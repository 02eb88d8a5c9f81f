"""Turns for clients that lead their dialogues themselves: clips and sessions are kept between requests.

A request brings the whole conversation. If its last turn was written here a moment ago, its session is still in memory,
and only new parts are read. Otherwise all of it is read again, the model's turns by the tokens that it wrote, so that
the same turn follows. Only if these tokens were dropped (after a restart) is the text tokenised again, possibly into
other tokens.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio

from .. import audio
from ..audio import SAMPLE_RATE_HZ, Samples
from ..engines.base import Reply, Session
from ..engines.base import Request as TurnRequest
from ..errors import AudioError, EngineError, ProtocolError
from ..longform import Failure, Listener, Progress
from ..protocol import Answer, Audio, Part, Profile
from ..protocol.markup import BOX
from ..protocol.messages import Message, trace_parts
from ..transcript import Transcript
from .chat import AudioPart, ChatForm, completion_body, rules_of, sent_rules
from .failures import RequestError
from .places import Place
from .worker import Worker

_KEPT_BYTES = 256 * 1024**2
_KEPT_ANSWERS = 10_000
_LONGER_S = 1.0
"""How much longer than a chunk a clip may be, in seconds."""


@dataclass(eq=False)
class TurnTask:
    """One turn on its way through the worker: a task and its recording in one, of one dialogue.

    Attributes:
        request: to the engine.
        lasting, cancelled: see `worker.Task`.
    """

    asked: TurnRequest
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Reply]"
    lasting: bool = False
    cancelled: bool = False
    done: bool = False
    name: str = "turn"
    client: str = ""

    @property
    def request(self) -> TurnRequest | None:
        return None if self.done else self.asked

    def feed(self, reply: Reply) -> None:
        self.done = True
        self._tell(lambda: self.future.set_result(reply))

    def open(self) -> "TurnTask":
        return self

    def dialogues(self, most: int) -> Sequence["TurnTask"]:
        return [self][:most]

    def tell(self, listener: Listener) -> None:
        """Do nothing: there is only the reply, which `feed` passed on."""

    def on_progress(self, progress: Progress) -> None:
        """See `tell`."""

    def result(self) -> None:
        return None

    def ended(self, result: Transcript | Failure) -> None:
        """Report a failure of the engine."""
        error = result.error if isinstance(result, Failure) else EngineError("no reply")
        self._tell(lambda: self.future.set_exception(error))

    def _tell(self, news: Any) -> None:
        def now() -> None:
            if not self.future.done():
                news()

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(now)


@dataclass
class _Clips:
    """The latest clips that clients named, by their ids."""

    kept: OrderedDict[str, Samples] = field(default_factory=OrderedDict)

    def get(self, uuid: str) -> Samples | None:
        if uuid in self.kept:
            self.kept.move_to_end(uuid)
        return self.kept.get(uuid)

    def add(self, uuid: str, samples: Samples) -> None:
        self.kept[uuid] = samples
        self.kept.move_to_end(uuid)
        while sum(clip.nbytes for clip in self.kept.values()) > _KEPT_BYTES and len(self.kept) > 1:
            self.kept.popitem(last=False)


class Turns:
    """Answers chat completions.

    Args:
        worker: asks the engine.
        profile: of the model.
        kept: how many sessions are kept between their turns.
    """

    def __init__(self, worker: Worker, profile: Profile, kept: int) -> None:
        self._worker = worker
        self._profile = profile
        self._most = kept
        self._clips = _Clips()
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._answers: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()
        self._decoding = anyio.CapacityLimiter(2)

    async def decoded(self, form: ChatForm) -> tuple[list[Message], list[Samples]]:
        """Return the messages of a request, and its clips; audio parts number them from 0.

        Raises:
            RequestError: 400, a clip cannot be decoded, or is not kept here (any more); 413, it is too long.
        """
        chat: list[Message] = []
        clips: list[Samples] = []
        for number, message in enumerate(form.messages):
            if isinstance(message.content, str):
                chat.append(Message(message.role, (message.content,) if message.content else ()))
                continue
            content: list[str | Audio] = []
            for part in message.content:
                if not isinstance(part, AudioPart):
                    content += [part.text] if part.text else []
                    continue
                if message.role != "user":
                    raise _wrong(f"message {number}: only users send clips")
                samples = await self._samples(part, number)
                content.append(Audio(0, len(samples), len(clips)))
                clips.append(samples)
            chat.append(Message(message.role, tuple(content)))
        return chat, clips

    async def _samples(self, part: AudioPart, number: int) -> Samples:
        known = None if part.uuid is None else self._clips.get(part.uuid)
        if not part.input_audio.data:
            if known is None:
                raise RequestError(
                    400,
                    f"message {number}: no clip {part.uuid!r} is kept here; send its data",
                    code="clip_not_found",
                    param="messages",
                )
            return known
        limit = self._profile.chunk_s + _LONGER_S
        samples = await anyio.to_thread.run_sync(
            _decoded, part, number, limit, limiter=self._decoding
        )
        if known is not None and not _same(known, samples):
            raise _wrong(f"message {number}: {part.uuid!r} is the name of another clip")
        if part.uuid is not None:
            self._clips.add(part.uuid, samples)
        return samples

    def request(
        self, form: ChatForm, chat: list[Message], clips: list[Samples]
    ) -> tuple[TurnRequest, bytes]:
        """Return the request to the engine, and a digest of the conversation up to it.

        Raises:
            RequestError: 400, it is no conversation of the dialogue.
        """
        try:
            parts = trace_parts(chat)
        except ProtocolError as error:
            raise _wrong(str(error)) from error
        first = [part for part in chat[0].content if isinstance(part, Audio)]
        if not first:
            raise _wrong("message 0: expected a clip: the chunk, after those of known speakers")
        chunk = len(clips[first[-1].clip]) * self._profile.ticks_per_s // SAMPLE_RATE_HZ
        answers = [part for part in parts if isinstance(part, Answer)]
        if form.turn_rules is not None:
            rules = sent_rules(form.turn_rules, self._profile, chunk)
        else:
            rules = rules_of(self._profile, _labels(chat[0]), answers, chunk)
        place = {part.clip: number for number, part in enumerate(first[:-1], start=1)}
        place[first[-1].clip] = 0
        for later in range(len(first), len(clips)):
            place[later] = later
        parts = tuple(
            replace(part, clip=place[part.clip]) if isinstance(part, Audio) else part
            for part in parts
        )
        ordered = tuple(clips[n] for n in sorted(place, key=lambda n: place[n]))
        session, new, key = self._session(parts, ordered)
        return TurnRequest(session, new, rules), key

    def _session(
        self, parts: tuple[Part, ...], clips: tuple[Samples, ...]
    ) -> tuple[Session, tuple[Part, ...], bytes]:
        """Return the session of a conversation, the parts that it has not read yet, and the conversation's digest."""
        keys, key = [], b""
        for part in parts:
            if isinstance(part, Audio):
                said = hashlib.sha256(_bytes(clips[part.clip])).hexdigest()
            else:
                said = json.dumps(part.text)
            key = hashlib.sha256(key + type(part).__name__.encode() + said.encode()).digest()
            keys.append(key)
        known = [i for i, part in enumerate(parts) if isinstance(part, Answer)]
        if known and (session := self._sessions.pop(keys[known[-1]], None)):
            session.samples, session.cached = clips[0], clips[1:]
            return session, parts[known[-1] + 1 :], key
        entries = tuple(
            replace(part, ids=self._answers.get(keys[i])) if isinstance(part, Answer) else part
            for i, part in enumerate(parts)
        )
        return Session(clips[0], clips[1:]), entries, key

    def keep(self, request: TurnRequest, key: bytes, reply: Reply) -> None:
        """Keep a session for its next turn, if one may follow, and the tokens of this one."""
        if reply.error is not None:
            return
        said = json.dumps(reply.text)
        after = hashlib.sha256(key + b"Answer" + said.encode()).digest()
        if reply.ids:
            self._answers[after] = reply.ids
        if BOX in reply.text:
            self._sessions[after] = request.session
        while len(self._answers) > _KEPT_ANSWERS:
            self._answers.popitem(last=False)
        while len(self._sessions) > self._most:
            self._sessions.popitem(last=False)

    def submit(
        self, request: TurnRequest, place: Place
    ) -> tuple[TurnTask, "asyncio.Future[Reply]"]:
        """Queue a turn."""
        loop = asyncio.get_running_loop()
        turn = TurnTask(request, loop, loop.create_future())
        self._worker.submit(turn, place)
        return turn, turn.future

    def body(self, form: ChatForm, reply: Reply) -> dict[str, Any]:
        """Return the answer; raises as `completion_body`."""
        return completion_body(reply, form.model, form.logprobs)


def _bytes(samples: Samples) -> bytes:
    return bytes(samples.astype("<f4").tobytes())


def _same(one: Samples, other: Samples) -> bool:
    return len(one) == len(other) and bool((one == other).all())


def _labels(message: Message) -> list[str]:
    """Return the texts before the clips of the speaker cache, one for each clip."""
    texts: list[str] = []
    clips = [at for at, part in enumerate(message.content) if isinstance(part, Audio)]
    for at in clips[:-1]:
        before = message.content[at - 1] if at else ""
        texts.append(before.rpartition("\n")[2] if isinstance(before, str) else "")
    return texts


def _decoded(part: AudioPart, number: int, limit_s: float) -> Samples:
    where = f"message {number}: a clip"
    try:
        data = base64.b64decode(part.input_audio.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(f"{where} is no base64: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{part.input_audio.format}"
        path.write_bytes(data)
        try:
            samples = audio.load(path)
        except AudioError as error:
            said = str(error).replace(str(path), "it").replace("'it'", "it")
            raise RequestError(
                400, f"{where} cannot be heard: {said}", code="invalid_audio", param="messages"
            ) from error
    if len(samples) > limit_s * SAMPLE_RATE_HZ:
        raise RequestError(
            413,
            f"{where} lasts {audio.to_seconds(len(samples)):.1f} s, more than the model hears at once "
            f"({limit_s - _LONGER_S:g} s)",
            code="audio_too_long",
            param="messages",
        )
    return samples


def _wrong(message: str) -> RequestError:
    return RequestError(400, message, code="invalid_value", param="messages")
