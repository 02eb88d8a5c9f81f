"""`speaker-reasoner prepare`: prepare a corpus for training and evaluation, and print some of its dialogues."""

import argparse
import re
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .arguments import lengths, positive

if TYPE_CHECKING:
    from ..data.corpora import CorpusPiece

_CORPORA = (
    *("aishell4", "alimeeting-far", "alimeeting-near", "ami-sdm", "ami-ihm-mix", "mlc-slm"),
    *("aishell5", "chime6", "dipco", "icsi-ihm-mix", "libricss", "notsofar1-sc"),
    *("voxconverse", "folder"),
)
_EXAMPLES = """examples:
  speaker-reasoner prepare aishell4 /corpora/aishell4 -o prepared/aishell4
  speaker-reasoner prepare ami-sdm /corpora/ami -o prepared/ami --preview 2
  speaker-reasoner prepare folder calls/ -o prepared/calls --reference calls.stm

folder takes audio with SegLST, STM, TextGrid, RTTM + CTM, or a manifest of lhotse.
"""
_TAUGHT, _GIVEN = "bold green", "bright_black"


def add_prepare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "prepare",
        help="a corpus for training and evaluation",
        description="Read a corpus, check it, cut its sessions into pieces. What cannot be used is "
        "left out,\ncounted and reported with file and line.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("corpus", choices=_CORPORA, metavar="CORPUS", help=", ".join(_CORPORA))
    add("folder", type=Path, metavar="DIR", help="where it lies")
    add("-o", "--output", metavar="OUT", type=Path, required=True)
    add(
        "--pieces",
        metavar="A-B",
        type=lengths,
        default=(40.0, 50.0),
        help="in s, of 1 to 3600 (default: 40-50)",
    )
    add("--channel", metavar="N", type=_number, help="of arrays, from 0 (default: the first)")
    add("--strict", action="store_true", help="stop at the first fault")
    add(
        "--shards",
        metavar="MB",
        type=positive,
        help="write the pieces with their audio to tar files of this size too, for training from a bucket",
    )
    add("--preview", metavar="N", type=_number, default=0, help="print N dialogues of the pieces")
    group = command.add_argument_group("annotation")
    group.add_argument(
        "--reference", metavar="PATH", type=Path, help="file or folder (folder; default: beside)"
    )
    group.add_argument(
        "--gender-from",
        choices=("suffix", "prefix"),
        help="of speaker ids: 001-M (suffix), FEE005 (prefix) (folder)",
    )
    group.add_argument("--encoding", metavar="NAME", help="default: UTF-8 or UTF-16")
    command.set_defaults(run=_prepare, parser=command)


def _number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _prepare(arguments: argparse.Namespace) -> int:
    from ..data.corpora import load_pieces, prepare

    side = Console(stderr=True, highlight=False, soft_wrap=True)
    with side.status("reading") as status:
        report = prepare(
            arguments.corpus,
            arguments.folder,
            arguments.output,
            pieces_s=arguments.pieces,
            channel=arguments.channel,
            strict=arguments.strict,
            reference=arguments.reference,
            gender_from=arguments.gender_from,
            encoding=arguments.encoding,
            shards_mb=arguments.shards,
            progress=lambda name: status.update(Text(name)),
        )
    _summarise(report, side)
    side.print(f"wrote {arguments.output}", style="green", markup=False)
    out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    left = arguments.preview
    for split in report["splits"]:
        annotated = (
            c for c in load_pieces(arguments.output / split / "pieces.jsonl") if c.references
        )
        for chunk in islice(annotated, left):
            preview(chunk, out)
            left -= 1
    return 0


def _summarise(report: dict[str, Any], console: Console) -> None:
    table = Table("split", "sessions", "hours", "segments", "female", "male", "unknown", "pieces")
    for split, counts in report["splits"].items():
        people = counts["speakers"]
        row = [counts["sessions"], counts["hours"], counts["segments"]]
        row += [people["female"], people["male"], people["unknown"], counts["pieces"]]
        table.add_row(split, *(str(value) for value in row))
    console.print(table)
    cut = sum(counts["clipped_segments"] for counts in report["splits"].values())
    if cut:
        console.print(f"{cut} segments were clipped: there was no pause where a cut had to be")
    if report["tags_removed"]:
        tags = ", ".join(f"{tag} {count}" for tag, count in report["tags_removed"].items())
        console.print(f"tags removed: {tags}", markup=False)
    for kind, style in (("changed", "yellow"), ("dropped", "red")):
        for reason, entry in report[kind].items():
            console.print(f"{kind}: {reason}: {entry['count']}", style=style, markup=False)
            for message in entry["first"]:
                console.print(f"  {message}", style="dim", markup=False)


def preview(chunk: "CorpusPiece", console: Console) -> None:
    """Print the dialogue over a chunk, its box plan and its loss mask.

    Lines that begin with `+` (green) are taught, the others (grey) are given.
    """
    from ..audio import SAMPLE_RATE_HZ
    from ..data.dialogues import dialogue
    from ..protocol import Answer, Audio, Profile
    from ..protocol import Text as Prompt
    from ..protocol.markup import MARKUP
    from ..protocol.observations import box_ticks, observations

    samples = chunk.end_samples - chunk.start_samples
    length_s = samples / SAMPLE_RATE_HZ
    hanzi = any(re.search("[一-鿿]", reference.text) for reference in chunk.references)
    profile = Profile(language="zh" if hanzi else "en", chunk_s=min(max(length_s, 1.0), 3600.0))
    console.rule(Text(f"{chunk.name}, {length_s:.2f} s of {chunk.audio}"))
    plan = Table("box", "s", "segments (speaker: s of the chunk)", title="box plan")
    for number, group in enumerate(observations(chunk.references), start=1):
        box = box_ticks(group, samples, profile)
        ticks = profile.ticks_per_s
        rows = [
            f"{r.speaker} {r.gender}: {r.start_samples / SAMPLE_RATE_HZ:.2f}-"
            f"{r.end_samples / SAMPLE_RATE_HZ:.2f}"
            for r in group
        ]
        plan.add_row(
            str(number), f"{box.start / ticks:.2f}-{box.end / ticks:.2f}", Text("\n".join(rows))
        )
    console.print(plan)
    written = Text.assemble(("+ taught", _TAUGHT), ("   given\n", _GIVEN))
    start = True
    for part in dialogue(chunk.references, samples, profile).parts:
        match part:
            case Prompt(text):
                mark, style = "  ", _GIVEN
            case Audio(first, last):
                text = f"({first / SAMPLE_RATE_HZ:.2f}-{last / SAMPLE_RATE_HZ:.2f} s of audio)"
                mark, style = "  ", _GIVEN
            case Answer(answer, closed=closed):
                text, mark, style = answer + MARKUP.end * closed, "+ ", _TAUGHT
        for line in text.splitlines(keepends=True):
            written.append((mark if start else "") + line if line.strip() else line, style)
            start = line.endswith("\n")
    console.print(written)
