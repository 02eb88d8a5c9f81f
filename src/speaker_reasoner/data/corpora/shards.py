"""Shards: the pieces of a prepared split with their audio, in few large tar files that a bucket can hold.

    <split>/shards/pieces-00000.tar   00000000.flac, 00000000.json, 00000001.flac, ...: WebDataset's layout
    <split>/shards/pieces.jsonl       as the split's, with "shard": {"file", "offset", "bytes"}; written last

The JSON beside a FLAC is its row of the split's `pieces.jsonl`. A piece is read by its place in its tar file, so
that a training draws pieces of shards as it draws those of recordings: any piece, by any process, at any step.
"""

import io
import json
import os
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from ... import audio
from ...audio import SAMPLE_RATE_HZ, Samples, to_samples, to_seconds
from ...errors import DataError, OutputError
from ...formats import write_text_atomically

FOLDER = "shards"
_MEGABYTE = 1_000_000
HEADER_BYTES = tarfile.BLOCKSIZE
"""Bytes in a tar file before those of a member: its header, with name and size."""


@dataclass(frozen=True, slots=True)
class AudioPlace:
    """The position of a piece's audio in a shard.

    Attributes:
        shard: path or address of the tar file.
        offset, size: of the FLAC file in it, in bytes.
    """

    shard: str
    offset: int
    size: int

    @classmethod
    def from_json(cls, row: dict[str, Any], folder: str) -> "AudioPlace":
        """Read the `shard` of a piece; raise `ValueError` or `KeyError` if it is malformed."""
        offset, size = row["offset"], row["bytes"]
        if not (isinstance(offset, int) and isinstance(size, int) and offset > 0 < size):
            raise ValueError(
                f"shard: offset {offset!r}, bytes {size!r}; expected whole numbers above 0"
            )
        if Path(row["file"]).name != row["file"]:
            raise ValueError(f"shard: file {row['file']!r}; expected a name without a folder")
        return cls(f"{folder}/{row['file']}", offset, size)


def decode(data: bytes, place: AudioPlace, samples: int) -> Samples:
    """The audio of a piece.

    Args:
        data: the header of the member in the tar file, and its bytes.
        samples: how many it has.

    Returns:
        float32 `[samples]` at 16 kHz.

    Raises:
        DataError: the shard is not whole, or another than was indexed; or its audio is.
    """
    where = f"{place.shard}, byte {place.offset}"
    remedy = "copy it again, or prepare the shards again"
    if len(data) < HEADER_BYTES + place.size:
        raise DataError(
            f"{where}: got {max(0, len(data) - HEADER_BYTES)} bytes, expected {place.size}: the shard is not whole; "
            f"{remedy}"
        )
    try:
        member = tarfile.TarInfo.frombuf(data[:HEADER_BYTES], "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise DataError(f"{where}: no file of a tar file is there ({error}); {remedy}") from error
    if member.size != place.size or not member.name.endswith(".flac"):
        raise DataError(
            f"{where}: got {member.name!r} of {member.size} bytes, expected a FLAC file of {place.size}: it is another "
            f"shard than was indexed; {remedy}"
        )
    try:
        with sf.SoundFile(io.BytesIO(data[HEADER_BYTES:])) as file:
            form = (file.samplerate, file.channels, file.frames)
            sound: Samples = file.read(dtype="float32", always_2d=True)[:, 0]
    except sf.LibsndfileError as error:
        raise DataError(f"{where}: {member.name} cannot be decoded ({error}); {remedy}") from error
    if form[:2] != (SAMPLE_RATE_HZ, 1):
        raise DataError(
            f"{where}: {member.name} has {form[0]} Hz and {form[1]} channels, expected {SAMPLE_RATE_HZ} Hz and 1; "
            "prepare the shards again"
        )
    if len(sound) != samples:
        raise DataError(
            f"{where}: {member.name} lasts {to_seconds(len(sound)):.3f} s, expected "
            f"{to_seconds(samples):.3f} s; {remedy}"
        )
    return sound


def write_shards(split: Path, size_mb: int) -> int:
    """Write the shards of a prepared split.

    Args:
        size_mb: a shard is full when it has so many megabytes.

    Returns:
        How many there are.

    Raises:
        AudioError: a recording cannot be read.
        OutputError: a shard cannot be written.
    """
    lines = (split / "pieces.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    folder = split / FOLDER
    pairs = _with_audio(split, rows)
    indexed: list[str] = []
    count = 0
    while (first := next(pairs, None)) is not None:
        name, rest = f"pieces-{count:05d}.tar", chain([first], pairs)
        written = _write_shard(folder / name, rest, len(indexed), size_mb * _MEGABYTE)
        for row, offset, size in written:
            row = {**row, "shard": {"file": name, "offset": offset, "bytes": size}}
            indexed.append(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    write_text_atomically(folder / "pieces.jsonl", "".join(indexed))
    return count


def _with_audio(
    split: Path, rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Samples]]:
    """Each row with its samples; every recording is decoded once."""
    for name, of_one in groupby(rows, key=lambda row: row["audio"]):
        blocks = audio.stream(split / name)
        held, begin = np.zeros(0, np.float32), 0
        for row in sorted(of_one, key=lambda row: row["start_s"]):
            start = to_samples(row["start_s"])
            end = start + to_samples(row["duration_s"])
            parts = [held]
            reached = begin + len(held)
            while reached < end and (block := next(blocks, None)) is not None:
                parts.append(block)
                reached += len(block)
            held = np.concatenate(parts)[max(0, start - begin) :]
            begin = max(begin, start)
            if begin != start or len(held) < end - start:
                raise DataError(
                    f"{split / name}: {row['name']} is {row['start_s']:g} s to {to_seconds(end):g} s of it, got audio "
                    f"to {to_seconds(reached):g} s; prepare it again"
                )
            yield row, held[: end - start]


def _write_shard(
    path: Path, pairs: Iterator[tuple[dict[str, Any], Samples]], number: int, most_bytes: int
) -> list[tuple[dict[str, Any], int, int]]:
    """Fill a shard; the rows in it, with offset and size of their audio."""
    written: list[tuple[dict[str, Any], int, int]] = []
    with (
        whole_file(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for row, samples in pairs:
            stem = f"{number + len(written):08d}"
            flac = _flac(samples)
            offset = tar.offset + HEADER_BYTES
            _add(tar, f"{stem}.flac", flac)
            _add(tar, f"{stem}.json", json.dumps(row, ensure_ascii=False).encode())
            written.append((row, offset, len(flac)))
            if tar.offset >= most_bytes:
                break
    return written


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _flac(samples: Samples) -> bytes:
    file = io.BytesIO()
    sf.write(file, to_16_bits(samples), SAMPLE_RATE_HZ, "PCM_16", format="FLAC")
    return file.getvalue()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes its place at the end: whole, or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)  # noqa: PTH105 - as write_text_atomically
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, sf.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {path}: {reason}; is the disk full?") from error


def to_16_bits(samples: Samples) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """float32 `[samples]` as whole numbers, exact for 16-bit sources at 16 kHz."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
