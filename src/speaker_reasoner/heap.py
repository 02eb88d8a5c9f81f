"""Memory that was freed goes back to the system: what is long is heard in as little as what is short."""

import ctypes
from collections.abc import Callable
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The numbers of glibc's options."""
_LARGE_BYTES, _LARGEST_BYTES = 2**20, 2**25
"""From what size on a block is mapped on its own; and the largest size that glibc takes for that."""
_MOST_BYTES = 2**31 - 1


def give_back() -> None:
    """Hand free memory back, where the C library can; from the first call on, large blocks at once.

    glibc keeps what it once had, and tensors of ever new sizes fit into less and less of it: over a
    long recording the process grows (docs/results/scaling-memory.json). Takes some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def keep() -> None:
    """Keep what is freed from now on, where the C library can: for training, which asks for the same
    sizes again at every step and is as large as its largest one anyway."""
    if _trim() is not None:
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _MOST_BYTES)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        trim: Callable[[int], int] = library.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; on Windows, none of that name
        return None
    return trim
