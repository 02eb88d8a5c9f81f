"""A store that servers share: what dead ones left, slow buckets, streams over changes, folders of before."""

import asyncio
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speaker_reasoner.formats import render
from speaker_reasoner.server import relay
from speaker_reasoner.server.documents import keep_document
from speaker_reasoner.server.failures import StorageError
from speaker_reasoner.server.jobs import Job, new_job_id
from speaker_reasoner.server.keeper import Keeper, Rules
from speaker_reasoner.server.leftlive import LeftLive
from speaker_reasoner.server.lines import CorrectedLine
from speaker_reasoner.server.live.incoming import CODINGS, LiveFile
from speaker_reasoner.server.manager import _news
from speaker_reasoner.server.relay import RelayedRun
from speaker_reasoner.server.shared import SharedStore
from speaker_reasoner.server.store import Store
from speaker_reasoner.transcript import Segment, Transcript
from speaker_reasoner.voices.finished import FinishedChunk

from . import test_shared
from .serving import wait_until
from .test_shared import Begin, _fail, abandoned, add, claimed, done_before

postgres, url, made = test_shared.postgres, test_shared.url, test_shared.made
begin, put = test_shared.begin, test_shared.put
__all__ = ["begin", "made", "postgres", "put", "url"]


@pytest.fixture
def in_bucket(url: str, tmp_path: Path, made: list[SharedStore], monkeypatch: Any) -> Begin:
    """Start a server in a container of its own, all with one folder for copies."""
    pytest.importorskip("fsspec", reason="pip install 'speaker-reasoner[batch]'")
    numbers = itertools.count()

    def start(lease_s: float = 60.0) -> SharedStore:
        monkeypatch.setattr(socket, "gethostname", lambda: f"container{next(numbers)}")
        made.append(SharedStore(f"memory://shared/{url[-9:-4]}", url, lease_s, tmp_path / "s"))
        return made[-1]

    return start


def test_containers_with_one_scratch_folder(
    in_bucket: Begin, made: list[SharedStore], tmp_path: Path
) -> None:
    """One that starts leaves alone what the others have there, and takes what a dead one left, once its lease
    is over."""
    one = in_bucket()
    with one.incoming() as upload:
        (upload / "audio.flac").write_bytes(b"sound")
        two = in_bucket()
        with two.incoming() as other:
            in_bucket()._sweep()
            assert (upload / "audio.flac").exists() and other.exists()
            one._sweep()
            assert (upload / "audio.flac").exists() and other.exists()
        assert one.add(upload, "talk", 1.0, None, [], None, "", "m").status == "queued"
    # A lock that nobody holds: its process was killed.
    job_id = new_job_id()
    dead = "0123abcd-0000000000000000"
    lock = tmp_path / "s" / "processes" / f"{dead}.lock"
    lock.touch()
    left = tmp_path / "s" / "incoming" / dead / "upload"
    left.mkdir(parents=True)
    abandoned(one, job_id).rename(tmp_path / "s" / "live" / f"{dead}.{job_id}")
    one._sweep()
    assert left.exists() and one.get(job_id) is None, "it may live on another machine"
    os.utime(lock, (0, 0))
    one._sweep()
    assert not left.parent.exists() and not lock.exists() and one.get(job_id) is not None


def test_a_live_session_that_the_storage_refused_is_tried_again(
    begin: Begin, put: Any, monkeypatch: Any
) -> None:
    store, job_id = begin(), new_job_id()
    folder = abandoned(store, job_id)
    put(_fail)
    with pytest.raises(StorageError):
        store.adopt(folder.rename(folder.with_name(f"{store.owner}.{job_id}")))
    assert store.get(job_id) is None
    store._sweep()
    assert store.get(job_id) is not None and not list((store._folder / "live").iterdir())


def test_voices_of_a_live_session_come_with_its_job(begin: Begin) -> None:
    store = begin()
    left = LeftLive(new_job_id(), "Live", None, None, "", "m", ("Ana",))
    folder = store.live_folder(left)
    said = LiveFile(folder, CODINGS["audio/pcm"])
    said.append(bytes(48_000))
    said.close()
    (folder / "voice-0.wav").write_bytes(b"a clip")
    store.adopt(folder)
    job = store.get(left.id)
    assert job is not None and job.voices == ("Ana",)
    assert (store.folder(job) / "voice-0.wav").read_bytes() == b"a clip"


def nothing(*_: Any) -> int:
    return 0


