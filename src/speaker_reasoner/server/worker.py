"""One engine thread for all recordings: their dialogues share its batches over connections.

Recordings wait in a bounded queue. Up to `batch` of them are under way; each round asks one turn of
up to `batch` dialogues, shared out evenly, and new recordings join between rounds. Jobs, which can
go on after a restart, leave one place to the requests that somebody waits for.

Does not know what a recording is for: see `Task`.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..engines.base import Engine
from ..errors import EngineError, SpeakerReasonerError
from ..longform import Failure, Progress, Recording
from ..reasoner import Dialogue, ask
from ..transcript import Transcript
from .openai import RequestError

_log = logging.getLogger(__name__)


class Task(Protocol):
    """A recording that somebody wants transcribed. All methods run on the engine thread.

    Attributes:
        lasting: a job, which goes on after a restart; otherwise somebody waits on a connection.
        cancelled: nobody wants it any more; set from any thread, and nothing more is told.
    """

    lasting: bool
    cancelled: bool

    def open(self) -> Recording:
        """Begin; a `SpeakerReasonerError` ends the task."""

    def told(self, progress: Progress) -> None:
        """A turn is known."""

    def ended(self, result: Transcript | Failure) -> None:
        """The last word on it."""


class Place:
    """A place in the queue, held while a recording is still on its way in."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give the place back; once is enough."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


@dataclass(eq=False, slots=True)
class _Active:
    task: Task
    recording: Recording


class Worker:
    """The queue and the engine thread.

    Args:
        engine: asked from this thread alone.
        batch: dialogues at once.
        queue: recordings that may wait, those whose upload is under way included.
        registry: of the counts.
    """

    def __init__(
        self, engine: Engine, *, batch: int, queue: int, registry: CollectorRegistry
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._queue = queue
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._coming = 0
        self._active: list[_Active] = []
        self._draining = self._stopping = False
        self._ends: deque[float] = deque(maxlen=16)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        waiting = Gauge("speaker_reasoner_waiting", "Recordings that wait.", registry=registry)
        waiting.set_function(lambda: len(self._waiting))
        active = Gauge("speaker_reasoner_active", "Recordings under way.", registry=registry)
        active.set_function(lambda: len(self._active))
        self._rounds = Histogram(
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

    def reserve(self) -> Place:
        """Take a place for a recording that is about to come in.

        Raises:
            RequestError: 429 with the seconds after which a place may be free; 503 while stopping.
        """
        with self._changed:
            if self._draining:
                raise RequestError(
                    503,
                    "the server is stopping; send the request again soon",
                    code="server_stopping",
                    headers={"Retry-After": "10"},
                )
            if self._coming + len(self._waiting) >= self._queue:
                raise RequestError(
                    429,
                    f"{self._queue} recordings wait already; try again later",
                    code="queue_full",
                    headers={"Retry-After": str(self._pace_s())},
                )
            self._coming += 1
        return Place(self._came)

    def submit(self, task: Task, place: Place | None = None) -> None:
        """Let a task wait for its turn; one that comes without a place is never refused."""
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()
        if place is not None:
            place.release()

    def cancel(self, task: Task) -> None:
        """Forget a task; one under way ends with the round that is being written."""
        with self._changed:
            task.cancelled = True
            if task in self._waiting:
                self._waiting.remove(task)

    def position(self, task: Task) -> int | None:
        """How many wait before it; `None` when it does not wait."""
        with self._changed:
            return self._waiting.index(task) if task in self._waiting else None

    def drain(self) -> None:
        """Take nothing new, let jobs rest, finish what somebody waits for. Safe in a signal."""
        self._draining = True

    def stop(self) -> None:
        """End with the round that is being written, and wait for that."""
        self._draining = self._stopping = True
        with self._changed:
            self._changed.notify()
        self._thread.join()

    def _came(self) -> None:
        with self._changed:
            self._coming -= 1

    def _pace_s(self) -> int:
        """Seconds until another recording has ended, as the last ones did."""
        if len(self._ends) < 2:
            return 5
        pace_s = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return min(600, max(1, math.ceil(pace_s)))

    def _run(self) -> None:
        while not self._stopping:
            self._admit()
            self._active = [a for a in self._active if self._wanted(a.task)]
            if self._active:
                self._round()
                continue
            with self._changed:
                if self._next() is None and not self._stopping:
                    self._changed.wait()

    def _wanted(self, task: Task) -> bool:
        return not (task.cancelled or (task.lasting and self._draining))

    def _next(self) -> Task | None:
        """The first task that waits and may begin."""
        if len(self._active) >= self._batch:
            return None
        jobs = sum(active.task.lasting for active in self._active)
        full = jobs >= max(1, self._batch - 1)
        for task in self._waiting:
            if self._wanted(task) and not (task.lasting and full):
                return task
        return None

    def _admit(self) -> None:
        while True:
            with self._changed:
                task = self._next()
                if task is None:
                    return
                self._waiting.remove(task)
            try:
                self._active.append(_Active(task, task.open()))
            except Exception as error:
                self._end(task, _failure(error))

    def _round(self) -> None:
        """One turn of each dialogue, then what became of their recordings."""
        dialogues: list[Dialogue] = []
        share, rest = divmod(self._batch, len(self._active))
        for i, active in enumerate(list(self._active)):
            try:
                dialogues += active.recording.dialogues(share + (i < rest))
            except Exception as error:
                self._drop(active, error)
        if dialogues:
            self._rounds.observe(len(dialogues))
            try:
                for _ in ask(dialogues, self._engine):
                    pass
            except Exception as error:
                for active in list(self._active):
                    self._drop(active, error)
        self._active = [active for active in self._active if not self._settle(active)]

    def _drop(self, active: _Active, error: Exception) -> None:
        self._active.remove(active)
        self._end(active.task, _failure(error))

    def _settle(self, active: _Active) -> bool:
        """Tell the news of a recording; whether it has ended."""
        if active.task.cancelled:
            return True
        result: Transcript | Failure
        try:
            active.recording.tell(active.task.told)
            if not active.recording.done:
                return False
            result = active.recording.result()
        except Exception as error:
            result = _failure(error)
        self._end(active.task, result)
        return True

    def _end(self, task: Task, result: Transcript | Failure) -> None:
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


def _failure(error: Exception) -> Failure:
    """An error as a result; a bug keeps its traceback in the log, and the thread lives on."""
    if isinstance(error, SpeakerReasonerError):
        return Failure("", error)
    _log.exception("the engine thread met a bug", exc_info=error)
    return Failure(
        "", EngineError(f"internal error ({type(error).__name__}); see the server's log")
    )
