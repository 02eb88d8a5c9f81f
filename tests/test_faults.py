"""Faults: input of every bad kind, full disks, stores that were damaged, requests that collide."""

import errno
import io
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile

from speaker_reasoner import formats
from speaker_reasoner.engines import Request
from speaker_reasoner.errors import ServerError
from speaker_reasoner.server.database import Database
from speaker_reasoner.server.events import EventLog, EventReader
from speaker_reasoner.server.failures import database_error
from speaker_reasoner.server.store import Store
from speaker_reasoner.server.uploads import Limits, _FormReader

from . import serving
from .conftest import noise
from .serving import Gate, Serve, add_job, error_of, events_of, post, wait, wait_until, wav
from .talk import play
from .test_serve import Live, connect, form_head, live, status_of

serve = serving.serve
__all__ = ["live", "serve"]

# Recordings of every bad kind


def encoded(samples: Any, kind: str, rate_hz: int = 16_000, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype=subtype)
    return file.getvalue()


NOT_A_NUMBER = np.where(np.arange(48_000) == 9, np.nan, 0.1).astype(np.float32)
BAD = {
    "a header and no samples": wav()[:44],
    "cut off": wav()[:50_000],
    "flac that is cut off": encoded(noise(3.0), "FLAC")[:9000],
    "ogg that is cut off": encoded(noise(3.0), "OGG")[:3000],
    "samples that are no numbers": encoded(NOT_A_NUMBER, "WAV", subtype="FLOAT"),
    "a page": b"<!doctype html><script>alert(1)</script>",
    "a page behind a header": wav()[:44] + b"<script>alert(1)</script>",
    "a tag and nothing behind it": b"ID3\x04\0\0\0\0\0\0",
    "an impossible rate": wav()[:24] + b"\0\0\0\0" + wav()[28:],
    "a program": b"\x7fELF" + bytes(4000),
    "a link": b"https://example.org/talk.wav\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a playlist": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
}
GOOD = {
    "silence": encoded(np.zeros(48_000), "WAV"),
    "a single sample": encoded(np.full(1, 0.1), "WAV"),
    "eight channels": encoded(np.tile(noise(3.0)[:, None], 8), "WAV"),
    "eight bits at 8 kHz": encoded(noise(3.0), "WAV", 8000, "PCM_U8"),
    "written to a pipe": wav()[:4] + b"\xff\xff\xff\xff" + wav()[8:40] + b"\xff\xff\xff\xff" + wav()[44:],
}  # fmt: skip


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server that has to live through all of it."""
    running = serving.start_on(tmp_path_factory.mktemp("standing"))
    yield running
    running.__exit__(None, None, None)


@pytest.mark.parametrize("route", ["/v1/audio/transcriptions", "/v1/jobs"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_recordings(standing: Any, kind: str, route: str) -> None:
    fields = {"model": "scripted"} if "audio" in route else {}
    answer = standing.post(route, data=fields, files={"file": ("talk.wav", BAD[kind])})
    message = error_of(answer, 400, "invalid_audio")
    assert message.startswith("'talk.wav': ")
    assert "incoming" not in message and "root:" not in message
    assert standing.get("/health").json()["status"] == "ok"
    assert list((standing.app.state.service.settings.store / "incoming").iterdir()) == []


@pytest.mark.parametrize("kind", GOOD)
def test_odd_recordings_are_heard(standing: Any, kind: str) -> None:
    assert post(standing, GOOD[kind]).status_code == 200
    assert wait(standing, add_job(standing, GOOD[kind]))["status"] == "done"


def test_a_body_that_drips(live: Any, monkeypatch: Any) -> None:
    """Never silent for long, and never at an end."""
    monkeypatch.setattr("speaker_reasoner.server.uploads._SLOWEST_BYTES_PER_S", 1e6)
    server = live(limits=Limits(idle_s=0.3))
    connection = connect(server, "Content-Length: 900000", form_head())
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            connection.send(b"\0")

    dripping = threading.Thread(target=drip)
    dripping.start()
    with connection.makefile("rb") as answer:
        assert b" 408 " in answer.readline()
    stop.set()
    dripping.join()
    connection.close()
    wait_until(lambda: server.idle)


# Names


EVIL = "\"><script>alert(1)</script>'; rm -rf $HOME &amp; ../..%2f"


def test_names_stay_words(serve: Serve) -> None:
    """In headers, and in every format: nothing that a name holds is markup, a path or a line."""
    client = serve()
    made = client.post("/v1/jobs", data={"name": EVIL}, files={"file": ("talk.wav", wav(9.0))})
    job = wait(client, made.json())
    assert job["name"] == EVIL
    url = f"/v1/jobs/{job['id']}"
    rename = {"revision": 0, "op": "rename", "speaker": "Speaker1", "name": EVIL}
    assert client.post(f"{url}/corrections", json=rename).status_code == 200
    edit = {"revision": 1, "op": "edit", "segment": "1", "text": EVIL}
    assert client.post(f"{url}/corrections", json=edit).status_code == 200
    for name, known in formats.FORMATS.items():
        asked = {"format": name, "whole_lines": "true"}
        answer = client.get(f"{url}/transcript", params=asked)
        assert answer.status_code == 200, name
        header = answer.headers["content-disposition"]
        assert header.startswith("attachment; ") and not set(header[30:]) & set("\"'<>;/ "), name
        assert "html" not in answer.headers["content-type"], name
        assert answer.headers["x-content-type-options"] == "nosniff"
        if known.parse is not None:
            [read] = known.parse(answer.text, name)
            assert len(read.segments) == 6, name
    for name in ("vtt", "md"):
        assert "<script>" not in client.get(f"{url}/transcript?format={name}").text, name


# Full disks


class Full:
    """A disk that is full from a certain moment on, where some files are concerned."""

    def __init__(self, monkeypatch: Any, *names: str) -> None:
        self.now = False
        was: Callable[..., Any] = Path.open

        def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            if self.now and path.name in names and set(mode) & set("awx+"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return was(path, mode, *args, **options)

        monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("name", ["events.jsonl", "journal.jsonl"])
def test_a_disk_that_fills_up_under_a_job(
    serve: Serve, monkeypatch: Any, tmp_path: Path, name: str
) -> None:
    disk, gate = Full(monkeypatch, name), Gate()
    client = serve(gate)
    job = add_job(client)
    assert gate.reached.wait(5)
    disk.now = True
    gate.open.set()
    url = f"/v1/jobs/{job['id']}"
    wait_until(lambda: client.get(url).json()["problem"] is not None)
    waiting = client.get(url).json()
    assert waiting["status"] == "running" and "No space left" in waiting["problem"]
    assert client.get("/health").json()["jobs_waiting_for_storage"] == 1
    assert client.post(f"{url}/retry").json()["status"] == "running", "it tries at once"
    disk.now = False
    assert wait(client, job)["status"] == "done" and client.get(url).json()["problem"] is None
    other = wait(client, add_job(client))
    texts = [client.get(f"/v1/jobs/{one['id']}/transcript?format=txt").text for one in (job, other)]
    assert texts[0] == texts[1]
    events = events_of(client.get(f"/v1/jobs/{job['id']}/events").text)
    told = [json.dumps(data) for _, name, data in events if name == "segment"]
    assert told and len(told) == len(set(told))


def test_only_what_ended_without_a_transcript_is_tried_again(serve: Serve) -> None:
    gate = Gate()
    client = serve(gate)
    job = add_job(client)
    path = f"/v1/jobs/{job['id']}"
    error_of(client.post(f"{path}/retry"), 409, "job_not_failed")  # under way
    assert client.post(f"{path}/cancel").json()["status"] == "cancelled"
    elsewhere = client.post(f"{path}/retry", headers={"origin": "https://evil.example"})
    error_of(elsewhere, 403, "origin_not_allowed")
    gate.open.set()
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: client.post(f"{path}/retry"), range(2)))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert wait(client, job)["status"] == "done"
    error_of(client.post(f"{path}/retry"), 409, "job_not_failed")
    error_of(client.post("/v1/jobs/job-nobody/retry"), 404, "job_not_found")


def test_what_a_full_disk_stopped_hears_only_the_rest(serve: Serve, monkeypatch: Any) -> None:
    """The last of three chunks cannot be kept: it is heard again, and nothing is told twice."""
    disk, turns = Full(monkeypatch, "journal.jsonl"), list[int]()

    def hear(request: Request) -> str:
        turns.append(request.rules.turn)
        disk.now = len(turns) == 18  # nine turns of each job
        return play(request)

    client = serve(hear, batch=1)
    jobs = [wait(client, add_job(client)) for _ in range(2)]
    assert turns[:18] == [0, 1, 2] * 6 and turns[18:] == [0, 1, 2]
    paths = [f"/v1/jobs/{one['id']}" for one in jobs]
    texts = [client.get(f"{path}/transcript?format=seglst").text for path in paths]
    assert texts[0] == texts[1]
    told = [events_of(client.get(f"{path}/events").text)[:-1] for path in paths]
    assert told[0] == told[1] and told[0][-1][1] == "done"


@pytest.mark.parametrize("content", [None, b"RIFF"])
def test_another_try_of_a_recording_that_is_damaged(
    serve: Serve, tmp_path: Path, content: bytes | None
) -> None:
    gate = Gate()
    client = serve(gate)
    job = add_job(client)
    path, audio = f"/v1/jobs/{job['id']}", tmp_path / "store/jobs" / job["id"] / "audio.flac"
    assert gate.reached.wait(5)
    client.post(f"{path}/cancel")
    gate.open.set()
    audio.unlink()
    if content is not None:
        audio.write_bytes(content)
    for _ in range(2):
        assert client.post(f"{path}/retry").status_code == 202
        ended = wait(client, job)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "job_damaged")
        assert str(tmp_path) not in ended["error"]["message"]


def test_a_disk_that_is_full_for_the_transcript(serve: Serve, monkeypatch: Any) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    gate = Gate()
    client = serve(gate)
    job = add_job(client, wav(3.0))
    assert gate.reached.wait(5)
    monkeypatch.setattr(os, "fsync", full)
    gate.open.set()
    wait_until(lambda: client.get("/health").status_code == 503)
    health = client.get("/health").json()
    assert health["status"] == "degraded" and "No space left" in health["problems"][0]
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "running"
    monkeypatch.undo()
    assert wait(client, job)["status"] == "done"
    wait_until(lambda: client.get("/health").json()["status"] == "ok")
    assert post(client).json()["text"] == "one two"


def test_a_disk_that_is_full_for_the_upload(serve: Serve, monkeypatch: Any, tmp_path: Path) -> None:
    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client = serve()
    monkeypatch.setattr(_FormReader, "flush", full)
    message = error_of(post(client), 507, "storage_failed")
    assert "No space left" in message and str(tmp_path) not in message
    monkeypatch.undo()
    assert post(client).json()["text"] == "one two"


def test_a_database_that_fails_for_a_moment(serve: Serve, monkeypatch: Any) -> None:
    """What cannot be written down waits, and is written as soon as it can be."""
    gate = Gate()
    client = serve(gate)
    job = add_job(client)
    assert gate.reached.wait(5)
    was = Database.begin

    def fail(*_: Any, **__: Any) -> Any:
        raise database_error(OSError("connection refused"))

    monkeypatch.setattr(Database, "begin", fail)
    gate.open.set()
    wait_until(lambda: client.get("/health").status_code == 503)
    for answer in (client.get("/v1/jobs"), client.post("/v1/jobs", files={"file": ("a", wav())})):
        message = error_of(answer, 503, "database_unavailable")
        assert "refused" not in message and answer.headers["retry-after"]
    monkeypatch.setattr(Database, "begin", was)
    assert wait(client, job)["status"] == "done"
    assert post(client).json()["text"] == "one two"


def test_an_event_that_was_written_in_half(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append("box", {"n": 1})
    assert log._file is not None
    whole = log._file

    class Half:
        def write(self, data: bytes) -> int:
            return whole.write(data[:5])

        def close(self) -> None:
            whole.close()

    log._file = Half()  # type: ignore[assignment]
    with pytest.raises(Exception, match="No space left"):
        log.append("box", {"n": 2})
    log.append("box", {"n": 3})
    assert [event.data for event in EventReader(path).new()] == [{"n": 1}, {"n": 3}]
    log.close()


# What was damaged while nobody looked


@pytest.fixture
def finished(serve: Serve, tmp_path: Path) -> Any:
    """A server with one job that is done; its folder; a function that starts the server again."""
    client = serve()
    job = wait(client, add_job(client))
    made = {"revision": 0, "op": "delete", "segment": "1"}
    assert client.post(f"/v1/jobs/{job['id']}/corrections", json=made).status_code == 200
    return client, job, tmp_path / "store/jobs" / job["id"]


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("transcript.json", None),
        ("transcript.json", b"{"),
        ("transcript.json", b"\xff\xfe\x00"),
        ("lines.json", None),
        ("lines.json", b"{"),
        ("lines.json", b"[[1, 2, 3]]"),
    ],
)
def test_a_transcript_that_is_damaged(finished: Any, name: str, content: bytes | None) -> None:
    client, job, folder = finished
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    url = f"/v1/jobs/{job['id']}"
    for path in ("/document", "/transcript", "/trace?chunk=0"):
        message = error_of(client.get(url + path), 500, "job_damaged")
        assert str(folder.parent) not in message and "remove the job" in message
    undo = client.post(f"{url}/corrections", json={"revision": 1, "op": "undo"})
    error_of(undo, 500, "job_damaged")
    assert [one["id"] for one in client.get("/v1/jobs").json()["data"]] == [job["id"]]
    assert client.delete(url).json()["deleted"]
    assert (
        client.delete(f"/v1/jobs/{job['id']}?erase=true").json()["deleted"] and not folder.exists()
    )


def test_a_recording_that_is_gone(finished: Any) -> None:
    client, job, folder = finished
    (folder / "audio.flac").unlink()
    error_of(client.get(f"/v1/jobs/{job['id']}/audio"), 500, "job_damaged")
    made = {"revision": 1, "op": "listen", "chunk": 0}
    assert client.post(f"/v1/jobs/{job['id']}/corrections", json=made).status_code == 202
    ended = wait(client, job)
    assert (ended["status"], ended["error"]["code"]) == ("done", "job_damaged")
    assert len(client.get(f"/v1/jobs/{job['id']}/document").json()["segments"]) == 5


def test_events_that_are_damaged(finished: Any) -> None:
    client, job, folder = finished
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "events.jsonl").write_bytes(b"".join([lines[0], b"\xff{\n", *lines[2:]]))
    told = events_of(client.get(f"/v1/jobs/{job['id']}/events").text)
    assert [name for _, name, _ in told] == ["overview", "error", "job"]
    assert "event 2" in told[1][2]["error"]["message"]


def rows(folder: Path, statement: str, *values: Any) -> None:
    with sqlite3.connect(folder / "jobs.sqlite") as database:
        database.execute(statement, values)
    database.close()


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("voices", "{"),
        ("voices", "[1]"),
        ("voices", "{}"),
        ("error", "no JSON"),
        ("error", "[]"),
        ("status", "exploded"),
    ],
)
def test_a_row_that_is_damaged(
    finished: Any, serve: Serve, tmp_path: Path, column: str, value: str
) -> None:
    """It is a job that failed, and the others go on."""
    client, job, folder = finished
    other = wait(client, add_job(client))
    statement = f"update speaker_reasoner_jobs set {column} = ? where id = ?"
    rows(tmp_path / "store", statement, value, job["id"])
    client = serve()
    listed = {one["id"]: one for one in client.get("/v1/jobs").json()["data"]}
    assert listed[job["id"]]["status"] == "failed"
    assert listed[job["id"]]["error"]["code"] == "job_damaged"
    assert listed[other["id"]]["status"] == "done"
    error_of(client.get(f"/v1/jobs/{job['id']}/document"), 409, "job_not_done")
    assert client.delete(f"/v1/jobs/{job['id']}").json()["deleted"]
    assert (
        client.delete(f"/v1/jobs/{job['id']}?erase=true").json()["deleted"] and not folder.exists()
    )


@pytest.mark.parametrize(
    ("column", "value"), [("speakers", "x"), ("voices", '["Ana"]'), ("listen", 99)]
)
def test_a_waiting_row_that_cannot_be_done(
    serve: Serve, tmp_path: Path, column: str, value: Any
) -> None:
    gate = Gate()
    client = serve(gate, batch=1)
    job = add_job(client)
    assert gate.reached.wait(5)
    client.app.state.service.drain()  # type: ignore[attr-defined]
    gate.open.set()
    client.__exit__(None, None, None)
    rows(tmp_path / "store", f"update speaker_reasoner_jobs set {column} = ?", value)
    client = serve()
    ended = wait(client, job)
    assert ended["error"] is not None, ended
    assert str(tmp_path) not in ended["error"]["message"]
    assert wait(client, add_job(client))["status"] == "done"


@pytest.mark.no_cover
@pytest.mark.parametrize(
    "operation",
    ["{", "[]", '{"op": 1}', '{"op": "explode"}', '{"op": "delete"}', '{"op": "undo"}',
     '{"op": "heard", "chunk": 0, "trace": {}}'],
)  # fmt: skip
def test_a_correction_that_is_damaged(finished: Any, tmp_path: Path, operation: str) -> None:
    client, job, _ = finished
    statement = "update speaker_reasoner_corrections set operation = ?"
    rows(tmp_path / "store", statement, operation)
    error_of(client.get(f"/v1/jobs/{job['id']}/document"), 500, "job_damaged")
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "done"


def test_a_row_of_somebody_else(finished: Any, serve: Serve, tmp_path: Path) -> None:
    """An id that is no id of ours never becomes a path."""
    client, job, _ = finished
    victim = tmp_path / "victim"
    victim.mkdir()
    statement = "update speaker_reasoner_jobs set id = ? where id = ?"
    rows(tmp_path / "store", statement, "../../victim", job["id"])
    client = serve()
    assert client.get("/v1/jobs").json()["data"] == []
    assert client.delete("/v1/jobs/..%2f..%2fvictim").status_code == 404
    assert victim.exists()


@pytest.mark.parametrize("content", [b"{}", b"not a journal\n", b'{"journal": 1}\n[]\n', b"\xff\n"])
def test_a_journal_of_somebody_else(
    serve: Serve, tmp_path: Path, content: bytes, caplog: Any
) -> None:
    gate = Gate()
    client = serve(gate, batch=1)
    job = add_job(client)
    assert gate.reached.wait(5)
    client.app.state.service.drain()  # type: ignore[attr-defined]
    gate.open.set()
    client.__exit__(None, None, None)
    (tmp_path / "store/jobs" / job["id"] / "journal.jsonl").write_bytes(content)
    client = serve()
    assert wait(client, job)["status"] == "done"
    document = client.get(f"/v1/jobs/{job['id']}/document").json()
    assert [one["text"] for one in document["segments"]] == ["one", "two"] * 3


def test_a_store_that_is_damaged(tmp_path: Path) -> None:
    Store(tmp_path / "a").close()
    (tmp_path / "a/jobs.sqlite").write_bytes(b"\xff" * 5000)
    with pytest.raises(ServerError, match="not a database"):
        Store(tmp_path / "a")
    Store(tmp_path / "b").close()
    rows(tmp_path / "b", "drop table speaker_reasoner_jobs")
    rows(tmp_path / "b", "create table speaker_reasoner_jobs (id text)")
    with pytest.raises(ServerError, match="no such column"):
        Store(tmp_path / "b")
    for content in (b"", b"\xff", b"../../etc"):
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c/id").write_bytes(content)
        with pytest.raises(ServerError, match="damaged"):
            Store(tmp_path / "c")


def test_another_database_takes_nothing_away(tmp_path: Path, caplog: Any) -> None:
    """Folders of jobs that a database does not know may be another's."""
    store = Store(tmp_path / "store")
    with store.incoming() as folder:
        job = store.add(folder, "talk", 1.0, None, [])
    store.close()
    other = Store(tmp_path / "store", f"sqlite:///{tmp_path / 'other.sqlite'}")
    assert other.newest(10) == [] and "left alone" in caplog.text
    other.close()
    store = Store(tmp_path / "store")
    assert store.newest(10) == [job] and store.folder(job).exists()
    store.close()


