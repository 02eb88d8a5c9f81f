"""The default diarizer: local speakers of ten seconds, clustered over the chunk by their embeddings."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ...speech import Region
from ...voices.witness import Witness
from .clustering import activity, centroids, cluster, evidence, subsegments
from .diarizer import Diarization
from .embedding import CampplusWitness, filter_banks
from .segmentation import LocalSpeakers, Segmentation, regions

_PAD_S, _MERGE_S = 0.2, 0.3
"""Regions of speech are widened by the first at both ends; shorter pauses than the second are closed
(assumed)."""


class LocalDiarizer:
    """Diarizes by segmentation and embeddings.

    Args:
        segmentation: finds local speakers.
        embedding: compares them.
    """

    name = "segmentation-3.0 and CAM++"

    def __init__(self, segmentation: Segmentation, embedding: CampplusWitness) -> None:
        self._segmentation = segmentation
        self._embedding = embedding
        self.witness: Witness | None = embedding
        self._last: tuple[tuple[int, int], LocalSpeakers] | None = None

    def describe(self) -> dict[str, Any]:
        """See `Diarizer`."""
        from onnxruntime import __version__

        return {"diarizer": self.name, "onnxruntime": __version__}

    def speech(self, samples: Samples) -> Sequence[Region]:
        """See `Diarizer`."""
        if not len(samples):
            return []
        end_s = len(samples) / SAMPLE_RATE_HZ
        return regions(self._local(samples).speech(), end_s, pad_s=_PAD_S, merge_s=_MERGE_S)

    def diarize(self, samples: Samples, bounds: tuple[int, int] | None = None) -> Diarization:
        """See `Diarizer`."""
        local = self._local(samples)
        parts = subsegments(local)
        if not parts:
            return Diarization(np.zeros((local.frames, 0), np.float32))
        banks = filter_banks(samples)
        if not len(banks):
            return Diarization(np.zeros((local.frames, 0), np.float32))
        points = self._embedding.embed_banks([banks[p.rows.clip(0, len(banks) - 1)] for p in parts])
        who = cluster(points, evidence(local, parts), parts, bounds)
        return Diarization(activity(local, parts, who), centroids(points, parts, who))

    def _local(self, samples: Samples) -> LocalSpeakers:
        """The segmentation; the last one is kept, because `speech` and `diarize` need the same."""
        key = (len(samples), zlib.crc32(np.ascontiguousarray(samples).data))
        if self._last is None or self._last[0] != key:
            self._last = (key, self._segmentation(samples))
        return self._last[1]
