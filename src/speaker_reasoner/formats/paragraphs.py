"""Texts with times for people, as services and programs write them. Read, not written.

    Ana Moe  0:00                          Otter, Teams
    Speaker 1 (00:04):                     Rev
    [00:00.52 - 00:03.40] Ana: hello       this package's `txt`
    [00:00.000 --> 00:03.400]  hello       Whisper, whisper.cpp
    [0.00s -> 3.40s] hello                 faster-whisper
    [00:04] Ana: hello                     Fireflies, Descript
    Ana (00:04): hello                     minutes by hand, Trint, Sonix (`Ana: [00:04] hello`)
    0:01 - 0:03                            the same, with an end

Lines without a time belong to the paragraph before. Most paragraphs have no ends; warnings of the transcript report how
many were estimated.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

from ..errors import FormatError
from ..transcript import Transcript, recording_name
from .captions import parse_caption
from .cues import SOUND, SOUNDS, Cue, parse_clock
from .names import is_name, name_speakers
from .sessions import Sessions

_TIME = r"(?:\d{1,3}:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_RANGED = re.compile(rf"(?:\[|\()({_TIME})\s*(?:-->|->|-|–)\s*({_TIME})(?:\]|\):?)\s*(.*)")
_BARE_RANGE = re.compile(rf"({_TIME})\s*(?:-->|->|-|–|—|to)\s*({_TIME})(?:\s+(.*))?")
_RANGED_S = re.compile(r"\[(\d+\.\d+)s -> (\d+\.\d+)s\]\s*(.*)")
_STAMPED = re.compile(rf"(?:\[({_TIME})\]|\(({_TIME})\):?)(?:\s+(.*))?")
_BARE = re.compile(rf"({_TIME})(?:\s+(.*))?")
_HEADED = re.compile(rf"(\S.*?)(?:(\s+)({_TIME})|\s*\(({_TIME})\):?)\s*")
_NAMED = re.compile(
    rf"([^:\[(]*[^:\[(\s])(?:\s*(?:\[({_TIME})\]|\(({_TIME})\))\s*:|:\s*(?:\[({_TIME})\]|\(({_TIME})\))|\s*\[({_TIME})\])"
    r"\s+(\S.*)"
)
_ALONE = re.compile(rf"({_TIME})|\[({_TIME})\]|\(({_TIME})\)")
_BOLD = re.compile(
    r"(\*\*|__)([^*_:：]+)(?:([:：])\1|\1([:：]))"
)  # of Markdown: **Ana:** or **Ana**:
_OF_DAY = re.compile(r"\[[^\[\]]+\]\s+\d{1,2}:\d{2}:\d{2}")
_NOTE = re.compile(r"(?:Not transcribed|Warning): .*|Transcribed by https?://\S+")
_NO_SPEECH = "(no speech)"
_LONGEST, _LONGEST_NAME = 120, 6  # characters of a heading, words of a name in it: assumed
_LATE_S, _OF_DAY_S = 3600, 5 * 3600  # of the first line: assumed
_WORD_S = Decimal("0.4")  # assumed: 150 words a minute


@dataclass(slots=True)
class _Paragraph:
    """The text from one time to the next.

    Attributes:
        at: file and line of the time.
        start_s, end_s: in seconds; without an end `None`.
        speaker: named by a heading; empty for none.
        lines: of its text.
    """

    at: str
    start_s: Decimal
    end_s: Decimal | None = None
    speaker: str = ""
    lines: list[str] = field(default_factory=list)


def is_paragraphs(text: str) -> bool:
    """Return whether a text has times as this module reads them.

    One line that begins with a time in brackets is enough; of lines that end with one, or begin with one
    without brackets, it takes two.
    """
    lines = _headed(text.splitlines())
    if any(p.fullmatch(line) for line in lines for p in (_RANGED, _RANGED_S, _STAMPED)):
        return True
    if next(filter(None, lines), "") == _NO_SPEECH:
        return True
    return any(map(_OF_DAY.fullmatch, lines)) or sum(map(_may_open, lines)) >= 2


def parse_paragraphs(text: str, where: str) -> list[Transcript]:
    """Parse a text with times; one transcript, named after the file.

    A heading's name is the speaker, also of paragraphs with a time alone that follow. In lines, what
    precedes a colon is one where it is a name (`names.name_speakers`). A paragraph without an end lasts
    to the next later start, the last one as its words take at 150 a minute; several speakers under one
    time share it by the length of their words. All of that, and what was passed over before the first
    time, is counted in the transcript's warnings.

    Raises:
        FormatError: no line has a time, times go back, or are of the day (captions that Zoom saved).
    """
    sessions, session = Sessions(), recording_name(where)
    sessions.open(session)
    rows = _read(text, where, sessions, session)
    if not rows and text.strip() != _NO_SPEECH:
        raise FormatError(f"{where}: expected lines such as 'Ana  0:04' or '[00:04] Ana: hello'")
    parts = _parts(rows)
    _close(rows, parts, sessions, session)
    for row, said in zip(rows, parts, strict=True):
        _add(sessions, session, row, said)
    return sessions.transcripts()


def _may_open(line: str) -> bool:
    try:
        return _opened(line, "") is not None
    except FormatError:
        return False


def _opened(line: str, at: str) -> _Paragraph | None:
    """The paragraph that a line opens, if it has a time."""
    if match := _RANGED.fullmatch(line):
        return _Paragraph(at, parse_clock(match[1], at), parse_clock(match[2], at), "", [match[3]])
    if match := _RANGED_S.fullmatch(line):
        return _Paragraph(at, Decimal(match[1]), Decimal(match[2]), "", [match[3]])
    if match := _STAMPED.fullmatch(line):
        return _Paragraph(at, parse_clock(match[1] or match[2], at), lines=[match[3] or ""])
    if match := _BARE_RANGE.fullmatch(line):
        times = parse_clock(match[1], at), parse_clock(match[2], at)
        return _Paragraph(at, *times, "", [match[3] or ""])
    if match := _BARE.fullmatch(line):
        return _Paragraph(at, parse_clock(match[1], at), lines=[match[2] or ""])
    if (match := _NAMED.fullmatch(line)) and is_name(match[1]):
        time = next(filter(None, match.groups()[1:-1]))
        return _Paragraph(at, parse_clock(time, at), speaker=match[1], lines=[match[7]])
    match = _HEADED.fullmatch(line) if len(line) <= _LONGEST else None
    if match is None:
        return None
    speaker, gap = re.sub(r"^\[(.+)\]$", r"\1", match[1].rstrip(":")), match[2] or ""
    marked = len(gap) > 1 or gap == "\t" or line.endswith("):")
    if not is_name(speaker) and not (marked and len(speaker.split()) <= _LONGEST_NAME):
        return None
    return _Paragraph(at, parse_clock(match[3] or match[4], at), speaker=speaker)


def _headed(lines: Sequence[str]) -> list[str]:
    """Lines without space around them, or `**` around a name; names above times alone (`Ana`, `0:04`), if all are,
    join these."""
    rows = [
        _BOLD.sub(r"\2\3\4", row, count=1) if "**" in row or "__" in row else row
        for row in (line.strip() for line in lines)
    ]
    times = [(n, match) for n, row in enumerate(rows) if (match := _ALONE.fullmatch(row))]
    if len(times) > 1 and all(n and is_name(rows[n - 1].rstrip(":")) for n, _ in times):
        for n, match in times:
            time = next(filter(None, match.groups()))
            rows[n], rows[n - 1] = f"{rows[n - 1].rstrip(':')}\t{time}", ""
    return rows


def _read(text: str, where: str, sessions: Sessions, session: str) -> list[_Paragraph]:
    rows: list[_Paragraph] = []
    for number, line in enumerate(_headed(text.split("\n")), start=1):
        at = f"{where}:{number}"
        if not line or line == _NO_SPEECH:
            continue
        if _OF_DAY.fullmatch(line):
            raise FormatError(
                f"{at}: expected times of the recording, got a time of day in {line!r}; read the "
                "transcript that is saved with the recording (VTT)"
            )
        if _NOTE.fullmatch(line):
            sessions.count(session, "notes behind the lines were passed over")
        elif (opened := _opened(line, at)) is not None:
            rows.append(opened)
        elif rows:
            rows[-1].lines.append(line)
        else:
            sessions.count(session, "lines before the first time were passed over")
    for row in rows:
        row.lines = [line for line in row.lines if line]
    kept = [row for row in rows if row.lines]
    sessions.count(session, "times without words were left out", len(rows) - len(kept))
    return kept


_Parts = list[tuple[str, str, str]]
"""Parts of a paragraph: speaker (empty for none), gender, and words of each."""


def _parts(rows: Sequence[_Paragraph]) -> list[_Parts]:
    """Give each paragraph its speaker: a time alone continues the speaker of the heading before it."""
    for before, row in pairwise(rows):
        row.speaker = row.speaker or before.speaker
    unheaded = [Cue(r.at, r.start_s, r.start_s, r.lines) for r in rows if not r.speaker]
    named = iter(name_speakers(unheaded))
    parts = [
        [(*parse_caption(row.speaker), " ".join(row.lines))] if row.speaker else next(named)
        for row in rows
    ]
    return [[part for part in said if part[0] or part[2]] for said in parts]


def _close(
    rows: Sequence[_Paragraph], parts: Sequence[_Parts], sessions: Sessions, session: str
) -> None:
    """Give an end to paragraphs that have none.

    Raises:
        FormatError: a start without an end lies before the start before; the first is of the day.
    """
    for before, row in pairwise(rows):
        if row.end_s is None and row.start_s < before.start_s:
            raise FormatError(
                f"{row.at}: starts at {row.start_s} s, before the paragraph before it, at "
                f"{before.start_s} s"
            )
    if rows and rows[0].end_s is None and rows[0].start_s >= _LATE_S:
        if rows[0].start_s >= _OF_DAY_S:
            raise FormatError(
                f"{rows[0].at}: expected times of the recording, got {rows[0].start_s} s for the first "
                "line: a time of day? Subtract the time at which the recording begins"
            )
        sessions.count(session, "line begins the text after an hour: perhaps a time of day")
    open_rows = [row for row in rows if row.end_s is None]
    sessions.count(
        session, "lines have no end and were read up to the next one's start", len(open_rows)
    )
    start_s = later_s = None  # of the rows that follow: the first start, and the first behind that
    for row, said in zip(reversed(rows), reversed(parts), strict=True):
        if row.start_s != start_s:
            start_s, later_s = row.start_s, start_s
        if row.end_s is None and later_s is None:
            words = sum(len(text.split()) for _, _, text in said)
            row.end_s = row.start_s + max(Decimal(1), _WORD_S * words)
            sessions.count(
                session, "lines at the end last as long as their words take at 150 a minute"
            )
        elif row.end_s is None:
            row.end_s = later_s


def _add(sessions: Sessions, session: str, row: _Paragraph, parts: _Parts) -> None:
    """Add the parts of a paragraph, which share its time by the length of their words."""
    assert row.end_s is not None
    lengths = [max(1, len(words)) for _, _, words in parts]
    if len(parts) > 1:
        sessions.count(
            session, "lines share a time with others, by the length of their words", len(parts)
        )
    at_s = row.start_s
    for (speaker, gender, words), length in zip(parts, lengths, strict=True):
        end_s = at_s + (row.end_s - row.start_s) * length / sum(lengths)
        sessions.count(session, f"lines {SOUNDS}", bool(SOUND.search(words)))
        sessions.add(
            session,
            row.at,
            speaker=sessions.whose(session, "lines", speaker),
            start_s=at_s,
            end_s=end_s,
            text=words,
            gender=gender,
        )
        at_s = end_s
