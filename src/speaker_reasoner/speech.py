"""Voice activity detection, and the choice of a chunk's end.

A `Vad` gives the probability of speech of each frame of a stream; `SpeechDetector` turns them into
regions. `EnergyVad` needs numpy alone. `SileroVad` is the model of the package silero-vad (extra
`vad`), which carries its weights and needs neither torchaudio nor a network.

Does not separate speakers.

Measured on 36 minutes of simulated meetings of 2 to 4 people with known utterances, half of them
reverberant: seconds of speech missed, and seconds without speech that were called speech (pauses are
short there: padding and reverberation alone take much of them), in percent by SNR.

                10 dB       15 dB       20 dB       30 dB       45 dB     CPU per s of audio
    energy    0.9 / 8.1   0.8 / 8.1   0.2 / 11    0.2 / 11    0.3 / 10         0.4 ms
    silero    0.9 / 17    2.6 / 14    1.1 / 17    0.6 / 14    0.5 / 14          14 ms

The energy detector does not depend on the level: at 50 dB less it misses 0.5 % in all, silero more than half.
In four far-field clips of real meetings (AMI, 30 s each) it also takes noises, and speech that the reference
leaves out, for speech: half of the time without any. Silero does not, but misses more of the distant speech
(12 and 27 % of the two clips with much of it; energy 5 and 22 %).
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import extras
from .audio import SAMPLE_RATE_HZ, Samples
from .cores import torch_threads_kept
from .errors import AudioError

Region = tuple[float, float]
"""Start and end of a stretch of speech, in seconds."""

Detect = Callable[[Samples], Sequence[Region]]
"""Finds speech in samples, as regions in seconds."""

Floats = npt.NDArray[np.float64]

SPEECH, STILL_SPEECH = 0.5, 0.35
"""A region starts at a frame of at least the first probability, and ends at one below the second (assumed, as
the next three)."""
SHORTEST_S = 0.1
"""Shorter regions are dropped."""
PAD_S = 0.04
"""Margin before the first frame of a region and after its last."""
MERGE_S = 0.2
"""Regions with a shorter pause between them are joined."""

_BLOCK_SAMPLES = 30 * SAMPLE_RATE_HZ
_LEVEL_SAMPLES = SAMPLE_RATE_HZ // 50


class Vad(Protocol):
    """Gives the probability of speech, frame by frame of a stream.

    Attributes:
        name: as `load_vad` takes it.
        frame_samples: length of a frame.
    """

    name: str
    frame_samples: int

    def feed(self, samples: Samples) -> Floats:
        """Take the next samples `[n]`, any number of them.

        Returns:
            Probabilities of speech `[frames]` of the frames decided by now: each frame once, in order,
            and independent of the sizes of the blocks.
        """

    def rest(self) -> Floats:
        """Probabilities of the remaining frames, if the stream ended here."""

    def reset(self) -> None:
        """Start a new stream."""


class SpeechDetector:
    """Collects regions of speech from a stream; keeps no samples but the last seconds.

    Args:
        vad: reads the stream from its beginning; by energy if `None`.
    """

    def __init__(self, vad: Vad | None = None) -> None:
        self.vad = vad or EnergyVad()
        self.vad.reset()
        self._samples = 0
        self._frames = 0
        self._start: int | None = None
        self._runs: list[tuple[int, int]] = []

    def feed(self, samples: Samples) -> None:
        """Take the next float32 samples `[n]` at 16 kHz, any number of them."""
        probabilities = self.vad.feed(samples)
        runs, self._start = _runs(probabilities, self._frames, self._start)
        self._runs += runs
        self._frames += len(probabilities)
        self._samples += len(samples)

    def regions(self) -> list[Region]:
        """Regions of speech so far: in order, not overlapping, inside the stream.

        The last seconds (8 by energy) are decided as if the stream ended here; later samples may change
        them.
        """
        frame = self.vad.frame_samples
        runs, start = _runs(self.vad.rest(), self._frames, self._start)
        if start is not None:
            runs.append((start, -(-self._samples // frame)))
        joined: list[Region] = []
        for first, last in (*self._runs, *runs):
            if (last - first) * frame < SHORTEST_S * SAMPLE_RATE_HZ:
                continue
            start_s = max(0.0, first * frame / SAMPLE_RATE_HZ - PAD_S)
            end_s = min(last * frame + PAD_S * SAMPLE_RATE_HZ, self._samples) / SAMPLE_RATE_HZ
            if joined and start_s - joined[-1][1] <= MERGE_S:
                start_s = joined.pop()[0]
            joined.append((start_s, end_s))
        return joined


def _runs(
    probabilities: Iterable[float], frame: int, start: int | None
) -> tuple[list[tuple[int, int]], int | None]:
    """Runs of speech `[first, last)` in frames.

    Args:
        probabilities: of the frames from number `frame` on.
        start: of the open run, if any.

    Returns:
        The runs that ended, and the start of the open run, if any.
    """
    ended = []
    for number, probability in enumerate(probabilities, start=frame):
        if start is None and probability >= SPEECH:
            start = number
        elif start is not None and probability < STILL_SPEECH:
            ended.append((start, number))
            start = None
    return ended, start


def speech_regions(samples: Samples, vad: Vad | None = None) -> list[Region]:
    """Regions of speech in float32 samples `[n]` at 16 kHz; by energy if no `vad` is given."""
    detector = SpeechDetector(vad)
    for at in range(0, len(samples), _BLOCK_SAMPLES):
        detector.feed(samples[at : at + _BLOCK_SAMPLES])
    return detector.regions()


def spoken_s(regions: Iterable[Region], start_s: float, end_s: float) -> float:
    """Seconds of speech between two times."""
    return sum(max(0.0, min(end, end_s) - max(start, start_s)) for start, end in regions)


_SHORTEST_GAP_S, _MARGIN_S = 0.4, 0.25
"""Speech without a line or word counts from the first duration on, and at a distance of the second from any
line or word, because models give lines and words tighter times than detectors (assumed)."""


def uncovered(speech: Iterable[Region], spans: Iterable[Region]) -> list[Region]:
    """Speech of at least 0.4 s that lies 0.25 s or more from all spans; all in seconds."""
    covered = sorted((start_s - _MARGIN_S, end_s + _MARGIN_S) for start_s, end_s in spans)
    parts = []
    for start_s, end_s in speech:
        at = start_s
        for low, high in covered:
            if high <= at or low >= end_s:
                continue
            parts.append((at, low))
            at = max(at, high)
        parts.append((at, end_s))
    return [(a, b) for a, b in parts if b - a >= _SHORTEST_GAP_S]


def quietest_cut(
    samples: Samples, earliest: int, latest: int, regions: Sequence[Region] | None = None
) -> int:
    """Choose the sample in `[earliest, latest]` at which a chunk ends.

    It is the middle of the longest pause between them. Where no pause is as long as `MERGE_S`, or there
    is no speech, it is the middle of the quietest 0.3 s. Of equals the later is taken.

    Args:
        samples: float32 `[n]` at 16 kHz, at least up to `latest`.
        earliest: first sample that may end the chunk.
        latest: last sample that may, not before `earliest`.
        regions: regions of speech in `samples`; detected by energy if `None`.
    """
    if regions is None:
        regions = speech_regions(samples)
    if spoken_s(regions, earliest / SAMPLE_RATE_HZ, latest / SAMPLE_RATE_HZ) > 0:
        pauses = _pauses(regions, earliest, latest)
        length, start = max(((end - start, start) for start, end in pauses), default=(0, 0))
        if length >= MERGE_S * SAMPLE_RATE_HZ:
            return start + length // 2
    return _quietest(samples, earliest, latest)


def _pauses(regions: Sequence[Region], earliest: int, latest: int) -> list[tuple[int, int]]:
    """Pauses `[start, end)` between two samples."""
    pauses, at = [], earliest
    for start_s, end_s in regions:
        start, end = (round(time_s * SAMPLE_RATE_HZ) for time_s in (start_s, end_s))
        if at < min(start, latest):
            pauses.append((at, min(start, latest)))
        at = max(at, end)
    if at < latest:
        pauses.append((at, latest))
    return pauses


def _quietest(samples: Samples, earliest: int, latest: int) -> int:
    """The middle of the quietest 0.3 s between two samples, the later of equals."""
    if latest - earliest < _LEVEL_SAMPLES:
        return latest
    levels = levels_db(samples[earliest:latest])
    width = min(15, len(levels))
    smooth = np.convolve(levels, np.ones(width) / width, mode="valid")
    last = len(smooth) - 1 - int(np.argmin(smooth[::-1]))
    return min(earliest + (last + width // 2) * _LEVEL_SAMPLES, latest)


def levels_db(samples: Samples) -> Floats:
    """Level of each 20 ms in dB of full scale, `[n // 320]`; one level if there is less than 20 ms."""
    count = max(1, len(samples) // _LEVEL_SAMPLES)
    frames = samples[: count * _LEVEL_SAMPLES].astype(np.float64)
    power = np.mean(frames.reshape(count, -1) ** 2, axis=1)
    return np.asarray(10 * np.log10(power + 1e-20))


def load_vad(name: str | None = None) -> Vad:
    """Load a detector by name, `silero` or `energy`; by default silero if it is installed.

    Raises:
        AudioError: there is none of that name.
        ExtraError: its package is not installed.
    """
    if name is None:
        name = "energy" if importlib.util.find_spec("silero_vad") is None else "silero"
    match name:
        case "energy":
            return EnergyVad()
        case "silero":
            return SileroVad()
    raise AudioError(f"voice activity: got the detector {name!r}, expected silero or energy")


def detector(name: str) -> Detect:
    """Return a detector of speech in samples, by the name of a `Vad`; see `load_vad`."""
    return partial(speech_regions, vad=load_vad(name))


class SileroVad:
    """The model of the package silero-vad, on the CPU.

    Raises:
        ExtraError: the package is not installed.
    """

    name = "silero"
    frame_samples = 512

    def __init__(self) -> None:
        self._model = _load_silero()
        self.reset()

    def reset(self) -> None:
        self._model.reset_states()
        self._held: Samples = np.zeros(0, dtype=np.float32)

    def feed(self, samples: Samples) -> Floats:
        import torch

        held = np.concatenate([self._held, samples])
        count = len(held) // self.frame_samples
        self._held = held[count * self.frame_samples :]
        blocks = held[: count * self.frame_samples].reshape(count, self.frame_samples)
        frames = torch.from_numpy(blocks)
        with torch.inference_mode():
            return np.array([float(self._model(frame, SAMPLE_RATE_HZ)) for frame in frames])

    def rest(self) -> Floats:
        """Nothing: less than a frame remains."""
        return np.zeros(0)


def _load_silero() -> Any:
    """Load a new model for each stream, because the model keeps the stream's state."""
    import torch  # noqa: F401  before silero_vad sets its threads

    with torch_threads_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is saved as TorchScript
        return extras.load("silero_vad", "vad", "voice activity by silero").load_silero_vad()


