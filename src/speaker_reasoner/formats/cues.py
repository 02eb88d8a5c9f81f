"""Cues of subtitles as programs write them: timing lines, rolling lines, tags, and whose words they are.

A cue begins with its timing line, whether or not an empty line stands before it, as players take it.
What stands before a colon is a speaker only where it is a name: by itself (`Dana Moe`, `SPEAKER_00`,
`Ana (female)`) and by the other cues (`name_speakers`). Nothing is rendered here.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

from ..errors import FormatError
from .captions import parse_caption

_TIME = r"(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{1,3})?"
_TIMING = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?")
_SBV_TIMING = re.compile(rf"\s*({_TIME}),({_TIME})\s*")
_SPOKEN = re.compile(r"\s*(?:>>+\s*)?([^:：]*[^:：\s])\s*[:：](?:\s+(.*)|(?<=：)(.*))?", re.DOTALL)
_EXPLICIT = re.compile(r".*\S \((?:female|male|unknown)\)", re.DOTALL)
_IDENTIFIER = re.compile(
    r"(?:speaker|spk|spkr|voice|person|channel|说话人|讲者|发言人)[ _-]?\w{1,4}", re.I
)
_NUMBERED = re.compile(
    r"\s*\[((?:speaker|spk|spkr)[ _-]?\w{1,4})\]\s*(.*)", re.IGNORECASE | re.DOTALL
)
_PARTICLE_WORDS = (
    "al and bin da das de del della den der di do dos du el ibn la le of the ten ter van von y zu &"
)
_PARTICLES = frozenset(_PARTICLE_WORDS.split())
_OPENER_WORDS = (
    "Also And Answer But Caution Example Finally First Fact Given Hint However Important Listen Look"
    " Maybe No Not Note Now OK Ok Okay Or Please Question Quote Remember Result Second See So Summary"
    " Then There Therefore Third This Thus Tip Translation Update Warning Well Why Yes"
)
_OPENERS = frozenset(_OPENER_WORDS.split())
"""Words that begin a sentence before a colon and are nobody's name."""
_LONGEST_NAME = 5  # words
_ENCLOSED = re.compile(r"\[([^\[\]]+)\]|\(([^()]+)\)")
_FORMATTING = ("i", "b", "u", "s", "em", "strong", "font", "c", "span", "ruby", "rt", "rp")
_ASIDE = re.compile(r"\s+\([^()]+\)$")  # Ana (she/her), Bob (Guest)
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
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
    """

    at: str
    start_s: Decimal
    end_s: Decimal
    lines: list[str] = field(default_factory=list)
    holed: bool = False


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
            if cue is None or (gap and not numbered):
                wrong = next((row for row in kept if "->" in row[1]), (number, line))
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
        if pending and _heads_cue(pending, cue, numbered):
            pending.pop()
        give(pending)
        pending = []
        if cue is not None:
            yield cue
        at = f"{where}:{number}"
        cue = Cue(at, parse_clock(timing[1], at), parse_clock(timing[2], at))
    give(pending)
    if cue is not None:
        yield cue


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
    """Take formatting off SubRip's lines: `<i>`, `<font ...>`, `{\\an8}`.

    SubRip has no escapes: `<i>` is a tag where the file has `</i>`, too, `<font ...>` wherever it has
    an attribute.
    """
    text = "\n".join(line for cue in cues for line in cue.lines)
    lower = text.lower()
    tags = [
        rf"</?{name}(?:[.\s][^<>]*)?>"
        for name in _FORMATTING
        if f"</{name}>" in lower and re.search(rf"<{name}[\s.>]", lower)
    ]
    pattern = re.compile("|".join([*tags, r"<font\s[^<>]*=[^<>]*>"]), re.IGNORECASE)
    for cue in cues:
        cue.lines = [
            line
            for line in (
                _BREAK.sub(" ", _OVERRIDE.sub("", pattern.sub("", line))).strip()
                for line in cue.lines
            )
            if line
        ]


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
            kept.append(Cue(cue.at, cue.start_s, cue.end_s, rest, cue.holed))
    if rolls < 2 or repeats < _ROLLING_SHARE * len(cues):
        return list(cues), 0
    return kept, repeats


def _shared(before: Sequence[str], lines: Sequence[str]) -> int:
    """How many first lines are the last ones of the cue before."""
    for count in range(min(len(before), len(lines)), 0, -1):
        if list(before[-count:]) == list(lines[:count]):
            return count
    return 0


_ANY_TAG = re.compile(r"</?[A-Za-z0-9.:][^>]*>|</?>")


def plain(payload: str) -> str:
    """The text of a WebVTT payload without tags and character references."""
    return html.unescape(_ANY_TAG.sub("", payload))


@lru_cache(maxsize=4096)  # a file has few names, each many times
def is_name(text: str) -> bool:
    """Whether a text, as it stands before a colon, can only be meant for a person.

    That is an identifier (`SPEAKER_00`, `speaker 1`), or up to five words that begin with a capital,
    a digit or a letter of a script without cases, small particles between them (`Ana de la Cruz`); no
    clause, and none of the words that open one (`Note`, `So`).
    """
    if _IDENTIFIER.fullmatch(text):
        return True
    text = _ASIDE.sub("", text)
    words = text.split()
    if not words or len(words) > _LONGEST_NAME or text.capitalize() in _OPENERS or len(text) > 60:
        return False
    if any(mark in text for mark in ',;!?"<>{}|。，！？；…、') or words[0].lower() in _PARTICLES:
        return False
    if all(_caseless(word) for word in words):  # 张三, not a sentence
        return len("".join(words)) <= (5 if len(words) == 1 else 16)
    return all(_name_word(word, last=word is words[-1]) for word in words)


def _caseless(word: str) -> bool:
    return word.isalpha() and word.lower() == word.upper()


def _name_word(word: str, last: bool) -> bool:
    bare = word.strip("().'’-")
    if word in _PARTICLES:
        return not last
    if not bare or not re.fullmatch(r"[\w.'’()@/#+-]+", word):
        return False
    if word.endswith(".") and len(bare) > 4:  # J., Dr., Prof. - not the end of a sentence
        return False
    return bare[0].isupper() or bare[0].isdigit() or _caseless(bare[0]) or "_" in bare


def split_name(line: str) -> tuple[str, str] | None:
    """Split `name: words` at the first colon, or `[Speaker 1] words`; `None` without either."""
    spoken = _SPOKEN.fullmatch(line)
    if spoken is None:
        numbered = _NUMBERED.fullmatch(line)
        return None if numbered is None else (numbered[1], numbered[2])
    return spoken[1].strip(), spoken[2] or spoken[3] or ""


def name_speakers(cues: Sequence[Cue]) -> list[list[tuple[str, str, str]]]:
    """Tell whose words cues are, from all cues of a file that has no other mark of speakers.

    What stands before a colon is taken for a speaker if it `is_name`, or one lower-case word, and

    - every cue has such a name; or
    - a name recurs, and half of the cues at least have one (then names that come once count, too); or
    - that name recurs, stands alone on its line, is in capitals, as subtitles write it, or a
      numbered speaker.

    A name with a gender (`Ana (female): yes`), as this package writes it, is one anywhere.

    Returns:
        Of each cue its parts: speaker (empty for none), gender, and words. A cue whose lines begin
        with names has several.
    """
    counts: Counter[str] = Counter()
    named = 0
    for cue in cues:
        names = [name for name in map(_candidate, cue.lines) if name]
        counts.update(names)
        named += bool(names) and _candidate(cue.lines[0]) != ""
    plainly = {name for cue in cues for line in cue.lines if (name := _marked(line))}
    recurring = {name for name, count in counts.items() if count > 1} | plainly
    everywhere = bool(cues) and named == len(cues)
    mostly = bool(recurring) and 2 * named >= len(cues)
    accepted = set(counts) if everywhere or mostly else recurring
    if not mostly:
        accepted = {n for n in accepted if _EXPLICIT.fullmatch(n) or is_name(_bare(n))}
    return [_parts(cue, accepted) for cue in cues]


def _candidate(line: str) -> str:
    """The text before a colon if it may be a name; else empty."""
    split = split_name(line)
    return "" if split is None else _possible(split[0])


@lru_cache(maxsize=4096)
def _possible(name: str) -> str:
    if _EXPLICIT.fullmatch(name):
        return name
    bare = _bare(name)
    one = bare.split() == [bare] and bare.isalpha() and bare.islower() and len(bare) <= 20
    return name if is_name(bare) or (one and bare.capitalize() not in _OPENERS) else ""


def _marked(line: str) -> str:
    """A name that its line alone makes one."""
    split = split_name(line)
    name = "" if split is None else _possible(split[0])
    capitals = len(name) > 2 and name.isupper() and any(map(str.isalpha, name))
    numbered = _IDENTIFIER.fullmatch(_bare(name)) is not None
    return name if split and (not split[1] or capitals or numbered) else ""


def label_of(label: str) -> tuple[str, bool]:
    """The form of a label that SubRip can hold, and whether it is plainly a name there."""
    fitted = re.sub("[:：]", "_", label.strip())
    return fitted, is_name(fitted) and _bare(fitted) == fitted


def _bare(name: str) -> str:
    """A name without brackets around all of it: `[SPEAKER_00]`."""
    enclosed = _ENCLOSED.fullmatch(name)
    return (enclosed[1] or enclosed[2]).strip() if enclosed else name


def _parts(cue: Cue, accepted: set[str]) -> list[tuple[str, str, str]]:
    parts: list[tuple[str, str, list[str]]] = []
    for line in cue.lines:
        split = split_name(line)
        if (
            split is not None
            and _EXPLICIT.fullmatch(split[0])
            and (not parts or split[0] in accepted)
        ):
            parts.append((*parse_caption(split[0]), [split[1]]))
        elif split is not None and split[0] in accepted:
            parts.append((_bare(split[0]), "unknown", [split[1]]))
        elif parts:
            parts[-1][2].append(line)
        else:
            parts.append(("", "unknown", [line]))
    return [
        (speaker, gender, " ".join(filter(None, words))) for speaker, gender, words in parts
    ] or [("", "unknown", "")]
