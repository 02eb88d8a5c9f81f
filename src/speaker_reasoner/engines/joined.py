"""The text model by transformers' own classes, of any kind and on any device.

A batch joins the keys and values of its rows by left padding and takes them apart when other rows are read.
Positions are given explicitly (with audio alone, the three axes of the rotary embedding count the same), so no
state of the module is involved.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .attention import grouped_attention
from .memory import Held, join, shorten, take_apart
from .thinker import text_model

_MOST_PADDING = 1024
"""Tokens of padding in one forward; assumed. More, and rows are read among rows with about as much of new."""


class JoinedText:
    """A `TextReader` for every thinker."""

    def __init__(self, thinker: Any) -> None:
        self._thinker = thinker
        self._rows: list[Held] = []
        self._cache: Any = None
        self._mask = torch.empty(0)  # on the CPU, where it is read at each step

    def read(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], last: Sequence[int]
    ) -> list[Tensor]:
        """See `TextReader`."""
        lengths = [len(block) for block in blocks]
        if len(rows) * max(lengths) - sum(lengths) <= _MOST_PADDING:
            return self._read(rows, blocks, last)
        by_length: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            by_length.setdefault(length.bit_length(), []).append(i)
        logits: dict[int, Tensor] = {}
        for indices in by_length.values():
            own = self._read(
                [rows[i] for i in indices], [blocks[i] for i in indices], [last[i] for i in indices]
            )
            logits.update(zip(indices, own, strict=True))
        return [logits[i] for i in range(len(rows))]

    def _read(
        self, rows: Sequence[Held], blocks: Sequence[Tensor], last: Sequence[int]
    ) -> list[Tensor]:
        """One forward. Rows that are done leave the batch when they are half of it."""
        present = {id(row) for row in self._rows}
        if len(rows) * 2 <= len(self._rows) or any(id(row) not in present for row in rows):
            self.release()
            self._join(rows)
        self._drop()
        place = {id(row): i for i, row in enumerate(self._rows)}
        at = [place[id(row)] for row in rows]
        width, held = max(map(len, blocks)), self._mask.shape[1]
        self._mask = torch.nn.functional.pad(self._mask, (0, width))
        inputs = blocks[0].new_zeros(len(self._rows), width, blocks[0].shape[1])
        positions = torch.zeros(len(self._rows), width, dtype=torch.long)
        for i, row, block in zip(at, rows, blocks, strict=True):
            inputs[i, width - len(block) :] = block
            self._mask[i, held + width - len(block) :] = 1
            positions[i, width - len(block) :] = row.tokens + torch.arange(len(block))
            row.tokens += len(block)
        text, device = text_model(self._thinker), inputs.device
        positions = positions.to(device).expand(3, *positions.shape)
        with grouped_attention(text):
            output = text(
                inputs_embeds=inputs,
                attention_mask=self._mask.to(device),
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
            )
        hidden = output.last_hidden_state
        wanted = torch.cat([hidden[i, -n:] for i, n in zip(at, last, strict=True)])
        return list(torch.split(self._thinker.lm_head(wanted), list(last)))

    def release(self) -> None:
        """Give every row of the batch its own keys and values back, without padding."""
        if not self._rows:
            return
        self._drop()
        mask = self._mask.to(self._thinker.device)
        for row, own in zip(self._rows, take_apart(self._cache, mask), strict=True):
            row.places = own
        self._rows, self._cache = [], None

    def abandon(self) -> None:
        """See `TextReader`; some layers may hold more than others, so nothing can be given back."""
        self._rows, self._cache = [], None

    def _join(self, rows: Sequence[Held]) -> None:
        """One cache and mask `[B, held]` for all rows, padded left."""
        longest = max(row.tokens for row in rows)
        self._mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            self._mask[i, longest - row.tokens :] = 1
            row.places[:] = [  # without what the row dropped after it got them back
                (keys[:, :, : row.tokens], values[:, :, : row.tokens])
                for keys, values in row.places
            ]
        self._cache = join([row.places for row in rows], longest)
        self._rows = list(rows)

    def _drop(self) -> None:
        """Leave out what rows dropped since; what all of them dropped leaves the cache too."""
        read = self._mask.sum(1).tolist()
        unused = self._mask.shape[1]
        for i, (row, tokens) in enumerate(zip(self._rows, read, strict=True)):
            if tokens > row.tokens:
                kept = self._mask[i].nonzero()[: row.tokens]
                self._mask[i, int(kept[-1]) + 1 if len(kept) else 0 :] = 0
            last = self._mask[i].nonzero()
            unused = min(unused, self._mask.shape[1] - (int(last[-1]) + 1 if len(last) else 0))
        if unused:
            shorten(self._cache, self._mask.shape[1] - unused)
            self._mask = self._mask[:, :-unused]
