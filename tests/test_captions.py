"""Captions and TextGrids as programs write them: cues, names, tags, rolling lines, aligners' tiers."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speaker_reasoner import formats
from speaker_reasoner.errors import FormatError
from speaker_reasoner.formats.folders import load
from speaker_reasoner.formats.names import is_name
from speaker_reasoner.formats.reading import Habits, render_srt_to_read
from speaker_reasoner.transcript import Segment, Transcript

TALK = [("Ann Lee", "good morning"), ("Bob", "hello there"), ("Ann Lee", "bye")]


def parse(name: str, text: str, where: str = "talk.x") -> Transcript:
    parser = formats.FORMATS[name].parse
    assert parser is not None
    [transcript] = parser(text, where)
    return transcript


def folders_read(name: str, text: str) -> Transcript:
    """A text file as `evaluate score` reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        [transcript] = load(path).values()
    return transcript


def said(transcript: Transcript) -> list[tuple[str, str]]:
    return [(s.speaker, s.text) for s in transcript.segments]


def clock(second: int, point: str = ",") -> str:
    return f"00:00:{second:02d}{point}000"


def srt(*texts: str, number: bool = True, between: str = "\n", last: str = "\n") -> str:
    cues = [
        (f"{n}\n" if number else "") + f"{clock(2 * n)} --> {clock(2 * n + 1)}\n{text}\n"
        for n, text in enumerate(texts, 1)
    ]
    return between.join(cues) + last


def vtt(*texts: str, head: str = "WEBVTT\n\n") -> str:
    return head + "\n".join(
        f"{clock(2 * n, '.')} --> {clock(2 * n + 1, '.')}\n{text}\n"
        for n, text in enumerate(texts, 1)
    )


NAMED = [f"{who}: {words}" for who, words in TALK]


@pytest.mark.parametrize(
    "text",
    [
        srt(*NAMED),
        srt(*NAMED, between=""),  # no empty lines between cues
        srt(*NAMED, number=False),
        srt(*NAMED, between="\n\n\n"),
        srt(*NAMED, last="\n\n1234\n").replace("1234\n", ""),
        srt(*NAMED).replace(",000", ".000"),
        srt(*NAMED).replace(",000", ""),
        "\n\n" + srt(*NAMED),
        srt("Ann Lee: good\nmorning", "Bob: hello\nthere", "Ann Lee: bye"),
        srt("<i>Ann Lee: good <b>morning</b></i>", '<font color="#ff0">Bob: hello there</font>', "{\\an8}Ann Lee: bye"),
        srt("[Ann Lee]: good morning", "[Bob]: hello there", "[Ann Lee]: bye"),
        srt(">> Ann Lee: good morning", ">> Bob: hello there", ">>> Ann Lee: bye"),
        srt("Ann Lee:\ngood morning", "Bob:\nhello there", "Ann Lee:\nbye"),
    ],
)  # fmt: skip
def test_srt_of_others_says_the_same(text: str) -> None:
    parsed = parse("srt", text)
    assert said(parsed) == TALK
    assert [s.start_s for s in parsed.segments] == [2.0, 4.0, 6.0]
    assert parsed.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        vtt(*NAMED),  # Zoom
        vtt(*NAMED).replace("00:00:", "00:"),
        vtt(*NAMED).replace("\n\n00", "\n00").replace("WEBVTT\n", "WEBVTT\n\n"),
        vtt(*(f"<v {who}>{words}</v>" for who, words in TALK)),  # Teams
        vtt(*(f"<v.loud {who}>{words}" for who, words in TALK)),
        vtt("<v Ann Lee>good\nmorning</v>", "<v Bob>hello there</v>", "<v Ann Lee>bye</v>"),
        "WEBVTT\n\n" + srt(*NAMED).replace(",", "."),
        vtt(
            *NAMED,
            head="WEBVTT - x\nKind: captions\nLanguage: en\n\nNOTE a\nb\n\nSTYLE\n::cue {}\n\n",
        ),
        vtt("<c.white>Ann Lee: good morning</c>", "<i>Bob:</i> hello there", "Ann Lee: bye"),
    ],
)
def test_vtt_of_others_says_the_same(text: str) -> None:
    parsed = parse("vtt", text)
    assert said(parsed) == TALK
    assert parsed.warnings == ()


def test_a_cue_with_two_people_is_two_segments() -> None:
    parsed = parse("srt", srt("Ann: hi\nBob: hello", "Ann: bye\nnow"))
    assert said(parsed) == [("Ann", "hi"), ("Bob", "hello"), ("Ann", "bye now")]
    parsed = parse("vtt", vtt("<v Ann>hi</v>\n<v Bob>hello</v>", "<v Ann>bye now</v>"))
    assert sorted(said(parsed)) == [("Ann", "bye now"), ("Ann", "hi"), ("Bob", "hello")]


@pytest.mark.parametrize(
    "texts",
    [
        ["There is only one cause of this: rain.", "So he said to me: go home", "and I went."],
        ["Remember: buy milk", "Note: it is late", "Question: why?"],
        ["at 10:30 we met", "http://x.org is it", "a ratio of 3:1"],
        ["He told me: no", "she told him: yes"],
        ["as follows: one", "two", "three: four"],
        ["他昨天在会上对我们大家说：回家", "然后我们就走了"],
    ],
)
def test_a_colon_in_speech_is_no_name(texts: list[str]) -> None:
    for parsed in (parse("srt", srt(*texts)), parse("vtt", vtt(*texts))):
        assert said(parsed) == [("unknown", text) for text in texts]
        assert parsed.warnings == (
            f"{len(texts)} cues name no speaker and were given to 'unknown'",
        )


