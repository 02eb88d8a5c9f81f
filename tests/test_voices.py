"""Voices with names: clips, what is wrong with them, the store, the commands."""

import errno
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from speaker_reasoner.cli import main
from speaker_reasoner.data.bases import median_f0_hz
from speaker_reasoner.errors import AudioError, OutputError, SettingsError
from speaker_reasoner.voices import clips as clips_module
from speaker_reasoner.voices import store as store_module
from speaker_reasoner.voices.clips import EnrolmentClip, load_clip
from speaker_reasoner.voices.enrolment import doubts, enrol, parse_voice
from speaker_reasoner.voices.store import VoiceStore, check_name, default_store

from .conftest import noise
from .talk import save
from .vocal import coloured, silence, voice


class PitchWitness:
    """Knows voices by their pitch: an octave is a quarter turn."""

    name, threshold, elsewhere, scale, settle_s = "pitch", 0.8, 0.8, 20.0, 0.1
    scatter = None

    def embed(self, clips: Sequence[Any]) -> Any:
        angle = np.array([np.log2(max(median_f0_hz(clip), 50) / 100) for clip in clips]) * np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@pytest.fixture
def ana(tmp_path: Path) -> Path:
    return save(tmp_path / "ana.wav", np.concatenate([silence(1.0), voice(4.0), silence(1.0)]))


@pytest.fixture
def bo(tmp_path: Path) -> Path:
    return save(tmp_path / "bo.wav", voice(3.0, 210.0, seed=5))


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    return VoiceStore(tmp_path / "store")


# Names


def test_a_name_and_a_file() -> None:
    assert parse_voice("Ana=a=b.wav") == ("Ana", Path("a=b.wav"))
    assert parse_voice(" Bo Li = x.wav")[0] == "Bo Li"
    assert parse_voice("安娜=a.wav") == ("安娜", Path("a.wav"))


@pytest.mark.parametrize("text", ["ana.wav", "Ana=", "Ana= ", ""])
def test_what_is_no_name_and_file(text: str) -> None:
    with pytest.raises(SettingsError, match="expected NAME=FILE"):
        parse_voice(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "printable"),
        (" Ana", "without spaces around"),
        ("A\nna", "on one line"),
        ("A\x1b[31m", "printable"),
        ("x" * 101, "at most 100"),
        ("Speaker2", "another one"),
        ("speaker 12", "another one"),
    ],
)
def test_names_that_cannot_be_used(name: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        check_name(name)


def test_a_name_is_one_however_its_accents_are_written() -> None:
    assert check_name(unicodedata.normalize("NFD", "Zoë")) == unicodedata.normalize("NFC", "Zoë")


# Clips


def test_a_clip_is_its_speech(ana: Path) -> None:
    clip = load_clip(ana)
    assert clip.start_s == pytest.approx(1.0, abs=0.1)
    assert clip.duration_s == pytest.approx(4.0, abs=0.2)
    assert clip.speech_s > 3.5
    assert all(0 <= a < b <= clip.duration_s for a, b in clip.speech_regions)


def test_of_a_long_clip_the_ten_seconds_with_most_speech_are_used(tmp_path: Path) -> None:
    parts = [voice(3.0), silence(9.0), voice(7.0, seed=1), silence(1.0), voice(2.0), silence(20.0)]
    clip = load_clip(save(tmp_path / "long.wav", np.concatenate(parts)))
    assert clip.start_s == pytest.approx(12.0, abs=0.1)
    assert clip.duration_s == pytest.approx(10.0, abs=0.1)
    assert clip.speech_s == pytest.approx(9.0, abs=0.3)


def test_speech_without_a_pause_is_cut_at_ten_seconds(tmp_path: Path) -> None:
    clip = load_clip(save(tmp_path / "a.wav", voice(14.0)))
    assert clip.duration_s == pytest.approx(10.0)
    assert clip.speech_regions[-1][1] <= clip.duration_s


def test_a_clip_at_another_rate_with_two_channels(tmp_path: Path) -> None:
    both = np.repeat(voice(6.0)[:, None], 2, axis=1)
    clip = load_clip(save(tmp_path / "a.flac", both, 32_000))
    assert clip.duration_s == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(
    "samples",
    [silence(5.0), coloured(5.0, 0.5, -30.0), voice(1.5), np.zeros(10, np.float32)],
    ids=["silent", "noise", "short", "tiny"],
)
def test_a_clip_with_too_little_speech(tmp_path: Path, samples: Any) -> None:
    path = save(tmp_path / "clip.wav", samples)
    with pytest.raises(AudioError, match=r"clip\.wav': got [01]\.\d s of speech .* at least 2 s"):
        load_clip(path)


def test_a_clip_that_is_no_audio(tmp_path: Path) -> None:
    (tmp_path / "ana.wav").write_text("Ana")
    with pytest.raises(AudioError, match="ana"):
        load_clip(tmp_path / "ana.wav")
    with pytest.raises(AudioError, match="cannot be read"):
        load_clip(tmp_path / "gone.wav")


def test_a_whole_recording_is_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips_module, "LONGEST_S", 60.0)
    with pytest.raises(AudioError, match="more than 1 minutes"):
        load_clip(save(tmp_path / "a.wav", noise(61.0)))


