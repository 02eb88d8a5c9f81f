"""What OpenAPI says about each route: words, forms, examples. No behaviour."""

from typing import Any

from pydantic import BaseModel, TypeAdapter
from starlette.responses import Response

from ..formats import FORMATS
from .corrections import Operation
from .openai import JobForm, TranscriptionForm

DESCRIPTION = """Who said what, and when: transcripts with speakers, genders and times.

`POST /v1/audio/transcriptions` is OpenAI's: its clients work with another `base_url`. Long
recordings are jobs: they survive a restart, tell what happens while they are heard, and can be
corrected. Errors have OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`. A server
that was started with a key expects it as `Authorization: Bearer KEY`."""

_SEGMENT = {
    "type": "transcript.text.segment",
    "id": "seg_0",
    "start": 0.5,
    "end": 2.9,
    "speaker": "A",
    "text": "the red dog sees a cat",
    "gender": "female",
    "confidence": {"words": 0.98, "speaker": 0.99, "times": 0.71},
    "overlap": False,
}
_DIARIZED = {
    "task": "transcribe",
    "duration": 8.1,
    "text": "the red dog sees a cat",
    "segments": [_SEGMENT],
    "usage": {"type": "duration", "seconds": 8.1},
    "missing": [],
    "warnings": [],
}
_JOB: dict[str, Any] = {
    "id": "job_5f2a09c7d1e84b3a96f0c2d7",
    "name": "meeting.flac",
    "status": "running",
    "created": 1767225600.0,
    "duration": 1800.0,
    "position": 312.4,
    "speakers": 3,
    "queue_position": None,
    "error": None,
    "revision": 0,
}
_DOCUMENT: dict[str, Any] = {
    "revision": 1,
    "duration": 8.1,
    "speakers": [{"label": "Speaker1", "name": "Ana", "gender": "female", "colour": 0}],
    "segments": [
        {
            "id": "0",
            "speaker": "Speaker1",
            "gender": "female",
            "start": 0.5,
            "end": 2.9,
            "text": "the red dog sees a cat",
            "confidence": {"words": 0.98, "speaker": 0.99, "times": 0.71},
            "overlap": False,
            "chunk": 0,
            "turn": 1,
        }
    ],
    "chunks": [{"chunk": 0, "start": 0.0, "end": 8.1}],
    "missing": [],
    "warnings": [],
    "can_undo": True,
    "can_redo": False,
}
_EVENTS = """event: job
data: {"id": "job_5f2a09c7d1e84b3a96f0c2d7", "status": "running", ...}

id: 1
event: overview
data: {"chunk": 0, "start": 0.0, "end": 19.4, "speakers": ["female", "male"]}

id: 2
event: box
data: {"chunk": 0, "turn": 1, "start": 0.5, "end": 2.9}

id: 3
event: segment
data: {"chunk": 0, "turn": 1, "id": "0", "start": 0.5, "end": 2.9, "speaker": "Speaker1", ...}

id: 4
event: relabel
data: {"labels": {"0": "Ana"}}

id: 5
event: done
data: {"revision": 0}
"""
_STREAM = """event: transcript.text.delta
data: {"type": "transcript.text.delta", "delta": "the red dog", "segment_id": "seg_0"}

event: transcript.text.segment
data: {"type": "transcript.text.segment", "id": "seg_0", "start": 0.5, "end": 2.9, ...}

event: transcript.text.done
data: {"type": "transcript.text.done", "text": "the red dog", "usage": {...}}
"""


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema without references."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    kept = {k: v for k, v in schema.items() if k not in ("$defs", "discriminator")}
    return {key: _inlined(value, definitions) for key, value in kept.items()}


def _form(kind: type[BaseModel], *required: str) -> dict[str, Any]:
    """The body of a multipart form: a model's fields, its lists as `name[]`, and the files."""
    schema = kind.model_json_schema()
    schema = _inlined(schema, schema.get("$defs", {}))
    properties: dict[str, Any] = {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "wav, flac, mp3, ogg, opus, m4a, mp4, webm, ...",
        }
    }
    for name, field in schema["properties"].items():
        properties[f"{name}[]" if field.get("type") == "array" else name] = field
    properties["known_speaker_references[]"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Clips of 2 to 10 s as data URLs, one for each of `known_speaker_names[]`.",
    }
    schema |= {"properties": properties, "required": [*required, *schema.get("required", [])]}
    return _body("multipart/form-data", schema)


def _body(media_type: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema, **more}}}}


