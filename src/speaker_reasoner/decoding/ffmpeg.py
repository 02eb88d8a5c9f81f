"""Decode with FFmpeg, through PyAV: every format that libsndfile does not read, or not whole.

Its frames carry presentation times: a track that starts late, packets that were never sent, edit lists, and samples
that an encoder put first are in them. Of several sound tracks one is read, and `Source.notes` says which.
"""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import av
from av.codec.context import Flags2

from ..errors import AudioError, quoted
from .blocks import AnyPath, Block, Source, damaged, reason
from .containers import check_mpeg, check_ogg, empty_chunks, is_cut_off, stated_s
from .riff import AGAIN, FORMS, check_packed, cut_off
from .trailing import end_of_elements, trailing_note

_SLACK_S = 0.5  # durations of containers count codec delay and padding
_LOST_S = 0.25  # of packets that cannot be decoded, in all: more is damage
_LATE_START_S = 60.0  # a live stream that begins later counts from some other clock

# Demuxers FFmpeg may use. Playlists (hls, concat, dash) stay out: they open files and addresses.
_DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,"
    "mpegts,ogg,rm,tak,truehd,tta,w64,wav,wv"
)
_UNBOUNDED = ("aac", "mpegts")  # their packets follow each other, and nothing says where they end
_MOST_STRAYS = 100_000
_MOST_PLANES = 7  # of channels apart; more are read together, because PyAV 18.1 is not safe there


def open_with_ffmpeg(
    path: AnyPath,
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
            f"{name}: neither libsndfile nor FFmpeg can open it ({reason(error)}), expected a "
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
    if kind == "wav" and data[piece[0] : piece[0] + 4] in FORMS:
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


def _choose(path: AnyPath, tracks: Sequence[Any], track: int | None) -> tuple[int, list[str]]:
    """Return the number of the track to read, and notes on the others."""
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
    """Return the time on the container's clock at which the recording begins, in seconds.

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
    path: AnyPath,
    container: Any,
    stream: Any,
    origin_s: float,
    promised: tuple[float | None, float],
    cut: bool,
    late: Sequence[int],
    notes: list[str],
) -> Iterator[Block]:
    """Decode a track packet by packet; packets that cannot be decoded are missing from the time line.

    `promised` is when the track is stated to end, and how much earlier it may, in seconds; `late` counts the
    empty packets before each, which have no place in FFmpeg's timestamps.
    """
    duration_s, slack_s = promised
    resampler, layout, planar = av.AudioResampler(format="fltp"), None, True
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
                raise AudioError(damaged(path, end_s, duration_s, error)) from error
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
                raise AudioError(damaged(path, end_s, duration_s, error)) from error
            continue
        for frame in decoded:
            if stray is not None:
                raise AudioError(damaged(path, end_s, duration_s, stray)) from stray
            if (frame.sample_rate, frame.layout.name) != layout:
                layout = (frame.sample_rate, frame.layout.name)
                planar = frame.layout.nb_channels <= _MOST_PLANES
                resampler = av.AudioResampler(format="fltp" if planar else "flt")
            at_s = (
                None
                if frame.pts is None
                else float(frame.pts * frame.time_base) - origin_s + late_s
            )
            try:
                resampled = resampler.resample(frame)
            except av.error.FFmpegError as error:  # a layout or rate that cannot be
                raise AudioError(damaged(path, end_s, duration_s, error)) from error
            for one in resampled:
                array = one.to_ndarray()
                samples = array.T if planar else array.reshape(-1, frame.layout.nb_channels)
                if at_s is not None:
                    end_s = max(end_s, at_s)
                end_s += len(samples) / frame.sample_rate
                yield Block(samples, frame.sample_rate, at_s)
                at_s = None
    if not end_s and failure is not None:
        raise AudioError(damaged(path, end_s, duration_s, failure))
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
