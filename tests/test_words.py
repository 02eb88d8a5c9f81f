"""Words with times: never against their text, kept by what can hold them, dropped where told."""

import json
import re
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speaker_reasoner import formats
from speaker_reasoner.errors import FormatError
from speaker_reasoner.formats.clock import span_ms, to_ms
from speaker_reasoner.formats.folders import load
from speaker_reasoner.formats.pieces import cut
from speaker_reasoner.formats.services import parse_services
from speaker_reasoner.formats.words import separate_ms, spelled
from speaker_reasoner.server.again import heard_again
from speaker_reasoner.server.corrections import replay
from speaker_reasoner.server.forms import Abilities, TranscriptionForm, check_transcription
from speaker_reasoner.server.lines import CorrectedLine, Document
from speaker_reasoner.server.openai import (
    Letters,
    TranscriptStream,
    answer,
    diarized_body,
    language_warnings,
)
from speaker_reasoner.transcript import Confidence, Segment, Transcript, Word, find_words
from speaker_reasoner.voices.finished import ChunkSegment, FinishedChunk

CORES = ["hello", "你好", "世", "it's", "a", "a", "1.5", "R&D", "<b>", "😀x", "की", "_"]
BEFORE = ["", "", "(", '"', "<", "“", "- ", "-->", "&amp;"]
BEHIND = ["", "", ",", "。", ".", '"', " ...", ">", " <", "👩‍🚀"]
BETWEEN = [" ", " ", "", "  ", "\u2028"]
LABELS = ["Speaker1", "Ana María", "A words", "A", "A words#2", "A (male) words"]


@st.composite
def timed_segments(draw: st.DrawFn, at_s: float = 0.0) -> Segment:
    """A segment with words; now and then as a whole lies within a few milliseconds."""
    start_s = at_s + draw(st.floats(0, 5))
    length_s = draw(st.sampled_from([0.003, 0.02, 1.0, 2.5, 1e-4]))
    cores = draw(st.lists(st.sampled_from(CORES), min_size=1, max_size=6))
    text = ""
    for n, core in enumerate(cores):
        gap = draw(st.sampled_from(BETWEEN)) if n else ""
        marked = draw(st.sampled_from(BEFORE)) + core + draw(st.sampled_from(BEHIND))
        text += gap + marked
    starts = sorted(draw(st.floats(0, 1)) for _ in cores)
    words = []
    for core, share in zip(cores, starts, strict=True):
        from_s = start_s + share * length_s
        to_s = from_s + draw(st.sampled_from([0.0, 0.3, 1.0])) * (start_s + length_s - from_s)
        words.append(Word(core, from_s, to_s, draw(st.none() | st.floats(0, 1))))
    try:
        return Segment(
            draw(st.sampled_from(LABELS)),
            start_s,
            start_s + length_s,
            text.strip(),
            draw(st.sampled_from(["female", "unknown"])),
            Confidence(draw(st.none() | st.floats(0, 1))),
            tuple(words),
        )
    except FormatError as error:
        assume("not those of the text" not in str(error))  # `&amp;` before a word says `amp`
        raise


@st.composite
def timed_transcripts(draw: st.DrawFn) -> Transcript:
    rows = draw(st.lists(timed_segments(), min_size=1, max_size=5))
    rows += draw(st.lists(st.just(Segment("A", 1.0, 2.0, "no times")), max_size=1))
    return Transcript("talk", 20.0, tuple(rows))


def round_trip(transcript: Transcript, name: str) -> Transcript:
    known = formats.FORMATS[name]
    assert known.parse is not None
    [found] = known.parse(known.render(transcript), f"talk{known.suffix}")
    # CTM knows no segments: one of a single word without length is given some
    rows = [(one.speaker, one.text) for one in transcript.segments]
    for warning in found.warnings:
        if "come again" in warning:
            assert len(set(rows)) < len(rows)
        else:
            assert name == "ctm" and "no length" in warning
    return found


def in_ms(words: tuple[Word, ...] | None) -> list[tuple[str, int, int]]:
    return [(word.text, to_ms(word.start_s), to_ms(word.end_s)) for word in words or ()]


def squeeze(text: str) -> str:
    return "".join(text.split())


# Words and their segment


