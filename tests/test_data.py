"""Observations, sentences, voices, banks, simulated meetings."""

import json
import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speaker_reasoner.audio import SAMPLE_RATE_HZ, Samples
from speaker_reasoner.data import banks, sentences, simulate
from speaker_reasoner.data.banks import BankConfig, VoiceBank, bank, load_bank
from speaker_reasoner.data.bases import BASES, median_f0_hz
from speaker_reasoner.data.dialogues import dialogue
from speaker_reasoner.data.people import SyntheticVoice
from speaker_reasoner.data.simulate import MeetingConfig, meeting
from speaker_reasoner.data.synthesisers import available
from speaker_reasoner.data.tracts import Tract, draw_tract
from speaker_reasoner.errors import DataError
from speaker_reasoner.protocol import Profile
from speaker_reasoner.protocol.observations import (
    BOX_MARGIN_S,
    TAU,
    Reference,
    box_ticks,
    floor_ticks,
    line,
    observations,
    shortest_ticks,
    slice_samples,
)
from speaker_reasoner.train import voice_head as witness
from speaker_reasoner.train.voice_head import WitnessConfig

from .references import chunks

SMALL = BankConfig(evaluation=False, voices=4, sentences=3, backchannels=2)
QUIET = MeetingConfig(speakers=(1, 2), max_duration_s=12.0, reverb_rate=0.0, silence_rate=0.0)


def segment(speaker: int, start: int, end: int) -> Reference:
    return Reference(speaker, "female", start, end, "x")


any_segments = st.lists(
    st.builds(
        lambda speaker, start, length: segment(speaker, start, start + length),
        st.integers(1, 4),
        st.integers(0, 200_000),
        st.integers(1, 60_000),
    ),
    max_size=12,
)


@given(any_segments, st.sampled_from([0.2, 0.5, TAU, 1.0]))
def test_every_segment_is_in_one_observation(segments: list[Reference], tau: float) -> None:
    groups = observations(segments, tau)
    flat = [one for group in groups for one in group]
    assert flat == sorted(segments, key=lambda s: (s.start_samples, s.end_samples))
    assert all(groups)


@given(any_segments)
def test_a_backchannel_is_never_heard_alone(segments: list[Reference]) -> None:
    for group in observations(segments):
        if len(group) == 1:
            [alone] = group
            inside = [
                other
                for other in segments
                if other is not alone
                and other.start_samples <= alone.start_samples
                and alone.end_samples <= other.end_samples
            ]
            assert not inside


@given(any_segments)
def test_boxes_end_in_order(segments: list[Reference]) -> None:
    """What the grammar asks of boxes: neither their starts nor their ends go back."""
    groups = observations(segments)
    starts = [group[0].start_samples for group in groups]
    ends = [max(one.end_samples for one in group) for group in groups]
    assert starts == sorted(starts) and ends == sorted(ends)


@pytest.mark.parametrize(
    ("second", "together"),
    [
        ((3_200, 19_200), True),  # 80 % of both
        ((3_201, 19_201), False),
        ((8_000, 18_000), True),  # 80 % of the shorter one
        ((8_001, 18_001), False),
        ((4_000, 5_000), True),
        ((16_000, 20_000), False),
    ],
)
def test_both_sides_of_tau(second: tuple[int, int], together: bool) -> None:
    groups = observations([segment(1, 0, 16_000), segment(2, *second)])
    assert (len(groups) == 1) == together


def test_the_second_backchannel_is_heard_with_its_segment() -> None:
    rows = [segment(1, 0, 100_000), segment(2, 10_000, 15_000), segment(3, 50_000, 55_000)]
    assert observations(rows) == [rows]


@given(chunks(), st.sampled_from([1, 2, 3]))
def test_boxes_hold_their_segments(chunk: tuple[list[Reference], int], decimals: int) -> None:
    segments, samples = chunk
    profile = Profile(decimals=decimals)
    for group in observations(segments):
        box = box_ticks(group, samples, profile)
        assert 0 <= box.start < box.end <= floor_ticks(samples, profile)
        assert box.end - box.start >= shortest_ticks(profile)
        first, last = slice_samples(box, samples, profile)
        assert 0 <= first < last <= samples
        assert first <= max(0, group[0].start_samples - BOX_MARGIN_S * SAMPLE_RATE_HZ + 1)
        lost = max(s.end_samples for s in group) - last
        assert lost <= samples - floor_ticks(samples, profile) * 16_000 // profile.ticks_per_s
        for one in group:
            row = line(one, box, profile)
            assert box.start <= row.start < row.end <= box.end
            assert row.end - row.start >= shortest_ticks(profile)
            assert abs(row.start / profile.ticks_per_s - one.start_samples / 16_000) <= 0.1


