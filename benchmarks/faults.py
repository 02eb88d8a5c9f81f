"""Kills and outages: nothing that was accepted, typed or committed is lost.

    python benchmarks/faults.py [--kills 200] [--outages 20]
    python benchmarks/faults.py --kills 4 --outages 3 --dry   # does it run?

Two processes serve one store, behind a proxy that can be closed, on a file system of their own (a tmpfs, where one may
be mounted) and a PostgreSQL of their own (where one is installed, else SQLite). Clients send recordings, correct
lines of those that have ended, and speak in live sessions. Meanwhile one process after the other is killed (SIGKILL)
at a random moment and started again; between kills the disk is filled to the last byte, the database is stopped at
once, or the network is closed, for two seconds each.

The engine is scripted: its words for a chunk are a number made of the chunk's samples, so that a transcript is
right only if every sample arrived, in its place. In the end every job that was accepted must have ended once, with
the transcript that the library gives for its recording, and with the words that were typed into it and acknowledged;
every piece that was committed live must be in its job's audio.
"""

import argparse
import base64
import io
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import soundfile
from rich.console import Console
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from common import store
from speaker_reasoner import Transcriber
from speaker_reasoner.commands.serve import listen
from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import SpeakerReasonerError
from speaker_reasoner.protocol import Box, Line, Overview, Profile, Turn, render_turn
from speaker_reasoner.server.live.incoming import CODINGS, Decoder

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.postgres import Postgres, programs, temporary

PROFILE = Profile(decimals=1, chunk_s=4.0)
OUTAGE_S = 2.0
CLIENTS, PAUSE_S = 4, 1.0
LOG = Path("runs/faults.log")  # what the servers complain about
DISK_MB = 768
LIVE_HZ = 24_000


def numbered(request: Request) -> str:
    """Answer with one speaker, who says a number that is made of the samples."""
    time.sleep(0.005)
    rules = request.rules
    if rules.chunk == 0:
        return render_turn(Turn(overview=Overview(())), PROFILE) + "<answer>"
    if rules.turn == 0:
        box = Box(0, rules.chunk)
        return render_turn(Turn(overview=Overview(("female",)), box=box), PROFILE)
    number = zlib.crc32(np.ascontiguousarray(request.session.samples).data)
    line = Line(1, "female", 0, rules.chunk, f"heard {number:08x}")
    return render_turn(Turn(lines=(line,)), PROFILE) + "<answer>"


def serve(folder: str, database: str) -> None:
    """Run a server on a free port, which it prints."""
    import uvicorn

    from speaker_reasoner.server.app import create_app
    from speaker_reasoner.server.keeper import Rules
    from speaker_reasoner.server.service import ServiceSettings

    transcriber = Transcriber(ScriptedEngine(numbered, PROFILE), detect=None)
    rules = Rules(beat_s=0.2, lease_s=20.0)
    settings = ServiceSettings(Path(folder), database or None, rules=rules)
    while True:  # as a service manager would start it, until the storage is there
        try:
            app = create_app(transcriber, settings)
            break
        except SpeakerReasonerError as error:
            print(error, file=sys.stderr, flush=True)
            time.sleep(0.2)
    listening = listen("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, database: str) -> None:
        code = "import sys; sys.path.insert(0, sys.argv[1]); import faults; faults.serve(*sys.argv[2:])"
        here = str(Path(__file__).parent)
        with LOG.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, here, str(folder), database],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.port: int | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        self.port = int(line) if line else None

    def end(self, number: int) -> None:
        self.port = None
        self._process.send_signal(number)
        self._process.wait(120)


