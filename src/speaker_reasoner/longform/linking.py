"""Who is who over a whole recording: two witnesses, one sum.

The dialogue says which lines of a chunk are one speaker's, and, with a speaker cache, whose of
before; the voices say how much two stretches of speech sound like one person. Both are log-odds
that two things are one person's, so they add. Things are merged, the surest pair first, while the
sum speaks for it (average linkage for the voices, a bounded sum for the dialogue), and further
where there are more people than the user allows. When it is known how everybody sounds, each line
is weighed once more by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..witness import Witness

Matrix = np.ndarray[Any, np.dtype[np.float32]]
NEVER = -1e9
"""Log-odds of what cannot be one person."""
_PASSES = 3
"""Most passes over the lines of a recording; a second one moves few."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How much each witness counts, in log-odds; chosen by measurement (docs/results).

    Attributes:
        same: a dialogue gave two lines of a chunk the same number.
        other: it gave them different numbers.
        cached: it gave a line the number of a cached person, or not.
        least, most: bounds of what dialogues may say in all about two groups: against one person, and
            for it. They take two people for one more often than one for two.
    """

    same: float = 0.5
    other: float = 2.0
    cached: float = 1.0
    least: float = -2.5
    most: float = 1.0

    def bounded(self, told: Matrix) -> Matrix:
        return np.asarray(np.clip(told, self.least, self.most), np.float32)


def voice_odds(
    points: np.ndarray[Any, Any],
    seconds: Sequence[float],
    witness: Witness,
    elsewhere: Sequence[int] = (),
) -> Matrix:
    """Log-odds that two stretches of speech are of one voice, `[n, n]`.

    Args:
        points: embeddings `[n, d]` of length 1; rows of NaN where there is none.
        seconds: of speech behind each.
        witness: whose points they are.
        elsewhere: things that are from other recordings (enrolled voices).
    """
    known = ~np.isnan(points).any(1)
    clean = np.where(known[:, None], points, 0.0).astype(np.float32)
    settled = _settled(np.asarray(seconds, np.float32), witness)
    threshold = np.full((len(clean), len(clean)), witness.threshold, np.float32)
    threshold[list(elsewhere)] = threshold[:, list(elsewhere)] = witness.elsewhere
    threshold *= np.minimum.outer(settled, settled)
    odds: Matrix = clean @ clean.T
    odds -= threshold
    odds *= witness.scale
    odds[~known] = 0.0
    odds[:, ~known] = 0.0
    return odds


def merge(
    voices: Matrix,
    told: Matrix,
    weights: Sequence[float],
    *,
    trust: Trust,
    fewest: int = 1,
    highest: int | None = None,
    apart: Sequence[int] = (),
    least: float = 0.0,
) -> list[int]:
    """Group things that are one person's.

    The surest pair is merged first, while the sum of both witnesses speaks for it. If more groups
    than `highest` are left then, those are merged that cost least (Ward: distance times duration):
    a stray second goes before a person does.

    Args:
        voices: log-odds by voice `[n, n]`; used up.
        told: log-odds by the dialogues `[n, n]`; used up.
        weights: of each thing in the average linkage, seconds of speech.
        trust: bounds of the dialogues' sum over two groups.
        fewest: go no further than so many groups.
        highest: most groups, at least `fewest`; `None` if it is not known.
        apart: things that are known to be different people (enrolled voices).
        least: weight of a person; what is left and lighter goes to whom it is likest.

    Returns:
        The group of each thing; groups count by their first thing.
    """
    count = len(weights)
    if count == 0:
        return []
    own = voices.diagonal().copy()  # mean odds within a group
    mean, total = voices, told  # among groups; in place, for these are the largest of all
    weight = np.maximum(np.asarray(weights, mean.dtype), 1e-3)
    banned = np.eye(count, dtype=bool)
    banned[np.ix_(list(apart), list(apart))] = True
    score = trust.bounded(total)
    score += mean
    score[banned] = NEVER
    known = np.zeros(count, bool)  # no strays: enrolled, or merged into another
    known[list(apart)] = True
    group = np.arange(count)
    left = count
    while left > max(1, fewest):
        best = int(np.argmax(score))
        if score.flat[best] <= 0.0 and highest is not None and left > highest:
            shared = np.multiply.outer(weight, weight) / np.add.outer(weight, weight)
            costs = (np.add.outer(own, own) - 2 * score) * shared
            best = int(np.argmin(np.where(score > NEVER / 2, costs, np.inf)))
        elif score.flat[best] <= 0.0:
            stray = int(np.argmin(np.where(known, np.inf, weight)))
            if known[stray] or weight[stray] >= least:
                break
            best = stray * count + int(np.argmax(score[stray]))
        if score.flat[best] <= NEVER / 2:
            break
        a, b = sorted(divmod(best, count))
        both = weight[a] + weight[b]
        crossed = 2 * weight[a] * weight[b] * mean[a, b]
        own[a] = (weight[a] ** 2 * own[a] + weight[b] ** 2 * own[b] + crossed) / both**2
        mean[a] = mean[:, a] = (weight[a] * mean[a] + weight[b] * mean[b]) / both
        total[a] = total[:, a] = total[a] + total[b]
        banned[a] |= banned[b]
        banned[:, a] = banned[a]
        banned[b] = banned[:, b] = True
        weight[a] = both
        known[a] |= known[b]
        known[b] = True
        score[a] = score[:, a] = np.where(banned[a], NEVER, mean[a] + trust.bounded(total[a]))
        score[b] = score[:, b] = NEVER
        group[group == b] = a
        left -= 1
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(g), len(numbers)) for g in group]


def reconsider(
    people: Sequence[int],
    points: np.ndarray[Any, Any],
    seconds: Sequence[float],
    told: Sequence[Mapping[int, float]],
    witness: Witness,
    trust: Trust,
) -> list[int]:
    """Give single lines to whom they are likest, against all that a person says elsewhere.

    Nobody loses their last line.

    Args:
        people: whose each line is, from 0.
        points: embeddings of lines `[n, d]`; rows of NaN where there is none, which stay.
        seconds: of each line.
        told: of each line, what the dialogue says about it and others, in log-odds.
    """
    found = np.array(people)
    weights = np.asarray(seconds, np.float64)
    known = np.flatnonzero(~np.isnan(points).any(1)).tolist()
    sums = np.zeros((max(people, default=-1) + 1, points.shape[1]))
    spoken = np.zeros(len(sums))
    settled = _settled(weights, witness)
    for i in known:
        sums[found[i]] += weights[i] * points[i]
        spoken[found[i]] += weights[i]
    for _ in range(_PASSES):
        before = found.copy()
        for i in known:
            own = found[i]
            sums[own] -= weights[i] * points[i]
            spoken[own] -= weights[i]
            heard = spoken > 1e-6
            if heard[own]:
                lengths = np.maximum(np.linalg.norm(sums, axis=1), 1e-9)
                ask = witness.threshold * np.minimum(settled[i], _settled(spoken, witness))
                dialogue = np.zeros(len(sums), np.float32)
                for other, said in told[i].items():
                    dialogue[found[other]] += said
                odds = (sums @ points[i] / lengths - ask) * witness.scale + trust.bounded(dialogue)
                best = int(np.argmax(np.where(heard, odds, NEVER)))
                found[i] = best if odds[best] > odds[own] else own
            sums[found[i]] += weights[i] * points[i]
            spoken[found[i]] += weights[i]
        if np.array_equal(found, before):
            break
    return [int(person) for person in found]


def _settled(seconds: np.ndarray[Any, Any], witness: Witness) -> np.ndarray[Any, Any]:
    """How far a cosine can be trusted to be as high as one voice's, by the seconds behind it: 0 to 1."""
    share: np.ndarray[Any, Any] = 1 - np.exp(-seconds / witness.settle_s)
    return share
