"""The command line: `speaker-reasoner transcribe`, `batch`, `voices`, `systems`, `serve`, `evaluate`, `prepare`,
`train`, `compose`, `merge`, `export`, `plan`, `completion`.

Transcripts go to standard output, everything else to standard error. Exit status: 0 done, 1 failed
(with a one-line reason), 2 wrong usage, 130 interrupted.
"""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SpeakerReasonerError
from .version import __version__

if TYPE_CHECKING:
    import argparse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character the terminal cannot show
    try:
        return _run(argv)
    except SpeakerReasonerError as error:
        _say_error(str(error))
        return 1
    except KeyboardInterrupt:
        _say_error("interrupted; nothing half-written was left")
        return 130
    except BrokenPipeError:
        from .commands.transcribe import forget_stdout

        forget_stdout()
        return 1


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    from .commands.transcribe import print_all

    try:
        arguments = parser.parse_args(argv)
        status = int(arguments.run(arguments))
    except (SystemExit, OSError):  # after help, version, wrong usage; or a full standard output
        print_all("")  # reports a full disk, if that is the cause
        raise
    print_all("")  # the rest of the buffer, while a full disk can still be reported
    return status


def _parser() -> "argparse.ArgumentParser":
    import argparse

    # Here and not above, so that Ctrl+C is answered by `main` from the first moment on.
    from .commands.batch import add_batch
    from .commands.completion import add_completion
    from .commands.compose import add_compose
    from .commands.evaluate import add_evaluate
    from .commands.export import add_export
    from .commands.merge import add_merge
    from .commands.parser import Parser
    from .commands.plan import add_plan
    from .commands.prepare import add_prepare
    from .commands.serve import add_serve
    from .commands.systems import add_systems
    from .commands.train import add_train
    from .commands.transcribe import EXAMPLES, add_transcribe
    from .commands.voices import add_voices

    parser: argparse.ArgumentParser = Parser(
        prog="speaker-reasoner",
        description="Who said what, and when: timestamped speaker-attributed speech recognition.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"speaker-reasoner {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_transcribe(commands)
    add_batch(commands)
    add_voices(commands)
    add_systems(commands)
    add_serve(commands)
    add_evaluate(commands)
    add_prepare(commands)
    add_train(commands)
    add_compose(commands)
    add_merge(commands)
    add_export(commands)
    add_plan(commands)
    add_completion(commands, parser)
    return parser


def _nowhere() -> io.TextIOWrapper:
    """Open a stream to the null device, in place of one that the shell has closed (`>&-`; Python gives `None`)."""
    return Path(os.devnull).open("w", encoding="utf-8")


def _say_error(message: str) -> None:
    from .commands.screen import say_error

    say_error(message)
