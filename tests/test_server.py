"""Requests to the server: transcriptions, what may be sent, who may ask, the queue."""

import errno
import io
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from speaker_reasoner.engines import Request
from speaker_reasoner.errors import EngineError, ServerError
from speaker_reasoner.server.openai import Letters
from speaker_reasoner.server.uploads import Limits, display_name
from speaker_reasoner.voices.clips import load_clip
from speaker_reasoner.voices.store import VoiceStore

from . import serving
from .serving import (
    URL,
    Gate,
    Serve,
    add_job,
    data_url,
    error_of,
    events_of,
    hum,
    known,
    post,
    sound,
    wait,
    wait_until,
    wav,
)
from .talk import play
from .test_meetings import CACHED, MEETING, Humming
from .vocal import voice

serve, meeting = serving.serve, serving.meeting

# Transcriptions


def test_diarized_json(serve: Serve) -> None:
    body = post(serve(), response_format="diarized_json", chunking_strategy="auto").json()
    assert (body["task"], body["duration"], body["text"]) == ("transcribe", 3.0, "one two")
    assert body["usage"] == {"type": "duration", "seconds": 3.0}
    first, second = body["segments"]
    assert first == {
        "type": "transcript.text.segment",
        "id": "seg_0",
        "start": 0.0,
        "end": 1.5,
        "speaker": "A",
        "text": "one",
        "gender": "female",
        "confidence": {"words": None, "speaker": None, "times": None},
        "overlap": False,
    }
    assert (second["speaker"], second["start"], second["gender"]) == ("B", 1.5, "male")


def test_other_formats(serve: Serve) -> None:
    client = serve()
    assert post(client).json() == {"text": "one two", "usage": {"type": "duration", "seconds": 3.0}}
    assert post(client, response_format="text").text == "one two\n"
    srt = post(client, response_format="srt")
    assert srt.text.startswith("1\n00:00:00,000 --> 00:00:01,500\nA (female): one\n")
    vtt = post(client, response_format="vtt")
    assert vtt.text.startswith("WEBVTT") and vtt.headers["content-type"].startswith("text/vtt")
    verbose = post(client, response_format="verbose_json", language="en", temperature="0").json()
    assert (verbose["language"], verbose["duration"]) == ("en", 3.0)
    segment = verbose["segments"][1]
    assert (segment["id"], segment["end"], segment["text"]) == (1, 3.0, "two")
    assert segment["avg_logprob"] is None and segment["no_speech_prob"] == 0.0


def test_streamed_segments_come_before_the_end(serve: Serve) -> None:
    text = post(serve(), response_format="diarized_json", stream="true").text
    events = [(name, data) for _, name, data in events_of(text)]
    assert [name.removeprefix("transcript.text.") for name, _ in events] == [
        "delta",
        "segment",
        "delta",
        "segment",
        "done",
    ]
    assert all(data["type"] == name for name, data in events)
    deltas = [data for name, data in events if name.endswith("delta")]
    assert [d["segment_id"] for d in deltas] == ["seg_0", "seg_1"]
    assert "".join(d["delta"] for d in deltas) == events[-1][1]["text"] == "one two"
    assert events[3][1]["speaker"] == "B"


def test_verbose_json_streams_as_diarized_json_does(serve: Serve) -> None:
    """Clients that ask for it by themselves get a stream where they wanted one."""
    client = serve()
    streams = [
        [
            (name, data)
            for _, name, data in events_of(post(client, response_format=kind, stream="true").text)
        ]
        for kind in ("verbose_json", "diarized_json")
    ]
    assert streams[0] == streams[1] and streams[0][-1][1]["segments"]


def test_what_is_not_streamed_is_answered_as_a_whole(serve: Serve) -> None:
    answer = post(serve(), response_format="srt", stream="true")
    assert "srt is answered as a whole" in answer.headers["x-warnings"]
    assert answer.text.startswith("1\n00:00:00,000")


def test_a_stream_of_text_has_no_segments(serve: Serve) -> None:
    names = [name for _, name, _ in events_of(post(serve(), stream="true").text)]
    assert names == ["transcript.text.delta"] * 2 + ["transcript.text.done"]


