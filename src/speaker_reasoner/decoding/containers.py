"""Structure of container files: joined recordings, missing ends, stated durations; nothing is decoded.

Decoders read of several recordings joined into one file the first, and a shortened file as a shorter recording.
`parts` finds where recordings begin in a file, `is_cut_off` whether the last element of a container lies outside
of the file; `check_ogg` and `check_mpeg` walk over pages and frames.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any

from ..errors import AudioError, quoted
from .riff import (
    AGAIN,
    AU,
    FORMS,
    KINDS,
    PADDING_BYTES,
    TO_THE_END,
    cut_off,
    end_of_chunks,
    more_sound,
)

_MPEG1_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # layer III
_MPEG2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_ASF = bytes.fromhex("3026b2758e66cf11a6d9")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # its properties
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"meta", b"mfra")
EBML = b"\x1a\x45\xdf\xa3"
"""First bytes of a matroska file."""
SEGMENT = b"\x18\x53\x80\x67"
"""Name of the element of a matroska file that holds the recording."""


def parts(data: mmap.mmap) -> list[tuple[int, int]]:
    """Return first byte and end of each recording in a file: one pair, unless files are joined.

    Joined files of wav, aiff, au, caf, w64, flac, tta, matroska, mp4, asf and flv are separated. Pages of ogg, frames
    of mp3 and aac, and packets of mpegts need no separation: decoders read on from one file to the next. Tags and
    padding behind a flac file, on which its decoder would fail, are left out.
    """
    starts = [0]
    head = data[:12]
    tag = tag_bytes(data)
    form = data[tag : tag + 12]
    if form[:4] in FORMS and form[8:12] in KINDS:
        order = ">" if form[:4] in (b"FORM", b"RIFX") else "<"
        at, starts = tag, []
        while data[at : at + 4] in FORMS and data[at + 8 : at + 12] in KINDS:
            starts.append(at)
            size = struct.unpack(order + "I", data[at + 4 : at + 8])[0]
            at += 8 + size + size % 2
    elif data[:4] == b"fLaC" or data[:3] == b"ID3":
        at = data.find(b"fLaC", 1)
        while data[:4] == b"fLaC" and at > 0:
            if data[at + 4 : at + 8] in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
                starts.append(at)
            at = data.find(b"fLaC", at + 4)
    elif head[:4] == EBML:
        at = _next_ebml(data, 0)
        while at > 0:
            starts.append(at)
            at = _next_ebml(data, at)
    elif head[4:8] == b"ftyp":
        seen: set[bytes] = set()
        for at, name, _ in boxes(data):
            if name == b"ftyp" and at and b"moov" in seen:
                starts.append(at)
                seen = set()
            seen.add(name)
    elif head[:4] in (*AU, b"caff", b"riff"):
        at = end_of_chunks(data, 0)
        while at and data[at : at + 4] == head[:4]:
            starts.append(at)
            at = end_of_chunks(data, at)
    elif head.startswith((_ASF, b"TTA1")):
        mark = data[:16] if head.startswith(_ASF) else data[:6]  # TTA: and its coding
        at = data.find(mark, 16)
        while at > 0:
            starts.append(at)
            at = data.find(mark, at + 16)
    elif head[:4] == b"FLV\x01":
        at = data.find(b"FLV\x01", 4)
        while at > 0:
            if data[at + 5 : at + 9] == b"\x00\x00\x00\x09":
                starts.append(at)
            at = data.find(b"FLV\x01", at + 4)
    stop = len(data) - (trailer_bytes(data) if head[:4] == b"fLaC" else 0)
    if head[:4] in TO_THE_END:
        end = end_of_chunks(data, starts[-1]) or stop
        stop = stop if more_sound(data, end, stop) else min(stop, end)
    return list(zip(starts, [*starts[1:], stop], strict=True))


def trailer_bytes(data: mmap.mmap) -> int:
    """Return how much tags for players (ID3v1, APE) and padding take at the end of a file."""
    end = len(data)
    while True:
        before = end
        if data[end - 128 : end - 125] == b"TAG":
            end -= 128
        if data[end - 32 : end - 24] == b"APETAGEX":
            size, _, flags = struct.unpack("<III", data[end - 20 : end - 8])
            end -= size + (32 if flags >> 31 else 0)
        padding = data[max(0, end - PADDING_BYTES) : end]
        left = len(padding.rstrip(b"\0"))
        end -= len(padding) - left if len(padding) - left >= 64 else 0
        if end == before or end <= 0:
            return len(data) - before


def _next_ebml(data: mmap.mmap, start: int) -> int:
    """Return the byte at which a matroska file behind the one at `start` begins; -1 if there is none."""
    segment = data.find(SEGMENT, start, start + 4096)
    size, length = ebml_size(data, segment + 4) if segment >= 0 else (None, 0)
    at = start + 4 if size is None else segment + 4 + length + size  # a live stream states no size
    while (at := data.find(EBML, at)) >= 0:
        head = data[at : at + 64]
        if b"webm" in head or b"matroska" in head:
            return at
        at += 4
    return -1


def boxes(data: mmap.mmap, at: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """Yield first byte, name and stated end of the outermost boxes of an mp4 file, from a byte on."""
    while at + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if size == 1 and at + 16 <= len(data):
            size = struct.unpack(">Q", data[at + 8 : at + 16])[0]
        elif size == 0:
            size = len(data) - at
        if size < 8:
            return
        yield at, name, at + size
        at += size


def tag_bytes(data: mmap.mmap) -> int:
    """Return the length of an ID3 tag that a file begins with; 0 without one."""
    if data[:3] != b"ID3" or len(data) <= 10:
        return 0
    size = data[6:10]
    return 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])


def is_mpeg(data: mmap.mmap) -> bool:
    """Return whether a file is mp3, perhaps behind an ID3 tag, by its first bytes."""
    at = tag_bytes(data)
    return _mpeg_frame(data[at : at + 4])[0] > 0


def is_cut_off(data: mmap.mmap, start: int, end: int) -> bool:
    """Return whether the last element of a container, as its header states it, lies outside of it.

    Known for matroska, mp4, avi, asf and flv; files of other formats count as whole.
    """
    head = data[start : start + 12]
    if head[:4] == EBML:
        at = data.find(SEGMENT, start, min(end, start + 4096))
        if at < 0:
            return False
        size, length = ebml_size(data, at + 4)
        return size is not None and at + 4 + length + size > end
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        inside = boxes(data, start)
        return any(stop > end and name in _BOXES for at, name, stop in inside if at < end)
    at = start
    while data[at : at + 4] == b"RIFF" and data[at + 8 : at + 12] in (b"AVI ", b"AVIX"):
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        if not 0 < size < 0xFFFF_0000 or at + 8 + size > end:
            return bool(0 < size < 0xFFFF_0000)
        at += 8 + size + size % 2  # a further part, or another file: FFmpeg reads both
    if head.startswith(_ASF):
        at = data.find(_ASF_FILE, start, min(end, start + 65_536))
        live = at < 0 or data[at + 88] & 1
        return not live and start + struct.unpack("<Q", data[at + 40 : at + 48])[0] > end
    if head[:4] == b"FLV\x01":
        at = start + 13
        while at + 11 <= end:
            if data[at] & 0x1F not in (8, 9, 15, 18):
                return False  # something else behind the last tag
            at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
        return at > end or 0 < end - at < 11
    return False


def empty_chunks(data: mmap.mmap, start: int, end: int, track: int) -> list[int]:
    """Return how many empty chunks of a track of an AVI file stand before each of its chunks with sound.

    Writers put empty ones where a track has no sound, each as long as a full one; FFmpeg passes over them.
    """
    name, empty, before = b"%02dwb" % track, 0, []
    at = start
    while at + 8 <= end:
        mark, size = struct.unpack("<4sI", data[at : at + 8])
        if mark in (b"RIFF", b"LIST"):
            at += 12
            continue
        if mark == name and size:
            before.append(empty)
        empty += mark == name and not size
        at += 8 + size + size % 2
    return before


def ebml_size(data: mmap.mmap, at: int) -> tuple[int | None, int]:
    """A size of EBML, and the bytes it takes; `None` where it is unknown (a live stream)."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    if length > 8:
        return None, 8
    raw = int.from_bytes(data[at : at + length], "big")
    value = raw & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), length


