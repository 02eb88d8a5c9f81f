"""Tiny corpora laid out like the real ones: what is read, what is dropped, what is written."""

import argparse
import json
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from rich.console import Console

from speaker_reasoner import audio
from speaker_reasoner.commands.prepare import add_prepare
from speaker_reasoner.commands.prepare import preview as show
from speaker_reasoner.data.corpora import CORPORA, load_pieces, prepare
from speaker_reasoner.errors import DataError, OutputError
from speaker_reasoner.evaluate.running import read_data, units
from speaker_reasoner.formats.folders import load

from .conftest import SHARED, needs_shared, noise

Rows = list[tuple[float, float, str]]
PIECES = (1.0, 1.5)


def sound(path: Path, seconds: float = 2.0, channels: int = 1, subtype: str = "PCM_16") -> Path:
    """Noise, another in each channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.stack([noise(seconds, seed=n) for n in range(channels)], axis=1)
    sf.write(path, samples, 16_000, subtype=subtype)
    return path


def text(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding)
    return path


def textgrid(path: Path, tiers: dict[str, Rows], seconds: float = 2.0) -> Path:
    """Praat's long form, intervals without a gap as annotators' tools write them."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += [
        "xmin = 0",
        f"xmax = {seconds}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for n, (name, rows) in enumerate(tiers.items(), start=1):
        tiled: Rows = []
        for row in rows:
            if row[0] > (tiled[-1][1] if tiled else 0.0):
                tiled.append((tiled[-1][1] if tiled else 0.0, row[0], ""))
            tiled.append(row)
        lines += [f"    item [{n}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {seconds}"]
        lines += [f"        intervals: size = {len(tiled)}"]
        for i, (start, end, mark) in enumerate(tiled, start=1):
            lines += [f"        intervals [{i}]:", f"            xmin = {start}"]
            lines += [f"            xmax = {end}", f'            text = "{mark}"']
    return text(path, "\n".join(lines) + "\n")


def segments(out: Path, split: str) -> dict[str, list[tuple[str, str, float, float, str]]]:
    transcripts = load(out / split / "references.seglst.json")
    return {
        name: [(s.speaker, s.gender, s.start_s, s.end_s, s.text) for s in t.segments]
        for name, t in transcripts.items()
    }


def dropped(report: dict[str, Any]) -> dict[str, int]:
    return {reason: entry["count"] for reason, entry in report["dropped"].items()}


def aishell4(root: Path) -> Path:
    for part, name in (
        ("train_L", "20200706_L_R001S08C01"),
        ("train_M", "20200710_M_R002S06C01"),
        ("train_S", "20200616_M_R001S01C01"),
        ("test", "L_R003S01C02"),
    ):
        sound(root / part / "wav" / f"{name}.flac", channels=8)
        tiers = {
            "001-M": [(0.1, 0.9, "今天<sil>开会"), (1.0, 1.2, "<%>")],
            "002-F": [(0.5, 1.9, "好的OK")],
        }
        textgrid(root / part / "TextGrid" / f"{name}.TextGrid", tiers)
    return root


def alimeeting(root: Path) -> Path:
    for top, meeting in (
        ("Train_Ali", "R0003_M0046"),
        ("Eval_Ali/Eval_Ali", "R0015_M0151"),
        ("Test_Ali/Test_Ali", "R0020_M0200"),
    ):
        far, near = root / f"{top}_far", root / f"{top}_near"
        people = {"F_SPK0093": [(0.1, 0.9, "你好")], "M_SPK8013": [(0.5, 1.5, "对，对")]}
        sound(far / "audio_dir" / f"{meeting}_MS002.wav", channels=8)
        long = {f"{meeting}_{name}": rows for name, rows in people.items()}
        tiers = long if top == "Train_Ali" else people  # both are found
        textgrid(far / "textgrid_dir" / f"{meeting}.TextGrid", tiers)
        for n, (name, rows) in enumerate(people.items()):
            sound(near / "audio_dir" / f"{meeting}_{name}.wav", seconds=2.0 - n / 4)
            textgrid(near / "textgrid_dir" / f"{meeting}_{name}.TextGrid", {name: rows})
    return root


AMI_HEAD = '<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?>\n'
NITE = 'xmlns:nite="http://nite.sourceforge.net/"'


