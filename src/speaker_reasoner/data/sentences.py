"""The sentences of simulated speakers: a small English grammar, and its train/evaluation split.

The grammar yields far more sentences than any training run draws. A sentence is held out when the
CRC-32 of its text is divisible by `HELD_OUT_EVERY`: the split needs no list, and no sentence is
on both sides. Backchannels ("okay", "i see") are a closed set and therefore the same on both.
"""

import random
import zlib
from functools import cache

HELD_OUT_EVERY = 6

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


def draw(rng: random.Random, *, evaluation: bool) -> str:
    """Draw one sentence of the training or of the evaluation side."""
    while True:
        sentence = _expand("sentence", rng)
        if held_out(sentence) == evaluation:
            return sentence


def _expand(rule: str, rng: random.Random) -> str:
    option = rng.choice(_options(rule))
    while "<" in option:
        start, end = option.index("<"), option.index(">")
        option = option[:start] + _expand(option[start + 1 : end], rng) + option[end + 1 :]
    return option


def vocabulary() -> tuple[str, ...]:
    """Every word the grammar and the backchannels can say, sorted."""
    words: set[str] = set()
    for rule in _RULES:
        for option in _options(rule):
            words.update(word for word in option.split() if "<" not in word)
    for phrase in BACKCHANNELS:
        words.update(phrase.split())
    return tuple(sorted(words))
