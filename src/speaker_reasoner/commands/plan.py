"""`speaker-reasoner plan`: memory and time of a training run, from the model's config alone."""

import argparse
import json
import sys
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import DataError

if TYPE_CHECKING:
    from ..train.plan import Plan

_EXAMPLES = """examples:
  speaker-reasoner plan qwen3-omni-30b-a3b --gpus 8 --sharding fsdp --gradient-checkpointing
  speaker-reasoner plan qwen2.5-omni-7b --batch 2 --hours 200
  speaker-reasoner plan DIR --method full --gpus 8 --sharding zero3 --json
  speaker-reasoner plan omni-30b --gpus 8 --sharding fsdp
"""
_STYLES = {"fits": "bold green", "tight": "bold yellow", "does not fit": "bold red"}


def add_plan(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "plan",
        help="memory and time of training a model, before it is run",
        description="Compute from a model's config what training it takes: memory of each GPU, "
        "FLOPs, GPU-hours.\nNothing is loaded or allocated.",
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "model",
        metavar="MODEL|CONFIG",
        help="folder, config.json, qwen3-omni-30b-a3b or qwen2.5-omni-7b (published sizes), or a "
        "training configuration",
    )
    _add_training(command.add_argument_group("training"))
    _add_machine(command.add_argument_group("machine"))
    command.add_argument("--json", action="store_true", help="one JSON object, all in bytes")
    command.set_defaults(run=_plan, parser=command)


def _add_training(group: Any) -> None:
    add = partial(group.add_argument, default=argparse.SUPPRESS)  # absent unless it is given
    add("--method", choices=("lora", "full"), help="default: lora")
    add("--rank", metavar="R", type=int, help="of the adapters (default: 8)")
    add("--lora-experts", action="store_true", help="adapters on the routed experts as well")
    add("--batch", metavar="N", type=int, help="dialogues on a GPU, to 100,000 (default: 1)")
    add("--chunk-s", metavar="S", type=float, help="of a dialogue (default: 50)")
    add("--turns", metavar="N", type=int, help="observations (default: one each 5 s)")
    add("--gradient-checkpointing", action="store_true", help="compute layers again, keep less")
    add("--all-logits", action="store_true", help="logits at every token, not at taught ones")
    add("--dtype", choices=("bf16", "fp32"), help="default: bf16")
    add("--hours", metavar="H", type=float, help="audio of an epoch (default: 100)")


def _add_machine(group: Any) -> None:
    add = partial(group.add_argument, default=argparse.SUPPRESS)  # absent unless it is given
    add("--gpus", metavar="N", type=int, help="default: 1")
    add("--gpu-memory", metavar="GB", dest="gpu_memory_gb", type=float, help="default: 80")
    add("--head-room", metavar="SHARE", type=float, help="left free (default: 0.1)")
    add(
        "--sharding",
        choices=("none", "zero2", "zero3", "fsdp"),
        help="over the GPUs (default: none)",
    )
    add("--mfu", metavar="SHARE", type=float, help="of the peak (default: 0.35)")
    add(
        "--peak-tflops",
        metavar="T",
        type=float,
        help="of a GPU, dense bf16 (default: 312, an A100; an H100 SXM has 989)",
    )


