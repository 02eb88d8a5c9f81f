"""Words, segments and transcripts: who said what, and when. Pure data, no reading or writing.

Times are float seconds from the start of the recording. Segments may overlap in time: two people may
speak at once. `Transcript` keeps them in order of start, end, speaker.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import attrgetter
from pathlib import PurePath
from typing import Any

from .errors import FormatError

GENDERS = ("female", "male", "unknown")
WORD_SLACK_S = 0.001
"""A word may stick out of its segment so far: files round the times of both to milliseconds."""

_SPOKEN = re.compile(r"\w")
_EPSILON_S = 1e-6
_IN_ORDER = attrgetter("start_s", "end_s", "speaker")


@dataclass(frozen=True, slots=True)
class Confidence:
    """Mean probability the model gave to the tokens of one part of a segment, each in 0..1.

    `None` where the engine reports no probabilities.
    """

    words: float | None = None
    speaker: float | None = None
    times: float | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a segment, and when it is said.

    Attributes:
        text: without white space; punctuation may belong to it.
        start_s: start in seconds of the recording.
        end_s: end in seconds of the recording, not before `start_s`.
        confidence: of this word, where known.

    Raises:
        FormatError: times are not finite, negative or reversed; the confidence is not finite; the
            text is empty or holds white space.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None

    def __post_init__(self) -> None:
        fault = None
        if self.text.split() != [self.text]:
            fault = "expected one word, without white space"
        elif not 0 <= self.start_s <= self.end_s < math.inf:
            fault = _times_fault(self.start_s, self.end_s, "0 <= start <= end")
        elif self.confidence is not None and not math.isfinite(self.confidence):
            fault = f"confidence {self.confidence} is not a finite number"
        if fault is not None:
            raise FormatError(f"word {self.text!r} [{self.start_s}, {self.end_s}]: {fault}")


def _times_fault(start_s: float, end_s: float, expected: str) -> str:
    finite = math.isfinite(start_s) and math.isfinite(end_s)
    return f"expected {expected}" if finite else "times must be finite numbers of seconds"


def recording_name(path: str | os.PathLike[str]) -> str:
    """The name of a recording by its file: without folder and suffix.

    Bytes of a name that are not UTF-8, which no text file can hold, are written as in an address: `caf%E9`.
    """
    return re.sub(
        "[\udc80-\udcff]",
        lambda match: f"%{ord(match[0]) - 0xDC00:02X}",
        PurePath(path).stem,
    )


def find_words(text: str, words: Sequence[Word]) -> tuple[tuple[int, int], ...] | None:
    """Return where words stand in a text, as first and last + 1 character of each.

    `None` where they are not the words of the text: all of them, in their order, written as there.
    Only white space and punctuation may stand between them.
    """
    places = []
    reached = 0
    for word in words:
        start = text.find(word.text, reached)
        if start < 0 or _SPOKEN.search(text, reached, start):
            return None
        reached = start + len(word.text)
        places.append((start, reached))
    return None if _SPOKEN.search(text, reached) else tuple(places)


def words_fault(words: Sequence[Word], text: str, start_s: float, end_s: float) -> str | None:
    """Say why a segment of this text and these times cannot have these words; `None` if it can."""
    for word, after in pairwise(words):
        if after.start_s < word.start_s:
            return (
                f"word {after.text!r} starts at {after.start_s} s, before {word.text!r} at "
                f"{word.start_s} s; expected words in order of start"
            )
    slack_s = WORD_SLACK_S + _EPSILON_S
    for word in words:
        if word.start_s < start_s - slack_s or word.end_s > end_s + slack_s:
            return f"word {word.text!r} [{word.start_s}, {word.end_s}] lies outside the segment"
    if find_words(text, words) is None:
        spoken = " ".join(word.text for word in words)
        return f"the words {spoken[:80]!r} are not those of the text {text[:80]!r}"
    return None


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of speech of one speaker.

    Attributes:
        speaker: label, unique for one person within a transcript (`Speaker1`, or a name).
        start_s: start in seconds of the recording.
        end_s: end in seconds of the recording, after `start_s`.
        text: the words, on one line, without leading or trailing space. May be empty.
        gender: one of `GENDERS`.
        confidence: from token probabilities, where known.
        words: the words of the text (`find_words`) with their times, in order of start, inside the
            segment within `WORD_SLACK_S`; `None` where their times are not known. What changes the
            text or the times of a segment sets them anew, or `None`.
        choices: of a reference that accepts other words, too: one part of the text after the other,
            each with what may be said there, the text's own words first. `""` is nothing at all;
            `None` is nothing in place of an optional word, which then counts as said (sclite -D).

    Raises:
        FormatError: times are not finite, negative or reversed; the gender is not in `GENDERS`;
            the speaker is empty; speaker or text hold a line break; words contradict text or times;
            choices are not of the text.
    """

    speaker: str
    start_s: float
    end_s: float
    text: str
    gender: str = "unknown"
    confidence: Confidence = Confidence()
    words: tuple[Word, ...] | None = None
    choices: tuple[tuple[str | None, ...], ...] | None = None

    def __post_init__(self) -> None:
        fault = None
        if not 0 <= self.start_s < self.end_s < math.inf:
            fault = _times_fault(self.start_s, self.end_s, "0 <= start < end")
        elif self.gender not in GENDERS:
            fault = f"gender {self.gender!r} is not one of {', '.join(GENDERS)}"
        elif not self.speaker.strip() or "\n" in self.speaker or "\r" in self.speaker:
            fault = "expected a speaker label on one line"
        elif "\n" in self.text or "\r" in self.text:
            fault = "the text holds a line break; one segment is one line"
        elif self.words is not None:
            fault = words_fault(self.words, self.text, self.start_s, self.end_s)
        if fault is None and self.choices is not None:
            said = "".join(part[0] or "" for part in self.choices)
            if "".join(said.split()) != "".join(self.text.split()):
                fault = f"the first choices {said[:80]!r} are not the text"
        if fault is not None:
            where = f"segment of {self.speaker!r} [{self.start_s}, {self.end_s}]"
            raise FormatError(f"{where}: {fault}")

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Missing:
    """A stretch of the recording that was not transcribed, and why."""

    start_s: float
    end_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """The transcript of one recording.

    Attributes:
        recording: name of the recording, used as session or file id by `formats`.
        duration_s: length of the recording in seconds.
        segments: ordered by start, end, speaker; overlap is allowed.
        missing: stretches that were not transcribed, each with its reason.
        unscored: stretches `(start, end)` in seconds that a reference takes out of scoring (STM's
            `ignore_time_segment_in_scoring`, RTTM's NOSCORE, all that a UEM leaves out); the last may
            end at infinity. One of no length is a border without speech, which has a collar.
        warnings: for the reader of this transcript, one sentence each.
        traces: one per chunk: all that the model saw and wrote (JSON-ready mappings).
        info: model, profile, engine, timing, command, as needed to repeat it (JSON-ready).
    """

    recording: str
    duration_s: float
    segments: tuple[Segment, ...] = ()
    missing: tuple[Missing, ...] = ()
    warnings: tuple[str, ...] = ()
    traces: tuple[Mapping[str, Any], ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    unscored: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(sorted(self.segments, key=_IN_ORDER)))

    @property
    def speakers(self) -> tuple[str, ...]:
        """Speaker labels in order of first appearance."""
        return tuple(dict.fromkeys(segment.speaker for segment in self.segments))

    @property
    def genders(self) -> dict[str, str]:
        """The gender of each speaker: the one that covers most of their speech, `unknown` last."""
        seconds: dict[str, dict[str, float]] = {}
        for segment in self.segments:
            of_speaker = seconds.setdefault(segment.speaker, {})
            known = segment.gender != "unknown"
            of_speaker[segment.gender] = of_speaker.get(segment.gender, 0.0) + (
                segment.duration_s if known else 0.0
            )
        return {
            speaker: max(sorted(of_speaker), key=lambda gender: of_speaker[gender])
            for speaker, of_speaker in seconds.items()
        }

    @property
    def text(self) -> str:
        """The words of all segments in order of start, joined by spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    def with_segments(self, segments: Sequence[Segment]) -> "Transcript":
        return replace(self, segments=tuple(segments))
