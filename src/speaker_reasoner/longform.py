"""Recordings of any length: cut into chunks where it is quiet, one dialogue a chunk, stitched.

Chunks are read from disk as they are needed and share the engine's batches, also between
recordings; a chunk's samples are let go with its dialogue. Speakers are not linked between chunks:
a label of one chunk is never used in another, and a warning says so. Silence that nobody could hear
is not shown to the model.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from . import audio
from .audio import SAMPLE_RATE_HZ
from .engines.base import Engine, Samples
from .errors import SpeakerReasonerError
from .protocol import Profile
from .reasoner import Dialogue, Heard, Outcome, TurnEvent, ask
from .transcript import Confidence, Missing, Segment, Transcript

AUDIBLE_DBFS = -65.0
"""A chunk whose loudest 20 ms stay below this is silence."""
_FRAME_SAMPLES = SAMPLE_RATE_HZ // 50


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a recording: float32 samples `[n]` at 16 kHz, and where they start."""

    start_samples: int
    samples: Samples

    @property
    def audible(self) -> bool:
        return float(_levels_db(self.samples).max(initial=-200.0)) >= AUDIBLE_DBFS


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
        start_s: where the turn's chunk starts in the recording.
        end_s: where that chunk ends.
        segments: what the turn transcribed, in seconds of the recording.
        event: the turn in ticks of its chunk.
        boxed: the next observation in seconds of the recording, or `None`.
    """

    path: Path
    recording: str
    start_s: float
    end_s: float
    segments: tuple[Segment, ...]
    event: TurnEvent
    boxed: tuple[float, float] | None


Listener = Callable[[Progress], None]


def chunks(blocks: Iterable[Samples], chunk_s: float) -> Iterator[Chunk]:
    """Cut a stream of samples into chunks of at most `chunk_s`, each at the quietest place of its
    second half. Every sample is in exactly one chunk, in order."""
    longest = round(chunk_s * SAMPLE_RATE_HZ)
    held, at = np.zeros(0, dtype=np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > longest:
            cut = _quietest(held[:longest])
            yield Chunk(at, held[:cut])
            held, at = held[cut:], at + cut
    if len(held):
        yield Chunk(at, held)


def _quietest(samples: Samples) -> int:
    """A sample in the second half: the middle of the quietest 0.3 s, the later of equals."""
    levels = _levels_db(samples)
    width = min(15, len(levels))
    smooth = np.convolve(levels, np.ones(width) / width, mode="valid")
    half = len(smooth) // 2
    later = smooth[half:][::-1]
    frame = len(smooth) - 1 - int(np.argmin(later))
    return min((frame + width // 2) * _FRAME_SAMPLES, len(samples))


def _levels_db(samples: Samples) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Level of each 20 ms frame in dB of full scale."""
    count = max(1, len(samples) // _FRAME_SAMPLES)
    frames = samples[: count * _FRAME_SAMPLES].astype(np.float64)
    power = np.mean(frames.reshape(count, -1) ** 2, axis=1)
    return np.asarray(10 * np.log10(power + 1e-20))


@dataclass
class _Stretch:
    """A chunk without its samples.

    Attributes:
        start_samples: where it starts.
        samples: how many it has.
        dialogue: over it; `None` where it is silent.
        told: how many of the dialogue's turns the listener knows.
    """

    start_samples: int
    samples: int
    dialogue: Dialogue | None
    told: int = 0

    @property
    def start_s(self) -> float:
        return audio.to_seconds(self.start_samples)

    @property
    def end_s(self) -> float:
        return audio.to_seconds(self.start_samples + self.samples)


@dataclass
class _Job:
    """A recording on its way: chunks still to come, what became of those that were read."""

    path: Path
    source: Iterator[Chunk]
    begun: float
    exhausted: bool = False
    error: SpeakerReasonerError | None = None
    stretches: list[_Stretch] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        return self.stretches[-1].end_s if self.stretches else 0.0

    @property
    def dialogues(self) -> list[Dialogue]:
        return [stretch.dialogue for stretch in self.stretches if stretch.dialogue is not None]

    @property
    def done(self) -> bool:
        return self.exhausted and all(dialogue.outcome for dialogue in self.dialogues)


class Transcriber:
    """Transcribes recordings with one engine.

    Args:
        engine: writes the turns.
        answer: `assembled` or `model`; see `Dialogue`.
        batch: dialogues that share the engine's batches.
        channel: 0-based channel to listen to; all mixed down if `None`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        answer: str = "assembled",
        batch: int = 1,
        channel: int | None = None,
    ) -> None:
        self.engine = engine
        self.profile: Profile = engine.profile
        self.answer = answer
        self.batch = max(1, batch)
        self.channel = channel

    def transcribe(self, path: str | Path, on_turn: Listener | None = None) -> Transcript:
        """Transcribe one recording.

        Raises:
            AudioError: it cannot be read.
            EngineError: the engine failed as a whole.
        """
        [result] = self.transcribe_all([path], on_turn)
        if isinstance(result, Failure):
            raise result.error
        return result

    def transcribe_all(
        self, paths: Iterable[str | Path], on_turn: Listener | None = None
    ) -> Iterator[Transcript | Failure]:
        """Transcribe recordings together; results come in order. One that fails is a result too.

        Turns are told in the order of the recordings and of their chunks, whatever the batch: those
        of a later chunk wait until the one before has ended.

        Raises:
            EngineError: the engine failed as a whole.
        """
        waiting = (self._open(Path(path)) for path in paths)
        jobs: list[_Job] = []
        under_way: list[Dialogue] = []
        while True:
            under_way += islice(self._next_dialogues(jobs, waiting), self.batch - len(under_way))
            while jobs and jobs[0].done:
                self._tell(jobs[0], on_turn)
                yield self._result(jobs.pop(0))
            if not under_way:
                return
            self._tell(jobs[0], on_turn)
            for _ in ask(under_way, self.engine):
                pass
            under_way = [dialogue for dialogue in under_way if dialogue.outcome is None]

    def _open(self, path: Path) -> _Job:
        source = chunks(audio.stream(path, channel=self.channel), self.profile.chunk_s)
        return _Job(path, source, time.monotonic())

    def _next_dialogues(self, jobs: list[_Job], waiting: Iterator[_Job]) -> Iterator[Dialogue]:
        """Dialogues over the next chunks, of the recordings begun first, then of new ones."""
        at = 0
        while True:
            if at == len(jobs):
                job = next(waiting, None)
                if job is None:
                    return
                jobs.append(job)
            job = jobs[at]
            chunk = self._next_chunk(job)
            if chunk is None:
                at += 1
                continue
            dialogue = None
            if chunk.audible:
                dialogue = Dialogue(chunk.samples, self.profile, answer=self.answer)
            job.stretches.append(_Stretch(chunk.start_samples, len(chunk.samples), dialogue))
            if dialogue is not None:
                yield dialogue

    def _next_chunk(self, job: _Job) -> Chunk | None:
        if job.exhausted:
            return None
        try:
            chunk = next(job.source, None)
        except SpeakerReasonerError as error:
            job.error, chunk = error, None
        job.exhausted = chunk is None
        return chunk

    def _tell(self, job: _Job, on_turn: Listener | None) -> None:
        """Tell the turns that are known and whose turn it is."""
        if on_turn is None:
            return
        speakers = 0
        for stretch in job.stretches:
            dialogue = stretch.dialogue
            if dialogue is None:
                continue
            for event in dialogue.events[stretch.told :]:
                stretch.told += 1
                on_turn(self._progress(job, stretch, event, speakers))
            if dialogue.outcome is None:
                return
            speakers += _speakers(dialogue.outcome)

    def _progress(self, job: _Job, stretch: _Stretch, event: TurnEvent, speakers: int) -> Progress:
        start_s, tick = stretch.start_s, self.profile.ticks_per_s
        boxed = None
        if event.box is not None:
            boxed = (start_s + event.box.start / tick, start_s + event.box.end / tick)
        segments = self._segments(event.lines, start_s, speakers)
        return Progress(job.path, job.path.stem, start_s, stretch.end_s, segments, event, boxed)

    def _segments(
        self, lines: Iterable[Heard], offset_s: float, speakers: int
    ) -> tuple[Segment, ...]:
        """Lines of a chunk in seconds of the recording; labels start after `speakers`."""
        tick = self.profile.ticks_per_s
        return tuple(
            Segment(
                f"Speaker{speakers + heard.line.speaker}",
                round(offset_s + heard.line.start / tick, 6),
                round(offset_s + heard.line.end / tick, 6),
                heard.line.text,
                heard.line.gender,
                Confidence(
                    heard.confidence.words, heard.confidence.speaker, heard.confidence.times
                ),
            )
            for heard in lines
        )

    def _result(self, job: _Job) -> Transcript | Failure:
        if job.error is not None:
            return Failure(job.path.stem, job.error)
        segments: list[Segment] = []
        missing: list[Missing] = []
        traces: list[dict[str, Any]] = []
        speakers = 0
        for stretch in job.stretches:
            if stretch.dialogue is None or stretch.dialogue.outcome is None:
                continue
            outcome = stretch.dialogue.outcome
            segments += self._segments(outcome.lines, stretch.start_s, speakers)
            speakers += _speakers(outcome)
            if outcome.missing is not None:
                missing.append(self._missing(outcome, stretch.start_s))
            traces.append(_trace(stretch, outcome))
        return Transcript(
            job.path.stem,
            job.duration_s,
            tuple(segments),
            tuple(missing),
            _warnings(segments, len(traces), self.profile),
            tuple(traces),
            self._info(job),
        )

    def _missing(self, outcome: Outcome, offset_s: float) -> Missing:
        tick = self.profile.ticks_per_s
        box = outcome.missing
        assert box is not None
        reason = f"{outcome.stop}: {outcome.detail}"
        return Missing(offset_s + box.start / tick, offset_s + box.end / tick, reason)

    def _info(self, job: _Job) -> dict[str, Any]:
        """Model, settings, counts and time. Wall time counts from the recording's opening."""
        from . import __version__

        events = [event for dialogue in job.dialogues for event in dialogue.events]
        stops = Counter(
            str(dialogue.outcome.stop) for dialogue in job.dialogues if dialogue.outcome
        )
        stages: dict[str, float] = {}
        for event in events:
            for stage, value in event.seconds.items():
                stages[stage] = round(stages.get(stage, 0.0) + value, 6)
        wall_s = time.monotonic() - job.begun
        return {
            "version": __version__,
            **self.engine.describe(),
            "profile": self.profile.name,
            "answer": self.answer,
            "chunks": len(job.stretches),
            "stops": dict(stops),
            "turns": len(events),
            "tokens": sum(event.tokens for event in events),
            "loops_closed": sum(event.looped for event in events),
            "duplicates_dropped": sum(event.duplicates for event in events),
            "wall_s": round(wall_s, 3),
            "real_time_factor": round(wall_s / job.duration_s, 4),
            "stage_s": stages,
        }


def _speakers(outcome: Outcome) -> int:
    """The highest speaker number of a chunk; the next chunk's labels start after it."""
    return max((heard.line.speaker for heard in outcome.lines), default=0)


def _trace(stretch: _Stretch, outcome: Outcome) -> dict[str, Any]:
    return {
        "start_s": stretch.start_s,
        "duration_s": audio.to_seconds(stretch.samples),
        "stop": str(outcome.stop),
        "detail": outcome.detail,
        "parts": outcome.trace.to_json(),
    }


def _warnings(segments: list[Segment], chunk_count: int, profile: Profile) -> tuple[str, ...]:
    warnings = []
    sure = [(s.confidence.words, s.duration_s) for s in segments if s.confidence.words is not None]
    floor = profile.word_confidence_floor
    if sure and floor is not None:
        mean = sum(p * d for p, d in sure) / sum(d for _, d in sure)
        if mean < floor:
            warnings.append(
                f"this recording does not sound like what the checkpoint knows ({profile.domain}): "
                f"mean word confidence {mean:.2f}, expected at least {floor:.2f}; do not trust the "
                "words"
            )
    if chunk_count > 1:
        warnings.append(
            f"the recording was heard in {chunk_count} chunks and speakers are not linked between "
            "them: one person has another label in each chunk"
        )
    return tuple(warnings)
