"""A loopback server that answers like hosted transcription services, with replies that a test gives."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """A client's request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """The answer to a request: JSON; text or bytes (called JSON) as they are."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Answer = Callable[[Request], Reply]


def always(body: Any, status: int = 200) -> Answer:
    """The same reply to every request."""
    return lambda request: Reply(body, status)


@dataclass
class Service:
    """A service under test.

    Attributes:
        answer: gives the reply to each request; a test may set another.
        requests: that came.
        most: requests that were answered at the same time.
    """

    url: str
    answer: Answer
    requests: list[Request] = field(default_factory=list)
    most: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(answer: Answer) -> Iterator[Service]:
    """A server on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer on a kept connection waits 40 ms

        def do_POST(self) -> None:
            chunked = self.headers.get("transfer-encoding") == "chunked"
            body = (
                self._chunks()
                if chunked
                else self.rfile.read(int(self.headers.get("content-length", 0)))
            )
            request = Request(
                self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body
            )
            with service.lock:
                service.requests.append(request)
                service.now += 1
                service.most = max(service.most, service.now)
            try:
                reply = service.answer(request)
            finally:
                with service.lock:
                    service.now -= 1
            text = isinstance(reply.body, str)
            data = reply.body.encode() if text else reply.body
            if not isinstance(data, bytes):
                data = json.dumps(data).encode()
            self.send_response(reply.status)
            self.send_header("content-type", "text/html" if text else "application/json")
            self.send_header("content-length", str(len(data)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def _chunks(self) -> bytes:
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    service = Service(f"http://127.0.0.1:{server.server_address[1]}", answer)
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
