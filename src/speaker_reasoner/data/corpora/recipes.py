"""The layout of each corpus: audio, times, words, genders and splits.

AISHELL-4 (openslr 111)     {train_L,train_M,train_S,test}/wav/20200616_M_R001S01C01.flac (8 channels),
                            .../TextGrid/20200616_M_R001S01C01.TextGrid, tiers `001-M` (id, gender).
                            Also read: .../stm/*.stm, as its evaluation references are published.
AliMeeting (openslr 119)    {Train,Eval/Eval,Test/Test}_Ali_far/audio_dir/R0015_M0151_MS002.wav (8 channels),
                            .../textgrid_dir/R0015_M0151.TextGrid, tiers `R0015_M0151_F_SPK8013` or `F_SPK8013`;
                            ..._near/{audio_dir,textgrid_dir}/R0003_M0046_F_SPK0093.{wav,TextGrid}, a
                            headset each; they are mixed, as is usual of AMI's.
AMI (1.6.2)                 **/ES2002a.Array1-01.wav (sdm), **/ES2002a.Mix-Headset.wav (ihm-mix); ami.py.
                            Splits of `full-corpus-asr`.
AISHELL-5                   {train,Dev,Eval1,Eval2}/SESSION/DX01C01.wav (the driver's microphone), DA01.TextGrid, ...:
                            one a seat. It is the layout of ICMC-ASR, as lhotse reads that; the archive itself was
                            not seen.
others                      lhotse_recipes.py: CHiME-6, DiPCo, ICSI, LibriCSS, NOTSOFAR-1, VoxConverse, by lhotse
MLC-SLM                     *Training_Set*/data/English/American/.../0517_007.{wav,txt}, *Development_Set*/...,
                            *Eval*/...; lines `start end O1 text` (a tab between), in seconds. Names of
                            sessions are their paths, joined by `-`. Genders are not in it. The layout is
                            that which the organisers' baseline reads (github.com/mubingshen/MLC-SLM-Baseline);
                            the data itself is given to participants only.
folder                      recordings with their annotation beside them, under the same stem, or in
                            `--reference`; subfolders train, dev, test are splits, else there is one, `all`.

Differs from lhotse's recipes, whose layouts these are: AISHELL-4 keeps its genders (and the two
sessions whose TextGrids are at odds with themselves), and in all of them a bad row is dropped
and reported with file and line; its session and corpus are kept. For any other corpus that lhotse knows,
give the manifest of supervisions that it writes to `folder --reference`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...audio import SUFFIXES as SUFFIXES_OF_SOUND
from ...errors import DataError, FormatError
from ...formats import read_text
from ...formats.folders import SUFFIXES, beside, stem_of, suffix_of
from ...formats.sessions import parse_seconds
from ...transcript import recording_name
from . import ami, lhotse_recipes
from .formats import gender_of, read_rows, textgrid_rows
from .notes import AnnotationRow, Cleaning, CorpusRecording, Notes

_Read = Callable[[Path], Iterable[AnnotationRow]]
_M2MET_TAGS = re.compile(r"<sil>|<%>|<->|<\$>|<#>|<_>|<space>|[`&]")
"""Marks of both Mandarin corpora that are no words: the list of the M2MeT baseline."""

_AMI_DEV = (
    "ES2011",
    "IS1008",
    "TS3004",
    "IB4001",
    "IB4002",
    "IB4003",
    "IB4004",
    "IB4010",
    "IB4011",
)
_AMI_TEST = ("ES2004", "IS1009", "TS3003", "EN2002")
_GENDER_IN_ID = {
    "suffix": re.compile(r".*-([FM])"),  # 001-M
    "prefix": re.compile(r"([FM])(?![a-z]).*"),  # FEE005, F_SPK0093
}


@dataclass(frozen=True, slots=True)
class RecipeInput:
    """The input of a recipe.

    Attributes:
        folder: of the corpus.
        notes: counts what cannot be used.
        reference: file or folder of annotation, for `folder`.
        gender_from: `suffix` or `prefix` of speaker ids, for `folder`, where the annotation has none.
        encoding: of annotation; `None` for UTF-8 (or UTF-16 with its mark).
    """

    folder: Path
    notes: Notes
    reference: Path | None = None
    gender_from: str | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """The reader of a corpus, and its properties.

    Attributes:
        recordings: finds and reads its sessions.
        cleaning: changes of its text.
        channel: of its arrays; `None` for the mean of all channels.
        same_people: a speaker id is one person in the whole corpus, not in one session only.
        words: whether its annotation has words; without, it measures diarization alone.
    """

    recordings: Callable[[RecipeInput], Iterator[CorpusRecording]]
    cleaning: Cleaning = field(default_factory=Cleaning)
    channel: int | None = None
    same_people: bool = False
    words: bool = True


def _aishell4(source: RecipeInput) -> Iterator[CorpusRecording]:
    parts = {f"train_{room}": "train" for room in "LMS"} | {"test": "test"}
    for part, split in _present(source, parts, "wav"):
        references = _files(part / "TextGrid", (".textgrid",)) or _files(part / "stm", (".stm",))
        sounds = _files(part / "wav", SUFFIXES_OF_SOUND)

        def read(path: Path) -> Iterable[AnnotationRow]:
            if path.suffix.lower() == ".stm":
                rows = read_rows(path, source.notes, source.encoding)
                return [replace(r, gender=_gender_in_id(r.speaker, "suffix")) for r in rows]
            return textgrid_rows(path, _aishell4_speaker, source.encoding)

        yield from _paired(source, split, _each(sounds), _each(references), read)


def _aishell4_speaker(tier: str) -> tuple[str, str]:
    return tier, _gender_in_id(tier, "suffix")


def _alimeeting(source: RecipeInput, mic: str) -> Iterator[CorpusRecording]:
    parts = {}
    for name, split in (("Train", "train"), ("Eval", "dev"), ("Test", "test")):
        both = source.folder / f"{name}_Ali" / f"{name}_Ali_{mic}"  # far and near in one archive
        parts[f"{name}_Ali/{both.name}" if both.is_dir() else both.name] = split
    for part, split in _present(source, parts, "audio_dir"):
        sounds = _files(part / "audio_dir", SUFFIXES_OF_SOUND)
        references = _files(part / "textgrid_dir", (".textgrid",))

        def read(path: Path) -> Iterable[AnnotationRow]:
            speaker = stem_of(path) if mic == "near" else None
            return textgrid_rows(
                path, lambda tier: _alimeeting_speaker(speaker or tier), source.encoding
            )

        if mic == "near":
            sounds = _of_both(source, sounds, references)
            references = {name: path for name, path in references.items() if name in sounds}
        yield from _paired(source, split, _by_meeting(sounds), _by_meeting(references), read)


def _alimeeting_speaker(name: str) -> tuple[str, str]:
    *_, gender, speaker = ["", "", *name.split("_")]
    return speaker, gender_of(gender)


def _of_both(
    source: RecipeInput, sounds: Mapping[str, Path], references: Mapping[str, Path]
) -> dict[str, Path]:
    """Drop the meetings in which a headset has no annotation, or an annotation no headset."""
    meetings = set()
    for name in sorted(set(sounds) ^ set(references)):
        meetings.add(_meeting(name))
        missing = "annotation" if name in sounds else "audio"
        path = sounds.get(name) or references[name]
        source.notes.drop(f"{missing} missing", f"{path}: a headset without its {missing}")
    return {name: path for name, path in sounds.items() if _meeting(name) not in meetings}


def _by_meeting(files: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    by_meeting: dict[str, tuple[Path, ...]] = {}
    for name in sorted(files):
        by_meeting[_meeting(name)] = (*by_meeting.get(_meeting(name), ()), files[name])
    return by_meeting


def _meeting(name: str) -> str:
    return "_".join(name.split("_")[:2])


def _ami(source: RecipeInput, mic: str) -> Iterator[CorpusRecording]:
    root = ami.annotation(source.folder)
    try:
        names = ami.speakers(root)
    except FormatError as error:
        raise DataError(f"{error}; without it nobody has a gender") from error
    sounds = {p.name.split(".")[0]: p for p in sorted(source.folder.rglob(f"*.{mic}.wav"))}
    if not sounds:
        raise DataError(f"{source.folder}: no recordings; expected such as ES2002a.{mic}.wav below")
    letters: dict[str, list[str]] = defaultdict(list)
    for file in sorted(entry.name for entry in (root / "segments").iterdir()):
        meeting, letter, *_ = file.split(".")
        letters[meeting].append(letter)
    for meeting in sorted({*sounds, *letters}):
        if meeting not in sounds:
            message = f"{meeting}.{mic}.wav: is not below {source.folder}"
            source.notes.drop("audio missing", message, fault=False)
            continue
        if meeting not in letters:
            source.notes.drop(
                "annotation missing", f"{sounds[meeting]}: no segments/{meeting}.*.xml"
            )
            continue
        rows: list[AnnotationRow] = []
        try:
            for letter in letters[meeting]:
                if (meeting, letter) not in names:
                    raise FormatError(f"{root}: meetings.xml has no speaker {meeting}.{letter}")
                file, name = f"{meeting}.{letter}", names[meeting, letter]
                rows += ami.rows(root, file, name, source.notes)
        except FormatError as error:
            source.notes.drop_error(error)
            continue
        series = meeting.rstrip("abcdefgh")
        split = "dev" if series in _AMI_DEV else "test" if series in _AMI_TEST else "train"
        yield CorpusRecording(split, meeting, (sounds[meeting],), tuple(rows))


def _mlc_slm(source: RecipeInput) -> Iterator[CorpusRecording]:
    words = {"training": "train", "development": "dev", "eval": "test"}
    folders = sorted(p for p in source.folder.iterdir() if p.is_dir())
    parts = [(p, s) for p in folders for word, s in words.items() if word in p.name.lower()]
    if not parts:
        expected = "MLC-SLM_Workshop-Training_Set_1, MLC-SLM_Workshop-Development_Set or the like"
        raise DataError(f"{source.folder}: not MLC-SLM; expected folders {expected}")
    for part, split in parts:
        sounds, references = (
            {_path_name(p, part): p for p in sorted(part.rglob("*")) if p.suffix.lower() in known}
            for known in (SUFFIXES_OF_SOUND, (".txt",))
        )
        read = lambda path: _mlc_slm_rows(path, source)  # noqa: E731
        yield from _paired(source, split, _each(sounds), _each(references), read)


def _aishell5(source: RecipeInput) -> Iterator[CorpusRecording]:
    known = {"train": "train", "dev": "dev", "eval1": "test", "eval2": "test"}
    parts = [p for p in sorted(source.folder.iterdir()) if p.is_dir() and p.name.lower() in known]
    if not parts:
        raise DataError(
            f"{source.folder}: not AISHELL-5; expected folders train, Dev, Eval1, Eval2"
        )
    for part in parts:
        sounds, references = {}, {}
        for session in sorted(p for p in part.rglob("*") if p.is_dir()):
            name = "-".join(session.relative_to(source.folder).parts)
            if (session / _AISHELL5_FAR).is_file():
                sounds[name] = (session / _AISHELL5_FAR,)
            if seats := tuple(sorted(session.glob("DA*.TextGrid"))):
                references[name] = seats

        def read(path: Path) -> Iterable[AnnotationRow]:
            return textgrid_rows(path, lambda tier: (stem_of(path), "unknown"), source.encoding)

        yield from _paired(source, known[part.name.lower()], sounds, references, read)


_AISHELL5_FAR = "DX01C01.wav"


def _path_name(path: Path, part: Path) -> str:
    below = list(path.relative_to(part).with_suffix("").parts)
    if "data" in below:
        below = below[below.index("data") + 1 :]
    return "-".join(below)


def _mlc_slm_rows(path: Path, source: RecipeInput) -> Iterator[AnnotationRow]:
    for number, line in enumerate(read_text(path, source.encoding).split("\n"), start=1):
        fields = line.split(maxsplit=3)
        if not fields:
            continue
        at = f"{path}:{number}"
        try:
            if len(fields) < 3:
                raise FormatError(f"{at}: expected start, end, speaker, text; got {line.strip()!r}")
            times = [
                float(parse_seconds(f, at, w))
                for f, w in zip(fields, ("start", "end"), strict=False)
            ]
        except FormatError as error:
            source.notes.drop_error(error)
            continue
        text = fields[3] if len(fields) > 3 else ""
        yield AnnotationRow(at, path.stem, fields[2], "unknown", times[0], times[1], text)


def _folder(source: RecipeInput) -> Iterator[CorpusRecording]:
    splits = [s for s in ("train", "dev", "test") if (source.folder / s).is_dir()]
    given = None if source.reference is None else _sessions(source, source.reference)
    known: set[str] = set()
    for split in splits or ["all"]:
        top = source.folder / split if splits else source.folder
        sounds = _files(top, SUFFIXES_OF_SOUND, source.notes)
        known |= set(sounds)
        for name, sound in sounds.items():
            try:
                rows = _beside(source, sound) if given is None else given.get(name)
            except FormatError as error:
                source.notes.drop_error(error)
                continue
            if rows is None:
                source.notes.drop("annotation missing", f"{sound}: no annotation of {name!r}")
                continue
            yield CorpusRecording(split, name, (sound,), tuple(_with_genders(source, rows)))
    if not known:
        raise DataError(
            f"{source.folder}: no recordings; expected files such as a.wav, b.flac, c.mp3"
        )
    for name in sorted(set(given or ()) - known):
        source.notes.drop("audio missing", f"{source.reference}: no recording of session {name!r}")


def _sessions(source: RecipeInput, reference: Path) -> dict[str, list[AnnotationRow]]:
    """The rows of a file or a folder, by session."""
    files = [reference]
    if reference.is_dir():
        files = sorted(p for p in reference.iterdir() if suffix_of(p))
    if not files or suffix_of(files[0]) is None or not reference.exists():
        raise DataError(f"{reference}: no annotation; expected a file with {', '.join(SUFFIXES)}")
    stems = {stem_of(p) for p in files if suffix_of(p) == ".rttm"}
    by_session: dict[str, list[AnnotationRow]] = defaultdict(list)
    for file in files:
        if suffix_of(file) == ".ctm" and stem_of(file) in stems:
            continue
        try:
            for row in read_rows(file, source.notes, source.encoding):
                by_session[row.session].append(row)
        except FormatError as error:
            source.notes.drop_error(error)
    return dict(by_session)


def _beside(source: RecipeInput, sound: Path) -> list[AnnotationRow] | None:
    """The rows of the richest annotation of a recording's stem, in its folder."""
    chosen = beside(sound, source.encoding)
    if chosen is not None and suffix_of(chosen) == ".ctm":
        # Segments of an RTTM, where there is one, with the words of the CTM.
        turns = [
            p for p in sound.parent.iterdir() if p.name.lower() == f"{sound.stem}.rttm".lower()
        ]
        chosen = turns[0] if turns else chosen
    if chosen is None:
        return None
    rows = read_rows(chosen, source.notes, source.encoding)
    sessions = {row.session for row in rows}
    if len(sessions) > 1:
        rows = [row for row in rows if row.session == sound.stem]
        if not rows:
            raise FormatError(f"{chosen}: several sessions, none of them {sound.stem!r}")
    return rows


