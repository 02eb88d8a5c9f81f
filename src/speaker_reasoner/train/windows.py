"""All attention windows of an audio tower in one call.

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
    """Let a tower whose attention is PyTorch's own (`sdpa`) hear all windows at once; the embeddings are
    the same up to rounding. Another attention is left alone: FlashAttention takes windows as they are."""
    if tower.config._attn_implementation != "sdpa":
        return
    layout = _Layout()
    for layer in tower.layers:
        layer.self_attn.forward = MethodType(_attend, layer.self_attn)
        layer.self_attn.layout = layout


class _Layout:
    """Where the tokens of windows lie; the layers of a tower, which get the same bounds, share it."""

    def __init__(self) -> None:
        self._held: tuple[Tensor, tuple[Tensor, Tensor, Tensor]] | None = None

    def __call__(self, bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of each window `[W, longest]`, which of them are no padding, and the places
        `[tokens]` of those among all."""
        if self._held is None or self._held[0] is not bounds:
            starts, lengths = bounds[:-1].long(), bounds.diff().long()
            within = torch.arange(int(lengths.max()), device=bounds.device)
            real = within < lengths.unsqueeze(1)
            tokens = torch.where(real, starts.unsqueeze(1) + within, 0)
            self._held = bounds, (tokens, real, real.flatten().nonzero().squeeze(1))
        return self._held[1]


def _attend(self: Any, hidden_states: Tensor, cu_seqlens: Tensor, *_: Any, **__: Any) -> Tensor:
    """In place of an audio attention's `forward`: states `[tokens, D]`, bounds of windows `[W + 1]`."""
    tokens, real, places = self.layout(cu_seqlens)

    def windows(projected: Tensor) -> Tensor:
        return projected[tokens].view(*tokens.shape, self.num_heads, -1).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        windows(self.q_proj(hidden_states)),
        windows(self.k_proj(hidden_states)),
        windows(self.v_proj(hidden_states)),
        attn_mask=real[:, None, None, :],
        scale=self.scaling,
    )  # [W, heads, longest, D / heads]
    joined: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2).flatten(0, 1)[places])
    return joined
