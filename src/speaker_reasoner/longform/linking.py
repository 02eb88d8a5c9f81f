"""Who is who over a whole recording: two witnesses, one sum.

The dialogue says which lines of a chunk are one speaker's, and, with a speaker cache, whose of
before; the voices say how much two stretches of speech sound like one person. Both are log-odds
that two things are one person's, so they add. Things are merged, the surest pair first, while the
sum speaks for it (average linkage for the voices, a bounded sum for the dialogue) or while there
are more people than the user allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray[Any, np.dtype[np.float64]]
NEVER = -1e9
"""Log-odds of what cannot be one person."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How much each witness counts, in log-odds; chosen by measurement (docs/results).

    Attributes:
        same: a dialogue gave two lines of a chunk the same number.
        other: it gave them different numbers.
        cached: it gave a line the number of a cached person, or not.
        most: bound of what a dialogue may say in all about two groups.
    """

    same: float = 1.0
    other: float = 2.0
    cached: float = 1.0
    most: float = 2.5


def voice_odds(
    points: np.ndarray[Any, Any], seconds: Sequence[float], threshold: float, scale: float
) -> Matrix:
    """Log-odds that two stretches of speech are of one voice, `[n, n]`.

    Args:
        points: embeddings `[n, d]` of length 1; rows of NaN where there is none.
        seconds: of speech behind each; the odds of short stretches count for less.
        threshold: cosine at which the odds are even.
        scale: log-odds for each unit of cosine.
    """
    known = ~np.isnan(points).any(1)
    clean = np.where(known[:, None], points, 0.0)
    odds = (clean @ clean.T - threshold) * scale
    length = np.minimum.outer(np.asarray(seconds, float), np.asarray(seconds, float))
    odds *= np.minimum(1.0, length / 2.0) ** 0.5
    odds[~known] = 0.0
    odds[:, ~known] = 0.0
    return odds


def merge(
    voices: Matrix,
    told: Matrix,
    weights: Sequence[float],
    *,
    most: float,
    fewest: int = 1,
    highest: int | None = None,
    apart: Sequence[int] = (),
) -> list[int]:
    """Group things that are one person's.

    Args:
        voices: log-odds by voice `[n, n]`.
        told: log-odds by the dialogues `[n, n]`.
        weights: of each thing in the average linkage, seconds of speech.
        most: bound of the dialogues' sum over two groups.
        fewest: go no further than so many groups.
        highest: merge what is likest until there are no more than so many.
        apart: things that are known to be different people (enrolled voices).

    Returns:
        The group of each thing; groups count by their first thing.
    """
    count = len(weights)
    if count == 0:
        return []
    mean, total = voices.astype(float).copy(), told.astype(float).copy()
    weight = np.maximum(np.asarray(weights, float), 1e-3)
    banned = np.zeros((count, count), bool)
    banned[np.ix_(list(apart), list(apart))] = True
    np.fill_diagonal(banned, True)
    group = list(range(count))
    alive = np.ones(count, bool)
    score = mean + np.clip(total, -most, most)
    score[banned] = NEVER
    left = count
    while left > max(1, fewest):
        best = int(np.argmax(score))
        a, b = sorted(divmod(best, count))
        enough = highest is None or left <= highest
        if score[a, b] <= NEVER / 2 or (enough and score[a, b] <= 0.0):
            break
        wa, wb = weight[a], weight[b]
        mean[a] = (wa * mean[a] + wb * mean[b]) / (wa + wb)
        mean[:, a] = mean[a]
        total[a] += total[b]
        total[:, a] = total[a]
        banned[a] |= banned[b]
        banned[:, a] = banned[a]
        banned[a, a] = True
        weight[a] = wa + wb
        alive[b] = False
        score[a] = np.where(alive & ~banned[a], mean[a] + np.clip(total[a], -most, most), NEVER)
        score[:, a] = score[a]
        score[b] = score[:, b] = NEVER
        group = [a if g == b else g for g in group]
        left -= 1
    numbers: dict[int, int] = {}
    return [numbers.setdefault(g, len(numbers)) for g in group]
