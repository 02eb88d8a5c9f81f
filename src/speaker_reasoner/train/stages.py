"""The stages that make the embedded checkpoint, each from the last one's weights.

1. `warm_up`: the audio tower alone learns, frame by frame, which word, gender and voice it hears.
2. `single_pass`: the whole chunk is transcribed in one turn ("Base"), frame losses kept on.
3. `dialogues`: the multi-turn dialogue, loss on every assistant turn, boxes included.

Differs from the paper: its stages start from a pretrained 30B thinker; these start from nothing,
hence the frame losses.
"""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..data import sentences
from ..data.dialogues import base, dialogue
from ..data.simulate import BankConfig, Meeting, MeetingConfig, VoiceBank, bank, meeting
from ..protocol import Profile, Trace
from .batches import Batch, Batcher, references
from .loop import Machine, Schedule, Task, run
from .model import Learner, LossWeights
from .scratch import (
    TinyConfig,
    make_feature_extractor,
    make_thinker,
    make_tokenizer,
    save_checkpoint,
)

DOMAIN = "simulated English meetings of synthetic voices, up to 20 s and 3 speakers, 350 words"


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One stage: its schedule, its losses, and the meetings it hears.

    Attributes:
        audio_s: seconds of chunks in a batch; short chunks make larger batches.
        chunk_s: shortest and longest chunk; the longest drawn grows over the first `growth` of the
            stage.
        single_rate: share of batches made of single utterances.
    """

    schedule: Schedule
    weights: LossWeights
    audio_s: float
    chunk_s: tuple[float, float]
    growth: float = 0.5
    single_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that decides the embedded checkpoint, seeds included."""

    seed: int = 1
    tiny: TinyConfig = field(default_factory=TinyConfig)
    profile: Profile = field(
        default_factory=lambda: Profile(
            decimals=1, chunk_s=20.0, max_turns=24, max_speakers=4, domain=DOMAIN
        )
    )
    training: BankConfig = field(
        default_factory=lambda: BankConfig(evaluation=False, voices=260, sentences=70)
    )
    evaluation: BankConfig = field(
        default_factory=lambda: BankConfig(evaluation=True, voices=40, sentences=40)
    )
    meetings: MeetingConfig = field(default_factory=MeetingConfig)
    answer_rate: float = 0.15
    layer: int = 3
    warm_up: StageConfig = StageConfig(
        Schedule(5400, 1.5e-3, floor=0.3),
        LossWeights(answer=0, speaker=0, time=0),
        audio_s=80.0,
        chunk_s=(3.0, 8.0),
        single_rate=0.5,
    )
    single_pass: StageConfig = StageConfig(
        Schedule(500, 1.2e-3, floor=0.5),
        LossWeights(word=0.5, gender=0.15, voice=0.15),
        audio_s=80.0,
        chunk_s=(4.0, 20.0),
        single_rate=0.2,
    )
    dialogues: StageConfig = StageConfig(
        Schedule(2350, 1e-3, floor=0.02),
        LossWeights(word=0.3, gender=0.1, voice=0.1),
        audio_s=50.0,
        chunk_s=(5.0, 20.0),
        growth=0.4,
    )


class Trainer:
    """The parts that every stage shares: banks, tokenizer, batcher, learner."""

    def __init__(self, config: TrainingConfig, folder: Path, device: torch.device) -> None:
        self.config = config
        self.folder = folder
        self.bank = bank(config.training, folder / "banks")
        self.held_out = bank(config.evaluation, folder / "banks")
        self.tokenizer = make_tokenizer(_tokenizer_texts(config), config.tiny.vocabulary)
        self.extractor = make_feature_extractor()
        self.batcher = Batcher(self.tokenizer, self.extractor)
        torch.manual_seed(config.seed)
        self.learner = Learner(
            make_thinker(self.tokenizer, config.tiny),
            voices=config.training.voices,
            speakers=config.profile.max_speakers,
            seconds=int(config.profile.chunk_s),
            layer=config.layer,
        )
        self.machine = Machine(device)

    def warm_up(self) -> None:
        self._run("warm-up", self.config.warm_up, self._base)

    def single_pass(self) -> None:
        self._run("single-pass", self.config.single_pass, self._base)

    def dialogues(self) -> None:
        self._run("dialogues", self.config.dialogues, self._dialogue)

    def export(self, folder: Path) -> None:
        """Write the checkpoint: bf16 weights, tokenizer, feature extractor, profile."""
        thinker = self.learner.thinker.to(torch.bfloat16)
        save_checkpoint(folder, thinker, self.tokenizer, self.extractor)
        training = {"stage": "dialogues", "config": _plain(asdict(self.config))}
        replace(self.config.profile, training=training).save(folder)

    def _base(self, meeting: Meeting, rng: random.Random) -> Trace:
        return base(references(meeting), len(meeting.samples), self.config.profile)

    def _dialogue(self, meeting: Meeting, rng: random.Random) -> Trace:
        answer = rng.random() < self.config.answer_rate
        return dialogue(
            references(meeting), len(meeting.samples), self.config.profile, answer=answer
        )

    def _run(
        self, name: str, stage: StageConfig, trace: Callable[[Meeting, random.Random], Trace]
    ) -> None:
        def draw(step: int, source: VoiceBank = self.bank, side: str = "training") -> Batch:
            rng = random.Random(f"{side} {name} {self.config.seed} {step}")
            config, count = _draw_config(self.config.meetings, stage, step, rng)
            held = [meeting(source, config, rng.getrandbits(48)) for _ in range(count)]
            traces = [trace(one, rng) for one in held]
            return self.batcher.batch(held, traces, rng, augment=side == "training")

        check = draw(stage.schedule.steps, self.held_out, "development")
        task = Task(name, stage.schedule, stage.weights, draw, check)
        run(task, self.learner, self.folder, self.machine)


def train(config: TrainingConfig, folder: Path, device: torch.device) -> Trainer:
    """Run the three stages; a run that was stopped goes on where its last checkpoint stands."""
    trainer = Trainer(config, folder, device)
    trainer.warm_up()
    trainer.single_pass()
    trainer.dialogues()
    return trainer


def _draw_config(
    meetings: MeetingConfig, stage: StageConfig, step: int, rng: random.Random
) -> tuple[MeetingConfig, int]:
    """Chunks of one batch have about the same length, so that little is padded."""
    if rng.random() < stage.single_rate:
        config = replace(meetings, speakers=(1, 1), utterances=(1, 1), max_duration_s=6.0)
        return config, round(stage.audio_s / 3)
    low, high = stage.chunk_s
    grown = min(1.0, 0.3 + 0.7 * step / max(1, stage.growth * stage.schedule.steps))
    longest_s = rng.uniform(low, low + (high - low) * grown)
    fewest = max(1, min(8, int(longest_s / 4)))
    config = replace(meetings, utterances=(fewest, 10), max_duration_s=longest_s)
    return config, max(2, round(stage.audio_s / longest_s))


def _tokenizer_texts(config: TrainingConfig) -> list[str]:
    rng = random.Random(f"tokenizer {config.seed}")
    profile = config.profile
    prompts = [profile.wording.initial_text, profile.wording.base_text]
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
