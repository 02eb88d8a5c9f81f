"""A row: one recording of a source, as the listing keeps it."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..formats import as_json

BYTES_PER_S = 32_000
"""Bytes in a second of a recording whose duration is not known (assumed: 16 kHz, 16 bits)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A recording, or a stretch of one.

    Attributes:
        number: place in the source, from 0; results are in this order.
        path: absolute path, or address in a bucket.
        name: of the transcript's files; no two rows that are transcribed have one name.
        recording: id of the recording, where the source has ids; else its name.
        start_s: where the stretch starts.
        duration_s: of the stretch or recording as the source gives it, else as the file says; `None` where
            it is not known.
        stretch: whether it may be less than the file: the source gives an offset, a duration or a channel.
        channel: 0-based channel to listen to, where the source names one.
        size: of the file in bytes; 0 where there is none.
        version: changes when the file changes.
        fault: why there is nothing to transcribe; empty for other rows.
    """

    number: int
    path: str
    name: str
    recording: str
    start_s: float = 0.0
    duration_s: float | None = None
    stretch: bool = False
    channel: int | None = None
    size: int = 0
    version: str = ""
    fault: str = ""

    @property
    def weight_s(self) -> float:
        """Seconds of work, at least roughly; 0 where there is nothing to do."""
        if self.fault:
            return 0.0
        return self.size / BYTES_PER_S if self.duration_s is None else self.duration_s

    def to_line(self) -> str:
        """Return JSON on one line, without fields that have their defaults."""
        row = asdict(self)
        return as_json({k: v for k, v in row.items() if k in _ALWAYS or v != _DEFAULTS[k]})

    @classmethod
    def from_line(cls, line: str) -> "Row":
        """Read a line of `to_line`; raise `ValueError` or `TypeError` for other text."""
        return cls(**json.loads(line))


_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Row)}
_ALWAYS = ("number", "path", "name", "recording")
