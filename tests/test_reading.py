"""The ways to read new tokens through the text model: flat operations, static places, joined caches."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.engines import flat, placed
from speaker_reasoner.engines.flat import FlatText, is_flat
from speaker_reasoner.engines.joined import JoinedText
from speaker_reasoner.engines.linears import FastLinears, Product
from speaker_reasoner.engines.memory import Held
from speaker_reasoner.engines.placed import PlacedText
from speaker_reasoner.engines.thinker import text_model
from speaker_reasoner.errors import SettingsError

from .conftest import noise
from .test_checkpoint import MAKERS, spread
from .test_lookahead import assert_same, replies


def blocks(thinker: Any, *lengths: int, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    width = thinker.get_input_embeddings().weight.shape[1]
    return [torch.randn(length, width) for length in lengths]


@pytest.mark.parametrize("kind", MAKERS)
@torch.inference_mode()
def test_logits_equal_transformers(tokenizer: Any, kind: str) -> None:
    """Rows of any length that come, go, drop their last tokens and come back: within 1e-4."""
    thinker = spread(MAKERS[kind](tokenizer))
    assert is_flat(thinker)
    readers = FlatText(thinker), JoinedText(thinker), PlacedText(thinker, capture=False)
    held = [[Held() for _ in range(4)] for _ in readers]
    turns = [  # rows, lengths of their blocks, how many logits, how many tokens are dropped
        ([0, 1, 2], (9, 1, 130), (1, 1, 4), (0, 0, 3)),
        ([2, 0], (1, 2), (1, 2), (0, 1)),
        ([3, 1, 0, 2], (70, 3, 1, 1), (1, 3, 1, 1), (9, 2, 0, 0)),
        ([1], (1,), (1,), (0,)),
        ([3], (5,), (5,), (5,)),
        ([0, 1, 2, 3], (1, 1, 1, 1), (1, 1, 1, 1), (0, 0, 0, 0)),
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
    assert [[row.tokens for row in own] for own in held] == [[12, 4, 130, 62]] * len(readers)


class Replayed(placed._Graph):
    """What a captured step does, without a GPU: the same work on its own inputs."""

    made = 0

    def __init__(self, text: PlacedText, inputs: Any, at: Any, length: int) -> None:
        self._inputs, self._at = inputs.clone(), at.clone()
        self._output = text.forward(self._inputs, self._at, None, length)
        forward = lambda: text.forward(self._inputs, self._at, None, length)  # noqa: E731
        self._graph = SimpleNamespace(replay=lambda: self._output.copy_(forward()))
        Replayed.made += 1


@torch.inference_mode()
def test_steps_are_captured_once_for_each_size(
    random_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays equal steps that are not captured, also when rows come, go and outgrow their places."""
    monkeypatch.setattr(placed, "_Graph", Replayed)
    thinker = random_engine.thinker
    readers = PlacedText(thinker, capture=False), PlacedText(thinker, capture=True)
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
    assert 3 <= Replayed.made <= 3 * 4 * 2  # widths, places, lengths
    assert max(row.tokens for row in held[0]) > 512


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
        assert all("forward" in vars(layer) for layer in layers)
        raise KeyError
    assert not any("forward" in vars(layer) for layer in layers)
