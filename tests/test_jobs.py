"""Jobs of the server: their life, events, audio, restarts; the store."""

import io
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile

from speaker_reasoner import audio, formats
from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import EngineError, OutputError, ServerError
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.server.events import EventLog, EventReader
from speaker_reasoner.server.keeper import Rules
from speaker_reasoner.server.manager import JobManager, _news
from speaker_reasoner.server.sound import Pcm, decode
from speaker_reasoner.server.store import Store

from . import serving
from .conftest import noise
from .serving import Gate, Serve, add_job, error_of, events_of, post, wait, wait_until, wav
from .talk import PROFILE, play, save
from .test_serve import live

serve = serving.serve
__all__ = ["live", "serve"]

# Jobs


def test_a_job(serve: Serve) -> None:
    client = serve()
    job = add_job(client, name="board meeting.wav")
    assert (job["name"], job["duration"], job["revision"]) == ("board meeting.wav", 9.0, 0)
    done = wait(client, job)
    assert (done["status"], done["position"], done["speakers"]) == ("done", 9.0, 6)
    assert done["error"] is None and done["queue_position"] is None
    assert client.get("/v1/jobs").json() == {"data": [done], "has_more": False}
    native = client.get(f"/v1/jobs/{job['id']}/transcript")
    [transcript] = formats.table.parse_json(native.text, "answer")
    assert (transcript.recording, transcript.duration_s) == ("board meeting", 9.0)
    assert [s.text for s in transcript.segments] == ["one", "two"] * 3
    assert "board%20meeting.json" in native.headers["content-disposition"]


def test_the_transcript_is_that_of_the_command_line(serve: Serve, tmp_path: Path) -> None:
    """Of a file at another rate: what is kept of it is exactly what is heard of the file itself."""
    path = save(tmp_path / "talk.flac", noise(9.0), 22_050)
    client = serve()
    job = add_job(client, path.read_bytes(), name="talk.flac")
    wait(client, job)
    got = client.get(f"/v1/jobs/{job['id']}/transcript?format=seglst").text
    expected = Transcriber(ScriptedEngine(play, PROFILE), detect=None).transcribe(path)
    assert got == formats.render(expected, "seglst")
    stored = next((tmp_path / "store/jobs").iterdir()) / "audio.flac"
    assert audio.load(stored) == pytest.approx(audio.load(path), abs=2**-24), "to 24 bits"


@pytest.mark.parametrize("name", list(formats.FORMATS))
def test_every_format(serve: Serve, name: str) -> None:
    client = serve()
    job = add_job(client)
    wait(client, job)
    answer = client.get(f"/v1/jobs/{job['id']}/transcript", params={"format": name})
    assert answer.status_code == 200 and answer.text


def test_an_unknown_format(serve: Serve) -> None:
    client = serve()
    job = add_job(client)
    wait(client, job)
    answer = client.get(f"/v1/jobs/{job['id']}/transcript?format=pdf")
    assert "known formats" in error_of(answer, 400, "invalid_value")


def test_events(serve: Serve) -> None:
    client = serve()
    job = add_job(client, wav(3.0))
    wait(client, job)
    events = events_of(client.get(f"/v1/jobs/{job['id']}/events").text)
    assert [name for _, name, _ in events] == [
        "overview",
        "box",
        "segment",
        "box",
        "segment",
        "done",
        "job",
    ]
    assert [number for number, _, _ in events] == ["1", "2", "3", "4", "5", "6", None]
    data = [data for _, _, data in events]
    assert data[0] == {"chunk": 0, "start": 0.0, "end": 3.0, "speakers": ["female", "male"]}
    assert data[1] == {"chunk": 0, "turn": 1, "start": 0.0, "end": 1.5}
    assert (data[2]["id"], data[2]["turn"], data[2]["text"]) == ("0", 1, "one")
    assert data[5] == {"revision": 0}
    assert data[6]["status"] == "done"
    later = client.get(f"/v1/jobs/{job['id']}/events", headers={"last-event-id": "4"})
    assert events_of(later.text) == events[4:]
    error_of(
        client.get(f"/v1/jobs/{job['id']}/events", headers={"last-event-id": "x"}),
        400,
        "invalid_value",
    )


