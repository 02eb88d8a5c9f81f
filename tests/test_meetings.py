"""Whole meetings: linking by cache and voice, names, hints, coverage, resumption."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.audio import SAMPLE_RATE_HZ, Samples
from speaker_reasoner.engines import Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import AudioError, OutputError, SettingsError
from speaker_reasoner.longform import Transcriber
from speaker_reasoner.longform.journal import Journal
from speaker_reasoner.protocol import Box, Line, Overview, Profile, Turn, render_turn
from speaker_reasoner.reasoner import ask
from speaker_reasoner.spans import alone
from speaker_reasoner.transcript import Missing, Segment, Transcript
from speaker_reasoner.voices.cache import CacheRules, Candidate, SpeakerCache
from speaker_reasoner.voices.finished import ChunkSegment, FinishedChunk
from speaker_reasoner.voices.linking import (
    Centroids,
    Trust,
    embedding_sums,
    identify,
    merge,
    reassign,
)
from speaker_reasoner.voices.people import EnrolledSpeaker, Speakers, vote
from speaker_reasoner.voices.witness import Scatter, log_odds

from .talk import Killed, Mortal, save, untimed

CACHED = Profile(decimals=1, chunk_s=6.0, max_speakers=6, cache_s=12.0)
PLAIN = Profile(decimals=1, chunk_s=6.0, max_speakers=6)


def tone(hertz: float, seconds: float, level: float = 0.3) -> Samples:
    at = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (level * np.sin(2 * np.pi * hertz * at)).astype(np.float32)


class Pitch:
    """A witness for tones: everybody hums at one pitch."""

    name, threshold, elsewhere, scale, settle_s = "pitch", 0.5, 0.5, 10.0, 0.01
    scatter: Scatter | None = None

    def embed(self, clips: Sequence[Samples]) -> Any:
        points = np.zeros((len(clips), 40), np.float32)
        for row, clip in zip(points, clips, strict=True):
            row[int(np.argmax(np.abs(np.fft.rfft(clip[:8_000]))) * 2 // 50)] = 1.0
        return points


def talk(*turns: tuple[float, float]) -> Samples:
    """Tones of a pitch and a length, 0.3 s apart; a gap of 1 s after each whole chunk's worth."""
    gap = np.zeros(round(0.3 * SAMPLE_RATE_HZ), np.float32)
    return np.concatenate([part for pitch, length in turns for part in (tone(pitch, length), gap)])


