"""The gender of speakers, by the median pitch of their speech without overlap. The constants are assumed."""

from collections.abc import Sequence

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ..pitch import pitches
from .segmentation import FIELD_S, FRAME_S, Floats, stretches

_BETWEEN_HZ = 165.0
"""Median pitch at which either gender is equally likely."""
_UNSURE = 0.04
"""A median nearer to it, in natural logarithm, leaves the gender unknown."""
_LEAST_VOICED = 15
"""Least voiced frames, 30 ms apart, that a gender needs."""
_MOST_S = 20.0
"""Most speech of a speaker that is looked at."""


def genders(samples: Samples, active: Floats, speakers: Sequence[int]) -> tuple[str, ...]:
    """The gender of each speaker; `unknown` where there is too little speech without overlap.

    Args:
        samples: float32 `[n]` at 16 kHz.
        active: probability that each speaker speaks, `[frames, all speakers]`.
        speakers: columns of `active`.
    """
    speaking = active >= 0.5
    alone = speaking & (speaking.sum(axis=1, keepdims=True) == 1)
    return tuple(_gender(samples, np.flatnonzero(alone[:, column])) for column in speakers)


def _gender(samples: Samples, frames: np.ndarray[tuple[int], np.dtype[np.intp]]) -> str:
    hertz = []
    left_s = _MOST_S
    for stretch in stretches(frames) if len(frames) else ():
        if left_s <= 0:
            break
        first_s = stretch[0] * FRAME_S + FIELD_S / 2
        last_s = min(stretch[-1] * FRAME_S + FIELD_S / 2, first_s + left_s)
        clip = samples[round(first_s * SAMPLE_RATE_HZ) : round(last_s * SAMPLE_RATE_HZ)]
        if len(clip) < SAMPLE_RATE_HZ // 10:
            break
        frames_hz, voiced = pitches(clip)
        hertz.append(frames_hz[voiced > 0.8])
        left_s -= last_s - first_s
    every = np.concatenate(hertz) if hertz else np.zeros(0)
    if len(every) < _LEAST_VOICED:
        return "unknown"
    off = float(np.log(np.median(every) / _BETWEEN_HZ))
    if abs(off) < _UNSURE:
        return "unknown"
    return "female" if off > 0 else "male"
