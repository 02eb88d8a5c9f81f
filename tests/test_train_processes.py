"""Several processes, as `accelerate launch` starts them: gloo on this machine's CPU."""

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from speaker_reasoner.cli import main
from speaker_reasoner.cores import usable_cores
from speaker_reasoner.train import processes

from .forked import TRAINING, Forked, ranks
from .serving import wait_until

CONFIG = """
seed = 7

[model]
base = "{base}"
method = "{method}"

[profile]
chunk_s = 10.0
max_speakers = 4

[run]
bf16 = {bf16}
gradient_checkpointing = true
batches_per_step = 2
log_steps = 1
check_steps = 1
dialogue_steps = {dialogue_steps}
dialogues = 3

[corpora]
train = ["{corpus}"]
check = ["{corpus}"]
window = 4

[cached]
schedule = {{ steps = 3, learning_rate = 3e-3, warm_up_steps = 1 }}
kinds = [{{ task = "cached" }}]
"""


@pytest.fixture
def configure(random_checkpoint: Path, corpus: Path, tmp_path: Path) -> Any:
    def write(method: str, *, bf16: bool = False, dialogue_steps: int = 0) -> Path:
        path = tmp_path / "small.toml"
        path.write_text(
            CONFIG.format(
                base=random_checkpoint,
                corpus=corpus,
                method=method,
                bf16=str(bf16).lower(),
                dialogue_steps=dialogue_steps,
            )
        )
        return path

    return write


def train_in_two(config: Path, out: Path, module: str = "speaker_reasoner") -> None:
    """Run the command in two processes that know of each other."""
    words = [module, "train", str(config), "--cpu", "-o", str(out)]
    running = [Forked(TRAINING, words, os.environ | own) for own in ranks(2)]
    errors = [process.errors(900) for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    assert "wrote" in errors[0] and "wrote" not in errors[1]


def assert_same_losses(one: Path, other: Path, tolerance: float) -> None:
    """The logs of two runs are equal."""
    logs = [
        [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (one, other)
    ]
    assert len(logs[0]) >= 6
    for mine, theirs in zip(*logs, strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine.keys() - {"stage", "audio_s_per_s"}:
            assert mine[key] == pytest.approx(theirs[key], abs=tolerance), (key, mine, theirs)


def assert_same(one: Path, other: Path, tolerance: float) -> None:
    """The logs, states and checkpoints of two runs are equal."""
    assert_same_losses(one, other, tolerance)
    states = [torch.load(folder / "cached.pt", weights_only=True) for folder in (one, other)]
    assert states[0]["step"] == states[1]["step"] == 3
    for name, value in states[0]["weights"].items():
        # AdamW turns rounding of a gradient near zero into a step of the learning rate's size.
        assert torch.allclose(value, states[1]["weights"][name], atol=10 * tolerance), name
    names = [{path.name for path in (folder / "stage-3").iterdir()} for folder in (one, other)]
    assert names[0] == names[1] and "speaker_reasoner.json" in names[0]


def test_default_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as cores, if the batches divide among them; one where a launcher started this one, or on a GPU."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "usable_cores", lambda: 4)
    monkeypatch.setattr(processes, "model_threads", lambda: 4)
    counts = [processes.default_processes(n, cpu=True) for n in (1, 2, 3, 4, 6, 10)]
    assert counts == [1, 2, 3, 4, 3, 2]
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert processes.default_processes(4, cpu=False) == 1
    monkeypatch.setattr(processes, "model_threads", lambda: 2)
    assert processes.default_processes(4, cpu=True) == 2
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.default_processes(4, cpu=True) == 1


def test_processes_that_cannot_be(
    configure: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(configure("full"))
    words = ["train", config, "--cpu", "-o", str(tmp_path / "run")]
    assert main([*words, "--processes", "999"]) == 1
    assert f"--processes 999: expected 1 to {usable_cores()}" in capsys.readouterr().err
    with monkeypatch.context() as there:
        there.setattr(torch.accelerator, "is_available", lambda: True)
        assert main([word for word in words if word != "--cpu"] + ["--processes", "2"]) == 1
        assert "got a GPU; add --cpu, or start it by accelerate" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, "--processes", "2"]) == 1
    assert "started processes already; leave it out" in capsys.readouterr().err
    assert main([*words, "--processes", "2", "--stage", "voice"]) == 1
    assert "a voice head is trained by one process" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pt"))


@pytest.mark.skipif(usable_cores() < 2, reason="one core")
def test_one_command_trains_in_two_processes(configure: Any, tmp_path: Path) -> None:
    """As one process does; the second one says nothing."""
    config = configure("full")
    assert main(["train", str(config), "--cpu", "-o", str(tmp_path / "alone")]) == 0
    command = Forked(TRAINING, together(config, tmp_path / "both"), dict(os.environ))
    errors = command.errors(900)
    assert command.returncode == 0, errors
    assert errors.count("wrote") == 1 and "[rank" not in errors
    assert_same(tmp_path / "alone", tmp_path / "both", 3e-5)


def together(config: Path, out: Path) -> list[str]:
    words = ["train", str(config), "--cpu", "--processes", "2", "-o", str(out)]
    return ["speaker_reasoner", *words]


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="one core")
@pytest.mark.parametrize("how", ["second", "interrupted", "killed"])
def test_processes_end_together(configure: Any, tmp_path: Path, how: str) -> None:
    """Whichever of them ends, and the same command goes on."""
    config, out = configure("full"), tmp_path / "run"
    text = config.read_text()
    config.write_text(text.replace("steps = 3,", "steps = 4000,"))
    command = Forked(TRAINING, together(config, out), dict(os.environ))
    wait_until(lambda: (out / "log.jsonl").exists(), 120)
    members = members_of(config)
    assert len(members) == 2
    if how == "second":
        os.kill(members["1"], signal.SIGKILL)
    else:
        command.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGKILL)
    errors = command.errors(60)
    assert command.returncode == {"second": 1, "interrupted": 130, "killed": -9}[how], errors
    if how == "second":
        assert "process 2 of 2 ended with status -9" in errors and "goes on" in errors
    wait_until(lambda: not members_of(config), 30)
    if how == "interrupted":
        assert errors.count("interrupted") == 1
    config.write_text(text)
    shutil.rmtree(out)
    assert main(["train", str(config), "--cpu", "--processes", "1", "-o", str(out)]) == 0


