"""Change the vocal tract of an utterance, so that training hardly repeats a person.

A *warp* plays the waveform faster: pitch, formants and rate rise together. *Shifts* then move the
formants against each other and against the pitch, as vocal tracts of other shapes do: each frame's
spectral envelope, smoothed by its cepstrum, is read at other frequencies (piecewise-linear vocal
tract normalisation, Cohen et al., 1995, used the other way round).
"""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from ..audio import SAMPLE_RATE_HZ, Samples

_KNOTS_HZ = (500.0, 1500.0, 2500.0, 3500.0)
"""Frequencies of the shifts; linear between them, 0 at 0 Hz, constant above the last."""
_FRAME, _HOP = 512, 128
_CEPSTRUM = 30
"""Number of cepstral coefficients of an envelope: below any voice's pitch period in samples."""
_MOST_GAIN = 2.3
"""Bound of the gain at a frequency, as a natural logarithm: 20 dB."""


@dataclass(frozen=True, slots=True)
class Tract:
    """A change of the vocal tract.

    Attributes:
        warp: factor by which it is played faster.
        shifts: natural logarithm of the factor by which formants near 500, 1500, 2500 and 3500 Hz
            rise; empty for none.
    """

    warp: float = 1.0
    shifts: tuple[float, ...] = ()

    def applied(self, samples: Samples, length: int) -> Samples:
        """Transform samples `[n]` at 16 kHz; `length` samples are returned."""
        if self.warp != 1.0:
            samples = soxr.resample(samples, self.warp, 1.0, quality="LQ")
            samples = np.pad(samples, (0, max(0, length - len(samples))))[:length]
        return _shifted(samples, self.shifts) if any(self.shifts) else samples


def draw_tract(rng: random.Random, warp: tuple[float, float], formants: float) -> Tract:
    """Draw a tract: a warp within a range, shifts of at most `formants`. A parameter of zero range takes
    nothing from `rng`."""
    slowest, fastest = warp
    factor = rng.uniform(slowest, fastest) if slowest < fastest else slowest
    if not formants:
        return Tract(factor)
    return Tract(factor, tuple(rng.uniform(-formants, formants) for _ in _KNOTS_HZ))


def _shifted(samples: Samples, shifts: tuple[float, ...]) -> Samples:
    import scipy.fft

    window = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
    count = -(-len(samples) // _HOP) + _FRAME // _HOP - 1
    padded = np.zeros((count - 1) * _HOP + _FRAME, np.float32)
    first = _FRAME - _HOP
    padded[first : first + len(samples)] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_HOP]
    spectra = scipy.fft.rfft(frames * window)
    spectra *= np.exp(_gains(np.abs(spectra), shifts))
    changed = scipy.fft.irfft(spectra, _FRAME) * window
    mixed = np.zeros_like(padded)
    for part in range(_FRAME // _HOP):  # frames that do not overlap, laid end to end
        stretch = changed[part :: _FRAME // _HOP].reshape(-1)
        mixed[part * _HOP : part * _HOP + len(stretch)] += stretch
    result: Samples = mixed[first : first + len(samples)]
    power, before = float(np.mean(result**2)), float(np.mean(samples**2))
    return result * np.float32(np.sqrt(before / power)) if power > 0 else samples


def _gains(levels: np.ndarray[Any, Any], shifts: tuple[float, ...]) -> np.ndarray[Any, Any]:
    """Gains `[frames, bins]` as natural logarithms, from magnitudes of the same shape."""
    bins = np.arange(levels.shape[1])
    frequencies = bins * SAMPLE_RATE_HZ / _FRAME
    at = bins / np.exp(np.interp(frequencies, (0.0, *_KNOTS_HZ), (0.0, *shifts)))
    # An envelope is a sum of `_CEPSTRUM` cosines, which can be evaluated at any frequency.
    order = np.arange(_CEPSTRUM)
    twice = np.where(order > 0, 2.0, 1.0)
    there = np.cos(2 * np.pi / _FRAME * np.outer(order, np.minimum(at, bins[-1])))
    here = np.cos(2 * np.pi / _FRAME * np.outer(order, bins))
    ends = np.where((bins > 0) & (bins < bins[-1]), 2.0, 1.0) / _FRAME
    cepstra = np.log(levels + 1e-4) @ (here * ends).T.astype(np.float32)  # [frames, order]
    moved = cepstra @ (twice[:, None] * (there - here)).astype(np.float32)
    gains: np.ndarray[Any, Any] = np.clip(moved, -_MOST_GAIN, _MOST_GAIN)
    return gains
