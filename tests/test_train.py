"""Training stages on simulated meetings: killed and resumed, labels of a batch, the checkpoint."""

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
from speaker_reasoner.data.banks import BankConfig, bank
from speaker_reasoner.data.dialogues import dialogue, single_turn
from speaker_reasoner.data.simulate import MeetingConfig, meeting
from speaker_reasoner.data.synthesisers import available
from speaker_reasoner.engines.pitch import PITCHES
from speaker_reasoner.engines.thinker import audio_tokens, audio_tower, encode_audio, text_model
from speaker_reasoner.engines.voice_head import load_voice_head
from speaker_reasoner.errors import CheckpointError, DataError, OutputError
from speaker_reasoner.protocol import Answer, load_profile, pieces
from speaker_reasoner.reasoner import Dialogue, Stop, run
from speaker_reasoner.train import loop, models, stages
from speaker_reasoner.train.accelerators import PreparedLearner
from speaker_reasoner.train.batches import (
    IGNORED,
    MOST_SPEAKERS,
    Batcher,
    Clip,
    Example,
    Frames,
)
from speaker_reasoner.train.config import SimulatedConfig, StageConfig, load_config
from speaker_reasoner.train.learner import Heads
from speaker_reasoner.train.log import Log
from speaker_reasoner.train.loop import Drawn, StageTask
from speaker_reasoner.train.saves import replace_file, replace_folder
from speaker_reasoner.train.schedule import RunConfig, Schedule
from speaker_reasoner.train.simulated import Simulated, references, tokenizer_texts
from speaker_reasoner.train.stages import Trainer
from speaker_reasoner.train.voice_head import WitnessConfig, calibrate, train_witness, witness_loss

from .conftest import TINY
from .talk import Killed

STAGES = ("warm_up", "single_pass", "dialogues", "cached")


def short(of: StageConfig | None) -> StageConfig:
    """The same losses and kind of data, four short steps."""
    assert of is not None
    schedule = Schedule(4, 1e-3, warm_up_steps=2)
    kinds = tuple(replace(kind, audio_s=6.0) for kind in of.kinds)
    return replace(of, schedule=schedule, kinds=kinds, chunk_s=(2.0, 5.0))


FULL = load_config("tiny")
CONFIG = replace(
    FULL,
    witness=None,
    seed=5,
    model=replace(FULL.model, tiny=replace(TINY, vocabulary=600), layer=1),
    run=RunConfig(bf16=False, log_steps=1, check_steps=1, save_every_s=0.0),
    simulated=SimulatedConfig(
        bank=BankConfig(evaluation=False, voices=4, sentences=3, backchannels=2),
        meetings=MeetingConfig(speakers=(1, 2), reverb_rate=0.0, warp=(0.95, 1.05)),
        most_people=2,
    ),
    warm_up=short(FULL.warm_up),
    single_pass=short(FULL.single_pass),
    dialogues=short(FULL.dialogues),
    cached=short(FULL.cached),
)


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not available("espeak"):
        pytest.skip("espeak-ng is not installed: pip install 'speaker-reasoner[simulate]'")
    folder = tmp_path_factory.getbasetemp() / "banks"
    assert CONFIG.simulated is not None
    bank(CONFIG.simulated.bank, folder)
    return folder


@pytest.fixture
def trainer(banks: Path, monkeypatch: Any) -> Callable[..., Trainer]:
    """Makes the trainer of a folder, with a quickly trained tokenizer."""
    texts = tokenizer_texts(CONFIG)
    monkeypatch.setattr(models, "tokenizer_texts", lambda config: texts[:900] + texts[12_000:])

    def make(
        folder: Path, config: Any = CONFIG, start: Path | None = None, first: str | None = None
    ) -> Trainer:
        folder.mkdir(exist_ok=True)
        if not (folder / "banks").exists():
            (folder / "banks").symlink_to(banks)
        return Trainer(config, folder, start=start, cpu=True, first=first)

    return make


AVERAGED = replace(CONFIG, run=replace(CONFIG.run, average=0.9))


