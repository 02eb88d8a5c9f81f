"""Timing of requests: a limit of requests a minute, and repeated attempts after growing pauses."""

import random
import threading
import time
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from ..engines.client import Unavailable
from .base import Answer

_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGEST_ASKED_S = 1.0, 60.0, 300.0
"""First and longest wait between attempts; the longest that a server may ask for (assumed)."""


class Pace:
    """The pace of all requests of a run, whichever thread sends them.

    Args:
        rate: most requests a minute; any number if `None`.
        retries: how often a request that fails is tried again.
        ended: set when the run ends: nothing is waited for any more.
    """

    def __init__(self, rate: float | None, retries: int, ended: threading.Event) -> None:
        self._apart_s = 0.0 if rate is None else 60.0 / rate
        self._retries = retries
        self._ended = ended
        self._next_s = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the next request may go."""
        if not self._apart_s:
            return
        with self._lock:
            now_s = time.monotonic()
            at_s = max(now_s, self._next_s)
            self._next_s = at_s + self._apart_s
        self._ended.wait(at_s - now_s)

    def tried(self, once: Callable[[], Answer]) -> Answer:
        """An answer, after back-off with jitter where it is not there yet.

        Raises:
            Unavailable: it is not there after all attempts, or the server asks to wait too long.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=self._is_over,
            wait=_wait_s,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(once)

    def _sleep(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def _is_over(self, state: RetryCallState) -> bool:
        """Return whether nothing is tried again: tried often enough, asked to wait too long, or the run ends."""
        asked_s = _asked_s(state)
        patient = asked_s is None or asked_s <= _LONGEST_ASKED_S
        return state.attempt_number > self._retries or not patient or self._ended.is_set()


def _asked_s(state: RetryCallState) -> float | None:
    """Return how long the server asks to wait."""
    error = state.outcome.exception() if state.outcome is not None else None
    return error.wait_s if isinstance(error, Unavailable) else None


def _wait_s(state: RetryCallState) -> float:
    """Return the pause that the server asks for plus jitter, or one that doubles, half of it random; in seconds."""
    asked_s = _asked_s(state)
    longest_s = min(_FIRST_WAIT_S * 2 ** (state.attempt_number - 1), _LONGEST_WAIT_S)
    jitter_s = random.uniform(0.0, longest_s / 2)
    return longest_s / 2 + jitter_s if asked_s is None else asked_s + jitter_s
