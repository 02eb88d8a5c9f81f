"""Work for a client with an open connection: it is cancelled when the client disconnects."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from .failures import too_slow

T = TypeVar("T")


async def connected(
    request: Request, work: Awaitable[T], abandon: Callable[[], None], answer_s: float
) -> T:
    """Do work as long as the client is connected.

    Args:
        abandon: called when the work is cancelled.
        answer_s: its time limit.

    Raises:
        ClientDisconnect: the client disconnected; the work was abandoned.
        RequestError: 504, the work exceeded its time limit.
    """
    gone = asyncio.ensure_future(_gone(request))
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((gone, task), timeout=answer_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        abandon()
        if gone.done():
            raise ClientDisconnect
        raise too_slow()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(gone, task, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Wait, after a request's body was read, until the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
