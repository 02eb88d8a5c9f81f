"""Live sessions over `/v1/realtime`: OpenAI's client, wrong input, limits, and what is left of a session."""

import asyncio
import base64
import io
import json
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import EngineError
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.longform.recording import RecordingState
from speaker_reasoner.server.live import session as livesession
from speaker_reasoner.server.live.cuts import Cutter, Stretch
from speaker_reasoner.server.live.events import TurnDetection
from speaker_reasoner.server.live.incoming import CODINGS, Began, Decoder, LiveFile, Stopped
from speaker_reasoner.server.live.lines import LiveLines
from speaker_reasoner.server.live.listening import Transcribed
from speaker_reasoner.server.uploads import Limits
from speaker_reasoner.transcript import Segment, Transcript

from . import serving, test_outages, test_serve
from .cloud import alone
from .serving import Gate, Serve, wait, wait_until, wav
from .talk import play
from .test_meetings import CACHED, Humming, tone

serve, live, tiny_disk = serving.serve, test_serve.live, test_outages.tiny_disk
__all__ = ["live", "serve", "tiny_disk"]

# OpenAI's client opens sockets in a way that websockets 17 wants to be rid of.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")

PATH = "/v1/realtime?intent=transcription"
URL = f"ws://127.0.0.1{PATH}"
ITEM = "conversation.item.input_audio_transcription."
RATE = 24_000
MANUAL = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}


def pcm(samples: Any) -> bytes:
    """Samples at 24 kHz as 16-bit ones."""
    return bytes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def hum(*turns: tuple[float, float]) -> bytes:
    """Tones of a pitch and a length in seconds, 0.3 s apart; pitch 0 is silence."""
    parts = []
    for hertz, seconds in turns:
        at = np.arange(round(seconds * RATE)) / RATE
        parts += [0.3 * np.sin(2 * np.pi * hertz * at), np.zeros(round(0.3 * RATE))]
    return pcm(np.concatenate(parts))


def babble(seconds: float, seed: int = 0) -> bytes:
    """Something that counts as speech, and differs from place to place."""
    return pcm(np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)))


