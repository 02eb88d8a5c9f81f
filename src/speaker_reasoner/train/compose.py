"""Compose a Qwen2.5-Omni thinker of a Whisper's encoder and a language model.

The tower is Whisper's encoder: its window of 30 s stays whole (`n_window`), its positions restart with every
window. The text model is the language model: attention biases are zero where it has none, rotary embedding and
tied embeddings are as they were. New are the projector between them (seeded), rows of the embeddings for markup
that its tokenizer lacks (the mean of all rows), and a vision tower as small as the class allows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..engines.thinker import HOP_SAMPLES, audio_tower, text_model
from ..errors import CheckpointError
from ..protocol import Profile
from ..protocol.markup import MARKUP
from ..version import __version__
from .parts import SPELLED, Parts, head_width, read_encoder, read_llm
from .saves import replace_folder
from .scratch import CHAT_TEMPLATE, SPECIAL
from .shapes import ModelShape

_VISION = {
    "depth": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 1,
    "patch_size": 2,
    "temporal_patch_size": 1,
    "spatial_merge_size": 1,
    "in_channels": 1,
    "window_size": 4,
    "fullatt_block_indexes": [0],
}
_SMALL = 0.02
"""Standard deviation of weights that nothing reads before they are trained."""


@dataclass(frozen=True, slots=True)
class Design:
    """A thinker to be composed, without weights.

    Attributes:
        parts: its two models.
        shell: the thinker on the `meta` device.
        tokenizer: the language model's, with all markup.
        added: tokens without embeddings in the language model, mostly markup, and their ids.
    """

    parts: Parts
    shell: Any
    tokenizer: Any
    added: dict[str, int]

    @property
    def shape(self) -> ModelShape:
        return ModelShape("composed", self.shell, self.tokenizer)

    @property
    def window_s(self) -> float:
        """Seconds of a window of Whisper's encoder."""
        return float(2 * self.parts.whisper.max_source_positions * HOP_SAMPLES / 16_000)


def design(parts: Parts) -> Design:
    """Lay out the thinker of two parts; nothing is allocated.

    Raises:
        CheckpointError: the class does not take their sizes.
    """
    tokenizer = parts.tokenizer
    known = set(tokenizer.get_vocab())
    _add_markup(tokenizer)
    added = {
        token: int(number)
        for token, number in tokenizer.get_vocab().items()
        if token not in known or number >= parts.llm.vocab_size
    }
    added = dict(sorted(added.items(), key=lambda item: item[1]))
    try:
        shell = _shell(parts, tokenizer)
    except Exception as error:  # settings are validated by whatever class they belong to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"--audio {parts.audio.given} and --text {parts.text.given}: Qwen2.5-Omni's thinker does not take "
            f"their sizes: {reason}"
        ) from error
    return Design(parts, shell, tokenizer, added)


def compose(
    plan: Design,
    folder: Path,
    *,
    seed: int = 1,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[str], None] = lambda text: None,
) -> None:
    """Read the weights of both parts and write the checkpoint.

    Args:
        folder: to be written; an existing one is replaced.
        seed: of the projector.
        dtype: of the written weights.
        progress: called with each step.

    Raises:
        CheckpointError: weights are damaged, or do not fit their configuration.
        OutputError: the folder cannot be written.
    """
    progress(f"reading the encoder of {plan.parts.audio.given}")
    encoder = read_encoder(plan.parts)
    progress(f"reading {plan.parts.text.given}")
    llm = read_llm(plan.parts)
    state = _state(plan, encoder, llm, torch.Generator().manual_seed(seed))
    progress(f"writing {folder}")
    replace_folder(folder, lambda path: _write(path, plan, state, seed, dtype))


def _add_markup(tokenizer: Any) -> None:
    """Make every mark one special token of its own, in place."""
    from tokenizers import AddedToken

    marks = [AddedToken(mark, special=True, normalized=False) for mark in SPECIAL]
    tokenizer.add_tokens(marks, special_tokens=True)
    tokenizer.eos_token, tokenizer.pad_token = MARKUP.end, SPECIAL[0]
    tokenizer.chat_template = CHAT_TEMPLATE


