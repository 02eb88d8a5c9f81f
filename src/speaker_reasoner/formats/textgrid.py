"""TextGrid, the annotation format of Praat: one tier per speaker, and one of words with times."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal

from ..errors import FormatError
from ..transcript import Segment, Transcript, recording_name
from .captions import caption, parse_caption
from .clock import decimal_seconds, span_ms, to_ms
from .sessions import UNKNOWN_SPEAKER, Sessions, parse_seconds, unique_labels
from .speaker_tiers import with_speakers
from .tiers import Interval, Tier, sort_tiers
from .words import NATIVE, separate_ms

WORDLESS = "<speech>"
"""Mark of an interval with speech but no words; an empty mark means silence."""

_WORDS = " words"
"""End of the name of a tier of words, behind the name of the tier whose segments have them."""

# Praat reads a text file as a stream of free-standing numbers, quoted strings and flags; all other
# words (`xmin`, `=`, `intervals [1]:`) are for people. That holds for its short form, too.
_FOR_PEOPLE = r'(?:\s+|[A-Za-z\[=][^\s"]*(?!\S))*+'
_TOKEN = re.compile(rf'{_FOR_PEOPLE}(?:"([^"]*(?:""[^"]*)*)"|(![^\n]*)|(\S+)|\Z)')
_MANY_QUOTES = re.compile(r'\n[^"\n]*"[^"\n]*"[^"\n]*"[^\n]*')
_LABEL = re.compile(r'(\s*(?:(?:text|mark|name|class)\s*=\s*)?)"(.*)"(\s*)')
_STRINGS = re.compile(r'(?:[^"]|"")*(?:"\s+"(?:[^"]|"")*)*')
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def render_textgrid(transcript: Transcript) -> str:
    """Render a TextGrid in Praat's long text form.

    One `IntervalTier` per speaker, named `Speaker1 (female)` (an unknown gender is left out), in
    order of appearance. Its intervals tile [0, xmax]; empty ones are silence. A speaker's own
    overlapping segments go to further tiers, `Speaker1 (female)#2` and so on. A segment without
    words is marked `<speech>`. Quotes are doubled. Times have three decimals. xmax is the duration,
    or the end of the last segment if that is later, and at least 1 ms, since Praat needs some time.

    Behind a tier some of whose segments have times of words, there is a tier of these words:
    `Speaker1 (female) words`, `Speaker1 (female)#2 words`. Words do not overlap in it, and last at
    least 1 ms (`separate_ms`); a segment of fewer milliseconds than words has none in it.

    Holds no name of the recording, no confidence.
    """
    spans = [span_ms(segment) for segment in transcript.segments]
    xmax_ms = max([to_ms(transcript.duration_s), 1, *(end_ms for _, end_ms in spans)])
    labels = unique_labels(transcript.speakers, str.strip)
    genders = transcript.genders
    layers: dict[str, list[list[Segment]]] = {label: [] for label in labels}
    for segment, (start_ms, _) in zip(transcript.segments, spans, strict=True):
        tiers = layers[segment.speaker]
        free = next((tier for tier in tiers if span_ms(tier[-1])[1] <= start_ms), None)
        if free is None:
            tiers.append(free := [])
        free.append(segment)
    named: list[tuple[str, list[tuple[int, int, str]]]] = []
    for label, tiers in layers.items():
        for n, tier in enumerate(tiers, start=1):
            name = caption(labels[label], genders[label]) + (f"#{n}" if n > 1 else "")
            named.append((name, [(*span_ms(s), s.text.strip() or WORDLESS) for s in tier]))
            if words := [word for segment in tier for word in _word_intervals(segment)]:
                named.append((f"{name}{_WORDS}", words))
    xmax = decimal_seconds(xmax_ms)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {xmax}", "tiers? <exists>", f"size = {len(named)}", "item []:"]
    for n, (name, marks) in enumerate(named, start=1):
        intervals = _tile(marks, xmax_ms)
        lines += [f"    item [{n}]:", '        class = "IntervalTier"']
        lines += [f"        name = {_quote(name)}", "        xmin = 0", f"        xmax = {xmax}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for i, (start_ms, end_ms, mark) in enumerate(intervals, start=1):
            lines.append(f"        intervals [{i}]:")
            lines.append(f"            xmin = {decimal_seconds(start_ms)}")
            lines.append(f"            xmax = {decimal_seconds(end_ms)}")
            lines.append(f"            text = {_quote(mark)}")
    return "".join(f"{line}\n" for line in lines)


def _word_intervals(segment: Segment) -> list[tuple[int, int, str]]:
    words = segment.words or ()
    spans = separate_ms(words, segment) or []
    return [(*span, word.text) for word, span in zip(words, spans, strict=False)]


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
    without words. `tiers` recognises tiers of words, ours or a forced aligner's: a segment
    has those words whose middles lie in it; words in no segment, or that are not those of its text, are
    counted in the transcript's warnings. So are tiers of points and of phones, quotes in a label
    that should be doubled, and times before 0, where the recording begins: they become 0.

    Raises:
        FormatError: with the line at which something else was expected.
    """
    if text.startswith('"Praat chronological'):
        raise FormatError(f"{where}: a chronological TextGrid; expected one saved as a text file")
    stream = Stream(text, where)
    file_type, object_class = stream.string("file type"), stream.string("object class")
    if not file_type.startswith("ooTextFile") or object_class != "TextGrid":
        raise FormatError(f'{stream.at}: expected "ooTextFile" and "TextGrid"')
    sessions = Sessions()
    session = recording_name(where)
    stream.time("xmin")
    sessions.open(session, duration_s=stream.time("xmax"))
    divided, notices = with_speakers(read_tiers(stream))
    tiers = sort_tiers(divided, where)
    for what, times in (notices | tiers.noticed()).items():
        sessions.count(session, what, times)
    for what, times in stream.notes.items():
        sessions.count(session, what, times)
    named = Counter(tier.name for tier in tiers.speech if tier.intervals)
    sessions.count(
        session,
        "tiers have the name of another one: they were read as one speaker's",
        sum(named.values()) - len(named),
    )
    for tier in tiers.speech:
        if tier.is_points:
            sessions.count(session, "point tiers were not read")
            continue
        label, gender = parse_caption(tier.speaker)
        of_tier = tiers.words.get(tier.name, [])
        inside = _inside(tier.intervals, of_tier)
        for _ in range(len(of_tier) - sum(map(len, inside))):
            sessions.count(session, "words lie in no segment of their tier: they were not read")
        for interval, of_segment in zip(tier.intervals, inside, strict=True):
            rows = [
                dict(zip(NATIVE, (w.mark, float(w.start_s), float(w.end_s)), strict=True))
                for w in of_segment
            ]
            sessions.add(
                session,
                interval.at,
                speaker=label,
                start_s=interval.start_s,
                end_s=interval.end_s,
                text="" if interval.mark == WORDLESS else interval.mark,
                gender=gender,
                words=sessions.words(session, rows, NATIVE, interval.at),
            )
    return sessions.transcripts()


