"""The text model with keys and values in static places.

Each dialogue has a place of its own in one buffer a layer, and its tokens begin at the place's first. So a step of
given sizes is the same work on the same addresses whatever the dialogues hold, and a GPU can capture it once and
replay it (a CUDA graph): a step through transformers' classes is mostly the launching of small kernels.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from ..errors import SettingsError
from .attention import grouped_attention
from .memory import Held
from .thinker import text_model

_STEP_TOKENS = 32
"""A block of more tokens a row is a prefill: it is not captured, and only its own rows take part; assumed."""
_LENGTH_TOKENS = 512
"""Places grow, and attention looks back, by multiples of it; assumed."""
_WARM_UPS = 2
"""Runs before a capture, in which libraries choose and prepare their kernels; assumed."""


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer's places, keys and values `[places, heads, length, size]`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True

    def look(self, rows: Tensor | None, at: Tensor, length: int) -> None:
        """Set the rows that take part, `[B]` (the first B if `None`), the positions of new tokens `[B, T]`, and how far
        back attention looks."""
        self._rows, self._at, self._length = rows, at, length

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values `[B, heads, T, size]`; returns those of the places that take part."""
        count, rows = len(key_states), self._rows
        index = torch.arange(count, device=self._at.device) if rows is None else rows
        shown = slice(0, count) if rows is None else rows
        for place, new in ((self.keys, key_states), (self.values, value_states)):
            place[index[:, None], :, self._at] = new.transpose(1, 2)
        return self.keys[shown, :, : self._length], self.values[shown, :, : self._length]

    def get_seq_length(self) -> int:
        """Not asked for: positions and masks are given."""
        return 0


