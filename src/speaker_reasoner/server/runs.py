"""A recording on its way through the worker: for a request that waits, or for a job.

Methods of tasks run on the engine thread; what asks about them runs elsewhere.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import AudioError, SpeakerReasonerError
from ..formats import read, render, write_text_atomically
from ..longform import AnyRecording, Failure, Progress, Transcriber
from ..longform.journal import Journal, fingerprint
from ..spans import find_overlaps
from ..spans import overlap as overlap_of
from ..transcript import Segment, Transcript
from ..voices.clips import EnrolmentClip, load_clip
from ..voices.enrolment import doubts
from ..voices.people import EnrolledSpeaker
from ..voices.store import StoredClip
from ..voices.witness import Witness
from .corrections import CorrectedLine, Document, History, heard_again, labels_heard_again, replay
from .events import EventLog, EventReader
from .jobs import Job, Store, damaged, undamaged
from .openai import Hints, as_request_error, confidence_body

_log = logging.getLogger(__name__)

EVENTS = "events.jsonl"
AUDIO = "audio.wav"
_JOURNAL = "journal.jsonl"
_TRANSCRIPT = "transcript.json"
_LINES = "lines.json"


@dataclass(frozen=True, slots=True)
class ToldSegment:
    """A segment as it was told: its number, and whether somebody else talks in it, so far."""

    number: int
    segment: Segment
    overlap: bool


class Told:
    """Numbers the segments of a recording as its turns are told."""

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._chunk: list[Segment] = []
        self._start_s = -1.0

    def add(self, progress: Progress) -> list[ToldSegment]:
        """The segments of one more turn; those of other chunks do not overlap them."""
        if progress.start_s != self._start_s:
            self._start_s, self._chunk = progress.start_s, []
        told = []
        for segment in progress.segments:
            overlap = any(
                other.speaker != segment.speaker and overlap_of(segment, other)
                for other in self._chunk
            )
            self._chunk.append(segment)
            told.append(ToldSegment(self._next, segment, overlap))
            self._next += 1
        return told


def voice_file(folder: Path, number: int) -> Path:
    """Where the n-th clip of a known voice lies."""
    return folder / f"voice-{number}.wav"


def spoken_file(voice: Path) -> Path:
    """Where it is written down in which stretches of a clip somebody speaks, if a store knew it."""
    return voice.with_suffix(".json")


def _load_voice(folder: Path, number: int) -> EnrolmentClip:
    path = voice_file(folder, number)
    if not spoken_file(path).exists():
        return load_clip(path)
    try:
        spoken = tuple((float(a), float(b)) for a, b in json.loads(spoken_file(path).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise AudioError(f"{path}: {error}") from error
    return StoredClip(path, spoken).load()


def _voices(folder: Path, names: Sequence[str], witness: Witness | None) -> list[EnrolledSpeaker]:
    """Known voices, the clips of one name together, with what a witness says against them."""
    people: dict[str, list[EnrolmentClip]] = {}
    for number, name in enumerate(names):
        clip = _load_voice(folder, number)
        shown = replace(clip, path=Path(f"known_speaker_references[{number}]"))
        people.setdefault(name, []).append(shown)
    said = doubts(people, witness) if witness is not None and people else {}
    return [
        EnrolledSpeaker(
            name, tuple(clip.samples for clip in clips), doubts=tuple(said.get(name, ()))
        )
        for name, clips in people.items()
    ]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What is taken of a recording of which a client says nothing else.

    Attributes:
        speakers: fewest and most.
        voices: people who may be in it.
    """

    speakers: tuple[int, int] | None = None
    voices: Sequence[EnrolledSpeaker] = ()


def _given(
    folder: Path,
    speakers: tuple[int, int] | None,
    names: Sequence[str],
    witness: Witness | None,
    defaults: Defaults,
) -> dict[str, Any]:
    """What is known of a recording beforehand, as `Transcriber.open` takes it."""
    voices = _voices(folder, names, witness) if names else defaults.voices
    return {"speakers": speakers or defaults.speakers, "voices": voices}


class RequestRun:
    """A recording that a connection waits for.

    Args:
        transcriber: opens it.
        folder: with its audio and voices.
        hints: of the request.
        defaults: where it has none.
    """

    lasting = False
    name = "request"

    def __init__(
        self, transcriber: Transcriber, folder: Path, hints: Hints, defaults: Defaults
    ) -> None:
        self.cancelled = False
        self._transcriber = transcriber
        self._folder = folder
        self._hints = hints
        self._defaults = defaults
        self._told = Told()
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[list[ToldSegment] | Transcript | Failure] = asyncio.Queue()

    def open(self) -> AnyRecording:
        return self._transcriber.open(
            self._folder / AUDIO,
            **_given(
                self._folder,
                self._hints.count,
                self._hints.known_speaker_names,
                self._transcriber.settings.witness,
                self._defaults,
            ),
        )

    def told(self, progress: Progress) -> None:
        if segments := self._told.add(progress):
            self._loop.call_soon_threadsafe(self._news.put_nowait, segments)

    def ended(self, result: Transcript | Failure) -> None:
        self._loop.call_soon_threadsafe(self._news.put_nowait, result)

    async def news(self) -> AsyncIterator[list[ToldSegment] | Transcript]:
        """Segments as they are told; the transcript last.

        Raises:
            SpeakerReasonerError: it failed.
        """
        while True:
            item = await self._news.get()
            if isinstance(item, Failure):
                raise item.error
            yield item
            if isinstance(item, Transcript):
                return

    async def transcript(self) -> Transcript:
        """The transcript; raises as `news`."""
        async for item in self.news():
            if isinstance(item, Transcript):
                return item
        raise AssertionError


