"""Cluster the lines of one chunk by speaker: the partition of highest likelihood.

The model is the two-covariance model of speaker verification (Brümmer and de Villiers, The speaker
partitioning problem, Odyssey 2010) with one variance for all dimensions: embeddings of a speaker's
lines are normally distributed about the speaker's mean, with a variance that falls with the line's
duration, and speakers' means about a common mean. The likelihood that lines are of one speaker then
has a closed form. A greedy search merges clusters while that raises the likelihood of the partition,
then moves single lines. The level of a line is one more such variable, and each further speaker number
of the dialogue within a cluster costs a constant.

Without a witness, lines are clustered by the dialogue's numbers alone. Where a witness's variances
were not measured, cosines decide, as between chunks.

`linking` joins clusters of different chunks: over a whole recording a voice drifts more than within
half a minute, and this model would split it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..spans import alone
from .finished import FinishedChunk
from .linking import Centroids, Trust, embedding_sums, merge
from .witness import Scatter, Witness

Array = np.ndarray[Any, Any]
_LASTING = 0.1
"""Added to 1 / seconds of a line: the variance falls no further than that of a line of 10 s. Other values
(lines of 3 or 30 s) gave the same results (docs/experiments.md, 2026-11-27)."""
_INDEPENDENT = 0.3
"""Share of an embedding's dimensions that are independent; chosen on lines of unseen voices
(docs/experiments.md, 2026-11-26 and 27: 0.15 to 0.8 make no difference)."""
_SPREAD_DB, _NOISE_DB, _LASTING_DB = 10.0, 2.2, 0.3
"""Variances of levels: of speakers' means; of a line of one second about its speaker's; and of a line of
any length. Lines of one speaker vary by 1.2 dB, speakers by 3.2 dB (docs/experiments.md, 2026-11-26)."""
_NUMBER = 1.0
"""Log-odds against each further speaker number of the dialogue within a cluster; 0 to 4 make no
difference (docs/experiments.md, 2026-11-26 and 27)."""
_LEAST_GAIN = 1e-6
_MOST_STEPS = 200
"""The search ends at a smaller gain in log-likelihood, or after so many steps (assumed)."""


def grouped(
    finished: FinishedChunk, witness: Witness | None, trust: Trust, *, fewest: int = 1
) -> list[int]:
    """Number the cluster of each line of a chunk.

    Args:
        witness: the one that embedded the lines; `None` without one.
        trust: weight of the dialogue, where cosines decide.
        fewest: least number of clusters, as far as there are lines.
    """
    spoken = finished.spoken
    numbers = [one.number for one in spoken]
    if finished.points is None or witness is None:
        order: dict[int, int] = {}
        return [order.setdefault(number, len(order)) for number in numbers]
    known = ~np.isnan(finished.points).any(1)
    chosen = np.flatnonzero(known).tolist()
    by_voice = _by_voice(finished, chosen, witness, trust, fewest)
    groups = dict(zip(chosen, by_voice, strict=True))
    fresh: dict[int, int] = {}
    following = max(by_voice, default=-1) + 1
    for i in np.flatnonzero(~known).tolist():
        # A line without an embedding joins the longest embedded line of its number.
        fellows = [j for j in chosen if numbers[j] == numbers[i]]
        if fellows:
            groups[i] = groups[max(fellows, key=lambda j: spoken[j].seconds)]
        else:
            groups[i] = fresh.setdefault(numbers[i], following + len(fresh))
    return [groups[i] for i in range(len(spoken))]


def _by_voice(
    finished: FinishedChunk, chosen: Sequence[int], witness: Witness, trust: Trust, fewest: int
) -> list[int]:
    """Number the cluster of each chosen line; all of them have embeddings."""
    assert finished.points is not None
    points, spoken = finished.points[chosen], [finished.spoken[i] for i in chosen]
    numbers = np.array([one.number for one in spoken])
    if witness.scatter is not None:
        parts = [alone(one, finished.spoken) for one in spoken]
        seconds = [last_s - first_s for first_s, last_s in parts]
        levels_db = [finished.levels_db[i] for i in chosen]
        return group_lines(
            points, seconds, levels_db, numbers.tolist(), witness.scatter, fewest=fewest
        )
    seconds = [one.seconds for one in spoken]
    dialogue = np.where(numbers[:, None] == numbers, trust.same, -trust.other)[None]
    voices = Centroids(embedding_sums(points, seconds), witness)
    return merge(voices, dialogue, seconds, trust=trust, fewest=fewest)


def group_lines(
    points: Array,
    seconds: Sequence[float],
    levels_db: Sequence[float],
    numbers: Sequence[int],
    scatter: Scatter,
    *,
    fewest: int = 1,
) -> list[int]:
    """Cluster lines by likelihood.

    Args:
        points: embeddings `[n, d]` of length 1.
        seconds: embedded duration of each line.
        levels_db: level of each line.
        numbers: its speaker number in the dialogue.
        scatter: variances of the embeddings.
        fewest: least number of clusters, as far as there are lines.

    Returns:
        The cluster number of each line, in order of the clusters' first lines.
    """
    lines = _Lines(points, seconds, levels_db, numbers, scatter)
    groups = np.arange(len(points))
    for _ in range(_MOST_STEPS):
        spare = bool(groups.max() >= fewest)
        better = lines.merged(groups) if spare else None
        better = lines.moved(groups, spare=spare) if better is None else better
        if better is None:
            break
        groups = np.unique(better, return_inverse=True)[1]
    order: dict[int, int] = {}
    return [order.setdefault(int(one), len(order)) for one in groups]


class _Lines:
    """Statistics of a chunk's lines, from which the likelihood of any cluster follows.

    Attributes:
        products: inner products `[n, n]` of embeddings, each times its precision.
        sums: for each line the values that add up over a cluster: the precisions of embedding and level, the
            weighted level, and a 1 in the column of its speaker number.
    """

    def __init__(
        self,
        points: Array,
        seconds: Sequence[float],
        levels_db: Sequence[float],
        numbers: Sequence[int],
        scatter: Scatter,
    ) -> None:
        self.dimensions = points.shape[1]
        self.spread = scatter.spread / self.dimensions
        noises = 1 / np.asarray(seconds, np.float64)
        precisions = self.dimensions / (scatter.noise * (_LASTING + noises))
        weighed = precisions[:, None] * points
        self.products: Array = weighed @ weighed.T
        surenesses = 1 / (_LASTING_DB + _NOISE_DB * noises)
        levels = np.asarray(levels_db, np.float64)
        levels = surenesses * (levels - np.average(levels, weights=surenesses))
        given = np.asarray(numbers)[:, None] == np.unique(numbers)
        self.sums: Array = np.column_stack([precisions, surenesses, levels, given])

    def merged(self, groups: Array) -> Array | None:
        """Merge the two clusters whose merging raises the likelihood most; `None` if none raises it."""
        _, products, sums = self._of(groups)
        norms = products.diagonal()
        apart = self._likelihood(norms, sums)
        joined = self._likelihood(
            norms[:, None] + norms + 2 * products, sums[:, None, :] + sums[None, :, :]
        )
        gains = joined - apart[:, None] - apart
        np.fill_diagonal(gains, -np.inf)
        one, other = divmod(int(gains.argmax()), len(gains))
        if gains[one, other] <= _LEAST_GAIN:
            return None
        return np.where(groups == other, one, groups)

    def moved(self, groups: Array, *, spare: bool) -> Array | None:
        """Move the line whose move, to another cluster or to one of its own, raises the likelihood most;
        `None` if none does. With `spare`, a cluster may lose its last line."""
        members, products, sums = self._of(groups)
        norms, towards = products.diagonal(), members @ self.products
        single, lines = self.products.diagonal(), np.arange(len(groups))
        apart = self._likelihood(norms, sums)
        left = self._likelihood(
            norms[groups] - 2 * towards[groups, lines] + single, sums[groups] - self.sums
        )
        joined = self._likelihood(
            norms[:, None] + 2 * towards + single, sums[:, None, :] + self.sums[None, :, :]
        )
        gains = np.vstack([joined - apart[:, None], self._likelihood(single, self.sums)])
        gains += left - apart[groups]
        last = members.sum(1)[groups] == 1
        gains[groups, lines] = gains[-1, last] = -np.inf
        if not spare:
            gains[:, last] = -np.inf
        group, line = divmod(int(gains.argmax()), len(groups))
        if gains[group, line] <= _LEAST_GAIN:
            return None
        changed = groups.copy()
        changed[line] = group
        return changed

    def _of(self, groups: Array) -> tuple[Array, Array, Array]:
        """Membership of lines in clusters `[k, n]`, products of clusters `[k, k]`, and sums `[k, ...]`."""
        members = (groups == np.arange(groups.max() + 1)[:, None]).astype(np.float64)
        return members, members @ self.products @ members.T, members @ self.sums

    def _likelihood(self, products: Array, sums: Array) -> Array:
        """Log-likelihood of a cluster's lines being of one speaker, up to terms that all partitions share."""
        points = _marginal(self.spread, sums[..., 0], products, self.dimensions)
        levels = _marginal(_SPREAD_DB, sums[..., 1], sums[..., 2] ** 2, 1)
        numbers = (sums[..., 3:] > 0.5).sum(-1)
        total: Array = _INDEPENDENT * points + levels - _NUMBER * numbers
        return total


def _marginal(spread: float, precision: Array, product: Array, dimensions: int) -> Array:
    """Log-likelihood of normal variables about a common unknown mean, the mean integrated out.

    Args:
        spread: variance of the mean.
        precision: sum of the variables' precisions.
        product: squared length of the sum of the variables, each times its precision.
    """
    settled = 1 + spread * precision
    value: Array = 0.5 * (spread * product / settled - dimensions * np.log(settled))
    return value
