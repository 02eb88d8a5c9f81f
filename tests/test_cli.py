"""The command line: what it prints, what it writes, how it fails."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest

import speaker_reasoner
from speaker_reasoner import formats
from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.cli import main
from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import EngineError
from speaker_reasoner.longform.batch import STATE

from .talk import PROFILE, play, save
from .vocal import voice

ROOT = Path(__file__).parents[1]
ALL_FORMATS = "json,ass,srt,rttm,stm,ctm,vtt,textgrid,txt,md,seglst"
LINES = [
    "[00:00.00 - 00:01.50] Speaker1 (female): one",
    "[00:01.50 - 00:03.00] Speaker2 (male): two",
]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
Run = Callable[..., tuple[int, str, str]]

DRIVER = """
import signal, sys, time
import speaker_reasoner
from speaker_reasoner.cli import main
from speaker_reasoner.engines.scripted import ScriptedEngine
from tests.talk import PROFILE, play

def slowly(request):
    time.sleep(float(sys.argv[1]))
    return play(request)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
speaker_reasoner.load_engine = lambda *_, **__: ScriptedEngine(slowly, PROFILE)
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Loading an engine gives a scripted one; what was asked for is noted."""
    loads: list[Any] = []

    def load(model: str | None = None, **options: Any) -> ScriptedEngine:
        loads.append((model, options))
        return ScriptedEngine(play, PROFILE)

    monkeypatch.setattr(speaker_reasoner, "load_engine", load)
    return loads


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], asked: list[Any]) -> Run:
    """The command with a scripted engine: exit status, standard output, standard error."""

    def command(*arguments: Any) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            status = stop.code
        return status, *capsys.readouterr()

    return command


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return save(tmp_path / "talk.wav", voice(3.0))


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    places = f"{Path(speaker_reasoner.__file__).parents[1]}{os.pathsep}{ROOT}"
    return kept | {"PYTHONPATH": places, "TERM": "xterm-256color"} | changes


def start(*arguments: Any, delay_s: float = 0.0, **options: Any) -> "subprocess.Popen[str]":
    """The command as a process of its own, with a scripted engine."""
    words = [sys.executable, "-c", DRIVER, str(delay_s), *map(str, arguments)]
    return subprocess.Popen(words, text=True, **({"env": environment()} | options))


def on_terminal(*arguments: Any, status: int = 0, pipe: bool = False, **changes: str) -> str:
    """All that the command sends to a terminal; with `pipe`, standard error alone is one."""
    ours, theirs = pty.openpty()
    environ = environment(COLUMNS="100", **changes)
    out = subprocess.DEVNULL if pipe else theirs
    process = start(*arguments, stdin=theirs, stdout=out, stderr=theirs, env=environ)
    os.close(theirs)
    sent = b""
    try:
        while data := os.read(ours, 65_536):
            sent += data
    except OSError:
        pass  # how Linux tells that nobody writes there any more
    os.close(ours)
    assert process.wait(60) == status
    return sent.decode()


def rows(sent: str) -> list[str]:
    """What a terminal of endless height shows in the end."""
    shown, row, column = [""], 0, 0
    for code, text in re.findall(r"(\x1b\[[0-9;?]*[a-zA-Z]|\r|\n)|([^\x1b\r\n]+)", sent):
        if code == "\n":
            row += 1
            shown += [""] * (row + 1 - len(shown))
        elif code == "\r":
            column = 0
        elif code.endswith("A"):
            row -= int(code[2:-1] or 1)
        elif code.endswith("K"):
            assert code == "\x1b[2K", "only whole rows are erased"
            shown[row] = ""
        shown[row] = shown[row][:column].ljust(column) + text + shown[row][column + len(text) :]
        column += len(text)
    while not shown[-1]:
        shown.pop()
    return shown


def made(folder: Path) -> list[str]:
    """The names of the transcripts in a folder; the state of the batch is the one other thing there."""
    names = sorted(path.name for path in folder.iterdir())
    assert STATE in names
    return [name for name in names if name != STATE]


def only_error(result: tuple[int, str, str], *parts: str, status: int = 1) -> None:
    """It failed with one line on standard error and nothing on standard output."""
    assert result[0] == status
    assert result[1] == ""
    assert result[2].startswith("error: ") and result[2].count("\n") == 1 and result[2][-1] == "\n"
    for part in parts:
        assert part in result[2]


# Help and usage


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["transcribe"],
        ["train"],
        ["compose"],
        ["merge"],
        ["plan"],
        ["prepare"],
        ["evaluate"],
        *(
            ["evaluate", verb]
            for verb in ("score", "run", "table", "report", "compare", "leaderboard")
        ),
    ],
)
def test_help_shows_examples(run: Run, command: list[str]) -> None:
    status, shown, _ = run(*command, "--help")
    assert status == 0
    assert "examples:\n  speaker-reasoner " in shown
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_help_names_every_format(run: Run) -> None:
    _, shown, _ = run("transcribe", "--help")
    assert all(re.search(rf"\b{name}\b", shown) for name in formats.FORMATS)
    assert set(ALL_FORMATS.split(",")) == set(formats.FORMATS)


def test_help_and_version_do_not_load_heavy_libraries() -> None:
    code = (
        "import sys\nfrom speaker_reasoner.cli import main\n"
        "for words in (['transcribe', '--help'], ['train', '--help'], ['--version']):\n"
        "    try: main(words)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'soundfile'} & set(sys.modules)\n"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"speaker-reasoner {speaker_reasoner.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "COMMAND"),
        (["translate"], "invalid choice: 'translate'"),
        (["transcribe"], "FILE"),
        (["transcribe", "a.wav", "-f", "jsn"], "unknown format 'jsn' (did you mean 'json'?)"),
        (["transcribe", "a.wav", "-f", ","], "no format given"),
        (["transcribe", "a.wav", "-f", "json,srt"], "add -o DIR"),
        (["transcribe", "a.wav", "--batch", "0"], "at least 1, got '0'"),
        (["transcribe", "a.wav", "--channel", "-1"], "--channel"),
        (["transcribe", "a.wav", "--channel", "left"], "got 'left'"),
        (["transcribe", "a.wav", "--dtype", "int8"], "--dtype"),
        (["transcribe", "a/x.wav", "a/x.flac", "-o", "out"], "2 recordings are named 'x'"),
        (["transcribe", "x.wav", "-o", "-"], "leave it out for standard output"),
        (["transcribe", "-", "-"], "can be read once"),
        (["transcribe", "x.wav", "--speakers", "2", "--max-speakers", "3"], "give --speakers, "),
        (["transcribe", "x.wav", "--min-speakers", "3", "--max-speakers", "2"], "is more than"),
        (["train"], "CONFIG"),
        (["train", "tiny", "--stage", "4"], "--stage"),
        (["train", "tiny", "--stage", "voices"], "--stage"),
        (["compose", "--audio", "a", "-o", "b"], "--text"),
        (["compose", "--audio", "a", "--text", "b", "-o", "c", "--seed", "-1"], "below 2^32"),
        (["merge", "adapter"], "--output"),
        (["merge", "a", "b", "-o", "c", "--shares", "1,x"], "got '1,x'"),
        (["merge", "a", "b", "-o", "c", "--shares", "1,0"], "above 0"),
        (["merge", "a", "b", "-o", "c", "--shares", "1,2,3"], "got 3, expected 2"),
        (["merge", "a", "-o", "c", "--shares", "1"], "of several models"),
    ],
)
def test_wrong_usage(run: Run, asked: list[Any], arguments: list[str], part: str) -> None:
    status, shown, said = run(*arguments)
    assert (status, shown) == (2, "")
    assert said.startswith("usage: ") and part in said
    assert asked == []


# What is printed and written


def test_text_on_standard_output(run: Run, talk: Path) -> None:
    status, shown, said = run("transcribe", talk)
    assert (status, shown.splitlines()) == (0, LINES)
    assert said.splitlines()[0] == "00:00.00  2 speakers: female, male"
    told = r"3\.0 s of audio in \d+\.\d s, 3 turns; model scripted"
    assert re.fullmatch(told, said.splitlines()[1])
    assert len(said.splitlines()) == 2


def test_quiet(run: Run, talk: Path, tmp_path: Path) -> None:
    assert run("transcribe", "--quiet", talk) == (0, "\n".join([*LINES, ""]), "")
    assert run("transcribe", "--quiet", talk, "-o", tmp_path / "out") == (0, "", "")


def test_warnings_are_shown_even_if_quiet(run: Run, tmp_path: Path) -> None:
    _, shown, said = run("transcribe", "-q", save(tmp_path / "long.wav", voice(7.0)))
    assert said.startswith("warning: ") and "speakers are not linked" in said
    assert said.count("\n") == 1 and "Speaker4" in shown


@pytest.mark.parametrize("name", formats.FORMATS)
def test_one_format_on_standard_output(run: Run, talk: Path, name: str) -> None:
    status, shown, _ = run("transcribe", talk, "--format", name)
    assert status == 0
    known = formats.FORMATS[name]
    if known.parse is None:
        assert "one" in shown and "Speaker2" in shown
    else:
        [transcript] = known.parse(shown, "talk")
        assert {segment.speaker for segment in transcript.segments} == {"Speaker1", "Speaker2"}


def test_all_formats_as_files(run: Run, talk: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    status, shown, said = run("transcribe", talk, "-o", out, "--format", ALL_FORMATS)
    assert (status, shown) == (0, "")
    names = {f"talk{known.suffix}" for known in formats.FORMATS.values()}
    assert set(made(out)) == names
    assert said.count("wrote ") == len(names)
    [transcript] = formats.read(out / "talk.json")
    assert [segment.text for segment in transcript.segments] == ["one", "two"]


def test_an_option_of_formats_that_is_given_again_adds_to_them(
    run: Run, talk: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run("transcribe", talk, "-o", out, "--format", "json", "--output_format", "srt", "-f", "json")
    assert made(out) == ["talk.json", "talk.srt"]
    status, _, said = run("transcribe", talk, "--format", "json", "--format", "srt")
    assert status == 2 and "add -o DIR" in said


def test_default_files(run: Run, talk: Path, tmp_path: Path) -> None:
    run("transcribe", talk, "-o", tmp_path / "out")
    assert made(tmp_path / "out") == ["talk.json", "talk.txt"]


def test_what_is_done_is_not_transcribed_again(run: Run, asked: list[Any], tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{name}.wav", voice(3.0)) for name in "ab"]
    out = tmp_path / "out"
    run("transcribe", *paths, "-o", out)
    before = {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()}
    (out / "a.txt").unlink()
    status, shown, said = run("transcribe", *paths, "-o", out)
    assert (status, shown) == (0, "")
    assert said.splitlines() == [
        "a.wav: done by an earlier run",
        f"wrote {out / 'a.txt'}",
        "b.wav: done by an earlier run",
    ]
    assert {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()} == before
    _, _, said = run("transcribe", *paths, "-o", out, "--speakers", "2")
    assert said.count("transcribed again: its transcript is of other settings") == 2


def test_standard_input(talk: Path, tmp_path: Path) -> None:
    """A pipe is a recording like any other; the same bytes are the same recording."""
    for found in ("wrote ", "stdin: done by an earlier run"):
        with talk.open("rb") as file:
            process = start("transcribe", "-", "-o", tmp_path / "out", stdin=file, stderr=PIPE)
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 0 and found in said
    assert made(tmp_path / "out") == ["stdin.json", "stdin.txt"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["--speakers", "2-5"], [2, 5]),
        (["--num-speakers", "3"], [3, 3]),
        (["--min-speakers", "2", "--max-speakers", "4"], [2, 4]),
        (["--min-speakers", "2"], [2, 99]),
        (["--max-speakers", "4"], [1, 4]),
    ],
)
def test_words_of_other_tools(
    run: Run,
    talk: Path,
    tmp_path: Path,
    words: list[str],
    expected: list[int] | None,
) -> None:
    out = tmp_path / "out"
    named = ["--output_dir", out, "--output_format=json", "--batch_size", "2", "--verbose"]
    status, _, said = run("transcribe", talk, *named, *words)
    assert status == 0, said
    [transcript] = formats.read(out / "talk.json")
    assert transcript.info["speakers_given"] == expected


def test_several_recordings(run: Run, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{name}.flac", voice(3.0)) for name in "abc"]
    status, shown, said = run("transcribe", *paths, "--batch", "2")
    assert (status, shown.splitlines()) == (0, LINES * 3)
    heads = [line for line in said.splitlines() if line.endswith(".flac")]
    assert heads == ["a.flac", "b.flac", "c.flac"]


def test_the_answer_the_model_wrote(run: Run, talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> str:
        text = play(request)
        final = "\nSpeaker1-female [0.0, 3.0]: one two\n</answer>"
        return text + final if text.endswith("<answer>") else text

    monkeypatch.setattr(
        speaker_reasoner, "load_engine", lambda *_, **__: ScriptedEngine(answer, PROFILE)
    )
    _, shown, _ = run("transcribe", talk, "--answer", "model")
    assert shown == "[00:00.00 - 00:03.00] Speaker1 (female): one two\n"


def test_options_reach_the_engine(run: Run, asked: list[Any], talk: Path, tmp_path: Path) -> None:
    expected = {"device": "cuda:1", "dtype": "bfloat16", "prompts": tmp_path / "p.json"}
    expected |= {"language": "en", "hotwords": "Ana", "recogniser": "whisper", "diarizer": "local"}
    options = [word for name, value in expected.items() for word in (f"--{name}", value)]
    options += ["--cuda-graphs", "--experts", "library", "--compile", "always", "--deterministic"]
    options += ["--processes", "2"]
    run("transcribe", talk, "--model", "owner/name", *options)
    steps = {"cuda_graphs": True, "experts": "library", "compile": "always", "deterministic": True}
    steps |= {"processes": 2}
    assert asked == [("owner/name", expected | steps)]


@pytest.mark.parametrize(
    ("shape", "rate_hz", "options"),
    [
        ((48_000,), 16_000, {"subtype": "PCM_U8"}),
        ((288_000,), 96_000, {}),
        ((48_000, 8), 16_000, {}),
        ((800,), 16_000, {}),
        ((1,), 16_000, {}),
    ],
    ids=["8 bit", "96 kHz", "8 channels", "0.05 s", "1 sample"],
)
def test_unusual_recordings(
    run: Run, tmp_path: Path, shape: tuple[int, ...], rate_hz: int, options: dict[str, Any]
) -> None:
    heard = voice(shape[0] / rate_hz + 0.01)
    at = np.arange(shape[0]) * SAMPLE_RATE_HZ // rate_hz
    samples = np.broadcast_to(heard[at].reshape(-1, *[1] * (len(shape) - 1)), shape)
    path = save(tmp_path / "odd.wav", samples, rate_hz, **options)
    status, shown, _ = run("transcribe", path)
    assert status == 0
    assert shown.splitlines() == (LINES if shape[0] >= 48_000 else ["(no speech)"])


def test_silence(run: Run, tmp_path: Path) -> None:
    status, shown, said = run("transcribe", save(tmp_path / "still.wav", np.zeros(160_000)))
    assert (status, shown) == (0, "(no speech)\n")
    assert "nobody speaks in this recording" in said


# What fails


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def missing(folder: Path) -> Path:
    return folder / "missing.wav"


def directory(folder: Path) -> Path:
    (folder / "nothing").mkdir(exist_ok=True)
    return folder / "nothing"


def empty(folder: Path) -> Path:
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def no_samples(folder: Path) -> Path:
    return save(folder / "none.wav", np.zeros(0))


def text(folder: Path) -> Path:
    (folder / "text.wav").write_text("Dear diary,\n" * 50)
    return folder / "text.wav"


def short_wav(folder: Path) -> Path:
    return cut_short(save(folder / "short.wav", voice(3.0)))


def short_flac(folder: Path) -> Path:
    return cut_short(save(folder / "short.flac", voice(3.0)))


def short_mp3(folder: Path) -> Path:
    return cut_short(save(folder / "short.mp3", voice(3.0)))


def not_a_number(folder: Path) -> Path:
    samples = voice(3.0)
    samples[9] = np.nan
    return save(folder / "nan.wav", samples, subtype="FLOAT")


def line_break(folder: Path) -> Path:
    return folder / "two\nlines\x1b[31m.wav"


BAD: dict[Callable[[Path], Path], str] = {
    missing: "missing.wav': cannot be read (No such file or directory)",
    directory: "got a folder without recordings, expected files",
    empty: "empty.wav': got an empty file (0 bytes)",
    no_samples: "none.wav': got no samples",
    text: "text.wav': neither libsndfile nor FFmpeg can open it",
    short_wav: "short.wav': cut off: got 1.499 s, expected 3.000 s",
    short_flac: "short.flac': damaged or cut off",
    short_mp3: "short.mp3': cut off",
    not_a_number: "nan.wav': got the sample nan at 0.000562 s",
    line_break: r"two\nlines\x1b[31m.wav': cannot be read",
}
AT_ONCE = (missing, directory, empty, line_break)
"""Seen before a model is loaded."""


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
@pytest.mark.parametrize("files", [False, True], ids=["stdout", "files"])
def test_a_bad_recording(
    run: Run, asked: list[Any], tmp_path: Path, make: Callable[[Path], Path], files: bool
) -> None:
    path, before = make(tmp_path), sorted(tmp_path.iterdir())
    result = run("transcribe", path, *(["-o", tmp_path / "out"] if files else []))
    only_error(result, BAD[make])
    assert sorted(tmp_path.iterdir()) == before
    assert len(asked) == (make not in AT_ONCE)


def test_an_unreadable_recording(run: Run, talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == talk:
            raise PermissionError(13, "Permission denied")
        return really(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    only_error(run("transcribe", talk), "talk.wav': cannot be read (Permission denied)")


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_recording_among_good_ones(
    run: Run, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    good = [save(tmp_path / f"{name}.wav", voice(3.0)) for name in "ab"]
    out = tmp_path / "out"
    status, _, said = run("transcribe", good[0], make(tmp_path), good[1], "-o", out)
    assert status == 1
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and BAD[make] in errors[0]
    assert made(out) == ["a.json", "a.txt", "b.json", "b.txt"]


def test_a_channel_there_is_not(run: Run, talk: Path) -> None:
    result = run("transcribe", talk, "--channel", "9")
    only_error(result, "talk.wav': got channel 9, expected one of 0..0")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_where_the_output_should_go(
    run: Run, asked: list[Any], talk: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("mine")
    only_error(run("transcribe", talk, "-o", tmp_path / place), "file: got a file")
    assert asked == []
    assert (tmp_path / "file").read_text() == "mine"


def test_output_that_cannot_be_written(
    run: Run, asked: list[Any], talk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    only_error(run("transcribe", talk, "-o", talk.parent / "out"), "not writable")
    assert asked == []
    assert [path.name for path in talk.parent.iterdir()] == ["talk.wav"]


def test_a_file_that_cannot_be_replaced(run: Run, tmp_path: Path) -> None:
    """One recording's output fails, the other's does not."""
    paths = [save(tmp_path / f"{name}.wav", voice(3.0)) for name in "ab"]
    out = tmp_path / "out"
    (out / "a.json").mkdir(parents=True)
    status, _, said = run("transcribe", *paths, "-o", out, "-f", "json")
    assert status == 1
    assert [line for line in said.splitlines() if line.startswith("error: ")] == [
        f"error: cannot write {out / 'a.json'}: Is a directory; choose a directory that can be "
        "written to"
    ]
    assert made(out) == ["a.json", "b.json"]
    assert sorted(p.name for p in (out / STATE).iterdir()) == ["a.journal", "b.done", "lock"]


@pytest.mark.parametrize(
    ("lost", "part"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "no weights"),
        ("tokenizer_config.json", "tokenizer_config.json is missing"),
        ("preprocessor_config.json", "preprocessor_config.json is missing"),
        ("speaker_reasoner.json", "no speaker_reasoner.json beside the weights"),
    ],
)
def test_a_model_folder_that_lacks_a_file(
    capsys: pytest.CaptureFixture[str],
    random_checkpoint: Path,
    talk: Path,
    tmp_path: Path,
    lost: str,
    part: str,
) -> None:
    model = tmp_path / "model"
    shutil.copytree(random_checkpoint, model)
    (model / lost).unlink()
    capsys.readouterr()
    status = main(["transcribe", str(talk), "--model", str(model), "-o", str(tmp_path / "out")])
    only_error((status, *capsys.readouterr()), part)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "status", "part"),
    [
        (EngineError("out of memory\nuse a smaller --batch"), 1, r"out of memory\nuse a smaller"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_stops_everything(
    run: Run,
    talk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    part: str,
) -> None:
    def fail(request: Request) -> str:
        if request.rules.turn == 1:
            raise error
        return play(request)

    engine = ScriptedEngine(fail, PROFILE)
    monkeypatch.setattr(speaker_reasoner, "load_engine", lambda *_, **__: engine)
    result = run("transcribe", talk, "-q", "-o", tmp_path / "out")
    only_error(result, part, status=status)
    assert [path.name for path in tmp_path.iterdir()] == ["talk.wav"]


# As a process of its own


def test_a_real_model(random_checkpoint: Path, talk: Path, tmp_path: Path) -> None:
    """The whole way once, with weights: nothing but our own lines, and no colours in a pipe."""
    words = ["-m", "speaker_reasoner", "transcribe", talk, "--model", random_checkpoint]
    done = subprocess.run(
        [sys.executable, *map(str, words), "-f", "json"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["recording"] == "talk"
    said = [line for line in done.stderr.splitlines() if not line.startswith("missing: ")]
    assert len(said) == 2, said
    assert re.fullmatch(r"00:00\.00  \d speakers?: [a-z, ]+", said[0])
    assert re.fullmatch(r"3\.0 s of audio in .* s, \d+ turns, \d+ tokens; model \S+", said[1])
    assert "\x1b" not in done.stdout + done.stderr


def test_interrupted(tmp_path: Path) -> None:
    path, out = save(tmp_path / "long.wav", voice(60.0)), tmp_path / "out"
    process = start("transcribe", path, "-o", out, delay_s=0.2, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert "2 speakers" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


def test_a_reader_that_stops_reading(talk: Path) -> None:
    process = start("transcribe", talk, "-q", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert said == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk(talk: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("transcribe", talk, "-q", stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("error: standard output: No space left") and said.count("\n") == 1


def test_on_a_terminal_lines_appear_above_a_bar(tmp_path: Path) -> None:
    sent = on_terminal("transcribe", save(tmp_path / "long.wav", voice(66.0)))
    assert COLOUR.search(sent)
    positions = re.findall(r"(\d\d:\d\d\.\d\d) / 01:06\.00", sent)
    assert positions == sorted(positions) and len(set(positions)) > 15
    assert (positions[0], positions[-1]) == ("00:00.00", "01:06.00")
    shown = rows(sent)
    assert not any("/ 01:06.00" in row for row in shown), "the bar is still there"
    line = re.compile(r"\[\d\d:.*\] Speaker\d+ \((fe)?male\): (one|two)")
    lines = [row for row in shown if line.fullmatch(row)]
    overviews = [row for row in shown if row.endswith("  2 speakers: female, male")]
    assert len(lines) == 2 * len(overviews) > 30
    assert shown[0] == overviews[0]
    assert shown[-1].startswith("66.0 s of audio in ")


@pytest.mark.parametrize("quiet", [False, True])
def test_no_bar_for_a_short_recording_or_when_quiet(tmp_path: Path, quiet: bool) -> None:
    path = save(tmp_path / "a.wav", voice(66.0 if quiet else 3.0))
    shown = on_terminal("transcribe", path, *(["--quiet"] if quiet else []), NO_COLOR="1")
    assert " / " not in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown), "a colour in spite of NO_COLOR"
    if quiet:
        assert "\x1b[?25l" not in shown and "listening" not in shown
    else:
        assert "listening to [00:00.00 - 00:01.50]" in shown


def test_a_bad_recording_does_not_spoil_the_bar(tmp_path: Path) -> None:
    """The bar's look at the lengths fails on it; it is reported once, in its place."""
    save(tmp_path / "good.wav", voice(61.0))
    save(tmp_path / "bad.wav", np.zeros(0))
    sent = on_terminal("transcribe", *sorted(tmp_path.iterdir()), status=1, pipe=True)
    assert sent.count("got no samples") == 1
    assert "/ 01:01.00" in sent
