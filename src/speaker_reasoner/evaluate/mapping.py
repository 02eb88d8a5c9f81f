"""The one-to-one mapping of hypothesis speakers to reference speakers with the lowest cost."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from .extra import load

_SMALL = 10**6  # words times words up to which all distances are computed

_Side = TypeVar("_Side")


def distance(reference: Any, hypothesis: Any, substitution: int = 1) -> int:
    """The least cost of edits between two texts, lists or arrays; a substitution costs 1 or 2."""
    kinds = load("rapidfuzz.distance")
    least = kinds.Levenshtein.distance(
        reference, hypothesis, score_hint=edits_hint(reference, hypothesis)
    )
    if substitution == 2:
        least = kinds.Indel.distance(reference, hypothesis, score_cutoff=2 * least)
    return int(least)


def edits_hint(reference: Any, hypothesis: Any) -> int:
    """Where to begin the search for the number of edits: rapidfuzz takes a band of the table, doubled as needed."""
    sizes = len(reference), len(hypothesis)
    return abs(sizes[0] - sizes[1]) + max(sizes) // 64 + 1


def cheapest_mapping(
    reference: Sequence[_Side],
    hypothesis: Sequence[_Side],
    nobody: _Side,
    said: Callable[[_Side], Sequence[Any]],
    distance: Callable[[_Side, _Side], int],
) -> list[tuple[int, int]]:
    """Pairs of numbers of a reference and a hypothesis speaker; the shorter side is filled up with `nobody`.

    Distances are computed where they are needed: the others stand as lower bounds, and a mapping that
    is the cheapest with those, and holds none of them, is the cheapest. Of equally cheap mappings of
    short texts it is the one that MeetEval takes.

    Args:
        reference: the words of each speaker, in any form.
        hypothesis: the same of the other side.
        nobody: the form of no words.
        said: the words in a form.
        distance: between two forms, at least the edits between their words.
    """
    count = max(len(reference), len(hypothesis))
    rows = [*reference, *[nobody] * (count - len(reference))]
    columns = [*hypothesis, *[nobody] * (count - len(hypothesis))]
    words = [[said(one) for one in side] for side in (rows, columns)]
    small = math.prod(sum(map(len, side)) for side in words) <= _SMALL
    if small:
        costs = np.array([[distance(row, column) for column in columns] for row in rows])
    else:
        codes: dict[Any, int] = {}
        bags = [[_Bag(one, codes) for one in side] for side in words]
        costs = np.array([[_at_least(row, column) for column in bags[1]] for row in bags[0]])
    costs = costs.astype(float).reshape(count, count)
    known = np.full((count, count), small)
    assign = load("scipy.optimize").linear_sum_assignment
    while True:
        best = [(int(i), int(j)) for i, j in zip(*assign(costs), strict=True)]
        unknown = [(i, j) for i, j in best if not known[i, j]]
        if not unknown:
            return best
        for i, j in unknown:
            costs[i, j], known[i, j] = distance(rows[i], columns[j]), True


class _Bag:
    """Counts of words and of pairs of neighbouring words; `codes` numbers the words of all bags."""

    def __init__(self, words: Sequence[Any], codes: dict[Any, int]) -> None:
        numbers = np.array([codes.setdefault(w, len(codes)) for w in words], dtype=np.int64)
        self.size = len(words)
        self.words = np.unique(numbers, return_counts=True)
        self.pairs = np.unique((numbers[:-1] << 32) + numbers[1:], return_counts=True)


def _at_least(one: _Bag, other: _Bag) -> int:
    """A lower bound of the edits between two texts: an edit changes one word, and two pairs at most."""
    size = max(one.size, other.size)
    words, pairs = _common(one.words, other.words), _common(one.pairs, other.pairs)
    return max(size - words, (max(size - 1, 0) - pairs + 1) // 2)


def _common(one: tuple[Any, Any], other: tuple[Any, Any]) -> int:
    """Return how many items two bags of distinct items, in order, and their counts have in common."""
    _, i, j = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
    return int(np.minimum(one[1][i], other[1][j]).sum())
