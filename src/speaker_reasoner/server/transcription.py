"""A request's recording under way, as the route that answers it sees it."""

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
"""A stream is never silent for longer, so that nothing between takes it for dead."""


class Transcription:
    """A request's recording under way; whoever answers it closes it.

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
        """The whole of it."""
        return self._noted(await self._run.transcript())

    def _noted(self, transcript: Transcript) -> Transcript:
        """A transcript that also says what of the request was without effect."""
        said = (*self._said, *language_warnings(transcript, self.form))
        return replace(transcript, warnings=(*transcript.warnings, *said))

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events; a failure is the last of them."""
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
        """Let go of the recording, whatever became of it."""
        self._stack.close()