def _operations() -> dict[str, Any]:
    schema = TypeAdapter(Operation).json_schema()
    operations = _inlined(schema, schema["$defs"])["anyOf"]
    for operation in operations:
        operation["properties"]["revision"] = {
            "type": "integer",
            "description": "Of the document that it was made on.",
        }
        operation["required"] = ["revision", *operation["required"]]
    examples: dict[str, dict[str, Any]] = {
        "rename": {"op": "rename", "speaker": "Speaker1", "name": "Ana"},
        "merge": {"op": "merge", "from": "Speaker2", "into": "Speaker1"},
        "move": {"op": "move", "segment": "12", "speaker": "Speaker3"},
        "edit": {"op": "edit", "segment": "12", "text": "the green cat", "start": 1.2, "end": 3.0},
        "delete": {"op": "delete", "segment": "12"},
        "undo": {"op": "undo"},
        "listen": {"op": "listen", "chunk": 3},
    }
    values = {name: {"value": {"revision": 0, **made}} for name, made in examples.items()}
    return _body("application/json", {"oneOf": operations}, examples=values)


def _json(example: Any, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


def _text(media_type: str, example: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"example": example}}}


def _failure(description: str, code: str, param: str | None = None) -> dict[str, Any]:
    error = {"message": "...", "type": "invalid_request_error", "param": param, "code": code}
    return _json({"error": error}, description)


_MISSING_JOB: dict[int | str, dict[str, Any]] = {
    404: _failure("There is no such job.", "job_not_found")
}
_NOT_DONE: dict[int | str, dict[str, Any]] = {
    **_MISSING_JOB,
    409: _failure("It has no transcript yet.", "job_not_done"),
}
_INCOMING: dict[int | str, dict[str, Any]] = {
    400: _failure("A field is wrong, or the file is no audio.", "invalid_audio", "file"),
    408: _failure("The body stalled.", "request_timeout"),
    413: _failure("Too large, or too long when decoded.", "request_too_large", "file"),
    415: _failure("The body is no multipart form.", "unsupported_media_type"),
    429: _failure("The queue is full; see Retry-After.", "queue_full"),
    503: _failure("The server is stopping.", "server_stopping"),
    507: _failure("The disk is full.", "storage_failed"),
}

