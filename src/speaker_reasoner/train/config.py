"""The configuration of a training run: one TOML file, checked as it is read.

    config = load_config("tiny")              # one that comes with the package
    config = load_config("my.toml")

Each part is a dataclass beside the code it configures; settings of several parts are checked together here. The
resolved configuration is part of every checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..data.banks import BankConfig
from ..data.cache import CacheConfig
from ..data.dialogues import SINGLE_TURN
from ..data.simulate import MeetingConfig
from ..errors import DataError
from ..protocol import Profile
from .adapters import Lora
from .learner import PARTS, LossWeights
from .schedule import RunConfig, Schedule
from .scratch import TinyConfig
from .settings import plain, read_settings
from .voice_head import WitnessConfig

CONFIGS = Path(__file__).parent.parent / "configs"
"""Folder of the configurations that come with the package."""

TASKS = ("dialogue", "cached", *SINGLE_TURN)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of dialogue or batch.

    Attributes:
        task: `dialogue`, `cached` (with a speaker cache), or one of `SINGLE_TURN`.
        share: weight with which it is drawn among the stage's kinds.
        weights: of its losses, a key of `TrainingConfig.weights`; by default answers alone.
        audio_s: seconds of chunks in a batch of simulated meetings; short chunks make larger batches.
        single: whether a simulated chunk has one utterance only.
    """

    task: str
    share: float = 1.0
    weights: str = ""
    audio_s: float | None = None
    single: bool = False

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise DataError(f"task {self.task!r} is not one of {', '.join(TASKS)}")
        if self.share <= 0 or (self.audio_s is not None and self.audio_s <= 0):
            raise DataError(f"share {self.share:g}, audio_s {self.audio_s}: expected above 0")


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One stage: its schedule, and the kinds of dialogues it mixes.

    Attributes:
        chunk_s: shortest and longest simulated chunk; the longest drawn grows over the first `growth`
            of the stage. Pieces of corpora keep their length.
        parts: of the model that learn, out of `PARTS`; all that the method trains by default.
    """

    schedule: Schedule
    kinds: tuple[Kind, ...]
    chunk_s: tuple[float, float] | None = None
    growth: float = 0.5
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.kinds:
            raise DataError("kinds: expected at least one")
        if self.chunk_s is not None and not 0 < self.chunk_s[0] <= self.chunk_s[1]:
            raise DataError(f"chunk_s {self.chunk_s}: expected 0 < shortest <= longest")
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown:
            raise DataError(f"parts: {unknown[0]!r} is not one of {', '.join(PARTS)}")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The model that is trained.

    Attributes:
        base: folder or hub id of a thinker, or of a full model with its talker, which is left out;
            empty for the tiny thinker from scratch.
        revision: of a hub id.
        method: `full`, everything but the vision tower, or `lora`.
        tiny: sizes of the thinker from scratch.
        layer: text layer after which the heads of a model from scratch read speaker and time.
        heads_steps: batches that train the heads alone if a run begins from a checkpoint.
    """

    base: str = ""
    revision: str | None = None
    method: str = "full"
    lora: Lora = field(default_factory=Lora)
    tiny: TinyConfig = field(default_factory=TinyConfig)
    layer: int = 3
    heads_steps: int = 110

    def __post_init__(self) -> None:
        if self.method not in ("full", "lora"):
            raise DataError(f"method {self.method!r} is neither 'full' nor 'lora'")
        if self.heads_steps < 0:
            raise DataError(f"heads_steps: expected at least 0, got {self.heads_steps}")
        if self.method == "lora" and not self.base:
            raise DataError("LoRA adapts a model: name its folder or hub id as base")