@given(
    st.integers(1_600, 40_000), st.integers(0, 1_600), st.integers(1, 900), st.sampled_from([1, 2])
)
def test_a_box_at_the_very_end_lies_in_the_chunk(
    samples: int, before: int, length: int, decimals: int
) -> None:
    profile = Profile(decimals=decimals)
    start = max(0, samples - before - 1)
    box = box_ticks([segment(1, start, min(samples, start + length))], samples, profile)
    assert 0 <= box.start < box.end <= floor_ticks(samples, profile)


def test_an_empty_chunk_is_one_turn() -> None:
    trace = dialogue([], 16_000, Profile(), answer=False)
    assert [a.text for a in trace.answers] == ["<think>\n0 speakers\n</think><answer>"]


def test_the_two_sides_never_share_a_sentence() -> None:
    rng = random.Random(0)
    train = {sentences.draw(rng, evaluation=False) for _ in range(2000)}
    held = {sentences.draw(rng, evaluation=True) for _ in range(2000)}
    assert not train & held
    assert min(len(train), len(held)) > 1700
    assert all(sentences.held_out(s) for s in held)
    assert not any(sentences.held_out(s) for s in train)
    words = {word for s in train | held for word in s.split()}
    vocabulary = sentences.vocabulary()
    assert words <= set(vocabulary) and len(vocabulary) == len(set(vocabulary)) >= 250
    assert all(set(phrase.split()) <= set(vocabulary) for phrase in sentences.BACKCHANNELS)


def test_sentences_of_ones_own_have_two_sides(tmp_path: Path) -> None:
    file, other = tmp_path / "mine.txt", tmp_path / "other.txt"
    lines = [f"i don't know {word} at all" for word in sentences.vocabulary()[:60]]
    file.write_text("\n".join(lines) + "\n\n")
    rng = random.Random(0)
    drawn = [
        {sentences.draw(rng, evaluation=side, sentences_from=str(file)) for _ in range(1000)}
        for side in (False, True)
    ]
    assert drawn[0] | drawn[1] == set(lines) and not drawn[0] & drawn[1]
    assert all(sentences.held_out(said) for said in drawn[1])
    assert "don't" in sentences.vocabulary(str(file))
    if not available("espeak"):
        return
    config = replace(SMALL, voices=2, sentences_from=str(file))
    voices = bank(config, tmp_path / "banks")
    said = {e.text for row in voices.entries for e in row if not e.backchannel}
    assert said and said <= drawn[0]
    other.write_text(file.read_text() + "now they are others\n")
    bank(replace(config, sentences_from=str(other)), tmp_path / "banks")
    assert len(list((tmp_path / "banks").glob("*.npz"))) == 2
    assert bank(config, tmp_path / "banks").config == config


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No such file"),
        ("", "0 sentences are for training"),
        ("good morning\nIt costs 5 pounds\n", "line 2: got 'It costs 5 pounds', expected words"),
        ("caf\u00e9 au lait", "line 1: got"),
        ("two  spaces", "line 1: got"),
    ],
)
def test_sentences_that_cannot_be_spoken_are_told(
    text: str | None, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="sentences_from: ") as raised:
        sentences.draw(random.Random(0), evaluation=False, sentences_from=str(file))
    assert reason in str(raised.value)


def test_no_base_is_on_both_sides(monkeypatch: Any) -> None:
    """Whole bases are held out, whatever is installed."""
    monkeypatch.setattr(banks, "available", lambda family: True)
    names = [(base.family, base.variant) for base in BASES]
    assert len(names) == len(set(names))
    drawn = [
        {v.base for v in banks._draw_voices(BankConfig(side, voices=200, sentences=1))}
        for side in (False, True)
    ]
    assert drawn[0] and drawn[1] and not drawn[0] & drawn[1]
    assert all(base.held_out == bool(side) for side in (0, 1) for base in drawn[side])
    for bases in drawn:
        assert {base.gender for base in bases} == {"female", "male"}


