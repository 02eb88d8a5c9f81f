"""A thinker's shapes, and the dialogue it is trained on, from its config: parameters by part, tokens.

The class itself is built on the `meta` device, where tensors hold no numbers: counts are exact and
nothing is allocated.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..audio import SAMPLE_RATE_HZ
from ..data import sentences
from ..data.dialogues import dialogue
from ..engines.thinker import MarkedTokenizer, slice_tokens, text_model
from ..errors import CheckpointError
from ..protocol import Profile, Trace, pieces
from ..protocol.observations import Reference

_CLASSES = {
    "qwen3_omni_moe": "Qwen3OmniMoeThinker",
    "qwen2_5_omni": "Qwen2_5OmniThinker",
}
_VISION_START = 151652  # of all tokenizers of the family; transformers' `generate` asks for it
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen3-omni-30b-a3b": {
        "model_type": "qwen3_omni_moe_thinker",
        "vision_start_token_id": _VISION_START,
        "text_config": {
            "vocab_size": 152064,
            "hidden_size": 2048,
            "intermediate_size": 768,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
        },
        "audio_config": {"output_dim": 2048},
        "vision_config": {"out_hidden_size": 2048},
    },
    "qwen2.5-omni-7b": {
        "model_type": "qwen2_5_omni_thinker",
        "vision_start_token_id": _VISION_START,
        "vision_config": {"hidden_size": 1280},
    },
}
"""Sizes in the `thinker_config` of Qwen/Qwen3-Omni-30B-A3B-Instruct and Qwen/Qwen2.5-Omni-7B, where the
defaults of transformers' config classes differ from them. The defaults of Qwen3OmniMoeThinkerConfig
are another model's (28 layers, a vocabulary of 3584). The 30B's sizes are those of its config as public
repositories quote it; the 7B's text and audio sizes are the class's defaults. The width of the 7B's
vision tower is taken over from Qwen2.5-VL and was not seen in an Omni config: it changes frozen weights
only. Give the model's own config.json to be sure."""

TURNS_PER_S = 0.2
HEARD = 0.92
"""Observations a second, and the share of a chunk that they cover: AISHELL-4's evaluation references
cut to 40-50 s by `formats.pieces.cut` (1,018 pieces: 8.8 observations in 44.4 s, 91.8 % covered)."""
WORDS_PER_S = 2.5
"""Assumed: 150 words a minute, English in conversation, while somebody speaks."""
CHARACTERS_PER_TOKEN = 3.5
"""Assumed where no tokenizer is at hand, for text without digits and markup (one token each)."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers of parameters by part. `experts` are the routed ones of a mixture, all of them."""

    audio: int
    attention: int
    mlp: int
    experts: int
    router: int
    norms: int
    embeddings: int
    head: int
    vision: int
    experts_active: int

    @property
    def total(self) -> int:
        return int(sum(asdict(self).values())) - self.experts_active

    @property
    def text(self) -> int:
        """The text model and its head. Where embeddings are tied, the head is counted as 0."""
        return self.total - self.audio - self.vision

    @property
    def text_active(self) -> int:
        """The parameters of the text model that a token passes through."""
        return self.text - self.experts + self.experts_active


@dataclass(frozen=True, slots=True)
class DialogueShape:
    """Tokens of one multi-turn dialogue over an average chunk.

    Attributes:
        audio_s: seconds of audio: the chunk and the slices.
        counted: with the model's tokenizer; otherwise estimated by `CHARACTERS_PER_TOKEN`.
    """

    turns: int
    audio_s: float
    audio_tokens: int
    text_tokens: int
    taught_tokens: int
    counted: bool

    @property
    def tokens(self) -> int:
        return self.audio_tokens + self.text_tokens


class ModelShape:
    """A thinker's shapes: its class on the `meta` device, where tensors hold no numbers.

    Attributes:
        name: as the user gave it.
        tokenizer: the folder's, or `None` where only a config is at hand.
    """

    def __init__(self, name: str, thinker: Any, tokenizer: Any | None = None) -> None:
        self.name = name
        self.thinker = thinker
        self.tokenizer = tokenizer
        self.text: Any = thinker.config.text_config

    @property
    def layers(self) -> list[Any]:
        return list(text_model(self.thinker).layers)

    @cached_property
    def parameters(self) -> Parameters:
        """Exactly `sum(p.numel() for p in thinker.parameters())`, split."""
        counts = dict.fromkeys((f for f in Parameters.__slots__ if f != "experts_active"), 0)
        for name, parameter in self.thinker.named_parameters():
            counts[_part(name)] += parameter.numel()
        active = 0
        if counts["experts"]:
            active = counts["experts"] * self.text.num_experts_per_tok // self.text.num_experts
        return Parameters(**counts, experts_active=active)

    def lora(self, rank: int, *, experts: bool) -> int:
        """Parameters of adapters on the text model's attention and MLP projections.

        Args:
            experts: on the routed experts as well, whose gate and up projections are one weight in
                the class and share a factor (`adapters`).
        """
        return sum(
            rank * copies * (first + second)
            for layer in self.layers
            for first, second, copies in _projections(layer, experts)
        )


