"""Functions that processes of scoring run in tests; a module of its own, so that they import nothing else."""

import os
import time

from speaker_reasoner.errors import FormatError


def slow(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def fails(number: int) -> int:
    if number == 1:
        raise FormatError("the second of them")
    return number


def dies(number: int) -> int:
    os._exit(number)


def waits(number: int) -> None:
    os.write(2, b"waits\n")  # at once: two processes write there
    time.sleep(600)
