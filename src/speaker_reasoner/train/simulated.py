"""Talks from simulated meetings, drawn for every batch from a voice bank; their word times are known."""

import math
import random
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..data import sentences
from ..data.banks import bank
from ..data.cache import condition, draw_cache
from ..data.simulate import Meeting, MeetingConfig, MixedUtterance, meeting, session
from ..errors import DataError
from ..protocol.observations import Reference
from .batches import Batcher
from .config import Kind, StageConfig, TrainingConfig
from .loop import Drawn
from .talks import Talk, make_example

_FULLY_GROWN = 10**9
"""A step number at which every stage draws its longest chunks."""
_FEWEST_CHUNKS = 2
"""In the batches of a step together, however long they are."""


class Simulated:
    """Talks of synthetic voices.

    Args:
        config: with a table `simulated`.
        folder: where the voice bank is kept.
        batcher: of the model.
    """

    def __init__(self, config: TrainingConfig, folder: Path, batcher: Batcher) -> None:
        if config.simulated is None:
            raise DataError("the configuration has no table simulated")
        self.config = config
        self.simulated = config.simulated
        self.bank = bank(config.simulated.bank, folder)
        self.batcher = batcher

    def draw(self, stage: str, step: int, part: int) -> Drawn:
        """Draw a batch. Those of a step are of one kind and chunk length, so that processes take the same time."""
        drawn = f"training {stage} {self.config.seed} {step}"
        shared, rng = random.Random(drawn), random.Random(f"{drawn} {part}")
        settings = self.config.stages[stage]
        kind = shared.choices(settings.kinds, [kind.share for kind in settings.kinds])[0]
        return self._batch(kind, self._meetings(settings, step, shared), rng, augment=True)

    def checks(self, stage: str, count: int) -> list[Drawn]:
        settings = self.config.stages[stage]
        batches = []
        for part in range(count):
            rng = self._check_rng(stage, part)
            meetings = self._meetings(settings, _FULLY_GROWN, rng)
            batches.append(self._batch(settings.kinds[0], meetings, rng, augment=False))
        return batches

    def word_ids(self) -> Tensor:
        """The tokens that label frames: of all words that are spoken, and of silence; in ascending order."""
        ids = {self.batcher.audio_id}
        for word in sentences.vocabulary(self.simulated.bank.sentences_from):
            ids.update(self.batcher.word_ids(word).tolist())
        return torch.tensor(sorted(ids))

    def talks(self, stage: str, count: int) -> list[Talk]:
        settings = self.config.stages[stage]
        task = settings.kinds[0].task
        talks = []
        for part in range(count):
            rng = self._check_rng(stage, part)
            talks.append(self._talk(task, self._meetings(settings, _FULLY_GROWN, rng), rng))
        return talks

    def _check_rng(self, stage: str, part: int) -> random.Random:
        return random.Random(f"check {stage} {self.config.seed} {part}")

    def _batch(
        self, kind: Kind, meetings: MeetingConfig, rng: random.Random, *, augment: bool
    ) -> Drawn:
        audio_s = kind.audio_s or 0.0
        fewest = -(-_FEWEST_CHUNKS // self.config.run.batches_per_step)
        rows = max(fewest, round(audio_s / meetings.max_duration_s))
        if kind.single:
            meetings = replace(meetings, speakers=(1, 1), utterances=(1, 1), max_duration_s=6.0)
            rows = max(1, round(audio_s / 3))
        examples = []
        for _ in range(rows):
            talk = self._talk(kind.task, meetings, rng)
            answer = rng.random() < self.config.answer_rate
            examples.append(make_example(kind.task, talk, self.config.profile, answer=answer))
        batch = self.batcher.batch(examples, rng, augment=augment)
        return batch, self.config.loss_weights(kind)

    def _meetings(self, stage: StageConfig, step: int, rng: random.Random) -> MeetingConfig:
        """Draw the chunk length of a batch: one length, so that little is padded, with probability
        proportional to it, because the last seconds of a chunk would otherwise be rare."""
        low, high = stage.chunk_s or (1.0, self.config.profile.chunk_s)
        grown = min(1.0, 0.3 + 0.7 * step / max(1, stage.growth * stage.schedule.steps))
        longest_s = low + (high - low) * grown * math.sqrt(rng.random())
        fewest = max(1, int(longest_s / 3))
        return replace(self.simulated.meetings, utterances=(fewest, 20), max_duration_s=longest_s)

    def _talk(self, task: str, meetings: MeetingConfig, rng: random.Random) -> Talk:
        if task == "cached":
            return self._cached_talk(meetings, rng)
        held = meeting(self.bank, meetings, rng.getrandbits(48))
        return Talk(held.samples, tuple(references(held)), spoken=(held.spoken,))

    def _cached_talk(self, meetings: MeetingConfig, rng: random.Random) -> Talk:
        """A chunk of a long meeting, and entries from a stretch before it."""
        people = rng.randint(2, self.simulated.most_people)
        present = rng.randint(1, min(people, meetings.speakers[1]))
        meetings = replace(meetings, speakers=(people, people))
        past, chunk = session(self.bank, meetings, rng.getrandbits(48), (people, present))
        drawn = draw_cache(references(past, by_voice=True), self.simulated.cache, rng)
        texts = rng.random() >= self.simulated.cache.textless_rate
        numbered = references(chunk, by_voice=True)
        entries, segments = condition(drawn, past.samples, numbered, texts=texts)
        by_start = sorted(chunk.spoken, key=lambda s: (s.start_samples, s.end_samples))
        spoken = [
            tuple(
                replace(spoken, speaker=segment.speaker)
                for spoken, segment in zip(by_start, segments, strict=True)
            )
        ]
        for segment, entry in zip(drawn, entries, strict=True):
            [original] = [s for s in past.spoken if s.start_samples == segment.start_samples]
            spoken.append((_shifted(original, entry.speaker),))
        return Talk(chunk.samples, tuple(segments), tuple(entries), tuple(spoken))


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


def _shifted(spoken: MixedUtterance, speaker: int) -> MixedUtterance:
    """An utterance with times in a clip of itself, under another speaker number."""
    first = spoken.start_samples
    words = tuple(
        replace(w, start_samples=w.start_samples - first, end_samples=w.end_samples - first)
        for w in spoken.words
    )
    end = spoken.end_samples - first
    return replace(spoken, speaker=speaker, start_samples=0, end_samples=end, words=words)


def tokenizer_texts(config: TrainingConfig) -> list[str]:
    """Text for the tokenizer of a model from scratch: prompts, labels, sentences."""
    rng = random.Random(f"tokenizer {config.seed}")
    profile = config.profile
    own = config.simulated.bank.sentences_from if config.simulated is not None else ""
    prompts = [profile.wording.initial_text, *profile.wording.tasks.values()]
    texts = []
    for _ in range(4000):
        speaker, gender = rng.randint(1, 9), rng.choice(["female", "male", "unknown"])
        texts.append(f"Speaker{speaker}-{gender} [{rng.uniform(0, 20):.1f}, 3.4]:")
        texts.append(" " + sentences.draw(rng, evaluation=False, sentences_from=own))
        texts.append(
            rng.choice([*prompts, "user", "assistant", "speakers: Speaker", "1 speaker: "])
        )
    return texts + [f" {word}" for word in sentences.vocabulary(own)] * 20
