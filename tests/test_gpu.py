"""What needs an accelerator (`python -m pytest -m gpu`), and what measures one, tried without."""

import json
import logging
import math
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner import Transcriber, Transcript, load_engine

EXAMPLE = Path(__file__).parents[1] / "examples" / "meeting.flac"


Said = list[tuple[str, str, str]]


def said(device: str, **options: Any) -> Said:
    engine = load_engine("tiny", device=device, dtype="float32", **options)
    result = Transcriber(engine).transcribe(EXAMPLE)
    assert isinstance(result, Transcript)
    return [(one.speaker, one.gender, one.text) for one in result.segments]


@pytest.mark.gpu
@pytest.mark.filterwarnings(
    "ignore"
)  # torch's compiler and drivers warn; what the engine says counts
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cuda_graphs": True},
        {"cuda_graphs": True, "compile": "always"},
        {"cuda_graphs": True, "deterministic": True},
        {"compile": "always"},
    ],
)
def test_a_gpu_hears_what_a_cpu_hears(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """By what was asked for: an engine that falls back warns of it."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    with caplog.at_level(logging.WARNING, "speaker_reasoner"):
        heard = said("cuda", **options)
    assert heard == said("cpu") != []
    assert not caplog.messages


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module benchmarks/gpu.py."""
    folder = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    spec = spec_from_file_location("benchmark_of_gpus", folder / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("common", None)


def measured(benchmark: Any, folder: Path, *options: str) -> dict[str, Any]:
    path = folder / "gpu.json"
    command = ["gpu.py", "--small", "--output", str(path), "--context", "16", *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command)
        benchmark.main()
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


@pytest.mark.slow
def test_the_benchmark_of_gpus_runs(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On any machine, with narrow models: every part, and one that fails alone."""
    steps = benchmark.steps

    def failing(engine: Any, count: int, *rest: Any) -> Any:
        if engine.deterministic and count == 2:
            raise RuntimeError("the card is gone\nand more")
        return steps(engine, count, *rest)

    monkeypatch.setattr(benchmark, "steps", failing)
    ways = ["classes", "captured", benchmark.LIBRARY, "apart"]
    stored = measured(benchmark, tmp_path, "--ways", *ways, "--at-once", "1", "2")
    assert stored["small"] and stored["device"] in ("cpu", "cuda")
    assert list(stored["models"]) == ["qwen3-omni-30b-a3b", "qwen2.5-omni-7b"]
    turns = []
    for name, rows in stored["models"].items():
        done = ["classes", benchmark.LIBRARY if name.startswith("qwen3") else "captured"]
        for way in done:
            assert "failed" not in rows[way]
            one, two = (rows[way]["dialogue"][count] for count in ("1", "2"))
            assert two["tokens"] == 2 * one["tokens"] > 40
            assert min(rows[way]["step_s"][count]["median"] for count in ("1", "2")) > 0
            turns.append(one["tokens"])
        assert rows["generate"]["tokens"] > turns[-1], "the answer comes on top"
        assert rows["apart"]["failed"] == "RuntimeError: the card is gone"
        assert list(rows["apart"]["dialogue"]) == ["1"], "what was known is kept"
    assert len(set(turns)) == 1, "the same turns"
    if stored["device"] == "cpu":
        row = stored["models"]["qwen3-omni-30b-a3b"]["captured"]
        assert row["failed"].startswith("SettingsError: --experts kernel")


def test_the_work_of_the_published_loop_is_of_the_same_turns(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its prompts the embedded checkpoint writes by `generate`, unforced, what it wrote by this engine."""
    engine = load_engine("tiny", device="cpu")
    parts = benchmark.conversation(engine, "model")
    monkeypatch.setattr(benchmark.ForcedTokens, "__call__", lambda own, ids, scores: scores)
    written = benchmark.generated(engine.checkpoint, parts, "cpu")
    assert written["tokens"] == sum(len(part.ids) for part in parts if part.learned) > 100


def test_a_batch_of_forced_dialogues_works_as_one_of_different_ones(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows read different embeddings, and no more logits come to the processor than of turns of its own."""
    own = load_engine("tiny", device="cpu")
    turns = [part.ids for part in benchmark.conversation(own, "model") if part.learned]
    checkpoint = benchmark.made(
        benchmark.shape_of("qwen3-omni-30b-a3b", True), own.checkpoint, "cpu"
    )
    engine = benchmark.engine_of(checkpoint, "classes", turns, "cpu")
    read, equal = engine.text.read, []

    def noted(rows: Any, blocks: Any, last: Any) -> Any:
        equal.append(bool((blocks[0] == blocks[1]).all()))
        return read(rows, blocks, last)

    def copied(*_: Any) -> None:
        raise AssertionError("a whole row of logits was copied")

    monkeypatch.setattr(engine.text, "read", noted)
    monkeypatch.setattr(benchmark.Logits, "all", copied)
    spoken = benchmark.dialogues(engine, 2, "cpu")
    assert spoken["tokens"] > 2 * sum(len(ids) for ids in turns[:-1])
    assert len(equal) > 20 and not any(equal)


def test_what_a_part_of_the_benchmark_leaves(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings of a way that fell back are in its row; a card that is gone does not lose what is known."""
    path = tmp_path / "gpu.json"
    results = benchmark.Results(path, {})
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: True)

    def gone() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def work(row: dict[str, Any]) -> None:
        row["step_s"] = 1
        logging.getLogger("speaker_reasoner.engines").warning("a step cannot be %s", "captured")
        gone()

    monkeypatch.setattr(benchmark.torch.cuda, "empty_cache", gone)
    for name in ("captured", "late"):
        results.part("a model", name, math.inf if name == "captured" else 0, work)
    assert json.loads(path.read_text(encoding="utf-8"))["models"]["a model"] == {
        "captured": {
            "step_s": 1,
            "warnings": ["a step cannot be captured"],
            "failed": "RuntimeError: CUDA error: an illegal memory access was encountered",
        },
        "late": {"failed": "left out: the minutes were over"},
    }


def test_the_benchmark_of_gpus_ends_in_time(benchmark: Any, tmp_path: Path) -> None:
    stored = measured(benchmark, tmp_path, "--minutes", "0")
    for rows in stored["models"].values():
        assert rows == {"weights": {"failed": "left out: the minutes were over"}}
