"""Cues of subtitles as programs write them: timing lines, rolling lines, tags.

A cue begins with its timing line, whether or not an empty line stands before it, as players take it.
`names` finds the speakers of cues. Nothing is rendered here.
"""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache

from ..errors import FormatError

SOUND = re.compile(r"[\[(（【][^\[\]()（）【】:]*[\])）】]|[♪♫]")
"""Text in brackets or between notes: mostly a sound, `[music]`, or a remark, `(inaudible)`."""
SOUNDS = "hold sounds or remarks in brackets, which were read as words"
_WORD_S = Decimal("0.4")  # assumed: 150 words a minute

_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?"
_SPACE = r"[^\S\n]"
_TIMINGS = re.compile(
    rf"\n{_SPACE}*(?:({_TIME}){_SPACE}*-->{_SPACE}*({_TIME})(?:{_SPACE}.*)?|({_TIME}),({_TIME}){_SPACE}*)(?![^\n])"
)
"""A line feed and a line with the times of a cue: of SubRip and WebVTT, or of YouTube's SBV."""
_CLOCK = r"-?\d+[:：](?:\d\d|\d[:：])[\d:：.,;]*"
_NUMBER = r"-?\d+[:：.]\d[\d:：.,;]*"
_ALMOST_TIMING = re.compile(
    rf"\s*(?:{_NUMBER}\s*-->\s*{_NUMBER}|{_CLOCK}\s*(?:[-–—]+\s*[>→]|→|=>)\s*{_CLOCK})\s*\S{{0,40}}\s*"
)
"""A timing as no player takes it: `00:03 -> 00:04`; not `0.5 → 0.7`, which is text."""
_TAG = re.compile(
    r"</?(?:i|b|u|s|em|strong|font|c|span|p|div|ruby|rt|rp)(?:[.\s][^<>]*)?/?>", re.IGNORECASE
)
_OVERRIDE = re.compile(r"\{\\[^{}]*\}|\{/?[biu]\}|\{[yYcfsS]:[^{}]*\}", re.IGNORECASE)
_REFERENCE = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|lrm|rlm|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
VOICE = re.compile(r"<v(?:\.[^\s>]*)?(?:\s+([^>]*))?>")
"""WebVTT's mark of a speaker."""
_SUBRIP = (_TAG, VOICE, _BREAK, _OVERRIDE, _REFERENCE, re.compile(r"\\[Nh]"))
_MARKS = re.compile("|".join(mark.pattern for mark in _SUBRIP), re.IGNORECASE)
_TIMESTAMP = re.compile(r"<\d")
_END_OF_MARK = re.compile(r"</[bciuBCIUfF]")
_ROLLING_GAP_S = Decimal("0.1")
_ROLLING_SHARE = 0.4


def spoken_s(text: str) -> Decimal:
    """Return how long a text is taken to last where no end is known: 150 words a minute, at least 1 s."""
    return max(Decimal(1), _WORD_S * len(text.split()))


def later_starts(starts_s: Sequence[Decimal]) -> list[Decimal | None]:
    """Return for each of some starts in order the next one that is later; `None` where none is."""
    later: list[Decimal | None] = []
    following_s: Decimal | None = None
    later_s: Decimal | None = None
    for start_s in reversed(starts_s):
        later_s = following_s if following_s is not None and following_s > start_s else later_s
        following_s = start_s
        later.append(later_s)
    return later[::-1]


@dataclass(slots=True)
class Cue:
    """Lines shown from one time to another.

    Attributes:
        at: file and line of the timing.
        start_s, end_s: in seconds.
        lines: of its text, none empty.
        holed: whether empty lines stood between them.
        name: the line before the timing: a number, or WebVTT's cue identifier.
    """

    at: str
    start_s: Decimal
    end_s: Decimal
    lines: list[str] = field(default_factory=list)
    holed: bool = False
    name: str = ""


