"""Whisper by faster-whisper (CTranslate2), its known failures caught.

What guesses about faster-whisper 1.2.1 get wrong, and what is done about it here: a segment is stretched over
a pause unless words are timed (they are); ends lie past the sound (cut to it); `clip_timestamps` switches
its voice filter off (it gets the speech alone, cut and joined here); `chunk_length` stays for later
callers (never given); a temperature above 0 samples at random (never used, so that the same sound gives the
same words); pure silence has a confident language (asked of speech alone); with a threshold on the
probability of no speech alone nothing is skipped (each segment is looked at here).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...audio import SAMPLE_RATE_HZ, Samples
from ...errors import CheckpointError, EngineError, SettingsError
from ...speech import Region
from ...transcript import Word
from .recogniser import Recognition

SIZES = (
    *("tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en"),
    *("large-v1", "large-v2", "large-v3", "large-v3-turbo", "turbo", "distil-large-v3"),
)

_JOIN_S = 0.3
"""Silence between stretches of speech that are heard one after the other."""
_LOOP_RATIO = 2.4
"""Text that can be compressed by more is said over and over (Whisper's own threshold)."""
_MOST_REPEATS = 4
"""A phrase is said so often in a row at most; what follows is left out."""
_LONGEST_PHRASE = 8
_MARKS = ".,;:!?。，！？、…\"'-"
_NO_SPEECH, _UNSURE = 0.6, -0.8
"""A segment is taken for noise where Whisper says that nobody speaks and the mean log-probability of its
tokens is lower; see docs/real-speech.md."""
_DOUBTFUL = 0.5
"""Mean word probability under which a language that was taken over from earlier chunks is doubted."""
_OTHER_LANGUAGE = 0.8
"""Probability from which another language is believed."""

NOISE, REPEATED, BEYOND = (
    "Whisper itself took the sound for no speech",
    "a phrase was repeated over and over",
    "they lay past the end of the sound",
)


class FasterWhisper:
    """A Whisper model in CTranslate2's format.

    Args:
        model: a size, a local folder or a hub id.
        name: what a transcript records; the model's by default.
        language: ISO 639-1 code; recognised if `None`.
        hotwords: names and terms that are likely to be said.
        beam: hypotheses of the search.
        device: `cpu`, `cuda`, `auto`.
        threads: on the CPU.

    Raises:
        CheckpointError: the package is missing, or the model cannot be found or loaded.
        SettingsError: the model does not know the language.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        name: str | None = None,
        language: str | None = None,
        hotwords: str | None = None,
        beam: int = 1,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self.name = name or f"whisper={model}"
        self._model: Any = _load(str(model), device, threads)
        self.languages: tuple[str, ...] = tuple(self._model.supported_languages)
        if language is not None and language not in self.languages:
            raise SettingsError(
                f"language {language!r}: {self.name} knows {', '.join(self.languages)}; expected one of "
                "these codes"
            )
        self._language = language
        self._hotwords = hotwords
        self._beam = beam

    def describe(self) -> dict[str, Any]:
        """See `Recogniser`."""
        from ctranslate2 import __version__ as engine
        from faster_whisper import __version__ as package

        model = self._model.model
        return {
            "recogniser": self.name,
            "faster_whisper": package,
            "ctranslate2": engine,
            "device": str(model.device),
            "compute_type": str(model.compute_type),
            "beam": self._beam,
            "language_given": self._language,
            "hotwords": self._hotwords,
        }

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        """See `Recogniser`."""
        sound = _Joined(samples, speech)
        if not len(sound.samples):
            return Recognition()
        given = self._language or language
        found = self._hear(sound, given)
        if self._language is None and language is not None and _mean(found.words) < _DOUBTFUL:
            other, probability = self._detect(sound.samples)
            if other != language and probability >= _OTHER_LANGUAGE:
                found = self._hear(sound, other, probability)
        return found

    def _detect(self, samples: Samples) -> tuple[str, float]:
        code, probability, _ = self._model.detect_language(samples)
        return str(code), float(probability)

    def _hear(
        self, sound: "_Joined", language: str | None, probability: float | None = None
    ) -> Recognition:
        try:
            rows, info = self._transcribe(sound.samples, language)
            left_out: Counter[str] = Counter()
            words: list[Word] = []
            joined: list[bool] = []
            for row in rows:
                for said in self._kept(sound, row, str(info.language), left_out):
                    if not said.word.strip():
                        continue
                    word = sound.timed(said)
                    if word is None:
                        left_out[BEYOND] += 1
                        continue
                    if words and word.start_s < words[-1].start_s:  # words share a start at most
                        start_s = words[-1].start_s
                        word = replace(word, start_s=start_s, end_s=max(start_s, word.end_s))
                    joined.append(not said.word.startswith(" ") and bool(words))
                    words.append(word)
        except (RuntimeError, ValueError) as error:  # CTranslate2's, as they come
            raise EngineError(f"{self.name}: {str(error).splitlines()[0]}") from error
        words, joined = _without_loops(words, joined, left_out)
        if not words:
            return Recognition(left_out=left_out)
        sure = float(info.language_probability) if probability is None else probability
        return Recognition(tuple(words), str(info.language), sure, left_out, tuple(joined))

    def _transcribe(self, samples: Samples, language: str | None, **options: Any) -> Any:
        rows, info = self._model.transcribe(
            samples,
            language=language,
            beam_size=self._beam,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            hotwords=self._hotwords,
            **options,
        )
        return list(rows), info

    def _kept(self, sound: "_Joined", row: Any, language: str, left_out: Counter[str]) -> list[Any]:
        """The words of a segment; heard again, without repeating itself, where it looped."""
        if row.no_speech_prob > _NO_SPEECH and row.avg_logprob < _UNSURE:
            left_out[NOISE] += len(row.words)
            return []
        if row.compression_ratio <= _LOOP_RATIO:
            return list(row.words)
        first, last = (round(time_s * SAMPLE_RATE_HZ) for time_s in (row.start, row.end))
        part = sound.samples[first:last]
        if not len(part):
            left_out[REPEATED] += len(row.words)
            return []
        again, _ = self._transcribe(part, language, no_repeat_ngram_size=3)
        kept = []
        for one in again:
            for word in one.words if one.compression_ratio <= _LOOP_RATIO else ():
                word.start, word.end = word.start + row.start, word.end + row.start
                kept.append(word)
        left_out[REPEATED] += max(0, len(row.words) - len(kept))
        return kept


class _Joined:
    """The speech of a chunk, stretch after stretch with a short silence between, and back in time.

    Attributes:
        samples: float32 `[n]` at 16 kHz; empty where nobody speaks.
    """

    def __init__(self, samples: Samples, speech: Sequence[Region]) -> None:
        gap = np.zeros(round(_JOIN_S * SAMPLE_RATE_HZ), np.float32)
        parts: list[Samples] = []
        self._stretches: list[
            tuple[float, float, float]
        ] = []  # start joined, start and end in chunk
        at = 0
        for start_s, end_s in speech:
            first, last = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
            part = samples[first:last]
            if not len(part):
                continue
            if parts:
                parts.append(gap)
                at += len(gap)
            start_s = first / SAMPLE_RATE_HZ
            self._stretches.append(
                (at / SAMPLE_RATE_HZ, start_s, start_s + len(part) / SAMPLE_RATE_HZ)
            )
            parts.append(part)
            at += len(part)
        self.samples: Samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def timed(self, said: Any) -> Word | None:
        """A word of faster-whisper in seconds of the chunk; `None` where it lies past the end."""
        middle_s = (said.start + said.end) / 2
        if said.start >= len(self.samples) / SAMPLE_RATE_HZ:
            return None
        at_s, start_s, end_s = next(
            (s for s in reversed(self._stretches) if s[0] <= middle_s), self._stretches[0]
        )
        first, last = (
            min(max(time_s - at_s + start_s, start_s), end_s) for time_s in (said.start, said.end)
        )
        text, sure = "".join(said.word.split()), round(float(said.probability), 4)
        return Word(text, round(first, 6), round(max(first, last), 6), sure)


def _mean(words: Sequence[Word]) -> float:
    sure = [word.confidence for word in words if word.confidence is not None]
    return sum(sure) / len(sure) if sure else 0.0


def _without_loops(
    words: Sequence[Word], joined: Sequence[bool], left_out: Counter[str]
) -> tuple[list[Word], list[bool]]:
    """Words without phrases that are said more than `_MOST_REPEATS` times in a row."""
    kept: list[int] = []
    texts: list[str] = []
    times = _MOST_REPEATS + 1
    for i, word in enumerate(words):
        kept.append(i)
        texts.append(word.text.casefold().strip(_MARKS))
        for length in range(1, _LONGEST_PHRASE + 1):
            if len(texts) >= times * length and texts[-times * length :] == texts[-length:] * times:
                del kept[-length:], texts[-length:]
                left_out[REPEATED] += length
                break
    return [words[i] for i in kept], [joined[i] for i in kept]


def _load(model: str, device: str, threads: int) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise CheckpointError(
            f"recogniser whisper: {error}; pip install 'speaker-reasoner[whisper]'"
        ) from error
    local = Path(model).expanduser()
    if not local.is_dir() and model not in SIZES and model.count("/") != 1:
        raise CheckpointError(
            f"recogniser whisper={model}: there is no folder of that name, and it is none of "
            f"{', '.join(SIZES)} and no hub id (OWNER/NAME)"
        )
    target = str(local) if local.is_dir() else model
    try:
        return WhisperModel(target, device=device, compute_type="default", cpu_threads=threads or 0)
    except (
        Exception
    ) as error:  # of the hub, the network, CTranslate2: as many as there are ways to fail
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = (
            "is the folder whole, and in CTranslate2's format?"
            if local.is_dir()
            else "is there a network? A folder with the model does without"
        )
        raise CheckpointError(
            f"recogniser whisper={model}: cannot be loaded: {reason}; {remedy}"
        ) from error
