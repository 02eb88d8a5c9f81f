"""`speaker-reasoner evaluate`: score, run, table, report, compare, leaderboard."""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ..errors import DataError
from ..extras import require
from .arguments import add_model, add_options, lengths, load_quietly, options, usage
from .inputs import STDIN, add_addresses, limits, transcript
from .scoring import TOOLS, add_jobs, add_normalisation, add_uem, normalisation, say, show
from .systems import Chosen, add_system, chosen_system, dry_run

if TYPE_CHECKING:
    from ..evaluate.running import Excerpt

_LIBRARIES = ("meeteval", "rapidfuzz", "scipy")

_EXAMPLES = """examples:
  speaker-reasoner evaluate score reference.stm hypothesis/ -o mine.json
  speaker-reasoner evaluate run --data meetings/ --segmented 40-50 -o out
  speaker-reasoner evaluate run --data manifest.jsonl --long-form -o out --model DIR
  speaker-reasoner evaluate run --data manifest.jsonl --system elevenlabs -o out --dry-run
  speaker-reasoner evaluate table segmented out/evaluation.json
  speaker-reasoner evaluate report out/evaluation.json -o report.html
  speaker-reasoner evaluate compare a.json b.json --metric cpwer
  speaker-reasoner evaluate leaderboard runs/*/evaluation.json -o leaderboard.html
"""
_GENDER_HELP = "read genders from speaker ids: 001-M (suffix, AISHELL-4) or FEE005 (prefix, AMI)"


def add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its verbs."""
    command = commands.add_parser(
        "evaluate",
        help="score transcripts, run a data set, tables, a report, significance",
        description="Evaluate transcripts of any system against references.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = command.add_subparsers(title="verbs", required=True, metavar="VERB")
    _add_score(verbs)
    _add_run(verbs)
    _add_table(verbs)
    _add_report(verbs)
    _add_compare(verbs)
    _add_leaderboard(verbs)


def _verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """A verb's parser; its help shows the examples of the verb alone."""
    own = [line for line in _EXAMPLES.splitlines() if line.split()[1:3] == ["evaluate", name]]
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        epilog="\n".join(["examples:", *own]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_score(verbs: Any) -> None:
    verb = _verb(verbs, "score", "score hypotheses against references")
    sources = "file, folder, pattern such as 'ref/*.stm', https:// address, or - for standard input"
    verb.add_argument("reference", help=sources)
    verb.add_argument("hypothesis", help="the same")
    by = "default: by the file's name and content"
    verb.add_argument("--reference-format", metavar="NAME", help=by)
    verb.add_argument("--hypothesis-format", metavar="NAME", help=by)
    add_addresses(verb.add_argument)
    verb.add_argument("--gender-from", choices=("suffix", "prefix"), help=_GENDER_HELP)
    verb.add_argument("--encoding", metavar="NAME", help="of both sides; default: UTF-8 or UTF-16")
    verb.add_argument(
        "--as",
        dest="yardstick",
        choices=TOOLS,
        metavar="TOOL",
        help=f"score by the rules of another tool, where figures must match published ones: {', '.join(TOOLS)}",
    )
    add_uem(verb)
    verb.add_argument(
        "--lost",
        action="store_true",
        help="sessions without a hypothesis are scored as if it were empty, not an error",
    )
    verb.add_argument(
        "--row",
        "--system",
        metavar="NAME",
        help="name of the row in tables (default: the hypothesis's name)",
    )
    verb.add_argument("--data-name", metavar="NAME", help="default: the reference's name")
    verb.add_argument(
        "--unit",
        metavar="whole|A-B",
        type=_unit,
        help="the unit that the system transcribed at once: whole recordings, or pieces of A to B s; it is "
        "stored, and tables state it",
    )
    verb.add_argument("-o", "--output", metavar="FILE", type=Path, help="store the result as JSON")
    add_jobs(verb)
    add_normalisation(verb)
    verb.set_defaults(run=_score, parser=verb)


def _add_run(verbs: Any) -> None:
    verb = _verb(verbs, "run", "transcribe a data set and score it; resumes after a kill")
    add = verb.add_argument
    add(
        "--data",
        metavar="PATH",
        type=Path,
        required=True,
        help="folder of recordings with references beside them, or a manifest: JSON lines with "
        "audio, reference and perhaps name",
    )
    add(
        "-o",
        "--output",
        "--output-dir",
        dest="output",
        metavar="DIR",
        type=Path,
        required=True,
        help="transcripts and result",
    )
    how = verb.add_mutually_exclusive_group()
    how.add_argument(
        "--segmented", metavar="A-B", type=lengths, help="cut recordings into pieces of A to B s"
    )
    how.add_argument("--long-form", action="store_true", help="whole recordings (the default)")
    add("--data-name", metavar="NAME", help="default: the data's name")
    add_model(verb)
    add_options(verb, batch=8, language=False)
    add_system(verb, row=True)
    add_uem(verb)
    add_jobs(verb)
    add_normalisation(verb)
    verb.set_defaults(run=_run, parser=verb)


def _add_table(verbs: Any) -> None:
    verb = _verb(verbs, "table", "a table of the paper with stored results as rows")
    tables = ("multi-domain", "segmented", "long-form", "attributes", "elsewhere")
    verb.add_argument("table", choices=tables, metavar="TABLE", help=", ".join(tables))
    verb.add_argument("results", nargs="*", type=Path, metavar="RESULT")
    verb.add_argument("--style", choices=("terminal", "markdown", "latex"), default="terminal")
    verb.set_defaults(run=_table, parser=verb)


def _add_report(verbs: Any) -> None:
    verb = _verb(verbs, "report", "one HTML file: summary, recordings, errors in pictures")
    verb.add_argument("result", type=Path, metavar="RESULT")
    verb.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)
    verb.set_defaults(run=_report, parser=verb)


