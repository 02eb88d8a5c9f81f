"""The files of live sessions that ended with their server, beside a shared store."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import FormatError
from .failures import disk_error

ABOUT = "live.json"


@dataclass(frozen=True, slots=True)
class LeftLive:
    """The job that a live recording is to become; see `jobs.Job`. Clips of its voices are in the same folder."""

    id: str
    name: str
    speakers: str | None
    language: str | None
    client: str
    model: str | None
    voices: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write the job into a new folder.

        Raises:
            StorageError: it cannot be written.
        """
        try:
            folder.mkdir(parents=True)
            try:
                (folder / ABOUT).write_text(json.dumps(asdict(self)), encoding="utf-8")
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except OSError as error:
            raise disk_error("keep what is said", error) from error

    @classmethod
    def read(cls, folder: Path) -> "LeftLive":
        """Read a file that `write` wrote.

        Raises:
            FormatError: it is not there, or not whole.
        """
        path = folder / ABOUT
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**row, "voices": tuple(row.get("voices", ()))})
        except (OSError, ValueError, TypeError) as error:
            raise FormatError(f"{path}: expected the job of a live session: {error}") from error
