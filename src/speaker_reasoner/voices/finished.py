"""The result of one chunk: the input of linking, and a row of the journal."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .. import audio
from ..transcript import Confidence, Missing, Segment, Word

Points = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class ChunkSegment:
    """One line of a chunk, in seconds of the recording; `number` is the speaker's in the dialogue.

    `words` are as in `Segment`: `None` where the engine gives no times of words.
    """

    number: int
    gender: str
    start_s: float
    end_s: float
    text: str
    confidence: Confidence = field(default_factory=Confidence)
    words: tuple[Word, ...] | None = None

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    def segment(self, speaker: str, gender: str | None = None) -> Segment:
        return Segment(
            speaker,
            self.start_s,
            self.end_s,
            self.text,
            gender or self.gender,
            self.confidence,
            self.words,
        )

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "ChunkSegment":
        """Read the JSON of `asdict`; `words` may be absent."""
        words = row.get("words")
        return cls(
            **{
                **row,
                "confidence": Confidence(**row["confidence"]),
                "words": None if words is None else tuple(Word(**word) for word in words),
            }
        )


@dataclass(frozen=True, slots=True)
class FinishedChunk:
    """A finished chunk.

    Attributes:
        start_samples, samples: its start in the recording, and its length.
        spoken: its lines.
        points: speaker embedding of each line `[n, d]`, NaN where there is none; `None` without a
            witness.
        levels_db: level of each embedded line, relative to full scale; 0 where there is no embedding.
        people: the person behind each number of the speaker cache, from 1.
        language: code and probability of the recognised language, if the engine gives them.
        left_out: number of recognised words that were not passed on, by reason.
        noted: warnings about turns for the reader of the transcript, each with its count.
        stop: why the dialogue ended; empty for a silent chunk.
        trace: the dialogue, as JSON.
        counts: numbers of turns, tokens, ...
        seconds: run time of each of the engine's stages.
    """

    start_samples: int
    samples: int
    spoken: tuple[ChunkSegment, ...] = ()
    points: Points | None = None
    levels_db: tuple[float, ...] = ()
    people: tuple[int, ...] = ()
    language: tuple[str, float] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()
    stop: str = ""
    trace: Mapping[str, Any] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def end_s(self) -> float:
        return audio.to_seconds(self.start_samples + self.samples)

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        if self.points is not None:
            data = np.ascontiguousarray(self.points, dtype="<f4").tobytes()
            row["points"] = [list(self.points.shape), base64.b64encode(data).decode("ascii")]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "FinishedChunk":
        """Read a row that `to_json` wrote.

        Raises:
            FormatError, KeyError, TypeError, ValueError: it is no such row.
        """
        points = None
        if row["points"] is not None:
            shape, data = row["points"]
            points = np.frombuffer(base64.b64decode(data), dtype="<f4").reshape(shape)
        spoken = tuple(ChunkSegment.from_json(one) for one in row["spoken"])
        missing = tuple(Missing(**one) for one in row["missing"])
        values = {**row, "points": points, "spoken": spoken, "missing": missing}
        values |= {"levels_db": tuple(row["levels_db"]), "people": tuple(row["people"])}
        values["language"] = tuple(row["language"]) if row["language"] else None
        return cls(**values)
