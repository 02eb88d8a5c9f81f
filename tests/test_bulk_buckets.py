"""Batch runs from and into a bucket: a real S3 client against a real S3 server on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from speaker_reasoner.bulk.buckets import ATTEMPTS, again
from speaker_reasoner.errors import DataError

from . import s3_server
from .conftest import noise
from .talk import save
from .test_bulk import command, lines, run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which an account's tools reach the server."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    with s3_server.running(tmp_path) as environment:
        yield environment


FILES = """
import sys, s3fs
files = s3fs.S3FileSystem(skip_instance_cache=True)
verb, here, there = sys.argv[1:]
if verb == "put":
    files.mkdir("calls")
    files.put(here, there, recursive=True)
else:
    files.get(there, here, recursive=True)
"""


def s3(environment: dict[str, str], *words: str) -> None:
    subprocess.run(
        [sys.executable, "-c", FILES, *words], env={**os.environ, **environment}, check=True
    )


def test_from_a_bucket_into_a_bucket_that_is_busy(tmp_path: Path, server: dict[str, str]) -> None:
    for name, length_s in (("a", 3.0), ("b", 9.0)):
        save(tmp_path / f"{name}.wav", noise(length_s))
        (tmp_path / "calls").mkdir(exist_ok=True)
        (tmp_path / f"{name}.wav").rename(tmp_path / "calls" / f"{name}.wav")
    (tmp_path / "calls" / "broken.wav").write_bytes(b"junk")
    s3(server, "put", f"{tmp_path}/calls/", "calls/in/")
    run(tmp_path / "calls", tmp_path / "whole")
    words = ("s3://calls/in", "-o", "s3://calls/out", "--work")
    (tmp_path / "busy").write_text("3")
    first = command(*words, tmp_path / "one", "--shard", "1/2", **server)
    assert (tmp_path / "busy").read_text() == "0"
    (tmp_path / "busy").write_text("3")
    second = command(*words, tmp_path / "two", "--shard", "2/2", **server)
    assert "Traceback" not in first.stderr + second.stderr
    assert not [path for path in tmp_path.rglob("fetched/*") if path.is_file()], "left behind"
    merged = command("merge", "s3://calls/out", "--work", tmp_path / "three", **server)
    assert merged.returncode == 0 and merged.stdout.strip() == "s3://calls/out/transcripts.jsonl"
    s3(server, "get", f"{tmp_path}/back/", "calls/out/")
    written, expected = lines(tmp_path / "back"), lines(tmp_path / "whole")
    assert [line["audio_filepath"] for line in written] == [
        f"s3://calls/in/{name}.wav" for name in ("a", "b", "broken")
    ]
    for one, other in zip(written, expected, strict=True):
        assert one.get("segments") == other.get("segments")
    assert written[2]["error"]["kind"] == "AudioError" and "one/" not in json.dumps(written[2])
    again_ = command(*words, tmp_path / "four", **server)  # another machine: all is done
    report = json.loads((tmp_path / "four" / "report.json").read_text())
    assert (report["done"], report["failed"], report["audio_s"]) == (2, 1, 0.0), again_.stderr


def test_what_is_refused_for_a_moment_is_tried_again_and_a_lost_file_is_not() -> None:
    waits: list[float] = []
    left = [3]

    def busy() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("503")
        return "done"

    assert again(busy, waits.append) == "done" and len(waits) == 3
    left[0] = 10**6
    with pytest.raises(OSError, match="503"):
        again(busy, waits.append)
    assert len(waits) == 3 + ATTEMPTS - 1

    def lost() -> str:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        again(lost, waits.append)
    assert len(waits) == 3 + ATTEMPTS - 1


def test_an_unknown_kind_of_bucket(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no kind of bucket that is known"):
        run("nowhere://x/y", tmp_path / "out")
