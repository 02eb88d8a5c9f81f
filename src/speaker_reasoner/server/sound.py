"""Recordings as the server keeps them: 16 kHz, as FLAC of 24 bits, with their loudness in another file.

They have one channel, or all channels if each is transcribed separately; players get the mean of these. Samples beyond
full scale are kept as float wav instead, because FLAC would clip them. Decoding stops at a limit, whatever length a
file's header states. Players get 16-bit wav, by byte ranges.
"""

import math
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from .. import audio
from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import AudioError, quoted
from .failures import RequestError, StorageError, disk_error

_BLOCK_S = 10.0
_BLOCK_BYTES = 1 << 18
WAV_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_MOST_CHANNELS = 8  # FLAC's
_FLAC, _WAV, _PEAKS = "audio.flac", "audio.wav", "peaks.u8"
LIVE = "live.wav"
"""The audio of a live session, as it was sent, until it is decoded like an upload."""
PEAKS_PER_S = 100
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def recording_file(folder: Path) -> Path:
    """The recording in a job's folder."""
    return folder / _WAV if (folder / _WAV).exists() else folder / _FLAC


def finish_live(folder: Path, name: str) -> float | None:
    """Decode the audio of a live session, once; return its length in seconds, `None` if there was nothing to do.

    Raises:
        AudioError: it cannot be decoded.
        StorageError: the disk is full.
    """
    live = folder / LIVE
    if not live.exists():
        return None
    duration_s = decode_recording(live, folder, name, math.inf)
    live.unlink()
    return duration_s


def decode_recording(
    source: Path,
    folder: Path,
    name: str,
    longest_s: float,
    abandoned: Callable[[], bool] = lambda: False,
    channel: int | None = None,
    separate: bool = False,
) -> float:
    """Decode a recording into a folder, compressed, with its peaks; otherwise as `decode`."""
    peaks, channels = Peaks(), _kept_channels(source, name, separate)
    try:
        with (folder / _FLAC).open("wb") as raw:
            disk = _Disk(raw)
            file = soundfile.SoundFile(disk, "w", SAMPLE_RATE_HZ, channels, "PCM_24", format="FLAC")
            written = 0
            with file:
                for block in _blocks(source, name, longest_s, abandoned, channel, channels):
                    if len(block) and float(np.abs(block).max()) > 1.0:
                        raise _TooLoudError
                    file.write(block)
                    disk.check()
                    peaks.add(block)
                    written += len(block)
            disk.check()
            raw.flush()
            os.fsync(raw.fileno())
    except _TooLoudError:
        (folder / _FLAC).unlink(missing_ok=True)
        return decode(source, folder / _WAV, name, longest_s, abandoned, channel, channels)
    except OSError as error:
        raise not_stored(f"{name!r}, decoded", error) from error
    with suppress(OSError):  # else they are made when they are asked for
        (folder / _PEAKS).write_bytes(peaks.all())
    return audio.to_seconds(written)


def peaks_of(folder: Path) -> bytes:
    """Return the loudness of a recording, a byte for each hundredth of a second; computed once."""
    kept = folder / _PEAKS
    if kept.exists():
        return kept.read_bytes()
    peaks = Peaks()
    with soundfile.SoundFile(recording_file(folder)) as file:
        for block in file.blocks(SAMPLE_RATE_HZ * 10, dtype="float32"):
            peaks.add(block)
    with suppress(OSError):
        kept.write_bytes(peaks.all())
    return peaks.all()


class Peaks:
    """The loudest sample of each stretch of `1 / PEAKS_PER_S` s, as a byte; 255 is full scale."""

    _STEP = SAMPLE_RATE_HZ // PEAKS_PER_S

    def __init__(self) -> None:
        self._done: list[bytes] = []
        self._rest = np.zeros(0, np.float32)

    def add(self, samples: Samples) -> None:
        """Take the next samples, float32 `[n]`, or `[n, channels]`."""
        loudest = np.abs(samples).max(1) if samples.ndim == 2 else np.abs(samples)
        loud = np.concatenate([self._rest, loudest])
        whole = len(loud) // self._STEP * self._STEP
        self._rest = loud[whole:]
        self._done.append(self._bytes(loud[:whole].reshape(-1, self._STEP).max(1)))

    def all(self) -> bytes:
        """Return all levels so far, the unfinished one included."""
        rest = [self._bytes(self._rest.max(keepdims=True))] if len(self._rest) else []
        return b"".join([*self._done, *rest])

    @staticmethod
    def _bytes(peaks: Samples) -> bytes:
        return np.rint(np.clip(peaks, 0.0, 1.0) * 255).astype(np.uint8).tobytes()


class _TooLoudError(Exception):
    """A sample beyond full scale."""


