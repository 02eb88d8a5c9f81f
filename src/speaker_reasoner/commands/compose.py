"""`speaker-reasoner compose`: a thinker of a Whisper's encoder and a language model."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .arguments import check_new
from .transcribe import check_output

if TYPE_CHECKING:
    from ..train.compose import Design

_EXAMPLES = """examples:
  speaker-reasoner compose --audio openai/whisper-base --text Qwen/Qwen2.5-0.5B -o runs/small/base
  speaker-reasoner compose --audio WHISPER --text SmolLM2-135M.Q4_1.gguf -o DIR --dry-run
"""


def add_compose(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "compose",
        help="a thinker to be trained, of a Whisper and a language model",
        description="Make a Qwen2.5-Omni thinker of the encoder of a Whisper and a language model of the "
        "family of Llama\nor Qwen2. The projector between them is new, so the result is to be trained: "
        "`speaker-reasoner train small`.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("--audio", metavar="WHISPER", required=True, help="folder or hub id of a Whisper")
    add(
        "--text",
        metavar="LLM",
        required=True,
        help="folder or hub id of a language model, or FILE.gguf (on the hub OWNER/NAME/FILE.gguf)",
    )
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="a new folder")
    add("--seed", metavar="N", type=_seed, default=1, help="of the projector (default: 1)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    add("--dry-run", action="store_true", help="check the parts, say the sizes, write nothing")
    command.set_defaults(run=_compose, parser=command)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a whole number below 2^32, got {text!r}")
    return int(text)


def _compose(arguments: argparse.Namespace) -> int:
    import torch
    from transformers.utils import logging

    from ..train.compose import compose, design
    from ..train.parts import read_parts

    folder = arguments.output
    check_output(folder)
    check_new(folder)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    side = Console(stderr=True, highlight=False, soft_wrap=True)
    plan = design(read_parts(arguments.audio, arguments.text))
    dtype = getattr(torch, arguments.dtype)
    side.print(_sizes(plan, dtype.itemsize))
    for option, name in zip(("--audio", "--text"), plan.parts.licences, strict=True):
        if not name:
            side.print(
                f"warning: {option}: no licence is stated; look it up before you publish the result",
                style="yellow",
                markup=False,
            )
    if arguments.dry_run:
        return 0
    compose(
        plan,
        folder,
        seed=arguments.seed,
        dtype=dtype,
        progress=lambda text: side.print(text, markup=False),
    )
    side.print(f"wrote {folder}", style="green", markup=False)
    return 0


def _sizes(plan: "Design", width: int) -> Table:
    counts, text = plan.shape.parameters, plan.shell.config.text_config
    table = Table("part", title="composed thinker")
    table.add_column("million parameters", justify="right")
    table.add_column("GB", justify="right")
    for name, count in (
        ("audio tower and projector", counts.audio),
        ("text model", counts.text - counts.embeddings),
        ("embeddings", counts.embeddings),
        ("total", counts.total),
    ):
        table.add_row(name, f"{count / 1e6:,.1f}", f"{count * width / 1e9:.2f}")
    licences = " and ".join(name or "not stated" for name in plan.parts.licences)
    table.caption = (
        f"window of {plan.window_s:g} s, {plan.parts.whisper.num_mel_bins} mel bins; "
        f"{text.max_position_embeddings} positions, {text.vocab_size} tokens ({len(plan.added)} of them new); "
        f"licences: {licences}"
    )
    return table