def load_model(source: str | Path) -> ModelShape:
    """The shapes of a model.

    Args:
        source: folder with a config.json, such a file, or a name of `PUBLISHED`; the thinker alone
            or the full model with its talker, which is not trained.

    Raises:
        CheckpointError: nothing there, or not the config of a thinker.
    """
    if str(source).lower() in PUBLISHED:
        name = str(source).lower()
        return ModelShape(name, _on_meta(dict(PUBLISHED[name]), name))
    path = Path(source).expanduser()
    file = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(PUBLISHED)
        raise CheckpointError(
            f"{file}: no such file; expected a model folder, a config.json, or one of {known}"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: expected a JSON object, got {type(values).__name__}")
    inner = values.get("thinker_config")
    if isinstance(inner, dict):
        values = {"model_type": values.get("model_type"), **inner}
    thinker = _on_meta(values, str(file))
    return ModelShape(str(source), thinker, _tokenizer(file.parent))


def _on_meta(values: dict[str, Any], where: str) -> Any:
    import transformers

    kind = str(values.get("model_type", "")).removesuffix("_thinker")
    if kind not in _CLASSES:
        raise CheckpointError(
            f"{where}: model_type {values.get('model_type')!r} is not a thinker's; expected "
            f"{' or '.join(f'{name} or {name}_thinker' for name in _CLASSES)}"
        )
    values["model_type"] = f"{kind}_thinker"
    try:
        config = transformers.AutoConfig.for_model(**values)
        config.text_config._attn_implementation = "sdpa"
        with torch.device("meta"):
            return getattr(transformers, _CLASSES[kind] + "ForConditionalGeneration")(config)
    except Exception as error:  # settings are validated by whatever class they belong to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{where}: not a thinker's configuration: {reason}; copy it from the model"
        ) from error


def _tokenizer(folder: Path) -> Any | None:
    if not (folder / "tokenizer_config.json").exists():
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be loaded: {reason}; copy it from the base model, or "
            "give config.json alone"
        ) from error


def _part(name: str) -> str:
    """The part of `Parameters` that a weight belongs to, by its name in any transformers 5."""
    for mark, part in (
        ("audio_tower.", "audio"),
        ("visual.", "vision"),
        ("lm_head.", "head"),
        ("embed_tokens.", "embeddings"),
        (".self_attn.", "attention"),
        (".mlp.experts.", "experts"),
        (".mlp.gate.", "router"),
        (".mlp.", "mlp"),
    ):
        if mark in name:
            return part
    return "norms"


def _projections(layer: Any, experts: bool) -> Iterator[tuple[int, int, int]]:
    """Inputs, outputs and copies of the projections that LoRA adapts in a layer."""
    for name, module in layer.named_modules():
        if isinstance(module, nn.Linear) and name.endswith("_proj"):
            yield module.in_features, module.out_features, 1
    if experts and hasattr(layer.mlp, "experts"):
        count, both, stream = layer.mlp.experts.gate_up_proj.shape
        yield both, stream, count
        yield stream, both // 2, count


def average_dialogue(model: ModelShape, chunk_s: float, turns: int | None = None) -> DialogueShape:
    """Count the tokens of the dialogue over an average chunk, built by the protocol itself.

    Args:
        chunk_s: seconds of the chunk.
        turns: observations; `None` for `TURNS_PER_S`.
    """
    trace = average_trace(chunk_s, turns)
    return _count(trace, model, _turns(chunk_s, turns))


def average_trace(chunk_s: float, turns: int | None = None) -> Trace:
    """The dialogue over an average chunk, with words of the grammar and without audio."""
    count = _turns(chunk_s, turns)
    step = chunk_s / count
    words_per_turn = WORDS_PER_S * step * HEARD
    words = sentences.vocabulary()
    segments = [
        Reference(
            speaker=1 + turn % 2,
            gender=("female", "male")[turn % 2],
            start_samples=round(turn * step * SAMPLE_RATE_HZ),
            end_samples=round((turn + HEARD) * step * SAMPLE_RATE_HZ),
            text=" ".join(
                words[n % len(words)]
                for n in range(round(turn * words_per_turn), round((turn + 1) * words_per_turn))
            ),
        )
        for turn in range(count)
    ]
    return dialogue(segments, round(chunk_s * SAMPLE_RATE_HZ), Profile(chunk_s=chunk_s))


def _turns(chunk_s: float, turns: int | None) -> int:
    return turns or max(1, round(chunk_s * TURNS_PER_S))


def _count(trace: Trace, model: ModelShape, turns: int) -> DialogueShape:
    samples = [part.end_samples - part.start_samples for part in trace.audio]
    tokenizer: Any = MarkedTokenizer(model.tokenizer) if model.tokenizer else _Estimate()
    text = [piece for piece in pieces(trace.parts, tokenizer, 0) if piece.audio is None]
    return DialogueShape(
        turns=turns,
        audio_s=sum(samples) / SAMPLE_RATE_HZ,
        audio_tokens=sum(slice_tokens(model.thinker, samples)),
        text_tokens=sum(len(piece.ids) for piece in text),
        taught_tokens=sum(len(piece.ids) for piece in text if piece.learned),
        counted=model.tokenizer is not None,
    )


class _Estimate:
    """Replaces a missing tokenizer: gives an estimated number of ids."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        rest, single = re.subn(r"<\|\w+\|>|\d", "", text)
        return [0] * (single + math.ceil(len(rest) / CHARACTERS_PER_TOKEN))
