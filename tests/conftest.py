"""Shared fixtures: small random checkpoints of the real classes."""

import gc
import os
import random
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: models are tiny, processes several

import numpy as np
import pytest
from hypothesis import is_hypothesis_test, settings

from speaker_reasoner.cores import model_threads
from speaker_reasoner.protocol import Profile
from speaker_reasoner.train.scratch import TinyConfig

gc.disable()  # until all is imported, see below

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")  # how long an example takes depends on what else the machine does

LONGEST = [
    "servers",
    "bulk_ray",
    "serve",
    "clock",
    "train_models",
    "loopback",
    "cli",
    "realtime",
    "compose",
    "engine_processes",
    "usage",
    "faults",
    "readme",
    "server",
    "train_resumed",
    "train_processes",
    "bulk",
    "train",
    "experts",
    "reading",
    "lookahead",
    "cascade_real",
    "checkpoint",
    "jobs",
    "corrections",
    "systems_services",
    "train_shards",
    "engine",
    "plan",
    "embedded",
    "expression",
    "systems_here",
    "shared",
    "words",
    "outages",
]
"""The longest files of tests, in the order in which they begin: what waits for leases and processes leaves a core to
others, and no process has a long file left when the others have none."""


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Keep `no_cover` true in a worker, where pytest-cov 7.1 has the controller's measurement begin before the worker's
    own: paused alone, that one leaves the lines to the other."""
    coverage = sys.modules.get("coverage")
    if coverage and "PYTEST_XDIST_WORKER" in os.environ:
        begun = coverage.Coverage.current()
        if begun is not None:
            begun.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker("no_cover")  # the same lines many times, each time slower


def pytest_collection_finish() -> None:
    """Keep collections from looking through what the libraries hold, again and again while the tests run."""
    gc.freeze()
    gc.enable()


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


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def draw_seconds(rng: random.Random) -> float:
    return rng.choice([0.05, 0.3, 0.99, 1.0, 2.5, 8.0, 19.9])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of 24 s in pieces of 4 to 6 s, as `speaker-reasoner prepare` writes them."""
    import soundfile

    from speaker_reasoner.data.corpora import prepare

    root = tmp_path_factory.mktemp("corpus")
    for number, (name, length) in enumerate((("one", 2), ("two", 6))):
        soundfile.write(root / f"{name}.wav", noise(24.0, number), 16_000, subtype="PCM_16")
        rng = random.Random(name)
        rows = []
        for turn in range(14):
            start = 0.3 + turn * 1.65
            words = " ".join(rng.choices(TEXTS[2].split()[3:], k=rng.randint(1, length)))
            speaker = rng.choice(["ann-F", "bob-M", "cat-F"])
            rows.append(
                f"{name} 1 {speaker} {start:.2f} {start + 1.2 + turn % 3 * 0.2:.2f} {words}"
            )
        (root / f"{name}.stm").write_text("\n".join(rows) + "\n")
    out = root / "prepared"
    prepare("folder", root, out, pieces_s=(4.0, 6.0), gender_from="suffix")
    return out / "all"


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps the settings of a process's first run; every test has its own."""
    yield
    if "accelerate" in sys.modules:
        sys.modules["accelerate"].state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """No test leaves torch other threads than it began with: of several processes, they wait for each other."""
    yield
    if torch := sys.modules.get("torch"):
        assert torch.get_num_threads() == model_threads(), "torch has other threads now"


@pytest.fixture
def file_size_limit() -> Any:
    """A context in which no file grows beyond so many bytes: writing more fails, as on a full disk."""
    resource = pytest.importorskip("resource")  # not on Windows

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


SHARED = Path(__file__).parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is absent")
