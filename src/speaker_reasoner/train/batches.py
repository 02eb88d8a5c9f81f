"""Training batches from examples: token ids, labels, log-mel features, labels of audio frames.

A batch is built from the traces alone, by the same `pieces` that inference uses, so that the loss
mask is exactly the assistant's tokens. Frame labels come from the synthesisers' word times.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio import SAMPLE_RATE_HZ, Samples
from ..data.simulate import MixedUtterance
from ..engines.thinker import (
    HOP_SAMPLES,
    SHORTEST_SAMPLES,
    MarkedTokenizer,
    log_mel,
    slice_tokens,
    token_centres,
)
from ..protocol import Audio, Trace, pieces

IGNORED = -100
MOST_SPEAKERS = 64
"""Offset between the person numbers of two examples in a batch."""
ENROLLED_RATE = 0.3
"""Share of caches with another microphone than the chunk's, as for enrolled speakers."""


@dataclass(slots=True)
class Frames:
    """Labels of a batch's F audio tokens.

    Attributes:
        word: `[F]` token of the word spoken, by equal parts of its time if it has several; the
            placeholder token in silence.
        gender: `[F]` 0 nobody, 1 female, 2 male.
        voice: `[F]` number of the person within the batch, -100 in silence.
        utterance: `[F]` number of the utterance within the batch, -100 in silence.
        speaker: `[F]` 0 nobody, else the speaker's number in the dialogue.
        second, tenth: `[F]` time in the chunk: whole second, tenth of it; -100 in the speaker cache.
    """

    word: Tensor
    gender: Tensor
    voice: Tensor
    utterance: Tensor
    speaker: Tensor
    second: Tensor
    tenth: Tensor


@dataclass(slots=True)
class TrainingBatch:
    """Tensors of one batch: B dialogues of T tokens in all, one after the other; their N clips (whole chunks and
    slices of them) hold F audio tokens.

    Attributes:
        ids: `[T]`; audio placeholders stand for the clips in order.
        labels: `[T]`, -100 where there is no loss.
        lengths: tokens of each dialogue, `[B]`, on the CPU wherever the batch is.
        features, feature_mask: log-mel `[N, mels, frames]` and `[N, frames]`.
        frames: labels of the audio tokens; `None` where word times are not known.
        audio_s: seconds of all clips.
    """

    ids: Tensor
    labels: Tensor
    lengths: Tensor
    features: Tensor
    feature_mask: Tensor
    frames: Frames | None
    audio_s: float

    def to(self, device: torch.device) -> "TrainingBatch":
        frames = self.frames
        if frames is not None:
            frames = Frames(*(getattr(frames, name).to(device) for name in Frames.__slots__))
        return TrainingBatch(
            self.ids.to(device),
            self.labels.to(device),
            self.lengths,
            self.features.to(device),
            self.feature_mask.to(device),
            frames,
            self.audio_s,
        )

    def following(self) -> Tensor:
        """The label of the next token in the same dialogue, `[T]`; -100 for a dialogue's last token."""
        following = self.labels.roll(-1)
        following[self.lengths.cumsum(0) - 1] = IGNORED
        return following


