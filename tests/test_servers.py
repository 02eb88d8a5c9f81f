"""Several servers over one PostgreSQL and one bucket or folder: real processes, a real database, a real S3
server on loopback; the engine plays turns."""

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile

from . import postgres as postgresql
from . import s3_server
from .cloud import (
    FRONT_AND_WORKERS,
    LEASE_S,
    STOPPED,
    Cloud,
    Server,
    expected_lines,
    expected_texts,
    is_done,
    kill_one_after_the_other,
    lines,
    send,
    status,
    texts,
)
from .conftest import noise
from .postgres import Postgres
from .serving import error_of, events_of, wait_until, wav

postgres = postgresql.postgres
__all__ = ["postgres"]
_numbers = itertools.count()


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
    events = events_of(http.get(f"{front.url}/v1/jobs/{job}/events").text)
    assert events[-1][1] == "job" and events[-1][2]["status"] == "done"
    assert texts(http, front, job) == expected_texts(60.0)
    streamed = [data["text"] for _, name, data in events if name == "segment"]
    assert streamed == expected_texts(60.0), "each line once, in order"
    audio = http.get(f"{front.url}/v1/jobs/{job}/audio", headers={"range": "bytes=0-43"})
    assert audio.status_code == 206 and audio.content[:4] == b"RIFF"
    assert len(http.get(f"{front.url}/v1/jobs/{job}/peaks").content) == 6000
    url = f"{front.url}/v1/jobs/{job}/corrections"
    made = http.post(url, json={"revision": 0, "op": "edit", "segment": "0", "text": "typed"})
    assert made.status_code == 200
    again = http.post(url, json={"revision": 1, "op": "listen", "chunk": 1})
    assert again.status_code == 202
    wait_until(lambda: status(http, front, job) == "done")
    assert texts(http, front, job) == ["typed", *expected_texts(60.0)[1:]]
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

    def by_kind(events: Any, kind: str) -> Any:
        return [data for _, name, data in events if name == kind]

    for kind in ("delta", "segment", "done"):
        mine, theirs = (by_kind(events, f"transcript.text.{kind}") for _, events in answers)
        assert mine == theirs and mine
    wrong = http.post(
        f"{front.url}/v1/audio/transcriptions",
        files={"file": ("a.wav", wav())},
        data={"model": "other"},
    )
    assert "scripted" in error_of(wrong, 404, "model_not_found")
    assert http.get(f"{front.url}/v1/jobs").json()["data"] == []


def test_a_client_hangs_up(cloud: Cloud, http: httpx2.Client) -> None:
    """Nobody waits any more: the recording is given up, and nothing of it is left."""
    front, worker = cloud.start("--no-engine"), cloud.start("--worker", SIMULATED_S="0.7")
    form = {"model": "scripted", "stream": "true"}
    url = f"{front.url}/v1/audio/transcriptions"
    # Many more chunks than are under way at once: the first words come long before the end.
    sound = wav(400.0)
    with http.stream("POST", url, files={"file": ("a.wav", sound)}, data=form) as answer:
        rows = answer.iter_lines()
        assert next(rows) == "event: transcript.text.delta"
        assert count_jobs(cloud.database) == 1
    wait_until(lambda: count_jobs(cloud.database) == 0)
    active = "speaker_reasoner_active 0.0"
    wait_until(lambda: active in http.get(f"{worker.url}/metrics").text)


def count_jobs(database: str) -> int:
    from sqlalchemy import create_engine, func, select

    from speaker_reasoner.server.database import JOBS

    engine = create_engine(database)
    with engine.connect() as connection:
        count = connection.scalar(select(func.count()).select_from(JOBS))
    engine.dispose()
    return int(count or 0)


