"""Each step of the normalisation alone, laws of all of them, and what cannot be asked for."""

import json
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speaker_reasoner.errors import DataError, ExtraError
from speaker_reasoner.evaluate import Normalisation
from speaker_reasoner.evaluate import normalisation as steps

OFF = Normalisation(nfkc=False, lower=False, punctuation=False, characters=False)
ALL = Normalisation(erhua=True, fillers=True)

# Letters of several scripts, marks, digits, punctuation, white space, and what steps look for.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.text("aB'’.,-1２ 儿女哪子嗯啊かガ゙éſﬁΣ한%$", max_size=8),
        st.sampled_from(["uh", "Um", "it's", "女儿", "哪儿儿", "儿童", "2.5", "ＡＢ", " ", "…"]),
    )
).map("".join)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  Hello,\t WORLD! ", "hello world"),
        ("你好ABC世界。", "你 好 abc 世 界"),
        ("ありがとう", "あ り が と う"),
        ("안녕 세상", "안녕 세상"),
        ("it's, fine.", "it's fine"),
        ("It’s 2.5 %, the dogs' all-hands", "it's 2.5 the dogs all hands"),
        ("ｆｕｌｌ，１２", "full 12"),
        ("uh 嗯 哪儿 three 3", "uh 嗯 哪 儿 three 3"),
        ("", ""),
        (" ?! ", ""),
    ],
)
def test_by_default(text: str, words: str) -> None:
    assert Normalisation().words(text) == words.split()


@pytest.mark.parametrize(
    ("switch", "text", "words"),
    [
        ("nfkc", "ＡＢ ﬁn ｶﾞ A,B", "AB fin ガ A,B"),
        ("lower", "ＡＢ Ab, ΑΣ", "ａｂ ab, ας"),
        ("punctuation", "A,b it’s (你好)… 5%", "A b it's 你好 5"),
        ("characters", "你好AB, 世界か", "你 好 AB, 世 界 か"),
        ("fillers", "uh yes Uh umbrella 嗯 嗯嗯", "yes Uh umbrella 嗯嗯"),
        (
            "erhua",
            "哪儿 一会儿 小孩儿 玩 儿 了 女儿 儿童 那儿子",
            "哪 一会 小孩 玩 了 女儿 儿童 那儿子",
        ),
    ],
)
def test_one_switch_alone(switch: str, text: str, words: str) -> None:
    assert OFF.words(text) == text.split()
    assert replace(OFF, **{switch: True}).words(text) == words.split()


def test_mandarin_fillers_are_characters() -> None:
    assert Normalisation(fillers=True).words("嗯，我呃觉得 um 好") == ["我", "觉", "得", "好"]
    assert Normalisation(fillers=True).words("金额") == ["金", "额"]


def test_english_numbers_become_digits() -> None:
    english = Normalisation(language="en", numbers=True)
    assert english.words("Twenty one people, at 2.5") == english.words(
        "21 people at two point five"
    )
    assert english.words("the first of two hundred") == ["the", "1st", "of", "200"]


def test_chinese_numbers_are_spoken() -> None:
    pytest.importorskip("wetext", reason="pip install 'speaker-reasoner[eval]'")
    chinese = Normalisation(language="zh", numbers=True)
    assert chinese.words("2:30开会") == list("两点三十分开会")
    assert chinese.words("我有3个，2021年") == chinese.words("我有三个二零二一年")


def test_numbers_without_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wetext", None)
    steps._chinese.cache_clear()
    with pytest.raises(ExtraError, match=r"wetext.*speaker-reasoner\[eval\]"):
        Normalisation(language="zh", numbers=True).words("3")


@pytest.mark.parametrize("language", ["auto", "fr"])
def test_numbers_need_a_language(language: str) -> None:
    with pytest.raises(DataError, match="en or zh; got"):
        Normalisation(language=language, numbers=True)


@given(TEXTS)
def test_twice_is_once(text: str) -> None:
    for normalisation in (Normalisation(), ALL, OFF, replace(ALL, characters=False)):
        words = normalisation.words(text)
        assert normalisation.words(" ".join(words)) == words


@given(TEXTS)
def test_words_are_words(text: str) -> None:
    words = ALL.words(text)
    assert all(word and word.split() == [word] for word in words)
    assert not steps.FILLERS.intersection(words)


@given(TEXTS)
def test_full_width_and_capitals_do_not_matter(text: str) -> None:
    wide = text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})
    assert Normalisation().words(wide) == Normalisation().words(text)


def test_the_description_is_complete() -> None:
    described = json.loads(json.dumps(Normalisation(language="en", numbers=True).describe()))
    assert described.pop("numbers_by").startswith("transformers 5.")
    assert Normalisation(**described) == Normalisation(language="en", numbers=True)
    assert Normalisation().describe()["numbers_by"] is None
