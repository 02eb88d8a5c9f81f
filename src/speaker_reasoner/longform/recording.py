"""One recording on its way to a transcript: chunk by chunk, with what links them.

Chunks are read from disk as they are needed and let go when they are finished. A recording says
which dialogues are under way (`dialogues`) and is fed by whoever drives them (`reasoner.ask`), so
that one file, a batch and a server share one course of action. A finished chunk becomes a
`FinishedChunk`, which is all that the rest of the recording ever sees of it: read back from a journal it
has the same effect.
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
from ..errors import SpeakerReasonerError
from ..protocol import CacheEntry, Profile
from ..reasoner import Dialogue, Outcome, Stop, TranscribedLine, TurnEvent, without_duplicates
from ..speech import Detect, Region
from ..transcript import Confidence, Missing, Segment, Transcript
from ..voices.cache import CacheRules
from ..voices.finished import ChunkSegment, FinishedChunk
from ..voices.linking import Trust
from ..voices.people import Speakers
from ..voices.witness import Witness
from .chunks import Chunk
from .coverage import boxes, in_speech, passed_over
from .journal import ChannelJournal, Journal


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
        segments: what the turn transcribed, in seconds of the recording. Labels are provisional:
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
    """How recordings are transcribed.

    Attributes:
        answer: `assembled` or `model`; see `Dialogue`.
        cached: whether chunks hear the speaker cache.
        cache: how its entries are chosen.
        witness: embeds voices; `None` trusts the dialogues alone.
        trust: how much dialogues and voices count against each other.
        detect: speech in samples, as regions in seconds; `None` leaves coverage unchecked.
        own_witness: whether it is the engine's own, whose embeddings come with its lines.
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
class _Stretch:
    """A chunk under way.

    Attributes:
        number: of the chunk, from 0.
        cache: entries before it, and `people` behind their numbers.
        dialogue: over it; `None` where it is silent.
        again: dialogues that insist on what was passed over; `None` before that was looked at.
        told: how many of the dialogues' turns were told.
        speech: where there is any, in seconds of the chunk; `None` before that was asked.
    """

    number: int
    chunk: Chunk
    cache: Sequence[CacheEntry]
    people: Sequence[int]
    dialogue: Dialogue | None
    again: list[Dialogue] | None = None
    told: int = 0
    speech: Sequence[Region] | None = None

    @property
    def start_s(self) -> float:
        return audio.to_seconds(self.chunk.start_samples)

    @property
    def end_s(self) -> float:
        return audio.to_seconds(self.chunk.start_samples + len(self.chunk.samples))

    @property
    def every(self) -> list[Dialogue]:
        return [*([] if self.dialogue is None else [self.dialogue]), *(self.again or ())]

    @property
    def events(self) -> list[TurnEvent]:
        return [event for dialogue in self.every for event in dialogue.events]

    @property
    def under_way(self) -> list[Dialogue]:
        return [dialogue for dialogue in self.every if dialogue.outcome is None]


