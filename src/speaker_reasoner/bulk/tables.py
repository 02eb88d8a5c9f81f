"""Tables of a target, made of the transcripts of its recordings in the order of the source.

    transcripts.jsonl      one line a recording: the keys of NeMo (audio_filepath, duration, offset, text), segments
    recordings/, segments/ Parquet: one row a recording, one row a segment, in parts of `PART` recordings
    supervisions.jsonl.gz  a SupervisionSet of lhotse

A table is the same, byte for byte, however the recordings came to be transcribed. A recording that failed has a row
with its error. Where none was transcribed yet, a table is refused, unless it is said to be a part.
"""

import gzip
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .. import extras
from ..errors import FormatError, OutputError, SettingsError
from ..formats import as_json, read
from ..transcript import Transcript
from .rows import Row
from .target import RowFailure, Target, standing

TABLES = ("jsonl", "parquet", "lhotse")
PART = 10_000
"""Recordings in one part of a Parquet table."""

_OUTSTANDING = RowFailure("Outstanding", "not transcribed yet")


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row with its outcome: a transcript, or the reason why there is none."""

    row: Row
    transcript: Transcript | None
    failure: RowFailure | None


def table_rows(target: Target) -> Iterator[TableRow]:
    """The outcome of each row, in order."""
    for row in target.listing:
        if not target.done(row):
            yield TableRow(row, None, target.failure(row) or _OUTSTANDING)
            continue
        try:
            [transcript] = read(target.transcript(row))
            yield TableRow(row, transcript, None)
        except FormatError as error:
            yield TableRow(row, None, RowFailure("FormatError", str(error)))


def write_tables(target: Target, tables: Sequence[str], *, part: bool = False) -> list[Path]:
    """Write tables of a target.

    Args:
        tables: of `TABLES`.
        part: whether recordings may be outstanding.

    Returns:
        The files and folders.

    Raises:
        SettingsError: recordings are outstanding.
        OutputError: a table cannot be written.
        ExtraError: a package is not installed.
    """
    there = standing(target)
    if there.outstanding and not part:
        raise SettingsError(
            f"{target.where}: {there.outstanding} of {there.recordings} recordings are not transcribed yet; "
            "run what is left (see `batch status`), or take --partial"
        )
    written: list[Path] = []
    try:
        with ExitStack() as stack:
            writers = [stack.enter_context(_WRITERS[name](target.folder)) for name in tables]
            for table_row in table_rows(target):
                for writer in writers:
                    writer.add(table_row)
            for writer in writers:
                written += writer.finish()
    except OSError as error:
        raise OutputError(
            f"cannot write the tables of {target.folder}: {error.strerror or error}; transcripts are kept: free "
            "some space, and give the command again"
        ) from error
    for path in written:
        target.send_table(path)
    return written


class _Writer(Protocol):
    """A table that is written beside its place, and takes it in one move."""

    def __enter__(self) -> "_Writer": ...

    def __exit__(self, *error: object) -> None: ...

    def add(self, table_row: TableRow) -> None: ...

    def finish(self) -> list[Path]: ...


class _Lines:
    """A table of lines in one file; compressed where its name ends in `.gz`."""

    def __init__(self, path: Path, lines: Callable[[TableRow], Iterator[dict[str, Any]]]) -> None:
        self._path = path
        self._lines = lines
        self._half = path.with_name(f".{secrets.token_hex(8)}.tmp")

    def __enter__(self) -> "_Lines":
        self._raw = self._half.open("wb")
        compressed = self._path.suffix == ".gz"
        self._file: Any = (
            gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0) if compressed else self._raw
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._raw.close()
        self._half.unlink(missing_ok=True)

    def add(self, table_row: TableRow) -> None:
        for line in self._lines(table_row):
            self._file.write(f"{as_json(line)}\n".encode())

    def finish(self) -> list[Path]:
        if self._file is not self._raw:
            self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._half.replace(self._path)
        return [self._path]


class _Parquet:
    """Two tables in Parquet, in parts of `PART` recordings."""

    def __init__(self, folder: Path) -> None:
        self._arrow = extras.load("pyarrow", "batch", "Parquet")
        self._parquet = extras.load("pyarrow.parquet", "batch", "Parquet")
        self._folder = folder
        self._half = folder / f".{secrets.token_hex(8)}.tmp"
        self._rows: dict[str, list[dict[str, Any]]] = {"recordings": [], "segments": []}
        self._parts = self._count = 0

    def __enter__(self) -> "_Parquet":
        for name in self._rows:
            (self._half / name).mkdir(parents=True)
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._half, ignore_errors=True)

    def add(self, table_row: TableRow) -> None:
        self._rows["recordings"].append(_recording_row(table_row))
        self._rows["segments"] += _segment_rows(table_row)
        self._count += 1
        if self._count == PART:
            self._flush()

    def finish(self) -> list[Path]:
        if self._count or not self._parts:
            self._flush()
        for name in self._rows:
            place = self._folder / name
            if place.exists():
                shutil.rmtree(place)
            (self._half / name).replace(place)
        return [self._folder / name for name in self._rows]

    def _flush(self) -> None:
        for name, rows in self._rows.items():
            table = self._arrow.Table.from_pylist(rows, schema=_schema(self._arrow, name))
            path = self._half / name / f"part-{self._parts:05d}.parquet"
            self._parquet.write_table(table, path, compression="zstd")
            rows.clear()
        self._parts, self._count = self._parts + 1, 0


_WRITERS: dict[str, Callable[[Path], _Writer]] = {
    "jsonl": lambda folder: _Lines(folder / "transcripts.jsonl", _manifest_lines),
    "lhotse": lambda folder: _Lines(folder / "supervisions.jsonl.gz", _supervisions),
    "parquet": _Parquet,
}


def _common(table_row: TableRow) -> dict[str, Any]:
    """The columns of a recording that every table has."""
    row, transcript = table_row.row, table_row.transcript
    duration_s = row.duration_s if transcript is None else transcript.duration_s
    return {
        "audio_filepath": row.path.encode("utf-8", "backslashreplace").decode(),
        "offset": row.start_s,
        "duration": None if duration_s is None else round(duration_s, 6),
        "name": row.name,
    }


def _manifest_lines(table_row: TableRow) -> Iterator[dict[str, Any]]:
    transcript, failure = table_row.transcript, table_row.failure
    line = _common(table_row)
    if not table_row.row.start_s:
        del line["offset"]
    if transcript is None:
        assert failure is not None
        yield {**line, "error": {"kind": failure.kind, "message": failure.message}}
        return
    yield {
        **line,
        "text": transcript.text,
        **({"language": language} if (language := transcript.info.get("language")) else {}),
        "segments": [
            {
                "start": one.start_s,
                "end": one.end_s,
                "speaker": one.speaker,
                "gender": one.gender,
                "text": one.text,
                "confidence": _rounded(one.confidence.words),
                **(
                    {
                        "words": [
                            {"word": w.text, "start": w.start_s, "end": w.end_s} for w in one.words
                        ]
                    }
                    if one.words is not None
                    else {}
                ),
            }
            for one in transcript.segments
        ],
        "missing": [
            {"start": gap.start_s, "end": gap.end_s, "reason": gap.reason}
            for gap in transcript.missing
        ],
        "warnings": list(transcript.warnings),
    }


def _recording_row(table_row: TableRow) -> dict[str, Any]:
    transcript, failure = table_row.transcript, table_row.failure
    return {
        "number": table_row.row.number,
        **_common(table_row),
        "text": None if transcript is None else transcript.text,
        "language": None if transcript is None else transcript.info.get("language"),
        "speakers": None if transcript is None else len(transcript.speakers),
        "segments": None if transcript is None else len(transcript.segments),
        "missing_s": None
        if transcript is None
        else round(sum(gap.end_s - gap.start_s for gap in transcript.missing), 6),
        "warnings": None if transcript is None else list(transcript.warnings),
        "error_kind": None if failure is None else failure.kind,
        "error": None if failure is None else failure.message,
    }


def _segment_rows(table_row: TableRow) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(table_row.transcript.segments if table_row.transcript else ()):
        yield {
            "number": table_row.row.number,
            "name": table_row.row.name,
            "segment": number,
            "start": one.start_s,
            "end": one.end_s,
            "speaker": one.speaker,
            "gender": one.gender,
            "text": one.text,
            "confidence": _rounded(one.confidence.words),
        }


def _supervisions(table_row: TableRow) -> Iterator[dict[str, Any]]:
    """Supervisions in the time of the recording; a recording that failed has none."""
    row, transcript = table_row.row, table_row.transcript
    for number, one in enumerate(transcript.segments if transcript else ()):
        yield {
            "id": f"{row.name}-{number}",
            "recording_id": row.recording,
            "start": round(row.start_s + one.start_s, 6),
            "duration": round(one.end_s - one.start_s, 6),
            "channel": row.channel or 0,
            "text": one.text,
            **({"language": language} if (language := _language(transcript)) else {}),
            "speaker": f"{row.name}-{one.speaker}",
            **({"gender": one.gender} if one.gender != "unknown" else {}),
        }


def _language(transcript: Transcript | None) -> str | None:
    return None if transcript is None else transcript.info.get("language")


def _rounded(value: float | None) -> float | None:
    """Return a confidence without the digits that depend on the rest of its batch."""
    return None if value is None else round(value, 3)


def _schema(arrow: Any, name: str) -> Any:
    text, real, whole = arrow.string(), arrow.float64(), arrow.int64()
    columns = {
        "recordings": {
            "number": whole,
            "audio_filepath": text,
            "offset": real,
            "duration": real,
            "name": text,
            "text": text,
            "language": text,
            "speakers": whole,
            "segments": whole,
            "missing_s": real,
            "warnings": arrow.list_(text),
            "error_kind": text,
            "error": text,
        },
        "segments": {
            "number": whole,
            "name": text,
            "segment": whole,
            "start": real,
            "end": real,
            "speaker": text,
            "gender": text,
            "text": text,
            "confidence": real,
        },
    }
    return arrow.schema(list(columns[name].items()))
