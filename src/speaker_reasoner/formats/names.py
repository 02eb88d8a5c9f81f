"""Speakers of captions and texts that have no marks of speakers: names before a colon.

What stands before a colon is a speaker only where it is a name: by itself (`Dana Moe`, `SPEAKER_00`,
`Ana (female)`) and by the other cues (`name_speakers`).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from . import changes
from .captions import parse_caption
from .ctm import UNSPACED
from .cues import Cue
from .name_words import (
    FIRST_PARTICLES,
    NEVER_FIRST,
    OF_A_LIST,
    OPENERS,
    PARTICLES,
    ROLES,
    SOUND_WORDS,
    TOGETHER,
)

_UNSEEN = "\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"  # marks of direction, and what joins or divides words
_SPOKEN = re.compile(
    r"\s*(?:>>+\s*)?([^:：]*[^:：\s])\s*[:：]"
    rf"(?:[{_UNSEEN}]*\s+(.*)|(?:(?<=：)|(?=[{UNSPACED}\uac00-\ud7a3]))(.*))?",
    re.DOTALL,
)
_AROUND = re.compile(rf"^[\s{_UNSEEN}]+|[\s{_UNSEEN}]+$")
_UNSPACED_COLON = re.compile(r"\s*([^\s:：][^:：]*):([^\W\d_].*)", re.DOTALL)
_EXPLICIT = re.compile(r".*\S \((?:female|male|unknown)\)", re.DOTALL)
_IDENTIFIER = re.compile(
    r"(?:speaker|spk|spkr|voice|person|channel|说话人|讲者|发言人)[ _-]?\w{1,4}", re.I
)
_NUMBERED = re.compile(
    r"\s*\[((?:speaker|spk|spkr)[ _-]?\w{1,4})\]\s*(.*)", re.IGNORECASE | re.DOTALL
)
_LONGEST_LABEL = 60  # characters of a name or label: assumed
_LONGEST_NAME = 5  # words: assumed
_DASHED = re.compile(r"[-–—]\s*(.+)", re.DOTALL)  # subtitles put a dash before each of two people
_BRACKETED = re.compile(
    r"\s*(?:(?:\[([^\[\]:：]+)\]|\(([^():：]+)\))\s+|【([^【】:：]+)】\s*|（([^（）:：]+)）\s*)(\S.*)",
    re.DOTALL,
)
_NOBODY = re.compile(r"\s*\(speaker \?\)\s*(?=\S)")
_ENCLOSED = re.compile(r"\[([^\[\]]+)\]|\(([^()]+)\)")
_ASIDE = re.compile(r"\s+\([^()]+\)$")  # Ana (she/her), Bob (Guest)


@lru_cache(maxsize=4096)  # a file has few names, each many times
def is_name(text: str) -> bool:
    """Return whether a text, as it stands before a colon, can only be meant for a person.

    That is an identifier (`SPEAKER_00`, `speaker 1`), or up to five words that begin with a capital,
    a digit or a letter of a script without cases, small particles between them (`Ana de la Cruz`); no
    clause, and none of the words that open one (`Note`, `So`).
    """
    if _IDENTIFIER.fullmatch(text):
        return True
    text = _ASIDE.sub("", text)
    words = text.split()
    if OF_A_LIST.fullmatch(text):
        return False
    if not words or len(words) > _LONGEST_NAME or len(text) > _LONGEST_LABEL:
        return False
    if text.capitalize() in OPENERS:
        return False
    if any(mark in text for mark in ',;!?"<>{}|。，！？；…、') or _begins_a_sentence(words[0]):
        return False
    if _DASHED.match(text) or (words[0].lower() in NEVER_FIRST and len(words) > 1):
        return False
    if all(_caseless(word) for word in words):  # 张三, not a sentence
        return len("".join(words)) <= (5 if len(words) == 1 else 16)
    return all(_name_word(word, last=word is words[-1]) for word in words)


def _begins_a_sentence(word: str) -> bool:
    return word.lower() in PARTICLES and word not in FIRST_PARTICLES


def _caseless(word: str) -> bool:
    """Return whether a word is of letters without cases; vowels of Indic scripts are marks on letters."""
    return word.lower() == word.upper() and all(
        unicodedata.category(character)[0] in "LM" or character == "\u200d" for character in word
    )


def _name_word(word: str, last: bool) -> bool:
    bare = word.strip("().'’-#")  # MAN #2
    if word in PARTICLES:
        return not last
    if not bare or not re.fullmatch(r"[\w.'’()@/#+-]+", word):
        return False
    if word.endswith(".") and len(bare) > 4:  # J., Dr., Prof. - not the end of a sentence
        return False
    return bare[0].isupper() or bare[0].isdigit() or _caseless(bare[0]) or "_" in bare


def split_name(line: str) -> tuple[str, str] | None:
    """Split `name: words` at the first colon, or `[Speaker 1] words`; `None` without either."""
    spoken = _SPOKEN.fullmatch(line) if ":" in line or "：" in line else None
    if spoken is None:
        numbered = _NUMBERED.fullmatch(line) if "[" in line else None
        return None if numbered is None else (numbered[1], numbered[2])
    return _undashed(spoken[1].strip()), spoken[2] or spoken[3] or ""


@lru_cache(maxsize=4096)
def _undashed(name: str) -> str:
    """A name without a dash before it, and without what shows nothing around it."""
    if _is_explicit(name):
        return name
    name = _AROUND.sub("", name)
    dashed = _DASHED.fullmatch(name)
    return dashed[1] if dashed is not None and is_name(dashed[1]) else name


@lru_cache(maxsize=4096)
def _is_explicit(name: str) -> bool:
    return _EXPLICIT.fullmatch(name) is not None


def _unbracketed(cues: Sequence[Cue]) -> Sequence[Cue]:
    """Rewrite `[Ana] words` as `Ana: words` if all cues of a file begin so, and none with a sound (`[Music] la`).

    `(speaker ?) words`, as whisper.cpp writes where it cannot tell, become words without a name.
    """
    rewritten = []
    for cue in cues if len(cues) > 1 else ():
        if cue.lines and (nobody := _NOBODY.match(cue.lines[0])):
            rewritten.append(replace(cue, lines=[cue.lines[0][nobody.end() :], *cue.lines[1:]]))
            continue
        match = _BRACKETED.match(cue.lines[0]) if cue.lines else None
        name = next(filter(None, match.groups())).strip() if match else ""
        if match is None or not is_name(name) or SOUND_WORDS.fullmatch(name):
            return cues
        rewritten.append(replace(cue, lines=[f"{name}: {match[5]}", *cue.lines[1:]]))
    return rewritten or cues


def _spaced(cues: Sequence[Cue]) -> Sequence[Cue]:
    """Rewrite `Ana:words` as `Ana: words` if all cues of a file begin so, and names recur."""
    rewritten, names = [], set()
    for cue in cues if len(cues) > 1 else ():
        match = _UNSPACED_COLON.match(cue.lines[0]) if cue.lines else None
        if match is None or not is_name(match[1].strip()):
            return cues
        names.add(match[1])
        rewritten.append(replace(cue, lines=[f"{match[1]}: {match[2]}", *cue.lines[1:]]))
    return rewritten if len(names) < len(rewritten) else cues


def _unheaded(cues: Sequence[Cue]) -> Sequence[Cue]:
    """Rewrite a line `Ana` above the words as `Ana: words` if all cues of a file begin so (Teams)."""
    if any(len(cue.lines) < 2 for cue in cues):
        return cues
    names = [cue.lines[0].lstrip("-– ").strip() for cue in cues]
    recur = len(cues) > 2 and 2 * len(set(names)) <= len(names) + 1
    if not all(map(is_name, names)) or not (recur or all(map(is_numbered, names))):
        return cues
    return [
        replace(cue, lines=[f"{name}: {cue.lines[1]}", *cue.lines[2:]])
        for cue, name in zip(cues, names, strict=True)
    ]


_Splits = Sequence[Sequence[tuple[str, str] | None]]
"""For each cue and each of its lines the texts before and behind a colon (`split_name`)."""


def name_speakers(cues: Sequence[Cue]) -> list[list[tuple[str, str, str]]]:
    """Find the speakers of the cues of a file that has no other mark of speakers.

    The text before a colon is a speaker if it `is_name`, or is one lower-case word, and

    - every cue has such a name, or a label as people choose for themselves in meetings (`Moe, Ana`),
      of which some recur or there are three at least; or
    - a name recurs, and half of the cues at least have one (then names that come once count, too); or
    - that name recurs, stands alone on its line or behind `>>`, or is a numbered speaker; or
    - it is in capitals, as subtitles for the deaf write it, and says what one is (`MAN`, `OLD WOMAN 2`), or
      stands beside another one in capitals that recurs or does. One that comes once and has no such company may
      be a place or a heading (`LONDON: rain`), unless every cue has a name.

    A name in brackets (`[Ana] yes`), or alone on the first line, is one where every cue begins so. A name with a gender
    (`Ana (female): yes`), as this package writes it, is one anywhere.

    Behind `>>` another person speaks (`changes`). Where all names stand behind one and there are several, whoever
    spoke before goes on where there is none.

    Returns:
        Of each cue its parts: speaker (empty for none, `changes.MARK` for somebody else without a name),
        gender, and words. A cue whose lines begin with names or with `>>` has several.
    """
    cues, changed = changes.divided(_unheaded(_unbracketed(_spaced(cues))))
    splits = _without_remarks([[split_name(line) for line in cue.lines] for cue in cues])
    accepted = _of_a_meeting(splits) or _names_among(cues, splits)
    said = [_parts(cue.lines, split, accepted) for cue, split in zip(cues, splits, strict=True)]
    if changed > 1 and accepted:
        _go_on(cues, splits, accepted, said)
    return said


def _go_on(
    cues: Sequence[Cue], splits: _Splits, accepted: set[str], said: list[list[tuple[str, str, str]]]
) -> None:
    """Give words without a mark to whoever spoke before, if names stand behind `>>` alone."""
    for cue, of_cue in zip(cues, splits, strict=True):
        for line, split in zip(cue.lines, of_cue, strict=True):
            if split and split[0] in accepted and not changes.is_change(line):
                return
    before = "", "unknown"
    for parts in said:
        for number, (speaker, gender, words) in enumerate(parts):
            if speaker:
                before = ("", "unknown") if speaker == changes.MARK else (speaker, gender)
            else:
                parts[number] = (*before, words)


def _without_remarks(splits: _Splits) -> _Splits:
    """Names without a remark behind them: those in capitals, and those that come without one, too."""
    names = {split[0] for of_cue in splits for split in of_cue if split}
    bare = {
        name: base
        for name in names
        if name[-1:] in ")]" and (base := remarked(name)) and (in_capitals(base) or base in names)
    }
    if not bare:
        return splits
    return [
        [split and (bare.get(split[0], split[0]), split[1]) for split in of_cue]
        for of_cue in splits
    ]


def _names_among(cues: Sequence[Cue], splits: _Splits) -> set[str]:
    """Return which of the texts before colons are names of speakers, judged over all cues."""
    before = Counter(split[0] for of_cue in splits for split in of_cue if split)
    counts = {name: count for name, count in before.items() if _possible(name)}
    if not counts:
        return set()
    named = sum(bool(one) and one[0] is not None and one[0][0] in counts for one in splits)
    plainly = {
        split[0]
        for cue, of_cue in zip(cues, splits, strict=True)
        for line, split in zip(cue.lines, of_cue, strict=True)
        if split and (not split[1] or line.lstrip().startswith(">>"))
    }
    plain = {
        name
        for name, count in counts.items()
        if count > 1 or name in plainly or is_numbered(name) or _is_role(name)
    }
    alone = set[str]() if any(map(in_capitals, plain)) else set(filter(in_capitals, counts)) - plain
    recurring = plain | (set(filter(in_capitals, counts)) - alone)
    if recurring and 2 * named >= len(cues):
        return set(counts) - (alone if named < len(cues) else set())
    either = counts if named == len(cues) else recurring
    return {name for name in either if _is_explicit(name) or is_name(_bare(name))}


def _is_label(text: str) -> bool:
    """Return whether people may call themselves so in a meeting: `Moe, Ana`, `+1 555 0100`, `a@x.org`.

    Half of its words at least begin with a capital, a digit or a sign; more than half where all are
    words of letters alone, as in a clause (`He said`).
    """
    if _possible(text):
        return True
    words = text.split()
    if not words or len(text) > _LONGEST_LABEL or text[-1] in ".!?,;":
        return False
    if text.capitalize() in OPENERS or OF_A_LIST.fullmatch(text):
        return False
    named = sum((not word[0].islower() and not _caseless(word[0])) or "@" in word for word in words)
    letters = all(re.sub("['’]", "", word).isalpha() for word in words)
    most = 2 * named > len(words) if letters else 2 * named >= len(words)
    return most and words[0].lower() not in NEVER_FIRST


def _of_a_meeting(splits: _Splits) -> set[str]:
    """The labels of a file in which every cue begins with one, and some recur or there are three at least."""
    labels: set[str] = set()
    for of_cue in splits:
        if not of_cue or of_cue[0] is None:
            return set()
        labels.add(of_cue[0][0])
    recurs = len(labels) < len(splits) or len(splits) > 2
    if not recurs or not all(map(_is_label, labels)):
        return set()
    if all(map(_possible, labels)):
        return set()  # plain names, which other lines of a cue may have, too
    return labels


@lru_cache(maxsize=4096)
def _possible(name: str) -> bool:
    """Return whether the text before a colon may be a name."""
    if _is_explicit(name):
        return True
    bare = _bare(name)
    one = bare.split() == [bare] and bare.isalpha() and bare.islower() and len(bare) <= 20
    return is_name(bare) or (one and bare.capitalize() not in OPENERS)


def names_inside(text: str, people: set[str]) -> int:
    """Return how often a text has one of the names, and a colon behind it, after other words."""
    if ":" not in text or not people:
        return 0
    count = 0
    for match in re.finditer(r"(?<=\S):(?=\s)", text):
        words = text[: match.start()].split()
        ways = (" ".join(words[-n:]) for n in range(1, min(_LONGEST_NAME, len(words) - 1) + 1))
        count += any(way in people for way in ways)
    return count


def is_numbered(name: str) -> bool:
    """Return whether a name is a number for an unnamed speaker: `SPEAKER_00`, `speaker 1`."""
    return _IDENTIFIER.fullmatch(_bare(name)) is not None


def in_capitals(name: str) -> bool:
    return len(name) > 2 and name.isupper() and any(map(str.isalpha, name))


def _is_role(name: str) -> bool:
    """Return whether a name in capitals is a description of a person."""
    words = re.findall(r"\w+", name)
    return in_capitals(name) and (
        any(word.lower() in ROLES for word in words) or set(words) <= TOGETHER
    )


def label_of(label: str) -> tuple[str, bool]:
    """The form of a label that SubRip can hold, and whether it is plainly a name there."""
    fitted = re.sub("[:：]", "_", label.strip())
    return fitted, is_name(fitted) and _bare(fitted) == fitted and not remarked(fitted)


_REMARK = re.compile(
    r"(.*\S)\s*[(\[](?:[a-z][^()\[\]]*|[OV]\.?\s?[SOC]\.?|CONT['’]?D\.?|ON [^()\[\]]*|OVER [^()\[\]]*)[)\]]",
    re.DOTALL,
)
"""Remarks behind a name on how somebody speaks: `ANA (whispering)`, `BOB (V.O.)`, `Ann [laughing]`."""


@lru_cache(maxsize=4096)
def remarked(name: str) -> str:
    """Return a name without a remark behind it on how somebody speaks; empty where there is none."""
    match = None if _is_explicit(name) else _REMARK.fullmatch(name)
    return match[1] if match is not None else ""


@lru_cache(maxsize=4096)
def _bare(name: str) -> str:
    """A name without brackets around all of it: `[SPEAKER_00]`."""
    enclosed = _ENCLOSED.fullmatch(name)
    return (enclosed[1] or enclosed[2]).strip() if enclosed else name


def _parts(
    lines: Sequence[str], splits: Sequence[tuple[str, str] | None], accepted: set[str]
) -> list[tuple[str, str, str]]:
    parts: list[tuple[str, str, list[str]]] = []
    for line, split in zip(lines, splits, strict=True):
        if split is not None and (split[0] in accepted or (not parts and _is_explicit(split[0]))):
            if len(lines) == 1:
                return [(*_label(split[0]), split[1])]
            parts.append((*_label(split[0]), [split[1]]))
        elif changes.is_change(line):
            parts.append((changes.MARK, "unknown", [changes.behind(line)]))
        elif parts:
            parts[-1][2].append(line)
        else:
            parts.append(("", "unknown", [line]))
    return [
        (speaker, gender, " ".join(filter(None, words)) if len(words) > 1 else words[0])
        for speaker, gender, words in parts
    ] or [("", "unknown", "")]


@lru_cache(maxsize=4096)
def _label(name: str) -> tuple[str, str]:
    """The speaker and the gender of a name before a colon."""
    return parse_caption(name) if _is_explicit(name) else (_bare(name), "unknown")
