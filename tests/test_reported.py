"""Files as other people have them: each row is a file, what it says, and what a user is told of it."""

import json
from pathlib import Path

import pytest

from speaker_reasoner.errors import FormatError
from speaker_reasoner.formats.folders import load

GRID = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n3\n<exists>\n2\n'
TIER = '"IntervalTier"\n"Ana"\n0\n3\n1\n%d\n%d\n"%s"\n'
TURN = {"start": 1, "end": 2, "text": "hi", "speaker": "A"}
OPEN = "1 segments have no end"
LAST = "last as long as their words take"
CHANNELS = "1 speakers come in several channels: each was taken for one person"
AGAIN = "1 segments come again with the same speaker, times and words"

Said = list[tuple[str, float, float, str]]


def cues(*texts: str) -> str:
    return "\n".join(
        f"{n}\n00:00:0{2 * n},000 --> 00:00:0{2 * n + 1},000\n{text}\n"
        for n, text in enumerate(texts, 1)
    )


ROWS: dict[str, tuple[str, object, Said, str]] = {
    "a pipeline's last chunk has no end": (
        "a.json",
        {
            "chunks": [
                {"timestamp": [0, 1.5], "text": "a"},
                {"timestamp": [2, None], "text": "b c d"},
            ]
        },
        [("unknown", 0, 1.5, "a"), ("unknown", 2, 3.2, "b c d")],
        OPEN,
    ),
    "chunks alone, one without an end": (
        "a.json",
        [
            {"timestamp": [0, None], "text": "a", "speaker": "A"},
            {"timestamp": [2, 3], "text": "b", "speaker": "B"},
        ],
        [("A", 0, 2, "a"), ("B", 2, 3, "b")],
        OPEN,
    ),
    "a start and a duration": (
        "a.json",
        {"segments": [{"start": 1, "duration": 1.5, "text": "hi", "speaker": "A"}]},
        [("A", 1, 2.5, "hi")],
        "",
    ),
    "an offset and a duration": (
        "a.json",
        {"segments": [{"offset": 1.5, "duration": 1, "text": "hi", "speaker": "A"}]},
        [("A", 1.5, 2.5, "hi")],
        "",
    ),
    "turns under another key": (
        "a.json",
        {"meeting": "m", "transcript": [TURN]},
        [("A", 1, 2, "hi")],
        "",
    ),
    "turns under Google's key": ("a.json", {"results": [TURN]}, [("A", 1, 2, "hi")], ""),
    "SegLST without sessions": (
        "a.json",
        [{"start_time": 1, "end_time": 2, "words": "hi", "speaker": "A"}],
        [("A", 1, 2, "hi")],
        "",
    ),
    "SegLST whose words are null": (
        "a.json",
        [{"session_id": "a", "start_time": 1, "end_time": 2, "words": None, "speaker": "A"}],
        [("A", 1, 2, "")],
        "",
    ),
    "a manifest with speaker_id": (
        "a.jsonl",
        json.dumps(
            {"audio_filepath": "a.wav", "offset": 1, "duration": 1, "text": "hi", "speaker_id": "A"}
        ),
        [("A", 1, 2, "hi")],
        "",
    ),
    "marks of turns by whisper.cpp": (
        "a.json",
        {"transcription": [{"offsets": {"from": 0, "to": 900}, "text": " hi [SPEAKER_TURN]"}]},
        [("unknown", 0, 0.9, "hi")],
        "",
    ),
    "labels that differ in capitals": (
        "a.json",
        {"segments": [TURN, {**TURN, "speaker": " a"}]},
        [("A", 1, 2, "hi"), ("a", 1, 2, "hi")],
        "1 speakers have the label of another one but for capitals or spaces",
    ),
    "a segment that comes twice": (
        "a.json",
        {"segments": [TURN, TURN]},
        [("A", 1, 2, "hi"), ("A", 1, 2, "hi")],
        AGAIN,
    ),
    "RTTM of two channels": (
        "a.rttm",
        "SPEAKER a 1 0 1 <NA> <NA> A <NA> <NA>\nSPEAKER a 2 3 1 <NA> <NA> A <NA> <NA>\n",
        [("A", 0, 1, ""), ("A", 3, 4, "")],
        CHANNELS,
    ),
    "STM of two channels": (
        "a.stm",
        "a 1 A 0 1 hi\na 2 A 0 1 yo\n",
        [("A", 0, 1, "hi"), ("A", 0, 1, "yo")],
        CHANNELS,
    ),
    "tiers of one name": (
        "a.TextGrid",
        GRID + TIER % (0, 1, "hi") + TIER % (1, 2, "yo"),
        [("Ana", 0, 1, "hi"), ("Ana", 1, 2, "yo")],
        "1 tiers have the name of another one: they were read as one speaker's",
    ),
    "numbered speakers above two cues": (
        "a.srt",
        cues("Speaker 1\nhi", "Speaker 2\nyo"),
        [("Speaker 1", 2, 3, "hi"), ("Speaker 2", 4, 5, "yo")],
        "",
    ),
    "how somebody speaks, behind a name": (
        "a.srt",
        cues("ANA (whispering): hi", "ANA: yo", "BOB (V.O.): so"),
        [("ANA", 2, 3, "hi"), ("ANA", 4, 5, "yo"), ("BOB", 6, 7, "so")],
        "2 names come with a remark in brackets, which was left out",
    ),
    "guests of a meeting keep their labels": (
        "a.srt",
        cues("Ana (Guest): hi", "Ana: yo", "Ana (Guest): so"),
        [("Ana (Guest)", 2, 3, "hi"), ("Ana", 4, 5, "yo"), ("Ana (Guest)", 6, 7, "so")],
        "",
    ),
    "a text of ranges without brackets": (
        "a.txt",
        "0:01 - 0:03\nAna: hi\n\n0:04 - 0:05\nBob: yo\n",
        [("Ana", 1, 3, "hi"), ("Bob", 4, 5, "yo")],
        "",
    ),
    "a text of names above times": (
        "a.txt",
        "Minutes\n\nAna Moe\n00:01\nhi\nthere\n\nBob\n00:04\nyo\n",
        [("Ana Moe", 1, 4, "hi there"), ("Bob", 4, 5, "yo")],
        LAST,
    ),
    "a text of speakers in brackets": (
        "a.txt",
        "[Speaker 1] (00:01)\nhi\n[Speaker 2] (00:04)\nyo\n",
        [("Speaker 1", 1, 4, "hi"), ("Speaker 2", 4, 5, "yo")],
        LAST,
    ),
    "captions with ends of lines of several kinds": (
        "a.srt",
        cues("Ana: hi", "Ana: yo").replace("000\nAna", "000\rAna"),
        [("Ana", 2, 3, "hi"), ("Ana", 4, 5, "yo")],
        "",
    ),
    "captions of an old Mac, saved as a text": (
        "a.txt",
        cues("Ana: hi", "Ana: yo").replace("\n", "\r"),
        [("Ana", 2, 3, "hi"), ("Ana", 4, 5, "yo")],
        "",
    ),
    "captions with doubled ends of lines": (
        "a.vtt",
        ("WEBVTT\n\n" + cues("Ana: hi\nso", "Ana: yo").replace(",", ".")).replace("\n", "\r\r\n"),
        [("Ana", 2, 3, "hi so"), ("Ana", 4, 5, "yo")],
        "",
    ),
    "a text of names with times": (
        "a.txt",
        "Ana (00:00:01): hi\nBob [0:04]: yo\n",
        [("Ana", 1, 4, "hi"), ("Bob", 4, 5, "yo")],
        LAST,
    ),
    "a text with a time behind a name in a sentence": (
        "a.txt",
        "[00:01] Ana: look\nMatthew (5:13) says more\n[00:04] Ana: yes\n",
        [("Ana", 1, 4, "look Matthew (5:13) says more"), ("Ana", 4, 5, "yes")],
        LAST,
    ),
    "a label that holds brackets": (
        "a.txt",
        "Ana [guest]  00:01\nhi\nBob  00:04\nyo\n",
        [("Ana [guest]", 1, 4, "hi"), ("Bob", 4, 5, "yo")],
        LAST,
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_a_file_says(row: tuple[str, object, Said, str], tmp_path: Path) -> None:
    name, content, said, told = row
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / name).write_bytes(text.encode())
    [transcript] = load(tmp_path / name).values()
    assert [(s.speaker, s.start_s, s.end_s, s.text) for s in transcript.segments] == said
    warnings = [w for w in transcript.warnings if "name no speaker" not in w]
    assert any(told in w for w in warnings) if told else warnings == []


def test_utf_16_without_a_mark_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes(cues("Ana: hi").encode("utf-16-le"))
    with pytest.raises(FormatError, match="is it UTF-16 without a byte order mark"):
        load(tmp_path / "a.srt")
    assert load(tmp_path / "a.srt", encoding="utf-16-le")["a"].segments[0].text == "hi"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"words": "hi there"},
            r'a\.json: expected a list of objects under "words", got .hi there',
        ),
        ({"words": ["hi", "there"]}, r'a list of objects under "words"'),
        ({"words": [{"w": "hi"}]}, "expected words, got 1 without text"),
        ({"results": {"channels": {"0": 1}}}, r'a list of objects under "results\.channels"'),
        ({"output": {"diarization": "A"}}, r'under "output\.diarization"'),
        ({"results": [{"id": 1}]}, "no transcript that is known"),
        ({"agent": [TURN], "customer": [TURN]}, "no transcript that is known"),
        ({"events": 3, "points": [{"start": 1, "end": 2}]}, "no transcript that is known"),
        ({"segments": [{"start": 1500, "duration": 90_000, "text": "a"}]}, "milliseconds"),
        (
            {"chunks": [{"timestamp": [None, 1], "text": "a"}]},
            "expected start in seconds, got None",
        ),
    ],
)
def test_what_is_refused(content: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message):
        load(tmp_path / "a.json")


def test_stretches_out_of_scoring_of_one_channel_are_told_of_that_file_alone(
    tmp_path: Path,
) -> None:
    rows = ["a 1 A 0 1 hi", "a 2 B 1 2 yo", "b 1 A 0 1 hi", "c 2 A 0 1 hi"]
    rows += [f"{file} 1 X 5 6 ignore_time_segment_in_scoring" for file in "abd"]
    (tmp_path / "a.stm").write_text("\n".join(rows) + "\n")
    warning = "1 channel has stretches out of scoring: they hold for all channels"
    warnings = {name: one.warnings for name, one in load(tmp_path / "a.stm").items()}
    assert warnings == {"a": (warning,), "b": (), "c": (), "d": ()}
