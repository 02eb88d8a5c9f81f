"""Compares our counts of errors with those of SCTK's md-eval and sclite, pyannote.metrics and MeetEval.

    python benchmarks/agreement.py REFERENCES --sctk SCTK/bin

REFERENCES is a file or folder as `speaker-reasoner evaluate score` takes it, such as AISHELL-4's; the other
side are copies with planted errors, as in benchmarks/scoring.py. Time is compared with md-eval and
pyannote.metrics: whole recordings, a collar of 0.25 s, half of each recording by a UEM, and stretches out
of scoring (NOSCORE); for pyannote.metrics, turns of a speaker that touch or overlap are joined. Words are
compared with `sclite -D`, segment by segment: as they are, with alternatives, and with optional words.
cpWER, tcpWER and ORC-WER are compared with MeetEval's command line (`pip install 'meeteval[cli]'`). SCTK is
https://github.com/usnistgov/SCTK, built by its makefile.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyannote.core import Annotation, Timeline
from pyannote.core import Segment as Span
from pyannote.metrics.diarization import DiarizationErrorRate
from rich.console import Console

from common import store
from scoring import corrupted
from speaker_reasoner.evaluate import Normalisation
from speaker_reasoner.evaluate.directives import outside, scored
from speaker_reasoner.evaluate.scores import score
from speaker_reasoner.evaluate.times import diarization
from speaker_reasoner.evaluate.words import word_errors
from speaker_reasoner.formats import render
from speaker_reasoner.formats.choices import first_choices
from speaker_reasoner.formats.folders import load
from speaker_reasoner.formats.unscored import merged
from speaker_reasoner.transcript import Segment, Transcript

Pairs = dict[str, tuple[Transcript, Transcript]]
KINDS = ("scored", "missed", "false_alarm", "confused")
WORDS = ("insertions", "deletions", "substitutions", "reference_words")


def rounded(transcript: Transcript) -> Transcript:
    """Round times to milliseconds, as RTTM holds them, so that all tools read the same."""
    rows = [
        replace(s, start_s=round(s.start_s, 3), end_s=round(s.end_s, 3), words=None)
        for s in transcript.segments
    ]
    return replace(transcript.with_segments(rows), duration_s=round(transcript.duration_s, 3))


def time_cases(pairs: Pairs) -> Iterator[tuple[str, float, Pairs, bool]]:
    """Yield name, collar and both sides of each case, and whether a UEM limits scoring (else the whole is scored)."""
    yield "whole recordings", 0.0, pairs, False
    yield "collar of 0.25 s", 0.25, pairs, False

    def with_unscored(at: Any) -> Pairs:
        return {
            name: (replace(ours, unscored=tuple(at(ours))), theirs)
            for name, (ours, theirs) in pairs.items()
        }

    def quarters(one: Transcript) -> list[tuple[float, float]]:
        middle_s = [round(part * one.duration_s, 3) for part in (0.25, 0.75)]
        return outside([(middle_s[0], middle_s[1])])

    def tenths(one: Transcript) -> list[tuple[float, float]]:
        step_s = one.duration_s / 10
        return [(round(n * step_s, 3), round((n + 0.3) * step_s, 3)) for n in range(1, 9)]

    for collar_s in (0.0, 0.25):
        yield (
            f"middle half by a UEM, collar {collar_s:g} s",
            collar_s,
            with_unscored(quarters),
            True,
        )
        yield (
            f"eight stretches of NOSCORE, collar {collar_s:g} s",
            collar_s,
            with_unscored(tenths),
            False,
        )


def of_ours(pairs: Pairs, collar_s: float) -> dict[str, float]:
    sums = dict.fromkeys(KINDS, 0.0)
    for ours, theirs in pairs.values():
        counts, _ = diarization(ours, theirs, collar_s, ours.unscored)
        values = (counts.reference_s, counts.missed_s, counts.false_alarm_s, counts.confusion_s)
        for kind, value in zip(KINDS, values, strict=True):
            sums[kind] += value
    return sums


def of_md_eval(sctk: Path, pairs: Pairs, collar_s: float, by_uem: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = {"ref": list[str](), "sys": list[str](), "uem": list[str]()}
        for session, (ours, theirs) in pairs.items():
            whole = replace(ours, unscored=()) if by_uem else ours
            sides["ref"].append(_turns(whole))
            sides["sys"].append(_turns(theirs))
            last_s = _last_s(ours, theirs)
            spans = [(0.0, last_s)]
            if by_uem:
                spans = [s for s in outside(ours.unscored) if s[0] < last_s]
            sides["uem"] += [f"{session} 1 {a:.3f} {min(b, last_s):.3f}\n" for a, b in spans]
        for side, texts in sides.items():
            (folder / side).write_text("".join(texts), encoding="utf-8")
        run = ["perl", sctk / "md-eval.pl", "-c", str(collar_s)]
        for option, side in (("-u", "uem"), ("-r", "ref"), ("-s", "sys")):
            run += [option, folder / side]
        printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    patterns = (
        r"SCORED SPEAKER TIME =\s*([\d.]+)",
        *(rf"{kind} SPEAKER TIME =\s*([\d.]+)" for kind in ("MISSED", "FALARM")),
        r"SPEAKER ERROR TIME =\s*([\d.]+)",
    )
    sums = [re.findall(pattern, printed)[-1] for pattern in patterns]
    return {kind: float(value) for kind, value in zip(KINDS, sums, strict=True)}


def _last_s(*sides: Transcript) -> float:
    """Return the end of the later side: planted errors may lie behind the recording."""
    return max(
        time_s for one in sides for time_s in (one.duration_s, *(s.end_s for s in one.segments))
    )


def _turns(transcript: Transcript) -> str:
    """Render RTTM without descriptions of speakers, whose genders md-eval would require."""
    lines = render(transcript, "rttm").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("SPKR-INFO"))


def of_pyannote(pairs: Pairs, collar_s: float) -> dict[str, float]:
    """Count errors by pyannote.metrics, whose collar is the sum of both sides of a border."""
    metric = DiarizationErrorRate(collar=2 * collar_s, skip_overlap=False)
    for ours, theirs in pairs.values():
        last_s = _last_s(ours, theirs)
        spans = [(a, min(b, last_s)) for a, b in outside(ours.unscored) if a < last_s]
        metric(_annotation(ours), _annotation(theirs), uem=Timeline([Span(a, b) for a, b in spans]))
    sums = metric[:]
    names = ("total", "missed detection", "false alarm", "confusion")
    return {kind: float(sums[name]) for kind, name in zip(KINDS, names, strict=True)}


def _annotation(transcript: Transcript) -> Annotation:
    made = Annotation()
    for n, segment in enumerate(transcript.segments):
        made[Span(segment.start_s, segment.end_s), n] = segment.speaker
    return made


def joined(transcript: Transcript) -> Transcript:
    """Join turns of a speaker that touch or overlap: pyannote counts time of the latter twice."""
    rows = [
        Segment(speaker, start_s, end_s, "")
        for speaker in transcript.speakers
        for start_s, end_s in merged(
            [(s.start_s, s.end_s) for s in transcript.segments if s.speaker == speaker]
        )
    ]
    return transcript.with_segments(sorted(rows, key=lambda s: (s.start_s, s.end_s)))


def word_cases(pairs: Pairs) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Yield the name of each case, and id, reference for sclite and hypothesis of each segment of both sides."""
    normalised = Normalisation()
    rows = []
    for session, (ours, theirs) in pairs.items():
        for n, (one, other) in enumerate(zip(ours.segments, theirs.segments, strict=True)):
            texts = [" ".join(normalised.words(s.text)) for s in (one, other)]
            if texts[0]:
                rows.append((f"{session}-{n:05d}", *texts))
    yield "as they are", rows

    def every(step: int, change: Any) -> list[tuple[str, str, str]]:
        changed = []
        for name, said, other in rows:
            words, got = said.split(), other.split()
            marked = [change(w, n, got) if n % step == 0 else w for n, w in enumerate(words)]
            changed.append((name, " ".join(marked), other))
        return changed

    def alternative(word: str, n: int, got: list[str]) -> str:
        near = got[n % len(got)] if got else word
        return f"{{ {word} / {near} {word} / @ }}"

    yield "alternatives", every(5, alternative)
    yield "optional words", every(3, lambda word, n, got: f"({word})")


