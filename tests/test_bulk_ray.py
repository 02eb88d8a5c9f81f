"""Batch runs with several workers, by Ray Data: the same bytes as in one process, whoever is killed."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speaker_reasoner.bulk.listing import Shard
from speaker_reasoner.bulk.runner import BatchSettings, Runner
from speaker_reasoner.bulk.target import Target
from speaker_reasoner.bulk.workers import _blocks
from speaker_reasoner.longform import Options

from .conftest import noise
from .simulated import Simulated
from .talk import save
from .test_bulk import command, lines, run, table_bytes

pytest.importorskip("ray.data")


def recordings(folder: Path, count: int, long_s: float) -> Path:
    folder.mkdir()
    for number in range(count):
        save(folder / f"r{number:04d}.wav", noise(2.0 + number % 3, number))
    save(folder / "long.wav", noise(long_s))
    return folder


def workers() -> list[int]:
    """Processes of this user's actors that hold an engine."""
    alive = []
    for place in Path("/proc").iterdir():
        try:
            title = (place / "cmdline").read_bytes() if place.name.isdigit() else b""
        except OSError:
            continue
        if title.startswith(b"ray::MapWorker"):
            alive.append(int(place.name))
    return alive


def with_kills(source: Path, out: Path, kills: int, turn_s: float) -> int:
    """Run with two workers, of which one is killed now and then; returns how many were."""
    rng, done = random.Random(1), 0
    words = [sys.executable, "-m", "tests.simulated", "batch", str(source), "-o", str(out)]
    environment = {**os.environ, "SIMULATED_S": str(turn_s)}
    with (out.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [*words, "--workers", "2", "--share", "1", "-f", "jsonl,lhotse", "-q", "--batch", "2"],
            cwd=Path(__file__).parents[1],
            env=environment,
            stdout=log,
            stderr=log,
        )
        while process.poll() is None:
            time.sleep(rng.uniform(0.5, 2.0))
            alive = workers() if done < kills and list(out.rglob("*.done")) else []
            if alive:
                os.kill(rng.choice(alive), signal.SIGKILL)
                done += 1
    assert process.returncode == 0, (out.parent / "log").read_text()
    return done


def test_two_workers_one_of_them_killed_end_with_the_same_bytes(tmp_path: Path) -> None:
    source = recordings(tmp_path / "calls", 12, 150.0)
    run(source, tmp_path / "whole", Simulated)
    assert with_kills(source, tmp_path / "out", 1, 0.05) == 1
    assert table_bytes(tmp_path / "out") == table_bytes(tmp_path / "whole")
    assert not list((tmp_path / "out").rglob("*.share-*"))


def test_a_recording_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    source = recordings(tmp_path / "calls", 4, 3.7)
    out = tmp_path / "out"
    done = command(source, "-o", out, "--workers", "2", SIMULATED_POISON="37")
    assert done.returncode == 1 and "5 workers died" in done.stderr
    assert [line["name"] for line in lines(out) if "error" in line] == ["long"]


def test_blocks_hold_enough_to_do_and_leave_nobody_idle() -> None:
    assert _blocks(tasks=400, size=2, audio_s=1_200.0, workers=2) == 40, "a few seconds each"
    assert _blocks(tasks=2_000, size=2, audio_s=60_000.0, workers=2) == 400
    assert _blocks(tasks=2_000, size=2, audio_s=60_000.0, workers=40) == 800
    assert _blocks(tasks=10, size=2, audio_s=36_000.0, workers=2) == 5
    assert _blocks(tasks=1_000, size=1, audio_s=math.inf, workers=2) == 400, "joins, of any length"
    assert _blocks(tasks=1_000, size=1, audio_s=math.inf, workers=500) == 1_000
    assert _blocks(tasks=10**6, size=2, audio_s=1e8, workers=1_000) == 2_000


@pytest.mark.parametrize("variable", ["SIMULATED_ERROR", "SIMULATED_FAILURE"])
def test_an_engine_that_fails_is_the_error_of_a_plain_run(tmp_path: Path, variable: str) -> None:
    source = recordings(tmp_path / "calls", 1, 2.0)
    done = command(source, "-o", tmp_path / "out", "--workers", "1", **{variable: "no memory"})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("", "error: no memory")


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    source = recordings(tmp_path / "calls", 300, 1200.0)
    run(source, tmp_path / "whole", Simulated)
    assert with_kills(source, tmp_path / "out", 20, 0.05) == 20
    assert table_bytes(tmp_path / "out") == table_bytes(tmp_path / "whole")


def test_a_join_that_transcribes_is_seen(tmp_path: Path) -> None:
    """A share on which workers died is transcribed when the shares are joined: the run says so, and counts it."""
    source, out = recordings(tmp_path / "calls", 1, 180.0), tmp_path / "out"
    settings = BatchSettings(Simulated, Options(batch=2), str(out), None, ("json",), share_s=60.0)
    target = Target(str(out))
    with target.admitted(str(source), Shard()) as (listing, _):
        [row] = [row for row in listing if row.name == "long"]
        runner = Runner(settings)
        for _ in range(5):
            runner._trial(row, "share-1.journal").begin()
    done = command(source, "-o", out, "--workers", "1", "--share", "1")
    assert done.returncode == 0, done.stderr
    assert "long: 1 of 3 shares are missing; one worker transcribes their 60 s" in done.stderr
    assert json.loads((out / "report.json").read_text())["audio_s"] == 2.0 + 180
