"""`speaker-reasoner merge`: a LoRA adapter and its base, or several models, to one."""

import argparse
from pathlib import Path

from rich.console import Console

from .arguments import check_new, shares

_EXAMPLES = """examples:
  speaker-reasoner merge runs/omni-7b/stage-3 -o merged
  speaker-reasoner merge runs/a/stage-3 runs/b/stage-3 -o mean
  speaker-reasoner merge before after --shares 0.3,0.7 -o mean
"""


def add_merge(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "merge",
        help="a LoRA adapter and its base, or several models, to one",
        description="Of one MODEL, a LoRA adapter: add it to the weights of its base, and write the\n"
        "thinker as a model of its own. Of several that began from one: write the mean of their\n"
        "weights. A voice head is of one tower, and is left out; train one by\n"
        "`speaker-reasoner train CONFIG --stage voice --from DIR`.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("models", metavar="MODEL", nargs="+", help="folder or hub id")
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="a new folder")
    add(
        "--shares",
        metavar="S,S,...",
        type=shares,
        help="how much each of several models counts (default: as much as any other)",
    )
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="default: bfloat16")
    command.set_defaults(run=_merge, parser=command)


def _merge(arguments: argparse.Namespace) -> int:
    import torch
    from transformers.utils import logging

    from ..train.merging import mean, merge

    models, folder = arguments.models, arguments.output
    if len(models) == 1 and arguments.shares:
        arguments.parser.error("--shares are of several models; an adapter is added as it is")
    if arguments.shares and len(arguments.shares) != len(models):
        arguments.parser.error(f"--shares: got {len(arguments.shares)}, expected {len(models)}")
    check_new(folder)
    logging.disable_progress_bar()
    dtype = getattr(torch, arguments.dtype)
    if len(models) == 1:
        merge(models[0], folder, dtype)
    else:
        mean(models, folder, arguments.shares or (), dtype)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"wrote {folder}", style="green", markup=False)
    return 0
