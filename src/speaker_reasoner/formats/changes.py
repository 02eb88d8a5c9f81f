"""Changes of the speaker in captions of broadcasts: `>> Good morning. >> Hello.`

`>>` says that another person speaks, and not who. A name may stand behind it (`>> ANA: hello`); words without it go
on with the same person. Japanese captions write it in wide characters.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from .cues import Cue

MARK = ">>"
"""Beginning of a line at which another person speaks; as a speaker, that person, who has no name."""

_MARK = re.compile(r"(?:(?<=\s)|^)(?:>>+|≫|＞＞+)\s*(?=[^\s>＞])")


def divided(cues: Sequence[Cue]) -> tuple[Sequence[Cue], int]:
    """Return cues with a line break before each change, which is written `>> `, and the number of changes.

    `>>` inside of a line is a change only if some line of the file begins with it.
    """
    if not any(_MARK.match(line) for cue in cues for line in cue.lines if line[:1] in ">≫＞"):
        return cues, 0
    made, changes = [], 0
    for cue in cues:
        lines = []
        for line in cue.lines:
            before, *behind = _MARK.split(line)
            lines += [before.strip()] if before.strip() else []
            lines += [f"{MARK} {words.strip()}" for words in behind]
            changes += len(behind)
        made.append(replace(cue, lines=lines))
    return made, changes


def is_change(line: str) -> bool:
    """Return whether a line of `divided` begins with a change."""
    return line.startswith(f"{MARK} ")


def behind(line: str) -> str:
    """Return a line of `divided` without the mark of a change."""
    return line.removeprefix(f"{MARK} ")


def marks(text: str) -> int:
    """Return how many changes of the speaker a text marks."""
    return len(_MARK.findall(text))
