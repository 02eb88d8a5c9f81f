"""Writes the bodies of requests to disk, within limits, and reads forms.

Bodies are written as they are read, and are never in memory as a whole. Nothing that a client sends becomes part of a
path: the server chooses the names of these files.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from .failures import RequestError
from .sound import not_stored

FILE = "file"
REFERENCES = "known_speaker_references"
_FIELD_BYTES = 16 * 1024
_FIELDS_BYTES = 256 * 1024
_JSON_BYTES = 64 * 1024
_PARTS = 1000
_REFERENCE_BYTES = 16 * 1024 * 1024
_SLOWEST_BYTES_PER_S = 4096
_BRACKETED = re.compile(r"(\w+)\[(\w*)\]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of requests.

    Attributes:
        body_bytes: largest body of a request.
        duration_s: longest recording, when it is decoded.
        idle_s: longest wait for the next piece of a body.
        live_idle_s: longest wait for the next event of a live session.
        live: live sessions at once.
    """

    body_bytes: int = 1024**3
    duration_s: float = 6 * 3600.0
    idle_s: float = 30.0
    live_idle_s: float = 300.0
    live: int = 32


@dataclass
class _Part:
    """A part of a form while it is read: a file on disk, or a field in memory."""

    name: str
    filename: str | None
    path: Path | None
    limit: int | None
    data: bytearray = field(default_factory=bytearray)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form: the name that the client gave it, and its path."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ReceivedForm:
    """A form with its files on disk.

    Attributes:
        values: fields by name; lists where the name ends in `[]`, objects for `name[key]`.
        file: the recording; `None` if there is none.
        references: data URLs of known voices, one file each, in order.
    """

    values: dict[str, Any]
    file: Upload | None
    references: tuple[Path, ...]


async def body(request: Request, most: int, limits: Limits) -> AsyncIterator[bytes]:
    """Yield a request's body piece by piece; the length in its headers is not trusted.

    Raises:
        RequestError: 413 as soon as it is larger than `most` bytes, 408 where it stalls or drips.
    """
    too_large = RequestError(
        413,
        f"the request is larger than {most / 1024**2:.3g} MiB, the most this server takes; send a "
        "compressed file (flac, opus), or cut the recording",
        code="request_too_large",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise too_large
    pieces = aiter(request.stream())
    received, begun = 0, time.monotonic()
    while True:
        try:
            async with asyncio.timeout(limits.idle_s):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise _stalled(received) from error
        if piece is None:
            return
        received += len(piece)
        if received > most:
            raise too_large
        if time.monotonic() - begun > limits.idle_s + received / _SLOWEST_BYTES_PER_S:
            raise _stalled(received)
        yield piece


def _stalled(received: int) -> RequestError:
    message = f"the request's body stalled after {received} bytes; send it again"
    return RequestError(408, message, code="request_timeout")


async def read_json(request: Request, limits: Limits, most: int = _JSON_BYTES) -> Any:
    """Read a JSON body of at most `most` bytes.

    Raises:
        RequestError: as `body`; 400 where it is no JSON.
    """
    data = b"".join([piece async for piece in body(request, most, limits)])
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"expected a JSON object: {error}", code="invalid_json") from error