def test_names_of_other_scripts_and_forms() -> None:
    texts = ["张三：你好", "李四：好", "张三：再见"]
    assert said(parse("srt", srt(*texts))) == [("张三", "你好"), ("李四", "好"), ("张三", "再见")]
    texts = ["SPEAKER_00: a", "SPEAKER_01: b", "speaker 3: c", "Dr. Ana de la Cruz (she/her): d"]
    names = ["SPEAKER_00", "SPEAKER_01", "speaker 3", "Dr. Ana de la Cruz (she/her)"]
    assert [s.speaker for s in parse("srt", srt(*texts)).segments] == names
    texts = ["[Speaker 1] hi", "[Speaker 2] hello", "[music] la", "(laughs) yes"]
    assert [s.speaker for s in parse("srt", srt(*texts)).segments] == [
        "Speaker 1",
        "Speaker 2",
        "unknown",
        "unknown",
    ]
    texts = ["alice: hi", "bob: hello", "alice: how are you", "bob: fine"]
    assert parse("srt", srt(*texts)).speakers == ("alice", "bob")


def test_some_cues_without_a_name_are_told() -> None:
    parsed = parse("srt", srt("JOHN: wait", "I said wait", "all right: go", "JOHN: fine", "yes"))
    assert said(parsed)[0] == ("JOHN", "wait")
    assert said(parsed)[2] == ("unknown", "all right: go")
    assert parsed.warnings == ("3 cues name no speaker and were given to 'unknown'",)


PLAIN = ["it rains today", "and it will go on", "until the evening", "so stay at home"]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["LONDON: the queen arrives"], set()),
        (["LONDON: the queen arrives", "PARIS: strikes go on"], set()),
        (["NEW YORK: stocks fall"], set()),
        (["BREAKING NEWS: stocks fall", "BREAKING NEWS: stocks rise"], set()),
        (["UPDATE: it rains", "MUSIC: la la", "SOURCE: the ministry"], set()),
        (["STEP 1: wait", "CHAPTER TWO: the end"], set()),
        (
            ["Ana: hello", "Ana: bye", "LONDON: the queen arrives", "Bob: yes", "Bob: no"],
            {"Ana", "Bob"},
        ),
        (["MAN: who is it"], {"MAN"}),
        (["WOMAN 2: who is it", "OLD MAN: me"], {"WOMAN 2", "OLD MAN"}),
        (["MAN #1: who", "MAN #2: me"], {"MAN #1", "MAN #2"}),
        (["TV ANNOUNCER: hello", "BOTH: yes", "ALL: no"], {"TV ANNOUNCER", "BOTH", "ALL"}),
        (["MANN: wer", "MUJER: yo", "NARRATEUR: lui"], {"MANN", "MUJER", "NARRATEUR"}),
        (["MARY: hello", "MARY: bye", "JOHN: yes"], {"MARY", "JOHN"}),  # beside one that recurs
        (["MAN: hello", "JOHN: yes"], {"MAN", "JOHN"}),
        ([">> JOHN: hello"], {"JOHN"}),
        (["- JOHN: hello\n- MARY: yes", "- MARY: no"], {"JOHN", "MARY"}),
        (["DR. SMITH: hello", "DR. SMITH: bye"], {"DR. SMITH"}),
    ],
)
@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_capitals_before_a_colon(kind: str, lines: list[str], named: set[str]) -> None:
    """As captions for the deaf name people, and as others name places and parts."""
    texts = [*PLAIN, *lines]
    parsed = parse(kind, (srt if kind == "srt" else vtt)(*texts))
    assert {s.speaker for s in parsed.segments} == named | {"unknown"}
    read = " ".join(s.text for s in parsed.segments)
    left = [
        line
        for line in lines
        if line.split(":")[0] not in named and ">>" not in line and "-" not in line
    ]
    assert all(line in read for line in left)
    assert any("begin with capitals and a colon" in text for text in parsed.warnings) == bool(left)


def test_whoever_is_in_capitals_in_a_meeting_is_a_speaker() -> None:
    texts = ["Ana Moe: hello", "BOB: yes", "Ana Moe: bye"]
    assert parse("vtt", vtt(*texts)).speakers == ("Ana Moe", "BOB")
    assert parse("srt", srt("LONDON: rain", *["Ana: so", "Ana: no"] * 2, "well")).speakers == (
        "unknown",
        "Ana",
    )


@given(st.text(max_size=30))
def test_whatever_may_be_a_name(text: str) -> None:
    assert is_name(text) in (True, False)
    assert not is_name(f"so {text}")


ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:02.000 align:start position:0%
 
hello<00:00:00.500><c> there</c><00:00:01.000><c> all</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
hello there all
 

00:00:02.010 --> 00:00:04.000 align:start position:0%
hello there all
how<00:00:02.500><c> are</c><00:00:03.000><c> you</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
how are you
 