class PlacedText:
    """A `TextReader` of static places.

    Args:
        thinker: one whose layers all attend to the whole past.
        capture: replay steps as CUDA graphs; on a GPU alone.

    Raises:
        SettingsError: layers of the thinker attend to a window of the past.
    """

    def __init__(self, thinker: Any, *, capture: bool) -> None:
        self._thinker, self._text = thinker, text_model(thinker)
        layers = [layer.self_attn for layer in self._text.layers]
        if any(getattr(own, "sliding_window", None) for own in layers):
            raise SettingsError(
                "--cuda-graphs: layers of the model attend to a sliding window, which static places have no mask for; "
                "leave it out"
            )
        self._heads = int(self._text.config.num_key_value_heads)
        self._size = int(layers[0].head_dim)
        self._capture = capture
        self._slots: WeakKeyDictionary[Held, int] = WeakKeyDictionary()
        self._cache = Cache(layers=[_Layer() for _ in self._text.layers])
        self._places = self._length = 0
        self._graphs: dict[tuple[int, int, int], _Graph] = {}
        self.pool: Any = None

    def read(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], last: Sequence[int]
    ) -> list[Tensor]:
        """See `TextReader`."""
        widths = [_power(len(block)) for block in blocks]
        steps = [i for i, width in enumerate(widths) if width <= _STEP_TOKENS]
        self._make_room(rows, widths)
        hidden: dict[int, Tensor] = {}
        with grouped_attention(self._text):
            if steps:
                hidden.update(self._step(rows, blocks, steps))
            for width in {width for width in widths if width > _STEP_TOKENS}:
                alike = [i for i, one in enumerate(widths) if one == width]
                hidden.update(self._prefill(rows, blocks, alike))
        wanted = [hidden[i][len(blocks[i]) - n : len(blocks[i])] for i, n in enumerate(last)]
        for row, block in zip(rows, blocks, strict=True):
            row.tokens += len(block)
        return list(torch.split(self._thinker.lm_head(torch.cat(wanted)), list(last)))

    def release(self) -> None:
        """See `TextReader`; nothing is held for a batch."""

    abandon = release

    def _step(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], indices: Sequence[int]
    ) -> dict[int, Tensor]:
        """Hidden states `[T, D]` of rows with few new tokens. All places up to the last of them take part;
        what others write lies behind their tokens, and is written over later."""
        slots = {self._slots[rows[i]]: i for i in indices}
        count, width = _power(max(slots) + 1), _power(max(len(blocks[i]) for i in indices))
        tokens = [0] * count
        for row, slot in self._slots.items():
            if slot < count:
                tokens[slot] = row.tokens
        inputs = blocks[0].new_zeros(count, width, blocks[0].shape[1])
        for slot, i in slots.items():
            inputs[slot, : len(blocks[i])] = blocks[i]
        at = torch.tensor(tokens)[:, None] + torch.arange(width)
        length = _rounded(int(at.max()) + 1)
        if not self._capture:
            output = self.forward(inputs, at.to(inputs.device), None, length)
        else:
            key = count, width, length
            if key not in self._graphs:
                self._graphs[key] = _Graph(self, inputs, at, length)
            output = self._graphs[key].replay(inputs, at)
        return {i: output[slot] for slot, i in slots.items()}

    def _prefill(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], indices: Sequence[int]
    ) -> dict[int, Tensor]:
        """Hidden states of rows with about as many new tokens, padded on the right."""
        width = max(len(blocks[i]) for i in indices)
        inputs = blocks[0].new_zeros(len(indices), width, blocks[0].shape[1])
        for own, i in zip(inputs, indices, strict=True):
            own[: len(blocks[i])] = blocks[i]
        device = inputs.device
        slots = torch.tensor([self._slots[rows[i]] for i in indices], device=device)
        at = torch.tensor([rows[i].tokens for i in indices])[:, None] + torch.arange(width)
        output = self.forward(inputs, at.to(device), slots, int(at.max()) + 1)
        return dict(zip(indices, output, strict=True))

    def forward(self, inputs: Tensor, at: Tensor, slots: Tensor | None, length: int) -> Tensor:
        """Hidden states `[B, T, D]` of new tokens at positions `at` `[B, T]`."""
        for layer in self._cache.layers:
            layer.look(slots, at, length)
        back = torch.arange(length, device=at.device)
        output = self._text(
            inputs_embeds=inputs,
            attention_mask=(back <= at.unsqueeze(-1)).unsqueeze(1),
            position_ids=at.expand(3, *at.shape),
            past_key_values=self._cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _make_room(self, rows: Sequence[Held], widths: Sequence[int]) -> None:
        """Give new rows a place, and all places room for the longest."""
        for row in rows:
            if row not in self._slots:
                taken = set(self._slots.values())
                self._slots[row] = min(set(range(len(taken) + 1)) - taken)
        places = max(self._places, _power(max(self._slots.values()) + 1))
        longest = max(row.tokens + max(widths) for row in self._slots)
        length = max(self._length, _rounded(longest))
        if (places, length) == (self._places, self._length):
            return
        self._graphs.clear()
        thinker = self._thinker
        for layer in self._cache.layers:
            for name in ("keys", "values"):
                new = torch.zeros(
                    (places, self._heads, length, self._size),
                    dtype=thinker.dtype,
                    device=thinker.device,
                )
                old = getattr(layer, name)
                if old is not None:  # larger where an earlier call ran out of memory behind it
                    kept = slice(self._places), slice(None), slice(self._length)
                    new[kept] = old[kept]
                setattr(layer, name, new)
        self._places, self._length = places, length


class _Graph:
    """A step of given sizes, captured."""

    def __init__(self, text: PlacedText, inputs: Tensor, at: Tensor, length: int) -> None:
        self._inputs, self._at = inputs.clone(), at.to(inputs.device)
        if text.pool is None:
            text.pool = torch.cuda.graph_pool_handle()
        side: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                text.forward(self._inputs, self._at, None, length)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=text.pool):
            self._output = text.forward(self._inputs, self._at, None, length)

    def replay(self, inputs: Tensor, at: Tensor) -> Tensor:
        self._inputs.copy_(inputs)
        self._at.copy_(at)
        self._graph.replay()
        return self._output


def _power(count: int) -> int:
    """The smallest power of two that is at least a count."""
    return 1 << (count - 1).bit_length()


def _rounded(length: int) -> int:
    return -(-length // _LENGTH_TOKENS) * _LENGTH_TOKENS
