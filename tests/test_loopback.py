"""Our own server and the remote engine: the same transcript as in process, and what the server refuses."""

import base64
import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import soundfile

from speaker_reasoner import Transcriber, load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.engines.base import Stop
from speaker_reasoner.engines.chat import wav
from speaker_reasoner.engines.client import Address
from speaker_reasoner.engines.connecting import connect
from speaker_reasoner.engines.remote import RemoteEngine
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import EngineError, SettingsError
from speaker_reasoner.formats import render
from speaker_reasoner.protocol import Profile
from speaker_reasoner.protocol.messages import messages, trace_parts
from speaker_reasoner.reasoner import Dialogue, run
from speaker_reasoner.server.chat import rules_of
from speaker_reasoner.transcript import Transcript

from . import serving
from .conftest import noise
from .remote_server import ours
from .serving import Gate, Serve, error_of
from .talk import PROFILE, play

serve = serving.serve
EXAMPLE = Path(__file__).parents[1] / "examples" / "meeting.flac"
ENGINE_KEYS = (
    *("engine", "model", "class", "device", "dtype", "keep_cache", "constrained", "torch"),
    *("transformers", "server", "constraint", "wall_s", "real_time_factor", "stage_s"),
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return load_engine("tiny", device="cpu")


def remote(url: str, model: str, **options: Any) -> RemoteEngine:
    return connect(Address(url, timeout_s=60.0), model, **options)


def without_engine(transcript: Transcript) -> Any:
    """As JSON has it, without what describes the engine and how long it took."""
    info = {key: value for key, value in transcript.info.items() if key not in ENGINE_KEYS}
    return json.loads(render(replace(transcript, info=info), "json"))


def approximate(value: Any) -> Any:
    """To be equal within 1e-6: sums of float32 may depend on where in memory their terms lie."""
    if isinstance(value, dict):
        return {key: approximate(one) for key, one in value.items()}
    if isinstance(value, list):
        return [approximate(one) for one in value]
    return pytest.approx(value, rel=0, abs=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"constraint": "none"},
        {"send_audio": "always"},
    ],
)
def test_the_embedded_checkpoint_gives_the_same_transcript_behind_our_server(
    tiny: Any, tmp_path: Path, options: Any
) -> None:
    here = Transcriber(tiny, witness=None).transcribe(EXAMPLE)
    assert len(here.segments) >= 3 and here.segments[0].confidence.words is not None
    with ours(tiny, tmp_path) as url:
        engine = remote(url, "embedded", **options)
        assert engine.server == "speaker-reasoner"
        assert engine.profile == replace(tiny.profile, training={})
        there = Transcriber(engine, witness=None).transcribe(EXAMPLE)
        engine.client.close()
    assert without_engine(there) == approximate(without_engine(here))


def test_cache_answer_bounds_and_insisting_give_the_same_transcript(
    random_engine: Any, tmp_path: Path
) -> None:
    """Over a checkpoint that writes what it likes: many lines, boxes passed over, several chunks."""
    file = tmp_path / "noise.wav"
    soundfile.write(file, noise(24.0, 3), 16_000, subtype="FLOAT")

    def speech(samples: Any) -> list[tuple[float, float]]:
        return [(0.0, len(samples) / 16_000)]

    insisted = 0
    with ours(random_engine, tmp_path / "store") as url:
        model = httpx.get(f"{url}/models").json()["data"][0]["id"]
        engine = remote(url, model)
        for answer, speakers in (("assembled", None), ("model", None), ("assembled", (2, 3))):
            here, there = (
                Transcriber(one, witness=None, detect=speech, answer=answer).transcribe(
                    file, speakers=speakers
                )
                for one in (random_engine, engine)
            )
            assert without_engine(there) == approximate(without_engine(here))
            insisted += here.info["insisted"]
        engine.client.close()
    assert insisted


def test_a_session_that_was_lost_gives_the_same_turns(random_engine: Any, tmp_path: Path) -> None:
    """One is kept, and two dialogues take turns: each is read again from its start."""

    def dialogues() -> list[Dialogue]:
        return [Dialogue(noise(9.0, seed), random_engine.profile) for seed in (5, 6)]

    expected, found = dialogues(), dialogues()
    for dialogue in expected:
        for _ in run([dialogue], random_engine):
            pass
    with ours(random_engine, tmp_path / "store", batch=1) as url:
        model = httpx.get(f"{url}/models").json()["data"][0]["id"]
        engine = remote(url, model)
        for _ in range(20):
            for dialogue in found:
                if (request := dialogue.request) is not None:
                    dialogue.feed(engine.ask([request])[0])
        engine.client.close()
    for one, other in zip(found, expected, strict=True):
        assert one.outcome is not None and other.outcome is not None
        written = [answer.text for answer in one.outcome.trace.answers]
        assert written == [answer.text for answer in other.outcome.trace.answers]
        assert len(written) > 1


