"""Compares what `speaker-reasoner plan` computes with a training step on this GPU: memory and time.

    python benchmarks/plan.py [--models qwen2.5-omni-7b qwen3-omni-30b-a3b] [--batches 1 4]

A step is LoRA with gradient checkpointing on one GPU, over the average dialogue of the plan with noise as audio. The
models have the published sizes and random weights, whose cost is that of trained ones; words are counted by the
embedded checkpoint's tokenizer, in the plan as well.
"""

import argparse
import gc
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from common import store
from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.engines.checkpoint import EMBEDDED
from speaker_reasoner.train.accelerators import make_accelerator, prepare
from speaker_reasoner.train.adapters import Lora, adapt
from speaker_reasoner.train.batches import Batcher, Clip, Example
from speaker_reasoner.train.learner import Learner, LossWeights
from speaker_reasoner.train.loop import train_step
from speaker_reasoner.train.models import make_ready
from speaker_reasoner.train.plan import Setup, plan
from speaker_reasoner.train.schedule import RunConfig
from speaker_reasoner.train.scratch import make_feature_extractor
from speaker_reasoner.train.shapes import average_trace, load_model

CHUNK_S = 50.0
RUN = RunConfig(bf16=True, gradient_checkpointing=True)


def made(name: str) -> Any:
    """The thinker of published sizes, in bfloat16 on the GPU, with adapters."""
    shell = load_model(name).thinker
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        thinker = type(shell)(shell.config)
    torch.set_default_dtype(torch.float32)
    adapt(thinker, Lora())
    make_ready(thinker, RUN)
    return thinker


def measured(name: str, batches: list[int], steps: int) -> list[dict[str, Any]]:
    """Rows of one model: planned and measured."""
    model = load_model(name)
    model.tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    begun = time.perf_counter()
    thinker = made(name)
    print(f"{name}: made in {time.perf_counter() - begun:.0f} s", flush=True)
    accelerator = make_accelerator(RUN, Path(), cpu=False, unused=False)
    prepared = prepare(Learner(thinker), accelerator, muon=False)
    batcher = Batcher(thinker, model.tokenizer, make_feature_extractor())
    noise = np.random.default_rng(0).normal(0, 0.05, round(CHUNK_S * SAMPLE_RATE_HZ))
    example = Example(average_trace(CHUNK_S), (Clip(noise.astype(np.float32)),))
    rows = []
    for size in batches:
        setup = Setup(chunk_s=CHUNK_S, batch=size, gradient_checkpointing=True, peak_tflops=989)
        planned = plan(model, setup)
        batch = batcher.batch([example] * size, random.Random(0), augment=False)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(steps + 2):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            train_step(prepared, [(batch, LossWeights())], 1e-4, 1.0)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
        step_s = sorted(seconds[2:])[steps // 2]
        peak = torch.cuda.max_memory_allocated()
        rows.append(
            {
                "model": name,
                "batch": size,
                "tokens": size * planned.dialogue.tokens,
                "planned": {**asdict(planned.memory), "total": planned.memory.total},
                "measured": peak,
                "reserved": torch.cuda.max_memory_reserved(),
                "step_s": step_s,
                "mfu": planned.time.step_flops / step_s / 989e12,
            }
        )
        print(rows[-1], flush=True)
    accelerator.free_memory()  # it holds on to what it prepared
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["qwen2.5-omni-7b", "qwen3-omni-30b-a3b"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no GPU")
    rows = []
    for name in arguments.models:
        rows += measured(name, arguments.batches, arguments.steps)
        gc.collect()
        torch.cuda.empty_cache()
        store(
            "plan",
            {
                "gpu": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "chunk_s": CHUNK_S,
                "rows": rows,
            },
        )
    table = Table("model", "batch", "tokens", "planned GB", "measured GB", "s a step", "MFU")
    for row in rows:
        table.add_row(
            row["model"],
            str(row["batch"]),
            str(row["tokens"]),
            f"{row['planned']['total'] / 1e9:.1f}",
            f"{row['measured'] / 1e9:.1f}",
            f"{row['step_s']:.2f}",
            f"{row['mfu']:.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
