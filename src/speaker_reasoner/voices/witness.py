"""The second witness: a speaker embedding of each clip, and what two of them say of one person.

A `Witness` gives each clip a point on a sphere; clips of one voice lie close together. An engine may
have one of its own (`engines.tower`); models trained for this alone are in `others`.

Does not know labels, times or names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..audio import Samples

Points = npt.NDArray[np.float32]
"""Voice embeddings `[n, d]`, rows of length 1."""

_DOUBT = 0.2
"""What noise would have to take of a cosine to halve what it says."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """How points of one recording scatter: variances, over all dimensions together.

    Attributes:
        spread: of people's own points about their mean.
        noise: of points of one second about their person's.
    """

    spread: float
    noise: float


class Witness(Protocol):
    """Tells voices apart.

    Attributes:
        name: what a transcript records.
        threshold: cosine of two long stretches of one recording at which one voice and two are as
            likely.
        elsewhere: that of two stretches of different recordings.
        scale: log-odds for one voice that a unit of cosine is worth between long stretches.
        settle_s: how much a short stretch scatters: of two of T seconds, the expected cosine is
            `1 / (1 + settle_s / T)` of that of long ones (see `log_odds`).
        scatter: of points within a chunk; `None` where nobody measured it, and cosines group lines.
    """

    name: str
    threshold: float
    elsewhere: float
    scale: float
    settle_s: float
    scatter: Scatter | None

    def embed(self, clips: Sequence[Samples]) -> Points:
        """Embed clips, each float32 `[n]` at 16 kHz and of one voice, whatever else is in the list.

        Returns:
            `[clips, d]`, rows of length 1.
        """


def log_odds(
    cosines: Any, seconds: Any, others: Any, *, threshold: Any, scale: Any, settle_s: Any
) -> Any:
    """Log-odds that two stretches of speech are of one voice.

    A point of T seconds is that of the voice and noise, whose square falls as 1 / T: the cosine
    expected of two is that of long ones times `((1 + settle_s / T1) (1 + settle_s / T2)) ** -0.5`.
    The threshold falls with it, and the less is left of it the less a cosine says.

    Args:
        cosines, seconds, others: arrays or tensors of one shape, or numbers: of both stretches.
        threshold, scale, settle_s: see `Witness`.
    """
    settled = ((1 + settle_s / seconds) * (1 + settle_s / others)) ** -0.5
    sure = _DOUBT / (1 - settled + _DOUBT)
    return scale * sure * (cosines - threshold * settled)


def on_sphere(rows: Sequence[Points]) -> Points:
    """Embeddings as rows `[n, d]` of length 1."""
    if not rows:
        return np.zeros((0, 1), dtype=np.float32)
    points = np.stack(rows).astype(np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points / np.maximum(lengths, 1e-9), dtype=np.float32)
