"""The text model with keys and values in static places.

Each dialogue has a place of its own in one buffer a layer, and its tokens begin at the place's first. So a step of
given sizes is the same work on the same addresses whatever the dialogues hold, and a GPU can capture it once and
replay it (a CUDA graph): a step through transformers' classes is mostly the launching of small kernels. All decoder
layers are alike, so `torch.compile` compiles one of them for each size, not the whole model.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..errors import SettingsError, first_line
from .attention import grouped_attention
from .memory import Held
from .thinker import text_model

_STEP_TOKENS = 32
"""Most new tokens of a row in a step; more are a prefill, of its own rows alone (assumed)."""
_PREFILL_TOKENS = 256
"""Most new tokens of a row in a captured prefill: as a turn's slice of audio and its text have (assumed)."""
MOST_TOKENS = 1024
"""Most tokens of all rows in a captured prefill; in more there is work enough for a GPU to keep it busy (assumed)."""
_LENGTH_TOKENS = 512
"""Unit of lengths: attention looks back by multiples of it, places hold a power of two of them. When places grow, all
steps are captured anew (assumed)."""
_WARM_UPS = 2
"""Runs before a capture, in which libraries choose and prepare their kernels (assumed)."""
PREFILL_USES = _WARM_UPS + 2
"""Prefill of a size that is captured, those before it are launched kernel by kernel: a capture runs the work so many
times, so that one for a size that never comes again takes as long as all prefills of that size before it."""
MOST_GRAPHS = 64
"""Most captured steps and prefills; the least recently used one is dropped (assumed)."""
_COMPILE_AFTER = 2000
"""Steps after which `auto` compiles: a process that made so many is taken to make as many again, which save the time of
compiling (assumed)."""
COMPILE = ("auto", "never", "always")
"""Choices of `PlacedText`."""
_MOST_COMPILED = 64
"""Most compiled variants of a layer: one token or several, one row or several, few tokens for the experts or many.
torch's own limit is 8. The name of the setting is that of torch 2.6, which later versions know, too."""
_CAPTURES = "--cuda-graphs: steps of each size are captured when they first come, which takes longer than a step"
_PREFILLS = f"--cuda-graphs: prefills of a size are captured when they come the {PREFILL_USES}th time, which takes long"
_COMPILES = "--compile: torch compiles a layer for each kind of step when it first comes, which can take long"
_log = logging.getLogger(__name__)


@cache
def _begin(what: str) -> None:
    """Say what begins that takes long; once in a process, whatever engines it has."""
    _log.info("%s", what)


class _Places:
    """One layer's places, keys and values `[places, heads, length, size]`; its attention takes it for a cache."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def look(self, rows: Tensor | None, at: Tensor, length: int) -> None:
        """Set what the next `update` reads and writes.

        Args:
            rows: places that take part, `[B]`; `None` for the first B.
            at: positions of new tokens, `[B, T]`.
            length: positions that attention looks at, from the first on.
        """
        self._rows, self._at, self._length = rows, at, length

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values `[B, heads, T, size]`; return those of the places that take part."""
        assert self.keys is not None and self.values is not None
        count, rows = len(key_states), self._rows
        index = torch.arange(count, device=self._at.device) if rows is None else rows
        shown = slice(0, count) if rows is None else rows
        for place, new in ((self.keys, key_states), (self.values, value_states)):
            place[index[:, None], :, self._at] = new.transpose(1, 2)
        return self.keys[shown, :, : self._length], self.values[shown, :, : self._length]


def _run_layer(
    layer: Any, hidden: Tensor, mask: Tensor, angles: tuple[Tensor, Tensor], places: _Places
) -> Tensor:
    """Return hidden states `[B, T, D]` after a decoder layer."""
    output: Tensor = layer(
        hidden, attention_mask=mask, past_key_values=places, position_embeddings=angles
    )
    return output


