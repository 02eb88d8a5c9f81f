"""References and hypotheses: read from files or folders, and brought together by session.

    pairs = pair(load("reference.stm"), load("hypotheses/"))

Sessions are matched by name, never by order or likeness. Nothing is scored here.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DataError, FormatError
from ..transcript import Transcript
from ..writers import FORMATS, read_text
from ..writers.native import SCHEMA
from ..writers.openai import parse_diarized_json
from .lhotse import parse_lhotse

_Parse = Callable[[str, str], list[Transcript]]
_BY_RICHNESS = ("stm", "textgrid", "vtt", "srt", "ctm", "rttm")
_OWN_SUFFIX = {known.name: (known.suffix.lower(),) for known in FORMATS.values()}

INPUTS: dict[str, tuple[tuple[str, ...], _Parse]] = {
    name: (suffixes, parse)
    for name, suffixes, parse in (
        ("json", (".json",), FORMATS["json"].parse),
        ("seglst", (".seglst.json",), FORMATS["seglst"].parse),
        ("diarized_json", (), parse_diarized_json),
        ("lhotse", (".jsonl", ".jsonl.gz"), parse_lhotse),
        *((name, _OWN_SUFFIX[name], FORMATS[name].parse) for name in _BY_RICHNESS),
    )
    if parse is not None
}
"""Formats that are read, the richest first: suffixes, and parser of text and file name.

A file that ends in `.json` is ours, SegLST or `diarized_json`: its content tells. RTTM, last, has no
words; CTM has words whose grouping into segments is a guess.
"""

_GENDER_IN_ID = {"suffix": re.compile(r".*-([FM])"), "prefix": re.compile(r"([FM])(?![a-z]).*")}
_GENDERS = {"F": "female", "M": "male"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Reference and hypothesis of one session.

    Attributes:
        name: of the session.
        reference: what was said.
        hypothesis: what is scored.
        lost: one side is missing; it stands here as an empty transcript.
    """

    name: str
    reference: Transcript
    hypothesis: Transcript
    lost: bool = False

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds: the larger of what the two sides know of it."""
        return max(self.reference.duration_s, self.hypothesis.duration_s)


def load(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    encoding: str | None = None,
    gender_from: str | None = None,
) -> dict[str, Transcript]:
    """Read the sessions of a file, or of the files in a folder.

    Of files in a folder with the same name but for the suffix, which are taken for one recording
    written several times, only the one in the richest format is read (the order of `INPUTS`); files
    of other suffixes, hidden files and subfolders are not read. A file without any session is a
    recording in which nothing is said, named after the file.

    Args:
        path: a file with one session or many, or a folder of such files.
        format: a key of `INPUTS`; by default told from each file. In a folder, files in other
            formats are passed over.
        encoding: `None` for UTF-8 or UTF-16 with a byte order mark, or a name that Python knows
            (`gb18030`, `latin-1`).
        gender_from: `suffix` takes genders from speaker ids such as `001-M` (AISHELL-4), `prefix`
            from such as `FEE005` (AMI) or `F_SPK0093` (AliMeeting), where the file gives none.

    Returns:
        Transcripts by name of the session, in order of file name and of appearance.

    Raises:
        FormatError: a file cannot be read or does not follow its format; names file and line.
        DataError: a session comes in two files, a folder holds no transcripts, no speaker id tells a
            gender as `gender_from` says.
    """
    source = Path(path)
    if format is not None and format not in INPUTS:
        raise FormatError(f"unknown format {format!r}; readable: {', '.join(INPUTS)}")
    files = _choose(source, format, encoding) if source.is_dir() else [source]
    found: dict[str, Transcript] = {}
    origin: dict[str, Path] = {}
    for file in files:
        for transcript in _read(file, format, encoding):
            name = transcript.recording
            if name in found:
                raise DataError(
                    f"session {name!r} comes twice: in {origin[name]} and in {file}; remove one, or "
                    "name the format to read"
                )
            found[name], origin[name] = transcript, file
    return _with_genders(found, gender_from, source) if gender_from else found


def pair(
    references: Mapping[str, Transcript],
    hypotheses: Mapping[str, Transcript],
    *,
    lost: bool = False,
) -> list[Pair]:
    """Bring the two sides together by name, in the references' order.

    Args:
        references: transcripts by name of the session.
        hypotheses: the same of the system.
        lost: score sessions that are missing on one side against an empty transcript, and mark them,
            instead of refusing them. The ones without a reference come last.

    Raises:
        DataError: sessions are missing on one side; or, `lost` or not, no name is on both.
    """
    unheard = [name for name in references if name not in hypotheses]
    unknown = [name for name in hypotheses if name not in references]
    if references and hypotheses and len(unheard) == len(references):
        raise DataError(_strangers(unheard, unknown))
    if (unheard or unknown) and not lost:
        missing = [(unheard, "without a hypothesis"), (unknown, "without a reference")]
        parts = [f"{len(names)} {what} ({_some(names)})" for names, what in missing if names]
        raise DataError(
            f"sessions are missing: {' and '.join(parts)}; add them, name them alike on both sides, or "
            "let them count as lost (--lost)"
        )
    pairs = []
    for name in (*references, *unknown):
        one, other = references.get(name), hypotheses.get(name)
        duration_s = max(side.duration_s for side in (one, other) if side is not None)
        empty = Transcript(name, duration_s)
        pairs.append(Pair(name, one or empty, other or empty, one is None or other is None))
    return pairs


def _strangers(references: list[str], hypotheses: list[str]) -> str:
    if len(references) == len(hypotheses) == 1:
        return (
            f"the reference is of session {references[0]!r}, the hypothesis of {hypotheses[0]!r}; if "
            "they are the same recording, give both the same name (the session id in the file, or "
            "the file's name where the format has none)"
        )
    return (
        f"no session is on both sides: references are of {_some(references)}, hypotheses of "
        f"{_some(hypotheses)}; name them alike"
    )


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _choose(folder: Path, format: str | None, encoding: str | None) -> list[Path]:
    """Return the files of a folder to read: of each stem the one in the richest format."""
    order = list(INPUTS)
    best: dict[str, tuple[int, Path]] = {}
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise FormatError(f"cannot read {folder}: {error.strerror}; check the path") from error
    for file in files:
        suffix = _suffix(file)
        if suffix is None or file.name.startswith(".") or not file.is_file():
            continue
        kind = _format_of(file, encoding)
        if format not in (None, kind):
            continue
        rank, stem = order.index(kind), file.name[: -len(suffix)]
        if stem in best and best[stem][0] == rank:
            raise DataError(f"{best[stem][1]} and {file} are the same recording twice; remove one")
        if stem not in best or rank < best[stem][0]:
            best[stem] = rank, file
    if not best:
        wanted = _known_suffixes() if format is None else f"files in {format}"
        raise DataError(f"{folder} holds no transcripts: expected {wanted}")
    return [file for _, file in best.values()]


def _read(file: Path, format: str | None, encoding: str | None) -> list[Transcript]:
    _, parse = INPUTS[format or _format_of(file, encoding)]
    silent = Transcript(file.name.removesuffix(_suffix(file) or file.suffix), 0.0)
    return parse(read_text(file, encoding), str(file)) or [silent]


def _suffix(file: Path) -> str | None:
    """Return the ending of a file's name, as written, by which it is a transcript."""
    name = file.name.lower()
    fitting = [s for suffixes, _ in INPUTS.values() for s in suffixes if name.endswith(s)]
    return file.name[-len(max(fitting, key=len)) :] if fitting else None


