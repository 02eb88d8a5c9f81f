"""Decodes an uploaded recording, and clips of known voices, into a folder.

Voices come as clips with the request, or from a voice store that the server was started with.
"""

import base64
import binascii
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from .. import audio
from ..errors import AudioError, SettingsError, quoted
from ..formats import write_text_atomically
from ..voices.clips import MOST_S, load_clip
from ..voices.store import StoredClip, StoredVoice, VoiceStore
from .failures import RequestError
from .forms import Hints
from .runs import spoken_file, voice_file
from .sound import decode, decode_recording, recording_file
from .uploads import REFERENCES, ReceivedForm

Form = TypeVar("Form", bound=Hints)

_log = logging.getLogger(__name__)

_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[^;,]*)*;base64,", re.ASCII)


def stored_voices(store: Path | None) -> list[StoredVoice]:
    """Return the people of a voice store, by name; an empty list without a store.

    Raises:
        RequestError: 500, the store cannot be read.
    """
    if store is None:
        return []
    try:
        return VoiceStore(store).voices()
    except SettingsError as error:
        _log.warning("%s", error)
        message = "the server's voice store cannot be read; see the server's log"
        raise RequestError(500, message, code="voices_damaged") from error


def add_stored(form: Form, store: Path | None) -> tuple[Form, list[StoredClip]]:
    """Find the people of the store that a form asks for.

    Returns:
        The form, with a name for each of their clips after its own names, and those clips.

    Raises:
        RequestError: 400, somebody is not in the store.
    """
    if not form.voices:
        return form, []
    known = {voice.name: voice for voice in stored_voices(store)}
    if strangers := sorted(set(form.voices) - set(known)):
        raise RequestError(
            400,
            f"voices: nobody in the server's voice store is called {strangers[0]!r}; see "
            "GET /v1/voices",
            code="voice_not_found",
            param="voices",
        )
    people = [known[name] for name in dict.fromkeys(form.voices)]
    theirs = [voice.name for voice in people for _ in voice.clips]
    names = [*form.known_speaker_names, *theirs]
    clips = [clip for voice in people for clip in voice.clips]
    return form.model_copy(update={"known_speaker_names": names}), clips


def decode_all(
    received: ReceivedForm,
    folder: Path,
    hints: Hints,
    stored: Sequence[StoredClip],
    longest_s: float,
    abandoned: Callable[[], bool],
    path: Path | None,
    channel: int | None = None,
    separate: bool = False,
) -> float:
    """Decode the recording of a form, and its voices.

    Args:
        received: with its files in `folder`, which are removed once they are decoded.
        folder: for the decoded files.
        hints: with a name for each clip, those of the store last.
        stored: clips of the store.
        longest_s: decoding stops there.
        abandoned: whether the client has disconnected.
        path: of the recording, where it is not a file of the form.
        channel: of the recording to keep; all mixed down if `None`.
        separate: keep all channels, each being one speaker's.

    Returns:
        The length of the recording in seconds.

    Raises:
        AudioError, RequestError, StorageError: as `decode` and `decode_reference`; 400 where names
            and clips do not match.
    """
    names, clips = hints.known_speaker_names, received.references
    _check_voices(names, clips, stored)
    source, name = path, path.name if path is not None else ""
    if received.file is not None:
        source, name = received.file.path, received.file.name
    assert source is not None
    duration_s = decode_recording(source, folder, name, longest_s, abandoned, channel, separate)
    if separate and hints.speakers is not None and audio.channel_count(recording_file(folder)) > 1:
        message = "speakers: each channel of the recording is one speaker here; leave it out"
        raise RequestError(400, message, code="invalid_value", param="speakers")
    if received.file is not None:
        received.file.path.unlink()
    decode_voices(names, clips, stored, folder)
    return duration_s


def _check_voices(
    names: Sequence[str], clips: Sequence[Path], stored: Sequence[StoredClip]
) -> None:
    if len(names) != len(clips) + len(stored):
        raise _wrong(
            f"got {len(names) - len(stored)} known_speaker_names[] and {len(clips)} "
            f"{REFERENCES}[]; expected one clip for each name"
        )


def decode_voices(
    names: Sequence[str], clips: Sequence[Path], stored: Sequence[StoredClip], folder: Path
) -> None:
    """Decode clips of known voices into a folder.

    Args:
        names: one for each clip, those of the store last.
        clips: files that hold data URLs; removed.
        stored: clips of the store.
        folder: for the decoded files.

    Raises:
        AudioError, RequestError, StorageError: as `decode_reference`; 400 where names and clips do not match.
    """
    _check_voices(names, clips, stored)
    owners: dict[str, str] = {}
    for number, owner in enumerate(names):
        target = voice_file(folder, number)
        if number < len(clips):
            sound = decode_reference(clips[number], target, number, owner)
        else:
            sound = _copy_stored(stored[number - len(clips)], target, owner)
        if owners.setdefault(sound, owner) != owner:
            raise _wrong(
                f"{owners[sound]!r} and {owner!r} have the same clip; leave one of them out"
            )


def _copy_stored(clip: StoredClip, target: Path, name: str) -> str:
    """Copy a clip of the store with its regions of speech; return the digest of its sound."""
    decode(clip.path, target, name, MOST_S)
    write_text_atomically(spoken_file(target), json.dumps(clip.speech_regions))
    return StoredClip(target, clip.speech_regions).load().digest


def _wrong(message: str) -> RequestError:
    return RequestError(400, message, code="invalid_value", param=REFERENCES)


def decode_reference(source: Path, target: Path, number: int, name: str) -> str:
    """Decode a clip of a known voice from a data URL to wav.

    Args:
        source: file that holds the URL; removed once it is decoded.
        target: as for `decode`.
        number: of the clip, from 0.
        name: of its speaker.

    Returns:
        The digest of its sound.

    Raises:
        RequestError: 400, it is no data URL, no audio, longer than 10 s, or holds less than 2 s of
            speech.
    """
    param = f"{REFERENCES}[{number}]"

    def wrong(message: str) -> RequestError:
        expected = "expected a data URL (data:audio/wav;base64,...) of 2 to 10 s of one voice"
        return RequestError(
            400, f"{param} ({name!r}): {message}; {expected}", code="invalid_value", param=param
        )

    url = source.read_bytes().decode("latin-1")
    head = _DATA_URL.match(url)
    if head is None:
        raise wrong(f"got {url[:40]!r}")
    try:
        source.write_bytes(base64.b64decode(url[head.end() :], validate=True))
        decode(source, target, name, MOST_S)
        clip = load_clip(target)
    except binascii.Error as error:
        raise wrong(f"not base64: {error}") from error
    except (AudioError, RequestError) as error:
        raise wrong(str(error).removeprefix(f"{quoted(target)}: ")) from error
    source.unlink()
    return clip.digest


def allowed_file(path: str, folders: Iterable[Path]) -> Path:
    """Return the file of an allowed folder that a client named, links resolved.

    Args:
        path: absolute, or relative to one of the folders.
        folders: resolved.

    Raises:
        RequestError: 400; the message is the same for a file outside and one that does not exist.
    """
    for folder in folders:
        try:
            resolved = (folder / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            continue
        if resolved.is_relative_to(folder) and resolved.is_file():
            return resolved
    raise RequestError(
        400,
        f"path {path!r}: no file inside a folder that this server allows (--allow-folder)",
        code="path_not_allowed",
        param="path",
    )
