"""Turns as regular expressions: what they accept and the grammar accepts, in both libraries that servers use."""

import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from re._parser import parse  # type: ignore[import-not-found]
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speaker_reasoner.errors import ProtocolError
from speaker_reasoner.protocol import Box, Profile
from speaker_reasoner.protocol.checking import fault, is_turn, kept_part, looped, valid_part
from speaker_reasoner.protocol.expression import _range, turn_regex
from speaker_reasoner.protocol.grammar import LINE_BYTES, TurnRules, start
from speaker_reasoner.protocol.matcher import MAX_REPEATS, State, advance, complete, next_bytes

NATIVE = Profile(decimals=1, chunk_s=20.0, max_speakers=3)
RELEASED = Profile(name="released", decimals=2, chunk_s=20.0)

RULES = {
    "overview": TurnRules(NATIVE, turn=0, chunk=200),
    "overview of two": TurnRules(NATIVE, turn=0, chunk=200, count=(2, 2)),
    "overview after a cache": TurnRules(NATIVE, turn=0, chunk=95, cached=("male", "female")),
    "observation": TurnRules(NATIVE, turn=1, chunk=200, box=Box(13, 47), speakers=1),
    "last observation": TurnRules(NATIVE, turn=1, chunk=61, box=Box(5, 61), last=True),
    "written answer": TurnRules(NATIVE, turn=2, chunk=90, box=Box(50, 90), model_answer=True),
    "short chunk": TurnRules(NATIVE, turn=1, chunk=1, box=Box(0, 1)),
    "chinese": TurnRules(replace(NATIVE, language="zh"), turn=1, chunk=200, box=Box(0, 99)),
    "chinese overview": TurnRules(replace(NATIVE, language="zh", decimals=3), turn=0, chunk=20_000),
    "free overview": TurnRules(RELEASED, turn=0, chunk=2000),
    "free observation": TurnRules(RELEASED, turn=1, chunk=2000, box=Box(130, 477)),
    "free answer": TurnRules(RELEASED, turn=1, chunk=900, box=Box(0, 90), model_answer=True),
    "free last": TurnRules(RELEASED, turn=1, chunk=900, box=Box(0, 90), last=True),
}

named = pytest.mark.parametrize("name", RULES)
# Tracing their many steps takes longer than the steps; other tests take them too.
heavy = pytest.mark.no_cover
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def walk(rules: TurnRules, rng: random.Random, kept: str = "") -> str:
    """A random valid turn, byte by byte; words are ended early more often than not."""
    data, letters = kept.encode(), b"abz .0\xc3\xa9\xe4\xbd\xa0"
    state = advance(start(rules), data)
    while not complete(state):

        def fitting(some: bytes, state: State = state) -> list[int]:
            return [byte for byte in some if advance(state, bytes((byte,)))]

        likely = fitting(b"\n<") if rng.random() < 0.3 else []
        likely = likely or fitting(letters)
        if not likely or rng.random() > 0.9:
            likely = next_bytes(state)
        byte = bytes((rng.choice(likely),))
        data, state = data + byte, advance(state, byte)
    return data.decode()


@cache
def walked(name: str, seed: int) -> str:
    """A walk that both libraries read."""
    return walk(RULES[name], random.Random(seed))


@heavy
@named
@quick
@given(seed=st.integers(0, 2**32))
def test_what_the_grammar_accepts_the_expression_accepts(name: str, seed: int) -> None:
    rules = RULES[name]
    turn = walk(rules, random.Random(seed))
    assert is_turn(rules, turn) and fault(rules, turn) is None
    assert re.fullmatch(turn_regex(rules), turn), turn


def sample(expression: str, rng: random.Random) -> str:
    """A random text that an expression matches."""
    alphabet = [*"abz09 .,:[]-\n<>", "\xe9", "中", "\u2028", "😀"]

    def spell(items: Any) -> str:
        return "".join(one(*item) for item in items)

    def one(kind: Any, value: Any) -> str:
        match str(kind):
            case "LITERAL":
                return chr(value)
            case "IN":
                ways = re.compile(f"[{''.join(map(member, value))}]")
                digits = [chr(c) for c in range(48, 58)]
                return rng.choice([c for c in [*alphabet, *digits] if ways.fullmatch(c)])
            case "SUBPATTERN":
                return spell(value[-1])
            case "BRANCH":
                return spell(rng.choice(value[1]))
            case "MAX_REPEAT":
                low, high, inner = value
                most = min(int(high), low + rng.choice([0, 1, 1, 2, 12]))
                return "".join(spell(inner) for _ in range(rng.randint(low, most)))
        raise AssertionError(f"{kind}: not in the common part of the language")

    def member(item: Any) -> str:
        kind, value = item
        if str(kind) == "NEGATE":
            return "^"
        low, high = value if str(kind) == "RANGE" else (value, value)
        return f"\\u{low:04x}-\\u{high:04x}"

    return spell(parse(expression))


