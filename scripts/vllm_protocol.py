"""Check every request that we send to vLLM by its own classes: see `scripts/vllm-protocol`.

Dialogues of both layouts run to their ends over a server that plays turns; each body is read by
`ChatCompletionRequest`, may hold no field that is unknown to it, each clip is taken by the parser of content parts,
and each expression by the validation of both backends. Then the in-process engine's sampling parameters, prompts and
logits processor are compared with the real classes.
"""

import asyncio
import base64
import inspect
import io
import sys
import typing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile

from speaker_reasoner.engines.client import Address, Client
from speaker_reasoner.engines.remote import RemoteEngine
from speaker_reasoner.protocol import Profile
from speaker_reasoner.reasoner import Dialogue, run

FOLDER = Path(sys.argv[1])

NATIVE = (
    "<think>\n2 speakers: Speaker1-female, Speaker2-male\n</think><box>[0.00, 2.00]</box>",
    "<think>\nSpeaker1-female [0.00, 2.00]: one\n</think><box>[2.00, 4.00]</box>",
    "<think>\nSpeaker2-male [3.00, 2.50]: two\n</think><answer>",
    "<think>\nSpeaker2-male [3.00, 3.50]: two\n</think><answer>",
)
FREE = (
    "<think>Two people, 甲 and 乙.</think>\n<box>[0, 2.0]</box>",
    "<think>甲 (F) [0.0, 2.0]: one\n</think><box>[2.0, 4.0]</box>",
    "<think>乙 (M) [3.0, 2.5]: two</think>\n<answer>",
    "<think>乙 (M) [3.0, 3.5]: two</think>\n<answer>",
)


class Playing:
    """A client that plays turns, and keeps the requests."""

    def __init__(self, turns: tuple[str, ...]) -> None:
        self.client = Client(Address("http://localhost:1/v1"))
        self.address, self.turns, self.asked = self.client.address, iter(turns), []  # type: ignore[var-annotated]

    def run(self, work: Any) -> Any:
        return asyncio.run(work)

    async def post(self, path: str, body: dict[str, Any], *, retries: Any = None) -> dict[str, Any]:
        assert path == "/chat/completions"
        self.asked.append(body)
        message = {"role": "assistant", "content": next(self.turns)}
        return {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}


def bodies() -> list[dict[str, Any]]:
    """Return all requests of a dialogue in each layout, with a turn that is asked for again."""
    requests = []
    profile = Profile(chunk_s=4.0)
    for own, turns in ((profile, NATIVE), (replace(profile, name="released"), FREE)):
        client = Playing(turns)
        engine = RemoteEngine(client, "m", own, server="vllm")  # type: ignore[arg-type]
        samples = np.random.default_rng(0).standard_normal(64_000).astype(np.float32) * 0.1
        dialogue = Dialogue(samples, own)
        for _ in run([dialogue], engine):
            pass
        assert dialogue.outcome is not None and dialogue.outcome.stop == "answered"
        assert len(client.asked) == 4
        requests += client.asked
        client.client.close()
    return requests


class Parser:
    """Records how vLLM's parser of content parts reads a clip."""

    model_config = type("Config", (), {"enable_prompt_embeds": False})

    def __init__(self) -> None:
        self.clips: list[tuple[Any, Any]] = []

    def parse_input_audio(self, clip: Any, uuid: Any) -> None:
        self.clips.append((clip, uuid))


def check_chat() -> int:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.chat_utils.chat_message import parse_chat_message_content_part

    known: set[str] = set()
    requests = bodies()
    for body in requests:
        request = ChatCompletionRequest.model_validate(body)
        assert not request.model_extra, request.model_extra
        params = request.to_sampling_params(body["max_tokens"], {})
        assert params.temperature == 0 and params.logprobs == 0, params
        check_expression(params)
        for message, sent in zip(request.messages, body["messages"], strict=True):
            if message["role"] == "assistant":
                assert message["content"] == sent["content"]
                continue
            for part in list(message["content"]):
                parser = Parser()
                parse_chat_message_content_part(
                    part, parser, mm_tracker=None, wrap_dicts=True, interleave_strings=False
                )
                if part["type"] != "input_audio":
                    continue
                [(clip, uuid)] = parser.clips
                assert uuid == part["uuid"]
                if clip["data"]:
                    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["data"])))
                    assert rate == 16_000 and len(samples) >= rate
                    known.add(uuid)
                assert uuid in known
    return len(requests)


