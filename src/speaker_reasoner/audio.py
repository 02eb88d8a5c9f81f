"""Decode a recording to 16 kHz mono float32, whole or in blocks, and cut it by the sample.

Samples are laid out by their presentation times (`decoding`): sound that starts late starts late, packets that were
never sent are silence, and later sound keeps its time. Timestamps that go back, leap by half a day, or lie behind the
end that the file states are ignored: no sound is dropped because of them, and a warning reports them.

A damaged or shortened file is an `AudioError`, not a shorter recording, as far as the file shows it. Warnings (`warn`)
report a second track, joined recordings, a wrong header, and channels that cancel each other.

Not here: gain, voice activity, other sample rates, capture.
"""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .decoding import AnyPath, Block, Source, check_readable, open_source
from .errors import AudioError, quoted

__all__ = [
    "SAMPLE_RATE_HZ",
    "SUFFIXES",
    "AudioInfo",
    "Samples",
    "channel_count",
    "check_readable",
    "cut",
    "level_db",
    "load",
    "load_slice",
    "probe",
    "stream",
    "stream_channels",
    "to_samples",
    "to_seconds",
]

SAMPLE_RATE_HZ = 16_000

_KNOWN = (
    ".wav .flac .mp3 .ogg .oga .opus .m4a .m4b .mp4 .m4v .mov .mkv .mka .webm .aac .aif .aiff .aifc .au"
    " .caf .w64 .rf64 .sph .amr .3gp .wma .avi .flv .ts .mts .mpg .mpeg .ac3 .wv .ape"
)
SUFFIXES = frozenset(_KNOWN.split())
"""Suffixes of recordings in a folder, in lower case. The content of a file, not its suffix, decides its format."""

Samples = npt.NDArray[np.float32]

Warn = Callable[[str], None]
"""Called with each warning about a file."""

_JITTER_S = 0.1  # timestamps that differ less from the samples before are taken to follow them
_LEAP_S = 12 * 3600.0  # silence longer than this is a broken clock
_SILENCE = (
    1000.0  # times the sound, and more than _LEAP_S: silence of a broken clock, too (assumed)
)
_LATE_S = 60.0  # so much later than a file states to end, sound may begin
_FAR_TOO_LOUD = 8.0  # times full scale; mixes in floating point exceed it a little
_QUIET_DB = -26  # relative to full scale, of the loudest _LOUDEST_S: a click is none
_LOUDEST_S = 0.2
_LOWEST_DB = -120
_MOST_PEAKS = 512  # arrays of them, kept before they are counted
_FILL_SAMPLES = 30 * SAMPLE_RATE_HZ  # of silence at once


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Properties of a recording's file, before resampling.

    Attributes:
        duration_s: length in seconds; of mp4, matroska and ogg as the header states it, which may
            differ from the decoded length by codec padding.
        sample_rate_hz: of the file.
        channels: of the file.
        format: container, in lower case (`wav`, `flac`, `mp3`, `ogg`, `mov`, `matroska`, ...).
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    format: str


def to_samples(seconds: float) -> int:
    """Return the 16 kHz sample nearest to a time in seconds; halves round up, without float error.

    Raises:
        AudioError: the time is not finite.
    """
    if not math.isfinite(seconds):
        raise AudioError(f"time {seconds} s: expected a finite number of seconds")
    return math.floor(Fraction(float(seconds)) * SAMPLE_RATE_HZ + Fraction(1, 2))


def to_seconds(samples: int) -> float:
    """Return the time in seconds of a 16 kHz sample; `to_samples` gives the sample back."""
    return samples / SAMPLE_RATE_HZ


def probe(path: AnyPath, *, track: int | None = None) -> AudioInfo:
    """Describe a recording from its header; decode it only where the header states no length.

    Raises:
        AudioError: as `load` does, for what can be seen without decoding.
    """
    with open_source(path, track) as source:
        duration_s = source.duration_s
        if duration_s is None:
            duration_s = (
                sum(len(b) for b in _on_clock(path, source, _Mixer(path, None), _ignore))
                / SAMPLE_RATE_HZ
            )
        if duration_s == 0:
            raise AudioError(_no_samples(path))
        return AudioInfo(duration_s, source.sample_rate_hz, source.channels, source.format)


