"""One process at a time in a folder."""

import sys
from pathlib import Path
from typing import IO


def lock(path: Path) -> IO[str] | None:
    """Keep other processes out as long as the file stays open; the system lets go of a dead one's.

    Returns:
        The open file; `None` where another process has it.

    Raises:
        OSError: it cannot be opened.
    """
    file = path.open("a+")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
