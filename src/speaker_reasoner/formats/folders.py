"""Transcripts read from a file or a folder, in any format that can be read, by session.

sessions = load("reference.stm")
sessions = load("hypotheses/")
"""

import glob
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import DataError, FormatError
from ..heap import without_cycles
from ..transcript import Transcript, recording_name
from . import FORMATS, read_text
from .cues import kind_of_captions
from .elan import parse_elan
from .files import beginning, named_apart
from .labels import is_labels, parse_labels
from .lhotse import parse_lhotse
from .native import SCHEMA
from .other_captions import parse_ass, parse_lrc, parse_sami
from .paragraphs import is_paragraphs, parse_paragraphs
from .services import parse_services, recognise
from .timed_table import is_table, parse_table
from .ttml import parse_ttml

_Parse = Callable[[str, str], list[Transcript]]
_BY_RICHNESS = ("stm", "textgrid", "vtt", "srt", "ctm", "rttm")
_OWN_SUFFIX: dict[str, tuple[str, ...]] = {
    known.name: (known.suffix.lower(),) for known in FORMATS.values()
}
_OWN_SUFFIX["srt"] += (".sbv",)

INPUTS: dict[str, tuple[tuple[str, ...], _Parse]] = {
    name: (suffixes, parse)
    for name, suffixes, parse in (
        ("json", (".json",), FORMATS["json"].parse),
        ("seglst", (".seglst.json",), FORMATS["seglst"].parse),
        ("services", (), parse_services),
        ("lhotse", (".jsonl", ".jsonl.gz"), parse_lhotse),
        ("elan", (".eaf",), parse_elan),
        *((name, _OWN_SUFFIX[name], FORMATS[name].parse) for name in _BY_RICHNESS),
        ("ass", (".ass", ".ssa"), parse_ass),
        ("ttml", (".ttml", ".dfxp"), parse_ttml),
        ("sami", (".smi", ".sami"), parse_sami),
        ("lrc", (".lrc",), parse_lrc),
        ("table", (".tsv", ".csv"), parse_table),
        ("labels", (".txt",), parse_labels),
        ("txt", (".txt",), parse_paragraphs),
    )
    if parse is not None
}
"""Formats that are read, the richest first: suffixes, and parser of text and file name.

The content of a file that ends in `.json` or `.jsonl` decides whether it is ours, SegLST, a manifest, or of another
program or service (`services`). The content of a text decides whether it holds labels of Audacity, or times. RTTM has
no words; CTM has words whose grouping into segments is a guess.
"""

SUFFIXES = tuple(dict.fromkeys(suffix for suffixes, _ in INPUTS.values() for suffix in suffixes))
"""Suffixes of transcripts that are read, in lower case, the richest format first."""

_NO_TRANSCRIPTS = frozenset({"failures.jsonl"})
"""Files that a run writes beside its transcripts."""

_NUMBER = r"\s\d+(?:\.\d*)?(?:e[+-]?\d+)?(?!\S)"
_FIELDS = {
    ".rttm": re.compile(
        rf"(?:SPEAKER|NOSCORE)\s+\S+\s+\S+{_NUMBER}{_NUMBER}|[A-Z/-]+\s.*<NA>\s*$", re.IGNORECASE
    ),
    ".stm": re.compile(rf"\S+\s+\S+\s+\S+{_NUMBER}{_NUMBER}"),
    ".ctm": re.compile(rf"\S+\s+\S+(?:{_NUMBER}{_NUMBER}\s+\S+|\s+\*\s+\*\s+<ALT)"),
}
_ALIASES = {"diarized_json": "services"}
_NO_LHOTSE = re.compile(
    r'"audio_filepath"|^\s*\{(?!.*"(?:id|recording_id|supervisions|tracks)").*"start"'
)
_GENDER_IN_ID = {"suffix": re.compile(r".*-([FM])"), "prefix": re.compile(r"([FM])(?![a-z]).*")}
_GENDERS = {"F": "female", "M": "male"}


