"""Transcript files on disk: names, decoding, and writing that never leaves half a file."""

import gzip
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import FormatError, OutputError
from ..heap import without_cycles
from ..transcript import Transcript, recording_name
from .table import FORMATS, Format, find_format

# Characters that cannot be part of a file name on one of the usual systems, and dots that would hide the file
# or climb out of the directory.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]|^\.+')

_PROBE_BYTES = 1 << 16
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


def file_name(recording: str) -> str:
    """Return the name of a recording's files, without suffix; characters that file names cannot have become `_`."""
    return _UNSAFE.sub("_", recording) or "_"


def named_apart(names: Sequence[tuple[str, Path]]) -> list[str]:
    """Put the names of their folders before names that come in several folders: `monday-call`.

    Names of one folder stay equal, as those do that differ in nothing else.

    Args:
        names: each with the file that it is of.
    """
    folders: dict[str, set[Path]] = {}
    for name, path in names:
        folders.setdefault(name.casefold(), set()).add(path.parent.absolute())
    apart = []
    for name, path in names:
        same = folders[name.casefold()]
        before: tuple[str, ...] = ()
        if len(same) > 1:
            before = Path(os.path.relpath(path.parent.absolute(), os.path.commonpath(same))).parts
        apart.append(below_folders(before, name))
    return apart


def below_folders(folders: Iterable[str], name: str) -> str:
    """The name of a recording with those of folders before it: `monday-call`."""
    return "-".join([*(recording_name(f"{folder}.x") for folder in folders), name])


def remove_temporary(directory: Path) -> None:
    """Delete temporary files that a kill in the middle of `write_text_atomically` left in a directory.

    The caller keeps other writers out of the directory.
    """
    for path in directory.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write(
    transcript: Transcript,
    directory: str | os.PathLike[str],
    formats: Iterable[str],
    *,
    overwrite: bool = True,
) -> list[Path]:
    """Write `directory/<recording><suffix>` for each format and return the paths.

    All formats are rendered before the first file is written. Characters of the recording's name
    that do not belong in a file name become `_`.

    Args:
        transcript: to be written.
        directory: created if it does not exist.
        formats: keys of `FORMATS`.
        overwrite: replace files that exist; otherwise one that exists is an error and nothing is
            written.

    Raises:
        FormatError: a format is unknown or cannot express this transcript.
        OutputError: a file exists and may not be replaced, or cannot be written.
    """
    target = Path(directory)
    name = file_name(transcript.recording)
    wanted = [find_format(format_name) for format_name in dict.fromkeys(formats)]
    texts = {target / f"{name}{known.suffix}": known.render(transcript) for known in wanted}
    for path in texts:
        if not overwrite and os.path.lexists(path):
            raise OutputError(f"{path} exists; remove it, or allow it to be overwritten")
    for path, text in texts.items():
        write_text_atomically(path, text)
    return list(texts)


def set_aside(path: Path, suffix: str) -> Path:
    """Rename a file that was changed by hand, so that another can take its place: `call.edited-1.srt`.

    Args:
        suffix: of the format, with which the name ends.

    Returns:
        Its new path.
    """
    stem, number = path.name.removesuffix(suffix), 1
    while (spare := path.with_name(f"{stem}.edited-{number}{suffix}")).exists():
        number += 1
    return path.rename(spare)


def as_json(value: object, **layout: Any) -> str:
    """JSON that can be written as UTF-8, as legible as that allows.

    Names of files that are not UTF-8 come with lone surrogates, which JSON can spell in ASCII alone.
    """
    text = json.dumps(value, ensure_ascii=False, **layout)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=True, **layout)
    return text


