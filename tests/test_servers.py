"""Several servers over one PostgreSQL and one bucket or folder: real processes, a real database, a real S3
server on loopback; the engine plays turns."""

import itertools
import os
import queue
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest

from speaker_reasoner.longform import Transcriber

from . import postgres as postgresql
from . import s3_server
from .postgres import Postgres
from .serving import error_of, events_of, wait_until, wav
from .simulated import Simulated

pytest.importorskip("psycopg", reason="pip install 'speaker-reasoner[postgresql]'")
postgres = postgresql.postgres
__all__ = ["postgres"]
ROOT = Path(__file__).parents[1]
LEASE_S = 3
_numbers = itertools.count()


class Server:
    """`serve` in a process of its own."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.simulated", "serve", "--port", "0", *words],
            cwd=ROOT,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = ""

    def _read(self) -> None:
        assert self.process.stderr is not None
        with suppress(ValueError):
            for line in self.process.stderr:
                self.said.append(line)
                self._lines.put(line)
        self._lines.put("")

    def ready(self) -> "Server":
        while not self.url:
            line = self._lines.get(timeout=60)
            assert line, f"it ended: {''.join(self.said)}"
            if match := re.search(r"listening on (http://\S+);", line):
                self.url = match[1]
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        assert self.process.stderr is not None
        with suppress(ValueError):
            self.process.stderr.close()
        return status


class Cloud:
    """A database and a store of their own, and the servers over them."""

    def __init__(
        self, database: str, store: str, folder: Path, environment: dict[str, str]
    ) -> None:
        self.database, self.store, self.folder = database, store, folder
        self.environment = environment
        self.servers: list[Server] = []

    def begin(self, *words: str, **environment: str) -> Server:
        """Start a server, without waiting for it."""
        shared = ["--database", self.database, "--store", self.store, "--lease", str(LEASE_S)]
        shared += ["--scratch", str(self.folder / "scratch")]
        environment = {"SIMULATED_S": "0.02", **self.environment, **environment}
        self.servers.append(Server([*shared, *words], environment))
        return self.servers[-1]

    def start(self, *words: str, **environment: str) -> Server:
        return self.begin(*words, **environment).ready()

    def stop(self) -> None:
        for server in self.servers:
            if server.process.poll() is None:
                server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """An account of an S3 server with a bucket, and the folder of the server."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("s3")
    with s3_server.running(folder) as environment:
        code = "import s3fs; s3fs.S3FileSystem().mkdir('audio')"
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True)
        yield environment, folder


@pytest.fixture
def cloud(
    postgres: Postgres, bucket: tuple[dict[str, str], Path], tmp_path: Path
) -> Iterator[Cloud]:
    """Over a bucket."""
    name = f"cloud{next(_numbers)}"
    made = Cloud(postgres.create(name), f"s3://audio/{name}", tmp_path, bucket[0])
    yield made
    made.stop()


@pytest.fixture
def shared_folder(postgres: Postgres, tmp_path: Path) -> Iterator[Cloud]:
    """Over a folder."""
    made = Cloud(postgres.create(f"cloud{next(_numbers)}"), str(tmp_path / "store"), tmp_path, {})
    yield made
    made.stop()


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as client:
        yield client