def read_cues(text: str, where: str, *, numbered: bool) -> list[Cue]:
    """Read the cues of a text.

    Args:
        text: of the file.
        where: the file, for messages.
        numbered: SubRip: a number alone on the line before a timing is that cue's; lines behind an
            empty line belong to the cue before. Otherwise (WebVTT), where an empty line ends a cue,
            any line right before a timing and behind an empty line is a cue's name.

    Raises:
        FormatError: there are lines outside of any cue, or a time is none.
    """
    if "\r" in text:  # a line's end, too, as the standard of WebVTT has it
        text = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")
    cues: list[Cue] = []
    # Every line begins behind a line feed, which is quick to search for.
    before, *timings = _TIMINGS.split(f"\n{text}")
    rows = before.split("\n")[1:]
    first = 1  # the number of the first of these rows
    for start, end, other_start, other_end, behind in zip(*[iter(timings)] * 5, strict=True):
        number = first + len(rows)
        at = f"{where}:{number}"
        name = rows.pop().strip() if rows and _heads_cue(rows, not cues, numbered) else ""
        _give(rows, cues, first, where, numbered)
        start_s = parse_clock(start or other_start, at)
        cues.append(Cue(at, start_s, parse_clock(end or other_end, at), name=name))
        rows, first = behind.split("\n")[1:], number + 1
    _give(rows, cues, first, where, numbered)
    return cues


def _give(rows: Sequence[str], cues: Sequence[Cue], first: int, where: str, numbered: bool) -> None:
    """Give lines to the last cue; `first` is the number of the first of them.

    Raises:
        FormatError: there is no cue, or it ended before these lines.
    """
    gap = False
    for number, row in enumerate(rows, start=first):
        line = row.strip()
        if not line:
            gap = gap or numbered or not row  # in WebVTT, a line with a space is text
            continue
        outside = not cues or (gap and not numbered)
        if outside or ((">" in line or "→" in line) and _ALMOST_TIMING.fullmatch(row)):
            wrong = next(
                ((n, r) for n, r in enumerate(rows, first) if _looks_timed(r)), (number, row)
            )
            raise FormatError(f"{where}:{wrong[0]}: expected '<start> --> <end>', got {wrong[1]!r}")
        cue = cues[-1]
        cue.holed = cue.holed or (gap and bool(cue.lines))
        cue.lines.append(line)


def kind_of_captions(text: str) -> str:
    """`vtt` if a text begins so, `srt` if it has timing lines, else empty."""
    if re.match(r"WEBVTT(?:\s|$)", text):
        return "vtt"
    text = text.replace("\r", "\n")  # the end of a line of old Macs
    timed = (timing[1] for timing in _TIMINGS.finditer(f"\n{text}"))
    return "srt" if any(timed) else ""


def _looks_timed(line: str) -> bool:
    return "->" in line or _ALMOST_TIMING.fullmatch(line) is not None


def _heads_cue(rows: Sequence[str], opens: bool, numbered: bool) -> bool:
    """Return whether the last line before a timing is the number or the name of the cue that follows."""
    last = rows[-1].strip()
    if numbered or last.isdecimal():
        return last.isdecimal()
    behind_gap = not rows[-2].strip() if len(rows) > 1 else opens
    return bool(last) and behind_gap


def parse_clock(clock: str, at: str) -> Decimal:
    """Read `[hh:]mm:ss[.mmm]`, with a point or a comma, in seconds.

    Raises:
        FormatError: there are 60 minutes or seconds, or more.
    """
    head, _, digits = clock.rpartition(":")
    whole_s, seconds = _minutes_s(head), Decimal(digits.replace(",", "."))
    if whole_s is None or seconds >= 60:
        shown = clock.replace(",", ".")
        raise FormatError(f"{at}: expected minutes and seconds below 60, got {shown!r}")
    return whole_s + seconds


@lru_cache(maxsize=4096)  # of minutes, many cues begin in each
def _minutes_s(clock: str) -> Decimal | None:
    """Hours and minutes, `[hh:]mm`, in seconds; `None` for 60 minutes or more, or a billion hours."""
    hours, _, minutes = clock.rpartition(":")
    if len(hours) > 9 or int(minutes) > 59:
        return None
    return Decimal((int(hours or 0) * 60 + int(minutes)) * 60)


def without_formatting(cues: Sequence[Cue]) -> None:
    """Take formatting off SubRip's lines: `<i>`, `<font ...>`, `{\\an8}`, `{b}`, `\\N`."""
    text = "\n".join(line for cue in cues for line in cue.lines)
    if not any(mark in text for mark in "<{\\"):
        return
    breaks = re.compile(r"\\[Nh]") if "\\N" in text or _OVERRIDE.search(text) else None
    for cue in cues:
        lines = []
        for line in cue.lines:
            shown = _BREAK.sub(" ", _OVERRIDE.sub("", _TAG.sub("", line)))
            lines.append((breaks.sub(" ", shown) if breaks else shown).strip())
        cue.lines = [line for line in lines if line]