class Talker:
    """One session, as a client sees it."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    def send(self, kind: str, **body: Any) -> None:
        self.socket.send_text(json.dumps({"type": kind, **body}))

    def say(self, data: bytes, piece_s: float = 0.2) -> None:
        step = round(piece_s * RATE) * 2
        for at in range(0, len(data), step):
            audio = base64.b64encode(data[at : at + step]).decode()
            self.send("input_audio_buffer.append", audio=audio)

    def commit(self) -> None:
        self.send("input_audio_buffer.commit")

    def until(self, *kinds: str) -> dict[str, Any]:
        """The next event of one of these types."""
        while True:
            event: dict[str, Any] = json.loads(self.socket.receive_text())
            self.seen.append(event)
            if event["type"] in kinds:
                return event
            assert event["type"] != "error" or "error" in kinds, event

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.seen if event["type"] == kind]


@contextmanager
def session(client: TestClient, update: Any = MANUAL, path: str = URL) -> Iterator[Talker]:
    with client.websocket_connect(path) as socket:
        talker = Talker(socket)
        talker.until("session.created")
        if update is not None:
            talker.send("session.update", session=update)
            talker.until("session.updated")
        yield talker


def jobs(client: TestClient) -> list[Any]:
    return list(client.get("/v1/jobs").json()["data"])


# OpenAI's client


def appended(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), 9600):
        yield base64.b64encode(data[at : at + 9600]).decode()


def test_openai(live: Any) -> None:
    server = live(aliases=(("whisper-1", ""),))
    update = {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": RATE},
                "transcription": {"model": "whisper-1", "prompt": "Names: Ana", "language": "en"},
                "turn_detection": None,
                "sparkle": 3,
            }
        },
    }
    with (
        server.client() as client,
        client.realtime.connect(
            model="whisper-1", extra_query={"intent": "transcription"}
        ) as connection,
    ):
        created = connection.recv()
        assert created.type == "session.created" and created.session.type == "transcription"
        connection.session.update(session=update)
        new = connection.recv()
        assert new.session.audio.input.transcription.model == "whisper-1"
        assert new.session.audio.input.turn_detection is None
        said = new.to_dict()["warnings"]
        assert any("prompt" in one for one in said) and any("sparkle" in one for one in said)
        for piece in appended(babble(6.0)):
            connection.input_audio_buffer.append(audio=piece)
        connection.input_audio_buffer.commit()
        events = []
        for event in connection:
            events.append(event)
            if event.type == f"{ITEM}completed":
                break
    known = {type(event).__name__ for event in events}
    assert known == {
        "ConversationItemAdded",
        "ConversationItemDone",
        "ConversationItemInputAudioTranscriptionCompletedEvent",
        "ConversationItemInputAudioTranscriptionDeltaEvent",
        "ConversationItemInputAudioTranscriptionSegment",
        "InputAudioBufferCommittedEvent",
    }
    done = events[-1]
    assert done.transcript == "one two one two" and done.usage.seconds == pytest.approx(6.0)
    assert "".join(e.delta for e in events if e.type == f"{ITEM}delta") == done.transcript
    lines = [event for event in events if event.type == f"{ITEM}segment"]
    assert [(one.speaker, one.text) for one in lines[:2]] == [("A", "one"), ("B", "two")]
    assert lines[-1].end == pytest.approx(6.0) and all(a.end > a.start for a in lines)
    assert [one["id"] for one in done.segments] == [one.id for one in lines]
    job = created.session.to_dict()["job"]
    wait_until(lambda: httpx2.get(f"{server.url}/v1/jobs/{job}").json()["status"] == "done")
    text = httpx2.get(f"{server.url}/v1/jobs/{job}/transcript?format=txt").text
    assert (
        text.count(": one\n") == 2
        and httpx2.get(f"{server.url}/v1/jobs/{job}").json()["duration"] == 6
    )


@pytest.mark.parametrize("beta", [False, True])
def test_openai_at_once(live: Any, beta: bool) -> None:
    """The asynchronous client, and the beta's form."""
    server = live()

    async def talk() -> list[Any]:
        address = f"{server.url}/v1"
        client = openai.AsyncOpenAI(
            base_url=address,
            websocket_base_url=address.replace("http", "ws"),  # else the beta's wants TLS
            api_key="none",
            max_retries=0,
        )
        resource = client.beta.realtime if beta else client.realtime
        async with resource.connect(
            model="scripted", extra_query={"intent": "transcription"}
        ) as connection:
            events = [await connection.recv()]
            if beta:
                await connection.transcription_session.update(
                    session={"input_audio_format": "pcm16", "turn_detection": None}  # type: ignore[typeddict-item]
                )
            else:
                await connection.session.update(session=MANUAL)
            events.append(await connection.recv())
            for piece in appended(babble(2.0)):
                await connection.input_audio_buffer.append(audio=piece)
            await connection.input_audio_buffer.commit()
            async for event in connection:
                events.append(event)
                if event.type == f"{ITEM}completed":
                    break
        await client.close()
        return events

    events = asyncio.run(talk())
    assert events[1].type == ("transcription_session.updated" if beta else "session.updated")
    if beta:
        assert events[1].session.input_audio_format == "pcm16"
    assert events[-1].transcript == "one two"
    created = "conversation.item.created" if beta else "conversation.item.added"
    assert created in [event.type for event in events]


