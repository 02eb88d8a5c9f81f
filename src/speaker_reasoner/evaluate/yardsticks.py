"""Scoring by the rules of another tool, where figures must match published ones (`evaluate score --as`).

    yardstick = YARDSTICKS["md-eval"]
    pairs = [yardstick.pair(pair) for pair in pairs]
    result = evaluate(pairs, yardstick.normalisation("en"), ...)

Each states which of the tool's rules it takes, and which it does not; the statement is stored with the result.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

from ..formats.choices import first_choices
from ..transcript import Segment
from .directives import outside
from .normalisation import Normalisation
from .pairs import Pair

_SPLIT = ("zh", "ja", "th", "lo", "my")
"""Languages whose error rates Whisper's paper counts in characters."""


@dataclass(frozen=True, slots=True)
class WhisperNormalisation(Normalisation):
    """Whisper's whole normaliser: the English one for `en`, the basic one for all else."""

    def __post_init__(self) -> None:
        pass

    def words(self, text: str) -> list[str]:
        """Return the words that Whisper's normaliser leaves."""
        return str(_whisper(self.language)(text)).split()


@cache
def _whisper(language: str) -> Any:
    module = import_module("transformers.models.whisper.english_normalizer")
    if language == "en":
        return module.EnglishTextNormalizer({})
    return module.BasicTextNormalizer(split_letters=language in _SPLIT)


@dataclass(frozen=True, slots=True)
class Yardstick:
    """The rules of a tool.

    Attributes:
        name: of the tool.
        rules: that are applied, and that are not, in a sentence.
        normalisation: of a language code; `None` leaves it to the user.
        pair: returns the scored part of reference and hypothesis.
    """

    name: str
    rules: str
    normalisation: Callable[[str], Normalisation] | None
    pair: Callable[[Pair], Pair]


def _same(pair: Pair) -> Pair:
    return pair


def _compulsory(pair: Pair) -> Pair:
    """Optional words are words like others, with their parentheses: sclite compares these, too."""

    def said(segment: Segment) -> Segment:
        if segment.choices is None:
            return segment
        parts = tuple((f"({p[0]})",) if p[1:] == (None,) else p for p in segment.choices)
        text = first_choices(parts)
        words = segment.words if text == segment.text else None
        return replace(segment, text=text, words=words, choices=parts)

    reference = pair.reference.with_segments([said(s) for s in pair.reference.segments])
    return replace(pair, reference=reference)


def _of_reference(pair: Pair) -> Pair:
    """Cut a pair to the time from the first to the last turn of the reference; empty if the reference is."""
    spoken = pair.reference.segments
    edges = [time_s for s in spoken for time_s in (s.start_s, s.end_s)]
    return _between(pair, edges)


def _of_both(pair: Pair) -> Pair:
    """Cut a pair to the time from the first to the last turn of either side."""
    spoken = (*pair.reference.segments, *pair.hypothesis.segments)
    return _between(pair, [time_s for s in spoken for time_s in (s.start_s, s.end_s)])


def _between(pair: Pair, edges: list[float]) -> Pair:
    reference = pair.reference
    if any(end_s == math.inf for _, end_s in reference.unscored):
        return pair  # by its UEM
    left_out = outside([(min(edges), max(edges))] if edges else [])
    unscored = tuple(sorted([*reference.unscored, *left_out]))
    return replace(pair, reference=replace(reference, unscored=unscored))


YARDSTICKS = {
    one.name: one
    for one in (
        Yardstick(
            "sclite",
            "case ignored, words divided at spaces alone, optional words compulsory and with their parentheses, "
            "so that (uh) is not uh (sclite without -D); "
            "not its alignment by segments: words are aligned in order over the whole recording",
            lambda language: Normalisation(
                language, nfkc=False, lower=True, characters=False, punctuation=False
            ),
            _compulsory,
        ),
        Yardstick(
            "md-eval",
            "scored from the first to the last turn of the reference where no UEM says otherwise, nothing "
            "in a recording without reference speech",
            None,
            _of_reference,
        ),
        Yardstick(
            "dscore",
            "scored from the first to the last turn of both sides where no UEM says otherwise; its JER is "
            "of frames of 10 ms, ours of exact times",
            None,
            _of_both,
        ),
        Yardstick(
            "whisper",
            "Whisper's normaliser: the English one for --language en, else the basic one, by characters "
            "for zh, ja, th, lo, my; British spellings stay, as its list is not part of transformers",
            lambda language: WhisperNormalisation(language),
            _same,
        ),
    )
}
"""The tools whose rules can be taken."""
