"""Memory: returns what is freed to the system, so that it does not grow with the length of a recording; and
pauses the search for cycles where there are none."""

import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The numbers of glibc's options."""
_LARGE_BYTES, _LARGEST_BYTES = 2**23, 2**25
"""Size from which a block is mapped separately, and the largest such size that glibc accepts. Such a block is cleared
by the system each time: from 2**20 on, 16 dialogues at once take a tenth longer (docs/experiments.md, 2026-11-28)."""
_MOST_BYTES = 2**31 - 1

_last_s = 0.0


def give_back(pause_s: float = 0.0) -> None:
    """Return free memory to the system, if the C library can; after the first call, large blocks at once.

    glibc keeps freed memory, and tensors of ever new sizes fit into less and less of it: over a long
    recording the process would grow (docs/results/scaling-memory.json). A call takes some milliseconds, and
    memory that is used again has to be cleared again.

    Args:
        pause_s: nothing is done within so many seconds of the last call of the process that did something.
    """
    global _last_s
    trim, now_s = _trim(), time.monotonic()
    if trim is not None and now_s - _last_s >= pause_s:
        trim(0)
        _last_s = now_s


def keep() -> None:
    """Keep freed memory from now on, if the C library can. For training, where every step allocates the same
    sizes, and memory is that of the largest step anyway."""
    if _trim() is not None:
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _MOST_BYTES)


@contextmanager
def without_cycles() -> Iterator[None]:
    """Pause the search for cycles of objects, for work that makes many objects and no cycles.

    Python repeats the search as objects become more, which takes half of the time of reading a long
    transcript. The pause is of the whole process: only who ends the search begins it again, so that threads
    which read at once cannot leave it off.
    """
    searching = gc.isenabled()
    if searching:
        gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        trim: Callable[[int], int] = library.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; on Windows, none of that name
        return None
    return trim
