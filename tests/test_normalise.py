"""Each step of the normalisation alone, laws of all of them, and what cannot be asked for."""

import json
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

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
        ("don`t don´t don’t donʼt don＇t ‘so’", "don't don't don't don't don't so"),
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
        ("simplified", "廣州市、頭髮 Ab, 里面", "广州市、头发 Ab, 里面"),
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


PUBLISHED = {  # of the tests that OpenAI publishes beside Whisper's normaliser
    "two": "2", "thirty one": "31", "five twenty four": "524", "nineteen ninety nine": "1999",
    "twenty nineteen": "2019", "two point five million": "2500000", "200 thousand": "200000",
    "four point two billions": "4200000000s", "200 thousand dollars": "$200000",
    "$20 million": "$20000000", "€52.4 million": "€52400000", "£77 thousands": "£77000s",
    "two double o eight": "2008", "three thousand twenty nine": "3029",
    "forty three thousand two hundred sixty": "43260", "nineteen fifties": "1950s",
    "forty three thousand two hundred and sixty": "43260", "thirty first": "31st",
    "thirty three thousand and three hundred and thirty third": "33333rd",
    "three billion": "3000000000", "millions": "1000000s", "3 14": "3 14", "3.14": "3.14",
    "july third twenty twenty": "july 3rd 2020", "3 point 2": "3.2", "3 point 14": "3.14",
    "august twenty sixth twenty twenty one": "august 26th 2021", "fourteen point 4": "14.4",
    "two point two five dollars": "$2.25", "two hundred million dollars": "$200000000",
    "$20.1 million": "$20100000", "ninety percent": "90%", "seventy six per cent": "76%",
    "double oh seven": "007", "double zero seven": "007", "nine one one": "911",
    "nine double one": "911", "one triple oh one": "10001", "two thousandth": "2000th",
    "thirty two thousandth": "32000th", "minus 500": "-500", "positive twenty thousand": "+20000",
    "two dollars and seventy cents": "$2.70", "3 cents": "¢3", "$0.36": "¢36",
    "three euros and sixty five cents": "€3.65", "three and a half million": "3500000",
    "forty eight and a half dollars": "$48.5", "10th": "10th",
}  # fmt: skip


@pytest.mark.parametrize("spoken", PUBLISHED)
def test_english_numbers_are_whispers(spoken: str) -> None:
    assert steps._english_digits(spoken) == PUBLISHED[spoken]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("we sold twenty-one cars", "we sold 21 cars"),
        ("it has 1,000 seats, not 1,234,567", "it has 1000 seats not 1234567"),
        ("in two hundred and five rooms.", "in 205 rooms"),
        ("It costs $3.50.", "it costs three dollars and fifty cents"),
        ("twenty‑five percent", "25 %"),
    ],
)
def test_english_numbers_are_equal_however_written(one: str, other: str) -> None:
    english = Normalisation(language="en", numbers=True)
    assert english.words(one) == english.words(other)


def test_english_numbers_leave_other_words_alone() -> None:
    """Where Whisper's whole normaliser makes `50 clock`, `0 brien` and nothing."""
    english = Normalisation(language="en", numbers=True)
    assert english.words("5 o'clock, O’Brien: mm-hmm") == ["5", "o'clock", "o'brien", "mm", "hmm"]
    assert english.words("one two three four") == ["1234"]


def test_what_shows_nothing_is_dropped() -> None:
    text = "\ufeffhel\u200blo wor\u00adld \u202aשלום\u202c e\ufe0f \u2060x"
    assert Normalisation().words(text) == ["hello", "world", "שלום", "e", "x"]
    assert replace(Normalisation(), nfkc=False).words("a\u200bb") == ["a\u200bb"]


def test_chinese_numbers_in_mixed_text() -> None:
    pytest.importorskip("wetext", reason="pip install 'speaker-reasoner[eval]'")
    chinese = Normalisation(language="zh", numbers=True)
    assert chinese.words("OK 我有2个iPhone") == ["ok", "我", "有", "两", "个", "iphone"]
    assert chinese.words("比分3-2") == list("比分三减二")  # a subtraction, says wetext


def test_chinese_numbers_are_spoken() -> None:
    pytest.importorskip("wetext", reason="pip install 'speaker-reasoner[eval]'")
    chinese = Normalisation(language="zh", numbers=True)
    assert chinese.words("2:30开会") == list("两点三十分开会")
    assert chinese.words("我有3个，2021年") == chinese.words("我有三个二零二一年")


def test_numbers_without_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wetext", None)
    steps._chinese.cache_clear()
    chinese = Normalisation(language="zh", numbers=True)
    for use in (lambda: chinese.words("3"), chinese.describe):
        with pytest.raises(ExtraError, match=r"wetext.*speaker-reasoner\[eval\]"):
            use()


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
    assert described.pop("simplified_by") is None
    assert Normalisation(**described) == Normalisation(language="en", numbers=True)
    assert Normalisation().describe()["numbers_by"] is None
    assert Normalisation(simplified=True).describe()["simplified_by"].startswith("opencc ")


def test_korean_and_thai_are_counted_by_character_where_they_are_named() -> None:
    assert Normalisation().words("안녕 하세요 ok") == ["안녕", "하세요", "ok"]
    assert Normalisation("ko").words("안녕 하세요 ok") == [*"안녕하세요", "ok"]
    assert Normalisation("th").words("สวัสดี ok") == [*"สวัสดี", "ok"]
    assert Normalisation("ko", characters=False).words("안녕") == ["안녕"]


def test_capitals_of_i() -> None:
    """Turkish has two letters, and capitals of their own; elsewhere the dotted capital is an i, composed or not."""
    for dotted in ("İ", "I\u0307"):
        assert Normalisation().words(f"{dotted}zmir IRAK") == ["izmir", "irak"]
        assert Normalisation("tr").words(f"{dotted}zmir IRAK ırmak") == ["izmir", "ırak", "ırmak"]
    assert Normalisation("tr").words("ISPARTA") == ["ısparta"]
    assert Normalisation("tr", lower=False).words("ISPARTA İ") == ["ISPARTA", "İ"]


def test_without_opencc_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only the description is asked for, as the digest of a recording does first."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "opencc", None)
    monkeypatch.setattr("importlib.metadata.version", missing)
    steps._simplifier.cache_clear()
    for use in (lambda n: n.words("廣州"), lambda n: n.describe()):
        with pytest.raises(ExtraError, match=r"opencc.*speaker-reasoner\[eval\]"):
            use(Normalisation(simplified=True))
    assert Normalisation().describe()["simplified_by"] is None
