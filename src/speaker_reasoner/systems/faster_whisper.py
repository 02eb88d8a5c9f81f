"""faster-whisper alone: words and their times, no speakers; as its users run it, but for chance.

With its voice filter, times of words (without them a segment is stretched over a pause), and a temperature of 0,
because higher ones draw words at random. Our own guards against its failures are those of the cascade, not here.
"""

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from .. import extras
from ..cores import model_threads
from ..errors import EngineError
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .service import SEGMENTS, service_transcript

_BEAM = 5
"""The default of faster-whisper."""


class FasterWhisperAlone:
    """A Whisper in CTranslate2's format.

    Args:
        options: `model` is a size, a folder or a hub id; the Whisper base of the weights package if `None`.
    """

    name = "faster-whisper"

    def __init__(self, options: SystemOptions) -> None:
        from ..engines.cascade.weights import weights_folder
        from ..engines.cascade.whisper import load_whisper

        model = options.model or str(weights_folder() / "whisper-base")
        self.model = options.model or "whisper base (8 bits)"
        self._options = options
        self._whisper: Any = load_whisper(model, options.device or "auto", model_threads())

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {
            "model": self.model,
            "beam": _BEAM,
            "language_given": self._options.language,
            "hotwords": self._options.hotwords,
            "compute_type": str(self._whisper.model.compute_type),
            "sdk": {"name": "faster-whisper", "version": version("faster-whisper")},
        }

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        try:
            segments, info = self._whisper.transcribe(
                sound.samples,
                language=self._options.language,
                hotwords=self._options.hotwords,
                beam_size=_BEAM,
                temperature=0.0,
                vad_filter=True,
                word_timestamps=True,
            )
            rows = [asdict(segment) for segment in segments]
        except (RuntimeError, ValueError) as error:  # CTranslate2's, as they come
            raise EngineError(f"{self.name}: {str(error).splitlines()[0]}") from error
        for row in rows:
            row.pop("tokens")
        raw = {"language": info.language, "language_probability": info.language_probability}
        return Answer({**raw, "segments": rows}, self.model)

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return service_transcript(SEGMENTS, answer.raw, sound)

    def close(self) -> None:
        """See `System`."""


def load(options: SystemOptions) -> FasterWhisperAlone:
    """See `table.load`."""
    extras.load("faster_whisper", "whisper", "the system faster-whisper")
    options.refuse("faster-whisper", "speakers", "base_url", "python")
    return FasterWhisperAlone(options)