def unsayable(rules: TurnRules, turn: str) -> bool:
    """Whether a turn breaks a rule that no regular expression can say."""
    tick = rules.profile.ticks_per_s

    def ticks(text: str) -> int:
        return round(float(text) * tick)

    free = not rules.profile.strict
    number = r"([0-9]+(?:\.[0-9]+)?)"
    span = rf"\[{number},[ \n]?{number}\]"
    for section in turn.split("</think>"):
        after, used = 0, 0
        budget = rules.budget(rules.box.end - rules.box.start) if rules.box else 10**6
        budget = 2 * rules.budget(rules.chunk) if "<answer>" in section else budget
        for label, a, b, words in re.findall(rf"([^\n\[]*){span}: ?([^\n<]*)", section):
            if ticks(b) - ticks(a) < rules.shortest or (not free and ticks(a) < after):
                return True
            if len(label.encode()) > 40:
                return True
            after, used = ticks(a), used + LINE_BYTES + len(words.encode())
            if used > budget or repeats(words):
                return True
        for a, b in re.findall(rf"<box>{span}", section):
            last = rules.box or Box(0, 0)
            low = ticks(a) + rules.shortest
            low = low if free else max(low, last.end)
            same = rules.box is not None and ticks(a) == last.start
            if ticks(b) < (max(low, last.end + 1) if same else low):
                return True
        if rules.turn == 0 and free and len(section.encode()) > 1200:
            return True
    return bool(repeats(turn)) and free


def repeats(words: str) -> bool:
    return bool(re.search(rf"(.{{1,}}?)\1{{{MAX_REPEATS - 1}}}", words, re.DOTALL))


@heavy
@named
@quick
@given(seed=st.integers(0, 2**32))
def test_what_the_expression_accepts_the_grammar_accepts(name: str, seed: int) -> None:
    """But for what it cannot say; and a fault is mended from what was right, in a few steps."""
    rules, rng = RULES[name], random.Random(seed)
    turn = sample(turn_regex(rules), rng)
    assert re.fullmatch(turn_regex(rules), turn)
    if not unsayable(rules, turn):
        assert is_turn(rules, turn), fault(rules, turn)
    kept = ""
    for _ in range(60):
        if is_turn(rules, turn):
            break
        assert fault(rules, turn)
        before, kept = kept, kept_part(rules, turn)
        assert valid_part(rules, turn).startswith(kept)
        assert kept.startswith(before)
        expression = turn_regex(rules, kept)
        assert re.fullmatch(expression, walk(rules, rng, kept))
        turn = sample(expression, rng)
        assert turn.startswith(kept)
    else:
        raise AssertionError(f"never valid: {turn!r}")


@pytest.mark.parametrize("decimals", [1, 2, 3])
@pytest.mark.parametrize("loose", [False, True])
def test_ranges_are_exact(decimals: int, loose: bool) -> None:
    rng, unit = random.Random(decimals), 10**decimals
    for _ in range(40):
        low, high = sorted(rng.choices([0, 1, 9, 10, 99, 100, 101, 999, 1000, 2500, 3600], k=2))
        low, high = low + rng.randint(0, 5), high + rng.randint(5, 9)
        pattern = re.compile(_range(low, high, decimals, loose))
        for value in {
            *range(max(0, low - 30), low + 30),
            *range(high - 30, high + 30),
            0,
            5 * unit,
        }:
            text = f"{value // unit}.{value % unit:0{decimals}d}"
            inside = low <= value <= high
            assert bool(pattern.fullmatch(text)) == inside, (text, low, high)
            short = text.rstrip("0").rstrip(".")
            if short != text:
                assert bool(pattern.fullmatch(short)) == (inside and loose), (short, low, high)
        assert not pattern.fullmatch("00.0") and not pattern.fullmatch("")


Accepts = Callable[[str], bool]


@cache
def xgrammar(expression: str) -> Accepts:
    xgr = pytest.importorskip("xgrammar", exc_type=ImportError)
    vocabulary = [bytes([i]) for i in range(256)]
    info = xgr.TokenizerInfo(vocabulary, vocab_size=256, stop_token_ids=[255])
    compiled = xgr.GrammarCompiler(info).compile_regex(expression)

    def accepts(text: str) -> bool:
        matcher = xgr.GrammarMatcher(compiled)
        return matcher.accept_string(text) and matcher.accept_token(255)

    return accepts


@cache
def llguidance(expression: str) -> Accepts:
    library = pytest.importorskip("llguidance")
    tokenizer = library.LLTokenizer("byte")
    grammar = library.grammar_from("regex", expression)
    wrong = library.LLMatcher.validate_grammar(grammar, tokenizer)
    assert not wrong, wrong

    def accepts(text: str) -> bool:
        matcher, data = library.LLMatcher(tokenizer, grammar), list(text.encode())
        return matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()

    return accepts


