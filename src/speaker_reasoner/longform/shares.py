"""Shares of a long recording, which several processes transcribe at once.

A chunk belongs to the share in which it starts. Each process cuts the recording from its beginning, so that
the chunks are those of a whole run, and transcribes those of its share. The chunks of all shares, one after the
other, are the journal of the recording: the rest of a whole run takes them from there, links the speakers and
writes the transcript. A transcript is the same in shares and as a whole.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..audio import to_samples
from ..formats import as_json, write_text_atomically
from .chunks import Chunk
from .journal import NOTICES, Journal, OtherJournal


@dataclass(frozen=True, slots=True)
class Share:
    """The chunks of a recording that start in `[start_samples, end_samples)`.

    Attributes:
        number: of the share, from 0.
        end_samples: `None` for the last share.
    """

    number: int
    start_samples: int
    end_samples: int | None

    def until(self, source: Iterator[Chunk]) -> Iterator[Chunk]:
        """The chunks up to the end of the share, those before it included."""
        for chunk in source:
            if self.end_samples is not None and chunk.start_samples >= self.end_samples:
                return
            yield chunk


def shares(duration_s: float, share_s: float) -> list[Share]:
    """The shares of a recording: as many of `share_s` as fit, the last one is longer by the rest.

    One share is the whole recording.
    """
    count = max(1, int(duration_s // share_s))
    starts = [to_samples(share_s * number) for number in range(count)]
    ends = [*starts[1:], None]
    return [
        Share(number, start, end)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def join(paths: Sequence[Path], journal: Path, about: Mapping[str, Any]) -> None:
    """Add the finished chunks of shares to the journal of their recording.

    Shares that are missing, or about something else, are left to transcribe. Where all are there, the journal
    ends with what the reader noticed, and the recording need not be read again. A journal that holds all of
    them already stays as it is.

    Args:
        paths: of the shares, in order.
        journal: of the recording.
        about: as for `Journal`.

    Raises:
        OutputError: it cannot be written.
    """
    before = _rows(journal, about)
    rows = {} if before is None else {row["start_samples"]: row for row in before[1]}
    head, held = None if before is None else before[0].about, len(rows)
    elapsed_s, share_s = (0.0, 0.0) if before is None else (before[0].elapsed_s, before[0].share_s)
    notices: list[str] | None = None
    missing = 0
    for path in paths:
        share = _rows(path, about)
        if share is None:
            missing += 1
            continue
        kept, chunks = share
        head, notices = kept.about, kept.notices  # those of the last share count
        for row in chunks:
            row["elapsed_s"] = round(elapsed_s + row["elapsed_s"], 3)
            row["share_s"] = round(share_s + row["share_s"], 3)
            rows.setdefault(row["start_samples"], row)
        elapsed_s, share_s = elapsed_s + kept.elapsed_s, share_s + kept.share_s
    if head is not None and len(rows) > held:
        ends = [] if missing or notices is None else [{NOTICES: notices}]
        text = "".join(as_json(row) + "\n" for row in (head, *rows.values(), *ends))
        write_text_atomically(journal, text)


def _rows(path: Path, about: Mapping[str, Any]) -> tuple[Journal, list[dict[str, Any]]] | None:
    """Return a journal and the rows of its chunks; `None` if it is missing or about something else."""
    try:
        kept = Journal(path, about)
        lines = path.read_text(encoding="utf-8").split("\n")[1:-1]  # no other ends of lines
    except (OtherJournal, OSError):
        return None
    return kept, [row for row in map(json.loads, lines) if NOTICES not in row]
