"""Recordings and transcripts as a user names them: files, folders, patterns, standard input, addresses.

    with ExitStack() as stack:
        items, errors = recordings(["calls/", "*.WAV", "-", "https://example.org/a.mp3"], stack, **limits(arguments))
        path = transcript("https://example.org/a.stm", stack, **limits(arguments))

What is no file of the user's (standard input, an address) becomes one for as long as the command runs.
"""

import argparse
import glob
import hashlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from ..errors import AudioError, quoted
from ..formats import file_name
from ..formats.files import named_apart
from ..transcript import recording_name
from .arguments import positive
from .downloads import LIMIT_BYTES, download, is_address

if TYPE_CHECKING:
    from ..longform import Item

STDIN = "-"


def recordings(
    names: Sequence[str], stack: ExitStack, *, limit_bytes: int, private: bool = False
) -> tuple[list["Item"], list[AudioError]]:
    """Return the recordings that names mean, each once, with distinct names; and errors of the others.

    A folder is the recordings in it, by their suffixes, whatever their case; a name with `*`, `?` or
    `[`, if there is no such file, the files that it matches (`**` for folders below). Recordings of one
    name in several folders are named after these, too: `monday-call`, `tuesday-call`.

    Args:
        names: as given.
        stack: removes temporary files.
        limit_bytes: the most that is fetched of an address.
        private: whether addresses may lie in the local network.

    Returns:
        The recordings; and an error for each folder or pattern without recordings, and each address
        that cannot be fetched.
    """
    from ..longform import Item

    items: list[Item] = []
    errors: list[AudioError] = []
    seen: set[Path] = set()
    for name in names:
        try:
            if name == STDIN:
                items.append(_spooled(stack, "stdin", lambda file: _copy(sys.stdin.buffer, file)))
            elif is_address(name):
                title = recording_name(name.split("?")[0].split("#")[0].rstrip("/")) or "download"
                items.append(_spooled(stack, title, _fetching(name, limit_bytes, private)))
            else:
                for path in _files(name):
                    if path.absolute() not in seen:
                        items.append(Item(path))
                        seen.add(path.absolute())
        except AudioError as error:
            errors.append(error)
    names = named_apart([(item.title, item.path) for item in items])
    return [replace(item, name=name) for item, name in zip(items, names, strict=True)], errors


def add_addresses(add: Callable[..., object]) -> None:
    """Add the options on downloads from addresses, as `limits` reads them."""
    add(
        "--max-download",
        metavar="MB",
        type=positive,
        default=LIMIT_BYTES >> 20,
        help=f"the most that is fetched of an address (default: {LIMIT_BYTES >> 20})",
    )
    add("--allow-private", action="store_true", help="addresses may lie in the local network")


def limits(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the limits of downloads of `recordings` and `transcript`, from the user's options."""
    return {"limit_bytes": arguments.max_download << 20, "private": arguments.allow_private}


def transcript(name: str, stack: ExitStack, *, limit_bytes: int, private: bool = False) -> Path:
    """The path of a transcript, of a folder of them, or of a pattern; standard input and addresses are kept.

    Args:
        name, stack, limit_bytes, private: as for `recordings`.

    Raises:
        AudioError: it cannot be fetched.
    """
    if name == STDIN:
        return _kept(stack, "stdin", lambda file: _copy(sys.stdin.buffer, file))
    if is_address(name):
        title = Path(urlsplit(name).path).name or "download"
        return _kept(stack, title, _fetching(name, limit_bytes, private))
    return Path(name)


def _fetching(name: str, limit_bytes: int, private: bool) -> Callable[[BinaryIO], None]:
    return lambda file: download(name, file, limit_bytes=limit_bytes, private=private)


def _files(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if _is_recording(p))
        if not inside:
            raise AudioError(
                f"{quoted(path)}: got a folder without recordings, expected files such as a.wav, b.mp3"
            )
        return inside
    if glob.has_magic(name) and not os.path.lexists(path):
        matched = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207 - may be absolute
        files = sorted(p for p in matched if p.is_file())
        if files:
            return files
        if "*" in name or "?" in name:
            raise AudioError(f"{quoted(path)}: matches no file; check the path")
    return [path]


def _is_recording(path: Path) -> bool:
    from ..audio import SUFFIXES  # not for `--help`

    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _spooled(stack: ExitStack, name: str, fill: Callable[[BinaryIO], None]) -> "Item":
    """A recording that is kept in a file for as long as the command runs."""
    from ..longform import Item

    path = _kept(stack, name, fill)
    with path.open("rb") as file:
        source = {
            "size": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
    return Item(path, name=name, source=lambda: source)


def _kept(stack: ExitStack, name: str, fill: Callable[[BinaryIO], None]) -> Path:
    """A file in a temporary folder, which the stack removes."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    path = Path(folder) / file_name(name)
    try:
        with path.open("wb") as file:
            fill(file)
    except OSError as error:
        raise AudioError(f"{name}: cannot be kept in {folder}: {error.strerror}") from error
    return path


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    while data := source.read(1 << 20):
        target.write(data)


def doubled(names: Iterable[str]) -> tuple[str, int] | None:
    """A name that comes more than once, and how often; `None` where all differ."""
    counts = Counter(names).most_common(1)
    return counts[0] if counts and counts[0][1] > 1 else None
