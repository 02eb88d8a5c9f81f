"""A job under way in the worker.

Methods of tasks run on the engine thread; others may be called from other threads.
"""

import asyncio
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from ..errors import AudioError, OutputError, SpeakerReasonerError
from ..formats.words import NATIVE, word_rows
from ..longform import AnyRecording, Failure, Progress, Transcriber
from ..longform.journal import fingerprint
from ..spans import find_overlaps
from ..transcript import Segment, Transcript
from .again import heard_again, labels_heard_again
from .documents import identify, keep_document, load_document
from .events import ANEW, Unnumbered
from .failures import StorageError, as_request_error, passes
from .forms import Hints
from .jobs import Job, damaged
from .lines import CorrectedLine, channel_of
from .openai import confidence_body
from .runs import Defaults, SegmentNumbers, fitting, given_of
from .sound import finish_live, recording_file
from .store import Store

_log = logging.getLogger(__name__)


class JobRun:
    """A job under way: writes its events and its transcript.

    A chunk that is transcribed again becomes a correction; see `again`.

    A failure of the disk or the database does not end it. Its result waits in `due` until `settle` can write it. A run
    that could not continue is `stopped`; after `again` it may be submitted once more, and begins after its last
    finished chunk.

    Args:
        transcriber: opens the recording.
        store: of the job.
        job: queued.
        defaults: for hints that its client did not give.
        resumed: whether a server that stopped had begun it.
        finished: called at the very end, also of a cancelled run.
        trouble: called when the storage fails.

    Attributes:
        lasting: whether no client waits for it on an open connection.
        due: its result, while that cannot be written.
        stopped: whether it waits for the storage to continue.
        problem: of the storage, in words; `None` where there is none.
        leased_until: on the monotonic clock; after that another process may have it.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        store: Store,
        job: Job,
        defaults: Defaults,
        *,
        resumed: bool,
        finished: Callable[["JobRun"], None],
        trouble: Callable[[], None] = lambda: None,
        leased_until: float = math.inf,
    ) -> None:
        self.job = job
        self.name = job.name
        self.client = job.client
        self.lasting = job.waiter is None
        self.cancelled = False
        self.over = False
        self.due: Transcript | Failure | None = None
        self.stopped = False
        self.problem: str | None = None
        self.leased_until = leased_until
        self._transcriber = transcriber
        self._store = store
        self._defaults = defaults
        self._finished = finished
        self._trouble = trouble
        self._log = store.event_log(job, again=resumed)
        self._prefix = "" if job.listen is None else f"{job.revision}."
        self._stream: SegmentNumbers | None = None
        self._unlinked: dict[int, list[CorrectedLine]] = {}
        self._recording: AnyRecording | None = None
        self._reached_s = 0.0
        self._chunk = -1
        self._labels: set[str] = set()
        self._watchers: tuple[tuple[asyncio.AbstractEventLoop, asyncio.Event], ...] = ()
        self._settling = threading.Lock()

    @property
    def position_s(self) -> float:
        """Seconds of the recording that are transcribed."""
        finished_s = self._recording.position_s if self._recording is not None else 0.0
        return min(max(self._reached_s, finished_s), self.job.duration_s)

    @property
    def speakers(self) -> int:
        """Number of speakers in the segments that were sent so far."""
        return len(self._labels)

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """Give an event that is set, from now on, whenever the state of the run changes."""
        watcher = (asyncio.get_running_loop(), asyncio.Event())
        self._watchers = (*self._watchers, watcher)
        try:
            yield watcher[1]
        finally:
            self._watchers = tuple(other for other in self._watchers if other is not watcher)

    def open(self) -> AnyRecording:
        self.check_lease()
        known: dict[str, Any] = {}
        if self.job.listen is None:
            live_s = finish_live(self._store.folder(self.job), self.name)
            known = {} if live_s is None else {"duration_s": live_s}
        if self._change(status="running", **known):
            self._notify()
        if self.job.listen is None:
            self._recording = self._open_whole()
        else:
            corrected = load_document(self._store, self.job)[0].corrected()
            path = recording_file(self._store.folder(self.job))
            transcriber = fitting(self._transcriber, path)
            self._recording = transcriber.listen_again(path, corrected, self.job.listen)
        return self._recording

    def recorded(self, duration_s: float) -> None:
        """Note that its live recording is complete, and how long it is."""
        self._change(duration_s=duration_s)
        self._notify()

    def _open_whole(self) -> AnyRecording:
        """Open the whole recording at the end of its journal.

        A journal of another version or model, or of a store that was copied, is begun anew.
        """
        folder = self._store.folder(self.job)
        given = given_of(
            folder,
            Hints(speakers=self.job.speakers, language=None).count,
            self.job.voices,
            self._transcriber.settings.witness,
            self._defaults,
        )
        path = recording_file(folder)
        transcriber = fitting(self._transcriber, path)
        given["language"] = self.job.language
        about = transcriber.about(fingerprint(path), **given)
        journal, other = self._store.journal(self.job, about)
        if other is not None:
            _log.warning("%s begins anew: its journal is about another %s", self.job.id, other)
            self._log = self._store.event_log(self.job)
        return transcriber.open(path, journal=journal, **given)

    def on_progress(self, progress: Progress) -> None:
        self.check_lease()
        chunk = progress.chunk if self.job.listen is None else self.job.listen
        stream = self._stream = self._stream or SegmentNumbers(self._sent_before(chunk))
        event = progress.event
        if event.speakers is not None:
            span = {"start": progress.start_s, "end": progress.end_s}
            self._log.append("overview", {"chunk": chunk, **span, "speakers": list(event.speakers)})
        for one in stream.add(progress):
            self._labels.add(one.segment.speaker)
            line = CorrectedLine(f"{self._prefix}{one.number}", one.segment, chunk, event.turn)
            self._log.append(*self._line(line, one.overlap))
            self._unlinked.setdefault(chunk, []).append(line)
        if self.job.listen is None:
            self._tell_links(chunk)
        if progress.boxed is not None:
            start_s, end_s = progress.boxed
            self._log.append(
                "box", {"chunk": chunk, "turn": event.turn + 1, "start": start_s, "end": end_s}
            )
        self._reached_s = progress.boxed[0] if progress.boxed else progress.end_s
        if progress.chunk > self._chunk:  # the storage works again
            self._chunk, self.problem = progress.chunk, None
        self._notify()

    def ended(self, result: Transcript | Failure) -> None:
        if isinstance(result, Failure) and passes(result.error):
            self.stopped = True
            self._trip(result.error)
            return
        self.due = result
        self.settle()

    def settle(self) -> None:
        """Write the result, once, as far as the storage allows; the engine thread and the keeper both call it."""
        with self._settling:
            self._settle_once()

    def _settle_once(self) -> None:
        result = self.due
        if result is None or self.over:
            return
        try:
            self.check_lease()
            self._settle(result)
        except (OutputError, StorageError) as error:
            self._log.close()
            self._log = self._store.event_log(self.job, again=True)
            self._trip(error)
            return
        self.due = self.problem = None
        self.close()

    def again(self) -> None:
        """Prepare to begin once more, after the last finished chunk."""
        self._log.close()
        self._log = self._store.event_log(self.job, again=True)
        self._stream, self._recording, self._reached_s = None, None, 0.0
        self._unlinked.clear()
        self.stopped = False
        self._notify()

    def _settle(self, result: Transcript | Failure) -> None:
        try:
            if isinstance(result, Failure):
                self._fail(result)
            elif self.job.listen is None:
                self._keep(result)
            else:
                self._correct(result)
        except SpeakerReasonerError as error:
            if passes(error):
                raise
            self._fail(Failure(self.job.name, error))

    def _trip(self, error: SpeakerReasonerError) -> None:
        self.problem = str(as_request_error(error))
        _log.warning("%s waits for the storage: %s", self.job.id, error)
        self._trouble()
        self._notify()

    def check_lease(self) -> None:
        """Check that no other process may be writing about the job.

        Raises:
            StorageError: the lease was not renewed in time.
        """
        if time.monotonic() > self.leased_until:
            raise StorageError(
                503,
                "the server's database was out of reach for too long; the job goes on by itself",
                code="database_unavailable",
            )

    def rest(self) -> None:
        """Leave the job to the next start, because the server stops."""
        self._log.close()

    def close(self) -> None:
        """End the run and its log of events."""
        self._log.close()
        self.over = True
        self._finished(self)
        self._notify()

    def _change(self, *, events: Sequence[Unnumbered] = (), **values: Any) -> bool:
        """Change the job, unless another process ended it; return whether it was changed."""
        values["changed"] = self._store.now()
        changed = self._store.change(self.job, events=events, **values)
        if changed:
            self.job = replace(self.job, **values)
        return changed

    def _fail(self, failure: Failure) -> None:
        known = failure.error
        if isinstance(known, AudioError):  # it was decoded before: the disk is to blame
            _log.warning("%s: %s", self.job.id, known)
            known = damaged("the recording or a voice")
        error = as_request_error(known).body()["error"]
        if self.job.listen is None:
            self._change(status="failed", error=error)
            return
        events = [_done(self.job.revision)]
        if self._change(status="done", listen=None, error=error, events=events):
            self._tell(events)

    def _keep(self, result: Transcript) -> None:
        """Store the transcript of the whole recording."""
        stem = re.sub(r"(?<=.)\.\w{1,5}$", "", self.job.name)
        transcript = replace(result, recording=stem)
        lines, labels = identify(transcript, self._sent_segments(), self._prefix)
        keep_document(self._store, self.job, transcript, lines)
        speaker_count = len(transcript.speakers)
        events = self._end(lines, labels, self.job.revision)
        if self.job.status == "done" or self._change(
            status="done", error=None, speaker_count=speaker_count, events=events
        ):
            self._tell(events)

    def _correct(self, result: Transcript) -> None:
        """Replace a chunk by its new transcript."""
        assert self.job.listen is not None, "else it was settled"
        document, _ = load_document(self._store, self.job)
        labels = labels_heard_again(document, self.job.listen, result)
        segments = [replace(s, speaker=labels[s.speaker]) for s in result.segments]
        of_chunk: dict[str, int] = {"chunk": self.job.listen}
        if (channel := channel_of(document.transcript, self.job.listen)) is not None:
            of_chunk["channel"] = channel
        shifted = replace(
            result.with_segments(segments),
            traces=tuple({**trace, **of_chunk} for trace in result.traces),
        )
        lines, sent_labels = identify(shifted, self._sent_segments(), self._prefix)
        operation = heard_again(lines, shifted, keep=self.job.listen_keep)
        now, revision = self._store.now(), self.job.revision + 1
        events = self._end(lines, sent_labels, revision)
        if self._store.heard_again(self.job, operation, now, events):
            self.job = replace(self.job, status="done", listen=None, revision=revision, changed=now)
            with suppress(OutputError):  # it is in the document, which the last event leads to
                self._tell(events)

    def _line(self, line: CorrectedLine, overlap: bool) -> Unnumbered:
        segment = line.segment
        return (
            "segment",
            {
                "chunk": line.chunk,
                "turn": line.turn,
                "id": line.id,
                "start": segment.start_s,
                "end": segment.end_s,
                "speaker": segment.speaker,
                "gender": segment.gender,
                "text": segment.text,
                "confidence": confidence_body(segment),
                "overlap": overlap,
                **({"words": _word_rows(segment)} if self.job.waiter is not None else {}),
            },
        )

    def _tell_links(self, chunk: int) -> None:
        """Send the labels under which the speakers of earlier chunks were linked meanwhile."""
        for number in sorted(n for n in self._unlinked if n < chunk):
            linked = getattr(self._recording, "linked", lambda _: ())(number)
            if linked is None:
                return
            known = {(s.start_s, s.end_s, s.text): s.speaker for s in linked}
            labels = {}
            for line in self._unlinked.pop(number):
                was = line.segment
                now = known.get((was.start_s, was.end_s, was.text), was.speaker)
                if now != was.speaker:
                    labels[line.id] = now
            if labels:
                self._log.append("relabel", {"labels": labels})
            if self.job.waiter is not None:
                self._log.append("linked", {"chunk": number, "labels": labels})

    def _end(
        self, lines: Sequence[CorrectedLine], labels: Mapping[str, str], revision: int
    ) -> list[Unnumbered]:
        """Return the last events: lines that no turn has sent (a later pass added them, or a kill came just as their
        turn ended), new labels, and the end."""
        overlaps = find_overlaps([line.segment for line in lines])
        pairs = zip(lines, overlaps, strict=True)
        events = [self._line(line, overlap) for line, overlap in pairs if line.turn is None]
        relabel = [("relabel", {"labels": labels})] if labels else []
        return [*events, *relabel, _done(revision)]

    def _tell(self, events: Sequence[Unnumbered]) -> None:
        """Send the last events, where they were not written together with the end."""
        if not self._store.shared:
            for name, data in events:
                self._log.append(name, data)

    def _sent_before(self, chunk: int) -> int:
        """Return how many segments of chunks before this one were sent to clients before a restart."""
        return sum(row["chunk"] < chunk for row in self._sent_segments())

    def _sent_segments(self) -> list[dict[str, Any]]:
        """Return the data of the segments that this run, or the one it continues, has sent."""
        rows: dict[str, dict[str, Any]] = {}
        for event in self._store.event_reader(self.job).new():
            if event.name == ANEW:
                rows.clear()
            elif event.name == "segment":
                rows[event.data["id"]] = event.data
            elif event.name == "relabel":
                for one, label in event.data["labels"].items():
                    if one in rows:
                        rows[one] = {**rows[one], "speaker": label}
        own = self._prefix.rstrip(".")
        return [row for row in rows.values() if row["id"].rpartition(".")[0] == own]

    def _notify(self) -> None:
        for loop, event in self._watchers:
            loop.call_soon_threadsafe(event.set)


def _word_rows(segment: Segment) -> list[dict[str, Any]] | None:
    return None if segment.words is None else word_rows(segment.words, NATIVE)


def _done(revision: int) -> Unnumbered:
    return "done", {"revision": revision}
