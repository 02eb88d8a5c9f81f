"""Manifests of lhotse, supervisions or cuts, as transcripts, and back. They are JSON lines: lhotse is not needed.

Audio and features in them are not used, nor alignments of anything but words.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from ..errors import FormatError
from ..transcript import Transcript
from .sessions import UNKNOWN_SPEAKER, Sessions, load_json, parse_gender, parse_seconds
from .words import NATIVE

_MICROSECOND = Decimal("0.000001")  # lhotse's own sums of floats differ from ours below that
_NUMBERS = int | float
_ITEM = ("symbol", "start", "duration", "score")
_ID_TYPES, _SPEAKER_TYPES = str | int, str | int | None
_SILENCES = frozenset({"<eps>", "<sil>", "SIL"})


def render_lhotse(transcript: Transcript) -> str:
    """A transcript as a manifest of supervisions, one JSON object a line; channel 0, as lhotse counts.

    Word times are an alignment of words. A gender that is not known is left out.
    """
    lines = []
    for number, segment in enumerate(transcript.segments):
        row: dict[str, Any] = {
            "id": f"{transcript.recording}-{number:06d}",
            "recording_id": transcript.recording,
            "start": segment.start_s,
            "duration": float(Decimal(str(segment.end_s)) - Decimal(str(segment.start_s))),
            "channel": 0,
            "text": segment.text,
            "speaker": segment.speaker,
        }
        if segment.gender != "unknown":
            row["gender"] = segment.gender
        if segment.words:
            row["alignment"] = {
                "word": [
                    [w.text, w.start_s, float(Decimal(str(w.end_s)) - Decimal(str(w.start_s)))]
                    for w in segment.words
                ]
            }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def parse_lhotse(text: str, where: str) -> list[Transcript]:
    """Parse a manifest of supervisions or of cuts, one object per line.

    A session is a recording, in the recording's own time, whether a manifest says so (supervisions)
    or counts from the start of a cut; a mixed cut, which has no recording, is a session of its own
    under its id. The same supervision in cuts that overlap is read once, and counted in the
    transcript's warnings. Supervisions without a speaker are given to one, `unknown`. An alignment
    of words that does not spell the text is counted, too; of its scores, those in 0..1 are
    confidences.

    Raises:
        FormatError: a line is no supervision and no cut, lacks an id or a time, or a supervision
            comes twice with different contents.
    """
    sessions = Sessions()
    seen: dict[tuple[str, str], tuple[object, ...]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        at = f"{where}:{number}"
        entry = load_json(line, where, number)
        if not isinstance(entry, dict):
            raise FormatError(f"{at}: expected a supervision or a cut, got {line.strip()[:60]!r}")
        for session, offset_s, supervision in _supervisions(entry, sessions, at):
            start_s = (offset_s + _offset(supervision, "start", at)).quantize(_MICROSECOND)
            duration_s = parse_seconds(supervision.get("duration"), at, "duration")
            speaker = supervision.get("speaker")
            words = supervision.get("text") or ""
            if not isinstance(words, str) or not isinstance(speaker, _SPEAKER_TYPES):
                raise FormatError(f"{at}: expected text and speaker as text")
            key = (session, _id(supervision, "id", at))
            contents = (start_s, duration_s, speaker, words)
            if key in seen:
                if seen[key] != contents:
                    raise FormatError(f"{at}: supervision {key[1]!r} comes twice and differs")
                sessions.count(session, "supervisions came again in another cut and were read once")
                continue
            seen[key] = contents
            if speaker is None:
                sessions.count(session, f"supervisions name no speaker: {UNKNOWN_SPEAKER!r}")
            sessions.add(
                session,
                at,
                speaker=UNKNOWN_SPEAKER if speaker is None else str(speaker),
                start_s=start_s,
                end_s=start_s + duration_s,
                text=words,
                gender=parse_gender(str(supervision.get("gender"))),
                words=sessions.words(session, _word_rows(supervision, offset_s, at), NATIVE, at),
            )
    return sessions.transcripts()


def _word_rows(supervision: dict[str, Any], offset_s: Decimal, at: str) -> object:
    """Return the items of `alignment.word` as rows of words; as they are where they are no items.

    An item is `[symbol, start, duration, score]`, or an object of these.
    """
    alignment = supervision.get("alignment") or {}
    items = alignment.get("word") if isinstance(alignment, dict) else alignment
    if not isinstance(items, list):
        return items
    rows = []
    for item in items:
        fields = dict(zip(_ITEM, item, strict=False)) if isinstance(item, list) else item
        if not isinstance(fields, dict) or not isinstance(fields.get("symbol"), str):
            return items
        try:
            start_s = max(Decimal(0), offset_s + _offset(fields, "start", at))
            end_s = start_s + parse_seconds(fields.get("duration"), at, "duration")
        except FormatError:
            return items
        score = fields.get("score")
        row = {
            "start_s": float(start_s.quantize(_MICROSECOND)),
            "end_s": float(end_s.quantize(_MICROSECOND)),
            "confidence": score if isinstance(score, int | float) and 0 <= score <= 1 else None,
        }
        symbol = fields["symbol"]
        rows += [{"text": word, **row} for word in symbol.split() if symbol not in _SILENCES]
    return rows


def _supervisions(
    entry: dict[str, Any], sessions: Sessions, at: str
) -> Iterator[tuple[str, Decimal, dict[str, Any]]]:
    """Yield session, offset in seconds and object of each supervision of a line; open its session."""
    if "tracks" in entry:
        session = _id(entry, "id", at)
        for track in _objects(entry, "tracks", at):
            [cut] = _objects({"cut": [track.get("cut")]}, "cut", at)
            offset_s = parse_seconds(track.get("offset", 0), at, "offset")
            sessions.open(session, offset_s + parse_seconds(cut.get("duration"), at, "duration"))
            for supervision in _objects(cut, "supervisions", at):
                yield session, offset_s, supervision
    elif "supervisions" in entry:
        recording = entry.get("recording")
        start_s = parse_seconds(entry.get("start", 0), at, "start")
        end_s = start_s + parse_seconds(entry.get("duration"), at, "duration")
        if isinstance(recording, dict):
            session = _id(recording, "id", at)
            end_s = max(end_s, parse_seconds(recording.get("duration"), at, "duration"))
        else:  # features alone, or audio in memory
            session, start_s = _id(entry, "id", at), Decimal(0)
        sessions.open(session, end_s)
        for supervision in _objects(entry, "supervisions", at):
            yield session, start_s, supervision
    elif "recording_id" in entry:
        yield _id(entry, "recording_id", at), Decimal(0), entry
    elif "sources" in entry:
        raise FormatError(f"{at}: a manifest of recordings; give that of supervisions or cuts")
    else:
        raise FormatError(
            f"{at}: neither a supervision nor a cut: it has {' '.join(', '.join(entry).split())[:80]}"
        )


def _id(entry: dict[str, Any], key: str, at: str) -> str:
    if not isinstance(entry.get(key), _ID_TYPES):
        raise FormatError(f"{at}: expected {key} as text, got {entry.get(key)!r}")
    return str(entry[key])


def _objects(entry: dict[str, Any], key: str, at: str) -> list[dict[str, Any]]:
    items = entry.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise FormatError(f"{at}: expected {key} to hold objects, got {str(items)[:60]}")
    return items


def _offset(entry: dict[str, Any], key: str, at: str) -> Decimal:
    """Return a time that counts from the start of a cut, and may lie before it."""
    value = entry.get(key)
    if isinstance(value, _NUMBERS) and value < 0:
        return -parse_seconds(-value, at, key)
    return parse_seconds(value, at, key)