def without_references(cues: Sequence[Cue]) -> int:
    """Read `&amp;` and its like; returns how many cues hold any.

    SubRip has no escapes: programs leave them that convert from WebVTT, and `as_subrip` writes them.
    """
    count = 0
    for cue in cues:
        if not any("&" in line for line in cue.lines):
            continue
        count += any(_REFERENCE.search(line) for line in cue.lines)
        shown = [_REFERENCE.sub(lambda match: html.unescape(match[0]), line) for line in cue.lines]
        cue.lines = [line.replace("\xa0", " ").strip() for line in shown]
    return count


def as_subrip(line: str) -> str:
    """A line in which nothing is taken for a mark of SubRip: `<i>` becomes `&#60;i>`."""
    return _MARKS.sub(
        lambda match: re.sub(r"[<&{\\]", lambda sign: f"&#{ord(sign[0])};", match[0]), line
    )


def unmarked(cues: Sequence[Cue], text: str) -> tuple[list[Cue], int]:
    """Read lines once that come again with another word marked, as Whisper's programs mark what is being said.

    Such cues follow each other without a gap, and differ in tags alone.

    Args:
        cues: of a file, in order, with their tags.
        text: of the file.

    Returns:
        The cues, and how many came again.
    """
    if not _END_OF_MARK.search(text) or _TIMESTAMP.search(text):  # the latter roll
        return list(cues), 0
    kept: list[Cue] = []
    again, before, marked = 0, "", list[str]()
    for cue in cues:
        shown = _TAG.sub("", "\n".join(cue.lines))
        follows = bool(kept) and abs(cue.start_s - kept[-1].end_s) <= _ROLLING_GAP_S
        if follows and shown and shown == before and cue.lines != marked:
            kept[-1].end_s = cue.end_s
            again += 1
        else:
            kept.append(replace(cue))
        before, marked = shown, cue.lines
    return kept, again


def unrolled(cues: Sequence[Cue], shown: Callable[[str], str]) -> tuple[list[Cue], int]:
    """Read lines once that roll from one cue into the next, as in captions made live (YouTube's).

    Lines are repeated if the cue begins when the one before ends, and with the lines that it ended
    with. Captions roll if two cues in five begin so, and some of them go on with new lines; otherwise
    people repeat themselves.

    Args:
        cues: of a file, in order.
        shown: the text of a line without its tags.

    Returns:
        The cues, those that show nothing new left out; and how many repeat something.
    """
    if all(len(cue.lines) < 2 for cue in cues):
        return list(cues), 0  # what rolls goes on with another line
    kept: list[Cue] = []
    repeats = rolls = 0
    before: list[str] = []
    last_end_s = Decimal(-1)
    for cue in cues:
        lines = list(cue.lines)
        now = [shown(line) for line in lines]
        near = abs(cue.start_s - last_end_s) <= _ROLLING_GAP_S
        again = _shared(before, now) if near else 0
        before, last_end_s = now, cue.end_s
        repeats += again > 0
        rest = lines[again:]
        rolls += again > 0 and bool(rest)
        if rest:
            kept.append(replace(cue, lines=rest))
    if rolls < 2 or repeats < _ROLLING_SHARE * len(cues):
        return list(cues), 0
    return kept, repeats


def _shared(before: Sequence[str], lines: Sequence[str]) -> int:
    """Return how many first lines are the last ones of the cue before."""
    for count in range(min(len(before), len(lines)), 0, -1):
        if list(before[-count:]) == list(lines[:count]):
            return count
    return 0


_READING = re.compile(r"<rt>.*?</rt>")  # of a word that it stands over
_ANY_TAG = re.compile(r"</?[A-Za-z0-9.:][^>]*>|</?>")


def plain(payload: str) -> str:
    """The text of a WebVTT payload without tags and character references."""
    if "<" in payload:
        payload = _ANY_TAG.sub("", _READING.sub("", payload))
    return html.unescape(payload)
