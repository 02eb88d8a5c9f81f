"""`--system NAME` of `transcribe` and `evaluate run`, and `speaker-reasoner systems`, which lists them."""

import argparse
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding

from .arguments import positive, speakers, usage

if TYPE_CHECKING:
    from ..systems.asking import How
    from ..systems.base import System, SystemOptions
    from ..systems.table import SystemEntry

_OF_ENGINES = (
    *("prompts", "recogniser", "diarizer", "dtype", "engine", "cache", "voices"),
    *("answer", "constraint", "send_audio", "vad"),
)
_MB = 1e6
_FLAC_BYTES_S = 18_000
"""Bytes a second of speech at 16 kHz as FLAC (assumed)."""


def add_systems(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "systems",
        help="the systems that --system names: what each needs",
        description="List the systems that `transcribe --system` and `evaluate run --system` name.",
        epilog="examples:\n  speaker-reasoner systems\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_list, parser=command)


def _list(arguments: argparse.Namespace) -> int:
    from ..systems.table import ENGINE, HERE, PUBLISHED, SYSTEMS

    console = Console(highlight=False)
    for name, entry in SYSTEMS.items():
        gives = [*(["words"] if entry.words else []), *(["speakers"] if entry.speakers else [])]
        needs = [f"extra {entry.extra}" if entry.extra else "", entry.key_env]
        runs = {ENGINE: "here, by the dialogue", PUBLISHED: "nowhere: only published figures"}
        rows = {
            "runs": runs.get(entry.runs, "here" if entry.runs == HERE else "a service"),
            "needs": ", ".join(filter(None, needs)),
            "gives": "" if entry.runs == PUBLISHED else " and ".join(gives),
            "at once": "" if entry.limit_s is None else f"{entry.limit_s / 60:g} minutes",
            "licence": entry.licence,
            "note": entry.note,
        }
        console.print(f"[bold]{name}[/bold]: {entry.title}")
        for what, value in rows.items():
            if value:
                console.print(Padding(f"{what}: {value}", (0, 0, 0, 4)))
    return 0


def add_system(command: argparse.ArgumentParser, row: bool = False) -> None:
    """The options of other systems.

    Args:
        row: whether there is `--row`, the name of the row in tables.
    """
    add = command.add_argument_group("another system").add_argument
    add(
        "--system",
        metavar="NAME",
        help="what transcribes: see `speaker-reasoner systems`; --model, --language, --hotwords, --speakers, "
        "--base-url, --api-key-env, --retries and --timeout are for it, as far as it takes them (default: this "
        "package, with --model)",
    )
    if row:
        add(
            "--row",
            metavar="NAME",
            help="name of the row in tables (default: the model's or system's)",
        )
    add(
        "--at-once",
        metavar="N",
        type=positive,
        help="recordings that the system is asked about at once",
    )
    add("--rate", metavar="N", type=_above_0, help="most requests a minute (default: no limit)")
    add(
        "--longest-piece",
        metavar="S",
        type=_above_0,
        help="recordings that are longer are cut in pauses (default: the system's own limit)",
    )
    add(
        "--link",
        choices=("auto", "voices", "none"),
        default="auto",
        help="speakers of such pieces: linked by their voices (--witness), or each piece has its own "
        "(default: by voices, where a witness is installed)",
    )
    add(
        "--system-python",
        metavar="FILE",
        type=Path,
        help="the Python of the environment that has the system's libraries, where they do not fit into this one",
    )
    add("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    add("--price-per-hour", metavar="X", type=_above_0, help="of audio, for --dry-run")


def _above_0(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


@dataclass(frozen=True, slots=True)
class Chosen:
    """A system, and how it is asked.

    Attributes:
        name: a key of `table.SYSTEMS`.
    """

    name: str
    entry: "SystemEntry"
    arguments: argparse.Namespace

    def options(self) -> "SystemOptions":
        """The user's options for the system.

        Raises:
            SettingsError: its key is not set.
        """
        from ..systems.base import SystemOptions
        from ..systems.table import key_of

        given = self.arguments
        language = given.language
        if given.language_is_hint and not self.entry.languages:
            language = None
        python = given.system_python
        return SystemOptions(
            model=given.model,
            language=language,
            hotwords=given.hotwords,
            speakers=speakers(given),
            device=given.device,
            base_url=given.base_url,
            key=key_of(self.name, given.api_key_env),
            **({} if given.timeout is None else {"timeout_s": given.timeout}),
            python=None if python is None else str(python),
        )

    def load(self) -> "System":
        """Load the system; raises as `table.load`."""
        from ..systems.table import load

        return load(self.name, self.options())

    def how(self) -> "How":
        """Return the settings of requests to the system.

        Raises:
            SettingsError, CheckpointError: voices are to link, and the witness cannot be used.
        """
        from ..systems.asking import How

        given, limit_s = self.arguments, self.limit_s
        return How(
            at_once=given.at_once or self.entry.at_once,
            rate=given.rate,
            **({} if given.retries is None else {"retries": given.retries}),
            limit_s=limit_s,
            speakers=speakers(given),
            witness=None if limit_s is None else _witness(given),
            channel=given.channel,
            track=given.track,
        )

    @property
    def limit_s(self) -> float | None:
        """Longest recording that is sent as a whole, in seconds."""
        limits = (self.entry.limit_s, self.arguments.longest_piece)
        return min((limit for limit in limits if limit is not None), default=None)


def _witness(arguments: argparse.Namespace) -> Any:
    from ..engines.comparing import best_witness, load_witness
    from ..errors import SettingsError

    if arguments.link == "none" or arguments.witness == "none":
        return None
    if arguments.witness != "auto":
        return load_witness(arguments.witness)
    witness = best_witness()
    if witness is None and arguments.link == "voices":
        raise SettingsError(
            "--link voices: nothing that compares voices is installed; pip install ./packages/cascade, name "
            "one by --witness, or say --link none"
        )
    return witness


def chosen_system(arguments: argparse.Namespace) -> Chosen | None:
    """The system that was named; `None` where an engine of this package transcribes, whose `--model` is then set.

    Raises:
        SettingsError: there is no such system, it cannot be run, or options do not fit it.
    """
    from ..errors import SettingsError
    from ..systems.table import ENGINE, find

    name = arguments.system
    entry = None if name is None else find(name)
    if entry is None or entry.runs == ENGINE:
        given = [f"--{n.replace('_', '-')}" for n in _OF_SYSTEMS if getattr(arguments, n)]
        if given:
            usage(arguments, f"{', '.join(given)}: only for another --system than this package")
        if name == "cascade":
            kind = str(arguments.model or "cascade").partition("=")[0]
            if kind != "cascade" or arguments.engine or arguments.prompts:
                usage(
                    arguments, "--system cascade: leave out --model, or say --model cascade=WHISPER"
                )
            arguments.model = arguments.model or "cascade"
        return None
    defaults = {name: arguments.parser.get_default(name) for name in _OF_ENGINES}
    given = [n for n, default in defaults.items() if getattr(arguments, n) != default]
    given += ["voice"] if arguments.voice else []
    given += ["channels"] if arguments.channels == "separate" else []
    if given:
        shown = ", ".join(f"--{n.replace('_', '-')}" for n in given)
        raise SettingsError(f"{shown}: --system {name} has no use of it; leave it out")
    return Chosen(name, entry, arguments)


_OF_SYSTEMS = ("at_once", "rate", "longest_piece", "system_python", "dry_run", "price_per_hour")


def dry_run(chosen: Chosen, recordings: Iterable[tuple[str, float]], folder: Path | None) -> int:
    """Print what a system would be sent of recordings, `(name, seconds)`, with answers kept in `folder`."""
    from ..engines.client import Address
    from ..formats import file_name
    from ..systems.kept import ANSWERS
    from ..systems.table import SERVICE

    address, price = chosen.arguments.base_url, chosen.arguments.price_per_hour
    if address is not None:
        Address(address)  # it is one
    console, limit_s = Console(highlight=False, soft_wrap=True), chosen.limit_s
    requests, seconds, kept = 0, 0.0, 0
    for name, duration_s in recordings:
        pieces = 1 if limit_s is None else math.ceil(duration_s / limit_s)
        answers = None if folder is None else folder / ANSWERS / file_name(name)
        there = (
            0 if answers is None else sum((answers / f"{n}.json").exists() for n in range(pieces))
        )
        shown = f"{name}: {duration_s:.1f} s, {pieces} request{'s' if pieces != 1 else ''}"
        if there == pieces:
            kept += 1
            shown += "; already answered, not asked again if nothing has changed"
            console.print(shown, style="dim", markup=False)
            continue
        requests += pieces - there
        seconds += duration_s * (1 - there / pieces)
        console.print(shown, markup=False)
    about = f"about {requests} requests" if limit_s is not None else f"{requests} requests"
    model = f" ({chosen.arguments.model})" if chosen.arguments.model else ""
    console.print(
        f"to {chosen.name}{model}: {about}, {seconds / 3600:.3f} h of audio, about "
        f"{seconds * _FLAC_BYTES_S / _MB:.1f} MB; {kept} recordings are answered already",
        markup=False,
    )
    if chosen.entry.served and address is None:
        console.print("to no server yet: name it by --base-url, as http://localhost:8000/v1")
    if price is not None:
        console.print(f"cost: about {seconds / 3600 * price:.2f}, at {price:g} an hour")
    elif chosen.entry.runs != SERVICE and not chosen.entry.served and address is None:
        console.print("cost: none, it runs on this machine")
    else:
        console.print("cost: unknown; give the price of an hour of audio: --price-per-hour X")
    console.print("nothing was sent")
    return 0