def spans(samples: Samples) -> list[tuple[int, int, int]]:
    """Tones in ticks of 0.1 s, and their pitch in hertz."""
    loud = np.abs(samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)).max(1) > 0.05
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    rows = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if last - first < 3:
            continue
        clip = samples[first * 1600 : last * 1600]
        middle = clip[len(clip) // 3 : len(clip) // 3 + 1600]
        rows.append((int(first), int(last), int(np.argmax(np.abs(np.fft.rfft(middle))) * 10)))
    return rows


class Humming:
    """Plays the dialogue of a perfect model over tones; it knows cached people by their pitch.

    Attributes:
        blind: whether it takes every cached person for somebody else.
        deaf: chunks in which it passes over the second tone.
    """

    def __init__(self, blind: bool = False, deaf: bool = False) -> None:
        self.blind, self.deaf = blind, deaf
        self.caches: list[int] = []

    def __call__(self, request: Request) -> str:
        memory, rules = request.session.memory, request.rules
        if "rows" not in memory:
            rows = spans(request.session.samples)
            known = [spans(np.pad(clip, (0, 1600)))[0][2] for clip in request.session.cached]
            self.caches.append(len(known))
            numbers: dict[int, int] = {}
            for pitch in known:
                numbers.setdefault(-pitch if self.blind else pitch, len(numbers) + 1)
            for *_, pitch in rows:
                numbers.setdefault(pitch, len(numbers) + 1)
            memory["numbers"], memory["rows"] = numbers, rows
        numbers, rows = memory["numbers"], memory["rows"]
        noticed = rows[:1] + rows[2:] if self.deaf and len(rows) > 1 else rows
        gender = {n: "female" if abs(p) > 500 else "male" for p, n in numbers.items()}
        gender |= dict(enumerate(rules.cached, start=1))
        if rules.turn == 0:
            overview = Overview(tuple(gender[n] for n in sorted(gender)))
            box = Box(*noticed[0][:2]) if noticed else None
            text = render_turn(Turn(overview=overview, box=box), request.rules.profile)
            return text if box else text + "<answer>"
        assert rules.box is not None
        inside = [r for r in rows if r[0] < rules.box.end and rules.box.start < r[1]][:1]
        lines = tuple(
            Line(
                numbers[p],
                gender[numbers[p]],
                max(a, rules.box.start),
                min(b, rules.box.end),
                f"hum {p}",
            )
            for a, b, p in inside
        )
        later = [r for r in noticed if r[0] > rules.box.start and r[1] > rules.box.end]
        box = None if rules.last or not later else Box(*later[0][:2])
        text = render_turn(Turn(lines=lines, box=box), request.rules.profile)
        return text if box else text + "<answer>"


def tones(samples: Samples) -> list[tuple[float, float]]:
    return [(a / 10, b / 10) for a, b, _ in spans(samples)]


MEETING = talk(*[(300, 1.5), (700, 1.6), (300, 1.2), (1000, 1.5), (700, 1.1)] * 4)


def transcribe(
    path: Path, play: Any = None, profile: Profile = CACHED, **options: Any
) -> Transcript:
    given = {k: options.pop(k) for k in ("speakers", "voices", "journal") if k in options}
    engine = ScriptedEngine(play or Humming(), profile)
    return Transcriber(engine, **{"detect": tones, **options}).transcribe(path, **given)


def people(result: Transcript) -> dict[str, set[str]]:
    """What each label hums."""
    texts: dict[str, set[str]] = {}
    for segment in result.segments:
        texts.setdefault(segment.speaker, set()).add(segment.text)
    return texts


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    return save(tmp_path / "meeting.wav", MEETING)


# Linking


def test_the_cache_carries_labels_over_chunks(meeting: Path) -> None:
    play = Humming()
    result = transcribe(meeting, play)
    assert len(result.traces) > 3 and play.caches[0] == 0 and max(play.caches) > 2
    assert people(result) == {
        "Speaker1": {"hum 300"},
        "Speaker2": {"hum 700"},
        "Speaker3": {"hum 1000"},
    }
    assert not result.warnings and not result.info["corrections"]
    clips = [part for part in result.traces[1]["parts"] if part.get("clip")]
    assert clips, "the trace shows the cached clips"


def test_without_cache_and_witness_nobody_is_linked(meeting: Path) -> None:
    result = transcribe(meeting, profile=PLAIN)
    assert len(people(result)) > 6
    assert any("not linked" in warning for warning in result.warnings)


@pytest.mark.parametrize("scatter", [None, Scatter(spread=0.5, noise=0.1)])
def test_the_witness_links_what_never_saw_a_cache(meeting: Path, scatter: Scatter | None) -> None:
    witness = Pitch()
    witness.scatter = scatter
    result = transcribe(meeting, profile=PLAIN, witness=witness)
    assert sorted(map(sorted, people(result).values())) == [["hum 1000"], ["hum 300"], ["hum 700"]]
    assert not result.warnings


def test_the_profile_says_whether_the_cache_is_heard(meeting: Path) -> None:
    """Where it says no, the cache still links what no witness does, and who asks for it gets it."""
    shy = replace(CACHED, cache_by_default=False)
    for options, hears in (
        ({"witness": Pitch()}, False),
        ({"witness": Pitch(), "cached": True}, True),
        ({"witness": None}, True),
    ):
        play = Humming()
        result = transcribe(meeting, play, profile=shy, **options)
        assert bool(max(play.caches)) == hears == result.info["speaker_cache"], options
        assert len(people(result)) == 3


def test_the_witness_corrects_the_cache(meeting: Path) -> None:
    """A model that never recognises anybody is overruled, and that is recorded."""
    alone = transcribe(meeting, Humming(blind=True))
    assert len(people(alone)) > 3
    both = transcribe(meeting, Humming(blind=True), witness=Pitch())
    assert len(people(both)) == 3 and both.info["witness"] == "pitch"


def test_labels_count_by_first_appearance(meeting: Path) -> None:
    result = transcribe(meeting, Humming(blind=True), witness=Pitch())
    assert list(result.speakers) == ["Speaker1", "Speaker2", "Speaker3"]


def test_genders_are_voted_for(meeting: Path) -> None:
    assert transcribe(meeting).genders == {
        "Speaker1": "male",
        "Speaker2": "female",
        "Speaker3": "female",
    }
    assert vote({"female": 2.0, "male": 1.0, "unknown": 9.0}) == ("female", pytest.approx(2 / 3))
    assert vote({"unknown": 1.0}) == ("unknown", 0.0)


# Names and hints


@pytest.mark.parametrize("profile", [CACHED, PLAIN])
def test_enrolled_voices_carry_their_names(meeting: Path, profile: Profile) -> None:
    voices = [EnrolledSpeaker("Ana", (tone(700, 3.0),)), EnrolledSpeaker("Bo", (tone(450, 3.0),))]
    result = transcribe(meeting, profile=profile, witness=Pitch(), voices=voices)
    assert people(result) == {"Speaker1": {"hum 300"}, "Ana": {"hum 700"}, "Speaker2": {"hum 1000"}}
    assert result.info["voices"] == ["Ana", "Bo"]


def test_names_need_a_cache_or_a_witness(meeting: Path) -> None:
    with pytest.raises(SettingsError, match="witness"):
        transcribe(meeting, profile=PLAIN, voices=[EnrolledSpeaker("Ana", (tone(700, 3.0),))])


def test_a_cache_is_refused_where_none_was_learned(meeting: Path) -> None:
    with pytest.raises(SettingsError, match="never trained"):
        transcribe(meeting, profile=PLAIN, cached=True)


def test_the_most_speakers_are_enforced(meeting: Path) -> None:
    result = transcribe(meeting, profile=PLAIN, witness=Pitch(), speakers=(1, 2))
    assert len(people(result)) == 2 and result.info["speakers_given"] == [1, 2]


def test_the_fewest_are_told_to_a_recording_of_one_chunk(tmp_path: Path) -> None:
    path = save(tmp_path / "short.wav", talk((300, 1.0), (700, 1.0)))
    engine = ScriptedEngine(Humming(), CACHED)
    Transcriber(engine, detect=None).transcribe(path, speakers=(2, 3))
    assert engine.requests[0].rules.count == (2, 3)
    with pytest.raises(SettingsError, match="3-2"):
        Transcriber(engine, detect=None).transcribe(path, speakers=(3, 2))


@pytest.mark.parametrize("scatter", [None, Scatter(0.3, 0.1)])
def test_the_fewest_hold_within_the_only_chunk_though_voices_are_alike(
    tmp_path: Path, scatter: Scatter | None
) -> None:
    path = save(tmp_path / "alike.wav", talk((300, 1.0), (310, 1.0), (300, 1.0)))
    witness = Pitch()
    witness.scatter = scatter

    def labels(speakers: tuple[int, int] | None) -> list[str]:
        transcriber = Transcriber(ScriptedEngine(Humming(), PLAIN), detect=None, witness=witness)
        return [s.speaker for s in transcriber.transcribe(path, speakers=speakers).segments]

    assert len(set(labels(None))) == 1
    assert len(set(labels((2, 2)))) == 2
    assert len(set(labels((2, 3)))) == 2


# Coverage


def test_what_was_passed_over_is_heard_again(meeting: Path) -> None:
    careless = transcribe(meeting, Humming(deaf=True), detect=None)
    checked = transcribe(meeting, Humming(deaf=True))
    assert len(careless.segments) < len(checked.segments) == len(transcribe(meeting).segments)
    assert checked.info["insisted"] > 0 and not checked.missing
    assert any("insisted" in trace for trace in checked.traces)


def test_speech_that_stays_unheard_is_missing(meeting: Path) -> None:
    def play(request: Request) -> str:
        turn = "<think>\n</think>" if request.rules.turn else "<think>\n0 speakers\n</think>"
        return turn + "<answer>"

    result = transcribe(meeting, play, profile=PLAIN)
    assert not result.segments
    spoken = sum(b - a for a, b in tones(MEETING))
    assert sum(m.end_s - m.start_s for m in result.missing) == pytest.approx(spoken, abs=3)
    assert all("heard again" in m.reason for m in result.missing)


def test_no_text_on_silence(tmp_path: Path) -> None:
    samples = np.concatenate([tone(300, 1.5), np.zeros(40_000, np.float32), tone(300, 0.05)])
    path = save(tmp_path / "still.wav", samples)

    def play(request: Request) -> str:
        if request.rules.turn == 0:
            turn = Turn(overview=Overview(("male",)), box=Box(0, request.rules.chunk))
            return render_turn(turn, PLAIN)
        lines = (Line(1, "male", 0, 15, "hum"), Line(1, "male", 20, 30, "thank you for watching"))
        return render_turn(Turn(lines=lines), PLAIN) + "<answer>"

    result = transcribe(path, play, profile=PLAIN)
    assert [s.text for s in result.segments] == ["hum"]
    assert result.info["silent_dropped"] == 1
    assert result.warnings == ("1 line was left out: no speech was detected during the time given",)


# Cache


def candidate(start_s: float, seconds: float, enrolled: bool = False) -> Candidate:
    clip = np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)
    return Candidate(start_s, clip, f"{start_s:g}", "female", enrolled)


