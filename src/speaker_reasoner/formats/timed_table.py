"""Tables of one recording, a line for each segment: Whisper's TSV, whisper.cpp's CSV. Read, not written."""

import csv
import io
import re
from dataclasses import replace
from typing import Any

from ..errors import FormatError
from ..transcript import Transcript, recording_name
from . import service_rows as rows
from .gathering import SLOWEST_S, gather, word_count

_OF_SPEAKERS = ("speaker", "speaker_name", "speaker_label", "speaker_id")
_OF_RECORDINGS = frozenset(
    (
        "file",
        "filename",
        "file_name",
        "path",
        "audio",
        "audio_filepath",
        "recording",
        "recording_id",
    )
) | {"session", "session_id", "id"}
"""Columns of tables of several recordings, which are not read."""
_MILLISECONDS = "times are whole numbers at which a word takes half a minute: read as milliseconds"


def is_table(text: str) -> bool:
    """Return whether the first line of a text names columns of starts, of ends, and of words or speakers."""
    _, names = _columns(text)
    ends = (*rows.ENDS, "duration")
    return (
        any(name in rows.STARTS for name in names)
        and any(name in ends for name in names)
        and any(name in (*rows.TEXTS, *_OF_SPEAKERS) for name in names)
        and not _OF_RECORDINGS & set(names)
    )


def _columns(text: str) -> tuple[str, list[str]]:
    """Return the mark between columns, and their names in lower case."""
    head = text.split("\n", 1)[0]
    mark = max("\t,;", key=head.count)
    return mark, [name.strip().strip('"').lower() for name in head.split(mark)]


def parse_table(text: str, where: str) -> list[Transcript]:
    """Parse a table with columns such as `start`, `end`, `speaker` and `text`; one transcript, named after the file.

    Times are seconds, or clocks, or, where they are whole numbers at which a word takes half a minute, milliseconds: a
    warning says so.

    Raises:
        FormatError: the first line names no such columns, a line has another number of fields, or a time is none.
    """
    if not is_table(text):
        raise FormatError(
            f"{where}:1: expected columns such as start, end, speaker, text; got {text.split(chr(10), 1)[0][:60]!r}"
        )
    mark, names = _columns(text)
    file = io.StringIO(text)
    if mark == "\t":  # Whisper quotes nothing
        reader = csv.reader(file, delimiter=mark, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, delimiter=mark)
    segments: list[dict[str, Any]] = []
    try:
        next(reader)
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            at = f"{where}:{reader.line_num}"
            if len(fields) != len(names):
                raise FormatError(f"{at}: expected {len(names)} fields, got {len(fields)}")
            row = {k: v.strip() or None for k, v in zip(names, fields, strict=True)}
            segments.append({**row, "at": at})
    except csv.Error as error:
        raise FormatError(f"{where}:{reader.line_num}: not a table: {error}") from error
    turns = list(rows.segments({"segments": segments}, where))
    milliseconds = _are_milliseconds(turns)
    if milliseconds:
        turns = [
            replace(
                t,
                start_s=rows.thousandth(_whole(t.start_s)),
                end_s=rows.thousandth(_whole(t.end_s)),
            )
            for t in turns
        ]
    one = gather(turns, recording_name(where), where)
    warnings = (*one.warnings, f"{len(turns)} {_MILLISECONDS}") if milliseconds else one.warnings
    return [replace(one, warnings=warnings)]


def _whole(time: object) -> int | None:
    return int(time) if isinstance(time, str) and re.fullmatch(r"\d{1,12}", time) else None


def _are_milliseconds(turns: list[rows.ServiceRow]) -> bool:
    """Return whether all times are whole numbers at which a word takes half a minute."""
    length = words = 0
    for turn in turns:
        start, end = _whole(turn.start_s), _whole(turn.end_s)
        if start is None or end is None:
            return False
        length += end - start
        words += word_count(turn.text)
    return 0 < words * SLOWEST_S < length