def test_dialogues_of_a_client_share_the_batches(tiny: Any, tmp_path: Path) -> None:
    here = Transcriber(tiny, witness=None).transcribe(EXAMPLE)
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.flac")
        files[-1].write_bytes(EXAMPLE.read_bytes())
    with ours(tiny, tmp_path / "store", batch=2) as url:
        engine = remote(url, "embedded")
        found = list(Transcriber(engine, witness=None, batch=3).transcribe_all(files))
        metrics = httpx.get(url.replace("/v1", "/metrics")).text
        engine.client.close()
    for one in found:
        assert isinstance(one, Transcript)
        assert [(s.text, s.start_s) for s in one.segments] == [
            (s.text, s.start_s) for s in here.segments
        ]
    rounds = {
        bound: float(value)
        for bound, value in re.findall(
            r'^speaker_reasoner_round_dialogues_bucket{le="([^"]+)"} (\S+)$', metrics, re.MULTILINE
        )
    }
    assert rounds["1.0"] < rounds["2.0"] == rounds["+Inf"]  # some rounds hold two, none more


def test_as_a_user(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ours(tiny, tmp_path) as url:
        asked = [
            "--engine",
            "openai",
            "--base-url",
            url,
            "--model",
            "embedded",
            "--witness",
            "none",
        ]
        assert main(["transcribe", str(EXAMPLE), *asked, "--format", "txt", "-q"]) == 0
        there = capsys.readouterr().out
    assert main(["transcribe", str(EXAMPLE), "--model", "tiny", "--witness", "none", "-q"]) == 0
    assert there == capsys.readouterr().out != ""


# Messages


def test_messages_are_the_trace_and_back() -> None:
    dialogue = Dialogue(noise(4.0), PROFILE)
    for _ in run([dialogue], ScriptedEngine(play, PROFILE)):
        pass
    assert dialogue.outcome is not None
    parts = dialogue.outcome.trace.parts[:-1]
    assert trace_parts(messages(parts, waiting=True)) == parts


def test_rules_follow_from_a_conversation() -> None:
    """As a dialogue of ours has them, turn for turn."""
    dialogue, engine = Dialogue(noise(4.0), PROFILE), ScriptedEngine(play, PROFILE)
    while (request := dialogue.request) is not None:
        answers = [part for part in dialogue._trace.parts if hasattr(part, "ids")]
        assert rules_of(PROFILE, [], answers, dialogue.chunk) == request.rules  # type: ignore[arg-type]
        dialogue.feed(engine.ask([request])[0])


# Requests


def clip(seconds: float = 4.0, uuid: str | None = None, data: bytes | None = None) -> Any:
    data = wav(noise(seconds)) if data is None else data
    encoded = base64.b64encode(data).decode()
    part = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    return part if uuid is None else {**part, "uuid": uuid}


def ask(client: Any, *content: Any, **more: Any) -> Any:
    body = {"model": "scripted", "messages": [{"role": "user", "content": list(content)}], **more}
    return client.post("/v1/chat/completions", json=body)


def test_a_turn_for_any_client(serve: Serve) -> None:
    client = serve(engine_api=True)
    body = ask(client, clip(), {"type": "text", "text": "Who?"}).json()
    [choice] = body["choices"]
    assert choice["message"]["content"].startswith("<think>\n2 speakers: Speaker1-female")
    assert (body["object"], body["model"], choice["finish_reason"]) == (
        *("chat.completion", "scripted"),
        "stop",
    )
    assert choice["logprobs"] is None


def test_a_turn_as_a_stream(serve: Serve) -> None:
    """The same turn, as a whole, in the events that chat clients read."""
    client = serve(engine_api=True)
    whole = ask(client, clip()).json()["choices"][0]["message"]["content"]
    answer = ask(client, clip(), stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, done, _ = answer.text.split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert done == "data: [DONE]" and {c["object"] for c in chunks} == {"chat.completion.chunk"}
    told, end = (chunk["choices"][0] for chunk in chunks)
    assert (told["delta"]["content"], told["finish_reason"]) == (whole, None)
    assert (end["delta"], end["finish_reason"]) == ({}, "stop")


def test_another_name_of_the_model_is_answered_under_that_name(serve: Serve) -> None:
    client = serve(engine_api=True, aliases=(("whisper-1", ""),))
    names = [entry["id"] for entry in client.get("/v1/models").json()["data"]]
    assert [ask(client, clip(), model=name).json()["model"] for name in names] == names
    error_of(ask(client, clip(), model="another"), 404, "model_not_found")


def test_the_official_client_reads_it(tiny: Any, tmp_path: Path) -> None:
    with ours(tiny, tmp_path) as url:
        client = openai.OpenAI(base_url=url, api_key="none")
        asked: Any = [{"role": "user", "content": [clip(3.0)]}]
        answer = client.chat.completions.create(model="embedded", messages=asked, logprobs=True)
        client.close()
    [choice] = answer.choices
    assert choice.message.content and choice.logprobs and choice.logprobs.content
    spelled = b"".join(bytes(token.bytes or ()) for token in choice.logprobs.content)
    assert spelled.decode() == choice.message.content


def test_the_model_list_tells_the_profile_where_turns_are_answered(serve: Serve) -> None:
    [entry] = serve(engine_api=True).get("/v1/models").json()["data"]
    assert entry["profile"]["decimals"] == 1 and "training" not in entry["profile"]
    client = serve()
    assert client.get("/v1/models").json()["data"][0]["profile"] is None
    assert ask(client, clip()).status_code == 404


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        ([], {}, "expected a clip"),
        ([clip()], {"temperature": 0.7}, "temperature"),
        ([clip()], {"structured_outputs": {"regex": "a"}}, "structured_outputs: not a field"),
        ([clip()], {"messages": []}, "messages"),
        ([clip()], {"max_tokens": 20}, "max_tokens"),
        ([clip(), {"type": "text", "text": "<|im_end|>"}], {}, "which begins markup"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], {}, "image_url"),
        ([clip(data=b"no sound")], {}, "cannot be heard"),
        ([clip()], {"turn_rules": {"turn": 0, "chunk": 99}}, "has 40 ticks"),
        ([clip()], {"turn_rules": {"turn": 1, "chunk": 40}}, "turn 0 has none"),
        ([clip()], {"turn_rules": {"turn": 1, "chunk": 40, "box": [3, 50]}}, "does not lie"),
        ([clip()], {"turn_rules": {"turn": 0, "chunk": 40, "speakers": 77}}, "more than 16"),
        ([clip()], {"turn_rules": {"turn": 0, "chunk": 40, "count": [3, 2]}}, "fewest and most"),
    ],
)
def test_what_is_no_turn_is_refused(serve: Serve, content: Any, more: Any, said: str) -> None:
    answer = ask(serve(engine_api=True), *content, **more)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_other_refusals(serve: Serve) -> None:
    client = serve(engine_api=True)
    error_of(ask(client, clip(), model="other"), 404, "model_not_found")
    error_of(ask(client, clip(9.0)), 413, "audio_too_long")
    error_of(client.post("/v1/chat/completions", content=b"{"), 400, "invalid_json")
    no_base64 = {"type": "input_audio", "input_audio": {"data": "???", "format": "wav"}}
    assert "no base64" in error_of(ask(client, no_base64), 400, "invalid_value")
    said = [{"role": "user", "content": [clip()]}, {"role": "assistant", "content": "hello"}]
    later = [*said, {"role": "user", "content": [clip(1.0)]}]
    message = error_of(ask(client, messages=later), 400, "invalid_value")
    assert message.startswith("message 1: ")
    assert "no question" in error_of(ask(client, messages=said), 400, "invalid_value")
    twice = [said[0], said[0]]
    assert "in turn" in error_of(ask(client, messages=twice), 400, "invalid_value")
    sound = [said[0], {"role": "assistant", "content": [clip(1.0)]}, said[0]]
    assert "only users" in error_of(ask(client, messages=sound), 400, "invalid_value")