def ami(root: Path) -> Path:
    release = root / "ami_public_manual_1.6.2"
    meetings = ["EN2002a", "ES2002a", "IS1008b"]
    body = ""
    for meeting in meetings:
        for mic in ("Array1-01", "Mix-Headset"):
            sound(root / "wav_db" / meeting / "audio" / f"{meeting}.{mic}.wav")
        body += f'<meeting nite:id="m_{meeting}" observation="{meeting}" type="scenario">\n'
        for channel, (letter, name) in enumerate([("A", "FEE005"), ("B", "M&#201;O069")]):
            body += (
                f'<speaker nite:id="{meeting}{letter}" channel="{channel}" nxt_agent="{letter}" '
            )
            body += f'global_name="{name}" role="PM"/>\n'
            who = f"{meeting}.{letter}"
            words = [
                '<w nite:id="{}0" starttime="0.2" endtime="0.4">Okay</w>',
                '<vocalsound nite:id="{}1" starttime="0.4" endtime="0.5" type="laugh"/>',
                '<w nite:id="{}2" starttime="0.5" endtime="0.9">it&#39;s</w>',
                '<w nite:id="{}3" starttime="1.1" endtime="1.3">ti</w>',
                '<vocalsound nite:id="{}4" starttime="1.6" endtime="1.7" type="cough"/>',
            ]
            if letter == "B":
                words[3] = (
                    '<w nite:id="{}3" trunc="true">ti</w>\n'
                    '<w nite:id="{}3p" starttime="1.3" endtime="1.3" punc="true">?</w>'
                )
            listed = "\n".join(word.replace("{}", f"{who}.words") for word in words)
            xml = f'<nite:root nite:id="{who}.words" {NITE}>\n{listed}\n</nite:root>\n'
            text(release / "words" / f"{who}.words.xml", AMI_HEAD + xml, "latin-1")
            last = "3p" if letter == "B" else "3"
            rows = ""
            for n, (start, end, from_to) in enumerate(
                [(0.1, 1.0, "0 2"), (1.0, 1.4, f"3 {last}"), (1.5, 1.8, "4 4")]
            ):
                first, final = (f"id({who}.words{i})" for i in from_to.split())
                href = first if first == final else f"{first}..{final}"
                rows += f'<segment nite:id="{who}.sync.{n}" channel="{channel}" '
                rows += f'transcriber_start="{start}" transcriber_end="{end}">\n'
                rows += f'  <nite:child href="{who}.words.xml#{href}"/>\n</segment>\n'
            xml = f'<nite:root nite:id="{who}.segs" {NITE}>\n{rows}</nite:root>\n'
            text(release / "segments" / f"{who}.segments.xml", AMI_HEAD + xml, "latin-1")
        body += "</meeting>\n"
    xml = f'<nite:root nite:id="meet" {NITE}>\n{body}</nite:root>\n'
    text(release / "corpusResources" / "meetings.xml", AMI_HEAD + xml, "latin-1")
    return root


def mlc_slm(root: Path) -> Path:
    rows = "0.180273886484085\t0.9401385301640696\tO1\tHi, Will\n1.0\t1.8\tO2\tHello  there.\n"
    for part, path in (
        ("MLC-SLM_Workshop-Training_Set_1", "English/American/0517/0517_007"),
        ("MLC-SLM_Workshop-Training_Set_1", "French/0101/0101_001"),
        ("MLC-SLM_Workshop-Development_Set", "English/American/0517_007"),
    ):
        sound(root / part / "data" / f"{path}.wav")
        text(root / part / "data" / f"{path}.txt", rows)
    return root


def test_aishell4(tmp_path: Path) -> None:
    report = prepare("aishell4", aishell4(tmp_path / "c"), tmp_path / "o", pieces_s=PIECES)
    assert list(report["splits"]) == ["train", "test"]
    assert report["splits"]["train"]["speakers"] == {"female": 3, "male": 3, "unknown": 0}
    assert segments(tmp_path / "o", "test") == {
        "L_R003S01C02": [
            ("001-M", "male", 0.1, 0.9, "今天开会"),
            ("002-F", "female", 0.5, 1.9, "好的OK"),
        ]
    }
    assert report["tags_removed"] == {"<sil>": 4, "<%>": 4}
    assert dropped(report) == {"nothing but tags": 4}
    first = report["dropped"]["nothing but tags"]["first"][0]
    assert "20200706_L_R001S08C01.TextGrid:30: 001-M [1, 1.2]" in first


