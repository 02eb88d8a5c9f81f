"""Simulated meetings: utterances of a voice bank, mixed into one recording.

Turn-taking, backchannels, overlap, gain, noise and reverberation are drawn from one seed: the same
seed gives the same samples.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE_HZ, Samples, level_db
from ..errors import DataError
from .banks import Entry, VoiceBank
from .people import SyntheticVoice, UtteranceWord
from .tracts import Tract, draw_tract


@dataclass(frozen=True, slots=True)
class MeetingConfig:
    """Distributions of one meeting's parameters; pairs are inclusive ranges.

    Attributes:
        max_duration_s: no utterance ends after this.
        same_speaker_rate: share of turns after which the same speaker continues.
        overlap_rate: share of speaker changes at which the next speaker starts before the last one ends.
        backchannel_rate: share of utterances with a backchannel of another speaker.
        reverb_rate: share of meetings held in a simulated room.
        warp: factor by which a person's utterances are played faster than the bank's voice: another
            pitch and vocal tract in every meeting, so that training hardly repeats a person.
        formants: largest shift of a person's formants against each other, as the natural logarithm of a
            factor: a vocal tract of another shape in every meeting.
        silence_rate: share of recordings without speech.
        alike_rate: share of meetings whose speakers are all of two synthesisers' voices, and differ in
            pitch and vocal tract alone.
    """

    speakers: tuple[int, int] = (1, 3)
    utterances: tuple[int, int] = (1, 10)
    max_duration_s: float = 20.0
    same_speaker_rate: float = 0.15
    pause_s: tuple[float, float] = (0.15, 0.9)
    overlap_rate: float = 0.15
    overlap_s: tuple[float, float] = (0.1, 0.6)
    backchannel_rate: float = 0.06
    gain_db: tuple[float, float] = (-8.0, 3.0)
    snr_db: tuple[float, float] = (18.0, 45.0)
    reverb_rate: float = 0.3
    silence_rate: float = 0.02
    warp: tuple[float, float] = (1.0, 1.0)
    formants: float = 0.0
    alike_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class MixedUtterance:
    """One utterance in a meeting; `speaker` counts from 1 by order of appearance."""

    speaker: int
    gender: str
    start_samples: int
    end_samples: int
    text: str
    words: tuple[UtteranceWord, ...]
    voice: int


@dataclass(frozen=True, slots=True)
class Meeting:
    """A simulated recording: samples `[n]` float32 at 16 kHz, utterances by start, and its draw."""

    samples: Samples
    spoken: tuple[MixedUtterance, ...]
    reverberant: bool = False
    snr_db: float = 0.0
    voices: tuple[SyntheticVoice, ...] = field(default=())


def meeting(bank: VoiceBank, config: MeetingConfig, seed: int | str) -> Meeting:
    """Draw one meeting. The same bank, configuration and seed give the same samples."""
    rng = random.Random(f"meeting {seed}")
    if rng.random() < config.silence_rate:
        count = round(rng.uniform(1.0, config.max_duration_s) * SAMPLE_RATE_HZ)
        return Meeting(noise(count, rng.uniform(-75, -40), rng), (), snr_db=0.0)
    people = _pick_people(bank, config, rng)
    plan = _plan(bank, config, people, rng)
    total = _length(config, people, plan, rng)
    setting = _draw_setting(bank, config, people, rng)
    mixed = _mix(bank, setting, plan, total)
    snr_db = rng.uniform(*config.snr_db)
    return _record(bank, setting, plan, mixed, snr_db, rng)


def session(
    bank: VoiceBank, config: MeetingConfig, seed: int | str, present: Sequence[int]
) -> list[Meeting]:
    """Draw stretches of one long meeting: the same people, places and microphone in each.

    Args:
        present: number of people who speak in a stretch, drawn for each stretch.

    Returns:
        One meeting a stretch. Speakers count by order of appearance in each; `MixedUtterance.voice` is
        the same person in all.
    """
    rng = random.Random(f"session {seed}")
    people = _pick_people(bank, replace(config, speakers=(max(present), config.speakers[1])), rng)
    setting = _draw_setting(bank, config, people, rng)
    snr_db = rng.uniform(*config.snr_db)
    held = []
    for count in present:
        speaking = {person: people[person] for person in rng.sample(list(people), count)}
        plan = _plan(bank, config, speaking, rng)
        mixed = _mix(bank, setting, plan, _length(config, speaking, plan, rng))
        held.append(_record(bank, setting, plan, mixed, snr_db, rng))
    return held


Planned = tuple[int, int, Entry, float]
"""Voice index, first sample, utterance, level relative to the speaker's in dB."""


