"""Applies a function to many items in several processes; results come in order, as in one process.

Processes are spawned: the function must be one of a module, and a script that asks for more than one process
must keep its own statements behind `if __name__ == "__main__":`.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from ..errors import DataError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_LOOK_S = 0.5
"""Interval at which an interrupt is looked for: one that a library's thread took wakes nobody."""


def each(
    function: Callable[[_Item], _Result], items: Sequence[_Item], jobs: int
) -> Iterator[_Result]:
    """Yield the results for each item, in order; with `jobs` above 1 from as many processes.

    An error of an item, an interrupt, SIGTERM and the death of this process end the processes.

    Raises:
        DataError: a process died; errors of the function as they are.
    """
    jobs = min(jobs, len(items))
    if jobs < 2:
        yield from map(function, items)
        return
    spawning = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, spawning, initializer=_begin)
    try:
        with _ends_in_order():
            with _interrupts_later():
                futures = [pool.submit(function, item) for item in items]
            # Not `pool.map`: it cancels what is left, and on cancelled futures a broken pool hangs (3.11).
            for future in futures:
                while not wait([future], timeout=_LOOK_S).done:
                    pass
                yield future.result()
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise DataError(
                "a process of scoring was ended from outside, perhaps for its memory: use one"
                " process (--jobs 1)"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Let SIGTERM end this process by an exception, so that the pool is shut down.

    Otherwise multiprocessing warns on standard error of semaphores that were left.
    """

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold interrupts back; processes that are spawned meanwhile begin so, too."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Begin a worker that leaves interrupts, which reach both, to its parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
