"""The speakers of one recording: in each chunk as it finishes, and over the whole of it.

The lines of a chunk are clustered by speaker. Each cluster is assigned to a person as soon as its
chunk is finished, by the cache and by its embedding; when the recording ends, all clusters are linked
again. The dialogue numbers speakers by order of appearance in one chunk; only this module numbers them over
the recording.
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
from .finished import ChunkSegment, FinishedChunk, Points
from .grouping import grouped
from .linking import Array, Centroids, Matrix, Trust, embedding_sums, identify, merge, reassign
from .witness import Witness

_SHORTEST_VOICE_S = 0.5
"""Shorter lines are not embedded; they join a line of the same number (assumed)."""
_PERSON_S, _PERSON_SHARE = 6.0, 0.01
"""A cluster shorter than both, in seconds and as a share of all speech, joins the most similar one
(3 and 9 s do nearly as well: the rows "strays of ..." of docs/results/linking.json)."""
_NEW_PEOPLE = 2
"""Speaker numbers of a dialogue that the cache leaves to new speakers (assumed)."""


@dataclass(frozen=True, slots=True)
class EnrolledSpeaker:
    """An enrolled speaker.

    Attributes:
        clips: float32 `[n]` at 16 kHz each.
        gender: `unknown` where the user did not say.
        doubts: a witness's warnings about the clips, one sentence each.
    """

    name: str
    clips: tuple[Samples, ...]
    gender: str = "unknown"
    doubts: tuple[str, ...] = ()


@dataclass
class _Cluster:
    """Lines of one speaker in one chunk, or the clips of an enrolled speaker.

    Attributes:
        embedding_sum: a row of `embedding_sums`; `None` without a witness.
        seconds: of speech.
        dialogue_log_odds: for one speaker, by earlier clusters of its chunk.
        cache_log_odds: for one speaker, by clusters of cached persons.
        person: the person it is assigned to; -1 before.
    """

    embedding_sum: Array | None
    seconds: float
    dialogue_log_odds: dict[int, float] = field(default_factory=dict)
    cache_log_odds: dict[int, float] = field(default_factory=dict)
    person: int = -1


@dataclass(frozen=True, slots=True)
class _LinkedLine:
    """A line of a chunk: its cluster, provisional label, number in the dialogue, duration, and embedding
    (`None` if there is none)."""

    cluster: int
    label: str
    number: int
    seconds: float
    point: Points | None


@dataclass
class _Person:
    name: str | None = None
    clusters: list[int] = field(default_factory=list)
    genders: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    embedding_sum: Array | None = None

    def add(self, number: int, cluster: _Cluster) -> None:
        self.clusters.append(number)
        if cluster.embedding_sum is not None:
            self.embedding_sum = (
                cluster.embedding_sum
                if self.embedding_sum is None
                else self.embedding_sum + cluster.embedding_sum
            )

    @property
    def gender(self) -> str:
        return vote(self.genders)[0]


class Speakers:
    """The speakers of one recording.

    Args:
        profile: of the checkpoint.
        cached: whether chunks are preceded by the speaker cache.
        rules: how its entries are chosen.
        witness: embeds lines; with `None` the dialogue alone decides.
        trust: weights and bounds of the dialogue.
        bounds: least and greatest number of speakers of the recording, if the user gave them.
        voices: enrolled speakers.
        least_s: seconds of speech that a speaker has at least; who has less joins the most similar one, until
            there is more.

    Raises:
        SettingsError: speakers are enrolled that neither a cache nor a witness could use.
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
        voices: Sequence[EnrolledSpeaker] = (),
        least_s: float = 0.0,
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
        self._least_s = least_s
        self._cache = SpeakerCache(
            rules, profile.cache_s, max(1, profile.max_speakers - _NEW_PEOPLE)
        )
        self._people: list[_Person] = []
        self._clusters: list[_Cluster] = []
        self._lines: list[list[_LinkedLine]] = []  # by chunk
        self._enrolled: list[int] = []
        self.doubts = [doubt for voice in voices for doubt in voice.doubts]
        for voice in voices:
            self._enrol(voice)

    @property
    def linked(self) -> bool:
        """Return whether speakers of different chunks are linked at all."""
        return self.cached or self.witness is not None or self._one

    @property
    def _one(self) -> bool:
        """Return whether there is but one speaker, who need not be recognised."""
        return self.bounds is not None and self.bounds[1] == 1

    def cache(self, now_s: float) -> tuple[list[CacheEntry], list[int]]:
        """Entries for a chunk that starts at `now_s`, and the person behind each number from 1."""
        genders = {i: person.gender for i, person in enumerate(self._people)}
        return self._cache.choose(now_s, genders)

    def count(self, cached: int, *, alone: bool = False) -> tuple[int, int] | None:
        """Least and greatest number of speakers in a chunk's overview.

        Args:
            cached: persons in its cache.
            alone: whether the chunk is the whole recording.
        """
        if self.bounds is None:
            return None
        low, high = self.bounds
        if not self.cached:  # speakers of earlier chunks are numbered again
            return (low if alone else 0), high
        speaking = sum(bool(set(p.clusters) - set(self._enrolled)) for p in self._people)
        return (low if alone else 0), cached + max(0 if speaking else 1, high - speaking)

    def provisional(self, number: int, people: Sequence[int]) -> str:
        """The label of a speaker number while its dialogue is under way."""
        if number <= len(people):
            return self._label(people[number - 1])
        unnamed = sum(person.name is None for person in self._people)
        return self._unnamed(unnamed + number - len(people))

    def embed(
        self,
        spoken: Sequence[ChunkSegment],
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

    def absorb(self, finished: FinishedChunk, samples: Samples, *, alone: bool = False) -> None:
        """Take the next chunk: assign its lines to persons, and offer them to the cache.

        Args:
            alone: whether the chunk is the whole recording, so that all speakers must be in it.
        """
        labels = [self.provisional(one.number, finished.people) for one in finished.spoken]
        fewest = self.bounds[0] if alone and self.bounds is not None else 1
        groups = grouped(finished, self.witness, self.trust, fewest=fewest)
        first = len(self._clusters)
        numbers: list[int] = []
        for group in range(max(groups, default=-1) + 1):
            members = [i for i, g in enumerate(groups) if g == group]
            numbers.append(_number(members, finished.spoken))
            self._clusters.append(self._cluster(members, finished))
            self._record(first + group, numbers, first, finished.people)
        for group in sorted(range(len(numbers)), key=lambda g: numbers[g]):
            self._place(first + group)
        points = finished.points
        self._lines.append(
            [
                _LinkedLine(first + group, label, one.number, one.seconds, _row(points, i))
                for i, (group, label, one) in enumerate(
                    zip(groups, labels, finished.spoken, strict=True)
                )
            ]
        )
        for i, one in enumerate(finished.spoken):
            person = self._people[self._clusters[first + groups[i]].person]
            person.genders[one.gender] += one.seconds
        if self.cached:
            self._offer(finished, groups, first, samples)

    def linked_labels(self, chunk: int) -> list[str]:
        """The label of each line of a chunk that was absorbed, as its speakers are linked so far."""
        return [self._label(self._clusters[line.cluster].person) for line in self._lines[chunk]]

    def settle(self, *, foreign: bool = False) -> tuple[list[list[str]], list[dict[str, Any]]]:
        """Link all clusters again, then reassign each line.

        Args:
            foreign: whether the checkpoint does not recognise the recording's words.

        Returns:
            The final label of every line, chunk by chunk, and the corrections of provisional labels.
        """
        if foreign:
            self.trust = replace(self.trust, least=max(self.trust.least, self.trust.foreign_least))
        groups = self._final()
        assigned = self._reassigned(groups)
        names = {
            person: self._label(self._clusters[cluster].person)
            for cluster, person in self._identified(groups, assigned).items()
        }
        people = iter(assigned)
        unnamed, labels = 0, list[list[str]]()
        for lines in self._lines:
            labels.append([])
            for person in islice(people, len(lines)):
                if person not in names:
                    unnamed += 1
                    names[person] = self._unnamed(unnamed)
                labels[-1].append(names[person])
        return labels, self._corrections(labels)

    def segments(
        self, finished: Sequence[FinishedChunk], labels: Sequence[Sequence[str]]
    ) -> tuple[list[Segment], dict[str, dict[str, Any]]]:
        """Turn all lines into segments, each with its speaker's gender by majority of seconds.

        Returns:
            The segments and, for each label, seconds of speech, gender, and that gender's share of the
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
            "voices": [self._label(self._clusters[cluster].person) for cluster in self._enrolled],
        }

    def _enrol(self, voice: EnrolledSpeaker) -> None:
        number, seconds = len(self._clusters), [len(c) / SAMPLE_RATE_HZ for c in voice.clips]
        cluster = _Cluster(None, sum(seconds), person=len(self._people))
        if self.witness is not None:
            cluster.embedding_sum = embedding_sums(
                self.witness.embed(voice.clips), seconds, elsewhere=True
            ).sum(0)
        self._clusters.append(cluster)
        person = _Person(voice.name)
        person.add(number, cluster)
        if voice.gender != "unknown":
            person.genders[voice.gender] += cluster.seconds
        self._people.append(person)
        self._enrolled.append(number)
        entries = [Candidate(0.0, clip, "", voice.gender, enrolled=True) for clip in voice.clips]
        self._cache.add(cluster.person, entries, 0.0)

    def _label(self, person: int) -> str:
        name = self._people[person].name
        if name is not None:
            return name
        return self._unnamed(1 + sum(p.name is None for p in self._people[:person]))

    def _unnamed(self, number: int) -> str:
        """The label of the n-th speaker without a name; labels that are the name of a speaker are skipped."""
        taken = {person.name for person in self._people if person.name is not None}
        labels = (f"Speaker{n}" for n in count(1))
        return next(islice((label for label in labels if label not in taken), number - 1, None))

    def _cluster(self, members: Sequence[int], finished: FinishedChunk) -> _Cluster:
        seconds = [finished.spoken[i].seconds for i in members]
        if finished.points is None:
            return _Cluster(None, sum(seconds))
        return _Cluster(embedding_sums(finished.points[members], seconds).sum(0), sum(seconds))

    def _record(
        self, cluster: int, numbers: Sequence[int], first: int, people: Sequence[int]
    ) -> None:
        """Record the dialogue's log-odds of a cluster: within its chunk, and by the cache."""
        number, mine = numbers[-1], self._clusters[cluster]
        for other, its_number in enumerate(numbers[:-1]):
            if its_number != number:
                mine.dialogue_log_odds[first + other] = -self.trust.other
        for cached, person in enumerate(people, start=1):
            sign = 1.0 if cached == number else -1.0
            sources = self._people[person].clusters
            for source in sources:  # one piece of evidence for the person, not one for each chunk
                mine.cache_log_odds[source] = sign * self.trust.cached / len(sources)
        if self.witness is None and number <= len(people):
            mine.person = people[number - 1]

    def _place(self, cluster: int) -> None:
        """Assign a cluster to the most likely person, or to a new one."""
        mine = self._clusters[cluster]
        if self.witness is not None and self._people:
            dialogue = np.zeros((2, len(self._people)), np.float32)
            for sums, log_odds in zip(
                dialogue, (mine.dialogue_log_odds, mine.cache_log_odds), strict=True
            ):
                for other, odds in log_odds.items():
                    if self._clusters[other].person >= 0:
                        sums[self._clusters[other].person] += odds
            voices = self._centroids(
                [*(person.embedding_sum for person in self._people), mine.embedding_sum]
            )
            scores = voices.odds(len(self._people))[:-1] + self.trust.bounded(dialogue)
            best = int(np.argmax(scores))
            if scores[best] > 0:
                mine.person = best
        unnamed = [i for i, person in enumerate(self._people) if person.name is None]
        if mine.person < 0 and self._one and self.witness is None and unnamed:
            mine.person = unnamed[0]
        if mine.person < 0:
            mine.person = len(self._people)
            self._people.append(_Person())
        self._people[mine.person].add(cluster, mine)

    def _offer(
        self, finished: FinishedChunk, groups: Sequence[int], first: int, samples: Samples
    ) -> None:
        """Offer lines without overlap, of certain speakers, to the cache."""
        by_person: dict[int, list[Candidate]] = {}
        for i, one in enumerate(finished.spoken):
            sure = one.confidence.speaker
            if sure is not None and sure < self._cache.rules.least_confidence:
                continue
            if one.seconds < SHORTEST_S or overlapped(one, finished.spoken):
                continue
            if one.seconds > self._cache.budget_s / 2:
                continue
            person = self._clusters[first + groups[i]].person
            clip = _cut(one.start_s, one.end_s, finished.start_samples, samples).copy()
            by_person.setdefault(person, []).append(
                Candidate(one.start_s, clip, one.text, one.gender)
            )
        for person, candidates in by_person.items():
            self._cache.add(person, candidates, finished.end_s)

    def _final(self) -> list[int]:
        """Number the final cluster of every chunk's cluster."""
        if self.witness is None:
            return [cluster.person for cluster in self._clusters]
        seconds = [cluster.seconds for cluster in self._clusters]
        spoken_s = sum(seconds) - sum(seconds[cluster] for cluster in self._enrolled)

        return merge(
            self._centroids([cluster.embedding_sum for cluster in self._clusters]),
            self._dialogue_log_odds(),
            seconds,
            trust=self.trust,
            fewest=1 if self.bounds is None else self.bounds[0],
            highest=None if self.bounds is None else self.bounds[1],
            enrolled=self._enrolled,
            least=max(self._least_s, min(_PERSON_S, _PERSON_SHARE * spoken_s)),
        )

    def _centroids(self, rows: Sequence[Array | None]) -> Centroids:
        """Centroids of rows of which some may be unknown."""
        assert self.witness is not None
        width = next((len(row) for row in rows if row is not None), 2)
        known = np.zeros((len(rows), width))
        for i, row in enumerate(rows):
            if row is not None:
                known[i] = row
        return Centroids(known, self.witness)

    def _dialogue_log_odds(self) -> Matrix:
        """The dialogues' log-odds of every two clusters `[1 or 2, n, n]`; see `Trust.bounded`."""
        tables = np.zeros((1 + self.cached, len(self._clusters), len(self._clusters)), np.float32)
        for i, cluster in enumerate(self._clusters):
            rows = (cluster.dialogue_log_odds, cluster.cache_log_odds)
            for table, row in zip(tables, rows, strict=False):
                for other, odds in row.items():
                    table[i, other] = table[other, i] = odds
        return tables

    def _reassigned(self, groups: Sequence[int]) -> list[int]:
        """Reassign every line; the final cluster of each, chunk after chunk."""
        every, trust = [line for lines in self._lines for line in lines], self.trust
        people = [groups[line.cluster] for line in every]
        width = next((len(line.point) for line in every if line.point is not None), 0)
        if self.witness is None or not width:
            return people
        points = np.full((len(every), width), np.nan, np.float32)
        dialogue: list[dict[int, float]] = []
        for lines in self._lines:
            first = len(dialogue)
            for i, line in enumerate(lines):
                if line.point is not None:
                    points[first + i] = line.point
                dialogue.append(
                    {
                        first + j: trust.same if line.number == other.number else -trust.other
                        for j, other in enumerate(lines)
                        if j != i
                    }
                )
        seconds = [line.seconds for line in every]
        return reassign(people, points, seconds, dialogue, self.witness, trust)

    def _identified(self, groups: Sequence[int], people: Sequence[int]) -> dict[int, int]:
        """Match enrolled speakers to final clusters; cluster by enrolled speaker."""
        if self.witness is None:
            return {cluster: groups[cluster] for cluster in self._enrolled}
        everybody = sorted(set(people))
        rows: list[Array | None] = [
            self._clusters[cluster].embedding_sum for cluster in self._enrolled
        ]
        rows += [None] * len(everybody)
        clips = len(self._enrolled)
        for line, person in zip((li for lines in self._lines for li in lines), people, strict=True):
            if line.point is not None:
                row = embedding_sums(line.point[None], [line.seconds])[0]
                place = clips + everybody.index(person)
                rows[place] = row if rows[place] is None else rows[place] + row
        dialogue = np.zeros((1 + self.cached, len(rows), len(rows)), np.float32)
        for cluster, group in zip(self._clusters, groups, strict=True):
            if group in everybody:
                place = clips + everybody.index(group)
                for clip, source in enumerate(self._enrolled):
                    dialogue[-1, clip, place] += cluster.cache_log_odds.get(source, 0.0)
        matches = identify(
            self._centroids(rows), dialogue, range(clips), range(clips, len(rows)), self.trust
        )
        return {self._enrolled[clip]: everybody[place - clips] for clip, place in matches.items()}

    def _corrections(self, labels: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """List where final labels differ from the provisional ones."""
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
    """The gender of most seconds, and its share of them; `unknown` only if there is no other."""
    known = {gender: value for gender, value in seconds.items() if gender != "unknown"}
    if not known:
        return "unknown", 0.0
    best = max(sorted(known), key=lambda gender: known[gender])
    return best, known[best] / (sum(known.values()) or 1.0)


def _number(members: Sequence[int], spoken: Sequence[ChunkSegment]) -> int:
    """The speaker number of most of a cluster's seconds."""
    seconds: dict[int, float] = defaultdict(float)
    for i in members:
        seconds[spoken[i].number] += spoken[i].seconds
    return max(sorted(seconds), key=lambda number: seconds[number])


def _cut(start_s: float, end_s: float, offset: int, samples: Samples) -> Samples:
    """A stretch of the recording, out of samples that start at sample `offset`."""
    first = round(start_s * SAMPLE_RATE_HZ) - offset
    return samples[max(0, first) : round(end_s * SAMPLE_RATE_HZ) - offset]


def _row(points: Points | None, number: int) -> Points | None:
    """A line's embedding, if it has one."""
    return None if points is None or np.isnan(points[number]).any() else points[number]
