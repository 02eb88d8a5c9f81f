"""Turns in the JSON of each program and service; `services` recognises which one it is.

Every function takes data and its place and yields turns. Times come in seconds, in milliseconds, as
`1.5s` (Google), `PT1.5S` or ticks of 100 ns (Azure).
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ..errors import FormatError
from .changes import MARK
from .clock import clock_s
from .ctm import MAX_PAUSE_S, join_words

_TURN = "[SPEAKER_TURN]"
_OPENING = re.compile(r"[¿¡(\[{„“«‘]+")
_NO_SPACE_BEFORE = re.compile(r"[,.;:!?%)\]}…，。！？；：、]+")

_WORD_TEXTS = ("word", "text", "punctuated_word")
STARTS = ("start", "start_time", "start_s", "begin", "from", "startTime", "offset")
ENDS = ("end", "end_time", "end_s", "to", "endTime")
TEXTS = ("text", "words", "transcript", "sentence", "content")


@dataclass(slots=True)
class TimedWord:
    """A word as a service has it; times and confidence are not checked yet."""

    text: str
    start_s: object
    end_s: object
    confidence: object = None
    speaker: object = None


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A turn as a service has it; `at` is its place. Speaker and times are not checked yet.

    One that is `open` has no end of its own.
    """

    at: str
    speaker: object
    start_s: object
    end_s: object
    text: str
    words: tuple[TimedWord, ...] = ()
    open: bool = False


def at_key(data: Any, *path: str) -> Any:
    """The value under nested keys; `None` if there is none."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def listed(data: Any, *path: str) -> list[dict[str, Any]]:
    """The objects of a list under keys; empty where there is none."""
    items = at_key(data, *path)
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def objects(data: Any, *path: str) -> list[dict[str, Any]]:
    """The same, where nothing else may stand.

    Raises:
        FormatError: it is no list, or holds something else.
    """
    items, held = at_key(data, *path), listed(data, *path)
    if items is not None and (not isinstance(items, list) or len(held) < len(items)):
        raise FormatError(
            f'expected a list of objects under "{".".join(path)}", got {str(items)[:60]!r}'
        )
    return held


def entries(data: Any, key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with its place.

    Raises:
        FormatError: it is no list of objects.
    """
    items = at_key(data, key)
    if not isinstance(items, list):
        raise FormatError(f'{where}: expected an object with "{key}", a list')
    for number, item in enumerate(items, start=1):
        at = (
            item["at"]
            if isinstance(item, dict) and "at" in item
            else f"{where}, {key[:-1]} {number}"
        )
        if not isinstance(item, dict):
            raise FormatError(f"{at}: expected an object, got {str(item)[:60]!r}")
        yield str(at), item


def text_of(item: dict[str, Any], *keys: str) -> str:
    for key in keys:
        if isinstance(text := item.get(key), str):
            return text
    return ""


def first_of(item: dict[str, Any], *keys: str) -> Any:
    for key in keys:
        if (value := item.get(key)) is not None:
            return value
    return None


