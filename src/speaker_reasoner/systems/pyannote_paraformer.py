"""The paper's cascade: pyannote 3.1 says who speaks when, Paraformer what is said in each turn.

Both run in an environment of their own, whose versions of torch and transformers need not be ours. Paraformer gives
milliseconds from the start of the turn, and no times of its punctuation.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..engines.cascade.funasr import paraformer_words
from ..errors import AnswerError
from ..formats.gathering import gather
from ..formats.service_rows import ServiceRow, TimedWord
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .worker import Isolated

_MODEL = "pyannote/speaker-diarization-3.1+paraformer-zh"


class PyannoteParaformer(Isolated):
    """pyannote and Paraformer.

    Args:
        options: `model` is `DIARIZER+RECOGNISER`; `python` is that of their environment.
    """

    def __init__(self, options: SystemOptions) -> None:
        model = options.model or _MODEL
        diarizer, _, recogniser = model.partition("+")
        self._settings = {
            "diarizer": diarizer,
            "recogniser": recogniser or "paraformer-zh",
            "hotwords": options.hotwords,
            "speakers": options.speakers,
            "device": options.device,
        }
        super().__init__(
            "pyannote+paraformer", model, self._settings, "pyannote.audio funasr", options
        )

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        sdk = {"name": "pyannote.audio, funasr", "versions": self.versions}
        return {"model": self.model, **self._settings, "sdk": sdk}

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        raw = answer.raw
        if not isinstance(raw, dict) or not isinstance(raw.get("turns"), list):
            raise AnswerError("format", 'expected an object with "turns", a list')
        return gather(_rows(raw["turns"]), sound.recording, "answer")


def _rows(turns: list[Mapping[str, Any]]) -> Iterator[ServiceRow]:
    for number, turn in enumerate(turns, start=1):
        at, said = f"answer, turn {number}", turn.get("answer") or {}
        start, end = turn.get("start"), turn.get("end")
        if not isinstance(start, int | float) or not isinstance(end, int | float):
            raise AnswerError("no-times", f"{at}: start {start!r}, end {end!r}")
        words, _, _ = paraformer_words(said, (float(start), float(end)))
        timed = tuple(TimedWord(word.text, word.start_s, word.end_s) for word in words)
        text = str(said.get("text") or "").strip()
        yield ServiceRow(at, turn.get("speaker"), start, end, text, timed)


def load(options: SystemOptions) -> PyannoteParaformer:
    """See `table.load`."""
    options.refuse("pyannote+paraformer", "language", "base_url")
    return PyannoteParaformer(options)
