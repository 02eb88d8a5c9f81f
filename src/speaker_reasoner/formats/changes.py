"""Changes of the speaker in captions of broadcasts: `>> Good morning. >> Hello.`

`>>` says that another person speaks, and not who. A name may stand behind it (`>> ANA: hello`); words without it go
on with the same person. Japanese captions write it in wide characters. Other captions name people where the speaker
changes alone (`go_on`).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from .cues import SOUND, Cue

MARK = ">>"
"""Beginning of a line at which another person speaks; as a speaker, that person, who has no name."""

_FEWEST = 4  # of named speakers, to tell that names come at changes alone: assumed
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


def go_on(said: Sequence[list[tuple[str, str, str]]]) -> int:
    """Give words without a name to whoever spoke before, where names come at changes of the speaker alone.

    That is so if the first words have a name, and no name comes again right after itself. What stands in brackets
    as a whole is a sound, and nobody's.

    Args:
        said: parts of cues as `names.name_speakers` returns them; changed in place.

    Returns:
        How many parts were given.
    """
    names = [part[0] for parts in said for part in parts if part[0]]
    if len(names) < _FEWEST or MARK in names or not said[0][0][0]:
        return 0
    if any(name == after for name, after in pairwise(names)):
        return 0
    given, before = 0, said[0][0][:2]
    for parts in said:
        for number, (speaker, gender, words) in enumerate(parts):
            if speaker:
                before = speaker, gender
            elif words and not SOUND.fullmatch(words.strip()):
                parts[number] = (*before, words)
                given += 1
    return given
