"""The formats that scoring tools read: SegLST, RTTM, STM. CTM, being made of words, has its own.

Lines begin anew at a line feed only: other Unicode line separators may be part of a text.
"""

import json
import re
from collections.abc import Iterator

from ..errors import FormatError
from ..transcript import Transcript
from .choices import first_choices, holds_braces, parse_choices, render_choices
from .clock import clock_s, decimal_seconds, span_ms, to_ms
from .sessions import (
    Sessions,
    file_token,
    load_json,
    parse_gender,
    parse_seconds,
    token,
    unique_labels,
)
from .words import SEGLST, word_rows

_RTTM_GENDERS = {"female": "adult_female", "male": "adult_male"}
_RTTM_OTHER_TYPES = frozenset(
    {"SEGMENT", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT"}
    | {"IP", "SU", "CB", "A/P"}
)
_GAP = "inter_segment_gap"
_IGNORED = "ignore_time_segment_in_scoring"
_NAME_TYPES = str | int
_END_S = 1e9  # for a stretch without an end
_STM_LABEL = re.compile(r"<[^<>\s]*>(?=\s|$)")
_USUAL_LABEL = re.compile(r"<(?:o|na|[^,]*,.*)?>", re.IGNORECASE)


def fields_of(text: str, maxsplit: int = -1) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each line that is not empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.strip().split(maxsplit=maxsplit)
        if fields:
            yield number, fields


def render_seglst(transcript: Transcript) -> str:
    """Render SegLST, the JSON of MeetEval and CHiME: a list with one object per segment.

    Keys: `session_id`, `speaker`, `start_time` and `end_time` in seconds (exact), `words`; and two
    additions of ours, since SegLST allows other keys: `gender` and, where times of words are known,
    `word_times`, a list of `word`, `start_time`, `end_time` and perhaps `confidence`. One segment
    per line. An empty transcript is an empty list, without a session. Holds no duration, no
    confidence of segments.
    """
    entries = [
        json.dumps(
            {
                "session_id": transcript.recording,
                "speaker": segment.speaker,
                "start_time": float(segment.start_s),
                "end_time": float(segment.end_s),
                "words": segment.text,
                "gender": segment.gender,
                **(
                    {}
                    if segment.words is None
                    else {"word_times": word_rows(segment.words, SEGLST)}
                ),
            },
            ensure_ascii=False,
        )
        for segment in transcript.segments
    ]
    return "[\n  " + ",\n  ".join(entries) + "\n]\n" if entries else "[]\n"


def parse_seglst(text: str, where: str) -> list[Transcript]:
    """Parse SegLST: numbers may be written as text, times on a clock (CHiME-6: `0:01:02.5`), ids as numbers; `words`
    may be absent.

    A `word_times` that is not as ours is counted in the transcript's warnings.

    Raises:
        FormatError: it is not a list of segments, or one lacks a session, speaker or time.
    """
    entries = load_json(text, where)
    if not isinstance(entries, list):
        raise FormatError(f"{where}: expected a list of segments; a transcript object is 'json'")
    sessions = Sessions()
    for number, entry in enumerate(entries, start=1):
        at = f"{where}, entry {number}"
        if not isinstance(entry, dict):
            raise FormatError(f"{at}: expected an object, got {entry!r}")
        names = {}
        for key in ("session_id", "speaker"):
            if not isinstance(entry.get(key), _NAME_TYPES):
                raise FormatError(f"{at}: expected {key} as text, got {entry.get(key)!r}")
            names[key] = str(entry[key])
        words = entry.get("words", "")
        words = "" if words is None else words
        if not isinstance(words, str):
            raise FormatError(f"{at}: expected words as text, got {words!r}")
        sessions.add(
            names["session_id"],
            at,
            speaker=names["speaker"],
            start_s=parse_seconds(clock_s(entry.get("start_time")), at, "start_time"),
            end_s=parse_seconds(clock_s(entry.get("end_time")), at, "end_time"),
            text=words,
            gender=parse_gender(str(entry.get("gender", "unknown"))),
            words=sessions.words(names["session_id"], entry.get("word_times"), SEGLST, at),
        )
    return sessions.transcripts()


def render_rttm(transcript: Transcript) -> str:
    """Render RTTM (NIST RT-09): who speaks when, without words.

    `SPEAKER <file> 1 <start> <duration> <NA> <NA> <speaker> <NA> <NA>` per segment, in seconds with
    three decimals. Before them, for each speaker of known gender (speakers without such a record
    count as unknown), `SPKR-INFO <file> 1 <NA> <NA> <NA> <adult_female|adult_male> <speaker> <NA>
    <NA>`. md-eval, dscore and pyannote.database read or skip these; tools that take every line for
    a turn (MeetEval up to 0.4.3) need the SPEAKER records alone: `grep ^SPEAKER`.

    Stretches out of scoring are NOSCORE records. White space in file and speaker becomes `_`. An empty
    transcript is an empty file. Holds no words, no duration.
    """
    file = file_token(transcript.recording)
    labels = unique_labels(transcript.speakers, token)
    lines = [
        f"SPKR-INFO {file} 1 <NA> <NA> <NA> {_RTTM_GENDERS[gender]} {labels[speaker]} <NA> <NA>"
        for speaker, gender in transcript.genders.items()
        if gender in _RTTM_GENDERS
    ]
    for segment in transcript.segments:
        start_ms, end_ms = span_ms(segment)
        start, duration = decimal_seconds(start_ms), decimal_seconds(end_ms - start_ms)
        speaker = labels[segment.speaker]
        lines.append(f"SPEAKER {file} 1 {start} {duration} <NA> <NA> {speaker} <NA> <NA>")
    for start_s, end_s in transcript.unscored:
        start_ms, end_ms = (to_ms(min(s, _END_S)) for s in (start_s, end_s))
        start, duration = decimal_seconds(start_ms), decimal_seconds(end_ms - start_ms)
        lines.append(f"NOSCORE {file} 1 {start} {duration} <NA> <NA> <NA> <NA> <NA>")
    return "".join(f"{line}\n" for line in lines)


def parse_rttm(text: str, where: str) -> list[Transcript]:
    """Parse the SPEAKER, SPKR-INFO and NOSCORE records of RTTM, of nine (RT-05) or ten (RT-09) fields.

    Lines that begin with `;` or `#` are comments. NOSCORE takes its stretch out of scoring. Turns of
    no length, as nobody speaks in them, and records of RTTM's other types are counted in the
    transcript's warnings. Texts are empty.

    Raises:
        FormatError: an unknown record type, a wrong number of fields, a time that is none.
    """
    sessions = Sessions()
    channels: dict[tuple[str, str], set[str]] = {}
    for number, fields in fields_of(text):
        if fields[0].startswith((";", "#")):
            continue
        at = f"{where}:{number}"
        kind = fields[0].upper()
        if len(fields) not in (9, 10):
            hint = "; white space in a name is `_`" if len(fields) > 10 else ""
            raise FormatError(f"{at}: expected 9 or 10 RTTM fields, got {len(fields)}{hint}")
        file, speaker = fields[1], fields[7]
        if kind in ("SPEAKER", "NOSCORE"):
            start_s = parse_seconds(fields[3], at, "start")
            end_s = start_s + parse_seconds(fields[4], at, "duration")
            if kind == "SPEAKER":
                sessions.add(file, at, speaker=speaker, start_s=start_s, end_s=end_s)
                channels.setdefault((file, speaker), set()).add(fields[2])
            else:
                sessions.leave_out(file, at, start_s, end_s)
        elif kind == "SPKR-INFO":
            sessions.set_gender(file, speaker, parse_gender(fields[6]))
        elif kind in _RTTM_OTHER_TYPES:
            sessions.count(file, f"RTTM records of type {kind} were not read")
        else:
            raise FormatError(f"{at}: unknown RTTM record type {fields[0]!r}")
    _count_channels(sessions, channels)
    return sessions.transcripts()


def _count_channels(sessions: Sessions, channels: dict[tuple[str, str], set[str]]) -> None:
    """Count speakers of a file that come in several channels, who may be several people."""
    for (file, _), of_speaker in channels.items():
        sessions.count(
            file,
            "speakers come in several channels: each was taken for one person",
            len(of_speaker) > 1,
        )


def render_stm(transcript: Transcript) -> str:
    """Render STM (NIST): `<file> 1 <speaker> <start> <end> <text>`, seconds with three decimals.

    STM's optional label field before the text (`<o,f0,female>`) is left out, because MeetEval and
    others read it as a word. Genders stand in comments instead, which every reader skips:
    `;; GENDER <file> <speaker> <female|male>` for each speaker of known gender. Only a text that
    itself begins like a label is preceded by an empty one, `<o,,>`. Choices are written as alternatives
    `{ a / b / @ }` and optional words `(a)`; a text of other origin that looks so will be read so.
    Stretches out of scoring are lines of `inter_segment_gap` with `ignore_time_segment_in_scoring`.

    White space in file and speaker becomes `_`. An empty transcript is an empty file. Holds no
    duration, no confidence, no times of words.
    """
    file = file_token(transcript.recording)
    labels = unique_labels(transcript.speakers, token)
    lines = [
        f";; GENDER {file} {labels[speaker]} {gender}"
        for speaker, gender in transcript.genders.items()
        if gender != "unknown"
    ]
    for segment in transcript.segments:
        start, end = (decimal_seconds(ms) for ms in span_ms(segment))
        text = render_choices(segment.choices) if segment.choices else segment.text.strip()
        words = f"<o,,> {text}" if _STM_LABEL.match(text) else text
        lines.append(f"{file} 1 {labels[segment.speaker]} {start} {end} {words}".rstrip())
    for start_s, end_s in transcript.unscored:
        start, end = (decimal_seconds(to_ms(min(s, _END_S))) for s in (start_s, end_s))
        lines.append(f"{file} 1 inter_segment_gap {start} {end} {_IGNORED}")
    return "".join(f"{line}\n" for line in lines)


def parse_stm(text: str, where: str) -> list[Transcript]:
    """Parse STM: any channel; a label, `<...>` before the text, may give the gender.

    Lines that begin with `;` are comments. A file may hold several sessions. Stretches marked
    `ignore_time_segment_in_scoring` are nobody's speech and out of scoring. Alternatives and optional
    words are `Segment.choices`, the first of them the text.

    Raises:
        FormatError: a line has fewer than five fields, or a time is none.
    """
    sessions = Sessions()
    channels: dict[tuple[str, str], set[str]] = {}
    ignored: dict[str, set[str]] = {}
    for number, fields in fields_of(text, maxsplit=5):
        at = f"{where}:{number}"
        if fields[0].startswith(";"):
            comment = " ".join(fields).split()
            if comment[:2] == [";;", "GENDER"] and len(comment) == 5:
                sessions.set_gender(comment[2], comment[3], parse_gender(comment[4]))
            continue
        if len(fields) < 5:
            raise FormatError(f"{at}: expected at least 5 STM fields, got {len(fields)}")
        if fields[0].isupper() and fields[-1].split()[-1:] == ["<NA>"]:
            raise FormatError(f"{at}: expected STM, got a line of RTTM; name the format")
        file, channel, speaker, start, end, *rest = fields
        words, gender = rest[0] if rest else "", "unknown"
        if label := _STM_LABEL.match(words):
            words, gender = words[label.end() :], _gender_in(label[0])
            if not _USUAL_LABEL.fullmatch(label[0]):
                sessions.count(file, "texts begin with a mark such as <unk>: a label, as in sclite")
        if start[:1].isalpha():
            raise FormatError(
                f"{at}: expected start in seconds, got {start!r}; white space in a name is `_`"
            )
        start_s, end_s = parse_seconds(start, at, "start"), parse_seconds(end, at, "end")
        if words.strip().lower() == _IGNORED:
            sessions.leave_out(file, at, start_s, end_s)
            ignored.setdefault(file, set()).add(channel)
            continue
        if not words.strip() and speaker.lower() == _GAP:
            sessions.count(file, f"segments of {_GAP} are nobody's and were not read")
            continue
        channels.setdefault((file, speaker), set()).add(channel)
        choices = None
        if "{" in words or "(" in words:
            choices = parse_choices(words)
            if choices is None and holds_braces(words):
                sessions.count(file, "texts hold braces that are no alternatives: read as words")
            words = words if choices is None else first_choices(choices)
        sessions.add(
            file,
            at,
            speaker=speaker,
            start_s=start_s,
            end_s=end_s,
            text=words,
            gender=gender,
            choices=choices,
        )
    _count_channels(sessions, channels)
    spoken: dict[str, set[str]] = {}
    for (file, _), of_speaker in channels.items():
        spoken.setdefault(file, set()).update(of_speaker)
    for file, of_file in ignored.items():
        if spoken.get(file, of_file) - of_file:
            sessions.count(file, "channel has stretches out of scoring: they hold for all channels")
    return sessions.transcripts()


def _gender_in(label: str) -> str:
    """The gender that a label field, `<o,f0,female>`, holds."""
    genders = {parse_gender(part) for part in label.strip("<>").split(",")} - {"unknown"}
    return genders.pop() if len(genders) == 1 else "unknown"
