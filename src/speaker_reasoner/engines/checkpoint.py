"""Load a checkpoint: a Hugging Face folder or hub id of the Qwen3-Omni or Qwen2.5-Omni thinker classes.

A folder of the full model (thinker and talker) loads its thinker alone. A folder of a LoRA adapter loads
the base it names and the adapter on top. Errors are told before any weight is read where possible.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..protocol import Profile, load_profile, released_profile

EMBEDDED = Path(__file__).parent.parent / "checkpoints" / "tiny"
"""The checkpoint that ships with the package."""

_CLASSES = {
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
}
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        name: path or hub id it was asked for by.
        thinker: the model, in evaluation mode, on its device.
        tokenizer: Hugging Face tokenizer.
        extractor: Whisper feature extractor.
        profile: how it speaks the protocol.
    """

    name: str
    thinker: Any
    tokenizer: Any
    extractor: Any
    profile: Profile


def load_checkpoint(
    model: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    prompts: Path | None = None,
    revision: str | None = None,
) -> Checkpoint:
    """Load a model for inference.

    Args:
        model: folder or hub id; the embedded checkpoint if `None`.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; the best one present if `None`.
        dtype: `float32`, `bfloat16`, `float16`; if `None`, float32 on the CPU and MPS, bfloat16 on CUDA.
        prompts: prompt file of a released checkpoint, in place of a profile.
        revision: branch, tag or commit of a hub id.

    Raises:
        CheckpointError: the folder lacks a file, is of another class, or its weights do not fit.
        ProtocolError: the profile or the prompt file is wrong.
    """
    name = "embedded" if model is None else str(model)
    folder = _folder(model, revision)
    target = _device(device)
    precision = _dtype(dtype, target)
    adapter = folder / "adapter_config.json"
    base = folder
    if adapter.exists():
        base = _folder(_read_json(adapter).get("base_model_name_or_path") or "", None)
    thinker = _load_thinker(base, precision)
    if adapter.exists():
        thinker = _with_adapter(thinker, folder)
    extractor, tokenizer = _load_inputs(folder if (folder / "tokenizer_config.json").exists() else base)
    profile = released_profile(prompts) if prompts else load_profile(folder) or load_profile(base)
    if profile is None:
        raise CheckpointError(
            f"{folder}: no {_profile_name()} beside the weights: for a released checkpoint give the prompt "
            "file published with it (--prompts FILE)"
        )
    return Checkpoint(name, thinker.to(target).eval(), tokenizer, extractor, profile)


def _profile_name() -> str:
    from ..protocol import PROFILE_FILE

    return PROFILE_FILE


def _folder(model: str | Path | None, revision: str | None) -> Path:
    """The local folder of a model; a hub id is downloaded or found in the cache."""
    if model is None:
        return EMBEDDED
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    text = str(model)
    if path.exists() or path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        got = "a file" if path.exists() else "nothing"
        raise CheckpointError(
            f"{text}: expected a model folder or a hub id OWNER/NAME, got {got} at that path"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, revision=revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{text}: neither a folder here nor to be had from the hub: "
            f"{str(error).splitlines()[0]}; check the name, the network, and `hf auth login`"
        ) from error


def _device(name: str | None) -> torch.device:
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CheckpointError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}; use cpu, cuda or mps"
        ) from error
    return device


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise CheckpointError(f"dtype {name!r} is not one of {', '.join(known)}")
    return known[name]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: {path.name} is missing; is it a model folder?") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def _load_thinker(folder: Path, dtype: torch.dtype) -> Any:
    """The thinker of a folder, whether it holds the thinker alone or the full model."""
    import transformers

    kind = _read_json(folder / "config.json").get("model_type")
    if kind not in _CLASSES:
        raise CheckpointError(
            f"{folder}: model_type {kind!r} is not supported; expected one of {', '.join(_CLASSES)}"
        )
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise CheckpointError(f"{folder}: no weights (*.safetensors) beside config.json")
    cls = getattr(transformers, _CLASSES[kind])
    config = transformers.AutoConfig.from_pretrained(folder)
    config = getattr(config, "thinker_config", config)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        thinker, info = cls.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # the loader raises anything from OSError to SafetensorError
        raise CheckpointError(
            f"{folder}: the weights cannot be loaded as {cls.__name__}: {str(error).splitlines()[0]}"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    missing = sorted(info["missing_keys"])
    if missing or info.get("mismatched_keys"):
        wrong = missing or sorted(str(key) for key in info["mismatched_keys"])
        raise CheckpointError(
            f"{folder}: {len(wrong)} weights are missing or of another shape, the first {wrong[0]}; "
            "the checkpoint does not fit its config.json"
        )
    return thinker


def _with_adapter(thinker: Any, folder: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise CheckpointError(
            f"{folder} is a LoRA adapter: pip install 'speaker-reasoner[lora]'"
        ) from error
    return PeftModel.from_pretrained(thinker, folder).merge_and_unload()


def _load_inputs(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, WhisperFeatureExtractor

    for name in ("preprocessor_config.json", "tokenizer_config.json"):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder}: {name} is missing; copy it from the base model")
    try:
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder}: tokenizer or feature extractor cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    return extractor, tokenizer
