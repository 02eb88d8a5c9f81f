"""Texts with times for people: Otter, Rev, Meet, Whisper's lines, and what `txt` writes."""

from pathlib import Path

import pytest

from speaker_reasoner import formats
from speaker_reasoner.errors import FormatError
from speaker_reasoner.formats.folders import load
from speaker_reasoner.transcript import Segment, Transcript

NO_END = "lines have no end and were read up to the next one's start"
LAST = "1 lines at the end last as long as their words take at 150 a minute"


def read(folder: Path, text: str) -> Transcript:
    file = folder / "talk.txt"
    file.write_text(text, encoding="utf-8")
    [transcript] = load(folder).values()
    assert transcript.recording == "talk"
    return transcript


def rows(transcript: Transcript) -> list[tuple[float, float, str, str]]:
    return [(s.start_s, s.end_s, s.speaker, s.text) for s in transcript.segments]


def test_headings_of_otter(tmp_path: Path) -> None:
    talk = read(
        tmp_path,
        "Weekly sync\nSPEAKERS\nAna Moe, Bob\n\nAna Moe  0:00  \nGood morning. Note: we start.\n\n"
        "bob\t0:07\nHello.\nAnd again (10:05)\nand let us all meet there at  10:05\n\n"
        "Unknown Speaker  1:02:03\nBye to all of you\n\n"
        "Transcribed by https://otter.ai\n",
    )
    assert rows(talk) == [
        (0.0, 7.0, "Ana Moe", "Good morning. Note: we start."),
        (7.0, 3723.0, "bob", "Hello. And again (10:05) and let us all meet there at  10:05"),
        (3723.0, 3725.0, "Unknown Speaker", "Bye to all of you"),
    ]
    assert talk.warnings == (
        "3 lines before the first time were passed over",
        "1 notes behind the lines were passed over",
        f"3 {NO_END}",
        LAST,
    )


def test_headings_of_rev_and_times_inside_a_turn(tmp_path: Path) -> None:
    talk = read(
        tmp_path,
        "Speaker 1 (00:01):\nGood morning.\n\n(00:05)\nLet us start.\n\nAna (female) (00:09):\nYes.\n",
    )
    assert rows(talk) == [
        (1.0, 5.0, "Speaker 1", "Good morning."),
        (5.0, 9.0, "Speaker 1", "Let us start."),
        (9.0, 10.0, "Ana", "Yes."),
    ]
    assert talk.genders["Ana"] == "female"


def test_lines_of_several_speakers_share_the_time_of_meet(tmp_path: Path) -> None:
    talk = read(
        tmp_path,
        "Weekly - Transcript\n00:00:00\n\nAna Moe: Good morning\nBob: It is now.\n\n00:05:00\n\n"
        "Bob: We go on.\nAna Moe: Yes.",
    )
    assert rows(talk)[:2] == [
        (0.0, 300 * 12 / 22, "Ana Moe", "Good morning"),
        (300 * 12 / 22, 300.0, "Bob", "It is now."),
    ]
    assert "4 lines share a time with others, by the length of their words" in talk.warnings


@pytest.mark.parametrize(
    "line",
    ["[00:01.000 --> 00:03.400]  yes", "[1.00s -> 3.40s] yes", "[0:00:01.00 - 0:00:03.40] yes"],
)
def test_lines_of_whisper(tmp_path: Path, line: str) -> None:
    talk = read(tmp_path, f"{line}\n")
    assert rows(talk) == [(1.0, 3.4, "unknown", "yes")]
    assert talk.warnings == ("1 lines name no speaker and were given to 'unknown'",)


def test_lines_with_a_time_and_a_name(tmp_path: Path) -> None:
    talk = read(tmp_path, "[00:00] Ana: here\n[00:02] Bob: so it is\n[00:02] Ana: yes: that now\n")
    assert rows(talk) == [
        (0.0, 2.0, "Ana", "here"),
        (2.0, 3.2, "Ana", "yes: that now"),  # both at the end: no later start
        (2.0, 3.2, "Bob", "so it is"),
    ]


