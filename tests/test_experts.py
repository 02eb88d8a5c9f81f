"""Routed experts by the kernel: in Triton's interpreter, compiled for GPUs that are not here, and refused.

`TRITON_INTERPRET=1 python -m pytest tests/test_experts.py` runs all but the compilation; without, that is done in a
process of its own, because Triton decides when it is imported.
"""

import importlib.util
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from speaker_reasoner.engines import experts
from speaker_reasoner.engines.checkpoint import Checkpoint
from speaker_reasoner.engines.experts import ChosenExperts
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.memory import Held
from speaker_reasoner.engines.placed import PlacedText
from speaker_reasoner.engines.thinker import text_model
from speaker_reasoner.errors import SettingsError
from speaker_reasoner.protocol import Profile
from speaker_reasoner.train.scratch import make_feature_extractor

from .conftest import noise
from .test_checkpoint import MAKERS, spread
from .test_lookahead import assert_same, replies
from .test_reading import by_the_compiler

INSTALLED = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

has_triton = pytest.mark.skipif(not INSTALLED, reason="Triton is not installed")
runs_kernels = pytest.mark.skipif(
    not (INSTALLED and (INTERPRETED or DEVICE == "cuda")), reason="neither a GPU nor an interpreter"
)


def layer_of(count: int, size: int, inner: int, dtype: torch.dtype = torch.float32) -> Any:
    """A layer of experts of transformers."""
    from transformers.models.qwen3_omni_moe import modeling_qwen3_omni_moe as models
    from transformers.models.qwen3_omni_moe.configuration_qwen3_omni_moe import (
        Qwen3OmniMoeTextConfig,
    )

    config = Qwen3OmniMoeTextConfig(
        hidden_size=size, moe_intermediate_size=inner, num_experts=count
    )
    config._experts_implementation = "eager"
    layer = models.Qwen3OmniMoeThinkerTextExperts(config)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, weight.shape[-1] ** -0.5)
    return layer.to(DEVICE, dtype).eval()


def routed(layer: Any, rows: int, choices: int, seed: int) -> tuple[Any, Any, Any]:
    """Hidden states, chosen experts and shares of some tokens."""
    torch.manual_seed(seed)
    count, _, size = layer.gate_up_proj.shape
    hidden = torch.randn(rows, size).to(DEVICE, layer.down_proj.dtype)
    scores = torch.randn(rows, count, device=DEVICE).softmax(-1)
    shares, chosen = scores.topk(choices)
    return hidden, chosen, (shares / shares.sum(-1, keepdim=True)).to(hidden.dtype)


@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="this process runs them itself")
@has_triton
def test_all_of_these_in_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neither a GPU nor an interpreter" not in done.stdout


SIZES = [(64, 48), (33, 7), (8, 130), (530, 20), (20, 1030), (1, 1)]
"""Of the text model and of an expert: less than a block and more, no multiple of anything."""


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("size", "inner"), SIZES)
@torch.inference_mode()
def test_the_kernel_computes_what_transformers_computes(
    size: int, inner: int, dtype: torch.dtype
) -> None:
    from speaker_reasoner.engines.experts_kernel import few_tokens

    layer = layer_of(5, size, inner, dtype)
    exact = layer_of(5, size, inner)
    exact.load_state_dict(layer.state_dict())
    for rows, choices in [(1, 1), (1, 4), (2, 2), (3, 5)] if size + inner < 500 else [(2, 1)]:
        hidden, chosen, shares = routed(layer, rows, choices, seed=rows)
        own = few_tokens(hidden, layer.gate_up_proj, layer.down_proj, chosen, shares)
        library = layer(hidden, chosen, shares)
        expected = exact(hidden.float(), chosen, shares.float())
        assert own.dtype == dtype and own.shape == hidden.shape
        error, its = ((one.float() - expected).abs().max() for one in (own, library))
        largest = expected.abs().max()
        if dtype == torch.float32:
            assert error <= 2e-6 * largest
        else:  # one rounding, of the sum (the interpreter truncates); transformers rounds at each operation
            assert error <= torch.finfo(dtype).eps * largest * 1.01
            assert its <= 8 * torch.finfo(dtype).eps * largest