class EnergyVad:
    """Detects speech as energy above the noise in many bands at once.

    The noise of a band is its weakest 100 ms in the 8 s before or in the 8 s after, whichever is
    stronger, so that noise that drifts or starts is still noise. A frame's score is the number of dB
    above the noise: the mean over the bands and, against clicks, the median over 100 ms. It is about 1 dB
    for steady noise of any colour and level; 2.7 dB is a probability of one half. A background that
    changes within seconds (music) is taken for speech.
    """

    name = "energy"
    frame_samples = SAMPLE_RATE_HZ // 50

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._samples: Samples = np.zeros(_MARGIN, dtype=np.float32)
        self._bands: Floats = np.zeros((0, _BANDS))
        self._decided = 0

    def feed(self, samples: Samples) -> Floats:
        """See `Vad`. A frame is decided once the 8 s after it were read."""
        held = np.concatenate([self._samples, samples])
        count = max(0, (len(held) - _WINDOW) // self.frame_samples + 1)
        self._samples = held[count * self.frame_samples :]
        self._bands = np.concatenate([self._bands, _band_power(held, count)])
        known = max(self._decided, len(self._bands) - _CONTEXT)
        if known == self._decided:
            return np.zeros(0)
        probabilities = _probabilities(self._bands)[self._decided : known]
        first = max(0, known - _CONTEXT)
        self._bands, self._decided = self._bands[first:], known - first
        return probabilities

    def rest(self) -> Floats:
        count = (len(self._samples) - _MARGIN) // self.frame_samples
        last = _band_power(np.pad(self._samples, (0, _WINDOW)), max(0, count))
        return _probabilities(np.concatenate([self._bands, last]))[self._decided :]


_WINDOW = 512
"""Samples of a Fourier transform, around the middle of each frame."""
_MARGIN = (_WINDOW - EnergyVad.frame_samples) // 2
_BANDS = 16
"""Bands of equal width in mel, from 100 to 7000 Hz."""
_SMOOTH_FRAMES = 5
_REACH_FRAMES = 400
_CONTEXT = _REACH_FRAMES + _SMOOTH_FRAMES
"""Frames before and after a frame that its probability may depend on."""
_NOISE_BIAS = 1.2
"""The mean power of noise over its weakest 100 ms; a little less than a single run gave, which is not stored: so
weak speech counts as speech at 10 dB SNR, and steady noise never does."""
_FAINTEST = 1e-10
"""Power below which a frame is silence, relative to full scale: -100 dB, the noise of 16 bits."""
_RANGE = 1e-4
"""Power below which a frame is silence, relative to the loudest 100 ms within 8 s: -40 dB. It excludes the
tails of reverberation in recordings without noise; speakers differ by less."""
_LOUDEST_DB = 30.0
"""Upper bound of a band's excess over the noise."""
_SCORE_DB, _SLOPE_DB = 2.7, 1.6
"""Score at probability one half, and the increase that multiplies the odds by e."""


def _band_edges() -> npt.NDArray[np.intp]:
    """First Fourier bin of each band, then the end of the last, `[bands + 1]`."""
    low, high = (np.log1p(hz / 700) for hz in (100, 7000))
    edges_hz = 700 * np.expm1(np.linspace(low, high, _BANDS + 1))
    return np.round(edges_hz * _WINDOW / SAMPLE_RATE_HZ).astype(np.intp)


_EDGES = _band_edges()


def _band_power(samples: Samples, count: int) -> Floats:
    """Power of `count` frames in each band, `[count, bands]`; of full scale, 0 dB is a sum of 1.

    Args:
        samples: from the first sample of the first frame's window on.
    """
    if count == 0:
        return np.zeros((0, _BANDS))
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)
    hann = np.hanning(_WINDOW)
    spectrum = np.fft.rfft(windows[:: EnergyVad.frame_samples][:count] * hann, axis=1)
    power = np.abs(spectrum) ** 2 * (2 / (_WINDOW * np.sum(hann**2)))
    return np.asarray(np.add.reduceat(power[:, : _EDGES[-1]], _EDGES[:-1], axis=1))


