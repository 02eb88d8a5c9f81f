"""How many threads models get."""

import os

import pytest

from speaker_reasoner.cores import model_threads, usable_cores


@pytest.mark.parametrize(("wanted", "threads"), [("1", 1), ("3", 3), ("3,2", 3), (" 2 ", 2)])
def test_as_many_threads_as_openmp_is_allowed(
    monkeypatch: pytest.MonkeyPatch, wanted: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert model_threads() == threads


@pytest.mark.parametrize("wanted", [None, "", "0", "-1", "many"])
def test_otherwise_one_for_each_core(monkeypatch: pytest.MonkeyPatch, wanted: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert model_threads() == usable_cores()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not on macOS and Windows")
def test_cores_that_the_process_may_not_use_do_not_count() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
