"""Decode with libsndfile, which reads wav, aiff, flac and the like exactly."""

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import AudioError, quoted
from .blocks import AnyPath, Block, Source, Window, damaged
from .containers import is_mpeg
from .riff import AGAIN, IffSound, check_iff, cut_off
from .trailing import frame_of_flac_follows

_READ_FRAMES = 4_096  # per read of libsndfile; a decoding error loses the frames of its read
_UNKNOWN_FRAMES = 1 << 62  # libsndfile answers 2**63 - 1 for a FLAC stream without length
_EXACT = ("WAV", "WAVEX", "RF64", "AIFF")
_RAW = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


def open_with_libsndfile(
    path: AnyPath, handle: BinaryIO, data: mmap.mmap, piece: tuple[int, int], stack: ExitStack
) -> Source | None:
    """Open with libsndfile; `None` where it does not know the file or would not read all of it."""
    if data[:4] == b"OggS" or is_mpeg(data):
        return None
    whole = piece == (0, len(data))

    def opened() -> soundfile.SoundFile:
        # By its descriptor: the name need not be UTF-8, and no suffix decides.
        handle.seek(0)
        window = os.dup(handle.fileno()) if whole else io.BufferedReader(Window(handle, *piece))
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
                raise AudioError(damaged(path, done / rate_hz, duration_s, error)) from error
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
    path: AnyPath, handle: BinaryIO, data: mmap.mmap, file: soundfile.SoundFile, sound: IffSound
) -> soundfile.SoundFile:
    """Open the sound of a wav or aiff file by its place, whatever length the header states."""
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
        io.BufferedReader(Window(handle, sound.start, end)),
        samplerate=file.samplerate,
        channels=file.channels,
        format="RAW",
        subtype=subtype,
        endian="BIG" if big else "LITTLE",
    )


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that is only read forward.

    A seekable one seeks after every read. On a FLAC stream without length that loses the last block.
    """

    def seekable(self) -> bool:
        return False
