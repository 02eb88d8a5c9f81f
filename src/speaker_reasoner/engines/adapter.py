"""Merge a LoRA adapter (peft's files) into a thinker.

Reads the adapter's own two files, so that the mapping does not depend on another library: paths of
modules differ between versions of transformers and between adapters of the thinker and of the full
model; experts are one weight each in the file and one weight together in the model. Everything else that peft can
save (DoRA, trained biases, whole modules) is an error.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from .thinker import audio_tower, text_model

SETTINGS_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
    "layer_replication": ([], None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
"""Accepted values of these settings: others change the meaning of the weights, or (`init_lora_weights`) the base."""

_EXPERT = re.compile(r"(.+\.experts)\.(\d+)\.(gate|up|down)_proj")


@torch.no_grad()
def merge_adapter(thinker: Any, folder: Path, settings: dict[str, Any]) -> None:
    """Add the adapter's low-rank products to the weights of its base, in place.

    Args:
        thinker: the base model.
        folder: of the adapter.
        settings: content of its settings file.

    Raises:
        CheckpointError: the adapter is not a plain LoRA, is incomplete, or fits another model.
    """
    for name, plain in _PLAIN.items():
        if settings.get(name, plain[0]) not in plain:
            raise CheckpointError(
                f"{folder / SETTINGS_FILE}: {name} is {settings[name]!r}, which is not supported; "
                "merge the adapter with peft (merge_and_unload) and load the result"
            )
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise CheckpointError(f"{folder / SETTINGS_FILE}: r {rank!r} and lora_alpha {alpha!r}")
    for module, down, up in _pairs(folder):
        target = _target(thinker, module)
        if target is None or (len(up), down.shape[1]) != tuple(target.shape):
            size = "no such module" if target is None else f"of shape {tuple(target.shape)}"
            raise CheckpointError(
                f"{folder}: adapts {module} by {len(up)} x {down.shape[1]}, which is {size} in its "
                "base; is it the adapter of another model?"
            )
        layer_rank = len(down)
        scale = alpha / (math.sqrt(layer_rank) if settings.get("use_rslora") else layer_rank)
        target += (scale * (up.float() @ down.float())).to(target)


def _pairs(folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Module, A `[rank, in]` and B `[out, rank]` of everything that is adapted."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / WEIGHTS_FILE
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: cannot be read: {error}; is the adapter complete?".replace("\n", " ")
        ) from error
    while weights:
        key = next(iter(weights))
        module = re.sub(r"\.lora_[AB]\.weight$", "", key)
        pair = [weights.pop(f"{module}.lora_{side}.weight", None) for side in "AB"]
        if pair[0] is None or pair[1] is None or len(pair[0]) != pair[1].shape[-1]:
            raise CheckpointError(
                f"{file}: {key} is not one of a pair lora_A and lora_B; "
                "merge the adapter with peft (merge_and_unload) and load the result"
            )
        yield module.removeprefix("base_model.model."), pair[0], pair[1]


def _target(thinker: Any, module: str) -> Tensor | None:
    """The weight `[out, in]` of a module named in an adapter, a view of it for an expert's."""
    path = re.sub(r"^thinker\.", "", module)
    inside = re.fullmatch(r"model\.(?:language_model\.)?(layers\..+)", path)
    in_tower = re.fullmatch(r"(?:model\.)?audio_tower\.(.+)", path)
    root = text_model(thinker) if inside else audio_tower(thinker) if in_tower else thinker
    path = inside[1] if inside else in_tower[1] if in_tower else path
    expert = _EXPERT.fullmatch(path)
    names: dict[str, Tensor] = dict(root.named_parameters())
    if not expert:
        return names.get(f"{path}.weight")
    part = expert[3]
    experts = names.get(f"{expert[1]}.{'down_proj' if part == 'down' else 'gate_up_proj'}")
    if experts is None or int(expert[2]) >= len(experts):
        return None
    layer = experts[int(expert[2])]
    return layer if part == "down" else layer.chunk(2)[part == "up"]
