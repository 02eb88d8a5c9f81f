"""Transcribe a data set for evaluation: in pieces or as a whole, resumable, with its speed.

A data set is a manifest: JSON lines with `audio` and `reference` (paths relative to the manifest, or
absolute), and `name` where the reference file holds several sessions. Or it is a folder where each
recording has its reference beside it, under the same stem.

Transcripts are kept in the output folder as they come, and what is finished of those under way: see
`longform.batch`. The settings of a run are kept beside them: another model, other settings or another
data set is another run.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from .. import audio
from ..engines.base import Engine
from ..errors import DataError
from ..formats import read, write_text_atomically
from ..formats.folders import SUFFIXES, beside, load
from ..formats.pieces import cut
from ..longform import Batch, Failure, Item, Options
from ..longform.channels import SEPARATE
from ..longform.journal import fingerprint
from ..systems.asking import Asking, How, reason_of
from ..systems.base import System
from ..transcript import Transcript
from .directives import read_uem, with_uem

_Sessions = Callable[[Path], dict[str, Transcript]]


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """One recording of a data set: its audio, and its reference."""

    audio: Path
    reference: Transcript


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A unit of transcription: a recording, or a piece of one.

    Attributes:
        item: the recording.
        start_s: where the unit starts in it.
        reference: of the unit, its times counted from its start.
    """

    item: EvaluationItem
    start_s: float
    reference: Transcript


def read_data(path: Path) -> list[EvaluationItem]:
    """Read a manifest, or a folder of recordings with their references.

    Raises:
        DataError: an entry is not readable, a file is missing, or a name comes twice.
    """
    sessions = cache(load)  # one reference file may serve many lines
    items = list(_from_folder(path, sessions) if path.is_dir() else _from_manifest(path, sessions))
    if not items:
        raise DataError(f"{path}: holds no recordings with references")
    seen: dict[str, Path] = {}
    for item in items:
        name = item.reference.recording
        if name in seen:
            raise DataError(
                f"{path}: the name {name!r} comes twice: {seen[name]} and {item.audio}; "
                "names must be unique"
            )
        seen[name] = item.audio
    return items


def _from_folder(folder: Path, sessions: _Sessions) -> Iterator[EvaluationItem]:
    for sound in sorted(p for p in folder.iterdir() if p.suffix.lower() in audio.SUFFIXES):
        reference = beside(sound)
        if reference is None:
            raise DataError(
                f"{sound}: no reference beside it; expected {sound.stem} with one of "
                f"{', '.join(SUFFIXES)}"
            )
        yield _item(sound, sessions, reference, None, str(sound))


def _from_manifest(path: Path, sessions: _Sessions) -> Iterator[EvaluationItem]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a manifest: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not JSON: {error}") from error
        wanted = {"audio", "reference"}
        if not isinstance(row, dict) or not wanted <= set(row) <= {*wanted, "name"}:
            raise DataError(
                f'{where}: expected {{"audio": ..., "reference": ...}} and perhaps "name", got '
                f"{line.strip()[:80]}"
            )
        if not all(isinstance(value, str) for value in row.values()):
            raise DataError(f"{where}: audio, reference and name must be text")
        folder = path.parent
        sound, reference = folder / row["audio"], folder / row["reference"]
        yield _item(sound, sessions, reference, row.get("name"), where)


def _item(
    sound: Path, load_sessions: _Sessions, reference: Path, name: str | None, where: str
) -> EvaluationItem:
    for file in (sound, reference):
        if not file.exists():
            raise DataError(f"{where}: {file} does not exist")
    sessions = load_sessions(reference)
    if name is None and len(sessions) > 1:
        name = sound.stem
    if name is None:
        [session] = sessions.values()
    elif name in sessions:
        session = sessions[name]
    else:
        raise DataError(
            f"{where}: {reference} holds no session {name!r}; it holds {', '.join(sessions)[:200]}"
        )
    duration_s = audio.probe(sound).duration_s
    if session.segments and session.segments[-1].start_s > duration_s:
        raise DataError(
            f"{where}: the reference goes on after the end of {sound} ({duration_s:.2f} s); are they "
            "of the same recording?"
        )
    return EvaluationItem(sound, replace(session, duration_s=max(duration_s, session.duration_s)))


