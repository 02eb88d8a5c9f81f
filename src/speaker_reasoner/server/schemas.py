"""Answers of the server as models: FastAPI checks every JSON answer against them, and documents them.

A key that a model does not have is a bug, and raises an error: documentation and answers cannot differ.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, description="Seconds.", examples=[8.1])]
Probability = Annotated[float | None, Field(description="Null where unknown.", examples=[0.98])]
Gender = Literal["female", "male", "unknown"]


class Answer(BaseModel):
    """An answer; keys that it does not define are an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Failure(Answer):
    """An error in the form of OpenAI's API."""

    message: str = Field(description="What failed, what was expected and got, what to do.")
    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "rate_limit_error",
        "server_error",
    ]
    param: str | None = Field(description="The field at fault.")
    code: str = Field(
        description="A word by which programs recognise the error.", examples=["job_not_found"]
    )


class Error(Answer):
    """The body of every answer with a status from 400 on."""

    error: Failure


class Confidences(Answer):
    """Confidence of the model, 0 to 1."""

    words: Probability
    speaker: Probability
    times: Probability


class Usage(Answer):
    """The billed quantity of a request: seconds of its audio."""

    type: Literal["duration"]
    seconds: Seconds


class Gap(Answer):
    """A stretch that was not transcribed."""

    start: Seconds
    end: Seconds
    reason: str


class Notes(Answer):
    """Stretches that were not transcribed, and warnings for the reader."""

    missing: list[Gap]
    warnings: list[str]


class Span(Answer):
    """Times, words and speaker of a segment."""

    speaker: str = Field(description="Name or label.", examples=["A"])
    gender: Gender
    start: Seconds
    end: Seconds
    text: str = Field(examples=["the red dog sees a cat"])
    confidence: Confidences
    overlap: bool = Field(description="Whether somebody else speaks at the same time.")


class TimedWord(Answer):
    """A word with its times."""

    word: str = Field(examples=["dog"])
    start: Seconds
    end: Seconds
    confidence: Probability = None


class SpokenWord(TimedWord):
    """A word with its times and speaker."""

    speaker: str


class TimedSpan(Span):
    """A segment, with its words where they were asked for and have times."""

    type: Literal["transcript.text.segment"]
    words: list[TimedWord] = []


class DiarizedSegment(TimedSpan):
    """A segment of `diarized_json`, and an event of its stream."""

    id: str = Field(examples=["seg_0"])


class VerboseSegment(TimedSpan):
    """A segment of `verbose_json`."""

    id: int
    seek: int
    tokens: list[int] = Field(description="Not given: empty.")
    temperature: float
    avg_logprob: float | None = Field(
        description="Logarithm of the mean probability of the words; null where unknown."
    )
    compression_ratio: float
    no_speech_prob: float = Field(description="Not estimated: 0.")
    warnings: list[str] = Field([], description="Of the whole answer, on its first segment.")


class PlainTranscription(Answer):
    """`json`."""

    text: str
    usage: Usage
    warnings: list[str] = Field([], description="Where there are any.")


class DiarizedTranscription(Notes):
    """`diarized_json`, with keys of our own for confidences and warnings."""

    task: Literal["transcribe"]
    duration: Seconds
    text: str
    segments: list[DiarizedSegment]
    usage: Usage


class VerboseTranscription(Notes):
    """`verbose_json`."""

    task: Literal["transcribe"]
    language: str = Field(examples=["en"])
    duration: Seconds
    text: str
    segments: list[VerboseSegment]
    words: list[SpokenWord] = Field([], description="Where they were asked for.")
    usage: Usage


class Model(Answer):
    """A model, with the language and the kind of recordings it was made for."""

    id: str = Field(examples=["embedded"])
    object: Literal["model"]
    created: int = Field(description="Unix time of the server's start.")
    owned_by: Literal["speaker-reasoner"]
    language: str | None = Field(
        description="What it transcribes; null where it recognises the language.", examples=["en"]
    )
    domain: str = Field(examples=["simulated English meetings"])
    profile: dict[str, Any] | None = Field(
        description="Wording and limits, for clients of `POST /v1/chat/completions`; null without it."
    )


class Models(Answer):
    """A list of models."""

    object: Literal["list"]
    data: list[Model]


