"""A server that plays one scripted recording to the page, so that the page can be tried without a model.

    python -m tests.scripted_server

It speaks the part of the server's language that the page uses, under the same headers, keeps everything
in memory, and answers any upload with the same conversation.
"""

import copy
import io
import json
import math
import re
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from speaker_reasoner.server.guard import HEADERS

PAGE = Path(__file__).parents[1] / "src/speaker_reasoner/server/page"
RATE_HZ = 16_000
DURATION_S = 52.0
VOICES = ("Cleo", "Dr. <b>No</b>")
CHUNKS = ((0.0, 26.0), (26.0, 52.0))
TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "woff2": "font/woff2"}


class Spoken(NamedTuple):
    """A segment, as the model hears it; times in s, confidence of the words and of the speaker."""

    chunk: int
    turn: int
    speaker: str
    gender: str
    start: float
    end: float
    words: float
    who: float
    text: str


SPOKEN = [
    Spoken(*row)
    for row in (
        (0, 1, "Speaker1", "female", 0.8, 5.2, 0.97, 0.99,
         "So where did we leave the budget last week?"),
        (0, 2, "Speaker2", "male", 5.0, 8.6, 0.93, 0.97,
         "On page four, I think. The travel line was still open."),
        (0, 2, "Speaker1", "female", 7.9, 8.5, 0.9, 0.92,
         "Right."),
        (0, 3, "Speaker1", "female", 9.1, 14.0, 0.95, 0.98,
         "Page four, and it is still too high. I would rather move two of the "
         "visits to the spring."),
        (0, 4, "Speaker3", "male", 14.6, 18.9, 0.52, 0.94,
         "We can look at it again tomorrow, once Priya's numbers are in."),
        (0, 5, "Speaker2", "male", 19.3, 20.4, 0.91, 0.41,
         "Fine."),
        (0, 5, "Speaker1", "female", 20.2, 25.1, 0.94, 0.97,
         "Then let us meet at ten and bring the numbers with us <b>printed</b>, "
         "please."),
        (1, 1, "Speaker4", "female", 26.9, 32.4, 0.96, 0.98,
         "Sorry, I am late. I have the numbers here: we are eleven per cent "
         "under."),
        (1, 2, "Speaker3", "male", 32.1, 33.3, 0.88, 0.9,
         "Eleven?"),
        (1, 3, "Speaker4", "female", 33.6, 39.8, 0.92, 0.96,
         "Eleven. Most of it from the second half of the year, and some of it is"
         " only late invoices."),
        (1, 4, "Speaker1", "female", 40.2, 42.9, 0.95, 0.97,
         "That changes the picture, does it not?"),
        (1, 5, "Speaker2", "male", 46.4, 51.2, 0.94, 0.55,
         "It does. Keep the visits, and I write it up tonight."),
    )
]  # fmt: skip


def samples() -> np.ndarray[Any, np.dtype[np.int16]]:
    """Something that looks like speech, `[n]` at 16 kHz."""
    rng = np.random.default_rng(4)
    t = np.arange(round(DURATION_S * RATE_HZ)) / RATE_HZ
    sound = rng.normal(0, 0.004, len(t))
    for spoken in SPOKEN:
        inside, number = (t >= spoken.start) & (t < spoken.end), int(spoken.speaker[-1])
        syllables = np.abs(np.sin(2 * math.pi * (3.1 + number / 4) * (t[inside] - spoken.start)))
        pitch_hz = 110 + 40 * (number % 3)
        tone = np.sin(2 * math.pi * pitch_hz * t[inside]) + rng.normal(0, 0.4, inside.sum())
        sound[inside] += 0.2 * syllables**1.5 * tone * (0.5 + rng.random())
    return (np.clip(sound, -1, 1) * 32767).astype(np.int16)


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples().tobytes())
    return buffer.getvalue()