def test_no_synthesiser_is_told(monkeypatch: Any) -> None:
    monkeypatch.setattr(banks, "available", lambda family: False)
    with pytest.raises(DataError, match="no synthesiser"):
        banks.build_bank(SMALL)


@pytest.fixture(scope="module")
def small_bank(tmp_path_factory: pytest.TempPathFactory) -> VoiceBank:
    if not available("espeak"):
        pytest.skip("espeak-ng is not installed: pip install 'speaker-reasoner[simulate]'")
    return bank(SMALL, tmp_path_factory.getbasetemp() / "banks")


def test_a_bank(small_bank: VoiceBank) -> None:
    assert len(small_bank.voices) == len(small_bank.entries) == len(small_bank.f0_hz) == 4
    assert {voice.base.gender for voice in small_bank.voices} == {"female", "male"}
    assert all(60 <= hz <= 400 for hz in small_bank.f0_hz)
    at = 0
    for entries in small_bank.entries:
        assert sum(e.backchannel for e in entries) == 2
        for entry in entries:
            assert entry.start == at
            at = entry.end
            assert " ".join(word.text for word in entry.words) == entry.text
            times = [t for word in entry.words for t in (word.start_samples, word.end_samples)]
            assert times == sorted(times) and times[0] >= 0
            assert times[-1] <= entry.end - entry.start
            assert entry.backchannel or not sentences.held_out(entry.text)
            samples = small_bank.utterance(entry)
            assert 0.49 < np.abs(samples).max() < 0.51
    assert at == len(small_bank.samples)


def test_a_bank_built_again_is_the_same(small_bank: VoiceBank) -> None:
    """Whatever the same process spoke before: espeak remembers what no call resets."""
    again = banks.build_bank(SMALL)
    assert np.array_equal(again.samples, small_bank.samples)
    assert (again.voices, again.entries) == (small_bank.voices, small_bank.entries)


def test_a_bank_survives(small_bank: VoiceBank, tmp_path: Path) -> None:
    path = tmp_path / "new" / "bank.npz"
    small_bank.save(path)
    read = load_bank(path)
    assert np.array_equal(read.samples, small_bank.samples)
    assert (read.config, read.voices, read.f0_hz, read.entries) == (
        small_bank.config,
        small_bank.voices,
        small_bank.f0_hz,
        small_bank.entries,
    )
    assert [p.name for p in path.parent.iterdir()] == ["bank.npz"]


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "flipped", "meta", "voice"])
def test_damaged_banks_are_told(small_bank: VoiceBank, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "bank.npz"
    small_bank.save(path)
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("not a bank\n")
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:5000] + bytes(200) + data[5200:])
    elif damage == "meta":
        np.savez(path, samples=small_bank.samples, meta=np.array("[]"))
    else:
        with np.load(path) as file:
            meta = json.loads(str(file["meta"]))
        meta["voices"][0][2] = "nobody"
        np.savez(path, samples=small_bank.samples, meta=np.array(json.dumps(meta)))
    with pytest.raises(DataError, match="delete it") as caught:
        load_bank(path)
    assert "\n" not in str(caught.value)


def test_meetings(small_bank: VoiceBank) -> None:
    overlapped = 0
    for seed in range(40):
        one = meeting(small_bank, replace(QUIET, overlap_rate=0.5, backchannel_rate=0.5), seed)
        assert one.samples.dtype == np.float32 and np.abs(one.samples).max() <= 0.96
        assert len(one.samples) <= 12 * SAMPLE_RATE_HZ
        seen: list[int] = []
        last = (0, 0)
        for spoken in one.spoken:
            assert last <= (spoken.start_samples, spoken.end_samples)
            overlapped += spoken.start_samples < last[1]
            last = (spoken.start_samples, spoken.end_samples)
            assert 0 <= spoken.start_samples < spoken.end_samples <= len(one.samples)
            if spoken.speaker not in seen:
                seen.append(spoken.speaker)
            assert spoken.gender == small_bank.voices[spoken.voice].base.gender
            assert spoken.words[0].start_samples >= spoken.start_samples
            assert spoken.words[-1].end_samples <= spoken.end_samples
        assert seen == list(range(1, len(seen) + 1))
    assert overlapped > 5


def test_a_seed_decides_a_meeting(small_bank: VoiceBank) -> None:
    one, same, other = (meeting(small_bank, QUIET, seed) for seed in (5, 5, 6))
    assert np.array_equal(one.samples, same.samples) and one.spoken == same.spoken
    assert len(one.samples) != len(other.samples) or not np.array_equal(one.samples, other.samples)