def test_a_kill_between_the_state_and_the_last_event(serve: Serve, tmp_path: Path) -> None:
    """The job is done, and its log does not say so: its reader is told all the same, once."""
    client = serve()
    job = wait(client, add_job(client))
    [log] = (tmp_path / "store/jobs").glob("*/events.jsonl")
    *lines, last = log.read_text().splitlines(keepends=True)
    assert json.loads(last)["event"] == "done"
    log.write_text("".join(lines))
    for _ in range(2):
        names = [name for _, name, _ in events_of(client.get(f"/v1/jobs/{job['id']}/events").text)]
        assert names[-2:] == ["done", "job"] and names.count("done") == 1


def test_events_of_a_job_under_way_end_with_it(serve: Serve) -> None:
    gate = Gate()
    client = serve(gate)
    job = add_job(client, wav(3.0))
    assert gate.reached.wait(5)
    threading.Timer(0.2, gate.open.set).start()
    events = events_of(client.get(f"/v1/jobs/{job['id']}/events").text)
    names = [name for _, name, _ in events]
    assert names[0] == "job" and names[-2:] == ["done", "job"]
    assert [n for n in names if n != "job"] == [
        "overview",
        "box",
        "segment",
        "box",
        "segment",
        "done",
    ]
    assert (events[0][2]["status"], events[-1][2]["status"]) == ("running", "done")


def test_a_second_reader_learns_of_corrections(live: Any) -> None:
    """With `follow` a stream goes on after the end, and tells what others change."""
    server = live()
    with httpx2.Client(timeout=20) as http:
        job = http.post(f"{server.url}/v1/jobs", files={"file": ("a.wav", wav())}).json()
        url = f"{server.url}/v1/jobs/{job['id']}"
        wait_until(lambda: http.get(url).json()["status"] == "done")
        with httpx2.stream("GET", f"{url}/events?follow=true", timeout=20) as stream:
            text, correct = "", {"revision": 0, "op": "delete", "segment": "0"}
            for piece in stream.iter_text():
                text += piece
                if '"revision": 0}' in text and correct:
                    assert http.post(f"{url}/corrections", json=correct).status_code == 200
                    correct = {}
                jobs = [data for _, name, data in events_of(text) if name == "job"]
                if jobs and jobs[-1]["revision"] == 1:
                    break
        assert [one["revision"] for one in jobs] == [0, 1]


def test_cancel_and_remove(serve: Serve, tmp_path: Path) -> None:
    gate = Gate()
    client = serve(gate, batch=1)
    running, queued = add_job(client), add_job(client)
    gate.reached.wait(5)
    for job in (running, queued):
        url = f"/v1/jobs/{job['id']}"
        error_of(client.delete(url), 409, "job_under_way")
        error_of(client.delete(f"{url}?erase=true"), 409, "job_under_way")
        assert client.post(f"{url}/cancel").json()["status"] == "cancelled"
        assert wait(client, job)["status"] == "cancelled"
    error_of(client.get(f"/v1/jobs/{running['id']}/document"), 409, "job_not_done")
    events = events_of(client.get(f"/v1/jobs/{running['id']}/events").text)
    assert [(name, data["status"]) for _, name, data in events] == [("job", "cancelled")]
    gate.open.set()
    assert post(client).json()["text"] == "one two"
    url = f"/v1/jobs/{running['id']}"
    removed = client.delete(url).json()
    assert removed["deleted"] and removed["restorable_until"] > time.time()
    for path in (url, f"{url}/audio"):
        error_of(client.get(path), 404, "job_not_found")
    error_of(client.delete(url), 404, "job_not_found")
    [binned] = client.get("/v1/jobs?removed=true").json()["data"]
    assert binned["id"] == running["id"] and binned["removed"] <= time.time()
    assert client.delete(f"{url}?erase=true").json()["restorable_until"] is None
    assert client.get("/v1/jobs?removed=true").json()["data"] == []
    assert [folder.name for folder in (tmp_path / "store/jobs").iterdir()] == [queued["id"]]
    assert list((tmp_path / "store/erased").iterdir()) == []


