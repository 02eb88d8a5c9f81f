"""The ways to read new tokens through the text model: flat operations, static places, joined caches."""

import logging
import random
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.engines import flat, joined, linears, placed
from speaker_reasoner.engines.flat import FlatText, is_flat
from speaker_reasoner.engines.joined import JoinedText
from speaker_reasoner.engines.linears import FastLinears, Product
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.memory import Held
from speaker_reasoner.engines.placed import PlacedText
from speaker_reasoner.engines.thinker import text_model
from speaker_reasoner.errors import EngineError, SettingsError
from speaker_reasoner.reasoner import Dialogue, ask, run

from .conftest import noise
from .test_checkpoint import MAKERS, spread
from .test_engine import transcripts
from .test_lookahead import assert_same, replies


def blocks(thinker: Any, *lengths: int, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    width = thinker.get_input_embeddings().weight.shape[1]
    return [torch.randn(length, width) for length in lengths]


READERS = {
    "flat": FlatText,
    "joined": JoinedText,
    "placed": lambda thinker: PlacedText(thinker, capture=False),
}
each_reader = pytest.mark.parametrize("name", READERS)


def varied(thinker: Any) -> Any:
    """Spread weights whose biases and norms show in the logits, too."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in thinker.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return spread(thinker)


@pytest.mark.parametrize("one_dnn", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
@torch.inference_mode()
def test_logits_equal_transformers(
    tokenizer: Any, kind: str, one_dnn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of any length that come, go, drop their last tokens and come back: within 1e-4."""
    monkeypatch.setattr(linears, "_ONE_DNN", one_dnn and linears._ONE_DNN)
    monkeypatch.setattr(flat, "_POSITIONS", 16)  # angles are computed several times
    monkeypatch.setattr(joined, "_MOST_PADDING", 220)  # the first turn has more, the third less
    thinker = varied(MAKERS[kind](tokenizer))
    assert is_flat(thinker)
    readers = FlatText(thinker), JoinedText(thinker), PlacedText(thinker, capture=False)
    held = [[Held() for _ in range(4)] for _ in readers]
    turns = [  # rows, lengths of their blocks, how many logits, how many tokens are dropped
        ([0, 1, 2], (9, 130, 12), (1, 1, 4), (0, 0, 3)),
        ([2, 0], (1, 2), (1, 2), (0, 1)),
        ([3, 1, 0, 2], (70, 3, 1, 1), (1, 3, 1, 1), (9, 2, 0, 0)),
        ([1], (1,), (1,), (0,)),
        ([3], (5,), (5,), (5,)),
        ([0, 1, 2, 3], (1, 1, 1, 1), (1, 1, 1, 1), (0, 0, 0, 0)),
        ([0, 1], (40, 40), (1, 2), (0, 0)),
    ]
    for turn, (rows, lengths, last, dropped) in enumerate(turns):
        given = blocks(thinker, *lengths, seed=turn)
        logits = [
            reader.read([own[i] for i in rows], given, last)
            for reader, own in zip(readers, held, strict=True)
        ]
        for *own, count in zip(*logits, last, strict=True):
            for one in own:
                assert one.shape == (count, thinker.lm_head.out_features)
                assert float((one - own[0]).abs().max()) < 1e-4
        for own in held:
            for i, gone in zip(rows, dropped, strict=True):
                own[i].tokens -= gone
        if turn % 2:
            for reader in readers:
                reader.release()
    assert [[row.tokens for row in own] for own in held] == [[52, 173, 12, 62]] * len(readers)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", MAKERS)
@torch.inference_mode()
def test_a_step_waits_for_nothing_of_its_device(tokenizer: Any, kind: str, apart: bool) -> None:
    """Tensors of the meta device hold no numbers: what a capture may not hold, a wait for them, is an error there."""
    thinker = MAKERS[kind](tokenizer).to("meta", torch.bfloat16)
    reader, rows = PlacedText(thinker, capture=False, apart=apart), [Held() for _ in range(3)]
    for lengths in ((40, 3, 70), (1, 1, 1), (5, 1), (40, 1)):
        given = [block.to("meta", torch.bfloat16) for block in blocks(thinker, *lengths)]
        logits = reader.read(rows[: len(lengths)], given, [1] * len(lengths))
        assert all((one.device.type, len(one)) == ("meta", 1) for one in logits)


class Replayed(placed._Graph):
    """What a captured step does, without a GPU: what is captured is done again on its own inputs."""

    widths: ClassVar[list[int]] = []

    def __init__(self, text: PlacedText, inputs: Any, at: Any, slots: Any, length: int) -> None:
        main, side = (SimpleNamespace(wait_stream=lambda other: None) for _ in range(2))
        set_streams: list[Any] = []
        handed: list[Any] = []

        def graph(own: Any, *, pool: int, stream: Any, capture_error_mode: str) -> Any:
            assert stream is text._side is not main
            pools = [one.pool for one in text._graphs.values()] or handed
            assert pool in pools, "torch refuses a pool whose captures are gone"
            self.pool = pool
            return nullcontext()

        cuda: dict[str, Any] = {
            "Stream": lambda: side,
            "current_stream": lambda: main,
            "set_stream": set_streams.append,
            "stream": lambda own: nullcontext(),
            "graph_pool_handle": lambda: (handed.append(object()), handed[-1])[1],
            "CUDAGraph": SimpleNamespace,
            "graph": graph,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in cuda.items():
                patch.setattr(torch.cuda, name, value)
            try:
                super().__init__(text, inputs, at, slots, length)
            except BaseException:
                assert set_streams == [main]
                raise
        assert not set_streams
        places = [layer.keys for layer in text._layers]

        def replay() -> None:
            assert all(a is b.keys for a, b in zip(places, text._layers, strict=True))
            given = self._inputs, self._at, self._slots, length
            self._output.copy_(text.forward(*given))

        self._graph = SimpleNamespace(replay=replay)
        Replayed.widths.append(at.shape[1])


@pytest.mark.parametrize("prefills", [False, True])
@torch.inference_mode()
def test_steps_are_captured_once_for_each_size(
    random_engine: Any, prefills: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays equal, to the bit, what is not captured, also when rows come, go and outgrow their places."""
    monkeypatch.setattr(placed, "_Graph", Replayed)
    monkeypatch.setattr(Replayed, "widths", [])
    thinker = random_engine.thinker
    readers = PlacedText(thinker, capture=prefills), PlacedText(thinker, capture=True)
    if prefills:
        readers[0]._captures = set()  # which pads them as captured ones are
    else:
        monkeypatch.setattr(placed, "_PREFILL_TOKENS", 0)
    rng = random.Random(1)
    held = [[Held() for _ in range(5)] for _ in readers]
    for turn in range(60):
        rows = rng.sample(range(5), rng.randint(1, 5))
        lengths = [rng.choice((1, 2, 3, 40)) for _ in rows]
        given = blocks(thinker, *lengths, seed=turn)
        own = [
            reader.read([row[i] for i in rows], given, [1] * len(rows))
            for reader, row in zip(readers, held, strict=True)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*own, strict=True))
        if turn % 10 == 9:  # a dialogue ends, and its place is free
            for row in held:
                row[turn % 5] = Held()
    steps = sum(width <= 4 for width in Replayed.widths)
    assert 3 <= steps <= 3 * 4 * 2  # widths, places, lengths
    assert prefills <= len(Replayed.widths) - steps <= prefills * 5 * 2  # rows, lengths
    assert not readers[0]._graphs
    assert {width for _, width, _ in readers[1]._graphs} == {1, 2, 4, *[64] * prefills}
    assert max(row.tokens for row in held[0]) > 512


@torch.inference_mode()
def test_steps_that_cannot_be_captured(
    random_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, and they go on without; an exhausted memory is another matter."""
    thinker, row, other = random_engine.thinker, Held(), Held()
    readers = PlacedText(thinker, capture=True), PlacedText(thinker, capture=False)

    def failing(error: Exception) -> Any:
        def capture(*_: Any) -> None:
            raise error

        return capture

    monkeypatch.setattr(placed, "_Graph", failing(torch.OutOfMemoryError("no more")))
    with pytest.raises(torch.OutOfMemoryError):
        PlacedText(thinker, capture=True).read([Held()], blocks(thinker, 1), [1])
    monkeypatch.setattr(placed, "_Graph", failing(RuntimeError("not while it captures\nand more")))
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            given = blocks(thinker, 2, seed=number)
            own = readers[0].read([row], given, [1]) + readers[1].read([other], given, [1])
            assert torch.equal(*own)
    [line] = caplog.messages
    assert line.startswith("--cuda-graphs: a step cannot be captured (not while it captures); ")


@torch.inference_mode()
def test_a_capture_that_fails_midway(
    random_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Work goes back to the stream that it came from; after an exhausted memory steps are captured again."""
    monkeypatch.setattr(placed, "_Graph", Replayed)
    thinker, row, forward = random_engine.thinker, Held(), PlacedText.forward
    reader = PlacedText(thinker, capture=True)
    errors = [torch.OutOfMemoryError("no more"), RuntimeError("not while it captures")]

    def failing(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr(PlacedText, "forward", forward)
        raise errors.pop(0)

    monkeypatch.setattr(PlacedText, "forward", failing)
    with pytest.raises(torch.OutOfMemoryError):
        reader.read([row], blocks(thinker, 1), [1])
    reader.read([row], blocks(thinker, 1), [1])
    assert len(reader._graphs) == 1 and not caplog.messages
    monkeypatch.setattr(PlacedText, "forward", failing)
    reader.read([row], blocks(thinker, 2), [1])
    assert not reader._graphs and "(not while it captures)" in caplog.text


@torch.inference_mode()
def test_dialogues_apart_are_not_compiled_by_themselves(
    random_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled steps round otherwise, so that a turn would depend on how many steps came before."""
    compiled = []
    monkeypatch.setattr(placed, "_Graph", Replayed)
    monkeypatch.setattr(placed, "_COMPILE_AFTER", 1)
    monkeypatch.setattr(placed.torch, "compile", lambda run, **_: compiled.append(run) or run)
    thinker = random_engine.thinker
    for apart, count in ((True, 0), (False, 1)):
        reader = PlacedText(thinker, capture=True, compile="auto", apart=apart)
        row = Held()
        for number in range(3):
            reader.read([row], blocks(thinker, 1, seed=number), [1])
        assert (len(compiled), reader.compiles) == (count, count == 1)


def test_choices_that_are_none(random_checkpoint: Path) -> None:
    for option, known in (("compile", "auto, never, always"), ("experts", "auto, kernel, library")):
        with pytest.raises(SettingsError, match=f"--{option} 'fast': expected one of {known}"):
            load_engine(random_checkpoint, device="cpu", **{option: "fast"})


def test_experts_that_wait_are_not_compiled_by_themselves(tokenizer: Any) -> None:
    for kind, dtype, due in (
        ("experts", torch.bfloat16, True),
        ("experts", torch.float16, False),
        ("dense", torch.float16, True),
    ):
        thinker = MAKERS[kind](tokenizer).to(dtype)
        reader = PlacedText(thinker, capture=True, compile="auto")
        assert (reader._compile_after is not None) is due
        assert PlacedText(thinker, capture=True, compile="always")._compile_after == 0


@torch.inference_mode()
def test_few_captures_are_kept(random_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one whose last use is longest ago goes."""
    monkeypatch.setattr(placed, "_Graph", Replayed)
    monkeypatch.setattr(placed, "MOST_GRAPHS", 2)
    reader, row = PlacedText(random_engine.thinker, capture=True), Held()
    for width in (1, 2, 1, 4):
        reader.read([row], blocks(random_engine.thinker, width), [1])
    assert [width for _, width, _ in reader._graphs] == [1, 4]


@torch.inference_mode()
def test_long_work_is_compiled(random_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many steps, and what was captured before is captured again; prefills stay as they are."""
    calls = []

    def compiled(run: Any, **_: Any) -> Any:
        return lambda *given: (calls.append(given[1].shape[1]), run(*given))[1]

    monkeypatch.setattr(placed, "_Graph", Replayed)
    monkeypatch.setattr(placed, "_COMPILE_AFTER", 3)
    monkeypatch.setattr(placed, "_PREFILL_TOKENS", 0)  # none is padded to be captured
    monkeypatch.setattr(placed.torch, "compile", compiled)
    thinker = random_engine.thinker
    readers = [
        PlacedText(thinker, capture=capture, compile=choice)
        for capture, choice in ((True, "auto"), (True, "never"), (False, "auto"))
    ]
    layers = len(text_model(thinker).layers)
    rows = [Held() for _ in readers]
    captured = (placed._WARM_UPS + 2) * layers  # and its first replay
    expected_calls = [0, 0, 0, captured, 0, layers]
    for number, (width, count) in enumerate(zip((1, 1, 1, 1, 40, 1), expected_calls, strict=True)):
        calls.clear()
        given = blocks(thinker, width, seed=number)
        one, other, third = (
            r.read([row], given, [1])[0] for r, row in zip(readers, rows, strict=True)
        )
        assert torch.equal(one, other) and torch.equal(one, third)
        assert calls == [1] * count


def by_the_compiler(test: Any) -> Any:
    """A test that compiles for the processor; torch's compiler uses what torch deprecates."""
    test = pytest.mark.filterwarnings("ignore::DeprecationWarning")(test)
    test = pytest.mark.filterwarnings("ignore:TensorFloat32")(test)  # said where there is a GPU
    return pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")(test)


@by_the_compiler
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "experts"])
@torch.inference_mode()
def test_compiled_layers(tokenizer: Any, kind: str) -> None:
    """By the real compiler: the same logits, and one layer is compiled for all of a size."""
    thinker = varied(MAKERS[kind](tokenizer))
    readers = (
        PlacedText(thinker, capture=False, compile="always"),
        PlacedText(thinker, capture=False),
    )
    held = [[Held() for _ in range(3)] for _ in readers]
    torch._dynamo.utils.counters.clear()
    for turn, lengths in enumerate(((70, 9), (1,), (3, 1), (1, 1, 1), (520,), (1,), (2, 5))):
        given = blocks(thinker, *lengths, seed=turn)
        own, expected = (
            reader.read(rows[: len(lengths)], given, [1] * len(lengths))
            for reader, rows in zip(readers, held, strict=True)
        )
        for one, other in zip(own, expected, strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-4)
    assert readers[0]._compiled is not None
    assert 3 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 7


@pytest.mark.no_cover
@by_the_compiler
def test_compiled_steps_write_the_same_words(random_checkpoint: Path) -> None:
    clips = [noise(2.0), noise(3.5, 1)]
    expected = replies(load_engine(random_checkpoint, device="cpu"), clips)
    engine = load_engine(random_checkpoint, device="cpu", compile="always")
    assert engine.describe()["compile"] == "always"
    assert_same(replies(engine, clips), expected)
    assert engine.text._compiled is not None


@pytest.mark.no_cover
@by_the_compiler
@torch.inference_mode()
def test_a_compiler_that_fails(
    random_engine: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line, and steps go on as they were; an exhausted memory is no matter of compilers."""
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    thinker, held = random_engine.thinker, [Held(), Held()]
    readers = (
        PlacedText(thinker, capture=False, compile="always"),
        PlacedText(thinker, capture=False),
    )
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}), caplog.at_level(logging.WARNING):
        for number in range(3):
            given = blocks(thinker, 4, seed=number)
            own, expected = (
                reader.read([row], given, [2]) for reader, row in zip(readers, held, strict=True)
            )
            assert torch.equal(own[0], expected[0])
    [line] = [one for one in caplog.messages if one.startswith("--compile")]
    assert "no-such-compiler" in line or "compiler" in line.lower()
    assert "\n" not in line and "each takes longer" in line

    def short(*_: Any) -> None:
        raise torch.OutOfMemoryError("no more")

    readers[0]._compiled = short
    with pytest.raises(torch.OutOfMemoryError):
        readers[0].read([held[0]], blocks(thinker, 1), [1])


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["joined", "placed", "captured"])
def test_deterministic_dialogues_do_not_depend_on_a_batch(
    random_checkpoint: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16, where a batch rounds otherwise: the same tokens with the same probabilities, to the last bit."""
    monkeypatch.setattr(placed, "_Graph", Replayed)
    engine = load_engine(random_checkpoint, device="cpu", dtype="bfloat16", deterministic=True)
    if name != "joined":
        capture = name == "captured"
        engine.text = PlacedText(engine.thinker, capture=capture, apart=engine.deterministic)
    clips = [noise(seconds, i) for i, seconds in enumerate((6.0, 2.0, 9.0, 1.0, 4.0))]
    together = replies(engine, clips)
    for clip, expected in zip(clips, together, strict=True):
        [alone] = replies(engine, [clip])
        assert [r.ids for r in alone] == [r.ids for r in expected]
        assert [r.probabilities for r in alone] == [r.probabilities for r in expected]


def test_a_transcript_says_whether_batches_matter(random_checkpoint: Path) -> None:
    def described(**options: Any) -> dict[str, Any]:
        told = load_engine(random_checkpoint, device="cpu", **options).describe()
        return {name: told[name] for name in ("deterministic", "batches") if name in told}

    assert described() == {}
    assert described(dtype="bfloat16") == {"batches": "last bits depend on what shares a batch"}
    assert described(dtype="bfloat16", deterministic=True) == {"deterministic": True}
    assert described(deterministic=True) == {"deterministic": True}


@torch.inference_mode()
def test_places_that_are_not_read_have_room_for_a_step(random_engine: Any) -> None:
    """All places up to the last take part in a step, and padding is written to the others; attention reaches back
    as far as the longest needs."""
    thinker = random_engine.thinker
    reader, alone = PlacedText(thinker, capture=False), PlacedText(thinker, capture=False)
    rows, other = [Held(), Held()], Held()
    long, short, step, end = blocks(thinker, 510, 5, 30, 4)
    reader.read([rows[0]], [long], [1])
    for block in (short, step):
        reader.read([rows[1]], [block], [1])
    for block in (long, end, short):
        [expected] = alone.read([other], [block], [1])
    reader.read([rows[0]], [end], [1])
    [own, _] = reader.read(rows, [short, end], [1, 1])
    assert torch.allclose(own, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_prefill_asks_for_room_in_its_own_places(random_engine: Any) -> None:
    reader, rows = PlacedText(random_engine.thinker, capture=False), [Held(), Held()]
    for row, tokens, length in ((0, 480, 512), (1, 300, 512), (1, 20, 512), (0, 40, 1024)):
        reader.read([rows[row]], blocks(random_engine.thinker, tokens), [1])
        assert reader._length == length


@torch.inference_mode()
def test_rows_that_are_done_leave_when_they_are_half(random_engine: Any) -> None:
    reader, rows = JoinedText(random_engine.thinker), [Held() for _ in range(4)]
    for count, left in ((4, 0), (3, 0), (2, 2), (1, 3)):
        reader.read(rows[:count], blocks(random_engine.thinker, *[3] * count), [1] * count)
        assert [bool(row.places) for row in rows] == [False] * (4 - left) + [True] * left


def test_cuda_graphs_want_a_gpu(random_checkpoint: Path) -> None:
    with pytest.raises(SettingsError, match=r"on cpu, expected an NVIDIA GPU; leave it out"):
        load_engine(random_checkpoint, device="cpu", cuda_graphs=True)


@pytest.mark.parametrize("answer", ["assembled", "model"])
def test_the_same_words_as_by_transformers(answer: str) -> None:
    from speaker_reasoner import audio

    example = audio.load(Path(__file__).parent.parent / "examples" / "meeting.flac")
    engine = load_engine("tiny", device="cpu")
    assert isinstance(engine.text, FlatText)
    clips = [example, example[: len(example) // 2], noise(2.0)]
    own = replies(engine, clips, answer=answer)
    for other in (JoinedText(engine.thinker), PlacedText(engine.thinker, capture=False)):
        engine.text = other
        assert_same(own, replies(engine, clips, answer=answer))


def test_weights_that_change_are_taken_up(random_checkpoint: Path) -> None:
    engine = load_engine(random_checkpoint, device="cpu")
    clips = [noise(3.0)]
    before = replies(engine, clips)
    with torch.no_grad():
        for parameter in engine.thinker.parameters():
            parameter.mul_(1.5)
    after = replies(engine, clips)
    assert [r.probabilities for r in before[0]] != [r.probabilities for r in after[0]]
    engine.text, engine.fast = JoinedText(engine.thinker), FastLinears(torch.nn.Module())
    assert_same(after, replies(engine, clips))


@pytest.mark.parametrize("part", ["lm_head.weight", "self_attn.v_proj.bias"])
def test_one_weight_that_changes_is_taken_up(tokenizer: Any, part: str) -> None:
    thinker = spread(MAKERS["qwen2.5"](tokenizer))
    [*_, weight] = [one for name, one in thinker.named_parameters() if name.endswith(part)]
    reader, other = FlatText(thinker), JoinedText(thinker)
    [block] = blocks(thinker, 5)
    with torch.inference_mode():
        reader.read([Held()], [block], [2])
        reader.release()
    with torch.no_grad():
        weight += 1.0
    with torch.inference_mode():
        [own], [expected] = (one.read([Held()], [block], [2]) for one in (reader, other))
    assert torch.allclose(own, expected, rtol=0, atol=1e-4)


@each_reader
def test_dialogues_that_join_late_change_nothing(random_checkpoint: Path, name: str) -> None:
    """Whole chunks and short slices share a batch, batches grow and shrink."""
    engine = load_engine(random_checkpoint, device="cpu")
    engine.text = READERS[name](engine.thinker)
    clips = [noise(seconds, i) for i, seconds in enumerate((15.0, 6.0, 19.0, 0.7))]
    alone = [transcripts(engine, [clip])[0] for clip in clips]
    dialogues: list[Dialogue] = []
    for clip in clips:
        dialogues.append(Dialogue(clip, engine.profile))
        for _ in ask(dialogues, engine):
            pass
    for _ in run(dialogues, engine):
        pass
    assert alone == [[one.text for one in d.outcome.trace.answers] for d in dialogues if d.outcome]
    assert transcripts(engine, clips) == alone


@each_reader
def test_the_next_batch_after_one_that_failed(
    random_checkpoint: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forward may end in the middle of the layers: a server goes on with the next recordings."""
    engine = load_engine(random_checkpoint, device="cpu")
    engine.text = READERS[name](engine.thinker)
    clips = [noise(seconds, i) for i, seconds in enumerate((4.0, 7.0))]
    expected = transcripts(engine, clips)
    after = [0]

    def short(module: Any, *_: Any) -> None:
        after[0] += 1
        if after[0] == 7:
            raise torch.OutOfMemoryError("no more")

    layer = text_model(engine.thinker).layers[0].post_attention_layernorm
    with monkeypatch.context() as patch:
        if name == "flat":
            norm = flat._Norm.__call__
            patch.setattr(flat._Norm, "__call__", lambda own, x: (short(own), norm(own, x))[1])
        else:
            patch.setattr(layer, "forward", lambda x, f=layer.forward: (short(layer), f(x))[1])
        with pytest.raises(EngineError, match="out of memory with 2 dialogues at once"):
            transcripts(engine, clips)
    assert transcripts(engine, clips) == expected


def test_a_gpu_that_fails_midway(random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error that names it; on a CPU an error of this kind is ours, and stays what it is."""

    def failing(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    engine, clips = load_engine(random_checkpoint, device="cpu"), [noise(2.0)]
    monkeypatch.setattr(engine, "_write", failing)
    with pytest.raises(RuntimeError, match=r"^CUDA error"):
        transcripts(engine, clips)
    monkeypatch.setattr(engine, "device", torch.device("cuda"))
    with pytest.raises(
        EngineError, match=r"^cuda failed with 1 dialogues at once: CUDA .*encountered; what was"
    ):
        transcripts(engine, clips)


@torch.inference_mode()
def test_places_without_room_grow_later(
    random_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinker = random_engine.thinker
    reader, other = PlacedText(thinker, capture=False), PlacedText(thinker, capture=False)
    rows, others = [Held(), Held()], [Held(), Held()]
    first, second, third = blocks(thinker, 500, 600, 40)
    for one, row in ((reader, rows[0]), (other, others[0])):
        one.read([row], [first], [1])
    made, zeros = [0], torch.zeros

    def short(*arguments: Any, **options: Any) -> Any:
        made[0] += 1
        if made[0] == 2:
            raise torch.OutOfMemoryError("no more")
        return zeros(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(placed.torch, "zeros", short)
        with pytest.raises(torch.OutOfMemoryError):
            reader.read([rows[1]], [second], [1])
    for block, place in ((third, 0), (third[:3], 0), (second, 1)):
        own = reader.read([rows[place]], [block], [1]) + other.read([others[place]], [block], [1])
        assert torch.equal(*own)


def test_what_it_does_not_know_is_left_to_transformers(
    random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known() -> bool:
        return is_flat(load_engine(random_checkpoint, device="cpu").thinker)

    assert known()
    engine = load_engine(random_checkpoint, device="cpu", dtype="bfloat16")
    assert not is_flat(engine.thinker) and isinstance(engine.text, JoinedText)
    thinker = load_engine(random_checkpoint, device="cpu").thinker
    own = text_model(thinker).layers[0].self_attn

    class Adapted(torch.nn.Linear):
        pass

    own.q_proj = Adapted(own.q_proj.in_features, own.q_proj.out_features, bias=False)
    assert not is_flat(thinker)
    monkeypatch.setattr(flat, "is_small", lambda model: False)
    assert not known()


class Quantised(torch.Tensor):
    """Weights of a class of their own, which say that they are float32, as torchao's do."""


def hooked(thinker: Any) -> None:
    text_model(thinker).layers[1].register_forward_pre_hook(lambda *_: None)


def replaced(thinker: Any) -> None:
    norm = text_model(thinker).layers[1].input_layernorm
    norm.forward = norm.forward


def quantised(thinker: Any) -> None:
    up = text_model(thinker).layers[1].mlp.up_proj
    up.weight = torch.nn.Parameter(up.weight.detach().as_subclass(Quantised), requires_grad=False)


def narrowed(thinker: Any) -> None:
    text_model(thinker).layers[1].self_attn.sliding_window = 8


@pytest.mark.parametrize("change", [hooked, replaced, quantised, narrowed])
def test_layers_that_were_changed_are_left_to_transformers(
    random_checkpoint: Path, change: Any
) -> None:
    """Sharded, offloaded and quantised weights; windows. After the engine was made it is an error."""
    engine = load_engine(random_checkpoint, device="cpu")
    assert isinstance(engine.text, FlatText)
    change(engine.thinker)
    assert isinstance(TransformersEngine(engine.checkpoint).text, JoinedText)
    with pytest.raises(EngineError, match=r"make another engine of it"):
        transcripts(engine, [noise(2.0)])
    if change is narrowed:
        with pytest.raises(SettingsError, match=r"sliding window"):
            PlacedText(engine.thinker, capture=True)


def test_autocast_is_left_to_transformers(random_checkpoint: Path) -> None:
    """Training with `bf16` transcribes under it."""
    checkpoint = load_engine(random_checkpoint, device="cpu").checkpoint
    with torch.autocast("cpu", torch.bfloat16):
        engine = TransformersEngine(checkpoint)
        assert isinstance(engine.text, JoinedText)
        own = transcripts(engine, [noise(3.0)])
    plain = TransformersEngine(checkpoint, lookahead=0)
    plain.text, plain.fast = JoinedText(plain.thinker), FastLinears(torch.nn.Module())
    with torch.autocast("cpu", torch.bfloat16):
        assert own == transcripts(plain, [noise(3.0)])


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("bias", [False, True])
def test_product(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layers = [torch.nn.Linear(48, width, bias=bias) for width in (32, 16)]
    x = torch.randn(rows, 48)
    with torch.inference_mode():
        expected = torch.cat([layer(x) for layer in layers], -1)
        assert torch.allclose(Product.of(layers)(x), expected, rtol=0, atol=1e-5)
        strided = torch.randn(48, rows).T
        assert torch.allclose(Product.of(layers[:1])(strided), layers[0](strided), atol=1e-5)


def test_layers_are_given_back_as_they_were(random_engine: Any) -> None:
    model = random_engine.thinker
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    with pytest.raises(KeyError), FastLinears(model).used():
        assert all(("forward" in vars(layer)) is linears._ONE_DNN for layer in layers)
        raise KeyError
    assert not any("forward" in vars(layer) for layer in layers)
