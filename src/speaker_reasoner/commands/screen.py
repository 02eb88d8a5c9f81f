"""The terminal output while recordings are transcribed: the overview, each box, each line, a progress bar.

Lines go to standard output, everything else to standard error. The bar is shown for long recordings if standard
error is a terminal. Control characters and line breaks in names and messages are escaped.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from ..audio import probe
from ..errors import AudioError
from ..formats.clock import reading_time
from ..longform import Progress
from ..transcript import Segment, Transcript

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
_LONG_S = 60.0


def say_error(message: str) -> None:
    """Print one line to standard error."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), plain(message)))


def plain(text: str) -> str:
    """Return the text on one line; characters that cannot be printed are escaped (a line break as `\\n`)."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class Screen:
    """Shows the turns of recordings in the order of their calls.

    Args:
        recordings: their paths.
        lines: whether to print the lines of turns.
        quiet: warnings and missing stretches only.
        console: replaces standard output and standard error.
    """

    def __init__(
        self,
        recordings: Sequence[Path],
        *,
        lines: bool,
        quiet: bool,
        console: Console | None = None,
    ) -> None:
        self._out = console or Console(soft_wrap=True, highlight=False)
        self._side = console or Console(stderr=True, soft_wrap=True, highlight=False)
        self._lines, self._quiet = lines, quiet
        self._several = len(recordings) > 1
        self._shown: Path | None = None
        self._bar: Bar | None = None
        if not quiet and sys.stderr.isatty() and self._side.is_interactive:
            self._durations_s = {path: _duration_s(path) for path in recordings}
            if sum(self._durations_s.values()) >= _LONG_S:
                self._bar = self._new_bar()

    def _new_bar(self) -> Bar:
        self._reached_s = dict.fromkeys(self._durations_s, 0.0)
        bar = Bar(
            TextColumn("{task.fields[at]}", style="dim"),
            BarColumn(),
            TimeRemainingColumn(),
            console=self._side,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = bar.add_task("", total=sum(self._durations_s.values()), at="")
        return bar

    def __enter__(self) -> "Screen":
        self._reach(None, 0.0)
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def turn(self, progress: Progress) -> None:
        """Show a turn."""
        if self._quiet:
            return
        self._head(progress.path)
        event = progress.event
        if event.speakers is not None:
            count, genders = len(event.speakers), ", ".join(event.speakers) or "nobody speaks"
            people = f"{count} speaker{'s' if count != 1 else ''}: {genders}"
            self._note(f"{reading_time(progress.start_s)}  {people}")
        if self._lines:
            self.print([_line(segment) for segment in progress.segments])
        if progress.boxed is not None and self._side.is_terminal:
            start_s, end_s = progress.boxed
            span = f"[{reading_time(start_s)} - {reading_time(end_s)}]"
            self._note(f"  listening to {span}", "dim italic")
        self._reach(progress.path, progress.boxed[0] if progress.boxed else progress.end_s)

    def finish(self, path: Path, transcript: Transcript | None) -> None:
        """Show the summary of a finished recording; `None` for one that failed."""
        if transcript is not None:
            self._summary(path, transcript)
        if self._bar is not None:
            self._reach(path, self._durations_s[path])

    def warnings(self, path: Path, transcript: Transcript) -> None:
        """Show the warnings of a transcript."""
        for warning in transcript.warnings:
            self._note(f"{self._name(path)}{warning}", label="warning: ")

    def _name(self, path: Path) -> str:
        """The prefix of a line about a recording: its name, if there are several recordings."""
        return f"{plain(path.name)}: " if self._several else ""

    def _summary(self, path: Path, transcript: Transcript) -> None:
        name = self._name(path)
        self.warnings(path, transcript)
        if self._lines and not self._quiet and (changes := transcript.info.get("corrections")):
            self._note(
                f"{name}the last pass over the speakers changed {len(changes)} "
                f"label{'s' if len(changes) != 1 else ''} above; here is how it stands"
            )
            self.print([_line(segment) for segment in transcript.segments])
        for gap in transcript.missing:
            span = f"[{reading_time(gap.start_s)} - {reading_time(gap.end_s)}]"
            self._note(f"{name}{span} {gap.reason}", label="missing: ")
        if self._quiet:
            return
        if not transcript.segments:
            self._note(f"{name}nobody speaks in this recording")
        info = transcript.info
        self._note(
            f"{name}{transcript.duration_s:.1f} s of audio in {info['wall_s']:.1f} s, "
            f"{info['turns']} turns"
            + (f", {info['tokens']} tokens" if info["tokens"] else "")
            + f"; model {_model(info)}"
        )

    def wrote(self, path: Path) -> None:
        """Show that a file was written."""
        if not self._quiet:
            self._note(f"wrote {path}")

    def done_before(self, path: Path) -> None:
        """Show that an earlier run had transcribed a recording."""
        if not self._quiet:
            self._note(f"{plain(path.name)}: done by an earlier run")

    def say(self, path: Path, note: str) -> None:
        """Show a note about a recording."""
        self._note(f"{path.name}: {note}", label="note: ")

    def error(self, message: str) -> None:
        """Show an error on one line."""
        self._side.print(Text.assemble(("error: ", "bold red"), plain(message)))

    def print(self, texts: Sequence[Text]) -> None:
        """Print to standard output, above the bar, which may be on the same terminal."""
        if not texts:
            return
        if self._bar is not None:
            self._bar.stop()
        for text in texts:
            self._out.print(text)
        if self._bar is not None:
            self._bar.start()

    def _head(self, path: Path) -> None:
        """Name the recording before its first turn, where there are several."""
        if self._several and path != self._shown:
            self._note(plain(path.name), "bold")
        self._shown = path

    def _note(self, text: str, style: str = "dim", label: str = "") -> None:
        if label:
            self._side.print(Text.assemble((label, "bold yellow"), plain(text)))
        else:
            self._side.print(Text(plain(text), style))

    def _reach(self, path: Path | None, position_s: float) -> None:
        """Move the bar to a position in a recording."""
        if self._bar is None:
            return
        if path is not None:
            self._reached_s[path] = min(position_s, self._durations_s[path])
        done_s, total_s = sum(self._reached_s.values()), sum(self._durations_s.values())
        at = f"{reading_time(done_s)} / {reading_time(total_s)}"
        self._bar.update(self._task, completed=done_s, at=at, refresh=path is not None)


def _model(info: Mapping[str, Any]) -> str:
    """The model by the name that loads it, and its parts where it has any."""
    name = str(info.get("model", info["engine"]))
    parts = [str(info[part]) for part in ("recogniser", "diarizer") if part in info]
    return f"{name} ({', '.join(parts)})" if parts else name


def _duration_s(path: Path) -> float:
    """Length for the bar; 0 if it cannot be read, which opening the recording then reports."""
    try:
        return probe(path).duration_s
    except AudioError:
        return 0.0


def _line(segment: Segment) -> Text:
    digits = "".join(c for c in segment.speaker if c.isdigit())
    colour = _COLOURS[(int(digits or 1) - 1) % len(_COLOURS)]
    times = f"[{reading_time(segment.start_s)} - {reading_time(segment.end_s)}] "
    who = f"{plain(segment.speaker)} ({segment.gender}): "
    return Text.assemble((times, "dim"), (who, f"bold {colour}"), plain(segment.text))
