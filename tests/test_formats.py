"""Laws (write, then read), goldens, foreign files, broken files, and files that stay whole."""

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_reasoner import formats
from speaker_reasoner.errors import FormatError, OutputError
from speaker_reasoner.formats.ctm import join_words, split_words
from speaker_reasoner.formats.sessions import unique_labels
from speaker_reasoner.transcript import Confidence, Missing, Segment, Transcript, Word

SHARED = Path(__file__).parents[2] / "shared/data"
READABLE = [name for name, known in formats.FORMATS.items() if known.parse]
BY_LINE = ["rttm", "stm", "ctm"]
PER_SPEAKER_GENDER = ["rttm", "stm", "textgrid"]
MS = 1.501e-3  # rounding, and the least length of a segment

WORDS = [
    "hello",
    "你好",
    "世界，",
    "it's",
    "👩‍🚀",
    "😀",
    '"quoted"',
    "a&b",
    "<b>",
    "-->",
    "&amp;",
    ":",
]
WORDS += [
    "(male):",
    "<o,f0,male>",
    ";;",
    "[x]",
    "x|y",
    "<v",
    "</v>",
    "00:01",
    "1",
    "é",
    "\u2028",
    "\x85",
]
LABELS = [
    "Speaker1",
    "Speaker2",
    "张三",
    "Ana María",
    "Bob (male)",
    "Bob#2",
    "Tom & <Jerry>",
    '"Q"',
]
LABELS += ["A: B", "x(y)", "😀", "-M", "000-F", "; c", "# d"]


def squeeze(text: str) -> str:
    return "".join(text.split())


texts = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n"), max_size=12),
).map(lambda text: text.strip())
probabilities = st.none() | st.floats(0, 1)
times = st.one_of(st.floats(0, 4), st.floats(0, 50_000), st.integers(0, 40).map(float))
lengths = st.one_of(st.floats(1e-6, 3), st.sampled_from([0.5, 1.0, 1e-5]))


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    start = draw(times)
    return Segment(
        speaker=draw(st.sampled_from(LABELS)),
        start_s=start,
        end_s=start + draw(lengths),
        text=draw(texts),
        gender=draw(st.sampled_from(["female", "male", "unknown"])),
        confidence=Confidence(draw(probabilities), draw(probabilities), draw(probabilities)),
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    rows = draw(st.lists(segments(), max_size=6))
    return Transcript(
        recording=draw(st.sampled_from(["meeting", "会议 1", "a.b"])),
        duration_s=max([draw(st.floats(0, 60)), *(row.end_s for row in rows)]),
        segments=tuple(rows),
    )


def round_trip(transcript: Transcript, name: str) -> Transcript:
    known = formats.FORMATS[name]
    assert known.parse is not None
    text = known.render(transcript)
    assert text == known.render(transcript)
    assert text == "" or text.endswith("\n")
    assert "\r" not in text
    found = known.parse(text, f"{transcript.recording}{known.suffix}")
    assert len(found) == (1 if transcript.segments or name not in ("seglst", *BY_LINE) else 0)
    return found[0] if found else Transcript("", 0.0)


def label_in(name: str, labels: Sequence[str]) -> dict[str, str]:
    """The form in which a format holds labels."""
    if name in BY_LINE:
        return {label: "_".join(label.split()) for label in labels}
    return {label: label.replace(":", "_") if name == "srt" else label for label in labels}


# --- laws ---------------------------------------------------------------------------------------


@given(
    transcript=transcripts(),
    info=st.dictionaries(st.text(max_size=4), json_values, max_size=3),
    traces=st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=2), max_size=2),
    missing=st.lists(st.builds(Missing, times, times, texts), max_size=2),
    warnings=st.lists(texts, max_size=2),
)
@settings(deadline=None, max_examples=60)
def test_json_keeps_everything(
    transcript: Transcript,
    info: dict[str, object],
    traces: list[dict[str, object]],
    missing: list[Missing],
    warnings: list[str],
) -> None:
    full = Transcript(
        transcript.recording,
        transcript.duration_s,
        transcript.segments,
        tuple(missing),
        tuple(warnings),
        tuple(traces),
        info,
    )
    assert round_trip(full, "json") == full