@pytest.mark.no_cover
@pytest.mark.parametrize("library", [xgrammar, llguidance])
@heavy
@named
def test_both_libraries_read_the_expression_as_python_does(
    name: str, library: Callable[[str], Accepts]
) -> None:
    rules, rng = RULES[name], random.Random(name)
    accepts, pattern = library(turn_regex(rules)), re.compile(turn_regex(rules))
    for number in range(20):
        turn = walked(name, number)
        assert accepts(turn), turn
        for _ in range(12):
            at = rng.randrange(len(turn))
            by = rng.choice(
                ["", "0", "9", "\n", " ", "<", "\t", "é", "中", "\u2028", "٣", ".", "]"]
            )
            other = turn[:at] + by + turn[at + rng.randint(0, 2) :]
            assert accepts(other) == bool(pattern.fullmatch(other)), repr(other)


@pytest.mark.parametrize("library", [xgrammar, llguidance])
@pytest.mark.parametrize("name", ["observation", "free observation"])
def test_both_libraries_read_what_follows_a_kept_part(
    name: str, library: Callable[[str], Accepts]
) -> None:
    rules = RULES[name]
    label = "Speaker1-female" if name == "observation" else "甲 (F)"
    wrong = f"<think>\n{label} [3.0, 2.0]: a\n</think><box>[3.0, 5.0]</box>"
    kept = kept_part(rules, wrong)
    assert kept.endswith("[3.0, " if name == "observation" else "[3.0,")
    accepts = library(turn_regex(rules, kept))
    assert not accepts(wrong)
    assert accepts(wrong.replace(" 2.0]", " 3.1]"))
    assert not accepts(wrong.replace(" 2.0]", " 3.0]"))


def test_a_large_profile_has_an_expression_that_compiles_soon() -> None:
    profile = Profile(max_speakers=16, chunk_s=50.0)
    rules = TurnRules(profile, turn=3, chunk=5000, box=Box(1234, 2876), speakers=2)
    expression = turn_regex(rules)
    assert len(expression) < 30_000
    for library in (xgrammar, llguidance):
        assert library(expression)("<think>\n</think><answer>")


def test_words_that_repeat_themselves_are_ended() -> None:
    rules = RULES["observation"]
    line = "<think>\nSpeaker1-male [1.5, 2.0]: " + "no " * 30
    kept = kept_part(rules, line + "\n</think><answer>")
    assert kept.count("no ") == MAX_REPEATS
    ended = kept + "\n</think><answer>"
    assert is_turn(rules, ended) and re.fullmatch(turn_regex(rules, kept), ended)
    assert looped(rules, ended) and not looped(rules, ended.replace("no no", "yes no"))
    sizes = [1] * len(ended.encode())
    assert looped(rules, ended, sizes)


def test_words_that_were_cut_off_are_not_kept() -> None:
    cut = "<think>\nSpeaker1-male [1.5, 2.0]: good mor"
    assert kept_part(RULES["observation"], cut) == "<think>\n"
    assert "ends too early" in str(fault(RULES["observation"], cut))


def test_other_tasks_and_beginnings_have_no_expression() -> None:
    with pytest.raises(ProtocolError, match="task 'sot'"):
        turn_regex(replace(RULES["overview"], task="sot"))
    with pytest.raises(ProtocolError, match="no turn begins"):
        turn_regex(RULES["overview"], "hello")


@pytest.mark.parametrize(
    ("name", "wrong", "kept"),
    [
        ("free observation", "<think>A[1.0,\n2.0]:a</thinker>", "<think>A[1.0,\n2.0]:a"),
        ("free observation", "<think>A[1.0,\n2.0]:a[1.0,\n3]", "<think>A[1.0,\n2.0]:a[1.0,\n"),
        ("free observation", "<think>A[1.0,\n0.5]:a", "<think>A[1.0,"),
        ("free observation", "<think>A]:[1.0, 2.0]:a\nB 3", "<think>A]:[1.0, 2.0]:a\n"),
        ("observation", "<think>\nSpeaker1-male [1.5, 2.0]:a\n", "<think>\n"),
        ("observation", "<think>\n</think><answer>x", "<think>\n</think>"),
    ],
)
def test_what_is_kept_ends_where_it_can_be_gone_on_with(name: str, wrong: str, kept: str) -> None:
    rules = RULES[name]
    assert kept_part(rules, wrong) == kept
    turn = walk(rules, random.Random(0), kept)
    if name == "free observation" and kept.endswith(":a"):
        return  # the walk lengthens the words, which the expression has at an end
    assert re.fullmatch(turn_regex(rules, kept), turn)
