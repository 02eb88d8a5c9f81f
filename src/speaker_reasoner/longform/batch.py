"""Transcribes many recordings into a folder; a kill at any moment costs the chunks under way at most.

After a kill, the same call continues, and ends with the same files as without one. A subfolder beside the
transcripts holds a journal of finished chunks for each recording under way, and a marker for each finished one.
The marker is written after the transcript's files. It states what they were made from: the recording, the
model, the version and the settings. While all of these are unchanged, the recording is skipped.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import BaseFileLock

from ..audio import Samples
from ..engines.base import OUTSIDE
from ..errors import FormatError, OutputError, SettingsError, SpeakerReasonerError
from ..formats import FORMATS, file_name, read, write
from ..formats.files import remove_temporary, set_aside
from ..locks import keep_others_out, make_folder
from ..transcript import Transcript, recording_name
from ..voices.people import EnrolledSpeaker
from .channels import AnyRecording
from .journal import Journal, OtherJournal, fingerprint, stopwatch
from .marker import Marker, file_hash
from .recording import Failure, Listener, Progress, RecordingState
from .rounds import in_order
from .shares import Share, join
from .transcriber import Transcriber

STATE = ".speaker-reasoner"
"""Name of the folder of journals and markers."""


@dataclass(frozen=True, slots=True)
class Item:
    """A recording to be transcribed.

    Attributes:
        path: of its file.
        name: of its transcript; that of the file by default.
        source: returns what identifies the recording and its version; by default the fingerprint of
            `path`.
        samples: returns the samples, where they are not the whole file; see `Transcriber.open`.
        fetch: brings the file to `path`, where it is somewhere else; called before it is opened.
    """

    path: Path
    name: str = ""
    source: Callable[[], Mapping[str, Any]] | None = None
    samples: Callable[[], Samples] | None = None
    fetch: Callable[[], None] | None = None

    @property
    def title(self) -> str:
        return self.name or recording_name(self.path)

    def identity(self) -> Mapping[str, Any]:
        return fingerprint(self.path) if self.source is None else self.source()


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a recording.

    Attributes:
        item: the recording.
        outcome: its transcript, or why there is none; `None` where an earlier call had made it.
        files: that were written by this call.
        note: why a recording with a transcript or journal was transcribed again, or another remark.
        partial: whether stretches are missing because a server failed on them: the files are written, and
            the same call transcribes it again.
    """

    item: Item
    outcome: Transcript | Failure | None
    files: tuple[Path, ...] = ()
    note: str = ""
    partial: bool = False


