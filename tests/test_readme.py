"""The README does what it says: its commands and its Python run, its links lead somewhere."""

import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

import speaker_reasoner
from speaker_reasoner.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)

INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt"
EXAMPLE = "speaker-reasoner transcribe examples/ami.flac"
RUN = f"{INSTALL} . ./packages/cascade && {EXAMPLE}"
TEST = f"{INSTALL} -e '.[dev]' ./packages/cascade && scripts/check"

NOT_RUN = {
    "speaker-reasoner transcribe meeting.wav --model path/to/checkpoint": "needs a checkpoint",
    "speaker-reasoner transcribe meeting.wav --model path/to/released --prompts prompts.json": (
        "needs a released checkpoint"
    ),
    "speaker-reasoner transcribe meeting.wav --model path/to/checkpoint --witness resemblyzer": (
        "needs a checkpoint"
    ),
    "speaker-reasoner transcribe meeting.wav --engine openai --base-url http://localhost:8000/v1 "
    "--model NAME --batch 16": "needs a server",
    "speaker-reasoner serve": "serves until it is stopped",
    "speaker-reasoner train tiny": "takes hours",
    "speaker-reasoner train tiny --stage 3 --from runs/tiny/stage-3 -o runs/more": "takes hours",
    "speaker-reasoner merge runs/a/stage-3 runs/b/stage-3 -o runs/mean": "needs checkpoints",
    "speaker-reasoner train tiny --stage voice --from runs/mean": "needs a checkpoint",
}
"""Commands shown but not run, and why; their options must be in the command's help instead."""

ENTRY_POINT = "import sys; from speaker_reasoner.cli import main; sys.exit(main())"


def blocks(language: str) -> list[str]:
    return [text for tag, text in BLOCKS if tag == language]


def session(console: str) -> Iterator[tuple[str, str]]:
    """Commands of a console block, each with the output shown below it (may be empty)."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command.strip(), output


COMMANDS = [command for text in blocks("console") for command, _ in session(text)]


def words_of(command: str) -> list[str]:
    program, *arguments = shlex.split(command)
    assert program == "speaker-reasoner", f"not ours to run: {command}"
    return arguments


def run(command: str, folder: Path) -> str:
    """Run a `speaker-reasoner` command in `folder`; return its stdout."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        try:
            status: object = main(words_of(command))
        except SystemExit as ended:  # of --help
            status = ended.code or 0
    assert status == 0, f"{command}: exit {status}\n{out.getvalue()}{err.getvalue()}"
    return out.getvalue()


def run_alone(command: str, folder: Path) -> str:
    """The same in a process of its own, as the entry point does."""
    done = subprocess.run(
        [sys.executable, "-c", ENTRY_POINT, *words_of(command)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(speaker_reasoner.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds the examples, where whatever the README writes does no harm."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    assert README.count("\n```") == 2 * len(BLOCKS)
    assert {tag for tag, _ in BLOCKS} == {"python", "console", "bash", "text", "bibtex"}
    assert [text.strip() for text in blocks("bash")] == [RUN, TEST]
    assert all(text.startswith("$ ") for text in blocks("console"))
    assert set(NOT_RUN) <= set(COMMANDS), "NOT_RUN lists commands the README no longer shows"


def test_the_first_screen_holds_the_two_commands() -> None:
    first_screen = README.partition("\n## ")[0].splitlines()[:40]
    assert RUN in first_screen
    assert TEST in first_screen


def test_continuous_integration_runs_the_test_command() -> None:
    assert TEST in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_first_command_transcribes(folder: Path) -> None:
    assert run_alone(EXAMPLE, folder).strip()


@pytest.mark.parametrize("text", blocks("console"))
def test_console(text: str, folder: Path) -> None:
    checker = doctest.OutputChecker()
    lenient = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for command, shown in session(text):
        if command in NOT_RUN:
            continue
        printed = run(command, folder)
        if shown.strip():
            assert checker.check_output(shown, printed, lenient), f"{command} printed:\n{printed}"


@pytest.mark.parametrize("command", NOT_RUN)
def test_options_of_commands_that_are_not_run(command: str, tmp_path: Path) -> None:
    words, options = shlex.split(command), re.findall(r" (--?[a-z][a-z-]*)", command)
    named = words[:3] if words[1] == "train" else words[:2]  # what is trained has its own options
    shown = run(shlex.join([*named, "--help"]), tmp_path)
    for option in options:
        assert option in shown, f"{command}: the help does not name {option}:\n{shown}"


@pytest.mark.parametrize("text", blocks("python"))
def test_python(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:|#)([^)#]+)", README))))
def test_links(target: str) -> None:
    assert (ROOT / target).exists(), f"README links to {target}, which does not exist"
