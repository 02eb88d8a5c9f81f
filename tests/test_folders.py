"""Every format gives the same sessions; folders, encodings, lost sessions and broken input."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speaker_reasoner import formats
from speaker_reasoner.errors import DataError, FormatError, SpeakerReasonerError
from speaker_reasoner.evaluate.inputs import read_sides
from speaker_reasoner.evaluate.pairs import pair
from speaker_reasoner.evaluate.running import read_data
from speaker_reasoner.formats.folders import INPUTS, load
from speaker_reasoner.transcript import Segment, Transcript

SHARED = Path(__file__).parents[2] / "shared/data"

MEETING = Transcript(
    "meeting",
    5.0,
    (
        Segment("001-F", 0.5, 2.0, "hello there", "female"),
        Segment("002-M", 1.5, 5.0, "你好", "male"),
    ),
)
CALL = Transcript("call", 1.0, (Segment("a", 0.0, 1.0, "yes"),))
UNKNOWN = MEETING.with_segments([replace(s, gender="unknown") for s in MEETING.segments])


def supervision(segment: Segment, name: str, start_s: float) -> dict[str, Any]:
    return {
        "id": name,
        "recording_id": "meeting",
        "start": start_s,
        "duration": segment.duration_s,
        "channel": 0,
        "text": segment.text,
        "speaker": segment.speaker,
        "gender": segment.gender.capitalize(),
    }


SUPERVISIONS = [supervision(s, f"s{i}", s.start_s) for i, s in enumerate(MEETING.segments)]


def cut(start_s: float, duration_s: float, of: list[int]) -> dict[str, Any]:
    """A cut of the meeting; its supervisions count from its start."""
    rows = [SUPERVISIONS[i] | {"start": SUPERVISIONS[i]["start"] - start_s} for i in of]
    recording = {"id": "meeting", "sources": [], "sampling_rate": 16000, "duration": 5.0}
    return {
        "id": f"cut{start_s}",
        "start": start_s,
        "duration": duration_s,
        "channel": 0,
        "supervisions": rows,
        "recording": recording,
        "type": "MonoCut",
    }


DIARIZED = {
    "task": "transcribe",
    "duration": 5.0,
    "text": "hello there 你好",
    "segments": [
        {
            "type": "transcript.text.segment",
            "id": f"seg_{i}",
            "start": s.start_s,
            "end": s.end_s,
            "text": f" {s.text}",
            "speaker": s.speaker,
        }
        for i, s in enumerate(MEETING.segments)
    ],
}


def save(path: Path, *rows: object) -> Path:
    """Write JSON, or JSON lines."""
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["json", "seglst", "stm", "rttm", "ctm", "textgrid", "srt", "vtt"])
def test_formats_are_told_from_their_files(tmp_path: Path, name: str) -> None:
    [path] = formats.write(MEETING, tmp_path, [name])
    found = load(path)
    assert list(found) == ["meeting"]
    assert load(path, name) == load(tmp_path) == found
    wordless = name == "rttm"
    words = ["" if wordless else s.text for s in MEETING.segments]
    assert [s.text for s in found["meeting"].segments] == words
    assert found["meeting"].speakers == MEETING.speakers


@pytest.mark.parametrize("name", ["json", "seglst", "rttm", "stm", "ctm", "srt", "vtt", "textgrid"])
def test_formats_are_told_without_a_suffix(tmp_path: Path, name: str) -> None:
    """As of standard input."""
    [path] = formats.write(MEETING, tmp_path, [name])
    path = path.rename(tmp_path / "stdin")
    [transcript] = load(path).values()
    assert transcript.speakers == MEETING.speakers
    path.write_text(";; a comment\ntalk 1 A 0 1 hello\ntalk 1 A 1 2.5\n")
    assert load(path)["talk"].speakers == ("A",)
    path.write_text(
        "talk 1 0 1 hello\ntalk 1 1 2.5 there 0.5\ntalk 1 3 1 4 5\n"
    )  # one line like STM
    assert load(path)["talk"].speakers == ("channel1",)
    path.write_text(
        "SPEAKER 1  0:01\nhello\n\nSPEAKER 2  0:04\nhi\n"
    )  # like RTTM, but for its fields
    assert load(path)["stdin"].speakers == ("SPEAKER 1", "SPEAKER 2")
    path.write_text("talk 1 A 0 1 hello\nand so on\n")
    with pytest.raises(FormatError, match="cannot tell the format"):
        load(path)


def test_a_ctm_with_alternatives_is_told_without_a_suffix(tmp_path: Path) -> None:
    path = tmp_path / "stdin"
    path.write_text(
        "talk 1 0.0 0.3 hello\ntalk 1 * * <ALT_BEGIN>\ntalk 1 0.4 0.2 uh\ntalk 1 * * <ALT>\n"
        "talk 1 * * <ALT_END>\ntalk 1 0.7 0.3 you\n"
    )
    assert load(path)["talk"].text == "hello uh you"


def test_standard_input_is_of_the_only_session_on_the_other_side(tmp_path: Path) -> None:
    [reference] = formats.write(MEETING, tmp_path, ["stm"])
    (tmp_path / "stdin").write_text(formats.render(MEETING, "srt"))
    for one, other in ((reference, tmp_path / "stdin"), (tmp_path / "stdin", reference)):
        sides = read_sides(one, other)
        assert list(sides.references) == list(sides.hypotheses) == [MEETING.recording]
    reference.write_text(reference.read_text() + "other 1 A 0 1 hello\n")
    assert list(read_sides(reference, tmp_path / "stdin").hypotheses) == ["stdin"]


@pytest.mark.parametrize(
    ("names", "others", "alike", "renamed"),
    [
        (["a.wav", "b.wav"], ["a", "b"], 2, 2),  # whisper.cpp: a.wav.srt
        (["a.MP3", "b"], ["a", "b"], 2, 1),
        (["a.wav", "a.mp3"], ["a"], 0, 0),  # which of them?
        (["a.wav", "a"], ["a"], 1, 0),
        (["a.wav"], ["a.wav", "a"], 1, 0),
        (["a.v2"], ["a"], 0, 0),
        (["cafe\u0301"], ["café"], 1, 1),  # names of macOS
        (["cafe\u0301.wav", "b"], ["café", "b"], 2, 1),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_sessions_named_after_the_file_of_a_recording(
    tmp_path: Path,
    names: list[str],
    others: list[str],
    alike: int,
    renamed: int,
    turned: bool,
) -> None:
    for folder, of_folder in (("one", names), ("two", others)):
        (tmp_path / folder).mkdir()
        for n, name in enumerate(of_folder):
            (tmp_path / folder / f"{n}.stm").write_text(f"{name} 1 A 0 1 hello\n")
    pair = tmp_path / "one", tmp_path / "two"
    sides = read_sides(*(pair[::-1] if turned else pair))
    both = sides.references.keys() & sides.hypotheses.keys()
    assert len(both) == alike
    assert len(sides.references) + len(sides.hypotheses) == len(names) + len(others)
    told = [row for row in sides.warnings if "another name on the other" in str(row["warning"])]
    assert len(told) == renamed


def test_lhotse_supervisions(tmp_path: Path) -> None:
    path = tmp_path / "x_supervisions.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, SUPERVISIONS)).encode()))
    assert load(path) == load(tmp_path) == {"meeting": MEETING}
    assert load(save(tmp_path / "y.txt", *SUPERVISIONS), "lhotse") == {"meeting": MEETING}


def test_lhotse_cuts_are_in_the_time_of_their_recording(tmp_path: Path) -> None:
    found = load(save(tmp_path / "cuts.jsonl", cut(0.0, 1.7, [0, 1]), cut(1.7, 3.3, [0, 1])))
    assert found["meeting"].segments == MEETING.segments  # the second starts before its cut
    [warning] = found["meeting"].warnings
    assert warning.startswith("2 supervisions came again")
    whole = load(save(tmp_path / "whole.jsonl", cut(0.0, 1.0, [])))
    assert whole == {"meeting": Transcript("meeting", 5.0)}


def test_lhotse_mixed_cut_is_a_session_of_its_own(tmp_path: Path) -> None:
    tracks = [
        {"cut": cut(0.5, 2.0, [0]), "offset": 0.0},
        {"cut": {"id": "pad", "duration": 9.0, "type": "PaddingCut"}, "offset": 2.0},
        {"cut": cut(1.5, 3.5, [1]), "offset": 3.0},
    ]
    found = load(save(tmp_path / "mix.jsonl", {"id": "mix", "type": "MixedCut", "tracks": tracks}))
    assert [(s.start_s, s.end_s) for s in found["mix"].segments] == [(0.0, 1.5), (3.0, 6.5)]
    assert found["mix"].duration_s == 11.0


def test_diarized_json(tmp_path: Path) -> None:
    path = save(tmp_path / "meeting.json", DIARIZED)
    assert load(path) == load(path, "diarized_json") == load(tmp_path) == {"meeting": UNKNOWN}
    assert load(tmp_path, "diarized_json") == {"meeting": UNKNOWN}


def test_a_folder_gives_each_recording_once_and_at_its_richest(tmp_path: Path) -> None:
    formats.write(MEETING, tmp_path, ["txt", "md", "rttm", "ctm", "seglst", "json", "srt"])
    formats.write(CALL, tmp_path, ["rttm", "stm"])
    for other in ("call.wav", ".hidden.stm", "notes"):
        (tmp_path / other).write_text("x")
    (tmp_path / "older.stm").mkdir()
    found = load(tmp_path)
    assert found == {"call": CALL, "meeting": MEETING}
    assert not any(s.text for t in load(tmp_path, "rttm").values() for s in t.segments)
    assert list(load(tmp_path, "seglst")) == ["meeting"]
    with pytest.raises(DataError, match="holds no transcripts: expected files in vtt"):
        load(tmp_path, "vtt")


def test_one_file_with_many_sessions(tmp_path: Path) -> None:
    path = tmp_path / "all.stm"
    path.write_text("b 1 x 0 1 one\na 1 x 0 1 two\nb 1 x 1 2 three\n")
    found = load(path)
    assert list(found) == ["b", "a"]
    assert found["b"].text == "one three"
    (tmp_path / "a.rttm").write_text("SPEAKER a 1 0 1 <NA> <NA> x <NA> <NA>\n")
    with pytest.raises(DataError, match=r"session 'a' comes twice: in .*a\.rttm and in .*all\.stm"):
        load(tmp_path)
    (tmp_path / "ALL.STM").write_text("c 1 x 0 1 one\n")
    assert list(load(tmp_path, "stm")) == ["c", "b", "a"]


def test_the_same_recording_in_two_files_of_one_format(tmp_path: Path) -> None:
    save(tmp_path / "x.jsonl", *SUPERVISIONS)
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match=r"x\.jsonl and .*x\.jsonl\.gz are the same recording"):
        load(tmp_path)


def test_patterns_and_folders_below(tmp_path: Path) -> None:
    for day in ("mon", "tue"):
        (tmp_path / day).mkdir()
        formats.write(CALL, tmp_path / day, ["srt", "ctm"])
    formats.write(MEETING, tmp_path / "tue", ["stm"])
    assert list(load(tmp_path)) == ["mon-call", "tue-call", "meeting"]
    assert list(load(tmp_path / "*" / "*.srt")) == ["mon-call", "tue-call"]
    assert list(load(tmp_path / "mon")) == list(load(tmp_path / "mon" / "c*.srt")) == ["call"]
    assert load(tmp_path)["mon-call"].recording == "mon-call"
    with pytest.raises(DataError, match=r"\*\.rttm: matches no file"):
        load(tmp_path / "*" / "*.rttm")
    (tmp_path / "TUE.STM").write_text("x 1 a 0 1 yes\n")  # files on top: those below are not read
    assert list(load(tmp_path)) == ["x"]


@pytest.mark.parametrize("name", ["quiet.stm", "quiet.rttm", "quiet.seglst.json", "quiet.jsonl"])
def test_an_empty_file_is_a_silent_recording(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[]" if name.endswith("json") else "")
    assert load(tmp_path) == load(tmp_path / name) == {"quiet": Transcript("quiet", 0.0)}


def test_a_speaker_who_never_speaks(tmp_path: Path) -> None:
    (tmp_path / "x.rttm").write_text("SPKR-INFO x 1 <NA> <NA> <NA> adult_male bob <NA> <NA>\n")
    assert load(tmp_path / "x.rttm") == {"x": Transcript("x", 0.0)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030", "utf-16-le"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "m.stm"
    path.write_bytes(formats.render(MEETING, "stm").encode(encoding))
    told = encoding if encoding in ("gb18030", "utf-16-le") else None
    assert load(path, encoding=told) == {"meeting": MEETING}


def test_encodings_are_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "m.stm"
    path.write_bytes("a 1 s 0 1 ok\na 1 s 1 2 café\n".encode("latin-1"))
    with pytest.raises(FormatError, match=r"m\.stm:2: not UTF-8 text .*or name its encoding"):
        load(path)
    assert load(path, encoding="latin-1")["a"].text == "ok café"
    with pytest.raises(FormatError, match="unknown encoding 'klingon'"):
        load(path, encoding="klingon")
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-4])
    with pytest.raises(FormatError, match=r"x\.jsonl\.gz: not a whole gzip file"):
        load(tmp_path / "x.jsonl.gz")


def test_genders_from_speaker_ids(tmp_path: Path) -> None:
    path = tmp_path / "m.stm"
    path.write_text(formats.render(UNKNOWN, "stm"), encoding="utf-8")
    assert load(path) == {"meeting": UNKNOWN}
    assert load(path, gender_from="suffix") == {"meeting": MEETING}
    with pytest.raises(DataError, match=r"no speaker id tells a gender by its prefix: .*'001-F'"):
        load(path, gender_from="prefix")
    path.write_text("r 1 FEE005 0 1 x\nr 1 Mary 1 2 x\nr 1 M_SPK8 2 3 x\nr 1 <o,f0,male> 3 4 x\n")
    found = load(path, gender_from="prefix")["r"].genders
    assert list(found.values()) == ["female", "unknown", "male", "unknown"]
    with pytest.raises(DataError, match="expected suffix or prefix, got 'middle'"):
        load(path, gender_from="middle")


def test_what_the_file_says_wins_over_the_id(tmp_path: Path) -> None:
    path = tmp_path / "m.stm"
    path.write_text(";; GENDER r 001-M female\nr 1 001-M 0 1 x\nr 1 002-M 1 2 x\n")
    found = load(path, gender_from="suffix")["r"].genders
    assert found == {"001-M": "female", "002-M": "male"}


LINE = json.dumps(SUPERVISIONS[0])
BROKEN = [
    ("a.jsonl", LINE + "\n{", r"a\.jsonl:2: not JSON"),
    ("a.jsonl", "\n[3]", r"a\.jsonl:2: expected a supervision or a cut, got '\[3\]'"),
    ("a.jsonl", '{"id": "r", "sources": []}', r"a\.jsonl:1: a manifest of recordings; give"),
    ("a.jsonl", '{"audio": "x"}', r"a\.jsonl:1: neither a supervision nor a cut: it has audio"),
    ("a.jsonl", LINE.replace("0.5", "-0.5"), r"a\.jsonl:1: .*expected 0 <= start"),
    ("a.jsonl", LINE.replace("1.5", "-1.5"), r"a\.jsonl:1: duration is negative"),
    ("a.jsonl", LINE.replace("0.5", "1e999"), r"a\.jsonl:1: expected start in seconds"),
    ("a.jsonl", LINE + "\n" + LINE.replace("hello", "hi"), r"a\.jsonl:2: supervision 's0' com"),
    ("a.jsonl", LINE.replace('"s0"', "null"), r"a\.jsonl:1: expected id as text, got None"),
    ("a.jsonl", '{"id": "m", "tracks": [{}]}', r"a\.jsonl:1: expected cut to hold objects"),
    ("a.json", '{"segments": {}}', r'a\.json: expected an object with "segments", a list'),
    ("a.json", '{"segments": [{"text": "x"}]}', r"a\.json, segment 1: expected start in seconds"),
    ("a.json", '{"segments": [{"speaker": []}]}', r"a\.json, segment 1: expected the speaker as"),
    (
        "a.json",
        '{"segments": [{"text": "", "speaker": "A", "start": 2, "end": 1}]}',
        r"a\.json, segment 1: ends at 1 s, before",
    ),
    ("a.json", '{"answer": 42}', r"a\.json: no transcript that is known: .*; got answer"),
    ("a.doc", "x", r"a\.doc: cannot tell the format; name it \(json, seglst, "),
]


@pytest.mark.parametrize(("name", "text", "message"), BROKEN)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    for path, format, message in [
        (tmp_path / "no.stm", None, r"cannot read .*no\.stm: No such file"),
        (tmp_path, "pdf", f"unknown format 'pdf'; readable: {', '.join(INPUTS)}"),
        (tmp_path, None, r"holds no transcripts: expected \.json, \.seglst\.json, "),
    ]:
        with pytest.raises(SpeakerReasonerError, match=message):
            load(path, format)


# --- pairs --------------------------------------------------------------------------------------


def test_pairs_go_by_name() -> None:
    longer = replace(CALL, duration_s=7.0)
    both = pair({"meeting": MEETING, "call": CALL}, {"call": longer, "meeting": UNKNOWN})
    assert [(p.name, p.reference, p.hypothesis, p.lost) for p in both] == [
        ("meeting", MEETING, UNKNOWN, False),
        ("call", CALL, longer, False),
    ]
    assert [p.duration_s for p in both] == [5.0, 7.0]


def test_missing_sessions_are_an_error_or_count_as_lost() -> None:
    references = {"meeting": MEETING, **{f"r{i}": CALL for i in range(7)}}
    hypotheses = {"meeting": MEETING, "call": CALL}
    with pytest.raises(DataError) as caught:
        pair(references, hypotheses)
    assert str(caught.value).startswith(
        "sessions are missing: 7 without a hypothesis ('r0', 'r1', 'r2', 'r3', 'r4' and 2 more) and "
        "1 without a reference ('call'); "
    )
    found = pair(references, hypotheses, lost=True)
    assert [p.name for p in found] == [*references, "call"]
    assert [p.lost for p in found] == [False] + [True] * 8
    assert found[1].hypothesis == Transcript("r0", 1.0)
    assert found[-1].reference == Transcript("call", 1.0)
    assert all(p.lost for p in pair(references, {}, lost=True))


@pytest.mark.parametrize("lost", [False, True])
def test_different_names_are_not_guessed(lost: bool) -> None:
    with pytest.raises(DataError, match=r"session 'a', the hypothesis of 'b'; .* the same name"):
        pair({"a": CALL}, {"b": CALL}, lost=lost)
    with pytest.raises(DataError, match="no session is on both sides"):
        pair({"a": CALL}, {"b": CALL, "c": CALL}, lost=lost)


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is absent")
def test_aishell4_as_a_folder() -> None:
    found = load(SHARED / "aishell4_eval_stm", gender_from="suffix")
    assert len(found) == 20
    assert sum(len(t.segments) for t in found.values()) == 10_498
    assert "unknown" not in {g for t in found.values() for g in t.genders.values()}


def test_a_recording_with_words_and_with_turns_is_read_with_its_words(tmp_path: Path) -> None:
    formats.write(MEETING, tmp_path, ["rttm", "ctm"])
    soundfile.write(tmp_path / "meeting.wav", np.zeros(16000 * 12), 16000)
    (tmp_path / "meeting.json").write_text('{"place": "room 3"}')  # no transcript
    [item] = read_data(tmp_path)
    assert item.reference.text == MEETING.text
    assert load(tmp_path)["meeting"].text == MEETING.text
