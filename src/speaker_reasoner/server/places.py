"""Limit of the queue: number of waiting recordings of a client, uploads under way included."""

import threading
from collections import Counter
from collections.abc import Callable

from .failures import RequestError


class Place:
    """A place in the queue, held while a recording is being uploaded."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give the place back; further calls do nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Places:
    """Places in the queue; each client has its own, so that none keeps others out.

    Args:
        most: recordings of a client that may wait.
        waiting: returns how many recordings of a client wait.
        pace_s: returns the seconds after which a place may be free.
    """

    def __init__(
        self, most: int, waiting: Callable[[str], int], pace_s: Callable[[], int] = lambda: 5
    ) -> None:
        self._most = most
        self._waiting = waiting
        self._pace_s = pace_s
        self._coming: Counter[str] = Counter()
        self._changed = threading.Lock()
        self._closed = False

    def reserve(self, client: str) -> Place:
        """Take a place for a recording of a client that is about to be uploaded.

        Raises:
            RequestError: 429 with the seconds after which a place may be free; 503 while stopping.
            StorageError: as `waiting` raises it.
        """
        with self._changed:
            if self._closed:
                raise RequestError(
                    503,
                    "the server is stopping; send the request again soon",
                    code="server_stopping",
                    headers={"Retry-After": "10"},
                )
            self._coming[client] += 1
            coming = self._coming[client]
        place = Place(lambda: self._came(client))
        try:  # counted after those that come in, so that one that begins to wait now is not missed
            if coming + self._waiting(client) > self._most:
                raise RequestError(
                    429,
                    f"{self._most} recordings of this client wait already; try again later",
                    code="queue_full",
                    headers={"Retry-After": str(self._pace_s())},
                )
        except BaseException:
            place.release()
            raise
        return place

    def close(self) -> None:
        """Give no more places; may be called in a signal handler."""
        self._closed = True

    def _came(self, client: str) -> None:
        with self._changed:
            self._coming -= Counter((client,))  # drops what is 0