@given(segment=timed_segments())
@settings(deadline=None)
def test_words_stand_in_their_text_in_order(segment: Segment) -> None:
    assert segment.words is not None
    places = find_words(segment.text, segment.words)
    assert places is not None
    left, reached = "", 0
    for word, (start, end) in zip(segment.words, places, strict=True):
        assert segment.text[start:end] == word.text
        left, reached = left + segment.text[reached:start], end
    assert not re.search(r"\w", left + segment.text[reached:])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((Word("two", 1, 2), Word("one", 1, 2)), "not those of the text"),
        ((Word("one", 1, 2),), "not those of the text"),
        ((Word("one", 1, 2), Word("two", 1, 2), Word("two", 1, 2)), "not those of the text"),
        ((Word("on", 1, 2), Word("two", 1, 2)), "not those of the text"),
        ((), "not those of the text"),
        ((Word("one", 1.5, 2), Word("two", 1.4, 2)), "in order of start"),
        ((Word("one", 0.99, 2), Word("two", 1, 2)), "outside the segment"),
        ((Word("one", 1, 2), Word("two", 1, 2.01)), "outside the segment"),
    ],
)
def test_words_that_contradict_their_segment(words: tuple[Word, ...], said: str) -> None:
    with pytest.raises(FormatError, match=said) as caught:
        Segment("A", 1, 2, "one, two", words=words)
    assert "\n" not in str(caught.value)


def test_words_stick_out_by_rounding_only() -> None:
    words = (Word("one", 0.999, 1.2), Word("two", 1.2, 2.001))
    assert Segment("A", 1, 2, "one, two", words=words).words == words
    assert Segment("A", 1, 2, "...", words=()).words == ()


@pytest.mark.parametrize(
    "word",
    [
        ("", 0, 1),
        (" a", 0, 1),
        ("a b", 0, 1),
        ("a\n", 0, 1),
        ("a", 1, 0),
        ("a", -1, 0),
        ("a", 0, float("inf")),
        ("a", float("nan"), 1),
        ("a", 0, 1, float("nan")),
    ],
)
def test_what_is_no_word(word: tuple[str, float, float]) -> None:
    with pytest.raises(FormatError, match=r"^word "):
        Word(*word)


@given(segment=timed_segments())
@settings(deadline=None)
def test_spelled_words_say_the_whole_text(segment: Segment) -> None:
    words = spelled(segment)
    assert words is not None and segment.words is not None
    assert "".join(word.text for word in words) == squeeze(segment.text)
    assert replace(segment, words=words).words == words  # in order, inside
    known = iter(words)
    for word in segment.words:  # each with its own times, marks aside
        assert any(w.text.find(word.text) >= 0 and w.start_s == word.start_s for w in known)


def test_marks_go_with_the_word_they_touch() -> None:
    timed = tuple(Word(text, n, n + 0.5) for n, text in enumerate(["say", "hi", "你", "好"]))
    text = "... say, “hi”—你“好” & !"
    words = spelled(Segment("A", 0, 4, text, words=timed))
    assert [w.text for w in words or ()] == ["...", "say,", "“hi”—", "你“", "好”", "&", "!"]
    assert [w.start_s for w in words or ()] == [0, 0, 1, 2, 3, 3.5, 3.5]


@given(segment=timed_segments())
@settings(deadline=None)
def test_separate_words_follow_each_other(segment: Segment) -> None:
    words = segment.words or ()
    spans = separate_ms(words, segment)
    first_ms, last_ms = span_ms(segment)
    if spans is None:
        assert last_ms - first_ms < len(words)
        return
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges) and first_ms <= edges[0] and edges[-1] <= last_ms
    assert all(end > start for start, end in spans)
    for word, (start_ms, _) in zip(words, spans, strict=True):
        assert abs(start_ms - word.start_s * 1000) <= len(words) + 1


# Formats


@given(transcript=timed_transcripts())
@settings(deadline=None, max_examples=60)
def test_json_and_seglst_keep_words_exactly(transcript: Transcript) -> None:
    assert round_trip(transcript, "json") == transcript
    back = round_trip(transcript, "seglst")
    assert [s.words for s in back.segments] == [s.words for s in transcript.segments]