@dataclass(frozen=True, slots=True)
class _Setting:
    """The speakers of a meeting: vocal tracts, levels, and room responses to the microphone.

    Attributes:
        people: the vocal tract of each voice.
        responses: of the room, by voice; `None` without reverberation.
    """

    people: Mapping[int, Tract]
    gains_db: Mapping[int, float]
    responses: Mapping[int, Samples] | None


def _draw_setting(
    bank: VoiceBank, config: MeetingConfig, people: Mapping[int, Tract], rng: random.Random
) -> _Setting:
    room = rng.choice(bank.rooms) if rng.random() < config.reverb_rate else None
    places = rng.sample(range(4), 4)
    gains = {person: rng.uniform(*config.gain_db) for person in people}
    responses = None
    if room is not None:
        responses = {person: room[places[i % 4]] for i, person in enumerate(people)}
    return _Setting(people, gains, responses)


def _length(
    config: MeetingConfig,
    people: Mapping[int, Tract],
    plan: Sequence[Planned],
    rng: random.Random,
) -> int:
    end = max(start + entry.length(people[person].warp) for person, start, entry, _ in plan)
    total = end + round(rng.uniform(0.1, 0.6) * SAMPLE_RATE_HZ)
    return min(total, round(config.max_duration_s * SAMPLE_RATE_HZ))


def _mix(bank: VoiceBank, setting: _Setting, plan: Sequence[Planned], total: int) -> Samples:
    """Mix the voices at the microphone, without noise."""
    mixed = np.zeros(total, dtype=np.float32)
    for person, start, entry, softer_db in plan:
        level = 10 ** ((setting.gains_db[person] + softer_db) / 20)
        voice = bank.utterance(entry, setting.people[person]) * level
        if setting.responses is not None:
            from scipy.signal import fftconvolve

            voice = fftconvolve(voice, setting.responses[person]).astype(np.float32)
        voice = voice[: total - start]
        mixed[start : start + len(voice)] += voice
    return mixed


def _record(
    bank: VoiceBank,
    setting: _Setting,
    plan: Sequence[Planned],
    mixed: Samples,
    snr_db: float,
    rng: random.Random,
) -> Meeting:
    """Add noise, and scale the peak below full scale."""
    mixed += noise(len(mixed), level_db(mixed) - snr_db, rng)
    mixed *= min(1.0, 0.95 / float(np.abs(mixed).max()))
    present = {person for person, *_ in plan}
    voices = tuple(bank.voices[person] for person in setting.people if person in present)
    spoken = _spoken(bank, setting.people, plan)
    return Meeting(mixed, spoken, setting.responses is not None, snr_db, voices)


_MOST_TRIES = 10_000


def _pick_people(bank: VoiceBank, config: MeetingConfig, rng: random.Random) -> dict[int, Tract]:
    """Choose voices and tracts that a listener can distinguish: same-gender pairs differ in pitch or
    vocal tract."""
    count = rng.randint(*config.speakers)
    everybody = range(len(bank.voices))
    chosen: dict[int, Tract] = {}
    if config.alike_rate and rng.random() < config.alike_rate:
        known = sorted({voice.base for voice in bank.voices}, key=str)
        bases = rng.sample(known, min(2, len(known)))
        similar = [i for i in everybody if bank.voices[i].base in bases]
        chosen = _apart(bank, similar, count, config, rng)
    if len(chosen) < count:
        chosen = _apart(bank, everybody, count, config, rng)
    if len(chosen) < count:
        raise DataError(f"the bank of {len(everybody)} voices holds no {count} that differ enough")
    return chosen


def _apart(
    bank: VoiceBank,
    candidates: Sequence[int],
    count: int,
    config: MeetingConfig,
    rng: random.Random,
) -> dict[int, Tract]:
    """Choose up to a number of candidates, with their tracts, that differ enough."""
    chosen: dict[int, Tract] = {}
    for _ in range(1000):
        if len(chosen) == count:
            break
        candidate = rng.choice(candidates)
        tract = draw_tract(rng, config.warp, config.formants)
        if all(distance(bank, (candidate, tract), other) >= 1.0 for other in chosen.items()):
            chosen[candidate] = tract
    return chosen


def distance(bank: VoiceBank, a: tuple[int, Tract], b: tuple[int, Tract]) -> float:
    """Difference of two warped voices: 1 is 12 % of pitch, 8 % of vocal tract, or a mix of both; shifted
    formants can only add to it."""
    (first, first_tract), (second, second_tract) = a, b
    if first == second:
        return 0.0
    one, two = bank.voices[first], bank.voices[second]
    if one.base.gender != two.base.gender:
        return 9.0
    faster = first_tract.warp / second_tract.warp
    f0_ratio = max(bank.f0_hz[first], 50) / max(bank.f0_hz[second], 50) * faster
    pitch = abs(float(np.log(f0_ratio))) / 0.12
    return pitch + abs(float(np.log(one.warp / two.warp * faster))) / 0.08


