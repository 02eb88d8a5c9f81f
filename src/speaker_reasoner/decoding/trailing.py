"""Bytes behind the sound of a compressed file that are no sound, such as a failed download or a disk leaves.

    trailing_note(data, end_of_elements(data, start, end), end)

Decoders pass over such bytes. There is no warning about tags, padding, and elements that may stand behind the sound.
"""

import mmap
import re
import struct

from .containers import EBML, SEGMENT, boxes, ebml_size, tag_bytes, trailer_bytes
from .riff import TAGS, is_chunk_name

_LEAST_BYTES = 16
_LOOKED_AT_BYTES = 65_536
_W64 = bytes.fromhex("726966662e91cf11a5d6")
_FLAC_FRAME = re.compile(rb"\xff[\xf8\xf9]")
_BEHIND_A_SEGMENT = frozenset(
    bytes.fromhex(name)
    for name in ("ec", "bf", "1c53bb6b", "1254c367", "1941a469", "1043a770", "114d9b74", "1549a966")
)
"""Void, CRC-32, Cues, Tags, Attachments, Chapters, SeekHead and Info of Matroska."""


def trailing_note(data: mmap.mmap, at: int, end: int) -> str:
    """Return a warning about the bytes `[at, end)` behind the sound; empty for a tag, padding or a few bytes."""
    if end - at <= _LEAST_BYTES:  # padding of gigabytes is not looked through
        return ""
    end = min(end, len(data) - trailer_bytes(data))
    head = data[at : min(end, at + _LOOKED_AT_BYTES)]
    if end - at <= _LEAST_BYTES or not any(head) or head.startswith(TAGS):
        return ""
    if any(data.find(mark, at, end) >= 0 for mark in (b"ftyp", _W64)):
        return f"{end - at:,} bytes behind its sound were not read; they may hold another recording"
    return f"{end - at:,} bytes behind its sound are no sound: they were not read"


def end_of_elements(data: mmap.mmap, start: int, end: int) -> int:
    """Return the byte at which the elements of a matroska, mp4 or AVI file end that begins at `start`.

    That is `end` for files of other formats, and where the container does not state it (a live stream).
    """
    head = data[start : start + 12]
    if head[:4] == EBML:
        return _end_of_matroska(data, start, end)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _end_of_boxes(data, start, end)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _end_of_avi(data, start, end)
    return end


def _end_of_matroska(data: mmap.mmap, start: int, end: int) -> int:
    at = data.find(SEGMENT, start, min(end, start + 4096))
    size, length = ebml_size(data, at + 4) if at >= 0 else (None, 0)
    if not size:  # 0: of a writer that did not come back to it
        return end
    at += 4 + length + size
    while at < end:
        width = 9 - data[at].bit_length()
        if data[at : at + width] not in _BEHIND_A_SEGMENT:
            # Sound that goes on behind a size that is too small is FFmpeg's to read.
            return end if data[at : at + 4] == b"\x1f\x43\xb6\x75" else at
        size, length = ebml_size(data, at + width)
        if size is None:
            return end
        at += width + length + size
    return end


def _end_of_boxes(data: mmap.mmap, start: int, end: int) -> int:
    names = set()
    at = start
    for at, name, stop in boxes(data, start):
        if at >= end:
            break
        if stop > end or not is_chunk_name(name):
            return at if b"moov" in names else end
        names.add(name)
        at = stop
    return at if b"moov" in names else end


def _end_of_avi(data: mmap.mmap, start: int, end: int) -> int:
    at = start
    while at + 8 <= end:
        name, size = struct.unpack("<4sI", data[at : at + 8])
        if name == b"RIFF" and (not size or size >= 0xFFFF_0000):
            return end  # not stated
        if not is_chunk_name(name) or at + 8 + size > end + 1:
            break
        at += 8 + size + size % 2
    return min(at, end) if data.find(b"RIFF", at, end) < 0 else end  # FFmpeg reads on from there


def frame_of_flac_follows(data: mmap.mmap, start: int, end: int, sample: int) -> bool:
    """Return whether a flac recording in `[start, end)` has the header of a frame at `sample` or behind it.

    Where its decoder failed there, it is damaged; otherwise something else follows its sound.
    """
    at = start or tag_bytes(data)  # an ID3 tag may stand before the mark of a flac file
    block = int.from_bytes(data[at + 8 : at + 10], "big")  # the least, of STREAMINFO
    for mark in _FLAC_FRAME.finditer(data, start, end):
        number = _number_of_frame(data[mark.start() : mark.start() + 16])
        by_samples = mark[0][1] & 1
        if number is not None and (number if by_samples else number * block) >= sample:
            return True
    return False


def _number_of_frame(head: bytes) -> int | None:
    """Return the number that a header of a flac frame holds, of its frame or its first sample; `None` for no header.

    RFC 9639, section 9.1.
    """
    if len(head) < 6 or not head[2] >> 4 or head[2] & 0x0F == 0x0F or head[3] & 1:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # of the number, coded as in UTF-8
    if ones == 1 or ones > 7:
        return None
    coded = head[4 : 4 + max(ones, 1)]
    if any(byte >> 6 != 0b10 for byte in coded[1:]):
        return None
    number = coded[0] & (0xFF >> (ones + 1) if ones else 0x7F)
    for byte in coded[1:]:
        number = number << 6 | byte & 0x3F
    length = 4 + len(coded)
    length += {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
    return number if length < len(head) and _crc8(head[:length]) == head[length] else None


def _crc8(data: bytes) -> int:
    """Return the CRC of polynomial x^8 + x^2 + x + 1 that headers of flac frames end with."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 0xFF if value & 0x80 else value << 1
    return value
