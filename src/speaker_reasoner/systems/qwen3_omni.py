"""Qwen3-Omni without training for the task (zero-shot), behind a server of OpenAI's chat completions.

The paper does not print the prompt that it gave this model; this one is ours, and its hash is stored.
"""

from .base import SystemOptions
from .chat import ChatModel

PROMPT = (
    "Transcribe this recording of a conversation, and say who speaks when. Write one line for each turn, in "
    "the order of their starts, and nothing else:\n"
    "[MM:SS.mmm --> MM:SS.mmm] Speaker N: words\n"
    "Times count from the start of the recording. The same number always means the same person; number "
    "people by their first turn. Where people speak at once, write a line for each of them. Keep the "
    "language that is spoken."
)


class QwenOmni(ChatModel):
    """A Qwen-Omni model as it was published."""

    prompt = PROMPT


def load(options: SystemOptions) -> QwenOmni:
    """See `table.load`."""
    options.refuse("qwen3-omni", "language", "hotwords", "speakers")
    return QwenOmni("qwen3-omni", "Qwen/Qwen3-Omni-30B-A3B-Instruct", options)
