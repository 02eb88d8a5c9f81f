"""A learner and its optimisers, prepared by accelerate: one process, DDP, FSDP2 or DeepSpeed.

Tested on two CPUs (`tests/test_train_processes.py`): the same losses and weights as one process; DeepSpeed
(ZeRO-2 and ZeRO-3, 0.19) in float32 and without adapters, where it is installed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import extras
from ..engines.thinker import audio_tower
from ..errors import DataError, EngineError
from .learner import Learner
from .saves import is_deepspeed, is_sharded
from .schedule import RunConfig

_LOST = ("Connection reset by peer", "Connection closed by peer", "Broken pipe")
"""Messages of gloo about a process that has ended."""


@dataclass(frozen=True, slots=True)
class PreparedLearner:
    """A learner and its optimisers, prepared by accelerate.

    Attributes:
        learner: the learner without a wrapper.
        model: the learner as accelerate wrapped it; this one is called.
        optimisers: the optimisers as accelerate wrapped them.
    """

    learner: Learner
    model: Any
    optimisers: Sequence[Any]
    accelerator: Any


def make_accelerator(config: RunConfig, folder: Path, *, cpu: bool, unused: bool) -> Any:
    """Make the accelerator of a run; `accelerate launch` sets the number of processes and the sharding
    in the environment.

    Args:
        folder: folder for trackers that write files.
        cpu: use no GPU.
        unused: some weights get no gradient in some batches.

    Raises:
        DataError: the batches of a step do not divide among processes.
        ExtraError: accelerate is not installed.
    """
    accelerate = extras.load("accelerate", "train", "training")
    accelerator = accelerate.Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if config.bf16 else "no",
        log_with=list(config.log_with) or None,
        project_dir=str(folder),
        kwargs_handlers=[accelerate.DistributedDataParallelKwargs(find_unused_parameters=unused)],
    )
    processes = accelerator.num_processes
    if config.batches_per_step % processes:
        raise DataError(
            f"batches_per_step {config.batches_per_step} do not divide among {processes} "
            f"processes; set a multiple of {processes}"
        )
    accelerator.gradient_accumulation_steps = config.batches_per_step // processes
    if is_deepspeed(accelerator):  # it needs numbers that it would read from a data loader
        settings = accelerator.state.deepspeed_plugin.deepspeed_config
        settings["train_micro_batch_size_per_gpu"] = 1
        settings["gradient_accumulation_steps"] = accelerator.gradient_accumulation_steps
        settings["gradient_clipping"] = config.clip  # it clips and steps by itself
    return accelerator


@contextmanager
def among_others(accelerator: Any) -> Iterator[None]:
    """Convert the error of an action of several processes, where another of them has ended.

    Raises:
        EngineError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistBackendError) or any(
            sign in str(error) for sign in _LOST
        )
        if accelerator.num_processes == 1 or not lost:
            raise
        raise EngineError(
            f"process {accelerator.process_index} of {accelerator.num_processes} lost another one, which ended or "
            f"cannot be reached ({' '.join(str(error).split())[:200]}); read its last output; the same "
            "command goes on from the last save"
        ) from error


def prepare(learner: Learner, accelerator: Any, *, muon: bool) -> PreparedLearner:
    """Hand a learner to accelerate, with optimisers for its trained weights.

    Args:
        muon: Muon for the weight matrices of the layers; otherwise AdamW for all.
    """
    if accelerator.device.type == "cpu" and not is_sharded(accelerator):
        for part in audio_tower(learner.thinker).modules():
            if isinstance(part, nn.Conv2d):  # oneDNN's convolutions are faster so
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimisers = make_optimisers(learner, muon=muon)
    model, *prepared = accelerator.prepare(learner, *optimisers)
    return PreparedLearner(learner, model, prepared, accelerator)


def make_optimisers(learner: Learner, *, muon: bool) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the layers, AdamW for all else (Jordan et al. 2024), at one
    learning rate (Liu et al. 2025, arXiv 2502.16982: updates of the same root mean square); or AdamW
    alone, without decay, as for LoRA and fine-tuning. The rate is the schedule's, step by step."""
    trained = {n: p for n, p in learner.named_parameters() if p.requires_grad}
    if not muon:
        return [torch.optim.AdamW(trained.values(), 0.0, betas=(0.9, 0.98), weight_decay=0.0)]
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in trained.items():
        in_layer = parameter.ndim == 2 and name.startswith("thinker.") and "embed" not in name
        (matrices if in_layer else others).append(parameter)
    return [
        torch.optim.Muon(matrices, 0.0, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, 0.0, betas=(0.9, 0.98), weight_decay=0.02),
    ]
