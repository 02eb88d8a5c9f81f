"""Decoded audio on its way: blocks of samples with times, an open recording, a stretch of a file."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import quoted
from .riff import AGAIN

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Block:
    """Samples as they are decoded.

    Attributes:
        samples: float32 `[frames, channels]`.
        rate_hz: of these samples.
        at_s: presentation time of the first, in seconds of the recording; `None` right behind the block before.
    """

    samples: npt.NDArray[np.float32]
    rate_hz: int
    at_s: float | None = None


@dataclass(slots=True)
class Source:
    """An open recording at its own rate.

    Attributes:
        sample_rate_hz: of the file, at its beginning.
        channels: of the file, at its beginning.
        format: container, in lower case.
        duration_s: in seconds as the file states it; `None` where it does not.
        blocks: in order.
        exact: libsndfile's view, where any sample can be read by itself.
        notes: warnings for the user, one sentence each; grows while `blocks` are read.
    """

    sample_rate_hz: int
    channels: int
    format: str
    duration_s: float | None
    blocks: Iterator[Block]
    exact: soundfile.SoundFile | None = None
    notes: list[str] = field(default_factory=list)


class Window(io.RawIOBase):
    """A stretch of a file as a file of its own."""

    def __init__(self, handle: BinaryIO, start: int, end: int) -> None:
        self._fd, self._start, self._size = handle.fileno(), start, end - start
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._size - self._at))
        piece = os.pread(self._fd, wanted, self._start + self._at)
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def damaged(path: AnyPath, got_s: float, expected_s: float | None, error: Exception) -> str:
    promised = "" if expected_s is None else f", expected {expected_s:.3f} s"
    return f"{quoted(path)}: damaged or cut off: got {got_s:.3f} s{promised} ({reason(error)}); {AGAIN}"


def reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
