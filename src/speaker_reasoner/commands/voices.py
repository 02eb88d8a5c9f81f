"""`speaker-reasoner voices`: people whose voices are known by name."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import OutputError

if TYPE_CHECKING:
    from ..voices.store import VoiceStore
    from ..voices.witness import Witness

_EXAMPLES = """examples:
  speaker-reasoner voices add Ana ana.wav ana-2.flac
  speaker-reasoner voices list
  speaker-reasoner voices remove Ana --store shared/voices
"""


def add_voices(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "voices",
        help="people whose voices are known by name",
        description="Keep clips of people's voices. A clip holds one voice, 2 s of speech or more.",
        epilog=_EXAMPLES,
    )
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")
    add = _action(actions, "add", "add clips of a person", _add)
    add("name", metavar="NAME", help="as it shall stand in transcripts")
    add("clips", nargs="+", metavar="FILE", type=Path, help="wav, flac, mp3, ogg, m4a, ...")
    add(
        "--witness",
        metavar="NAME",
        help="check that no clip holds two voices and nobody is there twice: tower (of the embedded "
        "checkpoint), resemblyzer, xvector[=MODEL], speechbrain[=MODEL] (default: not checked)",
    )
    _action(actions, "list", "show who is there", _list)
    remove = _action(actions, "remove", "forget a person", _remove)
    remove("name", metavar="NAME", help="as the list shows it")


def _action(
    actions: Any, name: str, what: str, run: Callable[[argparse.Namespace], int]
) -> Callable[..., Any]:
    examples = [line for line in _EXAMPLES.splitlines() if line.split()[2:3] == [name]]
    parser = actions.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog="\n".join(["examples:", *examples]),
    )
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        type=Path,
        help="default: $SPEAKER_REASONER_VOICES, else a folder of the user's",
    )
    parser.set_defaults(run=run, parser=parser)
    add_argument: Callable[..., Any] = parser.add_argument
    return add_argument


def _add(arguments: argparse.Namespace) -> int:
    from ..voices.clips import load_clip
    from ..voices.store import check_name

    store, side = _store(arguments), Console(stderr=True, highlight=False, soft_wrap=True)
    name = check_name(arguments.name)
    clips = [load_clip(path) for path in arguments.clips]
    witness = _load_witness(arguments.witness) if arguments.witness else None
    added = store.add(name, clips)
    for clip in clips:
        if clip in added:
            used = f"{clip.speech_s:.1f} s of speech from {clip.start_s:.1f} s on"
            side.print(Text(f"{name}: {os.fspath(clip.path)!r}: {used}", "green"))
        else:
            side.print(Text(f"{name}: {os.fspath(clip.path)!r} is there already", "yellow"))
    if witness is not None:
        for sentence in _doubts(store, name, witness):
            side.print(Text.assemble(("warning: ", "bold yellow"), sentence))
    return 0


def _load_witness(name: str) -> "Witness | None":
    """A witness without an engine; `tower` is the embedded checkpoint's."""
    from transformers.utils import logging

    from .. import load_engine
    from ..engines.comparing import load_witness

    logging.disable_progress_bar()
    return load_engine("tiny").witness("tower") if name in ("auto", "tower") else load_witness(name)


def _doubts(store: "VoiceStore", name: str, witness: "Witness") -> list[str]:
    """A witness's warnings about the clips of a person, compared with everybody else's."""
    from ..voices.enrolment import doubts

    last = sorted(store.voices(), key=lambda voice: voice.name == name)
    people = {voice.name: [clip.load() for clip in voice.clips] for voice in last}
    return doubts(people, witness).get(name, [])


def _list(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    table = Table("name", title=Text(str(store.folder)))
    table.add_column("clips", justify="right")
    table.add_column("speech", justify="right")
    voices = store.voices()
    for voice in voices:
        table.add_row(Text(voice.name), str(len(voice.clips)), f"{voice.speech_s:.1f} s")
    if voices:
        Console(highlight=False).print(table)
    else:
        side = Console(stderr=True, highlight=False, soft_wrap=True)
        side.print(Text(f"nobody in {store.folder}; add somebody with: voices add NAME FILE"))
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    store.remove(arguments.name)
    side = Console(stderr=True, highlight=False, soft_wrap=True)
    side.print(Text(f"removed {arguments.name}", "green"))
    return 0


def _store(arguments: argparse.Namespace) -> "VoiceStore":
    from ..voices.store import VoiceStore, default_store

    folder = arguments.store or default_store()
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: got a file, expected a folder; choose another for --store")
    return VoiceStore(folder)
