"""WhisperX in an environment of its own: recognition, alignment and diarization. Each optional key may be missing."""

from typing import Any

from ..errors import AnswerError
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .service import SEGMENTS, service_transcript
from .worker import Isolated

_MODEL = "large-v3"


class WhisperXAlone(Isolated):
    """WhisperX.

    Args:
        options: `model` is a size or hub id of a Whisper; `python` is that of its environment.
    """

    def __init__(self, options: SystemOptions) -> None:
        model = options.model or _MODEL
        self._settings = {
            "model": model,
            "language": options.language,
            "speakers": options.speakers,
            "device": options.device,
        }
        super().__init__("whisperx", model, self._settings, "whisperx", options)

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {**self._settings, "sdk": {"name": "whisperx", "versions": self.versions}}

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        if not isinstance(answer.raw, dict):
            raise AnswerError("format", f"expected an object, got {type(answer.raw).__name__}")
        return service_transcript(SEGMENTS, answer.raw, sound)


def load(options: SystemOptions) -> WhisperXAlone:
    """See `table.load`."""
    options.refuse("whisperx", "hotwords", "base_url")
    return WhisperXAlone(options)
