"""Form fields of OpenAI's API and of ours, and their validation.

Nothing here reads a request or runs a model. A field that cannot matter here is accepted, and the answer's warnings
say that it has no effect; one that would change the meaning is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import SettingsError
from ..voices.store import check_name
from .failures import RequestError

Form = TypeVar("Form", bound=BaseModel)

SPEAKERS = r"^[1-9]\d?(-[1-9]\d?)?$"
"""Number of speakers as clients write it: `3`, or `2-5`."""


def speaker_bounds(speakers: str | None) -> tuple[int, int] | None:
    """Return the fewest and most speakers of a hint that matches `SPEAKERS`."""
    if speakers is None:
        return None
    low, _, high = speakers.partition("-")
    return int(low), int(high or low)


def language_code(language: str | None) -> str | None:
    """Return the language of a code without its region: `en` of `en-GB`; `None` if it is empty."""
    return (language or "").strip().lower().replace("_", "-").split("-")[0] or None


class ServerVad(BaseModel):
    """Voice activity detection as OpenAI's clients configure it."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    prefix_padding_ms: int = Field(300, ge=0)
    silence_duration_ms: int = Field(200, ge=0)
    threshold: float = Field(0.5, ge=0, le=1)


def usable_names(names: list[str]) -> list[str]:
    """Check the names of voices.

    Raises:
        ValueError: one cannot be used.
    """
    try:
        return [check_name(name.strip()) for name in names]
    except SettingsError as error:
        raise ValueError(str(error)) from error


class Hints(BaseModel):
    """A client's hints about a recording. Unknown fields are kept, and the answer's warnings name them."""

    model_config = ConfigDict(extra="allow")

    speakers: str | None = Field(
        None,
        pattern=SPEAKERS,
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
        return usable_names(names)

    language: str | None = Field(
        None,
        description="ISO-639-1 code of the spoken language; it must be the model's, if it has one.",
        examples=["en"],
    )

    @field_validator("language")
    @classmethod
    def _code(cls, language: str | None) -> str | None:
        return language_code(language)

    @property
    def unknown(self) -> list[str]:
        """Fields that this server knows nothing of."""
        return list(self.model_extra or ())

    @property
    def count(self) -> tuple[int, int] | None:
        """Fewest and most speakers."""
        return speaker_bounds(self.speakers)


_LISTS = frozenset(
    ("known_speaker_names", "voices", "timestamp_granularities", "include", "keywords", "languages")
)
STREAMED_FORMATS = ("json", "text", "verbose_json", "diarized_json")
WORD_FORMATS = ("verbose_json", "diarized_json")


class TranscriptionForm(Hints):
    """Fields of `POST /v1/audio/transcriptions` besides its files."""

    model: str = Field(description="A model of `GET /v1/models`.", examples=["embedded"])
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
    temperature: str | None = Field(
        None, description="Without effect: the most probable token is always taken."
    )
    prompt: str | None = Field(None, description="Without effect: the model takes none.")
    include: list[str] = Field([], description="Without effect: there are no log-probabilities.")
    keywords: list[str] = Field([], description="Without effect.")
    languages: list[str] = Field([], description="Without effect: see `language`.")
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
        None, min_length=1, max_length=300, description="Name of the job; else the file's name."
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="In place of `file`: a file inside a folder that the server allows.",
    )
    model: str | None = Field(
        None,
        min_length=1,
        description="A model of `GET /v1/models`; needed where there are several.",
    )

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise ValueError(f"expected printable characters on one line, got {name!r}")
        return name


def parse_form(kind: type[Form], values: Mapping[str, Any]) -> Form:
    """Check the fields of a form. A list may come without its `[]`, with one value.

    Raises:
        RequestError: 400, of the first field that is wrong.
    """
    values = {
        name: [value] if name in _LISTS and isinstance(value, str) else value
        for name, value in values.items()
    }
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] == "missing":
            message = "this field is required"
        elif first["type"] != "value_error":
            message += f", got {repr(first['input'])[:80]}"
        code = "missing_field" if first["type"] == "missing" else "invalid_value"
        raise RequestError(400, f"{param}: {message}", code=code, param=param) from error


@dataclass(frozen=True, slots=True)
class Abilities:
    """The abilities of the server's model.

    Attributes:
        model: its name.
        aliases: other names that clients may call it by.
        language: that it transcribes; `None` if it recognises the language itself.
        languages: that may be named for a recording; empty where none may.
        word_times: whether it gives times of words.
    """

    model: str
    aliases: tuple[str, ...] = ()
    language: str | None = None
    languages: tuple[str, ...] = ()
    word_times: bool = False


def check_model(name: str, able: Abilities) -> None:
    """Check that a client's name for the model is one of its names.

    Raises:
        RequestError: 404, another one.
    """
    if name not in (able.model, *able.aliases):
        raise RequestError(
            404,
            f"The model {name!r} does not exist; this server has {able.model!r}",
            code="model_not_found",
            param="model",
        )


def check_language(asked: str | None, able: Abilities) -> None:
    """Check that recordings of a language can be transcribed.

    Raises:
        RequestError: 400, it cannot.
    """
    wrong = able.language is not None and asked != able.language
    unknown = bool(able.languages) and asked not in able.languages
    if asked and (wrong or unknown):
        knows = repr(able.language) if able.language else ", ".join(able.languages)
        raise RequestError(
            400,
            f"language {asked!r}: the model {able.model!r} transcribes {knows}; leave language out, or "
            "start the server with a model of that language",
            code="unsupported_language",
            param="language",
        )


def check_transcription(
    form: TranscriptionForm, able: Abilities
) -> tuple[TranscriptionForm, list[str]]:
    """Compare the fields of a form with the abilities of the model.

    Returns:
        The form as it is carried out, and the fields without effect, as sentences.

    Raises:
        RequestError: 404 for another model, 400 for another language.
    """
    check_model(form.model, able)
    check_language(form.language, able)
    said = [f"{name}: not a field that this server knows; ignored" for name in form.unknown]
    changed: dict[str, Any] = {}
    if form.prompt:
        said.append("prompt: without effect, this model takes none")
    if form.temperature and form.temperature.strip("0. "):
        said.append("temperature: without effect, the most probable token is always taken")
    for name, kind in (("include", "there are no log-probabilities"), ("keywords", "this model takes none"),
                       ("languages", "name one with language")):  # fmt: skip
        if getattr(form, name):
            said.append(f"{name}: without effect, {kind}")
    if form.language and not able.languages and able.language is None:
        said.append(
            f"language {form.language!r}: without effect, the model recognises it by itself"
        )
    if form.stream and form.response_format not in STREAMED_FORMATS:
        said.append(f"stream: without effect, {form.response_format} is answered as a whole")
        changed["stream"] = False
    if form.wants_words and not able.word_times:
        said.append(f"timestamp_granularities: the model {able.model!r} gives no times of words")
        changed["timestamp_granularities"] = ["segment"]
    elif form.wants_words and form.response_format not in WORD_FORMATS:
        said.append(
            f"timestamp_granularities: {form.response_format} holds no times of words; "
            f"{' and '.join(WORD_FORMATS)} do"
        )
        changed["timestamp_granularities"] = ["segment"]
    return form.model_copy(update=changed), said


def check_job(form: JobForm, able: Abilities) -> list[str]:
    """Check the fields of a job, like `check_transcription`."""
    check_language(form.language, able)
    return [f"{name}: not a field that this server knows; ignored" for name in form.unknown]
