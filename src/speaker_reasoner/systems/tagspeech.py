"""TagSpeech: words and speakers in two lists of markup, joined by their times. It runs in a program of its own.

The model is an example of the Auden project, with libraries of its own: the environment variable
TAGSPEECH_PYTHON names the Python that has them, TAGSPEECH_HOME the folder `examples/tagspeech` of a clone.
The program is `tagspeech_worker.py`; it reads and writes lines of JSON.
"""

import json
import os
import re
import subprocess
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AnswerError, EngineError, SettingsError
from ..formats.service_rows import Row
from ..transcript import Transcript
from .base import Answer, Sound, SystemOptions
from .checks import repeated
from .text import transcript_of

_NAME, _MODEL = "tagspeech", "AudenAI/TagSpeech-Alimeeting"
_PAIR = r"\d+(?:\.\d+)?\s*-\s*\d+(?:\.\d+)?"
_WORDS = re.compile(rf"({_PAIR})\s*>(.*)")
_SPEAKER = re.compile(r"<spk\b([^>]*?)/?>")
_FIELD = re.compile(r"(\w+)\s*=\s*[\"']([^\"']*)[\"']")
_GENDERS = {"f": "female", "m": "male"}


def parse(text: str, sound: Sound) -> Transcript:
    """The transcript of an answer's markup.

    A line has the speaker whose list of times has its own; of several such speakers, the next in order, which
    is told in a warning.

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
    rows, told, asked = [], 0, dict.fromkeys(owners, 0)
    for number, line in enumerate((x.strip() for x in words.splitlines() if x.strip()), start=1):
        match = _WORDS.fullmatch(line)
        if match is None:
            raise AnswerError(
                "format", f"line {number}: expected 0.00-1.00>words, got {line[:60]!r}"
            )
        pair = _pair(match[1])
        known = owners.get(pair, [])
        speaker = known[asked[pair] % len(known)] if known else None
        if known:
            asked[pair] += 1
            told += len(known) > 1
        rows.append(Row(f"answer, line {number}", speaker, *pair, match[2].strip()))
    warnings = (
        [f"{told} lines share their times with others; speakers were given in order"]
        if told
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


class TagSpeech:
    """TagSpeech in a program of its own.

    Args:
        options: `model` is a hub id or a folder.

    Raises:
        SettingsError: the environment does not name Python and folder.
        EngineError: the program does not start.
    """

    name = _NAME

    def __init__(self, options: SystemOptions) -> None:
        options.refuse(_NAME, "language", "hotwords", "speakers", "base_url")
        self.model = options.model or _MODEL
        paths = {name: os.environ.get(name, "") for name in ("TAGSPEECH_PYTHON", "TAGSPEECH_HOME")}
        for name, path in paths.items():
            if not path or not Path(path).exists():
                raise SettingsError(
                    f"--system {_NAME}: set the environment variable {name}, got {path!r}: TAGSPEECH_PYTHON is "
                    "a Python with the libraries of Auden, TAGSPEECH_HOME its folder examples/tagspeech"
                )
        self._lock = threading.Lock()
        worker = Path(__file__).with_name("tagspeech_worker.py")
        device = options.device or "auto"
        self._program = subprocess.Popen(
            [paths["TAGSPEECH_PYTHON"], str(worker), self.model, device],
            cwd=paths["TAGSPEECH_HOME"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._about = self._receive()
        except EngineError:
            self.close()
            raise

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {"model": self.model, "max_tokens": 800, "sdk": {"name": "Auden", **self._about}}

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        with self._lock, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sound.wav"
            path.write_bytes(sound.encoded("WAV"))
            assert self._program.stdin is not None
            try:
                self._program.stdin.write(json.dumps({"audio": str(path)}) + "\n")
                self._program.stdin.flush()
            except OSError as error:
                raise EngineError(f"{_NAME}: its program has ended") from error
            return Answer(self._receive(), self.model)

    def _receive(self) -> dict[str, Any]:
        """The next line of the program.

        Raises:
            EngineError: it ended, or says that it failed.
        """
        assert self._program.stdout is not None
        line = self._program.stdout.readline()
        try:
            said = json.loads(line)
        except ValueError as error:
            code = self._program.poll()
            raise EngineError(
                f"{_NAME}: expected a line of JSON from its program, got {line[:80]!r} (exit code {code})"
            ) from error
        if "error" in said:
            raise EngineError(f"{_NAME}: {said['error']}")
        return dict(said)

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return parse(str(answer.raw["text"]), sound)

    def close(self) -> None:
        """See `System`."""
        if self._program.stdin is not None:
            self._program.stdin.close()
        try:
            self._program.wait(10)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        if self._program.stdout is not None:
            self._program.stdout.close()


def load(options: SystemOptions) -> TagSpeech:
    """See `table.load`."""
    return TagSpeech(options)
