"""OpenAPI documentation of each route: summary, forms, answers, errors. No behaviour."""

from typing import Any

from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, TypeAdapter

from . import schemas
from .chat import ChatForm
from .exports import SUFFIXES
from .forms import JobForm, TranscriptionForm
from .operations import Operation
from .schemas import failures

DESCRIPTION = """Who said what, and when: transcripts with speakers, genders and times.

`POST /v1/audio/transcriptions` is OpenAI's: its clients work with another `base_url`. Long
recordings are jobs: they survive a restart, send events while they are transcribed, and can be
corrected. Errors have OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`. A server
that was started with a key expects it as `Authorization: Bearer KEY`."""

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

id: 6
event: anew
data: {}
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


def _chat_schema() -> dict[str, Any]:
    schema = ChatForm.model_json_schema()
    whole: dict[str, Any] = _inlined(schema, schema["$defs"])
    return whole


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
        "split": {"op": "split", "segment": "12", "at": 9, "speaker": "Speaker3"},
        "join": {"op": "join", "segment": "12", "other": "13"},
        "add": {"op": "add", "speaker": "Ana", "start": 4.5, "end": 5.1, "text": "yes"},
        "gender": {"op": "gender", "speaker": "Ana", "gender": "female"},
        "delete": {"op": "delete", "segment": "12"},
        "undo": {"op": "undo"},
        "listen": {"op": "listen", "chunk": 3, "keep": True},
    }
    values = {name: {"value": {"revision": 0, **made}} for name, made in examples.items()}
    return _body("application/json", {"oneOf": operations}, examples=values)


def _content(media_type: str, example: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"example": example}}}


MEDIA_TYPES = {
    "json": "application/json",
    "seglst": "application/json",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "html": "text/html",
    "md": "text/markdown",
    "ass": "text/x-ass",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}
"""Media types of transcripts by format; of all others it is `TEXT`."""
TEXT = "text/plain"
EXPOSED = ["x-peaks-per-second", "x-duration", "x-audio", "x-warnings", "retry-after"]
"""Headers that pages of other sites may read, where they may use the server."""
_SOUND = {"audio/wav": {"schema": {"type": "string", "format": "binary"}}}
_INCOMING = (
    "invalid_audio",
    "invalid_multipart",
    "invalid_value",
    "missing_field",
    "voice_not_found",
    "request_timeout",
    "audio_too_long",
    "request_too_large",
    "unsupported_media_type",
    "queue_full",
    "voices_damaged",
    "server_stopping",
    "storage_failed",
)
_NOT_DONE = ("job_not_found", "job_not_done", "job_damaged")

KEY = HTTPBearer(auto_error=False, description="The key that the server was started with.")
"""Documents the key; `Guard` looks at it."""

