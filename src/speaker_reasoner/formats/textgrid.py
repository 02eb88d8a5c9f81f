"""TextGrid, the annotation format of Praat: one tier per speaker."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from ..errors import FormatError
from ..transcript import Transcript
from .captions import caption, parse_caption
from .clock import decimal_seconds, span_ms, to_ms
from .sessions import Sessions, parse_seconds, unique_labels

WORDLESS = "<speech>"
"""Mark of an interval with speech but no words; an empty mark means silence."""

# Praat reads a text file as a stream of free-standing numbers, quoted strings and flags; all other
# words (`xmin`, `=`, `intervals [1]:`) are for people. That holds for its short form, too.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(![^\n]*)|(\S+)')
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def render_textgrid(transcript: Transcript) -> str:
    """Render a TextGrid in Praat's long text form.

    One `IntervalTier` per speaker, named `Speaker1 (female)` (an unknown gender is left out), in
    order of appearance. Its intervals tile [0, xmax]; empty ones are silence. A speaker's own
    overlapping segments go to further tiers, `Speaker1 (female)#2` and so on. A segment without
    words is marked `<speech>`. Quotes are doubled. Times have three decimals. xmax is the duration,
    or the end of the last segment if that is later, and at least 1 ms, since Praat needs some time.
    Holds no name of the recording.
    """
    spans = [span_ms(segment) for segment in transcript.segments]
    xmax_ms = max([to_ms(transcript.duration_s), 1, *(end_ms for _, end_ms in spans)])
    labels = unique_labels(transcript.speakers, str.strip)
    genders = transcript.genders
    layers: dict[str, list[list[tuple[int, int, str]]]] = {label: [] for label in labels}
    for segment, (start_ms, end_ms) in zip(transcript.segments, spans, strict=True):
        tiers = layers[segment.speaker]
        free = next((tier for tier in tiers if tier[-1][1] <= start_ms), None)
        if free is None:
            tiers.append(free := [])
        free.append((start_ms, end_ms, segment.text.strip() or WORDLESS))
    named = [
        (caption(labels[label], genders[label]) + (f"#{n}" if n > 1 else ""), tier)
        for label, tiers in layers.items()
        for n, tier in enumerate(tiers, start=1)
    ]
    xmax = decimal_seconds(xmax_ms)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {xmax}", "tiers? <exists>", f"size = {len(named)}", "item []:"]
    for n, (name, tier) in enumerate(named, start=1):
        intervals = _tile(tier, xmax_ms)
        lines += [f"    item [{n}]:", '        class = "IntervalTier"']
        lines += [f"        name = {_quote(name)}", "        xmin = 0", f"        xmax = {xmax}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for i, (start_ms, end_ms, mark) in enumerate(intervals, start=1):
            lines.append(f"        intervals [{i}]:")
            lines.append(f"            xmin = {decimal_seconds(start_ms)}")
            lines.append(f"            xmax = {decimal_seconds(end_ms)}")
            lines.append(f"            text = {_quote(mark)}")
    return "".join(f"{line}\n" for line in lines)


def _tile(tier: list[tuple[int, int, str]], xmax_ms: int) -> list[tuple[int, int, str]]:
    """Fill the gaps between intervals in order with empty ones."""
    tiled = []
    reached_ms = 0
    for start_ms, end_ms, mark in tier:
        if start_ms > reached_ms:
            tiled.append((reached_ms, start_ms, ""))
        tiled.append((start_ms, end_ms, mark))
        reached_ms = end_ms
    if reached_ms < xmax_ms:
        tiled.append((reached_ms, xmax_ms, ""))
    return tiled


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def parse_textgrid(text: str, where: str) -> list[Transcript]:
    """Parse a TextGrid, long or short; one transcript, named after the file.

    Each interval tier is a speaker; marks other than empty ones are segments, `<speech>` being one
    without words. Point tiers are counted in the transcript's warnings.

    Raises:
        FormatError: with the line at which something else was expected.
    """
    stream = Stream(text, where)
    file_type, object_class = stream.string("file type"), stream.string("object class")
    if not file_type.startswith("ooTextFile") or object_class != "TextGrid":
        raise FormatError(f'{stream.at}: expected "ooTextFile" and "TextGrid"')
    sessions = Sessions()
    session = Path(where).stem
    stream.time("xmin")
    sessions.open(session, duration_s=stream.time("xmax"))
    if not stream.flag():
        return sessions.transcripts()
    for _ in range(stream.count("number of tiers")):
        kind = stream.string("class of tier")
        name = stream.string("name of tier")
        stream.time("xmin")
        stream.time("xmax")
        label, gender = parse_caption(re.sub(r"#\d+$", "", name.strip()))
        for _ in range(stream.count("number of intervals")):
            start_s = stream.time("start")
            if kind == "TextTier":
                stream.string("mark")
                continue
            if kind != "IntervalTier":
                raise FormatError(f"{stream.at}: unknown class of tier {kind!r}")
            end_s = stream.time("end")
            mark = stream.string("text").strip()
            at = stream.at
            if mark:
                words = "" if mark == WORDLESS else mark
                sessions.add(
                    session,
                    at,
                    speaker=label,
                    start_s=start_s,
                    end_s=end_s,
                    text=words,
                    gender=gender,
                )
        if kind == "TextTier":
            sessions.count(session, "point tiers were not read")
    return sessions.transcripts()


class Stream:
    """The numbers, strings and flags of a Praat text file, one after the other."""

    def __init__(self, text: str, where: str) -> None:
        self.at = f"{where}:1"
        self._where = where
        self._tokens = self._scan(text)

    def _scan(self, text: str) -> Iterator[tuple[str, str]]:
        line, counted_to = 1, 0
        for match in _TOKEN.finditer(text):
            line += text.count("\n", counted_to, match.start())
            counted_to = match.start()
            self.at = f"{self._where}:{line}"
            string, comment, word = match.groups()
            if string is not None:
                yield "string", string.replace('""', '"')
            elif comment is None and word in ("<exists>", "<absent>"):
                yield "flag", word
            elif comment is None and _NUMBER.fullmatch(word):
                yield "number", word

    def _next(self, kind: str, what: str) -> str:
        found, value = next(self._tokens, ("the end", ""))
        if found != kind:
            raise FormatError(f"{self.at}: expected {what} ({kind}), got {found} {value!r}")
        return value

    def string(self, what: str) -> str:
        return self._next("string", what)

    def flag(self) -> bool:
        return self._next("flag", "<exists>") == "<exists>"

    def time(self, what: str) -> Decimal:
        return parse_seconds(self._next("number", what), self.at, what)

    def count(self, what: str) -> int:
        number = self._next("number", what)
        if not number.isdecimal():
            raise FormatError(f"{self.at}: expected {what}, got {number!r}")
        return int(number)
