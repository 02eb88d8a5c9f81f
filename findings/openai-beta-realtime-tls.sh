#!/usr/bin/env bash
# openai 3.57.0 against a server on http://127.0.0.1: the guess is that both of its realtime clients open a plain
# socket, as base_url says. client.realtime does; client.beta.realtime speaks TLS to the same address, whatever the scheme, so
# that a local server sees a handshake (first byte 0x16) in place of "GET". websocket_base_url="ws://..." helps.
# Exits 0 while that is so. Takes pip, and PyPI for openai[realtime].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install 'openai[realtime]==3.57.0'
"$folder/venv/bin/python" -W ignore - <<'PY'
import socket
import threading

import openai

listening = socket.create_server(("127.0.0.1", 0))
first = []


def take() -> None:
    while True:
        connection, _ = listening.accept()
        first.append(connection.recv(3))
        connection.close()


threading.Thread(target=take, daemon=True).start()
client = openai.OpenAI(
    api_key="none", base_url=f"http://127.0.0.1:{listening.getsockname()[1]}/v1", max_retries=0
)
for realtime in (client.realtime, client.beta.realtime):
    try:
        realtime.connect(model="any").enter()
    except Exception:
        pass
print("openai", openai.__version__, "realtime:", first[0], "beta.realtime:", first[-1])
raise SystemExit(not (first[0] == b"GET" and first[-1][:1] == b"\x16"))
PY