def check_expression(params: Any) -> None:
    from vllm.v1.structured_output.backend_guidance import validate_guidance_grammar
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

    assert params.structured_outputs is not None and params.structured_outputs.regex
    validate_xgrammar_grammar(params)
    validate_guidance_grammar(params, tokenizer=None)


def check_in_process() -> None:
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.lora.request import LoRARequest
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

    from speaker_reasoner.engines.vllm_grammar import RULES, GrammarProcessor, rules_from

    rules = {"turn": 0, "chunk": 40, "box": None, "speakers": 0, "cached": [], "count": None}
    rules |= {"model_answer": False, "last": False, "task": "dialogue", "profile": {"decimals": 1}}
    assert rules_from(rules).profile.decimals == 1  # type: ignore[arg-type]
    params = SamplingParams(
        temperature=0.0,
        max_tokens=2048,
        logprobs=0,
        detokenize=False,
        stop_token_ids=[1],
        extra_args={RULES: rules},
    )
    assert params.extra_args[RULES] == rules
    assert {"prompt_token_ids", "multi_modal_data", "multi_modal_uuids"} <= set(
        typing.get_type_hints(TokensPrompt)
    )
    assert LoRARequest("adapter", 1, "folder").lora_path == "folder"
    assert issubclass(GrammarProcessor, AdapterLogitsProcessor)
    assert not GrammarProcessor.__abstractmethods__
    check_processor(params)
    source = (FOLDER / "vllm" / "entrypoints" / "llm.py").read_text()
    for word in ("use_tqdm:", "lora_request:", "logits_processors:", "sampling_params:"):
        assert word in source, word
    arguments = (FOLDER / "vllm" / "engine" / "arg_utils.py").read_text()
    for word in (
        *("async_scheduling", "enable_prefix_caching", "limit_mm_per_prompt"),
        *("enable_lora", "max_lora_rank"),
    ):
        assert f"    {word}: " in arguments, word
    assert len(inspect.signature(AdapterLogitsProcessor.__init__).parameters) == 4


def check_processor(params: Any) -> None:
    """Check our grammar in vLLM's own batch state: a request beside one without rules is moved, and goes on."""
    import torch
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    from speaker_reasoner.engines.checkpoint import EMBEDDED, find_checkpoint
    from speaker_reasoner.engines.vllm_grammar import GrammarProcessor, rules_from
    from speaker_reasoner.protocol.checking import valid_part

    size = int(find_checkpoint(None).config.get_text_config().vocab_size)
    model = SimpleNamespace(tokenizer=str(EMBEDDED), get_vocab_size=lambda: size)
    processor = GrammarProcessor(SimpleNamespace(model_config=model), torch.device("cpu"), False)
    written: list[int] = []
    added = [(0, SamplingParams(), [], []), (1, params, [], written)]
    processor.update_state(BatchUpdate(2, [], added, []))
    rules, text = rules_from(params.extra_args["turn_rules"]), ""
    for number, row in enumerate(torch.randn(12, 2, size, generator=torch.manual_seed(0))):
        place = 1 if number < 6 else 0
        if number == 6:
            moved = [(1, 0, MoveDirectionality.UNIDIRECTIONAL)]
            processor.update_state(BatchUpdate(1, [0], [], moved))
        logits = processor.apply(row.clone())
        assert torch.equal(logits[1 - place], row[1 - place])
        assert int(torch.isfinite(logits[place]).sum()) == 1
        written.append(int(logits[place].argmax()))
        text += (processor._vocabulary.tokens[written[-1]] or b"").decode()
        assert text and valid_part(rules, text) == text


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER))
    sys.path.append(str(FOLDER / "packages"))
    count = check_chat()
    check_in_process()
    print(f"{count} chat requests and the calls of the in-process engine fit vLLM in {FOLDER}")
