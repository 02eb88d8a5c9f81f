"""A learner and its optimisers, prepared by accelerate: one process, DDP, FSDP2 or DeepSpeed.

Tested on two CPUs (`tests/test_train_processes.py`): the same losses and weights as one process; DeepSpeed
(ZeRO-2 and ZeRO-3, 0.19) in float32 and without adapters, where it is installed.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
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
_PATIENCE = timedelta(hours=12)
"""How long processes on CPUs wait for the first one, which speaks a voice bank."""


class LostProcessError(EngineError):
    """Another process of the training has ended, or cannot be reached."""


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
    settings = [accelerate.DistributedDataParallelKwargs(find_unused_parameters=unused)]
    if cpu:
        settings.append(accelerate.InitProcessGroupKwargs(timeout=_PATIENCE))
    accelerator = accelerate.Accelerator(
        cpu=cpu,
        mixed_precision="bf16" if config.bf16 else "no",
        log_with=list(config.log_with) or None,
        project_dir=str(folder),
        kwargs_handlers=settings,
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
        LostProcessError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistBackendError) or any(
            sign in str(error) for sign in _LOST
        )
        if accelerator.num_processes == 1 or not lost:
            raise
        raise LostProcessError(
            f"process {accelerator.process_index} of {accelerator.num_processes} lost another one, which ended or "
            f"cannot be reached ({' '.join(str(error).split())[:200]}); read its last output; the same "
            "command goes on from the last save"
        ) from error


def prepare(learner: Learner, accelerator: Any, *, muon: bool) -> PreparedLearner:
    """Hand a learner to accelerate, with optimisers for its trained weights.

    Args:
        muon: Muon for the weight matrices of the layers; otherwise AdamW for all.
    """
    on_cpu = accelerator.device.type == "cpu" and not is_sharded(accelerator)
    if on_cpu:
        for part in audio_tower(learner.thinker).modules():
            if isinstance(part, nn.Conv2d):  # oneDNN's convolutions are faster so
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if on_cpu and accelerator.num_processes > 1:
        # The shared optimiser lays parameters out anew, which accelerate undoes if it prepares them later; and
        # accelerate reads an optimiser's state to place it on a device, which one that is shared does not give yet.
        model = accelerator.prepare(learner)
        optimisers = make_optimisers(learner, muon=muon, shared=True)
        prepared = accelerator.prepare(*optimisers, device_placement=[False] * len(optimisers))
        prepared = prepared if isinstance(prepared, tuple) else (prepared,)
    else:
        model, *prepared = accelerator.prepare(learner, *make_optimisers(learner, muon=muon))
    return PreparedLearner(learner, model, prepared, accelerator)


def make_optimisers(
    learner: Learner, *, muon: bool, shared: bool = False
) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the layers, AdamW for all else (Jordan et al. 2024), at one
    learning rate (Liu et al. 2025, arXiv 2502.16982: updates of the same root mean square); or AdamW
    alone, without decay, as for LoRA and fine-tuning. The rate is the schedule's, step by step.

    Args:
        shared: each of several processes computes Muon's steps for its share of the matrices, which is what takes
            time in them, and sends them to the others.
    """
    trained = {n: p for n, p in learner.named_parameters() if p.requires_grad}
    if not muon:
        return [
            torch.optim.AdamW(
                trained.values(), 0.0, betas=(0.9, 0.98), weight_decay=0.0, fused=True
            )
        ]
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in trained.items():
        in_layer = parameter.ndim == 2 and name.startswith("thinker.") and "embed" not in name
        (matrices if in_layer else others).append(parameter)
    settings: dict[str, Any] = {"lr": 0.0, "weight_decay": 0.02, "adjust_lr_fn": "match_rms_adamw"}
    first: torch.optim.Optimizer
    if shared:
        with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
            from torch.distributed.optim import ZeroRedundancyOptimizer  # scripts with torch.jit

        first = ZeroRedundancyOptimizer(
            matrices, torch.optim.Muon, parameters_as_bucket_view=True, **settings
        )
    else:
        first = torch.optim.Muon(matrices, **settings)
    return [
        first,
        torch.optim.AdamW(others, 0.0, betas=(0.9, 0.98), weight_decay=0.02, fused=True),
    ]