@given(transcript=timed_transcripts())
@settings(deadline=None, max_examples=60)
def test_textgrid_keeps_words_apart_from_each_other(transcript: Transcript) -> None:
    expected = []
    for segment in transcript.segments:
        words = segment.words or ()
        spans = separate_ms(words, segment) or []
        timed = [(w.text, *span) for w, span in zip(words, spans, strict=False)]
        expected.append((segment.speaker, *span_ms(segment), timed))
    back = round_trip(transcript, "textgrid").segments
    found = [(s.speaker, to_ms(s.start_s), to_ms(s.end_s), in_ms(s.words)) for s in back]
    assert sorted(found) == sorted(expected)


@given(transcript=timed_transcripts())
@settings(deadline=None, max_examples=60)
def test_vtt_keeps_words_in_valid_timestamps(transcript: Transcript) -> None:
    text = formats.render(transcript, "vtt")
    for cue in re.findall(r"(\S+) --> (\S+)\n(.*)", text):
        stamps = [cue[0], *re.findall(r"<([\d:.]+)>", cue[2]), cue[1]]
        assert all(before < after for before, after in pairwise(stamps))
    expected = []
    for segment in transcript.segments:
        words = spelled(segment) or ()
        spans = separate_ms(words, segment) or []
        if spans == [span_ms(segment)]:  # one word that fills its cue needs no timestamp
            spans = []
        timed = [(w.text, *span) for w, span in zip(words, spans, strict=False)]
        expected.append((segment.speaker, *span_ms(segment), squeeze(segment.text), timed))
    found = [
        (s.speaker, to_ms(s.start_s), to_ms(s.end_s), squeeze(s.text), in_ms(s.words))
        for s in round_trip(transcript, "vtt").segments
    ]
    assert sorted(found) == sorted(expected)


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_ctm_keeps_words_and_their_confidence(data: st.DataObject) -> None:
    rows = [data.draw(timed_segments(at_s=10.0 * n)) for n in range(3)]
    back = round_trip(Transcript("talk", 40, tuple(rows)), "ctm")
    found = [word for segment in back.segments for word in segment.words or ()]
    wanted = [(row, word) for row in rows for word in spelled(row) or ()]
    assert in_ms(tuple(found)) == in_ms(tuple(word for _, word in wanted))
    for got, (row, word) in zip(found, wanted, strict=True):
        known = row.confidence.words if word.confidence is None else word.confidence
        assert got.confidence == (None if known is None else pytest.approx(known, abs=1e-3))
    assert squeeze("".join(s.text for s in back.segments)) == squeeze("".join(r.text for r in rows))


@given(transcript=timed_transcripts())
@settings(deadline=None, max_examples=20)
def test_formats_without_words_are_as_before(transcript: Transcript) -> None:
    bare = transcript.with_segments([replace(s, words=None) for s in transcript.segments])
    for name in ("rttm", "stm", "srt", "txt", "md"):
        assert formats.render(transcript, name) == formats.render(bare, name)


def test_json_without_words_reads() -> None:
    bare = Transcript("talk", 2, (Segment("A", 0, 1, "one two"),))
    text = formats.render(bare, "json")
    assert '"words": [' not in text
    assert round_trip(bare, "json") == bare


def parse(name: str, text: str) -> Transcript:
    parser = formats.FORMATS[name].parse
    assert parser is not None
    [found] = parser(text, "f.x")
    return found


NO_FIT = (
    "1 segments have words that contradict their text or times: their words' times were not read"
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('[{"text": "two", "start_s": 0, "end_s": 1}]', "not those of the text"),
        ('[{"text": "one", "start_s": "0", "end_s": 1}]', r"words\[0\].start_s: expected a finite"),
        ('[{"text": "one", "start_s": 0, "end_s": 1e999}]', r"words\[0\]: .*must be finite"),
        ('[{"text": 1}]', r"words\[0\]: expected an object with text, start_s, end_s"),
        ("[3]", r"words\[0\]: expected an object"),
        ("null", "words: expected a list of words"),
    ],
)
def test_json_with_broken_words(words: str, said: str) -> None:
    text = formats.render(Transcript("talk", 2, (Segment("A", 0, 1, "one"),)), "json")
    with pytest.raises(FormatError, match=said) as caught:
        parse("json", text.replace('"overlap": false', f'"overlap": false, "words": {words}'))
    assert str(caught.value).startswith("f.x: segments[0]")


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ([{"word": "two", "start_time": 0, "end_time": 1}], NO_FIT),
        ([{"word": "one", "start_time": 0, "end_time": 3}], NO_FIT),
        ([[0, 1]], "1 segments have words without word, start_time, end_time, which were not read"),
        ("0 1", "1 segments have words without word, start_time, end_time, which were not read"),
    ],
)
def test_seglst_of_others_with_other_words(words: object, warning: str) -> None:
    entry = {"session_id": "s", "speaker": "a", "start_time": 0, "end_time": 1, "words": "one"}
    found = parse("seglst", json.dumps([{**entry, "word_times": words}]))
    assert found.segments == (Segment("a", 0, 1, "one"),)
    assert found.warnings == (warning,)