def test_a_job_tells_its_last_change_before_its_run_is_forgotten(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobManager, "_forget", lambda *_: None)
    client = serve()
    job = wait(client, add_job(client))
    assert job["changed"] > job["created"]


def test_cancel_never_removes(serve: Serve) -> None:
    """Whatever a client believes: what is done stays, as often as it is cancelled."""
    client = serve()
    job = wait(client, add_job(client))
    url = f"/v1/jobs/{job['id']}"
    document = client.get(f"{url}/document").json()
    for _ in range(3):
        assert client.post(f"{url}/cancel").json() == job
    assert client.get(f"{url}/document").json() == document
    assert client.get(f"{url}/audio").status_code == 200
    error_of(client.post("/v1/jobs/job_none/cancel"), 404, "job_not_found")


def test_the_bin(serve: Serve, tmp_path: Path) -> None:
    """What was removed comes back as it was, corrections included, until the bin is emptied."""
    client = serve()
    job = wait(client, add_job(client))
    url = f"/v1/jobs/{job['id']}"
    made = {"revision": 0, "op": "delete", "segment": "1"}
    before = client.post(f"{url}/corrections", json=made).json()
    error_of(client.post(f"{url}/restore"), 409, "job_not_removed")
    client.delete(url)
    client = serve()
    assert client.get("/v1/jobs").json()["data"] == []
    for path in ("corrections", "retry", "cancel"):
        body = {"revision": 1, "op": "undo"} if path == "corrections" else None
        error_of(client.post(f"{url}/{path}", json=body), 404, "job_not_found")
    assert client.post(f"{url}/restore").json()["removed"] is None
    assert client.get(f"{url}/document").json() == before
    client.delete(url)
    client = serve(rules=Rules(bin_s=0.0))
    wait_until(lambda: not list((tmp_path / "store/jobs").iterdir()))
    error_of(client.post(f"{url}/restore"), 404, "job_not_found")


def test_what_was_kept_long_enough_is_erased(serve: Serve, tmp_path: Path) -> None:
    client = serve()
    old, new = (wait(client, add_job(client, name=name)) for name in ("old", "new"))
    client.__exit__(None, None, None)
    with sqlite3.connect(tmp_path / "store/jobs.sqlite") as database:
        statement = "update speaker_reasoner_jobs set changed = changed - 100 where id = ?"
        database.execute(statement, (old["id"],))
    database.close()
    client = serve(rules=Rules(keep_s=50.0))
    wait_until(lambda: len(client.get("/v1/jobs").json()["data"]) == 1)
    assert client.get("/v1/jobs").json()["data"][0]["id"] == new["id"]
    assert [folder.name for folder in (tmp_path / "store/jobs").iterdir()] == [new["id"]]


def test_pages_of_jobs(serve: Serve) -> None:
    client = serve()
    jobs = [wait(client, add_job(client, wav(3.0), name=f"Talk {n}%.wav")) for n in range(5)]
    ids = [job["id"] for job in jobs][::-1]
    seen, after = [], {}
    while True:
        page = client.get("/v1/jobs", params={"limit": 2, **after}).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": seen[-1]}
    assert seen == ids

    def found(**asked: Any) -> list[str]:
        return [job["id"] for job in client.get("/v1/jobs", params=asked).json()["data"]]

    assert found(search="tALK 3%") == [jobs[3]["id"]] and found(search="talk_3") == []
    assert found(since=jobs[2]["created"]) == ids[:3]
    assert found(until=jobs[2]["created"]) == ids[3:]
    assert found(status="done") == ids and found(status="failed") == []
    error_of(client.get("/v1/jobs?after=job_none"), 404, "job_not_found")
    for wrong in ("limit=0", "limit=1001", "status=x", "since=x", "colour=red"):
        error_of(client.get(f"/v1/jobs?{wrong}"), 400, "invalid_value")


