"""The checkpoint that ships with the package, on the example recording."""

from pathlib import Path

import numpy as np
import pytest

from speaker_reasoner import Transcriber, Transcript, formats, load_engine

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "meeting.txt"


@pytest.fixture(scope="module")
def transcriber() -> Transcriber:
    return Transcriber(load_engine("tiny", device="cpu"))


@pytest.fixture(scope="module")
def transcript(transcriber: Transcriber) -> Transcript:
    return transcriber.transcribe(ROOT / "examples" / "meeting.flac")


def test_golden(transcript: Transcript) -> None:
    """What the checkpoint wrote when it was put in place."""
    assert formats.render(transcript, "txt") == GOLDEN.read_text(encoding="utf-8")


def test_most_words_of_the_example_are_right(transcript: Transcript) -> None:
    [reference] = formats.read(ROOT / "examples" / "meeting.seglst.json")
    spoken, written = reference.text.split(), transcript.text.split()
    assert len(spoken) >= 10
    common = sum(min(spoken.count(word), written.count(word)) for word in set(spoken))
    assert common > 0.5 * len(spoken)


def test_every_line_has_confidences(transcript: Transcript) -> None:
    for segment in transcript.segments:
        for value in (segment.confidence.words, segment.confidence.times):
            assert value is not None and 0 < value <= 1


def test_noise_gives_a_transcript_too(transcriber: Transcriber, tmp_path: Path) -> None:
    import soundfile as sf

    rng = np.random.default_rng(0)
    sf.write(tmp_path / "noise.wav", rng.standard_normal(48_000) * 0.01, 16_000)
    assert transcriber.transcribe(tmp_path / "noise.wav").duration_s == 3.0


def test_a_foreign_voice_is_warned_about(transcriber: Transcriber) -> None:
    [warning] = transcriber.transcribe(ROOT / "examples" / "ami.flac").warnings
    assert "does not sound like" in warning


def test_speech_played_backwards_is_warned_about(transcriber: Transcriber, tmp_path: Path) -> None:
    import soundfile as sf

    samples, rate_hz = sf.read(ROOT / "examples" / "meeting.flac")
    sf.write(tmp_path / "backwards.wav", samples[::-1][: 8 * rate_hz], rate_hz)
    [warning] = transcriber.transcribe(tmp_path / "backwards.wav").warnings
    assert "does not sound like" in warning
