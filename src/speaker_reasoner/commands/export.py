"""`speaker-reasoner export`: the dialogues of a configuration, for other trainers."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

_EXAMPLES = """examples:
  speaker-reasoner export swift my.toml -o swift
  NPROC_PER_NODE=8 swift/sft.sh runs/swift
  NPROC_PER_NODE=8 swift/megatron.sh runs/swift

swift takes the corpora, profile, stages and seed of CONFIG. DIR holds all that ms-swift 4.6 needs, and
can be copied to where it runs.
"""


def add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "export",
        help="training dialogues for ms-swift",
        description="Write the dialogues of a configuration's stages, with their audio, for another "
        "trainer. What\ncannot be used is left out, counted and reported.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("trainer", choices=("swift",), metavar="TRAINER", help="swift")
    add("config", metavar="CONFIG", help="a TOML file with prepared corpora, as of train")
    add("-o", "--output", metavar="DIR", type=Path, required=True, help="a new folder")
    add("--strict", action="store_true", help="stop at the first fault")
    command.set_defaults(run=_export, parser=command)


def _export(arguments: argparse.Namespace) -> int:
    from ..train.config import load_config
    from ..train.export import export_corpora

    side = Console(stderr=True, highlight=False, soft_wrap=True)
    config = load_config(arguments.config)
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
    side.print(f"wrote {arguments.output}", style="green", markup=False)
    return 0
