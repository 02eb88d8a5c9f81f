"""ASS, LRC, SAMI and TTML: what is read, whose it is, and what is refused."""

from pathlib import Path

import pytest

from speaker_reasoner import formats
from speaker_reasoner.errors import FormatError
from speaker_reasoner.evaluate.inputs import read_sides
from speaker_reasoner.formats.folders import load
from speaker_reasoner.transcript import Segment, Transcript

HEAD = """[Script Info]
Title: x
[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,D,Ana,0,0,0,,a note
"""
TALK = [("Ana", 0.5, 1.5, "hello, there"), ("Bo", 2.0, 3.0, "good day"), ("Ana", 4.0, 5.0, "bye")]
TIMES = ["0:00:00.50,0:00:01.50", "0:00:02.00,0:00:03.00", "0:00:04.00,0:00:05.00"]


def events(names: list[str], texts: list[str], layer: int = 0) -> str:
    rows = zip(TIMES, names, texts, strict=True)
    return "".join(f"Dialogue: {layer},{t},D,{n},0,0,0,,{text}\n" for t, n, text in rows)


SAID = [text for *_, text in TALK]
NAMES = [name for name, *_ in TALK]
NAMED = [f"{name}: {text}" for name, _, _, text in TALK]
MARKED = ["{\\i1}hello,{\\i0}\\Nthere", "{\\k20}good {\\k30}day", "\\hbye"]
SAMI = """<SAMI><HEAD><STYLE TYPE="text/css"><!-- P { color: white } --></STYLE></HEAD><BODY>
<SYNC Start=500><P Class=EN>Ana: hello,<br>there
<SYNC Start=1500><P Class=EN>&nbsp;
<sync start="2000"><p class="EN"><font color="red">Bo: good day</font></p>
<SYNC Start=3000><P Class=EN>&nbsp;
<SYNC Start=4000><P Class=EN>Ana: bye<P Class=FR>salut
<SYNC Start=5000><P Class=EN>&nbsp;</BODY></SAMI>
"""


def ttml(body: str) -> str:
    names = 'xmlns="http://www.w3.org/ns/ttml" xmlns:ttm="http://www.w3.org/ns/ttml#metadata"'
    rates = (
        'xmlns:ttp="http://www.w3.org/ns/ttml#parameter" ttp:frameRate="25" ttp:tickRate="10000000"'
    )
    agents = "".join(
        f'<ttm:agent xml:id="{n}" type="person"><ttm:name type="full">{name}</ttm:name></ttm:agent>'
        for n, name in (("a", "Ana"), ("b", "Bo"))
    )
    head = f"<head><metadata>{agents}</metadata></head>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<tt {names} {rates}>{head}<body>{body}</body></tt>'


LRC = """[ti:x]\n[by:whisper.cpp]
[00:00.50] Ana: hello, <00:01.00> there\n[00:01.50]\n[00:02.00]Bo: good day\n[00:03.00]
[00:04.00]Ana: bye\n[00:05.00]
"""


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.ass", HEAD + events(NAMES, SAID), []),
        ("a.ass", HEAD + events(NAMES, MARKED), []),
        ("a.SSA", HEAD + events(["", "", ""], NAMED), []),
        ("a.ass", HEAD + events(NAMES, SAID) + events(NAMES, MARKED, 1), ["3 events come again"]),
        ("a.ass", HEAD + events(NAMES, SAID) + events(NAMES, ["{\\p1}m 0 0 l 1 1{\\p0}"] * 3),
         ["3 events are drawings"]),
        ("a.smi", SAMI, ["1 captions are of another class"]),
        ("a.ttml", ttml('<p begin="00:00:00.5" end="00:00:01.500">Ana: hello,<br/> <span>there</span></p>'
         '<p begin="2s" dur="1s">Bo: good day</p><p begin="4000ms" end="5s">Ana: bye</p><p begin="6s"/>'), []),
        ("a.dfxp", ttml('<div begin="0.5s"><p begin="0s" end="1s" ttm:agent="a">hello, there</p></div>'
         '<div ttm:agent="b"><p begin="00:00:02:00" end="00:00:03:00">good day</p></div>'
         '<p ttm:agent="a"><span begin="100f" end="125f">bye</span></p>'), []),
        ("a.ttml", ttml('<p begin="5000000t" end="15000000t">Ana: hello, there</p>'
         '<p begin="20000000t" end="30000000t">Bo: good day</p><p begin="40000000t">Ana: bye</p>'),
         ["1 paragraphs have no end"]),
        ("a.lrc", LRC, ["3 lines have no end"]),
        ("a.lrc", LRC.replace("[ti:x]", "[offset:-500]").replace("00:00.50", "00:00.00").replace("01.50", "01.00")
         .replace("02.00", "01.50").replace("03.00", "02.50").replace("04.00", "03.50").replace("05.00", "04.50"),
         ["3 lines have no end"]),
    ],
)  # fmt: skip
def test_captions_of_players(tmp_path: Path, name: str, text: str, told: list[str]) -> None:
    (tmp_path / name).write_text(text)
    for source in (tmp_path / name, tmp_path):
        [one] = load(source).values()
        assert [(s.speaker, s.start_s, s.end_s, s.text) for s in one.segments] == TALK
        assert len(one.warnings) == len(told)
        assert all(w.startswith(t) for w, t in zip(one.warnings, told, strict=True))