class JobRun:
    """A job on its way: tells its events, keeps its transcript.

    A chunk that is heard again becomes a correction; see `corrections.heard_again`.

    Args:
        transcriber: opens the recording.
        store: of the job.
        job: queued.
        defaults: for what its client did not say.
        resumed: whether a server that stopped had begun it.
        finished: called at the very end, also of a cancelled run.
    """

    lasting = True

    def __init__(
        self,
        transcriber: Transcriber,
        store: Store,
        job: Job,
        defaults: Defaults,
        *,
        resumed: bool,
        finished: Callable[["JobRun"], None],
    ) -> None:
        self.job = job
        self.name = job.name
        self.cancelled = False
        self.over = False
        self._transcriber = transcriber
        self._store = store
        self._defaults = defaults
        self._folder = store.folder(job)
        self._finished = finished
        self._log = EventLog(self._folder / EVENTS, again=resumed)
        self._prefix = "" if job.listen is None else f"{job.revision}."
        self._told: Told | None = None
        self._recording: AnyRecording | None = None
        self._reached_s = 0.0
        self._labels: set[str] = set()
        self._watchers: tuple[tuple[asyncio.AbstractEventLoop, asyncio.Event], ...] = ()

    @property
    def position_s(self) -> float:
        """How much of the recording was heard."""
        finished_s = self._recording.position_s if self._recording is not None else 0.0
        return min(max(self._reached_s, finished_s), self.job.duration_s)

    @property
    def speakers(self) -> int:
        """How many were told so far."""
        return len(self._labels)

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set, from now on, whenever something about the run changes."""
        watcher = (asyncio.get_running_loop(), asyncio.Event())
        self._watchers = (*self._watchers, watcher)
        try:
            yield watcher[1]
        finally:
            self._watchers = tuple(other for other in self._watchers if other is not watcher)

    def open(self) -> AnyRecording:
        if self._change(status="running"):
            self._notify()
        if self.job.listen is None:
            self._recording = self._open_whole()
        else:
            corrected = load_document(self._store, self.job)[0].corrected()
            path = self._folder / AUDIO
            self._recording = self._transcriber.listen_again(path, corrected, self.job.listen)
        return self._recording

    def _open_whole(self) -> AnyRecording:
        """The whole recording, from where its journal ends.

        A journal of another version or model, or of a store that was copied, begins anew.
        """
        given = _given(
            self._folder,
            Hints(speakers=self.job.speakers).count,
            self.job.voices,
            self._transcriber.settings.witness,
            self._defaults,
        )
        path = self._folder / AUDIO
        about = self._transcriber.about(fingerprint(path), **given)
        journal, other = Journal.anew(self._folder / _JOURNAL, about)
        if other is not None:
            _log.warning("%s begins anew: its journal is about another %s", self.job.id, other)
            (self._folder / EVENTS).unlink(missing_ok=True)
            self._log = EventLog(self._folder / EVENTS)
        return self._transcriber.open(path, journal=journal, **given)

    def told(self, progress: Progress) -> None:
        chunk = progress.chunk if self.job.listen is None else self.job.listen
        told = self._told = self._told or Told(self._told_before(chunk))
        event = progress.event
        if event.speakers is not None:
            span = {"start": progress.start_s, "end": progress.end_s}
            self._log.append("overview", {"chunk": chunk, **span, "speakers": list(event.speakers)})
        for one in told.add(progress):
            self._labels.add(one.segment.speaker)
            line = CorrectedLine(f"{self._prefix}{one.number}", one.segment, chunk, event.turn)
            self._tell_line(line, one.overlap)
        if progress.boxed is not None:
            start_s, end_s = progress.boxed
            self._log.append(
                "box", {"chunk": chunk, "turn": event.turn + 1, "start": start_s, "end": end_s}
            )
        self._reached_s = progress.boxed[0] if progress.boxed else progress.end_s
        self._notify()

    def ended(self, result: Transcript | Failure) -> None:
        try:
            if isinstance(result, Failure):
                self._fail(result)
            elif self.job.listen is None:
                self._keep(result)
            else:
                self._correct(result)
        except SpeakerReasonerError as error:
            self._fail(Failure(self.job.name, error))
        finally:
            self.close()

    def close(self) -> None:
        """Nothing more will come."""
        self._log.close()
        self.over = True
        self._finished(self)
        self._notify()

    def _change(self, **values: Any) -> bool:
        """Change the job, unless somebody else ended it."""
        changed = self._store.change(self.job, **values)
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
        elif self._change(status="done", listen=None, error=error):
            self._log.append("done", {"revision": self.job.revision})

    def _keep(self, result: Transcript) -> None:
        """Store the transcript of the whole recording."""
        stem = re.sub(r"(?<=.)\.\w{1,5}$", "", self.job.name)
        transcript = replace(result, recording=stem)
        lines, labels = _identify(transcript, self._segments_told(), self._prefix)
        rows = [[line.id, line.chunk, line.turn] for line in lines]
        write_text_atomically(self._folder / _LINES, json.dumps(rows))
        write_text_atomically(self._folder / _TRANSCRIPT, render(transcript, "json"))
        found = len(transcript.speakers)
        if not self._change(status="done", error=None, found=found):
            return
        self._tell_end(lines, labels)

    def _correct(self, result: Transcript) -> None:
        """Put a chunk that was heard again in its old one's place."""
        assert self.job.listen is not None
        document, _ = load_document(self._store, self.job)
        labels = labels_heard_again(document, self.job.listen, result)
        segments = [replace(s, speaker=labels[s.speaker]) for s in result.segments]
        heard = replace(
            result.with_segments(segments),
            traces=tuple({**trace, "chunk": self.job.listen} for trace in result.traces),
        )
        lines, labels_told = _identify(heard, self._segments_told(), self._prefix)
        if self._store.heard_again(self.job, heard_again(lines, heard)):
            revision = self.job.revision + 1
            self.job = replace(self.job, status="done", listen=None, revision=revision)
            self._tell_end(lines, labels_told)

    def _tell_line(self, line: CorrectedLine, overlap: bool) -> None:
        segment = line.segment
        self._log.append(
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
            },
        )

    def _tell_end(self, lines: Sequence[CorrectedLine], labels: Mapping[str, str]) -> None:
        """Tell what turns did not, or did otherwise: lines that were put in by a later pass, or
        whose turn was finished in the instant of a kill; new labels; and that all is done."""
        overlaps = find_overlaps([line.segment for line in lines])
        for line, overlap in zip(lines, overlaps, strict=True):
            if line.turn is None:
                self._tell_line(line, overlap)
        if labels:
            self._log.append("relabel", {"labels": labels})
        self._log.append("done", {"revision": self.job.revision})

    def _told_before(self, chunk: int) -> int:
        """How many segments of earlier chunks were told, before a restart."""
        return sum(row["chunk"] < chunk for row in self._segments_told())

    def _segments_told(self) -> list[dict[str, Any]]:
        """Data of the segments that this run, or the one it goes on from, has told."""
        events = EventReader(self._folder / EVENTS).new()
        rows = [event.data for event in events if event.name == "segment"]
        return [row for row in rows if row["id"].rpartition(".")[0] == self._prefix.rstrip(".")]

    def _notify(self) -> None:
        for loop, event in self._watchers:
            loop.call_soon_threadsafe(event.set)


