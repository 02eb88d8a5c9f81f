"""CTM: words with times, which are estimated where a transcript has none."""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import accumulate, groupby

from ..errors import FormatError
from ..transcript import Confidence, Segment, Transcript, Word
from .choices import Choices
from .clock import decimal_seconds, span_ms, to_ms
from .scoring import fields_of
from .sessions import Sessions, file_token, parse_seconds, token, unique_labels
from .words import spelled

MAX_PAUSE_S = Decimal("0.5")
"""Words of one speaker that are further apart belong to different segments."""

_ALTERNATION = ("<ALT_BEGIN>", "<ALT>", "<ALT_END>")
_NO_WORD_TYPES = frozenset({"non-lex", "misc", "noise"})
# Han with its extensions, and kana: scripts written without spaces, where one character counts as
# one word. Punctuation stays with the character it stands beside.
UNSPACED = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED_CHARACTER = re.compile(f"[{UNSPACED}]")
_WORD = re.compile(rf"[^\w\s]*[{UNSPACED}][^\w\s]*|[^\s{UNSPACED}]+")


def render_ctm(transcript: Transcript) -> str:
    """Render CTM (NIST RT-09): `<file> 1 <start> <duration> <word> <confidence> lex <speaker>`.

    One line per word, ordered by start, seconds with three decimals. Where a segment has no times
    of words, they are interpolated: its words share its time in proportion to their lengths in
    characters, and text without spaces (Chinese, Japanese) counts each character as a word. Nothing
    in the file tells the one from the other. The confidence is the word's, or else that of the
    segment's words, or `NA`. Punctuation goes with the word it touches; if it stands alone, it is a
    word without length.

    White space in file and speaker becomes `_`. Holds no genders, no segment borders, no segments
    without words, no spaces between Chinese characters. Tools that know six columns at most, and
    one speaker per file (MeetEval), should be given STM or SegLST instead.
    """
    file = file_token(transcript.recording)
    labels = unique_labels(transcript.speakers, token)
    rows: list[tuple[int, str]] = []
    for segment in transcript.segments:
        for word in spelled(segment) or _interpolated(segment):
            known = segment.confidence.words if word.confidence is None else word.confidence
            confidence = "NA" if known is None else f"{known:.3f}"
            start_ms = to_ms(word.start_s)
            times = f"{decimal_seconds(start_ms)} {decimal_seconds(to_ms(word.end_s) - start_ms)}"
            line = f"{file} 1 {times} {word.text} {confidence} lex {labels[segment.speaker]}\n"
            rows.append((start_ms, line))
    rows.sort(key=lambda row: row[0])  # stable: the order of words that start together stays
    return "".join(line for _, line in rows)


def _interpolated(segment: Segment) -> list[Word]:
    words = split_words(segment.text)
    start_ms, end_ms = span_ms(segment)
    lengths = list(accumulate((len(word) for word in words), initial=0))
    borders_s = [
        (start_ms + round((end_ms - start_ms) * length / (lengths[-1] or 1))) / 1000
        for length in lengths
    ]
    return [
        Word(word, start_s, end_s)
        for word, start_s, end_s in zip(words, borders_s, borders_s[1:], strict=False)
    ]


def split_words(text: str) -> list[str]:
    """Split at spaces, and around every Chinese or Japanese character."""
    return _WORD.findall(text)


def join_words(words: list[str]) -> str:
    """Join words with spaces, except between two of Chinese or Japanese characters."""
    text = ""
    unspaced_before = False
    for word in words:
        unspaced = _UNSPACED_CHARACTER.search(word) is not None
        text += word if not text or (unspaced and unspaced_before) else f" {word}"
        unspaced_before = unspaced
    return text


@dataclass(slots=True)
class _WordRow:
    start_s: Decimal
    end_s: Decimal
    word: str
    confidence: float | None
    at: str
    others: tuple[str | None, ...] = ()  # may be said instead of all words of this alternation
    alternation: int = 0  # its number; 0 for none


