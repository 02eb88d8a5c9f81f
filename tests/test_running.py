"""A data set transcribed for evaluation: manifests, pieces, resumption, the stored result."""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner import cli
from speaker_reasoner.commands import evaluate
from speaker_reasoner.commands.scoring import STEPS
from speaker_reasoner.engines import Reply, Request
from speaker_reasoner.engines.base import Stop
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import AnswerError, DataError
from speaker_reasoner.evaluate.normalisation import Normalisation
from speaker_reasoner.evaluate.pairs import Pair
from speaker_reasoner.evaluate.running import ask, hypotheses, read_data, transcribe, units
from speaker_reasoner.formats import write
from speaker_reasoner.longform import Options
from speaker_reasoner.systems.asking import How
from speaker_reasoner.systems.base import Sound
from speaker_reasoner.transcript import Segment, Transcript

from .talk import PROFILE, Killed, Mortal, play, save
from .test_systems import TWO, Recorded
from .vocal import voice

COUNT = 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three recordings of 8 s; what is said in them is what the script plays in chunks of 4 s."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(COUNT):
        save(folder / f"talk-{i}.wav", voice(8.0))
        rows = [
            Segment("A", 0.0, 2.0, "one", "female"),
            Segment("B", 2.0, 3.9, "two", "male"),
            Segment("A", 4.1, 6.0, "one", "female"),
            Segment("B", 6.0, 8.0, "two", "male"),
        ]
        write(Transcript(f"talk-{i}", 8.0, tuple(rows)), folder, ["seglst"])
    return folder


def engine() -> ScriptedEngine:
    return ScriptedEngine(play, PROFILE)


def kept(folder: Path) -> dict[str, Any]:
    return {n: (t.segments, t.duration_s) for n, t in hypotheses(folder).items()}


