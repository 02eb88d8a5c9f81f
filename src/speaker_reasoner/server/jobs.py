"""A job: a long recording and the state of its transcription, as a row of the database."""

import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from soundfile import LibsndfileError

from ..errors import SpeakerReasonerError
from .failures import RequestError, StorageError

WAITING = ("queued", "running")
"""States of a job that goes on after a restart."""

_log = logging.getLogger(__name__)

_STATES = (*WAITING, "done", "failed", "cancelled")
_ID = re.compile(r"job_[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Job:
    """A long recording and the state of its transcription.

    Attributes:
        id: made here, never by a client; also names the folder.
        name: that the client gave it.
        status: `queued`, `running`, `done`, `failed` or `cancelled`.
        created: seconds since 1970.
        duration_s: of the recording.
        speakers: hint on their number, as it was given.
        voices: name of each known voice; the n-th lies in `voice-n.wav`.
        listen: chunk that is to be transcribed again; `None` while the whole recording is.
        listen_keep: whether lines of that chunk that users corrected stay as they are.
        speaker_count: speakers in the transcript; `None` until it is done.
        error: of a failed job, or of the last attempt to transcribe a chunk again, in the form of OpenAI's API.
        revision: number of corrections.
        changed: seconds since 1970 of the last change of its state or transcript.
        removed: when it was put into the bin; `None` where it was not.
        owner: the process that works on it, or did last.
        position_s: seconds that this process had transcribed at its last heartbeat.
        language: code of the spoken language, as its client gave it.
        token: number of its leases; a process with an older one must not write about it.
        client: that sent it, for a fair queue; empty where nobody asked.
        model: that is to transcribe it; `None` for any.
        waiter: the server whose client waits for it on an open connection; `None` for jobs that clients know of.
        losses: how many processes in a row died while they worked on it, without finishing a chunk.
    """

    id: str
    name: str
    status: str
    created: float
    duration_s: float
    speakers: str | None = None
    voices: tuple[str, ...] = ()
    listen: int | None = None
    listen_keep: bool = True
    speaker_count: int | None = None
    error: Mapping[str, Any] | None = None
    revision: int = 0
    changed: float = 0.0
    removed: float | None = None
    owner: str | None = None
    position_s: float = 0.0
    language: str | None = None
    token: int = 0
    client: str = ""
    model: str | None = None
    waiter: str | None = None
    losses: int = 0

    @property
    def under_way(self) -> bool:
        return self.status in WAITING


def new_job_id() -> str:
    return f"job_{secrets.token_hex(12)}"


def is_job_id(text: str) -> bool:
    """Return whether an id is one of ours, which may name a folder."""
    return _ID.fullmatch(text) is not None


@contextmanager
def undamaged(job: Job, what: str) -> Iterator[None]:
    """Convert errors of reading what a job has stored; their messages contain no paths.

    Raises:
        RequestError: 500, it is damaged.
        StorageError: the disk, the database or the bucket is out of reach.
    """
    try:
        yield
    except StorageError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        LibsndfileError,
        SpeakerReasonerError,
    ) as error:
        _log.warning("%s: %s: %s", job.id, what, error)
        raise damaged(what) from error


def damaged(what: str) -> RequestError:
    """Return the error of stored data of a job that cannot be used."""
    return RequestError(
        500, f"{what} of this job is damaged; remove the job, and send it again", code="job_damaged"
    )


def parse_operation_row(text: str) -> dict[str, Any]:
    """Parse a stored correction.

    Raises:
        ValueError: it is damaged.
    """
    operation = json.loads(text)
    if not isinstance(operation, dict) or not isinstance(operation.get("op"), str):
        raise ValueError(f"expected an operation, got {text[:80]!r}")
    return operation


def job_of_row(row: Mapping[Any, Any]) -> Job:
    """Make a job of its row; one that cannot be read has failed."""
    status, listen = row["status"], row["listen"]
    try:
        voices, error = json.loads(row["voices"]), json.loads(row["error"] or "null")
        if not isinstance(voices, list) or not all(isinstance(name, str) for name in voices):
            raise ValueError(f"voices: expected a list of names, got {voices!r}")
        if status not in _STATES:
            raise ValueError(f"status: got {status!r}, expected one of {_STATES}")
        if error is not None and not isinstance(error, dict):
            raise ValueError(f"error: expected an object, got {error!r}")
    except (ValueError, TypeError) as reason:
        _log.warning("%s: its row in the database: %s", row["id"], reason)
        error = damaged("the row in the database").body()["error"]
        status, voices, listen = "failed", [], None
    return Job(
        row["id"],
        row["name"],
        status,
        row["created"],
        row["duration_s"],
        row["speakers"],
        tuple(voices),
        listen,
        row["listen_keep"] != 0,
        row["speaker_count"],
        error,
        row["revision"],
        row["changed"] or row["created"],
        row["removed"],
        row["owner"],
        row["position_s"] or 0.0,
        row["language"],
        row["token"] or 0,
        row["client"] or "",
        row["model"],
        row["waiter"],
        row["losses"] or 0,
    )