def _probabilities(bands: Floats) -> Floats:
    """Probability of speech `[frames]` from power `[frames, bands]`."""
    if len(bands) == 0:
        return np.zeros(0)
    smooth = _shifted(bands).mean(axis=0)
    noise = _NOISE_BIAS * np.maximum(*_before_and_after(np.minimum, smooth))
    loudest = np.maximum(*_before_and_after(np.maximum, smooth.sum(axis=1, keepdims=True)))
    noise = np.maximum(noise, np.maximum(_FAINTEST, _RANGE * loudest) / _BANDS)
    above_db = 10 * np.log10(np.maximum(bands / noise, 1.0))
    score_db = np.median(_shifted(np.minimum(above_db, _LOUDEST_DB).mean(axis=1)), axis=0)
    return np.asarray(1 / (1 + np.exp((_SCORE_DB - score_db) / _SLOPE_DB)))


def _shifted(rows: Floats) -> Floats:
    """The `_SMOOTH_FRAMES` rows around each, `[_SMOOTH_FRAMES, *rows]`; the outer rows stand for what
    lies beyond."""
    side = _SMOOTH_FRAMES // 2
    padded = np.concatenate([rows[:1]] * side + [rows] + [rows[-1:]] * side)
    return np.stack([padded[i : i + len(rows)] for i in range(_SMOOTH_FRAMES)])


def _before_and_after(
    extreme: Callable[[Floats, Floats], Floats], rows: Floats
) -> tuple[Floats, Floats]:
    """Running minimum or maximum over the `_REACH_FRAMES` before each row, and over those after it.

    Near an end of the rows the window is the outermost one of that length.
    """
    out, width = rows, 1
    while width < min(_REACH_FRAMES, len(rows)):
        step = min(width, _REACH_FRAMES - width, len(rows) - width)
        out, width = extreme(out[:-step], out[step:]), width + step
    at = np.arange(len(rows))
    return out[np.maximum(at - width + 1, 0)], out[np.minimum(at, len(out) - 1)]
