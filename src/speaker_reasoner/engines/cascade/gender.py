"""The gender of speakers by the network of inaSpeechSegmenter (MIT), in ONNX Runtime.

Patches of 0.7 s of a speaker's speech without overlap are female or male with a probability; the mean of their
log-odds decides. Doukhan et al., "An open-source speaker gender detection framework", ICASSP 2018.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...audio import SAMPLE_RATE_HZ, Samples
from ...errors import CheckpointError
from .segmentation import Floats, middle_s, onnx_session, runs

GendersOf = Callable[[Samples, Floats, Sequence[int]], tuple[str, ...]]

_FRAME_SAMPLES, _HOP_SAMPLES, _FFT = 400, 160, 512
_PATCH_FRAMES, _BANDS = 68, 24
_MOST_PATCHES = 24
"""Patches of a speaker, spread over the speech; they overlap by half at most (assumed)."""
_SHORTEST_S = 0.2
"""Shorter stretches are left out (assumed)."""
_UNSURE = 1.0
"""Mean log-odds nearer to 0 leave the gender unknown (assumed)."""
_SCALE = 2.0**15
"""The network was trained on samples of 16-bit integers; only the floor of the logarithm depends on it."""


class Genders:
    """The network.

    Args:
        path: of the ONNX file: `patches` `[n, 68, 24]` of mean 0 and variance 1, to the probabilities of female and
            male, `[n, 2]`.
        threads: of one call.

    Raises:
        CheckpointError: the file is damaged, or of another network.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._session = onnx_session(path, threads)
        self._input = self._session.get_inputs()[0].name
        shape = self._session.get_inputs()[0].shape
        if list(shape[1:]) != [_PATCH_FRAMES, _BANDS]:
            raise CheckpointError(
                f"{path}: takes {shape}, expected [patches, {_PATCH_FRAMES}, {_BANDS}] of inaSpeechSegmenter's "
                "network; take the file of the package speaker-reasoner-cascade"
            )

    def __call__(
        self, samples: Samples, active: Floats, speakers: Sequence[int]
    ) -> tuple[str, ...]:
        """The gender of each speaker; `unknown` where there is too little speech without overlap, or in doubt.

        Args:
            samples: float32 `[n]` at 16 kHz.
            active: probability that each speaker speaks, `[frames, all speakers]`.
            speakers: columns of `active`.
        """
        speaking = active >= 0.5
        alone = speaking & (speaking.sum(axis=1, keepdims=True) == 1)
        return tuple(self._gender(patches(samples, alone[:, column])) for column in speakers)

    def _gender(self, speech: Floats) -> str:
        if not len(speech):
            return "unknown"
        female, male = self._session.run(None, {self._input: speech})[0].astype(np.float64).T
        odds = float(np.mean(np.log(female + 1e-3) - np.log(male + 1e-3)))
        if abs(odds) < _UNSURE:
            return "unknown"
        return "female" if odds > 0 else "male"


def patches(samples: Samples, alone: npt.NDArray[np.bool_]) -> Floats:
    """Patches `[n, 68, 24]` of a speaker's log mel bands, each of mean 0 and variance 1; none of speech below 0.7 s.

    Args:
        samples: float32 `[n]` at 16 kHz.
        alone: whether only this speaker speaks, `[frames]`.
    """
    stretches = [
        samples[round(middle_s(first) * SAMPLE_RATE_HZ) : round(middle_s(last) * SAMPLE_RATE_HZ)]
        for first, last in runs(alone)
    ]
    bands = [_bands(part) for part in stretches if len(part) >= _SHORTEST_S * SAMPLE_RATE_HZ]
    every = np.concatenate(bands) if bands else np.zeros((0, _BANDS), np.float32)
    room = len(every) - _PATCH_FRAMES
    if room < 0:
        return np.zeros((0, _PATCH_FRAMES, _BANDS), np.float32)
    count = min(_MOST_PATCHES, 1 + room // (_PATCH_FRAMES // 2))
    starts = np.linspace(0, room, count).astype(np.intp)
    cut = every[starts[:, None] + np.arange(_PATCH_FRAMES)]
    cut -= cut.mean(axis=(1, 2), keepdims=True)
    return np.asarray(cut / np.maximum(cut.std(axis=(1, 2), keepdims=True), 1e-6), np.float32)


def _bands(samples: Samples) -> Floats:
    """Log mel bands `[frames, 24]`, 10 ms apart, as inaSpeechSegmenter computes them."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME_SAMPLES)[::_HOP_SAMPLES]
    rows = frames.astype(np.float32) * _SCALE
    rows = rows - 0.97 * np.concatenate([rows[:, :1], rows[:, :-1]], axis=1)
    power = np.abs(np.fft.rfft(rows * np.hanning(_FRAME_SAMPLES), _FFT)) ** 2
    return np.asarray(np.log(power @ _mel_bank() + 1e-9), np.float32)


@cache
def _mel_bank() -> npt.NDArray[np.float64]:
    """Triangles `[257, 24]` of equal area, from 100 Hz to 8 kHz."""
    from transformers.audio_utils import mel_filter_bank

    bank: Any = mel_filter_bank(
        num_frequency_bins=_FFT // 2 + 1,
        num_mel_filters=_BANDS,
        min_frequency=100.0,
        max_frequency=SAMPLE_RATE_HZ / 2,
        sampling_rate=SAMPLE_RATE_HZ,
        norm="slaney",
        mel_scale="htk",
    )
    return np.asarray(bank, np.float64)