def test_phi_weighs_duration_and_recency() -> None:
    old, new = candidate(0.0, 2.0), candidate(90.0, 1.5)
    assert old.score(100.0, 0.0) > new.score(100.0, 0.0)
    assert new.score(100.0, 1.0) == pytest.approx(1.5 * 1.9)
    assert new.score(100.0, 1.0) > old.score(100.0, 1.0)


def test_everybody_has_an_entry_before_anybody_has_two() -> None:
    cache = SpeakerCache(CacheRules(entries=2), budget_s=5.0, most=4)
    for person in range(3):
        cache.add(person, [candidate(person * 10.0, 1.5), candidate(person * 10 + 5.0, 1.4)], 40.0)
    entries, who = cache.choose(40.0, dict.fromkeys(range(3), "female"))
    assert who == [0, 1, 2] and [e.speaker for e in entries] == [1, 2, 3]
    assert sum(len(e.samples) for e in entries) <= 5 * SAMPLE_RATE_HZ
    few = SpeakerCache(CacheRules(), budget_s=20.0, most=2)
    for person in range(3):
        few.add(person, [candidate(person * 10.0, 1.0)], 40.0)
    assert few.choose(40.0, dict.fromkeys(range(3), "male"))[1] == [1, 2]  # those heard last


def test_memory_does_not_grow_and_enrolled_clips_stay() -> None:
    cache = SpeakerCache(CacheRules(), budget_s=20.0, most=4)
    cache.add(0, [candidate(0.0, 0.7, enrolled=True)], 0.0)
    for i in range(100):
        cache.add(0, [candidate(float(i), 2.0)], float(i))
        cache.add(i + 1, [candidate(float(i), 2.0)], float(i))
    held = cache._candidates[0]
    assert len(held) <= 6 and held[0].enrolled
    assert set(cache._candidates) == {0, *range(77, 101)}  # who was heard last, and who is enrolled