@pytest.mark.parametrize("name", [name for name in READABLE if name not in ("json", "ctm")])
@given(transcript=transcripts())
@settings(deadline=None, max_examples=50)
def test_written_then_read_is_the_same(name: str, transcript: Transcript) -> None:
    back = round_trip(transcript, name)
    labels = label_in(name, transcript.speakers)
    genders = transcript.genders

    def row(segment: Segment, label: str, gender: str) -> tuple[str, str, str, int, int]:
        start_ms = round(segment.start_s * 1000)
        end_ms = max(round(segment.end_s * 1000), start_ms + 1)
        text = "" if name == "rttm" else squeeze(segment.text)
        return label, gender, text, start_ms, end_ms

    expected = sorted(
        row(s, labels[s.speaker], genders[s.speaker] if name in PER_SPEAKER_GENDER else s.gender)
        for s in transcript.segments
    )
    assert sorted(row(s, s.speaker, s.gender) for s in back.segments) == expected
    if name == "textgrid":
        assert back.duration_s == pytest.approx(transcript.duration_s, abs=MS)
    if name == "seglst":
        assert [(s.start_s, s.end_s) for s in back.segments] == [
            (s.start_s, s.end_s) for s in transcript.segments
        ]


@given(rows=st.lists(st.tuples(texts, st.sampled_from(LABELS), probabilities, lengths), max_size=6))
@settings(deadline=None, max_examples=60)
def test_ctm_keeps_words_speakers_and_extent(
    rows: list[tuple[str, str, float | None, float]],
) -> None:
    reached, spoken = 0.0, []
    for text, label, known, length in rows:
        spoken.append(Segment(label, reached, reached + length, text, confidence=Confidence(known)))
        reached += length + 1.0
    spoken = [segment for segment in spoken if segment.text]
    back = round_trip(Transcript("a", reached, tuple(spoken)), "ctm")
    assert len(back.segments) == len(spoken)
    for got, want in zip(back.segments, spoken, strict=True):
        assert got.speaker == "_".join(want.speaker.split())
        assert squeeze(got.text) == squeeze(want.text)
        assert got.start_s == pytest.approx(want.start_s, abs=MS)
        assert got.end_s == pytest.approx(want.end_s, abs=MS)
        if want.confidence.words is None:
            assert got.confidence.words is None
        else:
            assert got.confidence.words == pytest.approx(want.confidence.words, abs=MS)


@given(transcript=transcripts())
@settings(deadline=None, max_examples=40)
def test_ctm_lines_are_ordered_and_counted(transcript: Transcript) -> None:
    lines = [line.split() for line in formats.render(transcript, "ctm").split("\n")[:-1]]
    assert {len(line) for line in lines} <= {8}
    starts = [float(line[2]) for line in lines]
    assert starts == sorted(starts)
    assert len(lines) == sum(len(split_words(s.text)) for s in transcript.segments)


@given(transcript=transcripts())
@settings(deadline=None, max_examples=40)
def test_textgrid_tiers_tile_the_recording(transcript: Transcript) -> None:
    text = formats.render(transcript, "textgrid")
    [xmax] = set(re.findall(r"^(?:        )?xmax = (\S+)$", text, re.M))
    for tier in text.split("    item [")[1:]:
        if "intervals [1]" not in tier:
            continue
        spans = re.findall(r"^            xmin = (\S+)\n            xmax = (\S+)$", tier, re.M)
        assert [float(spans[0][0]), spans[-1][1]] == [0.0, xmax]
        assert all(float(start) < float(end) for start, end in spans)
        assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
        assert len(spans) == int(re.findall(r"intervals: size = (\d+)", tier)[0])


@given(transcript=transcripts())
@settings(deadline=None, max_examples=30)
def test_every_segment_is_one_line_for_people(transcript: Transcript) -> None:
    lines = formats.render(transcript, "txt").split("\n")[:-1]
    assert len(lines) == max(1, len(transcript.segments))
    items = [row for row in formats.render(transcript, "md").split("\n") if row.startswith("- [")]
    assert len(items) == len(transcript.segments)


