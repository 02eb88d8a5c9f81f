"""Common to all hosted services: errors of HTTP, and answers in the formats that `formats.services` reads."""

import json
import re
from collections.abc import Mapping
from typing import Any

from ..engines.client import AGAIN, Unavailable, retry_after
from ..errors import AnswerError, EngineError, SpeakerReasonerError
from ..formats.gathering import gather
from ..formats.service_rows import ServiceRow
from ..formats.services import SERVICE_FORMATS
from ..transcript import Transcript
from .base import Sound

SEGMENTS = "OpenAI, Whisper, WhisperX, faster-whisper"
"""The kind that all of these write."""
NO_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)
"""Errors of libraries on an answer that is no JSON; they pass them on."""
_SHOWN = 300
"""Characters of a message that are shown."""
_TOO_LONG = re.compile(r"longer than|too (long|large)|exceeds? the (maximum|limit)", re.IGNORECASE)
"""Messages of services that answer 400: "audio duration 1500 seconds is longer than 1400 seconds"."""


def http_error(
    system: str,
    status: int | None,
    message: object,
    headers: Mapping[str, str] | None = None,
    raw: object = None,
) -> SpeakerReasonerError | Unavailable:
    """The error that stands for a status of HTTP.

    Args:
        system: its name.
        status: `None` where no answer came.
        message: of the answer.
        headers: of the answer, names in lower case.
        raw: the answer, JSON-ready.

    Returns:
        `Unavailable` where it can be tried again; `EngineError` where no request will be answered; `AnswerError`
        where this one will not.
    """
    said = " ".join(str(message).split())[:_SHOWN]
    if status is None or status in AGAIN:
        what = said if status is None else f"HTTP {status}: {said}"
        wait_s = retry_after((headers or {}).get("retry-after"))
        return Unavailable(what, limited=status == 429, wait_s=wait_s)
    if status in (401, 402, 403, 404) or 300 <= status < 400:
        return EngineError(
            f"{system}: HTTP {status}: {said}; check the key, its account, the model and --base-url"
        )
    if status < 400:  # an answer that is none
        return AnswerError(
            "format", f"{system}: HTTP {status}, expected JSON, got {said[:60]!r}", raw
        )
    too_long = status == 413 or (status == 400 and _TOO_LONG.search(said) is not None)
    reason = "too-long" if too_long else "refused"
    return AnswerError(reason, f"{system}: HTTP {status}: {said}", raw)


def service_transcript(kind: str, raw: Any, sound: Sound) -> Transcript:
    """The transcript of a service's JSON.

    Args:
        kind: name of one of `formats.services.SERVICE_FORMATS`.
        raw: the JSON.

    Raises:
        AnswerError: `format`: it is not of that kind; `no-times`: words have no start or end.
        FormatError: its values are wrong.
    """
    known = next(one for one in SERVICE_FORMATS if one.name == kind)
    if not known.fits(raw):
        held = ", ".join(list(raw)[:8]) if isinstance(raw, dict) else type(raw).__name__
        raise AnswerError("format", f"expected the JSON of {kind}, got {held or 'an empty object'}")
    rows = list(known.read(raw, "answer"))
    check_times(rows)
    return gather(rows, sound.recording, "answer")


def check_times(rows: list[ServiceRow]) -> None:
    """Make sure that every turn with words has times.

    Raises:
        AnswerError: `no-times`: one has none.
    """
    lost = [row for row in rows if row.text.strip() and (row.start_s is None or row.end_s is None)]
    if lost:
        raise AnswerError(
            "no-times", f"{len(lost)} of {len(rows)} turns have no times, as {lost[0].text[:60]!r}"
        )
