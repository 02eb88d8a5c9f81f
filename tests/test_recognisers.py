"""Recognisers and diarizers of other packages: parsing of their answers, loading, errors of one line."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyannote.core import Annotation
from pyannote.core import Segment as Turn

from speaker_reasoner import load_engine
from speaker_reasoner.engines.cascade import whisper
from speaker_reasoner.engines.cascade.cuts import clips, words_of
from speaker_reasoner.engines.cascade.funasr import (
    NO_SPEECH,
    UNTIMED,
    Paraformer,
    SenseVoice,
    paraformer_words,
    sensevoice_words,
)
from speaker_reasoner.engines.cascade.lines import lines
from speaker_reasoner.engines.cascade.parakeet import Parakeet, parakeet_words
from speaker_reasoner.engines.cascade.pyannote import (
    PyannoteDiarizer,
    PyannoteWitness,
    diarization_of,
    speech_of,
)
from speaker_reasoner.engines.cascade.segmentation import FIELD_S, FRAME_S
from speaker_reasoner.errors import (
    CheckpointError,
    EngineError,
    ExtraError,
    SettingsError,
    SpeakerReasonerError,
)
from speaker_reasoner.transcript import find_words

try:
    from onnx_asr.asr import TimestampedResult
except ImportError:

    @dataclass
    class TimestampedResult:  # type: ignore[no-redef]
        """As onnx-asr 0.12 defines it."""

        text: str
        timestamps: list[float] | None = None
        tokens: list[str] | None = None
        logprobs: list[float] | None = None


REGION = (10.0, 14.0)
SOUND = np.zeros(16_000 * 15, np.float32)


def spans_ms(count: int) -> list[list[int]]:
    return [[200 * i, 200 * i + 200] for i in range(count)]


# Timed pieces to words


TEXTS = {
    "Chinese": ("你好，吗？", ["你", "好", "吗"], ["你", "好，", "吗？"], [0, 1, 1]),
    "English": ("Hello there.", ["hello", "there"], ["Hello", "there."], [0, 0]),
    "mixed": ("我用 Python 写。", ["我", "用", "python", "写"], ["我", "用", "Python", "写。"],
              [0, 1, 0, 0]),
    "mixed without spaces": ("你好ok", ["你", "好", "ok"], ["你", "好", "ok"], [0, 1, 1]),
    "pieces of a word": ("It's, well", ["It", "'", "s", ",", "well"], ["It's,", "well"], [0, 0]),
    "opening marks": ("“Yes” (no)", ["yes", "no"], ["“Yes”", "(no)"], [0, 0]),
    "another text": ("changed", ["other", "words"], ["other", "words"], [0, 0]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "pieces", "expected", "joined"), TEXTS.values(), ids=TEXTS)
def test_words_of_timed_pieces(
    text: str, pieces: list[str], expected: list[str], joined: list[int]
) -> None:
    spans_s = [(0.2 * i, 0.2 * i + 0.2) for i in range(len(pieces))]
    words, together = words_of(text, pieces, spans_s, REGION)
    assert [word.text for word in words] == expected
    assert together == [bool(value) for value in joined]
    assert words[0].start_s == 10.0 and words[-1].end_s == pytest.approx(10 + 0.2 * len(pieces))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["好", "ok", "a", "7"]), st.sampled_from(["", " ", ", ", "。", "! "])
        ),
        max_size=8,
    ),
    st.lists(st.floats(-1, 9, allow_nan=False), min_size=8, max_size=8),
)
def test_words_are_a_line_of_the_protocol(
    said: Sequence[tuple[str, str]], times_s: Sequence[float]
) -> None:
    """Law: whatever a recogniser claims, words lie in their region in order, and spell the text."""
    text = "".join(piece + mark for piece, mark in said)
    spans_s = [(time_s, time_s + 0.3) for time_s in times_s[: len(said)]]
    words, joined = words_of(text, [piece for piece, _ in said], spans_s, REGION)
    starts = [word.start_s for word in words]
    assert starts == sorted(starts)
    assert all(REGION[0] <= word.start_s <= word.end_s <= REGION[1] for word in words)
    spelled = "".join(word.text for word in words)
    assert spelled == "".join(text.split())
    for line in lines(words, joined, [0] * len(words), [1.0] * len(words)):
        assert find_words(line.text, line.words) is not None


def test_clips_are_no_longer_than_they_may_be() -> None:
    cut = clips(SOUND, [(0.0, 1.0), (2.0, 14.5)], 5.0)
    assert [round(end - start, 3) for (start, end), _ in cut] == [1.0, *[4.167] * 3]
    assert sum(len(sound) for _, sound in cut) == pytest.approx(16_000 * 13.5, abs=3)


# FunASR: answers as FunASR 1.4 gives them


def test_paraformer_times_characters_in_milliseconds() -> None:
    answer = {
        "key": "a",
        "raw_text": "你 好 ok 吗",
        "text": "你好 ok 吗？",
        "timestamp": spans_ms(4),
    }
    words, joined, lost = paraformer_words(answer, REGION)
    assert [(w.text, w.start_s, w.end_s) for w in words] == [
        ("你", 10.0, 10.2),
        ("好", 10.2, 10.4),
        ("ok", 10.4, 10.6),
        ("吗？", 10.6, 10.8),
    ]
    assert joined == [False, True, False, False] and not lost


@pytest.mark.parametrize("answer", [{"text": "你 好"}, {"text": "你 好", "timestamp": [[0, 9]]}])
def test_words_without_times_that_fit_are_counted(answer: dict[str, Any]) -> None:
    assert paraformer_words(answer, REGION) == ([], [], {UNTIMED: 2})


def test_sensevoice_tags_are_no_words() -> None:
    answer = {
        "text": "<|en|><|NEUTRAL|><|Speech|><|withitn|>Hello there.",
        "timestamp": [[0, 200], [200, 400], [400, 500]],
        "words": ["Hello", "there", "."],
    }
    words, _, _ = sensevoice_words(answer, REGION)
    assert [word.text for word in words] == ["Hello", "there."] and words[1].end_s == 10.5
    nobody = {"text": "<|nospeech|><|EMO_UNKNOWN|><|Event_UNK|><|woitn|>the."}
    assert sensevoice_words(nobody, REGION) == ([], [], {NO_SPEECH: 1})
    assert sensevoice_words({"text": "<|zh|><|Speech|>"}, REGION) == ([], [], {})


class FakeFunASR:
    """Plays the package: an AutoModel that answers every clip the same."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.loaded: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self._answer = answer

    def AutoModel(self, **options: Any) -> "FakeFunASR":
        print("Downloading model")
        self.loaded = options
        return self

    def generate(self, input: list[Any], **options: Any) -> list[dict[str, Any]]:
        print("rtf_avg: 0.1")
        self.asked.append(options)
        return [self._answer for _ in input]


