"""Text normalisation: one `Normalisation`, applied to reference and hypothesis alike.

    Normalisation().words("Hello, 你好!")                         # ["hello", "你", "好"]
    Normalisation(language="en", fillers=True).words("uh, yes")   # ["yes"]

Nothing is compared here. Each step is a switch; the switches are printed and stored with every
score (`Normalisation.describe`).
"""

import importlib
import importlib.metadata
import re
import unicodedata
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from .. import extras
from ..errors import DataError

_ENGLISH_FILLERS = "uh uhh um umm uhm er erm ah hm hmm hmmm mm mmm mhm"  # Whisper's list and more
_MANDARIN_FILLERS = "嗯呃啊哦噢唔欸诶"  # not 额, which is also a word: 额度
FILLERS = frozenset((*_ENGLISH_FILLERS.split(), *_MANDARIN_FILLERS))
"""Hesitations and back-channels, each a whole word, that the switch `fillers` takes out."""

ERHUA_KEPT_AFTER = frozenset("女男婴幼孤少胎患健宠弃育托小生血运")
"""Characters after which 儿 is a syllable of its own: 女儿, 婴儿, 幼儿, 小儿, 新生儿, 混血儿."""

ERHUA_KEPT_BEFORE = frozenset("子童女科媳歌孙戏郎")
"""Characters before which 儿 begins a word: 儿子, 儿童, 儿女, 儿科."""

