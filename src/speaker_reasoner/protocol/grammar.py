"""What a valid turn is, byte by byte: the state machine that constrains decoding.

A state is the set of ways the turn may go on; `advance` moves it over the bytes of a token. It
knows what no regular expression can: a segment ends after it starts and lies in the box just heard,
boxes never go back and always make progress, new speakers take the next free number, the text of a
turn is bounded by the length of what was heard, and a text that repeats itself may only be closed.
Working on bytes, it serves any tokenizer: a tag may be one token or nine, a token may hold the end
of one tag and the start of the next.

Does not look at probabilities: see `Vocabulary.choose`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from .profile import Profile
from .text import ANSWER, ANSWER_END, BOX, BOX_END, THINK, THINK_END, Box

MAX_REPEATS = 10
"""A span repeated more often than this is a loop (as in the released runner)."""
LINE_BYTES = 20
"""What a line costs of the turn's budget, besides its text."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Everything that decides what may be written in one turn. Times in ticks of the chunk.

    Attributes:
        profile: wording and limits.
        turn: 0 for the overview, then the number of the observation just heard.
        chunk: end of the chunk.
        box: the observation just heard; `None` in turn 0.
        speakers: highest speaker number written so far.
        model_answer: whether the final transcript is generated; otherwise the turn is complete with
            the opening tag.
        last: the turn must end the dialogue.
        task: `dialogue`, or `base` for the whole transcript in one turn.
    """

    profile: Profile
    turn: int
    chunk: int
    box: Box | None = None
    speakers: int = 0
    model_answer: bool = False
    last: bool = False
    task: str = "dialogue"

    @property
    def shortest(self) -> int:
        """0.1 s in ticks, or the whole chunk where that is shorter."""
        return min(max(1, self.profile.ticks_per_s // 10), max(1, self.chunk))

    def budget(self, ticks: int) -> int:
        """Bytes that fit into so much audio: four times what a fast speaker says."""
        return 120 + 60 * ticks // self.profile.ticks_per_s


class Node:
    """One way to go on. `step` gives the ways to go on after a byte; none if it does not fit."""

    __slots__ = ()
    ends = False

    def step(self, byte: int) -> tuple["Node", ...]:
        raise NotImplementedError


Then = Callable[[], tuple[Node, ...]]
State = tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class _End(Node):
    """The turn is complete; nothing may follow but the end-of-turn token."""

    ends = True

    def step(self, byte: int) -> State:
        return ()


@dataclass(frozen=True, slots=True)
class _Literal(Node):
    data: bytes
    then: Then
    at: int = 0

    def step(self, byte: int) -> State:
        if self.data[self.at] != byte:
            return ()
        at = self.at + 1
        return (replace(self, at=at),) if at < len(self.data) else self.then()


@dataclass(frozen=True, slots=True)
class _Number(Node):
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
            return (replace(self, part=""),) if self._reachable(self.whole, "") else ()
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
        grown = replace(self, whole=whole, part=part)
        done = len(part) == self.decimals if part is not None else self.decimals == 0
        value = int(whole + (part or "").ljust(self.decimals, "0"))
        fits = self.low <= value <= self.high
        if done:
            return self.then(value)
        if self.loose and fits:
            return (grown, *self.then(value))
        return (grown,)

    def _reachable(self, whole: str, part: str | None) -> bool:
        """Whether some completion of these digits lies within the bounds."""
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
class _Words(Node):
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
        if byte < 0x20 or byte == 0x7F or byte in self.forbidden or byte in self.stops:
            return ()
        following = _following(byte)
        if following is None or len(self.text) + 1 + following > self.budget or self.loops:
            return ()
        return (self._grow(byte, following, _SECOND.get(byte, _CONTINUATION)),)

    def _grow(
        self, byte: int, pending: int, continuation: tuple[int, int] = _CONTINUATION
    ) -> "_Words":
        text = self.text + bytes((byte,))
        return replace(self, text=text, pending=pending, continuation=continuation)

    @property
    def loops(self) -> bool:
        """Whether the text ends in a span repeated `MAX_REPEATS` times."""
        text = self.text
        if len(text) < MAX_REPEATS or (text[-1] != 0x20 and text[-1] < 0x80 and len(text) % 16):
            return False
        for length in range(1, len(text) // MAX_REPEATS + 1):
            span = text[-length:]
            if text.endswith(span * MAX_REPEATS):
                return True
        return False


def _following(byte: int) -> int | None:
    """How many bytes follow this first byte of a UTF-8 character; `None` if it cannot be one."""
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
class _Spaces(Node):
    """Up to `most` spaces or line breaks, then whatever `then` begins with."""

    most: int
    inner: State

    def step(self, byte: int) -> State:
        after = tuple(n for node in self.inner for n in node.step(byte))
        if byte in b" \n" and self.most:
            return (replace(self, most=self.most - 1), *after)
        return after


def start(rules: TurnRules) -> State:
    """The state before a turn's first byte."""
    return _Strict(rules).turn() if rules.profile.strict else _Free(rules).turn()


