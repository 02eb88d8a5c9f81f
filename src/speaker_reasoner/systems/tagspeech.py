"""TagSpeech: words and speakers in two lists of markup, joined by their times. It runs in a program of its own.

The model is an example of the Auden project, with libraries of its own: `--system-python` names the Python
that has them, the environment variable TAGSPEECH_HOME the folder `examples/tagspeech` of a clone.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AnswerError, SettingsError
from ..formats.service_rows import ServiceRow
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .checks import repeated
from .text import transcript_of
from .worker import Isolated

_NAME, _MODEL = "tagspeech", "AudenAI/TagSpeech-Alimeeting"
_HOME = "TAGSPEECH_HOME"
_MOST_TOKENS = 800
"""Greatest number of tokens in an answer about a minute of sound (assumed)."""
_PAIR = r"\d+(?:\.\d+)?\s*-\s*\d+(?:\.\d+)?"
_WORDS = re.compile(rf"({_PAIR})\s*>(.*)")
_SPEAKER = re.compile(r"<spk\b([^>]*?)/?>")
_FIELD = re.compile(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']")
_GENDERS = {"f": "female", "m": "male"}


def parse(text: str, sound: Sound) -> Transcript:
    """The transcript of an answer's markup.

    A line has the speaker whose list of times has its own; of several such speakers, the next in order, with
    a warning.

    Raises:
        AnswerError: `loop`, `truncated`, `empty` or `format`.
    """
    span = repeated(text)
    if span is not None:
        raise AnswerError("loop", f"{span[:60]!r} over and over")
    if not text.strip():
        raise AnswerError("empty", "the answer has no text")
    if "<text>" not in text:
        raise AnswerError("format", f"no <text> in {text[:80]!r}")
    for tag in ("text", "speaker"):
        if f"</{tag}>" not in text:
            raise AnswerError("truncated", f"no </{tag}>, the answer ends with {text[-60:]!r}")
    words = text.partition("<text>")[2].partition("</text>")[0]
    speakers = text.partition("<speaker>")[2].partition("</speaker>")[0]
    owners, genders = _owners(speakers)
    rows, shared, given = [], 0, dict.fromkeys(owners, 0)
    for number, line in enumerate((x.strip() for x in words.splitlines() if x.strip()), start=1):
        match = _WORDS.fullmatch(line)
        if match is None:
            raise AnswerError(
                "format", f"line {number}: expected 0.00-1.00>words, got {line[:60]!r}"
            )
        pair = _pair(match[1])
        known = owners.get(pair, [])
        speaker = known[given[pair] % len(known)] if known else None
        if known:
            given[pair] += 1
            shared += len(known) > 1
        rows.append(ServiceRow(f"answer, line {number}", speaker, *pair, match[2].strip()))
    warnings = (
        [f"{shared} lines share their times with others; speakers were given in order"]
        if shared
        else []
    )
    transcript = transcript_of(rows, sound, warnings)
    return transcript.with_segments(
        [replace(s, gender=genders.get(s.speaker, "unknown")) for s in transcript.segments]
    )


def _pair(text: str) -> tuple[float, float]:
    start, _, end = text.partition("-")
    return float(start), float(end)


def _owners(markup: str) -> tuple[dict[tuple[float, float], list[str]], dict[str, str]]:
    """Speakers by the times of their lines, and genders by speaker."""
    owners: dict[tuple[float, float], list[str]] = {}
    genders: dict[str, str] = {}
    for match in _SPEAKER.finditer(markup):
        fields = dict(_FIELD.findall(match[1]))
        speaker = fields.get("id", "").strip()
        if not speaker:
            raise AnswerError("format", f"a speaker without an id: {match[0][:60]!r}")
        genders[speaker] = _GENDERS.get(fields.get("g", "").lower()[:1], "unknown")
        for pair in re.findall(_PAIR, fields.get("t", "")):
            owners.setdefault(_pair(pair), []).append(speaker)
    return owners, genders


class TagSpeech(Isolated):
    """TagSpeech in a program of its own.

    Args:
        options: `model` is a hub id or a folder, `python` that of its environment.

    Raises:
        SettingsError: the environment does not name the folder.
        ExtraError, CheckpointError: see `Subprocess.start`.
    """

    def __init__(self, options: SystemOptions) -> None:
        options.refuse(_NAME, "language", "hotwords", "speakers", "base_url")
        folder = os.environ.get(_HOME, "")
        if not (Path(folder) / "model.py").is_file() and not (Path(folder) / "model").is_dir():
            raise SettingsError(
                f"--system {_NAME}: set the environment variable {_HOME} to the folder examples/tagspeech of a "
                f"clone of Auden, got {folder!r}"
            )
        model = options.model or _MODEL
        self._settings = {"model": model, "device": options.device, "max_tokens": _MOST_TOKENS}
        settings = {**self._settings, "folder": str(Path(folder).resolve())}
        super().__init__(_NAME, model, settings, "the libraries of Auden", options)

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {**self._settings, "sdk": {"name": "Auden", "versions": self.versions}}

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return parse(str(answer.raw["text"]), sound)


def load(options: SystemOptions) -> TagSpeech:
    """See `table.load`."""
    return TagSpeech(options)
