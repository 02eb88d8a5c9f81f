"""Configurations: every one that ships is read and checked; what is wrong is told with file and key."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.cli import main
from speaker_reasoner.errors import DataError
from speaker_reasoner.train.config import CONFIGS, TrainingConfig, config_path, load_config
from speaker_reasoner.train.settings import read_table
from speaker_reasoner.train.stages import STAGES

PACKAGED = sorted(path.stem for path in CONFIGS.glob("*.toml"))


def test_what_ships() -> None:
    assert PACKAGED == ["omni-30b", "omni-7b", "small", "tiny", "tiny-gpu"]


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_configuration(name: str) -> None:
    config = load_config(name)
    assert set(STAGES.values()) <= config.stages.keys()
    assert config_path(name) == config_path(CONFIGS / f"{name}.toml")
    assert config.stages["dialogues"].kinds[0].task == "dialogue"
    assert config.stages["cached"].kinds[0].task == "cached"
    scratch = name.startswith("tiny")
    assert bool(config.model.base) != scratch
    assert config.frames == scratch and (config.warm_up is not None) == scratch
    if config.simulated is not None:
        assert config.simulated.meetings.speakers[1] <= config.profile.max_speakers
    values = json.loads(json.dumps(config.to_json()))
    assert read_table(TrainingConfig, values, "again") == config


def test_the_30bs_accelerate_configuration() -> None:
    """accelerate reads it, its launcher knows every key, and the layer to wrap exists."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser
    from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as classes

    config = ClusterConfig.from_yaml_file(str(CONFIGS / "omni-30b.fsdp2.yaml"))
    assert str(config.distributed_type).endswith("FSDP") and config.num_processes == 8
    known = {action.dest for action in launch_command_parser()._actions}
    assert config.fsdp_config.keys() <= known
    assert config.fsdp_config["fsdp_version"] == 2
    assert hasattr(classes, config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"])
    run = load_config("omni-30b").run
    assert run.batches_per_step % config.num_processes == 0
    assert config.mixed_precision == ("bf16" if run.bf16 else "no")
    assert run.gradient_checkpointing != config.fsdp_config["fsdp_activation_checkpointing"]


WRONG = [
    ("seed = 1", "sead = 1", r"unknown key sead; known: model, .*seed"),
    ("decimals = 1", "decimal = 1", r"unknown key profile\.decimal; known"),
    ("voices = 520", 'voices = "many"', r"simulated\.bank\.voices: expected a whole number, got"),
    ("voices = 520", "voices = true", r"simulated\.bank\.voices: expected a whole number, got"),
    ("voices = 520\n", "", r"simulated\.bank\.voices is missing"),
    ("speakers = [1, 5]", "speakers = [1]", r"meetings\.speakers: expected 2 values, got 1"),
    ("speakers = [1, 5]", "speakers = 4", r"meetings\.speakers: expected an array, got 4"),
    ("[run]", "run = 3\n[unused]", r"run: expected a table, got 3|unknown key"),
    ('task = "cached"', 'task = "cache"', r"cached\.kinds\[0\]: task 'cache' is not one of"),
    ('weights = "all"', 'weights = "al"', r"kinds\[0\]\.weights 'al': known: all, tower"),
    ("decimals = 1", "decimals = 7", r"profile: .*decimals 7"),
    ("decimals = 1", "decimals = 1\ntraining = {}", r"unknown key profile\.training"),
    ("evaluation = false", "evaluation = true", r"simulated: bank\.evaluation"),
    ("chunk_s = [5.0, 30.0]", "chunk_s = [5.0, 60.0]", r"dialogues\.chunk_s: up to 60 s"),
    ("chunk_s = [5.0, 30.0]", "", r"dialogues\.chunk_s is missing"),
    ("batches_per_step = 2", "batches_per_step = 0", r"run: batches_per_step: expected more"),
    ("layer = 3", 'method = "lora"', r"model: LoRA adapts a model"),
    ("[simulated.cache]", "[corpora]\ntrain = ['x']\n[simulated.cache]", "one of the tables"),
    ("[cached]", '[cached]\nparts = ["tower"]', r"cached: parts: 'tower' is not one of projector,"),
    ("seed = 1", "seed = = 1", r"not TOML: .*line 3, column 8"),
]


@pytest.mark.parametrize(("good", "bad", "message"), WRONG)
def test_what_is_wrong_is_told_with_file_and_key(
    tmp_path: Path, good: str, bad: str, message: str
) -> None:
    text = (CONFIGS / "tiny.toml").read_text()
    assert good in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(good, bad, 1))
    with pytest.raises(DataError, match=message) as caught:
        load_config(file)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


def test_corpora_take_no_settings_of_simulated_meetings(tmp_path: Path) -> None:
    text = (CONFIGS / "omni-7b.toml").read_text()
    file = tmp_path / "mine.toml"
    for good, bad, message in (
        ('{ task = "dialogue" }', '{ task = "dialogue", audio_s = 3.0 }', "of simulated meetings"),
        ("[cached]", "[cached]\nchunk_s = [1.0, 2.0]", "cached.chunk_s is of simulated"),
        ('base = "Qwen', '# base = "Qwen', "LoRA adapts a model"),
    ):
        file.write_text(text.replace(good, bad, 1))
        with pytest.raises(DataError, match=message):
            load_config(file)


def test_small_trains_its_parts_one_after_the_other(tmp_path: Path) -> None:
    config = load_config("small")
    assert [stage.parts for stage in config.stages.values()] == [
        ("projector",),
        ("projector", "text"),
        (),
    ]
    file = tmp_path / "mine.toml"
    text = (CONFIGS / "small.toml").read_text()
    file.write_text(text.replace('"full"', '"lora"'))
    with pytest.raises(DataError, match=r"single_pass\.parts: LoRA trains its factors alone"):
        load_config(file)


def test_no_such_configuration(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "tinny"]) == 1
    assert (
        "expected a TOML file, or one of omni-30b, omni-7b, small, tiny" in capsys.readouterr().err
    )
    shutil.copy(CONFIGS / "omni-7b.toml", tmp_path / "tiny")  # a name means what ships
    assert load_config("tiny").simulated is not None
    text = (CONFIGS / "tiny.toml").read_text()
    Path("less.toml").write_text(text[: text.index("[cached]")])
    assert main(["train", "less.toml", "--stage", "3"]) == 1
    assert "has no table cached" in capsys.readouterr().err


def test_plan_takes_a_configuration(capsys: Any) -> None:
    assert main(["plan", "omni-7b", "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    config = load_config("omni-7b")
    assert config.corpora is not None
    assert own["setup"]["batch"] == config.corpora.batch
    assert own["setup"]["gradient_checkpointing"] and own["setup"]["rank"] == config.model.lora.rank
    assert own["verdict"] == "fits"
    flags = ["--batch", "1", "--gpus", "8", "--sharding", "fsdp"]
    assert main(["plan", "omni-30b", *flags, "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["setup"]["batch"] == 1 and other["setup"]["gpus"] == 8
    assert main(["plan", "tiny"]) == 1
    assert "from scratch" in capsys.readouterr().err