NUMBER_LANGUAGES = ("en", "zh")
"""Languages whose numbers can be brought into one form."""

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_ALONE = re.compile(  # iteration marks, kana, Han and their compatibility forms
    rf"([\u3005-\u3007\u3041-\u3096\u309d-\u30fa\u30fc-\u30ff\u31f0-\u31ff{_HAN}\uff66-\uff9f])"
)
_ALONE_IN = {"ko": re.compile(r"([\uac00-\ud7a3])"), "th": re.compile(r"([\u0e01-\u0e7f])")}
"""Hangul syllables and Thai characters are words where the language is named: MLC-SLM scores both by character."""
_DOTTED = str.maketrans({"İ": "i", "I": "ı"})
_DOTTED_IN = frozenset(("tr", "az"))
"""Languages, and their capitals, in which i and ı are two letters: Turkish, Azerbaijani."""
_PLAIN = re.compile(r"[A-Za-z0-9 ]*")  # what no step but numbers and fillers changes, case aside
_INVISIBLE = re.compile(  # Unicode's Default_Ignorable_Code_Point, but for fillers of Hangul
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0000-\U000e0fff]"
)
_APOSTROPHE = re.compile(
    r"(?<=[^\W\d_])[’‘`｀´ʻʼ＇](?=[^\W\d_])"
)  # as keyboards and programs write it
_INSIDE_WORDS = re.compile(r"(?<=[^\W\d_])(['’])(?=[^\W\d_])|(?<=\d)(\.)(?=\d)")
_ERHUA = re.compile(rf"([{_HAN}])(?<!儿)(?:\s*儿)+(?!\s*[儿{''.join(sorted(ERHUA_KEPT_BEFORE))}])")


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The steps of normalisation, which run in the order written here.

    Attributes:
        language: `auto`, or a language code such as `en` or `zh`. `numbers` needs to know it,
            `characters` for Korean and Thai, `lower` for Turkish; all other steps go by the script of each character.
        nfkc: Unicode's compatibility composition: full-width letters, ligatures, half-width kana; and
            what shows nothing is dropped: zero-width characters, soft hyphens, marks of direction.
        lower: lower case; with `tr` and `az` that of I is ı.
        simplified: Chinese characters are simplified ones (OpenCC), for a recogniser that writes traditional ones.
        numbers: `zh`: digits, dates, times and units as they are spoken (`wetext`: 2:30 is 两点三十分);
            `en`: spelled numbers as digits, by Whisper's normaliser and the steps that it takes before
            it: commas between digits go, and symbols but `.%$¢€£` divide words (twenty-one is 21,
            1,000 is 1000). An apostrophe inside a word stays, where Whisper makes 50 clock of
            5 o'clock. Digits said one by one are one number, as there (one two three is 123).
        characters: each Han or kana character is a word, so that the word error rate of Chinese is
            a character error rate; anything else is divided at white space. Mixed text gives both.
            With `ko`, each syllable of Hangul is a word, too, and with `th` each character of Thai.
        punctuation: punctuation and symbols are dropped and divide words, except an apostrophe
            between letters (it's, in any of the characters that stand for it) and a point between digits (2.5).
        fillers: the words of `FILLERS` are dropped.
        erhua: Mandarin's 儿 as a suffix is dropped, over white space too (哪儿 is 哪), but not where
            it is a syllable of its own, by `ERHUA_KEPT_AFTER` and `ERHUA_KEPT_BEFORE` (女儿, 儿童).

    Raises:
        DataError: `numbers` without a language of `NUMBER_LANGUAGES`: by text alone, "3" on one
            side and "三" on the other would not be treated alike.
    """

    language: str = "auto"
    nfkc: bool = True
    lower: bool = True
    simplified: bool = False
    numbers: bool = False
    characters: bool = True
    punctuation: bool = True
    fillers: bool = False
    erhua: bool = False

    def __post_init__(self) -> None:
        if self.numbers and self.language not in NUMBER_LANGUAGES:
            raise DataError(
                f"normalising numbers needs a language, {' or '.join(NUMBER_LANGUAGES)};"
                f" got {self.language!r}: name the language, or switch numbers off"
            )

    def words(self, text: str) -> list[str]:
        """Return the words that are compared, none of them empty or with white space in it.

        Raises:
            ExtraError: `wetext`, which numbers of `zh` need, or `opencc` is not installed.
        """
        ascii_only, dotted = text.isascii(), self.lower and self.language in _DOTTED_IN
        changes = self.numbers or self.fillers or dotted
        if ascii_only and not changes and _PLAIN.fullmatch(text):
            return (text.lower() if self.lower else text).split()
        if self.punctuation and (not ascii_only or "`" in text):
            text = _APOSTROPHE.sub("'", text)
        if self.nfkc and not ascii_only:
            text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
        if self.lower:
            text = text.translate(_DOTTED) if dotted else text
            text = text.lower().replace("i\u0307", "i")  # of İ
            if self.nfkc and not ascii_only:  # lower case may decompose
                text = unicodedata.normalize("NFKC", text)
        if self.simplified and not ascii_only:
            text = str(_simplifier().convert(text))
        if self.numbers:
            text = _spoken_chinese(text) if self.language == "zh" else _english_digits(text)
        if self.characters and not text.isascii():
            text = _ALONE.sub(r" \1 ", text)
            if self.language in _ALONE_IN:
                text = _ALONE_IN[self.language].sub(r" \1 ", text)
        if self.punctuation:
            text = _without_punctuation(text)
        if self.fillers:
            text = " ".join(word for word in text.split() if word not in FILLERS)
        if self.erhua:
            text = _ERHUA.sub(_without_erhua, text)
        return text.split()

    def describe(self) -> dict[str, Any]:
        """Return the switches, JSON-ready, and the libraries that normalise numbers and simplify characters.

        Raises:
            ExtraError: a step needs `wetext` or `opencc`, which is not installed.
        """
        if self.simplified:
            _simplifier()
        if self.numbers and self.language == "zh":
            _chinese()
        tool = {"en": "transformers", "zh": "wetext"}.get(self.language) if self.numbers else None
        numbers_by = f"{tool} {importlib.metadata.version(tool)}" if tool else None
        simplified_by = (
            f"opencc {importlib.metadata.version('opencc')}" if self.simplified else None
        )
        return {**asdict(self), "numbers_by": numbers_by, "simplified_by": simplified_by}


class _Dropped(dict[int, str | int]):
    """Table for `str.translate`, filled as characters come up: characters that divide words become spaces."""

    def __missing__(self, code: int) -> str | int:
        divides = unicodedata.category(chr(code))[0] in "PS"
        self[code] = " " if divides else code
        return self[code]


_DROPPED = _Dropped()


def _without_punctuation(text: str) -> str:
    parts: list[str] = []
    end = 0
    for kept in _INSIDE_WORDS.finditer(text):
        parts += text[end : kept.start()].translate(_DROPPED), "." if kept[2] else "'"
        end = kept.end()
    return "".join((*parts, text[end:].translate(_DROPPED)))


def _without_erhua(match: re.Match[str]) -> str:
    kept = match[1] in ERHUA_KEPT_AFTER or match[1] in FILLERS
    return match[0] if kept else match[1]


def _spoken_chinese(text: str) -> str:
    return str(_chinese().normalize(text))


def _english_digits(text: str) -> str:
    """Whisper's numbers, behind the steps of its normaliser that prepare them."""
    text = re.sub(r"(?<=\d),(?=\d)", "", text.replace("’", "'"))
    text = re.sub(r"\.(?!\d)", " ", text)
    parts, end = [], 0
    for apostrophe in re.finditer(r"(?<=[^\W\d_])'(?=[^\W\d_])", text):
        parts += [text[end : apostrophe.start()].translate(_DIVIDING), "'"]
        end = apostrophe.end()
    return str(_english()("".join([*parts, text[end:].translate(_DIVIDING)])))


class _Dividing(dict[int, str | int]):
    """Table for `str.translate`: symbols are spaces, but for those that belong to numbers."""

    def __missing__(self, code: int) -> str | int:
        divides = unicodedata.category(chr(code))[0] in "PS" and chr(code) not in ".%$¢€£"
        self[code] = " " if divides else code
        return self[code]


_DIVIDING = _Dividing()


@cache
def _chinese() -> Any:
    purpose, hint = "normalising Chinese numbers", ", or switch numbers off"
    return extras.load("wetext", "eval", purpose, hint).Normalizer(lang="zh", operator="tn")


@cache
def _simplifier() -> Any:
    purpose, hint = "simplifying Chinese characters", ", or leave out the step simplified"
    return extras.load("opencc", "eval", purpose, hint).OpenCC("t2s")


@cache
def _english() -> Any:
    return importlib.import_module(
        "transformers.models.whisper.english_normalizer"
    ).EnglishNumberNormalizer()
