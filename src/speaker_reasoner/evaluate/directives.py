"""Scoring directives in a reference: stretches that are not scored, optional words, alternatives.

    reference, hypothesis = scored(reference, hypothesis, normalisation.words)

The result holds the words and the time that are scored. Alternatives are resolved in favour of the hypothesis
(`resolved`). NIST's tools do the same: sclite leaves out segments marked `ignore_time_segment_in_scoring` and the
hypothesis words whose middle lies in one; md-eval leaves out the time of NOSCORE and time outside of a UEM.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import FormatError
from ..formats import read_text
from ..formats.scoring import fields_of
from ..formats.sessions import parse_seconds
from ..formats.unscored import Stretch, merged, without
from ..transcript import Segment, Transcript

Uem = Mapping[str, Mapping[str, Sequence[Stretch]]]
"""The stretches to be scored, by session and channel."""
Words = Callable[[str], list[str]]
_Row = npt.NDArray[np.int64]


def scored(
    reference: Transcript, hypothesis: Transcript, words: Words
) -> tuple[Transcript, Transcript, int]:
    """Return the scored parts of both sides, and how many optional words were left out (sclite -D).

    Args:
        reference: whose `unscored` stretches and `choices` count.
        hypothesis: of the same recording; of its own choices the first is taken.
        words: splits a text into the words that are compared.
    """
    ours, theirs = (without(side, reference.unscored) for side in (reference, hypothesis))
    if any(segment.choices is not None for segment in theirs.segments):
        theirs = theirs.with_segments([replace(s, choices=None) for s in theirs.segments])
    if all(segment.choices is None for segment in ours.segments):
        return ours, theirs, 0
    hypothesis_words = [word for segment in theirs.segments for word in words(segment.text)]
    segments, skipped = resolved(ours.segments, hypothesis_words, words)
    return ours.with_segments(segments), theirs, skipped


def is_left_out(transcript: Transcript) -> bool:
    """Return whether all segments lie in stretches that are out of scoring."""
    stretches = merged(transcript.unscored)
    ends = [end_s for _, end_s in stretches]
    for segment in transcript.segments:
        at = bisect_left(ends, segment.end_s)
        if at == len(ends) or stretches[at][0] > segment.start_s:
            return False
    return True


def resolved(
    segments: Sequence[Segment], hypothesis_words: Sequence[str], words: Words
) -> tuple[list[Segment], int]:
    """Make the choices that need the fewest edits of all words in order; the first of equals.

    Args:
        segments: of the reference, in order.
        hypothesis_words: the words of the hypothesis, in order.
        words: splits a text into the words that are compared.

    Returns:
        The segments without choices, and how many optional words they left out.
    """
    codes: dict[str, int] = {}
    theirs = np.array(
        [codes.setdefault(w, len(codes)) for w in hypothesis_words], dtype=np.int64
    )  # [M]

    def encoded(text: str | None) -> list[int]:
        return [codes.setdefault(word, len(codes)) for word in words(text or "")]

    # The reference as parts in a row, each with one way to be said or several.
    parts: list[list[list[int]]] = []
    for segment in segments:
        choices = segment.choices or ((segment.text,),)
        parts += [[encoded(choice) for choice in part] for part in choices]
    behind: dict[int, _Row] = {}  # by number of a part with choices: cost of all after it, [M + 1]
    row = np.arange(len(theirs), -1, -1, dtype=np.int64)
    for number in range(len(parts) - 1, -1, -1):
        if len(parts[number]) > 1:
            behind[number] = row
        rows = [_aligned(row[::-1], said[::-1], theirs[::-1])[::-1] for said in parts[number]]
        row = np.minimum.reduce(rows)
    # From left to right, from the column that the best path has reached.
    made: list[int] = []
    row = np.arange(len(theirs) + 1, dtype=np.int64)
    for number, ways in enumerate(parts):
        rows = [_aligned(row, said, theirs) for said in ways]
        best = 0
        if len(ways) > 1:
            costs = [int((one + behind[number]).min()) for one in rows]
            best = costs.index(min(costs))
        made.append(best)
        row = rows[best]
    chosen: list[Segment] = []
    skipped, number = 0, 0
    for segment in segments:
        if segment.choices is None:
            chosen.append(segment)
            number += 1
            continue
        said = []
        for part in segment.choices:
            choice = part[made[number]]
            said.append(choice or "")
            skipped += len(words(part[0] or "")) if choice is None else 0
            number += 1
        text = " ".join(filter(None, said))
        kept = segment.words if text == segment.text else None
        chosen.append(replace(segment, text=text, words=kept, choices=None))
    return chosen, skipped


def _aligned(row: _Row, said: Sequence[int], theirs: npt.NDArray[np.int64]) -> _Row:
    """Costs behind words of the reference, from those before them, by hypothesis words used: [M + 1]."""
    steps = np.arange(len(row), dtype=np.int64)
    for word in said:
        after = row + 1  # a deletion
        np.minimum(after[1:], row[:-1] + (theirs != word), out=after[1:])
        row = np.minimum.accumulate(after - steps) + steps  # insertions behind it
    return row


def read_uem(path: Path, encoding: str | None = None) -> Uem:
    """Read a UEM: `<file> <channel> <start> <end>` a line.

    Raises:
        FormatError: the file cannot be read, or a line is none; it names the line.
    """
    listed: dict[str, dict[str, list[Stretch]]] = {}
    for number, fields in fields_of(read_text(path, encoding)):
        if fields[0].startswith((";", "#")):
            continue
        at = f"{path}:{number}"
        if len(fields) != 4:
            raise FormatError(
                f"{at}: expected 4 UEM fields (file channel start end), got {len(fields)}"
            )
        start_s, end_s = (
            float(parse_seconds(f, at, w))
            for f, w in zip(fields[2:], ("start", "end"), strict=True)
        )
        if end_s < start_s:
            raise FormatError(f"{at}: ends at {end_s:g} s, before it starts at {start_s:g} s")
        channels = listed.setdefault(fields[0], {})
        channels.setdefault(fields[1].lower(), []).append((start_s, end_s))
    return listed


_FIRST_CHANNEL = frozenset(("1", "a", "na", "<na>"))
"""The channel of recordings that have one, as corpora write it."""


def outside(listed: Sequence[Stretch]) -> list[Stretch]:
    """The time that stretches leave out: before, between and behind them."""
    edges = [(0.0, 0.0), *merged(listed), (np.inf, np.inf)]
    return [(a[1], b[0]) for a, b in pairwise(edges) if b[0] > a[1]]


def with_uem(
    references: Mapping[str, Transcript], listed: Uem
) -> tuple[dict[str, Transcript], list[str]]:
    """Take stretches that a UEM does not list out of scoring; sessions that it does not name stay whole (md-eval).

    Differs from md-eval: all channels of a session are scored together, so that the stretches of all
    channels of a UEM count.

    Returns:
        The references, and warnings: names on one side only, channels beside the first.
    """
    marked = dict(references)
    for name in references.keys() & listed.keys():
        one = references[name]
        unlisted = outside(list(chain.from_iterable(listed[name].values())))
        marked[name] = replace(one, unscored=tuple(sorted([*one.unscored, *unlisted])))
    notes = [
        f"the UEM does not name {name!r}: it is scored whole"
        for name in references
        if name not in listed
    ]
    notes += [
        f"the UEM names {name!r}, which has no reference"
        for name in listed
        if name not in references
    ]
    notes += [
        f"the UEM lists stretches of {name!r} by channel ({', '.join(channels)}): transcripts have no "
        "channels, and all of these stretches are scored"
        for name, channels in listed.items()
        if name in references and (len(channels) > 1 or not channels.keys() <= _FIRST_CHANNEL)
    ]
    return marked, notes
