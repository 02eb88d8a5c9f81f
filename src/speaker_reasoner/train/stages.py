"""The stages that make the embedded checkpoint, each from the last one's weights.

0. `warm_up`: the audio tower alone learns, frame by frame, which word, gender and voice it hears.
1. `single_pass`: tasks of one turn over the whole chunk, frame losses kept on.
2. `dialogues`: the multi-turn dialogue, loss on every assistant turn, boxes included; now and then
   who spoke when in one turn (most of what a box must know, for a third of the tokens), and the
   tower alone.
3. `cached`: as 2, with a simulated speaker cache before the chunk.

Differs from the paper: its stages start from a pretrained 30B thinker; these start from nothing,
hence the warm-up and the frame losses.
"""

import math
import random
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..data import sentences
from ..data.cache import CacheConfig, condition, draw_cache
from ..data.dialogues import SINGLE_TURN, dialogue, single_turn
from ..data.simulate import BankConfig, MeetingConfig, Spoken, bank, meeting, session
from ..protocol import Profile, load_profile
from .batches import Batch, Batcher, Clip, Example, references
from .loop import Machine, Schedule, Task, run
from .model import Learner, LossWeights
from .scratch import (
    TinyConfig,
    load_tiny,
    make_feature_extractor,
    make_thinker,
    make_tokenizer,
    save_checkpoint,
)

DOMAIN = "simulated English meetings of synthetic voices, up to 4 speakers in 30 s, 350 words"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of batch.

    Attributes:
        task: `dialogue`, `cached` (with a speaker cache), or one of `SINGLE_TURN`.
        share: how often it is drawn against the stage's other kinds.
        audio_s: seconds of chunks in a batch; short chunks make larger batches.
        single: one utterance a chunk.
    """

    task: str
    share: float
    audio_s: float
    weights: LossWeights
    single: bool = False


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One stage: its schedule, the kinds of batches it mixes, and the meetings it hears.

    Attributes:
        chunk_s: shortest and longest chunk; the longest drawn grows over the first `growth` of the
            stage.
    """

    schedule: Schedule
    kinds: tuple[Kind, ...]
    chunk_s: tuple[float, float]
    growth: float = 0.5


