"""An evaluation as one JSON object: data, settings, every count, and the command to repeat it.

    result = evaluate(pairs, Normalisation(), system="mine", data="meetings")
    save(result, "mine.json")

Tables, reports and leaderboards are made from such files alone (`tables`, `leaderboard`), or with the
transcripts they name (`report`). A recording's counts are stored with a key of what they were made
of; while that is the same, `evaluate` takes them from an earlier result instead of scoring again.
"""

import hashlib
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich import box
from rich.progress import track
from rich.table import Table

from ..errors import DataError, SpeakerReasonerError
from ..formats import as_json, write_text_atomically
from ..transcript import Transcript
from . import breakdown
from .directives import scored
from .normalisation import Normalisation
from .pairs import Pair
from .processes import each
from .resampling import by_recording, counted, interval
from .scores import COLLAR_S, CONVENTIONS, WORD_COLLAR_S, Scores, score, total
from .stored import LABELS, SCHEMA, VERSION, parse_evaluation, read_bytes

INTERVALS = ("wer", "cpwer", "der_0", "der_025")
"""Rates that get a 95 % interval over recordings."""

COLLARS_S = {"der_0": 0.0, "der_025": COLLAR_S, "tcpwer": WORD_COLLAR_S}
"""Part of every result."""

_WORTH_PROCESSES = 3000
"""Reference segments from which on scoring takes longer than starting processes."""

_SCORING = (
    *("breakdown", "counts", "directives", "normalisation", "results"),
    *("scores", "streams", "times", "words"),
)
"""Modules whose change makes stored counts worthless."""

_Row = dict[str, Any]


def evaluate(
    pairs: Sequence[Pair],
    normalisation: Normalisation,
    *,
    system: str,
    data: str,
    mode: str | None = None,
    of: Mapping[str, str] | None = None,
    warnings: Sequence[Mapping[str, str | None]] = (),
    stored: Mapping[str, Any] | None = None,
    words: bool = True,
    quiet: bool = False,
    jobs: int = 1,
) -> dict[str, Any]:
    """Score every pair and sum up.

    Args:
        pairs: reference and hypothesis of each recording.
        normalisation: of the words of both sides.
        system: name of the system that made the hypotheses.
        data: name of the data set.
        mode: `segmented` or `long-form`; `None` if unknown.
        of: by name of a piece, the recording that it was cut from.
        warnings: of the readers, as `inputs.Sides` has them.
        stored: an earlier result; counts of recordings that are the same are taken from it.
        words: whether the system gives words; those of a diarizer alone are not scored.
        quiet: no progress bar.
        jobs: processes that score (`processes.each`); few segments are scored in this one.

    Returns:
        The object that `save` writes, JSON-ready. `kept` in it is how many recordings' counts were
        taken from `stored`.

    Raises:
        DataError: there are no pairs, or a library of the `eval` extra is missing.
    """
    if not pairs:
        raise DataError("nothing to score: got no recordings")
    keys = [_key(pair, normalisation, words) for pair in pairs]
    rows_before = (stored or {}).get("recordings", ())
    known = {row.get("key"): row for row in rows_before if {"scores", "facts"} <= row.keys()}
    missing = [pair for pair, key in zip(pairs, keys, strict=True) if key not in known]
    fresh = iter(
        track(
            _measured(missing, normalisation, words, jobs),
            "scoring",
            len(missing),
            transient=True,
            disable=quiet,
        )
    )
    rows: list[_Row] = []
    for pair, key in zip(pairs, keys, strict=True):
        counts = known[key] if key in known else next(fresh)
        row = {"name": pair.name, "key": key, "duration_s": pair.duration_s, "lost": pair.lost}
        if of and of.get(pair.name, pair.name) != pair.name:
            row["of"] = of[pair.name]
        rows.append({**row, "scores": counts["scores"], "facts": counts["facts"]})
    scores = [Scores.from_json(row["scores"]) for row in rows]
    facts = [breakdown.Facts.from_json(row["facts"]) for row in rows]
    summed = total(scores)
    return {
        "schema": f"{SCHEMA}/{VERSION}",
        "system": system,
        "data": data,
        "mode": mode,
        "made": _made(),
        "settings": {
            "normalisation": normalisation.describe(),
            "collars_s": COLLARS_S,
            "conventions": {**CONVENTIONS, **breakdown.CONVENTIONS},
        },
        "reference": None,
        "hypothesis": None,
        "scores": _without_conventions(summed),
        "intervals_95": _intervals({"recordings": rows}),
        "subsets": breakdown.subsets(facts, scores),
        "calibration": breakdown.calibration(facts),
        "speed": None,
        "skipped": dict(summed.skipped),
        "warnings": [dict(row) for row in warnings],
        "lost": [pair.name for pair in pairs if pair.lost],
        "kept": len(pairs) - len(missing),
        "recordings": rows,
    }


