"""A tiny Qwen3-Omni thinker from scratch: tokenizer, configuration, feature extractor.

The same classes as the 30B model, dense, with 8 million parameters. Its tokenizer splits digits one
by one as Qwen's does, and knows the words of the sentences it is given.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..protocol.markup import ANSWER, ANSWER_END, BOX, BOX_END, THINK, THINK_END

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|audio_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_TAGS = (THINK, THINK_END, BOX, BOX_END, ANSWER, ANSWER_END)
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'audio' %}"
    "<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ item['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TinyConfig:
    """Sizes of the tiny thinker. `audio_*` is the tower, `text_*` the decoder."""

    audio_width: int = 256
    audio_layers: int = 4
    audio_heads: int = 4
    audio_channels: int = 32
    audio_block_frames: int = 200
    text_width: int = 256
    text_layers: int = 5
    text_heads: int = 4
    text_kv_heads: int = 2
    text_ffn: int = 768
    experts: int = 0
    experts_per_token: int = 2
    vocabulary: int = 1400


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer with Qwen's markup and our tags as single tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    tokenizer.add_tokens([AddedToken(s, special=False, normalized=False) for s in _TAGS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def make_feature_extractor() -> Any:
    """Whisper's log-mel, 128 bins, 10 ms hop, as Qwen3-Omni's processor has it."""
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(
        feature_size=128,
        sampling_rate=16_000,
        hop_length=160,
        n_fft=400,
        chunk_length=300,
        return_attention_mask=True,
    )


def make_thinker(tokenizer: Any, config: TinyConfig) -> Any:
    """A thinker with random weights, float32, embeddings tied.

    The vision tower cannot be left out of the class; it is made as small as it can be.
    """
    from transformers import Qwen3OmniMoeThinkerForConditionalGeneration
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
        Qwen3OmniMoeThinkerConfig,
    )

    ids = {s: tokenizer.convert_tokens_to_ids(s) for s in SPECIAL}
    c = config
    head = c.text_width // c.text_heads
    side = head // 2 * 3 // 8
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": c.text_width,
        "intermediate_size": c.text_ffn,
        "num_hidden_layers": c.text_layers,
        "num_attention_heads": c.text_heads,
        "num_key_value_heads": c.text_kv_heads,
        "head_dim": head,
        "max_position_embeddings": 32768,
        "num_experts": c.experts,
        "num_experts_per_tok": c.experts_per_token,
        "moe_intermediate_size": c.text_ffn // 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [head // 2 - 2 * side, side, side],
            "mrope_interleaved": True,
            "interleaved": True,
        },
        "pad_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "tie_word_embeddings": True,
    }
    audio = {
        "d_model": c.audio_width,
        "encoder_layers": c.audio_layers,
        "encoder_attention_heads": c.audio_heads,
        "encoder_ffn_dim": 4 * c.audio_width,
        "output_dim": c.text_width,
        "downsample_hidden_size": c.audio_channels,
        "n_window": 50,
        "n_window_infer": c.audio_block_frames,
        "num_mel_bins": 128,
    }
    vision = {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 1,
        "out_hidden_size": c.text_width,
        "num_position_embeddings": 1,
        "patch_size": 2,
        "temporal_patch_size": 1,
        "spatial_merge_size": 1,
        "deepstack_visual_indexes": [],
        "in_channels": 1,
    }
    thinker_config = Qwen3OmniMoeThinkerConfig(
        text_config=text,
        audio_config=audio,
        vision_config=vision,
        audio_token_id=ids["<|audio_pad|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        audio_start_token_id=ids["<|audio_start|>"],
        audio_end_token_id=ids["<|audio_end|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        user_token_id=tokenizer.convert_tokens_to_ids("user"),
        position_id_per_seconds=13,
        tie_word_embeddings=True,
    )
    return Qwen3OmniMoeThinkerForConditionalGeneration(thinker_config)


def save_checkpoint(folder: Path, thinker: Any, tokenizer: Any, extractor: Any) -> None:
    """Write weights, configuration, tokenizer and feature extractor as a Hugging Face folder."""
    thinker.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    extractor.save_pretrained(folder)
