"""Decode a recording to 16 kHz mono float32, whole or in blocks, and cut it by the sample.

libsndfile reads wav, flac, mp3, ogg and opus. What it does not know by content (m4a, mp4, webm,
mkv, aac, ...), or would not read to the end, goes to FFmpeg through PyAV (extra `media`).

A damaged or shortened file is an `AudioError`, not a shorter recording, as far as the file tells:
wav, aiff and flac state their length; mp3 does so in its Xing header; ogg tells when cut inside a
page; mp4 and matroska when more than `_CONTAINER_SLACK_S` is missing. An mp3 without Xing header,
aac, avi, caf, w64 and au that were cut short read as shorter recordings.

Not here: gain, voice activity, other sample rates, capture. Of several audio tracks the first is
read; gaps between a container's timestamps are not filled.
"""

import math
import mmap
import operator
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .containers import AGAIN, check_iff, check_mpeg, check_ogg, cut_off, quoted, stated_s
from .errors import AudioError

SAMPLE_RATE_HZ = 16_000

Samples = npt.NDArray[np.float32]

_RATES_HZ = range(1_000, 1_000_001)  # outside: a damaged header, and resampling would explode
_READ_FRAMES = 4_096  # per read of libsndfile; a decoding error loses the frames of its read
_UNKNOWN_FRAMES = 1 << 62  # libsndfile answers 2**63 - 1 for a FLAC stream without length
_CONTAINER_SLACK_S = 0.5  # mp4 and matroska durations count codec delay and padding
_MPEG_SLACK_FRAMES = 4  # encoder delay and padding that a LAME header lets the decoder trim

# Demuxers FFmpeg may use. Playlists (hls, concat, dash) stay out: they open files and addresses.
_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,ogg,rm,tak,truehd,tta,w64,wav,wv"
)

_Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a recording is before it is resampled.

    Attributes:
        duration_s: length in seconds; of mp4 and matroska as the header states it, which may differ
            from the decoded length by codec padding.
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


def probe(path: _Path) -> AudioInfo:
    """Describe a recording from its header; decode it only where the header states no length.

    Raises:
        AudioError: as `load` does, for what can be seen without decoding.
    """
    with _open(path) as source:
        frames = source.frames
        if frames is None:
            frames = sum(len(block) for block in _mono(path, source, None))
        if frames == 0:
            raise AudioError(_no_samples(path))
        rate = source.sample_rate_hz
        return AudioInfo(frames / rate, rate, source.channels, source.format)


def channel_count(path: _Path) -> int:
    """How many channels a recording has; nothing is decoded.

    Raises:
        AudioError: it cannot be opened.
    """
    with _open(path) as source:
        return source.channels


def load(path: _Path, *, channel: int | None = None) -> Samples:
    """Read a whole recording.

    Args:
        path: an audio file, or a video file with an audio track.
        channel: 0-based channel to take; by default the mean of all channels.

    Returns:
        float32 samples `[samples]` at 16 kHz, nominally in -1..1.

    Raises:
        AudioError: the file cannot be read or decoded, is cut off, holds no samples, or NaN or
            infinite ones; the channel does not exist.
    """
    return np.concatenate(list(stream(path, channel=channel)))


