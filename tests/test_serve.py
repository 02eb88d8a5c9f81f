"""The server over real sockets: OpenAI's client, clients that hang up or lie, signals, kill -9."""

import asyncio
import gc
import hashlib
import io
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest
import soundfile
import uvicorn

from speaker_reasoner import load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.commands.serve import listen
from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.server.app import create_app
from speaker_reasoner.server.service import Service, ServiceSettings
from speaker_reasoner.server.uploads import Limits

from .cloud import Server
from .conftest import noise
from .forked import Forked
from .serving import QUICK, Gate, error_of, events_of, wait_until, wav
from .talk import PROFILE, play

EXAMPLE = Path(__file__).parent.parent / "examples/meeting.flac"


class Live:
    """A server in this process, on a free port of loopback."""

    def __init__(
        self, store: Path, turns: Callable[[Request], str] | Transcriber, **settings: Any
    ) -> None:
        if not isinstance(turns, Transcriber):
            turns = Transcriber(ScriptedEngine(turns, PROFILE), detect=None)
        self._transcriber = turns
        self._settings = ServiceSettings(store, **{"rules": QUICK, **settings})
        self.port = 0
        self.start()

    def start(self) -> None:
        """Begin; after `stop`, once more at the same address."""
        app = create_app(self._transcriber, self._settings)
        self.service: Service = app.state.service
        self.socket = listen("127.0.0.1", self.port)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        wait_until(lambda: self.server.started)

    def stop(self) -> None:
        self.service.drain()
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()

    def client(self, **options: Any) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **options)

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nothing is left of what was."""
        worker = self.service.worker
        left = list((self.service.settings.store / "incoming").iterdir())
        return not (worker._rounds.tasks or worker._waiting or self.service.places._coming or left)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    running: list[Live] = []

    def start(turns: Callable[[Request], str] | Transcriber = play, **settings: Any) -> Live:
        running.append(Live(tmp_path / f"store{len(running)}", turns, **settings))
        return running[-1]

    yield start
    for server in running:
        server.stop()


# OpenAI's client


def test_openai_diarized(live: Any) -> None:
    with live().client() as client:
        answer = client.audio.transcriptions.create(
            model="scripted",
            file=("talk.wav", wav()),
            response_format="diarized_json",
            chunking_strategy="auto",
        )
        assert (answer.task, answer.duration, answer.text) == ("transcribe", 3.0, "one two")
        assert [(s.speaker, s.start, s.end, s.text) for s in answer.segments] == [
            ("A", 0.0, 1.5, "one"),
            ("B", 1.5, 3.0, "two"),
        ]
        assert answer.usage.seconds == 3.0
        assert answer.segments[0].gender == "female"
        assert [model.id for model in client.models.list()] == ["scripted"]


def test_openai_streams(live: Any) -> None:
    with live().client() as client:
        stream = client.audio.transcriptions.create(
            model="scripted",
            file=("talk.wav", wav()),
            response_format="diarized_json",
            chunking_strategy={"type": "server_vad", "threshold": 0.4},
            stream=True,
        )
        events = list(stream)
    assert [event.type.removeprefix("transcript.text.") for event in events] == [
        "delta",
        "segment",
        "delta",
        "segment",
        "done",
    ]
    assert [e.speaker for e in events if e.type == "transcript.text.segment"] == ["A", "B"]
    assert events[-1].text == "one two"


def test_openai_gets_a_segment_before_the_next_turn(live: Any) -> None:
    gate = Gate()
    asked: list[int] = []

    def watch(request: Request) -> str:
        asked.append(request.rules.turn)
        if request.rules.turn == 2:
            assert gate.open.wait(20)
        return play(request)

    with live(watch).client() as client:
        stream = client.audio.transcriptions.create(
            model="scripted", file=("talk.wav", wav()), response_format="diarized_json", stream=True
        )
        first = [next(iter(stream)) for _ in range(2)]
        assert first[1].text == "one" and not gate.open.is_set()
        gate.open.set()
        assert [event.type for event in stream][-1] == "transcript.text.done"


def test_openai_other_formats(live: Any) -> None:
    with live().client() as client:
        create = client.audio.transcriptions.create
        file = ("talk.wav", wav())
        assert create(model="scripted", file=file).text == "one two"
        assert create(model="scripted", file=file, response_format="text") == "one two\n"
        assert create(model="scripted", file=file, response_format="srt").startswith("1\n00:00:00")
        assert create(model="scripted", file=file, response_format="vtt").startswith("WEBVTT")
        verbose = create(
            model="scripted",
            file=file,
            response_format="verbose_json",
            timestamp_granularities=["segment"],
            language="en",
        )
        assert [segment.text for segment in verbose.segments] == ["one", "two"]


def test_openai_errors(live: Any) -> None:
    server = live(api_key="secret", queue=1)
    with server.client() as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    url = f"{server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as client:
        create = client.audio.transcriptions.create
        with pytest.raises(openai.NotFoundError, match="whisper-1"):
            create(model="whisper-1", file=("talk.wav", wav()))
        with pytest.raises(openai.BadRequestError, match="known_speaker_references") as caught:
            create(
                model="scripted",
                file=("talk.wav", wav()),
                known_speaker_names=["Ana"],
                known_speaker_references=["data:audio/wav;base64,AAAA"],
            )
        assert caught.value.param == "known_speaker_references[0]"
        place = server.service.places.reserve(hashlib.sha256(b"127.0.0.1").hexdigest()[:16])
        with pytest.raises(openai.RateLimitError) as full:
            create(model="scripted", file=("talk.wav", wav()))
        assert int(full.value.response.headers["retry-after"]) >= 1
        place.release()
        assert create(model="scripted", file=("talk.wav", wav())).text == "one two"


def test_the_example(live: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    (tmp_path / "talk.wav").write_bytes(wav())
    arguments = [str(tmp_path / "talk.wav"), "--url", f"{live().url}/v1"]
    monkeypatch.setattr(sys, "argv", ["client.py", *arguments])
    runpy.run_path(str(EXAMPLE.parent / "client.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "[   0.00 -    1.50] A: one",
        "[   1.50 -    3.00] B: two",
        "3.0 s of audio",
    ]


def test_an_error_in_a_stream_reaches_the_client(live: Any) -> None:
    def fail(request: Request) -> str:
        if request.rules.turn == 2:
            raise ZeroDivisionError
        return play(request)

    with live(fail).client() as client, pytest.raises(openai.APIError, match="internal error"):
        list(client.audio.transcriptions.create(model="scripted", file=("t", wav()), stream=True))


def test_openai_and_the_embedded_checkpoint(live: Any) -> None:
    """What is served, at once and streamed, is what the library hears."""
    transcriber = Transcriber(load_engine("tiny", device="cpu"))
    expected = [(s.start_s, s.end_s, s.text) for s in transcriber.transcribe(EXAMPLE).segments]
    with live(transcriber).client() as client:
        answer = client.audio.transcriptions.create(
            model="embedded", file=EXAMPLE, response_format="diarized_json"
        )
        stream = client.audio.transcriptions.create(
            model="embedded", file=EXAMPLE, response_format="diarized_json", stream=True
        )
        events = list(stream)
    assert len(expected) > 1
    assert [(s.start, s.end, s.text) for s in answer.segments] == expected
    assert {s.speaker for s in answer.segments} == {"A", "B"}
    assert all(0 < s.confidence["words"] <= 1 for s in answer.segments)
    told = [e for e in events if e.type == "transcript.text.segment"]
    assert sorted((e.start, e.end, e.text) for e in told) == sorted(expected)
    assert events[-1].text == answer.text


# Clients that misbehave


def form_head(boundary: str = "b") -> bytes:
    return (
        f"--{boundary}\r\ncontent-disposition: form-data; name=model\r\n\r\nscripted\r\n"
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    ).encode()


def connect(server: Live, head: str, body: bytes = b"") -> socket.socket:
    """Send the head of a form, and the beginning of its body."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    text = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{head}\r\n\r\n"
    )
    connection.sendall(text.encode() + body)
    return connection


