"""Turns of services as transcripts: each checked, counted and given a speaker."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ..errors import FormatError
from ..transcript import Transcript, Word
from . import service_rows as rows
from .changes import MARK, marks
from .cues import SOUND, SOUNDS, spoken_s
from .service_rows import ServiceRow
from .sessions import CHANGED, Sessions, parse_seconds

_LABEL_TYPES, _CONFIDENCE_TYPES = str | int | None, int | float | str
_NO_TIMES = "segments have words without times: their words' times were not read"
_OPEN = "segments have no end: they last to the next one's start, the last one as its words take at 150 a minute"
SLOWEST_S = 30
"""Seconds a word, longer than people pause inside a turn: whole numbers of which a word takes more are no seconds
(assumed)."""
_NO_WORDS = "segments have neither words nor a speaker and were left out"


def gather(
    rows_of: Iterable[ServiceRow], recording: str, where: str, duration: object = None
) -> Transcript:
    """One transcript of turns as a service has them.

    Args:
        rows_of: turns in any order.
        recording: its name.
        where: place of all, for messages.
        duration: seconds that the recording lasts, where they are known.

    Raises:
        FormatError: a turn lacks times, or they are none; a speaker is no label.
    """
    sessions = Sessions()
    sessions.open(recording, parse_seconds(duration or 0, where, "duration"))
    listed_rows = list(rows_of)
    listed_rows = _ended(listed_rows, sessions, recording)
    _refuse_milliseconds(listed_rows, where)
    for row in listed_rows:
        add_row(sessions, recording, row)
    return sessions.transcripts()[0]


def _ended(rows_of: Sequence[ServiceRow], sessions: Sessions, recording: str) -> list[ServiceRow]:
    """Rows in which one without an end lasts to the next one's start, the last one as its words take."""
    ended = []
    for row, after in zip(rows_of, [*rows_of[1:], None], strict=False):
        if row.open:
            end_s = rows.plus(row.start_s, spoken_s(row.text)) if after is None else after.start_s
            row = replace(row, end_s=end_s)
            sessions.count(recording, _OPEN)
        ended.append(row)
    return ended


def _refuse_milliseconds(rows_of: Sequence[ServiceRow], where: str) -> None:
    """Times that are whole numbers, at which a word takes half a minute, are no seconds.

    Raises:
        FormatError: they look like milliseconds.
    """
    said = [row for row in rows_of if row.text.strip()]
    times: list[Any] = [time for row in said for time in (row.start_s, row.end_s)]
    if not said or not all(map(_is_whole, times)) or len(set(map(type, times))) > 1:
        return
    length = sum(map(int, times[1::2])) - sum(map(int, times[::2]))
    words = sum(word_count(row.text) for row in said)
    if length > SLOWEST_S * words:
        raise FormatError(
            f"{where}: expected times in seconds, got whole numbers at which a word takes "
            f"{length / words:.0f} s; milliseconds? Divide them by 1000"
        )


def word_count(text: str) -> int:
    """Return about how many words a text has, also where no spaces are written."""
    return max(len(text.split()), len(text) // 6)


def _is_whole(time: object) -> bool:
    return not isinstance(time, bool) and (
        isinstance(time, int) or (isinstance(time, float) and time.is_integer())
    )


def add_row(sessions: Sessions, session: str, row: ServiceRow) -> None:
    """Add a turn to a session.

    Raises:
        FormatError: it lacks times, or they are none; its speaker is no label.
    """
    speaker = row.speaker
    if isinstance(speaker, float):  # of a table: 1.0 for 1, NaN for none
        speaker = None if speaker != speaker else int(speaker) if speaker.is_integer() else speaker
    if isinstance(speaker, bool) or not isinstance(speaker, _LABEL_TYPES):
        raise FormatError(f"{row.at}: expected the speaker as text or a number, got {speaker!r}")
    label = "" if speaker is None else str(speaker).strip()
    if not label and MARK in row.text:
        sessions.count(session, CHANGED, marks(row.text))
    if not label and not row.text.strip():
        sessions.count(session, _NO_WORDS)
        return
    if SOUND.search(row.text):
        sessions.count(session, f"segments {SOUNDS}")
    start_s = parse_seconds(row.start_s, row.at, "start")
    end_s = parse_seconds(row.end_s, row.at, "end")
    words: list[Word] = []
    try:
        for word in row.words:
            begins, ends = _word_s(word.start_s, row.at), _word_s(word.end_s, row.at)
            known = _confidence(word.confidence)
            words += [Word(part, begins, ends, known) for part in word.text.split()]
    except FormatError:
        words = []
        sessions.count(session, _NO_TIMES)
    sessions.add(
        session,
        row.at,
        speaker=sessions.whose(session, "segments", label),
        start_s=start_s,
        end_s=max(end_s, start_s) if end_s - start_s > Decimal("-0.001") else end_s,
        text=row.text,
        words=words,
    )


def _word_s(value: object, at: str) -> float:
    """A time of a word in seconds; most are such numbers already.

    Raises:
        FormatError: it is none.
    """
    usual = isinstance(value, float) and 0 <= value <= 10**12
    return value if usual else float(parse_seconds(value, at, "word"))  # type: ignore[return-value]


def _confidence(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, _CONFIDENCE_TYPES):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None  # whatever else it is, it is no probability
