"""The engine on transformers: Qwen3-Omni and Qwen2.5-Omni thinkers in this process.

Each dialogue keeps its own keys and values, trimmed of padding; a batch joins those of its rows by
left padding and takes them apart again afterwards. So a turn costs its new slice and tokens, any
dialogues can share a batch, and none sees the others. What is new to a turn is read among rows with
about as much of it: a dialogue that begins brings its whole chunk, ten times what later turns bring.
Positions are given explicitly (with audio alone, the three axes of the rotary embedding count the
same), so no state of the module is involved.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import EngineError
from ..heap import give_back
from ..protocol import TokenizedPart, pieces
from ..protocol.grammar import start
from ..protocol.matcher import State, caught_loop, closed, complete
from ..protocol.vocabulary import Vocabulary
from ..speech import Detect, detector
from ..voices.linking import Trust
from ..voices.witness import Witness
from .base import Reply, Request, Session, Stop
from .checkpoint import Checkpoint
from .comparing import load_witness
from .thinker import MarkedTokenizer, embed, encode_audio, log_mel, slice_tokens, text_model
from .tower import TowerWitness

if TYPE_CHECKING:
    from .memory import KeysValues


@dataclass(slots=True)
class _Memory:
    """What a session remembers: all pieces so far, how many tokens are in the cache, the cache."""

    pieces: list[TokenizedPart] = field(default_factory=list)
    pending: list[TokenizedPart] = field(default_factory=list)
    cached_tokens: int = 0
    cache: "KeysValues | None" = None


@dataclass(slots=True)
class _BatchRow:
    """One dialogue while its turn is written."""

    request: Request
    memory: _Memory
    state: State
    ids: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    looped: bool = False
    done: bool = False


class TransformersEngine:
    """Runs a checkpoint in this process.

    Args:
        checkpoint: loaded model, tokenizer, feature extractor and profile.
        keep_cache: keep keys and values over turns; without it every turn computes all anew.
        constrained: let the grammar choose among tokens; without it the most probable one is taken.
        max_new_tokens: most tokens of one turn.
    """

    name = "transformers"
    in_order = False
    trust = Trust()

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        keep_cache: bool = True,
        constrained: bool = True,
        max_new_tokens: int = 2048,
    ) -> None:
        self.checkpoint = checkpoint
        self.profile = checkpoint.profile
        self.thinker = checkpoint.thinker
        self.keep_cache = keep_cache
        self.constrained = constrained
        self.max_new_tokens = max_new_tokens
        config = self.thinker.config.get_text_config()
        self.context_tokens = int(config.max_position_embeddings)
        self.tokenizer = MarkedTokenizer(checkpoint.tokenizer)
        self.end_id = int(checkpoint.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        self.audio_id = int(self.thinker.config.audio_token_id)
        self.vocabulary = Vocabulary(checkpoint.tokenizer, self.end_id, int(config.vocab_size))
        give_back()

    def describe(self) -> dict[str, Any]:
        """Everything about the engine that a transcript should record."""
        from transformers import __version__ as transformers_version

        return {
            "engine": self.name,
            "model": self.checkpoint.name,
            "class": type(self.thinker).__name__,
            "device": str(self.thinker.device),
            "dtype": str(self.thinker.dtype).removeprefix("torch."),
            "keep_cache": self.keep_cache,
            "constrained": self.constrained,
            "torch": torch.__version__,
            "transformers": transformers_version,
        }

    def detector(self, name: str) -> Detect:
        """See `Engine`; its own choice is by energy."""
        return detector("energy" if name == "auto" else name)

    def witness(self, name: str) -> Witness | None:
        """See `Engine`; its own is the checkpoint's tower, or the voice head's."""
        if name in ("auto", "tower"):
            return TowerWitness(self.checkpoint)
        return load_witness(name, str(self.thinker.device))

    @torch.inference_mode()
    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Write one turn of each session.

        Raises:
            EngineError: memory is exhausted, or the tokenizer cannot spell the protocol.
        """
        rows = [self._row(request) for request in requests]
        fitting = [row for row in rows if self._fits(row)]
        seconds: dict[str, float] = {}
        if fitting:
            try:
                self._write(fitting, seconds)
            except torch.OutOfMemoryError as error:
                raise EngineError(
                    f"out of memory with {len(fitting)} dialogues at once on "
                    f"{self.thinker.device}: use a smaller --batch or --dtype bfloat16"
                ) from error
        give_back()
        shared = {stage: value / len(requests) for stage, value in seconds.items()}
        return [self._reply(row, shared) for row in rows]

    def _row(self, request: Request) -> _BatchRow:
        memory = request.session.memory.setdefault("transformers", _Memory())
        new = list(pieces(request.parts, self.tokenizer, self.end_id))
        memory.pieces += new
        memory.pending += new
        if not self.keep_cache:
            memory.pending, memory.cached_tokens = list(memory.pieces), 0
        return _BatchRow(request, memory, start(request.rules))

    def _fits(self, row: _BatchRow) -> bool:
        slices = [p.audio for p in row.memory.pending if p.audio is not None]
        tokens = row.memory.cached_tokens + sum(
            slice_tokens(self.thinker, [s.end_samples - s.start_samples for s in slices])
        )
        tokens += sum(len(piece.ids) for piece in row.memory.pending)
        return tokens + min(self.max_new_tokens, 256) < self.context_tokens

    def _write(self, rows: list[_BatchRow], seconds: dict[str, float]) -> None:
        """Encode the new slices, prefill, then decode token by token until every row is done."""
        clock = time.perf_counter()
        embedded = self._embed([(row.request.session, row.memory.pending) for row in rows])
        seconds["encode"] = time.perf_counter() - clock
        clock = time.perf_counter()
        logits = self._prefill(rows, embedded)
        seconds["prefill"] = time.perf_counter() - clock
        seconds["grammar"] = 0.0
        clock = time.perf_counter()
        self._decode(rows, logits, seconds)
        seconds["decode"] = time.perf_counter() - clock - seconds["grammar"]
        for row in rows:
            self._remember(row)

    def _prefill(self, rows: list[_BatchRow], embedded: list[Tensor]) -> Tensor:
        """Read what is new to each row, among rows of like length; logits `[B, V]` of what follows."""
        alike: dict[int, list[int]] = {}
        for i, new in enumerate(embedded):
            alike.setdefault(len(new).bit_length(), []).append(i)
        logits: dict[int, Tensor] = {}
        for own in alike.values():
            group, width = [rows[i] for i in own], max(len(embedded[i]) for i in own)
            cache, mask, positions = self._join(group, [len(embedded[i]) for i in own])
            inputs = torch.stack([_left_pad(embedded[i], width) for i in own])  # [B, T, D]
            found = self._forward(inputs, mask, positions[:, -width:], cache)
            self._take_apart(group, cache, mask)
            logits |= zip(own, found, strict=True)
        return torch.stack([logits[i] for i in range(len(rows))])

    def _decode(self, rows: list[_BatchRow], logits: Tensor, seconds: dict[str, float]) -> None:
        """Write a turn of each row; those that are done leave when they are half of the batch."""
        cache, mask, positions = self._join(rows, [0] * len(rows))
        place = positions[:, -1:]
        for _ in range(self.max_new_tokens):
            chosen = self._choose(rows, logits, seconds)
            writing = [i for i, row in enumerate(rows) if not row.done]
            if not writing:
                break
            if len(writing) <= len(rows) // 2:
                self._take_apart(rows, cache, mask)
                rows, chosen = [rows[i] for i in writing], [chosen[i] for i in writing]
                cache, mask, positions = self._join(rows, [0] * len(rows))
                place = positions[:, -1:]
            alive = torch.tensor([[0 if row.done else 1] for row in rows], device=mask.device)
            mask = torch.cat([mask, alive], dim=1)
            place = place + 1
            ids = torch.tensor([[token] for token in chosen], device=mask.device)
            logits = self._forward(embed(self.thinker, ids), mask, place, cache)
        self._take_apart(rows, cache, mask)

    def _embed(self, rows: Sequence[tuple[Session, Sequence[TokenizedPart]]]) -> list[Tensor]:
        """Embeddings `[T, D]` of each row's pieces, audio in place."""
        clips = [
            session.clip(piece.audio)
            for session, pending in rows
            for piece in pending
            if piece.audio is not None
        ]
        device, dtype = self.thinker.device, self.thinker.dtype
        heard: list[Tensor] = []
        if clips:
            features, mask = log_mel(self.checkpoint.extractor, clips)
            heard = encode_audio(self.thinker, features.to(device, dtype), mask.to(device))
        audio = iter(heard)
        embedded = []
        for _, pending in rows:
            parts = [
                next(audio).to(dtype)
                if piece.audio is not None
                else embed(self.thinker, torch.tensor(piece.ids, dtype=torch.long, device=device))
                for piece in pending
            ]
            embedded.append(torch.cat(parts))
        return embedded

    def _join(self, rows: list[_BatchRow], new: list[int]) -> tuple[Any, Tensor, Tensor]:
        """One cache, mask and positions `[B, past + T]` for all rows, padded left."""
        from .memory import join

        device, width = self.thinker.device, max(new)
        past = [row.memory.cached_tokens for row in rows]
        longest = max(past)
        mask = torch.zeros(len(rows), longest + width, dtype=torch.long, device=device)
        positions = torch.zeros_like(mask)
        for i, (old, fresh) in enumerate(zip(past, new, strict=True)):
            mask[i, longest - old : longest] = 1
            mask[i, longest + width - fresh :] = 1
            positions[i, longest - old : longest] = torch.arange(old)
            positions[i, longest + width - fresh :] = torch.arange(old, old + fresh)
        cache = join([row.memory.cache for row in rows], longest)
        return cache, mask, positions

    def _forward(self, inputs: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Logits of the last position, `[B, V]` float32."""
        output = text_model(self.thinker)(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions.expand(3, *positions.shape),
            past_key_values=cache,
            use_cache=True,
        )
        logits: Tensor = self.thinker.lm_head(output.last_hidden_state[:, -1])
        return logits.float()

    def _choose(
        self, rows: list[_BatchRow], logits: Tensor, seconds: dict[str, float]
    ) -> list[int]:
        """The next token of each row; a row that is done gets its end token again, unseen."""
        table = logits.cpu().numpy()
        normaliser = torch.logsumexp(logits, dim=-1).cpu().numpy()
        chosen = []
        clock = time.perf_counter()
        for i, row in enumerate(rows):
            if row.done:
                chosen.append(self.end_id)
                continue
            token = self._pick(row, table[i])
            row.ids.append(token)
            row.probabilities.append(float(np.exp(table[i, token] - normaliser[i])))
            row.done = token == self.end_id or self._finished(row)
            chosen.append(token)
        seconds["grammar"] += time.perf_counter() - clock
        return chosen

    def _pick(self, row: _BatchRow, logits: np.ndarray[Any, Any]) -> int:
        if not self.constrained:
            data = self.vocabulary.tokens
            for i in np.argsort(-logits)[:64]:
                if data[int(i)] or int(i) == self.end_id:
                    return int(i)
            return self.end_id
        row.looped = row.looped or caught_loop(row.state)
        token, row.state = self.vocabulary.choose(logits, row.state)
        return token

    def _finished(self, row: _BatchRow) -> bool:
        """An assembled answer needs no end token: its opening tag says all."""
        return (
            self.constrained
            and not row.request.rules.model_answer
            and row.request.rules.task == "dialogue"
            and closed(row.state)
            and b"".join(self.vocabulary.tokens[i] or b"" for i in row.ids[-12:]).endswith(
                b"<answer>"
            )
        )

    def _take_apart(self, rows: list[_BatchRow], cache: Any, mask: Tensor) -> None:
        """Give every row its own keys and values back, without padding."""
        from .memory import take_apart

        for row, own, tokens in zip(
            rows, take_apart(cache, mask), mask.sum(1).tolist(), strict=True
        ):
            row.memory.cache, row.memory.cached_tokens = own, tokens

    def _remember(self, row: _BatchRow) -> None:
        """Note what a row wrote, for its next turn."""
        memory = row.memory
        memory.pieces.append(TokenizedPart(tuple(row.ids), None, True))
        if not self.keep_cache:
            memory.cache = None
            return
        # The last token of a finished turn was chosen, never fed.
        memory.pending = [TokenizedPart(tuple(row.ids[-1:]), None, True)] if row.done else []

    def _reply(self, row: _BatchRow, seconds: dict[str, float]) -> Reply:
        if not row.ids:
            return Reply(
                "",
                error=f"the dialogue outgrew the context of {self.context_tokens} tokens",
                stop=Stop.CONTEXT,
            )
        ids = row.ids[:-1] if row.ids[-1] == self.end_id else row.ids
        spelled = [self.vocabulary.tokens[i] or b"" for i in ids]
        text = b"".join(spelled).decode("utf-8", errors="replace")
        error = None
        if self.constrained and not complete(row.state):
            error = f"the turn was not finished within {self.max_new_tokens} tokens"
        return Reply(
            text,
            ids=tuple(ids),
            sizes=tuple(len(data) for data in spelled),
            probabilities=tuple(row.probabilities[: len(ids)]),
            looped=row.looped,
            error=error,
            stop=Stop.LENGTH if error else Stop.ENGINE,
            seconds=seconds,
        )


def _left_pad(rows: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, 0, width - len(rows), 0))