@dataclass(frozen=True, slots=True)
class SimulatedConfig:
    """Meetings of synthetic voices.

    Attributes:
        most_people: most people in a session from which a speaker cache is drawn.
    """

    bank: BankConfig
    meetings: MeetingConfig = field(default_factory=MeetingConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    most_people: int = 6

    def __post_init__(self) -> None:
        if self.bank.evaluation:
            raise DataError("bank.evaluation: held-out voices are not for training")


@dataclass(frozen=True, slots=True)
class CorporaConfig:
    """Corpora that `speaker-reasoner prepare` wrote.

    Attributes:
        train: folders of splits, such as `prepared/ami/train`, from the working directory, or of their shards, also
            in a bucket, such as `s3://bucket/ami/train/shards`.
        check: the same for validation; if empty, there is no validation.
        batch: dialogues in a batch.
        window: batches whose dialogues are sorted by length together.
        buffer: pieces of shards that are shuffled together: the shards come in random order, and their pieces through
            a buffer of so many, so that few shards are read at a time; 0 shuffles all pieces.
        clipped: use pieces with segments that continue outside, so that their text has more words than the
            audio.
    """

    train: tuple[str, ...]
    check: tuple[str, ...] = ()
    batch: int = 1
    window: int = 32
    buffer: int = 0
    clipped: bool = True
    cache: CacheConfig = field(default_factory=CacheConfig)

    def __post_init__(self) -> None:
        if not self.train or min(self.batch, self.window) < 1 or self.buffer < 0:
            raise DataError(
                "train: expected a folder; batch, window: at least 1; buffer: at least 0"
            )


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Settings of a training run, seeds included.

    Attributes:
        simulated, corpora: the source of dialogues; one of the two.
        answer_rate: share of dialogues whose last turn writes the whole transcript.
        weights: of losses, by the names that kinds use.
        warm_up: before the first stage of a model from scratch, on its audio tower.
        single_pass, dialogues, cached: stages 1, 2, 3.
        witness: the voice head, after stage 3 of simulated meetings.
    """

    model: ModelConfig
    profile: Profile
    run: RunConfig
    seed: int = 1
    simulated: SimulatedConfig | None = None
    corpora: CorporaConfig | None = None
    answer_rate: float = 1.0
    weights: Mapping[str, LossWeights] = field(default_factory=dict)
    warm_up: StageConfig | None = None
    single_pass: StageConfig | None = None
    dialogues: StageConfig | None = None
    cached: StageConfig | None = None
    witness: WitnessConfig | None = None

    def __post_init__(self) -> None:
        if (self.simulated is None) == (self.corpora is None):
            raise DataError("expected one of the tables simulated and corpora")
        if not self.stages:
            raise DataError("expected one of the tables single_pass, dialogues, cached")
        if self.witness is not None and (self.simulated is None or self.cached is None):
            raise DataError("the table witness needs simulated meetings and the table cached")
        if self.corpora is not None and not self.model.base:
            raise DataError("model.base is missing: from scratch, only simulated meetings train")
        for name, stage in self.stages.items():
            self._check_stage(name, stage)

    @property
    def stages(self) -> dict[str, StageConfig]:
        """The stages there are, by name."""
        named = {
            name: getattr(self, name) for name in ("warm_up", "single_pass", "dialogues", "cached")
        }
        return {name: stage for name, stage in named.items() if stage is not None}

    @property
    def partial(self) -> bool:
        """Return whether a stage trains some parts of the model only."""
        return any(stage.parts for stage in self.stages.values())

    @property
    def frames(self) -> bool:
        """Return whether any loss is read off audio frames, by heads beside the model."""
        kinds = (kind for stage in self.stages.values() for kind in stage.kinds)
        return any(self.loss_weights(kind).frames for kind in kinds)

    def on(self, folders: Sequence[str]) -> "TrainingConfig":
        """The same on other folders of corpora.

        Raises:
            DataError: the configuration is one of simulated meetings.
        """
        if self.corpora is None:
            raise DataError(
                "--data: the configuration trains on simulated meetings; name one with a table corpora"
            )
        return replace(self, corpora=replace(self.corpora, train=tuple(folders)))

    def loss_weights(self, kind: Kind) -> LossWeights:
        return self.weights[kind.weights] if kind.weights else LossWeights()

    def to_json(self) -> dict[str, Any]:
        """The resolved configuration, as a TOML file of it reads."""
        values: dict[str, Any] = plain(asdict(self))
        del values["profile"]["training"]
        return values

    def _check_stage(self, name: str, stage: StageConfig) -> None:
        if stage.parts and self.model.method == "lora":
            raise DataError(
                f"{name}.parts: LoRA trains its factors alone; set model.method = 'full', or leave parts out"
            )
        if self.corpora is not None and stage.chunk_s is not None:
            raise DataError(f"{name}.chunk_s is of simulated meetings, not of corpora")
        if self.simulated is not None and stage.chunk_s is None:
            raise DataError(f"{name}.chunk_s is missing")
        if stage.chunk_s is not None and stage.chunk_s[1] > self.profile.chunk_s:
            raise DataError(
                f"{name}.chunk_s: up to {stage.chunk_s[1]:g} s, but profile.chunk_s is "
                f"{self.profile.chunk_s:g} s"
            )
        for i, kind in enumerate(stage.kinds):
            if kind.weights and kind.weights not in self.weights:
                known = ", ".join(self.weights) or "none"
                raise DataError(f"{name}.kinds[{i}].weights {kind.weights!r}: known: {known}")
            simulated_only = kind.single or kind.audio_s or self.loss_weights(kind).frames
            if self.corpora is not None and simulated_only:
                raise DataError(
                    f"{name}.kinds[{i}]: audio_s, single and losses on frames are of simulated "
                    "meetings, not of corpora"
                )
            if self.simulated is not None and kind.audio_s is None:
                raise DataError(f"{name}.kinds[{i}].audio_s is missing")


def config_path(name: str | Path) -> Path:
    """The file of a configuration: one that comes with the package by its name, or a path.

    Raises:
        DataError: there is none.
    """
    packaged = CONFIGS / f"{name}.toml"
    if Path(name).name == str(name) and packaged.exists():
        return packaged
    path = Path(name).expanduser()
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.toml")))
        raise DataError(f"{path}: no such configuration; expected a TOML file, or one of {known}")
    return path


def load_config(name: str | Path) -> TrainingConfig:
    """Read a configuration.

    Raises:
        DataError: there is none, or it is wrong: with file and key.
    """
    return read_settings(TrainingConfig, config_path(name))