# What a witness says


def clip(*parts: Any, path: str = "a.wav") -> EnrolmentClip:
    samples = np.concatenate(parts)
    regions, at = [], 0.0
    for part in parts:
        regions.append((at, at + len(part) / 16_000))
        at = regions[-1][1]
    return EnrolmentClip(Path(path), 0.0, samples, tuple(regions))


def test_a_witness_has_nothing_against_good_clips() -> None:
    people = {
        "Ana": [clip(voice(5.0, 210.0)), clip(voice(2.0, 205.0, 1), path="b.wav")],
        "Bo": [clip(voice(4.0, 110.0))],
    }
    assert doubts(people, PitchWitness()) == {}


def test_a_clip_of_two_voices() -> None:
    people = {"Ana": [clip(voice(2.0, 210.0), voice(2.0, 105.0), path="both.wav")]}
    [sentence] = doubts(people, PitchWitness())["Ana"]
    assert "'both.wav' (Ana) sounds like two voices" in sentence


def test_clips_of_two_people_under_one_name() -> None:
    people = {"Ana": [clip(voice(2.0, 210.0)), clip(voice(2.0, 105.0), path="b.wav")]}
    [sentence] = doubts(people, PitchWitness())["Ana"]
    assert "'a.wav' and 'b.wav' (Ana) sound like two people" in sentence


def test_one_person_under_two_names() -> None:
    people = {"Ana": [clip(voice(3.0, 210.0))], "Anna": [clip(voice(3.0, 212.0, 3))]}
    said = doubts(people, PitchWitness())
    assert list(said) == ["Anna"]
    assert "Anna sounds like Ana" in said["Anna"][0]


def test_a_clip_of_pieces_too_short_to_tell_is_not_doubted() -> None:
    people = {"Ana": [clip(*[voice(0.5, f0_hz) for f0_hz in (210.0, 105.0) * 3])]}
    assert doubts(people, PitchWitness()) == {}


# Enrolment


def test_clips_of_the_command_line_and_of_a_store(ana: Path, bo: Path, store: VoiceStore) -> None:
    store.add("Bo", [load_clip(bo)])
    more = [save(ana.with_name(f"{i}.wav"), voice(3.0, 121.0, seed=i)) for i in range(2)]
    people = enrol([f"Ana={ana}", f"Bo={more[0]}", f"Ana={more[1]}"], store.folder)
    assert [(person.name, len(person.clips)) for person in people] == [("Ana", 2), ("Bo", 2)]
    assert all(person.doubts == () for person in people)


def test_what_a_witness_says_goes_with_the_voice(ana: Path, bo: Path) -> None:
    ana_once_more = save(ana.with_name("again.wav"), voice(4.0, seed=4))
    people = enrol([f"Ana={ana}", f"Bo={bo}", f"Eve={ana_once_more}"], None, PitchWitness())
    assert [len(person.doubts) for person in people] == [0, 0, 1]


def test_the_same_clip_for_two_people(ana: Path) -> None:
    with pytest.raises(SettingsError, match=r"ana\.wav' \(Ana\) and .* \(Bo\) are the same clip"):
        enrol([f"Ana={ana}", f"Bo={ana}"])


