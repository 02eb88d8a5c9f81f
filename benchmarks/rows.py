"""Memory of a batch run by the number of its recordings, with an engine that costs nothing.

    python benchmarks/rows.py [--rows 100 2000 20000 100000] [--work DIR]

Each recording is a file of 1 s (hard links of one file) that is read, cut into chunks, answered by the tests'
simulated engine, and written, with its marker, and the table at the end. Memory is the peak of the driving process
(`VmHWM`), without and with two workers of Ray. Put `--work` on a disk in memory: every recording is synchronised to
the disk, which would be most of the time. Writes docs/results/rows.json, or another NAME.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common import store

ROOT = Path(__file__).parent.parent
_DRIVE = (
    "import sys; from pathlib import Path; from unittest.mock import patch; from tests import simulated;"
    "p = patch('speaker_reasoner.commands.batch.load_silently', simulated.load); p.start();"
    "status = simulated.main(sys.argv[1:]);"
    "[peak] = [l for l in Path('/proc/self/status').read_text().splitlines() if l.startswith('VmHWM')];"
    "print(peak.split()[1], file=sys.stderr); sys.exit(status)"
)
VARIANTS: dict[str, list[str]] = {"plain": [], "two workers": ["--workers", "2"]}


def drive(source: Path, out: Path, *words: str) -> dict[str, Any]:
    """Run one command to its end; return its peak memory, its seconds, and the outcome of its rows."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _DRIVE, "batch", str(source), "-o", str(out), "-q", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        check=False,
    )
    if done.returncode:
        sys.exit(f"batch ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    wall_s = time.monotonic() - begun
    report = json.loads((out / "report.json").read_text())
    table = (out / "transcripts.jsonl").read_bytes()
    return {
        "peak_kib": int(done.stderr.split()[-1]),
        "wall_s": round(wall_s, 1),
        "done": report["done"],
        "rows_in_table": table.count(b"\n"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 2000, 20000, 100000])
    parser.add_argument("--work", type=Path, default=None, help="folder for its files")
    parser.add_argument("--name", default="rows", help="of the result")
    arguments = parser.parse_args()
    runs: dict[str, dict[int, Any]] = {variant: {} for variant in VARIANTS}
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        folder, one = Path(name), Path(name) / "one.wav"
        samples = np.random.default_rng(1).normal(size=16000) * 3000
        soundfile.write(one, samples.astype(np.int16), 16000)
        source, there = folder / "calls", 0
        source.mkdir()
        for rows in sorted(arguments.rows):
            for number in range(there, rows):
                if number % 1000 == 0:  # a file has at most 65,000 links in some file systems
                    one = source / f"r{number:06d}.wav"
                    shutil.copyfile(folder / "one.wav", one)
                else:
                    os.link(one, source / f"r{number:06d}.wav")
            there = rows
            for variant, words in VARIANTS.items():
                runs[variant][rows] = drive(source, folder / "out", *words)
                shutil.rmtree(folder / "out")
                print(variant, rows, runs[variant][rows], flush=True)
    few, many = min(arguments.rows), max(arguments.rows)
    bytes_per_row = {
        variant: round((by[many]["peak_kib"] - by[few]["peak_kib"]) * 1024 / (many - few))
        for variant, by in runs.items()
    }
    result = {"load": os.getloadavg(), "runs": runs, "bytes_per_row": bytes_per_row}
    print(store(arguments.name, result))


if __name__ == "__main__":
    main()
