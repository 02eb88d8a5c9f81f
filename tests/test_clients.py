"""Clients that others wrote, against a server on a socket: LiteLLM, LangChain, OpenAI's for Node.

OpenAI's for Python is in `test_serve`. These are slow to load, and skipped where they are not installed.
"""

import asyncio
import base64
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from . import test_serve
from .conftest import noise
from .serving import wait_until, wav
from .talk import save

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
live = test_serve.live
__all__ = ["live"]

NODE = os.environ.get("SPEAKER_REASONER_NODE_MODULES", "")
"""A folder `node_modules` that has the packages openai and ws (npm install openai ws)."""


def test_litellm(live: Any, tmp_path: Path) -> None:
    """It asks for verbose_json by itself, and keeps of other keys only those of segments."""
    litellm = pytest.importorskip("litellm")
    server = live(aliases=(("whisper-1", ""),))
    path = save(tmp_path / "talk.wav", noise(3.0))
    asks = {"model": "openai/whisper-1", "api_base": f"{server.url}/v1", "api_key": "none"}
    with path.open("rb") as file:
        answer = litellm.transcription(file=file, prompt="Names: Ana", **asks)
    assert answer.text == "one two"
    segments = answer.segments
    assert [(s["speaker"], s["gender"]) for s in segments] == [("A", "female"), ("B", "male")]
    assert "prompt: without effect" in segments[0]["warnings"][0]
    for kind, said in (("json", "one two"), ("text", "one two"), ("srt", "A (female): one")):
        with path.open("rb") as file:
            answer = litellm.transcription(file=file, response_format=kind, **asks)
        assert said in (answer if isinstance(answer, str) else answer.text), kind


def test_litellm_streams(live: Any, tmp_path: Path) -> None:
    """Transcriptions, whatever format it asks for by itself; and turns, as chat completions."""
    litellm = pytest.importorskip("litellm")
    server = live(aliases=(("whisper-1", ""), ("gpt-4o-transcribe", "")), engine_api=True)
    path = save(tmp_path / "talk.wav", noise(3.0))
    asks = {"api_base": f"{server.url}/v1", "api_key": "none"}
    for model in (
        "whisper-1",
        "gpt-4o-transcribe",
    ):  # verbose_json of the one, nothing of the other
        with path.open("rb") as file:
            events = list(litellm.transcription(f"openai/{model}", file, stream=True, **asks))
        deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
        assert "".join(deltas) == "one two" and events[-1].type == "transcript.text.done"
        assert events[-1].usage.seconds == 3.0 and events[-1].warnings == []
        spoken = [event.speaker for event in events if event.type == "transcript.text.segment"]
        assert spoken == (["A", "B"] if model == "whisper-1" else [])
    with path.open("rb") as file:
        options = {"response_format": "diarized_json", "prompt": "Ana", "stream": True}
        events = list(litellm.transcription("openai/whisper-1", file, **options, **asks))
    assert [one["speaker"] for one in events[-1].segments] == ["A", "B"]
    assert "prompt" in events[-1].warnings[0]
    clip = {"data": base64.b64encode(path.read_bytes()).decode(), "format": "wav"}
    messages = [{"role": "user", "content": [{"type": "input_audio", "input_audio": clip}]}]
    message = litellm.completion("openai/scripted", messages, **asks).choices[0].message
    assert "2 speakers" in message.reasoning_content  # it takes <think> out, but not in a stream
    chunks = list(litellm.completion("openai/scripted", messages, stream=True, **asks))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed.startswith("<think>\n2 speakers") and streamed.endswith(message.content)
    assert message.content.startswith("<box>") and chunks[-1].choices[0].finish_reason == "stop"


def test_langchain(live: Any, tmp_path: Path) -> None:
    parsers = pytest.importorskip("langchain_community.document_loaders.parsers.audio")
    blobs = pytest.importorskip("langchain_core.documents.base")
    pytest.importorskip("pydub")
    server = live(aliases=(("whisper-1", ""),))
    path = save(tmp_path / "talk.wav", noise(3.0))
    parser = parsers.OpenAIWhisperParser(api_key="none", base_url=f"{server.url}/v1", language="en")
    [document] = list(parser.lazy_parse(blobs.Blob.from_path(path)))
    assert document.page_content == "one two"


SCRIPT = """
import OpenAI, { toFile } from "openai";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const file = async () => toFile(Buffer.from(process.argv[3], "base64"), "talk.wav");
const model = "scripted";
const create = async (more) => client.audio.transcriptions.create({ model, file: await file(), ...more });
const diarized = { response_format: "diarized_json", chunking_strategy: "auto" };
const whole = await create(diarized);
const plain = await create({ temperature: 0.3, include: ["logprobs"] });
const events = [];
for await (const event of await create({ ...diarized, stream: true })) events.push(event);
let refused = null;
try {
  await client.audio.translations.create({ model, file: await file() });
} catch (error) { refused = [error.status, error.code]; }
console.log(JSON.stringify({ whole, plain, events, refused }));
"""


