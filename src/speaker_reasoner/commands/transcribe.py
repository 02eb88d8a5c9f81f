"""`speaker-reasoner transcribe`: speaker, gender, start, end and text of recordings."""

import argparse
import difflib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import OutputError, SpeakerReasonerError
from ..formats import FORMATS, render, write
from .arguments import add_model, load_quietly, positive, speaker_range

if TYPE_CHECKING:
    from ..voices.people import EnrolledSpeaker

_FILES = ("json", "txt")
EXAMPLES = """examples:
  speaker-reasoner transcribe meeting.wav
  speaker-reasoner transcribe *.flac -o out --format json,srt,rttm --batch 8
  speaker-reasoner transcribe meeting.wav --speakers 2-5 --voice "Ana=ana.wav" --voice "Bo=bo.wav"
  speaker-reasoner transcribe call.wav --channel 1 --format txt
  speaker-reasoner transcribe meeting.wav --model DIR --prompts prompt.json --device cuda
"""


def add_transcribe(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "transcribe",
        help="speaker, gender, start, end and text of recordings",
        description="Transcribe recordings of any length. Lines appear as the dialogue with the "
        "model unfolds.\nWith -o, a run that was killed goes on where it was: say the same again.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("recordings", nargs="+", metavar="FILE", type=Path, help="wav, flac, mp3, ogg, m4a, ...")
    add("-o", "--output", metavar="DIR", type=Path, help="write files there (default: json,txt)")
    known = f"{', '.join(FORMATS)}; without -o, one format for standard output"
    add("-f", "--format", metavar="LIST", type=_formats, help=known)
    add("-q", "--quiet", action="store_true", help="only transcripts, warnings and errors")
    add(
        "--stream",
        action="store_true",
        help="print lines as they are known, also where standard output is no terminal; speakers "
        "are provisional until the end",
    )
    add_model(command)
    model = command.add_argument_group("dialogue").add_argument
    model(
        "--answer",
        choices=("assembled", "model"),
        default="assembled",
        help="put the transcript together from the turns, or let the model write it once more (as "
        "published; slower). default: assembled",
    )
    model("--batch", metavar="N", type=positive, default=4, help="dialogues at once (default: 4)")
    people = command.add_argument_group("speakers").add_argument
    people(
        "--speakers", metavar="N|N-M", type=speaker_range, help="how many people speak: 3, or 2-5"
    )
    people(
        "--voice",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="a clip of somebody's voice, of 2 s or more: their lines carry the name. May be given "
        "several times, also for one person",
    )
    people(
        "--voices",
        metavar="DIR",
        type=Path,
        help="everybody in a voice store (see: speaker-reasoner voices)",
    )
    people(
        "--witness",
        metavar="NAME",
        default="auto",
        help="what compares voices: tower (of the model itself), resemblyzer (for real voices), "
        "xvector[=MODEL], speechbrain[=MODEL], or none (default: auto, what fits the model)",
    )
    people(
        "--cache",
        action=argparse.BooleanOptionalAction,
        help="let the model hear people again before each chunk, one chunk after the other "
        "(default: as its profile says)",
    )
    audio = command.add_argument_group("audio")
    audio.add_argument(
        "--channel", metavar="N", type=_channel, help="listen to one channel, from 0 (default: mix)"
    )
    audio.add_argument(
        "--vad",
        choices=("energy", "silero"),
        default="energy",
        help="what finds speech, for cuts and coverage; silero takes the extra vad and knows music "
        "from speech (default: energy)",
    )
    command.set_defaults(run=_transcribe, parser=command)


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name, FORMATS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise argparse.ArgumentTypeError(
                f"unknown format {name!r}{hint}; known: {', '.join(FORMATS)}"
            )
    if not names:
        raise argparse.ArgumentTypeError(f"no format given; known: {', '.join(FORMATS)}")
    return names


def _channel(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a channel number from 0, got {text!r}")
    return int(text)


def _transcribe(arguments: argparse.Namespace) -> int:
    _check_usage(arguments)
    if arguments.output is not None:
        _check_output(arguments.output)
    readable = _readable(arguments.recordings)
    failed = len(arguments.recordings) - len(readable)
    if not readable:
        return 1
    from ..longform import Failure, Transcriber
    from .screen import Screen

    engine = load_quietly(arguments, quiet=arguments.quiet)
    transcriber = Transcriber(
        engine,
        answer=arguments.answer,
        batch=arguments.batch,
        channel=arguments.channel,
        cached=arguments.cache,
        witness=arguments.witness,
        detect=arguments.vad,
    )
    output = arguments.output
    voices = _voices(arguments, transcriber)
    with Screen(readable, lines=_lines_live(arguments), quiet=arguments.quiet) as screen:
        results = transcriber.transcribe_all(
            readable,
            screen.turn,
            journal=None if output is None else lambda path: _journal(output, path),
            speakers=arguments.speakers,
            voices=voices,
        )
        for path, result in zip(readable, results, strict=True):
            text = ""
            try:
                if isinstance(result, Failure):
                    raise result.error
                screen.finish(path, result)
                if output is not None:
                    for file in write(result, output, arguments.format or _FILES):
                        screen.wrote(file)
                    _journal(output, path).unlink(missing_ok=True)
                elif arguments.quiet or not _lines_live(arguments):
                    text = render(result, (arguments.format or ["txt"])[0])
            except SpeakerReasonerError as error:
                screen.finish(path, None)
                screen.error(str(error))
                failed += 1
            print_all(text)
    return 1 if failed else 0


def _journal(output: Path, path: Path) -> Path:
    return output / f".{path.stem}.journal"


def _voices(arguments: argparse.Namespace, transcriber: object) -> list["EnrolledSpeaker"]:
    """Enrolled people, from clips and from a store."""
    if not arguments.voice and arguments.voices is None:
        return []
    from ..longform import Transcriber
    from ..voices.enrolment import enrol

    assert isinstance(transcriber, Transcriber)
    return enrol(arguments.voice, arguments.voices, transcriber.settings.witness)


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.output is None:
        if len(arguments.format or ()) > 1:
            _usage(arguments, "several formats need a directory: add -o DIR")
        return
    if arguments.output == Path("-"):
        _usage(arguments, "-o names a directory; leave it out for standard output")
    [(name, count)] = Counter(path.stem for path in arguments.recordings).most_common(1)
    if count > 1:
        _usage(arguments, f"{count} recordings are named {name!r}: their files need other names")


def _usage(arguments: argparse.Namespace, message: str) -> NoReturn:
    arguments.parser.error(message)
    raise AssertionError


def _check_output(directory: Path) -> None:
    """Make sure before any work that files can be written there; it is made with the first."""
    places = (directory, *directory.absolute().parents)
    there = next(path for path in places if os.path.lexists(path))
    if not there.is_dir():
        raise OutputError(f"{there}: got a file, expected a directory; choose another for -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there}: not writable; choose another directory for -o")


def _readable(paths: Sequence[Path]) -> list[Path]:
    """The recordings that can be opened; the others are reported at once, before a model loads."""
    from ..audio import check_readable
    from .screen import say_error

    readable = []
    for path in paths:
        try:
            check_readable(path)
            readable.append(path)
        except SpeakerReasonerError as error:
            say_error(str(error))
    return readable


def _lines_live(arguments: argparse.Namespace) -> bool:
    """Whether lines are printed as they are known: to a terminal, where they are the transcript.

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
    """What is still in the buffer goes nowhere, so that the interpreter ends in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