def test_the_example(live: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """A recording, at the pace at which it was spoken, or faster."""
    turns = [(300.0, 1.5), (0.0, 1.0), (700.0, 1.5), (0.0, 1.0), (300.0, 1.0)]
    pcm_file = np.frombuffer(hum(*turns), "<i2")
    soundfile.write(tmp_path / "talk.wav", pcm_file, RATE)
    server = live(Transcriber(ScriptedEngine(Humming(), CACHED), detect=None))
    arguments = [str(tmp_path / "talk.wav"), "--url", f"{server.url}/v1", "--faster", "4"]
    monkeypatch.setattr(sys, "argv", ["live.py", *arguments])
    runpy.run_path(str(test_serve.EXAMPLE.parent / "live.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("] ")[1][0] for line in lines] == ["A", "B", "A"], lines
    wait_until(lambda: [one["status"] for one in _jobs(server.url)] == ["done"])


def _jobs(url: str) -> list[Any]:
    return list(httpx2.get(f"{url}/v1/jobs").json()["data"])


# Pieces and lines


def test_pauses_end_pieces(serve: Serve) -> None:
    """Server VAD: each utterance is an item, at its time in the session."""
    client = serve(Humming(), CACHED)
    turns = {"type": "server_vad", "silence_duration_ms": 400, "prefix_padding_ms": 100}
    update = {"type": "transcription", "audio": {"input": {"turn_detection": turns}}}
    with session(client, update) as talker:
        talker.say(hum((0, 1.0), (300, 1.5), (0, 1.2), (700, 2.0), (0, 1.2)))
        first, second = talker.until(f"{ITEM}completed"), talker.until(f"{ITEM}completed")
    started = [e["audio_start_ms"] for e in talker.of("input_audio_buffer.speech_started")]
    stopped = [e["audio_end_ms"] for e in talker.of("input_audio_buffer.speech_stopped")]
    assert started == pytest.approx([1200, 4500], abs=150)
    assert stopped == pytest.approx([3200, 7000], abs=300)
    ids = [e["item_id"] for e in talker.of("input_audio_buffer.speech_started")]
    assert ids == [first["item_id"], second["item_id"]]
    assert [e["item_id"] for e in talker.of("input_audio_buffer.committed")] == ids
    assert talker.of("input_audio_buffer.committed")[1]["previous_item_id"] == ids[0]
    lines = [*first["segments"], *second["segments"]]
    assert [line["start"] for line in lines] == pytest.approx([1.3, 4.6], abs=0.15)
    assert [line["speaker"] for line in lines] == ["A", "B"]


def test_speakers_keep_their_letter(serve: Serve) -> None:
    client = serve(Humming(), CACHED)
    with session(client) as talker:
        for pitch in (300.0, 700.0, 300.0, 500.0, 700.0):
            talker.say(hum((pitch, 2.0)))
            talker.commit()
        done = [talker.until(f"{ITEM}completed") for _ in range(5)]
    assert ["".join(s["speaker"] for s in one["segments"]) for one in done] == list("ABACB")
    letters = [event["speaker"] for event in talker.of(f"{ITEM}segment")]
    assert letters == list("ABACB")


def test_labels_that_the_last_pass_changes(serve: Serve, monkeypatch: Any) -> None:
    """They are told with the next piece, in a key of its own."""
    client = serve(Humming(), CACHED)
    result = RecordingState.result

    def other(self: RecordingState) -> Any:
        transcript = result(self)
        assert isinstance(transcript, Transcript)
        same = [s if s.start_s else replace(s, speaker="Speaker2") for s in transcript.segments]
        return transcript.with_segments(same) if len(same) > 1 else transcript

    monkeypatch.setattr(RecordingState, "result", other)
    with session(client) as talker:
        talker.say(hum((300.0, 2.0)))
        talker.commit()
        first = talker.until(f"{ITEM}completed")
        talker.say(hum((700.0, 2.0)))
        talker.commit()
        second = talker.until(f"{ITEM}completed")
    assert [s["speaker"] for s in first["segments"]] == ["A"] and first["relabelled"] == []
    line = {"item_id": first["item_id"], "id": first["segments"][0]["id"], "speaker": "B"}
    assert second["relabelled"] == [line] and second["segments"][0]["speaker"] == "B"


def test_lines_come_while_one_speaks(serve: Serve) -> None:
    """Guesses before the piece is committed; a long piece is heard in stretches meanwhile."""
    client = serve()
    with session(client) as talker:
        talker.say(babble(3.0))
        guess = talker.until(f"{ITEM}delta")
        assert guess["provisional"] is True and guess["delta"] == ""
        assert [one["text"] for one in guess["segments"]] == ["one", "two"]
        assert guess["segments"][0]["speaker"] is None
        talker.say(babble(7.0, 1))
        line = talker.until(f"{ITEM}segment")
        assert not talker.of("input_audio_buffer.committed")
        talker.commit()
        done = talker.until(f"{ITEM}completed")
    assert line["item_id"] == done["item_id"] and len(done["segments"]) >= 6
    assert done["transcript"] == " ".join(one["text"] for one in done["segments"])


def test_g711(serve: Serve) -> None:
    client = serve(Humming(), CACHED)
    samples = tone(300.0, 2.0)[::2]
    for name, subtype in (("audio/pcmu", "ULAW"), ("audio/pcma", "ALAW")):
        file = io.BytesIO()
        soundfile.write(file, samples, 8000, format="RAW", subtype=subtype)
        turns: Any = {"format": {"type": name}, "turn_detection": None}
        update = {"type": "transcription", "audio": {"input": turns}}
        with session(client, update) as talker:
            talker.send(
                "input_audio_buffer.append", audio=base64.b64encode(file.getvalue()).decode()
            )
            talker.commit()
            done = talker.until(f"{ITEM}completed")
        assert [one["end"] for one in done["segments"]] == pytest.approx([2.0], abs=0.11), name
        job = wait(client, {"id": done["job"]})
        assert job["status"] == "done" and job["duration"] == pytest.approx(2.0, abs=0.01)


def test_what_is_taken_back(serve: Serve) -> None:
    """Cleared audio is heard by nobody, and silent in the recording; times stay."""
    client = serve(Humming(), CACHED)
    with session(client) as talker:
        talker.say(hum((300.0, 2.0)))
        talker.send("input_audio_buffer.clear")
        talker.until("input_audio_buffer.cleared")
        talker.say(hum((700.0, 2.0)))
        talker.commit()
        done = talker.until(f"{ITEM}completed")
    assert [one["start"] for one in done["segments"]] == pytest.approx([2.3], abs=0.11)
    job = wait(client, {"id": done["job"]})
    sound = client.get(f"/v1/jobs/{job['id']}/audio").content
    samples, _ = soundfile.read(io.BytesIO(sound))
    assert np.abs(samples[: 2 * 16_000]).max() < 0.01 < np.abs(samples[-30_000:]).max()


def test_what_is_said_of_a_session_late(serve: Serve) -> None:
    with session(serve()) as talker:
        talker.say(babble(2.0))
        talker.send("session.update", session={"speakers": "2", "audio": {"input": {}}})
        assert talker.until("session.updated")["warnings"] == [
            "session.speakers: without effect, the session has begun"
        ]
        update = {"audio": {"input": {"transcription": {"language": "en-GB"}}}}
        talker.send("session.update", session=update)
        now = talker.until("session.updated")["session"]["audio"]["input"]
        assert now["transcription"]["language"] == "en" and now["turn_detection"] is None


# Wrong input

APPEND = "input_audio_buffer.append"


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        ("{", "invalid_json", "no JSON"),
        ("[1]", "missing_field", "a type"),
        ({"type": "sing"}, "unknown_event", "'sing'"),
        ({"type": "response.create"}, "unsupported_event", "transcription session"),
        ({"type": APPEND, "audio": "@@"}, "invalid_value", "no base64"),
        ({"type": APPEND}, "invalid_value", "expected base64"),
        ({"type": APPEND, "audio": "AAAA"}, "invalid_value", "got 3 bytes"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", "100 ms"),
        ({"type": "session.update"}, "invalid_value", "session: expected an object"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "invalid_value",
         "session.type"),
        ({"type": "session.update", "session": {"audio": {"input": {"transcription": {
            "model": "gpt-4o"}}}}}, "model_not_found", "'scripted'"),
        ({"type": "session.update", "session": {"audio": {"input": {"transcription": {
            "language": "de"}}}}}, "unsupported_language", "'de'"),
        ({"type": "session.update", "session": {"audio": {"input": {"format": {
            "type": "audio/pcm", "rate": 16000}}}}}, "invalid_value", "format.rate"),
        ({"type": "session.update", "session": {"audio": {"input": {"format": {
            "type": "audio/opus"}}}}}, "invalid_value", "audio/opus"),
        ({"type": "session.update", "session": {"speakers": "many"}}, "invalid_value", "speakers"),
    ],
)  # fmt: skip
def test_wrong_events(serve: Serve, sent: Any, code: str, said: str) -> None:
    """Each is answered with what is wrong, and the session goes on."""
    client = serve()
    with session(client) as talker:
        if isinstance(sent, dict):
            sent = json.dumps({**sent, "event_id": "mine"})
        talker.socket.send_text(sent)
        error = talker.until("error")["error"]
        assert error["code"] == code and said in error["message"], error
        assert error["event_id"] == ("mine" if "mine" in sent else None)
        talker.say(babble(2.0))
        talker.commit()
        assert talker.until(f"{ITEM}completed")["transcript"] == "one two"


def test_an_event_of_bytes(serve: Serve) -> None:
    with session(serve()) as talker:
        talker.socket.send_bytes(b"\0\0")
        assert talker.until("error")["error"]["code"] == "invalid_json"


def test_the_format_stays(serve: Serve) -> None:
    with session(serve()) as talker:
        talker.say(babble(0.5))
        update = {"audio": {"input": {"format": {"type": "audio/pcmu"}}}}
        talker.send("session.update", session=update)
        assert "cannot change" in talker.until("error")["error"]["message"]


def test_another_model(serve: Serve) -> None:
    with serve().websocket_connect(f"{URL}&model=gpt-4o-transcribe") as socket:
        assert json.loads(socket.receive_text())["error"]["code"] == "model_not_found"
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert closed.value.code == 1008


def refused(client: TestClient, status: int, code: str, **options: Any) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect(URL, **options),
    ):
        pass
    assert (denied.value.status_code, denied.value.json()["error"]["code"]) == (status, code)


