"""Turns as text: render and parse, the released expressions, traces, profiles, prompt files."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.data.dialogues import dialogue
from speaker_reasoner.errors import ProtocolError
from speaker_reasoner.protocol import (
    Answer,
    Audio,
    Box,
    Line,
    Overview,
    Profile,
    Text,
    Trace,
    Turn,
    load_profile,
    observe,
    opening,
    parse_turn,
    pieces,
    released_profile,
    render_turn,
)
from speaker_reasoner.protocol.confidence import line_confidences
from speaker_reasoner.protocol.markup import MARKUP
from speaker_reasoner.protocol.observations import Reference
from speaker_reasoner.protocol.profile import PROFILE_FILE
from speaker_reasoner.protocol.turns import parse_lines
from speaker_reasoner.reasoner import Stop

from .references import chunks, played

# The two expressions of the released runner, to the letter.
RELEASED_LINE = re.compile(
    r"(?:^|\n)([^\[\n]+?)\s*\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]\s*:\s*(.*)"
)
RELEASED_BOX = re.compile(r"<box>\[\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*\]</box>")
PROMPTS = Path(__file__).parents[2] / "shared" / "data" / "upstream_prompts"
GENDERS = ("female", "male", "unknown")

profiles = st.builds(
    Profile, language=st.sampled_from(["en", "zh"]), decimals=st.sampled_from([1, 2, 3])
)
words = (
    st.text(
        st.one_of(
            st.sampled_from("abc ABC 123 .,:;!?'\"()[]{}>/\\-|，。？！「」【】你好说话人嗯"),
            st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="<"),
        ),
        max_size=40,
    )
    .map(str.strip)
    .filter(lambda text: "<" not in text)
)
spans = st.tuples(st.integers(0, 60_000), st.integers(1, 9_000)).map(lambda s: (s[0], s[0] + s[1]))


def lines(texts: st.SearchStrategy[str] = words) -> st.SearchStrategy[tuple[Line, ...]]:
    line = st.builds(
        lambda speaker, gender, span, text: Line(speaker, gender, *span, text),
        st.integers(1, 16),
        st.sampled_from(GENDERS),
        spans,
        texts,
    )
    return st.lists(line, max_size=5).map(tuple)


boxes = spans.map(lambda span: Box(*span))
overviews = st.lists(st.sampled_from(GENDERS), max_size=16).map(lambda g: Overview(tuple(g)))
endings = st.one_of(
    boxes.map(lambda box: {"box": box}), lines().map(lambda answer: {"answer": answer})
)


@given(profiles, overviews, endings)
def test_overview_turns_survive(
    profile: Profile, overview: Overview, ending: dict[str, Any]
) -> None:
    turn = Turn(overview=overview, **ending)
    assert parse_turn(render_turn(turn, profile), profile, first=True) == turn


@given(profiles, lines(), endings)
def test_observation_turns_survive(
    profile: Profile, rows: tuple[Line, ...], ending: dict[str, Any]
) -> None:
    turn = Turn(lines=rows, **ending)
    assert parse_turn(render_turn(turn, profile), profile, first=False) == turn


@given(profiles, lines(words.filter(bool)), boxes)
def test_the_released_expressions_read_the_same(
    profile: Profile, rows: tuple[Line, ...], box: Box
) -> None:
    text = render_turn(Turn(lines=rows, box=box), profile)
    found = RELEASED_LINE.findall(text)
    assert len(found) == len(rows)
    for (label, start, end, said), line in zip(found, rows, strict=True):
        assert parse_lines(f"{label} [{start}, {end}]: {said}", profile) == (line,)
        assert label == profile.wording.speaker.format(
            n=line.speaker, gender=profile.wording.genders[line.gender]
        )
    read = [
        tuple(round(float(t) * profile.ticks_per_s) for t in b) for b in RELEASED_BOX.findall(text)
    ]
    assert read == [(box.start, box.end)]


def test_what_a_turn_looks_like() -> None:
    zh = Profile(language="zh", decimals=1)
    turn = Turn(overview=Overview(("female", "male")), box=Box(0, 52))
    assert render_turn(turn, zh) == (
        "<think>\n2位说话人：说话人1-女，说话人2-男\n</think><box>[0.0, 5.2]</box>"
    )
    turn = Turn(lines=(Line(1, "female", 50, 230, "hi"),), answer=())
    assert render_turn(turn, Profile()) == (
        "<think>\nSpeaker1-female [0.50, 2.30]: hi\n</think><answer>\n</answer>"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("说话人1-男 [0.5, 2.3]: 你好", Line(1, "male", 50, 230, "你好")),
        ("Speaker 2 (female) [0, 2.25]:", Line(2, "female", 0, 225, "")),
        ("Speaker3-Female[1,2] : x", Line(3, "female", 100, 200, "x")),
        ("甲（女） [ 1.5 ,2 ]: 嗯，好", Line(1, "female", 150, 200, "嗯，好")),
        ("Woman 4 [10, 11]:  two  spaces ", Line(4, "female", 1000, 1100, "two  spaces")),
        ("Spk-12, a man [0.004, 0.9951]: [x]: y", Line(12, "male", 0, 100, "[x]: y")),
        ("human 5 [1, 2]: z", Line(5, "unknown", 100, 200, "z")),
    ],
)
def test_released_wordings(text: str, line: Line) -> None:
    assert parse_lines(text, Profile(name="released")) == (line,)
    turn = parse_turn(f"<think>{text}</think>\n<box>[3,4.5]</box>", Profile(), first=False)
    assert turn == Turn(lines=(line,), box=Box(300, 450))


def test_labels_without_digits_are_numbered_by_appearance() -> None:
    text = "甲（女） [0, 1]: a\n乙 (男) [1, 2]: b\n甲（女） [2, 3]: c\n"
    assert [line.speaker for line in parse_lines(text, Profile())] == [1, 2, 1]
    numbers: dict[str, int] = {}
    parse_lines(text, Profile(), numbers)
    later = parse_lines("丙 [3, 4]: d\n乙 (男) [4, 5]: e", Profile(), numbers)
    assert [line.speaker for line in later] == [3, 2]
    mixed = parse_lines("Speaker 1 [0, 1]: a\nHost [1, 2]: b\nHost [2, 3]: c", Profile())
    assert [line.speaker for line in mixed] == [1, 2, 2]


@pytest.mark.parametrize(
    ("text", "genders"),
    [
        ("2 speakers: Speaker1-female, Speaker2-male", ("female", "male")),
        ("1 speaker: Speaker1-unknown", ("unknown",)),
        ("0位说话人", ()),
        ("音频中共有3个说话人，1男2女", ("male", "female", "unknown")),
        ("a busy street", None),
    ],
)
def test_overviews(text: str, genders: tuple[str, ...] | None) -> None:
    turn = parse_turn(f"<think>{text}</think><answer>", Profile(), first=True)
    assert (turn.overview.genders if turn.overview else None) == genders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<box>[0, 1]</box>", "no complete <think>"),
        ("<think>a<box>[0, 1]</box>", "no complete <think>"),
        ("<think></think>", "neither"),
        ("<think></think><box>[0, 1]", "neither"),
        ("<think></think><box>[2, 1]</box>", "ends before"),
        ("<think>S1 [2.0, 2.001]: a</think><answer>", "start < end"),
    ],
)
def test_broken_turns_are_told(text: str, message: str) -> None:
    with pytest.raises(ProtocolError, match=message) as caught:
        parse_turn(text, Profile(), first=False)
    assert "\n" not in str(caught.value)


def test_confidences_stop_at_tags() -> None:
    """A released turn may put a tag on a line's own line: one confidence for every parsed line."""
    text = "<think>S1 [0,1]: hey</think><answer>S1 [0,1]: hey</answer>"
    turn = parse_turn(text, Profile(name="released"), first=False)
    size = [1] * len(text)
    chance = [1.0 if 17 <= i < 20 else 0.5 for i in range(len(text))]
    told = line_confidences(text, size, chance)
    assert turn.answer is not None and len(told) == len(turn.lines) + len(turn.answer)
    assert (told[0].words, told[0].times, told[1].words) == (1.0, 0.5, 0.5)


