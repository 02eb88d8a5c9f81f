"""Systems that run on this machine, by the commands: faster-whisper and diarizers alone, the cascade by its name."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from speaker_reasoner import cli
from speaker_reasoner.engines.cascade.loading import installed
from speaker_reasoner.formats import read
from speaker_reasoner.systems.asking import understood
from speaker_reasoner.systems.base import Sound, SystemOptions
from speaker_reasoner.systems.table import SYSTEMS, load

from .talk import save
from .vocal import voice

EXAMPLES = Path(__file__).parents[1] / "examples"
needs_weights = pytest.mark.skipif(
    not installed(), reason="the cascade's weights are not installed"
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("meeting.flac", "meeting.seglst.json"):
        shutil.copy(EXAMPLES / name, folder)
    return folder


def evaluated(data: Path, out: Path, *words: str) -> dict[str, Any]:
    assert cli.main(["evaluate", "run", "--data", str(data), "-o", str(out), *words]) == 0
    result: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return result


@needs_weights
def test_faster_whisper_alone(data: Path, tmp_path: Path) -> None:
    result = evaluated(data, tmp_path / "out", "--system", "faster-whisper")
    assert result["system"] == "faster-whisper" and result["failures"] == {}
    assert result["scores"]["wer"]["rate"] < 0.5
    assert result["settings"]["gives"] == {"speakers": False, "words": True}
    assert "name no speaker" in json.dumps(result["warnings"])
    assert result["made"]["engine"]["sdk"]["name"] == "faster-whisper"
    assert result["usage"]["requests"] == 1 and result["speed"]["wall_s"] > 0
    [transcript] = read(tmp_path / "out/hypotheses/meeting.json")
    assert transcript.speakers == ("unknown",)
    assert all(s.words for s in transcript.segments)


@needs_weights
def test_a_diarizer_alone_has_no_word_errors(data: Path, tmp_path: Path) -> None:
    result = evaluated(
        data, tmp_path / "out", "--system", "local-diarizer", "--row", "ours", "--speakers", "2"
    )
    assert result["system"] == "ours"
    assert result["scores"]["der_025"]["rate"] < 0.3 and result["scores"]["wer"] is None
    assert result["skipped"]["cpwer"] == "the system gives no words (1 recording)"
    [transcript] = read(tmp_path / "out/hypotheses/meeting.json")
    assert transcript.segments and not transcript.text


@needs_weights
def test_pieces_of_a_diarizer_are_linked(tmp_path: Path) -> None:
    words = ["transcribe", str(EXAMPLES / "ami.flac"), "--system", "local-diarizer", "-q"]
    out = tmp_path / "linked"
    assert cli.main([*words, "-o", str(out), "--longest-piece", "15"]) == 0
    [linked] = read(out / "ami.json")
    assert linked.info["pieces"] == 3 and linked.info["link"] == "campplus"
    assert all(speaker.startswith("Speaker") for speaker in linked.speakers)
    apart = tmp_path / "apart"
    assert cli.main([*words, "-o", str(apart), "--longest-piece", "15", "--link", "none"]) == 0
    [separate] = read(apart / "ami.json")
    assert separate.info["link"] == "none" and len(separate.speakers) > len(linked.speakers)
    assert len(separate.segments) == len(linked.segments)


@needs_weights
def test_the_cascade_by_its_name(data: Path, tmp_path: Path) -> None:
    result = evaluated(data, tmp_path / "out", "--system", "cascade")
    assert result["system"] == "cascade" and result["made"]["engine"]["engine"] == "cascade"


@needs_weights
def test_a_folder_with_another_run_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["evaluate", "run", "--data", str(data), "-o", str(out), "--system", "local-diarizer"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--speakers", "2"]) == 1
    assert "holds another run (other asked, speakers)" in capsys.readouterr().err


class _Pipeline:
    """Answers as pyannote.audio 4 does: an object with `serialize`."""

    _embedding = SimpleNamespace(min_num_samples=400)

    def to(self, device: Any) -> "_Pipeline":
        return self

    def __call__(self, sound: Any, **many: int) -> Any:
        assert many == {"num_speakers": 2}
        turns = [
            {"start": 0.2, "end": 3.0, "speaker": "SPEAKER_00"},
            {"start": 2.5, "end": 5.0, "speaker": "SPEAKER_01"},
        ]
        return SimpleNamespace(
            serialize=lambda: {"diarization": turns, "exclusive_diarization": []}
        )


def test_pyannote_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("pyannote.audio")
    package.Pipeline = SimpleNamespace(from_pretrained=lambda name, token: _Pipeline())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyannote.audio", package)
    system, sound = (
        load("pyannote", SystemOptions(speakers=(2, 2), device="cpu")),
        Sound("x", voice(6)),
    )
    answer = system.ask(sound)
    assert json.loads(json.dumps(answer.raw)) == answer.raw
    transcript = understood(system, answer, sound)
    assert [(s.speaker, s.start_s, s.end_s, s.text) for s in transcript.segments] == [
        ("SPEAKER_00", 0.2, 3.0, ""),
        ("SPEAKER_01", 2.5, 5.0, ""),
    ]


REFUSED = {
    "--system nobody": "expected one of assemblyai, cascade",
    "--system speakerlm": "only published figures are known",
    "--system faster-whisper --prompts x.json": "--prompts: --system faster-whisper has no use",
    "--system faster-whisper --speakers 2": "--speakers 2-2: the system faster-whisper has no use",
    "--system openai --voice A=a.wav": "--voice: --system openai has no use of it",
    "--system deepgram --channels separate": "--channels: --system deepgram has no use of it",
}
USAGE = {
    "--system cascade --model tiny": "--system cascade: leave out --model",
    "--at-once 3": "--at-once: only for another --system",
    "--system cascade --dry-run": "--dry-run: only for another --system",
    "--system openai --rate 0": "expected a number above 0",
}


@pytest.mark.parametrize("words", [*REFUSED, *USAGE])
def test_what_does_not_fit(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "DEEPGRAM_API_KEY"):
        monkeypatch.setenv(variable, "k")
    save(tmp_path / "a.wav", voice(2.0))
    command = ["transcribe", str(tmp_path / "a.wav"), *words.split()]
    if words in USAGE:
        with pytest.raises(SystemExit):
            cli.main(command)
    else:
        assert cli.main(command) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert {**REFUSED, **USAGE}[words] in said


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["systems"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in SYSTEMS)
    assert "OPENAI_API_KEY" in said and "nowhere: only published figures" in said