def test_an_array_is_heard_through_one_channel(tmp_path: Path) -> None:
    corpus = aishell4(tmp_path / "c")
    for channel in (0, 3):
        prepare("aishell4", corpus, tmp_path / "o", channel=channel or None)
        [item] = read_data(tmp_path / "o/test/manifest.jsonl")
        assert item.audio.parent.name == f"channel-{channel}"
        expected = audio.load(corpus / "test/wav/L_R003S01C02.flac", channel=channel)
        np.testing.assert_array_equal(audio.load(item.audio), expected)  # to the sample and the bit
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_textgrid_whose_tier_ends_early_is_read(tmp_path: Path) -> None:
    corpus = aishell4(tmp_path / "c")
    path = corpus / "train_L/TextGrid/20200706_L_R001S08C01.TextGrid"
    head, _, rest = path.read_text("utf-8").partition("        xmax = 2.0\n")
    path.write_text(f"{head}        xmax = 1.0\n{rest}", "utf-8")
    report = prepare("aishell4", corpus, tmp_path / "o")
    assert report["splits"]["train"]["segments"] == 6


@pytest.mark.parametrize("mic", ["far", "near"])
def test_alimeeting(tmp_path: Path, mic: str) -> None:
    corpus, out = alimeeting(tmp_path / "c"), tmp_path / "o"
    report = prepare(f"alimeeting-{mic}", corpus, out)
    assert list(report["splits"]) == ["train", "dev", "test"] and not report["dropped"]
    for split, meeting in (("train", "R0003_M0046"), ("dev", "R0015_M0151")):
        assert segments(out, split) == {
            meeting: [
                ("SPK0093", "female", 0.1, 0.9, "你好"),
                ("SPK8013", "male", 0.5, 1.5, "对，对"),
            ]
        }
    [item] = read_data(out / "test/manifest.jsonl")
    assert item.audio.parent.name == ("mix" if mic == "near" else "channel-0")


def test_headsets_are_mixed(tmp_path: Path) -> None:
    corpus, out = alimeeting(tmp_path / "c"), tmp_path / "o"
    prepare("alimeeting-near", corpus, out)
    [item] = read_data(out / "train/manifest.jsonl")
    folder = corpus / "Train_Ali_near/audio_dir"
    first, second = (audio.load(path) for path in sorted(folder.iterdir()))
    second = np.pad(second, (0, len(first) - len(second)))  # the shorter one is silent at its end
    np.testing.assert_allclose(audio.load(item.audio), (first + second) / 2, atol=2**-15)


def test_a_meeting_without_one_headset_is_left_out(tmp_path: Path) -> None:
    corpus = alimeeting(tmp_path / "c")
    (corpus / "Train_Ali_near/audio_dir/R0003_M0046_M_SPK8013.wav").unlink()
    report = prepare("alimeeting-near", corpus, tmp_path / "o")
    assert list(report["splits"]) == ["dev", "test"]
    assert dropped(report) == {"audio missing": 1}


@pytest.mark.parametrize("mic", ["sdm", "ihm-mix"])
@pytest.mark.parametrize("zipped", [False, True])
def test_ami(tmp_path: Path, mic: str, zipped: bool) -> None:
    corpus, out = ami(tmp_path / "c"), tmp_path / "o"
    if zipped:
        release = corpus / "ami_public_manual_1.6.2"
        with zipfile.ZipFile(f"{release}.zip", "w") as archive:
            for path in sorted(release.rglob("*.xml")):
                archive.write(path, path.relative_to(release))
        release.rename(tmp_path / "elsewhere")
    report = prepare(f"ami-{mic}", corpus, out)
    assert {s: c["sessions"] for s, c in report["splits"].items()} == {
        "test": 1,
        "train": 1,
        "dev": 1,
    }
    assert segments(out, "train")["ES2002a"] == [
        ("FEE005", "female", 0.2, 0.9, "Okay it's"),
        ("MÉO069", "male", 0.2, 0.9, "Okay it's"),
        ("MÉO069", "male", 1.0, 1.4, "ti-?"),  # a word without times: the transcriber's
        ("FEE005", "female", 1.1, 1.3, "ti"),
    ]
    assert dropped(report) == {"nothing but tags": 6}
    assert report["tags_removed"] == {"<vocalsound laugh>": 6, "<vocalsound cough>": 6}


