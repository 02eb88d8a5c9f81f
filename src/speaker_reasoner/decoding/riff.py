"""Sizes that the headers of wav, aiff, caf, au, w64 and NIST SPHERE files state, against the bytes that are there.

libsndfile and FFmpeg read a shortened file as a shorter recording. These functions walk over the chunks of a
file, refuse one that ends too early, and report bytes behind the sound; they decode nothing.
"""

import math
import mmap
import os
import re
import struct
from dataclasses import dataclass
from typing import Any

from ..errors import AudioError, quoted

AGAIN = "copy or export it again"
"""The remedy for a damaged file."""

FORMS = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")
"""First four bytes of a file of chunks."""
KINDS = (b"WAVE", b"AIFF", b"AIFC")
"""Bytes 8 to 11 of such a file, where it is wav or aiff."""
AU = (b".snd", b"dns.")
"""First four bytes of an au file, in either byte order."""
PADDING_BYTES = 65_536
"""Number of bytes behind the sound that are looked at."""
_SOUND = (b"data", b"SSND")
_STRANGERS = (b"OggS", b"fLaC", b"PK\x03\x04", b"\x1a\x45\xdf\xa3", b"%PDF", *FORMS)
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""First bytes of tags for players, which may stand behind the sound."""
TO_THE_END = (b"riff", b"NIST")
"""First four bytes of w64 and NIST SPHERE files, of which libsndfile reads all up to the end of the file as sound."""
_UNKNOWN_W64 = (1 << 63) - 1
"""Least size that a w64 file states which was written to a pipe."""
_NIST_HEAD = re.compile(rb"NIST_1A\n\s*(\d{1,9})\n")
_NIST_NUMBER = re.compile(rb"^(\w+) -(?:i|s\d+) (\d{1,18})\s", re.MULTILINE)
_NIST_SIZES = {b"sample_count", b"channel_count", b"sample_n_bytes"}
_NIST_BYTES = 1 << 14  # of a header at most: assumed
_TEXT = bytes(range(32, 127)) + b"\t\n\r"


def cut_off(path: str | os.PathLike[str], got_s: float, expected: str) -> str:
    """The message for a recording that ends too early."""
    return f"{quoted(path)}: cut off: got {got_s:.3f} s, expected {expected}; {AGAIN}"


@dataclass(frozen=True, slots=True)
class IffSound:
    """The bytes of a wav or aiff file that are sound.

    Attributes:
        start, end: `[start, end)`.
        stated: whether the header states this range; libsndfile would read less where it does not.
        note: a warning for the user; empty for none.
    """

    start: int
    end: int
    stated: bool = True
    note: str = ""


def check_iff(
    path: str | os.PathLike[str], data: mmap.mmap, file: Any, first: int, last: int
) -> IffSound | None:
    """Compare the sound chunk's size with the file's; libsndfile shrinks the former silently.

    Sound that continues behind the size in the header (a recorder that stopped before it wrote the
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
                chunks = there < 8 or is_chunk_name(data[start : start + 4])
                whole = (
                    file.frames > 0 or (chunks and stated_bytes == last - first - 8) or not there
                )
                return IffSound(start, start) if whole else None
            # Writers to a pipe put this for an unknown length: 0xFFFFFFFF and 0x7FFFFFFF, or a
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
        A warning about bytes behind it; empty for none.

    Raises:
        AudioError: there is less; or more, which packed codings cannot be read without.
    """
    order = ">" if data[first : first + 4] == b"RIFX" else "<"
    at, large = first + 12, 0
    while at + 8 <= last:
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        if not is_chunk_name(name):
            return ""
        if name == b"ds64" and at + 24 <= last:  # of RF64 and BW64
            large = struct.unpack("<Q", data[at + 16 : at + 24])[0]
        if name == b"data":
            there = last - at - 8
            size = large if size >= 0xFFFF_0000 else size
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
    """Examine the bytes behind the sound: chunks, more sound, or neither."""
    at = behind = end + (end - start) % 2
    while at + 8 <= last:
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        if not (is_chunk_name(name) and at + 8 + size <= last + 1):
            break
        at += 8 + size + size % 2
    left = last - at
    if left > 0 and at == behind and _is_sound(data, at, last):
        note = f"the header states {end - start:,} bytes of sound; {left:,} more follow and were read, too"
        return IffSound(start, last, False, note)
    if (
        left >= 8
        and any(data[at : min(last, at + PADDING_BYTES)])
        and data[at : at + 3] not in TAGS
    ):
        return IffSound(
            start, end, note=f"{left:,} bytes behind the sound are no sound: they were not read"
        )
    return IffSound(start, end)


def _is_sound(data: mmap.mmap, at: int, last: int) -> bool:
    """Return whether bytes without a header are more sound, not a tag, padding or another file."""
    head = data[at : min(last, at + PADDING_BYTES)]
    if head.startswith((*_STRANGERS, *TAGS)):
        return False
    if not head.translate(None, _TEXT):
        return False
    return last - at > PADDING_BYTES or (len(head) >= 8 and any(head))


def more_sound(data: mmap.mmap, at: int, last: int) -> bool:
    """Return whether the bytes `[at, last)` behind the stated sound of an au, caf, w64 or NIST file are more sound."""
    return last - at > PADDING_BYTES and _is_sound(data, at, last)


def check_size(
    path: str | os.PathLike[str], data: mmap.mmap, start: int = 0, stop: int | None = None
) -> str:
    """Compare the size that the header of an au, caf, w64 or NIST file states with the file's; count chunks of wav.

    Args:
        path: for messages.
        data: the file.
        start, stop: where in the file the recording begins and ends; by default all of it.

    Returns:
        A warning about bytes behind the sound of an au, caf, w64 or NIST file; empty for none.

    Raises:
        AudioError: there is less; or, of au and caf, more sound than is stated, which nobody would read.
    """
    stop = len(data) if stop is None else stop
    if stop - start < 24:
        return ""  # no whole header: the decoder reports it
    end = _stated_end(data, start)
    if end > stop + 16:  # w64 pads to 8 bytes
        raise AudioError(
            f"{quoted(path)}: cut off: got {stop - start:,} bytes, expected {end - start:,}; {AGAIN}"
        )
    if data[start : start + 4] in FORMS and data[start + 8 : start + 12] in KINDS:
        _check_one_sound(path, data, start, stop)
    if data[start : start + 4] == b"caff":
        while end and end + 12 <= stop:  # other chunks
            name, size = struct.unpack(">4sq", data[end : end + 12])
            if not (is_chunk_name(name) and 0 <= size <= stop - end):
                break
            end += 12 + size
    elif data[start : start + 4] not in (*AU, *TO_THE_END):
        return ""
    left = stop - end if end else 0
    if left and more_sound(data, end, stop):
        if data[start : start + 4] in TO_THE_END:
            return (
                f"the header states {end - start:,} bytes; {left:,} more follow and were read, too"
            )
        raise AudioError(
            f"{quoted(path)}: the header states sound up to byte {end - start:,}, and {left:,} bytes "
            f"follow; expected a header that fits; {AGAIN}"
        )
    behind = data[end : min(stop, end + PADDING_BYTES)] if left > 16 else b""
    foreign = any(behind) and not behind.startswith(TAGS)
    return (
        f"{left:,} bytes behind the sound that the header states were not read" if foreign else ""
    )


def _check_one_sound(path: str | os.PathLike[str], data: mmap.mmap, start: int, stop: int) -> None:
    """Refuse a wav or aiff file with two chunks of sound, of which decoders read one."""
    order = ">" if data[start : start + 4] in (b"FORM", b"RIFX") else "<"
    at, sounds = start + 12, 0
    while at + 8 <= stop:
        name, size = struct.unpack(order + "4sI", data[at : at + 8])
        if not is_chunk_name(name):  # sound beyond a size that wrapped, padding: no chunks any more
            return
        sounds += name in _SOUND and size > 0
        if sounds > 1:
            raise AudioError(
                f"{quoted(path)}: got a second chunk of sound at byte {at - start:,}, expected one; {AGAIN}"
            )
        at += 8 + size + size % 2


def is_chunk_name(name: bytes) -> bool:
    """Return whether four bytes can name a chunk."""
    return name.isascii() and name.decode().isprintable()


def _stated_end(data: mmap.mmap, start: int) -> int:
    """Return the byte at which the sound of an au, caf, w64 or NIST file should end; 0 if its header states none."""
    head = data[start : start + 4]
    if start + 24 > len(data):
        return 0
    if head in AU:
        first, size = struct.unpack(
            ">II" if head == b".snd" else "<II", data[start + 4 : start + 12]
        )
        return 0 if size == 0xFFFF_FFFF else start + first + size
    if head == b"riff":
        size = int.from_bytes(data[start + 16 : start + 24], "little")
        return 0 if size >= _UNKNOWN_W64 else start + size
    if head == b"NIST":
        return _stated_end_of_nist(data, start)
    at = start + 8
    while head == b"caff" and at + 12 <= len(data):
        name, size = struct.unpack(">4sq", data[at : at + 12])
        if name == b"data" or size < 0 or not is_chunk_name(name):
            return at + 12 + size if name == b"data" and size >= 0 else 0
        at += 12 + size
    return 0


def _stated_end_of_nist(data: mmap.mmap, start: int) -> int:
    text = data[start : start + _NIST_BYTES].partition(b"end_head")[0]
    head = _NIST_HEAD.match(text)
    numbers = {name: int(value) for name, value in _NIST_NUMBER.findall(text)}
    if head is None or b"embedded" in text or not numbers.keys() >= _NIST_SIZES:
        return 0  # compressed, or of a size that is not stated
    return start + int(head[1]) + math.prod(numbers[name] for name in _NIST_SIZES)


def end_of_chunks(data: mmap.mmap, start: int) -> int:
    """Return the byte at which the au, caf, w64 or NIST recording at `start` ends; 0 if that is unknown."""
    end = _stated_end(data, start)
    if data[start : start + 4] == b"riff":
        return end + -end % 8
    while data[start : start + 4] == b"caff" and end and data[end : end + 4] != b"caff":
        size = struct.unpack(">q", data[end + 4 : end + 12])[0] if end + 12 <= len(data) else -1
        end = end + 12 + size if size >= 0 else 0
    return end
