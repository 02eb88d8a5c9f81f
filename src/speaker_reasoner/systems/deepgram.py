"""Deepgram with speakers, through its library: words with speakers, which are grouped to turns here.

A recording is sent as a file, or as a stream in real time (`deepgram-live`). Of a stream, results that are not
final are left out; its end is a message of metadata, without which the answer was cut.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import httpx

from .. import extras
from ..engines.client import Unavailable
from ..errors import AnswerError
from ..formats.service_rows import at_key, listed
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions, Usage
from .fern import json_of, of_fern
from .service import http_error, service_transcript

_MODEL = "nova-3"
_FAMILY = re.compile(r"nova(-\d+)?")
_BLOCK_S = 0.1
"""Sound in one message of a stream (assumed)."""


class Deepgram:
    """A client of `listen`.

    Args:
        options: `model`, `language`, `hotwords` separated by commas.
    """

    name = "deepgram"

    def __init__(self, options: SystemOptions) -> None:
        package: Any = extras.load("deepgram", "deepgram", "the system deepgram")
        place: Any = extras.load("deepgram.environment", "deepgram", "the system deepgram")
        self.model = options.model or _MODEL
        self._asked: dict[str, Any] = {
            "model": self.model,
            "diarize": True,
            "punctuate": True,
            "smart_format": False,
        }
        if options.language:
            self._asked["language"] = options.language
        else:
            self._asked["detect_language"] = True
        if options.hotwords:
            self._asked["keyterm"] = options.terms
        where = {}
        if options.base_url:
            url = options.base_url.rstrip("/")
            where["environment"] = place.DeepgramClientEnvironment(
                base=url, production=url.replace("http", "ws", 1), agent=url, agent_rest=url
            )
        self._http = httpx.Client(timeout=options.timeout_s, follow_redirects=True)
        self._client = package.DeepgramClient(
            api_key=options.key, httpx_client=self._http, telemetry_opt_out=True, **where
        )

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        sdk = {"name": "deepgram-sdk", "version": version("deepgram-sdk")}
        return {"model": self.model, "asked": self._asked, "sdk": sdk}

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        try:
            answer = self._client.listen.v1.media.transcribe_file(
                request=sound.encoded(), request_options={"max_retries": 0}, **self._asked
            )
        except Exception as error:
            raise of_fern(self.name, "deepgram", error) from error
        raw = json_of(self.name, answer)
        about = at_key(raw, "metadata")
        return Answer(raw, _model(about), usage=Usage(billed_s=at_key(about, "duration")))

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        _check_model(self.model, _models_of(at_key(answer.raw, "metadata")))
        return service_transcript("Deepgram", answer.raw, sound)

    def close(self) -> None:
        """See `System`."""
        self._http.close()


class DeepgramLive(Deepgram):
    """A client of `listen` as a stream.

    Args:
        options: as of `Deepgram`; a language that is not given is `multi`.
        pace: seconds that a second of sound takes to be sent.
    """

    name = "deepgram-live"

    def __init__(self, options: SystemOptions, pace: float = 1.0) -> None:
        super().__init__(options)
        self._pace = pace
        asked = {name: value for name, value in self._asked.items() if name != "detect_language"}
        shown = {name: str(v).lower() if isinstance(v, bool) else v for name, v in asked.items()}
        self._asked = {"language": "multi", **shown, "encoding": "linear16", "sample_rate": 16_000}

    def ask(self, sound: Sound) -> Answer:
        """See `System`. Sent and heard at once, in two threads."""
        closed: Any = extras.load("websockets.exceptions", "deepgram", "the system deepgram-live")
        messages: list[dict[str, Any]] = []
        try:
            with self._client.listen.v1.connect(**self._asked) as stream:
                sender = threading.Thread(target=self._send, args=(stream, sound), daemon=True)
                sender.start()
                for message in stream:
                    messages.append(message.model_dump(mode="json", warnings=False))
        except closed.InvalidStatus as error:
            status, headers = error.response.status_code, dict(error.response.headers)
            raise http_error(self.name, status, error, headers) from error
        except (closed.WebSocketException, OSError, TimeoutError) as error:
            raise Unavailable(f"{self.name}: {' '.join(str(error).split())[:300]}") from error
        except Exception as error:
            raise of_fern(self.name, "deepgram", error) from error
        about = next((m for m in messages if m.get("type") == "Metadata"), {})
        usage = Usage(billed_s=about.get("duration"))
        return Answer({"messages": messages}, _model(about), usage=usage)

    def _send(self, stream: Any, sound: Sound) -> None:
        closed: Any = extras.load("websockets.exceptions", "deepgram", "the system deepgram-live")
        begun_s = time.monotonic()
        with suppress(closed.WebSocketException, OSError):  # the other thread says so
            for at_s, block in _blocks(sound):
                time.sleep(max(0.0, begun_s + at_s * self._pace - time.monotonic()))
                stream.send_media(block)
            stream.send_close_stream()

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        raw = answer.raw
        messages = listed(raw, "messages")
        errors = [m for m in messages if m.get("type") == "Error"]
        if errors:
            raise AnswerError("refused", str(errors[0].get("description") or errors[0])[:300])
        if not any(message.get("type") == "Metadata" for message in messages):
            raise AnswerError(
                "truncated", f"the stream ended after {len(messages)} messages, without its last"
            )
        for message in messages:
            if message.get("type") == "Metadata":
                _check_model(self.model, _models_of(message))
        words = [
            word
            for message in messages
            if message.get("type") == "Results" and message.get("is_final")
            for best in listed(message, "channel", "alternatives")[:1]
            for word in listed(best, "words")
        ]
        whole = {"results": {"channels": [{"alternatives": [{"words": words}]}]}}
        return service_transcript("Deepgram", whole, sound)


def _blocks(sound: Sound) -> Iterator[tuple[float, bytes]]:
    """Samples of 16 bits, and when each block begins."""
    data = sound.encoded("WAV")[-2 * len(sound.samples) :]  # behind the header
    size = 2 * round(_BLOCK_S * 16_000)
    for number, at in enumerate(range(0, len(data), size)):
        yield number * _BLOCK_S, data[at : at + size]


def _models_of(about: Any) -> list[dict[str, Any]]:
    """What an answer says of the models that it is from."""
    known = about.get("model_info") if isinstance(about, dict) else None
    rows = known.values() if isinstance(known, dict) else ()
    return [row for row in rows if isinstance(row, dict)]


def _model(about: Any) -> str | None:
    """Name and version of the models that answered."""
    named = [f"{r.get('name')} {r.get('version', '')}".strip() for r in _models_of(about)]
    return ", ".join(named) or None


def _check_model(asked: str, models: list[dict[str, Any]]) -> None:
    """Compare families, as nova-3 of nova-3-medical: names of models have other forms in answers.

    Raises:
        AnswerError: `swapped-model`.
    """
    family = _FAMILY.match(asked)
    answered = [row["arch"] for row in models if isinstance(row.get("arch"), str)]
    if family is not None and answered and family[0] not in answered:
        raise AnswerError("swapped-model", f"asked for {asked}, {', '.join(answered)} answered")


def load(options: SystemOptions) -> Deepgram:
    """See `table.load`."""
    options.refuse("deepgram", "speakers", "device", "python")
    return Deepgram(options)


def load_live(options: SystemOptions) -> DeepgramLive:
    """See `table.load`."""
    options.refuse("deepgram-live", "speakers", "device", "python")
    return DeepgramLive(options)
