"""The last thing to be trained: a voice head on the finished tower (see `engines.voice`).

People are voices of the bank, warped anew; a step compares a few clips of each of many people, in
two steps of three all of one gender: those are hard to tell apart. The loss is that of angular
prototypes (Chung et al. 2020, Sec. 3.1, arXiv 2003.11982), and a logistic one over pairs, which
makes the odds honest.
"""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from ..audio import SAMPLE_RATE_HZ
from ..data.simulate import MeetingConfig, VoiceBank, distance, meeting, noise
from ..data.voices import Samples
from ..engines.thinker import log_mel
from ..engines.voice import VoiceHead, tower_layers
from ..errors import DataError
from .batches import equalise

_MOST_TRIES = 10_000


@dataclass(frozen=True, slots=True)
class WitnessConfig:
    """How the voice head is trained.

    Attributes:
        people, clips: in a step, and of each.
        seconds: shortest and longest clip.
        reverb_rate: share of clips heard in a room; `elsewhere_rate`: of people whose clips come
            from different rooms and microphones, as an enrolled voice does.
    """

    steps: int = 1500
    learning_rate: float = 2e-3
    people: int = 24
    clips: int = 4
    seconds: tuple[float, float] = (0.6, 3.0)
    warp: tuple[float, float] = (0.86, 1.16)
    reverb_rate: float = 0.5
    elsewhere_rate: float = 0.3
    snr_db: tuple[float, float] = (12.0, 45.0)
    least_distance: float = 1.0


def train_witness(
    thinker: Any, extractor: Any, bank: VoiceBank, config: WitnessConfig, seed: int
) -> VoiceHead:
    """Train a voice head on a tower that stays as it is.

    Args:
        thinker: with the tower, in float32.
        extractor: log-mel features.
        bank: of training voices.
    """
    torch.manual_seed(seed)
    device = next(thinker.parameters()).device
    head: VoiceHead | None = None
    optimiser: torch.optim.Optimizer | None = None
    for step in track(range(config.steps), description="voice head"):
        rng = random.Random(f"witness {seed} {step}")
        clips, places = _draw(bank, config, rng)
        features, mask = log_mel(extractor, clips)
        equalise(features, places, rng)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            heard = tower_layers(thinker, features.to(device), mask.to(device))
        if head is None:
            head = VoiceHead(heard[0].shape[1]).to(device)
            optimiser = torch.optim.AdamW(head.parameters(), config.learning_rate)
        assert optimiser is not None
        for group in optimiser.param_groups:
            warm = min(1.0, (step + 1) / 30)
            group["lr"] = config.learning_rate * warm * (1 - step / config.steps)
        loss = witness_loss(head, head(heard).reshape(config.people, config.clips, -1))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    assert head is not None
    return head.eval()


def calibrate(
    head: VoiceHead,
    thinker: Any,
    extractor: Any,
    bank: VoiceBank,
    meetings: MeetingConfig,
    seed: int,
    count: int = 20,
) -> None:
    """Fit the head's slope and offset, so that its odds are those of two lines of one meeting.

    Training leaves both too low: it compares across rooms and microphones as well.

    Args:
        bank: of development voices, neither trained on nor held out.
        meetings: how the meetings are drawn; each should hold a few lines of each person.
    """
    device = next(thinker.parameters()).device
    cosines, alike = [], []
    for number in range(count):
        held = meeting(bank, meetings, f"calibration {seed} {number}")
        lines = [s for s in held.spoken if s.end_samples - s.start_samples >= SAMPLE_RATE_HZ]
        clips = [held.samples[s.start_samples : s.end_samples] for s in lines]
        features, mask = log_mel(extractor, clips)
        with torch.no_grad():
            points = head(tower_layers(thinker, features.to(device), mask.to(device)))
        person = torch.tensor([s.speaker for s in lines], device=device)
        gender = torch.tensor([s.gender == "male" for s in lines], device=device)
        first, second = torch.triu_indices(len(clips), len(clips), 1, device=device)
        near = gender[first] == gender[second]  # the others are told apart at any threshold
        first, second = first[near], second[near]
        cosines.append((points[first] * points[second]).sum(-1))
        alike.append(person[first] == person[second])
    cosine, same = torch.cat(cosines), torch.cat(alike)
    optimiser = torch.optim.LBFGS([head.slope, head.offset], max_iter=100)

    def loss() -> Tensor:
        optimiser.zero_grad()
        odds = cosine * head.slope.exp() + head.offset
        found = F.binary_cross_entropy_with_logits(odds[same], torch.ones_like(odds[same]))
        found = found + F.binary_cross_entropy_with_logits(
            odds[~same], torch.zeros_like(odds[~same])
        )
        torch.autograd.backward(found)
        return found

    optimiser.step(loss)  # type: ignore[no-untyped-call]


