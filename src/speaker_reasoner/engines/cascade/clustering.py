"""Pieces of local speakers to speakers of the chunk: an embedding for each piece, then clusters.

Settings by measurement on real speech: docs/experiments.md, 2026-11-27.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .segmentation import FRAME_S, Floats, LocalSpeakers, on, runs

Indices = npt.NDArray[np.intp]
Embed = Callable[[Sequence[npt.NDArray[np.intp]]], Floats]
"""Rows of the chunk's filter banks, 10 ms apart, of each piece to embeddings `[pieces, d]` of length 1."""

_SUBSEGMENT_S = 2.0
"""Longest piece that gets an embedding of its own."""
CLIP_S = 1.5
"""Longest part of it that the embedding is computed from."""
_SAME = 0.27
"""Cosine of two embeddings at which one speaker and two are equally likely."""
_SEGMENTATION = 0.3
"""Added to the cosine where windows hear two pieces as one local speaker, taken off where as two."""
_RELIABLE_S = 0.8
"""Speech of one voice alone that a piece needs to found a cluster."""
_FAINT_S = 1.7
"""Speech, at most `CLIP_S` of a piece, that a cluster needs to be a speaker."""
_LEAST_ALONE_S = 0.3


@dataclass(frozen=True, eq=False, slots=True)
class Subsegment:
    """A short stretch in which one window hears one local speaker.

    Attributes:
        window: the one whose middle the piece lies in.
        local: number of the local speaker in it.
        first, last: frames of the chunk, `[first, last)`.
        alone: frames in which nobody else is heard.
    """

    window: int
    local: int
    first: int
    last: int
    alone: Indices

    @property
    def alone_s(self) -> float:
        return len(self.alone) * FRAME_S

    @property
    def rows(self) -> Indices:
        """Rows of the filter banks, from the middle of what is said alone, or of all where that is little."""
        frames = np.arange(self.first, self.last) if self.alone_s < _LEAST_ALONE_S else self.alone
        parts = (frames[:, None] + np.linspace(-0.5, 0.5, 3)) * FRAME_S * 100 + 2
        rows = np.unique(np.round(parts).astype(np.intp))
        spare = max(0, len(rows) - round(CLIP_S * 100)) // 2
        return rows[spare : len(rows) - spare]


