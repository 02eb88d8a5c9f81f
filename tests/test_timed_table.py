"""Tables of segments: Whisper's TSV, whisper.cpp's CSV, and others; and those that are none."""

import json
from pathlib import Path

import pytest

from speaker_reasoner.errors import DataError, FormatError
from speaker_reasoner.formats.folders import load

TALK = [("A", 0.5, 1.5, 'hello "you", there'), ("B", 2.0, 3.0, "good day")]
MS = "times are whole numbers at which a word takes half a minute: read as milliseconds"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.tsv", 'start\tend\tspeaker\ttext\n500\t1500\tA\thello "you", there\n2000\t3000\tB\tgood day\n',
         [f"2 {MS}"]),
        ("a.csv", 'start,end,speaker,text\n500,1500,A," hello ""you"", there"\n2000,3000,B," good day"\n', [f"2 {MS}"]),
        ("a.csv", '"Start";"End";"Speaker";"Text"\r\n0.5;1.5;A;"hello ""you"", there"\r\n2;3;B;good day\r\n', []),
        ("a.TSV", 'start_time\tduration\tspeaker\ttext\n00:00:00.5\t1.0\tA\thello "you", there\n2.0\t1\tB\tgood day\n',
         []),
    ],
)  # fmt: skip
def test_tables_of_others_say_the_same(
    tmp_path: Path, name: str, text: str, told: list[str]
) -> None:
    (tmp_path / name).write_text(text, newline="")
    for source in (tmp_path / name, tmp_path):
        [one] = load(source).values()
        assert [(s.speaker, s.start_s, s.end_s, s.text) for s in one.segments] == TALK
        assert list(one.warnings) == told


def test_whispers_own_names_no_speaker(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("start\tend\ttext\n0\t3400\thello\n3400\t3400\tyes\n")
    [one] = load(tmp_path / "a.tsv").values()
    assert [(s.speaker, s.start_s, s.end_s) for s in one.segments] == [
        ("unknown", 0.0, 3.4),
        ("unknown", 3.4, 3.401),
    ]


@pytest.mark.parametrize(
    "head", ["name,score", "start,end", "audio,start,end,text", "", "start,text"]
)
def test_other_tables_are_no_transcripts(tmp_path: Path, head: str) -> None:
    """A folder's other tables are passed over; one alone is refused, not read as empty."""
    (tmp_path / "a.csv").write_text(f"{head}\n1,2,3,4\n")
    with pytest.raises(FormatError, match="cannot tell the format"):
        load(tmp_path / "a.csv")
    with pytest.raises(FormatError, match=r"a\.csv:1: expected columns such as"):
        load(tmp_path / "a.csv", "table")
    with pytest.raises(DataError, match="holds no transcripts"):
        load(tmp_path)
    (tmp_path / "b.json").write_text(
        json.dumps({"segments": [{"start": 0, "end": 1.5, "text": "hi"}]})
    )
    assert list(load(tmp_path)) == ["b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.0,2.0,hi,there", r"a\.csv:3: expected 3 fields, got 4"),
        ("soon,2.0,hi", r"a\.csv:3: expected start in seconds, got 'soon'"),
        ("2.0,1.0,hi", r"a\.csv:3: ends at 1.0 s, before it starts"),
        (",1.0,hi", r"a\.csv:3: expected start in seconds, got None"),
    ],
)
def test_broken_lines_are_refused_with_their_place(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(f"start,end,text\n0.5,1.0,oh\n{line}\n")
    with pytest.raises(FormatError, match=message):
        load(tmp_path / "a.csv")
