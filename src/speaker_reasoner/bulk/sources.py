"""Sources of recordings: a folder, a manifest, a place in a bucket.

    source_rows("calls/"), source_rows("manifest.jsonl"), source_rows("s3://bucket/calls")

A manifest is JSON lines in the keys of NeMo (`audio_filepath`, and perhaps `offset`, `duration`, `name`), a
manifest of recordings or cuts of lhotse (also as `.gz`), or a CSV with a header. What is wrong with one line is a
fault of that line: the others are transcribed. Nothing is opened here: what a file holds is read when it is
transcribed.
"""

import csv
import gzip
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from ..audio import SUFFIXES
from ..errors import DataError, quoted
from .buckets import Bucket, is_bucket

MANIFESTS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv")
"""Suffixes of manifests; each may be followed by `.gz`."""

_PATHS = (
    "audio_filepath",
    "path",
    "file",
    "audio",
    "audio_path",
    "file_path",
    "filename",
    "wav",
    "url",
)
_NAMES = ("name", "id", "utt_id", "session_id")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One recording, or stretch of one, as its source names it; see `Row`.

    Attributes:
        name: `None` where the source has none.
        below: the path from the folder that was given, where one was; names the recording.
    """

    path: str
    name: str | None = None
    recording: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    stretch: bool = False
    channel: int | None = None
    size: int = 0
    version: str = ""
    below: str | None = None
    fault: str = ""


def source_rows(source: str) -> Iterator[SourceRow]:
    """The recordings of a source, in its order; a folder's in the order of their paths.

    Raises:
        DataError: there is no such source, or it holds no recordings.
        ExtraError: a package is not installed.
    """
    rows = _source_rows(source)
    first = next(rows, None)
    if first is None:
        raise DataError(
            f"{source}: holds no recordings; expected files such as a.wav, or lines of a manifest"
        )
    return chain([first], rows)


def _source_rows(source: str) -> Iterator[SourceRow]:
    if is_bucket(source):
        yield from _bucket(source)
        return
    path = Path(source)
    if path.is_dir():
        yield from _folder(path)
    elif not os.path.lexists(path):
        raise DataError(f"{quoted(path)}: there is no such file or folder; check the path")
    elif _is_manifest(source):
        yield from _manifest(path, str(path), str(path.absolute().parent))
    elif path.suffix.lower() in SUFFIXES:
        yield _with_file(SourceRow(str(path.absolute())))
    else:
        raise DataError(
            f"{quoted(path)}: expected a folder, a recording, or a manifest that ends in "
            f"{', '.join(MANIFESTS)} (.gz)"
        )


def _is_manifest(name: str) -> bool:
    return name.lower().removesuffix(".gz").endswith(MANIFESTS)


def _folder(folder: Path) -> Iterator[SourceRow]:
    """The recordings of a folder, in the order of their paths. Links to folders are followed, to each folder once."""
    root = folder.absolute()
    seen = {os.path.realpath(root)}
    errors: list[OSError] = []
    for place, folders, files in os.walk(root, onerror=errors.append, followlinks=True):
        folders[:] = [name for name in sorted(folders) if _is_new(Path(place) / name, seen)]
        for name in sorted(files):
            path = Path(place) / name
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                yield _with_file(SourceRow(str(path), below=str(path.relative_to(root).as_posix())))
    for error in errors:
        at = str(error.filename)
        yield SourceRow(
            at, fault=f"{at}: cannot be listed: {error.strerror or error}; check its permissions"
        )


def _is_new(folder: Path, seen: set[str]) -> bool:
    """Return whether a folder is listed: it is not hidden, and was not seen before, by this or another path."""
    real = os.path.realpath(folder)
    if folder.name.startswith(".") or real in seen:
        return False
    seen.add(real)
    return True


def _with_file(row: SourceRow) -> SourceRow:
    """Return a row with size and time of change of its file."""
    try:
        stat = Path(row.path).stat()
    except OSError:
        return row  # opening it says why
    return replace(row, size=stat.st_size, version=str(stat.st_mtime_ns))


def _bucket(source: str) -> Iterator[SourceRow]:
    bucket = Bucket(source)
    if _is_manifest(source) and bucket.is_file():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / source.rpartition("/")[2]
            bucket.fetch("", path)
            yield from _manifest(path, source, source.rpartition("/")[0])
        return
    for address, size, version in bucket.files():
        name = PurePosixPath(address)
        if name.suffix.lower() in SUFFIXES and not name.name.startswith("."):
            below = address.partition("://")[2].removeprefix(bucket.address.partition("://")[2])
            below = below.lstrip("/") or name.name
            if not any(part.startswith(".") for part in PurePosixPath(below).parts):
                yield SourceRow(address, size=size, version=version, below=below)


def _manifest(path: Path, where: str, folder: str) -> Iterator[SourceRow]:
    """The rows of a manifest.

    Args:
        where: its name in messages.
        folder: relative paths in it start there.
    """
    plain = where.lower().removesuffix(".gz")
    if plain.endswith((".csv", ".tsv")):
        yield from _table(path, where, folder, "\t" if plain.endswith(".tsv") else ",")
        return
    for number, line in _lines(path):
        at = f"{where}:{number}"
        if isinstance(line, LineFault):
            yield SourceRow(at, fault=f"{at}: {line}")
            continue
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield SourceRow(at, fault=f"{at}: no JSON ({error}); was it written to the end?")
            continue
        try:
            yield _located(_of_object(data), folder)
        except LineFault as fault:
            yield SourceRow(at, fault=f"{at}: {fault}")


class LineFault(Exception):
    """A line of a manifest is wrong; the message says how."""


def _lines(path: Path) -> Iterator[tuple[int, "str | LineFault"]]:
    """Yield the lines of a manifest with their numbers; a line that cannot be read is a fault."""
    number = 0
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            for number, data in enumerate(file, start=1):
                try:
                    yield number, data.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    yield number, LineFault(f"no UTF-8 (byte {error.start}); convert the manifest")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield (
            number + 1,
            LineFault(f"not a whole gzip file ({error}); lines may be missing from here on"),
        )
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}; check the path"
        ) from error


def _table(path: Path, where: str, folder: str, delimiter: str) -> Iterator[SourceRow]:
    faults: list[SourceRow] = []

    def lines() -> Iterator[str]:
        for number, line in _lines(path):
            if isinstance(line, LineFault):
                faults.append(SourceRow(f"{where}:{number}", fault=f"{where}:{number}: {line}"))
            else:
                yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    header = [name.strip().lower() for name in next(reader, [])]
    key = next((name for name in _PATHS if name in header), None)
    if key is None:
        raise DataError(
            f"{where}:1: expected a header with one of {', '.join(_PATHS)}, got {', '.join(header)[:80]!r}"
        )
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            at = f"{where}:{reader.line_num}"
            yield SourceRow(at, fault=f"{at}: no CSV ({error}); was it written to the end?")
            continue
        yield from faults
        faults.clear()
        if cells is None:
            return
        at = f"{where}:{reader.line_num}"
        if not any(cells):
            continue
        if len(cells) != len(header):
            yield SourceRow(at, fault=f"{at}: expected {len(header)} columns, got {len(cells)}")
            continue
        row: dict[str, Any] = {k: v for k, v in zip(header, cells, strict=True) if v.strip()}
        try:
            yield _located(_of_nemo({"audio_filepath": row.pop(key, None), **row}), folder)
        except LineFault as fault:
            yield SourceRow(at, fault=f"{at}: {fault}")


def _located(row: SourceRow, folder: str) -> SourceRow:
    """Return a row with an absolute path, and with size and time of change of its file."""
    if is_bucket(row.path):
        return row
    if is_bucket(folder):
        return replace(row, path=f"{folder.rstrip('/')}/{row.path}")
    path = Path(folder) / row.path
    if not path.exists() and Path(row.path).exists():  # as lhotse means it
        path = Path(row.path).absolute()
    return _with_file(replace(row, path=os.path.normpath(path)))


def _of_object(data: Any) -> SourceRow:
    if not isinstance(data, dict):
        raise LineFault(f"expected an object, got {json.dumps(data)[:60]}")
    if "audio_filepath" in data:
        return _of_nemo(data)
    if "sources" in data:
        return _of_recording(data, data.get("id"))
    if "tracks" in data:
        raise LineFault("a mixed cut: it is of several recordings; save it as audio, and name that")
    if "recording" in data or ("start" in data and "duration" in data):
        return _of_cut(data)
    raise LineFault(
        'expected "audio_filepath" (NeMo), a recording or a cut (lhotse), got '
        f"{', '.join(map(str, data))[:80] or 'an empty object'}"
    )


def _of_nemo(data: Mapping[str, Any]) -> SourceRow:
    path = data["audio_filepath"]
    if not isinstance(path, str) or not path.strip():
        raise LineFault(f"expected audio_filepath as a path, got {json.dumps(path)[:60]}")
    start_s = _seconds(data, "offset") or 0.0
    duration_s = _seconds(data, "duration", above=0.0)
    if start_s and duration_s is None:
        raise LineFault("an offset without a duration")
    name = next((data[key] for key in _NAMES if data.get(key) not in (None, "")), None)
    if not isinstance(name, str | int | None) or isinstance(name, bool):
        raise LineFault(f"expected a name as text, got {json.dumps(name)[:60]}")
    return SourceRow(
        path,
        None if name is None else str(name),
        start_s=start_s,
        duration_s=duration_s,
        stretch=duration_s is not None and (data.get("offset") is not None or not is_bucket(path)),
    )


def _of_recording(data: Mapping[str, Any], name: Any) -> SourceRow:
    sources = data.get("sources")
    if not isinstance(name, str | int) or not isinstance(sources, list):
        raise LineFault("expected a recording with an id and sources")
    if data.get("transforms"):
        raise LineFault("the recording has transforms; save it as audio, and name that")
    if len(sources) != 1 or not isinstance(sources[0], dict):
        raise LineFault(f"expected a recording in one file, got {len(sources)}")
    kind, path = sources[0].get("type"), sources[0].get("source")
    if kind not in ("file", "url") or not isinstance(path, str) or not path:
        raise LineFault(f"expected a source of type file or url, got {kind!r}")
    if kind == "url" and path.partition("://")[0] in ("http", "https"):
        raise LineFault(f"{path}: an address of the web; fetch it first")
    return SourceRow(path, str(name), str(name), duration_s=_seconds(data, "duration", above=0.0))


def _of_cut(data: Mapping[str, Any]) -> SourceRow:
    recording, name = data.get("recording"), data.get("id")
    if not isinstance(recording, dict):
        raise LineFault("a cut without a recording: features are no audio")
    if not isinstance(name, str | int):
        raise LineFault(f"expected an id as text, got {json.dumps(name)[:60]}")
    whole = _of_recording(recording, recording.get("id"))
    channel, channels = data.get("channel"), recording.get("channel_ids") or [0]
    if isinstance(channel, list):
        if len(channel) > 1 and set(channel) != set(channels):
            raise LineFault(
                f"a cut of {len(channel)} of {len(channels)} channels; expected one of them, or all"
            )
        channel = channel[0] if len(channel) == 1 else None
    alone = channel in channels and len(channels) > 1
    return replace(
        whole,
        name=str(name),
        start_s=_seconds(data, "start") or 0.0,
        duration_s=_seconds(data, "duration", above=0.0),
        stretch=True,
        channel=channels.index(channel) if alone else None,
    )


def _seconds(data: Mapping[str, Any], key: str, above: float | None = None) -> float | None:
    value = data.get(key)
    if value is None:
        return None
    try:
        seconds = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0 or (above is not None and seconds <= above):
        raise LineFault(f"expected {key} in seconds, got {json.dumps(value)[:60]}")
    return seconds
