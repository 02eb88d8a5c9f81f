"""Calls with one speaker a channel: a transcript of each, merged; echoes, copies, resumption."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import AudioError, SettingsError
from speaker_reasoner.evaluate.running import hypotheses, read_data, units
from speaker_reasoner.evaluate.running import transcribe as evaluate
from speaker_reasoner.formats import write
from speaker_reasoner.longform import Failure, Options, Progress, Transcriber
from speaker_reasoner.longform.echoes import FRAME_S, Levels, without_echoes
from speaker_reasoner.protocol import Box, Line, Overview, Turn, render_turn
from speaker_reasoner.transcript import Segment, Transcript, Word

from .conftest import noise
from .talk import PROFILE, Killed, Mortal, save
from .test_batch import files, run

SEPARATE = {"channels": "separate"}


def alone(request: Request) -> str:
    """One speaker, in all of every chunk; what is said tells how loud it is."""
    rules = request.rules
    if rules.turn == 0:
        box = Box(0, rules.chunk)
        return render_turn(Turn(overview=Overview(("female",)), box=box), PROFILE)
    loud = float(np.abs(request.session.samples).max()) > 0.15
    line = Line(1, "female", 0, rules.chunk, "loud" if loud else "quiet")
    return render_turn(Turn(lines=(line,)), PROFILE) + "<answer>"


def call(path: Path, *channels: np.ndarray[Any, Any]) -> Path:
    return save(path, np.stack(channels, axis=1))


def transcribe(path: Path, **options: Any) -> Transcript:
    engine = ScriptedEngine(alone, PROFILE)
    return Transcriber(engine, detect=None, **SEPARATE, **options).transcribe(path)


def test_a_transcript_of_each_channel_in_order_of_time(tmp_path: Path) -> None:
    quiet, loud = noise(9.0, 1) * 0.14, noise(9.0, 2)
    path = call(tmp_path / "call.wav", loud, quiet)
    transcript = transcribe(path, batch=4)
    for number, label in enumerate(("Speaker1", "Speaker2")):
        own = Transcriber(ScriptedEngine(alone, PROFILE), detect=None, channel=number)
        expected = [replace(s, speaker=label) for s in own.transcribe(path).segments]
        assert [s for s in transcript.segments if s.speaker == label] == expected
    assert transcript.duration_s == 9.0
    assert len({trace["chunk"] for trace in transcript.traces}) == len(transcript.traces) == 6
    assert [trace["channel"] for trace in transcript.traces] == [0, 1] * 3
    rows = transcript.info["channels"]
    assert [(row["channel"], row["speaker"], row["turns"]) for row in rows] == [
        (0, "Speaker1", 6),
        (1, "Speaker2", 6),
    ]
    assert transcript.info["turns"] == 12 and transcript.info["chunks"] == 6
    assert not transcript.warnings


def test_a_language_that_is_given_reaches_every_channel(tmp_path: Path) -> None:
    path = call(tmp_path / "call.wav", noise(4.0, 1), noise(4.0, 2) * 0.1)
    engine = ScriptedEngine(alone, PROFILE)
    Transcriber(engine, detect=None, **SEPARATE).transcribe(path, language="fr")
    assert {request.session.language for request in engine.requests} == {"fr"}


def test_turns_are_told_with_the_labels_and_chunks_of_the_transcript(tmp_path: Path) -> None:
    path = call(tmp_path / "call.wav", noise(9.0, 1), noise(9.0, 2) * 0.1)
    turns: list[Progress] = []
    engine = ScriptedEngine(alone, PROFILE)
    transcriber = Transcriber(engine, detect=None, batch=1, **SEPARATE)
    transcript = transcriber.transcribe(path, turns.append)
    segments = [segment for progress in turns for segment in progress.segments]
    assert sorted(segments, key=lambda s: (s.start_s, s.speaker)) == list(transcript.segments)
    spans = {(t["chunk"], t["start_s"]) for t in transcript.traces}
    assert {(progress.chunk, progress.start_s) for progress in turns} == spans
    starts = [progress.start_s for progress in turns]
    assert starts == sorted(starts), "the channels advance together"


def test_a_speaker_of_one_channel_is_one_in_all_chunks(tmp_path: Path) -> None:
    """A chunk is told that it has one speaker at most, also after the first."""
    engine = ScriptedEngine(alone, PROFILE)
    path = call(tmp_path / "call.wav", noise(9.0, 1), noise(9.0, 2) * 0.1)
    Transcriber(engine, detect=None, **SEPARATE).transcribe(path)
    assert {request.rules.count for request in engine.requests} == {(0, 1)}


def test_a_mono_recording_says_what_to_do(tmp_path: Path) -> None:
    path = save(tmp_path / "mono.wav", noise(3.0))
    with pytest.raises(AudioError, match=r"mono\.wav: got one channel.*leave out --channels"):
        transcribe(path)


@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_channels_of_the_same_sound_count_once(tmp_path: Path, gain: float) -> None:
    sound = noise(9.0)
    transcript = transcribe(call(tmp_path / "call.wav", sound * gain, sound))
    label = "Speaker1" if gain == 1.0 else "Speaker2"
    assert transcript.speakers == (label,) and len(transcript.segments) == 3
    [warning] = transcript.warnings
    assert "channels 0 and 1 hold the same sound" in warning and "--channels separate" in warning


def test_a_channel_of_silence_is_no_copy_of_another(tmp_path: Path) -> None:
    silence = np.zeros(48_000, np.float32)
    transcript = transcribe(call(tmp_path / "call.wav", silence, noise(3.0), silence))
    assert transcript.speakers == ("Speaker2",) and not transcript.warnings
    assert [row["spoken_s"] for row in transcript.info["channels"]] == [0.0, 3.0, 0.0]


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    engine = ScriptedEngine(alone, PROFILE)
    with pytest.raises(SettingsError, match="channel 1 and --channels separate"):
        Transcriber(engine, channel=1, **SEPARATE)
    with pytest.raises(SettingsError, match="expected mix or separate"):
        Transcriber(engine, channels="both")
    path = call(tmp_path / "call.wav", noise(3.0), noise(3.0, 2))
    with pytest.raises(SettingsError, match="speakers 2-2 and --channels separate"):
        Options(channels="separate").transcriber(engine).open(path, speakers=(2, 2))


def test_killed_at_any_round_it_ends_with_the_same_files(tmp_path: Path) -> None:
    paths = [
        call(tmp_path / "a.wav", noise(9.0, 1), noise(9.0, 2) * 0.5),
        call(tmp_path / "b.wav", noise(5.0, 3), noise(5.0, 4) * 0.5, noise(5.0, 5)),
    ]
    whole, engine = tmp_path / "whole", Mortal(10**6)
    run(paths, whole, engine, **SEPARATE)
    rounds = 10**6 - engine.left
    assert rounds > 4
    for at in range(rounds):
        out = tmp_path / f"killed-{at}"
        with pytest.raises(Killed):
            run(paths, out, Mortal(at), **SEPARATE)
        again = Mortal(10**6)
        run(paths, out, again, **SEPARATE)
        assert files(out) == files(whole)
        if at == rounds - 1:
            assert 10**6 - again.left < rounds, "nothing was gone on from"


def test_a_chunk_of_a_channel_is_heard_again(tmp_path: Path) -> None:
    path = call(tmp_path / "call.wav", noise(9.0, 1), noise(9.0, 2) * 0.1)
    engine = ScriptedEngine(alone, PROFILE)
    transcriber = Transcriber(engine, detect=None, **SEPARATE)
    whole = transcriber.transcribe(path)
    recording = transcriber.listen_again(path, whole, 3)
    while dialogues := recording.dialogues(1):
        from speaker_reasoner.reasoner import ask

        list(ask(dialogues, engine))
    chunk = recording.result()
    assert not isinstance(chunk, Failure)
    [segment] = chunk.segments
    old = [s for s in whole.segments if s.speaker == "Speaker2"][1]
    assert (segment.start_s, segment.text) == (old.start_s, "quiet")


# Echoes


def level(*parts: tuple[float, float], seconds: float = 20.0, floor_db: float = -90.0) -> Levels:
    """Levels that are loud, at 0 dB more than given, within parts `(start_s, db)` of one second."""
    levels = np.full(round(seconds / FRAME_S), floor_db, np.float32)
    for start_s, loud_db in parts:
        levels[round(start_s / FRAME_S) : round((start_s + 1) / FRAME_S)] = loud_db
    return levels


def line(start_s: float, text: str, *, timed: bool = True, speaker: str = "A") -> Segment:
    """A line of one second."""
    texts = text.split()
    step = 1.0 / len(texts)
    words = tuple(
        Word(t, start_s + i * step, start_s + (i + 1) * step) for i, t in enumerate(texts)
    )
    return Segment(speaker, start_s, start_s + 1.0, text, words=words if timed else None)


@pytest.mark.parametrize("timed", [True, False])
def test_an_echo_is_left_out_and_counted(timed: bool) -> None:
    """Heard 0.1 s later, one of four words misunderstood."""
    said = line(3.0, "Shall we begin now?", timed=timed)
    echo = line(3.1, "shall we begin no", timed=timed)
    own = line(8.0, "Yes, please.", timed=timed)
    levels = [level((3.0, -20.0)), level((3.1, -45.0), (8.0, -25.0))]
    kept, counts = without_echoes([[said], [echo, own]], levels)
    assert kept == [[said], [own]]
    assert [dict(c) for c in counts] == [{}, {0: 4}]


def test_a_line_is_cut_where_the_echo_is() -> None:
    said = line(3.0, "and then we left")
    mixed = Segment(
        "B",
        3.0,
        5.0,
        "And then we left. I know.",
        words=(
            *(line(3.0, "And then we left.").words or ()),
            Word("I", 4.2, 4.4),
            Word("know.", 4.4, 4.9),
        ),
    )
    levels = [level((3.0, -20.0)), level((3.0, -45.0), (4.2, -22.0))]
    kept, counts = without_echoes([[said], [mixed]], levels)
    [rest] = kept[1]
    assert (rest.text, rest.start_s, rest.end_s) == ("I know.", 4.2, 5.0)
    assert counts[1] == {0: 4}


OTHERS = {
    "both say it, as loud": ("yes indeed", 3.0, -22.0),
    "quiet, and other words": ("not at all", 3.0, -45.0),
    "quiet, at another time": ("yes indeed", 9.0, -45.0),
}


@pytest.mark.parametrize(("text", "start_s", "loud_db"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_echo_stays(text: str, start_s: float, loud_db: float) -> None:
    channels = [[line(3.0, "yes indeed")], [line(start_s, text)]]
    levels = [level((3.0, -20.0)), level((start_s, loud_db))]
    assert without_echoes(channels, levels) == (channels, [{}, {}])


def test_an_echo_that_is_misunderstood_is_known_by_its_levels() -> None:
    """Other words, but the level rises and falls with the other channel, 0.1 s later."""
    rise = np.random.default_rng(0).uniform(-40, -20, 1000).astype(np.float32)
    said, echo = line(3.0, "shall we begin"), line(3.1, "shell or beacon")
    faint = np.roll(rise, 5) - 20
    assert without_echoes([[said], [echo]], [rise, faint])[0] == [[said], []]
    other = np.random.default_rng(1).uniform(-60, -40, 1000).astype(np.float32)
    assert without_echoes([[said], [echo]], [rise, other])[0] == [[said], [echo]]


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 8), st.sampled_from(["a b", "a", "b c d", "c"])), max_size=4
        ),
        min_size=2,
        max_size=3,
    ),
    st.lists(st.sampled_from([-20.0, -40.0, -60.0]), min_size=3, max_size=3),
)
def test_words_are_kept_or_counted(
    said: Sequence[Sequence[tuple[int, str]]], loud_db: Sequence[float]
) -> None:
    """Law: no word is lost or made, and the loudest channel keeps all of its own."""
    channels = [[line(2.0 * at, text) for at, text in own] for own in said]
    levels = [level(floor_db=db) for db in loud_db[: len(channels)]]
    kept, counts = without_echoes(channels, levels)
    for before, after, count in zip(channels, kept, counts, strict=True):
        words = [word for s in before for word in s.words or ()]
        left = [word for s in after for word in s.words or ()]
        assert len(words) == len(left) + sum(count.values())
        assert [word for word in words if word in left] == left
    loudest = max(range(len(channels)), key=lambda n: loud_db[n])
    assert kept[loudest] == channels[loudest]


def test_pieces_of_a_data_set_have_all_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`evaluate run` in pieces: each channel of a piece is that stretch of the channel."""
    path = call(tmp_path / "call.wav", noise(9.0, 1), noise(9.0, 2) * 0.1)
    said = [Segment("A", at, at + 0.9, "loud") for at in range(8)]
    write(Transcript("call", 9.0, tuple(said)), tmp_path, ["seglst"])
    rows, _ = units(read_data(tmp_path), (2.0, 4.0))
    assert len(rows) > 1 and path.exists()
    engine = ScriptedEngine(alone, PROFILE)
    monkeypatch.setattr(
        engine, "detector", lambda _: lambda samples: [(0.0, len(samples) / 16_000)]
    )
    measured = evaluate(engine, rows, tmp_path / "out", Options(channels="separate"))
    assert not measured["failures"]
    transcripts = hypotheses(tmp_path / "out")
    assert len(transcripts) == len(rows)
    for row in rows:
        piece = transcripts[row.reference.recording]
        assert {(s.speaker, s.text) for s in piece.segments} == {
            ("Speaker1", "loud"),
            ("Speaker2", "quiet"),
        }
        assert piece.duration_s == pytest.approx(row.reference.duration_s, abs=1e-3)