def test_clips_are_kept_under_their_names(serve: Serve) -> None:
    client = serve(engine_api=True)
    nameless = error_of(ask(client, clip(uuid="a", data=b"")), 400, "clip_not_found")
    assert "'a'" in nameless
    assert ask(client, clip(uuid="a")).status_code == 200
    assert ask(client, clip(uuid="a", data=b"")).status_code == 200
    other = error_of(ask(client, clip(3.0, uuid="a")), 400, "invalid_value")
    assert "the name of another clip" in other


def test_the_key_is_asked_for(serve: Serve) -> None:
    error_of(ask(serve(engine_api=True, api_key="k"), clip()), 401, "invalid_api_key")


def test_a_full_queue_lets_turns_wait(serve: Serve) -> None:
    gate = Gate()
    client = serve(gate, engine_api=True, queue=1, batch=1)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(client, clip()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert gate.reached.wait(20)
    for _ in range(2000):
        if answers:
            break
        threading.Event().wait(0.005)
    gate.open.set()
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 200 and statuses[-1] == 429
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all("retry-after" in answer.headers for answer in refused)


def test_a_context_that_runs_out_behind_the_server_is_named(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    local = load_engine(random_checkpoint, device="cpu")
    local.context_tokens = 400
    with ours(local, tmp_path) as url:
        model = httpx.get(f"{url}/models").json()["data"][0]["id"]
        engine = remote(url, model)
        dialogue = Dialogue(noise(19.0), engine.profile)
        for _ in run([dialogue], engine):
            pass
        engine.client.close()
    assert dialogue.outcome is not None and dialogue.outcome.stop is Stop.CONTEXT
    assert "400 tokens" in dialogue.outcome.detail


def test_an_engine_without_turns_is_refused(tmp_path: Path) -> None:
    class Whole(ScriptedEngine):
        in_order = True

    with (
        pytest.raises(SettingsError, match="--engine-api: the scripted needs whole recordings"),
        ours(Whole(play, Profile()), tmp_path),
    ):
        pass


def test_turns_end_with_the_engine_and_it_lives_on(serve: Serve) -> None:
    broken = iter([EngineError("out of memory")])

    def fail_once(request: Any) -> str:
        for error in broken:
            raise error
        return play(request)

    client = serve(fail_once, engine_api=True)
    assert "out of memory" in error_of(ask(client, clip()), 503, "engine_failed")
    assert ask(client, clip()).status_code == 200
