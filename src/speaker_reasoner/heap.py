"""Memory that was freed goes back to the system: what is long is heard in as little as what is short."""

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Hand free memory back, where the C library can.

    glibc keeps what it once had, and tensors of ever new sizes fit into less and less of it: over a
    long recording the process grows (docs/results/scaling-memory.json). Takes some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; on Windows, none of that name
        return None
    return found