def words_of_ours(rows: list[tuple[str, str, str]]) -> dict[str, tuple[int, ...]]:
    from speaker_reasoner.formats.choices import parse_choices

    counts = {}
    for name, said, other in rows:
        choices = parse_choices(said)
        text = first_choices(choices) if choices else said
        ours = Transcript(name, 1.0, (Segment("A", 0.0, 1.0, text, choices=choices),))
        theirs = Transcript(name, 1.0, (Segment("A", 0.0, 1.0, other),))
        reference, hypothesis, skipped = scored(ours, theirs, str.split)
        sides = [
            [w for s in side.segments for w in s.text.split()] for side in (reference, hypothesis)
        ]
        errors = word_errors(*sides)
        counts[name] = (
            errors.insertions,
            errors.deletions,
            errors.substitutions,
            errors.reference_words + skipped,
        )
    return counts


def words_of_sclite(sctk: Path, rows: list[tuple[str, str, str]]) -> dict[str, tuple[int, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        for side, place in (("ref", 1), ("hyp", 2)):
            lines = [f"{row[place]} (s-{row[0]})\n" for row in rows]
            (Path(folder) / side).write_text("".join(lines), encoding="utf-8")
        files = ["-r", "ref", "trn", "-h", "hyp", "trn", "-i", "spu_id", "-e", "utf-8", "-D"]
        run = [str((sctk / "sclite").absolute()), *files, "-o", "pra", "-O", ".", "-n", "out"]
        subprocess.run(run, cwd=folder, capture_output=True, check=True)
        printed = (Path(folder) / "out.pra").read_text(encoding="utf-8", errors="replace")
    counts = {}
    rows_of = re.findall(
        r"^id: \(s-(.*?)\)$.*?^Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)$",
        printed,
        re.MULTILINE | re.DOTALL,
    )
    for name, *values in rows_of:
        right, substituted, deleted, inserted = map(int, values)
        counts[name.lower()] = (inserted, deleted, substituted, right + substituted + deleted)
    return counts


def of_meeteval(pairs: Pairs) -> dict[str, dict[str, int]]:
    """Run MeetEval's command line on the words that we compare."""
    commands = {"cpwer": [], "tcpwer": ["--collar", "5"], "greedy_orcwer": []}
    sums = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side in (0, 1):
            rows = [
                {
                    "session_id": session,
                    "speaker": s.speaker,
                    "start_time": s.start_s,
                    "end_time": s.end_s,
                    "words": " ".join(Normalisation().words(s.text)),
                }
                for session, both in pairs.items()
                for s in both[side].segments
            ]
            (folder / f"{side}.json").write_text(json.dumps(rows), encoding="utf-8")
        for metric, options in commands.items():
            run = [
                sys.executable,
                "-m",
                "meeteval.wer",
                metric,
                "-r",
                "0.json",
                "-h",
                "1.json",
                *options,
            ]
            run += ["--average-out", "out.json", "--per-reco-out", "each.json"]
            subprocess.run(run, cwd=folder, capture_output=True, check=True)
            made = json.loads((folder / "out.json").read_text())
            sums[metric.removeprefix("greedy_")] = {
                "errors": made["errors"],
                "reference_words": made["length"],
            }
    return sums


def error_sums(pairs: Pairs) -> dict[str, dict[str, int]]:
    sums = {name: {"errors": 0, "reference_words": 0} for name in ("cpwer", "tcpwer", "orcwer")}
    for ours, theirs in pairs.values():
        made = score(ours, theirs)
        for name, values in sums.items():
            counts = getattr(made, name)
            values["errors"] += counts.insertions + counts.deletions + counts.substitutions
            values["reference_words"] += counts.reference_words
    return sums


def largest(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return round(max(abs(one[kind] - other[kind]) for kind in one), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("--sctk", type=Path, required=True, help="folder of md-eval.pl and sclite")
    arguments = parser.parse_args()
    console = Console()
    references = {n: rounded(one) for n, one in load(arguments.references).items()}
    pairs = {name: (one, rounded(corrupted(one))) for name, one in references.items()}
    time = []
    for name, collar_s, both, by_uem in time_cases(pairs):
        row: dict[str, Any] = {"case": name, "ours_s": of_ours(both, collar_s)}
        row["md_eval_s"] = of_md_eval(arguments.sctk, both, collar_s, by_uem)
        turns = {session: (joined(one), joined(other)) for session, (one, other) in both.items()}
        row |= {"joined_s": of_ours(turns, collar_s), "pyannote_s": of_pyannote(turns, collar_s)}
        row["md_eval_differs_s"] = largest(row["ours_s"], row["md_eval_s"])
        row["pyannote_differs_s"] = largest(row["joined_s"], row["pyannote_s"])
        console.print(row)
        time.append(row)
    words = []
    for name, rows in word_cases(pairs):
        ours, theirs = words_of_ours(rows), words_of_sclite(arguments.sctk, rows)
        ours = {key.lower(): value for key, value in ours.items()}
        both_sums = [
            dict(zip(WORDS, map(sum, zip(*side.values(), strict=True)), strict=True))
            for side in (ours, theirs)
        ]
        totals = {name: (sum(ours[name][:3]), sum(theirs.get(name, (-1,))[:3])) for name in ours}
        words.append(
            {
                "case": name,
                "segments": len(rows),
                "ours": both_sums[0],
                "sclite": both_sums[1],
                "segments_with_other_errors": sum(a != b for a, b in totals.values()),
            }
        )
        console.print(words[-1])
    speakers = {"ours": error_sums(pairs), "meeteval": of_meeteval(pairs)}
    console.print(speakers)
    stored = {
        "data": arguments.references.name,
        "recordings": len(pairs),
        "time": time,
        "words": words,
        "speakers": speakers,
        "command": f"python benchmarks/agreement.py {arguments.references.name} --sctk SCTK/bin",
    }
    console.print(f"wrote {store('agreement', stored)}")


if __name__ == "__main__":
    main()
