"""Training stages: killed and resumed, labels of a batch, the exported checkpoint."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.data import sentences
from speaker_reasoner.data.dialogues import dialogue, single_turn
from speaker_reasoner.data.simulate import BankConfig, MeetingConfig, bank, meeting
from speaker_reasoner.data.voices import available
from speaker_reasoner.engines.thinker import audio_tokens, encode_audio
from speaker_reasoner.errors import CheckpointError
from speaker_reasoner.protocol import Answer, Profile, load_profile, pieces
from speaker_reasoner.reasoner import Dialogue, Stop, run
from speaker_reasoner.train import loop, stages
from speaker_reasoner.train.batches import IGNORED, MOST_SPEAKERS, Batch, Clip, Example, references
from speaker_reasoner.train.loop import Machine, Schedule, Task
from speaker_reasoner.train.model import Learner, LossWeights
from speaker_reasoner.train.scratch import make_thinker, make_tokenizer
from speaker_reasoner.train.stages import StageConfig, Trainer, TrainingConfig

from .conftest import TINY

STAGES = {
    "warm-up": "warm_up",
    "single-pass": "single_pass",
    "dialogues": "dialogues",
    "cached": "cached",
}
CPU = torch.device("cpu")


def stage(of: StageConfig) -> StageConfig:
    """The same losses and kind of data, four short steps."""
    schedule = Schedule(4, 1e-3, warm_up_steps=2)
    kinds = tuple(replace(kind, audio_s=6.0) for kind in of.kinds)
    return replace(of, schedule=schedule, kinds=kinds, chunk_s=(2.0, 5.0))


FULL = TrainingConfig()
CONFIG = replace(
    FULL,
    seed=5,
    tiny=replace(TINY, vocabulary=600),
    layer=1,
    training=BankConfig(evaluation=False, voices=4, sentences=3, backchannels=2),
    meetings=MeetingConfig(speakers=(1, 2), reverb_rate=0.0, warp=(0.95, 1.05)),
    warm_up=stage(FULL.warm_up),
    single_pass=stage(FULL.single_pass),
    dialogues=stage(FULL.dialogues),
    cached=stage(FULL.cached),
    most_people=2,
)


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not available("espeak"):
        pytest.skip("espeak-ng is not installed: pip install 'speaker-reasoner[simulate]'")
    folder = tmp_path_factory.getbasetemp() / "banks"
    bank(CONFIG.training, folder)
    return folder


@pytest.fixture
def trainer(banks: Path, monkeypatch: Any) -> Callable[[Path], Trainer]:
    """Makes the trainer of a folder: a quickly trained tokenizer, every step saved."""
    texts = stages._tokenizer_texts(CONFIG)
    monkeypatch.setattr(stages, "_tokenizer_texts", lambda config: texts[:900] + texts[12_000:])

    def make(folder: Path) -> Trainer:
        folder.mkdir(exist_ok=True)
        if not (folder / "banks").exists():
            (folder / "banks").symlink_to(banks)
        made = Trainer(CONFIG, folder, CPU)
        made.machine = Machine(CPU, bf16=False, save_every_s=0.0)
        return made

    return make


class Killed(Exception):
    """What the test raises where a process would be killed."""


def watch(monkeypatch: Any, kill_at: int | None = None) -> list[int]:
    """Check after every step, note the steps that are drawn, and raise at one of them."""
    drawn: list[int] = []

    def watched(task: Task, learner: Any, folder: Path, machine: Machine) -> None:
        def draw(step: int) -> tuple[Batch, LossWeights]:
            if step == kill_at:
                raise Killed
            drawn.append(step)
            return task.draw(step)

        loop.run(replace(task, draw=draw, check_steps=1), learner, folder, machine)

    monkeypatch.setattr(stages, "run", watched)
    return drawn


def log(folder: Path) -> Iterator[tuple[int, str, float]]:
    for row in (folder / "log.jsonl").read_text().splitlines():
        values = json.loads(row)
        for name, value in values["check"].items():
            yield values["step"], name, value


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    trainer: Callable[[Path], Trainer], tmp_path: Path, monkeypatch: Any, name: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    watch(monkeypatch)
    getattr(trainer(whole), STAGES[name])()
    watch(monkeypatch, kill_at=2)
    with pytest.raises(Killed):
        getattr(trainer(cut), STAGES[name])()
    drawn = watch(monkeypatch)
    getattr(trainer(cut), STAGES[name])()
    assert drawn == [2, 3]
    expected, got = list(log(whole)), list(log(cut))
    assert len(expected) >= 4 * 6
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert [row[2] for row in got] == pytest.approx([row[2] for row in expected], abs=1e-6)
    losses = {step: value for step, kind, value in got if kind == "word"}
    assert losses[1] != losses[4]
    drawn = watch(monkeypatch)  # a finished stage is not trained again
    getattr(trainer(cut), STAGES[name])()
    assert drawn == []


def test_a_damaged_checkpoint_is_told(
    trainer: Callable[[Path], Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    watch(monkeypatch, kill_at=1)
    with pytest.raises(Killed):
        trainer(tmp_path).warm_up()
    path = tmp_path / "warm-up.pt"
    state = torch.load(path, weights_only=True)
    data = path.read_bytes()
    state["learner"].pop("word_scale")
    for damage in (b"", b"junk", data[: len(data) // 2], None):
        if damage is None:
            torch.save(state, path)
        else:
            path.write_bytes(damage)
        with pytest.raises(CheckpointError, match="delete it") as caught:
            trainer(tmp_path).warm_up()
        assert "\n" not in str(caught.value)


def test_nothing_held_out_is_ever_heard(trainer: Callable[[Path], Trainer], tmp_path: Path) -> None:
    """Neither by training nor by the check: one bank serves both."""
    made = trainer(tmp_path)
    assert not FULL.training.evaluation
    assert not any(voice.base.held_out for voice in made.bank.voices)
    said = {e.text for row in made.bank.entries for e in row if not e.backchannel}
    assert said and not any(sentences.held_out(text) for text in said)


def talks(made: Trainer) -> list[Example]:
    config = replace(CONFIG.meetings, max_duration_s=9.0, silence_rate=0.0)
    meetings = [meeting(made.bank, config, seed) for seed in range(3)]
    profile = CONFIG.profile
    traces = [
        dialogue(references(meetings[0]), len(meetings[0].samples), profile),
        dialogue(references(meetings[1]), len(meetings[1].samples), profile, answer=False),
        single_turn("base", references(meetings[2]), len(meetings[2].samples), profile),
    ]
    return [
        Example(trace, (Clip(held.samples, held.spoken),))
        for held, trace in zip(meetings, traces, strict=True)
    ]


def test_the_assistants_tokens_alone_are_taught(
    trainer: Callable[[Path], Trainer], tmp_path: Path
) -> None:
    made = trainer(tmp_path)
    examples = talks(made)
    traces = [example.trace for example in examples]
    batch = made.batcher.batch(examples, random.Random(0), augment=False)
    tokenizer, audio_id = made.tokenizer, made.batcher.audio_id
    counts = iter(audio_tokens(made.learner.thinker, batch.feature_mask.sum(-1)))
    for row, trace in enumerate(traces):
        ids: list[int] = []
        labels: list[int] = []
        for piece in pieces(trace.parts, tokenizer, made.batcher.end_id):
            own = [audio_id] * next(counts) if piece.audio else list(piece.ids)
            ids += own
            labels += own if piece.learned else [IGNORED] * len(own)
        length = len(ids)
        assert batch.ids[row, :length].tolist() == ids
        assert batch.labels[row, :length].tolist() == labels
        assert batch.mask[row].tolist() == [1] * length + [0] * (batch.ids.shape[1] - length)
        assert (batch.labels[row, length:] == IGNORED).all()
        taught = tokenizer.decode([i for i in labels if i != IGNORED])
        ends = ["<|im_end|>" if part.closed else "" for part in trace.answers]
        assert taught == "".join(a.text + e for a, e in zip(trace.answers, ends, strict=True))
    assert next(counts, None) is None
    assert not traces[1].answers[-1].closed and int(batch.labels[1, -1]) == IGNORED


def test_every_placeholder_has_its_frame(
    trainer: Callable[[Path], Trainer], tmp_path: Path
) -> None:
    made = trainer(tmp_path)
    examples = talks(made)
    traces = [example.trace for example in examples]
    batch = made.batcher.batch(examples, random.Random(0), augment=False)
    frames = int((batch.ids == made.batcher.audio_id).sum())
    with torch.no_grad():
        heard = encode_audio(made.learner.thinker, batch.features, batch.feature_mask)
    assert sum(len(clip) for clip in heard) == frames
    for name in ("word", "gender", "voice", "utterance", "speaker", "second", "tenth"):
        assert getattr(batch, name).shape == (frames,)
    silent = batch.word == made.batcher.audio_id
    assert ((batch.gender == 0) == silent).all() and ((batch.voice == IGNORED) == silent).all()
    assert ((batch.speaker == 0) == silent).all() and 0.1 < silent.float().mean() < 0.9
    first = len(heard[0])
    times = batch.second[:first] * 10 + batch.tenth[:first]
    assert (times.diff() >= 0).all() and int(times[-1]) <= len(
        examples[0].clips[0].samples
    ) // 1600 + 1
    spoken = examples[0].clips[0].spoken[0]
    word = spoken.words[0]
    at = (word.start_samples + word.end_samples) // 2
    frame = at // 16_000 * 13 + at % 16_000 // 1280
    assert int(batch.word[frame]) == made.batcher.word_id(word.text)
    assert int(batch.speaker[frame]) == 1
    people = [{int(v) for v in batch.voice[:first] if v != IGNORED}]
    people.append({int(v) for v in batch.voice[-len(heard[-1]) :] if v != IGNORED})
    assert len(people[0]) == len({s.speaker for s in examples[0].clips[0].spoken})
    assert not people[0] & people[1]  # nobody is in two meetings of a batch
    assert batch.audio_s == pytest.approx(
        sum(p.end_samples - p.start_samples for t in traces for p in t.audio) / 16_000
    )


def test_augmentation_colours_each_meeting_and_silences_bands(
    trainer: Callable[[Path], Trainer], tmp_path: Path
) -> None:
    made = trainer(tmp_path)
    examples = talks(made)
    traces = [example.trace for example in examples]
    plain = made.batcher.batch(examples, random.Random(0), augment=False)
    varied = made.batcher.batch(examples, random.Random(0), augment=True)
    silenced = (varied.features == 0).all(-1)  # [N, mels]
    assert 0 < int(silenced.sum(-1).max()) <= 24
    gains = varied.features - plain.features
    clips = [len(trace.audio) for trace in traces]
    for clip in (0, 1, clips[0]):
        kept = ~silenced[clip]
        across = gains[clip][kept]  # one gain for each mel bin, whatever the frame
        assert torch.allclose(across, across[:, :1].expand_as(across), atol=1e-5)
        assert 0.005 < float(across.abs().max()) <= 0.361
    both = ~silenced[0] & ~silenced[1] & ~silenced[clips[0]]  # the chunk and its first slice
    assert torch.allclose(gains[0][both, 0], gains[1][both, 0], atol=1e-5)
    assert not torch.allclose(gains[0][both, 0], gains[clips[0]][both, 0], atol=1e-3)
    assert torch.equal(plain.ids, varied.ids) and torch.equal(plain.labels, varied.labels)


def test_the_voice_loss_tells_people_apart() -> None:
    """It falls when frames of one person come together, and counts pairs that are judged right."""
    learner = make_learner()
    voice = torch.tensor([1, 1, 2, 2, MOST_SPEAKERS + 1, IGNORED])
    points = torch.eye(4)[[0, 0, 1, 1, 2, 3]]
    with torch.no_grad():
        learner.voice.weight.zero_()
        learner.voice.weight[:4, :4] = torch.eye(4)
        learner.voice.bias.zero_()
    width = learner.voice.in_features
    frames = torch.zeros(6, width)
    frames[:, :4] = points
    apart, right = learner._same_frames(frames, voice)
    together, wrong = learner._same_frames(torch.ones(6, width), voice)
    assert right.item() == 1.0 and wrong.item() == pytest.approx(1 / 3)
    assert apart.item() < together.item()
    nobody, _ = learner._same_frames(frames, torch.full((6,), IGNORED))
    assert nobody.item() == 0.0


def make_learner() -> Learner:
    texts = stages._tokenizer_texts(CONFIG)[:300]
    thinker = make_thinker(make_tokenizer(texts, 400), TINY)
    return Learner(thinker, speakers=4, seconds=20, layer=1)


def test_the_exported_checkpoint_transcribes(
    trainer: Callable[[Path], Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    made = trainer(tmp_path / "run")
    watch(monkeypatch)
    made.warm_up()
    made.single_pass()
    made.dialogues()
    made.cached()
    made.export(tmp_path / "model")
    engine = load_engine(tmp_path / "model", device="cpu")
    assert engine.profile.training["stage"] == "cached"
    assert engine.profile.training["config"]["seed"] == 5
    assert replace(engine.profile, training={}) == CONFIG.profile
    talk = Dialogue(meeting(made.bank, CONFIG.meetings, 1).samples, engine.profile)
    for _ in run([talk], engine):
        pass
    assert talk.outcome is not None
    assert talk.outcome.stop in (Stop.ANSWERED, Stop.TURN_LIMIT), talk.outcome.detail
    assert isinstance(talk.outcome.trace.parts[-1], Answer)


def test_train_runs_the_stages_in_order(banks: Path, tmp_path: Path, monkeypatch: Any) -> None:
    done: list[str] = []
    monkeypatch.setattr(
        stages, "run", lambda task, learner, folder, machine: done.append(task.name)
    )
    texts = stages._tokenizer_texts(CONFIG)[:900]
    monkeypatch.setattr(stages, "_tokenizer_texts", lambda config: texts)
    (tmp_path / "banks").symlink_to(banks)
    trainer = stages.train(CONFIG, tmp_path, CPU)
    assert done == list(STAGES)
    trainer.export(tmp_path / "model")
    done.clear()
    again = stages.train(CONFIG, tmp_path, CPU, start=tmp_path / "model")
    assert done == ["cached"]
    weights = trainer.learner.thinker.state_dict()
    for name, value in again.learner.thinker.state_dict().items():
        assert torch.equal(value, weights[name].float()), name
    again.export(tmp_path / "again")
    profile = load_profile(tmp_path / "again")
    assert profile is not None and profile.training["start"]["stage"] == "cached"
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        stages.train(CONFIG, tmp_path, CPU, start=tmp_path)


def test_the_schedule() -> None:
    rates = [Schedule(1000, 1e-3, warm_up_steps=50, floor=0.1).rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(2e-5) and max(rates) < 1e-3 + 1e-9
    assert int(np.argmax(rates)) in range(49, 60)
    assert rates[-1] == pytest.approx(1e-4, rel=0.01)
    assert rates[60:] == sorted(rates[60:], reverse=True)


def test_the_embedded_checkpoints_profile_holds_its_meetings() -> None:
    """Chunks fit the profile, and simulated speakers its labels."""
    profile: Profile = FULL.profile
    for one in (FULL.warm_up, FULL.single_pass, FULL.dialogues):
        assert one.chunk_s[1] <= profile.chunk_s
    assert FULL.meetings.speakers[1] <= profile.max_speakers