# Requests that collide


def together(requests: Sequence[Callable[[], Any]]) -> list[Any]:
    """Send them at the same moment."""
    barrier = threading.Barrier(len(requests))

    def one(send: Callable[[], Any]) -> Any:
        barrier.wait(20)
        return send()

    with ThreadPoolExecutor(len(requests)) as threads:
        return list(threads.map(one, requests))


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=60) as client:
        yield client


def begin(http: httpx2.Client, server: Live) -> str:
    """The address of a new job."""
    answer = http.post(f"{server.url}/v1/jobs", files={"file": ("a.wav", wav(9.0))})
    return f"{server.url}/v1/jobs/{answer.json()['id']}"


def end(http: httpx2.Client, url: str) -> None:
    wait_until(lambda: http.get(url).json()["status"] == "done")


def test_two_corrections_of_one_revision(live: Any, http: httpx2.Client) -> None:
    """One is taken, the others are told; among them one that listens again."""
    url = begin(http, live())
    end(http, url)
    for revision in range(3):
        made: list[dict[str, Any]] = [
            {"revision": revision, "op": "edit", "segment": "0", "text": f"word {n}"}
            for n in range(5)
        ]
        made.append({"revision": revision, "op": "listen", "chunk": 1})
        send = [partial(http.post, f"{url}/corrections", json=one) for one in made]
        answers = together(send)
        codes = [answer.status_code for answer in answers]
        texts = [answer.text for answer in answers]
        assert sorted(codes)[1:] == [409] * 5 and min(codes) in (200, 202), texts
        end(http, url)
        after = http.get(f"{url}/document").json()
        assert after["revision"] == revision + 1
        if 200 in codes:
            text = next(s["text"] for s in after["segments"] if s["id"] == "0")
            assert text == made[codes.index(200)]["text"]