def test_a_job_that_fails(serve: Serve) -> None:
    def fail(request: Request) -> str:
        raise EngineError("out of memory")

    client = serve(fail)
    job = wait(client, add_job(client))
    assert (job["status"], job["error"]["code"]) == ("failed", "engine_failed")
    error_of(client.get(f"/v1/jobs/{job['id']}/transcript"), 409, "job_not_done")


@pytest.mark.parametrize("job", ["x", "../store", "%2e%2e%2fstore", "job_", "a" * 3000])
def test_jobs_that_do_not_exist(serve: Serve, job: str) -> None:
    client = serve()
    for path in ("", "/events", "/audio", "/document", "/transcript", "/trace?chunk=0"):
        assert client.get(f"/v1/jobs/{job}{path}").status_code == 404


def test_a_path_in_an_allowed_folder(serve: Serve, tmp_path: Path) -> None:
    allowed = tmp_path / "recordings"
    (allowed / "inside").mkdir(parents=True)
    save(allowed / "inside/talk.wav", noise(3.0))
    save(tmp_path / "secret.wav", noise(3.0))
    (allowed / "link.wav").symlink_to(tmp_path / "secret.wav")
    client = serve(allowed=(allowed.resolve(),))
    for path in ("inside/talk.wav", str(allowed / "inside/talk.wav"), "inside/../inside/talk.wav"):
        answer = client.post("/v1/jobs", files={"path": (None, path)})
        assert answer.json()["name"] == "talk.wav"
        assert wait(client, answer.json())["status"] == "done"
    for path in (
        "../secret.wav",
        str(tmp_path / "secret.wav"),
        "link.wav",
        "nothing.wav",
        "inside",
        "/etc/passwd",
        "a\0b",
        "x" * 5000,
    ):
        answer = client.post("/v1/jobs", files={"path": (None, path)})
        error_of(answer, 400, "path_not_allowed")
    assert (allowed / "inside/talk.wav").exists()
    both = client.post("/v1/jobs", files={"path": (None, "a"), "file": ("a.wav", wav())})
    error_of(both, 400, "missing_field")
    error_of(client.post("/v1/jobs", files={"name": (None, "a")}), 400, "missing_field")
    lines = client.post("/v1/jobs", files={"name": (None, "a\nb"), "file": ("a", wav())})
    assert "one line" in error_of(lines, 400, "invalid_value")


def test_no_path_without_an_allowed_folder(serve: Serve, tmp_path: Path) -> None:
    save(tmp_path / "talk.wav", noise(3.0))
    answer = serve().post("/v1/jobs", files={"path": (None, str(tmp_path / "talk.wav"))})
    error_of(answer, 400, "path_not_allowed")


