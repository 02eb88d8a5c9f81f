"""Pitch of a voice: fundamental frequency by frame, and its histogram over a clip.

Short-term autocorrelation, divided by that of the window (Boersma 1993); the shortest lag of nearly the
best correlation is taken, so that lower octaves are not. The histogram is soft: voices a few
per cent apart overlap.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE_HZ, Samples

PITCHES = 32
"""Bins from `_LOWEST_HZ` to `_HIGHEST_HZ`, 6.5 % apart."""
_LOWEST_HZ, _HIGHEST_HZ = 60, 420
_WIDTH = 0.06
_FRAME, _HOP, _FFT = 640, 480, 1280
_LOUD = 0.7
"""Frames softer than this, relative to the clip's level, are left out."""
_BLOCK = 1000
"""Frames at a time: about 80 MB."""
_NEARLY = 0.9
_LEAST, _SURE = 0.4, 0.8
"""Correlations at which a frame's weight rises above 0, and reaches 1."""

Array = np.ndarray[Any, np.dtype[np.float64]]
_CENTRES = np.log(np.geomspace(_LOWEST_HZ, _HIGHEST_HZ, PITCHES))
_SHORTEST, _LONGEST = SAMPLE_RATE_HZ // _HIGHEST_HZ, SAMPLE_RATE_HZ // _LOWEST_HZ
_WINDOW = np.hanning(_FRAME)


def _correlation(frames: Array) -> Array:
    """Autocorrelation of frames `[n, _FRAME]`."""
    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2
    return np.asarray(np.fft.irfft(power)[:, :_FRAME])


_OF_WINDOW = _correlation(_WINDOW[None])[0]


def pitches(samples: Samples) -> tuple[Array, Array]:
    """Fundamental frequency of each loud frame of a clip, and its weight.

    Args:
        samples: float32 `[n]` at 16 kHz.

    Returns:
        Hz `[frames]`, and 0 (unvoiced) to 1 `[frames]`.
    """
    padded = np.pad(samples, (0, max(0, _FRAME - len(samples)))).astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    level = np.sqrt(np.einsum("nf,nf->n", frames, frames) / _FRAME)
    loud = np.flatnonzero(level >= _LOUD * np.sqrt((padded**2).mean()))
    blocks = [_of(frames[loud[i : i + _BLOCK]]) for i in range(0, max(1, len(loud)), _BLOCK)]
    hertz, voiced = zip(*blocks, strict=True)
    return np.concatenate(hertz), np.concatenate(voiced)


def _of(frames: Array) -> tuple[Array, Array]:
    """See `pitches`, of frames `[n, _FRAME]`."""
    correlation = _correlation((frames - frames.mean(1, keepdims=True)) * _WINDOW)
    correlation = (
        correlation
        / np.maximum(correlation[:, :1], 1e-12)
        / np.maximum(_OF_WINDOW / _OF_WINDOW[0], 0.1)
    )
    correlation = correlation[:, _SHORTEST:_LONGEST]
    rows, last = np.arange(len(correlation)), correlation.shape[1] - 1
    lag = (correlation >= _NEARLY * correlation.max(1, keepdims=True)).argmax(1)
    while (rising := correlation[rows, np.minimum(lag + 1, last)] > correlation[rows, lag]).any():
        lag = np.where(rising, lag + 1, lag)
    before, at, after = (correlation[rows, np.clip(lag, 1, last - 1) + step] for step in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = 0.5 * (before - after) / np.where(np.abs(bend) > 1e-9, bend, np.inf)
    period = np.clip(lag, 1, last - 1) + _SHORTEST + np.clip(shift, -0.5, 0.5)
    voiced = np.clip((correlation[rows, lag] - _LEAST) / (_SURE - _LEAST), 0, 1)
    return SAMPLE_RATE_HZ / period, voiced


def melodies(clips: Sequence[Samples]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Pitch histograms of clips: square roots of shares `[clips, PITCHES]`, so that rows have about length
    1; zeros if nothing is voiced."""
    rows = np.zeros((len(clips), PITCHES), np.float32)
    for row, clip in zip(rows, clips, strict=True):
        hertz, voiced = pitches(clip)
        near = np.exp(-0.5 * ((np.log(hertz)[:, None] - _CENTRES) / _WIDTH) ** 2)
        histogram = voiced @ near
        if histogram.sum() > 1e-6:
            row[:] = np.sqrt(histogram / histogram.sum())
    return rows
