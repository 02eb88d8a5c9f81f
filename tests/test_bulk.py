"""Many recordings from a source into a target: sources, names, shards, kills, tables, what is wrong with them."""

import csv
import gzip
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.bulk import target as targets
from speaker_reasoner.bulk.joining import Joining, with_breaks
from speaker_reasoner.bulk.listing import Listing, Shard, balanced, write_listing
from speaker_reasoner.bulk.rows import Row
from speaker_reasoner.bulk.runner import BatchSettings, Done, Runner
from speaker_reasoner.bulk.tables import write_tables
from speaker_reasoner.bulk.target import Target, standing
from speaker_reasoner.engines import Engine, Reply
from speaker_reasoner.engines.base import Stop
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import DataError, OutputError, SettingsError
from speaker_reasoner.formats import read, write
from speaker_reasoner.formats.folders import load
from speaker_reasoner.longform import Options
from speaker_reasoner.longform.journal import Journal, Tally
from speaker_reasoner.transcript import Confidence
from speaker_reasoner.voices.finished import FinishedChunk

from . import forked
from .conftest import noise
from .simulated import Simulated
from .talk import PROFILE, Killed, Mortal, save
from .test_batch import files as all_files

TABLES = ("transcripts.jsonl", "supervisions.jsonl.gz", "recordings", "segments")
OPTIONS = Options(batch=2)


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """Recordings in folders, two of one name, of 2 to 14 s."""
    folder = tmp_path / "calls"
    for name, length_s in (
        ("c", 9.0),
        ("a", 2.0),
        ("monday/x", 14.0),
        ("monday/y", 5.0),
        ("tuesday/x", 11.0),
        ("tuesday/z", 3.0),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        save(folder / f"{name}.wav", noise(length_s, len(name)))
    return folder


def run(
    source: Path | str,
    out: Path,
    engine: Callable[[], Engine] = Simulated,
    shard: Shard | None = None,
    tables: Sequence[str] = ("jsonl", "lhotse"),
    formats: Sequence[str] = ("json",),
    options: Options = OPTIONS,
) -> list[Done]:
    target, shard = Target(str(out)), shard or Shard()
    settings = BatchSettings(engine, options, str(out), None, tuple(formats))
    with target.admitted(str(source), shard) as (listing, _):
        done = list(Runner(settings).run(listing.shard(shard)))
        if shard.count == 1:
            write_tables(target, tables)
    return done


def with_speech(engine: ScriptedEngine) -> ScriptedEngine:
    """An engine whose detector takes everything for speech."""
    engine.detector = Simulated.detector.__get__(engine)  # type: ignore[method-assign]
    return engine


def table_bytes(out: Path) -> dict[str, bytes]:
    """The tables, byte for byte."""
    tables = {}
    for name in TABLES:
        place = out / name
        for path in sorted(place.rglob("*.parquet")) if place.is_dir() else [place]:
            if path.exists():
                tables[str(path.relative_to(out))] = path.read_bytes()
    return tables


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "transcripts.jsonl").read_text().splitlines()]


def listed(source: Path | str, tmp_path: Path) -> list[Row]:
    return list(write_listing(str(source), tmp_path / "listing.jsonl"))


def test_a_folder_in_its_order_with_names_of_their_own(six: Path, tmp_path: Path) -> None:
    save(six / ".hidden.wav", noise(1.0))
    (six / "notes.txt").write_text("no recording")
    rows = listed(six, tmp_path)
    assert [row.name for row in rows] == [
        "a",
        "c",
        "monday-x",
        "monday-y",
        "tuesday-x",
        "tuesday-z",
    ]
    assert [row.number for row in rows] == list(range(6))
    assert [row.duration_s for row in rows] == [2.0, 9.0, 14.0, 5.0, 11.0, 3.0]


