"""Gives each word a speaker, by who speaks at its time, and joins words to lines. The constants are assumed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ...transcript import Word
from .segmentation import Floats, frames_of, regions

_SWITCH = 0.7
"""Log-odds that a change of speaker between two words must overcome."""
_EASY_SWITCH = 0.2
"""The same after a pause, or after the end of a sentence."""
_PAUSE_S = 0.3
_NEAR_FRAMES = 30
"""If nobody speaks during a word, its speaker is sought in this many frames around it: half a second."""
_FAINT, _FLOOR = 0.05, 0.02
"""Below the first activity nobody speaks; the second is added to each activity before logarithms."""
_LINE_PAUSE_S = 0.8
"""A line ends where its speaker pauses for longer."""
_LONG_LINE_S = 15.0
"""A line that lasts longer ends with its sentence."""
_ENDS = (".", "?", "!", "。", "？", "！")


@dataclass(frozen=True, slots=True)
class SpokenLine:
    """Words of one speaker.

    Attributes:
        speaker: number within the chunk, from 0.
        words: with times in seconds of the chunk.
        text: the words, joined as their language joins them.
        confidence: probability that it is this speaker, the mean over its words.
        start_s, end_s: in seconds of the chunk; the words lie inside.
    """

    speaker: int
    words: tuple[Word, ...]
    text: str
    confidence: float
    start_s: float
    end_s: float


def assign(words: Sequence[Word], active: Floats) -> tuple[list[int], list[float]]:
    """The speaker of each word: the best path (Viterbi) through the activity during the words.

    Args:
        words: in order of start, seconds of the chunk.
        active: probability that each speaker speaks `[frames, speakers]`, at least one of them.

    Returns:
        The speaker of each word, and the probability of that speaker among all.
    """
    if not words:
        return [], []
    if active.shape[1] == 0:
        return [0] * len(words), [1.0] * len(words)
    shares = np.zeros((len(words), active.shape[1]))
    for i, word in enumerate(words):
        place = frames_of(word.start_s, word.end_s, len(active))
        activity = active[place].mean(axis=0)
        if activity.max() < _FAINT:
            activity = active[max(0, place.start - _NEAR_FRAMES) : place.stop + _NEAR_FRAMES].mean(
                axis=0
            )
        shares[i] = (activity + _FLOOR) / (activity + _FLOOR).sum()
    scores = np.log(shares)
    best, back = scores[0].copy(), []
    for i, (before, after) in enumerate(pairwise(words), start=1):
        easy = before.text.endswith(_ENDS) or after.start_s - before.end_s > _PAUSE_S
        cost = _EASY_SWITCH if easy else _SWITCH
        ways = best[:, None] - cost * (1 - np.eye(len(best)))
        back.append(ways.argmax(axis=0))
        best = ways.max(axis=0) + scores[i]
    path = [int(best.argmax())]
    for step in reversed(back):
        path.append(int(step[path[-1]]))
    speakers = path[::-1]
    return speakers, [float(row[speaker]) for row, speaker in zip(shares, speakers, strict=True)]


def lines(
    words: Sequence[Word], joined: Sequence[bool], speakers: Sequence[int], sure: Sequence[float]
) -> list[SpokenLine]:
    """Join words to lines: runs of words of one speaker without a pause.

    Args:
        words: in order of start.
        joined: whether each follows the word before it without a space.
        speakers: of each word.
        sure: probability of each word's speaker.
    """
    groups: list[list[int]] = []
    for i, (word, speaker) in enumerate(zip(words, speakers, strict=True)):
        last = groups[-1] if groups else None
        if last is not None and speakers[last[0]] == speaker and not _breaks(words, last, word):
            last.append(i)
        else:
            groups.append([i])
    return [
        SpokenLine(
            speakers[group[0]],
            tuple(words[i] for i in group),
            words[group[0]].text
            + "".join(words[i].text if joined[i] else f" {words[i].text}" for i in group[1:]),
            sum(sure[i] for i in group) / len(group),
            words[group[0]].start_s,
            max(words[i].end_s for i in group),
        )
        for group in groups
    ]


def widened(rows: Sequence[SpokenLine], active: Floats, end_s: float) -> list[SpokenLine]:
    """Widen lines to their speaker's voice, because a recogniser gives words less time than they take, and
    leaves some out.

    A line grows over the regions in which its speaker is active, at most to the middle of the pause beside
    the speaker's neighbouring line. On a call and an AMI clip this lowers the DER (docs/experiments.md,
    2026-11-27).

    Args:
        rows: in order of start.
        active: see `assign`.
        end_s: of the chunk.
    """
    wider = list(rows)
    for speaker in {row.speaker for row in rows} if active.shape[1] else set[int]():
        voiced = regions(active[:, speaker], end_s, merge_s=_PAUSE_S)
        places = [i for i, row in enumerate(rows) if row.speaker == speaker]
        for place, i in enumerate(places):
            row = rows[i]
            low = (rows[places[place - 1]].end_s + row.start_s) / 2 if place else 0.0
            high = (row.end_s + rows[places[place + 1]].start_s) / 2 if i != places[-1] else end_s
            over = [r for r in voiced if r[0] < row.end_s and row.start_s < r[1]]
            start_s = min([row.start_s, *(max(low, a) for a, _ in over)])
            stop_s = max([row.end_s, *(min(high, b) for _, b in over)])
            wider[i] = replace(row, start_s=start_s, end_s=stop_s)
    return wider


def _breaks(words: Sequence[Word], line: Sequence[int], word: Word) -> bool:
    last = words[line[-1]]
    if word.start_s - last.end_s > _LINE_PAUSE_S:
        return True
    return word.end_s - words[line[0]].start_s > _LONG_LINE_S and last.text.endswith(_ENDS)
