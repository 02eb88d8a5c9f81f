"""Gemini by google-genai: a model with a prompt and JSON of a schema, or its transcription model with diarization.

The finish reason decides whether an answer is whole; `response.text` does not say. A model that was swapped
for another is refused. The paper does not print its prompt; this one is ours, and its hash is stored.
"""

import importlib
import io
import time
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import httpx

from .. import extras
from ..engines.client import Unavailable
from ..errors import AnswerError, EngineError
from ..formats.service_rows import ServiceRow, TimedWord, at_key, listed
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions, Usage, is_swapped, text_hash
from .service import NO_JSON, http_error
from .text import clock, read_text, transcript_of

_NAME, _MODEL = "gemini", "gemini-3.5-transcribe"
_INLINE_BYTES = 15 * 1024**2
"""Larger sound is uploaded first: a request holds at most 20 MB, and base64 adds a third."""

_TRANSCRIBES = "transcribe"
"""Part of the name of models that take a transcription config in place of a prompt."""

PROMPT = (
    "Transcribe this recording of a conversation, and say who speaks when. Give one entry for each turn, in "
    "the order of their starts: start and end in seconds from the start of the recording, the speaker as "
    "Speaker 1, Speaker 2, ... by first turn (the same label always means the same person), and the words in "
    "the language that is spoken. Where people speak at once, give an entry for each of them."
)
SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "start": {"type": "number"},
            "end": {"type": "number"},
            "speaker": {"type": "string"},
            "text": {"type": "string"},
        },
        "required": ["start", "end", "speaker", "text"],
    },
}
_REFUSED = frozenset(
    {
        *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
        *("MODEL_ARMOR", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "PUP_LIMITED_DISABLED"),
    }
)
_CUT = frozenset({"MAX_TOKENS", "CONTINUATION"})
_BROKEN: tuple[type[Exception], ...] = (httpx.HTTPError,)
"""Errors of connections; google-genai takes httpx2 where it is installed, in place of httpx."""
with suppress(ImportError):
    _BROKEN = (httpx.HTTPError, importlib.import_module("httpx2").HTTPError)
_LOOK_S = 2.0
"""Time between two looks at an upload that is being processed (assumed)."""


class Gemini:
    """A model of Gemini's API.

    Args:
        options: `key` is that of the API.

    Raises:
        ExtraError: google-genai is not installed.
    """

    name = _NAME

    def __init__(self, options: SystemOptions) -> None:
        options.refuse(_NAME, "device", "speakers")
        self._genai: Any = extras.load("google.genai", "gemini", "Gemini")
        self._errors: Any = extras.load("google.genai.errors", "gemini", "Gemini")
        self.model = options.model or _MODEL
        self.options = options
        self._transcribes = _TRANSCRIBES in self.model
        if self._transcribes:
            options.refuse(f"{_NAME} with {self.model}", "hotwords")  # not with diarization
        types = self._genai.types
        self._client = self._genai.Client(
            api_key=options.key,
            http_options=types.HttpOptions(
                base_url=options.base_url,
                timeout=round(1000 * options.timeout_s),
                retry_options=types.HttpRetryOptions(attempts=1),
            ),
        )

    def _prompt(self) -> str:
        hints = self.options.hotwords
        language = self.options.language
        parts = [PROMPT]
        if language:
            parts.append(f"The language is {language}.")
        if hints:
            parts.append(f"These names and terms may be said: {hints}.")
        return " ".join(parts)

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        asked = {
            "prompt_sha256": None if self._transcribes else text_hash(self._prompt()),
            "language_given": self.options.language,
        }
        sdk = {"name": "google-genai", "version": version("google-genai")}
        return {"model": self.model, "temperature": 0, **asked, "sdk": sdk}

    def _config(self) -> Any:
        types = self._genai.types
        if self._transcribes:
            language = self.options.language
            return types.GenerateContentConfig(
                audio_transcription_config=types.AudioTranscriptionConfig(
                    diarization=True,
                    word_timestamp=True,
                    language_codes=[language] if language else None,
                )
            )
        return types.GenerateContentConfig(
            temperature=0, response_mime_type="application/json", response_json_schema=SCHEMA
        )

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        types = self._genai.types
        data = sound.encoded("FLAC")
        uploaded = None
        try:
            if len(data) > _INLINE_BYTES:
                uploaded = self._upload(data)
                audio = self._wait_for(uploaded.name)
            else:
                audio = types.Part.from_bytes(data=data, mime_type="audio/flac")
            contents = [audio] if self._transcribes else [audio, self._prompt()]
            response = self._client.models.generate_content(
                model=self.model, contents=contents, config=self._config()
            )
        except self._errors.APIError as error:
            code = error.code if isinstance(error.code, int) else None
            headers = getattr(error.response, "headers", None)
            raise http_error(
                _NAME, code, error.message, dict(headers) if headers else None
            ) from error
        except _BROKEN as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        except (*NO_JSON, self._errors.UnknownApiResponseError) as error:
            raise AnswerError("format", f"{_NAME}: an answer that is no JSON") from error
        except ValueError as error:  # the SDK's own checks, as of a key that is missing
            raise EngineError(f"{_NAME}: {str(error).splitlines()[0]}") from error
        finally:
            if uploaded is not None:
                self._forget(uploaded.name)
        return self.answer_of(response)

    def _upload(self, data: bytes) -> Any:
        config = self._genai.types.UploadFileConfig(mime_type="audio/flac")
        return self._client.files.upload(file=io.BytesIO(data), config=config)

    def _wait_for(self, name: str) -> Any:
        """Wait until the service has processed an upload.

        Raises:
            AnswerError: `refused`: it cannot.
            Unavailable: it takes too long.
        """
        until_s = time.monotonic() + self.options.timeout_s
        while True:
            uploaded = self._client.files.get(name=name)
            state = str(getattr(uploaded.state, "value", uploaded.state))
            if state == "FAILED":
                said = getattr(uploaded.error, "message", None) or "it does not say why"
                raise AnswerError("refused", f"the upload could not be processed: {said}")
            if state != "PROCESSING":
                return uploaded
            if time.monotonic() > until_s:
                raise Unavailable(f"the upload is not processed after {self.options.timeout_s:g} s")
            time.sleep(_LOOK_S)

    def _forget(self, name: str) -> None:
        """Delete an upload; the service does so itself after two days."""
        with suppress(self._errors.APIError, *_BROKEN):
            self._client.files.delete(name=name)

    def answer_of(self, response: Any) -> Answer:
        """The answer that a response of the SDK is.

        Raises:
            AnswerError: `swapped-model`.
        """
        raw = response.model_dump(mode="json", exclude_none=True, exclude={"sdk_http_response"})
        if is_swapped(self.model, response.model_version):
            raise AnswerError(
                "swapped-model", f"asked for {self.model}, {response.model_version} answered", raw
            )
        used = response.usage_metadata
        made = [used.candidates_token_count, used.thoughts_token_count] if used else []
        usage = Usage(
            input_tokens=used.prompt_token_count if used else None,
            output_tokens=sum(filter(None, made)) if any(made) else None,
        )
        prompt = None if self._transcribes else self._prompt()
        return Answer(raw, response.model_version, prompt, usage)

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        parts = whole_parts(answer.raw)
        spoken = [part for part in parts if "audio_transcription" in part]
        if spoken:
            return _transcribed(spoken, sound)
        text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
        return read_text(text, sound)

    def close(self) -> None:
        """See `System`."""
        self._client.close()


