"""An engine without a model, for runs in other processes: `PYTHONPATH=. python -m tests.simulated ...` is the
command line with it in place of any model.

`SIMULATED_S` is how long a turn takes, `SIMULATED_POISON` the size of a chunk, in tenths of a second, at which the
process dies, `SIMULATED_ERROR` why the engine cannot be loaded, `SIMULATED_FAILURE` why it fails at its first turn.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.cli import main
from speaker_reasoner.engines import Reply, Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import CheckpointError, EngineError
from speaker_reasoner.speech import Detect

from .talk import PROFILE, play


class Simulated(ScriptedEngine):
    def __init__(self) -> None:
        super().__init__(play, PROFILE)
        self._turn_s = float(os.environ.get("SIMULATED_S", "0"))
        self._poison = int(os.environ.get("SIMULATED_POISON", "-1"))

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        time.sleep(self._turn_s)
        if reason := os.environ.get("SIMULATED_FAILURE"):
            raise EngineError(reason)
        if any(request.rules.chunk == self._poison for request in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        replies = super().ask(requests)
        self.requests.clear()
        return replies

    def detector(self, name: str) -> Detect:
        """Everything is speech."""
        return lambda samples: [(0.0, len(samples) / SAMPLE_RATE_HZ)]


def load(chosen: dict[str, Any], **_: bool) -> Simulated:
    if reason := os.environ.get("SIMULATED_ERROR"):
        raise CheckpointError(reason)
    return Simulated()


if __name__ == "__main__":
    from tests import simulated  # by its name, for other processes

    with (
        patch("speaker_reasoner.commands.batch.load_silently", simulated.load),
        patch("speaker_reasoner.commands.serve.load_quietly", lambda _: simulated.load({})),
    ):
        sys.exit(main())
