"""Behind nginx, as docs/server.md sets it up: under a path of its own, events passed on as they come."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from . import test_serve
from .serving import Gate, events_of, wait_until, wav

live = test_serve.live
__all__ = ["live"]

DOCS = Path(__file__).parents[1] / "docs/server.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[[int], str]]:
    """Start nginx before a server on a port; the address under which it shows it."""
    if NGINX is None:
        pytest.skip("no nginx")
    running: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            own = free.getsockname()[1]
        [block] = re.findall(r"```nginx\n(.*?)```", DOCS.read_text("utf-8"), re.S)
        block = block.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        temporary = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log;\nevents {{}}\n"
            f"http {{ access_log off;\n{temporary}"
            f"server {{ listen 127.0.0.1:{own};\n{block} }} }}\n"
        )
        words = [str(NGINX), "-e", str(tmp_path / "log"), "-c", str(tmp_path / "nginx.conf")]
        running.append(subprocess.Popen(words))
        url = f"http://127.0.0.1:{own}/transcripts"
        wait_until(lambda: _answers(url))
        return url

    yield start
    for one in running:
        one.terminate()
        one.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.HTTPError:
        return False


def test_behind_nginx(live: Any, nginx: Callable[[int], str]) -> None:
    gate = Gate()
    server = live(gate, api_key="secret", root_path="/transcripts")
    url, right = nginx(server.port), {"authorization": "Bearer secret"}
    page = httpx2.get(f"{url}/")
    assert page.status_code == 200 and "static/js/app.js" in page.text
    script = httpx2.get(f"{url}/static/js/app.js")
    assert script.status_code == 200 and script.headers["content-encoding"] == "gzip"
    schema = httpx2.get(f"{url}/openapi.json", headers=right).json()
    assert schema["servers"] == [{"url": "/transcripts"}]
    form = {"file": ("a.wav", wav(3.0))}
    elsewhere = httpx2.post(f"{url}/v1/jobs", files=form, headers={**right, "origin": "http://x.y"})
    assert elsewhere.status_code == 403
    own = {**right, "origin": url.removesuffix("/transcripts")}
    job = httpx2.post(f"{url}/v1/jobs", files=form, headers=own).json()
    assert gate.reached.wait(20)
    threading.Timer(1.0, gate.open.set).start()
    begun, first_s, text = time.monotonic(), None, ""
    with httpx2.stream("GET", f"{url}/v1/jobs/{job['id']}/events", headers=right) as stream:
        for piece in stream.iter_text():
            first_s = first_s or time.monotonic() - begun
            text += piece
    assert first_s is not None and first_s < 0.7, "the first event came before the last"
    assert events_of(text)[-1][2]["status"] == "done"
    peaks = httpx2.get(f"{url}/v1/jobs/{job['id']}/peaks", headers=right)
    part = httpx2.get(f"{url}/{peaks.headers['x-audio']}", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")


def test_a_socket_behind_nginx(live: Any, nginx: Callable[[int], str]) -> None:
    server = live(api_key="secret", root_path="/transcripts")
    url = f"ws{nginx(server.port).removeprefix('http')}/v1/realtime"
    protocols: Any = ["realtime", "openai-insecure-api-key.secret"]
    with connect(url, subprotocols=protocols) as socket:
        assert socket.subprotocol == "realtime"
        assert json.loads(socket.recv())["type"] == "session.created"
    with pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"
