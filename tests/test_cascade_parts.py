"""The cascade's parts: segmentation, clustering, words to lines, Whisper's words, filter banks, gender."""

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.engines.cascade import gender, segmentation, whisper
from speaker_reasoner.engines.cascade.chinese import converted
from speaker_reasoner.engines.cascade.clustering import (
    Subsegment,
    activity,
    cluster,
    evidence,
    subsegments,
)
from speaker_reasoner.engines.cascade.embedding import filter_banks
from speaker_reasoner.engines.cascade.gender import Genders, patches
from speaker_reasoner.engines.cascade.lines import assign, lines
from speaker_reasoner.engines.cascade.recogniser import known_language
from speaker_reasoner.engines.cascade.segmentation import (
    FRAME_S,
    LocalSpeakers,
    frames_of,
    on,
    regions,
    runs,
)
from speaker_reasoner.errors import CheckpointError, SettingsError
from speaker_reasoner.transcript import Word

from .conftest import noise
from .vocal import silence, voice

PROBABILITIES = arrays(
    np.float32,
    st.integers(0, 80),
    elements=st.sampled_from([0.0, 0.2, 0.34, 0.36, 0.49, 0.51, 1.0]),
)

LANGUAGES = ("de", "en", "pt", "yue", "zh", "zh-Hant", "zh-TW")

# Languages


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("en-US", "en"),
        ("pt_BR", "pt"),
        ("English", "en"),
        ("mandarin", "zh"),
        ("Cantonese", "yue"),
        ("zh-tw", "zh-TW"),
        ("zh_Hant", "zh-Hant"),
        ("zh-SG", "zh"),
        (None, None),
    ],
)
def test_a_language_by_its_name_or_with_a_region(given: str | None, code: str | None) -> None:
    assert known_language("whisper", given, LANGUAGES) == code


# Segmentation


@given(PROBABILITIES)
def test_runs_are_where_it_is_true(probability: Any) -> None:
    active = probability > 0.4
    covered = np.zeros(len(active), bool)
    for first, last in runs(active):
        assert first < last and active[first:last].all()
        covered[first:last] = True
    assert (covered == active).all()
    assert all(last < first for (_, last), (first, _) in pairwise(runs(active)))


@given(PROBABILITIES)
def test_on_begins_high_and_ends_low(probability: Any) -> None:
    """The plain definition, frame by frame."""
    expected, state = [], False
    for value in probability.tolist():
        state = value >= 0.35 if state else value >= 0.5
        expected.append(state)
    assert on(probability).tolist() == expected


@given(PROBABILITIES, st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.3]))
def test_regions_are_apart_and_inside(probability: Any, pad_s: float, merge_s: float) -> None:
    end_s = max(0.01, len(probability) * FRAME_S)
    merged = regions(probability, end_s, pad_s=pad_s, merge_s=merge_s)
    assert all(0 <= a < b <= end_s for a, b in merged)
    assert all(first[1] + merge_s < second[0] for first, second in pairwise(merged))
    padded = regions(probability, end_s, pad_s=1.0, merge_s=0.0)
    assert all(any(a >= c and b <= d for c, d in padded) for a, b in merged)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(1, 300))
def test_some_frame_belongs_to_every_time(start_s: float, length_s: float, count: int) -> None:
    place = frames_of(start_s, start_s + length_s, count)
    assert 0 <= place.start < place.stop <= count


@pytest.mark.parametrize("samples", [1, 159_999, 160_000, 160_001, 240_000, 245_123, 1_000_000])
def test_windows_cover_the_samples(samples: int) -> None:
    starts = segmentation._window_starts(samples)
    assert starts[0] == 0 and max(starts[-1], 0) + 160_000 >= samples
    assert all(0 < b - a <= 80_000 for a, b in pairwise(starts))


# Clustering


def subsegment(number: int, seconds: float, people: int = 1) -> Subsegment:
    """Pieces one after the other, apart."""
    first = 200 * number
    frames = np.arange(first, first + round(seconds / FRAME_S))
    return Subsegment(0, 0, first, int(frames[-1]) + 1, frames if people == 1 else frames[:0])


