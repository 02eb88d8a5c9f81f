"""Voices that have names: clips of a person, what may be wrong with them, and a store on disk.

A clip shows one voice, without words that anybody would know. It is checked by itself (`load_clip`)
and, where a witness is at hand, against the other clips (`doubts`). The store is a folder that its
owner may look into, copy and delete.
"""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from . import audio
from .audio import SAMPLE_RATE_HZ, Samples
from .containers import quoted
from .errors import AudioError, OutputError, SettingsError
from .formats.files import write_text_atomically
from .longform.linking import Array, Trust, Voices, heard, merge
from .speech import Region, Vad, levels_db, speech_regions, spoken_s
from .witness import Witness

if TYPE_CHECKING:
    from .longform import Voice

LEAST_S, MOST_S = 2.0, 10.0
"""Speech that a clip must hold, and the longest stretch of it that is used."""
LONGEST_S = 600.0
"""A longer file is a recording, not a clip."""
STORE_VARIABLE = "SPEAKER_REASONER_VOICES"

_PIECE_S, _SHORTEST_PIECE_S = 2.0, 0.8
_SURE = 2.0
"""Log-odds from which a witness's word against a clip is passed on."""
_ANONYMOUS = re.compile(r"speaker\s*\d+", re.IGNORECASE)
_LONGEST_NAME = 100
_INDEX, _VERSION = "voice.json", 1
_CLIP = re.compile(r"clip-[0-9a-f]{16}\.flac")