def _add_compare(verbs: Any) -> None:
    verb = _verb(verbs, "compare", "paired bootstrap between two results")
    verb.add_argument("a", type=Path, metavar="RESULT_A")
    verb.add_argument("b", type=Path, metavar="RESULT_B")
    verb.add_argument("--metric", choices=("wer", "cpwer", "der_0", "der_025"), default="cpwer")
    verb.set_defaults(run=_compare, parser=verb)


def _add_leaderboard(verbs: Any) -> None:
    verb = _verb(verbs, "leaderboard", "one page: all systems over all data sets, with intervals")
    verb.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULT",
        help="results, or folders of `evaluate run`",
    )
    verb.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        required=True,
        action="append",
        help="a name that ends in .html, .json or .md; may be given several times",
    )
    verb.set_defaults(run=_leaderboard, parser=verb)


def _unit(text: str) -> Any:
    return text if text == "whole" else lengths(text)


def _mode(unit: Any) -> str | None:
    return None if unit is None else "long-form" if unit == "whole" else "segmented"


def _score(arguments: argparse.Namespace) -> int:
    from ..evaluate.inputs import read_sides
    from ..evaluate.pairs import pair
    from ..evaluate.results import evaluate, stored_before
    from ..evaluate.yardsticks import YARDSTICKS

    require("eval", "scoring", *_LIBRARIES)
    named = (arguments.reference, arguments.hypothesis)
    if named == (STDIN, STDIN):
        usage(arguments, "standard input can be one side only: expected a file as the other")
    chosen = normalisation(arguments)
    yardstick = YARDSTICKS[arguments.yardstick] if arguments.yardstick else None
    if yardstick is not None and yardstick.normalisation is not None:
        if arguments.normalise is not None:
            usage(
                arguments, f"--as {yardstick.name} has its own normalisation: leave out --normalise"
            )
        chosen = yardstick.normalisation(chosen.language)
    read = {
        "reference": {
            "format": arguments.reference_format,
            "encoding": arguments.encoding,
            "gender_from": arguments.gender_from,
        },
        "hypothesis": {"format": arguments.hypothesis_format, "encoding": arguments.encoding},
    }
    with ExitStack() as stack:
        reference, hypothesis = (transcript(name, stack, **limits(arguments)) for name in named)
        sides = read_sides(reference, hypothesis, read, arguments.uem)
    pairs = pair(sides.references, sides.hypotheses, lost=arguments.lost)
    if yardstick is not None:
        pairs = [yardstick.pair(one) for one in pairs]
    result = evaluate(
        pairs,
        chosen,
        system=arguments.row or hypothesis.name,
        data=arguments.data_name or reference.name,
        mode=_mode(arguments.unit),
        warnings=sides.warnings,
        stored=stored_before(arguments.output),
        quiet=not sys.stderr.isatty(),
        jobs=arguments.jobs,
    )
    result["reference"], result["hypothesis"] = named
    result["settings"]["read"] = read
    if yardstick is not None:
        result["settings"]["as"] = {"tool": yardstick.name, "rules": yardstick.rules}
    if arguments.unit not in (None, "whole"):
        result["settings"]["pieces_s"] = arguments.unit
    result["settings"]["uem"] = None if arguments.uem is None else str(arguments.uem)
    show(result, arguments.output)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from ..evaluate.inputs import noticed, of_uem
    from ..evaluate.pairs import pair
    from ..evaluate.results import evaluate, stored_before
    from ..evaluate.running import hypotheses, marked, read_data, units
    from ..formats import write

    require("eval", "scoring", *_LIBRARIES)  # before hours of transcribing
    chosen, other = normalisation(arguments), chosen_system(arguments)
    items, notes = read_data(arguments.data), list[str]()
    if arguments.uem is not None:
        items, notes = marked(items, arguments.uem)
    rows, clipped = units(items, arguments.segmented)
    if other is not None and arguments.dry_run:
        named = [(row.reference.recording, row.reference.duration_s) for row in rows]
        return dry_run(other, named, arguments.output / "hypotheses")
    ran, made_by, settings = _ran(arguments, rows) if other is None else _asked(other, rows)
    for name, message in ran["notes"].items():
        say(f"{name}: {message}", "yellow")
    for name, failure in ran["failures"].items():
        message = failure["message"].removeprefix(f"{name}: ")
        say(f"{name}: {failure['reason']}: {message}", "red")
    if clipped:
        say(f"{clipped} segments were clipped: there was no pause where a cut had to be", "yellow")
    references = {row.reference.recording: row.reference for row in rows}
    for reference in references.values():
        write(reference, arguments.output / "references", ["json"])
    made = hypotheses(arguments.output)
    pairs = pair(references, made, lost=True)
    result = evaluate(
        pairs,
        chosen,
        system=arguments.row or arguments.system or str(made_by.get("model", "unknown")),
        data=arguments.data_name or arguments.data.stem,
        mode="segmented" if arguments.segmented else "long-form",
        of={row.reference.recording: row.item.reference.recording for row in rows},
        stored=stored_before(arguments.output / "evaluation.json"),
        warnings=[
            *of_uem(notes),
            *noticed("reference", references.values()),
            *noticed("hypothesis", made.values()),
        ],
        words=other is None or other.entry.words,
        quiet=not sys.stderr.isatty(),
        jobs=arguments.jobs,
    )
    result["made"]["engine"] = made_by
    result["settings"] |= {
        **settings,
        "pieces_s": arguments.segmented,
        "uem": None if arguments.uem is None else str(arguments.uem),
        "clipped_segments": clipped,
    }
    result["speed"], result["failures"] = ran["speed"], ran["failures"]
    if "usage" in ran:
        result["usage"] = ran["usage"]
    result["reference"] = str(arguments.output / "references")
    result["hypothesis"] = str(arguments.output / "hypotheses")
    show(result, arguments.output / "evaluation.json")
    return 1 if ran["failures"] else 0


