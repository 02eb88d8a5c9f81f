"""JSON of our own, the one format that keeps everything a transcript holds."""

import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import FormatError
from ..spans import find_overlaps
from ..transcript import Confidence, Missing, Segment, Transcript
from .sessions import load_json
from .words import NATIVE, parse_word_rows, word_rows

SCHEMA = "speaker-reasoner/transcript"
VERSION = 1
_NO_CONFIDENCE = Confidence()
_END_S = 1e12
"""Stands for the end of time, which JSON cannot hold."""


def render_json(transcript: Transcript) -> str:
    """Render our JSON: one object, exact, one segment per line.

    - `schema`, `version`: `"speaker-reasoner/transcript"`, `1`
    - `recording`, `duration_s`
    - `speakers`: of each its `label`, `gender` and `speech_s`, own overlaps counted once (derived)
    - `segments`: of each `speaker`, `gender`, `start_s`, `end_s`, `text`, `confidence` (`words`,
      `speaker`, `times`: each 0..1 or null) and `overlap`, whether another speaker talks at some
      time in it (derived); and `words`, left out where their times are not known: of each `text`,
      `start_s`, `end_s` and, where known, `confidence`; and `choices` where the reference accepts
      other words (`Segment.choices`)
    - `unscored`: stretches out of scoring, `[start_s, end_s]` each; left out where there are none
    - `missing`: stretches that were not transcribed: `start_s`, `end_s`, `reason`
    - `warnings`: sentences; `info`: an object; `traces`: a list of objects

    Reading it back gives an equal transcript; derived keys are computed anew. `NaN` and infinities
    have no place in it.

    Raises:
        FormatError: `info`, `traces` or a number cannot be expressed in JSON.
    """
    genders = transcript.genders
    overlaps = find_overlaps(transcript.segments)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "recording": transcript.recording,
        "duration_s": float(transcript.duration_s),
        "speakers": [
            {"label": label, "gender": genders[label], "speech_s": round(seconds, 6)}
            for label, seconds in speech_s(transcript).items()
        ],
        "segments": [
            _segment_data(segment, overlap)
            for segment, overlap in zip(transcript.segments, overlaps, strict=True)
        ],
        "missing": [
            {"start_s": float(gap.start_s), "end_s": float(gap.end_s), "reason": gap.reason}
            for gap in transcript.missing
        ],
        **(
            {"unscored": [[start_s, min(end_s, _END_S)] for start_s, end_s in transcript.unscored]}
            if transcript.unscored
            else {}
        ),
        "warnings": list(transcript.warnings),
        "info": transcript.info,
        "traces": list(transcript.traces),
    }
    return _lay_out({key: _json_ready(value, key) for key, value in data.items()})


def speech_s(transcript: Transcript) -> dict[str, float]:
    """Return seconds of speech by speaker, in order of appearance; own overlaps count once."""
    seconds: dict[str, float] = {}
    covered_to: dict[str, float] = {}
    for segment in transcript.segments:  # ordered by start
        start = max(segment.start_s, covered_to.get(segment.speaker, 0.0))
        seconds.setdefault(segment.speaker, 0.0)
        seconds[segment.speaker] += max(0.0, segment.end_s - start)
        covered_to[segment.speaker] = max(covered_to.get(segment.speaker, 0.0), segment.end_s)
    return seconds


def _segment_data(segment: Segment, overlap: bool) -> dict[str, Any]:
    confidence = segment.confidence
    words = segment.words
    timed: dict[str, Any] = {} if words is None else {"words": word_rows(words, NATIVE)}
    if segment.choices is not None:
        timed["choices"] = segment.choices
    return {
        "speaker": segment.speaker,
        "gender": segment.gender,
        "start_s": float(segment.start_s),
        "end_s": float(segment.end_s),
        "text": segment.text,
        "confidence": {
            part: None if value is None else float(value)
            for part, value in (
                ("words", confidence.words),
                ("speaker", confidence.speaker),
                ("times", confidence.times),
            )
        },
        "overlap": overlap,
        **timed,
    }


