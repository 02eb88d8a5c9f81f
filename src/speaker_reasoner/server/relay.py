"""A request's recording that another server transcribes: its events are read from the database."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from fastapi.concurrency import run_in_threadpool

from ..formats.words import NATIVE, parse_word_rows
from ..transcript import Confidence, Segment, Transcript
from .documents import load_original
from .events import ANEW
from .failures import RequestError, StorageError, no_worker
from .jobs import Job
from .runs import News, StreamedSegment, relabelled
from .schemas import ERRORS
from .shared import SharedStore

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_S = 0.25
_PATIENCE_S = 60.0
"""How long database or workers may be lost before a client gets an error (assumed, as is the interval of looks)."""


class RelayedRun:
    """A job that another server works on, with the interface of `RequestRun`.

    A stream of OpenAI's form cannot take words back: if the job begins anew, segments of the new run that lie in the
    part that was sent before are not sent again. The transcript at the end is the new run's alone.

    Args:
        store: of the job.
        job: accepted, with this server as its waiter.
        nobody: returns why nobody works on a job; `None` if somebody does.
    """

    def __init__(self, store: SharedStore, job: Job, nobody: Callable[[Job], str | None]) -> None:
        self._store = store
        self._job = job
        self._nobody = nobody
        self._reader = store.event_reader(job)
        self._held: dict[str, StreamedSegment] = {}
        self._chunks: dict[str, int] = {}
        self._ends_s = {"known": 0.0, "linked": 0.0}  # of the segments that were sent
        self._void_s = dict(self._ends_s)  # the same, when the job last began anew
        self._first = self._next = 0  # numbers of segments: the first of this run, and the next one

    async def news(self) -> AsyncIterator[News | Transcript]:
        """Yield news like `RequestRun.news`.

        Raises:
            RequestError: it failed, or no worker lived for too long.
            StorageError: the database was out of reach for too long.
        """
        served = time.monotonic()
        while True:
            news, job = await _patiently(self._look)
            for one in news:
                yield one
            if job.status == "done":
                transcript = (await _patiently(load_original, self._store, job)).transcript
                if self._held:
                    held = relabelled(list(self._held.values()), transcript.segments)
                    yield News([], self._fresh("linked", held))
                yield transcript
                return
            if not job.under_way:
                raise _failure(job)
            if self._nobody(job) is None:
                served = time.monotonic()
            elif time.monotonic() - served > _PATIENCE_S:
                raise no_worker(job.model)
            await asyncio.sleep(_LOOK_S)

    async def transcript(self) -> Transcript:
        """The transcript; raises as `news`."""
        async for item in self.news():
            if isinstance(item, Transcript):
                return item
        raise AssertionError

    def close(self) -> None:
        """Release the job and its files: no client asks for them any more."""
        try:
            self._store.cancel(self._job)
            self._store.erase(self._job)
        except StorageError:
            pass  # `finish_erasing` does it when this server is gone

    def _look(self) -> tuple[list[News], Job]:
        """Read the new events, and the job as it was before them."""
        job = self._store.get(self._job.id, removed=True)
        if job is None:
            raise RequestError(503, "the recording was deleted", code="engine_failed")
        news = [one for event in self._reader.new() if (one := self._of(event.name, event.data))]
        return news, job

    def _of(self, name: str, data: dict[str, Any]) -> News | None:
        if name == "segment" and data["turn"] is not None:
            number = self._first + int(data["id"])
            self._next = max(self._next, number + 1)
            streamed = StreamedSegment(number, _segment(data), data["overlap"])
            known = self._fresh("known", [streamed])
            if data["chunk"] == 0:
                return News(known, self._fresh("linked", [streamed]))
            self._held[data["id"]] = streamed
            self._chunks[data["id"]] = data["chunk"]
            return News(known, [])
        if name == ANEW:
            self._first, self._void_s = self._next, dict(self._ends_s)
            self._held.clear()
            self._chunks.clear()
        if name == "linked":
            ready = [one for one, chunk in self._chunks.items() if chunk == data["chunk"]]
            linked = [
                _labelled(self._held.pop(one), data["labels"].get(one))
                for one in ready
                if one in self._held
            ]
            return News([], self._fresh("linked", linked))
        return None

    def _fresh(self, what: str, segments: list[StreamedSegment]) -> list[StreamedSegment]:
        """Return the segments that lie behind those that were sent before the job began anew."""
        fresh = [
            one
            for one in segments
            if (one.segment.start_s + one.segment.end_s) / 2 >= self._void_s[what]
        ]
        self._ends_s[what] = max(self._ends_s[what], *(one.segment.end_s for one in fresh), 0.0)
        return fresh


async def _patiently(read: Callable[P, T], *words: P.args, **options: P.kwargs) -> T:
    """Read from the database, which may be lost for a while.

    Raises:
        StorageError: it was lost for too long.
    """
    begun = time.monotonic()
    while True:
        try:
            return await run_in_threadpool(read, *words, **options)
        except StorageError:
            if time.monotonic() - begun > _PATIENCE_S:
                raise
            await asyncio.sleep(_LOOK_S * 4)


def _segment(data: dict[str, Any]) -> Segment:
    words = data.get("words")
    return Segment(
        data["speaker"],
        data["start"],
        data["end"],
        data["text"],
        data["gender"],
        Confidence(**data["confidence"]),
        None if words is None else parse_word_rows(words, NATIVE, "words"),
    )


def _labelled(streamed: StreamedSegment, label: str | None) -> StreamedSegment:
    segment = streamed.segment
    return replace(streamed, segment=replace(segment, speaker=label or segment.speaker))


def _failure(job: Job) -> RequestError:
    """Return the error of a failed job, as its server stored it."""
    error = job.error or {"message": "it was cancelled", "code": "engine_failed"}
    code = str(error.get("code"))
    status = ERRORS[code][0] if code in ERRORS else 500
    return RequestError(status, str(error.get("message")), code=code, param=error.get("param"))
