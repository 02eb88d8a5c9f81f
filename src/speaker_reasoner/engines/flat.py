"""The text model on a CPU in float32, as a flat list of tensor operations.

A step of one token through transformers' classes spends much of its time in Python. Here the new tokens of all
dialogues are rows of one matrix, without padding; each dialogue attends to its own keys and values where they lie, so
nothing is joined, masked or taken apart when dialogues enter and leave a batch. Products are oneDNN's (`linears`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import EngineError
from .linears import Product, is_plain, is_small, is_untouched, state_of
from .memory import ROOM, Held
from .thinker import text_model

_POSITIONS = 2048
"""Rotary angles are computed for so many positions at a time; assumed."""


@dataclass(slots=True)
class _Span:
    """The range of a row's new tokens among those of all rows, and their attention mask."""

    row: Held
    begin: int
    end: int
    mask: Tensor | None


class _Layer:
    """Weights of one decoder layer: products of a kind are one matrix."""

    def __init__(self, layer: Any, size: int) -> None:
        own = layer.self_attn
        self.before = _Norm.of(layer.input_layernorm)
        self.after = _Norm.of(layer.post_attention_layernorm)
        self.inwards = Product.of([own.q_proj, own.k_proj, own.v_proj], self.before.scale)
        self.outwards = Product.of([own.o_proj])
        self.heads = int(own.q_proj.out_features) // size
        self.key_heads = int(own.k_proj.out_features) // size
        self.norm: _Norm | None = None
        if hasattr(own, "q_norm"):
            rows = [own.q_norm.weight] * self.heads + [own.k_norm.weight] * self.key_heads
            self.norm = _Norm(torch.stack(rows), float(own.q_norm.variance_epsilon))
        self.mlp = layer.mlp
        self.gate_up = self.down = None
        if hasattr(self.mlp, "gate_proj"):
            self.activate = self.mlp.act_fn
            self.gate_up = Product.of([self.mlp.gate_proj, self.mlp.up_proj], self.after.scale)
            self.down = Product.of([self.mlp.down_proj])

    def feed(self, x: Tensor) -> Tensor:
        """The second half of the layer, `[N, D]` to `[N, D]`."""
        if self.gate_up is None or self.down is None:  # experts
            output: Tensor = self.mlp(self.after(x).unsqueeze(0))[0]
            return output
        gate, up = self.gate_up(self.after.unscaled(x)).chunk(2, dim=-1)
        return self.down(self.activate(gate) * up)


