"""Models in the layout of the published checkpoints. What vLLM makes of them: benchmarks/real_vllm.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from speaker_reasoner import load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.errors import CheckpointError
from speaker_reasoner.protocol import load_profile
from speaker_reasoner.train.published import publish
from speaker_reasoner.train.scratch import make_thinker

from .conftest import TINY, noise
from .test_checkpoint import logits, save, turns
from .test_compose import LLMS, composed, make_llm, make_whisper
from .test_train_models import MAKERS, thinker_of

CLIP = noise(4.0, 6)


def names(path: Path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


def test_the_embedded_checkpoint(tmp_path: Path, capsys: Any) -> None:
    """As a whole model it says what it says as a thinker, and transformers knows its classes."""
    from transformers import AutoConfig, AutoTokenizer

    out = tmp_path / "served"
    assert main(["export", "vllm", "tiny", "-o", str(out), "--dtype", "float32"]) == 0
    assert capsys.readouterr().err == f"wrote {out}\n"
    assert all(name.startswith("thinker.") for name in names(out / "model.safetensors"))
    config = AutoConfig.from_pretrained(out)
    assert config.architectures == ["Qwen3OmniMoeForConditionalGeneration"]
    assert config.dtype == torch.float32 and not config.enable_audio_output
    assert AutoTokenizer.from_pretrained(out).audio_token == "<|audio_pad|>"
    extractor = json.loads((out / "preprocessor_config.json").read_text())
    assert extractor["processor_class"] == "Qwen3OmniMoeProcessor"
    assert extractor["feature_extractor_type"] == "WhisperFeatureExtractor"
    tiny, served = (load_engine(model, device="cpu") for model in ("tiny", out))
    assert served.profile == tiny.profile
    assert turns(served, CLIP) == turns(tiny, CLIP)


def test_a_composed_model(tmp_path: Path) -> None:
    from transformers import AutoConfig

    make_whisper(tmp_path / "whisper")
    make_llm(next(iter(LLMS)), tmp_path / "llm")
    model = composed(tmp_path / "whisper", tmp_path / "llm", tmp_path / "model")
    publish(model, tmp_path / "served")
    config = AutoConfig.from_pretrained(tmp_path / "served")
    assert config.architectures == ["Qwen2_5OmniForConditionalGeneration"]
    tokenizer = json.loads((tmp_path / "served" / "tokenizer_config.json").read_text())
    assert tokenizer["processor_class"] == "Qwen2_5OmniProcessor"
    assert tokenizer["extra_special_tokens"]["audio_bos_token"] == "<|audio_start|>"
    expected, got = (load_engine(one, device="cpu") for one in (model, tmp_path / "served"))
    assert got.profile == expected.profile == load_profile(tmp_path / "served")
    assert turns(got, CLIP) == turns(expected, CLIP)


@pytest.mark.parametrize("kind", ["experts", "full"])
def test_experts_and_shards(
    kind: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts are written one by one, as in the published files; an index names the part; a talker is left out."""
    torch.manual_seed(0)
    thinker = MAKERS[kind](tokenizer)
    save(thinker, tokenizer, tmp_path / "model")
    part = type(make_thinker(tokenizer, TINY))
    write = part.save_pretrained
    monkeypatch.setattr(
        part, "save_pretrained", lambda self, path: write(self, path, max_shard_size="100KB")
    )
    publish(tmp_path / "model", tmp_path / "served", torch.float32)
    index = json.loads((tmp_path / "served" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "served").glob("*.safetensors"))
    assert len(files) > 1
    assert index["weight_map"] == {name: path.name for path in files for name in names(path)}
    assert any(".experts.0." in name for name in index["weight_map"])
    expected = logits(thinker_of(tmp_path / "model"), tokenizer)
    assert torch.allclose(logits(thinker_of(tmp_path / "served"), tokenizer), expected, atol=1e-5)


def test_settings_for_pictures_that_are_there_stay(tmp_path: Path) -> None:
    publish(None, tmp_path / "once")
    given = tmp_path / "once" / "video_preprocessor_config.json"
    given.write_text(json.dumps({"video_processor_type": "Qwen2VLVideoProcessor", "fps": 3}))
    publish(tmp_path / "once", tmp_path / "twice")
    assert json.loads((tmp_path / "twice" / given.name).read_text())["fps"] == 3
    assert names(tmp_path / "twice" / "model.safetensors") == names(
        tmp_path / "once" / "model.safetensors"
    )


def test_a_token_that_the_configuration_does_not_number(tokenizer: Any, tmp_path: Path) -> None:
    save(MAKERS["dense"](tokenizer), tokenizer, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["vision_end_token_id"]
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: expected vision_end_token_id, the"):
        publish(tmp_path / "model", tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_who_may_read_the_folder_may_read_the_weights(tmp_path: Path) -> None:
    publish(None, tmp_path / "served")
    mode = (tmp_path / "served").stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "served").iterdir()} == {mode}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["vllm", "nowhere"], "nowhere: expected a model folder or a hub id OWNER/NAME"),
        (["vllm", "tiny", "--strict"], "--strict is of swift; got vllm"),
        (["swift", "my.toml", "--dtype", "float32"], "--dtype is of vllm; got swift"),
    ],
)
def test_bad_input(words: list[str], expected: str, tmp_path: Path, capsys: Any) -> None:
    try:
        code = main(["export", *words, "-o", str(tmp_path / "out")])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code in (1, 2) and expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine").write_text("x")
    assert main(["export", "vllm", "tiny", "-o", str(tmp_path)]) == 1
    assert "is there already; choose a new folder" in capsys.readouterr().err
