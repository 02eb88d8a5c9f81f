"""The second witness: speaker embeddings, and the log-odds of two embeddings being of one speaker.

A `Witness` maps each clip to an embedding of length 1; clips of one speaker have a high cosine. An engine
may have one of its own (`engines.tower`); models of other packages are in `others`.

Knows no labels, times or names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..audio import Samples

Points = npt.NDArray[np.float32]
"""Speaker embeddings `[n, d]`, rows of length 1."""

_DOUBT = 0.2
"""Share of the cosine lost to noise at which the log-odds are halved; by the entry of 2026-11-23 in
docs/experiments.md, about linking by all speech of a cluster."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """Variances of the embeddings of one recording, summed over all dimensions.

    Attributes:
        spread: between speakers: of speakers' means about their common mean.
        noise: within a speaker: of embeddings of one second of speech about the speaker's mean.
    """

    spread: float
    noise: float


class Witness(Protocol):
    """A speaker embedding model, with its calibration.

    Attributes:
        name: the name that a transcript records.
        threshold: cosine of two long stretches of one recording at which one speaker and two speakers
            are equally likely.
        elsewhere: the same of two stretches of different recordings.
        scale: log-odds for each unit of cosine, between long stretches.
        settle_s: duration at which noise is as strong as the voice: the expected cosine of two
            stretches of T seconds is `1 / (1 + settle_s / T)` of that of long ones (see `log_odds`).
        scatter: variances within a chunk; `None` where they were not measured, and lines of a chunk are
            clustered by cosines.
    """

    name: str
    threshold: float
    elsewhere: float
    scale: float
    settle_s: float
    scatter: Scatter | None

    def embed(self, clips: Sequence[Samples]) -> Points:
        """Embed clips, each float32 `[n]` at 16 kHz and of one speaker; each independently of the others.

        Returns:
            `[clips, d]`, rows of length 1.
        """


def log_odds(
    cosines: Any, seconds: Any, others: Any, *, threshold: Any, scale: Any, settle_s: Any
) -> Any:
    """Log-odds that two stretches of speech are of one speaker.

    The embedding of T seconds is the voice's plus noise whose power falls as 1 / T: the expected cosine
    of two is that of long ones times `((1 + settle_s / T1) (1 + settle_s / T2)) ** -0.5`. The threshold is
    multiplied by the same factor, and the scale falls with it too.

    Args:
        cosines: of both stretches; arrays or tensors of one shape, or numbers, as the next two.
        seconds, others: durations of the one and of the other stretch.
        threshold, scale, settle_s: see `Witness`.
    """
    settled = ((1 + settle_s / seconds) * (1 + settle_s / others)) ** -0.5
    sure = _DOUBT / (1 - settled + _DOUBT)
    return scale * sure * (cosines - threshold * settled)


def on_sphere(rows: Sequence[Points]) -> Points:
    """Stack embeddings as rows `[n, d]`, scaled to length 1."""
    if not rows:
        return np.zeros((0, 1), dtype=np.float32)
    points = np.stack(rows).astype(np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points / np.maximum(lengths, 1e-9), dtype=np.float32)