TRANSCRIPTIONS: dict[str, Any] = {
    "response_class": Response,
    "summary": "Transcribe a recording",
    "description": "OpenAI's route. Speakers are known names, or A, B, ... in order of appearance. "
    "Segments carry gender, confidence and overlap besides OpenAI's keys.",
    "tags": ["transcriptions"],
    "openapi_extra": _form(TranscriptionForm, "file"),
    "responses": {
        200: {
            "description": "In the format that was asked for; `diarized_json` is shown, and the "
            "events of `stream`.",
            "content": {
                "application/json": {"example": _DIARIZED},
                "text/event-stream": {"example": _STREAM},
            },
        },
        **_INCOMING,
        404: _failure("Another model was asked for.", "model_not_found", "model"),
        504: _failure("It takes too long for a request.", "answer_timeout"),
    },
}
_MODEL = {
    "id": "embedded",
    "object": "model",
    "created": 1767225600,
    "owned_by": "speaker-reasoner",
    "language": "en",
    "domain": "simulated English meetings",
}
MODELS: dict[str, Any] = {
    "summary": "The model there is",
    "tags": ["transcriptions"],
    "responses": {200: _json({"object": "list", "data": [_MODEL]}, "A list of one.")},
}
MODEL: dict[str, Any] = {
    "summary": "One model",
    "tags": ["transcriptions"],
    "responses": {
        200: _json(_MODEL, "The model."),
        404: _failure("There is no such model.", "model_not_found", "model"),
    },
}
ADD_JOB: dict[str, Any] = {
    "summary": "Begin a long recording",
    "description": "Either `file` or `path`. What is accepted here ends with a transcript, also if "
    "the server is stopped or killed meanwhile.",
    "tags": ["jobs"],
    "openapi_extra": _form(JobForm),
    "responses": {202: _json({**_JOB, "status": "queued"}, "Accepted."), **_INCOMING},
}
JOBS: dict[str, Any] = {
    "summary": "Jobs, newest first",
    "tags": ["jobs"],
    "responses": {200: _json({"data": [_JOB]}, "Jobs.")},
}
JOB: dict[str, Any] = {
    "summary": "How far a job is",
    "description": "`position` is in seconds of the recording; `queue_position` is how many wait "
    "before it, null when it does not wait.",
    "tags": ["jobs"],
    "responses": {200: _json(_JOB, "The job."), **_MISSING_JOB},
}
END_JOB: dict[str, Any] = {
    "summary": "Cancel a job, or remove one that has ended",
    "description": "A job that hears a chunk again keeps its transcript as it was.",
    "tags": ["jobs"],
    "responses": {
        200: _json({"id": _JOB["id"], "deleted": True}, "The cancelled job, or what was removed."),
        **_MISSING_JOB,
    },
}
RETRY: dict[str, Any] = {
    "summary": "Try a job again that failed or was cancelled",
    "description": "It goes on from its last finished chunk, and tells no event twice. A cancelled "
    "job keeps its files until it is removed.",
    "tags": ["jobs"],
    "responses": {
        202: _json({**_JOB, "status": "queued"}, "The job, which waits for its turn."),
        **_MISSING_JOB,
        409: _failure("It is under way, or done.", "job_not_failed"),
        **{status: _INCOMING[status] for status in (429, 503)},
    },
}
EVENTS: dict[str, Any] = {
    "response_class": Response,
    "summary": "What happens while a job is heard",
    "description": "Server-sent events, all from the first, then as they come. `Last-Event-ID` "
    "goes on after one. Labels are provisional until `done`.",
    "tags": ["jobs"],
    "responses": {200: _text("text/event-stream", _EVENTS, "Events."), **_MISSING_JOB},
}
AUDIO: dict[str, Any] = {
    "response_class": Response,
    "summary": "The recording as 16 kHz mono wav",
    "description": "16-bit. One range of bytes may be asked for.",
    "tags": ["jobs"],
    "responses": {
        200: {"description": "All of it.", "content": {"audio/wav": {}}},
        206: {"description": "The range that was asked for.", "content": {"audio/wav": {}}},
        416: _failure("The range lies outside.", "invalid_range"),
        **_MISSING_JOB,
    },
}
TRANSCRIPT: dict[str, Any] = {
    "response_class": Response,
    "summary": "The transcript as a file",
    "description": f"Corrections applied. Formats: {', '.join(FORMATS)}.",
    "tags": ["transcripts"],
    "responses": {
        200: _text("text/plain", "[00:00.50 - 00:02.90] Ana (female): the red dog", "The file."),
        400: _failure("There is no such format.", "invalid_value"),
        **_NOT_DONE,
    },
}
DOCUMENT: dict[str, Any] = {
    "summary": "The transcript as it is corrected",
    "tags": ["transcripts"],
    "responses": {200: _json(_DOCUMENT, "The document."), **_NOT_DONE},
}
CORRECT: dict[str, Any] = {
    "response_class": Response,
    "summary": "Correct a transcript",
    "description": "Operations are appended and can be undone. `listen` hears a chunk again with "
    "the corrections made so far, and becomes a correction itself.",
    "tags": ["transcripts"],
    "openapi_extra": _operations(),
    "responses": {
        200: _json(_DOCUMENT, "The document after it."),
        202: _json({**_JOB, "status": "queued"}, "`listen`: the job, under way again."),
        400: _failure("The operation is wrong.", "invalid_value", "name"),
        404: _failure("There is no such job, segment, speaker or chunk.", "segment_not_found"),
        409: _failure("The transcript was corrected meanwhile.", "stale_revision", "revision"),
    },
}
TRACE: dict[str, Any] = {
    "summary": "What the model saw and wrote in a chunk",
    "description": "Audio is given in samples at 16 kHz, counted from the chunk's start.",
    "tags": ["transcripts"],
    "responses": {
        200: _json(
            {
                "chunk": 0,
                "start": 0.0,
                "duration": 8.1,
                "stop": "answered",
                "detail": "",
                "parts": [
                    {"text": "<|im_start|>user\n<|audio_start|>"},
                    {"audio": [0, 129600]},
                    {"answer": "<think>\n2 speakers: ...</think><box>[0.5, 2.9]</box>"},
                ],
            },
            "The trace.",
        ),
        **_NOT_DONE,
    },
}
VOICES: dict[str, Any] = {
    "summary": "People whose voices the server knows",
    "description": "Those of the voice store it was started with. `voices[]` of a transcription or "
    "a job names some of them; their clips stay on the server.",
    "tags": ["server"],
    "responses": {
        200: _json({"data": [{"name": "Cleo", "clips": 2, "seconds": 11.4}]}, "By name."),
        500: _failure("The store cannot be read.", "voices_damaged"),
    },
}
HEALTH: dict[str, Any] = {
    "summary": "Whether the server takes work",
    "tags": ["server"],
    "responses": {200: _json({"status": "ok"}, "`ok`, or `stopping`.")},
}
METRICS: dict[str, Any] = {
    "summary": "Counts for Prometheus",
    "tags": ["server"],
    "response_class": Response,
    "responses": {200: {"description": "Prometheus text.", "content": {"text/plain": {}}}},
}
