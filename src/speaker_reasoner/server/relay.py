"""A recording that a connection waits for, transcribed by another server: followed through the database."""

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
from .runs import News, ToldSegment, relabelled
from .schemas import ERRORS
from .shared import SharedStore

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_S = 0.25
_PATIENCE_S = 60.0
"""How long the database, or every worker, may be gone before a client is told; assumed, as is how often it looks."""


class RelayedRun:
    """A job that another server works on, as `RequestRun` tells of its own.

    Args:
        store: of the job.
        job: accepted, with this server as its waiter.
        nobody: why nobody works on a job, in words, if nobody does.
    """

    def __init__(self, store: SharedStore, job: Job, nobody: Callable[[Job], str | None]) -> None:
        self._store = store
        self._job = job
        self._nobody = nobody
        self._reader = store.event_reader(job)
        self._held: dict[str, ToldSegment] = {}
        self._chunks: dict[str, int] = {}

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
                    yield News([], relabelled(list(self._held.values()), transcript.segments))
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
        """Let go of the job, and of its files: nobody asks for it any more."""
        try:
            self._store.cancel(self._job)
            self._store.erase(self._job)
        except StorageError:
            pass  # it is done by `finish_erasing` when this server is gone

    def _look(self) -> tuple[list[News], Job]:
        """Read the new events, and the job as it was before them."""
        job = self._store.get(self._job.id, removed=True)
        if job is None:
            raise RequestError(503, "the recording was deleted", code="engine_failed")
        news = [one for event in self._reader.new() if (one := self._of(event.name, event.data))]
        return news, job

    def _of(self, name: str, data: dict[str, Any]) -> News | None:
        if name == "segment" and data["turn"] is not None:
            streamed = ToldSegment(int(data["id"]), _segment(data), data["overlap"])
            if data["chunk"] == 0:
                return News([streamed], [streamed])
            self._held[data["id"]] = streamed
            self._chunks[data["id"]] = data["chunk"]
            return News([streamed], [])
        if name == ANEW:
            self._held.clear()
            self._chunks.clear()
        if name == "linked":
            ready = [one for one, chunk in self._chunks.items() if chunk == data["chunk"]]
            linked = [self._held.pop(one) for one in ready if one in self._held]
            return News([], [_labelled(one, data["labels"]) for one in linked])
        return None


async def _patiently(read: Callable[P, T], *words: P.args, **options: P.kwargs) -> T:
    """Read from the database, which may be gone for a while.

    Raises:
        StorageError: it was for too long.
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


def _labelled(streamed: ToldSegment, labels: dict[str, str]) -> ToldSegment:
    label = labels.get(str(streamed.number), streamed.segment.speaker)
    return replace(streamed, segment=replace(streamed.segment, speaker=label))


def _failure(job: Job) -> RequestError:
    """Why a job came to nothing, as its server said it."""
    error = job.error or {"message": "it was cancelled", "code": "engine_failed"}
    code = str(error.get("code"))
    status = ERRORS[code][0] if code in ERRORS else 500
    return RequestError(status, str(error.get("message")), code=code, param=error.get("param"))