def keeper_of(
    store: SharedStore, lease_s: float, *jobs: Job, claim: Callable[[], int] = nothing
) -> Keeper:
    """A keeper of jobs that this server works on."""
    runs: Any = {
        job.id: SimpleNamespace(
            job=job, position_s=0.0, leased_until=0.0, due=None, stopped=False, problem=None
        )
        for job in jobs
    }
    return Keeper(
        store,
        Rules(beat_s=0.05, lease_s=lease_s),
        runs=lambda: runs,
        launch=nothing,
        submit=nothing,
        drop=nothing,
        claim=claim,
    )


@pytest.mark.parametrize("slow", ["remove", "probe"])
def test_a_slow_bucket_costs_no_lease(begin: Begin, monkeypatch: Any, slow: str) -> None:
    one, other = begin(0.5), begin(0.5)
    erased, _ = add(one), add(one, "other")
    [mine] = [job for job in claimed(one, 2) if job.id != erased.id]
    assert one.cancel(erased)
    reached, go_on = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        reached.set()
        go_on.wait(20)

    with monkeypatch.context() as patch:  # its files are left to the cleaner
        patch.setattr(one, "_remove_files", lambda *_: None)
        assert one.erase(erased)
    monkeypatch.setattr(one._depot, slow, wait)
    keeper = keeper_of(one, 0.5, mine)
    starts = threading.Thread(target=keeper.start)
    starts.start()
    try:
        assert reached.wait(5)
        time.sleep(1.2)
        assert claimed(other) == [], "its lease was renewed meanwhile"
        assert keeper.problems == ()
    finally:
        go_on.set()
        starts.join()
        keeper.stop()


def test_a_bucket_that_refuses_is_reported(begin: Begin, monkeypatch: Any) -> None:
    """And jobs wait as long as it does."""
    store, claims = begin(), list[float]()

    def claim() -> int:
        claims.append(time.monotonic())
        return 0

    monkeypatch.setattr(store._depot, "probe", _fail)
    keeper = keeper_of(store, 60.0, claim=claim)
    keeper.start()
    try:
        wait_until(lambda: keeper.problems == ("gone",))
        time.sleep(0.2)  # a beat that was under way
        before = len(claims)
        time.sleep(0.3)
        assert len(claims) == before
        monkeypatch.undo()
        wait_until(lambda: keeper.problems == () and len(claims) > before)
    finally:
        keeper.stop()


def done(store: SharedStore, job: Job) -> None:
    """End a job with a transcript."""
    segment = Segment("Speaker1", 0.0, 1.0, "so")
    keep_document(
        store, job, Transcript("talk", 1.0, (segment,)), [CorrectedLine("0", segment, 0, 1)]
    )
    assert store.change(job, status="done", events=[("done", {"revision": 0})])


@pytest.mark.parametrize("patience_s", [20.0, 0.0])
def test_the_database_goes_away_before_a_relayed_transcript_is_read(
    begin: Begin, monkeypatch: Any, patience_s: float
) -> None:
    front, worker = begin(role="front"), begin()
    job = add(front, waiter=front.owner)
    [theirs] = claimed(worker)
    done(worker, theirs)
    was, failures = front.document, [1, 2]

    def document(one: Job) -> tuple[str, str]:
        if failures:
            failures.pop()
            _fail()
        return was(one)

    monkeypatch.setattr(front, "document", document)
    monkeypatch.setattr(relay, "_LOOK_S", 0.01)
    monkeypatch.setattr(relay, "_PATIENCE_S", patience_s)
    run = RelayedRun(front, job, lambda _: None)
    if not patience_s:
        with pytest.raises(StorageError, match="gone"):
            asyncio.run(run.transcript())
        return
    assert [one.text for one in asyncio.run(run.transcript()).segments] == ["so"]
    assert not failures


def told(number: int, start_s: float, text: str, chunk: int = 0) -> tuple[str, dict[str, Any]]:
    """An event about a segment of 2 s."""
    return "segment", {
        "id": str(number), "chunk": chunk, "turn": 1, "overlap": False, "gender": "unknown", "text": text,
        "start": start_s, "end": start_s + 2.0, "speaker": f"Speaker{chunk}",
        "confidence": {"words": None, "speaker": None, "times": None},
    }  # fmt: skip