def test_reverberation_and_silence(small_bank: VoiceBank, monkeypatch: Any) -> None:
    rooms = [list(room) for room in banks._draw_rooms(2, 0)]
    monkeypatch.setitem(small_bank.__dict__, "rooms", rooms)
    wet = meeting(small_bank, replace(QUIET, reverb_rate=1.0), 1)
    assert wet.reverberant and np.isfinite(wet.samples).all()
    mute = meeting(small_bank, replace(QUIET, silence_rate=1.0), 1)
    assert mute.spoken == () and 0 < np.abs(mute.samples).max() < 0.1


def test_silence_longer_than_the_stored_noise(small_bank: VoiceBank) -> None:
    config = replace(QUIET, silence_rate=1.0, max_duration_s=400.0)
    longest = max(
        (meeting(small_bank, config, seed) for seed in range(4)), key=lambda m: len(m.samples)
    )
    assert len(longest.samples) > 2**20


def test_noise_of_any_length() -> None:
    for count in (1, 16_000, 2**20 - 1, 2**20, 2**20 + 7, 3 * 2**20):
        noise = simulate.noise(count, -40.0, random.Random(count))
        assert noise.shape == (count,) and noise.dtype == np.float32
        if count > 1:
            assert abs(10 * np.log10(np.mean(noise.astype(np.float64) ** 2)) + 40) < 1.5
    rng = random.Random(3)
    colours = simulate._noise_colours()
    colour, offset = rng.randrange(8), rng.randrange(2**20 - 5_000)
    expected = colours[colour, offset : offset + 5_000] * np.float32(0.01)
    assert np.array_equal(simulate.noise(5_000, -40.0, random.Random(3)), expected)


def test_impossible_meetings_are_told(small_bank: VoiceBank) -> None:
    with pytest.raises(DataError, match="no utterance fits"):
        meeting(small_bank, replace(QUIET, max_duration_s=0.3), 0)
    with pytest.raises(DataError, match="differ enough"):
        meeting(small_bank, replace(QUIET, speakers=(5, 5)), 0)


def test_a_bank_without_backchannels(small_bank: VoiceBank) -> None:
    plain = replace(
        small_bank, entries=[[e for e in row if not e.backchannel] for row in small_bank.entries]
    )
    config = replace(QUIET, speakers=(2, 2), backchannel_rate=1.0)
    assert all(meeting(plain, config, seed).spoken for seed in range(10))


def test_a_warped_person_is_another_voice(small_bank: VoiceBank) -> None:
    """Played faster: as much shorter, higher, and every word where it is heard."""
    plain = meeting(small_bank, replace(QUIET, speakers=(1, 1), utterances=(1, 1)), 3)
    config = replace(QUIET, speakers=(1, 1), utterances=(1, 1), warp=(1.1, 1.1))
    fast = meeting(small_bank, config, 3)
    [one], [other] = plain.spoken, fast.spoken
    assert one.text == other.text and one.start_samples == other.start_samples
    length, shorter = (s.end_samples - s.start_samples for s in (one, other))
    assert shorter == round(length / 1.1)
    for word, moved in zip(one.words, other.words, strict=True):
        start = word.start_samples - one.start_samples
        assert moved.start_samples - other.start_samples == round(start / 1.1)
    f0_hz = [
        median_f0_hz(m.samples[s.start_samples : s.end_samples])
        for m, s in ((plain, one), (fast, other))
    ]
    assert f0_hz[1] / f0_hz[0] == pytest.approx(1.1, abs=0.03)


def test_warps_keep_people_apart(small_bank: VoiceBank) -> None:
    config = replace(QUIET, speakers=(2, 2), warp=(0.8, 1.25))
    for seed in range(20):
        people = simulate._pick_people(small_bank, config, random.Random(seed))
        (one, other) = people.items()
        assert simulate.distance(small_bank, one, other) >= 1.0
        assert all(0.8 <= tract.warp <= 1.25 for tract in people.values())


def many_voices() -> VoiceBank:
    """Eight synthesisers' voices at eight pitches each; nobody says anything."""
    trained = [base for base in BASES if not base.held_out]
    bases = [b for g in ("female", "male") for b in [b for b in trained if b.gender == g][:4]]
    voices = [
        SyntheticVoice(f"{b.variant}{i}", b, 50.0, 150.0, 1.0) for b in bases for i in range(8)
    ]
    f0_hz = [90.0 * 1.15**i for _ in bases for i in range(8)]
    return VoiceBank(SMALL, np.zeros(0, np.int16), voices, f0_hz, [[] for _ in voices])