def test_ami_words_that_do_not_exist(tmp_path: Path) -> None:
    corpus = ami(tmp_path / "c")
    path = corpus / "ami_public_manual_1.6.2/segments/ES2002a.A.segments.xml"
    path.write_text(path.read_text("latin-1").replace("words3)", "words99)"), "latin-1")
    report = prepare("ami-sdm", corpus, tmp_path / "o")
    [message] = report["dropped"]["broken annotation"]["first"]
    assert f"{path}:6: a word" in message
    path.write_text("<nite:root><segment")
    report = prepare("ami-sdm", corpus, tmp_path / "o")
    assert report["dropped"]["broken annotation"]["first"][0].startswith(f"{path}:1: not XML")
    assert "train" not in report["splits"]


def test_mlc_slm(tmp_path: Path) -> None:
    report = prepare("mlc-slm", mlc_slm(tmp_path / "c"), tmp_path / "o")
    assert not report["dropped"]
    train = segments(tmp_path / "o", "train")
    assert list(train) == ["English-American-0517-0517_007", "French-0101-0101_001"]
    assert list(segments(tmp_path / "o", "dev")) == ["English-American-0517_007"]
    assert train["French-0101-0101_001"] == [
        ("O1", "unknown", 0.180273886484085, 0.9401385301640696, "Hi, Will"),
        ("O2", "unknown", 1.0, 1.8, "Hello there."),
    ]


FOLDER_STM = (
    ";; GENDER call A-F female\n"
    "call 1 A-F 0.10 0.90 hello  there\n"
    "call 1 B-M 0.50 1.90 <o,f0,male> yes\n"
)
EXPECTED = [("A-F", "female", 0.1, 0.9, "hello there"), ("B-M", "male", 0.5, 1.9, "yes")]


