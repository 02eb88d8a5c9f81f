"""What OpenAI's clients send and expect: forms, errors, transcripts, server-sent events.

Nothing here reads a request or runs a model. Sources: OpenAI's API reference for
`POST /v1/audio/transcriptions`, and the types of its official Python client.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import SettingsError
from ..formats import render
from ..formats.words import OPENAI, word_rows
from ..spans import find_overlaps
from ..transcript import Segment, Transcript
from ..voices.store import check_name
from .failures import RequestError as RequestError  # also for those who import it from here
from .failures import as_request_error as as_request_error

Form = TypeVar("Form", bound=BaseModel)


class ServerVad(BaseModel):
    """Voice activity detection as OpenAI's clients configure it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    prefix_padding_ms: int = Field(300, ge=0)
    silence_duration_ms: int = Field(200, ge=0)
    threshold: float = Field(0.5, ge=0, le=1)


class Hints(BaseModel):
    """What a client knows about a recording beforehand."""

    model_config = ConfigDict(extra="forbid")

    speakers: str | None = Field(
        None,
        pattern=r"^[1-9]\d?(-[1-9]\d?)?$",
        description="How many people speak: `3`, or between two numbers: `2-5`.",
        examples=["2-5"],
    )
    known_speaker_names: list[str] = Field(
        default=[],
        description="Names, one for each of `known_speaker_references[]`; a name may come several "
        "times, with several clips of one person. Any number.",
        examples=[["Ana", "Ben"]],
    )

    voices: list[str] = Field(
        default=[],
        description="People of the server's voice store (`GET /v1/voices`), by name.",
        examples=[["Cleo"]],
    )

    @field_validator("known_speaker_names", "voices")
    @classmethod
    def _usable(cls, names: list[str]) -> list[str]:
        try:
            return [check_name(name.strip()) for name in names]
        except SettingsError as error:
            raise ValueError(str(error)) from error

    @property
    def count(self) -> tuple[int, int] | None:
        """Fewest and most speakers."""
        if self.speakers is None:
            return None
        low, _, high = self.speakers.partition("-")
        return int(low), int(high or low)


STREAMED_FORMATS = ("json", "text", "diarized_json")
WORD_FORMATS = ("verbose_json", "diarized_json")


class TranscriptionForm(Hints):
    """Fields of `POST /v1/audio/transcriptions` besides its files."""

    model: str = Field(description="A model of `GET /v1/models`.", examples=["embedded"])
    language: str | None = Field(
        None,
        description="ISO-639-1 code of the spoken language; it must be the model's, if it has one.",
        examples=["en"],
    )
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json", "diarized_json"] = Field(
        "json", examples=["diarized_json"]
    )
    stream: bool = Field(
        False, description="Send server-sent events, each segment as soon as its turn is known."
    )
    chunking_strategy: Literal["auto"] | ServerVad | None = Field(
        None,
        description="Checked, without effect: recordings are always cut at quiet places into what "
        "the model hears at once.",
        examples=["auto"],
    )
    temperature: float = Field(
        0, ge=0, le=0, description="0: the most probable token is always taken."
    )
    timestamp_granularities: list[Literal["segment", "word"]] = Field(
        default=[],
        description="`word`: times of words besides those of segments, in `verbose_json` and "
        "`diarized_json`, if the model gives them.",
    )

    @property
    def wants_words(self) -> bool:
        return "word" in self.timestamp_granularities

    @field_validator("chunking_strategy", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                return json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"expected 'auto' or a JSON object: {error}") from error
        return value


class JobForm(Hints):
    """Fields of `POST /v1/jobs` besides its files."""

    name: str | None = Field(
        None, min_length=1, max_length=300, description="What to call it; else the file's name."
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="In place of `file`: a file inside a folder that the server was told to allow.",
    )

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise ValueError(f"expected printable characters on one line, got {name!r}")
        return name


