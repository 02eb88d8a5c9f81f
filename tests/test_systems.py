"""Other systems: what becomes of an answer, of many recordings at once, of a run that is killed."""

import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.engines.client import Unavailable
from speaker_reasoner.errors import AnswerError, EngineError, OutputError, SettingsError
from speaker_reasoner.formats import read
from speaker_reasoner.longform import Failure, Item
from speaker_reasoner.systems.asking import Asked, Asking, How
from speaker_reasoner.systems.base import (
    ASKED_AGAIN,
    REASONS,
    Answer,
    Sound,
    SystemOptions,
    Usage,
    is_swapped,
    text_hash,
)
from speaker_reasoner.systems.checks import checked, repeated
from speaker_reasoner.systems.pacing import Pace
from speaker_reasoner.systems.pieces import TranscribedPiece, embedded, joined
from speaker_reasoner.systems.service import http_error, service_transcript
from speaker_reasoner.systems.table import SYSTEMS, find, key_of, load
from speaker_reasoner.transcript import Segment, Transcript, Word

from .talk import Dying, Killed, save
from .vocal import voice

OPENAI = "OpenAI, Whisper, WhisperX, faster-whisper"
TWO: dict[str, Any] = {
    "segments": [
        {"start": 0.0, "end": 1.5, "speaker": "A", "text": "hello there"},
        {"start": 1.5, "end": 3.0, "speaker": "B", "text": "good morning"},
    ]
}


class Recorded:
    """A system that answers what a function of the sound gives: JSON, or an error that is raised."""

    name, model = "recorded", "recorded-1"

    def __init__(self, answer: Callable[[Sound], Any] = lambda sound: TWO, **about: Any) -> None:
        self.answer = answer
        self.about = about
        self.asked: list[tuple[str, int]] = []

    def describe(self) -> dict[str, Any]:
        return {"model": self.model, "sdk": {"name": "none", "version": "1"}, **self.about}

    def ask(self, sound: Sound) -> Answer:
        self.asked.append((sound.recording, sound.number))
        raw = self.answer(sound)
        if isinstance(raw, BaseException):
            raise raw
        return Answer(raw, "recorded-1", "say it", Usage(input_tokens=7))

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        return service_transcript(OPENAI, answer.raw, sound)

    def close(self) -> None:
        pass


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(3):
        save(folder / f"talk-{number}.wav", voice(4.0, seed=number))
    return [Item(path) for path in sorted(folder.iterdir())]


def ask(system: Recorded, items: list[Item], folder: Path | None, **how: Any) -> list[Asked]:
    with Asking(system, folder, How(**how), ["json", "txt"]) as asking:
        return list(asking.run(items))


def bytes_of(folder: Path) -> dict[str, bytes | dict[str, Any]]:
    """All that is in a folder; of answers, all but when they came and how long that took."""
    files: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"):
        files[str(path.relative_to(folder))] = path.read_bytes()
        # A kill leaves temporary files.
        whole = path.suffix == ".json" and path.name != "written.json"
        if path.parent.parent.name == "answers" and whole:
            row = json.loads(path.read_text())
            assert set(row.pop("asked")) == {"date", "seconds", "attempts"}
            files[str(path.relative_to(folder))] = row
    return files