def test_labels_that_fit_alike_stay_apart() -> None:
    def fit(label: str) -> str:
        return label.replace(" ", "_")

    assert unique_labels(["a b", "a_b", "a  b", "a b"], fit) == {
        "a b": "a_b_2",
        "a_b": "a_b",
        "a  b": "a__b",
    }
    both = Transcript("r", 2, (Segment("a b", 0, 1, "x"), Segment("a_b", 1, 2, "y")))
    for name in BY_LINE:
        assert round_trip(both, name).speakers == ("a_b_2", "a_b")


def test_words_of_both_scripts() -> None:
    assert split_words("hello 世界，ok？ “你好” 24小时") == [
        "hello", "世", "界，", "ok？", "“你", "好”", "24", "小", "时",
    ]  # fmt: skip
    assert join_words(["我", "们", "use", "GPU", "吗"]) == "我们 use GPU 吗"


# --- goldens ------------------------------------------------------------------------------------

GOLDEN = Transcript(
    recording="meeting 1",
    duration_s=4.0,
    segments=(
        Segment("Speaker1", 0.52, 3.4, 'say "hi" & <go>', "female", Confidence(0.9, 0.5)),
        Segment("Speaker2", 3.0, 3.5, "你好", "unknown"),
    ),
    missing=(Missing(3.5, 4.0, "loop"),),
    warnings=("noisy",),
    info={"model": "tiny"},
)

GOLDENS = {
    "ass": (Path(__file__).parent / "golden" / "two-speakers.ass").read_text(encoding="utf-8"),
    "json": """\
{
  "schema": "speaker-reasoner/transcript",
  "version": 1,
  "recording": "meeting 1",
  "duration_s": 4.0,
  "speakers": [
    {"label": "Speaker1", "gender": "female", "speech_s": 2.88},
    {"label": "Speaker2", "gender": "unknown", "speech_s": 0.5}
  ],
  "segments": [
    {"speaker": "Speaker1", "gender": "female", "start_s": 0.52, "end_s": 3.4, \
"text": "say \\"hi\\" & <go>", "confidence": {"words": 0.9, "speaker": 0.5, "times": null}, \
"overlap": true},
    {"speaker": "Speaker2", "gender": "unknown", "start_s": 3.0, "end_s": 3.5, "text": "你好", \
"confidence": {"words": null, "speaker": null, "times": null}, "overlap": true}
  ],
  "missing": [
    {"start_s": 3.5, "end_s": 4.0, "reason": "loop"}
  ],
  "warnings": [
    "noisy"
  ],
  "info": {"model": "tiny"},
  "traces": []
}
""",
    "seglst": """\
[
  {"session_id": "meeting 1", "speaker": "Speaker1", "start_time": 0.52, "end_time": 3.4, \
"words": "say \\"hi\\" & <go>", "gender": "female"},
  {"session_id": "meeting 1", "speaker": "Speaker2", "start_time": 3.0, "end_time": 3.5, \
"words": "你好", "gender": "unknown"}
]
""",
    "rttm": """\
SPKR-INFO meeting_1 1 <NA> <NA> <NA> adult_female Speaker1 <NA> <NA>
SPEAKER meeting_1 1 0.520 2.880 <NA> <NA> Speaker1 <NA> <NA>
SPEAKER meeting_1 1 3.000 0.500 <NA> <NA> Speaker2 <NA> <NA>
""",
    "stm": """\
;; GENDER meeting_1 Speaker1 female
meeting_1 1 Speaker1 0.520 3.400 say "hi" & <go>
meeting_1 1 Speaker2 3.000 3.500 你好
""",
    "ctm": """\
meeting_1 1 0.520 0.720 say 0.900 lex Speaker1
meeting_1 1 1.240 0.960 "hi" 0.900 lex Speaker1
meeting_1 1 2.200 0.240 & 0.900 lex Speaker1
meeting_1 1 2.440 0.960 <go> 0.900 lex Speaker1
meeting_1 1 3.000 0.250 你 NA lex Speaker2
meeting_1 1 3.250 0.250 好 NA lex Speaker2
""",
    "srt": """\
1
00:00:00,520 --> 00:00:03,400
Speaker1 (female): say "hi" & <go>

2
00:00:03,000 --> 00:00:03,500
Speaker2: 你好
""",
    "vtt": """\
WEBVTT

00:00:00.520 --> 00:00:03.400
<v Speaker1 (female)>say "hi" &amp; &lt;go&gt;</v>

00:00:03.000 --> 00:00:03.500
<v Speaker2>你好</v>
""",
    "textgrid": """\
File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 4.000
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "Speaker1 (female)"
        xmin = 0
        xmax = 4.000
        intervals: size = 3
        intervals [1]:
            xmin = 0.000
            xmax = 0.520
            text = ""
        intervals [2]:
            xmin = 0.520
            xmax = 3.400
            text = "say ""hi"" & <go>"
        intervals [3]:
            xmin = 3.400
            xmax = 4.000
            text = ""
    item [2]:
        class = "IntervalTier"
        name = "Speaker2"
        xmin = 0
        xmax = 4.000
        intervals: size = 3
        intervals [1]:
            xmin = 0.000
            xmax = 3.000
            text = ""
        intervals [2]:
            xmin = 3.000
            xmax = 3.500
            text = "你好"
        intervals [3]:
            xmin = 3.500
            xmax = 4.000
            text = ""
""",
    "txt": """\
[00:00.52 - 00:03.40] Speaker1 (female): say "hi" & <go>
[00:03.00 - 00:03.50] Speaker2: 你好

Not transcribed: [00:03.50 - 00:04.00] loop
Warning: noisy
""",
    "md": """\
# meeting 1

Duration: 00:04.00

| Speaker | Gender | Speech | Share |
| --- | --- | ---: | ---: |
| Speaker1 | female | 00:02.88 | 85.2 % |
| Speaker2 | unknown | 00:00.50 | 14.8 % |

> Not transcribed: \\[00:03.50 - 00:04.00\\] loop

> Warning: noisy

- [00:00.52 - 00:03.40] **Speaker1** (female): say "hi" \\& \\<go\\>
- [00:03.00 - 00:03.50] **Speaker2**: 你好
""",
}


