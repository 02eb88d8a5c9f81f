"""Recordings as they are named: folders, patterns, equal names, standard input, addresses and their guards."""

import http.client
import io
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import BinaryIO

import pytest

from speaker_reasoner.commands import downloads, inputs
from speaker_reasoner.commands.downloads import download, is_address, resolve
from speaker_reasoner.errors import AudioError

SOUND = b"RIFF" + bytes(1000)


def titles(*names: str | Path) -> list[str]:
    with ExitStack() as stack:
        items, errors = inputs.recordings([str(n) for n in names], stack, limit_bytes=1 << 20)
        for error in errors:
            raise error
        return [item.title for item in items]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SOUND)


def test_a_folder_is_its_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "b.WAV", "a.mp3", "C.Flac", "notes.txt", ".hidden.wav", "below/d.wav")
    assert titles(tmp_path) == ["C", "a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="got a folder without recordings"):
        titles(tmp_path / "empty")


def test_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav", "c.mp3", "below/d.wav", "[x].wav")
    assert titles(tmp_path / "*.wav") == ["[x]", "a", "b"]
    assert titles(tmp_path / "**/d.*") == ["d"]
    assert titles(tmp_path / "[x].wav") == ["[x]"]  # such a file is there
    with pytest.raises(AudioError, match="matches no file"):
        titles(tmp_path / "*.ogg")
    assert titles(tmp_path / "a.wav", tmp_path / "*.wav") == ["a", "[x]", "b"]  # each once
    assert titles(tmp_path / "missing.wav") == ["missing"]  # said where it is opened


def test_equal_names_of_several_folders(tmp_path: Path) -> None:
    touch(tmp_path, "mon/call.wav", "tue/call.wav", "tue/other.wav", "wed/deep/Call.mp3")
    given = [tmp_path / "mon", tmp_path / "tue", tmp_path / "wed/deep/Call.mp3"]
    assert titles(*given) == ["mon-call", "tue-call", "other", "wed-deep-Call"]
    touch(tmp_path, "mon/call.mp3")
    assert titles(tmp_path / "mon") == ["call", "call"]  # one folder: whoever writes refuses them
    assert inputs.doubled(["call", "call", "x"]) == ("call", 2)
    assert inputs.doubled(["call", "x"]) is None


def test_standard_input_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(SOUND)

    monkeypatch.setattr(inputs.sys, "stdin", Stdin)
    with ExitStack() as stack:
        [item], [] = inputs.recordings(["-"], stack, limit_bytes=1)
        assert item.title == "stdin"
        assert item.path.read_bytes() == SOUND
        assert item.identity()["size"] == len(SOUND)
    assert not item.path.exists()


# Addresses


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.split("=", 1)[1])
            self.end_headers()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        if self.path == "/short":
            self.send_header("Content-Length", str(2 * len(SOUND)))
        elif self.path != "/endless":
            self.send_header("Content-Length", str(len(SOUND)))
        self.end_headers()
        self.wfile.write(SOUND)
        if self.path == "/endless":
            self.wfile.write(SOUND * 20)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def connect() -> Iterator[downloads.Connect]:
    """Opens plain connections to a server on this machine, whatever host is asked for."""
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield lambda host, port, number: http.client.HTTPConnection(
        "127.0.0.1", server.server_port, timeout=5
    )
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host names without a name server."""
    known = {
        "public.test": ["93.184.216.34"],
        "inner.test": ["10.0.0.7"],
        "both.test": ["93.184.216.34", "::1"],
    }
    known |= {"mapped.test": ["::ffff:192.168.1.1"], "local.test": ["fe80::1%eth0"]}

    really = downloads.socket.getaddrinfo

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host == "127.0.0.1":
            return really(host, port)  # type: ignore[return-value]
        if host not in known:
            raise OSError(-2, "Name or service not known")
        return [(2, 1, 6, "", (number, port)) for number in known[host]]

    monkeypatch.setattr(downloads.socket, "getaddrinfo", look_up)


def fetched(
    address: str, connect: downloads.Connect, limit: int = 10_000, private: bool = False
) -> bytes:
    target = io.BytesIO()
    download(address, target, limit_bytes=limit, private=private, connect=connect)
    return target.getvalue()


def test_an_address_is_fetched(connect: downloads.Connect) -> None:
    assert fetched("https://public.test/a.wav?x=1", connect) == SOUND
    assert fetched("https://public.test/moved?to=/a.wav", connect) == SOUND
    assert is_address("https://x/y") and is_address("ftp://x") and not is_address("a.wav")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://public.test/a.wav", "expected an https:// address"),
        ("file:///etc/hostname", "expected an https:// address"),
        ("https://inner.test/a.wav", r"lies in the local network \(10\.0\.0\.7\)"),
        ("https://both.test/a.wav", r"lies in the local network \(::1\)"),
        ("https://mapped.test/a.wav", "lies in the local network"),
        ("https://local.test/a.wav", "lies in the local network"),
        ("https://unknown.test/a.wav", "Name or service not known"),
        ("https://public.test:x/a.wav", "cannot be fetched"),
        ("https://public.test/missing", "answered 404"),
        ("https://public.test/short", "ended after|cannot be fetched"),
        ("https://public.test/moved?to=https://inner.test/a.wav", "lies in the local network"),
        ("https://public.test/moved?to=http://public.test/a.wav", "expected an https:// address"),
        (
            "https://public.test/moved?to=/moved?to=/moved?to=/moved?to=/moved?to=/moved?to=/a",
            "redirected over 5",
        ),
    ],
)
def test_what_is_not_fetched(address: str, message: str, connect: downloads.Connect) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        fetched(address, connect)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/a.wav", "/endless"])
def test_no_more_than_the_limit_is_fetched(path: str, connect: downloads.Connect) -> None:
    with pytest.raises(AudioError, match=r"expected at most 500; --max-download"):
        fetched(f"https://public.test{path}", connect, limit=500)


def test_private_addresses_may_be_allowed(connect: downloads.Connect) -> None:
    assert fetched("https://inner.test/a.wav", connect, private=True) == SOUND
    assert resolve("public.test", 443, private=False) == "93.184.216.34"


def test_an_address_names_its_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "download", lambda name, file, **_: file.write(SOUND))
    assert titles("https://public.test/calls/monday.mp3?token=1") == ["monday"]
    assert titles("https://public.test/") == ["public"]


def test_an_address_of_a_transcript_names_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its suffix, which tells the format, is kept."""
    asked: dict[str, object] = {}

    def fetch(name: str, file: BinaryIO, **limits: object) -> None:
        asked.update(limits, name=name)
        file.write(b"words")

    monkeypatch.setattr(inputs, "download", fetch)
    address = "https://example.org/ref/talk.seglst.json?key=1#a"
    with ExitStack() as stack:
        path = inputs.transcript(address, stack, limit_bytes=7)
        assert (path.name, path.read_bytes()) == ("talk.seglst.json", b"words")
        assert inputs.transcript("here/*.stm", stack, limit_bytes=7) == Path("here/*.stm")
    assert not path.exists()
    assert asked == {"name": address, "limit_bytes": 7, "private": False}