def subsegments(local: LocalSpeakers) -> list[Subsegment]:
    """Every stretch of every local speaker, long ones cut into equal parts; each part of the chunk is
    taken from the window whose middle is nearest."""
    cut: list[Subsegment] = []
    most = round(_SUBSEGMENT_S / FRAME_S)
    for window, (low, high) in enumerate(_cores(local)):
        at = int(local.offsets[window])
        speaking = np.stack([on(local.active[window, :, k]) for k in range(3)], axis=1)
        speaking = speaking[low - at : high - at]
        single = speaking.sum(axis=1) == 1
        for k in range(3):
            for first, last in runs(speaking[:, k]):
                edges = (
                    np.linspace(first, last, -(-(last - first) // most) + 1).astype(int).tolist()
                )
                for start, end in pairwise(edges):
                    alone = low + start + np.flatnonzero(single[start:end])
                    cut.append(Subsegment(window, k, low + start, low + end, alone))
    return cut


def _cores(local: LocalSpeakers) -> list[tuple[int, int]]:
    """The frames `[first, last)` of the chunk that are nearest to the middle of each window."""
    length = local.active.shape[1]
    middles = local.offsets + length / 2
    cuts = np.round((middles[1:] + middles[:-1]) / 2).astype(int).tolist()
    return list(pairwise([0, *cuts, min(local.frames, int(local.offsets[-1]) + length)]))


def evidence(local: LocalSpeakers, subsegments: Sequence[Subsegment]) -> Floats:
    """What the windows say about each pair of pieces, `[n, n]`: 1 the same local speaker, -1 another, 0
    nothing; the mean over the windows that hear both."""
    n, length = len(subsegments), local.active.shape[1]
    total, weight = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    for at, active in zip(local.offsets.tolist(), local.active, strict=True):
        inside = [i for i, p in enumerate(subsegments) if p.first >= at and p.last <= at + length]
        if not inside:
            continue
        shares = np.stack([_shares(active, subsegments[i], at) for i in inside])
        grid = np.ix_(inside, inside)
        sure = shares.sum(axis=1)
        both = np.minimum(1, sure[:, None] * sure[None])
        total[grid] += both * (2 * (shares @ shares.T) - 1)
        weight[grid] += both
    return np.asarray(total / np.maximum(weight, 1.0), np.float32)


def _shares(active: Floats, subsegment: Subsegment, at: int) -> Floats:
    """How much of a piece each local speaker of a window says that starts at frame `at`, `[3]`."""
    frames = (
        subsegment.alone if len(subsegment.alone) else np.arange(subsegment.first, subsegment.last)
    )
    mean = active[frames - at].mean(axis=0)
    return np.asarray(mean / max(1.0, float(mean.sum())), np.float32)


def cluster(
    points: Floats,
    votes: Floats,
    subsegments: Sequence[Subsegment],
    bounds: tuple[int, int] | None = None,
) -> Indices:
    """The speaker of each piece, `[pieces]`, from 0.

    Long pieces found the clusters (agglomerative, by the weighted mean of cosines), short ones join the
    nearest; one that is heard at the same time as a speaker is another's, where there is another.

    Args:
        points: embeddings `[pieces, d]` of length 1.
        votes: see `evidence`.
        bounds: fewest and most speakers, if they are known.
    """
    if not subsegments:
        return np.zeros(0, np.intp)
    low, high = bounds or (1, len(subsegments))
    low = max(1, low)
    score = points @ points.T - _SAME + _SEGMENTATION * votes
    alone = np.array([subsegment.alone_s for subsegment in subsegments])
    founders = alone >= _RELIABLE_S
    if founders.sum() < low:
        founders = np.zeros(len(subsegments), bool)
        founders[np.argsort(-alone, kind="stable")[:low]] = True
    weight = np.minimum(alone, CLIP_S) + 0.05
    who = np.full(len(subsegments), -1, np.intp)
    who[founders] = _agglomerated(score[np.ix_(founders, founders)], weight[founders], low, high)
    if bounds is None:
        who = _without_faint(who, weight)
    return _joined(who, score, weight, subsegments)


def _agglomerated(score: Floats, weight: Any, low: int, high: int) -> Indices:
    """Merge the best pair while it is above 0 and more than `low` are left, or more than `high`."""
    label = np.arange(len(score))
    between = score.astype(np.float64) * weight[:, None] * weight[None]
    mass = weight.astype(np.float64).copy()
    alive = list(range(len(score)))
    while len(alive) > low:
        part = between[np.ix_(alive, alive)] / (mass[alive][:, None] * mass[alive][None])
        np.fill_diagonal(part, -np.inf)
        i, j = divmod(int(np.argmax(part)), len(alive))
        if part[i, j] <= 0 and len(alive) <= high:
            break
        a, b = alive[i], alive[j]
        between[a] += between[b]
        between[:, a] += between[:, b]
        mass[a] += mass[b]
        label[label == b] = a
        alive.remove(b)
    return np.unique(label, return_inverse=True)[1]


def _without_faint(who: Indices, weight: Any) -> Indices:
    """Give up clusters of so little speech that they may be an accident; their pieces are free again."""
    total = np.array([weight[who == k].sum() for k in range(int(who.max()) + 1)])
    keep = total >= min(_FAINT_S, float(total.max()))
    return np.where((who >= 0) & keep[who], (np.cumsum(keep) - 1)[who], -1)


def _joined(who: Indices, score: Floats, weight: Any, subsegments: Sequence[Subsegment]) -> Indices:
    """Give the pieces that founded nothing, the longest first, to the nearest cluster that is free."""
    count = int(who.max()) + 1
    members = [who == k for k in range(count)]
    mean = np.stack([(score[:, m] * weight[m]).sum(1) / weight[m].sum() for m in members], axis=1)
    span = np.array([(subsegment.first, subsegment.last) for subsegment in subsegments])
    for i in sorted(np.flatnonzero(who < 0).tolist(), key=lambda i: -subsegments[i].alone_s):
        common = np.minimum(span[:, 1], span[i, 1]) - np.maximum(span[:, 0], span[i, 0])
        beside = np.flatnonzero((2 * common > span[i, 1] - span[i, 0]) & (who >= 0))
        taken = {int(who[j]) for j in beside if j != i}
        free = [k for k in range(count) if k not in taken] or list(range(count))
        who[i] = max(free, key=lambda k: mean[i, k])
    return np.unique(who, return_inverse=True)[1]


def activity(local: LocalSpeakers, subsegments: Sequence[Subsegment], who: Indices) -> Floats:
    """Probability that each speaker speaks, `[frames, speakers]`."""
    out = np.zeros((local.frames, int(who.max(initial=-1)) + 1), np.float32)
    for subsegment, speaker in zip(subsegments, who.tolist(), strict=True):
        at = int(local.offsets[subsegment.window])
        last = min(subsegment.last, local.frames)
        probability = local.active[
            subsegment.window, subsegment.first - at : last - at, subsegment.local
        ]
        part = out[subsegment.first : last, speaker]
        np.maximum(part, probability, out=part)
    return out


def centroids(points: Floats, subsegments: Sequence[Subsegment], who: Indices) -> Floats:
    """The embedding of each speaker, `[speakers, d]` of length 1: the mean of their pieces, by their length."""
    weight = np.array([min(subsegment.alone_s, CLIP_S) + 0.05 for subsegment in subsegments])
    sums = np.zeros((int(who.max(initial=-1)) + 1, points.shape[1]), np.float32)
    np.add.at(sums, who, points * weight[:, None].astype(np.float32))
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9))
