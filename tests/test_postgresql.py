"""The store on a real PostgreSQL, started here where it is installed, and taken away from it."""

import time
from pathlib import Path

import pytest

from speaker_reasoner.server.failures import disk_error
from speaker_reasoner.server.live.incoming import LiveFile
from speaker_reasoner.server.store import Store

from . import postgres as postgresql
from . import serving
from .postgres import Postgres
from .serving import Serve, add_job, error_of, wait, wait_until, wav
from .test_realtime import babble, jobs, session

serve = serving.serve
postgres = postgresql.postgres
__all__ = ["postgres", "serve"]


def test_what_a_store_keeps(postgres: Postgres, tmp_path: Path) -> None:
    store = Store(tmp_path, postgres.url)
    with store.incoming() as folder:
        job = store.add(folder, "会议 'a'%", 1.5, "2-5", ["Ana"], "en")
    assert store.get(job.id) == job
    assert [one.id for one in store.newest(5, search="会议 'A'%")] == [job.id]
    assert store.change(job, status="done") and store.correct(job, 0, {"op": "undo"})
    assert not store.correct(job, 0, {"op": "redo"}) and store.corrections(job) == [{"op": "undo"}]
    assert store.remove(job) and store.get(job.id) is None and store.restore(job)
    assert store.outlived(0.0, 0.0)[0].id == job.id
    store.erase(job)
    assert store.newest(5) == []
    store.close()


def test_older_tables_get_their_columns(postgres: Postgres, tmp_path: Path) -> None:
    Store(tmp_path, postgres.url).close()
    from sqlalchemy import create_engine, text

    engine = create_engine(postgres.url)
    with engine.begin() as connection:
        for column in ("owner", "lease", "removed", "listen_keep"):
            connection.execute(text(f"ALTER TABLE speaker_reasoner_jobs DROP COLUMN {column}"))
    engine.dispose()
    store = Store(tmp_path, postgres.url)
    with store.incoming() as folder:
        job = store.add(folder, "talk", 1.5, None, [])
    assert store.get(job.id) == job
    store.close()


def test_it_goes_away_and_comes_back(postgres: Postgres, serve: Serve) -> None:
    """Nothing that was accepted is lost, and no answer tells where the database is."""
    client = serve(database=postgres.url)
    first = wait(client, add_job(client, wav(6.0)))
    wanted = client.get(f"/v1/jobs/{first['id']}/transcript?format=seglst").text
    jobs = [add_job(client, wav(6.0)) for _ in range(4)]
    postgres.stop()
    wait_until(lambda: client.get("/health").status_code == 503)
    for answer in (
        client.get("/v1/jobs"),
        client.delete(f"/v1/jobs/{first['id']}"),
        client.post("/v1/jobs", files={"file": ("a.wav", wav())}),
    ):
        message = error_of(answer, 503, "database_unavailable")
        for secret in ("word", "tester", "postgres", postgres.url.partition("host=")[2]):
            assert secret not in message
    problems = str(client.get("/health").json())
    assert "tester" not in problems and postgres.url not in problems
    postgres.start()
    wait_until(lambda: client.get("/health").status_code == 200)
    for job in jobs:
        assert wait(client, job)["status"] == "done"
        assert client.get(f"/v1/jobs/{job['id']}/transcript?format=seglst").text == wanted


def test_a_live_session_becomes_a_job_of_all_servers_in_the_end(
    serve: Serve, postgres: Postgres, tmp_path: Path
) -> None:
    client = serve(database=postgres.url)
    with session(client) as talker:
        job_id = talker.seen[0]["session"]["job"]
        talker.say(babble(3.0))
        time.sleep(0.2)
        assert jobs(client) == []
    for _ in range(100):
        if any(mine := jobs(client)):
            break
        time.sleep(0.05)
    job = wait(client, mine[0])
    assert (job["id"], job["status"], job["duration"]) == (job_id, "done", 3.0)
    assert not list((tmp_path / "store" / "live").iterdir())


def test_a_live_session_that_does_not_fit_leaves_nothing(
    serve: Serve, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: LiveFile, data: bytes) -> None:
        raise disk_error("store what was said", OSError(28, "No space left on device"))

    client = serve(database=postgres.url)
    with session(client) as talker:
        monkeypatch.setattr(LiveFile, "append", full)
        talker.say(babble(0.2))
        assert "No space left" in talker.until("error")["error"]["message"]
    assert jobs(client) == [] and not list((tmp_path / "store" / "live").iterdir())
