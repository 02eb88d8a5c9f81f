"""Captions that can be read while they are heard: cues cut to the habits of subtitles, as SRT, VTT or ASS.

A cue holds one speaker, at most two lines of 42 characters and 7 s, and stays long enough to be read at
20 characters a second, where the next cue leaves room (Netflix's and the BBC's guides use such numbers).
It is cut at clauses. Unlike `render_srt` and `render_vtt`, which write one cue a segment, these are not
meant to be read back.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import FormatError
from ..transcript import Segment, Transcript, find_words
from .captions import caption
from .clock import subtitle_time, to_ms

_TOKEN = re.compile(
    r"[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uff00-\uffef]"
    r"|[^\s\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uff00-\uffef]+"
)
"""A word, or where writing has no spaces one character."""
_STRONG, _WEAK = frozenset(".?!…。？！"), frozenset(",;:–—，、；：")
_LINKING = frozenset(
    (
        *(
            "and",
            "or",
            "so",
            "but",
            "because",
            "that",
            "which",
            "who",
            "when",
            "where",
            "if",
            "then",
        ),
        *(
            "than",
            "as",
            "to",
            "of",
            "in",
            "on",
            "for",
            "with",
            "while",
            "und",
            "oder",
            "aber",
            "weil",
        ),
        *("dass", "et", "ou", "mais", "que", "qui", "y", "o", "pero", "porque"),
    )
)
"""Words that a line had better begin than end with."""
_GAP_S = 0.04
_COLOURS = ("FFFFFF", "62D0FF", "FFD166", "9BE7A5", "FF9E9E", "D7B3FF", "F7B267", "8EE3EF")
"""Colours of speakers, RGB, on dark pictures."""


@dataclass(frozen=True, slots=True)
class Habits:
    """Limits of a cue.

    Attributes:
        line_chars: of a line.
        lines: of a cue.
        longest_s: of a cue.
        chars_per_s: that can be read.
        genders: whether names come with the gender.

    Raises:
        FormatError: a number is too small to hold anything.
    """

    line_chars: int = 42
    lines: int = 2
    longest_s: float = 7.0
    chars_per_s: float = 20.0
    genders: bool = True

    def __post_init__(self) -> None:
        if self.line_chars < 8 or self.lines < 1 or self.longest_s < 1 or self.chars_per_s < 1:
            raise FormatError(
                f"captions of {self.lines} lines of {self.line_chars} characters, {self.longest_s} s, "
                f"{self.chars_per_s} characters a second: expected at least 1, 8, 1 and 1"
            )


@dataclass(frozen=True, slots=True)
class WrittenCue:
    """A cue of captions before it is written.

    Attributes:
        label: of the speaker.
        speaker: the label as it is shown.
        opens: whether the speaker is named, because another spoke before.
        lines: of text.
        start_s, end_s: in seconds of the recording.
    """

    label: str
    speaker: str
    opens: bool
    lines: tuple[str, ...]
    start_s: float
    end_s: float


def cues(transcript: Transcript, habits: Habits, *, named: bool = True) -> list[WrittenCue]:
    """The cues of a transcript, in order of start.

    Args:
        named: whether a speaker's name stands before the first line of a turn.
    """
    made: list[WrittenCue] = []
    before = None
    for segment in transcript.segments:
        name = caption(segment.speaker, segment.gender if habits.genders else "unknown")
        lead = f"{name}: " if named and segment.speaker != before else ""
        for part in _parts(segment, lead, habits):
            made.append(
                replace(part, label=segment.speaker, speaker=name, opens=segment.speaker != before)
            )
            before = segment.speaker
    return [_long_enough(cue, after, habits) for cue, after in _followed(made)]


def render_srt_to_read(transcript: Transcript, habits: Habits) -> str:
    """SRT; a cue names its speaker where somebody else spoke before."""
    blocks = []
    for number, cue in enumerate(cues(transcript, habits), start=1):
        times = f"{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}"
        text = "\n".join(cue.lines)
        name = f"{cue.speaker.replace(':', '_')}: " if cue.opens else ""
        blocks.append(f"{number}\n{times}\n{name}{text}\n")
    return "\n".join(blocks)


def render_vtt_to_read(transcript: Transcript, habits: Habits) -> str:
    """WebVTT with voices; warnings as comments."""
    notes = "".join(f"\nNOTE {_note(text)}\n" for text in transcript.warnings)
    blocks = [
        f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n"
        f"<v {_escape(cue.speaker)}>{_escape(chr(10).join(cue.lines))}</v>\n"
        for cue in cues(transcript, habits, named=False)
    ]
    return "WEBVTT\n" + notes + "".join(f"\n{block}" for block in blocks)


def render_ass(transcript: Transcript, habits: Habits) -> str:
    """ASS: each speaker in a colour, and on a lane above the others while they talk at the same time."""
    speakers = transcript.speakers
    styles = [
        f"Style: {_style(n)},Arial,54,&H00{c[4:6]}{c[2:4]}{c[0:2]},&H000000FF,&H00101010,&H80000000,"
        "0,0,0,0,100,100,0,0,1,2.5,1,2,80,80,40,1"
        for n, c in enumerate(_COLOURS[n % len(_COLOURS)] for n in range(len(speakers)))
    ]
    events, until = [], list[tuple[float, int]]()
    for cue in cues(transcript, habits):
        number = speakers.index(cue.label)
        until = [(end_s, lane) for end_s, lane in until if end_s > cue.start_s]
        lane = next(n for n in range(len(until) + 1) if n not in {used for _, used in until})
        until.append((cue.end_s, lane))
        shown = "\\N".join(_ass(line) for line in cue.lines)
        shown = f"{{\\b1}}{_ass(cue.speaker)}:{{\\b0}} {shown}" if cue.opens else shown
        events.append(
            f"Dialogue: {lane},{_ass_time(cue.start_s)},{_ass_time(cue.end_s)},{_style(number)},"
            f"{_ass(cue.speaker).replace(',', ' ')},0,0,{40 + 150 * lane},,{shown}"
        )
    head = [
        "[Script Info]",
        *(f"; {_note(text)}" for text in transcript.warnings),
        f"Title: {_note(transcript.recording)}",
        "ScriptType: v4.00+",
        "PlayResX: 1920",
        "PlayResY: 1080",
        "WrapStyle: 2",
        "",
        "[V4+ Styles]",
        "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, "
        "Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, "
        "Shadow, Alignment, MarginL, MarginR, MarginV, Encoding",
        *styles,
        "",
        "[Events]",
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text",
    ]
    return "".join(f"{line}\n" for line in [*head, *events])


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a segment: where it stands in its text, and when it was said."""

    at: int
    until: int
    start_s: float
    end_s: float