def test_audio_by_the_byte(serve: Serve) -> None:
    client = serve()
    job = add_job(client, wav(3.0, subtype="FLOAT"))
    whole = client.get(f"/v1/jobs/{job['id']}/audio")
    samples, rate = soundfile.read(io.BytesIO(whole.content), dtype="float32")
    assert (rate, samples.shape) == (16_000, (48_000,))
    # Kept as FLAC of 24 bits, sent in 16: rounded twice.
    assert samples == pytest.approx(noise(3.0), abs=1 / 65_536 + 2**-24)
    for asked, span in {
        "bytes=0-9": slice(0, 10),
        "bytes=43-46": slice(43, 47),
        "bytes=45-45": slice(45, 46),
        "bytes=1001-": slice(1001, None),
        "bytes=-7": slice(-7, None),
        "bytes=90000-999999": slice(90_000, None),
    }.items():
        part = client.get(f"/v1/jobs/{job['id']}/audio", headers={"range": asked})
        assert part.status_code == 206, asked
        assert part.content == whole.content[span], asked
        assert part.headers["content-range"].endswith(f"/{len(whole.content)}")
    for asked in ("bytes=96044-", "bytes=5-2", "bytes=-0"):
        answer = client.get(f"/v1/jobs/{job['id']}/audio", headers={"range": asked})
        error_of(answer, 416, "invalid_range")
    several = client.get(f"/v1/jobs/{job['id']}/audio", headers={"range": "bytes=0-1,5-6"})
    assert several.status_code == 200


def test_loud_samples_do_not_wrap(tmp_path: Path) -> None:
    path = save(tmp_path / "loud.wav", np.array([1.5, -1.5, 1.0] * 1000), subtype="FLOAT")
    decode(path, tmp_path / "kept.wav", "loud.wav", 10.0)
    pcm = Pcm(tmp_path / "kept.wav")
    samples = np.frombuffer(b"".join(pcm.read(44, 50)), "<i2")
    assert list(samples) == [32767, -32768, 32767]


# Restarts


def test_a_job_goes_on_after_a_restart(serve: Serve) -> None:
    calls: list[int] = []
    both_came = threading.Event()

    def stop_midway(request: Request) -> str:
        assert both_came.wait(20)
        calls.append(request.rules.turn)
        if len(calls) == 8:
            client.app.state.service.drain()  # type: ignore[attr-defined]
        return play(request)

    expected = serve()
    whole = add_job(expected, wav(20.0))
    wait(expected, whole)
    wanted = expected.get(f"/v1/jobs/{whole['id']}/transcript?format=seglst").text
    client = serve(stop_midway, batch=1)
    job = add_job(client, wav(20.0))
    waiting = add_job(client)
    both_came.set()
    while client.app.state.service.worker._rounds.tasks or len(calls) < 8:  # type: ignore[attr-defined]
        time.sleep(0.01)
    error_of(post(client), 503, "server_stopping")
    client = serve()
    assert wait(client, job)["status"] == wait(client, waiting)["status"] == "done"
    assert client.get(f"/v1/jobs/{job['id']}/transcript?format=seglst").text == wanted
    both = [
        [e for e in events_of(client.get(f"/v1/jobs/{one['id']}/events").text) if e[1] != "job"]
        for one in (whole, job)
    ]
    assert both[0] == both[1]


def test_a_journal_of_another_version_begins_anew(
    serve: Serve, tmp_path: Path, caplog: Any
) -> None:
    gate, calls = Gate(), []

    def hold(request: Request) -> str:
        calls.append(request)
        return gate(request) if len(calls) > 8 else play(request)

    client = serve(hold, batch=1)
    job = add_job(client, wav(20.0))
    assert gate.reached.wait(5)
    client.app.state.service.drain()  # type: ignore[attr-defined]
    gate.open.set()
    client.__exit__(None, None, None)
    journal = tmp_path / "store/jobs" / job["id"] / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"version": "', '"version": "0.0.', 1))
    client = serve()
    assert wait(client, job)["status"] == "done"
    assert "begins anew" in caplog.text
    events = events_of(client.get(f"/v1/jobs/{job['id']}/events").text)
    told = [data["id"] for _, name, data in events if name == "segment"]
    assert told == [str(n) for n in range(len(told))]
    document = client.get(f"/v1/jobs/{job['id']}/document").json()
    assert sorted(s["id"] for s in document["segments"]) == sorted(told)


