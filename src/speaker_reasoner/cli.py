"""The command line: `speaker-reasoner transcribe`, `evaluate`, `prepare`, `train`, `plan`.

Transcripts go to standard output, everything else to standard error. Exit status: 0 done, 1 failed
(with a one-line reason), 2 wrong usage, 130 interrupted.
"""

import argparse
import difflib
import io
import os
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .commands.arguments import positive
from .commands.evaluate import add_evaluate
from .commands.plan import add_plan
from .commands.prepare import add_prepare
from .errors import OutputError, SpeakerReasonerError
from .writers import FORMATS, render, write

if TYPE_CHECKING:
    from .engines.base import Engine

_FILES = ("json", "txt")
_EXAMPLES = """examples:
  speaker-reasoner transcribe meeting.wav
  speaker-reasoner transcribe *.flac -o out --format json,srt,rttm --batch 8
  speaker-reasoner transcribe call.wav --channel 1 --format txt
  speaker-reasoner transcribe meeting.wav --model DIR --prompts prompt.json --device cuda
"""
_TRAIN_EXAMPLES = """examples:
  speaker-reasoner train tiny --output runs
  speaker-reasoner train tiny --output runs --device cuda
  speaker-reasoner train tiny --output runs/more --from runs/tiny
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character the terminal cannot show
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except SpeakerReasonerError as error:
        _say_error(str(error))
        return 1
    except KeyboardInterrupt:
        _say_error("interrupted; nothing half-written was left")
        return 130
    except BrokenPipeError:
        _forget_stdout()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speaker-reasoner",
        description="Who said what, and when: timestamped speaker-attributed speech recognition.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"speaker-reasoner {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_transcribe(commands)
    add_evaluate(commands)
    add_prepare(commands)
    _add_train(commands)
    add_plan(commands)
    return parser


def _add_transcribe(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "transcribe",
        help="speaker, gender, start, end and text of recordings",
        description="Transcribe recordings. Lines appear as the dialogue with the model unfolds.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("recordings", nargs="+", metavar="FILE", type=Path, help="wav, flac, mp3, ogg, m4a, ...")
    add("-o", "--output", metavar="DIR", type=Path, help="write files there (default: json,txt)")
    known = f"{', '.join(FORMATS)}; without -o, one format for standard output"
    add("-f", "--format", metavar="LIST", type=_formats, help=known)
    add("-q", "--quiet", action="store_true", help="only transcripts, warnings and errors")
    model = command.add_argument_group("model")
    add = model.add_argument
    add("--model", metavar="PATH|HUB_ID", help="another checkpoint than the embedded one")
    add("--prompts", metavar="FILE", type=Path, help="prompt file of a released checkpoint")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: fitting the device")
    add(
        "--answer",
        choices=("assembled", "model"),
        default="assembled",
        help="put the transcript together from the turns, or let the model write it once more (as "
        "published; slower). default: assembled",
    )
    add("--batch", metavar="N", type=positive, default=4, help="dialogues at once (default: 4)")
    audio = command.add_argument_group("audio")
    audio.add_argument(
        "--channel", metavar="N", type=_channel, help="listen to one channel, from 0 (default: mix)"
    )
    command.set_defaults(run=_transcribe, parser=command)


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "train",
        help="train a checkpoint",
        description="Train the tiny checkpoint from scratch on simulated meetings: three stages, "
        "hours on\ntwo cores. A run that was stopped goes on where it was.",
        epilog=_TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("recipe", choices=("tiny",), help="what to train")
    command.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="banks, checkpoints, log, result"
    )
    command.add_argument(
        "--from",
        dest="start",
        metavar="DIR",
        type=Path,
        help="a tiny checkpoint that goes through the last stage once more",
    )
    command.add_argument("--device", metavar="NAME", default="cpu", help="default: cpu")
    command.set_defaults(run=_train, parser=command)


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
    engine = load_quietly(arguments, quiet=arguments.quiet)

    from .longform import Failure, Transcriber
    from .screen import Screen

    transcriber = Transcriber(
        engine, answer=arguments.answer, batch=arguments.batch, channel=arguments.channel
    )
    with Screen(readable, lines=_lines_live(arguments), quiet=arguments.quiet) as screen:
        results = transcriber.transcribe_all(readable, screen.turn)
        for path, result in zip(readable, results, strict=True):
            text = ""
            try:
                if isinstance(result, Failure):
                    raise result.error
                screen.finish(path, result)
                if arguments.output is not None:
                    for file in write(result, arguments.output, arguments.format or _FILES):
                        screen.wrote(file)
                elif arguments.quiet or not _lines_live(arguments):
                    text = render(result, (arguments.format or ["txt"])[0])
            except SpeakerReasonerError as error:
                screen.finish(path, None)
                screen.error(str(error))
                failed += 1
            _print(text)
    return 1 if failed else 0


def _check_usage(arguments: argparse.Namespace) -> None:
    if arguments.output is None:
        if len(arguments.format or ()) > 1:
            _usage(arguments, "several formats need a directory: add -o DIR")
        return
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
    from .audio import check_readable

    readable = []
    for path in paths:
        try:
            check_readable(path)
            readable.append(path)
        except SpeakerReasonerError as error:
            _say_error(str(error))
    return readable


def load_quietly(arguments: argparse.Namespace, *, quiet: bool = False) -> "Engine":
    """Load the engine; what the libraries say meanwhile is not for the user, but for downloads."""
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    from . import load_engine

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if sys.stderr.isatty() and not quiet:
        enable_progress_bars()
    return load_engine(
        arguments.model, device=arguments.device, dtype=arguments.dtype, prompts=arguments.prompts
    )


def _lines_live(arguments: argparse.Namespace) -> bool:
    """Whether lines are printed as they are known: to a terminal, where they are the transcript.

    Elsewhere the whole transcript is printed when it is finished, so that a pipe or file gets all
    of it or nothing.
    """
    final = arguments.answer == "assembled" and (arguments.output or arguments.format is None)
    return bool(final) and sys.stdout.isatty()


def _train(arguments: argparse.Namespace) -> int:
    import torch

    from .train.stages import TrainingConfig, train

    device = torch.device(arguments.device)
    trainer = train(TrainingConfig(), arguments.output, device, arguments.start)
    folder = arguments.output / "tiny"
    trainer.export(folder)
    say = f"wrote {folder}; try: speaker-reasoner transcribe FILE --model {folder}"
    print(say, file=sys.stderr)
    return 0


def _print(text: str) -> None:
    """Hand text to standard output, all of it now, so that a full disk can still be reported."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget_stdout()
        raise OutputError(
            f"standard output: {error.strerror}; write to another place, or to files with -o"
        ) from error


def _forget_stdout() -> None:
    """What is still in the buffer goes nowhere, so that the interpreter ends in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_error(message: str) -> None:
    from .screen import say_error

    say_error(message)
