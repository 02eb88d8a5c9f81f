"""`speaker-reasoner merge`: a LoRA adapter and its base, or several models, to one."""

import argparse
from pathlib import Path

from rich.console import Console

from ..errors import CheckpointError, OutputError
from .arguments import shares

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
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    models, folder = arguments.models, arguments.output
    if len(models) == 1 and arguments.shares:
        arguments.parser.error("--shares are of several models; an adapter is added as it is")
    if arguments.shares and len(arguments.shares) != len(models):
        arguments.parser.error(f"--shares: got {len(arguments.shares)}, expected {len(models)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: is there already; choose a new folder for -o")
    if len(models) == 1:
        merge(models[0], folder, arguments.dtype)
    else:
        import torch

        from ..train.mean import mean

        mean(models, folder, arguments.shares or (), getattr(torch, arguments.dtype))
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"wrote {folder}", style="green", markup=False)
    return 0


def merge(adapter: str | Path, folder: Path, dtype: str = "bfloat16") -> None:
    """Merge an adapter.

    Args:
        adapter: folder or hub id.
        folder: of the merged model.
        dtype: `bfloat16` or `float32`, of the merged weights.

    Raises:
        CheckpointError: it is no adapter, or does not fit its base.
        OutputError: the folder cannot be written.
    """
    import torch

    from ..engines.adapter import merge_adapter
    from ..engines.checkpoint import find_checkpoint, load_thinker
    from ..train.saves import replace_folder
    from ..train.scratch import save_checkpoint

    found = find_checkpoint(adapter)
    if found.adapter is None:
        raise CheckpointError(
            f"{found.folder}: is a model already, expected a LoRA adapter, or "
            "several models to take the mean of"
        )
    thinker = load_thinker(found, getattr(torch, dtype))
    merge_adapter(thinker, found.folder, found.adapter)
    profile = found.profile()

    def write(path: Path) -> None:
        save_checkpoint(path, thinker, found.tokenizer, found.extractor)
        if profile is not None:
            profile.save(path)

    replace_folder(folder, write)
