"""One process at a time in a folder."""

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from .errors import OutputError


def lock(path: Path) -> BaseFileLock | None:
    """Keep other processes out until `release`; the system lets go of a dead one's.

    Returns:
        The lock; `None` where another process has it.

    Raises:
        OSError: its file cannot be opened.
    """
    held = FileLock(path, thread_local=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return None
    return held


def make_folder(path: Path) -> None:
    """Make a folder that a run keeps its state in, where there is none.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error


def keep_others_out(path: Path, folder: Path) -> BaseFileLock:
    """The lock of a folder of transcripts, by a file in the folder of its state.

    Raises:
        OutputError: another process has it, or its file cannot be opened.
    """
    try:
        held = lock(path)
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    if held is None:
        raise OutputError(
            f"{folder}: another process transcribes into it; wait for it, or choose another directory"
        )
    return held


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {folder}: {error.strerror}; choose a directory that can be written to"
    )
