"""Load a checkpoint: a folder or hub id of the Qwen3-Omni or Qwen2.5-Omni thinker classes.

A folder of the full model (thinker and talker) loads its thinker alone. A folder of a LoRA adapter loads its base and
the adapter. Where possible, errors are raised before any weight is read.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, first_line
from ..protocol import PROFILE_FILE, Profile, load_profile, released_profile
from ..protocol.markup import MARKUP
from .adapter import SETTINGS_FILE, merge_adapter
from .room import Card, check_precision, check_room, usable_cuda
from .thinker import audio_marks

EMBEDDED = Path(__file__).parent.parent / "checkpoints" / "tiny"
"""The checkpoint that ships with the package."""

_CLASSES = {
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
}
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_LAYER = re.compile(r"(?!talker\.|code2wav\.|token2wav\.).*\blayers\.\d+\.")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        name: path or hub id, as given.
        thinker: the model, in evaluation mode, on its device.
        tokenizer: Hugging Face tokenizer.
        extractor: Whisper feature extractor.
        profile: its wording and limits.
        folder: of its files; `None` for a model in training.
    """

    name: str
    thinker: Any
    tokenizer: Any
    extractor: Any
    profile: Profile
    folder: Path | None = None


def load_checkpoint(
    model: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    prompts: Path | None = None,
    revision: str | None = None,
    cuda_graphs: bool = False,
) -> Checkpoint:
    """Load a model for inference.

    Args:
        model: folder or hub id; the embedded checkpoint if `None`.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; the best one present if `None`.
        dtype: `float32`, `bfloat16`, `float16`; `None` is bfloat16 on CUDA, else float32.
        prompts: prompt file of a released checkpoint, in place of a profile.
        revision: branch, tag or commit of a hub id.
        cuda_graphs: whether steps will be captured, which takes memory.

    Raises:
        CheckpointError: the folder lacks a file, is of another class, its weights do not fit the class, or the
            model does not fit on the GPU.
        ProtocolError: the profile or the prompt file is wrong.
    """
    name = "embedded" if model is None else str(model)
    target = _device(device)
    precision = _dtype(dtype, target)
    files = find_checkpoint(model, revision)
    profile = released_profile(prompts) if prompts else files.profile()
    if profile is None:
        raise CheckpointError(
            f"{files.folder}: no {PROFILE_FILE} beside the weights: for a released checkpoint give "
            "the prompt file published with it (--prompts FILE)"
        )
    if target.type == "cuda":
        check_precision(precision, target)
        with _told(target):
            card = Card.of(target)
        check_room(
            _thinker_class(files.config), files.config, precision, card, cuda_graphs=cuda_graphs
        )
    thinker = load_thinker(files, precision)
    if files.adapter is not None:
        merge_adapter(thinker, files.folder, files.adapter)
    with _told(target):
        thinker = thinker.to(target).eval()
    return Checkpoint(name, thinker, files.tokenizer, files.extractor, profile, files.folder)


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """The content of a model folder without the weights.

    Attributes:
        folder: of the model, or of an adapter.
        base: of the model's weights; the same folder where there is no adapter.
        adapter: settings of the adapter; `None` for a model.
        config: of the thinker.
        tokenizer: Hugging Face tokenizer.
        extractor: Whisper feature extractor.
    """

    folder: Path
    base: Path
    adapter: dict[str, Any] | None
    config: Any
    tokenizer: Any
    extractor: Any

    def profile(self) -> Profile | None:
        """The folder's own, else its base's; `None` where neither has one."""
        return load_profile(self.folder) or load_profile(self.base)


def find_checkpoint(model: str | Path | None, revision: str | None = None) -> CheckpointFiles:
    """Read everything of a model but its weights; arguments and errors as `load_checkpoint`."""
    folder = _folder(model, revision)
    adapter = folder / SETTINGS_FILE
    settings = _read_json(adapter) if adapter.exists() else None
    base = _base_of(adapter, settings) if settings is not None else folder
    config = _read_config(base)
    tokenizer, extractor = _load_tokenizer(folder, base), _load_extractor(folder, base)
    _check_tokenizer(tokenizer, config, folder)
    return CheckpointFiles(folder, base, settings, config, tokenizer, extractor)


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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, revision=revision))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{text}: neither a folder here nor to be had from the hub: "
            f"{first_line(error)}; check the name, the network, and `hf auth login`"
        ) from error


def _device(name: str | None) -> torch.device:
    if name is None:
        if usable_cuda():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CheckpointError(
            f"device {name!r} cannot be used: {first_line(error)}; use cpu, cuda or mps"
        ) from error
    return device


