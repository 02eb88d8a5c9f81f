"""The two models that a thinker is composed of: a Whisper, for its encoder, and a language model.

All that can be known without weights is read and checked first: configurations, tokenizer, feature extractor,
licences. What the thinker's class cannot hold is refused; nothing is left out to make a part fit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import extras
from ..audio import SAMPLE_RATE_HZ
from ..engines.cascade.hub import unusable
from ..engines.thinker import HOP_SAMPLES
from ..errors import CheckpointError
from ..protocol.markup import ANSWER, ANSWER_END, BOX, BOX_END, THINK, THINK_END

_AUDIO, _TEXT = "--audio", "--text"
_FAMILIES = ("llama", "qwen2")
_PERMISSIVE = (
    *("mit", "apache-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense"),
    *("cc0-1.0", "cc-by-4.0"),
)
"""Licences, by their names on the hub, whose terms a work with any other part can keep."""
SPELLED = f"{THINK}2 speakers, Speaker1-female{BOX}0.35,12.90{BOX_END}{THINK_END}{ANSWER}[]:{ANSWER_END}\n"
"""Written by every dialogue, so a tokenizer must be able to spell it."""
_POSITIONS_OFF = 2e-3
"""A published Whisper holds its sinusoids in float16, whose step below 1 is 5e-4."""


@dataclass(frozen=True, slots=True)
class PartSource:
    """The place of a part.

    Attributes:
        given: as the user gave it.
        place: folder or hub id.
        gguf: name of a GGUF file in it; empty for safetensors.
    """

    given: str
    place: str
    gguf: str = ""

    @property
    def local(self) -> bool:
        return Path(self.place).is_dir()

    @property
    def name(self) -> str:
        """The name for records that leave this machine: the hub id, or the name of the folder or file."""
        return (self.gguf or Path(self.place).resolve().name) if self.local else self.given

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of transformers' `from_pretrained`."""
        return {"gguf_file": self.gguf} if self.gguf else {}


@dataclass(frozen=True, slots=True)
class Parts:
    """Both parts without their weights.

    Attributes:
        audio, text: where they are.
        whisper, llm: their configurations.
        extractor: Whisper's feature extractor.
        tokenizer: the language model's, as it is.
        licences: of audio and text; empty where none is stated.
        licence: of the result, by its name on the hub.
    """

    audio: PartSource
    text: PartSource
    whisper: Any
    llm: Any
    extractor: Any
    tokenizer: Any
    licences: tuple[str, str]
    licence: str


def read_parts(audio: str, text: str) -> Parts:
    """Read and check everything but the weights.

    Args:
        audio: folder or hub id of a Whisper.
        text: folder, hub id or GGUF file (`FILE.gguf`, `OWNER/NAME/FILE.gguf`) of a language model.

    Raises:
        CheckpointError: a part cannot be had, is of another kind, or does not fit the thinker's class.
        ExtraError: a GGUF file is given, and the library that reads it is not installed.
    """
    sources = _source(_AUDIO, audio), _source(_TEXT, text)
    if sources[1].gguf:
        extras.load("gguf", "gguf", "a GGUF file")
    whisper, llm = _config(_AUDIO, sources[0]), _config(_TEXT, sources[1])
    _check_whisper(whisper, audio)
    _check_llm(llm, text)
    tokenizer, extractor = _tokenizer(sources[1], llm), _extractor(sources[0], whisper)
    licences = _licence(sources[0]), _licence(sources[1])
    return Parts(*sources, whisper, llm, extractor, tokenizer, licences, _joint(*licences))


def read_encoder(parts: Parts) -> dict[str, Tensor]:
    """Weights of Whisper's encoder, by the names of its class, float32.

    Raises:
        CheckpointError: they cannot be read, do not fit its configuration, or its positions are not Whisper's
            sinusoids, which the thinker's class computes.
    """
    from transformers import WhisperModel

    state = _weights(_AUDIO, parts.audio, WhisperModel, lambda model: model.encoder)
    positions = state.pop("embed_positions.weight")
    off = float((positions - _sinusoids(*positions.shape)).abs().max())
    if not off < _POSITIONS_OFF:
        raise CheckpointError(
            f"{_AUDIO} {parts.audio.given}: its encoder's positions are {off:.2g} off Whisper's sinusoids, "
            "expected none that were trained; choose a Whisper that keeps them"
        )
    return state


def read_llm(parts: Parts) -> dict[str, Tensor]:
    """Weights of the language model, by the names of its class, float32; without a head where it is tied.

    Raises:
        CheckpointError: they cannot be read, or do not fit its configuration.
    """
    from transformers import AutoModelForCausalLM

    state = _weights(_TEXT, parts.text, AutoModelForCausalLM, lambda model: model)
    if parts.llm.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return state