TRANSCRIPTIONS: dict[str, Any] = {
    "response_class": Response,
    "summary": "Transcribe a recording",
    "description": "OpenAI's route. Speakers are known names, or A, B, ... in order of appearance. "
    "Segments carry gender, confidence and overlap besides OpenAI's keys.",
    "tags": ["transcriptions"],
    "openapi_extra": _form(TranscriptionForm, "file"),
    "responses": {
        200: {
            "description": "In the format that was asked for, or the events of `stream`.",
            "model": schemas.DiarizedTranscription
            | schemas.VerboseTranscription
            | schemas.PlainTranscription,
            "content": {
                "text/event-stream": {"example": _STREAM},
                **{kind: {} for kind in ("text/plain", "application/x-subrip", "text/vtt")},
            },
        },
        **failures(
            *_INCOMING, "unsupported_language", "model_not_found", "engine_failed", "answer_timeout"
        ),
    },
}
COMPLETIONS: dict[str, Any] = {
    "summary": "Write one turn of a dialogue",
    "description": "For clients that lead the dialogue themselves, such as `speaker-reasoner transcribe "
    "--engine openai`: users' messages are clips and words, the model's are sent back as it wrote them. The "
    "turn follows the rules of the dialogue. Needs a server that was started with --engine-api.",
    "tags": ["turns"],
    "openapi_extra": _body("application/json", _chat_schema()),
    "response_model": schemas.Completion,
    "responses": {
        200: {
            "description": "The turn, or the events of `stream`.",
            "content": {"text/event-stream": {"example": 'data: {"id": "chatcmpl-..."}\n\n'}},
        },
        **failures(
            "invalid_json",
            "invalid_value",
            "invalid_audio",
            "clip_not_found",
            "context_length_exceeded",
            "model_not_found",
            "request_timeout",
            "audio_too_long",
            "request_too_large",
            "queue_full",
            "turn_failed",
            "server_stopping",
            "engine_failed",
            "answer_timeout",
        ),
    },
}
TRANSLATIONS: dict[str, Any] = {
    "response_class": Response,
    "summary": "Not done: no model here translates",
    "tags": ["transcriptions"],
    "status_code": 400,
    "openapi_extra": _body("multipart/form-data", {"type": "object"}),
    "responses": failures("unsupported_operation"),
}
MODELS: dict[str, Any] = {
    "summary": "The model there is",
    "tags": ["transcriptions"],
    "response_model": schemas.Models,
    "responses": failures(),
}
MODEL: dict[str, Any] = {
    "summary": "One model",
    "tags": ["transcriptions"],
    "response_model": schemas.Model,
    "responses": failures("model_not_found"),
}
ADD_JOB: dict[str, Any] = {
    "summary": "Begin a long recording",
    "description": "Either `file` or `path`. What is accepted here ends with a transcript, also if "
    "the server is stopped or killed meanwhile.",
    "tags": ["jobs"],
    "status_code": 202,
    "response_model": schemas.Job,
    "response_description": "Accepted.",
    "openapi_extra": _form(JobForm),
    "response_model_exclude_unset": True,
    "responses": failures(
        *_INCOMING,
        "path_not_allowed",
        "unsupported_language",
        "model_not_found",
        "answer_timeout",
    ),
}
JOBS: dict[str, Any] = {
    "summary": "Jobs, newest first, page by page",
    "tags": ["jobs"],
    "response_model": schemas.Jobs,
    "responses": failures("invalid_value", "job_not_found"),
}
JOB: dict[str, Any] = {
    "summary": "How far a job is",
    "tags": ["jobs"],
    "response_model": schemas.Job,
    "responses": failures("job_not_found"),
}
CANCEL: dict[str, Any] = {
    "summary": "End a job that is under way",
    "description": "Never removes anything: one that has ended stays as it is. A job that "
    "transcribes a chunk again keeps its transcript as it was.",
    "tags": ["jobs"],
    "response_model": schemas.Job,
    "response_description": "The job as it is now.",
    "responses": failures("job_not_found"),
}
REMOVE: dict[str, Any] = {
    "summary": "Remove a job that has ended",
    "description": "It goes to the bin, from which it can be restored until the bin is emptied (see "
    "`--keep`). `erase` deletes it for good, in the bin or not, and frees its space at once.",
    "tags": ["jobs"],
    "response_model": schemas.Removed,
    "responses": failures("job_not_found", "job_under_way", "invalid_value"),
}
RESTORE: dict[str, Any] = {
    "summary": "Take a job out of the bin",
    "tags": ["jobs"],
    "response_model": schemas.Job,
    "responses": failures("job_not_found", "job_not_removed"),
}
RETRY: dict[str, Any] = {
    "summary": "Try a job again that failed or was cancelled",
    "description": "It goes on from its last finished chunk, and sends no event twice. A cancelled "
    "job keeps its files until it is removed. One that waits for the disk or the database tries at once.",
    "tags": ["jobs"],
    "status_code": 202,
    "response_model": schemas.Job,
    "response_description": "The job, which waits for its turn.",
    "responses": failures("job_not_found", "job_not_failed", "queue_full", "server_stopping"),
}
EVENTS: dict[str, Any] = {
    "response_class": Response,
    "summary": "Events of a job",
    "description": "Server-sent events, all from the first, then as they come. `Last-Event-ID` "
    "goes on after one. Labels are provisional until `done`. After `anew` the events before it are void: the "
    "recording is transcribed from its beginning once more. With `follow` the stream stays open after "
    "that, and an event `job` tells of every later correction, whoever made it.",
    "tags": ["jobs"],
    "responses": {
        200: _content("text/event-stream", _EVENTS, "Events."),
        **failures("invalid_value", "job_not_found"),
    },
}
AUDIO: dict[str, Any] = {
    "response_class": Response,
    "summary": "The recording as 16 kHz mono wav",
    "description": "16-bit. One range of bytes may be asked for.",
    "tags": ["jobs"],
    "responses": {
        200: {"description": "All of it.", "content": _SOUND},
        206: {"description": "The range that was asked for.", "content": _SOUND},
        **failures("job_not_found", "job_under_way", "invalid_range", "job_damaged"),
    },
}
PEAKS: dict[str, Any] = {
    "response_class": Response,
    "summary": "The loudness of the recording",
    "description": "A byte for each stretch, 255 is full scale; `x-peaks-per-second` and `x-duration` say "
    "what they are of, `x-audio` where a player that sends no key finds the audio.",
    "tags": ["jobs"],
    "responses": {
        200: {
            "description": "Bytes.",
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
        },
        **failures("job_not_found", "job_under_way", "job_damaged"),
    },
}
TRANSCRIPT: dict[str, Any] = {
    "response_class": Response,
    "summary": "The transcript as a file",
    "description": f"Corrections applied. Formats: {', '.join(SUFFIXES)}. Captions (`srt`, `vtt`, `ass`) "
    "keep to the reading habits of subtitles. `X-Warnings` holds the warnings as a JSON list.",
    "tags": ["transcripts"],
    "responses": {
        200: {
            "description": "The file.",
            "content": {kind: {} for kind in (TEXT, *sorted(set(MEDIA_TYPES.values())))},
        },
        **failures("invalid_value", *_NOT_DONE),
    },
}
DOCUMENT: dict[str, Any] = {
    "summary": "The transcript as it is corrected",
    "response_model_exclude_unset": True,
    "tags": ["transcripts"],
    "response_model": schemas.Document,
    "responses": failures("invalid_value", *_NOT_DONE),
}
CORRECT: dict[str, Any] = {
    "response_class": Response,
    "summary": "Correct a transcript",
    "description": "Operations are appended and can be undone. `listen` transcribes a chunk again "
    "with the corrections made so far, and becomes a correction itself.",
    "tags": ["transcripts"],
    "openapi_extra": _operations(),
    "responses": {
        200: {"model": schemas.Document, "description": "The document after it."},
        202: {"model": schemas.Job, "description": "`listen`: the job, under way again."},
        **failures(
            *_NOT_DONE,
            "invalid_value",
            "invalid_json",
            "segment_not_found",
            "speaker_not_found",
            "chunk_not_found",
            "request_timeout",
            "job_under_way",
            "stale_revision",
            "nothing_to_undo",
            "nothing_to_redo",
            "request_too_large",
        ),
    },
}
TRACE: dict[str, Any] = {
    "summary": "What the model saw and wrote in a chunk",
    "description": "Audio is given in samples at 16 kHz, counted from the chunk's start.",
    "tags": ["transcripts"],
    "response_model": schemas.Trace,
    "response_model_exclude_unset": True,
    "responses": failures("invalid_value", "chunk_not_found", *_NOT_DONE),
}
VOICES: dict[str, Any] = {
    "summary": "People whose voices the server knows",
    "description": "Those of the voice store it was started with. `voices[]` of a transcription or "
    "a job names some of them; their clips stay on the server.",
    "tags": ["server"],
    "response_model": schemas.Voices,
    "responses": failures("voices_damaged"),
}
HEALTH: dict[str, Any] = {
    "summary": "Whether the server takes work, and what is wrong",
    "tags": ["server"],
    "response_model": schemas.Health,
    "response_model_exclude_unset": True,
    "responses": {
        503: {
            "model": schemas.Health,
            "description": "The disk or the database cannot be used now.",
        },
        **{status: response for status, response in failures().items() if status != 503},
    },
}
METRICS: dict[str, Any] = {
    "summary": "Counts for Prometheus",
    "tags": ["server"],
    "response_class": Response,
    "responses": {
        200: {"description": "Prometheus text.", "content": {"text/plain": {}}},
        **failures(),
    },
}