class PlacedText:
    """A `TextReader` of static places.

    Args:
        thinker: one whose layers all attend to the whole past.
        capture: replay steps and prefills as CUDA graphs; on a GPU alone.
        most_tokens: most tokens of all rows that a capture can hold; `None` for any number (`ChosenExperts`).
        compile: `never`, `always`, or `auto`: after many captured steps, but not with `apart`, because compiled steps
            round otherwise than those before.
        apart: let no places but those of the rows read take part in a step, so that a row read alone does not
            depend on how many others there are; a step copies its keys and values then.

    Attributes:
        compiles: whether steps are compiled, from the first or from a later one on.

    Raises:
        SettingsError: layers of the thinker attend to a window of the past.
    """

    def __init__(
        self,
        thinker: Any,
        *,
        capture: bool,
        most_tokens: int | None = None,
        compile: str = "never",
        apart: bool = False,
    ) -> None:
        self._thinker, self._text = thinker, text_model(thinker)
        layers = [layer.self_attn for layer in self._text.layers]
        if any(getattr(own, "sliding_window", None) for own in layers):
            raise SettingsError(
                "--cuda-graphs, --compile always: layers of the model attend to a sliding window, which static places "
                "have no mask for; leave them out"
            )
        self._heads = int(self._text.config.num_key_value_heads)
        self._size = int(layers[0].head_dim)
        self._apart = apart
        self._most_tokens = math.inf if most_tokens is None else most_tokens
        self._most_prefilled = min(MOST_TOKENS, self._most_tokens) if capture else 0
        self._captures = {kind for kind in ("step", "prefill") if capture}
        self._uses: Counter[tuple[int, int, int]] = Counter()
        if capture and most_tokens is not None:
            _log.warning(
                "--cuda-graphs: nothing of more than %d tokens is captured: transformers' experts wait for this card "
                "in each layer; that is launched kernel by kernel: the same work, but it takes longer",
                most_tokens,
            )
        self._slots: WeakKeyDictionary[Held, int] = WeakKeyDictionary()
        self._layers = [_Places() for _ in self._text.layers]
        self._places = self._length = 0
        self._graphs: dict[tuple[int, int, int], _Graph] = {}
        waits = thinker.dtype != torch.bfloat16 and any(
            hasattr(layer.mlp, "experts") for layer in self._text.layers
        )  # transformers' grouped_mm, compiled in another type, cannot be captured
        due = _COMPILE_AFTER if capture and not waits and not apart else None
        by_choice = {"always": 0, "auto": due, "never": None}
        self._compile_after = by_choice[compile]
        self.compiles = self._compile_after is not None
        self._compiled: Callable[..., Tensor] | None = None
        self._steps = 0
        self._pool: Any = None
        self._side: Any = None

    def read(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], last: Sequence[int]
    ) -> list[Tensor]:
        """See `TextReader`."""
        widths = [_power(len(block)) for block in blocks]
        steps = [i for i, width in enumerate(widths) if width <= _STEP_TOKENS]
        self._make_room(rows, widths)
        hidden: dict[int, Tensor] = {}
        here: Any = torch.cuda.device_of(blocks[0])  # type: ignore[no-untyped-call]
        with grouped_attention(self._text), here:
            if steps:
                hidden.update(self._step(rows, blocks, steps))
            for width in {width for width in widths if width > _STEP_TOKENS}:
                alike = [i for i, one in enumerate(widths) if one == width]
                hidden.update(self._prefill(rows, blocks, alike, width))
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
        self._compile_if_due()
        taken = {self._slots[rows[i]]: i for i in indices}
        places = sorted(taken) if self._apart else list(range(_power(max(taken) + 1)))
        width = _power(max(len(blocks[i]) for i in indices))
        tokens = {slot: row.tokens for row, slot in self._slots.items()}
        inputs = blocks[0].new_zeros(len(places), width, blocks[0].shape[1])
        for own, slot in zip(inputs, places, strict=True):
            if slot in taken:
                block = blocks[taken[slot]]
                own[: len(block)] = block
        begin = torch.tensor([tokens.get(slot, 0) for slot in places])
        at = begin[:, None] + torch.arange(width)
        length = _rounded(int(at.max()) + 1)
        at = at.to(inputs.device)
        slots = torch.tensor(places, device=inputs.device) if self._apart else None
        output = self._replayed("step", inputs, at, slots, length)
        return {taken[slot]: own for slot, own in zip(places, output, strict=True) if slot in taken}

    def _prefill(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], indices: Sequence[int], width: int
    ) -> dict[int, Tensor]:
        """Hidden states of rows with about as many new tokens, at most `width`, padded on the right. Whether a
        prefill is captured changes no shape, and so no bit: those of sizes that may be are padded from the first on."""
        sized = width <= _PREFILL_TOKENS and len(indices) * width <= self._most_prefilled
        if not sized:
            width = max(len(blocks[i]) for i in indices)
        inputs = blocks[0].new_zeros(len(indices), width, blocks[0].shape[1])
        for own, i in zip(inputs, indices, strict=True):
            own[: len(blocks[i])] = blocks[i]
        device = inputs.device
        slots = torch.tensor([self._slots[rows[i]] for i in indices], device=device)
        at = torch.tensor([rows[i].tokens for i in indices])[:, None] + torch.arange(width)
        length = int(at.max()) + 1
        at = at.to(device)
        if sized:
            output = self._replayed("prefill", inputs, at, slots, _rounded(length))
        else:
            output = self.forward(inputs, at, slots, length)
        return dict(zip(indices, output, strict=True))

    def _replayed(
        self, kind: str, inputs: Tensor, at: Tensor, slots: Tensor | None, length: int
    ) -> Tensor:
        """As `forward`, by a replay where the step or prefill is captured."""
        graph = None
        if kind in self._captures and at.numel() <= self._most_tokens:
            graph = self._captured(kind, inputs, at, slots, length)
        if graph is None:
            return self.forward(inputs, at, slots, length)
        return graph.replay(inputs, at, slots)

    def _captured(
        self, kind: str, inputs: Tensor, at: Tensor, slots: Tensor | None, length: int
    ) -> "_Graph | None":
        """The step or prefill of these sizes; `None` where it comes too seldom, and, now and later, where none of
        its kind can be captured."""
        key = *at.shape, length
        graph = self._graphs.pop(key, None)
        if graph is None:
            self._uses[key] += kind == "prefill"
            if kind == "prefill" and self._uses[key] < PREFILL_USES:
                return None
            _begin(_CAPTURES if kind == "step" else _PREFILLS)
            try:
                graph = _Graph(self, inputs, at, slots, length)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # of the driver, or of what waits for the GPU within a layer
                self._give_up(kind, error)
                return None
        self._graphs[key] = graph  # the last one used comes last
        if len(self._graphs) > MOST_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        return graph

    def _give_up(self, kind: str, error: Exception) -> None:
        """Capture no more steps, and then no prefills either, or no more prefills alone."""
        ended = self._captures if kind == "step" else {"prefill"}
        self._captures = self._captures - ended
        for key in [key for key in self._graphs if kind == "step" or key[1] > _STEP_TOKENS]:
            del self._graphs[key]
        _log.warning(
            "--cuda-graphs: a %s cannot be captured (%s); %s are launched kernel by kernel: the same work, but each "
            "takes longer",
            kind,
            first_line(error),
            " and ".join(f"{one}s" for one in sorted(ended, reverse=True)),
        )

    def forward(self, inputs: Tensor, at: Tensor, slots: Tensor | None, length: int) -> Tensor:
        """Hidden states `[B, T, D]` of new tokens at positions `at` `[B, T]`; those of a step by compiled layers,
        if there are any."""
        for places in self._layers:
            places.look(slots, at, length)
        back = torch.arange(length, device=at.device)
        mask = (back <= at.unsqueeze(-1)).unsqueeze(1)
        angles = self._text.rotary_emb(inputs, at.expand(3, *at.shape))
        if at.shape[1] <= _STEP_TOKENS and self._compiled is not None:
            try:
                with torch._dynamo.config.patch(cache_size_limit=_MOST_COMPILED):
                    return self._run(self._compiled, inputs, mask, angles)
            except torch.OutOfMemoryError:
                raise
            except (
                Exception
            ) as error:  # of compilers and drivers, any class; what is not theirs comes again
                self._compiled = None
                _log.warning(
                    "--compile: torch.compile failed (%s); steps are not compiled: the same work, but more and "
                    "smaller kernels, so that each takes longer",
                    first_line(error),
                )
        return self._run(_run_layer, inputs, mask, angles)

    def _run(self, run: Callable[..., Tensor], hidden: Tensor, mask: Tensor, angles: Any) -> Tensor:
        for layer, places in zip(self._text.layers, self._layers, strict=True):
            hidden = run(layer, hidden, mask, angles, places)
        normed: Tensor = self._text.norm(hidden)
        return normed

    def _compile_if_due(self) -> None:
        """Compile from now on, if there were enough steps; what was captured before is captured again."""
        if self._compile_after is not None and self._steps >= self._compile_after:
            self._compile_after = None
            _begin(_COMPILES)
            self._compiled = torch.compile(_run_layer, fullgraph=True, dynamic=True)
            self._graphs.clear()
        self._steps += 1

    def capturing(self) -> tuple[Any, Any]:
        """Return the memory pool that all captures share and the stream that they are captured on, of this device.

        torch refuses to capture into a pool whose captures are all gone, while a library's workspace still lies in it.
        """
        if not self._graphs:
            self._pool = torch.cuda.graph_pool_handle()
        if self._side is None:
            self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return self._pool, self._side

    def _make_room(self, rows: Sequence[Held], widths: Sequence[int]) -> None:
        """Give new rows a place, and all places room for the longest: a step writes to all, a prefill to its own."""
        for row in rows:
            if row not in self._slots:
                taken = set(self._slots.values())
                self._slots[row] = min(set(range(len(taken) + 1)) - taken)
        places = max(self._places, _power(max(self._slots.values()) + 1))
        step = max((width for width in widths if width <= _STEP_TOKENS), default=0)
        wider = {id(row): max(width, step) for row, width in zip(rows, widths, strict=True)}
        longest = max(row.tokens + wider.get(id(row), step) for row in self._slots)
        length = max(self._length, _power(_rounded(longest)))
        if (places, length) == (self._places, self._length):
            return
        self._graphs.clear()
        thinker = self._thinker
        for layer in self._layers:
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
    """A step or prefill of given sizes, captured."""

    def __init__(
        self, text: PlacedText, inputs: Tensor, at: Tensor, slots: Tensor | None, length: int
    ) -> None:
        self._inputs, self._at = inputs.clone(), at.clone()
        self._slots = None if slots is None else slots.clone()
        given = self._inputs, self._at, self._slots, length
        pool, side = text.capturing()
        current = torch.cuda.current_stream()
        side.wait_stream(current)
        self._graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(side):
                for _ in range(_WARM_UPS):
                    text.forward(*given)
            current.wait_stream(side)
            # Other threads may ask for memory meanwhile. On a stream of this device: torch's own is of the first one.
            with torch.cuda.graph(
                self._graph, pool=pool, stream=side, capture_error_mode="thread_local"
            ):
                self._output = text.forward(*given)
        except BaseException:
            torch.cuda.set_stream(current)  # which `graph` leaves out where a capture cannot end
            raise

    def replay(self, inputs: Tensor, at: Tensor, slots: Tensor | None) -> Tensor:
        self._inputs.copy_(inputs)
        self._at.copy_(at)
        if self._slots is not None and slots is not None:
            self._slots.copy_(slots)
        self._graph.replay()
        return self._output


def _power(count: int) -> int:
    """The smallest power of two that is at least a count."""
    return 1 << (count - 1).bit_length()


def _rounded(length: int) -> int:
    return -(-length // _LENGTH_TOKENS) * _LENGTH_TOKENS
