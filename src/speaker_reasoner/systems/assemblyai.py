"""AssemblyAI with speaker labels, through its library: upload, submit, poll. Its times are milliseconds."""

import hashlib
import json
from importlib.metadata import version
from typing import Any

import httpx

from .. import extras
from ..engines.client import Unavailable
from ..errors import AnswerError
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions, Usage, is_swapped
from .service import http_error, service_transcript

_POLL_S = 3.0
"""Time between two looks at a transcript (assumed)."""


class AssemblyAI:
    """A client of the transcripts of AssemblyAI.

    Args:
        options: `model` is one of its speech models, its own choice if `None`; `speakers` may be a range.
        poll_s: seconds between two looks at a transcript.
    """

    name = "assemblyai"

    def __init__(self, options: SystemOptions, poll_s: float = _POLL_S) -> None:
        self._aai: Any = extras.load("assemblyai", "assemblyai", "the system assemblyai")
        self.model = options.model or "default"
        self._options = options
        place = {"base_url": options.base_url.rstrip("/")} if options.base_url else {}
        self._settings = self._aai.Settings(
            api_key=options.key, http_timeout=options.timeout_s, polling_interval=poll_s, **place
        )
        self._config = self._aai.TranscriptionConfig(**self._asked())
        self._submitted: dict[str, str] = {}

    def _asked(self) -> dict[str, Any]:
        options = self._options
        asked: dict[str, Any] = {"speaker_labels": True}
        if options.model:
            asked["speech_models"] = [options.model]
        if options.language:
            asked["language_code"] = options.language
        else:
            asked["language_detection"] = True
        if options.hotwords:
            asked["keyterms_prompt"] = options.terms
        if options.speakers is not None:
            low, high = options.speakers
            if low == high:
                asked["speakers_expected"] = low
            else:
                asked["speaker_options"] = self._aai.types.SpeakerOptions(
                    min_speakers_expected=low, max_speakers_expected=high
                )
        return asked

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        raw = self._config.raw  # of pydantic 1 where pydantic-settings is not installed
        dump = raw.model_dump_json if hasattr(raw, "model_dump_json") else raw.json
        config = json.loads(dump(exclude_none=True))
        sdk = {"name": "assemblyai", "version": version("assemblyai")}
        return {"model": self.model, "config": config, "sdk": sdk}

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        client = self._aai.Client(settings=self._settings)  # it keeps its last response: one each
        data = sound.encoded()
        place = hashlib.sha256(data).hexdigest()
        try:
            self._transcript(client, data, place).wait_for_completion(
                poll_timeout=self._options.timeout_s
            )
        except self._aai.AssemblyAIError as error:
            last = client.last_response
            if error.status_code is None:  # not done in time
                raise http_error(self.name, None, error) from error
            said = _said(last)
            failure = http_error(
                self.name, error.status_code, said or error, _headers(last), _json(last)
            )
            if not isinstance(failure, Unavailable):
                self._submitted.pop(place, None)
            raise failure from error
        except httpx.HTTPError as error:
            raise http_error(self.name, None, f"{type(error).__name__}: {error}") from error
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            # of JSON that is none, or that its library cannot read
            self._submitted.pop(place, None)
            message = " ".join(str(error).split())[:300]
            raise AnswerError("format", message, _json(client.last_response)) from error
        finally:
            client.http_client.close()
        self._submitted.pop(place, None)
        raw = _json(client.last_response)
        if not isinstance(raw, dict):
            raise AnswerError("format", f"{self.name}: expected a JSON object", raw)
        return Answer(raw, raw.get("speech_model_used"), usage=_usage(raw))

    def _transcript(self, client: Any, data: bytes, place: str) -> Any:
        """The transcript of a sound: a new one, or that of an attempt whose connection broke after it was accepted."""
        if (known := self._submitted.get(place)) is not None:
            return self._aai.Transcript(client=client, transcript_id=known)
        transcript = self._aai.Transcriber(client=client, config=self._config).submit(data)
        if transcript.id:
            self._submitted[place] = transcript.id
        return transcript

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        raw = answer.raw
        if isinstance(raw, dict) and raw.get("status") == "error":
            raise AnswerError("refused", str(raw.get("error") or "it failed, and does not say why"))
        if self._options.model and is_swapped(self._options.model, answer.model):
            raise AnswerError("swapped-model", f"asked {self._options.model}, got {answer.model}")
        if isinstance(raw, dict) and raw.get("words") and not raw.get("utterances"):
            raw = {**raw, "utterances": []}  # words without turns, as without speakers
        return service_transcript("AssemblyAI", raw, sound)

    def close(self) -> None:
        """See `System`."""


def _json(response: httpx.Response | None) -> Any:
    if response is None:
        return None
    try:
        return response.json()
    except (ValueError, RecursionError):
        return response.text


def _said(response: httpx.Response | None) -> str:
    body = _json(response)
    return str(body.get("error") or "") if isinstance(body, dict) else ""


def _headers(response: httpx.Response | None) -> dict[str, str]:
    return {} if response is None else {k.lower(): v for k, v in response.headers.items()}


def _usage(raw: dict[str, Any]) -> Usage:
    seconds = raw.get("audio_duration")
    return Usage(billed_s=seconds if isinstance(seconds, int | float) else None)


def load(options: SystemOptions) -> AssemblyAI:
    """See `table.load`."""
    options.refuse("assemblyai", "device", "python")
    return AssemblyAI(options)
