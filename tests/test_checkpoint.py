"""Loading: thinkers of both classes, full models, adapters, and everything that can be wrong."""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from speaker_reasoner import load_engine
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.pitch import PITCHES
from speaker_reasoner.engines.thinker import (
    audio_tokens,
    audio_tower,
    encode_audio,
    log_mel,
    slice_tokens,
)
from speaker_reasoner.engines.voice_head import VoiceHead, load_voice_head, new_head, tower_layers
from speaker_reasoner.errors import CheckpointError
from speaker_reasoner.protocol import PROFILE_FILE, Profile
from speaker_reasoner.protocol.markup import MARKUP
from speaker_reasoner.reasoner import Dialogue, Stop, run
from speaker_reasoner.train.scratch import (
    make_feature_extractor,
    make_thinker,
    save_checkpoint,
)
from speaker_reasoner.train.windows import join_windows

from .conftest import TINY, noise

PROFILE = replace(Profile(), decimals=1, chunk_s=20.0, max_turns=3, max_speakers=2)
LORA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS = {
    "chat_template": (
        "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.content is string -%}{{ m.content }}{%- else -%}{%- for part in m.content -%}"
        "{%- if part.type == 'audio' -%}{{ '<|audio_start|><|audio_pad|><|audio_end|>' }}"
        "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}"
        "{{ '<|im_end|>\\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
    ),
    "initial_user_text": "Who said what, and when?",
    "turn_user_text": "user {turn}",
}


def spread(model: Any) -> Any:
    """Random weights wide enough that every one of them shows in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval()


def ids_of(tokenizer: Any) -> dict[str, int]:
    names = ("audio_pad", "image_pad", "video_pad", "audio_start", "audio_end", "vision_start")
    return {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}


def thinker_25(tokenizer: Any) -> Any:
    """A Qwen2.5-Omni thinker: 25 audio tokens a second."""
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    ids = ids_of(tokenizer)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 4, 4]}
    config = Qwen2_5OmniThinkerConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": rope,
            "tie_word_embeddings": False,
        },
        audio_config={
            "d_model": 32,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "output_dim": 64,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_heads": 1,
            "out_hidden_size": 64,
            "patch_size": 2,
            "temporal_patch_size": 1,
            "spatial_merge_size": 1,
            "in_channels": 1,
            "window_size": 4,
            "fullatt_block_indexes": [0],
        },
        audio_token_index=ids["audio_pad"],
        image_token_index=ids["image_pad"],
        video_token_index=ids["video_pad"],
        audio_start_token_id=ids["audio_start"],
        audio_end_token_id=ids["audio_end"],
        vision_start_token_id=ids["vision_start"],
    )
    return Qwen2_5OmniThinkerForConditionalGeneration(config)


SPEAKING = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 64,
}


def full_3(thinker: Any) -> Any:
    """Thinker, talker and vocoder of Qwen3-Omni."""
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    rope = {
        "rope_type": "default",
        "mrope_section": [4, 2, 2],
        "interleaved": True,
        "rope_theta": 1e6,
    }
    talker = {
        "text_config": SPEAKING
        | {
            "num_experts": 2,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "rope_parameters": rope,
        },
        "code_predictor_config": SPEAKING | {"num_code_groups": 4},
        "num_code_groups": 4,
        "thinker_hidden_size": 64,
        "accept_hidden_layer": 1,
        "spatial_merge_size": 1,
    }
    code2wav = {
        "codebook_size": 16,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_quantizers": 2,
        "decoder_dim": 16,
        "upsample_rates": [2],
        "upsampling_ratios": [2],
    }
    full = Qwen3OmniMoeForConditionalGeneration(
        Qwen3OmniMoeConfig(
            thinker_config=thinker.config.to_dict(), talker_config=talker, code2wav_config=code2wav
        )
    )
    full.thinker.load_state_dict(thinker.state_dict())
    return full


def full_25(thinker: Any) -> Any:
    """Thinker, talker and vocoder of Qwen2.5-Omni."""
    from transformers import Qwen2_5OmniConfig, Qwen2_5OmniForConditionalGeneration

    talker = SPEAKING | {
        "vocab_size": 8448,
        "hidden_size": 8,
        "num_attention_heads": 1,
        "embedding_size": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]},
    }
    dit = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "head_dim": 16,
        "emb_dim": 8,
        "num_embeds": 16,
        "mel_dim": 8,
        "look_ahead_layers": [0],
        "look_backward_layers": [0],
        "enc_emb_dim": 8,
        "enc_dim": 8,
        "enc_channels": [8, 8, 8, 8, 24],
        "enc_attention_channels": 4,
        "enc_res2net_scale": 2,
        "enc_se_channels": 4,
    }
    bigvgan = {
        "mel_dim": 8,
        "upsample_initial_channel": 16,
        "upsample_rates": [2],
        "upsample_kernel_sizes": [4],
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 1, 1]],
    }
    full = Qwen2_5OmniForConditionalGeneration(
        Qwen2_5OmniConfig(
            thinker_config=thinker.config.to_dict(),
            talker_config=talker,
            token2wav_config={"dit_config": dit, "bigvgan_config": bigvgan},
        )
    )
    full.thinker.load_state_dict(thinker.state_dict())
    return full


MAKERS: dict[str, Callable[[Any], Any]] = {
    "dense": lambda tokenizer: make_thinker(tokenizer, TINY),
    "experts": lambda tokenizer: make_thinker(tokenizer, replace(TINY, experts=4)),
    "qwen2.5": thinker_25,
}


@pytest.fixture(scope="module")
def thinkers(tokenizer: Any) -> dict[str, Any]:
    torch.manual_seed(1)
    return {kind: spread(make(tokenizer)) for kind, make in MAKERS.items()}


@pytest.fixture(scope="module")
def saved(
    thinkers: dict[str, Any], tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folders = {}
    for kind, thinker in thinkers.items():
        folders[kind] = tmp_path_factory.mktemp(kind)
        save(thinker, tokenizer, folders[kind])
    return folders


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    save_checkpoint(folder, model, tokenizer, make_feature_extractor())
    PROFILE.save(folder)


@pytest.fixture
def folder(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A dense checkpoint of one's own, to break."""
    copy = tmp_path / "model"
    shutil.copytree(saved["dense"], copy)
    return copy