def _parts(segment: Segment, lead: str, habits: Habits) -> Iterator[WrittenCue]:
    """A segment in cues; the first has room for the speaker's name."""
    words = _timed(segment)
    if not words:
        return
    for n, (first, last) in enumerate(_cut(segment, words, 0, len(words), lead, habits)):
        text = segment.text[words[first].at : words[last - 1].until]
        lines = _wrapped(text, _room(lead, habits) if n == 0 else 0, habits) or (text,)
        start_s, end_s = _shown(segment, words, first, last)
        end_s = min(max(end_s, start_s + 0.001), start_s + habits.longest_s)
        yield WrittenCue("", "", False, lines, start_s, end_s)


def _shown(segment: Segment, words: Sequence[_Word], first: int, last: int) -> tuple[float, float]:
    """Return the time in which words `[first, last)` are shown: until the next word begins."""
    start_s = segment.start_s if first == 0 else words[first].start_s
    return start_s, segment.end_s if last == len(words) else words[last].start_s


def _timed(segment: Segment) -> list[_Word]:
    """The words of a segment, with their times where known, else by their length."""
    places = [match.span() for match in _TOKEN.finditer(segment.text)]
    known = segment.words and find_words(segment.text, segment.words)
    if segment.words and known:
        spans = list(zip(known, segment.words, strict=True))
        words: list[_Word] = []
        for at, until in places:
            own = [word for (a, b), word in spans if a < until and at < b]
            start_s = own[0].start_s if own else words[-1].end_s if words else segment.start_s
            words.append(_Word(at, until, start_s, own[-1].end_s if own else start_s))
        return words
    length = max(1, len(segment.text))
    per_char_s = segment.duration_s / length
    return [
        _Word(a, b, segment.start_s + a * per_char_s, segment.start_s + b * per_char_s)
        for a, b in places
    ]


