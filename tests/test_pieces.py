"""Sessions to pieces: nothing lost, nothing cut that need not be."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.errors import DataError
from speaker_reasoner.formats.pieces import cut
from speaker_reasoner.transcript import Segment, Transcript

from .conftest import needs_shared
from .references import made_meeting

SPANS = st.lists(
    st.tuples(st.floats(0, 280), st.floats(0.1, 19), st.integers(1, 4)),
    max_size=60,
)


def session(spans: list[tuple[float, float, int]], duration_s: float = 300.0) -> Transcript:
    segments = [
        Segment(f"S{n}", round(a, 3), round(a + d, 3), f"w{i}") for i, (a, d, n) in enumerate(spans)
    ]
    return Transcript("talk", duration_s, tuple(segments))


@settings(deadline=None)
@given(SPANS)
def test_every_segment_is_in_one_piece(spans: list[tuple[float, float, int]]) -> None:
    whole = session(spans)
    pieces = cut(whole, 40.0, 50.0)
    assert pieces[0].start_s == 0.0
    for piece, after in pairwise(pieces):
        assert piece.start_s + piece.transcript.duration_s == pytest.approx(after.start_s)
        assert 40.0 - 1e-3 <= piece.transcript.duration_s <= 50.0 + 1e-3
    last = pieces[-1]
    assert last.start_s + last.transcript.duration_s == pytest.approx(300.0)
    assert last.transcript.duration_s <= 50.0 + 1e-3
    texts = [s.text for piece in pieces for s in piece.transcript.segments]
    assert sorted(texts) == sorted(s.text for s in whole.segments)
    known = {s.text: s for s in whole.segments}
    clipped = 0
    for piece in pieces:
        for s in piece.transcript.segments:
            original = known[s.text]
            assert 0 <= s.start_s < s.end_s <= piece.transcript.duration_s + 1e-6
            clipped += s.duration_s < original.duration_s - 1e-5
            moved = max(original.start_s, piece.start_s) - piece.start_s
            assert s.start_s == pytest.approx(moved, abs=1e-5)
    assert clipped == sum(piece.clipped for piece in pieces)


def test_a_cut_is_where_nobody_speaks() -> None:
    whole = session([(0, 41, 1), (41.5, 2, 2), (44.5, 10, 1), (60, 30, 2)], 90.0)
    first, second = cut(whole, 40.0, 50.0)
    assert second.start_s == 44.0 and first.clipped == second.clipped == 0
    assert [s.start_s for s in second.transcript.segments] == [0.5, 16.0]
    assert [p.transcript.recording for p in (first, second)] == ["talk-0001", "talk-0002"]


def test_a_cut_goes_through_the_fewest() -> None:
    whole = session([(0, 60, 1), (30, 14, 2), (46, 20, 2)], 70.0)
    first, second = cut(whole, 40.0, 50.0)
    assert second.start_s == 45.0 and (first.clipped, second.clipped) == (1, 0)


def test_short_sessions_stay_whole() -> None:
    [piece] = cut(session([(1, 2, 1)], 50.0), 40.0, 50.0)
    assert piece.transcript.segments == session([(1, 2, 1)]).segments


@pytest.mark.parametrize("lengths", [(50.0, 40.0), (0.0, 10.0), (40.0, 40.0)])
def test_impossible_lengths_are_told(lengths: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="shortest < longest"):
        cut(session([]), *lengths)


def test_a_meeting_is_cut_through_few_segments() -> None:
    """Where people talk into each other, what a cut goes through is rare all the same."""
    whole = made_meeting()
    pieces = cut(whole, 40.0, 50.0)
    assert len(pieces) > 5
    assert sum(len(piece.transcript.segments) for piece in pieces) == len(whole.segments)
    assert sum(piece.clipped for piece in pieces) < 0.02 * len(whole.segments)


@needs_shared
def test_aishell4_is_cut_through_few_segments() -> None:
    """The 20 real evaluation sessions: what a cut goes through is rare."""
    from speaker_reasoner.formats.folders import load

    from .conftest import SHARED

    sessions = load(SHARED / "aishell4_eval_stm")
    pieces = [piece for one in sessions.values() for piece in cut(one, 40.0, 50.0)]
    segments = sum(len(piece.transcript.segments) for piece in pieces)
    assert segments == sum(len(one.segments) for one in sessions.values())
    assert sum(piece.clipped for piece in pieces) < 0.02 * segments
