"""Gemini on responses in the documented shape, by the real types and client of google-genai and a loopback server."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from speaker_reasoner.engines.client import Unavailable
from speaker_reasoner.errors import AnswerError, EngineError, SettingsError
from speaker_reasoner.systems import gemini
from speaker_reasoner.systems.base import Answer, SystemOptions
from speaker_reasoner.systems.gemini import Gemini, load

from .fake_services import Service, always, serving
from .test_systems_speech import SOUND, said

genai = pytest.importorskip("google.genai", reason="pip install 'speaker-reasoner[gemini]'")

PRO = "gemini-3.1-pro-preview"
TRANSCRIBE = "gemini-3.5-transcribe"
ROWS = [
    {"start": 0.0, "end": 2.0, "speaker": "Speaker 1", "text": "hello"},
    {"start": "0:02", "end": "00:03.5", "speaker": "Speaker 2", "text": "good day"},
]
EXPECTED = [("Speaker 1", 0.0, 2.0, "hello"), ("Speaker 2", 2.0, 3.5, "good day")]


def response(
    parts: list[dict[str, Any]] | None, model: str = PRO, finish: str = "STOP", **more: Any
) -> dict[str, Any]:
    candidate = {"finishReason": finish, "index": 0}
    if parts is not None:
        candidate["content"] = {"role": "model", "parts": parts}
    return {
        "candidates": [candidate],
        "modelVersion": model,
        "usageMetadata": {
            "promptTokenCount": 320,
            "candidatesTokenCount": 40,
            "thoughtsTokenCount": 8,
        },
        **more,
    }


@pytest.fixture
def server() -> Iterator[Service]:
    with serving(always({})) as service:
        yield service


@pytest.fixture
def asked(server: Service) -> Iterator[Gemini]:
    system = load(SystemOptions(model=PRO, key="secret", base_url=server.url))
    yield system
    system.close()


def read(system: Gemini, body: dict[str, Any]) -> Any:
    """Through the SDK's type, and as it is stored."""
    made = genai.types.GenerateContentResponse.model_validate(body)
    answer = system.answer_of(made)
    return system.read(Answer(json.loads(json.dumps(answer.raw))), SOUND)


def reason(system: Gemini, body: dict[str, Any]) -> str:
    with pytest.raises(AnswerError) as caught:
        read(system, body)
    return caught.value.reason


@pytest.mark.parametrize(
    "parts",
    [
        [{"text": json.dumps(ROWS)}],
        [{"text": json.dumps(ROWS)[:30]}, {"text": json.dumps(ROWS)[30:]}],
        [{"text": "[1, 2]", "thought": True}, {"text": json.dumps(ROWS)}],
        [{"text": f"```json\n{json.dumps(ROWS)}\n```"}],
        [{"text": json.dumps({"segments": ROWS})}],
    ],
)
def test_answers_in_every_shape(asked: Gemini, parts: list[dict[str, Any]]) -> None:
    assert said(read(asked, response(parts))) == EXPECTED


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (response([{"text": json.dumps(ROWS)}], finish="MAX_TOKENS"), "truncated"),
        (response([{"text": json.dumps(ROWS)[:-9]}]), "truncated"),
        (response(None, finish="SAFETY"), "refused"),
        (response(None, finish="RECITATION"), "refused"),
        (response([{"text": "x"}], finish="MALFORMED_RESPONSE"), "format"),
        (response([{"text": "a plan", "thought": True}]), "empty"),
        (response([{"text": ""}]), "empty"),
        (response([{"text": "I am sorry, I cannot listen."}]), "refused"),
        ({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "modelVersion": PRO}, "refused"),
        ({"modelVersion": PRO}, "format"),
        (response([{"text": json.dumps(ROWS)}], model="gemini-3-flash"), "swapped-model"),
    ],
)
def test_answers_that_are_none(asked: Gemini, body: dict[str, Any], expected: str) -> None:
    assert reason(asked, body) == expected


