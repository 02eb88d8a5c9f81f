"""Load and faults: many clients at once, clients that hang up, a server that is killed.

    python benchmarks/serve.py [--clients 64] [--seconds 120] [--kills 5] [--tiny 1000] [--processes N] [--batch N]
    python benchmarks/serve.py --clients 3 --seconds 10 --kills 1 --tiny 50 --recordings 3 --dry   # does it run?
    python benchmarks/serve.py --model cascade --name serve-cascade --clients 4 --recordings 70   # real speech

Starts `speaker-reasoner serve` on a free port of loopback. One client, then many, send recordings and
compare each transcript with that of the library for the same recording, so that a lost or mixed-up one is
counted; throughput is seconds of audio a second. Then clients hang up while they send and while they are
answered, among others that do not. Then all that is no recording: tiny requests at once, uploads beyond the
limit, bodies that lie about their length, archives, a file that decodes to days; each has its status, and the
server's memory is read before and after. Then the server is killed (SIGKILL) while clients send jobs, again and
again; every job that was accepted must end with the transcript that it would have had.

The recordings are held-out meetings where the synthesisers are installed, else the example with silences of
different lengths before it; for another model than the embedded one stretches of 4 s of a real meeting
(`examples/ami.flac`).
"""

import argparse
import asyncio
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import soundfile as sf
from rich.console import Console
from rich.table import Table

from common import store
from heldout_set import held_out
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.errors import DataError
from speaker_reasoner.server.openai import Letters

LIMITS = ("--max-mb", "64", "--max-duration", "0.1")
"""Limits of the server that gets malformed input: 64 MiB, 6 minutes."""

EMBEDDED = "tiny"
_STRETCH_S = 4.0

ROUTE = "/v1/audio/transcriptions"

Said = list[tuple[str, float, float, str]]
"""Speaker, start, end and text of each segment."""


@dataclass(frozen=True)
class Sample:
    """A recording, and the library's transcript of it."""

    path: Path
    duration_s: float
    said: Said


@dataclass
class Tally:
    """Outcomes, latencies and audio of the requests of one stretch of load."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    audio_s: float = 0.0
    wall_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        percentiles = (
            np.percentile(self.latencies_s, (50, 90, 99)) if self.latencies_s else (0, 0, 0)
        )
        return {
            "outcomes": dict(self.outcomes),
            "wall_s": round(self.wall_s, 1),
            "audio_s_per_s": round(self.audio_s / self.wall_s, 2) if self.wall_s else 0.0,
            "latency_s": {
                f"p{p}": round(float(v), 2) for p, v in zip((50, 90, 99), percentiles, strict=True)
            },
        }


def recordings(banks: Path, folder: Path, count: int, model: str) -> list[Path]:
    if model != EMBEDDED:
        return _stretches(folder, count)
    try:
        sounds = [one.meeting.samples for one in held_out(banks, count)]
    except DataError:
        example, _ = sf.read(Path(__file__).parent.parent / "examples" / "meeting.flac")
        sounds = [np.concatenate([np.zeros(1600 * i), example]) for i in range(count)]
    paths = []
    for i, samples in enumerate(sounds):
        paths.append(folder / f"meeting-{i:02d}.flac")
        sf.write(paths[-1], samples, 16_000)
    return paths


def _stretches(folder: Path, count: int) -> list[Path]:
    """Write stretches of a real meeting, each a little after the one before: more than the cascade keeps drafts of, so
    that none is answered from a draft."""
    with sf.SoundFile(Path(__file__).parent.parent / "examples" / "ami.flac") as file:
        rate_hz, samples = file.samplerate, file.read()
    paths = []
    length = round(_STRETCH_S * rate_hz)
    for number in range(count):
        at = number * (len(samples) - length) // count
        paths.append(folder / f"stretch-{number:02d}.flac")
        sf.write(paths[-1], samples[at : at + length], rate_hz)
    return paths


def listen(paths: list[Path], model: str) -> list[Sample]:
    """Transcribe each recording with the library, for comparison with the server's answers."""
    samples = []
    results = Transcriber(load_engine(model), batch=len(paths)).transcribe_all(paths)
    for path, result in zip(paths, results, strict=True):
        assert isinstance(result, Transcript), result
        letters = Letters()
        said = [(letters.of(s.speaker), s.start_s, s.end_s, s.text) for s in result.segments]
        samples.append(Sample(path, result.duration_s, said))
    return samples


