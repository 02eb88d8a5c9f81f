"""Turns in the JSON of hosted services; `services` recognises the service.

Every function takes data and its place and yields turns. Times come in seconds, in milliseconds, as
`1.5s` (Google), `PT1.5S` or ticks of 100 ns (Azure), or on a clock (Rev.ai).
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ..errors import FormatError
from .clock import clock_s
from .ctm import UNSPACED
from .service_rows import (
    ServiceRow,
    TimedWord,
    at_key,
    entries,
    first_of,
    objects,
    plus,
    text_of,
    thousandth,
    turns,
    word_of,
)

_UNSPACED = re.compile(f"[{UNSPACED}]")
_CONTROL = re.compile(r"<\w+>")
"""Tokens of Soniox that are no words: `<end>` of what somebody said."""
_ISO = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?")


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


def assemblyai(data: Any, where: str) -> Iterator[ServiceRow]:
    """Milliseconds; without speaker labels, words alone."""
    if not at_key(data, "utterances") and objects(data, "words"):
        yield from turns((word_of(w, scale=thousandth) for w in objects(data, "words")), where)
        return
    for at, item in entries(data, "utterances", where):
        words = tuple(word_of(word, scale=thousandth) for word in objects(item, "words"))
        start, end = (thousandth(item.get(key)) for key in ("start", "end"))
        yield ServiceRow(at, item.get("speaker"), start, end, text_of(item, "text"), words)


def assemblyai_parts(data: Any, where: str) -> Iterator[ServiceRow]:
    """Sentences or paragraphs, in milliseconds; a speaker is that of their words."""
    key = "sentences" if "sentences" in data else "paragraphs"
    words = [word for part in objects(data, key) for word in objects(part, "words")]
    if words:
        yield from turns((word_of(word, scale=thousandth) for word in words), where)
        return
    yield from assemblyai({"utterances": data[key]}, where)


def deepgram(data: Any, where: str) -> Iterator[ServiceRow]:
    """Words of the first alternative, with speakers where diarized; else each channel is one."""
    channels = objects(data, "results", "channels")
    several = len(channels) > 1
    for number, channel in enumerate(channels):
        for best in objects(channel, "alternatives")[:1]:
            words = [word_of(w, "punctuated_word", "word") for w in objects(best, "words")]
            if not words and text_of(best, "transcript").strip():
                raise FormatError(
                    f"{where}, channel {number}: expected words with times, got a transcript alone"
                )
            if several:
                words = [replace(w, speaker=_of_channel(number, w.speaker)) for w in words]
            yield from turns(words, where)


def _of_channel(channel: object, speaker: object) -> str:
    return f"channel{channel}" if speaker is None else f"channel{channel}-{speaker}"


def gladia(data: Any, where: str) -> Iterator[ServiceRow]:
    """Utterances in seconds."""
    for at, item in entries(at_key(data, "result", "transcription"), "utterances", where):
        words = tuple(word_of(word) for word in objects(item, "words"))
        speaker = first_of(item, "speaker", "channel")
        yield ServiceRow(
            at, speaker, item.get("start"), item.get("end"), text_of(item, "text"), words
        )


def aws(data: Any, where: str) -> Iterator[ServiceRow]:
    """Items, with a speaker each, or in the segments of `speaker_labels`, or in channels."""
    labels = {
        item.get("start_time"): first_of(item, "speaker_label")
        for segment in objects(data, "results", "speaker_labels", "segments")
        for item in objects(segment, "items")
    }
    channels = objects(data, "results", "channel_labels", "channels")
    if any(objects(channel, "items") for channel in channels):
        for channel in channels:
            spoken = {"results": {"items": objects(channel, "items")}}
            for row in aws(spoken, where):
                yield replace(row, speaker=channel.get("channel_label"))
        return
    words = []
    for item in objects(data, "results", "items"):
        best = (objects(item, "alternatives") or [{}])[0]
        start = item.get("start_time")
        speaker = first_of(item, "speaker_label", "channel_label") or labels.get(start)
        words.append(
            TimedWord(
                text_of(best, "content"),
                start,
                item.get("end_time"),
                best.get("confidence"),
                speaker,
            )
        )
    yield from turns(words, where)


def speechmatics(data: Any, where: str) -> Iterator[ServiceRow]:
    """Words and punctuation, in seconds; speakers count anew in each channel."""
    words: dict[object, list[TimedWord]] = {}
    for item in objects(data, "results"):
        best = (objects(item, "alternatives") or [{}])[0]
        speaker = None if best.get("speaker") == "UU" else best.get("speaker")
        times = item.get("start_time"), item.get("end_time")
        word = TimedWord(text_of(best, "content"), *times, best.get("confidence"), speaker)
        words.setdefault(item.get("channel"), []).append(word)
    several = len([channel for channel in words if channel is not None]) > 1
    for channel, spoken in words.items():
        if several:
            spoken = [
                replace(w, speaker="-".join(str(n) for n in (channel, w.speaker) if n is not None))
                for w in spoken
            ]
        yield from turns(spoken, where)


def google(data: Any, where: str) -> Iterator[ServiceRow]:
    """Results one after the other; with diarization, v1 repeats all words in the last, with speakers."""
    tags = {first_of(r, "channelTag", "channel_tag") for r in objects(data, "results")} - {None, 0}
    if len(tags) > 1:
        for tag in sorted(tags, key=str):
            own = [
                r
                for r in objects(data, "results")
                if first_of(r, "channelTag", "channel_tag") == tag
            ]
            for row in google({"results": [{**r, "channelTag": None} for r in own]}, where):
                yield replace(row, speaker=_of_channel(tag, row.speaker))
        return
    results = [objects(result, "alternatives")[:1] for result in objects(data, "results")]
    words = [
        [_google_word(word) for best in bests for word in objects(best, "words")]
        for bests in results
    ]
    if words and any(word.speaker is not None for word in words[-1]):
        total = sum(len(of_result) for of_result in words[:-1])
        if len(words[-1]) >= total and all(w.speaker is None for ws in words[:-1] for w in ws):
            words = words[-1:]
    if any(words):
        for number, (of_result, bests) in enumerate(zip(words, results, strict=False), start=1):
            if len(words) == len(results) and not of_result and _transcript(bests):
                raise FormatError(
                    f"{where}, result {number}: expected words with times, got a transcript alone"
                )
        yield from turns((word for of_result in words for word in of_result), where)
        return
    end: object = 0
    for number, (result, bests) in enumerate(
        zip(objects(data, "results"), results, strict=True), start=1
    ):
        start, end = (
            end,
            _duration(first_of(result, "resultEndTime", "resultEndOffset", "result_end_time")),
        )
        text = text_of(bests[0], "transcript") if bests else ""
        yield ServiceRow(f"{where}, result {number}", None, start, end or None, text)


def _transcript(bests: list[dict[str, Any]]) -> str:
    return text_of(bests[0], "transcript").strip() if bests else ""


def _batched(data: Any) -> list[Any]:
    """The transcripts of a batch of Google's, under `results` by the address of the sound."""
    results = at_key(data, "results")
    values = list(results.values()) if isinstance(results, dict) else []
    made = [at_key(v, "transcript") or at_key(v, "inlineResult", "transcript") for v in values]
    return made if all(isinstance(at_key(one, "results"), list) for one in made) else []