def test_a_store_in_which_nobody_is(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nobody is there"):
        enrol([], tmp_path)


# The store


def test_what_is_added_is_there(ana: Path, bo: Path, store: VoiceStore) -> None:
    first = load_clip(ana)
    assert store.add("Zoë", [first]) == [first]
    assert store.add("Ana", [load_clip(bo)]) != []
    again, other = VoiceStore(store.folder).voices()
    assert (again.name, other.name) == ("Ana", "Zoë")
    [kept] = [clip.load() for clip in other.clips]
    assert np.abs(kept.samples - first.samples).max() < 1e-6
    assert kept.speech_regions == first.speech_regions
    assert other.speech_s == pytest.approx(first.speech_s)


def test_clips_are_added_once(ana: Path, bo: Path, store: VoiceStore) -> None:
    one, two = load_clip(ana), load_clip(bo)
    store.add("Ana", [one])
    assert store.add("Ana", [one, two]) == [two]
    assert store.add(unicodedata.normalize("NFD", "Ana"), [two]) == []
    [person] = store.voices()
    assert len(person.clips) == 2


def test_a_stored_clip_stays_good_enough(tmp_path: Path, store: VoiceStore) -> None:
    barely = load_clip(
        save(tmp_path / "a.wav", np.concatenate([silence(3), voice(2.0), silence(3)]))
    )
    store.add("Ana", [barely])
    [person] = enrol([], store.folder)
    assert len(person.clips[0]) == len(barely.samples)


def test_names_are_never_paths(ana: Path, store: VoiceStore) -> None:
    names = ["../../etc", "..", "/root", "a/b", "CON", "ana", "Ana", "安娜", "x" * 100, "a\\b", "~"]
    clip = load_clip(ana)
    for number, name in enumerate(names, start=1):
        store.add(name, [replace(clip, samples=clip.samples / np.float32(number))])
    assert {voice.name for voice in store.voices()} == set(names)
    folders = [path for path in store.folder.iterdir() if path.is_dir()]
    assert len({path.name.lower() for path in folders}) == len(names)
    assert all(path.name.replace("-", "").isalnum() and path.name.isascii() for path in folders)
    assert [path.name for path in store.folder.parent.iterdir()] == ["ana.wav", "store"]


def test_what_is_removed_is_gone(ana: Path, bo: Path, store: VoiceStore) -> None:
    store.add("Ana", [load_clip(ana)])
    store.add("Bo", [load_clip(bo)])
    store.remove("Ana")
    assert [voice.name for voice in store.voices()] == ["Bo"]
    assert len(list(store.folder.iterdir())) == 1
    with pytest.raises(SettingsError, match="nobody there is called 'Boo'; did you mean 'Bo'"):
        store.remove("Boo")


def test_other_files_in_a_folder_stay(ana: Path, store: VoiceStore) -> None:
    store.add("Ana", [load_clip(ana)])
    [folder] = store.folder.iterdir()
    (folder / "notes.txt").write_text("mine")
    store.remove("Ana")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert store.voices() == []


def test_a_clip_is_of_one_person(ana: Path, store: VoiceStore) -> None:
    store.add("Ana", [load_clip(ana)])
    with pytest.raises(SettingsError, match=r"already 'Ana''s clip.*remove 'Ana'"):
        store.add("Bo", [load_clip(ana)])
    assert [one.name for one in store.voices()] == ["Ana"]
    assert store.add("Ana", [load_clip(ana)]) == []


def test_a_broken_add_leaves_nothing_that_counts(
    ana: Path, store: VoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OutputError(f"{path}: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store_module, "write_text_atomically", full)
        with pytest.raises(OutputError):
            store.add("Ana", [load_clip(ana)])
    assert store.voices() == []
    store.add("Ana", [load_clip(ana)])
    assert [voice.name for voice in store.voices()] == ["Ana"]


def test_a_full_disk(ana: Path, store: VoiceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *rest: Any, **options: Any) -> None:
        path.write_bytes(b"fLaC")
        raise OSError(errno.ENOSPC, "No space left on device")

    clips = [load_clip(ana)]
    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(OutputError, match="No space left on device"):
        store.add("Ana", clips)
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


def test_a_store_that_is_a_file(ana: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        VoiceStore(tmp_path / "file").add("Ana", [load_clip(ana)])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "name": "Ana", "clips": []}',
        '{"version": 1, "name": "", "clips": []}',
        '{"version": 1, "name": "Ana", "clips": [{"file": "../a.wav", "speech_s": []}]}',
        '{"version": 1, "name": "Ana", "clips": [{"file": ".."}]}',
        '{"version": 1, "name": "Ana"}',
    ],
)
def test_a_damaged_voice(ana: Path, store: VoiceStore, text: str) -> None:
    store.add("Ana", [load_clip(ana)])
    [index] = store.folder.glob("*/voice.json")
    index.write_text(text)
    with pytest.raises(SettingsError, match=r"voice\.json': not a voice"):
        store.voices()


def test_a_clip_that_vanished(ana: Path, store: VoiceStore) -> None:
    store.add("Ana", [load_clip(ana)])
    [path] = store.folder.glob("*/clip-*.flac")
    path.unlink()
    with pytest.raises(AudioError, match="clip-"):
        enrol([], store.folder)


def test_a_copied_folder_is_told(ana: Path, store: VoiceStore) -> None:
    store.add("Ana", [load_clip(ana)])
    [index] = store.folder.glob("*/voice.json")
    (store.folder / "copy").mkdir()
    (store.folder / "copy/voice.json").write_text(index.read_text())
    with pytest.raises(SettingsError, match="'Ana' is in the store twice"):
        store.voices()


def test_what_exceeds_full_scale_is_not_clipped(tmp_path: Path, store: VoiceStore) -> None:
    loud = load_clip(save(tmp_path / "a.wav", voice(3.0) * 6, subtype="FLOAT"))
    store.add("Ana", [loud])
    [person] = store.voices()
    kept = person.clips[0].load().samples
    assert np.allclose(kept * np.abs(loud.samples).max(), loud.samples, atol=1e-4)


# Commands


def test_voices_on_the_command_line(
    ana: Path, bo: Path, store: VoiceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store.folder)]
    assert main(["voices", "list", *where]) == 0
    assert "nobody in" in capsys.readouterr().err
    assert main(["voices", "add", "Ana [b]", str(ana), str(bo), *where]) == 0
    assert "s of speech from 1.0 s on" in capsys.readouterr().err
    assert main(["voices", "add", "Ana [b]", str(ana), *where]) == 0
    assert "is there already" in capsys.readouterr().err
    assert main(["voices", "list", *where]) == 0
    shown = capsys.readouterr().out
    assert "Ana [b]" in shown
    assert " 2 " in shown
    assert main(["voices", "remove", "Ana [b]", *where]) == 0
    assert store.voices() == []