def logits(thinker: Any, tokenizer: Any, seconds: float = 2.0) -> torch.Tensor:
    """What the class itself makes of a clip between a few tokens, `[T, V]`."""
    features, mask = log_mel(make_feature_extractor(), [noise(seconds, 6)])
    ids = ids_of(tokenizer)
    count = audio_tokens(thinker, mask.sum(-1))[0]
    prompt = [5, ids["audio_start"], *[ids["audio_pad"]] * count, ids["audio_end"], 7, 8]
    thinker = thinker.float()
    with torch.inference_mode():
        output = thinker(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            input_features=features,
            feature_attention_mask=mask,
        )
    result: torch.Tensor = output.logits[0]
    return result


def turns(engine: Any, *clips: Any) -> list[list[str]]:
    """The turns of the clips' dialogues; all must end well."""
    dialogues = [Dialogue(clip, engine.profile) for clip in clips]
    for _ in run(dialogues, engine):
        pass
    outcomes = [dialogue.outcome for dialogue in dialogues if dialogue.outcome]
    assert len(outcomes) == len(clips)
    for outcome in outcomes:
        assert outcome.stop in (Stop.ANSWERED, Stop.TURN_LIMIT), outcome.detail
    return [[answer.text for answer in outcome.trace.answers] for outcome in outcomes]


def complaint(model: str | Path | None, **options: Any) -> str:
    """The message of the error; one line, and it names the folder."""
    with pytest.raises(CheckpointError) as caught:
        load_engine(model, **({"device": "cpu"} | options))
    text = str(caught.value)
    assert "\n" not in text
    return text


# Thinkers


@pytest.mark.parametrize("kind", MAKERS)
def test_thinker_round_trip(
    saved: dict[str, Path], thinkers: dict[str, Any], tokenizer: Any, kind: str
) -> None:
    engine = load_engine(saved[kind], device="cpu")
    assert type(engine.thinker) is type(thinkers[kind])
    assert engine.profile == PROFILE
    assert torch.equal(logits(engine.thinker, tokenizer), logits(thinkers[kind], tokenizer))


@pytest.mark.parametrize("kind", MAKERS)
def test_cached_equals_recomputed(saved: dict[str, Path], kind: str) -> None:
    kept = load_engine(saved[kind], device="cpu")
    anew = TransformersEngine(kept.checkpoint, keep_cache=False)
    clips = noise(6.3, 1), noise(0.4, 2)
    spoken = turns(kept, *clips)
    assert spoken == turns(anew, *clips)
    assert spoken == [turns(kept, clip)[0] for clip in clips]