def test_our_own_ass_is_scored_without_errors(tmp_path: Path) -> None:
    segments = (Segment("Ana", 0.5, 2.0, "hello, there", "female"), Segment("Bo", 1.5, 3.0, "yes"))
    for kind in ("ass", "json"):
        formats.write(Transcript("call", 9.0, segments), tmp_path / kind, [kind])
    sides = read_sides(tmp_path / "json", tmp_path / "ass")
    rows = [(s.speaker, s.gender, s.text) for s in sides.hypotheses["call"].segments]
    assert rows == [("Ana", "female", "hello, there"), ("Bo", "unknown", "yes")]
    assert sides.warnings == ()


def test_lines_sung_again_and_the_last_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.lrc").write_text("[00:01.00][00:04.00]la\n[00:02:50]lo\n[00:02.50]li\n")
    [one] = load(tmp_path / "a.lrc").values()
    assert [(s.start_s, s.end_s, s.text) for s in one.segments] == [
        (1.0, 2.5, "la"), (2.5, 4.0, "lo"), (2.5, 4.0, "li"), (4.0, 5.0, "la")
    ]  # fmt: skip
    assert any(w.startswith("1 lines at the end last as long") for w in one.warnings)


def test_styles_that_may_tell_people_apart_are_told(tmp_path: Path) -> None:
    text = HEAD + events(["", "", ""], SAID).replace(",D,", ",E,", 1)
    (tmp_path / "a.ass").write_text(text)
    [one] = load(tmp_path / "a.ass").values()
    assert any(w.startswith("2 styles of events may tell people apart") for w in one.warnings)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.ass", HEAD + "Dialogue: 0,0:00:01.00,soon,D,,0,0,0,,hi\n", "a.ass:9: expected times such as"),
        ("a.ass", HEAD + "Dialogue: 0,0:00:01.00\n", "a.ass:9: expected the fields"),
        ("a.ass", HEAD + "Dialogue: 0,0:00:03.00,0:00:02.00,D,,0,0,0,,hi\n", "before it starts"),
        ("a.ass", "hello\n", r"expected a section \[Events\]"),
        ("a.lrc", "hello\n", "a.lrc:1: expected a line such as"),
        ("a.lrc", "[ti:x]\n", "expected lines such as"),
        ("a.lrc", "[00:75.00]hi\n", "expected seconds below 60"),
        ("a.ttml", ttml("")[:60], "not XML"),
        ("a.ttml", "<html/>", "expected timed text"),
        ("a.ttml", ttml("<div>" * 5000 + "</div>" * 5000), "too deep in each other"),
        ("a.ttml", ttml('<p begin="soon">hi</p>'), "a.ttml, <p>: expected a time such as"),
        ("a.ttml", ttml('<div timeContainer="seq"><p dur="1s">hi</p></div>'), "expected captions with times"),
        ("a.ttml", ttml('<p begin="2s" end="1s">hi</p>'), "before it starts"),
        ("a.smi", "<SAMI></SAMI>", "expected captions such as <SYNC"),
    ],
)  # fmt: skip
def test_what_it_is_not_is_said(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=message):
        load(tmp_path / name)
