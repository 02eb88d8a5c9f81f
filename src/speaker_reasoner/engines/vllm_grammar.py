"""Our grammar as a logits processor of vLLM: each request has the rules and the state of its own turn.

Loaded by name in vLLM's own process (`LLM(logits_processors=[PROCESSOR])`), which imports vLLM; nothing else imports
this module. A request brings the rules of its turn as `SamplingParams.extra_args`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from ..protocol.grammar import TurnRules, start
from ..protocol.markup import MARKUP
from ..protocol.matcher import advance
from ..protocol.profile import profile_of
from ..protocol.turns import Box
from ..protocol.vocabulary import TRIED_FIRST, Vocabulary

PROCESSOR = f"{__name__}:GrammarProcessor"
RULES = "turn_rules"


class TurnProcessor:
    """Leaves the best token that the rules of a turn allow, and no other.

    Args:
        vocabulary: of the model's tokenizer.
        rules: of the turn.
    """

    def __init__(self, vocabulary: Vocabulary, rules: TurnRules) -> None:
        self._vocabulary = vocabulary
        self._state = start(rules)
        self._read = 0

    def __call__(self, output_ids: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        """See vLLM's `RequestLogitsProcessor`.

        Args:
            output_ids: tokens written so far; also those of before a preemption.
            logits: `[V]`; changed in place.
        """
        for token in output_ids[self._read :]:
            if token < 0:
                raise ValueError("a token is not known yet: asynchronous scheduling must be off")
            self._state = advance(self._state, self._vocabulary.tokens[token] or b"")
        self._read = len(output_ids)
        likely = torch.topk(logits, min(TRIED_FIRST, len(logits))).indices.tolist()
        token, _ = self._vocabulary.choose(
            likely, lambda: logits.float().cpu().numpy(), self._state
        )
        best = logits[token].clone()
        logits.fill_(float("-inf"))
        logits[token] = best
        return logits


class GrammarProcessor(AdapterLogitsProcessor):  # type: ignore[misc]
    """A `TurnProcessor` for each request that brings rules."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        from transformers import AutoTokenizer

        config = vllm_config.model_config
        tokenizer = AutoTokenizer.from_pretrained(config.tokenizer)
        end_id = int(tokenizer.convert_tokens_to_ids(MARKUP.end))
        self._vocabulary = Vocabulary(tokenizer, end_id, int(config.get_vocab_size()))

    def is_argmax_invariant(self) -> bool:
        """Return False: the processor may change which token is the most probable."""
        return False

    def new_req_logits_processor(self, params: Any) -> TurnProcessor | None:
        """See vLLM."""
        row = (params.extra_args or {}).get(RULES)
        return None if row is None else TurnProcessor(self._vocabulary, rules_from(row))


def rules_from(row: dict[str, Any]) -> TurnRules:
    """Read the rules that `vllm.VllmEngine` sends: those of `chat.rules_row`, and the profile."""
    values = dict(row)
    profile, box = profile_of(values.pop("profile"), "the profile of a turn"), values.pop("box")
    count = values.pop("count")
    return TurnRules(
        profile,
        box=None if box is None else Box(*box),
        count=None if count is None else (count[0], count[1]),
        cached=tuple(values.pop("cached")),
        **values,
    )
