"""Routed experts of few tokens, in Triton: the weights of the chosen ones are read where they lie, for each token.

Two kernels: the inner units of each choice, then the weighted sum of a token's choices. Sums are in float32 and in an
order that does not depend on the other tokens. Nothing waits for the processor and no size depends on data, so that a
CUDA graph can hold them.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "speaker_reasoner_few_tokens"
MOST_TOKENS = 8
"""With more, tokens share experts, whose weights are better read once for all (grouped_mm); assumed."""
_INNER_UNITS, _OUTER_UNITS = 8, 4
"""Units of the output that a program computes; assumed."""
_INNER_BLOCK, _OUTER_BLOCK = 512, 1024
"""Inputs that it reads of each unit at a time, at most; assumed."""


@triton.jit  # type: ignore[untyped-decorator]
def _inner_units(  # type: ignore[no-untyped-def]
    hidden, weights, chosen, inner,
    WIDTH: tl.constexpr, INNER: tl.constexpr, CHOICES: tl.constexpr, UNITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """silu(gate) * up of each choice, `[tokens * CHOICES, INNER]`."""
    choice = tl.program_id(0)
    units = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    expert = tl.load(chosen + choice).to(tl.int64)
    gates = weights + expert * (2 * INNER * WIDTH)
    gate = tl.zeros([UNITS, BLOCK], tl.float32)
    up = tl.zeros([UNITS, BLOCK], tl.float32)
    for first in range(0, WIDTH, BLOCK):
        at = first + tl.arange(0, BLOCK)
        inside = (units[:, None] < INNER) & (at[None, :] < WIDTH)
        given = tl.load(hidden + (choice // CHOICES) * WIDTH + at, mask=at < WIDTH, other=0.0).to(
            tl.float32
        )
        place = gates + units[:, None] * WIDTH + at[None, :]
        gate += tl.load(place, mask=inside, other=0.0).to(tl.float32) * given[None, :]
        up += tl.load(place + INNER * WIDTH, mask=inside, other=0.0).to(tl.float32) * given[None, :]
    open_by = tl.sum(gate, 1)
    value = open_by * tl.sigmoid(open_by) * tl.sum(up, 1)
    tl.store(inner + choice * INNER + units, value, mask=units < INNER)


@triton.jit  # type: ignore[untyped-decorator]
def _outer_units(  # type: ignore[no-untyped-def]
    inner, weights, chosen, shares, output,
    WIDTH: tl.constexpr, INNER: tl.constexpr, CHOICES: tl.constexpr, UNITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The weighted sum of a token's choices, `[tokens, WIDTH]`."""
    token = tl.program_id(0)
    units = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    total = tl.zeros([UNITS], tl.float32)
    for number in range(CHOICES):
        choice = token * CHOICES + number
        expert = tl.load(chosen + choice).to(tl.int64)
        part = tl.zeros([UNITS, BLOCK], tl.float32)
        for first in range(0, INNER, BLOCK):
            at = first + tl.arange(0, BLOCK)
            inside = (units[:, None] < WIDTH) & (at[None, :] < INNER)
            given = tl.load(inner + choice * INNER + at, mask=at < INNER, other=0.0)
            place = weights + expert * (WIDTH * INNER) + units[:, None] * INNER + at[None, :]
            part += tl.load(place, mask=inside, other=0.0).to(tl.float32) * given[None, :]
        total += tl.sum(part, 1) * tl.load(shares + choice).to(tl.float32)
    tl.store(output + token * WIDTH + units, total.to(output.dtype.element_ty), mask=units < WIDTH)


@torch.library.custom_op("speaker_reasoner::few_tokens", mutates_args=())
def few_tokens(
    hidden: Tensor, gate_up: Tensor, down: Tensor, chosen: Tensor, shares: Tensor
) -> Tensor:
    """Experts of tokens, `[N, D]` to `[N, D]`.

    Args:
        hidden: `[N, D]`, of the weights' type.
        gate_up: `[experts, 2 * I, D]`, gates first.
        down: `[experts, D, I]`.
        chosen: experts of each token, `[N, K]`.
        shares: what each counts, `[N, K]`.
    """
    (count, size), (_, choices), inner_size = hidden.shape, chosen.shape, down.shape[2]
    hidden, chosen, shares = hidden.contiguous(), chosen.contiguous(), shares.contiguous()
    inner = hidden.new_empty(count * choices, inner_size, dtype=torch.float32)
    output = torch.empty_like(hidden)
    sizes = {
        "WIDTH": size,
        "INNER": inner_size,
        "CHOICES": choices,
        "num_warps": 4,
        "enable_fp_fusion": True,
    }
    here: Any = torch.cuda.device_of(hidden)  # type: ignore[no-untyped-call]
    with here:  # Triton launches on the current device
        _inner_units[count * choices, triton.cdiv(inner_size, _INNER_UNITS)](
            hidden, gate_up, chosen, inner,
            UNITS=_INNER_UNITS, BLOCK=min(_INNER_BLOCK, triton.next_power_of_2(size)), **sizes,
        )  # fmt: skip
        _outer_units[count, triton.cdiv(size, _OUTER_UNITS)](
            inner, down, chosen, shares, output,
            UNITS=_OUTER_UNITS, BLOCK=min(_OUTER_BLOCK, triton.next_power_of_2(inner_size)), **sizes,
        )  # fmt: skip
    return output


@few_tokens.register_fake
def _(hidden: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(hidden)


def _experts(self: Any, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """See transformers' ExpertsInterface."""
    weights = self.gate_up_proj, self.down_proj
    fits = hidden.dtype == weights[0].dtype and all(one.is_contiguous() for one in weights)
    if len(hidden) <= MOST_TOKENS and fits and not torch.is_grad_enabled():
        output: Tensor = few_tokens(hidden, *weights, chosen, shares)
        return output
    grouped: Tensor = ALL_EXPERTS_FUNCTIONS["grouped_mm"](self, hidden, chosen, shares)
    return grouped


ALL_EXPERTS_FUNCTIONS.register(NAME, _experts)
