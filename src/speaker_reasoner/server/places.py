"""The bound of the queue: how many recordings may wait, those whose upload is under way included."""

import threading
from collections.abc import Callable

from .failures import RequestError


class Place:
    """A place in the queue, held while a recording is still on its way in."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give the place back; once is enough."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Places:
    """Places in the queue.

    Args:
        most: recordings that may wait.
        waiting: how many do.
        pace_s: seconds after which a place may be free.
    """

    def __init__(
        self, most: int, waiting: Callable[[], int], pace_s: Callable[[], int] = lambda: 5
    ) -> None:
        self._most = most
        self._waiting = waiting
        self._pace_s = pace_s
        self._coming = 0
        self._changed = threading.Lock()
        self._closed = False

    def reserve(self) -> Place:
        """Take a place for a recording that is about to come in.

        Raises:
            RequestError: 429 with the seconds after which a place may be free; 503 while stopping.
        """
        waiting = self._waiting()
        with self._changed:
            if self._closed:
                raise RequestError(
                    503,
                    "the server is stopping; send the request again soon",
                    code="server_stopping",
                    headers={"Retry-After": "10"},
                )
            if self._coming + waiting >= self._most:
                raise RequestError(
                    429,
                    f"{self._most} recordings wait already; try again later",
                    code="queue_full",
                    headers={"Retry-After": str(self._pace_s())},
                )
            self._coming += 1
        return Place(self._came)

    def close(self) -> None:
        """Give none any more; safe in a signal."""
        self._closed = True

    def _came(self) -> None:
        with self._changed:
            self._coming -= 1
