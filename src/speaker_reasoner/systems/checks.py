"""Checks a system's transcript against the recording: times, loops, silence."""

from dataclasses import replace

import numpy as np

from ..errors import AnswerError
from ..speech import detector, spoken_s
from ..transcript import Segment, Transcript
from .base import Sound

_SLACK_S = 1.0
"""How far an end may lie behind the sound: services round, and count the padding of a codec (assumed)."""
_REST_SHARE, _REST_S = 0.2, 30.0
"""Speech after the last line is a warning: more than this share of all speech, and this many seconds (assumed)."""
_LEAST_SPEECH_S = 1.0
"""An answer without lines is right where there is no more speech (assumed)."""
_REPEATS, _LONGEST_SPAN, _LEAST_LOOP = 10, 80, 150
"""A loop: a span of at most so many characters, so often in a row, so many characters in all (assumed)."""


def checked(transcript: Transcript, sound: Sound) -> Transcript:
    """Check a transcript of a sound, and give it the sound's name and length.

    Times past the end by less than a second end there, which is a warning. So is speech after the last line.

    Raises:
        AnswerError: `format`: it goes on after the end; `loop`: it repeats itself; `empty`: it has no line,
            though there is speech.
    """
    duration_s, warnings = sound.duration_s, list(transcript.warnings)
    if not transcript.segments:
        _check_silence(sound)
    last_s = max((segment.end_s for segment in transcript.segments), default=0.0)
    latest_s = max((segment.start_s for segment in transcript.segments), default=0.0)
    if last_s > duration_s + _SLACK_S or latest_s >= duration_s > 0:
        raise AnswerError(
            "format",
            f"a line at {latest_s:.2f} to {last_s:.2f} s, in a recording of {duration_s:.2f} s: wrong units, or "
            "words taken for times",
        )
    text = looping(transcript)
    if text is not None:
        raise AnswerError("loop", f"{text[:60]!r} over and over")
    segments = tuple(_within(segment, duration_s) for segment in transcript.segments)
    beyond = sum(a.end_s != b.end_s for a, b in zip(transcript.segments, segments, strict=True))
    if beyond:
        warnings.append(f"{beyond} lines ended after the recording, and were ended with it")
    if transcript.segments and duration_s - last_s > _REST_S:
        warnings += _rest(sound, last_s)
    return replace(
        transcript,
        recording=sound.recording,
        duration_s=duration_s,
        segments=segments,
        warnings=tuple(warnings),
    )


def looping(transcript: Transcript) -> str | None:
    """The words that a transcript repeats over and over; `None` if it does not.

    Lines one after the other are one text: loops of models do not end with a line.
    """
    return repeated(" ".join(segment.text for segment in transcript.segments))


def repeated(text: str) -> str | None:
    """The span that a text repeats ten times in a row or more; `None` if there is none."""
    codes = np.array([ord(character) for character in text], np.int32)
    for length in range(1, min(_LONGEST_SPAN, len(text) // _REPEATS) + 1):
        needed = max(length * (_REPEATS - 1), _LEAST_LOOP - length)
        differs = np.flatnonzero(codes[length:] != codes[:-length])
        edges = np.concatenate([[-1], differs, [len(codes) - length]])
        for run in np.flatnonzero(np.diff(edges) > needed).tolist():
            at = int(edges[run]) + 1
            span = text[at : at + length]
            if any(character.isalnum() for character in span):
                return span.strip()
    return None


def _check_silence(sound: Sound) -> None:
    regions = detector("energy")(sound.samples)
    speech_s = spoken_s(regions, 0.0, sound.duration_s)
    if speech_s > _LEAST_SPEECH_S:
        raise AnswerError("empty", f"no line, in a recording with about {speech_s:.0f} s of speech")


def _rest(sound: Sound, last_s: float) -> list[str]:
    regions = detector("energy")(sound.samples)
    after_s = spoken_s(regions, last_s, sound.duration_s)
    if after_s <= max(_REST_S, _REST_SHARE * spoken_s(regions, 0.0, sound.duration_s)):
        return []
    return [
        f"the last line ends at {last_s:.1f} s of {sound.duration_s:.1f} s, and about {after_s:.0f} s of speech "
        "follow: the answer may be cut"
    ]


def _within(segment: Segment, duration_s: float) -> Segment:
    if segment.end_s <= duration_s:
        return segment
    words = segment.words
    if words is not None:
        words = tuple(
            replace(word, start_s=min(word.start_s, duration_s), end_s=min(word.end_s, duration_s))
            for word in words
        )
    return replace(segment, end_s=duration_s, words=words)