def test_who_may(serve: Serve) -> None:
    client = serve(api_key="secret")
    refused(client, 401, "invalid_api_key")
    refused(client, 401, "invalid_api_key", headers={"authorization": "Bearer wrong"})
    refused(client, 401, "invalid_api_key", subprotocols=["realtime", "openai-insecure-api-key.no"])
    refused(client, 403, "origin_not_allowed", headers={"origin": "https://evil.example"})
    with client.websocket_connect(URL, headers={"authorization": "Bearer secret"}):
        pass
    protocols = ["realtime", "openai-insecure-api-key.secret"]
    with client.websocket_connect(URL, subprotocols=protocols) as socket:
        assert socket.accepted_subprotocol == "realtime"
    client = serve()
    refused(client, 403, "origin_not_allowed", headers={"origin": "https://evil.example"})
    refused(client, 403, "host_not_allowed", headers={"host": "evil.example"})
    client = serve(origins=("https://good.example",))
    with client.websocket_connect(URL, headers={"origin": "https://good.example"}):
        pass


# Limits


def test_sessions_at_once(serve: Serve) -> None:
    client = serve(limits=Limits(live=1))
    with session(client):
        refused(client, 429, "too_many_sessions")
    wait_until(lambda: "speaker_reasoner_live 0.0" in client.get("/metrics").text)
    with session(client):
        assert "speaker_reasoner_live 1.0" in client.get("/metrics").text


