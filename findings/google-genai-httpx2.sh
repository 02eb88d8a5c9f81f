#!/usr/bin/env bash
# A connection that google-genai cannot open: the guess is httpx.ConnectError, as of earlier versions and of other clients
# of this kind. google-genai 3.6.1 raises httpx2.ConnectError, of a fork of httpx that it installs beside httpx, and that is
# no error of httpx: `except httpx.HTTPError` does not see it. Exits 0 while that is so. Takes pip, and PyPI for some 60 MB.
# Nothing else leaves the machine.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check install)
cat > "$folder/look.py" <<'PYTHON'
import socket

import httpx
from google import genai
from google.genai import types

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
client = genai.Client(
    api_key="none", http_options=types.HttpOptions(base_url=f"http://127.0.0.1:{port}", timeout=2000)
)
try:
    client.models.generate_content(model="gemini-x", contents="hello")
except Exception as error:
    kind = type(error)
    print(f"{kind.__module__}.{kind.__name__}, an httpx.HTTPError: {isinstance(error, httpx.HTTPError)}")
PYTHON
"${pip[@]}" google-genai==3.6.1 httpx==0.28.1
seen=$("$folder/venv/bin/python" -W ignore "$folder/look.py")
echo "google-genai 3.6.1, httpx 0.28.1 installed: $seen"
[ "$seen" = "httpx2.ConnectError, an httpx.HTTPError: False" ]
