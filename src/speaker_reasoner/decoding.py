"""Open a recording and decode it at its own rate, each block with the time at which it is heard.

libsndfile reads what it reads exactly: wav, aiff, flac and the like. All else goes to FFmpeg through PyAV,
whose frames carry presentation times: a track that starts late, packets that were never sent, edit lists,
and samples that an encoder put first are in them. Of several sound tracks one is read, and told. Joined
recordings are read one after the other.

What is noticed and does no harm goes to `Source.notes`; what would make a shorter recording of a longer one
is an `AudioError`. Channels, 16 kHz and the time line are made of it in `audio`.
"""

import io
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import numpy.typing as npt
import soundfile
from av.codec.context import Flags2

from .containers import (
    AGAIN,
    IffSound,
    check_iff,
    check_mpeg,
    check_ogg,
    check_packed,
    check_size,
    cut_off,
    empty_chunks,
    is_cut_off,
    is_mpeg,
    parts,
    quoted,
    stated_s,
)
from .errors import AudioError
from .trailing import end_of_elements, frame_of_flac_follows, trailing_note

_Path = str | os.PathLike[str]
_READ_FRAMES = 4_096  # per read of libsndfile; a decoding error loses the frames of its read
_UNKNOWN_FRAMES = 1 << 62  # libsndfile answers 2**63 - 1 for a FLAC stream without length
_SLACK_S = 0.5  # durations of containers count codec delay and padding
_LOST_S = 0.25  # of packets that cannot be decoded, in all: more is damage
_LATE_START_S = 60.0  # a live stream that begins later counts from some other clock
_RATES_HZ = range(1_000, 1_000_001)  # outside: a damaged header, and resampling would explode

# Demuxers FFmpeg may use. Playlists (hls, concat, dash) stay out: they open files and addresses.
_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,ogg,rm,tak,truehd,tta,w64,wav,wv"
)
_UNBOUNDED = ("aac", "mpegts")  # their packets follow each other, and nothing says where they end
_MOST_STRAYS = 100_000
_EXACT = ("WAV", "WAVEX", "RF64", "AIFF")
_RAW = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


@dataclass(frozen=True, slots=True)
class Block:
    """Samples as they are decoded.

    Attributes:
        samples: float32 `[frames, channels]`.
        rate_hz: of these samples.
        at_s: when the first is heard, in seconds of the recording; `None` right behind those before.
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
        notes: what a user should know, one sentence each; grows while `blocks` are read.
    """

    sample_rate_hz: int
    channels: int
    format: str
    duration_s: float | None
    blocks: Iterator[Block]
    exact: soundfile.SoundFile | None = None
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_source(path: _Path, track: int | None = None) -> Iterator[Source]:
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


_known_parts: dict[tuple[int, ...], list[tuple[int, int]]] = {}
_MOST_KNOWN = 4096


def _parts(handle: BinaryIO, data: mmap.mmap) -> list[tuple[int, int]]:
    """`parts` of a file, kept: to tell them, a flac file is looked through, and slices open it often."""
    stat = os.fstat(handle.fileno())
    key = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
    if key not in _known_parts:
        if len(_known_parts) >= _MOST_KNOWN:
            _known_parts.clear()
        _known_parts[key] = parts(data)
    return _known_parts[key]


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


def _open_part(
    path: _Path,
    handle: BinaryIO,
    data: mmap.mmap,
    piece: tuple[int, int],
    track: int | None,
    stack: ExitStack,
) -> Source:
    whole = piece == (0, len(data))
    source = _with_soundfile(path, handle, data, piece, stack)
    if source is not None and track:
        raise AudioError(
            f"{quoted(path)}: got track {track}, expected 0: the file has one sound track"
        )
    return source or _with_av(
        path, handle if whole else _Window(handle, *piece), data, piece, track, stack
    )


