"""Check a turn that was written without the grammar: its valid part, and its first fault."""

import re
from collections.abc import Sequence

from .grammar import TurnRules, start
from .markup import ANSWER, THINK, THINK_END
from .matcher import advance, caught_loop, complete

_WHOLE_LINE = re.compile(r"[ \n]*[^\[\n<]+\[[0-9.]+,[ \n]?[0-9.]+\]:[^\n<]*\n")
_WORDS_BEGUN = re.compile(r"\[[0-9.]+,[ \n]?[0-9.]+\]:([^<]+)")
_END_NUMBER = re.compile(r"(\[[0-9.]+,)[ \n]?[0-9.]*$")


def valid_part(rules: TurnRules, text: str) -> str:
    """The longest beginning of a text that some valid turn begins with."""
    state, data = start(rules), text.encode("utf-8", errors="replace")
    for at, byte in enumerate(data):
        state = advance(state, bytes((byte,)))
        if not state:
            return data[:at].decode("utf-8", errors="ignore")
    return text


def is_turn(rules: TurnRules, text: str) -> bool:
    """Return whether a text is a whole, valid turn."""
    return complete(advance(start(rules), text.encode("utf-8", errors="replace")))


def fault(rules: TurnRules, text: str) -> str | None:
    """Describe the fault of a turn in a few words; `None` for a valid one."""
    if is_turn(rules, text):
        return None
    good = valid_part(rules, text)
    if good == text:
        return f"it ends too early, after {good[-40:]!r}"
    return f"after {good[-40:]!r} comes {text[len(good) : len(good) + 40]!r}, which is not allowed"


def kept_part(rules: TurnRules, text: str) -> str:
    """The valid beginning of a text, back to a place from which it can be written otherwise.

    That place is before a line, before the end of a span whose start is right, after `</think>`, or, where
    more words were written than may be (they repeat themselves, or are too many), right there.
    """
    good = valid_part(rules, text)
    if number := _END_NUMBER.search(good):
        return good[: number.end(1)] + " " * rules.profile.strict
    thought, tag, rest = good.partition(THINK_END)
    if tag and (ANSWER not in rest or not rules.model_answer):
        return thought + tag
    if not tag and (rules.turn == 0 or THINK not in thought):
        return ""
    head = rest.partition(ANSWER)[0] + ANSWER if tag else thought.partition(THINK)[0] + THINK
    before, lines = (thought + tag + head, rest[len(head) :]) if tag else (head, good[len(head) :])
    row = last_line(lines)
    if in_words(rules, row) and text[len(good) : len(good) + 1] > "<":
        return good.removesuffix(row) + row.partition("<")[0]
    whole = lines[: len(lines) - len(row)]
    return before + whole if whole or not rules.profile.strict else ""


def in_words(rules: TurnRules, line: str) -> bool:
    """Return whether the words of a line have begun."""
    begun = _WORDS_BEGUN.search(line)
    if begun is None:
        return False
    return not rules.profile.strict or begun[1].strip(" ") != ""


def last_line(text: str) -> str:
    """The text after the last whole line; a span may hold a line break, words may hold spans."""
    at = 0
    while line := _WHOLE_LINE.match(text, at):
        at = line.end()
    return text[at:].lstrip(" \n")


def looped(rules: TurnRules, text: str, sizes: Sequence[int] = ()) -> bool:
    """Return whether the words of a line were ended because they repeat themselves.

    Args:
        sizes: bytes of each token, where they are known: words are looked at between tokens.
    """
    state, data, at = start(rules), text.encode("utf-8", errors="replace"), 0
    for size in sizes if sum(sizes) == len(data) else [1] * len(data):
        if caught_loop(state):
            return True
        state = advance(state, data[at : at + size])
        at += size
    return False
