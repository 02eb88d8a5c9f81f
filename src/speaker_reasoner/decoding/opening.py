"""Open a recording and decode it at its own rate, each block with the time at which it is heard.

libsndfile reads what it reads exactly: wav, aiff, flac and the like. All else goes to FFmpeg through PyAV. Recordings
that are joined in one file are read one after the other.

What is noticed and does no harm goes to `Source.notes`; what would make a shorter recording of a longer one
is an `AudioError`. Channels, 16 kHz and the time line are made of it in `audio`.
"""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import AudioError, quoted
from .blocks import AnyPath, Block, Source, Window, reason
from .containers import parts
from .ffmpeg import open_with_ffmpeg
from .libsndfile import open_with_libsndfile
from .riff import AGAIN, check_size
from .trailing import trailing_note

_RATES_HZ = range(1_000, 1_000_001)  # outside: a damaged header, and resampling would explode
_known_parts: dict[tuple[int, ...], list[tuple[int, int]]] = {}
_MOST_KNOWN = 4096


@contextmanager
def open_source(path: AnyPath, track: int | None = None) -> Iterator[Source]:
    """Open a recording.

    Args:
        path: an audio file, or a video file with sound.
        track: which of its sound tracks, from 0; by default the one marked as default, else the first.

    Raises:
        AudioError: it cannot be opened, is cut off as far as can be seen without decoding, or has no
            such track; and, while blocks are read, where it is damaged or ends too early.
    """
    check_readable(path)
    with ExitStack() as stack:
        handle = stack.enter_context(Path(path).open("rb"))
        data = stack.enter_context(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
        pieces = _parts(handle, data)
        notes = [check_size(path, data, *piece) for piece in pieces]
        notes.append(trailing_note(data, pieces[-1][1], len(data)))
        first = _open_part(path, handle, data, pieces[0], track, stack)
        if first.sample_rate_hz not in _RATES_HZ or first.channels < 1:
            raise AudioError(
                f"{quoted(path)}: got {first.sample_rate_hz} Hz, {first.channels} channels, "
                f"expected {_RATES_HZ[0]}..{_RATES_HZ[-1]} Hz and a channel; {AGAIN}"
            )
        if len(pieces) > 1:
            first.notes.append(
                f"{len(pieces)} recordings are joined in this file: they were read one after the other"
            )
            first.blocks = _joined(
                first, first.blocks, path, handle, data, pieces[1:], track, stack
            )
            first.duration_s, first.exact = None, None
        first.notes += filter(None, notes)
        yield first


def _parts(handle: BinaryIO, data: mmap.mmap) -> list[tuple[int, int]]:
    """Return `parts` of a file, cached: a flac file is searched for them, and slices open it often."""
    stat = os.fstat(handle.fileno())
    key = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    if key not in _known_parts:
        if len(_known_parts) >= _MOST_KNOWN:
            _known_parts.clear()
        _known_parts[key] = parts(data)
    return _known_parts[key]


def check_readable(path: AnyPath) -> None:
    """Check that there is a file and that it may be read, without looking at its content.

    Raises:
        AudioError: it is missing, empty, a directory, or may not be read.
    """
    name = quoted(path)
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise AudioError(f"{name}: got a directory or device, expected an audio file")
        with Path(path).open("rb") as handle:
            if not handle.read(1):
                raise AudioError(f"{name}: got an empty file (0 bytes), expected audio; {AGAIN}")
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise AudioError(
            f"{name}: cannot be read ({reason(error)}), expected a readable audio file; "
            "check path and permissions"
        ) from error


def _open_part(
    path: AnyPath,
    handle: BinaryIO,
    data: mmap.mmap,
    piece: tuple[int, int],
    track: int | None,
    stack: ExitStack,
) -> Source:
    whole = piece == (0, len(data))
    source = open_with_libsndfile(path, handle, data, piece, stack)
    if source is not None and track:
        raise AudioError(
            f"{quoted(path)}: got track {track}, expected 0: the file has one sound track"
        )
    return source or open_with_ffmpeg(
        path, handle if whole else Window(handle, *piece), data, piece, track, stack
    )


def _joined(
    first: Source,
    blocks: Iterator[Block],
    path: AnyPath,
    handle: BinaryIO,
    data: mmap.mmap,
    pieces: Sequence[tuple[int, int]],
    track: int | None,
    stack: ExitStack,
) -> Iterator[Block]:
    """The blocks of recordings one after the other; each begins where the one before ends."""
    source, offset_s, end_s = first, 0.0, 0.0
    for number in range(len(pieces) + 1):
        if number:
            source = _open_part(path, handle, data, pieces[number - 1], track, stack)
            blocks, offset_s = source.blocks, end_s
        for block in blocks:
            at_s = end_s if block.at_s is None else block.at_s + offset_s
            end_s = max(end_s, at_s) + len(block.samples) / block.rate_hz
            yield Block(block.samples, block.rate_hz, at_s)
        first.notes += [note for note in source.notes if note not in first.notes]