def _joined(
    first: Source,
    blocks: Iterator[Block],
    path: _Path,
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


class _Window(io.RawIOBase):
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


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that is only read forward.

    A seekable one seeks after every read. On a FLAC stream without length that loses the last block.
    """

    def seekable(self) -> bool:
        return False


def _with_soundfile(
    path: _Path, handle: BinaryIO, data: mmap.mmap, piece: tuple[int, int], stack: ExitStack
) -> Source | None:
    """Open with libsndfile; `None` where it does not know the file or would not read all of it."""
    if data[:4] == b"OggS" or is_mpeg(data):
        return None
    whole = piece == (0, len(data))

    def opened() -> soundfile.SoundFile:
        # By its descriptor: the name need not be UTF-8, and no suffix decides.
        handle.seek(0)
        window = os.dup(handle.fileno()) if whole else io.BufferedReader(_Window(handle, *piece))
        return stack.enter_context(_Forward(window))

    try:
        file = opened()
    except soundfile.LibsndfileError:
        return None
    notes: list[str] = []
    if file.subtype == "MPEG_LAYER_III" or file.format in ("OGG", "MP3"):
        return None
    if file.format in _EXACT:
        sound = check_iff(path, data, file, *piece)
        if sound is None:
            return None
        notes += [sound.note] if sound.note else []
        if not sound.stated:
            file = stack.enter_context(_raw(path, handle, data, file, sound))
    frames = file.frames if file.frames < _UNKNOWN_FRAMES else None
    rate_hz = file.samplerate

    # So that the last read asks for more than is left, where it meets what stands behind the sound.
    step = _READ_FRAMES if frames is None or frames % _READ_FRAMES else _READ_FRAMES - 1

    def blocks() -> Iterator[Block]:
        done = 0
        try:
            while len(read := file.read(step, dtype="float32", always_2d=True)):
                done += len(read)
                yield Block(read, rate_hz)
        except soundfile.LibsndfileError as error:
            last = _last_of_flac(opened(), done)
            is_all = frames is not None and len(last) > 0
            if frames is None and file.format == "FLAC":
                is_all = not frame_of_flac_follows(data, *piece, done + len(last))
            if not is_all:
                raise AudioError(_damaged(path, done / rate_hz, duration_s, error)) from error
            done += len(last)
            notes.append("bytes behind its sound are no sound: they were not read")
            if len(last):
                yield Block(last, rate_hz)
        if frames is not None and done < frames:
            raise AudioError(cut_off(path, done / rate_hz, f"{frames / rate_hz:.3f} s"))

    duration_s = None if frames is None else frames / rate_hz
    kind = "wav" if file.format == "RAW" and data[:4] != b"FORM" else file.format.lower()
    return Source(
        rate_hz,
        file.channels,
        "aiff" if kind == "raw" else kind,
        duration_s,
        blocks(),
        exact=file
        if file.format in (*_EXACT, "RAW", "FLAC") and frames is not None and whole
        else None,
        notes=notes,
    )


def _last_of_flac(file: soundfile.SoundFile, done: int) -> npt.NDArray[np.float32]:
    """The frames behind the first `done`, up to the length that a flac file states, or to where reading fails.

    libsndfile fails on bytes behind them, and loses the frames of the read in which it meets them. Empty where
    the stated length is not reached.
    """
    nothing = np.zeros((0, file.channels), np.float32)
    stated = file.frames < _UNKNOWN_FRAMES
    if file.format != "FLAC" or (stated and not 0 < file.frames - done <= _READ_FRAMES):
        return nothing
    read = [nothing]
    try:
        for start in range(0, done, _READ_FRAMES):
            file.read(min(_READ_FRAMES, done - start), dtype="float32", always_2d=True)
        for _ in range(1 if stated else _READ_FRAMES):
            step = file.frames - done if stated else 1
            read.append(file.read(step, dtype="float32", always_2d=True))
    except soundfile.LibsndfileError:
        pass
    last = np.concatenate(read)
    return last if not stated or len(last) == file.frames - done else nothing


def _raw(
    path: _Path, handle: BinaryIO, data: mmap.mmap, file: soundfile.SoundFile, sound: IffSound
) -> soundfile.SoundFile:
    """The sound of a wav or aiff file as it lies there, whatever the header says of its length."""
    big = data[:4] in (b"FORM", b"RIFX")
    if file.subtype not in _RAW or data[8:12] == b"AIFC":
        raise AudioError(
            f"{quoted(path)}: the header states less sound than there is, coded as {file.subtype}, which "
            f"cannot be read without its length; expected a whole file; {AGAIN}"
        )
    subtype = "PCM_S8" if big and file.subtype == "PCM_S8" else file.subtype
    width = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}.get(subtype, 1)
    step = width * file.channels
    end = sound.end - (sound.end - sound.start) % step
    return _Forward(
        io.BufferedReader(_Window(handle, sound.start, end)),
        samplerate=file.samplerate,
        channels=file.channels,
        format="RAW",
        subtype=subtype,
        endian="BIG" if big else "LITTLE",
    )


def _damaged(path: _Path, got_s: float, expected_s: float | None, error: Exception) -> str:
    promised = "" if expected_s is None else f", expected {expected_s:.3f} s"
    return f"{quoted(path)}: damaged or cut off: got {got_s:.3f} s{promised} ({_reason(error)}); {AGAIN}"


def _with_av(
    path: _Path,
    handle: Any,
    data: mmap.mmap,
    piece: tuple[int, int],
    track: int | None,
    stack: ExitStack,
) -> Source:
    name = quoted(path)
    chained, behind = False, end_of_elements(data, *piece)
    if data[piece[0] : piece[0] + 4] == b"OggS":
        chained, behind = check_ogg(path, data)
    # From version 19 on, metadata that is not UTF-8 is no error any more.
    lenient = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
    handle.seek(0)
    try:
        container = stack.enter_context(
            av.open(handle, container_options={"format_whitelist": _DEMUXERS}, **lenient)
        )
    except (av.error.FFmpegError, OSError) as error:
        raise AudioError(
            f"{name}: neither libsndfile nor FFmpeg can open it ({_reason(error)}), expected a "
            f"whole audio or video file; {AGAIN}"
        ) from error
    tracks = container.streams.audio
    if not tracks:
        raise AudioError(f"{name}: got a file without audio track, expected one; {AGAIN}")
    number, notes = _choose(path, tracks, track)
    stream = tracks[number]
    if stream.codec_context is None:
        raise AudioError(f"{name}: got a codec FFmpeg cannot decode, expected another; {AGAIN}")
    context = stream.codec_context
    kind = container.format.name
    if kind == "caf" and context.name == "alac":
        context.flags2 |= Flags2.skip_manual  # its last frame is short; FFmpeg shortens it again
    if kind == "wav" and data[piece[0] : piece[0] + 4] in (b"RIFF", b"RIFX"):
        notes += filter(None, [check_packed(path, data, *piece)])
    stated = stated_s(container, stream)
    origin_s = _origin_s(container, stated, notes)
    if (
        stated is not None
        and (head := data.find(b"OpusHead", piece[0], piece[0] + 4096)) >= 0
        and kind == "ogg"
    ):
        stated -= int.from_bytes(data[head + 10 : head + 12], "little") / 48_000  # not played
    duration_s = None if stated is None or chained else max(stated - origin_s, 0.0)
    cut = is_cut_off(data, *piece)
    if kind == "mp3":
        there, behind = check_mpeg(path, data)
        behind = behind or piece[1]
        rates_differ = len(data) - piece[0] > 0 and there == 0
        duration_s = None if rates_differ else duration_s
    notes += filter(None, [trailing_note(data, behind, piece[1])])
    source = Source(
        context.sample_rate,
        context.layout.nb_channels,
        kind.split(",")[0],
        duration_s,
        iter(()),
        notes=notes,
    )
    promised = duration_s, _SLACK_S
    if kind == "caf" or (kind == "wav" and data.find(b"fact", piece[0], piece[0] + 4096) > 0):
        promised = float((stream.duration or 0) * stream.time_base), _LOST_S
    late = empty_chunks(data, *piece, stream.index) if kind == "avi" else []
    source.blocks = _frames(path, container, stream, origin_s, promised, cut, late, notes)
    return source


def _choose(path: _Path, tracks: Sequence[Any], track: int | None) -> tuple[int, list[str]]:
    """The number of the track that is read, and what to say of the others."""
    if track is not None and track not in range(len(tracks)):
        raise AudioError(
            f"{quoted(path)}: got track {track}, expected one of 0..{len(tracks) - 1}; leave it out to "
            "read the default one"
        )
    default = av.stream.Disposition.default
    marked = [n for n, one in enumerate(tracks) if one.disposition & default]
    number = track if track is not None else (marked or [0])[0]
    if len(tracks) == 1 or track is not None:
        return number, []
    why = "the default" if marked else "the first"
    return number, [
        f"{len(tracks)} sound tracks: track {number}{_language(tracks[number])}, {why}, was read; "
        f"--track takes another (0..{len(tracks) - 1})"
    ]


def _language(track: Any) -> str:
    known = [track.metadata.get(key) for key in ("language", "title", "handler_name")]
    shown = [one for one in known if one and one not in ("und", "SoundHandler")]
    return f" ({', '.join(shown)})" if shown else ""


def _origin_s(container: Any, stated: float | None, notes: list[str]) -> float:
    """Where on the container's clock the recording begins, in seconds.

    Matroska and mp4 count from 0, wherever their sound begins; elsewhere (mpegts, ogg, mp3) the first
    track begins the recording.
    """
    start_s = (container.start_time or 0) / 1e6
    if container.format.name.startswith(("matroska", "mov")):
        if start_s <= _LATE_START_S or (stated is not None and stated > start_s):
            return 0.0
        notes.append(f"its clock begins at {start_s:.3f} s, from which times count")
    return start_s


def _frames(
    path: _Path,
    container: Any,
    stream: Any,
    origin_s: float,
    promised: tuple[float | None, float],
    cut: bool,
    late: Sequence[int],
    notes: list[str],
) -> Iterator[Block]:
    """Decode a track packet by packet; what cannot be decoded is missing from the time line.

    `promised` is when the track is stated to end, and how much earlier it may, in seconds; `late` counts the
    empty packets before each, which have no place in FFmpeg's timestamps.
    """
    duration_s, slack_s = promised
    planar = av.AudioResampler(format="fltp")
    layout = None
    end_s, lost, lost_s = 0.0, 0, 0.0
    expected = "the whole file" if duration_s is None else f"{duration_s:.3f} s"
    failure: Exception | None = None
    strays, stray = 0, None  # why something between packets, or behind them, is none
    packets = container.demux(stream)
    full, late_s = (
        0,
        0.0,
    )  # packets with sound, and how much later than by its timestamp this one is heard
    while True:
        try:
            packet = next(packets, None)
        except (
            av.error.FFmpegError,
            OSError,
            IndexError,
        ) as error:  # IndexError: a track appears midway
            strays += 1
            if container.format.name not in _UNBOUNDED or not end_s or strays > _MOST_STRAYS:
                raise AudioError(_damaged(path, end_s, duration_s, error)) from error
            stray, packets = error, container.demux(stream)  # goes on behind it
            continue
        if packet is None:
            break
        if packet.size and full < len(late) and packet.duration == 1:  # in AVI, of one chunk
            late_s, full = float(late[full] * packet.time_base), full + 1
        try:
            decoded = packet.decode()
        except (av.error.FFmpegError, OSError) as error:
            failure = error
            lost += 1
            lost_s += float(packet.duration * packet.time_base) if packet.duration else 0.0
            if lost_s > _LOST_S or lost > 50:
                raise AudioError(_damaged(path, end_s, duration_s, error)) from error
            continue
        for frame in decoded:
            if stray is not None:
                raise AudioError(_damaged(path, end_s, duration_s, stray)) from stray
            if (frame.sample_rate, frame.layout.name) != layout:
                layout = (frame.sample_rate, frame.layout.name)
                planar = av.AudioResampler(format="fltp")
            at_s = (
                None
                if frame.pts is None
                else float(frame.pts * frame.time_base) - origin_s + late_s
            )
            try:
                resampled = planar.resample(frame)
            except av.error.FFmpegError as error:  # a layout or rate that cannot be
                raise AudioError(_damaged(path, end_s, duration_s, error)) from error
            for one in resampled:
                samples = one.to_ndarray().T
                if at_s is not None:
                    end_s = max(end_s, at_s)
                end_s += len(samples) / frame.sample_rate
                yield Block(samples, frame.sample_rate, at_s)
                at_s = None
    if not end_s and failure is not None:
        raise AudioError(_damaged(path, end_s, duration_s, failure))
    if cut:
        raise AudioError(cut_off(path, end_s, expected))
    if stray is not None:
        notes.append("bytes behind its sound are no sound: they were not read")
    if duration_s is not None and end_s < duration_s - slack_s:
        notes.append(
            f"its sound ends at {end_s:.3f} s; the track is stated to last {duration_s:.3f} s"
        )
    if lost_s > 0.05:
        notes.append(
            f"{lost} packets ({lost_s:.2f} s) could not be decoded: they were read as silence"
        )


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())
