"""The systems that need no service, over real and simulated recordings: one leaderboard, and the time to make it.

    python benchmarks/leaderboard.py [--real FOLDER] [--banks DIR]

Makes the simulated sets, runs every system of `SYSTEMS` on every set by `evaluate run` (which resumes), and
writes docs/reports/leaderboard.html and docs/results/leaderboard.json. FOLDER holds the recordings of `real.py`;
without it the real set is left out. docs/results/leaderboard-time.json says how long it takes to score all
transcripts and make the page, and to make it again when nothing has changed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from common import store
from real import CLIPS, reference
from speaker_reasoner.evaluate import Normalisation
from speaker_reasoner.evaluate.inputs import read_sides
from speaker_reasoner.evaluate.leaderboard import leaderboard
from speaker_reasoner.evaluate.leaderboard_files import before
from speaker_reasoner.evaluate.leaderboard_files import write as write_page
from speaker_reasoner.evaluate.pairs import pair
from speaker_reasoner.evaluate.results import evaluate, load_result, save
from speaker_reasoner.formats import write

ROOT = Path(__file__).parent.parent
RUNS = Path("runs/leaderboard")
PAGE, OBJECT = Path("docs/reports/leaderboard.html"), Path("docs/results/leaderboard.json")
SYSTEMS = {
    "cascade": ["--system", "cascade"],
    "embedded": ["--model", "tiny"],
    "faster-whisper alone": ["--system", "faster-whisper"],
    "local diarizer alone": ["--system", "local-diarizer"],
}
"""The name of each row, and the arguments of `evaluate run` for it."""


def tool(*words: object) -> None:
    """Run a command of this package in the repository."""
    done = subprocess.run(
        [sys.executable, "-m", "speaker_reasoner", *map(str, words)], cwd=ROOT, check=False
    )
    if done.returncode not in (0, 1):  # 1: some recordings failed, which is a result
        raise SystemExit(f"{' '.join(map(str, words))}: exit code {done.returncode}")


def simulated(name: str, count: int, banks: Path, *more: str) -> Path:
    """Make a simulated set, if it is not there."""
    folder = RUNS / "sets" / name
    if len(list((ROOT / folder).glob("*.flac"))) < count:
        words = ["-o", folder, "--count", count, "--banks", banks, *more]
        subprocess.run(
            [sys.executable, ROOT / "benchmarks/meetings.py", *map(str, words)],
            cwd=ROOT,
            check=True,
        )
    return folder


def real(folder: Path) -> Path:
    """A manifest of the real recordings that have a reference."""
    made = ROOT / RUNS / "sets" / "real"
    made.mkdir(parents=True, exist_ok=True)
    rows = []
    for clip in CLIPS:
        truth = reference(folder, clip)
        if truth is not None:
            write(truth, made, ["json"])
            audio = str((folder / clip.file).absolute())
            rows.append({"audio": audio, "reference": f"{truth.recording}.json"})
    manifest = made / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest.relative_to(ROOT)


def measure(runs: list[Path]) -> dict[str, Any]:
    """Seconds to score all transcripts and make the leaderboard, and to make it once more, in this process."""
    again = ROOT / RUNS / "again"
    shutil.rmtree(again, ignore_errors=True)
    results, scoring_s = [], 0.0
    for run in runs:
        stored = load_result(ROOT / run / "evaluation.json")
        sides = read_sides(ROOT / run / "references", ROOT / run / "hypotheses")
        pairs = pair(sides.references, sides.hypotheses, lost=True)
        words = stored["settings"].get("gives", {}).get("words", True)
        begun = time.perf_counter()
        result = evaluate(
            pairs,
            Normalisation(),
            system=stored["system"],
            data=stored["data"],
            mode=stored["mode"],
            words=words,
            quiet=True,
        )
        scoring_s += time.perf_counter() - begun
        results.append(again / f"{run.parent.name}-{run.name}.json")
        save(result, results[-1])
    page, seconds = again / "page.html", []
    for _ in range(2):
        begun = time.perf_counter()
        write_page(leaderboard(results, before(page)), page)
        seconds.append(time.perf_counter() - begun)
    first_s = scoring_s + seconds[0]
    return {
        "results": len(results),
        "scoring_s": round(scoring_s, 3),
        "leaderboard_s": round(seconds[0], 3),
        "leaderboard_again_s": round(seconds[1], 4),
        "again_to_first": round(seconds[1] / first_s, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="recordings of real.py")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    sets = {
        "simulated meetings": simulated("meetings", 10, arguments.banks.resolve(), "--long"),
        "simulated dialogues": simulated("dialogues", 40, arguments.banks.resolve()),
    }
    if arguments.real is not None:
        sets = {"real recordings": real(arguments.real), **sets}
    runs = []
    for data, path in sets.items():
        for row, words in SYSTEMS.items():
            runs.append(RUNS / data.replace(" ", "-") / row.replace(" ", "-"))
            named = ("--row", row, "--data-name", data)
            tool("evaluate", "run", "--data", path, *words, *named, "-o", runs[-1])
    tool("evaluate", "leaderboard", *runs, "-o", PAGE, "-o", OBJECT)
    measured = measure(runs)
    Console(stderr=True).print(f"wrote {PAGE}, {OBJECT}, {store('leaderboard-time', measured)}")


if __name__ == "__main__":
    main()
