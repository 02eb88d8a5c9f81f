"""What a reader of static places captures, compiles, and says of it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.engines import placed
from speaker_reasoner.engines.memory import Held
from speaker_reasoner.engines.placed import PlacedText

from .conftest import noise
from .talk import save
from .test_reading import Replayed, blocks


def test_what_takes_long_is_said_once(
    random_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line on standard error for each kind of work in a process, before it begins; none with -q."""
    said: list[list[str]] = []

    def compiled(run: Any, **_: Any) -> Any:
        said.append([line for line in capsys.readouterr().err.splitlines() if "--" in line])
        return run

    monkeypatch.setattr(placed.torch, "compile", compiled)
    talk = save(tmp_path / "talk.wav", noise(2.0))
    words = ["transcribe", talk, "--model", random_checkpoint, "--device", "cpu"]
    words += ["--compile", "always"]
    placed._begin.cache_clear()
    assert main([*map(str, words), "-q"]) == 0
    placed._begin.cache_clear()
    for _ in range(2):
        assert main([str(word) for word in words]) == 0
    assert said == [[], [placed._COMPILES], []]
    engine = load_engine(random_checkpoint, device="cpu")
    monkeypatch.setattr(placed, "_Graph", Replayed)
    capsys.readouterr()
    with torch.inference_mode():
        for _ in range(2):
            reader = PlacedText(engine.thinker, capture=True)
            for width in (1, 2):
                reader.read([Held()], blocks(engine.thinker, width), [1])
    assert capsys.readouterr().err == f"{placed._CAPTURES}\n"