def _source(option: str, given: str) -> PartSource:
    path = Path(given).expanduser()
    if path.is_dir():
        return PartSource(given, str(path))
    place, _, file = given.rpartition("/")
    hub = place if file.endswith(".gguf") else given
    if option == _TEXT and file.endswith(".gguf") and path.is_file():
        return PartSource(given, str(path.parent), path.name)
    if path.exists() or given.startswith((".", "~", "/")) or hub.count("/") != 1:
        got = "a file" if path.exists() else "nothing"
        also = " (or FILE.gguf)" if option == _TEXT else ""
        raise CheckpointError(
            f"{option} {given}: expected a model folder{also} or a hub id OWNER/NAME, got {got} at that path"
        )
    return PartSource(given, hub, file if file.endswith(".gguf") else "")


def _read(option: str, source: PartSource, make: Callable[..., Any], **options: Any) -> Any:
    """Call a `from_pretrained`; convert any exception to one error."""
    try:
        return make(source.place, trust_remote_code=False, **options)
    except Exception as error:  # transformers, the hub and damaged files raise anything
        name = f"{option} {source.given}"
        raise unusable(name, source.place, error, local=source.local) from error


def _config(option: str, source: PartSource) -> Any:
    from transformers import AutoConfig

    config = _read(option, source, AutoConfig.from_pretrained, **source.options)
    folder = Path(source.place)
    if source.local and not source.gguf and not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{option} {source.given}: no weights (*.safetensors) beside config.json; is the download complete?"
        )
    return config


def _check_whisper(config: Any, given: str) -> None:
    kind, problem = config.model_type, ""
    if kind != "whisper" and not config.is_encoder_decoder and hasattr(config, "vocab_size"):
        problem = (
            f"got a decoder-only language model ({kind}), expected a Whisper; it belongs to {_TEXT}"
        )
    elif kind != "whisper":
        problem = f"got model_type {kind!r}, expected a Whisper"
    elif config.d_model % config.encoder_attention_heads or config.d_model % 2:
        problem = f"its width {config.d_model} does not divide among {config.encoder_attention_heads} heads"
    if problem:
        raise CheckpointError(f"{_AUDIO} {given}: {problem}")


def _check_llm(config: Any, given: str) -> None:
    """Check that the text model of Qwen2.5-Omni can hold the language model as it is."""
    kind, rope = config.model_type, getattr(config, "rope_parameters", None) or {}
    family = " or ".join(_FAMILIES)
    reason = ""
    if config.is_encoder_decoder:
        whose = f"; it belongs to {_AUDIO}" if kind == "whisper" else ""
        reason = f"got an encoder-decoder ({kind}), expected a decoder-only language model{whose}"
    elif kind.startswith("qwen3"):
        reason = f"{kind} normalises queries and keys (q_norm, k_norm), which Qwen2.5-Omni's text model does not"
    elif kind not in _FAMILIES:
        reason = f"got model_type {kind!r}, expected {family}"
    elif getattr(config, "attention_bias", False):
        reason = "it has a bias on its attention's output, which Qwen2.5-Omni's text model has not"
    elif getattr(config, "mlp_bias", False):
        reason = "its MLP has biases, which Qwen2.5-Omni's text model has not"
    elif rope.get("rope_type", "default") != "default":
        reason = f"its rotary embedding is scaled ({rope['rope_type']}), expected the plain one"
    elif rope.get("partial_rotary_factor", 1.0) != 1.0:
        reason = "its rotary embedding turns a part of each head, expected the whole head"
    elif "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        reason = "its attention slides over a window, expected full attention"
    elif config.num_attention_heads % config.num_key_value_heads:
        reason = (
            f"{config.num_attention_heads} heads do not divide among "
            f"{config.num_key_value_heads} heads of keys and values"
        )
    if reason:
        raise CheckpointError(
            f"{_TEXT} {given}: {reason}; choose a model of the family of {family}"
        )


