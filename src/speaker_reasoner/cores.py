"""The processors that this process may use, how many threads a model gets, and processes beside this one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def usable_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def model_threads() -> int:
    """Return how many threads one call of a model uses on the CPU: `OMP_NUM_THREADS`, as torch does, or one a core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # nested levels follow
    return int(wanted) if wanted.isdecimal() and int(wanted) else usable_cores()


def child_environment(threads: int) -> dict[str, str]:
    """Return the environment of another process of this package, with so many threads for its libraries."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(threads),
    }


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Restore the number of torch's threads, if torch is imported, after a library has changed it.

    silero-vad sets one thread. CTranslate2 may share torch's OpenMP, and sets the number given to its model.
    """
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(threads)