def test_silence_of_a_client(serve: Serve) -> None:
    client = serve(limits=Limits(live_idle_s=0.2))
    with session(client) as talker:
        talker.say(babble(1.0))
        assert talker.until("error")["error"]["code"] == "session_idle"
        with pytest.raises(WebSocketDisconnect):
            talker.socket.receive_text()
    [job] = jobs(client)
    assert wait(client, job)["duration"] == pytest.approx(1.0)


def test_a_session_that_is_too_long(serve: Serve) -> None:
    client = serve(limits=Limits(duration_s=2.0))
    with session(client) as talker:
        talker.say(babble(3.0))
        assert talker.until("error")["error"]["code"] == "audio_too_long"
    [job] = jobs(client)
    assert wait(client, job)["status"] == "done"


def test_no_more_is_read_than_the_engine_hears(serve: Serve, monkeypatch: Any) -> None:
    monkeypatch.setattr(livesession, "_BEHIND_S", 8.0)
    gate = Gate()
    client = serve(gate)
    with session(client) as talker:
        talker.say(babble(30.0))
        talker.commit()
        assert gate.reached.wait(5)
        time.sleep(0.5)
        app: Any = client.app
        held = [job.duration_s for job in app.state.service.store.newest(5)]
        assert held == [0.0]
        size = next(Path(app.state.service.settings.store).glob("jobs/*/live.wav")).stat().st_size
        assert size < 16 * RATE * 2
        gate.open.set()
        assert talker.until(f"{ITEM}completed")["usage"]["seconds"] == pytest.approx(30.0)