def segment(number: int) -> dict[str, Any]:
    spoken = SPOKEN[number]
    others = (other for other in SPOKEN if other.speaker != spoken.speaker)
    return {
        "id": str(number),
        **{key: getattr(spoken, key) for key in ("chunk", "turn", "speaker", "gender")},
        **{key: getattr(spoken, key) for key in ("start", "end", "text")},
        "confidence": {"words": spoken.words, "speaker": spoken.who, "times": 0.9},
        "overlap": any(other.start < spoken.end and spoken.start < other.end for other in others),
        "corrected": False,
    }


def genders(chunk: int) -> list[str]:
    return list({one.speaker: one.gender for one in SPOKEN if one.chunk == chunk}.values())


def boxes(chunk: int) -> Iterator[tuple[int, float, float, list[int]]]:
    """Turn, start, end and the numbers of its segments."""
    for turn in sorted({spoken.turn for spoken in SPOKEN if spoken.chunk == chunk}):
        inside = [k for k, spoken in enumerate(SPOKEN) if spoken[:2] == (chunk, turn)]
        first = max(CHUNKS[chunk][0], min(SPOKEN[k].start for k in inside) - 0.2)
        yield turn, first, max(SPOKEN[k].end for k in inside) + 0.2, inside


def line(spoken: Spoken) -> str:
    """A segment as the model writes it, in seconds of its chunk."""
    start, end = (time - CHUNKS[spoken.chunk][0] for time in (spoken.start, spoken.end))
    return f"{spoken.speaker}-{spoken.gender} [{start:.1f}, {end:.1f}]: {spoken.text}"


def trace(chunk: int) -> dict[str, Any]:
    start, end = CHUNKS[chunk]
    parts: list[dict[str, Any]] = [{"text": "<|im_start|>user\n<|audio_start|>"}]
    if chunk:
        parts += [{"audio": [0, 48_000], "clip": 1}, {"text": "<|audio_end|> Right.\n"}]
    parts += [
        {"audio": [0, round((end - start) * RATE_HZ)]},
        {"text": "<|audio_end|>Who said what?"},
    ]
    thought = f"{len(genders(chunk))} speakers: {', '.join(genders(chunk))}"
    for _, first, last, inside in boxes(chunk):
        box = f"<box>[{first - start:.1f}, {last - start:.1f}]</box>"
        parts.append({"answer": f"<think>{thought}</think>{box}"})
        span = [round((first - start) * RATE_HZ), round((last - start) * RATE_HZ)]
        parts += [{"text": "<|im_end|>\n<|im_start|>user\n"}, {"audio": span}]
        thought = "\n".join(line(SPOKEN[k]) for k in inside)
    parts.append({"answer": f"<think>{thought}</think><answer>"})
    return {
        "start": start,
        "duration": end - start,
        "stop": "answered",
        "detail": "",
        "parts": parts,
    }


