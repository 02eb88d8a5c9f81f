"""Attention over kept keys and values without a copy of them for each query head.

Several query heads share a key head. Where a mask is given, transformers' own function repeats keys and values for
each of them, at every layer of every step; here the query heads of a group become further rows of one head.
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
    """Attention `[B, T, heads, D]` of queries `[B, heads, T, D]`; see transformers' AttentionInterface."""
    if attention_mask is None:
        output, _ = sdpa_attention_forward(module, query, key, value, None, scaling=scaling, **rest)
        return output, None
    batch, heads, tokens, size = query.shape
    shared = key.shape[1]
    rows = query.reshape(batch, shared, -1, size)  # the query heads of a group, one after the other
    mask = attention_mask[..., : key.shape[2]].repeat(1, 1, heads // shared, 1)
    output = F.scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(batch, heads, tokens, size).transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)


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
