"""Answers in free text: turns in JSON or in lines, with times in several notations; or no transcript at all.

    read_text('[{"Start": 0.0, "End": 2.5, "Speaker": 0, "Content": "hello"}]', sound)
    read_text("[00:00.000 --> 00:02.500] Speaker 1: hello", sound)

What is cut, refused or repeats itself is an `AnswerError`, never a part of a transcript.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import AnswerError
from ..formats.gathering import gather
from ..formats.service_rows import ServiceRow
from ..transcript import Transcript
from .base import Sound
from .checks import repeated
from .service import check_times

READABLE = 0.8
"""Share of the lines of an answer that must be turns (assumed); a warning counts the others."""

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d+)?)\s*s?")
_JSON = re.compile(r"\{|\[\s*(?:[{\[\"\]]|\Z)")
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TIME = r"\d+(?::\d+){0,2}(?:[.,]\d+)?\s*s?"
_LINE = re.compile(
    rf"\[?\s*({_TIME})\s*(?:-->|->|–|—|-|,|to)\s*({_TIME})\s*\]?\s*[|,]?\s*(.*)", re.DOTALL
)
_SPEAKER = re.compile(
    r"\[?((?:speaker|spk|说话人)?\s*[_#:]?\s*\w{1,12})\]?\s*[:：]\s*(.*)", re.I | re.DOTALL
)
_REFUSAL = re.compile(
    r"\b(?:sorry|unable to|can(?:no|')t|not able to|as an ai|don't have the ability)\b|抱歉|无法|不能",
    re.I,
)
_EVENT = re.compile(r"\[[^\[\]]*[^\W\d_][^\[\]]*\]")
_KEYS = {
    "start": ("start", "start_time", "starttime", "begin", "from", "start_s", "st"),
    "end": ("end", "end_time", "endtime", "stop", "to", "end_s", "et"),
    "speaker": ("speaker", "speaker_id", "speakerid", "speaker_label", "spk"),
    "text": ("content", "text", "transcript", "transcription", "utterance", "sentence"),
}
_LISTS = ("segments", "utterances", "transcript", "transcription", "turns", "dialogue", "results")


def read_text(text: str, sound: Sound) -> Transcript:
    """The transcript that a model wrote.

    Args:
        text: all of its answer. Code fences, a leading role and empty lines are no part of it.
        sound: that was transcribed.

    Raises:
        AnswerError: `loop`, `truncated`, `refused`, `no-times`, `empty` or `format`.
        FormatError: a turn's times contradict each other.
    """
    span = repeated(text)
    if span is not None:
        raise AnswerError("loop", f"{span[:60]!r} over and over")
    body = unfenced(text)
    if not body:
        raise AnswerError("empty", "the answer has no text")
    if _JSON.match(body):
        return transcript_of(rows_of(json_array(body)), sound)
    rows, warnings = line_rows(body)
    return transcript_of(rows, sound, warnings)


def transcript_of(rows: list[ServiceRow], sound: Sound, warnings: Sequence[str] = ()) -> Transcript:
    """A transcript of turns. Those that only name a sound, as `[Music]`, are left out with a warning.

    Raises:
        AnswerError: `no-times`: words have no start or end.
        FormatError: a turn's times contradict each other.
    """
    said = [row for row in rows if not _EVENT.fullmatch(row.text.strip())]
    check_times(said)
    transcript = gather(said, sound.recording, "answer")
    notices = [*transcript.warnings, *warnings]
    if len(said) < len(rows):
        notices.append(
            f"{len(rows) - len(said)} turns only name a sound, as [Music], and were left out"
        )
    return replace(transcript, warnings=tuple(notices))


def unfenced(text: str) -> str:
    """A text without a leading role, and without code fences around it or after a sentence.

    Raises:
        AnswerError: `format`: there are several code blocks, or turns outside of the only one.
    """
    body = text.strip()
    body = re.sub(r"\Aassistant\s*\n", "", body).strip()
    blocks = list(_FENCE.finditer(body))
    if not blocks:
        return body
    filled = [block for block in blocks if block[1].strip()] or blocks[:1]
    if len(filled) > 1:
        raise AnswerError("format", f"{len(filled)} code blocks, expected one with all turns")
    block = filled[0]
    around = f"{body[: block.start()]}\n{body[block.end() :]}"
    lines = (line.strip() for line in around.splitlines())
    turns = [line for line in lines if line[:1] == "[" and _LINE.fullmatch(line)]
    if turns:
        raise AnswerError(
            "format", f"{len(turns)} turns outside of the code block, as {turns[0][:60]!r}"
        )
    return block[1].strip()


def json_array(text: str) -> list[Any]:
    """The turns of a JSON text: a list, or the list in an object.

    Raises:
        AnswerError: `truncated`: it ends in the middle; `format`: it is other JSON, or none.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if unfinished(text):
            raise AnswerError(
                "truncated", f"the JSON ends in the middle: ...{text[-60:]!r}"
            ) from error
        raise AnswerError("format", f"no JSON ({error}): {text[:60]!r}...") from error
    except RecursionError as error:
        raise AnswerError("format", "JSON nested too deeply") from error
    if isinstance(data, Mapping):
        lists = [data[key] for key in _LISTS if isinstance(data.get(key), list)]
        data = lists[0] if lists else [data]
    if not isinstance(data, list):
        raise AnswerError("format", f"expected a list of turns, got {text[:60]!r}")
    return data


