"""Prepare a corpus for training and evaluation: a manifest, references, pieces, a report.

    OUT/<split>/manifest.jsonl           {"audio", "reference", "name"} a session, for `evaluate run --data`
    OUT/<split>/references.seglst.json   SegLST with genders, all sessions
    OUT/<split>/supervisions.jsonl       the same as lhotse's SupervisionSet
    OUT/<split>/pieces.jsonl             {"name", "audio", "start_s", "duration_s", "clipped", "segments"} a piece
    OUT/<split>/shards/                  the pieces with their audio, if asked for: see `shards`
    OUT/<split>/audio/<channel>/         where an array's channel or a mix of headsets is written
    OUT/report.json                      counts, what was dropped and why; written last

Paths of audio are absolute where the corpus's own file is used, else relative to the split's folder.
Every recording is decoded once, so that a broken one is reported here. Every file is written whole or
not at all; audio that was written by an earlier call is kept.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from ... import audio
from ...audio import SAMPLE_RATE_HZ, Samples, to_samples, to_seconds
from ...errors import AudioError, DataError, OutputError, SpeakerReasonerError
from ...formats import as_json, write_text_atomically
from ...formats.lhotse import render_lhotse
from ...formats.pieces import Piece, cut
from ...formats.scoring import render_seglst
from ...protocol.observations import Reference
from ...transcript import GENDERS, Segment, Transcript
from ...version import __version__
from .notes import CorpusRecording, Notes, transcript
from .recipes import CORPORA, RecipeInput
from .shards import FOLDER, AudioPlace, to_16_bits, whole_file, write_shards

SCHEMA = "speaker-reasoner/corpus/1"
SPLITS = ("train", "dev", "test", "all")
PIECE_S = (1.0, 3600.0)
"""Least shortest and greatest longest piece."""


@dataclass(frozen=True, slots=True)
class CorpusPiece:
    """A piece of a recording as training takes it.

    Attributes:
        name: of the piece.
        audio: the recording, of which the chunk is the samples `[start_samples, end_samples)` at
            16 kHz.
        start_samples, end_samples: its place in the recording.
        clipped: number of segments that continue outside the chunk, so that their text has more words
            than the chunk.
        references: in samples of the chunk, speakers numbered by order of appearance.
        speakers: the session's label of each number.
        place: of a piece whose audio lies in a shard; `audio` is then only its recording's name.
    """

    name: str
    audio: Path
    start_samples: int
    end_samples: int
    clipped: int
    references: tuple[Reference, ...]
    speakers: tuple[str, ...]
    place: AudioPlace | None = None


@dataclass(frozen=True, slots=True)
class _PreparedSession:
    audio: str
    transcript: Transcript
    pieces: list[Piece]


def prepare(
    corpus: str,
    folder: Path,
    output: Path,
    *,
    pieces_s: tuple[float, float] = (40.0, 50.0),
    channel: int | None = None,
    strict: bool = False,
    reference: Path | None = None,
    gender_from: str | None = None,
    encoding: str | None = None,
    shards_mb: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Prepare a corpus.

    Args:
        corpus: a key of `CORPORA`.
        folder: folder of the corpus.
        output: folder that is written; made if it does not exist.
        pieces_s: shortest and longest piece in seconds, within `PIECE_S`.
        channel: 0-based, of recordings with several; by default as the recipe says.
        strict: stop at the first fault.
        reference: file or folder of annotation (`folder` only).
        gender_from: `suffix` or `prefix` of speaker ids tell genders (`folder` only).
        encoding: of annotation, as `formats.read_text`.
        shards_mb: write shards too, of so many megabytes.
        progress: called with the name of each session before it is decoded.

    Returns:
        The report, as written.

    Raises:
        DataError: the corpus is not there, nothing of it can be used, or, with `strict`, something.
        OutputError: a file cannot be written.
    """
    if corpus not in CORPORA:
        raise DataError(f"unknown corpus {corpus!r}; known: {', '.join(CORPORA)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected the corpus {corpus}")
    if corpus != "folder" and (reference or gender_from):
        raise DataError(
            f"{corpus} keeps its own annotation: --reference, --gender-from are of folder"
        )
    shortest_s, longest_s = pieces_s
    if not PIECE_S[0] <= shortest_s < longest_s <= PIECE_S[1]:
        raise DataError(
            f"pieces of {shortest_s:g} to {longest_s:g} s: expected a shorter and a longer duration, of "
            f"{PIECE_S[0]:g} s at least and {PIECE_S[1]:g} s at most"
        )
    recipe, notes = CORPORA[corpus], Notes(strict)
    _make_way(output)
    chosen = recipe.channel if channel is None else channel
    splits: dict[str, dict[str, _PreparedSession]] = defaultdict(dict)
    for recording in recipe.recordings(
        RecipeInput(folder, notes, reference, gender_from, encoding)
    ):
        ready = splits[recording.split]
        if recording.name in ready:
            notes.drop("name twice", f"{recording.audio[0]}: another {recording.name!r} was read")
            continue
        if progress is not None:
            progress(recording.name)
        try:
            where, samples = _sound(recording, output / recording.split, chosen)
        except AudioError as error:
            notes.drop("audio broken", str(error))
            continue
        session = transcript(
            recording, to_seconds(samples), recipe.cleaning, notes, words=recipe.words
        )
        if not session.segments:
            notes.drop(
                "nothing said", f"{recording.audio[0]}: no segment of {recording.name} is left"
            )
            continue
        ready[recording.name] = _PreparedSession(where, session, cut(session, *pieces_s))
    if not any(splits.values()):
        first = next(iter(notes.dropped.values()), [""])[0]
        raise DataError(f"{folder}: nothing of it can be used as {corpus}; first: {first}")
    for split, ready in splits.items():
        _write(output / split, list(ready.values()))
        if shards_mb is not None:
            if progress is not None:
                progress(f"shards of {split}")
            write_shards(output / split, shards_mb)
    report = {
        "schema": SCHEMA,
        "corpus": corpus,
        "folder": str(folder.resolve()),
        "made": {"version": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")},
        "settings": {
            "pieces_s": list(pieces_s),
            "channel": chosen,
            "reference": None if reference is None else str(reference),
            "gender_from": gender_from,
            "encoding": encoding,
            "shards_mb": shards_mb,
            "strict": strict,
            "normalisation": recipe.cleaning.to_json(),
        },
        "splits": {
            s: _counts(list(r.values()), recipe.same_people) for s, r in splits.items() if r
        },
        "tags_removed": dict(notes.tags.most_common()),
        "changed": notes.to_json("changed"),
        "dropped": notes.to_json("dropped"),
    }
    write_text_atomically(output / "report.json", as_json(report, indent=2) + "\n")
    return report


def load_pieces(path: Path) -> Iterator[CorpusPiece]:
    """Read a `pieces.jsonl`.

    Raises:
        DataError: a line is none of a piece.
    """
    with path.open("rb") as file:
        yield from parse_pieces(file, str(path.parent), str(path))


def parse_pieces(lines: Iterable[bytes], folder: str, name: str) -> Iterator[CorpusPiece]:
    """The pieces of the lines of a `pieces.jsonl`, which lies in a folder, or in a bucket.

    Raises:
        DataError: a line is none of a piece.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield _chunk(json.loads(line.decode()), folder)
        except (ValueError, KeyError, TypeError, SpeakerReasonerError) as error:
            message = str(error) if isinstance(error, SpeakerReasonerError) else repr(error)
            raise DataError(f"{name}:{number}: not a piece: {message}; prepare it again") from error


def _chunk(row: dict[str, Any], folder: str) -> CorpusPiece:
    start, samples = to_samples(row["start_s"]), to_samples(row["duration_s"])
    if start < 0 or samples <= 0:
        raise DataError(f"start_s {row['start_s']:g}, duration_s {row['duration_s']:g}")
    numbers: dict[str, int] = {}
    references = tuple(
        _reference(
            Segment(s["speaker"], s["start_s"], s["end_s"], s["text"], s["gender"]),
            numbers.setdefault(s["speaker"], len(numbers) + 1),
            samples,
        )
        for s in row["segments"]
    )
    end = start + samples
    speakers = tuple(numbers)
    place = AudioPlace.from_json(row["shard"], folder) if "shard" in row else None
    sound = Path(folder) / row["audio"]
    return CorpusPiece(row["name"], sound, start, end, row["clipped"], references, speakers, place)


def _reference(segment: Segment, number: int, samples: int) -> Reference:
    """A segment of a piece of `samples` samples."""
    start, end = to_samples(segment.start_s), to_samples(segment.end_s)
    if end > samples + 1:  # each is rounded by itself
        raise DataError(
            f"a segment ends at {segment.end_s:g} s, after the piece's {to_seconds(samples):g} s"
        )
    return Reference(number, segment.gender, start, end, segment.text)


def _make_way(output: Path) -> None:
    """Remove the files of an earlier call, except audio, so that none is taken for this call's."""
    names = ("manifest.jsonl", "pieces.jsonl", "references.seglst.json", "supervisions.jsonl")
    stale = [output / split / name for split in SPLITS for name in names]
    for split in SPLITS:  # the index first
        stale += [output / split / FOLDER / "pieces.jsonl"]
        stale += (output / split / FOLDER).glob("pieces-*.tar")
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in (output / "report.json", *stale):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot write to {output}: {error.strerror}; choose another folder"
        ) from error