def _plan(arguments: argparse.Namespace) -> int:
    from ..train.config import CONFIGS
    from ..train.plan import Setup, plan
    from ..train.shapes import load_model

    model: str = arguments.model
    settings: dict[str, Any] = {}
    if model.endswith(".toml") or (CONFIGS / f"{model}.toml").exists():
        model, settings = _configured(model)
    names = [field.name for field in fields(Setup)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    outcome = plan(load_model(model), Setup(**{**settings, **given}))
    if arguments.json:
        print(json.dumps(outcome.to_json(), indent=2))
    else:
        show(outcome, Console(highlight=False, soft_wrap=not sys.stdout.isatty()))
    return 0


def _configured(name: str) -> tuple[str, dict[str, Any]]:
    """Model and settings of a training configuration."""
    from ..train.config import load_config
    from ..train.shapes import PUBLISHED

    config = load_config(name)
    if config.corpora is None:
        raise DataError(f"{name}: trains from scratch; a plan is of a model that there is")
    model, run = config.model, config.run
    published = model.base.rpartition("/")[2].lower().removesuffix("-instruct")
    return published if published in PUBLISHED else model.base, {
        "method": model.method,
        "rank": model.lora.rank,
        "lora_experts": model.lora.experts,
        "batch": config.corpora.batch,
        "chunk_s": config.profile.chunk_s,
        "gradient_checkpointing": run.gradient_checkpointing,
        "dtype": "bf16" if run.bf16 else "fp32",
    }


def show(plan: "Plan", console: Console) -> None:
    """Print the tables of a plan, its verdict and its assumptions."""
    console.print(_parameters(plan))
    console.print(_memory(plan))
    setup, spoken, work = plan.setup, plan.dialogue, plan.time
    gpus = f"{setup.gpus} GPU{'s' if setup.gpus > 1 else ''} of {setup.gpu_memory_gb:g} GB"
    verdict = Text.assemble(
        (plan.verdict, _STYLES[plan.verdict]),
        f" on {gpus}, {setup.sharding if setup.gpus > 1 else 'no'} sharding, with "
        f"{setup.head_room:.0%} head room; largest batch that fits: {plan.largest_batch}",
    )
    console.print(verdict)
    how = "counted" if spoken.counted else "text estimated, no tokenizer at hand"
    console.print(
        f"dialogue: {setup.chunk_s:g} s in {spoken.turns} observations: {spoken.tokens} tokens "
        f"({spoken.audio_tokens} audio, {spoken.taught_tokens} taught; {how})"
    )
    console.print(
        f"time: {work.step_flops / 1e12:.1f} TFLOP and {work.step_s:.2f} s a step; "
        f"{setup.hours:g} h of audio are {work.steps} steps, {work.gpu_hours:.1f} GPU-hours"
    )
    for line in _assumptions(plan):
        console.print(f"  {line}", style="dim", markup=False)


def _parameters(plan: "Plan") -> Table:
    model, counts = plan.model, plan.model.parameters
    table = Table("parameters", title=Text(model.name))
    table.add_column("million", justify="right")
    rows = [
        ("audio tower", counts.audio),
        ("text: attention", counts.attention),
        ("text: MLP", counts.mlp),
        ("text: experts", counts.experts),
        ("  of them active for a token", counts.experts_active),
        ("text: router, norms", counts.router + counts.norms),
        ("embeddings", counts.embeddings),
        ("head" if counts.head else "head (tied to the embeddings)", counts.head),
        ("vision tower (frozen)", counts.vision),
        ("total", counts.total),
        ("thinker's text model, active", counts.text_active),
    ]
    for name, count in rows:
        if count or not name.strip().startswith(("text:", "of them")):
            table.add_row(name, _millions(count))
    rank = plan.setup.rank
    adapters = f"LoRA rank {rank}: attention{'' if counts.experts else ' and MLP'}"
    table.add_section()
    table.add_row(adapters, _millions(model.lora(rank, experts=False)))
    if counts.experts:
        table.add_row("  with the experts", _millions(model.lora(rank, experts=True)))
    table.add_row(f"trained here ({plan.setup.method})", _millions(plan.trained))
    return table


def _memory(plan: "Plan") -> Table:
    table = Table("memory of a GPU", title=f"batch {plan.setup.batch}")
    table.add_column("GB", justify="right")
    used = plan.memory
    rows = [
        ("weights", used.weights),
        ("gradients", used.gradients),
        ("optimiser (AdamW)", used.optimiser),
        ("communication", used.communication),
        ("activations: text", used.text),
        ("activations: audio", used.audio),
        ("on top: logits or a layer", used.peak),
    ]
    for name, size in rows:
        table.add_row(name, f"{size / 1e9:.2f}")
    table.add_section()
    table.add_row("total", f"{used.total / 1e9:.2f}")
    return table


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _assumptions(plan: "Plan") -> list[str]:
    from ..train.shapes import CHARACTERS_PER_TOKEN, WORDS_PER_S

    setup, counts = plan.setup, plan.model.parameters
    lines = [
        f"assumed: {WORDS_PER_S:g} words a second; {setup.mfu:.0%} of {setup.peak_tflops:g} TFLOP/s, "
        "work done twice counted, time on the wire not; fused attention, no padding"
    ]
    if not plan.dialogue.counted:
        lines.append(f"assumed: {CHARACTERS_PER_TOKEN:g} characters a token; digits are one each")
    if counts.experts and setup.method == "lora":
        adapted = "adapted" if setup.lora_experts else "not adapted; --lora-experts adapts them"
        lines.append(f"experts are {adapted}")
    if counts.experts:
        lines.append("a mixture's many small products reach less of the peak than dense layers do")
    return lines