def check_ogg(path: str | os.PathLike[str], data: mmap.mmap) -> tuple[bool, int]:
    """Walk the pages; return whether a second stream follows, and the byte at which the pages end."""
    at, chained, ended, content = 0, False, False, False
    while len(data) - at >= 27 and data[at : at + 4] == b"OggS":
        first, last, segments = bool(data[at + 5] & 2), bool(data[at + 5] & 4), data[at + 26]
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
        chained = chained or (first and content)
        content, ended = content or not first, last
    if at > len(data) or (not ended and 0 < len(data) - at < 27):
        raise AudioError(
            f"{quoted(path)}: cut off: got an end inside an Ogg page, expected whole pages; {AGAIN}"
        )
    return chained, at if data.find(b"OggS", at) < 0 else len(data)


def check_mpeg(path: str | os.PathLike[str], data: mmap.mmap) -> tuple[int, int]:
    """Count the frames and compare with the Xing header, if there is one.

    libsndfile trusts that header, which describes only the first of joined files, and without it
    guesses the length from the first bit rate; either way it reads no further.

    Returns:
        samples per channel in all frames, and the byte at which the last of them ends; zeros if no frame is found.
    """
    at, frames, promised, head, behind = 0, 0, 0, (0, 0, 0), 0
    in_sync = False
    while 0 <= at < len(data) - 4:
        if data[at : at + 3] == b"ID3" and at + 10 <= len(data):
            size = data[at + 6 : at + 10]
            at += 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
            continue
        frame = _mpeg_frame(data[at : at + 4])
        length, end = frame[0], at + frame[0]
        # Out of step (a tag, damage), bytes that look like a frame count if another one follows.
        if length and (in_sync or end >= len(data) or _mpeg_frame(data[end : end + 4])[0]):
            if end > len(data):
                behind = end if in_sync else behind
                break
            tag = max(data.find(b"Xing", at, at + 48), data.find(b"Info", at, at + 48))
            if not frames and not promised and 0 < tag <= end - 12:
                if data[tag + 7] & 1:
                    promised = struct.unpack(">I", data[tag + 8 : tag + 12])[0]
            else:
                frames += 1
            if in_sync or not behind or _mpeg_frame(data[end : end + 4])[0]:
                behind = end  # a frame by itself behind something else may be none
            head, at, in_sync = frame, end, True
        else:
            at, in_sync = data.find(b"\xff", at + 1), False
    _, rate_hz, samples = head
    if frames < promised - 1:
        expected = f"{promised * samples / rate_hz:.3f} s"
        raise AudioError(cut_off(path, frames * samples / rate_hz, expected))
    return frames * samples, behind


