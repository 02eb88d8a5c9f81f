"""Runs a system in an environment of its own: started as a program there, it imports nothing of this package.

    PYTHON isolated.py

It reads requests from standard input and writes answers to standard output, one JSON object a line:

    {"id": 0, "load": {"kind": "whisperx", ...}}   ->  {"id": 0, "ready": {"whisperx": "3.8.6", ...}}
    {"id": 1, "audio": "x.wav"}                    ->  {"id": 1, "result": {...}}
    anything that fails                            ->  {"id": 1, "error": "...", "missing": true or false}

Audio is WAV, 16 kHz, mono, 16 bits. What libraries print goes to standard error.
"""

import json
import os
import sys
import wave
from typing import Any, TextIO

RATE_HZ = 16_000
_SHORTEST_S = 0.1
"""Paraformer fails on shorter turns; they have no words."""


def read_wave(path: str) -> Any:
    """Samples of a file, float32 `[n]`."""
    import numpy as np

    with wave.open(path) as file:
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768.0


def _versions(*packages: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in packages}


def _many(speakers: Any) -> dict[str, int]:
    if not speakers:
        return {}
    low, high = speakers
    return {"num_speakers": low} if low == high else {"min_speakers": low, "max_speakers": high}


class PyannoteParaformer:
    """pyannote's turns, each recognised by Paraformer by itself."""

    def __init__(self, settings: dict[str, Any]) -> None:
        os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
        import torch
        from funasr import AutoModel
        from pyannote.audio import Pipeline

        device = settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        pipeline = Pipeline.from_pretrained(settings["diarizer"], token=os.environ.get("HF_TOKEN"))
        if pipeline is None:
            raise OSError(f"the hub gave no pipeline {settings['diarizer']}")
        self._pipeline = pipeline.to(torch.device(device))
        self._recogniser = AutoModel(
            model=settings["recogniser"],
            punc_model="ct-punc",
            device=device,
            hub="hf",
            disable_update=True,
            disable_pbar=True,
        )
        self._hotwords = {"hotword": settings["hotwords"]} if settings["hotwords"] else {}
        self._speakers = _many(settings["speakers"])
        self.versions = _versions("pyannote.audio", "funasr", "torch")

    def transcribe(self, path: str) -> dict[str, Any]:
        """Transcribe a WAV file with pyannote and Paraformer, turn by turn."""
        import torch

        samples = read_wave(path)
        wave_of = {"waveform": torch.from_numpy(samples)[None], "sample_rate": RATE_HZ}
        output = self._pipeline(wave_of, **self._speakers).serialize()
        turns = []
        for turn in output["diarization"]:
            first, last = (round(turn[key] * RATE_HZ) for key in ("start", "end"))
            part, answers = samples[first:last], []
            if len(part) >= _SHORTEST_S * RATE_HZ:
                answers = self._recogniser.generate(
                    input=[part], fs=RATE_HZ, return_raw_text=True, **self._hotwords
                )
            turns.append({**turn, "answer": answers[0] if answers else None})
        return {**output, "turns": turns}


class WhisperX:
    """WhisperX: recognition, alignment, diarization, and words given to speakers."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        import whisperx
        from whisperx.diarize import DiarizationPipeline

        self._whisperx = whisperx
        self._device = settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        self._language = settings["language"]
        self._model = whisperx.load_model(
            settings["model"],
            self._device.partition(":")[0],
            compute_type="float16" if self._device.startswith("cuda") else "int8",
            language=self._language,
        )
        self._diarize = DiarizationPipeline(token=os.environ.get("HF_TOKEN"), device=self._device)
        self._speakers = _many(settings["speakers"])
        self._aligners: dict[str, Any] = {}
        self.versions = _versions("whisperx", "faster-whisper", "pyannote.audio", "torch")

    def transcribe(self, path: str) -> dict[str, Any]:
        """The segments of WhisperX; `aligned` says whether words have times."""
        samples = read_wave(path)
        result = self._model.transcribe(samples, batch_size=8, language=self._language)
        language = result["language"]
        aligner = self._aligner(language)
        if aligner is not None and result["segments"]:
            model, about = aligner
            result = self._whisperx.align(result["segments"], model, about, samples, self._device)
        turns = self._diarize(samples, **self._speakers)
        result = self._whisperx.assign_word_speakers(turns, result)
        return {
            "language": language,
            "aligned": aligner is not None,
            "segments": result["segments"],
        }

    def _aligner(self, language: str) -> Any:
        if language not in self._aligners:
            try:
                loaded = self._whisperx.load_align_model(language, self._device)
            except ValueError:  # it has none for this language
                loaded = None
            self._aligners[language] = loaded
        return self._aligners[language]


class TagSpeech:
    """TagSpeech of a clone of Auden: `settings["folder"]` is its `examples/tagspeech`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        sys.path.insert(0, settings["folder"])
        import torch
        from model import TagSpeech as Model  # type: ignore[import-not-found,unused-ignore]

        device = settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = Model.from_pretrained(settings["model"]).to(device)
        self._most_tokens = settings["max_tokens"]
        self.versions = _versions("torch")

    def transcribe(self, path: str) -> dict[str, Any]:
        """The model's markup."""
        token = self._model.config.audio_token
        content = f"<text>{token}</text>\n<speaker>{token}</speaker>"
        made = self._model.generate(
            [path],
            [[{"role": "user", "content": content}]],
            max_new_tokens=self._most_tokens,
            num_beams=1,
            do_sample=False,
        )
        return {"text": made[0]}


KINDS = {
    "pyannote+paraformer": PyannoteParaformer,
    "whisperx": WhisperX,
    "tagspeech": TagSpeech,
}


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch as those of JSON."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    system: Any = None
    for line in requests:
        request = json.loads(line)
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            if "load" in request:
                system = KINDS[request["load"]["kind"]](request["load"])
                answer["ready"] = system.versions
            else:
                answer["result"] = system.transcribe(request["audio"])
        except Exception as error:  # of any library: the other side decides
            said = " ".join(str(error).split()) or type(error).__name__
            answer["error"] = f"{type(error).__name__}: {said}"[:1000]
            answer["missing"] = isinstance(error, ImportError)
        answers.write(json.dumps(answer, default=_plain) + "\n")
        answers.flush()


def main() -> None:
    """Keep standard output for answers."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]  # noqa: PTH100
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