@pytest.mark.parametrize("name", formats.FORMATS)
def test_golden(name: str) -> None:
    assert formats.render(GOLDEN, name) == GOLDENS[name]


def test_hours_in_people_s_formats() -> None:
    late = Transcript("r", 4000, (Segment("A", 3599.999, 3700.5, "x"),))
    assert formats.render(late, "txt") == "[1:00:00.00 - 1:01:40.50] A: x\n"
    assert "01:01:40,500" in formats.render(late, "srt")


EMPTY = {"seglst": "[]\n", "rttm": "", "stm": "", "ctm": "", "srt": "", "vtt": "WEBVTT\n"}


@pytest.mark.parametrize("name", READABLE)
def test_empty_transcript(name: str) -> None:
    back = round_trip(Transcript("silence", 2.5), name)
    assert back.segments == ()
    if name in ("json", "textgrid"):
        assert (back.recording, back.duration_s) == ("silence", 2.5)
    else:
        assert formats.render(Transcript("silence", 2.5), name) == EMPTY[name]
    assert formats.render(Transcript("silence", 2.5), "txt") == "(no speech)\n"
    assert "No speech." in formats.render(Transcript("silence", 2.5), "md")


# --- files of other programs --------------------------------------------------------------------


def parse(name: str, text: str, where: str = "f.x") -> list[Transcript]:
    parser = formats.FORMATS[name].parse
    assert parser is not None
    return parser(text, where)


def test_stm_with_labels_comments_and_sessions() -> None:
    text = ";; a comment\nb 1 S 1 2.5 <O,F0,FEMALE>  hi there\r\na A T 0 1 <unk> <o>\n\na A T 3 4\n"
    second, first = parse("stm", text)
    assert (first.recording, first.duration_s, second.duration_s) == ("a", 4.0, 2.5)
    assert second.segments == (Segment("S", 1.0, 2.5, "hi there", "female"),)
    assert [segment.text for segment in first.segments] == ["<o>", ""]


