"""A discrete-event model of batch runs (simpy): how long many hours take on N workers, and what limits them.

    python benchmarks/scale_model.py --check    # runs small real ones and compares the model with them; stores
    python benchmarks/scale_model.py --rate 90 --workers 8 --price 2.5    # a rate and a price of yours; prints

A worker starts, then takes the heaviest task that is left, as `--workers` does: it waits for the driver, reads the
recording from the shared disk or bucket up to the end of its share, decodes that, transcribes its share. A recording
in shares is joined at last, which decodes it once more. `undivided` is without shares, as from a bucket. Rates are
audio seconds a second of one worker: those that stored results give, or yours. No rate of a GPU was measured. What is
assumed is an option, and is stored with the result. `--check` measures the rate and the start of a process, predicts
2 processes and 8 shards from them, and runs these. Writes docs/results/scale-model.json.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import soundfile

from common import RESULTS, spread, store
from speaker_reasoner.bulk.listing import balanced

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Job:
    """A simulated batch run: its audio, workers and storage.

    Attributes:
        rate: audio seconds a second of a worker.
        hours: of audio in all.
        median_min, sigma: of the log-normal distribution of durations.
        longest_h: one recording of this length is among them, and none is longer.
        decode_rate: the same, of decoding alone.
        start_s: until a worker has its engine.
        driver_s: of the driver, for each task.
        storage_mb_s: what all workers together read from the shared disk or bucket; 0 for no limit.
        mb_per_hour: size of the audio.
        share_s: recordings of at least two of these are divided; 0 for none.
        seed: of the durations.
    """

    rate: float
    hours: float = 10_000.0
    median_min: float = 20.0
    sigma: float = 1.0
    longest_h: float = 10.0
    decode_rate: float = 2000.0
    start_s: float = 10.0
    driver_s: float = 0.006
    storage_mb_s: float = 1000.0
    mb_per_hour: float = 60.0
    share_s: float = 1800.0
    seed: int = 1

    def durations_s(self) -> list[float]:
        """Durations of the recordings, until there are enough hours of them."""
        rng, left = np.random.default_rng(self.seed), 3600 * self.hours
        rows = [min(3600 * self.longest_h, left)]
        left -= rows[0]
        while left > 0:
            drawn = 60 * self.median_min * math.exp(self.sigma * rng.standard_normal())
            rows.append(min(drawn, 3600 * self.longest_h, left))
            left -= rows[-1]
        return rows


@dataclass(frozen=True)
class Task:
    """A recording, a share of one, or the join of its shares.

    Attributes:
        audio_s: that it transcribes.
        read_s: of audio that it reads and decodes, from the beginning of the recording.
    """

    audio_s: float
    read_s: float


def tasks(job: Job) -> tuple[list[Task], list[Task]]:
    """Tasks by their weight, the heaviest first, and the joins that follow them."""
    first, joins = [], []
    for length_s in job.durations_s():
        count = max(1, int(length_s // job.share_s)) if job.share_s else 1
        for number in range(count):
            begin = number * job.share_s
            end = length_s if number == count - 1 else begin + job.share_s
            first.append(Task(end - begin, end))
        if count > 1:
            joins.append(Task(0.0, length_s))
    return sorted(first, key=lambda task: -task.audio_s), joins


Phase = Sequence[Iterator[Task]]
"""The queue of each worker; several workers may share one. A phase begins when the one before has ended."""


def simulate(job: Job, workers: int, phases: Sequence[Phase] | None = None) -> dict[str, float]:
    """Run the model.

    Args:
        phases: instead of the tasks of the job, which all workers share.

    Returns:
        Seconds, and shares of the workers' time.
    """
    environment = simpy.Environment()
    driver, storage = simpy.Resource(environment, 1), simpy.Resource(environment, 1)
    busy = {"transcribing": 0.0, "decoding": 0.0}
    if phases is None:
        phases = [[iter(queue)] * workers for queue in tasks(job) if queue]

    def work(queue: Iterator[Task]) -> Iterator[Any]:
        yield environment.timeout(job.start_s)
        for task in queue:
            with driver.request() as turn:
                yield turn
                yield environment.timeout(job.driver_s)
            if job.storage_mb_s:  # reads go one after the other, each with the whole bandwidth
                with storage.request() as turn:
                    yield turn
                    megabytes = task.read_s / 3600 * job.mb_per_hour
                    yield environment.timeout(megabytes / job.storage_mb_s)
            decoding, transcribing = task.read_s / job.decode_rate, task.audio_s / job.rate
            busy["decoding"] += decoding
            busy["transcribing"] += transcribing
            yield environment.timeout(decoding + transcribing)

    def run() -> Iterator[Any]:
        for queues in phases:
            yield environment.all_of([environment.process(work(queue)) for queue in queues])

    environment.run(until=environment.process(run()))
    wall_s = environment.now
    return {
        "workers": workers,
        "wall_s": wall_s,
        "worker_hours": workers * wall_s / 3600,
        "use": busy["transcribing"] / (workers * wall_s),
        "decoding": busy["decoding"] / (workers * wall_s),
    }


def limits(job: Job) -> dict[str, float]:
    """Return how many workers each part can feed, or is worth: where more of them gain nothing."""
    total_s = 3600 * job.hours
    first, joins = tasks(job)
    read_s = sum(task.read_s for task in (*first, *joins))
    longest_s = max(task.audio_s / job.rate + task.read_s / job.decode_rate for task in first)
    feeds = (
        job.storage_mb_s * 3600 / job.mb_per_hour * total_s / read_s if job.storage_mb_s else 0.0
    )
    return {
        "storage": feeds / job.rate,
        "driver": total_s / job.rate / (len(first) * job.driver_s),
        "longest_task": total_s / job.rate / longest_s,
        "start": total_s / job.rate / job.start_s,
        "recordings": len(job.durations_s()),
        "longest_task_s": longest_s,
        "read_over_audio": read_s / total_s,
    }


def outlook(job: Job, workers: Sequence[int]) -> dict[str, Any]:
    whole = replace(job, share_s=0.0)
    return {
        "job": asdict(job),
        "limits": limits(job),
        "limits_undivided": limits(whole),
        "runs": [simulate(job, count) for count in workers],
        "undivided": [simulate(whole, count) for count in workers],
    }


def stored_rates() -> dict[str, Any]:
    """Rates of one worker that stored results give; none is of a GPU."""
    scale = json.loads((RESULTS / "scale.json").read_text())
    real = json.loads((RESULTS / "real.json").read_text())
    rows = real["rows"]
    audio_s, wall_s = (sum(row[key] for row in rows) for key in ("duration_s", "wall_s"))
    return {
        "embedded, one CPU thread": {
            "rate": scale["recording_s"] / scale["each_s"]["plain"]["median"],
            "from": "scale.json",
        },
        "cascade, two CPU threads": {"rate": audio_s / wall_s, "from": "real.json"},
    }


def decode_rate() -> float:
    """Audio seconds a second of decoding FLAC to 16 kHz, measured here."""
    from speaker_reasoner import audio

    with tempfile.TemporaryDirectory() as name:
        said, rate = soundfile.read(ROOT / "examples" / "meeting.flac", dtype="float32")
        path = Path(name) / "long.flac"
        soundfile.write(path, np.resize(said, 1200 * rate), rate)
        begun = time.process_time()
        samples = sum(len(block) for block in audio.stream(path))
        return samples / 16000 / (time.process_time() - begun)


def check(repeats: int) -> dict[str, Any]:
    """Run the embedded checkpoint, and compare later runs with the model's prediction from the first one."""
    lengths = [float(n) for n in (6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28)]
    few = lengths[:2]
    faster = json.loads((RESULTS / "scale.json").read_text())["two_workers_times_faster"]["median"]
    ratios: dict[str, dict[str, list[float]]] = {
        name: {"predicted": [], "measured": []} for name in ("two processes", "eight shards")
    }
    seen: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        said, rate = soundfile.read(ROOT / "examples" / "meeting.flac", dtype="float32")
        for place, rows in (("few", few), ("many", lengths)):
            (folder / place).mkdir()
            for number, length_s in enumerate(rows):
                samples = np.resize(np.roll(said, number * 1000), round(length_s * rate))
                soundfile.write(folder / place / f"r{number:02d}.flac", samples, rate)
        for _ in range(repeats):
            few_s = _timed(folder / "few", folder / "out", [[]])
            one_s = _timed(folder / "many", folder / "out", [[]])
            two_s = _timed(folder / "many", folder / "out", _shards(2), together=True)
            eight_s = _timed(folder / "many", folder / "out", _shards(8))
            each = (one_s - few_s) / (sum(lengths) - sum(few))
            start_s = max(0.0, few_s - each * sum(few))
            seen.append(
                {"one": one_s, "two": two_s, "eight": eight_s, "rate": 1 / each, "start_s": start_s}
            )
            for which, count, wall_s in (("two processes", 2, two_s), ("eight shards", 8, eight_s)):
                parts = [iter([Task(w, 0.0) for w in part]) for part in _static(lengths, count)]
                rate_now = 1 / each * (faster / 2 if count == 2 else 1)
                job = Job(rate_now, hours=0.0, start_s=start_s, driver_s=0.0, storage_mb_s=0.0)
                phases = [parts] if count == 2 else [[part] for part in parts]
                predicted_s = simulate(job, len(phases[0]), phases)["wall_s"]
                ratios[which]["predicted"].append(predicted_s / one_s)
                ratios[which]["measured"].append(wall_s / one_s)
    return {
        "recordings_s": lengths,
        "load": os.getloadavg(),
        "two_at_once_times_faster": faster,
        "runs": [{key: round(value, 2) for key, value in run.items()} for run in seen],
        "wall_over_one_process": {
            which: {key: spread(values) for key, values in pair.items()}
            for which, pair in ratios.items()
        },
    }