def test_vtt_of_others_with_timestamps() -> None:
    head = "WEBVTT\n\n00:01.000 --> 00:04.000\n"
    karaoke = parse("vtt", head + "<v Ann>I<00:00:02.000><c> am</c><00:00:03.000><c> here.</c>\n")
    assert in_ms(karaoke.segments[0].words) == [
        ("I", 1000, 2000),
        ("am", 2000, 3000),
        ("here.", 3000, 4000),
    ]
    for line in ("<v Ann>all of <00:02.000>it", "<v Ann>a <00:05.000>b", "<v Ann>a <00:00.500>b"):
        found = parse("vtt", head + line + "\n")
        assert found.segments[0].words is None
        assert found.warnings == ("1 cues have timestamps that are not of words: not read",)


def tier(name: str, *marks: tuple[float, float, str]) -> str:
    rows = "".join(f'{a}\n{b}\n"{mark}"\n' for a, b, mark in marks)
    return f'"IntervalTier"\n"{name}"\n0\n9\n{len(marks)}\n{rows}'


def test_textgrid_of_others_with_tiers_of_words() -> None:
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n0\n9\n<exists>\n3\n'
    words = tier("A words", (0, 1, "one"), (1, 2, "x"), (7, 8, "lost"))
    found = parse(
        "textgrid", head + words + tier("A", (0, 1, "one"), (1, 2, "two")) + tier("B words")
    )
    assert [(s.speaker, s.text, in_ms(s.words)) for s in found.segments] == [
        ("A", "one", [("one", 0, 1000)]),
        ("A", "two", []),
    ]
    assert sorted(found.warnings) == [
        NO_FIT,
        "1 words lie in no segment of their tier: they were not read",
    ]
    alone = tier("A words", (0, 1, "one")) + tier("B") + tier("C")  # as an aligner has words
    timed, *_ = parse("textgrid", head + alone).segments
    assert (timed.speaker, in_ms(timed.words)) == ("A", [("one", 0, 1000)])


def test_words_of_diarized_json() -> None:
    rows = [{"word": " Hello", "start": 0.1, "end": 0.4}, {"word": "you", "start": 0.5, "end": 1}]
    segment = {"speaker": "A", "start": 0, "end": 1, "text": "Hello, you!", "words": rows}
    [found] = parse_services(json.dumps({"segments": [segment]}), "f.json")
    assert in_ms(found.segments[0].words) == [("Hello", 100, 400), ("you", 500, 1000)]
    other = {**segment, "text": "Hello."}
    [found] = parse_services(json.dumps({"segments": [other]}), "f.json")
    assert found.segments[0].words is None and found.warnings == (NO_FIT,)