def _lhotse() -> str:
    rows = [
        {"id": f"s{n}", "recording_id": "call", "start": start, "duration": round(end - start, 6)}
        | {"channel": 0, "text": words, "speaker": speaker, "gender": gender}
        for n, (speaker, gender, start, end, words) in enumerate(EXPECTED)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _seglst() -> str:
    return json.dumps(
        [
            {"session_id": "call", "speaker": who, "start_time": start, "end_time": end}
            | {"words": words, "gender": gender}
            for who, gender, start, end, words in EXPECTED
        ]
    )


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("kind", ["stm", "seglst.json", "TextGrid", "jsonl", "rttm"])
def test_a_folder_of_ones_own(tmp_path: Path, kind: str, beside: bool) -> None:
    calls = tmp_path / "calls"
    sound(calls / "call.wav")
    annotation = calls if beside else tmp_path / "annotation"
    path = annotation / f"call.{kind}"
    if kind == "TextGrid":
        tiers = {"A-F": [(0.1, 0.9, "hello there")], "B-M (male)": [(0.5, 1.9, "yes")]}
        textgrid(path, tiers)
    elif kind == "rttm":
        rows = "SPEAKER call 1 0.1 0.8 <NA> <NA> A-F <NA> <NA>\n"
        rows += "SPEAKER call 1 0.5 1.4 <NA> <NA> B-M <NA> <NA>\n"
        text(path, "SPKR-INFO call 1 <NA> <NA> <NA> adult_male B-M <NA> <NA>\n" + rows)
        words = "call 1 0.1 0.3 hello 0.9 lex A-F\ncall 1 0.6 0.2 there 0.9 lex A-F\n"
        text(path.with_suffix(".ctm"), words + "call 1 0.6 0.2 yes 0.9 lex B-M\n")
    else:
        text(path, {"stm": FOLDER_STM, "seglst.json": _seglst(), "jsonl": _lhotse()}[kind])
    reference = None if beside else (annotation if kind == "TextGrid" else path)
    report = prepare("folder", calls, tmp_path / "o", reference=reference, gender_from="suffix")
    assert not report["dropped"]
    assert segments(tmp_path / "o", "all") == {"call": EXPECTED}
    [item] = read_data(tmp_path / "o/all/manifest.jsonl")
    assert item.audio == calls / "call.wav"


def test_what_readers_noticed_is_in_the_report(tmp_path: Path) -> None:
    sound(tmp_path / "c/a.wav")
    cues = (
        "1\n00:00:00,000 --> 00:00:01,000\nLONDON: rain\n\n2\n00:00:02,000 --> 00:00:03,000\nso\n"
    )
    text(tmp_path / "c/a.srt", cues)
    changed = prepare("folder", tmp_path / "c", tmp_path / "o")["changed"]["noticed while reading"]
    assert changed["count"] == 2
    assert any("begin with capitals and a colon" in place for place in changed["first"])


def test_what_is_out_of_scoring_is_not_taught(tmp_path: Path) -> None:
    """By NOSCORE, by our JSON; nor what a CTM accepts beside its words, nor the names of a tier of speakers."""
    sound(tmp_path / "c/call.wav")
    rows = "SPEAKER call 1 0.1 0.8 <NA> <NA> A <NA> <NA>\nSPEAKER call 1 1.0 0.9 <NA> <NA> B <NA> <NA>\n"
    text(tmp_path / "c/call.rttm", rows + "NOSCORE call 1 1.0 0.5 <NA> <NA> <NA> <NA> <NA>\n")
    words = ["<ALT_BEGIN>", "gonna", "<ALT>", "going", "<ALT_END>", "go"]
    lines = [f"call 1 {0.1 * n + 0.1:.1f} 0.1 {word} NA lex A" for n, word in enumerate(words)]
    lines += ["call 1 1.1 0.2 never NA lex B", "call 1 1.6 0.2 yes NA lex B"]
    text(tmp_path / "c/call.ctm", "\n".join(lines) + "\n")
    prepare("folder", tmp_path / "c", tmp_path / "o")
    assert [r[2:] for r in segments(tmp_path / "o", "all")["call"]] == [
        (0.1, 0.9, "gonna go"),
        (1.5, 1.9, "yes"),
    ]
    sound(tmp_path / "d/call.wav")
    segment = {"speaker": "A", "start_s": 0.1, "end_s": 0.9, "text": "hello"}
    later = {"speaker": "A", "start_s": 1.1, "end_s": 1.4, "text": "never"}
    data = {
        "schema": "speaker-reasoner/transcript",
        "version": 1,
        "recording": "call",
        "duration_s": 2.0,
    }
    data |= {"segments": [segment, later], "unscored": [[1.0, 1.5]]}
    text(tmp_path / "d/call.json", json.dumps(data))
    prepare("folder", tmp_path / "d", tmp_path / "p")
    assert [r[4] for r in segments(tmp_path / "p", "all")["call"]] == ["hello"]
    sound(tmp_path / "e/call.wav")
    tiers = {
        "speaker": [(0.1, 0.9, "Ana"), (1.0, 1.9, "Bo")],
        "text": [(0.1, 0.9, "hello"), (1.0, 1.9, "yes")],
    }
    textgrid(tmp_path / "e/call.TextGrid", tiers)
    report = prepare("folder", tmp_path / "e", tmp_path / "q")
    assert [(r[0], r[4]) for r in segments(tmp_path / "q", "all")["call"]] == [
        ("Ana", "hello"),
        ("Bo", "yes"),
    ]
    assert "tier of speakers" in report["changed"]["noticed while reading"]["first"][0]


def test_splits_of_a_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        sound(tmp_path / "c" / split / "call.wav")
        text(tmp_path / "c" / split / "call.stm", FOLDER_STM)
    report = prepare("folder", tmp_path / "c", tmp_path / "o")
    assert list(report["splits"]) == ["train", "test"]


BAD_STM = """\
bad 1 A 0.1 0.5 good
bad 1 A 0.5 0.1 end before start
bad 1 A 0.6 x1 no time
bad 1 A 0.6
bad 1 A 1.0 1.0 no length
bad 1 A 1.2 1.4
bad 1 A 0.1 0.5 good
bad 1 B 0.1 0.5 good
bad 1 A 1.5 2.2 clipped
bad 1 A 1.5 2.6 too long
bad 1 A 3.0 4.0 far beyond
bad 1 A 0.15 0.55 good
bad 1 A 0.48 0.8 good
"""


def bad_folder(root: Path) -> Path:
    for name in ("bad", "gbk", "binary", "silent", "good", "cut"):
        sound(root / f"{name}.wav")
    sound(root / "lonely.wav")
    text(root / "bad.stm", BAD_STM)
    (root / "gbk.stm").write_bytes("gbk 1 A 0.1 0.5 ok\ngbk 1 A 0.6 0.9 你好\n".encode("gb18030"))
    text(root / "binary.TextGrid", "no TextGrid at all\n")
    text(root / "silent.stm", "silent 1 A 0.5 0.9\n")
    text(root / "good.stm", "good 1 A 0.1 0.5 well\n")
    text(root / "cut.stm", "cut 1 A 0.1 0.5 well\n")
    (root / "cut.wav").write_bytes((root / "cut.wav").read_bytes()[:20_000])
    return root


def test_bad_input_is_told_with_file_and_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    corpus = bad_folder(tmp_path / "c")
    report = prepare("folder", corpus, tmp_path / "o")
    rows = segments(tmp_path / "o", "all")
    assert list(rows) == ["bad", "good"]
    assert [(row[0], row[3], row[4]) for row in rows["bad"]] == [
        ("A", 0.5, "good"),
        ("B", 0.5, "good"),
        ("A", 0.8, "good"),  # said again, over the end of the first
        ("A", 2.0, "clipped"),
    ]
    assert dropped(report) == {
        "end before start": 1,
        "broken annotation": 3,
        "no length": 1,
        "empty text": 2,
        "duplicate": 2,
        "beyond the audio": 2,
        "unknown encoding": 1,
        "annotation missing": 1,
        "nothing said": 1,
        "audio broken": 1,
    }
    places = {reason: entry["first"] for reason, entry in report["dropped"].items()}
    bad = corpus / "bad.stm"
    assert places["end before start"][0].startswith(f"{bad}:2: ")
    assert places["broken annotation"][0].startswith(f"{bad}:3: ")
    assert places["empty text"][0].startswith(f"{bad}:6: ")
    assert places["duplicate"][0].startswith(f"{bad}:7: ")
    assert places["duplicate"][1].startswith(f"{bad}:12: ")
    assert places["beyond the audio"][1].startswith(f"{bad}:11: ")
    assert places["unknown encoding"][0].startswith(f"{corpus / 'gbk.stm'}:2: ")
    assert str(corpus / "cut.wav") in places["audio broken"][0]
    assert report["changed"]["end clipped to the audio"]["count"] == 1
    assert json.loads((tmp_path / "o/report.json").read_text("utf-8")) == report


def test_an_encoding_can_be_named(tmp_path: Path) -> None:
    corpus = bad_folder(tmp_path / "c")
    prepare("folder", corpus, tmp_path / "o", encoding="gb18030")
    assert segments(tmp_path / "o", "all")["gbk"][1][-1] == "你好"


def test_strict_stops_at_the_first_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bad\.stm:2: .*end before start"):
        prepare("folder", bad_folder(tmp_path / "c"), tmp_path / "o", strict=True)
    assert not [path for path in (tmp_path / "o").rglob("*") if path.is_file()]
    report = prepare("aishell4", aishell4(tmp_path / "a"), tmp_path / "o", strict=True)
    assert dropped(report) == {"nothing but tags": 4}  # not a fault


def test_a_broken_entry_of_seglst_costs_itself(tmp_path: Path) -> None:
    sound(tmp_path / "c/call.wav")
    entries = json.loads(_seglst())
    entries.insert(1, {"session_id": "call", "start_time": 1, "end_time": 2})
    path = text(tmp_path / "c/call.seglst.json", json.dumps(entries))
    report = prepare("folder", tmp_path / "c", tmp_path / "o")
    assert segments(tmp_path / "o", "all") == {"call": EXPECTED}
    assert report["dropped"]["broken annotation"]["first"][0].startswith(f"{path}, entry 2: ")


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_folder_that_is_not_the_corpus(tmp_path: Path, corpus: str) -> None:
    with pytest.raises(DataError, match="expected"):
        prepare(corpus, tmp_path, tmp_path / "o")
    with pytest.raises(DataError, match="no such folder"):
        prepare(corpus, tmp_path / "absent", tmp_path / "o")


def test_pieces_hold_what_the_references_hold(tmp_path: Path) -> None:
    corpus = tmp_path / "c"
    sound(corpus / "talk.wav", seconds=7.0)
    rows = [f"talk 1 {'AB'[n % 2]} {n / 2 + 0.1:.3f} {n / 2 + 0.433:.3f} w{n}" for n in range(13)]
    text(corpus / "talk.stm", "\n".join(rows))
    report = prepare("folder", corpus, tmp_path / "o", pieces_s=(2.0, 3.0))
    pieces = list(load_pieces(tmp_path / "o/all/pieces.jsonl"))
    assert pieces[0].start_samples == 0 and pieces[-1].end_samples == 7 * 16_000
    assert all(a.end_samples == b.start_samples for a, b in pairwise(pieces))
    assert report["splits"]["all"]["pieces"] == len(pieces) > 2
    whole = segments(tmp_path / "o", "all")["talk"]
    kept = [(chunk, r) for chunk in pieces for r in chunk.references]
    assert len(kept) == len(whole)
    for (chunk, reference), (_, _, start_s, end_s, words) in zip(kept, whole, strict=True):
        assert chunk.start_samples + reference.start_samples == audio.to_samples(start_s)
        assert chunk.start_samples + reference.end_samples == audio.to_samples(end_s)
        assert reference.text == words
    assert all(chunk.references[0].speaker == 1 for chunk in pieces)  # by order of appearance
    evaluated, _ = units(read_data(tmp_path / "o/all/manifest.jsonl"), (2.0, 3.0))
    assert [u.reference.recording for u in evaluated] == [chunk.name for chunk in pieces]


def test_an_earlier_call_leaves_nothing_that_is_wrong(tmp_path: Path) -> None:
    prepare("aishell4", aishell4(tmp_path / "c"), tmp_path / "o")
    sound(tmp_path / "d/call.wav")
    text(tmp_path / "d/call.stm", FOLDER_STM)
    prepare("folder", tmp_path / "d", tmp_path / "o")
    left = sorted(str(p.relative_to(tmp_path / "o")) for p in (tmp_path / "o").rglob("*.json*"))
    names = ["manifest.jsonl", "pieces.jsonl", "references.seglst.json", "supervisions.jsonl"]
    assert left == [*(f"all/{name}" for name in names), "report.json"]


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, data: object) -> None:
        raise sf.LibsndfileError(1, "disk full: ")

    monkeypatch.setattr(sf.SoundFile, "write", full)
    with pytest.raises(OutputError, match="disk full"):
        prepare("aishell4", aishell4_unmocked(tmp_path, monkeypatch), tmp_path / "o")
    assert not [path for path in (tmp_path / "o").rglob("*") if path.is_file()]


