"""One HTML file of an evaluation: scores, recordings, and the errors of each as a picture and words.

    path.write_text(report(result, {"meeting": (reference, hypothesis)}, "mine on meetings"))

The file needs nothing but a browser: style, script and data are in it (`report.html` is its
template), and nothing is fetched. Speakers are paired by the time they share, which explains the
DER; the cpWER pairs them by words, and may differ. Scoring happens elsewhere.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE_HZ
from ..errors import DataError, FormatError
from ..spans import overlap
from ..transcript import Segment, Transcript
from .directives import scored
from .extra import load
from .normalisation import Normalisation
from .standalone import fill, script
from .stored import check_evaluation

Words = Callable[[str], list[str]]

MISSED, FALSE_ALARM, CONFUSED = 0, 1, 2
"""Kinds of wrong speaker time, as in the DER."""

EQUAL, DELETED, INSERTED, SUBSTITUTED = 0, 1, 2, 3
"""Kinds of aligned words."""


def report(
    result: Mapping[str, Any],
    pairs: Mapping[str, tuple[Transcript, Transcript]],
    title: str,
) -> str:
    """Return the report of a stored evaluation as one HTML page.

    Args:
        result: the evaluation. Words are aligned as it normalised them.
        pairs: reference and hypothesis by the recording's name in `result`. A recording without a
            pair has its scores in the report, but cannot be opened. Boxes of turns are drawn from
            the traces of the hypothesis, if it has any.
        title: the heading; plain text.

    Raises:
        FormatError: `result` is not an evaluation that this program reads, or no JSON.
        DataError: a pair is of no recording in `result`.
        ExtraError: a library is not installed.
    """
    check_evaluation(result, "report")
    recordings = result.get("recordings") or []
    names = [recording["name"] for recording in recordings]
    for name in pairs:
        if name not in names:
            raise DataError(
                f"report: recording {name!r} was not scored in this evaluation; give the transcripts "
                "that it was made of"
            )
    words = _normalisation(result).words
    blocks = [_script("result", {**result, "recordings": [_listed(r, pairs) for r in recordings]})]
    for i, name in enumerate(names):
        if name in pairs:
            blocks.append(_script(f"data-{i}", compare(*scored(*pairs[name], words)[:2], words)))
    return fill("report.html", title=html.escape(title), data="\n".join(blocks))


def compare(reference: Transcript, hypothesis: Transcript, words: Words) -> dict[str, Any]:
    """Return the data of one recording's picture, JSON-ready; times in seconds.

    - `duration_s`, `warnings` (of the hypothesis)
    - `lanes`, top to bottom: `side`, `speaker`, `pair` (lanes of one pair of speakers share it; the
      rest of the hypothesis has none), `segments` (`[start, end, text]`) and `errors`
      (`[start, end, kind]`)
    - `chunks` (`[start, end]`), `turns` (`[start, end, number]`), `missing` (`[start, end, reason]`)
    - `alignments`: of each speaker or pair `reference`, `hypothesis` (labels or null), `counts` of
      words by kind, and `rows` (`[start, end, [[kind, reference words, hypothesis words], ...]]`)
    - `confusion`: `reference`, `hypothesis` (labels), `seconds` that each two share
      `[reference + 1, hypothesis + 1]`, the last row and column being nobody; `paired` by index

    Args:
        words: splits a text into the words that are compared.

    Raises:
        ExtraError: scipy or rapidfuzz is not installed.
    """
    stretches = list(_stretches(reference, hypothesis))
    shared = _shared_seconds(stretches, reference.speakers, hypothesis.speakers)
    paired = _pair(shared[:-1, :-1])
    mapping = {reference.speakers[r]: hypothesis.speakers[h] for r, h in paired.items()}
    chunks, turns = _boxes(hypothesis)
    ends = [s.end_s for s in (*reference.segments, *hypothesis.segments)]
    return {
        "duration_s": _ms(max([reference.duration_s, hypothesis.duration_s, *ends])),
        "warnings": list(hypothesis.warnings),
        "lanes": _lanes(reference, hypothesis, mapping, _wrong_time(stretches, mapping)),
        "chunks": chunks,
        "turns": turns,
        "missing": [[_ms(m.start_s), _ms(m.end_s), m.reason] for m in hypothesis.missing],
        "alignments": _alignments(reference, hypothesis, mapping, words),
        "confusion": {
            "reference": list(reference.speakers),
            "hypothesis": list(hypothesis.speakers),
            "seconds": [[round(float(x), 2) for x in row] for row in shared],
            "paired": [[r, h] for r, h in paired.items()],
        },
    }


def _script(name: str, data: object) -> str:
    try:
        return script(name, data)
    except (TypeError, ValueError) as error:
        raise FormatError(f"report: the evaluation cannot be written as JSON: {error}") from error


def _listed(
    recording: Mapping[str, Any], pairs: Mapping[str, tuple[Transcript, Transcript]]
) -> dict[str, Any]:
    """A recording's row: its scores, and the numbers of speakers in reference and hypothesis."""
    scores = {k: v for k, v in recording["scores"].items() if k != "conventions"}
    pair = pairs.get(recording["name"])
    shown = {k: v for k, v in recording.items() if k not in ("key", "facts")}
    return {
        **shown,
        "scores": scores,
        "speakers": [len(side.speakers) for side in pair] if pair else None,
    }