def test_rttm_with_other_records() -> None:
    text = (
        "# c\n;; c\nLEXEME f 1 0 1 hi lex A <NA>\nSPKR-INFO f 1 <NA> <NA> <NA> adult_male A <NA>\n"
        "SPKR-INFO f 1 <NA> <NA> <NA> child B <NA>\nspeaker f 1 0.1 0.2 <NA> <NA> A <NA>\n"
        "SPEAKER f 1 1 0 <NA> <NA> B <NA> <NA>\n"
    )
    [found] = parse("rttm", text)
    assert found.segments == (Segment("A", 0.1, 0.3, "", "male"),)
    assert found.unscored == ((1.0, 1.0),)
    assert found.warnings == (
        "1 RTTM records of type LEXEME were not read",
        "1 segments had neither length nor words and were left out",
    )


def test_seglst_with_numbers_as_text_and_other_keys() -> None:
    entry = {"session_id": 7, "speaker": 0, "start_time": "1.50", "end_time": 2, "words": "a\nb"}
    bare = {
        "session_id": "8",
        "speaker": "x",
        "start_time": 0,
        "end_time": 1,
        "gender": "F",
        "k": [],
    }
    first, second = parse("seglst", json.dumps([entry, bare]))
    assert (first.recording, first.segments) == ("7", (Segment("0", 1.5, 2.0, "a b"),))
    assert second.segments == (Segment("x", 0.0, 1.0, "", "female"),)


def test_ctm_without_speakers_and_with_noises() -> None:
    text = (
        ";; c\nf A 0 0.5 one\nf A 0.75 0.25 two 0.5\nf A 3 .5 three NA lex\n"
        "f B 0 1 [laugh] 1 non-lex\n"
    )
    [found] = parse("ctm", text)
    assert found.segments == (
        Segment(
            "channelA",
            0.0,
            1.0,
            "one two",
            confidence=Confidence(0.5),
            words=(Word("one", 0.0, 0.5), Word("two", 0.75, 1.0, 0.5)),
        ),
        Segment("channelA", 3.0, 3.5, "three", words=(Word("three", 3.0, 3.5),)),
    )
    assert found.warnings == ("1 CTM tokens of type non-lex were not read",)


def test_srt_of_others() -> None:
    text = (
        "1\n0:00:01.000 --> 00:00:02,000 X1:1\nAnn:\ntwo\nlines\n\n\n"
        "00:00:03,000 --> 00:00:04,000\nat 10:30\n"
    )
    [found] = parse("srt", text, "dir/talk.srt")
    assert found.recording == "talk"
    assert found.segments == (
        Segment("Ann", 1.0, 2.0, "two lines"),
        Segment("unknown", 3.0, 4.0, "at 10:30"),
    )
    assert found.warnings == ("1 cues name no speaker and were given to 'unknown'",)


def test_vtt_of_others() -> None:
    text = (
        "WEBVTT - title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE a\nb\n\nid-1\n"
        "00:01.000 --> 00:02.000 align:start\n<v.loud Ann>Hi <i>you</i>\n"
        "<v Bob>R&amp;D <00:01.500>ok\n\n01:00:03.000 --> 01:00:04.000\nnobody\n"
    )
    [found] = parse("vtt", text)
    assert found.segments == (
        Segment("Ann", 1.0, 2.0, "Hi you"),
        Segment("Bob", 1.0, 2.0, "R&D ok", words=(Word("R&D", 1, 1.5), Word("ok", 1.5, 2))),
        Segment("unknown", 3603.0, 3604.0, "nobody"),
    )


def test_short_textgrid_in_utf_16(tmp_path: Path) -> None:
    text = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0 ! from\n2.5\n<exists>\n2\n'
        '"IntervalTier"\n"张三"\n0\n2.5\n2\n0\n1\n""\n1\n2.5\n"say ""a"""\n'
        '"TextTier"\n"p"\n0\n2.5\n1\n1\n"x"\n'
    )
    path = tmp_path / "g.textgrid"
    path.write_bytes(text.encode("utf-16"))
    [found] = formats.read(path)
    assert found.segments == (Segment("张三", 1.0, 2.5, 'say "a"'),)
    assert found.warnings == ("1 point tiers were not read",)


