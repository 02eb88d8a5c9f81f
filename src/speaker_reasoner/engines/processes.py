"""A small checkpoint in several processes on a CPU, among which dialogues are shared out.

Between the short operations of a small model Python runs one thread at a time, so that one process leaves a second
core idle for much of the time. A dialogue stays in the process of its first turn, where its keys and values are. The
processes besides this one have a thread each, load the model themselves, and end with this one.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from weakref import finalize

from ..cores import child_environment, torch_threads_kept, usable_cores
from ..errors import EngineError, SettingsError, SpeakerReasonerError
from ..speech import Detect
from ..voices.witness import Witness
from .base import Engine, Reply, Request, Session
from .local import TransformersEngine

_PROGRAM = f"""
from {__package__.rpartition(".")[0]} import load_engine
from {__name__} import answer
answer(load_engine)
"""
_PLACE = "process"
"""Key in the memory of a session for where it is."""


class EngineProcesses:
    """An engine, and the same one in other processes. Replies are those of one process.

    Args:
        engine: the one in this process, which answers the first dialogue of those at once.
        chosen: arguments of `load_engine` that load it elsewhere.
        processes: how many, this one included.

    Raises:
        SettingsError: the model is not on a CPU, or there are fewer cores than processes.
        EngineError: a process cannot load the model.
    """

    def __init__(
        self, engine: TransformersEngine, chosen: Mapping[str, Any], processes: int
    ) -> None:
        if engine.device.type != "cpu":
            raise SettingsError(
                f"--processes {processes}: the model is on {engine.device}, expected a CPU; leave it out, a larger "
                "--batch fills a GPU"
            )
        if not 1 <= processes <= usable_cores():
            raise SettingsError(
                f"--processes {processes}: expected 1 to {usable_cores()}, one for each core that may be used here"
            )
        self.own = engine
        self.profile, self.name = engine.profile, engine.name
        self.in_order, self.trust = engine.in_order, engine.trust
        self._chosen = dict(chosen)
        self._others = [_Process(self._chosen) for _ in range(processes - 1)]
        self.close = finalize(self, _end, self._others)
        """Ends the other processes, as the end of this one and of this object do."""
        for other in self._others:
            other.begin()

    def describe(self) -> dict[str, Any]:
        """See `Engine`; how many processes there are changes no reply."""
        return self.own.describe()

    def detector(self, name: str) -> Detect:
        """See `Engine`."""
        return self.own.detector(name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`."""
        return self.own.witness(name)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """See `Engine`. Where another process has ended, its dialogues end with an error, and it is started again."""
        here, elsewhere = self._shared_out(requests)
        for other, numbers in elsewhere.items():
            other.send([requests[number] for number in numbers])
        replies: dict[int, Reply] = {}
        failure: Exception | None = None
        try:
            try:
                if here:
                    with torch_threads_kept():
                        _use_threads(len(elsewhere))
                        own = self.own.ask([requests[number] for number in here])
                    replies.update(zip(here, own, strict=True))
            except Exception as error:  # raised below, when the others have answered
                failure = error
            for other, numbers in elsewhere.items():
                try:
                    replies.update(zip(numbers, other.receive(len(numbers)), strict=True))
                except SpeakerReasonerError as error:
                    failure = failure or error
        except BaseException:  # an interrupt: these answers would be taken for later ones
            for other in elsewhere:
                other.end()
            raise
        if failure is not None:
            raise failure
        return [replies[number] for number in range(len(requests))]

    def _shared_out(
        self, requests: Sequence[Request]
    ) -> tuple[list[int], dict["_Process", list[int]]]:
        """Return the numbers of the requests to answer here, and in each other process."""
        here: list[int] = []
        elsewhere: dict[_Process, list[int]] = {}
        new: list[int] = []
        for number, request in enumerate(requests):
            place = request.session.memory.get(_PLACE)
            if isinstance(place, _Place):
                elsewhere.setdefault(place.process, []).append(number)
            else:
                (here if place else new).append(number)
        if new:
            self._start_again()
        for number in new:
            fewest = min(self._others, key=lambda one: len(elsewhere.get(one, ())), default=None)
            memory = requests[number].session.memory
            if fewest is None or len(here) <= len(elsewhere.get(fewest, ())):
                memory[_PLACE] = "here"
                here.append(number)
            else:
                memory[_PLACE] = fewest.place()
                elsewhere.setdefault(fewest, []).append(number)
        return here, elsewhere

    def _start_again(self) -> None:
        for number, other in enumerate(self._others):
            if other.ended:
                self._others[number] = _Process(self._chosen)
                self._others[number].begin()


