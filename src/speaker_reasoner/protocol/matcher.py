"""A byte matcher: a state is a set of nodes, and a node is one possible continuation.

`grammar` builds the turns of the dialogue from these nodes. When a node is complete, it calls
a function with the value it read, which returns the nodes that may follow.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

MAX_REPEATS = 10
"""A span repeated more often than this is a loop (as in the released runner)."""


class Node:
    """One continuation.

    `step` returns the continuations after a byte; none if the byte does not fit. `fitting` returns the bytes for
    which it returns some.
    """

    __slots__ = ()
    ends = False

    def step(self, byte: int) -> tuple["Node", ...]:
        raise NotImplementedError

    def fitting(self) -> Iterable[int]:
        raise NotImplementedError


Then = Callable[[], tuple[Node, ...]]
State = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class End(Node):
    """The turn is complete; nothing may follow but the end-of-turn token."""

    ends = True

    def step(self, byte: int) -> State:
        return ()

    def fitting(self) -> Iterable[int]:
        return ()


@dataclass(frozen=True, slots=True)
class Literal(Node):
    data: bytes
    then: Then
    at: int = 0

    def step(self, byte: int) -> State:
        if self.data[self.at] != byte:
            return ()
        at = self.at + 1
        return (Literal(self.data, self.then, at),) if at < len(self.data) else self.then()

    def fitting(self) -> Iterable[int]:
        byte = self.data[self.at]
        return (byte,) if self.step(byte) else ()


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number of `low..high` in ticks of `decimals` decimals; fewer decimals where `loose`."""

    low: int
    high: int
    decimals: int
    loose: bool
    then: Callable[[int], State]
    whole: str = ""
    part: str | None = None

    def step(self, byte: int) -> State:
        if byte == 0x2E and self.whole and self.part is None and self.decimals:
            return (self._with(self.whole, ""),) if self._reachable(self.whole, "") else ()
        if not 0x30 <= byte <= 0x39:
            return ()
        digit = chr(byte)
        whole, part = self.whole, self.part
        if part is None:
            if whole == "0":
                return ()
            whole += digit
        else:
            part += digit
        if not self._reachable(whole, part):
            return ()
        grown = self._with(whole, part)
        done = len(part) == self.decimals if part is not None else self.decimals == 0
        value = int(whole + (part or "").ljust(self.decimals, "0"))
        fits = self.low <= value <= self.high
        if done:
            return self.then(value)
        if self.loose and fits:
            return (grown, *self.then(value))
        return (grown,)

    def fitting(self) -> Iterable[int]:
        return [byte for byte in b".0123456789" if self.step(byte)]

    def _with(self, whole: str, part: str | None) -> "Number":
        return Number(self.low, self.high, self.decimals, self.loose, self.then, whole, part)

    def _reachable(self, whole: str, part: str | None) -> bool:
        """Return whether some completion of these digits lies within the bounds."""
        unit = int(10**self.decimals)
        if part is not None:
            width = int(10 ** (self.decimals - len(part)))
            least = int(whole + part) * width
            return least <= self.high and least + width - 1 >= self.low
        value, width = int(whole), 1
        while value * unit <= self.high:
            if value * unit + width * unit - 1 >= self.low:
                return True
            if value == 0:
                return False
            value, width = value * 10, width * 10
        return False


_CONTINUATION = (0x80, 0xBF)
_SECOND = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
"""Second bytes of UTF-8 that some first bytes narrow, against overlong forms and surrogates."""