def _normalisation(result: Mapping[str, Any]) -> Normalisation:
    stored = (result.get("settings") or {}).get("normalisation") or {}
    known = {field.name for field in fields(Normalisation)}
    return Normalisation(**{name: value for name, value in stored.items() if name in known})


def _ms(seconds: float) -> float:
    return round(seconds, 3)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A stretch between two boundaries, and its active speakers."""

    start_s: float
    end_s: float
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def _stretches(reference: Transcript, hypothesis: Transcript) -> Iterable[_Stretch]:
    """Speech from boundary to boundary; a speaker who overlaps themselves counts once."""
    edges = sorted(
        (time_s, change, side, segment.speaker)
        for side, transcript in enumerate((reference, hypothesis))
        for segment in transcript.segments
        for time_s, change in ((segment.start_s, 1), (segment.end_s, -1))
    )
    talking: tuple[dict[str, int], dict[str, int]] = ({}, {})
    at_s = 0.0
    for time_s, change, side, speaker in edges:
        if time_s > at_s and (talking[0] or talking[1]):
            yield _Stretch(at_s, time_s, tuple(talking[0]), tuple(talking[1]))
        at_s = time_s
        count = talking[side].get(speaker, 0) + change
        if count:
            talking[side][speaker] = count
        else:
            del talking[side][speaker]


def _shared_seconds(
    stretches: Sequence[_Stretch], reference: Sequence[str], hypothesis: Sequence[str]
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Seconds in which both speakers of a pair speak, `[reference + 1, hypothesis + 1]`; the last row and
    column stand for nobody."""
    row = {speaker: i for i, speaker in enumerate(reference)}
    column = {speaker: i for i, speaker in enumerate(hypothesis)}
    seconds = np.zeros((len(reference) + 1, len(hypothesis) + 1))
    for stretch in stretches:
        for r in [row[s] for s in stretch.reference] or [-1]:
            for h in [column[s] for s in stretch.hypothesis] or [-1]:
                seconds[r, h] += stretch.end_s - stretch.start_s
    return seconds


def _pair(shared: "np.ndarray[Any, np.dtype[np.float64]]") -> dict[int, int]:
    """The one-to-one mapping of speakers with the most shared time; without shared time a speaker stays unmapped."""
    best = load("scipy.optimize").linear_sum_assignment(-shared)
    return {int(r): int(h) for r, h in zip(*best, strict=True) if shared[r, h] > 0}


def _wrong_time(
    stretches: Sequence[_Stretch], mapping: Mapping[str, str]
) -> dict[tuple[str, str], list[list[Any]]]:
    """Wrong speaker time by side and speaker, `[start, end, kind]`; it sums to the DER's.

    Where speakers of both sides are left over, as many as the smaller side has are confused; the
    rest is missed or false alarm.
    """
    wrong: dict[tuple[str, str], list[list[Any]]] = {}
    for stretch in stretches:
        right = [s for s in stretch.reference if mapping.get(s) in stretch.hypothesis]
        answers = [mapping[s] for s in right]
        sides = {
            "reference": ([s for s in stretch.reference if s not in right], MISSED),
            "hypothesis": ([s for s in stretch.hypothesis if s not in answers], FALSE_ALARM),
        }
        confused = min(len(left) for left, _ in sides.values())
        for side, (left, otherwise) in sides.items():
            for i, speaker in enumerate(sorted(left)):
                kind = CONFUSED if i < confused else otherwise
                spans = wrong.setdefault((side, speaker), [])
                start, end = _ms(stretch.start_s), _ms(stretch.end_s)
                if spans and spans[-1][1:] == [start, kind]:
                    spans[-1][1] = end
                elif end > start:
                    spans.append([start, end, kind])
    return wrong


