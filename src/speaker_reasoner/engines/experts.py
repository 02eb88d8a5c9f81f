"""Computation of a text model's routed experts: by a kernel of ours for few tokens, or by transformers.

For one token transformers' ways sort, copy or loop; the kernel (`experts_kernel`, in Triton) reads the chosen experts
where they lie. It is registered as an experts implementation of transformers' own, and is tried on a layer of the model
before it is used. Nothing here needs Triton.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import SettingsError, first_line
from .thinker import text_model

EXPERTS = ("auto", "kernel", "library")
"""Choices of `ChosenExperts`."""
_CLOSE = 0.05
"""Allowed difference as a share of the largest value: kernel and transformers round bfloat16 differently (assumed)."""
_log = logging.getLogger(__name__)


class ChosenExperts:
    """The experts of a thinker's text model while it is `used`.

    Args:
        thinker: with or without experts.
        choice: `kernel`, `library` (transformers), or `auto`: the kernel on an NVIDIA GPU, if it works there.

    Attributes:
        kernel: whether the kernel computes few tokens.
        most_captured: most tokens of a forward that a CUDA graph can hold; `None` for any number.

    Raises:
        SettingsError: the kernel is asked for and cannot be used.
    """

    def __init__(self, thinker: Any, choice: str) -> None:
        self._thinker, self._config = thinker, text_model(thinker).config
        self.kernel = False
        layer = next(filter(_is_known, text_model(thinker).modules()), None)
        on_gpu = thinker.device.type == "cuda"
        if choice == "library" or (choice == "auto" and (layer is None or not on_gpu)):
            return
        problem = "the model has no experts that it knows" if layer is None else try_kernel(layer)
        if problem and choice == "kernel":
            raise SettingsError(f"--experts kernel: {problem}; leave it out")
        if problem:
            _log.warning(
                "--experts: the kernel for few tokens is not used: %s; transformers computes the experts: the same "
                "work in more and smaller kernels, so that each step takes longer",
                problem,
            )
        self.kernel = not problem

    @property
    def most_captured(self) -> int | None:
        routed = any(hasattr(layer.mlp, "experts") for layer in text_model(self._thinker).layers)
        if not routed or not waits_for_sizes(
            self._config._experts_implementation, self._thinker.dtype, self._thinker.device
        ):
            return None
        if not self.kernel:
            return 0
        from .experts_kernel import MOST_TOKENS

        return MOST_TOKENS

    @contextmanager
    def used(self) -> Iterator[None]:
        """Compute the experts as chosen until the context ends."""
        before = self._config._experts_implementation
        if self.kernel:
            from .experts_kernel import NAME

            self._config._experts_implementation = NAME
        try:
            yield
        finally:
            self._config._experts_implementation = before


def waits_for_sizes(implementation: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether transformers' experts wait for a GPU within each layer, so that no CUDA graph can hold them.

    `eager` asks which experts were chosen. torch's product of groups asks how large they are, except for bfloat16 on
    compute capabilities 9.x and 10.x (read in its source).
    """
    if device.type != "cuda" or implementation not in ("eager", "grouped_mm"):
        return False
    major, _ = torch.cuda.get_device_capability(device)
    return implementation == "eager" or dtype != torch.bfloat16 or major not in (9, 10)


def _is_known(module: Any) -> bool:
    """Return whether the kernel can read a module of routed experts.

    It reads `[experts, 2 * inner, D]`, gates first, and `[experts, D, inner]`, with SiLU and without biases.
    """
    weights = [getattr(module, name, None) for name in ("gate_up_proj", "down_proj")]
    return (
        all(type(one) is nn.Parameter and one.dim() == 3 for one in weights)
        and getattr(module, "has_gate", False)
        and getattr(module, "is_concatenated", True)
        and not any(
            getattr(module, name, False)
            for name in ("has_bias", "is_transposed", "has_post_expert_norm", "_is_expert_parallel")
        )
        and type(module.act_fn).__name__ in ("SiLUActivation", "SiLU")
    )


@torch.inference_mode()
def try_kernel(layer: Any) -> str | None:
    """Run the kernel, which compiles it, on one token of a layer; return the reason if it cannot be used."""
    weight = layer.gate_up_proj
    hidden = torch.linspace(-1, 1, weight.shape[2], device=weight.device).to(weight.dtype)[None]
    chosen = torch.arange(min(2, len(weight)), device=weight.device)[None]
    shares = torch.full_like(chosen, 1, dtype=weight.dtype) / chosen.shape[1]
    try:
        from .experts_kernel import few_tokens

        own = few_tokens(hidden, weight, layer.down_proj, chosen, shares).float()
        expected = layer(hidden, chosen, shares).float()
    except ImportError as error:
        return f"Triton cannot be imported ({first_line(error)})"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, the C compiler that it calls, the driver: any class
        return f"it does not compile or run here ({first_line(error)})"
    if not bool((own - expected).abs().max() <= _CLOSE * expected.abs().max()):
        return "it computes other numbers than transformers here"
    return None
