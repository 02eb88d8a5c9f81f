"""Transcribes a call with one speaker a channel: each channel separately, then merged into one transcript.

A speaker is named after the channel (`Speaker1` is that of channel 0) unless the voice is enrolled. Words of
another speaker that a channel's microphone caught, at the same time and quieter, are echoes: they are left out
and counted. Of channels with the same sound, only one is used.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import Samples
from ..errors import SpeakerReasonerError
from ..reasoner import Dialogue
from ..speech import levels_db
from ..transcript import Missing, Segment, Transcript
from ..voices.people import vote
from .chunks import AUDIBLE_DBFS
from .echoes import Levels, without_echoes
from .recording import Failure, Listener, Progress, RecordingState

MIXED, SEPARATE = "mix", "separate"
CHOICES = (MIXED, SEPARATE)

_SAME_DB = 0.5
"""Two channels hold the same sound where the difference of their levels varies by no more (assumed)."""
_COUNTS = ("turns", "tokens", "loops_closed", "duplicates_dropped", "insisted", "silent_dropped")
_OF_A_CHANNEL = ("language", "language_probability", "chunks", "stops", *_COUNTS, "stage_s")


class Loudness:
    """Passes the samples of a channel on and records their levels.

    Args:
        blocks: of samples at 16 kHz, each but the last of whole frames of 20 ms.
    """

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = blocks
        self._parts: list[Levels] = []

    def __iter__(self) -> Iterator[Samples]:
        for block in self._blocks:
            self._parts.append(levels_db(block).astype(np.float32))
            yield block

    @property
    def levels_db(self) -> Levels:
        """Level of every `echoes.FRAME_S` that has passed, in dB of full scale."""
        return np.concatenate([np.zeros(0, np.float32), *self._parts])


class SeparateChannels:
    """The channels of one recording being transcribed; has the methods of a `RecordingState`.

    Args:
        channels: the state of each channel, which holds one speaker at most.
        loudness: of each, filled while its chunks are read.
        names: of enrolled speakers.
    """

    def __init__(
        self, channels: Sequence[RecordingState], loudness: Sequence[Loudness], names: Iterable[str]
    ) -> None:
        self._channels = tuple(channels)
        self._loudness = tuple(loudness)
        self._names = frozenset(names)
        self.path: Path = channels[0].path
        self.name = channels[0].name

    @property
    def error(self) -> SpeakerReasonerError | None:
        """The error of the first channel that cannot be transcribed; `None` if all can."""
        return next((one.error for one in self._channels if one.error is not None), None)

    @property
    def duration_s(self) -> float:
        """See `RecordingState`."""
        return max(one.duration_s for one in self._channels)

    @property
    def position_s(self) -> float:
        """See `RecordingState`."""
        return min(one.position_s for one in self._channels)

    @property
    def done(self) -> bool:
        return self.error is not None or all(one.done for one in self._channels)

    def dialogues(self, most: int) -> list[Dialogue]:
        """See `RecordingState`. The channels share `most` evenly; the one with the least progress comes first."""
        dialogues: list[Dialogue] = []
        waiting = sorted(
            (one for one in self._channels if not one.done), key=lambda one: one.position_s
        )
        for left, one in zip(range(len(waiting), 0, -1), waiting, strict=True):
            if len(dialogues) < most:
                dialogues += one.dialogues(max(1, (most - len(dialogues)) // left))
        return dialogues

    def tell(self, listener: Listener | None) -> None:
        """See `RecordingState`."""
        for number, one in enumerate(self._channels):
            turns: list[Progress] = []
            one.tell(turns.append)
            if listener is not None:
                for progress in turns:
                    listener(self._of_all(number, progress))

    def result(self) -> Transcript | Failure:
        """The transcript, once `done`."""
        if self.error is not None:
            return Failure(self.name, self.error)
        transcripts: list[Transcript] = []
        for one in self._channels:
            result = one.result()
            if isinstance(result, Failure):
                return result
            transcripts.append(result)
        levels = [one.levels_db for one in self._loudness]
        copies = _copies(levels)
        labels = [self._label(number, one) for number, one in enumerate(transcripts)]
        kept, echoes = without_echoes(
            [() if n in copies else one.segments for n, one in enumerate(transcripts)], levels
        )
        people = [_person(one) for one in transcripts]
        segments = [
            replace(segment, speaker=labels[n], gender=people[n][0])
            for n, rows in enumerate(kept)
            for segment in rows
        ]
        return Transcript(
            self.name,
            self.duration_s,
            tuple(segments),
            _missing(transcripts, copies),
            (*_doubts(labels, copies), *_warnings(transcripts, echoes)),
            tuple(
                sorted(
                    (
                        {**trace, "chunk": self._chunk(n, trace["chunk"]), "channel": n}
                        for n, one in enumerate(transcripts)
                        for trace in one.traces
                    ),
                    key=lambda trace: int(trace["chunk"]),
                )
            ),
            self._info(transcripts, labels, people, kept, echoes),
        )

    def _of_all(self, number: int, progress: Progress) -> Progress:
        """A turn of a channel as one of the recording."""
        return replace(
            progress,
            recording=self.name,
            chunk=self._chunk(number, progress.chunk),
            segments=tuple(
                segment
                if segment.speaker in self._names
                else replace(segment, speaker=self._unnamed(number))
                for segment in progress.segments
            ),
        )

    def _chunk(self, number: int, chunk: int) -> int:
        """A number that no chunk of another channel has."""
        return chunk * len(self._channels) + number

    def _unnamed(self, number: int) -> str:
        label = f"Speaker{number + 1}"
        return label if label not in self._names else f"Channel{number + 1}"

    def _label(self, number: int, transcript: Transcript) -> str:
        """The speaker of a channel: the enrolled one who speaks most in it, or one named after the channel."""
        seconds: dict[str, float] = defaultdict(float)
        for segment in transcript.segments:
            if segment.speaker in self._names:
                seconds[segment.speaker] += segment.duration_s
        return max(sorted(seconds), key=lambda n: seconds[n]) if seconds else self._unnamed(number)

    def _info(
        self,
        transcripts: Sequence[Transcript],
        labels: Sequence[str],
        people: Sequence[tuple[str, float]],
        kept: Sequence[Sequence[Segment]],
        echoes: Sequence[Counter[int]],
    ) -> dict[str, Any]:
        """The `info` of a `RecordingState`, summed over the channels, with that of each under `channels`."""
        spoken_s = [sum(segment.duration_s for segment in segments) for segments in kept]
        most = max(range(len(transcripts)), key=lambda n: spoken_s[n])
        infos = [one.info for one in transcripts]
        wall_s = max(info["wall_s"] for info in infos)
        speakers: dict[str, dict[str, Any]] = {}
        for label, (gender, share), channel_s in zip(labels, people, spoken_s, strict=True):
            if channel_s and label not in speakers:
                speakers[label] = {"spoken_s": 0.0, "gender": gender, "share": share}
            if channel_s:
                speakers[label]["spoken_s"] = round(speakers[label]["spoken_s"] + channel_s, 3)
        return {
            **infos[most],
            "speakers_given": None,
            "corrections": [],
            "chunks": sum(info["chunks"] for info in infos),
            "stops": dict(sum((Counter(info["stops"]) for info in infos), Counter[str]())),
            **{name: sum(info[name] for info in infos) for name in _COUNTS},
            "wall_s": wall_s,
            "real_time_factor": round(wall_s / self.duration_s, 4) if self.duration_s else 0.0,
            "stage_s": _added([info["stage_s"] for info in infos]),
            "speakers": speakers,
            "channels": [
                {
                    "channel": n,
                    "speaker": labels[n],
                    "spoken_s": round(spoken_s[n], 3),
                    "echo_words": sum(echoes[n].values()),
                    **{name: info[name] for name in _OF_A_CHANNEL if name in info},
                }
                for n, info in enumerate(infos)
            ],
        }


AnyRecording = RecordingState | SeparateChannels


def _added(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: round(sum(row.get(name, 0.0) for row in rows), 6) for name in names}


def _person(transcript: Transcript) -> tuple[str, float]:
    """The gender of a channel's speaker, and its share of their seconds."""
    people = list(transcript.info["speakers"].values())
    if len(people) == 1:
        return people[0]["gender"], people[0]["share"]
    seconds: dict[str, float] = defaultdict(float)
    for segment in transcript.segments:
        seconds[segment.gender] += segment.duration_s
    gender, share = vote(seconds)
    return gender, round(share, 4)


