"""Write a model in the layout of the published checkpoints, which vLLM loads.

The published repositories of Qwen-Omni hold a whole model, of which the thinker is a part, and settings of a
processor of sound and pictures. Training here and `compose` write the thinker alone, with a feature extractor,
which vLLM 0.32.0 refuses. Without settings for pictures in a folder, the smallest that its vision tower takes are
written: vLLM needs them to load the model, though no pictures are sent to it.
"""

import json
from pathlib import Path
from typing import Any

import torch

from ..engines.checkpoint import CheckpointFiles, find_checkpoint
from ..errors import CheckpointError
from .merging import loaded
from .saves import replace_folder
from .scratch import save_checkpoint

_CLASSES = {
    "qwen3_omni_moe": ("Qwen3OmniMoeForConditionalGeneration", "Qwen3OmniMoeProcessor"),
    "qwen2_5_omni": ("Qwen2_5OmniForConditionalGeneration", "Qwen2_5OmniProcessor"),
}
_MARKS = {  # the names of the processor for each token, and those of its number in the configuration
    "audio_token": ("audio_token_id", "audio_token_index"),
    "image_token": ("image_token_id", "image_token_index"),
    "video_token": ("video_token_id", "video_token_index"),
    "audio_bos_token": ("audio_start_token_id",),
    "audio_eos_token": ("audio_end_token_id",),
    "vision_bos_token": ("vision_start_token_id",),
    "vision_eos_token": ("vision_end_token_id",),
}
_PICTURES = ("preprocessor_config.json", "video_preprocessor_config.json")


def publish(model: str | Path | None, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model, with its adapter merged, as a folder that vLLM loads.

    Args:
        model: folder or hub id, of a thinker, a whole model or a LoRA adapter; `None` for the embedded one.
        folder: to be written.
        dtype: of the written weights; `None` for that of the model's configuration.

    Raises:
        CheckpointError: it cannot be read.
        OutputError: the folder cannot be written.
    """
    files = find_checkpoint(model)
    if dtype is None:
        dtype = getattr(files.config, "dtype", None) or torch.float32
    thinker, profile = loaded(files, dtype), files.profile()

    def write(path: Path) -> None:
        save_checkpoint(path, thinker, files.tokenizer, files.extractor)
        _rename_weights(path)
        _write_settings(path, files, dtype)
        if profile is not None:
            profile.save(path)

    replace_folder(folder, write)


def _rename_weights(folder: Path) -> None:
    """Put `thinker.` before the names of all weights, file by file.

    transformers 5.23.0 does so itself for a model whose weights it has read with such names.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            weights = {_of_a_part(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(weights, path, {"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.exists():
        listed = json.loads(index.read_text("utf-8"))
        listed["weight_map"] = {
            _of_a_part(name): file for name, file in listed["weight_map"].items()
        }
        index.write_text(json.dumps(listed, indent=2), encoding="utf-8")


def _of_a_part(name: str) -> str:
    return f"thinker.{name.removeprefix('thinker.')}"


def _write_settings(folder: Path, files: CheckpointFiles, dtype: torch.dtype) -> None:
    thinker = _read(folder / "config.json")
    kind = thinker["model_type"].removesuffix("_thinker")
    if kind not in _CLASSES:
        raise CheckpointError(
            f"{files.folder}: is a {thinker['model_type']}, expected a thinker of {' or '.join(_CLASSES)}"
        )
    model, processor = _CLASSES[kind]
    vision = thinker["vision_config"]
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    if kind == "qwen3_omni_moe":
        vision.setdefault("image_size", 2 * patch * merge)
        vision.setdefault("apply_vit_abs_pos_embed", True)
    whole = {
        "architectures": [model],
        "model_type": kind,
        "enable_audio_output": False,
        "dtype": str(dtype).removeprefix("torch."),
        "thinker_config": thinker,
    }
    _save(folder / "config.json", whole)
    marks = {}
    for mark, names in _MARKS.items():
        number = next((thinker[name] for name in names if thinker.get(name) is not None), None)
        if number is None:
            raise CheckpointError(
                f"{files.folder}/config.json: expected {' or '.join(names)}, the number of a token, which vLLM's "
                "processor needs; got none; copy it from the base model"
            )
        marks[mark] = files.tokenizer.convert_ids_to_tokens(number)
    tokenizer = _read(folder / "tokenizer_config.json")
    _save(
        folder / "tokenizer_config.json",
        tokenizer | {"extra_special_tokens": marks, "processor_class": processor},
    )
    extractor = _read(folder / "preprocessor_config.json")
    given = [files.folder / name for name in _PICTURES]
    if all(path.exists() for path in given) and "image_processor_type" in _read(given[0]):
        pictures, videos = map(_read, given)
    else:
        sizes = {
            "patch_size": patch,
            "merge_size": merge,
            "temporal_patch_size": vision["temporal_patch_size"],
        }
        least = (patch * merge) ** 2
        pictures = sizes | {
            "image_processor_type": "Qwen2VLImageProcessor",
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "min_pixels": least,
            "max_pixels": 16 * least,
        }
        videos = sizes | {
            "video_processor_type": "Qwen2VLVideoProcessor",
            "size": {"shortest_edge": least, "longest_edge": 16 * least},
        }
    _save(folder / _PICTURES[0], pictures | extractor | {"processor_class": processor})
    _save(folder / _PICTURES[1], videos)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))


def _save(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
