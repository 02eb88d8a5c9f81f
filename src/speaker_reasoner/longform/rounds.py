"""The scheduler of dialogues, for files and for the server.

A round is one turn of up to `batch` dialogues, of any recordings. A request gets the same reply alone and in a
batch. How recordings share the rounds therefore changes when they end, but not their transcripts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from ..engines.base import Engine
from ..errors import SpeakerReasonerError
from ..reasoner import Asker, ask
from ..transcript import Transcript
from .recording import Failure, Listener, Progress


class Driven(Protocol):
    """A unit of work that the rounds drive: a recording, or a turn of a dialogue that a client leads."""

    @property
    def done(self) -> bool: ...

    def dialogues(self, most: int) -> Sequence[Asker]:
        """Return at most `most` dialogues that have a turn to ask for."""

    def tell(self, listener: Listener) -> None:
        """Report the turns since the last call."""

    def result(self) -> Transcript | Failure | None:
        """The result, once `done`; `None` if it was already delivered."""


class Task(Protocol):
    """A recording that somebody wants transcribed.

    Attributes:
        name: of the recording.
        cancelled: the transcript is not wanted any more, and `on_progress` is not called again; may be set from any
            thread.
    """

    @property
    def name(self) -> str: ...

    @property
    def cancelled(self) -> bool: ...

    def open(self) -> Driven:
        """Open the recording, or the turn of a client; an error ends the task."""

    def on_progress(self, progress: Progress) -> None:
        """Called with each turn."""


T = TypeVar("T", bound=Task)
Result = Transcript | Failure


def expected(error: Exception) -> SpeakerReasonerError:
    """An error that a recording may end with; any other is a bug, and raised."""
    if isinstance(error, SpeakerReasonerError):
        return error
    raise error


@dataclass(eq=False, slots=True)
class _Active(Generic[T]):
    """A task under way, with its recording; a failed one has none, and its failure is reported next."""

    task: T
    recording: Driven | None = None
    failure: Failure | None = None

    @property
    def over(self) -> bool:
        return self.recording is None or self.recording.done


class Rounds(Generic[T]):
    """Schedules the recordings under way. One that fails does not affect the others.

    Args:
        engine: asked for all of them.
        batch: dialogues at once.
        more: the next task to begin; `None` when none is to begin now.
        in_order: the first recording gets all the dialogues that it can use, others start only where it
            leaves room, and turns of a recording are reported after those before it have ended. Otherwise
            all that `more` gives start at once, share each round evenly, and are reported at once.
        as_known: converts an exception of a task to the error that it ends with; may raise it.
    """

    def __init__(
        self,
        engine: Engine,
        batch: int,
        *,
        more: Callable[[], T | None],
        in_order: bool,
        as_known: Callable[[Exception], SpeakerReasonerError] = expected,
    ) -> None:
        self._engine = engine
        self._batch = batch
        self._more = more
        self._in_order = in_order
        self._as_known = as_known
        self._active: list[_Active[T]] = []

    @property
    def tasks(self) -> list[T]:
        """The tasks under way."""
        return [active.task for active in self._active]

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drop the tasks that are not wanted any more, without a result."""
        self._active = [active for active in self._active if wanted(active.task)]

    def round(self) -> int:
        """Ask one turn of each dialogue.

        Returns:
            How many dialogues there were.

        Raises:
            Exception: the engine's own; every task is still under way.
        """
        dialogues = self._first_come() if self._in_order else self._shared_out()
        if dialogues:
            for _ in ask(dialogues, self._engine):
                pass
        return len(dialogues)

    def settle(self) -> Iterator[tuple[T, Result]]:
        """Report the turns of a round, and yield the tasks that have ended, each before later turns.

        A cancelled task ends without a result.
        """
        self.keep(lambda task: not task.cancelled)
        for active in list(self._active):
            result = self._news(active)
            if result is not None:
                yield active.task, result
            if result is not None or active.over:
                self._active.remove(active)
            elif self._in_order:
                return

    def fail(self, error: Exception) -> list[tuple[T, Result]]:
        """End every task with an error, such as the engine's."""
        active, self._active = self._active, []
        return [(a.task, Failure(a.task.name, self._as_known(error))) for a in active]

    def _first_come(self) -> list[Asker]:
        dialogues: list[Asker] = []
        for active in self._active:
            dialogues += self._of(active, self._batch - len(dialogues))
        while len(dialogues) < self._batch and not (self._active and self._active[0].over):
            task = self._more()
            if task is None:
                break
            dialogues += self._of(self._begin(task), self._batch - len(dialogues))
        return dialogues

    def _shared_out(self) -> list[Asker]:
        """An equal share of the batch for each task; unused shares go to the others."""
        while (task := self._more()) is not None:
            self._begin(task)
        if not self._active:
            return []
        share, rest = divmod(self._batch, len(self._active))
        shares = [share + (i < rest) for i in range(len(self._active))]
        given = [self._of(*pair) for pair in zip(self._active, shares, strict=True)]
        left = self._batch - sum(map(len, given))
        for i, active in enumerate(self._active):
            if left and len(given[i]) == shares[i]:
                before, given[i] = given[i], self._of(active, shares[i] + left)
                left -= len(given[i]) - len(before)
        return [dialogue for dialogues in given for dialogue in dialogues]

    def _begin(self, task: T) -> _Active[T]:
        active = _Active(task)
        self._active.append(active)
        try:
            active.recording = task.open()
        except Exception as error:
            self._drop(active, error)
        return active

    def _of(self, active: _Active[T], most: int) -> Sequence[Asker]:
        """Dialogues of a recording; none if it fails."""
        if active.recording is None:
            return []
        try:
            return active.recording.dialogues(most)
        except Exception as error:
            self._drop(active, error)
            return []

    def _drop(self, active: _Active[T], error: Exception) -> None:
        active.recording = None
        active.failure = Failure(active.task.name, self._as_known(error))

    def _news(self, active: _Active[T]) -> Result | None:
        """Report the turns of a recording; returns its result if it has ended."""
        recording = active.recording
        if recording is not None:
            try:
                recording.tell(active.task.on_progress)
                return recording.result() if recording.done else None
            except Exception as error:
                self._drop(active, error)
        return active.failure


def in_order(engine: Engine, batch: int, tasks: Iterable[T]) -> Iterator[tuple[T, Result]]:
    """Drive tasks together; results come in their order.

    Raises:
        EngineError: the engine failed as a whole.
    """
    waiting = iter(tasks)
    rounds: Rounds[T] = Rounds(engine, batch, more=lambda: next(waiting, None), in_order=True)
    while rounds.round() or rounds.tasks:
        yield from rounds.settle()