00:00:04.010 --> 00:00:06.000 align:start position:0%
how are you
fine<00:00:05.000><c> thanks</c>
"""


def test_lines_that_roll_are_read_once() -> None:
    parsed = parse("vtt", ROLLING)
    assert [s.text for s in parsed.segments] == ["hello there all", "how are you", "fine thanks"]
    assert parsed.warnings[0] == "4 cues repeat lines of the cue before, which were read once"
    words = parsed.segments[1].words
    assert words is not None and [(w.text, w.start_s) for w in words][1:] == [
        ("are", 2.5),
        ("you", 3.0),
    ]


def test_people_who_repeat_themselves_are_read_twice() -> None:
    texts = ["Ann: no", "Ann: no", "Ann: no", "Bob: yes"]
    cues = [f"{clock(n)} --> {clock(n + 1)}\n{text}\n" for n, text in enumerate(texts)]
    assert [s.text for s in parse("srt", "\n".join(cues)).segments] == ["no", "no", "no", "yes"]


def test_text_behind_an_empty_line_belongs_to_the_cue() -> None:
    parsed = parse("srt", srt("Ann: one\n\ntwo", "Ann: three"))
    assert said(parsed) == [("Ann", "one two"), ("Ann", "three")]
    assert parsed.warnings == ("1 cues hold empty lines; what follows them was read as their text",)
    with pytest.raises(FormatError, match=r"talk\.x:6: expected '<start> --> <end>', got 'two'"):
        parse("vtt", vtt("Ann: one\n\ntwo"))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["<v Ann>hi", "<v.loud Bob>hello</v>"], [("Ann", "hi"), ("Bob", "hello")]),
        (
            ["[Ann] hi", "[Bob] hello", "[Ann] bye"],
            [("Ann", "hi"), ("Bob", "hello"), ("Ann", "bye")],
        ),
        (["(Ann) hi", "(Bob) a: b"], [("Ann", "hi"), ("Bob", "a: b")]),
        ([">> Ann: hi", "yes", "no"], [("Ann", "hi"), ("unknown", "yes"), ("unknown", "no")]),
        (["- Ann: hi\n- Bob: oh", "- Ann: bye"], [("Ann", "hi"), ("Bob", "oh"), ("Ann", "bye")]),
        (["राम: हाँ", "सीता: नहीं", "राम: जी"], [("राम", "हाँ"), ("सीता", "नहीं"), ("राम", "जी")]),
        (
            ["a.moe@x.org: hi", "Bob's iPhone 12: oh", "Room 3 (Boston): bye"],
            [("a.moe@x.org", "hi"), ("Bob's iPhone 12", "oh"), ("Room 3 (Boston)", "bye")],
        ),
        (
            ["+1 555-0100: hi", "Müller, Jörg: oh", "+1 555-0100: bye"],
            [("+1 555-0100", "hi"), ("Müller, Jörg", "oh"), ("+1 555-0100", "bye")],
        ),
        (
            ["ana 🌸: hi", "bob: oh", "ana 🌸: x: y"],
            [("ana 🌸", "hi"), ("bob", "oh"), ("ana 🌸", "x: y")],
        ),
        (
            ["Al: hi", "Van Morrison: oh", "Page: well", "Al: bye"],
            [("Al", "hi"), ("Van Morrison", "oh"), ("Page", "well"), ("Al", "bye")],
        ),
        (["He told me: no", "He told me: yes", "She asked us all: why"], None),
        (["He said: no", "He said: yes", "She said: why"], None),
        (["[Music] la la", "[Applause] thanks"], None),
        (["Page 3: see", "Day 1: rain", "Page 3: again"], None),
        (["Step 1: open", "Psalm 23: read", "Step 1: again", "Monday: rain", "Monday: sun"], None),
        (["Achtung: eins", "Achtung: zwei", "gut"], None),
        (
            ["Frage: eins", "Antwort: zwei", "Frage: drei", "Die Sache: gut", "Die Sache: nein"],
            None,
        ),
        (["注意：一", "注意：二", "好"], None),
        (["Pregunta: uno", "Respuesta: dos", "Pregunta: tres"], None),
    ],
)
def test_names_of_captions_of_others(
    lines: list[str], expected: list[tuple[str, str]] | None
) -> None:
    expected = expected or [("unknown", line) for line in lines]
    assert sorted(said(parse("srt", srt(*lines)))) == sorted(expected)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("<i>so", "so"),
        ("{b}so{/b} {y:i}well", "so well"),
        ("{\\an8}so\\Nwell\\hnow", "so well now"),
        ("<FONT COLOR=red>so", "so"),
        ("so<br/>well", "so well"),
        ("<p>so</p>", "so"),
        ("Q&amp;A &lt;3 it&#39;s&nbsp;so", "Q&A <3 it's so"),
        ("AT&T &c; a < b > c", "AT&T &c; a < b > c"),
    ],
)
def test_marks_of_subrip_are_no_words(line: str, words: str) -> None:
    parsed = parse("srt", srt(line, "well"))
    assert said(parsed) == [("unknown", words), ("unknown", "well")]
    assert any("character references" in w for w in parsed.warnings) == ("&amp;" in line)


@pytest.mark.parametrize(
    "timing",
    [
        "00:00:03,000 -> 00:00:04,000",
        "00:00:03,000 –> 00:00:04,000",
        "00:00:03,000 → 00:00:04,000",
        "00：00：03,000 --> 00：00：04,000",
        "-00:00:03,000 --> 00:00:04,000",
        "00:00:03;000 --> 00:00:04;000",
    ],
)
def test_lines_that_are_almost_timings_are_refused_and_no_words(timing: str) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,000\nhi\n\n2\n{timing}\nhello\n"
    for known, head in (("srt", ""), ("vtt", "WEBVTT\n\n")):
        with pytest.raises(FormatError, match="expected '<start> --> <end>', got"):
            parse(known, head + text.replace("01,000", "01.000").replace("02,000", "02.000"))


@pytest.mark.parametrize("words", ["0.5 → 0.7", "1.5 -> 2", "2:1 => 3:1", "at 10:30 -> 11:00"])
def test_numbers_and_arrows_are_words(words: str) -> None:
    assert said(parse("srt", srt("so", words))) == [("unknown", "so"), ("unknown", words)]


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_lines_may_end_as_on_old_macs(tmp_path: Path, name: str) -> None:
    text = srt(*(f"{who}: {words}" for who, words in TALK))
    if name == "vtt":
        text = vtt(*(f"<v {who}>{words}" for who, words in TALK))
    (tmp_path / f"talk.{name}").write_bytes(text.replace("\n", "\r").encode())
    [parsed] = load(tmp_path / f"talk.{name}").values()
    assert said(parsed) == TALK


def test_names_of_webex_are_speakers() -> None:
    blocks = [
        f'{n} "{name}" ({n * 7})\n{clock(n, ".")} --> {clock(n + 1, ".")}\n{words}\n'
        for n, (name, words) in enumerate(TALK, start=1)
    ]
    assert said(parse("vtt", "WEBVTT\n\n" + "\n".join(blocks))) == TALK


def test_cues_that_are_no_words() -> None:
    for text in ('{"a": 1}', "sprite.jpg#xywh=0,0,120,90"):
        with pytest.raises(FormatError, match=r"talk\.x:\d+: expected words, got metadata"):
            parse("vtt", vtt(text, text))
    parsed = parse("srt", srt("[music]", "♪ la", "(laughs) yes", "no"))
    assert "3 cues hold sounds or remarks in brackets, which were read as words" in parsed.warnings
    parsed = parse("vtt", vtt("", "hi"))
    assert said(parsed) == [("unknown", "hi")]
    assert "1 cues hold no words and name no speaker; they were left out" in parsed.warnings


def test_a_streams_clock_is_told() -> None:
    head = "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{},LOCAL:00:00:00.000\n\n"
    for ticks, warned in ((900000, True), (0, False)):
        parsed = parse("vtt", vtt("hi", head=head.format(ticks)))
        assert any("stream's clock" in warning for warning in parsed.warnings) == warned


def test_a_name_on_the_first_line_of_every_cue_is_a_speaker(tmp_path: Path) -> None:
    """As Teams and Trint write it, also in a text file."""
    texts = ["Ann Lee\ngood morning", "Bob\nhello there", "Ann Lee\nbye"]
    assert said(parse("srt", srt(*texts))) == TALK
    (tmp_path / "talk.txt").write_text(srt(*texts, number=False))
    [parsed] = load(tmp_path / "talk.txt").values()
    assert said(parsed) == TALK
    stamped = "".join(f"[00:0{n}] {text}\n\n" for n, text in enumerate(texts))
    (tmp_path / "talk.txt").write_text(stamped)
    [parsed] = load(tmp_path / "talk.txt").values()
    assert said(parsed) == TALK
    wrapped = ["Good Morning\neverybody", "Welcome Back\nto us", "It Is\nlate"]
    assert {s.speaker for s in parse("srt", srt(*wrapped)).segments} == {"unknown"}


@pytest.mark.parametrize(
    ("head", "text"), [("WEBVTT\n\n", "<v Ann>hi"), ("", "Ann: hi"), ("\ufeff", "Ann: hi")]
)
def test_captions_in_a_text_file(tmp_path: Path, head: str, text: str) -> None:
    (tmp_path / "talk.txt").write_text(f"{head}00:00:01.000 --> 00:00:02.000\n{text}\n", "utf-8")
    [parsed] = load(tmp_path / "talk.txt").values()
    assert (said(parsed), parsed.duration_s) == ([("Ann", "hi")], 2.0)


def test_sbv(tmp_path: Path) -> None:
    text = "0:00:01.000,0:00:02.000\nAnn: hi\n\n0:00:03.000,0:00:04.500\nAnn: bye\nnow\n"
    (tmp_path / "talk.SBV").write_text(text)
    [parsed] = load(tmp_path).values()
    assert [(s.speaker, s.start_s, s.end_s, s.text) for s in parsed.segments] == [
        ("Ann", 1.0, 2.0, "hi"),
        ("Ann", 3.0, 4.5, "bye now"),
    ]


@pytest.mark.parametrize(
    "text", ["00:61:00,000 --> 00:62:00,000\nx\n", "00:00:60,000 --> 00:01:00,000\nx\n"]
)
def test_clocks_that_cannot_be(text: str) -> None:
    with pytest.raises(FormatError, match=r"talk\.x:1: expected minutes and seconds below 60"):
        parse("srt", text)


# TextGrids

Rows = list[tuple[float, float, str]]


def textgrid(tiers: dict[str, Rows], xmin: float = 0, *, short: bool = False) -> str:
    """A TextGrid of interval tiers as they are given; marks are not escaped."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    key = (lambda name: "") if short else (lambda name: f"{name} = ")
    lines += [f"{key('xmin')}{xmin}", f"{key('xmax')}6", "<exists>", str(len(tiers))]
    for name, rows in tiers.items():
        lines += [f'{key("class")}"IntervalTier"', f'{key("name")}"{name}"', f"{key('xmin')}{xmin}"]
        lines += [f"{key('xmax')}6", str(len(rows))]
        for start, end, mark in rows:
            lines += [f"{key('xmin')}{start}", f"{key('xmax')}{end}", f'{key("text")}"{mark}"']
    return "\n".join(lines) + "\n"


