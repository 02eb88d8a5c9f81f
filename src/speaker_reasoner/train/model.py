"""What is trained: a thinker, and the auxiliary heads that teach it what each audio frame holds.

The heads are thrown away after training. They are read at two places: on the tower's embeddings
(which word, which gender, which voice), and in the middle of the text decoder at the audio
positions (which speaker number, what time), where the layers above can still read it off.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engines.thinker import embed, encode_audio, text_model
from .batches import IGNORED, Batch


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each loss; 0 leaves it out."""

    answer: float = 1.0
    word: float = 1.0
    gender: float = 0.3
    voice: float = 0.3
    speaker: float = 0.5
    time: float = 0.3


class Learner(nn.Module):
    """A thinker with its auxiliary heads.

    Args:
        thinker: one of the thinker classes, in float32.
        voices: how many voices the bank holds.
        speakers: largest speaker number in a dialogue.
        seconds: longest chunk in whole seconds.
        layer: text layer after which speaker and time are read.
    """

    def __init__(self, thinker: Any, voices: int, speakers: int, seconds: int, layer: int) -> None:
        super().__init__()
        self.thinker = thinker
        width = thinker.config.get_text_config().hidden_size
        self.audio_id = thinker.config.audio_token_id
        self.layer = layer
        self.word_scale = nn.Parameter(torch.tensor(2.5))
        self.gender = nn.Linear(width, 3)
        self.voice = nn.Sequential(nn.Linear(width, 96), nn.Tanh(), nn.Linear(96, voices))
        self.speaker = nn.Linear(width, speakers + 1)
        self.second = nn.Linear(width, seconds + 1)
        self.tenth = nn.Linear(width, 10)

    def forward(self, batch: Batch, weights: LossWeights) -> tuple[Tensor, dict[str, float]]:
        """The weighted loss of one batch, and each loss and accuracy for the log."""
        audio = torch.cat(encode_audio(self.thinker, batch.features, batch.feature_mask))  # [F, D]
        losses = self._tower_losses(audio, batch)
        if weights.answer or weights.speaker or weights.time:
            losses |= self._decoder_losses(audio, batch)
        total = torch.zeros((), device=audio.device)
        for name, (loss, _) in losses.items():
            total = total + float(getattr(weights, name)) * loss
        log = {}
        for name, (loss, accuracy) in losses.items():
            log[name] = float(loss.detach())
            log[f"{name}_accuracy"] = float(accuracy)
        return total, log

    def _tower_losses(self, audio: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        table = F.normalize(self.thinker.get_input_embeddings().weight.float(), dim=-1)  # [V, D]
        frames = audio.float()
        words = F.linear(F.normalize(frames, dim=-1), table) * self.word_scale.exp()
        return {
            "word": _cross_entropy(words, batch.word),
            "gender": _cross_entropy(self.gender(frames), batch.gender),
            "voice": _cross_entropy(self.voice(frames), batch.voice),
        }

    def _decoder_losses(self, audio: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        heard = batch.ids == self.audio_id  # [B, T]
        embedded = embed(self.thinker, batch.ids)
        embedded = embedded.masked_scatter(heard.unsqueeze(-1), audio.to(embedded.dtype))
        rows, length = batch.ids.shape
        positions = torch.arange(length, device=batch.ids.device).expand(3, rows, length)
        output = text_model(self.thinker)(
            inputs_embeds=embedded,
            attention_mask=batch.mask,
            position_ids=positions,
            use_cache=False,
            output_hidden_states=True,
        )
        taught = batch.labels[:, 1:] != IGNORED
        logits = self.thinker.lm_head(output.last_hidden_state[:, :-1][taught])  # [taught, V]
        frames = output.hidden_states[self.layer][heard].float()  # [F, D]
        second = _cross_entropy(self.second(frames), batch.second)
        tenth = _cross_entropy(self.tenth(frames), batch.tenth)
        return {
            "answer": _cross_entropy(logits, batch.labels[:, 1:][taught]),
            "speaker": _cross_entropy(self.speaker(frames), batch.speaker),
            "time": (second[0] + tenth[0], tenth[1]),
        }


def _cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    kept = target != IGNORED
    if not bool(kept.any()):
        return logits.sum() * 0.0, torch.zeros(())
    loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORED)
    return loss, (logits.argmax(-1)[kept] == target[kept]).float().mean()
