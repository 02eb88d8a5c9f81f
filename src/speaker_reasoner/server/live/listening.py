"""A live session at the engine: stretches of speech as they come, linked like the chunks of a recording.

Finished stretches share one `RecordingState`, so that a speaker keeps the label. Guesses at the stretch that is still
being spoken are made whenever nobody waits for the engine, and dropped afterwards. Each session has at most one task in
the worker's queue, in which sessions, requests and jobs take turns.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import SpeakerReasonerError
from ...longform import Failure, Listener, Progress, Transcriber
from ...longform.chunks import Chunk
from ...longform.recording import RecordingState
from ...reasoner import Asker
from ...transcript import Missing, Segment, Transcript
from ..runs import Defaults, given_of
from ..worker import Worker
from .events import Session
from .known import KnownVoices

_PASSES = 20
"""Least time between two passes, as a multiple of the time that the last one took (assumed)."""


@dataclass(frozen=True, slots=True)
class Transcribed:
    """A stretch that was transcribed.

    Attributes:
        number: of the stretch, from 0.
        segments: with labels among those of the session so far.
        missing: its stretches that were not transcribed.
        transcript: of all stretches so far, after the last pass over them; `None` inside of a piece, or right after
            another pass.
    """

    number: int
    segments: Sequence[Segment]
    missing: Sequence[Missing]
    transcript: Transcript | None


@dataclass(frozen=True, slots=True)
class Guess:
    """A provisional transcript of the stretch that is still being spoken; its labels mean nothing outside of it."""

    start_samples: int
    segments: Sequence[Segment]


@dataclass(frozen=True, slots=True)
class Broken:
    """The engine failed: stretches before number `until` that have no transcript are lost.

    Speakers are counted anew.
    """

    until: int
    error: SpeakerReasonerError


News = Transcribed | Guess | Broken


class Live:
    """The engine's side of a session; methods are called on the event loop unless they say otherwise.

    Args:
        transcriber: opens the session.
        worker: runs its tasks.
        client: that opened the session, for a fair queue.
        session: returns the session as the client has configured it so far.
        defaults: for hints that the client did not give.
        tell: called on the event loop with news.

    Attributes:
        client: as given.
        voices: known speakers, if the client named any; set before the first stretch.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        worker: Worker,
        client: str,
        session: Callable[[], Session],
        defaults: Defaults,
        tell: Callable[[News], None],
    ) -> None:
        self._transcriber = transcriber
        self._worker = worker
        self.client = client
        self._session = session
        self._defaults = defaults
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Chunk, bool]] = deque()
        self._begun: deque[bool] = deque()  # whether each under way ends a piece
        self._state: RecordingState | None = None
        # numbers of stretches: the next to be added, the first of the state, the next to be reported
        self._added = self._first = self._next = 0
        self._pass_at = 0.0
        self.voices: KnownVoices | None = None
        self._task: _Stretches | _Guessing | None = None

    def add(self, chunk: Chunk, *, ends: bool) -> int:
        """Queue a stretch for the engine; return its number.

        Args:
            ends: whether a piece of the session ends with it, so that the last pass is made.
        """
        if isinstance(self._task, _Guessing):
            self._worker.cancel(self._task)
            self._task = None
        with self._lock:
            self._waiting.append((chunk, ends))
            number, self._added = self._added, self._added + 1
            if self._task is None or self._task.over:
                self._task = _Stretches(self)
                self._worker.submit(self._task)
        return number

    @property
    def may_guess(self) -> bool:
        """Return whether the engine has time for a guess."""
        with self._lock:
            return (self._task is None or self._task.over) and not self._worker.crowded

    def guess(self, chunk: Chunk) -> None:
        """Guess at the stretch that is still being spoken."""
        self._task = _Guessing(self, chunk)
        self._worker.submit(self._task)

    def set_language(self, language: str | None) -> None:
        """Set the language of the stretches that begin from now on."""
        if self._state is not None:
            self._state.language_given = language

    def close(self) -> None:
        """Stop: no more results are wanted."""
        if self._task is not None:
            self._worker.cancel(self._task)

    # On the engine thread

    def open(self, source: Iterator[Chunk] | None = None) -> RecordingState:
        """Make the session's state, or another one for a guess, in which nobody is linked."""
        session = self._session()
        count = session.count or self._defaults.speakers
        if source is not None:
            return self._transcriber.listen(
                "live", source, speakers=count, language=session.language
            )
        given: dict[str, Any] = {"speakers": count, "voices": self._defaults.voices}
        if self.voices is not None:
            witness = self._transcriber.settings.witness
            folder, names = self.voices.folder, self.voices.names
            given = given_of(folder, count, names, witness, self._defaults)
        state = self._transcriber.listen("live", self, language=session.language, **given)
        state.ready = lambda: bool(self._waiting)
        return state

    def __iter__(self) -> "Live":
        return self

    def __next__(self) -> Chunk:
        with self._lock:
            if not self._waiting:
                raise StopIteration
            chunk, ends = self._waiting.popleft()
            self._begun.append(ends)
        return chunk

    @property
    def state(self) -> RecordingState:
        if self._state is None:
            self._state = self.open()
        return self._state

    def rest(self, task: "_Stretches") -> None:
        """End a task that has nothing to do; further stretches begin another one."""
        with self._lock:
            task.over = task.over or (not self._waiting and self.state.idle)

    def news(self) -> None:
        """Report the stretches that are transcribed."""
        self.state.tell(None)
        while (segments := self.state.linked(self._next - self._first)) is not None:
            missing = self.state.missing(self._next - self._first)
            transcript = self._passed_over() if self._begun.popleft() else None
            self.tell(Transcribed(self._next, segments, missing, transcript))
            self._next += 1

    def _passed_over(self) -> Transcript | None:
        """Return the transcript after a pass over the session so far; `None` if the last pass was too recent: a pass
        takes longer as the session grows, and may take a small part of the engine's time only."""
        begun = time.monotonic()
        if begun < self._pass_at:
            return None
        result = self.state.result()
        took_s = time.monotonic() - begun
        self._pass_at = begun + took_s * _PASSES
        return result if isinstance(result, Transcript) else None

    def broke(self, error: SpeakerReasonerError) -> None:
        """Report that the engine failed: stretches that waited for it are lost, later ones are not."""
        with self._lock:
            self._waiting.clear()
            self._begun.clear()
            self._state = None
            self._first = self._next = self._added
            until = self._added
        self.tell(Broken(until, error))

    def tell(self, news: News) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, news)


