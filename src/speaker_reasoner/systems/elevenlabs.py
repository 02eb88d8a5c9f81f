"""ElevenLabs Scribe with speakers, through its library: words with speakers, which are grouped to turns here."""

from importlib.metadata import version
from typing import Any

import httpx

from .. import extras
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions, Usage
from .fern import json_of, of_fern
from .service import service_transcript

_MODEL = "scribe_v2"


class ElevenLabs:
    """A client of `speech-to-text`.

    Args:
        options: `model`, `language`, `hotwords` separated by commas, `speakers` as one number.
    """

    name = "elevenlabs"

    def __init__(self, options: SystemOptions) -> None:
        package: Any = extras.load("elevenlabs.client", "elevenlabs", "the system elevenlabs")
        self.model = options.model or _MODEL
        self._asked: dict[str, Any] = {
            "model_id": self.model,
            "diarize": True,
            "timestamps_granularity": "word",
            "tag_audio_events": False,
        }
        speakers = options.exact_speakers(self.name)
        if speakers is not None:
            self._asked["num_speakers"] = speakers
        if options.language:
            self._asked["language_code"] = options.language
        if options.hotwords:
            self._asked["keyterms"] = options.terms
        place = {"base_url": options.base_url} if options.base_url else {}
        self._http = httpx.Client(timeout=options.timeout_s, follow_redirects=True)
        self._client = package.ElevenLabs(api_key=options.key, httpx_client=self._http, **place)

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        sdk = {"name": "elevenlabs", "version": version("elevenlabs")}
        return {"model": self.model, "asked": self._asked, "sdk": sdk}

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        try:
            answer = self._client.speech_to_text.convert(
                file=("sound.flac", sound.encoded(), "audio/flac"),
                request_options={"max_retries": 0},
                **self._asked,
            )
        except Exception as error:
            raise of_fern(self.name, "elevenlabs", error) from error
        raw = json_of(self.name, answer)
        seconds = raw.get("audio_duration_secs")
        return Answer(raw, usage=Usage(billed_s=seconds))

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return service_transcript("ElevenLabs Scribe", answer.raw, sound)

    def close(self) -> None:
        """See `System`."""
        self._http.close()


def load(options: SystemOptions) -> ElevenLabs:
    """See `table.load`."""
    options.refuse("elevenlabs", "device", "python")
    return ElevenLabs(options)