class WrittenMessage(Answer):
    """A turn as the model wrote it."""

    role: Literal["assistant"]
    content: str = Field(
        examples=["<think>\n1 speaker: Speaker1-female\n</think><box>[0.4, 2.9]</box>"]
    )
    refusal: None


class WrittenToken(Answer):
    """A token of a turn."""

    token: str
    logprob: float = Field(description="Before the rules were applied.")
    bytes: list[int]
    top_logprobs: list[None] = Field(description="Not given: empty.")


class Logprobs(Answer):
    """The tokens of a turn."""

    content: list[WrittenToken]
    refusal: None


class Choice(Answer):
    """The only choice of a completion."""

    index: int
    message: WrittenMessage
    logprobs: Logprobs | None = Field(description="Null where unknown, or not asked for.")
    finish_reason: Literal["stop", "length"]


class Completion(Answer):
    """A chat completion: one turn of the dialogue."""

    id: str
    object: Literal["chat.completion"]
    created: int = Field(description="Unix time.")
    model: str
    choices: list[Choice]


class Job(Answer):
    """A long recording, and the progress of its transcription."""

    id: str = Field(examples=["job_5f2a09c7d1e84b3a96f0c2d7"])
    name: str = Field(examples=["meeting.flac"])
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    created: float = Field(description="Unix time.")
    changed: float = Field(description="Unix time of the last change of its state or transcript.")
    duration: Seconds
    position: float = Field(description="Seconds of the recording that are transcribed.")
    speakers: int | None = Field(description="Number of speakers so far.")
    queue_position: int | None = Field(
        description="How many wait before it; null when it does not wait. With several servers as of a moment ago."
    )
    error: Failure | None = Field(description="Why it failed.")
    problem: str | None = Field(
        description="The problem of the server's disk or database that it waits for; it continues by itself."
    )
    revision: int = Field(description="How many corrections were made.")
    warnings: list[str] = Field([], description="Fields of its request that are without effect.")
    removed: float | None = Field(description="Unix time at which it was put into the bin.")


class Jobs(Answer):
    """A page of jobs, newest first."""

    data: list[Job]
    has_more: bool = Field(description="Whether others follow: ask with `after` for them.")


class Removed(Answer):
    """A job that was put into the bin, or erased."""

    id: str
    deleted: Literal[True]
    restorable_until: float | None = Field(
        description="Unix time until which it can be restored; null where it was erased."
    )


class Person(Answer):
    """A speaker of a document."""

    label: str = Field(examples=["Speaker1"])
    name: str = Field(description="As corrected; else the label.", examples=["Ana"])
    gender: Gender
    colour: int = Field(description="Number of the speaker's colour; stays when others go.")


class DocumentSegment(Span):
    """A segment with an id, to which corrections refer."""

    id: str = Field(examples=["0"])
    chunk: int
    turn: int | None = Field(description="Of the chunk's dialogue; null where no turn wrote it so.")
    corrected: bool = Field(description="Whether people changed its words, times or speaker.")
    words: list[TimedWord] = Field([], description="Where asked for, and where they have times.")


class Chunk(Answer):
    """A chunk with a dialogue; silent ones have none."""

    chunk: int
    start: Seconds
    end: Seconds


class Document(Notes):
    """A transcript with its corrections."""

    revision: int
    duration: Seconds
    speakers: list[Person]
    segments: list[DocumentSegment]
    chunks: list[Chunk]
    can_undo: bool
    can_redo: bool
    confidence_floor: float | None = Field(
        description="Mean probability of words under which the model is not to be trusted."
    )