@st.composite
def groups(draw: Any) -> tuple[Any, list[Subsegment], list[int]]:
    """Points of some people, far from each other and near to themselves."""
    who = 2 * draw(
        st.lists(st.integers(0, 3), min_size=1, max_size=7)
    )  # one subsegment is too faint
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    points = np.eye(4, 16, dtype=np.float32)[who] + 0.05 * rng.standard_normal((len(who), 16))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    lengths = draw(st.lists(st.sampled_from([1.9, 2.0]), min_size=len(who), max_size=len(who)))
    return points, [subsegment(i, length) for i, length in enumerate(lengths)], who


def partition(labels: Sequence[int]) -> set[frozenset[int]]:
    return {
        frozenset(i for i, other in enumerate(labels) if other == label) for label in set(labels)
    }


@given(groups())
def test_people_far_apart_are_told_apart(given: Any) -> None:
    points, parts, who = given
    votes = np.zeros((len(parts), len(parts)), np.float32)
    labels = cluster(points, votes, parts).tolist()
    assert partition(labels) == partition(who)
    assert sorted(set(labels)) == list(range(len(set(labels))))


@given(groups(), st.randoms())
def test_order_does_not_matter(given: Any, random: Any) -> None:
    points, parts, _ = given
    votes = np.zeros((len(parts), len(parts)), np.float32)
    order = list(range(len(parts)))
    random.shuffle(order)
    labels = cluster(points, votes, parts)
    shuffled = cluster(points[order], votes, [parts[i] for i in order])
    back = np.empty_like(shuffled)
    back[order] = shuffled
    assert partition(back.tolist()) == partition(labels.tolist())


@given(groups(), st.integers(0, 6), st.integers(0, 6))
def test_bounds_hold(given: Any, low: int, more: int) -> None:
    points, parts, _ = given
    votes = np.zeros((len(parts), len(parts)), np.float32)
    high = max(1, low + more)
    count = len(set(cluster(points, votes, parts, (low, high)).tolist()))
    assert min(max(1, low), len(parts)) <= count <= high


@pytest.mark.parametrize("seconds", [0.02, 0.5, 2.0])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_identical_points_are_one_person(count: int, seconds: float) -> None:
    points = np.tile(np.eye(1, 8, dtype=np.float32), (count, 1))
    votes = np.zeros((count, count), np.float32)
    parts = [subsegment(i, seconds) for i in range(count)]
    assert cluster(points, votes, parts).tolist() == [0] * count


def test_no_subsegments_are_nobody() -> None:
    none = np.zeros((0, 8), np.float32)
    assert cluster(none, np.zeros((0, 0), np.float32), []).tolist() == []


def test_two_at_once_are_two_people() -> None:
    """A short subsegment beside a long one of the same voice goes to the other."""
    points = np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    long, other = subsegment(0, 2.0), subsegment(1, 2.0)
    beside = Subsegment(0, 1, 10, 40, np.zeros(0, np.intp))
    labels = cluster(points, np.zeros((3, 3), np.float32), [long, other, beside]).tolist()
    assert labels[2] == labels[1] != labels[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(0, 9))
def test_subsegments_are_where_somebody_speaks(length_s: int, seed: int) -> None:
    """Each frame of each window's middle is in a subsegment of every speaker who is on."""
    samples = length_s * SAMPLE_RATE_HZ
    starts = segmentation._window_starts(samples)
    offsets = np.array([round(start / 270) for start in starts], np.intp)
    rng = np.random.default_rng(seed)
    active = np.repeat(rng.random((len(starts), 31, 3), np.float32) ** 3, 19, axis=1)
    local = LocalSpeakers(offsets, active, round(samples / 270))
    parts = subsegments(local)
    assert all(0 < one.last - one.first <= round(2.0 / FRAME_S) + 1 for one in parts)
    assert all(set(one.alone.tolist()) <= set(range(one.first, one.last)) for one in parts)
    who = np.arange(len(parts))
    spoken = activity(local, parts, who).max(axis=1, initial=0)
    assert (spoken[: local.frames] <= 1).all()
    votes = evidence(local, parts)
    assert (np.abs(votes) <= 1.0001).all() and np.allclose(votes, votes.T, atol=1e-5)


