"""Attention over kept keys and values without a copy of them for each query head.

Several query heads share a key head. Where a mask is given, transformers' own function repeats keys and values for
each of them, at every layer of every step; here the query heads of a group become further rows of one head. The mask
is repeated for them, once a forward and not in every layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "speaker_reasoner_grouped"


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention `[B, T, heads, D]` of queries `[B, heads, T, D]`; see transformers' AttentionInterface.

    Args:
        attention_mask: `[B, 1, T * query heads of a group, L]`, as `grouped_mask` makes it.
    """
    if attention_mask is None:
        output, _ = sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **rest)
        return output, None
    batch, heads, tokens, size = query.shape
    shared = key.shape[1]
    rows = query.reshape(batch, shared, -1, size)  # the query heads of a group, one after the other
    mask = attention_mask[..., : key.shape[2]]
    output = F.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(batch, heads, tokens, size).transpose(1, 2).contiguous(), None


def grouped_mask(config: Any, mask: Tensor) -> Tensor:
    """A mask `[B, 1, T, L]` as the layers of a text model want it while `grouped_attention` lasts, and as it is
    where another implementation attends."""
    if config._attn_implementation != _NAME:
        return mask
    return mask.repeat(1, 1, config.num_attention_heads // config.num_key_value_heads, 1)


def _made_mask(*, config: Any, **given: Any) -> Tensor | None:
    """See transformers' AttentionMaskInterface."""
    mask = sdpa_mask(config=config, **given)
    return None if mask is None else grouped_mask(config, mask)


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, _made_mask)


@contextmanager
def grouped_attention(model: Any) -> Iterator[Any]:
    """A text model that attends so while the context lasts; other implementations than sdpa stay."""
    before = model.config._attn_implementation
    if before == "sdpa":
        model.config._attn_implementation = _NAME
    try:
        yield model
    finally:
        model.config._attn_implementation = before
