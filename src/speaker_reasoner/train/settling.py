"""Train new auxiliary heads of a checkpoint first, on a frozen thinker.

A checkpoint holds its thinker alone. Gradients of random heads would distort the features that generalise to
unseen voices, from the first step on (Kumar et al. 2022, arXiv 2202.10054).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import track
from torch import nn

from .learner import Learner
from .loop import Drawn, ahead

_LEARNING_RATE, _WARM_UP_STEPS = 3e-3, 10
_SCALES = 20.0
"""Factor on the learning rate of temperatures and offsets: they start far off, and cannot overfit."""


def settle(
    learner: Learner,
    draw: Callable[[int], Drawn],
    steps: int,
    accelerator: Any,
    *,
    workers: int,
    shown: bool,
) -> None:
    """Train the heads of a learner.

    Args:
        learner: with heads, on no device of the run's yet; afterwards everything it trains is as before.
        draw: returns the batch of a step, and the weights of its losses.
        steps: batches to learn from.
        accelerator: of the run.
        workers: processes that prepare batches ahead.
        shown: whether to show a progress bar.
    """
    assert learner.heads is not None
    learner.to(accelerator.device)
    trained = [p for p in learner.thinker.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    optimiser = _optimiser(learner.heads)
    learner.train()
    drawn = track(ahead(draw, steps, workers), total=steps, description="heads", disable=not shown)
    for step, (batch, weights) in enumerate(drawn):
        with accelerator.autocast():
            losses = learner(batch.to(accelerator.device), weights)
        counts = learner.counts(batch, weights)
        total = torch.stack(
            [
                getattr(weights, name) * values[0] / max(1, counts[name])
                for name, values in losses.items()
                if values.requires_grad
            ]
        ).sum()
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
            group["lr"] = group["most"] * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        torch.autograd.backward(total)
        optimiser.step()
    for parameter in trained:
        parameter.requires_grad_(True)


def _optimiser(heads: nn.Module) -> torch.optim.Optimizer:
    rates = {True: _LEARNING_RATE * _SCALES, False: _LEARNING_RATE}
    groups = [
        {"params": [p for p in heads.parameters() if (p.ndim == 0) == scale], "most": rate}
        for scale, rate in rates.items()
    ]
    return torch.optim.AdamW(groups, _LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