def test_a_relayed_stream_tells_nothing_twice_when_its_job_begins_anew() -> None:
    """The words that were told stand; what follows them comes from the new run, under numbers of its own."""
    events = [
        told(0, 0.0, "one"),
        told(1, 3.0, "two", chunk=1),
        ("anew", {}),
        told(0, 0.1, "ONE"),
        told(1, 2.9, "TWO", chunk=1),
        told(2, 6.0, "THREE", chunk=1),
        ("linked", {"chunk": 1, "labels": {"2": "Speaker0"}}),
    ]
    final = Transcript("talk", 9.0, (Segment("Speaker0", 0.1, 2.1, "ONE"),))
    log = iter([[SimpleNamespace(name=name, data=data) for name, data in events]])
    store: Any = SimpleNamespace(
        event_reader=lambda _: SimpleNamespace(new=lambda: next(log)),
        get=lambda *_, **__: SimpleNamespace(status="done", id="job_1", under_way=False),
        document=lambda _: (render(final, "json"), '[["0", 0, 1]]'),
    )

    async def read() -> list[Any]:
        run = RelayedRun(store, SimpleNamespace(id="job_1"), lambda _: None)  # type: ignore[arg-type]
        return [one async for one in run.news()]

    *news, transcript = asyncio.run(read())
    assert transcript == final
    known = [(one.number, one.segment.text) for item in news for one in item.known]
    assert known == [(0, "one"), (1, "two"), (4, "THREE")]
    linked = [
        (one.number, one.segment.text, one.segment.speaker) for item in news for one in item.linked
    ]
    assert linked == [(0, "one", "Speaker0"), (3, "TWO", "Speaker1"), (4, "THREE", "Speaker0")]


def events_in(reader: Any) -> list[tuple[int, str]]:
    events, failure = _news(reader)
    assert failure is None
    return [(event.number, event.name) for event in events]


def test_a_stream_that_is_open_while_a_job_begins_anew(begin: Begin) -> None:
    """It learns that what it has is void, and misses nothing of what comes."""
    store = begin()
    add(store)
    [job] = claimed(store)
    journal, _ = store.journal(job, {"version": 1})
    journal.add(FinishedChunk(0, 10))
    log = store.event_log(job)
    for n in range(3):
        log.append("segment", {"id": str(n)})
    open_stream = store.event_reader(job)
    assert [name for _, name in events_in(open_stream)] == ["segment"] * 3
    assert store.journal(job, {"version": 2})[1] == "version"
    again = store.event_log(job)
    again.append("segment", {"id": "0"})  # as before, and yet not the same
    expected = [(4, "anew"), (5, "segment")]
    assert events_in(open_stream) == expected
    assert events_in(store.event_reader(job)) == expected
    assert events_in(store.event_reader(job, 2)) == expected
    log = store.event_log(job)  # after a restart
    log.append("segment", {"id": "0"})
    log.append("segment", {"id": "1"})
    assert events_in(open_stream) == [(6, "segment")]


def test_a_job_of_before_is_heard_again(begin: Begin, tmp_path: Path, url: str) -> None:
    """Its events go on behind those of its file, also for a stream that is open."""
    job = done_before(tmp_path, url, "0")
    store = begin()
    kept = store.get(job.id)
    assert kept is not None
    open_stream = store.event_reader(kept)
    before = [(1, "segment"), (2, "done")]
    assert events_in(open_stream) == before
    assert store.listen(kept, 0)
    [mine] = claimed(store)
    assert events_in(store.event_reader(mine)) == before
    file = (store.folder(mine) / "events.jsonl").read_bytes()
    new = store.event_log(mine)
    new.append("segment", {"id": "0.0"})
    (store.folder(mine) / "events.jsonl").write_bytes(file)  # as if it had died right before
    store.event_log(mine)
    assert store.change(mine, status="done", listen=None, events=[("done", {"revision": 1})])
    after = [(3, "segment"), (4, "done")]
    ended = store.get(job.id)
    assert ended is not None
    assert (
        events_in(open_stream) == after and events_in(store.event_reader(ended)) == before + after
    )
    assert events_in(store.event_reader(ended, 3)) == after[1:]
    assert not (store.folder(ended) / "events.jsonl").exists()


def test_a_job_of_before_that_is_transcribed_once_more(
    begin: Begin, tmp_path: Path, url: str
) -> None:
    old = Store(tmp_path / "store", url, 0.05)
    with old.incoming() as folder:
        job = old.add(folder, "talk", 1.0, None, [])
    log = old.event_log(job)
    for n in range(3):
        log.append("segment", {"id": str(n)})
    log.close()
    old.close()
    store = begin()
    time.sleep(0.1)
    [mine] = store.claim("m", 1, 1)
    store.event_log(mine).append("segment", {"id": "0"})
    assert store.change(mine, status="done", events=[("done", {"revision": 0})])
    ended = store.get(job.id)
    assert ended is not None
    assert events_in(store.event_reader(ended)) == [(1, "segment"), (2, "done")]
