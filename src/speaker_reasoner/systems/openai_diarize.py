"""OpenAI's transcription with speakers, through its library; or a server that has the same address.

The answer names no model and no reason why it ended. Sound of more than 30 s is only taken with a `chunking_strategy`.
"""

from importlib.metadata import version
from typing import Any

from .. import extras
from ..errors import AnswerError
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions, Usage
from .service import NO_JSON, SEGMENTS, http_error, service_transcript

_MODEL = "gpt-4o-transcribe-diarize"
_MOST_BYTES = 25_000_000
"""Largest file in bytes: the limit of the service."""


class OpenAIDiarize:
    """A client of `/audio/transcriptions` with `diarized_json`.

    Args:
        options: `model`, `language`, `base_url`, `key`.
    """

    name = "openai"

    def __init__(self, options: SystemOptions) -> None:
        self._openai: Any = extras.load("openai", "openai", "the system openai")
        self.model = options.model or _MODEL
        self._options = options
        self._client = self._openai.OpenAI(
            api_key=options.key,
            base_url=options.base_url,
            timeout=options.timeout_s,
            max_retries=0,
        )

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {
            "model": self.model,
            "response_format": "diarized_json",
            "chunking_strategy": "auto",
            "language": self._options.language,
            "sdk": {"name": "openai", "version": version("openai")},
        }

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        file = sound.encoded()
        if len(file) > _MOST_BYTES:
            raise AnswerError(
                "too-long",
                f"{len(file) / 1e6:.1f} MB, expected at most {_MOST_BYTES / 1e6:.0f}; cut it: --longest-piece S",
            )
        language = {"language": self._options.language} if self._options.language else {}
        try:
            answer = self._client.audio.transcriptions.create(
                file=("sound.flac", file, "audio/flac"),
                model=self.model,
                response_format="diarized_json",
                chunking_strategy="auto",
                **language,
            )
        except self._openai.APIStatusError as error:
            headers = {name.lower(): value for name, value in error.response.headers.items()}
            raise http_error(
                self.name, error.status_code, error.message, headers, error.body
            ) from error
        except self._openai.APIConnectionError as error:
            raise http_error(self.name, None, error.__cause__ or error) from error
        except self._openai.APIError as error:
            raise AnswerError("format", str(error), error.body) from error
        except NO_JSON as error:
            raise AnswerError("format", f"{self.name}: an answer that is no JSON") from error
        raw: Any = answer  # text, or what else its library did not read
        if hasattr(answer, "to_dict"):
            raw = answer.to_dict(warnings=False)
        return Answer(raw, usage=_usage(raw))

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return service_transcript(SEGMENTS, answer.raw, sound)

    def close(self) -> None:
        """See `System`."""
        self._client.close()


def _usage(raw: Any) -> Usage:
    counts = raw.get("usage") if isinstance(raw, dict) else None
    if not isinstance(counts, dict):
        return Usage()
    return Usage(1, counts.get("input_tokens"), counts.get("output_tokens"), counts.get("seconds"))


def load(options: SystemOptions) -> OpenAIDiarize:
    """See `table.load`."""
    options.refuse("openai", "hotwords", "speakers", "device", "python")
    return OpenAIDiarize(options)