def _plan(
    bank: VoiceBank, config: MeetingConfig, people: Mapping[int, Tract], rng: random.Random
) -> list[Planned]:
    limit = round(config.max_duration_s * SAMPLE_RATE_HZ)
    at = round(rng.uniform(0.05, 0.8) * SAMPLE_RATE_HZ)
    plan: list[Planned] = []
    last: int | None = None
    last_end = 0
    wanted = max(rng.randint(*config.utterances), len(people))
    unheard = list(people)
    tries = 0
    while len(plan) < wanted:
        stay = last is not None and rng.random() < config.same_speaker_rate
        others = [person for person in people if person != last] or list(people)
        person = last if stay and last is not None else rng.choice(others)
        if wanted - len(plan) <= len(unheard):
            person = rng.choice(unheard)
        back = rng.random() < 0.08
        fitting = [e for e in bank.entries[person] if e.backchannel == back]
        entry = rng.choice(fitting or bank.entries[person])
        start = at
        if last is not None and person != last and rng.random() < config.overlap_rate:
            start = max(
                last_end - round(rng.uniform(*config.overlap_s) * SAMPLE_RATE_HZ),
                plan[-1][1] + 4000,
            )
        elif last is not None:
            start = last_end + round(rng.uniform(*config.pause_s) * SAMPLE_RATE_HZ)
        end = start + entry.length(people[person].warp)
        if end > limit - 800:
            if plan:
                break
            tries += 1
            if tries == _MOST_TRIES:
                raise DataError(
                    f"no utterance fits in {config.max_duration_s} s; raise max_duration_s"
                )
            continue
        plan.append((person, start, entry, 0.0))
        if person in unheard:
            unheard.remove(person)
        last, last_end = person, max(last_end, end)
        plan += _backchannel(bank, config, people, plan[-1], rng)
    return plan


def _backchannel(
    bank: VoiceBank,
    config: MeetingConfig,
    people: Mapping[int, Tract],
    into: Planned,
    rng: random.Random,
) -> list[Planned]:
    """Draw, or not, a short and softer backchannel of another speaker inside a long utterance."""
    person, start, entry, _ = into
    length = entry.length(people[person].warp)
    others = [other for other in people if other != person]
    others = [other for other in others if any(e.backchannel for e in bank.entries[other])]
    if not others or length < 2 * SAMPLE_RATE_HZ or rng.random() >= config.backchannel_rate:
        return []
    other = rng.choice(others)
    word = rng.choice([e for e in bank.entries[other] if e.backchannel])
    room = length - word.length(people[other].warp) - 9600
    if room <= 0:
        return []
    return [(other, start + 8000 + rng.randrange(room), word, -4.0)]


def _spoken(
    bank: VoiceBank, people: Mapping[int, Tract], plan: Sequence[Planned]
) -> tuple[MixedUtterance, ...]:
    numbers: dict[int, int] = {}
    rows = []
    for person, start, entry, _ in sorted(plan, key=lambda row: (row[1], row[2].end)):
        warp = people[person].warp
        number = numbers.setdefault(person, len(numbers) + 1)
        gender = bank.voices[person].base.gender
        words = tuple(
            UtteranceWord(
                w.text,
                start + round(w.start_samples / warp),
                start + round(w.end_samples / warp),
            )
            for w in entry.words
        )
        end = start + entry.length(warp)
        rows.append(MixedUtterance(number, gender, start, end, entry.text, words, person))
    return tuple(rows)


@cache
def _noise_colours() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Eight long noises from white to pink, `[8, 2**20]`, mean square 1."""
    generator = np.random.default_rng(20260101)
    rows = []
    for tilt in np.linspace(0.0, 0.5, 8):
        spectrum = np.fft.rfft(generator.standard_normal(2**20))
        row = np.fft.irfft(spectrum * np.arange(1, len(spectrum) + 1) ** -tilt)
        rows.append((row / np.sqrt(np.mean(row**2))).astype(np.float32))
    return np.stack(rows)


def noise(count: int, loud_db: float, rng: random.Random) -> Samples:
    """Noise of a drawn colour at a level in dB relative to full scale."""
    colours = _noise_colours()
    colour, length = rng.randrange(len(colours)), colours.shape[1]
    offset = rng.randrange(length - count if count < length else length)
    # A colour comes from a Fourier transform: its end goes over into its start without a seam.
    row = np.take(colours[colour], np.arange(offset, offset + count), mode="wrap")
    return np.asarray(row * np.float32(10 ** (loud_db / 20)), dtype=np.float32)