def _static(lengths: Sequence[float], count: int) -> list[list[float]]:
    """The recordings of each shard, by the division that `--shard` makes."""
    of = balanced(np.array(lengths), count)
    return [[w for w, one in zip(lengths, of, strict=True) if one == n] for n in range(count)]


def _shards(count: int) -> list[list[str]]:
    return [["--shard", f"{number}/{count}"] for number in range(1, count + 1)]


def _timed(source: Path, out: Path, runs: list[list[str]], *, together: bool = False) -> float:
    """Seconds of some commands, one after the other or at once, starts included."""
    begun, running = time.monotonic(), []
    for words in runs:
        command = [sys.executable, "-m", "speaker_reasoner", "batch", str(source), "-o", str(out)]
        running.append(
            subprocess.Popen(
                [*command, "--model", "tiny", "-q", *words],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        if not together and running[-1].wait():
            sys.exit(f"batch {' '.join(words)} failed")
    if any(process.wait() for process in running):
        sys.exit("batch failed")
    wall_s = time.monotonic() - begun
    shutil.rmtree(out)
    return wall_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rate", type=float, help="audio seconds a second of a worker; stores nothing"
    )
    parser.add_argument("--price", type=float, help="of an hour of a worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 512, 4096])
    parser.add_argument("--check", action="store_true", help="run real ones too")
    parser.add_argument("--repeats", type=int, default=2)
    names = [name for name in Job.__dataclass_fields__ if name != "rate"]
    for name in names:
        default = getattr(Job, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    arguments = vars(parser.parse_args())
    chosen = {name: arguments[name] for name in names}
    if arguments["rate"] is not None:
        mine = outlook(Job(rate=arguments["rate"], **chosen), arguments["workers"])
        if arguments["price"] is not None:
            for run in (*mine["runs"], *mine["undivided"]):
                run["cost"] = run["worker_hours"] * arguments["price"]
        print(json.dumps(mine, indent=2))
        return
    path = RESULTS / "scale-model.json"
    checked = check(arguments["repeats"]) if arguments["check"] else None
    if checked is None and path.exists():
        checked = json.loads(path.read_text()).get("check")
    rates = stored_rates()
    measured = decode_rate()
    chosen["decode_rate"] = round(measured)
    result = {
        "rates": rates,
        "engines": {
            name: outlook(Job(rate=one["rate"], **chosen), arguments["workers"])
            for name, one in rates.items()
        },
        "check": checked,
    }
    print(store("scale-model", result))


if __name__ == "__main__":
    main()
