"""Events of `/v1/realtime`: the configuration of sessions by clients, and what the server sends.

The form is that of OpenAI's Realtime API, transcription sessions: that of today (`session.update` with
`type: transcription`) and the beta's before it (`transcription_session.update`). Sources: its reference, and the
types of the official Python client. Nothing here reads a socket or runs a model.
"""

import base64
import binascii
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..failures import RequestError
from ..forms import (
    SPEAKERS,
    Abilities,
    check_language,
    check_model,
    language_code,
    speaker_bounds,
    usable_names,
)
from .incoming import CODINGS, Coding

TRANSCRIPTION = "conversation.item.input_audio_transcription"


class SessionOver(RequestError):
    """The session ends with this error."""


class _Part(BaseModel):
    """A part of a session. Unknown keys are kept, and warnings name them."""

    model_config = ConfigDict(extra="allow")


class AudioFormat(_Part):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Literal[24000, 8000] | None = None


class Transcription(_Part):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    languages: list[str] | None = None
    keywords: list[str] | None = None
    delay: str | None = None

    @field_validator("language")
    @classmethod
    def _code(cls, language: str | None) -> str | None:
        return language_code(language)


class TurnDetection(_Part):
    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    silence_duration_ms: Annotated[int, Field(ge=100, le=10_000)] = 500
    create_response: bool | None = None
    interrupt_response: bool | None = None
    idle_timeout_ms: int | None = None
    eagerness: str | None = None


class Input(_Part):
    format: AudioFormat = AudioFormat()
    transcription: Transcription | None = Transcription()
    noise_reduction: dict[str, Any] | None = None
    turn_detection: TurnDetection | None = TurnDetection()


class SessionAudio(_Part):
    input: Input = Input()


class Session(_Part):
    """A transcription session. Keys of our own: `speakers`, the number of speakers, such as `2-5`; and, as for
    `/v1/audio/transcriptions`, names of known speakers with a clip each, as data URLs, or from the voice store."""

    type: Literal["transcription"] = "transcription"
    audio: SessionAudio = SessionAudio()
    include: list[str] | None = None
    speakers: Annotated[str | None, Field(pattern=SPEAKERS)] = None
    known_speaker_names: list[str] = []
    known_speaker_references: list[str] = []
    voices: list[str] = []

    @field_validator("known_speaker_names", "voices")
    @classmethod
    def _usable(cls, names: list[str]) -> list[str]:
        return usable_names(names)

    @property
    def coding(self) -> Coding:
        return CODINGS[self.audio.input.format.type]

    @property
    def language(self) -> str | None:
        asked = self.audio.input.transcription
        return asked.language if asked is not None else None

    @property
    def count(self) -> tuple[int, int] | None:
        return speaker_bounds(self.speakers)


_BETA = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}


