"""Middleware around every request: keys and origins; the headers of every response; counts.

Pure ASGI, so that bodies and disconnects pass through unchanged.
"""

import asyncio
import hmac
import ipaddress
import json
import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from .failures import RequestError

_OPEN = ("/", "/health")
_LINGER_S = 2.0
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _READING | {"POST", "PUT", "PATCH", "DELETE"}
_AUDIO = re.compile(r"/v1/jobs/([^/]+)/audio")
_LINK_S = 86_400
_KEY_PROTOCOL = "openai-insecure-api-key."
_POLICY = (
    "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'sha256-2/AFTPuP4qEbSn4KmAzsJt3JK6WrqUViQjrdhLR/QMQ='; font-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of the page: its own script and addresses; the hash is of wavesurfer's style sheet."""
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""Headers of every response that does not set them itself."""


class Guard:
    """Passes a request on, or refuses it.

    Args:
        app: the application behind it.
        api_key: that requests must carry; without one only loopback names are served, so that no other site can
            reach the server under a name of its own.
        more_keys: further keys, of other clients.
        registry: of the counts.
        origins: other sites whose pages may use the server.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str | None,
        registry: CollectorRegistry,
        origins: Collection[str] = (),
        more_keys: Collection[str] = (),
    ) -> None:
        self._app = _Heads(app)
        self._origins = frozenset(origins)
        self._key = api_key.encode() if api_key else None
        self._keys = [key.encode() for key in (api_key, *more_keys) if key]
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
        if scope["type"] == "websocket":
            refused = self._refuse(scope)
            if refused is not None:
                return await refuse_socket(refused, WebSocket(scope, receive, send))
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
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
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._requests.labels(method, route, str(status)).inc()
            self._seconds.labels(method, route).observe(time.perf_counter() - begun)

    def _refuse(self, scope: Scope) -> RequestError | None:
        headers, path = Headers(scope=scope), _path(scope)
        host = headers.get("host", "")
        if self._key is None and not _is_loopback(host):
            return RequestError(
                403,
                f"host {host!r}: a server without a key answers on localhost only",
                code="host_not_allowed",
            )
        live = scope["type"] == "websocket"  # which other sites could open without asking
        origin = headers.get("origin")
        known = origin is None or origin in self._origins or _same(origin, host)
        if (live or scope["method"] not in _READING) and not known:
            return RequestError(
                403,
                f"origin {origin!r}: other sites may not change anything here",
                code="origin_not_allowed",
            )
        is_open = path in _OPEN or path.startswith("/static/")
        asks = scope.get("method") == "OPTIONS" and "access-control-request-method" in headers
        is_open = is_open or asks or self._is_signed(scope)
        known = self._knows_key(headers) or (live and self._offers_key(scope))
        if self._key is not None and not is_open and not known:
            return RequestError(
                401,
                "expected the server's key as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None

    def _is_signed(self, scope: Scope) -> bool:
        """Return whether a request asks for a job's audio by a signed link that has not expired."""
        link = _AUDIO.fullmatch(_path(scope))
        if self._key is None or link is None or scope.get("method") not in ("GET", "HEAD"):
            return False
        query = QueryParams(scope["query_string"])
        until, given = query.get("until", ""), query.get("signature", "")
        if not until.isascii() or not until.isdigit() or int(until) < time.time():
            return False
        return hmac.compare_digest(given.encode(), sign(self._key, link[1], until).encode())

    def _offers_key(self, scope: Scope) -> bool:
        """Return whether a socket has the key as a subprotocol: browsers cannot set headers of sockets."""
        offered = [one for one in scope.get("subprotocols", []) if one.startswith(_KEY_PROTOCOL)]
        return bool(offered) and self._is_key(offered[0].removeprefix(_KEY_PROTOCOL))

    def _knows_key(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return self._is_key(given.strip()) and kind.lower() == "bearer"

    def _is_key(self, given: str) -> bool:
        known = [hmac.compare_digest(given.encode(), key) for key in self._keys]
        return any(known)


class _Heads:
    """Answers HEAD with the headers of GET, without a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        begun: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def keep_head(message: Message) -> None:
            if not begun.done():
                begun.set_result(message)

        asked = {**scope, "method": "GET"}
        task = asyncio.ensure_future(self._app(asked, receive, keep_head))
        try:
            await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
            if not begun.done():
                await task
            await send(begun.result())
            await send({"type": "http.response.body", "body": b""})
        finally:
            scope["route"] = asked.get("route")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def sign(key: bytes, job_id: str, until: str) -> str:
    """Return the signature of a link to a job's audio."""
    return hmac.new(key, f"audio {job_id} {until}".encode(), "sha256").hexdigest()


def audio_link(key: str | None, job_id: str) -> str:
    """Return the link to the audio of a job, relative to the page, signed for a day or two.

    It is for a player, which sends no key.
    """
    path = f"v1/jobs/{job_id}/audio"
    if key is None:
        return path
    until = str((int(time.time()) // _LINK_S + 2) * _LINK_S)
    return f"{path}?until={until}&signature={sign(key.encode(), job_id, until)}"


def _path(scope: Scope) -> str:
    """Return the path without the prefix under which the server is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


async def _drain(receive: Receive) -> None:
    """Read the rest of a request for a while after an early answer: a client that is still sending would otherwise
    see a reset connection, and not the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body"):
                pass


def _is_loopback(host: str) -> bool:
    """Return whether a Host header names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name.lower() == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(origin: str, host: str) -> bool:
    """Return whether an origin is the server's own, by name and port."""
    try:
        return bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


async def refuse_socket(error: RequestError, socket: WebSocket) -> None:
    """Answer the opening of a socket with an error, as a request would be."""
    await socket.send_denial_response(JSONResponse(error.body(), error.status, error.headers))


async def answer_error(error: RequestError, send: Send) -> None:
    """Send an error in the form of OpenAI's API."""
    body = json.dumps(error.body()).encode()
    headers: Mapping[str, str] = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
