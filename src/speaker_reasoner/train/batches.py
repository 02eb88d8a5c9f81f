"""Examples to training batches: token ids, labels, log-mel features, what each audio frame holds.

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

from ..audio import SAMPLE_RATE_HZ
from ..data.dialogues import Reference
from ..data.simulate import Meeting, Spoken
from ..data.voices import Samples
from ..engines.thinker import SHORTEST_SAMPLES, log_mel
from ..protocol import Audio, Trace, pieces

IGNORED = -100
MOST_SPEAKERS = 64
"""Numbers of the people of two examples in a batch stay this far apart."""
ENROLLED_RATE = 0.3
"""Share of caches that were recorded by another microphone than the chunk, as enrolled voices are."""


@dataclass(slots=True)
class Batch:
    """Tensors of one step; N clips (whole chunks and their slices) hold F audio tokens in all.

    Attributes:
        ids: `[B, T]`, padded right; audio placeholders stand for the clips in order.
        mask: `[B, T]`, 1 on real tokens.
        labels: `[B, T]`, -100 wherever the model is not taught.
        features, feature_mask: log-mel `[N, mels, frames]` and `[N, frames]`.
        word: `[F]` token of the word spoken in the frame; the placeholder token in silence.
        gender: `[F]` 0 nobody, 1 female, 2 male.
        voice: `[F]` number of the person within the batch, -100 in silence.
        utterance: `[F]` number of the utterance within the batch, -100 in silence.
        speaker: `[F]` 0 nobody, else the speaker's number in the dialogue.
        second, tenth: `[F]` time of the frame in the chunk: whole second, tenth of it; -100 in
            the speaker cache.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    features: Tensor
    feature_mask: Tensor
    word: Tensor
    gender: Tensor
    voice: Tensor
    utterance: Tensor
    speaker: Tensor
    second: Tensor
    tenth: Tensor
    audio_s: float

    def to(self, device: torch.device) -> "Batch":
        moved: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            moved[name] = value.to(device) if isinstance(value, Tensor) else value
        return Batch(**moved)


def references(meeting: Meeting, *, by_voice: bool = False) -> list[Reference]:
    """A meeting's utterances as reference segments.

    Args:
        by_voice: a person's number is that of the voice, the same in all stretches of a session,
            and not by order of appearance.
    """
    return [
        Reference(
            s.voice if by_voice else s.speaker, s.gender, s.start_samples, s.end_samples, s.text
        )
        for s in meeting.spoken
    ]