def send(http: httpx2.Client, server: Server, seconds: float = 9.0, **fields: Any) -> str:
    answer = http.post(
        f"{server.url}/v1/jobs", files={"file": ("a.wav", wav(seconds))}, data=fields
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def status(http: httpx2.Client, server: Server, job: str) -> str:
    return str(http.get(f"{server.url}/v1/jobs/{job}").json()["status"])


def texts(http: httpx2.Client, server: Server, job: str) -> list[str]:
    document = http.get(f"{server.url}/v1/jobs/{job}/document").json()
    return [line["text"] for line in document["segments"]]


@cache
def spoken(seconds: float) -> list[str]:
    """What one process makes of a recording."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        path.write_bytes(wav(seconds))
        return [line.text for line in Transcriber(Simulated()).transcribe(path).segments]


def test_a_front_and_a_worker_over_a_bucket(cloud: Cloud, http: httpx2.Client) -> None:
    front = cloud.start("--no-engine")
    refused = http.post(f"{front.url}/v1/jobs", files={"file": ("a.wav", wav())})
    assert "--worker" in error_of(refused, 503, "no_worker") and refused.headers["retry-after"]
    error_of(http.get(f"{front.url}/v1/models"), 503, "no_worker")
    worker = cloud.start("--worker")
    assert http.get(f"{worker.url}/v1/jobs").status_code == 404
    assert http.get(f"{worker.url}/metrics").status_code == 200
    model = http.get(f"{front.url}/v1/models").json()["data"][0]["id"]
    assert model == "scripted"
    job = send(http, front, 60.0)
    told = events_of(http.get(f"{front.url}/v1/jobs/{job}/events").text)
    assert told[-1][1] == "job" and told[-1][2]["status"] == "done"
    assert texts(http, front, job) == spoken(60.0)
    lines = [data["text"] for _, name, data in told if name == "segment"]
    assert lines == spoken(60.0), "each line once, in order"
    audio = http.get(f"{front.url}/v1/jobs/{job}/audio", headers={"range": "bytes=0-43"})
    assert audio.status_code == 206 and audio.content[:4] == b"RIFF"
    assert len(http.get(f"{front.url}/v1/jobs/{job}/peaks").content) == 6000
    url = f"{front.url}/v1/jobs/{job}/corrections"
    made = http.post(url, json={"revision": 0, "op": "edit", "segment": "0", "text": "typed"})
    assert made.status_code == 200
    again = http.post(url, json={"revision": 1, "op": "listen", "chunk": 1})
    assert again.status_code == 202
    wait_until(lambda: status(http, front, job) == "done")
    assert texts(http, front, job) == ["typed", *spoken(60.0)[1:]]
    assert http.delete(f"{front.url}/v1/jobs/{job}?erase=true").status_code == 200
    assert http.get(f"{front.url}/v1/jobs/{job}").status_code == 404


def test_requests_through_a_front(cloud: Cloud, http: httpx2.Client) -> None:
    """Answered as by a server with an engine of its own, streamed or not; nothing of them is left."""
    whole, front = cloud.start(), cloud.start("--no-engine")
    answers = []
    for server in (whole, front):
        url = f"{server.url}/v1/audio/transcriptions"
        files = {"file": ("a.wav", wav(9.0))}
        form = {"model": "scripted", "response_format": "diarized_json"}
        plain = http.post(url, files=files, data=form).json()
        streamed = events_of(http.post(url, files=files, data={**form, "stream": "true"}).text)
        answers.append((plain, streamed))
    assert answers[0][0] == answers[1][0] and answers[0][0]["segments"]

    def by_kind(told: Any, kind: str) -> Any:
        return [data for _, name, data in told if name == kind]

    for kind in ("delta", "segment", "done"):
        mine, theirs = (by_kind(told, f"transcript.text.{kind}") for _, told in answers)
        assert mine == theirs and mine
    wrong = http.post(
        f"{front.url}/v1/audio/transcriptions",
        files={"file": ("a.wav", wav())},
        data={"model": "other"},
    )
    assert "scripted" in error_of(wrong, 404, "model_not_found")
    assert http.get(f"{front.url}/v1/jobs").json()["data"] == []


def test_any_of_three_is_killed(cloud: Cloud, http: httpx2.Client) -> None:
    """A front and two workers; each of them dies once at a random moment, and comes back."""
    kill_one_after_the_other(cloud, http, [("--no-engine",), ("--worker",), ("--worker",)], 3)


def kill_one_after_the_other(
    cloud: Cloud, http: httpx2.Client, kinds: list[tuple[str, ...]], kills: int
) -> None:
    rng = random.Random(len(kinds[0]) + kills)
    servers = [cloud.begin(*kind) for kind in kinds]
    for server in servers:
        server.ready()
    takes = [n for n, kind in enumerate(kinds) if kind != ("--worker",)]
    accepted: dict[str, float] = {}
    for number in range(kills):
        victim = number % len(kinds)
        timer = threading.Timer(rng.uniform(0.2, 2.0), servers[victim].process.kill)
        timer.start()
        while servers[victim].process.poll() is None:
            seconds = rng.choice((3.0, 9.0, 30.0))
            with suppress(httpx2.HTTPError):  # it was killed meanwhile: nothing was promised
                accepted[send(http, servers[rng.choice(takes)], seconds)] = seconds
        timer.join()
        servers[victim].end(signal.SIGKILL)
        servers[victim] = cloud.start(*kinds[victim])
    assert len(accepted) > kills
    asked = servers[takes[-1]]
    for job, seconds in accepted.items():
        wait_until(lambda job=job: status(http, asked, job) == "done", 120)  # type: ignore[misc]
        assert texts(http, asked, job) == spoken(seconds), job
        told = events_of(http.get(f"{asked.url}/v1/jobs/{job}/events").text)
        numbers = [int(number) for number, _, _ in told if number is not None]
        assert numbers == list(range(1, len(numbers) + 1))
        lines = [data["id"] for _, name, data in told if name == "segment"]
        assert len(set(lines)) == len(lines) == len(spoken(seconds)), "nothing is told twice"