def test_own_overlaps_take_a_second_tier() -> None:
    twice = Transcript("r", 2, (Segment("A", 0, 2, "x", "male"), Segment("A", 1, 2, "y", "male")))
    assert '"A (male)#2"' in formats.render(twice, "textgrid")
    assert round_trip(twice, "textgrid").segments == twice.segments


needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no reference data in {SHARED}")


@needs_shared
def test_reads_the_aishell4_references() -> None:
    found = [formats.read(path) for path in sorted(SHARED.glob("aishell4_eval_stm/*.stm"))]
    assert [len(sessions) for sessions in found] == [1] * 20
    everything = [segment for [session] in found for segment in session.segments]
    assert len(everything) == 10_498
    assert {segment.gender for segment in everything} == {"unknown"}
    assert {segment.speaker[-2:] for segment in everything} == {"-M", "-F"}
    assert not any(session.warnings for [session] in found)
    assert found[0][0].segments[0] == Segment("006-M", 4.83, 6.45, "零 零 六")


@needs_shared
@pytest.mark.parametrize(
    ("path", "sessions", "segments", "speakers"),
    [
        ("meeteval_examples/ref.stm", 2, 7, 3),
        ("meeteval_examples/hyp.stm", 2, 6, 4),
        ("meeteval_examples/refA.stm", 1, 4, 2),
        ("meeteval_examples/refB.stm", 1, 2, 1),
        ("meeteval_examples/hypA.stm", 1, 4, 2),
        ("meeteval_examples/hypB.stm", 1, 2, 2),
        ("meeteval_examples/ref_siso.stm", 2, 3, 3),
        ("meeteval_examples/hyp_siso.stm", 2, 3, 3),
        ("meeteval_examples/ref.rttm", 2, 5, 3),
        ("meeteval_examples/hyp.rttm", 2, 6, 4),
        ("meeteval_examples/ref.seglst.json", 2, 6, 3),
        ("meeteval_examples/hyp.seglst.json", 2, 6, 4),
        ("meeteval_examples/hyp1.ctm", 2, 63, 2),
        ("meeteval_examples/hyp2.ctm", 2, 22, 2),
        ("dscore_tests/ref.rttm", 1, 13, 2),
        ("dscore_tests/sys.rttm", 1, 11, 2),
        ("alimeeting_der/ref.rttm", 1, 638, 3),
        ("alimeeting_der/sys.rttm", 1, 345, 3),
        ("audio/ami_clips.rttm", 4, 23, 11),
        ("audio/two_party_call.rttm", 1, 10, 2),
        ("audio/two_party_call.stm", 1, 13, 2),
    ],
)
def test_reads_real_files(path: str, sessions: int, segments: int, speakers: int) -> None:
    found = formats.read(SHARED / path)
    assert len(found) == sessions
    assert sum(len(session.segments) for session in found) == segments
    assert sum(len(session.speakers) for session in found) == speakers


# --- broken files -------------------------------------------------------------------------------

