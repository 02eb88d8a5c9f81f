"""The grammar of a valid turn: a state machine over bytes that constrains decoding.

A state is the set of possible continuations; `advance` moves it over the bytes of a token. It
enforces rules that no regular expression can: a segment ends after it starts and lies in the current box,
boxes never go back and always make progress, new speakers take the next free number, the text of a
turn is bounded by the length of its audio, and a text that repeats itself may only be closed.
Working on bytes, it serves any tokenizer: a tag may be one token or nine, a token may hold the end
of one tag and the start of the next.

Does not look at probabilities: see `Vocabulary.choose`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from .markup import ANSWER, ANSWER_END, BOX, BOX_END, THINK, THINK_END
from .matcher import Literal, Node, Number, Spaces, State, Then, Words, end_here
from .profile import Profile
from .turns import Box

LINE_BYTES = 20
"""Bytes that a line takes of the turn's budget, besides its text."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Inputs of the grammar of one turn. Times are in ticks of the chunk.

    Attributes:
        profile: wording and limits.
        turn: 0 for the overview, then the number of the observation.
        chunk: end of the chunk.
        box: the box of the observation; `None` in turn 0.
        speakers: highest speaker number written so far, or in the speaker cache.
        cached: genders of the speakers of the cache, who stand first in the overview.
        count: least and greatest number of speakers in the overview; `None` for no bounds.
        model_answer: whether the final transcript is generated; otherwise the turn is complete with
            the opening tag.
        last: the turn must end the dialogue.
        task: `dialogue`, or a single-turn task: `base` and `times` (lines), `sot` (texts only),
            `count` (overview only).
    """

    profile: Profile
    turn: int
    chunk: int
    box: Box | None = None
    speakers: int = 0
    cached: tuple[str, ...] = ()
    count: tuple[int, int] | None = None
    model_answer: bool = False
    last: bool = False
    task: str = "dialogue"

    @property
    def shortest(self) -> int:
        """0.1 s in ticks, or the whole chunk where that is shorter."""
        return min(max(1, self.profile.ticks_per_s // 10), max(1, self.chunk))

    def budget(self, ticks: int) -> int:
        """Return the most bytes of text for a duration of audio: four times those of a fast speaker."""
        return 120 + 60 * ticks // self.profile.ticks_per_s


def start(rules: TurnRules) -> State:
    """The state before a turn's first byte."""
    return _Strict(rules).turn() if rules.profile.strict else _Free(rules).turn()


