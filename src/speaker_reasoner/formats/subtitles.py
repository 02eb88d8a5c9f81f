"""SRT and WebVTT: cues that players show over the recording. Cues may overlap, as speech does."""

import html
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from ..errors import FormatError
from ..transcript import Transcript
from .captions import caption, parse_caption
from .clock import span_ms, subtitle_time
from .sessions import UNKNOWN_SPEAKER, Sessions, unique_labels

_TIME = r"(?:(\d+):)?([0-5]?\d):([0-5]?\d)[.,](\d{3})"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_SRT_SPEAKER = re.compile(r"([^:]*[^:\s]):(?:\s+(.*))?", re.DOTALL)
_VTT_VOICE = re.compile(r"<v(?:\.[^\s>]*)?(?:\s+([^>]*))?>")
_VTT_TAG = re.compile(r"</?[A-Za-z0-9.:][^>]*>|</?>")
_NO_SPEAKER = f"cues name no speaker and were given to {UNKNOWN_SPEAKER!r}"


def render_srt(transcript: Transcript) -> str:
    """Render SubRip: numbered cues of a timing line and a line `Speaker1 (female): text`.

    The timing line is `hh:mm:ss,mmm --> hh:mm:ss,mmm`. A cue lasts at least 1 ms. An unknown gender
    is left out. A colon in a speaker's label becomes `_`, since the first colon ends the label.
    SubRip has no escapes: text stays as it is, and players may take `<i>` for a tag. An empty
    transcript is an empty file. Holds no duration, no name of the recording.
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
    Holds no duration, no name of the recording.
    """
    labels = unique_labels(transcript.speakers, str.strip)
    cues = ["WEBVTT\n"]
    for segment in transcript.segments:
        start, end = (subtitle_time(ms, ".") for ms in span_ms(segment))
        voice = html.escape(caption(labels[segment.speaker], segment.gender), quote=False)
        words = html.escape(segment.text, quote=False)
        cues.append(f"{start} --> {end}\n<v {voice}>{words}</v>\n")
    return "\n".join(cues)


def parse_vtt(text: str, where: str) -> list[Transcript]:
    """Parse WebVTT; one transcript, named after the file.

    A cue with several voices becomes several segments of the same time. Text before the first voice
    names no speaker, which is counted in the transcript's warnings. Other tags are taken off.
    Comments, styles and regions are skipped.

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
            sessions.add(
                session,
                at,
                speaker=speaker,
                start_s=start_s,
                end_s=end_s,
                text=html.unescape(_VTT_TAG.sub("", words)),
                gender=gender,
            )
    return sessions.transcripts()


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
    fields = match.groups("0")
    start_s, end_s = (
        Decimal((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) + Decimal(f"0.{ms}")
        for hours, minutes, seconds, ms in (fields[:4], fields[4:])
    )
    return start_s, end_s
