"""What is trained: a thinker, and the auxiliary heads that teach it what each audio frame holds.

The heads are thrown away after training. They are read at two places: on the tower's embeddings
(which word, which gender, whether two frames are one voice), and in the middle of the text decoder at the audio
positions (which speaker number, what time), where the layers above can still read it off.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engines.thinker import embed, encode_audio, text_model
from .batches import IGNORED, MOST_SPEAKERS, Batch

VOICE_FRAMES = 500
"""About how many frames of a batch are compared with each other for the voice loss."""
LEAST_FRAMES = 4
"""Utterances of fewer audio tokens are not compared."""


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each loss; 0 leaves it out."""

    answer: float = 1.0
    word: float = 1.0
    gender: float = 0.3
    voice: float = 0.3
    utterance: float = 0.3
    speaker: float = 0.5
    time: float = 0.3


class Learner(nn.Module):
    """A thinker with its auxiliary heads.

    Args:
        thinker: one of the thinker classes, in float32.
        speakers: largest speaker number in a dialogue.
        seconds: longest chunk in whole seconds.
        layer: text layer after which speaker and time are read.
    """

    def __init__(self, thinker: Any, speakers: int, seconds: int, layer: int) -> None:
        super().__init__()
        self.thinker = thinker
        width = thinker.config.get_text_config().hidden_size
        self.audio_id = thinker.config.audio_token_id
        self.layer = layer
        self.word_scale = nn.Parameter(torch.tensor(2.5))
        self.gender = nn.Linear(width, 3)
        self.voice = nn.Linear(width, 64)
        self.voice_slope = nn.Parameter(torch.tensor(1.6))
        self.voice_offset = nn.Parameter(torch.tensor(-2.0))
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
            "voice": self._same_frames(frames, batch.voice),
            "utterance": self._same_utterances(frames, batch.voice, batch.utterance),
        }

    def _same_frames(self, frames: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        """Whether two frames are of one person, judged by the cosine of their voice points."""
        spoken = torch.nonzero(voice != IGNORED).squeeze(1)
        if len(spoken) < 2:
            return frames.sum() * 0.0, torch.zeros(())
        kept = spoken[:: max(1, len(spoken) // VOICE_FRAMES)]
        return self._same_voice(self._points(frames[kept]), voice[kept])

    def _same_utterances(
        self, frames: Tensor, voice: Tensor, utterance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same of whole utterances: the mean of their frames' points, which is what a witness
        compares (see `witness`)."""
        spoken = utterance != IGNORED
        numbers, counts = torch.unique(utterance[spoken], return_counts=True)
        long_enough = numbers[counts >= LEAST_FRAMES]
        if len(long_enough) < 2:
            return frames.sum() * 0.0, torch.zeros(())
        member = (utterance.unsqueeze(0) == long_enough.unsqueeze(1)).float()  # [U, F]
        person = voice[member.argmax(1)]
        points = F.normalize(member @ self._points(frames), dim=-1)
        return self._same_voice(points, person)

    def _points(self, frames: Tensor) -> Tensor:
        return F.normalize(self.voice(frames).float(), dim=-1)

    def _same_voice(self, points: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
        """Whether two points of length 1 are of one person.

        Pairs of one person weigh one half, pairs of two people one quarter where they meet and one
        quarter where they do not: like voices in one meeting are what a dialogue must tell apart.

        Returns:
            The logistic loss over pairs, and the mean share of the three kinds judged right.
        """
        logits = points @ points.T * self.voice_slope.exp() + self.voice_offset
        same = person.unsqueeze(0) == person.unsqueeze(1)
        meeting = person // MOST_SPEAKERS
        meet = meeting.unsqueeze(0) == meeting.unsqueeze(1)
        loss, right, kinds = points.sum() * 0.0, torch.zeros(()), 0
        for pairs, weight in ((same, 0.5), (meet & ~same, 0.25), (~meet, 0.25)):
            if bool(pairs.any()):
                judged, target = logits[pairs], same[pairs]
                loss = loss + weight * F.binary_cross_entropy_with_logits(judged, target.float())
                right = right + ((judged > 0) == target).float().mean()
                kinds += 1
        return loss, right / kinds

    def _decoder_losses(self, audio: Tensor, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        heard = batch.ids == self.audio_id  # [B, T]
        embedded = embed(self.thinker, batch.ids)
        embedded = embedded.masked_scatter(heard.unsqueeze(-1), audio.to(embedded.dtype))
        rows, length = batch.ids.shape
        positions = torch.arange(length, device=batch.ids.device).expand(3, rows, length)
        output = text_model(self.thinker)(
            inputs_embeds=embedded,
            attention_mask=None,  # rows are padded right: the causal mask alone keeps them apart
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
