"""An S3 server on loopback (moto) that answers 503 to as many requests as the file `busy` beside it says.

python -m tests.s3_server PORT FOLDER
"""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """A server in a process of its own, and the environment in which an account's tools reach it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.s3_server", str(port), str(folder)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait(20)


def main(port: int, busy: Path) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    real = DomainDispatcherApplication(create_backend_app)

    def application(environment: Any, start: Any) -> Any:
        left = int(busy.read_text()) if busy.exists() else 0
        if left > 0:
            busy.write_text(str(left - 1))
            start("503 Slow Down", [("Content-Type", "text/plain")])
            return [b"busy"]
        return real(environment, start)

    run_simple("127.0.0.1", port, application, threaded=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]) / "busy")