@dataclass(frozen=True, slots=True)
class Clip:
    """What an audio part of a trace is cut from: a chunk, or an entry of its speaker cache.

    Attributes:
        samples: float32 `[n]` at 16 kHz.
        spoken: utterances with their word times, numbered as in the dialogue; none where word times
            are not known, and frame losses cannot be had.
    """

    samples: Samples
    spoken: tuple[Spoken, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A dialogue and the clips it hears: the chunk, then the entries of the cache."""

    trace: Trace
    clips: tuple[Clip, ...]


class Batcher:
    """Builds batches for one tokenizer and feature extractor."""

    def __init__(self, tokenizer: Any, extractor: Any) -> None:
        self.tokenizer = tokenizer
        self.extractor = extractor
        self.end_id: int = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.pad_id: int = tokenizer.pad_token_id
        self.audio_id: int = tokenizer.convert_tokens_to_ids("<|audio_pad|>")
        self._words: dict[str, int] = {}

    def word_id(self, word: str) -> int:
        """The token that stands for a word in frame labels: its last one."""
        if word not in self._words:
            self._words[word] = self.tokenizer.encode(" " + word, add_special_tokens=False)[-1]
        return self._words[word]

    def batch(self, examples: Sequence[Example], rng: random.Random, *, augment: bool) -> Batch:
        """Tensors for one step of teacher forcing.

        Args:
            examples: dialogues with what they hear.
            rng: source of the augmentation.
            augment: another microphone for each example, and for some of their caches; bands of mel
                bins masked.
        """
        clips, frames, heard_in = [], [], []
        utterances = count()
        for number, example in enumerate(examples):
            elsewhere = augment and rng.random() < ENROLLED_RATE
            for part in example.trace.audio:
                clip = example.clips[part.clip]
                clips.append(clip.samples[part.start_samples : part.end_samples])
                frames.append(self._frames(clip, part, number * MOST_SPEAKERS, utterances))
                heard_in.append(-1 - number if part.clip and elsewhere else number)
        features, feature_mask = log_mel(self.extractor, clips)
        if augment:
            _equalise(features, heard_in, rng)
            _mask_bands(features, rng)
        counts = iter([len(rows) for rows in frames])
        ids, labels = [], []
        for example in examples:
            row: list[int] = []
            target: list[int] = []
            for piece in pieces(example.trace.parts, self.tokenizer, self.end_id):
                tokens = list(piece.ids) if piece.audio is None else [self.audio_id] * next(counts)
                row += tokens
                target += tokens if piece.learned else [IGNORED] * len(tokens)
            ids.append(row)
            labels.append(target)
        labelled = np.concatenate(frames)  # [F, 7]
        word, gender, voice, utterance, speaker, second, tenth = torch.from_numpy(labelled.T.copy())
        return Batch(
            ids=_pad(ids, self.pad_id),
            mask=_pad([[1] * len(row) for row in ids], 0),
            labels=_pad(labels, IGNORED),
            features=features,
            feature_mask=feature_mask,
            word=word,
            gender=gender,
            voice=voice,
            utterance=utterance,
            speaker=speaker,
            second=second,
            tenth=tenth,
            audio_s=sum(len(clip) for clip in clips) / SAMPLE_RATE_HZ,
        )

    def _frames(
        self, clip: Clip, part: Audio, first_voice: int, utterances: Iterator[int]
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Labels of an audio part's tokens, `[tokens, 7]`.

        The columns: word, gender, voice, utterance, speaker, second, tenth.
        """
        length = max(part.end_samples - part.start_samples, SHORTEST_SAMPLES)
        times = part.start_samples + _token_centres(length // 160)
        rows = np.zeros((len(times), 7), dtype=np.int64)
        rows[:, 0] = self.audio_id
        rows[:, 2:4] = IGNORED
        for spoken in clip.spoken:
            utterance = next(utterances)
            for word in spoken.words:
                inside = (times >= word.start_samples) & (times < word.end_samples)
                inside &= times < part.end_samples
                if inside.any():
                    gender = 1 if spoken.gender == "female" else 2
                    rows[inside, :5] = (
                        self.word_id(word.text),
                        gender,
                        first_voice + spoken.speaker,
                        utterance,
                        spoken.speaker,
                    )
        rows[:, 5] = IGNORED if part.clip else times // SAMPLE_RATE_HZ
        rows[:, 6] = IGNORED if part.clip else times % SAMPLE_RATE_HZ * 10 // SAMPLE_RATE_HZ
        return rows


def _token_centres(frames: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Sample positions of a clip's audio tokens: 13 in each second of 100 frames, 80 ms apart, then
    what the three convolutions leave of the rest."""
    rest = frames % 100
    for _ in range(3):
        rest = (rest + 1) // 2
    index = np.arange(frames // 100 * 13 + rest)
    return index // 13 * SAMPLE_RATE_HZ + index % 13 * 1280 + 640


def _equalise(features: Tensor, heard_in: Sequence[int], rng: random.Random) -> None:
    """Another microphone for each number: a smooth gain over the mel bins, within 14.4 dB.

    Args:
        features: `[N, mels, frames]`; 10 dB are 0.25 in Whisper's scale.
        heard_in: which microphone recorded each clip.
    """
    across = torch.linspace(0.0, torch.pi, features.shape[1])
    gains: dict[int, Tensor] = {}
    for clip, number in zip(features, heard_in, strict=True):
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


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