def test_a_failure_ends_a_stream_with_an_error(serve: Serve) -> None:
    def fail(request: Request) -> str:
        if request.rules.turn == 2:
            raise EngineError("out of memory")
        return play(request)

    events = events_of(post(serve(fail), stream="true").text)
    assert [name for _, name, _ in events] == ["transcript.text.delta", "error"]
    assert events[-1][2]["error"]["code"] == "engine_failed"


def test_the_engine_lives_on_after_a_failure(serve: Serve, caplog: Any) -> None:
    broken = iter([EngineError("out of memory"), ZeroDivisionError()])

    def fail_twice(request: Request) -> str:
        error = next(broken, None)
        if error is not None:
            raise error
        return play(request)

    client = serve(fail_twice)
    answer = post(client)
    assert "out of memory" in error_of(answer, 503, "engine_failed")
    assert answer.headers["retry-after"]
    assert "ZeroDivisionError" in error_of(post(client), 503, "engine_failed")
    assert "the engine thread met a bug" in caplog.text
    assert post(client).json()["text"] == "one two"


def test_letters_skip_known_names() -> None:
    letters = Letters(frozenset({"Ana", "B"}))
    assert [letters.of(x) for x in ("S1", "Ana", "S2", "S1", "B")] == ["A", "Ana", "C", "A", "B"]
    many = Letters()
    assert [many.of(str(i)) for i in range(28)][-3:] == ["Z", "AA", "AB"]


def test_models(serve: Serve) -> None:
    client = serve()
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("scripted", "model")
    assert client.get("/v1/models/scripted").json() == model
    error_of(client.get("/v1/models/whisper-1"), 404, "model_not_found")


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"model": "whisper-1"}, 404, "model_not_found", "this server has 'scripted'"),
        ({"language": "de"}, 400, "unsupported_language", "transcribes 'en'"),
        ({"response_format": "docx"}, 400, "invalid_value", "response_format"),
        ({"stream": "perhaps"}, 400, "invalid_value", "stream"),
        ({"speakers": "5-2"}, 400, "invalid_value", "5-2"),
        ({"speakers": "many"}, 400, "invalid_value", "speakers"),
        ({"chunking_strategy": "never"}, 400, "invalid_value", "chunking_strategy"),
        ({"chunking_strategy": '{"type": "server_vad", "threshold": 7}'}, 400, "invalid_value", ""),
        ({"chunking_strategy[type]": "client_vad"}, 400, "invalid_value", "chunking_strategy"),
        ({"chunking_strategy": "{"}, 400, "invalid_value", "JSON"),
        ({"known_speaker_names[]": "Ana"}, 400, "invalid_value", "one clip for each name"),
        ({"known_speaker_names[]": "A\nB"}, 400, "invalid_value", "printable"),
    ],
)
def test_wrong_fields(
    serve: Serve, fields: dict[str, str], status: int, code: str, said: str
) -> None:
    assert said in error_of(post(serve(), **fields), status, code)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": "0.7"}, "temperature: without effect"),
        ({"temperature": "warm"}, "temperature: without effect"),
        ({"prompt": "Names: Ana"}, "prompt: without effect"),
        ({"include[]": "logprobs"}, "include: without effect"),
        ({"include": "logprobs"}, "include: without effect"),
        ({"keywords": "budget"}, "keywords: without effect"),
        ({"languages[]": "en"}, "languages: without effect"),
        ({"timestamp_granularities": "word"}, "gives no times of words"),
        ({"timestamp_granularities[]": "word"}, "gives no times of words"),
        ({"colour": "red"}, "colour: not a field that this server knows"),
        ({"response_format": "verbose_json", "include": "logprobs"}, "include: without effect"),
        ({"temperature": "0.0", "language": "", "prompt": "", "stream": "false"}, None),
        ({"language": "en-GB"}, None),
    ],
)
def test_fields_without_effect_are_accepted_and_named(
    serve: Serve, fields: dict[str, str], said: str | None
) -> None:
    """In the answer, in its header, and where clients keep segments alone, on the first of them."""
    client = serve()
    answer = post(client, **{"response_format": "verbose_json", **fields})
    assert answer.status_code == 200, answer.text
    warnings = answer.json()["warnings"]
    header = json.loads(answer.headers.get("x-warnings", "[]"))
    first = answer.json()["segments"][0].get("warnings", [])
    if said is None:
        assert (warnings, header, first) == ([], [], [])
    else:
        assert said in warnings[0] and warnings == header == first


