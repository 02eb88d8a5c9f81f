"""Batch runs: two workers against one, Ray against the plain loop, shards against one run, memory by rows.

    python benchmarks/scale.py [--recordings 28] [--repeats 2] [--rows 5000]

Recordings of 30 s on the embedded checkpoint, one thread a process. Each repeat runs all variants one after the
other, so that other load on the machine affects all of them; ratios are taken within a repeat. Each variant runs over
four of the recordings and over all of them: the difference is the time of a recording, the rest is the start of
engines and of Ray. Memory is the peak of the driving process with rows whose files are absent: each is listed, tried,
and kept as a failure. Writes docs/results/scale.json.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common import spread, store

ROOT = Path(__file__).parent.parent
_PEAK = (
    "import resource, sys; from speaker_reasoner.cli import main; status = main(sys.argv[1:]);"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(status)"
)
VARIANTS: dict[str, list[list[str]]] = {
    "plain": [[]],
    "one worker": [["--workers", "1"]],
    "two workers": [["--workers", "2"]],
}
SHARDS = [["--shard", f"{number}/8"] for number in range(1, 9)]
_FEW = 4
"""Recordings of the small run, which shows the start."""


def batch(source: Path, out: Path, *words: str) -> tuple[dict[str, Any], int]:
    """Run one command; its report, and its peak memory in KiB."""
    command = ["batch", str(source), "-o", str(out), "--model", "tiny", "-q", *words]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    newest = max(out.glob("report*.json"), key=lambda path: path.stat().st_mtime_ns, default=None)
    if newest is None:
        sys.exit(f"batch {' '.join(words)} ended without a report:\n{done.stderr[-2000:]}")
    return json.loads(newest.read_text()), int(done.stderr.split()[-1])


def merged(out: Path) -> bytes:
    subprocess.run([sys.executable, "-m", "speaker_reasoner", "batch", "merge", out], check=True)
    return (out / "transcripts.jsonl").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=28)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--rows", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said, rate = soundfile.read(ROOT / "examples" / "meeting.flac", dtype="float32")
        few, many = folder / "few", folder / "many"
        few.mkdir()
        many.mkdir()
        for number in range(arguments.recordings):
            samples = np.resize(np.roll(said, number * 1000), 30 * rate)
            soundfile.write(many / f"r{number:03d}.flac", samples, rate)
            if number < _FEW:
                shutil.copy(many / f"r{number:03d}.flac", few)
        each: list[dict[str, float]] = []
        starts: list[dict[str, float]] = []
        tables = set()

        def run(source: Path, runs: list[list[str]]) -> tuple[float, bytes]:
            out = folder / "out"
            wall_s = sum(batch(source, out, *words)[0]["wall_s"] for words in runs)
            table = merged(out)
            shutil.rmtree(out)
            return wall_s, table

        for _ in range(arguments.repeats):
            each.append({})
            starts.append({})
            for variant, runs in VARIANTS.items():
                short_s, _ = run(few, runs)
                long_s, table = run(many, runs)
                tables.add(table)
                each[-1][variant] = (long_s - short_s) / (arguments.recordings - _FEW)
                starts[-1][variant] = short_s - _FEW * each[-1][variant]
        tables.add(run(many, SHARDS)[1])
        peaks = {}
        for rows in (100, arguments.rows):
            lines = (f'{{"audio_filepath": "lost/{n}.wav", "duration": 9}}\n' for n in range(rows))
            (folder / "rows.jsonl").write_text("".join(lines))
            peaks[rows] = batch(folder / "rows.jsonl", folder / f"rows-{rows}")[1]
    result = {
        "recordings": arguments.recordings,
        "recording_s": 30.0,
        "load": os.getloadavg(),
        "each_s": {variant: spread([one[variant] for one in each]) for variant in VARIANTS},
        "start_s": {variant: spread([one[variant] for one in starts]) for variant in VARIANTS},
        "two_workers_times_faster": spread([t["one worker"] / t["two workers"] for t in each]),
        "ray_over_plain": spread([t["one worker"] / t["plain"] for t in each]),
        "same_tables_also_of_eight_shards": len(tables) == 1,
        "peak_kib_by_rows": peaks,
        "bytes_per_row": round(
            (peaks[arguments.rows] - peaks[100]) * 1024 / (arguments.rows - 100)
        ),
    }
    print(store("scale", result))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
