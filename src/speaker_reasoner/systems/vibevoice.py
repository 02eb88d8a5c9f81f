"""VibeVoice-ASR: JSON of turns, by transformers in this process or behind a server of chat completions."""

from typing import Any

from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .chat import ChatModel
from .hub import HubModel, whole_text
from .text import read_text

_NAME = "vibevoice"
_KEYS = "Start time, End time, Speaker ID, Content"


class ServedVibeVoice(ChatModel):
    """VibeVoice-ASR behind a server, with the request of its own plugin for vLLM."""

    system_prompt = (
        "You are a helpful assistant that transcribes audio input into text output in JSON format."
    )
    prompt = f"This is a X.XX seconds audio, please transcribe it with these keys: {_KEYS}"

    def prompt_for(self, sound: Sound) -> str:
        """The length of the sound is part of the request."""
        hints = self.options.hotwords
        known = f" with extra info: {hints}" if hints else ""
        return (
            f"This is a {sound.duration_s:.2f} seconds audio{known}, please transcribe it with these keys: "
            f"{_KEYS}"
        )

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {**super().describe(), "hotwords": self.options.hotwords}


class VibeVoice(HubModel):
    """VibeVoice-ASR in this process."""

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return read_text(whole_text(answer.raw), sound)


def load(options: SystemOptions) -> ServedVibeVoice | VibeVoice:
    """See `table.load`."""
    options.refuse(_NAME, "language", "speakers")
    if options.base_url is not None:
        return ServedVibeVoice(_NAME, "microsoft/VibeVoice-ASR-HF", options)
    return VibeVoice(
        _NAME,
        "microsoft/VibeVoice-ASR-HF",
        "VibeVoiceAsrForConditionalGeneration",
        "prompt",
        options,
    )