@dataclass
class _Strict:
    """The `native` layout: exactly that of `render_turn`."""

    rules: TurnRules
    words: tuple[bytes, bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        before, rest = self.rules.profile.wording.speaker.split("{n}")
        between, after = rest.split("{gender}")
        self.words = (before.encode(), between.encode(), after.encode())

    def turn(self) -> State:
        rules = self.rules
        if rules.task in ("base", "times"):
            return self._answer(rules.budget(rules.chunk))
        if rules.task == "sot":
            return self._texts(rules.budget(rules.chunk))
        opened = f"{THINK}\n".encode()
        if rules.turn == 0:
            return (Literal(opened, self._overview),)
        box = rules.box or Box(0, rules.chunk)
        budget = rules.budget(box.end - box.start)
        close = f"{THINK_END}".encode()
        return (
            Literal(
                opened,
                lambda: self._lines(box, box.start, rules.speakers, budget, close, self._tail),
            ),
        )

    def _overview(self) -> State:
        """Every allowed count of speakers. A count of 0 ends the dialogue; a new speaker requires a box.

        If all speakers are in the cache, the chunk may be without speech.
        """
        profile = self.rules.profile
        words = profile.wording
        close = f"\n{THINK_END}".encode()
        ways: list[Node] = []
        for count in self._counts():
            head = words.overview_one if count == 1 else words.overview.format(n=count)
            if count == 0:
                ways.append(Literal(head.encode() + close, self._after_nobody))
            else:
                lead = (head + words.colon).encode()
                ways.append(Literal(lead, self._roll(1, count, close)))
        return tuple(ways)

    def _counts(self) -> range:
        known, most = len(self.rules.cached), self.rules.profile.max_speakers
        low, high = self.rules.count or (0, most)
        high = max(known, min(high, most))
        return range(min(max(known, low), high), high + 1)

    def _after_nobody(self) -> State:
        return end_here() if self.rules.task == "count" else self._open_answer()

    def _after_overview(self, count: int) -> State:
        if self.rules.task == "count":
            return end_here()
        return self._tail() if count == len(self.rules.cached) else self._box()

    def _roll(self, number: int, count: int, close: bytes) -> Then:
        """Labels `number..count` of the overview, then its end."""

        def ways() -> State:
            before, between, after = self.words
            lead = before + str(number).encode() + between
            then: Then
            if number == count:
                tail, then = after + close, lambda: self._after_overview(count)
            else:
                separator = self.rules.profile.wording.separator.encode()
                tail, then = after + separator, self._roll(number + 1, count, close)
            genders = self.rules.profile.wording.genders
            cached = self.rules.cached
            fitting = [genders[cached[number - 1]]] if number <= len(cached) else genders.values()
            return tuple(Literal(lead + gender.encode() + tail, then) for gender in fitting)

        return ways

    def _lines(
        self, box: Box, after: int, speakers: int, budget: int, close: bytes, then: Then
    ) -> State:
        """Another line that starts no earlier than `after`, or the end."""
        done = Literal(close, then)
        if budget < LINE_BYTES or box.end - self.rules.shortest < after:
            return (done,)

        def text(speaker: int, start: int) -> State:
            def ended(_: int, left: int) -> State:
                most = max(speakers, speaker)
                return self._lines(box, start, most, left - LINE_BYTES, close, then)

            empty = Literal(b"\n", lambda: ended(0, budget))
            words = Words(budget, b"\n", ended, least=1)
            return (empty, Literal(b" ", lambda: (words,)))

        def times(speaker: int) -> State:
            return self._span(
                after,
                box,
                lambda start, _: (Literal(b":", lambda: text(speaker, start)),),
            )

        return (done, *self._label(min(speakers + 1, self.rules.profile.max_speakers), times))

    def _label(self, highest: int, then: Callable[[int], State]) -> State:
        before, between, after = self.words
        genders = self.rules.profile.wording.genders.values()
        return tuple(
            Literal(
                before + str(n).encode() + between + gender.encode() + after + b" ", _bind(then, n)
            )
            for n in range(1, highest + 1)
            for gender in genders
        )

    def _span(self, earliest: int, box: Box, then: Callable[[int, int], State]) -> State:
        """`[start, end]` inside a box, at least 0.1 s long."""
        shortest, decimals = self.rules.shortest, self.rules.profile.decimals

        def end(start: int) -> State:
            number = Number(
                start + shortest,
                box.end,
                decimals,
                False,
                lambda value: (Literal(b"]", lambda: then(start, value)),),
            )
            return (Literal(b", ", lambda: (number,)),)

        start = Number(earliest, box.end - shortest, decimals, False, end)
        return (Literal(b"[", lambda: (start,)),)

    def _texts(self, budget: int) -> State:
        """Lines of words alone, a new one wherever the speaker changes."""

        def lines(left: int) -> State:
            done = Literal(ANSWER_END.encode(), end_here)
            if left < LINE_BYTES:
                return (done,)
            words = Words(left, b"\n", ended, least=1)
            return (done, Literal(b" ", lambda: (words,)))

        def ended(_: int, left: int) -> State:
            return lines(left - 1)

        return (Literal(f"{ANSWER}\n".encode(), lambda: lines(budget)),)

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
            return (Literal(ANSWER.encode(), end_here),)
        return self._answer(2 * rules.budget(rules.chunk))

    def _answer(self, budget: int) -> State:
        whole = Box(0, max(self.rules.chunk, self.rules.shortest))
        close = ANSWER_END.encode()
        limit = self.rules.profile.max_speakers
        return (
            Literal(
                f"{ANSWER}\n".encode(),
                lambda: self._lines(whole, 0, limit, budget, close, end_here),
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
        number = Number(
            low,
            chunk,
            decimals,
            loose,
            lambda _: (Literal(f"]{BOX_END}".encode(), end_here),),
        )
        if not loose:
            return (Literal(b", ", lambda: (number,)),)
        return (Literal(b",", lambda: (Spaces(1, (number,)),)),)

    first = last.start
    if rules.box is not None and max(first + shortest, last.end + 1) > chunk:
        first += 1
    if first > chunk - shortest or floor > chunk:
        return ()
    start = Number(first, chunk - shortest, decimals, loose, end)
    return (Literal(f"{BOX}[".encode(), lambda: (start,)),)


@dataclass
class _Free:
    """The `released` layout: our tags and times, any wording and spacing around them."""

    rules: TurnRules

    def turn(self) -> State:
        rules = self.rules
        opened = Literal(THINK.encode(), self._overview if rules.turn == 0 else self._observation)
        return (Spaces(2, (opened,)),)

    def _overview(self) -> State:
        def ended(stop: int, left: int) -> State:
            if stop == 0x0A:
                return (Words(left - 1, b"\n<" if left > 1 else b"<", ended),)
            return (Literal(THINK_END[1:].encode(), self._tail),)

        return (Words(1200, b"\n<", ended),)

    def _observation(self) -> State:
        box = self.rules.box or Box(0, self.rules.chunk)
        return (
            Spaces(2, self._lines(self.rules.budget(box.end - box.start), THINK_END, self._tail)),
        )

    def _lines(self, budget: int, close: str, then: Then) -> State:
        """Lines whose times lie anywhere in the chunk, as the released runner has it."""
        done = Literal(close.encode(), then)
        if budget < LINE_BYTES:
            return (done,)

        def text_ended(stop: int, left: int) -> State:
            if stop == 0x0A:
                return (Spaces(1, self._lines(left - LINE_BYTES, close, then)),)
            return (Literal(close[1:].encode(), then),)

        def label_ended(_: int, __: int) -> State:
            text = Words(budget, b"\n<", text_ended)
            return self._times(lambda: (text,))

        label = Words(40, b"[", label_ended, frozenset(b"<\n"), least=1)
        return (done, label)

    def _times(self, then: Then) -> State:
        rules = self.rules
        decimals, shortest = rules.profile.decimals, rules.shortest
        chunk = max(rules.chunk, shortest)

        def end(start: int) -> State:
            number = Number(
                start + shortest, chunk, decimals, True, lambda _: (Literal(b"]:", then),)
            )
            return (Literal(b",", lambda: (Spaces(1, (number,)),)),)

        return (Number(0, chunk - shortest, decimals, True, end),)

    def _tail(self) -> State:
        rules = self.rules
        answer: Node = Literal(ANSWER.encode(), end_here)
        if rules.model_answer:
            budget = 2 * rules.budget(rules.chunk)
            answer = Literal(
                ANSWER.encode(), lambda: (Spaces(2, self._lines(budget, ANSWER_END, end_here)),)
            )
        box = () if rules.last else _box_ways(rules, loose=True)
        return (Spaces(2, (*box, answer)),)