def read_tiers(stream: "Stream") -> list[Tier]:
    """Read the tiers that follow the times of a TextGrid; the end that a tier states is not used.

    Raises:
        FormatError: with the line at which something else was expected.
    """
    tiers = []
    for _ in range(stream.count("number of tiers") if stream.flag() else 0):
        kind = stream.string("class of tier")
        name = stream.string("name of tier").strip() or UNKNOWN_SPEAKER
        tier = Tier(name, [], kind == "TextTier")
        stream.time("xmin")
        stream.time("xmax")
        for _ in range(stream.count("number of intervals")):
            start_s = stream.time("start")
            if tier.is_points:
                stream.string("mark")
                continue
            if kind != "IntervalTier":
                raise FormatError(f"{stream.at}: unknown class of tier {kind!r}")
            end_s = stream.time("end")
            mark = stream.string("text").strip()
            if mark and start_s == end_s == 0:
                stream.notes["segments end before the recording begins and were not read"] += 1
            elif mark:
                tier.intervals.append(Interval(start_s, end_s, mark, stream.at))
        tiers.append(tier)
    return tiers


def _inside(segments: Sequence[Interval], words: Sequence[Interval]) -> list[list[Interval]]:
    """The words whose middles lie in each of the segments."""
    ordered = sorted(words, key=_middle)
    middles = [_middle(word) for word in ordered]
    return [
        ordered[bisect_left(middles, s.start_s) : bisect_left(middles, s.end_s)] for s in segments
    ]


