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
    layout = Layout()
    for layer in tower.layers:
        layer.self_attn.forward = MethodType(_attend, layer.self_attn)
        layer.self_attn.layout = layout


class Layout:
    """Layout of packed rows as padded ones; the layers of a model, which get the same bounds, share it."""

    def __init__(self) -> None:
        self._held: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def __call__(self, bounds: Tensor, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Return which tokens of padded rows `[W, longest]` are real, and their places `[tokens]` among them; by
        default on the device of the bounds."""
        if self._held is None or self._held[0] is not bounds:
            lengths = bounds.diff().long()
            within = torch.arange(int(lengths.max()), device=bounds.device)
            real = within < lengths.unsqueeze(1)
            places = real.flatten().nonzero().squeeze(1)
            device = device or bounds.device
            self._held = bounds, (real.to(device), places.to(device))
        return self._held[1]


def pad(tokens: Tensor, real: Tensor, places: Tensor) -> Tensor:
    """Lay tokens `[tokens, ...]` out as padded rows `[W, longest, ...]`, zeros between them."""
    # copied to where it belongs, not gathered: that would sum the gradients of all padding
    room = tokens.new_zeros(real.numel(), *tokens.shape[1:])
    return room.index_copy(0, places, tokens).view(*real.shape, *tokens.shape[1:])


def _attend(self: Any, hidden_states: Tensor, cu_seqlens: Tensor, *_: Any, **__: Any) -> Tensor:
    """Replace an audio attention's `forward`: states `[tokens, D]`, bounds of windows `[W + 1]`."""
    real, places = self.layout(cu_seqlens, hidden_states.device)

    def windows(projected: Tensor) -> Tensor:
        padded = pad(projected, real, places)
        return padded.view(*real.shape, self.num_heads, -1).transpose(1, 2)

    compute = _by_products if hidden_states.device.type == "cpu" else _by_kernel
    attended = compute(
        windows(self.q_proj(hidden_states)),
        windows(self.k_proj(hidden_states)),
        windows(self.v_proj(hidden_states)),
        real,
        self.scaling,
    )  # [W, heads, longest, D / heads]
    flat = attended.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, places)
    joined: Tensor = self.out_proj(flat)
    return joined


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, real: Tensor, scale: float) -> Tensor:
    """Attention `[W, heads, longest, D]` of windows to their real tokens."""
    mask = real[:, None, None, :]
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _by_products(query: Tensor, key: Tensor, value: Tensor, real: Tensor, scale: float) -> Tensor:
    """The same by products of matrices: PyTorch's kernel is slow on a CPU for many short windows in bfloat16."""
    with torch.autocast("cpu", enabled=False):  # which would compute the softmax in float32
        absent = torch.zeros(real.shape, dtype=query.dtype).masked_fill_(~real, float("-inf"))
        scores = (query * scale) @ key.transpose(-1, -2) + absent[:, None, None, :]
        return torch.softmax(scores, -1) @ value