def _cut(
    segment: Segment, words: Sequence[_Word], first: int, last: int, lead: str, habits: Habits
) -> Iterator[tuple[int, int]]:
    """Stretches of words `[first, last)` that fit a cue each; halved where they do not, near the
    middle and at the best place."""
    text = segment.text[words[first].at : words[last - 1].until]
    begins_s, ends_s = _shown(segment, words, first, last)
    lasts_s = ends_s - begins_s
    room = _room(lead, habits) if first == 0 else 0
    if last - first == 1 or (lasts_s <= habits.longest_s and _wrapped(text, room, habits)):
        yield first, last
        return
    middle = (words[first].at + words[last - 1].until) / 2
    width = words[last - 1].until - words[first].at

    def cost(k: int) -> float:
        away = abs((words[k - 1].until + words[k].at) / 2 - middle) / width
        return away - _merit(segment.text, words[k - 1], words[k])

    best = min(range(first + 1, last), key=cost)
    yield from _cut(segment, words, first, best, lead, habits)
    yield from _cut(segment, words, best, last, "", habits)


def _room(lead: str, habits: Habits) -> int:
    """The characters of a line that a name takes; a long name shares its line."""
    return min(len(lead), habits.line_chars // 2)


def _merit(text: str, before: _Word, after: _Word) -> float:
    """Return how good a cut between two words is, 0..0.35: best behind a sentence."""
    ends = text[before.until - 1]
    if ends in _STRONG:
        return 0.35
    if ends in _WEAK or after.start_s - before.end_s >= 0.3:
        return 0.25
    word = text[after.at : after.until].lower()
    return 0.1 if word in _LINKING else 0.0


def _wrapped(text: str, room: int, habits: Habits) -> tuple[str, ...] | None:
    """A text in lines, the first `room` characters shorter; `None` where they do not hold it."""
    if len(text) + room <= habits.line_chars:
        return (text,)
    words = [match.span() for match in _TOKEN.finditer(text)]
    if habits.lines == 2 and len(words) > 1:
        fits = [
            k
            for k in range(1, len(words))
            if words[k - 1][1] + room <= habits.line_chars
            and len(text) - words[k][0] <= habits.line_chars
        ]
        if not fits:
            return None

        def cost(k: int) -> float:
            ends = text[words[k - 1][1] - 1]
            good = 0.3 if ends in _STRONG | _WEAK else 0.0
            return abs(words[k - 1][1] + room - len(text) / 2) / len(text) - good

        best = min(fits, key=cost)
        return text[: words[best - 1][1]], text[words[best][0] :]
    lines, at = [], 0
    width = habits.line_chars - room
    for before, after in pairwise([*words, (len(text), len(text))]):
        if after[1] - at > width and before[1] > at:
            lines.append(text[at : before[1]])
            at, width = after[0], habits.line_chars
    lines += [text[at:]] if text[at:] else []
    return tuple(lines) if len(lines) <= habits.lines else None


def _followed(made: Sequence[WrittenCue]) -> Iterator[tuple[WrittenCue, float]]:
    """Each cue with the start of the next one that begins after its end."""
    ordered = sorted(made, key=lambda cue: (cue.start_s, cue.end_s))
    for n, cue in enumerate(ordered):
        later = (other.start_s for other in ordered[n + 1 :] if other.start_s >= cue.end_s - 0.002)
        yield cue, next(later, float("inf"))


def _long_enough(cue: WrittenCue, after_s: float, habits: Habits) -> WrittenCue:
    """A cue that stays until it can be read, as far as the next one allows."""
    needs_s = len(" ".join(cue.lines)) / habits.chars_per_s
    end_s = min(cue.start_s + min(needs_s, habits.longest_s), after_s - _GAP_S)
    return replace(cue, end_s=round(max(cue.end_s, end_s), 3))


def _clock(seconds: float, separator: str) -> str:
    return subtitle_time(to_ms(seconds), separator)


def _note(text: str) -> str:
    """A text on one line, which neither ends a comment nor a cue."""
    return " ".join(text.replace("-->", "->").split())


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _ass(text: str) -> str:
    return text.replace("\\", "\u2216").replace("{", "(").replace("}", ")")


def _ass_time(seconds: float) -> str:
    hundredths = round(seconds * 100)
    minutes, hundredths = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{hundredths // 100:02}.{hundredths % 100:02}"


def _style(number: int) -> str:
    return f"Speaker{number + 1}"