def test_paraformer_hears_each_region(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeFunASR({"raw_text": "你 好", "text": "你好。", "timestamp": spans_ms(2)})
    monkeypatch.setitem(sys.modules, "funasr", fake)
    recogniser = Paraformer(hotwords="魔搭", device="cpu", threads=2)
    recognition = recogniser.recognise(SOUND, [(1.0, 2.0), (5.0, 6.0)], None)
    assert [(word.text, word.start_s) for word in recognition.words] == [
        ("你", 1.0),
        ("好。", 1.2),
        ("你", 5.0),
        ("好。", 5.2),
    ]
    assert (recognition.language, recognition.language_probability) == ("zh", 1.0)
    assert fake.loaded["punc_model"] == "ct-punc" and fake.asked[0]["hotword"] == "魔搭"
    assert capsys.readouterr().out == "", "standard output is for transcripts"


def test_sensevoice_tells_the_language_of_most_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeFunASR(
        {"text": "<|ja|><|Speech|>はい", "timestamp": spans_ms(2), "words": ["は", "い"]}
    )
    monkeypatch.setitem(sys.modules, "funasr", fake)
    recognition = SenseVoice().recognise(SOUND, [(1.0, 2.0), (5.0, 6.0)], "en")
    assert (recognition.language, recognition.language_probability) == ("ja", 1.0)
    assert fake.asked[0]["language"] == "auto", "the language of earlier chunks is not insisted on"


# Parakeet: answers as onnx-asr 0.12 gives them


def test_parakeet_tokens_become_words() -> None:
    answer = TimestampedResult(
        "Hello, world it's.",
        [0.0, 0.16, 0.32, 0.48, 0.56, 1.2, 1.28, 1.36, 1.44],
        [" He", "llo", ",", " wor", "ld", " it", "'", "s", "."],
        [-0.1, -0.1, 0.0, -1.0, -1.0, 0.0, 0.0, 0.0, 0.0],
    )
    words = parakeet_words(answer, REGION)
    assert [(w.text, w.start_s, w.end_s) for w in words] == [
        ("Hello,", 10.0, 10.48),
        ("world", 10.48, 10.8),
        ("it's.", 11.2, 11.68),
    ]
    assert words[1].confidence == pytest.approx(np.exp(-1.0), abs=1e-4)
    assert parakeet_words(TimestampedResult("", [], [], []), REGION) == []


def test_parakeet_words_end_with_their_region() -> None:
    answer = TimestampedResult("so", [3.9], [" so"], None)
    [word] = parakeet_words(answer, REGION)
    assert (word.end_s, word.confidence) == (14.0, None)


class FakeOnnxAsr:
    """Plays the package, and the model that it loads."""

    def __init__(self) -> None:
        self.loaded: tuple[Any, ...] = ()

    def load_model(self, *model: Any, **options: Any) -> "FakeOnnxAsr":
        self.loaded = (*model, options)
        return self

    def with_timestamps(self) -> "FakeOnnxAsr":
        return self

    def recognize(self, sounds: list[Any], sample_rate: int) -> list[Any]:
        assert sample_rate == 16_000
        return [TimestampedResult("yes", [0.1], [" yes"], [-0.1]) for _ in sounds]


def test_parakeet_hears_each_region(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxAsr()
    monkeypatch.setitem(sys.modules, "onnx_asr", fake)
    recogniser = Parakeet("nemo-parakeet-tdt-0.6b-v2", device="cpu")
    recognition = recogniser.recognise(SOUND, [(float(i), i + 0.5) for i in range(7)], None)
    assert [word.start_s for word in recognition.words] == [i + 0.1 for i in range(7)]
    assert recognition.language == "en" and len(recognition.joined) == 7
    assert fake.loaded == ("nemo-parakeet-tdt-0.6b-v2", {"providers": ["CPUExecutionProvider"]})
    assert Parakeet().recognise(SOUND, [(0.0, 1.0)], None).language is None, "it is not told"


# pyannote


def turns(*rows: tuple[float, float, str]) -> Annotation:
    annotation = Annotation()
    for number, (start_s, end_s, label) in enumerate(rows):
        annotation[Turn(start_s, end_s), number] = label
    return annotation


def output(regular: Annotation, exclusive: Annotation, points: Any) -> Any:
    return SimpleNamespace(
        speaker_diarization=regular,
        exclusive_speaker_diarization=exclusive,
        speaker_embeddings=points,
    )


def test_exclusive_turns_become_activity_by_frame() -> None:
    regular = turns((0.5, 2.0, "SPEAKER_01"), (1.5, 3.0, "SPEAKER_00"))
    exclusive = turns((0.5, 1.7, "SPEAKER_01"), (1.7, 3.0, "SPEAKER_00"))
    points = np.array([[3.0, 4.0], [0.0, 0.0]])
    diarization = diarization_of(output(regular, exclusive, points), 16_000 * 4)
    middles_s = np.arange(len(diarization.active)) * FRAME_S + FIELD_S / 2
    for column, (start_s, end_s) in enumerate([(1.7, 3.0), (0.5, 1.7)]):  # in order of labels
        expected = (middles_s >= start_s) & (middles_s < end_s)
        assert np.array_equal(diarization.active[:, column] > 0.5, expected)
    assert diarization.embeddings is not None
    assert np.allclose(diarization.embeddings[0], [0.6, 0.8])
    assert np.isnan(diarization.embeddings[1]).all(), (
        "nothing is known of a speaker without cluster"
    )


def test_nobody_speaks() -> None:
    diarization = diarization_of(output(turns(), turns(), np.zeros((0, 256))), 16_000)
    assert diarization.active.shape[1] == 0 and len(diarization.active) > 50
    assert speech_of(turns(), 1.0) == []


def test_speech_is_in_order_and_apart() -> None:
    spoken = turns((5.0, 6.0, "B"), (0.05, 1.0, "A"), (1.3, 1.4, "B"), (5.5, 5.6, "A"))
    assert speech_of(spoken, 6.05) == [(0.0, 1.5), (4.9, 6.05)]


class FakePipeline:
    """Plays the package, and the pipeline that it loads."""

    def __init__(self) -> None:
        self.Pipeline = self
        self.asked: list[dict[str, Any]] = []
        self.loaded: tuple[Any, ...] = ()
        self._embedding = self.embed
        self.embed.__func__.min_num_samples = 400  # type: ignore[attr-defined]

    def from_pretrained(self, model: str, token: str | None) -> "FakePipeline":
        self.loaded = (model, token)
        return self

    def to(self, device: Any) -> "FakePipeline":
        return self

    def embed(self, waves: Any) -> Any:
        assert waves.ndim == 3 and waves.shape[1] == 1 and waves.shape[2] >= 400
        return np.array([[float(waves.mean()), 1.0]])

    def __call__(self, file: dict[str, Any], **options: Any) -> Any:
        assert file["waveform"].shape[0] == 1 and file["sample_rate"] == 16_000
        self.asked.append(options)
        both = turns((0.5, 2.0, "SPEAKER_00"))
        return output(both, both, np.ones((1, 2)))


def test_pyannote_is_run_once_a_chunk_and_without_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakePipeline()
    monkeypatch.setitem(sys.modules, "pyannote.audio", fake)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("PYANNOTE_METRICS_ENABLED", "true")
    diarizer = PyannoteDiarizer("pyannote/speaker-diarization-3.1", device="cpu")
    assert fake.loaded == ("pyannote/speaker-diarization-3.1", "hf_x")
    import os

    assert os.environ["PYANNOTE_METRICS_ENABLED"] == "0"
    for bounds in ((2, 2), (0, 3)):
        diarizer.diarize(SOUND, bounds)
        assert diarizer.speech(SOUND) == [(0.4, 2.1)]
    assert fake.asked == [{"num_speakers": 2}, {"min_speakers": 1, "max_speakers": 3}]


def test_the_witness_embeds_each_clip_by_itself() -> None:
    witness = PyannoteWitness(FakePipeline()._embedding)
    points = witness.embed([np.ones(100, np.float32), np.zeros(800, np.float32)])
    assert np.allclose(points, [[0.5**0.5, 0.5**0.5], [0.0, 1.0]])
    assert np.allclose(np.linalg.norm(points, axis=1), 1.0)


# What cannot be loaded is said on one line


class GatedRepoError(Exception):
    """As huggingface_hub raises it."""


def failing(error: Exception) -> Callable[..., Any]:
    def load(*_: Any, **__: Any) -> Any:
        raise error

    return load


@dataclass
class Case:
    load: Callable[[], Any]
    module: str
    package: Callable[[Callable[..., Any]], Any]
    extra: str
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "paraformer": Case(
        Paraformer, "funasr", lambda load: SimpleNamespace(AutoModel=load), "funasr"
    ),
    "sensevoice": Case(
        SenseVoice, "funasr", lambda load: SimpleNamespace(AutoModel=load), "funasr"
    ),
    "parakeet": Case(
        Parakeet, "onnx_asr", lambda load: SimpleNamespace(load_model=load), "parakeet"
    ),
    "pyannote": Case(
        PyannoteDiarizer,
        "pyannote.audio",
        lambda load: SimpleNamespace(Pipeline=SimpleNamespace(from_pretrained=load)),
        "pyannote",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_cannot_be_loaded(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, case.module, None)
    with pytest.raises(ExtraError, match=rf"pip install 'speaker-reasoner\[{case.extra}\]'"):
        case.load()
    page = "https://huggingface.co/pyannote/segmentation-3.0"
    gated = GatedRepoError(f"401 Client Error.\nCannot access gated repo for url {page}/resolve/x")
    failures = {gated: f"accepted: do so on {page}, and set HF_TOKEN",
                OSError("no route\nto host"): "no route; is there a network?"}  # fmt: skip
    for error, remedy in failures.items():
        monkeypatch.setitem(sys.modules, case.module, case.package(failing(error)))
        with pytest.raises(CheckpointError) as raised:
            case.load()
        assert remedy in str(raised.value) and "\n" not in str(raised.value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such recogniser": ({"recogniser": "siri"}, "expected one of whisper, paraformer"),
    "no such diarizer": ({"diarizer": "nemo"}, "expected local or pyannote"),
    "two recognisers": ({"model": "cascade=tiny", "recogniser": "parakeet"}, "give one"),
    "no hotwords": ({"recogniser": "parakeet", "hotwords": "Zed"}, "has no use of them"),
    "another model": ({"model": "tiny", "recogniser": "whisper"}, "--recogniser whisper"),
    "a language it lacks": ({"recogniser": "sensevoice", "language": "de"}, "knows zh, en, yue"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_options_that_do_not_fit(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeOnnxAsr()
    monkeypatch.setitem(sys.modules, "onnx_asr", fake)
    if options.get("diarizer"):
        options = {**options, "recogniser": "parakeet"}
    with pytest.raises(SettingsError, match=message):
        load_engine(**options)


def test_a_recogniser_that_fails_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxAsr()
    monkeypatch.setitem(sys.modules, "onnx_asr", fake)
    recogniser = Parakeet()
    monkeypatch.setattr(fake, "recognize", failing(RuntimeError("out of memory\nmore")))
    with pytest.raises(EngineError, match=r"^parakeet=.*: out of memory$"):
        recogniser.recognise(SOUND, [(0.0, 1.0)], None)


# Whisper on a machine whose CUDA is another one than CTranslate2's


class FakeWhisper:
    """Plays faster-whisper on a GPU without cuBLAS 12: it loads, and fails when it is used."""

    made: Sequence[dict[str, Any]] = ()
    error = "Library libcublas.so.12 is not found or cannot be loaded"

    def __init__(self, target: str, **options: Any) -> None:
        type(self).made = (*self.made, options)
        self.device = options["device"]
        self.supported_languages = ("en",)
        self.feature_extractor = SimpleNamespace(mel_filters=np.zeros((80, 201)))

    def encode(self, features: Any) -> None:
        assert features.shape == (80, 3000)
        if self.device == "cuda":
            raise RuntimeError(self.error)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[FakeWhisper]:
    monkeypatch.setattr(FakeWhisper, "made", ())
    monkeypatch.setitem(
        sys.modules,
        "faster_whisper",
        SimpleNamespace(WhisperModel=FakeWhisper, __version__="1.2.1"),
    )
    monkeypatch.setattr(whisper, "_gpus", lambda: 2)
    return FakeWhisper


def test_without_cublas_whisper_goes_to_the_cpu_with_a_word(
    gpu: type[FakeWhisper], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        whisper.FasterWhisper("tiny")
    assert [(one["device"], one["compute_type"]) for one in gpu.made] == [
        ("cuda", "float16"),
        ("cpu", "int8"),
    ]
    [record] = caplog.records
    said = record.getMessage()
    assert "libcublas.so.12" in said and "pip install nvidia-cublas-cu12" in said
    assert "\n" not in said


def test_who_asks_for_the_gpu_is_told(gpu: type[FakeWhisper]) -> None:
    with pytest.raises(CheckpointError, match=r"libcublas.*or choose --device cpu"):
        whisper.FasterWhisper("tiny", device="cuda:1")
    assert [(one["device"], one["device_index"]) for one in gpu.made] == [("cuda", 1)]


def test_a_gpu_that_works_is_used(
    gpu: type[FakeWhisper], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu, "encode", lambda self, features: None)
    whisper.FasterWhisper("tiny")
    assert [one["device"] for one in gpu.made] == ["cuda"] and not caplog.records


def test_a_damaged_model_is_not_blamed_on_the_gpu(
    gpu: type[FakeWhisper], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu, "error", "Unable to open file 'model.bin'")
    with pytest.raises(SpeakerReasonerError, match=r"cannot be loaded: Unable to open"):
        whisper.FasterWhisper("tiny")
    assert not caplog.records and len(gpu.made) == 1
