"""Random reference segments, as a simulated or a real chunk or meeting may hold them."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.protocol import Profile, Trace
from speaker_reasoner.protocol.observations import Reference
from speaker_reasoner.reasoner import Dialogue, Outcome, run
from speaker_reasoner.transcript import Segment, Transcript

WORDS = ["ok", "hello", "你好", '"yes"', "[noise]", "3.5", "it's", "呃，", "(ha)", "a: b"]


@st.composite
def chunks(draw: Any) -> tuple[list[Reference], int]:
    """Up to three speakers whose own segments follow one another, and the chunk's samples."""
    rows: list[Reference] = []
    for speaker in range(1, draw(st.integers(0, 3)) + 1):
        gender = draw(st.sampled_from(["female", "male", "unknown"]))
        at = 0
        for _ in range(draw(st.integers(1, 3))):
            at += draw(st.integers(0, 40_000))
            length = draw(st.integers(8_000, 64_000))
            count = draw(st.integers(0, 2 if length >= 16_000 else 1))
            text = " ".join(draw(st.sampled_from(WORDS)) for _ in range(count))
            rows.append(Reference(speaker, gender, at, at + length, text))
            at += length
    rows = sorted(rows[:7], key=lambda s: (s.start_samples, s.end_samples))
    numbers: dict[int, int] = {}
    rows = [
        replace(s, speaker=numbers.setdefault(s.speaker, len(numbers) + 1))  # by appearance
        for s in rows
    ]
    end = max((s.end_samples for s in rows), default=0)
    return rows, max(end, 32_000) + draw(st.integers(0, 16_000))


def played(trace: Trace, samples: int, profile: Profile, *, answer: str) -> Outcome:
    """Return the outcome of a dialogue whose engine writes the answers of a trace."""
    engine = ScriptedEngine([[part.text for part in trace.answers]], profile)
    dialogue = Dialogue(np.zeros(samples, dtype=np.float32), profile, answer=answer)
    for _ in run([dialogue], engine):
        pass
    assert dialogue.outcome is not None
    return dialogue.outcome


def made_meeting() -> Transcript:
    """Make a meeting like those of AISHELL-4: five people who talk into each other, a
    character a word."""
    rng = random.Random(4)
    segments, at = [], 0.0
    for _ in range(150):
        speaker = rng.choice(["001-M", "002-F", "003-M", "004-F", "005-M"])
        text = " ".join(rng.choices("我们今天先来讨论一下这个会议的安排", k=rng.randint(1, 14)))
        start = max(0.0, round(at + rng.uniform(-0.9, 1.5), 2))
        at = round(start + 0.6 + 0.2 * len(text.split()), 2)
        gender = "male" if speaker.endswith("-M") else "female"
        segments.append(Segment(speaker, start, at, text, gender))
    segments.sort(key=lambda s: (s.start_s, s.end_s, s.speaker))
    return Transcript("made", segments[-1].end_s + 1.0, tuple(segments))
