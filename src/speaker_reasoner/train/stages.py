"""The three stages, each from the last one's weights (Sec. "Three training stages", arXiv 2604.03074).

1. `single_pass`: tasks of one turn over the whole chunk. A model from scratch warms up first: its audio
   tower alone learns word, gender and voice of each frame.
2. `dialogues`: the multi-turn dialogue, loss on every assistant turn, boxes included.
3. `cached`: as 2, with a simulated speaker cache before the chunk.

The configuration sets the mix of each. Differs from the paper: its stages start from a pretrained
thinker; the tiny one starts from random weights, and needs the warm-up and losses on frames.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..data.banks import bank
from ..engines.checkpoint import find_checkpoint
from ..errors import DataError
from ..heap import keep
from .accelerators import among_others, make_accelerator, prepare
from .batches import Batcher
from .config import TrainingConfig
from .learner import Heads, Learner
from .loop import StageTask, run
from .models import build, record, write_model
from .prepared import Corpora, PreparedCorpora
from .recordings import Fault
from .saves import PIECES, Saves, is_deepspeed, is_sharded, replace_folder, weights
from .settling import settle
from .simulated import Simulated
from .talks import TalkSource
from .voice_head import WitnessConfig, calibrate, train_witness

STAGES = {1: "single_pass", 2: "dialogues", 3: "cached"}

_PRETRAINED_SCALE = 3.5
"""A factor of 33: embeddings of a language model are alike, and with a smaller one a frame that is equal to the
embedding of its token has a large word loss all the same."""
_BEYOND = 10**6
"""A step number beyond all schedules: its batches train new heads, and do not recur in the stage."""


class Trainer:
    """The parts that every stage shares.

    Args:
        config: of the run.
        folder: of the run: states of stages, log, checkpoints, voice banks.
        start: folder or hub id in place of the configuration's model.
        cpu: use no GPU.
        strict: stop where audio of prepared corpora has a fault, instead of leaving its pieces out.
        first: the stage that begins from `start`: its batches teach the heads that a checkpoint does
            not have (see `settling`).

    Attributes:
        remarks: sentences about the data that a user should read before the run starts.
        say: is called with each later one.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        *,
        start: str | Path | None = None,
        cpu: bool = False,
        strict: bool = False,
        first: str | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.start = start
        self.say: Callable[[str], None] = _nothing
        folder.mkdir(parents=True, exist_ok=True)
        keep()
        self.accelerator = make_accelerator(
            config.run, folder, cpu=cpu, unused=config.frames or config.partial
        )
        if config.partial and is_sharded(self.accelerator):
            raise DataError(
                "parts: weights that are sharded (FSDP, DeepSpeed) all learn or none; train in one process, or in "
                "several without sharding"
            )
        self.model = build(config, start)
        batcher = Batcher(self.model.thinker, self.model.tokenizer, self.model.extractor)
        self.source, self.remarks = self._source(batcher, strict)
        profile = config.profile
        heads = None
        if config.frames:
            width = self.model.thinker.config.get_text_config().hidden_size
            seconds = int(profile.chunk_s)
            sizes = (width, profile.max_speakers, seconds, config.model.layer)
            heads = Heads(*sizes, **self._words())
        learner = Learner(self.model.thinker, heads)
        if first is not None and start is not None and heads is not None:
            self._settle(learner, first)
        self.prepared = prepare(learner, self.accelerator, muon=not config.model.base)
        self.accelerator.init_trackers("speaker-reasoner", config=_flat(config.to_json()))

    def single_pass(self) -> Path:
        """Stage 1."""
        if self.config.warm_up is not None and self.start is None:
            self._run("warm_up")
        return self._finish("single_pass")

    def dialogues(self) -> Path:
        """Stage 2."""
        return self._finish("dialogues")

    def cached(self) -> Path:
        """Stage 3."""
        return self._finish("cached")

    def take_up(self, stage: str) -> None:
        """Load the final weights of a stage of this folder.

        Raises:
            DataError: it has not ended.
            CheckpointError: its state is damaged, or of another configuration.
        """
        saves = self._saves(stage)
        if saves.load() < self.config.stages[stage].schedule.steps:
            raise DataError(
                f"{saves.path}: the stage before has not ended there; train it first, or name the "
                "checkpoint to start from (--from)"
            )

    def export(self, stage: str, folder: Path) -> None:
        """Write the checkpoint.

        Raises:
            OutputError: it cannot be written.
        """
        lora = self.config.model.method == "lora"
        held = weights(
            self.prepared.learner,
            self.accelerator,
            trained=lora,
            dtype=torch.float32 if lora else torch.bfloat16,
        )
        state = {
            name.removeprefix("thinker."): value
            for name, value in held.items()
            if name.startswith("thinker.")
        }
        profile = replace(
            self.config.profile,
            cache_s=self.config.profile.cache_s if stage == "cached" else 0.0,
            training=record(stage, self.config, self.model),
        )
        if is_deepspeed(self.accelerator):  # what one process builds below must not be sharded
            from transformers.integrations.deepspeed import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()
        if self.accelerator.is_main_process:
            replace_folder(
                folder, lambda path: write_model(path, self.model, state, profile, self.config)
            )
        self.accelerator.wait_for_everyone()

    def _source(self, batcher: Batcher, strict: bool) -> tuple[TalkSource, list[str]]:
        if self.config.simulated is not None:
            with self.accelerator.main_process_first():  # it builds the bank, the others find it
                return Simulated(self.config, self.folder / "banks", batcher), []
        shown = self.accelerator.is_main_process
        prepared = PreparedCorpora(self.config, batcher, strict=strict, shown=shown)
        _same_everywhere(prepared.contents)
        return prepared, _remarks(prepared.contents)

    def _words(self) -> dict[str, Any]:
        """Settings of the word loss. A language model's embeddings are alike and many: only the tokens that are
        spoken are told apart, by a larger factor."""
        if not self.config.model.base or not isinstance(self.source, Simulated):
            return {}
        return {"words": self.source.word_ids(), "scale": _PRETRAINED_SCALE}

    def _settle(self, learner: Learner, stage: str) -> None:
        """Teach new heads, unless the stage has begun already."""
        if self._state(stage).exists() or self._state(stage).with_suffix("").exists():
            return
        settle(
            learner,
            lambda step: self.source.draw(stage, _BEYOND + step, 0),
            self.config.model.heads_steps,
            self.accelerator,
            workers=self.config.run.workers,
            shown=self.accelerator.is_main_process,
        )

    def _finish(self, stage: str) -> Path:
        self._run(stage)
        number = next(n for n, name in STAGES.items() if name == stage)
        folder = self.folder / f"stage-{number}"
        self.export(stage, folder)
        if stage == "cached" and self.config.witness is not None:
            if self.accelerator.is_main_process:
                self.voice_head(folder, self.config.witness)
            self.accelerator.wait_for_everyone()
        return folder

    def voice_head(self, folder: Path, config: WitnessConfig) -> None:
        """Train the voice head of a finished checkpoint, and write it beside it."""
        assert self.config.simulated is not None and isinstance(self.source, Simulated)
        thinker, seed = self.model.thinker.eval(), self.config.seed
        meetings = replace(
            self.config.simulated.meetings,
            speakers=(3, 6),
            utterances=(20, 30),
            max_duration_s=90.0,
            silence_rate=0.0,
        )
        development = replace(self.config.simulated.bank, voices=40, sentences=30, seed=seed + 10)
        extractor, workers = self.model.extractor, self.config.run.workers
        head = train_witness(thinker, extractor, self.source.bank, config, seed, workers)
        voices = bank(development, self.folder / "banks")
        calibrate(head, thinker, extractor, voices, meetings, config, seed)
        head.save(folder)

    def _run(self, stage: str) -> None:
        config = self.config.stages[stage]
        self.prepared.learner.train_parts(config.parts)
        transcribes = config.kinds[0].task in ("dialogue", "cached")
        task = StageTask(
            name=stage.replace("_", "-"),
            schedule=config.schedule,
            draw=lambda step, part: self.source.draw(stage, step, part),
            checks=self.source.checks(stage, self.config.run.checks),
            order=self._order(),
            transcribe=self._transcriber(stage) if transcribes else None,
        )
        run(task, self.prepared, self.folder, self.config.run, self.say)

    def _order(self) -> dict[str, int]:
        """The settings that decide which example is drawn when."""
        order = {"batches_per_step": self.config.run.batches_per_step, "seed": self.config.seed}
        if self.config.corpora is not None and isinstance(self.source, PreparedCorpora):
            corpora = self.config.corpora
            order |= {"batch": corpora.batch, "window": corpora.window, "buffer": corpora.buffer}
            order[PIECES] = len(self.source.train.used)
        return order

    def _transcriber(self, stage: str) -> Any:
        """A function that transcribes the stage's fixed talks; `None` if there are none, or none are wanted."""
        if not self.config.run.dialogue_steps:
            return None
        talks = self.source.talks(stage, self.config.run.dialogues)
        if not talks:
            return None
        from .transcribing import transcribe

        model, profile = self.model, self.config.profile
        return lambda: transcribe(self.prepared, talks, model.tokenizer, model.extractor, profile)

    def _state(self, stage: str) -> Path:
        return self.folder / f"{stage.replace('_', '-')}.pt"

    def _saves(self, stage: str) -> Saves:
        made = self.prepared
        path = self._state(stage)
        return Saves(path, made.learner, made.model, made.optimisers, self.accelerator)