def witness_loss(head: VoiceHead, points: Tensor) -> Tensor:
    """Loss of points `[people, clips, size]`."""
    people, clips, _ = points.shape
    total = points.sum(1)
    loss = points.new_zeros(())
    for i in range(clips):
        others = F.normalize(total - points[:, i], dim=-1)  # each against the rest of everybody's
        logits = points[:, i] @ others.T * head.slope.exp()
        loss = loss + F.cross_entropy(logits, torch.arange(people, device=points.device)) / clips
    flat = points.flatten(0, 1)
    odds = flat @ flat.T * head.slope.exp() + head.offset
    person = torch.arange(people, device=points.device).repeat_interleave(clips)
    same = person.unsqueeze(0) == person.unsqueeze(1)
    apart = ~torch.eye(len(flat), dtype=torch.bool, device=points.device)
    for pairs in (same & apart, ~same):
        judged = odds[pairs]
        target = same[pairs].float()
        loss = loss + F.binary_cross_entropy_with_logits(judged, target)
    return loss


def _draw(
    bank: VoiceBank, config: WitnessConfig, rng: random.Random
) -> tuple[list[Samples], list[int]]:
    """Clips, those of one person together, and the microphone that recorded each."""
    genders = rng.choice([("female",), ("male",), ("female", "male")])
    voices = [i for i, voice in enumerate(bank.voices) if voice.base.gender in genders]
    clips: list[Samples] = []
    places: list[int] = []
    chosen: list[tuple[int, float]] = []
    for _ in range(_MOST_TRIES):
        if len(chosen) == config.people:
            break
        candidate = (rng.choice(voices), rng.uniform(*config.warp))
        if all(distance(bank, candidate, other) >= config.least_distance for other in chosen[-8:]):
            chosen.append(candidate)
    else:
        raise DataError(
            f"the bank of {len(bank.voices)} voices holds no {config.people} that differ enough; "
            "give it more voices, or compare fewer people at once"
        )
    for number, (voice, warp) in enumerate(chosen):
        elsewhere = rng.random() < config.elsewhere_rate
        room = _room(bank, config, rng)
        for i in range(config.clips):
            entry = rng.choice(bank.entries[voice])
            if elsewhere:
                room = _room(bank, config, rng)
            clips.append(_clip(bank.utterance(entry, warp), room, config, rng))
            places.append(number * config.clips + (i if elsewhere else 0))
    return clips, places


def _room(bank: VoiceBank, config: WitnessConfig, rng: random.Random) -> Samples | None:
    return rng.choice(rng.choice(bank.rooms)) if rng.random() < config.reverb_rate else None


def _clip(
    samples: Samples, room: Samples | None, config: WitnessConfig, rng: random.Random
) -> Samples:
    if room is not None:
        from scipy.signal import fftconvolve

        samples = fftconvolve(samples, room)[: len(samples)].astype(np.float32)
    length = round(rng.uniform(*config.seconds) * SAMPLE_RATE_HZ)
    if len(samples) > length:
        first = rng.randrange(len(samples) - length)
        samples = samples[first : first + length]
    samples = samples * np.float32(10 ** (rng.uniform(-8, 3) / 20))
    level_db = 10 * float(np.log10(np.mean(samples**2) + 1e-12))
    noisy = samples + noise(len(samples), level_db - rng.uniform(*config.snr_db), rng)
    return np.asarray(noisy, dtype=np.float32)
