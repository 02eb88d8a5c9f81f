"""Systems in an environment of their own: the real program and its lines, with stand-ins for the libraries.

The libraries are modules in a folder: pyannote's turns are a real Annotation, in pyannote.audio 4's own shape.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.engines.client import Unavailable
from speaker_reasoner.errors import AnswerError, CheckpointError, ExtraError, SettingsError
from speaker_reasoner.systems import isolated
from speaker_reasoner.systems.asking import understood
from speaker_reasoner.systems.base import Answer, Sound, SystemOptions
from speaker_reasoner.systems.pyannote_paraformer import PyannoteParaformer
from speaker_reasoner.systems.table import load
from speaker_reasoner.systems.whisperx import WhisperXAlone

from .vocal import voice

TORCH = """
class cuda:
    @staticmethod
    def is_available():
        return False
def device(name):
    return name
def from_numpy(samples):
    return samples
"""
PYANNOTE = """
import os
from dataclasses import dataclass
from pyannote.core import Annotation, Segment
assert os.environ["PYANNOTE_METRICS_ENABLED"] == "0"
@dataclass
class DiarizeOutput:
    speaker_diarization: Annotation
    exclusive_speaker_diarization: Annotation
    def serialize(self):
        rows = [
            [{"start": round(s.start, 3), "end": round(s.end, 3), "speaker": label}
             for s, _, label in one.itertracks(yield_label=True)]
            for one in (self.speaker_diarization, self.exclusive_speaker_diarization)]
        return dict(zip(("diarization", "exclusive_diarization"), rows))
class Pipeline:
    @classmethod
    def from_pretrained(cls, name, token=None):
        print("Downloading", name)
        return cls() if name == "pyannote/speaker-diarization-3.1" else None
    def to(self, device):
        return self
    def __call__(self, sound, **many):
        assert sound["waveform"].shape == (1, 96000) and sound["sample_rate"] == 16000
        turns = Annotation(uri="x")
        turns[Segment(0.2, 1.6), "a"] = "SPEAKER_00"
        turns[Segment(1.2, 4.5), "b"] = f"SPEAKER_{many.get('num_speakers', 1):02d}"
        turns[Segment(5.0, 5.05), "c"] = "SPEAKER_00"
        return DiarizeOutput(turns, turns)
"""
FUNASR = """
import sys
class AutoModel:
    def __init__(self, model, **options):
        assert model == "paraformer-zh" and options["punc_model"] == "ct-punc"
        print("funasr version: 1.4.16.")
    def generate(self, input, fs, return_raw_text, **options):
        [samples] = input
        seconds = len(samples) / fs
        if seconds < 2:
            return [{"key": "rand_key", "text": "\\u4f60\\u597d\\uff0c", "raw_text": "\\u4f60 \\u597d",
                     "timestamp": [[50, 290], [290, 530]]}]
        return [{"key": "rand_key", "text": "\\u4eca\\u5929", "raw_text": "\\u4eca \\u5929", "timestamp": []}]
"""
WHISPERX = """
def load_model(arch, device, compute_type, language):
    assert compute_type == "int8"
    return Model()
class Model:
    def transcribe(self, audio, batch_size, language):
        if len(audio) < 16000:
            import time; time.sleep(60)
        if len(audio) < 32000:
            raise RuntimeError("the sound\\nis too short")
        if len(audio) < 64000:
            import os; print("a library gives up", file=__import__("sys").stderr, flush=True); os._exit(3)
        return {"language": language or "en", "segments": [{"start": 0.2, "end": 4.5, "text": " Good morning."}]}
def load_align_model(language, device):
    if language == "xx":
        raise ValueError("No default align-model for language: xx")
    return "model", {"language": language}
def align(segments, model, about, audio, device):
    words = [{"word": "Good", "start": 0.2, "end": 0.6, "score": 0.9}, {"word": "morning."}]
    return {"segments": [{"start": 0.2, "end": 1.6, "text": " Good morning.", "words": words},
                         {"start": 2.0, "end": 2.5, "text": " Yes.", "words": []}]}
def assign_word_speakers(turns, result):
    if "words" in result["segments"][0]:
        result["segments"][0]["words"][0]["speaker"] = turns
    return result
"""
DIARIZE = """
class DiarizationPipeline:
    def __init__(self, token=None, device="cpu"):
        pass
    def __call__(self, audio, num_speakers=None, min_speakers=None, max_speakers=None):
        return "SPEAKER_01"
"""
METADATA = "Metadata-Version: 2.1\nName: {0}\nVersion: 9.9\n"


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment with these libraries before all others."""
    import pyannote.core

    folder = tmp_path / "libraries"
    files = {
        "torch.py": TORCH,
        "pyannote/audio.py": PYANNOTE,
        "funasr.py": FUNASR,
        "whisperx/__init__.py": WHISPERX,
        "whisperx/diarize.py": DIARIZE,
    }
    real = Path(pyannote.core.__file__).parents[1]
    files["pyannote/__init__.py"] = f"__path__.append({str(real)!r})\n"
    for package in ("torch", "pyannote.audio", "funasr", "whisperx", "faster-whisper"):
        files[f"{package.replace('-', '_')}-9.9.dist-info/METADATA"] = METADATA.format(package)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), before])))
    yield folder