def _intervals(result: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """95 % intervals over whole recordings, where there are several."""
    intervals = {}
    for name in INTERVALS:
        counts = by_recording(result, counted(result, name))
        if len(counts) > 1 and (bounds := interval(list(counts.values()))) is not None:
            intervals[name] = bounds
    return intervals


def _key(pair: Pair, normalisation: Normalisation, words: bool) -> str:
    """A digest of everything that the counts of a pair depend on."""
    digest = hashlib.sha256(_scoring().encode())
    digest.update(repr((sorted(normalisation.describe().items()), words)).encode())
    for side in (pair.reference, pair.hypothesis):
        digest.update(_content(side).encode())
    return digest.hexdigest()[:24]


def _content(transcript: Transcript) -> str:
    return repr((transcript.duration_s, transcript.segments, transcript.unscored))


@cache
def _scoring() -> str:
    """Digest of the program's own scoring, and of the libraries' versions."""
    from importlib import metadata

    digest = hashlib.sha256()
    for name in _SCORING:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    for library in ("meeteval", "rapidfuzz", "scipy"):
        try:
            digest.update(metadata.version(library).encode())
        except metadata.PackageNotFoundError:
            continue  # scoring without it is an error of its own
    return digest.hexdigest()


def _measure(pair: Pair, normalisation: Normalisation, words: bool) -> _Row:
    """The counts of one recording, JSON-ready."""
    scores = score(pair.reference, pair.hypothesis, normalisation, words=words)
    reference, hypothesis, _ = scored(pair.reference, pair.hypothesis, normalisation.words)
    facts = breakdown.facts(
        replace(pair, reference=reference, hypothesis=hypothesis), normalisation
    )
    return {"scores": _without_conventions(scores), "facts": facts.to_json()}


def _without_conventions(scores: Scores) -> dict[str, Any]:
    """The scores without conventions: a result has these once, among its settings."""
    return {name: value for name, value in scores.to_json().items() if name != "conventions"}


def _measured(
    pairs: Sequence[Pair], normalisation: Normalisation, words: bool, jobs: int
) -> Iterator[_Row]:
    """Score each pair, in order; in several processes if there is enough to score."""
    segments = sum(len(pair.reference.segments) for pair in pairs)
    measure = partial(_measure, normalisation=normalisation, words=words)
    return each(measure, pairs, jobs if segments >= _WORTH_PROCESSES else 1)


def save(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a result in one move.

    Raises:
        OutputError: it cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = as_json(result, indent=1, allow_nan=False)
    write_text_atomically(path, text + "\n")


def load_result(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        DataError: the file cannot be read.
        FormatError: it is not an evaluation of this version.
    """
    return parse_evaluation(read_bytes(path), path)


def stored_before(path: Path | None) -> dict[str, Any] | None:
    """The result that lies where a new one is to be written; `None` without a readable one."""
    if path is None or not path.exists():
        return None
    try:
        return load_result(path)
    except SpeakerReasonerError:
        return None


def summary(result: Mapping[str, Any]) -> Table:
    """A table for the terminal: rate, interval and counts of each metric."""
    count = len(result["recordings"])
    plural = "s" if count != 1 else ""
    title = f"{result['system']} on {result['data']}: {count} recording{plural}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric")
    table.add_column("rate", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("counts")
    intervals = result["intervals_95"]
    for name, values in result["scores"].items():
        if isinstance(values, dict) and "rate" in values:
            low_high = intervals.get(name)
            interval = ""
            if low_high is not None:
                interval = f"{100 * low_high[0]:.1f}–{100 * low_high[1]:.1f} %"
            rate = values["rate"]
            shown = f"{rate:.2f}" if name == "speaker_count_error" else _percent(rate)
            table.add_row(LABELS[name], shown, interval, _counts(values))
    for tolerance, values in (result["scores"].get("boundaries") or {}).items():
        table.add_row(
            f"segments ± {tolerance} s",
            f"F1 {_percent(values['f1'])}",
            "",
            f"P {_percent(values['precision'])}, R {_percent(values['recall'])}",
        )
    for name, reason in result["skipped"].items():
        table.add_row(LABELS.get(name, name), "–", "", reason, style="yellow")
    return table


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.2f} %"


def _counts(values: Mapping[str, Any]) -> str:
    """Return the counts of a metric of any kind in words."""
    match values:
        case {"insertions": i, "deletions": d, "substitutions": s, "reference_words": n}:
            return f"{i:,} ins, {d:,} del, {s:,} sub / {n:,}"
        case {"missed_s": m, "false_alarm_s": f, "confusion_s": c, "reference_s": n}:
            return f"{m:,.1f} missed, {f:,.1f} false, {c:,.1f} confused / {n:,.1f} s"
        case {"right": right, "total": float(n)}:
            return f"{right:,.1f} / {n:,.1f} s"
        case {"right": right, "total": n}:
            return f"{right:,} / {n:,}"
        case {"error_sum": _, "speakers": n}:
            return f"{n:,} speakers"
        case {"error": error, "recordings": n}:
            return f"{error:,} / {n:,} recordings"
    return ""


def _made() -> dict[str, Any]:
    from ..version import __version__

    return {
        "command": shlex.join(["speaker-reasoner", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }
