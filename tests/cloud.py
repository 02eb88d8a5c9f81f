"""Servers in processes of their own over one database and one store, for tests and `benchmarks/servers.py`."""

import os
import queue
import random
import re
import signal
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from speaker_reasoner.longform import Transcriber

from .forked import SERVERS, Forked
from .serving import events_of, wait_until, wav
from .simulated import Simulated

Line = tuple[Any, ...]
LEASE_S = 3
STOPPED = {0, -signal.SIGTERM}
"""uvicorn stops in good order, and passes the signal on."""


FRONT_AND_WORKERS: list[tuple[str, ...]] = [("--no-engine",), ("--worker",), ("--worker",)]


class Server:
    """`serve` in a process of its own."""

    def __init__(
        self, words: list[str], environment: dict[str, str], module: str = "tests.simulated"
    ) -> None:
        words = [module, "serve", "--port", "0", *words]
        self.process = Forked(SERVERS, words, {**os.environ, **environment})
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = ""

    def _read(self) -> None:
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

    def failed(self) -> str:
        """Return the output of a server that has ended by itself."""
        assert self.process.wait(60) in (1, 2)
        said = "".join(iter(lambda: self._lines.get(timeout=10), ""))
        assert "Traceback" not in said
        self.process.stderr.close()
        return said

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        status = self.process.wait(60)
        with suppress(ValueError):
            self.process.stderr.close()
        return status


def alone(store: Path, *words: str) -> Server:
    """Start a server over a folder and its SQLite, with a slow engine."""
    return Server(["--store", str(store), "--lease", "4", *words], {"SIMULATED_S": "0.02"}).ready()


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
        environment = {"SIMULATED_S": "0.05", **self.environment, **environment}
        self.servers.append(Server([*shared, *words], environment))
        return self.servers[-1]

    def start(self, *words: str, **environment: str) -> Server:
        return self.begin(*words, **environment).ready()

    def stop(self) -> None:
        for server in self.servers:
            server.end(signal.SIGKILL)


def send(http: httpx2.Client, server: Server, seconds: float = 9.0, **fields: Any) -> str:
    answer = http.post(
        f"{server.url}/v1/jobs", files={"file": ("a.wav", wav(seconds))}, data=fields
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def status(http: httpx2.Client, server: Server, job: str) -> str:
    return str(http.get(f"{server.url}/v1/jobs/{job}").json()["status"])


def texts(http: httpx2.Client, server: Server, job: str) -> list[str]:
    return [text for *_, text in lines(http, server, job)]


def lines(http: httpx2.Client, server: Server, job: str) -> list[Line]:
    """Speaker, start, end and text of a job's segments."""
    document = http.get(f"{server.url}/v1/jobs/{job}/document").json()
    keys = ("speaker", "start", "end", "text")
    return [tuple(line[key] for key in keys) for line in document["segments"]]


@cache
def expected_lines(seconds: float) -> list[Line]:
    """Return one process's transcript of a recording, in the form of `lines`."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        path.write_bytes(wav(seconds))
        segments = Transcriber(Simulated()).transcribe(path).segments
    return [(one.speaker, one.start_s, one.end_s, one.text) for one in segments]


def expected_texts(seconds: float) -> list[str]:
    """The texts of `expected_lines`."""
    return [text for *_, text in expected_lines(seconds)]


def is_done(http: httpx2.Client, server: Server, job: str) -> bool:
    answer = http.get(f"{server.url}/v1/jobs/{job}")
    return answer.status_code == 200 and answer.json()["status"] == "done"


def kill_one_after_the_other(
    cloud: Cloud,
    http: httpx2.Client,
    kinds: list[tuple[str, ...]],
    kills: int,
    seed: int = 0,
    *,
    within_s: float = 2.0,
    pause_s: float = 0.0,
) -> dict[str, Any]:
    """Kill servers at random moments while jobs come in, each at least once in as many kills as there are, and check
    that every accepted job ends once, with the transcript that one process makes of it.

    Args:
        within_s: of its turn each victim dies.
        pause_s: between a job and the next.

    Returns:
        Counts of kills, jobs and servers.
    """
    rng = random.Random(seed)
    begun = time.monotonic()
    servers = [cloud.begin(*kind) for kind in kinds]
    for server in servers:
        server.ready()
    takes = [n for n, kind in enumerate(kinds) if kind != ("--worker",)]
    accepted: dict[str, float] = {}
    unanswered = 0
    for number in range(kills):
        victim = number if number < len(kinds) else rng.randrange(len(kinds))
        timer = threading.Timer(rng.uniform(0.2, within_s), servers[victim].process.kill)
        timer.start()
        while servers[victim].process.poll() is None:
            seconds = rng.choice((3.0, 9.0, 30.0))
            try:
                accepted[send(http, servers[rng.choice(takes)], seconds)] = seconds
            except httpx2.HTTPError:  # it was killed meanwhile: nothing was promised
                unanswered += 1
            time.sleep(pause_s)
        timer.join()
        servers[victim].end(signal.SIGKILL)
        servers[victim] = cloud.start(*kinds[victim])
    assert len(accepted) > kills
    asked = servers[takes[-1]]
    for job, seconds in accepted.items():
        wait_until(lambda job=job: is_done(http, asked, job), 240)  # type: ignore[misc]
        assert lines(http, asked, job) == expected_lines(seconds), job
        events = events_of(http.get(f"{asked.url}/v1/jobs/{job}/events").text)
        numbers = [int(number) for number, _, _ in events if number is not None]
        assert numbers == list(range(1, len(numbers) + 1)), events
        ids = [data["id"] for _, name, data in events if name == "segment"]
        assert len(set(ids)) == len(ids) == len(expected_lines(seconds)), "nothing is told twice"
    return {
        "servers": [" ".join(kind) or "full" for kind in kinds],
        "kills": kills,
        "accepted": len(accepted),
        "cut_off_while_sent": unanswered,
        "taken_over": taken_over(cloud.database, list(accepted)),
        "ended_once_with_the_same_transcript": len(accepted),
        "wall_s": round(time.monotonic() - begun, 1),
    }


def taken_over(database: str, jobs: list[str]) -> int:
    """Return how many jobs were given to more than one server."""
    from sqlalchemy import create_engine, func, select

    from speaker_reasoner.server.database import JOBS

    engine = create_engine(database)
    with engine.connect() as connection:
        query = select(func.count()).where(JOBS.c.id.in_(jobs), JOBS.c.token > 2)
        count = int(connection.scalar(query) or 0)
    engine.dispose()
    return count
