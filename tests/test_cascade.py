"""The cascade's dialogue over a recogniser and a diarizer that find whatever is drawn."""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner import Transcriber
from speaker_reasoner.audio import SAMPLE_RATE_HZ, Samples
from speaker_reasoner.engines.cascade.diarizer import Diarization
from speaker_reasoner.engines.cascade.engine import PROFILE, CascadeEngine
from speaker_reasoner.engines.cascade.recogniser import Recognition
from speaker_reasoner.engines.cascade.segmentation import FRAME_S
from speaker_reasoner.reasoner import Dialogue, Outcome, Stop, run
from speaker_reasoner.server.offers import offer_of
from speaker_reasoner.server.runs import Defaults
from speaker_reasoner.speech import Region
from speaker_reasoner.transcript import Word

from .conftest import noise
from .talk import Dying, Killed, untimed

ODD = (
    *("a<b", "<box>", "</think>", "\x07bell", "\x7f", "\ud800", "ha" * 30, "哈" * 12, "000" * 9),
    *("中", "文。", "[0.10,", "2.30]:", "Speaker2-male", "...", "'", "😀", "é", "ab" * 60),
)


class Recogniser:
    """Hears given words, those that start in what it is asked to listen to."""

    name = "fake"

    def __init__(self, words: Sequence[Word], *, joined: bool = False, lost: int = 0) -> None:
        self.words, self.joined, self.lost = words, joined, lost
        self.recognised = 0

    def of(self, samples: Samples) -> Sequence[Word]:
        return self.words

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        inside = [
            replace(word, end_s=min(word.end_s, b))
            for word in self.of(samples)
            for a, b in speech
            if a <= word.start_s < b
        ]
        self.recognised += len(inside) + self.lost
        left_out = {"it was told to": self.lost} if self.lost else {}
        if not inside:
            return Recognition(left_out=left_out)
        return Recognition(tuple(inside), "en", 0.9, left_out, (self.joined,) * len(inside))

    def describe(self) -> dict[str, Any]:
        return {}


class Diarizer:
    """Hears given speakers, whatever it is asked."""

    name = "fake"
    witness = None

    def __init__(self, active: np.ndarray[Any, Any], speech: Sequence[Region]) -> None:
        self.active, self.regions = active, speech

    def speech(self, samples: Samples) -> Sequence[Region]:
        return self.regions

    def diarize(self, samples: Samples, bounds: tuple[int, int] | None = None) -> Diarization:
        people = self.active.shape[1]
        return Diarization(self.active, np.eye(max(1, people), 4, dtype=np.float32)[:people])

    def describe(self) -> dict[str, Any]:
        return {}


@st.composite
def words(draw: Any, length_s: float, *, most: int = 40) -> list[Word]:
    """Words in order of start, each text but once."""
    fine = st.sampled_from([0.0, 0.001, 0.02, 0.1, 0.4, 3.0])
    count = draw(st.integers(0, most))
    at_s, drawn = draw(st.sampled_from([0.0, length_s / 2, length_s])), []
    for i in range(count):
        at_s = min(at_s + draw(fine), length_s)
        odd = draw(st.sampled_from([*ODD, *[""] * len(ODD)]))
        sure = draw(st.sampled_from([None, 0.0, 0.5, 1.0]))
        text = f"{odd}w{i}" if draw(st.booleans()) else f"w{i}{odd}"
        drawn.append(Word(text, at_s, min(at_s + draw(fine), length_s), sure))
    return drawn


@dataclass(frozen=True)
class Chunk:
    """What is found in a chunk, drawn small so that a failure can be read."""

    length_s: float
    words: tuple[Word, ...]
    people: int
    seed: int
    loudness: float
    speech: tuple[Region, ...]
    joined: bool
    lost: int

    def parts(self) -> tuple[Samples, Recogniser, Diarizer]:
        frames = max(1, round(self.length_s / FRAME_S))
        active = np.random.default_rng(self.seed).random((frames, self.people), np.float32)
        recogniser = Recogniser(self.words, joined=self.joined, lost=self.lost)
        return noise(self.length_s), recogniser, Diarizer(active * self.loudness, self.speech)


