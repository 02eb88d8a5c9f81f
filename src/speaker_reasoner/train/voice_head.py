"""Trains the voice head of a finished checkpoint (see `engines.voice_head`).

Speakers are voices of the bank with new warps. A step compares a few clips of each of many speakers. In two of
three steps all are of one gender, and in some all are of a few synthesisers' voices, because these are hard to
separate. The loss is that of angular prototypes (Chung et al. 2020, Sec. 3.1, arXiv 2003.11982) and a logistic one
over pairs, which calibrates the odds.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from ..audio import SAMPLE_RATE_HZ, Samples, level_db
from ..data.banks import VoiceBank
from ..data.simulate import MeetingConfig, MixedUtterance, distance, meeting, noise
from ..data.tracts import Tract, draw_tract
from ..engines.pitch import melodies
from ..engines.thinker import log_mel
from ..engines.voice_head import VoiceHead, new_head, tower_layers
from ..errors import DataError
from .batches import equalise
from .loop import ahead

_MOST_TRIES = 10_000
_CLIP = 5.0


_SCALE, _SETTLE_S = 70.0, 0.3
"""Calibration of the witness: chosen by whole meetings of unseen voices (docs/whole-meetings.md)."""
_SPREAD, _NOISE = 0.3, 0.118
"""Its `Scatter`: chosen by chunks of unseen voices, which vary more than the voices it was trained on
(docs/experiments.md, 2026-11-27)."""


@dataclass(frozen=True, slots=True)
class WitnessConfig:
    """Settings of the training of the voice head.

    Attributes:
        layers: number of layers of the head's own tower, a copy of the finished one that is trained
            with it; with 0 it reads the finished one.
        people, clips: people in a step, and clips of each.
        seconds: shortest and longest clip.
        reverb_rate: share of clips in a simulated room; `elsewhere_rate`: share of people whose clips come
            from different rooms and microphones, as those of enrolled speakers do.
        alike_rate: share of steps whose people are all of three synthesisers' voices: fewer people than
            in other steps, who differ in pitch and vocal tract alone.
    """

    steps: int = 1500
    learning_rate: float = 2e-3
    layers: int = 0
    people: int = 24
    clips: int = 4
    seconds: tuple[float, float] = (0.6, 3.0)
    warp: tuple[float, float] = (0.86, 1.16)
    formants: float = 0.0
    reverb_rate: float = 0.5
    elsewhere_rate: float = 0.3
    snr_db: tuple[float, float] = (12.0, 45.0)
    least_distance: float = 1.0
    alike_rate: float = 0.4


def train_witness(
    thinker: Any,
    extractor: Any,
    bank: VoiceBank,
    config: WitnessConfig,
    seed: int,
    workers: int = 0,
) -> VoiceHead:
    """Train a voice head; the thinker's tower stays as it is.

    Args:
        thinker: with the tower, in float32.
        extractor: log-mel features.
        bank: of training voices.
        workers: processes that prepare clips ahead; 0 prepares them in between.
    """
    torch.manual_seed(seed)
    device = next(thinker.parameters()).device
    head = new_head(thinker, config.layers).to(device)
    listener = head.hearing(thinker)
    optimiser = torch.optim.AdamW(head.parameters(), config.learning_rate)

    def draw(step: int) -> tuple[int, Tensor, Tensor, Tensor]:
        """Return how many people, log-mel features and mask of their clips, melodies."""
        rng = random.Random(f"witness {seed} {step}")
        people = _people(bank, config, rng)
        clips, places = _clips(bank, config, people, rng)
        features, mask = log_mel(extractor, clips)
        equalise(features, places, rng)
        return len(people), features, mask, torch.from_numpy(melodies(clips))

    steps = ahead(draw, config.steps, workers)
    for step, (people, features, mask, sung) in enumerate(
        track(steps, description="voice head", total=config.steps)
    ):
        with (
            torch.set_grad_enabled(head.tower is not None),
            torch.autocast(device.type, torch.bfloat16),
        ):
            layers = tower_layers(listener, features.to(device), mask.to(device))
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 30)
            group["lr"] = config.learning_rate * warm * (1 - step / config.steps)
        points = head(layers, sung.to(device))
        loss = witness_loss(head, points.reshape(people, config.clips, -1))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(head.parameters(), _CLIP)
        optimiser.step()
    return head.eval()


def calibrate(
    head: VoiceHead,
    thinker: Any,
    extractor: Any,
    bank: VoiceBank,
    meetings: MeetingConfig,
    config: WitnessConfig,
    seed: int,
    count: int = 20,
) -> None:
    """Fit the head's two thresholds to the comparisons of linking: one to four lines of a speaker in a
    meeting against all other lines of a speaker, and against an enrolled clip.

    Training leaves one threshold for both, that of short clips. Settling and scale are not fitted: most of
    these pairs are easy, and fitted values link worse (docs/experiments.md, 2026-11-23).

    Args:
        bank: of development voices, neither trained on nor held out.
        meetings: how the meetings are drawn, but for warps; each should hold a few lines of each
            person.
        config: of the training; how enrolled clips are recorded.
    """
    thinker = head.hearing(thinker)
    meetings = replace(meetings, warp=(1.0, 1.0))  # an enrolled clip is then of the same voice
    device = next(thinker.parameters()).device
    here: list[_Match] = []
    away: list[_Match] = []

    def embed(clips: Sequence[Samples]) -> Tensor:
        features, mask = log_mel(extractor, clips)
        with torch.no_grad():
            layers = tower_layers(thinker, features.to(device), mask.to(device))
            points: Tensor = head(layers, torch.from_numpy(melodies(clips)).to(device))
        return points

    for number in range(count):
        rng = random.Random(f"calibration {seed} {number}")
        held = meeting(bank, meetings, f"calibration {seed} {number}")
        lines = [s for s in held.spoken if s.end_samples - s.start_samples >= SAMPLE_RATE_HZ // 2]
        units = _units(
            embed([held.samples[s.start_samples : s.end_samples] for s in lines]), lines, rng
        )
        here += _matches(units, units)
        enrolled = _enrolled(bank, config, lines, embed, rng)
        away += _matches(enrolled, units)
    with torch.no_grad():
        head.slope.fill_(math.log(_SCALE))
        head.settle.fill_(math.log(_SETTLE_S))
        head.spread.fill_(_SPREAD)
        head.noise.fill_(_NOISE)
    optimiser = torch.optim.LBFGS(
        [head.threshold, head.elsewhere], max_iter=200, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        loss = torch.zeros((), device=device)
        for matches, elsewhere in ((here, False), (away, True)):
            cosines, seconds, others, same = (
                torch.tensor(column, device=device) for column in zip(*matches, strict=True)
            )
            odds = head.odds(cosines, seconds, others, elsewhere=elsewhere)
            loss = loss + _both_ways(odds, same)
        torch.autograd.backward(loss)
        return loss

    optimiser.step(loss)  # type: ignore[no-untyped-call]


_Match = tuple[float, float, float, bool]
"""A unit against the others of a person: cosine, seconds of either, whether it is theirs."""


@dataclass(frozen=True, slots=True)
class _PooledLines:
    point: Tensor
    seconds: float
    voice: int


def _units(
    points: Tensor, lines: Sequence[MixedUtterance], rng: random.Random
) -> list[_PooledLines]:
    """Lines of a meeting pooled as chunks pool them: one to four of a person."""
    units = []
    for voice in sorted({line.voice for line in lines}):
        remaining = [i for i, line in enumerate(lines) if line.voice == voice]
        while remaining:
            chosen, remaining = remaining[: (size := rng.randint(1, 4))], remaining[size:]
            seconds = [
                (lines[i].end_samples - lines[i].start_samples) / SAMPLE_RATE_HZ for i in chosen
            ]
            point = F.normalize(points.new_tensor(seconds) @ points[chosen], dim=-1)
            units.append(_PooledLines(point, sum(seconds), voice))
    return units


def _enrolled(
    bank: VoiceBank,
    config: WitnessConfig,
    lines: Sequence[MixedUtterance],
    embed: Callable[[Sequence[Samples]], Tensor],
    rng: random.Random,
) -> list[_PooledLines]:
    """A clip of about 5 s of each speaker of a meeting, from another place."""
    voices = sorted({line.voice for line in lines})
    clips = []
    for voice in voices:
        entries = rng.sample(bank.entries[voice], min(3, len(bank.entries[voice])))
        samples = np.concatenate([bank.utterance(entry) for entry in entries])
        clips.append(_recorded(samples, _room(bank, config, rng), config, rng))
    points = embed(clips)
    return [
        _PooledLines(point, len(clip) / SAMPLE_RATE_HZ, voice)
        for point, clip, voice in zip(points, clips, voices, strict=True)
    ]


def _matches(ones: Sequence[_PooledLines], others: Sequence[_PooledLines]) -> list[_Match]:
    """Compare each unit with the others of its speaker, and with those of the most similar speaker; other
    comparisons are easy."""
    nearest = _nearest_voices(others)
    matches = []
    for one in ones:
        for voice in (one.voice, nearest.get(one.voice)):
            theirs = [other for other in others if other.voice == voice and other is not one]
            if theirs:
                total = torch.stack([other.seconds * other.point for other in theirs]).sum(0)
                cosine = float(F.normalize(total, dim=0) @ one.point)
                seconds = sum(other.seconds for other in theirs)
                matches.append((cosine, one.seconds, seconds, voice == one.voice))
    return matches


def _nearest_voices(units: Sequence[_PooledLines]) -> dict[int, int]:
    """The voice that sounds most like each voice."""
    voices = sorted({unit.voice for unit in units})
    if len(voices) < 2:
        return {}
    means = torch.stack(
        [torch.stack([u.point for u in units if u.voice == v]).mean(0) for v in voices]
    )
    near = F.normalize(means, dim=-1)
    cosines = (near @ near.T).fill_diagonal_(-2.0)
    return {voice: voices[int(row.argmax())] for voice, row in zip(voices, cosines, strict=True)}


def _both_ways(odds: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy of pairs of one voice plus that of pairs of two voices."""
    same_odds, other_odds = odds[same], odds[~same]
    return F.binary_cross_entropy_with_logits(
        same_odds, torch.ones_like(same_odds)
    ) + F.binary_cross_entropy_with_logits(other_odds, torch.zeros_like(other_odds))


