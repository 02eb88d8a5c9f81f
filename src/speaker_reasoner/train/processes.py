"""Processes that train together on the CPU of one machine; on GPUs, `accelerate launch` starts them.

Between the short operations of a small model one process leaves a second core idle for much of the time. The
processes share the batches of each step, with the same result as one (see `loop`).
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile
from typing import IO

import torch

from ..cores import child_environment, model_threads, usable_cores
from ..errors import EngineError, SettingsError

_LAUNCHED = "WORLD_SIZE"
"""Variable of the environment that every launcher sets."""
_OURS = "SPEAKER_REASONER_MEMBER"
"""Variable of the environment of the processes that `run_together` starts."""
LOST = 75
"""Exit status of such a process that has lost another one, whose own error says why."""
_GRACE_S = 20.0
"""How long a process may take to end by itself, after another has."""


def default_processes(batches_per_step: int, *, cpu: bool) -> int:
    """Return how many processes share a step: on a CPU as many as there are cores that its batches divide among.

    Args:
        cpu: a GPU is not to be used, if there is one.
    """
    if _LAUNCHED in os.environ or (not cpu and torch.accelerator.is_available()):
        return 1
    cores = min(usable_cores(), model_threads())
    return max(n for n in range(1, batches_per_step + 1) if n <= cores and not batches_per_step % n)


def run_together(processes: int, words: Sequence[str], *, cpu: bool) -> int:
    """Run one command in several processes that train together; return its exit status.

    The first one has this process's standard streams. All end with this process.

    Args:
        words: the command, as after `speaker-reasoner`.
        cpu: a GPU is not to be used, if there is one.

    Raises:
        SettingsError: a launcher has started this process already, there is a GPU, or there are fewer cores.
        EngineError: a process failed that did not tell its own error; with its last lines.
    """
    if _LAUNCHED in os.environ:
        raise SettingsError(
            f"--processes {processes}: accelerate launch or torchrun has started processes already; leave it out"
        )
    if not cpu and torch.accelerator.is_available():
        raise SettingsError(
            f"--processes {processes}: shares a step out among processes on a CPU, got a GPU; add --cpu, or start it "
            "by accelerate launch"
        )
    if processes > usable_cores():
        raise SettingsError(
            f"--processes {processes}: expected 1 to {usable_cores()}, one for each core that may be used here"
        )
    threads = max(1, min(usable_cores(), model_threads()) // processes)
    # threads are set before the libraries are loaded: torch.set_num_threads leaves other threads of theirs as they are
    shared = {
        **child_environment(threads),
        _OURS: "1",
        _LAUNCHED: str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        # not DDP's remarks on parameters that some batches leave out
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    members = [
        _Member(words, {**shared, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(processes)
    ]
    try:
        return _waited(members)
    finally:
        for one in members:
            one.end()


def is_member() -> bool:
    """Return whether `run_together` started this process."""
    return _OURS in os.environ


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended."""
    threading.Thread(target=_end_at_end_of_input, daemon=True).start()


def free_port() -> str:
    """Return a port of this machine that nobody uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def _end_at_end_of_input() -> None:
    os.read(sys.__stdin__.fileno() if sys.__stdin__ else 0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


class _Member:
    """One of the processes; what those besides the first write is kept for the case that they fail."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.rank = int(environment["RANK"])
        self._written: IO[bytes] | None = TemporaryFile() if self.rank else None  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", __package__.partition(".")[0], *words],
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=self._written,
            stderr=self._written,
            start_new_session=True,  # an interrupt reaches the process that started it alone
        )

    def wait(self, seconds: float) -> int | None:
        """Return its exit status; `None` if it has not ended after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    def last_lines(self) -> str:
        if self._written is None:
            return ""
        self._written.seek(0)
        lines = self._written.read().decode("utf-8", "backslashreplace").strip().splitlines()
        return " / ".join(lines[-5:])


def _waited(members: Sequence[_Member]) -> int:
    """Wait for the first process, which tells its own error, and see to it that no other ends unnoticed."""
    first, *others = members
    while (status := _patiently(first, 0.5)) is None:
        failed = [one for one in others if one.wait(0.0)]
        if failed and (status := _patiently(first, _GRACE_S)) in (None, 0):
            break
    if status is not None and status > 0 and status != LOST:
        return status
    patience = {one: 0.0 if one is first else _GRACE_S for one in members}
    failed = [one for one in members if (one.wait(patience[one]) or 0) not in (0, LOST)]
    if not failed and status == 0:
        return 0
    reasons = [
        f"process {one.rank + 1} of {len(members)} ended with status {one.wait(0.0)} "
        f"({one.last_lines() or 'no output'})"
        for one in failed
    ] or ["the processes of the training lost each other"]
    remedy = "the same command goes on from the last save; with --processes 1 it takes less memory"
    raise EngineError("; ".join([*reasons, remedy]))


def _patiently(first: _Member, seconds: float) -> int | None:
    """Wait for the first process; an interrupt is passed on to it."""
    try:
        return first.wait(seconds)
    except KeyboardInterrupt:
        first.interrupt()
        return first.wait(_GRACE_S) or 130