def tokens(parts: Any, tokenizer: Any) -> list[tuple[tuple[int, ...], bool]]:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return [(piece.ids, piece.learned) for piece in pieces(parts, tokenizer, end)]


def example(*, answer: bool = True) -> Trace:
    segments = [
        Reference(1, "female", 8_000, 40_000, "good morning peter"),
        Reference(2, "male", 48_000, 80_000, "what about the red dog"),
    ]
    return dialogue(segments, 96_000, Profile(), answer=answer)


@pytest.mark.parametrize("answer", [True, False])
def test_a_prefix_has_the_same_ids_whatever_follows(tokenizer: Any, answer: bool) -> None:
    parts = example(answer=answer).parts
    whole = tokens(parts, tokenizer)
    for count in range(len(parts) + 1):
        assert tokens(parts[:count], tokenizer) == whole[:count]
    markup = "".join(part.text for part in parts if not isinstance(part, Audio))
    spelled = "".join(tokenizer.decode(ids) for ids, _ in whole)
    assert spelled.replace(MARKUP.end, "") == markup.replace(MARKUP.end, "")


@pytest.mark.parametrize("answer", [True, False])
def test_answers_alone_are_learned(tokenizer: Any, answer: bool) -> None:
    parts = example(answer=answer).parts
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for part, (ids, learned) in zip(parts, tokens(parts, tokenizer), strict=True):
        assert learned == isinstance(part, Answer)
        if isinstance(part, Answer):
            assert (ids[-1] == end) == part.closed
            assert tokenizer.decode(ids[: len(ids) - part.closed]) == part.text
    assert parts[-1] == Answer(parts[-1].text, closed=answer)  # type: ignore[union-attr]


