"""Keys and values: of a dialogue, and of a batch, joined from those of its rows and taken apart again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

KeysValues = list[tuple[Tensor, Tensor]]
"""Per layer: keys and values `[1, heads, T, D]`."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Held:
    """Keys and values of one dialogue.

    Attributes:
        tokens: how many hold; who sets it lower drops the last ones.
        places: where they lie, with room for more; empty before the first and while they are part of a batch.
    """

    tokens: int = 0
    places: KeysValues = field(default_factory=list)


class TextReader(Protocol):
    """A way to read new tokens of dialogues through the text model."""

    def read(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], last: Sequence[int]
    ) -> list[Tensor]:
        """Read new embeddings of each row; their keys and values are kept.

        Args:
            rows: one of each dialogue.
            blocks: embeddings `[T, D]` of their new tokens, at least one each.
            last: how many of the last positions are wanted, at least one each.

        Returns:
            Logits `[last, V]` of each.
        """
        ...

    def release(self) -> None:
        """End a batch: its rows may be read among others, and weights may change."""
        ...

    def abandon(self) -> None:
        """End a batch that failed: its rows are not read again."""
        ...


ROOM = 64
"""Tokens that can be added before keys and values are copied to larger places."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of a cache with spare room; transformers' own layer is copied for each token."""

    def hold(self, places: tuple[Tensor, Tensor], tokens: int) -> None:
        """Set buffers for keys and values `[B, heads, T, D]`, and the number of tokens they hold."""
        self.dtype, self.device = places[0].dtype, places[0].device
        self.is_initialized = True
        self._places = places
        self.keys, self.values = (place[:, :, :tokens] for place in places)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values; returns all of them."""
        held = self.get_seq_length()
        total = held + key_states.shape[2]
        news = (key_states, value_states)
        if not held or total > self._places[0].shape[2]:
            batch, heads, _, size = key_states.shape
            shape = (batch, heads, total + ROOM, size)
            places = key_states.new_empty(shape), value_states.new_empty(shape)
            if held:
                for place, old in zip(places, (self.keys, self.values), strict=True):
                    place[:, :, :held] = old
            self.hold(places, held)
        for place, new in zip(self._places, news, strict=True):
            place[:, :, held:total] = new
        self.hold(self._places, total)
        return self.keys, self.values

    def shorten(self, tokens: int) -> None:
        """Keep the first so many."""
        self.hold(self._places, tokens)


def join(rows: Sequence[KeysValues], longest: int) -> Cache:
    """One cache of rows, padded left to `longest` tokens; an empty row holds nothing yet.

    The rows are emptied layer by layer, so that no layer is in memory twice.
    """
    cache = Cache(layer_class_to_replicate=RoomyLayer)
    while like := next((row[0] for row in rows if row), None):
        _, heads, _, size = like[0].shape
        shape = (len(rows), heads, longest + ROOM, size)
        places = like[0].new_empty(shape), like[0].new_empty(shape)
        for i, row in enumerate(rows):
            own = row.pop(0) if row else (like[0][:, :, :0], like[1][:, :, :0])
            for place, kept in zip(places, own, strict=True):
                padding = longest - kept.shape[2]
                place[i, :, :padding] = 0  # masked, yet what is masked must be finite
                place[i, :, padding:longest] = kept[0]
        cache.layers.append(RoomyLayer())
        cache.layers[-1].hold(places, longest)
    return cache


def shorten(cache: Cache, tokens: int) -> None:
    """Leave out all keys and values of a joined cache but the first so many."""
    for layer in cache.layers:
        layer.shorten(tokens)


def take_apart(cache: Cache, mask: Tensor) -> list[KeysValues]:
    """Return the keys and values of each row, without positions that `mask` `[B, T]` excludes.

    The cache is emptied layer by layer, so that no layer is in memory twice.
    """
    kept, rows = mask.bool(), [KeysValues() for _ in mask]
    while cache.layers:
        layer = cache.layers.pop(0)
        for i, row in enumerate(rows):
            own = layer.keys[i : i + 1, :, kept[i]], layer.values[i : i + 1, :, kept[i]]
            row.append(own)
    return rows