@st.composite
def chunks(draw: Any) -> Chunk:
    length_s = draw(st.sampled_from([1 / SAMPLE_RATE_HZ, 0.05, 0.1, 0.3, 2.0, 7.0]))
    whole = ((0.0, length_s + 1e-6),)
    half = ((0.0, length_s / 2),) if length_s >= 1 else whole
    return Chunk(
        length_s,
        tuple(draw(words(length_s))),
        people=draw(st.sampled_from([0, 1, 2, 5, 40])),
        seed=draw(st.integers(0, 9)),
        loudness=draw(st.sampled_from([0.0, 0.4, 1.0])),
        speech=draw(st.sampled_from([whole, half, ()])),
        joined=draw(st.booleans()),
        lost=draw(st.integers(0, 1)),
    )


def play(engine: CascadeEngine, samples: Samples, **options: Any) -> tuple[Dialogue, Outcome]:
    dialogue = Dialogue(samples, engine.profile, **options)
    for _ in run([dialogue], engine):
        pass
    assert dialogue.outcome is not None
    return dialogue, dialogue.outcome


def left_out(dialogue: Dialogue) -> int:
    return sum(sum(event.left_out.values()) for event in dialogue.events)


COUNTS = st.sampled_from([None, (1, 1), (2, 2), (3, 9), (1, 30), (7, 50)])


@settings(max_examples=150, deadline=None)
@given(chunk=chunks(), answer=st.sampled_from(["assembled", "model"]), count=COUNTS)
def test_every_word_is_told_or_counted(
    chunk: Chunk, answer: str, count: tuple[int, int] | None
) -> None:
    samples, recogniser, diarizer = chunk.parts()
    engine = CascadeEngine(recogniser, diarizer)
    dialogue, outcome = play(engine, samples, answer=answer, count=count)
    assert outcome.stop is Stop.ANSWERED, outcome.detail
    written = [word for one in outcome.lines for word in one.words or ()]
    assert len(written) + left_out(dialogue) == recogniser.recognised
    assert max(Counter(word.text for word in written).values(), default=1) == 1
    tick = engine.profile.ticks_per_s
    for one in outcome.lines:
        assert one.words
        assert 0 <= one.line.start < one.line.end <= dialogue.chunk
        separate = "" if recogniser.joined else " "
        assert one.line.text == separate.join(word.text for word in one.words)
        assert one.words[0].start_s >= one.line.start / tick
        assert max(word.end_s for word in one.words) <= one.line.end / tick
    if count is not None:
        low, high = count
        assert dialogue.events[0].speakers is not None
        assert low <= len(dialogue.events[0].speakers) <= high
    assert all(0.0 <= h.confidence.speaker <= 1.0 for h in outcome.lines if h.confidence.speaker)


@settings(max_examples=40, deadline=None)
@given(chunk=chunks())
def test_what_the_model_writes_is_what_is_assembled(
    chunk: Chunk,
) -> None:
    samples, *parts = chunk.parts()
    engine = CascadeEngine(*parts)
    rows = []
    for answer in ("assembled", "model"):
        _, outcome = play(engine, samples, answer=answer)
        lines = sorted(outcome.lines, key=lambda one: (one.line.start, one.line.text))
        rows.append([(h.line, h.words, h.confidence, repr(h.embedding)) for h in lines])
    assert rows[0] == rows[1]


@pytest.mark.no_cover
def test_a_thousand_words() -> None:
    """Half a minute in which five people take turns at every word, 17 ms each."""
    said = [Word(f"w{i}", i * 0.02, i * 0.02 + 0.015) for i in range(1490)]
    active = np.tile(np.eye(5, dtype=np.float32), (356, 1))
    recogniser = Recogniser(said)
    engine = CascadeEngine(recogniser, Diarizer(active, [(0.0, 30.0)]))
    dialogue, outcome = play(engine, noise(30.0))
    assert outcome.stop is Stop.ANSWERED
    written = [word.text for one in outcome.lines for word in one.words or ()]
    assert len(written) + left_out(dialogue) == recogniser.recognised == 1490
    assert len(written) > 1200