def watch(monkeypatch: Any, kill_at: int | None = None) -> list[int]:
    """Note the steps that are drawn, and raise at one of them."""
    drawn: list[int] = []

    def watched(
        task: StageTask, prepared: PreparedLearner, folder: Path, config: RunConfig, say: Any
    ) -> None:
        def draw(step: int, part: int) -> Drawn:
            if step == kill_at:
                raise Killed
            drawn.append(step)
            return task.draw(step, part)

        loop.run(replace(task, draw=draw), prepared, folder, config, say)

    monkeypatch.setattr(stages, "run", watched)
    return drawn


def log(folder: Path) -> Iterator[tuple[int, str, float]]:
    for row in (folder / "log.jsonl").read_text().splitlines():
        values = json.loads(row)
        for name, value in (values.get("check") or values).items():
            if name not in ("stage", "step", "audio_s_per_s"):
                yield values["step"], name, value


@pytest.mark.no_cover
@pytest.mark.parametrize("name", STAGES)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any, name: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    watch(monkeypatch)
    trainer(whole, AVERAGED)._run(name)
    watch(monkeypatch, kill_at=2)
    with pytest.raises(Killed):
        trainer(cut, AVERAGED)._run(name)
    with (cut / "log.jsonl").open("a") as file:  # rows after the last save, and a cut one
        file.write(f'{{"stage": "{name.replace("_", "-")}", "step": 3, "word": 0}}\n{{"sta')
    drawn = watch(monkeypatch)
    trainer(cut, AVERAGED)._run(name)
    assert drawn == [2, 3]
    expected, got = list(log(whole)), list(log(cut))
    assert len(expected) >= 4 * 8
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert [row[2] for row in got] == pytest.approx([row[2] for row in expected], abs=1e-6)
    losses = {step: value for step, kind, value in got if kind == "word"}
    assert losses[1] != losses[4]
    drawn = watch(monkeypatch)  # a finished stage is not trained again
    trainer(cut, AVERAGED)._run(name)
    assert drawn == []