# Nothing is lost


def test_a_connection_that_drops(serve: Serve) -> None:
    """Also what was never committed becomes a job, sample by sample."""
    client = serve()
    said = babble(5.0)
    with session(client) as talker:
        talker.say(said)
        time.sleep(0.2)
        before = jobs(client)
    assert [one["status"] for one in before] == ["queued"]
    job = wait(client, before[0])
    assert job["status"] == "done" and job["duration"] == 5.0
    kept, _ = soundfile.read(io.BytesIO(client.get(f"/v1/jobs/{job['id']}/audio").content))
    sent = Decoder(CODINGS["audio/pcm"])
    samples = np.concatenate([sent.feed(said), sent.rest()])
    assert len(kept) == len(samples) and np.abs(kept - samples).max() < 2e-3
    assert job["name"].startswith("Live ")


def test_nothing_is_kept_unless_wanted(serve: Serve, tmp_path: Path) -> None:
    client = serve()
    with session(client, path=f"{URL}&keep=false") as talker:
        talker.say(babble(2.0))
        talker.commit()
        done = talker.until(f"{ITEM}completed")
    assert done["transcript"] == "one two" and done["job"] is None
    assert jobs(client) == [] and not list((tmp_path / "store" / "incoming").iterdir())


def test_a_session_whose_server_is_killed(tmp_path: Path) -> None:
    """What was said is there after kill -9, and the next start hears it."""
    from websockets.sync.client import connect

    server = alone(tmp_path / "store")
    with httpx2.Client(timeout=60) as http:
        wait_until(lambda: test_outages.answers(http, server))
        with connect(f"ws{server.url.removeprefix('http')}{PATH}") as socket:
            job = json.loads(socket.recv())["session"]["job"]
            for piece in appended(babble(8.0)):
                socket.send(json.dumps({"type": APPEND, "audio": piece}))
            live = tmp_path / "store" / "jobs" / job / "live.wav"
            wait_until(lambda: live.exists() and live.stat().st_size == 44 + 8 * RATE * 2)
            server.end(signal.SIGKILL)
        assert live.exists()
        again = alone(tmp_path / "store")
        wait_until(lambda: test_outages.answers(http, again))
        url = f"{again.url}/v1/jobs/{job}"
        wait_until(lambda: http.get(url).json()["status"] == "done", 60)
        assert http.get(url).json()["duration"] == 8.0
        texts = [one["text"] for one in http.get(f"{url}/document").json()["segments"]]
        assert texts == ["one", "two"] * (len(texts) // 2) and len(texts) >= 4
    again.end(signal.SIGTERM)


def test_a_full_disk_ends_a_session(tiny_disk: Path, serve: Serve) -> None:
    """What was stored before is kept, and heard when there is space."""
    client = serve()
    with session(client) as talker:
        talker.say(babble(2.0))
        wait_until(lambda: bool(list(tiny_disk.glob("jobs/*/live.wav"))))
        time.sleep(0.3)
        ballast = test_outages.fill(tiny_disk)
        talker.say(babble(4.0))
        assert talker.until("error")["error"]["code"] == "storage_failed"
    [job] = jobs(client)
    time.sleep(0.3)
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] in ("queued", "running")
    ballast.unlink()
    assert wait(client, job)["status"] == "done"
    assert client.get(f"/v1/jobs/{job['id']}").json()["duration"] >= 2.0


