"""Pieces in shards: the same batches as from recordings, wherever the shards lie, and what is wrong with them."""

import io
import json
import random
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
import torch

from speaker_reasoner.cli import main
from speaker_reasoner.data.corpora import load_pieces, shards
from speaker_reasoner.data.corpora.shards import AudioPlace, write_shards
from speaker_reasoner.errors import DataError
from speaker_reasoner.train.batches import Batcher
from speaker_reasoner.train.loop import StageTask, batches
from speaker_reasoner.train.prepared import PreparedCorpora
from speaker_reasoner.train.schedule import RunConfig, Schedule
from speaker_reasoner.train.streamed import list_pieces, read_piece, shuffled

from .conftest import noise
from .test_bulk_buckets import s3, server  # noqa: F401 - a fixture
from .test_train_corpora import batcher, drawn_names, make_config  # noqa: F401 - a fixture

STAGES = ("single_pass", "dialogues", "cached")


@pytest.fixture
def sharded(corpus: Path, tmp_path: Path) -> Path:
    """The shards of the corpus, several of them, away from its recordings."""
    split = tmp_path / "split"
    shutil.copytree(corpus, split)
    rows = sum(1 for _ in load_pieces(split / "pieces.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_MEGABYTE", 300_000)
        count = write_shards(split, 1)
    assert 2 < count < rows
    shutil.move(split / "shards", tmp_path / "shards")
    shutil.rmtree(split)
    return tmp_path / "shards"


def assert_same_batches(one: Any, other: Any, count: int) -> None:
    for stage in STAGES:
        for step in range(count):
            (mine, _), (theirs, _) = (source.draw(stage, step, 0) for source in (one, other))
            assert torch.equal(mine.ids, theirs.ids) and torch.equal(mine.labels, theirs.labels)
            assert torch.equal(mine.features, theirs.features)


def test_batches_of_shards_are_those_of_recordings(
    corpus: Path,
    sharded: Path,
    batcher: Batcher,  # noqa: F811
) -> None:
    config = make_config(corpus)
    assert_same_batches(
        PreparedCorpora(config, batcher),
        PreparedCorpora(config.on([str(sharded)]), batcher),
        6,
    )


def test_shards_are_webdatasets(sharded: Path) -> None:
    """Pairs of one stem, one after the other; the JSON says what the FLAC is."""
    rows = [json.loads(line) for line in (sharded / "pieces.jsonl").read_text().splitlines()]
    stored = []
    for path in sorted(sharded.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for sound, row in zip(members[::2], members[1::2], strict=True):
                assert sound.name.split(".") == [row.name.split(".")[0], "flac"]
                data = json.load(tar.extractfile(row))  # type: ignore[arg-type]
                read = soundfile.info(io.BytesIO(tar.extractfile(sound).read()))  # type: ignore[union-attr]
                assert read.frames == round(data["duration_s"] * 16000)
                stored.append(data)
    assert stored == [{k: v for k, v in row.items() if k != "shard"} for row in rows]


def test_processes_and_workers_share_shards_without_repeats(
    corpus: Path,
    sharded: Path,
    batcher: Batcher,  # noqa: F811
) -> None:
    """Two processes with two workers each, of which the run goes on at step 2: the batches of one process."""
    prepared = PreparedCorpora(make_config(corpus).on([str(sharded)]), batcher)
    task = StageTask(
        "cached", Schedule(4, 1e-3), lambda step, part: prepared.draw("cached", step, part)
    )

    def drawn(processes: int, first: int, workers: int) -> Iterator[torch.Tensor]:
        config = RunConfig(batches_per_step=2, workers=workers)
        ranks = [
            batches(task, first, config, SimpleNamespace(num_processes=processes, process_index=n))
            for n in range(processes)
        ]
        for step in zip(*ranks, strict=True):
            for rows in step:
                yield from (batch.features for batch, _ in rows)

    alone = list(drawn(1, 0, 0))
    both = [*list(drawn(1, 0, 0))[:4], *drawn(2, 2, 2)]
    assert len(alone) == len(both) == 8
    assert all(torch.equal(one, other) for one, other in zip(alone, both, strict=True))


def test_a_buffer_reads_few_shards_at_a_time(
    corpus: Path,
    sharded: Path,
    batcher: Batcher,  # noqa: F811
) -> None:
    pieces: Any = [SimpleNamespace(place=AudioPlace(f"{n // 10}", 1, 1)) for n in range(100)]
    orders = [shuffled(pieces, 5, random.Random(seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    for order in orders:
        assert sorted(order) == list(range(100))
        for drawn in range(1, 101):
            assert len({number // 10 for number in order[:drawn]}) <= (drawn + 4) // 10 + 1
    prepared = PreparedCorpora(make_config(corpus, buffer=2).on([str(sharded)]), batcher)
    total = len(prepared.train.used)
    names = [name for batch in drawn_names(prepared, "cached", 3 * total) for name in batch]
    assert {names.count(name) for name in names} == {6}


def _spoil(shards: Path, wrong: str) -> None:
    rows = [json.loads(line) for line in (shards / "pieces.jsonl").read_text().splitlines()]
    path = shards / rows[-1]["shard"]["file"]
    if wrong == "half":
        path.write_bytes(path.read_bytes()[: rows[-1]["shard"]["offset"] + 1000])
    elif wrong == "gone":
        path.unlink()
    elif wrong == "other":
        shutil.copyfile(shards / "pieces-00000.tar", path)
    elif wrong == "field":
        del rows[-1]["shard"]["offset"]
        (shards / "pieces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        file = io.BytesIO()
        rate, channels = {"rate": (8000, 1), "channels": (16000, 2), "length": (16000, 1)}[wrong]
        samples = noise(2.0)[:, None].repeat(channels, 1)
        soundfile.write(file, samples, rate, format="FLAC")
        member = tarfile.TarInfo("00000000.flac")
        member.size = len(file.getvalue())
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            tar.addfile(member, io.BytesIO(file.getvalue()))
        rows = [row for row in rows if row["shard"]["file"] != path.name] + [rows[-1]]
        rows[-1]["shard"] |= {"offset": 512, "bytes": member.size}
        (shards / "pieces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("half", "the shard is not whole"),
        ("gone", "No such file"),
        ("other", r"(is another shard than was indexed|not whole|no file of a tar file)"),
        ("field", r"pieces.jsonl:\d+: not a piece: KeyError\('offset'\); prepare it again"),
        ("rate", "has 8000 Hz and 1 channels, expected 16000 Hz and 1"),
        ("channels", "has 16000 Hz and 2 channels"),
        ("length", r"lasts 2.000 s, expected \d.\d+ s"),
    ],
)
def test_shards_with_faults_stop_a_run_before_it_begins(
    corpus: Path,
    sharded: Path,
    batcher: Batcher,  # noqa: F811
    wrong: str,
    message: str,
) -> None:
    _spoil(sharded, wrong)
    with pytest.raises(DataError, match=message):
        PreparedCorpora(make_config(corpus).on([str(sharded)]), batcher)


def test_prepare_writes_shards_that_train_reads(tmp_path: Path, corpus: Path) -> None:
    root = tmp_path / "calls"
    root.mkdir()
    soundfile.write(root / "a.wav", noise(12.0), 8_000)  # 24 s, resampled
    (root / "a.stm").write_text("a 1 x-F 1.0 3.0 one\na 1 y-M 8.0 11.0 two\n")
    out = tmp_path / "out"
    words = ["prepare", "folder", str(root), "-o", str(out), "--pieces", "4-6", "--shards", "1"]
    assert main([*words, "--gender-from", "suffix"]) == 0
    pieces = list(list_pieces(str(out / "all" / "shards")))
    assert [replace(piece, place=None, audio=Path()) for piece in pieces] == [
        replace(piece, audio=Path()) for piece in load_pieces(out / "all" / "pieces.jsonl")
    ]
    for piece in pieces:
        assert len(read_piece(piece)) == piece.end_samples - piece.start_samples
    assert not list(out.rglob("*.tmp"))
    assert (
        main([*words[:-2], "--gender-from", "suffix"]) == 0
    )  # shards of before are of other pieces
    assert not list((out / "all" / "shards").iterdir())


def test_data_is_of_corpora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "tiny", "--cpu", "-o", str(tmp_path), "--data", str(tmp_path)]
    assert main(words) == 1
    assert "trains on simulated meetings" in capsys.readouterr().err


def test_shards_in_a_bucket_that_is_busy(
    corpus: Path,
    sharded: Path,
    batcher: Batcher,  # noqa: F811
    server: dict[str, str],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same batches, without a copy, also in workers."""
    s3(server, "put", f"{sharded}/", "calls/shards/")
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "busy").write_text("2")
    config = make_config(corpus)
    far = PreparedCorpora(config.on(["s3://calls/shards"]), batcher)
    near = PreparedCorpora(config.on([str(sharded)]), batcher)
    assert_same_batches(near, far, 2)
    task = StageTask("cached", Schedule(3, 1e-3), lambda step, part: far.draw("cached", step, part))
    one = SimpleNamespace(num_processes=1, process_index=0)
    drawn = list(batches(task, 0, RunConfig(batches_per_step=2, workers=2), one))
    for step, rows in enumerate(drawn):
        for part, (batch, _) in enumerate(rows):
            assert torch.equal(batch.features, near.draw("cached", step, part)[0].features)
    with pytest.raises(DataError, match="s3://calls/nothing"):
        list(list_pieces("s3://calls/nothing"))
