"""`speaker-reasoner export`: dialogues for another trainer, a model for another server."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .arguments import check_new

_EXAMPLES = """examples:
  speaker-reasoner export swift my.toml -o swift
  NPROC_PER_NODE=8 swift/sft.sh runs/swift
  NPROC_PER_NODE=8 swift/megatron.sh runs/swift
  speaker-reasoner export vllm runs/small/stage-3 -o served
  speaker-reasoner transcribe meeting.wav --engine vllm --model served

swift takes the corpora, profile, stages and seed of CONFIG. DIR holds all that ms-swift 4.6 needs, and
can be copied to where it runs.

vllm takes a MODEL, a folder or hub id, and writes it in the layout of the published checkpoints, a LoRA
adapter merged: the thinker as a part of a whole model, with a processor. vLLM does not load a thinker alone.
"""


def add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "export",
        help="training dialogues for ms-swift, or a model for vLLM",
        description="swift: write the dialogues of a configuration's stages, with their audio, for "
        "another trainer.\nWhat cannot be used is left out, counted and reported. vllm: write a model so that "
        "vLLM loads it.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("kind", choices=("swift", "vllm"), metavar="KIND", help="swift or vllm")
    add(
        "source",
        metavar="CONFIG|MODEL",
        help="swift: a TOML file with prepared corpora, as of train; vllm: a model's folder or hub id",
    )
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="a new folder")
    add("--strict", action="store_true", help="swift: stop at the first fault")
    add(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="vllm: of the weights (default: as the model's configuration says)",
    )
    command.set_defaults(run=_export, parser=command)


def _export(arguments: argparse.Namespace) -> int:
    for option, kind in (("strict", "swift"), ("dtype", "vllm")):
        if getattr(arguments, option) and arguments.kind != kind:
            arguments.parser.error(f"--{option} is of {kind}; got {arguments.kind}")
    side = Console(stderr=True, highlight=False, soft_wrap=True)
    (_export_corpora if arguments.kind == "swift" else _export_model)(arguments, side)
    side.print(f"wrote {arguments.output}", style="green", markup=False)
    return 0


def _export_model(arguments: argparse.Namespace, side: Console) -> None:
    import torch
    from transformers.utils import logging

    from ..train.published import publish

    folder = arguments.output
    check_new(folder)
    logging.disable_progress_bar()
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    with side.status("writing the weights"):
        publish(None if arguments.source == "tiny" else arguments.source, folder, dtype)


def _export_corpora(arguments: argparse.Namespace, side: Console) -> None:
    from ..train.config import load_config
    from ..train.export import export_corpora

    config = load_config(arguments.source)
    with side.status("reading") as status:
        report = export_corpora(
            config,
            arguments.output,
            strict=arguments.strict,
            progress=lambda name: status.update(Text(name)),
        )
    written = report["written"]
    table = Table("file", "dialogues", "turns")
    for name, count in written["dialogues"].items():
        table.add_row(f"{name}.jsonl", str(count), str(written["turns"][name]))
    side.print(table)
    side.print(f"audio: {written['audio_files']} files, {written['audio_hours']:.2f} h")
    if written["loud_samples"]:
        side.print(f"{written['loud_samples']} samples were beyond full scale", style="yellow")
    for reason, count in report["left_out"].items():
        side.print(f"left out: {count} pieces: {reason}", style="yellow", markup=False)
    for reason, entry in report["dropped"].items():
        side.print(f"dropped: {reason}: {entry['count']}", style="red", markup=False)
        for message in entry["first"]:
            side.print(f"  {message}", style="dim", markup=False)
