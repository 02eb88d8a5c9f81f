"""A recording under way that a client waits for on an open connection; and the hints that runs begin with.

Methods of tasks run on the engine thread; others run elsewhere.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import audio
from ..errors import AudioError
from ..longform import AnyRecording, Failure, Progress, Transcriber
from ..spans import overlap as overlap_of
from ..transcript import Segment, Transcript
from ..voices.clips import EnrolmentClip, load_clip
from ..voices.enrolment import doubts
from ..voices.people import EnrolledSpeaker
from ..voices.store import StoredClip
from ..voices.witness import Witness
from .forms import Hints
from .sound import recording_file


@dataclass(frozen=True, slots=True)
class StreamedSegment:
    """A segment as it was sent: its number, and whether another speaker talks in it, as far as was known."""

    number: int
    segment: Segment
    overlap: bool


class SegmentNumbers:
    """Numbers the segments of a recording in the order of its turns."""

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._chunk: list[Segment] = []
        self._start_s = -1.0

    def add(self, progress: Progress) -> list[StreamedSegment]:
        """Number the segments of one more turn; those of other chunks do not overlap them."""
        if progress.start_s != self._start_s:
            self._start_s, self._chunk = progress.start_s, []
        streamed = []
        for segment in progress.segments:
            overlap = any(
                other.speaker != segment.speaker and overlap_of(segment, other)
                for other in self._chunk
            )
            self._chunk.append(segment)
            streamed.append(StreamedSegment(self._next, segment, overlap))
            self._next += 1
        return streamed


@dataclass(frozen=True, slots=True)
class News:
    """New segments of a recording under way.

    Attributes:
        known: segments that a turn wrote, with labels that may change.
        linked: segments whose speakers were found among those of the recording so far.
    """

    known: list[StreamedSegment]
    linked: list[StreamedSegment]


class Links:
    """Holds segments until the speakers of their chunk are linked with earlier ones, so that a person has one label.

    Segments of the first chunk have no earlier ones, and are passed on at once.


    Attributes:
        recording: under way.
    """

    def __init__(self) -> None:
        self.recording: AnyRecording | None = None
        self._held: dict[int, list[StreamedSegment]] = {}

    def add(self, chunk: int, segments: list[StreamedSegment]) -> list[StreamedSegment]:
        """Take the segments of a turn; return those that may be sent now."""
        if chunk == 0:
            return segments
        self._held.setdefault(chunk, []).extend(segments)
        return [one for n in sorted(self._held) for one in self._linked(n)]

    def rest(self, transcript: Transcript) -> list[StreamedSegment]:
        """Return the segments that are still held, at the end, as the transcript has them."""
        left = [one for n in sorted(self._held) for one in self._held.pop(n)]
        return relabelled(left, transcript.segments)

    def _linked(self, chunk: int) -> list[StreamedSegment]:
        linked = getattr(self.recording, "linked", None)
        segments = linked(chunk) if linked is not None else ()
        if segments is None:
            return []
        return relabelled(self._held.pop(chunk), segments)


def relabelled(
    streamed: Sequence[StreamedSegment], segments: Sequence[Segment]
) -> list[StreamedSegment]:
    """Give streamed segments the labels and genders of segments with the same times and words."""
    known = {(s.start_s, s.end_s, s.text): s for s in segments}
    out = []
    for one in streamed:
        mine = one.segment
        final = known.get((mine.start_s, mine.end_s, mine.text), mine)
        out.append(replace(one, segment=replace(mine, speaker=final.speaker, gender=final.gender)))
    return out


def voice_file(folder: Path, number: int) -> Path:
    """The path of the n-th clip of a known voice."""
    return folder / f"voice-{number}.wav"


def spoken_file(voice: Path) -> Path:
    """The file of the stretches of speech in the clip of a known voice."""
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
    """Load known voices, the clips of one name together, with a witness's warnings about them."""
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
    """Hints for recordings whose clients give none.

    Attributes:
        speakers: fewest and most.
        voices: people who may be in it.
    """

    speakers: tuple[int, int] | None = None
    voices: Sequence[EnrolledSpeaker] = ()


def given_of(
    folder: Path,
    speakers: tuple[int, int] | None,
    names: Sequence[str],
    witness: Witness | None,
    defaults: Defaults,
) -> dict[str, Any]:
    """The hints about a recording, as `Transcriber.open` takes them."""
    voices = _voices(folder, names, witness) if names else defaults.voices
    return {"speakers": speakers or defaults.speakers, "voices": voices}


def fitting(transcriber: Transcriber, path: Path) -> Transcriber:
    """Return a transcriber for a recording as the server keeps it: one with one channel has its speakers separated by
    voices, not by channels."""
    if transcriber.separate and audio.channel_count(path) == 1:
        return transcriber.mixed
    return transcriber


class RequestRun:
    """A recording that a client waits for on an open connection.

    Args:
        transcriber: opens it.
        folder: with its audio and voices.
        hints: of the request.
        defaults: for hints that it does not have.
        client: that waits, for a fair queue.
    """

    lasting = False
    name = "request"

    def __init__(
        self,
        transcriber: Transcriber,
        folder: Path,
        hints: Hints,
        defaults: Defaults,
        client: str = "",
    ) -> None:
        self.cancelled = False
        self.client = client
        self._transcriber = transcriber
        self._folder = folder
        self._hints = hints
        self._defaults = defaults
        self._stream = SegmentNumbers()
        self._links = Links()
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Queue[News | Transcript | Failure] = asyncio.Queue()

    def open(self) -> AnyRecording:
        path = recording_file(self._folder)
        recording = fitting(self._transcriber, path).open(
            path,
            language=self._hints.language,
            **given_of(
                self._folder,
                self._hints.count,
                self._hints.known_speaker_names,
                self._transcriber.settings.witness,
                self._defaults,
            ),
        )
        self._links.recording = recording
        return recording

    def on_progress(self, progress: Progress) -> None:
        segments = self._stream.add(progress)
        news = News(segments, self._links.add(progress.chunk, segments))
        if news.known or news.linked:
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)

    def ended(self, result: Transcript | Failure) -> None:
        if isinstance(result, Transcript) and (left := self._links.rest(result)):
            self._loop.call_soon_threadsafe(self._news.put_nowait, News([], left))
        self._loop.call_soon_threadsafe(self._news.put_nowait, result)

    async def news(self) -> AsyncIterator[News | Transcript]:
        """Yield segments as they are known; the transcript last.

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