@dataclass
class Job:
    """One job: its state, the events so far, and the document with its past and future.

    Attributes:
        turn: returns when the next turn may be sent.
    """

    name: str
    id: str
    turn: Callable[[], object]
    status: str = "queued"
    position: float = 0.0
    speakers: int = 0
    error: dict[str, Any] | None = None
    removed: float | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    document: dict[str, Any] | None = None
    past: list[dict[str, Any]] = field(default_factory=list)
    future: list[dict[str, Any]] = field(default_factory=list)
    revision: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def body(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "created": 0,
            "duration": DURATION_S,
            "position": self.position,
            "speakers": self.speakers,
            "queue_position": None,
            "error": self.error,
            "problem": None,
            "revision": self.revision,
            "removed": self.removed,
        }

    def tell(self, event: str, data: dict[str, Any]) -> None:
        with self.changed:
            self.events.append((event, data))
            self.changed.notify_all()

    def set(self, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(self, name, value)
        self.tell("job", self.body())

    def run(self, chunks: tuple[int, ...] = (0, 1)) -> None:
        """Play the dialogue of some chunks."""
        self.turn()
        self.set(status="running")
        for chunk in chunks:
            start, end = CHUNKS[chunk]
            self.turn()
            overview = {"chunk": chunk, "start": start, "end": end, "speakers": genders(chunk)}
            self.tell("overview", overview)
            for turn, first, last, inside in boxes(chunk):
                self.tell("box", {"chunk": chunk, "turn": turn, "start": first, "end": last})
                self.turn()
                if self.status != "running":
                    return
                if self.name == "broken.wav" and (chunk, turn) == (0, 3):
                    message = "the engine ran out of memory in chunk 0"
                    self.set(status="failed", error={"message": message, "type": "server_error"})
                    return
                for k in inside:
                    self.tell("segment", segment(k))
                self.set(position=last, speakers=2)
        self.finish()

    def finish(self) -> None:
        if self.document is None:
            self.document = {
                "duration": DURATION_S,
                "names": {},
                "segments": [segment(k) for k in range(len(SPOKEN))],
                "chunks": [{"chunk": k, "start": a, "end": b} for k, (a, b) in enumerate(CHUNKS)],
                "missing": [{"start": 43.0, "end": 46.3, "reason": "turn 5 broke the protocol"}],
                "warnings": ["3.3 s were not transcribed; see the hatched stretch."],
            }
        self.revision += 1
        with self.changed:  # a stream must not end between the two
            self.set(status="done", position=DURATION_S, speakers=len(self.shown()["speakers"]))
            self.tell("done", {"revision": self.revision})

    def shown(self) -> dict[str, Any]:
        """The document as the page reads it."""
        assert self.document is not None
        gender_of = {one["speaker"]: one["gender"] for one in self.document["segments"]}
        names = self.document["names"]
        return {
            **{key: value for key, value in self.document.items() if key != "names"},
            "revision": self.revision,
            "speakers": [
                {
                    "label": label,
                    "name": names.get(label, label),
                    "gender": gender,
                    "colour": int(label[-1]) - 1,
                }
                for label, gender in sorted(gender_of.items())
            ],
            "can_undo": bool(self.past),
            "can_redo": bool(self.future),
            "confidence_floor": None,
        }

    def correct(self, op: dict[str, Any]) -> None:
        """Apply a correction; `KeyError` if it names what is not there."""
        assert self.document is not None
        now = copy.deepcopy(self.document)
        if op["op"] in ("undo", "redo"):
            back, forth = (
                (self.past, self.future) if op["op"] == "undo" else (self.future, self.past)
            )
            forth.append(now)
            self.document = back.pop()
        else:
            self.past.append(now)
            self.future.clear()
            self._apply(self.document, op)
        self.revision += 1
        if op["op"] != "listen":
            self.tell("job", self.body())

    def _apply(self, document: dict[str, Any], op: dict[str, Any]) -> None:
        lines = {one["id"]: one for one in document["segments"]}
        match op["op"]:
            case "rename":
                document["names"][op["speaker"]] = op["name"]
            case "merge":
                for one in document["segments"]:
                    one["speaker"] = op["into"] if one["speaker"] == op["from"] else one["speaker"]
            case "move":
                lines[op["segment"]]["speaker"] = op["speaker"]
            case "edit":
                lines[op["segment"]].update({k: op[k] for k in ("text", "start", "end") if k in op})
                lines[op["segment"]]["corrected"] = True
            case "split":
                one = lines[op["segment"]]
                middle = (one["start"] + one["end"]) / 2
                rest = {
                    **one,
                    "id": f"{one['id']}/1",
                    "start": middle,
                    "text": one["text"][op["at"] :].strip(),
                }
                one.update(end=middle, text=one["text"][: op["at"]].strip(), corrected=True)
                document["segments"].insert(document["segments"].index(one) + 1, rest)
            case "join":
                one, other = lines[op["segment"]], lines[op["other"]]
                one.update(end=other["end"], text=f"{one['text']} {other['text']}", corrected=True)
                document["segments"].remove(other)
            case "add":
                made = {**document["segments"][0], "id": f"new/{self.revision}", "corrected": True}
                made |= {key: op[key] for key in ("speaker", "start", "end", "text")}
                document["segments"] = sorted(
                    [*document["segments"], made], key=lambda x: x["start"]
                )
            case "gender":
                for one in document["segments"]:
                    if one["speaker"] == op["speaker"]:
                        one["gender"] = op["gender"]
            case "delete":
                document["segments"].remove(lines[op["segment"]])
            case "listen":
                document["segments"][0]["text"] = "So where did we leave it last week?"


class Scripted(ThreadingHTTPServer):
    """Serve on a free port of the loopback.

    Attributes:
        jobs: by id, oldest first.
        seen: method, path and headers (their names in lower case) of each request.
        sent: bodies of uploads.
        key: what `Authorization` must bring; none is asked for if empty.
        break_after: how many events until the first stream breaks.
        held: whether turns wait for `go`; else none waits.
        refuse: how many uploads are refused.
        gone: whether streams end.
        mute: whether streams send nothing any more.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, Job] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.sent: list[bytes] = []
        self.key = ""
        self.break_after: int | None = None
        self.held = False
        self.refuse = 0
        self.gone = self.mute = False
        self._turns = threading.Semaphore(0)
        self.audio = wav()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def go(self, turns: int = 1) -> None:
        """Let so many turns be sent."""
        self._turns.release(turns)

    def turn(self) -> None:
        if self.held:
            self._turns.acquire()

    def add(self, name: str, run: bool = True) -> Job:
        job = Job(name, f"job_{len(self.jobs) + 1}", self.turn)
        self.jobs[job.id] = job
        job.tell("job", job.body())
        if run:
            threading.Thread(target=job.run, daemon=True).start()
        return job


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer on a kept connection waits 40 ms
    server: Scripted

    def handle(self) -> None:
        with suppress(ConnectionError):  # a browser that hung up
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(
            (method, self.path, {k.lower(): v for k, v in self.headers.items()})
        )
        if url.path == "/":
            return self._bytes((PAGE / "index.html").read_bytes(), "text/html; charset=utf-8")
        if url.path.startswith("/static/"):
            file = (PAGE / unquote(url.path).removeprefix("/static/")).resolve()
            if PAGE not in file.parents or not file.is_file():
                return self._error(404, "no such file")
            return self._bytes(file.read_bytes(), TYPES.get(file.suffix[1:], "text/plain"))
        signed = "signature=yes" in url.query
        if (
            self.server.key
            and not signed
            and self.headers.get("Authorization") != f"Bearer {self.server.key}"
        ):
            return self._error(401, "wrong key")
        if url.path == "/v1/models":
            return self._json({"data": [{"id": "scripted", "domain": "one conversation"}]})
        if url.path == "/v1/voices":
            return self._json({"data": [{"name": name} for name in VOICES]})
        if url.path == "/v1/jobs":
            if method == "GET":
                binned = "removed=true" in url.query
                jobs = [job for job in self.server.jobs.values() if bool(job.removed) == binned]
                data = [job.body() for job in reversed(jobs)]
                return self._json({"data": data, "has_more": False})
            if self.server.refuse:
                self.server.refuse -= 1
                return self._error(503, "the server is not ready for it")
            self.server.sent.append(sent)
            name = re.search(rb'filename="([^"]+)"', sent)
            if name is None:
                return self._error(400, "no file")
            return self._json(self.server.add(name[1].decode()).body(), 202)
        _, _, _, job_id, rest = (url.path + "/").split("/", 4)
        job = self.server.jobs.get(job_id)
        if job is None or (
            job.removed and rest.rstrip("/") != "restore" and "erase" not in url.query
        ):
            return self._error(404, f"there is no job {job_id!r}")
        return self._job(method, job, rest.rstrip("/"), parse_qs(url.query), sent)

    def _job(
        self, method: str, job: Job, rest: str, query: dict[str, list[str]], sent: bytes
    ) -> None:
        match method, rest:
            case "GET", "":
                return self._json(job.body())
            case "DELETE", "":
                if job.status in ("queued", "running"):
                    return self._error(409, "the job is under way")
                if "erase" in query:
                    del self.server.jobs[job.id]
                else:
                    job.removed = time.time()
                until = time.time() + 30 * 86_400
                return self._json({"id": job.id, "deleted": True, "restorable_until": until})
            case "POST", "cancel":
                if job.status in ("queued", "running"):
                    job.set(status="cancelled")
                return self._json(job.body())
            case "POST", "restore":
                job.removed = None
                return self._json(job.body())
            case "POST", "retry":
                job.set(status="running", position=0.0, error=None)
                threading.Thread(target=job.run, daemon=True).start()
                return self._json(job.body(), 202)
            case "GET", "audio":
                return self._bytes(self.server.audio, "audio/wav")
            case "GET", "peaks":
                return self._peaks(job)
            case "GET", "trace":
                return self._json(trace(int(query["chunk"][0])))
            case "GET", "events":
                return self._events(job, follow="follow" in query)
            case _ if job.document is None:
                return self._error(409, "there is no transcript yet")
            case "GET", "document":
                return self._json(job.shown())
            case "GET", "transcript":
                text = json.dumps([query["format"][0], job.shown()])
                return self._bytes(text.encode(), "text/plain; charset=utf-8")
            case "POST", "corrections":
                op = json.loads(sent)
                if op["revision"] != job.revision:
                    message = f"revision {op['revision']} is not the current {job.revision}."
                    return self._error(409, message, "stale_revision")
                job.correct(op)
                if op["op"] != "listen":
                    return self._json(job.shown())
                job.set(status="running", position=0.0)
                threading.Thread(target=job.run, args=((op["chunk"],),), daemon=True).start()
                return self._json(job.body(), 202)
        return self._error(404, "no such page")

    def _peaks(self, job: Job) -> None:
        sound = np.frombuffer(self.server.audio[44:], "<i2")
        step = RATE_HZ // 100
        loud = np.abs(sound[: len(sound) // step * step].astype(int)).reshape(-1, step).max(1)
        headers = {
            "x-peaks-per-second": "100",
            "x-duration": str(DURATION_S),
            "x-audio": f"v1/jobs/{job.id}/audio?signature=yes",
        }
        data = (loud // 129).astype(np.uint8).tobytes()
        self._bytes(data, "application/octet-stream", 200, headers)

    def _events(self, job: Job, follow: bool) -> None:
        """Send the events after `Last-Event-ID`; with `follow`, or while the job is under way, also those to come."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        at = int(self.headers.get("Last-Event-ID", 0))
        while True:
            with job.changed:
                while at >= len(job.events) or self.server.mute:
                    if self.server.gone or not (follow or job.status in ("queued", "running")):
                        self.close_connection = True
                        return
                    job.changed.wait(0.3)
                event, data = job.events[at]
            at += 1
            self.wfile.write(f"id: {at}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode())
            if at == self.server.break_after:
                self.server.break_after, self.close_connection = None, True
                return

    def _bytes(
        self, body: bytes, kind: str, status: int = 200, more: dict[str, str] | None = None
    ) -> None:
        asked_range = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        whole = len(body)
        if asked_range:
            first, last = int(asked_range[1]), int(asked_range[2] or whole - 1)
            body, status = body[first : last + 1], HTTPStatus.PARTIAL_CONTENT
        self.send_response(status)
        if asked_range:
            self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in {**HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, body: dict[str, Any], status: int = 200) -> None:
        self._bytes(json.dumps(body).encode(), "application/json", status)

    def _error(self, status: int, message: str, code: str | None = None) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self._json({"error": error}, status)


if __name__ == "__main__":
    server = Scripted()
    server.held = True
    print(server.url, flush=True)
    while True:
        time.sleep(1.5)
        server.go()
