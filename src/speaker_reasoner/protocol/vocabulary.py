"""A tokenizer's tokens as bytes, and the choice of the best token that the grammar allows."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import EngineError
from .matcher import State, advance, complete, next_bytes

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "▁"
TRIED_FIRST = 4
"""Most probable tokens that are tried before all others that the grammar allows (assumed)."""


class Vocabulary:
    """The bytes of every token, by id and by first byte.

    Args:
        tokenizer: a Hugging Face tokenizer; byte-level or with pieces marked by U+2581.
        end_id: the end-of-turn token.
        size: rows of the output layer; ids above the tokenizer's are never chosen.

    Special tokens (audio placeholders, markup) spell nothing and are never chosen: one generated
    placeholder would break the next turn's prompt.
    """

    def __init__(self, tokenizer: Any, end_id: int, size: int) -> None:
        self.end_id = end_id
        self.tokens: list[bytes | None] = [None] * size
        alphabet = _byte_alphabet()
        added = tokenizer.added_tokens_decoder
        special = {int(i) for i in tokenizer.all_special_ids}
        pieces = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
        byte_level = not any(_SPACE in piece for piece in pieces if piece)
        for i, piece in enumerate(pieces):
            if i in special or piece is None:
                continue
            if i in added:
                self.tokens[i] = None if added[i].special else added[i].content.encode()
            elif byte_level:
                self.tokens[i] = _spell_bytes(piece, alphabet) or None
            else:
                self.tokens[i] = _spell_marked(piece) or None
        by_first: dict[int, list[int]] = {}
        for i, data in enumerate(self.tokens):
            if data:
                by_first.setdefault(data[0], []).append(i)
        self._by_first = {byte: np.array(ids) for byte, ids in by_first.items()}

    def choose(
        self, likely: Sequence[int], logits: Callable[[], np.ndarray[Any, Any]], state: State
    ) -> tuple[int, State]:
        """The most probable token that the grammar allows, and the state after it.

        Args:
            likely: the most probable tokens, the most probable first.
            logits: gives those of all tokens, `[V]`, float32; asked for only if none of `likely` is allowed.

        Raises:
            EngineError: the tokenizer cannot spell what must come next.
        """
        best = self._first(likely, state)
        if best is None:
            ids = [self._by_first[b] for b in next_bytes(state) if b in self._by_first]
            if complete(state):
                ids.append(np.array([self.end_id]))
            allowed = np.concatenate(ids) if ids else np.array([], dtype=np.int64)
            best = self._first(
                allowed[np.argsort(-logits()[allowed], kind="stable")].tolist(), state
            )
        if best is None:
            raise EngineError("the tokenizer has no token for what the protocol needs next")
        return best

    def _first(self, ids: Sequence[int], state: State) -> tuple[int, State] | None:
        for i in ids:
            if i == self.end_id:
                if complete(state):
                    return i, state
                continue
            data = self.tokens[i]
            if data:
                after = advance(state, data)
                if after:
                    return i, after
        return None


def _spell_bytes(piece: str, alphabet: dict[str, int]) -> bytes:
    """A piece of a byte-level tokenizer: one character a byte."""
    if all(character in alphabet for character in piece):
        return bytes(alphabet[character] for character in piece)
    return piece.encode()


def _spell_marked(piece: str) -> bytes:
    """A piece of a tokenizer that marks spaces with U+2581 and writes lone bytes as `<0x41>`."""
    fallback = _BYTE_FALLBACK.fullmatch(piece)
    if fallback:
        return bytes((int(fallback.group(1), 16),))
    return piece.replace(_SPACE, " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level tokenizers write for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}
