"""What a reader of static places captures, compiles, and says of it."""

import logging
import random
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.engines import placed
from speaker_reasoner.engines.experts import ChosenExperts, waits_for_sizes
from speaker_reasoner.engines.joined import JoinedText
from speaker_reasoner.engines.memory import Held
from speaker_reasoner.engines.placed import PREFILL_USES, PlacedText

from .conftest import noise
from .talk import save
from .test_checkpoint import MAKERS
from .test_lookahead import replies
from .test_reading import Replayed, blocks, varied


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


class Noted(Replayed):
    """Notes the sizes that are captured, and how often each is replayed."""

    sizes: ClassVar[dict[tuple[int, int, int], int]] = {}

    def __init__(self, text: PlacedText, inputs: Any, at: Any, slots: Any, length: int) -> None:
        super().__init__(text, inputs, at, slots, length)
        self.size = (*at.shape, length)
        assert (slots is not None) is (at.shape[1] > 32) or text._apart
        self.sizes.setdefault(self.size, 0)

    def replay(self, inputs: Any, at: Any, slots: Any) -> Any:
        self.sizes[self.size] += 1
        return super().replay(inputs, at, slots)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int, int], int]:
    monkeypatch.setattr(placed, "_Graph", Noted)
    monkeypatch.setattr(Noted, "sizes", {})
    return Noted.sizes


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
@torch.inference_mode()
def test_captured_prefills_equal_transformers(
    tokenizer: Any, kind: str, apart: bool, noted: Any
) -> None:
    """Blocks of all widths, captured and not, rows that come, go and drop their last tokens: within 1e-4."""
    thinker = varied(MAKERS[kind](tokenizer))
    readers = PlacedText(thinker, capture=True, apart=apart), JoinedText(thinker)
    rng = random.Random(3)
    held = [[Held() for _ in range(3)] for _ in readers]
    for turn in range(40):
        rows = rng.sample(range(3), 1 if apart else rng.randint(1, 3))
        lengths = [rng.choice((1, 5, 33, 64, 65, 130, 256, 257)) for _ in rows]
        last = [rng.randint(1, min(length, 4)) for length in lengths]
        given = blocks(thinker, *lengths, seed=turn)
        own, other = (
            reader.read([row[i] for i in rows], given, last)
            for reader, row in zip(readers, held, strict=True)
        )
        for one, expected in zip(own, other, strict=True):
            assert float((one - expected).abs().max()) < 1e-4
        dropped = [rng.randrange(min(length, 3)) for length in lengths]
        ended = rng.randrange(3) if turn % 8 == 7 else None
        readers[1].release()
        for row in held:
            for i, gone in zip(rows, dropped, strict=True):
                row[i].tokens -= gone
            if ended is not None:
                row[ended] = Held()
    widths = {width for (_, width, _), replays in noted.items() if replays > 1}
    assert {1, 64, 256} <= widths and max(widths) == 256


@torch.inference_mode()
def test_a_prefill_is_captured_when_its_size_comes_again(random_engine: Any, noted: Any) -> None:
    """Its shapes are the same before, so that not a bit depends on whether it is."""
    thinker = random_engine.thinker
    reader = PlacedText(thinker, capture=True)
    [block] = blocks(thinker, 100)
    logits = []
    for use in range(1, PREFILL_USES + 2):
        logits += reader.read([Held()], [block], [3])
        assert sum(noted.values()) == max(0, use - PREFILL_USES + 1)
    assert list(noted) == [(1, 128, 512)]
    assert all(torch.equal(one, logits[0]) for one in logits)


