"""NVIDIA's Parakeet by onnx-asr, in ONNX Runtime (extra `parakeet`).

onnx-asr gives tokens with the time of each; a token with a leading space begins a word. There are no end times: a
word ends where the next one begins, or shortly after its last token.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import extras
from ...audio import Samples
from ...errors import EngineError
from ...speech import Region
from ...transcript import Word
from .cuts import clips
from .hub import unheard, unusable
from .recogniser import Recognition, known_language

DEFAULT = "nemo-parakeet-tdt-0.6b-v3"
_LONGEST_S = 30.0
"""Longest clip (assumed)."""
_AT_ONCE = 4
_TOKEN_S = 0.24
"""Longest duration of a clip's last token (assumed)."""
_ENGLISH = ("v2", "ctc-0.6b", "rnnt-0.6b", "en")
_LANGUAGES = (
    *("bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "hr", "hu", "it"),
    *("lt", "lv", "mt", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "uk"),
)
"""Languages of version 3, which recognises the language but does not return it."""


class Parakeet:
    """A Parakeet model in ONNX.

    Args:
        model: name of onnx-asr (`nemo-parakeet-tdt-0.6b-v3`, `...-v2`), hub id, or local folder.
        language: ISO 639-1 code of the spoken language, which only the transcript records.
        device: `cpu`, `cuda`, `auto`.

    Raises:
        ExtraError: onnx-asr is not installed.
        CheckpointError: the model cannot be found or loaded.
        SettingsError: the model does not know the language.
    """

    def __init__(
        self, model: str = DEFAULT, *, language: str | None = None, device: str = "auto"
    ) -> None:
        self.name = f"parakeet={model}"
        self.languages = ("en",) if model.endswith(_ENGLISH) else _LANGUAGES
        language = known_language(self.name, language, self.languages)
        self._given = language
        self._language = language or (self.languages[0] if len(self.languages) == 1 else None)
        self._device = device
        self._model: Any = _load(model, device)

    def describe(self) -> dict[str, Any]:
        """See `Recogniser`."""
        from importlib.metadata import version

        return {
            "recogniser": self.name,
            "onnx_asr": version("onnx-asr"),
            "device": self._device,
            "language_given": self._given,
        }

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        """See `Recogniser`."""
        parts = clips(samples, speech, _LONGEST_S)
        words: list[Word] = []
        for first in range(0, len(parts), _AT_ONCE):
            chosen = parts[first : first + _AT_ONCE]
            try:
                answers = self._model.recognize([sound for _, sound in chosen], sample_rate=16_000)
            except Exception as error:  # ONNX Runtime's own classes
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise EngineError(f"{self.name}: {reason}") from error
            for (region, _), answer in zip(chosen, answers, strict=True):
                words += parakeet_words(answer, region)
        if not words:
            return Recognition()
        known = self._language
        sure = 1.0 if known is not None else 0.0
        return Recognition(tuple(words), known, sure, {}, (False,) * len(words))


def parakeet_words(answer: Any, region: Region) -> list[Word]:
    """Words of a `TimestampedResult`, in seconds of the chunk; none lies outside the region."""
    tokens, times_s = answer.tokens or [], answer.timestamps or []
    logprobs = answer.logprobs or [None] * len(tokens)
    groups: list[list[int]] = []
    for i, token in enumerate(tokens):
        spoken = any(c.isalnum() for c in token)
        if not groups or (token.startswith(" ") and (spoken or len(token) > 2)):
            groups.append([])
        groups[-1].append(i)
    low, high = region
    words = []
    for number, group in enumerate(groups):
        text = "".join("".join(tokens[i] for i in group).split())
        if not text:
            continue
        until_s = times_s[groups[number + 1][0]] if number + 1 < len(groups) else math.inf
        start_s = min(low + times_s[group[0]], high)
        end_s = min(low + min(times_s[group[-1]] + _TOKEN_S, until_s), high)
        known = [logprobs[i] for i in group if logprobs[i] is not None]
        sure = round(min(1.0, math.exp(sum(known) / len(known))), 4) if known else None
        words.append(Word(text, round(start_s, 6), round(max(start_s, end_s), 6), sure))
    return words


def _load(model: str, device: str) -> Any:
    package = extras.load("onnx_asr", "parakeet", "the recogniser parakeet")
    folder = Path(model).expanduser()
    local = folder.is_dir()
    on_cpu = device == "cpu"
    where = {"providers": ["CPUExecutionProvider"]} if on_cpu else {}
    try:
        with unheard():
            if local:
                small = any(folder.glob("*.int8.onnx"))
                options = {**where, "quantization": "int8" if small else None}
                loaded = package.load_model(_kind(folder), folder, **options)
            else:
                loaded = package.load_model(model, **where)
        return loaded.with_timestamps()
    except Exception as error:  # of the hub, the network, ONNX Runtime
        raise unusable(f"recogniser parakeet={model}", model, error, local=local) from error


def _kind(folder: Path) -> str:
    """The type that a folder names in its `config.json`."""
    config = folder / "config.json"
    known = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    return str(known.get("model_type", "nemo-conformer-tdt"))