def status_of(connection: socket.socket) -> str:
    with connection, connection.makefile("rb") as answer:
        return answer.readline().decode().split(" ")[1]


def test_a_client_that_hangs_up_while_it_sends(live: Any) -> None:
    server = live(queue=1)
    connection = connect(server, "Content-Length: 900000", form_head() + wav(1.0))
    wait_until(lambda: not server.idle)
    connection.close()
    wait_until(lambda: server.idle)
    with server.client() as client:
        answer = client.audio.transcriptions.create(model="scripted", file=("a.wav", wav()))
    assert answer.text == "one two"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_while_it_waits(live: Any, stream: bool) -> None:
    gate = Gate()
    server = live(gate)
    fields = f"--b\r\ncontent-disposition: form-data; name=stream\r\n\r\n{stream}\r\n".encode()
    form = fields + form_head() + wav(60.0) + b"\r\n--b--\r\n"
    connection = connect(server, f"Content-Length: {len(form)}", form)
    assert gate.reached.wait(20)
    connection.close()
    wait_until(lambda: not list((server.service.settings.store / "incoming").iterdir()))
    asked = len(server.service.transcriber.engine.requests)
    gate.open.set()
    wait_until(lambda: server.idle)
    assert len(server.service.transcriber.engine.requests) <= asked + 15, (
        "the rest was heard as well"
    )


