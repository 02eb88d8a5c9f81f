"""Recordings of any length, over an engine that plays turns."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.engines import Reply, Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import AudioError, EngineError
from speaker_reasoner.longform import Failure, Progress, Transcriber, chunks
from speaker_reasoner.protocol import Line, Turn, render_turn
from speaker_reasoner.transcript import Transcript

from .conftest import noise
from .talk import PROFILE, play, save, untimed


class Hesitant(ScriptedEngine):
    """Plays the same turns, sure of each of their bytes to a degree."""

    def __init__(self, probability: float) -> None:
        super().__init__(play, PROFILE)
        self.probability = probability

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        return [
            replace(
                reply,
                sizes=(1,) * len(reply.text),
                probabilities=(self.probability,) * len(reply.text),
                seconds={"decode": 0.25},
            )
            for reply in super().ask(requests)
        ]


def with_pauses(seconds: float, pauses_s: Sequence[float]) -> np.ndarray[Any, Any]:
    """Noise with 0.4 s of silence around each of some times."""
    samples = noise(seconds)
    for at_s in pauses_s:
        middle = round(at_s * SAMPLE_RATE_HZ)
        samples[middle - 3200 : middle + 3200] = 0
    return samples


def transcribe(path: Path, **options: Any) -> Transcript:
    return Transcriber(ScriptedEngine(play, PROFILE), detect=None, **options).transcribe(path)


# Chunks


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.integers(1, 40_000), max_size=8),
    chunk_s=st.sampled_from([1.0, 1.3, 2.0]),
    seed=st.integers(0, 5),
)
def test_every_sample_is_in_one_chunk(blocks: list[int], chunk_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    loud = rng.choice([0.0, 1e-4, 0.3], size=len(blocks))
    parts = [
        (level * rng.standard_normal(size)).astype(np.float32)
        for level, size in zip(loud, blocks, strict=True)
    ]
    cut = list(chunks(iter(parts), chunk_s))
    whole = np.concatenate([*parts, np.zeros(0, np.float32)])
    assert np.array_equal(
        np.concatenate([np.zeros(0, np.float32), *[c.samples for c in cut]]), whole
    )
    starts = np.cumsum([0, *[len(chunk.samples) for chunk in cut]])
    assert [chunk.start_samples for chunk in cut] == list(starts[:-1])
    longest = round(chunk_s * SAMPLE_RATE_HZ)
    assert all(0 < len(chunk.samples) <= longest for chunk in cut)
    assert all(2 * len(chunk.samples) >= longest - 640 for chunk in cut[:-1])


def test_chunks_do_not_depend_on_the_blocks() -> None:
    samples = with_pauses(30.0, (3.0, 9.1, 14.0, 22.5))
    whole = [chunk.start_samples for chunk in chunks([samples], 4.0)]
    pieces = [samples[i : i + 7_777] for i in range(0, len(samples), 7_777)]
    assert [chunk.start_samples for chunk in chunks(pieces, 4.0)] == whole


def test_chunks_are_cut_in_the_pauses() -> None:
    pauses_s = (3.1, 5.5, 8.7)
    starts = [c.start_samples / SAMPLE_RATE_HZ for c in chunks([with_pauses(12.0, pauses_s)], 4.0)]
    assert len(starts) == 4
    assert starts[1:] == pytest.approx(pauses_s, abs=0.15)


def test_a_recording_of_one_chunk_is_not_cut() -> None:
    [chunk] = chunks([noise(4.0)], 4.0)
    assert len(chunk.samples) == 64_000


# One recording


def test_a_short_recording_is_one_dialogue(tmp_path: Path) -> None:
    result = transcribe(save(tmp_path / "talk.wav", noise(3.0)))
    assert (result.recording, result.duration_s) == ("talk", 3.0)
    assert [(s.speaker, s.start_s, s.end_s, s.text) for s in result.segments] == [
        ("Speaker1", 0.0, 1.5, "one"),
        ("Speaker2", 1.5, 3.0, "two"),
    ]
    assert (result.missing, result.warnings) == ((), ())
    [trace] = result.traces
    assert (trace["start_s"], trace["duration_s"], trace["stop"]) == (0.0, 3.0, "answered")


def test_speakers_of_different_chunks_have_different_labels(tmp_path: Path) -> None:
    result = transcribe(save(tmp_path / "talk.flac", with_pauses(10.0, (3.0, 6.0))))
    assert len(result.traces) == 3
    assert result.speakers == tuple(f"Speaker{n}" for n in range(1, 7))
    starts = [trace["start_s"] for trace in result.traces]
    assert [segment.start_s for segment in result.segments[::2]] == pytest.approx(starts)
    assert sum(trace["duration_s"] for trace in result.traces) == result.duration_s == 10.0
    [warning] = result.warnings
    assert "heard in 3 chunks" in warning and "not linked" in warning


def test_silence_is_not_shown_to_the_model(tmp_path: Path) -> None:
    engine = ScriptedEngine(play, PROFILE)
    result = Transcriber(engine, detect=None).transcribe(
        save(tmp_path / "still.wav", np.zeros(160_000))
    )
    assert engine.requests == []
    assert (result.segments, result.missing, result.traces, result.warnings) == ((), (), (), ())
    assert result.duration_s == 10.0


def test_silent_chunks_between_others_are_left_out(tmp_path: Path) -> None:
    samples = np.concatenate([noise(3.0), np.zeros(320_000, np.float32), noise(3.0)])
    result = transcribe(save(tmp_path / "pause.wav", samples), batch=2)
    assert len(result.traces) < result.info["chunks"]
    assert result.segments[0].start_s == 0.0
    assert result.segments[-1].end_s == pytest.approx(result.duration_s, abs=0.1)
    assert not any(segment.start_s >= 5.0 and segment.end_s <= 21.0 for segment in result.segments)


def test_faint_speech_is_shown_to_the_model(tmp_path: Path) -> None:
    """-60 dB of full scale for a tenth of a second, in silence."""
    samples = np.zeros(48_000)
    samples[20_000:21_600] = 0.001 * np.sign(np.sin(np.arange(1_600)))
    soundfile.write(tmp_path / "faint.wav", samples, SAMPLE_RATE_HZ, subtype="PCM_24")
    assert transcribe(tmp_path / "faint.wav").segments


def test_ten_minutes_of_silence_are_fast(tmp_path: Path) -> None:
    path = save(tmp_path / "long.flac", np.zeros(600 * SAMPLE_RATE_HZ, np.int16))
    begun = time.monotonic()
    assert transcribe(path).duration_s == 600.0
    assert time.monotonic() - begun < 20


def test_finished_chunks_are_let_go(tmp_path: Path) -> None:
    """At no time more samples are held than the dialogues under way need."""
    path = save(tmp_path / "long.wav", noise(60.0))
    held: list[int] = []

    def weigh(request: Request) -> str:
        sessions = {id(r.session): r.session for r in engine.requests}.values()
        held.append(sum(len(session.samples) for session in sessions))
        return play(request)

    engine = ScriptedEngine(weigh, PROFILE)
    result = Transcriber(engine, batch=2, detect=None).transcribe(path)
    assert len(result.traces) > 14
    assert max(held) <= 2 * PROFILE.chunk_s * SAMPLE_RATE_HZ


def test_what_could_not_be_transcribed_is_missing(tmp_path: Path) -> None:
    def fail_second(request: Request) -> str:
        second = request.session is not engine.requests[0].session
        return "hm" if second and request.rules.turn == 2 else play(request)

    engine = ScriptedEngine(fail_second, PROFILE)
    path = save(tmp_path / "talk.wav", with_pauses(6.0, (3.0,)))
    result = Transcriber(engine, detect=None).transcribe(path)
    [gap] = result.missing
    start_s = result.traces[1]["start_s"]
    assert gap.start_s == pytest.approx(start_s + (6.0 - start_s) / 2, abs=0.1)
    assert gap.end_s == pytest.approx(6.0, abs=0.1)
    assert gap.reason.startswith("malformed: turn 2")
    assert [segment.text for segment in result.segments] == ["one", "two", "one"]
    assert result.info["stops"] == {"answered": 1, "malformed": 1}


def test_a_duplicate_is_counted(tmp_path: Path) -> None:
    def twice(request: Request) -> str:
        if request.rules.turn != 2:
            return play(request).replace("<box>[1.5, 3.0]", "<box>[0.0, 3.0]")
        return render_turn(Turn(lines=(Line(1, "female", 1, 15, "one"),)), PROFILE) + "<answer>"

    path = save(tmp_path / "talk.wav", noise(3.0))
    result = Transcriber(ScriptedEngine(twice, PROFILE), detect=None).transcribe(path)
    assert [(s.start_s, s.text) for s in result.segments] == [(0.0, "one")]
    assert result.info["duplicates_dropped"] == 1
    assert result.info["stops"] == {"answered": 1}


@pytest.mark.parametrize(("probability", "warned"), [(0.4, True), (0.6, False)])
def test_words_the_model_was_unsure_of(tmp_path: Path, probability: float, warned: bool) -> None:
    path = save(tmp_path / "talk.wav", noise(3.0))
    result = Transcriber(Hesitant(probability), detect=None).transcribe(path)
    assert [s.confidence.words for s in result.segments] == pytest.approx([probability] * 2)
    assert len(result.warnings) == warned
    for warning in result.warnings:
        assert "(whistling)" in warning and "0.40" in warning and "0.50" in warning


def test_info_says_what_was_done_and_how_long_it_took(tmp_path: Path) -> None:
    path = save(tmp_path / "talk.wav", with_pauses(6.0, (3.0,)))
    info = Transcriber(Hesitant(1.0), batch=3, detect=None).transcribe(path).info
    assert (info["engine"], info["profile"], info["answer"]) == ("scripted", "native", "assembled")
    assert (info["chunks"], info["turns"]) == (2, 6)
    assert info["stage_s"] == {"decode": 1.5}
    assert info["wall_s"] >= 0
    assert info["real_time_factor"] == pytest.approx(info["wall_s"] / 6.0, abs=1e-3)


# Several


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    """Of several lengths; the third cannot be read, the fifth only at first."""
    paths = [save(tmp_path / f"r{i}.wav", noise(s, i)) for i, s in enumerate((9.0, 2.0, 1.0, 13.0))]
    paths[2].write_text("no audio")
    broken = noise(40.0, 5)
    broken[-5] = np.nan
    soundfile.write(tmp_path / "r4.wav", broken, SAMPLE_RATE_HZ, subtype="FLOAT")
    return [*paths, tmp_path / "r4.wav", save(tmp_path / "r5.wav", noise(0.05))]


def test_one_that_fails_is_a_result_in_its_place(recordings: list[Path]) -> None:
    results = list(
        Transcriber(ScriptedEngine(play, PROFILE), batch=4, detect=None).transcribe_all(recordings)
    )
    assert [result.recording for result in results] == [path.stem for path in recordings]
    assert [isinstance(result, Failure) for result in results] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    for result in (results[2], results[4]):
        assert isinstance(result, Failure) and isinstance(result.error, AudioError)
    for path, result in zip(recordings, results, strict=True):
        if not isinstance(result, Failure):
            assert untimed(transcribe(path)) == untimed(result)


def test_any_batch_gives_the_same(recordings: list[Path]) -> None:
    turns: dict[int, list[Progress]] = {}
    results = {}
    for batch in (1, 4, 50):
        turns[batch] = []
        transcriber = Transcriber(ScriptedEngine(play, PROFILE), batch=batch, detect=None)
        transcripts = transcriber.transcribe_all(recordings, turns[batch].append)
        results[batch] = [untimed(result) for result in transcripts]
    assert results[1] == results[4] == results[50]
    assert turns[1] == turns[4] == turns[50]


def test_turns_are_told_in_order_and_with_the_labels_of_the_transcript(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.wav", noise(s, i)) for i, s in enumerate((11.0, 6.0))]
    turns: list[Progress] = []
    transcriber = Transcriber(ScriptedEngine(play, PROFILE), batch=3, detect=None)
    for path, result in zip(paths, transcriber.transcribe_all(paths, turns.append), strict=True):
        assert isinstance(result, Transcript)
        assert {progress.path for progress in turns} == {path}, "told before the first has ended"
        assert [s for progress in turns for s in progress.segments] == list(result.segments)
        assert [p.start_s for p in turns] == sorted(p.start_s for p in turns)
        boxes = [progress.boxed for progress in turns if progress.boxed]
        spans = [(segment.start_s, segment.end_s) for segment in result.segments]
        assert boxes == [pytest.approx(span) for span in spans]
        turns.clear()


def test_turns_are_told_while_the_recording_is_transcribed(tmp_path: Path) -> None:
    path, order = save(tmp_path / "talk.wav", noise(3.0)), []

    def watch(request: Request) -> str:
        order.append(f"asked {request.rules.turn}")
        return play(request)

    transcriber = Transcriber(ScriptedEngine(watch, PROFILE), detect=None)
    transcriber.transcribe(path, lambda progress: order.append(f"told {progress.event.turn}"))
    assert order == ["asked 0", "told 0", "asked 1", "told 1", "asked 2", "told 2"]


def test_one_recording_that_fails_raises(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="nowhere"):
        transcribe(tmp_path / "nowhere.wav")


def test_no_recordings() -> None:
    assert list(Transcriber(ScriptedEngine(play, PROFILE), detect=None).transcribe_all([])) == []


def test_an_engine_that_fails_as_a_whole(tmp_path: Path) -> None:
    def fail(request: Request) -> str:
        raise EngineError("out of memory")

    path = save(tmp_path / "talk.wav", noise(3.0))
    with pytest.raises(EngineError, match="out of memory"):
        Transcriber(ScriptedEngine(fail, PROFILE), detect=None).transcribe(path)


def test_one_channel(tmp_path: Path) -> None:
    both = np.stack([np.zeros(48_000, np.float32), noise(3.0)], axis=1)
    path = save(tmp_path / "call.wav", both)
    assert transcribe(path, channel=0).segments == ()
    assert transcribe(path, channel=1).segments != ()
