"""Voices told apart: embeddings, and groups of them."""

import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.engines.checkpoint import Checkpoint, load_checkpoint
from speaker_reasoner.engines.voice import VOICE_FILE, VoiceHead
from speaker_reasoner.errors import CheckpointError, SettingsError
from speaker_reasoner.witness import (
    SpeechBrainWitness,
    TowerWitness,
    XVectorWitness,
    choose,
    cluster,
)

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
    head = VoiceHead(32, hidden=12, size=6)
    with torch.no_grad():
        head.slope.fill_(float(np.log(10.0)))
        head.offset.fill_(-4.0)
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


def test_a_damaged_head(with_head: Path) -> None:
    (with_head / VOICE_FILE).write_bytes(b"\0" * 40)
    with pytest.raises(CheckpointError, match=VOICE_FILE):
        TowerWitness(load_checkpoint(with_head, device="cpu"))


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
    with pytest.raises(CheckpointError, match=r"pip install 'speaker-reasoner\[speechbrain\]'"):
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


def test_choose(checkpoint: Checkpoint, xvector: Path) -> None:
    assert choose("none", checkpoint) is None
    assert isinstance(choose("tower", checkpoint), TowerWitness)
    assert isinstance(choose(f"xvector={xvector}", checkpoint), XVectorWitness)
    for wrong in ("", "ecapa", "tower=x", "none=x"):
        with pytest.raises(SettingsError, match="expected one of tower, xvector"):
            choose(wrong, checkpoint)


# Groups


def people(counts: list[int], spread: float = 0.25, seed: int = 0) -> tuple[Any, list[int]]:
    """Points around as many centres, and whose they are."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    whose = [person for person, count in enumerate(counts) for _ in range(count)]
    points = centres[whose] + spread * rng.standard_normal((len(whose), 16)) / 4
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), whose


def test_groups_are_people() -> None:
    points, whose = people([5, 9, 3, 7])
    found = cluster(points, [1.0] * 24, 1, None, 0.5)
    assert list(found.labels) == whose
    assert found.broken == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), threshold=st.floats(-0.5, 0.9))
def test_groups_are_those_of_average_linkage(seed: int, count: int, threshold: float) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    points, _ = people([count], spread=4.0, seed=seed)
    labels = cluster(points, [2.0] * count, 1, None, threshold).labels
    expected = np.ones(count, int)
    if count > 1:
        wide = points.astype(float)
        distance = (1 - wide @ wide.T)[np.triu_indices(count, 1)]
        tree = hierarchy.linkage(distance, "average")
        if np.abs(tree[:, 2] - (1 - threshold)).min() < 1e-6:
            return  # a merger exactly at the threshold may be rounded either way
        expected = hierarchy.fcluster(tree, 1 - threshold, "distance")
    assert same_groups(labels, expected)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), high=st.integers(1, 6))
def test_groups_beyond_the_bound_are_those_of_ward(seed: int, high: int) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    points, _ = people([4, 3, 5, 6], spread=2.0, seed=seed)
    tree = hierarchy.linkage(points.astype(float), "ward")
    expected = hierarchy.fcluster(tree, high, "maxclust")
    assert same_groups(cluster(points, [1.0] * 18, 1, high, 2.0).labels, expected)


def same_groups(one: Any, other: Any) -> bool:
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def test_a_stray_second_goes_before_a_person_does() -> None:
    points, whose = people([6, 6])
    stray = -points[:1]
    found = cluster(np.concatenate([points, stray]), [3.0] * 12 + [0.5], 1, 2, 0.5).labels
    assert list(found[:12]) == whose


def test_too_few_people_are_split() -> None:
    points, whose = people([5, 5, 5], spread=0.5)
    assert len(set(cluster(points, [1.0] * 15, 1, None, -1.0).labels)) == 1
    assert list(cluster(points, [1.0] * 15, 3, None, -1.0).labels) == whose


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    pairs=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12),
    threshold=st.floats(-1.0, 1.0),
)
def test_what_cannot_be_one_is_not(
    seed: int, pairs: list[tuple[int, int]], threshold: float
) -> None:
    apart = [(a, b) for a, b in pairs if a != b]
    points, _ = people([4, 4, 4], spread=2.0, seed=seed)
    found = cluster(points, [1.0] * 12, 1, None, threshold, cannot=apart)
    assert found.broken == 0
    assert all(found.labels[a] != found.labels[b] for a, b in apart)


def test_must_counts_for_more_than_cannot() -> None:
    points, _ = people([3, 3])
    found = cluster(points, [1.0] * 6, 1, None, 0.5, must=[(0, 3), (3, 1)], cannot=[(0, 1)])
    assert found.labels[0] == found.labels[3] == found.labels[1]
    assert found.broken == 1


def test_the_bound_counts_for_more_than_cannot() -> None:
    points, _ = people([1, 1, 1])
    apart = [(0, 1), (1, 2), (0, 2)]
    assert cluster(points, [1.0] * 3, 1, 3, 0.5, cannot=apart).broken == 0
    found = cluster(points, [1.0] * 3, 1, 2, 0.5, cannot=apart)
    assert len(set(found.labels)) == 2
    assert found.broken == 1


def test_nobody_is_no_group() -> None:
    assert len(cluster(np.zeros((0, 4), np.float32), [], 1, None, 0.5).labels) == 0


@pytest.mark.slow
def test_five_thousand_segments() -> None:
    import time

    points, whose = people([1000] * 5, spread=0.5)
    clock = time.process_time()
    labels = cluster(points, [2.0] * 5000, 5, 5, 0.3).labels
    assert time.process_time() - clock < 30
    assert list(labels) == whose
