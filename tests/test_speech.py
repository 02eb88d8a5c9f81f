"""Voice activity and the places where a chunk may end."""

import importlib.util
import json
import pickle
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner import audio
from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.errors import AudioError, ExtraError
from speaker_reasoner.speech import (
    EnergyVad,
    Region,
    SileroVad,
    SpeechDetector,
    load_vad,
    quietest_cut,
    speech_regions,
    spoken_s,
)

from .conftest import SHARED, needs_shared, noise
from .vocal import coloured, silence, voice

EXAMPLES = Path(__file__).parent.parent / "examples"
needs_silero = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed"
)


@cache
def conversation(snr_db: float, seed: int = 0) -> tuple[np.ndarray[Any, Any], list[Region]]:
    """Half a minute of two voices in pink noise, and where they speak."""
    spans = [(1.0, 3.0), (4.0, 4.5), (6.5, 12.0), (12.8, 16.0), (20.0, 21.0), (27.0, 29.5)]
    samples = silence(30.0)
    for i, (start_s, end_s) in enumerate(spans):
        first = round(start_s * SAMPLE_RATE_HZ)
        said = voice(end_s - start_s, (110.0, 210.0)[i % 2], seed + i)
        samples[first : first + len(said)] += said
    level_db = 10 * np.log10(np.mean(samples**2))
    return samples + coloured(30.0, 0.5, level_db - snr_db, seed), spans


def rates(
    regions: Sequence[Region], spans: Sequence[Region], length_s: float
) -> tuple[float, float]:
    """Share of speech that was missed, and of the rest that was called speech."""
    hit_s = sum(spoken_s(regions, *span) for span in spans)
    spoken = sum(end - start for start, end in spans)
    false_s = sum(end - start for start, end in regions) - hit_s
    return 1 - hit_s / spoken, false_s / (length_s - spoken)


# Energy


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 45.0])
@pytest.mark.parametrize("gain_db", [0.0, -50.0])
def test_speech_is_found_at_any_level_and_in_noise(snr_db: float, gain_db: float) -> None:
    samples, spans = conversation(snr_db)
    regions = speech_regions(samples * np.float32(10 ** (gain_db / 20)))
    missed, false = rates(regions, spans, 30.0)
    assert missed < 0.03
    assert false < 0.1


@pytest.mark.parametrize("tilt", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("level_db", [-10.0, -50.0, -85.0])
def test_steady_noise_is_no_speech(tilt: float, level_db: float) -> None:
    assert speech_regions(coloured(25.0, tilt, level_db)) == []


def test_noise_that_is_switched_on_is_no_speech() -> None:
    samples = np.concatenate([coloured(15.0, 0.5, -60.0), coloured(15.0, 0.5, -30.0, seed=1)])
    assert sum(end - start for start, end in speech_regions(samples)) < 0.3


@pytest.mark.parametrize("seconds", [0.0, 0.01, 5.0])
def test_digital_silence_is_no_speech(seconds: float) -> None:
    assert speech_regions(silence(seconds)) == []


def test_speech_between_digital_silence_ends_where_it_ends() -> None:
    samples = np.concatenate([silence(3.0), voice(2.0), silence(3.0)])
    [(start_s, end_s)] = speech_regions(samples)
    assert start_s == pytest.approx(3.0, abs=0.1)
    assert end_s == pytest.approx(5.0, abs=0.1)


def test_a_clip_in_which_somebody_speaks_all_the_time_is_speech() -> None:
    assert spoken_s(speech_regions(voice(2.0)), 0.0, 2.0) > 1.8


def test_a_click_is_no_speech() -> None:
    samples = coloured(10.0, 0.0, -60.0)
    samples[80_000:80_080] = 0.9
    assert speech_regions(samples) == []


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 30 * SAMPLE_RATE_HZ), max_size=8),
    asked=st.booleans(),
)
def test_regions_do_not_depend_on_the_blocks(cuts: list[int], asked: bool) -> None:
    samples, _ = conversation(15.0)
    detector = SpeechDetector(EnergyVad())
    for block in np.split(samples, sorted(cuts)):
        detector.feed(block)
        if asked:
            detector.regions()
    assert detector.regions() == speech_regions(samples)


def test_what_the_end_cannot_change_is_final() -> None:
    samples, _ = conversation(15.0)
    detector = SpeechDetector()
    detector.feed(samples[: 20 * SAMPLE_RATE_HZ])
    early = detector.regions()
    detector.feed(samples[20 * SAMPLE_RATE_HZ :])
    known = [region for region in early if region[1] < 11.5]
    assert known == detector.regions()[: len(known)]
    assert len(known) == 2


def test_regions_lie_in_order_apart_and_inside() -> None:
    samples, _ = conversation(10.0)
    regions = speech_regions(samples[: 29 * SAMPLE_RATE_HZ])
    edges = [edge for region in regions for edge in region]
    assert edges == sorted(edges)
    assert edges[0] >= 0.0
    assert edges[-1] == 29.0
    assert all(later[0] - earlier[1] > 0.2 for earlier, later in pairwise(regions))


def test_memory_does_not_grow_with_the_stream() -> None:
    detector, sizes = SpeechDetector(), []
    for i in range(20):
        detector.feed(noise(30.0, i))
        sizes.append(len(pickle.dumps(detector)))
    assert max(sizes) < 1.05 * sizes[1]


