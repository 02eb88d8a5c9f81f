"""The folders of a store: creation, identity, deletion of their content."""

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from ..errors import OutputError, ServerError
from ..formats import write_text_atomically

_STORE_ID = re.compile(r"[0-9a-f]{24}")


def make_folders(folder: Path, parts: Sequence[str], options: str) -> None:
    """Make a folder, which only its user can read, and its parts, if they do not exist.

    Args:
        options: command-line options that name the folder, for the message.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for part in parts:
            (folder / part).mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: {error.strerror or error}; choose another folder for {options}"
        ) from error


def _size(path: Path) -> int:
    """Bytes of a file; 0 where another request has deleted it meanwhile."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def empty(folder: Path) -> None:
    """Delete the content of a folder, the largest files first, because that frees most space."""
    # `os.walk` passes over folders that another request deletes meanwhile; `rglob` raises.
    files = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    for path in sorted(files, key=_size, reverse=True):
        path.unlink(missing_ok=True)


def identity(path: Path) -> str:
    """The store's own id, made at its first start.

    Raises:
        ServerError: it is damaged; with a new one no server would find the store's jobs.
    """
    if not path.exists():
        with FileLock(path.with_name("id.lock")):  # several servers may be started at once
            if not path.exists():
                write_text_atomically(path, secrets.token_hex(12))
    text = path.read_bytes().decode(errors="replace").strip()
    if not _STORE_ID.fullmatch(text):
        raise ServerError(
            f"{path}: expected 24 letters and digits, got {text[:40]!r}: the file is damaged; take "
            "it from a backup, or choose another --store"
        )
    return text
