"""The turn loop of one chunk, over scripted turns."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from speaker_reasoner.engines import Reply, Request
from speaker_reasoner.engines.scripted import ScriptedEngine
from speaker_reasoner.errors import ProtocolError
from speaker_reasoner.protocol import Audio, Box, Line, Overview, Profile, Turn, render_turn
from speaker_reasoner.protocol.confidence import LineConfidence
from speaker_reasoner.reasoner import (
    Dialogue,
    Outcome,
    Stop,
    TranscribedLine,
    run,
    without_duplicates,
)

from .conftest import noise

PROFILE = Profile(decimals=1, chunk_s=20.0)
HELLO = Line(1, "female", 2, 20, "hello there")
YES = Line(2, "male", 22, 30, "yes")
AGAIN = Line(1, "female", 35, 48, "so we begin")


def turn(**parts: Any) -> str:
    return render_turn(Turn(**parts), PROFILE)


OPEN = turn(overview=Overview(("female", "male")), box=Box(0, 30))
FIRST = turn(lines=(HELLO, YES), box=Box(31, 50))
LAST = turn(lines=(AGAIN,)) + "<answer>"
TALK = [OPEN, FIRST, LAST]


def finished(turns: list[str], seconds: float = 5.0, **options: Any) -> Dialogue:
    """A dialogue that a script has played."""
    profile = options.pop("profile", PROFILE)
    dialogue = Dialogue(noise(seconds), profile, **options)
    for _ in run([dialogue], ScriptedEngine([turns], profile)):
        pass
    return dialogue


def outcome(turns: list[str], seconds: float = 5.0, **options: Any) -> Outcome:
    result = finished(turns, seconds, **options).outcome
    assert result is not None
    return result


def lines(result: Outcome) -> list[Line]:
    return [one.line for one in result.lines]


# A dialogue that ends well


def test_turns_unfold_as_events() -> None:
    dialogue = Dialogue(noise(5.0), PROFILE)
    events = [event for _, event in run([dialogue], ScriptedEngine([TALK], PROFILE))]
    assert [event.turn for event in events] == [0, 1, 2]
    assert [event.observation for event in events] == [None, Box(0, 30), Box(31, 50)]
    assert [event.box for event in events] == [Box(0, 30), Box(31, 50), None]
    assert [event.speakers for event in events] == [("female", "male"), None, None]
    assert [[h.line for h in event.lines] for event in events] == [[], [HELLO, YES], [AGAIN]]
    assert dialogue.events == events


def test_assembled_is_the_union_of_the_turns() -> None:
    dialogue = finished(TALK)
    assert dialogue.outcome is not None
    assert dialogue.outcome.stop is Stop.ANSWERED
    assert (dialogue.outcome.detail, dialogue.outcome.missing) == ("", None)
    assert dialogue.outcome.lines == tuple(h for event in dialogue.events for h in event.lines)
    assert lines(dialogue.outcome) == [HELLO, YES, AGAIN]


def test_the_model_may_write_the_answer_itself() -> None:
    final = (replace(HELLO, text="hello dear"), YES)
    result = outcome([OPEN, FIRST, turn(lines=(AGAIN,), answer=final)], answer="model")
    assert result.stop is Stop.ANSWERED
    assert lines(result) == list(final)


def test_nobody_speaks() -> None:
    result = outcome([turn(overview=Overview(())) + "<answer>"])
    assert result.stop is Stop.ANSWERED
    assert (result.lines, result.missing) == ((), None)


def test_the_slices_asked_for_are_the_boxes_in_samples() -> None:
    chunk, slices = noise(5.0), []

    def play(request: Request) -> str:
        for part in request.parts:
            if isinstance(part, Audio):
                slices.append(request.session.samples[part.start_samples : part.end_samples])
        return TALK[request.rules.turn]

    dialogue = Dialogue(chunk, PROFILE)
    for _ in run([dialogue], ScriptedEngine(play, PROFILE)):
        pass
    for samples, (start, end) in zip(
        slices, [(0, 80_000), (0, 48_000), (49_600, 80_000)], strict=True
    ):
        assert np.array_equal(samples, chunk[start:end])


def test_a_last_slice_ends_with_the_chunk() -> None:
    """A chunk is rarely a whole number of ticks long; a box on its last tick stays inside."""
    dialogue = finished([turn(overview=Overview(("male",)), box=Box(0, 19))], seconds=1.97)
    assert dialogue.chunk == 19
    assert dialogue.outcome is not None
    assert [(a.start_samples, a.end_samples) for a in dialogue.outcome.trace.audio] == [
        (0, 31_520),
        (0, 30_400),
    ]


def test_the_trace_is_what_was_asked_and_written() -> None:
    asked: list[Any] = []

    def play(request: Request) -> str:
        asked.append(request.parts)
        return TALK[request.rules.turn]

    dialogue = Dialogue(noise(5.0), PROFILE)
    for _ in run([dialogue], ScriptedEngine(play, PROFILE)):
        pass
    assert dialogue.outcome is not None
    trace = dialogue.outcome.trace
    assert [answer.text for answer in trace.answers] == TALK
    assert [answer.closed for answer in trace.answers] == [True, True, False]
    prompts = [part for part in trace.parts if part not in trace.answers]
    assert prompts == [part for parts in asked for part in parts]


def test_dialogues_of_different_lengths_in_lockstep() -> None:
    scripts = [TALK, [turn(overview=Overview(())) + "<answer>"], [OPEN, FIRST, LAST], [OPEN]]
    dialogues = [Dialogue(noise(5.0, i), PROFILE) for i in range(4)]
    engine = ScriptedEngine(scripts, PROFILE)
    rounds = [dialogue for dialogue, _ in run(dialogues, engine)]
    a, b, c, d = dialogues
    assert rounds == [a, b, c, d, a, c, d, a, c]
    stops = [dialogue.outcome.stop for dialogue in dialogues if dialogue.outcome]
    assert stops == [Stop.ANSWERED, Stop.ANSWERED, Stop.ANSWERED, Stop.ENGINE]


def test_an_ended_dialogue_holds_no_samples() -> None:
    dialogue = finished(TALK)
    assert len(dialogue.session.samples) == 0
    assert dialogue.session.memory == {}


def test_nothing_is_fed_after_the_end() -> None:
    dialogue = finished(TALK)
    assert dialogue.request is None
    with pytest.raises(ProtocolError, match="has ended"):
        dialogue.feed(Reply(LAST))


@pytest.mark.parametrize("answer", ["", "Assembled", "both"])
def test_unknown_kind_of_answer(answer: str) -> None:
    with pytest.raises(ProtocolError, match="neither 'assembled' nor 'model'"):
        Dialogue(noise(1.0), PROFILE, answer=answer)


def test_a_chunk_without_samples() -> None:
    with pytest.raises(ProtocolError, match="at least one sample"):
        Dialogue(noise(0.0), PROFILE)


def test_a_chunk_shorter_than_a_tick_has_no_box() -> None:
    """Somebody may speak in it, but there is no stretch to listen to again."""
    dialogue = Dialogue(noise(0.05), PROFILE)
    assert dialogue.chunk == 0
    dialogue.feed(Reply(turn(overview=Overview(("female",))) + "<answer>"))
    assert dialogue.outcome is not None
    assert dialogue.outcome.stop is Stop.ANSWERED


# One that does not


def test_the_turn_limit() -> None:
    profile = replace(PROFILE, max_turns=2)
    result = outcome([*TALK[:2], turn(lines=()) + "<answer>"], seconds=9.0, profile=profile)
    assert result.stop is Stop.TURN_LIMIT
    assert result.detail == "after 2 observations"
    assert result.missing == Box(50, 90)
    assert lines(result) == [HELLO, YES]


def test_the_last_turn_allowed_may_end_well() -> None:
    result = outcome(TALK, profile=replace(PROFILE, max_turns=2))
    assert (result.stop, result.missing) == (Stop.ANSWERED, None)


def test_a_further_box_at_the_turn_limit_is_malformed() -> None:
    result = outcome(TALK, profile=replace(PROFILE, max_turns=1))
    assert result.stop is Stop.MALFORMED


BROKEN = {
    "empty": "",
    "no tags": "I hear two people.",
    "thought not closed": "<think>\nSpeaker1-female [3.5, 4.8]: so we begin\n",
    "neither box nor answer": turn(lines=(AGAIN,)),
    "box not closed": turn(lines=(AGAIN,)) + "<box>[3.1, 5.0]",
    "box outside the chunk": turn(lines=(AGAIN,), box=Box(40, 60)),
    "box goes back": turn(lines=(AGAIN,), box=Box(10, 50)),
    "box makes no progress": turn(lines=(AGAIN,), box=Box(31, 50)),
    "box too short": turn(lines=(AGAIN,)) + "<box>[5.0, 5.0]</box>",
    "line outside its box": turn(lines=(replace(AGAIN, start=5, end=28),)) + "<answer>",
    "line outside the chunk": turn(lines=(replace(AGAIN, end=99),)) + "<answer>",
    "line of no length": "<think>\nSpeaker1-female [3.5, 3.5]: so\n</think><answer>",
    "line reversed": "<think>\nSpeaker1-female [4.5, 3.5]: so\n</think><answer>",
    "times with too many decimals": LAST.replace("4.8", "4.80"),
    "speaker number left out": turn(lines=(replace(AGAIN, speaker=7),)) + "<answer>",
    "words after the end": LAST + "</answer> Anything else?",
    "overview again": OPEN,
    "words that repeat themselves": turn(lines=(replace(AGAIN, text="la " * 30),)) + "<answer>",
    "more words than anybody says": turn(lines=(replace(AGAIN, text="x y z " * 90),)) + "<answer>",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_turn_keeps_what_was_heard(text: str) -> None:
    result = outcome([OPEN, FIRST, text])
    assert result.stop is Stop.MALFORMED
    assert result.detail.startswith("turn 2 broke the protocol: ") and "\n" not in result.detail
    assert lines(result)[:2] == [HELLO, YES]
    assert all(0 <= line.start < line.end <= 50 for line in lines(result))
    done = max([31, *(line.end for line in lines(result)[2:])])
    assert result.missing == Box(done, 50)
    assert result.trace.answers[-1].text == text


def test_lines_of_a_broken_turn_are_kept_up_to_where_it_broke() -> None:
    bad = replace(AGAIN, start=40, end=99)
    text = turn(lines=(replace(AGAIN, end=38), bad, replace(AGAIN, text="and more"))) + "<answer>"
    result = outcome([OPEN, FIRST, text])
    assert lines(result) == [HELLO, YES, replace(AGAIN, end=38)]
    assert result.missing == Box(38, 50)


def test_lines_of_a_broken_answer_are_not_taken_twice() -> None:
    text = turn(lines=(AGAIN,), answer=(HELLO, YES, AGAIN)).removesuffix("</answer>")
    result = outcome([OPEN, FIRST, text], answer="model")
    assert result.stop is Stop.MALFORMED
    assert lines(result) == [HELLO, YES, AGAIN]


def test_a_broken_overview_leaves_the_whole_chunk_missing() -> None:
    result = outcome(["3 speakers, I think", FIRST])
    assert (result.stop, result.lines, result.missing) == (Stop.MALFORMED, (), Box(0, 50))


def test_nothing_is_missing_where_the_last_line_reaches_the_end() -> None:
    result = outcome([OPEN, FIRST, turn(lines=(replace(AGAIN, end=50),))])
    assert (result.stop, result.missing) == (Stop.MALFORMED, None)


def test_an_engine_that_cannot_answer() -> None:
    dialogue = Dialogue(noise(5.0), PROFILE)
    dialogue.feed(Reply(OPEN))
    event = dialogue.feed(Reply(FIRST.partition("</think>")[0], error="out of tokens"))
    assert [one.line for one in event.lines] == [HELLO, YES]
    assert dialogue.outcome is not None
    assert dialogue.outcome.stop is Stop.ENGINE
    assert dialogue.outcome.detail == "out of tokens"
    assert dialogue.outcome.missing == Box(30, 50)
    assert not dialogue.outcome.trace.answers[-1].closed


# Heard twice


def test_a_line_heard_twice_is_kept_once_and_counted() -> None:
    second = turn(lines=(replace(YES, start=23), AGAIN)) + "<answer>"
    dialogue = finished([OPEN, FIRST.replace("[3.1, 5.0]", "[2.2, 5.0]"), second])
    assert dialogue.outcome is not None
    assert dialogue.outcome.stop is Stop.ANSWERED
    assert lines(dialogue.outcome) == [HELLO, YES, AGAIN]
    assert [event.duplicates for event in dialogue.events] == [0, 0, 1]
    assert [h.line for h in dialogue.events[2].lines] == [AGAIN]


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, False),
        ({"gender": "unknown"}, False),
        ({"start": 15}, False),  # half of the earlier, all of this one
        ({"start": 11, "end": 27}, False),  # 9 of 16
        ({"start": 12, "end": 28}, True),  # 8 of 16: no more than half
        ({"start": 20, "end": 30}, True),  # said once more, right afterwards
        ({"speaker": 2}, True),  # said by two at once
        ({"text": "hello then"}, True),
    ],
)
def test_what_a_duplicate_is(change: dict[str, Any], kept: bool) -> None:
    first = TranscribedLine(HELLO, LineConfidence())
    second = TranscribedLine(replace(HELLO, **change), LineConfidence())
    assert without_duplicates([second], [first]) == ((second,) if kept else ())
    assert without_duplicates([first, second]) == ((first, second) if kept else (first,))


# Confidences


def spelled(text: str, sure: dict[str, float]) -> Reply:
    """A reply of one-byte tokens; bytes of the given words get their probability, others 1."""
    probabilities = [1.0] * len(text)
    for word, probability in sure.items():
        at = text.rindex(word)
        probabilities[at : at + len(word)] = [probability] * len(word)
    return Reply(text, tuple(range(len(text))), (1,) * len(text), tuple(probabilities))


def test_confidences_belong_to_their_lines() -> None:
    dialogue = Dialogue(noise(5.0), PROFILE)
    dialogue.feed(Reply(OPEN))
    event = dialogue.feed(spelled(FIRST, {"hello there": 0.5, " yes": 0.25}))
    assert [one.confidence.words for one in event.lines] == pytest.approx([0.5, 0.25])
    assert event.tokens == len(FIRST)


@pytest.mark.parametrize("gap", ["\n", ""])
def test_confidences_of_an_answer_the_model_wrote(gap: str) -> None:
    """Also where free wording puts the answer on the line of the thought."""
    profile = Profile(name="released")
    dialogue = Dialogue(noise(5.0), profile, answer="model")
    dialogue.feed(Reply("<think>one speaker</think><box>[0, 5]</box>"))
    text = f"<think>Ann-female [0, 1]: hi</think><answer>{gap}Ann-female [0, 1]: hi{gap}</answer>"
    dialogue.feed(spelled(text, {"hi": 0.5}))
    assert dialogue.outcome is not None
    [one] = dialogue.outcome.lines
    assert one.line == Line(1, "female", 0, 100, "hi")
    assert one.confidence.words == pytest.approx(0.5, abs=0.2)
