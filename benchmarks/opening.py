"""Time from opening a finished recording to the page's first line, against an older build.

    git worktree add ../older COMMIT
    python benchmarks/opening.py ../older [--times 15] [--hours 10]

Each build runs a server of its own, from its own checkout, with its own page; both get the same two recordings, of
ten minutes and of ten hours (silent in four fifths), of three people who hum in turns, which the scripted engine of
the tests transcribes. Then Chromium opens each recording at each build in turns, in a fresh context every time: the
time is that from the beginning of the navigation until the first line is in the document, as the page's own clock
has it. Writes docs/results/opening.json. Needs playwright and a Chromium.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import soundfile

from common import spread, store

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser import chromium  # noqa: E402

RATE_HZ = 16_000
_SERVE = """
import sys
from importlib import import_module
from speaker_reasoner.cli import main
from speaker_reasoner.engines.scripted import ScriptedEngine
from tests.test_meetings import CACHED, Humming

class Engine(ScriptedEngine):
    def detector(self, name):
        return lambda samples: [(0.0, len(samples) / 16_000)]

for place in ("speaker_reasoner.cli", "speaker_reasoner.commands.serve"):  # of either build
    module = import_module(place)
    if hasattr(module, "load_quietly"):
        module.load_quietly = lambda *_, **__: Engine(Humming(), CACHED)
sys.exit(main(["serve", "--port", "0", "--max-duration", "18", "--store", sys.argv[1]]))
"""
_WATCH = """
new MutationObserver((_, me) => {
  if (!document.querySelector(".line")) return;
  window.firstLineMs = performance.now();
  me.disconnect();
}).observe(document, { childList: true, subtree: true });
"""

_PERIOD_S, _SPOKEN_S = 60.0, 12.0
"""Seconds of speech in every minute of the longer recording: six turns (assumed; 3,600 lines in ten hours)."""
_TURN_S, _PAUSE_S, _PITCHES_HZ = 1.5, 0.3, (300, 700, 1000)


def record(path: Path, duration_s: float, spoken_s: float) -> None:
    """Write a recording of three people who hum in turns, in so many seconds of every minute."""
    at = np.arange(round(_TURN_S * RATE_HZ)) / RATE_HZ
    minute = np.zeros(round(_PERIOD_S * RATE_HZ))
    for turn in range(int(spoken_s // (_TURN_S + _PAUSE_S))):
        start = round(turn * (_TURN_S + _PAUSE_S) * RATE_HZ)
        minute[start : start + len(at)] = np.sin(2 * np.pi * _PITCHES_HZ[turn % 3] * at)
    samples = (minute * 9000).astype(np.int16)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16", format="FLAC") as file:
        for _ in range(round(duration_s / _PERIOD_S)):
            file.write(samples)


@contextmanager
def serving(build: Path, folder: Path) -> Iterator[str]:
    """The server of a checkout; its address."""
    paths = os.pathsep.join([str(build / "src"), str(build)])
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(folder)],
        cwd=build,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if match := re.search(r"listening on (http://[^;\s]+)", line):
            break
    else:
        sys.exit(f"{build}: its server did not start: {''.join(said)}")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield match[1]
    finally:
        process.terminate()
        process.wait(60)


def transcribed(url: str, path: Path) -> str:
    """Send a recording and wait until it is transcribed; return its job."""
    with httpx2.Client(timeout=600) as client, path.open("rb") as file:
        job = client.post(f"{url}/v1/jobs", files={"file": (path.name, file)}).json()["id"]
        while (status := client.get(f"{url}/v1/jobs/{job}").json()["status"]) != "done":
            if status not in ("queued", "running"):
                sys.exit(f"{url}: the recording is {status}")
            time.sleep(0.5)
    return str(job)


def lines(url: str, job: str) -> int:
    document = httpx2.get(f"{url}/v1/jobs/{job}/transcript?format=json", timeout=60).json()
    return len(document["segments"])


def opened(browser: Any, address: str) -> float:
    """Milliseconds from the beginning of the navigation to the first line."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.goto(address, wait_until="commit")
        page.wait_for_selector(".line", state="attached", timeout=120_000)
        return float(page.evaluate("() => window.firstLineMs"))
    finally:
        context.close()


def compare(browser: Any, builds: dict[str, str], times: int) -> dict[str, Any]:
    """Open a recording at each build in turns, first once without counting."""
    took: dict[str, list[float]] = {name: [] for name in builds}
    for turn in range(times + 1):
        for name in sorted(builds, reverse=bool(turn % 2)):
            milliseconds = opened(browser, builds[name])
            if turn:
                took[name].append(milliseconds)
    ratios = [new / old for new, old in zip(took["new"], took["old"], strict=True)]
    return {
        **{f"{name}_ms": spread(values) for name, values in took.items()},
        "ratio": spread(ratios),
        "under_a_second": sum(one < 1000.0 for one in took["new"]),
        "times": times,
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, help="checkout of the older build")
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--hours", type=float, default=10.0, help="of the longer recording")
    arguments = parser.parse_args(words)
    old = arguments.old.resolve()
    recordings = {"ten minutes": 600.0, "long": 3600.0 * arguments.hours}
    result: dict[str, Any] = {"load": os.getloadavg(), "hours": arguments.hours}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        builds = {"old": old, "new": ROOT}
        urls = {
            build: stack.enter_context(serving(path, folder / build))
            for build, path in builds.items()
        }
        browser = stack.enter_context(chromium())
        for what, duration_s in recordings.items():
            path = folder / f"{what.replace(' ', '-')}.flac"
            record(path, duration_s, _PERIOD_S if duration_s <= 600.0 else _SPOKEN_S)
            jobs = {build: transcribed(url, path) for build, url in urls.items()}
            addresses = {build: f"{urls[build]}/#{jobs[build]}" for build in urls}
            result[what] = {
                "lines": {build: lines(urls[build], jobs[build]) for build in urls},
                **compare(browser, addresses, arguments.times),
            }
            print(what, json.dumps(result[what]), flush=True)
    said = ["git", "log", "-1", "--format=%h %cs"]
    result["old_commit"] = subprocess.check_output(said, cwd=old, text=True).strip()
    print(store("opening", result))


if __name__ == "__main__":
    main()