def is_google_batch(data: Any) -> bool:
    """Return whether data is a result of Google's batches, of one recording or several."""
    return bool(_batched(data))


def google_batch(data: Any, where: str) -> Iterator[ServiceRow]:
    """The results of the one recording in a batch."""
    made = _batched(data)
    if len(made) > 1:
        raise FormatError(f"{where}: expected one recording, got {len(made)}; give a file for each")
    yield from google(made[0], where)


def is_aws_calls(data: Any) -> bool:
    """Return whether data has turns as Amazon's Call Analytics writes them."""
    turns_of = at_key(data, "Transcript")
    return isinstance(turns_of, list) and any(
        at_key(t, "BeginOffsetMillis") is not None for t in turns_of
    )


def aws_calls(data: Any, where: str) -> Iterator[ServiceRow]:
    """Turns of agent and customer, in milliseconds."""
    for at, item in entries(data, "Transcript", where):
        start, end = (thousandth(item.get(f"{key}OffsetMillis")) for key in ("Begin", "End"))
        words = tuple(
            TimedWord(
                text_of(word, "Content"),
                thousandth(word.get("BeginOffsetMillis")),
                thousandth(word.get("EndOffsetMillis")),
                word.get("Confidence"),
            )
            for word in objects(item, "Items")
            if word.get("Type") != "punctuation"
        )
        speaker = first_of(item, "ParticipantRole", "ParticipantId")
        yield ServiceRow(at, speaker, start, end, text_of(item, "Content"), words)


def _google_word(word: dict[str, Any]) -> TimedWord:
    speaker = first_of(word, "speakerLabel", "speaker_label", "speakerTag", "speaker_tag")
    return TimedWord(
        text_of(word, "word"),
        _duration(first_of(word, "startTime", "startOffset", "start_time", "start_offset")),
        _duration(first_of(word, "endTime", "endOffset", "end_time", "end_offset")),
        word.get("confidence"),
        speaker or None,  # 0: not known
    )