def test_a_swapped_model_keeps_its_answer(asked: Gemini) -> None:
    made = genai.types.GenerateContentResponse.model_validate(
        response([{"text": "[]"}], model="gemini-3-flash")
    )
    with pytest.raises(AnswerError, match=f"asked for {PRO}, gemini-3-flash answered") as caught:
        asked.answer_of(made)
    assert json.loads(json.dumps(caught.value.raw))["model_version"] == "gemini-3-flash"


def transcription(*turns: dict[str, Any]) -> dict[str, Any]:
    return response([{"audioTranscription": turn} for turn in turns], TRANSCRIBE)


def word(text: str, start: str, end: str) -> dict[str, str]:
    return {"word": text, "startOffset": start, "endOffset": end}


def test_the_transcription_models_parts_are_in_any_order(server: Service) -> None:
    system = load(SystemOptions(key="k", base_url=server.url))
    late = {"text": "bye", "speakerLabel": "spk:1", "words": [word("bye", "4s", "4.500s")]}
    first = {
        "text": "good day",
        "speakerLabel": "spk:0",
        "words": [word("good", "1.200s", "1.6s"), word("day", "1.6s", "2s")],
    }
    transcript = read(system, transcription(late, first))
    assert said(transcript) == [("spk:0", 1.2, 2.0, "good day"), ("spk:1", 4.0, 4.5, "bye")]
    words = transcript.segments[0].words
    assert words is not None and [(w.text, w.start_s) for w in words] == [
        ("good", 1.2),
        ("day", 1.6),
    ]
    chinese = {
        "text": "你好",
        "speakerLabel": "spk:0",
        "words": [word("你", "1s", "2s"), word("好", "2s", "3s")],
    }
    assert said(read(system, transcription(chinese))) == [("spk:0", 1.0, 3.0, "你好")]
    alone = {"text": "hi", "words": [word("hi", "0s", "1s")]}
    assert said(read(system, transcription(alone))) == [("spk:0", 0.0, 1.0, "hi")]
    unnamed = read(system, transcription(first, alone))
    assert unnamed.segments[0].speaker == "unknown" and unnamed.warnings
    assert reason(system, transcription({"text": "hi", "speakerLabel": "spk:0"})) == "no-times"
    system.close()


def test_a_request_holds_sound_prompt_and_schema(asked: Gemini, server: Service) -> None:
    server.answer = always(response([{"text": json.dumps(ROWS)}]))
    answer = asked.ask(SOUND)
    [request] = server.requests
    assert request.path.endswith(f"models/{PRO}:generateContent")
    assert request.headers["x-goog-api-key"] == "secret"
    body = json.loads(request.body)
    sound, prompt = body["contents"][0]["parts"]
    assert "audio/flac" in json.dumps(sound) and prompt["text"] == answer.prompt
    config = body["generationConfig"]
    assert config["responseMimeType"] == "application/json" and config["temperature"] == 0
    assert (answer.model, answer.usage.input_tokens, answer.usage.output_tokens) == (PRO, 320, 48)
    assert said(asked.read(answer, SOUND)) == EXPECTED
    assert "secret" not in json.dumps([asked.describe(), answer.raw])


def test_the_transcription_model_has_no_prompt(server: Service) -> None:
    system = load(SystemOptions(key="k", base_url=server.url))
    server.answer = always(transcription({"text": "hi", "words": [word("hi", "0s", "1s")]}))
    answer = system.ask(SOUND)
    body = json.loads(server.requests[0].body)
    assert len(body["contents"][0]["parts"]) == 1 and answer.prompt is None
    assert "diarization" in json.dumps(body)
    system.close()
    with pytest.raises(SettingsError, match="--hotwords"):
        load(SystemOptions(key="k", hotwords="x"))


