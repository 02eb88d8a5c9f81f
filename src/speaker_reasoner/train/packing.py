"""Rows of text of different length in one, without padding, and the attention that keeps them apart.

A text model computes all tokens of a batch as one row `[1, T]`. FlashAttention takes the bounds of the rows as they
are; for PyTorch's attention, a GPU gets padded rows, for this one call, and a CPU computes blocks of queries against
the keys before them, by products of matrices, which take less time there than PyTorch's own kernel.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ..engines.attention import attend
from ..errors import EngineError
from .windows import Layout, pad

_NAME = "speaker_reasoner_packed"
_BLOCK = 256
"""Queries whose scores are computed at once."""
_layout = Layout()


def pack_rows(text: Any) -> None:
    """Let a text model with PyTorch's attention (`sdpa`) take packed rows; it computes others as before."""
    if text.config._attn_implementation == "sdpa":
        text.config._attn_implementation = _NAME


def row_bounds(text: Any, lengths: Tensor, device: torch.device) -> dict[str, Any]:
    """Arguments by which a text model takes packed rows.

    Args:
        lengths: tokens of each row, `[B]` on the CPU.

    Raises:
        EngineError: its attention cannot keep rows apart.
    """
    kind = text.config._attn_implementation
    bounds = F.pad(lengths.cumsum(0), (1, 0)).to(device, torch.int32)
    if kind == _NAME:
        return {"cu_seq_lens_q": bounds}
    if not kind.startswith("flash_attention"):
        raise EngineError(
            f"training: got the attention {kind}, expected sdpa or flash_attention_2; others mix the rows of a batch"
        )
    longest = int(lengths.max())
    ends = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
    return {**ends, "max_length_q": longest, "max_length_k": longest}


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention `[B, T, heads, D]` of queries `[B, heads, T, D]`; see transformers' AttentionInterface.

    Args:
        cu_seq_lens_q: bounds of packed rows, `[rows + 1]`; B is 1 then.
    """
    if cu_seq_lens_q is None:
        return attend(module, query, key, value, attention_mask, scaling=scaling, **rest)
    if attention_mask is not None:
        raise EngineError("training: got attention over a sliding window, expected full attention")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type != "cpu":
        return _padded(query[0], key[0], value[0], cu_seq_lens_q, scale), None
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    query, key, value = (states[0].contiguous() for states in (query, key, value))
    attended: Tensor = _attended(query, key, value, cu_seq_lens_q, scale)
    return attended.transpose(0, 1).unsqueeze(0), None


def _padded(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float) -> Tensor:
    real, places = _layout(bounds)

    def padded(states: Tensor) -> Tensor:
        return pad(states.transpose(0, 1), real, places).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        padded(query), padded(key), padded(value), is_causal=True, scale=scale, enable_gqa=True
    )  # [rows, heads, longest, D]
    return attended.transpose(1, 2).flatten(0, 1).index_select(0, places).unsqueeze(0)


@torch.library.custom_op("speaker_reasoner::packed_attention", mutates_args=())
def _attended(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, scale: float) -> Tensor:
    """Causal attention within packed rows, `[heads, T, D]`.

    Args:
        query: `[heads, T, D]`.
        key, value: `[shared heads, T, D]`.
        bounds: of the rows, `[B + 1]`.
    """
    grouped = _grouped(query, key) * scale
    attended = torch.empty_like(grouped)
    later = _later(grouped)
    for first, start, end in _blocks(bounds):
        rows = grouped[:, :, start:end].flatten(1, 2)
        shares = _shares(rows, key[:, first:end], end - start, later)
        part = torch.bmm(shares, value[:, first:end])
        attended[:, :, start:end] = _split(part, end - start)
    return attended.flatten(0, 1)


@_attended.register_fake
def _(query: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("speaker_reasoner::packed_attention_backward", mutates_args=())
def _gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    scale: float,
    attended: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values; the shares are computed again, not kept."""
    grouped = _grouped(query, key) * scale
    above = _grouped(gradient, key)
    # sum over keys of share and its gradient, equal to that over features (Dao et al. 2022)
    drift = (above.float() * _grouped(attended, key).float()).sum(-1, keepdim=True).to(above.dtype)
    of_query = torch.empty_like(grouped)
    of_key, of_value = (torch.zeros_like(one, dtype=torch.float32) for one in (key, value))
    later = _later(grouped)
    for first, start, end in _blocks(bounds):
        rows = grouped[:, :, start:end].flatten(1, 2)
        over = above[:, :, start:end].flatten(1, 2)
        shares = _shares(rows, key[:, first:end], end - start, later)
        of_value[:, first:end] += torch.bmm(shares.transpose(1, 2), over)
        of_scores = torch.bmm(over, value[:, first:end].transpose(1, 2))
        of_scores -= drift[:, :, start:end].flatten(1, 2)
        of_scores *= shares
        part = torch.bmm(of_scores, key[:, first:end])
        of_query[:, :, start:end] = _split(part, end - start)
        of_key[:, first:end] += torch.bmm(of_scores.transpose(1, 2), rows)
    of_query = (of_query * scale).flatten(0, 1)
    return of_query, of_key.to(key.dtype), of_value.to(value.dtype)


@_gradients.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    query, key, value, bounds, attended = ctx.saved_tensors
    made = _gradients(query, key, value, bounds, ctx.scale, attended, gradient.contiguous())
    return (*made, None, None)


_attended.register_autograd(_backward, setup_context=_keep)


def _grouped(query: Tensor, key: Tensor) -> Tensor:
    """Query heads under the key head that they share, `[shared heads, group, T, D]`."""
    return query.view(len(key), -1, *query.shape[1:])


def _split(rows: Tensor, queries: int) -> Tensor:
    """Queries of the heads of a group apart, `[shared heads, group, queries, ...]`."""
    return rows.view(len(rows), -1, queries, rows.shape[-1])


def _later(states: Tensor) -> Tensor:
    """What is added to the scores of a block's own keys, so that no query sees a later one, `[block, block]`."""
    return torch.full((_BLOCK, _BLOCK), float("-inf"), dtype=states.dtype).triu(1)


def _blocks(bounds: Tensor) -> list[tuple[int, int, int]]:
    """Blocks of queries: where their row begins, where they begin and end."""
    ends = bounds.tolist()
    return [
        (first, start, min(start + _BLOCK, end))
        for first, end in pairwise(ends)
        for start in range(first, end, _BLOCK)
    ]


def _shares(rows: Tensor, key: Tensor, queries: int, later: Tensor) -> Tensor:
    """Softmax of the scores of a block, `[shared heads, group * queries, keys]`."""
    scores = torch.bmm(rows, key.transpose(1, 2))
    _split(scores, queries)[..., -queries:] += later[:queries, :queries]
    return torch.softmax(scores, -1)


AttentionInterface.register(_NAME, _attend)
AttentionMaskInterface.register(_NAME, sdpa_mask)
