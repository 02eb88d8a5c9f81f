"""Captions of players beside SubRip and WebVTT: ASS (written in `reading`), LRC, SAMI. Read here.

Each becomes cues, whose speakers `subtitles.read_captions` finds: the Name of an event of ASS, or else a name before a
colon.
"""

import html
import re
from collections import Counter
from decimal import Decimal

from ..errors import FormatError
from ..transcript import Transcript
from .cues import Cue, later_starts, parse_clock, spoken_s
from .subtitles import read_captions

_SSA_FIELDS = "marked,start,end,style,name,marginl,marginr,marginv,effect,text"
"""Of events, where no line says which there are."""
_ASS_TIME = re.compile(r"\d+:\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?")
_OVERRIDE = re.compile(r"\{[^{}]*\}")
_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")
_AGAIN = "events come again with the same times and words, for effects, and were read once"
_DRAWN = "events are drawings and were left out"
_STYLES = "styles of events may tell people apart, and were not read"
_STAMP = re.compile(r"\s*\[(\d{1,6}):(\d{1,2}(?:[.:]\d{1,3})?)\]")
_WORD_STAMP = re.compile(r"<\d+:\d{1,2}(?:[.:]\d{1,3})?>")
_TAG = re.compile(r"\[([a-z]+):(.*)\]", re.IGNORECASE)
_OPEN = "lines have no end and were read up to the next one's start"
_LAST = "lines at the end last as long as their words take at 150 a minute"
_SYNC = re.compile(r"<SYNC\s[^<>]*?\bSTART\s*=\s*[\"']?(\d{1,12})[^<>]*>", re.IGNORECASE)
_PARAGRAPH = re.compile(r"<P\b([^<>]*)>", re.IGNORECASE)
_CLASS = re.compile(r"\bCLASS\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
_ANY_TAG = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_LANGUAGES = (
    "captions are of another class than the first, perhaps another language, and were not read"
)


def parse_ass(text: str, where: str) -> list[Transcript]:
    """Parse Advanced SubStation Alpha; one transcript, named after the file.

    An event's Name is its speaker; where no event has one, a name before a colon is. Overrides (`{\\an8}`) are taken
    off. Drawings, comments, and events that come again on another layer are left out.

    Raises:
        FormatError: a line of events lacks fields, or a time is none; there are no events.
    """
    fields = _SSA_FIELDS.split(",")
    cues: list[Cue] = []
    notices: Counter[str] = Counter()
    styles, seen = set(), set()
    section = ""
    for number, line in enumerate(text.split("\n"), start=1):
        at = f"{where}:{number}"
        row = line.strip()
        if row.startswith("[") and row.endswith("]"):
            section = row.lower()
            continue
        kind, _, rest = row.partition(":")
        if section != "[events]" or kind.lower() not in ("format", "dialogue"):
            continue
        if kind.lower() == "format":
            fields = [field.strip().lower() for field in rest.split(",")]
            continue
        values = dict(zip(fields, rest.strip().split(",", len(fields) - 1), strict=False))
        if not {"start", "end", "text"} <= values.keys():
            raise FormatError(f"{at}: expected the fields {', '.join(fields)}, got {row[:60]!r}")
        start, end = values["start"].strip(), values["end"].strip()
        if not (_ASS_TIME.fullmatch(start) and _ASS_TIME.fullmatch(end)):
            raise FormatError(f"{at}: expected times such as 0:00:01.50, got {start!r}, {end!r}")
        if _DRAWING.search(values["text"]):
            notices[_DRAWN] += 1
            continue
        name = (values.get("name") or values.get("actor") or "").strip()
        shown = _OVERRIDE.sub("", values["text"]).replace("\\h", " ")
        if name and shown.startswith(f"{name}:"):  # as this package writes them
            shown = shown[len(name) + 1 :]
        lines = [part.strip() for part in re.split(r"\\[Nn]", shown)]
        event = start, end, name, *" ".join(lines).split()
        if event in seen:
            notices[_AGAIN] += 1
            continue
        seen.add(event)
        styles.add(values.get("style", ""))
        lines = [part for part in lines if part]
        cues.append(Cue(at, parse_clock(start, at), parse_clock(end, at), lines, name=name))
    if not cues and "[events]" not in text.lower():
        raise FormatError(f"{where}: expected a section [Events] with lines of Dialogue")
    if len(styles) > 1 and not any(cue.name for cue in cues):
        notices[_STYLES] = len(styles)
    return read_captions(cues, where, notices)


def parse_lrc(text: str, where: str) -> list[Transcript]:
    """Parse LRC: lines that begin with times in brackets; one transcript, named after the file.

    A line lasts to the next later time, also to one without words; the last one as long as its words take. `[offset:]`
    moves all times. Times of words (`<00:01.50>`) are not read.

    Raises:
        FormatError: a line with words has no time, or none has one.
    """
    rows: list[tuple[Decimal, str, str]] = []
    notices: Counter[str] = Counter()
    offset_s = Decimal(0)
    for number, line in enumerate(text.split("\n"), start=1):
        at, rest, times = f"{where}:{number}", line.strip(), list[Decimal]()
        while match := _STAMP.match(rest):
            seconds = Decimal(match[2].replace(":", "."))
            if seconds >= 60:
                raise FormatError(f"{at}: expected seconds below 60, got {match[0].strip()!r}")
            times.append(60 * int(match[1]) + seconds)
            rest = rest[match.end() :]
        if not times and (tag := _TAG.fullmatch(rest)):
            if tag[1].lower() == "offset" and re.fullmatch(r"[+-]?\d+", tag[2].strip()):
                offset_s = Decimal(tag[2].strip()) / 1000
            continue
        if not times and rest:
            raise FormatError(f"{at}: expected a line such as '[00:01.50]words', got {line!r}")
        rows += [(time_s, " ".join(_WORD_STAMP.sub(" ", rest).split()), at) for time_s in times]
    if not rows:
        raise FormatError(f"{where}: expected lines such as '[00:01.50]words', got none")
    rows.sort(key=lambda row: row[0])
    shifted = [(max(Decimal(0), time_s - offset_s), words, at) for time_s, words, at in rows]
    return read_captions(_to_the_next(shifted, notices), where, notices)


def _to_the_next(rows: list[tuple[Decimal, str, str]], notices: Counter[str]) -> list[Cue]:
    """Make cues of starts, words and places in order: each lasts to the next later start."""
    cues: list[Cue] = []
    later = later_starts([start_s for start_s, _, _ in rows])
    for (start_s, words, at), end_s in zip(rows, later, strict=True):
        if words:
            notices[_LAST if end_s is None else _OPEN] += 1
            end_s = start_s + spoken_s(words) if end_s is None else end_s
            cues.append(Cue(at, start_s, end_s, words.split("\n")))
    return cues


def parse_sami(text: str, where: str) -> list[Transcript]:
    """Parse SAMI; one transcript, named after the file.

    A caption lasts to the next one of its class; one of white space ends it. Of several classes, which are languages as
    a rule, the first is read.

    Raises:
        FormatError: there is no `SYNC` with a start.
    """
    _, *parts = _SYNC.split(text)
    if not parts:
        raise FormatError(f"{where}: expected captions such as <SYNC Start=1500><P>words")
    rows: list[tuple[Decimal, str, str]] = []
    notices: Counter[str] = Counter()
    first = None
    for start, body in zip(parts[::2], parts[1::2], strict=True):
        before, *paragraphs = _PARAGRAPH.split(re.split(r"</BODY>", body, flags=re.IGNORECASE)[0])
        pairs = list(zip(paragraphs[::2], paragraphs[1::2], strict=True)) or [("", before)]
        for attributes, shown in pairs:
            of_class = _CLASS.search(attributes)
            name = of_class[1].lower() if of_class else ""
            first = name if first is None else first
            if name != first:
                notices[_LANGUAGES] += 1
                continue
            lines = _BREAK.sub("\0", shown).replace("\n", " ")
            plain = html.unescape(_ANY_TAG.sub("", lines)).replace("\xa0", " ")
            words = "\n".join(filter(None, (line.strip() for line in plain.split("\0"))))
            rows.append((Decimal(start) / 1000, words, f"{where}, caption at {start} ms"))
    rows.sort(key=lambda row: row[0])
    cues = _to_the_next(rows, notices)
    del notices[_OPEN]  # so the format has it
    return read_captions(cues, where, notices)