def head_width(config: Any) -> int:
    """Width of an attention head of a language model."""
    width = getattr(config, "head_dim", None)
    return int(width or config.hidden_size // config.num_attention_heads)


def _tokenizer(source: PartSource, config: Any) -> Any:
    """Load a tokenizer exactly as its `tokenizer.json` defines it, if there is one.

    `AutoTokenizer` would replace the file's pre-tokenizer by that of the named class (transformers 5.23, GPT2Tokenizer
    and Qwen2Tokenizer).
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils import cached_file

    name, options = "tokenizer.json", {"_raise_exceptions_for_missing_entries": False}
    whole = not source.gguf and _read(_TEXT, source, _file(cached_file, name), **options)
    cls = PreTrainedTokenizerFast if whole else AutoTokenizer
    tokenizer = _read(_TEXT, source, cls.from_pretrained, **source.options)
    added = tokenizer.added_tokens_decoder  # may lie beyond: they get embeddings as our markup does
    most = max((i for i in tokenizer.get_vocab().values() if i not in added), default=-1) + 1
    if not 0 < most <= config.vocab_size:
        raise CheckpointError(
            f"{_TEXT} {source.given}: its tokenizer has {most} tokens, the model embeds {config.vocab_size}; "
            "take both from the same model"
        )
    ids = tokenizer.encode(SPELLED, add_special_tokens=False)
    written = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if written.strip() != SPELLED.strip():
        raise CheckpointError(
            f"{_TEXT} {source.given}: its tokenizer cannot spell {SPELLED.strip()!r}, it gives "
            f"{written[:80]!r}; choose a model whose tokenizer spells every byte"
        )
    return tokenizer


def _file(find: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Looks for a file of a folder or hub id; `None` where it has none."""

    def look(place: str, *, trust_remote_code: bool, **options: Any) -> Any:
        return find(place, name, **options)

    return look


def _extractor(source: PartSource, config: Any) -> Any:
    from transformers import WhisperFeatureExtractor

    extractor = _read(_AUDIO, source, WhisperFeatureExtractor.from_pretrained)
    got = (extractor.feature_size, extractor.sampling_rate, extractor.hop_length)
    expected = (config.num_mel_bins, SAMPLE_RATE_HZ, HOP_SAMPLES)
    if got != expected:
        raise CheckpointError(
            f"{_AUDIO} {source.given}: its feature extractor has {got[0]} mel bins at {got[1]} Hz, a step of "
            f"{got[2]} samples, expected {expected[0]}, {expected[1]} and {expected[2]}; take its "
            "preprocessor_config.json from the same model"
        )
    return extractor


def _licence(source: PartSource) -> str:
    """The licence that the model's card states, else its GGUF file; empty if neither does."""
    from huggingface_hub import ModelCard

    if not source.local or (Path(source.place) / "README.md").is_file():
        card = Path(source.place) / "README.md" if source.local else source.place
        try:
            data = ModelCard.load(card, ignore_metadata_errors=True).data
        except Exception:  # no card, or one that is not to be read: nothing is stated
            data = None
        name = getattr(data, "license", None)
        if name == "other":
            name = getattr(data, "license_name", None) or name
        if name:
            return str(name[0] if isinstance(name, list) else name).lower()
    return _gguf_licence(Path(source.place) / source.gguf) if source.gguf and source.local else ""


def _gguf_licence(file: Path) -> str:
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("general.license")
    return "" if field is None else str(field.contents()).lower()


def _joint(audio: str, text: str) -> str:
    """The licence of a work of both parts; `other` where one states none.

    Raises:
        CheckpointError: neither's terms allow the other's.
    """
    if not audio or not text:
        return "other"
    bound = [name for name in dict.fromkeys((text, audio)) if name not in _PERMISSIVE]
    if len(bound) > 1:
        raise CheckpointError(
            f"the licences of the parts do not fit: {_AUDIO} is under {audio}, {_TEXT} under {text}, and a "
            "work of both cannot keep the terms of either; choose a part under a permissive licence "
            "(MIT, Apache-2.0)"
        )
    if bound:
        return bound[0]
    return text if text != "mit" else audio


def _weights(
    option: str, source: PartSource, cls: Any, part: Callable[[Any], Any]
) -> dict[str, Tensor]:
    """A part's parameters and buffers by name; none may be missing or of another shape."""
    safe = {} if source.gguf else {"use_safetensors": True}
    model, info = _read(
        option,
        source,
        cls.from_pretrained,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # reported below
        output_loading_info=True,
        **safe,
        **source.options,
    )
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise CheckpointError(
            f"{option} {source.given}: {len(wrong)} of its weights are missing or of another shape, the first "
            f"{wrong[0]}; is the download complete?"
        )
    state: dict[str, Tensor] = part(model).state_dict()
    return state


def _sinusoids(length: int, width: int) -> Tensor:
    """Whisper's positions, `[length, width]`."""
    steps = torch.arange(width // 2) / (width // 2 - 1)
    angles = torch.arange(length)[:, None] * torch.pow(10_000.0, -steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
