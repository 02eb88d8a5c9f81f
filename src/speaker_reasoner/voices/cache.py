"""The speaker-aware cache: earlier segments of each speaker, given to the model before the next chunk.

Sec. "Speaker-aware cache" (arXiv 2604.03074): candidates are scored phi = d * (1 + alpha * i_n), and the
best of each speaker are kept. The paper does not publish alpha, the number of entries of a speaker, and
which segments are candidates. docs/results/cache.json compares values of the first two.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..audio import SAMPLE_RATE_HZ, Samples
from ..protocol import CacheEntry

SHORTEST_S = 0.6
"""A shorter segment is no candidate: it holds too little of a voice (assumed)."""
_CANDIDATES, _PEOPLE = 6, 24
"""Most candidates of a person, and most people without a clip, that are kept, so that memory does not grow
with the recording (assumed). The people who spoke least recently are dropped first."""


@dataclass(frozen=True, slots=True)
class CacheRules:
    """Rules for choosing cache entries.

    `alpha` and `entries` were compared in docs/results/cache.json; `least_confidence` is assumed.

    Attributes:
        alpha: weight of recency against duration.
        entries: most entries of one person.
        least_confidence: least speaker confidence of a candidate.
    """

    alpha: float = 1.0
    entries: int = 2
    least_confidence: float = 0.8


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """An earlier segment that may become an entry.

    Attributes:
        start_s: its start in the recording.
        samples: float32 `[n]` at 16 kHz.
        enrolled: whether it is a clip of an enrolled speaker, which is never dropped.
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
        """phi, with recency as a share of the recording so far."""
        recency = self.start_s / now_s if now_s > 0 else 0.0
        return self.duration_s * (1 + alpha * recency)


class SpeakerCache:
    """Keeps candidates by person, and chooses the entries for the next chunk.

    Args:
        rules: how entries are chosen.
        budget_s: most seconds of entries before a chunk; see `Profile.cache_s`.
        most: most people in the entries of one chunk.
    """

    def __init__(self, rules: CacheRules, budget_s: float, most: int) -> None:
        self.rules = rules
        self.budget_s = budget_s
        self.most = most
        self._candidates: dict[int, list[Candidate]] = {}

    def add(self, person: int, candidates: Iterable[Candidate], now_s: float) -> None:
        """Add candidates of a person, and keep the best of all."""
        held = [*self._candidates.get(person, ()), *candidates]
        held.sort(key=lambda c: (c.enrolled, c.score(now_s, self.rules.alpha)), reverse=True)
        self._candidates[person] = held[:_CANDIDATES]
        unnamed = [p for p, kept in self._candidates.items() if not any(c.enrolled for c in kept)]
        if len(unnamed) > _PEOPLE:
            del self._candidates[min(unnamed, key=self._last_spoke_s)]

    def choose(
        self, now_s: float, genders: Mapping[int, str]
    ) -> tuple[list[CacheEntry], list[int]]:
        """Choose entries for a chunk that starts at `now_s`.

        Each person's best candidate is taken first, the most recent speakers before others, then each
        person's second, while the budget lasts.

        Args:
            genders: gender of each person.

        Returns:
            The entries, grouped by person, and the person behind each speaker number from 1.
        """
        ranked = {
            person: sorted(held, key=lambda c: c.score(now_s, self.rules.alpha), reverse=True)
            for person, held in self._candidates.items()
        }
        latest = sorted(
            (person for person in ranked if ranked[person]), key=self._last_spoke_s, reverse=True
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

    def _last_spoke_s(self, person: int) -> float:
        return max(c.start_s for c in self._candidates[person])
