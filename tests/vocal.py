"""Speech-like sound without a synthesiser: a pitch, formants that move, syllables."""

from functools import cache
from typing import Any

import numpy as np

from speaker_reasoner.audio import SAMPLE_RATE_HZ

Samples = np.ndarray[Any, np.dtype[np.float32]]


def voice(seconds: float, f0_hz: float = 120.0, seed: int = 0) -> Samples:
    """Syllables at 4 Hz of one voice, `[n]` at 16 kHz, peak 0.5."""
    return _voice(seconds, f0_hz, seed).copy()


@cache
def _voice(seconds: float, f0_hz: float, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch = f0_hz * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * time_s + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    syllable = np.floor(time_s * 4).astype(int)
    first = rng.uniform(300, 800, syllable[-1] + 1)[syllable]
    second = rng.uniform(1000, 2200, syllable[-1] + 1)[syllable]
    out = np.zeros(len(time_s))
    for harmonic in range(1, int(4000 / f0_hz)):
        hz = harmonic * pitch
        envelope = np.exp(-(((hz - first) / 150) ** 2)) + 0.5 * np.exp(
            -(((hz - second) / 250) ** 2)
        )
        out += (envelope + 0.02) * np.sin(harmonic * phase)
    out *= np.abs(np.sin(np.pi * 4 * time_s)) ** 0.5
    return (0.5 * out / np.abs(out).max()).astype(np.float32)


def coloured(seconds: float, tilt: float, level_db: float, seed: int = 0) -> Samples:
    """Steady noise, white (`tilt` 0) to brown (1), at a level in dB of full scale."""
    count = round(seconds * SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    noise = np.fft.irfft(spectrum * np.arange(1, len(spectrum) + 1) ** -tilt, count)
    return (noise * 10 ** (level_db / 20) / np.sqrt(np.mean(noise**2))).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ), dtype=np.float32)
