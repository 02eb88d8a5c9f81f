"""Synthetic voices and their utterances: data shared by synthesisers and voice banks."""

from dataclasses import dataclass

from ..audio import Samples


@dataclass(frozen=True, slots=True)
class Base:
    """A synthesiser's voice."""

    family: str
    variant: str
    gender: str
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class SyntheticVoice:
    """One synthetic voice: a person of simulated meetings.

    Attributes:
        name: unique within a bank.
        base: the synthesiser's voice that it is derived from.
        pitch: espeak's pitch value (0..99), or the others' mean F0 in Hz.
        rate: espeak's words per minute, or the others' duration stretch.
        warp: factor by which the waveform is played faster: a shorter vocal tract.
    """

    name: str
    base: Base
    pitch: float
    rate: float
    warp: float


@dataclass(frozen=True, slots=True)
class UtteranceWord:
    """One word with its times in samples of its utterance."""

    text: str
    start_samples: int
    end_samples: int


@dataclass(frozen=True, slots=True)
class Utterance:
    """One sentence by one voice: samples `[n]` at 16 kHz, peak 0.5, trimmed to the speech."""

    voice: SyntheticVoice
    text: str
    words: tuple[UtteranceWord, ...]
    samples: Samples
