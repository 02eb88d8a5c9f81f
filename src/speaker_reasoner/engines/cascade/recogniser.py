"""The interface of a recogniser: from samples to words with times, without speakers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...audio import Samples
from ...errors import SettingsError
from ...speech import Region
from ...transcript import Word


@dataclass(frozen=True, slots=True)
class Recognition:
    """The words of a stretch of sound.

    Attributes:
        words: in order of start, times in seconds of the samples, inside them.
        language: ISO 639-1 code; `None` where there are no words, or the recogniser gives none.
        language_probability: 0..1; 1 where the caller named the language.
        left_out: how many words were recognised and are not among `words`, by reason.
        doubt: evidence against the language that the caller named; empty for none.
        joined: whether each word follows the one before without a space (Chinese, Japanese, Thai).
    """

    words: tuple[Word, ...] = ()
    language: str | None = None
    language_probability: float = 0.0
    left_out: Mapping[str, int] = field(default_factory=dict)
    joined: tuple[bool, ...] = ()
    doubt: str = ""


class Recogniser(Protocol):
    """Recognises speech.

    Attributes:
        name: as a transcript records it.
    """

    name: str

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        """Recognise the words in samples.

        Args:
            samples: float32 `[n]` at 16 kHz.
            speech: regions to recognise, in seconds, in order and apart.
            language: that of the recording so far; a language that the user named comes first.

        Raises:
            EngineError: the recogniser failed.
        """

    def describe(self) -> dict[str, Any]:
        """Name, model, version and settings, for the transcript (JSON-ready)."""


def known_language(name: str, language: str | None, languages: Sequence[str]) -> str | None:
    """Return the code by which a recogniser knows a language; `None` is any.

    As with Whisper's own command, its English name may be given (`German`), in any case; a region that the recogniser
    does not know is left out (`en-US` is `en`).

    Raises:
        SettingsError: it does not know the language.
    """
    if language is None or language in languages:
        return language
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    given = language.strip().lower().replace("_", "-")
    by_lower_case = {code.lower(): code for code in languages}
    for code in (given, TO_LANGUAGE_CODE.get(given, given), given.partition("-")[0]):
        if code in by_lower_case:
            return by_lower_case[code]
    raise SettingsError(
        f"language {language!r}: {name} knows {', '.join(languages)}; expected one of these codes"
    )
