"""pyannote's pipelines (3.1, community-1) as a diarizer (extra `pyannote`).

Words are assigned by its exclusive turns, which do not overlap; speech is all of its turns. Its telemetry is off.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import extras
from ...audio import SAMPLE_RATE_HZ, Samples
from ...errors import EngineError
from ...speech import Region
from ...voices.witness import Points, Scatter, Witness, on_sphere
from .diarizer import Diarization
from .hub import unheard, unusable
from .segmentation import FIELD_S, FRAME_S

DEFAULT = "pyannote/speaker-diarization-community-1"
_PAD_S, _MERGE_S = 0.1, 0.3
"""Regions of speech are widened by the first at both ends; shorter pauses than the second are closed
(assumed)."""


class PyannoteWitness:
    """The embedding model of a pipeline. Threshold and scale are assumed; they were not fitted here.

    Args:
        embedding: of the pipeline: waveforms `[clips, 1, n]` to `[clips, d]`.
    """

    name = "pyannote"
    threshold, elsewhere, scale, settle_s = 0.5, 0.45, 18.0, 1.0
    scatter: Scatter | None = None

    def __init__(self, embedding: Any) -> None:
        self._embedding = embedding

    def embed(self, clips: Sequence[Samples]) -> Points:
        """See `Witness`. A clip that is too short for the model is repeated."""
        import torch

        least = int(self._embedding.min_num_samples)
        rows = []
        for clip in clips:
            sound = np.resize(clip, least) if 0 < len(clip) < least else clip
            wave = torch.from_numpy(np.ascontiguousarray(sound, np.float32))[None, None]
            rows.append(np.nan_to_num(np.asarray(self._embedding(wave)[0], np.float32)))
        return on_sphere(rows)


class PyannoteDiarizer:
    """Diarizes by a pipeline of pyannote.audio 4.

    Args:
        model: hub id, or a folder with its `config.yaml`.
        device: as torch names it; a GPU where there is one if `None`.

    Raises:
        ExtraError: pyannote.audio is not installed.
        CheckpointError: the pipeline cannot be loaded; its conditions are not accepted.
    """

    def __init__(self, model: str = DEFAULT, *, device: str | None = None) -> None:
        self.name = f"pyannote={model}"
        self._pipeline: Any = _load(model, device)
        self.witness: Witness | None = PyannoteWitness(self._pipeline._embedding)
        self._last: tuple[tuple[int, int, tuple[int, int] | None], Any] | None = None

    def describe(self) -> dict[str, Any]:
        """See `Diarizer`."""
        from importlib.metadata import version

        return {"diarizer": self.name, "pyannote_audio": version("pyannote.audio")}

    def speech(self, samples: Samples) -> Sequence[Region]:
        """See `Diarizer`."""
        if not len(samples):
            return []
        output = self.run(samples, None)
        return speech_of(output.speaker_diarization, len(samples) / SAMPLE_RATE_HZ)

    def diarize(self, samples: Samples, bounds: tuple[int, int] | None = None) -> Diarization:
        """See `Diarizer`."""
        return diarization_of(self.run(samples, bounds), len(samples))

    def run(self, samples: Samples, bounds: tuple[int, int] | None) -> Any:
        """The pipeline's output; the last one is kept, because `speech` and `diarize` need the same."""
        size, digest = len(samples), zlib.crc32(np.ascontiguousarray(samples).data)
        if self._last is not None:
            known = self._last[0]
            if known[:2] == (size, digest) and bounds in (None, known[2]):
                return self._last[1]
        import torch

        wave = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
        many: dict[str, int] = {}
        if bounds is not None:
            low, high = max(1, bounds[0]), max(1, bounds[1])
            many = (
                {"num_speakers": low}
                if low == high
                else {"min_speakers": low, "max_speakers": high}
            )
        try:
            with unheard():
                output = self._pipeline(
                    {"waveform": wave, "sample_rate": SAMPLE_RATE_HZ, "uri": "chunk"}, **many
                )
        except Exception as error:  # torch's and pyannote's own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(f"{self.name}: {reason}") from error
        self._last = ((size, digest, bounds), output)
        return output


def diarization_of(output: Any, size: int) -> Diarization:
    """A pipeline's output on the grid of frames.

    Args:
        output: with `speaker_diarization`, `exclusive_speaker_diarization` (Annotations) and
            `speaker_embeddings` (`[speakers, d]` in the order of the labels of the former, or `None`).
        size: samples of the chunk.
    """
    labels = output.speaker_diarization.labels()
    active = np.zeros(
        (max(1, -(-size // round(FRAME_S * SAMPLE_RATE_HZ))), len(labels)), np.float32
    )
    for start_s, end_s, label in _turns(output.exclusive_speaker_diarization):
        if label in labels:
            active[_frames(start_s, end_s, len(active)), labels.index(label)] = 1.0
    rows = output.speaker_embeddings
    if rows is None or len(rows) < len(labels):
        return Diarization(active)
    points = np.asarray(rows[: len(labels)], np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    known = np.isfinite(lengths) & (lengths > 0)  # of a speaker without a cluster it gives zeros
    points = np.where(known, points / np.where(known, lengths, 1.0), np.nan)
    return Diarization(active, points.astype(np.float32))


def speech_of(annotation: Any, end_s: float) -> list[Region]:
    """Regions of speech, widened by `_PAD_S`, in order and apart."""
    stretches: list[Region] = []
    for start_s, stop_s, _ in sorted(_turns(annotation), key=lambda turn: turn[:2]):
        first_s, last_s = max(0.0, start_s - _PAD_S), min(stop_s + _PAD_S, end_s)
        if last_s <= first_s:
            continue
        if stretches and first_s - stretches[-1][1] <= _MERGE_S:
            earlier_s, before_s = stretches.pop()
            first_s, last_s = earlier_s, max(before_s, last_s)
        stretches.append((first_s, last_s))
    return stretches


def _turns(annotation: Any) -> Iterator[tuple[float, float, Any]]:
    for segment, _, label in annotation.itertracks(yield_label=True):
        yield float(segment.start), float(segment.end), label


def _frames(start_s: float, end_s: float, count: int) -> slice:
    """The frames whose middles lie in a turn, at least one."""
    first = int(np.clip(np.ceil((start_s - FIELD_S / 2) / FRAME_S), 0, count - 1))
    last = int(np.clip(np.ceil((end_s - FIELD_S / 2) / FRAME_S), first + 1, count))
    return slice(first, last)


def _load(model: str, device: str | None) -> Any:
    os.environ["PYANNOTE_METRICS_ENABLED"] = "0"  # read when the package is imported
    package = extras.load("pyannote.audio", "pyannote", "the diarizer pyannote")
    import torch

    folder = Path(model).expanduser()
    local = folder.is_dir()
    part = f"diarizer pyannote={model}"
    try:
        with unheard():
            loaded = package.Pipeline.from_pretrained(
                str(folder) if local else model, token=os.environ.get("HF_TOKEN") or None
            )
            if loaded is None:
                raise FileNotFoundError("the hub gave no pipeline")
            chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
            return loaded.to(torch.device(chosen))
    except Exception as error:  # of the hub, the network, YAML, torch
        raise unusable(part, model, error, local=local) from error
