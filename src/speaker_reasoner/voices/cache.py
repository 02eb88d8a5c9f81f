"""The speaker-aware cache: past segments of each speaker, heard again before the next chunk.

Sec. "Speaker-aware cache" (arXiv 2604.03074): candidates are scored phi = d * (1 + alpha * i_n), the
best of each speaker are kept. Not published, and chosen here by measurement (docs/results): alpha,
how many entries a speaker has, and which segments are candidates at all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..audio import SAMPLE_RATE_HZ, Samples
from ..protocol import CacheEntry

SHORTEST_S = 0.6
"""A shorter segment tells little about a voice: it is no candidate."""
_CANDIDATES, _PEOPLE = 6, 24
"""How many candidates of a person, and of how many people, are held at once: memory does not grow with
the recording. Those go whom nobody heard for longest."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """How entries are chosen.

    Attributes:
        alpha: weight of recency against duration.
        entries: most of one person.
        least_confidence: a line whose speaker was less sure is no candidate.
    """

    alpha: float = 1.0
    entries: int = 2
    least_confidence: float = 0.8


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """A past segment that may be heard again.

    Attributes:
        start_s: where it starts in the recording.
        samples: float32 `[n]` at 16 kHz.
        enrolled: from a clip that the user gave; it is never crowded out.
    """

    start_s: float
    samples: Samples
    text: str
    gender: str
    enrolled: bool = False

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ

    def score(self, now_s: float, alpha: float) -> float:
        """phi, with the recency counted over the recording so far."""
        recency = self.start_s / now_s if now_s > 0 else 0.0
        return self.duration_s * (1 + alpha * recency)


class SpeakerCache:
    """Candidates by person, and the entries for the next chunk.

    Args:
        rules: how entries are chosen.
        budget_s: most seconds of entries before a chunk; see `Profile.cache_s`.
        most: most people in one cache.
    """

    def __init__(self, rules: CacheRules, budget_s: float, most: int) -> None:
        self.rules = rules
        self.budget_s = budget_s
        self.most = most
        self._candidates: dict[int, list[Candidate]] = {}

    def add(self, person: int, candidates: Iterable[Candidate], now_s: float) -> None:
        """Offer candidates of a person; the best of all are held."""
        held = [*self._candidates.get(person, ()), *candidates]
        held.sort(key=lambda c: (c.enrolled, c.score(now_s, self.rules.alpha)), reverse=True)
        self._candidates[person] = held[:_CANDIDATES]
        strangers = [p for p, own in self._candidates.items() if not any(c.enrolled for c in own)]
        if len(strangers) > _PEOPLE:
            del self._candidates[min(strangers, key=self._last_heard_s)]

    def choose(
        self, now_s: float, genders: Mapping[int, str]
    ) -> tuple[list[CacheEntry], list[int]]:
        """Entries for a chunk that starts at `now_s`.

        Everybody's best entry first, those heard last before others, then everybody's second, as
        long as the budget lasts.

        Args:
            genders: of each person.

        Returns:
            The entries, those of one person together, and the person behind each number from 1.
        """
        ranked = {
            person: sorted(held, key=lambda c: c.score(now_s, self.rules.alpha), reverse=True)
            for person, held in self._candidates.items()
        }
        latest = sorted(
            (person for person in ranked if ranked[person]), key=self._last_heard_s, reverse=True
        )
        chosen: dict[int, list[Candidate]] = {}
        left_s = self.budget_s
        for place in range(self.rules.entries):
            for person in latest[: self.most]:
                fitting = [c for c in ranked[person] if c not in chosen.get(person, ())]
                fitting = [c for c in fitting if c.duration_s <= left_s]
                if fitting and (place == 0 or person in chosen):
                    chosen.setdefault(person, []).append(fitting[0])
                    left_s -= fitting[0].duration_s
        people = sorted(chosen)
        entries = [
            CacheEntry(number, genders[person], candidate.text, candidate.samples)
            for number, person in enumerate(people, start=1)
            for candidate in chosen[person]
        ]
        return entries, people

    def _last_heard_s(self, person: int) -> float:
        return max(c.start_s for c in self._candidates[person])
