"""Dialogues in the format of ms-swift: JSONL beside the audio of its `<audio>` tags.

    FOLDER/<stage>.jsonl         {"messages": [...], "audios": [...]} a dialogue
    FOLDER/<stage>.check.jsonl   the same, never learned from
    FOLDER/audio/<chunk>/        FLAC: the chunk, its slices by their samples, the clips of its caches
    FOLDER/plugin.py, sft.sh, megatron.sh   a plug-in for ms-swift, and scripts that start its stages
    FOLDER/export.json           configuration and counts

Paths are relative to FOLDER, where the scripts start ms-swift; it can be copied to a machine without this
package. Audio is 16-bit; a slice under 1 s is padded with silence to 1 s, as for our own models. Slices that
several stages use are written once. `scripts/verify-swift` proves that ms-swift learns the same tokens as
`speaker-reasoner train`.

Differs from `speaker-reasoner train`: every dialogue ends with its whole answer, because ms-swift closes
the last turn.
"""

import io
import json
import re
import secrets
import shutil
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import soundfile as sf

from ..audio import SAMPLE_RATE_HZ, to_seconds
from ..engines.thinker import SHORTEST_SAMPLES
from ..errors import DataError, OutputError
from ..protocol import Audio, Trace
from ..protocol.messages import messages
from .batches import Example

SCHEMA = "speaker-reasoner/swift/1"
LAUNCH = Path(__file__).parent.parent / "configs" / "swift"
"""Folder of the files that are copied beside the dialogues."""

_LAUNCHED = ("plugin.py", "sft.sh", "megatron.sh")
_TAG = "<audio>"
_TAKEN = (_TAG, "<img>", "<start-image>")
"""Strings that ms-swift replaces or removes in texts."""
_UNSAFE = re.compile(r"[^\w.-]|^\.+")
_FULL_SCALE = 32768


def to_row(trace: Trace, audios: Sequence[str]) -> dict[str, Any]:
    """A trace as ms-swift's messages.

    Args:
        audios: the file of each of its audio parts, in order.

    Raises:
        DataError: a text holds a tag of ms-swift's.
        ProtocolError: the trace is not one of whole turns of user and assistant.
    """
    rows = [
        {"role": one.role, "content": "".join(_content(part) for part in one.content)}
        for one in messages(trace.parts)
    ]
    return {"messages": rows, "audios": list(audios)}


def _content(part: str | Audio) -> str:
    return _TAG if isinstance(part, Audio) else _free(part)


def _free(text: str) -> str:
    for tag in _TAKEN:
        if tag in text:
            raise DataError(
                f"a text holds {tag!r}, which ms-swift takes for media: {text!r}; "
                "remove it from the annotation"
            )
    return text


@dataclass(slots=True)
class Written:
    """Counts of an export.

    Attributes:
        dialogues, turns: by file; a turn is one of the assistant's.
        files, audio_s: of audio, silence at the ends of short slices included.
        loud_samples: outside -1..1, written as the loudest there is.
    """

    dialogues: Counter[str] = field(default_factory=Counter)
    turns: Counter[str] = field(default_factory=Counter)
    files: int = 0
    audio_s: float = 0.0
    loud_samples: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "dialogues": dict(self.dialogues),
            "turns": dict(self.turns),
            "audio_files": self.files,
            "audio_hours": round(self.audio_s / 3600, 4),
            "loud_samples": self.loud_samples,
        }


class SwiftExport:
    """Writes a folder for ms-swift: whole, or not at all.

        with SwiftExport(folder) as export:
            export.add("dialogues", "meeting-0001", example)
            export.finish({"seed": 1})

    Left without `finish`, nothing stays.
    """

    def __init__(self, folder: Path) -> None:
        """Raises OutputError where there is a folder that holds something, or no place for one."""
        self.folder = folder.absolute()
        self.written = Written()
        self._chunks: dict[str, int] = {}
        with _writing(self.folder):
            if self.folder.exists() and any(self.folder.iterdir()):
                raise OutputError(f"{folder}: is not empty; choose another folder, or remove it")
            self._building = self.folder.parent / f".{self.folder.name}.{secrets.token_hex(4)}.tmp"
            self._building.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._building, ignore_errors=True)

    def add(self, file: str, chunk: str, example: Example) -> None:
        """Write a dialogue and its audio.

        Args:
            file: the stage; with `.check` where it is not learned from.
            chunk: name of the chunk, the same in all stages.

        Raises:
            DataError: a text holds a tag of ms-swift's, or another chunk has the name.
            ProtocolError: the trace cannot be expressed in messages.
            OutputError: a file cannot be written.
        """
        folder = "audio/" + _UNSAFE.sub("_", chunk)
        paths = [
            f"{folder}/{file}-{part.clip}.flac"
            if part.clip
            else f"{folder}/{part.start_samples:08d}-{part.end_samples:08d}.flac"
            for part in example.trace.audio
        ]
        row = to_row(example.trace, paths)
        known = zlib.crc32(np.ascontiguousarray(example.clips[0].samples).data)
        if self._chunks.setdefault(folder, known) != known:
            raise DataError(
                f"two chunks are named {chunk!r}; export their corpora into folders of their own"
            )
        for path, part in zip(paths, example.trace.audio, strict=True):
            samples = example.clips[part.clip].samples[part.start_samples : part.end_samples]
            self._write_audio(path, samples)
        lines = self._building / f"{file}.jsonl"
        with _writing(lines), lines.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.written.dialogues[file] += 1
        self.written.turns[file] += len(row["messages"]) // 2

    def finish(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Put the launch files and `export.json` beside the dialogues; the folder takes its place.

        Args:
            record: origin of the dialogues; JSON-ready.

        Returns:
            The content of `export.json`: the record and the counts.

        Raises:
            DataError: nothing was added.
            OutputError: a file cannot be written, or the folder has been filled meanwhile.
        """
        if not self.written.dialogues:
            raise DataError(f"{self.folder}: no dialogue to export")
        manifest = {"schema": SCHEMA, **record, "written": self.written.to_json()}
        with _writing(self.folder):
            for name in _LAUNCHED:
                shutil.copy(LAUNCH / name, self._building)
            text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
            (self._building / "export.json").write_text(text, encoding="utf-8")
            self._building.replace(self.folder)
        return manifest

    def _write_audio(self, path: str, samples: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        """Write a slice as 16-bit FLAC, unless another stage has."""
        target = self._building / path
        if target.exists():
            return
        scaled = np.rint(samples * np.float32(_FULL_SCALE))
        held = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1)
        self.written.loud_samples += int((np.abs(samples) > 1).sum())
        held = np.pad(held, (0, max(0, SHORTEST_SAMPLES - len(held))))
        coded = io.BytesIO()
        sf.write(coded, held.astype(np.int16), SAMPLE_RATE_HZ, "PCM_16", format="FLAC")
        with _writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(coded.getvalue())
        self.written.files += 1
        self.written.audio_s += to_seconds(len(held))


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; nothing of the export was left; "
            "choose a folder with room that can be written to"
        ) from error