def parse_ctm(text: str, where: str) -> list[Transcript]:
    """Parse CTM of five to eight columns: confidence, type and speaker are optional.

    The words of one speaker in one file become segments, split at pauses above `MAX_PAUSE_S`; the
    segments have them with their times and confidences. Where the speaker is not given, the channel
    stands for it: `channel1`. Words of the types non-lex, misc and noise are left out and counted in
    the transcript's warnings. Lines that begin with `;;` are comments. Alternations (`<ALT_BEGIN>`,
    `<ALT>`, `<ALT_END>`) are `Segment.choices`, with the first that has words as the text; an
    alternation of nothing but `@` is none.

    Raises:
        FormatError: a line has too few or too many fields, a time is none, or an alternation does not
            end.
    """
    sessions = Sessions()
    words: dict[tuple[str, str], list[_WordRow]] = defaultdict(list)
    alternatives: list[list[_WordRow]] | None = None  # of the alternation that is open
    opened, alternations, of_alternation = "", 0, ("", "")
    for number, fields in fields_of(text):
        if fields[0].startswith(";;"):
            continue
        at = f"{where}:{number}"
        if not 5 <= len(fields) <= 8:
            raise FormatError(f"{at}: expected 5 to 8 CTM fields, got {len(fields)}")
        file, channel, start, duration, word, confidence, kind, speaker = (
            fields if len(fields) == 8 else fields + ["NA", "lex", "NA"][len(fields) - 5 :]
        )
        sessions.open(file)
        if word[0] == "<" and (mark := word.upper()) in _ALTERNATION:
            if (alternatives is None) != (mark == "<ALT_BEGIN>"):
                raise FormatError(f"{at}: expected <ALT_BEGIN>, <ALT>, <ALT_END>; got {word}")
            if mark == "<ALT_END>":
                alternations += 1
                words[of_alternation] += _joined(alternatives or [], alternations)
                alternatives = None
            elif mark == "<ALT>":
                (alternatives or []).append([])
            else:
                alternatives, opened, of_alternation = [[]], at, (file, _label(channel, speaker))
            continue
        if kind != "lex" and kind.lower() in _NO_WORD_TYPES:
            sessions.count(file, f"CTM tokens of type {kind.lower()} were not read")
            continue
        if word == "@" and alternatives is not None:
            continue
        start_s = parse_seconds(start, at, "start")
        end_s = start_s + parse_seconds(duration, at, "duration")
        key = file, _label(channel, speaker)
        row = _WordRow(start_s, end_s, word, _parse_confidence(confidence, at), at)
        if alternatives is None:
            words[key].append(row)
        else:
            alternatives[-1].append(row)
            of_alternation = key  # its marks need not name the speaker
    if alternatives is not None:
        raise FormatError(f"{opened}: <ALT_BEGIN> without <ALT_END>")
    for (file, label), of_speaker in words.items():
        _add_segments(sessions, file, label, of_speaker)
    return sessions.transcripts()


def _label(channel: str, speaker: str) -> str:
    return f"channel{channel}" if speaker.upper() in ("NA", "<NA>") else speaker


def _joined(alternatives: list[list[_WordRow]], number: int) -> list[_WordRow]:
    """The words of the first alternative that has some, which know the texts of the others."""
    texts = [" ".join(row.word for row in rows) for rows in alternatives]
    chosen = next((i for i, text in enumerate(texts) if text), None)
    if chosen is None:
        return []
    others = tuple(dict.fromkeys(text for i, text in enumerate(texts) if i != chosen))
    return [
        replace(row, others=others, alternation=number) if others else row
        for row in alternatives[chosen]
    ]


def _parse_confidence(field: str, at: str) -> float | None:
    if field.upper() in ("NA", "<NA>"):
        return None
    try:
        confidence = float(field)
    except ValueError:
        confidence = math.nan
    if not math.isfinite(confidence):
        raise FormatError(f"{at}: expected a confidence or NA, got {field!r}")
    return confidence


def _add_segments(sessions: Sessions, file: str, speaker: str, words: list[_WordRow]) -> None:
    """Add the words of one speaker, grouped into segments at pauses."""
    groups: list[list[_WordRow]] = []
    end_s = Decimal(0)
    for word in sorted(words, key=lambda word: word.start_s):
        if not groups or word.start_s - end_s > MAX_PAUSE_S:
            groups.append([])
            end_s = word.end_s
        groups[-1].append(word)
        end_s = max(end_s, word.end_s)
    for group in groups:
        known = [word.confidence for word in group if word.confidence is not None]
        sessions.add(
            file,
            group[0].at,
            speaker=speaker,
            start_s=group[0].start_s,
            end_s=max(word.end_s for word in group),
            text=join_words([word.word for word in group]),
            confidence=Confidence(words=sum(known) / len(known) if known else None),
            words=[
                Word(word.word, float(word.start_s), float(word.end_s), word.confidence)
                for word in group
            ],
            choices=_choices(group),
        )


def _choices(words: list[_WordRow]) -> Choices | None:
    if not any(word.alternation for word in words):
        return None
    parts = [(number, list(rows)) for number, rows in groupby(words, lambda row: row.alternation)]
    return tuple((" ".join(row.word for row in rows), *rows[0].others) for _, rows in parts)
