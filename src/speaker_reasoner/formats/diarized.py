"""`diarized_json`, the answer of OpenAI's transcription service with speakers. Read, not written."""

from pathlib import Path

from ..errors import FormatError
from ..transcript import Transcript
from .sessions import Sessions, load_json, parse_seconds
from .words import OPENAI


def parse_diarized_json(text: str, where: str) -> list[Transcript]:
    """Parse an object with `segments` of `speaker`, `start`, `end` (seconds) and `text`.

    A segment may have `words`, each of `word`, `start`, `end` and perhaps `confidence`; words that
    are not so, or contradict the segment, are counted in the transcript's warnings. One transcript,
    named after the file. `duration` in seconds may be absent; `task`, `text`, `usage` and the
    segments' `id` and `type` are not used.

    Raises:
        FormatError: it is other JSON, or a segment lacks a speaker or a time.
    """
    data = load_json(text, where)
    if not isinstance(data, dict) or not isinstance(data.get("segments"), list):
        raise FormatError(f'{where}: expected an object with "segments", a list')
    sessions = Sessions()
    session = Path(where).stem
    sessions.open(session, parse_seconds(data.get("duration", 0), where, "duration"))
    for number, entry in enumerate(data["segments"], start=1):
        at = f"{where}, segment {number}"
        if not isinstance(entry, dict):
            raise FormatError(f"{at}: expected an object, got {entry!r}")
        for key in ("speaker", "text"):
            if not isinstance(entry.get(key), str):
                raise FormatError(f"{at}: expected {key} as text, got {entry.get(key)!r}")
        sessions.add(
            session,
            at,
            speaker=entry["speaker"],
            start_s=parse_seconds(entry.get("start"), at, "start"),
            end_s=parse_seconds(entry.get("end"), at, "end"),
            text=entry["text"],
            words=sessions.words(session, entry.get("words"), OPENAI, at),
        )
    return sessions.transcripts()
