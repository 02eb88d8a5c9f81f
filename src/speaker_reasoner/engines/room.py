"""Checks from its configuration whether a model fits in the memory of a GPU, before any weight is read."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import CheckpointError, first_line
from .placed import MOST_GRAPHS, MOST_TOKENS

_DIALOGUE_TOKENS = 8192
"""Tokens of a dialogue whose keys and values count: a chunk of a minute, heard twice, with its turns (assumed)."""
_RESERVED_BYTES = 2 * 2**30
"""Bytes of a forward besides weights, keys and values (assumed)."""
_GRAPH_BYTES = 2**24
"""Bytes of the GPU for the launches of each captured step or prefill (assumed)."""
_FEW_DIALOGUES = 16
"""A warning says so if fewer dialogues than these have room at once (assumed)."""
_GIB = 2**30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU.

    Attributes:
        name: of its maker.
        free_bytes: of its memory, now.
        total_bytes: of its memory.
    """

    name: str
    free_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, device: torch.device) -> "Card":
        """The GPU of a CUDA device."""
        free, total = torch.cuda.mem_get_info(device)
        return cls(torch.cuda.get_device_name(device), free, total)


def check_room(
    thinker_class: Any, config: Any, dtype: torch.dtype, card: Card, *, cuda_graphs: bool = False
) -> int:
    """Return how many dialogues at once a GPU has room for beside a model.

    Args:
        thinker_class: class of transformers; it is made without memory for its weights.
        config: of the thinker.
        cuda_graphs: whether steps are captured. Captures take memory, and static places are a power of two; while
            they grow, a layer is there twice.

    Raises:
        CheckpointError: there is no room for one.
    """
    with torch.device("meta"):
        shell = thinker_class(config)
    weights = sum(parameter.numel() for parameter in shell.parameters()) * dtype.itemsize
    text = config.text_config
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    keys = 2 * text.num_hidden_layers * text.num_key_value_heads * size * dtype.itemsize
    dialogue = keys * _DIALOGUE_TOKENS
    kept = 2 * MOST_TOKENS * text.hidden_size * dtype.itemsize  # a capture's own inputs and output
    reserved = _RESERVED_BYTES + (MOST_GRAPHS * (_GRAPH_BYTES + kept) if cuda_graphs else 0)
    spare = card.free_bytes - weights - reserved
    if cuda_graphs:
        spare -= spare // (text.num_hidden_layers + 1)
    room = max(0, int(spare // dialogue))
    if cuda_graphs and room:
        room = 1 << room.bit_length() - 1
    took = f"its weights take {_gib(weights)} in {str(dtype).removeprefix('torch.')}"
    has = f"{card.name} has {_gib(card.free_bytes)} free of {_gib(card.total_bytes)}"
    if room < 1:
        least = weights + reserved + dialogue
        captured = " and captured steps (--cuda-graphs)" if cuda_graphs else ""
        raise CheckpointError(
            f"the model does not fit on the GPU: {took}, with one dialogue{captured} {_gib(least)}; {has}. Stop what "
            "else fills it, take a larger card, a smaller model, --device cpu, or a server over several cards "
            "(--engine openai)"
        )
    if room < _FEW_DIALOGUES:
        _log.warning(
            "%s; %s: room for about %d dialogues at once (--batch %d)", took, has, room, room
        )
    return room


def check_precision(dtype: torch.dtype, device: torch.device) -> None:
    """Check that a GPU computes in bfloat16.

    Raises:
        CheckpointError: it is too old.
    """
    if dtype != torch.bfloat16:
        return
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise CheckpointError(
            f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor}) has no bfloat16, which "
            "begins with 8.0; give --dtype float16 or float32"
        )


def usable_cuda() -> bool:
    """Return whether there is a GPU that torch can use; one that it cannot, because the card or its driver is too
    old, is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
        reasons = [str(one.message).strip().splitlines()[0] for one in caught]
        if usable:
            try:
                float(torch.zeros(1, device="cuda"))
            except RuntimeError as error:
                usable, reasons = "out of memory" in str(error), [first_line(error)]
    for reason in [] if usable else reasons:
        _log.warning("no GPU is used: %s", reason)
    return usable


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
