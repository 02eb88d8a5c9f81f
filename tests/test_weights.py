"""The weights of the cascade are those that their card lists."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "packages/cascade/src/speaker_reasoner_cascade/weights"


def test_weights_are_those_that_were_built() -> None:
    listed = dict(
        reversed(line.split(maxsplit=1))
        for line in (FOLDER / "SHA256SUMS").read_text("ascii").splitlines()
    )
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    got = {str(p.relative_to(FOLDER)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    assert got == listed
    assert {"whisper-base/model.bin", "segmentation.onnx", "embedding.onnx", "gender.onnx"} <= set(
        listed
    )
