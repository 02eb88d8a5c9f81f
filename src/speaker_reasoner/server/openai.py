"""Answers in the form of OpenAI's API: transcripts, server-sent events.

Nothing here reads a request or runs a model. Sources: OpenAI's API reference for
`POST /v1/audio/transcriptions`, and the types of its official Python client.
"""

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..formats.reading import Habits, render_srt_to_read, render_vtt_to_read
from ..formats.words import OPENAI, word_rows
from ..spans import find_overlaps
from ..transcript import Missing, Segment, Transcript
from .forms import TranscriptionForm


@dataclass
class Letters:
    """Labels of a transcript as OpenAI gives them: known names stay, others are A, B, ..., AA.

    Attributes:
        names: of the known speakers.
    """

    names: frozenset[str] = frozenset()
    _given: dict[str, str] = field(default_factory=dict)
    _next: int = 0

    def of(self, label: str) -> str:
        """The name or letter of a label; a new label gets the next letter."""
        if label in self.names:
            return label
        if label not in self._given:
            self._given[label] = self._free()
        return self._given[label]

    def _free(self) -> str:
        while True:
            number, letters = self._next + 1, ""
            self._next += 1
            while number:
                number, rest = divmod(number - 1, 26)
                letters = chr(ord("A") + rest) + letters
            if letters not in self.names:
                return letters


def confidence_body(segment: Segment) -> dict[str, float | None]:
    """Confidence of a segment's words, speaker and times; null where unknown."""
    known = segment.confidence
    return {"words": known.words, "speaker": known.speaker, "times": known.times}


def segment_body(
    segment: Segment, number: int, letters: Letters, overlap: bool, words: bool = False
) -> dict[str, Any]:
    """A segment of `diarized_json`, also the event of a stream; with its words if they have times."""
    timed = {"words": word_rows(segment.words, OPENAI)} if words and segment.words else {}
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "start": segment.start_s,
        "end": segment.end_s,
        "speaker": letters.of(segment.speaker),
        "text": segment.text,
        "gender": segment.gender,
        "confidence": confidence_body(segment),
        "overlap": overlap,
        **timed,
    }


def diarized_body(transcript: Transcript, letters: Letters, words: bool = False) -> dict[str, Any]:
    """Return `diarized_json`, with keys of our own for confidences and warnings."""
    overlaps = find_overlaps(transcript.segments)
    return {
        "task": "transcribe",
        "duration": transcript.duration_s,
        "text": transcript.text,
        "segments": [
            segment_body(segment, number, letters, overlap, words)
            for number, (segment, overlap) in enumerate(
                zip(transcript.segments, overlaps, strict=True)
            )
        ],
        "usage": usage_body(transcript.duration_s),
        **_notes(transcript, words),
    }


def verbose_body(
    transcript: Transcript, letters: Letters, language: str, words: bool = False
) -> dict[str, Any]:
    """`verbose_json`.

    `words`, where asked for, are in order of start, each with its speaker. `avg_logprob` is the
    logarithm of the mean probability of the words, null where unknown; `no_speech_prob` is not
    estimated: 0.
    """
    overlaps = find_overlaps(transcript.segments)
    segments = []
    for number, segment in enumerate(transcript.segments):
        data, sure = segment.text.encode(), segment.confidence.words
        segments.append(
            {
                **segment_body(segment, number, letters, overlaps[number], words),
                "id": number,
                "seek": 0,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": None if sure is None else math.log(max(sure, 1e-9)),
                "compression_ratio": len(data) / len(zlib.compress(data)) if data else 1.0,
                "no_speech_prob": 0.0,
            }
        )
    notes = _notes(transcript, words)
    if segments and notes["warnings"]:  # for clients that keep no other keys of the answer
        segments[0]["warnings"] = notes["warnings"]
    return {
        "task": "transcribe",
        "language": language,
        "duration": transcript.duration_s,
        "text": transcript.text,
        "segments": segments,
        **({"words": _all_words(transcript, letters)} if words else {}),
        "usage": usage_body(transcript.duration_s),
        **notes,
    }


def _all_words(transcript: Transcript, letters: Letters) -> list[dict[str, Any]]:
    rows = [
        {**row, "speaker": letters.of(segment.speaker)}
        for segment in transcript.segments
        for row in word_rows(segment.words or (), OPENAI)
    ]
    return sorted(rows, key=lambda row: float(row["start"]))


def usage_body(duration_s: float) -> dict[str, Any]:
    """The usage of a request: the seconds of its audio."""
    return {"type": "duration", "seconds": duration_s}