def stream(path: _Path, *, channel: int | None = None, block_s: float = 30.0) -> Iterator[Samples]:
    """Read a recording in blocks; memory does not grow with its length.

    The blocks joined are exactly what `load` returns. All but the last have `to_samples(block_s)`
    samples.

    Args:
        path: as for `load`.
        channel: as for `load`.
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
    with _open(path) as source:
        for block in _reblocked(_resampled(_mono(path, source, channel), source), size):
            empty = False
            yield block
    if empty:
        raise AudioError(_no_samples(path))


def load_slice(path: _Path, start: int, end: int, *, channel: int | None = None) -> Samples:
    """Read the samples `[start, end)` of what `load` returns.

    A wav or flac file at 16 kHz is read from there; whatever else, from its beginning to `end`. What
    lies outside the slice is not checked.

    Args:
        path: as for `load`.
        start: first sample at 16 kHz.
        end: sample after the last, behind `start`.
        channel: as for `load`.

    Raises:
        AudioError: as `load`, for the slice; the recording ends before it does.
    """
    if not 0 <= start < end:
        raise AudioError(f"{quoted(path)}: slice [{start}, {end}): expected 0 <= start < end")
    held = _seek(path, start, end, channel)
    if held is None:
        blocks, done = [], 0
        for block in stream(path, channel=channel):
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


def _seek(path: _Path, start: int, end: int, channel: int | None) -> Samples | None:
    """The slice of a file at 16 kHz in which libsndfile finds any sample; `None` for others."""
    check_readable(path)
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            seekable = file.format in ("WAV", "WAVEX", "RF64", "FLAC") and file.seekable()
            if not seekable or file.samplerate != SAMPLE_RATE_HZ or file.frames >= _UNKNOWN_FRAMES:
                return None
            if channel is not None and channel not in range(file.channels):
                return None
            file.seek(min(start, file.frames))
            read = file.read(end - start, dtype="float32", always_2d=True)
            held: Samples = read.mean(axis=1) if channel is None else read[:, channel]
    except (soundfile.LibsndfileError, TypeError, UnicodeError):
        return None  # `stream` finds out, and says, what is wrong
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
    """How loud samples are on the whole, in dB relative to full scale; -120 for silence."""
    return 10 * float(np.log10(np.mean(samples**2) + 1e-12))


@dataclass(frozen=True, slots=True)
class _OpenRecording:
    """An open recording at its own rate.

    Attributes:
        sample_rate_hz: of the file.
        channels: of the file.
        format: container.
        frames: samples per channel that the file promises; `None` where it does not say.
        slack_frames: how many of them may be missing without harm.
        blocks: float32 `[frames, channels]`, in order.
        errors: what the decoder raises while `blocks` are read.
    """

    sample_rate_hz: int
    channels: int
    format: str
    frames: int | None
    slack_frames: int
    blocks: Iterator[Samples]
    errors: tuple[type[Exception], ...]


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that is only read forward.

    A seekable one seeks after every read. On mp3 that makes libmpg123 print errors about its bit
    reservoir to stderr, and on a FLAC stream without length it loses the last block.
    """

    def seekable(self) -> bool:
        return False


def _no_samples(path: _Path) -> str:
    return f"{quoted(path)}: got no samples, expected at least one at 16 kHz; record it again"


@contextmanager
def _open(path: _Path) -> Iterator[_OpenRecording]:
    check_readable(path)
    with ExitStack() as stack:
        source = _with_soundfile(path, stack) or _with_av(path, stack)
        if source.sample_rate_hz not in _RATES_HZ or source.channels < 1:
            raise AudioError(
                f"{quoted(path)}: got {source.sample_rate_hz} Hz, {source.channels} channels, "
                f"expected {_RATES_HZ[0]}..{_RATES_HZ[-1]} Hz and a channel; {AGAIN}"
            )
        yield source


