"""The witness of an engine without a tower in this process, and witnesses by name for all engines."""

import importlib.util

from ..cores import model_threads
from ..voices.choice import choose
from ..voices.witness import Witness


def load_witness(name: str, device: str = "cpu") -> Witness | None:
    """Choose a witness like `voices.choice.choose`, which may also be `campplus`, of the cascade's weights.

    Raises:
        SettingsError, CheckpointError: as `choose`.
    """
    if name != "campplus":
        return choose(name, device)
    from .cascade.embedding import CampplusWitness
    from .cascade.weights import weights_file, weights_folder

    return CampplusWitness(weights_file(weights_folder(), "embedding.onnx"), model_threads())


def best_witness() -> Witness | None:
    """The witness that is installed here: CAM++ of the cascade's weights, or Resemblyzer, or none."""
    from .cascade.weights import installed

    if installed():
        return load_witness("campplus")
    if importlib.util.find_spec("resemblyzer") is not None:
        return load_witness("resemblyzer")
    return None
