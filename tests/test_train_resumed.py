"""Training that is interrupted, and goes on with another number of processes: gloo on this machine's CPU."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from accelerate import Accelerator

from speaker_reasoner.cli import main
from speaker_reasoner.errors import CheckpointError, EngineError
from speaker_reasoner.train.accelerators import among_others
from speaker_reasoner.train.saves import PIECES, Saves

from .conftest import free_port
from .forked import TRAINING, Forked, ranks

ROOT = Path(__file__).parents[1]
CONFIG = """
seed = 7
[model]
base = "{base}"
method = "full"
[profile]
chunk_s = 10.0
max_speakers = 4
[run]
bf16 = false
batches_per_step = 2
log_steps = 1
check_steps = 5
save_every_s = 0.0
average = 0.9
[corpora]
train = ["{corpus}"]
check = ["{corpus}"]
window = 4
"""
STAGE = """
[{name}]
schedule = {{ steps = 10, learning_rate = 1e-3, warm_up_steps = 3 }}
kinds = [{{ task = "{task}" }}]
"""
TASKS = {"single_pass": "base", "dialogues": "dialogue", "cached": "cached"}


@pytest.fixture
def configure(random_checkpoint: Path, corpus: Path, tmp_path: Path) -> Any:
    def write(*stages: str) -> Path:
        path = tmp_path / "small.toml"
        tables = [STAGE.format(name=name, task=TASKS[name]) for name in stages]
        path.write_text(CONFIG.format(base=random_checkpoint, corpus=corpus) + "".join(tables))
        return path

    return write


class Done(NamedTuple):
    failed: bool
    stderr: str


def train(config: Path, out: Path, processes: int = 1, **own: str) -> Done:
    """Run the command to its end, in some processes that know of each other."""
    words = ["tests.observed", "train", str(config), "--cpu", "-o", str(out)]
    own |= {"DRAWN": str(out) + ".drawn"}
    environments = ranks(processes) if processes > 1 else [{}]
    running = [Forked(TRAINING, words, os.environ | own | one) for one in environments]
    written = "".join(one.errors(300) for one in running)
    return Done(any(one.returncode for one in running), written)


def drawn(out: Path) -> list[Any]:
    rows = [json.loads(row) for row in Path(str(out) + ".drawn").read_text().splitlines()]
    return sorted(rows)


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]


def assert_same_run(whole: Path, resumed: Path, stages: int) -> None:
    """The same examples, none twice and none left out; the same rates and nearly the same losses."""
    assert drawn(whole) == drawn(resumed)
    assert len(drawn(resumed)) == 20 * stages
    for stage in {row[0] for row in drawn(resumed)}:
        seen = Counter(name for row in drawn(resumed) if row[0] == stage for name in row[3])
        assert max(seen.values()) - min(seen.values()) <= 1, seen
    rows = log(whole), log(resumed)
    assert len(rows[0]) == 12 * stages
    for mine, theirs in zip(*rows, strict=True):
        assert (mine["stage"], mine["step"]) == (theirs["stage"], theirs["step"])
        assert mine.get("learning_rate") == theirs.get("learning_rate")
        losses = (row.get("check", row)["answer"] for row in (mine, theirs))
        one, other = losses
        assert one == pytest.approx(other, abs=2e-3), (mine, theirs)


def test_a_run_of_all_stages_in_two_processes_that_dies_goes_on_in_one(
    configure: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten steps of each stage."""
    config, whole, cut = configure(*TASKS), tmp_path / "whole", tmp_path / "cut"
    assert not train(config, whole).failed
    died = train(config, cut, 2, DIE="cached:5", DIE_RANK="1")
    assert died.failed and "process 0 of 2 lost another one" in died.stderr, died.stderr
    assert torch.load(cut / "cached.pt", weights_only=True)["step"] == 5
    note = Path(str(cut) + ".drawn")  # without the step in which one process waited for the other
    kept = [row for row in drawn(cut) if row[0] != "cached" or row[1] < 5]
    note.write_text("".join(json.dumps(row) + "\n" for row in kept))
    text = config.read_text()
    config.write_text(text.replace("batches_per_step = 2", "batches_per_step = 4"))
    assert main(["train", str(config), "--cpu", "-o", str(cut)]) == 1
    assert "saved with batches_per_step 2, got 4" in capsys.readouterr().err
    config.write_text(text)
    assert not train(config, cut).failed
    assert_same_run(whole, cut, 3)