@dataclass(eq=False, slots=True)
class _Place:
    """The place of a session in another process, which forgets it when this one is dropped."""

    process: "_Process"
    number: int
    known: bool = False

    def __del__(self) -> None:
        self.process.dropped.append(self.number)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request for another process: the session on its first turn, its number later."""

    number: int
    session: Session | None
    parts: Any
    rules: Any


@dataclass(eq=False)
class _Process:
    """Another process with the engine."""

    chosen: dict[str, Any]
    dropped: list[int] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(1),
            start_new_session=True,  # an interrupt reaches this process alone, which ends the others
        )
        self._numbers = count()
        self._write(self.chosen)

    def place(self) -> _Place:
        """Return the place of another session."""
        return _Place(self, next(self._numbers))

    def begin(self) -> None:
        """Wait until the engine is loaded.

        Raises:
            EngineError: it cannot be loaded.
        """
        loaded = self._read()
        if isinstance(loaded, SpeakerReasonerError):
            raise loaded
        if self.ended:
            raise EngineError(self._end_message("while it loaded the model"))

    def send(self, requests: Sequence[Request]) -> None:
        """Send a turn of some of its sessions."""
        asked = []
        for request in requests:
            place = request.session.memory[_PLACE]
            session = request.session
            new = (
                None if place.known else Session(session.samples, session.cached, session.language)
            )
            place.known = True
            asked.append(_Asked(place.number, new, request.parts, request.rules))
        dropped, self.dropped = self.dropped, []
        self._write((dropped, asked))

    def receive(self, count: int) -> list[Reply]:
        """Return the replies to what was sent; where the process has ended, replies that say so.

        Raises:
            SpeakerReasonerError: as its engine raised it.
        """
        answer = self._read()
        if isinstance(answer, SpeakerReasonerError):
            raise answer
        if self.ended:
            return [Reply("", error=self._end_message("in a turn"))] * count
        replies: list[Reply] = answer
        return replies

    def end(self) -> None:
        """End the process at once."""
        self.ended = True
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # of what it did not take
                stream.close()

    def _write(self, message: Any) -> None:
        assert self._process.stdin is not None
        if self.ended:
            return
        with contextlib.suppress(BrokenPipeError):  # then `_read` finds its end
            pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        if self.ended:
            return None
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            self.end()
            return None

    def _end_message(self, when: str) -> str:
        status = self._process.returncode
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return (
            f"one of the model's processes ended {how} {when}, perhaps for its memory: use fewer --processes or a "
            "smaller --batch"
        )


def _end(processes: Sequence[_Process]) -> None:
    for one in processes:
        one.end()


def _use_threads(others: int) -> None:
    """Leave a core to each of the other processes that compute."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() - others))


def answer(load_engine: Callable[..., Engine]) -> None:
    """Be one of the other processes: load the engine that standard input names, then answer turns until it ends."""
    from transformers.utils import logging

    source, target = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    warnings.simplefilter("ignore")  # what they say of a model was said where it was loaded first
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    def send(message: Any) -> None:
        pickle.dump(message, target, pickle.HIGHEST_PROTOCOL)
        target.flush()

    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            engine = load_engine(**pickle.load(source))
        except SpeakerReasonerError as error:
            send(error)
            return
        send(None)
        sessions: dict[int, Session] = {}
        while True:
            dropped, asked = pickle.load(source)
            for number in dropped:
                sessions.pop(number, None)
            sessions |= {one.number: one.session for one in asked if one.session is not None}
            try:
                send(engine.ask([Request(sessions[o.number], o.parts, o.rules) for o in asked]))
            except SpeakerReasonerError as error:
                send(error)
