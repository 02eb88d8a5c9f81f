"""Confidence of each line: mean token probability of its words, speaker and times."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .turns import LINE

TAG = re.compile(r"</?(?:think|answer|box)>")


def _blank(tag: re.Match[str]) -> str:
    """Replace a tag by blanks of its length and a line break, at which `parse_turn` also ends a line."""
    return " " * (len(tag.group()) - 1) + "\n"


@dataclass(frozen=True, slots=True)
class LineConfidence:
    """Mean probability, 0..1, of the tokens of each part; `None` where unknown."""

    words: float | None = None
    speaker: float | None = None
    times: float | None = None


def line_confidences(
    text: str, sizes: Sequence[int], probabilities: Sequence[float]
) -> list[LineConfidence]:
    """The confidence of every line in a turn, in order.

    Args:
        text: the turn.
        sizes: bytes of each token.
        probabilities: of each token; empty if unknown.
    """
    lines = list(LINE.finditer(TAG.sub(_blank, text)))
    if not probabilities or len(sizes) != len(probabilities):
        return [LineConfidence() for _ in lines]
    ends, at = [], 0
    for size in sizes:
        at += size
        ends.append(at)

    def mean(first: int, last: int) -> float | None:
        """Mean over the tokens that touch the characters `[first, last)`."""
        low, high = len(text[:first].encode()), len(text[:last].encode())
        touched = [
            p
            for p, end, size in zip(probabilities, ends, sizes, strict=True)
            if end > low and end - size < high
        ]
        return sum(touched) / len(touched) if touched else None

    return [
        LineConfidence(
            words=mean(match.start(4), match.start(4) + len(match.group(4).rstrip()))
            if match.group(4).strip()
            else None,
            speaker=mean(*match.span(1)),
            times=mean(match.start(2), match.end(3)),
        )
        for match in lines
    ]