class Recording:
    """Transcribes one recording.

    Args:
        path: of the file.
        source: its chunks, in order.
        profile: of the checkpoint.
        settings: how.
        speakers: who is who; knows the enrolled voices.
        describe: of the engine, for the transcript.
        journal: keeps finished chunks; those it holds are not transcribed again.
    """

    def __init__(
        self,
        path: Path,
        source: Iterator[Chunk],
        profile: Profile,
        settings: TranscriptionSettings,
        speakers: Speakers,
        describe: Mapping[str, Any],
        journal: Journal | ChannelJournal | None = None,
    ) -> None:
        self.path = path
        self.name = path.stem
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
        self._stretches: deque[_Stretch] = deque()
        self._finished: list[FinishedChunk] = []
        self._untold: list[Progress] = []
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
        """Code of the language that was given, else of that in which most was said so far; `None` where
        the engine tells none."""
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

    @property
    def done(self) -> bool:
        return self._exhausted and not self._stretches

    def dialogues(self, most: int) -> list[Dialogue]:
        """Dialogues under way, after the next chunks were begun as far as `most` allows.

        With a speaker cache, or where the engine wants it, a chunk waits for the one before it.
        """
        while True:
            self._settle()
            active = [d for stretch in self._stretches for d in stretch.under_way]
            waits = (self.settings.cached or self.settings.in_order) and bool(self._stretches)
            if len(active) >= most or waits or self._exhausted:
                return active[:most]
            self._begin()

    def tell(self, listener: Listener | None) -> None:
        """Tell the turns that are newly known, in order."""
        self._settle()
        if listener is not None:
            for progress in self._untold:
                listener(progress)
        self._untold.clear()

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
        """Read the next chunk and open its dialogue, or take it from the journal."""
        try:
            chunk = next(self._source, None)
        except SpeakerReasonerError as error:
            self.error, chunk = error, None
        if chunk is None:
            self._exhausted = True
            return
        self._samples = chunk.start_samples + len(chunk.samples)
        number = len(self._finished) + len(self._stretches)
        if number == 0 and self.speakers.bounds is not None:
            self._alone = self._is_last()
        kept = self._journal.next(chunk) if self._journal is not None else None
        if kept is not None:
            self._absorb(kept, chunk.samples)
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
        self._stretches.append(_Stretch(number, chunk, cache, people, dialogue))

    def _is_last(self) -> bool:
        """Whether no chunk follows; looks one ahead."""
        try:
            following = next(self._source, None)
        except SpeakerReasonerError as error:
            self.error = error
            return True
        if following is not None:
            self._source = chain([following], self._source)
        return following is None

    def _settle(self) -> None:
        """Insist on what ended dialogues passed over; absorb finished chunks, in order."""
        for stretch in self._stretches:
            if not stretch.under_way and stretch.again is None:
                stretch.again = self._insist(stretch)
        while self._stretches:
            stretch = self._stretches[0]
            self._collect(stretch)
            if stretch.under_way or stretch.again is None:
                return
            self._stretches.popleft()
            finished = self._finish(stretch)
            if self._journal is not None:
                self._journal.add(finished)
            self._absorb(finished, stretch.chunk.samples)

    def _insist(self, stretch: _Stretch) -> list[Dialogue]:
        """Dialogues over speech that the stretch's own dialogue left out."""
        dialogue = stretch.dialogue
        if dialogue is None or dialogue.outcome is None:
            return []
        speech = self._speech(stretch)
        if speech is None or dialogue.outcome.stop is not Stop.ANSWERED:
            return []
        tick = self.profile.ticks_per_s
        gaps = passed_over(speech, dialogue.outcome.lines, tick)
        return [
            dialogue.insist(stretch.chunk.samples, stretch.cache, box)
            for box in boxes(gaps, tick, dialogue.chunk)
        ]

    def _speech(self, stretch: _Stretch) -> Sequence[Region] | None:
        """Where the detector hears speech in a chunk; it is asked once. `None` without a detector."""
        if stretch.speech is None and self.settings.detect is not None:
            stretch.speech = self.settings.detect(stretch.chunk.samples)
        return stretch.speech

    def _finish(self, stretch: _Stretch) -> FinishedChunk:
        """What a chunk came to."""
        start, length = stretch.chunk.start_samples, len(stretch.chunk.samples)
        outcome = stretch.dialogue.outcome if stretch.dialogue is not None else None
        if outcome is None:
            return FinishedChunk(start, length)
        lines, missing, dropped = self._covered(stretch, outcome)
        spoken = tuple(self._spoken(heard, start) for heard in lines)
        known = [heard.embedding if self.settings.own_witness else None for heard in lines]
        points, levels_db = self.speakers.embed(spoken, start, stretch.chunk.samples, known)
        events = stretch.events
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
            people=tuple(stretch.people),
            language=next((e.language for e in events if e.language is not None), None),
            left_out=dict(sum((Counter(event.left_out) for event in events), Counter[str]())),
            missing=tuple(missing),
            stop=str(outcome.stop),
            trace=_trace(stretch, outcome),
            counts={
                "turns": len(events),
                "tokens": sum(event.tokens for event in events),
                "loops_closed": sum(event.looped for event in events),
                "duplicates_dropped": sum(event.duplicates for event in events),
                "insisted": len(stretch.again or ()),
                "silent_dropped": dropped,
            },
            seconds={stage: round(value, 6) for stage, value in seconds.items()},
        )

    def _covered(
        self, stretch: _Stretch, outcome: Outcome
    ) -> tuple[list[TranscribedLine], list[Missing], int]:
        """Lines without those that lie in silence, what is missing, and how many were dropped."""
        lines = list(outcome.lines)
        missing = [] if outcome.missing is None else [self._missing(outcome, stretch.start_s)]
        for dialogue in stretch.again or ():
            assert dialogue.outcome is not None
            lines += without_duplicates(dialogue.outcome.lines, lines)
        speech, tick = self._speech(stretch), self.profile.ticks_per_s
        if speech is None:
            return lines, missing, 0
        heard = in_speech(speech, lines, tick)
        if outcome.missing is None:
            missing += [
                Missing(
                    round(stretch.start_s + a, 6),
                    round(stretch.start_s + b, 6),
                    "passed over: heard again, and nothing was written",
                )
                for a, b in passed_over(speech, heard, tick)
            ]
        return heard, missing, len(lines) - len(heard)

    def _absorb(self, finished: FinishedChunk, samples: Samples) -> None:
        self._finished.append(finished)
        self.speakers.absorb(finished, samples, alone=self._alone)

    def _spoken(self, heard: TranscribedLine, start_samples: int) -> ChunkSegment:
        tick, line, sure = self.profile.ticks_per_s, heard.line, heard.confidence
        offset_s = audio.to_seconds(start_samples)
        return ChunkSegment(
            line.speaker,
            line.gender,
            round(offset_s + line.start / tick, 6),
            round(offset_s + line.end / tick, 6),
            line.text,
            Confidence(sure.words, sure.speaker, sure.times),
            None
            if heard.words is None
            else tuple(
                replace(
                    word,
                    start_s=round(offset_s + word.start_s, 6),
                    end_s=round(offset_s + word.end_s, 6),
                )
                for word in heard.words
            ),
        )

    def _missing(self, outcome: Outcome, offset_s: float) -> Missing:
        tick, box = self.profile.ticks_per_s, outcome.missing
        assert box is not None
        reason = f"{outcome.stop}: {outcome.detail}"
        return Missing(
            round(offset_s + box.start / tick, 6), round(offset_s + box.end / tick, 6), reason
        )

    def _collect(self, stretch: _Stretch) -> None:
        """Note the turns of the first stretch that were not told yet."""
        events = stretch.events
        start_s, tick = stretch.start_s, self.profile.ticks_per_s
        for event in events[stretch.told :]:
            boxed = None
            if event.box is not None:
                boxed = (start_s + event.box.start / tick, start_s + event.box.end / tick)
            spoken = [self._spoken(heard, stretch.chunk.start_samples) for heard in event.lines]
            segments = tuple(
                one.segment(self.speakers.provisional(one.number, stretch.people)) for one in spoken
            )
            self._untold.append(
                Progress(
                    self.path,
                    self.name,
                    stretch.number,
                    start_s,
                    stretch.end_s,
                    segments,
                    event,
                    boxed,
                )
            )
        stretch.told = len(events)

    @property
    def _foreign(self) -> float | None:
        """The mean word confidence by seconds, if the checkpoint does not know what it heard."""
        floor = self.profile.word_confidence_floor
        lines = [one for finished in self._finished for one in finished.spoken]
        sure = [(one.confidence.words, one.seconds) for one in lines]
        known = [(words, seconds) for words, seconds in sure if words is not None]
        if not known or floor is None:
            return None
        mean = sum(words * seconds for words, seconds in known) / sum(s for _, s in known)
        return mean if mean < floor else None

    def _warnings(self) -> tuple[str, ...]:
        warnings = []
        if (mean := self._foreign) is not None:
            warnings.append(
                "this recording does not sound like what the checkpoint knows "
                f"({self.profile.domain}): mean word confidence {mean:.2f}, expected at least "
                f"{self.profile.word_confidence_floor:.2f}; do not trust the words"
            )
        warnings += self.speakers.doubts
        spoken = any(finished.spoken for finished in self._finished)
        if self.settings.in_order and not spoken:
            warnings.append("no speech was found: silence, noise or music; nothing was transcribed")
        left_out = sum((Counter(f.left_out) for f in self._finished), Counter[str]())
        warnings += [
            f"{count} {'word was' if count == 1 else 'words were'} recognised and left out: {reason}"
            for reason, count in sorted(left_out.items())
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
        """The recording's language with the mean probability of its chunks, where the engine tells it."""
        code = self._most_spoken()
        if code is None:
            return {}
        sure = [f.language[1] for f in self._finished if f.language and f.language[0] == code]
        return {"language": code, "language_probability": round(sum(sure) / len(sure), 4)}

    def _info(self, corrections: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Model, settings, counts and time. Wall time counts from the recording's opening; the journal
        adds that of earlier lives."""
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


def _trace(stretch: _Stretch, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {
        "chunk": stretch.number,
        "start_s": stretch.start_s,
        "duration_s": audio.to_seconds(len(stretch.chunk.samples)),
        "stop": str(outcome.stop),
        "detail": outcome.detail,
        "parts": outcome.trace.to_json(),
    }
    again = [d.outcome.trace.to_json() for d in stretch.again or () if d.outcome is not None]
    return row | ({"insisted": again} if again else {})