HELLO: Rows = [
    (0, 1, ""),
    (1, 1.4, "hello"),
    (1.4, 2, "there"),
    (2, 3, "sil"),
    (3, 3.5, "you"),
    (3.5, 6, ""),
]
PHONES: Rows = [(0, 1, ""), (1, 1.2, "HH"), (1.2, 1.4, "AH0"), (1.4, 2, "DH"), (2, 6, "")]


@pytest.mark.parametrize(
    ("tiers", "speaker"),
    [
        ({"ann - words": HELLO, "ann - phones": PHONES}, "ann"),
        ({"words": HELLO, "phones": PHONES}, "unknown"),
        ({"ORT-MAU": HELLO, "KAN-MAU": PHONES, "MAU": PHONES}, "unknown"),
        ({"ann_word": HELLO, "ann_phone": PHONES}, "ann"),
    ],
)
def test_tiers_of_aligners(tiers: dict[str, Rows], speaker: str) -> None:
    parsed = parse("textgrid", textgrid(tiers))
    assert said(parsed) == [(speaker, "hello there"), (speaker, "you")]
    assert [(s.start_s, s.end_s) for s in parsed.segments] == [(1.0, 2.0), (3.0, 3.5)]
    words = [w for s in parsed.segments for w in s.words or ()]
    assert [(w.text, w.start_s) for w in words] == [("hello", 1.0), ("there", 1.4), ("you", 3.0)]
    assert parsed.warnings == (f"{len(tiers) - 1} tiers of phones were not read",)


