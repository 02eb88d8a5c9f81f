"""Clips that enrol a speaker: the stretch of a file with most speech, and its checks."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import audio
from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import AudioError, quoted
from ..speech import Region, Vad, levels_db, speech_regions, spoken_s

LEAST_S, MOST_S = 2.0, 10.0
"""Least speech in a clip, and the longest stretch of a file that is used."""
LONGEST_S = 600.0
"""A longer file is refused: it is a recording, not a clip."""


@dataclass(frozen=True, eq=False, slots=True)
class EnrolmentClip:
    """A stretch of a file that holds speech.

    Attributes:
        path: path of the file.
        start_s: start of the stretch in the file.
        samples: float32 `[n]` at 16 kHz, at most `MOST_S` long.
        speech_regions: regions of speech, in seconds of `samples`.
    """

    path: Path
    start_s: float
    samples: Samples
    speech_regions: tuple[Region, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def speech_s(self) -> float:
        return spoken_s(self.speech_regions, 0.0, self.duration_s)

    @property
    def digest(self) -> str:
        """SHA-256 of the samples at 16 bits; equal clips have equal digests."""
        rounded = np.round(self.samples * 32767).astype("<i4")
        return hashlib.sha256(rounded.tobytes()).hexdigest()


def load_clip(path: str | os.PathLike[str], vad: Vad | None = None) -> EnrolmentClip:
    """Read a clip: the 10 s of a file (of at most 10 minutes) that hold most speech.

    Args:
        path: as for `audio.load`.
        vad: detects speech; by energy if `None`.

    Raises:
        AudioError: the file cannot be read, is longer than 10 minutes, or holds less than 2 s of
            speech within 10 s.
    """
    samples = _load_bounded(path)
    regions = speech_regions(samples, vad)
    start_s, end_s = _best_stretch(regions)
    got_s = spoken_s(regions, start_s, end_s)
    if got_s < LEAST_S:
        loudest = float(levels_db(samples).max())
        raise AudioError(
            f"{quoted(path)}: got {got_s:.1f} s of speech within {MOST_S:g} s (the loudest 20 ms are "
            f"at {loudest:.0f} dB of full scale), expected at least {LEAST_S:g} s; record the person "
            "alone, closer to the microphone"
        )
    inside = tuple(
        (a - start_s, min(b, end_s) - start_s) for a, b in regions if start_s <= a < end_s
    )
    return EnrolmentClip(Path(path), start_s, audio.cut(samples, start_s, end_s).copy(), inside)


def _load_bounded(path: str | os.PathLike[str]) -> Samples:
    blocks: list[Samples] = []
    for block in audio.stream(path):
        blocks.append(block)
        if sum(map(len, blocks)) > LONGEST_S * SAMPLE_RATE_HZ:
            raise AudioError(
                f"{quoted(path)}: got more than {LONGEST_S / 60:g} minutes, expected a clip of one "
                f"person; cut out {LEAST_S:g} to {MOST_S:g} s in which nobody else speaks"
            )
    return np.concatenate(blocks)


def _best_stretch(regions: Sequence[Region]) -> Region:
    """Choose the stretch with most speech, the first of equals.

    A stretch begins with a region, lasts at most `MOST_S`, and ends with its last region.
    """
    best = (0.0, 0.0)
    for start_s, _ in regions:
        end_s = min(start_s + MOST_S, max(b for a, b in regions if a < start_s + MOST_S))
        if spoken_s(regions, start_s, end_s) > spoken_s(regions, *best):
            best = (start_s, end_s)
    return best
