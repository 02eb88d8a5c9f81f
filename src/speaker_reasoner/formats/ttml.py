"""TTML (DFXP, IMSC, EBU-TT), the captions of broadcasters: paragraphs with times in XML. Read, not written."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from ..errors import FormatError
from ..transcript import Transcript
from .cues import Cue, later_starts, spoken_s
from .subtitles import read_captions

_CLOCK = re.compile(r"(\d{1,6}):(\d\d):(\d\d)(?:(\.\d{1,9})|:(\d{1,4}(?:\.\d{1,3})?))?")
_OFFSET = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)(h|ms|m|s|f|t)")
_OPEN = "paragraphs have no end: they last to the next one's start, the last one as its words take at 150 a minute"
_COLOURS = "colours of captions may tell people apart, and were not read"
_BLOCKS = ("body", "div", "p", "span")


@dataclass(frozen=True, slots=True)
class _Times:
    """Length of a frame and of a tick in seconds, as the head of a file states them."""

    frame_s: Decimal
    tick_s: Decimal

    def read(self, value: str, at: str) -> Decimal:
        """Read a time expression in seconds.

        Raises:
            FormatError: it is none.
        """
        if match := _CLOCK.fullmatch(value.strip()):
            hours, minutes, seconds, rest, frames = match.groups()
            whole_s = Decimal(int(hours) * 3600 + int(minutes) * 60 + int(seconds))
            return whole_s + Decimal(rest or 0) + Decimal(frames or 0) * self.frame_s
        if match := _OFFSET.fullmatch(value.strip()):
            unit_s = {"h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
            unit_s |= {"f": self.frame_s, "t": self.tick_s}
            return Decimal(match[1]) * unit_s[match[2]]
        raise FormatError(f"{at}: expected a time such as 00:00:01.500 or 1.5s, got {value!r}")


@dataclass(slots=True)
class _Caption:
    at: str
    start_s: Decimal
    end_s: Decimal | None
    agent: str
    text: str = ""


def parse_ttml(text: str, where: str) -> list[Transcript]:
    """Parse timed text; one transcript, named after the file.

    Paragraphs, and spans with times of their own, are captions; their times count from those of what holds them. The
    agent of a caption is its speaker; where none has one, a name before a colon is.

    Raises:
        FormatError: it is no XML or no timed text, a time is none, or captions follow each other without times (`seq`).
    """
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise FormatError(f"{where}: not XML: {error}") from error
    if _name(root.tag) != "tt":
        raise FormatError(f"{where}: expected timed text (<tt>), got <{_name(root.tag)[:60]}>")
    notices: Counter[str] = Counter()
    captions: list[_Caption] = []
    times = _times(root, where)
    for body in root:
        if _name(body.tag) == "body":  # texts are whole when all of it was walked
            try:
                captions += list(_captions(body, times, Decimal(0), None, "", where, None))
            except RecursionError as error:
                raise FormatError(f"{where}: elements lie too deep in each other") from error
    for one in captions:
        one.text = "\n".join(" ".join(line.split()) for line in one.text.split("\0")).strip()
    captions = [one for one in captions if one.text]
    captions.sort(key=lambda one: one.start_s)
    people = _people(root)
    cues: list[Cue] = []
    later = later_starts([one.start_s for one in captions])
    for one, later_s in zip(captions, later, strict=True):
        if one.end_s is None:
            notices[_OPEN] += 1
            one.end_s = one.start_s + spoken_s(one.text) if later_s is None else later_s
        lines = [line for line in one.text.split("\n") if line]
        name = people.get(one.agent, one.agent)
        cues.append(Cue(one.at, one.start_s, one.end_s, lines, name=name))
    shown = {
        value
        for e in root.iter()
        if _name(e.tag) in _BLOCKS
        for k, value in e.items()
        if _name(k) == "color"
    }
    if len(shown) > 1 and not any(cue.name for cue in cues):
        notices[_COLOURS] = len(shown)
    return read_captions(cues, where, notices)


def _name(tag: object) -> str:
    """A name of XML without its namespace; empty for a comment."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _attribute(element: ElementTree.Element, name: str) -> str | None:
    return next((value for key, value in element.items() if _name(key) == name), None)


def _times(root: ElementTree.Element, where: str) -> _Times:
    try:
        rate = Decimal(_attribute(root, "frameRate") or 30)
        above, below = (_attribute(root, "frameRateMultiplier") or "1 1").replace(":", " ").split()
        frame_s = Decimal(below) / (rate * Decimal(above))
        ticks = _attribute(root, "tickRate")
        return _Times(
            frame_s,
            1 / Decimal(ticks)
            if ticks
            else frame_s
            if _attribute(root, "frameRate")
            else Decimal(1),
        )
    except (ArithmeticError, ValueError) as error:
        raise FormatError(
            f"{where}: expected rates of frames and ticks as numbers: {error}"
        ) from error


def _people(root: ElementTree.Element) -> dict[str, str]:
    """Return names of agents by their ids."""
    return {
        _attribute(agent, "id") or "": " ".join("".join(name.itertext()).split())
        for agent in root.iter()
        if _name(agent.tag) == "agent"
        for name in agent
        if _name(name.tag) == "name"
    }


def _captions(
    element: ElementTree.Element,
    times: _Times,
    begins_s: Decimal,
    ends_s: Decimal | None,
    agent: str,
    where: str,
    caption: _Caption | None,
) -> Iterator[_Caption]:
    """Yield the captions of an element, which lies in one of these times; `caption` takes words without times of
    their own."""
    kind = _name(element.tag)
    at = f"{where}, <{kind}> {_attribute(element, 'id') or ''}".rstrip()
    if _attribute(element, "timeContainer") == "seq":
        raise FormatError(
            f"{at}: expected captions with times, got a sequence of them (timeContainer)"
        )
    agent = (_attribute(element, "agent") or agent).split(" ")[0]
    begin, end, length = (_attribute(element, key) for key in ("begin", "end", "dur"))
    starts_s = begins_s + times.read(begin, at) if begin is not None else begins_s
    if end is not None:
        ends_s = begins_s + times.read(end, at)
    elif length is not None:
        ends_s = starts_s + times.read(length, at)
    timed = (begin, end, length) != (None, None, None)
    if kind == "p" or (kind == "span" and timed):
        caption = _Caption(f"{at} at {starts_s} s", starts_s, ends_s, agent)
        yield caption
    if caption is not None:
        caption.text += element.text or ""
    for child in element:
        if _name(child.tag) == "br" and caption is not None:
            caption.text += "\0"
        elif _name(child.tag) in _BLOCKS:
            yield from _captions(child, times, starts_s, ends_s, agent, where, caption)
        if caption is not None:
            caption.text += child.tail or ""
