"""What needs an accelerator: `python -m pytest -m gpu`."""

from pathlib import Path

import pytest

from speaker_reasoner import Transcriber, Transcript, load_engine

EXAMPLE = Path(__file__).parents[1] / "examples" / "meeting.flac"


@pytest.mark.gpu
def test_a_gpu_hears_what_a_cpu_hears() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here")

    def said(device: str) -> list[tuple[str, str, str]]:
        result = Transcriber(load_engine("tiny", device=device, dtype="float32")).transcribe(
            EXAMPLE
        )
        assert isinstance(result, Transcript)
        return [(one.speaker, one.gender, one.text) for one in result.segments]

    assert said("cuda") == said("cpu") != []