def test_a_job_that_is_cancelled_meanwhile(serve: Serve) -> None:
    client = serve()
    with session(client) as talker:
        talker.say(babble(1.0))
        wait_until(lambda: bool(jobs(client)))
        [job] = jobs(client)
        assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "cancelled"
        talker.say(babble(1.0))
        assert talker.until("error")["error"]["code"] == "job_cancelled"
    assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "cancelled"


def test_an_engine_that_fails(serve: Serve) -> None:
    """The piece is said to have failed; the next one is heard, and the job hears all."""
    broken = [True]

    def turns(request: Request) -> str:
        if broken[0]:
            raise RuntimeError("out of memory")
        return play(request)

    client = serve(turns)
    with session(client) as talker:
        talker.say(babble(0.8))
        talker.commit()
        failed = talker.until(f"{ITEM}failed")
        assert failed["error"]["code"] == "engine_failed"
        assert failed["item_id"] == talker.of("input_audio_buffer.committed")[0]["item_id"]
        broken[0] = False
        talker.say(babble(2.0))
        talker.commit()
        assert talker.until(f"{ITEM}completed")["transcript"] == "one two"
    [job] = jobs(client)
    assert wait(client, job)["status"] == "done"


def test_known_names_outlive_a_failure() -> None:
    """Speakers without a name are counted anew, since nobody knows whether they are the same."""
    sent: list[dict[str, Any]] = []
    lines = LiveLines(sent.append, frozenset({"Ana"}), None, beta=False)
    for number in range(2):
        lines.cut(number)
        lines.committed(number, 16_000 * (number + 1))
        said = [Segment(label, number, number + 1, "yes") for label in ("Ana", "Speaker2")]
        lines.transcribed(Transcribed(number, said, (), None))
        lines.broken(number + 1, EngineError("out of memory"))
    letters = [one["speaker"] for one in sent if one["type"] == f"{ITEM}segment"]
    assert letters == ["Ana", "A", "Ana", "B"]


def test_a_bug_ends_a_session_and_loses_nothing(
    serve: Serve, monkeypatch: Any, caplog: Any
) -> None:
    client = serve()
    with session(client) as talker:
        talker.say(babble(2.0))
        talker.send("input_audio_buffer.commit")
        talker.until(f"{ITEM}completed")
        monkeypatch.setattr(Cutter, "feed", lambda *_: 1 / 0)
        talker.say(babble(1.0))
        error = talker.until("error")["error"]
        assert error["code"] == "internal_error" and "division" not in error["message"]
        with pytest.raises(WebSocketDisconnect) as closed:
            talker.socket.receive_text()
    assert closed.value.code == 1011 and "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    [job] = jobs(client)
    assert wait(client, job)["duration"] >= 2.0


# Many at once


@pytest.mark.no_cover
def test_twenty_sessions_and_jobs_share_the_engine(live: Any) -> None:
    def slow(request: Request) -> str:
        time.sleep(0.002)
        return play(request)

    server = live(slow, batch=4)
    said = babble(8.0)
    files = {"file": ("a.wav", wav(40.0))}
    batch = [httpx2.post(f"{server.url}/v1/jobs", files=files).json()["id"] for _ in range(2)]

    async def talk(client: Any) -> list[Any]:
        async with client.realtime.connect(model="scripted") as connection:
            await connection.session.update(session=MANUAL)
            done = []
            for _ in range(2):
                for piece in appended(said):
                    await connection.input_audio_buffer.append(audio=piece)
                await connection.input_audio_buffer.commit()
                async for event in connection:
                    assert event.type != "error", event
                    if event.type == f"{ITEM}completed":
                        done.append(event)
                        break
            return done

    async def everybody() -> list[Any]:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        try:
            async with asyncio.timeout(120):
                return list(await asyncio.gather(*(talk(client) for _ in range(20))))
        finally:
            await client.close()

    results = asyncio.run(everybody())
    for one, two in results:
        assert one.transcript == two.transcript == "one two " * 2 + "one two"
        assert two.segments[0]["start"] == pytest.approx(8.0)
    get = lambda: httpx2.get(f"{server.url}/v1/jobs?limit=100").json()["data"]  # noqa: E731
    wait_until(lambda: all(one["status"] == "done" for one in get()), 60)
    assert len(get()) == 22 and {one["id"] for one in get()} >= set(batch)
    assert {one["duration"] for one in get()} == {40.0, 16.0}


