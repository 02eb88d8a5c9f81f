"""A scripted conversation, for tests of modules above the engine."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speaker_reasoner.engines import Reply, Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.longform import Failure
from speaker_reasoner.protocol import Box, Line, Overview, Profile, Turn, render_turn
from speaker_reasoner.transcript import Transcript

PROFILE = Profile(decimals=1, chunk_s=4.0, domain="whistling", word_confidence_floor=0.5)


def play(request: Request) -> str:
    """One speaker in the first half of every chunk, another in the second; two boxes, two lines."""
    rules = request.rules
    half = rules.chunk // 2
    if half == 0:
        return render_turn(Turn(overview=Overview(())), PROFILE) + "<answer>"
    first, second = Box(0, half), Box(half, rules.chunk)
    if rules.turn == 0:
        return render_turn(Turn(overview=Overview(("female", "male")), box=first), PROFILE)
    if rules.turn == 1:
        line = Line(1, "female", 0, half, "one")
        return render_turn(Turn(lines=(line,), box=second), PROFILE)
    line = Line(2, "male", half, rules.chunk, "two")
    return render_turn(Turn(lines=(line,)), PROFILE) + "<answer>"


class Killed(BaseException):
    """Ends a process as a kill does: no `except Exception` sees it."""


class Dying:
    """Makes the engine beside it in the bases die when it was asked `left` times."""

    def __init__(self, left: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.left = left

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        self.left -= 1
        if self.left < 0:
            raise Killed
        replies: list[Reply] = super().ask(requests)  # type: ignore[misc]
        return replies


class Mortal(Dying, ScriptedEngine):
    """A script that dies when it was asked `left` times."""

    def __init__(
        self, left: int, script: Callable[[Request], str] = play, profile: Profile = PROFILE
    ) -> None:
        super().__init__(left, script, profile)


def untimed(result: Transcript | Failure) -> Any:
    """A result without the times that it took, which differ from run to run."""
    if isinstance(result, Failure):
        return result.recording, type(result.error), str(result.error)
    measured = ("wall_s", "real_time_factor", "stage_s")
    return replace(result, info={k: v for k, v in result.info.items() if k not in measured})


def save(path: Path, samples: np.ndarray[Any, Any], rate_hz: int = 16_000, **options: Any) -> Path:
    soundfile.write(path, samples, rate_hz, **options)
    return path
