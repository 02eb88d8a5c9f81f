"""Packed rows: attention keeps dialogues apart, whatever their lengths, and has the gradients of PyTorch's own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from speaker_reasoner.errors import EngineError
from speaker_reasoner.train.packing import _BLOCK, _attend, _padded, pack_rows, row_bounds
from speaker_reasoner.train.windows import _by_kernel, _by_products

LENGTHS = ([1], [5, 1, 9], [_BLOCK], [_BLOCK + 1, 3], [3 * _BLOCK - 1, 2 * _BLOCK, 7])


class Text:
    """A text model as far as its attention's name goes."""

    def __init__(self, name: str) -> None:
        self.config = type("Config", (), {"_attn_implementation": name})()


def states(lengths: list[int], heads: int, shared: int, seed: int = 0) -> list[Tensor]:
    """Queries, keys, values and a gradient of the result, `[heads, T, 16]`."""
    made = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return [torch.randn(n, total, 16, generator=made) for n in (heads, shared, shared, heads)]


def by_rows(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float) -> Tensor:
    """PyTorch's attention of each row alone, `[T, heads, D]`."""
    rows = []
    for q, k, v in zip(*(one.split(lengths, 1) for one in (query, key, value)), strict=True):
        rows.append(
            F.scaled_dot_product_attention(
                q[None], k[None], v[None], is_causal=True, scale=scale, enable_gqa=True
            )[0]
        )
    return torch.cat(rows, 1).transpose(0, 1)


def packed(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float) -> Tensor:
    bounds = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(torch.int32)
    attended, _ = _attend(
        None, query[None], key[None], value[None], None, scaling=scale, cu_seq_lens_q=bounds
    )
    return attended[0]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(("heads", "shared"), [(4, 2), (3, 3), (4, 1)])
def test_equal_to_each_row_alone(lengths: list[int], heads: int, shared: int) -> None:
    *inputs, gradient = states(lengths, heads, shared)
    results = []
    for compute in (packed, by_rows):
        leaves = [one.clone().requires_grad_() for one in inputs]
        output = compute(*leaves, lengths, 0.3)
        assert output.shape == (sum(lengths), heads, 16)
        results.append([output, *torch.autograd.grad(output, leaves, gradient.transpose(0, 1))])
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_padded_for_a_gpu_is_the_same(lengths: list[int]) -> None:
    query, key, value, _ = states(lengths, 4, 2)
    bounds = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(torch.int32)
    own = _padded(query, key, value, bounds, 0.3)[0]
    torch.testing.assert_close(own, by_rows(query, key, value, lengths, 0.3), atol=1e-5, rtol=1e-4)


def test_bfloat16_errs_as_little_as_pytorchs_own() -> None:
    """Within autocast, as training computes: relative errors of the result and of all gradients."""
    lengths = [300, 140]
    *inputs, gradient = states(lengths, 4, 2)
    exact = results_of(by_rows, inputs, gradient, lengths, torch.float32)
    for own, theirs, right in zip(
        results_of(packed, inputs, gradient, lengths, torch.bfloat16),
        results_of(by_rows, inputs, gradient, lengths, torch.bfloat16),
        exact,
        strict=True,
    ):
        error, usual = (float((one - right).norm() / right.norm()) for one in (own, theirs))
        assert error < 2.5 * usual < 0.05


def results_of(
    compute: Any, inputs: list[Tensor], gradient: Tensor, lengths: list[int], dtype: torch.dtype
) -> list[Tensor]:
    leaves = [one.to(dtype).requires_grad_() for one in inputs]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = compute(*leaves, lengths, 0.25)
    made = torch.autograd.grad(output, leaves, gradient.transpose(0, 1).to(output.dtype))
    return [one.detach().float() for one in (output, *made)]


def test_a_row_does_not_see_the_others() -> None:
    lengths = [70, 200, 30]
    query, key, value, _ = states(lengths, 4, 2)
    before = packed(query, key, value, lengths, 0.3)
    key[:, 70:270] += 5.0
    value[:, 70:270] -= 3.0
    after = packed(query, key, value, lengths, 0.3)
    assert torch.equal(before[:70], after[:70]) and torch.equal(before[270:], after[270:])
    assert not torch.allclose(before[70:270], after[70:270])


def test_other_attentions() -> None:
    lengths, device = torch.tensor([3, 5]), torch.device("cpu")
    flash = Text("flash_attention_2")
    pack_rows(flash)
    given = row_bounds(flash, lengths, device)
    assert given["cu_seq_lens_q"].tolist() == given["cu_seq_lens_k"].tolist() == [0, 3, 8]
    assert given["max_length_q"] == given["max_length_k"] == 5
    eager = Text("eager")
    pack_rows(eager)
    with pytest.raises(EngineError, match="got the attention eager, expected sdpa or flash"):
        row_bounds(eager, lengths, device)
    ours = Text("sdpa")
    pack_rows(ours)
    assert row_bounds(ours, lengths, device)["cu_seq_lens_q"].tolist() == [0, 3, 8]


def test_windows_by_products_are_those_of_the_kernel() -> None:
    made = torch.Generator().manual_seed(0)
    inputs = [torch.randn(7, 4, 26, 16, generator=made) for _ in range(3)]
    real = torch.arange(26) < torch.tensor([26, 1, 13, 26, 25, 2, 26]).unsqueeze(1)
    gradient = torch.randn(7, 4, 26, 16, generator=made) * real[:, None, :, None]
    results = []
    for compute in (_by_products, _by_kernel):
        leaves = [one.clone().requires_grad_() for one in inputs]
        output = compute(*leaves, real, 0.3)
        results.append([output, *torch.autograd.grad(output, leaves, gradient)])
    for own, expected in zip(*results, strict=True):
        torch.testing.assert_close(own, expected, atol=2e-5, rtol=1e-4)