def parse_form(kind: type[Form], values: Mapping[str, Any]) -> Form:
    """Check the fields of a form.

    Raises:
        RequestError: 400, of the first field that is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "not a field of this request; leave it out"
        elif first["type"] == "missing":
            message = "this field is required"
        elif first["type"] != "value_error":
            message += f", got {repr(first['input'])[:80]}"
        code = "missing_field" if first["type"] == "missing" else "invalid_value"
        raise RequestError(400, f"{param}: {message}", code=code, param=param) from error


def check_transcription(
    form: TranscriptionForm, model: str, language: str | None, word_times: bool = False
) -> None:
    """Compare what a form asks for with what the model can do.

    Args:
        form: with valid fields.
        model: the name of the one model there is.
        language: what it transcribes; `None` if it recognises the language itself.
        word_times: whether it gives times of words.

    Raises:
        RequestError: 404 for another model, 400 for another language, a format not streamed, or
            times of words that there are not.
    """
    if form.model != model:
        raise RequestError(
            404,
            f"The model {form.model!r} does not exist; this server has {model!r}",
            code="model_not_found",
            param="model",
        )
    asked = (form.language or "").lower().split("-")[0]
    if asked and language is not None and asked != language:
        raise RequestError(
            400,
            f"language {form.language!r}: the model {model!r} transcribes {language!r}; leave "
            "language out, or start the server with a model of that language",
            code="unsupported_language",
            param="language",
        )
    if form.stream and form.response_format not in STREAMED_FORMATS:
        raise RequestError(
            400,
            f"response_format {form.response_format!r} cannot be streamed; expected one of "
            f"{', '.join(STREAMED_FORMATS)}",
            code="invalid_value",
            param="response_format",
        )
    if form.wants_words:
        _check_words(form, model, word_times)


def _check_words(form: TranscriptionForm, model: str, word_times: bool) -> None:
    if not word_times:
        wrong = f"the model {model!r} gives no times of words; leave 'word' out"
    elif form.response_format not in WORD_FORMATS:
        wrong = (
            f"response_format {form.response_format!r} holds no times of words; expected one of "
            f"{', '.join(WORD_FORMATS)}"
        )
    else:
        return
    raise RequestError(
        400,
        f"timestamp_granularities: {wrong}",
        code="invalid_value",
        param="timestamp_granularities",
    )


@dataclass
class Letters:
    """Labels of a transcript as OpenAI gives them: known names stay, others are A, B, ..., AA.

    Attributes:
        names: of the known speakers.
    """

    names: frozenset[str] = frozenset()
    _given: dict[str, str] = field(default_factory=dict)
    _next: int = 0

    def of(self, label: str) -> str:
        """The name or letter of a label; a new label gets the next letter."""
        if label in self.names:
            return label
        if label not in self._given:
            self._given[label] = self._free()
        return self._given[label]

    def _free(self) -> str:
        while True:
            number, letters = self._next + 1, ""
            self._next += 1
            while number:
                number, rest = divmod(number - 1, 26)
                letters = chr(ord("A") + rest) + letters
            if letters not in self.names:
                return letters


def confidence_body(segment: Segment) -> dict[str, float | None]:
    """Confidence of a segment's words, speaker and times; null where unknown."""
    known = segment.confidence
    return {"words": known.words, "speaker": known.speaker, "times": known.times}


def segment_body(
    segment: Segment, number: int, letters: Letters, overlap: bool, words: bool = False
) -> dict[str, Any]:
    """A segment of `diarized_json`, also the event of a stream; with its words if they have times."""
    timed = {"words": word_rows(segment.words, OPENAI)} if words and segment.words else {}
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "start": segment.start_s,
        "end": segment.end_s,
        "speaker": letters.of(segment.speaker),
        "text": segment.text,
        "gender": segment.gender,
        "confidence": confidence_body(segment),
        "overlap": overlap,
        **timed,
    }


def diarized_body(transcript: Transcript, letters: Letters, words: bool = False) -> dict[str, Any]:
    """`diarized_json`, with what our transcripts know besides."""
    overlaps = find_overlaps(transcript.segments)
    return {
        "task": "transcribe",
        "duration": transcript.duration_s,
        "text": transcript.text,
        "segments": [
            segment_body(segment, number, letters, overlap, words)
            for number, (segment, overlap) in enumerate(
                zip(transcript.segments, overlaps, strict=True)
            )
        ],
        "usage": usage_body(transcript.duration_s),
        **_notes(transcript, words),
    }


