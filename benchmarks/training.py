"""Speed of `train tiny --stage 2`, against another build of the project: the same data, the same seed.

    python benchmarks/training.py --vs ../old/src [--steps 100] [--rounds 3]

Both builds train the same stage from random weights on a bank of 24 voices that each speaks, each by its own
configuration `tiny`, in processes of its own, as many as `train` takes for it, one build after the other. The first
steps are timed apart. Tokens are those of the dialogues, audio placeholders included, without padding. Stores
docs/results/training.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from common import spread, store

SOURCE = Path(__file__).parent.parent / "src"
_TAIL = 20
"""Steps whose losses are compared."""


def child(folder: Path, steps: int, first: int) -> None:
    """Train in this process, or with others that do the same; the first one prints one line of JSON."""
    import torch

    import speaker_reasoner
    from speaker_reasoner.train import loop, stages
    from speaker_reasoner.train.config import load_config

    torch.set_num_threads((os.cpu_count() or 1) // int(os.environ.get("WORLD_SIZE", "1")))
    text = Path(speaker_reasoner.__file__).parent / "configs" / "tiny.toml"
    small = text.read_text("utf-8").replace("voices = 520", "voices = 24")
    small = small.replace("sentences = 60", "sentences = 30")
    config = folder / f"{os.getpid()}.toml"
    config.write_text(small, "utf-8")
    made = stages.Trainer(load_config(str(config)), folder, cpu=True)
    getattr(made.prepared.learner, "train_parts", lambda _: None)(())
    task, accelerator = made.config.stages["dialogues"].schedule, made.accelerator
    share = made.config.run.batches_per_step // accelerator.num_processes
    parts = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    begun = time.perf_counter()
    tokens = audio_s = 0.0
    losses: list[dict[str, float]] = []
    for step in range(first + steps):
        if step == first:
            begun, started = time.perf_counter(), begun
            warm_s = begun - started
        # early steps draw short chunks: halfway through the stage they are as long as in most of it
        drawn = [made.source.draw("dialogues", task.steps // 2 + step, part) for part in parts]
        rows = loop.train_step(made.prepared, drawn, task.rate(step), made.config.run.clip)
        if step >= first:
            for batch, _ in drawn:
                tokens += batch.ids.numel() if batch.ids.ndim == 1 else int(batch.mask.sum())
                audio_s += batch.audio_s
        losses.append(rows.means(accelerator))
    seconds = time.perf_counter() - begun
    tokens, audio_s = accelerator.reduce(torch.tensor([tokens, audio_s]), "sum").tolist()
    names = ("answer", "word", "speaker", "time", "voice")
    tail = {n: [row[n] for row in losses[-_TAIL:] if n in row] for n in names}
    if not accelerator.is_main_process:
        return
    print(
        json.dumps(
            {
                "processes": accelerator.num_processes,
                "tokens_per_s": tokens / seconds,
                "audio_s_per_s": audio_s / seconds,
                "step_s": seconds / steps,
                "first_steps_s": warm_s,
                "losses": {n: sum(v) / len(v) for n, v in tail.items() if v},
            }
        )
    )


def run(source: Path, folder: Path, steps: int, first: int) -> dict[str, Any]:
    from speaker_reasoner.train.processes import free_port  # the other build has none

    words = [sys.executable, __file__, "--child", str(folder), "--steps", str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    environment.pop("OMP_NUM_THREADS", None)
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    count = processes(source)
    running = []
    for number in range(count):
        rank = {"WORLD_SIZE": str(count), "RANK": str(number), "LOCAL_RANK": str(number)}
        rank["OMP_NUM_THREADS"] = str((os.cpu_count() or 1) // count)
        own = {**environment, **(rank if count > 1 else {})}
        command = [*words, "--first", str(first)]
        running.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE))
    printed = [one.communicate()[0] for one in running]
    if any(one.returncode for one in running):
        raise SystemExit(f"{source}: a process failed")
    result: dict[str, Any] = json.loads(printed[0].splitlines()[-1])
    print(source.parent.name, {k: v for k, v in result.items() if k != "losses"}, flush=True)
    return result


def processes(source: Path) -> int:
    """How many processes a build takes for its `tiny`."""
    from speaker_reasoner.train.processes import default_processes

    text = (source / "speaker_reasoner" / "configs" / "tiny.toml").read_text("utf-8")
    if not (source / "speaker_reasoner" / "train" / "processes.py").exists():
        return 1
    return default_processes(int(tomllib.loads(text)["run"]["batches_per_step"]), cpu=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vs", type=Path, help="folder src of the other build")
    parser.add_argument("--steps", type=int, default=100, help="measured steps (default: 100)")
    parser.add_argument("--first", type=int, default=60, help="steps before them (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs (default: 3)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given.child, given.steps, given.first)
        return
    if given.vs is None:
        parser.error("--vs: name the other build's folder src")
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        own, others = Path(folder) / "this", Path(folder) / "other"
        for source, place in ((SOURCE, own), (given.vs, others)):
            place.mkdir()
            run(source, place, 1, 1)  # speaks the bank
        for _ in range(given.rounds):
            old = run(given.vs, others, given.steps, given.first)
            new = run(SOURCE, own, given.steps, given.first)
            pairs.append((old, new))
    names = ("tokens_per_s", "audio_s_per_s", "step_s", "first_steps_s")
    other = subprocess.run(
        ["git", "-C", str(given.vs), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    result = {
        "stage": "dialogues",
        "steps": given.steps,
        "steps_before": given.first,
        "other_commit": other.stdout.strip() or None,
        "faster": spread([new["tokens_per_s"] / old["tokens_per_s"] for old, new in pairs]),
        "processes": {"other": pairs[0][0]["processes"], "this": pairs[0][1]["processes"]},
        "other": {n: spread([old[n] for old, _ in pairs]) for n in names},
        "this": {n: spread([new[n] for _, new in pairs]) for n in names},
        "losses_of_last_steps": {
            "steps": _TAIL,
            "other": {n: spread([o["losses"][n] for o, _ in pairs]) for n in pairs[0][0]["losses"]},
            "this": {n: spread([o["losses"][n] for _, o in pairs]) for n in pairs[0][0]["losses"]},
        },
    }
    print(json.dumps(result, indent=2))
    print("wrote", store("training", result))


if __name__ == "__main__":
    main()
