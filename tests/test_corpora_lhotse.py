"""Corpora that lhotse reads, and AISHELL-5: tiny ones in the layout of each, and manifests for lhotse."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from speaker_reasoner.data.corpora import prepare
from speaker_reasoner.errors import DataError
from speaker_reasoner.formats import read
from speaker_reasoner.formats.folders import load
from speaker_reasoner.formats.lhotse import parse_lhotse, render_lhotse
from speaker_reasoner.transcript import Segment, Transcript, Word

from .test_corpora import dropped, segments, sound, text, textgrid

PIECES = (1.0, 1.5)
lhotse = pytest.importorskip("lhotse", reason="pip install 'speaker-reasoner[corpora]'")


def made(corpus: str, root: Path, out: Path, **more: Any) -> dict[str, Any]:
    return prepare(corpus, root, out, pieces_s=PIECES, **more)


def hms(seconds: float) -> str:
    return f"00:00:{seconds:05.2f}"


def chime6(root: Path) -> Path:
    from lhotse.recipes.chime6 import DATASET_PARTS

    for part, sessions in DATASET_PARTS.items():
        for session in sessions:
            for name in ("U01.CH1", "U01.CH2", "U02.CH1"):
                sound(root / "audio" / part / f"{session}_{name}.wav")
            rows = [
                {
                    "speaker": "P05",
                    "start_time": hms(0.1),
                    "end_time": hms(0.9),
                    "words": "Oh [laughs] fine.",
                },
                {
                    "speaker": "P06",
                    "start_time": hms(0.5),
                    "end_time": hms(1.5),
                    "words": "[noise]",
                },
                {
                    "speaker": "P06",
                    "start_time": hms(1.0),
                    "end_time": hms(1.8),
                    "words": "it's hot",
                },
            ]
            rows = [{**row, "ref": "U01", "location": "kitchen"} for row in rows]
            text(root / "transcriptions" / part / f"{session}.json", json.dumps(rows))
    return root


def test_chime6(tmp_path: Path) -> None:
    report = made("chime6", chime6(tmp_path / "CHiME6"), tmp_path / "out")
    assert {s: v["sessions"] for s, v in report["splits"].items()} == {
        "train": 16,
        "dev": 2,
        "test": 2,
    }
    assert segments(tmp_path / "out", "dev")["S02"] == [
        ("P05", "unknown", 0.1, 0.9, "Oh fine."),
        ("P06", "unknown", 1.0, 1.8, "it's hot"),
    ]
    assert dropped(report)["nothing but tags"] == 20
    [row, *_] = (tmp_path / "out/dev/manifest.jsonl").read_text().splitlines()
    assert json.loads(row)["audio"].endswith("S02_U01.CH1.wav")


def test_what_lhotse_leaves_out_is_counted(tmp_path: Path) -> None:
    root = chime6(tmp_path / "CHiME6")
    path = root / "transcriptions/dev/S02.json"
    rows = json.loads(path.read_text())
    late = {**rows[0], "start_time": hms(30.0), "end_time": hms(31.0)}
    path.write_text(json.dumps([*rows, late]))
    report = made("chime6", root, tmp_path / "out")
    assert "starting after the end" in json.dumps(report["dropped"]["left out by lhotse"])


def test_a_corpus_without_one_of_its_files_is_an_error(tmp_path: Path) -> None:
    root = chime6(tmp_path / "CHiME6")
    (root / "transcriptions/dev/S02.json").unlink()
    with pytest.raises(DataError, match=r"lhotse cannot read it as chime6: FileNotFoundError.*S02"):
        made("chime6", root, tmp_path / "out")


def test_dipco(tmp_path: Path) -> None:
    from lhotse.recipes.dipco import DATASET_PARTS

    for part, sessions in DATASET_PARTS.items():
        for session in sessions:
            one = sound(tmp_path / "dipco" / "audio" / part / f"{session}_U01.CH1.wav", 1.0)
            for array, channel in product(range(1, 6), range(1, 8)):
                target = one.with_name(f"{session}_U0{array}.CH{channel}.wav")
                if not target.exists():
                    target.hardlink_to(one)
            row = {
                "speaker_id": "P01",
                "start_time": {"close-talk": "00:00:00.10"},
                "end_time": {"close-talk": "00:00:00.90"},
                "words": "good [unintelligible] food",
                "gender": "female",
                "nativeness": "native",
                "mother_tongue": "English",
            }
            text(
                tmp_path / "dipco" / "transcriptions" / part / f"{session}.json", json.dumps([row])
            )
    report = made("dipco", tmp_path / "dipco", tmp_path / "out")
    assert set(report["splits"]) == {"dev", "test"}
    [first, *_] = segments(tmp_path / "out", "dev").values()
    assert first == [("P01", "female", 0.1, 0.9, "good food")]


def icsi(root: Path) -> Path:
    from lhotse.recipes.icsi import PARTITIONS

    meta, notes = "", root / "transcripts"
    for part in PARTITIONS.values():
        meeting = sorted(part)[0]
        sound(root / "speech" / meeting / "mix.wav")
        meta += (
            f'<Meeting Session="{meeting}"><Preamble><Channels><Channel Name="chan0"/></Channels>'
            '<Participants><Participant Name="me013" Channel="chan0"/></Participants></Preamble></Meeting>'
        )
        text(
            notes / "Segments" / f"{meeting}.A.segs.xml",
            '<r><segment participant="me013" starttime="0.1" endtime="1.5"/></r>',
        )
        text(
            notes / "Words" / f"{meeting}.A.words.xml",
            '<r><w starttime="0.2" endtime="0.5">Okay</w><w starttime="0.6" endtime="1.0">then</w></r>',
        )
    text(notes / "preambles.mrt", f"<Meetings>{meta}</Meetings>")
    return root


def test_icsi(tmp_path: Path) -> None:
    report = made("icsi-ihm-mix", icsi(tmp_path / "icsi"), tmp_path / "out")
    [rows] = segments(tmp_path / "out", "test").values()
    assert (
        rows == [("me013", "male", 0.2, 1.0, "Okay then")] and report["splits"]["test"]["sessions"]
    )


def test_libricss(tmp_path: Path) -> None:
    from lhotse.recipes.libricss import OVERLAP_RATIOS

    head = "start_time\tend_time\tspeaker\tutterance_id\ttranscription\n"
    for ratio in OVERLAP_RATIOS:
        for number in (0, 1):
            name = f"overlap_ratio_0.0_sil0.1_0.5_session{number}_actual0.0"
            folder = tmp_path / "libricss" / "for_release" / ratio / name
            sound(folder / "record" / "raw_recording.wav", channels=7)
            lines = "0.1\t0.9\t1221\t1221-1\tSTUFF IT\n1.0\t1.8\t61\t61-1\tNOW\n"
            text(folder / "transcription" / "meeting_info.txt", head + lines)
    made("libricss", tmp_path / "libricss", tmp_path / "out")
    dev = segments(tmp_path / "out", "dev")
    assert len(dev) == len(OVERLAP_RATIOS) and all(n.endswith("session0") for n in dev)
    assert dev[f"{OVERLAP_RATIOS[0]}_session0"][0] == ("1221", "unknown", 0.1, 0.9, "STUFF IT")
    assert len(list((tmp_path / "out/test/audio/channel-0").iterdir())) == len(OVERLAP_RATIOS)


def test_notsofar1(tmp_path: Path) -> None:
    for part in ("train_set", "dev_set", "eval_set"):
        root = (
            tmp_path / "notsofar" / "benchmark-datasets" / part / "240825.1_x" / "MTG" / "MTG_30830"
        )
        sound(root / "sc_plaza_0" / "ch0.wav")
        for channel in range(7):
            sound(root / "mc_rockfall_0" / f"ch{channel}.wav")
        sound(root / "close_talk" / "CT_21.wav")
        rows = [
            {
                "speaker_id": "Jim",
                "start_time": 0.1,
                "end_time": 0.9,
                "text": "Well, <ST/> hello.",
                "word_timing": [["Well,", 0.1, 0.3], ["<ST/>", 0.3, 0.4], ["hello.", 0.5, 0.9]],
            }
        ]
        text(root / "gt_transcription.json", json.dumps(rows))
        text(root / "gt_meeting_metadata.json", '{"ParticipantAliasToCtDevice": {"Jim": "CT_21"}}')
    made("notsofar1-sc", tmp_path / "notsofar", tmp_path / "out")
    for split in ("train", "dev", "test"):
        assert segments(tmp_path / "out", split) == {
            "MTG_30830_sc_plaza_0": [("Jim", "unknown", 0.1, 0.9, "Well, hello.")]
        }


def voxconverse(root: Path) -> Path:
    for part, name in (("dev", "abjxc"), ("test", "aepyx")):
        sound(root / part / f"{name}.wav")
        rttm = (
            f"SPEAKER {name} 1 0.10 0.80 <NA> <NA> spk00 <NA> <NA>\n"
            f"SPEAKER {name} 1 0.50 1.00 <NA> <NA> spk01 <NA> <NA>\n"
        )
        text(root / part / f"{name}.rttm", rttm)
    return root


def test_voxconverse_has_no_words(tmp_path: Path) -> None:
    made("voxconverse", voxconverse(tmp_path / "vox"), tmp_path / "out")
    assert segments(tmp_path / "out", "dev")["abjxc"] == [
        ("spk00", "unknown", 0.1, 0.9, ""),
        ("spk01", "unknown", 0.5, 1.5, ""),
    ]


def test_aishell5(tmp_path: Path) -> None:
    root = tmp_path / "aishell5"
    for part in ("train", "Dev", "Eval1", "Eval2"):
        session = root / part / "001"
        sound(session / "DX01C01.wav")
        sound(session / "DA01.wav")
        textgrid(session / "DA01.TextGrid", {"speaker": [(0.1, 0.9, "打开车窗")]})
        textgrid(session / "DA02.TextGrid", {"speaker": [(0.5, 1.5, "好的")]})
    made("aishell5", root, tmp_path / "out")
    assert set(segments(tmp_path / "out", "test")) == {"Eval1-001", "Eval2-001"}
    assert segments(tmp_path / "out", "dev")["Dev-001"] == [
        ("DA01", "unknown", 0.1, 0.9, "打开车窗"),
        ("DA02", "unknown", 0.5, 1.5, "好的"),
    ]
    with pytest.raises(DataError, match="not AISHELL-5; expected folders train, Dev"):
        made("aishell5", root / "Dev", tmp_path / "other")


@pytest.mark.parametrize(
    "corpus", ["chime6", "dipco", "libricss", "notsofar1-sc", "voxconverse", "icsi-ihm-mix"]
)
def test_another_folder_is_no_corpus(corpus: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=corpus):
        made(corpus, tmp_path / "empty", tmp_path / "out")


# --- manifests for lhotse -----------------------------------------------------------------------

TALK = Transcript(
    "talk",
    9.0,
    (
        Segment(
            "ann",
            0.1,
            1.3,
            "你好 there",
            "female",
            words=(Word("你好", 0.1, 0.5), Word("there", 0.6, 1.3)),
        ),
        Segment("bob", 1.0, 2.0, "", "unknown"),
    ),
)


def test_what_is_written_is_read_back() -> None:
    [again] = parse_lhotse(render_lhotse(TALK), "talk.jsonl")
    assert again.segments == TALK.segments


def test_lhotse_reads_the_manifest_of_a_prepared_corpus(tmp_path: Path) -> None:
    made("voxconverse", voxconverse(tmp_path / "vox"), tmp_path / "out")
    path = tmp_path / "out" / "dev" / "supervisions.jsonl"
    one, _ = lhotse.SupervisionSet.from_file(path)
    assert (one.recording_id, one.speaker, one.start, one.duration) == ("abjxc", "spk00", 0.1, 0.8)
    assert one.channel == 0
    assert load(path)["abjxc"].segments == read(path.parent / "references.seglst.json")[0].segments
    whole = path.parent / "talk.jsonl"
    whole.write_text(render_lhotse(TALK))
    first = next(iter(lhotse.SupervisionSet.from_file(whole)))
    assert [(item.symbol, item.start) for item in first.alignment["word"]] == [
        ("你好", 0.1),
        ("there", 0.6),
    ]
