"""Logits that stay on their device: of each place only the most probable tokens come to the processor."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..protocol.vocabulary import TRIED_FIRST

Floats = np.ndarray[Any, np.dtype[np.float32]]


class Logits:
    """Logits of a text model for the tokens after some places; the likeliest are copied to the processor.

    Args:
        table: `[places, V]`, on any device.
    """

    def __init__(self, table: Tensor) -> None:
        self._table = table.float()
        top = torch.topk(self._table, min(TRIED_FIRST, table.shape[-1]))
        self._count = top.indices.shape[-1]
        most = top.values[:, :1]
        # As torch.logsumexp, which also asks for infinite logits: on a CPU three times as long.
        normalisers = most + (self._table - most).exp_().sum(-1, keepdim=True).log_()
        # In one piece: each transfer waits for the device. Ids below 2**24 are exact in float32.
        packed = torch.cat([top.values - normalisers, normalisers, top.indices.float()], dim=-1)
        self._packed: Floats = packed.cpu().numpy()
        self._likely: list[list[int]] = self._packed[:, -self._count :].astype(np.int64).tolist()

    def likely(self, place: int) -> list[int]:
        """The most probable tokens, the most probable first."""
        return self._likely[place]

    def all(self, place: int) -> Floats:
        """The logits of all tokens, `[V]`."""
        row: Floats = self._table[place].cpu().numpy()
        return row

    def probability(self, place: int, token: int) -> float:
        """Return the probability of a token, 0..1."""
        if token in self._likely[place]:
            return float(np.exp(self._packed[place, self._likely[place].index(token)]))
        return float(np.exp(self.all(place)[token] - self._packed[place, self._count]))
