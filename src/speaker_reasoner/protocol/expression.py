"""The rules of a turn as a regular expression, for servers that constrain their output by one.

Written in the part of the language that xgrammar (0.2) and llguidance (1.9) read alike, and Python's `re` too:
no `.` (one takes it for a line break too), no `\\w \\d \\s` (ASCII in one only), no anchors, no look-around; a
match is of the whole turn.

A regular expression cannot say all rules: that a span ends after it starts, that lines are in order of start,
that a new box is another than the last, how long all words together may be, that words do not repeat
themselves. `checking` finds what breaks these; `turn_regex` then takes the part that was right and says what
may follow it, exactly up to the next time.
"""

import re
from collections.abc import Iterable

from ..errors import ProtocolError
from .checking import in_words, last_line
from .grammar import TurnRules, start
from .markup import ANSWER, ANSWER_END, BOX, BOX_END, THINK, THINK_END
from .matcher import Number, Spaces, State, advance
from .turns import seconds

_WORDS = r"[^<\x00-\x1f\x7f]"
_FIRST = r"[^ <\x00-\x1f\x7f]"
_LABEL = r"[^\[<\x00-\x1f\x7f]"
_SPECIAL = frozenset("\\.[](){}*+?|^$")


def turn_regex(rules: TurnRules, kept: str = "") -> str:
    """A regular expression that every valid turn matches as a whole.

    Args:
        rules: of the turn of a dialogue.
        kept: a beginning that the turn must have, from `checking.kept_part`.

    Raises:
        ProtocolError: the rules are of another task, or no turn begins so.
    """
    if rules.task != "dialogue":
        raise ProtocolError(f"task {rules.task!r}: only turns of a dialogue have an expression")
    state = advance(start(rules), kept.encode())
    if not state:
        raise ProtocolError(f"no turn begins with {kept!r}")
    layout = _Strict(rules) if rules.profile.strict else _Free(rules)
    return _escape(kept) + layout.rest(state, kept)


class _Layout:
    """The parts of an expression that both layouts share."""

    def __init__(self, rules: TurnRules) -> None:
        self.rules = rules

    def rest(self, state: State, kept: str) -> str:
        """Return the expression of texts that may follow a kept beginning."""
        thought, tag, rest = kept.partition(THINK_END)
        if tag and ANSWER not in rest:
            if BOX in rest:
                return self._number(state, kept) + _escape("]" + BOX_END)
            return self._tail(state)
        if not tag and THINK not in thought:
            return self._whole(state)
        answer = bool(tag)
        close = ANSWER_END if answer else THINK_END
        row = last_line(re.split(r"<think>|<answer>", kept)[-1])
        speakers = self._speakers(kept, answer)
        if not row:
            return self._lead(kept) + self._to_close(state, speakers, close)
        if in_words(self.rules, row):
            after = advance(state, b"\n")
            return self._end_words(after, speakers, close)
        number = _number_in(state)
        after = advance(state, seconds(number.low, self.rules.profile).encode() + b"]:\n")
        ends = self._number(state, kept) + _escape("]:") + self._words()
        return ends + self._to_close(after, speakers, close)

    def _number(self, state: State, kept: str) -> str:
        """The second time of a span, exactly."""
        number = _number_in(state)
        space = _space(1) if kept.endswith(",") else ""
        return space + _range(number.low, number.high, number.decimals, number.loose)

    def _span(self, state: State) -> str:
        """The expression of both times of a span; the second may be as early as after the earliest first."""
        first = _number_in(state)
        least = (first.low, min(first.low + 1, first.high))  # the last box's start is a case apart
        ways = [_number_in(advance(first.then(ticks), b", ")) for ticks in least]
        second = min(ways, key=lambda number: number.low)
        space = " " if self.rules.profile.strict else _space(1)
        return (
            _range(first.low, first.high, first.decimals, first.loose)
            + ","
            + space
            + _range(second.low, second.high, second.decimals, second.loose)
        )

    def _ends(self, state: State) -> list[str]:
        """The next box and the opened answer, as far as the rules allow them."""
        ways = []
        if box := advance(state, f"{BOX}[".encode()):
            ways.append(_escape(f"{BOX}[") + self._span(box) + _escape("]" + BOX_END))
        if answer := advance(state, ANSWER.encode()):
            answer_part = ""
            if self.rules.model_answer:
                answer_part = self._answer(answer)
            ways.append(ANSWER + answer_part)
        return ways

    def _whole(self, state: State) -> str:
        raise NotImplementedError

    def _tail(self, state: State) -> str:
        raise NotImplementedError

    def _answer(self, state: State) -> str:
        raise NotImplementedError

    def _lead(self, kept: str) -> str:
        """Space that may come before a line."""
        return ""

    def _speakers(self, kept: str, answer: bool) -> int:
        raise NotImplementedError

    def _words(self) -> str:
        raise NotImplementedError

    def _end_words(self, after: State, speakers: int, close: str) -> str:
        raise NotImplementedError

    def _to_close(self, state: State, speakers: int, close: str) -> str:
        raise NotImplementedError

    def _after_close(self, state: State, close: str) -> str:
        """Return the expression of texts that may follow the closing tag of lines; empty after an answer."""
        return "" if close == ANSWER_END else self._tail(advance(state, close.encode()))