def marked(items: Iterable[EvaluationItem], uem: Path) -> tuple[list[EvaluationItem], list[str]]:
    """Take stretches that a UEM does not list out of scoring, as `with_uem`; it names recordings, not their pieces.

    Raises:
        FormatError: as `read_uem`.
    """
    rows = list(items)
    references = {item.reference.recording: item.reference for item in rows}
    references, notes = with_uem(references, read_uem(uem))
    return [replace(item, reference=references[item.reference.recording]) for item in rows], notes


def units(
    items: Iterable[EvaluationItem], pieces_s: tuple[float, float] | None
) -> tuple[list[Excerpt], int]:
    """List the units of transcription, and count the segments that a cut goes through.

    Args:
        items: the data set.
        pieces_s: shortest and longest piece in seconds; whole recordings if `None`.
    """
    rows: list[Excerpt] = []
    clipped = 0
    for item in items:
        if pieces_s is None:
            rows.append(Excerpt(item, 0.0, item.reference))
            continue
        for piece in cut(item.reference, *pieces_s):
            rows.append(Excerpt(item, piece.start_s, piece.transcript))
            clipped += piece.clipped
    return rows, clipped


def transcribe(
    engine: Engine, rows: list[Excerpt], folder: Path, options: Options
) -> dict[str, Any]:
    """Transcribe the units that are not yet in `folder/hypotheses`, one JSON file a unit.

    Returns:
        `speed`, what was measured over all calls: seconds of audio, wall time, turns, tokens, time by stage;
        and of this call `failures`, `{name: {"reason", "message"}}`, and `notes`, `{name: message}`.

    Raises:
        DataError: the folder holds another run.
        OutputError: a file cannot be written.
    """
    transcriber = options.transcriber(engine)
    voices = options.enrolled(transcriber)
    hints: dict[str, Any] = {"speakers": options.speakers, "voices": voices}
    about = transcriber.about({}, **hints)
    settings = about.pop("settings")
    del about["file"]  # the data stand for all files
    _check_same(folder / "run.json", {**about, "data": _digest(rows), **settings})
    failures: dict[str, dict[str, str]] = {}
    notes: dict[str, str] = {}
    items = _items(rows, options)
    with (
        Batch(transcriber, folder / "hypotheses", ["json"], **hints) as batch,
        Progress(transient=True) as progress,
    ):
        bar = progress.add_task("transcribing", total=len(rows))
        for result in batch.run(items):
            name = result.item.title
            if isinstance(result.outcome, Failure):
                failures[name] = _failure(result.outcome)
            elif result.partial:
                failures[name] = {"reason": "unavailable", "message": result.note}
            elif result.note:
                notes[name] = result.note
            progress.advance(bar)
        return {"speed": _speed(batch, items), "failures": failures, "notes": notes}


def ask(system: System, rows: list[Excerpt], folder: Path, how: How) -> dict[str, Any]:
    """Have another system transcribe the units that it has not yet, one JSON file a unit in `folder/hypotheses`.

    Returns:
        As `transcribe`, and `usage`: the sums of requests, pieces and what the answers say of themselves. The
        wall time is that of all requests together, however many were under way at once.

    Raises:
        DataError: the folder holds another run.
        OutputError: a file cannot be written.
        EngineError, SettingsError: the system can answer no recording.
    """
    about = {name: value for name, value in system.describe().items() if name != "sdk"}
    run = {"system": system.name, "asked": about, **how.to_json(), "data": _digest(rows)}
    _check_same(folder / "run.json", run)
    failures: dict[str, dict[str, str]] = {}
    notes: dict[str, str] = {}
    usage: dict[str, float] = {}
    items = _items(rows, Options(channel=how.channel, track=how.track))
    with (
        Asking(system, folder / "hypotheses", how, ["json"]) as asking,
        Progress(transient=True) as progress,
    ):
        bar = progress.add_task(f"asking {system.name}", total=len(rows))
        for result in asking.run(items):
            if isinstance(result.outcome, Failure):
                failures[result.item.title] = _failure(result.outcome)
            if result.note:
                notes[result.item.title] = result.note
            for name, value in result.usage.items():
                usage[name] = round(usage.get(name, 0) + value, 3)
            progress.advance(bar)
    audio_s, wall_s = usage.get("audio_s", 0.0), usage.pop("asked_s", 0.0)
    speed = {
        "audio_s": audio_s,
        "wall_s": wall_s,
        "real_time_factor": round(wall_s / audio_s, 4) if audio_s else None,
    }
    return {"speed": speed, "failures": failures, "notes": notes, "usage": usage}


