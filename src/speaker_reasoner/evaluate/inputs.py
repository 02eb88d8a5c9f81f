"""Reads both sides of an evaluation: transcripts by session, with the warnings of their readers.

sides = read_sides("reference.stm", "hypotheses/", uem="all.uem")
pairs = pair(sides.references, sides.hypotheses)
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..formats.folders import load
from ..transcript import Transcript
from .directives import is_left_out, read_uem, with_uem

__all__ = ["Sides", "load", "noticed", "read_sides", "summed_up"]

STANDARD_INPUT = "stdin"
"""The name of a session whose file is standard input and whose format has no names."""

_Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Sides:
    """References and hypotheses to be scored.

    Attributes:
        references, hypotheses: transcripts by name of the session.
        warnings: for the user: each with its `side`, `recording` (`None` for all) and
            `warning`; JSON-ready.
    """

    references: dict[str, Transcript]
    hypotheses: dict[str, Transcript]
    warnings: tuple[Mapping[str, str | None], ...]


def read_sides(
    reference: _Path,
    hypothesis: _Path,
    read: Mapping[str, Mapping[str, Any]] | None = None,
    uem: _Path | None = None,
) -> Sides:
    """Read both sides.

    Args:
        reference, hypothesis: files or folders.
        read: options of `formats.folders.load` for `reference` and `hypothesis`.
        uem: file that lists the stretches to be scored; all of a session that it does not name.

    Raises:
        FormatError, DataError: as `load` and `read_uem`.
    """
    options = read or {}
    references = load(reference, **options.get("reference", {}))
    hypotheses = load(hypothesis, **options.get("hypothesis", {}), predicted=True)
    references, hypotheses, renamed = _named_alike(references, hypotheses)
    notes: list[str] = []
    if uem is not None:
        listed = read_uem(Path(uem))
        names = _other_names(listed, references)
        listed = {names.get(name, name): channels for name, channels in listed.items()}
        references, notes = with_uem(references, listed)
        notes += [f"the UEM's {name!r} was taken for {other!r}" for name, other in names.items()]
    warnings = [
        *noticed("reference", references.values()),
        *noticed("hypothesis", hypotheses.values()),
        *of_uem(notes),
        *renamed,
        *_wordless(references, hypotheses),
    ]
    return Sides(references, hypotheses, tuple(warnings))


def _named_alike(
    references: dict[str, Transcript], hypotheses: dict[str, Transcript]
) -> tuple[dict[str, Transcript], dict[str, Transcript], list[Mapping[str, str | None]]]:
    """Give sessions the name of the other side where it is plain, and tell of it.

    The one session of standard input, in a format without names, takes that of the one on the other side; and
    `talk.wav`, of `talk.wav.srt`, that of `talk`.
    """
    if len(references) == len(hypotheses) == 1:
        (one, reference), (other, hypothesis) = *references.items(), *hypotheses.items()
        if other == STANDARD_INPUT != one:
            return references, {one: replace(hypothesis, recording=one)}, []
        if one == STANDARD_INPUT != other:
            return {other: replace(reference, recording=other)}, hypotheses, []
    references, warned = _renamed("reference", references, hypotheses)
    hypotheses, more = _renamed("hypothesis", hypotheses, references)
    return references, hypotheses, warned + more


def _renamed(
    side: str, sessions: dict[str, Transcript], others: Mapping[str, Transcript]
) -> tuple[dict[str, Transcript], list[Mapping[str, str | None]]]:
    """Give sessions the names of the other side, and tell of it."""
    names = _other_names(sessions, others)
    named = {
        names.get(name, name): replace(one, recording=names[name]) if name in names else one
        for name, one in sessions.items()
    }
    warning = "1 sessions have another name on the other side: {!r} was taken for {!r}"
    return named, [
        {"side": side, "recording": other, "warning": warning.format(name, other)}
        for name, other in names.items()
    ]


def _other_names(names: Collection[str], others: Collection[str]) -> dict[str, str]:
    """Return, by name, names of the other side that differ in a recording's suffix or in how letters are composed."""
    if set(names) <= set(others):
        return {}
    from ..audio import SUFFIXES

    plain = {unicodedata.normalize("NFC", name): name for name in others}

    def other_name(name: str) -> str:
        composed = unicodedata.normalize("NFC", name)
        stem, dot, suffix = composed.rpartition(".")
        stem = stem if f"{dot}{suffix}".lower() in SUFFIXES else ""
        return name if name in others else plain.get(composed) or plain.get(stem) or name

    wanted = {name: other_name(name) for name in names}
    often = Counter(wanted.values())
    return {n: other for n, other in wanted.items() if other != n and often[other] == 1}


def _wordless(
    references: Mapping[str, Transcript], hypotheses: Mapping[str, Transcript]
) -> list[Mapping[str, str | None]]:
    """Warnings of hypotheses without words (RTTM) against references with some."""
    warning = "no segment holds words: all words of the reference count as deleted"
    return [
        {"side": "hypothesis", "recording": name, "warning": warning}
        for name, one in hypotheses.items()
        if name in references
        and one.segments
        and not _has_words(one)
        and _has_words(references[name])
    ]


def _has_words(transcript: Transcript) -> bool:
    return any(segment.text for segment in transcript.segments)


def of_uem(notes: Iterable[str]) -> list[Mapping[str, str | None]]:
    """Return warnings about a UEM, which are of all recordings."""
    return [{"side": "reference", "recording": None, "warning": note} for note in notes]


def noticed(side: str, transcripts: Iterable[Transcript]) -> list[Mapping[str, str | None]]:
    """Return the warnings of transcripts, with their side and recording; and one of choices that are not scored."""
    rows: list[Mapping[str, str | None]] = []
    for one in transcripts:
        warnings = list(one.warnings)
        if side == "reference" and one.segments and is_left_out(one):
            warnings.append(
                "all of its speech is out of scoring, by its directives or the UEM: nothing of it is scored"
            )
        if side == "hypothesis":
            choices = sum(segment.choices is not None for segment in one.segments)
            if choices:
                warnings.append(
                    f"{choices} segments hold alternatives: the first of each is scored"
                )
        rows += [{"side": side, "recording": one.recording, "warning": w} for w in warnings]
    return rows


def summed_up(warnings: Sequence[Mapping[str, str | None]]) -> list[str]:
    """Return warnings for people, one line each: those that differ in numbers alone are one.

    The numbers of a warning of several recordings are summed up.
    """
    groups: dict[tuple[str | None, str], list[tuple[int, str | None, str]]] = {}
    for row in warnings:
        text = row["warning"] or ""
        match = re.match(r"(\d+) (?=\D)", text)
        count = int(match[1]) if match else 0
        rest = text[match.end() :] if match else text
        groups.setdefault((row["side"], rest), []).append((count, row["recording"], text))
    lines = []
    for (side, rest), rows in groups.items():
        names = dict.fromkeys(name for _, name, _ in rows if name is not None)
        if len(rows) == 1:
            where = f"{side}, {rows[0][1]}" if rows[0][1] else f"{side}"
            lines.append(f"{where}: {rows[0][2]}")
            continue
        total = sum(count for count, _, _ in rows)
        counted = f"{total} {rest}" if total else rest
        lines.append(f"{side}: {counted} (in {len(names)} recordings)")
    return lines
