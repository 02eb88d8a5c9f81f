"""Workers killed at random: the same bytes as one undisturbed process.

    python benchmarks/survival.py [--recordings 2000] [--hours 10] [--kills 20] [--work DIR]

Short recordings of 1 to 3 s and a long one, of faint noise, on a local Ray cluster of two workers, with the tests'
simulated engine. One of the workers gets SIGKILL at random moments, spread over the run, until there were enough
kills. Compared are the tables (JSONL and lhotse) and the files of every recording. Writes
docs/results/survival.json; ends with an error where a byte differs.
"""

import argparse
import json
import os
import random
import signal
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
TABLES = "jsonl,lhotse"
_MEASURED = ("wall_s", "real_time_factor", "stage_s", "speed", "made")
"""Keys of a transcript's `info` that are measured, and differ from run to run."""


def record(folder: Path, recordings: int, hours: float) -> None:
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(recordings):
        samples = rng.integers(-4, 5, 16000 * (1 + number % 3), dtype=np.int16)
        soundfile.write(folder / f"r{number:05d}.flac", samples, 16000)
    with soundfile.SoundFile(folder / "long.flac", "w", 16000, 1, "PCM_16") as file:
        for _ in range(round(hours * 60)):
            file.write(rng.integers(-4, 5, 16000 * 60, dtype=np.int16))


def start(source: Path, out: Path, turn_s: float, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.simulated", "batch", str(source), "-o", str(out)]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "SIMULATED_S": str(turn_s)}
    with Path(str(out) + ".log").open("wb") as log:
        return subprocess.Popen(
            [*command, "-f", TABLES, "-q", *words],
            cwd=ROOT,
            env={**os.environ, **own},
            stdout=log,
            stderr=log,
        )


def ended(process: subprocess.Popen[bytes], out: Path) -> None:
    if process.wait():
        sys.exit(Path(str(out) + ".log").read_text()[-3000:])


def workers(root: int) -> list[int]:
    """Processes below `root` that hold an engine."""
    parents, named = {}, []
    for place in Path("/proc").iterdir():
        try:
            if not place.name.isdigit():
                continue
            title = (place / "cmdline").read_bytes()
            parents[int(place.name)] = int(
                (place / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except OSError:  # it has ended
            continue
        if title.startswith(b"ray::MapWorker"):
            named.append(int(place.name))
    return [one for one in named if _below(one, root, parents)]


def _below(one: int, root: int, parents: dict[int, int]) -> bool:
    while one > 1:
        if one == root:
            return True
        one = parents.get(one, 0)
    return False


def written(out: Path) -> dict[str, Any]:
    """Tables by their bytes; transcripts without the times that were measured."""
    files: dict[str, Any] = {}
    for path in sorted(out.iterdir()):
        if path.is_file() and not path.name.startswith("report"):
            files[path.name] = path.read_bytes()
    for path in sorted((out / "transcripts").glob("*.json")):
        values = json.loads(path.read_text())
        values["info"] = {k: v for k, v in values.get("info", {}).items() if k not in _MEASURED}
        files[path.name] = values
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=2000)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every-s", type=float, default=8.0, help="mean time between kills")
    parser.add_argument("--turn-s", type=float, default=0.01, help="what the engine waits a turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=None, help="folder for its files")
    arguments = parser.parse_args()
    rng, kills = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        folder = Path(name)
        source, whole, out = folder / "calls", folder / "whole", folder / "out"
        record(source, arguments.recordings, arguments.hours)
        begun = time.monotonic()
        ended(start(source, whole, 0.0), whole)
        whole_s = time.monotonic() - begun
        print(f"one process, whose engine does not wait: {whole_s:.0f} s", flush=True)
        begun = time.monotonic()
        process = start(source, out, arguments.turn_s, "--workers", "2")
        due = 0.0
        while process.poll() is None:
            time.sleep(0.2)
            alive = workers(process.pid)
            now = time.monotonic() - begun
            if len(kills) == arguments.kills or not alive or not any(out.rglob("*.journal")):
                continue
            if due == 0.0 or now > due:
                if due:
                    os.kill(rng.choice(alive), signal.SIGKILL)
                    done = sum(1 for _ in (out / "transcripts").glob("*.json"))
                    kills.append({"at_s": round(now, 1), "recordings_done": done})
                    print(kills[-1], flush=True)
                due = now + rng.uniform(0.5, 1.5) * arguments.every_s
        ended(process, out)
        killed_s = time.monotonic() - begun
        one, other = written(whole), written(out)
        differing = sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))
        left = [str(path.relative_to(out)) for path in out.rglob("*.share-*")]
    result = {
        "recordings": arguments.recordings,
        "long_recording_h": arguments.hours,
        "load": os.getloadavg(),
        "one_process_s": round(whole_s, 1),
        "two_workers_with_kills_s": round(killed_s, 1),
        "kills": kills,
        "files_compared": len(one),
        "files_that_differ": differing,
        "files_of_shares_left": left,
    }
    if len(kills) < arguments.kills or differing or left:
        sys.exit(json.dumps(result, indent=2)[-3000:])
    print(store("survival", result))


if __name__ == "__main__":
    main()