def test_warnings_reach_every_format(serve: Serve) -> None:
    client = serve()
    for kind in ("json", "text", "srt", "vtt", "verbose_json", "diarized_json"):
        answer = post(client, response_format=kind, prompt="Ana")
        assert "prompt" in json.loads(answer.headers["x-warnings"])[0], kind
        if kind not in ("text", "srt"):  # which have no comments
            assert "prompt: without effect" in answer.text
    streamed = events_of(post(client, stream="true", prompt="Ana").text)
    assert "prompt" in streamed[-1][2]["warnings"][0]
    assert "NOTE prompt: without effect" in post(client, response_format="vtt", prompt="Ana").text


def test_another_name_for_the_model(serve: Serve) -> None:
    client = serve(aliases=(("whisper-1", ""), ("gpt-4o-transcribe", "scripted")))
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert names == ["scripted", "whisper-1", "gpt-4o-transcribe"]
    assert client.get("/v1/models/whisper-1").json()["id"] == "whisper-1"
    assert post(client, model="whisper-1").json()["text"] == "one two"
    error_of(post(client, model="whisper-2"), 404, "model_not_found")
    with pytest.raises(ServerError, match="this server has 'scripted'"):
        serve(aliases=(("whisper-1", "another"),))


def test_no_translations(serve: Serve) -> None:
    answer = serve().post(
        "/v1/audio/translations", data={"model": "scripted"}, files={"file": ("a.wav", wav())}
    )
    assert "does not translate" in error_of(answer, 400, "unsupported_operation")


def test_a_job_names_what_is_without_effect(serve: Serve) -> None:
    client = serve()
    form = {"file": ("a.wav", wav())}
    answer = client.post("/v1/jobs", data={"colour": "red"}, files=form)
    assert answer.status_code == 202 and "colour" in answer.json()["warnings"][0]
    refused = client.post("/v1/jobs", data={"language": "de"}, files=form)
    error_of(refused, 400, "unsupported_language")