def call(seconds: float = 6.0) -> Sound:
    return Sound("call", voice(seconds))


def test_pyannote_and_paraformer(libraries: Path) -> None:
    with closing(load("pyannote+paraformer", SystemOptions(speakers=(2, 2)))) as system:
        answer = system.ask(call())
        transcript = understood(system, answer, call())
        assert system.describe()["sdk"]["versions"]["funasr"] == "9.9"
    rows = [(s.speaker, s.start_s, s.end_s, s.text) for s in transcript.segments]
    assert rows == [
        ("SPEAKER_00", 0.2, 1.6, "你好，"),
        ("SPEAKER_02", 1.2, 4.5, "今天"),
        ("SPEAKER_00", 5.0, 5.05, ""),  # too short for Paraformer: speech without words
    ]
    words = transcript.segments[0].words
    assert words is not None
    assert [(w.text, w.start_s, w.end_s) for w in words] == [
        ("你", 0.25, 0.49),
        ("好，", 0.49, 0.73),
    ]
    assert transcript.segments[1].words is None  # no times came


def test_whisperx_with_keys_missing(libraries: Path) -> None:
    with closing(load("whisperx", SystemOptions())) as system:
        transcript = understood(system, system.ask(call()), call())
    rows = [(s.speaker, s.start_s, s.end_s, s.text, s.words) for s in transcript.segments]
    assert rows == [
        ("SPEAKER_01", 0.2, 1.6, "Good morning.", None),
        ("unknown", 2.0, 2.5, "Yes.", None),
    ]
    said = " ".join(transcript.warnings)
    assert "1 segments name no speaker" in said and "words without times" in said


def test_a_language_without_an_aligner(libraries: Path) -> None:
    with closing(load("whisperx", SystemOptions(language="xx"))) as system:
        answer = system.ask(call())
    assert answer.raw["aligned"] is False and answer.raw["segments"][0]["end"] == 4.5


def test_a_library_that_fails_on_a_sound(libraries: Path) -> None:
    with closing(load("whisperx", SystemOptions())) as system:
        with pytest.raises(AnswerError, match="RuntimeError: the sound is too short") as caught:
            system.ask(call(1.0))
        assert caught.value.reason == "unavailable"
        assert system.ask(call()).raw["segments"]  # it goes on


def test_a_process_that_dies_is_started_again(libraries: Path) -> None:
    with closing(load("whisperx", SystemOptions())) as system:
        with pytest.raises(Unavailable, match=r"ended with status 3: .*a library gives up"):
            system.ask(call(3.0))
        assert system.ask(call()).raw["segments"]


def test_an_answer_that_takes_too_long_is_not_taken_for_the_next(libraries: Path) -> None:
    with closing(load("whisperx", SystemOptions(timeout_s=2.0))) as system:
        with pytest.raises(Unavailable, match="no answer within 2 s"):
            system.ask(call(0.5))
        assert system.ask(call()).raw["segments"]


def test_a_model_that_cannot_be_loaded(libraries: Path) -> None:
    with pytest.raises(CheckpointError, match="the hub gave no pipeline other/one"):
        load("pyannote+paraformer", SystemOptions(model="other/one+paraformer-zh"))


def test_a_process_that_dies_while_it_loads(libraries: Path) -> None:
    (libraries / "whisperx/__init__.py").write_text("import os\nos._exit(9)\n")
    with pytest.raises(CheckpointError, match="its process ended with status 9"):
        load("whisperx", SystemOptions())


def test_libraries_that_are_not_there(libraries: Path) -> None:
    (libraries / "whisperx/__init__.py").write_text("import no_such_module\n")
    with pytest.raises(ExtraError, match=r"needs whisperx in the environment of .*no_such_module"):
        load("whisperx", SystemOptions())


def test_no_such_python(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--system-python .*cannot be started"):
        load("whisperx", SystemOptions(python=str(tmp_path / "python")))


def test_the_program_imports_nothing_of_ours() -> None:
    """Modules beside it are named as libraries: they must not be found in their place."""
    code = (
        "import runpy, sys\n"
        "sys.modules['speaker_reasoner'] = None\n"
        f"sys.path.insert(0, {str(Path(isolated.__file__).parent)!r})\n"
        f"runpy.run_path({isolated.__file__!r}, run_name='__main__')\n"
    )
    lines = json.dumps({"id": 1, "load": {"kind": "none"}}) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"id": 1, "error": "KeyError: 'none'", "missing": False}


@pytest.mark.parametrize("raw", ["a word", {"segments": None}, {}])
def test_what_is_no_answer_of_whisperx(raw: Any) -> None:
    system = object.__new__(WhisperXAlone)
    with pytest.raises(AnswerError) as caught:
        understood(system, Answer(raw), call())
    assert caught.value.reason == "format"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({}, "format"),
        ({"turns": [{"start": None, "end": 1.0, "speaker": "A", "answer": None}]}, "no-times"),
    ],
)
def test_what_is_no_answer_of_pyannote_and_paraformer(raw: Any, reason: str) -> None:
    system = object.__new__(PyannoteParaformer)
    with pytest.raises(AnswerError) as caught:
        understood(system, Answer(raw), call())
    assert caught.value.reason == reason
