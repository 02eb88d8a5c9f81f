"""Dialogues shared out among processes with the same checkpoint."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner import load_engine
from speaker_reasoner.engines import processes as module
from speaker_reasoner.engines.processes import EngineProcesses
from speaker_reasoner.errors import EngineError, SettingsError
from speaker_reasoner.reasoner import Dialogue, Stop, run

from .conftest import noise

LENGTHS = (3.0, 5.0, 2.0, 4.0)


@pytest.fixture(autouse=True, scope="module")
def _two_cores() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "usable_cores", lambda: 2)
        yield


@pytest.fixture(scope="module")
def two(random_checkpoint: Path) -> Iterator[EngineProcesses]:
    engine = load_engine(random_checkpoint, device="cpu", processes=2)
    assert isinstance(engine, EngineProcesses)
    yield engine
    engine.close()


def dialogues(engine: Any) -> list[Dialogue]:
    return [Dialogue(noise(s, n), engine.profile) for n, s in enumerate(LENGTHS)]


def written(engine: Any) -> list[tuple[Any, Any]]:
    """Ask the dialogues of all lengths at once; their turns and how they ended."""
    asked = dialogues(engine)
    for _ in run(asked, engine):
        pass
    return [(one.outcome.trace, one.outcome.stop) for one in asked if one.outcome is not None]


def other(engine: EngineProcesses) -> Any:
    [process] = engine._others
    return process


def test_replies_are_those_of_one_process(two: EngineProcesses, random_engine: Any) -> None:
    assert written(two) == written(random_engine)
    assert two.describe() == random_engine.describe()
    assert (two.name, two.profile) == (random_engine.name, random_engine.profile)


def test_dialogues_stay_where_they_began_and_are_forgotten_at_their_end(
    two: EngineProcesses,
) -> None:
    asked = dialogues(two)
    requests = [one.request for one in asked]
    assert None not in requests
    two.ask(requests)  # type: ignore[arg-type]
    here = ["transformers" in one.session.memory for one in asked]
    assert sorted(here) == [False, False, True, True]
    places = [one.session.memory["process"] for one in asked]
    numbers = {place.number for place in places if place != "here"}
    del places
    assert len(numbers) == 2 and not numbers & set(other(two).dropped)
    for one in asked:
        one.session.memory.clear()
    assert numbers <= set(other(two).dropped)


def test_one_dialogue_is_answered_here(two: EngineProcesses) -> None:
    request = dialogues(two)[0].request
    assert request is not None
    two.ask([request])
    assert "transformers" in request.session.memory


def test_a_process_that_dies_ends_its_dialogues_alone(two: EngineProcesses) -> None:
    asked, died = dialogues(two), other(two)
    two.ask([one.request for one in asked])  # type: ignore[misc]
    os.kill(died._process.pid, signal.SIGKILL)
    died._process.wait()
    for _ in range(2):
        replies = two.ask([one.request for one in asked])  # type: ignore[misc]
        lost = [reply.error for reply in replies if reply.error]
        assert len(lost) == 2
        assert all("signal 9" in error and "--processes" in error for error in lost)
    assert all(stop is Stop.ANSWERED for _, stop in written(two))  # it was started again
    assert other(two) is not died


def test_an_error_of_the_engine_elsewhere_is_raised(
    two: EngineProcesses, random_engine: Any
) -> None:
    process, read = other(two), other(two)._read
    process._read = lambda: read() and EngineError("out of memory")
    with pytest.raises(EngineError, match="out of memory"):
        two.ask([one.request for one in dialogues(two)])  # type: ignore[misc]
    process._read = read
    assert written(two) == written(random_engine)


def test_an_error_here_leaves_the_others_in_step(
    two: EngineProcesses, random_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> Any:
        raise EngineError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(two.own, "ask", fails)
        with pytest.raises(EngineError, match="out of memory"):
            two.ask([one.request for one in dialogues(two)])  # type: ignore[misc]
    assert written(two) == written(random_engine)


def test_after_an_interrupt_no_answer_is_taken_for_a_later_one(
    two: EngineProcesses, random_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(two.own, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            two.ask([one.request for one in dialogues(two)])  # type: ignore[misc]
    assert written(two) == written(random_engine)


def test_a_model_that_cannot_be_loaded_elsewhere(random_engine: Any, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=str(tmp_path)):
        EngineProcesses(random_engine, {"model": tmp_path / "none", "device": "cpu"}, 2)


@pytest.mark.parametrize("count", [0, 3, -1])
def test_more_processes_than_cores(random_checkpoint: Path, count: int) -> None:
    with pytest.raises(SettingsError, match="1 to 2"):
        load_engine(random_checkpoint, device="cpu", processes=count)


def test_only_for_a_checkpoint_here() -> None:
    with pytest.raises(SettingsError, match="--processes 2"):
        load_engine("cascade", processes=2)


def test_the_others_end_with_this_process(random_checkpoint: Path) -> None:
    """Also while they load."""
    lines = [
        "import sys, time",
        "from speaker_reasoner.engines import processes",
        "process = processes._Process({'model': sys.argv[1], 'device': 'cpu'})",
        "print(process._process.pid, flush=True)",
        "time.sleep(60)",
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(random_checkpoint)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and not _is_zombie(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