def test_errors_on_the_command_line(
    ana: Path, store: VoiceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store.folder)]
    assert main(["voices", "add", "Speaker 3", str(ana), *where]) == 1
    assert "expected another one" in capsys.readouterr().err
    assert main(["voices", "add", "Ana", str(ana), str(ana.with_name("gone.wav")), *where]) == 1
    assert "gone.wav" in capsys.readouterr().err
    assert store.voices() == []
    assert main(["voices", "remove", "Ana", *where]) == 1
    with pytest.raises(SystemExit):
        main(["voices"])


def test_a_witness_is_heard_when_asked(
    ana: Path,
    store: VoiceStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("speaker_reasoner.engines.comparing.choose", lambda *_: PitchWitness())
    monkeypatch.setattr("speaker_reasoner.load_engine", None)  # a witness needs no engine
    again = save(ana.with_name("again.wav"), voice(4.0, seed=4))
    where = ["--store", str(store.folder), "--witness", "pitch"]
    assert main(["voices", "add", "Ana", str(ana), *where]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["voices", "add", "Eve", str(again), *where]) == 0
    assert "Eve sounds like Ana" in capsys.readouterr().err


def test_the_tower_of_the_embedded_checkpoint_compares(
    ana: Path, store: VoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []

    def load(model: str) -> Any:
        loaded.append(model)
        return SimpleNamespace(witness=lambda name: PitchWitness() if name == "tower" else None)

    monkeypatch.setattr("speaker_reasoner.load_engine", load)
    where = ["--store", str(store.folder), "--witness", "tower"]
    assert main(["voices", "add", "Ana", str(ana), *where]) == 0
    assert loaded == ["tiny"]


def test_a_witness_that_cannot_be_downloaded_adds_nobody(
    ana: Path, store: VoiceStore, tmp_path: Path
) -> None:
    """One line is printed: the hub is not asked again and again."""
    where = ["--store", str(store.folder), "--witness", "xvector=nobody/nothing"]
    answer = subprocess.run(
        [sys.executable, "-m", "speaker_reasoner", "voices", "add", "Ana", str(ana), *where],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 1, answer.stderr
    [line] = answer.stderr.splitlines()
    assert "witness xvector=nobody/nothing: cannot be loaded" in line and "network?" in line
    assert store.voices() == []


def test_the_store_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPEAKER_REASONER_VOICES", str(tmp_path / "mine"))
    assert default_store() == tmp_path / "mine"
    monkeypatch.delenv("SPEAKER_REASONER_VOICES")
    assert default_store().name == "voices"
    assert default_store().is_absolute()


def test_the_index_is_readable(ana: Path, store: VoiceStore) -> None:
    store.add("Ána", [load_clip(ana)])
    [index] = store.folder.glob("*/voice.json")
    assert index.parent.name.startswith("ana-")
    assert json.loads(index.read_text(encoding="utf-8"))["name"] == "Ána"
    assert "Ána" in index.read_text(encoding="utf-8")