# Words to lines


@st.composite
def spoken_words(draw: Any) -> tuple[list[Word], list[bool], Any]:
    at_s, words = 0.0, []
    for i in range(draw(st.integers(0, 25))):
        at_s += draw(st.sampled_from([0.0, 0.1, 0.5, 2.0]))
        length_s = draw(st.sampled_from([0.0, 0.2, 1.0]))
        words.append(Word(f"w{i}" + draw(st.sampled_from(["", ".", "。"])), at_s, at_s + length_s))
    joined = draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    people, seed = draw(st.integers(0, 4)), draw(st.integers(0, 9))
    frames = draw(st.sampled_from([1, 50, 2000]))
    return words, joined, np.random.default_rng(seed).random((frames, people), np.float32)


@given(spoken_words())
def test_every_word_is_in_one_line(given: Any) -> None:
    words, joined, active = given
    who, sure = assign(words, active)
    assert all(0 <= one < max(1, active.shape[1]) for one in who)
    assert all(0 < one <= 1 for one in sure)
    rows = lines(words, joined, who, sure)
    assert [word for row in rows for word in row.words] == words
    for row in rows:
        first = words.index(row.words[0])
        own = range(first, first + len(row.words))
        text = "".join(("" if joined[i] else " ") + words[i].text for i in own)
        assert row.text == text.removeprefix(" ")
        assert {who[i] for i in own} == {row.speaker}


def test_a_word_goes_to_who_speaks() -> None:
    active = np.zeros((600, 3), np.float32)
    active[:200, 2] = active[200:400, 0] = active[400:, 1] = 0.9
    words = [Word(f"w{i}", i * 0.5, i * 0.5 + 0.4) for i in range(20)]
    who, sure = assign(words, active)
    expected = [2 if w.end_s < 3.4 else 0 if w.end_s < 6.75 else 1 for w in words]
    assert sum(a != b for a, b in zip(who, expected, strict=True)) <= 2
    assert min(sure) > 0.3 and sure[0] > 0.9


# Whisper


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.2, 3.0]), st.sampled_from([0.1, 5.0, 28.9, 29.0, 61.0])),
        max_size=5,
    )
)
def test_packs_hold_all_speech_in_order(steps: Any) -> None:
    speech, at_s = [], 0.0
    for gap_s, length_s in steps:
        speech.append((at_s + gap_s, at_s + gap_s + length_s))
        at_s = speech[-1][1]
    packs = whisper._packs(silence(at_s), speech)
    parts = [part for pack in packs for part in pack]
    assert all(pack and sum(b - a for a, b in pack) <= 29.0 + 1e-6 for pack in packs)
    assert all(first[1] <= second[0] for first, second in pairwise(parts))
    packed_s = sum(b - a for a, b in parts)
    assert packed_s == pytest.approx(sum(b - a for a, b in speech))
    assert all(any(c <= a and b <= d for c, d in speech) for a, b in parts)


@given(st.floats(0, 8), st.floats(0, 8), st.sampled_from([" a", "a", " a b ", "中"]))
def test_words_are_placed_in_their_pack(start_s: float, length_s: float, text: str) -> None:
    pack = [(1.0, 3.0), (10.0, 11.0), (20.0, 23.5)]
    end_s = sum(b - a for a, b in pack)
    word = whisper._placed(spoken(text, start_s, start_s + length_s), pack, end_s)
    if start_s >= end_s:
        assert word is None
        return
    assert word is not None and word.text == "".join(text.split())
    assert any(a <= word.start_s <= word.end_s <= b + 1e-6 for a, b in pack)


def test_a_word_without_length_stays_where_it_is() -> None:
    word = whisper._placed(spoken("a", 2.5, 2.5), [(1.0, 3.0), (10.0, 11.0)], 3.0)
    assert word is not None and (word.start_s, word.end_s) == (10.5, 10.5)