def _mpeg_frame(head: bytes) -> tuple[int, int, int]:
    """Read a layer III frame header: bytes, Hz, samples; zeros where it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return 0, 0, 0
    version = head[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    kbps_index, rate_index = head[2] >> 4, head[2] >> 2 & 3
    if kbps_index in (0, 15) or rate_index == 3:
        return 0, 0, 0
    kbps = (_MPEG1_KBPS if version == 3 else _MPEG2_KBPS)[kbps_index - 1]
    rate_hz = (44_100, 48_000, 32_000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 1152 if version == 3 else 576
    return samples * kbps * 125 // rate_hz + (head[2] >> 1 & 1), rate_hz, samples


def stated_s(container: Any, track: Any) -> float | None:
    """Return when the track ends, in seconds, if its header states it; others only estimate it."""
    kind = container.format.name
    if kind.startswith(("mov", "ogg")) and track.duration:
        start = track.start_time or 0 if kind.startswith("mov") else 0
        return float((start + track.duration) * track.time_base)
    if kind.startswith("matroska") and container.duration:
        whole_s = container.duration / 1e6
        try:
            hours, minutes, seconds = track.metadata["DURATION"].split(":")
            return float(min(whole_s, 3600 * int(hours) + 60 * int(minutes) + float(seconds)))
        except (KeyError, ValueError):
            return float(whole_s) if len(container.streams) == 1 else None
    return None