def aishell4_unmocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The corpus, written as if the disk were not full."""
    mocked = sf.SoundFile.write
    monkeypatch.undo()
    corpus = aishell4(tmp_path / "c")
    monkeypatch.setattr(sf.SoundFile, "write", mocked)
    return corpus


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another"):
        prepare("aishell4", aishell4(tmp_path / "c"), text(tmp_path / "o", ""))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_prepare(parser.add_subparsers())
    corpus = bad_folder(tmp_path / "c")
    command = ["prepare", "folder", str(corpus), "-o", str(tmp_path / "o"), "--preview", "1"]
    arguments = parser.parse_args([*command, "--pieces", "1-1.5"])
    assert arguments.run(arguments) == 0
    output = capsys.readouterr()
    assert "dropped: duplicate: 2" in output.err and f"{corpus / 'bad.stm'}:7: " in output.err
    taught = [line for line in output.out.splitlines() if line.startswith("+ ")]
    assert taught[:4] == [
        "+ taught   given",
        "+ <think>",
        "+ 2 speakers: Speaker1-unknown, Speaker2-unknown",
        "+ </think><box>[0.05, 0.55]</box><|im_end|>",
    ]
    assert taught[-1] == "+ </answer><|im_end|>"
    assert output.out.count("box plan") == 1
    for wrong in (["--pieces", "50-40"], ["--preview", "-1"], ["--gender-from", "middle"]):
        with pytest.raises(SystemExit):
            parser.parse_args([*command, *wrong])


@pytest.mark.parametrize("pieces_s", [(0.0001, 0.0002), (1.0, float("inf")), (50.0, 40.0)])
def test_pieces_of_impossible_lengths(tmp_path: Path, pieces_s: tuple[float, float]) -> None:
    corpus = aishell4(tmp_path / "c")
    with pytest.raises(DataError, match=r"pieces of .* s: expected .* 1 s at least and 3600 s at"):
        prepare("aishell4", corpus, tmp_path / "o", pieces_s=pieces_s)
    assert not (tmp_path / "o").exists()


def test_the_mask_is_in_colour(tmp_path: Path) -> None:
    prepare("aishell4", aishell4(tmp_path / "c"), tmp_path / "o")
    console = Console(force_terminal=True, color_system="standard", record=True, width=200)
    [chunk] = load_pieces(tmp_path / "o/test/pieces.jsonl")
    with console.capture() as captured:
        show(chunk, console)
    shown = captured.get()
    assert "\x1b[1;32m+ 2位说话人：说话人1-男，说话人2-女" in shown
    assert "\x1b[90m  <|im_start|>user" in shown


def test_names_of_corpora_agree() -> None:
    from speaker_reasoner.commands.prepare import _CORPORA

    assert set(CORPORA) == set(_CORPORA)


def test_aishell4_with_stm_references(tmp_path: Path) -> None:
    """Sessions without audio are counted, and spaces between Chinese characters, which are the STM's, go."""
    corpus = tmp_path / "c"
    for number in (1, 2, 3):
        name = f"S_R00{number}S01C01"
        rows = [
            f"{name} 1 001-M 0.10 0.90 今 天 开 会",
            f"{name} 1 002-F 0.50 1.90 好 的 OK 吗",
            f"{name} 1 002-F 1.90 1.95 ",
        ]
        text(corpus / "test/stm" / f"{name}.stm", "\n".join(rows) + "\n")
    sound(corpus / "test/wav" / "S_R002S01C01.wav", channels=2)
    report = prepare("aishell4", corpus, tmp_path / "o")
    assert dropped(report) == {"audio missing": 2, "empty text": 1}
    assert segments(tmp_path / "o", "test") == {
        "S_R002S01C01": [
            ("001-M", "male", 0.1, 0.9, "今天开会"),
            ("002-F", "female", 0.5, 1.9, "好的 OK 吗"),
        ]
    }


