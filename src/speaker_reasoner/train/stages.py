"""The stages that make the embedded checkpoint, each from the last one's weights.

1. `warm_up`: the audio tower alone learns, frame by frame, which word, gender and voice it hears.
2. `single_pass`: the whole chunk is transcribed in one turn ("Base"), frame losses kept on.
3. `dialogues`: the multi-turn dialogue, loss on every assistant turn, boxes included; now and then
   who spoke when in one turn (most of what a box must know, for a third of the tokens), and the
   tower alone.

Differs from the paper: its stages start from a pretrained 30B thinker; these start from nothing,
hence the frame losses.
"""

import math
import random
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..data import sentences
from ..data.dialogues import base, dialogue
from ..data.simulate import BankConfig, Meeting, MeetingConfig, bank, meeting
from ..protocol import Profile, Trace, load_profile
from .batches import Batch, Batcher, references
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

DOMAIN = "simulated English meetings of synthetic voices, up to 20 s and 3 speakers, 350 words"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of batch.

    Attributes:
        task: `dialogue`, `base` (the transcript in one turn) or `times` (the same without words).
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
            decimals=1, chunk_s=20.0, max_turns=24, max_speakers=4, domain=DOMAIN
        )
    )
    training: BankConfig = field(
        default_factory=lambda: BankConfig(evaluation=False, voices=520, sentences=60)
    )
    meetings: MeetingConfig = field(default_factory=lambda: MeetingConfig(warp=(0.93, 1.07)))
    answer_rate: float = 0.15
    layer: int = 3
    warm_up: StageConfig = StageConfig(
        Schedule(5400, 1.5e-3, floor=0.3),
        (Kind("base", 0.5, 80.0, TOWER), Kind("base", 0.5, 80.0, TOWER, single=True)),
        chunk_s=(3.0, 8.0),
    )
    single_pass: StageConfig = StageConfig(
        Schedule(500, 1.2e-3, floor=0.5),
        (
            Kind("base", 0.5, 80.0, ALL),
            Kind("times", 0.3, 80.0, ALL),
            Kind("base", 0.2, 80.0, ALL, single=True),
        ),
        chunk_s=(4.0, 20.0),
    )
    dialogues: StageConfig = StageConfig(
        Schedule(4200, 1.4e-3, floor=0.02),
        (
            Kind("dialogue", 0.6, 64.0, ALL),
            Kind("times", 0.25, 96.0, ALL),
            Kind("base", 0.15, 96.0, TOWER),
        ),
        chunk_s=(5.0, 20.0),
        growth=0.3,
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

    def export(self, folder: Path) -> None:
        """Write the checkpoint: bf16 weights, tokenizer, feature extractor, profile."""
        thinker = self.learner.thinker.to(torch.bfloat16)
        save_checkpoint(folder, thinker, self.tokenizer, self.extractor)
        training = {"stage": "dialogues", "config": _plain(asdict(self.config))}
        before = None if self.start is None else load_profile(self.start)
        if before is not None:
            training["start"] = before.training
        replace(self.config.profile, training=training).save(folder)

    def _trace(self, task: str, meeting: Meeting, rng: random.Random) -> Trace:
        said, profile = references(meeting), self.config.profile
        if task == "dialogue":
            answer = rng.random() < self.config.answer_rate
            return dialogue(said, len(meeting.samples), profile, answer=answer)
        return base(said, len(meeting.samples), profile, words=task == "base")

    def _run(self, name: str, stage: StageConfig) -> None:
        def draw(step: int, side: str = "training") -> tuple[Batch, LossWeights]:
            rng = random.Random(f"{side} {name} {self.config.seed} {step}")
            kind = rng.choices(stage.kinds, [kind.share for kind in stage.kinds])[0]
            if side == "check":
                kind = stage.kinds[0]
            config, count = _draw_config(self.config.meetings, stage, kind, step, rng)
            held = [meeting(self.bank, config, rng.getrandbits(48)) for _ in range(count)]
            traces = [self._trace(kind.task, one, rng) for one in held]
            augment = side == "training"
            return self.batcher.batch(held, traces, rng, augment=augment), kind.weights

        task = Task(name, stage.schedule, draw, draw(_FULLY_GROWN, "check"))
        run(task, self.learner, self.folder, self.machine)


def train(
    config: TrainingConfig, folder: Path, device: torch.device, start: Path | None = None
) -> Trainer:
    """Run the three stages; a run that was stopped goes on where its last checkpoint stands.

    Args:
        start: folder of a tiny checkpoint: its weights go through the last stage once more.
    """
    trainer = Trainer(config, folder, device, start)
    if start is None:
        trainer.warm_up()
        trainer.single_pass()
    trainer.dialogues()
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
    fewest = max(1, min(8, int(longest_s / 3)))
    config = replace(meetings, utterances=(fewest, 10), max_duration_s=longest_s)
    return config, max(2, round(kind.audio_s / longest_s))


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
