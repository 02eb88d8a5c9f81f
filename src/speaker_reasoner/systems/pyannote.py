"""A pipeline of pyannote.audio alone: who speaks when, without words; only time and speakers are scored."""

from importlib.metadata import version
from typing import Any

from ..engines.cascade.pyannote import DEFAULT, PyannoteDiarizer
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .service import service_transcript


class PyannoteAlone:
    """Turns of the pipeline, which may overlap; its exclusive ones are kept with the answer.

    Args:
        diarizer: a pipeline of pyannote.audio 4.
        speakers: fewest and most, if they are known.
    """

    name = "pyannote"

    def __init__(
        self, diarizer: PyannoteDiarizer, model: str, speakers: tuple[int, int] | None = None
    ) -> None:
        self.model = model
        self._diarizer = diarizer
        self._speakers = speakers

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        sdk = {"name": "pyannote.audio", "version": version("pyannote.audio")}
        return {"model": self.model, "speakers": self._speakers, "sdk": sdk}

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        return Answer(self._diarizer.run(sound.samples, self._speakers).serialize(), self.model)

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return service_transcript("pyannote.audio", answer.raw, sound)

    def close(self) -> None:
        """See `System`."""


def load(options: SystemOptions) -> PyannoteAlone:
    """See `table.load`."""
    options.refuse("pyannote", "language", "hotwords", "base_url", "python")
    model = options.model or DEFAULT
    return PyannoteAlone(PyannoteDiarizer(model, device=options.device), model, options.speakers)
