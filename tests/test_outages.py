"""Outages for real: a disk without a byte left, a database that goes away, a process that is killed."""

import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from speaker_reasoner.server.database import Database

from . import serving
from .cloud import Server, alone
from .serving import Gate, Serve, add_job, error_of, events_of, wait, wait_until, wav

serve = serving.serve
__all__ = ["serve"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of the store, as a file system of 4 MiB of its own."""
    folder = tmp_path / "store"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.name != "posix" or shutil.which("mount") is None or subprocess.call(mount) != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.call(["umount", "-l", str(folder)])


def fill(folder: Path) -> Path:
    """Take every byte that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"\1" * size) == size:
                    pass
            except OSError:
                continue
    left = os.statvfs(folder)
    assert left.f_bavail * left.f_frsize == 0
    return ballast


def test_a_full_disk_passes(tiny_disk: Path, serve: Serve) -> None:
    """Under a job: it waits, the server says so, and both go on when there is space."""
    gate = Gate()
    client = serve(gate)
    job = add_job(client, wav(3.0))
    assert gate.reached.wait(5)
    ballast = fill(tiny_disk)
    gate.open.set()
    wait_until(lambda: client.get("/health").status_code == 503)
    assert "No space left" in client.get("/health").json()["problems"][0]
    refused = client.post("/v1/jobs", files={"file": ("a.wav", wav())})
    message = error_of(refused, 507, "storage_failed")
    assert str(tiny_disk) not in message and refused.headers["retry-after"]
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "running"
    ballast.unlink()
    assert wait(client, job)["status"] == "done"
    wait_until(lambda: client.get("/health").json() == {
        "status": "ok", "problems": [], "jobs_waiting_for_storage": 0,
    })  # fmt: skip
    names = [e[1] for e in events_of(client.get(f"/v1/jobs/{job['id']}/events").text)]
    assert names == ["overview", "box", "segment", "box", "segment", "done", "job"]


def test_deleting_frees_a_full_disk(tiny_disk: Path, serve: Serve) -> None:
    client = serve()
    first, second = (wait(client, add_job(client, wav(20.0))) for _ in range(2))
    fill(tiny_disk)
    wait_until(lambda: client.get("/health").status_code == 503)
    url = f"/v1/jobs/{first['id']}"
    into_bin = client.delete(url)
    assert into_bin.status_code in (200, 507)
    if into_bin.status_code == 507:
        assert "erase=true" in error_of(into_bin, 507, "storage_failed")
    assert client.delete(f"{url}?erase=true").status_code == 200
    assert not (tiny_disk / "jobs" / first["id"]).exists()
    wait_until(lambda: client.get("/health").json()["status"] == "ok")
    left = os.statvfs(tiny_disk)
    assert left.f_bavail * left.f_frsize > 500_000
    assert [one["id"] for one in client.get("/v1/jobs").json()["data"]] == [second["id"]]
    wait_until(lambda: not list((tiny_disk / "erased").iterdir()))
    assert wait(client, add_job(client, wav(3.0)))["status"] == "done"


def test_a_row_that_cannot_be_deleted_yet(serve: Serve, tmp_path: Path, monkeypatch: Any) -> None:
    """What was erased is gone for everybody at once; its row follows, also after a restart."""
    client = serve()
    job = wait(client, add_job(client))

    def refuse(*_: Any) -> None:
        raise serving.database_error(OSError("gone"))

    store = client.app.state.service.store  # type: ignore[attr-defined]
    monkeypatch.setattr(type(store), "finish_erasing", refuse)
    assert client.delete(f"/v1/jobs/{job['id']}?erase=true").status_code == 200
    assert client.get("/v1/jobs").json()["data"] == []
    assert [path.name for path in (tmp_path / "store/erased").iterdir()] == [job["id"]]
    monkeypatch.undo()
    client = serve()
    assert client.get("/v1/jobs?removed=true").json()["data"] == []
    assert list((tmp_path / "store/erased").iterdir()) == []


@pytest.mark.no_cover
@pytest.mark.parametrize("times", [8])
def test_a_database_that_comes_and_goes(serve: Serve, monkeypatch: Any, times: int) -> None:
    """Under load: every accepted job ends as it would have."""
    client = serve(batch=2)
    whole = wait(client, add_job(client, wav(6.0)))
    wanted = client.get(f"/v1/jobs/{whole['id']}/transcript?format=seglst").text
    was = Database.begin
    accepted = []

    def fail(*_: Any, **__: Any) -> Any:
        raise serving.database_error(OSError("connection refused"))

    for _ in range(times):
        accepted.append(add_job(client, wav(6.0)))
        monkeypatch.setattr(Database, "begin", fail)
        refused = client.post("/v1/jobs", files={"file": ("a.wav", wav())})
        error_of(refused, 503, "database_unavailable")
        wait_until(lambda: client.get("/health").status_code == 503)
        monkeypatch.setattr(Database, "begin", was)
        wait_until(lambda: client.get("/health").status_code == 200)
    for job in accepted:
        assert wait(client, job)["status"] == "done"
        assert client.get(f"/v1/jobs/{job['id']}/transcript?format=seglst").text == wanted