@runs_kernels
@torch.inference_mode()
def test_tokens_that_share_experts_do_not_change_each_other() -> None:
    """To the bit, whatever else is computed with them."""
    from speaker_reasoner.engines.experts_kernel import few_tokens

    layer = layer_of(3, 40, 24, torch.bfloat16)
    weights = layer.gate_up_proj, layer.down_proj
    hidden, chosen, shares = routed(layer, 8, 2, seed=3)
    assert len({tuple(row) for row in chosen.tolist()}) < 8, "some choose the same ones"
    together = few_tokens(hidden, *weights, chosen, shares)
    for i in range(8):
        alone = few_tokens(hidden[i : i + 1], *weights, chosen[i : i + 1], shares[i : i + 1])
        assert torch.equal(alone[0], together[i])
    strided = hidden.T.contiguous().T, chosen.T.contiguous().T, shares.T.contiguous().T
    assert torch.equal(few_tokens(strided[0], *weights, *strided[1:]), together)


@runs_kernels
@torch.no_grad()
def test_many_tokens_are_left_to_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    from speaker_reasoner.engines import experts_kernel

    layer, asked = layer_of(4, 32, 16), []
    real = experts_kernel.few_tokens
    monkeypatch.setattr(
        experts_kernel, "few_tokens", lambda *given: (asked.append(len(given[0])), real(*given))[1]
    )
    for rows in (8, 9):
        given = routed(layer, rows, 2, seed=rows)
        layer.config._experts_implementation = "grouped_mm"
        expected = layer(*given)
        layer.config._experts_implementation = experts_kernel.NAME
        assert torch.allclose(layer(*given), expected, rtol=0, atol=1e-5)
    assert asked == [8]
    with torch.enable_grad():
        layer(*routed(layer, 2, 2, seed=1)).sum().backward()
    assert asked == [8] and layer.down_proj.grad is not None, "the kernel has no gradients"


