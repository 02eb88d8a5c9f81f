"""One engine thread for all recordings: their dialogues share its batches over connections.

Recordings wait in a queue that is fair to clients; `places` limits it. Up to `batch` of them are under way;
`longform.rounds` says how they share the rounds, and new recordings join between rounds. Jobs, which survive a restart,
leave one place to requests with an open connection.

The purpose of a recording is unknown here: see `Task`.
"""

import logging
import math
import threading
import time
from collections import Counter as Counts
from collections import deque
from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..engines.base import Engine
from ..errors import EngineError, SpeakerReasonerError
from ..longform import Failure, rounds
from ..transcript import Transcript
from .places import Place

_log = logging.getLogger(__name__)


class Task(rounds.Task, Protocol):
    """A recording to be transcribed. All methods run on the engine thread.

    Attributes:
        client: that sent it, for a fair queue.
        lasting: whether it is a job, which survives a restart; otherwise a client waits on a connection.
        cancelled: the transcript is not wanted any more, and nothing more is reported; set from any thread.
    """

    client: str
    lasting: bool
    cancelled: bool

    def ended(self, result: Transcript | Failure) -> None:
        """Take the result."""


class Worker:
    """The queue and the engine thread.

    Args:
        engine: asked from this thread alone.
        batch: dialogues at once.
        registry: of the counts.
        room: called when there may be room for one more.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        batch: int,
        registry: CollectorRegistry,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        self._batch = batch
        self._made_room = room
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._served: dict[str, int] = {}
        self._rounds: rounds.Rounds[Task] = rounds.Rounds(
            engine, batch, more=self._take, in_order=False, as_known=_known
        )
        self._draining = self._stopping = False
        self._ends: deque[float] = deque(maxlen=16)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        waiting = Gauge("speaker_reasoner_waiting", "Recordings that wait.", registry=registry)
        waiting.set_function(lambda: len(self._waiting))
        active = Gauge("speaker_reasoner_active", "Recordings under way.", registry=registry)
        active.set_function(lambda: len(self._rounds.tasks))
        self._shared = Histogram(
            "speaker_reasoner_round_dialogues",
            "Dialogues that shared a round of the engine.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self._ended = Counter(
            "speaker_reasoner_recordings", "Recordings by outcome.", ("outcome",), registry=registry
        )
        self._audio_s = Counter(
            "speaker_reasoner_audio_seconds", "Audio of recordings that ended.", registry=registry
        )

    def start(self) -> None:
        self._thread.start()

    def waiting(self, client: str) -> int:
        """Return how many recordings of a client wait."""
        with self._changed:
            return sum(task.client == client for task in self._waiting)

    @property
    def pace_s(self) -> int:
        """Return the seconds until another recording ends, at the pace of the last ones."""
        if len(self._ends) < 2:
            return 5
        pace_s = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return min(600, max(1, math.ceil(pace_s)))

    def rooms(self) -> tuple[int, int]:
        """Return how many more jobs could begin at once, and how many more requests."""
        with self._changed:
            if self._draining:
                return 0, 0
            there = [*self._rounds.tasks, *self._waiting]
            jobs = max(1, self._batch - 1) - sum(task.lasting for task in there)
            return max(0, min(jobs, self._batch - len(there))), max(0, self._batch - len(there))

    def submit(self, task: Task, place: Place | None = None) -> None:
        """Queue a task; one that comes without a place is never refused."""
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()
        if place is not None:
            place.release()

    def cancel(self, task: Task) -> None:
        """Drop a task; one under way ends after the present round."""
        with self._changed:
            task.cancelled = True
            if task in self._waiting:
                self._waiting.remove(task)

    def position(self, task: Task) -> int | None:
        """Return how many tasks are before it in the queue; `None` if it does not wait."""
        with self._changed:
            return self._waiting.index(task) if task in self._waiting else None

    @property
    def crowded(self) -> bool:
        """Return whether a task waits or the server ends: optional work is left out then."""
        return self._draining or bool(self._waiting)

    def drain(self) -> None:
        """Accept nothing new, stop jobs, finish requests with an open connection. May be called in a signal handler."""
        self._draining = True

    def stop(self) -> None:
        """Stop after the present round, and wait for that."""
        self._draining = self._stopping = True
        with self._changed:
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._rounds.keep(self._wanted)
            try:
                if dialogues := self._rounds.round():
                    self._shared.observe(dialogues)
                ended = self._rounds.settle()
            except Exception as error:
                ended = iter(self._rounds.fail(error))
            for task, result in ended:
                self._end(task, result)
            if self._rounds.tasks:
                continue
            with self._changed:
                if self._next() is None and not self._stopping:
                    self._changed.wait()

    def _wanted(self, task: Task) -> bool:
        return not (task.cancelled or (task.lasting and self._draining))

    def _next(self) -> Task | None:
        """Return the first task in the queue that may begin."""
        active = self._rounds.tasks
        if len(active) >= self._batch:
            return None
        jobs = sum(task.lasting for task in active)
        full = jobs >= max(1, self._batch - 1)
        may = [t for t in self._waiting if self._wanted(t) and not (t.lasting and full)]
        under_way = Counts(task.client for task in active)
        # First the client with the fewest under way, then the one that was served longest ago.
        return min(
            may, key=lambda t: (under_way[t.client], self._served.get(t.client, 0)), default=None
        )

    def _take(self) -> Task | None:
        """Take the next task to begin from the queue."""
        with self._changed:
            task = self._next()
            if task is not None:
                self._waiting.remove(task)
                self._serve(task.client)
        return task

    def _serve(self, client: str) -> None:
        """Note that it was this client's turn, and forget clients without waiting tasks."""
        waiting = {task.client for task in self._waiting} | {client}
        last = max(self._served.values(), default=0)
        self._served = {one: n for one, n in self._served.items() if one in waiting}
        self._served[client] = last + 1

    def _end(self, task: Task, result: Transcript | Failure) -> None:
        self._made_room()
        if task.cancelled:
            return
        self._ends.append(time.monotonic())
        if isinstance(result, Transcript):
            self._audio_s.inc(result.duration_s)
        self._ended.labels("failed" if isinstance(result, Failure) else "done").inc()
        try:
            task.ended(result)
        except Exception:
            _log.exception("a result could not be handed over")


def _known(error: Exception) -> SpeakerReasonerError:
    """Convert an exception to an error for the client; a bug is logged with its traceback, and the thread goes on."""
    if isinstance(error, SpeakerReasonerError):
        return error
    _log.exception("the engine thread met a bug", exc_info=error)
    return EngineError(f"internal error ({type(error).__name__}); see the server's log")
