"""The log of a run: rows of `log.jsonl`, which accelerate's trackers get too."""

import json
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..formats import write_text_atomically


class Log:
    """Rows of `log.jsonl`, and the same to the trackers; the main process alone writes.

    Args:
        path: of the file; all stages of a run share it.
        stage: name of the stage.
    """

    def __init__(self, path: Path, stage: str, accelerator: Any) -> None:
        self.path = path
        self.stage = stage
        self.accelerator = accelerator

    def cut(self, step: int) -> None:
        """Remove the stage's rows after a step, because a resumed run repeats those steps."""
        if not self.accelerator.is_main_process or not self.path.exists():
            return
        rows = self.path.read_text(encoding="utf-8").splitlines()
        kept = [row for row in rows if not self._after(row, step)]
        if len(kept) < len(rows):
            write_text_atomically(self.path, "".join(row + "\n" for row in kept))

    def _after(self, row: str, step: int) -> bool:
        try:
            values = json.loads(row)
        except json.JSONDecodeError:  # a row that a kill cut off
            return True
        return bool(values.get("stage") == self.stage and values.get("step", 0) > step)

    def write(self, step: int, values: dict[str, float], kind: str | None = None) -> None:
        """Append a row; those of a `kind` are nested under its name.

        Raises:
            OutputError: it cannot be written.
        """
        self.accelerator.log(
            {f"{self.stage}/{kind or 'train'}/{k}": v for k, v in values.items()}, step=step
        )
        if not self.accelerator.is_main_process:
            return
        rounded = {k: float(f"{v:.6g}") for k, v in values.items()}
        row = {"stage": self.stage, "step": step}
        row |= {kind: rounded} if kind else rounded
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written: {error.strerror}; is the disk full? The run goes on "
                "from its last save when it is started again"
            ) from error
