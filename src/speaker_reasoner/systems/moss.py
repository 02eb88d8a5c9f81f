"""MOSS-Transcribe-Diarize: `[0.48][S01]words[1.66]...`, by transformers in this process or vLLM's transcriptions.

The parser is our own. That of transformers takes the words `[2024]` for a time and fails on `[laughter]`; that
of vLLM gives nothing at all if one turn lacks its end.
"""

import re
from typing import Any

import httpx

from ..engines.client import Unavailable
from ..errors import AnswerError
from ..formats.service_rows import ServiceRow
from ..transcript import Transcript
from ..version import __version__
from .base import MOST_TOKENS, Answer, Sound, SystemOptions, Usage, is_swapped
from .checks import repeated
from .hub import HubModel, whole_text
from .service import NO_JSON, SEGMENTS, http_error, service_transcript
from .text import transcript_of

_NAME, _MODEL = "moss", "OpenMOSS-Team/MOSS-Transcribe-Diarize"
_TURN = re.compile(r"\[(\d+(?:\.\d+)?)\]\s*\[(S\d+)\]")
_END = re.compile(r"\[(\d+(?:\.\d+)?)\]\s*\Z")
_SPEAKER = re.compile(r"\[S\d+\]")


def parse(text: str, sound: Sound) -> Transcript:
    """The transcript of a raw answer.

    A turn begins with a time and a speaker, and ends with the last time before the next turn: brackets in
    between are words.

    Raises:
        AnswerError: `loop`, `truncated`, `no-times`, `empty` or `format`.
    """
    span = repeated(text)
    if span is not None:
        raise AnswerError("loop", f"{span[:60]!r} over and over")
    body = text.strip()
    if not body:
        raise AnswerError("empty", "the answer has no text")
    starts = list(_TURN.finditer(body))
    if not starts:
        reason = "no-times" if _SPEAKER.search(body) else "format"
        raise AnswerError(reason, f"no turn as [0.00][S01]words[1.00] in {body[:80]!r}")
    if body[: starts[0].start()].strip():
        raise AnswerError(
            "format", f"words before the first turn: {body[: starts[0].start()][:60]!r}"
        )
    rows = []
    for number, match in enumerate(starts):
        last = number + 1 == len(starts)
        said = body[match.end() : len(body) if last else starts[number + 1].start()]
        end = _END.search(said)
        if end is None and last:
            raise AnswerError("truncated", f"the last turn has no end: {said[-60:]!r}")
        if end is None:
            raise AnswerError("no-times", f"turn {number + 1} has no end: {said[:60]!r}")
        words = said[: end.start()].strip()
        rows.append(
            ServiceRow(
                f"answer, turn {number + 1}", match[2], float(match[1]), float(end[1]), words
            )
        )
    return transcript_of(rows, sound)


class Moss(HubModel):
    """MOSS-Transcribe-Diarize in this process."""

    def _hotwords(self) -> list[str]:
        return self.options.terms

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        return parse(whole_text(answer.raw), sound)


class ServedMoss:
    """MOSS-Transcribe-Diarize behind vLLM, which diarizes in its transcriptions.

    Args:
        options: `base_url` is the address of the API.
    """

    name = _NAME

    def __init__(self, options: SystemOptions) -> None:
        assert options.base_url is not None
        options.refuse(_NAME, "device", "hotwords")
        self.model = options.model or _MODEL
        headers = {"user-agent": f"speaker-reasoner/{__version__}"}
        if options.key is not None:
            headers["authorization"] = f"Bearer {options.key}"
        self._url = options.base_url.rstrip("/") + "/audio/transcriptions"
        self._http = httpx.Client(timeout=options.timeout_s, headers=headers)

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {
            "model": self.model,
            "response_format": "diarized_json",
            "max_tokens": MOST_TOKENS,
            "sdk": {"name": "speaker-reasoner", "version": __version__},
        }

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        fields = {
            "model": self.model,
            "response_format": "diarized_json",
            "temperature": "0",
            "max_completion_tokens": str(MOST_TOKENS),
        }
        files = {"file": ("sound.wav", sound.encoded("WAV"), "audio/wav")}
        try:
            response = self._http.post(self._url, data=fields, files=files)
        except httpx.HTTPError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        try:
            raw = response.json()
        except NO_JSON as error:
            raise http_error(_NAME, response.status_code, response.text[:200]) from error
        if response.status_code != 200 or not isinstance(raw, dict):
            said = raw.get("error", raw) if isinstance(raw, dict) else raw
            raise http_error(_NAME, response.status_code, said, dict(response.headers), raw)
        answered = raw.get("model") if isinstance(raw.get("model"), str) else None
        if is_swapped(self.model, answered):
            raise AnswerError("swapped-model", f"asked for {self.model}, {answered} answered", raw)
        used = raw.get("usage")
        seconds = used.get("seconds") if isinstance(used, dict) else None
        return Answer(raw, answered, None, Usage(billed_s=seconds))

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        raw = answer.raw
        if isinstance(raw.get("segments"), list):
            return service_transcript(SEGMENTS, raw, sound)
        if isinstance(raw.get("text"), str):
            return parse(raw["text"], sound)
        raise AnswerError("format", f"expected segments or text, got {', '.join(raw) or 'nothing'}")

    def close(self) -> None:
        """See `System`."""
        self._http.close()


def load(options: SystemOptions) -> Moss | ServedMoss:
    """See `table.load`."""
    options.refuse(_NAME, "language", "speakers")
    if options.base_url is not None:
        return ServedMoss(options)
    return Moss(_NAME, _MODEL, "MossTranscribeDiarizeForConditionalGeneration", "keywords", options)
