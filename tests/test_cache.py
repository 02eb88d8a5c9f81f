"""The simulated speaker cache: what is drawn, how speakers are numbered, what the grammar takes."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.data.cache import CacheConfig, condition, draw_cache
from speaker_reasoner.data.dialogues import dialogue
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.protocol import Audio, CacheEntry, Profile, Text
from speaker_reasoner.protocol.observations import Reference
from speaker_reasoner.reasoner import Dialogue, Stop, run

from .references import chunks

PROFILE = Profile(decimals=1, chunk_s=30.0, max_speakers=8, cache_s=20.0)


def past(*rows: tuple[int, float, float, str]) -> list[Reference]:
    return [
        Reference(person, "female", round(a * SAMPLE_RATE_HZ), round(b * SAMPLE_RATE_HZ), text)
        for person, a, b, text in rows
    ]


EARLIER = past(
    (7, 0.0, 3.0, "good morning"),
    (3, 3.0, 5.0, "hello"),
    (7, 5.0, 6.5, "well"),
    (9, 6.0, 9.0, "wait"),
    (3, 9.0, 9.4, "ok"),
    (5, 10.0, 18.0, "a long speech"),
)
ALWAYS = CacheConfig(empty_rate=0.0, absence_rate=0.0)


def test_entries_are_clean_and_within_the_budget() -> None:
    rng = random.Random(0)
    for _ in range(200):
        drawn = draw_cache(EARLIER, ALWAYS, rng)
        texts = {s.text for s in drawn}
        assert texts <= {"good morning", "hello"}  # others overlap, are too short or too long
        assert {s.speaker for s in drawn} == {3, 7}
        people = [s.speaker for s in drawn]
        assert people == sorted(people, key=people.index)
    tight = CacheConfig(empty_rate=0.0, absence_rate=0.0, budget_s=2.5)
    assert all(
        sum(s.end_samples - s.start_samples for s in draw_cache(EARLIER, tight, rng)) <= 40_000
        for _ in range(50)
    )
    assert not draw_cache(EARLIER, CacheConfig(empty_rate=1.0), rng)


def test_speakers_are_left_out_now_and_then() -> None:
    rng = random.Random(0)
    config = CacheConfig(empty_rate=0.0, absence_rate=0.5)
    seen = {frozenset(s.speaker for s in draw_cache(EARLIER, config, rng)) for _ in range(200)}
    assert seen == {frozenset(), frozenset({3}), frozenset({7}), frozenset({3, 7})}


def test_speakers_count_over_cache_and_chunk() -> None:
    samples = np.arange(20 * SAMPLE_RATE_HZ, dtype=np.float32)
    drawn = [EARLIER[1], EARLIER[0]]
    chunk = past((9, 4.0, 5.0, "c"), (7, 1.0, 2.0, "b"), (4, 0.0, 1.0, "a"))
    entries, segments = condition(drawn, samples, chunk)
    assert [(e.speaker, e.text) for e in entries] == [(1, "hello"), (2, "good morning")]
    assert float(entries[0].samples[0]) == 3 * SAMPLE_RATE_HZ
    assert [(s.speaker, s.text) for s in segments] == [(3, "a"), (2, "b"), (4, "c")]
    silent, _ = condition(drawn, samples, chunk, texts=False)
    assert [e.text for e in silent] == ["", ""]


@settings(max_examples=60, deadline=None)
@given(chunks(), st.integers(0, 3), st.booleans())
def test_the_grammar_takes_dialogues_with_a_cache(
    chunk: tuple[list[Reference], int], cached: int, texts: bool
) -> None:
    segments, samples = chunk
    drawn = [Reference(n, "male", 0, 16_000, "so") for n in range(2, cached + 2)]
    gender = dict.fromkeys(range(2, cached + 2), "male")
    same = [
        Reference(
            s.speaker, gender.get(s.speaker, s.gender), s.start_samples, s.end_samples, s.text
        )
        for s in segments
    ]
    clip = np.zeros(16_000, dtype=np.float32)
    entries, numbered = condition(drawn, clip, same, texts=texts)
    trace = dialogue(numbered, samples, PROFILE, answer=False, cache=entries)
    assert [a.clip for a in trace.audio[: cached + 1]] == [*range(1, cached + 1), 0]
    engine = ScriptedEngine([[part.text for part in trace.answers]], PROFILE)
    talk = Dialogue(np.zeros(samples, dtype=np.float32), PROFILE, cache=entries)
    for _ in run([talk], engine):
        pass
    assert talk.outcome is not None and talk.outcome.stop is Stop.ANSWERED, talk.outcome
    assert [part.text for part in talk.outcome.trace.answers] == [a.text for a in trace.answers]
    mine = [p for p in talk.outcome.trace.parts if isinstance(p, (Text, Audio))]
    assert mine == [p for p in trace.parts if isinstance(p, (Text, Audio))]


def test_the_overview_names_the_cached_first() -> None:
    clip = np.zeros(16_000, dtype=np.float32)
    cache = [CacheEntry(1, "female", "hello", clip), CacheEntry(2, "unknown", "", clip)]
    talk = Dialogue(np.zeros(32_000, dtype=np.float32), PROFILE, cache=cache)
    for text in (
        "<think>\n1 speaker: Speaker1-female\n</think><answer>",  # the second is left out
        "<think>\n2 speakers: Speaker1-male, Speaker2-unknown\n</think><answer>",
        "<think>\n2 speakers: Speaker1-female, Speaker2-unknown\n</think><answer>",
        "<think>\n3 speakers: Speaker1-female, Speaker2-unknown, Speaker3-male\n</think><answer>",
    ):
        talk = Dialogue(np.zeros(32_000, dtype=np.float32), PROFILE, cache=cache)
        [_] = list(run([talk], ScriptedEngine([[text]], PROFILE)))
        fits = text.startswith("<think>\n2 speakers: Speaker1-female")
        assert talk.outcome is not None
        assert (talk.outcome.stop is Stop.ANSWERED) == fits, text


def test_the_count_can_be_bounded() -> None:
    box = "</think><box>[0.0, 1.0]</box>"
    genders = ", ".join(f"Speaker{n}-male" for n in (1, 2))
    text = f"<think>\n2 speakers: {genders}\n{box}"
    for count, fits in (((1, 2), True), ((2, 2), True), ((3, 5), False), ((1, 1), False)):
        talk = Dialogue(np.zeros(32_000, dtype=np.float32), PROFILE, count=count)
        engine = ScriptedEngine([[text]], PROFILE)
        next(iter(run([talk], engine)))
        assert (talk.outcome is None) == fits, count