def channel_count(path: AnyPath, *, track: int | None = None) -> int:
    """Return how many channels a recording has; nothing is decoded.

    Raises:
        AudioError: it cannot be opened.
    """
    with open_source(path, track) as source:
        return source.channels


def load(
    path: AnyPath,
    *,
    channel: int | None = None,
    track: int | None = None,
    warn: Warn | None = None,
) -> Samples:
    """Read a whole recording.

    Args:
        path: an audio file, or a video file with an audio track.
        channel: 0-based channel to take; by default the mean of all channels.
        track: 0-based sound track to take; by default the one that is marked as default, or the first.
        warn: called with each warning.

    Returns:
        float32 samples `[samples]` at 16 kHz, nominally in -1..1.

    Raises:
        AudioError: the file cannot be read or decoded, is cut off, holds no samples, or NaN or
            infinite ones; the channel or the track does not exist.
    """
    return np.concatenate(list(stream(path, channel=channel, track=track, warn=warn)))


def stream(
    path: AnyPath,
    *,
    channel: int | None = None,
    block_s: float = 30.0,
    track: int | None = None,
    warn: Warn | None = None,
) -> Iterator[Samples]:
    """Read a recording in blocks; memory does not grow with its length.

    The blocks joined are exactly what `load` returns. All but the last have `to_samples(block_s)`
    samples.

    Args:
        path, channel, track, warn: as for `load`.
        block_s: length of a block in seconds, at least one sample.

    Yields:
        float32 samples `[block]` at 16 kHz.

    Raises:
        AudioError: as `load`, while iterating; a file found cut off at its end raises after the
            blocks that were there.
    """
    size = to_samples(block_s)
    if size < 1:
        raise AudioError(f"block of {block_s} s: expected at least one sample at 16 kHz")
    empty = True
    with open_source(path, track) as source:
        _check_channel(path, channel, source.channels)
        mixer = _Mixer(path, channel)
        for block in _reblocked(_on_clock(path, source, mixer, warn or _ignore), size):
            empty = False
            yield block
    if empty:
        raise AudioError(_no_samples(path))


def stream_channels(path: AnyPath, *, block_s: float = 30.0) -> Iterator[Samples]:
    """Read all channels of a recording in blocks, decoded once.

    Each channel is exactly what `stream` yields of it, with blocks of the same lengths.

    Args:
        path: as for `load`.
        block_s: as for `stream`.

    Yields:
        float32 samples `[block, channels]` at 16 kHz.

    Raises:
        AudioError: as `stream`.
    """
    size, empty = to_samples(block_s), True
    with open_source(path) as source:
        mixer = _Separator(path, source.channels)
        for block in _reblocked(_on_clock(path, source, mixer, _ignore), size):
            empty = False
            yield block
    if empty:
        raise AudioError(_no_samples(path))


def _ignore(_: str) -> None:
    pass


def load_slice(
    path: AnyPath, start: int, end: int, *, channel: int | None = None, track: int | None = None
) -> Samples:
    """Read the samples `[start, end)` of the recording that `load` reads.

    A wav or flac file at 16 kHz is read from `start`, any other from its beginning to `end`. What
    lies outside the slice is not checked.

    Args:
        path, channel, track: as for `load`.
        start: first sample at 16 kHz.
        end: sample after the last, behind `start`.

    Raises:
        AudioError: as `load`, for the slice; the recording ends before it does.
    """
    if not 0 <= start < end:
        raise AudioError(f"{quoted(path)}: slice [{start}, {end}): expected 0 <= start < end")
    held = _seek(path, start, end, channel, track)
    if held is None:
        blocks, done = [], 0
        for block in stream(path, channel=channel, track=track):
            blocks.append(block[max(0, start - done) : max(0, end - done)])
            done += len(block)
            if done >= end:
                break
        held = np.concatenate(blocks)
    if len(held) < end - start:
        raise AudioError(
            f"{quoted(path)}: ends after {to_seconds(start + len(held)):.3f} s, expected "
            f"{to_seconds(end):.3f} s at least; is it another file than was prepared?"
        )
    return held


