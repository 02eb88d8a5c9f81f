"""Many recordings into a folder: kills, what is done, what is not any more, rounds."""

import json
import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speaker_reasoner import audio
from speaker_reasoner.engines import Reply, Request
from speaker_reasoner.engines.base import Stop
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import AudioError, EngineError, OutputError, SettingsError
from speaker_reasoner.evaluate.running import read_data, transcribe, units
from speaker_reasoner.formats import read, write
from speaker_reasoner.longform import Batch, Failure, Item, Options, Result, Transcriber
from speaker_reasoner.longform.batch import STATE
from speaker_reasoner.longform.journal import NOTICES, Journal
from speaker_reasoner.longform.recording import RecordingState
from speaker_reasoner.longform.shares import shares
from speaker_reasoner.transcript import Segment, Transcript

from .conftest import noise
from .talk import PROFILE, Killed, Mortal, play, save

TIMES = ("wall_s", "real_time_factor", "stage_s", "elapsed_s", "share_s")
FORMATS = ("json", "txt", "srt")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def files(folder: Path) -> dict[str, Any]:
    """All that is in a folder: byte for byte, but for the times that it took (and their hashes)."""
    contents: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        contents[name] = path.read_bytes()
        if path.suffix in (".json", ".done"):
            contents[name] = without_times(json.loads(contents[name]))
        if path.suffix == ".done":
            contents[name]["files"] = sorted(contents[name]["files"])
    return contents


@pytest.fixture
def five(tmp_path: Path) -> list[Path]:
    lengths_s = (9.0, 2.0, 14.0, 5.0, 11.0)
    return [save(tmp_path / f"r{i}.wav", noise(s, i)) for i, s in enumerate(lengths_s)]


def run(
    paths: Sequence[Path],
    out: Path,
    engine: ScriptedEngine | None = None,
    formats: Sequence[str] = FORMATS,
    batch: int = 2,
    **options: Any,
) -> list[Result]:
    engine = engine or ScriptedEngine(play, PROFILE)
    transcriber = Transcriber(engine, batch=batch, **{"detect": None, **options})
    with Batch(transcriber, out, formats) as many:
        return list(many.run([Item(path) for path in paths]))


def rounds_of(paths: Sequence[Path], out: Path) -> int:
    """How often the engine is asked by a run that nobody kills."""
    engine = Mortal(10**6)
    run(paths, out, engine)
    return 10**6 - engine.left


@pytest.mark.no_cover
def test_killed_at_any_round_it_ends_with_the_same_files(five: list[Path], tmp_path: Path) -> None:
    asked = rounds_of(five, tmp_path / "whole")
    expected = files(tmp_path / "whole")
    assert len(expected) == len(five) * (len(FORMATS) + 1) + 1
    for at in range(asked):
        out = tmp_path / f"killed-{at}"
        with pytest.raises(Killed):
            run(five, out, Mortal(at))
        done = {path.stem for path in out.glob(f"{STATE}/*.done")}
        journals = [path.read_text().count("\n") - 1 for path in out.glob(f"{STATE}/*.journal")]
        again = ScriptedEngine(play, PROFILE)
        results = run(five, out, again)
        assert files(out) == expected
        assert {r.item.title for r in results if r.outcome is None} == done
        turns = sum(r.outcome.info["turns"] for r in results if isinstance(r.outcome, Transcript))
        # Of three turns each; those that were finished are not heard again.
        assert len(again.requests) == turns - 3 * sum(journals)