# Linking arithmetic

EVEN = Trust(least=-6.0, most=6.0)


def unheard(count: int) -> Centroids:
    return Centroids(np.zeros((count, 4)), Pitch())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 99))
def test_merge_finds_what_is_clear(count: int, people_count: int, seed: int) -> None:
    rng = random.Random(seed)
    who = [rng.randrange(people_count) for _ in range(count)]
    same = np.array([[a == b for b in who] for a in who])
    groups = merge(unheard(count), np.where(same, 3.0, -3.0)[None], [1.0] * count, trust=EVEN)
    for i in range(count):
        for j in range(count):
            assert (groups[i] == groups[j]) == (who[i] == who[j])
    assert [g for i, g in enumerate(groups) if g not in groups[:i]] == sorted(set(groups))


def voiced(counts: list[int], spread: float = 0.25, seed: int = 0) -> tuple[Any, list[int]]:
    """Points around as many centres, and whose they are."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    whose = [person for person, count in enumerate(counts) for _ in range(count)]
    points = centres[whose] + spread * rng.standard_normal((len(whose), 16)) / 4
    return points / np.linalg.norm(points, axis=1, keepdims=True), whose


def by_voice(points: Any, seconds: list[float], threshold: float, **bounds: Any) -> list[int]:
    witness = Pitch()
    witness.threshold = threshold
    voices = Centroids(embedding_sums(points, seconds), witness)
    return merge(voices, np.zeros((1, len(points), len(points))), seconds, trust=EVEN, **bounds)


def same_groups(one: Any, other: Any) -> bool:
    pairs = set(zip(one, other, strict=True))
    return len(pairs) == len(set(one)) == len(set(other))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 25), threshold=st.floats(-0.5, 0.9))
def test_merge_by_voice_alone_weighs_what_is_merged_as_one(
    seed: int, count: int, threshold: float
) -> None:
    points, _ = voiced([count], spread=4.0, seed=seed)
    seconds = np.random.default_rng(seed).uniform(0.5, 9.0, count)
    groups = [[i] for i in range(count)]

    def odds(one: list[int], other: list[int]) -> float:
        first, second = (seconds[own] @ points[own] for own in (one, other))
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        spoken = (seconds[own].sum() for own in (one, other))
        said: float = log_odds(cosine, *spoken, threshold=threshold, scale=10.0, settle_s=0.01)
        return said

    while len(groups) > 1:
        one, other = max(combinations(groups, 2), key=lambda pair: odds(*pair))
        if odds(one, other) <= 0:
            break
        groups = [g for g in groups if g not in (one, other)] + [one + other]
    expected = [next(i for i, group in enumerate(groups) if k in group) for k in range(count)]
    assert same_groups(by_voice(points, list(seconds), threshold), expected)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), high=st.integers(1, 6))
def test_merge_beyond_the_bound_is_wards(seed: int, high: int) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    points, _ = voiced([4, 3, 5, 6], spread=2.0, seed=seed)
    tree = hierarchy.linkage(points, "ward")
    expected = hierarchy.fcluster(tree, high, "maxclust")
    assert same_groups(by_voice(points, [2.0] * 18, 2.0, highest=high), expected)


def test_a_stray_second_goes_before_a_person_does() -> None:
    points, whose = voiced([6, 6])
    stray = np.concatenate([points, -points[:1]])
    assert by_voice(stray, [3.0] * 12 + [0.5], 0.5, highest=2)[:12] == whose


@pytest.mark.slow
def test_units_of_a_day() -> None:
    """Four hours make about 2,000 units."""
    points, whose = voiced([400] * 5, spread=0.5)
    clock = time.process_time()
    assert by_voice(points, [2.0] * 2000, 0.3, highest=5) == whose
    assert time.process_time() - clock < 60


def test_merge_keeps_to_bounds_and_bans() -> None:
    def merged(odds: float, **bounds: Any) -> list[int]:
        return merge(unheard(4), np.full((1, 4, 4), odds), [1.0] * 4, trust=EVEN, **bounds)

    assert len(set(merged(-1.0))) == 4
    assert len(set(merged(-1.0, highest=2))) == 2
    assert len(set(merged(1.0, fewest=3))) == 3
    assert merged(1.0, enrolled=[0, 1]) == [0, 1, 2, 2]
    assert merge(unheard(0), np.zeros((1, 0, 0)), [], trust=EVEN) == []


def test_the_more_is_heard_the_more_is_asked_and_the_surer_it_is() -> None:
    points = np.array([[1.0, 0.0], [0.6, 0.8], [np.nan, np.nan]])
    witness = Pitch()
    witness.threshold, witness.elsewhere, witness.settle_s = 0.8, 0.4, 1.0

    def odds(seconds: float, elsewhere: bool = False) -> Any:
        rows = embedding_sums(points, [seconds, seconds, 5.0], elsewhere=elsewhere)
        voices = Centroids(rows, witness)
        assert not voices.odds(2).any() and not any(voices.odds(i)[2] for i in range(3))
        assert voices.odds(0)[1] == pytest.approx(voices.odds(1)[0])
        return voices.odds(0)[1]

    assert odds(1e9) == pytest.approx(10.0 * (0.6 - 0.8))
    assert odds(1e9, elsewhere=True) == pytest.approx(10.0 * (0.6 - 0.4))
    assert odds(3.0) == pytest.approx(0.0, abs=1e-6)  # 0.6 against 0.8 / (1 + 1 / 3)
    assert odds(1e9) < odds(10.0) < 0 < odds(2.0) < odds(1.5)
    assert odds(1e-3) == pytest.approx(
        10.0 * 0.2 / 1.2 * 0.6, rel=0.01
    )  # what a cosine says at least


def test_strays_go_to_whom_they_are_likest() -> None:
    points, whose = voiced([4, 4], spread=0.05)
    stray = np.concatenate([points, [0.9 * points[0] + 0.6 * points[5]]])
    stray /= np.linalg.norm(stray, axis=1, keepdims=True)
    seconds = [3.0] * 8 + [0.8]
    assert by_voice(stray, seconds, 0.95) == [*whose, 2]
    assert by_voice(stray, seconds, 0.95, least=2.0) == [*whose, 0]
    clip = np.concatenate([stray, stray[8:]])
    enrolled = by_voice(clip, [*seconds, 5.0], 0.95, least=2.0, enrolled=[9])
    assert enrolled == [*whose, 2, 3]  # however little an enrolled person says


def test_a_clip_names_the_one_person_who_is_likest() -> None:
    points, whose = voiced([4, 4, 4], spread=0.05)
    between = 0.8 * points[0] + 0.6 * points[4]
    clips = np.stack([between, 0.9 * points[4] + 0.4 * points[8], points[0] - points[4]])
    both = np.concatenate([points, clips / np.linalg.norm(clips, axis=1, keepdims=True)])
    seconds, enrolled = [3.0] * 12 + [60.0] * 3, [12, 13, 14]
    assert by_voice(both, seconds, 0.5, enrolled=enrolled) == [*whose, 3, 4, 5]  # as without clips
    fewer = by_voice(both, seconds, 0.5, enrolled=enrolled, highest=2)
    assert len(set(fewer[:12])) == 2 and fewer[0] != fewer[4]  # both are named
    people = np.stack([points[0], points[4], points[8], *both[12:]])
    voices = Centroids(embedding_sums(people, [12.0] * 3 + [60.0] * 3), Pitch())
    named = identify(voices, np.zeros((1, 6, 6)), [3, 4, 5], [0, 1, 2], EVEN)
    assert named == {3: 0, 4: 1}  # nobody's voice is the last one


def test_dialogues_and_voices_add_up() -> None:
    """Voices that are even leave it to the dialogue; clear ones overrule it."""
    votes = np.array([[[0.0, -3.0], [-3.0, 0.0]]])
    for cosine, groups in ((0.5, 2), (0.7, 2), (0.9, 1)):  # log-odds of 0, 2 and 4
        points = np.array([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])
        voices = Centroids(embedding_sums(points, [1e9, 1e9]), Pitch())
        assert len(set(merge(voices, votes.copy(), [1.0, 1.0], trust=EVEN))) == groups
    assert Trust().most >= Trust().same


def test_not_being_recognised_again_and_again_is_one_mistake() -> None:
    """What is said of cached people has bounds of its own, beside that of a chunk's numbers."""
    trust = Trust()
    numbers, cached = np.array([-40.0, 0.0, 40.0]), np.array([0.0, -40.0, 40.0])
    assert list(trust.bounded(numbers[None])) == [trust.least, 0.0, trust.most]
    assert list(trust.bounded(np.stack([numbers, cached]))) == [
        trust.least,
        trust.cached_least,
        trust.most + trust.cached_most,
    ]
    points = np.array([[1.0, 0.0], [0.9, 0.19**0.5]])  # log-odds of 4 that they are one voice
    votes = np.zeros((2, 2, 2))
    for source, groups in ((0, 2), (1, 1)):
        repeated = votes.copy()
        repeated[source, [0, 1], [1, 0]] = -40.0
        voices = Centroids(embedding_sums(points, [1e9, 1e9]), Pitch())
        assert len(set(merge(voices, repeated, [1.0, 1.0], trust=trust))) == groups


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), wrong=st.integers(0, 6))
def test_lines_go_to_whose_voice_they_are(seed: int, wrong: int) -> None:
    points, whose = voiced([8, 8, 8], seed=seed)
    rng = random.Random(seed)
    people = list(whose)
    for i in rng.sample(range(len(people)), wrong):
        people[i] = rng.randrange(3)
    nothing: list[dict[int, float]] = [{} for _ in people]
    assert reassign(people, points, [2.0] * 24, nothing, Pitch(), EVEN) == whose


