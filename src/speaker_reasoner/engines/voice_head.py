"""The voice head: speaker embeddings from a checkpoint's audio tower, or from a copy trained for voices.

The head reads the input of the tower's first layer and the outputs of all layers (lower layers keep
timbre, which the last one discards for words), pools them over a clip, adds a histogram of the clip's
pitch, and returns an embedding of length 1. It is trained after the checkpoint and saved beside it as
`voice.safetensors`, with the copy of the tower if it has one.
"""

import copy
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..voices.witness import log_odds
from .pitch import PITCHES
from .thinker import audio_tokens, audio_tower, encode_audio

VOICE_FILE = "voice.safetensors"

_TOWER, _STEP = "tower.", ".step"
_LAYER = re.compile(r"tower\.layers\.(\d+)\.")


class VoiceHead(nn.Module):
    """Maps a clip's frames and pitch histogram to an embedding of length 1.

    `threshold`, `elsewhere`, scale (`exp(slope)`) and `settle_s` are the calibration of a
    `voices.witness.Witness`; `spread` and `noise` are its `Scatter`, 0 if they were not measured. They are
    saved with the weights.

    Args:
        width: sum of the widths of the tower's layers.
        hidden: width of the pooled features.
        size: dimensions of an embedding.
        tower: the head's own tower, which is trained with it; by default it reads the checkpoint's.
    """

    def __init__(
        self, width: int, hidden: int = 160, size: int = 64, tower: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.tower = tower
        self.frames = nn.Linear(width, hidden)
        self.point = nn.Linear(2 * hidden + PITCHES, size)
        self.melody = nn.Parameter(torch.tensor(2.0))
        self.slope = nn.Parameter(torch.tensor(2.0))
        self.threshold = nn.Parameter(torch.tensor(0.4))
        self.elsewhere = nn.Parameter(torch.tensor(0.4))
        self.settle = nn.Parameter(torch.tensor(-1.0))
        self.spread: Tensor
        self.noise: Tensor
        self.register_buffer("spread", torch.tensor(0.0))
        self.register_buffer("noise", torch.tensor(0.0))

    def forward(self, clips: Sequence[Tensor], melodies: Tensor) -> Tensor:
        """Embeddings `[N, size]` of clips `[tokens, width]`: mean and deviation over time and melodies
        `[N, PITCHES]` (see `engines.pitch`), projected."""
        pooled = []
        for frames in torch.split(
            F.relu(self.frames(torch.cat(list(clips)))), [len(c) for c in clips]
        ):
            deviation = (frames.var(0, unbiased=False) + 1e-5).sqrt()
            pooled.append(torch.cat([frames.mean(0), deviation]))
        known = torch.cat([torch.stack(pooled), self.melody * melodies], dim=-1)
        return F.normalize(self.point(known), dim=-1)

    def hearing(self, thinker: Any) -> Any:
        """The thinker with the head's tower, if the head has one; else the thinker."""
        return thinker if self.tower is None else _with_tower(thinker, self.tower)

    @property
    def settle_s(self) -> Tensor:
        return self.settle.exp()

    def odds(
        self, cosines: Tensor, seconds: Tensor, others: Tensor, *, elsewhere: bool = False
    ) -> Tensor:
        """Log-odds of cosines between embeddings, by the seconds of speech of both.

        Args:
            elsewhere: whether both are from different recordings.
        """
        threshold = self.elsewhere if elsewhere else self.threshold
        odds: Tensor = log_odds(
            cosines,
            seconds,
            others,
            threshold=threshold,
            scale=self.slope.exp(),
            settle_s=self.settle_s,
        )
        return odds

    def save(self, folder: Path) -> None:
        """The weights to save; matrices of the head's tower are quantised to eight bits, with a loss of about 1 %."""
        from safetensors.torch import save_file

        state = {}
        for name, value in self.state_dict().items():
            state[name] = value.detach().float().contiguous()
            if name.startswith(_TOWER) and value.ndim > 1:
                state[name], state[name + _STEP] = _packed(state[name])
        save_file(state, folder / VOICE_FILE)


def _packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a matrix `[rows, ...]` to eight bits; also returns the step size of each row."""
    rows = weight.flatten(1)
    steps = (rows.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (rows / steps.unsqueeze(1)).round().to(torch.int8).view_as(weight), steps


def _unpacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    steps = {name: value for name, value in state.items() if name.endswith(_STEP)}
    whole = {name: value for name, value in state.items() if name not in steps}
    for name, step in steps.items():
        name = name.removesuffix(_STEP)
        packed = whole[name]
        whole[name] = (packed.flatten(1) * step.unsqueeze(1)).view_as(packed)
    return whole


def load_voice_head(folder: Path, thinker: Any) -> VoiceHead | None:
    """The voice head of a checkpoint; `None` where it has none.

    Args:
        thinker: of the checkpoint; a tower of the head's own is in its precision, on its device.

    Raises:
        CheckpointError: the file is damaged.
    """
    from safetensors.torch import load_file

    path = folder / VOICE_FILE
    if not path.exists():
        return None
    try:
        state = _unpacked(load_file(path))
        hidden, width = state["frames.weight"].shape
        layers = [int(m[1]) for name in state if (m := _LAYER.match(name))]
        tower = _first_layers(thinker, 1 + max(layers)) if layers else None
        head = VoiceHead(width, hidden, state["point.weight"].shape[0], tower)
        head.load_state_dict(state)
    except Exception as error:  # safetensors raises its own, torch RuntimeError, a dict KeyError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path}: not a voice head: {reason}; copy it again") from error
    return head.eval().requires_grad_(False)


def new_head(thinker: Any, layers: int = 0) -> VoiceHead:
    """An untrained head for a thinker, with its own tower of `layers` layers; 0 for none."""
    if not layers:
        return VoiceHead(tower_width(thinker))
    tower = _first_layers(thinker, layers).requires_grad_(True)
    return VoiceHead(tower_width(_with_tower(thinker, tower)), tower=tower)


def _first_layers(thinker: Any, layers: int) -> Any:
    """A copy of the audio tower's first layers."""
    tower = copy.deepcopy(audio_tower(thinker))
    tower.layers = tower.layers[:layers]
    return tower


def _with_tower(thinker: Any, tower: nn.Module) -> Any:
    """A view of the thinker with another tower; the thinker is not changed."""
    other = copy.copy(thinker)
    other._modules = dict(thinker._modules)
    if "audio_tower" in other._modules:
        other.audio_tower = tower
    else:
        other.model = _with_tower(thinker.model, tower)
    return other


def tower_width(thinker: Any) -> int:
    """Width of the output of `tower_layers`."""
    tower = audio_tower(thinker)
    return (1 + len(tower.layers)) * int(tower.config.d_model)


def tower_layers(thinker: Any, features: Tensor, mask: Tensor) -> list[Tensor]:
    """The input of the tower's first layer and the outputs of all layers, concatenated, for each clip:
    `[frames, (1 + layers) * D]`, before a tower of Qwen2.5-Omni's makes one token of two."""
    held: list[Tensor] = []

    def given(module: Any, inputs: Any, named: Any) -> None:
        held.append(inputs[0] if inputs else named["hidden_states"])

    def keep(module: Any, inputs: Any, output: Any) -> None:
        held.append(output[0] if isinstance(output, tuple) else output)

    layers = audio_tower(thinker).layers
    with ExitStack() as stack:
        first = layers[0].register_forward_pre_hook(given, with_kwargs=True)
        stack.callback(first.remove)
        for layer in layers:
            stack.callback(layer.register_forward_hook(keep).remove)
        encode_audio(thinker, features, mask)
    rows = torch.cat([F.layer_norm(h, h.shape[-1:]) for h in held], dim=-1).float()
    counts = audio_tokens(thinker, mask.sum(-1), pooled=False)
    return list(torch.split(rows, counts))