def witness_loss(head: VoiceHead, points: Tensor) -> Tensor:
    """Loss of points `[people, clips, size]` of clips of like length."""
    people, clips, _ = points.shape
    total = points.sum(1)
    loss = points.new_zeros(())
    for i in range(clips):
        others = F.normalize(
            total - points[:, i], dim=-1
        )  # clip i against the rest of each speaker
        logits = points[:, i] @ others.T * head.slope.exp()
        loss = loss + F.cross_entropy(logits, torch.arange(people, device=points.device)) / clips
    flat = points.flatten(0, 1)
    odds = (flat @ flat.T - head.threshold) * head.slope.exp()
    person = torch.arange(people, device=points.device).repeat_interleave(clips)
    same = person.unsqueeze(0) == person.unsqueeze(1)
    apart = ~torch.eye(len(flat), dtype=torch.bool, device=points.device)
    return loss + _both_ways(odds[apart], same[apart])


def _people(bank: VoiceBank, config: WitnessConfig, rng: random.Random) -> list[tuple[int, Tract]]:
    """The speakers of a step: voices and tracts."""
    genders = rng.choice([("female",), ("male",), ("female", "male")])
    voices = [i for i, voice in enumerate(bank.voices) if voice.base.gender in genders]
    bases = sorted({bank.voices[i].base for i in voices}, key=str)
    similar = len(bases) > 3 and rng.random() < config.alike_rate
    if similar:
        bases = rng.sample(bases, 3)
        voices = [i for i in voices if bank.voices[i].base in bases]
    chosen: list[tuple[int, Tract]] = []
    for _ in range(_MOST_TRIES // 20 if similar else _MOST_TRIES):
        if len(chosen) == config.people:
            return chosen
        candidate = (rng.choice(voices), draw_tract(rng, config.warp, config.formants))
        others = chosen if similar else chosen[-8:]
        if all(distance(bank, candidate, other) >= config.least_distance for other in others):
            chosen.append(candidate)
    if similar and len(chosen) > 1:
        return chosen
    raise DataError(
        f"the bank of {len(bank.voices)} voices holds no {config.people} that differ enough; "
        "give it more voices, or compare fewer people at once"
    )


def _clips(
    bank: VoiceBank,
    config: WitnessConfig,
    people: Sequence[tuple[int, Tract]],
    rng: random.Random,
) -> tuple[list[Samples], list[int]]:
    """Clips, grouped by speaker, and the number of the microphone of each."""
    clips: list[Samples] = []
    places: list[int] = []
    for number, (voice, tract) in enumerate(people):
        elsewhere = rng.random() < config.elsewhere_rate
        room = _room(bank, config, rng)
        for i in range(config.clips):
            entry = rng.choice(bank.entries[voice])
            if elsewhere:
                room = _room(bank, config, rng)
            clips.append(_clip(bank.utterance(entry, tract), room, config, rng))
            places.append(number * config.clips + (i if elsewhere else 0))
    return clips, places


def _room(bank: VoiceBank, config: WitnessConfig, rng: random.Random) -> Samples | None:
    return rng.choice(rng.choice(bank.rooms)) if rng.random() < config.reverb_rate else None


def _clip(
    samples: Samples, room: Samples | None, config: WitnessConfig, rng: random.Random
) -> Samples:
    length = round(rng.uniform(*config.seconds) * SAMPLE_RATE_HZ)
    if len(samples) > length:
        first = rng.randrange(len(samples) - length)
        samples = samples[first : first + length]
    return _recorded(samples, room, config, rng)


def _recorded(
    samples: Samples, room: Samples | None, config: WitnessConfig, rng: random.Random
) -> Samples:
    """Vary clips as another microphone in another room would record them."""
    if room is not None:
        from scipy.signal import fftconvolve

        samples = fftconvolve(samples, room)[: len(samples)].astype(np.float32)
    samples = samples * np.float32(10 ** (rng.uniform(-8, 3) / 20))
    quieter_db = rng.uniform(*config.snr_db)
    noisy = samples + noise(len(samples), level_db(samples) - quieter_db, rng)
    return np.asarray(noisy, dtype=np.float32)