@dataclass(frozen=True, eq=False, slots=True)
class EnrolmentClip:
    """A stretch of a file in which somebody speaks.

    Attributes:
        path: of the file.
        start_s: where the stretch starts in it.
        samples: float32 `[n]` at 16 kHz, at most `MOST_S` long.
        speech_regions: where somebody speaks, in seconds of `samples`.
    """

    path: Path
    start_s: float
    samples: Samples
    speech_regions: tuple[Region, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def speech_s(self) -> float:
        return spoken_s(self.speech_regions, 0.0, self.duration_s)

    @property
    def digest(self) -> str:
        """What tells one clip from another: the SHA-256 of its samples at 16 bits."""
        rounded = np.round(self.samples * 32767).astype("<i4")
        return hashlib.sha256(rounded.tobytes()).hexdigest()


def load_clip(path: str | os.PathLike[str], vad: Vad | None = None) -> EnrolmentClip:
    """Read a clip: of a file up to 10 minutes long, the 10 s in which most is said.

    Args:
        path: as for `audio.load`.
        vad: finds speech; by energy if `None`.

    Raises:
        AudioError: the file cannot be read, is longer than 10 minutes, or holds less than 2 s of
            speech within 10 s.
    """
    samples = _load_bounded(path)
    regions = speech_regions(samples, vad)
    start_s, end_s = _best_stretch(regions)
    got_s = spoken_s(regions, start_s, end_s)
    if got_s < LEAST_S:
        loudest = float(levels_db(samples).max())
        raise AudioError(
            f"{quoted(path)}: got {got_s:.1f} s of speech within {MOST_S:g} s (the loudest 20 ms are "
            f"at {loudest:.0f} dB of full scale), expected at least {LEAST_S:g} s; record the person "
            "alone, closer to the microphone"
        )
    inside = tuple(
        (a - start_s, min(b, end_s) - start_s) for a, b in regions if start_s <= a < end_s
    )
    return EnrolmentClip(Path(path), start_s, audio.cut(samples, start_s, end_s).copy(), inside)


def _load_bounded(path: str | os.PathLike[str]) -> Samples:
    blocks: list[Samples] = []
    for block in audio.stream(path):
        blocks.append(block)
        if sum(map(len, blocks)) > LONGEST_S * SAMPLE_RATE_HZ:
            raise AudioError(
                f"{quoted(path)}: got more than {LONGEST_S / 60:g} minutes, expected a clip of one "
                f"person; cut out {LEAST_S:g} to {MOST_S:g} s in which nobody else speaks"
            )
    return np.concatenate(blocks)


def _best_stretch(regions: Sequence[Region]) -> Region:
    """Of the stretches that begin with a region and last `MOST_S` at most, the one with most speech,
    the first of equals; it ends with its last region."""
    best = (0.0, 0.0)
    for start_s, _ in regions:
        end_s = min(start_s + MOST_S, max(b for a, b in regions if a < start_s + MOST_S))
        if spoken_s(regions, start_s, end_s) > spoken_s(regions, *best):
            best = (start_s, end_s)
    return best


def check_name(name: str) -> str:
    """The name as it is shown and compared, in Unicode's composed form.

    Raises:
        SettingsError: it is empty, longer than 100 characters, has spaces around it or characters
            that cannot be printed, or is a label of strangers ("Speaker 2").
    """
    name = unicodedata.normalize("NFC", name)
    expected = ""
    if not name or name != name.strip() or not name.isprintable():
        expected = "printable characters on one line, without spaces around them"
    elif len(name) > _LONGEST_NAME:
        expected = f"at most {_LONGEST_NAME} characters"
    elif _ANONYMOUS.fullmatch(name):
        expected = "another one: people without a name are labelled like this"
    if expected:
        raise SettingsError(f"the name of a voice: got {name!r}, expected {expected}")
    return name


def parse_voice(text: str) -> tuple[str, Path]:
    """Split `Ana=ana.wav` into the name and the path of a clip.

    Raises:
        SettingsError: there is no `=`, no path, or the name cannot be used; see `check_name`.
    """
    name, equals, path = text.partition("=")
    if not equals or not path.strip():
        raise SettingsError(f"voice {text!r}: expected NAME=FILE, as in Ana=ana.wav")
    return check_name(name.strip()), Path(path).expanduser()


def enrol(
    given: Sequence[str], store: Path | None = None, witness: Witness | None = None
) -> list["Voice"]:
    """Everybody whose voice is known, by name, with all their clips.

    Args:
        given: clips as `NAME=FILE`, any number of them for one person.
        store: folder of a voice store, of which everybody is meant.
        witness: says what may be wrong with the clips; see `doubts`.

    Raises:
        SettingsError: an entry of `given` is malformed, the store is empty or damaged, or the same
            clip is given for two people.
        AudioError: a clip cannot be used; see `load_clip`.
    """
    from .longform import Voice

    people: dict[str, list[EnrolmentClip]] = {}
    for text in given:
        name, path = parse_voice(text)
        people.setdefault(name, []).append(load_clip(path))
    if store is not None:
        stored = VoiceStore(store).voices()
        if not stored:
            raise SettingsError(
                f"voice store {quoted(store)}: nobody is there, expected somebody added with: "
                "speaker-reasoner voices add NAME FILE --store FOLDER"
            )
        for voice in stored:
            people.setdefault(voice.name, []).extend(clip.load() for clip in voice.clips)
    _check_shared(people)
    said = doubts(people, witness) if witness is not None else {}
    return [
        Voice(name, tuple(clip.samples for clip in clips), doubts=tuple(said.get(name, ())))
        for name, clips in people.items()
    ]


def _check_shared(people: Mapping[str, Sequence[EnrolmentClip]]) -> None:
    """Make sure that nobody has a clip of somebody else."""
    owners: dict[str, tuple[str, EnrolmentClip]] = {}
    for name, clips in people.items():
        for clip in clips:
            owner, other = owners.setdefault(clip.digest, (name, clip))
            if owner != name:
                raise SettingsError(
                    f"{quoted(other.path)} ({owner}) and {quoted(clip.path)} ({name}) are the same "
                    "clip; give it for one of them"
                )


def doubts(people: Mapping[str, Sequence[EnrolmentClip]], witness: Witness) -> dict[str, list[str]]:
    """What a witness says against clips: sentences by name, of those against whom there are any.

    A clip may hold two voices, two clips of one person may be of two, and one person may be there
    under two names (told of the second).

    Args:
        people: clips by name.
        witness: whose word it is; it is passed on when odds are at least 7 to 1.
    """
    said: dict[str, list[str]] = {}
    others: dict[str, Array] = {}
    for name, clips in people.items():
        seconds = [len(clip.samples) / audio.SAMPLE_RATE_HZ for clip in clips]
        points = witness.embed([clip.samples for clip in clips])
        rows = [
            f"{quoted(clip.path)} ({name}) sounds like two voices; use a stretch in which {name} "
            "alone speaks"
            for clip in clips
            if _holds_two(clip, witness)
        ]
        apart = Voices(heard(points, seconds, elsewhere=True), witness)
        rows += [
            f"{quoted(clips[i].path)} and {quoted(clips[j].path)} ({name}) sound like two people; "
            "leave one out"
            for i, j in combinations(range(len(clips)), 2)
            if apart.odds(i)[j] < -_SURE
        ]
        own = heard(points, seconds).sum(0)
        rows += [
            f"{name} sounds like {other}; leave one of them out if they are one person"
            for other, its in others.items()
            if Voices(np.stack([own, its]), witness).odds(0)[1] > _SURE
        ]
        others[name] = own
        if rows:
            said[name] = rows
    return said


def _holds_two(clip: EnrolmentClip, witness: Witness) -> bool:
    """Whether pieces of a clip surely fall into two voices."""
    spans = [span for region in clip.speech_regions for span in _pieces(region)]
    pieces = [audio.cut(clip.samples, *span) for span in spans]
    seconds = [end_s - start_s for start_s, end_s in spans]
    if not pieces:
        return False
    voices = Voices(heard(witness.embed(pieces), seconds), witness)
    told = np.full((1, len(pieces), len(pieces)), _SURE, np.float32)
    return max(merge(voices, told, seconds, trust=Trust(most=_SURE))) > 0


def _pieces(region: Region) -> list[Region]:
    """A region in equal parts of about 2 s; none if it is too short to tell."""
    start_s, end_s = region
    if end_s - start_s < _SHORTEST_PIECE_S:
        return []
    edges = np.linspace(start_s, end_s, max(1, round((end_s - start_s) / _PIECE_S)) + 1)
    return [(float(a), float(b)) for a, b in pairwise(edges)]


def default_store() -> Path:
    """The user's store: $SPEAKER_REASONER_VOICES, else a folder where the system keeps such data."""
    if folder := os.environ.get(STORE_VARIABLE):
        return Path(folder).expanduser()
    from platformdirs import user_data_path

    return user_data_path("speaker-reasoner") / "voices"


@dataclass(frozen=True, slots=True)
class StoredClip:
    """A clip in a store: its file, and where somebody speaks in it, in seconds."""

    path: Path
    speech_regions: tuple[Region, ...]

    def load(self) -> EnrolmentClip:
        """Read its samples.

        Raises:
            AudioError: the file is damaged or gone.
        """
        return EnrolmentClip(self.path, 0.0, audio.load(self.path), self.speech_regions)


@dataclass(frozen=True, slots=True)
class StoredVoice:
    """A person in a store: the name as it was given, their folder, their clips."""

    name: str
    folder: Path
    clips: tuple[StoredClip, ...]

    @property
    def speech_s(self) -> float:
        return sum(end - start for clip in self.clips for start, end in clip.speech_regions)


class VoiceStore:
    """Voices in a folder: one folder a person, with FLAC clips and a `voice.json` that lists them.

    A person is there once `voice.json` is, which takes its place in one move: what a broken `add`
    left is not listed, and a later one writes it again. Names never become paths: a person's folder
    is called after the letters of the name and a hash of it.

    Args:
        folder: of the store; made with the first voice.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def voices(self) -> list[StoredVoice]:
        """Everybody in the store, by name.

        Raises:
            SettingsError: the folder cannot be read, or a `voice.json` in it is damaged.
        """
        try:
            indices = sorted(self.folder.glob(f"*/{_INDEX}")) if self.folder.exists() else []
            found = [_read(index) for index in indices]
        except OSError as error:
            raise SettingsError(
                f"voice store {quoted(self.folder)}: cannot be read: {error.strerror}; choose "
                f"another with --store or {STORE_VARIABLE}"
            ) from error
        names = [voice.name for voice in found]
        for voice in found:
            if names.count(voice.name) > 1:
                raise SettingsError(
                    f"{quoted(voice.folder)}: {voice.name!r} is in the store twice; remove one folder"
                )
        return sorted(found, key=lambda voice: voice.name.casefold())

    def add(self, name: str, clips: Sequence[EnrolmentClip]) -> list[EnrolmentClip]:
        """Add clips of a person, who may be there already.

        Returns:
            The clips that were not there before.

        Raises:
            SettingsError: the name cannot be used; the store is damaged.
            OutputError: the store cannot be written.
        """
        name = check_name(name)
        known = {voice.name: voice for voice in self.voices()}.get(name)
        folder = known.folder if known else self.folder / _folder_name(name)
        listed = {clip.path.name: clip.speech_regions for clip in known.clips} if known else {}
        added = []
        for clip in clips:
            file = f"clip-{clip.digest[:16]}.flac"
            if file not in listed:
                _write_flac(folder / file, clip.samples)
                listed[file] = clip.speech_regions
                added.append(clip)
        if added:
            rows = [{"file": file, "speech_s": speech} for file, speech in listed.items()]
            index = {"version": _VERSION, "name": name, "clips": rows}
            write_text_atomically(folder / _INDEX, json.dumps(index, ensure_ascii=False) + "\n")
        return added

    def remove(self, name: str) -> None:
        """Remove a person and their clips; files of others in that folder stay.

        Raises:
            SettingsError: nobody of that name is there.
            OutputError: the files cannot be removed.
        """
        name = unicodedata.normalize("NFC", name)
        voices = {voice.name: voice for voice in self.voices()}
        if name not in voices:
            near = get_close_matches(name, voices, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; see: speaker-reasoner voices list"
            raise SettingsError(
                f"voice store {quoted(self.folder)}: nobody there is called {name!r}{hint}"
            )
        voice = voices[name]
        try:
            (voice.folder / _INDEX).unlink()
            for clip in voice.clips:
                clip.path.unlink(missing_ok=True)
            if not any(voice.folder.iterdir()):
                voice.folder.rmdir()
        except OSError as error:
            raise OutputError(
                f"{quoted(voice.folder)}: cannot be removed: {error.strerror}; check its permissions"
            ) from error


def _folder_name(name: str) -> str:
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    letters = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:24]
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{letters or 'voice'}-{digest}"


def _read(index: Path) -> StoredVoice:
    """A person from their `voice.json`.

    Raises:
        SettingsError: it is damaged, or names files outside its folder.
    """
    clips = []
    try:
        value: Any = json.loads(index.read_text(encoding="utf-8"))
        name = check_name(value["name"])
        if value["version"] != _VERSION:
            raise ValueError(f"got version {value['version']!r}, expected {_VERSION}")
        for row in value["clips"]:
            if not _CLIP.fullmatch(row["file"]):
                raise ValueError(f"got the clip {row['file']!r}, expected clip-....flac")
            speech = tuple((float(start_s), float(end_s)) for start_s, end_s in row["speech_s"])
            clips.append(StoredClip(index.parent / row["file"], speech))
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(
            f"{quoted(index)}: not a voice: {reason}; remove its folder and add the voice again"
        ) from error
    return StoredVoice(name, index.parent, tuple(clips))


def _write_flac(path: Path, samples: Samples) -> None:
    """Write 24 bits at 16 kHz, completely or not at all; what exceeds full scale is scaled down, for
    a voice is the same at any level."""
    temporary = path.with_suffix(".tmp")
    peak = float(np.abs(samples).max())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            quieter = samples / np.float32(max(1.0, peak))
            soundfile.write(temporary, quieter, SAMPLE_RATE_HZ, "PCM_24", format="FLAC")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, soundfile.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"{quoted(path)}: cannot be written: {reason}; choose another folder with --store"
        ) from error
