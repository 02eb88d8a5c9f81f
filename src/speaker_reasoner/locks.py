"""One process at a time in a folder."""

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout


def lock(path: Path) -> BaseFileLock | None:
    """Keep other processes out until it is released; the system lets go of a dead one's.

    Returns:
        The lock, held; `None` where another process has it.

    Raises:
        OSError: its file cannot be opened.
    """
    held = FileLock(path, thread_local=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return None
    return held
