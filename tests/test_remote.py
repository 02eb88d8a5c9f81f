"""The remote engine: what it sends, what it makes of answers, and how servers fail."""

import asyncio
import base64
import gc
import io
import itertools
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile

from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.cli import main
from speaker_reasoner.engines import client as client_module
from speaker_reasoner.engines import remote
from speaker_reasoner.engines.base import Stop
from speaker_reasoner.engines.chat import Malformed, read_completion, wav
from speaker_reasoner.engines.client import Address, Client, retry_after
from speaker_reasoner.engines.connecting import connect
from speaker_reasoner.engines.remote import AGAIN, UNCONSTRAINED, RemoteEngine
from speaker_reasoner.errors import EngineError, SettingsError
from speaker_reasoner.formats import read
from speaker_reasoner.protocol import Profile
from speaker_reasoner.reasoner import Dialogue, Outcome, run

from .conftest import noise
from .remote_server import Answer, AskedServer, asked_server, completion, error

PROFILE = Profile(decimals=1, chunk_s=4.0)
OVERVIEW = "<think>\n2 speakers: Speaker1-female, Speaker2-male\n</think><box>[0.0, 2.0]</box>"
FIRST = "<think>\nSpeaker1-female [0.0, 2.0]: one\n</think><box>[2.0, 4.0]</box>"
SECOND = "<think>\nSpeaker2-male [2.0, 4.0]: two\n</think><answer>"
TURNS = (OVERVIEW, FIRST, SECOND)
ENTRY = {"id": "m", "owned_by": "vllm", "profile": asdict(PROFILE)}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(client_module, "_FIRST_WAIT_S", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def number(body: dict[str, Any]) -> int:
    """The number of the turn that is asked for."""
    return sum(row["role"] == "assistant" for row in body["messages"])


def play(body: dict[str, Any]) -> str:
    return TURNS[number(body)]


class Player:
    """Plays dialogues over chunks of any length: two halves, a line in each."""

    def __init__(self) -> None:
        self.ticks: dict[str, int] = {}

    def __call__(self, body: dict[str, Any]) -> str:
        for part in clips(body):
            if data := base64.b64decode(part["input_audio"]["data"]):
                frames = soundfile.info(io.BytesIO(data)).frames
                self.ticks[part["uuid"]] = frames * 10 // 16_000
        chunk = self.ticks[clips(body)[0]["uuid"]]
        if number(body) == 0:
            return OVERVIEW.replace("2.0]", f"{chunk // 2 / 10}]")
        start, end = re.findall(r"<box>\[(.*), (.*)\]", body["messages"][-2]["content"])[0]
        line = f"<think>\nSpeaker1-female [{start}, {end}]: so\n</think>"
        turn = f"{line}<box>[{end}, {chunk / 10}]</box>"
        expression = body["structured_outputs"]["regex"]
        return turn if re.fullmatch(expression, turn) else f"{line}<answer>"


Reply = Callable[[dict[str, Any]], Answer | str]


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[RemoteEngine, AskedServer]]]:
    """Start a server that answers as it is told, and an engine that asks it."""
    with ExitStack() as stack:

        def start(
            reply: Reply = play, *, entry: Any = ENTRY, retries: int = 2, **options: Any
        ) -> tuple[RemoteEngine, AskedServer]:
            server = stack.enter_context(asked_server(reply, models=[entry]))
            address = Address(server.url, retries=retries, timeout_s=options.pop("timeout_s", 20.0))
            engine = connect(address, "m", **options)
            stack.enter_context(closing(engine.client))
            return engine, server

        yield start


def outcomes(engine: RemoteEngine, count: int = 1) -> list[Outcome]:
    dialogues = [Dialogue(noise(4.0, seed), engine.profile) for seed in range(count)]
    for _ in run(dialogues, engine):
        pass
    return [dialogue.outcome for dialogue in dialogues if dialogue.outcome is not None]


def outcome(engine: RemoteEngine) -> Outcome:
    [one] = outcomes(engine)
    return one


def words(found: Outcome) -> list[str]:
    return [heard.line.text for heard in found.lines]


