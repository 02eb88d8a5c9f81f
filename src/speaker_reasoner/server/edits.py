"""Apply each kind of operation to a document, without side effects.

Errors are `RequestError`: 404 for a segment or speaker that is not there; 400 for a name that is another
speaker's, or text and times that no segment can have.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from ..errors import FormatError
from ..transcript import Confidence, Segment, Word, words_fault
from .failures import RequestError
from .lines import CorrectedLine, Document, chunk_at

_SLACK_S = 0.05
"""How far a segment may end behind the recording: times are written with few decimals."""
_SHORTEST_S = 0.01


def line_of(document: Document, segment: str) -> CorrectedLine:
    for line in document.lines:
        if line.id == segment:
            return line
    raise RequestError(
        404, f"there is no segment {segment!r}", code="segment_not_found", param="segment"
    )


def _known(document: Document, speaker: str) -> str:
    label = document.label(speaker)
    if label is None:
        raise RequestError(
            404, f"there is no speaker {speaker!r}", code="speaker_not_found", param="speaker"
        )
    return label


def _wrong(message: str, param: str) -> RequestError:
    return RequestError(400, message, code="invalid_value", param=param)


def rename(document: Document, speaker: str, name: str) -> Document:
    label = _known(document, speaker)
    if not name or not name.isprintable():
        raise _wrong(f"name {name!r}: expected printable characters on one line", "name")
    other = document.label(name)
    if other not in (None, label):
        raise _wrong(f"{name!r} is another speaker already; merge the two instead", "name")
    return replace(document, names={**document.names, label: name})


def merge(document: Document, source: str, into: str) -> Document:
    """Give all lines of one speaker to another, with the gender of the latter."""
    source, into = _known(document, source), _known(document, into)
    if source == into:
        raise _wrong(f"{source!r} cannot be merged into itself", "into")
    gender = document.transcript.with_segments([x.segment for x in document.lines]).genders[into]
    lines = [
        replace(line, segment=replace(line.segment, speaker=into, gender=gender))
        if line.segment.speaker == source
        else line
        for line in document.lines
    ]
    names = {label: name for label, name in document.names.items() if label != source}
    return replace(document, lines=tuple(lines), names=names)


def move(document: Document, segment: str, speaker: str) -> Document:
    line = line_of(document, segment)
    speaker = _usable(speaker)
    label = document.label(speaker)
    gender = line.segment.gender
    if label is not None:
        others = [x.segment for x in document.lines if x is not line]
        gender = document.transcript.with_segments(others).genders.get(label, gender)
    moved = replace(
        line.segment,
        speaker=label or speaker,
        gender=gender,
        confidence=replace(line.segment.confidence, speaker=None),
    )
    return _exchange(document, line, moved)


def edit(document: Document, operation: Mapping[str, Any]) -> Document:
    """Change words or times of a segment. New words have no confidence, and neither have new times.

    Words keep their own times only where text and times still allow all of them.
    """
    line = line_of(document, operation["segment"])
    was, sure = line.segment, line.segment.confidence
    text, start, end = (operation.get(key) for key in ("text", "start", "end"))
    if text is None and start is None and end is None:
        raise _wrong("expected 'text', 'start' or 'end'", "text")
    _check_end(document, end)
    timed = start is not None or end is not None
    said = was.text if text is None else text.strip()
    start_s, end_s = was.start_s if start is None else start, was.end_s if end is None else end
    words = was.words
    if words is not None and words_fault(words, said, start_s, end_s) is not None:
        words = None
    try:
        edited = replace(
            was,
            text=said,
            start_s=start_s,
            end_s=end_s,
            confidence=Confidence(
                sure.words if text is None else None,
                sure.speaker,
                None if timed else sure.times,
            ),
            words=words,
        )
    except FormatError as error:
        raise _wrong(str(error), "text" if text is not None else "start") from error
    return _exchange(document, line, edited)


def delete(document: Document, segment: str) -> Document:
    """Delete a segment that nobody said."""
    line = line_of(document, segment)
    lines = tuple(x for x in document.lines if x is not line)
    return replace(document, lines=lines, deleted=(*document.deleted, line))


def split(document: Document, operation: Mapping[str, Any]) -> Document:
    """Cut a segment before a character of its text: at a given time, else at that of its words, or in proportion to
    the lengths of the texts."""
    line, at = line_of(document, operation["segment"]), operation["at"]
    was = line.segment
    texts = was.text[:at].strip(), was.text[at:].strip()
    if not all(texts):
        raise _wrong(f"at {at}: expected words before and after it, in {was.text!r}", "at")
    words = _cut_words(was, texts[0])
    time = operation.get("time")
    if time is None and words is not None:
        time = (words[0][-1].end_s + words[1][0].start_s) / 2
    if time is None:
        time = was.start_s + was.duration_s * len(texts[0]) / max(1, len(texts[0]) + len(texts[1]))
    time = round(time, 3)
    if not was.start_s + _SHORTEST_S <= time <= was.end_s - _SHORTEST_S:
        raise _wrong(f"time {time} s: expected one inside [{was.start_s}, {was.end_s}]", "time")
    speaker = operation.get("speaker")
    label = was.speaker if speaker is None else (document.label(speaker) or _usable(speaker))
    parts = []
    for n, (text, start_s, end_s) in enumerate(
        ((texts[0], was.start_s, time), (texts[1], time, was.end_s))
    ):
        own = words[n] if words is not None else None
        if own is not None and words_fault(own, text, start_s, end_s) is not None:
            own = None
        parts.append(
            replace(was, text=text, start_s=start_s, end_s=end_s, words=own,
                    speaker=label if n else was.speaker,
                    gender=_gender(document, label, was.gender) if n else was.gender)
        )  # fmt: skip
    first = replace(line, segment=parts[0], corrected=True)
    second = replace(line, id=_new_id(document, line.id), segment=parts[1], corrected=True)
    lines = [one for x in document.lines for one in ((first, second) if x is line else (x,))]
    return replace(document, lines=tuple(lines))


def _cut_words(segment: Segment, before: str) -> tuple[tuple[Word, ...], tuple[Word, ...]] | None:
    """Return the words with times on both sides of a cut; `None` if their times are not known or contradict the cut."""
    words = segment.words or ()
    for n in range(1, len(words)):
        said = "".join("".join(word.text.split()) for word in words[:n])
        if said == "".join(before.split()):
            return words[:n], words[n:]
    return None


def join(document: Document, segment: str, other: str) -> Document:
    """Join two segments to one, with the speaker of the earlier."""
    one, two = line_of(document, segment), line_of(document, other)
    if one is two:
        raise _wrong(f"{other!r} cannot be joined with itself", "other")
    first, second = sorted((one, two), key=lambda x: (x.segment.start_s, x.segment.end_s))
    a, b = first.segment, second.segment
    text = f"{a.text} {b.text}".strip()
    start_s, end_s = min(a.start_s, b.start_s), max(a.end_s, b.end_s)
    words = (*a.words, *b.words) if a.words is not None and b.words is not None else None
    if words is not None and words_fault(words, text, start_s, end_s) is not None:
        words = None
    joined = replace(
        a,
        text=text,
        start_s=start_s,
        end_s=end_s,
        confidence=Confidence(None, a.confidence.speaker, None),
        words=words,
    )
    kept = replace(first, segment=joined, corrected=True)
    lines = tuple(kept if x is first else x for x in document.lines if x is not second)
    return replace(document, lines=lines)


def add(document: Document, operation: Mapping[str, Any]) -> Document:
    """Add a segment where nothing was transcribed."""
    text, start_s, end_s = operation["text"].strip(), operation["start"], operation["end"]
    _check_end(document, end_s)
    label = document.label(operation["speaker"]) or _usable(operation["speaker"])
    try:
        segment = Segment(label, start_s, end_s, text, _gender(document, label, "unknown"))
    except FormatError as error:
        raise _wrong(str(error), "start" if end_s <= start_s else "text") from error
    chunk = chunk_at(document.transcript, start_s, label)
    line = CorrectedLine(_new_id(document, "new"), segment, chunk, None, corrected=True)
    return replace(document, lines=(*document.lines, line))


def set_gender(document: Document, speaker: str, gender: str) -> Document:
    """Set the gender of a speaker in all segments."""
    label = _known(document, speaker)
    lines = tuple(
        replace(x, segment=replace(x.segment, gender=gender)) if x.segment.speaker == label else x
        for x in document.lines
    )
    return replace(document, lines=lines)


def _new_id(document: Document, stem: str) -> str:
    """Return an id that no line has or had."""
    taken = {line.id for line in (*document.lines, *document.deleted)}
    return next(name for n in count(1) if (name := f"{stem}/{n}") not in taken)


def _usable(speaker: str) -> str:
    """Return a new speaker's name if it may be used."""
    label = speaker.strip()
    if not label or not label.isprintable():
        raise _wrong(f"speaker {speaker!r}: expected printable characters on one line", "speaker")
    return label


def _gender(document: Document, label: str, otherwise: str) -> str:
    segments = [line.segment for line in document.lines]
    return document.transcript.with_segments(segments).genders.get(label, otherwise)


def _check_end(document: Document, end_s: float | None) -> None:
    duration_s = document.transcript.duration_s
    if end_s is not None and end_s > duration_s + _SLACK_S:
        raise _wrong(f"end {end_s} s: the recording lasts {duration_s:.3f} s", "end")


def _exchange(document: Document, line: CorrectedLine, segment: Segment) -> Document:
    changed = replace(line, segment=segment, corrected=True)
    return replace(document, lines=tuple(changed if x is line else x for x in document.lines))