def test_killed_while_files_are_written(
    five: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, between and after every file, its temporary one included."""
    run(five[:2], tmp_path / "whole")
    expected = files(tmp_path / "whole")
    really = os.fsync
    for at in range(12):
        out, left = tmp_path / f"killed-{at}", [at]

        def mortal(number: int) -> None:
            left[0] -= 1  # noqa: B023
            if left[0] < 0:  # noqa: B023
                raise Killed
            really(number)

        monkeypatch.setattr(os, "fsync", mortal)
        with pytest.raises(Killed):
            run(five[:2], out)
        monkeypatch.undo()
        (out / ".0123456789abcdef.tmp").write_text("half")
        run(five[:2], out)
        assert files(out) == expected


@pytest.mark.no_cover
def test_random_kills_of_evaluate_run(five: list[Path], tmp_path: Path) -> None:
    for path, length_s in zip(five, (9.0, 2.0, 14.0, 5.0, 11.0), strict=True):
        said = (Segment("A", 0.0, 1.0, "one", "female"),)
        write(Transcript(path.stem, length_s, said), tmp_path, ["seglst"])
    rows, _ = units(read_data(tmp_path), None)

    def evaluate(engine: ScriptedEngine, out: Path) -> dict[str, Any]:
        return dict(transcribe(engine, rows, out, Options(batch=2))["speed"])

    whole = Mortal(10**6)
    speed = evaluate(whole, tmp_path / "whole")
    expected = files(tmp_path / "whole")
    rng = random.Random(1)
    for kills in range(6):
        out, asked = tmp_path / f"killed-{kills}", 0
        for _ in range(kills):
            engine = Mortal(rng.randrange(3, 9))
            with suppress(Killed):
                evaluate(engine, out)
            asked += len(engine.requests)
        engine = ScriptedEngine(play, PROFILE)
        after = evaluate(engine, out)
        assert files(out) == expected
        # Each kill costs the chunks under way: two, of three turns each.
        assert asked + len(engine.requests) <= len(whole.requests) + 6 * kills
        assert {k: after[k] for k in ("audio_s", "turns")} == {
            k: speed[k] for k in ("audio_s", "turns")
        }


# What is done


Change = Callable[[list[Path], Path], dict[str, Any]]


def another_file(paths: list[Path], out: Path) -> dict[str, Any]:
    save(paths[0], noise(4.0, 9))
    return {}


def another_setting(paths: list[Path], out: Path) -> dict[str, Any]:
    return {"answer": "model"}


def lost_marker(paths: list[Path], out: Path) -> dict[str, Any]:
    (out / STATE / "r0.done").write_text("{")
    return {}


def deleted(paths: list[Path], out: Path) -> dict[str, Any]:
    for path in out.glob("r0.*"):
        path.unlink()
    return {}


def nothing(paths: list[Path], out: Path) -> dict[str, Any]:
    return {}


class Naming(ScriptedEngine):
    """Names a recogniser in a folder, as the cascade does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(play, PROFILE)
        self.folder = folder

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "model": "cascade=w", "recogniser": f"whisper={self.folder}"}


@pytest.mark.parametrize("changed", ["model.bin", "parts/new.json", None])
def test_a_model_whose_folder_changed(
    five: list[Path], tmp_path: Path, changed: str | None
) -> None:
    folder, out = tmp_path / "whisper", tmp_path / "out"
    (folder / "parts").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"1")
    run(five[:2], out, Naming(folder))
    if changed is not None:
        (folder / changed).write_bytes(b"22")
    results = run(five[:2], out, Naming(folder))
    done_again = [result for result in results if result.outcome is not None]
    assert len(done_again) == (0 if changed is None else 2)
    assert all("another model" in result.note for result in done_again)


@pytest.mark.parametrize(
    ("change", "again", "note"),
    [
        (another_file, 1, "another file"),
        (another_setting, 2, "other settings"),
        (lost_marker, 1, ""),
        (deleted, 1, "r0.json, r0.txt, r0.srt is not there"),
        (nothing, 0, ""),
    ],
)
def test_what_is_done_again(
    five: list[Path], tmp_path: Path, change: Change, again: int, note: str
) -> None:
    out = tmp_path / "out"
    run(five[:2], out)
    results = run(five[:2], out, **change(five, out))
    done_again = [result for result in results if result.outcome is not None]
    assert len(done_again) == again
    assert all(note in result.note and bool(note) == bool(result.note) for result in done_again)


def test_files_that_lack_are_written_from_what_is_there(five: list[Path], tmp_path: Path) -> None:
    """Another format takes no model; a file that somebody corrected stays."""
    out, engine = tmp_path / "out", ScriptedEngine(play, PROFILE)
    run(five[:1], out, formats=["json", "txt"])
    (out / "r0.txt").write_text("corrected\n")
    [result] = run(five[:1], out, engine, formats=["txt", "srt"])
    assert engine.requests == [] and result.outcome is None
    assert [path.name for path in result.files] == ["r0.srt"]
    assert "r0.txt changed after it was written" in result.note
    assert (out / "r0.txt").read_text() == "corrected\n"
    run(five[:1], tmp_path / "whole")
    assert (out / "r0.srt").read_bytes() == (tmp_path / "whole" / "r0.srt").read_bytes()


