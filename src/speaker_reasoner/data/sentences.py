"""The sentences of simulated speakers: a small English grammar, or a file of one's own, and their
train/evaluation split.

The grammar yields far more sentences than any training run draws. A sentence is held out when the
CRC-32 of its text is divisible by `HELD_OUT_EVERY`: the split needs no list, and no sentence is
on both sides. Backchannels ("okay", "i see") are a closed set and therefore the same on both.
"""

import random
import re
import zlib
from functools import cache
from pathlib import Path

from ..errors import DataError

HELD_OUT_EVERY = 6
_WORDS = re.compile(r"[a-z]+('[a-z]+)*'?( [a-z]+('[a-z]+)*'?)*")
"""A line of a file of sentences: words in small letters, single spaces between them."""

_BACKCHANNELS = (
    "yes|okay|right|sure|i see|no|good|great|really|exactly|of course|all right|that is right|"
    "very good|thank you|i know|not yet|maybe|oh no|no problem"
)
BACKCHANNELS = tuple(_BACKCHANNELS.split("|"))

_RULES = {
    "name": "anna peter maria david laura simon emma jacob nina oscar alice robert helen victor "
    "julia martin sarah thomas linda frank rosa george clara henry",
    "noun": "dog cat bird horse letter book lamp chair table picture ticket camera phone computer "
    "bottle basket jacket hammer ladder piano guitar bicycle engine mirror pencil paper report "
    "contract invoice package key map box cup plate blanket umbrella sandwich carpet printer",
    "plural": "dogs cats birds letters books chairs tickets cameras bottles baskets keys boxes "
    "cups plates reports contracts apples oranges potatoes flowers windows doors pencils "
    "sandwiches",
    "mass": "coffee tea water bread butter cheese sugar music money paint snow rain",
    "adj": "red blue green black white yellow small large old new heavy empty broken cheap "
    "expensive wooden quiet strange beautiful simple long short warm cold clean",
    "place": "garden kitchen river school market office station bridge hospital library museum "
    "airport hotel village factory restaurant theater harbor castle church bank studio forest "
    "beach",
    "past": "found bought sold lost painted carried opened closed moved forgot wanted dropped "
    "fixed cleaned ordered borrowed noticed described needed brought",
    "verb": "find buy sell paint carry open close move fix clean order borrow bring check send "
    "finish read write order use",
    "time": "today|tomorrow|yesterday|on monday|on tuesday|on wednesday|on thursday|on friday|"
    "this morning|this evening|next week|last night|before lunch|after dinner|next summer|"
    "in winter|at noon|this afternoon|every weekend|last month",
    "number": "two three four five six seven eight nine ten eleven twelve twenty thirty forty "
    "fifty",
    "digit": "one two three four five six seven eight nine zero",
    "job": "doctor teacher driver farmer manager student lawyer singer baker painter nurse captain",
    "weather": "sunny rainy windy cloudy foggy stormy freezing humid",
    "mood": "happy hungry angry tired nervous ready late busy careful surprised sorry sick",
    "kin": "brother sister mother father daughter son uncle neighbor friend cousin",
    "np": "the <noun>|the <adj> <noun>|a <adj> <noun>|<number> <plural>|<number> <adj> <plural>|"
    "my <noun>|your <adj> <noun>|some <mass>|the <adj> <plural>",
    "who": "<name>|my <kin>|the <job>|<name> and <name>|your <kin>|the <adj> <job>",
    "where": "in the <place>|near the <place>|behind the <place>|at the <place>|"
    "between the <place> and the <place>",
    "act": "<verb> <np>|<verb> <np> <where>|meet <who> <where>|talk about <np>|wait for <who>|"
    "look for <np>",
}
_RULES["sentence"] = (
    "<who> <past> <np>|<who> <past> <np> <where>|<who> <past> <np> <time>|i will <act> <time>|"
    "we should <act>|please <act>|can you <act>|where is <np>|where did <name> <verb> <np>|"
    "why did you <act>|when will we <act>|who <past> <np> <time>|i think <who> <past> <np>|"
    "i do not want to <act>|we need <np> <time>|we need <np> and <np>|it was <weather> <time>|"
    "it is very <weather> <where>|the number is <digit> <digit> <digit> <digit>|"
    "the meeting is <where> <time>|<who> is <mood>|are you <mood>|my <kin> was <mood> <time>|"
    "is there <np> <where>|there is <np> <where>|there are <number> <plural> <where>|"
    "let us <act> <time>|how much is <np>|how many <plural> did <who> <verb>|"
    "that <noun> is too <adj>|i like <mass> and <mass>|do you have <np>|never <verb> <np>|"
    "maybe <who> can <act>|<name> says the <noun> is <adj>|if it is <weather> we will <act>|"
    "what about <np>|<who> lives <where>|good morning <name>|thank you for <np>|"
    "the <job> gave <np> to <name>|because <who> <past> <np>"
)