def test_what_keeps_a_line_where_it_is() -> None:
    points, whose = voiced([4, 4], spread=0.05)
    people, seconds = [*whose[:-1], 0], [2.0] * 8

    def again(
        people: list[int], points: Any, votes: Mapping[int, Mapping[int, float]]
    ) -> list[int]:
        every = [votes.get(i, {}) for i in range(len(people))]
        return reassign(people, points, seconds[: len(people)], every, Pitch(), Trust(least=-50.0))

    assert again(people, points, {}) == whose
    assert again(people, points, {7: {4: -50.0}}) == people  # the dialogue, if it may say so much
    unheard = points.copy()
    unheard[7] = np.nan
    assert again(people, unheard, {}) == people  # no voice
    points[4] = 0.9 * points[0] + 0.4 * points[5]
    points[4] /= np.linalg.norm(points[4])
    last = [0, 0, 0, 0, 1]
    assert again(last, points[:5], {}) == last  # it is all that person 1 says
    assert again([], points[:0], {}) == []


def test_a_line_under_a_wrong_number_is_found_at_the_end() -> None:
    """Half a chunk is too little to tell; the whole recording is not."""
    profile = replace(PLAIN, chunk_s=30.0)
    points, _ = voiced([8, 8], spread=0.05)
    mixed = 0.8 * points[0] + 0.65 * points[8]
    mixed /= np.linalg.norm(mixed)
    witness = Pitch()
    witness.settle_s, witness.scale = 0.1, 40.0
    people = Speakers(profile, cached=False, rules=CacheRules(), witness=witness, trust=Trust())
    rows = [[points[0], points[1]], [points[8], mixed], [points[9], points[10]], [points[2]]]
    for chunk, row in enumerate(rows):
        spoken = tuple(
            ChunkSegment(1, "male", 30.0 * chunk + 5 * i, 30.0 * chunk + 5 * i + 1.0, "x")
            for i in range(len(row))
        )
        start, samples = chunk * 30 * SAMPLE_RATE_HZ, 30 * SAMPLE_RATE_HZ
        finished = FinishedChunk(start, samples, spoken=spoken, points=np.array(row, np.float32))
        people.absorb(finished, np.zeros(samples, np.float32))
    labels, corrections = people.settle()
    one, two = "Speaker1", "Speaker2"
    assert labels == [[one, one], [two, one], [two, two], [one]]
    assert {"chunk": 1, "line": 1, "from": two, "to": one} in corrections