def test_events_of_before_a_recording_begins_anew_are_void(tmp_path: Path) -> None:
    """A stream that is open learns of it; whoever goes on after that tells what was told before again."""
    reader, path = EventReader(tmp_path / "events"), tmp_path / "events"
    first = EventLog(path)
    for name in ("overview", "segment"):
        first.append(name, {"id": "0"})
    first.close()
    assert [event.number for event in reader.new()] == [1, 2]
    anew = EventLog(path)
    anew.append("anew", {})
    anew.append("overview", {"id": "0"})
    anew.close()
    again = EventLog(path, again=True)
    for name in ("overview", "segment"):
        again.append(name, {"id": "0"})
    again.close()
    names = [(event.number, event.name) for event in reader.new()]
    assert names == [(3, "anew"), (4, "overview"), (5, "segment")]
    assert [event.name for event in _news(EventReader(path))[0]] == ["anew", "overview", "segment"]


def test_what_a_crash_left_is_removed(serve: Serve, tmp_path: Path) -> None:
    serve()
    for left in ("incoming/half", "jobs/job_never_accepted"):
        (tmp_path / "store" / left).mkdir()
    (tmp_path / "store/jobs/job_never_accepted/not-accepted").touch()
    serve()
    assert [p for part in ("incoming", "jobs") for p in (tmp_path / "store" / part).iterdir()] == []


def test_two_processes_on_a_store(tmp_path: Path) -> None:
    """The jobs of one that lives are left to it; those of one that is gone are taken at once."""
    first, second = Store(tmp_path), Store(tmp_path)
    with first.incoming() as folder:
        job = first.add(folder, "talk", 1.0, None, [])
    assert second.take() == [] and second.renew([(job, 0.5)]) == set()
    assert first.renew([(job, 0.5)]) == {job.id}
    assert not second.change(job, status="done"), "it is another's"
    kept = second.get(job.id)
    assert kept is not None and kept.position_s == 0.5
    first.close()
    [taken] = second.take()
    assert taken.id == job.id
    assert second.change(taken, status="done") and second.take() == []
    second.close()


def test_a_chunk_that_is_heard_again_is_cancelled_by_one_who_knew_of_nothing(
    tmp_path: Path,
) -> None:
    """The job keeps its transcript."""
    store = Store(tmp_path)
    with store.incoming() as folder:
        as_read = store.add(folder, "talk", 1.0, None, [])
    assert store.change(as_read, status="done") and store.listen(as_read, 0)
    assert store.cancel(as_read)
    job = store.get(as_read.id)
    assert job is not None and (job.status, job.listen) == ("done", None)
    assert not store.cancel(as_read) and store.listen(job, 0)
    store.close()


def test_a_job_that_another_took_and_lost_meanwhile(tmp_path: Path, monkeypatch: Any) -> None:
    """It is taken at the next look, under the token that it has then."""
    first, second, third = Store(tmp_path), Store(tmp_path), Store(tmp_path)
    with first.incoming() as folder:
        first.add(folder, "talk", 1.0, None, [])
    first.close()
    read = third._select()
    assert second.take()
    second.close()
    monkeypatch.setattr(third, "_select", lambda *_: read)
    assert third.take() == []
    monkeypatch.undo()
    [taken] = third.take()
    assert taken.token == 3 and third.change(taken, status="done")
    third.close()


def test_a_process_that_hangs_loses_its_jobs(tmp_path: Path) -> None:
    hanging, other = Store(tmp_path, lease_s=0.2), Store(tmp_path, lease_s=0.2)
    with hanging.incoming() as folder:
        job = hanging.add(folder, "talk", 1.0, None, [])
    assert other.take() == []
    time.sleep(0.3)
    assert [one.id for one in other.take()] == [job.id]
    assert hanging.renew([(job, 0.0)]) == set() and not hanging.change(job, status="done")
    hanging.close()
    other.close()