async def receive(request: Request, folder: Path, limits: Limits) -> ReceivedForm:
    """Read a multipart form, its files into a folder.

    Args:
        request: whose body was not read yet.
        folder: that exists and is empty.
        limits: of body and waiting.

    Raises:
        RequestError: the body is no whole form, too large, or too slow; a field is too large.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestError(
            415,
            f"content type {kind.decode('latin-1')!r}: expected multipart/form-data with a "
            "boundary, and the recording as its field 'file'",
            code="unsupported_media_type",
        )
    reader = _FormReader(folder)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        async for piece in body(request, limits.body_bytes, limits):
            parser.write(piece)
            if reader.unwritten:
                await run_in_threadpool(reader.flush)
    except FormParserError as error:
        raise RequestError(
            400, f"the form cannot be read: {error}", code="invalid_multipart"
        ) from error
    except OSError as error:
        raise not_stored("the upload", error) from error
    finally:
        reader.close()
    if not reader.ended:
        raise RequestError(
            400,
            "the form ends before its last boundary; it was cut off: send it again",
            code="invalid_multipart",
        )
    return reader.form()


class _FormReader:
    """Takes the parser's callbacks apart into parts."""

    def __init__(self, folder: Path) -> None:
        self.unwritten: list[tuple[_Part, bytes]] = []
        self.ended = False
        self._folder = folder
        self._parts: list[_Part] = []
        self._open: tuple[_Part, BinaryIO] | None = None
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._held = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_header_field": lambda data, i, j: self._header[0].extend(data[i:j]),
            "on_header_value": lambda data, i, j: self._header[1].extend(data[i:j]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }

    def flush(self) -> None:
        """Write received data to the files of its parts."""
        for part, data in self.unwritten:
            assert part.path is not None
            if self._open is None or self._open[0] is not part:
                self.close()
                self._open = part, part.path.open("ab")
            self._open[1].write(data)
        self.unwritten.clear()

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def form(self) -> ReceivedForm:
        """Return the form, once all of it is read."""
        files, references = [], []
        for part in self._parts:
            if part.path is not None:
                part.path.touch()
                if part.name == REFERENCES:
                    references.append(part.path)
                else:
                    files.append(Upload(display_name(part.filename or ""), part.path))
        fields = [part for part in self._parts if part.path is None]
        return ReceivedForm(_values(fields), files[0] if files else None, tuple(references))

    def _begin(self) -> None:
        self._disposition = b""

    def _header_end(self) -> None:
        name, value = (bytes(text) for text in self._header)
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header[0].clear()
        self._header[1].clear()

    def _headers_finished(self) -> None:
        if len(self._parts) == _PARTS:
            raise RequestError(
                413, f"the form has more than {_PARTS} parts", code="request_too_large"
            )
        self._hold(len(self._disposition))
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise RequestError(400, "a part of the form has no name", code="invalid_multipart")
        name = _utf8(options[b"name"], "a field's name")
        plain = name.removesuffix("[]")
        filename = _utf8(options[b"filename"], name) if b"filename" in options else None
        if (filename is not None) != (name == FILE):
            got = "text" if filename is None else "a file"
            raise RequestError(
                400,
                f"{name}: got {got}; 'file' must be a file (with a filename), no other may be",
                code="invalid_value",
                param=name,
            )
        count = sum(part.name == plain for part in self._parts)
        if name == FILE and count:
            raise RequestError(400, "file: given twice", code="invalid_value", param=FILE)
        if name == FILE:
            part = _Part(name, filename, self._folder / "upload", None)
        elif plain == REFERENCES:
            path = self._folder / f"reference-{count}"
            part = _Part(plain, None, path, _REFERENCE_BYTES)
        else:
            part = _Part(name, None, None, _FIELD_BYTES)
        self._parts.append(part)

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._parts[-1]
        part.size += end - start
        if part.limit is not None and part.size > part.limit:
            raise RequestError(
                413,
                f"{part.name}: larger than {part.limit // 1024} KiB",
                code="request_too_large",
                param=part.name,
            )
        if part.path is None:
            self._hold(end - start)
            part.data += data[start:end]
        else:
            self.unwritten.append((part, data[start:end]))

    def _hold(self, size: int) -> None:
        """Count the bytes of the form that are in memory, and refuse too many."""
        self._held += size
        if self._held > _FIELDS_BYTES:
            raise RequestError(
                413,
                f"the fields of the form are larger than {_FIELDS_BYTES // 1024} KiB together",
                code="request_too_large",
            )

    def _end(self) -> None:
        self.ended = True


def _utf8(data: bytes | bytearray, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            400, f"{what}: expected UTF-8 text: {error.reason}", code="invalid_value"
        ) from error


def _values(parts: Iterable[_Part]) -> dict[str, Any]:
    """Fields by name; `name[]` gives a list, `name[key]` an object.

    Raises:
        RequestError: 400, a field is given twice.
    """
    values: dict[str, Any] = {}
    for part in parts:
        text = _utf8(part.data, part.name)
        bracketed = _BRACKETED.fullmatch(part.name)
        name, key = bracketed.groups() if bracketed else (part.name, None)
        held = values.setdefault(name, {} if key else [] if key == "" else text)
        if key and isinstance(held, dict) and key not in held:
            held[key] = text
        elif key == "" and isinstance(held, list):
            held.append(text)
        elif key is not None or held is not text:
            raise RequestError(
                400, f"{part.name}: given twice, expected once", code="invalid_value", param=name
            )
    return values


def display_name(filename: str) -> str:
    """Return a file's name for display: its last part, with `_` for characters that cannot be printed."""
    last = re.split(r"[/\\]", filename)[-1].strip()
    return "".join(c if c.isprintable() else "_" for c in last) or "recording"
