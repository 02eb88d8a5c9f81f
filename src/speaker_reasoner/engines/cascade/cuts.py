"""Cuts speech into the clips that a recogniser takes, and gives their words times in the chunk."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ...speech import Region
from ...transcript import Word

_OPENING = "([{<«“‘¿¡「『（《"


def clips(
    samples: Samples, speech: Sequence[Region], longest_s: float
) -> list[tuple[Region, Samples]]:
    """The sound of each region; a longer one is cut into equal parts."""
    cut = []
    for start_s, end_s in speech:
        parts = max(1, int(-(-(end_s - start_s) // longest_s)))
        for first_s, last_s in pairwise(np.linspace(start_s, end_s, parts + 1).tolist()):
            sound = samples[round(first_s * SAMPLE_RATE_HZ) : round(last_s * SAMPLE_RATE_HZ)]
            if len(sound):
                cut.append(((first_s, last_s), sound))
    return cut


def is_unspaced(text: str) -> bool:
    """Return whether a text is of a script that is written without spaces (Han, kana, Thai, ...)."""
    return any(
        "\u3040" <= c <= "\u30ff"
        or "\u3400" <= c <= "\u9fff"
        or "\uf900" <= c <= "\ufaff"
        or "\u0e00" <= c <= "\u0eff"
        or "\U00020000" <= c <= "\U0003ffff"
        for c in text
    )


def words_of(
    text: str, pieces: Sequence[str], spans_s: Sequence[Region], region: Region
) -> tuple[list[Word], list[bool]]:
    """Join timed pieces of a text to words, with the punctuation of the text.

    Pieces without a separator between them are one word. In scripts without spaces each character is a word.

    Args:
        text: the final text.
        pieces: parts of it in order, perhaps with punctuation.
        spans_s: start and end of each piece in seconds from the start of the region.
        region: of the chunk, in seconds; no word lies outside.

    Returns:
        The words in seconds of the chunk, and whether each follows the one before without a space. If the
        pieces are not those of the text, the text is not used.
    """
    places = _places(text, pieces)
    if places is None:
        text = _spaced(pieces)
        places = _places(text, pieces) or []
    words: list[Word] = []
    joined: list[bool] = []
    reached = 0
    for (first, last), span_s in zip(_with_marks(text, places), spans_s, strict=True):
        word = text[first:last].replace(" ", "")
        together = bool(words) and first == reached
        reached = last
        start_s, end_s = _inside(span_s, region, words[-1].start_s if words else region[0])
        if together and _one_word(words[-1].text, word):
            before = words.pop()
            word, start_s, end_s = before.text + word, before.start_s, max(before.end_s, end_s)
            together = joined.pop()
        words.append(Word(word, start_s, end_s))
        joined.append(together)
    return words, joined


def _with_marks(text: str, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Widen the places by the punctuation around them, until only white space is between them."""
    widened = list(places)
    for i in range(len(widened) + 1):
        low = widened[i - 1][1] if i else 0
        high = widened[i][0] if i < len(widened) else len(text)
        between = text[low:high]
        # Marks belong to the word before them, opening brackets and quotes to the word after them.
        head = len(between) - len(between.rstrip(_OPENING))
        tail = between[: len(between) - head].rstrip()
        if i:
            widened[i - 1] = (widened[i - 1][0], low + len(tail))
        if i < len(widened):
            first = high - head if i else low + len(between) - len(between.lstrip())
            widened[i] = (first, widened[i][1])
    return widened


def _one_word(before: str, after: str) -> bool:
    """Return whether a piece continues the word before it, given that no space is between them."""
    if not any(c.isalnum() for c in after):
        return True
    return not (
        is_unspaced(before[-1:]) or is_unspaced(after[:1]) or before[-1:] in "。，！？、；："
    )


def _places(text: str, pieces: Sequence[str]) -> list[tuple[int, int]] | None:
    """First and last character of each piece in the text; `None` if one is not in it."""
    lower, at, places = text.lower(), 0, []
    if len(lower) != len(text):
        return None
    for piece in pieces:
        first = lower.find(piece.lower(), at)
        if first < 0 or any(c.isalnum() for c in text[at:first]):
            return None
        at = first + len(piece)
        places.append((first, at))
    return None if any(c.isalnum() for c in text[at:]) else places


def _spaced(pieces: Sequence[str]) -> str:
    """Join pieces to a text with spaces, but without them between characters of scripts that have none."""
    text = ""
    for piece in pieces:
        together = not text or (is_unspaced(text[-1]) and is_unspaced(piece[:1]))
        text += piece if together or not any(c.isalnum() for c in piece) else f" {piece}"
    return text


def _inside(span_s: Region, region: Region, earliest_s: float) -> Region:
    """Clip a span to its region, and let it start no earlier than the word before it."""
    low, high = region
    start_s = min(max(low + span_s[0], earliest_s, low), high)
    return round(start_s, 6), round(min(max(low + span_s[1], start_s), high), 6)
