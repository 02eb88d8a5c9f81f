"""The stored transcripts of a job: the model's, and the corrected one."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..formats import render
from ..formats.native import parse_json
from ..transcript import Transcript
from .corrections import History, replay
from .jobs import Job, undamaged
from .lines import CorrectedLine, Document, chunk_at
from .store import Store


def keep_document(
    store: Store, job: Job, transcript: Transcript, lines: Sequence[CorrectedLine]
) -> None:
    """Write the transcript of a job, and which of its lines were sent under which id.

    Raises:
        OutputError, StorageError: the disk is full, the database out of reach, or the job another process's.
    """
    rows = [[line.id, line.chunk, line.turn] for line in lines]
    store.keep_document(job, render(transcript, "json"), json.dumps(rows))


def load_document(store: Store, job: Job) -> tuple[Document, History]:
    """A job's document with its corrections, and their history.

    Raises:
        RequestError: 500, the transcript or a correction is damaged.
    """
    original, operations = load_original(store, job), store.corrections(job)
    with undamaged(job, "a correction"):
        return replay(original, operations)


def load_original(store: Store, job: Job) -> Document:
    """Load a job's document as the model left it.

    Raises:
        RequestError: 500, it is damaged.
    """
    with undamaged(job, "the transcript"):
        return _read(*store.document(job))


@lru_cache(maxsize=2)
def _read(transcript: str, identified: str) -> Document:
    """Read a document that `keep_document` wrote. The last two are cached: each correction of a long one reads it.

    Raises:
        FormatError, ValueError: it is damaged.
    """
    [read] = parse_json(transcript, "the transcript")
    rows = json.loads(identified)
    lines = [
        CorrectedLine(line_id, segment, chunk, turn)
        for (line_id, chunk, turn), segment in zip(rows, read.segments, strict=True)
    ]
    return Document(read, tuple(lines))


def identify(
    transcript: Transcript, events: Sequence[dict[str, Any]], prefix: str
) -> tuple[list[CorrectedLine], dict[str, str]]:
    """Return the segments of a transcript with the ids under which they were sent, and changed labels by id.

    A segment that was not sent gets an id of its own, and the last chunk that starts before it.
    """
    waiting: dict[tuple[float, float, str], list[dict[str, Any]]] = {}
    for row in events:
        waiting.setdefault((row["start"], row["end"], row["text"]), []).append(row)
    lines, labels, unsent = [], dict[str, str](), 0
    for segment in transcript.segments:
        rows = waiting.get((segment.start_s, segment.end_s, segment.text), [])
        same = [row for row in rows if row["speaker"] == segment.speaker]
        if rows:
            row = (same or rows)[0]
            rows.remove(row)
            lines.append(CorrectedLine(row["id"], segment, row["chunk"], row["turn"]))
            if not same:
                labels[row["id"]] = segment.speaker
        else:
            chunk = chunk_at(transcript, segment.start_s, segment.speaker)
            lines.append(CorrectedLine(f"{prefix}x{unsent}", segment, chunk, None))
            unsent += 1
    return lines, labels
