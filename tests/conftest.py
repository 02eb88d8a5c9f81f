"""Shared fixtures: small random checkpoints of the real classes."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.protocol import Profile
from speaker_reasoner.train.scratch import TinyConfig

TINY = TinyConfig(
    audio_width=32,
    audio_layers=1,
    audio_channels=8,
    text_width=64,
    text_layers=2,
    text_heads=2,
    text_kv_heads=1,
    text_ffn=64,
)
"""The smallest thinker that every test shares."""

TEXTS = [
    "Who said what, and when? Count the speakers, then box the first stretch.",
    "2 speakers: Speaker1-female, Speaker2-male\n",
    "Speaker1-unknown [0.5, 13.4]: the red dog sees a cat and a bird in the garden\n",
    "user assistant system",
] * 20


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Qwen-like: tags are single tokens, digits single, words many."""
    from speaker_reasoner.train.scratch import make_tokenizer

    return make_tokenizer(TEXTS, 400)


@pytest.fixture(scope="session")
def random_checkpoint(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random thinker of the embedded checkpoint's class, weights of real spread."""
    import torch

    from speaker_reasoner.train.scratch import (
        make_feature_extractor,
        make_thinker,
        save_checkpoint,
    )

    folder = tmp_path_factory.mktemp("random")
    torch.manual_seed(0)
    thinker = make_thinker(tokenizer, TINY)
    with torch.no_grad():
        for parameter in thinker.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    save_checkpoint(folder, thinker, tokenizer, make_feature_extractor())
    replace(Profile(), decimals=1, chunk_s=20.0, max_turns=12, max_speakers=4).save(folder)
    return folder


@pytest.fixture(scope="session")
def random_engine(random_checkpoint: Path) -> Any:
    from speaker_reasoner import load_engine

    return load_engine(random_checkpoint, device="cpu")


def noise(seconds: float, seed: int = 0) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """A recording nobody speaks in, `[n]` at 16 kHz."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(round(seconds * 16_000)) * 0.1).astype(np.float32)


def draw_seconds(rng: random.Random) -> float:
    return rng.choice([0.05, 0.3, 0.99, 1.0, 2.5, 8.0, 19.9])


SHARED = Path(__file__).parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is absent")