def _lanes(
    reference: Transcript,
    hypothesis: Transcript,
    mapping: Mapping[str, str],
    wrong: Mapping[tuple[str, str], list[list[Any]]],
) -> list[dict[str, Any]]:
    """Lanes: reference above hypothesis for each pair; then the unpaired hypothesis speakers, in few lanes."""
    sides = {"reference": _by_speaker(reference), "hypothesis": _by_speaker(hypothesis)}

    def lane(side: str, speaker: str, pair: int | None) -> dict[str, Any]:
        boxes = [[_ms(s.start_s), _ms(s.end_s), s.text] for s in sides[side][speaker]]
        errors = wrong.get((side, speaker), [])
        return {
            "side": side,
            "speaker": speaker,
            "pair": pair,
            "segments": boxes,
            "errors": errors,
        }

    lanes = []
    for i, speaker in enumerate(reference.speakers):
        lanes.append(lane("reference", speaker, i))
        if speaker in mapping:
            lanes.append(lane("hypothesis", mapping[speaker], i))
    shared: list[dict[str, Any]] = []  # labels that never meet in time share a lane
    for speaker in hypothesis.speakers:
        if speaker in mapping.values():
            continue
        new = lane("hypothesis", speaker, None)
        for box in new["segments"]:
            box[2] = f"{speaker}: {box[2]}"
        starts_s = new["segments"][0][0]
        room = (one for one in shared if max(b[1] for b in one["segments"]) <= starts_s)
        fitting = next(room, None)
        if fitting is None:
            shared.append(new)
        else:
            fitting["segments"] += new["segments"]
            fitting["errors"] = fitting["errors"] + new["errors"]
            fitting["speaker"] += f", {speaker}"
    return lanes + shared


def _by_speaker(transcript: Transcript) -> dict[str, list[Segment]]:
    """Segments by speaker, in order of appearance."""
    by_speaker: dict[str, list[Segment]] = {}
    for segment in transcript.segments:
        by_speaker.setdefault(segment.speaker, []).append(segment)
    return by_speaker


def _boxes(transcript: Transcript) -> tuple[list[list[float]], list[list[float]]]:
    """Chunks, and the observations in them: the slices of audio after a chunk's first."""
    chunks, turns = [], []
    for trace in transcript.traces:
        start_s = float(trace.get("start_s", 0.0))
        slices = [part["audio"] for part in trace.get("parts", []) if "audio" in part]
        times = [
            [_ms(start_s + sample / SAMPLE_RATE_HZ) for sample in (first, last)]
            for first, last in slices
        ]
        chunks += times[:1]
        turns += [[*box, number] for number, box in enumerate(times[1:], 1)]
    return chunks, turns


def _alignments(
    reference: Transcript, hypothesis: Transcript, mapping: Mapping[str, str], words: Words
) -> list[dict[str, Any]]:
    """Alignments of each pair of speakers, then of each unpaired one; speakers without words are left out."""
    expected, got = _by_speaker(reference), _by_speaker(hypothesis)
    alone = [speaker for speaker in got if speaker not in mapping.values()]
    labels = [(speaker, mapping.get(speaker)) for speaker in expected]
    alignments = []
    for ours, theirs in [*labels, *((None, speaker) for speaker in alone)]:
        rows = _align(expected[ours] if ours else [], got[theirs] if theirs else [], words)
        counts = [0, 0, 0, 0]
        for _, _, runs in rows:
            for kind, before, after in runs:
                counts[kind] += len((before or after).split())
        if any(counts):
            alignments.append(
                {"reference": ours, "hypothesis": theirs, "counts": counts, "rows": rows}
            )
    return alignments


def _align(
    reference: Sequence[Segment], hypothesis: Sequence[Segment], words: Words
) -> list[list[Any]]:
    """Align two speakers' words (Levenshtein), and give them out by reference segment.

    An inserted word goes to the segment of the reference word before or after it, if its own segment
    overlaps that; otherwise its segment is a row of its own.
    """
    expected = [(word, i) for i, segment in enumerate(reference) for word in words(segment.text)]
    got = [(word, i) for i, segment in enumerate(hypothesis) for word in words(segment.text)]
    kinds = {"equal": EQUAL, "delete": DELETED, "insert": INSERTED, "replace": SUBSTITUTED}
    texts = [word for word, _ in expected], [word for word, _ in got]
    rows: dict[Segment, list[list[Any]]] = {}
    for step in load("rapidfuzz.distance").Levenshtein.opcodes(*texts):
        kind = kinds[step.tag]
        size = max(step.src_end - step.src_start, step.dest_end - step.dest_start)
        for i in range(size):  # a replacement is of equally many words
            before = "" if kind == INSERTED else texts[0][step.src_start + i]
            after = "" if kind in (DELETED, EQUAL) else texts[1][step.dest_start + i]
            if kind == INSERTED:
                own = hypothesis[got[step.dest_start + i][1]]
                beside = expected[max(step.src_start - 1, 0) : step.src_start + 1]
                near = [reference[at] for _, at in beside if overlap(reference[at], own)]
                segment = near[0] if near else own
            else:
                segment = reference[expected[step.src_start + i][1]]
            runs = rows.setdefault(segment, [])
            if runs and runs[-1][0] == kind:
                runs[-1][1] += f" {before}" * bool(before)
                runs[-1][2] += f" {after}" * bool(after)
            else:
                runs.append([kind, before, after])
    by_start = sorted(rows.items(), key=lambda row: (row[0].start_s, row[0].end_s))
    return [[_ms(segment.start_s), _ms(segment.end_s), runs] for segment, runs in by_start]