def test_jobs_of_one_server_at_another(shared_folder: Cloud, http: httpx2.Client) -> None:
    """Over a folder: cancelled, tried again, heard again and deleted, wherever it is asked for."""
    one, two = shared_folder.start(SIMULATED_S="0.1"), shared_folder.start("--no-engine")
    job = send(http, one, 60.0)
    wait_until(lambda: status(http, two, job) == "running")
    refused = http.delete(f"{two.url}/v1/jobs/{job}?erase=true")
    error_of(refused, 409, "job_under_way")
    assert http.post(f"{two.url}/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
    assert status(http, one, job) == "cancelled"
    assert http.post(f"{two.url}/v1/jobs/{job}/retry").status_code == 202
    wait_until(lambda: status(http, two, job) == "done", 60)
    assert texts(http, one, job) == texts(http, two, job) == expected_texts(60.0)
    assert http.delete(f"{two.url}/v1/jobs/{job}").status_code == 200
    assert http.get(f"{one.url}/v1/jobs/{job}").status_code == 404
    assert http.post(f"{one.url}/v1/jobs/{job}/restore").status_code == 200
    assert http.get(f"{two.url}/v1/jobs").json()["data"][0]["id"] == job
    count = http.get(f"{two.url}/health").json()["servers"]
    assert count == {"server": 1, "worker": 0, "front": 1}


def test_a_server_that_hangs(cloud: Cloud, http: httpx2.Client) -> None:
    """It is stopped while it works, and goes on when its job was done by another: its words are refused."""
    front, hangs = cloud.start("--no-engine"), cloud.start("--worker", SIMULATED_S="0.1")
    job = send(http, front, 30.0)
    wait_until(lambda: status(http, front, job) == "running")
    hangs.process.send_signal(signal.SIGSTOP)
    other = cloud.start("--worker")
    wait_until(lambda: status(http, front, job) == "done", 60)
    events = http.get(f"{front.url}/v1/jobs/{job}/events").text
    hangs.process.send_signal(signal.SIGCONT)
    wait_until(lambda: http.get(f"{hangs.url}/health").json()["jobs_waiting_for_storage"] == 0)
    second = send(http, front, 9.0)
    wait_until(lambda: status(http, front, second) == "done")
    assert http.get(f"{front.url}/v1/jobs/{job}/events").text == events
    assert texts(http, front, job) == expected_texts(30.0)
    assert {other.end(), hangs.end()} <= STOPPED


def test_one_that_is_stopped_leaves_its_jobs_at_once(cloud: Cloud, http: httpx2.Client) -> None:
    front, leaves = cloud.start("--no-engine"), cloud.start("--worker", SIMULATED_S="0.3")
    job = send(http, front, 30.0)
    wait_until(lambda: status(http, front, job) == "running")
    stays = cloud.start("--worker")
    assert leaves.end() in STOPPED
    wait_until(lambda: status(http, front, job) == "done", LEASE_S + 5)
    assert texts(http, front, job) == expected_texts(30.0)
    job = send(http, front, 30.0)
    wait_until(lambda: status(http, front, job) == "running")
    assert stays.end() in STOPPED
    error_of(http.get(f"{front.url}/v1/models"), 503, "no_worker")
    wait_until(
        lambda: "'scripted'" in (http.get(f"{front.url}/v1/jobs/{job}").json()["problem"] or "")
    )
    cloud.start("--worker")
    wait_until(lambda: is_done(http, front, job))
    assert lines(http, front, job) == expected_lines(30.0)


def test_the_database_goes_away(postgres: Postgres, cloud: Cloud, http: httpx2.Client) -> None:
    """For longer than a lease: what was accepted ends as it would have, with a client on the line too."""
    front, _ = cloud.start("--no-engine"), cloud.start("--worker", SIMULATED_S="0.1")
    jobs = [send(http, front, 30.0) for _ in range(3)]
    wait_until(lambda: status(http, front, jobs[0]) == "running")
    answers: list[Any] = []
    form = {"model": "scripted", "response_format": "diarized_json"}
    url = f"{front.url}/v1/audio/transcriptions"
    files = {"file": ("a.wav", wav(30.0))}
    waits = threading.Thread(target=lambda: answers.append(http.post(url, files=files, data=form)))
    waits.start()
    time.sleep(1.0)
    postgres.stop()
    try:
        wait_until(lambda: http.get(f"{front.url}/health").status_code == 503)
        refused = http.post(f"{front.url}/v1/jobs", files={"file": ("a.wav", wav())})
        error_of(refused, 503, "database_unavailable")
        time.sleep(float(os.environ.get("SPEAKER_REASONER_OUTAGE_S", LEASE_S + 1)))
    finally:
        postgres.start()
    for job in jobs:
        wait_until(lambda job=job: is_done(http, front, job), 60)  # type: ignore[misc]
        assert texts(http, front, job) == expected_texts(30.0)
    waits.join()
    assert [line["text"] for line in answers[0].json()["segments"]] == expected_texts(30.0)


def test_the_bucket_is_busy(
    bucket: tuple[dict[str, str], Path], cloud: Cloud, http: httpx2.Client
) -> None:
    """It answers 503 for a while: to uploads, and to workers that fetch."""
    front, worker = cloud.start("--no-engine"), cloud.start("--worker")
    busy = bucket[1] / "busy"
    busy.write_text("4")
    job = send(http, front, 9.0)
    wait_until(lambda: is_done(http, front, job), 60)
    assert texts(http, front, job) == expected_texts(9.0) and busy.read_text() == "0"
    assert worker.process.poll() is None
    copies = [path for path in cloud.folder.rglob("audio.flac") if job in path.parts]
    assert len(copies) == 1, "the worker's"


def test_how_many_wait_is_told_by_a_front(cloud: Cloud, http: httpx2.Client) -> None:
    front = cloud.start("--no-engine")
    worker = cloud.start("--worker", "--batch", "1", SIMULATED_S="30")
    jobs = [send(http, front, 9.0) for _ in range(4)]

    def places() -> list[Any]:
        bodies = [http.get(f"{front.url}/v1/jobs/{job}").json() for job in jobs]
        return [(one["status"], one["queue_position"]) for one in bodies]

    waits = [("queued", 0), ("queued", 1), ("queued", 2)]
    wait_until(lambda: places() == [("running", None), *waits])
    listed = http.get(f"{front.url}/v1/jobs").json()["data"]
    assert [one["queue_position"] for one in listed] == [2, 1, 0, None]
    assert worker.end(signal.SIGKILL)


def test_fronts_keep_the_channels_that_workers_want(cloud: Cloud, http: httpx2.Client) -> None:
    front = cloud.start("--no-engine")
    cloud.start("--worker", "--channels", "separate")
    sound = io.BytesIO()
    quiet, loud = noise(9.0, 1) * 0.1, noise(9.0, 2)
    soundfile.write(sound, np.stack([quiet, loud], axis=1), 16_000, format="WAV")
    files = {"file": ("call.wav", sound.getvalue())}
    job = http.post(f"{front.url}/v1/jobs", files=files).json()["id"]
    wait_until(lambda: is_done(http, front, job))
    [kept] = [path for path in cloud.folder.rglob("audio.flac") if job in path.parts]
    assert soundfile.info(kept).channels == 2
    form = {"speakers": "2"}
    refused = http.post(f"{front.url}/v1/jobs", files=files, data=form)
    assert "each channel" in error_of(refused, 400, "invalid_value")


def test_workers_that_differ(cloud: Cloud) -> None:
    cloud.start("--worker")
    assert "other settings (--answer" in cloud.begin("--worker", "--answer", "model").failed()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--worker"], "--worker: expected a database that all servers reach, got SQLite"),
        (["--no-engine", "--database", "sqlite:////tmp/x"], "--no-engine: expected a database"),
        (["--store", "s3://bucket/x"], "expected a database that all servers reach, got SQLite"),
        (["--no-engine", "--model", "tiny"], "--model belong to the workers"),
        (["--worker", "--no-engine"], "not allowed with"),
        (["--no-engine", "--channels", "separate"], "--channels belong to the workers"),
        (["--no-engine", "--channel", "0"], "--channel belong to the workers"),
        (["--worker", "--engine-api"], "leave out --engine-api"),
        (["--lease", "1"], "whole seconds in 2..86400"),
    ],
)
def test_servers_that_are_started_wrongly(words: list[str], said: str, tmp_path: Path) -> None:
    store = [] if "--store" in words else ["--store", str(tmp_path / "store")]
    scratch = ["--scratch", str(tmp_path / "scratch")]
    assert said in Server([*store, *scratch, *words], {}).failed()


def test_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    words = ["--store", str(tmp_path), "--database", "postgresql+psycopg://u:secret@127.0.0.1:1/x"]
    output = Server(words, {}).failed()
    assert "check --database" in output and "secret" not in output


def test_a_bucket_that_is_not_there(cloud: Cloud) -> None:
    cloud.store = "s3://nowhere/x"
    output = cloud.begin("--worker").failed()
    assert "s3://nowhere/x" in output and "check the address" in output


@pytest.mark.parametrize("kinds", [FRONT_AND_WORKERS, [()] * 3], ids=["front", "full"])
def test_any_of_three_is_killed(
    cloud: Cloud, http: httpx2.Client, kinds: list[tuple[str, ...]]
) -> None:
    """Each of them dies once at a random moment, and comes back."""
    kill_one_after_the_other(cloud, http, kinds, 3, within_s=1.0, pause_s=0.1)


@pytest.mark.slow
def test_three_are_killed_again_and_again(cloud: Cloud, http: httpx2.Client) -> None:
    kills = int(os.environ.get("SPEAKER_REASONER_KILLS", "12"))
    happened = kill_one_after_the_other(cloud, http, FRONT_AND_WORKERS, kills, seed=1)
    assert happened["taken_over"] > 0
