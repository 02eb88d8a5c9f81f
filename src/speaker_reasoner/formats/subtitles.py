"""SRT and WebVTT: cues that players show over the recording. Cues may overlap, as speech does."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from ..errors import FormatError
from ..transcript import Segment, Transcript, Word, find_words, recording_name
from .captions import caption, parse_caption
from .changes import MARK, go_on
from .clock import span_ms, subtitle_time
from .cues import (
    SOUND,
    SOUNDS,
    VOICE,
    Cue,
    as_subrip,
    parse_clock,
    plain,
    read_cues,
    unmarked,
    unrolled,
    without_formatting,
    without_references,
)
from .names import in_capitals, label_of, name_speakers, names_inside, remarked, split_name
from .sessions import Sessions, unique_labels
from .words import separate_ms, spelled

_VTT_TIMESTAMP = re.compile(r"<((?:\d+:)?[0-5]\d:[0-5]\d\.\d{3})>")
_TIMESTAMP_MAP = re.compile(r"^X-TIMESTAMP-MAP=(?!.*MPEGTS:0\b).*LOCAL:", re.MULTILINE)
_VTT_HEADER = re.compile(r".*(?:\n(?!.*-->).+)*")
_VTT_BLOCKS = re.compile(r"\n\n(?=(?:NOTE|STYLE|REGION)(?:\s|\Z))(?!.*-->).+(?:\n(?!.*-->).+)*")
"""Both reach to an empty line, or to a line with an arrow."""
_CAPITALS = (
    "cues begin with capitals and a colon that do not tell a speaker by the other cues (a place, a heading?); they "
    "were read as words"
)
_REMARKS = "names come with a remark in brackets, which was left out"
_INSIDE = "times a speaker's name and a colon stand inside of a line, and were read as words"
_TWO = (
    "cues without a name hold several lines that begin with a dash, mostly of two people: scores of speakers take "
    "them for one person"
)
_GOES_ON = "cues name no speaker and were given to whoever spoke before: names come at changes of the speaker alone"
_TWICE = "cues begin with the name of their voice and a colon, which were read as words"
_COLOUR = re.compile(r"<(?:font[^>]*\bcolor=[\"']?([#\w]+)|c\.(\w+))", re.IGNORECASE)
_COLOURS = "colours or classes of cues may tell people apart, and were not read"
_HOUR_S = 3600
_LATE = "cue begins the file after an hour: perhaps a time code that begins there; times were taken as they stand"
_MARKED = "cues show the line of the cue before with another word marked, which was read once"
_ROLLED = "cues repeat lines of the cue before, which were read once"
_EMPTY = "cues hold no words and name no speaker; they were left out"
_REFERENCES = "cues hold character references such as &amp;, which were read as characters"
_MAPPED = "header lines map the cues to a stream's clock; their times were taken as they stand"
_WEBEX = re.compile(r'\d+ "([^"]+)"(?: \(\d+\))?')
_CHANGE = re.compile(r"^\s*(?:&gt;|>|≫|＞)+\s*")
_METADATA = re.compile(r"\{\s*\".*\}|\S+#xywh=.*", re.DOTALL)
_HOLED = "cues hold empty lines; what follows them was read as their text"


def render_srt(transcript: Transcript) -> str:
    """Render SubRip: numbered cues of a timing line and a line `Speaker1 (female): text`.

    The timing line is `hh:mm:ss,mmm --> hh:mm:ss,mmm`. A cue lasts at least 1 ms. An unknown gender
    is left out, except behind a label that would not be taken for a name (`is_name`), where it makes
    it one. A colon in a speaker's label becomes `_`, since the first colon ends the label. SubRip has
    no escapes: text stays as it is, but for what readers would take for marks (`<i>`, `{\\an8}`,
    `&amp;`), whose first character becomes a numeric reference. An empty transcript is an empty file. Holds
    no duration, no name of the recording, no times of words.
    """
    labels = unique_labels(transcript.speakers, lambda label: label_of(label)[0])
    cues = []
    for number, segment in enumerate(transcript.segments, start=1):
        start, end = (subtitle_time(ms, ",") for ms in span_ms(segment))
        label = labels[segment.speaker]
        named = caption(label, segment.gender)
        if named == label and not label_of(label)[1]:
            named = f"{label} (unknown)"
        cues.append(
            f"{number}\n{start} --> {end}\n{as_subrip(f'{named}: {segment.text}'.rstrip())}\n"
        )
    return "\n".join(cues)


def parse_srt(text: str, where: str) -> list[Transcript]:
    """Parse SubRip, or YouTube's SBV; one transcript, named after the file.

    Cues, tags and speakers follow the rules of `cues` and `names`: a cue begins with its timing line,
    formatting is taken off, lines that roll are read once, and what precedes a colon is a speaker
    where it is a name; so are voices (`<v Ana>`), where a file has them. Cues without a speaker, and
    sounds in brackets, are counted in the transcript's warnings. Lines of a cue are joined by spaces.

    Raises:
        FormatError: text stands before the first timing line, or times are reversed.
    """
    cues, again = unmarked(read_cues(text, where, numbered=True), text)
    without_formatting(cues)
    sessions, session = _opened(where)
    _count_cues(cues, again, sessions, session)
    if _voiced(cues):
        for cue in cues:
            for voice, words in _split_voices(" ".join(cue.lines)):
                _add(sessions, session, cue, voice.strip(), "unknown", plain(words).strip())
        return sessions.transcripts()
    sessions.count(session, _REFERENCES, without_references(cues))
    for cue, parts in _named(cues, str, sessions, session, text):
        for speaker, gender, words in parts:
            _add(sessions, session, cue, speaker, gender, words)
    return sessions.transcripts()


def read_captions(cues: list[Cue], where: str, notices: Mapping[str, int]) -> list[Transcript]:
    """Read cues of plain lines, in which no tags are left; one transcript, named after the file.

    Args:
        cues: with the speaker as their name, if the format states speakers; where no cue has one, what precedes a colon
            is a speaker where it is a name (`names.name_speakers`).
        where: the file.
        notices: warnings with their counts.

    Raises:
        FormatError: none of the cues holds anything, or times are reversed.
    """
    sessions, session = _opened(where)
    for what, count in notices.items():
        sessions.count(session, what, count)
    _count_cues(cues, 0, sessions, session)
    if any(cue.name for cue in cues):
        for cue in cues:
            speaker, gender = parse_caption(cue.name)
            _add(sessions, session, cue, speaker, gender, " ".join(cue.lines))
        return sessions.transcripts()
    for cue, parts in _named(cues, str, sessions, session, ""):
        for speaker, gender, words in parts:
            _add(sessions, session, cue, speaker, gender, words)
    return sessions.transcripts()


def _count_cues(cues: list[Cue], again: int, sessions: Sessions, session: str) -> None:
    """Count what is noticed about the cues of a file.

    Raises:
        FormatError: none of them holds anything.
    """
    if cues and not any(cue.lines for cue in cues):
        raise FormatError(
            f"{cues[0].at}: expected words on the lines below a timing, got none in any cue"
        )
    sessions.count(session, _MARKED, again)
    sessions.count(session, _LATE, bool(cues) and cues[0].start_s >= _HOUR_S)


def _voiced(cues: list[Cue]) -> bool:
    return any("<v" in line and VOICE.search(line) for cue in cues for line in cue.lines)


def _opened(where: str) -> tuple[Sessions, str]:
    sessions, session = Sessions(), recording_name(where)
    sessions.open(session)
    return sessions, session


def _named(
    cues: list[Cue], shown: Callable[[str], str], sessions: Sessions, session: str, text: str
) -> Iterator[tuple[Cue, list[tuple[str, str, str]]]]:
    """Return cues without rolled lines, and the parts of each; count warnings."""
    cues, repeats = unrolled(cues, shown)
    sessions.count(session, _ROLLED, repeats)
    sessions.count(session, _HOLED, sum(cue.holed for cue in cues))
    texts = cues
    if shown is not str:
        texts = [Cue(c.at, c.start_s, c.end_s, [shown(line) for line in c.lines]) for c in cues]
    named = name_speakers(texts)
    sessions.count(session, _GOES_ON, go_on(named))
    people = {part[0] for parts in named for part in parts} - {"", MARK}
    colours = set(_COLOUR.findall(text)) if not people else ()
    sessions.count(session, _COLOURS, len(colours) if len(colours) > 1 else 0)
    for cue, shown_cue, parts in zip(cues, texts, named, strict=True):
        for part in parts:
            if ":" in part[2]:
                sessions.count(session, _INSIDE, names_inside(part[2], people))
        if len(shown_cue.lines) > 1 and not any(part[0] for part in parts):
            dashed = sum(line[:1] in "-–—" for line in shown_cue.lines if line)
            sessions.count(session, _TWO, dashed > 1)
        if parts[0][0] in ("", MARK) and ":" in parts[0][2]:
            split = split_name(shown_cue.lines[0]) if shown_cue.lines else None
            sessions.count(session, _CAPITALS, split is not None and in_capitals(split[0]))
        elif any("(" in line or "[" in line for line in shown_cue.lines[:1]):
            split = split_name(shown_cue.lines[0])
            base = remarked(split[0]) if split is not None else ""
            sessions.count(session, _REMARKS, base != "" and base == parts[0][0])
        yield cue, parts


def _add(
    sessions: Sessions,
    session: str,
    cue: Cue,
    speaker: str,
    gender: str,
    text: str,
    words: list[Word] | None = None,
) -> None:
    if not speaker and not text:
        sessions.count(session, _EMPTY)
        return
    if SOUND.search(text):
        sessions.count(session, f"cues {SOUNDS}")
    sessions.add(
        session,
        cue.at,
        speaker=sessions.whose(session, "cues", speaker),
        start_s=cue.start_s,
        end_s=cue.end_s,
        text=text,
        gender=gender,
        words=words,
    )


def render_vtt(transcript: Transcript) -> str:
    """Render WebVTT: `WEBVTT`, then cues `hh:mm:ss.mmm --> hh:mm:ss.mmm` with a voice span.

    The payload is `<v Speaker1 (female)>text</v>`, with `&`, `<` and `>` as character references,
    so that `-->` cannot occur in it. A cue lasts at least 1 ms. An unknown gender is left out.

    Times of words are timestamps in the text, `hello,<00:00:01.400> <00:00:01.500>world`: before a
    word where it begins, and behind it where it ends before the next one does begin. By the
    standard they increase and lie inside the cue, so that words last at least 1 ms and do not
    overlap (`separate_ms`), punctuation goes with a word (`spelled`), and a single word that fills
    its cue has none.

    Holds no duration, no name of the recording, no confidence.
    """
    labels = unique_labels(transcript.speakers, str.strip)
    cues = ["WEBVTT\n"]
    for segment in transcript.segments:
        start, end = (subtitle_time(ms, ".") for ms in span_ms(segment))
        voice = html.escape(caption(labels[segment.speaker], segment.gender), quote=False)
        cues.append(f"{start} --> {end}\n<v {voice}>{_timed_text(segment)}</v>\n")
    return "\n".join(cues)


def _timed_text(segment: Segment) -> str:
    """The text of a cue, with timestamps where times of words are known."""
    text = segment.text
    words = spelled(segment) or ()
    spans = separate_ms(words, segment)
    places = find_words(text, words)
    if not words or spans is None or places is None:
        return html.escape(text, quote=False)
    stamp_ms, last_ms = span_ms(segment)
    begins = [start_ms for start_ms, _ in spans[1:]] + [last_ms]
    parts: list[str] = []
    at = 0
    for (start, end), (start_ms, end_ms), begin_ms in zip(places, spans, begins, strict=True):
        parts.append(html.escape(text[at:start], quote=False))
        if start_ms > stamp_ms:
            stamp_ms = start_ms
            parts.append(f"<{subtitle_time(stamp_ms, '.')}>")
        parts.append(html.escape(text[start:end], quote=False))
        if end_ms < begin_ms:
            stamp_ms = end_ms
            parts.append(f"<{subtitle_time(stamp_ms, '.')}>")
        at = end
    return "".join(parts) + html.escape(text[at:], quote=False)


def parse_vtt(text: str, where: str) -> list[Transcript]:
    """Parse WebVTT; one transcript, named after the file.

    A cue with several voices becomes several segments of the same time. In a file without voices,
    what precedes a colon is a speaker where it is a name (`names.name_speakers`), as Zoom writes it,
    and lines that roll from cue to cue are read once. Cues without a speaker are counted in the
    transcript's warnings. Timestamps in the text are times of its words; those that stand between
    phrases rather than words, or do not increase inside the cue, are counted. Other tags are taken
    off. Comments, styles and regions are skipped. A cue's name is a speaker where it is as Webex writes it
    (`1 "Ana Moe" (123)`). A cue begins with its timing line, as the standard
    has it, also without an empty line before it.

    Raises:
        FormatError: the file does not begin with `WEBVTT`, there is text outside of a cue, or times
            are reversed; all cues are metadata (JSON, pictures).
    """
    cues, again = unmarked(read_cues(_without_blocks(text, where), where, numbered=False), text)
    if cues and all(_METADATA.fullmatch(" ".join(cue.lines)) for cue in cues):
        raise FormatError(
            f"{cues[0].at}: expected words, got metadata in every cue: {cues[0].lines[0][:60]!r}"
        )
    for cue in cues:
        if cue.lines and (named := _WEBEX.fullmatch(cue.name)):
            cue.lines[0] = f"<v {html.escape(named[1])}>{cue.lines[0]}"
    sessions, session = _opened(where)
    _count_cues(cues, again, sessions, session)
    if "X-TIMESTAMP-MAP" in text:
        sessions.count(session, _MAPPED, len(_TIMESTAMP_MAP.findall(text)))
    if not _voiced(cues):
        for cue, parts in _named(cues, plain, sessions, session, text):
            for speaker, gender, words in parts:
                timed = None
                if len(parts) == 1 and any("<" in line for line in cue.lines):
                    timed = _timed(cue, _payload_of(cue.lines, words), sessions, session)
                _add(sessions, session, cue, speaker, gender, words, timed)
        return sessions.transcripts()
    for cue in cues:
        for voice, payload in _split_voices(" ".join(cue.lines)):
            speaker, gender = parse_caption(html.unescape(voice))
            sessions.count(
                session, _TWICE, payload.lstrip().startswith(f"{voice}:") and voice != ""
            )
            timed = _timed(cue, payload, sessions, session)
            _add(sessions, session, cue, speaker, gender, plain(payload), timed)
    return sessions.transcripts()


def _without_blocks(text: str, where: str) -> str:
    """A text without header, comments, styles and regions, whose lines are left empty."""
    if not re.match(r"WEBVTT(?:\s|$)", text):
        raise FormatError(f"{where}:1: expected WEBVTT")
    if "\r" in text:
        text = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")
    header = _VTT_HEADER.match(text)
    assert header is not None
    return _emptied(header) + _VTT_BLOCKS.sub(_emptied, text[header.end() :])


def _emptied(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _payload_of(lines: Sequence[str], words: str) -> str:
    """The payload of a cue, with its timestamps, without the name or the `>>` that its words have none of."""
    payload = " ".join(lines)
    split = split_name(payload)
    ways = [payload, _CHANGE.sub("", payload), *([split[1]] if split else [])]
    return next((way for way in ways if plain(way).split() == words.split()), payload)


def _timed(cue: Cue, payload: str, sessions: Sessions, session: str) -> list[Word] | None:
    timed = _timed_words(payload, cue.start_s, cue.end_s)
    if timed is None:
        sessions.count(session, "cues have timestamps that are not of words: not read")
    return timed


def _timed_words(payload: str, start_s: Decimal, end_s: Decimal) -> list[Word] | None:
    """Read words between timestamps: none without any, `None` if they do not time words."""
    first, *rest = _VTT_TIMESTAMP.split(payload)
    if not rest:
        return []
    times = [start_s, *(parse_clock(stamp, "") for stamp in rest[::2]), end_s]
    if any(after < before for before, after in pairwise(times)):
        return None
    words = []
    for text, begin_s, stop_s in zip([first, *rest[1::2]], times, times[1:], strict=False):
        said = plain(text).split()
        if len(said) > 1:
            return None
        words += [Word(one, float(begin_s), float(stop_s)) for one in said]
    return words


def _split_voices(payload: str) -> list[tuple[str, str]]:
    """Split a payload into pairs of voice (empty for none) and words."""
    before, *pairs = VOICE.split(payload)
    voices = [(voice or "", words) for voice, words in zip(pairs[::2], pairs[1::2], strict=True)]
    return voices if voices and not before.strip() else [("", before), *voices]
