"""Segments of a chunk to observations, and observations to boxes and lines.

Observations follow the tau rule of Sec. 2 (arXiv 2604.03074): neighbours A, B with overlap d_AB
share an observation unless d_AB/d_A < tau and d_AB/d_B < tau. Differs from the paper: a segment is
compared with every segment of the open observation, not with the last one alone, so that the second
of two backchannels inside one long segment is in the same observation as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..audio import SAMPLE_RATE_HZ
from .profile import Profile
from .turns import Box, Line

TAU = 0.8
BOX_MARGIN_S = 0.05
"""A box spans its segments and this much around them, so that a box that is a little off when the
model draws it still holds every word."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference segment in samples of its chunk; `speaker` counts by order of appearance."""

    speaker: int
    gender: str
    start_samples: int
    end_samples: int
    text: str


def observations(segments: Sequence[Reference], tau: float = TAU) -> list[list[Reference]]:
    """Group segments, in order of start, into observations: every segment is in exactly one."""
    groups: list[list[Reference]] = []
    for segment in sorted(segments, key=lambda s: (s.start_samples, s.end_samples)):
        if groups and any(_overlap(other, segment, tau) for other in groups[-1]):
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


def _overlap(a: Reference, b: Reference, tau: float) -> bool:
    overlap = min(a.end_samples, b.end_samples) - max(a.start_samples, b.start_samples)
    shorter = min(a.end_samples - a.start_samples, b.end_samples - b.start_samples)
    return overlap >= tau * shorter


def box_ticks(group: Sequence[Reference], chunk_samples: int, profile: Profile) -> Box:
    """The observation's boundary: whole ticks around its segments and their margin, inside X."""
    margin = round(BOX_MARGIN_S * SAMPLE_RATE_HZ)
    first = max(0, min(s.start_samples for s in group) - margin)
    last = min(chunk_samples, max(s.end_samples for s in group) + margin)
    shortest, chunk = shortest_ticks(profile), floor_ticks(chunk_samples, profile)
    start = min(first * profile.ticks_per_s // SAMPLE_RATE_HZ, max(0, chunk - shortest))
    end = -(-last * profile.ticks_per_s // SAMPLE_RATE_HZ)
    return Box(start, max(min(end, chunk), start + shortest))


def floor_ticks(samples: int, profile: Profile) -> int:
    return samples * profile.ticks_per_s // SAMPLE_RATE_HZ


def shortest_ticks(profile: Profile) -> int:
    """0.1 s, the shortest box and segment of the protocol."""
    return profile.ticks_per_s // 10


def tick_samples(ticks: int, profile: Profile) -> int:
    return ticks * SAMPLE_RATE_HZ // profile.ticks_per_s


def line(segment: Reference, box: Box, profile: Profile) -> Line:
    """A segment as a line: nearest ticks, inside its box, at least 0.1 s long."""
    half = SAMPLE_RATE_HZ // 2
    start = (segment.start_samples * profile.ticks_per_s + half) // SAMPLE_RATE_HZ
    end = (segment.end_samples * profile.ticks_per_s + half) // SAMPLE_RATE_HZ
    shortest = shortest_ticks(profile)
    start = min(max(start, box.start), box.end - shortest)
    end = min(max(end, start + shortest), box.end)
    return Line(segment.speaker, segment.gender, start, end, segment.text)


def slice_samples(box: Box, chunk_samples: int, profile: Profile) -> tuple[int, int]:
    """The samples of an observation: a box's ticks, ended by the chunk's last sample."""
    return tick_samples(box.start, profile), min(tick_samples(box.end, profile), chunk_samples)
