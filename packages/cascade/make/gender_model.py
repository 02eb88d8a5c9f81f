"""Make `gender.onnx` from the public weights in the PyPI wheel inaSpeechSegmenter 0.6.8.

The wheel (MIT, copyright INA) ships a convolutional network, trained on voices of French television and radio, that
tells female from male speech. Only its weights are read (nothing of the wheel is imported or run); the network is that
of networks.py. Needs torch, onnx and h5py, which what is made does not. Large weights are kept in 16 bits.

    python gender_model.py OUT [--wheel FILE]
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from networks import Gender
from speaker_models import arguments, download, export

WHEEL = "inaSpeechSegmenter==0.6.8"
WEIGHTS = "inaSpeechSegmenter/keras_male_female_cnn.hdf5"


def _tensors(parcel: bytes) -> dict[str, torch.Tensor]:
    """Tensors by layer and name, such as `conv2d_1.kernel`."""
    tensors: dict[str, torch.Tensor] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, *_, kind = name.split("/")
            tensors[f"{layer}.{kind.removesuffix(':0')}"] = torch.from_numpy(np.array(item))

    with h5py.File(io.BytesIO(parcel)) as stored:
        stored["model_weights"].visititems(keep)
    return tensors


def main() -> None:
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = args.wheel or download(WHEEL, Path(scratch))
        with zipfile.ZipFile(wheel) as parcel:
            network = Gender(_tensors(parcel.read(WEIGHTS)))
    args.out.mkdir(parents=True, exist_ok=True)
    example = torch.randn(2, *Gender.shape)
    export(network, example, ("patches", "genders"), args.out / "gender.onnx")


if __name__ == "__main__":
    main()
