"""The plan of memory and time: counts are exact, activations are what autograd keeps."""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.engines.thinker import audio_tower, encode_audio, text_model
from speaker_reasoner.errors import CheckpointError, DataError
from speaker_reasoner.train.adapters import Lora, adapt
from speaker_reasoner.train.plan import Setup, activations, memory, plan
from speaker_reasoner.train.scratch import make_thinker
from speaker_reasoner.train.shapes import DialogueShape, ModelShape, average_dialogue, load_model

from .conftest import TINY
from .test_checkpoint import thinker_25

LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WIDE = replace(
    TINY, audio_width=64, audio_layers=2, text_width=128, text_layers=4, text_ffn=256, text_heads=4
)
THINKERS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda tokenizer: make_thinker(tokenizer, WIDE),
    "experts": lambda tokenizer: make_thinker(tokenizer, replace(WIDE, experts=4)),
    "qwen2.5": thinker_25,
}


@pytest.fixture(scope="module", params=THINKERS)
def thinker(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    return THINKERS[request.param](tokenizer)


@pytest.fixture(scope="module")
def dense(tokenizer: Any) -> Any:
    return THINKERS["dense"](tokenizer)


def test_parameters_are_those_of_the_model(thinker: Any, tmp_path: Path) -> None:
    thinker.config.save_pretrained(tmp_path)
    counts = load_model(tmp_path).parameters
    assert counts == load_model(tmp_path / "config.json").parameters
    assert counts.total == sum(p.numel() for p in thinker.parameters())
    assert counts.audio == sum(p.numel() for p in audio_tower(thinker).parameters())
    layers = text_model(thinker).layers
    assert counts.attention == sum(
        p.numel() for layer in layers for p in layer.self_attn.parameters()
    )
    inner = counts.mlp + counts.experts + counts.router
    assert inner == sum(p.numel() for layer in layers for p in layer.mlp.parameters())
    assert counts.head == (0 if thinker.config.tie_word_embeddings else counts.embeddings)
    assert counts.experts_active == counts.experts // 2  # 2 of 4


def test_config_of_the_full_model(dense: Any, tmp_path: Path) -> None:
    values = {"model_type": "qwen3_omni_moe", "thinker_config": dense.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert load_model(tmp_path).parameters == ModelShape("dense", dense).parameters


@pytest.mark.parametrize("experts", [False, True])
def test_adapters_are_those_that_are_trained(thinker: Any, experts: bool) -> None:
    pytest.importorskip("peft")
    mixture = hasattr(text_model(thinker).layers[0].mlp, "experts")
    copy = type(thinker)(thinker.config)
    adapt(copy, Lora(rank=3, experts=experts and mixture))
    expected = ModelShape("thinker", thinker).lora(3, experts=experts)
    assert expected == sum(p.numel() for p in copy.parameters() if p.requires_grad)


def kept_bytes(thinker: Any, run: Callable[[], Any]) -> int:
    """Bytes of the storages that autograd keeps of a forward pass, weights left out."""
    import torch

    known = {p.untyped_storage().data_ptr() for p in thinker.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    total = sum(storage.nbytes() for storage in kept.values())
    del result
    return total


def decode(thinker: Any, tokens: int) -> Callable[[], Any]:
    """A forward pass of the text model."""
    import torch

    model = text_model(thinker)
    width = thinker.config.text_config.hidden_size

    def run() -> Any:
        embedded = torch.randn(1, tokens, width, dtype=next(model.parameters()).dtype)
        positions = torch.arange(tokens).expand(3, 1, tokens)
        return model(
            inputs_embeds=embedded.requires_grad_(), position_ids=positions, use_cache=False
        ).last_hidden_state

    return run


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_activations_of_the_text_model(thinker: Any, dtype: str) -> None:
    """Within 10 %: the rest is positions, indices, and what the CPU's attention copies."""
    import torch

    tokens = 256
    setup = Setup(method="full", dtype=dtype)
    spoken = DialogueShape(1, 0.0, 0, tokens, 0, True)
    expected, _, _ = activations(ModelShape("thinker", thinker), setup, spoken)
    thinker.to(torch.bfloat16 if dtype == "bf16" else torch.float32).train()
    try:
        got = kept_bytes(thinker, decode(thinker, tokens))
    finally:
        thinker.float()
    assert expected == pytest.approx(got, rel=0.1)


@pytest.mark.parametrize("kind", THINKERS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_activations_with_adapters(kind: str, tokenizer: Any, dtype: str) -> None:
    import torch

    pytest.importorskip("peft")
    thinker = THINKERS[kind](tokenizer)
    tokens = 256
    spoken = DialogueShape(1, 0.0, 0, tokens, 0, True)
    expected, _, _ = activations(ModelShape(kind, thinker), Setup(dtype=dtype), spoken)
    bf16 = dtype == "bf16"
    thinker.to(torch.bfloat16 if bf16 else torch.float32)
    adapt(thinker, Lora())
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        got = kept_bytes(thinker.train(), decode(thinker, tokens))
    assert expected == pytest.approx(got, rel=0.1)


def test_activations_with_checkpointing(dense: Any) -> None:
    tokens = 256
    spoken = DialogueShape(1, 0.0, 0, tokens, 0, True)
    setup = Setup(method="full", dtype="fp32", gradient_checkpointing=True)
    expected, _, _ = activations(ModelShape("dense", dense), setup, spoken)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # renamed in transformers 5.23
        dense.train().gradient_checkpointing_enable({"use_reentrant": True})
        try:
            got = kept_bytes(dense, decode(dense, tokens))
        finally:
            dense.gradient_checkpointing_disable()
    assert expected == pytest.approx(got, rel=0.1)


def test_activations_of_the_audio_tower(thinker: Any) -> None:
    import torch

    spoken = DialogueShape(1, 16.0, 0, 0, 0, True)
    setup = Setup(method="full", dtype="fp32")
    _, expected, _ = activations(ModelShape("thinker", thinker), setup, spoken)
    features, mask = torch.randn(1, 128, 1600), torch.ones(1, 1600, dtype=torch.long)
    got = kept_bytes(thinker.train(), lambda: encode_audio(thinker, features, mask))
    assert expected == pytest.approx(got, rel=0.1)


def test_published_sizes() -> None:
    """30.5 billion, 3.3 of them active (Qwen3-30B-A3B's model card); a tower of about 650 million
    (Qwen3-Omni's report)."""
    counts = load_model("qwen3-omni-30b-a3b").parameters
    assert counts.text == 30_532_646_912
    assert counts.text_active == pytest.approx(3.3e9, rel=0.02)
    assert counts.audio == pytest.approx(650e6, rel=0.01)
    counts = load_model("qwen2.5-omni-7b").parameters
    assert counts.text == 7_615_616_512  # Qwen2.5-7B's model card: 7.61 billion


def test_dialogue_is_counted_by_the_protocol(random_checkpoint: Path) -> None:
    model = load_model(random_checkpoint)
    spoken = average_dialogue(model, 50.0)
    assert spoken.counted and spoken.turns == 10
    assert spoken.audio_s == pytest.approx(50 * 1.92 + 10 * 0.1, abs=0.5)  # boxes have margins
    assert spoken.audio_tokens == pytest.approx(13 * spoken.audio_s, rel=0.02)
    more = average_dialogue(model, 50.0, turns=20)
    assert more.taught_tokens > spoken.taught_tokens
    assert not average_dialogue(load_model(random_checkpoint / "config.json"), 1.0).turns > 1


def test_sharding_divides_what_it_shards() -> None:
    model = load_model("qwen2.5-omni-7b")
    spoken = average_dialogue(model, 50.0)
    parts = {}
    for sharding in ("none", "zero2", "zero3", "fsdp"):
        setup = Setup(method="full", gpus=8, sharding=sharding)
        parts[sharding] = memory(model, setup, spoken)
    trained = model.parameters.total - model.parameters.vision
    none = parts["none"]
    assert none.gradients + none.optimiser == 14 * trained
    assert none.weights == 2 * model.parameters.total
    for sharding in ("zero2", "zero3", "fsdp"):
        assert parts[sharding].optimiser == -(-none.optimiser // 8)
        assert parts[sharding].gradients == -(-none.gradients // 8)
    assert parts["zero2"].weights == none.weights
    assert parts["fsdp"].weights == -(-none.weights // 8)
    one = memory(model, Setup(method="full", sharding="fsdp"), spoken)
    assert one == memory(model, Setup(method="full"), spoken)


def test_larger_costs_more() -> None:
    model = load_model("qwen2.5-omni-7b")
    base = plan(model, Setup())
    assert base.verdict == "fits"
    for change in ({"batch": 2}, {"chunk_s": 100.0}, {"turns": 20}, {"all_logits": True}):
        other = plan(model, replace(base.setup, **change))  # type: ignore[arg-type]
        assert other.memory.total > base.memory.total
        assert other.time.step_flops > base.time.step_flops
    saving = plan(model, replace(base.setup, gradient_checkpointing=True))
    assert saving.memory.total < base.memory.total
    assert saving.time.step_flops > base.time.step_flops
    assert saving.largest_batch > base.largest_batch >= 1
    at = replace(base.setup, batch=saving.largest_batch, gradient_checkpointing=True)
    assert plan(model, at).verdict == "fits"
    assert plan(model, replace(at, batch=at.batch + 1)).verdict != "fits"
    full = plan(model, Setup(method="full"))
    assert full.verdict == "does not fit" and full.largest_batch == 0
    assert full.time.step_flops > base.time.step_flops


def test_work_is_six_flops_a_weight_and_token() -> None:
    model = load_model("qwen2.5-omni-7b")
    result = plan(model, Setup(method="full", all_logits=True))
    counts = model.parameters
    weights = counts.text - counts.embeddings
    attention = 6 * result.dialogue.tokens**2 * 3584 * 28
    text = 6 * weights * result.dialogue.tokens + attention
    assert text < result.time.step_flops < 1.2 * text  # the rest is the audio tower


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpus": 0}, "gpus 0 is out of range: expected more than 0, at most 1000000"),
        ({"batch": 100_001}, "batch 100001 is out of range: expected more than 0, at most 100000"),
        ({"batch": 10**320}, r"batch 100000000000\.\.\. is out of range"),
        ({"hours": float("nan")}, "hours nan is out of range"),
        ({"peak_tflops": float("inf")}, "peak_tflops inf is out of range"),
        ({"rank": -1}, "rank -1"),
        ({"mfu": 1.5}, "mfu 1.5"),
        ({"gpu_memory_gb": float("nan")}, "gpu_memory_gb nan"),
        ({"chunk_s": 0.5}, "chunk_s 0.5 is not within"),
        ({"turns": 1000}, "1000 turns in 50 s"),
        ({"sharding": "zero9"}, "'zero9' is not none or zero2"),
    ],
)
def test_impossible_numbers(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Setup(**change)


def test_rank_above_the_width(dense: Any) -> None:
    with pytest.raises(DataError, match="rank 500 is above the model's width 128"):
        plan(ModelShape("dense", dense), Setup(rank=500))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; expected a model folder, a config.json, or one of qwen3-omni"),
        ("{", "not readable as JSON"),
        ("[]", "expected a JSON object, got list"),
        ('{"model_type": "llama"}', "model_type 'llama' is not a thinker's"),
        ('{"model_type": "qwen2_5_omni_talker"}', "'qwen2_5_omni_talker' is not a thinker's"),
        (
            '{"model_type": "qwen2_5_omni_thinker", "text_config": {"hidden_size": "wide"}}',
            "not a thinker's configuration",
        ),
    ],
)
def test_what_is_not_a_config(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_json_holds_everything(random_checkpoint: Path) -> None:
    result = plan(load_model(random_checkpoint), Setup())
    output = json.loads(json.dumps(result.to_json()))
    assert output["memory_bytes"]["total"] == sum(asdict(result.memory).values())
    assert output["parameters"]["trained"] == output["parameters"]["lora"]["without_experts"]
    assert output["verdict"] == "fits"


def command(*arguments: str) -> int:
    import argparse

    from speaker_reasoner.commands.plan import add_plan

    parser = argparse.ArgumentParser()
    add_plan(parser.add_subparsers())
    parsed = parser.parse_args(["plan", *arguments])
    return int(parsed.run(parsed))


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("qwen3-omni-30b-a3b", "--gpus", "8", "--sharding", "fsdp") == 0
    output = capsys.readouterr().out
    for words in ("text: experts", "with the experts", "fits on 8 GPUs of 80 GB", "GPU-hours"):
        assert words in output
    assert "experts are not adapted" in output and "characters a token" in output


def test_command_as_json(random_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(random_checkpoint), "--method", "full", "--json") == 0
    output = json.loads(capsys.readouterr().out)
    assert output["dialogue"]["counted"] is True and output["setup"]["method"] == "full"
    with pytest.raises(DataError, match="batch 0"):
        command(str(random_checkpoint), "--batch", "0")
