"""The speaker cache as training simulates it (stage 3).

Entries are drawn at random from earlier parts of the same session, and speakers are numbered by
order of appearance over cache and chunk, so that a label carries no identity of its own (Sec.
"Speaker-aware cache", arXiv 2604.03074). How many entries a speaker has, how often the cache is
empty and how often it leaves a speaker out is not published; `CacheConfig` has our values.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..audio import SAMPLE_RATE_HZ, Samples
from ..protocol import CacheEntry
from ..protocol.observations import Reference


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Distributions of simulated caches; pairs are inclusive ranges.

    Attributes:
        budget_s: most seconds of audio in a cache.
        entries: of one speaker.
        shortest_s: a shorter segment is taken only where a speaker has none longer.
        longest_s: longer segments are not taken.
        empty_rate: share of dialogues without a cache.
        absence_rate: share of past speakers that are left out, so that they are new in the chunk.
        textless_rate: share of caches without texts, as for an enrolled speaker.
    """

    budget_s: float = 20.0
    entries: tuple[int, int] = (1, 2)
    shortest_s: float = 1.0
    longest_s: float = 6.0
    empty_rate: float = 0.15
    absence_rate: float = 0.1
    textless_rate: float = 0.25


def draw_cache(
    past: Sequence[Reference], config: CacheConfig, rng: random.Random
) -> list[Reference]:
    """Draw past segments, speaker by speaker in random order.

    Args:
        past: segments before the chunk; `speaker` is the same person in all of them.

    Returns:
        At most `budget_s` of them, those of one speaker together. Segments that overlap another
        one are not taken.
    """
    if rng.random() < config.empty_rate:
        return []
    clean = [s for s in past if not any(_overlap(s, other) for other in past if other is not s)]
    fitting = [s for s in clean if _duration_s(s) <= config.longest_s]
    people = sorted({s.speaker for s in fitting})
    rng.shuffle(people)
    drawn: list[Reference] = []
    left_s = config.budget_s
    for person in people:
        if rng.random() < config.absence_rate:
            continue
        candidates = [s for s in fitting if s.speaker == person]
        candidates = [s for s in candidates if _duration_s(s) >= config.shortest_s] or candidates
        for segment in rng.sample(candidates, min(len(candidates), rng.randint(*config.entries))):
            if _duration_s(segment) <= left_s:
                drawn.append(segment)
                left_s -= _duration_s(segment)
    return drawn


def condition(
    drawn: Sequence[Reference],
    samples: Samples,
    segments: Sequence[Reference],
    *,
    texts: bool = True,
) -> tuple[list[CacheEntry], list[Reference]]:
    """Cut the entries out of the recording, and number the speakers of entries and chunk.

    Args:
        drawn: past segments, those of one speaker together.
        samples: float32 `[n]` of the recording in which `drawn` lies.
        segments: of the chunk; a speaker is the same person as in `drawn`.
        texts: whether an entry has its text.

    Returns:
        The entries, and the segments by start with their new numbers.
    """
    numbers: dict[int, int] = {}
    entries = [
        CacheEntry(
            numbers.setdefault(s.speaker, len(numbers) + 1),
            s.gender,
            s.text if texts else "",
            samples[s.start_samples : s.end_samples],
        )
        for s in drawn
    ]
    ordered = sorted(segments, key=lambda s: (s.start_samples, s.end_samples))
    renumbered = [
        replace(s, speaker=numbers.setdefault(s.speaker, len(numbers) + 1)) for s in ordered
    ]
    return entries, renumbered


def _duration_s(segment: Reference) -> float:
    return (segment.end_samples - segment.start_samples) / SAMPLE_RATE_HZ


def _overlap(a: Reference, b: Reference) -> bool:
    return a.start_samples < b.end_samples and b.start_samples < a.end_samples
