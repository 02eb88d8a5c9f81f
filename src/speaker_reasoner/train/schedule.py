"""Configuration of a stage's schedule and of the run: lengths, learning rates, processes."""

import math
from dataclasses import dataclass

from ..errors import DataError


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length and learning rate of a stage: linear warm-up, cosine down to `floor` of the peak."""

    steps: int
    learning_rate: float
    warm_up_steps: int = 60
    floor: float = 0.05

    def __post_init__(self) -> None:
        if min(self.steps, self.warm_up_steps) < 1 or not 0 <= self.floor <= 1:
            raise DataError(
                f"schedule of {self.steps} steps, {self.warm_up_steps} of them warm-up, floor "
                f"{self.floor:g}: expected at least 1 of each, and a floor within 0..1"
            )

    def rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / self.warm_up_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (self.floor + (1 - self.floor) * cosine)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Settings of a run that all stages share.

    Attributes:
        batches_per_step: over all processes; each accumulates its share of them.
        bf16: compute in bfloat16 where that is safe (autocast); trained weights stay float32.
        gradient_checkpointing: recompute layers in the backward pass, to save memory.
        clip: largest norm of the gradient.
        average: decay of the moving average of weights that a stage ends with; 0 for the weights of the
            last step.
        workers: processes that prepare batches ahead; 0 prepares them in between.
        log_steps: steps between rows of the log.
        check_steps: steps between checks on `checks` fixed batches.
        dialogue_steps: steps between transcriptions of `dialogues` fixed dialogues; 0 for never.
        save_every_s: seconds between saves; the end of a stage is always saved.
        compile: compile the text model's layers (torch.compile; on a CPU it takes a C++ compiler). Where that
            fails, a warning says so.
        log_with: trackers by accelerate's names (`tensorboard`, `wandb`, ...).
    """

    batches_per_step: int = 1
    bf16: bool = True
    gradient_checkpointing: bool = False
    clip: float = 1.0
    average: float = 0.0
    workers: int = 0
    log_steps: int = 20
    check_steps: int = 100
    checks: int = 1
    dialogue_steps: int = 0
    dialogues: int = 8
    save_every_s: float = 240.0
    compile: bool = False
    log_with: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("batches_per_step", "log_steps", "check_steps", "dialogues", "clip"):
            if getattr(self, name) <= 0:
                raise DataError(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("workers", "checks", "dialogue_steps", "save_every_s"):
            if getattr(self, name) < 0:
                raise DataError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 <= self.average < 1:
            raise DataError(f"average: expected at least 0 and less than 1, got {self.average:g}")
