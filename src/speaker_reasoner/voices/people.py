"""The people of a recording: who they are in each chunk, and over the whole of it.

Lines of a chunk are grouped into units (one voice in one chunk). A unit is given to a person as
soon as its chunk is finished, by the cache and by its voice; when the recording ends, all units are
linked once more with everything known. Labels of the dialogue stay order-of-appearance; people live
here.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any

import numpy as np

from ..audio import SAMPLE_RATE_HZ, Samples, level_db
from ..errors import SettingsError
from ..protocol import CacheEntry, Profile
from ..spans import alone, overlapped
from ..transcript import Segment
from .cache import SHORTEST_S, CacheRules, Candidate, SpeakerCache
from .finished import Finished, Points, Spoken
from .grouping import grouped
from .linking import Array, Matrix, Trust, Voices, heard, merge, recognise, reconsider
from .witness import Witness

_SHORTEST_VOICE_S = 0.5
"""Shorter lines are not embedded; they follow the line they share a number with."""
_PERSON_S, _PERSON_SHARE = 6.0, 0.01
"""Who speaks for less, in seconds and of all speech, is taken for a stray piece of somebody else."""
_NEW_PEOPLE = 2
"""Numbers of a dialogue that are kept free of cached people."""


@dataclass(frozen=True, slots=True)
class Voice:
    """An enrolled person: clips float32 `[n]` at 16 kHz, the gender where it is known, and what a
    witness says against the clips, one sentence each."""

    name: str
    clips: tuple[Samples, ...]
    gender: str = "unknown"
    doubts: tuple[str, ...] = ()


@dataclass
class _Unit:
    """Lines of one voice in one chunk, or an enrolled voice.

    Attributes:
        heard: how it sounds, a row of `Voices`; `None` without a witness.
        seconds: of speech.
        told: what its dialogue says about it and earlier units of its chunk, in log-odds.
        recalled: and what about it and the units of cached people.
        person: whom it was given to.
    """

    heard: Array | None
    seconds: float
    told: dict[int, float] = field(default_factory=dict)
    recalled: dict[int, float] = field(default_factory=dict)
    person: int = -1


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a chunk: its unit, the label it was told under, its number in the dialogue, seconds,
    and embedding (`None` if there is none)."""

    unit: int
    label: str
    number: int
    seconds: float
    point: Points | None


@dataclass
class _Person:
    name: str | None = None
    units: list[int] = field(default_factory=list)
    genders: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    heard: Array | None = None

    def add(self, number: int, unit: _Unit) -> None:
        self.units.append(number)
        if unit.heard is not None:
            self.heard = unit.heard if self.heard is None else self.heard + unit.heard

    @property
    def gender(self) -> str:
        return vote(self.genders)[0]


