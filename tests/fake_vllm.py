"""The part of vLLM that the engine calls, over a thinker of transformers: one prompt after the other, each
read anew. Signatures are those of vLLM 0.33; `scripts/vllm-protocol` compares them with the real ones."""

import sys
import types
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from speaker_reasoner.engines import Session
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.thinker import embed, text_model
from speaker_reasoner.protocol import Audio, TokenizedPart


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    logprobs: int | None = None
    detokenize: bool = True
    stop_token_ids: list[int] = field(default_factory=list)
    extra_args: dict[str, Any] | None = None


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


class AdapterLogitsProcessor:
    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self.req_info: dict[int, Any] = {}

    def add(self, index: int, params: SamplingParams, output_ids: list[int]) -> None:
        if made := self.new_req_logits_processor(params):  # type: ignore[attr-defined]
            self.req_info[index] = partial(made, output_ids)


class LLM:
    """Set `engine` to a `TransformersEngine` first."""

    engine: TransformersEngine
    longest = 10**6

    def __init__(self, model: str, **options: Any) -> None:
        self.model, self.options = model, options
        self.asked: list[Any] = []
        [name] = options["logits_processors"]
        module, _, kind = name.partition(":")
        config = SimpleNamespace(
            model_config=SimpleNamespace(tokenizer=model, get_vocab_size=self._size)
        )
        made = getattr(__import__(module, fromlist=[kind]), kind)
        self.processor = made(config, torch.device("cpu"), False)

    def _size(self) -> int:
        return len(self.engine.vocabulary.tokens)

    @torch.inference_mode()
    def generate(
        self,
        prompts: list[Any],
        sampling_params: list[SamplingParams],
        *,
        use_tqdm: bool,
        lora_request: Any = None,
    ) -> list[Any]:
        self.asked.append((prompts, sampling_params, lora_request))
        for prompt in prompts:
            if len(prompt["prompt_token_ids"]) > self.longest:
                raise ValueError(f"longer than the maximum model length of {self.longest}")
        return [self._one(*pair) for pair in zip(prompts, sampling_params, strict=True)]

    def _one(self, prompt: Any, params: SamplingParams) -> Any:
        written: list[int] = []
        rows: list[dict[int, Any]] = []
        self.processor.req_info.clear()
        self.processor.add(0, params, written)
        new, cache = self._embedded(prompt), DynamicCache()
        while len(written) < params.max_tokens:
            logits = self._logits(new, cache)
            normal = torch.log_softmax(logits, dim=-1)
            token = int(self.processor.req_info[0](logits.clone()).argmax())
            written.append(token)
            rows.append({token: SimpleNamespace(logprob=float(normal[token]))})
            if token in params.stop_token_ids:
                break
            new = embed(self.engine.thinker, torch.tensor([token]))
        reason = "stop" if written[-1] in params.stop_token_ids else "length"
        output = SimpleNamespace(token_ids=written, logprobs=rows, finish_reason=reason)
        return SimpleNamespace(outputs=[output])

    def _embedded(self, prompt: Any) -> torch.Tensor:
        clips = [samples for samples, rate in prompt["multi_modal_data"]["audio"] if rate == 16_000]
        assert len(clips) == len(prompt["multi_modal_uuids"]["audio"])
        pieces, number = [], 0
        for token in prompt["prompt_token_ids"]:
            audio = None
            if token == self.engine.audio_id:
                audio, number = Audio(0, len(clips[number]), number), number + 1
            pieces.append(TokenizedPart(() if audio else (token,), audio, False))
        assert number == len(clips)
        return self.engine._embed([(Session(clips[0], tuple(clips[1:])), pieces)])[0]

    def _logits(self, new: torch.Tensor, cache: Any) -> torch.Tensor:
        places = cache.get_seq_length() + torch.arange(len(new))[None]
        output = text_model(self.engine.thinker)(
            inputs_embeds=new[None],
            position_ids=places.expand(3, 1, -1),
            past_key_values=cache,
            use_cache=True,
        )
        found: torch.Tensor = self.engine.thinker.lm_head(output.last_hidden_state[0, -1]).float()
        return found


def install(monkeypatch: pytest.MonkeyPatch, engine: TransformersEngine) -> type[LLM]:
    """Put the fake in vLLM's place."""
    llm = type("LLM", (LLM,), {"engine": engine})
    package = types.ModuleType("vllm")
    for name, value in (
        ("LLM", llm),
        ("SamplingParams", SamplingParams),
        ("__version__", "0.33.0"),
    ):
        setattr(package, name, value)
    modules = {"vllm": package}
    for path, name, value in (
        ("vllm.v1.sample.logits_processor", "AdapterLogitsProcessor", AdapterLogitsProcessor),
        ("vllm.lora.request", "LoRARequest", LoRARequest),
    ):
        parts = path.split(".")
        for end in range(2, len(parts) + 1):
            modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
        setattr(modules[path], name, value)
    for path, module in modules.items():
        monkeypatch.setitem(sys.modules, path, module)
    monkeypatch.delitem(sys.modules, "speaker_reasoner.engines.vllm_grammar", raising=False)
    return llm