def test_an_aligners_words_beside_utterances() -> None:
    rows: Rows = [(0, 1, ""), (1, 3.5, "hello there you"), (3.5, 6, "")]
    said_words = [row for row in HELLO if row[2] != "sil"]
    tiers = {"ann - utterances": rows, "ann - words": said_words, "ann - phones": PHONES}
    parsed = parse("textgrid", textgrid(tiers))
    assert said(parsed) == [("ann", "hello there you")]
    assert parsed.segments[0].words is not None


@pytest.mark.parametrize(
    ("words", "phones", "speaker"),
    [
        ("Ann (words)", "Ann (phones)", "Ann"),
        ("Ann [word]", "Ann [phoneme]", "Ann"),
        ("mots", "phonèmes", "unknown"),
        ("Wörter", "Silben", "unknown"),
        ("词", "音素", "unknown"),
        ("palabras", "fonemas", "unknown"),
    ],
)
def test_tiers_of_aligners_in_other_spellings(words: str, phones: str, speaker: str) -> None:
    tiers: dict[str, Rows] = {
        words: [(0, 1, "sil"), (1, 2, "hello"), (2, 3, "there")],
        phones: [(1, 1.5, "HH"), (1.5, 3, "OW1")],
    }
    parsed = parse("textgrid", textgrid(tiers))
    assert [(s.speaker, s.text) for s in parsed.segments] == [(speaker, "hello there")]
    assert parsed.warnings == ("1 tiers of phones were not read",)


def test_words_of_utterances_that_name_nobody_are_read_once() -> None:
    tiers: dict[str, Rows] = {
        "utterance": [(1, 3, "hello there")],
        "word": [(1, 2, "hello"), (2, 3, "there")],
        "phone": [(1, 1.5, "HH"), (1.5, 3, "OW1")],
    }
    [segment] = parse("textgrid", textgrid(tiers)).segments
    assert (segment.speaker, segment.text) == ("unknown", "hello there")
    assert segment.words is not None and [w.text for w in segment.words] == ["hello", "there"]


def test_notes_and_labels_of_silence_are_no_speech() -> None:
    tiers: dict[str, Rows] = {
        "ann": [(0, 1, "<sil>"), (1, 2, "hello"), (2, 3, "SIL"), (3, 6, "#")],
        "notes": [(0, 6, "a noisy room")],
    }
    parsed = parse("textgrid", textgrid(tiers))
    assert said(parsed) == [("ann", "hello"), ("ann", "#")]
    assert parsed.warnings == (
        "1 tiers of notes, events or translations were not read",
        "2 labels of silence were left out",
    )
    assert said(parse("textgrid", textgrid({"notes": [(0, 6, "hi")]}))) == [("notes", "hi")]


def test_people_may_be_named_like_tiers() -> None:
    rows: Rows = [(0, 3, "I am on the phone"), (3, 6, "all the time")]
    assert said(parse("textgrid", textgrid({"phone": rows, "Mr Words": rows}))) == [
        ("Mr Words", "I am on the phone"),
        ("phone", "I am on the phone"),
        ("Mr Words", "all the time"),
        ("phone", "all the time"),
    ]


def test_phones_alone_are_refused() -> None:
    with pytest.raises(
        FormatError, match=r"talk\.x: its tiers \(ann - phones\) hold phones, expected words"
    ):
        parse("textgrid", textgrid({"ann - phones": PHONES}))


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(
    "mark", ['she said "no" ok', '"no" she said', 'she said "no"', '"no"', 'a " b', 'a ""b"" "c" d']
)
def test_quotes_that_are_not_doubled(mark: str, short: bool) -> None:
    rows: Rows = [(0, 1, ""), (1, 2, mark), (2, 3, "next"), (3, 6, "last")]
    text = textgrid({"ann": rows}, short=short)
    parsed = parse("textgrid", text)
    whole = mark.replace('""', '"')
    assert [t for _, t in said(parsed)] == [whole, "next", "last"]
    assert parsed.warnings == (
        "1 labels have quotes that are not doubled; they were read to their line's end",
    )


def test_a_label_whose_end_nobody_can_tell_is_refused() -> None:
    text = textgrid({"ann": [(0, 6, 'she said "no\nand" left')]})
    with pytest.raises(FormatError, match=r"talk\.x:\d+: a quote in a label is not doubled"):
        parse("textgrid", text)


def test_times_before_the_recording() -> None:
    rows: Rows = [(-1, -0.5, "lost"), (-0.5, 1, "hello"), (1, 6, "there")]
    parsed = parse("textgrid", textgrid({"ann": rows}, xmin=-1))
    assert [(s.start_s, s.end_s, s.text) for s in parsed.segments] == [
        (0, 1, "hello"),
        (1, 6, "there"),
    ]
    assert sorted(parsed.warnings) == [
        "1 segments end before the recording begins and were not read",
        "5 times lie before the recording and became 0",
    ]


NOBODY = "says that another person speaks, without a name"