@given(st.lists(st.sampled_from(["a", "b", "B.", "c"]), max_size=40))
def test_no_phrase_is_said_five_times(texts: list[str]) -> None:
    words = [Word(text, i, i + 0.5) for i, text in enumerate(texts)]
    left_out: Counter[str] = Counter()
    kept, joined = whisper._without_loops(words, [False] * len(words), left_out)
    assert len(kept) == len(joined) == len(words) - sum(left_out.values())
    plain = [word.text.casefold().strip(".") for word in kept]
    for length in range(1, 11):
        for at in range(len(plain) - 5 * length + 1):
            assert plain[at : at + 5 * length] != plain[at : at + length] * 5
    assert not left_out or any(
        plain_of(texts)[at : at + 5 * n] == plain_of(texts)[at : at + n] * 5
        for n in range(1, 11)
        for at in range(len(texts))
    )


def plain_of(texts: Sequence[str]) -> list[str]:
    return [text.casefold().strip(".") for text in texts]


def spoken(text: str, start_s: float, end_s: float, sure: float = 0.9) -> Any:
    """A word as faster-whisper gives it."""
    kinds = pytest.importorskip("faster_whisper.transcribe")
    return kinds.Word(start_s, end_s, text, sure)


class Model:
    """A Whisper that says what it is made to, in faster-whisper's own types."""

    supported_languages = ("en", "de", "zh")
    model = type("Model", (), {"device": "cpu", "compute_type": "int8"})

    def __init__(
        self,
        sure: float = 0.9,
        *,
        language: str = "en",
        texts: tuple[str, str] = (" one", " two"),
        **segment: Any,
    ) -> None:
        self.kinds = pytest.importorskip("faster_whisper.transcribe")
        self.sure, self.language, self.segment, self.texts = sure, language, segment, texts
        self.calls: list[dict[str, Any]] = []

    def transcribe(self, sound: Any, **options: Any) -> tuple[Any, Any]:
        self.calls.append(options)
        end_s = len(sound) / SAMPLE_RATE_HZ
        one, two = self.texts
        words = [spoken(one, 0.0, end_s / 2, self.sure), spoken(two, end_s / 2, end_s + 9)]
        values = {"avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.0}
        segment = self.kinds.Segment(
            id=1,
            seek=0,
            start=0.0,
            end=end_s,
            text=" one two",
            tokens=[],
            words=words,
            temperature=0.0,
            **(values | self.segment),
        )
        info = self.kinds.TranscriptionInfo(
            language=options["language"] or self.language,
            language_probability=0.8,
            duration=end_s,
            duration_after_vad=end_s,
            all_language_probs=None,
            transcription_options=None,
            vad_options=None,
        )
        return iter([segment]), info

    def detect_language(self, sound: Any) -> Any:
        return self.language, 0.95, []


def recogniser(
    model: Model, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> whisper.FasterWhisper:
    monkeypatch.setattr(whisper, "load_whisper", lambda *_: model)
    return whisper.FasterWhisper("fake", **options)


def test_the_first_pack_says_the_language(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    recognition = recogniser(model, monkeypatch).recognise(
        noise(70.0), [(0, 25), (30, 50), (55, 70)], None
    )
    assert [call["language"] for call in model.calls] == [None, "en", "en"]
    assert (recognition.language, recognition.language_probability) == ("en", 0.8)
    assert [word.text for word in recognition.words] == ["one", "two"] * 3
    assert all(word.end_s <= 70.0 for word in recognition.words)


def test_a_language_is_taken_over_while_words_are_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(language="de")
    recognition = recogniser(model, monkeypatch).recognise(noise(5.0), [(0, 5)], "en")
    assert recognition.language == "en" and len(model.calls) == 1


def test_unsure_words_bring_another_language(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(0.05, language="de")
    recognition = recogniser(model, monkeypatch).recognise(noise(5.0), [(0, 5)], "en")
    assert [call["language"] for call in model.calls] == ["en", "de"]
    assert (recognition.language, recognition.language_probability) == ("de", 0.95)


def test_a_language_that_was_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(0.05, language="de")
    chinese = recogniser(model, monkeypatch, language="zh")
    recognition = chinese.recognise(noise(5.0), [(0, 5)], "en")
    assert recognition.language == "zh"
    assert recognition.doubt.startswith("a chunk sounds like 'de' and was transcribed as 'zh'")
    german = recogniser(model, monkeypatch, language="de")
    assert german.recognise(noise(5.0), [(0, 5)], None).doubt == ""
    with pytest.raises(SettingsError, match="knows en, de, zh"):
        recogniser(model, monkeypatch, language="xx")


@pytest.mark.parametrize(
    ("named", "session", "expected"),
    [
        (None, None, ["头发台湾", "里面"]),
        ("zh", None, ["头发台湾", "里面"]),
        ("zh-Hans", "zh-Hant", ["头发台湾", "里面"]),  # what the user named comes first
        ("zh-Hant", None, ["頭髮臺灣", "裏面"]),
        (None, "zh-Hant", ["頭髮臺灣", "裏面"]),
        ("zh-TW", "zh", ["頭髮臺灣", "裡面"]),
        ("zh-HK", None, ["頭髮台灣", "裏面"]),
    ],
)
def test_chinese_is_written_in_characters_of_one_kind(
    monkeypatch: pytest.MonkeyPatch, named: str | None, session: str | None, expected: list[str]
) -> None:
    model = Model(language="zh", texts=("頭髮台湾", "里面"))
    chinese = recogniser(model, monkeypatch, language=named)
    recognition = chinese.recognise(noise(5.0), [(0, 5)], session)
    assert [word.text for word in recognition.words] == expected
    assert [call["language"] for call in model.calls] == ["zh" if named or session else None]
    assert (recognition.language, recognition.doubt) == ("zh", "")


def test_characters_are_chosen_in_their_context() -> None:
    def rows(*texts: str) -> list[Word]:
        return [Word(text, i, i + 1) for i, text in enumerate(texts)]

    one_by_one = converted(rows("头", "发", "发", "展", "hello"), "zh-Hant")
    assert [word.text for word in one_by_one] == ["頭", "髮", "發", "展", "hello"]
    assert [word.start_s for word in one_by_one] == [0, 1, 2, 3, 4]
    assert converted([], "zh") == []


def test_other_languages_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    japanese = Model(language="ja", texts=("廣島", "會議"))
    recognition = recogniser(japanese, monkeypatch).recognise(noise(5.0), [(0, 5)], None)
    assert [word.text for word in recognition.words] == ["廣島", "會議"]


def test_chinese_without_opencc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(CheckpointError, match="pip install opencc"):
        recogniser(Model(), monkeypatch)
    english = Model()
    english.supported_languages = ("en",)
    assert recogniser(english, monkeypatch).languages == ("en",)


def test_doubtful_words_are_searched_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(avg_logprob=-0.9, no_speech_prob=0.9)
    recognition = recogniser(model, monkeypatch).recognise(noise(5.0), [(0, 5)], None)
    assert [call["beam_size"] for call in model.calls] == [1, 5]
    assert (recognition.words, dict(recognition.left_out)) == ((), {whisper.NOISE: 2})


def test_where_nobody_speaks_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    assert recogniser(model, monkeypatch).recognise(noise(5.0), [], None).words == ()
    assert model.calls == []


# Filter banks


@pytest.mark.parametrize("samples", [0, 399, 400, 559, 560, 16_000, 700_000])
def test_filter_banks_are_kaldis(samples: int) -> None:
    """Against transformers' extractor, which follows Kaldi."""
    sound = (0.3 * noise(50.0)[:samples]).astype(np.float32)
    banks = filter_banks(sound)
    assert banks.shape == (max(0, 1 + (samples - 400) // 160), 80)
    if samples < 400:
        return
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    bank = mel_filter_bank(
        num_frequency_bins=257,
        num_mel_filters=80,
        min_frequency=20,
        max_frequency=8000,
        sampling_rate=16_000,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    expected = spectrogram(
        sound.astype(np.float64),
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=bank,
        log_mel="log",
        mel_floor=1.192092955078125e-07,
        remove_dc_offset=True,
    ).T
    assert np.abs(banks - expected).max() < 1e-2


# Gender


class Network:
    """In place of ONNX Runtime's session: probabilities of female that were chosen, for any patches."""

    def __init__(self, female: Sequence[float], shape: Sequence[Any] = ("n", 68, 24)) -> None:
        self.female, self.shape = female, shape
        self.asked: list[int] = []

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="patches", shape=self.shape)]

    def run(self, _: None, inputs: dict[str, Any]) -> list[Any]:
        [given] = inputs.values()
        self.asked.append(len(given))
        female = np.resize(np.array(self.female, np.float32), len(given))
        return [np.stack([female, 1 - female], axis=1)]


def genders_by(network: Network, monkeypatch: pytest.MonkeyPatch) -> Genders:
    monkeypatch.setattr(gender, "onnx_session", lambda path, threads: network)
    return Genders(Path("gender.onnx"), 1)


def speaking(seconds: float, *spans: tuple[float, float]) -> Any:
    """One column a span, which speaks in it."""
    active = np.zeros((round(seconds / FRAME_S), len(spans)), np.float32)
    for column, (start_s, end_s) in enumerate(spans):
        active[round(start_s / FRAME_S) : round(end_s / FRAME_S), column] = 1
    return active


@pytest.mark.parametrize(
    ("female", "expected"),
    [
        ([0.99], "female"),
        ([0.01], "male"),
        ([0.99, 0.99, 0.2], "female"),
        ([0.5], "unknown"),
        ([0.001, 0.999], "unknown"),  # as sure of one as of the other
        ([0.6], "unknown"),
    ],
)
def test_gender_by_the_mean_of_the_patches(
    monkeypatch: pytest.MonkeyPatch, female: list[float], expected: str
) -> None:
    network = Network(female)
    told = genders_by(network, monkeypatch)(
        voice(9.0), speaking(9.0, (0.0, 4.0), (4.0, 4.5), (5.0, 9.0)), [2, 1, 0]
    )
    assert told == (expected, "unknown", expected)  # who speaks for half a second is not looked at
    assert network.asked == [10, 10]


def test_who_never_speaks_alone_has_no_gender(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network([0.99])
    active = np.ones((round(3.0 / FRAME_S), 2), np.float32)
    assert genders_by(network, monkeypatch)(voice(3.0), active, [0, 1]) == ("unknown", "unknown")
    assert not network.asked


def test_patches_are_of_the_speech_alone() -> None:
    alone = speaking(60.0, (10.0, 13.0))[:, 0] > 0.5
    samples = np.concatenate([noise(10.0), voice(3.0), noise(47.0)]) + 0.1 * noise(60.0)
    cut = patches(samples, alone)
    assert cut.shape == (7, 68, 24)
    assert np.abs(cut.mean(axis=(1, 2))).max() < 1e-5
    assert np.abs(cut.std(axis=(1, 2)) - 1).max() < 1e-5
    samples[: round(9.9 * SAMPLE_RATE_HZ)] = 0
    samples[round(13.1 * SAMPLE_RATE_HZ) :] = 0
    assert np.array_equal(cut, patches(samples, alone))
    assert np.abs(cut - patches(samples / 32, alone)).max() < 1e-3  # at any level
    # Of much speech, patches of all of it; short stretches are put together.
    assert len(patches(voice(60.0), np.ones(len(alone), bool))) == 24
    gaps = np.arange(len(alone)) % 40 < 30
    assert len(patches(voice(60.0), gaps)) == 24
    assert not len(patches(voice(60.0), np.arange(len(alone)) % 40 < 10))
    assert not np.isnan(patches(silence(60.0), alone)).any()


def test_mel_bands_of_the_gender_are_those_of_the_library() -> None:
    from transformers.audio_utils import spectrogram

    samples = voice(2.0) + noise(2.0)
    rows = (samples * 2**15).astype(np.float64)
    expected = spectrogram(
        rows,
        np.hanning(400),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=gender._mel_bank(),
        log_mel="log",
        mel_floor=1e-9,
    ).T
    bands = gender._bands(samples)
    # The library leaves a frame's first sample as it is times (1 - 0.97); so does the network's front end.
    assert np.abs(bands - expected).max() < 1e-2


def test_another_network_in_place_of_the_gender(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"expected \[patches, 68, 24\]"):
        genders_by(Network([0.5], ("clips", "length", 80)), monkeypatch)
