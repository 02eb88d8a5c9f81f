"""A system in an environment of its own, as a process that is asked by lines of JSON; see `isolated`."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..engines.client import Unavailable
from ..errors import AnswerError, CheckpointError, ExtraError, SettingsError
from . import isolated
from .base import Answer, Sound, SystemOptions

_TAIL = 300
"""Characters of the end of a process's output that are shown."""
_LOADING_S = 1800.0
"""Longest time until a system is loaded, with the download of its model (assumed)."""


class Isolated:
    """A system in an environment of its own.

    Args:
        name: a key of `isolated.KINDS`.
        model: that is asked for.
        settings, packages: see `Subprocess`.
        options: see `SystemOptions`.

    Raises:
        ExtraError, CheckpointError, SettingsError: see `Subprocess.start`.
    """

    def __init__(
        self,
        name: str,
        model: str,
        settings: Mapping[str, Any],
        packages: str,
        options: SystemOptions,
    ) -> None:
        self.name = name
        self.model = model
        self._worker = Subprocess(name, settings, packages, options.python, options.timeout_s)
        self._worker.start()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of its libraries."""
        return self._worker.versions

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        return Answer(self._worker.ask(sound), self.model)

    def close(self) -> None:
        """See `System`."""
        self._worker.close()


class Subprocess:
    """The process; it is started with the first request, and again after its end.

    Args:
        system: its name, a key of `isolated.KINDS`.
        settings: that it is loaded with (JSON-ready).
        packages: that it needs, as pip names them, for messages.
        python: interpreter of its environment; this one if `None`.
        timeout_s: longest time for one answer.
    """

    def __init__(
        self,
        system: str,
        settings: Mapping[str, Any],
        packages: str,
        python: str | None,
        timeout_s: float,
    ) -> None:
        self.system = system
        self.python = python or sys.executable
        self._settings = {"kind": system, **settings}
        self._packages = packages
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: Any = None
        self._number = 0
        self._lock = threading.Lock()
        self.versions: dict[str, str] = {}

    def start(self) -> None:
        """Start the process, if it does not run, and load the system.

        Raises:
            ExtraError: a library is missing there.
            CheckpointError: a model cannot be loaded.
            SettingsError: the interpreter cannot be started.
        """
        try:
            with self._lock:
                self._started()
        except Unavailable as error:
            self.close()
            raise CheckpointError(f"the system {self.system} cannot be loaded: {error}") from error

    def ask(self, sound: Sound) -> dict[str, Any]:
        """The result for a sound.

        Raises:
            AnswerError: its libraries failed on this sound.
            Unavailable: it ended, or took too long.
            ExtraError, CheckpointError, SettingsError: as `start`.
        """
        with self._lock, tempfile.TemporaryDirectory(prefix="speaker-reasoner-") as folder:
            self._started()
            path = Path(folder) / "sound.wav"
            path.write_bytes(sound.encoded("WAV"))
            answer = self._exchange({"audio": str(path)}, self._timeout_s)
        if "error" in answer:
            raise AnswerError("unavailable", f"{self.system}: {answer['error']}", answer)
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if self._errors is not None:
            self._errors.close()

    def _started(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        try:
            process = subprocess.Popen(
                [self.python, isolated.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            self._errors.close()
            raise SettingsError(
                f"--system-python {self.python}: cannot be started: {error.strerror}; expected the Python of "
                "the environment"
            ) from error
        self._process, self._lines = process, queue.Queue()
        threading.Thread(target=_read, args=(process.stdout, self._lines), daemon=True).start()
        answer = self._exchange({"load": self._settings}, _LOADING_S)
        if "error" in answer:
            self.close()
            if answer["missing"]:
                raise ExtraError(
                    f"the system {self.system} needs {self._packages} in the environment of {self.python}: "
                    f"{answer['error']}; pip install {self._packages} into one, and name its Python by "
                    "--system-python"
                )
            raise CheckpointError(f"the system {self.system} cannot be loaded: {answer['error']}")
        self.versions = answer["ready"]

    def _exchange(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process is not None and self._process.stdin is not None
        self._number += 1
        try:
            self._process.stdin.write(json.dumps({"id": self._number, **request}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self._kill()
            raise Unavailable(f"{self.system}: no answer within {timeout_s:g} s") from None
        except BaseException:  # interrupted: its late answer would be taken for the next one
            self._kill()
            raise
        if line is None:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        assert answer["id"] == self._number
        return answer

    def _kill(self) -> None:
        """End the process now; when this returns, the next request starts another."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _ended(self) -> Unavailable:
        """Return the error of a process that has ended, with the end of its output."""
        assert self._process is not None
        status = self._process.wait()
        self._errors.seek(0)
        said = " ".join(self._errors.read().split())[-_TAIL:]
        return Unavailable(
            f"{self.system}: its process ended with status {status}: {said or 'no word'}"
        )


def _read(stream: Any, lines: "queue.Queue[str | None]") -> None:
    with suppress(ValueError):  # closed
        for line in stream:
            lines.put(line)
    lines.put(None)