def _seek(
    path: AnyPath, start: int, end: int, channel: int | None, track: int | None
) -> Samples | None:
    """The slice of a file at 16 kHz in which libsndfile finds any sample; `None` for others."""
    with open_source(path, track) as source:
        file = source.exact
        if file is None or source.sample_rate_hz != SAMPLE_RATE_HZ:
            return None
        index = _check_channel(path, channel, source.channels)
        try:
            file.seek(min(start, file.frames))
            read = file.read(end - start, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return None  # `stream` finds out, and says, what is wrong
        held: Samples = read.mean(axis=1) if index is None else read[:, index]
    return held if np.isfinite(held).all() else None


def cut(samples: Samples, start_s: float, end_s: float) -> Samples:
    """Return the samples `[to_samples(start_s), to_samples(end_s))` as a view.

    Times may exceed the recording by the rounding of one sample; further out is an error, so that
    nothing is clipped silently.

    Args:
        samples: `[samples]` at 16 kHz.
        start_s: in seconds.
        end_s: in seconds, not before `start_s`.

    Raises:
        AudioError: the times are reversed, not finite, or outside the recording.
    """
    total = len(samples)
    start, end = to_samples(start_s), to_samples(end_s)
    if not (-1 <= start <= end <= total + 1):
        raise AudioError(
            f"cut [{start_s}, {end_s}] s: expected 0 <= start <= end <= {to_seconds(total)} s, "
            "the length of the recording; correct the times"
        )
    return samples[max(start, 0) : min(end, total)]


def level_db(samples: Samples) -> float:
    """Return the mean level of samples in dB relative to full scale; -120 for silence."""
    return 10 * float(np.log10(np.mean(samples**2) + 1e-12))


def _no_samples(path: AnyPath) -> str:
    return f"{quoted(path)}: got no samples, expected at least one at 16 kHz; record it again"


@dataclass(slots=True)
class _Clock:
    """The position on the recording's time line at which the next sample goes.

    Attributes:
        done: samples at 16 kHz that are laid out.
        start: of them, those before the run of samples that is being resampled.
        rate_hz: of the run; 0 before the first.
        frames: samples of the run so far, at its rate.
        shift_s: offset added to timestamps, after some were not followed.
        jumps: how often they were not.
        peak: the largest magnitude of a sample, as far as it is counted.
        peaks: the largest magnitudes in each 20 ms, where they are not counted yet.
        loudness: how many of these have each level, in dB below full scale.
        sound_s, silence_s: of sound, and of silence where nothing was recorded, so far.
        latest_s: no sound begins later, as far as the file states its length.
    """

    done: int = 0
    start: int = 0
    rate_hz: int = 0
    frames: int = 0
    shift_s: float = 0.0
    jumps: int = 0
    peak: float = 0.0
    peaks: list[Samples] = field(default_factory=list)
    loudness: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(1 - _LOWEST_DB, np.int64)
    )
    sound_s: float = 0.0
    silence_s: float = 0.0
    latest_s: float = math.inf

    @property
    def now_s(self) -> float:
        """The time of the next sample of the run in seconds, if it follows the last one."""
        return self.start / SAMPLE_RATE_HZ + (self.frames / self.rate_hz if self.rate_hz else 0.0)

    def listen(self, samples: Samples, rate_hz: int) -> None:
        """Take note of how loud samples are."""
        if not len(samples):
            return
        self.sound_s += len(samples) / rate_hz
        loud = np.abs(samples)
        loud = loud if loud.ndim == 1 else loud.max(axis=1)
        step = max(1, rate_hz // 50)
        self.peaks.append(np.maximum.reduceat(loud, np.arange(0, len(loud), step)))
        if len(self.peaks) >= _MOST_PEAKS:
            self.count_peaks()

    def count_peaks(self) -> None:
        """Move `peaks` to `loudness`."""
        peaks = np.concatenate([np.zeros(0, np.float32), *self.peaks])
        self.peaks.clear()
        self.peak = max(self.peak, float(peaks.max(initial=0.0)))
        below_db = -20 * np.log10(np.clip(peaks, 10 ** (_LOWEST_DB / 20), 1.0))
        self.loudness += np.bincount(np.rint(below_db).astype(int), minlength=len(self.loudness))

    @property
    def level_db(self) -> int:
        """The level that the loudest `_LOUDEST_S` reach; of less than that, its loudest part."""
        needed = min(round(_LOUDEST_S * 50), int(self.loudness.sum()))
        return -int(np.searchsorted(np.cumsum(self.loudness), needed))

    def ahead_s(self, at_s: float | None) -> float:
        """Return how far a timestamp lies behind the last sample, where it is to be followed."""
        if at_s is None:
            return 0.0
        ahead_s = at_s + self.shift_s - self.now_s
        if abs(ahead_s) <= _JITTER_S:
            return ahead_s
        most_s = min(max(_LEAP_S, _SILENCE * self.sound_s) - self.silence_s, _LEAP_S)
        if _JITTER_S < ahead_s <= most_s and self.now_s + ahead_s <= self.latest_s:
            self.silence_s += ahead_s
            return ahead_s
        self.shift_s -= ahead_s
        self.jumps += 1
        return 0.0


def _on_clock(
    path: AnyPath, source: Source, mixer: "_Mixer | _Separator", warn: Warn
) -> Iterator[Samples]:
    """Yield the blocks that a mixer makes, at 16 kHz, with silence where nothing was recorded."""
    clock, resampler = _Clock(), _Resampler(0, mixer.shape)
    if source.duration_s is not None:
        clock.latest_s = source.duration_s + _LATE_S
    notes_given = 0
    for block in source.blocks:
        for note in source.notes[notes_given:]:
            warn(note)
        notes_given = len(source.notes)
        ahead_s = clock.ahead_s(block.at_s)
        if not clock.rate_hz and ahead_s < 0:  # samples an encoder put first
            early = min(round(-ahead_s * block.rate_hz), len(block.samples))
            block = Block(block.samples[early:], block.rate_hz, None)
            ahead_s = 0.0
            if not len(block.samples):
                clock.shift_s = 0.0
                continue
        if block.rate_hz != clock.rate_hz or ahead_s > _JITTER_S:
            tail = resampler.end()
            clock.done += len(tail)
            yield tail
            if ahead_s > (0 if not clock.rate_hz else _JITTER_S):
                lasts = to_samples(clock.now_s + ahead_s) - clock.done
                for silence in _silence(lasts, mixer.shape):
                    clock.done += len(silence)
                    yield silence
            clock.start, clock.rate_hz, clock.frames = clock.done, block.rate_hz, 0
            resampler = _Resampler(block.rate_hz, mixer.shape)
        mono = mixer.mix(block.samples, clock.now_s, block.rate_hz)
        clock.frames += len(mono)
        clock.listen(mono, block.rate_hz)
        resampled = resampler.feed(mono)
        clock.done += len(resampled)
        yield resampled
    yield resampler.end()
    for note in (*source.notes[notes_given:], *mixer.notes()):
        warn(note)
    clock.count_peaks()
    if clock.peak > 0 and clock.level_db < _QUIET_DB:
        warn(
            f"it is quiet: its loudest {_LOUDEST_S} s lie at {clock.level_db} dB; words may come out otherwise than at "
            "a usual level"
        )
    if clock.peak > _FAR_TOO_LOUD:
        warn(
            f"its samples reach {clock.peak:,.0f} times full scale: floating-point samples go from -1 to 1; it was "
            "read as it stands, and words may come out otherwise"
        )
    if clock.jumps:
        times = "once" if clock.jumps == 1 else f"{clock.jumps} times"
        warn(f"its timestamps jump {times}; the sound was read on without a gap there")


def _silence(samples: int, shape: tuple[int, ...]) -> Iterator[Samples]:
    while samples > 0:
        yield np.zeros((min(samples, _FILL_SAMPLES), *shape), np.float32)
        samples -= _FILL_SAMPLES


class _Resampler:
    """Samples at one rate to 16 kHz; at 16 kHz they stay as they are."""

    def __init__(self, rate_hz: int, shape: tuple[int, ...]) -> None:
        self._soxr = None
        self._nothing = np.zeros((0, *shape), np.float32)
        if rate_hz not in (0, SAMPLE_RATE_HZ):
            channels = shape[0] if shape else 1
            self._soxr = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, channels, dtype="float32")

    def feed(self, samples: Samples) -> Samples:
        return samples if self._soxr is None else self._soxr.resample_chunk(samples)

    def end(self) -> Samples:
        if self._soxr is None:
            return self._nothing
        rest: Samples = self._soxr.resample_chunk(self._nothing, last=True)
        return rest