@pytest.mark.parametrize("kind", MAKERS)
def test_first_logits_equal_the_models_own(
    saved: dict[str, Path], tokenizer: Any, monkeypatch: Any, kind: str
) -> None:
    """Markup, audio embeddings, positions: the engine's prompt is the class's own."""
    engine = load_engine(saved[kind], device="cpu")
    seen: list[torch.Tensor] = []
    read = engine.text.read

    def watched(*arguments: Any) -> Any:
        result = read(*arguments)
        seen.append(result[0][0])  # after the prompt; a draft may follow
        return result

    monkeypatch.setattr(engine.text, "read", watched)
    clip = noise(3.3, 4)
    request = Dialogue(clip, engine.profile).request
    assert request is not None
    engine.ask([request])
    features, mask = log_mel(make_feature_extractor(), [clip])
    count = audio_tokens(engine.thinker, mask.sum(-1))[0]
    words = "".join(getattr(part, "text", MARKUP.audio * count) for part in request.parts)
    ids = tokenizer.encode(words, add_special_tokens=False)
    assert ids.count(engine.audio_id) == count
    with torch.inference_mode():
        own = engine.thinker(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            input_features=features,
            feature_attention_mask=mask,
        ).logits[0, -1]
    assert torch.allclose(seen[0], own, atol=1e-4)


def test_positions_of_qwen25_count_up(saved: dict[str, Path]) -> None:
    """With audio alone its three axes count 0..n-1 too, over several clips."""
    engine = load_engine(saved["qwen2.5"], device="cpu")
    thinker, config = engine.thinker, engine.thinker.config
    clip = [config.audio_start_token_id, *[engine.audio_id] * 50, config.audio_end_token_id]
    ids = [5, *clip, 7, 8, *clip, 9]
    rope, _ = thinker.get_rope_index(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        audio_seqlens=torch.tensor([200, 200]),
    )
    assert torch.equal(rope.long(), torch.arange(len(ids)).expand(3, 1, -1))


@pytest.mark.parametrize(("kind", "per_second"), [("dense", 13), ("experts", 13), ("qwen2.5", 25)])
def test_audio_tokens(saved: dict[str, Path], kind: str, per_second: int) -> None:
    """The length formulas hold for lengths around every window, alone and in a batch."""
    engine = load_engine(saved[kind], device="cpu")
    assert slice_tokens(engine.thinker, [16_000, 160_000]) == [per_second, 10 * per_second]
    seconds = (0.05, 1.0, 1.01, 1.999, 2.0, 2.03, 4.01, 8.0, 8.52)
    clips = [noise(s, i) for i, s in enumerate(seconds)]
    extractor = engine.checkpoint.extractor
    with torch.inference_mode():
        together = encode_audio(engine.thinker, *log_mel(extractor, clips))
        alone = [encode_audio(engine.thinker, *log_mel(extractor, [clip]))[0] for clip in clips]
    assert [len(e) for e in together] == slice_tokens(engine.thinker, [len(c) for c in clips])
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


@torch.inference_mode()
def test_a_tower_waits_for_nothing_of_its_device(saved: dict[str, Path]) -> None:
    """Tensors of the meta device hold no numbers: what a processor would have to wait for is an error there."""
    engine = load_engine(saved["dense"], device="cpu")
    clips = [noise(s, i) for i, s in enumerate((9.13, 1.0, 2.0, 5.37))]
    features, mask = log_mel(engine.checkpoint.extractor, clips)
    expected = [len(one) for one in encode_audio(engine.thinker, features, mask)]
    thinker = engine.thinker.to("meta")
    for change in (lambda tower: None, join_windows):
        change(audio_tower(thinker))
        embedded = encode_audio(thinker, features.to("meta"), mask)
        assert [(one.device.type, len(one)) for one in embedded] == [
            ("meta", count) for count in expected
        ]


