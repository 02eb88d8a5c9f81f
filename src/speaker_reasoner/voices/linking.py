"""Cluster speech by speaker over a whole recording, by the sum of two witnesses' log-odds.

The dialogue gives lines of a chunk the same or different speaker numbers and, with a speaker cache,
the numbers of speakers of earlier chunks. Speaker embeddings are compared by cosine. Both give
log-odds that two clusters are of one speaker, so they add. Agglomerative clustering merges the pair
with the highest sum while it is positive: the embeddings' part is of all speech of both clusters,
and its weight grows with their seconds; the dialogue's part is bounded. Merging continues where there
are more clusters than the user allows. Afterwards each line is reassigned to the speaker whose other
speech it fits best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .witness import Witness, log_odds

Array = np.ndarray[Any, Any]
Matrix = np.ndarray[Any, np.dtype[np.float32]]
NEVER = -1e9
"""Log-odds of two clusters that cannot be of one speaker."""
_LEAST_S = 1e-3
"""Least seconds that a line counts with (assumed; keeps divisors above zero)."""
_PASSES = 3
"""Most passes of reassignment over a recording's lines (assumed)."""
_BETWEEN = 2.5
"""Factor on the embeddings' log-odds where a line is compared with several known speakers, not with
one: the noise of a short line affects all of these comparisons alike and cancels out. Chosen on 37
meetings (docs/experiments.md, 2026-11-23; the rows "voices say ..." of docs/results/linking.json)."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Log-odds that the dialogue's speaker numbers contribute, and their bounds.

    `same`, `least` and `most` were compared in docs/results/linking.json; `foreign_least` and the bounds
    for the cache in docs/experiments.md, 2026-11-23. `other` and `cached` are assumed.

    Attributes:
        same: for one speaker, where two lines of a chunk have the same number.
        other: against one speaker, where they have different numbers.
        cached: for or against a cached speaker, where a line has that speaker's number or another.
        least, most: bounds of the sum over all numbers within chunks of two clusters. `most` is
            smaller: dialogues merge two speakers more often than they split one.
        foreign_least: `least` for a recording whose words the checkpoint does not recognise; the
            dialogue then splits one speaker into many numbers.
        cached_least, cached_most: bounds of the sum over numbers of cached speakers. They are
            narrower: a dialogue that fails to recognise a cached speaker repeats the error in every
            chunk.
    """

    same: float = 1.0
    other: float = 2.0
    cached: float = 1.0
    least: float = -8.0
    most: float = 1.0
    foreign_least: float = -1.0
    cached_least: float = -2.5
    cached_most: float = 1.0

    def bounded(self, dialogue: Matrix) -> Matrix:
        """Bound and add the dialogues' log-odds.

        Args:
            dialogue: sums `[1 or 2, ...]`: by numbers within chunks and, with a cache, by numbers of
                cached speakers.

        Returns:
            Log-odds for one speaker `[...]`.
        """
        total = np.clip(dialogue[0], self.least, self.most)
        for by_cache in dialogue[1:]:
            total = total + np.clip(by_cache, self.cached_least, self.cached_most)
        return np.asarray(total, np.float32)


def embedding_sums(points: Array, seconds: Sequence[float], *, elsewhere: bool = False) -> Array:
    """Weight speaker embeddings by their seconds, so that the rows of one cluster can be added.

    Args:
        points: embeddings `[n, d]` of length 1, rows of NaN where there is none.
        seconds: duration of speech of each.
        elsewhere: whether they are from another recording (clips of enrolled speakers).

    Returns:
        `[n, d + 2]`: embedding times seconds, the seconds, and the seconds from another recording;
        zeros where there is no embedding.
    """
    weights = np.maximum(np.asarray(seconds, np.float64), _LEAST_S)[:, None]
    rows = np.concatenate([points * weights, weights, weights * elsewhere], axis=1)
    rows[np.isnan(points).any(1)] = 0.0
    return rows


