"""Drafts of the next tokens of a turn: tokens that the grammar forces, and tokens that the dialogue wrote before.

A draft costs no forward of its own. The engine reads it together with the last token and keeps as much of it as
the model itself would have written, so that a wrong draft costs time and never a token (speculative decoding by
prompt lookup, with the grammar as a second source).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..protocol.confidence import TAG
from ..protocol.markup import ANSWER_END
from ..protocol.matcher import Literal, Number, State, Words, advance
from ..protocol.turns import LINE
from ..protocol.vocabulary import Vocabulary

_NUMBER = b"0123456789."
_REPEATED = 2
"""Tokens that must repeat before the one after them is proposed (docs/experiments.md, 2026-11-28)."""


@dataclass(slots=True)
class _Copy:
    """A text that is probably written again.

    Attributes:
        ids: its tokens.
        at: the next of them.
        lost: whether another token was written since the last line break.
    """

    ids: Sequence[int] = ()
    at: int = 0
    lost: bool = True

    def next(self) -> int | None:
        return None if self.lost or self.at >= len(self.ids) else self.ids[self.at]

    def follow(self, token: int, breaks: frozenset[int]) -> None:
        """Note a token; after a line break the next line is expected."""
        if self.next() == token:
            self.at += 1
            return
        if token not in breaks:
            self.lost = True
            return
        while self.at < len(self.ids) and self.ids[self.at] not in breaks:
            self.at += 1
        self.at, self.lost = self.at + 1, False


@dataclass(slots=True)
class TokenHistory:
    """The tokens that a dialogue wrote, where each run of them occurred last, and the text that it copies."""

    ids: list[int] = field(default_factory=list)
    places: dict[tuple[int, ...], int] = field(default_factory=dict)
    copy: _Copy = field(default_factory=_Copy)

    def after(self, draft: Sequence[int]) -> int | None:
        """The token that followed the last tokens, the draft's included, the last time that they were written."""
        place = self.places.get((*self.ids[-_REPEATED:], *draft)[-_REPEATED:])
        return None if place is None or place >= len(self.ids) else self.ids[place]


class Lookahead:
    """Proposes the next tokens of a turn.

    Args:
        vocabulary: of the model.
        tokenizer: spells text that the grammar forces.
    """

    def __init__(self, vocabulary: Vocabulary, tokenizer: Any) -> None:
        self._vocabulary = vocabulary
        self._tokenizer = tokenizer
        self._spelled: dict[bytes, tuple[int, ...]] = {}
        self._breaks = frozenset(
            i for i, data in enumerate(vocabulary.tokens) if b"\n" in (data or b"")
        )

    def note(self, history: TokenHistory, token: int) -> None:
        """Add a written token to a history."""
        if len(history.ids) >= _REPEATED:
            history.places[tuple(history.ids[-_REPEATED:])] = len(history.ids)
        history.ids.append(token)
        history.copy.follow(token, self._breaks)

    def expect_answer(self, history: TokenHistory) -> None:
        """Propose the lines of all turns from here on: the model's answer repeats them."""
        spelled = (self._vocabulary.tokens[i] or b"" for i in history.ids)
        text = TAG.sub("\n", b"".join(spelled).decode(errors="replace"))
        lines = [f"{match[0].strip()}\n" for match in LINE.finditer(text)]
        data = ("\n" + "".join(lines) + ANSWER_END).encode()
        history.copy = _Copy(self._spell(data, keep=False), 0, False)

    def draft(self, state: State, history: TokenHistory, longest: int) -> list[int]:
        """Draft the tokens that probably follow; the grammar allows each.

        Args:
            state: of the grammar, after all tokens so far.
            history: of the dialogue, with all tokens so far.
            longest: tokens at most.
        """
        draft: list[int] = []
        copy = replace(history.copy)
        while state and len(draft) < longest:
            token = copy.next()
            after = self._after(state, token)
            if not after:
                data, after = forced(state)
                spelled = self._spell(data) if data else ()
                if spelled:
                    draft += spelled
                    for one in spelled:
                        copy.follow(one, self._breaks)
                    state = after
                    continue
                token = history.after(draft)
                after = self._after(state, token)
            if after and token is not None:
                draft.append(token)
                copy.follow(token, self._breaks)
            state = after
        return draft[:longest]

    def _after(self, state: State, token: int | None) -> State:
        """The state after a token; empty where there is none or it is not allowed."""
        data = self._vocabulary.tokens[token] if token is not None else None
        return advance(state, data) if data else ()

    def _spell(self, data: bytes, *, keep: bool = True) -> tuple[int, ...]:
        """The tokenizer's own tokens for a text; empty where they spell another, as for half a character."""
        known = self._spelled.get(data)
        if known is not None:
            return known
        ids = tuple(self._tokenizer.encode(data.decode(errors="replace"), add_special_tokens=False))
        parts = [self._vocabulary.tokens[i] or b"" for i in ids]
        ids = ids if b"".join(parts) == data else ()
        if keep:
            self._spelled[data] = ids
        return ids


def forced(state: State) -> tuple[bytes, State]:
    """The bytes that every continuation begins with, and the state after them.

    A blank before free text is left out: most tokenizers join it to the word that follows.
    """
    data = b""
    while state:
        options: set[int] = set()
        for node in state:
            if isinstance(node, Literal):
                options.add(node.data[node.at])
            elif isinstance(node, Number):
                options.update(byte for byte in _NUMBER if node.step(byte))
            else:
                return data, state
        if len(options) != 1:
            break
        byte = bytes(options)
        after = advance(state, byte)
        if byte == b" " and any(isinstance(node, Words) for node in after):
            break
        data, state = data + byte, after
    return data, state
