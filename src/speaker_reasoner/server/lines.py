"""A transcript with corrections: its lines, names of speakers, and the JSON of the page. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..formats.words import OPENAI, word_rows
from ..spans import find_overlaps
from ..transcript import Segment, Transcript
from .openai import confidence_body, missing_body


@dataclass(frozen=True, slots=True)
class CorrectedLine:
    """A segment that operations can refer to.

    Attributes:
        id: unique within the job, also after a chunk is transcribed again.
        segment: with the label of its speaker.
        chunk: number of its chunk.
        turn: number of its turn of the dialogue; `None` if no turn wrote it so.
        corrected: whether users changed its words, times or speaker.
    """

    id: str
    segment: Segment
    chunk: int
    turn: int | None
    corrected: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A transcript with corrections.

    Attributes:
        transcript: as the model left it; `lines` replace its segments.
        lines: its corrected lines.
        names: of speakers that were given one, by label.
        met: every label there ever was, in order; decides the colours.
        deleted: lines that users deleted because nobody said them.
    """

    transcript: Transcript
    lines: tuple[CorrectedLine, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    met: tuple[str, ...] = ()
    deleted: tuple[CorrectedLine, ...] = ()

    @property
    def ordered(self) -> list[CorrectedLine]:
        """Lines in the order of a transcript."""
        return sorted(
            self.lines, key=lambda x: (x.segment.start_s, x.segment.end_s, x.segment.speaker)
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in order of first appearance."""
        return tuple(dict.fromkeys(line.segment.speaker for line in self.ordered))

    def name(self, label: str) -> str:
        return self.names.get(label, label)

    def label(self, speaker: str) -> str | None:
        """Return the label of a speaker, by label or else by name; `None` if it is unknown."""
        if speaker in self.labels:
            return speaker
        named = [label for label in self.labels if self.name(label) == speaker]
        return named[0] if named else None

    def corrected(self) -> Transcript:
        """The transcript with corrections, and names as labels."""
        segments = [
            replace(line.segment, speaker=self.name(line.segment.speaker)) for line in self.lines
        ]
        return self.transcript.with_segments(segments)

    def body(
        self, revision: int, *, can_undo: bool, can_redo: bool, words: bool = False
    ) -> dict[str, Any]:
        """Return the document as JSON for the page.

        Args:
            words: include words with times.
        """
        lines = self.ordered
        overlaps = find_overlaps([line.segment for line in lines])
        genders = self.transcript.with_segments([line.segment for line in lines]).genders
        colours = {label: number for number, label in enumerate(self.met)}
        return {
            "revision": revision,
            "duration": self.transcript.duration_s,
            "speakers": [
                {
                    "label": label,
                    "name": self.name(label),
                    "gender": genders[label],
                    "colour": colours[label],
                }
                for label in self.labels
            ],
            "segments": [
                {
                    "id": line.id,
                    "speaker": line.segment.speaker,
                    "gender": line.segment.gender,
                    "start": line.segment.start_s,
                    "end": line.segment.end_s,
                    "text": line.segment.text,
                    "confidence": confidence_body(line.segment),
                    "overlap": overlap,
                    "chunk": line.chunk,
                    "turn": line.turn,
                    "corrected": line.corrected,
                    **_timed(line.segment, words),
                }
                for line, overlap in zip(lines, overlaps, strict=True)
            ],
            "chunks": chunk_spans(self.transcript),
            "missing": missing_body(self.transcript.missing),
            "warnings": list(self.transcript.warnings),
            "can_undo": can_undo,
            "can_redo": can_redo,
        }


def _timed(segment: Segment, words: bool) -> dict[str, Any]:
    return {"words": word_rows(segment.words, OPENAI)} if words and segment.words else {}


def chunk_spans(transcript: Transcript) -> list[dict[str, Any]]:
    """Return number, start and end of the chunks with a dialogue; silent ones have none."""
    return [
        {
            "chunk": trace["chunk"],
            "start": trace["start_s"],
            "end": trace["start_s"] + trace["duration_s"],
        }
        for trace in transcript.traces
    ]


def chunk_at(transcript: Transcript, start_s: float, speaker: str) -> int:
    """Return the last chunk that starts before a time; with separate channels, of the speaker's channel."""
    rows = transcript.info.get("channels", ())
    own = [row["channel"] for row in rows if row["speaker"] == speaker]
    before = [
        trace["chunk"]
        for trace in transcript.traces
        if trace["start_s"] <= start_s and (not own or trace.get("channel") in own)
    ]
    return before[-1] if before else 0


def channel_of(transcript: Transcript, chunk: int) -> int | None:
    """Return the channel of a chunk; `None` where channels are not separate."""
    return next((t.get("channel") for t in transcript.traces if t["chunk"] == chunk), None)
