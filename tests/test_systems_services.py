"""Hosted systems, each by its real library against a loopback server with answers in the documented shape."""

import copy
import json
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner import cli
from speaker_reasoner.engines.client import Unavailable
from speaker_reasoner.errors import AnswerError, EngineError, ExtraError
from speaker_reasoner.longform import Item
from speaker_reasoner.systems.asking import Asking, How, understood
from speaker_reasoner.systems.base import REASONS, Answer, Sound, SystemOptions
from speaker_reasoner.systems.table import ENGINE, HERE, PUBLISHED, SYSTEMS, load
from speaker_reasoner.transcript import Transcript

from .fake_services import Reply, Request, Service, serving
from .forked import ASKING, Forked
from .talk import save
from .test_systems import bytes_of
from .vocal import voice

KEY = "sk-hidden-0123456789"
LIBRARIES = {
    "openai": "openai",
    "assemblyai": "assemblyai",
    "elevenlabs": "elevenlabs",
    "deepgram": "deepgram",
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries


def scribed(
    text: str, start: float, end: float, speaker: int, kind: str = "word"
) -> dict[str, Any]:
    """A word of ElevenLabs."""
    who = {"speaker_id": f"speaker_{speaker}", "logprob": -0.1}
    return {"text": text, "start": start, "end": end, "type": kind, **who}


def nova(text: str, start: float, end: float, speaker: int) -> dict[str, Any]:
    """A word of Deepgram."""
    bare = text.strip(",.?").lower()
    row = {"word": bare, "punctuated_word": text, "start": start, "end": end}
    return {**row, "confidence": 0.9, "speaker": speaker}


OPENAI: dict[str, Any] = {
    "task": "transcribe",
    "duration": 6.0,
    "text": "Good morning. Hello, who is there?",
    "segments": [
        {
            "type": "transcript.text.segment",
            "id": "seg_0",
            "start": 0.2,
            "end": 1.6,
            "speaker": "A",
            "text": " Good morning.",
        },
        {
            "type": "transcript.text.segment",
            "id": "seg_1",
            "start": 2.0,
            "end": 4.5,
            "speaker": "B",
            "text": " Hello, who is there?",
        },
    ],
    "usage": {"type": "tokens", "input_tokens": 60, "output_tokens": 21, "total_tokens": 81},
}
ELEVENLABS = {
    "language_code": "eng",
    "language_probability": 0.98,
    "text": "Good morning. Hello, who is there?",
    "words": [
        scribed("Good", 0.2, 0.6, 0),
        scribed(" ", 0.6, 0.7, 0, "spacing"),
        scribed("morning.", 0.7, 1.6, 0),
        scribed("(laughs)", 1.6, 1.9, 0, "audio_event"),
        scribed("Hello,", 2.0, 2.5, 1),
        scribed(" ", 2.5, 2.6, 1, "spacing"),
        scribed("who", 2.6, 3.0, 1),
        scribed("is", 3.0, 3.4, 1),
        scribed("there?", 3.4, 4.5, 1),
    ],
    "transcription_id": "t1",
}
ASSEMBLYAI = {
    "id": "t1",
    "status": "completed",
    "audio_url": "https://upload.invalid/1",
    "language_code": "en_us",
    "audio_duration": 6,
    "speech_model_used": "universal",
    "text": "Good morning. Hello, who is there?",
    "words": [],
    "utterances": [
        {
            "speaker": "A",
            "text": "Good morning.",
            "start": 200,
            "end": 1600,
            "confidence": 0.9,
            "words": [
                {"text": "Good", "start": 200, "end": 600, "confidence": 0.9, "speaker": "A"},
                {"text": "morning.", "start": 700, "end": 1600, "confidence": 0.9, "speaker": "A"},
            ],
        },
        {
            "speaker": "B",
            "text": "Hello, who is there?",
            "start": 2000,
            "end": 4500,
            "confidence": 0.8,
            "words": [],
        },
    ],
}
DEEPGRAM = {
    "metadata": {
        "request_id": "r1",
        "sha256": "0" * 64,
        "created": "2026-11-01T00:00:00Z",
        "duration": 6.0,
        "channels": 1,
        "models": ["m1"],
        "model_info": {
            "m1": {"name": "general-nova-3", "version": "2026-01-01.0", "arch": "nova-3"}
        },
    },
    "results": {
        "channels": [
            {
                "alternatives": [
                    {
                        "transcript": "Good morning. Hello, who is there?",
                        "confidence": 0.9,
                        "words": [
                            nova("Good", 0.2, 0.6, 0),
                            nova("morning.", 0.7, 1.6, 0),
                            nova("Hello,", 2.0, 2.5, 1),
                            nova("who", 2.6, 3.0, 1),
                            nova("is", 3.0, 3.4, 1),
                            nova("there?", 3.4, 4.5, 1),
                        ],
                    }
                ]
            }
        ]
    },
}
ANSWERS: dict[str, Any] = {
    "openai": OPENAI,
    "assemblyai": ASSEMBLYAI,
    "elevenlabs": ELEVENLABS,
    "deepgram": DEEPGRAM,
}
WHERE = {
    "openai": "/v1/audio/transcriptions",
    "assemblyai": "/v2/transcript",
    "elevenlabs": "/v1/speech-to-text",
    "deepgram": "/v1/listen",
}


def as_service(name: str, answer: Any) -> Callable[[Request], Reply]:
    """The answers of a service to whoever transcribes with it; `answer` is the last one."""

    def reply(request: Request) -> Reply:
        path = request.path.partition("?")[0]
        given = answer(request) if callable(answer) else answer
        last = given if isinstance(given, Reply) else Reply(given)
        if name != "assemblyai":
            assert path == WHERE[name], path
            return last
        if path == "/v2/upload":
            return Reply({"upload_url": "https://upload.invalid/1"})
        if request.method == "POST":
            return Reply({"id": "t1", "status": "queued", "audio_url": "https://upload.invalid/1"})
        return last

    return reply


@pytest.fixture(params=sorted(ANSWERS))
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(LIBRARIES[request.param])
    return str(request.param)


def system(name: str, service: Service, **options: Any) -> Any:
    url = service.url + ("/v1" if name == "openai" else "")
    return load(name, SystemOptions(base_url=url, key=KEY, timeout_s=20.0, **options))


def asked(name: str, answer: Any, **options: Any) -> Transcript:
    """What becomes of an answer."""
    sound = Sound("call", voice(6.0))
    with (
        serving(as_service(name, answer)) as service,
        closing(system(name, service, **options)) as one,
    ):
        got = one.ask(sound)
        assert json.loads(json.dumps(got.raw)) == got.raw
        return understood(one, got, sound)


def test_who_said_what_and_when(name: str) -> None:
    transcript = asked(name, ANSWERS[name])
    first, second = transcript.segments
    assert first.speaker != second.speaker
    assert (first.start_s, first.end_s, first.text) == (0.2, 1.6, "Good morning.")
    assert (second.start_s, second.end_s, second.text) == (2.0, 4.5, "Hello, who is there?")
    assert transcript.recording == "call" and transcript.duration_s == 6.0
    if name != "openai":
        assert first.words is not None and first.words[1].end_s == 1.6


def part(name: str, value: str) -> str:
    """A field of a form, as `multipart/form-data` has it."""
    return f'name="{name}"\r\n\r\n{value}\r\n'


def test_what_is_sent(name: str) -> None:
    options: dict[str, Any] = {"language": "de"}
    if name != "openai":
        options["hotwords"] = "Ana Maria, Bo"
    if name in ("assemblyai", "elevenlabs"):
        options["speakers"] = (2, 2)
    with serving(as_service(name, ANSWERS[name])) as service:
        one = system(name, service, **options)
        answer = one.ask(Sound("call", voice(6.0)))
        one.close()
    text = " ".join(r.path + r.body.decode("latin-1") for r in service.requests)
    assert "fLaC" in text
    assert KEY in str([r.headers for r in service.requests])
    assert KEY not in text and KEY not in json.dumps([one.describe(), answer.raw, repr(one)])
    if name != "openai":
        assert "Ana" in text and "Bo" in text
    expected = {
        "openai": [
            part("response_format", "diarized_json"),
            part("chunking_strategy", "auto"),
            part("model", "gpt-4o-transcribe-diarize"),
            part("language", "de"),
        ],
        "assemblyai": ['"speaker_labels":true', '"speakers_expected":2', '"language_code":"de"'],
        "elevenlabs": [
            part("model_id", "scribe_v2"),
            part("diarize", "true"),
            part("tag_audio_events", "false"),
            part("num_speakers", "2"),
            part("language_code", "de"),
            part("keyterms", "Ana Maria"),
        ],
        "deepgram": ["diarize=true", "model=nova-3", "language=de", "keyterm="],
    }[name]
    assert [one for one in expected if one not in text] == []


def test_usage_and_model_are_kept() -> None:
    for name, model in (("deepgram", "general-nova-3 2026-01-01.0"), ("assemblyai", "universal")):
        pytest.importorskip(LIBRARIES[name])
        with (
            serving(as_service(name, ANSWERS[name])) as service,
            closing(system(name, service)) as one,
        ):
            answer = one.ask(Sound("call", voice(6.0)))
        assert answer.model == model and answer.usage.billed_s == 6
    pytest.importorskip("openai")
    with (
        serving(as_service("openai", OPENAI)) as service,
        closing(system("openai", service)) as one,
    ):
        usage = one.ask(Sound("call", voice(6.0))).usage
    assert (usage.input_tokens, usage.output_tokens) == (60, 21)


def changed(answer: Any, change: Callable[[Any], Any]) -> Any:
    own = copy.deepcopy(answer)
    other = change(own)
    return own if other is None else other


def words_of(raw: Any) -> list[dict[str, Any]]:
    words: list[dict[str, Any]] = raw["results"]["channels"][0]["alternatives"][0]["words"]
    return words


ODD: dict[str, tuple[str, Callable[[Any], Any], list[tuple[str, str]], str]] = {
    # name: (service, change, speakers and texts, part of a warning)
    "one speaker without a label": (
        "elevenlabs",
        lambda raw: [word.pop("speaker_id") for word in raw["words"]] and None,
        [("unknown", "Good morning. Hello, who is there?")],
        "name no speaker",
    ),
    "a missing speaker": (
        "openai",
        lambda raw: raw["segments"][0].pop("speaker") and None,
        [("unknown", "Good morning."), ("B", "Hello, who is there?")],
        "1 segments name no speaker",
    ),
    "a null speaker": (
        "assemblyai",
        lambda raw: raw["utterances"][0].update(speaker=None),
        [("unknown", "Good morning."), ("B", "Hello, who is there?")],
        "1 segments name no speaker",
    ),
    "speakers from 0": (
        "deepgram",
        lambda raw: None,
        [("0", "Good morning."), ("1", "Hello, who is there?")],
        "",
    ),
    "words without spaces": (
        "elevenlabs",
        lambda raw: raw.update(
            words=[scribed(c, 0.3 * n, 0.3 * n + 0.3, 0) for n, c in enumerate("你好，今天")]
        ),
        [("speaker_0", "你好，今天")],
        "",
    ),
    "times out of order": (
        "openai",
        lambda raw: raw["segments"].reverse(),
        [("A", "Good morning."), ("B", "Hello, who is there?")],
        "",
    ),
    "no punctuated words": (
        "deepgram",
        lambda raw: [word.pop("punctuated_word") for word in words_of(raw)] and None,
        [("0", "good morning"), ("1", "hello who is there")],
        "",
    ),
    "utterances without words, and no labels": (
        "assemblyai",
        lambda raw: raw.update(
            utterances=None,
            words=[
                {"text": "Good", "start": 200, "end": 600, "confidence": 0.9},
                {"text": "morning.", "start": 700, "end": 1600, "confidence": 0.9},
            ],
        ),
        [("unknown", "Good morning.")],
        "name no speaker",
    ),
    "keys that nobody knows yet": (
        "deepgram",
        lambda raw: raw["results"].update(future=[1]) or words_of(raw)[0].update(mood="x"),
        [("0", "Good morning."), ("1", "Hello, who is there?")],
        "",
    ),
    "an end a little past the sound": (
        "openai",
        lambda raw: raw["segments"][1].update(end=6.4),
        [("A", "Good morning."), ("B", "Hello, who is there?")],
        "ended after the recording",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_shapes(case: str) -> None:
    name, change, expected, warning = ODD[case]
    pytest.importorskip(LIBRARIES[name])
    transcript = asked(name, changed(ANSWERS[name], change))
    assert [(s.speaker, s.text) for s in transcript.segments] == expected
    assert warning in " ".join(transcript.warnings)
    assert bool(transcript.warnings) == bool(warning)


BAD: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    # name: (service, change, reason)
    "empty": ("openai", lambda raw: raw.update(segments=[], text=""), "empty"),
    "no segments": ("openai", lambda raw: raw.pop("segments") and None, "format"),
    "text alone": ("elevenlabs", lambda raw: raw.update(words=[]), "empty"),
    "no times": (
        "elevenlabs",
        lambda raw: [word.update(start=None, end=None) for word in raw["words"]] and None,
        "no-times",
    ),
    "times are lost": (
        "openai",
        lambda raw: raw["segments"][1].update(end=None),
        "no-times",
    ),
    "milliseconds where seconds are expected": (
        "deepgram",
        lambda raw: [w.update(start=w["start"] * 1000, end=w["end"] * 1000) for w in words_of(raw)] and None,
        "format",
    ),
    "an end before its start": (
        "openai",
        lambda raw: raw["segments"][0].update(start=1.6, end=0.2),
        "format",
    ),
    "an error of the service": (
        "assemblyai",
        lambda raw: raw.update(status="error", error="the file has no sound", utterances=None),
        "refused",
    ),
    "utterances that are none": (
        "assemblyai",
        lambda raw: raw["utterances"][0].pop("words") and None,
        "format",
    ),
    "a loop": (
        "openai",
        lambda raw: raw["segments"][1].update(text="thank you very much " * 30),
        "loop",
    ),
    "another document": ("deepgram", lambda raw: {"request_id": "later"}, "format"),
    "a page": ("elevenlabs", lambda raw: Reply("<html>sign in</html>"), "format"),
    "a page, too": ("openai", lambda raw: Reply("<html>sign in</html>"), "format"),
    "half an object": ("deepgram", lambda raw: Reply('{"results": {"chan'), "format"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_answers(case: str) -> None:
    name, change, reason = BAD[case]
    pytest.importorskip(LIBRARIES[name])
    with pytest.raises(AnswerError) as caught:
        asked(name, changed(ANSWERS[name], change))
    assert caught.value.reason == reason


WRONG: tuple[Any, ...] = (None, "", "x", -1, 1e12, True, [], {}, [None], {"a": 1}, float("nan"))


def places(value: Any) -> list[tuple[Any, Any]]:
    """All places of a JSON value, as their container and key."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value))
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def test_whatever_an_answer_holds_it_is_a_transcript_or_a_failure(name: str) -> None:
    """Each place of an answer, one after the other, holds something else."""
    sound, seen = Sound("call", voice(6.0)), set()
    with serving(as_service(name, {})) as service, closing(system(name, service)) as one:
        for number in range(len(places(ANSWERS[name]))):
            for wrong in WRONG:
                raw = copy.deepcopy(ANSWERS[name])
                container, key = places(raw)[number]
                container[key] = wrong
                try:
                    transcript = understood(one, Answer(raw), sound)
                    assert transcript.segments
                    seen.add("transcript")
                except AnswerError as error:
                    assert error.reason in REASONS
                    seen.add(error.reason)
    assert {"transcript", "format", "empty"} <= seen


@pytest.mark.no_cover
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_whatever_is_sent_back_it_is_an_answer_or_a_failure(name: str) -> None:
    """Also what says how much was used, and by which model: it is no number, or no text."""
    top = [(key, None) for key in ANSWERS[name]]
    inner = [(k, i) for k in ("usage", "metadata") for i in ANSWERS[name].get(k, ())]
    sound = Sound("call", voice(6.0))
    for key, part in top + inner:
        for wrong in (None, "x", [], {}, True, -1):
            raw = copy.deepcopy(ANSWERS[name])
            if part is None:
                raw[key] = wrong
            else:
                raw[key][part] = wrong
            with serving(as_service(name, raw)) as service, closing(system(name, service)) as one:
                try:
                    answer = one.ask(sound)
                    used = [answer.usage.input_tokens, answer.usage.billed_s]
                    assert all(n is None or n >= 0 for n in used)
                    understood(one, answer, sound)
                except (AnswerError, Unavailable):
                    pass


NO_OBJECTS = (None, [1, 2], b"", b'"\xff\xfe"', b"[" * 100_000, {}, b"{")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("body", NO_OBJECTS, ids=range(len(NO_OBJECTS)))
def test_what_is_no_object_is_a_failure(name: str, body: Any) -> None:
    """As proxies answer; of AssemblyAI, to each of its requests."""
    sound = Sound("call", voice(6.0))
    replies = [as_service(name, Reply(body)), lambda request: Reply(body)]
    for reply in replies:
        with (
            serving(reply) as service,
            closing(system(name, service)) as one,
            pytest.raises(AnswerError) as caught,
        ):
            understood(one, one.ask(sound), sound)
        assert caught.value.reason == "format"


def test_a_redirection_ends_the_run(name: str) -> None:
    """The libraries follow some of them; where one stays, the address is wrong."""
    with serving(lambda _: Reply("", 305, {"location": "http://127.0.0.1:9/"})) as service:
        one = system(name, service)
        with pytest.raises((EngineError, Unavailable)):
            one.ask(Sound("call", voice(2.0)))
        one.close()


def test_a_transcript_that_was_accepted_is_not_submitted_again() -> None:
    """Where looking at it fails for a moment; one that is gone is."""
    pytest.importorskip("assemblyai")
    statuses = iter([503, 200, 404, 200])

    def looked(request: Request) -> Reply:
        status = next(statuses) if request.method == "GET" else 200
        return Reply(ASSEMBLYAI if status == 200 else {"error": "not now"}, status)

    sound = Sound("call", voice(6.0))
    with (
        serving(as_service("assemblyai", looked)) as service,
        closing(system("assemblyai", service)) as one,
    ):

        def submitted() -> int:
            return sum(r.method == "POST" and "upload" not in r.path for r in service.requests)

        with pytest.raises(Unavailable):
            one.ask(sound)
        assert submitted() == 1
        assert understood(one, one.ask(sound), sound).segments and submitted() == 1
        with pytest.raises(EngineError, match="404"):
            one.ask(sound)
        assert one.ask(sound).raw["status"] == "completed" and submitted() == 3


def test_a_swapped_model_of_deepgram() -> None:
    pytest.importorskip("deepgram")
    for model in ("nova-3", "nova-3-medical", "0a1b-custom"):
        assert asked("deepgram", DEEPGRAM, model=model).segments
    for model in ("nova-2", "nova", "nova-2-meeting"):
        with pytest.raises(AnswerError, match=f"asked for {model}, nova-3 answered") as caught:
            asked("deepgram", DEEPGRAM, model=model)
        assert caught.value.reason == "swapped-model"


def test_a_swapped_model() -> None:
    pytest.importorskip("assemblyai")
    with pytest.raises(AnswerError, match="asked universal-3-pro, got universal") as caught:
        asked("assemblyai", ASSEMBLYAI, model="universal-3-pro")
    assert caught.value.reason == "swapped-model"


def error_body(name: str, message: str) -> Any:
    return {
        "openai": {"error": {"message": message, "type": "x", "code": None, "param": None}},
        "assemblyai": {"error": message},
        "elevenlabs": {"detail": {"status": "x", "message": message}},
        "deepgram": {"err_code": "X", "err_msg": message, "request_id": "r"},
    }[name]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, EngineError), (400, AnswerError), (422, AnswerError), (429, Unavailable), (500, Unavailable)],
)  # fmt: skip
def test_errors_of_http(name: str, status: int, kind: type[Exception]) -> None:
    body = error_body(name, "that was wrong")

    def answer(request: Request) -> Reply:
        return Reply(body, status, {"retry-after": "7"})

    with serving(answer) as service:
        one = system(name, service)
        with pytest.raises(kind, match="that was wrong") as caught:
            one.ask(Sound("call", voice(2.0)))
        one.close()
    assert len(service.requests) == 1  # the library does not try again by itself
    assert KEY not in str(caught.value)
    if isinstance(caught.value, Unavailable):
        assert caught.value.limited is (status == 429) and caught.value.wait_s == 7.0
    if isinstance(caught.value, AnswerError):
        assert caught.value.reason == "refused" and "that was wrong" in json.dumps(caught.value.raw)


def test_too_long_is_told() -> None:
    pytest.importorskip("openai")
    message = "audio duration 1500 seconds is longer than 1400 seconds which is the maximum"
    with (
        serving(lambda request: Reply(error_body("openai", message), 400)) as service,
        closing(system("openai", service)) as one,
        pytest.raises(AnswerError, match="1400 seconds") as caught,
    ):
        one.ask(Sound("call", voice(2.0)))
    assert caught.value.reason == "too-long"


def test_a_file_that_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.setattr("speaker_reasoner.systems.openai_diarize._MOST_BYTES", 100)
    with (
        serving(as_service("openai", OPENAI)) as service,
        closing(system("openai", service)) as one,
        pytest.raises(AnswerError, match="--longest-piece S") as caught,
    ):
        one.ask(Sound("call", voice(2.0)))
    assert caught.value.reason == "too-long" and service.requests == []


def test_nobody_there(name: str) -> None:
    with serving(lambda request: Reply({})) as service:
        pass
    with closing(system(name, service)) as one, pytest.raises(Unavailable) as caught:
        one.ask(Sound("call", voice(2.0)))
    assert not caught.value.limited


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(4):
        save(folder / f"call-{number}.wav", voice(6.0, seed=number))
    return sorted(folder.iterdir())


def test_eight_at_once(name: str, recordings: list[Path], tmp_path: Path) -> None:
    def slow(request: Request) -> Any:
        end = time.monotonic() + 5.0
        while service.most < 8 and time.monotonic() < end:
            time.sleep(0.005)
        return ANSWERS[name]

    with serving(as_service(name, slow)) as service:
        one = system(name, service)
        items = [Item(recordings[n % 4], f"call {n}") for n in range(12)]
        how = How(at_once=SYSTEMS[name].at_once)
        with Asking(one, tmp_path / "out", how, ["json"]) as asking:
            results = list(asking.run(items))
        one.close()
    assert service.most >= 8
    assert all(isinstance(result.outcome, Transcript) for result in results)


def command(name: str, service: Service, recordings: list[Path], out: Path) -> list[str]:
    url = service.url + ("/v1" if name == "openai" else "")
    files = [str(path) for path in recordings]
    return ["transcribe", *files, "--system", name, "--base-url", url, "-o", str(out), "-q"]


@pytest.fixture
def keyed(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(SYSTEMS[name].key_env, KEY)
    return name


def test_the_command(
    keyed: str, recordings: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with serving(as_service(keyed, ANSWERS[keyed])) as service:
        assert cli.main(command(keyed, service, recordings, out)) == 0
        count = len(service.requests)
        assert cli.main(command(keyed, service, recordings, out)) == 0
        assert len(service.requests) == count
        assert cli.main([*command(keyed, service, recordings, out), "--dry-run"]) == 0
        assert len(service.requests) == count
    assert "4 recordings are answered already" in " ".join(capsys.readouterr().out.split())
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(list(out.glob("*.json"))) == 4 and len(list(out.glob("*.txt"))) == 4
    assert all(KEY not in path.read_text() for path in files)


def test_the_command_tries_again_without_being_told_how_often(
    keyed: str, recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speaker_reasoner.systems.pacing._FIRST_WAIT_S", 0.001)
    busy = iter([Reply(error_body(keyed, "busy"), 503)] * 2)

    def answer(request: Request) -> Reply:
        return next(busy, None) or as_service(keyed, ANSWERS[keyed])(request)

    with serving(answer) as service:
        assert cli.main(command(keyed, service, recordings[:1], tmp_path / "out")) == 0
    assert (tmp_path / "out/call-0.json").exists()


def test_warnings_are_shown_by_a_quiet_command(
    recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _, change, _, warning = ODD["a missing speaker"]
    with serving(as_service("openai", changed(OPENAI, change))) as service:
        assert cli.main(command("openai", service, recordings[:1], tmp_path / "out")) == 0
    assert f"warning: {warning}" in capsys.readouterr().err


def test_a_dry_run_shows_names_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "[red]call.wav", voice(2.0))
    words = ["transcribe", str(tmp_path), "--system", "elevenlabs", "--dry-run"]
    assert cli.main(words) == 0
    assert "[red]call: 2.0 s" in capsys.readouterr().out


def test_a_dry_run_sends_nothing_and_needs_no_key(
    recordings: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("ELEVENLABS_API_KEY", raising=False)
    files = [str(path) for path in recordings]
    words = [
        "transcribe",
        *files,
        "--system",
        "elevenlabs",
        "-o",
        str(tmp_path / "out"),
        "--dry-run",
    ]
    assert cli.main(words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "call-0: 6.0 s, 1 request" in said and "cost: unknown" in said
    assert "about 4 requests, 0.007 h of audio" in said and not (tmp_path / "out").exists()
    assert cli.main([*words, "--price-per-hour", "60", "--longest-piece", "4"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "about 8 requests" in said and "cost: about 0.40, at 60 an hour" in said
    assert cli.main(words[:-1]) == 1
    assert "ELEVENLABS_API_KEY" in capsys.readouterr().err


def test_a_dry_run_of_every_system_needs_nothing(
    recordings: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """No key, library, server or environment; what is told of the cost is where the system runs."""
    for name, entry in SYSTEMS.items():
        monkeypatch.delenv(entry.key_env or "NONE", raising=False)
        words = ["transcribe", str(recordings[0]), "--system", name, "--dry-run"]
        if entry.runs == ENGINE:
            with pytest.raises(SystemExit):
                cli.main(words)
            continue
        assert cli.main(words) == (1 if entry.runs == PUBLISHED else 0)
        said = " ".join(capsys.readouterr().out.split())
        if entry.runs == PUBLISHED:
            continue
        assert "nothing was sent" in said and f"to {name}: " in said
        here = entry.runs == HERE and not entry.served
        assert ("cost: none" if here else "cost: unknown") in said
        assert ("name it by --base-url" in said) == entry.served
        assert cli.main([*words, "--price-per-hour", "600"]) == 0
        assert "cost: about 1.00, at 600 an hour" in capsys.readouterr().out
    words = ["transcribe", str(recordings[0]), "--system", "moss", "--base-url", "http://h/v1"]
    assert cli.main([*words, "--dry-run"]) == 0
    assert "cost: unknown" in capsys.readouterr().out


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in (LIBRARIES[name], "elevenlabs.client"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraError, match=rf"the system {name} needs .*\[{name}\]"):
        load(name, SystemOptions(key=KEY))


@pytest.mark.parametrize(
    "kills", [pytest.param(3, id="a few"), pytest.param(20, id="twenty", marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_it_ends_the_same(
    recordings: list[Path], tmp_path: Path, kills: int
) -> None:
    """Processes of their own, killed by SIGKILL; the server answers late, so that most die while they wait."""
    pytest.importorskip("openai")
    rng = random.Random(kills)
    late = {"s": 0.0}

    def slow(request: Request) -> Any:
        time.sleep(late["s"])
        return {**OPENAI, "segments": OPENAI["segments"][:1]}  # in the first two seconds

    with serving(as_service("openai", slow)) as service:
        environment = {**os.environ, "OPENAI_API_KEY": KEY, "OMP_NUM_THREADS": "1"}

        def begin(out: Path) -> Forked:
            words = [*command("openai", service, recordings, out), "--at-once", "1"]
            words += ["--longest-piece", "4", "--link", "none"]
            return Forked(ASKING, ["speaker_reasoner", *words], environment)

        def ended(process: Forked) -> int:
            process.errors(60)
            return process.wait()

        assert ended(begin(tmp_path / "whole")) == 0
        expected, count = bytes_of(tmp_path / "whole"), len(service.requests)
        late["s"], died = 0.3, 0
        cut = tmp_path / "cut"
        for _ in range(kills):
            before = len(service.requests)
            process = begin(cut)
            while len(service.requests) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.9))
            if process.poll() is None:
                process.kill()
                died += 1
            ended(process)
            if bytes_of(cut) == expected:  # it was faster: begin again
                cut = tmp_path / f"cut-{died}-{len(service.requests)}"
        assert died >= kills // 2
        late["s"] = 0.0
        assert ended(begin(cut)) == 0
        assert bytes_of(cut) == expected
        assert count == 8  # two pieces each
