"""A job: a long recording and what became of it, as a row of the database says."""

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
    """A long recording and what became of it.

    Attributes:
        id: made here, never by a client; also names the folder.
        name: what the client calls it.
        status: `queued`, `running`, `done`, `failed` or `cancelled`.
        created: seconds since 1970.
        duration_s: of the recording.
        speakers: hint on their number, as it was given.
        voices: name of each known voice; the n-th lies in `voice-n.wav`.
        listen: chunk that is to be heard again; `None` while the whole recording is.
        listen_keep: whether lines of it that people corrected stay as they are.
        found: how many speakers were heard; `None` until it is done.
        error: of a failed job, or of the last attempt to hear a chunk again, in OpenAI's shape.
        revision: how many corrections were made.
        changed: seconds since 1970 of the last change of its state or transcript.
        removed: when it was put into the bin; `None` where it was not.
        owner: the process that works on it, or did last.
        position_s: how far that process had heard it at its last heartbeat.
        language: code of the language that is spoken, as its client said.
        token: counts who was given the job: what was leased to others since cannot be written to.
        client: whose it is, for a fair queue; empty where nobody asked.
        model: that is to transcribe it; `None` for whichever takes it.
        waiter: the server that has a client on the line who waits for it; `None` for jobs that clients
            know of.
        losses: how many processes have died over it, one after the other, without finishing a chunk.
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
    found: int | None = None
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
    """Read what a job has kept; what cannot be read is told without paths.

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
    """Something that a job has kept cannot be used."""
    return RequestError(
        500, f"{what} of this job is damaged; remove the job, and send it again", code="job_damaged"
    )


def parse_operation_row(text: str) -> dict[str, Any]:
    """A stored correction.

    Raises:
        ValueError: it is damaged.
    """
    operation = json.loads(text)
    if not isinstance(operation, dict) or not isinstance(operation.get("op"), str):
        raise ValueError(f"expected an operation, got {text[:80]!r}")
    return operation


def job_of_row(row: Mapping[Any, Any]) -> Job:
    """A job from its row; one that cannot be read has failed."""
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
        row["found"],
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
