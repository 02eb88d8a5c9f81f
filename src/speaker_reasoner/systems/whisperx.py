"""WhisperX in an environment of its own: recognition, alignment and diarization. Each optional key may be missing."""

from typing import Any

from ..errors import AnswerError
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .service import service_transcript
from .worker import Subprocess

_MODEL = "large-v3"


class WhisperXAlone:
    """WhisperX.

    Args:
        options: `model` is a size or hub id of a Whisper; `python` is that of its environment.
    """

    name = "whisperx"

    def __init__(self, options: SystemOptions) -> None:
        self.model = options.model or _MODEL
        self._told = {
            "model": self.model,
            "language": options.language,
            "speakers": options.speakers,
            "device": options.device,
        }
        self._worker = Subprocess(
            self.name, self._told, "whisperx", options.python, options.timeout_s
        )
        self._versions = self._worker.start()

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {**self._told, "sdk": {"name": "whisperx", "versions": self._versions}}

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        return Answer(self._worker.ask(sound), self.model)

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        if not isinstance(answer.raw, dict):
            raise AnswerError("format", f"expected an object, got {type(answer.raw).__name__}")
        return service_transcript("OpenAI, Whisper, WhisperX, faster-whisper", answer.raw, sound)

    def close(self) -> None:
        """See `System`."""
        self._worker.close()


def load(options: SystemOptions) -> WhisperXAlone:
    """See `table.load`."""
    options.refuse("whisperx", "hotwords", "base_url")
    return WhisperXAlone(options)