def test_people_who_are_alike_differ_in_pitch_alone() -> None:
    voices = many_voices()
    everywhere = replace(QUIET, speakers=(4, 4))
    alike = replace(everywhere, alike_rate=1.0)

    def bases(config: MeetingConfig, seed: int) -> int:
        people = simulate._pick_people(voices, config, random.Random(seed))
        assert len(people) == 4
        for one, other in combinations(people.items(), 2):
            assert simulate.distance(voices, one, other) >= 1.0
        return len({voices.voices[i].base for i in people})

    assert max(bases(alike, seed) for seed in range(30)) == 2
    assert max(bases(everywhere, seed) for seed in range(30)) > 2
    crowd = replace(alike, speakers=(16, 16))  # more than two of one gender have: anybody will do
    for seed in range(5):
        assert len(simulate._pick_people(voices, crowd, random.Random(seed))) == 16


def test_a_voice_head_is_shown_people_who_are_alike() -> None:
    voices = many_voices()
    config = WitnessConfig(people=6, alike_rate=1.0, warp=(1.0, 1.0))
    for seed in range(20):
        people = witness._people(voices, config, random.Random(seed))
        assert 2 <= len(people) <= 6
        assert len({voices.voices[i].base for i, _ in people}) <= 3
        for one, other in combinations(people, 2):
            assert simulate.distance(voices, one, other) >= 1.0
    mixed = replace(config, alike_rate=0.0)
    drawn = [witness._people(voices, mixed, random.Random(seed)) for seed in range(20)]
    assert all(len(people) == 6 for people in drawn)
    assert max(len({voices.voices[i].base for i, _ in people}) for people in drawn) > 3


def test_shifted_formants_move_the_spectrum_and_leave_pitch_times_and_level() -> None:
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    buzz = sum(np.sin(2 * np.pi * 125 * n * time_s) for n in range(1, 60))
    centre = np.exp(-(((np.fft.rfftfreq(len(time_s), 1 / SAMPLE_RATE_HZ) - 1500) / 300) ** 2))
    vowel = np.fft.irfft(np.fft.rfft(buzz) * (centre + 0.01)).astype(np.float32)
    vowel *= 0.5 / np.abs(vowel).max()

    def peak_hz(samples: Samples) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float(power @ np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ) / power.sum())

    for shift in (-0.1, 0.1):
        moved = Tract(1.0, (shift,) * 4).applied(vowel, len(vowel))
        assert moved.dtype == np.float32
        assert len(moved) == len(vowel)
        assert peak_hz(moved) / peak_hz(vowel) == pytest.approx(np.exp(shift), abs=0.03)
        assert median_f0_hz(moved) == pytest.approx(median_f0_hz(vowel), abs=1)
        assert np.mean(moved**2) == pytest.approx(np.mean(vowel**2), rel=1e-4)
    np.testing.assert_array_equal(Tract(1.0, (0.0,) * 4).applied(vowel, len(vowel)), vowel)
    silence = np.zeros(1000, np.float32)
    np.testing.assert_array_equal(Tract(1.0, (0.1,) * 4).applied(silence, 1000), silence)


def test_formants_are_drawn_only_where_they_may_move(small_bank: VoiceBank) -> None:
    one = replace(QUIET, speakers=(1, 1))
    shifting = replace(one, formants=0.1)
    assert all(
        tract == Tract()
        for tract in simulate._pick_people(small_bank, one, random.Random(3)).values()
    )
    [tract] = simulate._pick_people(small_bank, shifting, random.Random(3)).values()
    assert len(tract.shifts) == 4
    moved, again = (meeting(small_bank, shifting, 3) for _ in range(2))
    np.testing.assert_array_equal(moved.samples, again.samples)
    tracts = [draw_tract(random.Random(i), (0.9, 1.1), 0.1) for i in range(200)]
    shifts = [shift for tract in tracts for shift in tract.shifts]
    assert len(shifts) == 800
    assert -0.1 <= min(shifts) < -0.09
    assert 0.09 < max(shifts) <= 0.1
    assert draw_tract(random.Random(0), (1.0, 1.0), 0.0) == Tract()