def _with_genders(source: RecipeInput, rows: Iterable[AnnotationRow]) -> Iterator[AnnotationRow]:
    for row in rows:
        if row.gender == "unknown" and source.gender_from is not None:
            yield replace(row, gender=_gender_in_id(row.speaker, source.gender_from))
        else:
            yield row


def _gender_in_id(speaker: str, place: str) -> str:
    match = _GENDER_IN_ID[place].fullmatch(speaker)
    return gender_of(match[1]) if match else "unknown"


def _present(
    source: RecipeInput, parts: Mapping[str, str], inside: str
) -> Iterator[tuple[Path, str]]:
    """The parts of a corpus that exist in its folder; a user may have fetched only some."""
    present = [(source.folder / part, split) for part, split in parts.items()]
    present = [(part, split) for part, split in present if (part / inside).is_dir()]
    if not present:
        expected = ", ".join(f"{part}/{inside}" for part in parts)
        raise DataError(f"{source.folder}: no part of the corpus; expected one of {expected}")
    yield from present


def _files(folder: Path, suffixes: Collection[str], notes: Notes | None = None) -> dict[str, Path]:
    """Files below a folder by name of the recording."""
    by_stem: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = recording_name(path)
        if name in by_stem and notes is not None:
            notes.drop("name twice", f"{path}: a recording of this name is {by_stem[name]}")
            continue
        by_stem[name] = path
    return by_stem


