"""Rates, intervals and pairwise comparisons of all systems on all data sets, from stored evaluations.

    board = leaderboard([Path("a.json"), Path("b.json")])
    leaderboard(paths, board)       # computes only what is new

Rows stand in one board only if they were measured alike: the same data, unit and scoring. Two systems are compared on
the recordings that both transcribed. The result is a JSON-ready object; `leaderboard_files` writes it to files. Nothing
is scored here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import DataError, FormatError
from .resampling import by_recording, compare, counted, holm, interval
from .stored import parse_evaluation, read_bytes, unit_of

SCHEMA = "speaker-reasoner/leaderboard/1"

METRICS = ("cpwer", "wer", "tcpwer", "der_0", "der_025")
"""Error rates that a board shows, with intervals; the first that a board has orders its rows."""

COMPARED = ("cpwer", "wer", "der_0")
"""Error rates by which systems are compared in pairs."""

LEAST = 6
"""Recordings from which on a comparison has a verdict: of five, all won, a sign test still gives p > 0.05."""

LEVEL = 0.05
"""Probability of any wrong verdict within one data set and metric."""

METHOD = {
    "interval": "95 % percentile interval of the rate, whole recordings drawn with replacement (1,000"
    " draws); pieces of one recording are drawn together (Efron & Tibshirani, 1993)",
    "comparison": "paired bootstrap over the same recordings, 10,000 draws (Bisani & Ney, ICASSP 2004);"
    " p is two-sided",
    "many": f"p is adjusted for all pairs of one board and metric (Holm, 1979); a verdict has an adjusted"
    f" p below {LEVEL:g}",
    "few": f"with fewer than {LEAST} recordings there is no verdict",
    "failures": "a recording that a system did not answer counts as an empty transcript: all of it is missed",
    "speed": "seconds of sound by seconds of work, as the run measured it on its own machine",
}
"""How the figures of a leaderboard are made; part of it."""

_Board = dict[str, Any]


def leaderboard(paths: Sequence[Path], stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Compare stored evaluations.

    Args:
        paths: results, or folders with an `evaluation.json`.
        stored: an earlier leaderboard; its comparisons are not computed again.

    Returns:
        `schema`, `inputs` (a digest), `made`, `method`, `results` (each with path, digest, command and
        date) and `boards`. A board has `data`, `unit`, `scoring`, `rows` (of each system `metrics`
        with `rate` and `interval`, `failures`, `speed`) and `comparisons` by metric.

    Raises:
        DataError: no results, one that cannot be read, or two of one system that were measured alike.
        FormatError: a file is no evaluation of this version.
    """
    files = [path / "evaluation.json" if path.is_dir() else path for path in paths]
    if not files:
        raise DataError("leaderboard: got no results, expected one or more")
    read = [read_bytes(file) for file in files]
    digests = [hashlib.sha256(content).hexdigest() for content in read]
    inputs = hashlib.sha256(
        "\n".join([_program(), *map(str, files), *digests]).encode("utf-8", "surrogateescape")
    ).hexdigest()
    if stored is not None and stored.get("inputs") == inputs:
        return dict(stored)
    results = [_parsed(content, file) for content, file in zip(read, files, strict=True)]
    known = dict(_known(stored or {}))
    grouped: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        grouped.setdefault(json.dumps(_alike(result), sort_keys=True), []).append(i)
    return {
        "schema": SCHEMA,
        "inputs": inputs,
        "made": _made(),
        "method": METHOD,
        "results": [
            {
                "path": str(file),
                "sha256": digest,
                "system": result["system"],
                "data": result["data"],
                **{
                    key: (result.get("made") or {}).get(key)
                    for key in ("command", "date", "version")
                },
            }
            for file, digest, result in zip(files, digests, results, strict=True)
        ],
        "boards": [_board(results, members, known) for members in grouped.values()],
    }


def _parsed(content: bytes, path: Path) -> Mapping[str, Any]:
    result = parse_evaluation(content, path)
    if not isinstance(result.get("recordings"), list) or not result["recordings"]:
        raise FormatError(f"{path}: expected counts of each recording; score again")
    return result


def _program() -> str:
    """Return a digest of the code that computes the figures."""
    digest = hashlib.sha256()
    for name in ("leaderboard", "resampling"):
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