class _Stretches:
    """Waiting stretches, as a task and its recording in one; see `worker.Task`."""

    lasting = False
    name = "live"

    def __init__(self, live: Live) -> None:
        self.client = live.client
        self.cancelled = False
        self.over = False
        self._live = live

    def open(self) -> "_Stretches":
        return self

    def dialogues(self, most: int) -> Sequence[Asker]:
        return self._live.state.dialogues(most)

    @property
    def done(self) -> bool:
        self._live.rest(self)
        return self.over

    def tell(self, listener: Listener) -> None:
        self._live.news()

    def on_progress(self, progress: Progress) -> None:
        """See `tell`."""

    def result(self) -> None:
        return None

    def ended(self, result: Transcript | Failure) -> None:
        """Report a failure of the engine."""
        self.over = True
        assert isinstance(result, Failure), "see result"
        self._live.broke(result.error)


class _Guessing:
    """A guess, as a task and its recording in one."""

    lasting = False
    name = "live"

    def __init__(self, live: Live, chunk: Chunk) -> None:
        self.client = live.client
        self.cancelled = False
        self.over = False
        self._live = live
        self._chunk = chunk
        self._state: RecordingState | None = None

    def open(self) -> "_Guessing":
        self._state = self._live.open(iter([self._chunk]))
        return self

    @property
    def state(self) -> RecordingState:
        assert self._state is not None
        return self._state

    def dialogues(self, most: int) -> Sequence[Asker]:
        return self.state.dialogues(most)

    @property
    def done(self) -> bool:
        return self.state.done

    def tell(self, listener: Listener) -> None:
        self.state.tell(None)

    def on_progress(self, progress: Progress) -> None:
        """See `tell`."""

    def result(self) -> None:
        result = self.state.result()
        self.over = True
        if isinstance(result, Transcript) and not self.cancelled:
            self._live.tell(Guess(self._chunk.start_samples, result.segments))

    def ended(self, result: Transcript | Failure) -> None:
        """Do nothing: it was only a guess."""
        self.over = True
