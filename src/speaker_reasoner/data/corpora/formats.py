"""Annotation files to rows, line by line: a broken line is counted, the others are read.

The parsers of `formats` read the lines; where one parses a whole file (our JSON, subtitles), any
fault loses the file. RTTM has no words: those of a CTM beside it, of the same stem, are
put into its segments.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import FormatError
from ...formats import read_text
from ...formats.captions import parse_caption
from ...formats.ctm import join_words, parse_ctm
from ...formats.folders import load, stem_of, suffix_of
from ...formats.lhotse import parse_lhotse
from ...formats.scoring import parse_rttm, parse_seglst, parse_stm
from ...formats.sessions import load_json, parse_gender
from ...formats.speaker_tiers import with_speakers
from ...formats.textgrid import WORDLESS, Stream, read_tiers
from ...formats.tiers import sort_tiers
from ...formats.unscored import without
from ...transcript import Segment, Transcript
from .notes import AnnotationRow, Notes

SpeakerOf = Callable[[str], tuple[str, str]]
"""Maps the name of a tier to speaker and gender."""

_GENDERS = {"F": "female", "M": "male"}
_CHANNEL = re.compile(r"channel\d+|channel[A-Z]")


def gender_of(letter: str) -> str:
    """`F` and `M` in the ids of speakers."""
    return _GENDERS.get(letter, "unknown")


def read_rows(path: Path, notes: Notes, encoding: str | None = None) -> list[AnnotationRow]:
    """Read a file of annotation in the format of its suffix.

    Args:
        path: ends in one of `formats.folders.SUFFIXES`.
        notes: counts lines that cannot be read.
        encoding: as `formats.read_text`.

    Raises:
        FormatError: the file cannot be read at all.
    """
    suffix = suffix_of(path)
    if suffix == ".textgrid":
        return list(textgrid_rows(path, encoding=encoding, notes=notes))
    text = read_text(path, encoding)
    if suffix == ".seglst.json" or (suffix == ".json" and text.lstrip().startswith("[")):
        return list(_seglst(text, path, notes))
    if suffix == ".stm":
        return _stm(text, path, notes)
    if suffix == ".rttm":
        return _rttm(text, path, notes, encoding)
    if suffix in (".jsonl", ".jsonl.gz"):
        lines = enumerate(text.split("\n"), start=1)
        return [
            row for n, line in lines if line for row in _line(parse_lhotse, line, path, n, notes)
        ]
    rows: list[AnnotationRow] = []
    for one in load(path, encoding=encoding).values():
        _tell(one, str(path), notes)
        rows += _rows(one, str(path))
    return rows


def _tell(transcript: Transcript, at: str, notes: Notes) -> None:
    """Count the warnings of the reader of a file, or of a line."""
    for warning in transcript.warnings:
        notes.change("noticed while reading", f"{at}: {warning}")


def textgrid_rows(
    path: Path,
    speaker_of: SpeakerOf | None = None,
    encoding: str | None = None,
    notes: Notes | None = None,
) -> Iterator[AnnotationRow]:
    """Read a TextGrid: each interval tier is a speaker, each mark a row, named after the file.

    Tiers of words beside segments (`sort_tiers`) are not used. The end time of a tier is ignored: it is wrong in two
    AISHELL-4 files.

    Args:
        path: the file.
        speaker_of: by default the tier's name is the label, perhaps with `(female)` behind it; a tier of speakers
            names those of the others.
        encoding: as `formats.read_text`.
        notes: takes what is noticed while reading.

    Raises:
        FormatError: with the line at which something else was expected.
    """
    stream = Stream(read_text(path, encoding), str(path))
    if not stream.string("file type").startswith("ooTextFile"):
        raise FormatError(f"{stream.at}: expected a TextGrid")
    stream.string("object class")
    stream.time("xmin")
    stream.time("xmax")
    tiers, noticed = read_tiers(stream), dict[str, int]()
    if speaker_of is None:
        tiers, noticed = with_speakers(tiers)
    sorted_tiers = sort_tiers(tiers, str(path))
    for what, count in (noticed | sorted_tiers.noticed()).items():
        if notes is not None and count:
            notes.change("noticed while reading", f"{path}: {count} {what}")
    for tier in sorted_tiers.speech:
        speaker, gender = (speaker_of or parse_caption)(tier.speaker)
        for interval in tier.intervals:
            text = "" if interval.mark == WORDLESS else interval.mark
            times = float(interval.start_s), float(interval.end_s)
            yield AnnotationRow(interval.at, stem_of(path), speaker, gender, *times, text)


def _rows(transcript: Transcript, at: str) -> Iterator[AnnotationRow]:
    """Yield the segments of a transcript, without what is out of scoring."""
    for s in without(transcript, transcript.unscored).segments:
        yield AnnotationRow(
            at, transcript.recording, s.speaker, s.gender, s.start_s, s.end_s, s.text
        )


_Unscored = dict[str, list[tuple[float, float]]]
"""Stretches out of scoring, by session."""


def _line(
    parse: Callable[[str, str], list[Transcript]],
    line: str,
    path: Path,
    number: int,
    notes: Notes,
    unscored: _Unscored | None = None,
) -> list[AnnotationRow]:
    """Parse one line, or one entry of a list, on its own; take stretches out of scoring to `unscored`."""
    at = f"{path}:{number}"
    try:
        transcripts = parse(line, str(path))
    except FormatError as error:
        message = re.sub(rf"^{re.escape(str(path))}(:1|, entry 1)?:\s*", "", str(error))
        notes.drop_error(FormatError(f"{at}: {message}"))
        return []
    for transcript in transcripts:
        _tell(transcript, at, notes)
        if unscored is not None and transcript.unscored:
            unscored.setdefault(transcript.recording, []).extend(transcript.unscored)
    return [row for transcript in transcripts for row in _rows(transcript, at)]


def _seglst(text: str, path: Path, notes: Notes) -> Iterator[AnnotationRow]:
    entries = load_json(text, str(path))
    if not isinstance(entries, list):
        raise FormatError(f"{path}: expected a list of segments")
    for number, entry in enumerate(entries, start=1):
        try:
            transcripts = parse_seglst(json.dumps([entry]), str(path))
        except FormatError as error:
            message = str(error).replace(f"{path}, entry 1", f"{path}, entry {number}")
            notes.drop_error(FormatError(message))
            continue
        for transcript in transcripts:
            yield from _rows(transcript, f"{path}, entry {number}")


def _scored(rows: list[AnnotationRow], unscored: _Unscored) -> list[AnnotationRow]:
    """Return rows without what lies in stretches out of scoring."""
    kept: list[AnnotationRow] = []
    for row in rows:
        stretches = unscored.get(row.session, [])
        if not any(a < row.end_s and b > row.start_s for a, b in stretches):
            kept.append(row)
            continue
        segment = Segment(row.speaker, row.start_s, row.end_s, row.text, row.gender)
        one = Transcript(row.session, row.end_s, (segment,), unscored=tuple(sorted(stretches)))
        kept += _rows(one, row.at)
    return kept


def _stm(text: str, path: Path, notes: Notes) -> list[AnnotationRow]:
    rows: list[AnnotationRow] = []
    unscored: _Unscored = {}
    genders: dict[tuple[str, str], str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.lstrip().startswith(";"):
            comment = line.split()
            if comment[:2] == [";;", "GENDER"] and len(comment) == 5:
                genders[comment[2], comment[3]] = parse_gender(comment[4])
        elif line.strip():
            rows += _line(parse_stm, line, path, number, notes, unscored)
    return _with_genders(_scored(rows, unscored), genders)


def _rttm(text: str, path: Path, notes: Notes, encoding: str | None) -> list[AnnotationRow]:
    rows: list[AnnotationRow] = []
    unscored: _Unscored = {}
    genders: dict[tuple[str, str], str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if fields and fields[0].upper() == "SPKR-INFO" and len(fields) > 7:
            genders[fields[1], fields[7]] = parse_gender(fields[6])
        elif fields:
            rows += _line(parse_rttm, line, path, number, notes, unscored)
    rows = _with_genders(_scored(rows, unscored), genders)
    beside = next(
        (p for p in (path.with_suffix(".ctm"), path.with_suffix(".CTM")) if p.exists()), None
    )
    return _with_words(rows, beside, notes, encoding) if beside else rows


def _with_words(
    rows: list[AnnotationRow], ctm: Path, notes: Notes, encoding: str | None
) -> list[AnnotationRow]:
    """Put each word into the segment of its speaker in which its middle lies.

    Where the CTM names no speakers, the earliest segment of the session that holds it takes it.
    """
    words: dict[tuple[str, str], list[AnnotationRow]] = defaultdict(list)
    for number, line in _first_alternatives(read_text(ctm, encoding).split("\n")):
        for word in _line(parse_ctm, line, ctm, number, notes):
            speaker = "" if _CHANNEL.fullmatch(word.speaker) else word.speaker
            words[word.session, speaker].append(word)
    for of_speaker in words.values():
        of_speaker.sort(key=_middle)
    filled = []
    taken: set[str] = set()
    for row in sorted(rows, key=lambda row: (row.start_s, row.end_s)):
        inside: list[AnnotationRow] = []
        for label in (row.speaker, ""):
            known = words.get((row.session, label), [])
            first = bisect_left(known, row.start_s, key=_middle)
            last = bisect_right(known, row.end_s, key=_middle)
            inside += [word for word in known[first:last] if word.at not in taken]
        taken.update(word.at for word in inside)
        text = join_words([word.text for word in inside])
        filled.append(
            AnnotationRow(
                row.at, row.session, row.speaker, row.gender, row.start_s, row.end_s, text
            )
        )
    for of_speaker in words.values():
        for word in of_speaker:
            if word.at not in taken:
                notes.drop("word in no segment", f"{word.at}: {word.text!r} at {word.start_s:g} s")
    return filled


def _first_alternatives(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a CTM with their numbers, of an alternation those of the first that has words."""
    ways: list[list[tuple[int, str]]] = []  # of the alternation that is open
    for number, line in enumerate(lines, start=1):
        word = (line.split()[4:5] or [""])[0]
        mark = word.upper()
        if mark == "<ALT_END>":
            yield from next(filter(None, ways), [])
            ways = []
        elif mark in ("<ALT_BEGIN>", "<ALT>"):
            ways.append([])
        elif not ways:
            yield number, line
        elif word != "@":
            ways[-1].append((number, line))
    yield from next(filter(None, ways), [])


def _middle(row: AnnotationRow) -> float:
    return (row.start_s + row.end_s) / 2


def _with_genders(
    rows: list[AnnotationRow], genders: dict[tuple[str, str], str]
) -> list[AnnotationRow]:
    return [
        AnnotationRow(
            row.at,
            row.session,
            row.speaker,
            genders.get((row.session, row.speaker), "unknown")
            if row.gender == "unknown"
            else row.gender,
            row.start_s,
            row.end_s,
            row.text,
        )
        for row in rows
    ]
