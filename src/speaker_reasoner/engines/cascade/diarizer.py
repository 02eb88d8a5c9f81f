"""What a diarizer is: samples to who speaks when, without words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...audio import Samples
from ...speech import Region


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """One person speaks, perhaps while others do.

    Attributes:
        speaker: number within the samples, from 0.
        start_s, end_s: in seconds of the samples.
        confidence: probability that it is this speaker, 0..1, where the diarizer knows it.
    """

    speaker: int
    start_s: float
    end_s: float
    confidence: float | None = None


class Diarizer(Protocol):
    """Tells speakers apart.

    Attributes:
        name: what a transcript records.
    """

    name: str

    def speech(self, samples: Samples) -> Sequence[Region]:
        """Where somebody speaks, in seconds, in order and apart."""

    def turns(
        self, samples: Samples, bounds: tuple[int, int] | None = None
    ) -> Sequence[SpeakerTurn]:
        """Who speaks when.

        Args:
            samples: float32 `[n]` at 16 kHz.
            bounds: fewest and most speakers, if they are known.

        Raises:
            EngineError: the diarizer failed.
        """

    def describe(self) -> dict[str, Any]:
        """Name, models and versions, for the transcript (JSON-ready)."""
