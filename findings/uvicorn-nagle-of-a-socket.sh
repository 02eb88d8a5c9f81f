#!/usr/bin/env bash
# uvicorn on a listening socket that the program opened itself: the guess is that it answers as fast as on a port that uvicorn
# opens. Every small answer on a kept connection takes some 40 ms instead of 1: asyncio switches Nagle's algorithm off only for
# sockets that name IPPROTO_TCP, which socket.create_server leaves at 0 and uvicorn's own sockets do not, and a head and a body
# are two writes. Exits 0 while that is so. Takes Linux, pip, and PyPI for 1 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install uvicorn==0.54.0 h11==0.16.0
"$folder/venv/bin/python" - <<'PY'
import http.client
import socket
import sys
import threading
import time
from statistics import median

import uvicorn


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def answers(own_socket, protocol=0):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app, host="127.0.0.1", port=port, lifespan="off", log_level="error", http="h11")
    server, sockets = uvicorn.Server(config), None
    if own_socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
        one.bind(("127.0.0.1", port))
        one.listen()
        sockets = [one]
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    client, times = http.client.HTTPConnection("127.0.0.1", port), []
    for _ in range(21):
        begun = time.perf_counter()
        client.request("GET", "/")
        assert client.getresponse().read() == b"ok"
        times.append(1000 * (time.perf_counter() - begun))
    client.close()
    server.should_exit = True
    thread.join()
    return median(times)


own, named, uvicorns = answers(True), answers(True, socket.IPPROTO_TCP), answers(False)
print(f"Python {sys.version.split()[0]}, uvicorn {uvicorn.__version__}: an answer takes {own:.1f} ms on a socket of the")
print(f"program, {named:.1f} ms if that socket names IPPROTO_TCP, {uvicorns:.1f} ms on a port that uvicorn opens")
assert own > 30 > 10 > max(named, uvicorns)
PY