@dataclass(slots=True)
class _Mixer:
    """One channel of several, or their mean; notices where the mean cancels them.

    Two channels of which one is upside down (a miswired cable) are loud, and their mean is silent.
    """

    path: AnyPath
    channel: int | None
    _loud_s: float = 0.0
    _cancelled_s: float = 0.0
    shape: ClassVar[tuple[int, ...]] = ()
    """Shape of one sample in time."""

    def mix(self, block: Samples, at_s: float, rate_hz: int) -> Samples:
        """Return `[frames]` of `[frames, channels]`, all finite.

        Raises:
            AudioError: a sample is not finite, or the channel is not there (any more).
        """
        index = _check_channel(self.path, self.channel, block.shape[1])
        mono = block.mean(axis=1) if index is None else np.ascontiguousarray(block[:, index])
        _check_finite(self.path, mono, at_s, rate_hz)
        if index is None and block.shape[1] > 1 and len(mono):
            each = float(np.mean(block**2))
            if each > _LOUD:
                seconds = len(mono) / rate_hz
                self._loud_s += seconds
                self._cancelled_s += seconds * (
                    float(np.mean(mono**2)) < _CANCELLED / block.shape[1] * each
                )
        return mono

    def notes(self) -> list[str]:
        if self._cancelled_s < min(2.0, max(0.2, 0.2 * self._loud_s)):
            return []
        return [
            f"its channels cancel each other in {self._cancelled_s:.1f} s: one is the other upside down, "
            "and their mean is silent; --channel 0 listens to one of them"
        ]


