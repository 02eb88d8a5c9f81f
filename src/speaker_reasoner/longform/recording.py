"""The state of one recording while it is transcribed, chunk by chunk.

Chunks are read from disk when they are needed and dropped when they are finished. The state lists the dialogues
under way (`dialogues`); the caller advances them with `reasoner.ask`. Files, batches and the server are driven
in this one way. The rest of a recording depends on a finished chunk only by its `FinishedChunk`, so that one
from a journal has the same effect.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from .. import audio
from ..audio import Samples
from ..engines.base import Stop
from ..errors import SpeakerReasonerError
from ..protocol import CacheEntry, Profile
from ..reasoner import Dialogue, Outcome, TranscribedLine, TurnEvent, without_duplicates
from ..speech import Detect, Region
from ..transcript import Confidence, Missing, Segment, Transcript, recording_name
from ..voices.cache import CacheRules
from ..voices.finished import ChunkSegment, FinishedChunk
from ..voices.linking import Trust
from ..voices.people import Speakers
from ..voices.witness import Witness
from .chunks import Chunk
from .coverage import boxes, in_speech, passed_over
from .journal import ChannelJournal, Journal, ShareJournal


@dataclass(frozen=True, slots=True)
class Failure:
    """A recording that could not be transcribed, and why."""

    recording: str
    error: SpeakerReasonerError


@dataclass(frozen=True, slots=True)
class Progress:
    """One turn of one recording.

    Attributes:
        path: of the recording.
        recording: its name.
        chunk: number of the turn's chunk, from 0.
        start_s: where the turn's chunk starts in the recording.
        end_s: where that chunk ends.
        segments: of the turn, in seconds of the recording. Labels are provisional:
            the last pass over the recording may change them.
        event: the turn in ticks of its chunk.
        boxed: the next observation in seconds of the recording, or `None`.
    """

    path: Path
    recording: str
    chunk: int
    start_s: float
    end_s: float
    segments: tuple[Segment, ...]
    event: TurnEvent
    boxed: tuple[float, float] | None


Listener = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class TranscriptionSettings:
    """Settings with which a recording is transcribed.

    Attributes:
        answer: `assembled` or `model`; see `Dialogue`.
        cached: whether the speaker cache is used.
        cache: how its entries are chosen.
        witness: embeds voices; `None` trusts the dialogues alone.
        trust: weight of the dialogue against the embeddings.
        detect: from samples to regions of speech in seconds; `None` leaves coverage unchecked.
        own_witness: whether the witness is the engine's, whose lines come with embeddings.
        in_order: whether a chunk waits for the one before it even without a speaker cache.
    """

    answer: str = "assembled"
    cached: bool = False
    cache: CacheRules = field(default_factory=CacheRules)
    witness: Witness | None = None
    trust: Trust = field(default_factory=Trust)
    detect: Detect | None = None
    own_witness: bool = False
    in_order: bool = False


@dataclass
class _OpenChunk:
    """A chunk under way.

    Attributes:
        number: of the chunk, from 0.
        cache: entries before it, and `people` behind their numbers.
        dialogue: over it; `None` where it is silent.
        extra: dialogues over speech that the first one skipped; `None` before coverage was checked.
        reported: how many of the dialogues' turns were reported.
        speech: regions of speech in seconds of the chunk; `None` before they were detected.
        kept: its result, where the journal holds it; it waits for the chunks before it.
    """

    number: int
    chunk: Chunk
    cache: Sequence[CacheEntry]
    people: Sequence[int]
    dialogue: Dialogue | None
    extra: list[Dialogue] | None = None
    reported: int = 0
    speech: Sequence[Region] | None = None
    kept: FinishedChunk | None = None

    @property
    def start_s(self) -> float:
        return audio.to_seconds(self.chunk.start_samples)

    @property
    def end_s(self) -> float:
        return audio.to_seconds(self.chunk.start_samples + len(self.chunk.samples))

    @property
    def every(self) -> list[Dialogue]:
        return [*([] if self.dialogue is None else [self.dialogue]), *(self.extra or ())]

    @property
    def events(self) -> list[TurnEvent]:
        return [event for dialogue in self.every for event in dialogue.events]

    @property
    def under_way(self) -> list[Dialogue]:
        return [dialogue for dialogue in self.every if dialogue.outcome is None]


class RecordingState:
    """One recording being transcribed.

    Args:
        path: of the file.
        source: its chunks, in order.
        profile: of the checkpoint.
        settings: how it is transcribed.
        speakers: its speakers, enrolled ones included.
        describe: the engine's description, for the transcript.
        journal: keeps finished chunks; chunks that it holds already are not transcribed again.

    Attributes:
        notices: warnings of the reader of the file so far.
        ready: whether the source has a chunk, or has ended; one that is still being recorded has pauses.
    """

    def __init__(
        self,
        path: Path,
        source: Iterator[Chunk],
        profile: Profile,
        settings: TranscriptionSettings,
        speakers: Speakers,
        describe: Mapping[str, Any],
        journal: Journal | ChannelJournal | ShareJournal | None = None,
    ) -> None:
        self.path = path
        self.name = recording_name(path)
        self.notices: list[str] = []
        self.ready: Callable[[], bool] = lambda: True
        self.profile = profile
        self.settings = settings
        self.speakers = speakers
        self.error: SpeakerReasonerError | None = None
        self.language_given: str | None = None
        self._source = source
        self._describe = describe
        self._journal = journal
        self._begun = time.monotonic() - (journal.elapsed_s if journal is not None else 0.0)
        self._exhausted = False
        self._alone = False  # the first chunk is the whole recording, and bounds make that matter
        self._open_chunks: deque[_OpenChunk] = deque()
        self._finished: list[FinishedChunk] = []
        self._unreported: list[Progress] = []
        self._samples = 0

    @property
    def duration_s(self) -> float:
        """Seconds read so far; the length of the recording once it is done."""
        return audio.to_seconds(self._samples)

    @property
    def position_s(self) -> float:
        """Up to where every chunk is finished."""
        return self._finished[-1].end_s if self._finished else 0.0

    @property
    def language(self) -> str | None:
        """Code of the language that the user named, else of the one spoken longest so far.

        `None` if there is neither.
        """
        if self.language_given is not None:
            return self.language_given
        return self._most_spoken()

    def _most_spoken(self) -> str | None:
        seconds: dict[str, float] = defaultdict(float)
        for finished in self._finished:
            if finished.language is not None:
                spoken_s = sum(one.seconds for one in finished.spoken)
                seconds[finished.language[0]] += spoken_s * finished.language[1]
        return max(sorted(seconds), key=lambda code: seconds[code]) if seconds else None

    def linked(self, chunk: int) -> list[Segment] | None:
        """The segments of a finished chunk with the labels that its speakers have among those of the
        recording so far; `None` while it is under way."""
        if chunk >= len(self._finished):
            return None
        labels = self.speakers.linked_labels(chunk)
        spoken = self._finished[chunk].spoken
        return [one.segment(label, one.gender) for one, label in zip(spoken, labels, strict=True)]

    def missing(self, chunk: int) -> Sequence[Missing]:
        """The stretches of a finished chunk that were not transcribed."""
        return self._finished[chunk].missing

    @property
    def idle(self) -> bool:
        """Return whether no chunk is under way."""
        return not self._open_chunks

    @property
    def done(self) -> bool:
        return self._exhausted and self.idle

    def dialogues(self, most: int) -> list[Dialogue]:
        """Return at most `most` dialogues under way; start further chunks while there are fewer.

        With a speaker cache, or where the engine needs chunks in order, a chunk waits for the one before it. So do
        chunks behind one that the journal holds, or many of those would be held in memory.
        """
        while True:
            self._settle()
            active = [d for open_chunk in self._open_chunks for d in open_chunk.under_way]
            waits = bool(self._open_chunks) and (
                self.settings.cached
                or self.settings.in_order
                or self._open_chunks[-1].kept is not None
            )
            if len(active) >= most or waits or self._exhausted or not self.ready():
                return active[:most]
            self._begin()

    def tell(self, listener: Listener | None) -> None:
        """Call the listener with the turns since the last call, in order."""
        self._settle()
        if listener is not None:
            for progress in self._unreported:
                listener(progress)
        self._unreported.clear()

    def result(self) -> Transcript | Failure:
        """The transcript, once `done`."""
        if self.error is not None:
            return Failure(self.name, self.error)
        labels, corrections = self.speakers.settle(foreign=self._foreign is not None)
        segments, people = self.speakers.segments(self._finished, labels)
        missing = [missing for finished in self._finished for missing in finished.missing]
        return Transcript(
            self.name,
            self.duration_s,
            tuple(segments),
            tuple(missing),
            self._warnings(),
            tuple(f.trace for f in self._finished if f.trace is not None),
            {**self._info(corrections), "speakers": people},
        )

    def _begin(self) -> None:
        """Read the next chunk, and open its dialogue where the journal does not hold its result."""
        try:
            chunk = next(self._source, None)
        except SpeakerReasonerError as error:
            self.error, chunk = error, None
        if chunk is None:
            self._exhausted = True
            return
        self._samples = chunk.start_samples + len(chunk.samples)
        number = len(self._finished) + len(self._open_chunks)
        if number == 0 and self.speakers.bounds is not None:
            self._alone = self._is_last()
        kept = self._journal.next(chunk) if self._journal is not None else None
        if kept is not None:
            self._open_chunks.append(_OpenChunk(number, chunk, (), (), None, kept=kept))
            return
        cache: Sequence[CacheEntry] = ()
        people: Sequence[int] = ()
        if self.settings.cached:
            cache, people = self.speakers.cache(audio.to_seconds(chunk.start_samples))
        dialogue = None
        if chunk.audible:
            dialogue = Dialogue(
                chunk.samples,
                self.profile,
                answer=self.settings.answer,
                cache=cache,
                count=self.speakers.count(len(people), alone=self._alone),
                language=self.language,
            )
        self._open_chunks.append(_OpenChunk(number, chunk, cache, people, dialogue))

    def _is_last(self) -> bool:
        """Return whether no chunk follows; looks one ahead."""
        try:
            following = next(self._source, None)
        except SpeakerReasonerError as error:
            self.error = error
            return True
        if following is not None:
            self._source = chain([following], self._source)
        return following is None

    def _settle(self) -> None:
        """Start extra dialogues where ended ones skipped speech; absorb finished chunks, in order."""
        for open_chunk in self._open_chunks:
            if not open_chunk.under_way and open_chunk.extra is None:
                open_chunk.extra = self._insist(open_chunk)
        while self._open_chunks:
            open_chunk = self._open_chunks[0]
            self._collect(open_chunk)
            if open_chunk.under_way or open_chunk.extra is None:
                return
            self._open_chunks.popleft()
            finished = open_chunk.kept
            if finished is None:
                finished = self._finish(open_chunk)
                if self._journal is not None:
                    self._journal.add(finished)
            self._absorb(finished, open_chunk.chunk.samples)

    def _insist(self, open_chunk: _OpenChunk) -> list[Dialogue]:
        """Dialogues over speech that the chunk's first dialogue skipped."""
        dialogue = open_chunk.dialogue
        if dialogue is None or dialogue.outcome is None:
            return []
        speech = self._speech(open_chunk)
        if speech is None or dialogue.outcome.stop is not Stop.ANSWERED:
            return []
        tick = self.profile.ticks_per_s
        gaps = passed_over(speech, dialogue.outcome.lines, tick)
        return [
            dialogue.insist(open_chunk.chunk.samples, open_chunk.cache, box)
            for box in boxes(gaps, tick, dialogue.chunk)
        ]

    def _speech(self, open_chunk: _OpenChunk) -> Sequence[Region] | None:
        """Regions of speech in a chunk, detected once; `None` without a detector."""
        if open_chunk.speech is None and self.settings.detect is not None:
            open_chunk.speech = self.settings.detect(open_chunk.chunk.samples)
        return open_chunk.speech

    def _finish(self, open_chunk: _OpenChunk) -> FinishedChunk:
        """The result of a chunk whose dialogues have ended."""
        start, length = open_chunk.chunk.start_samples, len(open_chunk.chunk.samples)
        outcome = open_chunk.dialogue.outcome if open_chunk.dialogue is not None else None
        if outcome is None:
            return FinishedChunk(start, length)
        lines, missing, dropped = self._covered(open_chunk, outcome)
        spoken = tuple(self._spoken(one, start) for one in lines)
        known = [one.embedding if self.settings.own_witness else None for one in lines]
        points, levels_db = self.speakers.embed(spoken, start, open_chunk.chunk.samples, known)
        events = open_chunk.events
        seconds: dict[str, float] = defaultdict(float)
        for event in events:
            for stage, value in event.seconds.items():
                seconds[stage] += value
        return FinishedChunk(
            start,
            length,
            spoken=spoken,
            points=points,
            levels_db=levels_db,
            people=tuple(open_chunk.people),
            language=next((e.language for e in events if e.language is not None), None),
            left_out=dict(sum((Counter(event.left_out) for event in events), Counter[str]())),
            noted=dict(sum((Counter(event.noted) for event in events), Counter[str]())),
            missing=tuple(missing),
            stop=str(outcome.stop),
            trace=_trace(open_chunk, outcome),
            counts={
                "turns": len(events),
                "tokens": sum(event.tokens for event in events),
                "loops_closed": sum(event.looped for event in events),
                "duplicates_dropped": sum(event.duplicates for event in events),
                "insisted": len(open_chunk.extra or ()),
                "silent_dropped": dropped,
            },
            seconds={stage: round(value, 6) for stage, value in seconds.items()},
        )

    def _covered(
        self, open_chunk: _OpenChunk, outcome: Outcome
    ) -> tuple[list[TranscribedLine], list[Missing], int]:
        """Return the lines outside silence, the missing stretches, and how many lines were dropped."""
        lines = list(outcome.lines)
        missing = [] if outcome.missing is None else [self._missing(outcome, open_chunk.start_s)]
        for dialogue in open_chunk.extra or ():
            assert dialogue.outcome is not None
            lines += without_duplicates(dialogue.outcome.lines, lines)
        speech, tick = self._speech(open_chunk), self.profile.ticks_per_s
        if speech is None:
            return lines, missing, 0
        kept = in_speech(speech, lines, tick)
        if outcome.missing is None:
            missing += [
                Missing(
                    round(open_chunk.start_s + a, 6),
                    round(open_chunk.start_s + b, 6),
                    "passed over: heard again, and nothing was written",
                )
                for a, b in passed_over(speech, kept, tick)
            ]
        return kept, missing, len(lines) - len(kept)

    def _absorb(self, finished: FinishedChunk, samples: Samples) -> None:
        self._finished.append(finished)
        self.speakers.absorb(finished, samples, alone=self._alone)

    def _spoken(self, transcribed: TranscribedLine, start_samples: int) -> ChunkSegment:
        tick, line, sure = self.profile.ticks_per_s, transcribed.line, transcribed.confidence
        offset_s = audio.to_seconds(start_samples)
        return ChunkSegment(
            line.speaker,
            line.gender,
            round(offset_s + line.start / tick, 6),
            round(offset_s + line.end / tick, 6),
            line.text,
            Confidence(sure.words, sure.speaker, sure.times),
            None
            if transcribed.words is None
            else tuple(
                replace(
                    word,
                    start_s=round(offset_s + word.start_s, 6),
                    end_s=round(offset_s + word.end_s, 6),
                )
                for word in transcribed.words
            ),
        )

    def _missing(self, outcome: Outcome, offset_s: float) -> Missing:
        tick, box = self.profile.ticks_per_s, outcome.missing
        assert box is not None
        reason = f"{outcome.stop}: {outcome.detail}"
        return Missing(
            round(offset_s + box.start / tick, 6), round(offset_s + box.end / tick, 6), reason
        )

    def _collect(self, open_chunk: _OpenChunk) -> None:
        """Note the turns of the first open chunk that were not reported yet."""
        events = open_chunk.events
        start_s, tick = open_chunk.start_s, self.profile.ticks_per_s
        for event in events[open_chunk.reported :]:
            boxed = None
            if event.box is not None:
                boxed = (start_s + event.box.start / tick, start_s + event.box.end / tick)
            spoken = [self._spoken(one, open_chunk.chunk.start_samples) for one in event.lines]
            segments = tuple(
                one.segment(self.speakers.provisional(one.number, open_chunk.people))
                for one in spoken
            )
            self._unreported.append(
                Progress(
                    self.path,
                    self.name,
                    open_chunk.number,
                    start_s,
                    open_chunk.end_s,
                    segments,
                    event,
                    boxed,
                )
            )
        open_chunk.reported = len(events)

    @property
    def _foreign(self) -> float | None:
        """The mean word confidence, weighted by seconds, if it is below the profile's floor; else `None`."""
        floor = self.profile.word_confidence_floor
        lines = [one for finished in self._finished for one in finished.spoken]
        sure = [(one.confidence.words, one.seconds) for one in lines]
        known = [(words, seconds) for words, seconds in sure if words is not None]
        if not known or floor is None:
            return None
        mean = sum(words * seconds for words, seconds in known) / sum(s for _, s in known)
        return mean if mean < floor else None

    def _warnings(self) -> tuple[str, ...]:
        warnings = list(self.notices)
        if (mean := self._foreign) is not None:
            warnings.append(
                "this recording does not sound like what the checkpoint knows "
                f"({self.profile.domain}): mean word confidence {mean:.2f}, expected at least "
                f"{self.profile.word_confidence_floor:.2f}; do not trust the words"
            )
        warnings += self.speakers.doubts
        spoken = any(finished.spoken or finished.missing for finished in self._finished)
        if self.settings.in_order and not spoken:
            warnings.append("no speech was found: silence, noise or music; nothing was transcribed")
        left_out = sum((Counter(f.left_out) for f in self._finished), Counter[str]())
        warnings += [
            f"{count} {'word was' if count == 1 else 'words were'} recognised and left out: {reason}"
            for reason, count in sorted(left_out.items())
        ]
        silent = sum(f.counts.get("silent_dropped", 0) for f in self._finished)
        if silent:
            were = "line was" if silent == 1 else "lines were"
            warnings.append(
                f"{silent} {were} left out: no speech was detected during the time given"
            )
        noted = sum((Counter(f.noted) for f in self._finished), Counter[str]())
        warnings += [
            f"{count} {'time' if count == 1 else 'times'}: {what}"
            for what, count in sorted(noted.items())
        ]
        languages = {f.language[0] for f in self._finished if f.language is not None and f.spoken}
        if len(languages) > 1:
            warnings.append(
                f"more than one language was recognised: {', '.join(sorted(languages))}; if there is "
                "but one, name it (--language)"
            )
        chunks = sum(finished.trace is not None for finished in self._finished)
        if chunks > 1 and not self.speakers.linked:
            warnings.append(
                f"the recording was heard in {chunks} chunks and speakers are not linked between "
                "them: one person has another label in each chunk"
            )
        return tuple(warnings)

    def _languages(self) -> dict[str, Any]:
        """The recording's language and the mean probability over its chunks, where the engine gives it."""
        code = self._most_spoken()
        if code is None:
            return {}
        sure = [f.language[1] for f in self._finished if f.language and f.language[0] == code]
        return {"language": code, "language_probability": round(sum(sure) / len(sure), 4)}

    def _info(self, corrections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Model, settings, counts and time. Wall time starts when the recording is opened; the journal adds
        that of earlier runs."""
        from ..version import __version__

        counts: Counter[str] = Counter()
        seconds: dict[str, float] = defaultdict(float)
        for finished in self._finished:
            counts.update(finished.counts)
            for stage, value in finished.seconds.items():
                seconds[stage] += value
        wall_s = time.monotonic() - self._begun
        names = ("turns", "tokens", "loops_closed", "duplicates_dropped", "insisted")
        return {
            "version": __version__,
            **self._describe,
            "profile": self.profile.name,
            **self._languages(),
            "answer": self.settings.answer,
            **self.speakers.describe(),
            "corrections": list(corrections),
            "chunks": len(self._finished),
            "stops": dict(Counter(f.stop for f in self._finished if f.stop)),
            **{name: counts[name] for name in (*names, "silent_dropped")},
            "wall_s": round(wall_s, 3),
            "real_time_factor": round(wall_s / self.duration_s, 4) if self._samples else 0.0,
            "stage_s": {stage: round(value, 6) for stage, value in seconds.items()},
        }


def _trace(open_chunk: _OpenChunk, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {
        "chunk": open_chunk.number,
        "start_s": open_chunk.start_s,
        "duration_s": audio.to_seconds(len(open_chunk.chunk.samples)),
        "stop": str(outcome.stop),
        "detail": outcome.detail,
        "parts": outcome.trace.to_json(),
    }
    extra = [d.outcome.trace.to_json() for d in open_chunk.extra or () if d.outcome is not None]
    return row | ({"insisted": extra} if extra else {})