def advance(state: State, data: bytes) -> State:
    """The state after some bytes; empty if they do not fit."""
    for byte in data:
        state = tuple(after for node in state for after in node.step(byte))
        if not state:
            return ()
    return state


def complete(state: State) -> bool:
    """Whether the turn may end here."""
    return any(node.ends for node in state)


def closed(state: State) -> bool:
    """Whether the turn must end here."""
    return bool(state) and all(node.ends for node in state)


def next_bytes(state: State) -> list[int]:
    """Bytes that may come next."""
    return [byte for byte in range(256) if any(node.step(byte) for node in state)]


def _end() -> State:
    return (_End(),)


@dataclass
class _Strict:
    """The `native` layout: exactly what `render_turn` writes."""

    rules: TurnRules
    words: tuple[bytes, bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        before, rest = self.rules.profile.wording.speaker.split("{n}")
        between, after = rest.split("{gender}")
        self.words = (before.encode(), between.encode(), after.encode())

    def turn(self) -> State:
        rules = self.rules
        if rules.task == "base":
            return self._answer(rules.budget(rules.chunk))
        opened = f"{THINK}\n".encode()
        if rules.turn == 0:
            return (_Literal(opened, self._overview),)
        box = rules.box or Box(0, rules.chunk)
        budget = rules.budget(box.end - box.start)
        close = f"{THINK_END}".encode()
        return (
            _Literal(
                opened,
                lambda: self._lines(box, box.start, rules.speakers, budget, close, self._tail),
            ),
        )

    def _overview(self) -> State:
        """Every count of speakers; nobody ends the dialogue, somebody calls for a box."""
        profile = self.rules.profile
        words = profile.wording
        close = f"\n{THINK_END}".encode()
        ways: list[Node] = []
        for count in range(profile.max_speakers + 1):
            head = words.overview_one if count == 1 else words.overview.format(n=count)
            if count == 0:
                ways.append(_Literal(head.encode() + close, self._open_answer))
            else:
                lead = (head + words.colon).encode()
                ways.append(_Literal(lead, self._roll(1, count, close)))
        return tuple(ways)

    def _roll(self, number: int, count: int, close: bytes) -> Then:
        """Labels `number..count` of the overview, then its end."""

        def ways() -> State:
            before, between, after = self.words
            lead = before + str(number).encode() + between
            if number == count:
                tail, then = after + close, self._box
            else:
                separator = self.rules.profile.wording.separator.encode()
                tail, then = after + separator, self._roll(number + 1, count, close)
            genders = self.rules.profile.wording.genders.values()
            return tuple(_Literal(lead + gender.encode() + tail, then) for gender in genders)

        return ways

    def _lines(
        self, box: Box, after: int, speakers: int, budget: int, close: bytes, then: Then
    ) -> State:
        """Another line that starts no earlier than `after`, or the end."""
        done = _Literal(close, then)
        if budget < LINE_BYTES or box.end - self.rules.shortest < after:
            return (done,)

        def text(speaker: int, start: int) -> State:
            def ended(_: int, left: int) -> State:
                most = max(speakers, speaker)
                return self._lines(box, start, most, left - LINE_BYTES, close, then)

            empty = _Literal(b"\n", lambda: ended(0, budget))
            words = _Words(budget, b"\n", ended, least=1)
            return (empty, _Literal(b" ", lambda: (words,)))

        def times(speaker: int) -> State:
            return self._span(
                after,
                box,
                lambda start, _: (_Literal(b":", lambda: text(speaker, start)),),
            )

        return (done, *self._label(min(speakers + 1, self.rules.profile.max_speakers), times))

    def _label(self, highest: int, then: Callable[[int], State]) -> State:
        before, between, after = self.words
        genders = self.rules.profile.wording.genders.values()
        return tuple(
            _Literal(
                before + str(n).encode() + between + gender.encode() + after + b" ", _bind(then, n)
            )
            for n in range(1, highest + 1)
            for gender in genders
        )

    def _span(self, earliest: int, box: Box, then: Callable[[int, int], State]) -> State:
        """`[start, end]` inside a box, at least 0.1 s long."""
        shortest, decimals = self.rules.shortest, self.rules.profile.decimals

        def end(start: int) -> State:
            number = _Number(
                start + shortest,
                box.end,
                decimals,
                False,
                lambda value: (_Literal(b"]", lambda: then(start, value)),),
            )
            return (_Literal(b", ", lambda: (number,)),)

        start = _Number(earliest, box.end - shortest, decimals, False, end)
        return (_Literal(b"[", lambda: (start,)),)

    def _tail(self) -> State:
        return (*self._box(), *self._open_answer())

    def _box(self) -> State:
        rules = self.rules
        if rules.last:
            return self._open_answer()
        ways = _box_ways(rules, loose=False)
        return ways if ways else self._open_answer()

    def _open_answer(self) -> State:
        rules = self.rules
        if not rules.model_answer:
            return (_Literal(ANSWER.encode(), _end),)
        return self._answer(2 * rules.budget(rules.chunk))

    def _answer(self, budget: int) -> State:
        whole = Box(0, max(self.rules.chunk, self.rules.shortest))
        close = ANSWER_END.encode()
        limit = self.rules.profile.max_speakers
        return (
            _Literal(
                f"{ANSWER}\n".encode(),
                lambda: self._lines(whole, 0, limit, budget, close, _end),
            ),
        )


def _bind(then: Callable[[int], State], number: int) -> Then:
    return lambda: then(number)


def _box_ways(rules: TurnRules, *, loose: bool) -> State:
    """The next box: inside X, at least 0.1 s, no earlier than the last one, nor the last one again.

    In the strict layout it does not end before the last one either.
    """
    last = rules.box or Box(0, 0)
    shortest, decimals, chunk = rules.shortest, rules.profile.decimals, rules.chunk
    floor = 0 if loose else last.end

    def end(start: int) -> State:
        low = max(start + shortest, floor)
        if start == last.start and rules.box is not None:
            low = max(low, last.end + 1)
        number = _Number(
            low,
            chunk,
            decimals,
            loose,
            lambda _: (_Literal(f"]{BOX_END}".encode(), _end),),
        )
        if not loose:
            return (_Literal(b", ", lambda: (number,)),)
        return (_Literal(b",", lambda: (_Spaces(1, (number,)),)),)

    first = last.start
    if rules.box is not None and max(first + shortest, last.end + 1) > chunk:
        first += 1
    if first > chunk - shortest or floor > chunk:
        return ()
    start = _Number(first, chunk - shortest, decimals, loose, end)
    return (_Literal(f"{BOX}[".encode(), lambda: (start,)),)


@dataclass
class _Free:
    """The `released` layout: our tags and times, any wording and spacing around them."""

    rules: TurnRules

    def turn(self) -> State:
        rules = self.rules
        opened = _Literal(THINK.encode(), self._overview if rules.turn == 0 else self._observation)
        return (_Spaces(2, (opened,)),)

    def _overview(self) -> State:
        def ended(stop: int, left: int) -> State:
            if stop == 0x0A:
                return (_Words(left - 1, b"\n<" if left > 1 else b"<", ended),)
            return (_Literal(THINK_END[1:].encode(), self._tail),)

        return (_Words(1200, b"\n<", ended),)

    def _observation(self) -> State:
        box = self.rules.box or Box(0, self.rules.chunk)
        return (
            _Spaces(2, self._lines(self.rules.budget(box.end - box.start), THINK_END, self._tail)),
        )

    def _lines(self, budget: int, close: str, then: Then) -> State:
        """Lines whose times lie anywhere in the chunk, as the released runner has it."""
        done = _Literal(close.encode(), then)
        if budget < LINE_BYTES:
            return (done,)

        def text_ended(stop: int, left: int) -> State:
            if stop == 0x0A:
                return (_Spaces(1, self._lines(left - LINE_BYTES, close, then)),)
            return (_Literal(close[1:].encode(), then),)

        def label_ended(_: int, __: int) -> State:
            text = _Words(budget, b"\n<", text_ended)
            return self._times(lambda: (text,))

        label = _Words(40, b"[", label_ended, frozenset(b"<\n"), least=1)
        return (done, label)

    def _times(self, then: Then) -> State:
        rules = self.rules
        decimals, shortest = rules.profile.decimals, rules.shortest
        chunk = max(rules.chunk, shortest)

        def end(start: int) -> State:
            number = _Number(
                start + shortest, chunk, decimals, True, lambda _: (_Literal(b"]:", then),)
            )
            return (_Literal(b",", lambda: (_Spaces(1, (number,)),)),)

        return (_Number(0, chunk - shortest, decimals, True, end),)

    def _tail(self) -> State:
        rules = self.rules
        answer: Node = _Literal(ANSWER.encode(), _end)
        if rules.model_answer:
            budget = 2 * rules.budget(rules.chunk)
            answer = _Literal(
                ANSWER.encode(), lambda: (_Spaces(2, self._lines(budget, ANSWER_END, _end)),)
            )
        box = () if rules.last else _box_ways(rules, loose=True)
        return (_Spaces(2, (*box, answer)),)


def caught_loop(state: Iterable[Node]) -> bool:
    """Whether some way of going on is a text that was found repeating itself."""
    return any(isinstance(node, _Words) and node.loops for node in state)
