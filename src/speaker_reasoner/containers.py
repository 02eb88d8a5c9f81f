"""Whether a file holds what its container promises: wav, aiff, ogg, mp3, mp4, matroska.

Decoders read a shortened file as a shorter recording. These checks compare the length that a header
states with what is there, and tell which files libsndfile would not read to their end. They look at
headers, pages and frames; they decode nothing.
"""

import mmap
import os
import struct
from typing import Any

from .errors import AudioError

AGAIN = "copy or export it again"
"""The remedy for a damaged file."""
_MPEG1_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # layer III
_MPEG2_KBPS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def quoted(path: str | os.PathLike[str]) -> str:
    """The path for a message: quoted, so that a name with a line break stays on one line."""
    return repr(os.fspath(path))


def cut_off(path: str | os.PathLike[str], got_s: float, expected: str) -> str:
    """The message for a recording that ends too early."""
    return f"{quoted(path)}: cut off: got {got_s:.3f} s, expected {expected}; {AGAIN}"


def check_iff(path: str | os.PathLike[str], data: mmap.mmap, file: Any) -> bool:
    """Compare the sound chunk's size with the file's; libsndfile shrinks the former silently.

    Returns:
        False where the size is 0 for "to the end", which libsndfile takes for an empty recording.
    """
    order = ">" if data[:4] in (b"FORM", b"RIFX") else "<"
    stated_bytes = struct.unpack(order + "I", data[4:8])[0]
    at, large = 12, 0
    while at + 8 <= len(data):
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        there = len(data) - at - 8
        if name == b"ds64" and there >= 16:
            large = struct.unpack("<Q", data[at + 16 : at + 24])[0]
        elif name in (b"data", b"SSND"):
            if size == 0:
                return file.frames > 0 or there == 0 or stated_bytes == len(data) - 8
            # What writers to a pipe put for an unknown length: 0xFFFFFFFF and 0x7FFFFFFF, or a
            # little less. RF64 puts the true size into ds64.
            unknown = size >= 0xFFFF_0000 or 0x7FFF_0000 <= size <= 0x8000_0000
            size = large if unknown else size
            if size > there:
                got_s = file.frames / file.samplerate
                expected = f"{got_s * size / there:.3f} s" if got_s else f"{size} bytes of sound"
                raise AudioError(cut_off(path, got_s, expected))
            return True
        at += 8 + size + size % 2  # chunks are padded to even length
    return True


def check_ogg(path: str | os.PathLike[str], data: mmap.mmap) -> bool:
    """Walk the pages; return False if a second stream follows, which libsndfile does not read."""
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
    return not chained


def check_mpeg(path: str | os.PathLike[str], data: mmap.mmap) -> tuple[int, int]:
    """Count the frames and compare with the Xing header, if there is one.

    libsndfile trusts that header, which describes only the first of joined files, and without it
    guesses the length from the first bit rate; either way it reads no further.

    Returns:
        samples per channel in all frames, and in one frame; zeros if no frame is found.
    """
    at, frames, promised, head = 0, 0, 0, (0, 0, 0)
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
                break
            tag = max(data.find(b"Xing", at, at + 48), data.find(b"Info", at, at + 48))
            if not frames and not promised and 0 < tag <= end - 12:
                if data[tag + 7] & 1:
                    promised = struct.unpack(">I", data[tag + 8 : tag + 12])[0]
            else:
                frames += 1
            head, at, in_sync = frame, end, True
        else:
            at, in_sync = data.find(b"\xff", at + 1), False
    _, rate_hz, samples = head
    if frames < promised - 1:
        expected = f"{promised * samples / rate_hz:.3f} s"
        raise AudioError(cut_off(path, frames * samples / rate_hz, expected))
    return frames * samples, samples


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
    """Return the track's length in seconds if its header states it; others only estimate it."""
    kind = container.format.name
    if kind.startswith("mov") and track.duration:
        return float(track.duration * track.time_base)
    if kind.startswith("matroska") and container.duration:
        whole_s = container.duration / 1e6
        try:
            hours, minutes, seconds = track.metadata["DURATION"].split(":")
            return float(min(whole_s, 3600 * int(hours) + 60 * int(minutes) + float(seconds)))
        except (KeyError, ValueError):
            return float(whole_s) if len(container.streams) == 1 else None
    return None
