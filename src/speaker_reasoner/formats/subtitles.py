"""SRT and WebVTT: cues that players show over the recording. Cues may overlap, as speech does."""

import html
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from ..errors import FormatError
from ..transcript import Segment, Transcript, Word, find_words
from .captions import caption, parse_caption
from .clock import span_ms, subtitle_time
from .sessions import UNKNOWN_SPEAKER, Sessions, unique_labels
from .words import separate_ms, spelled

_TIME = r"(?:\d+:)?[0-5]?\d:[0-5]?\d[.,]\d{3}"
_TIMING = re.compile(rf"\s*({_TIME})\s*-->\s*({_TIME})(?:\s.*)?")
_SRT_SPEAKER = re.compile(r"([^:]*[^:\s]):(?:\s+(.*))?", re.DOTALL)
_VTT_VOICE = re.compile(r"<v(?:\.[^\s>]*)?(?:\s+([^>]*))?>")
_VTT_TIMESTAMP = re.compile(r"<((?:\d+:)?[0-5]\d:[0-5]\d\.\d{3})>")
_VTT_TAG = re.compile(r"</?[A-Za-z0-9.:][^>]*>|</?>")
_NO_SPEAKER = f"cues name no speaker and were given to {UNKNOWN_SPEAKER!r}"


def render_srt(transcript: Transcript) -> str:
    """Render SubRip: numbered cues of a timing line and a line `Speaker1 (female): text`.

    The timing line is `hh:mm:ss,mmm --> hh:mm:ss,mmm`. A cue lasts at least 1 ms. An unknown gender
    is left out. A colon in a speaker's label becomes `_`, since the first colon ends the label.
    SubRip has no escapes: text stays as it is, and players may take `<i>` for a tag. An empty
    transcript is an empty file. Holds no duration, no name of the recording, no times of words.
    """
    labels = unique_labels(transcript.speakers, lambda label: label.strip().replace(":", "_"))
    cues = []
    for number, segment in enumerate(transcript.segments, start=1):
        start, end = (subtitle_time(ms, ",") for ms in span_ms(segment))
        line = f"{caption(labels[segment.speaker], segment.gender)}: {segment.text}".rstrip()
        cues.append(f"{number}\n{start} --> {end}\n{line}\n")
    return "\n".join(cues)


def parse_srt(text: str, where: str) -> list[Transcript]:
    """Parse SubRip; one transcript, named after the file.

    What precedes the first `: ` of a cue is its speaker; a cue without one is counted in the
    transcript's warnings. Lines of a cue are joined by spaces.

    Raises:
        FormatError: a cue has no timing line, or its times are reversed.
    """
    sessions = Sessions()
    session = Path(where).stem
    sessions.open(session)
    for number, lines in _blocks(text):
        timing = 1 if len(lines) > 1 and lines[0].strip().isdecimal() else 0
        at = f"{where}:{number + timing}"
        start_s, end_s = _parse_timing(lines[timing], at)
        words = " ".join(lines[timing + 1 :]).strip()
        spoken = _SRT_SPEAKER.fullmatch(words)
        if spoken:
            speaker, gender = parse_caption(spoken[1])
            words = spoken[2] or ""
        else:
            speaker, gender = UNKNOWN_SPEAKER, "unknown"
            sessions.count(session, _NO_SPEAKER)
        sessions.add(
            session, at, speaker=speaker, start_s=start_s, end_s=end_s, text=words, gender=gender
        )
    return sessions.transcripts()


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

    A cue with several voices becomes several segments of the same time. Text before the first voice
    names no speaker, which is counted in the transcript's warnings. Timestamps in the text of a
    voice are times of its words; those that stand between phrases rather than words, or do not
    increase inside the cue, are counted. Other tags are taken off. Comments, styles and regions are
    skipped.

    Raises:
        FormatError: the file does not begin with `WEBVTT`, a cue has no timing line, or its times
            are reversed.
    """
    blocks = list(_blocks(text))
    if not blocks or not re.match(r"WEBVTT(?:\s|$)", blocks[0][1][0]):
        raise FormatError(f"{where}:1: expected WEBVTT")
    sessions = Sessions()
    session = Path(where).stem
    sessions.open(session)
    for number, lines in blocks[1:]:
        if re.match(r"(?:NOTE|STYLE|REGION)(?:\s|$)", lines[0]) and "-->" not in lines[0]:
            continue
        timing = 1 if len(lines) > 1 and "-->" not in lines[0] else 0
        at = f"{where}:{number + timing}"
        start_s, end_s = _parse_timing(lines[timing], at)
        for voice, words in _split_voices(" ".join(lines[timing + 1 :])):
            speaker, gender = parse_caption(html.unescape(voice))
            if not speaker:
                speaker = UNKNOWN_SPEAKER
                sessions.count(session, _NO_SPEAKER)
            timed = _timed_words(words, start_s, end_s)
            if timed is None:
                sessions.count(session, "cues have timestamps that are not of words: not read")
            sessions.add(
                session,
                at,
                speaker=speaker,
                start_s=start_s,
                end_s=end_s,
                text=_plain(words),
                gender=gender,
                words=timed,
            )
    return sessions.transcripts()


def _plain(payload: str) -> str:
    return html.unescape(_VTT_TAG.sub("", payload))


def _timed_words(payload: str, start_s: Decimal, end_s: Decimal) -> list[Word] | None:
    """Read words between timestamps: none without any, `None` if they do not time words."""
    first, *rest = _VTT_TIMESTAMP.split(payload)
    if not rest:
        return []
    times = [start_s, *(_seconds(stamp) for stamp in rest[::2]), end_s]
    if any(after < before for before, after in pairwise(times)):
        return None
    words = []
    for text, begin_s, stop_s in zip([first, *rest[1::2]], times, times[1:], strict=False):
        said = _plain(text).split()
        if len(said) > 1:
            return None
        words += [Word(one, float(begin_s), float(stop_s)) for one in said]
    return words


def _split_voices(payload: str) -> list[tuple[str, str]]:
    """Split a payload into pairs of voice (empty for none) and words."""
    before, *pairs = _VTT_VOICE.split(payload)
    voices = [(voice or "", words) for voice, words in zip(pairs[::2], pairs[1::2], strict=True)]
    return voices if voices and not before.strip() else [("", before), *voices]


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield stretches of lines that are not empty, each with the number of its first line."""
    first, block = 1, list[str]()
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.strip():
            if not block:
                first = number
            block.append(line.rstrip("\r"))
        elif block:
            yield first, block
            block = []


def _parse_timing(line: str, at: str) -> tuple[Decimal, Decimal]:
    match = _TIMING.fullmatch(line)
    if match is None:
        raise FormatError(f"{at}: expected '<start> --> <end>', got {line!r}")
    return _seconds(match[1]), _seconds(match[2])


def _seconds(clock: str) -> Decimal:
    """Read `[hh:]mm:ss.mmm`."""
    *hours, minutes, seconds = clock.replace(",", ".").split(":")
    return Decimal((int(hours[0] if hours else 0) * 60 + int(minutes)) * 60) + Decimal(seconds)