def train(
    config: TrainingConfig,
    folder: Path,
    *,
    stages: Sequence[int] = (1, 2, 3),
    start: str | Path | None = None,
    cpu: bool = False,
    strict: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Run stages in their order; a run that was stopped continues from its saved state.

    Args:
        stages: keys of `STAGES`. Without `start`, the first begins from what the stage before it left
            in `folder`, where one is configured.
        start: folder or hub id of the model to begin from, in place of the configuration's.
        cpu: use no GPU.
        strict: stop where audio of prepared corpora has a fault, instead of leaving its pieces out.
        progress: called by the main process with each remark.

    Returns:
        The folders of the checkpoints, one a stage.

    Raises:
        DataError: a stage is not configured, data are missing, or, with `strict`, some audio is.
        CheckpointError: the start or a saved state is damaged or does not fit.
        OutputError: something cannot be written.
        EngineError: another process of the run has ended.
    """
    names = [STAGES[number] for number in sorted(stages)]
    for name in names:
        if name not in config.stages:
            raise DataError(f"the configuration has no table {name}; choose another --stage")
    trainer = Trainer(config, folder, start=start, cpu=cpu, strict=strict, first=names[0])
    if len(names) > 1 and is_deepspeed(trainer.accelerator):
        raise DataError(
            "under DeepSpeed, whose moments cannot be cleared, train one stage after the other: "
            "--stage 1, then --stage 2 --from OUT/stage-1"
        )
    say = progress if progress is not None and trainer.accelerator.is_main_process else _nothing
    trainer.say = say
    for remark in trainer.remarks:
        say(remark)
    before = STAGES.get(min(stages) - 1)
    if start is None and before is not None and before in config.stages:
        trainer.take_up(before)
    written = []
    with among_others(trainer.accelerator):
        for name in names:
            written.append(getattr(trainer, name)())
            say(f"wrote {written[-1]}")
        trainer.accelerator.end_training()
    return written


def train_voice_head(
    config: TrainingConfig, folder: Path, *, start: str | Path | None = None, cpu: bool = False
) -> Path:
    """Train the voice head of a finished checkpoint: of a mean of several, which has none, or anew.

    Args:
        start: folder or hub id of the checkpoint; that of stage 3 in `folder` by default.

    Returns:
        The folder of a copy of the checkpoint that has the head.

    Raises:
        DataError: the configuration has no table `witness`.
        CheckpointError: the checkpoint cannot be read.
        OutputError: the copy cannot be written.
    """
    if config.witness is None:
        raise DataError("the configuration has no table witness, which a voice head is trained by")
    source = folder / "stage-3" if start is None else start
    files = find_checkpoint(source)
    trainer, head = Trainer(config, folder, start=source, cpu=cpu), config.witness
    target = folder / "voice"

    def write(path: Path) -> None:
        shutil.copytree(files.folder, path, dirs_exist_ok=True)
        trainer.voice_head(path, head)

    if trainer.accelerator.is_main_process:
        replace_folder(target, write)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return target


def _same_everywhere(contents: Corpora) -> None:
    """Check that all processes leave out the same pieces: their batches depend on the rest.

    Raises:
        DataError: one finds a fault in a recording that another does not.
    """
    from accelerate.utils import gather_object

    seen: list[set[tuple[Path, Fault]]] = gather_object([set(contents.faults.items())])
    different = [path for path, _ in seen[0].union(*seen) - seen[0].intersection(*seen)]
    if different:
        raise DataError(
            f"{min(different)}: got a recording that some of {len(seen)} processes cannot hear, "
            "expected the same audio for all; copy it to every machine"
        )


def _remarks(contents: Corpora) -> list[str]:
    """Return how many pieces are used, and why the others are not."""
    remarks = []
    for name, pieces in (("train", contents.train), ("check", contents.check)):
        remarks.append(f"{name}: {len(pieces.used)} pieces")
        for reason, count in pieces.left_out.items():
            remarks.append(f"{name}: {count} pieces left out: {reason}")
    for reason, entry in contents.notes.to_json("dropped").items():
        remarks.append(f"recordings, {reason}: {entry['count']}")
        remarks += (f"  {message}" for message in entry["first"])
    return remarks


def _nothing(text: str) -> None:
    """Ignores a message."""


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as trackers take them: one level, numbers and text."""
    flat: dict[str, Any] = {}
    items: Iterable[tuple[str, Any]] = values.items()
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, int | float | str) else str(value)
    return flat