@dataclass(frozen=True, slots=True)
class Words(Node):
    """Free text on one line, up to one of `stops`, within a budget of bytes.

    Attributes:
        then: gets the budget that is left, after the stop was read.
        forbidden: bytes that may not occur.
        least: 1 where the text may not be empty or begin with a space.
    """

    budget: int
    stops: bytes
    then: Callable[[int, int], State]
    forbidden: frozenset[int] = frozenset(b"<")
    least: int = 0
    text: bytes = b""
    pending: int = 0
    continuation: tuple[int, int] = _CONTINUATION

    def step(self, byte: int) -> State:
        if self.pending:
            if not self.continuation[0] <= byte <= self.continuation[1]:
                return ()
            return (self._grow(byte, self.pending - 1),)
        if byte in self.stops and (self.text or not self.least):
            return self.then(byte, self.budget - len(self.text))
        if byte == 0x20 and self.least and not self.text:
            return ()
        following = _first_bytes(self.forbidden, self.stops).get(byte)
        if following is None or len(self.text) + 1 + following > self.budget or self.loops:
            return ()
        return (self._grow(byte, following, _SECOND.get(byte, _CONTINUATION)),)

    def fitting(self) -> Iterable[int]:
        if self.pending:
            return range(self.continuation[0], self.continuation[1] + 1)
        ends = [byte for byte in self.stops if self.step(byte)]
        if self.loops:
            return ends
        left = self.budget - len(self.text) - 1
        first = _first_bytes(self.forbidden, self.stops).items()
        begins = not self.text and self.least
        return ends + [b for b, more in first if more <= left and not (b == 0x20 and begins)]

    def _grow(
        self, byte: int, pending: int, continuation: tuple[int, int] = _CONTINUATION
    ) -> "Words":
        text = self.text + bytes((byte,))
        return Words(
            self.budget,
            self.stops,
            self.then,
            self.forbidden,
            self.least,
            text,
            pending,
            continuation,
        )

    @property
    def loops(self) -> bool:
        """Return whether the text ends in a span repeated `MAX_REPEATS` times."""
        text = self.text
        if len(text) < MAX_REPEATS or (text[-1] != 0x20 and text[-1] < 0x80 and len(text) % 16):
            return False
        for length in range(1, len(text) // MAX_REPEATS + 1):
            span = text[-length:]
            if text.endswith(span * MAX_REPEATS):
                return True
        return False


@cache
def _first_bytes(forbidden: frozenset[int], stops: bytes) -> dict[int, int]:
    """The bytes that may begin a character of a text, and how many follow each."""
    return {
        byte: following
        for byte in range(0x20, 0x100)
        if byte != 0x7F and byte not in forbidden and byte not in stops
        if (following := _following(byte)) is not None
    }


def _following(byte: int) -> int | None:
    """Return how many bytes follow this first byte of a UTF-8 character; `None` if it cannot be one."""
    if byte < 0x80:
        return 0
    if 0xC2 <= byte < 0xE0:
        return 1
    if 0xE0 <= byte < 0xF0:
        return 2
    if 0xF0 <= byte < 0xF5:
        return 3
    return None


@dataclass(frozen=True, slots=True)
class Spaces(Node):
    """Up to `most` spaces or line breaks, then the nodes of `then`."""

    most: int
    inner: State

    def step(self, byte: int) -> State:
        after = tuple(n for node in self.inner for n in node.step(byte))
        if byte in b" \n" and self.most:
            return (Spaces(self.most - 1, self.inner), *after)
        return after

    def fitting(self) -> Iterable[int]:
        return [
            *(b" \n" if self.most else b""),
            *(b for node in self.inner for b in node.fitting()),
        ]


def advance(state: State, data: bytes) -> State:
    """The state after some bytes; empty if they do not fit."""
    for byte in data:
        if len(state) == 1:
            state = state[0].step(byte)
        else:
            state = tuple([after for node in state for after in node.step(byte)])
        if not state:
            return ()
    return state


def complete(state: State) -> bool:
    """Return whether the turn may end here."""
    return any(node.ends for node in state)


def closed(state: State) -> bool:
    """Return whether the turn must end here."""
    return bool(state) and all(node.ends for node in state)


def next_bytes(state: State) -> list[int]:
    """Bytes that may come next."""
    return sorted({byte for node in state for byte in node.fitting()})


def end_here() -> State:
    return (End(),)


def caught_loop(state: Iterable[Node]) -> bool:
    """Return whether some continuation is a text that repeats itself."""
    return any(isinstance(node, Words) and node.loops for node in state)
