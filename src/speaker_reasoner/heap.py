"""Memory: returns what is freed to the system, so that it does not grow with the length of a recording; and
pauses the search for cycles where there are none."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The numbers of glibc's options."""
_LARGE_BYTES, _LARGEST_BYTES = 2**20, 2**25
"""Size from which a block is mapped separately, and the largest such size that glibc accepts."""
_MOST_BYTES = 2**31 - 1


def give_back() -> None:
    """Return free memory to the system, if the C library can; after the first call, large blocks at once.

    glibc keeps freed memory, and tensors of ever new sizes fit into less and less of it: over a long
    recording the process would grow (docs/results/scaling-memory.json). A call takes some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


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
    transcript.
    """
    searching = gc.isenabled()
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
