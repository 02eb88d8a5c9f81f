"""Speaker-Reasoner: who said what, and when.

    from speaker_reasoner import transcribe
    for segment in transcribe("meeting.wav").segments:
        print(segment.speaker, segment.gender, segment.start_s, segment.end_s, segment.text)

`Transcriber` does the same for many recordings with one loaded engine.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SpeakerReasonerError
from .transcript import Confidence, Missing, Segment, Transcript
from .version import __version__

if TYPE_CHECKING:
    from .engines.local import TransformersEngine
    from .longform import Transcriber

__all__ = [
    "Confidence",
    "Missing",
    "Segment",
    "SpeakerReasonerError",
    "Transcriber",
    "Transcript",
    "__version__",
    "load_engine",
    "transcribe",
]


def load_engine(
    model: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    prompts: str | Path | None = None,
) -> "TransformersEngine":
    """Load a checkpoint as an engine; the embedded one if `model` is `None`.

    Args:
        model: folder or hub id of a Qwen3-Omni or Qwen2.5-Omni thinker, or of a LoRA adapter.
        device: `cpu`, `cuda`, `mps`, ...; the best one present if `None`.
        dtype: `float32`, `bfloat16` or `float16`; fitting the device if `None`.
        prompts: the prompt file published with a released checkpoint.

    Raises:
        CheckpointError, ProtocolError: the checkpoint or the prompt file cannot be used.
    """
    from .engines.checkpoint import load_checkpoint
    from .engines.local import TransformersEngine

    prompt_file = Path(prompts) if prompts else None
    return TransformersEngine(
        load_checkpoint(model, device=device, dtype=dtype, prompts=prompt_file)
    )


def transcribe(
    path: str | os.PathLike[str],
    *,
    model: str | Path | None = None,
    answer: str = "assembled",
    channel: int | None = None,
) -> Transcript:
    """Transcribe one recording: speaker, gender, start, end and text of every segment.

    Args:
        path: wav, flac, mp3, ogg, opus; m4a, mp4, webm and others with the extra `media`.
        model: as for `load_engine`.
        answer: `assembled` from the turns, or `model`: written once more, as published.
        channel: 0-based channel to listen to; all are mixed down if `None`.

    Raises:
        SpeakerReasonerError: the recording or the model cannot be used.
    """
    from .longform import Transcriber

    transcriber = Transcriber(load_engine(model), answer=answer, channel=channel, batch=4)
    return transcriber.transcribe(Path(path))


def __getattr__(name: str) -> object:
    if name == "Transcriber":
        from .longform import Transcriber

        return Transcriber
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
