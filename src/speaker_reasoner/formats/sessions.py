"""Helpers of the parsers: numbers from fields, transcripts from rows, labels that fit a format.

Every error names its place, `at`: the file with its line, or the entry of a JSON list.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any, NoReturn

from ..errors import FormatError
from ..transcript import Confidence, Segment, Transcript, Word, words_fault
from .changes import MARK
from .words import WordKeys, parse_word_rows

UNKNOWN_SPEAKER = "unknown"
"""Label of segments whose file names no speaker."""
CHANGED = (
    f"times a mark ('>>', [SPEAKER_TURN]) says that another person speaks, without a name: all of them are "
    f"{UNKNOWN_SPEAKER!r}, and scores of speakers take them for one person"
)

_MILLISECOND = Decimal("0.001")
_LATEST_S = Decimal(10**12)
_TIME_TYPES = str | int | float | Decimal
_NO_FIT = (
    "segments have words that contradict their text or times: their words' times were not read"
)
_GENDER_WORDS = {"f": "female", "adult_female": "female", "m": "male", "adult_male": "male"}


class Sessions:
    """The segments of one file, gathered by session, sessions in order of first appearance.

    Files written elsewhere may hold what a `Segment` cannot: a segment of zero length is given one
    millisecond if it has words, and left out, being nobody's speech, if not. Whatever is changed or
    left out is counted, and the counts become warnings of the transcript.
    """

    def __init__(self) -> None:
        self._segments: dict[str, list[Segment]] = {}
        self._genders: dict[tuple[str, str], str] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._durations: dict[str, float] = {}
        self._unscored: dict[str, list[tuple[float, float]]] = {}

    def open(self, session: str, duration_s: Decimal = Decimal(0)) -> None:
        """Note that a session exists, with or without segments."""
        self._segments.setdefault(session, [])
        if duration_s:
            self._durations[session] = max(self._durations.get(session, 0.0), float(duration_s))

    def add(
        self,
        session: str,
        at: str,
        *,
        speaker: str,
        start_s: Decimal,
        end_s: Decimal,
        text: str = "",
        gender: str = "unknown",
        confidence: Confidence = Confidence(),  # noqa: B008 - frozen
        words: Sequence[Word] | None = None,
        choices: tuple[tuple[str | None, ...], ...] | None = None,
    ) -> None:
        """Add a segment; text on several lines becomes one line.

        Words that contradict text or times are left out and counted.

        Raises:
            FormatError: times are negative or reversed, or the speaker is empty.
        """
        if end_s < start_s:
            raise FormatError(f"{at}: ends at {end_s} s, before it starts at {start_s} s")
        if end_s == start_s:
            if not text.strip():
                self.count(session, "segments had neither length nor words and were left out")
                self.leave_out(
                    session, at, start_s, end_s
                )  # its border keeps a collar, as in md-eval
                return
            end_s += _MILLISECOND
            self.count(session, "segments had no length and were given 1 ms")
        said = text.strip()
        if "\n" in said or "\r" in said:
            said = " ".join(line.strip() for line in said.replace("\r", "\n").split("\n")).strip()
        times = float(start_s), float(end_s)
        timed = tuple(words) if words else None
        try:
            segment = Segment(speaker, *times, said, gender, confidence, timed, choices)
        except FormatError as error:
            if not timed or words_fault(timed, said, *times) is None:
                raise FormatError(f"{at}: {error}") from error
            self.count(session, _NO_FIT)
            try:
                segment = Segment(speaker, *times, said, gender, confidence, None, choices)
            except FormatError as other:
                raise FormatError(f"{at}: {other}") from other
        self._segments.setdefault(session, []).append(segment)

    def whose(self, session: str, what: str, speaker: str) -> str:
        """The label of words whose speaker a file may not name, with what is to be told of it counted.

        Args:
            session: of the words.
            what: what the file is made of, in the plural: `cues`.
            speaker: a name; empty for none, `changes.MARK` for another person without a name.
        """
        if speaker and speaker != MARK:
            return speaker
        self.count(session, f"{what} name no speaker and were given to {UNKNOWN_SPEAKER!r}")
        if speaker:
            self.count(session, CHANGED)
        return UNKNOWN_SPEAKER

    def words(self, session: str, rows: object, keys: WordKeys, at: str) -> tuple[Word, ...] | None:
        """Read words from JSON of others; those that are not as ours are left out and counted."""
        if rows is None:
            return None
        try:
            return parse_word_rows(rows, keys, at)
        except FormatError:
            self.count(
                session, f"segments have words without {', '.join(keys)}, which were not read"
            )
            return None

    def set_gender(self, session: str, speaker: str, gender: str) -> None:
        """State a speaker's gender; it fills in for segments that have none of their own.

        The speaker need not speak.
        """
        self._segments.setdefault(session, [])
        self._genders[session, speaker] = gender

    def leave_out(self, session: str, at: str, start_s: Decimal, end_s: Decimal) -> None:
        """Take a stretch of time out of scoring.

        Raises:
            FormatError: it ends before it starts.
        """
        if end_s < start_s:
            raise FormatError(f"{at}: ends at {end_s} s, before it starts at {start_s} s")
        self.open(session)
        self._unscored.setdefault(session, []).append((float(start_s), float(end_s)))

    def count(self, session: str, what: str, times: int = 1) -> None:
        """Count an irregularity that the reader should know of, reported as `<count> <what>`."""
        self._segments.setdefault(session, [])
        if times:
            self._counts.setdefault(session, Counter())[what] += times

    def transcripts(self) -> list[Transcript]:
        """Return one transcript per session; it lasts at least to the end of its last segment."""
        transcripts = []
        for session, rows in self._segments.items():
            segments = tuple(rows)
            if self._genders:
                segments = tuple(self._with_gender(session, segment) for segment in rows)
            unscored = tuple(sorted(self._unscored.get(session, ())))
            ends = [segment.end_s for segment in segments] + [end_s for _, end_s in unscored]
            transcript = Transcript(
                recording=session,
                duration_s=max([self._durations.get(session, 0.0), *ends]),
                segments=segments,
                unscored=unscored,
            )
            for what, times in _doubtful(transcript):
                self.count(session, what, times)
            warnings = (f"{n} {what}" for what, n in self._counts.get(session, {}).items())
            transcripts.append(replace(transcript, warnings=tuple(warnings)))
        return transcripts

    def _with_gender(self, session: str, segment: Segment) -> Segment:
        if segment.gender != "unknown":
            return segment
        gender = self._genders.get((session, segment.speaker), "unknown")
        return segment if gender == "unknown" else replace(segment, gender=gender)


def _doubtful(transcript: Transcript) -> Iterator[tuple[str, int]]:
    """Yield warnings about segments that are read as they stand, but are probably mistakes, with their counts."""
    twice = sum(
        one.start_s == other.start_s
        and (one.end_s, one.speaker, one.text) == (other.end_s, other.speaker, other.text)
        for one, other in pairwise(transcript.segments)
    )
    yield "segments come again with the same speaker, times and words: they were read again", twice
    speakers = transcript.speakers
    same = len(speakers) - len({"".join(label.split()).casefold() for label in speakers})
    yield (
        "speakers have the label of another one but for capitals or spaces: they count as others",
        same,
    )


def parse_seconds(value: object, at: str, what: str) -> Decimal:
    """Return a time field, number or text, as exact seconds.

    Raises:
        FormatError: it is no finite number, or negative.
    """
    if isinstance(value, _TIME_TYPES) and not isinstance(value, bool):
        try:
            seconds = Decimal(str(value))
            if 0 <= seconds <= _LATEST_S:
                return seconds
            negative = seconds < 0 and seconds.is_finite()
        except (ArithmeticError, ValueError):
            negative = False
        if negative:
            raise FormatError(f"{at}: {what} is negative: {value!r}")
    raise FormatError(f"{at}: expected {what} in seconds, got {value!r}")


def parse_gender(word: str) -> str:
    """Return the gender that a file's word for it means; `unknown` for any other word."""
    gender = _GENDER_WORDS.get(word.lower(), word.lower())
    return gender if gender in ("female", "male") else "unknown"


