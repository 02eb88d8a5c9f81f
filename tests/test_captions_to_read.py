"""Captions that can be read: within the habits of subtitles, and nothing lost or moved."""

import re
import zipfile
from io import BytesIO
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner.errors import FormatError
from speaker_reasoner.formats.minutes import render_docx
from speaker_reasoner.formats.reading import (
    Habits,
    cues,
    render_ass,
    render_srt_to_read,
    render_vtt_to_read,
)
from speaker_reasoner.transcript import Missing, Segment, Transcript, Word

LONG = (
    "Page four, and it is still too high, because nobody wanted to move the visits to the spring, "
    "which would have been cheaper. I would rather move two of them now and talk about the others "
    "when the numbers are here."
)


def talk(*segments: Segment, **more: object) -> Transcript:
    return Transcript("talk", 600.0, tuple(segments), **more)  # type: ignore[arg-type]


def test_a_long_turn_is_cut_at_clauses() -> None:
    made = cues(talk(Segment("Ana", 10.0, 24.0, LONG, "female")), Habits())
    assert " ".join(" ".join(cue.lines) for cue in made) == LONG
    assert len(made) >= 3 and [cue.opens for cue in made] == [True, *[False] * (len(made) - 1)]
    ends = [cue.lines[-1][-1] for cue in made]
    assert sum(end in ".,;" for end in ends) >= 2, [cue.lines for cue in made]
    assert made[0].start_s == 10.0 and made[-1].end_s >= 24.0


words = st.text(st.sampled_from("abcdefgh.,é"), min_size=1, max_size=11)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.lists(words, max_size=60), st.floats(0.2, 30)),
             min_size=1, max_size=6),
    st.sampled_from([Habits(), Habits(30, 1, 4.0, 15.0), Habits(20, 3, 7.0, 20.0, False)]),
)  # fmt: skip
def test_the_numbers_hold(turns: list[tuple[str, list[str], float]], habits: Habits) -> None:
    at, segments = 0.0, []
    for speaker, said, lasts_s in turns:
        segments.append(Segment(speaker, at, at + lasts_s, " ".join(said), "male"))
        at += lasts_s + 0.5
    made = cues(Transcript("talk", at, tuple(segments)), habits)
    for one in segments:
        own = [cue for cue in made if one.start_s <= cue.start_s < one.end_s]
        assert " ".join(" ".join(cue.lines) for cue in own) == one.text
        assert not own or (own[0].label == one.speaker and own[0].start_s == one.start_s)
    for cue in made:
        assert len(cue.lines) <= habits.lines
        assert all(len(line) <= habits.line_chars for line in cue.lines)
        assert cue.start_s < cue.end_s
        assert cue.end_s - cue.start_s <= habits.longest_s + 0.001
    for cue, after in pairwise(made):
        assert cue.end_s <= after.start_s + 0.001


def test_a_quick_line_stays_as_long_as_it_is_read() -> None:
    quick = Segment("Ana", 1.0, 1.5, "a line of forty characters, said quickly")
    [cue, _] = cues(talk(quick, Segment("Ben", 20.0, 21.0, "yes")), Habits())
    assert cue.end_s == 3.0, "40 characters at 20 a second"
    [cue, _] = cues(talk(quick, Segment("Ben", 2.0, 21.0, "yes")), Habits())
    assert cue.end_s == 1.96, "but not over the next one"


def test_cuts_follow_the_words() -> None:
    said = [Word(f"word{n:02}", n * 1.0, n * 1.0 + 0.4) for n in range(20)]
    text = " ".join(word.text for word in said)
    made = cues(talk(Segment("Ana", 0.0, 20.0, text, words=tuple(said))), Habits())
    for cue in made:
        first = int(re.findall(r"word(\d+)", cue.lines[0])[0])
        assert cue.start_s == float(first)