class _Disk:
    """A file for libsndfile, which does not report a full disk: errors are kept, and raised by `check`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._error = self._error or error
            return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:  # it writes what is buffered
            self._error = self._error or error
            return offset

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return b""

    def flush(self) -> None:
        """Do nothing: `check` reports errors."""

    def check(self) -> None:
        if self._error is None:
            self._file.flush()
        if self._error is not None:
            raise self._error


def _blocks(
    source: Path,
    name: str,
    longest_s: float,
    abandoned: Callable[[], bool],
    channel: int | None,
    channels: int = 1,
) -> Iterator[Samples]:
    """Yield the samples of a recording, `[n]`, or `[n, channels]`, until the client disconnects.

    Raises:
        AudioError: it cannot be decoded.
        RequestError: 413, it is longer than `longest_s`.
    """
    longest, seen = math.inf if math.isinf(longest_s) else audio.to_samples(longest_s), 0
    try:
        blocks = (
            audio.stream(source, channel=channel, block_s=_BLOCK_S)
            if channels == 1
            else audio.stream_channels(source, block_s=_BLOCK_S)
        )
        for block in blocks:
            seen += len(block)
            if seen > longest:
                raise RequestError(
                    413,
                    f"{name!r}: longer than {longest_s:g} s, the most that is taken; cut it",
                    code="audio_too_long",
                    param="file",
                )
            if abandoned():
                return
            yield block
    except AudioError as error:
        raise _named(error, source, name) from error


def decode(
    source: Path,
    target: Path,
    name: str,
    longest_s: float,
    abandoned: Callable[[], bool] = lambda: False,
    channel: int | None = None,
    channels: int = 1,
) -> float:
    """Decode a recording to float wav, exactly what `audio.load` gives.

    Args:
        source: any audio.
        target: written, and flushed to disk.
        name: of the source, for messages.
        longest_s: decoding stops there.
        abandoned: called after each block; decoding ends when it returns true.
        channel: as for `audio.load`.
        channels: number of channels to keep separately, if over 1.

    Returns:
        Its length in seconds.

    Raises:
        AudioError: it cannot be decoded.
        RequestError: 413, it is longer than `longest_s`.
        StorageError: the disk is full.
    """
    written = 0
    try:
        with target.open("wb") as file:
            file.write(_float_header(0, channels))
            for block in _blocks(source, name, longest_s, abandoned, channel, channels):
                written += len(block)
                file.write(block.astype("<f4").tobytes())
            file.seek(0)
            file.write(_float_header(written, channels))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise not_stored(f"{name!r}, decoded", error) from error
    return audio.to_seconds(written)


def not_stored(what: str, error: OSError) -> StorageError:
    """Return the error of a disk that is full or cannot be written."""
    return disk_error(f"store {what}", error)


def _kept_channels(source: Path, name: str, separate: bool) -> int:
    """Return how many channels are kept; 1 where they are not transcribed separately.

    Raises:
        AudioError: there are more than FLAC holds, or it cannot be opened.
    """
    try:
        count = audio.channel_count(source) if separate else 1
    except AudioError as error:
        raise _named(error, source, name) from error
    if count > _MOST_CHANNELS:
        raise AudioError(f"{name!r}: got {count} channels, expected at most {_MOST_CHANNELS}")
    return count


def _named(error: AudioError, source: Path, name: str) -> AudioError:
    """Replace the source's path in an error by the name that the client gave it."""
    return AudioError(f"{name!r}: {str(error).removeprefix(f'{quoted(source)}: ')}")


def wav_header(size: int, tag: int = 1, rate_hz: int = SAMPLE_RATE_HZ, width: int = 2) -> bytes:
    """The first bytes of a wav file of one channel.

    Args:
        size: bytes of its samples.
        tag: number of their coding in wav; 1 for PCM.
        width: bytes of a sample.
    """
    kind = (16, tag, 1, rate_hz, rate_hz * width, width, 8 * width)
    return WAV_HEADER.pack(b"RIFF", 36 + size, b"WAVE", b"fmt ", *kind, b"data", size)


def _float_header(samples: int, channels: int) -> bytes:
    """RIFF header of float32: format 3, with its `fact` chunk, then the data's."""
    rate, width = SAMPLE_RATE_HZ, 4 * channels
    size = width * samples
    return (
        struct.pack("<4sI4s", b"RIFF", 50 + size, b"WAVE")
        + struct.pack("<4sIHHIIHHH", b"fmt ", 18, 3, channels, rate, width * rate, width, 32, 0)
        + struct.pack("<4sII", b"fact", 4, samples)
        + struct.pack("<4sI", b"data", size)
    )


@dataclass(frozen=True, slots=True)
class Pcm:
    """A stored recording as the bytes of a 16-bit wav file.

    Attributes:
        path: as `decode` or `decode_recording` wrote it.
    """

    path: Path

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return WAV_HEADER.size + 2 * self._samples

    @property
    def _samples(self) -> int:
        return int(soundfile.info(self.path).frames)

    def span(self, header: str | None) -> tuple[int, int] | None:
        """Return the first byte, and the one after the last, of a Range header; `None` for the whole.

        Several ranges, and malformed headers, give the whole.

        Raises:
            RequestError: 416, it lies outside.
        """
        range_match = _RANGE.fullmatch(header or "")
        if range_match is None or range_match.groups() == ("", ""):
            return None
        first, last = range_match.groups()
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
        if start < WAV_HEADER.size:
            yield wav_header(2 * self._samples)[start:end]
        if end <= WAV_HEADER.size:
            return
        stored = soundfile.SoundFile(self.path)
        at = max(start, WAV_HEADER.size) - WAV_HEADER.size
        end -= WAV_HEADER.size
        with stored:
            stored.seek(at // 2)
            while at < end:
                until = min(end, at // 2 * 2 + _BLOCK_BYTES)
                samples = stored.read((until + 1) // 2 - at // 2, dtype="float32", always_2d=True)
                samples = samples.mean(1)
                loud = np.rint(samples * 32768.0)
                data = np.clip(loud, -32768, 32767).astype("<i2").tobytes()
                yield data[at % 2 : at % 2 + until - at]
                at = until
                stored.seek(at // 2)
