"""JSON of other programs and services as transcripts; its content determines which one it is of.

    parse_services(text, "call.json")

`SERVICE_FORMATS` lists the known formats, with the functions that recognise and read each (`service_rows`). Optional
keys may be missing. Turns without a speaker get the speaker `unknown`, and are counted. Where a service gives words
with speakers and no turns, words of one speaker are a turn, divided at pauses above `MAX_PAUSE_S`, as those of a CTM.
Nothing is written in these formats.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..transcript import Transcript, recording_name
from . import hosted_rows as hosted
from . import program_rows as programs
from . import service_rows as rows
from .files import named_apart
from .gathering import add_row, gather
from .service_rows import ServiceRow, at_key, listed
from .sessions import Sessions, load_json, parse_seconds

_recording_name = lru_cache(maxsize=4096)(recording_name)  # of a manifest, on each of many lines
_SILENT = "segments hold no text and were read as turns without words"
_BOTH = "lines of the manifest hold text and pred_text:"


@dataclass(frozen=True, slots=True)
class ServiceFormat:
    """One way that others write a transcript down as JSON.

    Attributes:
        name: of the program or service.
        fits: whether data is of this format.
        read: its turns, in any order, from data and its place.
        duration: seconds that the recording lasts, where the data says.
        words: whether its turns have words as a rule: if none has any, a warning says so.
    """

    name: str
    fits: Callable[[Any], bool]
    read: Callable[[Any, str], Iterator[ServiceRow]]
    duration: Callable[[Any], object] = lambda data: None
    words: bool = False


def _has(*path: str) -> Callable[[Any], bool]:
    """Return whether data has these keys, one inside the other; the value may be empty."""
    return lambda data: at_key(data, *path) is not None


def _objects(*keys: str) -> Callable[[Any], bool]:
    """Return whether data is a list of objects, of which the first has these keys."""
    return lambda data: (
        isinstance(data, list)
        and bool(data)
        and isinstance(data[0], dict)
        and all(key in data[0] for key in keys)
    )


def _has_turns(data: Any) -> bool:
    """Return whether data is a list of objects with a start, an end or a duration, and words or a speaker."""
    return (
        isinstance(data, list)
        and bool(data)
        and isinstance(data[0], dict)
        and rows.first_of(data[0], *rows.STARTS) is not None
        and rows.first_of(data[0], *rows.ENDS, "duration") is not None
        and any(key in data[0] for key in (*rows.TEXTS, "speaker"))
    )


def _under(data: Any) -> list[Any]:
    """Return the values of a JSON object; an empty list for anything else."""
    return list(data.values()) if isinstance(data, dict) else []


def _timed_results(data: Any) -> bool:
    """Return whether results have times of their own, each with alternatives, as Speechmatics writes them."""
    return any("start_time" in one and "alternatives" in one for one in listed(data, "results"))


_OF_ASSEMBLYAI = ("audio_duration", "audio_url", "acoustic_model", "speech_model", "status")

SERVICE_FORMATS: tuple[ServiceFormat, ...] = (
    ServiceFormat(
        "AssemblyAI",
        lambda d: (
            (
                _has("utterances")(d)
                and any(_has(key)(d) for key in ("language_code", *_OF_ASSEMBLYAI))
            )
            or (_has("words")(d) and any(_has(key)(d) for key in _OF_ASSEMBLYAI))
        ),
        hosted.assemblyai,
        lambda d: at_key(d, "audio_duration"),
    ),
    ServiceFormat(
        "AssemblyAI",
        lambda d: _has("audio_duration")(d) and (_has("sentences")(d) or _has("paragraphs")(d)),
        hosted.assemblyai_parts,
        lambda d: at_key(d, "audio_duration"),
    ),
    ServiceFormat(
        "Deepgram",
        _has("results", "channels"),
        hosted.deepgram,
        lambda d: at_key(d, "metadata", "duration"),
    ),
    ServiceFormat("Gladia", _has("result", "transcription"), hosted.gladia),
    ServiceFormat(
        "AWS Transcribe",
        lambda d: _has("results", "items")(d) and _has("results", "transcripts")(d),
        hosted.aws,
    ),
    ServiceFormat(
        "Speechmatics",
        lambda d: _has("results")(d) and (_has("format")(d) or _timed_results(d)),
        hosted.speechmatics,
    ),
    ServiceFormat("IBM Watson", programs.is_watson, programs.watson),
    ServiceFormat("FunASR", programs.is_funasr, programs.funasr),
    ServiceFormat("Vosk", programs.is_vosk, programs.vosk),
    ServiceFormat(
        "Google Speech-to-Text",
        lambda d: any("alternatives" in item for item in listed(d, "results")),
        hosted.google,
    ),
    ServiceFormat(
        "Google Speech-to-Text",
        _has("response", "results"),
        lambda d, at: hosted.google(d["response"], at),
    ),
    ServiceFormat("Google Speech-to-Text", hosted.is_google_batch, hosted.google_batch),
    ServiceFormat("AWS Transcribe Call Analytics", hosted.is_aws_calls, hosted.aws_calls),
    ServiceFormat("Azure Speech, batch", _has("recognizedPhrases"), hosted.azure_batch),
    ServiceFormat(
        "Azure Speech, fast",
        lambda d: _has("phrases")(d) and _has("combinedPhrases")(d),
        hosted.azure_fast,
    ),
    ServiceFormat("Rev.ai", _has("monologues"), hosted.rev),
    ServiceFormat(
        "whisper.cpp", lambda d: isinstance(at_key(d, "transcription"), list), rows.whisper_cpp
    ),
    ServiceFormat(
        "ElevenLabs Scribe",
        lambda d: _has("words")(d) and not _has("segments")(d) and not _has("utterances")(d),
        hosted.elevenlabs,
    ),
    ServiceFormat(
        "ElevenLabs Scribe",
        lambda d: _has("words")({} if not (t := listed(d, "transcripts")) else t[0]),
        hosted.elevenlabs_channels,
    ),
    ServiceFormat(
        "Soniox", lambda d: any("start_ms" in one for one in listed(d, "tokens")), hosted.soniox
    ),
    ServiceFormat("pyannoteAI", _has("output", "diarization"), hosted.pyannoteai),
    ServiceFormat("pyannote.audio", _has("diarization"), rows.pyannote),
    ServiceFormat(
        "pyannote.core", lambda d: at_key(d, "pyannote") == "Annotation", rows.pyannote_core
    ),
    ServiceFormat(
        "YouTube json3",
        lambda d: at_key(d, "events") == [] or any("tStartMs" in e for e in listed(d, "events")),
        rows.youtube,
    ),
    ServiceFormat(
        "transformers", lambda d: _has("chunks")(d) and not _has("speakers")(d), rows.transformers
    ),
    ServiceFormat(
        "insanely-fast-whisper", lambda d: bool(listed(d, "speakers")), rows.transformers
    ),
    ServiceFormat(
        "OpenAI, Whisper, WhisperX, faster-whisper",
        lambda d: _has("segments")(d),
        rows.segments,
        lambda d: at_key(d, "duration"),
        words=True,
    ),
    ServiceFormat(
        "WhisperX's word segments",
        _has("word_segments"),
        lambda d, at: hosted.elevenlabs({"words": d["word_segments"]}, at),
    ),
    ServiceFormat(
        "utterances",
        _has("utterances"),
        lambda d, at: rows.segments({"segments": d["utterances"]}, at),
        words=True,
    ),
    ServiceFormat(
        "transformers", _objects("timestamp"), lambda d, at: rows.transformers({"chunks": d}, at)
    ),
    ServiceFormat(
        "segments",
        lambda d: _has_turns(d) or sum(map(_has_turns, _under(d))) == 1,
        lambda d, at: rows.segments(
            {"segments": d if _has_turns(d) else next(filter(_has_turns, _under(d)))}, at
        ),
        words=True,
    ),
)
"""Known formats, in the order in which they are tried."""


def recognise(data: Any) -> ServiceFormat | None:
    """Return the format of data; `None` if it is unknown."""
    return next((one for one in SERVICE_FORMATS if one.fits(data)), None)


def parse_services(text: str, where: str, *, predicted: bool = False) -> list[Transcript]:
    """Parse JSON, or JSON lines, of one of `SERVICE_FORMATS`, a manifest of NeMo, or the table of `batch`.

    One transcript, named after the file; of a manifest, one for each recording in it, named after its
    audio file. Words that are not as ours, or contradict the segment, are counted in the transcript's
    warnings.

    Args:
        text, where: of the file.
        predicted: of a manifest that holds what was said and what a model heard (`text`, `pred_text`), read the latter.

    Raises:
        FormatError: it is no JSON, of no kind that is known, or lacks times.
    """
    lines = _lines(text, where)
    if lines is not None:
        if all("audio_filepath" in line for line in lines):
            return _nemo(lines, predicted)
        data: Any = lines
    else:
        try:
            data = load_json(text, where, constants=True)
        except FormatError:
            data = programs.several_values(text)
            if data is None:
                raise
    service = recognise(data)
    if service is None:
        held = f"a {type(data).__name__}"
        if isinstance(data, dict):
            held = ", ".join(" ".join(key.split()) for key in list(data)[:8])
        known = ", ".join(dict.fromkeys(service.name for service in SERVICE_FORMATS))
        raise FormatError(
            f'{where}: no transcript that is known: expected "segments", or the JSON of {known}; got '
            f"{held}"
        )
    try:
        if service.read is programs.funasr and len(data) > 1:
            return [gather(service.read([one], where), str(one["key"]), where) for one in data]
        turns = list(service.read(data, where))
    except FormatError as error:
        message = str(error)
        raise FormatError(message if where in message else f"{where}: {message}") from error
    one = gather(turns, recording_name(where), where, service.duration(data))
    if service.words and turns and not any(turn.text.strip() for turn in turns):
        one = replace(one, warnings=(*one.warnings, f"{len(turns)} {_SILENT}"))
    return [one]


def _lines(text: str, where: str) -> list[dict[str, Any]] | None:
    """The objects of JSON lines; `None` where the text is one value."""
    rows_of = [line for line in text.split("\n") if line.strip()]
    if len(rows_of) < 2 and '"audio_filepath"' not in text:
        return None
    try:
        first = json.loads(rows_of[0])
    except (ValueError, RecursionError):
        return None
    if not isinstance(first, dict):
        return None
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            entry = load_json(line, where, number, constants=True)
            if not isinstance(entry, dict):
                raise FormatError(
                    f"{where}:{number}: expected an object, got {line.strip()[:60]!r}"
                )
            lines.append({**entry, "at": f"{where}:{number}"})
    return lines


def _nemo(lines: list[dict[str, Any]], predicted: bool) -> list[Transcript]:
    keys = ("pred_text", "text") if predicted else ("text", "pred_text")
    sessions = Sessions()
    for line in lines:
        if not isinstance(line["audio_filepath"], str):
            raise FormatError(
                f"{line['at']}: expected audio_filepath as text, got {line['audio_filepath']!r}"
            )
    names = {file: _recording_name(file) for file in {line["audio_filepath"] for line in lines}}
    placed = [
        file for file in names if Path(file).parent.name
    ]  # one without a folder is any of that name
    apart = named_apart([(names[file], Path(file)) for file in placed])
    names |= dict(zip(placed, apart, strict=True))
    for line in lines:
        at = line["at"]
        session = names[line["audio_filepath"]]
        if isinstance(line.get("segments"), list) or isinstance(line.get("error"), dict):
            _of_batch(sessions, str(line.get("name") or session), line)
            continue
        start_s = parse_seconds(line.get("offset") or 0, at, "offset")
        length_s = parse_seconds(line.get("duration"), at, "duration")
        found = [key for key in keys if isinstance(line.get(key), str)]
        text = line[found[0]] if found else ""
        sessions.count(session, f"{_BOTH} {keys[0]} was read", len(found) > 1)
        sessions.open(session, start_s + length_s)
        if text in ("-", ""):  # what NeMo's diarization puts where nothing is known
            sessions.count(session, "lines of the manifest hold no words and were left out")
            continue
        speaker = rows.first_of(line, "speaker", "speaker_id", "speaker_label")
        add_row(sessions, session, ServiceRow(at, speaker, start_s, start_s + length_s, text))
    return sessions.transcripts()


def _of_batch(sessions: Sessions, session: str, line: dict[str, Any]) -> None:
    """A line of the table that `speaker-reasoner batch` writes; a recording that failed is left out."""
    if "segments" not in line:
        return
    at = line["at"]
    sessions.open(session, parse_seconds(line.get("duration") or 0, at, "duration"))
    for row in rows.segments(line, at):
        add_row(sessions, session, row)