def one_speaker(length_s: float) -> Diarizer:
    return Diarizer(np.ones((max(1, round(length_s / FRAME_S)), 1), np.float32), [(0.0, length_s)])


def test_a_word_said_fifty_times_begins_another_line() -> None:
    said = [Word("no", i * 0.2, i * 0.2 + 0.15) for i in range(50)]
    dialogue, outcome = play(CascadeEngine(Recogniser(said), one_speaker(10.0)), noise(10.0))
    assert sum(len(one.words or ()) for one in outcome.lines) == 50
    assert left_out(dialogue) == 0


def test_a_long_text_gets_the_time_it_needs() -> None:
    """A recogniser that puts a sentence into a moment."""
    said = [Word(f"word{i}", 1.0, 1.0) for i in range(60)]
    dialogue, outcome = play(CascadeEngine(Recogniser(said), one_speaker(20.0)), noise(20.0))
    assert [len(one.words or ()) for one in outcome.lines] == [60]
    assert left_out(dialogue) == 0


@pytest.mark.parametrize(
    ("given", "recognised", "again"),
    [
        (None, "zh", "zh"),
        ("zh-Hant", "zh", "zh-Hant"),  # the rest is not written in other characters
        ("zh-Hant", "en", "en"),
        ("en", "zh", "zh"),
    ],
)
def test_what_has_no_word_is_listened_to_again_in_the_same_language(
    given: str | None, recognised: str, again: str
) -> None:
    asked: list[str | None] = []

    class Speaking(Recogniser):
        def recognise(
            self, samples: Samples, speech: Sequence[Region], language: str | None
        ) -> Recognition:
            asked.append(language)
            recognition = super().recognise(samples, speech, language)
            return replace(recognition, language=recognised) if recognition.words else recognition

    engine = CascadeEngine(Speaking([Word("one", 0.2, 0.5)]), one_speaker(9.0))
    play(engine, noise(9.0), language=given)
    assert asked == [given, again]


def test_a_character_of_the_markup_takes_one_word_with_it() -> None:
    said = [Word("a<b" if i == 3 else f"w{i}", i * 0.3, i * 0.3 + 0.2) for i in range(8)]
    dialogue, outcome = play(CascadeEngine(Recogniser(said), one_speaker(4.0)), noise(4.0))
    assert [one.line.text for one in outcome.lines] == ["w0 w1 w2 w4 w5 w6 w7"]
    assert left_out(dialogue) == 1


def test_speakers_are_numbered_as_they_appear() -> None:
    active = np.zeros((round(6.0 / FRAME_S), 3), np.float32)
    third = len(active) // 3
    for k, column in enumerate((2, 0, 1)):
        active[k * third : (k + 1) * third, column] = 1
    said = [Word(f"w{i}", i * 0.5, i * 0.5 + 0.4) for i in range(12)]
    _, outcome = play(CascadeEngine(Recogniser(said), Diarizer(active, [(0, 6.0)])), noise(6.0))
    assert [one.line.speaker for one in outcome.lines] == [1, 2, 3]
    columns = [int(np.argmax(one.embedding)) for one in outcome.lines]  # type: ignore[arg-type]
    assert columns == [2, 0, 1]


# Recordings


class Listening(Recogniser):
    """Hears words that depend on the sound alone, and their language by the first of them."""

    def __init__(self) -> None:
        super().__init__([])
        self.languages: list[str | None] = []

    def of(self, samples: Samples) -> Sequence[Word]:
        rng = np.random.default_rng(zlib.crc32(samples.tobytes()))
        starts = np.sort(rng.uniform(0, len(samples) / SAMPLE_RATE_HZ, 25))
        texts = rng.integers(0, 10_000, len(starts))
        end_s = len(samples) / SAMPLE_RATE_HZ
        return [
            Word(f"{text}" if text % 7 else "<", float(at), float(min(at + 0.2, end_s)), 0.5)
            for at, text in zip(starts, texts, strict=True)
        ]

    def recognise(
        self, samples: Samples, speech: Sequence[Region], language: str | None
    ) -> Recognition:
        self.languages.append(language)
        return super().recognise(samples, speech, language)