@pytest.mark.parametrize("kind", ["dense", "qwen2.5"])
def test_laid_out_clips_and_joined_windows_sound_as_the_class_has_them(
    saved: dict[str, Path], kind: str
) -> None:
    engine = load_engine(saved[kind], device="cpu")
    thinker, tower = engine.thinker, audio_tower(engine.thinker)
    clips = [noise(s, i) for i, s in enumerate((9.13, 1.0, 2.0, 5.37))]
    features, mask = log_mel(engine.checkpoint.extractor, clips)
    beyond = features + 0.3 * (1 - mask.unsqueeze(1))  # what padding holds is not heard
    learned = list(tower.layers.requires_grad_().parameters())

    def gradients() -> list[torch.Tensor | None]:
        embedded = torch.cat(encode_audio(thinker, features, mask))
        return list(torch.autograd.grad(embedded.square().mean(), learned, allow_unused=True))

    expected = gradients()
    with torch.inference_mode():
        meant = thinker.get_audio_features(features, mask, return_dict=True).last_hidden_state
        assert torch.equal(torch.cat(encode_audio(thinker, beyond, mask)), meant)
        before = [layer.self_attn.forward for layer in tower.layers]
        join_windows(tower)
        joined = torch.cat(encode_audio(thinker, features, mask))
    for own, other in zip(gradients(), expected, strict=True):
        assert (own is None) == (other is None)
        assert own is None or other is None or torch.allclose(own, other, rtol=1e-3, atol=1e-7)
    assert all(
        layer.self_attn.forward != one for layer, one in zip(tower.layers, before, strict=True)
    )
    assert torch.allclose(joined, meant, atol=1e-4)


@pytest.mark.parametrize("kind", ["dense", "experts", "qwen2.5"])
def test_a_voice_head_with_a_tower_of_its_own(
    saved: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """It hears by it, before and after it is saved; what is transcribed does not."""
    engine = load_engine(saved[kind], device="cpu")
    thinker = engine.thinker
    features, mask = log_mel(engine.checkpoint.extractor, [noise(s) for s in (1.3, 2.6)])
    torch.manual_seed(0)
    head = new_head(thinker, 1)
    sung = torch.rand(2, PITCHES)

    def points(of: VoiceHead) -> torch.Tensor:
        with torch.inference_mode():
            return of(tower_layers(of.hearing(thinker), features, mask), sung)

    with torch.inference_mode():
        before, same = points(head), torch.cat(encode_audio(thinker, features, mask))
        for weight in audio_tower(head.hearing(thinker)).layers.parameters():
            weight.add_(torch.randn_like(weight) / 10)
        assert not torch.allclose(points(head), before, atol=1e-3)
        assert torch.equal(torch.cat(encode_audio(thinker, features, mask)), same)
    assert len(audio_tower(head.hearing(thinker)).layers) == 1
    head.save(tmp_path)
    again = load_voice_head(tmp_path, thinker)
    assert again is not None and again.tower is not None and head.tower is not None
    assert torch.allclose(points(again), points(head), atol=0.02)
    for name, weight in head.tower.state_dict().items():  # its matrices in eight bits, by rows
        rows, kept = weight.flatten(1) if weight.ndim > 1 else weight.unsqueeze(1), again.tower
        lost = (kept.state_dict()[name].reshape(rows.shape) - rows).abs().amax(1)
        assert (lost <= rows.abs().amax(1) / 250 * (weight.ndim > 1)).all(), name


@pytest.mark.parametrize(("kind", "tokens"), [("dense", 260), ("qwen2.5", 500)])
def test_context_counts_the_audio_of_its_class(
    saved: dict[str, Path], kind: str, tokens: int
) -> None:
    """20 s fill a context that has room for everything else but not for them, and only then."""
    engine = load_engine(saved[kind], device="cpu")
    engine.max_new_tokens = 1
    request = Dialogue(noise(20.0), engine.profile).request
    assert request is not None
    text = sum(len(piece.ids) for piece in engine._row(request).memory.pending)
    request.session.memory.clear()
    engine.context_tokens = tokens + text + 1
    [reply] = engine.ask([request])
    assert not reply.ids and reply.error and "outgrew" in reply.error
    request.session.memory.clear()
    engine.context_tokens += 1
    [reply] = engine.ask([request])
    assert reply.ids


def test_markup_of_qwen25(saved: dict[str, Path], tmp_path: Path) -> None:
    """Its tokenizer names the audio markup otherwise; the ids the model sees are the same."""
    other = tmp_path / "model"
    shutil.copytree(saved["qwen2.5"], other)
    for file in other.glob("tokenizer*.json"):
        text = file.read_text(encoding="utf-8")
        for ours, own in (("audio_start", "audio_bos"), ("audio_end", "audio_eos")):
            text = text.replace(f"<|{ours}|>", f"<|{own}|>")
        file.write_text(text.replace("<|audio_pad|>", "<|AUDIO|>"), encoding="utf-8")
    plain, named = load_engine(saved["qwen2.5"], device="cpu"), load_engine(other, device="cpu")
    assert "<|audio_start|>" not in named.checkpoint.tokenizer.get_vocab()
    assert turns(plain, noise(4.0, 3)) == turns(named, noise(4.0, 3))


def test_bfloat16_on_the_cpu(saved: dict[str, Path]) -> None:
    for kind in MAKERS:
        engine = load_engine(saved[kind], device="cpu", dtype="bfloat16")
        assert engine.describe()["dtype"] == "bfloat16"
        turns(engine, noise(4.0, 1), noise(1.0, 2))


def test_released_profile(random_checkpoint: Path, tmp_path: Path) -> None:
    """A checkpoint without a profile, with the prompt file published beside it."""
    folder = tmp_path / "released"
    shutil.copytree(random_checkpoint, folder)
    (folder / PROFILE_FILE).unlink()
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps(PROMPTS), encoding="utf-8")
    engine = load_engine(folder, device="cpu", prompts=prompts)
    assert engine.profile.name == "released"
    assert engine.profile.initial_text == PROMPTS["initial_user_text"]
    assert engine.profile.turn_text == PROMPTS["turn_user_text"]
    engine.profile = engine.checkpoint.profile
    assert len(turns(engine, *(noise(0.5 + 0.7 * i, i) for i in range(10)))) == 10


