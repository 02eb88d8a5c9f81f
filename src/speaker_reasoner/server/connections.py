"""Work for a client who waits for its answer: it ends when the client hangs up."""

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
    """Do work as long as the client is there.

    Args:
        abandon: called where the work is given up.
        answer_s: how long it may take.

    Raises:
        ClientDisconnect: it hung up; the work was abandoned.
        RequestError: 504, the work took longer than a request may.
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
    """Wait until the client hangs up, after its body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
