"""Turns in the JSON of FunASR, Vosk and IBM Watson, which lay words out in ways of their own.

Every function takes data and its place and yields turns, as those of `service_rows` do.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..errors import FormatError
from .ctm import split_words
from .service_rows import (
    ServiceRow,
    TimedWord,
    at_key,
    objects,
    text_of,
    thousandth,
    turns,
    word_of,
)


def is_funasr(data: Any) -> bool:
    """Return whether data is a result of `AutoModel.generate`: a list of recordings with their `key`."""
    return isinstance(data, list) and bool(data) and all(
        isinstance(item, dict) and "key" in item and ("timestamp" in item or "sentence_info" in item)
        for item in data
    )  # fmt: skip


def funasr(data: Any, where: str) -> Iterator[ServiceRow]:
    """Yield the sentences of recordings, stated in milliseconds; without sentences, the text as one turn."""
    for item in data:
        for number, one in enumerate(objects(item, "sentence_info") or [item], start=1):
            at = f"{where}, {item['key']}, sentence {number}"
            text = text_of(one, "text", "sentence")
            times = one.get("timestamp") or []
            if not _are_spans(times):
                raise FormatError(
                    f"{at}: expected timestamp as [[start, end], ...], got {str(times)[:60]}"
                )
            spans = [(thousandth(start), thousandth(end)) for start, end in times]
            words = split_words(text)
            timed = [TimedWord(w, *span) for w, span in zip(words, spans, strict=False)]
            start, end = thousandth(one.get("start")), thousandth(one.get("end"))
            if start is None and spans:
                start, end = spans[0][0], spans[-1][1]
            if text or start is not None:
                yield ServiceRow(
                    at, one.get("spk"), start, end, text, tuple(timed) if len(words) == len(spans) else ()
                )  # fmt: skip


def _are_spans(times: object) -> bool:
    return isinstance(times, list) and all(isinstance(one, list) and len(one) == 2 for one in times)


def _results(data: Any) -> list[dict[str, Any]]:
    items = data if isinstance(data, list) else [data]
    return [item for item in items if isinstance(item, dict) and set(item) <= _OF_VOSK]


_OF_VOSK = frozenset(("result", "text", "partial", "spk", "spk_frames", "at"))


def is_vosk(data: Any) -> bool:
    """Return whether data is a result of Vosk with words, or a list of its results."""
    items = data if isinstance(data, list) else [data]
    results = _results(data)
    return bool(results) and len(results) == len(items) and any("result" in one for one in results)


def vosk(data: Any, where: str) -> Iterator[ServiceRow]:
    """Yield turns of the words of all results, stated in seconds; they name no speakers."""
    words = []
    for number, item in enumerate(_results(data), start=1):
        own = objects(item, "result")
        if not own and text_of(item, "text").strip():
            raise FormatError(
                f"{where}, result {number}: expected words with times (SetWords), got a text alone"
            )
        words += [replace(word_of(w), confidence=w.get("conf")) for w in own]
    yield from turns(words, where)


def several_values(text: str) -> list[Any] | None:
    """Return the JSON values of a text that holds several in a row, as a program prints them; `None` for any other."""
    decoder, values, at = json.JSONDecoder(), [], 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return values if len(values) > 1 else None


def is_watson(data: Any) -> bool:
    """Return whether data has words as IBM Watson writes them: `["hello", 0.5, 1.0]`."""
    results = at_key(data, "results")
    first = results[0] if isinstance(results, list) and results else None
    bests = at_key(first, "alternatives")
    return (
        isinstance(bests, list) and bool(bests) and isinstance(at_key(bests[0], "timestamps"), list)
    )


def watson(data: Any, where: str) -> Iterator[ServiceRow]:
    """Yield turns of the words of each first alternative, in seconds; speakers are assigned by the start of a word."""
    speakers = {
        _time(label.get("from")): label.get("speaker") for label in objects(data, "speaker_labels")
    }
    words = []
    for number, result in enumerate(objects(data, "results"), start=1):
        for best in objects(result, "alternatives")[:1]:
            times, given = best.get("timestamps") or [], best.get("word_confidence")
            if not isinstance(times, list):
                raise FormatError(
                    f"{where}, result {number}: expected timestamps as a list, got {str(times)[:60]!r}"
                )
            if not times and text_of(best, "transcript").strip():
                raise FormatError(
                    f"{where}, result {number}: expected words with times, got a transcript alone"
                )
            known = {
                n: one[1]
                for n, one in enumerate(given if isinstance(given, list) else ())
                if isinstance(one, list) and len(one) == 2
            }
            for n, one in enumerate(times):
                if not isinstance(one, list) or len(one) != 3 or not isinstance(one[0], str):
                    raise FormatError(
                        f"{where}, result {number}: expected [word, start, end], got {one!r}"
                    )
                word, start, end = one
                words.append(TimedWord(word, start, end, known.get(n), speakers.get(_time(start))))
    yield from turns(words, where)


def _time(value: object) -> object:
    """Return a time as a key: 1 and 1.0 are the same one; values that are no numbers as text."""
    return value if isinstance(value, int | float) else str(value)