def test_generated_ids_are_kept(tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    odd = tuple(tokenizer.encode(c, add_special_tokens=False)[0] for c in "the")
    [(ids, _)] = tokens([Answer("the", ids=odd)], tokenizer)
    assert ids == (*odd, end)


def test_history_keeps_the_thoughts() -> None:
    trace = example()
    assert [part.text.count("<think>") for part in trace.answers] == [1, 1, 1]
    assert "good morning peter" in trace.answers[1].text
    assert len(trace.audio) == 3 and trace.audio[0] == Audio(0, 96_000)
    assert [row for row in trace.to_json() if "audio" in row][1] == {"audio": [7_200, 40_800]}


@settings(max_examples=40, deadline=None)
@given(chunks(), profiles, st.booleans())
def test_training_and_inference_render_the_same_history(
    chunk: tuple[list[Reference], int], profile: Profile, answer: bool
) -> None:
    segments, samples = chunk
    trace = dialogue(segments, samples, profile, answer=answer)
    outcome = played(trace, samples, profile, answer="model" if answer else "assembled")
    assert outcome.stop is Stop.ANSWERED, outcome.detail
    assert outcome.trace.parts == trace.parts
    assert [heard.line.text for heard in outcome.lines] == [s.text for s in segments]


@pytest.mark.parametrize("name", ["prompt.json", "prompt_4194h.json"])
def test_published_prompt_files(name: str) -> None:
    path = PROMPTS / name
    if not path.exists():
        pytest.skip(f"{path} is not here: the prompt files are published with the checkpoints")
    published = json.loads(path.read_text(encoding="utf-8"))
    profile = released_profile(path)
    assert (profile.name, profile.language, profile.strict) == ("released", "zh", False)
    first = opening(profile, 16_000)
    assert first[1:] == (
        Audio(0, 16_000),
        Text(MARKUP.audio_close + published["initial_user_text"] + MARKUP.user_close),
    )
    last = observe(profile, 7, 0, 1600)[-1]
    said = published["turn_user_text"].replace("{turn}", "7")
    assert last == Text(MARKUP.audio_close + said + MARKUP.user_close)
    assert "{turn}" not in said


PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for i in m['content'] %}{% if i['type'] == 'audio' %}"
    "<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ i['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
)
GOOD = {"chat_template": PLAIN, "initial_user_text": "Begin.", "turn_user_text": "This is O_{turn}"}


