"""Load and faults: many clients at once, clients that hang up, a server that is killed.

    python benchmarks/serve.py [--clients 64] [--seconds 120] [--kills 5]

Starts `speaker-reasoner serve` on a free port of loopback. One client, then many, send recordings and
compare each transcript with that of the library for the same recording, so that a lost or mixed-up one is
counted; throughput is seconds of audio a second. Then clients hang up while they send and while they are
answered, among others that do not. Then jobs are accepted and the server is killed (SIGKILL) under load, again
and again; every job must end with the transcript that it would have had.

The recordings are held-out meetings where the synthesisers are installed, else the example with silences of
different lengths before it.
"""

import argparse
import asyncio
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import soundfile as sf
from rich.console import Console
from rich.table import Table

from common import store
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.errors import DataError
from speaker_reasoner.evaluate.heldout import held_out
from speaker_reasoner.server.openai import Letters

COUNT = 16
ROUTE = "/v1/audio/transcriptions"

Said = list[tuple[str, float, float, str]]
"""Speaker, start, end and text of each segment."""


@dataclass(frozen=True)
class Sample:
    """A recording, and what the library hears in it."""

    path: Path
    duration_s: float
    said: Said


@dataclass
class Tally:
    """What became of the requests of one stretch of load."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    audio_s: float = 0.0
    wall_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        found = np.percentile(self.latencies_s, (50, 90, 99)) if self.latencies_s else (0, 0, 0)
        return {
            "outcomes": dict(self.outcomes),
            "wall_s": round(self.wall_s, 1),
            "audio_s_per_s": round(self.audio_s / self.wall_s, 2) if self.wall_s else 0.0,
            "latency_s": {
                f"p{p}": round(float(v), 2) for p, v in zip((50, 90, 99), found, strict=True)
            },
        }


def recordings(banks: Path, folder: Path) -> list[Path]:
    try:
        sounds = [one.meeting.samples for one in held_out(banks, COUNT)]
    except DataError:
        example, _ = sf.read(Path(__file__).parent.parent / "examples" / "meeting.flac")
        sounds = [np.concatenate([np.zeros(1600 * i), example]) for i in range(COUNT)]
    paths = []
    for i, samples in enumerate(sounds):
        paths.append(folder / f"meeting-{i:02d}.flac")
        sf.write(paths[-1], samples, 16_000)
    return paths


def listen(paths: list[Path]) -> list[Sample]:
    """What the library hears in each recording."""
    samples = []
    results = Transcriber(load_engine(), batch=COUNT).transcribe_all(paths)
    for path, result in zip(paths, results, strict=True):
        assert isinstance(result, Transcript), result
        letters = Letters()
        said = [(letters.of(s.speaker), s.start_s, s.end_s, s.text) for s in result.segments]
        samples.append(Sample(path, result.duration_s, said))
    return samples


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address."""
    command = [sys.executable, "-m", "speaker_reasoner", "serve", "--port", "0"]
    running = subprocess.Popen(
        [*command, "--store", str(folder), *options], stderr=subprocess.PIPE, text=True
    )
    try:
        assert running.stderr is not None
        found = re.match(r"listening on (\S+);", line := running.stderr.readline())
        assert found, line + running.stderr.read()
        yield running, found[1]
    finally:
        running.kill()
        running.wait()


def body_of(sample: Sample) -> dict[str, Any]:
    return {
        "data": {"model": "embedded", "response_format": "diarized_json"},
        "files": {"file": (sample.path.name, sample.path.read_bytes())},
    }


async def one_request(client: httpx2.AsyncClient, sample: Sample, tally: Tally) -> None:
    """Send a recording until it is taken, and compare what comes back."""
    while True:
        begun = time.monotonic()
        answer = await client.post(ROUTE, **body_of(sample))
        if answer.status_code != 429:
            break
        tally.outcomes["told to wait"] += 1
        await asyncio.sleep(float(answer.headers["retry-after"]))
    if answer.status_code != 200:
        tally.outcomes[f"status {answer.status_code}"] += 1
        return
    segments = answer.json()["segments"]
    said = [(s["speaker"], s["start"], s["end"], s["text"]) for s in segments]
    tally.outcomes["right" if said == sample.said else "wrong"] += 1
    tally.latencies_s.append(time.monotonic() - begun)
    tally.audio_s += sample.duration_s


async def load(url: str, samples: list[Sample], clients: int, seconds: float) -> Tally:
    """Clients that send one recording after the other."""
    tally, begun = Tally(), time.monotonic()

    async def client(number: int) -> None:
        rng = random.Random(number)
        async with httpx2.AsyncClient(base_url=url, timeout=600) as http:
            while time.monotonic() - begun < seconds:
                await one_request(http, rng.choice(samples), tally)

    await asyncio.gather(*(client(number) for number in range(clients)))
    tally.wall_s = time.monotonic() - begun
    return tally


