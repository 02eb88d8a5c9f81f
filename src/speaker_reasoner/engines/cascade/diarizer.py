"""The interface of a diarizer: from samples to who speaks when, without words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...audio import Samples
from ...speech import Region
from ...voices.witness import Points, Witness
from .segmentation import Floats


@dataclass(frozen=True, eq=False, slots=True)
class Diarization:
    """Speaker activity over time.

    Attributes:
        active: probability that each speaker speaks, `[frames, speakers]`, a frame every
            `segmentation.FRAME_S`.
        embeddings: of each speaker `[speakers, d]`, by the diarizer's witness; `None` if it has none.
    """

    active: Floats
    embeddings: Points | None = None


class Diarizer(Protocol):
    """Finds who speaks when.

    Attributes:
        name: as a transcript records it.
        witness: compares speakers of different chunks; `None` if it has none.
    """

    name: str
    witness: Witness | None

    def speech(self, samples: Samples) -> Sequence[Region]:
        """Return the regions of speech in seconds, in order and without overlap."""

    def diarize(self, samples: Samples, bounds: tuple[int, int] | None = None) -> Diarization:
        """Find the speakers of a chunk, and when each speaks.

        Args:
            samples: float32 `[n]` at 16 kHz.
            bounds: fewest and most speakers, if they are known.

        Raises:
            EngineError: the diarizer failed.
        """

    def describe(self) -> dict[str, Any]:
        """Name, models and versions, for the transcript (JSON-ready)."""