@contextmanager
def _told(device: torch.device) -> Iterator[None]:
    """Raise what a driver or an allocator raises as a `CheckpointError`."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError among them
        raise CheckpointError(
            f"the model cannot be put on {device}: {first_line(error)}; stop what else fills or uses it, or give "
            "--device cpu"
        ) from error


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
        raise CheckpointError(
            f"{path.parent}: {path.name} is missing; is it a model folder?"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: not readable as JSON: {error}; is the download complete?"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path}: expected a JSON object, got {type(value).__name__}; copy it from the base"
        )
    return value


def _base_of(adapter: Path, settings: dict[str, Any]) -> Path:
    """The folder of the model that an adapter was trained on."""
    base = settings.get("base_model_name_or_path")
    remedy = "set base_model_name_or_path there to the folder or hub id of the base model"
    if not base:
        raise CheckpointError(f"{adapter}: names no base model; {remedy}")
    try:
        return _folder(base, settings.get("revision"))
    except CheckpointError as error:
        raise CheckpointError(
            f"{adapter}: its base model cannot be had: {error}; {remedy}"
        ) from error


def _read_config(folder: Path) -> Any:
    """The thinker's configuration, whether the folder holds the thinker alone or the full model."""
    import transformers

    kind = _read_json(folder / "config.json").get("model_type")
    if kind not in _CLASSES:
        raise CheckpointError(
            f"{folder}: model_type {kind!r} is not supported; expected one of {', '.join(_CLASSES)}"
        )
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise CheckpointError(
            f"{folder}: no weights (*.safetensors) beside config.json; is the download complete?"
        )
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # settings are validated by whatever class they belong to
        raise CheckpointError(
            f"{folder / 'config.json'}: not a valid configuration: {first_line(error)}; "
            "copy it from the model it was trained from"
        ) from error
    return getattr(config, "thinker_config", config)


def _thinker_class(config: Any) -> Any:
    import transformers

    return getattr(transformers, _CLASSES[config.model_type])


def load_thinker(files: CheckpointFiles, dtype: torch.dtype) -> Any:
    """The thinker of a model, or of an adapter's base; weights of talker and vocoder stay on the disk.

    Raises:
        CheckpointError: the weights are damaged, or do not fit the configuration.
    """
    import transformers

    folder, config = files.base, files.config
    cls = _thinker_class(config)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        thinker, info = cls.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, weight by weight
            output_loading_info=True,
        )
    except Exception as error:  # the loader raises anything from OSError to SafetensorError
        raise CheckpointError(
            f"{folder}: the weights cannot be loaded as {cls.__name__}: {first_line(error)}; "
            "is the download complete?"
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)
    _check_weights(folder, info)
    return thinker


def _check_weights(folder: Path, info: dict[str, Any]) -> None:
    """Check that every weight of the class was read, and that no layer of the file was left out."""
    missing = sorted(info["missing_keys"])
    shapes = sorted(
        f"{key} {tuple(got)}, not {tuple(want)}" for key, got, want in info["mismatched_keys"]
    )
    left = sorted(key for key in info["unexpected_keys"] if _LAYER.match(key))
    for what, keys in (("missing", missing), ("of another shape", shapes), ("left over", left)):
        if keys:
            raise CheckpointError(
                f"{folder}: {len(keys)} of its weights {what}, the first {keys[0]}: "
                "the weights do not fit config.json; copy both from the same model"
            )


def _holder(what: str, names: tuple[str, ...], folders: tuple[Path, ...]) -> Path:
    """The first folder with one of the files; an adapter's own come before its base's."""
    for folder in folders:
        if any((folder / name).exists() for name in names):
            return folder
    raise CheckpointError(
        f"{folders[-1]}: {names[0]} is missing, so there is no {what}; copy it from the base model"
    )


def _load_tokenizer(*folders: Path) -> Any:
    from transformers import AutoTokenizer

    folder = _holder("tokenizer", ("tokenizer_config.json",), folders)
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be loaded: {first_line(error)}; "
            "copy tokenizer.json and tokenizer_config.json from the base model"
        ) from error


def _load_extractor(*folders: Path) -> Any:
    from transformers import WhisperFeatureExtractor

    names = ("preprocessor_config.json", "processor_config.json")
    folder = _holder("feature extractor", names, folders)
    try:
        return WhisperFeatureExtractor.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: the feature extractor cannot be loaded: {first_line(error)}; "
            f"copy {names[0]} from the base model"
        ) from error


def _check_tokenizer(tokenizer: Any, config: Any, folder: Path) -> None:
    """The tokenizer is the model's own: its ids have embeddings, its markup is single tokens."""
    rows = int(config.get_text_config().vocab_size)
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model embeds {rows}; "
            "copy the tokenizer from the base model"
        )
    known = tokenizer.get_vocab()
    lacking = [mark for mark in (MARKUP.end, *audio_marks(tokenizer).values()) if mark not in known]
    if lacking:
        raise CheckpointError(
            f"{folder}: the tokenizer has no token {lacking[0]!r}; "
            "copy the tokenizer from the base model"
        )
