"""Fine-tuning the real classes with their real key layout: small random checkpoints, on a corpus."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from speaker_reasoner import load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.errors import CheckpointError, DataError
from speaker_reasoner.protocol import Profile, load_profile
from speaker_reasoner.train.adapters import Lora
from speaker_reasoner.train.config import (
    CorporaConfig,
    Kind,
    ModelConfig,
    StageConfig,
    TrainingConfig,
)
from speaker_reasoner.train.schedule import RunConfig, Schedule
from speaker_reasoner.train.scratch import make_thinker
from speaker_reasoner.train.stages import Trainer, train

from .conftest import TINY, noise
from .test_checkpoint import full_3, logits, save, spread, thinker_25, turns

pytest.importorskip("peft")
EXPERTS = replace(TINY, experts=4)
MAKERS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda tokenizer: spread(make_thinker(tokenizer, TINY)),
    "experts": lambda tokenizer: spread(make_thinker(tokenizer, EXPERTS)),
    "full": lambda tokenizer: full_3(spread(make_thinker(tokenizer, EXPERTS))),
    "qwen2.5": lambda tokenizer: spread(thinker_25(tokenizer)),
}
"""Folders as they are published: the thinker alone, or with its talker (`full`)."""


@pytest.fixture(scope="module")
def bases(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(3)
    folders = {}
    for kind, make in MAKERS.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        save(make(tokenizer), tokenizer, folders[kind])
        (folders[kind] / "speaker_reasoner.json").unlink()  # a base is of no use before training
    return folders


def make_config(base: Path, corpus: Path, method: str, **lora: Any) -> TrainingConfig:
    schedule = Schedule(6, 1e-2 if method == "lora" else 1e-3, warm_up_steps=1)
    return TrainingConfig(
        model=ModelConfig(base=str(base), method=method, lora=Lora(rank=4, alpha=8.0, **lora)),
        profile=replace(Profile(), chunk_s=10.0, max_turns=6, max_speakers=4, cache_s=20.0),
        run=RunConfig(bf16=False, gradient_checkpointing=True, check_steps=1, log_steps=1),
        corpora=CorporaConfig(train=(str(corpus),), check=(str(corpus),), batch=2, window=4),
        single_pass=StageConfig(schedule, (Kind("base"), Kind("count"))),
        dialogues=StageConfig(schedule, (Kind("dialogue"),)),
        cached=StageConfig(schedule, (Kind("cached"),)),
    )


def checked(folder: Path, stage: str) -> list[float]:
    """The answer's loss on the fixed batch, step by step."""
    rows = [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]
    return [row["check"]["answer"] for row in rows if "check" in row and row["stage"] == stage]