def _shell(parts: Parts, tokenizer: Any) -> Any:
    from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

    llm, whisper = parts.llm, parts.whisper
    ids = {mark: int(tokenizer.convert_tokens_to_ids(mark)) for mark in SPECIAL}
    rows = max(llm.vocab_size, max(tokenizer.get_vocab().values()) + 1)
    head = head_width(llm)
    side = head // 2 * 3 // 8  # Qwen's split; with audio and text alone, all axes count the same
    config = Qwen2_5OmniThinkerConfig(
        text_config={
            **{name: getattr(llm, name) for name in _SAME},
            "vocab_size": rows,
            "head_dim": head,
            "use_sliding_window": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": llm.rope_parameters["rope_theta"],
                "mrope_section": [head // 2 - 2 * side, side, side],
            },
            "bos_token_id": None,
            "eos_token_id": ids[MARKUP.end],
            "pad_token_id": ids[SPECIAL[0]],
        },
        audio_config={
            "num_mel_bins": whisper.num_mel_bins,
            "d_model": whisper.d_model,
            "encoder_layers": whisper.encoder_layers,
            "encoder_attention_heads": whisper.encoder_attention_heads,
            "encoder_ffn_dim": whisper.encoder_ffn_dim,
            "activation_function": whisper.activation_function,
            "max_source_positions": whisper.max_source_positions,
            "n_window": whisper.max_source_positions,  # half a window, in frames of 10 ms
            "output_dim": llm.hidden_size,
        },
        vision_config={**_VISION, "out_hidden_size": llm.hidden_size},
        audio_token_index=ids[MARKUP.audio],
        image_token_index=ids["<|image_pad|>"],
        video_token_index=ids["<|video_pad|>"],
        audio_start_token_id=ids[MARKUP.audio_open],
        audio_end_token_id=ids[MARKUP.audio_close],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=llm.tie_word_embeddings,
    )
    with torch.device("meta"):
        shell = Qwen2_5OmniThinkerForConditionalGeneration(config)
    shell.generation_config.eos_token_id = ids[MARKUP.end]
    shell.generation_config.pad_token_id = ids[SPECIAL[0]]
    return shell


_SAME = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps"),
    "tie_word_embeddings",
)


def _state(
    plan: Design, encoder: dict[str, Tensor], llm: dict[str, Tensor], random: torch.Generator
) -> dict[str, Tensor]:
    """Every parameter of the thinker, by its name in the class."""
    shell = plan.shell
    paths = {module: name for name, module in shell.named_modules()}
    tower, text = f"{paths[audio_tower(shell)]}.", f"{paths[text_model(shell)]}."
    given = {
        tower + (f"ln_post.{kind}" if norm == "layer_norm" else f"{norm}.{kind}"): value
        for (norm, _, kind), value in (
            (name.rpartition("."), value) for name, value in encoder.items()
        )
    }
    for name, value in llm.items():
        given[text + name.removeprefix("model.") if name.startswith("model.") else name] = value
    for name in (f"{text}embed_tokens.weight", "lm_head.weight"):
        if name in given:
            given[name] = _grown(given[name], plan)
    spread = _spread(given[f"{text}embed_tokens.weight"], given, tower)

    def fresh(name: str, shape: torch.Size) -> Tensor | None:
        return _fresh(name, shape, tower, spread, random)

    state = {}
    for name, parameter in shell.named_parameters():
        weight = given.pop(name) if name in given else fresh(name, parameter.shape)
        if weight is None or weight.shape != parameter.shape:
            got = "none" if weight is None else tuple(weight.shape)
            raise CheckpointError(
                f"the parts have no weights for {name}: got {got}, expected {tuple(parameter.shape)}; do "
                "their weights belong to their config.json?"
            )
        state[name] = weight
    if given:
        raise CheckpointError(
            f"{len(given)} weights of the parts have no place in the thinker, the first {min(given)}; do "
            "they belong to their config.json?"
        )
    return state


def _grown(rows: Tensor, plan: Design) -> Tensor:
    """Embeddings `[V, D]` with rows for added markup, each the mean of those that the tokenizer has."""
    known = sorted(set(plan.tokenizer.get_vocab().values()) - set(plan.added.values()))
    mean = rows[torch.tensor(known)].mean(0)
    count = plan.shell.config.text_config.vocab_size
    grown = torch.cat([rows, mean.expand(count - len(rows), -1)])
    if plan.added:
        grown[torch.tensor(list(plan.added.values()))] = mean
    return grown