class _Norm:
    """A root-mean-square norm over the last dimension, as x / hypot(|x|, sqrt(size * epsilon)) * sqrt(size) * weight:
    four operations, where `torch.rms_norm` on a CPU is seven.

    Attributes:
        scale: the last factors, which may be part of a product that follows: then three operations are left.
    """

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        size = weight.shape[-1]
        self.scale = weight.detach() * size**0.5
        self._floor = torch.tensor((size * epsilon) ** 0.5)

    @classmethod
    def of(cls, norm: Any) -> Self:
        """Take weight and epsilon of a norm of transformers."""
        return cls(norm.weight, float(norm.variance_epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self.unscaled(x) * self.scale
        return output

    def unscaled(self, x: Tensor) -> Tensor:
        """The norm without `scale`."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        output: Tensor = x / torch.hypot(length, self._floor)
        return output


class FlatText:
    """A `TextReader` of the text model's layers.

    Args:
        thinker: one for which `is_flat` is true. Weights that change between batches are read again.
    """

    def __init__(self, thinker: Any) -> None:
        self._thinker, self._text = thinker, text_model(thinker)
        own = self._text.layers[0].self_attn
        self._size, self._scaling = int(own.head_dim), float(own.scaling)
        self._later = torch.empty(0, 0)
        self._cos = self._sin = torch.empty(0, self._size)
        self._state: object = None
        self._fresh = False
        self._layers: list[_Layer] = []

    def _refresh(self) -> None:
        """Read the weights again if they changed since the last batch."""
        if not is_flat(self._thinker):
            raise EngineError(
                "the model's layers, types, hooks or device changed, or autocast was switched on, since the engine "
                "was made: make another engine of it"
            )
        head = self._thinker.lm_head
        state = [*state_of(self._text), *state_of(head)]
        if state != self._state:
            self._layers = [_Layer(layer, self._size) for layer in self._text.layers]
            self._norm = _Norm.of(self._text.norm)
            self._head = Product.of([head], self._norm.scale)
            self._state = state
        self._fresh = True

    def read(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], last: Sequence[int]
    ) -> list[Tensor]:
        """See `TextReader`."""
        if not self._fresh:
            self._refresh()
        spans, begin = [], 0
        for row, block in zip(rows, blocks, strict=True):
            end = begin + len(block)
            self._make_room(row, row.tokens + len(block))
            spans.append(_Span(row, begin, end, self._mask(row.tokens, block)))
            begin = end
        positions = torch.cat(
            [row.tokens + torch.arange(len(block)) for row, block in zip(rows, blocks, strict=True)]
        )
        cos, sin = self._angles(int(positions.max()) + 1)
        cos, sin = cos[positions].unsqueeze(1), sin[positions].unsqueeze(1)
        wanted = [
            number
            for span, count in zip(spans, last, strict=True)
            for number in range(span.end - count, span.end)
        ]
        x = torch.cat(list(blocks)) if len(blocks) > 1 else blocks[0]
        for number, layer in enumerate(self._layers):
            y = layer.inwards(layer.before.unscaled(x)).view(len(x), -1, self._size)
            turned = y[:, : layer.heads + layer.key_heads]
            if layer.norm is not None:
                turned = layer.norm(turned)
            turned = torch.addcmul(turned * cos, turned.roll(self._size // 2, -1), sin)
            query, key = turned[:, : layer.heads], turned[:, layer.heads :]
            seen = self._attend(spans, number, query, key, y[:, layer.heads + layer.key_heads :])
            if layer is self._layers[-1] and len(wanted) < len(x):  # nothing follows of the others
                seen, x = seen[wanted], x[wanted]
            x = x + layer.outwards(seen)
            x = x + layer.feed(x)
        for span in spans:
            span.row.tokens += span.end - span.begin
        return list(torch.split(self._head(self._norm.unscaled(x)), list(last)))

    def release(self) -> None:
        """See `TextReader`; nothing is held for a batch."""
        self._fresh = False

    abandon = release

    def _make_room(self, row: Held, tokens: int) -> None:
        if row.places and tokens <= row.places[0][0].shape[2]:
            return
        places = []
        for number, layer in enumerate(self._layers):
            shape = (1, layer.key_heads, tokens + ROOM, self._size)
            new = torch.empty(shape, dtype=torch.float32), torch.empty(shape, dtype=torch.float32)
            if row.places:
                for to, old in zip(new, row.places[number], strict=True):
                    to[:, :, : row.tokens] = old[:, :, : row.tokens]
            places.append(new)
        row.places = places

    def _angles(self, positions: int) -> tuple[Tensor, Tensor]:
        """Cosines, and sines whose first half is negative, `[at least so many, size]`."""
        if len(self._cos) < positions:
            count = -(-positions // _POSITIONS) * _POSITIONS
            ids = torch.arange(count).expand(3, 1, count)
            both = self._text.rotary_emb(torch.empty(0, dtype=torch.float32), ids)
            self._cos, sin = (one.reshape(-1, count, self._size)[0] for one in both)
            half = self._size // 2
            self._sin = torch.cat((-sin[:, :half], sin[:, half:]), -1)
        return self._cos, self._sin

    def _mask(self, held: int, block: Tensor) -> Tensor | None:
        """Return the attention mask of a row's new tokens, to be added to the scores: `[groups * T, held + T]`."""
        count = len(block)
        if count == 1:
            return None
        if len(self._later) < count:
            self._later = torch.full((count, count), -torch.inf).triu(1)
        groups = self._layers[0].heads // self._layers[0].key_heads
        mask = torch.zeros(groups, count, held + count)
        mask[:, :, held:] = self._later[:count, :count]
        return mask.view(groups * count, -1)

    def _attend(
        self, spans: Sequence[_Span], layer: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Keep keys and values `[N, key heads, size]` of new tokens; attention `[N, heads * size]` of queries
        `[N, heads, size]`, each row to its own. The query heads of a group are further rows of one head, so that
        keys are not copied."""
        seen, shared = [], key.shape[1]
        for span in spans:
            count, held = span.end - span.begin, span.row.tokens
            keys, values = span.row.places[layer]
            own = query, key, value
            if len(spans) > 1:
                own = (
                    query[span.begin : span.end],
                    key[span.begin : span.end],
                    value[span.begin : span.end],
                )
            keys.narrow(2, held, count).copy_(own[1].transpose(0, 1).unsqueeze(0))
            values.narrow(2, held, count).copy_(own[2].transpose(0, 1).unsqueeze(0))
            grouped = own[0].view(count, shared, -1, self._size)
            if count > 1:
                grouped = grouped.permute(1, 2, 0, 3)
            output = F.scaled_dot_product_attention(
                grouped.reshape(1, shared, -1, self._size),
                keys.narrow(2, 0, held + count),
                values.narrow(2, 0, held + count),
                attn_mask=span.mask,
                scale=self._scaling,
            )
            if count > 1:
                output = output.view(shared, -1, count, self._size).permute(2, 0, 1, 3)
            seen.append(output.reshape(count, -1))
        return torch.cat(seen) if len(seen) > 1 else seen[0]


def is_flat(thinker: Any) -> bool:
    """Return whether `FlatText` can run a thinker's text model: small, float32 on a CPU, of modules that it knows.

    Hooks and autocast rule it out, because `FlatText` computes without them.
    """
    text = text_model(thinker)
    rope = getattr(text.config, "rope_parameters", None) or {}
    return (
        (thinker.device.type, thinker.dtype) == ("cpu", torch.float32)
        and not torch.is_autocast_enabled("cpu")
        and rope.get("rope_type", "default") == "default"
        and all(is_untouched(module) for module in text.modules())
        and is_plain([thinker.lm_head])
        and is_small(text)
        and all(_is_known(layer) for layer in text.layers)
    )


def _is_known(layer: Any) -> bool:
    own = getattr(layer, "self_attn", None)
    if own is None or getattr(own, "sliding_window", None):
        return False
    linears = [getattr(own, f"{name}_proj", None) for name in "qkvo"]
    if hasattr(layer.mlp, "gate_proj"):
        linears += [layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj]
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    norms += [getattr(own, name) for name in ("q_norm", "k_norm") if hasattr(own, name)]
    return is_plain(linears) and all(type(norm).__name__.endswith("RMSNorm") for norm in norms)