def _sound(recording: CorpusRecording, folder: Path, channel: int | None) -> tuple[str, int]:
    """Decode a recording; write the channel or mix that is used if the corpus has no such file.

    Returns:
        The path for manifests, and the number of samples at 16 kHz.
    """
    paths = recording.audio
    if len(paths) == 1 and (channel is None or audio.probe(paths[0]).channels == 1):
        return str(paths[0].absolute()), sum(
            len(b) for b in audio.stream(paths[0], channel=channel)
        )
    kind = "mix" if channel is None else f"channel-{channel}"
    target = folder / "audio" / kind / f"{recording.name}.flac"
    if target.exists():
        samples = to_samples(audio.probe(target).duration_s)
    else:
        samples = _write_flac(target, _mixed(paths, channel))
    return str(target.relative_to(folder)), samples


def _mixed(paths: Sequence[Path], channel: int | None) -> Iterator[Samples]:
    """The mean of several recordings, the shorter ones silent at their ends."""
    for blocks in zip_longest(*(audio.stream(path, channel=channel) for path in paths)):
        present = [block for block in blocks if block is not None]
        mixed = np.zeros(max(len(block) for block in present), np.float32)
        for block in present:
            mixed[: len(block)] += block
        yield mixed / np.float32(len(paths))


def _write_flac(target: Path, blocks: Iterator[Samples]) -> int:
    """Write 16-bit FLAC, exact for 16-bit sources at 16 kHz: whole, or not at all."""
    samples = 0
    with whole_file(target) as temporary:
        with sf.SoundFile(temporary, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as file:
            for block in blocks:
                file.write(to_16_bits(block))
                samples += len(block)
        if sf.info(temporary).frames != samples:
            raise OSError(0, "it was not written in full")
    return samples


def _write(folder: Path, sessions: list[_PreparedSession]) -> None:
    manifest = [
        {"audio": s.audio, "reference": "references.seglst.json", "name": s.transcript.recording}
        for s in sessions
    ]
    entries = [
        render_seglst(s.transcript).removeprefix("[\n  ").removesuffix("\n]\n") for s in sessions
    ]
    write_text_atomically(
        folder / "references.seglst.json", "[\n  " + ",\n  ".join(entries) + "\n]\n"
    )
    supervisions = "".join(render_lhotse(s.transcript) for s in sessions)
    write_text_atomically(folder / "supervisions.jsonl", supervisions)
    pieces = [_piece(s.audio, piece) for s in sessions for piece in s.pieces]
    for name, rows in (("pieces.jsonl", pieces), ("manifest.jsonl", manifest)):
        lines = [as_json(row) + "\n" for row in rows]
        write_text_atomically(folder / name, "".join(lines))


def _piece(sound: str, piece: Piece) -> dict[str, Any]:
    known = ("speaker", "gender", "start_s", "end_s", "text")
    return {
        "name": piece.transcript.recording,
        "audio": sound,
        "start_s": piece.start_s,
        "duration_s": piece.transcript.duration_s,
        "clipped": piece.clipped,
        "segments": [
            {key: value for key, value in asdict(s).items() if key in known}
            for s in piece.transcript.segments
        ],
    }


def _counts(sessions: list[_PreparedSession], same_people: bool) -> dict[str, Any]:
    people = {
        (None if same_people else s.transcript.recording, speaker): gender
        for s in sessions
        for speaker, gender in s.transcript.genders.items()
    }
    pieces = [piece for s in sessions for piece in s.pieces]
    return {
        "sessions": len(sessions),
        "hours": round(sum(s.transcript.duration_s for s in sessions) / 3600, 4),
        "segments": sum(len(s.transcript.segments) for s in sessions),
        "speakers": {**dict.fromkeys(GENDERS, 0), **Counter(people.values())},
        "pieces": len(pieces),
        "pieces_without_speech": sum(not piece.transcript.segments for piece in pieces),
        "clipped_segments": sum(piece.clipped for piece in pieces),
    }
