"""Voices of synthesisers: word times, variants drawn at random, how often each is drawn."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from speaker_reasoner.data import banks
from speaker_reasoner.data import bases as voices
from speaker_reasoner.data.alignment import word_times
from speaker_reasoner.data.banks import BankConfig, bank, load_bank
from speaker_reasoner.data.bases import BASES, base_of, draw_voice, drawn_base, speak
from speaker_reasoner.data.people import Base, SyntheticVoice, Utterance
from speaker_reasoner.data.synthesisers import FAMILIES, available
from speaker_reasoner.errors import DataError

SENTENCE = "where did linda sell three wooden reports"


def person(base: Base, **changes: Any) -> SyntheticVoice:
    fields = {"pitch": 50.0, "rate": 160.0, "warp": 1.0} | changes
    return SyntheticVoice("v000", base, **fields)


def espeak(variant: str, **changes: Any) -> Utterance:
    if not available("espeak"):
        pytest.skip("espeak-ng is not installed: pip install 'speaker-reasoner[simulate]'")
    base = base_of("espeak", variant) if "-" in variant else Base("espeak", variant, "male")
    [said] = speak(person(base, **changes), [SENTENCE])
    assert said is not None
    return said


def times(said: Utterance) -> list[tuple[float, float]]:
    return [(w.start_samples / 16_000, w.end_samples / 16_000) for w in said.words]


@pytest.mark.parametrize("variant", ["m1", "f3", "klatt2"])
def test_words_are_found_by_how_another_says_them(variant: str) -> None:
    """Of another voice, who speaks more slowly from the middle on."""
    reference, said = espeak("m3"), espeak(variant)
    slower, middle = 1.25, said.words[3].end_samples
    late = soxr.resample(said.samples[middle:], 16_000, 16_000 * slower)
    sound = np.concatenate([said.samples[:middle], late])
    meant, middle_s = np.array(times(said)), middle / 16_000
    meant = np.where(meant > middle_s, middle_s + slower * (meant - middle_s), meant)
    errors = np.abs(word_times(sound, reference.samples, times(reference)) - meant)
    assert np.median(errors) < 0.02 and errors.max() < 0.12
    guesses = np.array(times(reference)) * len(sound) / len(reference.samples)
    assert errors.mean() < 0.25 * np.abs(guesses - meant).mean()


def test_words_are_found_after_silence() -> None:
    said = espeak("m3")
    late = np.pad(said.samples, (8000, 0))
    starts = np.array(word_times(late, said.samples, times(said)))
    assert np.abs(starts[1:] - np.array(times(said))[1:] - 0.5).max() < 0.03


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_speaks(family: str) -> None:
    if not available(family):
        pytest.skip(f"{family} is not installed")
    for base in BASES:
        if base.family != family or (family == "espeak" and base.variant not in ("m1", "f2")):
            continue
        voice = draw_voice(random.Random(1), "v000", base)
        said, other = speak(voice, [SENTENCE, "okay"])
        assert said is not None and other is not None, base
        assert [word.text for word in said.words] == SENTENCE.split()
        starts = [start for start, _ in times(said)]
        assert (
            starts == sorted(starts) and starts[0] < 0.4 and 1.0 < len(said.samples) / 16_000 < 5.0
        )
        assert len(other.samples) < len(said.samples) / 2
        if family != "espeak":
            assert voice.pitch * voice.warp == pytest.approx(
                voices.median_f0_hz(said.samples), rel=0.25
            ), base


def test_an_unknown_family_is_told() -> None:
    with pytest.raises(DataError, match="unknown family of voices 'parrot'; known: espeak"):
        available("parrot")


def test_what_is_not_installed_is_told(monkeypatch: Any) -> None:
    monkeypatch.setattr(voices, "available", lambda family: False)
    with pytest.raises(DataError, match="rhvoice is not installed"):
        speak(person(base_of("rhvoice", "Bdl")), [SENTENCE])


def test_drawn_variants_are_people_of_their_own() -> None:
    first, other = (espeak(drawn_base("female", n).variant) for n in (1, 2))
    size = min(len(first.samples), len(other.samples))
    assert np.abs(first.samples[:size] - other.samples[:size]).max() > 0.1
    assert base_of("espeak", drawn_base("male", 3).variant) == drawn_base("male", 3)


def test_a_bank_of_drawn_variants(tmp_path: Path, monkeypatch: Any) -> None:
    if not available("espeak"):
        pytest.skip("espeak-ng is not installed: pip install 'speaker-reasoner[simulate]'")
    monkeypatch.setattr(banks, "available", lambda family: family == "espeak")
    config = BankConfig(evaluation=False, voices=2, sentences=1, backchannels=1, seed=4, drawn=1.0)
    built = bank(config, tmp_path)
    assert [voice.base.variant[:6] for voice in built.voices] == ["drawn-"] * 2
    [path] = tmp_path.iterdir()
    assert path.name == "bank-training-2x1+1-4-drawn-1.npz"
    loaded, again = load_bank(path), banks.build_bank(config)
    assert loaded.voices == built.voices == again.voices and loaded.config == config
    assert np.array_equal(loaded.samples, again.samples)


def test_recorded_voices_are_a_fixed_share_of_training(monkeypatch: Any) -> None:
    monkeypatch.setattr(banks, "available", lambda family: True)
    drawn = banks._draw_voices(BankConfig(evaluation=False, voices=4000, sentences=1))
    for gender in ("female", "male"):
        families = Counter(v.base.family for v in drawn if v.base.gender == gender)
        assert families["espeak"] / families.total() == pytest.approx(0.55, abs=0.03)
    monkeypatch.setattr(banks, "available", lambda family: family == "espeak")
    drawn = banks._draw_voices(BankConfig(evaluation=False, voices=40, sentences=1))
    assert {voice.base.family for voice in drawn} == {"espeak"}
    config = BankConfig(evaluation=False, voices=40, sentences=1, drawn=1.0)
    people = Counter(voice.base.variant for voice in banks._draw_voices(config))
    assert sorted(people.values()) == [5] * 8
    monkeypatch.setattr(banks, "available", lambda family: family != "espeak")
    drawn = banks._draw_voices(BankConfig(evaluation=False, voices=40, sentences=1))
    assert "espeak" not in {voice.base.family for voice in drawn}