class TracePart(BaseModel):
    """A part of a trace: text that the model was given, a slice of audio in samples, or the model's answer."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    audio: tuple[int, int] | None = None
    clip: int | None = Field(
        None,
        description="Of which entry of the speaker cache the slice is, from 1; else the chunk.",
    )
    answer: str | None = None


class Trace(Answer):
    """The dialogue over a chunk, as the model saw and wrote it."""

    chunk: int
    start: Seconds
    duration: Seconds
    stop: str
    detail: str
    parts: list[TracePart]
    insisted: list[list[TracePart]] = Field([], description="Of dialogues asked once more.")


class Voice(Answer):
    """A person of the voice store."""

    name: str = Field(examples=["Cleo"])
    clips: int
    seconds: Seconds


class Voices(Answer):
    """People of the voice store, by name."""

    data: list[Voice]


class Health(Answer):
    """State of the server, and its problems."""

    status: Literal["ok", "degraded", "stopping"]
    problems: list[str] = Field(description="Of disk and database, in words.")
    jobs_waiting_for_storage: int = Field(description="They go on by themselves.")
    servers: dict[str, int] | None = Field(
        None, description="How many of each kind share the store, if it can be shared."
    )


ERRORS: dict[str, tuple[int, str]] = {
    "invalid_value": (400, "A field is wrong."),
    "missing_field": (400, "A field is missing."),
    "invalid_audio": (400, "The file is no audio, or damaged."),
    "invalid_json": (400, "The body is no JSON."),
    "invalid_multipart": (400, "The form cannot be read, or was cut off."),
    "clip_not_found": (400, "No clip of this uuid is kept; send its data."),
    "context_length_exceeded": (400, "The conversation is longer than the model's context."),
    "voice_not_found": (400, "Nobody in the voice store is called so."),
    "unsupported_language": (400, "The model transcribes another language."),
    "unsupported_operation": (400, "The model cannot do this."),
    "path_not_allowed": (400, "No file inside a folder that the server allows."),
    "invalid_api_key": (401, "The server has a key, and it is missing or wrong."),
    "host_not_allowed": (403, "A server without a key answers on localhost only."),
    "origin_not_allowed": (403, "Other sites may not change anything here."),
    "model_not_found": (404, "There is no such model."),
    "job_not_found": (404, "There is no such job."),
    "segment_not_found": (404, "There is no such segment."),
    "speaker_not_found": (404, "There is no such speaker."),
    "chunk_not_found": (404, "There is no such chunk, or it is silent."),
    "request_timeout": (408, "The body stalled."),
    "job_not_done": (409, "It has no transcript yet."),
    "job_not_failed": (409, "It is under way, or done."),
    "job_under_way": (409, "It is under way; wait, or cancel it first."),
    "job_not_removed": (409, "It is not in the bin."),
    "stale_revision": (409, "The transcript was corrected meanwhile."),
    "nothing_to_undo": (409, "There is nothing to undo."),
    "nothing_to_redo": (409, "There is nothing to redo."),
    "request_too_large": (413, "The body, or a part of it, is too large."),
    "audio_too_long": (413, "The recording is too long."),
    "unsupported_media_type": (415, "The body is no multipart form."),
    "invalid_range": (416, "The range lies outside."),
    "queue_full": (429, "The queue is full; see Retry-After."),
    "turn_failed": (500, "The model could not write the turn."),
    "internal_error": (500, "A bug; see the server's log."),
    "job_damaged": (500, "What the server kept of the job cannot be read."),
    "voices_damaged": (500, "The voice store cannot be read."),
    "server_stopping": (503, "The server is stopping; see Retry-After."),
    "engine_failed": (503, "The model could not answer; see Retry-After."),
    "answer_timeout": (504, "It takes too long for a request; make it a job."),
    "database_unavailable": (503, "The database is out of reach; see Retry-After."),
    "storage_failed": (507, "The disk is full."),
    "store_unavailable": (503, "The bucket is out of reach; see Retry-After."),
    "no_worker": (503, "A front has no worker that lives; see Retry-After."),
    "worker_lost": (500, "Every server that worked on it died."),
}
"""Status and meaning of the code of every error."""


_ANYWHERE = (
    "invalid_api_key",
    "host_not_allowed",
    "origin_not_allowed",
    "internal_error",
    "database_unavailable",
    "store_unavailable",
    "storage_failed",
    "no_worker",
)


def failures(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's responses for the errors with these codes, and for those of every route, by status."""
    # References: FastAPI would build a validator for each status; the model itself is defined once.
    schema = {"$ref": "#/components/schemas/Error"}
    responses: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, *_ANYWHERE):
        status, meaning = ERRORS[code]
        content = {"application/json": {"schema": schema}}
        response = responses.setdefault(status, {"content": content, "description": ""})
        response["description"] = f"{response['description']} `{code}`: {meaning}".strip()
    # With this one FastAPI documents no 422: those errors are sent as 400.
    return responses | {"4XX": {"model": Error, "description": "No route, method or body so."}}