def test_a_save_knows_the_order_of_its_data(tmp_path: Path) -> None:
    """A setting is refused, a number of pieces is told, and what an older save does not hold is taken as it is."""
    accelerator = Accelerator(cpu=True)

    def saves(name: str, order: dict[str, int]) -> Saves:
        return Saves(tmp_path / name, torch.nn.Linear(1, 1), None, [], accelerator, order=order)

    saves("old.pt", {}).save(3)
    saves("new.pt", {"seed": 1, PIECES: 9}).save(3)
    for name, order, remark in (
        ("old.pt", {"seed": 2, PIECES: 8}, ""),
        ("new.pt", {"seed": 1, PIECES: 9}, ""),
        ("new.pt", {"seed": 1}, ""),
        ("new.pt", {"seed": 1, PIECES: 8}, "saved with 9 pieces, now there are 8"),
    ):
        later = saves(name, order)
        assert later.load() == 3
        assert remark in (later.check_order() or "")
        assert bool(later.check_order()) == bool(remark)
    other = saves("new.pt", {"seed": 2, PIECES: 9})
    other.load()
    with pytest.raises(CheckpointError, match="saved with seed 1, got 2"):
        other.check_order()


def test_the_loss_of_another_process_is_an_error_of_its_own() -> None:
    """Of several processes alone; what else fails stays as it is."""
    lost = "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"
    one, two = (SimpleNamespace(num_processes=n, process_index=0) for n in (1, 2))
    with (
        pytest.raises(EngineError, match=r"process 0 of 2 lost .* Connection closed by peer"),
        among_others(two),
    ):
        raise RuntimeError(lost)
    for processes, message in ((one, lost), (two, "shapes do not match")):
        with pytest.raises(RuntimeError, match=message.split("]")[-1]), among_others(processes):
            raise RuntimeError(message)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("stage", TASKS)
def test_each_stage_goes_on_with_the_other_number(
    configure: Any, tmp_path: Path, first: int, stage: str
) -> None:
    config, whole, cut = configure(stage), tmp_path / "whole", tmp_path / "cut"
    assert not train(config, whole, 2).failed
    assert train(config, cut, first, DIE=f"{stage.replace('_', '-')}:4").failed
    done = train(config, cut, 3 - first)
    assert not done.failed, done.stderr
    assert done.stderr.count("wrote") == 1
    assert_same_run(whole, cut, 1)


@pytest.mark.slow
def test_all_stages_in_two_processes(configure: Any, tmp_path: Path) -> None:
    config, whole, cut = configure(*TASKS), tmp_path / "whole", tmp_path / "cut"
    assert not train(config, whole).failed
    assert train(config, cut, 2, DIE="dialogues:7").failed
    assert not train(config, cut, 2).failed
    assert_same_run(whole, cut, 3)


@pytest.mark.slow
def test_the_script_for_slurm_starts_two_processes(configure: Any, tmp_path: Path) -> None:
    """Its own words, with programs in place of SLURM's that do the same on this machine."""
    config, out, tools = configure("cached"), tmp_path / "out", tmp_path / "tools"
    tools.mkdir()
    for name, text in (
        ("scontrol", "echo 127.0.0.1"),
        ("srun", '"$@"'),
        ("torchrun", f'{sys.executable} -W ignore -m torch.distributed.run "$@"'),
    ):
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    own = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    own |= {"PORT": str(free_port())}
    own |= {"SLURM_JOB_NODELIST": "one", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "7"}
    own |= {"SLURM_GPUS_ON_NODE": "2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", ROOT / "examples/slurm-train.sh", str(config), "--cpu", "-o", str(out)],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("wrote") == 1
    assert log(out)[-1]["step"] == 10
