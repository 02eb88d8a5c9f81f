"""Which lines of a chunk are one voice: the likeliest way to share them out.

Points of one person's lines scatter about the person's own, the less the longer a line is, and people's
own about a mean: a two-covariance model (Brümmer and de Villiers, The speaker partitioning problem,
Odyssey 2010), both alike in all dimensions. How likely it is that some lines are one person's has then a
closed form, and a chunk has few lines: groups are merged while that makes the whole likelier, then lines
are moved. How loud somebody is at the microphone counts as one more such number, and several numbers of
the dialogue within a group count against it.

Without a witness the dialogue's numbers are all there is; where nobody measured how its points scatter,
cosines decide, as between chunks.

Over a whole recording voices drift more than within half a minute, which such a model would take for
more people; `linking` joins groups of different chunks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..spans import alone
from .finished import Finished
from .linking import Trust, Voices, heard, merge
from .witness import Scatter, Witness

Array = np.ndarray[Any, Any]
_LASTING = 0.1
"""However long it is, a line scatters as one of ten seconds."""
_INDEPENDENT = 0.3
"""Share of the dimensions that say something of their own; by measurement."""
_SPREAD_DB, _NOISE_DB, _LASTING_DB = 10.0, 2.2, 0.3
"""Levels: variance of people's own, of a line of one second about it, and of any however long."""
_NUMBER = 1.0
"""Log-odds against each further number of the dialogue within a group."""
_LEAST_GAIN = 1e-6
_MOST_STEPS = 200


def grouped(
    finished: Finished, witness: Witness | None, trust: Trust, *, fewest: int = 1
) -> list[int]:
    """The group of each line of a chunk.

    Args:
        witness: whose points the lines have, if they do.
        trust: how much the dialogue counts beside cosines.
        fewest: people that voices are shared out among at least, as far as there are lines.
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
        # A line without a voice of its own stays with the longest line of its number that has one.
        fellows = [j for j in chosen if numbers[j] == numbers[i]]
        if fellows:
            groups[i] = groups[max(fellows, key=lambda j: spoken[j].seconds)]
        else:
            groups[i] = fresh.setdefault(numbers[i], following + len(fresh))
    return [groups[i] for i in range(len(spoken))]


def _by_voice(
    finished: Finished, chosen: Sequence[int], witness: Witness, trust: Trust, fewest: int
) -> list[int]:
    """The group of each chosen line, which all have points."""
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
    told = np.where(numbers[:, None] == numbers, trust.same, -trust.other)[None]
    voices = Voices(heard(points, seconds), witness)
    return merge(voices, told, seconds, trust=trust, fewest=fewest)


def group_lines(
    points: Array,
    seconds: Sequence[float],
    levels_db: Sequence[float],
    numbers: Sequence[int],
    scatter: Scatter,
    *,
    fewest: int = 1,
) -> list[int]:
    """Share lines out among people.

    Args:
        points: embeddings `[n, d]` of length 1.
        seconds: that were embedded of each.
        levels_db: how loud each is.
        numbers: of speakers in the dialogue.
        scatter: of the points.
        fewest: groups, as far as there are lines.

    Returns:
        The group of each line; groups count by their first line.
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
    found: dict[int, int] = {}
    return [found.setdefault(int(one), len(found)) for one in groups]


class _Lines:
    """Lines of a chunk. Of a group it takes the products of its points, each times its precision, and
    sums over its lines: of precisions of points and levels, of levels, of lines by number."""

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
        """The two groups made one that gain most by it; `None` if none do."""
        _, products, sums = self._of(groups)
        own = products.diagonal()
        apart = self._likelihood(own, sums)
        joined = self._likelihood(
            own[:, None] + own + 2 * products, sums[:, None, :] + sums[None, :, :]
        )
        gains = joined - apart[:, None] - apart
        np.fill_diagonal(gains, -np.inf)
        one, other = divmod(int(gains.argmax()), len(gains))
        if gains[one, other] <= _LEAST_GAIN:
            return None
        return np.where(groups == other, one, groups)

    def moved(self, groups: Array, *, spare: bool) -> Array | None:
        """The line that gains most by another group, or by being a person of its own, given to it;
        `spare` tells whether a group may lose its last one."""
        members, products, sums = self._of(groups)
        own, towards = products.diagonal(), members @ self.products
        single, lines = self.products.diagonal(), np.arange(len(groups))
        apart = self._likelihood(own, sums)
        left = self._likelihood(
            own[groups] - 2 * towards[groups, lines] + single, sums[groups] - self.sums
        )
        joined = self._likelihood(
            own[:, None] + 2 * towards + single, sums[:, None, :] + self.sums[None, :, :]
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
        """Which lines are a group's `[k, n]`, products of groups `[k, k]`, and sums `[k, ...]`."""
        members = (groups == np.arange(groups.max() + 1)[:, None]).astype(np.float64)
        return members, members @ self.products @ members.T, members @ self.sums

    def _likelihood(self, products: Array, sums: Array) -> Array:
        """Of lines that are one person's, as a logarithm, but for what is the same of any sharing out."""
        points = _marginal(self.spread, sums[..., 0], products, self.dimensions)
        levels = _marginal(_SPREAD_DB, sums[..., 1], sums[..., 2] ** 2, 1)
        numbers = (sums[..., 3:] > 0.5).sum(-1)
        found: Array = _INDEPENDENT * points + levels - _NUMBER * numbers
        return found


def _marginal(spread: float, precision: Array, product: Array, dimensions: int) -> Array:
    """Likelihood of numbers that scatter about one that nobody knows.

    Args:
        spread: variance of that one.
        precision: of all of them together.
        product: square of their sum, each times its precision.
    """
    settled = 1 + spread * precision
    found: Array = 0.5 * (spread * product / settled - dimensions * np.log(settled))
    return found