class Network:
    """A proxy before one server; closing it breaks all connections."""

    def __init__(self, port: Callable[[], int | None]) -> None:
        self.open = True
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close_all(self) -> None:
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            port = self._port()
            try:
                if not self.open or port is None:
                    raise OSError("closed")
                server = socket.create_connection(("127.0.0.1", port), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._sockets |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.discard(source)
        source.close()


@dataclass
class Accepted:
    """Expected state of a job that the server accepted.

    Attributes:
        texts: of its lines, as the library transcribes them.
        typed: last text of the first line whose correction the server acknowledged.
        tried: text of a correction without an answer, which may have been stored.
    """

    texts: list[str]
    typed: str | None = None
    tried: str | None = None


@dataclass
class Promises:
    """All that the server acknowledged."""

    jobs: dict[str, Accepted] = field(default_factory=dict)
    live: dict[str, bytes] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    stopping: bool = False


def recording(rng: random.Random) -> bytes:
    """Tones, 3 to 9 s, as a wav file."""
    at = np.arange(round(rng.uniform(3.0, 9.0) * 16_000)) / 16_000
    samples = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 900) * at * (1 + 0.1 * np.sin(at)))
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


class Expected:
    """The library's transcripts of recordings, to compare the server's with."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "expected.wav"
        self._transcriber = Transcriber(ScriptedEngine(numbered, PROFILE), detect=None)
        self._lock = threading.Lock()

    def of(self, data: bytes) -> list[str]:
        with self._lock:
            self._path.write_bytes(data)
            return [one.text for one in self._transcriber.transcribe(self._path).segments]


class Client:
    """Sends recordings, corrects lines and speaks in live sessions, through failures of the servers."""

    def __init__(
        self, number: int, networks: list[Network], expected: Expected, promises: Promises
    ) -> None:
        self._rng = random.Random(number)
        self._networks = networks
        self._expected = expected
        self._promises = promises
        self._http = httpx2.Client(timeout=20)
        self._mine: list[str] = []

    def run(self) -> None:
        while not self._promises.stopping:
            network = self._rng.choice(self._networks)
            act = self._rng.choice((self._send, self._send, self._correct, self._speak))
            try:
                self._promises.seen[act(network.url)] += 1
            except (httpx2.HTTPError, WebSocketException, OSError, TimeoutError, EOFError):
                self._promises.seen["no answer"] += 1
            time.sleep(self._rng.uniform(0.5, 1.5) * PAUSE_S)

    def _send(self, url: str) -> str:
        data = recording(self._rng)
        texts = self._expected.of(data)
        answer = self._http.post(f"{url}/v1/jobs", files={"file": ("a.wav", data)})
        if answer.status_code != 202:
            return f"refused with {answer.status_code}"
        job = answer.json()["id"]
        self._promises.jobs[job] = Accepted(texts)
        self._mine.append(job)
        return "accepted"

    def _correct(self, url: str) -> str:
        if not self._mine:
            return "nothing to correct"
        job = self._mine[0]
        shown = self._http.get(f"{url}/v1/jobs/{job}/document")
        if shown.status_code != 200:
            return f"document refused with {shown.status_code}"
        first = shown.json()["segments"][0]["id"]
        typed = f"typed {self._rng.getrandbits(32):08x}"
        made = {"revision": 0, "op": "edit", "segment": first, "text": typed}
        promised = self._promises.jobs[job]
        promised.tried = typed  # until there is an answer
        answer = self._http.post(f"{url}/v1/jobs/{job}/corrections", json=made)
        if answer.status_code == 200:
            promised.typed, promised.tried = typed, None
            self._mine.pop(0)
            return "corrected"
        if answer.status_code == 409 and answer.json()["error"]["code"] == "job_under_way":
            promised.tried = None
            return "corrected too early"
        self._mine.pop(0)
        return f"correction refused with {answer.status_code}"

    def _speak(self, url: str) -> str:
        """Hold a live session of three pieces, and disconnect without closing it."""
        with connect(f"ws{url.removeprefix('http')}/v1/realtime", open_timeout=10) as session:
            job = json.loads(session.recv(10))["session"]["job"]
            by_hand = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
            session.send(json.dumps({"type": "session.update", "session": by_hand}))
            said = b""
            for _ in range(3):
                at = np.arange(LIVE_HZ) / LIVE_HZ
                tone = 0.2 * np.sin(2 * np.pi * self._rng.uniform(100, 900) * at)
                piece = (tone * 32767).astype("<i2").tobytes()
                audio = base64.b64encode(piece).decode()
                session.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                session.send(json.dumps({"type": "input_audio_buffer.commit"}))
                while (event := json.loads(session.recv(10)))[
                    "type"
                ] != "input_audio_buffer.committed":
                    if event["type"] == "error":
                        return f"live session refused with {event['error']['code']}"
                said += piece
                self._promises.live[job] = said
            session.socket.shutdown(socket.SHUT_RDWR)
        return "spoken"


class Faults:
    """Causes kills and outages, and ends them."""

    def __init__(self, folder: Path, database: Postgres | None, rng: random.Random) -> None:
        self.folder = folder / "store"
        self.folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(self.folder)]
        self.own_disk = shutil.which("mount") is not None and not subprocess.call(
            mount, stderr=subprocess.DEVNULL
        )
        self.database = database
        self.processes = [self._process() for _ in range(2)]
        self.networks = [Network(lambda n=n: self.processes[n].port) for n in range(2)]  # type: ignore[misc]
        self._rng = rng
        self.counts: Counter[str] = Counter()

    def _process(self) -> Process:
        return Process(self.folder, "" if self.database is None else self.database.url)

    def kill(self, number: int) -> None:
        time.sleep(self._rng.uniform(0.05, 0.8))
        self.processes[number].end(signal.SIGKILL)
        self.processes[number] = self._process()
        self.counts["kills"] += 1
        deadline = time.monotonic() + 120
        while self.processes[number].port is None and time.monotonic() < deadline:
            time.sleep(0.02)

    def outage(self, kind: str) -> None:
        time.sleep(self._rng.uniform(0.05, 0.8))
        self.counts[f"outages of the {kind}"] += 1
        if kind == "network":
            for network in self.networks:
                network.open = False
                network.close_all()
            time.sleep(OUTAGE_S)
            for network in self.networks:
                network.open = True
        elif kind == "database":
            assert self.database is not None
            self.database.stop()
            time.sleep(OUTAGE_S)
            self.database.start()
        else:
            ballast = self.folder / "ballast"
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                for size in (1 << 20, 1 << 12, 1):
                    with suppress(OSError):
                        while file.write(bytes(size)) == size:
                            pass
            time.sleep(OUTAGE_S)
            ballast.unlink()

    def close(self) -> None:
        for one in self.processes:
            one.end(signal.SIGKILL)
        if self.own_disk:
            subprocess.call(["umount", "-l", str(self.folder)])


def check(url: str, promises: Promises, console: Console) -> dict[str, Any]:
    """Compare the state of the server with its acknowledgements."""
    wrong: list[str] = []
    checked: Counter[str] = Counter()
    with httpx2.Client(timeout=60) as http:

        def get(path: str) -> httpx2.Response:
            return http.get(f"{url}{path}")

        ids = [*promises.jobs, *promises.live]
        deadline = time.monotonic() + 600
        for job in ids:
            while (answer := get(f"/v1/jobs/{job}")).status_code == 200:
                state = answer.json()
                if state["status"] not in ("queued", "running") or time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            if answer.status_code != 200 or state["status"] != "done":
                what = state["status"] if answer.status_code == 200 else answer.status_code
                wrong.append(f"{job}: {what}")
                continue
            events = get(f"/v1/jobs/{job}/events").text
            if events.count("event: done\n") != 1:
                wrong.append(f"{job}: ended {events.count('event: done')} times")
            if job in promises.live:
                wrong += _live_wrong(job, promises.live[job], get(f"/v1/jobs/{job}/audio").content)
                checked["live sessions"] += 1
                continue
            promised = promises.jobs[job]
            lines = [one["text"] for one in get(f"/v1/jobs/{job}/document").json()["segments"]]
            first = {promised.typed} if promised.typed else {promised.texts[0], promised.tried}
            if lines[1:] != promised.texts[1:] or lines[0] not in first:
                wrong.append(f"{job}: expected {promised.texts} ({first}), got {lines}")
            checked["jobs"] += 1
            checked["corrections"] += promised.typed is not None
        every = []
        while True:
            after = f"&after={every[-1]['id']}" if every else ""
            page = get(f"/v1/jobs?limit=1000{after}").json()
            every += page["data"]
            if not page["has_more"]:
                break
    known = Counter(job["id"] for job in every)
    wrong += [f"{job}: listed {count} times" for job, count in known.items() if count > 1]
    wrong += [f"{job['id']}: {job['status']}" for job in every if job["status"] != "done"]
    for one in wrong[:20]:
        console.print(one, markup=False)
    return {
        "checked": dict(checked),
        "jobs_there": len(every),
        "wrong": len(wrong),
        "examples": wrong[:20],
    }


def _live_wrong(job: str, said: bytes, audio: bytes) -> list[str]:
    """Return errors in the audio of a live session's job, which may end later than the committed audio."""
    kept, rate_hz = soundfile.read(io.BytesIO(audio), dtype="float32")
    decoder = Decoder(CODINGS["audio/pcm"])
    expected = np.concatenate([decoder.feed(said), decoder.rest()])
    if rate_hz != 16_000 or len(kept) < len(expected):
        return [f"{job}: {len(kept)} samples, {len(expected)} were committed"]
    inner = slice(0, len(expected) - 800)  # the resampler's last samples depend on later ones
    apart = float(np.abs(kept[inner] - expected[inner]).max())
    return [f"{job}: audio differs by {apart:.4f}"] if apart > 2e-3 else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--outages", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--dry", action="store_true", help="store no result")
    arguments = parser.parse_args()
    console, rng = Console(), random.Random(arguments.seed)
    LOG.parent.mkdir(exist_ok=True)
    LOG.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as work, ExitStack() as stack:
        database = None if programs() is None else stack.enter_context(temporary())
        faults = Faults(Path(work), database, rng)
        kinds = ["network"]
        kinds += ["database"] if database is not None else []
        kinds += ["disk"] if faults.own_disk else []
        promises, expected, begun = Promises(), Expected(Path(work)), time.monotonic()
        try:
            clients = [Client(n, faults.networks, expected, promises) for n in range(CLIENTS)]
            threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
            for thread in threads:
                thread.start()
            rest = arguments.outages
            for number in range(arguments.kills):
                due = (number + 1) * arguments.outages // max(1, arguments.kills)
                while arguments.outages - rest < due:
                    faults.outage(kinds[rest % len(kinds)])
                    rest -= 1
                faults.kill(number % 2)
                if number % 20 == 19:
                    console.print(f"{number + 1} kills, {len(promises.jobs)} jobs")
            promises.stopping = True
            for thread in threads:
                thread.join(60)
            wall_s = time.monotonic() - begun
            deadline = time.monotonic() + 120
            while faults.processes[0].port is None and time.monotonic() < deadline:
                time.sleep(0.1)
            result = check(faults.networks[0].url, promises, console)
        finally:
            promises.stopping = True
            faults.close()
    result |= {
        "database": "SQLite" if database is None else "PostgreSQL",
        "own_disk": faults.own_disk,
        "faults": dict(faults.counts),
        "requests": dict(sorted(promises.seen.items())),
        "wall_s": round(wall_s, 1),
        "load": "4 clients; other work ran on the machine, so times mean nothing",
    }
    console.print_json(data=result)
    if not arguments.dry:
        console.print(f"stored in {store('faults', result)}")
    sys.exit(1 if result["wrong"] else 0)


if __name__ == "__main__":
    main()