def thousandth(value: object) -> object:
    """Convert milliseconds to seconds; values that are no numbers stay, for the message."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if value != value else str(Decimal(str(value)) / 1000)
    return value


def plus(one: object, other: object) -> object:
    try:
        return str(Decimal(str(one)) + Decimal(str(other)))
    except ArithmeticError:
        return None


def word_of(word: dict[str, Any], *text: str, scale: Any = lambda value: value) -> TimedWord:
    return TimedWord(
        text_of(word, *(text or _WORD_TEXTS)).strip(),
        scale(first_of(word, "start", "start_time", "start_s")),
        scale(first_of(word, "end", "end_time", "end_s")),
        first_of(word, "confidence", "probability", "score"),
        first_of(word, "speaker", "speaker_id"),
    )


def _most_said(words: Iterable[TimedWord]) -> object:
    """The speaker of most words; `None` where no word names one."""
    counts = Counter(str(word.speaker) for word in words if word.speaker is not None)
    return counts.most_common(1)[0][0] if counts else None


def turns(words: Iterable[TimedWord], where: str) -> Iterator[ServiceRow]:
    """Turns of words, one after the other as far as speaker and pauses go.

    Marks join the word before; those that open something (`¿`) and have no time join the word behind.
    """
    groups: list[list[TimedWord]] = []
    given = list(words)
    ahead = ""
    for word in given:
        bare = word.text.strip()
        if not bare:
            continue
        untimed = word.start_s is None and not any(map(str.isalnum, bare))
        if untimed and (not groups or _OPENING.fullmatch(bare)):
            ahead += bare
            continue
        if groups and (untimed or _NO_SPACE_BEFORE.fullmatch(bare)):
            marked = groups[-1][-1]
            groups[-1][-1] = replace(marked, text=marked.text + bare)
            continue
        last = groups[-1][-1] if groups else None
        if last is None or last.speaker != word.speaker or _pause_s(last, word) > MAX_PAUSE_S:
            groups.append([])
        groups[-1].append(replace(word, text=f"{ahead}{bare}"))
        ahead = ""
    if given and not groups:
        raise FormatError(f"{where}: expected words, got {len(given)} without text")
    for number, group in enumerate(groups, start=1):
        ends = [word.end_s for word in group if word.end_s is not None]
        starts = [word.start_s for word in group if word.start_s is not None]
        yield ServiceRow(
            f"{where}, turn {number}",
            group[0].speaker,
            starts[0] if starts else None,
            ends[-1] if ends else None,
            join_words([word.text for word in group]),
            tuple(group),
        )


def _pause_s(before: TimedWord, word: TimedWord) -> Decimal:
    try:
        pause_s = Decimal(str(word.start_s)) - Decimal(str(before.end_s))
    except ArithmeticError:
        return Decimal(0)
    return pause_s if pause_s.is_finite() else Decimal(0)  # NaN cannot be compared


def segments(data: Any, where: str) -> Iterator[ServiceRow]:
    """OpenAI's `diarized_json` and `verbose_json`, Whisper, WhisperX, faster-whisper; or alike.

    Words beside the segments, as OpenAI has them, belong to those in which their middles lie.
    """
    beside = [word_of(word) for word in listed(data, "words")]
    if not beside:
        yield from _segments(data, where)
        return
    made = list(_segments(data, where))
    if not made:
        yield from turns(beside, where)
        return
    try:
        starts = [float(row.start_s) for row in made]  # type: ignore[arg-type]
        middles = [(float(w.start_s) + float(w.end_s)) / 2 for w in beside]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        starts = []
    if starts != sorted(starts) or not starts or any(row.words for row in made):
        yield from made
        return
    of: dict[int, list[TimedWord]] = {}
    for word, middle_s in zip(beside, middles, strict=True):
        of.setdefault(max(0, bisect_right(starts, middle_s) - 1), []).append(word)
    for number, row in enumerate(made):
        yield replace(row, words=tuple(of.get(number, ())))


def _segments(data: Any, where: str) -> Iterator[ServiceRow]:
    for at, item in entries(data, "segments", where):
        words = tuple(word_of(word) for word in listed(item, "words"))
        speaker = first_of(item, "speaker", "speaker_name", "speaker_label", "speaker_id")
        text = text_of(item, *TEXTS) or join_words([word.text for word in words])
        other = None
        if not text and not words:
            other = next((item[key] for key in TEXTS if item.get(key) not in (None, "", [])), None)
        if other is not None:
            raise FormatError(f"{at}: expected the text as a string, got {str(other)[:60]!r}")
        start = clock_s(first_of(item, *STARTS))
        if isinstance(start, dict):  # `from` a person
            start = clock_s(first_of({**item, "from": None}, *STARTS))
        end = clock_s(first_of(item, *ENDS))
        if end is None and item.get("duration") is not None:
            lasts = clock_s(item["duration"])
            end = plus(start, lasts)
            if isinstance(start, int) and isinstance(lasts, int):  # milliseconds, perhaps
                end = start + lasts
        yield ServiceRow(
            at,
            _most_said(words) if speaker is None else speaker,
            start,
            end,
            text,
            words,
        )


def whisper_cpp(data: Any, where: str) -> Iterator[ServiceRow]:
    """Segments with offsets in milliseconds; speakers of a stereo call (`-di`), changes of them (`-tdrz`)."""
    changes = False
    for number, item in enumerate(objects(data, "transcription"), start=1):
        at = f"{where}, segment {number}"
        start, end = (thousandth(at_key(item, "offsets", key)) for key in ("from", "to"))
        if start is None:
            start, end = (clock_s(at_key(item, "timestamps", key)) for key in ("from", "to"))
        text = re.sub(r"^\s*\(speaker (\d+|\?)\)\s*", "", text_of(item, "text"))
        speaker = first_of(item, "speaker")
        speaker = (MARK if changes else None) if speaker in (None, "?") else speaker
        changes = _TURN in text  # of tinydiarize: somebody else speaks behind it
        yield ServiceRow(at, speaker, start, end, text.replace(_TURN, "").strip())


def pyannote(data: Any, where: str) -> Iterator[ServiceRow]:
    """Turns without words (`.serialize()`); overlapping ones where there are both."""
    for at, item in entries(data, "diarization", where):
        yield ServiceRow(at, item.get("speaker"), item.get("start"), item.get("end"), "")


def pyannote_core(data: Any, where: str) -> Iterator[ServiceRow]:
    """An `Annotation.for_json()`."""
    for at, item in entries(data, "content", where):
        start, end = (at_key(item, "segment", key) for key in ("start", "end"))
        yield ServiceRow(at, item.get("label"), start, end, "")


def youtube(data: Any, where: str) -> Iterator[ServiceRow]:
    """Events of captions in milliseconds; an event lasts no longer than until the next one's words."""
    spoken = []
    for item in objects(data, "events"):
        text = "".join(text_of(part, "utf8") for part in objects(item, "segs")).strip()
        if text:
            spoken.append((item.get("tStartMs"), item.get("dDurationMs"), text))
    for number, (start, length, text) in enumerate(spoken, start=1):
        start_s = thousandth(start or 0)
        end_s = plus(start_s, thousandth(length or 0))
        if (
            number < len(spoken)
            and isinstance(spoken[number][0], int | float)
            and end_s is not None
        ):
            next_s = Decimal(str(thousandth(spoken[number][0])))
            if Decimal(str(start_s)) < next_s < Decimal(str(end_s)):
                end_s = str(next_s)
        yield ServiceRow(f"{where}, event {number}", None, start_s, end_s, text)


def transformers(data: Any, where: str) -> Iterator[ServiceRow]:
    """Chunks of a pipeline with `timestamp`, of insanely-fast-whisper with speakers."""
    key = "speakers" if objects(data, "speakers") else "chunks"
    for at, item in entries(data, key, where):
        times = item.get("timestamp")
        if not isinstance(times, list) or len(times) != 2:
            raise FormatError(f"{at}: expected timestamp as [start, end], got {times!r}")
        unended = times[1] is None and times[0] is not None
        text = text_of(item, "text")
        yield ServiceRow(at, item.get("speaker"), times[0], times[1], text, open=unended)