def test_a_client_that_hangs_up_in_a_stream(live: Any) -> None:
    gate = Gate()

    def slow(request: Request) -> str:
        if request.rules.turn == 2:
            assert gate.open.wait(20)
        return play(request)

    server = live(slow, batch=1)
    with server.client() as client:
        stream = client.audio.transcriptions.create(
            model="scripted",
            file=("a.wav", wav(40.0)),
            response_format="diarized_json",
            stream=True,
        )
        assert next(iter(stream)).delta == "one"
        stream.close()
    time.sleep(0.2)
    gate.open.set()
    wait_until(lambda: server.idle)
    assert len(server.service.transcriber.engine.requests) <= 4


def test_content_lengths_that_lie(live: Any) -> None:
    server = live(limits=Limits(body_bytes=200_000, idle_s=0.3))
    form = form_head() + wav(1.0) + b"\r\n--b--\r\n"
    assert status_of(connect(server, f"Content-Length: {len(form) + 500}", form)) == "408"
    assert status_of(connect(server, f"Content-Length: {len(form) - 9000}", form)) == "400"
    assert status_of(connect(server, "Content-Length: 1", form)) == "400"
    assert status_of(connect(server, "Content-Length: -1", form)) == "400"
    assert status_of(connect(server, "Content-Length: 2147483648", form_head())) == "413"
    chunked = connect(server, "Transfer-Encoding: chunked")
    for piece in [form_head(), *[bytes(10_000)] * 30]:
        chunked.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
    assert status_of(chunked) == "413"
    wait_until(lambda: server.idle)
    assert httpx2.get(f"{server.url}/health").json()["status"] == "ok"


@pytest.mark.no_cover
def test_two_gigabytes_against_a_small_limit(live: Any, tmp_path: Path) -> None:
    """Refused with the proper words long before they are sent, and nothing is kept of them."""
    server = live(limits=Limits(body_bytes=1_000_000))
    sent = 0

    def zeros() -> Iterator[bytes]:
        nonlocal sent
        yield form_head()
        while sent < 2 * 1024**3:
            sent += 1 << 20
            yield b"\0" * (1 << 20)

    answer = httpx2.post(
        f"{server.url}/v1/audio/transcriptions",
        content=zeros(),
        headers={"content-type": "multipart/form-data; boundary=b"},
        timeout=60,
    )
    error_of(answer, 413, "request_too_large")
    assert server.idle


