"""Deepgram with speakers, through its library: words with speakers, which are grouped to turns here."""

from importlib.metadata import version
from typing import Any

import httpx

from .. import extras
from ..transcript import Transcript
from .assemblyai import terms
from .base import Answer, Sound, SystemOptions, Usage
from .fern import of_fern
from .service import service_transcript

_MODEL = "nova-3"


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
            self._asked["keyterm"] = terms(options.hotwords)
        where = {}
        if options.base_url:
            url = options.base_url.rstrip("/")
            where["environment"] = place.DeepgramClientEnvironment(
                base=url, production=url, agent=url, agent_rest=url
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
        raw = answer.model_dump(mode="json", exclude_none=True, warnings=False)
        about = raw.get("metadata") or {}
        return Answer(raw, _model(about), usage=Usage(billed_s=about.get("duration")))

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return service_transcript("Deepgram", answer.raw, sound)

    def close(self) -> None:
        """See `System`."""
        self._http.close()


def _model(about: dict[str, Any]) -> str | None:
    """Name and version of the models that answered."""
    known = about.get("model_info")
    rows = known.values() if isinstance(known, dict) else ()
    named = [f"{r.get('name')} {r.get('version', '')}".strip() for r in rows if isinstance(r, dict)]
    return ", ".join(named) or None


def load(options: SystemOptions) -> Deepgram:
    """See `table.load`."""
    options.refuse("deepgram", "speakers", "device", "python")
    return Deepgram(options)
