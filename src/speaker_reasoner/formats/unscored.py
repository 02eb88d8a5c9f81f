"""What is left of a transcript where stretches of time are out of scoring: words and segments outside of them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

from ..transcript import Segment, Transcript, Word
from .ctm import join_words, split_words

Stretch = tuple[float, float]


def merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Stretches in order, those that touch or overlap as one; those without length left out."""
    joined: list[Stretch] = []
    for start_s, end_s in sorted(stretches):
        if end_s <= start_s:
            continue
        if joined and start_s <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end_s)
        else:
            joined.append((start_s, end_s))
    return joined


def without(transcript: Transcript, unscored: Sequence[Stretch]) -> Transcript:
    """Take stretches of time out of a transcript.

    A word goes if its middle lies in one, as in sclite; where the times of words are not known, each
    has a share of its segment by its number of characters. Segments end and begin at the stretches.
    """
    stretches = merged(unscored)
    if not stretches:
        return transcript
    ends = np.array([end_s for _, end_s in stretches])
    segments: list[Segment] = []
    for segment in transcript.segments:
        first = int(np.searchsorted(ends, segment.start_s, side="right"))
        near = []
        for stretch in stretches[first:]:
            if stretch[0] >= segment.end_s:
                break
            near.append(stretch)
        segments += _outside(segment, near) if near else [segment]
    return replace(transcript, segments=tuple(segments))


def _outside(segment: Segment, stretches: Sequence[Stretch]) -> list[Segment]:
    """The parts of a segment that lie in no stretch."""
    edges = [(segment.start_s, segment.start_s), *stretches, (segment.end_s, segment.end_s)]
    gaps = [(a[1], b[0]) for a, b in pairwise(edges) if b[0] > a[1]]
    timed = segment.words is not None
    words = segment.words or _shared_out(segment)
    parts = []
    for start_s, end_s in gaps:
        inside = [w for w in words if start_s <= (w.start_s + w.end_s) / 2 < end_s]
        if words and not inside:
            continue
        whole = len(inside) == len(words)  # spaces and choices stay as they are
        clipped = tuple(
            replace(w, start_s=max(w.start_s, start_s), end_s=min(w.end_s, end_s)) for w in inside
        )
        parts.append(
            replace(
                segment,
                start_s=start_s,
                end_s=end_s,
                text=segment.text if whole else join_words([w.text for w in inside]),
                words=clipped if timed else None,
                choices=segment.choices if whole else None,
            )
        )
    return parts


def _shared_out(segment: Segment) -> list[Word]:
    """The words of a text, each with its share of the segment's time by its number of characters."""
    words = split_words(segment.text)
    reached = list(accumulate((len(word) for word in words), initial=0))
    scale = segment.duration_s / (reached[-1] or 1)
    return [
        Word(word, segment.start_s + a * scale, segment.start_s + b * scale)
        for word, a, b in zip(words, reached, reached[1:], strict=False)
    ]
