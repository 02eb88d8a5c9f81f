"""Division of live audio: into pieces, which a commit or a pause ends, and those into stretches that the model
hears at once. Times are samples at 16 kHz from the beginning of the session.
"""

from dataclasses import dataclass

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ...longform.chunks import Chunk
from ...speech import quietest_cut
from .events import TurnDetection
from .incoming import Began, Coding, Decoder, Pauses, Stopped

SHORTEST = SAMPLE_RATE_HZ // 10
"""Shortest piece that can be committed, as in OpenAI's API."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Audio that the model hears at once; `ends` marks the last one of a piece."""

    chunk: Chunk
    ends: bool


Cut = Began | Stopped | Stretch


class Cutter:
    """Cuts one session.

    Args:
        coding: of the audio that comes.
        longest_s: of a stretch.

    Attributes:
        now: samples so far.
        start: first sample of the piece under way.
    """

    def __init__(self, coding: Coding, longest_s: float) -> None:
        self.now = self.start = 0
        self._longest = round(longest_s * SAMPLE_RATE_HZ)
        self._decoder = Decoder(coding)
        self._held: Samples = np.zeros(0, np.float32)
        self._from = 0
        self._turns: TurnDetection | None = None
        self._pauses: Pauses | None = None

    def detect(self, turns: TurnDetection | None) -> None:
        """Set whether pauses end pieces, or only the client does."""
        if turns == self._turns:
            return
        self._turns, self._pauses = turns, None
        if turns is not None:
            self._pauses = Pauses(turns.threshold, turns.silence_duration_ms / 1000, self.now)

    @property
    def speaking(self) -> bool:
        """Return whether arriving audio belongs to a piece."""
        return self._pauses is None or self._pauses.speaking

    @property
    def under_way(self) -> Chunk:
        """The samples since the last cut."""
        return Chunk(self._from, self._held)

    def feed(self, data: bytes) -> list[Cut]:
        """Take the next samples as they were sent; return the cuts, in order."""
        return self._take(self._decoder.feed(data))

    def commit(self) -> list[Cut]:
        """End the piece under way."""
        cuts = self._take(self._decoder.rest())
        if self.now - self.start < SHORTEST:
            return cuts
        if self._pauses is not None:
            self._pauses.rest()
        return [*cuts, self._end(self.now)]

    def clear(self) -> None:
        """Drop the piece under way."""
        self._take(self._decoder.rest())
        self._drop(self.now)
        self.start = self.now
        if self._pauses is not None:
            self._pauses.rest()

    def _take(self, samples: Samples) -> list[Cut]:
        self._held = np.concatenate([self._held, samples])
        self.now += len(samples)
        cuts: list[Cut] = []
        for change in self._pauses.feed(samples) if self._pauses is not None else ():
            if isinstance(change, Began):
                self._drop(max(self.start, change.at - self._padding))
                self.start = self._from
                cuts.append(Began(self.start))
            else:
                at = max(change.at, self._from)
                cuts += [*self._long(at), Stopped(at), self._end(at)]
        if self.speaking:
            return [*cuts, *self._long(self.now)]
        self._drop(self.now - self._padding - Pauses.REACH)
        return cuts

    @property
    def _padding(self) -> int:
        assert self._turns is not None
        return self._turns.prefix_padding_ms * SAMPLE_RATE_HZ // 1000

    def _long(self, until: int) -> list[Cut]:
        """Cut off stretches while more is held than the model hears at once."""
        cuts: list[Cut] = []
        while until - self._from > self._longest:
            at = quietest_cut(self._held[: self._longest], self._longest // 2, self._longest)
            cuts.append(Stretch(self._cut(self._from + at), ends=False))
        return cuts

    def _end(self, at: int) -> Stretch:
        stretch = Stretch(self._cut(at), ends=True)
        self.start = at
        return stretch

    def _cut(self, at: int) -> Chunk:
        chunk = Chunk(self._from, self._held[: at - self._from])
        self._drop(at)
        return chunk

    def _drop(self, until: int) -> None:
        if until > self._from:
            self._held, self._from = self._held[until - self._from :], until
