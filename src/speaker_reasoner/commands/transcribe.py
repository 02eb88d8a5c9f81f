"""`speaker-reasoner transcribe`: speaker, gender, start, end and text of recordings."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..errors import AudioError, FormatError, OutputError, SpeakerReasonerError
from ..formats import FORMATS, file_name, render
from ..formats.table import unknown_format
from .arguments import add_model, add_options, load_quietly, options, usage
from .inputs import STDIN, add_addresses, doubled, limits, recordings
from .systems import Chosen, add_system, chosen_system, dry_run

if TYPE_CHECKING:
    from ..longform import Item, Options

_FILES = ("json", "txt")
EXAMPLES = """examples:
  speaker-reasoner transcribe meeting.wav
  speaker-reasoner transcribe *.flac -o out --format json,srt,rttm --batch 8
  speaker-reasoner transcribe meeting.wav --speakers 2-5 --voice "Ana=ana.wav" --voice "Bo=bo.wav"
  speaker-reasoner transcribe call.wav --channel 1 --format txt
  speaker-reasoner transcribe meeting.wav --model DIR --prompts prompt.json --device cuda
  speaker-reasoner transcribe meeting.wav --system elevenlabs -o out
  ffmpeg -i meeting.mkv -f flac - | speaker-reasoner transcribe - --format srt
