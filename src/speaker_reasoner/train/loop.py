"""One training loop for every stage and model, on accelerate: one process, DDP, FSDP2 or DeepSpeed.

A step has a fixed number of batches, which the processes share. Batch n of step m depends on stage, seed, m
and n alone, and every loss is a mean over all batches of the step: two processes give the same result as
one with twice the accumulation, and a run that was killed continues as if it had not been.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..errors import SpeakerReasonerError
from .accelerators import PreparedLearner
from .batches import TrainingBatch
from .learner import LossWeights
from .log import Log
from .saves import Saves
from .schedule import RunConfig, Schedule

Drawn = tuple[TrainingBatch, LossWeights]


@dataclass(frozen=True, slots=True)
class StageTask:
    """A stage as the loop sees it.

    Attributes:
        name: of the stage, in logs and file names.
        draw: returns the n-th batch of a step, and the weights of its losses.
        checks: fixed batches for validation.
        order: the settings that `draw` depends on, by name.
        transcribe: transcribes fixed dialogues as for a user, and returns their error rates; every
            process calls it.
    """

    name: str
    schedule: Schedule
    draw: Callable[[int, int], Drawn]
    checks: Sequence[Drawn] = ()
    order: Mapping[str, int] = field(default_factory=dict)
    transcribe: Callable[[], dict[str, float]] | None = None


def run(
    task: StageTask,
    prepared: PreparedLearner,
    folder: Path,
    config: RunConfig,
    say: Callable[[str], None],
) -> None:
    """Train one stage to its end, from its saved state in `folder` if there is one.

    Args:
        folder: gets `<stage>.pt` (trained weights, optimisers, step) and `log.jsonl`.
        say: called with remarks for the user on a state that is taken up.

    Raises:
        CheckpointError: the state in `folder` is damaged, or of another configuration or order of data.
        OutputError: the state cannot be written.
    """
    accelerator, learner = prepared.accelerator, prepared.learner
    average = Average(learner, config.average) if config.average else None
    saves = Saves(
        folder / f"{task.name}.pt",
        learner,
        prepared.model,
        prepared.optimisers,
        accelerator,
        average.values if average else None,
        task.order,
    )
    _forget(prepared.optimisers)
    first = saves.load()
    if 0 < first < task.schedule.steps and (remark := saves.check_order()):
        say(remark)
    log = Log(folder / "log.jsonl", task.name, accelerator)
    log.cut(first)
    steps = task.schedule.steps
    saved_at = started = time.monotonic()
    audio_s = 0.0
    with _progress(accelerator.is_main_process) as progress:
        bar = progress.add_task(task.name, total=steps, completed=first)
        for step, drawn in zip(
            range(first, steps), batches(task, first, config, accelerator), strict=True
        ):
            losses = train_step(prepared, drawn, task.schedule.rate(step), config.clip)
            audio_s += sum(batch.audio_s for batch, _ in drawn) * accelerator.num_processes
            done = step + 1
            if average is not None:
                average.add(step)
                if done == steps:
                    average.put()
            if done % config.log_steps == 0:
                speed = {"audio_s_per_s": audio_s / (time.monotonic() - started)}
                means = losses.means(accelerator)
                rate = {"learning_rate": task.schedule.rate(step)}
                log.write(done, {**means, **rate, **speed})
                progress.update(bar, description=f"{task.name} {_headline(means)}")
            if task.checks and (done % config.check_steps == 0 or done == steps):
                log.write(done, check(prepared, task.checks), "check")
            if task.transcribe is not None and _due(done, config.dialogue_steps, steps):
                log.write(done, task.transcribe(), "dialogues")
            progress.advance(bar)
            if done == steps or time.monotonic() - saved_at > config.save_every_s:
                saves.save(done)
                saved_at = time.monotonic()


class Average:
    """An exponential moving average of the trained weights, which errs less than those of any one step
    (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407).

    Attributes:
        values: by name, sharded as the parameters are.
    """

    def __init__(self, learner: nn.Module, decay: float) -> None:
        self._trained = {n: p for n, p in learner.named_parameters() if p.requires_grad}
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in self._trained.items()}

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Add the weights of a step; the first steps weigh more, so that the initial weights fade."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._trained.items():
            self.values[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def put(self) -> None:
        """Replace the weights by the average."""
        for name, value in self._trained.items():
            value.copy_(self.values[name])


def _due(done: int, every: int, steps: int) -> bool:
    return every > 0 and (done % every == 0 or done == steps)


def _forget(optimisers: Sequence[Any]) -> None:
    """Clear the optimiser's moments at the start of a stage."""
    for optimiser in optimisers:
        held = getattr(optimiser, "optimizer", optimiser)
        getattr(held, "optim", held).state.clear()  # `optim`: in a ZeroRedundancyOptimizer


