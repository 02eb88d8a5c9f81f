"""Servers of the chat-completions API for tests: our own on a real port, and one with replies that a test gives."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn

from speaker_reasoner.commands.serve import listen
from speaker_reasoner.engines.base import Engine
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.server.app import create_app
from speaker_reasoner.server.service import ServiceSettings


@contextmanager
def ours(engine: Engine, store: Path, **settings: Any) -> Iterator[str]:
    """The base URL of a server of ours over an engine."""
    app = create_app(
        Transcriber(engine, detect=None), ServiceSettings(store, engine_api=True, **settings)
    )
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join(20)


@dataclass
class Answer:
    """The answer to a request: JSON, or raw bytes after which the connection is closed."""

    body: Any = None
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    promised: int | None = None
    wait_s: float = 0.0


def completion(text: str | None, model: str = "m", **choice: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
    }


def error(status: int, message: str, **headers: str) -> Answer:
    return Answer({"error": {"message": message, "code": None}}, status, headers=headers)


class AskedServer(ThreadingHTTPServer):
    """Answers chat completions as a function says; keeps what was asked.

    Args:
        reply: from the request's body to its answer, or to the text of a completion.
        models: entries of the list of models, or an answer in its place.
    """

    daemon_threads = True

    def __init__(
        self,
        reply: Callable[[dict[str, Any]], Answer | str],
        models: Sequence[dict[str, Any]] | Answer = ({"id": "m", "owned_by": "vllm"},),
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.models = models
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.connections: set[Any] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer on a kept connection waits 40 ms
    server: AskedServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        models = self.server.models
        if not isinstance(models, Answer):
            models = Answer({"object": "list", "data": list(models)})
        self._send(models if self.path == "/v1/models" else error(404, "Not Found"))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("authorization"))
        self.server.connections.add(self.client_address)
        if self.path != "/v1/chat/completions":
            return self._send(error(404, "Not Found"))
        answer = self.server.reply(body)
        return self._send(answer if isinstance(answer, Answer) else Answer(completion(answer)))

    def _send(self, answer: Answer) -> None:
        time.sleep(answer.wait_s)
        data = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("content-type", answer.kind)
        self.send_header("content-length", str(answer.promised or len(data)))
        for name, value in answer.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        if answer.promised:
            self.close_connection = True


@contextmanager
def asked_server(
    reply: Callable[[dict[str, Any]], Answer | str], **more: Any
) -> Iterator[AskedServer]:
    """Run a server with the replies of a function."""
    server = AskedServer(reply, **more)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