def test_what_txt_writes(tmp_path: Path) -> None:
    segments = (
        Segment("Ana", 0.5, 2.0, "well: no", "female"),
        Segment("Speaker2", 1.5, 3.0, "yes"),
    )
    talk = Transcript("talk", 9.0, segments, warnings=("too loud",))
    back = read(tmp_path, formats.render(talk, "txt"))
    assert back.segments == segments
    assert back.warnings == ("1 notes behind the lines were passed over",)
    assert read(tmp_path, formats.render(Transcript("talk", 9.0), "txt")).segments == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ana  0:07\na\nBob  0:03\nb\n", "talk.txt:3: starts at 3 s, before the paragraph before"),
        (
            "[Ana Moe] 10:05:12\nHello\n",
            "talk.txt:1: expected times of the recording, got a time of day",
        ),
        ("Notes\n(no time: 10)\n[x] 10:05:12\n", "talk.txt:3: expected times of the recording"),
        ("[00:75] Ana: a\n", "talk.txt:1: expected minutes and seconds below 60, got '00:75'"),
        ("[00:05 - 00:03] Ana: a\n", "talk.txt:1: ends at 3 s, before it starts at 5 s"),
    ],
)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=r"talk.txt:\d") as raised:
        read(tmp_path, text)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["We met at 10:05 and left.\n", "Notes\nthe train leaves at 10:05\n", "", "10:05 only one\n"],
)
def test_other_texts_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "readme.txt").write_text(text)
    formats.write(Transcript("talk", 1.0), tmp_path, ["json"])
    assert list(load(tmp_path)) == ["talk"]
    with pytest.raises(FormatError, match="cannot tell the format"):
        load(tmp_path / "readme.txt")


def test_times_of_day_are_refused_or_told() -> None:
    parser = formats.paragraphs.parse_paragraphs
    with pytest.raises(
        FormatError, match=r"a\.txt:1: expected times of the recording, got 36131 s"
    ):
        parser("10:02:11 Ana: hello\n10:02:15 Bob: hi\n", "a.txt")
    [found] = parser("[01:02:11] Ana: hello\n[01:02:15] Bob: hi\n", "a.txt")
    assert "1 line begins the text after an hour: perhaps a time of day" in found.warnings
    [found] = parser("[00:59:11] Ana: hello\n[06:02:15] Bob: hi\n", "a.txt")
    assert not any("time of day" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "text",
    [
        "**Ana:** [00:00:00] so it is\n\n**Bob Lee:** [00:00:03] yes\n\n**Ana:** [00:00:05] no\n",
        "[00:00:00] **Ana:** so it is\n[00:00:03] **Bob Lee**: yes\n[00:00:05] __Ana:__ no\n",
        "Ana: [00:00:00] so it is\nBob Lee: (00:00:03) yes\nAna: [0:05] no\n",
        "Ana [00:00:00] so it is\n\nBob Lee [00:03] yes\n\nAna [00:00:05] no\n",
        "Ana:\n(00:00)\nso it is\n\nBob Lee:\n(00:03)\nyes\n\nAna:\n(00:05)\nno\n",
        "Ana\n[00:00]\nso it is\n\nBob Lee\n[00:03]\nyes\n\nAna\n[00:05]\nno\n",
        "(0:00 - 0:03)\nAna: so it is\n\n(0:03 - 0:05): Bob Lee: yes\n(0:05 - 0:06) Ana: no\n",
    ],
)
def test_names_and_times_of_other_editors(tmp_path: Path, text: str) -> None:
    assert rows(read(tmp_path, text)) == [
        (0.0, 3.0, "Ana", "so it is"),
        (3.0, 5.0, "Bob Lee", "yes"),
        (5.0, 6.0, "Ana", "no"),
    ]


def test_times_in_sentences_open_no_paragraph(tmp_path: Path) -> None:
    text = "[00:00] Ana: we saw\nParis (10:05) and **Bob** and\nRome. It was (10:07) then\n[00:03] Bob: yes\n"
    assert [words for *_, words in rows(read(tmp_path, text))] == [
        "we saw Paris (10:05) and **Bob** and Rome. It was (10:07) then",
        "yes",
    ]