def _each(files: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    return {name: (path,) for name, path in files.items()}


def _paired(
    source: RecipeInput,
    split: str,
    sounds: Mapping[str, tuple[Path, ...]],
    references: Mapping[str, tuple[Path, ...]],
    read: _Read,
) -> Iterator[CorpusRecording]:
    """Match audio and annotation by name."""
    for name in sorted({*sounds, *references}):
        if name not in references:
            source.notes.drop("annotation missing", f"{sounds[name][0]}: no annotation of {name}")
        elif name not in sounds:
            source.notes.drop("audio missing", f"{references[name][0]}: no recording of {name}")
        else:
            try:
                rows = tuple(row for path in references[name] for row in read(path))
            except FormatError as error:
                source.notes.drop_error(error)
                continue
            yield CorpusRecording(split, name, sounds[name], rows)


def _by_lhotse(corpus: str) -> Callable[[RecipeInput], Iterator[CorpusRecording]]:
    return lambda source: lhotse_recipes.recordings(corpus, source.folder, source.notes)


_MARKED = Cleaning(lhotse_recipes.TAGS)
_MANDARIN = Cleaning(_M2MET_TAGS, unspaced=True)
_AMI_CLEANING = Cleaning(re.compile(r"<[a-z]+(?: [^<>]*)?>"))

CORPORA: dict[str, Recipe] = {
    "aishell4": Recipe(_aishell4, _MANDARIN, channel=0),
    "alimeeting-far": Recipe(lambda s: _alimeeting(s, "far"), _MANDARIN, 0, same_people=True),
    "alimeeting-near": Recipe(lambda s: _alimeeting(s, "near"), _MANDARIN, same_people=True),
    "ami-sdm": Recipe(lambda s: _ami(s, "Array1-01"), _AMI_CLEANING, 0, same_people=True),
    "ami-ihm-mix": Recipe(lambda s: _ami(s, "Mix-Headset"), _AMI_CLEANING, same_people=True),
    "mlc-slm": Recipe(_mlc_slm),
    "aishell5": Recipe(_aishell5, _MANDARIN, channel=0),
    "chime6": Recipe(_by_lhotse("chime6"), _MARKED, 0, same_people=True),
    "dipco": Recipe(_by_lhotse("dipco"), _MARKED, 0, same_people=True),
    "icsi-ihm-mix": Recipe(_by_lhotse("icsi-ihm-mix"), same_people=True),
    "libricss": Recipe(_by_lhotse("libricss"), channel=0, same_people=True),
    "notsofar1-sc": Recipe(_by_lhotse("notsofar1-sc"), _MARKED, 0, same_people=True),
    "voxconverse": Recipe(_by_lhotse("voxconverse"), words=False),
    "folder": Recipe(_folder),
}
"""Recipes by the name that the command line knows."""
