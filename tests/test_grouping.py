"""Which lines of a chunk are one voice."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.voices.grouping import _Lines, group_lines
from speaker_reasoner.voices.witness import Scatter

SCATTER = Scatter(spread=0.2, noise=0.126)
Table = np.ndarray[Any, Any]


def partitions(count: int) -> Iterator[list[int]]:
    """Every way to share things out, groups counted by their first thing."""
    for groups in itertools.product(range(count), repeat=count):
        firsts = list(dict.fromkeys(groups))
        if firsts == list(range(len(firsts))):
            yield list(groups)


def likelihood(lines: _Lines, groups: Sequence[int]) -> float:
    _, products, sums = lines._of(np.array(groups))
    return float(lines._likelihood(products.diagonal(), sums).sum())


def drawn(
    seed: int, people: Sequence[int], apart: float = 1.0
) -> tuple[Table, list[float], list[float]]:
    """Points of lines by whose they are, seconds and levels."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(0.6, 3.0, len(people))
    own = rng.normal(size=(max(people) + 1, 64)) * np.sqrt(apart * 0.5 / 64)
    noises = rng.normal(size=(len(people), 64)) * np.sqrt(0.1 / 64 / seconds)[:, None]
    points = np.full(64, 0.08) + own[list(people)] + noises
    levels = rng.normal(-25, 3, max(people) + 1)[list(people)] + rng.normal(0, 1, len(people))
    return points, seconds.tolist(), levels.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_no_other_sharing_out_is_likelier(seed: int) -> None:
    people = [0, 1, 0, 2, 1, 0]
    points, seconds, levels = drawn(seed, people, apart=0.3)
    numbers = [1, 2, 1, 1, 2, 2]
    lines = _Lines(points, seconds, levels, numbers, SCATTER)
    best = max(partitions(len(people)), key=lambda groups: likelihood(lines, groups))
    assert group_lines(points, seconds, levels, numbers, SCATTER) == best


@pytest.mark.parametrize("seed", range(8))
def test_bounds_part_people_whom_voices_join(seed: int) -> None:
    people = [0, 1, 0, 1, 0]
    points, seconds, levels = drawn(seed, people, apart=0.01)
    lines = _Lines(points, seconds, levels, [1] * 5, SCATTER)
    assert group_lines(points, seconds, levels, [1] * 5, SCATTER) == [0] * 5
    groups = group_lines(points, seconds, levels, [1] * 5, SCATTER, fewest=2)
    assert max(groups) == 1 and likelihood(lines, groups) >= likelihood(lines, people)
    every = group_lines(points, seconds, levels, [1] * 5, SCATTER, fewest=9)
    assert every == list(range(5))


@pytest.mark.parametrize("seed", range(4))
def test_people_are_told_apart_whatever_the_dialogue_says_and_in_any_order(seed: int) -> None:
    people = [0, 1, 2, 0, 3, 1, 0, 2, 3, 1, 0]
    points, seconds, levels = drawn(seed, people)
    for numbers in ([1] * 11, list(range(11))):
        assert group_lines(points, seconds, levels, numbers, SCATTER) == people
    order = np.random.default_rng(seed).permutation(11)
    groups = group_lines(
        points[order],
        np.array(seconds)[order].tolist(),
        np.array(levels)[order].tolist(),
        [1] * 11,
        SCATTER,
    )
    same = np.equal.outer(groups, groups)
    assert np.array_equal(same, np.equal.outer(np.array(people)[order], np.array(people)[order]))


def test_of_like_voices_levels_decide() -> None:
    people = [0, 1] * 4
    points, _, _ = drawn(0, people, apart=0.08)
    seconds, numbers = [2.0] * 8, [1] * 8
    assert group_lines(points, seconds, [-20.0, -30.0] * 4, numbers, SCATTER) == people
    assert group_lines(points, seconds, [-20.0, -20.5] * 4, numbers, SCATTER) == [0] * 8


def test_of_like_evidence_the_dialogue_decides() -> None:
    """A voice halfway between two people's goes where its number is."""
    one, other = (np.eye(64)[0] + 0.55 * np.eye(64)[i] for i in (1, 2))
    points = np.stack([one] * 3 + [other] * 3 + [(one + other) / 2])
    seconds, levels = [2.0] * 6 + [0.7], [-20.0] * 7
    for number, person in ((1, 0), (2, 1)):
        numbers = [1, 1, 1, 2, 2, 2, number]
        assert group_lines(points, seconds, levels, numbers, SCATTER) == [0, 0, 0, 1, 1, 1, person]


def test_one_line_is_one_person() -> None:
    assert group_lines(np.eye(64)[:1], [1.0], [-20.0], [3], SCATTER) == [0]