def test_a_detector_starts_its_vad_anew() -> None:
    vad = EnergyVad()
    SpeechDetector(vad).feed(voice(3.0))
    assert speech_regions(silence(3.0), vad) == []


def test_a_meeting_of_synthetic_voices() -> None:
    rows = json.loads((EXAMPLES / "meeting.seglst.json").read_text())
    spans = _union([(float(row["start_time"]), float(row["end_time"])) for row in rows])
    samples = audio.load(EXAMPLES / "meeting.flac")
    missed, false = rates(speech_regions(samples), spans, len(samples) / SAMPLE_RATE_HZ)
    assert missed < 0.01
    assert false < 0.4  # of the pauses, which are a second and a half in all


@needs_shared
def test_a_telephone_call() -> None:
    rows = (SHARED / "audio/two_party_call.rttm").read_text().splitlines()
    starts = [(float(row.split()[3]), float(row.split()[4])) for row in rows]
    spans = _union([(start, start + length) for start, length in starts])
    samples = audio.load(SHARED / "audio/two_party_call.wav")
    missed, false = rates(speech_regions(samples), spans, len(samples) / SAMPLE_RATE_HZ)
    assert missed < 0.01
    assert false < 0.15


def _union(spans: list[Region]) -> list[Region]:
    joined: list[Region] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


# Silero


@needs_silero
def test_silero_hears_a_meeting_the_same_in_any_blocks() -> None:
    vad = SileroVad()
    samples = audio.load(EXAMPLES / "meeting.flac")
    detector = SpeechDetector(SileroVad())
    for block in np.split(samples, [1, 1, 700, 51_000]):
        detector.feed(block)
    regions = speech_regions(samples, vad)
    assert detector.regions() == regions
    assert speech_regions(samples, vad) == regions
    assert spoken_s(regions, 0.6, 8.3) > 6.5
    assert spoken_s(regions, 0.0, 0.5) == 0.0
    length_s = len(samples) / SAMPLE_RATE_HZ
    quiet = speech_regions(np.concatenate([samples, 1e-3 * noise(6.0)]), SileroVad())
    assert spoken_s(quiet, length_s, length_s + 6.0) < 0.5


@needs_silero
def test_silero_leaves_the_threads_of_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "silero_vad"]:
        monkeypatch.delitem(sys.modules, name)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        SileroVad()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_silero_it_is_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    assert load_vad().name == "energy"
    with pytest.raises(ExtraError, match=r"pip install 'speaker-reasoner\[vad\]'"):
        load_vad("silero")


def test_an_unknown_detector() -> None:
    with pytest.raises(AudioError, match="'webrtc', expected silero or energy"):
        load_vad("webrtc")


# Cuts


def test_the_cut_is_in_the_middle_of_the_longest_pause() -> None:
    samples = np.zeros(10 * SAMPLE_RATE_HZ, dtype=np.float32)
    regions = [(0.0, 4.0), (4.5, 6.0), (7.0, 8.0), (8.4, 10.0)]
    assert _cut_s(samples, 3.0, 10.0, regions) == pytest.approx(6.5)
    assert _cut_s(samples, 3.0, 6.2, regions) == pytest.approx(4.25)
    assert _cut_s(samples, 6.5, 10.0, regions) == pytest.approx(6.75)


def test_of_pauses_as_long_the_later_is_taken() -> None:
    regions = [(0.0, 2.0), (2.5, 4.0), (4.5, 6.0)]
    assert _cut_s(silence(6.0), 0.0, 6.0, regions) == pytest.approx(4.25)


def test_where_nobody_pauses_the_cut_is_quietest() -> None:
    samples = noise(8.0)
    samples[6 * SAMPLE_RATE_HZ : round(6.3 * SAMPLE_RATE_HZ)] *= 0.1
    samples[1 * SAMPLE_RATE_HZ : round(1.3 * SAMPLE_RATE_HZ)] = 0
    assert _cut_s(samples, 4.0, 8.0, [(0.0, 8.0)]) == pytest.approx(6.15, abs=0.02)


def test_where_nobody_speaks_the_cut_is_quietest_and_late() -> None:
    samples = noise(8.0)
    samples[5 * SAMPLE_RATE_HZ : round(5.3 * SAMPLE_RATE_HZ)] = 0
    assert _cut_s(samples, 4.0, 8.0, None) == pytest.approx(5.15, abs=0.02)
    assert _cut_s(silence(8.0), 4.0, 8.0, None) > 7.8


@settings(max_examples=60, deadline=None)
@given(
    bounds=st.lists(st.integers(0, 48_000), min_size=2, max_size=2),
    edges=st.lists(st.floats(0.0, 3.0), max_size=6, unique=True),
)
def test_the_cut_is_where_it_may_be(bounds: list[int], edges: list[float]) -> None:
    earliest, latest = sorted(bounds)
    ordered = sorted(edges)
    regions = list(zip(ordered[::2], ordered[1::2], strict=False))
    cut = quietest_cut(noise(3.0), earliest, latest, regions)
    assert earliest <= cut <= latest


def _cut_s(
    samples: np.ndarray[Any, Any], earliest_s: float, latest_s: float, regions: Any
) -> float:
    bounds = (round(time_s * SAMPLE_RATE_HZ) for time_s in (earliest_s, latest_s))
    return quietest_cut(samples, *bounds, regions) / SAMPLE_RATE_HZ
