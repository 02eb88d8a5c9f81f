"""Speech models on answers in each one's documented shape, with what goes wrong in them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.engines.client import Unavailable
from speaker_reasoner.errors import (
    AnswerError,
    CheckpointError,
    EngineError,
    FormatError,
    SettingsError,
)
from speaker_reasoner.systems import moss, tagspeech
from speaker_reasoner.systems.base import Answer, Sound, SystemOptions
from speaker_reasoner.systems.chat import content_of
from speaker_reasoner.systems.table import SYSTEMS, load
from speaker_reasoner.systems.text import clock, read_text
from speaker_reasoner.transcript import Transcript

from .fake_services import Service, always, serving

SOUND = Sound("talk", np.zeros(10 * 16_000, np.float32))
VOICE = (
    "qwen3-omni",
    "qwen2.5-omni",
    "gemini",
    "vibevoice",
    "moss",
    "soulx-transcriber",
    "tagspeech",
)


def said(transcript: Transcript) -> list[tuple[str, float, float, str]]:
    return [(s.speaker, s.start_s, s.end_s, s.text) for s in transcript.segments]


def reason(read: Callable[[], Any]) -> str:
    with pytest.raises(AnswerError) as caught:
        read()
    return caught.value.reason


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("12,5 s", 12.5),
        ("1.200s", 1.2),
        ("0:01", 1.0),
        ("01:02.345", 62.345),
        ("1:02:03,5", 3723.5),
        (7, 7),
        ("soon", "soon"),
        (None, None),
    ],
)
def test_times_in_every_notation(text: object, seconds: object) -> None:
    assert clock(text) == seconds


VIBE = '[{"Start":0.0,"End":2.5,"Speaker":0,"Content":"hello"},{"Start":2.5,"End":4,"Speaker":1,"Content":"good day"}]'
TWO = [("0", 0.0, 2.5, "hello"), ("1", 2.5, 4.0, "good day")]


@pytest.mark.parametrize(
    "text",
    [
        VIBE,
        f"assistant\n{VIBE}\n",
        f"```json\n{VIBE}\n```",
        f"Here it is:\n```json\n{VIBE}\n```\nThat is all.",
        f"2 to 3 people:\n```json\n{VIBE}\n```\n```",
        '{"segments": ' + VIBE + "}",
        VIBE.replace('"Start"', '"Start time"')
        .replace('"End"', '"End time"')
        .replace('"Speaker"', '"Speaker ID"'),
        VIBE.replace("2.5,", '"0:02.5",').replace(":0.0", ':"00:00"').replace(":4,", ':"0:04",'),
        VIBE.replace('"Speaker":1', '"Speaker":1.0'),
        '[{"Start":2.5,"End":4,"Speaker":1,"Content":"good day"},'
        '{"Start":0.0,"End":2.5,"Speaker":0,"Content":"hello"}]',
    ],
)
def test_json_in_every_shape_is_the_same_transcript(text: str) -> None:
    assert said(read_text(text, SOUND)) == TWO


def test_a_missing_speaker_and_an_event_are_told() -> None:
    text = '[{"Start":0,"End":1,"Content":"hello"},{"Start":1,"End":2,"Content":"[Music]"}]'
    transcript = read_text(text, SOUND)
    assert said(transcript) == [("unknown", 0.0, 1.0, "hello")]
    assert any("only name a sound" in warning for warning in transcript.warnings)
    assert any("speaker" in warning for warning in transcript.warnings)


LINES = "[00:00.000 --> 00:02.500] Speaker 1: hello\n[00:02.500 --> 00:04.000] Speaker 2: 你好\n"


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        f"```\n{LINES}```",
        LINES.replace("00:0", "00:00:0"),
        LINES.replace("[", "").replace("]", ""),
        "\n".join(reversed(LINES.splitlines())),
    ],
)
def test_lines_in_every_shape_are_the_same_transcript(text: str) -> None:
    rows = said(read_text(text, SOUND))
    assert rows == [("Speaker 1", 0.0, 2.5, "hello"), ("Speaker 2", 2.5, 4.0, "你好")]


def test_words_with_colons_brackets_and_years_stay_words() -> None:
    text = "[00:00 --> 00:02] Speaker 1: at 10:30 [2024] he said: go\n[00:02 --> 00:03] Speaker 2: [laughter] yes"
    assert [s.text for s in read_text(text, SOUND).segments] == [
        "at 10:30 [2024] he said: go",
        "[laughter] yes",
    ]


def test_a_line_without_a_speaker_is_unknown_and_told() -> None:
    transcript = read_text("[00:00 --> 00:02] hello there", SOUND)
    assert said(transcript) == [("unknown", 0.0, 2.0, "hello there")] and transcript.warnings


def test_few_other_lines_are_told_and_many_are_no_transcript() -> None:
    turns = "".join(f"[00:0{i}.0 --> 00:0{i}.9] Speaker 1: word {i}\n" for i in range(8))
    transcript = read_text("Here is the transcript:\n" + turns, SOUND)
    assert (
        len(transcript.segments) == 8
        and "1 lines of the answer are no turns" in transcript.warnings[0]
    )
    assert reason(lambda: read_text("one\ntwo\nthree\n" + turns, SOUND)) == "format"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VIBE[:-20], "truncated"),
        (VIBE[: VIBE.index("},") + 2], "truncated"),
        ("```json\n" + VIBE[:40], "truncated"),
        ("I'm sorry, but I cannot process audio.", "refused"),
        ("抱歉，我无法处理音频。", "refused"),
        ("The people talk about money.", "format"),
        ("Speaker 1: hello\nSpeaker 2: hello", "no-times"),
        ('[{"Speaker":0,"Content":"hello"}]', "no-times"),
        ('[{"Start":0,"End":1,"Speaker":0}]', "format"),
        ('["hello"]', "format"),
        ("[", "truncated"),
        ("{]", "format"),
        ("", "empty"),
        ("```json\n```", "empty"),
        (f"```json\n{VIBE}\n```\nand then\n```json\n{VIBE}\n```", "format"),
        (f"```json\n{VIBE}\n```\n[00:04.000 --> 00:05.000] Speaker 1: and then", "format"),
        ("[00:00 --> 00:01] Speaker 1: " + "no no " * 60, "loop"),
        ('[{"Start":0,"End":1,"Speaker":0,"Content":"' + "ha " * 80, "loop"),
    ],
)
def test_what_is_no_transcript_says_why(text: str, expected: str) -> None:
    assert reason(lambda: read_text(text, SOUND)) == expected


@pytest.mark.parametrize(
    "text",
    [
        '[{"Start":3,"End":1,"Speaker":0,"Content":"hello"}]',
        '[{"Start":"soon","End":1,"Speaker":0,"Content":"hello"}]',
        '[{"Start":-1,"End":1,"Speaker":0,"Content":"hello"}]',
        '[{"Start":0,"End":1,"Speaker":0.5,"Content":"hello"}]',
    ],
)
def test_turns_that_contradict_themselves_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        read_text(text, SOUND)


def test_silence_is_a_transcript_without_lines() -> None:
    assert read_text("[]", SOUND).segments == ()


# --- MOSS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("[0][S01]ha [laughter] yes[4.0]", [("S01", 0.0, 4.0, "ha [laughter] yes")]),
        ("[0][S01]year [2024] ends[4.0]", [("S01", 0.0, 4.0, "year [2024] ends")]),
        ("[0][S01]in [2024][4.0]", [("S01", 0.0, 4.0, "in [2024]")]),
        (
            "[0.48][S01]你好[1.66][1.5][S02]早[2.0]",
            [("S01", 0.48, 1.66, "你好"), ("S02", 1.5, 2.0, "早")],
        ),
        (
            "[0][S01]one\ntwo[2]\n[3][S01]three[4]\n",
            [("S01", 0.0, 2.0, "one two"), ("S01", 3.0, 4.0, "three")],
        ),
    ],
)
def test_moss_keeps_brackets_that_are_words(
    raw: str, expected: list[tuple[str, float, float, str]]
) -> None:
    assert said(moss.parse(raw, SOUND)) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("[0.1][S01]a[1.0][1.2][S02]cut off text", "truncated"),
        ("[0.1][S01]a[1.2][S02]b[2.0]", "no-times"),
        ("[S01]no times[S02]at all", "no-times"),
        ("Sorry, I cannot", "format"),
        ("words [0][S01]a[1]", "format"),
        ("", "empty"),
        ("[0][S01]" + "so " * 90, "loop"),
    ],
)
def test_moss_answers_that_are_none(raw: str, expected: str) -> None:
    assert reason(lambda: moss.parse(raw, SOUND)) == expected


def test_an_event_alone_is_no_words_of_moss() -> None:
    transcript = moss.parse("[0][S01][music][1][1][S01]hello[2]", SOUND)
    assert said(transcript) == [("S01", 1.0, 2.0, "hello")] and transcript.warnings


def test_the_librarys_own_parsers_are_why_ours_exists() -> None:
    """If these fail, transformers has changed, and ours may go."""
    processing = pytest.importorskip(
        "transformers.models.moss_transcribe_diarize.processing_moss_transcribe_diarize"
    )
    import re

    theirs = processing.MossTranscribeDiarizeProcessor
    one = theirs.__new__(theirs)
    one._segment_pattern = re.compile(
        r"\[(?P<start>[^\[\]]+)\]\[S(?P<speaker>\d+)\](?P<content>.*?)\[(?P<end>[^\[\]]+)\]",
        re.DOTALL,
    )
    with pytest.raises(ValueError, match="laughter"):
        one.extract_speaker_dict("[0][S01]ha [laughter] yes[4.0]")
    [row] = one.extract_speaker_dict("[0][S01]year [2024] ends[4.0]")
    assert row["End"] == 2024.0


def test_the_librarys_parser_of_vibevoice_agrees_where_it_reads() -> None:
    processing = pytest.importorskip("transformers.models.vibevoice_asr.processing_vibevoice_asr")
    theirs = processing.VibeVoiceAsrProcessor
    rows = theirs.extract_speaker_dict(theirs.__new__(theirs), VIBE)
    ours = read_text(VIBE, SOUND).segments
    assert [(str(r["Speaker"]), r["Start"], r["End"], r["Content"]) for r in rows] == [
        (s.speaker, s.start_s, s.end_s, s.text) for s in ours
    ]
    cut = theirs.extract_speaker_dict(theirs.__new__(theirs), VIBE[:-20])
    assert len(cut) == 1  # it keeps what is whole; ours says that the answer was cut


# --- TagSpeech ----------------------------------------------------------------------------------

TAGS = (
    "<text>\n0.00-1.21>你好\n0.96-2.13>OKAY UM\n3.00-4.00>bye\n</text>\n<speaker>\n"
    '<spk id="1" g="f" t="0.00-1.21,3.00-4.00"/>\n<spk id="2" g="m" t="0.96-2.13"/>\n</speaker>'
)


def test_tagspeech_joins_words_and_speakers_by_their_times() -> None:
    transcript = tagspeech.parse(TAGS, SOUND)
    assert said(transcript) == [
        ("1", 0.0, 1.21, "你好"),
        ("2", 0.96, 2.13, "OKAY UM"),
        ("1", 3.0, 4.0, "bye"),
    ]
    assert [s.gender for s in transcript.segments] == ["female", "male", "female"]


def test_tagspeech_lines_of_the_same_times_are_given_in_order_and_told() -> None:
    same = TAGS.replace("0.96-2.13", "0.00-1.21")
    transcript = tagspeech.parse(same, SOUND)
    assert {s.speaker for s in transcript.segments[:2]} == {"1", "2"}
    assert "2 lines share their times" in transcript.warnings[-1]
    alone = tagspeech.parse(TAGS.replace(',3.00-4.00"', '"'), SOUND)
    assert alone.segments[2].speaker == "unknown" and alone.warnings


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (TAGS[:60], "truncated"),
        (TAGS[:-12], "truncated"),
        ("I cannot", "format"),
        (TAGS.replace("0.00-1.21>你好", "你好"), "format"),
        (TAGS.replace('id="2" ', ""), "format"),
        ("", "empty"),
    ],
)
def test_tagspeech_answers_that_are_none(raw: str, expected: str) -> None:
    assert reason(lambda: tagspeech.parse(raw, SOUND)) == expected


MODEL = """
import json, wave
class Config: audio_token = "<audio>"
class TagSpeech:
    config = Config()
    @classmethod
    def from_pretrained(cls, name):
        if name == "none": raise OSError("no such model")
        print("loading")
        return cls()
    def to(self, device): return self
    def generate(self, wavs, messages, **options):
        print("a library prints")
        with wave.open(wavs[0]) as sound:
            assert (sound.getnframes(), sound.getframerate()) == (160000, 16000)
        assert messages[0][0]["content"].count("<audio>") == 2 and options["max_new_tokens"] == 800
        return [%r]