_FULLY_GROWN = 10**9
"""A step at which every stage draws its longest chunks."""
TOWER = LossWeights(answer=0, speaker=0, time=0)
ALL = LossWeights(word=0.4, gender=0.15, voice=0.3)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that decides the embedded checkpoint, seeds included."""

    seed: int = 1
    tiny: TinyConfig = field(default_factory=TinyConfig)
    profile: Profile = field(
        default_factory=lambda: Profile(
            decimals=1, chunk_s=30.0, max_turns=40, max_speakers=8, cache_s=20.0, domain=DOMAIN
        )
    )
    training: BankConfig = field(
        default_factory=lambda: BankConfig(evaluation=False, voices=520, sentences=60)
    )
    meetings: MeetingConfig = field(
        default_factory=lambda: MeetingConfig(
            speakers=(1, 4),
            warp=(0.88, 1.14),
            overlap_rate=0.2,
            reverb_rate=0.45,
            snr_db=(12.0, 45.0),
        )
    )
    most_people: int = 6
    cache: CacheConfig = field(default_factory=CacheConfig)
    answer_rate: float = 0.1
    layer: int = 3
    warm_up: StageConfig = StageConfig(
        Schedule(5400, 1.5e-3, floor=0.3),
        (Kind("base", 0.5, 80.0, TOWER), Kind("base", 0.5, 80.0, TOWER, single=True)),
        chunk_s=(3.0, 8.0),
    )
    single_pass: StageConfig = StageConfig(
        Schedule(500, 1.2e-3, floor=0.5),
        (
            Kind("base", 0.35, 80.0, ALL),
            Kind("times", 0.2, 80.0, ALL),
            Kind("sot", 0.15, 80.0, ALL),
            Kind("count", 0.1, 80.0, ALL),
            Kind("base", 0.2, 80.0, ALL, single=True),
        ),
        chunk_s=(4.0, 30.0),
    )
    dialogues: StageConfig = StageConfig(
        Schedule(4200, 1.4e-3, floor=0.02),
        (
            Kind("dialogue", 0.6, 64.0, ALL),
            Kind("times", 0.25, 96.0, ALL),
            Kind("base", 0.15, 96.0, TOWER),
        ),
        chunk_s=(5.0, 30.0),
        growth=0.3,
    )
    cached: StageConfig = StageConfig(
        Schedule(3000, 1.2e-3, floor=0.02),
        (
            Kind("cached", 0.45, 64.0, ALL),
            Kind("dialogue", 0.2, 64.0, ALL),
            Kind("times", 0.2, 96.0, ALL),
            Kind("base", 0.15, 96.0, TOWER),
        ),
        chunk_s=(5.0, 30.0),
        growth=0.1,
    )


class Trainer:
    """The parts that every stage shares: banks, tokenizer, batcher, learner."""

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        device: torch.device,
        start: Path | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.start = start
        self.bank = bank(config.training, folder / "banks")
        torch.manual_seed(config.seed)
        if start is None:
            self.tokenizer = make_tokenizer(_tokenizer_texts(config), config.tiny.vocabulary)
            thinker = make_thinker(self.tokenizer, config.tiny)
        else:
            self.tokenizer, thinker = load_tiny(start)
        self.extractor = make_feature_extractor()
        self.batcher = Batcher(self.tokenizer, self.extractor)
        self.learner = Learner(
            thinker,
            speakers=config.profile.max_speakers,
            seconds=int(config.profile.chunk_s),
            layer=config.layer,
        )
        self.machine = Machine(device)

    def warm_up(self) -> None:
        self._run("warm-up", self.config.warm_up)

    def single_pass(self) -> None:
        self._run("single-pass", self.config.single_pass)

    def dialogues(self) -> None:
        self._run("dialogues", self.config.dialogues)

    def cached(self) -> None:
        self._run("cached", self.config.cached)

    def export(self, folder: Path) -> None:
        """Write the checkpoint: bf16 weights, tokenizer, feature extractor, profile."""
        thinker = self.learner.thinker.to(torch.bfloat16)
        save_checkpoint(folder, thinker, self.tokenizer, self.extractor)
        training = {"stage": "cached", "config": _plain(asdict(self.config))}
        before = None if self.start is None else load_profile(self.start)
        if before is not None:
            training["start"] = before.training
        replace(self.config.profile, training=training).save(folder)

    def _example(self, task: str, config: MeetingConfig, rng: random.Random) -> Example:
        if task == "cached":
            return self._cached_example(config, rng)
        held, profile = meeting(self.bank, config, rng.getrandbits(48)), self.config.profile
        said, length = references(held), len(held.samples)
        if task in SINGLE_TURN:
            trace = single_turn(task, said, length, profile)
        else:
            answer = rng.random() < self.config.answer_rate
            trace = dialogue(said, length, profile, answer=answer)
        return Example(trace, (Clip(held.samples, held.spoken),))

    def _cached_example(self, config: MeetingConfig, rng: random.Random) -> Example:
        """A chunk of a long meeting, and entries from a stretch before it."""
        people = rng.randint(2, self.config.most_people)
        present = rng.randint(1, min(people, config.speakers[1]))
        config = replace(config, speakers=(people, people))
        counts = (people, present)
        past, chunk = session(self.bank, config, rng.getrandbits(48), counts)
        earlier = references(past, by_voice=True)
        drawn = draw_cache(earlier, self.config.cache, rng)
        texts = rng.random() >= self.config.cache.textless_rate
        said = references(chunk, by_voice=True)
        entries, segments = condition(drawn, past.samples, said, texts=texts)
        answer = rng.random() < self.config.answer_rate
        trace = dialogue(
            segments, len(chunk.samples), self.config.profile, answer=answer, cache=entries
        )
        by_start = sorted(chunk.spoken, key=lambda s: (s.start_samples, s.end_samples))
        numbered = tuple(
            replace(spoken, speaker=segment.speaker)
            for spoken, segment in zip(by_start, segments, strict=True)
        )
        clips = [Clip(chunk.samples, numbered)]
        for segment, entry in zip(drawn, entries, strict=True):
            [spoken] = [s for s in past.spoken if s.start_samples == segment.start_samples]
            clips.append(Clip(entry.samples, (_shifted(spoken, entry.speaker),)))
        return Example(trace, tuple(clips))

    def _run(self, name: str, stage: StageConfig) -> None:
        def draw(step: int, side: str = "training") -> tuple[Batch, LossWeights]:
            rng = random.Random(f"{side} {name} {self.config.seed} {step}")
            kind = rng.choices(stage.kinds, [kind.share for kind in stage.kinds])[0]
            if side == "check":
                kind = stage.kinds[0]
            config, count = _draw_config(self.config.meetings, stage, kind, step, rng)
            examples = [self._example(kind.task, config, rng) for _ in range(count)]
            return self.batcher.batch(examples, rng, augment=side == "training"), kind.weights

        task = Task(name, stage.schedule, draw, draw(_FULLY_GROWN, "check"))
        run(task, self.learner, self.folder, self.machine)


def train(
    config: TrainingConfig, folder: Path, device: torch.device, start: Path | None = None
) -> Trainer:
    """Run the stages; a run that was stopped goes on where its last checkpoint stands.

    Args:
        start: folder of a tiny checkpoint: its weights go through the last stage once more.
    """
    trainer = Trainer(config, folder, device, start)
    if start is None:
        trainer.warm_up()
        trainer.single_pass()
        trainer.dialogues()
    trainer.cached()
    return trainer


def _draw_config(
    meetings: MeetingConfig, stage: StageConfig, kind: Kind, step: int, rng: random.Random
) -> tuple[MeetingConfig, int]:
    """Chunks of one batch have about the same length, so that little is padded; long ones are as
    much more likely than short ones as they are longer, or the last seconds would hardly occur."""
    if kind.single:
        config = replace(meetings, speakers=(1, 1), utterances=(1, 1), max_duration_s=6.0)
        return config, round(kind.audio_s / 3)
    low, high = stage.chunk_s
    grown = min(1.0, 0.3 + 0.7 * step / max(1, stage.growth * stage.schedule.steps))
    longest_s = low + (high - low) * grown * math.sqrt(rng.random())
    fewest = max(1, int(longest_s / 3))
    config = replace(meetings, utterances=(fewest, 20), max_duration_s=longest_s)
    return config, max(2, round(kind.audio_s / longest_s))


def _shifted(spoken: Spoken, speaker: int) -> Spoken:
    """An utterance as a clip of its own, under another number."""
    first = spoken.start_samples
    words = tuple(
        replace(w, start_samples=w.start_samples - first, end_samples=w.end_samples - first)
        for w in spoken.words
    )
    end = spoken.end_samples - first
    return replace(spoken, speaker=speaker, start_samples=0, end_samples=end, words=words)


def _tokenizer_texts(config: TrainingConfig) -> list[str]:
    rng = random.Random(f"tokenizer {config.seed}")
    profile = config.profile
    prompts = [profile.wording.initial_text, *profile.wording.tasks.values()]
    texts = []
    for _ in range(4000):
        speaker, gender = rng.randint(1, 9), rng.choice(["female", "male", "unknown"])
        texts.append(f"Speaker{speaker}-{gender} [{rng.uniform(0, 20):.1f}, 3.4]:")
        texts.append(" " + sentences.draw(rng, evaluation=False))
        texts.append(
            rng.choice([*prompts, "user", "assistant", "speakers: Speaker", "1 speaker: "])
        )
    return texts + [f" {word}" for word in sentences.vocabulary()] * 20


def _plain(value: Any) -> Any:
    """JSON-ready: tuples become lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