def _alike(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a result that rows of one board must share."""
    settings = result.get("settings") or {}
    conventions = settings.get("conventions") or {}
    return {
        "data": result["data"],
        "unit": unit_of(result),
        "scoring": {
            "normalisation": settings.get("normalisation"),
            "collars_s": settings.get("collars_s"),
            "as": (settings.get("as") or {}).get("tool"),
            "uem": settings.get("uem"),
            "conventions": {name: conventions.get(name) for name in METRICS},
        },
    }


def _known(stored: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The comparisons of an earlier leaderboard, by their keys."""
    if (stored.get("made") or {}).get("program") != _program():
        return
    for board in stored.get("boards", ()):
        for rows in board["comparisons"].values():
            yield from ((row["key"], row["compared"]) for row in rows if row.get("compared"))


def _board(
    results: Sequence[Mapping[str, Any]],
    members: Sequence[int],
    known: Mapping[str, dict[str, Any]],
) -> _Board:
    own = [results[i] for i in members]
    names = [result["system"] for result in own]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"two results of {name!r} on {own[0]['data']!r} that were measured alike: a leaderboard "
                "has one row for them; give one of them, or name the rows apart"
            )
    rows = [_row(result, i) for result, i in zip(own, members, strict=True)]
    order = next((m for m in METRICS if any(m in row["metrics"] for row in rows)), METRICS[0])
    rows.sort(
        key=lambda row: (row["metrics"].get(order, {}).get("rate", float("inf")), row["system"])
    )
    lengths = {r["name"]: r["duration_s"] for result in own for r in result["recordings"]}
    recordings = {r.get("of") or r["name"] for result in own for r in result["recordings"]}
    return {
        **_alike(own[0]),
        "recordings": len(recordings),
        "units": len(lengths),
        "duration_s": round(sum(lengths.values()), 3),
        "rows": rows,
        "comparisons": {metric: _comparisons(own, metric, known) for metric in COMPARED},
    }


def _row(result: Mapping[str, Any], index: int) -> dict[str, Any]:
    metrics = {}
    for metric in METRICS:
        counts = by_recording(result, counted(result, metric))
        rate = (result["scores"].get(metric) or {}).get("rate")
        if rate is None or not counts:
            continue
        bounds = interval(list(counts.values())) if len(counts) > 1 else None
        metrics[metric] = {"rate": rate, "interval": bounds, "recordings": len(counts)}
    people = result["scores"].get("speaker_count") or {}
    failed: Mapping[str, Mapping[str, str]] = result.get("failures") or {}
    lost = {name: {"reason": "no answer"} for name in result.get("lost", ()) if name not in failed}
    return {
        "system": result["system"],
        "result": index,
        "metrics": metrics,
        "speaker_count": people.get("rate"),
        "failures": [{"name": name, **one} for name, one in {**failed, **lost}.items()],
        "speed": _speed(result.get("speed") or {}),
        "usage": dict(result.get("usage") or {}),
        "notes": list(result.get("notes") or ()),
    }


def _speed(speed: Mapping[str, Any]) -> float | None:
    """Seconds of sound by second of work."""
    audio_s, wall_s = speed.get("audio_s"), speed.get("wall_s")
    return round(audio_s / wall_s, 3) if audio_s and wall_s else None


def _comparisons(
    own: Sequence[Mapping[str, Any]], metric: str, known: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Every pair of systems by one metric, with a verdict or the reason why there is none."""
    counts = [by_recording(result, counted(result, metric)) for result in own]
    rows: list[dict[str, Any]] = []
    for a, b in combinations(range(len(own)), 2):
        row: dict[str, Any] = {"a": own[a]["system"], "b": own[b]["system"]}
        rows.append(row)
        if not all(sum(divisor for _, divisor in counts[i].values()) for i in (a, b)):
            row["verdict"] = "not measured"
        elif not _same(counts[a], counts[b]):
            row["verdict"] = "other recordings"
        else:
            content = repr((metric, sorted(counts[a].items()), sorted(counts[b].items())))
            row["key"] = hashlib.sha256(content.encode()).hexdigest()[:24]
            row["compared"] = known.get(row["key"])
            if row["compared"] is None:
                made = compare(counts[a], counts[b])
                row["compared"] = {
                    "difference": made.difference,
                    "interval": made.interval,
                    "a_better": made.a_better,
                    "p": made.p,
                    "recordings": made.recordings,
                }
    measured = [row for row in rows if row.get("compared")]
    adjusted = holm([row["compared"]["p"] for row in measured])
    for row, p in zip(measured, adjusted, strict=True):
        row["p_adjusted"] = p
        if row["compared"]["recordings"] < LEAST:
            row["verdict"] = "too few recordings"
        elif p >= LEVEL:
            row["verdict"] = "no difference shown"
        else:
            row["verdict"] = "a" if row["compared"]["difference"] < 0 else "b"
    return rows


def _same(a: Mapping[str, tuple[float, float]], b: Mapping[str, tuple[float, float]]) -> bool:
    """Return whether two systems were scored on the same recordings, against the same references."""
    return a.keys() == b.keys() and all(
        abs(a[name][1] - b[name][1]) <= 1e-6 * max(1.0, a[name][1]) for name in a
    )


def _made() -> dict[str, Any]:
    from ..version import __version__

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
        "program": _program(),
    }
