"""Processes of `python -m MODULE ...` that begin at once: forks of one that has imported the libraries.

In all respects that tests examine, a fork is a process of its own: its id, signals, streams and end.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import NoReturn

from .conftest import free_port

ROOT = Path(__file__).parents[1]
SERVERS = ("speaker_reasoner.server.app", "uvicorn", "s3fs", "psycopg", "tests.simulated")
BATCH = ("speaker_reasoner.commands.batch", "speaker_reasoner.bulk.runner", "tests.simulated")
ASKING = ("speaker_reasoner.commands.evaluate", "speaker_reasoner.systems.openai_diarize", "openai")
TRAINING = (
    "speaker_reasoner.engines.local",
    "speaker_reasoner.engines.checkpoint",
    "speaker_reasoner.train.stages",
    "speaker_reasoner.train.loop",
    "speaker_reasoner.train.models",
)


class Forked:
    """A process, without standard input; the part of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        imported: tuple[str, ...],
        words: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | None = None,
    ) -> None:
        """Begin `python -m` with these words, in the root of the repository; what it prints goes to a file."""
        errors, state = os.pipe(), os.pipe()
        self.stderr = os.fdopen(errors[0], encoding="utf-8")
        self._state = os.fdopen(state[0], "rb")
        self.returncode: int | None = None
        message = json.dumps([list(words), dict(environment)]).encode()
        parent = _parent(imported)
        streams = [errors[1], state[1], *([] if stdout is None else [stdout])]
        socket.send_fds(parent, [len(message).to_bytes(4, "big")], streams)
        parent.sendall(message)
        os.close(errors[1])
        os.close(state[1])
        self.pid = self._read()

    def _read(self) -> int:
        return int.from_bytes(self._state.read(4), "big", signed=True)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._state], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = self._read()
            self._state.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def errors(self, timeout: float) -> str:
        """Return its standard error, once it has ended; it is killed after `timeout` seconds."""
        late = threading.Timer(timeout, self.kill)
        late.start()
        with self.stderr:
            written = self.stderr.read()
        self.wait(10)
        late.cancel()
        return written


def run(
    imported: tuple[str, ...], words: Sequence[str], environment: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m` with these words to its end, like `subprocess.run`; killed after `timeout` seconds."""
    with TemporaryFile("w+", encoding="utf-8") as out:
        process = Forked(imported, words, environment, out.fileno())
        errors = process.errors(timeout)
        out.seek(0)
        return subprocess.CompletedProcess(list(words), process.wait(0), out.read(), errors)


def ranks(processes: int) -> list[dict[str, str]]:
    """The environments in which so many processes train together on this machine."""
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    shared["MASTER_PORT"] = str(free_port())
    return [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(processes)]


@cache
def _parent(imported: tuple[str, ...]) -> socket.socket:
    """The process that forks, which ends with this one."""
    mine, other = socket.socketpair()
    words = [sys.executable, "-W", "ignore", "-m", "tests.forked", str(other.fileno()), *imported]
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[other.fileno()],
    )
    other.close()
    atexit.register(mine.close)
    process.returncode = 0  # nobody waits for it: it ends when the socket closes
    return mine


def _serve(parent: socket.socket) -> None:
    """Fork a process for each request; returns in the processes alone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        head, streams, *_ = socket.recv_fds(parent, 4, 3)
        if not head:
            os._exit(0)
        message, size = b"", int.from_bytes(head, "big")
        while len(message) < size:
            message += parent.recv(size - len(message))
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            parent.close()
            words, environment = json.loads(message)
            return _watched(streams, words, environment)
        for stream in streams:
            os.close(stream)


def _watched(streams: list[int], words: list[str], environment: dict[str, str]) -> None:
    """Run the module in a process of its own, while this one waits to report its end."""
    errors, state, *printed = streams
    child = os.fork()
    if child:
        for stream in (errors, *printed):
            os.close(stream)
        _watch(child, state)
    os.close(state)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream, number in ((nothing, 0), ([*printed, nothing][0], 1), (errors, 2)):
        os.dup2(stream, number)
    for stream in (nothing, errors, *printed):
        os.close(stream)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _watch(child: int, state: int) -> NoReturn:
    with suppress(BrokenPipeError):
        os.write(state, child.to_bytes(4, "big", signed=True))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(state, status.to_bytes(4, "big", signed=True))
    os._exit(0)


if __name__ == "__main__":
    gc.disable()
    for module in sys.argv[2:]:
        with suppress(ImportError):  # its tests are skipped
            importlib.import_module(module)
    gc.enable()
    gc.freeze()  # what is shared is not looked through by every fork
    _serve(socket.socket(fileno=int(sys.argv[1])))
