"""LoRA: small trained factors beside the frozen projections of a thinker, by peft, and their files.

peft adapts the lists of layers, not the thinker: so the class stays what engines know, the audio tower
is left out unless it is asked for, and peft does not take a dense thinker for a mixture of experts (it
goes by the name of the class; docs/decisions/0005). Files are peft's; experts, which are one weight
together in the model, are written one by one, as in the model's own files, and `engines/adapter.py`
and peft read them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import extras
from ..engines.adapter import SETTINGS_FILE, WEIGHTS_FILE
from ..engines.thinker import audio_tower, text_model
from ..errors import CheckpointError, DataError

_NAME = "default"
_PROJECTIONS = ("_proj", "fc1", "fc2")
"""Ends of their names in text model and audio tower; a mixture's router is none."""
_EXPERTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
"""The weights that hold all experts, and the projections in each, stacked by rows."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Settings of LoRA.

    Attributes:
        rank: of the factors (8 in the paper).
        alpha: the factors' product is scaled by `alpha / rank`.
        experts: adapt the routed experts of a mixture, too; gate and up projection share a factor.
        audio: adapt the audio tower's layers, too.
    """

    rank: int = 8
    alpha: float = 32.0
    experts: bool = False
    audio: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise DataError(f"LoRA of rank {self.rank}, alpha {self.alpha}: expected more than 0")


def adapt(thinker: Any, lora: Lora) -> None:
    """Freeze a thinker and put factors beside its projections, in place; the factors are float32.

    Raises:
        DataError: experts are asked for where there are none.
        ExtraError: peft is not installed.
    """
    peft = extras.load("peft", "train", "LoRA")
    thinker.requires_grad_(False)
    layers = text_model(thinker).layers
    experts = [f"mlp.experts.{name}" for name in _EXPERTS] if lora.experts else []
    if experts and not any(
        name.endswith("experts.down_proj") for name, _ in layers.named_parameters()
    ):
        raise DataError("LoRA: the model has no routed experts to adapt; set experts = false")
    for root, parameters in ((layers, experts), (audio_tower(thinker).layers, [])):
        if root is layers or lora.audio:
            settings = peft.LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                target_modules=[
                    name
                    for name, part in root.named_modules()
                    if isinstance(part, nn.Linear) and name.endswith(_PROJECTIONS)
                ],
                target_parameters=parameters or None,
            )
            peft.inject_adapter_in_model(settings, root, _NAME)
    for parameter in thinker.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def save_adapter(
    folder: Path,
    thinker: Any,
    state: Mapping[str, Tensor],
    lora: Lora,
    base: str,
    revision: str | None,
) -> None:
    """Write peft's two files.

    Args:
        thinker: as `adapt` left it.
        state: its trained parameters by name, whole.
        base: folder or hub id of the frozen model.
        revision: of the hub id.

    Raises:
        OSError: a file cannot be written.
    """
    import peft
    from safetensors.torch import save_file

    weights: dict[str, Tensor] = {}
    targets: set[str] = set()
    for pair in _pairs(thinker):
        down, up = (state[f"{pair.path}.lora_{side}.{_NAME}.weight"].float() for side in "AB")
        for name, factors in pair.split(down, up):
            targets.add(name.rpartition(".")[2] if pair.experts else name)
            for side, factor in zip("AB", factors, strict=True):
                weights[f"base_model.model.{name}.lora_{side}.weight"] = factor.contiguous().clone()
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=sorted(targets),
        base_model_name_or_path=base,
        revision=revision,
        inference_mode=True,
    )
    settings.save_pretrained(str(folder))
    save_file(weights, folder / WEIGHTS_FILE, {"format": "pt"})


@torch.no_grad()
def load_adapter(thinker: Any, folder: Path, settings: Mapping[str, Any], lora: Lora) -> None:
    """Fill the factors that `adapt` made with those of a folder that `save_adapter` wrote.

    Raises:
        CheckpointError: the file is damaged, or its factors are not those of these settings.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    remedy = "train with its settings, or merge it first: speaker-reasoner merge"
    if settings.get("r") != lora.rank or settings.get("lora_alpha") != lora.alpha:
        raise CheckpointError(
            f"{folder / SETTINGS_FILE}: rank {settings.get('r')}, alpha "
            f"{settings.get('lora_alpha')}, expected {lora.rank}, {lora.alpha:g}; {remedy}"
        )
    file = folder / WEIGHTS_FILE
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{file}: cannot be read: {reason}; is it complete?") from error
    filled: list[tuple[str, Tensor, Tensor]] = []
    for pair in _pairs(thinker):
        down, up = (getattr(pair.layer, f"lora_{side}")[_NAME].weight for side in "AB")
        for name, views in pair.split(down, up):
            for side, view in zip("AB", views, strict=True):
                key = f"base_model.model.{name}.lora_{side}.weight"
                given = weights.pop(key, None)
                if given is None or given.shape != view.shape:
                    got = "missing" if given is None else f"of shape {tuple(given.shape)}"
                    raise CheckpointError(f"{file}: {key} is {got}; {remedy}")
                view.copy_(given)
                filled.append((key, view, given))
    for key, view, given in filled:
        if not torch.equal(view, given.to(view.dtype)):
            raise CheckpointError(f"{file}: {key} differs from its expert's other factor; {remedy}")
    if weights:
        raise CheckpointError(f"{file}: {next(iter(weights))} is not adapted here; {remedy}")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A pair of factors as peft keeps it.

    Attributes:
        module: that it adapts, by its name in the thinker without adapters.
        path: of the layer that holds the factors, in the thinker with them.
        layer: that layer.
        experts: how many experts it adapts together; 0 for a plain projection.
        projections: of each expert.
    """

    module: str
    path: str
    layer: Any
    experts: int = 0
    projections: tuple[str, ...] = ()

    def split(self, down: Tensor, up: Tensor) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
        """Views of the factors, `[rank, in]` and `[out, rank]`, of each projection by its name."""
        if not self.experts:
            yield self.module, (down, up)
            return
        each = down.view(self.experts, -1, down.shape[1])  # [E, rank, in]
        rows = up.view(len(up), -1, self.experts)  # [out, rank, E]
        for expert in range(self.experts):
            parts = rows[:, :, expert].chunk(len(self.projections))
            for projection, part in zip(self.projections, parts, strict=True):
                yield f"{self.module}.{expert}.{projection}", (each[expert], part)


def _pairs(thinker: Any) -> Iterator[_Pair]:
    for path, layer in thinker.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        projections = _EXPERTS.get(getattr(layer, "parameter_name", ""))
        if projections is None:
            yield _Pair(path, path, layer)
        else:
            module = path.replace(".base_layer", "")
            yield _Pair(module, path, layer, layer.num_experts, projections)
