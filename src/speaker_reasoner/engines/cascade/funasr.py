"""Paraformer and SenseVoice by FunASR (extra `funasr`).

FunASR gives a text, and times of its pieces in milliseconds. An unpunctuated Chinese text has spaces between its
characters, a punctuated one has none. Punctuation has no times with Paraformer, and times with SenseVoice. The text
of SenseVoice begins with tags of language, emotion and event.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import extras
from ...audio import Samples
from ...errors import EngineError
from ...speech import Region
from ...transcript import Word
from .cuts import clips, words_of
from .hub import unheard, unusable
from .recogniser import Recognition, known_language

_LONGEST_S = 20.0
"""Longest clip (assumed)."""
_TAG = re.compile(r"<\|([^|]*)\|>")
_TONGUES = {"zh": "zh", "en": "en", "yue": "yue", "ja": "ja", "ko": "ko"}
NO_SPEECH, UNTIMED = (
    "SenseVoice took the sound for no speech",
    "the recogniser gave no times for them",
)


class _FunASR:
    """A model of FunASR, which recognises one clip after the other."""

    kind = ""
    languages: tuple[str, ...] = ()

    def __init__(
        self,
        model: str,
        *,
        language: str | None,
        device: str,
        threads: int,
        **parts: str,
    ) -> None:
        self.name = f"{self.kind}={model}"
        self._language = known_language(self.name, language, self.languages)
        self._device = device
        self._model: Any = _load(self.kind, model, device, threads, parts)

    def describe(self) -> dict[str, Any]:
        """See `Recogniser`."""
        from importlib.metadata import version

        return {
            "recogniser": self.name,
            "funasr": version("funasr"),
            "device": self._device,
            "language_given": self._language,
        }

    def _results(
        self, samples: Samples, speech: Sequence[Region], **options: Any
    ) -> list[tuple[Region, Mapping[str, Any]]]:
        """The answer to each clip."""
        results = []
        for region, sound in clips(samples, speech, _LONGEST_S):
            try:
                with unheard():
                    answers = self._model.generate(input=[sound], fs=16_000, **options)
            except Exception as error:  # torch's and FunASR's own, as they come
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise EngineError(f"{self.name}: {reason}") from error
            results += [(region, answer) for answer in answers]
        return results


class Paraformer(_FunASR):
    """Paraformer, with a punctuation model.

    Args:
        model: FunASR's name (`paraformer-zh`, `paraformer-en`), a hub id or a local folder.
        language: `zh` or `en`; by the model's name if `None`.
        hotwords: names and terms that are likely to occur.
        device: `cpu`, `cuda`, ...
        threads: on the CPU.
        punctuation: name of the punctuation model; none if empty.

    Raises:
        ExtraError: FunASR is not installed.
        CheckpointError: a model cannot be found or loaded.
        SettingsError: the model does not know the language.
    """

    kind = "paraformer"
    languages = ("zh", "en")

    def __init__(
        self,
        model: str = "paraformer-zh",
        *,
        language: str | None = None,
        hotwords: str | None = None,
        device: str = "cpu",
        threads: int = 0,
        punctuation: str = "ct-punc",
    ) -> None:
        parts = {"punc_model": punctuation} if punctuation else {}
        super().__init__(model, language=language, device=device, threads=threads, **parts)
        self._hotwords = hotwords
        self._spoken = language or ("en" if Path(model).name.endswith("-en") else "zh")

    def describe(self) -> dict[str, Any]:
        """See `Recogniser`."""
        return {**super().describe(), "hotwords": self._hotwords}

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        """See `Recogniser`."""
        hotwords = {"hotword": self._hotwords} if self._hotwords else {}
        answers = self._results(samples, speech, return_raw_text=True, **hotwords)
        return gathered([paraformer_words(a, region) for region, a in answers], self._spoken, 1.0)


class SenseVoice(_FunASR):
    """SenseVoice, which recognises the language of each clip and writes punctuation.

    Args:
        model: hub id or local folder.
        language: `zh`, `en`, `yue`, `ja` or `ko`; recognised if `None`.
        device: `cpu`, `cuda`, ...
        threads: on the CPU.

    Raises:
        ExtraError, CheckpointError, SettingsError: as `Paraformer`.
    """

    kind = "sensevoice"
    languages = tuple(_TONGUES)

    def __init__(
        self,
        model: str = "FunAudioLLM/SenseVoiceSmall",
        *,
        language: str | None = None,
        device: str = "cpu",
        threads: int = 0,
    ) -> None:
        super().__init__(model, language=language, device=device, threads=threads)

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        """See `Recogniser`. The language of each clip is recognised separately, unless the user named one."""
        answers = self._results(
            samples,
            speech,
            language=self._language or "auto",
            use_itn=True,
            output_timestamp=True,
        )
        parts = [sensevoice_words(answer, region) for region, answer in answers]
        spoken = [tag for (words, _, _), (_, a) in zip(parts, answers, strict=True) if words
                  for tag in _TAG.findall(str(a["text"])) if tag in _TONGUES]  # fmt: skip
        most = max(sorted(set(spoken)), key=spoken.count) if spoken else None
        share = spoken.count(most) / len(spoken) if most else 0.0
        return gathered(parts, self._language or most, 1.0 if self._language else share)


Part = tuple[list[Word], list[bool], dict[str, int]]


def paraformer_words(answer: Mapping[str, Any], region: Region) -> Part:
    """Words of an answer of Paraformer; see `cuts.words_of`."""
    text = str(answer.get("text", ""))
    pieces = str(answer.get("raw_text", text)).split()
    return _timed(text, pieces, answer.get("timestamp"), region)


def sensevoice_words(answer: Mapping[str, Any], region: Region) -> Part:
    """Words of an answer of SenseVoice; see `cuts.words_of`."""
    tagged = str(answer.get("text", ""))
    text = _TAG.sub("", tagged).strip()
    if "nospeech" in _TAG.findall(tagged):
        return [], [], {NO_SPEECH: len(text.split())} if text else {}
    return _timed(text, list(answer.get("words", ())), answer.get("timestamp"), region)


def _timed(text: str, pieces: Sequence[str], spans_ms: Any, region: Region) -> Part:
    """Words of timed pieces; none, and a count, if the times do not fit the pieces."""
    spans_s = [(float(a) / 1000, float(b) / 1000) for a, b in spans_ms or ()]
    if len(spans_s) != len(pieces) or not pieces:
        lost = len(pieces) or len(text.split())
        return [], [], {UNTIMED: lost} if lost else {}
    words, joined = words_of(text, pieces, spans_s, region)
    return words, joined, {}


def gathered(parts: Sequence[Part], language: str | None, sure: float) -> Recognition:
    """The words of all clips, in their order."""
    left_out: dict[str, int] = {}
    words: list[Word] = []
    joined: list[bool] = []
    for clip_words, together, lost in parts:
        words += clip_words
        joined += together
        for reason, count in lost.items():
            left_out[reason] = left_out.get(reason, 0) + count
    if not words:
        return Recognition(left_out=left_out)
    return Recognition(tuple(words), language, round(sure, 4), left_out, tuple(joined))


def _load(kind: str, model: str, device: str, threads: int, parts: Mapping[str, str]) -> Any:
    local = Path(model).expanduser()
    with unheard():
        package = extras.load("funasr", "funasr", f"the recogniser {kind}")
        try:
            return package.AutoModel(
                model=str(local) if local.is_dir() else model,
                device=device,
                hub="hf",
                disable_update=True,
                disable_pbar=True,
                log_level="ERROR",
                **({"ncpu": threads} if threads else {}),
                **parts,
            )
        except Exception as error:  # of the hub, the network, a registry, a damaged file
            known = unusable(f"recogniser {kind}={model}", model, error, local=local.is_dir())
            raise known from error