def load_json(text: str, where: str, line: int | None = None, *, constants: bool = False) -> Any:
    """Parse JSON; `line` is the number of a text of one line.

    Args:
        constants: whether `NaN` and infinities, which are not JSON, are numbers, too.

    Raises:
        FormatError: with the line where the text stops being JSON.
    """
    try:
        return (_WITH_CONSTANTS if constants else _STRICT).decode(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"{where}:{line or error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        at = where if line is None else f"{where}:{line}"
        raise FormatError(f"{at}: not usable JSON: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant)
_WITH_CONSTANTS = json.JSONDecoder()


def unique_labels(labels: Iterable[str], fit: Callable[[str], str]) -> dict[str, str]:
    """Fit labels into a format that cannot hold all characters, without merging two speakers.

    A label that `fit` makes equal to an earlier one gets `_2`, `_3` and so on. Labels that fit as
    they are keep their form.
    """
    wanted = list(dict.fromkeys(labels))
    fitted = {label: label for label in wanted if fit(label) == label}
    taken = set(fitted.values())
    for label in wanted:
        if label in fitted:
            continue
        base = candidate = fit(label)
        number = 2
        while candidate in taken:
            candidate, number = f"{base}_{number}", number + 1
        taken.add(candidate)
        fitted[label] = candidate
    return fitted


def token(label: str) -> str:
    """Fit a label into one field of a line whose fields are separated by white space."""
    return "_".join(label.split()) or "_"


def file_token(recording: str) -> str:
    """Fit a recording's name into the first field, where `;` and `#` would begin a comment."""
    name = token(recording)
    return f"_{name[1:]}" if name[0] in ";#" else name
