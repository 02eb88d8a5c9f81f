"""The trained module: a thinker and, for one from scratch, auxiliary heads with losses on audio frames.

The heads are discarded after training. They read the tower's embeddings (word, gender, and whether two
frames or two utterances are of one voice), and the text decoder's hidden states at the audio positions,
at a middle layer (speaker number, time), so that the layers above can use them. A pretrained thinker
needs no heads, and real corpora, which have no word times, could not train them.

Losses are sums, and `Learner.counts` gives their numbers of items, so that the mean can be taken over all
batches of a step and all processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engines.thinker import audio_tower, embed, encode_audio, text_model
from .batches import IGNORED, MOST_SPEAKERS, Frames, TrainingBatch
from .packing import row_bounds

VOICE_FRAMES = 500
"""About how many frames of a batch are compared with each other for the voice loss."""
LEAST_FRAMES = 4
"""Utterances of fewer audio tokens are not compared."""
PARTS = ("projector", "audio", "text")
"""Parts of a thinker that a stage may train: the tower's last projection, the rest of the tower, and the text
model with embeddings and head."""
_PROJECTORS = ("proj", "proj1", "proj2")
"""Names of the last projection in the towers of Qwen2.5-Omni and Qwen3-Omni."""


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Weight of each loss; 0 leaves it out. All but `answer` need the labels of frames."""

    answer: float = 1.0
    word: float = 0.0
    gender: float = 0.0
    voice: float = 0.0
    utterance: float = 0.0
    speaker: float = 0.0
    time: float = 0.0

    @property
    def frames(self) -> bool:
        """Return whether any loss is read off audio frames."""
        tower = self.word or self.gender or self.voice or self.utterance
        return bool(tower or self.speaker or self.time)

    @property
    def decoder(self) -> bool:
        """Return whether any loss needs the text decoder."""
        return bool(self.answer or self.speaker or self.time)