@torch.inference_mode()
def test_wide_prefills_are_not_captured(
    random_engine: Any, noted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of many tokens, in one row or in all, are read as they are without captures: to the bit."""
    monkeypatch.setattr(placed, "PREFILL_USES", 1)
    thinker = random_engine.thinker
    readers = PlacedText(thinker, capture=True), PlacedText(thinker, capture=False)
    for count, width, captured in ((1, 257, 0), (5, 200, 0), (4, 200, 1), (16, 64, 2), (17, 64, 2)):
        given = blocks(thinker, *[width] * count)
        own, other = (r.read([Held() for _ in given], given, [1] * count) for r in readers)
        assert len(noted) == captured
        if (count, width) in ((1, 257), (5, 200), (17, 64)):
            assert all(torch.equal(a, b) for a, b in zip(own, other, strict=True))


@torch.inference_mode()
def test_prefills_that_cannot_be_captured(
    random_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, and steps are replayed as before; where a step cannot, prefills are not tried."""
    thinker, tried = random_engine.thinker, []

    class Failing(Replayed):
        fails = 64

        def __init__(self, *given: Any) -> None:
            tried.append(given[2].shape[1])
            if given[2].shape[1] == Failing.fails:
                raise RuntimeError("not while it captures\nand more")
            super().__init__(*given)

    monkeypatch.setattr(placed, "_Graph", Failing)
    monkeypatch.setattr(placed, "PREFILL_USES", 1)
    reader, row = PlacedText(thinker, capture=True), Held()
    with caplog.at_level(logging.WARNING):
        for width in (100, 1, 40, 50, 100, 1, 2):
            reader.read([row], blocks(thinker, width), [1])
    assert tried == [128, 1, 64, 2] and [key[1] for key in reader._graphs] == [1, 2]
    [line] = caplog.messages
    assert line.startswith(
        "--cuda-graphs: a prefill cannot be captured (not while it captures); prefills are"
    )
    caplog.clear()
    tried.clear()
    Failing.fails = 2
    reader = PlacedText(thinker, capture=True)
    with caplog.at_level(logging.WARNING):
        for width in (100, 1, 2, 1, 40, 100):
            reader.read([Held()], blocks(thinker, width), [1])
    assert tried == [128, 1, 2] and not reader._graphs
    [line] = caplog.messages
    assert (
        line.startswith("--cuda-graphs: a step cannot be captured")
        and "steps and prefills are" in line
    )


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
@torch.inference_mode()
def test_a_captured_prefill_waits_for_nothing_of_its_device(
    tokenizer: Any, kind: str, apart: bool, noted: Any
) -> None:
    """Tensors of the meta device hold no numbers: what a capture may not hold, a wait for them, is an error there."""
    thinker = MAKERS[kind](tokenizer).to("meta", torch.bfloat16)
    reader, rows = PlacedText(thinker, capture=True, apart=apart), [Held(), Held()]
    for _ in range(PREFILL_USES + 1):
        for row in rows:
            row.tokens = 0
        given = [block.to("meta", torch.bfloat16) for block in blocks(thinker, 200, 200)]
        reader.read(rows[:1] if apart else rows, given[:1] if apart else given, [1] * (2 - apart))
    assert noted == {(2 - apart, 256, 512): 2}


def test_what_waits_for_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product of groups, but in bfloat16 on cards that have it; a loop over the experts; nothing on a CPU."""
    cuda = torch.device("cuda")
    for major, fast in ((8, False), (9, True), (10, True), (12, False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, own=major: (own, 0))
        assert waits_for_sizes("grouped_mm", torch.bfloat16, cuda) is not fast
        assert waits_for_sizes("grouped_mm", torch.float32, cuda)
        assert waits_for_sizes("eager", torch.bfloat16, cuda)
        assert not waits_for_sizes("batched_mm", torch.float32, cuda)
    assert not waits_for_sizes("grouped_mm", torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(("kind", "most"), [("dense", None), ("experts", 0)])
def test_what_a_capture_holds(
    tokenizer: Any, kind: str, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    thinker = MAKERS[kind](tokenizer)
    chosen = ChosenExperts(thinker, "library")
    assert chosen.most_captured is None, "on a CPU nothing waits"
    monkeypatch.setattr(type(thinker), "device", torch.device("cuda"))
    assert chosen.most_captured == most


@torch.inference_mode()
def test_what_waits_is_not_captured(
    random_engine: Any,
    noted: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A line says so once; the kernel's few tokens are captured."""
    monkeypatch.setattr(placed, "PREFILL_USES", 1)
    for most in (8, 0):
        noted.clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            reader, row = PlacedText(random_engine.thinker, capture=True, most_tokens=most), Held()
            for width in (100, 8, 9, 1):
                reader.read([row], blocks(random_engine.thinker, width), [1])
        assert sorted(noted) == ([(1, 1, 512), (1, 8, 512)] if most else [])
        [line] = caplog.messages
        assert line.startswith(f"--cuda-graphs: nothing of more than {most} tokens is captured")


def test_captured_prefills_write_the_same_words(random_checkpoint: Path, noted: Any) -> None:
    """Whole dialogues, alone and together, one by one and apart."""
    clips = [noise(seconds, i) for i, seconds in enumerate((6.0, 2.0, 9.0, 12.0))]
    engine = load_engine(random_checkpoint, device="cpu")
    expected = [[reply.ids for reply in one] for one in replies(engine, clips)]
    for apart in (False, True):
        engine = load_engine(random_checkpoint, device="cpu", deterministic=apart)
        engine.text = PlacedText(engine.thinker, capture=True, apart=apart)
        for _ in range(2):
            assert [[reply.ids for reply in one] for one in replies(engine, clips)] == expected
    assert any(width > 32 for _, width, _ in noted)