class Batch:
    """Transcribes recordings into a folder; a context, within which other processes are kept out.

    Args:
        transcriber: how.
        folder: of the transcripts; `None` writes and keeps nothing.
        formats: keys of `FORMATS`.
        speakers, voices: as for `Transcriber.open`, for every recording.
        guarded: whether the caller sees to it that no other process transcribes these recordings; the
            folder is not locked then.

    Raises:
        OutputError: another process writes there, or the folder cannot be written to.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        folder: Path | None,
        formats: Sequence[str] = (),
        *,
        speakers: tuple[int, int] | None = None,
        voices: Sequence[EnrolledSpeaker] = (),
        guarded: bool = False,
    ) -> None:
        self.transcriber = transcriber
        self._folder = folder
        self._guarded = guarded
        self._formats = tuple(formats)
        self._hints: dict[str, Any] = {"speakers": speakers, "voices": voices}
        self._lap = stopwatch()
        self._lock: BaseFileLock | None = None
        self._joined: dict[str, list[Path]] = {}

    def __enter__(self) -> "Batch":
        if self._folder is not None:
            make_folder(self._state)
            if self._guarded:
                return self
            self._lock = keep_others_out(self._state / "lock", self._folder)
            remove_temporary(self._folder)
            remove_temporary(self._state)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._folder is None or self._lock is None:
            return
        if [path.name for path in self._state.iterdir()] == ["lock"]:  # nothing came of it
            (self._state / "lock").unlink()
            with suppress(OSError):  # it is not empty
                self._state.rmdir()
                self._folder.rmdir()
        self._lock.release()

    def run(self, items: Sequence[Item], listener: Listener | None = None) -> Iterator[Result]:
        """Transcribe the recordings that are not done; results of the done ones come first, then the
        others in order.

        A recording that fails, or whose files cannot be written, is a result too.

        Raises:
            SettingsError: two recordings would have the same files.
            EngineError: the engine failed as a whole.
        """
        if self._folder is not None:
            _check_names(items)
        tasks = []
        for item in items:
            task = _Task(self, item, listener)
            if self._folder is None or (before := self._before(task)) is None:
                tasks.append(task)
            else:
                yield before
        self._lap()
        for task, outcome in in_order(self.transcriber.engine, self.transcriber.batch, tasks):
            yield self._ended(task, outcome)

    def share(self, item: Item, share: Share) -> Failure | None:
        """Transcribe a share of a recording; its chunks are kept for `join`.

        Returns:
            Why it failed, with its finished chunks kept; `None` if it is whole.

        Raises:
            EngineError: the engine failed as a whole.
        """
        task = _Task(self, item, None, share=share)
        try:
            if self._is_whole(item, share):
                return None
        except SpeakerReasonerError as error:
            return Failure(item.title, error)
        [(_, outcome)] = in_order(self.transcriber.engine, self.transcriber.batch, [task])
        if isinstance(outcome, Failure):
            return outcome
        assert task.journal is not None
        try:
            read = None if share.end_samples is not None else task.notices
            task.journal.finish(self._file(item, _share_suffix(share, "whole")), read)
        except SpeakerReasonerError as error:
            return Failure(item.title, error)
        return None

    def join(self, item: Item, shares: Sequence[Share]) -> None:
        """Write the finished chunks of a recording's shares as its journal, from which `run` continues.

        Raises:
            AudioError: the recording cannot be read.
            OutputError: the journal cannot be written.
        """
        paths = [self._file(item, _share_suffix(share, "whole")) for share in shares]
        join(paths, self._file(item, "journal"), self._about(item))
        self._joined[item.title] = paths

    def _is_whole(self, item: Item, share: Share) -> bool:
        path = self._file(item, _share_suffix(share, "whole"))
        if not path.exists():
            return False
        try:
            Journal(path, self._about(item))
        except OtherJournal:
            return False
        return True

    def measured(self, item: Item) -> Mapping[str, Any] | None:
        """Time and counts of a transcript, over all calls; `None` where it is not done."""
        marker = self._marker(item)
        return None if marker is None else marker.measured

    @property
    def _state(self) -> Path:
        assert self._folder is not None
        return self._folder / STATE

    def _file(self, item: Item, suffix: str) -> Path:
        return self._state / f"{file_name(item.title)}.{suffix}"

    def _about(self, item: Item) -> dict[str, Any]:
        about = self.transcriber.about(item.identity(), **self._hints)
        known: dict[str, Any] = json.loads(json.dumps(about))
        return known

    def _open(self, task: "_Task") -> AnyRecording:
        item = task.item
        journal = None
        if item.fetch is not None:
            item.fetch()
        if self._folder is not None:
            suffix = "journal" if task.share is None else _share_suffix(task.share, "journal")
            path = self._file(item, suffix)
            journal, other = Journal.anew(path, self._about(item), self._lap)
            if other is not None:
                task.add(f"begun again: what was kept of it is about another {other}")
        task.journal = journal
        return self.transcriber.open(
            item.path,
            journal=journal,
            name=item.title,
            samples=None if item.samples is None else item.samples(),
            share=task.share,
            **self._hints,
        )

    def _ended(self, task: "_Task", outcome: Transcript | Failure) -> Result:
        if isinstance(outcome, Failure):
            return Result(task.item, outcome, (), task.note)
        failed = sorted(OUTSIDE & set(outcome.info["stops"]))
        if failed:
            task.add(f"not all of it could be transcribed ({', '.join(failed)}); run it again")
        if self._folder is None:
            return Result(task.item, outcome, (), task.note, bool(failed))
        try:
            files = self._keep(task, outcome, done=not failed)
        except SpeakerReasonerError as error:
            return Result(task.item, Failure(task.name, error), (), task.note)
        return Result(task.item, outcome, files, task.note, bool(failed))

    def _keep(self, task: "_Task", transcript: Transcript, *, done: bool) -> tuple[Path, ...]:
        """Write the files, then the marker where the recording is done, then delete the journal."""
        assert self._folder is not None and task.journal is not None
        edited = self._spare_edited(task)
        files = write(transcript, self._folder, self._formats)
        if edited:
            task.add(f"changed by hand, kept as {', '.join(edited)}")
        info = transcript.info
        measured = {
            "audio_s": transcript.duration_s,
            "wall_s": round(task.journal.share_s + self._lap(), 3),
            **{name: info[name] for name in ("turns", "tokens", "stage_s")},
        }
        hashes = {path.name: file_hash(path) for path in files}
        if done:
            where = str(task.item.path.absolute())
            marker = Marker(task.journal.about, hashes, measured, where)
            marker.write(self._file(task.item, "done"))
        task.journal.remove()
        for share in self._joined.pop(task.name, ()):
            share.unlink(missing_ok=True)
        return tuple(files)

    def _belongs_to_another(self, item: Item, marker: Marker) -> bool:
        """Return whether the files are of a recording that is still somewhere else."""
        assert self._folder is not None
        if marker.path is None or Path(marker.path) == item.path.absolute():
            return False
        written = any((self._folder / name).exists() for name in marker.files)
        return written and Path(marker.path).exists()

    def _spare_edited(self, task: "_Task") -> list[str]:
        """Rename files of an earlier call that were changed since; returns their new names."""
        assert self._folder is not None
        marker, names = self._marker(task.item), []
        stem = file_name(task.name)
        for name in self._formats:
            path = self._folder / f"{stem}{FORMATS[name].suffix}"
            written = marker.files.get(path.name) if marker is not None else None
            if written is None or file_hash(path) in (None, written):
                continue
            names.append(set_aside(path, FORMATS[name].suffix).name)
        return names

    def _marker(self, item: Item) -> Marker | None:
        return Marker.read(self._file(item, "done"))

    def _before(self, task: "_Task") -> Result | None:
        """The result of a recording that an earlier call finished; `None` where it must be transcribed."""
        item, marker = task.item, self._marker(task.item)
        if marker is None:
            return None
        try:
            about = self._about(item)
        except SpeakerReasonerError:
            return None  # opening it reports the error
        if other := [key for key in about if about[key] != marker.about.get(key)]:
            if "file" in other and self._belongs_to_another(item, marker):
                error = OutputError(
                    f"{self._folder}: its {file_name(task.name)!r} is the transcript of {marker.path}; "
                    f"choose another folder for {item.path}, or rename it"
                )
                return Result(item, Failure(task.name, error))
            named = [f"{'other' if key == 'settings' else 'another'} {key}" for key in other]
            task.note = f"transcribed again: its transcript is of {' and '.join(named)}"
            return None
        self._file(item, "journal").unlink(missing_ok=True)  # of a kill just after the marker
        return self._files_before(task, marker)

    def _files_before(self, task: "_Task", marker: Marker) -> Result | None:
        """The result of a recording whose files are there, or can be written without the model."""
        assert self._folder is not None
        item, stem = task.item, file_name(task.name)
        paths = {name: self._folder / f"{stem}{FORMATS[name].suffix}" for name in self._formats}
        lacking = [
            n for n, path in paths.items() if path.name not in marker.files or not path.exists()
        ]
        changed = [
            path.name
            for name, path in paths.items()
            if name not in lacking and file_hash(path) != marker.files[path.name]
        ]
        note = (
            f"left as it is: {', '.join(changed)} changed after it was written" if changed else ""
        )
        if not lacking:
            return Result(item, None, (), note)
        whole = self._folder / f"{stem}{FORMATS['json'].suffix}"
        if whole.name not in marker.files or marker.files[whole.name] != file_hash(whole):
            names = ", ".join(paths[name].name for name in lacking)
            source = "" if "json" in lacking else f", nor {whole.name} to make it from"
            task.note = f"transcribed again: {names} is not there{source}"
            return None
        try:
            files = write(read(whole)[0], self._folder, lacking)
            hashes = {**marker.files, **{path.name: file_hash(path) for path in files}}
            replace(marker, files=hashes).write(self._file(item, "done"))
        except (FormatError, OutputError) as error:
            return Result(item, Failure(task.name, error))
        return Result(item, None, tuple(files), note)


@dataclass(slots=True)
class _Task:
    """An item on its way through the rounds."""

    batch: Batch
    item: Item
    listener: Listener | None
    note: str = ""
    journal: Journal | None = None
    share: Share | None = None
    notices: Sequence[str] = ()
    cancelled: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        return self.item.title

    def open(self) -> AnyRecording:
        recording = self.batch._open(self)
        if self.share is not None:
            assert isinstance(recording, RecordingState), "channels are not divided"
            self.notices = recording.notices  # a list that grows while the file is read
        return recording

    def add(self, note: str) -> None:
        """Add to the notes on the recording."""
        self.note += f"; {note}" if self.note else note

    def on_progress(self, progress: Progress) -> None:
        if self.listener is not None:
            self.listener(progress)


def _share_suffix(share: Share, kind: str) -> str:
    return f"share-{share.number}.{kind}"


def _check_names(items: Sequence[Item]) -> None:
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(file_name(item.title), item)
        if other is not item:
            raise SettingsError(
                f"{other.path} and {item.path} would both be written to {file_name(item.title)!r}: "
                "rename one"
            )