class _Strict(_Layout):
    """The layout that `render_turn` writes."""

    def _whole(self, state: State) -> str:
        opened = f"{THINK}\n"
        inside = advance(state, opened.encode())
        if self.rules.turn == 0:
            return _escape(opened) + _any(self._overviews(inside))
        return _escape(opened) + self._to_close(inside, self.rules.speakers, THINK_END)

    def _overviews(self, state: State) -> Iterable[str]:
        rules = self.rules
        words = rules.profile.wording
        close = f"\n{THINK_END}"
        for count in range(rules.profile.max_speakers + 1):
            head = words.overview_one if count == 1 else words.overview.format(n=count)
            labels = [
                [
                    words.label(n, gender)
                    for gender in words.genders
                    if n > len(rules.cached) or gender == rules.cached[n - 1]
                ]
                for n in range(1, count + 1)
            ]
            lead = words.colon if count else ""
            said = head + lead + words.separator.join(ways[0] for ways in labels) + close
            if not (after := advance(state, said.encode())):
                continue
            roll = _escape(words.separator).join(_any(map(_escape, ways)) for ways in labels)
            yield _escape(head + lead) + roll + _escape(close) + self._tail(after)

    def _tail(self, state: State) -> str:
        return _any(self._ends(state))

    def _answer(self, state: State) -> str:
        inside = advance(state, b"\n")
        return r"\n" + self._to_close(inside, self.rules.profile.max_speakers, ANSWER_END)

    def _speakers(self, kept: str, answer: bool) -> int:
        if answer:
            return self.rules.profile.max_speakers
        before, after = self.rules.profile.wording.speaker.split("{n}")
        after = after.split("{gender}")[0]
        label = re.compile(
            "(?:^|\n)" + re.escape(before) + "([0-9]+)" + re.escape(after), re.MULTILINE
        )
        return max([self.rules.speakers, *map(int, label.findall(kept))])

    def _to_close(self, state: State, speakers: int, close: str) -> str:
        """Lines, new speakers in their order, then the closing tag."""
        most, rest = self.rules.profile.max_speakers, ""
        label = self.rules.profile.wording.label(1, "unknown")
        if inside := advance(state, f"{label} [".encode()):
            span = self._span(inside)
            for known in range(most, min(speakers, most) - 1, -1):
                if known < most:
                    rest = f"({self._line([known + 1], span)}{rest})?"
                if known:
                    rest = f"({self._line(range(1, known + 1), span)})*{rest}"
        return rest + _escape(close) + self._after_close(state, close)

    def _line(self, numbers: Iterable[int], span: str) -> str:
        before, after = self.rules.profile.wording.speaker.split("{n}")
        between, after = after.split("{gender}")
        genders = _any(map(_escape, self.rules.profile.wording.genders.values()))
        return (
            _escape(before)
            + _any(map(str, numbers))
            + _escape(between)
            + genders
            + _escape(after + " [")
            + span
            + _escape("]:")
            + self._words()
        )

    def _words(self) -> str:
        return rf"( {_FIRST}{_WORDS}*)?\n"

    def _end_words(self, after: State, speakers: int, close: str) -> str:
        return r"\n" + self._to_close(after, speakers, close)