"""


@pytest.fixture
def auden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.py").write_text(MODEL % TAGS)
    monkeypatch.setenv("TAGSPEECH_HOME", str(tmp_path))


@pytest.mark.usefixtures("auden")
def test_tagspeech_runs_in_a_program_of_its_own() -> None:
    system = load("tagspeech", SystemOptions())
    try:
        answers = [system.ask(SOUND) for _ in range(2)]
        assert answers[0] == answers[1]
        assert len(system.read(answers[0], SOUND).segments) == 3
        assert system.describe()["model"] == "AudenAI/TagSpeech-Alimeeting"
    finally:
        system.close()
    with pytest.raises(CheckpointError, match="OSError: no such model"):
        load("tagspeech", SystemOptions(model="none"))


def test_tagspeech_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAGSPEECH_HOME", raising=False)
    with pytest.raises(SettingsError, match="set the environment variable TAGSPEECH_HOME"):
        load("tagspeech", SystemOptions())


# --- behind a server ----------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Service]:
    with serving(always({})) as service:
        yield service


def completion(text: str | None, model: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {
        "id": "x",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": {"content": text, **more}}],
        "usage": {"prompt_tokens": 140, "completion_tokens": 30, "total_tokens": 170},
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen3-omni", LINES),
        ("qwen2.5-omni", LINES),
        ("soulx-transcriber", LINES),
        ("vibevoice", VIBE),
    ],
)
def test_a_served_model_is_asked_with_sound_and_prompt(
    name: str, text: str, server: Service
) -> None:
    system = load(name, SystemOptions(base_url=f"{server.url}/v1", key="secret"))
    server.answer = always(completion(text, system.model))
    answer = system.ask(SOUND)
    [request] = server.requests
    body = json.loads(request.body)
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret"
    [sound, prompt] = body["messages"][-1]["content"]
    assert sound["type"] == "input_audio" and sound["input_audio"]["format"] == "wav"
    assert body["model"] == system.model and prompt["text"] in str(answer.prompt)
    assert ("10.00 seconds" in prompt["text"]) == (name == "vibevoice")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (140, 30)
    assert len(system.read(answer, SOUND).segments) == 2
    about = json.dumps(system.describe())
    assert "secret" not in about and "prompt_sha256" in about
    system.close()


def test_a_served_model_that_fails(server: Service) -> None:
    system = load("qwen3-omni", SystemOptions(base_url=f"{server.url}/v1"))
    server.answer = always(completion(LINES, "other-model"))
    assert reason(lambda: system.ask(SOUND)) == "swapped-model"
    slow = {"error": {"message": "slow down"}}
    server.answer = always(slow, 429)
    with pytest.raises(Unavailable) as limited:
        system.ask(SOUND)
    assert limited.value.limited and len(server.requests) == 2  # asked once: others try again
    server.answer = always(slow, 401)
    with pytest.raises(EngineError, match="HTTP 401"):
        system.ask(SOUND)
    server.answer = always(slow, 413)
    assert reason(lambda: system.ask(SOUND)) == "too-long"
    system.close()
    with pytest.raises(SettingsError, match="needs a server that serves Qwen/Qwen3-Omni"):
        load("qwen3-omni", SystemOptions())
    with pytest.raises(SettingsError, match="--hotwords x: the system qwen3-omni has no use of it"):
        load("qwen3-omni", SystemOptions(base_url=f"{server.url}/v1", hotwords="x"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (completion(LINES, "m", "length"), "truncated"),
        (completion("", "m", "content_filter"), "refused"),
        (completion(None, "m"), "empty"),
        (completion("", "m", refusal="no"), "refused"),
        ({"choices": []}, "format"),
        ([], "format"),
        ({"choices": [{"message": "hello"}]}, "format"),
        ({"choices": [{"message": None}]}, "format"),
        ({"choices": [{"message": {"content": [{"text": None}, {"text": 7}]}}]}, "empty"),
        ({"choices": [{"finish_reason": [], "message": {"content": " "}}]}, "empty"),
    ],
)
def test_completions_that_are_none(raw: Any, expected: str) -> None:
    assert reason(lambda: content_of(raw)) == expected


@pytest.mark.parametrize("used", ["x", [1], {"prompt_tokens": "many", "seconds": -1}, 7, None])
@pytest.mark.parametrize("name", ["qwen3-omni", "moss"])
def test_usage_that_is_none(name: str, used: Any, server: Service) -> None:
    system = load(name, SystemOptions(base_url=f"{server.url}/v1"))
    raw = {**completion(LINES, system.model), "usage": used, "segments": []}
    server.answer = always(raw)
    answer = system.ask(SOUND)
    assert answer.raw == raw and answer.usage.to_json() == {"requests": 1}
    system.close()


def test_moss_behind_vllm(server: Service) -> None:
    system = load("moss", SystemOptions(base_url=f"{server.url}/v1"))
    segments = [{"id": "0", "start": 0.0, "end": 2.0, "speaker": "S01", "text": "hello"}]
    server.answer = always(
        {"task": "transcribe", "duration": 10.0, "text": "hello", "segments": segments}
    )
    answer = system.ask(SOUND)
    [request] = server.requests
    assert request.path == "/v1/audio/transcriptions"
    assert all(p in request.body for p in (b"diarized_json", b"max_completion_tokens", b"RIFF"))
    assert said(system.read(answer, SOUND)) == [("S01", 0.0, 2.0, "hello")]
    raw = Answer({"text": "[0][S01]year [2024] ends[4.0]"})
    assert said(system.read(raw, SOUND)) == [("S01", 0.0, 4.0, "year [2024] ends")]
    assert reason(lambda: system.read(Answer({"task": "x"}), SOUND)) == "format"
    for body in (None, [1], b"{", b"[" * 100_000):
        server.answer = always(body)
        assert reason(lambda: system.ask(SOUND)) == "format"
    server.answer = always({}, 302)
    with pytest.raises(EngineError, match="check the key, its account, the model and --base-url"):
        system.ask(SOUND)
    server.answer = always({"error": {"message": "no segments"}}, 500)
    with pytest.raises(Unavailable, match="HTTP 500"):
        system.ask(SOUND)
    system.close()


def test_every_speech_model_is_listed_with_its_limits() -> None:
    for name in VOICE:
        assert SYSTEMS[name].limit_s and SYSTEMS[name].title
