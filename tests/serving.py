"""A server over an engine that plays turns, for tests; requests to it, and readers of its answers."""

import base64
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.protocol import Profile
from speaker_reasoner.server.app import create_app
from speaker_reasoner.server.failures import database_error as database_error
from speaker_reasoner.server.keeper import Rules
from speaker_reasoner.server.service import ServiceSettings

from .conftest import noise
from .talk import PROFILE, play
from .test_meetings import CACHED, Humming, tone

URL = "http://127.0.0.1"
QUICK = Rules(beat_s=0.05)


def wav(seconds: float = 3.0, seed: int = 0, **options: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(seconds, seed), 16_000, format="WAV", **options)
    return file.getvalue()


def sound(samples: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    return file.getvalue()


def data_url(clip: bytes) -> str:
    return f"data:audio/wav;base64,{base64.b64encode(clip).decode()}"


class DocumentedClient(TestClient):
    """A client that checks every answer against /openapi.json: status, error code, keys."""

    def request(self, method: str, url: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().request(method, url, *args, **kwargs)
        path = urlsplit(str(url)).path
        for template, methods in documented()["paths"].items():
            pattern = template.replace("{name}", ".+").replace("{job_id}", "[^/]+")
            if re.fullmatch(pattern, path) and method.lower() in methods:
                self._check(methods[method.lower()]["responses"], answer)
        return answer

    def _check(self, responses: dict[str, Any], answer: Any) -> None:
        failed = answer.status_code >= 400 and "error" in answer.json()
        if failed and answer.json()["error"]["code"] == "not_found":
            return  # no route was reached
        assert str(answer.status_code) in responses, f"{answer.request.url}: {answer.text}"
        expected = responses[str(answer.status_code)]
        kind = answer.headers.get("content-type", "").split(";")[0]
        if failed:
            assert f"`{answer.json()['error']['code']}`" in expected["description"], answer.text
        else:
            assert kind in expected["content"], f"{kind}: {expected['content']}"
        if kind == "application/json" and "schema" in expected["content"].get(kind, {}):
            schema = {
                **expected["content"][kind]["schema"],
                "components": documented()["components"],
            }
            jsonschema.validate(answer.json(), schema)


@cache
def documented() -> Any:
    """/openapi.json, made once: of servers with a key and without, it differs in `security` alone."""
    with TemporaryDirectory() as store:
        settings = ServiceSettings(Path(store), engine_api=True)
        app = create_app(Transcriber(ScriptedEngine(play, PROFILE)), settings)
        schema = app.openapi()
        app.state.service.store.close()
    return schema


class Gate:
    """Plays turns, each only once it is let through."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, request: Request) -> str:
        self.reached.set()
        assert self.open.wait(20)
        return play(request)


Serve = Callable[..., TestClient]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers on one store, one after the other."""
    running: list[TestClient] = []

    def stop() -> None:
        while running:
            running.pop().__exit__(None, None, None)

    def start(
        turns: Callable[[Request], str] = play,
        profile: Profile = PROFILE,
        *,
        channels: str = "mix",
        **settings: Any,
    ) -> TestClient:
        stop()
        store = tmp_path / "store"
        running.append(start_on(store, turns, profile, channels=channels, **settings))
        return running[-1]

    yield start
    stop()


def start_on(
    store: Path,
    turns: Callable[[Request], str] = play,
    profile: Profile = PROFILE,
    *,
    channels: str = "mix",
    **settings: Any,
) -> TestClient:
    """A server on a store, to be left by `__exit__`."""
    transcriber = Transcriber(ScriptedEngine(turns, profile), detect=None, channels=channels)
    settings.setdefault("rules", QUICK)
    settings["separate"] = channels == "separate"
    app = create_app(transcriber, ServiceSettings(store, **settings))
    client = DocumentedClient(app, base_url=URL, raise_server_exceptions=False)
    client.__enter__()
    return client


def post(client: TestClient, data: bytes = b"", name: str = "talk.wav", **fields: Any) -> Any:
    form = {"model": "scripted", **fields}
    return client.post(
        "/v1/audio/transcriptions", data=form, files={"file": (name, data or wav(), "audio/wav")}
    )


def add_job(client: TestClient, data: bytes = b"", name: str = "talk.wav", **fields: Any) -> Any:
    answer = client.post("/v1/jobs", data=fields, files={"file": (name, data or wav(9.0))})
    assert answer.status_code == 202, answer.text
    return answer.json()


def wait(client: TestClient, job: Any, *until: str) -> Any:
    for _ in range(2000):
        now = client.get(f"/v1/jobs/{job['id']}").json()
        if now["status"] in (until or ("done", "failed", "cancelled")):
            return now
        time.sleep(0.005)
    raise AssertionError(f"still {now}")


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def events_of(text: str) -> list[tuple[str | None, str, Any]]:
    """Id, name and data of server-sent events."""
    events = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":"))
        if lines:
            events.append((lines.get("id"), lines["event"], json.loads(lines["data"])))
    return events


def error_of(answer: Any, status: int, code: str) -> str:
    """The message of an error in OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code, error
    return str(error["message"])


def known(**clips: Any) -> dict[str, Any]:
    """Fields of voices that are known by name."""
    return {
        "known_speaker_names[]": list(clips),
        "known_speaker_references[]": [data_url(sound(clip)) for clip in clips.values()],
    }


def hum(pitch: float) -> Any:
    """A clip of somebody who hums, between silences."""
    quiet = np.zeros(8000, np.float32)
    return np.concatenate([quiet, tone(pitch, 2.5), quiet])


@pytest.fixture
def meeting(serve: Serve) -> TestClient:
    """A server with a model that remembers voices, and hears who hums at which pitch."""
    return serve(Humming(), CACHED)