# Laws


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=12), st.integers(0, 3))
def test_every_sample_is_in_one_stretch(pieces: list[int], seed: int) -> None:
    """Without pauses: whatever the pieces in which audio comes, and wherever it is committed."""
    cutter, whole = Cutter(CODINGS["audio/pcm"], 1.0), Decoder(CODINGS["audio/pcm"])
    stretches: list[Stretch] = []
    expected = []
    for number, count in enumerate(pieces):
        data = babble(count / RATE, seed)
        expected.append(whole.feed(data))
        cuts = cutter.feed(data)
        if number % 3 == 2:
            expected.append(whole.rest())
            cuts += cutter.commit()
        stretches += cuts  # type: ignore[arg-type]
    expected.append(whole.rest())
    stretches += cutter.commit()  # type: ignore[arg-type]
    at = 0
    for one in stretches:
        assert one.chunk.start_samples == at and len(one.chunk.samples) <= 16_000
        at += len(one.chunk.samples)
    rest = cutter.under_way
    assert rest.start_samples == at and len(rest.samples) < 1600
    both = np.concatenate([*(one.chunk.samples for one in stretches), rest.samples])
    np.testing.assert_array_equal(both, np.concatenate(expected))


def test_pauses_are_found_in_any_pieces() -> None:
    data = hum((0, 1.0), (300, 1.5), (0, 1.2), (700, 2.0), (0, 1.2))
    times = []
    for step in (480, 4800, 48_000):
        cutter = Cutter(CODINGS["audio/pcm"], 30.0)
        cutter.detect(TurnDetection(silence_duration_ms=400))
        cuts = [
            cut for at in range(0, len(data), step) for cut in cutter.feed(data[at : at + step])
        ]
        times.append([cut.at / 16_000 for cut in cuts if isinstance(cut, Began | Stopped)])
        assert len(times[-1]) == 4
        assert [cut.ends for cut in cuts if isinstance(cut, Stretch)] == [True, True]
    for one in times[1:]:
        assert one == pytest.approx(times[0], abs=0.45)


def test_speech_at_the_very_beginning_is_found() -> None:
    cutter = Cutter(CODINGS["audio/pcm"], 30.0)
    cutter.detect(TurnDetection(silence_duration_ms=400))
    data = hum((300, 1.5), (0, 1.0), (700, 1.0), (0, 1.0))
    cuts = [cut for at in range(0, len(data), 4800) for cut in cutter.feed(data[at : at + 4800])]
    began = [cut.at / 16_000 for cut in cuts if isinstance(cut, Began)]
    assert began == pytest.approx([0.0, 3.1 - 0.3], abs=0.1)
    pieces = [cut.chunk for cut in cuts if isinstance(cut, Stretch)]
    assert pieces[0].start_samples == 0 and len(pieces[0].samples) >= 1.8 * 16_000
    assert len(pieces) == 2


def test_a_file_that_grows(tmp_path: Path) -> None:
    """It can be read after every piece."""
    file, data = LiveFile(tmp_path, CODINGS["audio/pcm"]), babble(1.0)
    for at in range(0, len(data), 9600):
        file.append(data[at : at + 9600])
        samples, rate = soundfile.read(tmp_path / "live.wav", dtype="int16")
        assert rate == RATE and samples.tobytes() == data[: at + 9600]
    file.silence(0.5)
    file.append(data[:4])
    samples, _ = soundfile.read(tmp_path / "live.wav", dtype="int16")
    assert not samples[12_000:24_000].any() and samples[:12_000].tobytes() == data[:24_000]
    assert samples[24_000:].tobytes() == data[:4]
    file.close()