def test_a_killed_process_leaves_its_jobs_to_the_next(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from speaker_reasoner.server.store import Store;"
        f"store = Store(Path({str(tmp_path)!r}));"
        "held = store.incoming(); folder = held.__enter__();"
        "print(store.add(folder, 'talk', 1.0, None, []).id, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        job_id = server.stdout.readline().strip()
        store = Store(tmp_path)
        assert store.take() == []
        server.kill()
        server.wait()
        assert [one.id for one in store.take()] == [job_id]
    store.close()


def test_stores_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="another folder"):
        Store(tmp_path / "file")
    with pytest.raises(ServerError, match="expected a SQLAlchemy URL"):
        Store(tmp_path / "a", "nonsense")
    with pytest.raises(ServerError, match="nowhere"):
        Store(tmp_path / "b", "sqlite:////nowhere/at/all.sqlite")


@pytest.mark.parametrize("database", [None, os.environ.get("SPEAKER_REASONER_TEST_DATABASE")])
def test_what_a_store_keeps(tmp_path: Path, database: str | None) -> None:
    """In SQLite, and in the database of the environment (one that nothing else uses)."""
    store = Store(tmp_path, database)
    with store.incoming() as folder:
        job = store.add(folder, "会议 'a'", 1.5, "2-5", ["Ana", "Ana"])
    with store.incoming() as folder:
        other = store.add(folder, "other", 2.0, None, [])
    kept = store.get(job.id)
    assert kept == job and store.get("job_") is None
    assert store.newest(1) == [other] and store.take() == []
    assert not store.correct(job, 0, {"op": "undo"}), "it is under way"
    assert store.change(job, status="done", speaker_count=2, error={"message": "m"})
    assert not store.change(job, status="cancelled")
    assert store.correct(job, 0, {"op": "undo"})
    assert not store.correct(job, 0, {"op": "redo"})
    assert not store.listen(job, 0), "it was corrected meanwhile"
    store.close()
    store = Store(tmp_path, database)
    kept = store.get(job.id)
    assert kept is not None
    assert (kept.status, kept.speaker_count) == ("done", 2)
    assert (kept.error, kept.revision) == ({"message": "m"}, 1)
    assert store.corrections(job) == [{"op": "undo"}] and store.corrections(other) == []
    assert [one.id for one in store.take()] == [other.id] and store.folder(job).exists()
    for one in (job, other):
        store.erase(one)
    assert store.newest(10) == [] and not store.folder(job).exists()
    store.close()


def test_stores_may_share_a_database(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    stores = [Store(tmp_path / name, database) for name in "ab"]
    for store in stores:
        with store.incoming() as folder:
            store.add(folder, "talk", 1.0, None, [])
    for store in stores:
        [job] = store.newest(10)
        assert store.folder(job).exists()
        store.close()


@pytest.mark.parametrize("cut", [b'{"event": "bo', b'{"event": "box", "data": {"n": 2}}'])
def test_a_log_that_a_crash_cut(tmp_path: Path, cut: bytes) -> None:
    """Within a line, or just before its end."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append("box", {"n": 1})
    log.close()
    with path.open("ab") as file:
        file.write(cut)
    assert [e.data for e in EventReader(path).new()] == [{"n": 1}]
    log = EventLog(path, again=True)
    for n in (1, 2):
        log.append("box", {"n": n})
    reader = EventReader(path, after=1)
    assert [(e.number, e.data) for e in reader.new()] == [(2, {"n": 2})]
    log.append("box", {"n": 3})
    assert [e.number for e in reader.new()] == [3]
    log.close()


def test_a_log_that_another_still_writes_to(tmp_path: Path) -> None:
    """A cancelled job may be tried again while the turn that was under way is still told."""
    path = tmp_path / "events.jsonl"
    log, again = EventLog(path), EventLog(path, again=True)
    log.append("box", {"n": 1})
    log.close()
    for n in (1, 2):
        again.append("box", {"n": n})
    again.close()
    assert [event.data["n"] for event in EventReader(path).new()] == [1, 2]
