"""One training loop for every stage: Muon and AdamW, warm-up and cosine, bf16 autocast, atomic saves.

The data of step n depend on the stage, the seed and n alone, so a run that was killed goes on as if
it had not been. Checkpoints are written beside the final one and replaced in one move.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from ..errors import CheckpointError, OutputError
from .batches import Batch
from .model import Learner, LossWeights


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length and learning rate of a stage: linear warm-up, cosine down to `floor` of the peak."""

    steps: int
    learning_rate: float
    warm_up_steps: int = 60
    floor: float = 0.05

    def rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (self.floor + (1 - self.floor) * cosine)


@dataclass(frozen=True, slots=True)
class Task:
    """A stage as the loop sees it.

    Attributes:
        name: of the stage, in logs and file names.
        draw: the batch of a step, and how its losses weigh.
        check: a fixed batch that is not learned from, looked at every `check_steps`.
    """

    name: str
    schedule: Schedule
    draw: Callable[[int], tuple[Batch, LossWeights]]
    check: tuple[Batch, LossWeights]
    check_steps: int = 100


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run happens and how often it is saved."""

    device: torch.device
    bf16: bool = True
    save_every_s: float = 240.0


def run(task: Task, learner: Learner, folder: Path, machine: Machine) -> None:
    """Train one stage to its end, from its last checkpoint if `folder` holds one.

    Args:
        folder: gets `<stage>.pt` (weights, optimiser, step) and `log.jsonl`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    learner.to(machine.device).train()
    optimisers = make_optimisers(learner, task.schedule.learning_rate)
    path = folder / f"{task.name}.pt"
    first = _resume(path, learner, optimisers, machine.device)
    saved_at = started = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(task.name, total=task.schedule.steps, completed=first)
        heard_s = 0.0
        for step in range(first, task.schedule.steps):
            batch, weights = task.draw(step)
            rate = task.schedule.rate(step)
            log = train_step(learner, optimisers, batch.to(machine.device), weights, rate, machine)
            heard_s += batch.audio_s
            if step % 20 == 19:
                speed = {"audio_s_per_s": heard_s / (time.monotonic() - started)}
                _append(folder, {"stage": task.name, "step": step + 1, **log, **speed})
                progress.update(bar, description=f"{task.name} {_headline(log)}")
            if (step + 1) % task.check_steps == 0 or step + 1 == task.schedule.steps:
                checked = check(task, learner, machine)
                _append(folder, {"stage": task.name, "step": step + 1, "check": checked})
            progress.advance(bar)
            if time.monotonic() - saved_at > machine.save_every_s:
                save(path, learner, optimisers, step + 1)
                saved_at = time.monotonic()
    save(path, learner, optimisers, task.schedule.steps)


def make_optimisers(learner: Learner, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the layers, AdamW for all else (Jordan et al. 2024), at one
    learning rate (Liu et al. 2025, arXiv 2502.16982: updates of the same root mean square)."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in learner.named_parameters():
        in_layer = parameter.ndim == 2 and name.startswith("thinker.") and "embed" not in name
        (matrices if in_layer and "visual" not in name else others).append(parameter)
    return [
        torch.optim.Muon(
            matrices, learning_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, learning_rate, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def train_step(
    learner: Learner,
    optimisers: Sequence[torch.optim.Optimizer],
    batch: Batch,
    weights: LossWeights,
    rate: float,
    machine: Machine,
) -> dict[str, float]:
    """One step at a learning rate; returns the losses and accuracies of the batch."""
    with torch.autocast(machine.device.type, torch.bfloat16, enabled=machine.bf16):
        result: tuple[Tensor, dict[str, float]] = learner(batch, weights)
    loss, log = result
    learner.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    return log


def check(task: Task, learner: Learner, machine: Machine) -> dict[str, float]:
    """Losses and accuracies on the stage's fixed batch."""
    batch, weights = task.check
    learner.eval()
    with torch.no_grad(), torch.autocast(machine.device.type, torch.bfloat16, enabled=machine.bf16):
        result: tuple[Tensor, dict[str, float]] = learner(batch.to(machine.device), weights)
    learner.train()
    return result[1]


def save(
    path: Path, learner: Learner, optimisers: Sequence[torch.optim.Optimizer], step: int
) -> None:
    """Write a checkpoint in one move: a full disk or a kill leaves the last one whole."""
    temporary = path.with_suffix(".tmp")
    states = [optimiser.state_dict() for optimiser in optimisers]
    state = {"learner": learner.state_dict(), "optimisers": states, "step": step}
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot save the checkpoint: {error}; free some space"
        ) from error


def _resume(
    path: Path,
    learner: Learner,
    optimisers: Sequence[torch.optim.Optimizer],
    device: torch.device,
) -> int:
    if not path.exists():
        return 0
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        learner.load_state_dict(state["learner"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        return int(state["step"])
    except Exception as error:  # of a damaged file, torch raises anything down to struct.error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: cannot go on from this checkpoint: {reason}; it is damaged or of another "
            "configuration: delete it to start the stage again"
        ) from error


def _append(folder: Path, row: dict[str, Any]) -> None:
    rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")


def _headline(log: dict[str, float]) -> str:
    names: Iterable[str] = ("answer", "word_accuracy", "voice_accuracy", "speaker_accuracy")
    return " ".join(f"{name} {log[name]:.3f}" for name in names if name in log)
