"""The characters that Chinese is written in: Whisper writes simplified or traditional ones, unpredictably."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from ...errors import CheckpointError
from ...transcript import Word

CHINESE = "zh"
WRITTEN = {
    CHINESE: "t2s",
    "zh-Hans": "t2s",
    "zh-Hant": "s2t",
    "zh-TW": "s2tw",
    "zh-HK": "s2hk",
}
"""Languages that a user may name, and OpenCC's conversion of each: Chinese is simplified unless said otherwise."""


def check_opencc(name: str) -> None:
    """Check that OpenCC is installed, for a recogniser of that name.

    Raises:
        CheckpointError: it is not.
    """
    try:
        import opencc  # noqa: F401
    except ImportError as error:
        raise CheckpointError(f"recogniser {name}: {error}; pip install opencc") from error


def spoken(language: str | None) -> str | None:
    """The language as Whisper knows it: `zh` of `zh-Hant`."""
    return CHINESE if language in WRITTEN else language


def converted(words: Sequence[Word], language: str) -> list[Word]:
    """Write Chinese words in the characters of a language of `WRITTEN`; times stay as they are.

    Characters are chosen in their context, over the borders of words, where that keeps their number.
    """
    texts, convert = [word.text for word in words], _conversion(WRITTEN[language])
    whole = convert("".join(texts))
    if len(whole) == sum(map(len, texts)):
        ends = iter(whole)
        parts = ["".join(next(ends) for _ in text) for text in texts]
    else:
        parts = [convert(text) for text in texts]
    return [replace(word, text=part) for word, part in zip(words, parts, strict=True)]


@cache
def _conversion(name: str) -> Callable[[str], str]:
    """OpenCC's conversion of a name. It reads its dictionaries once, not for each chunk."""
    from opencc import OpenCC

    convert: Callable[[str], str] = OpenCC(name).convert
    return convert
