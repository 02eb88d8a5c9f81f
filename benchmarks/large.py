"""Time to read a file of 100,000 segments in each format, and to score it with all metrics.

    python benchmarks/large.py                       # this build
    python benchmarks/large.py --vs OTHER/src        # and another one, in turns on the same machine

The transcript is made: six people, three words a segment of 3,000 words, one segment in twenty with an inserted
word in the hypothesis. ORC-WER, one of the metrics, is measured alone, too, where the build computes it.
Each measurement is a process of its own; of `--runs` the least counts.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from common import store

FORMATS = ("stm", "rttm", "ctm", "srt", "vtt", "textgrid", "seglst", "json")


def made(segments: int) -> list:  # of Transcript, of whichever build is imported
    from speaker_reasoner.transcript import Segment, Transcript

    rng = random.Random(0)
    words = [f"word{i}" for i in range(3000)]
    rows = [
        Segment(
            f"S{rng.randrange(6)}", i, i + rng.uniform(0.5, 2), " ".join(rng.choices(words, k=3))
        )
        for i in range(segments)
    ]
    reference = Transcript("talk", float(segments + 2), tuple(rows))
    other = [
        replace(s, text=f"new {s.text}" if i % 20 == 0 else s.text) for i, s in enumerate(rows)
    ]
    return [reference, reference.with_segments(other)]


def measure(segments: int, folder: Path) -> dict[str, float]:
    """Seconds of each step in this process."""
    import speaker_reasoner
    from speaker_reasoner import formats
    from speaker_reasoner.evaluate import score
    from speaker_reasoner.evaluate.words import combination_errors

    assert str(Path(speaker_reasoner.__file__).parents[1]) == os.environ["PYTHONPATH"]
    took_s = {}
    reference, hypothesis = made(segments)
    for name in FORMATS:
        path = folder / f"talk{formats.FORMATS[name].suffix}"
        path.write_text(formats.render(reference, name), encoding="utf-8")
        begun = time.perf_counter()
        formats.read(path)
        took_s[f"read_{name}"] = round(time.perf_counter() - begun, 3)
    begun = time.perf_counter()
    scores = score(reference, hypothesis)
    took_s["score"] = round(time.perf_counter() - begun, 3)
    for metric in scores.skipped:
        print(f"left out: {metric}: {scores.skipped[metric]}", file=sys.stderr)
    begun = time.perf_counter()
    if scores.orcwer is not None:
        combination_errors(
            *([(s, s.text.split()) for s in t.segments] for t in (reference, hypothesis))
        )
        took_s["orcwer"] = round(time.perf_counter() - begun, 3)
    return took_s


def run(build: Path, segments: int) -> dict[str, float]:
    """The same in a process of a build."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--here", folder, "--segments", str(segments)]
        environment = {**os.environ, "PYTHONPATH": str(build), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--vs", type=Path, help="src of another build")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.segments, arguments.here)))
        return
    builds = {"this": Path(__file__).resolve().parents[1] / "src"}
    if arguments.vs:
        builds["other"] = arguments.vs.resolve()
    best: dict[str, dict[str, float]] = {name: {} for name in builds}
    for _ in range(arguments.runs):
        for name, build in builds.items():
            for step, seconds in run(build, arguments.segments).items():
                best[name][step] = min(seconds, best[name].get(step, seconds))
    for step, seconds in best["this"].items():
        other = best.get("other", {}).get(step)
        against = f", before {other:.2f} s: {other / seconds:.1f} times as long" if other else ""
        print(f"{step}: {seconds:.2f} s{against}")
    stored = {"segments": arguments.segments, "runs": arguments.runs, "seconds": best}
    stored["command"] = (
        f"python benchmarks/large.py --segments {arguments.segments} --runs {arguments.runs}"
    )
    if arguments.vs:
        stored["command"] += " --vs OTHER/src"
    print(f"wrote {store('large', stored)}")


if __name__ == "__main__":
    main()
