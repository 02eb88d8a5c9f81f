"""`speaker-reasoner` under accelerate's DeepSpeed, on CPUs: run by `test_train_processes`.

accelerate starts DeepSpeed on accelerators only; here the devices it finds are CPUs that talk through gloo, and
all the rest is accelerate's and DeepSpeed's own. The process fails if nothing is partitioned.
"""

import os
import sys
from typing import Any

os.environ |= {
    "DS_ACCELERATOR": "cpu",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": os.environ.get("ZERO_STAGE", "2"),
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
}

import torch
from accelerate import state
from accelerate.utils import DistributedType

from speaker_reasoner.cli import main
from speaker_reasoner.train import accelerators, stages

_prepare = accelerators.prepare


def on_gloo(self: Any, *arguments: Any, **options: Any) -> tuple[str, DistributedType]:
    return "gloo", DistributedType.MULTI_GPU


def on_cpu(self: Any) -> None:
    self.device = torch.device("cpu")


def checked_prepare(*arguments: Any, **options: Any) -> Any:
    prepared = _prepare(*arguments, **options)
    assert prepared.model.zero_optimization_stage() == int(os.environ.get("ZERO_STAGE", "2"))
    assert prepared.model.dp_world_size == 2
    return prepared


state.PartialState._prepare_backend = on_gloo
state.PartialState.set_device = on_cpu
stages.prepare = checked_prepare

if __name__ == "__main__":
    sys.exit(main([word for word in sys.argv[1:] if word != "--cpu"]))