@contextmanager
def server(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Start a server; give its process and address. Its output is kept beside its store."""
    command = [sys.executable, "-m", "speaker_reasoner", "serve", "--port", "0"]
    path = folder.with_suffix(".log")
    with path.open("wb") as log:
        running = subprocess.Popen([*command, "--store", str(folder), *options], stderr=log)
    try:
        while (match := re.search(r"^listening on (\S+);", path.read_text(), re.M)) is None:
            assert running.poll() is None, path.read_text()
            time.sleep(0.1)
        yield running, match[1]
    finally:
        running.kill()
        running.wait()


def memory_mb(process: subprocess.Popen[bytes]) -> float | None:
    """Return the peak memory of a process so far; `None` where the system does not state it."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return None
    return round(int(re.findall(r"^VmHWM:\s+(\d+) kB", status, re.M)[0]) / 1024, 1)


def body_of(sample: Sample) -> dict[str, Any]:
    return {
        "data": {"model": "embedded", "response_format": "diarized_json"},
        "files": {"file": (sample.path.name, sample.path.read_bytes())},
    }


async def one_request(client: httpx2.AsyncClient, sample: Sample, tally: Tally) -> None:
    """Send a recording until it is accepted, and compare the answer."""
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
    """Run clients, of which a third disconnects while it sends, a third during the answer, and a third never."""
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
    """Announce a length, send half of it, and disconnect."""
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
            rows = re.findall(r"^speaker_reasoner_(waiting|active) (\S+)$", text, re.MULTILINE)
            gauges = {name: float(value) for name, value in rows}
            if not any(gauges.values()):
                return gauges
            await asyncio.sleep(0.1)
    return gauges


@dataclass(frozen=True)
class Bad:
    """A malformed recording or request: its name, expected status, body, and headers."""

    name: str
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def form(data: bytes, name: str = "talk.wav", **fields: str) -> bytes:
    """A multipart form with boundary `b`."""
    parts = [
        f'--b\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in {"model": "embedded", **fields}.items()
    ]
    head = f'--b\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return "".join([*parts, head]).encode() + data + b"\r\n--b--\r\n"


def days(folder: Path) -> bytes:
    """Three days of silence at 1 kHz, in less than 2 MB."""
    path = folder / "days.flac"
    with sf.SoundFile(path, "w", 1000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(3 * 24):
            file.write(np.zeros(3600 * 1000, np.int16))
    return path.read_bytes()


def bad_requests(folder: Path, good: bytes) -> list[Bad]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("talk.wav", bytes(200_000_000))
    wav = io.BytesIO()
    sf.write(wav, *sf.read(io.BytesIO(good)), format="WAV")
    known = {
        "known_speaker_names[]": "Ana",
        "known_speaker_references[]": "data:audio/wav;base64,AA",
    }
    return [
        Bad("no audio", 400, form(b"no audio")),
        Bad("an archive that grows", 400, form(archive.getvalue())),
        Bad("a recording that is an archive too", 200, form(wav.getvalue() + archive.getvalue())),
        Bad("cut off", 400, form(good[: len(good) // 2])),
        Bad("three days of silence", 413, form(days(folder), "days.flac")),
        Bad("no form", 415, b"{}", {"content-type": "application/json"}),
        Bad("a form that is cut off", 400, form(good)[:-10]),
        Bad("a wrong type of field", 400, form(good, stream="perhaps")),
        Bad("an unknown model", 404, form(good, model="whisper-1")),
        Bad("a reference that is no audio", 400, form(good, **known)),
        Bad("a name that climbs", 400, form(b"x", "../../../../etc/passwd")),
        Bad("another site's form", 403, form(good), {"origin": "https://evil.example"}),
        Bad("a length that is too small", 400, form(good), {"content-length": "100"}),
        Bad("a length of 2 GB", 413, form(good), {"content-length": str(2 << 30)}),
    ]


async def bad_input(url: str, folder: Path, sample: Sample, tiny: int) -> Counter[str]:
    """Send malformed input; count proper answers, and other ones by kind."""
    outcomes: Counter[str] = Counter()
    host = url.removeprefix("http://")

    def count(name: str, got: int, *proper: int) -> None:
        outcomes["proper" if got in proper else f"{name}: {got}"] += 1

    for bad in bad_requests(folder, sample.path.read_bytes()):
        head = {
            "host": host,
            "content-type": "multipart/form-data; boundary=b",
            "content-length": str(len(bad.body)),
            "connection": "close",
            **bad.headers,
        }
        count(bad.name, await raw(host, head, [bad.body]), bad.status)
    chunk = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
    first = form(b"")[: -len(b"\r\n--b--\r\n")]
    endless = [b"%x\r\n%s\r\n" % (len(first), first), *[chunk] * 2048]
    head = {
        "host": host,
        "content-type": "multipart/form-data; boundary=b",
        "transfer-encoding": "chunked",
    }
    count("2 GB", await raw(host, head, endless), 413)
    async with httpx2.AsyncClient(
        base_url=url, timeout=600, limits=httpx2.Limits(max_connections=256)
    ) as http:

        async def small() -> int:
            answer = await http.post("/v1/jobs", files={"file": ("a.wav", b"x")})
            return int(answer.status_code)

        for status in await asyncio.gather(*(small() for _ in range(tiny))):
            count("a tiny request", status, 400, 429)
        count("health", (await http.get("/health")).status_code, 200)
    return outcomes


async def raw(host: str, head: dict[str, str], pieces: Sequence[bytes]) -> int:
    """Send a request as it stands, until it is answered; return the status."""
    name, port = host.split(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    lines = "".join(f"{key}: {value}\r\n" for key, value in head.items())
    writer.write(f"POST {ROUTE} HTTP/1.1\r\n{lines}\r\n".encode())
    answer = asyncio.ensure_future(reader.readline())
    with suppress(ConnectionError):
        for piece in pieces:
            if answer.done():
                break
            writer.write(piece)
            await writer.drain()
    try:
        status = (await asyncio.wait_for(answer, 120)).split()
    except (ConnectionError, TimeoutError):
        status = []
    writer.close()
    return int(status[1]) if len(status) > 1 else 0


def kills(
    folder: Path, samples: list[Sample], count: int, clients: int, chosen: Sequence[str]
) -> dict[str, Any]:
    """Kill the server while clients send jobs, and start it again; count the outcomes of accepted jobs."""
    rng = random.Random(count)
    accepted: dict[str, Sample] = {}
    for _ in range(count):
        with server(folder, *chosen) as (running, url), ThreadPoolExecutor(clients) as threads:
            before = len(accepted)
            ends = [
                threads.submit(_send_jobs, url, rng.sample(samples, len(samples)), accepted)
                for _ in range(clients)
            ]
            while len(accepted) < before + 4:
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, 2.0))
            running.kill()
            for end in ends:
                end.result()
    outcomes: Counter[str] = Counter()
    with server(folder, *chosen) as (_, url), httpx2.Client(base_url=url, timeout=60) as http:
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


def _send_jobs(url: str, samples: list[Sample], accepted: dict[str, Sample]) -> None:
    """Send jobs until the server is gone, two a client at most; note those that it accepted."""
    with suppress(httpx2.TransportError), httpx2.Client(base_url=url, timeout=60) as http:
        for sample in samples[:2]:
            files = {"file": (sample.path.name, sample.path.read_bytes())}
            answer = http.post("/v1/jobs", files=files)
            if answer.status_code == 202:
                accepted[answer.json()["id"]] = sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0, help="of load by all clients")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--tiny", type=int, default=1000, help="tiny requests at once")
    parser.add_argument("--recordings", type=int, default=16, help="different ones")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--processes", type=int, help="of the server's engine")
    parser.add_argument("--batch", type=int, help="dialogues at once in the server")
    parser.add_argument("--name", default="serve", help="of the result")
    parser.add_argument("--dry", action="store_true", help="store no result")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = arguments.model
        sounds = recordings(arguments.banks, folder, arguments.recordings, model)
        samples = listen(sounds, model)
        chosen = ["--model", model]
        if model != EMBEDDED:
            chosen += ["--model-alias", "embedded"]  # as the requests call it
        if arguments.processes:
            chosen += ["--processes", str(arguments.processes)]
        if arguments.batch:
            chosen += ["--batch", str(arguments.batch)]
        console.print(f"{len(samples)} recordings")
        with server(folder / "load", *chosen) as (running, url):
            asyncio.run(load(url, samples, 1, 5.0))  # warm
            one = asyncio.run(load(url, samples, 1, arguments.seconds / 4))
            console.print(f"one client: {one.to_json()}")
            many = asyncio.run(load(url, samples, arguments.clients, arguments.seconds))
            console.print(f"{arguments.clients} clients: {many.to_json()}")
            faults = asyncio.run(hang_ups(url, samples, arguments.clients))
            left = asyncio.run(settled(url))
            loaded_mb = memory_mb(running)
            console.print(f"hang-ups: {faults.to_json()}, left: {left}, memory: {loaded_mb} MB")
        with server(folder / "bad", *chosen, *LIMITS) as (running, url):
            asyncio.run(load(url, samples[:1], 1, 0.1))  # warm
            before_mb = memory_mb(running)
            bad = asyncio.run(bad_input(url, folder, samples[0], arguments.tiny))
            bad_mb = {"before": before_mb, "after": memory_mb(running)}
            stored = [path.name for path in (folder / "bad" / "incoming").iterdir()]
            console.print(f"bad input: {dict(bad)}, memory: {bad_mb} MB, left: {stored}")
        most = min(arguments.clients, 16)
        killed = kills(folder / "kills", samples, arguments.kills, most, chosen)
        console.print(f"kills: {killed}")
    ratio = (many.audio_s / many.wall_s) / (one.audio_s / one.wall_s) if one.audio_s else 0.0
    _show(one, many, arguments.clients, ratio)
    if arguments.dry:
        return
    path = store(
        arguments.name,
        {
            "model": model,
            "processes": arguments.processes or 1,
            "batch": arguments.batch or "default",
            "load": os.getloadavg(),
            "clients": arguments.clients,
            "seconds": arguments.seconds,
            "one_client": one.to_json(),
            "many_clients": many.to_json(),
            "throughput_ratio": round(ratio, 2),
            "hang_ups": {**faults.to_json(), "left": left},
            "memory_mb": loaded_mb,
            "bad_input": {"outcomes": dict(bad), "memory_mb": bad_mb, "left": len(stored)},
            "killed": killed,
        },
    )
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
