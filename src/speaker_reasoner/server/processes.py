"""The processes that serve a store: each holds a lock of its own, in a folder of the store.

The operating system releases a dead process's lock, so that a process on the same machine is known to be dead at
once. A process on another machine, or in another container, is taken for dead when it has written no sign of life for
the length of a lease and nobody holds its lock.
"""

import hashlib
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

from ..errors import OutputError
from ..locks import lock


class Processes:
    """The processes of a store, and this one among them.

    Args:
        folder: of their locks; made if it does not exist.
        lease_s: how long a process of another machine counts as alive after its last sign of life.

    Attributes:
        own: the name of this process, which begins with that of its `machine`.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, lease_s: float) -> None:
        self._folder = folder
        self._lease_s = lease_s
        self.machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
        self.own = f"{self.machine}-{secrets.token_hex(8)}"
        try:
            folder.mkdir(exist_ok=True)
            self._held = lock(self._path(self.own))
        except OSError as error:
            raise OutputError(
                f"{folder}: {error.strerror or error}; choose another folder for --store"
            ) from error
        assert self._held is not None, "nobody else has this name"

    def living(self) -> tuple[set[str], bool]:
        """Return the living processes of this machine, and whether no other process lives, here or elsewhere; remove
        the locks of dead ones."""
        alive, alone = {self.own}, True
        for path in self._folder.glob("*.lock"):
            name = path.stem
            if name == self.own:
                continue
            if not self.is_gone(name):
                alone = False
                alive |= {name} if name.startswith(self.machine) else set()
        return alive, alone

    def is_gone(self, name: str) -> bool:
        """Return whether a process of any machine has ended or died; remove the lock of a dead one.

        A process whose lock is held lives, also in another container that shares the folder. A process of another
        machine is not gone before a lease has passed.
        """
        if name == self.own or (self._path(name).exists() and not self._is_dead(name)):
            return False
        with suppress(OSError):
            self._path(name).unlink(missing_ok=True)
        return True

    def elsewhere(self) -> str | None:
        """Return a living process of another machine; `None` if there is none."""
        names = (path.stem for path in self._folder.glob("*.lock"))
        others = (name for name in names if not name.startswith(self.machine))
        return next((name for name in others if not self._is_dead(name)), None)

    def show(self) -> None:
        """Write a sign of life, for other machines."""
        with suppress(OSError):
            os.utime(self._path(self.own))

    def close(self) -> None:
        """Release and remove the lock of this process."""
        assert self._held is not None
        self._held.release()
        with suppress(OSError):
            self._path(self.own).unlink(missing_ok=True)

    def _is_dead(self, name: str) -> bool:
        path, here = self._path(name), name.startswith(self.machine)
        try:
            if path.stat().st_mtime >= time.time() - self._lease_s and not here:
                return False
        except OSError:
            return False
        try:
            held = lock(path)
        except OSError:
            return not here
        if held is None:
            return False
        held.release()
        return True

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"