def test_links_to_folders_are_followed_once(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that leads back; a folder that cannot be listed is a failure."""
    source = tmp_path / "source"
    (source / "own").mkdir(parents=True)
    save(source / "own/a.wav", noise(1.0))
    (source / "calls").symlink_to(six)
    (source / "same").symlink_to(six)
    (six / "back").symlink_to(source)
    names = [row.name for row in listed(source, tmp_path)]
    assert len(names) == 7 and {"own-a", "calls-a", "calls-monday-x"} <= set(names)
    really = os.scandir

    def scandir(place: Any) -> Any:
        if Path(place).name == "tuesday":
            raise PermissionError(13, "Permission denied", str(place))
        return really(place)

    monkeypatch.setattr(os, "scandir", scandir)
    rows = listed(six, tmp_path)
    [wrong] = [row for row in rows if row.fault]
    assert len(rows) == 6 and "tuesday: cannot be listed: Permission denied" in wrong.fault


def manifest(tmp_path: Path, *rows: object, name: str = "calls.jsonl") -> Path:
    path = tmp_path / name
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_what_could_not_be_transcribed_is_in_the_tables(six: Path, tmp_path: Path) -> None:
    run(six, tmp_path / "out", lambda: with_speech(ScriptedEngine(lambda _: "no turn", PROFILE)))
    for line in lines(tmp_path / "out"):
        assert line["segments"] == [] and line["missing"]
        seconds = sum(gap["end"] - gap["start"] for gap in line["missing"])
        assert 0.9 * line["duration"] < seconds <= line["duration"]
        assert all("malformed" in gap["reason"] for gap in line["missing"])


def test_manifests_of_nemo(six: Path, tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"audio_filepath": "calls/monday/x.wav", "duration": 14.0, "text": "unused"},
        {"audio_filepath": str(six / "tuesday/x.wav"), "duration": 3.0, "offset": 2.5},
        {"audio_filepath": "calls/a.wav", "name": "first"},
    )
    rows = listed(path, tmp_path)
    assert [row.fault for row in rows] == [""] * 3
    assert [row.name for row in rows] == ["monday-x", "tuesday-x-2.500", "first"]
    run(path, tmp_path / "out")
    first, second, third = lines(tmp_path / "out")
    assert (first["duration"], second["duration"], third["duration"]) == (14.0, 3.0, 2.0)
    assert second["offset"] == 2.5 and "offset" not in first
    assert first["audio_filepath"] == str(six / "monday/x.wav")


def test_manifests_of_lhotse_are_what_lhotse_writes(six: Path, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recordings = lhotse.RecordingSet.from_recordings(
        lhotse.Recording.from_file(path, recording_id=f"r{i}")
        for i, path in enumerate(sorted(six.rglob("*.wav")))
    )
    recordings.to_file(tmp_path / "recordings.jsonl.gz")
    rows = listed(tmp_path / "recordings.jsonl.gz", tmp_path)
    assert [(row.name, row.recording) for row in rows] == [(f"r{i}", f"r{i}") for i in range(6)]
    cuts = lhotse.CutSet.from_manifests(recordings=recordings).cut_into_windows(4.0)
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    run(tmp_path / "cuts.jsonl.gz", tmp_path / "out")
    rows = list(Target(str(tmp_path / "out")).listing)
    assert not any(row.fault for row in rows) and len(rows) == len(list(cuts))
    read = lhotse.SupervisionSet.from_file(tmp_path / "out/supervisions.jsonl.gz")
    said = list(read)
    assert {one.recording_id for one in said} == {f"r{i}" for i in range(6)}
    assert {one.gender for one in said} == {"female", "male"}
    ends = {
        one.recording_id: max(s.end for s in said if s.recording_id == one.recording_id)
        for one in said
    }
    for recording in recordings:  # times are those of the recording
        assert ends[recording.id] == pytest.approx(recording.duration, abs=0.11)
    cut = lhotse.CutSet.from_manifests(recordings=recordings, supervisions=read)
    lhotse.validate(cut)


def test_tables_of_csv(six: Path, tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "Path", "duration"])
        writer.writerow(["one, two", "calls/a.wav", "2.0"])
        writer.writerow(["three", "calls/c.wav", ""])
        file.write("cut,off\n")
    rows = listed(path, tmp_path)
    assert [row.name for row in rows] == ["one, two", "three", "row-2"]
    assert "calls.csv:4: expected 3 columns, got 2" in rows[2].fault
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="expected a header with one of audio_filepath"):
        listed(path, tmp_path)


FAULTS = [
    ('{"audio_filepath": "calls/a.wav", "dura', "no JSON"),
    ("[1]", "expected an object"),
    ("{}", "an empty object"),
    ('{"audio_filepath": 7}', "audio_filepath as a path"),
    (
        '{"audio_filepath": "calls/a.wav", "offset": -1, "duration": 1}',
        "expected offset in seconds",
    ),
    ('{"audio_filepath": "calls/a.wav", "offset": 1}', "an offset without a duration"),
    ('{"audio_filepath": "calls/a.wav", "duration": NaN}', "expected duration in seconds"),
    ('{"audio_filepath": "calls/a.wav", "duration": 0}', "expected duration in seconds"),
    ('{"audio_filepath": "calls/a.wav", "name": true}', "a name as text"),
    ('{"id": "x", "tracks": []}', "a mixed cut"),
    ('{"id": "x", "sources": []}', "in one file, got 0"),
    ('{"id": "x", "sources": [{"type": "command", "source": "ls"}]}', "of type file or url"),
    ('{"id": "x", "start": 0, "duration": 1}', "without a recording"),
    (
        '{"id": "x", "start": 0, "duration": 1, "channel": [0, 2], "recording": {"id": "r", "channel_ids": [0, 1, 2], '
        '"sources": [{"type": "file", "source": "calls/a.wav"}]}}',
        "a cut of 2 of 3 channels",
    ),
]


@pytest.mark.parametrize(("line", "message"), FAULTS)
def test_a_wrong_line_is_a_failure_and_the_others_are_transcribed(
    six: Path, tmp_path: Path, line: str, message: str
) -> None:
    path = manifest(
        tmp_path, {"audio_filepath": "calls/a.wav"}, line, {"audio_filepath": "calls/c.wav"}
    )
    done = run(path, tmp_path / "out")
    assert [one.state for one in sorted(done, key=lambda one: one.number)] == [
        "done",
        "failed",
        "done",
    ]
    first, second, third = lines(tmp_path / "out")
    assert "text" in first and "text" in third
    assert message in second["error"]["message"] and f"{path}:2" in second["error"]["message"]


def test_a_manifest_that_was_not_written_to_the_end(six: Path, tmp_path: Path) -> None:
    rows = [{"audio_filepath": f"calls/{name}.wav"} for name in ("a", "c", "monday/y")]
    path = manifest(tmp_path, *rows, *rows, name="calls.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-12])
    listing = listed(path, tmp_path)
    assert "not a whole gzip file" in listing[-1].fault
    assert {row.name for row in listing if not row.fault} <= {"a", "c", "y"}
    path = manifest(tmp_path, rows[0])
    path.write_bytes(path.read_bytes() + b'{"audio_filepath": "caf\xe9.wav"}\n')
    assert "no UTF-8" in listed(path, tmp_path)[1].fault


def test_sources_that_are_none(tmp_path: Path) -> None:
    for source, message in (
        (tmp_path / "missing", "no such file or folder"),
        (tmp_path, "holds no recordings"),
        (manifest(tmp_path, name="empty.jsonl"), "holds no recordings"),
        (
            save(tmp_path / "x.wav", noise(1.0)).rename(tmp_path / "x.xyz"),
            "expected a folder, a recording",
        ),
    ):
        with pytest.raises(DataError, match=message):
            listed(source, tmp_path / "..")


def test_the_same_twice_is_transcribed_once(six: Path, tmp_path: Path) -> None:
    save(six / "a.flac", noise(2.0))
    path = manifest(
        tmp_path,
        {"audio_filepath": "calls/c.wav"},
        {"audio_filepath": "calls/c.wav"},
        {"audio_filepath": "calls/a.wav"},
        {"audio_filepath": "calls/a.flac"},
        {"audio_filepath": "calls/monday/y.wav", "name": "C"},
    )
    faults = [row.fault for row in listed(path, tmp_path)]
    assert faults[0] == faults[2] == ""
    assert "row 0 is the same" in faults[1]
    assert "named 'a', as row 2 is" in faults[3] and "named 'C', as row 0 is" in faults[4]
    assert [one.state for one in run(path, tmp_path / "out")].count("done") == 2


def test_a_file_that_vanishes_or_is_broken_is_a_failure_until_it_is_there(
    six: Path, tmp_path: Path
) -> None:
    path = manifest(
        tmp_path, *({"audio_filepath": f"calls/{n}.wav"} for n in ("a", "c", "monday/x"))
    )
    (six / "c.wav").rename(tmp_path / "elsewhere")
    (six / "monday/x.wav").write_bytes(b"RIFFjunk")
    out = tmp_path / "out"
    run(path, out)
    kinds = [line.get("error", {}).get("kind") for line in lines(out)]
    assert kinds == [None, "AudioError", "AudioError"]
    (tmp_path / "elsewhere").rename(six / "c.wav")
    assert {one.name: one.state for one in run(path, out)} == {
        "a": "before",
        "c": "done",
        "x": "failed",
    }
    kinds = [line.get("error", {}).get("kind") for line in lines(out)]
    assert kinds == [None, None, "AudioError"]
    assert standing(Target(str(out))).faults == {"AudioError": 1}


def test_a_recording_that_is_deleted_when_it_is_done_keeps_its_transcript(
    six: Path, tmp_path: Path
) -> None:
    """Whole or a stretch, unless it would have to be transcribed again."""
    rows = [
        {"audio_filepath": "calls/a.wav"},
        {"audio_filepath": "calls/c.wav", "duration": 9.04},
        {"audio_filepath": "calls/monday/x.wav", "offset": 2.5, "duration": 3.0},
    ]
    path, out = manifest(tmp_path, *rows), tmp_path / "out"
    run(path, out)
    expected = lines(out)
    for name in ("a", "c", "monday/x"):
        (six / f"{name}.wav").unlink()
    done = run(path, out)
    assert {one.state for one in done} == {"before"}
    assert all("is not there any more; its transcript is kept" in one.note for one in done)
    assert lines(out) == [{**line} for line in expected]
    assert {one.state for one in run(path, out, options=Options(batch=2, speakers=(2, 2)))} == {
        "failed"
    }
    run(path, out)
    rows[0]["name"] = "new"
    rows[1]["duration"] = 5.0
    rows[2]["offset"] = 2.6
    done = run(manifest(tmp_path, *rows), out)
    assert {one.state for one in done} == {"failed"}
    save(six / "a.wav", noise(2.5))
    (six / "c.wav").mkdir()
    states = {one.name: one.state for one in run(path, out)}
    assert states["new"] == "done" and states["c"] == "failed"


def test_a_recording_shorter_than_its_manifest_says_fails(six: Path, tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"audio_filepath": "calls/a.wav", "duration": 60.0},
        {"audio_filepath": "calls/c.wav", "duration": 9.04},
    )
    run(path, tmp_path / "out")
    first, second = lines(tmp_path / "out")
    assert "ends after 2.000 s, expected 60.000 s" in first["error"]["message"]
    assert second["duration"] == 9.0


@pytest.mark.no_cover
def test_killed_at_any_round_it_ends_with_the_same_bytes(six: Path, tmp_path: Path) -> None:
    whole = Mortal(10**6)
    run(six, tmp_path / "whole", lambda: with_speech(whole))
    expected, everything = table_bytes(tmp_path / "whole"), all_files(tmp_path / "whole")
    asked = 10**6 - whole.left
    assert len(expected) == 2 and asked > 10
    assert all(line["text"].startswith("one") for line in lines(tmp_path / "whole"))
    rng = random.Random(2)
    for at in range(asked):
        out = tmp_path / f"killed-{at}"
        with pytest.raises(Killed):
            run(six, out, lambda at=at: with_speech(Mortal(at)))
        with suppress(Killed):
            run(six, out, lambda: with_speech(Mortal(rng.randrange(asked))))
        run(six, out)
        assert table_bytes(out) == expected
        assert {k: v for k, v in all_files(out).items() if "locks" not in k} == {
            k: v for k, v in everything.items() if "locks" not in k
        }


def test_shards_together_are_the_whole(six: Path, tmp_path: Path) -> None:
    run(six, tmp_path / "whole")
    for count in (2, 3, 8):
        out, seen = tmp_path / f"shards-{count}", []
        for number in random.Random(count).sample(range(1, count + 1), count):
            refusal = "not transcribed yet" if seen else "no run of `batch` was begun here"
            with pytest.raises(SettingsError, match=refusal):
                write_tables(Target(str(out)), ["jsonl"])
            seen += [one.number for one in run(six, out, shard=Shard(number, count))]
        assert sorted(seen) == list(range(6))
        again = run(six, out, shard=Shard(1, count))
        assert {one.state for one in again} <= {"before"}
        write_tables(Target(str(out)), ["jsonl", "lhotse"])
        assert table_bytes(out) == table_bytes(tmp_path / "whole")


def test_shards_are_balanced_and_depend_on_weights_alone() -> None:
    rng = np.random.default_rng(0)
    weights = rng.exponential(60.0, 2000)
    weights[7] = 36_000.0
    chosen = balanced(weights, 8)
    loads = np.bincount(chosen, weights, minlength=8)
    others = np.delete(loads, chosen[7])
    assert others.max() - others.min() < 1.0
    assert np.array_equal(chosen, balanced(weights.copy(), 8))
    assert np.bincount(balanced(np.zeros(80), 8)).tolist() == [10] * 8
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(SettingsError, match="expected I/N"):
            Shard.parse(text)


def test_a_shard_given_twice_or_another_division_is_refused_while_one_runs(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with Target(str(out)).admitted(str(six), Shard(1, 2)):
        for shard, message in (
            (Shard(1, 2), "another process transcribes shard 1/2"),
            (Shard(), "works on shard-1-of-2"),
            (Shard(1, 3), "works on shard-1-of-2"),
        ):
            with pytest.raises(OutputError, match=message):
                run(six, out, shard=shard)
        run(six, out, shard=Shard(2, 2))
        save(six / "new.wav", noise(1.0))
        with pytest.raises(SettingsError, match="has changed since other processes began"):
            run(six, out, shard=Shard(2, 2))
    assert len(run(six, out)) == 7  # nobody else: the new listing counts
    with Target(str(out)).admitted(str(six), Shard(2, 2)):
        worker = Target(str(out)).worker_lock(Shard(1, 2), "abc")
        monkeypatch.setattr(targets, "_WORKERS_WAIT_S", 0.1)
        with pytest.raises(OutputError, match="works on worker-1-of-2-abc"):
            run(six, out, shard=Shard(1, 2))
        worker.release()
        run(six, out, shard=Shard(1, 2))


def test_files_that_change_or_vanish_while_a_shard_runs_do_not_stop_the_others(
    six: Path, tmp_path: Path
) -> None:
    path = manifest(tmp_path, *({"audio_filepath": str(p)} for p in sorted(six.rglob("*.wav"))))
    for source, out in ((six, tmp_path / "one"), (path, tmp_path / "other")):
        with Target(str(out)).admitted(str(source), Shard(1, 2)) as (listing, _):
            before = list(listing)
            save(six / "c.wav", noise(30.0))
            (six / "monday/y.wav").rename(tmp_path / "away")
            with Target(str(out)).admitted(str(source), Shard(2, 2)) as (listing, note):
                assert "have changed, or are gone" in note and list(listing) == before
        (tmp_path / "away").rename(six / "monday/y.wav")
        save(six / "c.wav", noise(9.0))
    (six / "monday/y.wav").unlink()
    states = {one.name: one.state for n in (1, 2) for one in run(path, out, shard=Shard(n, 2))}
    assert len(states) == 6 and [name for name, state in states.items() if state != "done"] == ["y"]


def test_durations_of_unchanged_files_are_not_read_again(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first.jsonl"
    rows = list(write_listing(str(six), first))
    monkeypatch.setattr("speaker_reasoner.bulk.listing.probe", None)
    assert list(write_listing(str(six), tmp_path / "second.jsonl", first)) == rows
    first.write_text("junk\n")
    with pytest.raises(DataError, match="no listing that can be read"):
        list(Listing(first))


def test_half_written_files_are_removed_where_nobody_else_writes(six: Path, tmp_path: Path) -> None:
    target = Target(str(tmp_path / "out"))
    target.state.mkdir(parents=True)
    half = [place / f".{'0' * 16}.tmp" for place in (target.transcripts, target.state)]
    with target.admitted(str(six), Shard(1, 2)):
        for path in half:
            path.touch()
        run(six, tmp_path / "out", shard=Shard(2, 2))
        assert all(path.exists() for path in half)
    run(six, tmp_path / "out")
    assert not any(path.exists() for path in half)


def test_a_full_target_stops_the_run_and_nothing_is_lost(
    six: Path, tmp_path: Path, file_size_limit: Any
) -> None:
    out = tmp_path / "out"
    with file_size_limit(2500), pytest.raises(OutputError, match="File too large"):
        run(six, out)
    assert standing(Target(str(out))).outstanding
    assert not list(out.rglob("*.tmp"))
    run(six, tmp_path / "whole")
    run(six, out)
    assert table_bytes(out) == table_bytes(tmp_path / "whole")


def test_parquet_has_types_and_a_row_for_each(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (six / "broken.wav").write_bytes(b"")
    monkeypatch.setattr("speaker_reasoner.bulk.tables.PART", 4)
    out = tmp_path / "out"
    run(six, out, tables=["jsonl", "parquet"])
    assert len(list((out / "recordings").iterdir())) == len(list((out / "segments").iterdir())) == 2
    rows = parquet.read_table(out / "recordings").to_pylist()
    assert [row["name"] for row in rows] == [line["name"] for line in lines(out)]
    assert [row["error_kind"] for row in rows].count("AudioError") == 1
    segments = parquet.read_table(out / "segments")
    assert str(segments.schema.field("speaker").type) == "string"
    expected = [
        (line["name"], one["start"], one["end"], one["speaker"], one["text"])
        for line in lines(out)
        for one in line.get("segments", ())
    ]
    assert [
        tuple(row[key] for key in ("name", "start", "end", "speaker", "text"))
        for row in segments.to_pylist()
    ] == expected
    before = table_bytes(out)
    write_tables(Target(str(out)), ["parquet"])
    assert table_bytes(out) == before
    for path in (out / "recordings").iterdir():
        path.unlink()
    run(six, out, tables=["parquet"])
    assert table_bytes(out) == before


def test_confidences_are_rounded(six: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(six, out)
    [transcript] = read(out / "transcripts" / "c.json")
    segments = [replace(s, confidence=Confidence(words=0.12345)) for s in transcript.segments]
    write(replace(transcript, segments=tuple(segments)), out / "transcripts", ["json"])
    write_tables(Target(str(out)), ["jsonl"])
    [line] = [line for line in lines(out) if line["name"] == "c"]
    assert {one["confidence"] for one in line["segments"]} == {0.123}


def test_the_table_of_lines_is_read_for_evaluation(six: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(six, out)
    (six / "broken.wav").write_bytes(b"")
    run(six, out)
    transcripts = load(out / "transcripts.jsonl")
    written = load(out / "transcripts")
    assert transcripts.keys() == written.keys() and len(written) == 6
    for name, transcript in transcripts.items():
        said = [(s.speaker, s.start_s, s.end_s, s.text) for s in written[name].segments]
        assert [(s.speaker, s.start_s, s.end_s, s.text) for s in transcript.segments] == said


def test_a_server_that_fails_on_a_stretch_is_a_failure(six: Path, tmp_path: Path) -> None:
    class Away(ScriptedEngine):
        def ask(self, requests: Any) -> list[Reply]:
            return [Reply("", error="away", stop=Stop.SERVER) for _ in requests]

    done = run(six, tmp_path / "out", lambda: Away([], PROFILE))
    assert {one.state for one in done} == {"failed"}
    assert "could be transcribed (server)" in lines(tmp_path / "out")[0]["error"]["message"]
    assert {one.state for one in run(six, tmp_path / "out")} == {"done"}


def command(*words: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    told = ["tests.simulated", "batch", *map(str, words)]
    return forked.run(forked.BATCH, told, {**os.environ, **environment}, 300)


def test_the_command(six: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (six / "z-broken.wav").write_bytes(b"")
    done = command(six, "-o", out, "-f", "jsonl,txt", "--shard", "1/2")
    assert "when all 2 shards are done" in done.stderr and done.returncode in (0, 1)
    status = command("status", out)
    assert status.returncode == 1 and "outstanding" in status.stderr
    assert "not transcribed yet" in command("merge", out).stderr
    assert command("merge", out, "--partial").returncode == 0
    assert any("error" in line for line in lines(out))
    assert command(six, "-o", out, "-f", "jsonl,txt", "--shard", "2/2").stdout == ""
    merged = command("merge", out)
    assert merged.returncode == 0 and merged.stdout.strip() == str(out / "transcripts.jsonl")
    assert "6 of 7 recordings done (0.7 min of 0.7 min), 1 failed, 0 outstanding" in merged.stderr
    status = command("status", out)
    assert "6 of 7 recordings done" in status.stderr and "AudioError: 1" in status.stderr
    assert (out / "transcripts" / "monday-x.txt").exists()
    for words, message in (
        ([six], "add -o TARGET"),
        ([six, six, "-o", out], "expected one source"),
        (["status"], "takes one target"),
        ([six, "-o", out, "-f", "jsn"], "unknown format"),
        ([six, "-o", out, "--shard", "3/2"], "expected I/N"),
        ([six, "-o", out, "--gpus-per-worker", "1"], "--gpus-per-worker needs --workers N"),
        ([six, "-o", out, "--share", "30"], "--share needs --workers N"),
        ([six, "-o", out, "--partial"], "belongs to batch merge"),
        (["merge", out, "-f", "srt"], "merge makes tables"),
    ):
        wrong = command(*words)
        assert wrong.returncode == 2 and message in wrong.stderr
    nowhere = command("status", tmp_path / "nowhere")
    assert nowhere.returncode == 1 and "no run of `batch` was begun here" in nowhere.stderr


def test_rows_are_what_they_were_written_as() -> None:
    def rows() -> Iterator[Row]:
        yield Row(0, "a", "b", "c")
        yield Row(1, "x\udcff", "n", "r", 1.5, 2.0, True, 1, 7, "v", "f\n")

    for row in rows():
        assert Row.from_line(row.to_line()) == row
        assert "\n" not in row.to_line()
    assert Row(0, "a", "b", "c", size=64_000).weight_s == 2.0
    assert Row(0, "a", "b", "c", duration_s=3.0, fault="f").weight_s == 0.0


def test_a_recording_that_stays_whole_is_reported_once(tmp_path: Path) -> None:
    class InOrder(Simulated):
        in_order = True

    for engine, states in ((Simulated, ["share", "share", "done"]), (InOrder, ["done"])):
        source = tmp_path / "long.wav"
        save(source, noise(120.0))
        out = tmp_path / engine.__name__
        target = Target(str(out))
        settings = BatchSettings(engine, OPTIONS, str(out), None, ("json",), share_s=60.0)
        with target.admitted(str(source), Shard()) as (listing, _):
            [row] = listing
            runner = Runner(settings)
            done, again = (
                [one for n in (0, 1) for one in runner.share(row, n)] + [*runner.join(row)]
                for _ in range(2)
            )
        assert [one.state for one in done] == states
        assert [one.state for one in again] == ["before"]
        assert sum(one.audio_s for one in done) == again[0].skipped_s == 120.0


def test_rows_by_their_numbers(tmp_path: Path) -> None:
    """As when they are read one after the other, whatever their names are made of."""
    source = tmp_path / "calls"
    source.mkdir()
    for name in ("a", "\u00fc\u2028x", "c d", "e"):
        save(source / f"{name}.wav", noise(0.1))
    (source / "e.wav").rename(source / os.fsdecode(b"\xff.wav"))
    listing = write_listing(str(source), tmp_path / "listing.jsonl")
    every = list(listing)
    assert len(every) == 4 and [row.number for row in every] == [0, 1, 2, 3]
    assert listing.rows([3, 0, 2]) == [every[3], every[0], every[2]] and listing.rows([]) == []
    with pytest.raises(DataError, match="no listing that can be read"):
        listing.rows([4])


@contextmanager
def second_share_given_up(
    folder: Path, seconds: float
) -> Iterator[tuple[Target, BatchSettings, Runner, Row]]:
    """A run over one recording in shares of a minute, on whose second one five workers died."""
    source, out = folder / "long.wav", folder / "out"
    save(source, noise(seconds))
    target = Target(str(out))
    settings = BatchSettings(Simulated, OPTIONS, str(out), None, ("json",), share_s=60.0)
    with target.admitted(str(source), Shard()) as (listing, _):
        [row] = listing
        runner = Runner(settings)
        for _ in range(5):
            runner._trial(row, "share-1.journal").begin()
        yield target, settings, runner, row


def test_shares_leave_no_files(tmp_path: Path) -> None:
    """Five workers died on one: the join transcribes it. What a death in the join left goes with the next one."""
    out = tmp_path / "out"
    with second_share_given_up(tmp_path, 120.0) as (_, _, runner, row):
        done = [one for n in (0, 1) for one in runner.share(row, n)] + [*runner.join(row)]
        assert [one.state for one in done] == ["share", "done"]
        assert not list(out.rglob("*.share-*"))
        trial = runner._trial(row, "share-1.journal")
        trial.begin()
        trial.journal.touch()
        trial.journal.with_suffix(".whole").touch()
        assert [one.state for one in runner.join(row)] == ["before"]
    assert not list(out.rglob("*.share-*"))


def test_a_join_that_transcribes_tells_how_far_it_is(tmp_path: Path) -> None:
    """Three shares, the second given up: the join transcribes that one alone."""
    with second_share_given_up(tmp_path, 180.0) as (target, settings, runner, row):
        shares = [one for n in (0, 1, 2) for one in runner.share(row, n)]
        joining = Joining(settings, target, [row])
        [begun] = joining.begin()
        assert begun.note == (
            "1 of 3 shares are missing; one worker transcribes their 60 s, of 180 s"
        )
        assert not list(joining.look())
        kept = Journal(runner._trial(row, "journal").journal, {})
        kept.add(FinishedChunk(0, 120 * 16_000))
        assert not list(joining.look()), "the shares"
        kept.add(FinishedChunk(120 * 16_000, 40 * 16_000))
        [seen] = joining.look()
        assert seen.audio_s == 40.0 and not list(joining.look())
        [later] = Joining(settings, target, [row]).begin()
        assert later.skipped_s == 40.0, "of a join that died"
        kept.remove()
        assert not list(joining.look())
        ended = [joining.ended(one) for one in runner.join(row)]
        assert [one.state for one in ended] == ["done"]
        told = [*shares, begun, seen, *ended]
        assert sum(one.audio_s + one.skipped_s for one in told) == 180.0
        assert not list(Joining(settings, target, [row]).begin()), "it is done"


def test_a_journal_is_counted_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    tally = Tally(path)
    assert tally.look() == 0
    Journal(path, {}).add(FinishedChunk(0, 5))
    assert [tally.look(), tally.look()] == [5, 5]
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1].splitlines()[-1])
    assert tally.look() == 5, "a line that is written in part"
    with path.open("ab") as file:
        file.write(b"\n")
    assert tally.look() == 10
    (tmp_path / "b").write_bytes(whole)
    (tmp_path / "b").replace(path)
    assert tally.look() == 5, "another file"
    path.write_bytes(b"junk\n")
    assert tally.look() == 5
    path.unlink()
    assert tally.look() == 5


def test_breaks_between_items() -> None:
    def slow() -> Iterator[int]:
        yield 1
        time.sleep(0.2)
        yield 2
        raise DataError("over")

    got = []
    with pytest.raises(DataError, match="over"):
        for one in with_breaks(slow, 0.05):
            got.append(one)
    assert got[0] == 1 and got[-1] == 2 and None in got[1:-1]