def _copies(levels: Sequence[Levels]) -> dict[int, int]:
    """Channels with the same sound as another one, and that other one: the louder or the first."""
    copies: dict[int, int] = {}
    for one, other in combinations(range(len(levels)), 2):
        if one in copies or other in copies or len(levels[one]) != len(levels[other]):
            continue
        audible = np.maximum(levels[one], levels[other]) >= AUDIBLE_DBFS
        if not audible.any():
            continue
        apart_db = (levels[one] - levels[other])[audible]
        middle_db = float(np.median(apart_db))
        if float(np.percentile(np.abs(apart_db - middle_db), 95)) > _SAME_DB:
            continue
        louder, quieter = (one, other) if middle_db > -_SAME_DB else (other, one)
        copies[quieter] = louder
    return copies


def _missing(transcripts: Sequence[Transcript], copies: Mapping[int, int]) -> tuple[Missing, ...]:
    every = [
        replace(missing, reason=f"channel {n}: {missing.reason}")
        for n, one in enumerate(transcripts)
        if n not in copies
        for missing in one.missing
    ]
    return tuple(sorted(every, key=lambda missing: (missing.start_s, missing.end_s)))


def _doubts(labels: Sequence[str], copies: Mapping[int, int]) -> list[str]:
    """Warnings that the recording may not have one speaker a channel."""
    doubts = [
        f"channels {min(pair)} and {max(pair)} hold the same sound, and nothing was taken from channel "
        f"{pair[0]}: where several people speak in it, transcribe it without --channels separate"
        for pair in copies.items()
    ]
    for label, count in Counter(label for n, label in enumerate(labels) if n not in copies).items():
        if count > 1:
            doubts.append(f"{count} channels sound like {label}; expected one speaker in each")
    return doubts


def _warnings(transcripts: Sequence[Transcript], echoes: Sequence[Counter[int]]) -> list[str]:
    """Warnings of the channels; one that all of them share appears once."""
    common = [w for w in transcripts[0].warnings if all(w in one.warnings for one in transcripts)]
    warnings = list(common)
    for n, one in enumerate(transcripts):
        warnings += [f"channel {n}: {w}" for w in one.warnings if w not in common]
        warnings += [
            f"channel {n}: {count} {'word was an echo' if count == 1 else 'words were an echo'} of channel "
            f"{source} and left out"
            for source, count in sorted(echoes[n].items())
        ]
    return warnings
