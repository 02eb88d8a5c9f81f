"""A store that servers share, one transaction after the other: leases, turns, tokens, leftovers."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.errors import ServerError
from speaker_reasoner.server import store as stores
from speaker_reasoner.server.depots import FolderDepot
from speaker_reasoner.server.failures import StorageError
from speaker_reasoner.server.fleet import Announcement
from speaker_reasoner.server.jobs import Job, new_job_id
from speaker_reasoner.server.leftlive import LeftLive
from speaker_reasoner.server.live.incoming import CODINGS, LiveFile
from speaker_reasoner.server.shared import SharedStore, open_store
from speaker_reasoner.server.store import Store
from speaker_reasoner.voices.finished import FinishedChunk

from . import postgres as postgresql
from .postgres import Postgres

postgres = postgresql.postgres
__all__ = ["postgres"]
_numbers = itertools.count()
Begin = Callable[..., SharedStore]


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.create(f"shared{next(_numbers)}")


@pytest.fixture
def made() -> Iterator[list[SharedStore]]:
    """The servers that run."""
    running: list[SharedStore] = []
    yield running
    for store in running:
        store.close()


@pytest.fixture
def begin(url: str, tmp_path: Path, made: list[SharedStore]) -> Begin:
    """Start servers of one store."""

    def start(lease_s: float = 60.0, role: str = "worker") -> SharedStore:
        made.append(SharedStore(tmp_path / "store", url, lease_s))
        offer: dict[str, Any] | None = {} if role == "worker" else None
        made[-1].fleet.announce(Announcement(role, "1", "m", offer))
        made[-1].fleet.show()
        return made[-1]

    return start


def add(store: SharedStore, client: str = "", **values: Any) -> Job:
    with store.incoming() as folder:
        (folder / "audio.flac").write_bytes(b"sound")
        return store.add(folder, "talk", 1.0, None, [], None, client, "m", **values)


def claimed(store: SharedStore, most: int = 1) -> list[Job]:
    """What a server takes that forgets nothing."""
    taken = store.claim("m", most, most, _given.setdefault(store.owner, set()))
    _given[store.owner] |= {job.id for job in taken}
    return taken


_given: dict[str, set[str]] = {}
"""Jobs by server."""


def test_a_job_is_one_servers(begin: Begin, made: list[SharedStore]) -> None:
    one, two = begin(), begin()
    job = add(one)
    [mine] = claimed(two)
    assert (mine.id, mine.owner, mine.token) == (job.id, two.owner, 2)
    assert claimed(one) == [] and one.renew([(job, 0.0)]) == set()
    assert two.renew([(mine, 0.5)]) == {job.id}
    two.close()
    made.remove(two)
    [again] = claimed(one)
    assert again.owner == one.owner and again.losses == 0, "it was left in good order"


def test_many_claim_at_once_and_none_twice(begin: Begin) -> None:
    servers = [begin() for _ in range(4)]
    jobs = {add(servers[0], f"c{n % 3}").id for n in range(40)}
    taken: list[str] = []

    def work(store: SharedStore) -> None:
        while mine := claimed(store, 3):
            taken.extend(job.id for job in mine)

    threads = [threading.Thread(target=work, args=(store,)) for store in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in servers:  # what was locked by another just then
        work(store)
    assert Counter(taken) == Counter(jobs)


@pytest.mark.parametrize(("room", "last"), [(1, 5), (3, 8)])
def test_clients_take_turns(begin: Begin, room: int, last: int) -> None:
    """One with two hundred jobs does not keep another waiting who has three."""
    store = begin()
    jobs = [add(store, "few" if n in (100, 110, 120) else "many") for n in range(200)]
    few = [job.id for job in jobs if job.client == "few"]
    ended: list[str] = []
    running: list[Job] = []
    for _ in range(12):
        running += claimed(store, room - len(running))
        assert len(running) == room
        done = running.pop(0)
        assert store.change(done, status="done")
        ended.append(done.id)
    places = [ended.index(job) for job in few]
    assert places == [1, 3, 5] if room == 1 else max(places) <= last and places == sorted(places)


def test_places_of_jobs_that_wait(begin: Begin) -> None:
    """In the order in which they are taken; also for one that was put in just now."""
    front, worker = begin(role="front"), begin()
    jobs = [add(front, client) for client in ("many", "many", "many", "few")]
    add(front, waiter=front.owner)
    front.renew([])

    def places() -> list[int | None]:
        return [front.place(job) for one in jobs if (job := front.get(one.id)) is not None]

    assert places() == [0, 2, 3, 1]
    jobs.append(add(front, "many"))
    front.line_up(jobs[-1])
    assert places() == [0, 2, 3, 1, 4]
    _, first = worker.claim("m", 1, 2)
    front.renew([])
    assert first.id == jobs[0].id and places() == [0, 1, 2, 0, 3], "it is to begin at once"
    assert worker.change(first, status="running") and places()[0] is None
    assert front.cancel(jobs[1]) and places()[1] is None


def test_those_on_the_line_come_first(begin: Begin) -> None:
    front, worker = begin(role="front"), begin()
    add(front)
    waited = add(front, waiter=front.owner)
    assert [job.id for job in worker.claim("m", 0, 2)] == [waited.id], "jobs leave a place to them"
    assert front.newest(5) and waited.id not in [job.id for job in front.newest(5)]
    assert worker.claim("other", 5, 5) == [], "of another model"


def test_a_late_writer_writes_nothing(begin: Begin, monkeypatch: Any) -> None:
    """The lease was taken while it slept; whatever it writes then is refused, by the database."""
    late, other = begin(0.2), begin(0.2)
    add(late)
    [job] = claimed(late)
    log = late.event_log(job)
    journal, _ = late.journal(job, {"file": 1})
    log.append("segment", {"id": "0"})
    assert late.change(job, status="running")
    time.sleep(0.3)
    [theirs] = claimed(other)
    assert theirs.losses == 1 and theirs.token == job.token + 1
    for write in (
        lambda: log.append("segment", {"id": "1"}),
        lambda: journal.add(FinishedChunk(0, 10)),
        lambda: late.keep_document(job, "{}", "[]"),
    ):
        with pytest.raises(StorageError, match="another server's"):
            write()
    assert not late.change(job, status="done") and not late.heard_again(job, {"op": "heard"}, 0.0)
    assert [event.data for event in other.event_reader(theirs).new()] == [{"id": "0"}]
    assert other._ledger.lines(theirs) == [] and other._ledger.document(theirs) is None
    theirs_journal, _ = other.journal(theirs, {"file": 1})
    theirs_journal.add(FinishedChunk(0, 10))
    again = other.get(job.id)
    assert again is not None and again.losses == 0, "it gets on"
    assert len(other.journal(theirs, {"file": 1})[0].chunks()) == 1
    assert other.journal(theirs, {"file": 2})[1] == "file", "another recording begins anew"
    assert [event.name for event in other.event_reader(theirs).new()] == ["anew"]


@pytest.mark.parametrize("skew_s", [-7200.0, 7200.0])
def test_clocks_of_machines_do_not_matter(begin: Begin, monkeypatch: Any, skew_s: float) -> None:
    right, wrong = begin(5.0), begin(5.0)
    was = time.time
    add(right)
    assert len(claimed(right)) == 1
    monkeypatch.setattr(time, "time", lambda: was() + skew_s)
    assert claimed(wrong) == [], "it has not expired"
    second = add(wrong)
    assert wrong.renew([]) == set() and set(wrong.fleet.living()) == {right.owner, wrong.owner}
    [mine] = claimed(wrong)
    assert wrong.change(mine, status="done") and wrong.remove(second)
    assert wrong.outlived(3600.0, 3600.0) == []
    monkeypatch.undo()
    assert claimed(right) == [] and right.outlived(3600.0, 3600.0) == []
    [kept] = right.newest(5, removed=True)
    assert abs(kept.created - was()) < 60 and abs((kept.removed or 0) - was()) < 60


def test_what_a_server_was_given_while_the_database_went_away(
    begin: Begin, monkeypatch: Any
) -> None:
    """The jobs were leased, and the answer was lost: it takes them again, and nobody else does."""
    store, other = begin(), begin()
    job = add(store)
    monkeypatch.setattr(store, "_select", _fail)
    with pytest.raises(StorageError):
        store.claim("m", 1, 1)
    monkeypatch.undo()
    assert claimed(other) == []
    [mine] = store.claim("m", 1, 1)
    assert mine.id == job.id and mine.losses == 0 and store.claim("m", 1, 1, [job.id]) == []


def _fail(*_: Any, **__: Any) -> Any:
    raise StorageError(503, "gone", code="database_unavailable")


def test_a_cancelled_job_is_taken_from_whoever_has_it(begin: Begin) -> None:
    front, worker = begin(role="front"), begin()
    add(front)
    [job] = claimed(worker)
    seen = front.get(job.id)
    assert seen is not None and front.cancel(seen)
    assert worker.renew([(job, 0.0)]) == set() and not worker.change(job, status="done")
    assert front.retry(seen)
    [again] = claimed(worker)
    assert again.token > job.token and not worker.change(job, status="done")
    assert not front.erase(again), "it is under way"
    assert worker.change(again, status="done") and front.erase(again)
    assert front.get(job.id) is None and not front.folder(job).exists()


def test_a_job_that_kills_servers_is_given_up(begin: Begin) -> None:
    store = begin(0.05)
    add(store)
    servers = itertools.cycle([store, begin(0.05)])
    for n in range(11):
        one = next(servers)
        [job] = claimed(one)
        assert (job.losses, one.is_hopeless(job)) == (n, n >= 10)
        assert one.change(job, status="running")
        time.sleep(0.06)


def test_what_dead_servers_leave_behind(begin: Begin, monkeypatch: Any) -> None:
    """Files of an upload whose server died; a request whose client died with its front."""
    dead, alive = begin(0.1, role="front"), begin(0.1)
    waited = add(dead, waiter=dead.owner)
    monkeypatch.setattr(dead._database, "begin", _only_once(dead._database.begin))
    with pytest.raises(StorageError):
        add(dead)
    monkeypatch.undo()
    left = [path.name for path in (alive._folder / "jobs").iterdir()]
    assert len(left) == 2
    monkeypatch.setattr("speaker_reasoner.server.leftovers.LONG_GONE_S", 0.2)
    dead.fleet.leave()
    alive.fleet.show()
    time.sleep(0.3)
    alive.fleet.show()
    alive.finish_erasing()
    assert alive.get(waited.id) is None
    assert list((alive._folder / "jobs").iterdir()) == []


@pytest.fixture
def put(monkeypatch: Any) -> Callable[[Callable[[], None]], None]:
    """Let something happen right after the files of the next job are in the store."""

    def then(act: Callable[[], None]) -> None:
        real = FolderDepot.put

        def put_and(depot: FolderDepot, job: Job, folder: Path) -> None:
            monkeypatch.undo()
            real(depot, job, folder)
            act()

        monkeypatch.setattr(FolderDepot, "put", put_and)

    return then


def test_an_upload_of_a_server_that_was_taken_for_dead(begin: Begin, put: Any) -> None:
    """It stood still while its files were deleted: it accepts no job without them."""
    slow, other = begin(), begin()

    def delete_its_files() -> None:
        slow.fleet.leave()
        other.finish_erasing()

    put(delete_its_files)
    with pytest.raises(StorageError, match="taken for dead"):
        add(slow)
    assert other.newest(5) == []
    kept = add(slow)
    other._remove_files(kept.id)  # as one that took it for dead right before it was accepted
    assert list((slow._folder / "jobs").iterdir()) == [slow.folder(kept)]


def test_what_later_versions_tell_is_read_as_far_as_it_is_known(begin: Begin) -> None:
    store, other = begin(), begin()
    from sqlalchemy import update

    from speaker_reasoner.server.database import SERVERS

    for text, lives in (('{"role": "worker", "version": "9", "more": 1}', True), ("[]", False)):
        with store._database.begin() as connection:
            row = update(SERVERS).where(SERVERS.c.name == other.owner)
            connection.execute(row.values(announcement=text))
        assert (other.owner in store.fleet.living()) == lives


def _only_once(begin: Any) -> Any:
    """A database that goes away after the next transaction but one."""
    left = [2]

    def limited() -> Any:
        left[0] -= 1
        if left[0] < 0:
            _fail()
        return begin()

    return limited


def done_before(folder: Path, url: str, *segments: str) -> Job:
    """A finished job, with events of its segments, of a store that one server had alone."""
    old = Store(folder / "store", url)
    with old.incoming() as upload:
        job = old.add(upload, "talk", 1.0, None, [])
    log = old.event_log(job)
    for number in segments:
        log.append("segment", {"id": number})
    log.append("done", {"revision": 0})
    log.close()
    old.keep_document(job, "{}", "[]")
    assert old.change(job, status="done")
    old.close()
    return job


def test_events_and_transcripts_of_a_folder_of_before(
    begin: Begin, tmp_path: Path, url: str
) -> None:
    job = done_before(tmp_path, url)
    store = begin()
    kept = store.get(job.id)
    assert kept is not None and kept.status == "done"
    assert [event.name for event in store.event_reader(kept).new()] == ["done"]
    assert store.document(kept) == ("{}", "[]")


def test_tables_of_a_later_version(begin: Begin, url: str, tmp_path: Path) -> None:
    begin()
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE speaker_reasoner_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(ServerError, match=r"version 99.*update speaker-reasoner"):
        SharedStore(tmp_path / "store", url)


def test_stores_that_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"a database that all servers reach, got SQLite"):
        open_store("s3://bucket/x", None, 60.0, tmp_path)
    with pytest.raises(ServerError, match=r"psycopg|connection"):  # not installed, or refused
        open_store(tmp_path, "postgresql+psycopg://nobody@127.0.0.1:1/none", 60.0)
    (tmp_path / "here" / "processes").mkdir(parents=True)
    (tmp_path / "here" / "processes" / "0123abcd-ffff.lock").touch()
    with pytest.raises(ServerError, match="another machine"):
        Store(tmp_path / "here")
    assert isinstance(open_store(tmp_path / "other", None, 60.0), stores.Store)


def _at_once(times: int, start: Callable[[], object]) -> list[Exception]:
    """Call in so many threads; what it raised."""
    with ThreadPoolExecutor(times) as pool:
        raised = [future.exception() for future in [pool.submit(start) for _ in range(times)]]
    return [error for error in raised if isinstance(error, Exception)]


def test_servers_started_at_once_make_one_store(tmp_path: Path, url: str) -> None:
    made: list[SharedStore] = []
    failed = _at_once(6, lambda: made.append(SharedStore(tmp_path / "store", url)))
    assert failed == [] and len({store._id for store in made}) == 1
    for store in made:
        store.close()


def test_what_was_said_to_a_dead_server_becomes_a_job(begin: Begin, tmp_path: Path) -> None:
    dead = begin()
    left = LeftLive(new_job_id(), "Live", "2", "en", "ana", "m")
    folder = dead.live_folder(left)
    said = LiveFile(folder, CODINGS["audio/pcm"])
    said.append(bytes(48_000))  # a second
    said.close()
    begin()  # while the first lives
    assert dead.get(left.id) is None and folder.exists()
    # Now it is of a process that never was.
    folder = folder.rename(folder.with_name(folder.name.replace(dead.owner, f"{dead.owner}0")))
    after = begin()
    job = after.get(left.id)
    assert job is not None and not folder.exists()
    assert (job.duration_s, job.speakers, job.client, job.model) == (1.0, "2", "ana", "m")
    assert (after.folder(job) / "audio.flac").exists()
    after.adopt(dead.live_folder(left))  # it died right behind that: the job is there
    assert not list((tmp_path / "store" / "live").iterdir())


def abandoned(store: SharedStore, job_id: str) -> Path:
    """What a process that never was has left of a live session."""
    folder = store.live_folder(LeftLive(job_id, "Live", None, None, "", "m"))
    said = LiveFile(folder, CODINGS["audio/pcm"])
    said.append(bytes(48_000))
    said.close()
    return folder.rename(folder.with_name(folder.name.replace(store.owner, f"{store.owner}0")))


def test_a_live_session_becomes_one_job_whatever_happens(begin: Begin, put: Any) -> None:
    first = begin()
    one = new_job_id()
    abandoned(first, one)
    put(first.finish_erasing)  # by a server that does not know the one that starts
    after = begin()
    job = after.get(one)
    assert job is not None and (after.folder(job) / "audio.flac").exists()

    two = new_job_id()  # its server died over it, before it was accepted
    abandoned(first, two)
    put(_fail)
    begin()
    assert first.get(two) is None and (first._folder / "jobs" / two).exists()
    [left] = (first._folder / "live").iterdir()
    left.rename(left.with_name(f"{first._processes.machine}-0.{two}"))
    begin()
    assert [job.id for job in first.newest(5)] == [two, one]

    assert first.change(claimed(first)[0], status="done")
    ended = first.get(one)
    assert ended is not None and first.remove(ended)
    abandoned(first, one)  # its server died right after it was accepted
    begin()
    assert [job.id for job in first.newest(5)] == [two]
    assert not list((first._folder / "live").iterdir())


def test_servers_that_are_started_at_once_make_one_job_of_a_live_session(begin: Begin) -> None:
    first = begin()
    ids = [new_job_id() for _ in range(5)]
    for job_id in ids:
        abandoned(first, job_id)
    failed = _at_once(4, begin)
    assert failed == [] and Counter(job.id for job in first.newest(9)) == Counter(ids)
    assert not list((first._folder / "live").iterdir())


def test_jobs_of_older_tables_are_taken(begin: Begin, made: list[SharedStore], url: str) -> None:
    """Rows that were written before there were tokens and clients."""
    old = begin()
    job = add(old)
    old.close()
    made.clear()
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        for column in ("token", "client", "model", "waiter", "losses", "claimed"):
            connection.execute(text(f"ALTER TABLE speaker_reasoner_jobs DROP COLUMN {column}"))
        connection.execute(text("DROP TABLE speaker_reasoner_schema"))
    engine.dispose()
    store = begin()
    [mine] = claimed(store)
    assert (mine.id, mine.token, mine.client) == (job.id, 1, "")
    assert store.change(mine, status="done")


@pytest.mark.no_cover
def test_turns_in_a_long_queue(begin: Begin) -> None:
    """20,000 jobs that wait, after as many that are done."""
    store = begin()
    from sqlalchemy import insert

    from speaker_reasoner.server.database import JOBS

    rows = [
        {
            "id": f"job_{n:024x}",
            "store": store._id,
            "name": "talk",
            "status": "queued" if n < 20_000 else "done",
            "created": float(n),
            "claimed": None if n < 20_000 else float(n),
            "duration_s": 1.0,
            "voices": "[]",
            "client": "few" if n % 1000 == 999 else "many",
        }
        for n in range(40_000)
    ]
    with store._database.begin() as connection:
        connection.execute(insert(JOBS), rows)
    taken = [job.client for _ in range(4) for job in claimed(store)]
    assert sorted(taken) == ["few", "few", "many", "many"]


def test_a_live_session_on_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    left = LeftLive(new_job_id(), "Live", None, None, "ana", None)
    with monkeypatch.context() as patched, pytest.raises(StorageError, match="No space"):
        patched.setattr(Path, "write_text", full)
        left.write(tmp_path / "live" / "one")
    assert not (tmp_path / "live" / "one").exists()
    left.write(tmp_path / "live" / "one")
    with pytest.raises(StorageError):
        left.write(tmp_path / "live" / "one")
    assert LeftLive.read(tmp_path / "live" / "one") == left