def test_two_ends_of_one_job(live: Any, http: httpx2.Client) -> None:
    gate = Gate()
    server = live(gate)
    url = begin(http, server)
    assert gate.reached.wait(20)
    ends = [lambda: http.post(f"{url}/cancel")] * 4
    answers = together(ends + [lambda: http.get(url)] * 2)
    assert {answer.status_code for answer in answers} == {200}
    gate.open.set()
    wait_until(lambda: server.idle)
    answers = together([lambda: http.delete(url)] * 4)
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    assert http.get(url).status_code == 404
    answers = together([lambda: http.delete(f"{url}?erase=true")] * 4)
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert list((server.service.settings.store / "jobs").iterdir()) == []


def test_many_readers_of_one_job(live: Any, http: httpx2.Client) -> None:
    gate = Gate()
    url = begin(http, live(gate))
    assert gate.reached.wait(20)
    threading.Timer(0.3, gate.open.set).start()
    answers = together([lambda: http.get(f"{url}/events")] * 8)
    told = [[event for event in events_of(one.text) if event[1] != "job"] for one in answers]
    assert all(one == told[0] for one in told) and told[0][-1][1] == "done"


def test_a_job_that_is_removed_while_it_is_corrected(live: Any, http: httpx2.Client) -> None:
    url = begin(http, live())
    end(http, url)
    made = {"revision": 0, "op": "delete", "segment": "0"}
    corrected, removed = together(
        [lambda: http.post(f"{url}/corrections", json=made), lambda: http.delete(url)]
    )
    assert corrected.status_code in (200, 404, 409, 500) and removed.status_code == 200
    assert http.get(url).status_code == 404