def check_readable(path: _Path) -> None:
    """Make sure that there is a file and that it may be read, without looking at what it holds.

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
            f"{name}: cannot be read ({_reason(error)}), expected a readable audio file; "
            "check path and permissions"
        ) from error


def _with_soundfile(path: _Path, stack: ExitStack) -> _OpenRecording | None:
    """Open with libsndfile; `None` where it does not know the file or would not read all of it."""
    try:
        file = stack.enter_context(_Forward(os.fspath(path)))
    except (soundfile.LibsndfileError, TypeError, UnicodeError):
        return None  # TypeError: the suffix .raw; UnicodeError: a name that is not UTF-8
    frames, slack = file.frames, 0
    with (
        Path(path).open("rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        if file.format in ("WAV", "WAVEX", "RF64", "AIFF"):
            whole = check_iff(path, data, file)
        elif file.format == "OGG":
            whole = check_ogg(path, data)
        elif file.subtype == "MPEG_LAYER_III":
            there, in_one = check_mpeg(path, data)
            slack = _MPEG_SLACK_FRAMES * in_one
            whole = there <= frames + slack
            frames = min(frames, there or frames)  # libsndfile guesses without a Xing header
        else:
            whole = True
    if not whole:
        return None

    def blocks() -> Iterator[Samples]:
        while len(read := file.read(_READ_FRAMES, dtype="float32", always_2d=True)):
            yield read

    return _OpenRecording(
        sample_rate_hz=file.samplerate,
        channels=file.channels,
        format=file.format.lower(),
        frames=frames if frames < _UNKNOWN_FRAMES else None,
        slack_frames=slack,
        blocks=blocks(),
        errors=(soundfile.LibsndfileError,),
    )


def _with_av(path: _Path, stack: ExitStack) -> _OpenRecording:
    name = quoted(path)
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"{name}: got a file that libsndfile does not read in full, expected wav, flac, mp3, "
            "ogg or opus; for m4a, mp4, webm, ...: pip install 'speaker-reasoner[media]'"
        ) from error
    handle = stack.enter_context(Path(path).open("rb"))  # noqa: SIM115
    # From version 19 on, metadata that is not UTF-8 is no error any more.
    lenient = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
    try:
        container = stack.enter_context(
            av.open(handle, container_options={"format_whitelist": _DEMUXERS}, **lenient)
        )
    except (av.error.FFmpegError, OSError) as error:
        raise AudioError(
            f"{name}: neither libsndfile nor FFmpeg can open it ({_reason(error)}), expected a "
            f"whole audio or video file; {AGAIN}"
        ) from error
    if not container.streams.audio:
        raise AudioError(f"{name}: got a file without audio track, expected one; {AGAIN}")
    track = container.streams.audio[0]
    if track.codec_context is None:
        raise AudioError(f"{name}: got a codec FFmpeg cannot decode, expected another; {AGAIN}")
    rate, channels = track.codec_context.sample_rate, track.codec_context.layout.nb_channels
    promised_s = stated_s(container, track)

    def blocks() -> Iterator[Samples]:
        to_float = av.AudioResampler(format="fltp")
        for frame in container.decode(track):
            if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                raise AudioError(
                    f"{name}: got {frame.sample_rate} Hz, {frame.layout.nb_channels} channels "
                    f"midway, expected {rate} Hz, {channels} as at its start; convert it to wav"
                )
            for planar in to_float.resample(frame):
                yield planar.to_ndarray().T

    return _OpenRecording(
        sample_rate_hz=rate,
        channels=channels,
        format=container.format.name.split(",")[0],
        frames=None if promised_s is None else round(promised_s * rate),
        slack_frames=round(_CONTAINER_SLACK_S * rate),
        blocks=blocks(),
        errors=(av.error.FFmpegError, OSError, IndexError),  # IndexError: a track appears midway
    )


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _mono(path: _Path, source: _OpenRecording, channel: int | None) -> Iterator[Samples]:
    """Yield `[frames]` of one channel or of the mean, checked: finite, and as many as promised."""
    index = _check_channel(path, channel, source.channels)
    name, rate, done = quoted(path), source.sample_rate_hz, 0
    promised = "" if source.frames is None else f", expected {source.frames / rate:.3f} s"
    while True:
        try:
            block = next(source.blocks, None)
        except source.errors as error:
            raise AudioError(
                f"{name}: damaged or cut off: got {done / rate:.3f} s{promised} "
                f"({_reason(error)}); {AGAIN}"
            ) from error
        if block is None:
            break
        mono = block.mean(axis=1) if index is None else np.ascontiguousarray(block[:, index])
        finite = np.isfinite(mono)
        if not finite.all():
            at = int(np.argmin(finite))
            raise AudioError(
                f"{name}: got the sample {mono[at]} at {(done + at) / rate:.6f} s, expected finite "
                "numbers; export the recording again, as 16-bit if the program offers it"
            )
        done += len(mono)
        yield mono
    if source.frames is not None and done < source.frames - source.slack_frames:
        raise AudioError(cut_off(path, done / rate, f"{source.frames / rate:.3f} s"))


def _check_channel(path: _Path, channel: int | None, channels: int) -> int | None:
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


def _resampled(blocks: Iterator[Samples], source: _OpenRecording) -> Iterator[Samples]:
    if source.sample_rate_hz == SAMPLE_RATE_HZ:
        yield from blocks
        return
    resampler = soxr.ResampleStream(source.sample_rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


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