@pytest.mark.parametrize(
    ("texts", "expected", "unnamed"),
    [
        ([">> good morning", "and welcome", ">> thank you"], "good morning|and welcome|thank you", 2),
        ([">> GOOD MORNING. >> HELLO.", ">>> IN OTHER NEWS"], "GOOD MORNING.|HELLO.|IN OTHER NEWS", 3),
        ([">>good morning\n>>hello"], "good morning|hello", 2),
        (["so it is. >> Yes.", ">> no"], "so it is.|Yes.|no", 2),
        (["≫おはよう", "＞＞はい"], "おはよう|はい", 2),
        ([">> Ann: hi", "and bye", ">> Bob: oh", "well", ">> who", "is it"],
         "Ann=hi|Ann=and bye|Bob=oh|Bob=well|who|is it", 1),
        ([">> Ann: hi. >> Bob: oh", ">> Ann: bye"], "Ann=hi.|Bob=oh|Ann=bye", 0),
        ([">> Ann: hi", "Bob: oh", "well", ">> Bob: bye"], "Ann=hi|Bob=oh|well|Bob=bye", 0),
        (["well", ">> Ann: hi", ">> Ann: bye"], "well|Ann=hi|Ann=bye", 0),
        (["a >> b", "cout >> x", "c"], "a >> b|cout >> x|c", 0),
        (["->> x is >>", ">>", "a>>b"], "->> x is >>|>>|a>>b", 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["srt", "vtt", "vtt as it should be"])
def test_changes_of_the_speaker_without_a_name(
    kind: str, texts: list[str], expected: str, unnamed: int
) -> None:
    """As captions of broadcasts mark them; who it is, a name behind the mark says, or nothing."""
    if kind == "vtt as it should be":
        texts = [text.replace(">", "&gt;") for text in texts]
    parsed = parse(kind[:3], srt(*texts) if kind == "srt" else vtt(*texts))
    parts = [part.rpartition("=") for part in expected.split("|")]
    assert said(parsed) == [(who or "unknown", words) for who, _, words in parts]
    told = [text for text in parsed.warnings if NOBODY in text]
    assert [int(text.split()[0]) for text in told] == ([unnamed] if unnamed else [])


def test_changes_in_texts_and_labels_and_between_timed_words() -> None:
    text = "[00:01] >> hi\n[00:03] >> oh. >> Yes.\n[00:05] well\n"
    parsed = folders_read("a.txt", text)
    assert said(parsed) == [("unknown", w) for w in ("hi", "oh.", "Yes.", "well")]
    assert any(NOBODY in text for text in parsed.warnings)
    parsed = folders_read("b.txt", "0.0\t1.0\t>> hi >> oh\n1.0\t2.0\tyes\n2.0\t3.0\t>> no\n")
    assert [s.text for s in parsed.segments] == ["hi", "oh", "yes", "no"]
    assert any(NOBODY in text for text in parsed.warnings)
    parsed = parse(
        "vtt", vtt("&gt;&gt; hello<00:00:02.500><c> there</c>", ">> Ann: a<00:00:04.500> b")
    )
    assert [[w.text for w in s.words or ()] for s in parsed.segments] == [
        ["hello", "there"],
        ["a", "b"],
    ]


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["- Hi.\n- Hello.", "- Well?\n- No."], 2),
        (["–Hi.\n–Hello.", "- Well", "no\n- yes"], 1),
        (["- Ann: hi\n- Bob: oh", "- Ann: bye"], 0),
        (["one - two\nthree - four"], 0),
    ],
)
def test_dashes_of_two_people_without_names_are_told(texts: list[str], count: int) -> None:
    for parsed in (parse("srt", srt(*texts)), parse("vtt", vtt(*texts))):
        told = [text for text in parsed.warnings if "begin with a dash" in text]
        assert [int(text.split()[0]) for text in told] == ([count] if count else [])


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["\u200fדנה: שלום", "יוסי\u200f: כן", "דנה: להתראות"], ["דנה", "יוסי", "דנה"]),
        (["\u202aAna\u202c: hello", "Bob: yes", "Ana: bye"], ["Ana", "Bob", "Ana"]),
        (["ANA:hello", "BOB:yes", "ANA:bye"], ["ANA", "BOB", "ANA"]),
        (["ANA:hello", "it is 10:30", "ANA:bye"], ["unknown"] * 3),
        (["Re:Invent is", "so:what"], ["unknown"] * 2),
        (["张三:你好", "李四:好", "张三:再见"], ["张三", "李四", "张三"]),
        (["比分3:2", "现在时间:下午三点", "好"], ["unknown"] * 3),
        (["【张三】你好", "【李四】好", "【张三】再见"], ["张三", "李四", "张三"]),
        (["（田中）こんにちは", "（鈴木） はい"], ["田中", "鈴木"]),
        (["（田中）こんにちは", "（鈴木） はい", "じゃ"], ["unknown"] * 3),
        (["Ana (laughing): hello", "Bob [on phone]: no", "Ana: so", "Bob: oh"], ["Ana", "Bob"] * 2),
        (["Ana (she/her): hello", "Bob (guest): no", "Ana (she/her): so"],
         ["Ana (she/her)", "Bob (guest)", "Ana (she/her)"]),
        (["BOB [V.O.]: hello", "MAN (off): no", "BOB: so"], ["BOB", "MAN", "BOB"]),
    ],
)  # fmt: skip
def test_more_names_of_captions_of_others(texts: list[str], expected: list[str]) -> None:
    for parsed in (parse("srt", srt(*texts)), parse("vtt", vtt(*texts))):
        assert [s.speaker for s in parsed.segments] == expected
        dropped = sum(mark in text for text in texts for mark in ("(laugh", "[on", "[V.O", "(off"))
        told = [text for text in parsed.warnings if "come with a remark" in text]
        assert [int(text.split()[0]) for text in told] == ([dropped] if dropped else [])


