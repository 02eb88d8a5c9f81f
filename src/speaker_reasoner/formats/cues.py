"""Cues of subtitles as programs write them: timing lines, rolling lines, tags.

A cue begins with its timing line, whether or not an empty line stands before it, as players take it.
Whose words they are, `names` tells. Nothing is rendered here.
"""

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from ..errors import FormatError

SOUND = re.compile(r"[\[(（【][^\[\]()（）【】:]*[\])）】]|[♪♫]")
"""What stands in brackets or between notes: mostly a sound, `[music]`, or a remark, `(inaudible)`."""
SOUNDS = "hold sounds or remarks in brackets, which were read as words"

_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?"
_TIMING = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?")
_CLOCK = r"-?\d+[:：](?:\d\d|\d[:：])[\d:：.,;]*"
_NUMBER = r"-?\d+[:：.]\d[\d:：.,;]*"
_ALMOST_TIMING = re.compile(
    rf"\s*(?:{_NUMBER}\s*-->\s*{_NUMBER}|{_CLOCK}\s*(?:[-–—]+\s*[>→]|→|=>)\s*{_CLOCK})\s*\S{{0,40}}\s*"
)
"""A timing as no player takes it: `00:03 -> 00:04`; not `0.5 → 0.7`, which is text."""
_SBV_TIMING = re.compile(rf"\s*({_TIME}),({_TIME})\s*")
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
_ROLLING_GAP_S = Decimal("0.1")
_ROLLING_SHARE = 0.4


@dataclass(slots=True)
class Cue:
    """Lines shown from one time to another.

    Attributes:
        at: file and line of the timing.
        start_s, end_s: in seconds.
        lines: of its text, none empty.
        holed: whether empty lines stood between them.
        name: the line before the timing: a number, or what WebVTT calls an identifier.
    """

    at: str
    start_s: Decimal
    end_s: Decimal
    lines: list[str] = field(default_factory=list)
    holed: bool = False
    name: str = ""


def read_cues(lines: Sequence[tuple[int, str]], where: str, *, numbered: bool) -> Iterator[Cue]:
    """Read cues from numbered lines.

    Args:
        lines: of the file, each with its number.
        where: the file, for messages.
        numbered: SubRip: a number alone on the line before a timing is that cue's; lines behind an
            empty line belong to the cue before. Otherwise (WebVTT), where an empty line ends a cue,
            any line right before a timing and behind an empty line is a cue's name.

    Raises:
        FormatError: there are lines outside of any cue, or a time is none.
    """
    cue: Cue | None = None
    pending: list[tuple[int, str]] = []  # lines that may be a cue's number, name or text

    def give(kept: Sequence[tuple[int, str]]) -> None:
        """Give pending lines to the cue before."""
        gap = False
        for number, line in kept:
            if not line.strip():
                gap = gap or numbered or not line  # in WebVTT, a line with a space is text
                continue
            if cue is None or (gap and not numbered) or _ALMOST_TIMING.fullmatch(line):
                wrong = next((row for row in kept if _looks_timed(row[1])), (number, line))
                raise FormatError(
                    f"{where}:{wrong[0]}: expected '<start> --> <end>', got {wrong[1]!r}"
                )
            cue.holed = cue.holed or (gap and bool(cue.lines))
            cue.lines.append(line.strip())

    for number, line in lines:
        timing = _TIMING.fullmatch(line) or _SBV_TIMING.fullmatch(line)
        if timing is None:
            pending.append((number, line))
            continue
        name = ""
        if pending and _heads_cue(pending, cue, numbered):
            name = pending.pop()[1].strip()
        give(pending)
        pending = []
        if cue is not None:
            yield cue
        at = f"{where}:{number}"
        cue = Cue(at, parse_clock(timing[1], at), parse_clock(timing[2], at), name=name)
    give(pending)
    if cue is not None:
        yield cue


def kind_of_captions(text: str) -> str:
    """`vtt` if a text begins so, `srt` if it has timing lines, else empty."""
    if re.match(r"WEBVTT(?:\s|$)", text):
        return "vtt"
    timed = any("-->" in line and _TIMING.fullmatch(line) for line in text.splitlines())
    return "srt" if timed else ""


def _looks_timed(line: str) -> bool:
    return "->" in line or _ALMOST_TIMING.fullmatch(line) is not None


def _heads_cue(pending: Sequence[tuple[int, str]], cue: Cue | None, numbered: bool) -> bool:
    """Whether the last line before a timing is the number or the name of the cue that follows."""
    last = pending[-1][1].strip()
    behind_gap = (len(pending) == 1 and cue is None) or (
        len(pending) > 1 and not pending[-2][1].strip()
    )
    return bool(last) and (last.isdecimal() or (behind_gap and not numbered))


def parse_clock(clock: str, at: str) -> Decimal:
    """Read `[hh:]mm:ss[.mmm]`, with a point or a comma, in seconds.

    Raises:
        FormatError: there are 60 minutes or seconds, or more.
    """
    *hours, minutes, seconds = clock.replace(",", ".").split(":")
    if int(minutes) > 59 or Decimal(seconds) >= 60:
        raise FormatError(f"{at}: expected minutes and seconds below 60, got {clock!r}")
    return Decimal((int(hours[0] if hours else 0) * 60 + int(minutes)) * 60) + Decimal(seconds)


def without_formatting(cues: Sequence[Cue]) -> None:
    """Take formatting off SubRip's lines: `<i>`, `<font ...>`, `{\\an8}`, `{b}`, `\\N`."""
    text = "\n".join(line for cue in cues for line in cue.lines)
    breaks = re.compile(r"\\[Nh]") if "\\N" in text or _OVERRIDE.search(text) else None
    for cue in cues:
        lines = []
        if not any(mark in line for line in cue.lines for mark in "<{\\"):
            continue
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
    """How many first lines are the last ones of the cue before."""
    for count in range(min(len(before), len(lines)), 0, -1):
        if list(before[-count:]) == list(lines[:count]):
            return count
    return 0


_READING = re.compile(r"<rt>.*?</rt>")  # of a word that it stands over
_ANY_TAG = re.compile(r"</?[A-Za-z0-9.:][^>]*>|</?>")


def plain(payload: str) -> str:
    """The text of a WebVTT payload without tags and character references."""
    return html.unescape(_ANY_TAG.sub("", _READING.sub("", payload)))