class Centroids:
    """Embedding sums of clusters, and how similar two clusters are.

    Attributes:
        rows: see `embedding_sums`.
    """

    def __init__(self, rows: Array, witness: Witness) -> None:
        self.rows = rows
        self._witness = witness

    def odds(self, one: int) -> Array:
        """Log-odds `[n]` that cluster `one` and each cluster are of one voice; 0 where either has no
        embedding."""
        witness, sums = self._witness, self.rows[:, :-2]
        seconds = np.maximum(self.rows[:, -2], _LEAST_S)
        lengths = np.linalg.norm(sums, axis=1) * np.linalg.norm(sums[one])
        shares = self.rows[:, -1] / seconds
        away = shares + shares[one] - shares * shares[one]
        threshold = witness.threshold + (witness.elsewhere - witness.threshold) * away
        by_cosine = log_odds(
            sums @ sums[one] / np.maximum(lengths, 1e-12),
            seconds,
            seconds[one],
            threshold=threshold,
            scale=witness.scale,
            settle_s=witness.settle_s,
        )
        known = self.known()
        return np.where(known & known[one], by_cosine, 0.0)

    def distances(self, those: Array) -> Array:
        """Squared distances between the mean embeddings of clusters `those`, in log-odds `[m, m]`."""
        means = self.rows[those, :-2] / np.maximum(self.rows[those, -2:-1], _LEAST_S)
        squares: Array = (means**2).sum(1)
        return (np.add.outer(squares, squares) - 2 * means @ means.T) * self._witness.scale

    def known(self) -> Array:
        """Return which clusters have an embedding `[n]`.

        A weight that was added and subtracted again is not exactly zero.
        """
        return self.rows[:, -2] > _LEAST_S / 2


def merge(
    voices: Centroids,
    dialogue: Matrix,
    weights: Sequence[float],
    *,
    trust: Trust,
    fewest: int = 1,
    highest: int | None = None,
    enrolled: Sequence[int] = (),
    least: float = 0.0,
) -> list[int]:
    """Cluster speech by speaker (agglomerative).

    The pair with the highest sum of both witnesses' log-odds is merged first, while that sum is
    positive; the merged cluster is compared by all of its speech. If more clusters than `highest`
    remain, the pairs of least cost are merged (Ward: distance times duration), so that short clusters
    are merged before speakers are.

    Args:
        voices: embedding sums of the clusters; changed in place.
        dialogue: the dialogues' log-odds `[1 or 2, n, n]` (see `Trust.bounded`); changed in place.
        weights: seconds of speech of each cluster, embedded or not.
        trust: bounds of the dialogues' sum over two clusters.
        fewest: least number of clusters.
        highest: most clusters, at least `fewest`; `None` if it is not known.
        enrolled: clusters that are clips of different enrolled speakers. A clip is merged with
            nothing and is not counted as a cluster. The cluster that it identifies is kept however
            short it is, and is never merged with one that another clip identifies.
        least: seconds of a speaker; a shorter cluster joins the most similar one.

    Returns:
        The cluster number of each input cluster, in order of their first.
    """
    count = len(weights)
    if count == 0:
        return []
    weight = np.maximum(np.asarray(weights, np.float64), 1e-3)
    clips = list(enrolled)
    banned = np.eye(count, dtype=bool)
    banned[clips] = banned[:, clips] = True
    known = np.zeros(count, bool)  # not to be joined for being short: enrolled, or merged already
    known[clips] = True
    group = np.arange(count)
    left = count - len(clips)

    def weighed(one: int) -> Array:
        return np.where(banned[one], NEVER, voices.odds(one) + trust.bounded(dialogue[:, one]))

    score = np.empty((count, count), np.float32)
    for one in range(count):
        score[one] = weighed(one)
    while True:
        best = int(np.argmax(score))
        if clips and (score.flat[best] <= 0.0 or left <= max(1, fewest)):
            groups = np.setdiff1d(group, clips)
            named = list(identify(voices, dialogue, clips, groups.tolist(), trust).values())
            known[named] = True
            banned[np.ix_(named, named)] = True
            score[np.ix_(named, named)] = NEVER
            clips = []
        if left <= max(1, fewest):
            break
        if score.flat[best] <= 0.0 and highest is not None and left > highest:
            if banned.all():
                break
            best = _cheapest(voices, dialogue, trust, weight, banned)
        elif score.flat[best] <= 0.0:
            stray = int(np.argmin(np.where(known, np.inf, weight)))
            if known[stray] or weight[stray] >= least:
                break
            best = stray * count + int(np.argmax(score[stray]))
        if score.flat[best] <= NEVER / 2:
            break
        a, b = sorted(divmod(best, count))
        voices.rows[a] += voices.rows[b]
        dialogue[:, a] += dialogue[:, b]
        dialogue[:, :, a] = dialogue[:, a]
        banned[a] |= banned[b]
        banned[:, a] = banned[a]
        banned[b] = banned[:, b] = True
        weight[a] += weight[b]
        known[a] |= known[b]
        known[b] = True
        score[a] = score[:, a] = weighed(a)
        score[b] = score[:, b] = NEVER
        group[group == b] = a
        left -= 1
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(g), len(numbers)) for g in group]


