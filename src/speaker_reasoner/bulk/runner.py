"""Transcribes rows of a listing with one engine; writes the outcome of each to the target, and reports it.

One process and each of several workers do the same. The death of a worker costs what was not in a journal yet; the
worker that is given its rows next continues.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from .target import RowFailure, Target

WINDOW = 256
"""Rows that are given to `Batch` together (assumed); memory grows with it, and not with the number of all rows."""
_DEATHS = 5
"""A recording on which so many workers died without getting further is given up (assumed)."""
_SLACK_S = 0.1
"""Largest difference between a manifest's duration, which is rounded, and the file's (assumed)."""
_HELD_S = 3600.0
"""Longest recording that is kept in memory while stretches are cut from it (assumed)."""


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Settings for transcribing rows; they can be sent to other processes.

    Attributes:
        engine: loads the engine.
        target, work: as for `Target`.
        formats: keys of `FORMATS`, of the files of each recording.
        share_s: recordings of at least twice this length are divided into shares of it; none is if `None`.
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
    """The outcome of a row.

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
    """Transcribes rows with an engine of its own. The caller keeps other processes from these rows.

    Raises:
        SpeakerReasonerError: the engine cannot be loaded, or an option does not fit it.
    """

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self.target = Target(settings.target, settings.work)
        self._transcriber: Transcriber = settings.options.transcriber(settings.engine())
        self._voices = settings.options.enrolled(self._transcriber)

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
        """Transcribe rows as `run` does, and give up those on which workers died `_DEATHS` times.

        After a death each row is transcribed alone, so that the row that kills its worker is identified.
        """
        trials = {row.number: self._trial(row, "journal") for row in rows if not row.fault}
        deaths = {number: trial.deaths() for number, trial in trials.items()}
        left = []
        for row in rows:
            if deaths.get(row.number, 0) < _DEATHS:
                left.append(row)
                continue
            message = f"{_DEATHS} workers died while they transcribed it (too little memory?)"
            yield self._failed(row, RowFailure("EngineError", f"{row.path}: {message}"))
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
        parts = self._settings.shares(row)
        assert self._settings.share_s is not None
        if not self._transcriber.splits(self._settings.share_s):
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
        """Make the transcript of a recording out of its shares; transcribe chunks that they lack.

        Nothing is left to do where the engine takes no shares.
        """
        assert self._settings.share_s is not None
        if not self._transcriber.splits(self._settings.share_s):
            return
        before = self.target.done(row)
        if not before:
            with self._batch as batch, suppress(AudioError):  # running it says so
                batch.join(self._item(row), self._settings.shares(row))
        for done in self.run_guarded([row]):
            yield (
                done if before else replace(done, audio_s=0.0, skipped_s=0.0)
            )  # the shares counted
        for part in self._settings.shares(
            row
        ):  # given up, cut off, or left by a death after the marker
            trial = self._trial(row, f"share-{part.number}.journal")
            trial.end()
            trial.journal.unlink(missing_ok=True)
            if before:
                trial.journal.with_suffix(".whole").unlink(missing_ok=True)

    @cached_property
    def _batch(self) -> Batch:
        return Batch(
            self._transcriber,
            self.target.transcripts,
            self._settings.formats,
            speakers=self._settings.options.speakers,
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
                yield self._failed(row, _failure(error))
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
            failure = _failure(outcome.error)
            return self._failed(
                row, RowFailure(failure.kind, _in_source(failure.message, result.item, row))
            )
        if result.partial:
            return self._failed(
                row, RowFailure("EngineError", f"{row.path}: {result.note}"), result.files
            )
        marker = self.target.marker(row)
        anew = marker is not None and (outcome is not None or result.files)
        names = marker.files if marker is not None and anew else ()
        self.target.succeeded(row, [self.target.transcripts / name for name in names])
        state = "before" if outcome is None else "done"
        seconds = 0.0 if outcome is None else outcome.duration_s
        files = tuple(map(str, result.files))
        return Done(
            row.number,
            row.name,
            state,
            seconds,
            row.weight_s if outcome is None else 0.0,
            _in_source(result.note, result.item, row) or self._lost(row, state),
            files,
        )

    def _lost(self, row: Row, state: str) -> str:
        """Return a remark on a recording that is done, and whose file was deleted since."""
        if state != "before" or is_bucket(row.path) or Path(row.path).exists():
            return ""
        return f"{row.path}: is not there any more; its transcript is kept"

    def _failed(self, row: Row, failure: RowFailure, files: Sequence[Path] = ()) -> Done:
        self.target.failed(row, failure)
        written = tuple(map(str, files))
        return Done(row.number, row.name, "failed", 0.0, row.weight_s, failure.message, written)

    def _item(self, row: Row) -> Item:
        """The recording of a row; raises `AudioError` where its file cannot be looked at."""
        if is_bucket(row.path):
            return self._bucket_item(row)
        path = Path(row.path)
        if not path.exists() and (about := self._transcribed(row)) is not None:
            return Item(path, row.name, source=lambda: about)
        if not row.stretch:
            return Item(path, row.name)
        length_s = audio.probe(path, track=self._settings.options.track).duration_s
        end_s = length_s if row.duration_s is None else row.start_s + row.duration_s
        if abs(end_s - length_s) <= _SLACK_S:
            if row.start_s == 0.0 and row.channel is None:
                return Item(path, row.name)
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

    def _transcribed(self, row: Row) -> Mapping[str, Any] | None:
        """The recording, or stretch of one, that a row's transcript is of; `None` where that is another, or there is
        no transcript."""
        marker = self.target.marker(row)
        about = None if marker is None else marker.about.get("file")
        if marker is None or marker.path != row.path or not isinstance(about, Mapping):
            return None
        start, end = about.get("samples") or (0, audio.to_samples(marker.measured["audio_s"]))
        if not row.stretch:
            return about if "samples" not in about else None
        wanted = row.start_s + (row.duration_s or 0.0)
        same = start == audio.to_samples(row.start_s) and about.get("channel") == row.channel
        return about if same and abs(audio.to_seconds(end) - wanted) <= _SLACK_S else None

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
            length_s = audio.probe(path, track=self._settings.options.track).duration_s
            last, slack = audio.to_samples(length_s), audio.to_samples(_SLACK_S)
            return self._cut(path, start, last if last <= end <= last + slack else end, row.channel)

        return Item(path, row.name, lambda: {**about, **place_of}, samples, fetch)

    def _cut(self, path: Path, start: int, end: int, channel: int | None) -> audio.Samples:
        options = self._settings.options
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
        kept = self.target.file(row, journal)
        return _Trial(kept.with_name(f"{kept.name}.trial"), kept)


@dataclass(frozen=True, slots=True)
class _Trial:
    """Counts the deaths of workers on a recording, or on a share of one.

    Its file exists while a worker transcribes: a file that is left over shows that the worker died. Deaths are
    counted anew when the journal has grown.
    """

    path: Path
    journal: Path

    def deaths(self) -> int:
        """Return how many workers died since the journal last grew."""
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


def _failure(error: SpeakerReasonerError) -> RowFailure:
    return RowFailure(type(error).__name__, str(error))


def _in_source(message: str, item: Item, row: Row) -> str:
    """A message that names the address of a recording, and not the file that it was fetched to."""
    return message.replace(str(item.path), row.path) if is_bucket(row.path) else message
