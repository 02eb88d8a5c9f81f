"""Directives of references: figures of sclite 2.10 and md-eval (SCTK behind 2.4.12) on inputs made here, and laws."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner import formats
from speaker_reasoner.errors import FormatError
from speaker_reasoner.evaluate import ErrorCounts, Normalisation, score
from speaker_reasoner.evaluate.directives import outside, read_uem, resolved
from speaker_reasoner.evaluate.inputs import read_sides, summed_up
from speaker_reasoner.evaluate.times import diarization
from speaker_reasoner.formats.choices import parse_choices, render_choices
from speaker_reasoner.formats.folders import load
from speaker_reasoner.formats.unscored import merged, without
from speaker_reasoner.transcript import Segment, Transcript, Word

pytest.importorskip("meeteval", reason="pip install 'speaker-reasoner[eval]'")

WORDS = Normalisation(characters=False).words
STM = """;; of sclite's manual
t 1 gap 0.00 1.00 <o,,> ignore_time_segment_in_scoring
t 1 A 1.00 4.00 <o,f0,male> i am { going to / gonna } be { uh / @ } fine
t 1 B 4.00 7.00 <o,f0,female> we (uh) met { { mister / mr } brown / him } there
t 1 gap 7.00 9.00 <o,,> IGNORE_TIME_SEGMENT_IN_SCORING
t 1 A 9.00 12.00 <o,f0,male> that is (all) for now
"""
SAID = [("noise", 0.2), ("i", 1.1), ("am", 1.5), ("gonna", 2.0), ("be", 2.5), ("fine", 3.1)]
SAID += [("we", 4.2), ("met", 4.6), ("mr", 5.1), ("brown", 5.5), ("here", 6.1), ("late", 6.9)]
SAID += [("music", 7.2), ("that", 9.2), ("is", 9.6), ("for", 10.1), ("now", 10.5)]
CTM = "".join(f"t 1 {at:.2f} 0.30 {word}\n" for word, at in SAID)

RTTM = """NOSCORE m 1 12.000 4.000 <NA> <NA> <NA> <NA> <NA>
SPEAKER m 1 0.500 9.500 <NA> <NA> A <NA> <NA>
SPEAKER m 1 8.000 6.000 <NA> <NA> B <NA> <NA>
SPEAKER m 1 15.000 0.000 <NA> <NA> C <NA> <NA>
SPEAKER m 1 18.000 7.000 <NA> <NA> A <NA> <NA>
SPEAKER m 1 27.000 0.000 <NA> <NA> B <NA> <NA>
"""
SYSTEM = """SPEAKER m 1 0.200 8.800 <NA> <NA> x <NA> <NA>
SPEAKER m 1 9.000 8.000 <NA> <NA> y <NA> <NA>
SPEAKER m 1 19.000 5.000 <NA> <NA> x <NA> <NA>
SPEAKER m 1 23.000 5.500 <NA> <NA> z <NA> <NA>
"""


def sides(tmp_path: Path, **files: str) -> tuple[Transcript, Transcript, list[str]]:
    """Reference and hypothesis of files `reference_stm=text`, read as the command reads them."""
    paths = {}
    for name, text in files.items():
        side, suffix = name.split("_")
        paths[side] = tmp_path / f"{side}.{suffix}"
        paths[side].write_text(text, encoding="utf-8")
    both = read_sides(paths["reference"], paths["hypothesis"], uem=paths.get("uem"))
    [reference], [hypothesis] = both.references.values(), both.hypotheses.values()
    return reference, hypothesis, summed_up(both.warnings)


def test_words_are_sclites(tmp_path: Path) -> None:
    """`sclite -D`: 16 words, 15 right, 1 substitution; `noise`, `late` and `music` are not scored."""
    reference, hypothesis, _ = sides(tmp_path, reference_stm=STM, hypothesis_ctm=CTM)
    found = score(reference, hypothesis, Normalisation(characters=False))
    assert found.wer == ErrorCounts(0, 0, 1, 16)
    assert found.orcwer == ErrorCounts(0, 0, 1, 16)


@pytest.mark.parametrize(
    ("uem", "collar_s", "figures"),
    [  # scored, missed, false alarm, confused; in seconds, of md-eval.pl
        ("m 1 0.000 30.000\n", 0.0, (20.5, 3.0, 5.8, 1.0)),
        ("m 1 0.000 30.000\n", 0.25, (18.25, 2.25, 4.8, 0.75)),
        ("m 1 1.000 11.000\nm 1 13.000 24.500\n", 0.0, (18.5, 3.0, 2.0, 0.5)),
        ("m 1 1.000 11.000\nm 1 13.000 24.500\n", 0.25, (16.75, 2.25, 2.0, 0.5)),
    ],
)
def test_time_is_md_evals(
    tmp_path: Path, uem: str, collar_s: float, figures: tuple[float, ...]
) -> None:
    reference, hypothesis, said = sides(
        tmp_path, reference_rttm=RTTM, hypothesis_rttm=SYSTEM, uem_uem=uem
    )
    counts, _ = diarization(reference, hypothesis, collar_s, reference.unscored)
    got = counts.reference_s, counts.missed_s, counts.false_alarm_s, counts.confusion_s
    assert got == pytest.approx(figures, abs=1e-6)
    assert said == [
        "reference, m: 2 segments had neither length nor words and were left out",
    ]


def test_a_uem_that_names_other_sessions_is_told(tmp_path: Path) -> None:
    uem = "other 1 0 5\n"
    reference, hypothesis, said = sides(
        tmp_path, reference_rttm=RTTM, hypothesis_rttm=SYSTEM, uem_uem=uem
    )
    assert reference.unscored == ((12.0, 16.0), (15.0, 15.0), (27.0, 27.0))
    assert said[1:] == [
        "reference: the UEM does not name 'm': it is scored whole",
        "reference: the UEM names 'other', which has no reference",
    ]
    assert hypothesis.unscored == ()


@pytest.mark.parametrize(
    ("of_reference", "of_uem"), [("m.wav", "m.wav"), ("m.wav", "m"), ("m", "m.wav")]
)
def test_a_uem_by_the_name_of_a_recording(tmp_path: Path, of_reference: str, of_uem: str) -> None:
    """The reference is scored as `m`, as the hypothesis is called; its UEM is not lost with its name."""
    named = RTTM.replace(" m 1 ", f" {of_reference} 1 ")
    reference, hypothesis, said = sides(
        tmp_path, reference_rttm=named, hypothesis_rttm=SYSTEM, uem_uem=f"{of_uem} 1 0 20\n"
    )
    assert reference.recording == hypothesis.recording == "m"
    assert (20.0, float("inf")) in reference.unscored
    told = [f"reference: the UEM's {of_uem!r} was taken for 'm'"] * (of_uem != "m")
    assert [line for line in said if "UEM" in line] == told


@pytest.mark.parametrize(
    ("uem", "channels"),
    [
        ("m 1 0 20\n", ""),
        ("m A 0 20\n", ""),
        ("m NA 0 20\n", ""),
        ("m 2 0 20\n", "2"),
        ("m 1 0 10\nm B 10 20\n", "1, b"),
    ],
)
def test_channels_of_a_uem_are_told(tmp_path: Path, uem: str, channels: str) -> None:
    reference, _, said = sides(tmp_path, reference_rttm=RTTM, hypothesis_rttm=SYSTEM, uem_uem=uem)
    assert (20.0, float("inf")) in reference.unscored
    note = (
        f"reference: the UEM lists stretches of 'm' by channel ({channels}): transcripts have no "
        "channels, and all of these stretches are scored"
    )
    assert said[1:] == ([note] if channels else [])


@pytest.mark.parametrize(
    ("text", "message"),
    [("m 1 0\n", "u.uem:1: expected 4 UEM fields"), ("m 1 2 1\n", "u.uem:1: ends at 1 s, before"),
     (";; c\nm 1 0 x\n", "u.uem:2: expected end in seconds")],
)  # fmt: skip
def test_a_broken_uem_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "u.uem").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_uem(tmp_path / "u.uem")


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("a b", None),
        ("a { b / c } d", (("a",), ("b", "c"), ("d",))),
        ("{ @ / b c }", (("", "b c"),)),
        ("(uh) yes", (("uh", None), ("yes",))),
        ("{ { a / b } x / y }", (("a x", "b x", "y"),)),
        ("{ a / { b / @ } c / d }", (("a", "b c", "c", "d"),)),
        ("{uh/@} hi {a b /c}d", (("uh", ""), ("hi",), ("a b", "c"), ("d",))),
        ("{a/b/{c / d}} e/f", (("a", "b", "c", "d"), ("e/f",))),
        ("((uh)) yes", (("uh", None), ("yes",))),
        ("x{a / b}", None),
        ("{ a / b", None),
        ("a } b", None),
        ("{ a }", None),
        ("a / b", None),
        ("() ( a )", None),
        ("{ " * 5000, None),
        (" ".join(["{ a / b }"] * 3 + ["{", *["{ a / b }"] * 12, "/ c }"]), None),
    ],
)
def test_choices(text: str, choices: object) -> None:
    assert parse_choices(text) == choices
    if choices:
        assert parse_choices(render_choices(choices)) == choices  # type: ignore[arg-type]


def test_choices_survive_stm_and_json() -> None:
    [one] = formats.FORMATS["stm"].parse(STM, "t.stm")  # type: ignore[misc]
    assert one.unscored == ((0.0, 1.0), (7.0, 9.0))
    assert next(s.text for s in one.segments) == "i am going to be uh fine"
    for name in ("stm", "json"):
        [back] = formats.FORMATS[name].parse(formats.render(one, name), "t")  # type: ignore[misc]
        assert (back.segments, back.unscored) == (one.segments, one.unscored)
    [rttm] = formats.FORMATS["rttm"].parse(formats.render(one, "rttm"), "t")  # type: ignore[misc]
    assert rttm.unscored == one.unscored


@pytest.mark.parametrize(
    ("text", "expected", "warnings"),
    [
        ("<o> hi", "hi", ()),
        ("<f0,male> hi", "hi", ()),
        ("<NA> hi", "hi", ()),
        ("<unk> hi", "hi", ("1 texts begin with a mark such as <unk>: a label, as in sclite",)),
        ("hi <unk>", "hi <unk>", ()),
        (
            "{ uh / hi",
            "{ uh / hi",
            ("1 texts hold braces that are no alternatives: read as words",),
        ),
    ],
)
def test_labels_and_braces_of_stm_are_sclites(
    text: str, expected: str, warnings: tuple[str, ...]
) -> None:
    [found] = formats.FORMATS["stm"].parse(f"t 1 A 0 2 {text}\n", "t.stm")  # type: ignore[misc]
    assert ([s.text for s in found.segments], found.warnings) == ([expected], warnings)


def test_where_md_eval_differs(tmp_path: Path) -> None:
    """Behind the last NOSCORE md-eval finds 0 s of false alarm; with collars it confuses 0.81 s of the second."""
    reference, hypothesis, _ = sides(
        tmp_path,
        reference_rttm="SPEAKER m 1 16.85 1 <NA> <NA> B <NA> <NA>\nNOSCORE m 1 17.5 4.75 <NA> <NA> <NA> <NA> <NA>\n",
        hypothesis_rttm="SPEAKER m 1 24.4 1 <NA> <NA> x <NA> <NA>\n",
        uem_uem="m 1 0 30\n",
    )
    counts, _ = diarization(reference, hypothesis, 0.0, reference.unscored)
    assert counts.false_alarm_s == pytest.approx(1.0)
    turns = [
        ("A", 21.2, 0.918),
        ("C", 13.71, 3.212),
        ("B", 20.304, 1),
        ("A", 15.4, 0.214),
        ("A", 6.24, 1),
    ]
    turns += [("B", 8.95, 0.205), ("C", 10.29, 2.96), ("B", 20.08, 3.57)]
    found = [
        ("y", 9.6, 1.746),
        ("x", 8.71, 0.786),
        ("x", 14.95, 1.105),
        ("y", 8.5, 1),
        ("y", 10.1, 0.344),
    ]
    texts = [
        "".join(
            f"SPEAKER m 1 {start} {lasts} <NA> <NA> {who} <NA> <NA>\n" for who, start, lasts in side
        )
        for side in (turns, found)
    ]
    reference, hypothesis, _ = sides(
        tmp_path, reference_rttm=texts[0], hypothesis_rttm=texts[1], uem_uem="m 1 0 30\n"
    )
    counts, _ = diarization(reference, hypothesis, 0.25, reference.unscored)
    assert counts.missed_s == pytest.approx(5.82, abs=0.01)  # as md-eval
    assert counts.confusion_s == pytest.approx(0.391)


@pytest.mark.parametrize(
    ("uem", "left_out"),
    [("rec 1 0 1\n", False), ("rec 1 5 9\n", True), ("rec 1 1.5 9\n", False), ("x 1 5 9\n", False)],
)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_reference_of_which_nothing_is_scored_is_told(
    tmp_path: Path, uem: str, left_out: bool, ignored: bool
) -> None:
    lines = "rec 1 A 0 1 hello\nrec 1 B 1 2 there\n"
    lines += (
        "rec 1 x 0 1.2 ignore_time_segment_in_scoring\nrec 1 x 1.2 2 ignore_time_segment_in_scoring\n"
        if ignored
        else ""
    )
    (tmp_path / "ref.stm").write_text(lines)
    (tmp_path / "a.uem").write_text(uem)
    sides = read_sides(tmp_path / "ref.stm", tmp_path / "ref.stm", uem=tmp_path / "a.uem")
    told = [row for row in sides.warnings if "nothing of it is scored" in str(row["warning"])]
    assert [row["recording"] for row in told] == (["rec"] if left_out or ignored else [])


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        (
            "stm",
            "my rec 1 A 0 1 hello",
            "expected start in seconds, got 'A'; white space in a name is `_`",
        ),
        (
            "rttm",
            "SPEAKER rec 1 0 1 <NA> <NA> Ana Moe <NA> <NA>",
            "got 11; white space in a name is `_`",
        ),
    ],
)
def test_names_with_white_space_in_lines_of_fields_are_said(
    tmp_path: Path, name: str, line: str, message: str
) -> None:
    (tmp_path / f"a.{name}").write_text(line)
    with pytest.raises(FormatError, match=re.escape(message)):
        load(tmp_path / f"a.{name}")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "told"),
    [("stm", "rttm", True), ("rttm", "rttm", False), ("rttm", "stm", False)],
)
def test_a_hypothesis_without_words_is_told(
    tmp_path: Path, reference: str, hypothesis: str, told: bool
) -> None:
    texts = {"stm": "m 1 A 0 2 hello\n", "rttm": "SPEAKER m 1 0 2 <NA> <NA> A <NA> <NA>\n"}
    files = {
        f"reference_{reference}": texts[reference],
        f"hypothesis_{hypothesis}": texts[hypothesis],
    }
    *_, warnings = sides(tmp_path, **files)
    assert any("no segment holds words" in text for text in warnings) == told


def test_rttm_is_no_stm() -> None:
    for line in (
        "SPEAKER a 1 0.5 1.5 <NA> <NA> A <NA> <NA>",
        "LEXEME a 1 0.5 0.3 hi lex A <NA>",
    ):
        with pytest.raises(FormatError, match=r"t\.stm:1: expected STM, got a line of RTTM"):
            formats.FORMATS["stm"].parse(f"{line}\n", "t.stm")  # type: ignore[misc]


def test_gaps_between_segments_are_nobodys() -> None:
    text = "t 1 A 0 2 <o,,> hi\nt 1 inter_segment_gap 2 3 <o,,>\nt 1 A 3 4 <o,,> ho\n"
    [found] = formats.FORMATS["stm"].parse(text, "t.stm")  # type: ignore[misc]
    assert found.speakers == ("A",)
    assert found.warnings == ("1 segments of inter_segment_gap are nobody's and were not read",)


def test_alternations_of_ctm() -> None:
    text = (
        "f 1 0.0 0.3 i\nf 1 * * <ALT_BEGIN>\nf 1 0.4 0.2 going\nf 1 0.6 0.2 to\nf 1 * * <ALT>\n"
        "f 1 0.4 0.4 gonna\nf 1 * * <ALT_END>\nf 1 0.9 0.2 go\nf 1 * * <ALT_BEGIN>\n"
        "f 1 1.2 0.1 @\nf 1 * * <ALT>\nf 1 1.2 0.1 uh\nf 1 * * <ALT_END>\n"
    )
    [found] = formats.FORMATS["ctm"].parse(text, "f.ctm")  # type: ignore[misc]
    [segment] = found.segments
    assert segment.text == "i going to go uh"
    assert segment.choices == (("i",), ("going to", "gonna"), ("go",), ("uh", ""))
    assert segment.words is not None and len(segment.words) == 5
    said = Transcript("f", 2.0, (Segment("x", 0.0, 1.3, "i gonna go"),))
    assert score(found, said).wer == ErrorCounts(0, 0, 0, 3)
    for broken in (
        text.replace("f 1 * * <ALT_BEGIN>\n", "", 1),
        text.rsplit("f 1 * * <ALT_END>", 1)[0],
    ):
        with pytest.raises(FormatError, match=r"f\.ctm:\d+: "):
            formats.FORMATS["ctm"].parse(broken, "f.ctm")  # type: ignore[misc]


def test_alternatives_of_a_hypothesis_are_told(tmp_path: Path) -> None:
    text = "t 1 A 0 4 we { met / saw } him\n"
    _, _, said = sides(tmp_path, reference_stm="t 1 A 0 4 we met him\n", hypothesis_stm=text)
    assert said == ["hypothesis, t: 1 segments hold alternatives: the first of each is scored"]


# Laws

PARTS = st.lists(
    st.one_of(
        st.sampled_from("abc").map(lambda word: (word,)),
        st.lists(st.sampled_from(["a", "b c", "c", ""]), min_size=2, max_size=3, unique=True).map(
            tuple
        ),
    ),
    min_size=1,
    max_size=5,
)


def distance(one: list[str], other: list[str]) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row, before = [i], row
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


@settings(max_examples=150, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=2), st.lists(st.sampled_from("abc"), max_size=8))
def test_the_choices_made_need_the_fewest_edits(
    parts: list[list[tuple[str, ...]]], heard: list[str]
) -> None:
    segments = [
        Segment("s", i, i + 1, " ".join(p[0] for p in row if p[0]), choices=tuple(row))
        for i, row in enumerate(parts)
    ]
    made, skipped = resolved(segments, heard, WORDS)
    ways = [[]]
    for row in parts:
        for part in row:
            ways = [way + choice.split() for way in ways for choice in part]
    best = min(distance(way, heard) for way in ways)
    assert distance([w for s in made for w in s.text.split()], heard) == best
    assert skipped == 0
    assert all(segment.choices is None for segment in made)


STRETCHES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=4).map(
    lambda rows: [(a / 4, (a + b) / 4) for a, b in rows]
)


@settings(max_examples=100, deadline=None)
@given(STRETCHES, STRETCHES)
def test_what_is_left_lies_outside_and_twice_is_once(
    spoken: list[tuple[float, float]], unscored: list[tuple[float, float]]
) -> None:
    rows = [Segment("s", a, b, "one two three") for a, b in spoken if b > a]
    transcript = Transcript("r", 20.0, tuple(rows), unscored=tuple(unscored))
    left = without(transcript, unscored)
    for segment in left.segments:
        assert all(b <= segment.start_s or a >= segment.end_s for a, b in merged(unscored))
    assert without(left, unscored) == left
    words = [w for s in left.segments for w in s.text.split()]
    assert len(words) <= 3 * len(rows)
    assert without(transcript, []) == transcript


@given(STRETCHES)
def test_a_uem_and_what_it_leaves_out_are_all_time(listed: list[tuple[float, float]]) -> None:
    edges = sorted([*merged(listed), *outside(listed)])
    assert edges[0][0] == 0.0 and edges[-1][1] == float("inf")
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))


def test_a_word_goes_by_its_middle() -> None:
    words = (Word("a", 0.0, 1.0), Word("b", 1.2, 2.0), Word("c", 2.0, 3.0))
    segment = Segment("s", 0.0, 3.0, "a b c", words=words)
    one = Transcript("r", 3.0, (segment,))
    [left] = without(one, [(0.0, 1.5)]).segments
    assert (left.text, left.start_s, left.end_s) == ("b c", 1.5, 3.0)
    assert left.words == (Word("b", 1.5, 2.0), Word("c", 2.0, 3.0))
    [left] = without(replace(one, segments=(replace(segment, words=None),)), [(0.0, 1.5)]).segments
    assert left.text == "b c"  # each word has a third of the time, the second's middle is at 1.5
    assert without(one, [(0.0, 9.0)]).segments == ()


def test_what_readers_noticed_is_printed_and_stored_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from speaker_reasoner.cli import main

    folder = tmp_path / "hypotheses"
    folder.mkdir()
    for name in ("one", "two"):
        cue = "00:00:00,000 --> 00:00:04,000\nwe met him\n"
        (folder / f"{name}.srt").write_text(cue, encoding="utf-8")
    (tmp_path / "r.stm").write_text("one 1 A 0 4 we met him\ntwo 1 A 0 4 we met him\n")
    result = tmp_path / "result.json"
    assert main(["evaluate", "score", str(tmp_path / "r.stm"), str(folder), "-o", str(result)]) == 0
    said = "cues name no speaker and were given to 'unknown'"
    assert f"warning: hypothesis: 2 {said} (in 2 recordings)" in capsys.readouterr().err
    stored = json.loads(result.read_text("utf-8"))["warnings"]
    assert stored == [
        {"side": "hypothesis", "recording": name, "warning": f"1 {said}"} for name in ("one", "two")
    ]
    page = tmp_path / "report.html"
    assert main(["evaluate", "report", str(result), "-o", str(page)]) == 0
    assert "cues name no speaker" in page.read_text("utf-8")


def test_names_that_are_not_utf_8_are_scored_stored_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speaker_reasoner.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("caf\udce9.stm", "other\udce9.stm"):
        Path(name).write_text("caf\u00e9 1 A 0 2 hi there\n", "utf-8")
    arguments = ["evaluate", "score", "caf\udce9.stm", "other\udce9.stm", "-o", "out\udce9.json"]
    assert main(arguments) == 0
    assert main(["evaluate", "report", "out\udce9.json", "-o", "r\udce9.html"]) == 0
    assert main(["evaluate", "leaderboard", "out\udce9.json", "-o", "l\udce9.html"]) == 0
    assert json.loads(Path("out\udce9.json").read_bytes())["reference"] == "caf\udce9.stm"
    assert "\ufffd" in Path("r\udce9.html").read_text("utf-8")
