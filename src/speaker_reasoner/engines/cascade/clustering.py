"""Clusters local speakers to speakers of the chunk: subsegments, an embedding of each, then clusters.

Constants with a range were compared on the clips of docs/experiments.md, 2026-11-27; the others are assumed.
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
"""From the rows of each subsegment in the chunk's filter banks, 10 ms apart, to embeddings
`[subsegments, d]` of length 1."""

_SUBSEGMENT_S = 2.0
"""Longest subsegment; 2.5 to 3 s have a higher DER."""
CLIP_S = 1.5
"""Longest part of a subsegment that its embedding is computed from."""
_SAME = 0.27
"""Cosine of two embeddings at which one speaker and two are equally likely; 0.25 to 0.30 do as well."""
_SEGMENTATION = 0.3
"""Added to the cosine where the windows hold two subsegments for one local speaker, subtracted where for
two; 0.2 to 0.3 do as well."""
_RELIABLE_S = 0.8
"""Seconds without overlap from which a subsegment begins a cluster."""
_FAINT_S = 1.7
"""Seconds of speech, at most `CLIP_S` of each subsegment, from which a cluster is a speaker. Clusters
under 1.2 s, kept, made three speakers of two; the value is assumed."""
_LEAST_ALONE_S = 0.3
"""Seconds without overlap from which the embedding leaves out the overlap."""


@dataclass(frozen=True, eq=False, slots=True)
class Subsegment:
    """A short stretch of one local speaker of one window.

    Attributes:
        window: the one whose middle the subsegment lies in.
        local: number of the local speaker in it.
        first, last: frames of the chunk, `[first, last)`.
        alone: frames in which nobody else speaks.
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
        """Rows of the filter banks for the embedding: the middle of the frames without overlap, or of all
        frames where those are few."""
        frames = np.arange(self.first, self.last) if self.alone_s < _LEAST_ALONE_S else self.alone
        parts = (frames[:, None] + np.linspace(-0.5, 0.5, 3)) * FRAME_S * 100 + 2
        rows = np.unique(np.round(parts).astype(np.intp))
        spare = max(0, len(rows) - round(CLIP_S * 100)) // 2
        return rows[spare : len(rows) - spare]


def subsegments(local: LocalSpeakers) -> list[Subsegment]:
    """Cut the speech of every local speaker into subsegments of equal length; each part of the chunk is
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
    """Return whether the windows hold two subsegments for one local speaker, `[n, n]`: 1 for one, -1 for two, 0
    where no window holds both; the mean over the windows that do."""
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
    """Share of each local speaker in a subsegment, `[3]`, by a window that starts at frame `at`."""
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
    """The speaker of each subsegment, `[subsegments]`, from 0.

    Long subsegments are clustered (agglomerative, by the weighted mean of cosines). Short ones join the
    nearest cluster that does not speak at the same time, or the nearest where all do.

    Args:
        points: embeddings `[subsegments, d]` of length 1.
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
    """Merge the best pair while its score is positive and more than `low` clusters are left, or while
    there are more than `high`."""
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
    """Dissolve clusters of less speech than `_FAINT_S`; their subsegments have no speaker (-1) then."""
    total = np.array([weight[who == k].sum() for k in range(int(who.max()) + 1)])
    keep = total >= min(_FAINT_S, float(total.max()))
    return np.where((who >= 0) & keep[who], (np.cumsum(keep) - 1)[who], -1)


def _joined(who: Indices, score: Floats, weight: Any, subsegments: Sequence[Subsegment]) -> Indices:
    """Give the subsegments without a cluster, the longest first, to the nearest one that is free."""
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
    """The embedding of each speaker, `[speakers, d]` of length 1: the mean of their subsegments, weighted by
    length."""
    weight = np.array([min(subsegment.alone_s, CLIP_S) + 0.05 for subsegment in subsegments])
    sums = np.zeros((int(who.max(initial=-1)) + 1, points.shape[1]), np.float32)
    np.add.at(sums, who, points * weight[:, None].astype(np.float32))
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9))
