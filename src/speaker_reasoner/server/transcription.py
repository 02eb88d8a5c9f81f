"""A request's recording under way, for the route that answers it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ..errors import SpeakerReasonerError
from ..transcript import Transcript
from .failures import as_request_error, too_slow
from .forms import TranscriptionForm
from .offers import Offer
from .openai import TranscriptStream, language_warnings, sse
from .relay import RelayedRun
from .runs import RequestRun

PING_S = 15.0
"""Longest silence of a stream, so that proxies do not close it."""


class Transcription:
    """A request's recording under way; the route that answers it closes it.

    Attributes:
        form: of the request.
        offer: the model that transcribes it.
    """

    def __init__(
        self,
        run: RequestRun | RelayedRun,
        form: TranscriptionForm,
        offer: Offer,
        said: Sequence[str],
        answer_s: float,
        stack: ExitStack,
    ) -> None:
        self.form = form
        self.offer = offer
        self._said = said
        self._run = run
        self._answer_s = answer_s
        self._stack = stack

    async def transcript(self) -> Transcript:
        """Return the whole transcript."""
        return self._noted(await self._run.transcript())

    def _noted(self, transcript: Transcript) -> Transcript:
        """Add warnings about fields of the request without effect to a transcript."""
        said = (*self._said, *language_warnings(transcript, self.form))
        return replace(transcript, warnings=(*transcript.warnings, *said))

    async def events(self) -> AsyncIterator[str]:
        """Yield server-sent events; an error is the last of them."""
        stream = TranscriptStream(self.form)
        news = aiter(self._run.news())
        until = time.monotonic() + self._answer_s
        following: asyncio.Task[Any] | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(anext(news))
                left_s = until - time.monotonic()
                done, _ = await asyncio.wait({following}, timeout=min(PING_S, max(0.0, left_s)))
                if not done and left_s <= PING_S:
                    raise too_slow()
                if not done:
                    yield ": still here\n\n"
                    continue
                item, following = following.result(), None
                if isinstance(item, Transcript):
                    yield stream.done(self._noted(item))
                    return
                for segment in item.known:
                    for event in stream.delta(segment.segment, segment.number):
                        yield event
                for segment in item.linked:
                    for event in stream.segment(segment.segment, segment.number, segment.overlap):
                        yield event
        except SpeakerReasonerError as error:
            yield sse(as_request_error(error).body(), event="error")
        finally:
            if following is not None:
                following.cancel()

    def close(self) -> None:
        """Release the recording, whether it was transcribed or not."""
        self._stack.close()
