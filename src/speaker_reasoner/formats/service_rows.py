"""Turns in the JSON of each program and service; `services` tells which is which.

Every function takes data and its place and yields turns. Times come in seconds, in milliseconds, as
`1.5s` (Google), `PT1.5S` or ticks of 100 ns (Azure).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ..errors import FormatError
from .ctm import MAX_PAUSE_S, join_words

_ISO = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?")
_NO_SPACE_BEFORE = re.compile(r"[,.;:!?%)\]}…，。！？；：、]+")


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as a service has it; times and confidence are not checked yet."""

    text: str
    start_s: object
    end_s: object
    confidence: object = None
    speaker: object = None


@dataclass(frozen=True, slots=True)
class Row:
    """A turn as a service has it; `at` is its place. Speaker and times are not checked yet."""

    at: str
    speaker: object
    start_s: object
    end_s: object
    text: str
    words: tuple[TimedWord, ...] = ()


def at_key(data: Any, *path: str) -> Any:
    """The value under nested keys; `None` if there is none."""
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def listed(data: Any, *path: str) -> list[dict[str, Any]]:
    """The objects of a list under keys; empty where there is none."""
    items = at_key(data, *path)
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def _entries(data: Any, key: str, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
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


def _text(item: dict[str, Any], *keys: str) -> str:
    return next((item[key] for key in keys if isinstance(item.get(key), str)), "")


def _first(item: dict[str, Any], *keys: str) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _thousandth(value: object) -> object:
    """Milliseconds to seconds; what is no number stays, for the message."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if value != value else str(Decimal(str(value)) / 1000)
    return value


def _duration(value: object) -> object:
    """`1.5s` or `PT1M1.5S` to seconds; a missing one is 0, as Google leaves it out."""
    if value is None:
        return 0
    if isinstance(value, dict):  # of the client library: seconds and nanos
        return str(
            Decimal(str(value.get("seconds") or 0)) + Decimal(str(value.get("nanos") or 0)) / 10**9
        )
    if isinstance(value, str) and (match := _ISO.fullmatch(value)):
        hours, minutes, seconds = (Decimal(part or 0) for part in match.groups())
        return str(hours * 3600 + minutes * 60 + seconds)
    return value.removesuffix("s") if isinstance(value, str) else value


def _ticks(value: object) -> object:
    return (
        str(Decimal(str(value)) / 10**7)
        if isinstance(value, int | float) and value == value
        else value
    )


def _plus(one: object, other: object) -> object:
    try:
        return str(Decimal(str(one)) + Decimal(str(other)))
    except ArithmeticError:
        return None


def _word_of(word: dict[str, Any], *text: str, scale: Any = lambda value: value) -> TimedWord:
    return TimedWord(
        _text(word, *(text or ("word", "text", "punctuated_word"))).strip(),
        scale(_first(word, "start", "start_time", "start_s")),
        scale(_first(word, "end", "end_time", "end_s")),
        _first(word, "confidence", "probability", "score"),
        _first(word, "speaker", "speaker_id"),
    )


def _most_said(words: Iterable[TimedWord]) -> object:
    """The speaker of most words; `None` where no word names one."""
    counts = Counter(str(word.speaker) for word in words if word.speaker is not None)
    return counts.most_common(1)[0][0] if counts else None


def _turns(words: Iterable[TimedWord], where: str) -> Iterator[Row]:
    """Turns of words, one after the other as far as speaker and pauses go; marks join the word before."""
    groups: list[list[TimedWord]] = []
    for word in words:
        bare = word.text.strip()
        if not bare:
            continue
        if groups and _NO_SPACE_BEFORE.fullmatch(bare):
            marked = groups[-1][-1]
            groups[-1][-1] = replace(marked, text=marked.text + bare)
            continue
        last = groups[-1][-1] if groups else None
        if last is None or last.speaker != word.speaker or _pause_s(last, word) > MAX_PAUSE_S:
            groups.append([])
        groups[-1].append(replace(word, text=bare))
    for number, group in enumerate(groups, start=1):
        ends = [word.end_s for word in group if word.end_s is not None]
        starts = [word.start_s for word in group if word.start_s is not None]
        yield Row(
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


def segments(data: Any, where: str) -> Iterator[Row]:
    """OpenAI's `diarized_json` and `verbose_json`, Whisper, WhisperX, faster-whisper; or alike."""
    for at, item in _entries(data, "segments", where):
        words = tuple(_word_of(word) for word in listed(item, "words"))
        speaker = _first(item, "speaker", "speaker_id", "speaker_label")
        yield Row(
            at,
            _most_said(words) if speaker is None else speaker,
            _first(item, "start", "start_time", "start_s"),
            _first(item, "end", "end_time", "end_s"),
            _text(item, "text", "words", "transcript", "sentence"),
            words,
        )


def assemblyai(data: Any, where: str) -> Iterator[Row]:
    """Milliseconds; without speaker labels, words alone."""
    if not at_key(data, "utterances") and listed(data, "words"):
        yield from _turns((_word_of(w, scale=_thousandth) for w in listed(data, "words")), where)
        return
    for at, item in _entries(data, "utterances", where):
        words = tuple(_word_of(word, scale=_thousandth) for word in listed(item, "words"))
        start, end = (_thousandth(item.get(key)) for key in ("start", "end"))
        yield Row(at, item.get("speaker"), start, end, _text(item, "text"), words)


def deepgram(data: Any, where: str) -> Iterator[Row]:
    """Words of the first alternative, with speakers where diarized; else each channel is one."""
    channels = listed(data, "results", "channels")
    for number, channel in enumerate(channels):
        for best in listed(channel, "alternatives")[:1]:
            words = [_word_of(w, "punctuated_word", "word") for w in listed(best, "words")]
            several = len(channels) > 1
            yield from _turns(
                (
                    replace(w, speaker=_of_channel(number, w.speaker) if several else w.speaker)
                    for w in words
                ),
                where,
            )


def _of_channel(channel: int, speaker: object) -> str:
    return f"channel{channel}" if speaker is None else f"channel{channel}-{speaker}"


def gladia(data: Any, where: str) -> Iterator[Row]:
    """Utterances in seconds."""
    for at, item in _entries(at_key(data, "result", "transcription"), "utterances", where):
        words = tuple(_word_of(word) for word in listed(item, "words"))
        speaker = _first(item, "speaker", "channel")
        yield Row(at, speaker, item.get("start"), item.get("end"), _text(item, "text"), words)


def aws(data: Any, where: str) -> Iterator[Row]:
    """Items, with a speaker each, or in the segments of `speaker_labels`, or in channels."""
    labels = {
        item.get("start_time"): _first(item, "speaker_label")
        for segment in listed(data, "results", "speaker_labels", "segments")
        for item in listed(segment, "items")
    }
    channels = {
        item.get("start_time"): channel.get("channel_label")
        for channel in listed(data, "results", "channel_labels", "channels")
        for item in listed(channel, "items")
    }
    words = []
    for item in listed(data, "results", "items"):
        best = (listed(item, "alternatives") or [{}])[0]
        start = item.get("start_time")
        speaker = (
            _first(item, "speaker_label", "channel_label")
            or labels.get(start)
            or channels.get(start)
        )
        words.append(
            TimedWord(
                _text(best, "content"), start, item.get("end_time"), best.get("confidence"), speaker
            )
        )
    yield from _turns(words, where)


def speechmatics(data: Any, where: str) -> Iterator[Row]:
    """Words and punctuation, in seconds."""
    words = []
    for item in listed(data, "results"):
        best = (listed(item, "alternatives") or [{}])[0]
        speaker = None if best.get("speaker") == "UU" else best.get("speaker")
        times = item.get("start_time"), item.get("end_time")
        words.append(TimedWord(_text(best, "content"), *times, best.get("confidence"), speaker))
    yield from _turns(words, where)


def google(data: Any, where: str) -> Iterator[Row]:
    """Results one after the other; with diarization, v1 repeats all words in the last, with speakers."""
    results = [listed(result, "alternatives")[:1] for result in listed(data, "results")]
    words = [
        [_google_word(word) for best in bests for word in listed(best, "words")]
        for bests in results
    ]
    if words and any(word.speaker is not None for word in words[-1]):
        total = sum(len(of_result) for of_result in words[:-1])
        if len(words[-1]) >= total and all(w.speaker is None for ws in words[:-1] for w in ws):
            words = words[-1:]
    if any(words):
        yield from _turns((word for of_result in words for word in of_result), where)
        return
    end: object = 0
    for number, (result, bests) in enumerate(
        zip(listed(data, "results"), results, strict=True), start=1
    ):
        start, end = (
            end,
            _duration(_first(result, "resultEndTime", "resultEndOffset", "result_end_time")),
        )
        text = _text(bests[0], "transcript") if bests else ""
        yield Row(f"{where}, result {number}", None, start, end or None, text)


def _google_word(word: dict[str, Any]) -> TimedWord:
    speaker = _first(word, "speakerLabel", "speaker_label", "speakerTag", "speaker_tag")
    return TimedWord(
        _text(word, "word"),
        _duration(_first(word, "startTime", "startOffset", "start_time", "start_offset")),
        _duration(_first(word, "endTime", "endOffset", "end_time", "end_offset")),
        word.get("confidence"),
        speaker or None,  # 0: not known
    )


def azure_batch(data: Any, where: str) -> Iterator[Row]:
    """Phrases of channels and speakers, in ticks or as ISO durations."""
    channels = {item.get("channel") for item in listed(data, "recognizedPhrases")}
    for at, item in _entries(data, "recognizedPhrases", where):
        best = (listed(item, "nBest") or [{}])[0]
        if "offsetInTicks" in item:
            start = _ticks(item["offsetInTicks"])
            length = _ticks(item.get("durationInTicks"))
        else:
            start, length = _duration(item.get("offset")), _duration(item.get("duration"))
        words = [
            TimedWord(_text(word, "word"), begins, _plus(begins, lasts), word.get("confidence"))
            for word in listed(best, "displayWords") or listed(best, "words")
            for begins, lasts in [
                (_ticks(word["offsetInTicks"]), _ticks(word.get("durationInTicks")))
                if "offsetInTicks" in word
                else (_duration(word.get("offset")), _duration(word.get("duration")))
            ]
        ]
        speaker = item.get("speaker")
        if len(channels) > 1:
            speaker = _of_channel(item.get("channel", 0), speaker)
        text = _text(best, "display", "lexical")
        yield Row(at, speaker, start, _plus(start, length), text, tuple(words))


def azure_fast(data: Any, where: str) -> Iterator[Row]:
    """Phrases in milliseconds."""
    channels = {item.get("channel") for item in listed(data, "phrases")}
    for at, item in _entries(data, "phrases", where):
        words = []
        for word in [item, *listed(item, "words")]:
            start = _thousandth(_first(word, "offsetMilliseconds", "offset"))
            length = _thousandth(_first(word, "durationMilliseconds", "duration"))
            words.append(TimedWord(_text(word, "text"), start, _plus(start, length)))
        whole, *rest = words
        speaker = item.get("speaker")
        if len(channels) > 1:
            speaker = _of_channel(item.get("channel", 0), speaker)
        yield Row(at, speaker, whole.start_s, whole.end_s, whole.text, tuple(rest))


def rev(data: Any, where: str) -> Iterator[Row]:
    """Monologues of elements: words with times, and punctuation."""
    for at, item in _entries(data, "monologues", where):
        elements = listed(item, "elements")
        words = tuple(
            TimedWord(_text(e, "value"), e.get("ts"), e.get("end_ts"), e.get("confidence"))
            for e in elements
            if e.get("type") == "text"
        )
        times = [
            (w.start_s, w.end_s) for w in words if w.start_s is not None and w.end_s is not None
        ]
        if not times:
            continue  # a mark such as <laugh>, without a time
        text = "".join(_text(e, "value") for e in elements if e.get("type") != "unknown")
        yield Row(at, item.get("speaker"), times[0][0], times[-1][1], text, words)


def whisper_cpp(data: Any, where: str) -> Iterator[Row]:
    """Segments with offsets in milliseconds; speakers of a stereo call (`-di`)."""
    for number, item in enumerate(listed(data, "transcription"), start=1):
        at = f"{where}, segment {number}"
        start, end = (_thousandth(at_key(item, "offsets", key)) for key in ("from", "to"))
        text = re.sub(r"^\s*\(speaker (\d+|\?)\)\s*", "", _text(item, "text"))
        speaker = item.get("speaker")
        yield Row(at, None if speaker == "?" else speaker, start, end, text)


def elevenlabs(data: Any, where: str) -> Iterator[Row]:
    """Words, spacing and audio events; the last two are no words."""
    words = listed(data, "words")
    spoken = (word for word in words if word.get("type", "word") == "word")
    yield from _turns((_word_of(word, "text", "word", "punctuated_word") for word in spoken), where)


def pyannote(data: Any, where: str) -> Iterator[Row]:
    """Turns without words (`.serialize()`); overlapping ones where there are both."""
    for at, item in _entries(data, "diarization", where):
        yield Row(at, item.get("speaker"), item.get("start"), item.get("end"), "")


def pyannote_core(data: Any, where: str) -> Iterator[Row]:
    """An `Annotation.for_json()`."""
    for at, item in _entries(data, "content", where):
        start, end = (at_key(item, "segment", key) for key in ("start", "end"))
        yield Row(at, item.get("label"), start, end, "")


def youtube(data: Any, where: str) -> Iterator[Row]:
    """Events of captions in milliseconds; an event lasts no longer than until the next one's words."""
    spoken = []
    for item in listed(data, "events"):
        text = "".join(_text(part, "utf8") for part in listed(item, "segs")).strip()
        if text:
            spoken.append((item.get("tStartMs"), item.get("dDurationMs"), text))
    for number, (start, length, text) in enumerate(spoken, start=1):
        start_s = _thousandth(start or 0)
        end_s = _plus(start_s, _thousandth(length or 0))
        if (
            number < len(spoken)
            and isinstance(spoken[number][0], int | float)
            and end_s is not None
        ):
            next_s = Decimal(str(_thousandth(spoken[number][0])))
            if Decimal(str(start_s)) < next_s < Decimal(str(end_s)):
                end_s = str(next_s)
        yield Row(f"{where}, event {number}", None, start_s, end_s, text)


def transformers(data: Any, where: str) -> Iterator[Row]:
    """Chunks of a pipeline with `timestamp`, of insanely-fast-whisper with speakers."""
    key = "speakers" if listed(data, "speakers") else "chunks"
    for at, item in _entries(data, key, where):
        times = item.get("timestamp")
        if not isinstance(times, list) or len(times) != 2:
            raise FormatError(f"{at}: expected timestamp as [start, end], got {times!r}")
        yield Row(at, item.get("speaker"), times[0], times[1], _text(item, "text"))