def test_writing_without_spaces() -> None:
    text = "今天我们讨论预算的问题，第四页上的数字还是太高了，所以我想把两次访问移到春天。" * 2
    made = cues(talk(Segment("Ana", 0.0, 20.0, text)), Habits(line_chars=16))
    assert "".join("".join(cue.lines) for cue in made) == text
    assert all(len(line) <= 16 for cue in made for line in cue.lines)


def test_genders_can_be_left_out() -> None:
    one = talk(Segment("Ana", 0.0, 1.0, "yes", "female"))
    assert "Ana (female): yes" in render_srt_to_read(one, Habits())
    for render in (render_srt_to_read, render_vtt_to_read, render_ass):
        assert "female" not in render(one, Habits(genders=False))


def test_a_name_comes_where_the_speaker_changes() -> None:
    lines = [Segment(name, n * 2.0, n * 2.0 + 1, f"line {n}") for n, name in enumerate("AABA")]
    shown = render_srt_to_read(talk(*lines), Habits())
    assert re.findall(r"^(?:(\w): )?line", shown, re.M) == ["A", "", "B", "A"]


def test_ass_has_lanes_and_no_tags_of_others() -> None:
    both = talk(
        Segment("Ana", 0.0, 4.0, "{\\b1}one"),
        Segment("Ben", 1.0, 3.0, "two"),
        Segment("Ben", 6.0, 7.0, "three"),
        warnings=("a\n[Events]\nwarning",),
    )
    shown = render_ass(both, Habits())
    rows = [line.split(",", 9) for line in shown.splitlines() if line.startswith("Dialogue")]
    assert [(row[0], row[3], row[7]) for row in rows] == [
        ("Dialogue: 0", "Speaker1", "40"),
        ("Dialogue: 1", "Speaker2", "190"),
        ("Dialogue: 0", "Speaker2", "40"),
    ]
    assert "{\\b1}one" not in shown and "; a [Events] warning" in shown
    assert len(set(re.findall(r"&H00(\w{6}),&H000000FF", shown))) == 2


def test_names_of_voices_take_no_room_in_vtt() -> None:
    """Players do not show them, so that they must not break a line."""
    line = Segment(
        "Bartholomew Featherstonehaugh", 0.0, 4.0, "this line has forty-two characters in all."
    )
    shown = render_vtt_to_read(talk(line), Habits())
    assert f"<v Bartholomew Featherstonehaugh>{line.text}</v>" in shown
    assert line.text not in render_srt_to_read(talk(line), Habits())


def test_warnings_are_comments_in_vtt() -> None:
    shown = render_vtt_to_read(talk(warnings=("one --> two\n\nthree",)), Habits())
    assert "NOTE one -> two three\n" in shown


def test_numbers_that_hold_nothing() -> None:
    for wrong in ((7, 2), (42, 0)):
        with pytest.raises(FormatError, match="captions of"):
            Habits(*wrong)


def test_minutes() -> None:
    """A document that opens: well-formed parts, turns together, markup as words."""
    one = talk(
        Segment("Ana <b>", 0.0, 1.0, "yes & no"),
        Segment("Ana <b>", 1.0, 2.0, "perhaps"),
        Segment("Ben", 2.0, 3.0, "\u0001bell"),
        missing=(Missing(4.0, 5.0, "noise"),),
        warnings=("do not trust it",),
    )
    with zipfile.ZipFile(BytesIO(render_docx(one))) as archive:
        assert archive.testzip() is None
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert next(iter(parts)) == "[Content_Types].xml"
    trees = {name: ElementTree.fromstring(data) for name, data in parts.items()}
    space = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
    said = [
        "".join(run.text or "" for run in one.iter(f"{space}t"))
        for one in trees["word/document.xml"].iter(f"{space}p")
    ]
    assert said[0] == "talk" and said[2] == "do not trust it"
    assert said[4:] == ["Ana <b>  00:00.00", "yes & no perhaps", "Ben  00:02.00", "bell"]