@dataclass(slots=True)
class _Separator:
    """Keeps all channels that a recording has at its beginning apart."""

    path: AnyPath
    channels: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels,)

    def mix(self, block: Samples, at_s: float, rate_hz: int) -> Samples:
        """Return `[frames, channels]`, all finite; raises as `_Mixer.mix`."""
        _check_channel(self.path, self.channels - 1, block.shape[1])
        kept = np.ascontiguousarray(block[:, : self.channels])
        for channel in kept.T:
            _check_finite(self.path, channel, at_s, rate_hz)
        return kept

    def notes(self) -> list[str]:
        return []


def _check_finite(path: AnyPath, mono: Samples, at_s: float, rate_hz: int) -> None:
    finite = np.isfinite(mono)
    if not finite.all():
        at = int(np.argmin(finite))
        raise AudioError(
            f"{quoted(path)}: got the sample {mono[at]} at {at_s + at / rate_hz:.6f} s, "
            "expected finite numbers; export the recording again, as 16-bit if the program offers it"
        )


_LOUD = 1e-6  # mean square: -60 dB
_CANCELLED = 0.02  # least share of a channel's power in the mean of two that are unlike


def _check_channel(path: AnyPath, channel: int | None, channels: int) -> int | None:
    if channel is None:
        return None
    expected = f"{quoted(path)}: got channel {channel!r}, expected"
    try:
        index = operator.index(channel)
    except TypeError as error:
        raise AudioError(f"{expected} a whole number in 0..{channels - 1}") from error
    if isinstance(channel, bool) or not 0 <= index < channels:
        raise AudioError(f"{expected} one of 0..{channels - 1}; leave it out to mix all channels")
    return index


def _reblocked(parts: Iterator[Samples], size: int) -> Iterator[Samples]:
    """Join pieces of any length and cut them into blocks of `size` samples; the last is shorter."""
    held: list[Samples] = []
    missing = size
    for part in parts:
        rest = part
        while len(rest) >= missing:
            yield np.concatenate([*held, rest[:missing]])
            rest, held, missing = rest[missing:], [], size
        if len(rest):
            held.append(rest)
            missing -= len(rest)
    if held:
        yield np.concatenate(held)
