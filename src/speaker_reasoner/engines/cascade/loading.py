"""The cascade's parts by name."""

import importlib
import importlib.util
import os
from pathlib import Path

from ...errors import CheckpointError, SettingsError
from .diarizer import Diarizer
from .embedding import CampplusWitness
from .engine import CascadeEngine
from .local import LocalDiarizer
from .recogniser import Recogniser
from .segmentation import Segmentation
from .whisper import FasterWhisper

WEIGHTS_PACKAGE = "speaker_reasoner_cascade"


def installed() -> bool:
    """Whether the cascade's weights and their packages are there."""
    return all(
        importlib.util.find_spec(name) is not None
        for name in (WEIGHTS_PACKAGE, "faster_whisper", "onnxruntime")
    )


def load_cascade(
    model: str = "",
    *,
    diarizer: str = "local",
    language: str | None = None,
    hotwords: str | None = None,
    beam: int = 1,
    device: str | None = None,
) -> CascadeEngine:
    """Load a recogniser and a diarizer.

    Args:
        model: of the recogniser: a size of Whisper (`large-v3-turbo`), a folder or a hub id; the Whisper
            base of the weights package if empty.
        diarizer: `local`.
        language: ISO 639-1 code of what is spoken; recognised if `None`.
        hotwords: names and terms that are likely to be said.
        beam: hypotheses of the recogniser's search.
        device: `cpu` or `cuda`; a GPU where there is one if `None`.

    Raises:
        CheckpointError: a package or a model is missing or damaged.
        SettingsError: the recogniser does not know the language; there is no such diarizer.
    """
    threads = os.cpu_count() or 1
    local = Path(model).expanduser()
    name = f"cascade={local.name if local.is_dir() else model}" if model else "cascade"
    recogniser = _recogniser(model, language, hotwords, beam, device, threads)
    return CascadeEngine(recogniser, _diarizer(diarizer, threads), model=name)


def _recogniser(
    model: str,
    language: str | None,
    hotwords: str | None,
    beam: int,
    device: str | None,
    threads: int,
) -> Recogniser:
    target = device or "auto"
    name = None
    if not model:
        model, name = str(_weights() / "whisper-base"), "whisper base (8 bits)"
    return FasterWhisper(
        model,
        name=name,
        language=language,
        hotwords=hotwords,
        beam=beam,
        device=target,
        threads=threads,
    )


def _diarizer(name: str, threads: int) -> Diarizer:
    if name != "local":
        raise SettingsError(f"diarizer {name!r}: expected local")
    folder = _weights()
    return LocalDiarizer(
        Segmentation(_file(folder, "segmentation.onnx"), threads),
        CampplusWitness(_file(folder, "embedding.onnx"), threads),
    )


def _weights() -> Path:
    """The folder of the weights package."""
    try:
        package = importlib.import_module(WEIGHTS_PACKAGE)
    except ImportError as error:
        raise CheckpointError(
            "the cascade's weights are not installed; from a checkout of speaker-reasoner: pip install "
            "./packages/cascade"
        ) from error
    return Path(package.FOLDER)


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is missing from the weights package; install it again: pip install "
            "--force-reinstall ./packages/cascade"
        )
    return path
