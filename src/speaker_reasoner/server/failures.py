"""Errors of requests, in the form of OpenAI's API.

    RequestError       a request that is not served
    └── StorageError   the disk is full, or the database is out of reach: temporary, and tried again

Messages contain no path and no address of a database: those are in the server's log.
"""

import errno
import logging
import os
from collections.abc import Mapping
from typing import Any

from ..errors import (
    AudioError,
    EngineError,
    FormatError,
    OutputError,
    ServerError,
    SettingsError,
    SpeakerReasonerError,
)

_log = logging.getLogger(__name__)

_PATIENCE_S = 10


class RequestError(ServerError):
    """A request that is not served, with an error in the form of OpenAI's API.

    Attributes:
        status: of HTTP.
        param: the field at fault.
        code: a word by which a program can recognise the error.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """`{"error": {message, type, param, code}}`."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": str(self),
                "type": kinds.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }


class StorageError(RequestError):
    """The store cannot be written or read at present; the request is right."""


def disk_error(what: str, error: BaseException | None) -> StorageError:
    """Return the error of a disk that is full or cannot be written.

    Args:
        what: the action that failed, such as `"store the upload"`.
        error: its cause.
    """
    reason = getattr(error, "strerror", None) or type(error).__name__
    return StorageError(
        507,
        f"cannot {what}: {reason}; free some space in the server's --store (DELETE of a recording "
        "with ?erase=true frees its own), and see GET /health",
        code="storage_failed",
        headers={"Retry-After": str(_PATIENCE_S)},
    )


def database_error(error: Exception) -> StorageError:
    """Return the error of a database that is full or cannot be reached."""
    reason = str(getattr(error, "orig", None) or error)
    if "full" in reason.lower():
        return disk_error("write to the database", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    return StorageError(
        503,
        f"the server's database cannot be used now ({type(error).__name__}); it is tried again, see "
        "GET /health and the server's log",
        code="database_unavailable",
        headers={"Retry-After": str(_PATIENCE_S)},
    )


def bucket_error() -> StorageError:
    """Return the error of a bucket that refuses, or cannot be reached; the server's log says why."""
    return StorageError(
        503,
        "the server's bucket cannot be used now; it is tried again, see GET /health and the server's log",
        code="store_unavailable",
        headers={"Retry-After": str(_PATIENCE_S)},
    )


def lost_lease() -> StorageError:
    """Return the error of a job that is another server's, or was ended by one: it must not be written to here."""
    return StorageError(
        503,
        "the job is another server's now, or was ended by one",
        code="database_unavailable",
    )


def lost_upload() -> StorageError:
    """Return the error of an upload that took so long, or whose server stalled so long, that its files were deleted."""
    return StorageError(
        503,
        "the server was taken for dead by the others while it stored this recording; send it again",
        code="database_unavailable",
        headers={"Retry-After": str(_PATIENCE_S)},
    )


def no_worker(model: str | None = None) -> RequestError:
    """Return the error where no server can transcribe."""
    what = "no worker is" if model is None else f"no worker with the model {model!r} is"
    return RequestError(
        503,
        f"{what} connected to this server; try again later (start one: speaker-reasoner serve --worker "
        "with the same --database and --store)",
        code="no_worker",
        headers={"Retry-After": str(_PATIENCE_S)},
    )


def passes(error: Exception) -> bool:
    """Return whether a failure is of the storage, so that the same thing may succeed later."""
    failed_write = isinstance(error, OutputError) and isinstance(error.__cause__, OSError)
    return failed_write or isinstance(error, StorageError)


def as_request_error(error: SpeakerReasonerError) -> RequestError:
    """Convert an error of this package to the answer for a client."""
    if isinstance(error, RequestError):
        return error
    message = str(error)
    if isinstance(error, AudioError):
        return RequestError(400, message, code="invalid_audio", param="file")
    if isinstance(error, FormatError | SettingsError):
        return RequestError(400, message, code="invalid_value")
    if isinstance(error, OutputError):
        _log.warning("%s", message)
        return disk_error("store it", error.__cause__)
    if isinstance(error, EngineError):
        return RequestError(503, message, code="engine_failed", headers={"Retry-After": "5"})
    _log.warning("%s", message)
    message = "internal error; see the server's log"
    return RequestError(500, message, code="internal_error")


def too_slow() -> RequestError:
    """Return the error of a request that exceeded its time limit."""
    return RequestError(
        504,
        "the recording is not transcribed yet; send long ones to /v1/jobs",
        code="answer_timeout",
    )
