"""The dialogue's tags, and Qwen's chat markup around its turns."""

from dataclasses import dataclass

THINK, THINK_END = "<think>", "</think>"
BOX, BOX_END = "<box>", "</box>"
ANSWER, ANSWER_END = "<answer>", "</answer>"


@dataclass(frozen=True, slots=True)
class Markup:
    """Qwen's chat markup around one audio part."""

    user: str = "<|im_start|>user\n"
    audio_open: str = "<|audio_start|>"
    audio: str = "<|audio_pad|>"
    audio_close: str = "<|audio_end|>"
    user_close: str = "<|im_end|>\n<|im_start|>assistant\n"
    end: str = "<|im_end|>"

    @property
    def user_open(self) -> str:
        """A user turn that begins with audio."""
        return self.user + self.audio_open


MARKUP = Markup()