def load(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    encoding: str | None = None,
    gender_from: str | None = None,
    predicted: bool = False,
) -> dict[str, Transcript]:
    """Read the sessions of a file, of the files in a folder, or of those that a pattern matches.

    Of files in a folder with the same name but for the suffix, which are taken for one recording
    written several times, only the one in the richest format is read (the order of `INPUTS`); files
    of other suffixes and hidden files are not read, and folders below only where there is nothing
    else. Sessions of one name in several folders are named after these, too (`monday-call`). A file
    without any session is a recording in which nothing is said, named after the file.

    Args:
        path: a file with one session or many, a folder of such files, or a pattern such as `*.stm`.
        format: a key of `INPUTS`; by default determined from each file. In a folder, files in other
            formats are passed over.
        encoding: `None` for UTF-8 or UTF-16 with a byte order mark, or a name that Python knows
            (`gb18030`, `latin-1`).
        gender_from: `suffix` takes genders from speaker ids such as `001-M` (AISHELL-4), `prefix`
            from such as `FEE005` (AMI) or `F_SPK0093` (AliMeeting), where the file gives none.
        predicted: of files that hold both sides (manifests of NeMo), read what the model heard.

    Returns:
        Transcripts by name of the session, in order of file name and of appearance.

    Raises:
        FormatError: a file cannot be read or does not follow its format; names file and line.
        DataError: a session comes in two files, a folder holds no transcripts, no speaker id tells a
            gender as `gender_from` says.
    """
    source = Path(path)
    format = _ALIASES.get(format or "", format)
    if format is not None and format not in INPUTS:
        raise FormatError(f"unknown format {format!r}; readable: {', '.join(INPUTS)}")
    files = [source]
    if source.is_dir():
        files = _choose(source, format, encoding)
    elif glob.has_magic(str(path)) and not os.path.lexists(source):
        files = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        if not files:
            raise DataError(f"{source}: matches no file; check the path")
    read = [(file, one) for file in files for one in _read(file, format, encoding, predicted)]
    names = named_apart([(one.recording, file) for file, one in read])
    sessions: dict[str, Transcript] = {}
    origin: dict[str, Path] = {}
    for name, (file, transcript) in zip(names, read, strict=True):
        if name in sessions:
            raise DataError(
                f"session {name!r} comes twice: in {origin[name]} and in {file}; remove one, or "
                "name the format to read"
            )
        same = name == transcript.recording
        sessions[name] = transcript if same else replace(transcript, recording=name)
        origin[name] = file
    return _with_genders(sessions, gender_from, source) if gender_from else sessions


def some_of(names: list[str]) -> str:
    """The first five names, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def richest(
    files: Iterable[Path], format: str | None = None, encoding: str | None = None
) -> list[Path]:
    """Choose the richest of the files of each stem, which are taken for one recording in several formats.

    Args:
        files: any files; those whose suffix is not a transcript's are passed over.
        format: a key of `INPUTS`; files in other formats are passed over.
        encoding: as for `load`.

    Raises:
        DataError: two files of a stem are in the same format.
        FormatError: a file cannot be read.
    """
    order = list(INPUTS)
    best: dict[str, tuple[int, Path]] = {}
    for file in sorted(files):
        suffix = suffix_of(file)
        if suffix is None or file.name.startswith(".") or not file.is_file():
            continue
        if file.name in _NO_TRANSCRIPTS:
            continue
        kind = _format_of(file, encoding)
        if format not in (None, kind):
            continue
        # JSON that is no transcript is chosen only where there is nothing else.
        rank = order.index(kind) if kind is not None else len(order)
        stem = stem_of(file)
        if stem in best and best[stem][0] == rank:
            raise DataError(f"{best[stem][1]} and {file} are the same recording twice; remove one")
        if stem not in best or rank < best[stem][0]:
            best[stem] = rank, file
    return [file for _, file in best.values()]


def beside(sound: Path, encoding: str | None = None) -> Path | None:
    """The richest transcript of a recording that lies in its folder under its stem.

    Raises:
        DataError, FormatError: as for `richest`.
    """
    chosen = richest(
        (p for p in sound.parent.iterdir() if stem_of(p) == sound.stem), None, encoding
    )
    return chosen[0] if chosen else None


def suffix_of(file: Path) -> str | None:
    """The suffix by which a file is a transcript, in lower case; of a text, its content decides."""
    name = file.name.lower()
    suffix = max((s for s in SUFFIXES if name.endswith(s)), key=len, default=None)
    if suffix in (".tsv", ".csv"):
        return suffix if is_table(beginning(file)) else None
    return None if suffix == ".txt" and _format_of_text(file) is None else suffix


def _format_of_text(file: Path) -> str | None:
    """The key of `INPUTS` that fits the beginning of a text file; `None` if it is no transcript."""
    text = beginning(file)
    if captions := kind_of_captions(text):
        return captions
    if is_labels(text):
        return "labels"
    return "txt" if is_paragraphs(text) else None


def _suffix_by_content(file: Path) -> str:
    """The suffix that fits the beginning of a file without one, such as standard input; empty where none does."""
    text = beginning(file).lstrip()
    if text.startswith(("{", "[")) and not is_paragraphs(text):
        return ".jsonl" if re.match(r"\{.*\}\n\s*\{", text) else ".json"
    marks = {"File type": ".textgrid", "<?xml": ".eaf"}
    marked = next((suffix for mark, suffix in marks.items() if text.startswith(mark)), "")
    return marked or _suffix_by_fields(text) or (".txt" if _format_of_text(file) else "")


def _suffix_by_fields(text: str) -> str:
    """`.rttm`, `.stm` or `.ctm` where the first lines that are no comments have its fields; else empty."""
    lines = [line for line in text.split("\n")[:50] if line.strip() and line[0] not in ";#"]
    fits = (suffix for suffix, fields in _FIELDS.items() if lines and all(map(fields.match, lines)))
    return next(fits, "")


def stem_of(file: Path) -> str:
    """The name of a transcript's file without its suffix."""
    return file.name[: len(file.name) - len(suffix_of(file) or file.suffix)]