def test_alignments_of_lhotse(tmp_path: Path) -> None:
    items = [["<eps>", 1.0, 0.1], ["one", 1.1, 0.3, 0.9], ["two", 1.5, 0.5, -7.25]]
    objects = [dict(zip(("symbol", "start", "duration"), item, strict=False)) for item in items]
    supervision = {"id": "u", "recording_id": "r", "start": 1.0, "duration": 1.0, "text": "one two"}
    supervision["speaker"] = "A"
    inside = {
        **supervision,
        "start": -1.0,
        "alignment": {"word": [["one", -1, 0.5], ["two", 0, 0]]},
    }
    clip = {"id": "c", "start": 5.0, "duration": 3.0, "supervisions": [{**inside, "id": "w"}]}
    clip["recording"] = {"id": "q", "duration": 9.0}
    rows = [
        {**supervision, "alignment": {"word": items}},
        {**supervision, "id": "v", "recording_id": "s", "alignment": {"word": objects}},
        clip,
        {**supervision, "id": "x", "recording_id": "t", "alignment": {"word": [["ONE", 1, 1]]}},
        {**supervision, "id": "y", "recording_id": "t2", "alignment": {"phone": [["a", 1, 1]]}},
        {**supervision, "id": "z", "recording_id": "t3", "alignment": {"word": ["odd"]}},
    ]
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load(path)
    [words] = [s.words for s in found["r"].segments]
    assert words == (Word("one", 1.1, 1.4, 0.9), Word("two", 1.5, 2.0))
    assert in_ms(found["s"].segments[0].words) == in_ms(words)
    assert in_ms(found["q"].segments[0].words) == [("one", 4000, 4500), ("two", 5000, 5000)]
    assert [found[n].segments[0].words for n in ("t", "t2", "t3")] == [None] * 3
    assert found["t"].warnings == (NO_FIT,) and not found["t2"].warnings
    assert len(found["t3"].warnings) == 1


# What copies and changes segments


@given(transcript=timed_transcripts(), offset_s=st.floats(0, 45))
@settings(deadline=None, max_examples=60)
def test_words_move_with_their_piece(transcript: Transcript, offset_s: float) -> None:
    rows = [
        replace(
            s,
            start_s=s.start_s + offset_s,
            end_s=s.end_s + offset_s,
            text=f"{s.text} {n}",
            words=(
                *(
                    replace(w, start_s=w.start_s + offset_s, end_s=w.end_s + offset_s)
                    for w in s.words or ()
                ),
                Word(str(n), s.end_s + offset_s, s.end_s + offset_s),
            )
            if s.words
            else None,
        )
        for n, s in enumerate(transcript.segments)
    ]
    known = {s.text: s for s in rows}
    for piece in cut(Transcript("talk", 100.0, tuple(rows)), 40.0, 50.0):
        first_s, last_s = piece.start_s, piece.start_s + piece.transcript.duration_s
        for segment in piece.transcript.segments:
            was = known[segment.text]
            outside = [w for w in was.words or () if w.end_s < first_s or w.start_s > last_s]
            if was.words is None or segment.words is None:
                assert segment.words is None and (was.words is None or outside)
                continue
            assert [w.text for w in segment.words] == [w.text for w in was.words]
            for word, old in zip(segment.words, was.words, strict=True):
                assert word.start_s == pytest.approx(max(old.start_s, first_s) - first_s, abs=1e-5)
                assert word.end_s == pytest.approx(min(old.end_s, last_s) - first_s, abs=1e-5)


TIMED = Segment(
    "Speaker1", 1, 3, "one, two", words=(Word("one", 1.0, 1.5, 0.9), Word("two", 2.0, 2.5))
)
DOCUMENT = Document(Transcript("talk", 10.0, (TIMED,)), (CorrectedLine("0", TIMED, 0, 1),))


@pytest.mark.parametrize(
    ("operation", "kept"),
    [
        ({"op": "rename", "speaker": "Speaker1", "name": "Ana"}, True),
        ({"op": "move", "segment": "0", "speaker": "Bo"}, True),
        ({"op": "edit", "segment": "0", "text": "one two."}, True),
        ({"op": "edit", "segment": "0", "text": "one, too"}, False),
        ({"op": "edit", "segment": "0", "text": "one"}, False),
        ({"op": "edit", "segment": "0", "text": ""}, False),
        ({"op": "edit", "segment": "0", "start": 0.5}, True),
        ({"op": "edit", "segment": "0", "end": 2.5}, True),
        ({"op": "edit", "segment": "0", "end": 2.4}, False),
        ({"op": "edit", "segment": "0", "start": 1.2, "text": "one two"}, False),
    ],
)
def test_corrections_keep_words_that_still_hold(operation: dict[str, object], kept: bool) -> None:
    document, _ = replay(DOCUMENT, [operation])
    [segment] = document.corrected().segments
    assert segment.words == (TIMED.words if kept else None)


