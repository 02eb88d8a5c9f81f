"""Time of scoring references of a corpus against copies with planted errors, with every metric and subset.

    python benchmarks/scoring.py REFERENCES [--gender-from suffix]            # this build
    python benchmarks/scoring.py REFERENCES --vs ../other/src --rounds 5      # and another one's package

With `--vs` the builds run one after the other, each in a process of its own, `--rounds` times; medians and
extremes are stored. REFERENCES is a file or folder as `speaker-reasoner evaluate score` takes it, such as
AISHELL-4's. Of 100 words of a copy about 5 are other words, 5 are missing and 3 are added; one segment in ten
has another speaker; boundaries are moved by 0.15 s (standard deviation).
"""

import argparse
import inspect
import json
import os
import random
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import spread, store
from speaker_reasoner.evaluate import Normalisation
from speaker_reasoner.evaluate.pairs import pair
from speaker_reasoner.evaluate.results import evaluate
from speaker_reasoner.formats.folders import load
from speaker_reasoner.transcript import Transcript


def corrupted(reference: Transcript) -> Transcript:
    """A copy with planted errors, the same for the same recording."""
    rng = random.Random(reference.recording)
    vocabulary = [word for segment in reference.segments for word in segment.text.split()]
    segments = []
    for segment in reference.segments:
        words: list[str] = []
        for word in segment.text.split():
            fate = rng.random()
            if fate < 0.05:
                words.append(rng.choice(vocabulary))
            elif fate < 0.13:
                words += [word, rng.choice(vocabulary)] if fate >= 0.10 else []
            else:
                words.append(word)
        start_s = max(0.0, segment.start_s + rng.gauss(0, 0.15))
        end_s = max(start_s + 0.05, segment.end_s + rng.gauss(0, 0.15))
        speaker = rng.choice(reference.speakers) if rng.random() < 0.1 else segment.speaker
        text = " ".join(words)
        segments.append(replace(segment, speaker=speaker, start_s=start_s, end_s=end_s, text=text))
    return reference.with_segments(segments)


def timed(references: Path, gender_from: str | None) -> dict[str, Any]:
    """Read and score, by whichever build is imported."""
    begun, used = time.perf_counter(), _processor_s()
    ours = load(references, gender_from=gender_from)
    read = {"wall_s": time.perf_counter() - begun, "cpu_s": _processor_s() - used}
    theirs = {name: corrupted(one) for name, one in ours.items()}
    begun, used = time.perf_counter(), _processor_s()
    pairs = pair(ours, theirs)
    has_jobs = "jobs" in inspect.signature(evaluate).parameters  # before, always on all cores
    jobs = {"jobs": os.cpu_count() or 1} if has_jobs else {}
    result = evaluate(
        pairs, Normalisation(), system="planted errors", data=references.name, quiet=True, **jobs
    )
    return {
        "load_s": read["wall_s"],
        "score_s": time.perf_counter() - begun,
        "cpu_s": read["cpu_s"] + _processor_s() - used,
        "recordings": len(pairs),
        "segments": sum(len(one.segments) for one in ours.values()),
        "scores": result["scores"],
    }


def _processor_s() -> float:
    """Processor time of this process and of those that it began and that have ended."""
    kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def run(build: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """`timed` in a process of a build."""
    words = [sys.executable, __file__, str(arguments.references.resolve()), "--alone"]
    if arguments.gender_from:
        words += ["--gender-from", arguments.gender_from]
    environment = {**os.environ, "PYTHONPATH": str(build), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{build}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("--gender-from", choices=("suffix", "prefix"))
    parser.add_argument("--vs", type=Path, help="src of another build")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--name", default="scoring", help="name of the stored result")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        json.dump(timed(arguments.references, arguments.gender_from), sys.stdout)
        return
    builds = {"this": Path(__file__).resolve().parents[1] / "src"}
    if arguments.vs is not None:
        builds["other"] = arguments.vs.resolve()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in builds}
    for number in range(arguments.rounds):
        for name, build in builds.items():
            runs[name].append(run(build, arguments))
            print(number, name, f"{runs[name][-1]['score_s']:.1f} s", file=sys.stderr)
    last = runs["this"][-1]
    stored: dict[str, Any] = {
        "data": arguments.references.name,
        "recordings": last["recordings"],
        "segments": last["segments"],
        "speech_s": round(last["scores"]["der_0"]["reference_s"], 1),
        "rounds": arguments.rounds,
    }
    for key in ("load_s", "score_s", "cpu_s"):
        stored[key] = spread([one[key] for one in runs["this"]])
    if arguments.vs is not None:
        git = ["git", "-C", str(arguments.vs), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        of_other = {
            key: spread([one[key] for one in runs["other"]])
            for key in ("load_s", "score_s", "cpu_s")
        }
        stored["other"] = {"commit": commit, **of_other}
        both = list(zip(runs["this"], runs["other"], strict=True))
        whole = [[a["load_s"] + a["score_s"] for a in one] for one in both]
        stored["share_of_time"] = spread([a / b for a, b in whole])
        stored["share_of_cpu"] = spread([a["cpu_s"] / b["cpu_s"] for a, b in both])
    stored["scores"] = last["scores"]
    stored["command"] = f"python benchmarks/scoring.py {arguments.references.name}"
    if arguments.gender_from:
        stored["command"] += f" --gender-from {arguments.gender_from}"
    if arguments.vs is not None:
        stored["command"] += " --vs SRC"
    if arguments.rounds > 1:
        stored["command"] += f" --rounds {arguments.rounds}"
    print(f"wrote {store(arguments.name, stored)}", file=sys.stderr)


if __name__ == "__main__":
    main()
