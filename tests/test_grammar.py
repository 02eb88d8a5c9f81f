"""What the grammar accepts, what it refuses, and that every walk through it ends well."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.data.dialogues import SINGLE_TURN, dialogue, single_turn
from speaker_reasoner.engines import Request
from speaker_reasoner.engines.logits import Logits
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import EngineError
from speaker_reasoner.protocol import Box, Profile, parse_turn
from speaker_reasoner.protocol.grammar import TurnRules, start
from speaker_reasoner.protocol.matcher import (
    MAX_REPEATS,
    State,
    advance,
    caught_loop,
    closed,
    complete,
    next_bytes,
)
from speaker_reasoner.protocol.observations import Reference
from speaker_reasoner.protocol.turns import parse_lines
from speaker_reasoner.protocol.vocabulary import Vocabulary
from speaker_reasoner.reasoner import Dialogue, Stop, run

from .conftest import TEXTS
from .references import chunks, played

NATIVE = Profile(decimals=1, max_speakers=4)
RELEASED = Profile(name="released", max_speakers=4)


def accepted(text: str, rules: TurnRules) -> bool:
    return complete(advance(start(rules), text.encode()))


def after(text: str, rules: TurnRules) -> State:
    state = advance(start(rules), text.encode())
    assert state, text
    return state


@settings(max_examples=60, deadline=None)
@given(chunks(), st.sampled_from([1, 2, 3]), st.sampled_from(["en", "zh"]), st.booleans())
def test_training_dialogues_are_accepted(
    chunk: tuple[list[Reference], int], decimals: int, language: str, answer: bool
) -> None:
    segments, samples = chunk
    profile = Profile(decimals=decimals, language=language)
    trace = dialogue(segments, samples, profile, answer=answer)
    outcome = played(trace, samples, profile, answer="model" if answer else "assembled")
    assert outcome.stop is Stop.ANSWERED, outcome.detail
    assert len(outcome.trace.answers) == len(trace.answers)
    ticks = samples * profile.ticks_per_s // 16_000
    for task in SINGLE_TURN:
        rules = TurnRules(profile, turn=0, chunk=ticks, task=task)
        assert accepted(single_turn(task, segments, samples, profile).answers[0].text, rules)


@settings(max_examples=30, deadline=None)
@given(chunks())
def test_the_released_layout_takes_our_turns(chunk: tuple[list[Reference], int]) -> None:
    """The native layout is one of the wordings that the free one allows."""
    segments, samples = chunk
    trace = dialogue(segments, samples, Profile())
    outcome = played(trace, samples, replace(Profile(), name="released"), answer="model")
    assert outcome.stop is Stop.ANSWERED, outcome.detail


HEARD = TurnRules(NATIVE, turn=2, chunk=200, box=Box(50, 90), speakers=1)
FREE = replace(HEARD, profile=RELEASED, chunk=2000, box=Box(500, 900))
LINE = "Speaker1-male [5.5, 8.0]: hello\n"


def turn(lines: str = LINE, tail: str = "<box>[7.0, 9.5]</box>") -> str:
    return f"<think>\n{lines}</think>{tail}"


@pytest.mark.parametrize(
    "text",
    [
        turn(),
        turn(""),
        turn(tail="<answer>"),
        turn(LINE + "Speaker2-female [5.5, 5.6]:\nSpeaker3-unknown [8.9, 9.0]: a [b]: c\n"),
        turn(tail="<box>[5.0, 9.1]</box>"),
        turn(tail="<box>[5.1, 9.0]</box>"),
        turn(tail="<box>[19.9, 20.0]</box>"),
    ],
)
def test_good_turns(text: str) -> None:
    assert accepted(text, HEARD)
    parse_turn(text, NATIVE, first=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("end before start", turn("Speaker1-male [8.0, 5.5]: hello\n")),
        ("shorter than 0.1 s", turn("Speaker1-male [8.0, 8.0]: hello\n")),
        ("line before its box", turn("Speaker1-male [4.9, 8.0]: hello\n")),
        ("line after its box", turn("Speaker1-male [5.5, 9.1]: hello\n")),
        ("lines out of order", turn(LINE + "Speaker1-male [5.4, 8.0]: hello\n")),
        ("skipped speaker", turn("Speaker3-male [5.5, 8.0]: hello\n")),
        ("speaker 0", turn("Speaker0-male [5.5, 8.0]: hello\n")),
        ("unknown gender", turn("Speaker1-child [5.5, 8.0]: hello\n")),
        ("too many decimals", turn("Speaker1-male [5.50, 8.0]: hello\n")),
        ("no decimals", turn("Speaker1-male [6, 8.0]: hello\n")),
        ("blank text", turn("Speaker1-male [5.5, 8.0]:  \n")),
        ("text runs on", turn("Speaker1-male [5.5, 8.0]: hello")),
        ("a tag in a text", turn("Speaker1-male [5.5, 8.0]: hello <b>\n")),
        ("box outside the chunk", turn(tail="<box>[7.0, 20.1]</box>")),
        ("box goes back", turn(tail="<box>[4.9, 9.5]</box>")),
        ("box ends before the last one", turn(tail="<box>[7.0, 8.9]</box>")),
        ("repeated box", turn(tail="<box>[5.0, 9.0]</box>")),
        ("box backwards", turn(tail="<box>[9.5, 7.0]</box>")),
        ("box of no length", turn(tail="<box>[9.5, 9.5]</box>")),
        ("unclosed box", turn(tail="<box>[7.0, 9.5]")),
        ("unclosed thought", "<think>\n" + LINE),
        ("no thought", "<box>[7.0, 9.5]</box>"),
        ("neither box nor answer", turn(tail="")),
        ("garbage after a box", turn() + "."),
        ("garbage after an answer", turn(tail="<answer>\n")),
        ("two boxes", turn() + "<box>[8.0, 9.5]</box>"),
    ],
)
def test_bad_turns(name: str, text: str) -> None:
    assert not accepted(text, HEARD), name


def test_released_turns() -> None:
    rules = TurnRules(RELEASED, turn=1, chunk=2000, box=Box(500, 900))
    said = "说话人7-男 [1, 2.25]: 你好\nA [0.5,0.6]:\n"
    for text in (
        f"<think>\n{said}</think>\n<box>[5, 9.5]</box>",
        f"<think>{said}</think><box>[5.5, 8]</box>",  # may end before the last one
        "<think>a [0.1,2]: b</think><answer>",
    ):
        assert accepted(text, rules), text
    for text in (
        f"<think>{said}</think><box>[4.99, 9.5]</box>",
        f"<think>{said}</think><box>[5, 9.00]</box>",
        f"<think>{said}</think><box>[6.0, 6.05]</box>",
        f"<think>{said}</think><box>[6, 20.01]</box>",
        "<think>a [2,1]: b</think><answer>",
        "<think>a [1,1.05]: b</think><answer>",
        "<think>a [1,20.01]: b</think><answer>",
        "<think>no times</think><answer>",
    ):
        assert not accepted(text, rules), text


def test_the_last_turn_has_to_answer() -> None:
    rules = replace(HEARD, last=True)
    assert accepted(turn(tail="<answer>"), rules) and not accepted(turn(), rules)


def test_nobody_speaks() -> None:
    rules = TurnRules(NATIVE, turn=0, chunk=200)
    assert accepted("<think>\n0 speakers\n</think><answer>", rules)
    assert not accepted("<think>\n0 speakers\n</think><box>[0.0, 1.0]</box>", rules)
    assert accepted("<think>\n1 speaker: Speaker1-male\n</think><box>[0.0, 1.0]</box>", rules)
    assert not accepted("<think>\n1 speaker: Speaker1-male\n</think><answer>", rules)
    assert not accepted("<think>\n2 speakers: Speaker1-male\n</think><answer>", rules)


def test_no_dead_ends() -> None:
    """A text of spaces may not be closed, so it may not be begun."""
    for rules in (HEARD, FREE):
        state = after("<think>\nSpeaker1-male [5.5, 8.0]:", rules)
        for _ in range(20):
            state = advance(state, b" ") or state
        assert next_bytes(state)
    free = TurnRules(RELEASED, turn=0, chunk=0, model_answer=True)
    assert accepted("<think>nobody</think><answer>a [0,0.01]: b</answer>", free)
    assert not advance(start(free), b"<think>" + b"\n" * 1300)


def random_rules(rng: random.Random) -> TurnRules:
    profile = Profile(
        name=rng.choice(["native", "released"]),
        language=rng.choice(["en", "zh"]),
        decimals=rng.randint(1, 3),
        max_speakers=rng.randint(1, 3),
    )
    shortest = profile.ticks_per_s // 10
    chunk = rng.choice([0, 1, shortest, 7 * shortest, 12 * shortest + 1])
    box, number = None, 0
    if chunk and rng.random() < 0.6:
        number, least = rng.randint(1, 9), min(shortest, chunk)
        first = rng.randint(0, chunk - least)
        box = Box(first, rng.randint(first + least, chunk))
    return TurnRules(
        profile,
        turn=number,
        chunk=chunk,
        box=box,
        speakers=rng.randint(0, profile.max_speakers) if number else 0,
        model_answer=rng.random() < 0.5,
        last=rng.random() < 0.3,
        task="base" if profile.strict and rng.random() < 0.1 else "dialogue",
    )


@pytest.mark.no_cover  # tracing its many steps takes longer than the steps; other tests take them too
@pytest.mark.parametrize("block", range(4))
def test_every_walk_ends_well(block: int) -> None:
    """Bytes drawn at random from what is allowed: no dead end, an end, and a turn that parses."""
    for seed in range(25 * block, 25 * block + 25):
        rng = random.Random(seed)
        rules = random_rules(rng)
        state, text = start(rules), bytearray()
        while not complete(state):
            assert len(text) < 6000, (rules, bytes(text))
            order = rng.sample(range(256), 256)
            if rng.random() < 0.3:  # else texts are mostly as long as they may be
                order = [*b"\n<[", *order]
            following = ((b, advance(state, bytes((b,)))) for b in order)
            if rng.random() < 0.1:
                tried = [b for b in range(256) if advance(state, bytes((b,)))]
                assert next_bytes(state) == tried
            byte, state = next((b, s) for b, s in following if s)
            text.append(byte)
        assert closed(state) and next_bytes(state) == []
        said = text.decode()
        if rules.task == "base":
            lines = parse_lines(said, rules.profile)
        else:
            read = parse_turn(said, rules.profile, first=rules.turn == 0)
            lines = (*read.lines, *(read.answer or ()))
            assert read.box is None or read.box.end <= rules.chunk
            assert not (rules.last and read.box)
        for line in lines:
            assert 0 <= line.start < line.end <= max(rules.chunk, rules.shortest)


@pytest.mark.parametrize("span", ["the ", "ha ha, ", "嗯", "no no yes "])
@pytest.mark.parametrize("profile", [NATIVE, RELEASED], ids=["native", "released"])
def test_a_loop_may_only_be_closed(profile: Profile, span: str) -> None:
    rules = TurnRules(profile, turn=1, chunk=600, box=Box(0, 600))
    head = "<think>\nSpeaker1-male [0.0, 4.0]: "
    state = after(head + span * (MAX_REPEATS - 1), rules)
    assert not caught_loop(state) and len(next_bytes(state)) > 50
    state = after(head + span * MAX_REPEATS, rules)
    assert caught_loop(state)
    assert next_bytes(state) == ([0x0A] if profile.strict else [0x0A, 0x3C])
    assert not advance(state, span.encode())
    end = "\n</think><answer>"
    assert complete(advance(state, end.encode()))


def test_texts_are_bounded_by_what_was_heard() -> None:
    text = " ".join(f"word{i}" for i in range(99))
    longest = HEARD.budget(40)
    assert accepted(turn(f"Speaker1-male [5.5, 8.0]: {text[:longest]}\n"), HEARD)
    assert not accepted(turn(f"Speaker1-male [5.5, 8.0]: {text[: longest + 1]}\n"), HEARD)


@settings(max_examples=60, deadline=None)
@given(
    st.text(
        st.one_of(
            st.sampled_from("🎉👩🏽‍🚀🇨🇳漢字汉语𠀀日本語한국éßж\u00ad\uffff\U0010ffff"),
            st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="< "),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_any_utf8_is_accepted_byte_by_byte(text: str) -> None:
    for rules in (HEARD, FREE):
        state = after("<think>\nSpeaker1-male [5.5, 8.0]: ", rules)
        for byte in text.encode():
            state = advance(state, bytes((byte,)))
            assert state
        assert complete(advance(state, b"\n</think><answer>"))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xff",
        b"\xe4\xbd\n",
        b"\xe4\xbd<",
        b"\xc3a",
        b"\t",
        b"\r",
        b"\x00",
        b"\x7f",
    ],
    ids=bytes.hex,
)
def test_no_other_bytes_are(data: bytes) -> None:
    for rules in (HEARD, FREE):
        state = after("<think>\nSpeaker1-male [5.5, 8.0]: a", rules)
        assert not advance(state, data)


def byte_level(texts: list[str], tags: list[str]) -> Any:
    """A byte-level tokenizer that knows no tag but the given ones."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False),
    )
    made.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    made.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>")


