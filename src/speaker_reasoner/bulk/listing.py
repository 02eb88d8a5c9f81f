"""The listing: all recordings of a source in its order, in one file, and their division into shards.

Every process of a run makes the same listing of the same source, whatever else it does. Rows are read from the
file when they are wanted, so that memory hardly grows with their number.
"""

import heapq
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePath, PurePosixPath

import numpy as np

from ..audio import probe
from ..errors import AudioError, DataError, OutputError, SettingsError
from ..formats import file_name
from ..formats.files import below_folders
from ..transcript import recording_name
from .buckets import is_bucket
from .rows import Row
from .sources import SourceRow, source_rows


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a listing, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`I/N`, as 3/8; raises `SettingsError` for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise SettingsError(f"shard {text!r}: expected I/N with 1 <= I <= N, as 3/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


class Listing:
    """The rows of a listing's file.

    Raises:
        DataError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Row]:
        try:
            with self._path.open(encoding="utf-8", errors="surrogateescape") as file:
                for line in file:
                    yield Row.from_line(line)
        except (OSError, ValueError, TypeError) as error:
            raise self._unreadable(error) from error

    def rows(self, numbers: Iterable[int]) -> list[Row]:
        """Rows by their numbers."""
        try:
            with self._path.open("rb") as file:
                rows = []
                for number in numbers:
                    file.seek(self._starts[number])
                    rows.append(Row.from_line(file.readline().decode("utf-8", "surrogateescape")))
        except (OSError, ValueError, TypeError, IndexError) as error:
            raise self._unreadable(error) from error
        return rows

    @cached_property
    def _starts(self) -> "array[int]":
        """The offset of each line in bytes."""
        starts, at = array("q"), 0
        with self._path.open("rb") as file:
            for line in file:
                starts.append(at)
                at += len(line)
        return starts

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(
            f"{self._path}: no listing that can be read ({error}); delete it, and give the command again"
        )

    def shard(self, shard: Shard) -> Iterator[Row]:
        """The rows of a shard, in order."""
        if shard.count == 1:
            yield from self
            return
        weights = np.fromiter((row.weight_s for row in self), dtype=np.float64)
        chosen = balanced(weights, shard.count)
        for row, number in zip(self, chosen, strict=True):
            if number == shard.number - 1:
                yield row


def balanced(
    weights: "np.ndarray[tuple[int], np.dtype[np.float64]]", count: int
) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    """Divide rows into shards of about the same weight: the heaviest goes to the lightest shard so far.

    Args:
        weights: of the rows `[n]`.
        count: of shards.

    Returns:
        The shard of each row `[n]`, from 0. It depends on the weights alone.
    """
    order = np.lexsort((np.arange(len(weights)), -weights))
    loads = [(0.0, 0, shard) for shard in range(count)]  # weight, rows, shard
    chosen = np.zeros(len(weights), dtype=np.int32)
    for row in order:
        load, rows, shard = heapq.heappop(loads)
        chosen[row] = shard
        heapq.heappush(loads, (load + float(weights[row]), rows + 1, shard))
    return chosen


def write_listing(source: str, path: Path, before: Path | None = None) -> Listing:
    """List a source.

    Args:
        source: see `source_rows`.
        path: of the new listing.
        before: an earlier one; durations of files that did not change are taken from it.

    Raises:
        DataError: as for `source_rows`.
        OutputError: the listing cannot be written.
    """
    durations: dict[int, float | None] = {}
    if before is not None and before.exists():
        durations = {
            hash((row.path, row.size, row.version)): row.duration_s
            for row in Listing(before)
            if not row.stretch and not row.fault
        }
    rough = path.with_suffix(".rough")
    namer = _Namer()
    try:
        with rough.open("w", encoding="utf-8", errors="surrogateescape") as file:
            for number, given in enumerate(source_rows(source)):
                namer.note(given)
                file.write(_row(number, given, durations).to_line() + "\n")
        for row in Listing(rough):
            namer.count(row)
        with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
            for row in Listing(rough):
                file.write(namer.named(row).to_line() + "\n")
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror}; choose a directory that can be written to"
        ) from error
    finally:
        rough.unlink(missing_ok=True)
    return Listing(path)


def _row(number: int, given: SourceRow, durations: dict[int, float | None]) -> Row:
    duration_s = given.duration_s
    if duration_s is None and not given.fault and not is_bucket(given.path):
        key = hash((given.path, given.size, given.version))
        duration_s = durations[key] if key in durations else _probed(given.path)
    return Row(
        number,
        given.path,
        _name(given),
        given.recording or "",
        given.start_s,
        duration_s,
        given.stretch,
        given.channel,
        given.size,
        given.version,
        given.fault,
    )


def _probed(path: str) -> float | None:
    try:
        return round(probe(Path(path)).duration_s, 6)
    except AudioError:  # transcribing it says why
        return None


def _name(given: SourceRow) -> str:
    """The name that the source gives, or that follows from the path in it; empty for the file's own."""
    if given.name is not None or given.fault:
        return given.name or ""
    if given.below is not None:
        parts = PurePosixPath(given.below).parts
        return below_folders(parts[:-1], recording_name(parts[-1]))
    return ""


class _Namer:
    """Gives every row a name of its own, in three passes over the rows.

    A row without a name has that of its file, and where files of one name lie in several folders, those of
    its folders before it, from the first one that not all files share. Rows of a name that was given away
    are faults. Names are compared by hashes, 8 bytes each; only hashes that repeat are kept as objects.
    """

    def __init__(self) -> None:
        self._root: tuple[str, ...] | None = None
        self._names, self._folders = array("q"), array("q")
        self._places, self._files = array("q"), array("q")
        self._taken: dict[int, int] = {}
        self._stretches: dict[int, int] = {}

    def note(self, given: SourceRow) -> None:
        """The first pass."""
        if given.fault or _name(given):
            return
        parts = PurePath(given.path).parent.parts
        shared = parts if self._root is None else self._root
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(shared, parts, strict=False))
        self._root = tuple(part for part, _ in alike)
        self._names.append(hash(recording_name(given.path)))
        self._folders.append(hash(parts))

    def count(self, row: Row) -> None:
        """The second pass."""
        if not row.fault:
            self._places.append(_place(row))
            self._files.append(_file(row.name or self._by_file(row)))

    def named(self, row: Row) -> Row:
        """The third pass: the row with its name, or with a fault."""
        if row.fault:
            return replace(row, name=f"row-{row.number}", recording=f"row-{row.number}")
        name = row.name or self._by_file(row)
        row = replace(row, name=name, recording=row.recording or name)
        same = _first(self._stretches, self._repeated_places, _place(row), row)
        if same != row.number:
            return replace(
                row, fault=f"{row.path}: comes twice in the source: row {same} is the same"
            )
        other = _first(self._taken, self._repeated_files, _file(name), row)
        if other != row.number:
            return replace(
                row,
                fault=f"{row.path}: named {name!r}, as row {other} is; rename it, or give it another name "
                "in a manifest",
            )
        return row

    @cached_property
    def _several(self) -> frozenset[int]:
        """Names of files that lie in several folders."""
        pairs = np.unique(np.array([self._names, self._folders], np.int64), axis=1)
        return _repeated(pairs[0])

    @cached_property
    def _repeated_places(self) -> frozenset[int]:
        return _repeated(np.array(self._places, np.int64))

    @cached_property
    def _repeated_files(self) -> frozenset[int]:
        return _repeated(np.array(self._files, np.int64))

    def _by_file(self, row: Row) -> str:
        name = recording_name(row.path)
        if hash(name) in self._several:
            folders = PurePath(row.path).parent.parts[len(self._root or ()) :]
            name = below_folders(folders, name)
        if row.start_s:
            name = f"{name}-{row.start_s:.3f}"
        return name


def _place(row: Row) -> int:
    return hash((row.path, row.start_s, row.duration_s, row.channel))


def _file(name: str) -> int:
    return hash(file_name(name).casefold())


def _first(seen: dict[int, int], repeated: frozenset[int], key: int, row: Row) -> int:
    """The number of the first row of a key."""
    return seen.setdefault(key, row.number) if key in repeated else row.number


def _repeated(hashes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> frozenset[int]:
    values, counts = np.unique(hashes, return_counts=True)
    return frozenset(values[counts > 1].tolist())