class _Draws(Dataset[Any]):
    """A data set of a function's results by number; a worker returns an error instead of raising it."""

    def __init__(self, draw: Callable[[int], Any], count: int) -> None:
        self.draw = draw
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        try:
            return self.draw(index)
        except SpeakerReasonerError as error:
            return error


def ahead(draw: Callable[[int], Any], count: int, workers: int) -> Iterator[Any]:
    """Results for the numbers below `count`, in order, prepared ahead by worker processes."""
    loader: Iterable[Any] = DataLoader(
        _Draws(draw, count),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_is,
        multiprocessing_context="fork" if workers else None,
    )
    for drawn in loader:
        if isinstance(drawn, SpeakerReasonerError):
            raise drawn
        yield drawn


def batches(
    task: StageTask, first: int, config: RunConfig, accelerator: Any
) -> Iterator[list[Drawn]]:
    """A process's batches of each step from `first` on."""
    share = config.batches_per_step // accelerator.num_processes
    rows = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)

    def draw(index: int) -> Drawn:
        step, part = divmod(index, share)
        return task.draw(first + step, rows[part])

    held: list[Drawn] = []
    for drawn in ahead(draw, (task.schedule.steps - first) * share, config.workers):
        held.append(drawn)
        if len(held) == share:
            yield held
            held = []


def _as_is(drawn: Any) -> Any:
    return drawn


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of one step on one process: sum and number of right answers `[2]` by name, and the number of
    items of all processes."""

    sums: dict[str, Tensor]
    counts: dict[str, int]

    def means(self, accelerator: Any) -> dict[str, float]:
        """Means over all processes; every process must call it."""
        means: dict[str, float] = {}
        for name in sorted(self.counts):
            pair = self.sums.get(name, torch.zeros(2, device=accelerator.device))
            loss, right = accelerator.reduce(pair, "sum").tolist()
            means[name] = loss / self.counts[name]
            means[f"{name}_accuracy"] = right / self.counts[name]
        return means


def train_step(
    prepared: PreparedLearner, drawn: Sequence[Drawn], rate: float, clip: float
) -> Losses:
    """One step at a learning rate.

    Args:
        drawn: the process's batches of the step.
        rate: of every optimiser.
        clip: largest norm of the gradient.
    """
    accelerator, model = prepared.accelerator, prepared.model
    model.train()
    for optimiser in prepared.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
    counts = _counted(prepared, drawn)
    # accelerate takes the mean over accumulated batches, and the backends over processes; both are
    # undone, because the counts are of all batches of the step already.
    batches_per_step = accelerator.gradient_accumulation_steps * accelerator.num_processes
    sums: dict[str, Tensor] = {}
    for batch, weights in drawn:
        with accelerator.accumulate(model):
            losses = model(batch.to(accelerator.device), weights)
            total = torch.zeros((), device=accelerator.device)
            for name, values in losses.items():
                total = total + getattr(weights, name) * values[0] / max(1, counts[name])
                sums[name] = sums.get(name, 0.0) + values.detach()
            accelerator.backward(total * batches_per_step)  # DeepSpeed also clips and steps here
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(prepared.learner.parameters(), clip)
            for optimiser in prepared.optimisers:
                optimiser.step()
                optimiser.zero_grad()
    return Losses(sums, counts)


def _counted(prepared: PreparedLearner, drawn: Sequence[Drawn]) -> dict[str, int]:
    """Number of items of each loss of the step, over all processes."""
    counts: Counter[str] = Counter()
    for batch, weights in drawn:
        counts.update(prepared.learner.counts(batch, weights))
    names = LossWeights.__slots__
    row = torch.tensor([counts[name] for name in names], device=prepared.accelerator.device)
    totals = prepared.accelerator.reduce(row, "sum").tolist()
    return {name: count for name, count in zip(names, totals, strict=True) if count}


@torch.no_grad()
def check(prepared: PreparedLearner, checks: Sequence[Drawn]) -> dict[str, float]:
    """Mean losses and accuracies on fixed batches; every process computes all of them."""
    prepared.model.eval()
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()
    for batch, weights in checks:
        counts.update(prepared.learner.counts(batch, weights))
        for name, values in prepared.model(batch.to(prepared.accelerator.device), weights).items():
            sums[name] = sums.get(name, 0.0) + values
    means: dict[str, float] = {}
    for name, values in sums.items():
        loss, right = values.tolist()
        means[name] = loss / max(1, counts[name])
        means[f"{name}_accuracy"] = right / max(1, counts[name])
    return means


def _progress(shown: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
    )
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), disable=not shown)


def _headline(log: dict[str, float]) -> str:
    names = ("answer", "word_accuracy", "voice_accuracy", "speaker_accuracy")
    return " ".join(f"{name} {log[name]:.3f}" for name in names if name in log)