@pytest.mark.skipif(not NODE or not shutil.which("node"), reason="no Node with OpenAI's client")
def test_openai_for_node(live: Any, tmp_path: Path) -> None:
    server = live()
    (tmp_path / "node_modules").symlink_to(NODE)
    (tmp_path / "ask.mjs").write_text(SCRIPT)
    sound = base64.b64encode(wav(1.0)).decode()
    words = ["node", str(tmp_path / "ask.mjs"), f"{server.url}/v1", sound]
    said = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert [s["speaker"] for s in said["whole"]["segments"]] == ["A", "B"]
    assert said["plain"]["text"] == "one two" and len(said["plain"]["warnings"]) == 2
    kinds = [event["type"].removeprefix("transcript.text.") for event in said["events"]]
    assert kinds == ["delta", "segment", "delta", "segment", "done"]
    assert [s["speaker"] for s in said["events"][-1]["segments"]] == ["A", "B"]
    assert said["refused"] == [400, "unsupported_operation"]


LIVE_SCRIPT = """
import OpenAI from "openai";
const [, , address, sound, kind] = process.argv;
const beta = kind === "beta";
const { OpenAIRealtimeWS } = await import(beta ? "openai/beta/realtime/ws" : "openai/realtime/ws");
const client = new OpenAI({ baseURL: address, apiKey: "a key", maxRetries: 0 });
const socket = new OpenAIRealtimeWS({ model: "scripted" }, client);
const events = [], refused = [];
socket.on("event", (event) => events.push(event));
socket.on("error", (error) => refused.push(error.error ?? String(error)));
const once = (type) => new Promise((resolve) => socket.on(type, resolve));
const created = once("session.created");
await created;
const old = { input_audio_format: "pcm16", turn_detection: null };
const now = { type: "transcription", audio: { input: { turn_detection: null } } };
if (beta) socket.send({ type: "transcription_session.update", session: old });
else socket.send({ type: "session.update", session: now });
await once(beta ? "transcription_session.updated" : "session.updated");
socket.send({ type: "response.create" });
const bytes = Buffer.from(sound, "base64");
for (let at = 0; at < bytes.length; at += 9600) {
  socket.send({ type: "input_audio_buffer.append", audio: bytes.subarray(at, at + 9600).toString("base64") });
}
socket.send({ type: "input_audio_buffer.commit" });
await once("conversation.item.input_audio_transcription.completed");
socket.close();
console.log(JSON.stringify({ events, refused }));
"""


@contextmanager
def tls(folder: Path, port: int) -> Iterator[tuple[int, Path]]:
    """A proxy with a certificate of its own before a server, as Node's client wants; its port and certificate."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    begun = asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    proxy = asyncio.run_coroutine_threadsafe(begun, loop).result(10)
    try:
        yield proxy.sockets[0].getsockname()[1], certificate
    finally:
        loop.call_soon_threadsafe(proxy.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        loop.close()


@pytest.mark.skipif(not NODE or not shutil.which("node"), reason="no Node with OpenAI's client")
@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl")
@pytest.mark.parametrize("kind", ["now", "beta"])
def test_openai_for_node_live(live: Any, tmp_path: Path, kind: str) -> None:
    """A live session: lines with speakers, the job, and an error that ends nothing."""
    server = live(api_key="a key")
    (tmp_path / "node_modules").symlink_to(NODE)
    (tmp_path / "talk.mjs").write_text(LIVE_SCRIPT)
    sound = np.random.default_rng(0).normal(0, 0.1, 24_000)
    said = base64.b64encode((sound.clip(-1, 1) * 32767).astype("<i2").tobytes()).decode()
    with tls(tmp_path, server.port) as (port, certificate):
        answer = subprocess.run(
            ["node", str(tmp_path / "talk.mjs"), f"https://localhost:{port}/v1", said, kind],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(certificate)},
        )
    printed = json.loads(answer.stdout)
    assert [error["code"] for error in printed["refused"]] == ["unsupported_event"]
    name = "conversation.item.input_audio_transcription."
    lines = [event for event in printed["events"] if event["type"] == f"{name}segment"]
    assert [(line["speaker"], line["text"]) for line in lines] == [("A", "one"), ("B", "two")]
    done = printed["events"][-1]
    assert done["type"] == f"{name}completed" and done["transcript"] == "one two"
    item = "created" if kind == "beta" else "done"
    assert f"conversation.item.{item}" in {event["type"] for event in printed["events"]}
    key = {"Authorization": "Bearer a key"}
    job = f"{server.url}/v1/jobs/{done['job']}"
    wait_until(lambda: httpx2.get(job, headers=key).json()["status"] == "done")
