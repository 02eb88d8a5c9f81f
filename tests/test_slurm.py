"""The example scripts for SLURM, on a real cluster of two nodes on this machine."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.cli import main

from . import slurm
from .conftest import free_port, noise
from .test_train_resumed import configure, log, train  # noqa: F401

ROOT = Path(__file__).parents[1]
COMMANDS = (
    ("speaker-reasoner", f'exec {sys.executable} -m speaker_reasoner "$@"'),
    ("torchrun", f'exec {sys.executable} -W ignore -m torch.distributed.run "$@"'),
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(slurm.missing() is not None, reason=slurm.missing() or ""),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Cluster]:
    with slurm.cluster(tmp_path_factory.mktemp("slurm"), COMMANDS) as one:
        one.environment["PYTHONPATH"] = str(ROOT / "src")
        one.environment["OMP_NUM_THREADS"] = "1"
        yield one


def test_shards_of_an_array_whose_tasks_are_killed(cluster: slurm.Cluster, tmp_path: Path) -> None:
    """One task is cancelled while it works; the same array again, then the tables, as the script's head says."""
    source, out, plain = tmp_path / "source", tmp_path / "out", tmp_path / "plain"
    source.mkdir()
    for i in range(6):
        soundfile.write(source / f"r{i}.wav", noise(2.0 + i, seed=i), SAMPLE_RATE_HZ)
    script = ROOT / "examples/slurm-batch.sh"
    words = ["sbatch", "--parsable", "--gpus=0", "--cpus-per-task=1", "--array=1-3"]
    first = cluster.run(*words, script, source, out, "--model", "tiny")
    end = time.monotonic() + 60
    while "RUNNING" not in cluster.states():
        assert time.monotonic() < end
        time.sleep(0.05)
    cluster.run("scancel", f"{first}_1")
    again = cluster.run(
        *words, f"--dependency=afterany:{first}", script, source, out, "--model", "tiny"
    )
    merge = f"speaker-reasoner batch merge {out} -f jsonl"
    cluster.run(
        *("sbatch", "--parsable", f"--dependency=afterany:{again}", "--cpus-per-task=1"),
        *("--wrap", merge),
    )
    written = cluster.wait()
    assert main(["batch", str(source), "-o", str(plain), "--model", "tiny", "-f", "jsonl"]) == 0
    tables = {path.name: path.read_bytes() for path in plain.rglob("*.jsonl")}
    assert tables and tables == {path.name: path.read_bytes() for path in out.rglob("*.jsonl")}, (
        written
    )


def test_training_on_two_nodes(cluster: slurm.Cluster, configure: Any, tmp_path: Path) -> None:  # noqa: F811
    """Ten steps, by one launcher a node; the losses of one process."""
    config, whole, out = configure("cached"), tmp_path / "whole", tmp_path / "out"
    assert not train(config, whole).failed
    cluster.run(
        *("sbatch", "--parsable", "--nodes=2", "--gpus-per-node=0", "--cpus-per-task=1"),
        *(ROOT / "examples/slurm-train.sh", config, "--cpu", "-o", out),
        SLURM_GPUS_ON_NODE="1",
        PORT=str(free_port()),
    )
    written = cluster.wait()
    assert (out / "log.jsonl").exists(), written
    rows = [(row["step"], row.get("check", row)["answer"]) for row in log(out)]
    expected = [(row["step"], row.get("check", row)["answer"]) for row in log(whole)]
    assert [step for step, _ in rows] == [step for step, _ in expected]
    assert [loss for _, loss in rows] == pytest.approx([loss for _, loss in expected], abs=2e-3)
