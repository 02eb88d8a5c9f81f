"""A voice in a few numbers, from a checkpoint's own audio tower.

The head reads what every layer of the tower holds and what the first one is given (the lower ones
still know timbre, which the last one gives up for words), pools it over a clip, adds how often each
pitch is heard in it, and gives a point on a sphere. It is trained on the finished tower and saved
beside the checkpoint as `voice.safetensors`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from ..witness import log_odds
from .pitch import PITCHES
from .thinker import audio_tokens, audio_tower, encode_audio

VOICE_FILE = "voice.safetensors"


class VoiceHead(nn.Module):
    """Clips' frames and pitches to points of length 1.

    Its `threshold`, `elsewhere`, scale (`exp(slope)`) and `settle_s` are those of a
    `speaker_reasoner.witness.Witness`: points of short clips lie farther from each other, and another
    room makes another point. `spread` and `noise` are its `Scatter`, 0 where nobody measured them.

    Args:
        width: of the tower's layers taken together.
        hidden: of the pooled features.
        size: of a point.
    """

    def __init__(self, width: int, hidden: int = 160, size: int = 64) -> None:
        super().__init__()
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
        """Points `[N, size]` of clips `[tokens, width]`: mean and deviation over time and melodies
        `[N, PITCHES]` (see `engines.pitch`), projected."""
        pooled = []
        for frames in torch.split(
            F.relu(self.frames(torch.cat(list(clips)))), [len(c) for c in clips]
        ):
            deviation = (frames.var(0, unbiased=False) + 1e-5).sqrt()
            pooled.append(torch.cat([frames.mean(0), deviation]))
        known = torch.cat([torch.stack(pooled), self.melody * melodies], dim=-1)
        return F.normalize(self.point(known), dim=-1)

    @property
    def settle_s(self) -> Tensor:
        return self.settle.exp()

    def odds(
        self, cosines: Tensor, seconds: Tensor, others: Tensor, *, elsewhere: bool = False
    ) -> Tensor:
        """Log-odds of cosines between voices, by the seconds of speech behind either.

        Args:
            elsewhere: whether the two are from different recordings.
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


def tower_width(thinker: Any) -> int:
    """How many numbers `tower_layers` gives for each token."""
    tower = audio_tower(thinker)
    return (1 + len(tower.layers)) * int(tower.config.d_model)


def tower_layers(thinker: Any, features: Tensor, mask: Tensor) -> list[Tensor]:
    """What the tower's first layer is given and what all of them hold of each clip, side by side:
    `[tokens, (1 + layers) * D]`."""
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
    return list(torch.split(rows, audio_tokens(thinker, mask.sum(-1))))