class Telling(Diarizer):
    """Tells speakers apart by the sound alone."""

    def __init__(self) -> None:
        super().__init__(np.zeros((1, 0)), [])

    def speech(self, samples: Samples) -> Sequence[Region]:
        end_s = len(samples) / SAMPLE_RATE_HZ
        return [(0.0, end_s / 3), (end_s / 2, end_s)]

    def diarize(self, samples: Samples, bounds: tuple[int, int] | None = None) -> Diarization:
        rng = np.random.default_rng(zlib.crc32(samples.tobytes()))
        people = int(rng.integers(1, 5)) if bounds is None else bounds[1]
        active = rng.random((round(len(samples) / SAMPLE_RATE_HZ / FRAME_S), people), np.float32)
        return Diarization(active, rng.standard_normal((people, 8)).astype(np.float32))


class MortalCascade(Dying, CascadeEngine):
    """A cascade that dies when it was asked `left` times."""


SHORT = replace(PROFILE, chunk_s=6.0)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, paths = tmp_path_factory.mktemp("talks"), []
    for number, length_s in enumerate((20.0, 4.0, 13.0)):
        paths.append(folder / f"{number}.wav")
        soundfile.write(paths[-1], noise(length_s, number), SAMPLE_RATE_HZ)
    return paths


def engine() -> CascadeEngine:
    return CascadeEngine(Listening(), Telling(), SHORT)


@pytest.mark.parametrize("speakers", [None, (2, 2), (1, 4)])
@pytest.mark.parametrize("vad", ["auto", "energy"])
def test_alone_and_in_a_batch(
    recordings: list[Path], speakers: tuple[int, int] | None, vad: str
) -> None:
    options: dict[str, Any] = {} if vad == "auto" else {"detect": lambda x: [(0.0, len(x) / 16e3)]}
    alone = [
        untimed(Transcriber(engine(), batch=1, **options).transcribe(path, speakers=speakers))
        for path in recordings
    ]
    batch = Transcriber(engine(), batch=3, **options)
    results = batch.transcribe_all(recordings, speakers=speakers)
    assert [untimed(result) for result in results] == alone
    assert all("left out" in " ".join(one.warnings) for one in alone)


@pytest.mark.parametrize("kills", [(1, 2, 5), (3, 4, 7, 9)])
@pytest.mark.parametrize("answer", ["assembled", "model"])
def test_killed_and_resumed_is_the_same(
    recordings: list[Path], tmp_path: Path, kills: Sequence[int], answer: str
) -> None:
    whole = untimed(Transcriber(engine(), answer=answer).transcribe(recordings[0]))
    for left in (*kills, 1000):
        mortal = MortalCascade(left, Listening(), Telling(), SHORT)
        try:
            transcriber = Transcriber(mortal, answer=answer)
            result = transcriber.transcribe(recordings[0], journal=tmp_path / "journal")
        except Killed:
            continue
    assert untimed(result) == whole


def test_a_chunk_is_told_the_language_of_those_before(recordings: list[Path]) -> None:
    recogniser = Listening()
    Transcriber(CascadeEngine(recogniser, Telling(), SHORT)).transcribe(recordings[0])
    assert recogniser.languages[0] is None
    assert set(recogniser.languages[1:]) == {"en"}


def test_silence_is_nobody(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "still.wav", np.zeros(160_000), SAMPLE_RATE_HZ)
    recogniser = Listening()
    transcriber = Transcriber(CascadeEngine(recogniser, Telling(), SHORT))
    result = transcriber.transcribe(tmp_path / "still.wav")
    assert (result.segments, result.missing, recogniser.languages) == ((), (), [])


def test_a_server_lets_clients_name_a_language_and_not_its_characters() -> None:
    recogniser = Listening()
    recogniser.languages = ["en", "zh", "zh-Hant"]
    transcriber = Transcriber(CascadeEngine(recogniser, Telling(), SHORT))
    offer = offer_of(transcriber, [], Defaults(), None, False)
    assert offer.able.languages == ("en", "zh")
