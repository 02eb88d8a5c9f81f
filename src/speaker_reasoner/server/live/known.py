"""The known speakers of a live session: their clips, decoded on the disk."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..failures import disk_error
from ..forms import Hints
from ..intake import add_stored, decode_voices
from .events import Session

FIELDS = ("known_speaker_names", "known_speaker_references", "voices")


@dataclass(frozen=True, slots=True)
class KnownVoices:
    """Clips in a folder, as a job has them.

    Attributes:
        names: one for each clip.
    """

    folder: Path
    names: Sequence[str]

    @classmethod
    def take(cls, session: Session, folder: Path, store: Path | None) -> "KnownVoices":
        """Decode the clips of a session's people.

        Args:
            session: as its client has configured it.
            folder: an empty one, for the decoded clips.
            store: a voice store, if the server has one.

        Raises:
            RequestError: 400, a clip or a name cannot be used.
            StorageError: the disk is full.
        """
        asked = Hints(
            speakers=None,
            language=None,
            known_speaker_names=session.known_speaker_names,
            voices=session.voices,
        )
        form, stored = add_stored(asked, store)
        references = session.known_speaker_references
        clips = [folder / f"reference-{number}" for number in range(len(references))]
        try:
            for clip, url in zip(clips, references, strict=True):
                clip.write_bytes(url.encode())
        except OSError as error:
            raise disk_error("keep a clip", error) from error
        decode_voices(form.known_speaker_names, clips, stored, folder)
        return cls(folder, tuple(form.known_speaker_names))

    def copy_to(self, folder: Path) -> None:
        """Put the clips into the folder of a job.

        Raises:
            StorageError: the disk is full.
        """
        try:
            for path in self.folder.iterdir():
                shutil.copyfile(path, folder / path.name)
        except OSError as error:
            raise disk_error("keep a clip", error) from error
