"""The engine on transformers: Qwen3-Omni and Qwen2.5-Omni thinkers in this process.

Each dialogue keeps its own keys and values. So a turn costs its new slice and tokens, any dialogues can share a
batch, and none sees the others. A `TextReader` reads what is new to them: `FlatText` on a CPU, `JoinedText`
elsewhere, `PlacedText` with CUDA graphs.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import EngineError, SettingsError, first_line
from ..heap import give_back
from ..protocol import TokenizedPart, pieces
from ..protocol.grammar import start
from ..protocol.markup import ANSWER, MARKUP
from ..protocol.matcher import State, caught_loop, complete
from ..protocol.vocabulary import Vocabulary
from ..speech import Detect, detector
from ..voices.linking import Trust
from ..voices.witness import Witness
from .base import Reply, Request, Session, Stop
from .checkpoint import Checkpoint
from .comparing import load_witness
from .experts import EXPERTS, ChosenExperts
from .flat import FlatText, is_flat
from .joined import JoinedText
from .linears import FastLinears
from .logits import Logits
from .lookahead import Lookahead, TokenHistory
from .memory import Held, TextReader
from .placed import COMPILE, PlacedText
from .thinker import MarkedTokenizer, audio_tower, embed, encode_audio, log_mel, slice_tokens
from .tower import TowerWitness

_ANSWER = ANSWER.encode()
_AHEAD_CPU, _AHEAD_GPU = 32, 512
"""Tokens that a forward reads ahead: by measurement on a CPU (docs/experiments.md, 2026-11-28), assumed for a GPU."""
_BATCHES = "last bits depend on what shares a batch"
"""Record in a transcript of a dtype so short that rounding, which depends on the batch, may choose another word."""
_AHEAD_LEAST = 2
"""Least number of those tokens for each row of a batch."""


@dataclass(slots=True)
class _Memory:
    """Memory of a session: all pieces, those that were not read yet, keys and values of the others."""

    pieces: list[TokenizedPart] = field(default_factory=list)
    pending: list[TokenizedPart] = field(default_factory=list)
    held: Held = field(default_factory=Held)
    history: TokenHistory = field(default_factory=TokenHistory)


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
    full: bool = False
    """Whether the context ends before the turn does."""


class TransformersEngine:
    """Runs a checkpoint in this process.

    Args:
        checkpoint: loaded model, tokenizer, feature extractor and profile.
        keep_cache: keep keys and values over turns; without it every turn computes all anew.
        constrained: let the grammar choose among tokens; without it the most probable one is taken.
        max_new_tokens: most tokens of one turn.
        lookahead: most tokens that are read before they are chosen (`Lookahead`), shared by the rows of a
            batch; 0 reads them one by one, `None` is 32 on a CPU and 512 on a GPU.
        cuda_graphs: capture steps and prefills and replay them (`PlacedText`).
        experts: `auto`, `kernel` or `library`: what computes the routed experts (`ChosenExperts`).
        compile: `auto`, `never` or `always`: let torch compile the layers for steps (`PlacedText`).
        deterministic: read each dialogue apart, so that what is written does not depend on the others of a batch
            in any bit.

    Raises:
        SettingsError: `cuda_graphs` without an NVIDIA GPU, `experts` that cannot be used, or a choice that is none.
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
        lookahead: int | None = None,
        cuda_graphs: bool = False,
        experts: str = "auto",
        compile: str = "auto",
        deterministic: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.profile = checkpoint.profile
        self.thinker = checkpoint.thinker
        self.keep_cache = keep_cache
        self.constrained = constrained
        self.max_new_tokens = max_new_tokens
        self.device, self.dtype = self.thinker.device, self.thinker.dtype
        config = self.thinker.config.get_text_config()
        self.context_tokens = int(config.max_position_embeddings)
        self.tokenizer = MarkedTokenizer(checkpoint.tokenizer)
        self.end_id = int(checkpoint.tokenizer.convert_tokens_to_ids(MARKUP.end))
        self.audio_id = int(self.thinker.config.audio_token_id)
        self.vocabulary = Vocabulary(checkpoint.tokenizer, self.end_id, int(config.vocab_size))
        self.cuda_graphs, self.compile = cuda_graphs, compile
        self.deterministic = deterministic
        for option, value, known in (("experts", experts, EXPERTS), ("compile", compile, COMPILE)):
            if value not in known:
                raise SettingsError(f"--{option} {value!r}: expected one of {', '.join(known)}")
        if cuda_graphs and self.device.type != "cuda":
            raise SettingsError(
                f"--cuda-graphs: the model is on {self.device}, expected an NVIDIA GPU; leave it out"
            )
        flat = is_flat(self.thinker)
        self.experts = ChosenExperts(self.thinker, experts)
        self.text: TextReader
        if cuda_graphs or compile == "always":
            self.text = PlacedText(
                self.thinker,
                capture=cuda_graphs,
                most_tokens=self.experts.most_captured if cuda_graphs else None,
                compile=compile,
                apart=deterministic,
            )
        else:
            self.text = FlatText(self.thinker) if flat else JoinedText(self.thinker)
        self.fast = FastLinears(audio_tower(self.thinker) if flat else self.thinker)
        self.lookahead = Lookahead(self.vocabulary, checkpoint.tokenizer)
        by_device = _AHEAD_CPU if self.device.type == "cpu" else _AHEAD_GPU
        self._ahead = by_device if lookahead is None else lookahead
        give_back()

    def describe(self) -> dict[str, Any]:
        """Everything about the engine that a transcript should record."""
        from transformers import __version__ as transformers_version

        return {
            "engine": self.name,
            "model": self.checkpoint.name,
            "class": type(self.thinker).__name__,
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "keep_cache": self.keep_cache,
            "constrained": self.constrained,
            **({"cuda_graphs": True} if self.cuda_graphs else {}),
            **({"compile": self.compile} if getattr(self.text, "compiles", False) else {}),
            **({"experts": "kernel"} if self.experts.kernel else {}),
            **({"deterministic": True} if self.deterministic else {}),
            **(
                {"batches": _BATCHES}
                if self.dtype != torch.float32 and not self.deterministic
                else {}
            ),
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
        return load_witness(name, str(self.device))

    @torch.inference_mode()
    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Write one turn of each session.

        Raises:
            EngineError: memory is exhausted, a GPU or its driver failed, or the tokenizer cannot spell the protocol.
        """
        groups = [[one] for one in requests] if self.deterministic else [requests]
        return [reply for group in groups for reply in self._ask(group)]

    def _ask(self, requests: Sequence[Request]) -> list[Reply]:
        rows = [self._row(request) for request in requests]
        fitting = [row for row in rows if self._fits(row)]
        seconds: dict[str, float] = {}
        if fitting:
            try:
                with self.fast.used(), self.experts.used():
                    self._write(fitting, seconds)
            except torch.OutOfMemoryError as error:
                raise EngineError(
                    f"out of memory with {len(fitting)} dialogues at once on "
                    f"{self.device}: use a smaller --batch or --dtype bfloat16"
                ) from error
            except RuntimeError as error:
                if self.device.type == "cpu":
                    raise  # of ours, or of a library: no driver is involved
                raise EngineError(
                    f"{self.device} failed with {len(fitting)} dialogues at once: {first_line(error)}; what was "
                    "finished is kept: start again, and with a smaller --batch or --device cpu where it fails again"
                ) from error
        give_back(pause_s=1.0)
        shared = {stage: value / len(requests) for stage, value in seconds.items()}
        return [self._reply(row, shared) for row in rows]

    def _row(self, request: Request) -> _BatchRow:
        memory = request.session.memory.setdefault("transformers", _Memory())
        new = list(pieces(request.parts, self.tokenizer, self.end_id))
        memory.pieces += new
        memory.pending += new
        if not self.keep_cache:
            memory.pending, memory.held = list(memory.pieces), Held()
        return _BatchRow(request, memory, start(request.rules))

    def _fits(self, row: _BatchRow) -> bool:
        slices = [p.audio for p in row.memory.pending if p.audio is not None]
        tokens = row.memory.held.tokens + sum(
            slice_tokens(self.thinker, [s.end_samples - s.start_samples for s in slices])
        )
        tokens += sum(len(piece.ids) for piece in row.memory.pending)
        return tokens + min(self.max_new_tokens, 256) < self.context_tokens

    def _write(self, rows: list[_BatchRow], seconds: dict[str, float]) -> None:
        """Encode the new slices and write a turn of every row."""
        clock = time.perf_counter()
        embedded = self._embed([(row.request.session, row.memory.pending) for row in rows])
        seconds["encode"] = time.perf_counter() - clock
        seconds["grammar"] = 0.0
        try:
            self._decode(rows, embedded, seconds)
        except BaseException:
            self.text.abandon()
            raise
        for row in rows:
            self._remember(row)

    def _decode(
        self, rows: list[_BatchRow], embedded: Sequence[Tensor], seconds: dict[str, float]
    ) -> None:
        """Prefill, then decode until every row is done."""
        clock = time.perf_counter()
        self._step(rows, embedded, seconds)
        seconds["prefill"] = time.perf_counter() - clock - seconds["grammar"]
        clock, grammar_s = time.perf_counter(), seconds["grammar"]
        while writing := [row for row in rows if not row.done]:
            self._step(writing, [], seconds)
        self.text.release()
        seconds["decode"] = time.perf_counter() - clock - (seconds["grammar"] - grammar_s)

    def _embed_ids(self, ids: Sequence[int]) -> Tensor:
        """Embeddings `[n, D]` of tokens."""
        return embed(self.thinker, torch.tensor(ids, dtype=torch.long, device=self.device))

    def _step(
        self, rows: Sequence[_BatchRow], inputs: Sequence[Tensor], seconds: dict[str, float]
    ) -> None:
        """One forward: what is new to each row `[T, D]`, or its last token where nothing is given, and a draft of
        what follows; at least one token of each row is written.

        Of a draft all tokens are kept that the row itself chooses, the next token is then known too.
        """
        clock = time.perf_counter()
        most = min(self._ahead, max(_AHEAD_LEAST, self._ahead // len(rows)))
        new = [len(block) for block in inputs] if inputs else [1] * len(rows)
        drafts = [
            self._draft(row, min(most, self.context_tokens - row.memory.held.tokens - count))
            for row, count in zip(rows, new, strict=True)
        ]
        seconds["grammar"] += time.perf_counter() - clock
        chosen = (
            drafts
            if inputs
            else [[row.ids[-1], *draft] for row, draft in zip(rows, drafts, strict=True)]
        )
        embedded = self._embed_ids([token for ids in chosen for token in ids])
        blocks = list(torch.split(embedded, list(map(len, chosen))))
        if inputs:
            blocks = [torch.cat(pair) for pair in zip(inputs, blocks, strict=True)]
        held = [row.memory.held for row in rows]
        read = self.text.read(held, blocks, [len(draft) + 1 for draft in drafts])
        logits = Logits(torch.cat(read))
        clock, first = time.perf_counter(), 0
        for row, draft in zip(rows, drafts, strict=True):
            kept = self._choose(row, draft, logits, first)
            row.memory.held.tokens -= len(draft) - kept
            row.full = not row.done and row.memory.held.tokens >= self.context_tokens
            row.done = row.done or row.full
            first += len(draft) + 1
        seconds["grammar"] += time.perf_counter() - clock

    def _embed(self, rows: Sequence[tuple[Session, Sequence[TokenizedPart]]]) -> list[Tensor]:
        """Embeddings `[T, D]` of each row's pieces, audio in place."""
        clips = [
            session.clip(piece.audio)
            for session, pending in rows
            for piece in pending
            if piece.audio is not None
        ]
        device, dtype = self.device, self.dtype
        encoded: list[Tensor] = []
        if clips:
            features, mask = log_mel(self.checkpoint.extractor, clips)
            encoded = encode_audio(self.thinker, features.to(device, dtype), mask.to(device))
        audio = iter(encoded)
        embedded = []
        for _, pending in rows:
            parts = [
                next(audio).to(dtype) if piece.audio is not None else self._embed_ids(piece.ids)
                for piece in pending
            ]
            embedded.append(torch.cat(parts))
        return embedded

    def _draft(self, row: _BatchRow, most: int) -> list[int]:
        """Draft the tokens that the row probably writes next."""
        if not self.constrained or most <= 0:
            return []
        return self.lookahead.draft(row.state, row.memory.history, most)

    def _choose(self, row: _BatchRow, draft: Sequence[int], logits: Logits, first: int) -> int:
        """Choose the tokens after those that were read: after all of the draft that the row chooses itself,
        one more. The last one chosen is not counted as read, even where it stood in the draft.

        Args:
            first: place of `logits` after the last token that was read before the draft.

        Returns:
            How many tokens of the draft were read and stay.
        """
        for place in range(len(draft) + 1):
            token = self._pick(row, logits, first + place)
            row.ids.append(token)
            self.lookahead.note(row.memory.history, token)
            row.probabilities.append(logits.probability(first + place, token))
            row.done = token == self.end_id or len(row.ids) >= self.max_new_tokens
            if self._opens_answer(row):
                if row.request.rules.model_answer:
                    self.lookahead.expect_answer(row.memory.history)
                else:  # the opening tag of an assembled answer says all
                    row.done = True
            if row.done or place == len(draft) or token != draft[place]:
                return place
        raise AssertionError("a draft ends with a token of the row's own")

    def _pick(self, row: _BatchRow, logits: Logits, place: int) -> int:
        if not self.constrained:
            data = self.vocabulary.tokens
            for i in np.argsort(-logits.all(place))[:64]:
                if data[int(i)] or int(i) == self.end_id:
                    return int(i)
            return self.end_id
        row.looped = row.looped or caught_loop(row.state)
        token, row.state = self.vocabulary.choose(
            logits.likely(place), lambda: logits.all(place), row.state
        )
        return token

    def _opens_answer(self, row: _BatchRow) -> bool:
        """Return whether the last tokens of a turn open the answer of a dialogue."""
        return (
            self.constrained
            and row.request.rules.task == "dialogue"
            and b"".join(self.vocabulary.tokens[i] or b"" for i in row.ids[-12:]).endswith(_ANSWER)
        )

    def _remember(self, row: _BatchRow) -> None:
        """Note what a row wrote, for its next turn."""
        memory = row.memory
        memory.pieces.append(TokenizedPart(tuple(row.ids), None, True))
        if not self.keep_cache:
            memory.held = Held()
            return
        # The last token of a turn was chosen, never read.
        memory.pending = [TokenizedPart(tuple(row.ids[-1:]), None, True)]

    def _outgrown(self) -> str:
        return f"the dialogue outgrew the context of {self.context_tokens} tokens"

    def _reply(self, row: _BatchRow, seconds: dict[str, float]) -> Reply:
        if not row.ids:
            return Reply(
                "",
                error=self._outgrown(),
                stop=Stop.CONTEXT,
            )
        ids = row.ids[:-1] if row.ids[-1] == self.end_id else row.ids
        spelled = [self.vocabulary.tokens[i] or b"" for i in ids]
        text = b"".join(spelled).decode("utf-8", errors="replace")
        error, stop = None, Stop.ENGINE
        if row.full:
            error, stop = self._outgrown(), Stop.CONTEXT
        elif self.constrained and not complete(row.state):
            error, stop = (
                f"the turn was not finished within {self.max_new_tokens} tokens",
                Stop.LENGTH,
            )
        return Reply(
            text,
            ids=tuple(ids),
            sizes=tuple(len(data) for data in spelled),
            probabilities=tuple(row.probabilities[: len(ids)]),
            looped=row.looped,
            error=error,
            stop=stop,
            seconds=seconds,
        )
