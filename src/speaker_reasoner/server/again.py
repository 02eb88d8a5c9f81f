"""A chunk that is transcribed again: labels of its speakers, and its place in the document. Pure.

Lines that users corrected stay, unless the operation says otherwise, and new lines in their place are left out; so is
a new line with the words of a line that a user deleted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from ..formats.words import NATIVE, parse_word_rows, word_rows
from ..transcript import Confidence, Missing, Segment, Transcript, Word
from .lines import CorrectedLine, Document, channel_of
from .openai import confidence_body


def labels_heard_again(document: Document, chunk: int, fresh: Transcript) -> dict[str, str]:
    """Return the document's labels for the speakers of a chunk that was transcribed again.

    Enrolled speakers keep their labels. The others get the labels that only lines of this chunk had, in order of
    appearance, then new ones. With separate channels, all lines of a channel are of one speaker.
    """
    channel = channel_of(document.transcript, chunk)
    same = {t["chunk"] for t in document.transcript.traces if t.get("channel") == channel}
    theirs = Counter(line.segment.speaker for line in document.lines if line.chunk in same)
    if channel is not None and theirs:
        return dict.fromkeys(fresh.speakers, theirs.most_common(1)[0][0])
    enrolled = fresh.info.get("voices", ())
    elsewhere = {line.segment.speaker for line in document.lines if line.chunk != chunk}
    own = [line.segment.speaker for line in document.ordered if line.chunk == chunk]
    free = [label for label in dict.fromkeys(own) if label not in elsewhere]
    taken = {*document.met, *document.names.values()}
    new = (label for n in count(1) if (label := f"Speaker{n}") not in taken)
    labels = {}
    for speaker in fresh.speakers:
        known = document.label(speaker) if speaker in enrolled else None
        labels[speaker] = known or (free.pop(0) if free else next(new))
    return labels


def heard_again(lines: Sequence[CorrectedLine], fresh: Transcript, *, keep: bool) -> dict[str, Any]:
    """Return the operation that replaces a chunk by its new transcript.

    Args:
        lines: of the new transcript, with labels of the document.
        fresh: the new transcript, with one trace, under the chunk's number.
        keep: whether lines that users corrected stay as they are.
    """
    [trace] = fresh.traces
    return {
        "op": "heard",
        "keep": keep,
        "chunk": trace["chunk"],
        "lines": [
            {
                "id": line.id,
                "turn": line.turn,
                "speaker": line.segment.speaker,
                "gender": line.segment.gender,
                "start_s": line.segment.start_s,
                "end_s": line.segment.end_s,
                "text": line.segment.text,
                "confidence": confidence_body(line.segment),
                "words": None
                if line.segment.words is None
                else word_rows(line.segment.words, NATIVE),
            }
            for line in lines
        ],
        "missing": [[gap.start_s, gap.end_s, gap.reason] for gap in fresh.missing],
        "trace": trace,
    }


def _words(rows: Any) -> tuple[Word, ...] | None:
    """Read the words of a new line; corrections of older versions have none."""
    return None if rows is None else parse_word_rows(rows, NATIVE, "words")


def put_in_place(document: Document, operation: Mapping[str, Any]) -> Document:
    chunk, trace = operation["chunk"], operation["trace"]
    start_s, end_s = trace["start_s"], trace["start_s"] + trace["duration_s"]
    own = [line for line in document.lines if line.chunk == chunk]
    kept = [line for line in own if line.corrected] if operation.get("keep") else []
    gone = (
        [line for line in document.deleted if line.chunk == chunk] if operation.get("keep") else []
    )
    lines = [line for line in document.lines if line.chunk != chunk] + kept
    for row in operation["lines"]:
        segment = Segment(
            row["speaker"],
            row["start_s"],
            row["end_s"],
            row["text"],
            row["gender"],
            Confidence(**row["confidence"]),
            _words(row.get("words")),
        )
        if not any(_same(segment, line.segment) for line in kept) and not any(
            segment.text == line.segment.text and _same(segment, line.segment) for line in gone
        ):
            lines.append(CorrectedLine(row["id"], segment, chunk, row["turn"]))
    was = document.transcript
    missing = [gap for gap in was.missing if not start_s <= gap.start_s < end_s]
    missing += [Missing(*gap) for gap in operation["missing"]]
    transcript = replace(
        was,
        missing=tuple(sorted(missing, key=lambda gap: gap.start_s)),
        traces=tuple(trace if old["chunk"] == chunk else old for old in was.traces),
    )
    return replace(document, transcript=transcript, lines=tuple(lines))


def _same(fresh: Segment, kept: Segment) -> bool:
    """Return whether a new line is one that users have corrected: they share most of their time, or it lies in a longer
    one of the same speaker."""
    shared_s = max(0.0, min(fresh.end_s, kept.end_s) - max(fresh.start_s, kept.start_s))
    together_s = fresh.duration_s + kept.duration_s - shared_s
    if shared_s >= 0.5 * together_s:
        return True
    return fresh.speaker == kept.speaker and shared_s >= 0.8 * fresh.duration_s