def mixture(tokenizer: Any, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """A checkpoint of a small mixture of experts."""
    torch.manual_seed(0)
    thinker = spread(MAKERS["experts"](tokenizer)).to(DEVICE, dtype)
    profile = replace(Profile(), decimals=1, chunk_s=20.0, max_turns=2, max_speakers=4)
    return Checkpoint("a mixture", thinker, tokenizer, make_feature_extractor(), profile)


@runs_kernels
def test_a_mixture_writes_the_same_tokens(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from speaker_reasoner.engines import experts_kernel

    checkpoint, sizes = mixture(tokenizer), []
    few_tokens = experts_kernel.few_tokens
    clips = [noise(2.0), noise(3.0, 1)]
    options: dict[str, Any] = {"max_new_tokens": 24, "lookahead": 0}
    expected = replies(TransformersEngine(checkpoint, experts="library", **options), clips)
    monkeypatch.setattr(
        experts_kernel,
        "few_tokens",
        lambda h, *rest: (sizes.append(len(h)), few_tokens(h, *rest))[1],
    )
    engine = TransformersEngine(checkpoint, experts="kernel", **options)
    assert engine.describe()["experts"] == "kernel"
    sizes.clear()
    own = replies(engine, clips)
    assert_same(own, expected)
    assert len(sizes) > 20 and max(sizes) <= 8
    engine.text = PlacedText(engine.thinker, capture=DEVICE == "cuda")
    assert_same(replies(engine, clips[:1]), expected[:1])
    config = text_model(engine.thinker).config
    assert config._experts_implementation != experts_kernel.NAME, "it is given back"


@runs_kernels
@by_the_compiler
def test_compiled_layers_call_the_kernel(tokenizer: Any) -> None:
    thinker = mixture(tokenizer).thinker
    rows, logits = [Held(), Held()], []
    width = thinker.get_input_embeddings().weight.shape[1]
    readers = [PlacedText(thinker, capture=False, compile=choice) for choice in ("always", "never")]
    chosen = ChosenExperts(thinker, "kernel")
    torch._dynamo.utils.counters.clear()
    for turn, tokens in enumerate((1, 4, 16, 1)):
        torch.manual_seed(turn)
        given = torch.randn(tokens, width, device=DEVICE)
        with torch.inference_mode(), chosen.used():
            logits = [r.read([row], [given], [1])[0] for r, row in zip(readers, rows, strict=True)]
        assert torch.allclose(*logits, rtol=0, atol=1e-4)
    assert readers[0]._compiled is not None
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4, "few tokens, and many"


# Where it cannot be used


def on_a_gpu(thinker: Any) -> Any:
    """A thinker that says that it is on a GPU; its weights stay where they are."""
    return SimpleNamespace(device=torch.device("cuda"), model=thinker.model)


def refusals(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> str:
    """The one line that `auto` says; `kernel` is an error for the same reason."""
    thinker = mixture(tokenizer).thinker
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert not ChosenExperts(on_a_gpu(thinker), "auto").kernel
    [line] = caplog.messages
    assert "\n" not in line and "each step takes longer" in line
    reason = line.partition("is not used: ")[2].partition("; transformers")[0]
    with pytest.raises(SettingsError) as refused:
        ChosenExperts(thinker, "kernel")
    assert str(refused.value) == f"--experts kernel: {reason}; leave it out"
    return reason


def test_without_triton(
    tokenizer: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "speaker_reasoner.engines.experts_kernel", raising=False)
    assert refusals(tokenizer, caplog).startswith("Triton cannot be imported (import of triton")


@has_triton
@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="it runs here")
def test_where_triton_finds_no_gpu(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert refusals(tokenizer, caplog).startswith("it does not compile or run here (0 active")


@pytest.mark.parametrize("wrong", ["larger", "not a number"])
def test_a_kernel_that_computes_other_numbers(
    tokenizer: Any,
    wrong: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def few_tokens(hidden: Any, *_: Any) -> Any:
        return hidden * (1e4 if wrong == "larger" else torch.nan)

    fake = SimpleNamespace(few_tokens=few_tokens, NAME="fake")
    monkeypatch.setitem(sys.modules, "speaker_reasoner.engines.experts_kernel", fake)
    assert refusals(tokenizer, caplog) == "it computes other numbers than transformers here"


def test_what_it_does_not_know(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    dense = MAKERS["dense"](tokenizer)
    with caplog.at_level(logging.WARNING):
        for choice in ("auto", "library"):
            assert not ChosenExperts(on_a_gpu(dense), choice).kernel
        assert not ChosenExperts(mixture(tokenizer).thinker.cpu(), "auto").kernel
    assert not caplog.messages, "nothing is lost"
    with pytest.raises(SettingsError, match="has no experts that it knows; leave it out"):
        ChosenExperts(dense, "kernel")
    layer = layer_of(2, 8, 8)
    assert experts._is_known(layer)
    for name, value in {
        "has_bias": True,
        "is_transposed": True,
        "is_concatenated": False,
        "has_gate": False,
        "_is_expert_parallel": True,
        "act_fn": torch.nn.GELU(),
        "down_proj": torch.nn.Parameter(torch.zeros(2, 8)),
    }.items():
        other = layer_of(2, 8, 8)
        setattr(other, name, value)
        assert not experts._is_known(other), name


@has_triton
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled here")
@pytest.mark.parametrize("arch", [80, 90])
def test_the_kernels_compile_for_gpus(arch: int) -> None:
    """To machine code, for the released model's sizes and for odd ones; no GPU is needed for that."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from speaker_reasoner.engines import experts_kernel as kernels

    for kind in ("bf16", "fp16", "fp32"):
        given = {"chosen": "*i64", "inner": "*fp32"}
        given |= dict.fromkeys(("hidden", "weights", "shares", "output"), f"*{kind}")
        for kernel, units, block in (
            (kernels._inner_units, kernels._INNER_UNITS, kernels._INNER_BLOCK),
            (kernels._outer_units, kernels._OUTER_UNITS, kernels._OUTER_BLOCK),
        ):
            for size, inner in ((2048, 768), (33, 7)):
                sizes = {"WIDTH": size, "INNER": inner, "CHOICES": 8}
                sizes |= {"UNITS": units, "BLOCK": block}
                names = kernel.arg_names
                source = ASTSource(
                    fn=kernel,
                    signature={name: given.get(name, "constexpr") for name in names},
                    constexprs={(names.index(name),): value for name, value in sizes.items()},
                )
                options = {"num_warps": 4, "enable_fp_fusion": True}
                made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
                assert made.asm["cubin"] and ".local" not in made.asm["ptx"]