_Ran = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""Outcome of a run (`speed`, `failures`, `notes`, perhaps `usage`), description of the system, and its settings."""


def _ran(arguments: argparse.Namespace, rows: "list[Excerpt]") -> _Ran:
    """Transcribe by an engine of this package."""
    from ..evaluate.running import transcribe

    chosen, engine = options(arguments), load_quietly(arguments)
    ran = transcribe(engine, rows, arguments.output, chosen)
    return ran, engine.describe(), chosen.to_json()


def _asked(other: Chosen, rows: "list[Excerpt]") -> _Ran:
    """Transcribe by another system."""
    from ..evaluate.running import ask

    system, how = other.load(), other.how()
    try:
        ran = ask(system, rows, other.arguments.output, how)
    finally:
        system.close()
    gives = {"speakers": other.entry.speakers, "words": other.entry.words}
    return ran, {"system": other.name, **system.describe()}, {**how.to_json(), "gives": gives}


def _table(arguments: argparse.Namespace) -> int:
    from ..evaluate.results import load_result
    from ..evaluate.tables import render

    results = [load_result(path) for path in arguments.results]
    text = render(arguments.table, results, arguments.style)
    if arguments.style == "terminal":
        Console(soft_wrap=True).print(Text.from_ansi(text))
    else:
        print(text)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from ..evaluate.inputs import read_sides
    from ..evaluate.pairs import pair
    from ..evaluate.report import report
    from ..evaluate.results import load_result
    from ..formats import legible, write_text_atomically

    require("eval", "a report", "rapidfuzz", "scipy")
    result = load_result(arguments.result)
    for side in ("reference", "hypothesis"):
        if not result[side] or not Path(result[side]).exists():
            raise DataError(
                f"{arguments.result}: its {side} {result[side]!r} is not there; call from the folder "
                "that the evaluation was made in, or score again"
            )
    read = result["settings"].get("read", {})
    uem = result["settings"].get("uem") if read else None  # a run's references follow it already
    sides = read_sides(Path(result["reference"]), Path(result["hypothesis"]), read, uem)
    pairs = pair(sides.references, sides.hypotheses, lost=True)
    both = {one.name: (one.reference, one.hypothesis) for one in pairs}
    title = f"{result['system']} on {result['data']}"
    write_text_atomically(arguments.output, legible(report(result, both, title)))
    say(f"wrote {arguments.output}", "green")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from ..evaluate.resampling import compare_results
    from ..evaluate.results import load_result
    from ..evaluate.stored import LABELS, unit_of

    a, b = load_result(arguments.a), load_result(arguments.b)
    comparison = compare_results(a, b, arguments.metric)
    console = Console(highlight=False)
    for key in ("as", "uem", "normalisation"):
        one, other = (result["settings"].get(key) for result in (a, b))
        if one != other:
            if key == "as":
                one, other = ((rules or {}).get("tool", "our own") for rules in (one, other))
            say(f"warning: A and B were scored by other rules: {key} {one} and {other}", "yellow")
    units = unit_of(a), unit_of(b)
    if units[0] != units[1]:
        say(f"warning: A and B are of different units: {units[0]} and {units[1]}", "yellow")
    label = LABELS[arguments.metric]
    console.print(f"{label} of A ({a['system']}): {100 * comparison.a:.2f} %")
    console.print(f"{label} of B ({b['system']}): {100 * comparison.b:.2f} %")
    low, high = comparison.interval
    console.print(
        f"A - B: {100 * comparison.difference:+.2f} points, 95 % interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}; A is better in {100 * comparison.a_better:.1f} % of {comparison.draws} draws"
    )
    return 0


def _leaderboard(arguments: argparse.Namespace) -> int:
    from ..evaluate.leaderboard import leaderboard
    from ..evaluate.leaderboard_files import EXPECTED, FORMATS, before, write

    for path in arguments.output:
        if path.suffix not in FORMATS:
            usage(arguments, f"-o {path}: {EXPECTED}")
    stored = next(filter(None, map(before, arguments.output)), None)
    board = leaderboard(arguments.results, stored)
    for path in arguments.output:
        write(board, path)
        say(f"wrote {path}", "green")
    return 0