def thinker_of(folder: Path) -> Any:
    return load_engine(folder, device="cpu", prompts=None).thinker


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """A folder's weights by their names in the file; of a full model, those of its thinker."""
    tensors = load_file(folder / "model.safetensors")
    return {
        key.removeprefix("thinker."): value
        for key, value in tensors.items()
        if not key.startswith(("talker.", "code2wav."))
    }


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", MAKERS)
def test_lora_learns_and_leaves_its_base_alone(
    bases: dict[str, Path], corpus: Path, tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    made = Trainer(make_config(bases[kind], corpus, "lora"), tmp_path, cpu=True)
    thinker = made.model.thinker
    trained = {name for name, p in thinker.named_parameters() if p.requires_grad}
    places = {name.split(".lora_")[0].rpartition(".layers.")[2][2:] for name in trained}
    attention = {f"self_attn.{name}_proj" for name in "qkvo"}
    dense = {f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    assert places == (attention if kind in ("experts", "full") else attention | dense)
    assert not any("audio" in name or "visual" in name for name in trained)
    frozen = {n: p.clone() for n, p in thinker.named_parameters() if not p.requires_grad}
    folder = made.dialogues()
    for name, value in thinker.named_parameters():
        assert name in trained or torch.equal(value, frozen[name]), name
    losses = checked(tmp_path, "dialogues")
    assert losses[-1] < losses[0]
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "speaker_reasoner.json",
    }
    got = logits(load_engine(folder, device="cpu").thinker, tokenizer)
    thinker.eval()
    assert torch.allclose(got, logits(thinker, tokenizer), atol=1e-4)
    assert not torch.allclose(got, base_logits(bases[kind], tokenizer), atol=1e-2)
    turns(load_engine(folder, device="cpu"), noise(3.0, 1))


def base_logits(folder: Path, tokenizer: Any) -> torch.Tensor:
    """Of a folder without profile: loading for inference asks for one."""
    copy = folder.parent / f"{folder.name}-with-profile"
    if not copy.exists():
        shutil.copytree(folder, copy)
        Profile().save(copy)
    return logits(load_engine(copy, device="cpu").thinker, tokenizer)


@pytest.mark.parametrize("kind", MAKERS)
def test_full_fine_tuning_learns_everything_but_vision(
    bases: dict[str, Path], corpus: Path, tokenizer: Any, tmp_path: Path, kind: str
) -> None:
    made = Trainer(make_config(bases[kind], corpus, "full"), tmp_path, cpu=True)
    folder = made.dialogues()
    losses = checked(tmp_path, "dialogues")
    assert losses[-1] < losses[0]
    before, after = weights_of(bases[kind]), weights_of(folder)
    assert before.keys() == after.keys()
    same = {key for key, value in after.items() if torch.equal(value, before[key].bfloat16())}
    assert {key for key in after if "visual." in key} <= same
    moved = [key for key in after if key not in same and "layers." in key]
    for part in ("audio_tower.", "self_attn.q_proj", "mlp."):
        assert any(part in key for key in moved), part
    assert all(value.dtype == torch.bfloat16 for value in after.values())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    made.model.thinker.eval()
    for parameter in made.model.thinker.parameters():
        parameter.data = parameter.data.bfloat16().float()
    expected = logits(made.model.thinker, tokenizer)
    got = logits(load_engine(folder, device="cpu").thinker, tokenizer)
    assert torch.allclose(got, expected, atol=1e-4)
    turns(load_engine(folder, device="cpu"), noise(3.0, 1))


def test_lora_of_experts_and_audio_where_asked(
    bases: dict[str, Path], corpus: Path, tokenizer: Any, tmp_path: Path
) -> None:
    config = make_config(bases["experts"], corpus, "lora", experts=True, audio=True)
    made = Trainer(config, tmp_path, cpu=True)
    trained = [n for n, p in made.model.thinker.named_parameters() if p.requires_grad]
    assert any("mlp.experts" in name for name in trained)
    assert any("audio_tower" in name for name in trained)
    folder = made.single_pass()
    got = logits(load_engine(folder, device="cpu").thinker, tokenizer)
    made.model.thinker.eval()
    assert torch.allclose(got, logits(made.model.thinker, tokenizer), atol=1e-4)
    with pytest.raises(DataError, match="no routed experts"):
        Trainer(make_config(bases["dense"], corpus, "lora", experts=True), tmp_path, cpu=True)


def test_stages_go_on_with_the_same_adapter(
    bases: dict[str, Path], corpus: Path, tokenizer: Any, tmp_path: Path
) -> None:
    config = make_config(bases["experts"], corpus, "lora", experts=True)
    first, second = train(config, tmp_path / "a", stages=[1, 2], cpu=True)
    again = Trainer(config, tmp_path / "b", start=first, cpu=True)
    again.model.thinker.eval()
    expected = logits(load_engine(first, device="cpu").thinker, tokenizer)
    assert torch.allclose(logits(again.model.thinker, tokenizer), expected, atol=1e-4)
    third = again.dialogues()
    got, whole = (
        load_file(third / "adapter_model.safetensors"),
        load_file(second / "adapter_model.safetensors"),
    )
    assert got.keys() == whole.keys()
    for key, value in got.items():
        assert torch.allclose(value, whole[key], atol=1e-5), key
    profile = load_profile(third)
    assert profile is not None
    training = profile.training
    assert training["before"][training["start"]]["stage"] == "single_pass"
    assert json.loads((third / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(bases["experts"])


def test_an_adapter_that_does_not_fit_its_configuration(
    bases: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    config = make_config(bases["dense"], corpus, "lora")
    [folder] = train(config, tmp_path / "a", stages=[1], cpu=True)

    def begin(config: TrainingConfig, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            Trainer(config, tmp_path / "b", start=folder, cpu=True)
        assert "\n" not in str(caught.value)

    wider = replace(config, model=replace(config.model, lora=Lora(rank=8, alpha=8.0)))
    begin(wider, r"rank 4, alpha 8\.0, expected 8, 8; .*merge")
    begin(make_config(bases["experts"], corpus, "lora"), "is an adapter of .*dense")
    with_tower = replace(config.model, lora=Lora(rank=4, alpha=8.0, audio=True))
    begin(replace(config, model=with_tower), "missing; train with its settings")
    file = folder / "adapter_model.safetensors"
    data, weights = file.read_bytes(), load_file(file)
    save_file({**weights, "base_model.model.other.lora_A.weight": torch.ones(2)}, file)
    begin(config, "is not adapted here")
    file.write_bytes(data[: len(data) // 2])
    begin(config, "is it complete")
    [broken] = [bases["dense"].parent / "broken"]
    shutil.copytree(bases["dense"], broken)
    weights = load_file(broken / "model.safetensors")
    weights.popitem()
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"do not fit config\.json"):
        Trainer(make_config(broken, corpus, "full"), tmp_path / "c", cpu=True)


@pytest.mark.parametrize("kind", ["dense", "full", "qwen2.5"])
def test_merge(
    bases: dict[str, Path], corpus: Path, tokenizer: Any, tmp_path: Path, capsys: Any, kind: str
) -> None:
    """The merged model gives what the adapter gives, and needs its base no more."""
    [adapter] = train(make_config(bases[kind], corpus, "lora"), tmp_path, stages=[1], cpu=True)
    out = tmp_path / "merged"
    assert main(["merge", str(adapter), "-o", str(out), "--dtype", "float32"]) == 0
    assert load_profile(out) == load_profile(adapter)
    expected = logits(load_engine(adapter, device="cpu").thinker, tokenizer)
    assert torch.allclose(logits(thinker_of(out), tokenizer), expected, atol=1e-5)
    half = tmp_path / "half"
    assert main(["merge", str(adapter), "-o", str(half)]) == 0
    assert {v.dtype for v in load_file(half / "model.safetensors").values()} == {torch.bfloat16}
    capsys.readouterr()
    assert main(["merge", str(adapter), "-o", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["merge", str(out), "-o", str(tmp_path / "x")]) == 1
    assert "expected a LoRA adapter" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_mean_of_models(
    bases: dict[str, Path], tokenizer: Any, tmp_path: Path, capsys: Any
) -> None:
    """Weights are averaged by share; what differs in more than them has no mean."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        save(MAKERS["dense"](tokenizer), tokenizer, folder)
        before = {"one": {"stage": "dialogues"}}
        training = {"stage": "cached", "start": "one", "before": before, "config": seed}
        replace(load_profile(folder) or Profile(), training=training).save(folder)
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    assert any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    command = ["merge", *map(str, folders), "--dtype", "float32", "-o"]
    for shares, parts in (([], (1 / 3, 1 / 3, 1 / 3)), (["--shares", "1,2,1"], (0.25, 0.5, 0.25))):
        out = tmp_path / f"mean-{len(shares)}"
        assert main([*command, str(out), *shares]) == 0
        for name, value in load_file(out / "model.safetensors").items():
            expected = sum(p * one[name] for p, one in zip(parts, weights, strict=True))
            assert torch.allclose(value, expected, atol=1e-6), name
        profile = load_profile(out)
        assert profile is not None
        before = profile.training["before"]
        assert len(before) == 4 and before["one"] == {"stage": "dialogues"}
        for seed, (part, entry) in enumerate(zip(parts, profile.training["mean"], strict=True)):
            assert entry["share"] == round(part, 4)
            assert before[entry["model"]] == {"stage": "cached", "start": "one", "config": seed}
        turns(load_engine(out, device="cpu"), noise(3.0, 1))

    otherwise = [shutil.copytree(folders[1], tmp_path / name) for name in ("says", "writes")]
    replace(load_profile(folders[1]) or Profile(), decimals=3).save(otherwise[0])
    written = otherwise[1] / "tokenizer.json"
    written.write_text(written.read_text().replace("<|im_start|>", "<|im_begin|>"))
    wider = shutil.copytree(bases["experts"], tmp_path / "wider")
    shutil.copy(folders[0] / "speaker_reasoner.json", wider)
    for other, part in (
        (otherwise[0], "they hold their dialogues differently"),
        (otherwise[1], "its tokenizer is not that of"),
        (wider, "a mean is of models of one shape"),
    ):
        capsys.readouterr()
        assert main(["merge", str(folders[0]), str(other), "-o", str(tmp_path / "none")]) == 1
        assert part in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


SETTINGS = """
[model]
base = "{base}"
method = "lora"
[profile]
chunk_s = 10.0
max_speakers = 4
[run]
bf16 = false
[corpora]
train = ["{corpus}"]
check = ["{corpus}"]
[single_pass]
schedule = {{ steps = 2, learning_rate = 1e-3 }}
kinds = [{{ task = "base" }}]
"""


def test_audio_with_a_fault_is_told_before_training(
    bases: dict[str, Path], corpus: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    """Its pieces are left out and the rest is learned from; `--strict` stops before anything is."""
    copy, gone, file = tmp_path / "corpus", tmp_path / "gone.wav", tmp_path / "my.toml"
    shutil.copytree(corpus, copy)
    pieces = (copy / "pieces.jsonl").read_text().splitlines()
    first = json.loads(pieces[0])["audio"]
    lost = sum(json.loads(piece)["audio"] == first for piece in pieces)
    assert 0 < lost < len(pieces)
    text = "\n".join(pieces).replace(json.dumps(first), json.dumps(str(gone)))
    (copy / "pieces.jsonl").write_text(text)
    file.write_text(SETTINGS.format(base=bases["dense"], corpus=copy))
    command = ["train", str(file), "--cpu", "-o", str(tmp_path / "out")]
    assert main([*command, "--strict"]) == 1
    message = capsys.readouterr().err
    assert f"{str(gone)!r}: cannot be read (No such file or directory)" in message
    assert (
        "(audio missing); without --strict it is left out" in message and "Traceback" not in message
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == []
    assert main(command) == 0
    message = capsys.readouterr().err
    for name in ("train", "check"):
        assert f"{name}: {len(pieces) - lost} pieces\n" in message
        assert f"{name}: {lost} pieces left out: audio missing\n" in message
    assert f"recordings, audio missing: 1\n  {str(gone)!r}: cannot be read" in message
    assert (tmp_path / "out/stage-1/adapter_model.safetensors").is_file()

    mine: list[Any] = []
    monkeypatch.setattr("accelerate.utils.gather_object", lambda own: mine + own)
    again = [*command[:-1], str(tmp_path / "again")]
    mine.append(set())  # as a process on another machine, that has the recording
    assert main(again) == 1
    assert (
        f"{gone}: got a recording that some of 2 processes cannot hear" in capsys.readouterr().err
    )


def test_merge_on_a_full_disk(
    bases: dict[str, Path], corpus: Path, tmp_path: Path, capsys: Any, file_size_limit: Any
) -> None:
    """Whichever file no longer fits, nothing half-written is left and what was there is untouched."""
    config = make_config(bases["dense"], corpus, "lora")
    [adapter] = train(config, tmp_path / "run", stages=[1], cpu=True)
    out, empty, new = (tmp_path / "out" / name for name in ("merged", "empty", "new"))
    assert main(["merge", str(adapter), "-o", str(out)]) == 0
    empty.mkdir()
    sizes = {path.stat().st_size for path in out.iterdir()}
    assert max(sizes) > 100 * min(sizes)
    before = contents(tmp_path)
    capsys.readouterr()
    for size in sizes:
        for folder in (empty, new):
            with file_size_limit(size - 1):
                assert main(["merge", str(adapter), "-o", str(folder)]) == 1
            message = " ".join(capsys.readouterr().err.split())
            assert f"{folder}: cannot be saved" in message and "is the disk full?" in message, size
            assert contents(tmp_path) == before
    with file_size_limit(max(sizes)):
        assert main(["merge", str(adapter), "-o", str(empty)]) == 0
    merged = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in (out, empty)]
    assert merged[0] == merged[1]


def contents(folder: Path) -> dict[Path, bytes | None]:
    """What lies in a folder and below; `None` for folders."""
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}
