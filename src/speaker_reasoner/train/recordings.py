"""Checks the recordings of prepared pieces before a run begins.

Each recording is opened once and judged by its header. It is decoded only where the header states no length, or
less than a piece needs, because lengths in containers leave out what a codec adds, and are rounded at other sample
rates. Damage behind the header is an error when the piece is drawn.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ..audio import load_slice, probe, to_samples
from ..data.corpora import CorpusPiece
from ..data.corpora.notes import Notes
from ..errors import AudioError


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason pieces of a recording cannot be used.

    Attributes:
        reason: the reason they are counted under.
        whole_samples: readable samples at 16 kHz; pieces that end later cannot be used.
    """

    reason: str
    whole_samples: int = 0


def find_faults(
    pieces: Iterable[CorpusPiece], notes: Notes, *, shown: bool = False
) -> dict[Path, Fault]:
    """Check the recording of every piece.

    Args:
        notes: receives the faulty recordings, by reason.
        shown: show the progress.

    Returns:
        The faults by recording.

    Raises:
        DataError: there is one, and the notes are strict.
    """
    ends: dict[Path, set[int]] = defaultdict(set)
    for piece in pieces:
        ends[piece.audio].add(piece.end_samples)
    console = Console(stderr=True)
    rows = track(ends.items(), "audio", console=console, transient=True, disable=not shown)
    faults: dict[Path, Fault] = {}
    for path, taken in rows:
        fault = _look(path, sorted(taken))
        if fault is not None:
            faults[path], message = fault
            notes.drop(faults[path].reason, message)
    return faults


def _look(path: Path, ends: Sequence[int]) -> tuple[Fault, str] | None:
    """The fault of a recording whose pieces end at these samples, and its message."""
    try:
        whole = to_samples(probe(path).duration_s)
    except AudioError as error:
        gone = isinstance(error.__cause__, FileNotFoundError)
        return Fault("audio missing" if gone else "audio broken"), str(error)
    for end in ends:
        if end <= whole:
            continue
        try:
            load_slice(path, whole, end)
        except AudioError as error:
            return Fault("audio shorter than the piece", whole), str(error)
        whole = end
    return None