@needs_shared
def test_real_aishell4_references(tmp_path: Path) -> None:
    """All 20 evaluation sessions: every segment but the two without words, every gender."""
    corpus, seconds = tmp_path / "c", 40 * 60
    for path in sorted((SHARED / "aishell4_eval_stm").iterdir()):
        text(corpus / "test/stm" / path.name, path.read_text("utf-8"))
        wav = corpus / "test/wav" / f"{path.stem}.wav"
        wav.parent.mkdir(parents=True, exist_ok=True)
        sf.write(wav, np.zeros(seconds * 1000, np.int16), 1000, subtype="PCM_U8")
        if path.stem != "S_R003S03C01":  # one is enough to decode
            wav.unlink()
    report = prepare("aishell4", corpus, tmp_path / "o")
    assert dropped(report) == {"audio missing": 19, "empty text": 2}
    counts = report["splits"]["test"]
    raw = load(SHARED / "aishell4_eval_stm")["S_R003S03C01"]
    assert counts["segments"] == len(raw.segments) - 2
    assert counts["speakers"]["unknown"] == 0 and sum(counts["speakers"].values()) == len(
        raw.speakers
    )
    [(_, rows)] = segments(tmp_path / "o", "test").items()
    assert not any(" " in row[4] for row in rows)  # spaces between characters are the STM's