@pytest.mark.parametrize("label", ["Ana (guest)", "Ana [off]", "\u200fAna", "ANA (V.O.)", "Ana"])
def test_labels_that_look_like_names_with_remarks_are_kept(label: str) -> None:
    segments = [Segment(who, n, n + 1, "yes") for n, who in enumerate(["Ana", label, "ANA", "Bob"])]
    transcript = Transcript("talk", 4.0, segments=tuple(segments))
    read = parse("srt", formats.render(transcript, "srt"))
    assert [s.speaker for s in read.segments] == [s.speaker for s in segments]


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["Ana: yes. Bob: no", "Ana: well", "Bob: oh"], 1),
        (["Ana: yes Bob Lee: no Ana: hm", "Ana: well", "Bob Lee: oh"], 2),
        (["Ana: so: it is", "Ana: he said: no", "Bob: it is 10:30, Bob:"], 0),
    ],
)
def test_names_inside_of_lines_are_told(texts: list[str], count: int) -> None:
    for parsed in (parse("srt", srt(*texts)), parse("vtt", vtt(*texts))):
        told = [text for text in parsed.warnings if "inside of a line" in text]
        assert [int(text.split()[0]) for text in told] == ([count] if count else [])


WHO: Rows = [(0, 1, "Ana"), (1, 3, "Bo Lee"), (3, 4, "Ana"), (4, 6, "")]
TEXT: Rows = [(0, 1, "hello"), (1, 2.5, "oh well"), (3, 4, "so it is"), (5, 6, "no")]
SAID = [("Ana", "hello"), ("Bo Lee", "oh well"), ("Ana", "so it is"), ("unknown", "no")]
BY_LABEL = "3 labels of a tier of speakers name the speakers of the other tiers"
SINGLE = [(a, b, word) for a, b, text in TEXT for word in text.split()[:1]]


@pytest.mark.parametrize(
    ("tiers", "expected", "warnings"),
    [
        ({"speaker": WHO, "text": TEXT}, SAID, (BY_LABEL,)),
        ({"transcription": TEXT, "Speakers": WHO}, SAID, (BY_LABEL,)),
        (
            {"words": SINGLE, "spk": WHO, "phones": PHONES},
            [("Ana", "hello"), ("Bo Lee", "oh"), ("Ana", "so"), ("unknown", "no")],
            (BY_LABEL, "1 tiers of phones were not read"),
        ),
        (
            {"speaker": WHO},
            [("Ana", ""), ("Bo Lee", ""), ("Ana", "")],
            ("3 labels are of a tier of speakers: they are turns without words",),
        ),
        ({"speaker": [(0, 1, "Hello"), (1, 2, "Bye")]}, [("speaker", "Hello"), ("speaker", "Bye")], ()),
        ({"speaker": TEXT[1:3], "Ana": TEXT[:1]},
         [("Ana", "hello"), ("speaker", "oh well"), ("speaker", "so it is")], ()),
        ({"": TEXT[:1]}, [("unknown", "hello")], ()),
        ({"Ana": TEXT[:1], "Ana - notes": TEXT[1:2], "Ana_gloss": TEXT[2:]}, [("Ana", "hello")],
         ("2 tiers of notes, events or translations were not read",)),
        ({"Ana": TEXT[:1], "Bo notes": TEXT[1:2]}, [("Ana", "hello"), ("Bo notes", "oh well")], ()),
    ],
)  # fmt: skip
def test_tiers_that_say_whose_the_others_are(
    tiers: dict[str, Rows], expected: list[tuple[str, str]], warnings: tuple[str, ...]
) -> None:
    parsed = parse("textgrid", textgrid(tiers))
    assert (said(parsed), parsed.warnings) == (expected, warnings)


@pytest.mark.parametrize("label", ["speaker", "Speakers", "spk", "Ana notes", "speaker label"])
def test_people_named_like_tiers_are_kept(label: str) -> None:
    segments = [
        Segment(who, n, n + 1, text)
        for n, (who, text) in enumerate([(label, "Ana"), ("Ana", "hi"), (label, "Ana")])
    ]
    transcript = Transcript("talk", 4.0, segments=tuple(segments))
    read = parse("textgrid", formats.render(transcript, "textgrid"))
    assert said(read) == [(s.speaker, s.text) for s in segments]


def test_textgrids_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a chronological TextGrid"):
        parse("textgrid", '"Praat chronological TextGrid text file"\n0 3\n')
    with pytest.raises(FormatError, match="ends at 0 s, before it starts at 1 s"):
        parse("textgrid", textgrid({"Ana": [(1, 0, "hello")]}))
    (tmp_path / "a.TextGrid").write_bytes(b"ooBinaryFile\x08TextGrid" + bytes(40))
    with pytest.raises(FormatError, match="a binary file of Praat"):
        load(tmp_path / "a.TextGrid")


MARKED = [
    "<u>hello</u> there you",
    "hello there you",
    "hello <u>there</u> you",
    "hello there <u>you</u>",
]


@pytest.mark.parametrize("mark", ["u", "b", "c.now", 'font color="#00ff00"'])
@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_lines_that_come_again_with_another_word_marked_are_read_once(kind: str, mark: str) -> None:
    """As Whisper's `--highlight_words` writes them."""
    texts = [
        t.replace("<u>", f"<{mark}>").replace("</u>", f"</{mark.split('.')[0].split()[0]}>")
        for t in MARKED
    ]
    texts += ["good day", "good day", "<i>no</i>", "<i>no</i>"]  # people repeat themselves
    point = "," if kind == "srt" else "."
    cues = [
        f"{clock(n, point)} --> {clock(n + 1, point)}\n{text}\n" for n, text in enumerate(texts, 1)
    ]
    parsed = parse(kind, ("" if kind == "srt" else "WEBVTT\n\n") + "\n".join(cues))
    rows = [(s.start_s, s.end_s, s.text) for s in parsed.segments]
    assert rows[0] == (1.0, 5.0, "hello there you")
    assert [text for *_, text in rows[1:]] == ["good day", "good day", "no", "no"]
    assert any(
        text.startswith("3 cues show the line of the cue before") for text in parsed.warnings
    )
    parsed = parse(
        kind, ("" if kind == "srt" else "WEBVTT\n\n") + "\n\n".join(cues[::2])
    )  # gaps between them
    assert [s.text for s in parsed.segments][:2] == ["hello there you"] * 2


