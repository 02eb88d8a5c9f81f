"""Reads pieces of shards (see `data.corpora.shards`) where they lie: on a disk, or in a bucket, nothing being copied.

A piece is one read of its bytes. Which pieces a batch has is decided by the index alone, so that processes and workers
share shards without a division of their own, and a run goes on at any step without reading what came before.
"""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from ..audio import Samples
from ..bulk.buckets import Bucket, is_bucket
from ..data.corpora import CorpusPiece, load_pieces, parse_pieces
from ..data.corpora.shards import HEADER_BYTES, AudioPlace, decode
from ..errors import DataError


def list_pieces(folder: str) -> Iterator[CorpusPiece]:
    """The pieces of a prepared split, or of its shards.

    Raises:
        DataError: the folder has none, or they are wrong.
    """
    if is_bucket(folder):
        folder = folder.rstrip("/")
        lines = Bucket(folder).read("pieces.jsonl").splitlines(keepends=True)
        for piece in parse_pieces(lines, folder, f"{folder}/pieces.jsonl"):
            if piece.place is None:
                raise DataError(
                    f"{folder}/pieces.jsonl: {piece.name} names no shard; expected the shards of a split, which "
                    "`speaker-reasoner prepare --shards` writes"
                )
            yield piece
        return
    file = Path(folder) / "pieces.jsonl"
    if not file.is_file():
        raise DataError(
            f"{folder}: no pieces.jsonl; expected the folder of a split that "
            "`speaker-reasoner prepare` wrote, such as prepared/ami/train"
        )
    yield from load_pieces(file)


def read_piece(piece: CorpusPiece) -> Samples:
    """The audio of a piece in a shard.

    Raises:
        DataError: it cannot be read, or is another than was indexed.
    """
    assert piece.place is not None
    place = piece.place
    data = _read(place, place.offset - HEADER_BYTES, place.offset + place.size)
    return decode(data, place, piece.end_samples - piece.start_samples)


def check_shards(pieces: Iterable[CorpusPiece]) -> None:
    """Read the last piece of every shard: one that is not whole, or another than was indexed, stops a run at once.

    Raises:
        DataError: one is.
    """
    last: dict[str, CorpusPiece] = {}
    for piece in pieces:
        if piece.place is not None:
            other = last.setdefault(piece.place.shard, piece)
            assert other.place is not None
            if piece.place.offset > other.place.offset:
                last[piece.place.shard] = piece
    for piece in last.values():
        read_piece(piece)


def shuffled(pieces: Sequence[CorpusPiece], buffer: int, rng: random.Random) -> list[int]:
    """Numbers of the pieces in the random order of an epoch, each once.

    Args:
        buffer: as in `CorporaConfig`.
    """
    numbers = list(range(len(pieces)))
    if not buffer:
        rng.shuffle(numbers)
        return numbers
    shards: dict[str, list[int]] = {}
    for number in numbers:
        piece = pieces[number]
        name = str(piece.audio) if piece.place is None else piece.place.shard
        shards.setdefault(name, []).append(number)
    names = list(shards)
    rng.shuffle(names)
    order: list[int] = []
    held: list[int] = []
    for number in (number for name in names for number in shards[name]):
        held.append(number)
        if len(held) > buffer:
            at = rng.randrange(len(held))
            held[at], held[-1] = held[-1], held[at]
            order.append(held.pop())
    rng.shuffle(held)
    return order + held


def _read(place: AudioPlace, start: int, end: int) -> bytes:
    if is_bucket(place.shard):
        folder, _, name = place.shard.rpartition("/")
        return _bucket(folder, os.getpid()).read(name, start, end)
    try:
        with Path(place.shard).open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise DataError(
            f"{place.shard}: cannot be read: {error.strerror}; copy the shard again, or prepare the shards again"
        ) from error


@lru_cache
def _bucket(address: str, process: int) -> Bucket:
    """A bucket; each process has its own, because connections do not outlive a fork."""
    return Bucket(address)
