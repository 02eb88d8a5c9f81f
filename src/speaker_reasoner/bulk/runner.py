"""Transcribes rows of a listing with one engine; what becomes of each is in the target, and reported.

The same in one process and in each of several workers: a worker that dies costs what was not in a journal yet,
and whoever is given its rows goes on.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .. import audio
from ..engines.base import Engine
from ..errors import AudioError, DataError, OutputError, SpeakerReasonerError
from ..formats import file_name
from ..longform import Batch, Failure, Item, Options, Result, Transcriber
from ..longform.channels import SEPARATE
from ..longform.journal import fingerprint
from ..longform.shares import Share, shares
from .buckets import Bucket, is_bucket
from .rows import Row
from .target import Fault, Target

WINDOW = 256
"""Rows that are looked at together; memory grows with it, and not with their number."""
_DEATHS = 5
"""So often a worker may die on a recording without getting further in it (assumed)."""
_SLACK_S = 0.1
"""A duration in a manifest may differ so much from the file's: manifests round (assumed)."""
_HELD_S = 3600.0
"""Of a recording that is no longer, stretches are cut from memory: 230 MB at the most."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How rows are transcribed; it can be sent to other processes.

    Attributes:
        engine: loads the engine.
        target, work: as for `Target`.
        formats: keys of `FORMATS`, of the files of each recording.
        share_s: longer recordings are divided into shares of this length, where there are several workers.
    """

    engine: Callable[[], Engine]
    options: Options
    target: str
    work: Path | None
    formats: tuple[str, ...]
    share_s: float | None = None

    def shares(self, row: Row) -> list[Share]:
        """The shares of a row; one where it is to stay whole. Nothing but the row decides."""
        if (
            self.share_s is None
            or row.fault
            or row.stretch
            or row.duration_s is None
            or is_bucket(row.path)
            or is_bucket(self.target)
        ):
            return [Share(0, 0, None)]
        return shares(row.duration_s, self.share_s)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a row.

    Attributes:
        number, name: of the row.
        state: `done`, `before` (by an earlier run), `failed` or `share` (a part of it is done).
        audio_s: seconds of audio that this call transcribed.
        skipped_s: seconds of audio that it need not, or could not transcribe.
        note: a remark; of a failure, its reason.
        files: that were written.
    """

    number: int
    name: str
    state: str
    audio_s: float = 0.0
    skipped_s: float = 0.0
    note: str = ""
    files: tuple[str, ...] = ()


class Runner:
    """Transcribes rows with an engine of its own. The caller keeps others out of them.

    Raises:
        SpeakerReasonerError: the engine cannot be loaded, or an option does not fit it.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.target = Target(setup.target, setup.work)
        self._transcriber: Transcriber = setup.options.transcriber(setup.engine())
        self._voices = setup.options.enrolled(self._transcriber)

    def run(self, rows: Iterator[Row]) -> Iterator[Done]:
        """Transcribe rows; results come in no order that matters.

        Raises:
            EngineError: the engine failed as a whole.
            OutputError: nothing can be written any more.
        """
        while window := list(islice(rows, WINDOW)):
            self.target.fetch(window)
            yield from self._window(window)

    def run_guarded(self, rows: Sequence[Row]) -> Iterator[Done]:
        """As `run`; rows on which workers die are given up at last, and do not take others with them.

        After a death each row is transcribed alone, to find the one to blame.
        """
        trials = {row.number: self._trial(row, "journal") for row in rows if not row.fault}
        deaths = {number: trial.deaths() for number, trial in trials.items()}
        left = []
        for row in rows:
            if deaths.get(row.number, 0) < _DEATHS:
                left.append(row)
                continue
            message = f"{_DEATHS} workers died while they transcribed it (too little memory?)"
            yield self._failed(row, Fault("EngineError", f"{row.path}: {message}"))
            trials[row.number].end()
        for group in [[row] for row in left] if any(deaths.values()) else [left]:
            under_way = [trials[row.number] for row in group if not row.fault]
            for trial in under_way:
                trial.begin()
            yield from self.run(iter(group))
            for trial in under_way:
                trial.end()

    def share(self, row: Row, number: int) -> Iterator[Done]:
        """Transcribe a share of a recording; its first share is the whole where the engine takes no shares.

        A share that cannot be transcribed is left to `join`.
        """
        parts = self._setup.shares(row)
        assert self._setup.share_s is not None
        if not self._transcriber.splits(self._setup.share_s):
            if number == 0:
                yield from self.run_guarded([row])
            return
        trial = self._trial(row, f"share-{number}.journal")
        if self.target.done(row) or trial.deaths() >= _DEATHS:
            return
        trial.begin()
        try:
            with self._batch as batch:
                failure = batch.share(self._item(row), parts[number])
            note = "" if failure is None else f"share {number} of {row.path}: {failure.error}"
        except AudioError as error:
            note = f"share {number} of {row.path}: {error}"
        trial.end()
        part = parts[number]
        end_s = row.duration_s if part.end_samples is None else audio.to_seconds(part.end_samples)
        seconds = (end_s or 0.0) - audio.to_seconds(part.start_samples)
        yield Done(row.number, row.name, "share", 0.0 if note else seconds, note=note)

    def join(self, row: Row) -> Iterator[Done]:
        """Make the transcript of a recording out of its shares; what they lack is transcribed."""
        assert self._setup.share_s is not None
        if self._transcriber.splits(self._setup.share_s) and not self.target.done(row):
            with self._batch as batch, suppress(AudioError):  # running it says so
                batch.join(self._item(row), self._setup.shares(row))
        for done in self.run_guarded([row]):
            yield replace(done, audio_s=0.0, skipped_s=0.0)  # the shares counted

    @cached_property
    def _batch(self) -> Batch:
        return Batch(
            self._transcriber,
            self.target.transcripts,
            self._setup.formats,
            speakers=self._setup.options.speakers,
            voices=self._voices,
            guarded=True,
        )

    def _window(self, rows: Sequence[Row]) -> Iterator[Done]:
        items: dict[str, Row] = {}
        wanted: list[Item] = []
        for row in rows:
            if row.fault:
                yield Done(row.number, row.name, "failed", note=row.fault)
                continue
            try:
                wanted.append(self._item(row))
                items[row.name] = row
            except SpeakerReasonerError as error:
                yield self._failed(row, _fault(error))
        with self._batch as batch:
            for result in batch.run(wanted):
                row = items[result.item.title]
                try:
                    yield self._ended(row, result)
                finally:
                    if is_bucket(row.path):
                        result.item.path.unlink(missing_ok=True)

    def _ended(self, row: Row, result: Result) -> Done:
        outcome = result.outcome
        if isinstance(outcome, Failure):
            if isinstance(outcome.error, OutputError) and isinstance(
                outcome.error.__cause__, OSError
            ):
                raise outcome.error  # the next one could not be written either
            fault = _fault(outcome.error)
            return self._failed(row, Fault(fault.kind, _said(fault.message, result.item, row)))
        if result.partial:
            return self._failed(
                row, Fault("EngineError", f"{row.path}: {result.note}"), result.files
            )
        names = [self.target.transcripts / name for name in self._files(row)]
        self.target.succeeded(row, names if outcome is not None or result.files else [])
        state = "before" if outcome is None else "done"
        seconds = 0.0 if outcome is None else outcome.duration_s
        files = tuple(map(str, result.files))
        return Done(
            row.number,
            row.name,
            state,
            seconds,
            row.weight_s if outcome is None else 0.0,
            _said(result.note, result.item, row),
            files,
        )

    def _files(self, row: Row) -> Sequence[str]:
        marker = self.target.marker(row)
        return [] if marker is None else list(marker.files)

    def _failed(self, row: Row, fault: Fault, files: Sequence[Path] = ()) -> Done:
        self.target.failed(row, fault)
        written = tuple(map(str, files))
        return Done(row.number, row.name, "failed", 0.0, row.weight_s, fault.message, written)

    def _item(self, row: Row) -> Item:
        """The recording of a row; raises `AudioError` where its file cannot be looked at."""
        if is_bucket(row.path):
            return self._bucket_item(row)
        path = Path(row.path)
        if not row.stretch:
            return Item(path, row.name)
        length_s = audio.probe(path, track=self._setup.options.track).duration_s
        end_s = length_s if row.duration_s is None else row.start_s + row.duration_s
        ends = end_s >= length_s - _SLACK_S
        if row.start_s == 0.0 and row.channel is None and abs(end_s - length_s) <= _SLACK_S:
            return Item(path, row.name)
        if ends and end_s <= length_s + _SLACK_S:
            end_s = length_s
        start, end = audio.to_samples(row.start_s), audio.to_samples(end_s)
        place = {"samples": [start, end]} | (
            {} if row.channel is None else {"channel": row.channel}
        )
        return Item(
            path,
            row.name,
            source=lambda: {**fingerprint(path), **place},
            samples=lambda: self._cut(path, start, end, row.channel),
        )

    def _bucket_item(self, row: Row) -> Item:
        place, _, name = row.path.rpartition("/")
        suffix = Path(name).suffix
        path = self.target.state / "fetched" / f"{file_name(row.name)}{suffix}"

        def fetch() -> None:
            try:
                Bucket(place).fetch(name, path)
            except DataError as error:
                raise AudioError(str(error).replace(place, row.path, 1)) from error

        size, version = row.size, row.version
        if not version:  # named in a manifest
            try:
                size, version = Bucket(place).version(name)
            except DataError as error:
                raise AudioError(f"{row.path}: {error}") from error
        about: dict[str, Any] = {"address": row.path, "size": size, "version": version}
        if not row.stretch:
            return Item(path, row.name, source=lambda: about, fetch=fetch)
        start = audio.to_samples(row.start_s)
        assert row.duration_s is not None
        end = audio.to_samples(row.start_s + row.duration_s)
        place_of = {"samples": [start, end], "channel": row.channel}

        def samples() -> audio.Samples:
            length_s = audio.probe(path, track=self._setup.options.track).duration_s
            last = audio.to_samples(length_s)
            rounded = last <= end <= last + audio.to_samples(_SLACK_S)
            return self._cut(path, start, last if rounded else end, row.channel)

        return Item(path, row.name, lambda: {**about, **place_of}, samples, fetch)

    def _cut(self, path: Path, start: int, end: int, channel: int | None) -> audio.Samples:
        options = self._setup.options
        if options.channels == SEPARATE:
            count = audio.channel_count(path, track=options.track)
            return np.stack(
                [
                    audio.load_slice(path, start, end, channel=n, track=options.track)
                    for n in range(count)
                ]
            )
        chosen = options.channel if channel is None else channel
        if audio.probe(path, track=options.track).duration_s <= _HELD_S:
            whole = _load(path, chosen, options.track, path.stat().st_mtime_ns)
            if len(whole) >= end:
                return whole[start:end]
        return audio.load_slice(path, start, end, channel=chosen, track=options.track)

    def _trial(self, row: Row, journal: str) -> "_Trial":
        stem = self.target.state / file_name(row.name)
        kept = stem.with_name(f"{stem.name}.{journal}")
        return _Trial(kept.with_name(f"{kept.name}.trial"), kept)


