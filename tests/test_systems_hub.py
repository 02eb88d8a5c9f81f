"""Speech models in this process: the request and the generation, by transformers' real classes with random weights."""

from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.errors import AnswerError, CheckpointError, SettingsError
from speaker_reasoner.systems import hub
from speaker_reasoner.systems.base import Answer, SystemOptions
from speaker_reasoner.systems.table import load

from .test_systems_speech import SOUND, VIBE, said

transformers = pytest.importorskip("transformers")
needs_moss = pytest.mark.skipif(
    not hasattr(transformers, "MossTranscribeDiarizeForConditionalGeneration"),
    reason="this transformers has no MOSS-Transcribe-Diarize",
)

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>"
    "{% elif part['type'] == 'keywords' %}{{ part['keywords'] | join(', ') }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def _letters(*special: str) -> Any:
    """A tokenizer of bytes, with special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = pre_tokenizers.ByteLevel.alphabet()
    plain = Tokenizer(models.BPE({one: i for i, one in enumerate(sorted(letters))}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *special]}
    )
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of MOSS-Transcribe-Diarize, tiny and untrained."""
    import torch

    path = tmp_path_factory.mktemp("moss")
    tokenizer = _letters("<|audio_start|>", "<|audio_pad|>", "<|audio_end|>")
    processor = transformers.MossTranscribeDiarizeProcessor(
        transformers.MossTranscribeDiarizeFeatureExtractor(), tokenizer, chat_template=TEMPLATE
    )
    small = {"num_hidden_layers": 1, "vocab_size": len(tokenizer)}
    config = transformers.MossTranscribeDiarizeConfig(
        text_config={
            **small,
            "model_type": "qwen3",
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
        },
        audio_config={
            "model_type": "whisper",
            "d_model": 32,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_layers": 1,
            "decoder_attention_heads": 2,
            "decoder_ffn_dim": 32,
        },
        audio_token_id=tokenizer.convert_tokens_to_ids("<|audio_pad|>"),
    )
    torch.manual_seed(0)
    model = transformers.MossTranscribeDiarizeForConditionalGeneration(config)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@needs_moss
def test_moss_is_asked_in_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_TOKENS", 5)
    system: Any = load("moss", SystemOptions(model=str(folder), device="cpu", hotwords="Ann, Bob"))
    answer = system.ask(SOUND)
    assert answer.raw["finish_reason"] == "length" and isinstance(answer.raw["text"], str)
    assert (
        answer.usage.output_tokens == 5 and (answer.usage.input_tokens or 0) > 125
    )  # 12.5 a second
    with pytest.raises(AnswerError, match="limit of tokens") as caught:
        system.read(answer, SOUND)
    assert caught.value.reason == "truncated"
    assert system.ask(SOUND).raw == answer.raw  # nothing is drawn by chance
    other = Answer({"text": "[0][S01]year [2024] ends[4.0]", "finish_reason": "stop"})
    assert said(system.read(other, SOUND)) == [("S01", 0.0, 4.0, "year [2024] ends")]
    assert system.describe()["hotwords"] == "Ann, Bob"
    system.close()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("moss", "vibevoice"):
        with pytest.raises(CheckpointError, match="cannot be loaded as"):
            load(name, SystemOptions(model=str(tmp_path)))
        with pytest.raises(SettingsError, match="--language"):
            load(name, SystemOptions(language="en"))


def test_vibevoice_reads_what_its_model_wrote() -> None:
    from speaker_reasoner.systems.vibevoice import VibeVoice

    one: Any = VibeVoice.__new__(VibeVoice)
    whole = Answer({"text": f"assistant\n{VIBE}\n", "finish_reason": "stop"})
    assert [row[3] for row in said(one.read(whole, SOUND))] == ["hello", "good day"]
    with pytest.raises(AnswerError):
        one.read(Answer({"text": VIBE, "finish_reason": "length"}), SOUND)


@pytest.mark.skipif(
    not hasattr(transformers, "VibeVoiceAsrProcessor"), reason="this transformers has no VibeVoice"
)
def test_vibevoice_is_asked_through_its_real_processor(tmp_path: Path) -> None:
    """The model is played: it repeats the request, and writes JSON."""
    import torch

    tokenizer = _letters("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    extractor = transformers.VibeVoiceAcousticTokenizerFeatureExtractor()
    processor = transformers.VibeVoiceAsrProcessor(
        extractor,
        tokenizer,
        chat_template=TEMPLATE.replace("<|audio_pad|>", "<|AUDIO|>")
        .replace("<|audio_start|>", "<|audio_bos|>")
        .replace("<|audio_end|>", "<|audio_eos|>"),
        audio_token="<|AUDIO|>",
        audio_bos_token="<|audio_bos|>",
        audio_eos_token="<|audio_eos|>",
    )
    given: dict[str, Any] = {}

    class Played:
        dtype = torch.float32

        def generate(self, **inputs: Any) -> Any:
            given.update(inputs)
            made = torch.tensor([tokenizer(VIBE)["input_ids"]])
            return torch.cat([inputs["input_ids"], made], dim=1)

    from speaker_reasoner.systems.vibevoice import VibeVoice

    one: Any = VibeVoice.__new__(VibeVoice)
    one.name, one.model, one.options = "vibevoice", "made", SystemOptions(hotwords="Ann")
    one._hints, one._device, one._processor, one._model = "prompt", "cpu", processor, Played()
    answer = one.ask(SOUND)
    sound = next(value for name, value in given.items() if name.startswith("input_values"))
    assert abs(sound.shape[-1] - 240_000) < 3200  # ten seconds at 24 kHz, padded
    assert "Ann" in tokenizer.decode(given["input_ids"][0]) and not given["do_sample"]
    assert answer.raw["finish_reason"] == "stop"
    assert [row[3] for row in said(one.read(answer, SOUND))] == ["hello", "good day"]