def test_what_may_be_asked_at_an_address(serve: Serve) -> None:
    client = serve()
    job = wait(client, add_job(client))
    url = f"/v1/jobs/{job['id']}"
    for path, allowed in {
        "/v1/jobs": "GET, HEAD, POST",
        url: "DELETE, GET, HEAD",
        f"{url}/cancel": "POST",
        "/health": "GET, HEAD",
    }.items():
        answer = client.patch(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
    for path in ("/", "/health", "/v1/models", "/v1/jobs", url, f"{url}/audio", f"{url}/events",
                 f"{url}/events?follow=true", f"{url}/document", f"{url}/transcript", "/metrics",
                 "/openapi.json"):  # fmt: skip
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        if "events" not in path and path != "/metrics":
            body = client.get(path)
            assert head.headers["content-type"] == body.headers["content-type"]
            assert head.headers["content-length"] == str(len(body.content)), path
    assert client.head("/v1/jobs/job_none").status_code == 404


def test_counts_do_not_grow_with_what_strangers_ask(serve: Serve) -> None:
    client = serve(api_key="secret")
    for n in range(50):
        client.request(f"BREW{n}", f"/coffee/{n}")
        client.get(f"/v1/jobs/{n}/events/{n}")
    right = {"authorization": "Bearer secret"}
    text = client.get("/metrics", headers=right).text
    counted = re.findall(r'requests_total\{method="(\w+)",route="([^"]+)"', text)
    assert len(counted) <= 4 and ("other", "other") in counted


def test_audio_by_a_signed_link(serve: Serve) -> None:
    """A player sends no key: it gets a link that is good for one recording, and for a while."""
    client = serve(api_key="secret")
    right = {"authorization": "Bearer secret"}
    form = {"file": ("a.wav", wav(3.0))}
    jobs = [client.post("/v1/jobs", files=form, headers=right).json()["id"] for _ in range(2)]
    peaks = client.get(f"/v1/jobs/{jobs[0]}/peaks", headers=right)
    assert len(peaks.content) == 300 and max(peaks.content) > 20
    assert (peaks.headers["x-peaks-per-second"], peaks.headers["x-duration"]) == ("100", "3.000000")
    link = f"/{peaks.headers['x-audio']}"
    assert client.get(link, headers={"range": "bytes=0-9"}).status_code == 206
    assert client.get(link).content[:4] == b"RIFF"
    for wrong in (
        link.replace(jobs[0], jobs[1]),
        link.replace("/audio?", "/document?"),
        re.sub(r"until=\d+", "until=99999999999", link),
        re.sub(r"until=\d+", "until=1", link),
        link[:-1],
        f"/v1/jobs/{jobs[0]}/audio",
    ):
        error_of(client.get(wrong), 401, "invalid_api_key")
    error_of(client.delete(link.replace("/audio", "")), 401, "invalid_api_key")


def test_pages_of_other_sites_that_are_allowed(serve: Serve) -> None:
    ours = "https://our.example"
    client = serve(origins=(ours,))
    asks = {"origin": ours, "access-control-request-method": "POST"}
    assert client.options("/v1/jobs", headers=asks).headers["access-control-allow-origin"] == ours
    answer = client.post("/v1/jobs", headers={"origin": ours}, files={"file": ("a", wav())})
    assert answer.status_code == 202
    assert answer.headers["access-control-allow-origin"] == ours
    other = {"origin": "https://evil.example"}
    refused = client.post("/v1/jobs", headers=other, files={"file": ("a", wav())})
    error_of(refused, 403, "origin_not_allowed")
    assert "access-control-allow-origin" not in refused.headers


def test_a_model_must_be_named(serve: Serve) -> None:
    answer = serve().post("/v1/audio/transcriptions", files={"file": ("a.wav", wav())})
    assert "model" in error_of(answer, 400, "missing_field")


@pytest.mark.parametrize(
    "fields",
    [
        {"chunking_strategy": '{"type": "server_vad", "silence_duration_ms": 300}'},
        {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.4"},
        {"speakers": "2-5", "timestamp_granularities[]": "segment", "language": "en-GB"},
    ],
)
def test_right_fields(serve: Serve, fields: dict[str, str]) -> None:
    assert post(serve(), **fields).json()["text"] == "one two"


# What is sent


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("talk.wav", wav())
    return file.getvalue()


@pytest.mark.parametrize(
    "data", [b"no audio", b"\0" * 4096, zipped(), b"\x89PNG\r\n\x1a\n" + wav()[:400], wav()[:900]]
)
def test_files_that_are_no_audio(serve: Serve, data: bytes, tmp_path: Path) -> None:
    message = error_of(post(serve(), data, name="../../etc/passwd"), 400, "invalid_audio")
    assert message.startswith("'passwd': ") and str(tmp_path) not in message


def test_an_empty_file(serve: Serve) -> None:
    answer = serve().post(
        "/v1/audio/transcriptions", data={"model": "scripted"}, files={"file": ("a.wav", b"")}
    )
    assert "empty file" in error_of(answer, 400, "invalid_audio")


def test_a_wav_file_that_is_a_zip_file_too_is_heard(serve: Serve) -> None:
    """Whatever follows the samples is never served to anybody."""
    client = serve()
    job = add_job(client, wav() + zipped())
    assert wait(client, job)["status"] == "done"
    sound = client.get(f"/v1/jobs/{job['id']}/audio").content
    assert b"PK\x03\x04" not in sound


def test_a_body_that_is_too_large_is_not_stored(serve: Serve, tmp_path: Path) -> None:
    client = serve(limits=Limits(body_bytes=100_000))

    def endless() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(1000):
            sent.append(1)
            yield b"\0" * 10_000

    sent: list[int] = []
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/audio/transcriptions", content=endless(), headers=headers)
    error_of(answer, 413, "request_too_large")
    told = post(client, wav(30.0))
    error_of(told, 413, "request_too_large")
    assert list((tmp_path / "store/incoming").iterdir()) == []


def test_a_recording_that_is_too_long_when_decoded(serve: Serve, tmp_path: Path) -> None:
    """An hour of silence in a few kilobytes of flac."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(3600 * 1000, np.int16), 1000, format="FLAC")
    assert len(file.getvalue()) < 20_000
    client = serve(limits=Limits(duration_s=60.0))
    message = error_of(post(client, file.getvalue()), 413, "audio_too_long")
    assert "longer than 60 s" in message
    assert list((tmp_path / "store/incoming").iterdir()) == []


PART = 'content-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("application/json", "{}", 415, "unsupported_media_type"),
        ("multipart/form-data", "", 415, "unsupported_media_type"),
        ("multipart/form-data; boundary=b", "", 400, "invalid_multipart"),
        ("multipart/form-data; boundary=b", "nothing", 400, "invalid_multipart"),
        ("multipart/form-data; boundary=b", f"--b\r\n{PART}abc", 400, "invalid_multipart"),
        (
            "multipart/form-data; boundary=b",
            "--b\r\na: b\r\n\r\n\r\n--b--",
            400,
            "invalid_multipart",
        ),
        (
            "multipart/form-data; boundary=b",
            f"--b\r\n{PART}a\r\n--b\r\n{PART}b\r\n--b--\r\n",
            400,
            "invalid_value",
        ),
        (f"multipart/form-data; boundary={'b' * 999}", "--b", 400, "invalid_multipart"),
        ("multipart/form-data; boundary=b", "--b\r\n" + "a" * 90_000, 400, "invalid_multipart"),
    ],
)
def test_wrong_multipart(serve: Serve, kind: str, body: str, status: int, code: str) -> None:
    answer = serve().post(
        "/v1/audio/transcriptions", content=body.encode(), headers={"content-type": kind}
    )
    error_of(answer, status, code)


def test_wrong_parts(serve: Serve) -> None:
    client = serve()
    route = "/v1/audio/transcriptions"
    text = client.post(route, files={"file": (None, "abc"), "model": (None, "scripted")})
    assert "must be a file" in error_of(text, 400, "invalid_value")
    file = client.post(route, files={"model": ("m", b"x"), "file": ("a.wav", wav())})
    assert "model" in error_of(file, 400, "invalid_value")
    no_file = client.post(route, files={"model": (None, "scripted")})
    error_of(no_file, 400, "missing_field")
    large = post(client, language="e" * 20_000)
    assert "language" in error_of(large, 413, "request_too_large")
    twice = client.post(route, files=[("model", (None, "a")), ("model", (None, "b"))])
    assert "given twice" in error_of(twice, 400, "invalid_value")
    mixed = client.post(route, files=[("x[a]", (None, "1")), ("x", (None, "2"))])
    assert "given twice" in error_of(mixed, 400, "invalid_value")
    long = client.post(route, files=[("x[]", (None, "x" * 10_000))] * 30)
    assert "together" in error_of(long, 413, "request_too_large")
    many = client.post(route, files=[("x[]", (None, ""))] * 1001)
    error_of(many, 413, "request_too_large")
    latin = client.post(route, files={"model": (None, b"\xff\xfe")})
    assert "UTF-8" in error_of(latin, 400, "invalid_value")


def test_a_body_that_stalls(serve: Serve) -> None:
    client = serve(limits=Limits(idle_s=0.05))

    def stall() -> Iterator[bytes]:
        yield b"--b\r\n"
        time.sleep(0.3)
        yield b"--b--"

    answer = client.post(
        "/v1/audio/transcriptions",
        content=stall(),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    error_of(answer, 408, "request_timeout")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://elsewhere/a.wav", "got 'http://elsewhere/a.wav'"),
        ("data:audio/wav;base64,?", "not base64"),
        ("data:audio/wav;base64,AAAA", "'Ana'"),
        (data_url(sound(voice(0.5))), "s of speech"),
        (data_url(sound(np.zeros(64_000))), "s of speech"),
        (data_url(sound(voice(12.0))), "longer than 10 s"),
        ("", "got ''"),
    ],
)
def test_references_that_are_no_clips(serve: Serve, url: str, said: str) -> None:
    fields = {"known_speaker_names[]": "Ana", "known_speaker_references[]": url}
    answer = post(serve(), **fields)
    assert said in error_of(answer, 400, "invalid_value")
    assert answer.json()["error"]["param"] == "known_speaker_references[0]"


def test_voices_that_the_model_cannot_use(serve: Serve) -> None:
    """Nothing here hears a voice: neither a speaker cache nor a witness."""
    answer = post(serve(), **known(Ana=voice(3.0)))
    assert "voices were given" in error_of(answer, 400, "invalid_value")


def test_voices_that_cannot_be_told_apart(serve: Serve) -> None:
    client = serve()
    twice = post(client, **known(Ana=voice(3.0), Bo=voice(3.0)))
    assert "'Ana' and 'Bo' have the same clip" in error_of(twice, 400, "invalid_value")
    for name in ("Speaker 3", "a\nb", " ", "x" * 101):
        wrong = post(client, **known(**{name: voice(3.0)}))
        assert "name of a voice" in error_of(wrong, 400, "invalid_value")


def test_known_speakers_keep_their_names(meeting: TestClient) -> None:
    fields = known(Ana=hum(300), **{"Bo=B": hum(700)})
    answer = post(meeting, sound(MEETING), response_format="diarized_json", **fields)
    assert answer.status_code == 200, answer.text
    told = {(s["speaker"], s["text"]) for s in answer.json()["segments"]}
    assert told == {("Ana", "hum 300"), ("Bo=B", "hum 700"), ("A", "hum 1000")}
    streamed = post(
        meeting, sound(MEETING), response_format="diarized_json", stream="true", **fields
    )
    events = events_of(streamed.text)
    assert told == {(d["speaker"], d["text"]) for _, name, d in events if name.endswith("segment")}
    job = add_job(meeting, sound(MEETING), **known(Ana=hum(300)), speakers="2-4")
    assert wait(meeting, job)["status"] == "done"
    text = meeting.get(f"/v1/jobs/{job['id']}/transcript?format=txt").text
    assert "Ana: hum 300" in text and "Ana: hum 700" not in text


def test_people_of_the_voice_store(serve: Serve, tmp_path: Path) -> None:
    store = VoiceStore(tmp_path / "voices")
    for name, pitch in (("Ana", 300), ("Bo=B", 700)):
        (tmp_path / "clip.wav").write_bytes(sound(hum(pitch)))
        store.add(name, [load_clip(tmp_path / "clip.wav")])
    client = serve(Humming(), CACHED, voices=tmp_path / "voices")
    people = client.get("/v1/voices").json()["data"]
    assert [(one["name"], one["clips"]) for one in people] == [("Ana", 1), ("Bo=B", 1)]
    assert people[0]["seconds"] == pytest.approx(2.5, abs=0.2)
    fields = {"voices[]": ["Ana"], **known(Bo=hum(700))}
    answer = post(client, sound(MEETING), response_format="diarized_json", **fields)
    assert answer.status_code == 200, answer.text
    told = {(s["speaker"], s["text"]) for s in answer.json()["segments"]}
    assert told == {("Ana", "hum 300"), ("Bo", "hum 700"), ("A", "hum 1000")}
    job = wait(client, add_job(client, sound(MEETING), **{"voices[]": ["Ana", "Bo=B", "Ana"]}))
    assert job["status"] == "done"
    text = client.get(f"/v1/jobs/{job['id']}/transcript?format=txt").text
    assert "Ana: hum 300" in text and "Bo=B: hum 700" in text
    wrong = post(client, sound(MEETING), **{"voices[]": "Cleo"})
    assert "'Cleo'" in error_of(wrong, 400, "voice_not_found")
    same = post(client, sound(MEETING), **{"voices[]": "Ana", **known(Cleo=hum(300))})
    assert "have the same clip" in error_of(same, 400, "invalid_value")
    next((tmp_path / "voices").glob("*/voice.json")).write_text("{")
    answer = client.get("/v1/voices")
    assert str(tmp_path) not in error_of(answer, 500, "voices_damaged")
    assert post(client, sound(MEETING)).status_code == 200


def test_no_voices_without_a_store(serve: Serve) -> None:
    client = serve()
    assert client.get("/v1/voices").json() == {"data": []}
    error_of(post(client, **{"voices[]": "Ana"}), 400, "voice_not_found")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("talk.wav", "talk.wav"),
        ("../../../etc/passwd", "passwd"),
        ("C:\\temp\\a.wav", "a.wav"),
        ("a\nb\0.wav", "a_b_.wav"),
        ("", "recording"),
        ("..", ".."),
        ("会议.flac", "会议.flac"),
    ],
)
def test_names_are_for_people(sent: str, shown: str) -> None:
    assert display_name(sent) == shown


def test_a_full_disk(serve: Serve, monkeypatch: Any, tmp_path: Path) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    client = serve()
    monkeypatch.setattr(os, "fsync", full)
    message = error_of(post(client), 507, "storage_failed")
    assert "No space left" in message and str(tmp_path) not in message
    assert list((tmp_path / "store/incoming").iterdir()) == []


@pytest.mark.parametrize("stream", ["false", "true"])
def test_an_answer_that_takes_too_long(serve: Serve, stream: str) -> None:
    gate = Gate()
    client = serve(gate, answer_s=0.2)
    answer = post(client, stream=stream)
    gate.open.set()
    if stream == "true":
        [(_, name, data)] = events_of(answer.text)
        assert (name, data["error"]["code"]) == ("error", "answer_timeout")
    else:
        assert "/v1/jobs" in error_of(answer, 504, "answer_timeout")


# Who may ask


def test_a_key(serve: Serve) -> None:
    client = serve(api_key="secret")
    answer = client.get("/v1/models")
    error_of(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer nothing", "Basic secret", "secret", "Bearer "):
        error_of(client.get("/v1/jobs", headers={"authorization": wrong}), 401, "invalid_api_key")
    right = {"authorization": "Bearer secret"}
    assert client.get("/v1/models", headers=right).status_code == 200
    assert client.get("/health").json()["status"] == "ok"
    error_of(client.get("/metrics"), 401, "invalid_api_key")


def test_other_sites_may_not_post(serve: Serve) -> None:
    client = serve()
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        answer = client.post("/v1/jobs", headers={"origin": origin}, files={"file": ("a", wav())})
        error_of(answer, 403, "origin_not_allowed")
        answer = client.delete("/v1/jobs/x", headers={"origin": origin})
        error_of(answer, 403, "origin_not_allowed")
    answer = client.post("/v1/jobs", headers={"origin": URL}, files={"file": ("a", wav())})
    assert answer.status_code == 202
    for host in ("evil.example", "", "127.0.0.1.evil.example", "10.0.0.1", "["):
        error_of(client.get("/v1/jobs", headers={"host": host}), 403, "host_not_allowed")
    for host in ("localhost:8000", "[::1]:8000", "127.0.0.2"):
        assert client.get("/v1/jobs", headers={"host": host}).status_code == 200


def test_the_page_is_fetched_once(serve: Serve) -> None:
    client = serve()
    first = client.get("/static/js/app.js")
    assert first.status_code == 200 and first.headers["cache-control"] == "no-cache"
    again = client.get("/static/js/app.js", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert again.headers["cache-control"] == "no-cache"


def test_headers_of_every_answer(serve: Serve) -> None:
    client = serve()
    for path in ("/", "/v1/models", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_unknown_routes_have_the_same_shape(serve: Serve) -> None:
    client = serve()
    error_of(client.get("/v1/nothing"), 404, "not_found")
    error_of(client.put("/v1/jobs"), 405, "method_not_allowed")
    error_of(client.get("/v1/jobs?limit=many"), 400, "invalid_value")
    error_of(client.get("/static/../../app.py"), 404, "not_found")
    error_of(client.get("/static/%2e%2e/app.py"), 404, "not_found")


def test_metrics(serve: Serve) -> None:
    client = serve()
    post(client)
    post(client, model="other")
    text = client.get("/metrics").text
    route = 'method="POST",route="/v1/audio/transcriptions"'
    assert f'speaker_reasoner_requests_total{{{route},status="200"}} 1.0' in text
    assert f'speaker_reasoner_requests_total{{{route},status="404"}} 1.0' in text
    assert 'speaker_reasoner_recordings_total{outcome="done"} 1.0' in text
    assert "speaker_reasoner_audio_seconds_total 3.0" in text


def test_everything_is_documented(serve: Serve) -> None:
    schema = serve().get("/openapi.json").json()
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            where = f"{method} {path}"
            assert route["summary"] and route["tags"], where
            refused = path == "/v1/audio/translations"
            assert refused or any(code.startswith("2") for code in route["responses"]), where
            if method == "post" and not path.endswith(("/retry", "/cancel", "/restore")):
                assert route["requestBody"]["content"], where
    form = schema["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
    properties = form["multipart/form-data"]["schema"]["properties"]
    assert {"file", "model", "known_speaker_names[]", "stream"} <= set(properties)
    assert "$ref" not in json.dumps(form)


# The queue


def test_a_full_queue(serve: Serve) -> None:
    gate = Gate()
    client = serve(gate, batch=1, queue=2)
    jobs = [add_job(client)]
    gate.reached.wait(5)
    jobs += [add_job(client), add_job(client)]
    assert [wait(client, job, "queued")["queue_position"] for job in jobs[1:]] == [0, 1]
    answer = client.post("/v1/jobs", files={"file": ("a.wav", wav())})
    error_of(answer, 429, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    error_of(post(client), 429, "queue_full")
    gate.open.set()
    assert [wait(client, job)["status"] for job in jobs] == ["done"] * 3
    assert post(client).status_code == 200


def test_clients_take_turns(serve: Serve) -> None:
    """By their keys: one with many recordings does not keep another waiting, nor out."""
    gate = Gate()
    client = serve(gate, batch=1, queue=5, api_key="one", more_keys=("two",))
    one, two = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))

    def add(headers: dict[str, str]) -> Any:
        answer = client.post("/v1/jobs", files={"file": ("a.wav", wav())}, headers=headers)
        return answer.json()["id"] if answer.status_code == 202 else answer.json()["error"]["code"]

    jobs = [add(one)]
    assert gate.reached.wait(5)
    jobs += [add(one) for _ in range(6)]
    assert jobs[-1] == "queue_full"
    others = [add(two) for _ in range(2)]
    gate.open.set()
    for job in [*jobs[:-1], *others]:
        wait_until(
            lambda job=job: (  # type: ignore[misc]
                client.get(f"/v1/jobs/{job}", headers=one).json()["status"] == "done"
            )
        )
    data = client.get("/v1/jobs", headers=one).json()["data"]
    ended = [row["id"] for row in sorted(data, key=lambda row: row["changed"])]
    assert [ended.index(job) for job in others] == [1, 3]
    assert client.get("/v1/jobs", headers={"authorization": "Bearer three"}).status_code == 401


def test_many_tiny_requests(serve: Serve) -> None:
    client = serve(queue=4)
    codes = {client.post("/v1/jobs", files={"file": ("a", b"x")}).status_code for _ in range(100)}
    assert codes == {400}
    assert post(client).status_code == 200


def test_recordings_of_several_requests_share_rounds(serve: Serve) -> None:
    gate = Gate()
    client = serve(gate, batch=4)
    jobs = [add_job(client, wav(3.0, i), name=f"{i}.wav") for i in range(4)]
    gate.open.set()
    for job in jobs:
        assert wait(client, job)["status"] == "done"
    text = client.get("/metrics").text
    small = float(text.split('round_dialogues_bucket{le="2.0"} ')[1].split()[0])
    rounds = float(text.split("round_dialogues_count ")[1].split()[0])
    assert small < rounds


def test_jobs_leave_a_place_to_requests(serve: Serve) -> None:
    """Two jobs of many chunks, two places: a request is served before the jobs are through."""

    def slow(request: Request) -> str:
        time.sleep(0.002)
        return play(request)

    client = serve(slow, batch=2)
    jobs = [add_job(client, wav(120.0)), add_job(client, wav(120.0))]
    assert post(client).json()["text"] == "one two"
    assert wait(client, jobs[0], "running")["status"] == "running"