def test_another_process_takes_over(tmp_path: Path) -> None:
    """Two on one store: what the killed one had begun, the other one ends."""
    first, second = alone(tmp_path / "store"), alone(tmp_path / "store")
    with httpx2.Client(timeout=60) as http:
        wait_until(lambda: answers(http, first) and answers(http, second))
        form = {"file": ("a.wav", wav(20.0))}
        job = http.post(f"{first.url}/v1/jobs", files=form).json()
        seen = f"{second.url}/v1/jobs/{job['id']}"
        wait_until(lambda: http.get(seen).json()["status"] == "running")
        first.end(signal.SIGKILL)
        wait_until(lambda: http.get(seen).json()["status"] == "done")
        texts = [one["text"] for one in http.get(f"{seen}/document").json()["segments"]]
        assert texts == ["one", "two"] * (len(texts) // 2) and len(texts) >= 10
        told = [event for event in events_of(http.get(f"{seen}/events").text) if event[0]]
        assert len({str(event[1:]) for event in told}) == len(told), "nothing is told twice"
    second.end(signal.SIGTERM)


def test_a_job_is_cancelled_at_another_process(tmp_path: Path) -> None:
    first, second = alone(tmp_path / "store"), alone(tmp_path / "store")
    with httpx2.Client(timeout=60) as http:
        wait_until(lambda: answers(http, first) and answers(http, second))
        job = http.post(f"{first.url}/v1/jobs", files={"file": ("a.wav", wav(60.0))}).json()
        urls = [f"{one.url}/v1/jobs/{job['id']}" for one in (first, second)]
        assert http.post(f"{urls[1]}/cancel").json()["status"] == "cancelled"
        for url in urls:
            wait_until(lambda url=url: http.get(url).json()["status"] == "cancelled")  # type: ignore[misc]
        assert http.post(f"{urls[1]}/retry").status_code == 202
        wait_until(lambda: http.get(urls[0]).json()["status"] == "done", 60)
    for one in (first, second):
        one.end(signal.SIGTERM)


def answers(http: httpx2.Client, server: Server) -> bool:
    try:
        return http.get(f"{server.url}/health").status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.mark.slow
def test_many_kills_under_load(tmp_path: Path) -> None:
    """Two processes on a store, one of which is killed at a random moment, again and again: what was
    accepted ends as it would have, and what was corrected stays."""
    kills = int(os.environ.get("SPEAKER_REASONER_KILLS", "12"))
    rng, store = random.Random(7), tmp_path / "store"
    servers = [alone(store), alone(store)]
    accepted: list[str] = []
    corrected: dict[str, str] = {}
    with httpx2.Client(timeout=20) as http:
        for server in servers:
            wait_until(lambda server=server: answers(http, server), 60)  # type: ignore[misc]

        def send(server: Server) -> None:
            form = {"file": ("a.wav", wav(9.0))}
            try:
                answer = http.post(f"{server.url}/v1/jobs", files=form)
                if answer.status_code == 202:
                    accepted.append(answer.json()["id"])
                done = [one for one in accepted if one not in corrected]
                if done:
                    url = f"{server.url}/v1/jobs/{done[0]}"
                    made = {"revision": 0, "op": "edit", "segment": "0", "text": f"typed {done[0]}"}
                    if http.post(f"{url}/corrections", json=made).status_code == 200:
                        corrected[done[0]] = made["text"]  # type: ignore[assignment]
            except httpx2.HTTPError:
                pass  # it was killed meanwhile: nothing was promised

        for number in range(kills):
            victim = servers[number % 2]
            timer = threading.Timer(rng.uniform(0.05, 0.8), victim.process.kill)
            timer.start()
            while victim.process.poll() is None:
                send(rng.choice(servers))
            timer.join()
            victim.end(signal.SIGKILL)
            servers[number % 2] = alone(store)
            wait_until(lambda n=number: answers(http, servers[n % 2]), 60)  # type: ignore[misc]
        assert len(accepted) > kills and corrected
        for job in accepted:
            url = f"{servers[0].url}/v1/jobs/{job}"
            wait_until(lambda url=url: http.get(url).json()["status"] == "done", 120)  # type: ignore[misc]
            texts = [one["text"] for one in http.get(f"{url}/document").json()["segments"]]
            assert texts == [corrected.get(job, "one"), *["two", "one"] * 2, "two"], job
    for server in servers:
        server.end(signal.SIGTERM)
