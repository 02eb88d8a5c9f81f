"""Local speakers: who speaks within ten seconds, by pyannote's segmentation-3.0 (MIT), in ONNX Runtime.

The network takes windows of ten seconds and gives, every 17 ms, the probabilities of three local speakers, at
most two of them at once. `clustering` finds which local speakers of different windows are one person.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...audio import SAMPLE_RATE_HZ, Samples
from ...errors import CheckpointError
from ...speech import Region

Floats = npt.NDArray[np.float32]

FRAME_S = 270 / SAMPLE_RATE_HZ
"""Time between two frames."""
FIELD_S = 991 / SAMPLE_RATE_HZ
"""Length of the sound that one frame depends on; a frame's time is the middle of it."""
_WINDOW_SAMPLES = 10 * SAMPLE_RATE_HZ
_STEP_SAMPLES = 5 * SAMPLE_RATE_HZ
_SHORTEST_SAMPLES = SAMPLE_RATE_HZ
"""Windows as long as those that the network was trained on, half of each overlapping the next; a shorter
recording is one window of at least a second (assumed)."""
_BATCH = 8
_ON, _OFF = 0.5, 0.35
"""A stretch begins at the first probability and ends below the second (assumed)."""
_SHORTEST_S = 0.1
"""Shorter regions are dropped (assumed)."""


@dataclass(frozen=True, slots=True)
class LocalSpeakers:
    """The network's output, window by window.

    Attributes:
        offsets: frame of the recording at which each window starts, `[windows]`.
        active: probability of each local speaker, `[windows, frames, 3]`.
        frames: of the recording.
    """

    offsets: npt.NDArray[np.intp]
    active: Floats
    frames: int

    def speech(self) -> Floats:
        """Probability that somebody speaks, `[frames]`: the mean over the windows, in which the frames
        in the middle weigh most."""
        windows, length, _ = self.active.shape
        speaking = 1 - np.prod(1 - self.active, axis=2)  # [windows, length]
        weights = np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / length + 1e-3
        total, weight = np.zeros(self.frames), np.zeros(self.frames)
        for window in range(windows):
            at = int(self.offsets[window])
            end = min(at + length, self.frames)
            weight[at:end] += weights[: end - at]
            total[at:end] += weights[: end - at] * speaking[window, : end - at]
        return np.asarray(total / np.maximum(weight, 1e-9), np.float32)


class Segmentation:
    """The network.

    Args:
        path: of the ONNX file: samples `[windows, n]` to the probabilities of `_CLASSES`,
            `[windows, frames, 7]`.
        threads: of one call.

    Raises:
        CheckpointError: the file is damaged, or of another network.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._session = onnx_session(path, threads)
        shape = self._session.get_outputs()[0].shape
        if len(shape) != 3 or shape[-1] != len(_CLASSES):
            raise CheckpointError(
                f"{path}: gives {shape}, expected [windows, frames, {len(_CLASSES)}], the classes of "
                "segmentation-3.0; take the file of the package speaker-reasoner-cascade"
            )

    def __call__(self, samples: Samples) -> LocalSpeakers:
        """Find the local speakers of float32 samples `[n]` at 16 kHz."""
        starts = _window_starts(len(samples))
        # A short recording is a short window: the network normalises levels, also by padded silence.
        length = min(_WINDOW_SAMPLES, max(len(samples), _SHORTEST_SAMPLES))
        windows = np.zeros((len(starts), length), np.float32)
        for row, start in zip(windows, starts, strict=True):
            part = samples[start : start + length]
            row[: len(part)] = part
        name = self._session.get_inputs()[0].name
        rows = [
            self._session.run(None, {name: windows[at : at + _BATCH]})[0]
            for at in range(0, len(windows), _BATCH)
        ]
        active = np.concatenate(rows) @ _CLASSES  # [windows, frames, 3]
        offsets = np.array([round(start / (FRAME_S * SAMPLE_RATE_HZ)) for start in starts], np.intp)
        frames = max(1, round(len(samples) / (FRAME_S * SAMPLE_RATE_HZ)))
        return LocalSpeakers(offsets, np.asarray(active, np.float32), frames)


_CLASSES = np.array(
    [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], np.float32
)
"""The local speakers of each of the network's seven classes, `[7, 3]`."""


def onnx_session(path: Path, threads: int) -> Any:
    """A network in ONNX Runtime on the CPU.

    Raises:
        CheckpointError: the package is missing, or the file is damaged.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(
            f"the cascade's diarizer: {error}; pip install onnxruntime"
        ) from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait in a loop slow other work on the processor down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no base class of their own
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path}: cannot be loaded: {reason}; is the file whole?") from error


def _window_starts(samples: int) -> list[int]:
    """First sample of each window; the last window ends with the samples."""
    if samples <= _WINDOW_SAMPLES:
        return [0]
    return [*range(0, samples - _WINDOW_SAMPLES, _STEP_SAMPLES), samples - _WINDOW_SAMPLES]


def middle_s(frame: float) -> float:
    """Time of the middle of a frame in seconds."""
    return frame * FRAME_S + FIELD_S / 2


def runs(active: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Stretches `[first, last)` in which `active` `[n]` holds."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def on(probability: Floats) -> npt.NDArray[np.bool_]:
    """Return whether each frame is active: from a probability of `_ON` until it falls below `_OFF`, `[n]`."""
    active = np.zeros(len(probability), bool)
    for first, last in runs(probability >= _OFF):
        reached = np.flatnonzero(probability[first:last] >= _ON)
        if len(reached):
            active[first + reached[0] : last] = True
    return active


def regions(
    probability: Floats, end_s: float, *, pad_s: float = 0.0, merge_s: float = 0.0
) -> list[Region]:
    """Regions in seconds, in order and apart, in which `on` holds.

    Args:
        end_s: of the recording; nothing lies beyond it.
        pad_s: added at both ends.
        merge_s: regions no further apart are one.
    """
    merged: list[Region] = []
    for first, last in runs(on(probability)):
        if (last - first) * FRAME_S < _SHORTEST_S:
            continue
        start_s = max(0.0, middle_s(first - 0.5) - pad_s)
        stop_s = min(middle_s(last - 0.5) + pad_s, end_s)
        if stop_s <= start_s:
            continue
        if merged and start_s - merged[-1][1] <= merge_s:
            start_s = merged.pop()[0]
        merged.append((start_s, stop_s))
    return merged


def frames_of(start_s: float, end_s: float, count: int) -> slice:
    """The frames between two times, at least one of `count`."""
    first = int(np.clip((start_s - FIELD_S / 2) / FRAME_S, 0, count - 1))
    last = int(np.clip((end_s - FIELD_S / 2) / FRAME_S + 1, first + 1, count))
    return slice(first, last)


def stretches(frames: npt.NDArray[np.intp]) -> Sequence[npt.NDArray[np.intp]]:
    """Runs of neighbouring frames, the longest first."""
    parts = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    return sorted(parts, key=len, reverse=True)
