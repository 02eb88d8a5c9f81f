"""A voice in a few numbers, from a checkpoint's own audio tower.

The head reads what every layer of the tower holds (the lower ones still know pitch and timbre, which
the last one gives up for words), pools it over a clip, and gives a point on a sphere. It is trained
on the finished tower and saved beside the checkpoint as `voice.safetensors`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from .thinker import audio_tokens, audio_tower, encode_audio

VOICE_FILE = "voice.safetensors"


class VoiceHead(nn.Module):
    """Clips' frames to points of length 1.

    In log-odds, two clips are one voice's by `exp(slope) * (cos - threshold * (1 - exp(-T / settle_s)))`,
    T being the seconds of speech in the shorter one: points of short clips lie farther from each other.
    Of clips from two recordings, `elsewhere` is the threshold: another room makes another point.

    Args:
        width: of the tower's layers taken together.
        hidden: of the pooled features.
        size: of a point.
    """

    def __init__(self, width: int, hidden: int = 160, size: int = 64) -> None:
        super().__init__()
        self.frames = nn.Linear(width, hidden)
        self.point = nn.Linear(2 * hidden, size)
        self.slope = nn.Parameter(torch.tensor(2.0))
        self.threshold = nn.Parameter(torch.tensor(0.4))
        self.elsewhere = nn.Parameter(torch.tensor(0.4))
        self.settle = nn.Parameter(torch.tensor(-1.0))

    def forward(self, clips: Sequence[Tensor]) -> Tensor:
        """Points `[N, size]` of clips `[tokens, width]`: mean and deviation over time, projected."""
        pooled = []
        for frames in torch.split(
            F.relu(self.frames(torch.cat(list(clips)))), [len(c) for c in clips]
        ):
            deviation = (frames.var(0, unbiased=False) + 1e-5).sqrt()
            pooled.append(torch.cat([frames.mean(0), deviation]))
        return F.normalize(self.point(torch.stack(pooled)), dim=-1)

    @property
    def settle_s(self) -> Tensor:
        return self.settle.exp()

    def odds(self, cosines: Tensor, seconds: Tensor, *, elsewhere: bool = False) -> Tensor:
        """Log-odds of cosines between clips.

        Args:
            seconds: of speech in the shorter clip of each pair.
            elsewhere: whether the two are from different recordings.
        """
        settled = 1 - torch.exp(-seconds / self.settle_s)
        threshold = self.elsewhere if elsewhere else self.threshold
        return (cosines - threshold * settled) * self.slope.exp()

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        state = {
            name: value.detach().float().contiguous() for name, value in self.state_dict().items()
        }
        save_file(state, folder / VOICE_FILE)


def load_voice_head(folder: Path) -> VoiceHead | None:
    """The voice head of a checkpoint; `None` where it has none.

    Raises:
        CheckpointError: the file is damaged.
    """
    from safetensors.torch import load_file

    path = folder / VOICE_FILE
    if not path.exists():
        return None
    try:
        state = load_file(path)
        hidden, width = state["frames.weight"].shape
        head = VoiceHead(width, hidden, state["point.weight"].shape[0])
        head.load_state_dict(state)
    except Exception as error:  # safetensors raises its own, torch RuntimeError, a dict KeyError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path}: not a voice head: {reason}; copy it again") from error
    return head.eval().requires_grad_(False)


def tower_layers(thinker: Any, features: Tensor, mask: Tensor) -> list[Tensor]:
    """What all layers of the tower hold of each clip, side by side: `[tokens, layers * D]`."""
    held: list[Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        held.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for layer in audio_tower(thinker).layers:
            stack.callback(layer.register_forward_hook(keep).remove)
        encode_audio(thinker, features, mask)
    rows = torch.cat([F.layer_norm(h, h.shape[-1:]) for h in held], dim=-1).float()
    return list(torch.split(rows, audio_tokens(thinker, mask.sum(-1))))
