"""Speaker embeddings by CAM++ of 3D-Speaker (Apache-2.0), in ONNX Runtime; a witness."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...audio import SAMPLE_RATE_HZ, Samples
from ...voices.witness import Points, Scatter, on_sphere
from .segmentation import Floats, onnx_session

_FRAME_SAMPLES, _HOP_SAMPLES, _BANDS, _FFT = 400, 160, 80, 512
_LOWEST_HZ = 20.0
_BATCH = 16
_LEAST_ROWS = 30
_CLIP_ROWS = 200
"""Longest input, two seconds: the embedding of a longer input is not the mean of those of its parts."""


class CampplusWitness:
    """CAM++, trained on 200,000 speakers of Chinese and English.

    Threshold, scale and settling are assumed: they lie between the cosines of one speaker and of two that were
    measured on three recordings (docs/experiments.md, 2026-11-27), and are not fitted.

    Args:
        path: of the ONNX file: `banks` `[clips, frames, 80]`, each clip's mean subtracted, to `[clips, 192]`.
        threads: of one call.
    """

    name = "campplus"
    threshold, elsewhere, scale, settle_s = 0.45, 0.40, 18.0, 1.0
    scatter: Scatter | None = None

    def __init__(self, path: Path, threads: int) -> None:
        self._session = onnx_session(path, threads)
        self._input = self._session.get_inputs()[0].name

    def embed(self, clips: Sequence[Samples]) -> Points:
        """See `Witness`. A long clip is the mean of its parts of two seconds."""
        parts: list[Floats] = []
        owners: list[int] = []
        for i, clip in enumerate(clips):
            banks = filter_banks(_long_enough(clip))
            for part in np.array_split(banks, -(-len(banks) // _CLIP_ROWS)):
                parts.append(part)
                owners.append(i)
        sums = np.zeros((len(clips), 192), np.float32)
        if parts:
            np.add.at(sums, owners, self.embed_banks(parts))
        return on_sphere(list(sums))

    def embed_banks(self, clips: Sequence[Floats]) -> Floats:
        """Embeddings `[clips, 192]` of length 1 of filter banks `[frames, 80]`, of two seconds at most each.

        Clips of similar length share a batch; shorter ones are repeated up to the longest.
        """
        embeddings = np.zeros((len(clips), 192), np.float32)
        order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
        for at in range(0, len(order), _BATCH):
            chosen = order[at : at + _BATCH]
            length = max(_LEAST_ROWS, len(clips[chosen[-1]]))
            batch = np.stack([np.resize(clips[i], (length, _BANDS)) for i in chosen])
            batch -= batch.mean(axis=1, keepdims=True)
            embeddings[chosen] = self._session.run(None, {self._input: batch.astype(np.float32)})[0]
        return np.asarray(on_sphere(list(embeddings)))


def _long_enough(clip: Samples) -> Samples:
    least = _FRAME_SAMPLES + _LEAST_ROWS * _HOP_SAMPLES
    return (
        np.resize(clip, least)
        if 0 < len(clip) < least
        else np.pad(clip, (0, max(0, least - len(clip))))
    )


@cache
def _mel_bank() -> npt.NDArray[np.float32]:
    """Triangles `[257, 80]` of equal width in mel from 20 Hz to 8 kHz, as Kaldi draws them."""
    from transformers.audio_utils import mel_filter_bank

    bank: Any = mel_filter_bank(
        num_frequency_bins=_FFT // 2 + 1,
        num_mel_filters=_BANDS,
        min_frequency=_LOWEST_HZ,
        max_frequency=SAMPLE_RATE_HZ / 2,
        sampling_rate=SAMPLE_RATE_HZ,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return np.asarray(bank, np.float32)


def filter_banks(samples: Samples) -> Floats:
    """Log mel filter banks `[frames, 80]` of samples `[n]` at 16 kHz, 10 ms apart, as Kaldi computes them."""
    count = max(0, 1 + (len(samples) - _FRAME_SAMPLES) // _HOP_SAMPLES)
    out = np.empty((count, _BANDS), np.float32)
    if count == 0:
        return out
    window = (np.hanning(_FRAME_SAMPLES) ** 0.85).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME_SAMPLES)[::_HOP_SAMPLES]
    for at in range(0, count, 4096):
        rows = frames[at : at + 4096].astype(np.float32)
        rows = rows - rows.mean(axis=1, keepdims=True)
        rows = rows - 0.97 * np.concatenate([rows[:, :1], rows[:, :-1]], axis=1)
        power = np.abs(np.fft.rfft(rows * window, _FFT)) ** 2
        out[at : at + 4096] = np.log(np.maximum(power @ _mel_bank(), 1.2e-7))
    return out
