"""Long recordings: time for each minute of audio, and peak memory.

    python benchmarks/scaling.py time         # 5 and 60 minutes, in turn, three times
    python benchmarks/scaling.py memory       # 10 minutes and 4 hours
    python benchmarks/scaling.py memory --model cascade --recording examples/ami.flac --name scaling-memory-cascade

Each is one run of the command line, in a process of its own, on a held-out meeting of 5 minutes, or on another
recording, that is repeated until it is long enough.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile as sf
from rich.console import Console

from common import spread, store
from heldout_set import BANK, MEETINGS
from speaker_reasoner import audio
from speaker_reasoner.audio import Samples
from speaker_reasoner.data.banks import bank
from speaker_reasoner.data.simulate import meeting

PART_MIN = 5
MINUTES = {"time": (5, 60), "memory": (10, 240)}


def drawn(banks: Path) -> Samples:
    """A held-out meeting."""
    config = replace(
        MEETINGS,
        speakers=(4, 4),
        utterances=(5000, 5000),
        max_duration_s=60 * PART_MIN,
        snr_db=(18.0, 40.0),
    )
    return meeting(bank(BANK, banks), config, "scaling").samples


def write(part: Samples, folder: Path, minutes: int) -> Path:
    path = folder / f"{minutes}-minutes.flac"
    left = minutes * 60 * audio.SAMPLE_RATE_HZ
    with sf.SoundFile(path, "w", audio.SAMPLE_RATE_HZ, 1) as file:
        while left > 0:
            file.write(part[:left])
            left -= len(part)
    return path


def run(path: Path, model: str) -> tuple[float, int, float]:
    """Wall seconds, peak memory in MiB, and minutes of audio of one run."""
    out = path.parent / "out"
    command = [sys.executable, "-m", "speaker_reasoner", "transcribe", str(path), "--model", model]
    command += ["-q", "-o", str(out), "--format", "txt"]
    begun = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"transcribing {path.name} ended with status {status}")
    wall_s = time.perf_counter() - begun
    return wall_s, usage.ru_maxrss // 1024, sf.info(path).duration / 60


def measure(what: str, part: Samples, model: str, repeats: int) -> dict[str, Any]:
    rows: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [write(part, Path(folder), minutes) for minutes in MINUTES[what]]
        for _ in range(repeats):
            for path in paths:
                wall_s, peak_mib, minutes = run(path, model)
                row = rows.setdefault(path.stem, {"s_per_minute": [], "peak_mib": []})
                row["s_per_minute"].append(wall_s / minutes)
                row["peak_mib"].append(peak_mib)
    short, long = rows.values()
    key = "s_per_minute" if what == "time" else "peak_mib"
    ratios = [b / a for a, b in zip(short[key], long[key], strict=True)]
    return {
        "model": model,
        "recordings": {n: {k: spread(v) for k, v in row.items()} for n, row in rows.items()},
        "ratio": spread(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=MINUTES)
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--recording", type=Path, help="repeated in place of a drawn meeting")
    parser.add_argument("--name", help="of the stored result; default: scaling-WHAT")
    parser.add_argument("--repeats", type=int, help="default: 3 for time, 1 for memory")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (3 if arguments.what == "time" else 1)
    given = arguments.recording
    part = drawn(arguments.banks) if given is None else audio.load(given)
    stored = measure(arguments.what, part, arguments.model, repeats)
    stored["recording"] = "drawn" if given is None else given.name
    path = store(arguments.name or f"scaling-{arguments.what}", stored)
    console = Console()
    for name, row in stored["recordings"].items():
        seconds, peak = row["s_per_minute"]["median"], row["peak_mib"]["median"]
        console.print(f"{name}: {seconds:.2f} s for each minute, {peak:.0f} MiB at most")
    console.print(f"ratio of {arguments.what}: {stored['ratio']['median']:.3f}")
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()