SEG = (
    '{"schema": "speaker-reasoner/transcript", "version": 1, "recording": "r", "duration_s": 9, '
    '"segments": [%s]}'
)
TG = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n0\n5\n<exists>\n1\n'
    '"IntervalTier"\n"A"\n0\n5\n1\n'
)
SEGLST = '[{"session_id": "s", "speaker": "a"%s}]'
REVERSED = '{"speaker": "a", "start_s": 2, "end_s": 1, "text": ""}'
BROKEN = [
    ("stm", "a 1 s 0 1 x\na 1 s 2 1 x\n", "f.x:2: ends at 1 s, before it starts at 2 s"),
    ("stm", "a 1 s -1 1 x\n", "f.x:1: start is negative"),
    ("stm", "\n\na 1 s zero 1 x\n", "f.x:3: expected start in seconds, got 'zero'"),
    ("stm", "a 1 s nan 1 x\n", "f.x:1: expected start"),
    ("stm", "a 1 s 0\n", "f.x:1: expected at least 5 STM fields, got 4"),
    ("rttm", "SPEAKER a 1 0 1 <NA> <NA> s\n", "f.x:1: expected 9 or 10 RTTM fields, got 8"),
    ("rttm", "SPEAKER a 1 0 -1 <NA> <NA> s <NA> <NA>\n", "f.x:1: duration is negative"),
    ("rttm", "SPOKEN a 1 0 1 <NA> <NA> s <NA> <NA>\n", "f.x:1: unknown RTTM record type"),
    ("rttm", "SPEAKER a 1 1e999999999 1 <NA> <NA> s <NA> <NA>\n", "f.x:1: expected start"),
    ("ctm", "a 1 0 1\n", "f.x:1: expected 5 to 8 CTM fields, got 4"),
    ("ctm", "a 1 0 1 w\na 1 0 -1 w\n", "f.x:2: duration is negative"),
    ("ctm", "a 1 0 1 w high\n", "f.x:1: expected a confidence or NA"),
    ("ctm", "a 1 0 1 w nan\n", "f.x:1: expected a confidence or NA"),
    ("srt", "1\n00:00:02,000 --> 00:00:01,000\nx\n", "f.x:2: ends at"),
    ("srt", "rest\n\n1\n00:00:01,000 --> 00:00:02,000\nx\n", "f.x:1: expected '<start> --> <end>'"),
    ("srt", "7\n", "f.x:1: expected '<start>"),
    ("vtt", "1\n", "f.x:1: expected WEBVTT"),
    ("vtt", "WEBVTT\n\nid\n00:00:01.000 -> 2\nx\n", "f.x:4: expected '<start> --> <end>'"),
    ("seglst", "[\n{,\n]", "f.x:2: not JSON"),
    ("seglst", "{}", "f.x: expected a list of segments"),
    ("seglst", "[3]", "f.x, entry 1: expected an object"),
    ("seglst", '[{"speaker": "a"}]', "f.x, entry 1: expected session_id"),
    ("seglst", SEGLST % "", "f.x, entry 1: expected start_time in seconds"),
    ("seglst", SEGLST % ', "start_time": NaN', "f.x: not usable JSON: NaN"),
    ("seglst", "[" * 100_000, "f.x: not usable JSON"),
    ("json", "{", "f.x:1: not JSON"),
    ("json", "[]", "f.x: expected an object .* read it as 'seglst'"),
    ("json", '{"schema": "x"}', "f.x: expected an object with"),
    ("json", SEG.replace('": 1,', '": 2,') % "", "transcript version 2, but this program reads"),
    ("json", SEG.replace("9", "-9") % "", "f.x: duration_s is negative"),
    ("json", SEG.replace("9", "1e999") % "", "f.x: duration_s: expected a finite number"),
    ("json", SEG.replace("9", "9" * 400) % "", "f.x: duration_s: expected a finite number"),
    ("json", SEG % "3", r"f.x: segments\[0\]: expected an object"),
    ("json", SEG % '{"speaker": 3}', r"f.x: segments\[0\]: speaker: expected text, got 3"),
    ("json", SEG % REVERSED, r"segments\[0\]: .*start < end"),
    ("json", SEG.replace('"segments"', '"segment"') % "", "f.x: segments: expected a list"),
    ("textgrid", "", "f.x:1: expected file type"),
    ("textgrid", TG.replace("TextGrid", "Pitch"), 'f.x:2: expected "ooTextFile" and "TextGrid"'),
    ("textgrid", TG + '3\n2\n"x"\n', "f.x:14: ends at 2 s"),
    ("textgrid", TG + '3\n"x"\n', r"f.x:13: expected end \(number\), got string"),
    ("textgrid", TG + "3\n", r"f.x:12: expected end \(number\), got the end"),
    ("textgrid", TG.replace("Interval", "Other") + "3\n", "unknown class of tier"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), BROKEN)