class Speakers:
    """Everybody in one recording.

    Args:
        profile: of the checkpoint.
        cached: whether chunks hear the speaker cache.
        rules: how its entries are chosen.
        witness: embeds voices; `None` trusts the dialogues alone.
        trust: how much either counts.
        bounds: fewest and most speakers of the recording, if the user says so.
        voices: enrolled people.

    Raises:
        SettingsError: more speakers are enrolled as different people than bounds allow, or voices
            are given that neither a cache nor a witness could use.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        cached: bool,
        rules: CacheRules,
        witness: Witness | None,
        trust: Trust,
        bounds: tuple[int, int] | None = None,
        voices: Sequence[Voice] = (),
    ) -> None:
        if voices and not cached and witness is None:
            raise SettingsError(
                "voices were given, but this checkpoint hears no speaker cache and there is no "
                "witness to compare voices; choose a witness"
            )
        self.witness = witness
        self.trust = trust
        self.bounds = bounds
        self.cached = cached
        self._cache = SpeakerCache(
            rules, profile.cache_s, max(1, profile.max_speakers - _NEW_PEOPLE)
        )
        self._people: list[_Person] = []
        self._units: list[_Unit] = []
        self._lines: list[list[_Line]] = []  # by chunk
        self._enrolled: list[int] = []
        self.doubts = [doubt for voice in voices for doubt in voice.doubts]
        for voice in voices:
            self._enrol(voice)

    @property
    def linked(self) -> bool:
        """Whether speakers of different chunks are linked at all."""
        return self.cached or self.witness is not None

    def cache(self, now_s: float) -> tuple[list[CacheEntry], list[int]]:
        """Entries for a chunk that starts at `now_s`, and the person behind each number from 1."""
        genders = {i: person.gender for i, person in enumerate(self._people)}
        return self._cache.choose(now_s, genders)

    def count(self, cached: int, *, alone: bool = False) -> tuple[int, int] | None:
        """Fewest and most speakers that a chunk's overview may count.

        Args:
            cached: people in its cache.
            alone: whether it is the whole recording.
        """
        if self.bounds is None:
            return None
        low, high = self.bounds
        heard = sum(bool(set(p.units) - set(self._enrolled)) for p in self._people)
        return (low if alone else 0), cached + max(0 if heard else 1, high - heard)

    def provisional(self, number: int, people: Sequence[int]) -> str:
        """The label of a number in a dialogue under way."""
        if number <= len(people):
            return self._label(people[number - 1])
        strangers = sum(person.name is None for person in self._people)
        return self._stranger(strangers + number - len(people))

    def embed(
        self,
        spoken: Sequence[Spoken],
        start: int,
        samples: Samples,
        known: Sequence[Points | None] = (),
    ) -> tuple[Points | None, tuple[float, ...]]:
        """Voice embeddings of a chunk's lines, each of its longest part in which nobody else speaks,
        and how loud those are, in dB; rows of NaN, and 0 dB, where that is too short.

        Args:
            known: embeddings of lines that need not be computed.
        """
        if self.witness is None or not spoken:
            return None, ()
        rows: dict[int, Points] = {i: point for i, point in enumerate(known) if point is not None}
        parts = [alone(one, spoken) for one in spoken]
        clips = {
            i: _cut(first_s, last_s, start, samples)
            for i, (first_s, last_s) in enumerate(parts)
            if last_s - first_s >= _SHORTEST_VOICE_S
        }
        unknown = [i for i in clips if i not in rows]
        if unknown:
            rows |= zip(unknown, self.witness.embed([clips[i] for i in unknown]), strict=True)
        if not rows:
            return None, ()
        points = np.full((len(spoken), len(next(iter(rows.values())))), np.nan, dtype=np.float32)
        levels_db = [0.0] * len(spoken)
        for i, point in rows.items():
            points[i] = point
            if i in clips:
                levels_db[i] = round(level_db(clips[i]), 2)
        return points, tuple(levels_db)

    def absorb(self, finished: Finished, samples: Samples, *, alone: bool = False) -> None:
        """Take the lines of the next chunk: give them to people, offer them to the cache.

        Args:
            alone: whether it is the whole recording, so that all speakers must be in it.
        """
        labels = [self.provisional(one.number, finished.people) for one in finished.spoken]
        fewest = self.bounds[0] if alone and self.bounds is not None else 1
        groups = grouped(finished, self.witness, self.trust, fewest=fewest)
        first = len(self._units)
        numbers: list[int] = []
        for group in range(max(groups, default=-1) + 1):
            own = [i for i, g in enumerate(groups) if g == group]
            numbers.append(_number(own, finished.spoken))
            self._units.append(self._unit(own, finished))
            self._tell(first + group, numbers, first, finished.people)
        for group in sorted(range(len(numbers)), key=lambda g: numbers[g]):
            self._place(first + group)
        points = finished.points
        self._lines.append(
            [
                _Line(first + group, label, one.number, one.seconds, _row(points, i))
                for i, (group, label, one) in enumerate(
                    zip(groups, labels, finished.spoken, strict=True)
                )
            ]
        )
        for i, one in enumerate(finished.spoken):
            person = self._people[self._units[first + groups[i]].person]
            person.genders[one.gender] += one.seconds
        if self.cached:
            self._offer(finished, groups, first, samples)

    def settle(self, *, foreign: bool = False) -> tuple[list[list[str]], list[dict[str, Any]]]:
        """Link all units once more, then weigh each line by itself.

        Args:
            foreign: whether the words are such as the checkpoint does not know.

        Returns:
            The label of every line, chunk by chunk, and what that changed of the provisional ones.
        """
        if foreign:
            self.trust = replace(self.trust, least=max(self.trust.least, self.trust.foreign_least))
        groups = self._final()
        found = self._reconsidered(groups)
        names = {
            person: self._label(self._units[unit].person)
            for unit, person in self._recognised(groups, found).items()
        }
        people = iter(found)
        strangers, labels = 0, list[list[str]]()
        for lines in self._lines:
            labels.append([])
            for person in islice(people, len(lines)):
                if person not in names:
                    strangers += 1
                    names[person] = self._stranger(strangers)
                labels[-1].append(names[person])
        return labels, self._corrections(labels)

    def segments(
        self, finished: Sequence[Finished], labels: Sequence[Sequence[str]]
    ) -> tuple[list[Segment], dict[str, dict[str, Any]]]:
        """All lines under their labels, each with the gender that its speaker's lines vote for.

        Returns:
            Also, of each label: seconds of speech, gender, and the share of the vote it got, by
            seconds.
        """
        genders: dict[str, dict[str, float]] = {}
        for chunk, row in zip(finished, labels, strict=True):
            for one, label in zip(chunk.spoken, row, strict=True):
                genders.setdefault(label, defaultdict(float))[one.gender] += one.seconds
        people: dict[str, dict[str, Any]] = {}
        for label, seconds in genders.items():
            gender, share = vote(seconds)
            spoken_s = round(sum(seconds.values()), 3)
            people[label] = {"spoken_s": spoken_s, "gender": gender, "share": round(share, 4)}
        segments = [
            one.segment(label, people[label]["gender"])
            for chunk, row in zip(finished, labels, strict=True)
            for one, label in zip(chunk.spoken, row, strict=True)
        ]
        return segments, people

    def describe(self) -> dict[str, Any]:
        return {
            "speaker_cache": self.cached,
            "witness": None if self.witness is None else self.witness.name,
            "speakers_given": None if self.bounds is None else list(self.bounds),
            "voices": [self._label(self._units[unit].person) for unit in self._enrolled],
        }

    def _enrol(self, voice: Voice) -> None:
        number, seconds = len(self._units), [len(c) / SAMPLE_RATE_HZ for c in voice.clips]
        unit = _Unit(None, sum(seconds), person=len(self._people))
        if self.witness is not None:
            unit.heard = heard(self.witness.embed(voice.clips), seconds, elsewhere=True).sum(0)
        self._units.append(unit)
        person = _Person(voice.name)
        person.add(number, unit)
        if voice.gender != "unknown":
            person.genders[voice.gender] += unit.seconds
        self._people.append(person)
        self._enrolled.append(number)
        entries = [Candidate(0.0, clip, "", voice.gender, enrolled=True) for clip in voice.clips]
        self._cache.add(unit.person, entries, 0.0)

    def _label(self, person: int) -> str:
        name = self._people[person].name
        if name is not None:
            return name
        return self._stranger(1 + sum(p.name is None for p in self._people[:person]))

    def _stranger(self, number: int) -> str:
        """The label of the n-th person without a name; a label that is a name is left out."""
        taken = {person.name for person in self._people if person.name is not None}
        labels = (f"Speaker{n}" for n in count(1))
        return next(islice((label for label in labels if label not in taken), number - 1, None))

    def _unit(self, own: Sequence[int], finished: Finished) -> _Unit:
        seconds = [finished.spoken[i].seconds for i in own]
        if finished.points is None:
            return _Unit(None, sum(seconds))
        return _Unit(heard(finished.points[own], seconds).sum(0), sum(seconds))

    def _tell(self, unit: int, numbers: Sequence[int], first: int, people: Sequence[int]) -> None:
        """Note what the dialogue says about a unit: of its chunk, and of the cache."""
        number, mine = numbers[-1], self._units[unit]
        for other, its_number in enumerate(numbers[:-1]):
            if its_number != number:
                mine.told[first + other] = -self.trust.other
        for cached, person in enumerate(people, start=1):
            sign = 1.0 if cached == number else -1.0
            sources = self._people[person].units
            for source in sources:  # said once about the person, not once about each chunk
                mine.recalled[source] = sign * self.trust.cached / len(sources)
        if self.witness is None and number <= len(people):
            mine.person = people[number - 1]

    def _place(self, unit: int) -> None:
        """Give a unit to the likeliest person, or to a new one."""
        mine = self._units[unit]
        if self.witness is not None and self._people:
            said = np.zeros((2, len(self._people)), np.float32)
            for sums, told in zip(said, (mine.told, mine.recalled), strict=True):
                for other, odds in told.items():
                    if self._units[other].person >= 0:
                        sums[self._units[other].person] += odds
            voices = self._voices([*(person.heard for person in self._people), mine.heard])
            scores = voices.odds(len(self._people))[:-1] + self.trust.bounded(said)
            best = int(np.argmax(scores))
            if scores[best] > 0:
                mine.person = best
        if mine.person < 0:
            mine.person = len(self._people)
            self._people.append(_Person())
        self._people[mine.person].add(unit, mine)

    def _offer(
        self, finished: Finished, groups: Sequence[int], first: int, samples: Samples
    ) -> None:
        """Clean lines become candidates of the cache."""
        by_person: dict[int, list[Candidate]] = {}
        for i, one in enumerate(finished.spoken):
            sure = one.confidence.speaker
            if sure is not None and sure < self._cache.rules.least_confidence:
                continue
            if one.seconds < SHORTEST_S or overlapped(one, finished.spoken):
                continue
            if one.seconds > self._cache.budget_s / 2:
                continue
            person = self._units[first + groups[i]].person
            clip = _cut(one.start_s, one.end_s, finished.start_samples, samples).copy()
            by_person.setdefault(person, []).append(
                Candidate(one.start_s, clip, one.text, one.gender)
            )
        for person, candidates in by_person.items():
            self._cache.add(person, candidates, finished.end_s)

    def _final(self) -> list[int]:
        """The final group of every unit."""
        if self.witness is None:
            return [unit.person for unit in self._units]
        seconds = [unit.seconds for unit in self._units]
        spoken_s = sum(seconds) - sum(seconds[unit] for unit in self._enrolled)

        return merge(
            self._voices([unit.heard for unit in self._units]),
            self._told(),
            seconds,
            trust=self.trust,
            fewest=1 if self.bounds is None else self.bounds[0],
            highest=None if self.bounds is None else self.bounds[1],
            enrolled=self._enrolled,
            least=min(_PERSON_S, _PERSON_SHARE * spoken_s),
        )

    def _voices(self, rows: Sequence[Array | None]) -> Voices:
        """Voices of rows of which some are not known."""
        assert self.witness is not None
        width = next((len(row) for row in rows if row is not None), 2)
        known = np.zeros((len(rows), width))
        for i, row in enumerate(rows):
            if row is not None:
                known[i] = row
        return Voices(known, self.witness)

    def _told(self) -> Matrix:
        """What dialogues say about every two units."""
        told = np.zeros((1 + self.cached, len(self._units), len(self._units)), np.float32)
        for i, unit in enumerate(self._units):
            for table, said in zip(told, (unit.told, unit.recalled), strict=False):
                for other, odds in said.items():
                    table[i, other] = table[other, i] = odds
        return told

    def _reconsidered(self, groups: Sequence[int]) -> list[int]:
        """The group of every line, chunk after chunk."""
        every, trust = [line for lines in self._lines for line in lines], self.trust
        people = [groups[line.unit] for line in every]
        width = next((len(line.point) for line in every if line.point is not None), 0)
        if self.witness is None or not width:
            return people
        points = np.full((len(every), width), np.nan, np.float32)
        told: list[dict[int, float]] = []
        for lines in self._lines:
            first = len(told)
            for i, line in enumerate(lines):
                if line.point is not None:
                    points[first + i] = line.point
                told.append(
                    {
                        first + j: trust.same if line.number == other.number else -trust.other
                        for j, other in enumerate(lines)
                        if j != i
                    }
                )
        seconds = [line.seconds for line in every]
        return reconsider(people, points, seconds, told, self.witness, trust)

    def _recognised(self, groups: Sequence[int], people: Sequence[int]) -> dict[int, int]:
        """Whose voice each enrolled one is, of the people that lines were given to in the end."""
        if self.witness is None:
            return {unit: groups[unit] for unit in self._enrolled}
        everybody = sorted(set(people))
        rows: list[Array | None] = [self._units[unit].heard for unit in self._enrolled]
        rows += [None] * len(everybody)
        clips = len(self._enrolled)
        for line, person in zip((li for lines in self._lines for li in lines), people, strict=True):
            if line.point is not None:
                row = heard(line.point[None], [line.seconds])[0]
                place = clips + everybody.index(person)
                rows[place] = row if rows[place] is None else rows[place] + row
        told = np.zeros((1 + self.cached, len(rows), len(rows)), np.float32)
        for unit, group in zip(self._units, groups, strict=True):
            if group in everybody:
                place = clips + everybody.index(group)
                for clip, source in enumerate(self._enrolled):
                    told[-1, clip, place] += unit.recalled.get(source, 0.0)
        found = recognise(
            self._voices(rows), told, range(clips), range(clips, len(rows)), self.trust
        )
        return {self._enrolled[clip]: everybody[place - clips] for clip, place in found.items()}

    def _corrections(self, labels: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """Where the last pass says something else than was told while the recording was heard."""
        became: dict[str, Counter[str]] = {}
        for lines, row in zip(self._lines, labels, strict=True):
            for line, now in zip(lines, row, strict=True):
                became.setdefault(line.label, Counter())[now] += 1
        usual = {label: counts.most_common(1)[0][0] for label, counts in became.items()}
        merged: dict[str, list[str]] = {}
        for label, final in usual.items():
            merged.setdefault(final, []).append(label)
        rows: list[dict[str, Any]] = [
            {"merged": sorted(old), "into": final} for final, old in merged.items() if len(old) > 1
        ]
        for chunk, (lines, row) in enumerate(zip(self._lines, labels, strict=True)):
            for i, (line, now) in enumerate(zip(lines, row, strict=True)):
                before = usual[line.label]
                if before != now:
                    rows.append({"chunk": chunk, "line": i, "from": before, "to": now})
        return rows


def vote(seconds: Mapping[str, float]) -> tuple[str, float]:
    """The gender that most seconds speak for, and their share; `unknown` only if nothing else."""
    known = {gender: value for gender, value in seconds.items() if gender != "unknown"}
    if not known:
        return "unknown", 0.0
    best = max(sorted(known), key=lambda gender: known[gender])
    return best, known[best] / (sum(known.values()) or 1.0)


def _number(own: Sequence[int], spoken: Sequence[Spoken]) -> int:
    """The number that most of a group's seconds carry."""
    seconds: dict[int, float] = defaultdict(float)
    for i in own:
        seconds[spoken[i].number] += spoken[i].seconds
    return max(sorted(seconds), key=lambda number: seconds[number])


def _cut(start_s: float, end_s: float, offset: int, samples: Samples) -> Samples:
    """A stretch of the recording, out of samples that start at sample `offset`."""
    first = round(start_s * SAMPLE_RATE_HZ) - offset
    return samples[max(0, first) : round(end_s * SAMPLE_RATE_HZ) - offset]


def _row(points: Points | None, number: int) -> Points | None:
    """A line's embedding, if it has one."""
    return None if points is None or np.isnan(points[number]).any() else points[number]
