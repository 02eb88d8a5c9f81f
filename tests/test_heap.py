"""Free memory goes back to the system."""

import gc
import subprocess
import sys

import pytest

from speaker_reasoner import heap

_RESIDENT = """
import re
from speaker_reasoner.heap import give_back, keep
def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
"""
_FRAGMENTED = """
held = [b"x" * 100_000 for _ in range(3000)]
del held[:-1]  # the last one keeps the heap from shrinking by itself
before = resident_mb()
give_back()
print(before - resident_mb())
"""
_LARGE = """
give_back()
b"x" * 20_000_000  # from now on, glibc would keep blocks of this size
held = [(b"x" * 12_000_000, b"y" * 10_000) for _ in range(25)]
small = [b for _, b in held]
before = resident_mb()
del held
print(before - resident_mb())
"""


_glibc = pytest.mark.skipif(heap._trim() is None, reason="the C library cannot give memory back")


def given_back_mb(script: str) -> float:
    command = [sys.executable, "-c", _RESIDENT + script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@_glibc
@pytest.mark.parametrize("script", [_FRAGMENTED, _LARGE])
def test_a_fragmented_heap_shrinks(script: str) -> None:
    assert given_back_mb(script) > 200


@_glibc
def test_within_a_pause_nothing_is_given_back() -> None:
    later = "give_back()\n" + _FRAGMENTED.replace("give_back()", "give_back(pause_s=600)")
    assert given_back_mb(later) < 50
    assert given_back_mb(later.replace("pause_s=600", "pause_s=0")) > 200


@_glibc
def test_training_keeps_what_it_had() -> None:
    assert given_back_mb(_LARGE.replace("give_back()", "give_back(); keep()")) < 50


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_trim", lambda: None)
    heap.give_back()


def test_threads_that_pause_the_search_at_once_leave_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them finds it paused, and the other ends its pause before the first one goes on."""
    other = heap.without_cycles()
    other.__enter__()
    enabled = gc.isenabled

    def paused_until_now() -> bool:
        searching = enabled()
        other.__exit__(None, None, None)
        return searching

    monkeypatch.setattr(gc, "isenabled", paused_until_now)
    try:
        with heap.without_cycles():
            pass
        assert enabled()
    finally:
        gc.enable()


def test_a_search_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with heap.without_cycles():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
    with heap.without_cycles():
        assert not gc.isenabled()
    assert gc.isenabled()
