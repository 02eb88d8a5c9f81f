"""Deepgram as a stream: the real library against a loopback server of WebSockets, messages in the documented shape."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.engines.client import Unavailable
from speaker_reasoner.errors import AnswerError, EngineError
from speaker_reasoner.systems.asking import understood
from speaker_reasoner.systems.base import Answer, Sound, SystemOptions
from speaker_reasoner.transcript import Transcript

from .vocal import voice

pytest.importorskip("deepgram")
server = pytest.importorskip("websockets.sync.server")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the library


def words(*rows: tuple[str, float, float, int]) -> list[dict[str, Any]]:
    return [
        {"word": w, "punctuated_word": w, "start": a, "end": b, "confidence": 0.9, "speaker": s}
        for w, a, b, s in rows
    ]


def result(rows: list[dict[str, Any]], final: bool = True) -> dict[str, Any]:
    best = {"transcript": " ".join(r["word"] for r in rows), "confidence": 0.9, "words": rows}
    about = {"request_id": "r", "model_uuid": "m", "model_info": {}}
    return {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": 2.0,
        "start": 0.0,
        "is_final": final,
        "channel": {"alternatives": [best]},
        "metadata": about,
    }


METADATA = {
    "type": "Metadata",
    "transaction_key": "deprecated",
    "request_id": "r",
    "sha256": "0",
    "created": "2026-11-01T00:00:00Z",
    "duration": 6.0,
    "channels": 1,
    "model_info": {"m": {"name": "general-nova-3", "version": "1", "arch": "nova-3"}},
}
MESSAGES = [
    result(words(("Good", 0.2, 0.6, 0)), final=False),
    result(words(("Good", 0.2, 0.6, 0), ("morning.", 0.7, 1.6, 0))),
    {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.6},
    result(words(("Hello.", 2.0, 2.5, 1))),
    METADATA,
]


@contextmanager
def streaming(messages: list[dict[str, Any]], received: list[Any]) -> Iterator[str]:
    """A server that hears all of the sound, and then answers."""

    def handle(connection: Any) -> None:
        received.append(connection.request.path)
        received.append(connection.request.headers.get("Authorization"))
        for message in connection:
            received.append(message)
            if isinstance(message, str) and json.loads(message)["type"] == "CloseStream":
                break
        for message in messages:
            connection.send(json.dumps(message))

    with server.serve(handle, "127.0.0.1", 0) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.socket.getsockname()[1]}"
        listening.shutdown()
        thread.join()


def live(url: str, pace: float = 0.0, **options: Any) -> Any:
    from speaker_reasoner.systems.deepgram import DeepgramLive

    return DeepgramLive(SystemOptions(base_url=url, key="secret-key", **options), pace)


def asked(messages: list[dict[str, Any]], received: list[Any], **options: Any) -> Transcript:
    sound = Sound("call", voice(6.0))
    with streaming(messages, received) as url, closing(live(url, **options)) as system:
        answer = system.ask(sound)
        assert json.loads(json.dumps(answer.raw)) == answer.raw
        assert "secret-key" not in json.dumps([answer.raw, system.describe()])
        return understood(system, answer, sound)


def test_a_stream() -> None:
    received: list[Any] = []
    transcript = asked(MESSAGES, received, language="en")
    rows = [(s.speaker, s.start_s, s.end_s, s.text) for s in transcript.segments]
    assert rows == [("0", 0.2, 1.6, "Good morning."), ("1", 2.0, 2.5, "Hello.")]
    path, key, *sent = received
    for part in ("diarize=true", "encoding=linear16", "sample_rate=16000", "language=en"):
        assert part in path
    assert "secret-key" in key and len(sent) == 61
    samples = np.frombuffer(b"".join(sent[:-1]), "<i2") / 32768.0
    assert len(samples) == 96_000 and abs(samples - voice(6.0)).max() < 1e-4


Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
BAD: dict[str, tuple[Change, str]] = {
    "cut before its end": (lambda messages: messages[:-1], "truncated"),
    "nothing but its end": (lambda messages: messages[-1:], "empty"),
    "an error": (
        lambda messages: [{"type": "Error", "description": "no", "code": "X"}, METADATA],
        "refused",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_streams(case: str) -> None:
    change, reason = BAD[case]
    with pytest.raises(AnswerError) as caught:
        asked(change(MESSAGES), [])
    assert caught.value.reason == reason


def test_nobody_there() -> None:
    with streaming([], []) as url:
        pass
    with closing(live(url)) as system, pytest.raises(Unavailable):
        system.ask(Sound("call", voice(1.0)))


@pytest.mark.parametrize(
    ("status", "kind"), [(401, EngineError), (429, Unavailable), (400, AnswerError)]
)
def test_a_stream_that_is_refused(status: int, kind: type[Exception]) -> None:
    """A wrong key ends the run."""

    def refuse(connection: Any, request: Any) -> Any:
        return connection.respond(status, "no")

    with server.serve(lambda _: None, "127.0.0.1", 0, process_request=refuse) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{listening.socket.getsockname()[1]}"
        with closing(live(url)) as system, pytest.raises(kind, match=f"HTTP {status}"):
            system.ask(Sound("call", voice(1.0)))
        listening.shutdown()
        thread.join()


def test_it_is_sent_in_real_time() -> None:
    import time

    with streaming(MESSAGES, []) as url, closing(live(url, pace=1.0)) as system:
        begun_s = time.monotonic()
        system.ask(Sound("call", voice(1.0)))
    assert 0.85 < time.monotonic() - begun_s < 5.0


@pytest.mark.parametrize("raw", [None, [], {"messages": "x"}, {"messages": [1, None]}])
def test_what_is_no_stream(raw: Any) -> None:
    with (
        closing(live("http://127.0.0.1:9")) as system,
        pytest.raises(AnswerError, match="without its last") as caught,
    ):
        understood(system, Answer(raw), Sound("call", voice(1.0)))
    assert caught.value.reason == "truncated"
