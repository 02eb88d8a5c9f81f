"""What needs an accelerator: `python -m pytest -m gpu`."""

from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner import Transcriber, Transcript, load_engine

EXAMPLE = Path(__file__).parents[1] / "examples" / "meeting.flac"


Said = list[tuple[str, str, str]]


def said(device: str, **options: Any) -> Said:
    engine = load_engine("tiny", device=device, dtype="float32", **options)
    result = Transcriber(engine).transcribe(EXAMPLE)
    assert isinstance(result, Transcript)
    return [(one.speaker, one.gender, one.text) for one in result.segments]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cuda_graphs": True},
        {"cuda_graphs": True, "compile": "always"},
        {"cuda_graphs": True, "deterministic": True},
        {"compile": "always"},
    ],
)
def test_a_gpu_hears_what_a_cpu_hears(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    assert said("cuda", **options) == said("cpu") != []
