"""Qwen2.5-Omni without training for the task; see `qwen3_omni`."""

from .base import SystemOptions
from .qwen3_omni import QwenOmni


def load(options: SystemOptions) -> QwenOmni:
    """See `table.load`."""
    options.refuse("qwen2.5-omni", "language", "hotwords", "speakers")
    return QwenOmni("qwen2.5-omni", "Qwen/Qwen2.5-Omni-7B", options)