def load_document(store: Store, job: Job) -> tuple[Document, History]:
    """A job's document with its corrections, and their history.

    Raises:
        RequestError: 500, the transcript or a correction is damaged.
    """
    original, operations = load_original(store, job), store.corrections(job)
    with undamaged(job, "a correction"):
        return replay(original, operations)


def load_original(store: Store, job: Job) -> Document:
    """A job's document as the model left it.

    Raises:
        RequestError: 500, it is damaged.
    """
    folder = store.folder(job)
    with undamaged(job, "the transcript"):
        [transcript] = read(folder / _TRANSCRIPT, "json")
        rows = json.loads((folder / _LINES).read_text())
        lines = [
            CorrectedLine(line_id, segment, chunk, turn)
            for (line_id, chunk, turn), segment in zip(rows, transcript.segments, strict=True)
        ]
    return Document(transcript, tuple(lines))


def _identify(
    transcript: Transcript, told: Sequence[dict[str, Any]], prefix: str
) -> tuple[list[CorrectedLine], dict[str, str]]:
    """The segments of a transcript with the ids they were told under, and new labels by id.

    A segment that was not told so gets an id of its own, and the last chunk that starts before it.
    """
    waiting: dict[tuple[float, float, str], list[dict[str, Any]]] = {}
    for row in told:
        waiting.setdefault((row["start"], row["end"], row["text"]), []).append(row)
    lines, labels, untold = [], dict[str, str](), 0
    for segment in transcript.segments:
        rows = waiting.get((segment.start_s, segment.end_s, segment.text), [])
        same = [row for row in rows if row["speaker"] == segment.speaker]
        if rows:
            row = (same or rows)[0]
            rows.remove(row)
            lines.append(CorrectedLine(row["id"], segment, row["chunk"], row["turn"]))
            if not same:
                labels[row["id"]] = segment.speaker
        else:
            before = [t["chunk"] for t in transcript.traces if t["start_s"] <= segment.start_s]
            lines.append(
                CorrectedLine(f"{prefix}x{untold}", segment, before[-1] if before else 0, None)
            )
            untold += 1
    return lines, labels
