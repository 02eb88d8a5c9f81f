"""Recordings as the server keeps them: 16 kHz mono float wav, exactly what `audio.load` gives.

Decoding stops at a limit, whatever a file's header says. Players get 16-bit samples, by the byte.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import audio
from ..audio import SAMPLE_RATE_HZ
from ..containers import quoted
from ..errors import AudioError, OutputError
from .failures import RequestError

_BLOCK_S = 10.0
_BLOCK_BYTES = 1 << 18
_PCM_HEADER = 44
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def decode(
    source: Path,
    target: Path,
    name: str,
    longest_s: float,
    abandoned: Callable[[], bool] = lambda: False,
    channel: int | None = None,
) -> float:
    """Decode a recording.

    Args:
        source: any audio.
        target: written, and flushed to disk.
        name: of the source, for messages.
        longest_s: where decoding stops.
        abandoned: asked after each block; decoding ends where nobody waits for it any more.
        channel: as for `audio.load`.

    Returns:
        Its length in seconds.

    Raises:
        AudioError: it cannot be decoded.
        RequestError: 413, it is longer than `longest_s`.
        OutputError: the disk is full.
    """
    longest, written = audio.to_samples(longest_s), 0
    try:
        with target.open("wb") as file:
            file.write(_float_header(0))
            for block in audio.stream(source, channel=channel, block_s=_BLOCK_S):
                written += len(block)
                if written > longest:
                    raise RequestError(
                        413,
                        f"{name!r}: longer than {longest_s:g} s, the most that is taken; cut it",
                        code="audio_too_long",
                        param="file",
                    )
                if abandoned():
                    break
                file.write(block.astype("<f4").tobytes())
            file.seek(0)
            file.write(_float_header(written))
            file.flush()
            os.fsync(file.fileno())
    except AudioError as error:
        said = str(error).removeprefix(f"{quoted(source)}: ")
        raise AudioError(f"{name!r}: {said}") from error
    except OSError as error:
        raise not_stored(f"{name!r}, decoded", error) from error
    return audio.to_seconds(written)


def not_stored(what: str, error: OSError) -> OutputError:
    """The disk is full, or worse."""
    return OutputError(
        f"cannot store {what}: {error.strerror or type(error).__name__}; free some space in the "
        "server's --store"
    )


def _float_header(samples: int) -> bytes:
    """RIFF header of mono float32: format 3, with its `fact` chunk, then the data's."""
    rate, size = SAMPLE_RATE_HZ, 4 * samples
    return (
        struct.pack("<4sI4s", b"RIFF", 50 + size, b"WAVE")
        + struct.pack("<4sIHHIIHHH", b"fmt ", 18, 3, 1, rate, 4 * rate, 4, 32, 0)
        + struct.pack("<4sII", b"fact", 4, samples)
        + struct.pack("<4sI", b"data", size)
    )


@dataclass(frozen=True, slots=True)
class Pcm:
    """A stored recording as the bytes of a 16-bit wav file.

    Attributes:
        path: as `decode` wrote it.
    """

    path: Path

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return _PCM_HEADER + 2 * self._samples

    @property
    def _samples(self) -> int:
        return (self.path.stat().st_size - len(_float_header(0))) // 4

    def span(self, header: str | None) -> tuple[int, int] | None:
        """First byte, and the one after the last, that a Range header asks for.

        Several ranges, or what is none, give `None`: the whole.

        Raises:
            RequestError: 416, it lies outside.
        """
        found = _RANGE.fullmatch(header or "")
        if found is None or found.groups() == ("", ""):
            return None
        first, last = found.groups()
        start = int(first) if first else max(0, self.size - int(last))
        end = min(self.size, int(last) + 1) if first and last else self.size
        if start >= end:
            raise RequestError(
                416,
                f"range {header!r}: the file has {self.size} bytes",
                code="invalid_range",
                headers={"Content-Range": f"bytes */{self.size}"},
            )
        return start, end

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes `[start, end)`, block by block."""
        samples = self._samples
        if start < _PCM_HEADER:
            rate, size = SAMPLE_RATE_HZ, 2 * samples
            yield (
                struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE")
                + struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
                + struct.pack("<4sI", b"data", size)
            )[start:end]
        if end <= _PCM_HEADER:
            return
        stored = np.memmap(
            self.path, dtype="<f4", mode="r", offset=len(_float_header(0)), shape=(samples,)
        )
        at = max(start, _PCM_HEADER) - _PCM_HEADER
        end -= _PCM_HEADER
        while at < end:
            until = min(end, at + _BLOCK_BYTES)
            loud = np.rint(stored[at // 2 : (until + 1) // 2] * 32768.0)
            data = np.clip(loud, -32768, 32767).astype("<i2").tobytes()
            yield data[at % 2 : at % 2 + until - at]
            at = until