def identify(
    voices: Centroids, dialogue: Matrix, clips: Sequence[int], groups: Sequence[int], trust: Trust
) -> dict[int, int]:
    """Identify enrolled speakers: match clips and clusters one to one, the most certain pair first.

    Args:
        voices: embedding sums of clips and clusters.
        dialogue: the dialogues' log-odds `[1 or 2, n, n]`.
        clips, groups: rows of `voices` that are clips, and rows that are clusters.

    Returns:
        Cluster by clip; a clip that matches no cluster is left out.
    """
    matches: dict[int, int] = {}
    odds = np.array([voices.odds(c)[groups] + trust.bounded(dialogue[:, c, groups]) for c in clips])
    while odds.size and odds.max() > 0.0:
        clip, person = divmod(int(odds.argmax()), len(groups))
        matches[clips[clip]] = groups[person]
        odds[clip] = odds[:, person] = NEVER
    return matches


def _cheapest(
    voices: Centroids, dialogue: Matrix, trust: Trust, weight: Array, banned: Array
) -> int:
    """The pair of least merging cost, as an index into the flattened matrix."""
    those = np.flatnonzero(~banned.all(1))
    among, light = np.ix_(those, those), weight[those]
    shared = np.multiply.outer(light, light) / np.add.outer(light, light)
    costs = (voices.distances(those) - 2 * trust.bounded(dialogue[:, those][:, :, those])) * shared
    a, b = divmod(int(np.argmin(np.where(banned[among], np.inf, costs))), len(those))
    return int(those[a] * len(weight) + those[b])


def reassign(
    people: Sequence[int],
    points: Array,
    seconds: Sequence[float],
    dialogue: Sequence[Mapping[int, float]],
    witness: Witness,
    trust: Trust,
) -> list[int]:
    """Reassign each line to the speaker whose other lines it fits best.

    No speaker loses their last line.

    Args:
        people: speaker of each line, from 0.
        points: embeddings of lines `[n, d]`; a row of NaN where there is none: that line stays.
        seconds: duration of each line.
        dialogue: for each line, the dialogue's log-odds of it and other lines of its chunk.
    """
    assigned = np.array(people, np.intp)
    lines = embedding_sums(points, seconds)
    size = max(people, default=-1) + 1
    everybody = Centroids(
        np.zeros((size + 1, lines.shape[1])), witness
    )  # the last row is the line's
    np.add.at(everybody.rows, assigned, lines)
    for _ in range(_PASSES):
        before = assigned.copy()
        for i in np.flatnonzero(lines[:, -2]).tolist():
            current = assigned[i]
            everybody.rows[current] -= lines[i]
            everybody.rows[size] = lines[i]
            known = everybody.known()[:size]
            if known[current]:
                by_dialogue = np.zeros((1, size), np.float32)
                for other, line_odds in dialogue[i].items():
                    by_dialogue[0, assigned[other]] += line_odds
                odds = _BETWEEN * everybody.odds(size)[:size] + trust.bounded(by_dialogue)
                best = int(np.argmax(np.where(known, odds, NEVER)))
                assigned[i] = best if odds[best] > odds[current] else current
            everybody.rows[assigned[i]] += lines[i]
        if np.array_equal(assigned, before):
            break
    return [int(person) for person in assigned]
