"""Voices told apart: embeddings, and groups of them."""

import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.engines import Engine
from speaker_reasoner.engines.checkpoint import Checkpoint, load_checkpoint
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.pitch import PITCHES, melodies, pitches
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.engines.tower import TowerWitness
from speaker_reasoner.engines.voice_head import VOICE_FILE, VoiceHead
from speaker_reasoner.errors import CheckpointError, ExtraError, SettingsError
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.voices.others import ResemblyzerWitness, SpeechBrainWitness, XVectorWitness

from .vocal import voice

CLIPS = [
    voice(seconds, f0_hz, seed)
    for seed, (seconds, f0_hz) in enumerate(
        [(2.0, 110.0), (0.2, 210.0), (3.5, 110.0), (1.0, 210.0), (2.7, 150.0)]
    )
]


@pytest.fixture(scope="module")
def checkpoint(random_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(random_checkpoint, device="cpu")


@pytest.fixture
def with_head(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint with a voice head of random weights."""
    folder = tmp_path / "with-head"
    shutil.copytree(random_checkpoint, folder)
    torch.manual_seed(1)
    head = VoiceHead(64, hidden=12, size=6)
    with torch.no_grad():
        head.slope.fill_(float(np.log(10.0)))
        head.threshold.fill_(0.4)
    head.save(folder)
    return folder


# The tower


def check_points(points: Any, count: int) -> None:
    assert points.shape[0] == count
    assert points.dtype == np.float32
    assert np.allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-5)


def test_a_clip_is_the_same_point_in_any_company(checkpoint: Checkpoint) -> None:
    witness = TowerWitness(checkpoint)
    points = witness.embed(CLIPS)
    check_points(points, len(CLIPS))
    for clip, point in zip(CLIPS, points, strict=True):
        assert np.allclose(witness.embed([clip])[0], point, atol=1e-4)
    assert not np.allclose(points[0], points[4], atol=1e-3)


def test_long_lists_are_cut_into_batches(checkpoint: Checkpoint) -> None:
    clips = [voice(2.0, seed=seed) for seed in range(3)] * 14
    points = TowerWitness(checkpoint).embed(clips)
    check_points(points, 42)
    assert np.allclose(points[:3], points[-3:], atol=1e-4)


def test_no_clips_are_no_points(checkpoint: Checkpoint) -> None:
    assert len(TowerWitness(checkpoint).embed([])) == 0


def test_a_checkpoint_with_a_voice_head_uses_it(with_head: Path) -> None:
    witness = TowerWitness(load_checkpoint(with_head, device="cpu"))
    assert witness.scale == pytest.approx(10.0)
    assert witness.threshold == pytest.approx(0.4)
    points = witness.embed(CLIPS)
    check_points(points, len(CLIPS))
    assert points.shape[1] == 6
    assert np.allclose(witness.embed(CLIPS[2:3])[0], points[2], atol=1e-4)


def test_a_checkpoint_in_training_has_no_head(checkpoint: Checkpoint) -> None:
    c = checkpoint
    bare = Checkpoint(c.name, c.thinker, c.tokenizer, c.extractor, c.profile)
    assert TowerWitness(bare).name == "tower"


def test_a_head_of_another_tower(with_head: Path) -> None:
    VoiceHead(32, hidden=12, size=6).save(with_head)
    with pytest.raises(CheckpointError, match=rf"{VOICE_FILE}: .* 32 numbers; .* gives 64; train"):
        TowerWitness(load_checkpoint(with_head, device="cpu"))


def test_a_damaged_head(with_head: Path) -> None:
    (with_head / VOICE_FILE).write_bytes(b"\0" * 40)
    with pytest.raises(CheckpointError, match=VOICE_FILE):
        TowerWitness(load_checkpoint(with_head, device="cpu"))


# Pitch


def buzz(hertz: float, seconds: float = 1.0) -> Any:
    """A pulse train softened by a falling spectrum, with some noise: voiced speech at its plainest."""
    at = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    harmonics = range(1, int(4_000 / hertz))
    wave = sum(np.sin(2 * np.pi * hertz * n * at) / n for n in harmonics)
    noise = np.random.default_rng(0).standard_normal(len(at))
    return (0.1 * wave + 0.01 * noise).astype(np.float32)


@pytest.mark.parametrize("hertz", [70, 97, 120, 180, 251, 390])
def test_pitch_is_heard_right(hertz: float) -> None:
    frames_hz, voiced = pitches(buzz(hertz))
    assert np.allclose(frames_hz, hertz, rtol=0.01)
    assert voiced.min() > 0.9


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(1).standard_normal(SAMPLE_RATE_HZ).astype(np.float32)
    _, voiced = pitches(noise)
    assert voiced.mean() < 0.05
    rows = melodies(
        [np.zeros(SAMPLE_RATE_HZ, np.float32), np.zeros(0, np.float32), buzz(120)[:100]]
    )
    assert np.isfinite(rows).all()
    assert not rows[:2].any()


def test_melodies_are_the_less_alike_the_farther_apart() -> None:
    rows = melodies([buzz(hertz) for hertz in (120, 121, 134, 160)])
    assert rows.shape == (4, PITCHES)
    long = melodies([buzz(120, 61.0)])  # more frames than are looked at together
    assert np.allclose(long[0], rows[0], atol=0.01)
    alike = rows @ rows[0]
    assert alike[0] == pytest.approx(1.0, abs=0.01)
    assert alike[0] > alike[1] > alike[2] > alike[3]
    assert alike[2] < 0.75
    assert alike[3] < 0.1


# Other models


@pytest.fixture(scope="module")
def xvector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random speaker model of transformers."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForXVector

    folder = tmp_path_factory.mktemp("xvector")
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(8, 8, 8, 8, 16),
        xvector_output_dim=12,
        vocab_size=8,
    )
    Wav2Vec2ForXVector(config).eval().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return folder


def test_a_speaker_model_of_transformers(xvector: Path) -> None:
    witness = XVectorWitness(xvector)
    points = witness.embed(CLIPS)
    check_points(points, len(CLIPS))
    assert points.shape[1] == 12
    assert np.allclose(witness.embed(CLIPS[1:2])[0], points[1], atol=1e-5)


def test_a_model_without_an_x_vector_head(xvector: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, Wav2Vec2Model

    Wav2Vec2Model(AutoConfig.from_pretrained(xvector)).save_pretrained(tmp_path)
    shutil.copy(xvector / "preprocessor_config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"weights are missing.*x-vector head"):
        XVectorWitness(tmp_path)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"xvector=.*cannot be loaded"):
        XVectorWitness(tmp_path)


def test_speechbrain_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "speechbrain", None)
    with pytest.raises(ExtraError, match=r"pip install 'speaker-reasoner\[speechbrain\]'"):
        SpeechBrainWitness("speechbrain/spkrec-ecapa-voxceleb")


def test_speechbrain_loads_a_folder_from_that_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    class EncoderClassifier:
        @classmethod
        def from_hparams(cls, **options: Any) -> "EncoderClassifier":
            asked.update(options)
            return cls()

        def encode_batch(self, clips: torch.Tensor) -> torch.Tensor:
            assert clips.shape[0] == 1
            assert clips.shape[1] >= 16_000
            return torch.stack([clips[0].mean(), clips[0].std(), clips[0].max()])[None, None]

    module = types.ModuleType("speechbrain.inference.classifiers")
    module.EncoderClassifier = EncoderClassifier  # type: ignore[attr-defined]
    for name in ("speechbrain", "speechbrain.inference"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    check_points(SpeechBrainWitness(tmp_path, "cpu").embed(CLIPS), len(CLIPS))
    assert asked["source"] == str(tmp_path)
    assert asked["overrides"] == {"pretrained_path": str(tmp_path)}
    asked.clear()
    SpeechBrainWitness("owner/name")
    assert set(asked) == {"source", "run_opts"}


def test_resemblyzer_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(ExtraError, match=r"pip install 'speaker-reasoner\[resemblyzer\]'"):
        ResemblyzerWitness()


def test_resemblyzer() -> None:
    """With its own weights: one voice is closer to itself than to another, silence to nobody."""
    pytest.importorskip("resemblyzer")
    witness = ResemblyzerWitness()
    check_points(witness.embed(CLIPS), len(CLIPS))
    clips = [voice(3.0, 110.0, 1), voice(3.0, 110.0, 2), voice(3.0, 230.0, 3)]
    points = witness.embed([*clips, np.zeros(8_000, np.float32)])
    assert points[0] @ points[1] > points[0] @ points[2]
    assert not points[3].any()


def test_an_engine_resolves_a_witness_by_name_or_refuses_it(
    checkpoint: Checkpoint, xvector: Path
) -> None:
    engines: list[Engine] = [ScriptedEngine([]), TransformersEngine(checkpoint)]
    for engine in engines:
        assert engine.witness("none") is None
        assert isinstance(engine.witness(f"xvector={xvector}"), XVectorWitness)
        for wrong in ("", "ecapa", "tower=x", "none=x"):
            with pytest.raises(
                SettingsError, match="expected one of auto, tower, campplus, resemblyzer"
            ):
                engine.witness(wrong)
            with pytest.raises(SettingsError, match="expected one of"):
                Transcriber(engine, witness=wrong)
    scripted, local = engines
    assert scripted.witness("auto") is None
    with pytest.raises(SettingsError, match="no audio tower in this process"):
        scripted.witness("tower")
    for name in ("auto", "tower"):
        assert isinstance(local.witness(name), TowerWitness)
