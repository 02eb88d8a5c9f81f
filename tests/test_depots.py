"""Files of jobs in a bucket, and the copies of them on a machine; the bucket is in memory."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.server.depots import BucketDepot
from speaker_reasoner.server.jobs import Job, new_job_id

pytest.importorskip("fsspec", reason="pip install 'speaker-reasoner[batch]'")


def stored(depot: BucketDepot, folder: Path, size: int) -> Job:
    job = Job(new_job_id(), "talk", "queued", 1_700_000_000.0, 1.0)
    folder.mkdir()
    (folder / "audio.flac").write_bytes(bytes(size))
    depot.put(job, folder)
    shutil.rmtree(folder)
    return job


def test_copies_that_were_not_asked_for_longest_make_room(tmp_path: Path) -> None:
    depot = BucketDepot("memory://depots/room", tmp_path / "copies", cache_bytes=250)
    one, two, three = (stored(depot, tmp_path / "upload", 100) for _ in range(3))
    for n, job in enumerate((one, two)):
        os.utime(depot.local(job), (n, n))
    depot.local(one)  # asked for once more
    depot.local(three)
    assert set(depot.copies()) == {one.id, three.id}
    assert (depot.local(two) / "audio.flac").stat().st_size == 100, "it is fetched again"


def test_copies_of_jobs_under_way_stay(tmp_path: Path) -> None:
    """Also where they take more than all copies may."""
    depot = BucketDepot("memory://depots/held", tmp_path / "copies", cache_bytes=250)
    one, two, three, four = (stored(depot, tmp_path / "upload", 100) for _ in range(4))
    for n, job in enumerate((one, two)):
        os.utime(depot.local(job), (n, n))
    depot.hold([one.id])
    depot.local(three)
    assert set(depot.copies()) == {one.id, three.id}, "the older one is under way"
    depot.hold([one.id, three.id, two.id])
    for job in (two, four):
        depot.local(job)
    assert set(depot.copies()) == {one.id, two.id, three.id, four.id}
    depot.hold([])
    depot.local(stored(depot, tmp_path / "upload", 100))
    assert len(depot.copies()) == 2


def test_a_copy_has_the_time_of_its_job_wherever_it_is_fetched(tmp_path: Path) -> None:
    """Else its journal would begin anew on another machine."""
    depots = [BucketDepot("memory://depots/times", tmp_path / name) for name in ("a", "b")]
    job = stored(depots[0], tmp_path / "upload", 10)
    times = {(one.local(job) / "audio.flac").stat().st_mtime_ns for one in depots}
    assert times == {1_700_000_000_000_000_000}


def test_a_copy_that_is_deleted_just_then_is_fetched_again(
    tmp_path: Path, monkeypatch: Any
) -> None:
    depot = BucketDepot("memory://depots/gone", tmp_path / "copies")
    job = stored(depot, tmp_path / "upload", 10)
    copy, utime = depot.local(job), os.utime

    def deleted_before(path: Path, *times: Any, **options: Any) -> None:
        if path == copy:
            shutil.rmtree(copy)
        utime(path, *times, **options)

    monkeypatch.setattr(os, "utime", deleted_before)
    assert depot.local(job) == copy
    monkeypatch.undo()
    assert (depot.local(job) / "audio.flac").stat().st_size == 10


def test_a_job_that_is_removed_leaves_nothing(tmp_path: Path) -> None:
    depot = BucketDepot("memory://depots/removed", tmp_path / "copies")
    kept, job = (stored(depot, tmp_path / "upload", 10) for _ in range(2))
    depot.local(job)
    depot.remove(job.id)
    depot.remove(job.id)  # once more does no harm
    assert depot.copies() == [] and list(depot.local(job).iterdir()) == []
    assert (depot.local(kept) / "audio.flac").exists()
