"""What the structure of a file says: how much sound there should be, and where, before any of it is decoded.

Decoders read a shortened file as a shorter recording, and of several recordings joined into one file the
first. These functions look at headers, chunks, pages and frames; they decode nothing. `parts` tells where
recordings begin in a file, `is_cut_off` whether the last element of a container lies outside the file, and
the functions named after a format what its header states against what is there.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
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


_SOUND = (b"data", b"SSND")
_FORMS = (b"RIFF", b"RIFX", b"RF64", b"FORM")
_KINDS = (b"WAVE", b"AIFF", b"AIFC")
_STRANGERS = (b"OggS", b"fLaC", b"PK\x03\x04", b"\x1a\x45\xdf\xa3", b"%PDF", *_FORMS)
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
_PADDING_BYTES = 65_536
_TEXT = bytes(range(32, 127)) + b"\t\n\r"


@dataclass(frozen=True, slots=True)
class IffSound:
    """Where the sound of a wav or aiff file lies.

    Attributes:
        start, end: its first byte, and the one behind its last.
        stated: whether that is what the header says; otherwise libsndfile would read less.
        note: what a user should know; empty for nothing.
    """

    start: int
    end: int
    stated: bool = True
    note: str = ""


def check_iff(
    path: str | os.PathLike[str], data: mmap.mmap, file: Any, first: int, last: int
) -> IffSound | None:
    """Compare the sound chunk's size with the file's; libsndfile shrinks the former silently.

    Sound that goes on behind what the header states (a recorder that stopped before it wrote the
    header anew, a size that wrapped at 4 GiB) is found, too.

    Args:
        path: for messages.
        data: the file.
        file: libsndfile's view of it: `frames`, `samplerate`.
        first, last: where in the file the recording begins and ends.

    Returns:
        `None` where the size is 0 for "to the end", which libsndfile takes for an empty recording, or
        where there is no sound chunk.

    Raises:
        AudioError: there is less than the header states.
    """
    order = ">" if data[first : first + 4] in (b"FORM", b"RIFX") else "<"
    stated_bytes = struct.unpack(order + "I", data[first + 4 : first + 8])[0]
    at, large = first + 12, 0
    while at + 8 <= last:
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        there = last - at - 8
        if name == b"ds64" and there >= 16:
            large = struct.unpack("<Q", data[at + 16 : at + 24])[0]
        elif name in _SOUND:
            start = at + 16 if name == b"SSND" else at + 8  # offset and block size come first
            if size == 0:
                chunks = there < 8 or _is_name(data[start : start + 4])
                whole = (
                    file.frames > 0 or (chunks and stated_bytes == last - first - 8) or not there
                )
                return IffSound(start, start) if whole else None
            # What writers to a pipe put for an unknown length: 0xFFFFFFFF and 0x7FFFFFFF, or a
            # little less. RF64 puts the true size into ds64.
            unknown = size >= 0xFFFF_0000 or 0x7FFF_0000 <= size <= 0x8000_0000
            size = large if unknown else size
            if size > there:
                got_s = file.frames / file.samplerate
                expected = f"{got_s * size / there:.3f} s" if got_s else f"{size} bytes of sound"
                raise AudioError(cut_off(path, got_s, expected))
            if unknown and not large:
                return IffSound(start, last)
            return _behind(data, order, start, at + 8 + size, last)
        at += 8 + size + size % 2  # chunks are padded to even length
    return None


def check_packed(path: str | os.PathLike[str], data: mmap.mmap, first: int, last: int) -> str:
    """Compare the size of the sound chunk of a wav file that FFmpeg reads with the file's.

    Returns:
        What a user should know of bytes behind it; empty for nothing.

    Raises:
        AudioError: there is less; or more, which packed codings cannot be read without.
    """
    order = ">" if data[first : first + 4] == b"RIFX" else "<"
    at = first + 12
    while at + 8 <= last:
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        if not _is_name(name):
            return ""
        if name == b"data":
            there = last - at - 8
            if size == 0 or 0x7FFF_0000 <= size <= 0x8000_0000 or size >= 0xFFFF_0000:
                return ""  # to the end
            if size > there:
                raise AudioError(
                    f"{quoted(path)}: cut off: got {there:,} bytes of sound, expected {size:,}; {AGAIN}"
                )
            sound = _behind(data, order, at + 8, at + 8 + size, last)
            if not sound.stated:
                raise AudioError(
                    f"{quoted(path)}: the header states {size:,} bytes of packed sound, and more follows; "
                    f"expected a whole file; {AGAIN}"
                )
            return sound.note
        at += 8 + size + size % 2
    return ""


def _behind(data: mmap.mmap, order: str, start: int, end: int, last: int) -> IffSound:
    """Look at what lies behind the sound: chunks, more sound, or neither."""
    at = behind = end + (end - start) % 2
    while at + 8 <= last:
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        if not (_is_name(name) and at + 8 + size <= last + 1):
            break
        at += 8 + size + size % 2
    left = last - at
    if left > 0 and at == behind and _is_sound(data, at, last):
        note = f"the header states {end - start:,} bytes of sound; {left:,} more follow and were read, too"
        return IffSound(start, last, False, note)
    if (
        left >= 8
        and any(data[at : min(last, at + _PADDING_BYTES)])
        and data[at : at + 3] not in _TAGS
    ):
        return IffSound(
            start, end, note=f"{left:,} bytes behind the sound are no sound: they were not read"
        )
    return IffSound(start, end)


def _is_sound(data: mmap.mmap, at: int, last: int) -> bool:
    """Whether bytes without a header are more sound, not a tag, padding or another file."""
    head = data[at : min(last, at + _PADDING_BYTES)]
    if head.startswith((*_STRANGERS, *_TAGS)):
        return False
    if not head.translate(None, _TEXT):
        return False
    return last - at > _PADDING_BYTES or (len(head) >= 8 and any(head))


def check_size(
    path: str | os.PathLike[str], data: mmap.mmap, start: int = 0, stop: int | None = None
) -> str:
    """Compare the size that the header of an au, caf or w64 file states with the file's; count chunks of wav.

    Args:
        path: for messages.
        data: the file.
        start, stop: where in the file the recording begins and ends; by default all of it.

    Returns:
        What a user should know of an au or caf file behind whose sound something else stands; empty for nothing.

    Raises:
        AudioError: there is less; or, of au and caf, more sound than is stated, which nobody would read.
    """
    stop = len(data) if stop is None else stop
    if stop - start < 24:
        return ""  # no whole header: whoever opens it says so
    end = _stated_end(data, start)
    if end > stop + 16:  # w64 pads to 8 bytes
        raise AudioError(
            f"{quoted(path)}: cut off: got {stop - start:,} bytes, expected {end - start:,}; {AGAIN}"
        )
    if data[start : start + 4] in _FORMS and data[start + 8 : start + 12] in _KINDS:
        _check_one_sound(path, data, start, stop)
    if data[start : start + 4] == b"caff":
        while end and end + 12 <= stop:  # other chunks
            name, size = struct.unpack(">4sq", data[end : end + 12])
            if not (_is_name(name) and 0 <= size <= stop - end):
                break
            end += 12 + size
    elif data[start : start + 4] not in _AU:
        return ""
    left = stop - end if end else 0
    if left > _PADDING_BYTES and _is_sound(data, end, stop):
        raise AudioError(
            f"{quoted(path)}: the header states sound up to byte {end - start:,}, and {left:,} bytes "
            f"follow; expected a header that fits; {AGAIN}"
        )
    behind = data[end : min(stop, end + _PADDING_BYTES)] if left > 16 else b""
    foreign = any(behind) and not behind.startswith(_TAGS)
    return (
        f"{left:,} bytes behind the sound that the header states were not read" if foreign else ""
    )


def _check_one_sound(path: str | os.PathLike[str], data: mmap.mmap, start: int, stop: int) -> None:
    """Refuse a wav or aiff file with two chunks of sound, of which decoders read one."""
    order = ">" if data[start : start + 4] in (b"FORM", b"RIFX") else "<"
    at, sounds = start + 12, 0
    while at + 8 <= stop:
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        if not _is_name(name):  # sound beyond a size that wrapped, padding: no chunks any more
            return
        sounds += name in _SOUND and size > 0
        if sounds > 1:
            raise AudioError(
                f"{quoted(path)}: got a second chunk of sound at byte {at - start:,}, expected one; {AGAIN}"
            )
        at += 8 + size + size % 2


def _is_name(name: bytes) -> bool:
    """Whether four bytes can name a chunk."""
    return name.isascii() and name.decode().isprintable()


_AU = (b".snd", b"dns.")


def _stated_end(data: mmap.mmap, start: int) -> int:
    """Where the sound of an au or caf file, or a w64 file, should end; 0 where its header does not say."""
    head = data[start : start + 4]
    if start + 24 > len(data):
        return 0
    if head in _AU:
        first, size = struct.unpack(
            ">II" if head == b".snd" else "<II", data[start + 4 : start + 12]
        )
        return 0 if size == 0xFFFF_FFFF else start + first + size
    if head == b"riff":
        return start + int.from_bytes(data[start + 16 : start + 24], "little")
    at = start + 8
    while head == b"caff" and at + 12 <= len(data):
        name, size = struct.unpack(">4sq", data[at : at + 12])
        if name == b"data" or size < 0 or not _is_name(name):
            return at + 12 + size if name == b"data" and size >= 0 else 0
        at += 12 + size
    return 0


def parts(data: mmap.mmap) -> list[tuple[int, int]]:
    """Where the recordings of a file begin and end, in bytes: one, unless files are joined.

    Told of wav, aiff, au, caf, w64, flac, tta, matroska, mp4, asf and flv. Pages of ogg, frames of mp3
    and aac, and packets of mpegts follow each other without a header that would end them: decoders
    read on. Tags and padding behind a flac file, on which its decoder would fail, are left out.
    """
    starts = [0]
    head = data[:12]
    tag = _tag_bytes(data)
    form = data[tag : tag + 12]
    if form[:4] in _FORMS and form[8:12] in _KINDS:
        order = ">" if form[:4] in (b"FORM", b"RIFX") else "<"
        at, starts = tag, []
        while data[at : at + 4] in _FORMS and data[at + 8 : at + 12] in _KINDS:
            starts.append(at)
            size = struct.unpack(order + "I", data[at + 4 : at + 8])[0]
            at += 8 + size + size % 2
    elif data[:4] == b"fLaC" or data[:3] == b"ID3":
        at = data.find(b"fLaC", 1)
        while data[:4] == b"fLaC" and at > 0:
            if data[at + 4 : at + 8] in (b"\x00\x00\x00\x22", b"\x80\x00\x00\x22"):
                starts.append(at)
            at = data.find(b"fLaC", at + 4)
    elif head[:4] == _EBML:
        at = _next_ebml(data, 0)
        while at > 0:
            starts.append(at)
            at = _next_ebml(data, at)
    elif head[4:8] == b"ftyp":
        seen: set[bytes] = set()
        for at, name, _ in _boxes(data):
            if name == b"ftyp" and at and b"moov" in seen:
                starts.append(at)
                seen = set()
            seen.add(name)
    elif head[:4] in (*_AU, b"caff", b"riff"):
        at = _end_of_chunks(data, 0)
        while at and data[at : at + 4] == head[:4]:
            starts.append(at)
            at = _end_of_chunks(data, at)
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
    stop = len(data) - (_trailer_bytes(data) if head[:4] == b"fLaC" else 0)
    if head[:4] == b"riff":  # libsndfile reads to the end of the file
        stop = min(stop, _end_of_chunks(data, starts[-1]) or stop)
    return list(zip(starts, [*starts[1:], stop], strict=True))


def _trailer_bytes(data: mmap.mmap) -> int:
    """How much tags for players (ID3v1, APE) and padding take at the end of a file."""
    end = len(data)
    while True:
        before = end
        if data[end - 128 : end - 125] == b"TAG":
            end -= 128
        if data[end - 32 : end - 24] == b"APETAGEX":
            size, _, flags = struct.unpack("<III", data[end - 20 : end - 8])
            end -= size + (32 if flags >> 31 else 0)
        padding = data[max(0, end - _PADDING_BYTES) : end]
        left = len(padding.rstrip(b"\0"))
        end -= len(padding) - left if len(padding) - left >= 64 else 0
        if end == before or end <= 0:
            return len(data) - before


_ASF = bytes.fromhex("3026b2758e66cf11a6d9")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # its properties
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"meta", b"mfra")


def _end_of_chunks(data: mmap.mmap, start: int) -> int:
    """Where an au, caf or w64 recording ends that begins at `start`; 0 where that is unknown."""
    end = _stated_end(data, start)
    if data[start : start + 4] == b"riff":
        return end + -end % 8
    while data[start : start + 4] == b"caff" and end and data[end : end + 4] != b"caff":
        size = struct.unpack(">q", data[end + 4 : end + 12])[0] if end + 12 <= len(data) else -1
        end = end + 12 + size if size >= 0 else 0
    return end


_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def _next_ebml(data: mmap.mmap, start: int) -> int:
    """Where another matroska file begins behind the one that begins at `start`; -1 for nowhere."""
    segment = data.find(_SEGMENT, start, start + 4096)
    size, length = _ebml_size(data, segment + 4) if segment >= 0 else (None, 0)
    at = start + 4 if size is None else segment + 4 + length + size  # a live stream states no size
    while (at := data.find(_EBML, at)) >= 0:
        head = data[at : at + 64]
        if b"webm" in head or b"matroska" in head:
            return at
        at += 4
    return -1


def _boxes(data: mmap.mmap, at: int = 0) -> Iterator[tuple[int, bytes, int]]:
    """The outermost boxes of an mp4 file from a place on: place, name, and where they should end."""
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


def _tag_bytes(data: mmap.mmap) -> int:
    """The length of an ID3 tag that a file begins with; 0 without one."""
    if data[:3] != b"ID3" or len(data) <= 10:
        return 0
    size = data[6:10]
    return 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])


def is_mpeg(data: mmap.mmap) -> bool:
    """Whether a file is mp3, perhaps behind an ID3 tag, by its first bytes."""
    at = _tag_bytes(data)
    return _mpeg_frame(data[at : at + 4])[0] > 0


def is_cut_off(data: mmap.mmap, start: int, end: int) -> bool:
    """Whether the last element of a container, as its header states it, lies outside of it.

    Told of matroska, mp4, avi, asf and flv; any other is taken for whole.
    """
    head = data[start : start + 12]
    if head[:4] == _EBML:
        at = data.find(_SEGMENT, start, min(end, start + 4096))
        if at < 0:
            return False
        size, length = _ebml_size(data, at + 4)
        return size is not None and at + 4 + length + size > end
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        if start:
            return False  # `_boxes` counts from the beginning
        return any(stop > end and name in _BOXES for at, name, stop in _boxes(data) if at < end)
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
        size = struct.unpack("<I", head[4:8])[0]
        return bool(0 < size < 0xFFFF_0000 and start + 8 + size > end)
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
    """How many empty chunks of a track of an AVI file stand before each of its chunks with sound.

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


def _ebml_size(data: mmap.mmap, at: int) -> tuple[int | None, int]:
    """A size of EBML, and the bytes it takes; `None` where it is unknown (a live stream)."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    if length > 8:
        return None, 8
    raw = int.from_bytes(data[at : at + length], "big")
    value = raw & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), length


def check_ogg(path: str | os.PathLike[str], data: mmap.mmap) -> tuple[bool, int]:
    """Walk the pages; return whether a second stream follows, and where the pages end."""
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
        samples per channel in all frames, and where the last of them ends; zeros if no frame is found.
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
