"""Files in buckets (`s3://`, `gs://`, `az://`, and others that fsspec knows): listed, fetched and sent.

What a bucket refuses for a moment (503, a broken connection) is tried again, after a time that doubles. The
settings of an account are those of its own tools (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...) and of fsspec
(`FSSPEC_S3_ENDPOINT_URL`, ...).
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from .. import extras
from ..errors import DataError, ExtraError, OutputError

T = TypeVar("T")

ATTEMPTS = 6
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 20.0
"""Number of attempts at a request to a bucket, and the pauses between them (assumed)."""
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def is_bucket(name: str) -> bool:
    """Return whether a name is the address of something in a bucket, and not a path."""
    scheme, mark, _ = name.partition("://")
    return bool(mark) and scheme.isalnum()


class Bucket:
    """A place in a bucket: a file, or all that begins with an address.

    Args:
        address: as `s3://bucket/folder`.

    Raises:
        ExtraError: the package that this kind of bucket needs is not installed.
        DataError: there is no such kind.
    """

    def __init__(self, address: str) -> None:
        fsspec = extras.load("fsspec", "batch", "a bucket")
        self.address = address.rstrip("/")
        scheme = address.partition("://")[0]
        try:
            self._files: Any
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            package = _PACKAGES.get(scheme, scheme)
            raise ExtraError(
                f"{address}: {scheme}:// needs {package}; pip install {package}"
            ) from error
        except ValueError as error:
            known = ", ".join(f"{one}://" for one in _PACKAGES)
            raise DataError(
                f"{address}: no kind of bucket that is known ({error}); known: {known}"
            ) from error

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Address, size in bytes and version of every file below, in the order of their addresses.

        Raises:
            DataError: it cannot be listed.
        """
        files = self._read(lambda: self._files.find(self._root, detail=True))
        scheme = self.address.partition("://")[0]
        for name, info in sorted(files.items()):
            yield (f"{scheme}://{name}", *_version(info))

    def names(self, folder: str) -> set[str]:
        """The files of a folder below; none where there is no such folder."""
        where = self._at(folder)
        files = self._read(lambda: self._files.find(where) if self._files.exists(where) else [])
        return {name[len(where) :].lstrip("/") for name in files}

    def is_file(self) -> bool:
        """Return whether the address is that of a file."""
        return bool(self._read(lambda: self._files.isfile(self._root)))

    def version(self, name: str) -> tuple[int, str]:
        """Size and version of a file; raises `DataError` where there is none."""
        return _version(self._read(lambda: self._files.info(self._at(name))))

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to `path`, whole or not at all.

        Raises:
            DataError: it is not there, or cannot be fetched.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f"{path.name}.part")
        try:
            self._read(lambda: self._files.get_file(self._at(name), str(half)))
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes `[start, end)` of a file, or as many of them as it has.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        data: bytes = self._read(lambda: self._files.cat_file(self._at(name), start=start, end=end))
        return data

    def send(self, path: Path, name: str) -> None:
        """Copy a file into the bucket; a bucket shows it when it is whole.

        Raises:
            OutputError: it cannot be sent.
        """
        try:
            again(lambda: self._files.put_file(str(path), self._at(name)))
        except Exception as error:
            raise OutputError(
                f"{self.address}: cannot write {name}: {_reason(error)}; what is done is kept: run the "
                "same command again"
            ) from error

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""

        def delete() -> None:
            if self._files.exists(self._at(name)):
                self._files.rm_file(self._at(name))

        self._read(delete)

    def probe(self, name: str) -> None:
        """Write a file and delete it, without a second try.

        Raises:
            OutputError: that fails.
        """
        try:
            self._files.pipe_file(self._at(name), b"0")
            self._files.rm_file(self._at(name))
        except Exception as error:
            raise OutputError(f"{self.address}: cannot write: {_reason(error)}") from error

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _read(self, action: Callable[[], T]) -> T:
        try:
            self._files.invalidate_cache()
            return again(action)
        except Exception as error:
            raise DataError(
                f"{self.address}: {_reason(error)}; check the address and the account"
            ) from error


def again(action: Callable[[], T], wait: Callable[[float], None] = time.sleep) -> T:
    """Do something with a bucket, up to `ATTEMPTS` times; a file that is not there is not tried again."""
    retrying = Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_attempt(ATTEMPTS),
        wait=_wait_s,
        sleep=wait,
        reraise=True,
    )
    return retrying(action)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, _FINAL)


def _wait_s(state: RetryCallState) -> float:
    """A time that doubles, of which up to half is chance."""
    longest_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (state.attempt_number - 1))
    return longest_s * random.uniform(0.5, 1.0)


def _version(info: Mapping[str, Any]) -> tuple[int, str]:
    """Return size in bytes and version of a file, from fsspec's information about it."""
    version = next((info[k] for k in ("ETag", "etag", "LastModified", "mtime") if k in info), "")
    return int(info.get("size") or 0), str(version).strip('"')


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
