"""The engine on vLLM, on a fake of what it calls of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speaker_reasoner import load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.engines.base import Stop
from speaker_reasoner.errors import CheckpointError, EngineError, ExtraError, SettingsError
from speaker_reasoner.reasoner import Dialogue, Outcome, run

from . import fake_vllm
from .conftest import noise


def outcomes(engine: Any, *seconds: float, answer: str = "assembled") -> list[Outcome]:
    dialogues = [
        Dialogue(noise(one, number), engine.profile, answer=answer)
        for number, one in enumerate(seconds)
    ]
    for _ in run(dialogues, engine):
        pass
    return [dialogue.outcome for dialogue in dialogues if dialogue.outcome is not None]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, random_engine: Any, random_checkpoint: Path) -> Any:
    fake_vllm.install(monkeypatch, random_engine)
    return load_engine(random_checkpoint, engine="vllm")


@pytest.mark.parametrize("answer", ["assembled", "model"])
def test_it_writes_what_transformers_writes(engine: Any, random_engine: Any, answer: str) -> None:
    expected = outcomes(random_engine, 3.0, 0.4, answer=answer)
    for one, other in zip(outcomes(engine, 3.0, 0.4, answer=answer), expected, strict=True):
        assert one.stop is other.stop is Stop.ANSWERED
        assert [a.text for a in one.trace.answers] == [a.text for a in other.trace.answers]
        assert len(one.trace.answers) > 1
        for heard, like in zip(one.lines, other.lines, strict=True):
            assert heard.line == like.line
            np.testing.assert_allclose(
                [heard.confidence.speaker, heard.confidence.times],
                [like.confidence.speaker, like.confidence.times],
                atol=1e-4,
            )


def test_what_is_asked_of_vllm(engine: Any) -> None:
    outcomes(engine, 3.0, 2.0)
    options = engine.llm.options
    assert options["enable_prefix_caching"] and not options["async_scheduling"]
    assert options["limit_mm_per_prompt"]["audio"] >= 100
    first, second = engine.llm.asked[0], engine.llm.asked[1]
    assert len(first[0]) == 2
    before, after = first[0][0], second[0][0]
    ids = before["prompt_token_ids"]
    assert after["prompt_token_ids"][: len(ids)] == ids
    names = [prompt["multi_modal_uuids"]["audio"] for prompt in (before, after)]
    assert names[1][: len(names[0])] == names[0] and len(names[1]) == len(names[0]) + 1
    params = first[1][0]
    assert (params.temperature, params.logprobs) == (0.0, 0)
    assert params.extra_args["turn_rules"]["turn"] == 0
    described = engine.describe()
    assert (described["engine"], described["vllm"]) == ("vllm", "0.33.0")
    assert engine.detector("auto") and engine.witness("none") is None


def test_a_request_that_vllm_refuses_ends_alone(engine: Any) -> None:
    before = outcomes(engine, 2.0, 2.5)
    asked = [len(one["prompt_token_ids"]) for call in engine.llm.asked for one in call[0]]
    type(engine.llm).longest = max(asked) - 1
    found = outcomes(engine, 2.0, 2.5)
    assert sorted(one.stop for one in found) == [Stop.ANSWERED, Stop.CONTEXT]
    for one, like in zip(found, before, strict=True):
        if one.stop is Stop.CONTEXT:
            assert one.missing is not None and "maximum model length" in one.detail
        else:
            assert one.lines == like.lines


def test_a_turn_that_is_cut_off_is_named(engine: Any) -> None:
    engine.max_new_tokens = 5
    [one] = outcomes(engine, 2.0)
    assert one.stop is Stop.LENGTH and "5 tokens" in one.detail


def test_a_failure_of_vllm_is_an_error(engine: Any) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("EngineCore\nencountered an issue")

    engine.llm.generate = fail
    with pytest.raises(EngineError, match="vLLM failed: EngineCore encountered an issue"):
        outcomes(engine, 2.0)


def test_a_preempted_request_goes_on_where_it_was(engine: Any) -> None:
    """Its processor is made anew, and given all tokens at once."""
    import torch

    from speaker_reasoner.engines.vllm_grammar import TurnProcessor

    dialogue = Dialogue(noise(2.0), engine.profile)
    request = dialogue.request
    assert request is not None
    vocabulary, size = engine._vocabulary, len(engine._vocabulary.tokens)
    torch.manual_seed(0)
    table = torch.randn(200, size)
    written: list[int] = []
    kept = TurnProcessor(vocabulary, request.rules)
    for row in table:
        token = int(kept(written, row.clone()).argmax())
        again = TurnProcessor(vocabulary, request.rules)(list(written), row.clone())
        assert int(again.argmax()) == token
        if token == engine._end_id:
            break
        written.append(token)
    with pytest.raises(ValueError, match="asynchronous scheduling"):
        kept([*written, -1], table[0].clone())


def test_an_adapter_goes_with_each_request(
    monkeypatch: pytest.MonkeyPatch, random_engine: Any, random_checkpoint: Path, tmp_path: Path
) -> None:
    import json

    fake_vllm.install(monkeypatch, random_engine)
    settings = {"base_model_name_or_path": str(random_checkpoint), "r": 4, "lora_alpha": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **settings}))
    engine: Any = load_engine(tmp_path, engine="vllm")
    assert engine.llm.model == str(random_checkpoint)
    assert engine.llm.options["enable_lora"] and engine.llm.options["max_lora_rank"] == 4
    outcomes(engine, 1.0)
    assert engine.llm.asked[0][2].lora_path == str(tmp_path)
    assert engine.describe()["adapter"] is True


def test_without_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExtraError, match=r"--engine vllm needs vllm: .*\[vllm\]'"):
        load_engine("tiny", engine="vllm")
    with pytest.raises(SettingsError, match="--device cpu: vLLM has no use of it"):
        load_engine("tiny", engine="vllm", device="cpu")
    example = Path(__file__).parents[1] / "examples" / "meeting.flac"
    assert main(["transcribe", str(example), "--engine", "vllm", "--model", "tiny"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --engine vllm needs vllm")


def test_a_model_that_vllm_does_not_load(
    monkeypatch: pytest.MonkeyPatch, random_engine: Any, random_checkpoint: Path
) -> None:
    llm = fake_vllm.install(monkeypatch, random_engine)

    def refuse(self: Any, model: str, **options: Any) -> None:
        raise ValueError("architectures are not supported")

    monkeypatch.setattr(llm, "__init__", refuse)
    remedy = f"export vllm {random_checkpoint} -o DIR"
    with pytest.raises(CheckpointError, match=f"vLLM cannot load it: architectures.*{remedy}"):
        load_engine(random_checkpoint, engine="vllm")


def test_nothing_of_it_is_imported_unasked() -> None:
    code = "import sys, speaker_reasoner, speaker_reasoner.cli; import speaker_reasoner.longform; "
    code += "print([m for m in sys.modules if 'vllm' in m or m == 'httpx'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