@dataclass(frozen=True, slots=True)
class Clip:
    """The source of a trace's audio parts: a chunk, or an entry of its speaker cache.

    Attributes:
        samples: float32 `[n]` at 16 kHz.
        spoken: utterances with their word times, numbered as in the dialogue; `None` where word
            times are not known.
    """

    samples: Samples
    spoken: tuple[MixedUtterance, ...] | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A dialogue and its clips: the chunk, then the entries of the cache."""

    trace: Trace
    clips: tuple[Clip, ...]


class Batcher:
    """Builds batches for one thinker, with its tokenizer and feature extractor."""

    def __init__(self, thinker: Any, tokenizer: Any, extractor: Any) -> None:
        self.thinker = thinker
        self.tokenizer = MarkedTokenizer(tokenizer)
        self.extractor = extractor
        self.end_id: int = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.audio_id = int(thinker.config.audio_token_id)
        self._words: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}

    def word_ids(self, word: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The tokens of a word, which label its frames: each an equal part of its time."""
        if word not in self._words:
            ids = self.tokenizer.encode(" " + word, add_special_tokens=False)
            self._words[word] = np.array(ids, dtype=np.int64)
        return self._words[word]

    def tokens(self, trace: Trace) -> int:
        """Length of a dialogue in tokens, those of its audio included."""
        samples = [part.end_samples - part.start_samples for part in trace.audio]
        written = pieces(trace.parts, self.tokenizer, self.end_id)
        return sum(slice_tokens(self.thinker, samples)) + sum(len(piece.ids) for piece in written)

    def batch(
        self, examples: Sequence[Example], rng: random.Random, *, augment: bool
    ) -> TrainingBatch:
        """Tensors for teacher forcing.

        Args:
            examples: dialogues with their clips.
            rng: source of the augmentation.
            augment: another microphone for each example, and for some of their caches; bands of mel
                bins masked.
        """
        parts = [
            (n, example, part) for n, example in enumerate(examples) for part in example.trace.audio
        ]
        clips = [
            example.clips[part.clip].samples[part.start_samples : part.end_samples]
            for _, example, part in parts
        ]
        features, feature_mask = log_mel(self.extractor, clips)
        if augment:
            elsewhere = [rng.random() < ENROLLED_RATE for _ in examples]
            microphones = [-1 - n if part.clip and elsewhere[n] else n for n, _, part in parts]
            equalise(features, microphones, rng)
            _mask_bands(features, rng)
        counts = iter(slice_tokens(self.thinker, [len(clip) for clip in clips]))
        ids: list[int] = []
        labels: list[int] = []
        lengths: list[int] = []
        for example in examples:
            begin = len(ids)
            for piece in pieces(example.trace.parts, self.tokenizer, self.end_id):
                tokens = list(piece.ids) if piece.audio is None else [self.audio_id] * next(counts)
                ids += tokens
                labels += tokens if piece.learned else [IGNORED] * len(tokens)
            lengths.append(len(ids) - begin)
        known = all(clip.spoken is not None for example in examples for clip in example.clips)
        return TrainingBatch(
            ids=torch.tensor(ids),
            labels=torch.tensor(labels),
            lengths=torch.tensor(lengths),
            features=features,
            feature_mask=feature_mask,
            frames=self._all_frames(examples) if known else None,
            audio_s=sum(len(clip) for clip in clips) / SAMPLE_RATE_HZ,
        )

    def _all_frames(self, examples: Sequence[Example]) -> Frames:
        utterances = count()
        rows = [
            self._frames(example.clips[part.clip], part, number * MOST_SPEAKERS, utterances)
            for number, example in enumerate(examples)
            for part in example.trace.audio
        ]
        return Frames(*torch.from_numpy(np.concatenate(rows).T.copy()))

    def _frames(
        self, clip: Clip, part: Audio, first_voice: int, utterances: Iterator[int]
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Labels of an audio part's tokens, `[tokens, 7]`.

        The columns: word, gender, voice, utterance, speaker, second, tenth.
        """
        length = max(part.end_samples - part.start_samples, SHORTEST_SAMPLES)
        times = part.start_samples + token_centres(self.thinker, length // HOP_SAMPLES)
        rows = np.zeros((len(times), 7), dtype=np.int64)
        rows[:, 0] = self.audio_id
        rows[:, 2:4] = IGNORED
        for spoken in clip.spoken or ():
            utterance = next(utterances)
            for word in spoken.words:
                inside = (times >= word.start_samples) & (times < word.end_samples)
                inside &= times < part.end_samples
                if inside.any():
                    gender = 1 if spoken.gender == "female" else 2
                    ids = self.word_ids(word.text)
                    since = times[inside] - word.start_samples
                    rows[inside, 0] = ids[
                        since * len(ids) // (word.end_samples - word.start_samples)
                    ]
                    rows[inside, 1:5] = (
                        gender,
                        first_voice + spoken.speaker,
                        utterance,
                        spoken.speaker,
                    )
        rows[:, 5] = IGNORED if part.clip else times // SAMPLE_RATE_HZ
        rows[:, 6] = IGNORED if part.clip else times % SAMPLE_RATE_HZ * 10 // SAMPLE_RATE_HZ
        return rows


def equalise(features: Tensor, microphones: Sequence[int], rng: random.Random) -> None:
    """Simulate a microphone for each number: a smooth gain over the mel bins, within 14.4 dB.

    Args:
        features: `[N, mels, frames]`; 10 dB are 0.25 in Whisper's scale.
        microphones: which microphone recorded each clip.
    """
    across = torch.linspace(0.0, torch.pi, features.shape[1])
    gains: dict[int, Tensor] = {}
    for clip, number in zip(features, microphones, strict=True):
        if number not in gains:
            waves = [rng.uniform(-0.12, 0.12) * torch.cos(k * across) for k in (1, 2, 3)]
            gains[number] = torch.stack(waves).sum(0).unsqueeze(1)
        clip += gains[number]


def _mask_bands(features: Tensor, rng: random.Random) -> None:
    """SpecAugment: two bands of mel bins of each clip are silenced."""
    mels = features.shape[1]
    for clip in features:
        for _ in range(2):
            width = rng.randint(0, 12)
            first = rng.randint(0, mels - width)
            clip[first : first + width] = 0.0
