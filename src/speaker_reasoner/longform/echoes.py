"""Removes cross-talk: words of a channel that are an echo of another, louder channel.

The constants are assumed: no recording with cross-talk was measured.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import numpy.typing as npt

from ..transcript import Segment, Word, find_words

Levels = npt.NDArray[np.float32]

FRAME_S = 0.02
"""Time between two levels."""
_NEAR_S = 0.5
"""Largest distance between the starts of a word and of its echo."""
_DELAY_S = 0.3
"""Longest delay of an echo."""
_QUIETER_DB = 10.0
"""Least difference in level between the other channel and an echo of it."""
_FOLLOWS, _LEAST_FOLLOWED_S = 0.85, 0.6
"""Least correlation of the levels of an echo and of the other channel, and the shortest stretch that is
correlated."""
_LEAST_S = 0.001
"""Shortest segment that is left after words were removed."""


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of a channel in order of start: their starts and texts."""

    starts_s: tuple[float, ...]
    texts: tuple[str, ...]

    def near(self, word: Word) -> bool:
        """Return whether this channel has the same word at about the same time."""
        low = bisect_left(self.starts_s, word.start_s - _NEAR_S)
        high = bisect_right(self.starts_s, word.start_s + _NEAR_S)
        return _plain(word.text) in self.texts[low:high]


def without_echoes(
    channels: Sequence[Sequence[Segment]], levels: Sequence[Levels]
) -> tuple[list[list[Segment]], list[Counter[int]]]:
    """Remove the words of each channel that are echoes of another one.

    A run of words that are all much quieter than the other channel at that time is an echo if the other
    channel has at least half of them too, or if the levels of both are correlated (a faint echo may be
    recognised as other words). If only some words of a segment are echoes, the segment is cut, provided that
    its words have times.

    Args:
        channels: the segments of each.
        levels: of each, in dB of full scale, a value every `FRAME_S`.

    Returns:
        The remaining segments of each channel, and the number of its words that were echoes, by source
        channel.
    """
    words_by_channel = [_words_of(segments) for segments in channels]
    kept: list[list[Segment]] = []
    counts: list[Counter[int]] = []
    for number, segments in enumerate(channels):
        kept.append([])
        counts.append(Counter())
        for segment in segments:
            words = _timed(segment)
            sources = _sources(words, number, words_by_channel, levels)
            if all(source is None for source in sources) or (
                segment.words is None and None in sources
            ):
                kept[-1].append(segment)
                continue
            counts[-1].update(source for source in sources if source is not None)
            kept[-1] += _left(segment, [source is None for source in sources])
    return kept, counts


def _words_of(segments: Sequence[Segment]) -> _Words:
    words = sorted(
        (word for segment in segments for word in _timed(segment)), key=lambda w: w.start_s
    )
    return _Words(tuple(w.start_s for w in words), tuple(_plain(w.text) for w in words))


def _timed(segment: Segment) -> Sequence[Word]:
    """The words of a segment; where their times are not known, they are spread over it evenly."""
    if segment.words is not None:
        return segment.words
    texts = segment.text.split()
    edges = np.linspace(segment.start_s, segment.end_s, len(texts) + 1).tolist()
    return [Word(t, a, b) for t, a, b in zip(texts, edges[:-1], edges[1:], strict=True)]


def _sources(
    words: Sequence[Word], number: int, words_by_channel: Sequence[_Words], levels: Sequence[Levels]
) -> list[int | None]:
    """The channel that each word is an echo of; `None` for the speaker's own."""
    sources: list[int | None] = [None] * len(words)
    for other, theirs in enumerate(words_by_channel):
        if other == number or not theirs.starts_s:
            continue
        quiet = [
            _level_db(levels[other], word.start_s - _DELAY_S, word.end_s)
            - _level_db(levels[number], word.start_s, word.end_s)
            >= _QUIETER_DB
            for word in words
        ]
        for faint, group in groupby(range(len(words)), key=quiet.__getitem__):
            run = list(group)
            if not faint:
                continue
            span_s = words[run[0]].start_s, max(words[i].end_s for i in run)
            same = 2 * sum(theirs.near(words[i]) for i in run) >= len(run)
            if same or _follows(levels[number], levels[other], *span_s):
                for i in run:
                    sources[i] = other
    return sources


def _level_db(levels: Levels, start_s: float, end_s: float) -> float:
    """The mean level of a stretch."""
    first = min(max(0, int(start_s / FRAME_S)), max(0, len(levels) - 1))
    part = levels[first : max(first + 1, int(np.ceil(end_s / FRAME_S)))]
    return 10 * float(np.log10(np.mean(10.0 ** (part / 10)) + 1e-20)) if len(part) else -200.0


def _follows(levels: Levels, others: Levels, start_s: float, end_s: float) -> bool:
    """Return whether the levels of a stretch are correlated with those of the other channel, up to a delay."""
    first, last = int(start_s / FRAME_S), min(int(end_s / FRAME_S), len(levels), len(others))
    if (last - first) * FRAME_S < _LEAST_FOLLOWED_S:
        return False
    part = levels[first:last]
    for delay in range(min(first, round(_DELAY_S / FRAME_S)) + 1):
        theirs = others[first - delay : last - delay]
        if part.std() > 0 and theirs.std() > 0 and np.corrcoef(part, theirs)[0, 1] >= _FOLLOWS:
            return True
    return False


def _left(segment: Segment, keep: Sequence[bool]) -> list[Segment]:
    """The remaining parts of a segment: one segment for each run of words that are kept."""
    if segment.words is None:
        return []
    places = find_words(segment.text, segment.words)
    assert places is not None  # a segment makes sure of it
    left = []
    for kept, group in groupby(range(len(keep)), key=keep.__getitem__):
        if not kept:
            continue
        run = list(group)
        words = segment.words[run[0] : run[-1] + 1]
        until = places[run[-1] + 1][0] if run[-1] + 1 < len(places) else len(segment.text)
        start_s = words[0].start_s if run[0] else segment.start_s
        last_s = max(word.end_s for word in words)
        end_s = last_s if run[-1] + 1 < len(places) else segment.end_s
        left.append(
            replace(
                segment,
                start_s=start_s,
                end_s=max(end_s, start_s + _LEAST_S),
                text=segment.text[places[run[0]][0] if run[0] else 0 : until].strip(),
                words=words,
            )
        )
    return left


def _plain(text: str) -> str:
    """A word without case and punctuation."""
    return "".join(c for c in text.casefold() if c.isalnum())
