"""`speaker-reasoner batch`: thousands of recordings, from a folder, a manifest or a bucket."""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError
from .arguments import (
    add_model,
    add_options,
    engine_options,
    load_silently,
    options,
    positive,
    usage,
)

if TYPE_CHECKING:
    from ..bulk.listing import Shard
    from ..bulk.runner import Done
    from ..bulk.target import Target

_VERBS = ("status", "merge")
_SHOWN_FAILURES = 10
_EXAMPLES = """examples:
  speaker-reasoner batch calls/ -o transcripts
  speaker-reasoner batch manifest.jsonl -o transcripts -f jsonl,parquet,lhotse,rttm
  speaker-reasoner batch s3://bucket/calls -o s3://bucket/transcripts -f parquet
  speaker-reasoner batch cuts.jsonl.gz -o transcripts --shard 3/8
  speaker-reasoner batch calls/ -o transcripts --workers 4 --gpus-per-worker 1
  speaker-reasoner batch status transcripts
  speaker-reasoner batch merge transcripts -f parquet
"""

_SHARE_MIN = 30
"""Minutes of a share, where the user names none."""


def add_batch(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    command = commands.add_parser(
        "batch",
        help="thousands of recordings, in shards or with several workers",
        description="Transcribe all recordings of a folder, a manifest (JSON lines with NeMo's keys, recordings "
        "or cuts of lhotse, CSV) or a bucket.\nRepeated, the command continues: finished recordings are "
        "skipped, failed ones are tried again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add(
        "words",
        nargs="+",
        metavar="SOURCE",
        help="folder, manifest or address of a bucket; or `status TARGET`: how far a target is; or `merge "
        "TARGET`: make its tables (a folder of these names is ./status, ./merge)",
    )
    add(
        "-o",
        "--output",
        "--output-dir",
        dest="output",
        metavar="TARGET",
        help="folder, or address in a bucket",
    )
    add(
        "-f",
        "--format",
        "--output-format",
        dest="format",
        metavar="LIST",
        action="extend",
        type=_formats,
        help="tables: jsonl, parquet, lhotse; and files of each recording, as for `transcribe` (default: jsonl; "
        "the JSON of each recording is always kept)",
    )
    add(
        "--shard",
        metavar="I/N",
        type=_shard,
        help="only this part of the source, of N of about the same duration; `merge` makes the tables "
        "when all are done",
    )
    add(
        "--partial",
        action="store_true",
        help="merge: recordings may be outstanding; their rows say so",
    )
    add(
        "--work",
        metavar="DIR",
        type=Path,
        help="where a target in a bucket is prepared (default: a cache)",
    )
    add("-q", "--quiet", action="store_true", help="only failures, and the report")
    add("--verbose", dest="quiet", action="store_false", help="the contrary of --quiet (default)")
    add = command.add_argument_group("workers (Ray, extra ray)").add_argument
    add("--workers", metavar="N", type=positive, help="processes, each with an engine of its own")
    add(
        "--ray-address",
        metavar="ADDR",
        help="of a Ray cluster, as auto or ray://host:10001 (default: here)",
    )
    add("--cpus-per-worker", metavar="N", type=_fraction, help="default: 1")
    add("--gpus-per-worker", metavar="N", type=_fraction, help="may be 0.5; default: 0")
    add(
        "--share",
        metavar="MIN",
        type=positive,
        help="recordings of at least twice so many minutes are divided into shares, which several workers "
        f"transcribe, where the model's chunks do not wait for each other (default: {_SHARE_MIN})",
    )
    add_model(command)
    add_options(command, batch=4)
    command.set_defaults(run=_batch, parser=command)


def _formats(text: str) -> list[str]:
    from ..bulk.tables import TABLES
    from ..formats import FORMATS
    from ..formats.table import unknown_format

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names or [""]:
        if name not in (*TABLES, *FORMATS):
            raise argparse.ArgumentTypeError(str(unknown_format(name, (*TABLES, *FORMATS))))
    return names


def _shard(text: str) -> "Shard":
    from ..bulk.listing import Shard

    try:
        return Shard.parse(text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fraction(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1000:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, as 0.5, got {text!r}")
    return number


def _batch(arguments: argparse.Namespace) -> int:
    words = arguments.words
    arguments.format = list(dict.fromkeys(arguments.format or ["jsonl"]))
    if words[0] in _VERBS:
        if len(words) != 2 or arguments.output is not None:
            usage(arguments, f"{words[0]} takes one target: batch {words[0]} TARGET")
        return (_status if words[0] == "status" else _merge)(arguments)
    if len(words) > 1:
        usage(
            arguments,
            f"expected one source, got {len(words)}: name a folder, or a manifest of them",
        )
    if arguments.output is None:
        usage(arguments, "where to? add -o TARGET")
    if arguments.partial:
        usage(arguments, "--partial belongs to batch merge")
    of_workers = ("ray_address", "cpus_per_worker", "gpus_per_worker", "share")
    given = [name for name in of_workers if getattr(arguments, name) is not None]
    if arguments.workers is None and given:
        usage(arguments, f"--{given[0].replace('_', '-')} needs --workers N")
    return _run(arguments, words[0])


def _run(arguments: argparse.Namespace, source: str) -> int:
    from ..bulk.listing import Shard
    from ..bulk.runner import BatchSettings
    from ..bulk.tables import TABLES, write_tables
    from ..bulk.target import Target, report
    from ..formats import FORMATS, write_text_atomically

    chosen = options(arguments)
    files = tuple(name for name in arguments.format if name in FORMATS)
    tables = [name for name in arguments.format if name in TABLES]
    _check_extras(arguments, tables)
    target, shard = Target(arguments.output, arguments.work), arguments.shard or Shard()
    settings = BatchSettings(
        partial(load_silently, engine_options(arguments), quiet=arguments.quiet),
        chosen,
        arguments.output,
        None if arguments.work is None else arguments.work.absolute(),
        tuple(dict.fromkeys(("json", *files))),
        None if arguments.workers is None else 60.0 * (arguments.share or _SHARE_MIN),
    )
    with target.admitted(source, shard) as (listing, note):
        screen = _Screen(arguments.quiet)
        if note:
            screen.say(note)
        rows, all_s = 0, 0.0
        for row in listing.shard(shard):
            rows, all_s = rows + 1, all_s + row.weight_s
        screen.begin(rows, all_s)
        begun = time.monotonic()
        try:
            for done in _done(arguments, settings, target, shard):
                screen.show(done)
        finally:
            screen.end()
        numbers = report(target, shard, time.monotonic() - begun, screen.audio_s)
        name = "report.json" if shard.count == 1 else f"report-{shard.number}-of-{shard.count}.json"
        write_text_atomically(target.folder / name, json.dumps(numbers, indent=2) + "\n")
        target.send_table(target.folder / name)
        written = write_tables(target, tables) if shard.count == 1 and tables else []
    _report(numbers)
    for path in written:
        print(path if target.bucket is None else f"{target.where}/{path.name}")
    if shard.count > 1:
        screen.say(
            f"when all {shard.count} shards are done: speaker-reasoner batch merge {target.where}"
        )
    return 1 if numbers["failed"] or numbers["outstanding"] else 0


def _done(
    arguments: argparse.Namespace, settings: Any, target: "Target", shard: "Shard"
) -> Iterator["Done"]:
    if arguments.workers is None:
        from ..bulk.runner import Runner

        return Runner(settings).run(target.listing.shard(shard))
    from ..bulk.workers import Cluster, transcribe

    cluster = Cluster(
        arguments.workers,
        arguments.ray_address,
        1.0 if arguments.cpus_per_worker is None else arguments.cpus_per_worker,
        arguments.gpus_per_worker or 0.0,
    )
    return transcribe(settings, target, shard, cluster)


def _check_extras(arguments: argparse.Namespace, tables: list[str]) -> None:
    from ..extras import require

    if "parquet" in tables:
        require("batch", "Parquet", "pyarrow")
    if arguments.workers is not None:
        require("ray", "--workers", "ray", "ray.data", "pyarrow")


def _status(arguments: argparse.Namespace) -> int:
    from ..bulk.listing import Shard
    from ..bulk.target import standing

    target, shard = _there(arguments), arguments.shard or Shard()
    numbers = standing(target, shard).to_json()
    _report(numbers)
    shown = 0
    for row in target.listing.shard(shard):
        failure = None if target.done(row) else target.failure(row)
        if failure is not None and (shown := shown + 1) <= _SHOWN_FAILURES:
            _say(f"failed: {failure.message}")
    if shown > _SHOWN_FAILURES:
        _say(f"failed: {shown - _SHOWN_FAILURES} more")
    return 1 if numbers["failed"] or numbers["outstanding"] else 0


def _merge(arguments: argparse.Namespace) -> int:
    from ..bulk.tables import TABLES, write_tables
    from ..bulk.target import standing

    tables = [name for name in arguments.format if name in TABLES]
    if len(tables) < len(arguments.format):
        usage(arguments, f"merge makes tables: {', '.join(TABLES)}; files are written by the run")
    _check_extras(arguments, tables)
    target = _there(arguments)
    for path in write_tables(target, tables, part=arguments.partial):
        print(path if target.bucket is None else f"{target.where}/{path.name}")
    _report(standing(target).to_json())
    return 0


def _there(arguments: argparse.Namespace) -> "Target":
    """A target that a run was begun in, with all that its bucket has of it."""
    from itertools import islice

    from ..bulk.runner import WINDOW
    from ..bulk.target import Target

    target = Target(arguments.words[1], arguments.work)
    target.fetch_listing()
    rows = iter(target.listing)
    while target.bucket is not None and (window := list(islice(rows, WINDOW))):
        target.fetch(window)
    return target


def _report(numbers: dict[str, Any]) -> None:
    done, every = _length(numbers["done_s"]), _length(numbers["all_s"])
    _say(
        f"{numbers['done']} of {numbers['recordings']} recordings done ({done} of {every}), "
        f"{numbers['failed']} failed, {numbers['outstanding']} outstanding"
    )
    for kind, count in numbers["faults"].items():
        _say(f"  {kind}: {count}")
    if numbers.get("times_real_time"):
        _say(
            f"{_length(numbers['audio_s'])} in {numbers['wall_s']:.0f} s: "
            f"{numbers['times_real_time']:.1f} times as fast as they last"
        )


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _say(message: str) -> None:
    from rich.console import Console

    from .screen import plain

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(plain(message))


_EVERY_S = 30.0
"""Time between lines of progress, where standard error is no terminal (assumed)."""


class _Screen:
    """Progress: a bar on a terminal, else a line from time to time; failures and remarks as they come."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._states: Counter[str] = Counter()
        self.audio_s = self._skipped_s = 0.0

    def begin(self, rows: int, all_s: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._rows, self._all_s = rows, all_s
        self._begun = self._last_line_s = time.monotonic()
        if not self._quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.fields[at]}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=rows, at="")
            self._bar.start()

    def show(self, done: "Done") -> None:
        self._states[done.state] += 1
        self.audio_s += done.audio_s
        self._skipped_s += done.skipped_s
        if done.state == "failed":
            self.say(f"failed: {done.note}", always=True)
        elif done.note:
            self.say(f"{done.name}: {done.note}")
        settled = sum(self._states.values()) - self._states["share"]
        if self._bar is not None:
            self._bar.update(self._task, completed=settled, at=self._at(settled))
        elif time.monotonic() - self._last_line_s > _EVERY_S:
            self._last_line_s = time.monotonic()
            self.say(self._at(settled))

    def _at(self, settled: int) -> str:
        spent_s = time.monotonic() - self._begun
        rate = self.audio_s / spent_s if spent_s else 0.0
        left_s = max(0.0, self._all_s - self._skipped_s - self.audio_s)
        eta = f", about {left_s / rate / 60:.0f} min left" if rate else ""
        return f"{settled} of {self._rows}, {rate:.1f} times real time{eta}"

    def say(self, message: str, *, always: bool = False) -> None:
        if self._quiet and not always:
            return
        if self._bar is not None:
            from .screen import plain

            text = plain(message)
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            _say(message)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