def whole_parts(raw: Any) -> list[dict[str, Any]]:
    """The parts of a response that is whole.

    Raises:
        AnswerError: `refused`, `truncated` or `format`: the reason why it ended says so.
    """
    candidates = listed(raw, "candidates")
    if not candidates:
        blocked = at_key(raw, "prompt_feedback", "block_reason")
        if blocked is not None:
            raise AnswerError("refused", f"the request was blocked: {blocked}")
        raise AnswerError("format", "the response has no candidate")
    first = candidates[0]
    reason = first.get("finish_reason")
    said = f" ({first['finish_message']})" if first.get("finish_message") else ""
    if reason in _REFUSED:
        raise AnswerError("refused", f"the answer ended for the reason {reason}{said}")
    if reason in _CUT:
        raise AnswerError("truncated", f"the answer ended for the reason {reason}{said}")
    if reason != "STOP":
        raise AnswerError("format", f"the answer ended for the reason {reason}{said}, not STOP")
    return listed(first, "content", "parts")


def _transcribed(parts: list[dict[str, Any]], sound: Sound) -> Transcript:
    """Turns of the transcription model: in any order, timed by their words; one speaker has no label.

    Raises:
        AnswerError: `no-times`: a turn with words has neither times nor timed words.
    """
    turns = [part["audio_transcription"] for part in parts]
    labelled = any(turn.get("speaker_label") for turn in turns)
    rows = []
    for number, turn in enumerate(turns, start=1):
        words = tuple(
            TimedWord(
                str(word.get("word", "")),
                clock(word.get("start_offset")),
                clock(word.get("end_offset")),
            )
            for word in listed(turn, "words")
        )
        starts = [turn.get("start_offset"), *(word.start_s for word in words)]
        ends = [turn.get("end_offset"), *(word.end_s for word in reversed(words))]
        rows.append(
            ServiceRow(
                f"answer, turn {number}",
                turn.get("speaker_label") if labelled else "spk:0",
                clock(next((time for time in starts if time is not None), None)),
                clock(next((time for time in ends if time is not None), None)),
                str(turn.get("text") or " ".join(word.text for word in words)),
                words,
            )
        )
    return transcript_of(rows, sound)


def load(options: SystemOptions) -> Gemini:
    """See `table.load`."""
    return Gemini(options)
