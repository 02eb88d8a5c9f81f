"""The cascade's diarizer alone: who speaks when, without words; only time and speakers are scored."""

from typing import Any

from ..cores import model_threads
from ..engines.cascade.local import LocalDiarizer
from ..engines.cascade.segmentation import regions
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .service import service_transcript


class LocalDiarizerAlone:
    """Turns of the diarizer, which may overlap.

    Args:
        diarizer: finds them.
        speakers: fewest and most, if they are known.
    """

    name = "local-diarizer"

    def __init__(self, diarizer: LocalDiarizer, speakers: tuple[int, int] | None = None) -> None:
        self.model = diarizer.name
        self._diarizer = diarizer
        self._speakers = speakers

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        from onnxruntime import __version__

        sdk = {"name": "onnxruntime", "version": __version__}
        return {"model": self.model, "speakers": self._speakers, "sdk": sdk}

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        active = self._diarizer.diarize(sound.samples, self._speakers).active
        turns = [
            {"start": round(start_s, 3), "end": round(end_s, 3), "speaker": f"SPEAKER_{number:02d}"}
            for number in range(active.shape[1])
            for start_s, end_s in regions(active[:, number], sound.duration_s)
            if round(end_s - start_s, 3) > 0
        ]
        turns.sort(key=lambda turn: (turn["start"], turn["end"]))
        return Answer({"diarization": turns}, self.model)

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return service_transcript("pyannote.audio", answer.raw, sound)

    def close(self) -> None:
        """See `System`."""


def load(options: SystemOptions) -> LocalDiarizerAlone:
    """See `table.load`."""
    from ..engines.cascade.loading import load_diarizer

    options.refuse("local-diarizer", "model", "language", "hotwords", "base_url", "python")
    diarizer = load_diarizer("local", options.device, model_threads())
    assert isinstance(diarizer, LocalDiarizer)
    return LocalDiarizerAlone(diarizer, options.speakers)