def _choose(folder: Path, format: str | None, encoding: str | None) -> list[Path]:
    """The files of a folder to read."""
    try:
        files = list(folder.iterdir())
    except OSError as error:
        raise FormatError(f"cannot read {folder}: {error.strerror}; check the path") from error
    chosen = richest(files, format, encoding)
    below = [] if chosen else sorted(p for p in folder.rglob("*") if p.is_dir())
    for inside in below:
        if not any(part.startswith(".") for part in inside.relative_to(folder).parts):
            chosen += richest(inside.iterdir(), format, encoding)
    if not chosen:
        wanted = ", ".join(SUFFIXES) if format is None else f"files in {format}"
        raise DataError(f"{folder} holds no transcripts: expected {wanted}")
    return chosen


def _read(
    file: Path, format: str | None, encoding: str | None, predicted: bool
) -> list[Transcript]:
    # Of JSON that is no transcript, the parser of services reports the error.
    _, parse = INPUTS[format or _format_of(file, encoding, read_anyway=True) or "services"]
    if predicted and parse is parse_services:
        parse = partial(parse_services, predicted=True)
    with without_cycles():
        read = parse(read_text(file, encoding), str(file))
    return read or [Transcript(recording_name(stem_of(file) + ".x"), 0.0)]


def _format_of(file: Path, encoding: str | None, *, read_anyway: bool = False) -> str | None:
    """The key of `INPUTS` that fits a file; `None` for JSON that is no transcript.

    Args:
        file, encoding: as for `load`.
        read_anyway: return a format for JSON that is no transcript, too, so that its parser reports the error.

    Raises:
        FormatError: its suffix is not a transcript's, or it cannot be read.
    """
    suffix = suffix_of(file) or ("" if file.suffix else _suffix_by_content(file)) or None
    if suffix is None and not file.exists():
        raise FormatError(f"{file}: there is no such file or folder; check the path")
    if suffix is None:
        raise FormatError(
            f"{file}: cannot tell the format; name it ({', '.join(INPUTS)}), or let the file end in "
            f"one of {', '.join(SUFFIXES)}"
        )
    if suffix == ".txt":
        return _format_of_text(file)
    if suffix == ".srt" and kind_of_captions(beginning(file)) == "vtt":
        return "vtt"
    if suffix not in (".json", ".jsonl", ".jsonl.gz"):
        return next(name for name, (known, _) in INPUTS.items() if suffix in known)
    text = read_text(file, encoding)
    if suffix != ".json":
        return "services" if _NO_LHOTSE.search(text.split("\n", 1)[0]) else "lhotse"
    if SCHEMA in text:
        return "json"
    start = text.lstrip()[:2000]
    if start.startswith("["):
        foreign = re.match(r"\[\s*\{", start) and '"session_id"' not in start
        return "services" if foreign else "seglst"
    return "services" if read_anyway or _of_service(text) else None


def _of_service(text: str) -> bool:
    """Return whether an object, or the first of lines, is of another program or service."""
    if '"audio_filepath"' in text:
        return True
    for candidate in (text, text.lstrip().split("\n", 1)[0]):
        try:
            return recognise(json.loads(candidate)) is not None or candidate != text
        except (ValueError, RecursionError):
            continue
    return '"segments"' in text


def _with_genders(
    transcripts: Mapping[str, Transcript], place: str, source: Path
) -> dict[str, Transcript]:
    """Fill in genders that speaker ids state."""
    if place not in _GENDER_IN_ID:
        raise DataError(f"gender_from: expected suffix or prefix, got {place!r}")
    speakers = dict.fromkeys(s for t in transcripts.values() for s in t.speakers)
    gender_of = _gender_by_id(speakers, _GENDER_IN_ID[place])
    if speakers and not gender_of:
        raise DataError(
            f"{source}: no speaker id tells a gender by its {place}: they are "
            f"{some_of(list(speakers))}; expected such as {'001-M' if place == 'suffix' else 'FEE005'}"
        )
    return {
        name: transcript.with_segments(
            [
                replace(s, gender=gender_of[s.speaker])
                if s.gender == "unknown" and s.speaker in gender_of
                else s
                for s in transcript.segments
            ]
        )
        for name, transcript in transcripts.items()
    }


def _gender_by_id(speakers: Iterable[str], pattern: re.Pattern[str]) -> dict[str, str]:
    matches = {speaker: pattern.fullmatch(speaker) for speaker in speakers}
    return {speaker: _GENDERS[match[1]] for speaker, match in matches.items() if match}