def azure_batch(data: Any, where: str) -> Iterator[ServiceRow]:
    """Phrases of channels and speakers, in ticks or as ISO durations."""
    channels = {item.get("channel") for item in objects(data, "recognizedPhrases")}
    for at, item in entries(data, "recognizedPhrases", where):
        best = (objects(item, "nBest") or [{}])[0]
        if "offsetInTicks" in item:
            start = _ticks(item["offsetInTicks"])
            length = _ticks(item.get("durationInTicks"))
        else:
            start, length = _duration(item.get("offset")), _duration(item.get("duration"))
        words = [
            TimedWord(text_of(word, "word"), begins, plus(begins, lasts), word.get("confidence"))
            for word in objects(best, "displayWords") or objects(best, "words")
            for begins, lasts in [
                (_ticks(word["offsetInTicks"]), _ticks(word.get("durationInTicks")))
                if "offsetInTicks" in word
                else (_duration(word.get("offset")), _duration(word.get("duration")))
            ]
        ]
        speaker = item.get("speaker")
        if len(channels) > 1:
            speaker = _of_channel(item.get("channel", 0), speaker)
        text = text_of(best, "display", "lexical")
        yield ServiceRow(at, speaker, start, plus(start, length), text, tuple(words))


def azure_fast(data: Any, where: str) -> Iterator[ServiceRow]:
    """Phrases in milliseconds."""
    channels = {item.get("channel") for item in objects(data, "phrases")}
    for at, item in entries(data, "phrases", where):
        words = []
        for word in [item, *objects(item, "words")]:
            start = thousandth(first_of(word, "offsetMilliseconds", "offset"))
            length = thousandth(first_of(word, "durationMilliseconds", "duration"))
            words.append(TimedWord(text_of(word, "text"), start, plus(start, length)))
        whole, *rest = words
        speaker = item.get("speaker")
        if len(channels) > 1:
            speaker = _of_channel(item.get("channel", 0), speaker)
        yield ServiceRow(at, speaker, whole.start_s, whole.end_s, whole.text, tuple(rest))


def rev(data: Any, where: str) -> Iterator[ServiceRow]:
    """Monologues of elements: words with times, and punctuation; those of people have some times alone."""
    for at, item in entries(data, "monologues", where):
        elements = objects(item, "elements")
        words = [
            TimedWord(
                text_of(e, "value"),
                first_of(e, "ts", "timestamp"),
                first_of(e, "end_ts", "end_timestamp"),
                e.get("confidence"),
            )
            for e in elements
            if e.get("type") == "text"
        ]
        words = [replace(w, start_s=clock_s(w.start_s), end_s=clock_s(w.end_s)) for w in words]
        text = "".join(text_of(e, "value") for e in elements if e.get("type") != "unknown")
        starts = [w.start_s for w in words if w.start_s is not None]
        ends = [w.end_s for w in words if w.end_s is not None]
        if not words and not text.strip():
            continue  # a mark such as <laugh>, without a time
        speaker = first_of(item, "speaker")
        begins, stops = (starts or [None])[0], (ends or [None])[-1]
        yield ServiceRow(at, speaker, begins, stops, text, tuple(words))


def elevenlabs(data: Any, where: str) -> Iterator[ServiceRow]:
    """Words, spacing and audio events; the last two are no words."""
    words = objects(data, "words")
    spoken = (word for word in words if word.get("type", "word") == "word")
    yield from turns((word_of(word, "text", "word", "punctuated_word") for word in spoken), where)


def soniox(data: Any, where: str) -> Iterator[ServiceRow]:
    """Tokens in milliseconds, of which those that begin with a space begin a word; translations are not read."""
    words: list[TimedWord] = []
    joins = False
    for token in objects(data, "tokens"):
        text = text_of(token, "text")
        if token.get("translation_status") == "translation" or _CONTROL.fullmatch(text):
            continue
        word = TimedWord(
            text.strip(),
            thousandth(token.get("start_ms")),
            thousandth(token.get("end_ms")),
            token.get("confidence"),
            token.get("speaker"),
        )
        goes_on = joins and text[:1].strip() and not _UNSPACED.match(text)
        if goes_on and words[-1].speaker == word.speaker:
            joined = words[-1].text + word.text
            words[-1] = replace(words[-1], text=joined, end_s=word.end_s, confidence=None)
        elif word.text:
            words.append(word)
        joins = bool(words) and bool(text[-1:].strip())
    yield from turns(words, where)


def elevenlabs_channels(data: Any, where: str) -> Iterator[ServiceRow]:
    """One transcript a channel."""
    for number, item in enumerate(objects(data, "transcripts")):
        channel = first_of(item, "channel_index")
        for row in elevenlabs(item, where):
            yield replace(
                row, speaker=_of_channel(number if channel is None else channel, row.speaker)
            )


def pyannoteai(data: Any, where: str) -> Iterator[ServiceRow]:
    """Turns, with words where it transcribed, else with names where it knew the voices."""
    said = objects(data, "output", "turnLevelTranscription")
    known = objects(data, "output", "identification")
    turns_of = said or known or objects(data, "output", "diarization")
    for number, item in enumerate(turns_of, start=1):
        at = f"{where}, turn {number}"
        yield ServiceRow(
            at, item.get("speaker"), item.get("start"), item.get("end"), text_of(item, "text")
        )
