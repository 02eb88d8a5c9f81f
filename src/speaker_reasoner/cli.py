"""The command line: `speaker-reasoner transcribe` and `speaker-reasoner train`.

Transcripts go to standard output, everything else to standard error. Exit status: 0 done, 1 failed (with
a one-line reason), 2 wrong usage, 130 interrupted.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .errors import OutputError, SpeakerReasonerError
from .writers import FORMATS, render, write

if TYPE_CHECKING:
    from .longform import Failure, Progress
    from .transcript import Segment, Transcript

_EXAMPLES = """examples:
  speaker-reasoner transcribe meeting.wav
  speaker-reasoner transcribe *.flac -o out --format json,srt,rttm --batch 8
  speaker-reasoner transcribe call.wav --channel 1 --format txt
  speaker-reasoner transcribe meeting.wav --model DIR --prompts prompt.json --device cuda
"""
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except SpeakerReasonerError as error:
        _say_error(str(error))
        return 1
    except KeyboardInterrupt:
        _say_error("interrupted; nothing half-written was left")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    _add_train(commands)
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
    add("recordings", nargs="+", metavar="FILE", type=Path, help="wav, flac, mp3, ogg, opus, m4a, ...")
    add("-o", "--output", metavar="DIR", type=Path, help="write files there (default formats: json,txt)")
    add(
        "-f",
        "--format",
        metavar="LIST",
        type=_formats,
        help=f"{', '.join(FORMATS)}; without -o, one format for standard output",
    )
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
    add("--batch", metavar="N", type=_positive, default=4, help="dialogues at once (default: 4)")
    audio = command.add_argument_group("audio")
    audio.add_argument(
        "--channel", metavar="N", type=_channel, help="listen to one channel, from 0 (default: mix)"
    )
    command.add_argument("-q", "--quiet", action="store_true", help="no lines while it works")
    command.set_defaults(run=_transcribe, parser=command)


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "train",
        help="train a checkpoint",
        description="Train the tiny checkpoint from scratch on simulated meetings: three stages, about "
        "two hours on two cores. A run that was stopped goes on where it was.",
    )
    command.add_argument("recipe", choices=("tiny",), help="what to train")
    command.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="banks, checkpoints, log, result"
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


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _channel(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a channel number from 0, got {text!r}")
    return int(text)


def _transcribe(arguments: argparse.Namespace) -> int:
    from . import load_engine
    from .longform import Failure, Transcriber

    formats: list[str] | None = arguments.format
    if arguments.output is None and formats is not None and len(formats) > 1:
        _usage(arguments, "several formats need a directory: add -o DIR")
    names = [path.stem for path in arguments.recordings]
    if arguments.output is not None and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        _usage(arguments, f"two recordings are named {twice!r}; their files would overwrite each other")
    if arguments.output is not None:
        _prepare(arguments.output)
    for path in arguments.recordings:
        if not path.exists():
            raise OutputError(f"{path}: no such file; check the path") from None
    engine = load_engine(
        arguments.model, device=arguments.device, dtype=arguments.dtype, prompts=arguments.prompts
    )
    transcriber = Transcriber(
        engine, answer=arguments.answer, batch=arguments.batch, channel=arguments.channel
    )
    live = not arguments.quiet and (arguments.output is not None or formats is None)
    screen = _Screen(live, len(arguments.recordings))
    failed = 0
    for result in transcriber.transcribe_all(arguments.recordings, screen.turn):
        if isinstance(result, Failure):
            failed += 1
            _say_error(str(result.error))
            continue
        screen.finish(result)
        if arguments.output is not None:
            for path in write(result, arguments.output, formats or ["json", "txt"]):
                screen.note(f"wrote {path}")
        elif formats is not None:
            sys.stdout.write(render(result, formats[0]))
        elif arguments.quiet:
            sys.stdout.write(render(result, "txt"))
    return 1 if failed else 0


def _train(arguments: argparse.Namespace) -> int:
    import torch

    from .train.stages import TrainingConfig, train

    trainer = train(TrainingConfig(), arguments.output, torch.device(arguments.device))
    folder = arguments.output / "tiny"
    trainer.export(folder)
    print(f"wrote {folder}; try: speaker-reasoner transcribe FILE --model {folder}", file=sys.stderr)
    return 0


def _prepare(directory: Path) -> None:
    """Make sure of the output directory before any work is done."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{directory}: cannot be used for output: {error.strerror}; choose another directory"
        ) from error
    if not os.access(directory, os.W_OK):
        raise OutputError(f"{directory}: not writable; choose another directory")


def _usage(arguments: argparse.Namespace, message: str) -> NoReturn:
    arguments.parser.error(message)
    raise AssertionError


def _say_error(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text("error: ", "bold red") + Text(message))


class _Screen:
    """What a person sees while it works: the overview, each box, each line as it is known."""

    def __init__(self, live: bool, recordings: int) -> None:
        from rich.console import Console

        self.live = live
        self.several = recordings > 1
        self.out = Console(soft_wrap=True, highlight=False)
        self.side = Console(stderr=True, soft_wrap=True, highlight=False)

    def turn(self, progress: "Progress") -> None:
        if not self.live:
            return
        from rich.text import Text

        name = f"{progress.recording}  " if self.several else ""
        if progress.event.speakers is not None:
            genders = ", ".join(progress.event.speakers) or "nobody speaks"
            count = len(progress.event.speakers)
            people = f"{count} speaker{'s' if count != 1 else ''}: {genders}"
            self.side.print(Text(f"{name}{_clock(progress.start_s)}  {people}", "dim"))
        for segment in progress.segments:
            self.out.print(Text(name, "dim") + _line(segment))
        if progress.boxed is not None and self.side.is_terminal:
            start_s, end_s = progress.boxed
            note = f"{name}  listening to [{_clock(start_s)} - {_clock(end_s)}]"
            self.side.print(Text(note, "dim italic"))

    def finish(self, transcript: "Transcript") -> None:
        from rich.text import Text

        name = f"{transcript.recording}: " if self.several else ""
        for warning in transcript.warnings:
            self.side.print(Text("warning: ", "bold yellow") + Text(name + warning))
        for gap in transcript.missing:
            span = f"[{_clock(gap.start_s)} - {_clock(gap.end_s)}]"
            self.side.print(Text("missing: ", "bold yellow") + Text(f"{name}{span} {gap.reason}"))
        if self.live:
            if not transcript.segments:
                self.side.print(Text(f"{name}nobody speaks in this recording", "dim"))
            info = transcript.info
            self.side.print(
                Text(
                    f"{name}{transcript.duration_s:.1f} s of audio in {info['wall_s']:.1f} s, "
                    f"{info['turns']} turns, {info['tokens']} tokens",
                    "dim",
                )
            )

    def note(self, text: str) -> None:
        from rich.text import Text

        self.side.print(Text(text, "dim"))


def _line(segment: "Segment") -> "Text":
    from rich.text import Text

    digits = "".join(c for c in segment.speaker if c.isdigit())
    colour = _COLOURS[(int(digits or 1) - 1) % len(_COLOURS)]
    times = f"[{_clock(segment.start_s)} - {_clock(segment.end_s)}] "
    who = f"{segment.speaker} ({segment.gender}): "
    return Text(times, "dim") + Text(who, f"bold {colour}") + Text(segment.text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:05.2f}" if hours else f"{minutes:02d}:{rest:05.2f}"


if TYPE_CHECKING:
    from rich.text import Text