def _failure(failure: Failure) -> dict[str, str]:
    return {"reason": reason_of(failure.error), "message": str(failure.error)}


def hypotheses(folder: Path) -> dict[str, Transcript]:
    """The transcripts that a run has written so far."""
    return {
        transcript.recording: transcript
        for path in sorted((folder / "hypotheses").glob("*.json"))
        for transcript in read(path)
    }


def _speed(batch: Batch, items: Iterable[Item]) -> dict[str, Any]:
    """The measurements of all finished units."""
    names = ("audio_s", "wall_s", "turns", "tokens")
    values: dict[str, Any] = {"audio_s": 0.0, "wall_s": 0.0, "turns": 0, "tokens": 0, "stage_s": {}}
    for one in filter(None, map(batch.measured, items)):
        values |= {name: round(values[name] + one[name], 3) for name in names}
        for stage, seconds in one["stage_s"].items():
            values["stage_s"][stage] = round(values["stage_s"].get(stage, 0.0) + seconds, 3)
    audio_s, wall_s = values["audio_s"], values["wall_s"]
    values["real_time_factor"] = round(wall_s / audio_s, 4) if audio_s else None
    values["turns_per_minute"] = round(60 * values["turns"] / wall_s, 1) if wall_s else None
    return values


def _check_same(path: Path, settings: dict[str, Any]) -> None:
    """Check that a folder's run is this one; the first run writes its settings there.

    Raises:
        DataError: it is another.
        OutputError: it cannot be written.
    """
    about = json.loads(json.dumps(settings))
    if not path.exists():
        write_text_atomically(path, json.dumps({"settings": about}, indent=2) + "\n")
        return
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no settings of a run that can be read ({error}); choose another -o, or delete the folder"
        ) from error
    differs = [key for key, value in about.items() if stored.get(key) != value]
    if differs:
        raise DataError(
            f"{path.parent}: holds another run (other {', '.join(differs)}); choose another -o, or "
            "delete it"
        )


def _digest(rows: list[Excerpt]) -> str:
    """The identity of a data set: a digest of its names, times and words."""
    digest = hashlib.sha256()
    for row in rows:
        said = [(s.speaker, s.start_s, s.end_s, s.text) for s in row.reference.segments]
        key = (row.reference.recording, row.start_s, row.reference.duration_s, said)
        digest.update(repr(key).encode())
    return digest.hexdigest()[:16]


def _items(rows: Iterable[Excerpt], options: Options) -> list[Item]:
    """The units as recordings; pieces are cut from the decoded recording when they are wanted."""
    source = cache(fingerprint)

    one_at_a_time = threading.Lock()  # or each thread of a system would decode it

    def load(path: Path) -> audio.Samples:
        with one_at_a_time:
            return decoded(path)

    @lru_cache(maxsize=1)  # pieces of a recording follow each other
    def decoded(path: Path) -> audio.Samples:
        if options.channels == SEPARATE:
            channels = range(audio.channel_count(path, track=options.track))
            return np.stack([audio.load(path, channel=n, track=options.track) for n in channels])
        return audio.load(path, channel=options.channel, track=options.track)

    def item(row: Excerpt) -> Item:
        name, path = row.reference.recording, row.item.audio
        if row.start_s == 0.0 and row.reference is row.item.reference:
            return Item(path, name, source=lambda: source(path))
        start = audio.to_samples(row.start_s)
        end = start + audio.to_samples(row.reference.duration_s)
        return Item(
            path,
            name,
            source=lambda: {**source(path), "samples": [start, end]},
            samples=lambda: load(path)[..., start:end],
        )

    return [item(row) for row in rows]