def test_a_chunk_heard_again_has_its_words() -> None:
    trace = {"chunk": 0, "start_s": 0.0, "duration_s": 5.0}
    heard = Transcript("talk", 5.0, (TIMED,), traces=(trace,))
    bare = replace(TIMED, start_s=3, end_s=4, words=None)
    operation = heard_again(
        [CorrectedLine("1", TIMED, 0, 1), CorrectedLine("2", bare, 0, 2)], heard, keep=False
    )
    operation = json.loads(json.dumps(operation))
    document, _ = replay(DOCUMENT, [operation])
    assert [line.segment for line in document.ordered] == [TIMED, bare]
    for row in operation["lines"]:
        del row["words"]  # as versions without words wrote it
    document, _ = replay(DOCUMENT, [operation])
    assert [line.segment.words for line in document.ordered] == [None, None]


def test_a_finished_chunk_has_its_words() -> None:
    spoken = ChunkSegment(1, "male", 1, 3, TIMED.text, Confidence(0.5), TIMED.words)
    finished = FinishedChunk(0, 80_000, (spoken, replace(spoken, words=None)))
    row = json.loads(json.dumps(finished.to_json()))
    assert FinishedChunk.from_json(row) == finished
    for one in row["spoken"]:
        del one["words"]
    assert [one.words for one in FinishedChunk.from_json(row).spoken] == [None, None]
    assert spoken.segment("Ana").words == TIMED.words
    assert ChunkSegment.from_json(asdict(spoken)) == spoken


# OpenAI's answers


def form(**fields: object) -> TranscriptionForm:
    return TranscriptionForm.model_validate({"model": "m", **fields})


def test_words_are_given_where_they_were_asked_for() -> None:
    other = Segment("Speaker2", 1.2, 4, "uh", words=(Word("uh", 1.3, 1.4),))
    talk = Transcript("talk", 5.0, (TIMED, other, Segment("Speaker1", 4, 5, "bye")))
    asked = form(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    _, body, notes = answer(talk, asked, "en")
    assert isinstance(body, dict)
    assert body["words"] == [
        {"word": "one", "start": 1.0, "end": 1.5, "confidence": 0.9, "speaker": "A"},
        {"word": "uh", "start": 1.3, "end": 1.4, "speaker": "B"},
        {"word": "two", "start": 2.0, "end": 2.5, "speaker": "A"},
    ]
    assert body["warnings"] == ["1 segments have no times of words"] == list(notes)
    _, bare, _ = answer(talk, form(response_format="verbose_json"), "en")
    assert isinstance(bare, dict)
    assert "words" not in bare and "words" not in bare["segments"][0] and not bare["warnings"]
    [back] = parse_services(json.dumps(diarized_body(talk, Letters(), words=True)), "talk.json")
    assert [in_ms(s.words) for s in back.segments] == [in_ms(s.words) for s in talk.segments]
    for granularities, told in ((["word"], True), ([], False)):
        streamed = form(
            response_format="diarized_json", stream=True, timestamp_granularities=granularities
        )
        events = "".join(TranscriptStream(streamed).segment(TIMED, 0, False))
        assert ('"words": [{"word": "one"' in events) is told


@pytest.mark.parametrize(
    ("kind", "word_times", "said"),
    [
        ("verbose_json", False, "timestamp_granularities: the model 'm' gives no times of words"),
        ("srt", True, "timestamp_granularities: srt holds no times of words; "),
        ("diarized_json", True, None),
    ],
)
def test_words_that_cannot_be_given(kind: str, word_times: bool, said: str | None) -> None:
    asked = form(response_format=kind, timestamp_granularities=["word"])
    carried_out, notes = check_transcription(asked, Abilities("m", word_times=word_times))
    assert carried_out.wants_words is (said is None)
    assert len(notes) == (said is not None) and all(note.startswith(said or "") for note in notes)


def test_a_language_that_was_asked_for_and_not_recognised_is_told() -> None:
    spoken = Transcript("talk", 1.0, (Segment("a", 0.0, 1.0, "hola"),), info={"language": "es"})
    asked = form(response_format="verbose_json", language="en")
    _, body, _ = answer(spoken, asked, "en")
    assert isinstance(body, dict) and body["language"] == "es"
    [warning] = language_warnings(spoken, asked)
    assert "'en' was asked for and 'es' was recognised" in warning
    assert language_warnings(spoken, form(language="es")) == []