def test_formats_without_json_can_be_followed_by_others(five: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(five[:1], out, formats=["srt"])
    [result] = run(five[:1], out, formats=["txt"])
    assert isinstance(result.outcome, Transcript) and (out / "r0.txt").exists()
    assert "nor r0.json to make it from" in result.note


def test_a_file_that_was_changed_by_hand_is_kept_beside(five: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(five[:1], out)
    for number, text in enumerate(("corrected\n", "corrected again\n"), start=1):
        (out / "r0.txt").write_text(text)
        [result] = run(five[:1], out, channel=0 if number == 1 else None)
        assert isinstance(result.outcome, Transcript)
        assert f"kept as r0.edited-{number}.txt" in result.note
        assert (out / f"r0.edited-{number}.txt").read_text() == text
    assert read(out / "r0.json")[0].recording == "r0"


def test_another_recording_of_the_same_name_is_refused(five: list[Path], tmp_path: Path) -> None:
    """The loop `for f in */a.wav` would leave one transcript of many."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere" / five[0].name
    run(five[:1], out)
    before = (out / "r0.txt").read_bytes()
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(five[1].read_bytes())
    [result] = run([elsewhere], out)
    assert isinstance(result.outcome, Failure) and str(five[0]) in str(result.outcome.error)
    assert (out / "r0.txt").read_bytes() == before
    five[0].unlink()  # moved, and changed: it is the same recording to all appearance
    [result] = run([elsewhere], out)
    assert isinstance(result.outcome, Transcript)


def test_a_foreign_file_of_the_name_is_replaced(five: list[Path], tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    (out / "r0.json").write_text("{}")
    run(five[:1], out)
    assert read(out / "r0.json")[0].recording == "r0"


def test_a_journal_of_other_settings_is_begun_again(five: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run(five[:1], out, Mortal(5), batch=1)
    assert list(out.glob(f"{STATE}/*.journal"))
    [result] = run(five[:1], out, channel=0)
    assert "begun again: what was kept of it is about another settings" in result.note
    assert isinstance(result.outcome, Transcript)


def test_every_note_on_a_recording_is_kept(five: list[Path], tmp_path: Path) -> None:
    class Failing(ScriptedEngine):
        def ask(self, requests: Sequence[Request]) -> list[Reply]:
            return [Reply("", error="HTTP 500: boom", stop=Stop.SERVER) for _ in requests]

    run(five[:1], tmp_path / "out")
    [result] = run(five[:1], tmp_path / "out", Failing([], PROFILE), channel=0)
    assert result.partial
    assert "transcribed again: its transcript is of other settings; not all of it" in result.note


def test_one_process_at_a_time(five: list[Path], tmp_path: Path) -> None:
    transcriber = Transcriber(ScriptedEngine(play, PROFILE), detect=None)
    kept_out = pytest.raises(OutputError, match="another process")
    with Batch(transcriber, tmp_path / "out", FORMATS), kept_out:
        run(five, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing came of it, and nothing is left"


def test_two_recordings_of_one_name(five: list[Path], tmp_path: Path) -> None:
    transcriber = Transcriber(ScriptedEngine(play, PROFILE), detect=None)
    refused = pytest.raises(SettingsError, match="rename one")
    with Batch(transcriber, tmp_path / "out", FORMATS) as many, refused:
        list(many.run([Item(five[0], "a:b"), Item(five[1], "a_b")]))


# Rounds


def test_one_that_fails_takes_nobody_with_it(five: list[Path], tmp_path: Path) -> None:
    """At its opening, in the middle, and where its journal cannot be written."""
    out = tmp_path / "out"
    five[0].write_text("no audio")
    broken = noise(14.0)
    broken[-5] = np.nan
    save(five[2], broken, subtype="FLOAT")
    (out / STATE / "r3.journal").mkdir(parents=True)
    results = run(five, out, batch=3)
    failed = {r.item.title: r.outcome.error for r in results if isinstance(r.outcome, Failure)}
    assert set(failed) == {"r0", "r2", "r3"}
    assert isinstance(failed["r0"], AudioError) and isinstance(failed["r3"], OutputError)
    assert [result.item.title for result in results] == [path.stem for path in five]
    assert {path.stem for path in out.glob("*.json")} == {"r1", "r4"}


def test_an_engine_that_fails_ends_the_run_and_keeps_the_journals(
    five: list[Path], tmp_path: Path
) -> None:
    calls = [0]

    def fail(request: Request) -> str:
        calls[0] += 1
        if calls[0] > 8:
            raise EngineError("out of memory")
        return play(request)

    with pytest.raises(EngineError, match="out of memory"):
        run(five, tmp_path / "out", ScriptedEngine(fail, PROFILE))
    assert list((tmp_path / "out" / STATE).glob("*.journal"))


@pytest.mark.no_cover
@pytest.mark.parametrize("share_s", [8.0, 9.7, 16.0])
def test_in_shares_it_ends_with_the_same_files(
    tmp_path: Path, share_s: float, monkeypatch: Any
) -> None:
    """A long recording, its shares in any order, each killed and done again, some of them lost. It is read
    once more only where one was lost, and what is to be said of the file is said. Joining it, which dies once, goes
    on."""
    rng = np.random.default_rng(3)
    loud = 0.05 * noise(41.0) * np.repeat(rng.uniform(0, 1, 82) < 0.7, 8000)
    item = Item(save(tmp_path / "long.wav", loud))
    run([item.path], tmp_path / "whole", detect="energy")
    [whole] = read(tmp_path / "whole" / "long.json")
    assert len(whole.segments) > 10 and len(whole.traces) > 10
    assert "it is quiet" in whole.warnings[0]
    parts = shares(41.0, share_s)
    assert len(parts) == int(41 // share_s)

    def begin(engine: ScriptedEngine, out: Path) -> Batch:
        return Batch(Transcriber(engine, batch=2, detect="energy"), out, FORMATS)

    last = len(parts) - 1
    for lost in sorted({(), (0,), (last,), (0, last), (last // 2,)}):
        out = tmp_path / f"shares-{lost}"
        for part in reversed(parts):
            if part.number in lost:
                continue
            with suppress(Killed), begin(Mortal(2), out) as many:
                many.share(item, part)
            engine = ScriptedEngine(play, PROFILE)
            with begin(engine, out) as many:
                assert many.share(item, part) is None
                asked = len(engine.requests)
                assert many.share(item, part) is None  # it is whole: nobody is asked
            assert len(engine.requests) == asked
        engine, opened = ScriptedEngine(play, PROFILE), list[Any]()
        with monkeypatch.context() as counted:
            counted.setattr(audio, "stream", _counted(audio.stream, opened))
            counted.setattr(Batch, "_keep", _die)
            with begin(engine, out) as many, pytest.raises(Killed):
                many.join(item, parts)
                [_] = many.run([item])
            counted.undo()
            counted.setattr(audio, "stream", _counted(audio.stream, opened))
            with begin(engine, out) as many:
                many.join(item, parts)
                [result] = many.run([item])
        assert isinstance(result.outcome, Transcript)
        assert bool(opened) == bool(engine.requests) == bool(lost)
        assert files(out) == files(tmp_path / "whole")


@pytest.mark.no_cover
@pytest.mark.parametrize("lost", [[0], [1], [0, 2], [1, 2], [3], [0, 1, 2, 3]])
@pytest.mark.parametrize("batch", [1, 3])
def test_only_missing_shares_are_transcribed_when_the_others_are_joined(
    tmp_path: Path, lost: list[int], batch: int
) -> None:
    """Nor is what a join that died had transcribed, chunks before the one under way."""
    item = Item(save(tmp_path / "long.wav", noise(41.0)))
    run([item.path], tmp_path / "whole")
    parts, out, needed = shares(41.0, 9.7), tmp_path / "out", 0

    def begin(engine: ScriptedEngine) -> Batch:
        return Batch(Transcriber(engine, batch=batch, detect=None), out, FORMATS)

    for part in parts:
        engine = ScriptedEngine(play, PROFILE)
        with begin(engine) as many:
            assert many.share(item, part) is None
        if part.number in lost:
            needed += len(engine.requests)
            [path] = (out / STATE).glob(f"*.share-{part.number}.whole")
            path.unlink()
    asked, left = 0, 2
    for _ in range(100):
        engine, left = Mortal(left), left + 1
        try:
            with begin(engine) as many:
                many.join(item, parts)
                [result] = many.run([item])
        except Killed:
            asked += len(engine.requests)
            continue
        asked += len(engine.requests)
        break
    kills = left - 3
    assert isinstance(result.outcome, Transcript) and kills
    assert needed <= asked <= needed + 3 * batch * kills
    assert files(out) == files(tmp_path / "whole")


def test_memory_holds_one_of_the_chunks_behind_a_missing_share(tmp_path: Path) -> None:
    """However many dialogues could be asked at once."""
    item = Item(save(tmp_path / "long.wav", noise(41.0)))
    parts = shares(41.0, 8.0)
    transcriber = Transcriber(ScriptedEngine(play, PROFILE), batch=8, detect=None)
    with Batch(transcriber, tmp_path / "out", FORMATS) as many:
        for part in parts[1:]:
            assert many.share(item, part) is None
        many.join(item, parts)
        about = many._about(item)
        [path] = (tmp_path / "out").rglob("*.journal")
        recording = transcriber.open(item.path, journal=Journal(path, about))
    assert isinstance(recording, RecordingState)
    dialogues = recording.dialogues(8)
    assert 2 <= len(dialogues) <= 3
    assert len(recording._open_chunks) == len(dialogues) + 1


def _counted(stream: Any, opened: list[Any]) -> Any:
    def count(*words: Any, **options: Any) -> Any:
        opened.append(words)
        return stream(*words, **options)

    return count


def _die(*_: Any, **__: Any) -> Any:
    raise Killed


def test_a_share_whose_end_died_is_joined(tmp_path: Path, monkeypatch: Any) -> None:
    """Killed between its last line and its move, it ends once more, and its journal has two last lines."""
    item = Item(save(tmp_path / "long.wav", noise(41.0)))
    parts = shares(41.0, 20.0)
    transcriber = Transcriber(ScriptedEngine(play, PROFILE), detect=None)
    with Batch(transcriber, tmp_path / "out", FORMATS) as many:
        with monkeypatch.context() as killed, pytest.raises(Killed):
            killed.setattr(Path, "replace", _die)
            many.share(item, parts[-1])
        [left] = (tmp_path / "out").rglob("*.journal")
        assert NOTICES in json.loads(left.read_text().splitlines()[-1])
        assert [many.share(item, part) for part in parts] == [None] * len(parts)
        many.join(item, parts)
        [result] = many.run([item])
    assert isinstance(result.outcome, Transcript)


def test_shares_with_any_text_are_joined(tmp_path: Path) -> None:
    """Also with what other programs take for the end of a line."""

    def odd(request: Request) -> str:
        return play(request).replace("one", "one\u2028more\u0085")

    item = Item(save(tmp_path / "long.wav", noise(41.0)))
    with Batch(
        Transcriber(ScriptedEngine(odd, PROFILE), detect=None), tmp_path / "out", FORMATS
    ) as many:
        parts = shares(41.0, 10.0)
        assert [many.share(item, part) for part in parts] == [None] * 4
        many.join(item, parts)
        [result] = many.run([item])
    assert isinstance(result.outcome, Transcript)
    assert "\u2028" in result.outcome.segments[0].text


def test_shares_of_another_recording_are_not_joined(tmp_path: Path) -> None:
    item = Item(save(tmp_path / "long.wav", noise(41.0)))
    parts = shares(41.0, 10.0)
    engine = ScriptedEngine(play, PROFILE)
    with Batch(Transcriber(engine, batch=2, detect=None), tmp_path / "out", FORMATS) as many:
        assert [many.share(item, part) for part in parts] == [None] * 4
        save(item.path, noise(41.0, 7))
        many.join(item, parts)
        before = len(engine.requests)
        [_] = many.run([item])
    assert len(engine.requests) == 2 * before


def test_engines_whose_chunks_wait_take_no_shares() -> None:
    engine = ScriptedEngine(play, PROFILE)
    assert Transcriber(engine, detect=None).splits(8.0)
    assert not Transcriber(engine, detect=None).splits(7.9)
    assert not Transcriber(engine, detect=None, channels="separate").splits(8.0)
    engine.in_order = True
    assert not Transcriber(engine, detect=None).splits(8.0)
