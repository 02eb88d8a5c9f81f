"""Rows of annotation, and the counts of their faults.

A row keeps its file and line until it becomes a segment, so that each row that is dropped or changed
can be reported with its place.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError, FormatError
from ...formats.ctm import join_words
from ...transcript import Segment, Transcript

SLACK_S = 0.5
"""A segment that ends past the recording by at most this is clipped to it; by more, it is dropped."""

_SHORTEST_S = 0.01
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One annotated stretch of speech as its file has it: times may be reversed, text may be empty.

    Attributes:
        at: file and line, for messages.
        session: name of the recording.
        speaker: label within the corpus.
        gender: `female`, `male` or `unknown`.
        start_s, end_s: seconds of the recording, not negative.
        text: with the corpus's tags.
    """

    at: str
    session: str
    speaker: str
    gender: str
    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class CorpusRecording:
    """A recording of a corpus with its annotation.

    Attributes:
        split: `train`, `dev`, `test` or `all`.
        name: unique within the split.
        audio: its file; several are mixed.
        rows: the annotation, in any order.
    """

    split: str
    name: str
    audio: tuple[Path, ...]
    rows: tuple[AnnotationRow, ...]


@dataclass(slots=True)
class Notes:
    """Counts of dropped and changed items by reason, with the first few places of each.

    Attributes:
        strict: raise at the first fault instead of counting it.
    """

    strict: bool = False
    dropped: dict[str, list[str]] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)
    tags: Counter[str] = field(default_factory=Counter)
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def drop(self, reason: str, message: str, *, fault: bool = True) -> None:
        """Count an item that is dropped.

        Args:
            reason: the reason it is counted under.
            message: file, line, and what is wrong there.
            fault: whether it is an error of the corpus; `strict` stops at errors only.

        Raises:
            DataError: it is a fault, and `strict` is set.
        """
        if self.strict and fault:
            raise DataError(f"{message} ({reason}); without --strict it is left out")
        self._count("dropped", self.dropped, reason, message)

    def drop_error(self, error: FormatError) -> None:
        """Count a row or file that could not be read."""
        message = str(error)
        reason = "broken annotation"
        if "before it starts" in message:
            reason = "end before start"
        elif re.search(r"unknown encoding|: not \S+ text \(byte", message):
            reason = "unknown encoding"
        self.drop(reason, message)

    def change(self, reason: str, message: str) -> None:
        """Count an item that is kept, but changed."""
        self._count("changed", self.changed, reason, message)

    def to_json(self, kind: str) -> dict[str, Any]:
        """Counts and first places of `dropped` or `changed`."""
        places: dict[str, list[str]] = getattr(self, kind)
        return {
            reason: {"count": self._counts[kind, reason], "first": first}
            for reason, first in places.items()
        }

    def _count(self, kind: str, places: dict[str, list[str]], reason: str, message: str) -> None:
        first = places.setdefault(reason, [])
        if len(first) < _SHOWN:
            first.append(message)
        self._counts[kind, reason] += 1


@dataclass(frozen=True, slots=True)
class Cleaning:
    """The changes made to the text.

    Attributes:
        tags: a corpus's marks that are no words; each is replaced by a space, and counted.
        unspaced: remove spaces between Chinese (and Japanese) characters, which some references put
            there for scoring tools.
    """

    tags: re.Pattern[str] | None = None
    unspaced: bool = False

    def __call__(self, text: str, notes: Notes) -> str:
        if self.tags is not None:
            notes.tags.update(self.tags.findall(text))
            text = self.tags.sub(" ", text)
        words = text.split()
        return join_words(words) if self.unspaced else " ".join(words)

    def to_json(self) -> dict[str, Any]:
        return {
            "white_space": "runs become one space, none at the ends",
            "spaces_between_chinese_characters": "removed" if self.unspaced else "kept",
            "tags_replaced_by_a_space": self.tags.pattern if self.tags else None,
            "case": "kept",
            "punctuation": "kept",
        }


def transcript(
    recording: CorpusRecording,
    duration_s: float,
    cleaning: Cleaning,
    notes: Notes,
    *,
    words: bool = True,
) -> Transcript:
    """Turn usable rows into segments; count the others.

    Args:
        words: drop rows without words; otherwise all rows are segments without any.

    Raises:
        DataError: a row is wrong, and the notes are strict.
    """
    return Transcript(
        recording.name,
        duration_s,
        tuple(_segments(recording.rows, duration_s, cleaning, notes, words)),
    )


def _segments(
    rows: Iterable[AnnotationRow],
    duration_s: float,
    cleaning: Cleaning,
    notes: Notes,
    words: bool,
) -> Iterable[Segment]:
    seen: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        here = f"{row.at}: {row.speaker} [{row.start_s:g}, {row.end_s:g}]"
        if row.end_s < row.start_s:
            notes.drop("end before start", f"{here}: ends before it starts")
            continue
        if row.end_s - row.start_s < _SHORTEST_S:
            notes.drop("no length", f"{here}: shorter than {_SHORTEST_S:g} s")
            continue
        end_s = row.end_s
        if end_s > duration_s:
            if row.start_s + _SHORTEST_S > duration_s or end_s > duration_s + SLACK_S:
                length = f"the recording's {duration_s:.3f} s"
                notes.drop("beyond the audio", f"{here}: ends after {length}")
                continue
            notes.change("end clipped to the audio", f"{here}: recording of {duration_s:.3f} s")
            end_s = duration_s
        text = cleaning(row.text, notes) if words else ""
        if words and not text:
            empty = not row.text.strip()
            reason = "empty text" if empty else "nothing but tags"
            notes.drop(reason, f"{here}: {row.text.strip() or 'no words'}", fault=empty)
            continue
        times = row.start_s, row.end_s
        known = seen[row.speaker, text]
        if any(_mostly_over(times, other) for other in known):
            notes.drop("duplicate", f"{here}: the same speaker and text at these times once more")
            continue
        known.append(times)
        try:
            yield Segment(row.speaker, row.start_s, end_s, text, row.gender)
        except FormatError as error:
            notes.drop("broken annotation", f"{row.at}: {error}")


def _mostly_over(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether stretches overlap by half of the shorter one at least."""
    shared_s = min(one[1], other[1]) - max(one[0], other[0])
    return shared_s >= min(one[1] - one[0], other[1] - other[0]) / 2