def _format_of(file: Path, encoding: str | None) -> str:
    suffix = _suffix(file)
    if suffix is None:
        raise FormatError(
            f"{file}: cannot tell the format; name it ({', '.join(INPUTS)}), or let the file end in "
            f"one of {_known_suffixes()}"
        )
    if suffix.lower() != ".json":
        return next(name for name, (known, _) in INPUTS.items() if suffix.lower() in known)
    text = read_text(file, encoding)
    if SCHEMA in text:
        return "json"
    if text.lstrip().startswith("["):
        return "seglst"
    return "diarized_json" if '"segments"' in text else "json"


def _known_suffixes() -> str:
    return ", ".join(suffix for suffixes, _ in INPUTS.values() for suffix in suffixes)


def _with_genders(
    transcripts: Mapping[str, Transcript], place: str, source: Path
) -> dict[str, Transcript]:
    """Fill in genders that speaker ids tell."""
    if place not in _GENDER_IN_ID:
        raise DataError(f"gender_from: expected suffix or prefix, got {place!r}")
    speakers = dict.fromkeys(s for t in transcripts.values() for s in t.speakers)
    told = _told(speakers, _GENDER_IN_ID[place])
    if speakers and not told:
        raise DataError(
            f"{source}: no speaker id tells a gender by its {place}: they are "
            f"{_some(list(speakers))}; expected such as {'001-M' if place == 'suffix' else 'FEE005'}"
        )
    return {
        name: transcript.with_segments(
            [
                replace(s, gender=told[s.speaker])
                if s.gender == "unknown" and s.speaker in told
                else s
                for s in transcript.segments
            ]
        )
        for name, transcript in transcripts.items()
    }


def _told(speakers: Iterable[str], pattern: re.Pattern[str]) -> dict[str, str]:
    matches = {speaker: pattern.fullmatch(speaker) for speaker in speakers}
    return {speaker: _GENDERS[match[1]] for speaker, match in matches.items() if match}
