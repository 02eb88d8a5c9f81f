"""Matrix products of float32 layers on a CPU by oneDNN, which torch itself asks for other types only.

torch sends float32 products to MKL. With weights that are laid out for it beforehand, oneDNN took half of MKL's time
for many rows on an AMD EPYC (docs/results/products.json).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOST_BYTES = 1 << 30

_ONE_DNN = torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
    hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
)
if _ONE_DNN:
    _reorder = torch.ops.mkldnn._reorder_linear_weight.default
    _multiply = torch.ops.mkldnn._linear_pointwise.default


def is_plain(layers: Sequence[Any]) -> TypeGuard[Sequence[nn.Linear]]:
    """Return whether all are torch's own linear layers as they were made, with float32 weights on a CPU.

    Quantised weights, and those that are sharded over processes, are tensors of other classes.
    """
    return all(
        type(one) is nn.Linear
        and is_untouched(one)
        and type(one.weight) is nn.Parameter
        and (one.weight.device.type, one.weight.dtype) == ("cpu", torch.float32)
        for one in layers
    )


def is_untouched(module: nn.Module) -> bool:
    """Return whether calling a module runs its class's `forward` and nothing else.

    Libraries that shard or offload weights fetch them in hooks, or replace `forward` on the instance.
    """
    return not ("forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks)


def state_of(module: nn.Module) -> list[tuple[int, int]]:
    """Return the version and address of each weight, which differ after a weight was changed in place or replaced."""
    return [
        (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
        for weight in module.parameters()
    ]


def is_small(model: nn.Module) -> bool:
    """Return whether a second layout of a model's weights is worth its memory: up to 1 GiB."""
    return sum(weight.nbytes for weight in model.parameters()) <= _MOST_BYTES


class Product:
    """A float32 product on a CPU, `[N, in]` to `[N, out]`.

    Args:
        weight: `[out, in]`.
        bias: `[out]`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = _reorder(weight.detach()) if _ONE_DNN else weight.detach()
        self._bias = None if bias is None else bias.detach()

    @classmethod
    def of(cls, layers: Sequence[nn.Linear], scale: Tensor | None = None) -> "Product":
        """One product of layers with the same input; outputs lie one after the other.

        Args:
            scale: `[in]`, factors of the input.
        """
        if len(layers) == 1 and scale is None:
            return cls(layers[0].weight, layers[0].bias)
        bias = None
        if layers[0].bias is not None:
            bias = torch.cat([layer.bias for layer in layers])
        weight = torch.cat([layer.weight for layer in layers])
        return cls(weight if scale is None else weight * scale, bias)

    def __call__(self, x: Tensor) -> Tensor:
        if not _ONE_DNN:
            return F.linear(x, self._weight, self._bias)
        output: Tensor = _multiply(x.contiguous(), self._weight, self._bias, "none", [], "")
        return output


class FastLinears:
    """The float32 linear layers of a model on a CPU; those of other classes, types, devices stay as they are."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [
            layer
            for layer in (model.modules() if _ONE_DNN and is_small(model) else ())
            if isinstance(layer, nn.Linear) and is_plain([layer])
        ]
        self._products: dict[int, tuple[list[tuple[int, int]], Product]] = {}

    @contextmanager
    def used(self) -> Iterator[None]:
        """While it lasts the layers compute by `Product`, without gradients; under autocast they stay as they are."""
        layers = [] if torch.is_autocast_enabled("cpu") else self._layers
        for number, layer in enumerate(layers):
            state = state_of(layer)
            known = self._products.get(number)
            if known is None or known[0] != state:
                known = self._products[number] = state, Product.of([layer])
            vars(layer)["forward"] = known[1]
        try:
            yield
        finally:
            for layer in layers:
                vars(layer).pop("forward", None)
