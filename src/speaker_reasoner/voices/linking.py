"""Who is who over a whole recording: two witnesses, one sum.

The dialogue says which lines of a chunk are one speaker's, and, with a speaker cache, whose of
before; the voices say how much two stretches of speech sound like one person. Both are log-odds
that two things are one person's, so they add. Things are merged, the surest pair first, while the
sum speaks for it (of all their speech together for the voices, and the more there is the surer; a
bounded sum for the dialogue), and further where there are more people than the user allows. When it
is known how everybody sounds, each line is weighed once more by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .witness import Witness, log_odds

Array = np.ndarray[Any, Any]
Matrix = np.ndarray[Any, np.dtype[np.float32]]
NEVER = -1e9
"""Log-odds of what cannot be one person."""
_LEAST_S = 1e-3
"""Seconds of the shortest stretch of speech."""
_PASSES = 3
"""Most passes over the lines of a recording; a second one moves few."""
_BETWEEN = 2.5
"""How much more a voice says about which of two known people a line is of than about whether two
stretches are of one person: what blurs both, noise or few seconds, cancels out. By measurement."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How much each witness counts, in log-odds; chosen by measurement (docs/results).

    Attributes:
        same: a dialogue gave two lines of a chunk the same number.
        other: it gave them different numbers.
        cached: it gave a line the number of a cached person, or not.
        least, most: bounds of what numbers within chunks may say in all about two groups: against one
            person, and for it. Dialogues take two people for one more often than one for two.
        foreign_least: `least` where the checkpoint does not know such words: it is lost, and numbers
            one voice in many ways.
        cached_least, cached_most: bounds of what may be said of cached people. A dialogue that does
            not recognise somebody says so in every chunk: it is one mistake, made over and over.
    """

    same: float = 1.0
    other: float = 2.0
    cached: float = 1.0
    least: float = -8.0
    most: float = 1.0
    foreign_least: float = -1.0
    cached_least: float = -2.5
    cached_most: float = 1.0

    def bounded(self, told: Matrix) -> Matrix:
        """What dialogues say in all `[...]`, of what they say by the numbers of a chunk and, if there
        is a cache, by those of cached people `[1 or 2, ...]`."""
        said = np.clip(told[0], self.least, self.most)
        for recalled in told[1:]:
            said = said + np.clip(recalled, self.cached_least, self.cached_most)
        return np.asarray(said, np.float32)


def heard(points: Array, seconds: Sequence[float], *, elsewhere: bool = False) -> Array:
    """What is known of voices, in rows that add up when they are one person's.

    Args:
        points: embeddings `[n, d]` of length 1, rows of NaN where there is none.
        seconds: of speech behind each.
        elsewhere: whether they are from another recording (enrolled voices).

    Returns:
        `[n, d + 2]`: embeddings times seconds, the seconds, and how many of them are from elsewhere;
        zero where there is no embedding.
    """
    weights = np.maximum(np.asarray(seconds, np.float64), _LEAST_S)[:, None]
    rows = np.concatenate([points * weights, weights, weights * elsewhere], axis=1)
    rows[np.isnan(points).any(1)] = 0.0
    return rows


class Voices:
    """How things sound: stretches of speech, or people.

    Attributes:
        rows: see `heard`.
    """

    def __init__(self, rows: Array, witness: Witness) -> None:
        self.rows = rows
        self._witness = witness

    def odds(self, one: int) -> Array:
        """Log-odds that it and each are of one voice `[n]`; 0 where either was not heard."""
        witness, sums = self._witness, self.rows[:, :-2]
        seconds = np.maximum(self.rows[:, -2], _LEAST_S)
        lengths = np.linalg.norm(sums, axis=1) * np.linalg.norm(sums[one])
        shares = self.rows[:, -1] / seconds
        away = shares + shares[one] - shares * shares[one]
        threshold = witness.threshold + (witness.elsewhere - witness.threshold) * away
        found = log_odds(
            sums @ sums[one] / np.maximum(lengths, 1e-12),
            seconds,
            seconds[one],
            threshold=threshold,
            scale=witness.scale,
            settle_s=witness.settle_s,
        )
        known = self.known()
        return np.where(known & known[one], found, 0.0)

    def distances(self, those: Array) -> Array:
        """Squared distances between the mean embeddings of some, in log-odds `[m, m]`."""
        means = self.rows[those, :-2] / np.maximum(self.rows[those, -2:-1], _LEAST_S)
        squares: Array = (means**2).sum(1)
        return (np.add.outer(squares, squares) - 2 * means @ means.T) * self._witness.scale

    def known(self) -> Array:
        """Which were heard at all `[n]`; sums that were added and taken away are not exact."""
        return self.rows[:, -2] > _LEAST_S / 2


def merge(
    voices: Voices,
    told: Matrix,
    weights: Sequence[float],
    *,
    trust: Trust,
    fewest: int = 1,
    highest: int | None = None,
    enrolled: Sequence[int] = (),
    least: float = 0.0,
) -> list[int]:
    """Group things that are one person's.

    The surest pair is merged first, while the sum of both witnesses speaks for it; what is merged is
    weighed as one from then on. If more groups than `highest` are left then, those are merged that
    cost least (Ward: distance times duration): a stray second goes before a person does.

    Args:
        voices: how they sound; used up.
        told: log-odds by the dialogues `[1 or 2, n, n]` (see `Trust.bounded`); used up.
        weights: seconds of speech, embedded or not.
        trust: bounds of the dialogues' sum over two groups.
        fewest: go no further than so many groups.
        highest: most groups, at least `fewest`; `None` if it is not known.
        enrolled: things that are clips of different people from elsewhere. A clip names a person, it
            does not say which lines are one's: it is merged with nothing and counts as no group, but
            whom it names is no stray, nor anybody else.
        least: weight of a person; what is left and lighter goes to whom it is likest.

    Returns:
        The group of each thing; groups count by their first thing.
    """
    count = len(weights)
    if count == 0:
        return []
    weight = np.maximum(np.asarray(weights, np.float64), 1e-3)
    clips = list(enrolled)
    banned = np.eye(count, dtype=bool)
    banned[clips] = banned[:, clips] = True
    known = np.zeros(count, bool)  # no strays: enrolled, or merged into another
    known[clips] = True
    group = np.arange(count)
    left = count - len(clips)

    def weighed(one: int) -> Array:
        return np.where(banned[one], NEVER, voices.odds(one) + trust.bounded(told[:, one]))

    score = np.empty((count, count), np.float32)
    for one in range(count):
        score[one] = weighed(one)
    while True:
        best = int(np.argmax(score))
        if clips and (score.flat[best] <= 0.0 or left <= max(1, fewest)):
            groups = np.setdiff1d(group, clips)
            named = list(recognise(voices, told, clips, groups.tolist(), trust).values())
            known[named] = True
            banned[np.ix_(named, named)] = True
            score[np.ix_(named, named)] = NEVER
            clips = []
        if left <= max(1, fewest):
            break
        if score.flat[best] <= 0.0 and highest is not None and left > highest:
            if banned.all():
                break
            best = _cheapest(voices, told, trust, weight, banned)
        elif score.flat[best] <= 0.0:
            stray = int(np.argmin(np.where(known, np.inf, weight)))
            if known[stray] or weight[stray] >= least:
                break
            best = stray * count + int(np.argmax(score[stray]))
        if score.flat[best] <= NEVER / 2:
            break
        a, b = sorted(divmod(best, count))
        voices.rows[a] += voices.rows[b]
        told[:, a] += told[:, b]
        told[:, :, a] = told[:, a]
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


def recognise(
    voices: Voices, told: Matrix, clips: Sequence[int], groups: Sequence[int], trust: Trust
) -> dict[int, int]:
    """Of each enrolled clip whose it is, the surest pair first; nobody has two names.

    Args:
        voices: of clips and of people.
        told: log-odds by the dialogues `[1 or 2, n, n]`.
        clips, groups: which of the voices are clips, and which are people.

    Returns:
        By clip; left out is a clip that is nobody's.
    """
    found: dict[int, int] = {}
    odds = np.array([voices.odds(c)[groups] + trust.bounded(told[:, c, groups]) for c in clips])
    while odds.size and odds.max() > 0.0:
        clip, person = divmod(int(odds.argmax()), len(groups))
        found[clips[clip]] = groups[person]
        odds[clip] = odds[:, person] = NEVER
    return found


def _cheapest(voices: Voices, told: Matrix, trust: Trust, weight: Array, banned: Array) -> int:
    """The pair, as a place in a matrix, that costs least to merge."""
    those = np.flatnonzero(~banned.all(1))
    among, light = np.ix_(those, those), weight[those]
    shared = np.multiply.outer(light, light) / np.add.outer(light, light)
    costs = (voices.distances(those) - 2 * trust.bounded(told[:, those][:, :, those])) * shared
    a, b = divmod(int(np.argmin(np.where(banned[among], np.inf, costs))), len(those))
    return int(those[a] * len(weight) + those[b])


def reconsider(
    people: Sequence[int],
    points: Array,
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
        told: of each line, what the dialogue says about it and others of its chunk, in log-odds.
    """
    found = np.array(people, np.intp)
    lines = heard(points, seconds)
    size = max(people, default=-1) + 1
    everybody = Voices(np.zeros((size + 1, lines.shape[1])), witness)  # the last is the line
    np.add.at(everybody.rows, found, lines)
    for _ in range(_PASSES):
        before = found.copy()
        for i in np.flatnonzero(lines[:, -2]).tolist():
            own = found[i]
            everybody.rows[own] -= lines[i]
            everybody.rows[size] = lines[i]
            known = everybody.known()[:size]
            if known[own]:
                dialogue = np.zeros((1, size), np.float32)
                for other, said in told[i].items():
                    dialogue[0, found[other]] += said
                odds = _BETWEEN * everybody.odds(size)[:size] + trust.bounded(dialogue)
                best = int(np.argmax(np.where(known, odds, NEVER)))
                found[i] = best if odds[best] > odds[own] else own
            everybody.rows[found[i]] += lines[i]
        if np.array_equal(found, before):
            break
    return [int(person) for person in found]