@pytest.mark.parametrize(("hour", "told"), [("00:59", 0), ("01:00", 1), ("10:00", 1)])
def test_time_codes_that_begin_at_an_hour_are_told(hour: str, told: int) -> None:
    """As programs that edit films export captions."""
    for parsed in (
        parse("srt", srt("Ana: hi", "Ana: oh").replace("00:00", hour)),
        parse("vtt", vtt("Ana: hi", "Ana: oh").replace("00:00", hour)),
    ):
        assert sum("perhaps a time code" in text for text in parsed.warnings) == told


def test_words_behind_the_times_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("00:05 --> 00:06 [Ana] hello\n00:07 --> 00:09 [Bo] bye\n")
    with pytest.raises(FormatError, match=r"a\.txt:1: expected words on the lines below a timing"):
        load(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("texts", "speakers", "given"),
    [
        (["Ana: a", "b", "Bob: c", "Ana: d", "e", "f", "Bob: g", "h"], "AABAAABB", 4),
        (
            ["[speaker 0]\na", "b", "[speaker 1]\nc", "d", "[speaker 0]\ne", "[speaker 1]\nf"],
            "001101",
            2,
        ),
        (["Ana: a", "b", "Bob: c", "[music]", "Ana: d", "Bob: e"], "AABuAB", 1),
        (["Ana: a", "b", "Ana: c", "Bob: d", "Ana: e"], "AuABA", 0),  # a name comes again
        (["x", "Ana: a", "b", "Bob: c", "Ana: d", "Bob: e"], "uAuBAB", 0),  # who begins?
        (["Ana: a", "b", "Bob: c", "Ana: d"], "AuBA", 0),  # few changes
    ],
)
@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_names_at_changes_alone(kind: str, texts: list[str], speakers: str, given: int) -> None:
    """As Deepgram, Descript and our own captions to read name people."""
    parsed = parse(kind, (srt if kind == "srt" else vtt)(*texts))
    assert (
        "".join(s.speaker[-1] if s.speaker[0] == "s" else s.speaker[0] for s in parsed.segments)
        == speakers
    )
    told = [text for text in parsed.warnings if "changes of the speaker alone" in text]
    assert [int(text.split()[0]) for text in told] == ([given] if given else [])


def test_our_own_captions_for_people_are_read_with_their_speakers() -> None:
    talk = [("Ana", "one two three four five six seven eight nine ten " * 4), ("Bob", "yes")] * 3
    segments = [Segment(who, 20.0 * n, 20.0 * n + 18, text) for n, (who, text) in enumerate(talk)]
    transcript = Transcript("talk", 120.0, segments=tuple(segments))
    read = parse("srt", render_srt_to_read(transcript, Habits()))
    assert len(read.segments) > len(segments)
    for who in ("Ana", "Bob"):
        texts = [" ".join(s.text.split()) for s in read.segments if s.speaker == who]
        assert " ".join(texts) == " ".join(s.text.strip() for s in segments if s.speaker == who)


def test_webvtt_under_the_name_of_subrip_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(vtt("<v Ann>hi</v>", "<v Bob>oh</v>"))
    [one] = load(tmp_path / "a.srt").values()
    assert said(one) == [("Ann", "hi"), ("Bob", "oh")]


def test_names_behind_a_voice_of_the_same_name_are_told() -> None:
    one = parse("vtt", vtt("<v Ann>Ann: hi</v>", "<v Bob>Ann: oh</v>"))
    assert said(one) == [("Ann", "Ann: hi"), ("Bob", "Ann: oh")]
    assert any(
        text.startswith("1 cues begin with the name of their voice") for text in one.warnings
    )


def test_times_of_seglst_on_a_clock(tmp_path: Path) -> None:
    """As CHiME-6 writes them."""
    row = '{"session_id": "S02", "speaker": "P05", "start_time": "0:01:10.50", "end_time": "0:01:12.34", "words": "hi"}'
    (tmp_path / "a.json").write_text(f"[{row}]")
    [one] = load(tmp_path / "a.json").values()
    assert [(s.start_s, s.end_s) for s in one.segments] == [(70.5, 72.34)]
    (tmp_path / "a.json").write_text(f"[{row.replace('0:01:10', '10')}]".replace("0:01:12", "1:12"))
    with pytest.raises(FormatError, match=r"expected end_time in seconds, got '1:12\.34'"):
        load(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (['<font color="#ffff00">hi</font>', '<font color="#00ffff">oh</font>', "well"], 2),
        (['<font color="#ffff00">hi</font>', '<font color="#ffff00">oh</font>'], 0),
        (
            [
                '<font color="#ffff00">Ann: hi</font>',
                '<font color="#00ffff">Bob: oh</font>',
                "Ann: no",
            ],
            0,
        ),
        (["<c.yellow>hi</c>", "<c.cyan>oh</c>"], 2),
        (["hi", "oh"], 0),
    ],
)
def test_colours_that_may_tell_people_apart_are_told(texts: list[str], count: int) -> None:
    """As the BBC's subtitles use them."""
    kinds = ("vtt",) if "<c." in texts[0] else ("srt", "vtt")
    for kind in kinds:
        told = [
            t
            for t in parse(kind, (srt if kind == "srt" else vtt)(*texts)).warnings
            if "colours" in t
        ]
        assert [int(text.split()[0]) for text in told] == ([count] if count else [])
