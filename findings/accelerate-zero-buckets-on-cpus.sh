#!/usr/bin/env bash
# Two processes on CPUs train one linear layer after another with torch's ZeroRedundancyOptimizer (each steps its share of the
# parameters and sends them to the other), prepared by accelerate. The guess is that both hold the same parameters after a
# step. With parameters_as_bucket_view=True they do not, and nothing is said: each keeps its own share and never gets the
# other's. accelerate 1.14.0 names the device of several CPU processes "cpu:0", torch copies a tensor of "cpu" to "cpu:0", so
# that Accelerator.prepare moves every parameter out of the buckets that the optimiser sends. Without the buckets, or with an
# optimiser that is made after the model is prepared, they agree.
# Exits 0 while that is so. Takes pip, and PyPI for torch, accelerate and numpy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install torch==2.13.0 accelerate==1.14.0 numpy
cat > "$folder/train.py" <<'PY'
import os
import sys
import warnings

import torch

warnings.simplefilter("ignore")
from accelerate import Accelerator  # noqa: E402
from torch.distributed.optim import ZeroRedundancyOptimizer  # noqa: E402
from torch.optim import SGD  # noqa: E402


def sums(buckets, late):
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    net = torch.nn.Sequential(*[torch.nn.Linear(4, 4, bias=False) for _ in range(2)])
    make = lambda: ZeroRedundancyOptimizer(list(net.parameters()), SGD, parameters_as_bucket_view=buckets, lr=0.1)
    if late:
        model, optimiser = accelerator.prepare(net), make()
    else:
        model, optimiser = accelerator.prepare(net, make(), device_placement=[None, False])
    model(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    return [round(float(p.detach().sum()), 4) for p in net.parameters()]


rows = [sums(True, False), sums(False, False), sums(True, True)]
held = [None, None]
torch.distributed.all_gather_object(held, rows)
if os.environ["RANK"] == "0":
    same = [one == other for one, other in zip(*held)]
    device = Accelerator(cpu=True).device
    weight = torch.ones(1)
    print("device:", device, "- copies:", weight.to(device).data_ptr() != weight.data_ptr())
    for name, agreed, one, other in zip(("buckets", "no buckets", "buckets, made late"), same, *held):
        print(f"{name}: processes agree: {agreed} {one} {other}")
    sys.exit(same != [False, True, True])
PY
"$folder/venv/bin/torchrun" --nproc-per-node 2 --master-port 29651 "$folder/train.py" 2>/dev/null
