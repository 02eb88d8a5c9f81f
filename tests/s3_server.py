"""An S3 server on loopback (moto) that answers 503 to as many requests as the file `busy` beside it says.

python -m tests.s3_server PORT FOLDER
"""

import sys
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def main(port: int, busy: Path) -> None:
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
