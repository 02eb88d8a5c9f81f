"""Options and display of scores, for `evaluate score` and `evaluate run`: normalisation, UEM, jobs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..cores import usable_cores
from .arguments import positive

if TYPE_CHECKING:
    from ..evaluate.normalisation import Normalisation

STEPS = (
    *("nfkc", "lower", "simplified", "numbers"),
    *("characters", "punctuation", "fillers", "erhua"),
)
"""The switches of `Normalisation`, in its order; it is imported when a command runs."""
TOOLS = ("sclite", "md-eval", "dscore", "whisper")
"""The keys of `YARDSTICKS`, which is imported when a command runs."""


def add_uem(verb: argparse.ArgumentParser) -> None:
    """Add `--uem`."""
    verb.add_argument(
        "--uem",
        metavar="FILE",
        type=Path,
        help="score only the stretches of recordings that it lists (NIST's UEM)",
    )


def add_jobs(verb: argparse.ArgumentParser) -> None:
    """Add `--jobs`."""
    verb.add_argument(
        "--jobs",
        metavar="N",
        type=positive,
        default=usable_cores(),
        help="processes that score many recordings (default: as many as there are cores to use)",
    )


def add_normalisation(verb: argparse.ArgumentParser) -> None:
    """Add the options that `normalisation` reads."""
    group = verb.add_argument_group("text normalisation (both sides alike; stored with the scores)")
    group.add_argument("--language", metavar="CODE", help="en, zh, ...; default: auto")
    group.add_argument(
        "--normalise",
        metavar="STEPS",
        type=_steps,
        help=f"comma-separated steps, or none: {', '.join(STEPS)}",
    )


def _steps(text: str) -> list[str]:
    chosen = [] if text == "none" else [step.strip() for step in text.split(",")]
    for step in chosen:
        if step not in STEPS:
            raise argparse.ArgumentTypeError(f"unknown step {step!r}; known: {', '.join(STEPS)}")
    return chosen


def normalisation(arguments: argparse.Namespace) -> "Normalisation":
    """Choose the normalisation of both sides' words, from the user's options."""
    from ..evaluate.normalisation import Normalisation

    chosen: dict[str, Any] = {}
    if arguments.language is not None:
        chosen["language"] = arguments.language
    if arguments.normalise is not None:
        chosen |= {step: step in arguments.normalise for step in STEPS}
    return Normalisation(**chosen)


def show(result: dict[str, Any], output: Path | None) -> None:
    """Print the scores and warnings of a result, and store it in `output`."""
    from ..evaluate.inputs import summed_up
    from ..evaluate.results import save, summary

    console = Console(highlight=False)
    console.print(summary(result))
    settings = result["settings"]["normalisation"]
    steps = ", ".join(name for name, on in settings.items() if on is True) or "none"
    rules = result["settings"].get("as")
    if rules is not None:
        console.print(f"as {rules['tool']}: {rules['rules']}", style="dim")
    if rules is None or rules["tool"] != "whisper":
        console.print(f"normalisation: {steps}; language {settings['language']}", style="dim")
    if result["kept"]:
        count = f"{result['kept']} of {len(result['recordings'])}"
        console.print(f"counts of {count} recordings are those stored before", style="dim")
    for line in summed_up(result["warnings"]):
        say(f"warning: {line}", "yellow")
    if output is not None:
        save(result, output)
        say(f"wrote {output}", "green")


def say(message: str, style: str) -> None:
    """Print a line to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(message, style=style, markup=False)
