"""Words and speaker turns to lines: each word goes to who speaks at its time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...spans import Span
from ...transcript import Word
from .diarizer import SpeakerTurn

_LONGEST_PAUSE_S = 1.0
"""A line ends where its speaker pauses for longer."""
_LONG_LINE_S = 12.0
"""A line that lasts longer ends with its sentence."""
_SWITCH = 2.0
"""What a change of speaker between two words costs, in seconds of speech that speak against it, where
they follow each other without a pause; a pause makes it cheaper."""
_ENDS = (".", "?", "!", "。", "？", "！")


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """Words of one speaker.

    Attributes:
        speaker: number within the chunk, from 0.
        words: with times in seconds of the chunk.
        text: the words, joined as their language joins them.
        confidence: mean confidence of the speaker, by seconds; `None` where it is unknown.
    """

    speaker: int
    words: tuple[Word, ...]
    text: str
    confidence: float | None

    @property
    def start_s(self) -> float:
        return self.words[0].start_s

    @property
    def end_s(self) -> float:
        return max(word.end_s for word in self.words)