def missing_body(missing: Iterable[Missing]) -> list[dict[str, Any]]:
    """Stretches that were not transcribed."""
    return [{"start": gap.start_s, "end": gap.end_s, "reason": gap.reason} for gap in missing]


def _notes(transcript: Transcript, words: bool) -> dict[str, Any]:
    """Return missing stretches and warnings."""
    untimed = sum(1 for s in transcript.segments if s.text and not s.words) if words else 0
    warnings = [f"{untimed} segments have no times of words"] if untimed else []
    return {
        "missing": missing_body(transcript.missing),
        "warnings": [*transcript.warnings, *warnings],
    }


def language_warnings(transcript: Transcript, form: TranscriptionForm) -> list[str]:
    """A warning to a client that named a language, if another one was recognised."""
    spoken, asked = transcript.info.get("language"), form.language
    if not spoken or not asked or asked == spoken:
        return []
    return [f"language {asked!r} was asked for and {spoken!r} was recognised"]


def answer(
    transcript: Transcript, form: TranscriptionForm, language: str
) -> tuple[str, dict[str, Any] | str, tuple[str, ...]]:
    """The media type and body of a transcription that is not streamed, and its warnings.

    Args:
        language: of the model, for transcripts that do not state the recognised one.
    """
    language = str(transcript.info.get("language") or language)
    letters = Letters(frozenset(form.known_speaker_names))
    body = _body(transcript, form, language, letters)
    kind = {"srt": "application/x-subrip", "vtt": "text/vtt", "text": "text/plain"}
    notes = _notes(transcript, form.wants_words)["warnings"]
    return kind.get(form.response_format, "application/json"), body, tuple(notes)


def _body(
    transcript: Transcript, form: TranscriptionForm, language: str, letters: Letters
) -> dict[str, Any] | str:
    match form.response_format:
        case "diarized_json":
            return diarized_body(transcript, letters, form.wants_words)
        case "verbose_json":
            return verbose_body(transcript, letters, language, form.wants_words)
        case "json":
            warnings = _notes(transcript, False)["warnings"]
            return {
                "text": transcript.text,
                "usage": usage_body(transcript.duration_s),
                **({"warnings": warnings} if warnings else {}),
            }
        case "text":
            return f"{transcript.text}\n"
        case "srt":
            return render_srt_to_read(_lettered(transcript, letters), Habits())
        case "vtt":
            return render_vtt_to_read(_lettered(transcript, letters), Habits())


def _lettered(transcript: Transcript, letters: Letters) -> Transcript:
    """A transcript with the labels that it has in every format of this route."""
    segments = [replace(one, speaker=letters.of(one.speaker)) for one in transcript.segments]
    return transcript.with_segments(segments)


class TranscriptStream:
    """The events of a streamed transcription, as text.

    Args:
        form: of the request; `diarized_json` and `verbose_json` get segments besides deltas.
    """

    def __init__(self, form: TranscriptionForm) -> None:
        self._segments = form.response_format in ("diarized_json", "verbose_json")
        self._words = form.wants_words
        self._letters = Letters(frozenset(form.known_speaker_names))
        self._begun = False

    def delta(self, segment: Segment, number: int) -> Iterator[str]:
        """Yield the delta of a segment that is newly known."""
        if segment.text:
            delta = {"delta": f" {segment.text}" if self._begun else segment.text}
            if self._segments:
                delta["segment_id"] = f"seg_{number}"
            self._begun = True
            yield sse({"type": "transcript.text.delta", **delta})

    def segment(self, segment: Segment, number: int, overlap: bool) -> Iterator[str]:
        """Yield a segment, once its speaker is linked over the whole recording."""
        if self._segments:
            yield sse(segment_body(segment, number, self._letters, overlap, self._words))

    def done(self, transcript: Transcript) -> str:
        """Return the last event, with the whole text in order of start.

        With segments, it also holds those of the last pass, under the letters of the stream. They are no events of
        their own, which OpenAI's client would take for further segments.
        """
        usage = usage_body(transcript.duration_s)
        final: dict[str, Any] = {}
        if self._segments:
            final = diarized_body(transcript, self._letters, self._words)
            final = {"segments": final["segments"], "duration": final["duration"]}
        notes = _notes(transcript, self._words)
        data = {"text": transcript.text, "usage": usage, **final, **notes}
        return sse({"type": "transcript.text.done", **data})


def sse(data: Mapping[str, Any], *, event: str | None = None, number: int | None = None) -> str:
    """Render one server-sent event; its name is the data's `type` by default."""
    name = event or data["type"]
    lead = "" if number is None else f"id: {number}\n"
    return f"{lead}event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