def _middle(interval: Interval) -> Decimal:
    return (interval.start_s + interval.end_s) / 2


def _kind_of(word: str | None) -> str:
    """Return a word as Praat reads it; empty for words for people and comments, which Praat ignores."""
    if word is None:
        return ""
    if _NUMBER.fullmatch(word):
        return "number"
    return "flag" if word in ("<exists>", "<absent>") else "quote" if '"' in word else ""


class Stream:
    """The numbers, strings and flags of a Praat text file, one after the other.

    Quotes in a label are doubled; where many an exporter did not, the label reaches to the last quote
    of its line.

    Attributes:
        notes: irregularities, with their counts.
    """

    def __init__(self, text: str, where: str) -> None:
        self.notes: Counter[str] = Counter()
        self._where = where
        self._line, self._tokens = 1, self._scan(_MANY_QUOTES.sub(self._doubled, f"\n{text}"))

    @property
    def at(self) -> str:
        """File and line of the value that was read last."""
        return f"{self._where}:{self._line}"

    def _doubled(self, match: re.Match[str]) -> str:
        """Double the quotes of a label that stands on a line alone, if they are not."""
        line = match[0]
        label = _LABEL.fullmatch(line)
        if label is None:
            return line
        inner = re.compile(r'(?:[^"]|"")*') if "=" in label[1] else _STRINGS
        if inner.fullmatch(label[2]):
            return line
        self.notes[
            "labels have quotes that are not doubled; they were read to their line's end"
        ] += 1
        text = label[2].replace('""', '"').replace('"', '""')
        return f'{label[1]}"{text}"{label[3]}'

    def _scan(self, text: str) -> Iterator[tuple[str, str]]:
        counted_to = 1  # behind the first line feed, which is not the file's
        for match in _TOKEN.finditer(text):
            string, _, word = match.groups()
            kind = "string" if string is not None else _kind_of(word)
            if not kind:
                continue
            begins = match.start(match.lastindex or 0)
            self._line += text.count("\n", counted_to, begins)
            counted_to = begins
            open_end = string is not None and text[match.end() : match.end() + 1].strip()
            if open_end or kind == "quote":
                shown = word if string is None else f'"{string}"'
                raise FormatError(f"{self.at}: a quote in a label is not doubled: {shown!r}")
            yield kind, word if string is None else string.replace('""', '"')

    def _next(self, kind: str, what: str) -> str:
        got, value = next(self._tokens, ("the end", ""))
        if got != kind:
            raise FormatError(f"{self.at}: expected {what} ({kind}), got {got} {value!r}")
        return value

    def string(self, what: str) -> str:
        return self._next("string", what)

    def flag(self) -> bool:
        return self._next("flag", "<exists>") == "<exists>"

    def time(self, what: str) -> Decimal:
        number = self._next("number", what)
        if number.startswith("-") and float(number) < 0:
            self.notes["times lie before the recording and became 0"] += 1
            return Decimal(0)
        return parse_seconds(number, self.at, what)

    def count(self, what: str) -> int:
        number = self._next("number", what)
        if not number.isdecimal():
            raise FormatError(f"{self.at}: expected {what}, got {number!r}")
        return int(number)
