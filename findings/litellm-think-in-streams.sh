#!/usr/bin/env bash
# A chat completion whose text begins with <think>...</think>, asked through litellm 1.110.2 of an OpenAI-compatible server:
# the guess is that the text is the same whether it is streamed or not. Not streamed, litellm takes the thought out of
# `content` and puts it into `reasoning_content`; streamed, it stays in the content, tags and all.
# Exits 0 while that is so. Takes pip, and PyPI for litellm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install litellm==1.110.2
LITELLM_LOCAL_MODEL_COST_MAP=True "$folder/venv/bin/python" -W ignore - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

import litellm

TEXT = "<think>two people</think>hello"
HEAD = {"id": "one", "created": 0, "model": "m"}


class Server(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked.get("stream"):
            kind, row = "text/event-stream", {"delta": {"role": "assistant", "content": TEXT}}
            chunk = {**HEAD, "object": "chat.completion.chunk", "choices": [{"index": 0, **row, "finish_reason": "stop"}]}
            body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        else:
            kind, row = "application/json", {"message": {"role": "assistant", "content": TEXT}}
            body = json.dumps({**HEAD, "object": "chat.completion", "choices": [{"index": 0, **row, "finish_reason": "stop"}]})
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
asked = {
    "model": "openai/m",
    "api_base": f"http://127.0.0.1:{server.server_port}/v1",
    "api_key": "none",
    "messages": [{"role": "user", "content": "hi"}],
}
message = litellm.completion(**asked).choices[0].message
whole = (message.content, getattr(message, "reasoning_content", None))
parts = [part.choices[0].delta for part in litellm.completion(**asked, stream=True)]
text = "".join(part.content or "" for part in parts)
thought = "".join(getattr(part, "reasoning_content", None) or "" for part in parts)
print("litellm", version("litellm"), "whole:", whole, "streamed:", (text, thought))
raise SystemExit(not (whole == ("hello", "two people") and (text, thought) == (TEXT, "")))
PY