@pytest.mark.parametrize("status", [429, 503])
def test_what_may_pass_is_left_to_be_asked_again(
    asked: Gemini, server: Service, status: int
) -> None:
    server.answer = always({"error": {"code": status, "message": "later"}}, status)
    with pytest.raises(Unavailable) as caught:
        asked.ask(SOUND)
    assert caught.value.limited == (status == 429) and len(server.requests) == 1


def test_a_wrong_key_ends_the_run(asked: Gemini, server: Service) -> None:
    server.answer = always({"error": {"code": 403, "message": "no such key"}}, 403)
    with pytest.raises(EngineError, match="HTTP 403: no such key"):
        asked.ask(SOUND)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, [1, 2], None, {}])
def test_what_is_no_response_is_a_failure(asked: Gemini, server: Service, body: Any) -> None:
    server.answer = always(body)
    with pytest.raises(AnswerError) as caught:
        asked.read(asked.ask(SOUND), SOUND)
    assert caught.value.reason == "format"


def test_nobody_there(server: Service) -> None:
    """Whichever library of HTTP google-genai takes."""
    system = load(SystemOptions(model=PRO, key="k", base_url="http://127.0.0.1:9", timeout_s=5.0))
    with pytest.raises(Unavailable, match="refused"):
        system.ask(SOUND)
    system.close()


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["PROCESSING", "PROCESSING", "ACTIVE"], None),
        (["PROCESSING", "FAILED"], "refused"),
        (["PROCESSING"] * 99, "unavailable"),
    ],
)
def test_an_upload_that_is_processed_is_waited_for(
    states: list[str], expected: str | None, server: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemini, "_INLINE_BYTES", 100)
    monkeypatch.setattr(gemini, "_LOOK_S", 0.01)
    system = load(SystemOptions(model=PRO, key="k", base_url=server.url, timeout_s=0.5))
    looks = iter(states)
    types = genai.types

    class Files:
        def upload(self, file: Any, config: Any) -> Any:
            return types.File(name="files/x", uri="https://x/files/x", state="PROCESSING")

        def get(self, name: str) -> Any:
            state = next(looks)
            failed = types.FileStatus(message="no sound") if state == "FAILED" else None
            return types.File(
                name=name, uri="https://x/x", mime_type="audio/flac", state=state, error=failed
            )

        def delete(self, name: str) -> None:
            raise gemini._BROKEN[-1]("gone")

    monkeypatch.setattr(type(system._client), "files", property(lambda _: Files()))
    server.answer = always(response([{"text": json.dumps(ROWS)}]))
    if expected is None:
        assert said(system.read(system.ask(SOUND), SOUND)) == EXPECTED
    elif expected == "refused":
        with pytest.raises(AnswerError, match="no sound") as caught:
            system.ask(SOUND)
        assert caught.value.reason == "refused"
    else:
        with pytest.raises(Unavailable, match="not processed after"):
            system.ask(SOUND)
    system.close()


@pytest.mark.parametrize("status", [200, 500])
def test_large_sound_is_uploaded_and_deleted(
    asked: Gemini, server: Service, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemini, "_INLINE_BYTES", 100)
    deleted: list[str] = []

    class Files:
        def upload(self, file: Any, config: Any) -> Any:
            assert file.read(4) == b"fLaC" and config.mime_type == "audio/flac"
            return genai.types.File(name="files/x", uri="https://x/files/x", mime_type="audio/flac")

        def get(self, name: str) -> Any:
            return genai.types.File(name=name, uri="https://x/files/x", mime_type="audio/flac")

        def delete(self, name: str) -> None:
            deleted.append(name)

    monkeypatch.setattr(type(asked._client), "files", property(lambda _: Files()))
    server.answer = always(response([{"text": json.dumps(ROWS)}]), status)
    if status == 200:
        assert said(asked.read(asked.ask(SOUND), SOUND)) == EXPECTED
        assert "https://x/files/x" in server.requests[0].body.decode()
    else:
        with pytest.raises(Unavailable):
            asked.ask(SOUND)
    assert deleted == ["files/x"]