def clips(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        part
        for row in body["messages"]
        if row["role"] == "user"
        for part in row["content"]
        if part["type"] == "input_audio"
    ]


Serve = Callable[..., tuple[RemoteEngine, AskedServer]]

# What is sent


def test_a_dialogue_is_sent_as_messages_and_its_history_as_it_was_written(serve: Serve) -> None:
    engine, server = serve()
    found = outcome(engine)
    assert found.stop is Stop.ANSWERED and words(found) == ["one", "two"]
    assert [number(body) for body in server.asked] == [0, 1, 2]
    last = server.asked[-1]
    assert (last["model"], last["temperature"], last["logprobs"]) == ("m", 0, True)
    roles = [row["role"] for row in last["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert [row["content"] for row in last["messages"][1::2]] == [OVERVIEW, FIRST]
    question = last["messages"][0]["content"]
    assert [part["type"] for part in question] == ["input_audio", "text"]
    assert question[1]["text"] == PROFILE.wording.initial_text
    for body in server.asked:
        expression = body["structured_outputs"]["regex"]
        assert re.fullmatch(expression, play(body))


def test_clips_arrive_as_they_are_and_once(serve: Serve) -> None:
    engine, server = serve()
    outcome(engine)
    sent = [clips(body) for body in server.asked]
    samples = noise(4.0)
    for turn, (first, end) in enumerate(((0, 64_000), (0, 32_000), (32_000, 64_000))):
        own = sent[turn][-1]
        heard, rate = soundfile.read(
            io.BytesIO(base64.b64decode(own["input_audio"]["data"])), dtype="float32"
        )
        assert rate == 16_000 and own["input_audio"]["format"] == "wav"
        np.testing.assert_array_equal(heard, samples[first:end])
        assert all(part["input_audio"]["data"] == "" for part in sent[turn][:-1])
    names = [part["uuid"] for part in sent[-1]]
    assert len(set(names)) == 3 and [part["uuid"] for part in sent[1]] == names[:2]


def test_all_clips_with_every_turn_where_the_server_keeps_none(serve: Serve) -> None:
    engine, server = serve(entry={**ENTRY, "owned_by": "sglang"})
    outcome(engine)
    for body in server.asked:
        assert all(part["input_audio"]["data"] and "uuid" not in part for part in clips(body))
        assert re.fullmatch(body["regex"], play(body)) and "structured_outputs" not in body


def test_a_lost_clip_is_sent_again(serve: Serve) -> None:
    """Servers say it in their own words, or fail."""

    def forgetful(body: dict[str, Any]) -> Answer | str:
        lost = any(not part["input_audio"]["data"] for part in clips(body))
        return error(500 if number(body) == 1 else 400, "cache miss") if lost else play(body)

    engine, server = serve(forgetful)
    assert words(outcome(engine)) == ["one", "two"]
    assert [number(body) for body in server.asked] == [0, 1, 1, 2, 2]
    server.asked.clear()  # clips that are lost time and again go with every turn
    assert [words(outcome(engine)) for _ in range(2)] == [["one", "two"]] * 2
    assert [number(body) for body in server.asked] == [0, 0, 1, 2, 0, 1, 2]


def test_a_clip_has_one_name_whenever_it_is_written(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of a WAV file of floats hold the time of day."""
    count = itertools.count()
    monkeypatch.setattr(remote, "wav", lambda samples: wav(samples) + bytes((next(count),)))
    engine, server = serve()
    for _ in range(2):
        outcome(engine)
    sent = [[part["uuid"] for part in clips(body)] for body in server.asked]
    assert sent[:3] == sent[3:] and len(set(sent[2])) == 3


@pytest.mark.parametrize("samples", [noise(1.5), np.round(noise(1.5) * 32768) / 32768, noise(0.3)])
def test_a_wav_file_loses_nothing(samples: Any) -> None:
    samples = samples.astype(np.float32)
    heard, _ = soundfile.read(io.BytesIO(wav(samples)), dtype="float32")
    np.testing.assert_array_equal(heard[: len(samples)], samples)
    assert len(heard) == max(len(samples), 16_000) and not heard[len(samples) :].any()
    exact = bool((samples * 32768 == np.round(samples * 32768)).all())
    assert soundfile.info(io.BytesIO(wav(samples))).subtype == ("PCM_16" if exact else "FLOAT")


def test_turns_of_many_dialogues_are_asked_at_once_over_kept_connections(serve: Serve) -> None:
    barrier = threading.Barrier(3, timeout=10)

    def together(body: dict[str, Any]) -> str:
        barrier.wait()
        return play(body)

    engine, server = serve(together)
    assert [words(found) for found in outcomes(engine, 3)] == [["one", "two"]] * 3
    assert len(server.asked) == 9 and len(server.connections) == 3


def test_the_key_is_sent_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with asked_server(play, models=[ENTRY]) as server:
        engine = connect(Address(server.url, "secret"), "m")
        outcome(engine)
        assert set(server.keys) == {"Bearer secret"}
        assert "secret" not in json.dumps(engine.describe())
        engine.client.close()


def test_it_can_be_asked_where_an_event_loop_runs(serve: Serve) -> None:
    engine, _ = serve()

    async def inside() -> Outcome:
        return outcome(engine)

    assert words(asyncio.run(inside())) == ["one", "two"]


# Turns that are wrong

BACKWARDS = "<think>\nSpeaker1-female [1.5, 0.5]: one\n</think><box>[2.0, 4.0]</box>"


def test_what_an_expression_cannot_say_is_asked_for_again_from_what_was_right(serve: Serve) -> None:
    def reply(body: dict[str, Any]) -> str:
        if number(body) != 1:
            return play(body)
        expression = body["structured_outputs"]["regex"]
        return BACKWARDS if re.fullmatch(expression, BACKWARDS) else BACKWARDS.replace("0.5", "1.8")

    engine, server = serve(reply)
    transcript = transcribed(engine)
    assert [(s.start_s, s.end_s) for s in transcript.segments] == [(1.5, 1.8), (2.0, 4.0)]
    assert f"1 time: {AGAIN}" in transcript.warnings
    again = server.asked[2]["structured_outputs"]["regex"]
    assert (
        again.startswith(r"<think>\nSpeaker1-female \[1\.5, (1\.") and number(server.asked[2]) == 1
    )
    assert [row["role"] for row in server.asked[2]["messages"]] == ["user", "assistant", "user"]


def test_a_turn_that_stays_wrong_is_salvaged(serve: Serve) -> None:
    wrong = FIRST.replace("</think>", "Speaker2-male [0.5, 0.4]: no\n</think>")
    engine, server = serve(lambda body: wrong if number(body) == 1 else play(body))
    found = outcome(engine)
    assert found.stop is Stop.MALFORMED and words(found) == ["one"]
    assert found.missing is not None and found.missing.end == 40
    assert [number(body) for body in server.asked].count(1) == 5


def test_a_server_without_constraints_is_told_what_was_wrong(serve: Serve) -> None:
    def reply(body: dict[str, Any]) -> Answer | str:
        if "structured_outputs" in body:
            return error(400, "structured_outputs: extra fields are not permitted")
        said = [row for row in body["messages"] if row["role"] == "user"][-1]["content"]
        text = "".join(part.get("text", "") for part in said)
        if "breaks the rules" in text:
            assert body["messages"][-2] == {"role": "assistant", "content": BACKWARDS}
            assert "[1.5, " in text and body["temperature"] > 0
            return FIRST
        return BACKWARDS if number(body) == 1 else play(body)

    engine, _ = serve(reply)
    transcript = transcribed(engine)
    assert [s.text for s in transcript.segments] == ["one", "two"]
    assert transcript.warnings == (f"1 time: {UNCONSTRAINED}", f"1 time: {AGAIN}")
    answers = [p["answer"] for p in transcript.traces[0]["parts"] if "answer" in p]
    assert answers == list(TURNS)


def test_several_that_are_refused_at_once_all_go_on(serve: Serve) -> None:
    barrier = threading.Barrier(3, timeout=10)

    def reply(body: dict[str, Any]) -> Answer | str:
        if "structured_outputs" in body:
            barrier.wait()
            return error(400, "regex: not supported")
        return play(body)

    engine, _ = serve(reply)
    assert [words(found) for found in outcomes(engine, 3)] == [["one", "two"]] * 3


def test_a_constraint_that_was_asked_for_is_not_dropped(serve: Serve) -> None:
    engine, _ = serve(
        lambda body: error(400, "unknown field structured_outputs"), constraint="regex"
    )
    with pytest.raises(EngineError, match="HTTP 400: unknown field structured_outputs"):
        outcome(engine)


def test_none_sends_no_constraint(serve: Serve) -> None:
    engine, server = serve(constraint="none")
    assert words(outcome(engine)) == ["one", "two"]
    assert not any(
        {"structured_outputs", "regex", "turn_rules"} & set(body) for body in server.asked
    )


def test_a_transcript_behind_an_opened_answer_is_not_needed(serve: Serve) -> None:
    longer = SECOND + "\nSpeaker1-female [0.0, 2.0]: one\n</answer>\n"
    engine, _ = serve(lambda body: longer if number(body) == 2 else play(body) + "\n")
    found = outcome(engine)
    assert found.stop is Stop.ANSWERED and [a.text for a in found.trace.answers] == list(TURNS)


# Confidences


def spelled(text: str, logprob: float, **choice: Any) -> Answer:
    rows = [
        {"token": part, "logprob": logprob, "bytes": list(part.encode())}
        for part in re.findall(r"\w+|\W", text)
    ]
    rows.append({"token": "<|im_end|>", "logprob": -0.1, "bytes": list(b"<|im_end|>")})
    return Answer(completion(text, logprobs={"content": rows}, **choice))


def test_logprobs_become_confidences(serve: Serve) -> None:
    engine, _ = serve(lambda body: spelled(play(body), math.log(0.5)))
    transcript = transcribed(engine)
    for segment in transcript.segments:
        for value in asdict(segment.confidence).values():
            assert value == pytest.approx(0.5)
    assert transcript.info["tokens"] == sum(len(re.findall(r"\w+|\W", turn)) for turn in TURNS)


def test_a_server_without_logprobs_is_asked_without(serve: Serve) -> None:
    engine, server = serve(
        lambda body: error(422, "logprobs are not supported") if "logprobs" in body else play(body)
    )
    assert words(outcome(engine)) == ["one", "two"]
    assert [("logprobs" in body) for body in server.asked] == [True, False, False, False]


@pytest.mark.parametrize(
    "logprobs",
    [
        {"content": [{"token": "x", "logprob": -1.0, "bytes": [120]}]},
        {"content": [{"logprob": -1.0}]},
        {"content": "no"},
        [],
    ],
)
def test_logprobs_that_do_not_spell_the_turn_count_for_nothing(logprobs: Any) -> None:
    found = read_completion(completion("<think>", logprobs=logprobs))
    assert (found.sizes, found.probabilities, found.tokens) == ((), (), 0)
    assert read_completion({**completion("a"), "usage": {"completion_tokens": 7}}).tokens == 7


# Named stops


@pytest.mark.parametrize(
    ("answer", "stop", "said"),
    [
        (Answer(completion(SECOND, model="other")), Stop.MODEL_SWAPPED, "'other' answered"),
        (
            Answer(completion(SECOND.replace("</think>", "Speaker1-fe"), finish_reason="length")),
            Stop.LENGTH,
            "cut off",
        ),
        (Answer(completion("")), Stop.EMPTY, "empty reply"),
        (Answer(completion(None)), Stop.EMPTY, "empty reply"),
        (Answer(completion("", finish_reason="content_filter")), Stop.REFUSED, "refused"),
        (
            error(
                400, "This model's maximum context length is 4096 tokens. However, you sent 5000"
            ),
            Stop.CONTEXT,
            "4096 tokens",
        ),
        (
            error(400, "At most 2 audio(s) may be provided in one prompt."),
            Stop.AUDIO_LIMIT,
            "2 aud",
        ),
        (error(413, "Request Entity Too Large"), Stop.AUDIO_LIMIT, "413"),
        (error(400, "some new rule"), Stop.REFUSED, "some new rule"),
        (error(500, "boom"), Stop.SERVER, "HTTP 500: boom"),
        (Answer(raw=b"<html>busy</html>", kind="text/html"), Stop.SERVER, "text/html"),
        (Answer(raw=b"\x00\xff garbage"), Stop.SERVER, "expected a JSON object"),
        (Answer(raw=b'{"choices": [', promised=500), Stop.SERVER, "RemoteProtocolError"),
        (Answer({"error": {"message": "no room"}}), Stop.SERVER, "an error: no room"),
        (Answer({"object": "error", "message": "no room"}), Stop.SERVER, "an error: no room"),
        (Answer({"hello": 1}), Stop.SERVER, "no chat completion"),
        (Answer([1]), Stop.SERVER, "expected a JSON object"),
        (Answer({"choices": []}), Stop.SERVER, "no chat completion"),
        ("\ud83d", Stop.SERVER, "half a surrogate pair"),
    ],
)
def test_a_failure_midway_is_a_named_stop_and_the_turns_are_kept(
    serve: Serve, answer: Answer, stop: Stop, said: str
) -> None:
    engine, server = serve(lambda body: answer if number(body) == 2 else play(body), retries=1)
    transcript = transcribed(engine)
    expected = ["one", "two"] if stop is Stop.LENGTH else ["one"]
    assert [segment.text for segment in transcript.segments] == expected
    assert transcript.info["stops"] == {str(stop): 1}
    if stop is not Stop.LENGTH:  # its whole line is kept, and reaches to the end
        [gap] = transcript.missing
        assert (gap.start_s, gap.end_s) == (2.0, 4.0)
        assert gap.reason.startswith(f"{stop}: ") and said in gap.reason and "\n" not in gap.reason
    assert number(server.asked[-1]) == 2


def test_a_thought_that_the_server_splits_off_is_an_error(serve: Serve) -> None:
    message = {"role": "assistant", "content": "<box>[0.0, 2.0]</box>", "reasoning_content": "2"}
    engine, _ = serve(lambda body: Answer(completion("", message=message)))
    with pytest.raises(EngineError, match="without a reasoning parser"):
        outcome(engine)


def test_what_is_no_completion_says_what_it_is() -> None:
    with pytest.raises(Malformed, match="an object of a, b"):
        read_completion({"a": 1, "b": 2})
    parts = [{"type": "text", "text": "<think>"}, {"type": "text", "text": "\n"}]
    assert read_completion(completion(parts)).text == "<think>\n"  # type: ignore[arg-type]


# Attempts


@pytest.mark.parametrize(
    "first",
    [
        error(429, "slow down", Retry_After="0"),
        error(503, "loading"),
        error(500, "boom"),
        Answer(raw=b"<html></html>", kind="text/html"),
        Answer(raw=b'{"choices": [', promised=500),
    ],
)
@pytest.mark.parametrize("send_audio", ["always", "once"])
def test_what_passes_is_tried_again(serve: Serve, first: Answer, send_audio: str) -> None:
    failures = {1: [first, first]}

    def reply(body: dict[str, Any]) -> Answer | str:
        left = failures.get(number(body), [])
        return left.pop() if left else play(body)

    engine, server = serve(reply, send_audio=send_audio)
    assert words(outcome(engine)) == ["one", "two"]
    assert [number(body) for body in server.asked] == [0, 1, 1, 1, 2]


def test_the_time_that_a_server_names_is_waited_for(serve: Serve) -> None:
    asked: list[float] = []

    def reply(body: dict[str, Any]) -> Answer | str:
        asked.append(time.monotonic())
        return error(429, "slow down", Retry_After="1") if len(asked) == 1 else play(body)

    engine, _ = serve(reply)
    outcome(engine)
    assert 1.0 <= asked[1] - asked[0] < 5.0


def test_a_limit_that_stays_ends_the_run(serve: Serve) -> None:
    engine, server = serve(lambda body: error(429, "slow down"))
    with pytest.raises(EngineError, match=r"HTTP 429: slow down \(3 attempts\): use a smaller"):
        outcome(engine)
    assert len(server.asked) == 3
    engine, server = serve(lambda body: error(429, "come back tomorrow", Retry_After="86400"))
    with pytest.raises(
        EngineError, match=r"tomorrow \(1 attempt\): wait 86400 s, or use a smaller"
    ):
        outcome(engine)
    assert len(server.asked) == 1


def test_times_to_wait_are_numbers_or_dates() -> None:
    assert retry_after("7") == 7.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("soon") is None and retry_after(None) is None


def test_a_server_that_is_silent_ends_in_time(serve: Serve) -> None:
    engine, server = serve(lambda body: Answer({}, wait_s=2.0), timeout_s=0.2, retries=1)
    began = time.monotonic()
    found = outcome(engine)
    assert found.stop is Stop.SERVER and "no answer within 0.2 s" in found.detail
    assert time.monotonic() - began < 1.9 and len(server.asked) == 2


def test_an_endless_answer_is_not_read_to_its_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_MOST_BYTES", 1000)
    engine, _ = serve(lambda body: Answer(raw=b" " * 5000), retries=0)
    assert "more than 1000 bytes" in outcome(engine).detail


def test_an_interrupt_ends_the_wait(serve: Serve) -> None:
    engine, _ = serve(lambda body: Answer({}, wait_s=5.0))
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # xdist's workers ignore it
    try:
        timer.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            outcome(engine)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 3.0


def test_a_client_can_be_closed_twice(serve: Serve) -> None:
    engine, _ = serve()
    thread = engine.client._loop.thread
    engine.client.close()
    engine.client.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_client_is_closed_when_nobody_has_it() -> None:
    client = Client(Address("http://127.0.0.1:9/v1"))
    thread = client._loop.thread
    assert thread.is_alive()
    del client
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


# Connecting


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([{"id": "other"}], "no model 'm' there, but other"),
        (error(401, "wrong key"), "HTTP 401: wrong key; name the variable that holds the key"),
        (error(403, "not you"), "HTTP 403: not you"),
        (error(500, "boom"), "HTTP 500: boom; check --base-url and whether the server runs"),
        (Answer(raw=b"<html>hello</html>", kind="text/html"), "text/html, '<html>hello</html>'"),
        (Answer({"data": 3}), "expected a list of models"),
        (Answer(None, 302, headers={"location": "http://x/"}), "redirected to http://x/"),
    ],
)
def test_a_server_that_does_not_fit_is_told_at_once(models: Any, said: str) -> None:
    with asked_server(play, models=models) as server, pytest.raises(EngineError) as caught:
        connect(Address(server.url, retries=0), "m")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_address_is_told_at_once() -> None:
    with asked_server(play, models=[ENTRY]) as server:
        short = server.url.removesuffix("/v1")
        with pytest.raises(EngineError, match=r"HTTP 404: Not Found; .* often ends in /v1"):
            connect(Address(short, retries=0), "m")
        gone = server.url
    with pytest.raises(EngineError, match=r"ConnectError: .*whether the server runs"):
        connect(Address(gone, retries=0), "m")
    for url in ("localhost:8000", "ftp://a/v1", "http://", "http://[::1", "nonsense"):
        with pytest.raises(SettingsError, match="expected the address of an API"):
            Address(url)
    with pytest.raises(SettingsError, match="printable ASCII"):
        Address(gone, "schlüssel")


def test_prompts_are_the_servers_or_a_file(tmp_path: Path) -> None:
    with asked_server(play, models=[{"id": "m", "owned_by": "vllm"}]) as server:
        address = Address(server.url)
        with pytest.raises(SettingsError, match="--prompts FILE"):
            connect(address, "m")
        replace(PROFILE, chunk_s=9.0).save(tmp_path)
        for given in (tmp_path, tmp_path / "speaker_reasoner.json"):
            engine = connect(address, "m", prompts=given)
            assert engine.profile.chunk_s == 9.0
            engine.client.close()
        for option in ("constraint", "send_audio"):
            with pytest.raises(SettingsError, match="expected one of auto"):
                connect(address, "m", **{option: "some"})
    with asked_server(play, models=error(404, "Not Found")) as server:  # it has no list of models
        engine = connect(Address(server.url, retries=0), "m", prompts=tmp_path)
        assert engine.server == "unknown"
        engine.client.close()


def test_options_that_do_not_fit_a_server() -> None:
    with pytest.raises(SettingsError, match="expected --engine openai with"):
        load_engine("m", base_url="http://localhost:1/v1")
    with pytest.raises(SettingsError, match="--device cpu: a model on a server has no use of it"):
        load_engine("m", engine="openai", base_url="http://localhost:1/v1", device="cpu")


# As a user


def transcribed(engine: RemoteEngine) -> Transcript:
    transcriber = Transcriber(engine, witness=None, detect=None)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "recording.wav"
        soundfile.write(file, noise(4.0), 16_000, subtype="PCM_16")
        return transcriber.transcribe(file)


def command(server: str, file: Path, *more: str) -> Sequence[str]:
    address = ["--engine", "openai", "--base-url", server, "--model", "m", "--retries", "1"]
    quiet = ["--witness", "none", "--vad", "energy", *more]
    return ["transcribe", str(file), *address, *quiet]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    file = tmp_path / "talk.wav"
    soundfile.write(file, noise(11.5), 16_000, subtype="PCM_16")
    return file


def test_a_server_that_goes_away_loses_nothing(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its error is one line, what was finished is kept, and the same command goes on."""
    out, calls, player = tmp_path / "out", itertools.count(), Player()

    def reply(body: dict[str, Any]) -> Answer | str:
        if next(calls) >= 4:
            server.models = error(502, "bad gateway")
            return error(502, "bad gateway")
        return player(body)

    with asked_server(reply, models=[ENTRY]) as server:
        arguments = command(server.url, recording, "-o", str(out), "--batch", "1", "-q")
        assert main(arguments) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "HTTP 502: bad gateway" in line and "run the same command again" in line
        assert (out / ".speaker-reasoner" / "talk.journal").exists()
        server.models, before = [ENTRY], len(server.asked)
        server.reply = player
        assert main(arguments) == 0
        first = json.dumps(server.asked[0]["messages"][0])
        assert first not in [json.dumps(b["messages"][0]) for b in server.asked[before:]]
    [transcript] = read(out / "talk.json")
    assert transcript.info["stops"] == {"answered": transcript.info["chunks"]}


def test_a_recording_that_a_server_fails_on_is_written_and_not_done(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    broken, player = {"on": True}, Player()

    def reply(body: dict[str, Any]) -> Answer | str:
        return error(500, "boom") if broken["on"] and number(body) == 2 else player(body)

    with asked_server(reply, models=[ENTRY]) as server:
        arguments = command(server.url, recording, "-o", str(out))
        assert main(arguments) == 1
        assert "not all of it could be transcribed (server)" in capsys.readouterr().err
        [transcript] = read(out / "talk.json")
        assert "HTTP 500: boom" in transcript.missing[0].reason
        assert sum("answer" in part for part in transcript.traces[0]["parts"]) == 3
        broken["on"] = False
        assert main(arguments) == 0
        assert not read(out / "talk.json")[0].missing
        asked = len(server.asked)
        assert main(arguments) == 0 and len(server.asked) == asked


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--engine", "openai"], "needs --base-url URL and --model NAME"),
        (["--base-url", "http://localhost:1/v1"], "needs --engine openai"),
        (
            ["--retries", "5", "--send-audio", "auto"],
            "--send-audio and --retries need --engine openai",
        ),
        (
            [
                "--engine",
                "openai",
                "--base-url",
                "http://localhost:1/v1",
                "--model",
                "m",
                "--api-key-env",
                "NO_SUCH_VARIABLE",
            ],
            "NO_SUCH_VARIABLE: this environment variable is not set",
        ),
        (["--timeout", "0"], "at least 1"),
        (["--retries", "-1"], "--retries"),
    ],
)
def test_wrong_usage(
    recording: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["transcribe", str(recording), *more])
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_errors_of_a_server_are_one_line(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "abc")
    with asked_server(lambda body: error(401, "wrong\nkey"), models=[ENTRY]) as server:
        assert main([*command(server.url, recording), "--api-key-env", "KEY"]) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and "HTTP 401: wrong key; name the variable" in line
        assert set(server.keys) == {"Bearer abc"}
    assert main(command(server.url, recording)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "ConnectError" in line