@pytest.mark.no_cover
@pytest.mark.parametrize("pieces_s", [None, (3.0, 5.0)])
@pytest.mark.parametrize("at", [0, 1, 3, 5, 8])
def test_a_killed_run_goes_on(
    data: Path, tmp_path: Path, pieces_s: tuple[float, float] | None, at: int
) -> None:
    rows, _ = units(read_data(data), pieces_s)
    transcribe(engine(), rows, tmp_path / "whole", Options(batch=1))
    with pytest.raises(Killed):
        transcribe(Mortal(at), rows, tmp_path / "cut", Options(batch=1))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").glob("hypotheses/*.json")}
    ran = transcribe(engine(), rows, tmp_path / "cut", Options(batch=1))
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
    assert len(kept(tmp_path / "cut")) == len(rows)
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())
    assert ran["speed"]["audio_s"] == pytest.approx(8.0 * COUNT) and ran["failures"] == {}
    asked = engine()
    transcribe(asked, rows, tmp_path / "cut", Options(batch=1))
    assert asked.requests == []


def test_pieces_are_heard_where_they_lie(data: Path, tmp_path: Path) -> None:
    rows, clipped = units(read_data(data), (3.0, 5.0))
    assert clipped == 0 and [row.start_s for row in rows[:2]] == [0.0, 4.0]
    heard: list[Any] = []

    def listen(request: Request) -> str:
        if request.rules.turn == 0:
            heard.append(request.session.samples.copy())
        return play(request)

    transcribe(ScriptedEngine(listen, PROFILE), rows[:2], tmp_path, Options(batch=1))
    assert [len(samples) for samples in heard] == [64_000, 64_000]
    whole = voice(8.0)
    assert abs(heard[1] - whole[64_000:]).max() < 1e-4


def test_another_run_is_told(data: Path, tmp_path: Path) -> None:
    items = read_data(data)
    rows, _ = units(items, None)
    transcribe(engine(), rows, tmp_path, Options(batch=1))
    with pytest.raises(DataError, match=r"another run \(other answer\)"):
        transcribe(engine(), rows, tmp_path, Options("model", batch=1))
    with pytest.raises(DataError, match=r"another run \(other data\)"):
        transcribe(engine(), units(items, (3.0, 5.0))[0], tmp_path, Options(batch=1))


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"settings": 7}'])
def test_settings_that_cannot_be_read_are_told(data: Path, tmp_path: Path, content: str) -> None:
    rows, _ = units(read_data(data), None)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json: no settings of a run that can be read"):
        transcribe(engine(), rows, tmp_path, Options(batch=1))


def test_a_recording_that_fails_is_told_and_the_rest_goes_on(data: Path, tmp_path: Path) -> None:
    rows, _ = units(read_data(data), None)
    sound = data / "talk-1.wav"
    sound.write_bytes(sound.read_bytes()[:20_000])
    failures = transcribe(engine(), rows, tmp_path, Options(batch=2))["failures"]
    assert list(failures) == ["talk-1"] and "talk-1.wav" in failures["talk-1"]["message"]
    assert failures["talk-1"]["reason"] == "unreadable"
    assert sorted(kept(tmp_path)) == ["talk-0", "talk-2"]


def test_a_recording_with_gaps_counts_as_a_failure(data: Path, tmp_path: Path) -> None:
    class Failing(ScriptedEngine):
        def ask(self, requests: Sequence[Request]) -> list[Reply]:
            return [Reply("", error="HTTP 500: boom", stop=Stop.SERVER) for _ in requests]

    rows, _ = units(read_data(data), None)
    ran = transcribe(Failing([], PROFILE), rows[:1], tmp_path, Options(batch=1))
    assert ran["failures"]["talk-0"]["reason"] == "unavailable"
    assert "not all of it" in ran["failures"]["talk-0"]["message"] and ran["notes"] == {}


def test_another_system_is_asked_and_what_it_used_is_summed_up(data: Path, tmp_path: Path) -> None:
    def answer(sound: Sound) -> Any:
        return TWO if sound.recording != "talk-1" else AnswerError("refused", "no")

    rows, _ = units(read_data(data), None)
    ran = ask(Recorded(answer), rows, tmp_path, How())
    assert ran["failures"]["talk-1"]["reason"] == "refused" and len(ran["failures"]) == 1
    assert sorted(kept(tmp_path)) == ["talk-0", "talk-2"]
    assert ran["usage"]["input_tokens"] == 7 * (COUNT - 1)
    assert ran["speed"]["audio_s"] == ran["usage"]["audio_s"] == 8.0 * COUNT
    assert "asked_s" not in ran["usage"] and ran["speed"]["wall_s"] >= 0
    with pytest.raises(DataError, match=r"another run \(other asked\)"):
        ask(Recorded(answer, prompt="other"), rows, tmp_path, How())
    with pytest.raises(DataError, match=r"another run \(other piece_limit_s\)"):
        ask(Recorded(answer), rows, tmp_path, How(limit_s=5.0))


def manifest(folder: Path, *rows: Any) -> Path:
    path = folder / "manifest.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_manifest(data: Path) -> None:
    both = [json.loads((data / f"talk-{i}.seglst.json").read_text()) for i in (0, 1)]
    (data / "all.seglst.json").write_text(json.dumps(both[0] + both[1]))
    row = {"audio": "talk-0.wav", "reference": "all.seglst.json"}
    items = read_data(manifest(data, row, "", {**row, "audio": "talk-2.wav", "name": "talk-1"}))
    assert [(i.audio.name, i.reference.recording) for i in items] == [
        ("talk-0.wav", "talk-0"),
        ("talk-2.wav", "talk-1"),
    ]
    assert items[0].reference.duration_s == 8.0 and len(items[0].reference.segments) == 4


GOOD = {"audio": "talk-0.wav", "reference": "talk-0.seglst.json"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], r"manifest\.jsonl:1: not JSON"),
        ([GOOD, {"audio": "talk-0.wav"}], r"manifest\.jsonl:2: expected"),
        ([{**GOOD, "extra": "x"}], "expected"),
        ([{**GOOD, "audio": 3}], "must be text"),
        ([{**GOOD, "audio": "none.wav"}], r"none\.wav does not exist"),
        ([{**GOOD, "name": "other"}], "no session 'other'"),
        ([GOOD, GOOD], "comes twice"),
        ([""], "holds no recordings"),
    ],
)
def test_bad_manifests_are_told(data: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_data(manifest(data, *rows))
    assert "\n" not in str(caught.value)


def test_bad_folders_are_told(data: Path, tmp_path: Path) -> None:
    (data / "talk-1.seglst.json").unlink()
    with pytest.raises(DataError, match=r"talk-1\.wav: no reference beside it"):
        read_data(data)
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        read_data(tmp_path / "nothing")
    save(data / "talk-1.wav", voice(0.5))
    shutil.copy(data / "talk-2.seglst.json", data / "talk-1.seglst.json")
    with pytest.raises(DataError, match="the same recording"):
        read_data(data)


def command(*words: Any) -> int:
    return cli.main(["evaluate", *map(str, words)])


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    """The folder of a finished `evaluate run`."""
    monkeypatch.setattr(evaluate, "load_quietly", lambda arguments, quiet=False: engine())
    out = tmp_path / "out"
    assert command("run", "--data", data, "--segmented", "3-5", "-o", out, "--batch", "2") == 0
    return out


def test_evaluate_run_stores_a_result(run: Path, data: Path, capsys: Any) -> None:
    result = json.loads((run / "evaluation.json").read_text())
    assert result["mode"] == "segmented" and result["data"] == "data"
    assert len(result["recordings"]) == 2 * COUNT and not result["lost"]
    assert result["scores"]["cpwer"]["rate"] == 0.0
    assert result["scores"]["cpwer"]["reference_words"] == 4 * COUNT
    assert result["scores"]["speaker_count"]["rate"] == 1.0
    assert 0 < result["scores"]["der_0"]["rate"] < 0.05  # 0.1 s that nobody speaks, in each half
    assert result["speed"]["turns"] == 3 * 2 * COUNT
    assert result["settings"]["pieces_s"] == [3.0, 5.0]
    stored = (run / "evaluation.json").read_text()
    assert command("run", "--data", data, "--segmented", "3-5", "-o", run, "--batch", "2") == 0
    shown = capsys.readouterr().out
    assert (
        "0 ins, 0 del, 0 sub / 12" in " ".join(shown.split())
        and "normalisation: nfkc, lower" in shown
    )
    again = json.loads((run / "evaluation.json").read_text())
    assert again["scores"] == json.loads(stored)["scores"]


def test_score_is_what_run_stored(run: Path, tmp_path: Path) -> None:
    scored = tmp_path / "scored.json"
    assert command("score", run / "references", run / "hypotheses", "-o", scored) == 0
    ours, theirs = (json.loads(p.read_text()) for p in (scored, run / "evaluation.json"))
    assert ours["scores"]["cpwer"] == theirs["scores"]["cpwer"]
    assert ours["scores"]["gender"] == theirs["scores"]["gender"]


def test_a_missing_hypothesis_is_an_error_or_lost(run: Path, tmp_path: Path, capsys: Any) -> None:
    (run / "hypotheses" / "talk-1-0002.json").unlink()
    both = (run / "references", run / "hypotheses")
    assert command("score", *both) == 1
    assert "talk-1-0002" in capsys.readouterr().err
    assert command("score", *both, "--lost", "-o", tmp_path / "lost.json") == 0
    lost = json.loads((tmp_path / "lost.json").read_text())
    assert lost["lost"] == ["talk-1-0002"]
    assert lost["scores"]["cpwer"]["deletions"] == 2


def test_table_report_and_compare(run: Path, tmp_path: Path, capsys: Any) -> None:
    result = run / "evaluation.json"
    assert command("table", "segmented", result, "--style", "markdown") == 0
    assert "AISHELL4-Eval" in capsys.readouterr().out
    assert command("report", result, "-o", tmp_path / "report.html") == 0
    assert "talk-2-0001" in (tmp_path / "report.html").read_text()
    assert command("compare", result, result) == 0
    assert "+0.00 points" in capsys.readouterr().out
    (run / "hypotheses").rename(run / "elsewhere")
    assert command("report", result, "-o", tmp_path / "report.html") == 1
    assert "is not there" in capsys.readouterr().err
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    assert command("table", "segmented", broken) == 1
    assert "expected an evaluation" in capsys.readouterr().err


def test_the_commands_steps_are_the_normalisations() -> None:
    switches = [f.name for f in fields(Normalisation) if isinstance(f.default, bool)]
    assert list(STEPS) == switches


@pytest.mark.parametrize(
    ("steps", "message"), [("", "empty value"), ("lower,nothing", "unknown step")]
)
def test_unknown_steps_are_usage(steps: str, message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        command("score", "a", "b", "--normalise", steps)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_what_is_stored_is_not_scored_again(run: Path, monkeypatch: Any, capsys: Any) -> None:
    from speaker_reasoner.evaluate import results

    scored: list[str] = []
    measure = results._measure

    def counting(pair: Any, **how: Any) -> Any:
        scored.append(pair.name)
        return measure(pair, **how)

    monkeypatch.setattr(results, "_measure", counting)
    out = run / "score.json"
    sides = (run / "references", run / "hypotheses")
    assert command("score", *sides, "-o", out) == 0
    assert len(scored) == 2 * COUNT
    first = json.loads(out.read_text())
    assert command("score", *sides, "-o", out) == 0
    assert len(scored) == 2 * COUNT
    assert f"counts of {2 * COUNT} of {2 * COUNT} recordings are those" in capsys.readouterr().out
    again = json.loads(out.read_text())
    assert {**again, "kept": 0} == first
    changed = run / "hypotheses" / "talk-1-0002.json"
    changed.write_text(changed.read_text().replace('"text": "', '"text": "uh '))
    assert command("score", *sides, "-o", out) == 0
    assert scored[2 * COUNT :] == ["talk-1-0002"]
    assert command("score", *sides, "-o", out, "--normalise", "none") == 0
    assert len(scored) == 4 * COUNT + 1


def test_counts_of_another_scoring_are_not_kept(monkeypatch: Any) -> None:
    from speaker_reasoner.evaluate import results

    spoken = Transcript("talk", 2.0, (Segment("A", 0.0, 1.0, "yes"),))

    def evaluated(stored: Any = None, lower: bool = True, **how: Any) -> Any:
        pairs = [Pair("talk", spoken, spoken)]
        how = {"system": "mine", "data": "talks", "stored": stored, "quiet": True, **how}
        return results.evaluate(pairs, Normalisation(lower=lower), **how)

    first = evaluated()
    assert (first["kept"], evaluated(first)["kept"]) == (0, 1)
    assert evaluated(first, words=False)["kept"] == 0
    assert evaluated(first, lower=False)["kept"] == 0
    monkeypatch.setattr(results, "_scoring", lambda: "other")
    assert evaluated(first)["kept"] == 0


def test_units_are_stored(run: Path) -> None:
    pieces = json.loads((run / "evaluation.json").read_text())
    assert pieces["mode"] == "segmented"
    assert {row["of"] for row in pieces["recordings"]} == {f"talk-{i}" for i in range(COUNT)}
    assert pieces["settings"]["collars_s"] == {"der_0": 0.0, "der_025": 0.25, "tcpwer": 5.0}
    out = run / "scored.json"
    sides = (run / "references", run / "hypotheses")
    assert command("score", *sides, "--unit", "3-5", "-o", out) == 0
    one = json.loads(out.read_text())
    assert (one["mode"], one["settings"]["pieces_s"]) == ("segmented", [3.0, 5.0])
    assert command("score", *sides, "--unit", "whole", "-o", out) == 0
    assert json.loads(out.read_text())["mode"] == "long-form"


def test_failures_beside_transcripts_are_no_transcripts(run: Path, tmp_path: Path) -> None:
    row = {"recording": "talk-1", "reason": "loop", "message": "again and again"}
    (run / "hypotheses" / "failures.jsonl").write_text(json.dumps(row) + "\n")
    assert command("score", run / "references", run / "hypotheses") == 0
    assert command("report", run / "evaluation.json", "-o", tmp_path / "report.html") == 0


def test_a_comparison_of_different_units_is_told(run: Path, data: Path, capsys: Any) -> None:
    whole = run / "whole"
    assert command("run", "--data", data, "--long-form", "-o", whole, "--batch", "2") == 0
    capsys.readouterr()
    assert command("compare", run / "evaluation.json", whole / "evaluation.json") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "of different units: pieces of 3 to 5 s and whole recordings" in said


def test_a_run_scores_what_its_uem_lists(
    run: Path, data: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    whole = json.loads((run / "evaluation.json").read_text())
    uem = tmp_path / "all.uem"
    uem.write_text("talk-0 1 4.05 6.05\nelse 1 0 1\n")  # one word of the second piece
    again = ("run", "--data", data, "--segmented", "3-5", "-o", run, "--batch", "2")
    assert command(*again, "--uem", uem) == 0
    assert "names 'else', which has no reference" in capsys.readouterr().err
    some = json.loads((run / "evaluation.json").read_text())
    assert some["settings"]["uem"] == str(uem)
    words = [result["scores"]["cpwer"]["reference_words"] for result in (whole, some)]
    assert words == [4 * COUNT, 4 * COUNT - 3]
    assert command("score", run / "references", run / "hypotheses", "-o", tmp_path / "a.json") == 0
    assert json.loads((tmp_path / "a.json").read_text())["scores"] == some["scores"]
    uem.unlink()  # the references of the run hold it
    assert command("report", run / "evaluation.json", "-o", tmp_path / "a.html") == 0


def test_one_side_of_standard_input(
    run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    [hypothesis, *_] = sorted((run / "hypotheses").glob("talk-0*.json"))
    with hypothesis.open("rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        words = (run / "references" / hypothesis.name, "-", "--hypothesis-format", "json")
        assert command("score", *words, "-o", tmp_path / "a.json") == 0
    stored = json.loads((tmp_path / "a.json").read_text())
    assert (stored["hypothesis"], stored["system"]) == ("-", "stdin")
    with pytest.raises(SystemExit) as stopped:
        command("score", "-", "-")
    assert stopped.value.code == 2
    assert "one side only" in capsys.readouterr().err
