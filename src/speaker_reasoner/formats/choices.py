"""Words that a reference accepts instead of others, as NIST's STM and CTM write them.

`{ going to / gonna }` is the one or the other, `{ uh / @ }` with or without it; `(uh)` is an optional
word, which counts as said where it is not (sclite -D). Alternatives may hold alternatives, and the braces
and strokes need no white space around them: `{uh/@}`, as sclite reads it.
"""

import re
from collections import deque
from collections.abc import Sequence
from itertools import product

Choices = tuple[tuple[str | None, ...], ...]
"""For each part of a text in order the words that may be said there, those of the text first."""

_OPTIONAL = re.compile(r"\(+([^()\s]+)\)+")
_MARKS = re.compile(r"([{}/])")
_DEEPEST = 8
_MOST = 256  # alternatives of one part, nested ones multiplied out


def parse_choices(text: str) -> Choices | None:
    """Read the choices of a text; `None` where it has none, or braces that are no alternatives."""
    tokens = _tokens(text)
    if "{" not in tokens and not any(map(_OPTIONAL.fullmatch, tokens)):
        return None
    try:
        parts = _parts(deque(tokens), 0)
    except ValueError:
        return None
    return tuple(parts) if any(len(part) > 1 for part in parts) else None


def holds_braces(text: str) -> bool:
    """Return whether a text looks as if it had alternatives."""
    return any(token[0] == "{" for token in text.split())


def _tokens(text: str) -> list[str]:
    """Words, braces that begin a word, and inside of those, braces and strokes anywhere."""
    tokens: list[str] = []
    depth = 0
    for word in text.split():
        rest = word
        while rest:
            if not depth and not rest.startswith("{"):
                tokens.append(rest)
                break
            before, mark, rest = (*_MARKS.split(rest, maxsplit=1), "", "")[:3]
            tokens += [token for token in (before, mark) if token]
            depth += {"{": 1, "}": -1}.get(mark, 0)
    return tokens


def _parts(tokens: deque[str], depth: int) -> list[tuple[str | None, ...]]:
    """Take parts off the tokens, up to the `/` or `}` that ends the alternative they are of.

    Raises:
        ValueError: these are no alternatives.
    """
    parts: list[tuple[str | None, ...]] = []
    plain: list[str] = []

    def flush() -> None:
        if plain:
            parts.append((" ".join(plain),))
            plain.clear()

    if depth > _DEEPEST:
        raise ValueError("alternatives in too many alternatives")
    while tokens and tokens[0] not in ("/", "}"):
        token = tokens.popleft()
        if token == "{":
            flush()
            parts.append(_alternatives(tokens, depth + 1))
        elif optional := _OPTIONAL.fullmatch(token):
            flush()
            parts.append((optional[1], None))
        elif token != "@":
            plain.append(token)
    flush()
    if tokens and not depth:
        raise ValueError("an end without a beginning")
    return parts


def _alternatives(tokens: deque[str], depth: int) -> tuple[str | None, ...]:
    alternatives: list[str | None] = []
    end = "/"
    while end == "/":
        alternatives += _combined(_parts(tokens, depth))
        if not tokens or len(alternatives) > _MOST:
            raise ValueError("an alternative without an end")
        end = tokens.popleft()
    if len(alternatives) < 2:
        raise ValueError("braces around one alternative")
    return tuple(dict.fromkeys(alternatives))


def _combined(parts: Sequence[tuple[str | None, ...]]) -> list[str]:
    size = 1
    for part in parts:
        size *= len(part)
    if size > _MOST:
        raise ValueError("too many alternatives")
    return [" ".join(filter(None, choice)) for choice in product(*parts)]


def first_choices(choices: Choices) -> str:
    """The text that choices are of."""
    return " ".join(part[0] for part in choices if part[0])


def render_choices(choices: Choices) -> str:
    """Write choices as STM has them."""
    words = []
    for first, *others in choices:
        if not others:
            words.append(first or "")
        elif others == [None]:
            words.append(f"({first})")
        else:
            words.append("{ " + " / ".join(one or "@" for one in (first, *others)) + " }")
    return " ".join(filter(None, words))