def test_a_transcript_and_what_came_back(items: list[Item], tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = ask(Recorded(), items, out)
    assert [result.item.title for result in results] == ["talk-0", "talk-1", "talk-2"]
    [transcript] = read(out / "talk-1.json")
    assert [(s.speaker, s.start_s, s.end_s, s.text) for s in transcript.segments] == [
        ("A", 0.0, 1.5, "hello there"),
        ("B", 1.5, 3.0, "good morning"),
    ]
    assert transcript.duration_s == 4.0 and transcript.recording == "talk-1"
    assert transcript.info["system"] == {"model": "recorded-1"} and transcript.info["pieces"] == 1
    row = json.loads((out / "answers/talk-1/0.json").read_text())
    assert row["raw"] == TWO and row["model"] == "recorded-1" and row["failure"] is None
    assert row["prompt"] == "say it" and row["prompt_sha256"] == text_hash("say it")
    assert row["piece"] == {"number": 0, "start_s": 0.0, "end_s": 4.0}
    assert row["sdk"] == {"name": "none", "version": "1"} and row["usage"]["input_tokens"] == 7
    assert results[1].usage["audio_s"] == 4.0 and results[1].requests == 1


def test_nothing_is_asked_twice(items: list[Item], tmp_path: Path) -> None:
    first = Recorded()
    ask(first, items, tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    again = Recorded()
    again.describe = lambda: {"model": "recorded-1", "sdk": {"version": "2"}}  # type: ignore[method-assign]
    results = ask(again, items, tmp_path / "out")
    assert len(first.asked) == 3 and again.asked == []
    assert bytes_of(tmp_path / "out") == before
    assert [result.requests for result in results] == [0, 0, 0]


@pytest.mark.parametrize("what", ["settings", "sound", "channel"])
def test_another_question_is_asked(items: list[Item], tmp_path: Path, what: str) -> None:
    ask(Recorded(), items, tmp_path / "out")
    other = Recorded(language="de") if what == "settings" else Recorded()
    how = {"channel": 0} if what == "channel" else {}
    if what == "sound":
        save(items[1].path, voice(5.0))
    ask(other, items, tmp_path / "out", **how)
    assert sorted(other.asked) == sorted(
        [("talk-1", 0)] if what == "sound" else [(item.title, 0) for item in items]
    )


class Mortal(Dying, Recorded):
    """A system that dies when it was asked `left` times."""


@pytest.mark.parametrize("at", range(8))
def test_a_run_that_was_cut_short_ends_the_same(items: list[Item], tmp_path: Path, at: int) -> None:
    how = {"limit_s": 2.0}  # two or three pieces each
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    undisturbed = Recorded(short)
    ask(undisturbed, items, whole, **how)
    with pytest.raises(Killed):
        ask(Mortal(at, short), items, cut, **how)
    rest = Recorded(short)
    ask(rest, items, cut, **how)
    assert bytes_of(cut) == bytes_of(whole)
    assert len(undisturbed.asked) > 8 and len(rest.asked) == len(undisturbed.asked) - at


def short(sound: Sound) -> dict[str, Any]:
    return {"segments": [{"start": 0.1, "end": 0.9, "speaker": "A", "text": "yes"}]}


def test_many_at_once_in_order(items: list[Item], tmp_path: Path) -> None:
    meet = threading.Barrier(8, timeout=20)
    many = [Item(items[0].path, f"talk {n}") for n in range(16)]

    def answer(sound: Sound) -> Any:
        meet.wait()  # breaks unless eight ask at the same time
        time.sleep(0.001 * (16 - int(sound.recording.split()[1])))
        return TWO

    results = ask(Recorded(answer), many, tmp_path, at_once=8)
    assert [result.item.title for result in results] == [item.title for item in many]
    assert all(isinstance(result.outcome, Transcript) for result in results)


def test_a_rate_is_kept(items: list[Item], tmp_path: Path) -> None:
    times: list[float] = []

    def answer(sound: Sound) -> Any:
        times.append(time.monotonic())
        return TWO

    ask(Recorded(answer), items, tmp_path, at_once=3, rate=300)
    assert max(times) - min(times) >= 0.38  # 0.2 s apart


def test_what_fails_is_tried_again(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speaker_reasoner.systems.pacing._FIRST_WAIT_S", 0.001)
    count = iter(range(99))

    def answer(sound: Sound) -> Any:
        return Unavailable("busy", limited=True) if next(count) < 3 else TWO

    [result] = ask(Recorded(answer), items[:1], tmp_path / "out", retries=3)
    assert isinstance(result.outcome, Transcript) and result.requests == 4
    row = json.loads((tmp_path / "out/answers/talk-0/0.json").read_text())
    assert row["asked"]["attempts"] == 4


@pytest.mark.parametrize(("limited", "reason"), [(True, "rate-limited"), (False, "unavailable")])
def test_what_fails_for_now_is_a_row_and_asked_again(
    items: list[Item], tmp_path: Path, limited: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speaker_reasoner.systems.pacing._FIRST_WAIT_S", 0.001)
    out = tmp_path / "out"
    down = Recorded(
        lambda sound: Unavailable("no", limited=limited) if sound.recording == "talk-1" else TWO
    )
    results = ask(down, items, out, retries=1)
    assert [result.reason for result in results] == [None, reason, None]
    [row] = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert row["recording"] == "talk-1" and row["reason"] == reason
    assert row["message"] == "talk-1: no (2 attempts)"
    assert not (out / "answers/talk-1/0.json").exists() and not (out / "talk-1.json").exists()
    up = Recorded()
    ask(up, items, out)
    assert up.asked == [("talk-1", 0)] and not (out / "failures.jsonl").exists()


def test_a_failure_of_the_program_is_asked_again(items: list[Item], tmp_path: Path) -> None:
    out, broken = tmp_path / "out", Recorded(lambda sound: AnswerError("unavailable", "no memory"))
    [result] = ask(broken, items[:1], out)
    assert result.reason == "unavailable" and not (out / "answers/talk-0/0.json").exists()
    assert "talk-0: no memory" in (out / "failures.jsonl").read_text()
    again = Recorded()
    ask(again, items[:1], out)
    assert again.asked == [("talk-0", 0)]


def test_a_wait_that_is_too_long_is_not_waited(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slept(self: Pace, seconds: float) -> None:
        raise AssertionError(f"{seconds} s")

    monkeypatch.setattr(Pace, "_sleep", slept)
    system = Recorded(lambda sound: Unavailable("later", limited=True, wait_s=86_400.0))
    [result] = ask(system, items[:1], tmp_path)
    assert result.reason == "rate-limited" and len(system.asked) == 1


def test_waits_double_unless_the_server_says_how_long(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Pace, "_sleep", lambda self, seconds: waited.append(seconds))
    asked_s = iter([None, None, None])
    system = Recorded(lambda sound: Unavailable("later", wait_s=next(asked_s)))
    ask(system, items[:1], tmp_path, retries=2)
    assert 0.5 <= waited[0] <= 1.0 <= waited[1] <= 2.0 and len(waited) == 2
    asked_s = iter([30.0, 30.0])
    ask(system, items[:1], tmp_path, retries=1)
    assert 30.0 <= waited[2] <= 30.5


@pytest.mark.parametrize(
    ("raw", "reason", "message"),
    [
        ({"segments": []}, "empty", "no line, in a recording with about"),
        ({"error": "x"}, "format", "expected the JSON of OpenAI"),
        ("Sorry, I cannot.", "format", "got str"),
        (AnswerError("refused", "against the rules", {"finish": "SAFETY"}), "refused", "rules"),
        (AnswerError("truncated", "MAX_TOKENS", {"text": "hel"}), "truncated", "MAX_TOKENS"),
        ({"segments": [{"start": None, "text": "a", "speaker": 1}]}, "no-times", "1 of 1 turns"),
        ({"segments": [{"start": 3, "end": 1, "text": "a"}]}, "format", "before it starts"),
        ({"segments": [{"start": 1000, "end": 2000, "text": "ms"}]}, "format", "milliseconds"),
        ({"segments": [{"start": 0, "end": 2024.5, "text": "a"}]}, "format", "taken for times"),
        ({"segments": [{"start": 0, "end": 4, "text": "and so " * 40}]}, "loop", "over and over"),
        ({"segments": [{"start": "now", "end": 4, "text": "a"}]}, "format", "got 'now'"),
    ],
)
def test_a_bad_answer_is_a_row_and_kept(
    items: list[Item], tmp_path: Path, raw: Any, reason: str, message: str
) -> None:
    out = tmp_path / "out"
    [result] = ask(Recorded(lambda sound: raw), items[:1], out)
    assert result.reason == reason in REASONS and reason not in ASKED_AGAIN
    assert isinstance(result.outcome, Failure) and message in str(result.outcome.error)
    assert str(result.outcome.error).startswith("talk-0: ")
    assert not (out / "talk-0.json").exists()
    row = json.loads((out / "answers/talk-0/0.json").read_text())
    assert row["raw"] == (raw.raw if isinstance(raw, AnswerError) else raw)
    before, again = bytes_of(out), Recorded()
    [same] = ask(again, items[:1], out)
    assert again.asked == [] and same.reason == reason and bytes_of(out) == before


def test_silence_is_rightly_empty(tmp_path: Path) -> None:
    save(tmp_path / "quiet.wav", np.zeros(64_000, np.float32))
    [result] = ask(Recorded(lambda sound: {"segments": []}), [Item(tmp_path / "quiet.wav")], None)
    assert isinstance(result.outcome, Transcript) and result.outcome.segments == ()


def test_a_recording_that_cannot_be_read(items: list[Item], tmp_path: Path) -> None:
    items[1].path.write_bytes(b"RIFF not a recording")
    results = ask(Recorded(), items, tmp_path / "out")
    assert [result.reason for result in results] == [None, "unreadable", None]


def test_a_wrong_key_ends_the_run(items: list[Item], tmp_path: Path) -> None:
    system = Recorded(lambda sound: EngineError("HTTP 401: no such key"))
    with pytest.raises(EngineError, match="no such key"):
        ask(system, items, tmp_path / "out")
    assert len(system.asked) == 1 and not list((tmp_path / "out").glob("*.json"))


def test_one_process_at_a_time(items: list[Item], tmp_path: Path) -> None:
    with (
        Asking(Recorded(), tmp_path / "out", How()),
        pytest.raises(OutputError, match="another process"),
        Asking(Recorded(), tmp_path / "out", How()),
    ):
        pass


def test_files_of_one_name(items: list[Item], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="rename one"):
        ask(Recorded(), [items[0], Item(items[1].path, "TALK-0")], tmp_path / "out")


def test_an_answer_of_another_version_is_asked_for_again(items: list[Item], tmp_path: Path) -> None:
    ask(Recorded(), items[:1], tmp_path / "out")
    path = tmp_path / "out/answers/talk-0/0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "answer": 0}))
    again = Recorded()
    ask(again, items[:1], tmp_path / "out")
    assert again.asked == [("talk-0", 0)]


def test_a_transcript_goes_with_its_answer(items: list[Item], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ask(Recorded(), items[:1], out)
    save(items[0].path, voice(5.0))
    [result] = ask(Recorded(lambda sound: {"segments": []}), items[:1], out)
    assert result.reason == "empty" and not list(out.glob("talk-0.*"))


def test_what_a_kill_left_half_written_goes(items: list[Item], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ask(Recorded(), items[:1], out)
    before = bytes_of(out)
    for folder in (out, out / "answers/talk-0"):
        (folder / f".{'0' * 16}.tmp").write_text("half")
    ask(Recorded(), items[:1], out)
    assert bytes_of(out) == before


def test_what_was_changed_by_hand_is_set_aside(items: list[Item], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ask(Recorded(), items[:1], out)
    (out / "talk-0.txt").write_text("corrected\n")
    [result] = ask(Recorded(), items[:1], out)
    assert result.note == "not made by this command, kept as talk-0.edited-1.txt"
    assert (out / "talk-0.edited-1.txt").read_text() == "corrected\n"
    assert "hello there" in (out / "talk-0.txt").read_text()


def sound(seconds: float = 10.0) -> Sound:
    return Sound("talk", voice(seconds))


def test_an_end_a_little_late_ends_with_the_recording() -> None:
    late = Transcript("x", 10.5, (Segment("A", 9.0, 10.5, "late"),))
    transcript = checked(late, sound())
    assert transcript.segments[0].end_s == transcript.duration_s == 10.0
    assert transcript.warnings == ("1 lines ended after the recording, and were ended with it",)


def test_the_words_of_a_late_line_end_with_the_recording_too() -> None:
    words = (Word("so", 9.0, 9.5), Word("late", 9.9, 10.5), Word("indeed", 10.2, 10.6))
    late = Transcript("x", 10.6, (Segment("A", 9.0, 10.6, "so late indeed", words=words),))
    [segment] = checked(late, sound()).segments
    assert segment.words is not None
    assert [(w.text, w.start_s, w.end_s) for w in segment.words] == [
        ("so", 9.0, 9.5),
        ("late", 9.9, 10.0),
        ("indeed", 10.0, 10.0),
    ]


def test_speech_after_the_last_line_is_told() -> None:
    short = Transcript("x", 1.0, (Segment("A", 0.0, 5.0, "so far"),))
    transcript = checked(short, sound(120.0))
    assert "the answer may be cut" in transcript.warnings[0]
    assert checked(short, Sound("talk", np.zeros(1_920_000, np.float32))).warnings == ()


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("no no no no no no no", False),
        ("thank you. " * 30, True),
        ("说了" * 100, True),
        ("。" * 400, False),
        ("one two three four five six seven eight nine ten " * 3, False),
        ("it was " + "very " * 60 + "long", True),
    ],
)
def test_loops(text: str, loops: bool) -> None:
    assert (repeated(text) is not None) is loops


@pytest.mark.parametrize(
    ("asked", "answered", "swapped"),
    [
        ("gemini-2.5-pro", "gemini-3.5-pro", True),
        ("gemini-2.5-pro", "models/gemini-2.5-pro", False),
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("gpt-4o", "gpt-4o-mini", True),
        ("a", None, False),
    ],
)
def test_a_swapped_model(asked: str, answered: str | None, swapped: bool) -> None:
    assert is_swapped(asked, answered) is swapped


class Pitch:
    """A witness that tells a voice of 110 Hz from one of 220 Hz, which has nothing at 110 Hz."""

    name, threshold, elsewhere, scale, settle_s, scatter = "pitch", 0.5, 0.5, 20.0, 0.0, None

    def embed(self, clips: Any) -> Any:
        rows = []
        for clip in clips:
            spectrum = np.abs(np.fft.rfft(clip[:16_000], 16_000)) ** 2
            low = spectrum[95:130].sum() > 0.05 * spectrum[200:240].sum()
            rows.append([1.0, 0.0] if low else [0.0, 1.0])
        return np.array(rows, np.float32)


def two(low_first: bool) -> Sound:
    low, high = voice(4.0, 110.0), voice(4.0, 220.0)
    return Sound("talk", np.concatenate([low, high] if low_first else [high, low]))


def lines(*labels: str) -> Transcript:
    rows = [Segment(label, 4.0 * n, 4.0 * n + 4, "x") for n, label in enumerate(labels)]
    return Transcript("talk", 8.0, tuple(rows))


def test_pieces_are_linked_by_voice() -> None:
    pieces = []
    for number, low_first in enumerate([True, False]):
        transcript = lines("A", "B")  # whoever speaks first is A
        pieces.append(
            TranscribedPiece(
                8.0 * number, transcript, embedded(two(low_first), transcript, Pitch())
            )
        )
    whole = joined("talk", 16.0, pieces, Pitch())
    assert [(s.speaker, s.start_s) for s in whole.segments] == [
        ("Speaker1", 0.0),
        ("Speaker2", 4.0),
        ("Speaker2", 8.0),
        ("Speaker1", 12.0),
    ]


def test_speakers_of_one_piece_stay_apart_whatever_their_voices() -> None:
    transcript = lines("A", "B")
    low = Sound("talk", np.concatenate([voice(4.0, 110.0), voice(4.0, 110.0)]))
    pieces = [
        TranscribedPiece(8.0 * n, transcript, embedded(low, transcript, Pitch())) for n in (0, 1)
    ]
    whole = joined("talk", 16.0, pieces, Pitch())
    assert len(whole.speakers) == 2


def test_pieces_that_are_not_linked_say_so(items: list[Item], tmp_path: Path) -> None:
    [result] = ask(Recorded(short), items[:1], tmp_path / "out", limit_s=2.0)
    assert isinstance(result.outcome, Transcript)
    assert result.outcome.speakers[:2] == ("1-A", "2-A") and result.outcome.duration_s == 4.0
    assert "were not linked" in result.outcome.warnings[-1]
    assert result.outcome.info["link"] == "none"
    rows = [
        json.loads(p.read_text()) for p in sorted((tmp_path / "out/answers/talk-0").glob("[0-9]*"))
    ]
    bounds = [(row["piece"]["start_s"], row["piece"]["end_s"]) for row in rows]
    assert bounds[0][0] == 0 and bounds[-1][1] == 4.0
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    assert result.outcome.segments[1].start_s == pytest.approx(bounds[1][0] + 0.1)


def test_one_bad_piece_is_named(items: list[Item], tmp_path: Path) -> None:
    bad = Recorded(lambda sound: short(sound) if sound.number == 0 else {"segments": []})
    [result] = ask(bad, items[:1], tmp_path / "out", limit_s=2.0)
    assert isinstance(result.outcome, Failure) and result.reason == "empty"
    assert "piece 2: no line" in str(result.outcome.error)


@pytest.mark.parametrize(
    ("status", "kind", "limited"),
    [(429, Unavailable, True), (503, Unavailable, False), (None, Unavailable, False),
     (401, EngineError, None), (400, AnswerError, None), (413, AnswerError, None)],
)  # fmt: skip
def test_statuses(status: int | None, kind: type, limited: bool | None) -> None:
    error = http_error("recorded", status, "no\nway", {"retry-after": "3"}, {"a": 1})
    assert type(error) is kind and "no way" in str(error)
    if isinstance(error, Unavailable):
        assert error.limited is limited and error.wait_s == 3.0
    if isinstance(error, AnswerError):
        assert error.reason == ("too-long" if status == 413 else "refused")


def test_what_is_sent_can_be_decoded() -> None:
    import io

    import soundfile

    loud = Sound("talk", 3.0 * voice(1.0))
    samples, rate = soundfile.read(io.BytesIO(loud.encoded()))
    assert rate == 16_000 and len(samples) == 16_000 and abs(samples).max() <= 1.0
    assert np.corrcoef(samples, loud.samples)[0, 1] > 0.9999  # scaled, not clipped


def test_an_unknown_system_names_all() -> None:
    with pytest.raises(SettingsError, match=r"did you mean cascade\?.*expected one of.*speakerlm"):
        find("cascades")
    with pytest.raises(SettingsError, match="only published figures are known"):
        load("speakerlm", SystemOptions())


def test_options_that_are_of_no_use() -> None:
    options = SystemOptions(hotwords="Ana", speakers=(2, 5), key="secret")
    with pytest.raises(SettingsError, match="--hotwords Ana: the system x has no use"):
        options.refuse("x", "language", "hotwords")
    with pytest.raises(SettingsError, match="takes one number"):
        options.exact_speakers("x")
    assert "secret" not in repr(options)


def test_an_address_or_key_that_cannot_be_sent_ends_the_run() -> None:
    for options, said in (
        ({"base_url": "foo"}, "--base-url 'foo': expected the address"),
        ({"base_url": "ftp://x"}, "expected the address"),
        ({"key": "ключ"}, "expected printable ASCII"),
        ({"key": "a\nb"}, "expected printable ASCII"),
    ):
        with pytest.raises(SettingsError, match=said) as caught:
            SystemOptions(**options)  # type: ignore[arg-type]
        assert str(options.get("key")) not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "k1")
    assert key_of("cascade") is None and key_of("cascade", "MINE") == "k1"
    monkeypatch.delenv("MINE")
    with pytest.raises(SettingsError, match="environment variable MINE"):
        key_of("cascade", "MINE")


def test_the_table_is_whole() -> None:
    for name, entry in SYSTEMS.items():
        assert entry.runs in ("here", "service", "engine", "published"), name
        assert bool(entry.module) == (entry.runs in ("here", "service")), name
        assert entry.runs != "service" or entry.at_once >= 8, name