class Heads(nn.Module):
    """Heads over audio frames.

    Args:
        width: of the thinker's embeddings.
        speakers: largest speaker number in a dialogue.
        seconds: longest chunk in whole seconds.
        layer: text layer after which speaker and time are read.
        words: the token ids that label frames, in ascending order, if not all of the vocabulary may.
        scale: logarithm of the factor of cosines in the word loss, at first.
    """

    def __init__(
        self,
        width: int,
        speakers: int,
        seconds: int,
        layer: int,
        words: Tensor | None = None,
        scale: float = 2.5,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.words: Tensor | None
        self.register_buffer("words", words, persistent=False)
        self.word_scale = nn.Parameter(torch.tensor(scale))
        self.gender = nn.Linear(width, 3)
        self.voice = nn.Linear(width, 64)
        self.voice_slope = nn.Parameter(torch.tensor(1.6))
        self.voice_offset = nn.Parameter(torch.tensor(-2.0))
        self.speaker = nn.Linear(width, speakers + 1)
        self.second = nn.Linear(width, seconds + 1)
        self.tenth = nn.Linear(width, 10)

    def tower_losses(self, audio: Tensor, table: Tensor, frames: Frames) -> dict[str, Tensor]:
        """Losses on the tower's embeddings `[F, D]`, given those of the tokens `[V, D]`."""
        states, word = audio.float(), frames.word
        if self.words is not None:
            table, word = table[self.words], torch.searchsorted(self.words, word)
        table = F.normalize(table.float(), dim=-1)
        words = F.linear(F.normalize(states, dim=-1), table) * self.word_scale.exp()
        return {
            "word": _cross_entropy(words, word),
            "gender": _cross_entropy(self.gender(states), frames.gender),
            "voice": self.same_frames(states, frames.voice),
            "utterance": self.same_utterances(states, frames.voice, frames.utterance),
        }

    def decoder_losses(self, states: Tensor, frames: Frames) -> dict[str, Tensor]:
        """Losses on the decoder's states at the audio positions, `[F, D]`."""
        states = states.float()
        second = _cross_entropy(self.second(states), frames.second)
        tenth = _cross_entropy(self.tenth(states), frames.tenth)
        return {
            "speaker": _cross_entropy(self.speaker(states), frames.speaker),
            "time": torch.stack([second[0] + tenth[0], tenth[1]]),
        }

    def same_frames(self, frames: Tensor, voice: Tensor) -> Tensor:
        """Loss and accuracy of whether two frames are of one speaker, by the cosine of their voice embeddings."""
        spoken = torch.nonzero(voice != IGNORED).squeeze(1)
        if len(spoken) < 2:
            return _nothing(frames)
        kept = spoken[:: max(1, len(spoken) // VOICE_FRAMES)]
        return self._same_voice(self._points(frames[kept]), voice[kept])

    def same_utterances(self, frames: Tensor, voice: Tensor, utterance: Tensor) -> Tensor:
        """The same of whole utterances, by the mean of their frames' embeddings, which is what a voice head
        compares."""
        spoken = utterance != IGNORED
        numbers, counts = torch.unique(utterance[spoken], return_counts=True)
        long_enough = numbers[counts >= LEAST_FRAMES]
        if len(long_enough) < 2:
            return _nothing(frames)
        member = (utterance.unsqueeze(0) == long_enough.unsqueeze(1)).float()  # [U, F]
        person = voice[member.argmax(1)]
        points = F.normalize(member @ self._points(frames), dim=-1)
        return self._same_voice(points, person)

    def _points(self, frames: Tensor) -> Tensor:
        return F.normalize(self.voice(frames).float(), dim=-1)

    def _same_voice(self, points: Tensor, person: Tensor) -> Tensor:
        """Loss and accuracy of whether two embeddings of length 1 are of one speaker.

        Pairs of one speaker weigh one half, pairs of two speakers one quarter within a meeting and one
        quarter between meetings, because a dialogue must separate the speakers of one meeting.

        Returns:
            The logistic loss over pairs, and the mean share of the three kinds judged right: `[2]`.
        """
        logits = points @ points.T * self.voice_slope.exp() + self.voice_offset
        same = person.unsqueeze(0) == person.unsqueeze(1)
        meeting = person // MOST_SPEAKERS
        meet = meeting.unsqueeze(0) == meeting.unsqueeze(1)
        loss, rights = points.sum() * 0.0, []
        for pairs, weight in ((same, 0.5), (meet & ~same, 0.25), (~meet, 0.25)):
            if bool(pairs.any()):
                judged, target = logits[pairs], same[pairs]
                loss = loss + weight * F.binary_cross_entropy_with_logits(judged, target.float())
                rights.append(((judged > 0) == target).float().mean())
        return torch.stack([loss, torch.stack(rights).mean()])


class Learner(nn.Module):
    """A thinker with its auxiliary heads.

    Args:
        thinker: one of the thinker classes.
        heads: over audio frames; `None` for the loss on answers alone.

    Attributes:
        resting: names of parameters that take no gradient in this stage, but in others.
    """

    def __init__(self, thinker: Any, heads: Heads | None = None) -> None:
        super().__init__()
        self.thinker = thinker
        self.heads = heads
        self.audio_id = int(thinker.config.audio_token_id)
        self.resting: set[str] = set()

    def train_parts(self, parts: Sequence[str]) -> None:
        """Let some of `PARTS` learn, or, with none named, all that the run trains; heads always do."""
        trained = dict(self.named_parameters())
        for name in self.resting:
            trained[name].requires_grad_(True)
        self.resting = {
            name
            for name, parameter in trained.items()
            if parts
            and name.startswith("thinker.")
            and parameter.requires_grad
            and _part(name) not in parts
        }
        for name in self.resting:
            trained[name].requires_grad_(False)

    def counts(self, batch: TrainingBatch, weights: LossWeights) -> dict[str, int]:
        """The number of items that each loss of the batch sums over: tokens, frames, or 1 for the batch."""
        counts: dict[str, int] = {}
        frames = batch.frames if self.heads is not None else None
        if frames is not None:
            everywhere = len(frames.word)
            counts = {"word": everywhere, "gender": everywhere, "voice": 1, "utterance": 1}
        if weights.decoder:
            counts["answer"] = int((batch.following() != IGNORED).sum())
            if frames is not None:
                counts["speaker"] = len(frames.speaker)
                counts["time"] = int((frames.second != IGNORED).sum())
        return counts

    def forward(self, batch: TrainingBatch, weights: LossWeights) -> dict[str, Tensor]:
        """Each loss of one batch: its sum, and the number of items that were right, `[2]` float32.

        Args:
            weights: losses of weight 0 that need the text decoder are not computed.
        """
        tower = audio_tower(self.thinker)
        first = tower.conv2d1 if hasattr(tower, "conv2d1") else tower.conv1
        features = batch.features.to(first.weight.dtype)
        audio = torch.cat(encode_audio(self.thinker, features, batch.feature_mask))  # [F, D]
        losses: dict[str, Tensor] = {}
        frames = batch.frames if self.heads is not None else None
        if self.heads is not None and frames is not None:
            table = self.thinker.get_input_embeddings().weight
            losses = self.heads.tower_losses(audio, table, frames)
        if weights.decoder:
            is_audio = batch.ids == self.audio_id  # [T]
            states, answer = self._decode(batch, audio, is_audio)
            losses["answer"] = answer
            if self.heads is not None and frames is not None:
                losses |= self.heads.decoder_losses(states[self.heads.layer][is_audio], frames)
        return losses

    def _decode(self, batch: TrainingBatch, audio: Tensor, is_audio: Tensor) -> tuple[Any, Tensor]:
        """States after each layer (where heads read them), and the loss on taught tokens."""
        text = text_model(self.thinker)
        embedded = embed(self.thinker, batch.ids)
        embedded = embedded.masked_scatter(is_audio.unsqueeze(-1), audio.to(embedded.dtype))
        positions = torch.cat([torch.arange(int(length)) for length in batch.lengths])
        output = text(
            inputs_embeds=embedded.unsqueeze(0),
            attention_mask=None,
            position_ids=positions.to(batch.ids.device).expand(3, 1, -1),
            use_cache=False,
            output_hidden_states=self.heads is not None,
            **row_bounds(text, batch.lengths, batch.ids.device),
        )
        states = [layer[0] for layer in output.hidden_states or ()]
        following = batch.following()
        taught = following != IGNORED
        logits = self.thinker.lm_head(output.last_hidden_state[0][taught])  # [taught, V]
        return states, _cross_entropy(logits, following[taught])


def _part(name: str) -> str:
    """Return the one of `PARTS` that a thinker's parameter belongs to."""
    _, inside, rest = name.partition("audio_tower.")
    if not inside:
        return "text"
    return "projector" if rest.partition(".")[0] in _PROJECTORS else "audio"


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Sum of the loss over targets that are not ignored, and how many of them are right: `[2]`."""
    kept = target != IGNORED
    if not bool(kept.any()):
        return _nothing(logits)
    loss = F.cross_entropy(logits.float(), target, ignore_index=IGNORED, reduction="sum")
    return torch.stack([loss, (logits.argmax(-1)[kept] == target[kept]).float().sum()])


def _nothing(inputs: Tensor) -> Tensor:
    """A loss of 0 that hangs on its inputs, so that every process has the same graph."""
    zero = inputs.float().sum() * 0.0
    return torch.stack([zero, zero.detach()])
