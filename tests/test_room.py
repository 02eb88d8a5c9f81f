"""A model that does not fit on a GPU is refused before its weights are read."""

import logging
import warnings
from typing import Any

import pytest
import torch
import transformers

from speaker_reasoner import load_engine
from speaker_reasoner.engines import checkpoint, room
from speaker_reasoner.engines.room import Card, check_precision, check_room, usable_cuda
from speaker_reasoner.errors import CheckpointError
from speaker_reasoner.train.shapes import PUBLISHED

CUDA = torch.device("cuda")


def published(name: str) -> tuple[Any, Any]:
    config = transformers.AutoConfig.for_model(**PUBLISHED[name])
    return checkpoint._thinker_class(config), config


def card(gib: float) -> Card:
    return Card("a card", round(gib * 2**30), 80 * 2**30)


@pytest.mark.parametrize(
    ("name", "dtype", "gib", "expected"),
    [
        ("qwen3-omni-30b-a3b", torch.bfloat16, 78.0, range(16, 30)),
        ("qwen3-omni-30b-a3b", torch.bfloat16, 64.0, range(1, 8)),
        ("qwen2.5-omni-7b", torch.bfloat16, 23.0, range(6, 14)),
        ("qwen2.5-omni-7b", torch.float32, 40.0, range(2, 8)),
    ],
)
def test_room_beside_the_published_sizes(
    name: str, dtype: torch.dtype, gib: float, expected: range
) -> None:
    assert check_room(*published(name), dtype, card(gib)) in expected


@pytest.mark.parametrize(
    ("gib", "plain", "captured"), [(64.0, 3, 1), (70.0, 11, 8), (78.0, 22, 16), (139.0, 103, 64)]
)
def test_captured_steps_take_room(gib: float, plain: int, captured: int) -> None:
    """Places are a power of two, and captures take memory beside them."""
    given = *published("qwen3-omni-30b-a3b"), torch.bfloat16, card(gib)
    assert (check_room(*given), check_room(*given, cuda_graphs=True)) == (plain, captured)


def test_captures_keep_their_inputs_and_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 captures of 2**14 tokens of 2048 halves, twice: 8 GiB, which are 10 dialogues."""
    given = *published("qwen3-omni-30b-a3b"), torch.bfloat16, card(78.0)
    assert check_room(*given, cuda_graphs=True) == 16
    monkeypatch.setattr(room, "MOST_TOKENS", 2**14)
    assert check_room(*given, cuda_graphs=True) == 8
    assert check_room(*given) > 16


def test_a_card_whose_rest_captured_steps_would_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    given = *published("qwen3-omni-30b-a3b"), torch.bfloat16, card(62.5)
    assert check_room(*given) == 1
    with pytest.raises(CheckpointError, match=r"one dialogue and captured steps \(--cuda-graphs\)"):
        check_room(*given, cuda_graphs=True)
    asked = []
    monkeypatch.setattr(checkpoint, "_device", lambda name: CUDA)
    monkeypatch.setattr(checkpoint, "check_precision", lambda *_: None)
    monkeypatch.setattr(Card, "of", lambda device: card(1.0))

    def check(*_: Any, cuda_graphs: bool) -> None:
        asked.append(cuda_graphs)
        raise CheckpointError("no room")

    monkeypatch.setattr(checkpoint, "check_room", check)
    for graphs in (False, True):
        with pytest.raises(CheckpointError, match="no room"):
            load_engine("tiny", cuda_graphs=graphs)
    assert asked == [False, True]


def test_few_dialogues_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        few = check_room(*published("qwen3-omni-30b-a3b"), torch.bfloat16, card(64.0))
        assert f"room for about {few} dialogues at once (--batch {few})" in caplog.text
        caplog.clear()
        check_room(*published("qwen3-omni-30b-a3b"), torch.bfloat16, card(78.0))
        assert not caplog.text


def test_a_smaller_card_is_refused_before_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(checkpoint, "_device", lambda name: CUDA)
    monkeypatch.setattr(checkpoint, "load_thinker", read)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a small card")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    with pytest.raises(CheckpointError) as refused:
        checkpoint.load_checkpoint()
    for part in ("in bfloat16", "a small card has 1.0 GiB free of 2.0 GiB", "--device cpu"):
        assert part in str(refused.value)
    with pytest.raises(CheckpointError, match=r"take \d\d\.\d GiB in bfloat16"):
        check_room(*published("qwen3-omni-30b-a3b"), torch.bfloat16, card(24.0))


@pytest.mark.parametrize("when", ["asked", "filled"])
def test_a_card_that_fails_while_a_model_is_loaded(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is full before torch can use it, or another process fills it while weights are read."""

    def asked(device: Any) -> tuple[int, int]:
        if when == "asked":
            raise RuntimeError(
                "CUDA error: out of memory\nCUDA kernel errors might be reported later"
            )
        return 2**34, 2**35

    def moved(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB.")

    monkeypatch.setattr(checkpoint, "_device", lambda name: CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "mem_get_info", asked)
    monkeypatch.setattr(transformers.PreTrainedModel, "to", moved)
    with pytest.raises(
        CheckpointError, match=r"cannot be put on cuda: CUDA .*out of memory.*; stop"
    ):
        checkpoint.load_checkpoint()


def test_a_card_without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(CheckpointError, match=r"7\.5\) has no bfloat16.*--dtype float16"):
        check_precision(torch.bfloat16, CUDA)
    check_precision(torch.float16, CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_precision(torch.bfloat16, CUDA)


def test_a_driver_or_a_card_that_is_too_old_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unusable() -> bool:
        warnings.warn(
            "CUDA initialization: the driver is too old (found 11040)\nmore", stacklevel=1
        )
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unusable)
    with caplog.at_level(logging.WARNING):
        assert not usable_cuda()
    assert caplog.messages == [
        "no GPU is used: CUDA initialization: the driver is too old (found 11040)"
    ]
    caplog.clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: unusable() or True)
    computed: list[Exception] = []

    def compute(*_: Any, device: str) -> float:
        if computed:
            raise computed.pop()
        return 0.0

    monkeypatch.setattr(torch, "zeros", compute)
    assert usable_cuda() and not caplog.messages, "it is used, whatever was warned of"
    computed.append(RuntimeError("CUDA error: out of memory"))
    assert usable_cuda() and not caplog.messages, "a full one is told of where a model is put on it"
    computed.append(RuntimeError("CUDA error: no kernel image is available for execution\nmore"))
    assert not usable_cuda()
    assert caplog.messages == [
        "no GPU is used: CUDA error: no kernel image is available for execution"
    ]
