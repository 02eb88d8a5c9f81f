"""Cuts a stream of samples into chunks that end where nobody speaks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..audio import SAMPLE_RATE_HZ, Samples
from ..speech import Detect, levels_db, quietest_cut

AUDIBLE_DBFS = -65.0
"""A chunk whose loudest 20 ms stay below this is silence (assumed)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a recording: float32 samples `[n]` at 16 kHz, and where they start."""

    start_samples: int
    samples: Samples

    @property
    def audible(self) -> bool:
        return float(levels_db(self.samples).max(initial=-200.0)) >= AUDIBLE_DBFS


def chunks(
    blocks: Iterable[Samples], chunk_s: float, detect: Detect | None = None
) -> Iterator[Chunk]:
    """Cut a stream of samples into chunks of at most `chunk_s`, each in the longest pause of its
    second half, or at its quietest place. Every sample is in exactly one chunk, in order.

    Args:
        detect: finds the pauses; by energy if `None`.
    """
    longest = round(chunk_s * SAMPLE_RATE_HZ)
    held, at = np.zeros(0, dtype=np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > longest:
            regions = None if detect is None else detect(held[:longest])
            cut = quietest_cut(held[:longest], longest // 2, longest, regions)
            yield Chunk(at, held[:cut])
            held, at = held[cut:], at + cut
    if len(held):
        yield Chunk(at, held)
