"""A client of the chat-completions API: one event loop in a thread, connections kept, failures tried again.

Knows HTTP and JSON, and nothing of dialogues. What a server cannot do now (429, 5xx, a broken connection, an
answer that is no JSON) is tried again a bounded number of times, after the time it names or one that
doubles; what it refuses is an error at once.
"""

import asyncio
import json
import threading
import weakref
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from ..errors import SettingsError
from ..version import __version__

T = TypeVar("T")

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of HTTP after which the same request may be answered."""
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGEST_ASKED_S = 0.5, 20.0, 120.0
_CONNECT_S = 10.0
_MOST_BYTES = 32 * 1024**2
_SHOWN = 300


class Refused(Exception):
    """The server answered, and does not serve the request.

    Attributes:
        status: of HTTP.
        code: the server's word for the kind of error; empty where it has none.
    """

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unavailable(Exception):
    """The server cannot be reached, or does not answer as an API does, after all attempts.

    Attributes:
        limited: whether it only says that there are too many requests.
        wait_s: how long it asks to wait before the next attempt.
        attempts: how often it was asked.
    """

    def __init__(self, message: str, *, limited: bool = False, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.limited = limited
        self.wait_s = wait_s
        self.attempts = 1


@dataclass(frozen=True, slots=True)
class Address:
    """A server's URL, key, time limit and number of retries.

    Attributes:
        url: of the API, as a rule with `/v1` at its end.
        key: sent as `Authorization: Bearer KEY`; none if `None`.
        timeout_s: longest time for one answer.
        retries: how often a request is tried again.

    Raises:
        SettingsError: the URL or the key cannot be sent.
    """

    url: str
    key: str | None = None
    timeout_s: float = 600.0
    retries: int = 5

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fine = False
        if not fine:
            raise SettingsError(
                f"--base-url {self.url!r}: expected the address of an API, as http://localhost:8000/v1"
            )
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise SettingsError("the API key: expected printable ASCII characters, got others")


class _Loop:
    """An event loop in a thread of its own, so that it can be asked from any thread, with or without a
    loop; an interrupted call is cancelled."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="requests", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        self.loop.run_forever()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class Client:
    """Asks one server.

    Args:
        address: of the server.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        headers = {"user-agent": f"speaker-reasoner/{__version__}"}
        if address.key is not None:
            headers["authorization"] = f"Bearer {address.key}"
        self._loop = _Loop()
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(address.timeout_s, connect=min(_CONNECT_S, address.timeout_s)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        self._closing = weakref.finalize(self, _close, self._loop, self._http)

    def close(self) -> None:
        """Close all connections; no request may follow."""
        self._closing()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work that asks the server, from any thread; it ends early where the caller is interrupted."""
        return self._loop.run(work)

    async def get(self, path: str, *, retries: int | None = None) -> dict[str, Any]:
        """See `post`."""
        return await self._request("GET", path, None, retries)

    async def post(
        self, path: str, body: Mapping[str, Any], *, retries: int | None = None
    ) -> dict[str, Any]:
        """Send a JSON object and read one.

        Args:
            path: below the API's URL.
            retries: in place of the address's, but for a server that has too many requests.

        Raises:
            Refused: the server says no.
            Unavailable: there is no answer to be had.
        """
        return await self._request("POST", path, json.dumps(body).encode(), retries)

    async def _request(
        self, method: str, path: str, content: bytes | None, retries: int | None
    ) -> dict[str, Any]:
        wait_s, attempts = _FIRST_WAIT_S, 0
        while True:
            try:
                async with asyncio.timeout(self.address.timeout_s):
                    return await self._once(method, path, content)
            except TimeoutError:
                error = Unavailable(f"no answer within {self.address.timeout_s:g} s")
            except httpx.HTTPError as failure:
                error = Unavailable(_reason(failure))
            except Unavailable as failure:
                error = failure
            attempts += 1
            error.attempts, asked_s = attempts, error.wait_s
            most = self.address.retries if retries is None or error.limited else retries
            if attempts > most or (asked_s is not None and asked_s > _LONGEST_ASKED_S):
                raise error
            await asyncio.sleep(wait_s if asked_s is None else asked_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _once(self, method: str, path: str, content: bytes | None) -> dict[str, Any]:
        url = self.address.url.rstrip("/") + path
        headers = {} if content is None else {"content-type": "application/json"}
        async with self._http.stream(method, url, content=content, headers=headers) as response:
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > _MOST_BYTES:
                    raise Unavailable(f"an answer of more than {_MOST_BYTES} bytes")
        return _read(response, bytes(data))


def _read(response: httpx.Response, data: bytes) -> dict[str, Any]:
    """The object that was answered."""
    status, kind = response.status_code, response.headers.get("content-type", "no type")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    said = _message(body) or f"{response.reason_phrase or 'no reason'} ({kind.split(';')[0]})"
    if status in AGAIN:
        wait_s = retry_after(response.headers.get("retry-after"))
        raise Unavailable(f"HTTP {status}: {said}", limited=status == 429, wait_s=wait_s)
    if 300 <= status < 400:
        where = response.headers.get("location", "nowhere")
        raise Refused(status, f"HTTP {status}: redirected to {where[:_SHOWN]}; give that address")
    if status >= 400:
        raise Refused(status, f"HTTP {status}: {said}", _code(body))
    if not isinstance(body, dict):
        begins = data[:40].decode("utf-8", errors="replace")
        raise Unavailable(
            f"HTTP {status} with {kind.split(';')[0]}, {begins!r}, expected a JSON object; is it "
            "the address of an API?"
        )
    if body.get("error") or body.get("object") == "error":
        raise Unavailable(f"HTTP {status} with an error: {said}")
    return body


def _message(body: Any) -> str:
    """Return the message in the JSON of an error, on one line; empty if there is none."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error", body)
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return " ".join(str(error).split())[:_SHOWN]


def _code(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("code") or "") if isinstance(error, dict) else ""


def retry_after(text: str | None) -> float | None:
    """Seconds that a server asks to wait, from a number or a date; `None` where there is none that can be read."""
    if not text:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def _reason(error: httpx.HTTPError) -> str:
    said = " ".join(str(error).split())[:_SHOWN]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _close(loop: _Loop, http: httpx.AsyncClient) -> None:
    if not loop.loop.is_running():
        return
    if threading.current_thread() is loop.thread:  # collected there: nobody can wait for it
        loop.loop.stop()
        return
    asyncio.run_coroutine_threadsafe(http.aclose(), loop.loop).result(5)
    loop.loop.call_soon_threadsafe(loop.loop.stop)
    loop.thread.join(5)
