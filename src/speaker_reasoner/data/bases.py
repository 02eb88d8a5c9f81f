"""Synthetic voices and their utterances, with word times.

A *base* is a synthesiser's voice; whole bases are held out for evaluation. A *voice* is one simulated person: a base
with a pitch, a rate and a vocal tract length (the waveform played `warp` times faster).

`banks` collects utterances, `simulate` mixes them into meetings, `synthesisers` calls the synthesisers.
"""

import random
from collections.abc import Sequence

import numpy as np
import soxr

from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import DataError
from .people import Base, SyntheticVoice, Utterance, UtteranceWord
from .synthesisers import DRAWN, FAMILIES, Speech, available

_ESPEAK_MALE = (
    "Andy Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike Nguyen Reed Alex "
    "adam antonio benjamin boris david ed edward ian john m1 m2 m3 m4 m5 m6 m7 m8 marcelo max "
    "michel miguel norbert pablo paul pedro sandro travis victor klatt2 klatt3"
)
_ESPEAK_FEMALE = "Andrea Annie anika aunty belinda f1 f2 f3 f4 f5 linda steph steph2 steph3"
_ESPEAK_HELD_OUT = "f4 Andrea linda m4 edward Hugo david pablo Reed"

BASES: tuple[Base, ...] = (
    *(Base("espeak", v, "male", v in _ESPEAK_HELD_OUT.split()) for v in _ESPEAK_MALE.split()),
    *(Base("espeak", v, "female", v in _ESPEAK_HELD_OUT.split()) for v in _ESPEAK_FEMALE.split()),
    Base("flite", "kal16", "male"),
    Base("flite", "awb", "male"),
    Base("flite", "slt", "female"),
    Base("flite", "rms", "male", held_out=True),
    Base("festival", "cmu_us_slt_arctic_hts", "female"),
    Base("festival", "kal_diphone", "male"),
    Base("festival", "ked_diphone", "male", held_out=True),
    Base("rhvoice", "Alan", "male"),
    Base("rhvoice", "Bdl", "male"),
    Base("rhvoice", "Clb", "female"),
    Base("rhvoice", "Slt", "female"),
    Base("pico", "en-US", "female"),
    Base("pico", "en-GB", "female"),
)


def base_of(family: str, variant: str) -> Base:
    """Look up a synthesiser's voice by its names.

    Raises:
        KeyError: there is none.
    """
    if family == "espeak" and variant.startswith(DRAWN):
        return Base(family, variant, variant.split("-")[1])
    return {(base.family, base.variant): base for base in BASES}[family, variant]


def drawn_base(gender: str, number: int) -> Base:
    """A variant of espeak with random formants, source and melody."""
    return Base("espeak", f"{DRAWN}-{gender}-{number}", gender)


def draw_voice(rng: random.Random, name: str, base: Base) -> SyntheticVoice:
    """Draw a voice for a base: pitch, rate and vocal tract within the ranges of the gender."""
    female = base.gender == "female"
    warp = rng.uniform(0.97, 1.14) if female else rng.uniform(0.90, 1.06)
    if base.family == "espeak":
        pitch = rng.uniform(30, 72) if female else rng.uniform(15, 65)
        return SyntheticVoice(name, base, round(pitch), round(rng.uniform(145, 190)), warp)
    pitch = rng.uniform(165, 220) if female else rng.uniform(85, 135)
    return SyntheticVoice(name, base, round(pitch), round(rng.uniform(0.85, 1.1), 2), warp)


def speak(voice: SyntheticVoice, sentences: Sequence[str]) -> list[Utterance | None]:
    """Synthesise sentences; `None` where the synthesiser's word events do not fit the words.

    Raises:
        DataError: the voice's family is not installed.
    """
    if not available(voice.base.family):
        raise DataError(
            f"voice {voice.name}: {voice.base.family} is not installed; espeak comes with "
            "`pip install 'speaker-reasoner[simulate]'`, the others with the system's packages"
        )
    _, say = FAMILIES[voice.base.family]
    return [
        None if speech is None else _finish(voice, sentence, speech)
        for sentence, speech in zip(sentences, say(voice, sentences), strict=True)
    ]


def _finish(voice: SyntheticVoice, text: str, speech: Speech) -> Utterance | None:
    """Warp, resample, trim to the words, set the peak."""
    raw, rate_hz, times = speech
    samples = soxr.resample(raw, rate_hz * voice.warp, SAMPLE_RATE_HZ).astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * float(np.abs(samples).max(initial=1e-6)))
    if not len(loud) or len(times) != len(text.split()):
        return None
    first, last = int(loud[0]), int(loud[-1]) + 1
    factor = SAMPLE_RATE_HZ / voice.warp
    words = []
    for word, (start_s, end_s) in zip(text.split(), times, strict=True):
        start = min(max(round(start_s * factor) - first, 0), last - first)
        end = min(max(round(end_s * factor) - first, start), last - first)
        words.append(UtteranceWord(word, start, end))
    if words[-1].end_samples <= words[-1].start_samples:
        return None
    samples = samples[first:last]
    peak = float(np.abs(samples).max())
    return Utterance(voice, text, tuple(words), (samples * (0.5 / peak)).astype(np.float32))


def median_f0_hz(samples: Samples) -> float:
    """Median fundamental frequency by autocorrelation over voiced 40 ms frames, 60..400 Hz."""
    size, values = 640, []
    low, high = SAMPLE_RATE_HZ // 400, SAMPLE_RATE_HZ // 60
    level = float(np.sqrt(np.mean(samples**2)))
    for start in range(0, len(samples) - size, 320):
        frame = samples[start : start + size]
        if np.sqrt(np.mean(frame**2)) < level:
            continue
        spectrum = np.abs(np.fft.rfft(frame - frame.mean(), 2 * size)) ** 2
        correlation = np.fft.irfft(spectrum)[:size]
        lag = low + int(np.argmax(correlation[low:high]))
        if correlation[lag] > 0.4 * correlation[0]:
            values.append(SAMPLE_RATE_HZ / lag)
    return float(np.median(values)) if values else 0.0
