"""Around every request: who may ask, and from where; the headers of every response; counts.

Pure ASGI, so that bodies and disconnects pass through untouched.
"""

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .failures import RequestError

_OPEN = ("/", "/health")
_LINGER_S = 2.0
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY = (
    "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'sha256-2/AFTPuP4qEbSn4KmAzsJt3JK6WrqUViQjrdhLR/QMQ='; font-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page has no script and no address but its own; the hash is of wavesurfer's style sheet."""
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Of every response that does not say otherwise."""


class Guard:
    """Lets a request through, or answers it.

    Args:
        app: behind it.
        api_key: that requests must carry; without one only loopback names are served, so that no
            other site can reach the server under a name of its own.
        registry: of the counts.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, registry: CollectorRegistry) -> None:
        self._app = app
        self._key = api_key.encode() if api_key else None
        self._requests = Counter(
            "speaker_reasoner_requests",
            "Requests by method, route and status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "speaker_reasoner_request_seconds",
            "Time from a request's head to the end of its response.",
            ("method", "route"),
            buckets=(0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800),
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500
        sent = Headers(scope=scope)
        unread = "transfer-encoding" in sent or sent.get("content-length", "0") != "0"

        async def receive_on() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if unread:
                    headers["connection"] = "close"
            elif unread and not message.get("more_body"):
                await send({**message, "more_body": True})
                await _drain(receive)
                message = {"type": "http.response.body"}
            await send(message)

        try:
            refused = self._refuse(scope)
            if refused is None:
                await self._app(scope, receive_on, send_on)
            else:
                await answer_error(refused, send_on)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._requests.labels(scope["method"], route, str(status)).inc()
            self._seconds.labels(scope["method"], route).observe(time.perf_counter() - begun)

    def _refuse(self, scope: Scope) -> RequestError | None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if self._key is None and not _is_loopback(host):
            return RequestError(
                403,
                f"host {host!r}: a server without a key answers on localhost only",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if scope["method"] not in _READING and origin is not None and not _same(origin, host):
            return RequestError(
                403,
                f"origin {origin!r}: other sites may not change anything here",
                code="origin_not_allowed",
            )
        is_open = path in _OPEN or path.startswith("/static/")
        if self._key is not None and not is_open and not self._knows_key(headers):
            return RequestError(
                401,
                "expected the server's key as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None

    def _knows_key(self, headers: Headers) -> bool:
        assert self._key is not None
        kind, _, given = headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(given.strip().encode(), self._key)
        return known and kind.lower() == "bearer"


async def _drain(receive: Receive) -> None:
    """Read on for a while after an early answer: a client that is still sending would otherwise
    find its connection reset, and not the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body"):
                pass


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(origin: str, host: str) -> bool:
    """Whether an origin is the server's own, by name and port."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


async def answer_error(error: RequestError, send: Send) -> None:
    """Send an error in OpenAI's shape."""
    body = json.dumps(error.body()).encode()
    headers: Mapping[str, str] = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
