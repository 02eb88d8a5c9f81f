"""How many recordings of a client may wait."""

import pytest

from speaker_reasoner.server.failures import RequestError, StorageError
from speaker_reasoner.server.places import Places


def test_each_client_has_its_own_places() -> None:
    places = Places(2, {"ana": 1, "bob": 0}.__getitem__, lambda: 7)
    held = places.reserve("ana")
    with pytest.raises(RequestError) as refused:
        places.reserve("ana")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "7")
    places.reserve("bob"), places.reserve("bob")
    held.release(), held.release()
    places.reserve("ana")
    with pytest.raises(RequestError):
        places.reserve("ana")


def test_one_that_begins_to_wait_just_then_is_counted() -> None:
    queue: list[str] = []

    def waiting(client: str) -> int:
        count = queue.count(client)
        if not queue:  # it moves from those that come in to those that wait
            queue.append(client)
            coming.release()
        return count

    places = Places(1, lambda _: 0)
    coming = places.reserve("ana")
    places._waiting = waiting
    with pytest.raises(RequestError, match="1 recordings"):
        places.reserve("ana")
    queue.clear()
    places._waiting = queue.count
    places.reserve("ana")


def test_a_place_is_given_back_if_the_queue_cannot_be_counted() -> None:
    def waiting(_: str) -> int:
        raise StorageError(503, "gone", code="database_unavailable")

    places = Places(1, waiting)
    with pytest.raises(StorageError):
        places.reserve("ana")
    places._waiting = lambda _: 0
    places.reserve("ana")
    places.close()
    with pytest.raises(RequestError, match="stopping"):
        places.reserve("bob")