@cache
def _options(rule: str) -> tuple[str, ...]:
    text = _RULES[rule]
    return tuple(text.split("|")) if "|" in text or "<" in text else tuple(text.split())


def held_out(sentence: str) -> bool:
    """Return whether a sentence belongs to the evaluation side of the split."""
    return zlib.crc32(sentence.encode()) % HELD_OUT_EVERY == 0


def draw(rng: random.Random, *, evaluation: bool, sentences_from: str = "") -> str:
    """Draw one sentence of the training or of the evaluation side.

    Args:
        sentences_from: a file of sentences (see `read_sentences`); the grammar's by default.

    Raises:
        DataError: the file cannot be used.
    """
    if sentences_from:
        return rng.choice(read_sentences(sentences_from)[evaluation])
    while True:
        sentence = _expand("sentence", rng)
        if held_out(sentence) == evaluation:
            return sentence


@cache
def read_sentences(file: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read a file of one sentence a line, and return its training and its evaluation side.

    Raises:
        DataError: it is missing, a line is no sentence that the synthesisers can speak word by word,
            or a side has none.
    """
    path = Path(file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        raise DataError(
            f"sentences_from: {path}: {reason}; expected a text file, a sentence a line"
        ) from error
    sides: tuple[list[str], list[str]] = ([], [])
    for number, line in enumerate(lines, 1):
        sentence = line.rstrip()
        if not sentence:
            continue
        if not _WORDS.fullmatch(sentence):
            raise DataError(
                f"sentences_from: {path}, line {number}: got {sentence[:60]!r}, expected words of the "
                "letters a to z, apostrophes within them, and single spaces: small letters, numbers "
                "spelled out, no punctuation"
            )
        sides[held_out(sentence)].append(sentence)
    if not all(sides):
        raise DataError(
            f"sentences_from: {path}: {len(sides[0])} sentences are for training, {len(sides[1])} are "
            f"held out (one in {HELD_OUT_EVERY}); expected at least one of each: give more sentences"
        )
    return tuple(sides[0]), tuple(sides[1])


def _expand(rule: str, rng: random.Random) -> str:
    option = rng.choice(_options(rule))
    while "<" in option:
        start, end = option.index("<"), option.index(">")
        option = option[:start] + _expand(option[start + 1 : end], rng) + option[end + 1 :]
    return option


def vocabulary(sentences_from: str = "") -> tuple[str, ...]:
    """Every word the grammar, or the training side of a file, and the backchannels can say, sorted."""
    words: set[str] = set()
    if sentences_from:
        for sentence in read_sentences(sentences_from)[0]:
            words.update(sentence.split())
    for rule in () if sentences_from else _RULES:
        for option in _options(rule):
            words.update(word for word in option.split() if "<" not in word)
    for phrase in BACKCHANNELS:
        words.update(phrase.split())
    return tuple(sorted(words))
