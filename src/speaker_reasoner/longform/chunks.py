"""A stream of samples to chunks that end where nobody speaks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE_HZ
from ..engines.base import Samples

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
