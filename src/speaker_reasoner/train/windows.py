"""Attention of an audio tower over all windows in one call.

transformers' towers attend within windows (2 s in the tiny model, 8 s in the published ones), and without
FlashAttention they do so window by window: hundreds of small calls a layer. Here windows become the rows
of one padded batch, and the padding is masked.
"""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def join_windows(tower: Any) -> None:
    """Let a tower with PyTorch's attention (`sdpa`) compute all windows in one call; the embeddings are the
    same up to rounding. Other attentions are unchanged: FlashAttention takes windows as they are."""
    if tower.config._attn_implementation != "sdpa":
        return
    layout = _Layout()
    for layer in tower.layers:
        layer.self_attn.forward = MethodType(_attend, layer.self_attn)
        layer.self_attn.layout = layout


class _Layout:
    """Layout of the tokens of windows; the layers of a tower, which get the same bounds, share it."""

    def __init__(self) -> None:
        self._held: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def __call__(self, bounds: Tensor) -> tuple[Tensor, Tensor]:
        """Return which tokens of padded windows `[W, longest]` are real, and their places `[tokens]` among them."""
        if self._held is None or self._held[0] is not bounds:
            lengths = bounds.diff().long()
            within = torch.arange(int(lengths.max()), device=bounds.device)
            real = within < lengths.unsqueeze(1)
            self._held = bounds, (real, real.flatten().nonzero().squeeze(1))
        return self._held[1]


def _attend(self: Any, hidden_states: Tensor, cu_seqlens: Tensor, *_: Any, **__: Any) -> Tensor:
    """Replace an audio attention's `forward`: states `[tokens, D]`, bounds of windows `[W + 1]`."""
    real, places = self.layout(cu_seqlens)

    def windows(projected: Tensor) -> Tensor:
        # copied to where it belongs, not gathered: that would sum the gradients of all padding
        padded = projected.new_zeros(real.numel(), projected.shape[-1])
        padded = padded.index_copy(0, places, projected)
        return padded.view(*real.shape, self.num_heads, -1).transpose(1, 2)

    query = windows(self.q_proj(hidden_states))
    key = windows(self.k_proj(hidden_states))
    value = windows(self.v_proj(hidden_states))
    if hidden_states.device.type == "cpu":
        attended = _multiply(query, key, value, real, self.scaling)
    else:
        mask = real[:, None, None, :]
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=self.scaling
        )
    # [W, heads, longest, D / heads]
    flat = attended.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, places)
    joined: Tensor = self.out_proj(flat)
    return joined


def _multiply(query: Tensor, key: Tensor, value: Tensor, real: Tensor, scale: float) -> Tensor:
    """The same by products of matrices: of many short windows, a fifth of the time in bfloat16 on a CPU."""
    with torch.autocast("cpu", enabled=False):  # which would compute the softmax in float32
        absent = torch.zeros(real.shape, dtype=query.dtype).masked_fill_(~real, float("-inf"))
        scores = (query * scale) @ key.transpose(-1, -2) + absent[:, None, None, :]
        return torch.softmax(scores, -1) @ value