def test_broken_file_is_named_with_its_line(name: str, text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        parse(name, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READABLE)
@given(text=st.text(max_size=60))
@settings(deadline=None, max_examples=40)
def test_noise_is_no_crash(name: str, text: str) -> None:
    with contextlib.suppress(FormatError):
        parse(name, text)


def test_undecodable_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.stm"
    path.write_bytes(b"a 1 s 0 1 ok\na 1 s 1 2 \xff\xfe\n")
    with pytest.raises(FormatError, match=r"a\.stm:2: not UTF-8 text .*convert it to UTF-8"):
        formats.read(path)


def test_json_refuses_what_it_cannot_hold() -> None:
    for info, message in [
        ({"x": [float("nan")]}, r"info\.x\[0\]: JSON cannot hold the number nan"),
        ({"x": {1: 2}}, r"info\.x: JSON keys are text, got 1"),
        ({"x": Path()}, r"info\.x: JSON cannot hold a "),
    ]:
        with pytest.raises(FormatError, match=message):
            formats.render(Transcript("r", 1, info=info), "json")


# --- files on disk ------------------------------------------------------------------------------


def test_write_and_read_every_format(tmp_path: Path) -> None:
    paths = formats.write(GOLDEN, tmp_path / "new" / "out", formats.FORMATS)
    assert [path.name for path in paths] == [
        f"meeting 1{known.suffix}" for known in formats.FORMATS.values()
    ]
    for path, name in zip(paths, formats.FORMATS, strict=True):
        assert path.read_bytes().decode() == GOLDENS[name]
        if formats.FORMATS[name].parse is None:
            with pytest.raises(FormatError, match="is written, not read"):
                formats.read(path)
        else:
            assert len(formats.read(path)) == 1
    assert formats.read(paths[0]) == [GOLDEN]
    assert formats.read(paths[0].rename(tmp_path / "x.dat"), "json") == [GOLDEN]


@pytest.mark.parametrize(
    "recording", ["../../etc/x", "/abs", "..", "a\\b", "a\0b", "C:x", "", ".hidden"]
)
def test_names_do_not_leave_the_directory(tmp_path: Path, recording: str) -> None:
    directory = tmp_path / "out"
    [path] = formats.write(Transcript(recording, 1), directory, ["txt"])
    assert path.parent == directory
    assert list(directory.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [directory]
    assert not path.name.startswith(".")


def test_unknown_formats() -> None:
    with pytest.raises(
        FormatError, match=r"unknown format 'rtm' \(did you mean 'rttm'\?\); known formats: json,"
    ):
        formats.render(GOLDEN, "rtm")
    with pytest.raises(FormatError, match="unknown format 'pdf'; known"):
        formats.write(GOLDEN, "never", ["json", "pdf"])
    assert not Path("never").exists()
    with pytest.raises(FormatError, match=r"a\.doc: the suffix is none of \.json, "):
        formats.read("a.doc")
    with pytest.raises(FormatError, match=r"cannot read nowhere\.stm: No such file"):
        formats.read("nowhere.stm")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_leaves_the_old_file_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, "replace", fail)
    expected = OutputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"a\.txt: No space left|^$"):
        formats.write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_targets(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for directory in (file, file / "below"):
        with pytest.raises(OutputError, match="choose a directory that can be written to"):
            formats.write(GOLDEN, directory, ["txt"])
    (tmp_path / "meeting 1.txt").mkdir()
    with pytest.raises(OutputError, match=r"meeting 1\.txt: Is a directory"):
        formats.write(GOLDEN, tmp_path, ["txt"])
    with pytest.raises(OutputError, match="surrogate"):
        formats.write_text_atomically(tmp_path / "s.txt", "\ud800")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "meeting 1.txt"]


def test_overwriting_is_a_choice(tmp_path: Path) -> None:
    [path] = formats.write(GOLDEN, tmp_path, ["srt"])
    with pytest.raises(OutputError, match="exists"):
        formats.write(Transcript("meeting 1", 1), tmp_path, ["txt", "srt"], overwrite=False)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8") == GOLDENS["srt"]
    formats.write(Transcript("meeting 1", 1), tmp_path, ["srt"])
    assert path.read_text() == ""