"""


def add_transcribe(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "transcribe",
        help="speaker, gender, start, end and text of recordings",
        description="Transcribe recordings of any length. Lines appear as the dialogue with the "
        "model unfolds.\nWith -o, a run that was killed continues: repeat the command.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add(
        "recordings",
        nargs="+",
        metavar="FILE",
        help="wav, flac, mp3, ogg, m4a, mp4, ...; a folder of them, a pattern such as 'calls/*.wav', an "
        "https:// address, or - for standard input",
    )
    add_addresses(add)
    add(
        "-o",
        "--output",
        "--output-dir",
        dest="output",
        metavar="DIR",
        type=Path,
        help="write files there (default: json,txt)",
    )
    known = f"{', '.join(FORMATS)}; without -o, one format for standard output"
    add(
        "-f",
        "--format",
        "--output-format",
        dest="format",
        metavar="LIST",
        action="extend",
        type=_formats,
        help=known,
    )
    add("-q", "--quiet", action="store_true", help="only transcripts, warnings and errors")
    add("--verbose", dest="quiet", action="store_false", help="the contrary of --quiet (default)")
    add(
        "--stream",
        action="store_true",
        help="print lines as they are known, also where standard output is no terminal; speakers "
        "are provisional until the end",
    )
    add_model(command)
    add_options(command, batch=4)
    add_system(command)
    command.set_defaults(run=_transcribe, parser=command)


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(str(unknown_format(name, FORMATS)))
    if not names:
        raise argparse.ArgumentTypeError(f"no format given; known: {', '.join(FORMATS)}")
    return names


def _transcribe(arguments: argparse.Namespace) -> int:
    arguments.format = list(dict.fromkeys(arguments.format or ())) or None
    _check_usage(arguments)
    chosen, other = options(arguments), chosen_system(arguments)
    if arguments.output is not None:
        check_output(arguments.output)
    with ExitStack() as stack:
        items, errors = recordings(arguments.recordings, stack, **limits(arguments))
        _check_names(arguments, items)
        readable = _readable(items, errors)
        failed = len(items) + len(errors) - len(readable)
        if other is not None:
            formats = arguments.format or (_FILES if arguments.output is not None else ("txt",))
            return 1 if not readable or _run_system(other, readable, formats) or failed else 0
        return 1 if not readable or _run(arguments, chosen, readable) or failed else 0


def _run(arguments: argparse.Namespace, chosen: "Options", items: Sequence["Item"]) -> int:
    """Transcribe recordings by an engine; return how many failed."""
    from ..longform import Batch, Failure
    from .screen import Screen

    transcriber = chosen.transcriber(load_quietly(arguments, quiet=arguments.quiet))
    voices, failed, live = chosen.enrolled(transcriber), 0, _lines_live(arguments)
    output, formats = arguments.output, arguments.format or _FILES
    with (
        Batch(transcriber, output, formats, speakers=chosen.speakers, voices=voices) as batch,
        Screen([item.path for item in items], lines=live, quiet=arguments.quiet) as screen,
    ):
        for result in batch.run(items, screen.turn):
            path, transcript, text = result.item.path, result.outcome, ""
            if result.note:
                screen.say(path, result.note)
            if isinstance(transcript, Failure):
                screen.finish(path, None)
                screen.error(str(transcript.error))
                failed += 1
                continue
            screen.finish(path, transcript)
            failed += result.partial
            if transcript is None:
                screen.done_before(path)
            for file in result.files:
                screen.wrote(file)
            try:
                if transcript is not None and output is None and (arguments.quiet or not live):
                    text = render(transcript, (arguments.format or ["txt"])[0])
            except SpeakerReasonerError as error:
                screen.error(str(error))
                failed += 1
            print_all(text)
    return failed


def _run_system(chosen: Chosen, items: Sequence["Item"], formats: Sequence[str]) -> int:
    """Transcribe recordings by a system, to a folder or standard output; return how many failed."""
    from ..audio import probe
    from ..longform import Failure
    from ..systems.asking import Asking
    from ..systems.table import SERVICE
    from .screen import Screen

    arguments, failed = chosen.arguments, 0
    folder: Path | None = arguments.output
    if arguments.dry_run:
        return dry_run(chosen, [(i.title, probe(i.path).duration_s) for i in items], folder)
    if folder is None and chosen.entry.runs == SERVICE:
        say = Console(stderr=True, highlight=False, soft_wrap=True)
        say.print("the answer is not kept: add -o DIR to keep it", style="yellow")
    system = chosen.load()
    try:
        with (
            Asking(system, folder, chosen.how(), formats if folder is not None else ()) as asking,
            Screen([item.path for item in items], lines=False, quiet=arguments.quiet) as screen,
        ):
            for result in asking.run(items):
                path, transcript = result.item.path, result.outcome
                screen.finish(path, None)
                if result.note:
                    screen.say(path, result.note)
                if isinstance(transcript, Failure):
                    screen.error(f"{result.reason}: {transcript.error}")
                    failed += 1
                    continue
                screen.warnings(path, transcript)
                for file in result.files:
                    screen.wrote(file)
                if folder is None:
                    try:
                        print_all(render(transcript, formats[0]))
                    except FormatError as error:
                        screen.error(str(error))
                        failed += 1
    finally:
        system.close()
    return failed


_ONE_A_FILE = ("json", "srt", "vtt", "textgrid")


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.recordings.count(STDIN) > 1:
        usage(arguments, "standard input (-) can be read once")
    if arguments.output is None:
        if len(arguments.format or ()) > 1:
            usage(arguments, "several formats need a directory: add -o DIR")
        return
    if arguments.output == Path("-"):
        usage(arguments, "-o names a directory; leave it out for standard output")


def _check_names(arguments: argparse.Namespace, items: Sequence["Item"]) -> None:
    form = (arguments.format or ("txt",))[0]
    if arguments.output is None and len(items) > 1 and form in _ONE_A_FILE:
        usage(arguments, f"{form} holds one recording, and there are {len(items)}: add -o DIR")
    twice = doubled(file_name(item.title) for item in items)
    if arguments.output is not None and twice:
        paths = [str(item.path) for item in items if file_name(item.title) == twice[0]]
        usage(
            arguments,
            f"{twice[1]} recordings are named {twice[0]!r}, and their files need other names: rename one of "
            f"{', '.join(paths)}, or give them different directories",
        )


def check_output(directory: Path) -> None:
    """Make sure before any work that files can be written there; it is made with the first."""
    places = (directory, *directory.absolute().parents)
    there = next(path for path in places if os.path.lexists(path))
    if not there.is_dir():
        raise OutputError(f"{there}: got a file, expected a directory; choose another for -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there}: not writable; choose another directory for -o")


def _readable(items: Sequence["Item"], errors: Sequence[AudioError]) -> list["Item"]:
    """The recordings that can be opened; the others are reported at once, before a model loads."""
    from ..audio import check_readable
    from .screen import say_error

    for error in errors:
        say_error(str(error))
    readable = []
    for item in items:
        try:
            check_readable(item.path)
            readable.append(item)
        except SpeakerReasonerError as error:
            say_error(str(error))
    return readable


def _lines_live(arguments: argparse.Namespace) -> bool:
    """Return whether lines are printed as they are known: to a terminal, where they are the transcript.

    Elsewhere the whole transcript is printed when it is finished, so that a pipe or file gets all
    of it or nothing, unless a stream is asked for.
    """
    final = arguments.answer == "assembled" and (arguments.output or arguments.format is None)
    return bool(final) and (arguments.stream or sys.stdout.isatty())


def print_all(text: str) -> None:
    """Hand text to standard output, all of it now, so that a full disk can still be reported."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_stdout()
        raise OutputError(
            f"standard output: {error.strerror}; write to another place, or to files with -o"
        ) from error


def forget_stdout() -> None:
    """Discard the rest of the buffer, so that the interpreter ends without a message."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