@pytest.mark.no_cover
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_tiny_requests_at_once(live: Any, count: int) -> None:
    """Each is answered: served while there is room, told to come again when there is not."""
    server = live(queue=8)

    async def ask() -> list[int]:
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:

            async def one(number: int) -> int:
                files = {"file": ("a.wav", wav(0.2) if number % 2 else b"x")}
                answer = await client.post("/v1/jobs", files=files)
                return int(answer.status_code)

            return await asyncio.gather(*(one(number) for number in range(count)))

    codes = asyncio.run(ask())
    assert set(codes) <= {202, 400, 429} and 202 in codes and 429 in codes
    wait_until(lambda: server.idle)
    jobs = httpx2.get(f"{server.url}/v1/jobs?limit=1000").json()["data"]
    assert len(jobs) == codes.count(202)
    assert {job["status"] for job in jobs} == {"done"}


def test_events_stop_when_the_server_stops(live: Any) -> None:
    gate = Gate()
    server = live(gate)
    job = httpx2.post(f"{server.url}/v1/jobs", files={"file": ("a.wav", wav())}).json()
    assert gate.reached.wait(5)
    with httpx2.stream("GET", f"{server.url}/v1/jobs/{job['id']}/events", timeout=10) as stream:
        text = stream.iter_text()
        assert "event: job" in next(text)
        server.service.drain()
        gate.open.set()
        assert events_of("".join(text)) is not None
    assert httpx2.get(f"{server.url}/health").json()["status"] == "stopping"


# The command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "add --api-key"),
        (["--host", "::"], "add --api-key"),
        (["--host", "0.0.0.0", "--api-key", "schlüssel"], "printable ASCII"),
        (["--allow-folder", "/nowhere/at/all"], "--allow-folder"),
        (["--allow-folder", __file__], "expected a folder"),
        (["--voices", "/nowhere/at/all"], "--voices"),
    ],
)
def test_usage_that_is_refused(
    arguments: list[str], said: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.delenv("SPEAKER_REASONER_API_KEY", raising=False)
    assert main(["serve", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_an_empty_key_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "--host", "0.0.0.0", "--api-key", ""])
    assert exit_.value.code == 2
    assert "--api-key: got an empty value" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--port", "70000"], ["--max-duration", "19"], ["--max-mb", "0"], ["--batch", "x"]],
)
def test_numbers_that_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["serve", *arguments])
    assert exit_.value.code == 2


def test_a_port_that_is_taken(capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "choose another" in capsys.readouterr().err


def test_small_answers_are_sent_at_once() -> None:
    """Without TCP_NODELAY, which asyncio sets only where a socket names its protocol, each waits 40 ms."""

    async def without_delay() -> int:
        with listen("127.0.0.1", 0) as listening:
            taken: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
            server = await asyncio.start_server(
                lambda _, one: taken.put_nowait(one), sock=listening
            )
            async with server:
                _, writer = await asyncio.open_connection(*listening.getsockname())
                answering = await taken.get()
                end = answering.get_extra_info("socket")
                value = int(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                for one in (writer, answering):
                    one.close()
                    await one.wait_closed()
        return value

    assert asyncio.run(without_delay())


def test_what_was_loaded_is_not_collected(tmp_path: Path, monkeypatch: Any) -> None:
    """Collections of garbage leave it out while the server runs."""
    frozen: list[int] = []

    def run(sockets: list[socket.socket]) -> None:
        frozen.append(gc.get_freeze_count())
        sockets[0].close()

    engine = ScriptedEngine(play, PROFILE)
    made = SimpleNamespace(state=SimpleNamespace(service=None))
    command = "speaker_reasoner.commands.serve"
    monkeypatch.setattr(f"{command}.load_quietly", lambda _: engine)
    monkeypatch.setattr(f"{command}._server", lambda *_: SimpleNamespace(run=run))
    monkeypatch.setattr("speaker_reasoner.server.app.create_app", lambda *_: made)
    gc.unfreeze()
    try:
        assert main(["serve", "--port", "0", "--store", str(tmp_path)]) == 0
    finally:
        gc.freeze()
    assert frozen[0] > 10_000, "objects of the libraries"


EMBEDDED = "speaker_reasoner"
SCRIPTED = "tests.simulated"


@contextmanager
def process(module: str, store: Path, *arguments: str) -> Iterator[tuple[Forked, str]]:
    """The command in a process of its own, and its address."""
    words = [
        "--store",
        str(store),
        *(["--model", "tiny"] if module == EMBEDDED else []),
        *arguments,
    ]
    server = Server(words, {"SIMULATED_S": "0.02"}, module)
    try:
        yield server.process, server.ready().url
    finally:
        server.end(signal.SIGKILL)


def test_a_server_that_is_stopped(tmp_path: Path) -> None:
    """A signal finishes the request under way; the job goes on at the next start."""
    with process(SCRIPTED, tmp_path / "store", "--batch", "2") as (running, url):
        job = _accept(url, wav(300.0), "a.wav")
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(_transcribe(url, wav(20.0))))
        waiting.start()
        wait_until(lambda: "speaker_reasoner_active 2.0" in httpx2.get(f"{url}/metrics").text)
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) in (0, -signal.SIGTERM)
        waiting.join()
        assert answers[0].json()["text"].startswith("one two one two")
    with process(SCRIPTED, tmp_path / "store") as (_, url):
        assert _job(url, job)["status"] in ("queued", "running")