def unfinished(text: str) -> bool:
    """Return whether a JSON text ends before its first bracket is closed."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if escaped:
            escaped = False
        elif quoted:
            escaped = character == "\\"
            quoted = character != '"'
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
            if not depth:
                return False
    return True


def rows_of(items: list[Any]) -> list[ServiceRow]:
    """Make turns of the objects of a list, with any spelling of their keys.

    Raises:
        AnswerError: `format`: an item is no turn.
    """
    rows = []
    for number, item in enumerate(items, start=1):
        at = f"answer, turn {number}"
        if not isinstance(item, Mapping):
            raise AnswerError("format", f"{at}: expected an object, got {str(item)[:60]!r}")
        named = {str(key).strip().lower().replace(" ", "_"): value for key, value in item.items()}
        values = {
            what: next((named[key] for key in keys if named.get(key) is not None), None)
            for what, keys in _KEYS.items()
        }
        if values["text"] is None:
            raise AnswerError("format", f"{at}: no text in {str(dict(item))[:80]!r}")
        if not isinstance(values["text"], str):
            raise AnswerError("format", f"{at}: expected text, got {str(values['text'])[:60]!r}")
        rows.append(
            ServiceRow(
                at,
                label(values["speaker"]),
                clock(values["start"]),
                clock(values["end"]),
                values["text"],
            )
        )
    return rows


def line_rows(text: str) -> tuple[list[ServiceRow], list[str]]:
    """Turns from lines such as `[00:01.200 --> 00:02.000] Speaker 1: hello`, and warnings.

    Raises:
        AnswerError: `refused`, `no-times` or `format`: too few lines are turns.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows, others = [], []
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            others.append(line)
            continue
        named = _SPEAKER.fullmatch(match[3])
        who, said = (label(named[1]), named[2]) if named else (None, match[3])
        rows.append(
            ServiceRow(
                f"answer, line {number}", who, clock(match[1]), clock(match[2]), said.strip()
            )
        )
    if len(rows) < READABLE * len(lines):
        if not rows and _REFUSAL.search(text):
            raise AnswerError("refused", f"the model says: {text[:120]!r}")
        if not rows and sum(_SPEAKER.fullmatch(line) is not None for line in lines) == len(lines):
            raise AnswerError("no-times", f"turns without times, as {lines[0][:60]!r}")
        raise AnswerError(
            "format", f"{len(others)} of {len(lines)} lines are no turns, as {others[0][:60]!r}"
        )
    warnings = (
        [f"{len(others)} lines of the answer are no turns, as {others[0][:60]!r}"] if others else []
    )
    return rows, warnings


def clock(value: object) -> object:
    """Return seconds of `62.5`, `62.5s`, `1:02.5` or `00:01:02,5`; other values stay as they are."""
    if isinstance(value, str) and (match := _CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = match.groups()
        total = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds.replace(",", "."))
        return round(total, 6)
    return value


def label(value: object) -> object:
    """A speaker's label as text: 1, 1.0 and `"1"` are one person."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return " ".join(value.split()) if isinstance(value, str) else value