# Full models


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
def test_full_model_loads_its_thinker_alone(
    thinkers: dict[str, Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: Any,
    capfd: Any,
    kind: str,
    shards: bool,
) -> None:
    import transformers

    full = (full_25 if kind == "qwen2.5" else full_3)(thinkers[kind])
    full.save_pretrained(tmp_path, **({"max_shard_size": "100KB"} if shards else {}))
    tokenizer.save_pretrained(tmp_path)
    make_feature_extractor().save_pretrained(tmp_path)
    PROFILE.save(tmp_path)
    files = list(tmp_path.glob("*.safetensors"))
    assert (len(files) > 1) == shards == (tmp_path / "model.safetensors.index.json").exists()
    parts = set()
    for file in files:
        with safe_open(file, "pt") as weights:
            parts |= {key.split(".")[0] for key in weights.keys()}  # noqa: SIM118
    assert {"thinker", "talker"} < parts and len(parts) == 3

    def refuse(*arguments: Any) -> None:
        raise AssertionError("the talker was made")

    for name in ("Qwen3OmniMoeTalkerForConditionalGeneration", type(full).__name__):
        monkeypatch.setattr(getattr(transformers, name), "__init__", refuse)
    capfd.readouterr()
    engine = load_engine(tmp_path, device="cpu")
    said = capfd.readouterr()
    assert "talker" not in said.out + said.err
    assert type(engine.thinker) is type(thinkers[kind])
    assert not any("talker" in name for name, _ in engine.thinker.named_parameters())
    assert torch.equal(logits(engine.thinker, tokenizer), logits(thinkers[kind], tokenizer))
    turns(engine, noise(3.0, 1))


def test_shards_of_a_thinker(thinkers: dict[str, Any], tokenizer: Any, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    thinkers["dense"].save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    engine = load_engine(folder, device="cpu")
    assert torch.equal(logits(engine.thinker, tokenizer), logits(thinkers["dense"], tokenizer))
    sorted(folder.glob("*.safetensors"))[1].unlink()
    assert str(folder) in complaint(folder)


# Adapters


def train_adapter(base: Path, folder: Path, modules: list[str]) -> Any:
    """A LoRA adapter of rank 8 over the text model, by peft itself, with weights that show.

    Returns:
        The base as peft merges it.
    """
    peft = pytest.importorskip("peft")
    thinker = load_engine(base, device="cpu").thinker
    text = next(name for name, part in thinker.named_modules() if hasattr(part, "embed_tokens"))
    names = [
        name
        for name, part in thinker.named_modules()
        if name.startswith(f"{text}.layers.")
        and name.split(".")[-1] in modules
        and isinstance(part, torch.nn.Linear)
    ]
    torch.manual_seed(2)
    # peft takes every thinker of this type for one with experts, and its plain layers for theirs.
    kind, thinker.config.model_type = thinker.config.model_type, "qwen2"
    thinker.name_or_path = str(base)
    config = peft.LoraConfig(
        r=8,
        lora_alpha=12,
        target_modules=names,
        rank_pattern={"v_proj": 4},
        init_lora_weights=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = peft.get_peft_model(thinker, config)
        adapted.save_pretrained(folder)
        merged = adapted.merge_and_unload()
    merged.config.model_type = kind
    return merged.eval()


@pytest.fixture(scope="module")
def adapter(saved: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter of the dense thinker, and the merged model."""
    folder = tmp_path_factory.mktemp("adapter")
    return folder, train_adapter(saved["dense"], folder, LORA)


@pytest.fixture
def own_adapter(adapter: tuple[Path, Any], tmp_path: Path) -> Path:
    copy = tmp_path / "adapter"
    shutil.copytree(adapter[0], copy)
    return copy


def change_adapter(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_adapter_keys(folder: Path, change: Callable[[str], str]) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({change(key): value for key, value in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("kind", "modules"), [("dense", LORA), ("qwen2.5", LORA), ("experts", LORA[:4])]
)
def test_adapter_equals_its_merged_model(
    saved: dict[str, Path], tokenizer: Any, tmp_path: Path, kind: str, modules: list[str]
) -> None:
    merged = train_adapter(saved[kind], tmp_path, modules)
    assert not (tmp_path / "tokenizer_config.json").exists()
    base, engine = load_engine(saved[kind], device="cpu"), load_engine(tmp_path, device="cpu")
    assert type(engine.thinker) is type(base.thinker)
    assert engine.profile == PROFILE
    got = logits(engine.thinker, tokenizer)
    assert not torch.allclose(got, logits(base.thinker, tokenizer), atol=0.1)
    assert torch.allclose(got, logits(merged, tokenizer), atol=1e-4)
    turns(engine, noise(3.0, 1))


def test_adapter_of_experts(
    adapter: tuple[Path, Any], saved: dict[str, Path], tokenizer: Any, tmp_path: Path
) -> None:
    """Experts are adapted one by one in the file, and are one weight together in the model."""
    folder, rank = tmp_path / "adapter", 3
    shutil.copytree(adapter[0], folder)
    change_adapter(folder, base_model_name_or_path=str(saved["experts"]), lora_alpha=6)
    full = tmp_path / "merged"
    shutil.copytree(saved["experts"], full)
    weights = load_file(full / "model.safetensors")
    torch.manual_seed(3)
    pairs = {}
    for key in [key for key in weights if "experts.2." in key and "layers.1." in key]:
        down, up = torch.randn(rank, weights[key].shape[1]), torch.randn(len(weights[key]), rank)
        weights[key] += 2.0 * up @ down
        module = f"base_model.model.{key.removesuffix('.weight')}"
        pairs |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    assert len(pairs) == 6
    save_file(pairs, folder / "adapter_model.safetensors")
    save_file(weights, full / "model.safetensors", {"format": "pt"})
    got = logits(load_engine(folder, device="cpu").thinker, tokenizer)
    expected = logits(load_engine(full, device="cpu").thinker, tokenizer)
    assert torch.allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("path", ["model.", "model.language_model.", "thinker.model."])
def test_adapter_of_another_version(
    adapter: tuple[Path, Any], own_adapter: Path, tokenizer: Any, path: str
) -> None:
    """Paths of modules differ between versions of transformers, and in the full model."""
    change_adapter_keys(
        own_adapter, lambda key: f"base_model.model.{path}" + key[key.index("layers.") :]
    )
    got = logits(load_engine(own_adapter, device="cpu").thinker, tokenizer)
    assert torch.allclose(got, logits(adapter[1], tokenizer), atol=1e-4)


def test_adapter_scaled_by_the_root_of_its_rank(
    adapter: tuple[Path, Any], own_adapter: Path, tokenizer: Any
) -> None:
    """rsLoRA: alpha / sqrt(rank) in place of alpha / rank."""
    keep = ("q_proj", "o_proj")
    file = own_adapter / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if any(n in k for n in keep)}, file)
    plain = logits(load_engine(own_adapter, device="cpu").thinker, tokenizer)
    change_adapter(own_adapter, use_rslora=True, lora_alpha=12 / 8**0.5)
    assert torch.allclose(
        logits(load_engine(own_adapter, device="cpu").thinker, tokenizer), plain, atol=1e-4
    )


def test_adapter_files_come_before_the_bases(own_adapter: Path, tokenizer: Any) -> None:
    """Its own profile, tokenizer and feature extractor, each if it has one."""
    replace(PROFILE, domain="meetings").save(own_adapter)
    assert load_engine(own_adapter, device="cpu").profile.domain == "meetings"
    tokenizer.save_pretrained(own_adapter)
    settings = json.loads((own_adapter / "tokenizer_config.json").read_text())
    settings["model_max_length"] = 77
    (own_adapter / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_engine(own_adapter, device="cpu").checkpoint.tokenizer.model_max_length == 77


def test_adapter_without_its_base(own_adapter: Path) -> None:
    file = own_adapter / "adapter_config.json"
    settings = json.loads(file.read_text())
    for base in (None, ""):
        file.write_text(json.dumps(settings | {"base_model_name_or_path": base}))
        text = complaint(own_adapter)
        assert str(file) in text and "base_model_name_or_path" in text
    file.write_text(json.dumps(settings | {"base_model_name_or_path": "/gone/model"}))
    text = complaint(own_adapter)
    assert str(file) in text and "/gone/model" in text and "base_model_name_or_path" in text


def test_adapter_that_does_not_fit(own_adapter: Path) -> None:
    file = own_adapter / "adapter_model.safetensors"
    weights = load_file(file)
    key = next(key for key in weights if "layers.1.mlp.up_proj.lora_A" in key)
    save_file(weights | {key: weights[key][:, :3].contiguous()}, file)
    text = complaint(own_adapter)
    assert (
        text.startswith(f"{own_adapter}: adapts ")
        and "by 64 x 3, which is of shape (64, 64)" in text
    )
    save_file({k.replace("layers.1.", "layers.7."): v for k, v in weights.items()}, file)
    text = complaint(own_adapter)
    assert text.startswith(f"{own_adapter}: adapts ") and "no such module" in text


def test_incomplete_adapter(own_adapter: Path) -> None:
    file = own_adapter / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(dict(list(weights.items())[1:]), file)
    assert f"{file}: " in complaint(own_adapter) and "a pair" in complaint(own_adapter)
    file.write_bytes(file.read_bytes()[:-100])
    assert complaint(own_adapter).startswith(f"{file}: cannot be read: ")
    file.unlink()
    assert complaint(own_adapter).startswith(f"{file}: cannot be read: ")


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"bias": "all"}, {"peft_type": "LOHA"}, {"init_lora_weights": "pissa"}],
)
def test_adapter_of_another_kind(own_adapter: Path, settings: dict[str, Any]) -> None:
    """Refused, not half applied."""
    change_adapter(own_adapter, **settings)
    text = complaint(own_adapter)
    [(name, value)] = settings.items()
    assert text.startswith(
        f"{own_adapter / 'adapter_config.json'}: {name} is {value!r}, which is not"
    )


# Errors


def test_no_such_folder(tmp_path: Path, monkeypatch: Any) -> None:
    gone = tmp_path / "gone"
    assert f"{gone}: expected a model folder or a hub id OWNER/NAME, got nothing" in complaint(gone)
    monkeypatch.chdir(tmp_path)
    for name in ("gone", "./gone/model", "~/gone/model", "a/b/c"):
        assert complaint(name).startswith(f"{name}: expected a model folder or a hub id")


def test_a_file_is_not_a_folder(folder: Path) -> None:
    file = folder / "model.safetensors"
    assert f"{file}: expected a model folder or a hub id OWNER/NAME, got a file" in complaint(file)


@pytest.mark.parametrize("kind", ["LocalEntryNotFoundError", "OSError", "HFValidationError"])
def test_hub_out_of_reach(monkeypatch: Any, kind: str) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    failure = getattr(errors, kind, OSError)

    def unreachable(*arguments: Any, **options: Any) -> str:
        raise failure("no route to host\nmore about it")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    text = complaint("nobody/nothing")
    assert text.startswith("nobody/nothing: ") and "no route to host" in text and "network" in text


def test_hub_id(saved: dict[str, Path], monkeypatch: Any) -> None:
    import huggingface_hub

    asked = []

    def snapshot(name: str, *, revision: str | None) -> str:
        asked.append((name, revision))
        return str(saved["dense"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_engine("some/model", device="cpu").describe()["model"] == "some/model"
    assert asked == [("some/model", None)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("config.json", "config.json is missing; is it a model folder?"),
        ("model.safetensors", "no weights (*.safetensors) beside config.json"),
        (
            "tokenizer_config.json",
            "tokenizer_config.json is missing, so there is no tokenizer; copy",
        ),
        ("tokenizer.json", "copy"),
        ("preprocessor_config.json", "preprocessor_config.json is missing, so there is no feature"),
        (PROFILE_FILE, f"no {PROFILE_FILE} beside the weights: for a released checkpoint give"),
    ],
)
def test_missing_file(folder: Path, name: str, expected: str) -> None:
    (folder / name).unlink()
    text = complaint(folder)
    assert text.startswith(f"{folder}: ") and expected in text


def test_feature_extractor_inside_the_processor(folder: Path) -> None:
    """Recent processors save one file for all their parts."""
    old = folder / "preprocessor_config.json"
    new = {"processor_class": "P", "feature_extractor": json.loads(old.read_text())}
    (folder / "processor_config.json").write_text(json.dumps(new))
    old.unlink()
    assert load_engine(folder, device="cpu").checkpoint.extractor.feature_size == 128


@pytest.mark.parametrize("text", ["{", "[]", "\x00", ""])
def test_config_is_not_json(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert complaint(folder).startswith(f"{folder / 'config.json'}: ")


@pytest.mark.parametrize("kind", ["whisper", None])
def test_another_model_type(folder: Path, kind: str | None) -> None:
    change_config(folder, model_type=kind)
    text = complaint(folder)
    assert text.startswith(f"{folder}: model_type {kind!r} is not supported; expected one of")


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"] | changes.pop("text_config", {})
    (folder / "config.json").write_text(json.dumps(config | {"text_config": text} | changes))


def test_impossible_config(folder: Path) -> None:
    change_config(folder, text_config={"hidden_size": "wide"})
    assert complaint(folder).startswith(f"{folder / 'config.json'}: not a valid configuration: ")
    assert "hidden_size" in complaint(folder) and "int" in complaint(folder)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def test_one_weight_missing(folder: Path) -> None:
    change_weights(folder, lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))
    text = complaint(folder)
    assert text.startswith(f"{folder}: 1 of its weights missing, the first ")
    assert "layers.1.mlp.up_proj.weight" in text and "config.json" in text


def test_one_expert_missing(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved["experts"], folder)
    change_weights(folder, lambda w: w.pop("model.layers.1.mlp.experts.2.up_proj.weight"))
    assert complaint(folder).startswith(f"{folder}: ")


def test_weight_of_another_shape(folder: Path) -> None:
    key = "model.layers.0.mlp.up_proj.weight"
    change_weights(folder, lambda w: w.update({key: w[key][:7].contiguous()}))
    text = complaint(folder)
    assert text.startswith(f"{folder}: 1 of its weights of another shape, the first ")
    assert "layers.0.mlp.up_proj.weight (7, 64), not (64, 64)" in text


def test_config_of_a_shallower_model(folder: Path) -> None:
    """Half a model would load without a word otherwise."""
    change_config(folder, text_config={"num_hidden_layers": 1})
    text = complaint(folder)
    assert text.startswith(f"{folder}: ") and "of its weights left over, the first " in text


@pytest.mark.parametrize("left", [0.9, 0.001, 0.0])
def test_truncated_weights(folder: Path, left: float) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * left)])
    text = complaint(folder)
    assert text.startswith(f"{folder}: the weights cannot be loaded") and "complete?" in text


def test_tokenizer_larger_than_the_embedding(folder: Path, tokenizer: Any) -> None:
    rows = len(tokenizer) - 3
    change_config(folder, text_config={"vocab_size": rows})
    text = complaint(folder)
    assert text.startswith(
        f"{folder}: the tokenizer has {rows + 3} tokens, the model embeds {rows}"
    )


def test_tokenizer_without_markup(folder: Path) -> None:
    for file in folder.glob("tokenizer*.json"):
        file.write_text(file.read_text(encoding="utf-8").replace("<|im_end|>", "<|stop|>"))
    assert complaint(folder).startswith(f"{folder}: the tokenizer has no token '<|im_end|>'; copy")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_such_accelerator(folder: Path) -> None:
    text = complaint(folder, device="cuda")
    assert text.startswith("device 'cuda' cannot be used: ") and text.endswith(
        "use cpu, cuda or mps"
    )


@pytest.mark.parametrize("device", ["tpu9", "", "cpu:x", "meta"])
def test_unknown_device(folder: Path, device: str) -> None:
    assert complaint(folder, device=device).startswith(f"device {device!r} cannot be used: ")


def test_unknown_dtype(folder: Path) -> None:
    text = complaint(folder, dtype="int3")
    assert text == "dtype 'int3' is not one of float32, bfloat16, float16"