def test_a_speaker_of_a_live_session_has_said_something(monkeypatch: Any) -> None:
    """Who has spoken for less than two seconds is taken for another one; who says more is somebody again."""
    points, _ = voiced([8, 8], spread=0.05)
    witness = Pitch()
    witness.settle_s, witness.scale = 0.1, 40.0
    transcriber = Transcriber(
        ScriptedEngine(Humming(), replace(PLAIN, chunk_s=30.0)), witness=witness, detect=None
    )
    live = transcriber.listen("live", iter(()))
    whole = transcriber.open("no-file.wav", samples=np.zeros(16_000, np.float32))

    def absorb(chunk: int, point: Any, seconds: float) -> list[list[str]]:
        start, samples = chunk * 30 * SAMPLE_RATE_HZ, 30 * SAMPLE_RATE_HZ
        spoken = (ChunkSegment(1, "male", 30.0 * chunk, 30.0 * chunk + seconds, "x"),)
        row = np.array([point], np.float32)
        labels = []
        for people in (live.speakers, whole.speakers):
            people.absorb(
                FinishedChunk(start, samples, spoken=spoken, points=row),
                np.zeros(samples, np.float32),
            )
            labels.append([label for rows in people.settle()[0] for label in rows])
        return labels

    one, two = "Speaker1", "Speaker2"
    absorb(0, points[0], 5.0)
    assert absorb(1, points[8], 1.5) == [[one, one], [one, two]]
    assert absorb(2, points[9], 1.0) == [[one, two, two]] * 2


