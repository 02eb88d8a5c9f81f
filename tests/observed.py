"""`speaker-reasoner` as a process that notes what it draws, and may die: run by `test_train_resumed`.

`DRAWN` is a file to which each batch is appended: stage, step, batch of the step, names of its pieces. `DIE` is
`<stage>:<step>`, after which the process of rank `DIE_RANK`, or every process, ends at once, without a last word.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speaker_reasoner.cli import main
from speaker_reasoner.train import loop
from speaker_reasoner.train.prepared import PreparedCorpora

_draw, _batches = PreparedCorpora.draw, loop.batches


def draw(self: Any, stage: str, step: int, part: int) -> Any:
    drawn = _draw(self, stage, step, part)
    window, batch = divmod(step * self.config.run.batches_per_step + part, self.corpora.window)
    names = [one.task.piece.source.name for one in self._planned(stage, window)[batch]]
    with Path(os.environ["DRAWN"]).open("a") as file:
        file.write(json.dumps([stage, step, part, names]) + "\n")
    return drawn


def batches(task: Any, first: int, config: Any, accelerator: Any) -> Iterator[Any]:
    stage, _, last = os.environ.get("DIE", ":0").partition(":")
    mine = os.environ.get("DIE_RANK", os.environ.get("RANK", "0")) == os.environ.get("RANK", "0")
    drawn = _batches(task, first, config, accelerator)
    for step in range(first, task.schedule.steps):
        if mine and task.name == stage and step == int(last):
            os._exit(9)
        yield next(drawn)


PreparedCorpora.draw = draw  # type: ignore[method-assign]
loop.batches = batches

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