def marked(texts: list[str]) -> Any:
    """A tokenizer that marks spaces with U+2581 and falls back to bytes, as Llama's does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        [*texts, "é ü 你好 您好"], trainers.BpeTrainer(vocab_size=150, show_progress=False)
    )
    model = models.BPE(
        vocab={
            piece: i
            for i, piece in enumerate(
                ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(trained.get_vocab())]
            )
        },
        merges=[],
        byte_fallback=True,
        unk_token="<unk>",
    )
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.add_special_tokens(
        [AddedToken(s, special=True, normalized=False) for s in ("<unk>", "<|im_end|>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", unk_token="<unk>")


SPANNING = ["]</box>", "\n</think><box>[", "</think>\n", "</think><answer>", ": ", "-male [0."]


@pytest.fixture(scope="module", params=["qwen-like", "no tags", "spanning", "marked"])
def vocabulary(request: Any, tokenizer: Any) -> Vocabulary:
    made = {
        "qwen-like": lambda: tokenizer,
        "no tags": lambda: byte_level(TEXTS, []),
        "spanning": lambda: byte_level(TEXTS, SPANNING),
        "marked": lambda: marked(TEXTS),
    }[request.param]()
    end = made.convert_tokens_to_ids("<|im_end|>")
    assert made.convert_ids_to_tokens(end) == "<|im_end|>"
    vocabulary = Vocabulary(made, end, len(made) + 3)
    text = " <think>\nSpeaker1-male [0.5, 1.0]: é ü 你好 🎉 the\n</think><box>["
    ids = made.encode(text, add_special_tokens=False)
    assert b"".join(vocabulary.tokens[i] or b"?" for i in ids).strip() == text.strip().encode()
    return vocabulary


def chosen(vocabulary: Vocabulary, row: Any, state: State) -> tuple[int, State]:
    """Choose as the engine does."""
    logits = Logits(torch.from_numpy(row)[None])
    return vocabulary.choose(logits.likely(0), lambda: logits.all(0), state)


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["native", "released"])
def test_random_logits_write_whole_dialogues(vocabulary: Vocabulary, name: str) -> None:
    rng = np.random.default_rng(7)
    profile = Profile(name=name, decimals=1, max_turns=2, max_speakers=3)

    def write(request: Request) -> str:
        state, text = start(request.rules), b""
        while True:
            logits = rng.standard_normal(len(vocabulary.tokens)).astype(np.float32)
            token, state = chosen(vocabulary, logits, state)
            if token == vocabulary.end_id:
                return text.decode()
            text += vocabulary.tokens[token] or b""
            assert len(text) < 3000

    for i in range(15):
        answer = "model" if i % 3 == 0 else "assembled"
        samples = np.zeros(int(rng.integers(1, 24_000)), dtype=np.float32)
        talk = Dialogue(samples, profile, answer=answer)
        for _ in run([talk], ScriptedEngine(write, profile)):
            pass
        assert talk.outcome is not None
        assert talk.outcome.stop in (Stop.ANSWERED, Stop.TURN_LIMIT), talk.outcome.detail


def test_the_best_allowed_token_is_chosen(tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    vocabulary = Vocabulary(tokenizer, end, len(tokenizer))
    think = tokenizer.convert_tokens_to_ids("<think>")
    logits = np.arange(len(tokenizer), dtype=np.float32)
    logits[think] = -5.0
    logits[vocabulary.tokens.index(b"<")] = -6.0
    assert chosen(vocabulary, logits, start(HEARD))[0] == think
    state = after(turn(), HEARD)
    assert chosen(vocabulary, -logits, state) == (end, state)


def test_most_logits_stay_where_they_are() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    logits = Logits(torch.from_numpy(rows))
    expected = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    for place, row in enumerate(rows):
        assert logits.likely(place) == np.argsort(-row)[:4].tolist()
        assert np.array_equal(logits.all(place), row)
        given = [logits.probability(place, token) for token in range(50)]
        assert np.abs(np.array(given) - expected[place]).max() < 1e-6
    half = Logits(torch.from_numpy(rows).to(torch.bfloat16))
    assert half.all(0).dtype == np.float32
    assert Logits(torch.zeros(1, 2)).likely(0) in ([0, 1], [1, 0])


def test_a_tokenizer_that_cannot_spell_is_told(tokenizer: Any) -> None:
    vocabulary = Vocabulary(tokenizer, 0, len(tokenizer))
    vocabulary._by_first.clear()
    vocabulary.tokens = [None] * len(tokenizer)
    with pytest.raises(EngineError, match="no token"):
        chosen(vocabulary, np.zeros(len(tokenizer), dtype=np.float32), start(HEARD))
