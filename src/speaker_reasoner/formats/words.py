"""Words of a segment with their times, as formats hold them."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..errors import FormatError
from ..transcript import Segment, Word, find_words
from .clock import span_ms, to_ms

_RUN = re.compile(r"\S+")


class WordKeys(NamedTuple):
    """The keys of a word in a JSON format, besides `confidence`."""

    text: str
    start_s: str
    end_s: str


NATIVE = WordKeys("text", "start_s", "end_s")
SEGLST = WordKeys("word", "start_time", "end_time")
OPENAI = WordKeys("word", "start", "end")


def spelled(segment: Segment) -> tuple[Word, ...] | None:
    """Return words that spell the whole text but for white space.

    Punctuation that belongs to no word goes to the word before, if it touches it, or else to the
    one behind. If it stands alone, it becomes a word without length between its neighbours.
    """
    words = segment.words
    places = None if words is None else find_words(segment.text, words)
    if words is None or places is None:
        return None
    starts = [start for start, _ in places]
    timed: list[Word] = []
    taken = 0
    for run in _RUN.finditer(segment.text):
        last = bisect_right(starts, run.end() - 1)
        if taken == last:
            timed.append(_mark(run[0], segment, words[:taken], words[taken:]))
        edges = [run.start(), *starts[taken + 1 : last], run.end()]
        for word, start, end in zip(words[taken:last], edges, edges[1:], strict=False):
            timed.append(replace(word, text=segment.text[start:end]))
        taken = last
    return tuple(timed)


def _mark(text: str, segment: Segment, before: Sequence[Word], behind: Sequence[Word]) -> Word:
    ends = [word.end_s for word in before[-1:]] + [word.start_s for word in behind[:1]]
    at_s = min(ends, default=segment.start_s)
    return Word(text, at_s, at_s)


def separate_ms(words: Sequence[Word], segment: Segment) -> list[tuple[int, int]] | None:
    """Return start and end of words in whole milliseconds, one word after the other.

    For formats in which a word lasts at least 1 ms, and ends before the next one begins: words that
    begin in the same millisecond are set 1 ms apart, and the end of a word that overlaps the next
    one is the start of that. All lie in the segment's `span_ms`. `None` where it has fewer
    milliseconds than words.
    """
    first_ms, last_ms = span_ms(segment)
    if last_ms - first_ms < len(words):
        return None
    starts: list[int] = []
    for word in words:
        starts.append(max(to_ms(word.start_s), starts[-1] + 1 if starts else first_ms))
    limit_ms = last_ms
    for i in reversed(range(len(starts))):
        starts[i] = limit_ms = min(starts[i], limit_ms - 1)
    limits = [*starts[1:], last_ms]
    return [
        (start_ms, min(max(to_ms(word.end_s), start_ms + 1), limit_ms))
        for word, start_ms, limit_ms in zip(words, starts, limits, strict=False)
    ]


def word_rows(words: Iterable[Word], keys: WordKeys) -> list[dict[str, Any]]:
    """Return words as JSON objects; the confidence is left out where it is not known."""
    rows = []
    for word in words:
        row: dict[str, Any] = {
            keys.text: word.text,
            keys.start_s: float(word.start_s),
            keys.end_s: float(word.end_s),
        }
        known = word.confidence
        rows.append(row if known is None else {**row, "confidence": float(known)})
    return rows


def parse_word_rows(rows: object, keys: WordKeys, at: str) -> tuple[Word, ...]:
    """Read words that `word_rows` wrote; white space around a word is taken off.

    Raises:
        FormatError: they are no list of such objects, or a word is none.
    """
    if not isinstance(rows, list):
        raise FormatError(f"{at}: expected a list of words, got {str(rows)[:60]!r}")
    words = []
    for number, row in enumerate(rows):
        here = f"{at}[{number}]"
        text = row.get(keys.text) if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise FormatError(f"{here}: expected an object with {', '.join(keys)}, got {row!r}")
        times = [_number(row.get(key), here, key) for key in keys[1:]]
        known = row.get("confidence")
        confidence = None if known is None else _number(known, here, "confidence")
        try:
            words.append(Word(text.strip(), times[0], times[1], confidence))
        except FormatError as error:
            raise FormatError(f"{here}: {error}") from error
    return tuple(words)


def _number(value: object, at: str, key: str) -> float:
    if isinstance(value, float):
        return value  # `Word` refuses what is not finite
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise FormatError(f"{at}.{key}: expected a finite number, got {str(value)[:60]!r}")