def test_lhotse_reads_the_same_layouts(tmp_path: Path) -> None:
    """The tiny corpora are what lhotse's recipes take for the real ones."""
    pytest.importorskip("textgrid")
    recipes = pytest.importorskip("lhotse.recipes")

    def said(manifests: Any, split: str) -> set[tuple[float, float, str]]:
        rows = manifests[split]["supervisions"]
        return {(round(s.start, 3), round(s.end, 3), s.text) for s in rows}

    def ours(out: Path, split: str) -> set[tuple[float, float, str]]:
        return {row[2:] for rows in segments(out, split).values() for row in rows}

    prepare("aishell4", aishell4(tmp_path / "aishell4"), tmp_path / "o1")
    theirs = said(recipes.prepare_aishell4(tmp_path / "aishell4", normalize_text=True), "test")
    assert {row for row in theirs if row[2]} == ours(tmp_path / "o1", "test")
    for mic in ("far", "near"):
        prepare(f"alimeeting-{mic}", alimeeting(tmp_path / "alimeeting"), tmp_path / mic)
        manifests = recipes.prepare_ali_meeting(tmp_path / "alimeeting", mic=mic)
        for split, theirs_split in (("train", "train"), ("dev", "eval"), ("test", "test")):
            assert said(manifests, theirs_split) == ours(tmp_path / mic, split)
    prepare("ami-ihm-mix", ami(tmp_path / "ami"), tmp_path / "o2")
    manifests = recipes.prepare_ami(
        tmp_path / "ami", mic="ihm-mix", partition="full-corpus-asr", normalize_text="none"
    )
    for split in ("train", "dev", "test"):
        untimed = {(1.0, 1.4, "ti-?")}  # lhotse loses words without times
        assert said(manifests, split) == ours(tmp_path / "o2", split) - untimed
