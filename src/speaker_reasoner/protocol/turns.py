"""The dialogue's text: render turns, parse turns. `parse(render(x)) == x`.

Times are kept as integer ticks (the last written decimal), so that rendering and parsing are exact.
Lines and boxes satisfy the two expressions of the released runner, line for line:

    (?:^|\\n)([^\\[\\n]+?)\\s*\\[\\s*(\\d+(?:\\.\\d+)?)\\s*,\\s*(\\d+(?:\\.\\d+)?)\\s*\\]\\s*:\\s*(.*)
    <box>\\[\\s*(\\d+(?:\\.\\d+)?)\\s*,\\s*(\\d+(?:\\.\\d+)?)\\s*\\]</box>
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ProtocolError
from .markup import ANSWER, ANSWER_END, BOX, BOX_END, THINK, THINK_END
from .profile import Profile

LINE = re.compile(
    r"(?:^|\n)([^\[\n]+?)\s*\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]\s*:[^\S\n]*(.*)"
)
BOX_TEXT = re.compile(r"<box>\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]</box>")
_NUMBER = re.compile(r"\d+")
_OVERVIEW = re.compile(r"\s*(\d+)\s*(?:speakers?|(?:位|个|名)?\s*(?:说话人|发言人|讲话人))")
_FEMALE = re.compile(r"female|woman|女|[-_(（]\s*f\b", re.IGNORECASE)
_MALE = re.compile(r"male|\bman\b|男|[-_(（]\s*m\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Box:
    """The boundary of an observation, in ticks of the chunk."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Line:
    """One segment as the model writes it: speaker number, gender, ticks of the chunk, words."""

    speaker: int
    gender: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Genders of speakers 1..n in order of appearance."""

    genders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn.

    Attributes:
        overview: in the first turn, where it could be read.
        lines: segments of the observation just heard.
        box: the next observation; `None` when the dialogue ends with this turn.
        answer: the final transcript, where the turn holds one.
    """

    overview: Overview | None = None
    lines: tuple[Line, ...] = ()
    box: Box | None = None
    answer: tuple[Line, ...] | None = None


def seconds(ticks: int, profile: Profile) -> str:
    """Ticks as written: `52` is `0.52` with two decimals."""
    whole, part = divmod(ticks, profile.ticks_per_s)
    return f"{whole}.{part:0{profile.decimals}d}"


def render_overview(overview: Overview, profile: Profile) -> str:
    words, count = profile.wording, len(overview.genders)
    head = words.overview_one if count == 1 else words.overview.format(n=count)
    labels = [words.label(n, g) for n, g in enumerate(overview.genders, start=1)]
    return head + (words.colon + words.separator.join(labels) if labels else "")


def render_line(line: Line, profile: Profile) -> str:
    label = profile.wording.label(line.speaker, line.gender)
    times = f"[{seconds(line.start, profile)}, {seconds(line.end, profile)}]"
    return f"{label} {times}: {line.text}".rstrip(" ")


def render_lines(lines: Sequence[Line], profile: Profile) -> str:
    """Lines, each followed by a line break."""
    return "".join(render_line(line, profile) + "\n" for line in lines)


def render_answer(lines: Sequence[Line], profile: Profile) -> str:
    return f"{ANSWER}\n{render_lines(lines, profile)}{ANSWER_END}"


def render_box(box: Box, profile: Profile) -> str:
    return f"{BOX}[{seconds(box.start, profile)}, {seconds(box.end, profile)}]{BOX_END}"


def render_turn(turn: Turn, profile: Profile) -> str:
    """An assistant turn as a model of this profile writes it (`native` layout)."""
    inner = render_lines(turn.lines, profile)
    if turn.overview is not None:
        inner = render_overview(turn.overview, profile) + "\n"
    text = f"{THINK}\n{inner}{THINK_END}"
    if turn.box is not None:
        text += render_box(turn.box, profile)
    if turn.answer is not None:
        text += render_answer(turn.answer, profile)
    return text


def _ticks(text: str, profile: Profile) -> int:
    return int(float(text) * profile.ticks_per_s + 0.5)


def parse_gender(label: str) -> str:
    """Parse the gender in a speaker label: female/woman/女, male/man/男, else unknown."""
    if _FEMALE.search(label):
        return "female"
    return "male" if _MALE.search(label) else "unknown"


def parse_lines(
    text: str, profile: Profile, numbers: dict[str, int] | None = None
) -> tuple[Line, ...]:
    """Every transcript line in `text`, by the released expression.

    Args:
        numbers: speaker numbers read so far, by their digits, or by the label where it carries
            none ("Alice (F)", "甲-男") and gets the next free one; extended in place.

    Raises:
        ProtocolError: a line's end is not after its start.
    """
    lines = []
    known = {} if numbers is None else numbers
    for label, start, end, words in LINE.findall(text):
        match = _NUMBER.search(label)
        if match:
            number = known.setdefault(match.group(), int(match.group()))
        else:
            number = known.setdefault(label.strip(), max(known.values(), default=0) + 1)
        line = Line(
            number, parse_gender(label), _ticks(start, profile), _ticks(end, profile), words.strip()
        )
        if line.end <= line.start:
            raise ProtocolError(f"line {label.strip()!r} [{start}, {end}]: expected start < end")
        lines.append(line)
    return tuple(lines)


def parse_overview(text: str, most: int) -> Overview | None:
    """Speaker count and genders of the first turn; `None` where no count up to `most` is given."""
    match = _OVERVIEW.search(text)
    if match is None or int(match.group(1)) > most:
        return None
    count = int(match.group(1))
    words = re.findall(r"female|male|unknown|女|男|未知", text[match.end() :], re.IGNORECASE)
    genders = [parse_gender(word) for word in words[:count]]
    return Overview(tuple(genders + ["unknown"] * (count - len(genders))))


def parse_turn(
    text: str, profile: Profile, *, first: bool, numbers: dict[str, int] | None = None
) -> Turn:
    """Read one assistant turn.

    Args:
        text: the turn, without its end-of-turn token.
        first: whether it is the overview turn, which holds no segments.

    Raises:
        ProtocolError: a tag is missing or unclosed, or the turn has neither box nor answer.
    """
    thought, rest = _between(text, THINK, THINK_END)
    box_text = BOX_TEXT.search(rest)
    box = None
    if box_text is not None:
        box = Box(_ticks(box_text.group(1), profile), _ticks(box_text.group(2), profile))
        if box.end <= box.start:
            raise ProtocolError(f"box {box_text.group()!r} ends before it starts")
    answer = None
    if box is None:
        if ANSWER not in rest:
            raise ProtocolError(f"turn has neither a readable {BOX} nor {ANSWER}: {rest[:80]!r}")
        if ANSWER_END in rest:
            answer = parse_lines(_between(rest, ANSWER, ANSWER_END)[0], profile, numbers)
    if first:
        return Turn(overview=parse_overview(thought, profile.max_speakers), box=box, answer=answer)
    return Turn(lines=parse_lines(thought, profile, numbers), box=box, answer=answer)


def _between(text: str, start: str, end: str) -> tuple[str, str]:
    head = text.find(start)
    tail = text.find(end, head + len(start))
    if head < 0 or tail < 0:
        raise ProtocolError(f"turn has no complete {start}...{end}: {text[:80]!r}")
    return text[head + len(start) : tail], text[tail + len(end) :]
