"""What ElevenLabs' and Deepgram's libraries share, which one program (Fern) wrote: their errors."""

from importlib import import_module
from typing import Any

import httpx

from ..engines.client import Unavailable
from ..errors import AnswerError, SpeakerReasonerError
from .service import http_error


def of_fern(system: str, package: str, error: Exception) -> SpeakerReasonerError | Unavailable:
    """The error that stands for one of a library.

    Args:
        system: its name.
        package: of the library.

    Raises:
        Exception: it is none of the library's, but a bug.
    """
    api_error: Any = import_module(f"{package}.core.api_error").ApiError
    parsing_error: Any = import_module(f"{package}.core.parse_error").ParsingError
    if isinstance(error, httpx.HTTPError):
        return http_error(system, None, f"{type(error).__name__}: {error}")
    if isinstance(error, parsing_error):
        return AnswerError("format", "an answer that its library cannot read", error.body)
    if isinstance(error, api_error):
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return http_error(system, error.status_code, _said(error.body), headers, error.body)
    raise error


def _said(body: Any) -> str:
    """The message of an error."""
    while isinstance(body, dict):
        body = next((body[k] for k in ("detail", "message", "err_msg", "error") if k in body), None)
    return str(body or "no reason given")