def _json_ready(value: Any, at: str) -> Any:
    """Return `value` in JSON's own types, or say which part has no equal there."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise FormatError(f"{at}: JSON keys are text, got {key!r}; use str keys")
        return {key: _json_ready(item, f"{at}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(item, f"{at}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise FormatError(f"{at}: JSON cannot hold the number {value}; use null")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise FormatError(f"{at}: JSON cannot hold a {type(value).__name__}; convert it first")


def _lay_out(data: Mapping[str, Any]) -> str:
    """Render an object with one key per line, and lists with one item per line."""
    lines = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            items = ",\n".join(f"    {_compact(item)}" for item in value)
            lines.append(f"  {_compact(key)}: [\n{items}\n  ]")
        else:
            lines.append(f"  {_compact(key)}: {_compact(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def parse_json(text: str, where: str) -> list[Transcript]:
    """Parse JSON that `render_json` wrote: always one transcript.

    Raises:
        FormatError: it is other JSON, another version, or holds values out of range.
    """
    data = load_json(text, where)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        hint = "; a list of segments is SegLST: read it as 'seglst'" * isinstance(data, list)
        raise FormatError(f'{where}: expected an object with "schema": "{SCHEMA}"{hint}')
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        raise FormatError(
            f"{where}: transcript version {data.get('version')!r}, but this program reads version "
            f"{VERSION}; read it with the release that wrote it"
        )
    duration = _number(data, "duration_s", where)
    if duration < 0:
        raise FormatError(f"{where}: duration_s is negative: {duration}")
    warnings = _list(data, "warnings", where)
    if not all(isinstance(warning, str) for warning in warnings):
        raise FormatError(f"{where}: warnings: expected a list of texts")
    info = data.get("info", {})
    if not isinstance(info, dict):
        raise FormatError(f"{where}: info: expected an object")
    if not isinstance(data.get("segments"), list):
        raise FormatError(f"{where}: segments: expected a list of objects")
    return [
        Transcript(
            recording=_text(data, "recording", where),
            duration_s=duration,
            segments=tuple(_segment(item, at) for item, at in _objects(data, "segments", where)),
            missing=tuple(
                Missing(
                    _number(item, "start_s", at),
                    _number(item, "end_s", at),
                    _text(item, "reason", at),
                )
                for item, at in _objects(data, "missing", where)
            ),
            warnings=tuple(warnings),
            traces=tuple(item for item, _ in _objects(data, "traces", where)),
            info=info,
            unscored=_unscored(_list(data, "unscored", where), where),
        )
    ]


def _unscored(rows: list[Any], where: str) -> tuple[tuple[float, float], ...]:
    stretches = []
    for i, row in enumerate(rows):
        at = f"{where}: unscored[{i}]"
        if not isinstance(row, list) or len(row) != 2:
            raise FormatError(f"{at}: expected [start_s, end_s], got {row!r}")
        start_s, end_s = (_number({"time": value}, "time", at) for value in row)
        if not 0 <= start_s <= end_s:
            raise FormatError(f"{at}: expected 0 <= start <= end, got {row!r}")
        stretches.append((start_s, math.inf if end_s >= _END_S else end_s))
    return tuple(stretches)


def _choices(rows: object, at: str) -> tuple[tuple[str | None, ...], ...]:
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and row and all(part is None or isinstance(part, str) for part in row)
        for row in rows
    ):
        raise FormatError(f"{at}.choices: expected lists of texts, got {str(rows)[:60]!r}")
    return tuple(tuple(row) for row in rows)


def _segment(data: dict[str, Any], at: str) -> Segment:
    confidence = data.get("confidence") or {}
    if not isinstance(confidence, dict):
        raise FormatError(f"{at}.confidence: expected an object")
    known = {
        part: _number(confidence, part, at)
        for part in ("words", "speaker", "times")
        if confidence.get(part) is not None
    }
    try:
        return Segment(
            speaker=_text(data, "speaker", at),
            start_s=_number(data, "start_s", at),
            end_s=_number(data, "end_s", at),
            text=_text(data, "text", at),
            gender=_text(data, "gender", at) if "gender" in data else "unknown",
            confidence=Confidence(**known) if known else _NO_CONFIDENCE,
            words=parse_word_rows(data["words"], NATIVE, f"{at}.words")
            if "words" in data
            else None,
            choices=_choices(data["choices"], at) if "choices" in data else None,
        )
    except FormatError as error:
        message = str(error)
        raise FormatError(message if message.startswith(at) else f"{at}: {message}") from error


def _objects(data: dict[str, Any], key: str, where: str) -> list[tuple[dict[str, Any], str]]:
    """Return the objects of a list, each with its place."""
    items = [(item, f"{where}: {key}[{i}]") for i, item in enumerate(_list(data, key, where))]
    for item, at in items:
        if not isinstance(item, dict):
            raise FormatError(f"{at}: expected an object, got {item!r}")
    return items


def _list(data: dict[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise FormatError(f"{where}: {key}: expected a list")
    return value


def _text(data: dict[str, Any], key: str, at: str) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise FormatError(f"{at}: {key}: expected text, got {value!r}")
    return value


def _number(data: dict[str, Any], key: str, at: str) -> float:
    value = data.get(key)
    if isinstance(value, float) and -math.inf < value < math.inf:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise FormatError(f"{at}: {key}: expected a finite number, got {value!r}")