def from_beta(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an update of the beta's form to today's."""
    update = {name: value for name, value in sent.items() if name not in _BETA}
    inside = {new: sent[old] for old, new in _BETA.items() if old in sent}
    if isinstance(kind := inside.get("format"), str):
        inside["format"] = {"type": _BETA_FORMATS.get(kind, kind)}
    return {**update, "audio": {"input": inside}}


def to_beta(session: Session) -> dict[str, Any]:
    """Convert a session to the beta's form."""
    known = session.audio.input.model_dump()
    names = {new: old for old, new in _BETA_FORMATS.items()}
    known["format"] = names[session.audio.input.format.type]
    return {old: known[new] for old, new in _BETA.items()} | {"include": session.include}


def updated(
    session: Session, sent: Mapping[str, Any], able: Abilities
) -> tuple[Session, list[str]]:
    """Apply an update to a session: missing fields stay as they are, `null` clears.

    Returns:
        The session, and the parts of the update without effect, as sentences.

    Raises:
        RequestError: 400, a field is wrong, or another kind of session; 404, another model.
    """
    merged = _merged(session.model_dump(exclude_unset=True), sent)
    try:
        new = Session.model_validate(merged)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = ".".join(("session", *(str(one) for one in first["loc"])))
        got = repr(first["input"])[:80]
        raise RequestError(
            400, f"{param}: {first['msg']}, got {got}", code="invalid_value", param=param
        ) from error
    rate = new.audio.input.format.rate
    if rate is not None and rate != new.coding.rate_hz:
        param = "session.audio.input.format.rate"
        message = f"{param}: {new.audio.input.format.type} has {new.coding.rate_hz}, got {rate}"
        raise RequestError(400, message, code="invalid_value", param=param)
    asked = new.audio.input.transcription
    if asked is not None and asked.model is not None:
        check_model(asked.model, able)
    check_language(new.language, able)
    return new, [*_without_effect(new, sent), *_unknown(sent, new)]


def _merged(before: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(before)
    for name, value in sent.items():
        old = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[name] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _unknown(sent: Mapping[str, Any], session: Session) -> Iterator[str]:
    """Yield the fields of an update that no session has."""
    parts = (
        ("session", session, sent),
        ("session.audio", session.audio, sent.get("audio")),
        ("session.audio.input", session.audio.input, _of(sent, "audio", "input")),
        *(
            (f"session.audio.input.{name}", part, _of(sent, "audio", "input", name))
            for name in ("format", "transcription", "turn_detection")
            if (part := getattr(session.audio.input, name)) is not None
        ),
    )
    for path, part, update in parts:
        for name in part.model_extra or ():
            if isinstance(update, Mapping) and name in update:
                yield f"{path}.{name}: not a field that this server knows; ignored"


def _of(sent: Any, *names: str) -> Any:
    for name in names:
        sent = sent.get(name) if isinstance(sent, Mapping) else None
    return sent


def _without_effect(session: Session, sent: Mapping[str, Any]) -> Iterator[str]:
    for name in ("prompt", "keywords", "languages", "delay"):
        if _of(sent, "audio", "input", "transcription", name):
            yield f"session.audio.input.transcription.{name}: without effect, this model takes none"
    if session.audio.input.transcription is None:
        yield "session.audio.input.transcription: null is without effect, everything is transcribed"
    if _of(sent, "audio", "input", "noise_reduction"):
        yield "session.audio.input.noise_reduction: without effect, audio is transcribed as it comes"
    if sent.get("include"):
        yield "session.include: without effect, there are no log-probabilities"
    turns = session.audio.input.turn_detection
    if turns is not None and _of(sent, "audio", "input", "turn_detection"):
        if turns.type == "semantic_vad":
            yield "session.audio.input.turn_detection: semantic_vad is done as server_vad"
        for name in ("create_response", "interrupt_response", "idle_timeout_ms"):
            if getattr(turns, name):
                yield f"session.audio.input.turn_detection.{name}: without effect in a transcription"


def event(kind: str, **body: Any) -> dict[str, Any]:
    """Make an event of the server."""
    return {"type": kind, "event_id": f"event_{secrets.token_hex(10)}", **body}


def error_event(error: RequestError, cause: str | None) -> dict[str, Any]:
    """Make an error event; `cause` is the client's id of the event at fault."""
    return event("error", error={**error.body()["error"], "event_id": cause})


def session_body(session: Session, session_id: str, beta: bool, **ours: Any) -> dict[str, Any]:
    """Return a session as JSON for clients."""
    if beta:
        body = to_beta(session)
        return {"id": session_id, "object": "realtime.transcription_session", **body, **ours}
    body = session.model_dump(exclude={"known_speaker_references"})
    kind = body["audio"]["input"]["format"]
    body["audio"]["input"]["format"] = (
        {"type": kind["type"], "rate": 24_000} if kind["type"] == "audio/pcm" else kind
    )
    body["audio"]["input"]["turn_detection"] = _without_nulls(
        body["audio"]["input"]["turn_detection"]
    )
    return {"id": session_id, "object": "realtime.transcription_session", **body, **ours}


def _without_nulls(body: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if body is None else {k: v for k, v in body.items() if v is not None}


def item_body(item_id: str) -> dict[str, Any]:
    """Return an item of the conversation, which stands for a piece."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }


def parse_event(text: str | None) -> dict[str, Any]:
    """Parse an event of the client.

    Raises:
        RequestError: 400, it is malformed.
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


def decoded_audio(data: object, width: int) -> bytes:
    """Decode the samples of an append event.

    Raises:
        RequestError: 400, they are malformed.
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