def test_other_sites_over_a_socket(live: Any, http: httpx2.Client) -> None:
    """A form that another site's page posts, as a browser sends it; the job is not begun."""
    server = live()
    form = form_head() + wav(1.0) + b"\r\n--b--\r\n"
    for head in ("Origin: https://evil.example", "Origin: null"):
        sent = connect(server, f"{head}\r\nContent-Length: {len(form)}", form)
        assert status_of(sent) == "403"
    own = f"Origin: http://localhost\r\nContent-Length: {len(form)}"
    assert status_of(connect(server, own, form)) == "200"
    preflight = http.options(
        f"{server.url}/v1/jobs",
        headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
    )
    assert "access-control-allow-origin" not in preflight.headers


def test_an_engine_that_stops_answering(live: Any, http: httpx2.Client) -> None:
    """Requests end at their time; the server lives, and says how it is."""
    gate = Gate()

    def stuck(request: Request) -> str:
        return gate(request) if not gate.open.is_set() else play(request)

    server = live(stuck, answer_s=0.3)
    route = f"{server.url}/v1/audio/transcriptions"
    fields, files = {"model": "scripted"}, {"file": ("a.wav", wav())}
    answer = http.post(route, data=fields, files=files)
    error_of(answer, 504, "answer_timeout")
    assert http.get(f"{server.url}/health").json()["status"] == "ok"
    assert "speaker_reasoner_active" in http.get(f"{server.url}/metrics").text
    gate.open.set()
    wait_until(lambda: server.idle)
    assert http.get(f"{server.url}/v1/jobs").json()["data"] == []
