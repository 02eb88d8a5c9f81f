"""Recordings that are too long for a system: its pieces become one transcript, speakers linked by their voices or not.

A system counts speakers anew in each piece. `voices` compares the speakers of all pieces by a witness; with
`none` each piece has speakers of its own, and the labels say so: `2-A` is A of the second piece.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..audio import Samples, cut
from ..spans import alone
from ..transcript import Segment, Transcript, Word
from ..voices.linking import Array, Centroids, Trust, embedding_sums, merge
from ..voices.witness import Witness
from .base import Sound

_LEAST_CLIP_S, _LONGEST_CLIP_S, _ENOUGH_S = 0.5, 10.0, 60.0
"""Clips of a speaker of a piece: no shorter, no longer, and no more in all (assumed)."""
_APART = Trust(same=0.0, other=1000.0, least=-1000.0, most=0.0)
"""Speakers of one piece are different people: the system heard them together."""


@dataclass(frozen=True, eq=False, slots=True)
class TranscribedPiece:
    """The transcript of a piece.

    Attributes:
        start_s: where it starts in the recording.
        transcript: its times from there.
        rows: embedding sums of its speakers `[speakers, d + 2]`, in the order of `transcript.speakers`;
            `None` where they are not compared.
    """

    start_s: float
    transcript: Transcript
    rows: Array | None = None


def embedded(sound: Sound, transcript: Transcript, witness: Witness) -> Array:
    """Embedding sums of the speakers of a piece; zeros of one who is never alone for half a second."""
    rows = []
    for label in transcript.speakers:
        spans = [
            alone(one, transcript.segments) for one in transcript.segments if one.speaker == label
        ]
        spans.sort(key=lambda span: span[0] - span[1])
        clips: list[Samples] = []
        seconds: list[float] = []
        for start_s, end_s in spans:
            end_s = min(end_s, start_s + _LONGEST_CLIP_S)
            if end_s - start_s < _LEAST_CLIP_S or sum(seconds) >= _ENOUGH_S:
                break
            clips.append(cut(sound.samples, start_s, end_s))
            seconds.append(end_s - start_s)
        points = witness.embed(clips) if clips else None
        rows.append(None if points is None else embedding_sums(points, seconds).sum(0))
    width = next((len(row) for row in rows if row is not None), 3)
    return np.array([np.zeros(width) if row is None else row for row in rows]).reshape(-1, width)


def joined(
    recording: str,
    duration_s: float,
    pieces: Sequence[TranscribedPiece],
    witness: Witness | None,
    speakers: tuple[int, int] | None = None,
) -> Transcript:
    """One transcript of all pieces.

    Args:
        witness: that embedded their speakers; `None` leaves them unlinked.
        speakers: fewest and most people in the recording.
    """
    if len(pieces) == 1:
        return replace(pieces[0].transcript, recording=recording, duration_s=duration_s)
    labels = _linked(pieces, witness, speakers) if witness is not None else _apart(pieces)
    segments = [
        _moved(segment, piece.start_s, label[segment.speaker])
        for piece, label in zip(pieces, labels, strict=True)
        for segment in piece.transcript.segments
    ]
    warnings = [
        f"piece {number} ({piece.start_s:.1f} s): {warning}"
        for number, piece in enumerate(pieces, start=1)
        for warning in piece.transcript.warnings
    ]
    if witness is None:
        warnings.append(
            f"the recording was cut into {len(pieces)} pieces, whose speakers were not linked: one person has a "
            "label in each"
        )
    return Transcript(recording, duration_s, tuple(segments), warnings=tuple(warnings))


def _apart(pieces: Sequence[TranscribedPiece]) -> list[dict[str, str]]:
    return [
        {label: f"{number}-{label}" for label in piece.transcript.speakers}
        for number, piece in enumerate(pieces, start=1)
    ]


def _linked(
    pieces: Sequence[TranscribedPiece], witness: Witness, speakers: tuple[int, int] | None
) -> list[dict[str, str]]:
    owners = [(n, label) for n, piece in enumerate(pieces) for label in piece.transcript.speakers]
    if not owners:
        return [{} for _ in pieces]
    width = max(piece.rows.shape[1] for piece in pieces if piece.rows is not None)
    rows = np.zeros((len(owners), width))
    at = 0
    for piece in pieces:
        assert piece.rows is not None
        rows[at : at + len(piece.rows), -piece.rows.shape[1] :] = piece.rows
        at += len(piece.rows)
    place = np.array([number for number, _ in owners])
    apart = np.where(place[:, None] == place, -_APART.other, 0.0).astype(np.float32)[None]
    spoken = [
        sum(s.duration_s for s in pieces[number].transcript.segments if s.speaker == label)
        for number, label in owners
    ]
    low, high = speakers or (1, None)
    who = merge(Centroids(rows, witness), apart, spoken, trust=_APART, fewest=low, highest=high)
    labels: list[dict[str, str]] = [{} for _ in pieces]
    for (number, label), person in zip(owners, who, strict=True):
        labels[number][label] = f"Speaker{person + 1}"
    return labels


def _moved(segment: Segment, by_s: float, speaker: str) -> Segment:
    words = segment.words
    if words is not None:
        words = tuple(Word(w.text, w.start_s + by_s, w.end_s + by_s, w.confidence) for w in words)
    return replace(
        segment,
        speaker=speaker,
        start_s=segment.start_s + by_s,
        end_s=segment.end_s + by_s,
        words=words,
    )