async def hang_ups(url: str, samples: list[Sample], clients: int) -> Tally:
    """A third of the clients hangs up while it sends, a third in the answer, a third does not."""
    tally = Tally()
    begun = time.monotonic()

    async def client(number: int) -> None:
        sample = samples[number % len(samples)]
        async with httpx2.AsyncClient(base_url=url, timeout=600) as http:
            if number % 3 == 0:
                await one_request(http, sample, tally)
            elif number % 3 == 1:
                await _cut_upload(url, sample)
                tally.outcomes["hung up while sending"] += 1
            else:
                made = body_of(sample)
                made["data"]["stream"] = "true"
                async with http.stream("POST", ROUTE, **made) as stream:
                    async for _ in stream.aiter_raw():
                        break
                tally.outcomes["hung up in the answer"] += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    tally.wall_s = time.monotonic() - begun
    return tally


async def _cut_upload(url: str, sample: Sample) -> None:
    """Say how much will come, send half of it, and leave."""
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    data = sample.path.read_bytes()
    head = (
        f'--b\r\ncontent-disposition: form-data; name="file"; filename="{sample.path.name}"\r\n\r\n'
    )
    writer.write(
        f"POST {ROUTE} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(data) + 500}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n\r\n{head}".encode()
    )
    writer.write(data[: len(data) // 2])
    await writer.drain()
    writer.close()


async def settled(url: str) -> dict[str, float]:
    """Gauges once nothing waits and nothing is under way."""
    async with httpx2.AsyncClient(base_url=url, timeout=60) as http:
        for _ in range(600):
            text = (await http.get("/metrics")).text
            found = re.findall(r"^speaker_reasoner_(waiting|active) (\S+)$", text, re.MULTILINE)
            gauges = {name: float(value) for name, value in found}
            if not any(gauges.values()):
                return gauges
            await asyncio.sleep(0.1)
    return gauges


def kills(folder: Path, samples: list[Sample], count: int) -> dict[str, Any]:
    """Accept jobs, kill the server under load, start it again; what became of the jobs."""
    rng = random.Random(count)
    accepted: dict[str, Sample] = {}
    for _ in range(count):
        with server(folder) as (running, url):
            for sample in rng.sample(samples, 4):
                files = {"file": (sample.path.name, sample.path.read_bytes())}
                answer = httpx2.post(f"{url}/v1/jobs", files=files, timeout=60)
                accepted[answer.json()["id"]] = sample
            time.sleep(rng.uniform(0.0, 2.0))
            running.kill()
    outcomes: Counter[str] = Counter()
    with server(folder) as (_, url), httpx2.Client(base_url=url, timeout=60) as http:
        for job, sample in accepted.items():
            while (now := http.get(f"/v1/jobs/{job}").json())["status"] in ("queued", "running"):
                time.sleep(0.1)
            if now["status"] != "done":
                outcomes[now["status"]] += 1
                continue
            letters = Letters()
            rows = http.get(f"/v1/jobs/{job}/document").json()["segments"]
            said = [(letters.of(s["speaker"]), s["start"], s["end"], s["text"]) for s in rows]
            outcomes["right" if said == sample.said else "wrong"] += 1
    return {"kills": count, "accepted": len(accepted), "outcomes": dict(outcomes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0, help="of load by all clients")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = listen(recordings(arguments.banks, folder))
        console.print(f"{len(samples)} recordings")
        with server(folder / "load") as (_, url):
            asyncio.run(load(url, samples, 1, 5.0))  # warm
            one = asyncio.run(load(url, samples, 1, arguments.seconds / 4))
            console.print(f"one client: {one.to_json()}")
            many = asyncio.run(load(url, samples, arguments.clients, arguments.seconds))
            console.print(f"{arguments.clients} clients: {many.to_json()}")
            faults = asyncio.run(hang_ups(url, samples, arguments.clients))
            left = asyncio.run(settled(url))
            console.print(f"hang-ups: {faults.to_json()}, left: {left}")
        killed = kills(folder / "kills", samples, arguments.kills)
        console.print(f"kills: {killed}")
    ratio = (many.audio_s / many.wall_s) / (one.audio_s / one.wall_s)
    path = store(
        "serve",
        {
            "clients": arguments.clients,
            "seconds": arguments.seconds,
            "one_client": one.to_json(),
            "many_clients": many.to_json(),
            "throughput_ratio": round(ratio, 2),
            "hang_ups": {**faults.to_json(), "left": left},
            "killed": killed,
        },
    )
    _show(one, many, arguments.clients, ratio)
    console.print(f"wrote {path}")


def _show(one: Tally, many: Tally, clients: int, ratio: float) -> None:
    table = Table("clients", "right", "wrong", "audio s a second", "p50 s", "p90 s", "p99 s")
    for count, tally in ((1, one), (clients, many)):
        row = tally.to_json()
        latency = row["latency_s"]
        right, wrong = tally.outcomes["right"], tally.outcomes["wrong"]
        figures = [row["audio_s_per_s"], latency["p50"], latency["p90"], latency["p99"]]
        table.add_row(str(count), str(right), str(wrong), *map(str, figures))
    Console().print(table, f"throughput against one client: {ratio:.2f}")


if __name__ == "__main__":
    main()
