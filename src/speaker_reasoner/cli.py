"""The command line: `speaker-reasoner transcribe`, `voices`, `serve`, `evaluate`, `prepare`, `train`,
`merge`, `export`, `plan`.

Transcripts go to standard output, everything else to standard error. Exit status: 0 done, 1 failed
(with a one-line reason), 2 wrong usage, 130 interrupted.
"""

import argparse
import io
import sys
from collections.abc import Sequence

from . import __version__
from .commands.evaluate import add_evaluate
from .commands.export import add_export
from .commands.merge import add_merge
from .commands.plan import add_plan
from .commands.prepare import add_prepare
from .commands.serve import add_serve
from .commands.train import add_train
from .commands.transcribe import EXAMPLES, add_transcribe, forget_stdout
from .commands.voices import add_voices
from .errors import SpeakerReasonerError


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
        forget_stdout()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speaker-reasoner",
        description="Who said what, and when: timestamped speaker-attributed speech recognition.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"speaker-reasoner {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_transcribe(commands)
    add_voices(commands)
    add_serve(commands)
    add_evaluate(commands)
    add_prepare(commands)
    add_train(commands)
    add_merge(commands)
    add_export(commands)
    add_plan(commands)
    return parser


def _say_error(message: str) -> None:
    from .commands.screen import say_error

    say_error(message)