def test_a_server_that_is_killed(tmp_path: Path) -> None:
    _kill_and_compare(SCRIPTED, tmp_path, wav(60.0), kills=1)


@pytest.mark.slow
def test_a_server_that_is_killed_with_the_embedded_checkpoint(tmp_path: Path) -> None:
    samples, rate = soundfile.read(EXAMPLE)
    file = io.BytesIO()
    soundfile.write(file, [*samples, *samples, *noise(1.0), *samples], rate, format="FLAC")
    _kill_and_compare(EMBEDDED, tmp_path, file.getvalue(), kills=1)


def _kill_and_compare(module: str, folder: Path, data: bytes, kills: int) -> None:
    """Every job that was accepted ends with the transcript and events it would have had."""
    store, jobs = folder / "store", []
    for _ in range(kills):
        with process(module, store, "--batch", "2") as (running, url):
            jobs += [_accept(url, data, f"{i}.flac") for i in range(2)]
            at_s = _position_s(url)
            wait_until(lambda: _position_s(url) > at_s, 120)  # noqa: B023
            running.kill()
            running.wait()
    with process(module, store) as (_, url):
        jobs.append(_accept(url, data, "whole.flac"))
        wait_until(lambda: all(_job(url, job)["status"] == "done" for job in jobs), 300)
        texts = [httpx2.get(f"{url}/v1/jobs/{job}/transcript?format=srt").text for job in jobs]
        events = [events_of(httpx2.get(f"{url}/v1/jobs/{job}/events").text) for job in jobs]
    assert texts[0] and len(set(texts)) == 1
    told = [
        sorted((e[2]["start"], e[2]["text"]) for e in one if e[1] == "segment") for one in events
    ]
    assert len(told[0]) > 5 and all(one == told[0] for one in told)


def _transcribe(url: str, data: bytes) -> Any:
    fields = {"model": "scripted"}
    return httpx2.post(
        f"{url}/v1/audio/transcriptions", data=fields, files={"file": ("a.wav", data)}, timeout=60
    )


def _accept(url: str, data: bytes, name: str) -> str:
    answer = httpx2.post(f"{url}/v1/jobs", files={"file": (name, data)}, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _job(url: str, job: str) -> Any:
    return httpx2.get(f"{url}/v1/jobs/{job}").json()


def _position_s(url: str) -> float:
    """How much of all jobs was heard."""
    jobs = httpx2.get(f"{url}/v1/jobs").json()["data"]
    return float(sum(job["position"] for job in jobs))