def legible(text: str) -> str:
    """A text for people, in which bytes of names that are not UTF-8 are `\N{REPLACEMENT CHARACTER}`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    r"""Write `text` to `path` as UTF-8 with `\n` line ends: completely, or not at all.

    The text goes to a temporary file beside the target, which then takes the target's place. The
    temporary file is removed in any case. Missing directories are created.

    Raises:
        OutputError: the file cannot be written; an existing one is unchanged.
    """
    target = Path(path)
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        data = text.encode("utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        raise OutputError(
            f"cannot write {str(target)!r}: {error.reason} (character {error.start}); "
            "the text or the name holds half of a surrogate pair: remove it"
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(
            f"cannot write {target}: {reason}; choose a directory that can be written to"
        ) from error


def read(
    path: str | os.PathLike[str], format: str | None = None, encoding: str | None = None
) -> list[Transcript]:
    """Read a transcript file: one transcript per session (recording) found in it.

    Args:
        path: a file in UTF-8, or UTF-16 with a byte order mark.
        format: a key of `FORMATS`; by default that of the file's suffix.
        encoding: as `read_text`.

    Raises:
        FormatError: the format is unknown or write-only, or the file cannot be read or does not
            follow its format; the message names file and line.
    """
    source = Path(path)
    known = find_format(format) if format is not None else _format_of(source)
    if known.parse is None:
        readable = ", ".join(name for name, other in FORMATS.items() if other.parse)
        raise FormatError(f"{source}: {known.name} is written, not read; readable: {readable}")
    with without_cycles():
        return known.parse(read_text(source, encoding), str(source))


def _format_of(path: Path) -> Format:
    """Return the format with the longest suffix that `path` ends in."""
    name = path.name.lower()
    for known in sorted(FORMATS.values(), key=lambda known: -len(known.suffix)):
        if name.endswith(known.suffix.lower()):
            return known
    suffixes = ", ".join(known.suffix for known in FORMATS.values())
    raise FormatError(f"{path}: the suffix is none of {suffixes}; say which format it is")


def beginning(file: Path) -> str:
    """Return the text that a file begins with, which determines its format; empty where it cannot be read."""
    try:
        with file.open("rb") as handle:
            data = handle.read(_PROBE_BYTES)
    except OSError:
        return ""
    return data.decode(_encoding_of(data), "replace").removeprefix("\ufeff")


def _encoding_of(data: bytes) -> str:
    return "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"


def read_text(path: Path, encoding: str | None = None) -> str:
    """Return the text of a file; one whose name ends in `.gz` is unpacked.

    Args:
        path: the file.
        encoding: a name that Python knows, such as `gb18030` or `latin-1`; by default UTF-8, or
            UTF-16 where the file begins with its byte order mark. It is never guessed.

    Raises:
        FormatError: the file cannot be read or unpacked, the encoding is unknown, or the bytes do
            not follow it; the message names the line.
    """
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(f"{path}: not a whole gzip file: {error}; fetch it again") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FormatError(f"cannot read {path}: {reason}; check the path") from error
    if data.startswith(b"ooBinaryFile"):
        raise FormatError(f"{path}: a binary file of Praat; expected one saved as a text file")
    if encoding is None:
        encoding = _encoding_of(data)
        if encoding == "utf-8" and 4 * data.count(0) > len(data):
            raise FormatError(
                f"{path}: not UTF-8 text: a quarter of its bytes are null; is it UTF-16 without a byte order "
                "mark? Name its encoding (utf-16-le, utf-16-be)"
            )
    try:
        text = data.decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n")
        return text if "\n" in text else text.replace("\r", "\n")  # ends of lines of old Macs
    except UnicodeError as error:
        at, reason = getattr(error, "start", 0), getattr(error, "reason", str(error))
        line = data.count(b"\n", 0, at) + 1
        raise FormatError(
            f"{path}:{line}: not {encoding.upper()} text "
            f"(byte {at}: {reason}); convert it to UTF-8, or name its encoding"
        ) from error
    except LookupError as error:
        raise FormatError(f"{path}: unknown encoding {encoding!r}; try gb18030, latin-1") from error
