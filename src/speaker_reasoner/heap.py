"""Memory that was freed goes back to the system: what is long is heard in as little as what is short."""

import ctypes
from collections.abc import Callable
from functools import cache

_MMAP_THRESHOLD, _LARGE_BYTES = -3, 2**20
"""The number of glibc's option for it, and from what size on a block is mapped on its own."""


def give_back() -> None:
    """Hand free memory back, where the C library can; from the first call on, large blocks at once.

    glibc keeps what it once had, and tensors of ever new sizes fit into less and less of it: over a
    long recording the process grows (docs/results/scaling-memory.json). Takes some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        found: Callable[[int], int] = library.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; on Windows, none of that name
        return None
    return found
