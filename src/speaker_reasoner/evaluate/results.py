"""An evaluation as one JSON object: data, settings, every count, and the command to repeat it.

    result = evaluate(pairs, Normalisation(), system="mine", data="meetings")
    save(result, "mine.json")

Tables and reports are made from such files alone (`tables`), or with the transcripts they name
(`report`).
"""

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.progress import track
from rich.table import Table

from ..errors import DataError
from ..formats import write_text_atomically
from . import breakdown
from .directives import scored
from .normalisation import Normalisation
from .pairs import Pair
from .scores import CONVENTIONS, Scores, bootstrap, score, total
from .tables import SCHEMA, VERSION, check_evaluation

INTERVALS: dict[str, Callable[[Scores], float]] = {
    "wer": lambda summed: _rate(summed.wer),
    "cpwer": lambda summed: _rate(summed.cpwer),
    "der_0": lambda summed: _rate(summed.der_0),
    "der_025": lambda summed: _rate(summed.der_025),
}
"""Rates that get a 95 % interval over recordings."""

_WORTH_PROCESSES = 3000
"""Reference segments from which on scoring takes longer than starting processes."""


def evaluate(
    pairs: Sequence[Pair],
    normalisation: Normalisation,
    *,
    system: str,
    data: str,
    mode: str | None = None,
    warnings: Sequence[Mapping[str, str | None]] = (),
    words: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Score every pair and sum up.

    Args:
        pairs: reference and hypothesis of each recording.
        normalisation: what is done to the words of both sides.
        system: name of what made the hypotheses.
        data: name of the data set.
        mode: `segmented` or `long-form`; `None` if unknown.
        warnings: what was noticed while reading, as `inputs.Sides` has it.
        words: whether the system gives words; those of a diarizer alone are not scored.
        quiet: no progress bar.

    Returns:
        The object that `save` writes, JSON-ready.

    Raises:
        DataError: there are no pairs, or a library of the `eval` extra is missing.
    """
    if not pairs:
        raise DataError("nothing to score: got no recordings")
    scores = list(
        track(
            _scored(pairs, normalisation, words),
            "scoring",
            len(pairs),
            transient=True,
            disable=quiet,
        )
    )
    summed = total(scores)
    pairs = [_as_scored(pair, normalisation) for pair in pairs]
    intervals = {}
    for name, rate in INTERVALS.items():
        if len(pairs) > 1 and math.isfinite(rate(summed)):
            low, high = bootstrap(scores, rate)
            if math.isfinite(low) and math.isfinite(high):  # no draw without a reference
                intervals[name] = (low, high)
    return {
        "schema": f"{SCHEMA}/{VERSION}",
        "system": system,
        "data": data,
        "mode": mode,
        "made": _made(),
        "settings": {
            "normalisation": normalisation.describe(),
            "conventions": {**CONVENTIONS, **breakdown.CONVENTIONS},
        },
        "reference": None,
        "hypothesis": None,
        "scores": _without_conventions(summed),
        "intervals_95": intervals,
        "subsets": breakdown.subsets(pairs, scores, normalisation),
        "calibration": breakdown.calibration(pairs, normalisation),
        "speed": None,
        "skipped": dict(summed.skipped),
        "warnings": [dict(row) for row in warnings],
        "lost": [pair.name for pair in pairs if pair.lost],
        "recordings": [
            {
                "name": pair.name,
                "duration_s": max(pair.reference.duration_s, pair.hypothesis.duration_s),
                "scores": _without_conventions(one),
                "lost": pair.lost,
            }
            for pair, one in zip(pairs, scores, strict=True)
        ],
    }


def _as_scored(pair: Pair, normalisation: Normalisation) -> Pair:
    """A pair without what is out of scoring, and with the reference's choices made."""
    reference, hypothesis, _ = scored(pair.reference, pair.hypothesis, normalisation.words)
    return replace(pair, reference=reference, hypothesis=hypothesis)


def _without_conventions(scores: Scores) -> dict[str, Any]:
    """The scores without conventions: a result has these once, among its settings."""
    return {name: value for name, value in scores.to_json().items() if name != "conventions"}


def _scored(pairs: Sequence[Pair], normalisation: Normalisation, words: bool) -> Iterator[Scores]:
    """Score each pair, in order; on all processors if there is enough to score."""
    sides = [(pair.reference, pair.hypothesis, normalisation) for pair in pairs]
    segments = sum(len(pair.reference.segments) for pair in pairs)
    if len(pairs) == 1 or segments < _WORTH_PROCESSES:
        yield from (score(*side, words=words) for side in sides)
        return
    with ProcessPoolExecutor(min(len(pairs), os.cpu_count() or 1)) as pool:
        yield from pool.map(partial(score, words=words), *zip(*sides, strict=True))


def save(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a result in one move.

    Raises:
        OutputError: it cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
    write_text_atomically(path, text + "\n")


def load_result(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        DataError: the file cannot be read.
        FormatError: it is not an evaluation of this version.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read as an evaluation: {error}") from error
    return dict(check_evaluation(result, str(path)))


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


LABELS = {
    "wer": "WER",
    "cpwer": "cpWER",
    "tcpwer": "tcpWER (5 s)",
    "orcwer": "ORC-WER",
    "der_0": "DER",
    "der_025": "DER (collar 0.25 s)",
    "jer": "JER",
    "gender": "gender",
    "gender_time": "gender, by time",
    "speaker_count": "speaker count right",
    "speaker_count_error": "speaker count error",
}
"""The label of each metric in tables."""


def _rate(counts: Any) -> float:
    return math.nan if counts is None else float(counts.rate)


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.2f} %"


def _counts(values: Mapping[str, Any]) -> str:
    """The counts of a metric in words, whatever its kind."""
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
