"""`speaker-reasoner merge`: a LoRA adapter and its base to one model."""

import argparse
from pathlib import Path

from rich.console import Console

from ..errors import CheckpointError, OutputError

_EXAMPLES = """examples:
  speaker-reasoner merge runs/omni-7b/stage-3 -o merged
"""


def add_merge(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "merge",
        help="a LoRA adapter and its base to one model",
        description="Add a LoRA adapter to the weights of its base, and write the thinker as a model of\n"
        "its own.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("adapter", metavar="ADAPTER", help="folder or hub id")
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="a new folder")
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="default: bfloat16")
    command.set_defaults(run=_merge, parser=command)


def _merge(arguments: argparse.Namespace) -> int:
    merge(arguments.adapter, arguments.output, arguments.dtype)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"wrote {arguments.output}", style="green", markup=False)
    return 0


def merge(adapter: str | Path, folder: Path, dtype: str = "bfloat16") -> None:
    """Merge an adapter.

    Args:
        adapter: folder or hub id.
        folder: of the merged model; it must not exist, or be empty.
        dtype: `bfloat16` or `float32`, of the merged weights.

    Raises:
        CheckpointError: it is no adapter, or does not fit its base.
        OutputError: the folder is not empty, or cannot be written.
    """
    import torch

    from ..engines.adapter import merge_adapter
    from ..engines.checkpoint import find_checkpoint, load_thinker
    from ..train.saves import replace_folder
    from ..train.scratch import save_checkpoint

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already; choose a new folder for -o")
    found = find_checkpoint(adapter)
    if found.adapter is None:
        raise CheckpointError(f"{found.folder}: is a model already, expected a LoRA adapter")
    thinker = load_thinker(found, getattr(torch, dtype))
    merge_adapter(thinker, found.folder, found.adapter)
    profile = found.profile()

    def write(path: Path) -> None:
        save_checkpoint(path, thinker, found.tokenizer, found.extractor)
        if profile is not None:
            profile.save(path)

    replace_folder(folder, write)