@pytest.mark.parametrize("foreign", [False, True])
def test_a_dialogue_that_is_lost_says_little_against_one_person(foreign: bool) -> None:
    """One voice under two numbers in every chunk: two people, unless the checkpoint knows no word."""
    points, _ = voiced([8], spread=0.05)
    witness = Pitch()
    witness.settle_s, witness.scale, witness.threshold = 0.1, 3.5, 0.5
    profile = replace(PLAIN, chunk_s=30.0)
    people = Speakers(profile, cached=False, rules=CacheRules(), witness=witness, trust=Trust())
    for chunk in range(4):
        first_s, samples = 30.0 * chunk, 30 * SAMPLE_RATE_HZ
        spoken = tuple(
            ChunkSegment(1 + i, "male", first_s + 10 * i, first_s + 10 * i + 9, "x")
            for i in range(2)
        )
        row = np.array(points[2 * chunk : 2 * chunk + 2], np.float32)
        finished = FinishedChunk(chunk * samples, samples, spoken=spoken, points=row)
        people.absorb(finished, np.zeros(samples, np.float32))
    labels, _ = people.settle(foreign=foreign)
    assert len({label for row in labels for label in row}) == (1 if foreign else 2)


# Resumption


@pytest.mark.parametrize("kills", [range(4), pytest.param(range(4, 20), marks=pytest.mark.slow)])
def test_killed_and_resumed_is_the_same(meeting: Path, tmp_path: Path, kills: range) -> None:
    whole = untimed(transcribe(meeting, witness=Pitch()))
    for kill in kills:
        rng = random.Random(kill)
        journal = tmp_path / f"{kill}.journal"
        result = None
        for _ in range(100):
            transcriber = Transcriber(
                Mortal(rng.randint(4, 12), Humming(), CACHED), witness=Pitch(), detect=tones
            )
            try:
                result = transcriber.transcribe(meeting, journal=journal)
                break
            except Killed:
                if journal.exists() and rng.random() < 0.5:  # a kill in the middle of writing
                    data = journal.read_bytes()
                    journal.write_bytes(data[: len(data) - rng.randint(1, 60)])
        assert result is not None and untimed(result) == whole
        assert journal.exists()


def test_a_journal_spares_the_work(meeting: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    transcribe(meeting, journal=journal)
    engine = ScriptedEngine(Humming(), CACHED)
    Transcriber(engine, detect=tones).transcribe(meeting, journal=journal)
    assert engine.requests == []


def test_journals_about_something_else_are_refused(meeting: Path, tmp_path: Path) -> None:
    journal = tmp_path / "j"
    transcribe(meeting, journal=journal)
    with pytest.raises(OutputError, match=r"another settings.*delete it"):
        transcribe(meeting, journal=journal, witness=Pitch())
    other = save(tmp_path / "other.wav", MEETING[: 20 * SAMPLE_RATE_HZ])
    with pytest.raises(OutputError, match="another file"):
        transcribe(other, journal=journal)
    journal.write_text("no journal\n")
    with pytest.raises(OutputError, match="no journal"):
        transcribe(meeting, journal=journal)


def test_a_full_disk_keeps_what_is_there(meeting: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "absent" / "j", {"file": "x"})
    (tmp_path / "absent").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write the journal"):
        journal.add(FinishedChunk(0, 16_000))


def test_a_file_that_changes_midway(meeting: Path) -> None:
    def touch(request: Request) -> str:
        meeting.write_bytes(meeting.read_bytes()[:-2000])
        return Humming()(request)

    with pytest.raises(AudioError):
        transcribe(meeting, touch)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.booleans(), st.integers(0, 9))
