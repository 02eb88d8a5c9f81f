"""Locates the package of the cascade's weights."""

import importlib
import importlib.util
from pathlib import Path

from ...errors import CheckpointError

WEIGHTS_PACKAGE = "speaker_reasoner_cascade"


def installed() -> bool:
    """Return whether the cascade's weights and their packages are there."""
    return all(
        importlib.util.find_spec(name) is not None
        for name in (WEIGHTS_PACKAGE, "faster_whisper", "onnxruntime")
    )


def weights_folder() -> Path:
    """The folder of the weights package."""
    try:
        package = importlib.import_module(WEIGHTS_PACKAGE)
    except ImportError as error:
        raise CheckpointError(
            "the cascade's weights are not installed; from a checkout of speaker-reasoner: pip install "
            "./packages/cascade"
        ) from error
    return Path(package.FOLDER)


def weights_file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is missing from the weights package; install it again: pip install "
            "--force-reinstall ./packages/cascade"
        )
    return path
