"""`speaker-reasoner` under accelerate's FSDP2, on CPUs: run by `test_train_processes`.

accelerate shards on accelerators only; here the type of a run on several CPUs is set to FSDP, and all the
rest is accelerate's and torch's own. The process fails if nothing was sharded.
"""

import os
import sys
from typing import Any

os.environ |= {
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "Qwen3OmniMoeThinkerTextDecoderLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}

from accelerate import state
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.tensor import DTensor

from speaker_reasoner.cli import main
from speaker_reasoner.train import accelerators, stages

_init, _prepare = state.AcceleratorState.__init__, accelerators.prepare


def sharded_init(self: Any, *arguments: Any, **options: Any) -> None:
    _init(self, *arguments, **options)
    if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = FullyShardedDataParallelPlugin()
        if self._mixed_precision != "no":
            self.fsdp_plugin.set_mixed_precision(self._mixed_precision)


def checked_prepare(*arguments: Any, **options: Any) -> Any:
    prepared = _prepare(*arguments, **options)
    assert all(isinstance(p, DTensor) for p in prepared.learner.parameters())
    return prepared


state.AcceleratorState.__init__ = sharded_init
stages.prepare = checked_prepare

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