@pytest.mark.parametrize(
    ("initial", "language"), [("Begin with an overview.", "en"), ("请先概括音频。", "zh")]
)
@pytest.mark.parametrize("turn", ["This is O_{turn}", ""])
def test_a_prompt_file(tmp_path: Path, initial: str, language: str, turn: str) -> None:
    path = tmp_path / "prompt.json"
    prompts = {**GOOD, "initial_user_text": initial, "turn_user_text": turn}
    path.write_text(json.dumps(prompts), encoding="utf-8")
    profile = released_profile(path)
    assert (profile.name, profile.language, profile.strict) == ("released", language, False)
    assert opening(profile, 16_000)[1:] == (
        Audio(0, 16_000),
        Text(MARKUP.audio_close + initial + MARKUP.user_close),
    )
    shown = turn.replace("{turn}", "3")
    last = observe(profile, 3, 0, 1600)[-1]
    assert last == Text(MARKUP.audio_close + shown + MARKUP.user_close)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "JSON"),
        ("[1]", "expected a JSON object, got list"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "turn_user_text"}), "turn_user_text"),
        (json.dumps({**GOOD, "initial_user_text": 5}), "initial_user_text"),
        (json.dumps({**GOOD, "chat_template": "{% for %}"}), "does not render"),
        (json.dumps({**GOOD, "chat_template": "{{ 'a' + messages }}"}), "does not render"),
        (json.dumps({**GOOD, "chat_template": "{{ 1 / 0 }}"}), "does not render"),
        (json.dumps({**GOOD, "chat_template": "[INST]{{ messages }}"}), "unsupported chat"),
        (json.dumps({**GOOD, "chat_template": "<|im_start|>system\n" + PLAIN}), "unsupported"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "prompt.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ProtocolError, match=message) as caught:
        released_profile(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_profile_survives(tmp_path: Path) -> None:
    assert load_profile(tmp_path) is None
    profile = Profile(
        language="zh",
        decimals=3,
        chunk_s=20,
        domain="会议",
        cache_by_default=False,
        word_confidence_floor=0.5,
        training={"stage": "dialogues", "config": {"seed": 1}},
    )
    for one in (profile, Profile(), replace(profile, name="released", initial_text="x")):
        one.save(tmp_path)
        assert load_profile(tmp_path) == one
    with pytest.raises(ProtocolError, match="training None"):
        Profile(training=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"name": "mine"},
        {"name": None},
        {"cache_by_default": 1},
        {"language": "fr"},
        {"language": []},
        {"decimals": 4},
        {"decimals": 2.0},
        {"decimals": True},
        {"decimals": "2"},
        {"chunk_s": "50"},
        {"chunk_s": 0.5},
        {"chunk_s": float("nan")},
        {"max_turns": 2.5},
        {"max_turns": 0},
        {"max_speakers": None},
        {"initial_text": 5},
        {"word_confidence_floor": "low"},
        {"training": []},
    ],
    ids=str,
)
def test_bad_profiles(tmp_path: Path, change: dict[str, Any]) -> None:
    Profile().save(tmp_path)
    path = tmp_path / PROFILE_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ProtocolError) as caught:
        load_profile(tmp_path)
    assert "\n" not in str(caught.value)