def members_of(config: Path) -> dict[str, int]:
    """The processes that train by this configuration together, by rank."""
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            held = dict(
                one.partition("=")[::2] for one in (folder / "environ").read_text().split("\0")
            )
            if str(config).encode() in words and held.get("SPEAKER_REASONER_MEMBER"):
                found[held["RANK"]] = int(folder.name)
    return found


@pytest.mark.parametrize(
    "parts", [pytest.param("", marks=pytest.mark.slow), 'parts = ["projector", "text"]']
)
def test_two_processes_are_one_with_twice_the_accumulation(
    configure: Any, random_checkpoint: Path, tmp_path: Path, parts: str
) -> None:
    config = configure("full")
    config.write_text(config.read_text().replace("[cached]", f"[cached]\n{parts}"))
    assert main(["train", str(config), "--cpu", "-o", str(tmp_path / "alone")]) == 0
    train_in_two(config, tmp_path / "both")
    assert_same(tmp_path / "alone", tmp_path / "both", 3e-5)
    before = load_file(random_checkpoint / "model.safetensors")
    after = load_file(tmp_path / "both/stage-3/model.safetensors")
    moved = {n for n, v in after.items() if not torch.equal(v, before[n].bfloat16())}
    assert any("audio_tower.layers" in name for name in moved) == (not parts)
    assert any("audio_tower.proj2" in name for name in moved)
    assert any(name.startswith("model.layers") for name in moved)


@pytest.mark.slow
def test_parts_are_not_for_sharded_weights(configure: Any, tmp_path: Path) -> None:
    config = configure("full")
    config.write_text(config.read_text().replace("[cached]", '[cached]\nparts = ["text"]'))
    with pytest.raises(
        AssertionError, match=r"parts: weights that are sharded .* all learn or none"
    ):
        train_in_two(config, tmp_path / "both", "tests.sharded")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_sharded_processes_are_one_as_well(configure: Any, tmp_path: Path, method: str) -> None:
    """FSDP2: the same losses, transcripts and checkpoints; a run goes on with unsharded weights."""
    pytest.importorskip("meeteval")
    config = configure(method, dialogue_steps=3)
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main(["train", str(config), "--cpu", "-o", str(alone)]) == 0
    sharded = ("tests.sharded",)
    train_in_two(config, both, *sharded)
    assert_same(alone, both, 3e-5)
    text = config.read_text()
    for first, then in (((), sharded), (sharded, ())):
        out = tmp_path / f"resumed-{bool(first)}"
        config.write_text(text.replace("steps = 3,", "steps = 2,"))
        train_in_two(config, out, *first)
        config.write_text(text)
        train_in_two(config, out, *then)
        state = torch.load(out / "cached.pt", weights_only=True)
        assert state["step"] == 3 and state["weights"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["speaker_reasoner", "tests.sharded"])
def test_lora_in_bfloat16_in_two_processes(configure: Any, tmp_path: Path, module: str) -> None:
    """A frozen base in bfloat16 under factors in float32."""
    pytest.importorskip("meeteval")
    config = configure("lora", bf16=True, dialogue_steps=3)
    train_in_two(config, tmp_path / "both", module)
    rows = [json.loads(row) for row in (tmp_path / "both/log.jsonl").read_text().splitlines()]
    losses = [row["check"]["answer"] for row in rows if "check" in row]
    assert losses[-1] < losses[0]
    state = torch.load(tmp_path / "both/cached.pt", weights_only=True)
    assert {value.dtype for value in state["weights"].values()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["2", "3"])
def test_deepspeed_is_one_as_well(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """ZeRO: the same losses and weights as one process."""
    pytest.importorskip("deepspeed")
    config = configure("full")
    alone, both = tmp_path / "alone", tmp_path / "both"
    assert main(["train", str(config), "--cpu", "-o", str(alone)]) == 0
    monkeypatch.setenv("ZERO_STAGE", stage)
    train_in_two(config, both, "tests.zero")
    assert_same_losses(alone, both, 3e-5)
    first, second = (load_file(folder / "stage-3/model.safetensors") for folder in (alone, both))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value.float(), second[name].float(), atol=3e-4, rtol=0.01), name