def test_a_stage_ends_with_the_average_of_its_weights(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    made = trainer(tmp_path, AVERAGED)
    name = "heads.word_scale"
    learner = made.prepared.learner
    value = dict(learner.named_parameters())[name]
    passed = [value.detach().clone()]
    step = loop.train_step

    def watched(*arguments: Any) -> Any:
        losses = step(*arguments)
        passed.append(value.detach().clone())
        return losses

    monkeypatch.setattr(loop, "train_step", watched)
    made._run("warm_up")
    average = passed[0]
    for number, after in enumerate(passed[1:]):
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * after
    assert len(passed) == 5 and not torch.allclose(average, passed[-1], atol=1e-7)
    assert torch.allclose(value, average, atol=1e-7)
    taken = trainer(tmp_path)  # the next stage begins there, however it is trained itself
    taken.take_up("warm_up")
    assert torch.equal(dict(taken.prepared.learner.named_parameters())[name], value)


def test_a_damaged_checkpoint_is_told(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    watch(monkeypatch, kill_at=1)
    with pytest.raises(Killed):
        trainer(tmp_path)._run("warm_up")
    path = tmp_path / "warm-up.pt"
    state = torch.load(path, weights_only=True)
    data = path.read_bytes()
    state["weights"].pop("heads.word_scale")
    for damage in (b"", b"junk", data[: len(data) // 2], None):
        if damage is None:
            torch.save(state, path)
        else:
            path.write_bytes(damage)
        with pytest.raises(CheckpointError, match="delete it") as caught:
            trainer(tmp_path)._run("warm_up")
        assert "\n" not in str(caught.value)


def test_nothing_held_out_is_ever_heard(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    """Neither by training nor by the check: one bank serves both."""
    source = trainer(tmp_path).source
    assert isinstance(source, Simulated)
    assert not any(voice.base.held_out for voice in source.bank.voices)
    said = {e.text for row in source.bank.entries for e in row if not e.backchannel}
    assert said and not any(sentences.held_out(text) for text in said)


def batcher_of(made: Trainer) -> Batcher:
    assert isinstance(made.source, Simulated)
    return made.source.batcher


def talks(made: Trainer) -> list[Example]:
    assert isinstance(made.source, Simulated)
    config = replace(made.source.simulated.meetings, max_duration_s=9.0, silence_rate=0.0)
    meetings = [meeting(made.source.bank, config, seed) for seed in range(3)]
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
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    made = trainer(tmp_path)
    examples, batcher = talks(made), batcher_of(made)
    traces = [example.trace for example in examples]
    batch = batcher.batch(examples, random.Random(0), augment=False)
    tokenizer, audio_id = made.model.tokenizer, batcher.audio_id
    counts = iter(audio_tokens(made.model.thinker, batch.feature_mask.sum(-1)))
    begin = 0
    for row, trace in enumerate(traces):
        ids: list[int] = []
        labels: list[int] = []
        for piece in pieces(trace.parts, tokenizer, batcher.end_id):
            own = [audio_id] * next(counts) if piece.audio else list(piece.ids)
            ids += own
            labels += own if piece.learned else [IGNORED] * len(own)
        end = begin + len(ids)
        assert len(ids) == batcher.tokens(trace) == int(batch.lengths[row])
        assert batch.ids[begin:end].tolist() == ids
        assert batch.labels[begin:end].tolist() == labels
        assert batch.following()[begin:end].tolist() == [*labels[1:], IGNORED]
        begin = end
        taught = tokenizer.decode([i for i in labels if i != IGNORED])
        ends = ["<|im_end|>" if part.closed else "" for part in trace.answers]
        assert taught == "".join(a.text + e for a, e in zip(trace.answers, ends, strict=True))
    assert next(counts, None) is None and begin == len(batch.ids)
    assert not traces[1].answers[-1].closed


def test_every_placeholder_has_its_frame(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    made = trainer(tmp_path)
    examples, batcher = talks(made), batcher_of(made)
    traces = [example.trace for example in examples]
    batch = batcher.batch(examples, random.Random(0), augment=False)
    held = batch.frames
    assert held is not None
    frames = int((batch.ids == batcher.audio_id).sum())
    with torch.no_grad():
        clips = encode_audio(made.model.thinker, batch.features, batch.feature_mask)
    assert sum(len(clip) for clip in clips) == frames
    for name in Frames.__slots__:
        assert getattr(held, name).shape == (frames,)
    silent = held.word == batcher.audio_id
    assert ((held.gender == 0) == silent).all() and ((held.voice == IGNORED) == silent).all()
    assert ((held.speaker == 0) == silent).all() and 0.1 < silent.float().mean() < 0.9
    first = len(clips[0])
    times = held.second[:first] * 10 + held.tenth[:first]
    chunk = examples[0].clips[0]
    assert chunk.spoken is not None
    assert (times.diff() >= 0).all() and int(times[-1]) <= len(chunk.samples) // 1600 + 1
    word = chunk.spoken[0].words[0]
    at = (word.start_samples + word.end_samples) // 2
    frame = at // 16_000 * 13 + at % 16_000 // 1280
    assert (
        int(held.word[frame]) == batcher.word_ids(word.text)[len(batcher.word_ids(word.text)) // 2]
    )
    assert int(held.speaker[frame]) == 1
    people = [{int(v) for v in held.voice[:first] if v != IGNORED}]
    people.append({int(v) for v in held.voice[-len(clips[-1]) :] if v != IGNORED})
    assert len(people[0]) == len({s.speaker for s in chunk.spoken})
    assert not people[0] & people[1]  # nobody is in two meetings of a batch
    assert batch.audio_s == pytest.approx(
        sum(p.end_samples - p.start_samples for t in traces for p in t.audio) / 16_000
    )
    unknown = [Example(e.trace, (Clip(e.clips[0].samples),)) for e in examples]
    without = batcher.batch(unknown, random.Random(0), augment=False)
    assert without.frames is None and torch.equal(without.ids, batch.ids)


def test_augmentation_colours_each_meeting_and_silences_bands(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    made = trainer(tmp_path)
    examples, batcher = talks(made), batcher_of(made)
    traces = [example.trace for example in examples]
    plain = batcher.batch(examples, random.Random(0), augment=False)
    varied = batcher.batch(examples, random.Random(0), augment=True)
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
    heads = Heads(width=64, speakers=4, seconds=20, layer=1)
    voice = torch.tensor([1, 1, 2, 2, MOST_SPEAKERS + 1, IGNORED])
    points = torch.eye(4)[[0, 0, 1, 1, 2, 3]]
    with torch.no_grad():
        heads.voice.weight.zero_()
        heads.voice.weight[:4, :4] = torch.eye(4)
        heads.voice.bias.zero_()
    frames = torch.zeros(6, 64)
    frames[:, :4] = points
    apart, right = heads.same_frames(frames, voice)
    together, wrong = heads.same_frames(torch.ones(6, 64), voice)
    assert right.item() == 1.0 and wrong.item() == pytest.approx(1 / 3)
    assert apart.item() < together.item()
    nobody, _ = heads.same_frames(frames, torch.full((6,), IGNORED))
    assert nobody.item() == 0.0


def test_batches_of_a_step_take_the_same_time(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """They are of one kind and chunk length, which differ from step to step; their meetings differ."""
    made = trainer(tmp_path, replace(CONFIG, run=replace(CONFIG.run, batches_per_step=2)))
    kinds = set()
    for step in range(16):
        drawn = [made.source.draw("dialogues", step, part) for part in range(2)]
        (one, weights), (other, same) = drawn
        assert weights == same
        assert len(one.lengths) == len(other.lengths) >= 1
        assert not torch.equal(one.features, other.features)
        kinds.add(weights)
    assert len(kinds) > 1


def test_the_word_loss_tells_some_tokens_apart() -> None:
    """As that of a smaller vocabulary does."""
    torch.manual_seed(0)
    table, audio = torch.randn(9, 16), torch.randn(5, 16)
    kept = torch.tensor([1, 4, 8])
    rest = [torch.zeros(5, dtype=torch.long)] * 5
    some = Heads(width=16, speakers=4, seconds=20, layer=1, words=kept, scale=3.5)
    small = Heads(width=16, speakers=4, seconds=20, layer=1, scale=3.5)
    small.load_state_dict(some.state_dict())
    word = torch.tensor([0, 2, 1, 1, 2])
    one = some.tower_losses(audio, table, Frames(kept[word], *rest, rest[0]))["word"]
    other = small.tower_losses(audio, table[kept], Frames(word, *rest, rest[0]))["word"]
    assert torch.allclose(one, other) and some.word_scale.item() == 3.5


def test_a_step_is_the_mean_over_its_batches(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """Whatever their sizes: gradients of two batches are those of both as one."""
    made = trainer(tmp_path, replace(CONFIG, run=replace(CONFIG.run, batches_per_step=2)))
    learner, examples = made.prepared.learner, talks(made)
    weights = replace(CONFIG.weights["all"], voice=0.0, utterance=0.0)  # means over pairs
    whole = batcher_of(made).batch(examples, random.Random(0), augment=False)
    parts = [
        batcher_of(made).batch(part, random.Random(0), augment=False)
        for part in (examples[:1], examples[1:])
    ]
    counts = learner.counts(whole, weights)
    assert counts["answer"] == sum(learner.counts(part, weights)["answer"] for part in parts)
    losses = learner(whole, weights)
    total = sum(getattr(weights, name) * losses[name][0] / n for name, n in counts.items())
    torch.autograd.backward(total)
    expected = {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}
    learner.zero_grad()
    drawn = [(part, weights) for part in parts]
    seen: list[dict[str, torch.Tensor]] = []
    made.accelerator.clip_grad_norm_ = lambda parameters, norm: seen.append(
        {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}
    )
    means = loop.train_step(made.prepared, drawn, 0.0, 1.0).means(made.accelerator)
    assert means["answer"] == pytest.approx(
        float(losses["answer"][0].detach()) / counts["answer"], rel=1e-5
    )
    assert len(seen) == 1 and seen[0].keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(seen[0][name], gradient, atol=1e-6), name


def test_the_checkpoints_transcribe(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    """One folder a stage, loadable at once; only the last has heard a speaker cache."""
    done: list[str] = []
    monkeypatch.setattr(stages, "run", lambda task, *rest: done.append(task.name))
    trainer(tmp_path / "run")
    folders = stages.train(CONFIG, tmp_path / "run", cpu=True)
    assert done == ["warm-up", "single-pass", "dialogues", "cached"]
    assert [folder.name for folder in folders] == ["stage-1", "stage-2", "stage-3"]
    profiles = [load_profile(folder) for folder in folders]
    assert [p.cache_s for p in profiles if p] == [0.0, 0.0, CONFIG.profile.cache_s]
    engine = load_engine(folders[-1], device="cpu")
    record = engine.profile.training
    assert record["stage"] == "cached" and record["config"]["seed"] == 5
    assert len(record.get("commit", "0" * 40)) == 40
    assert replace(engine.profile, training={}) == CONFIG.profile
    talk = Dialogue(np.zeros(40_000, np.float32), engine.profile)
    for _ in run([talk], engine):
        pass
    assert talk.outcome is not None
    assert talk.outcome.stop in (Stop.ANSWERED, Stop.TURN_LIMIT), talk.outcome.detail
    assert isinstance(talk.outcome.trace.parts[-1], Answer)


def test_a_stage_begins_from_a_checkpoint_or_from_the_stage_before(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    first = trainer(tmp_path / "run")
    with pytest.raises(DataError, match="has not ended there"):
        stages.train(CONFIG, tmp_path / "run", stages=[2], cpu=True)
    folder = first.single_pass()
    done: list[str] = []
    monkeypatch.setattr(stages, "run", lambda task, *rest: done.append(task.name))
    weights = {n: p.clone() for n, p in first.prepared.learner.named_parameters()}
    second = trainer(tmp_path / "run")
    second.take_up("single_pass")
    for name, value in second.prepared.learner.named_parameters():
        if value.requires_grad:
            assert torch.equal(value, weights[name]), name
    third = trainer(tmp_path / "other", start=folder)
    for name, value in third.model.thinker.named_parameters():
        assert torch.equal(value, weights[f"thinker.{name}"].bfloat16().float()), name
    again = third.single_pass()
    assert done == ["single-pass"]  # a model that has been trained does not warm up
    profile = load_profile(again)
    assert profile is not None
    before = profile.training["before"]
    assert before[profile.training["start"]]["stage"] == "single_pass"
    with pytest.raises(CheckpointError, match=r"config\.json"):
        trainer(tmp_path / "none", start=tmp_path)


def test_heads_settle_before_a_checkpoint_is_touched(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    """A checkpoint has no heads: new ones are taught first, on a thinker that stays as it is."""
    start = trainer(tmp_path / "run").single_pass()
    config = replace(CONFIG, model=replace(CONFIG.model, heads_steps=25))
    new = trainer(tmp_path / "new", config, start=start)
    settled = trainer(tmp_path / "settled", config, start=start, first="dialogues")
    for (name, before), after in zip(
        new.prepared.learner.named_parameters(),
        settled.prepared.learner.parameters(),
        strict=True,
    ):
        assert before.requires_grad == after.requires_grad, name
        assert torch.equal(before, after) == name.startswith("thinker."), name
    far = [settled.source.draw("dialogues", 2 * 10**6 + step, 0) for step in range(3)]
    drawn, [weights, *_] = zip(*far, strict=True)
    batches = [(batch, weights) for batch in drawn]
    losses = [loop.check(one.prepared, batches) for one in (new, settled)]
    for name in ("word", "speaker", "time"):
        assert losses[1][name] < losses[0][name], name
    begun = settled._saves("dialogues")
    begun.save(1)
    monkeypatch.setattr(stages, "settle", lambda *_, **__: pytest.fail("settled again"))
    trainer(tmp_path / "settled", config, start=start, first="dialogues")


def test_a_full_disk(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any, file_size_limit: Any
) -> None:
    """What was saved before stays whole, and nothing half-written is left."""
    made = trainer(tmp_path)
    made._run("warm_up")
    folder = made._finish("single_pass")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with file_size_limit(20_000):
        for act in (lambda: made._saves("warm_up").save(9), lambda: made.export("x", folder)):
            with pytest.raises(OutputError, match="disk full") as caught:
                act()
            assert "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    log = Log(tmp_path / "log.jsonl", "warm-up", made.accelerator)
    with file_size_limit(1), pytest.raises(OutputError, match=r"log\.jsonl: .*disk full"):
        log.write(9, {"word": 1.0})


def test_what_is_no_fault_of_the_disk_is_no_full_disk(tmp_path: Path) -> None:
    def buggy(path: Path) -> None:
        path.with_suffix(".part").touch()
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    for replace_it in (replace_file, replace_folder):
        with pytest.raises(RuntimeError, match="mat1") as caught:
            replace_it(tmp_path / "made", buggy)
        assert caught.value.__cause__ is None
    gone = tmp_path / "gone" / "warm-up.pt"
    with pytest.raises(OutputError, match="Parent directory"):
        replace_file(gone, lambda path: torch.save({}, path))
    assert not (tmp_path / "made").exists()


def test_the_model_transcribes_while_it_is_trained(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    pytest.importorskip("meeteval")
    config = replace(CONFIG.run, bf16=True, dialogue_steps=4, dialogues=2)
    made = trainer(tmp_path, replace(CONFIG, run=config))
    made._run("cached")
    rows = [json.loads(row) for row in (tmp_path / "log.jsonl").read_text().splitlines()]
    [scores] = [row["dialogues"] for row in rows if "dialogues" in row]
    assert scores.keys() == {"cpwer", "speaker_count", "finished"}
    assert scores["cpwer"] >= 0 and 0 <= scores["finished"] <= 1


def test_the_schedule() -> None:
    rates = [Schedule(1000, 1e-3, warm_up_steps=50, floor=0.1).rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(2e-5) and max(rates) < 1e-3 + 1e-9
    assert int(np.argmax(rates)) in range(49, 60)
    assert rates[-1] == pytest.approx(1e-4, rel=0.01)
    assert rates[60:] == sorted(rates[60:], reverse=True)


def test_a_voice_head_learns_who_is_who(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    made = trainer(tmp_path)
    assert isinstance(made.source, Simulated)
    voices, thinker = made.source.bank, made.model.thinker.eval()
    config = WitnessConfig(steps=12, people=3, clips=2, least_distance=0.0)
    head = train_witness(thinker, made.model.extractor, voices, config, 1)
    helped = train_witness(thinker, made.model.extractor, voices, config, 1, workers=1)
    for name, value in helped.state_dict().items():
        assert torch.equal(value, head.state_dict()[name]), name
    points = torch.nn.functional.normalize(torch.randn(3, 2, 8), dim=-1)
    apart = points[:, :1].expand(3, 2, 8)
    assert witness_loss(head, apart) < witness_loss(head, points)
    before = float(head.threshold.detach())
    meetings = replace(CONFIG.simulated.meetings, speakers=(2, 2), utterances=(6, 8))
    calibrate(head, thinker, made.model.extractor, voices, meetings, config, 1, count=3)
    assert float(head.threshold.detach()) != before
    head.save(tmp_path)
    again = load_voice_head(tmp_path, thinker)
    assert again is not None and again.tower is None
    assert float(again.spread) > 0 < float(again.noise)
    clips = [torch.randn(n, head.frames.in_features) for n in (5, 20)]
    sung = torch.rand(2, PITCHES)
    assert torch.allclose(again(clips, sung), head(clips, sung), atol=1e-6)
    assert torch.allclose(again(clips, sung).norm(dim=-1), torch.ones(2), atol=1e-5)
    assert not torch.allclose(again(clips, sung), again(clips, sung.flip(1)), atol=1e-3)
    assert load_voice_head(tmp_path / "nowhere", thinker) is None
    (tmp_path / "voice.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="not a voice head"):
        load_voice_head(tmp_path, thinker)
    with pytest.raises(DataError, match="differ enough"):
        many = WitnessConfig(steps=1, people=20, clips=1, least_distance=9.5)
        train_witness(thinker, made.model.extractor, voices, many, 1, workers=1)


def test_a_voice_head_teaches_a_tower_of_its_own(
    trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    """The same with workers; the tower it was copied from stays as it is."""
    made = trainer(tmp_path)
    assert isinstance(made.source, Simulated)
    thinker, extractor = made.model.thinker.eval(), made.model.extractor
    before = {name: value.clone() for name, value in thinker.state_dict().items()}
    config = WitnessConfig(steps=3, layers=1, people=3, clips=2, least_distance=0.0)
    heads = [
        train_witness(thinker, extractor, made.source.bank, config, 1, workers=n) for n in (0, 1)
    ]
    for name, value in thinker.state_dict().items():
        assert torch.equal(value, before[name]), name
    own, whole = audio_tower(heads[0].hearing(thinker)), audio_tower(thinker)
    assert own is not whole and len(own.layers) == 1
    for name, weight in whole.layers[0].named_parameters():  # its attention is the copy's own, too
        learned = dict(own.layers[0].named_parameters())[name]
        assert name.endswith("k_proj.bias") or not torch.equal(learned, weight), name
    for name, value in heads[0].state_dict().items():
        assert torch.equal(value, heads[1].state_dict()[name]), name


def test_a_voice_head_for_a_finished_checkpoint(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any
) -> None:
    """The weights stay as they are; the head is new."""
    folder = trainer(tmp_path / "run").single_pass()
    with pytest.raises(DataError, match="table witness"):
        stages.train_voice_head(CONFIG, tmp_path / "run", start=folder, cpu=True)
    monkeypatch.setattr(stages, "bank", lambda *_: None)
    monkeypatch.setattr(stages, "calibrate", lambda *_: None)
    head = WitnessConfig(steps=2, people=2, clips=2, least_distance=0.0)
    made = stages.train_voice_head(
        replace(CONFIG, witness=head), tmp_path / "run", start=folder, cpu=True
    )
    assert made == tmp_path / "run" / "voice"
    thinker = load_engine(made, device="cpu").checkpoint.thinker
    assert load_voice_head(folder, thinker) is None
    assert load_voice_head(made, thinker) is not None
    for file in folder.iterdir():
        assert (made / file.name).read_bytes() == file.read_bytes()


def losses_of(made: Trainer, stage: str, steps: int) -> list[dict[str, float]]:
    drawn = [made.source.draw(stage, step, 0) for step in range(steps)]
    made.prepared.learner.train_parts(())
    rows = [loop.train_step(made.prepared, [batch], 1e-3, 1.0) for batch in drawn]
    return [row.means(made.accelerator) for row in rows]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_learn_the_same(trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    plain = losses_of(trainer(tmp_path / "a"), "dialogues", 4)
    compiled = replace(CONFIG, run=replace(CONFIG.run, compile=True))
    made = trainer(tmp_path / "b", compiled)
    layer = text_model(made.model.thinker).layers[0]
    assert layer._compiled_call_impl is not None
    for own, expected in zip(losses_of(made, "dialogues", 4), plain, strict=True):
        assert own == pytest.approx(expected, abs=2e-3)


def test_what_cannot_be_compiled_is_said(
    trainer: Callable[..., Trainer], tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    made = trainer(tmp_path, replace(CONFIG, run=replace(CONFIG.run, compile=True)))
    assert text_model(made.model.thinker).layers[0]._compiled_call_impl is None
    assert "torch.compile failed (no C++ compiler); layers are not compiled" in caplog.text
    [row] = losses_of(made, "dialogues", 1)
    assert row["answer"] > 0