def test_finished_chunks_survive_the_journal(lines: int, points: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spoken = tuple(
        ChunkSegment(i + 1, "female", i * 0.1, i + 0.7, "ça va\u2028") for i in range(lines)
    )
    table = rng.standard_normal((lines, 3)).astype(np.float32) if points else None
    if table is not None and lines:
        table[0] = np.nan
    levels_db = tuple(-20.25 - i for i in range(lines)) if points else ()
    missing = (Missing(0.1, 0.3, "why"),)
    one = FinishedChunk(
        5,
        16_000,
        spoken,
        table,
        levels_db,
        people=(3, 1),
        language=("fr", 0.75),
        left_out={"noise": 2},
        missing=missing,
        stop="answered",
        trace={"a": [1]},
    )
    back = FinishedChunk.from_json(json.loads(json.dumps(one.to_json())))
    assert back.to_json() == one.to_json() and back.spoken == one.spoken and back.people == (3, 1)
    assert (back.levels_db, back.missing) == (levels_db, missing)
    assert (back.language, back.left_out) == (("fr", 0.75), {"noise": 2})
    if table is not None:
        assert back.points is not None and back.points.tobytes() == table.tobytes()


# Listening again


def transcribed_again(
    transcriber: Transcriber, path: Path, transcript: Transcript, chunk: int
) -> tuple[Segment, ...]:
    """The segments of one chunk, transcribed once more."""
    recording = transcriber.listen_again(path, transcript, chunk)
    while asked := recording.dialogues(1):
        for _ in ask(asked, transcriber.engine):
            pass
    result = recording.result()
    assert isinstance(result, Transcript)
    return result.segments


def segments_of_chunk(transcript: Transcript, chunk: int) -> tuple[Segment, ...]:
    start_s = transcript.traces[chunk]["start_s"]
    end_s = start_s + transcript.traces[chunk]["duration_s"]
    return tuple(s for s in transcript.segments if start_s <= s.start_s < end_s)


def test_a_chunk_is_heard_again_with_the_corrected_speakers(meeting: Path) -> None:
    engine = ScriptedEngine(Humming(), CACHED)
    transcriber = Transcriber(engine, witness=Pitch(), detect=tones)
    whole = transcriber.transcribe(meeting)
    named = whole.with_segments(
        [replace(s, speaker="Ana") if s.text == "hum 700" else s for s in whole.segments]
    )
    assert transcribed_again(transcriber, meeting, named, 2) == segments_of_chunk(named, 2)
    with pytest.raises(SettingsError, match="chunk 99"):
        transcriber.listen_again(meeting, named, 99)


def test_listening_again_keeps_to_the_channel(tmp_path: Path) -> None:
    """The chunk and the voices of the others are those of the channel, not of the mix."""
    other = talk(*[(1500, 1.0)] * 40)[: len(MEETING)]
    path = save(tmp_path / "call.wav", np.stack([other, MEETING], axis=1))
    engine = ScriptedEngine(Humming(), CACHED)
    transcriber = Transcriber(engine, witness=Pitch(), detect=tones, channel=1)
    whole = transcriber.transcribe(path)
    assert transcribed_again(transcriber, path, whole, 2) == segments_of_chunk(whole, 2)


def test_a_stranger_is_never_called_what_somebody_is_named(meeting: Path) -> None:
    voices = [EnrolledSpeaker("Speaker1", (tone(700, 3.0),))]
    result = transcribe(meeting, witness=Pitch(), voices=voices)
    assert people(result) == {
        "Speaker1": {"hum 700"},
        "Speaker2": {"hum 300"},
        "Speaker3": {"hum 1000"},
    }


def test_a_voice_is_heard_where_nobody_else_speaks() -> None:
    def line(start_s: float, end_s: float) -> ChunkSegment:
        return ChunkSegment(1, "male", start_s, end_s, "")

    one = line(2.0, 5.0)
    for others, expected in (
        ([], (2.0, 5.0)),
        ([line(0.0, 2.5), line(4.5, 6.0)], (2.5, 4.5)),
        ([line(3.0, 3.5)], (3.5, 5.0)),
        ([line(1.0, 6.0)], (2.0, 2.0)),
        ([line(7.0, 8.0), line(0.0, 1.0)], (2.0, 5.0)),
    ):
        first_s, last_s = alone(one, [one, *others])
        assert (first_s, last_s) == expected or last_s - first_s == expected[1] - expected[0]