def _spread(embeddings: Tensor, given: dict[str, Tensor], tower: str) -> float:
    """Standard deviation of the projector's weights with which projected audio is as large as embeddings:
    the layer norm before it gives states of mean square gain^2 + bias^2."""
    gain, bias = given[f"{tower}ln_post.weight"], given[f"{tower}ln_post.bias"]
    inputs = (gain.square() + bias.square()).sum().sqrt()  # of `width` inputs together
    return float(embeddings.float().square().mean().sqrt() / inputs)


def _fresh(
    name: str, shape: torch.Size, tower: str, spread: float, random: torch.Generator
) -> Tensor | None:
    """A parameter that neither part has; `None` if one should have it."""
    if name == f"{tower}proj.weight":
        return torch.randn(shape, generator=random) * spread
    if name.endswith(".bias") and (".self_attn." in name or name == f"{tower}proj.bias"):
        attended = name.rpartition(".self_attn.")[2]
        lacking = attended in ("q_proj.bias", "k_proj.bias", "v_proj.bias") and tower not in name
        return torch.zeros(shape) if lacking or name == f"{tower}proj.bias" else None
    if name == f"{tower}audio_bos_eos_token.weight":
        return torch.randn(shape, generator=random) * _SMALL
    if "visual." not in name:
        return None
    if name.endswith(".bias"):
        return torch.zeros(shape)
    return torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=random) * _SMALL


def _write(
    folder: Path, plan: Design, state: dict[str, Tensor], seed: int, dtype: torch.dtype
) -> None:
    parts = plan.parts
    whole = {name: value.to(dtype).contiguous() for name, value in state.items()}
    plan.shell.to(dtype).save_pretrained(folder, state_dict=whole)
    plan.tokenizer.save_pretrained(folder)
    _check_saved_tokenizer(folder, plan)
    parts.extractor.save_pretrained(folder)
    sources = {
        name: {"model": source.name, "licence": licence or "not stated"}
        for name, source, licence in zip(
            ("audio", "text"), (parts.audio, parts.text), parts.licences, strict=True
        )
    }
    Profile(
        chunk_s=plan.window_s,
        max_turns=40,
        max_speakers=8,
        domain=f"nothing yet: composed of {parts.audio.name} and {parts.text.name}, not trained",
        training={"stage": "composed", "version": __version__, "seed": seed, "parts": sources},
    ).save(folder)
    (folder / "README.md").write_text(_card(plan), encoding="utf-8")


def _check_saved_tokenizer(folder: Path, plan: Design) -> None:
    """Check that the tokenizer splits text as before: transformers may load it as another class, because the
    folder's model is of another class now."""
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    text = f"{SPELLED} I'll say 1,234 things\n\n  twice: über 你好 {MARKUP.user_open}"
    if saved.encode(text, add_special_tokens=False) != plan.tokenizer.encode(
        text, add_special_tokens=False
    ):
        raise CheckpointError(
            f"--text {plan.parts.text.given}: its tokenizer, saved beside a Qwen2.5-Omni thinker, splits "
            "text otherwise than before; choose another model"
        )


def _card(plan: Design) -> str:
    parts, counts = plan.parts, plan.shape.parameters
    audio, text = (name or "not stated: look it up before you publish" for name in parts.licences)
    named = "license_name: see-parts\n" if parts.licence == "other" else ""
    ids = [source.place for source in (parts.text, parts.audio) if not source.local]
    bases = "".join(["base_model:\n", *(f"- {name}\n" for name in ids)]) if ids else ""
    marks = ", ".join(f"`{mark}`" for mark in plan.added) or "none"
    return f"""---
library_name: transformers
license: {parts.licence}
{named}{bases}---

# A thinker to be trained for speaker-attributed speech recognition

Composed by `speaker-reasoner compose` ({__version__}) and not trained yet: the projector between the parts is
random, so it writes no words that were said. `speaker-reasoner train small` trains it.

| part | from | licence | million parameters |
|---|---|---|---|
| audio tower | {parts.audio.name} (encoder; projector new) | {audio} | {counts.audio / 1e6:,.1f} |
| text model | {parts.text.name} | {text} | {counts.text / 1e6:,.1f} |

Tokens that the text model had no embeddings for: {marks}.
"""