class _Free(_Layout):
    """Our tags and times, any wording and spacing around them."""

    def _whole(self, state: State) -> str:
        inside = advance(state, THINK.encode())
        lead = _space(2) + THINK
        if self.rules.turn:
            return lead + _space(2) + self._to_close(inside, 0, THINK_END)
        text = r"[^<\x00-\x09\x0b-\x1f\x7f]*"
        return lead + text + THINK_END + self._tail(advance(inside, THINK_END.encode()))

    def _tail(self, state: State) -> str:
        return _space(2) + _any(self._ends(state))

    def _answer(self, state: State) -> str:
        return _space(2) + self._to_close(state, 0, ANSWER_END)

    def _lead(self, kept: str) -> str:
        return _space(1 if kept.endswith("\n") else 2)

    def _speakers(self, kept: str, answer: bool) -> int:
        return 0

    def _to_close(self, state: State, speakers: int, close: str) -> str:
        rest = _escape(close) + self._after_close(state, close)
        inside = advance(state, b"A[")
        if not inside:
            return rest
        line = rf"{_LABEL}{{1,40}}\[{self._span(inside)}\]:{_WORDS}*"
        return rf"({line}\n{_space(1)})*({line})?{rest}"

    def _words(self) -> str:
        return rf"{_WORDS}*(\n{_space(1)})?"

    def _end_words(self, after: State, speakers: int, close: str) -> str:
        closed = _escape(close) + self._after_close(after, close)
        return _any([closed, rf"\n{_space(1)}{self._to_close(after, speakers, close)}"])


def _number_in(state: State) -> Number:
    """The number that comes next."""
    for node in state:
        if isinstance(node, Number):
            return node
        if isinstance(node, Spaces):
            return _number_in(node.inner)
    raise ProtocolError("no time can come here")


def _escape(text: str) -> str:
    """A text as itself; a line break as `\\n`."""
    escaped = "".join("\\" + c if c in _SPECIAL else c for c in text)
    return escaped.replace("\n", r"\n")


def _any(ways: Iterable[str]) -> str:
    """One of several, in parentheses unless it is one."""
    listed = list(ways)
    return listed[0] if len(listed) == 1 else f"({'|'.join(listed)})"


def _space(most: int) -> str:
    return r"[ \n]?" if most == 1 else rf"[ \n]{{0,{most}}}"


def _range(low: int, high: int, decimals: int, loose: bool) -> str:
    """A time from `low` to `high` in ticks; where `loose`, fewer decimals will do."""
    ways = []
    for left in range(decimals, -1 if loose else decimals - 1, -1):
        unit = 10 ** (decimals - left)
        first, last = -(-low // unit), high // unit
        for length in range(left + 1, len(str(last)) + 1 if last >= 10**left else left + 2):
            least = 0 if length == left + 1 else 10 ** (length - 1)
            a, b = max(first, least), min(last, 10**length - 1)
            if a <= b:
                ways.append(_fixed(f"{a:0{length}d}", f"{b:0{length}d}", left))
    if not ways:
        raise ProtocolError(f"no time lies between {low} and {high} ticks")
    return _any(ways)


def _fixed(low: str, high: str, decimals: int, dotted: bool = False) -> str:
    """Numbers of so many digits, the point before the last `decimals` of them."""
    if decimals and not dotted and len(low) == decimals:
        return r"\." + _fixed(low, high, decimals, True)
    if not low:
        return ""
    zeros, nines = "0" * (len(low) - 1), "9" * (len(low) - 1)
    if low[0] == high[0]:
        return low[0] + _fixed(low[1:], high[1:], decimals, dotted)
    first, last, ways = int(low[0]), int(high[0]), []
    if low[1:] != zeros:
        ways.append(low[0] + _fixed(low[1:], nines, decimals, dotted))
        first += 1
    top = []
    if high[1:] != nines:
        top.append(high[0] + _fixed(zeros, high[1:], decimals, dotted))
        last -= 1
    if first <= last:
        digit = str(first) if first == last else f"[{first}-{last}]"
        ways.append(digit + _fixed(zeros, nines, decimals, dotted))
    return _any(ways + top)
