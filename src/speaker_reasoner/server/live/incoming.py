"""Live audio as it arrives: decoded for the engine, stored as it was sent, and examined for pauses.

The file is a wav with a correct header after every piece, so that it can be read after a crash.
"""

import io
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ...audio import SAMPLE_RATE_HZ, Samples
from ...speech import EnergyVad
from ..failures import RequestError
from ..sound import LIVE, WAV_HEADER, not_stored, wav_header

_MOST_BYTES = 2**32 - 1024
_SYNC_S = 1.0
"""Audio that is older than this survives a power failure (assumed)."""


@dataclass(frozen=True, slots=True)
class Coding:
    """The coding of samples, in one channel.

    Attributes:
        name: as libsndfile calls it.
        tag: as wav calls it.
        rate_hz: samples a second.
        width: bytes of a sample.
        silence: a sample of silence.
    """

    name: str
    tag: int
    rate_hz: int
    width: int
    silence: bytes


CODINGS = {
    "audio/pcm": Coding("PCM_16", 1, 24_000, 2, b"\0\0"),
    "audio/pcmu": Coding("ULAW", 7, 8_000, 1, b"\xff"),
    "audio/pcma": Coding("ALAW", 6, 8_000, 1, b"\xd5"),
}
"""Codings by the types of OpenAI's Realtime API: 16-bit little-endian, and the two of G.711."""


class LiveFile:
    """A wav file that grows in a folder.

    Args:
        folder: of the future recording.
        coding: of appended samples.
    """

    def __init__(self, folder: Path, coding: Coding) -> None:
        self._path = folder / LIVE
        self._coding = coding
        self._bytes = 0
        self._synced = time.monotonic()
        self._file: BinaryIO | None = None

    def append(self, data: bytes) -> None:
        """Add whole samples.

        Raises:
            StorageError: the file cannot be written; earlier audio stays readable.
            RequestError: 413, a wav file holds no more.
        """
        if self._bytes + len(data) > _MOST_BYTES:
            raise RequestError(413, "the recording is larger than 4 GiB", code="audio_too_long")
        self._write(self._bytes, data)

    def silence(self, start_s: float) -> None:
        """Replace everything from a time on by silence."""
        width = self._coding.width
        at = min(self._bytes, round(start_s * self._coding.rate_hz) * width)
        self._write(at, self._coding.silence * ((self._bytes - at) // width))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def moved(self, folder: Path) -> None:
        """Continue in another folder, to which the first was renamed."""
        self._path = folder / LIVE

    def _write(self, at: int, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("r+b" if self._bytes else "wb", buffering=0)
            size = max(self._bytes, at + len(data))
            coding = self._coding
            header = wav_header(size, coding.tag, coding.rate_hz, coding.width)
            for place, part in ((WAV_HEADER.size + at, data), (0, header)):
                self._file.seek(place)
                if self._file.write(part) != len(part):
                    raise OSError(28, "No space left on device")
            self._bytes = size
            if time.monotonic() - self._synced >= _SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            self.close()
            raise not_stored("what was said", error) from error


class Decoder:
    """Decodes pieces of one coding to samples at 16 kHz, mono."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._began()

    def _began(self) -> None:
        self._stream = soxr.ResampleStream(
            self._coding.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ"
        )

    def feed(self, data: bytes) -> Samples:
        """Return the next samples, float32 `[n]`; the last few milliseconds come with the next piece."""
        out: Samples = self._stream.resample_chunk(self._samples(data))
        return out

    def rest(self) -> Samples:
        """Return the samples that are still held, at the end of a piece of speech."""
        out: Samples = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self._began()
        return out

    def _samples(self, data: bytes) -> Samples:
        if self._coding.tag == 1:
            return np.frombuffer(data, "<i2").astype(np.float32) / 32768.0
        samples: Samples = soundfile.read(
            io.BytesIO(data),
            dtype="float32",
            format="RAW",
            subtype=self._coding.name,
            samplerate=self._coding.rate_hz,
            channels=1,
        )[0]
        return samples


@dataclass(frozen=True, slots=True)
class Began:
    """Somebody began to speak, at a sample of the session."""

    at: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """Speech ended at a sample of the session."""

    at: int


class Pauses:
    """Finds where speech begins and ends in a stream.

    By energy (`speech.EnergyVad`), which needs no model for each session. Decisions about the last 8 s may change with
    later audio: speech at the very beginning is found when it pauses.

    Args:
        threshold: probability of speech of a frame that counts as such.
        silence_s: of a pause.
        start: sample of the session at which it begins to look.
    """

    REACH = 8 * SAMPLE_RATE_HZ
    """Greatest delay until speech is found, in samples."""
    _LOOK = SAMPLE_RATE_HZ // 5
    """Samples between two looks (assumed)."""
    _BEGIN_FRAMES = 5
    """Number of frames of speech in a row that begin a turn (assumed)."""

    def __init__(self, threshold: float, silence_s: float, start: int = 0) -> None:
        self.speaking = False
        self._start = start
        self._threshold = threshold
        self._vad = EnergyVad()
        self._silence_frames = max(1, round(silence_s * SAMPLE_RATE_HZ / self._vad.frame_samples))
        self._decided = np.zeros(0, bool)  # frames from number `_first` on
        self._first = self._at = self._unseen = 0

    def feed(self, samples: Samples) -> list[Began | Stopped]:
        """Take the next samples; return changes since the last look, which is at most 0.2 s ago."""
        self._decided = np.append(self._decided, self._vad.feed(samples) >= self._threshold)
        self._unseen += len(samples)
        if self._unseen < self._LOOK:
            return []
        self._unseen = 0
        spoken = np.append(self._decided, self._vad.rest() >= self._threshold)
        changes: list[Began | Stopped] = []
        while (run := self._run(spoken[self._at - self._first :])) is not None:
            self.speaking = not self.speaking
            frame = self._at + (run[0] if self.speaking else run[1])
            self._at += run[1]
            change = Began if self.speaking else Stopped
            changes.append(change(self._start + frame * self._vad.frame_samples))
        passed = min(self._at - self._first, len(self._decided))
        self._decided, self._first = self._decided[passed:], self._first + passed
        return changes

    def rest(self) -> None:
        """End the speech that is under way."""
        self.speaking = False
        self._at = self._first + len(self._decided) + len(self._vad.rest())

    def _run(self, spoken: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
        """Return `[first, end)` of the first run of frames that is long enough to change the state.

        `None` if there is no such run.
        """
        against = spoken != self.speaking
        edges = np.flatnonzero(np.diff(np.concatenate([[False], against, [False]])))
        enough = self._silence_frames if self.speaking else self._BEGIN_FRAMES
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            if last - first >= enough:
                return int(first), int(first + enough)
        return None
