"""How the command line is asked, and what it says to those who ask it wrongly or lack a library."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import speaker_reasoner
from speaker_reasoner.cli import _parser, main
from speaker_reasoner.commands.parser import commands_of

ROOT = Path(__file__).parents[1]
PARSERS = {"": _parser()} | dict(commands_of(_parser()))
RUN = [name for name, parser in PARSERS.items() if parser._subparsers is None]
"""All commands that do something: `evaluate score` and not `evaluate`."""

WITHOUT_EXTRAS = """
import contextlib, io, json, re, sys

class Without:
    '''A finder of modules that does not see those of the extras.'''
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, path, target)

hidden, commands = json.loads(sys.argv[1])
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from speaker_reasoner.cli import main
told = {}
for name, words in commands.items():
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    told[name] = status, said.getvalue()
print(json.dumps(told))
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(speaker_reasoner.__file__).parents[1])}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command says to words that it does not take."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    shown, said = capsys.readouterr()
    assert (stop.value.code, shown) == (2, "")
    return said


# Extras


def extras() -> dict[str, list[str]]:
    """The libraries of each extra, by the names they are imported by."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {
        extra: [
            re.split(r"[^\w.-]", library)[0].partition(".")[0].replace("-", "_")
            for library in libraries
            if not library.startswith(("speaker-reasoner", "setuptools"))
        ]
        for extra, libraries in declared["project"]["optional-dependencies"].items()
        if extra != "dev"
    }


def test_without_extras_each_command_works_or_says_in_one_line_what_to_install(
    tmp_path: Path,
) -> None:
    meeting, reference = ROOT / "examples/meeting.flac", ROOT / "examples/meeting.seglst.json"
    corpora = tmp_path / "corpora.toml"
    corpora.write_text('[corpora]\ntrain = ["nowhere"]\n[model]\nbase = "nowhere"\n')
    store = ["--store", str(tmp_path / "voices")]
    cases: dict[str, tuple[list[Any], str | None]] = {
        "transcribe": ([meeting, "--model", "tiny", "-o", tmp_path / "out", "-q"], None),
        "batch": ([ROOT / "examples", "--model", "tiny", "-o", tmp_path / "many", "-q"], None),
        "batch --format parquet": ([meeting, "--model", "tiny", "-o", tmp_path / "few"], "batch"),
        "batch --workers 2": ([meeting, "--model", "tiny", "-o", tmp_path / "few"], "ray"),
        "transcribe --vad silero": ([meeting, "--model", "tiny"], "vad"),
        "transcribe --witness resemblyzer": ([meeting, "--model", "tiny"], "resemblyzer"),
        "transcribe --witness speechbrain": ([meeting, "--model", "tiny"], "speechbrain"),
        "voices add": (["Ana", meeting, *store], None),
        "voices list": (store, None),
        "voices remove": (["Ana", *store], None),
        "systems": ([], None),
        "serve": ([], "serve"),
        "evaluate score": ([reference, reference], "eval"),
        "evaluate run": (["--data", ROOT / "examples", "-o", tmp_path / "run"], "eval"),
        "evaluate table": (["segmented"], None),
        "evaluate report": ([reference, "-o", tmp_path / "report.html"], "eval"),
        "evaluate compare": ([reference, reference], None),
        "evaluate leaderboard": ([reference, "-o", tmp_path / "board.html"], None),
        "prepare": (["folder", ROOT / "examples", "-o", tmp_path / "prepared"], None),
        "train": (["tiny", "-o", tmp_path / "train"], "train"),
        "train --stage voice": (["tiny", "-o", tmp_path / "train"], "train"),
        "compose": (["--audio", tmp_path, "--text", tmp_path, "-o", tmp_path / "made"], None),
        "compose --text no/model/file.gguf": (
            ["--audio", tmp_path, "-o", tmp_path / "made"],
            "gguf",
        ),
        "merge": ([tmp_path / "no", "-o", tmp_path / "merged"], None),
        "export": (["swift", corpora, "-o", tmp_path / "swift"], None),
        "plan": (["qwen2.5-omni-7b"], None),
        "completion": (["bash"], None),
    }
    assert {name.partition(" --")[0] for name in cases} == set(RUN)
    hidden = sorted({library for libraries in extras().values() for library in libraries})
    hidden += ["faster_whisper", "speaker_reasoner_cascade"]  # another engine than the embedded one
    assert {"scipy", "accelerate", "pyannote", "python_multipart", "silero_vad"} <= set(hidden)
    commands = {name: [*name.split(), *map(str, words)] for name, (words, _) in cases.items()}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, json.dumps([hidden, commands])],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    fails_otherwise = {"compose", "merge", "export", "evaluate compare", "evaluate leaderboard"}
    for name, (status, said) in json.loads(done.stdout).items():
        extra = cases[name][1]
        if extra is None:
            assert "pip install" not in said, (name, said)
            assert status == (name in fails_otherwise), (name, said)
        else:
            assert status == 1, (name, said)
            last = said.splitlines()[-1]
            assert last.startswith("error: ") and " needs " in last, (name, said)
            assert f"pip install 'speaker-reasoner[{extra}]'" in last, (name, said)
        if status:
            assert said.count("error: ") == 1, (name, said)


# Wrong words


@pytest.mark.parametrize(
    ("words", "usage", "part"),
    [
        ("trascribe a.wav", "", "'trascribe', did you mean transcribe? (choose from transcribe,"),
        ("zzz", "", "invalid choice: 'zzz' (choose from transcribe,"),
        ("README.md", "", "to transcribe it: speaker-reasoner transcribe FILE"),
        ("--versoin", "", "unknown option: --versoin, did you mean --version?"),
        (
            "--model X transcribe f",
            "",
            "goes behind the command that takes it: transcribe, batch, serve",
        ),
        ("-q transcribe f", "", "unknown option: -q; it goes behind"),
        ("transcribe --modle X f", "transcribe", "unknown option: --modle, did you mean --model?"),
        ("transcribe f --modle=X", "transcribe", "unknown option: --modle, did you mean --model?"),
        ("transcribe --modle", "transcribe", "unknown option: --modle"),
        ("transcribe -x f", "transcribe", "unknown option: -x\n"),
        ("transcribe f --vad silent", "transcribe", "'silent', did you mean silero?"),
        ("train tiny --gpus 8", "train", "unknown option: --gpus\n"),
        ("train tiny small", "train", "unexpected argument: small"),
        ("evaluate scores a b", "evaluate", "'scores', did you mean score?"),
        ("evaluate --lost score", "evaluate", "goes behind the command that takes it: score"),
        ("evaluate score a b --languge en", "evaluate score", "did you mean --language?"),
        ("voices list Ana", "voices list", "unexpected argument: Ana"),
        ("transcribe ''", "transcribe", "argument FILE: got an empty value"),
        ("transcribe f -o ''", "transcribe", "argument -o/--output"),
        ("transcribe f --model=", "transcribe", "argument --model: got an empty value"),
        ("''", "", "invalid choice: ''"),
        ("'\x1b[31mred'", "", r"'\x1b[31mred'"),
        ("transcribe --'\x1b[31mred'", "transcribe", r"unknown option: --\x1b[31mred"),
    ],
)
def test_wrong_words(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    usage: str,
    part: str,
) -> None:
    monkeypatch.chdir(ROOT)
    said = refused(capsys, *shlex.split(words))
    of = " ".join(["speaker-reasoner", *usage.split()])
    assert said.startswith(f"usage: {of} ")
    assert f"\n{of}: error: " in said
    assert part in said and "\x1b" not in said


@pytest.mark.parametrize(
    "words",
    [
        "transcribe -- --modle",
        "transcribe f -qfjson",
        "transcribe -oDIR f",
        "transcribe -",
        "transcribe f --quie",
        "plan DIR --head-room -1",
    ],
)
def test_right_words(words: str) -> None:
    _parser().parse_args(shlex.split(words))


@pytest.mark.parametrize(
    "words", ["voices list --store FILE", "voices remove Ana --store FILE", "train tiny -o FILE"]
)
def test_a_file_where_a_folder_should_be(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(words.replace("FILE", str(tmp_path / "file")).split()) == 1
    shown, said = capsys.readouterr()
    assert (shown, said.count("\n")) == ("", 1)
    assert f"{tmp_path / 'file'}: got a file, expected a" in said
    assert (tmp_path / "file").read_text() == "mine"


# Help


@pytest.mark.parametrize("name", PARSERS)
def test_help_fits_80_columns_and_shows_examples(name: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = PARSERS[name].format_help()
    assert max(map(len, shown.splitlines())) <= 80
    examples = shown.partition("\nexamples:\n")[2]
    assert f"speaker-reasoner {name}".strip() in examples


def shown_commands() -> Iterator[str]:
    """Every command of ours that help or a document shows."""
    for parser in PARSERS.values():
        yield from (
            parser.format_help().replace("\\\n", " ").partition("\nexamples:\n")[2].splitlines()
        )
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        text = document.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:console|bash)\n(.*?)^```$", text, re.DOTALL | re.M):
            yield from block.replace("\\\n", " ").splitlines()


COMMAND = re.compile(r"(?:^|[ $(&])(?:speaker-reasoner|-m speaker_reasoner) ([^)#>&]+)")
SHOWN = sorted({match[1].strip() for line in shown_commands() for match in COMMAND.finditer(line)})


def test_enough_examples_are_found() -> None:
    assert len(SHOWN) > 40
    assert {words.split()[0] for words in SHOWN} == {name.split()[0] for name in RUN}


@pytest.mark.no_cover
@pytest.mark.parametrize("words", SHOWN)
def test_examples_parse(words: str) -> None:
    _parser().parse_args(shlex.split(words))


# Completion


def test_bash_completes_commands_options_and_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "meeting.flac").touch()
    (tmp_path / "meetings").mkdir()
    ask = (
        'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_shtab_speaker_reasoner "$1" "${@: -1}" "${@: -2:1}"; '
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )

    def completed(*words: str) -> set[str]:
        done = subprocess.run(
            ["bash", "-c", ask, "bash", "speaker-reasoner", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return set(done.stdout.split())

    assert completed("") == {name for name in PARSERS if name and " " not in name}
    assert completed("evaluate", "s") == {"score"}
    assert completed("transcribe", "--voi") == {"--voice", "--voices"}
    assert completed("transcribe", "a.wav", "--vad", "s") == {"silero"}
    assert completed("transcribe", "mee") == {"meeting.flac", "meetings"}
    assert completed("transcribe", "a.wav", "-o", "mee") == {"meetings"}


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef"), ("fish", "complete -c")])
def test_other_shells(capsys: pytest.CaptureFixture[str], shell: str, mark: str) -> None:
    assert main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert mark in shown and "--witness" in shown.replace("-l witness", "--witness")


# As a process of its own


def started(*words: str, **options: Any) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "speaker_reasoner", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment(), **options)


def test_a_reader_of_the_help_that_stops_reading() -> None:
    process = started("transcribe", "--help", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert said == b"" and process.returncode in (0, 1)  # 0 where argparse itself met the end


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", ["--help", "evaluate table segmented", "completion bash"])
def test_a_full_disk(words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        process = started(*words.split(), stdout=full)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith(b"error: standard output: No space left") and said.count(b"\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_streams(closed: str) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m speaker_reasoner voices --help {closed}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, env=environment(), check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_words_that_are_not_utf_8() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "speaker_reasoner", "transcribe", b"caf\xe9.wav"],
        stderr=subprocess.PIPE,
        env=environment(),
    )
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith(b"error: ") and said.count(b"\n") == 1 and b"caf" in said


def test_interrupted_while_it_starts() -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Now:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == sys.argv[1]: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Now())\n"
        "from speaker_reasoner.cli import main\n"
        "sys.exit(main(['plan', 'qwen2.5-omni-7b']))\n"
    )
    for module in ("argparse", "speaker_reasoner.commands.evaluate", "speaker_reasoner.train"):
        done = subprocess.run(
            [sys.executable, "-c", code, module],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert done.returncode == 130, (module, done.stderr)
        assert done.stderr == "error: interrupted; nothing half-written was left\n"


@pytest.mark.parametrize("form", ["json", "srt", "vtt", "textgrid"])
def test_several_recordings_in_one_stream_need_a_format_that_can(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = Path(__file__).parent.parent / "examples"
    files = [str(examples / name) for name in ("meeting.flac", "ami.flac")]
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", *files, "--model", "tiny", "--format", form])
    assert ended.value.code == 2
    assert f"{form} holds one recording, and there are 2: add -o DIR" in capsys.readouterr().err


def test_results_by_other_rules_are_compared_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = str(Path(__file__).parent.parent / "examples" / "meeting.seglst.json")
    ours, theirs = str(tmp_path / "ours.json"), str(tmp_path / "theirs.json")
    assert main(["evaluate", "score", said, said, "-o", ours]) == 0
    assert main(["evaluate", "score", said, said, "--as", "md-eval", "-o", theirs]) == 0
    capsys.readouterr()
    assert main(["evaluate", "compare", ours, theirs, "--metric", "der_0"]) == 0
    assert "scored by other rules: as our own and md-eval" in capsys.readouterr().err
    assert main(["evaluate", "compare", ours, ours, "--metric", "der_0"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_the_choices_of_a_servers_options_are_the_engines() -> None:
    """Written twice, so that `--help` loads no engine."""
    from speaker_reasoner.engines.remote import CONSTRAINTS, SENDING

    transcribe = dict(commands_of(_parser()))["transcribe"]
    choices = {tuple(a.option_strings): a.choices for a in transcribe._actions}
    assert tuple(choices[("--constraint",)] or ()) == CONSTRAINTS
    assert tuple(choices[("--send-audio",)] or ()) == SENDING