def verbose_body(
    transcript: Transcript, letters: Letters, language: str, words: bool = False
) -> dict[str, Any]:
    """`verbose_json`.

    `words`, where asked for, are in order of start, each with its speaker. `avg_logprob` is the
    logarithm of the mean probability of the words, null where unknown; `no_speech_prob` is not
    estimated: 0.
    """
    overlaps = find_overlaps(transcript.segments)
    segments = []
    for number, segment in enumerate(transcript.segments):
        data, sure = segment.text.encode(), segment.confidence.words
        segments.append(
            {
                **segment_body(segment, number, letters, overlaps[number], words),
                "id": number,
                "seek": 0,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": None if sure is None else math.log(max(sure, 1e-9)),
                "compression_ratio": len(data) / len(zlib.compress(data)) if data else 1.0,
                "no_speech_prob": 0.0,
            }
        )
    return {
        "task": "transcribe",
        "language": language,
        "duration": transcript.duration_s,
        "text": transcript.text,
        "segments": segments,
        **({"words": _all_words(transcript, letters)} if words else {}),
        "usage": usage_body(transcript.duration_s),
        **_notes(transcript, words),
    }


def _all_words(transcript: Transcript, letters: Letters) -> list[dict[str, Any]]:
    rows = [
        {**row, "speaker": letters.of(segment.speaker)}
        for segment in transcript.segments
        for row in word_rows(segment.words or (), OPENAI)
    ]
    return sorted(rows, key=lambda row: float(row["start"]))


def usage_body(duration_s: float) -> dict[str, Any]:
    """What a request cost: the seconds of its audio."""
    return {"type": "duration", "seconds": duration_s}


def _notes(transcript: Transcript, words: bool) -> dict[str, Any]:
    """What was not transcribed, and what a reader should know."""
    untimed = sum(1 for s in transcript.segments if s.text and not s.words) if words else 0
    told = [f"{untimed} segments have no times of words"] if untimed else []
    return {
        "missing": [
            {"start": gap.start_s, "end": gap.end_s, "reason": gap.reason}
            for gap in transcript.missing
        ],
        "warnings": [*transcript.warnings, *told],
    }


def answer(
    transcript: Transcript, form: TranscriptionForm, language: str
) -> tuple[str, dict[str, Any] | str]:
    """The media type and body of a transcription that is not streamed.

    Args:
        language: of the model, where the transcript does not say what was recognised.
    """
    spoken, asked = transcript.info.get("language"), (form.language or "").lower().split("-")[0]
    language = str(spoken or language)
    if spoken and asked and asked != spoken:
        transcript = replace(
            transcript,
            warnings=(
                *transcript.warnings,
                f"language {asked!r} was asked for and {spoken!r} was recognised; it is decided by the "
                "server's --language",
            ),
        )
    letters = Letters(frozenset(form.known_speaker_names))
    match form.response_format:
        case "diarized_json":
            return "application/json", diarized_body(transcript, letters, form.wants_words)
        case "verbose_json":
            return "application/json", verbose_body(transcript, letters, language, form.wants_words)
        case "json":
            usage = usage_body(transcript.duration_s)
            return "application/json", {"text": transcript.text, "usage": usage}
        case "text":
            return "text/plain", f"{transcript.text}\n"
        case "srt":
            return "application/x-subrip", render(transcript, "srt")
        case "vtt":
            return "text/vtt", render(transcript, "vtt")


class TranscriptStream:
    """The events of a streamed transcription, as text.

    Args:
        form: of the request; `diarized_json` tells segments besides deltas.
    """

    def __init__(self, form: TranscriptionForm) -> None:
        self._segments = form.response_format == "diarized_json"
        self._words = form.wants_words
        self._letters = Letters(frozenset(form.known_speaker_names))
        self._begun = False

    def segment(self, segment: Segment, number: int, overlap: bool) -> Iterator[str]:
        """Events of a segment that is newly known: its words, then itself."""
        if segment.text:
            delta = {"delta": f" {segment.text}" if self._begun else segment.text}
            if self._segments:
                delta["segment_id"] = f"seg_{number}"
            self._begun = True
            yield sse({"type": "transcript.text.delta", **delta})
        if self._segments:
            yield sse(segment_body(segment, number, self._letters, overlap, self._words))

    def done(self, transcript: Transcript) -> str:
        """The last event, with the whole text in order of start."""
        usage = usage_body(transcript.duration_s)
        return sse({"type": "transcript.text.done", "text": transcript.text, "usage": usage})


def sse(data: Mapping[str, Any], *, event: str | None = None, number: int | None = None) -> str:
    """One server-sent event; named after the data's `type` unless told otherwise."""
    name = event or data["type"]
    lead = "" if number is None else f"id: {number}\n"
    return f"{lead}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
