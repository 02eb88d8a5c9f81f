"""The voice store: a folder of enrolled speakers that its owner can inspect, copy and delete."""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from .. import audio
from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import OutputError, SettingsError, quoted
from ..formats.files import write_text_atomically
from ..speech import Region
from .clips import EnrolmentClip

STORE_VARIABLE = "SPEAKER_REASONER_VOICES"

_ANONYMOUS = re.compile(r"speaker\s*\d+", re.IGNORECASE)
_LONGEST_NAME = 100
_INDEX, _VERSION = "voice.json", 1
_CLIP = re.compile(r"clip-[0-9a-f]{16}\.flac")


def check_name(name: str) -> str:
    """Check a speaker's name, and return it in Unicode's composed form.

    Raises:
        SettingsError: it is empty, longer than 100 characters, has spaces around it or characters
            that cannot be printed, or looks like the label of an unknown speaker ("Speaker 2").
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


def default_store() -> Path:
    """Path of the user's store: $SPEAKER_REASONER_VOICES, else the system's folder for user data."""
    if folder := os.environ.get(STORE_VARIABLE):
        return Path(folder).expanduser()
    from platformdirs import user_data_path

    return user_data_path("speaker-reasoner") / "voices"


@dataclass(frozen=True, slots=True)
class StoredClip:
    """A clip in a store: its file, and its regions of speech in seconds."""

    path: Path
    speech_regions: tuple[Region, ...]

    def load(self) -> EnrolmentClip:
        """Read the samples.

        Raises:
            AudioError: the file is damaged or missing.
        """
        return EnrolmentClip(self.path, 0.0, audio.load(self.path), self.speech_regions)


@dataclass(frozen=True, slots=True)
class StoredVoice:
    """An enrolled speaker in a store: name, folder, clips."""

    name: str
    folder: Path
    clips: tuple[StoredClip, ...]

    @property
    def speech_s(self) -> float:
        return sum(end - start for clip in self.clips for start, end in clip.speech_regions)


class VoiceStore:
    """A folder with one subfolder for each speaker: FLAC clips, and a `voice.json` that lists them.

    `voice.json` is written last and atomically: clips of an interrupted `add` are not listed, and the
    next `add` writes them again. A name is never used as a path: the subfolder's name is made of the
    ASCII letters of the name and a hash of it.

    Args:
        folder: path of the store; created with the first speaker.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def voices(self) -> list[StoredVoice]:
        """Return the speakers in the store, sorted by name.

        Raises:
            SettingsError: the folder cannot be read, or a `voice.json` in it is damaged.
        """
        try:
            indices = sorted(self.folder.glob(f"*/{_INDEX}")) if self.folder.exists() else []
            voices = [_read(index) for index in indices]
        except OSError as error:
            raise SettingsError(
                f"voice store {quoted(self.folder)}: cannot be read: {error.strerror}; choose "
                f"another with --store or {STORE_VARIABLE}"
            ) from error
        names = [voice.name for voice in voices]
        for voice in voices:
            if names.count(voice.name) > 1:
                raise SettingsError(
                    f"{quoted(voice.folder)}: {voice.name!r} is in the store twice; remove one folder"
                )
        return sorted(voices, key=lambda voice: voice.name.casefold())

    def add(self, name: str, clips: Sequence[EnrolmentClip]) -> list[EnrolmentClip]:
        """Add clips of a speaker, new or known.

        Returns:
            The clips that were not in the store before.

        Raises:
            SettingsError: the name cannot be used; a clip is another speaker's; the store is damaged.
            OutputError: the store cannot be written.
        """
        name = check_name(name)
        voices = {voice.name: voice for voice in self.voices()}
        known = voices.get(name)
        files = {clip.path.name: other for other in voices for clip in voices[other].clips}
        for clip in clips:
            other = files.get(f"clip-{clip.digest[:16]}.flac", name)
            if other != name:
                raise SettingsError(
                    f"voice store {quoted(self.folder)}: {quoted(clip.path)} is already {other!r}'s clip; one "
                    f"recording is one person: choose another, or remove {other!r} first"
                )
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
        """Remove a speaker and their clips; other files in that folder stay.

        Raises:
            SettingsError: no speaker has that name.
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
    """Read a speaker's `voice.json`.

    Raises:
        SettingsError: it is damaged, or lists files outside its folder.
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
    """Write 24 bits at 16 kHz, atomically. Samples beyond full scale are scaled down: the level of a clip
    does not matter."""
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