@dataclass(frozen=True, slots=True)
class _Trial:
    """The attempts at something, counted in a file while it is under way: one that is there after its worker
    has died tells of it. What is in the journal by then makes it another thing."""

    path: Path
    journal: Path

    def deaths(self) -> int:
        """How many workers died since it last got further."""
        try:
            trial = json.loads(self.path.read_text(encoding="utf-8"))
            return int(trial["begun"]) if trial["kept"] == self._kept() else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def begin(self) -> None:
        text = json.dumps({"begun": self.deaths() + 1, "kept": self._kept()})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}; free some space, and run the same command again"
            ) from error

    def end(self) -> None:
        self.path.unlink(missing_ok=True)

    def _kept(self) -> int:
        try:
            return self.journal.stat().st_size
        except OSError:
            return 0


@lru_cache(maxsize=1)  # stretches of a recording follow each other
def _load(path: Path, channel: int | None, track: int | None, _version: int) -> audio.Samples:
    return audio.load(path, channel=channel, track=track)


def _fault(error: SpeakerReasonerError) -> Fault:
    return Fault(type(error).__name__, str(error))


def _said(message: str, item: Item, row: Row) -> str:
    """A message in the words of the source: where the file was fetched to is nobody's concern."""
    return message.replace(str(item.path), row.path) if is_bucket(row.path) else message
