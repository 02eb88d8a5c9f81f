"""Prepared corpora as training takes them: which pieces, in what batches, with what cache."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speaker_reasoner import audio
from speaker_reasoner.data.cache import CacheConfig
from speaker_reasoner.data.corpora import CorpusPiece
from speaker_reasoner.data.corpora.notes import Notes
from speaker_reasoner.errors import AudioError, DataError
from speaker_reasoner.protocol import Profile
from speaker_reasoner.train.batches import IGNORED, Batcher
from speaker_reasoner.train.config import (
    CorporaConfig,
    Kind,
    ModelConfig,
    StageConfig,
    TrainingConfig,
)
from speaker_reasoner.train.prepared import PreparedCorpora, read_pieces
from speaker_reasoner.train.recordings import find_faults
from speaker_reasoner.train.schedule import RunConfig, Schedule
from speaker_reasoner.train.scratch import make_feature_extractor, make_thinker

from .conftest import TINY, noise

PROFILE = replace(Profile(), chunk_s=10.0, max_speakers=4)


def make_config(corpus: Path, **changes: Any) -> TrainingConfig:
    schedule = Schedule(10, 1e-3)
    corpora = CorporaConfig(
        train=(str(corpus),),
        check=(str(corpus),),
        batch=2,
        window=3,
        cache=CacheConfig(empty_rate=0.0, absence_rate=0.0),
    )
    return TrainingConfig(
        model=ModelConfig(base="of no matter"),
        profile=PROFILE,
        run=RunConfig(batches_per_step=2),
        corpora=replace(corpora, **changes),
        single_pass=StageConfig(schedule, (Kind("base"), Kind("sot"), Kind("count"))),
        dialogues=StageConfig(schedule, (Kind("dialogue"),)),
        cached=StageConfig(schedule, (Kind("cached"),)),
    )


@pytest.fixture(scope="module")
def batcher(tokenizer: Any) -> Batcher:
    return Batcher(make_thinker(tokenizer, TINY), tokenizer, make_feature_extractor())


def drawn_names(prepared: PreparedCorpora, stage: str, count: int) -> list[list[str]]:
    """Names of the pieces in the batches of a stage, from the first."""
    windows = -(-count // prepared.corpora.window)
    planned = [batch for n in range(windows) for batch in prepared._planned(stage, n)]
    return [[one.task.piece.source.name for one in batch] for batch in planned[:count]]


def test_every_piece_once_an_epoch(corpus: Path, batcher: Batcher) -> None:
    prepared = PreparedCorpora(make_config(corpus), batcher)
    total = len(prepared.train.used)
    assert total >= 8
    batches = 3 * total  # six epochs, in whole windows
    names = [name for batch in drawn_names(prepared, "dialogues", batches) for name in batch]
    counts = Counter(names)
    assert len(counts) == total and set(counts.values()) == {6}
    other = drawn_names(prepared, "cached", batches)
    assert [name for batch in other for name in batch] != names


def test_batches_hold_dialogues_of_like_length(corpus: Path, batcher: Batcher) -> None:
    prepared = PreparedCorpora(make_config(corpus, window=6), batcher)
    planned = prepared._planned("dialogues", 0)
    lengths = [[one.tokens for one in batch] for batch in planned]
    flat = sorted(tokens for batch in lengths for tokens in batch)
    assert sorted(map(sorted, lengths)) == [flat[i : i + 2] for i in range(0, len(flat), 2)]
    firsts = [batch[0] for batch in lengths]
    assert firsts != sorted(firsts)  # long ones do not all come last
    batch, _ = prepared.draw("dialogues", 0, 0)
    assert batch.lengths.tolist() == lengths[0]


def test_a_batch_is_the_same_whenever_it_is_drawn(corpus: Path, batcher: Batcher) -> None:
    """In any order, by any process, and in a run of another share of the batches."""
    first, again = (PreparedCorpora(make_config(corpus), batcher) for _ in range(2))
    for step, part in ((7, 1), (0, 0), (3, 1)):
        one, weights = first.draw("cached", step, part)
        other, _ = again.draw("cached", step, part)
        assert torch.equal(one.ids, other.ids) and torch.equal(one.features, other.features)
        assert one.frames is None and weights.answer == 1.0 and not weights.frames
        taught = one.labels != IGNORED
        assert taught.any() and (one.labels[taught] == one.ids[taught]).all()


def test_a_cache_is_of_the_sessions_past(corpus: Path, batcher: Batcher) -> None:
    prepared = PreparedCorpora(make_config(corpus), batcher)
    held = {path: audio.load(path) for path in {p.source.audio for p in prepared.train.used}}
    entries = 0
    for n in range(4):
        for task in (one.task for batch in prepared._planned("cached", n) for one in batch):
            talk = task.talk()
            chunk, whole = task.piece.source, held[task.piece.source.audio]
            assert np.array_equal(talk.samples, whole[chunk.start_samples : chunk.end_samples])
            numbers = list(dict.fromkeys(entry.speaker for entry in talk.cache))
            assert numbers == list(range(1, len(numbers) + 1))
            people = [s.speaker for s in (*talk.cache, *talk.segments)]
            assert list(dict.fromkeys(people)) == list(range(1, len(set(people)) + 1))
            labels = {s.text: s.speaker for s in talk.segments}
            for entry, segment in zip(talk.cache, task.drawn, strict=True):
                assert segment.end_samples <= chunk.start_samples
                expected = whole[segment.start_samples : segment.end_samples]
                assert np.array_equal(entry.samples, expected)
                assert entry.text in ("", segment.text)
                for mine, said in zip(talk.segments, task.piece.segments, strict=True):
                    same = said.speaker == segment.speaker
                    assert (mine.speaker == entry.speaker) == same
            entries += len(talk.cache)
            assert labels
    assert entries > 10
    first = next(p for p in prepared.train.used if p.source.start_samples == 0)
    assert not first.past


def test_more_people_than_labels_leave_the_cache_empty(corpus: Path, batcher: Batcher) -> None:
    config = make_config(corpus)
    few = replace(config, profile=replace(PROFILE, max_speakers=2))
    prepared = PreparedCorpora(few, batcher)
    assert any("max_speakers" in reason for reason in prepared.train.left_out)
    for task in (one.task for batch in prepared._planned("cached", 0) for one in batch):
        assert len({s.speaker for s in (*task.drawn, *task.piece.segments)}) <= 2


def test_what_does_not_fit_is_counted(corpus: Path, tmp_path: Path, batcher: Batcher) -> None:
    everything = read_pieces([str(corpus)], PROFILE, clipped=True)
    assert not everything.left_out
    fewer = read_pieces([str(corpus)], replace(PROFILE, chunk_s=4.5, max_turns=1), clipped=True)
    assert sum(fewer.left_out.values()) + len(fewer.used) == len(everything.used)
    assert {reason.partition(",")[0] for reason in fewer.left_out} == {
        "longer than profile.chunk_s",
        "more observations than profile.max_turns",
    }
    shutil.copytree(corpus, tmp_path / "c")
    file = tmp_path / "c/pieces.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["clipped"] = 1
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = read_pieces([str(tmp_path / "c")], PROFILE, clipped=False)
    assert whole.left_out == {"segments that go on outside the piece": 1}
    with pytest.raises(DataError, match="no piece can be used"):
        PreparedCorpora(
            replace(make_config(corpus), profile=replace(PROFILE, chunk_s=1.0)), batcher
        )


def test_checks_are_fixed_and_from_all_over(corpus: Path, batcher: Batcher) -> None:
    prepared = PreparedCorpora(make_config(corpus), batcher)
    checks = prepared.checks("dialogues", 2)
    assert [len(batch.lengths) for batch, _ in checks] == [2, 2]
    assert torch.equal(checks[0][0].ids, prepared.checks("dialogues", 2)[0][0].ids)
    talks = prepared.talks("cached", 3)
    assert len(talks) == 3 and not talks[0].cache and talks[2].cache
    total = len(prepared.held.used)
    assert len(prepared.talks("dialogues", 99)) == total
    nothing = PreparedCorpora(make_config(corpus, check=()), batcher)
    assert nothing.checks("dialogues", 2) == [] and nothing.talks("dialogues", 2) == []


def test_missing_and_broken_corpora(corpus: Path, tmp_path: Path, batcher: Batcher) -> None:
    with pytest.raises(DataError, match=r"no pieces\.jsonl"):
        PreparedCorpora(make_config(tmp_path), batcher)
    copy = tmp_path / "c"
    shutil.copytree(corpus, copy)
    file = copy / "pieces.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(json.dumps(rows[0]) + "\n{broken\n")
    with pytest.raises(DataError, match=r"pieces\.jsonl:2: not a piece"):
        PreparedCorpora(make_config(copy), batcher)


def rewritten(corpus: Path, folder: Path, *audio: Path) -> Path:
    """A copy of a prepared split whose pieces are of these recordings in turn."""
    shutil.copytree(corpus, folder)
    file = folder / "pieces.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["audio"] = str(audio[number % len(audio)])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def faulty_audio(folder: Path) -> dict[str, Path]:
    """Recordings with a fault that their headers show, by reason."""
    paths = {name: folder / f"{name}.wav" for name in ("gone", "text", "empty", "cut", "short")}
    paths["text"].write_bytes(b"RIFF no audio at all")
    paths["empty"].write_bytes(b"")
    paths["folder"] = folder / "folder.wav"
    paths["folder"].mkdir()
    soundfile.write(paths["cut"], noise(24.0), 16_000, subtype="PCM_16")
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:100_000])
    soundfile.write(paths["short"], noise(3.9), 16_000, subtype="PCM_16")
    return paths


REASONS = {
    "gone": "audio missing",
    "text": "audio broken",
    "empty": "audio broken",
    "folder": "audio broken",
    "cut": "audio broken",
    "short": "audio shorter than the piece",
}


def test_pieces_without_their_audio_are_left_out(
    corpus: Path, tmp_path: Path, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by reason, told by recording, each of which is opened once."""
    whole = PreparedCorpora(make_config(corpus), batcher).train.used[0].source.audio
    faulty = faulty_audio(tmp_path)
    config = make_config(rewritten(corpus, tmp_path / "c", whole, *faulty.values()))
    opened: Counter[Path] = Counter()
    monkeypatch.setattr(
        "speaker_reasoner.train.recordings.probe",
        lambda path: [opened.update([path]), audio.probe(path)][1],
    )
    prepared = PreparedCorpora(config, batcher)
    assert opened == dict.fromkeys((whole, *faulty.values()), 1)
    assert {p.source.audio for p in prepared.train.used} == {whole}
    total = len(read_pieces(config.corpora.train, PROFILE, clipped=True).used)
    assert len(prepared.train.used) + sum(prepared.train.left_out.values()) == total
    assert prepared.train.left_out.keys() == set(REASONS.values())
    assert prepared.held.left_out == prepared.train.left_out
    dropped = prepared.contents.notes.to_json("dropped")
    for name, reason in REASONS.items():
        assert dropped[reason]["count"] == list(REASONS.values()).count(reason)
        [message] = [text for text in dropped[reason]["first"] if str(faulty[name]) in text]
        assert "expected" in message and "\n" not in message
    for step in range(4):
        prepared.draw("dialogues", step, 0)


@pytest.mark.parametrize("name", REASONS)
def test_strict_stops_at_audio_with_a_fault(
    corpus: Path, tmp_path: Path, batcher: Batcher, name: str
) -> None:
    faulty = faulty_audio(tmp_path)[name]
    config = make_config(rewritten(corpus, tmp_path / "c", faulty))
    expected = rf"{name}\.wav.* expected .* \({REASONS[name]}\); without --strict it is left out"
    with pytest.raises(DataError, match=expected):
        PreparedCorpora(config, batcher, strict=True)
    with pytest.raises(
        DataError, match=rf"no piece can be used: {REASONS[name]}: \d+; first: .*{name}"
    ):
        PreparedCorpora(config, batcher)
    PreparedCorpora(make_config(corpus), batcher, strict=True)
    few = replace(
        config, profile=replace(PROFILE, chunk_s=1.0)
    )  # what is not used is not looked at
    with pytest.raises(DataError, match="longer than profile"):
        PreparedCorpora(few, batcher, strict=True)


def test_a_short_recording_keeps_the_pieces_that_it_holds(
    corpus: Path, tmp_path: Path, batcher: Batcher
) -> None:
    pieces = PreparedCorpora(make_config(corpus), batcher).train.used
    first = pieces[0].source.audio
    ends = sorted(p.source.end_samples for p in pieces if p.source.audio == first)
    assert len(ends) >= 3
    short = tmp_path / "short.wav"
    for samples, held in ((ends[1], 2), (ends[1] - 1, 1)):
        soundfile.write(short, noise(24.0)[:samples], 16_000, subtype="PCM_16")
        copy = tmp_path / f"c{held}"
        shutil.copytree(corpus, copy)
        file = copy / "pieces.jsonl"
        file.write_text(file.read_text().replace(json.dumps(str(first)), json.dumps(str(short))))
        prepared = PreparedCorpora(make_config(copy), batcher)
        kept = [p.source for p in prepared.train.used if p.source.audio == short]
        assert [chunk.end_samples for chunk in kept] == ends[:held]
        assert prepared.train.left_out == {"audio shorter than the piece": len(ends) - held}
        [message] = prepared.contents.notes.dropped["audio shorter than the piece"]
        assert f"ends after {samples / 16_000:.3f} s, expected" in message


@pytest.mark.parametrize(("rate_hz", "kind"), [(44_100, "wav"), (22_051, "flac"), (48_000, "mp3")])
def test_a_whole_recording_is_never_too_short(tmp_path: Path, rate_hz: int, kind: str) -> None:
    """Headers count samples of other rates, or codec padding; pieces end where decoding ended."""
    path = tmp_path / f"a.{kind}"
    for length in range(40_000, 40_012):
        soundfile.write(path, noise(5.0)[:length], rate_hz)
        end = len(audio.load(path))
        whole = CorpusPiece("a", path, 0, end, 0, (), ())
        assert find_faults([whole], Notes()) == {}
        notes = Notes()
        faults = find_faults([whole, replace(whole, end_samples=end + 1)], notes)
        assert faults[path].reason == "audio shorter than the piece"
        assert faults[path].whole_samples >= end - 1


def test_audio_that_breaks_later_stops_the_run(
    corpus: Path, tmp_path: Path, batcher: Batcher
) -> None:
    """Behind its header, or after the run has begun: the batches after it would be others."""
    broken = tmp_path / "broken.wav"
    soundfile.write(broken, np.full(24 * 16_000, np.nan), 16_000, subtype="FLOAT")
    config = make_config(rewritten(corpus, tmp_path / "c", broken))
    with pytest.raises(AudioError, match=r"broken\.wav.*expected finite"):
        PreparedCorpora(config, batcher).draw("dialogues", 0, 0)
    soundfile.write(broken, noise(24.0), 16_000, subtype="PCM_16")
    prepared = PreparedCorpora(config, batcher)
    prepared.draw("dialogues", 0, 0)
    broken.unlink()
    with pytest.raises(AudioError, match=r"broken\.wav.*cannot be read"):
        prepared.draw("dialogues", 0, 1)


BROKEN = {
    "end before start": ({"start_s": 2.0, "end_s": 1.0}, "2.*1"),
    "beyond the piece": ({"end_s": 100.0}, "ends at 100 s, after the piece's"),
    "negative": ({"start_s": -1.0}, "-1"),
    "no number": ({"start_s": float("nan")}, "nan"),
    "gender": ({"gender": "x"}, "'x'"),
    "text": ({"text": None}, "None|text"),
}


@pytest.mark.parametrize("change", BROKEN)
def test_a_piece_changed_by_hand_is_told_with_its_line(
    corpus: Path, tmp_path: Path, change: str
) -> None:
    values, message = BROKEN[change]
    rows = [json.loads(line) for line in (corpus / "pieces.jsonl").read_text().splitlines()]
    rows[1]["segments"][0] |= values
    file = tmp_path / "pieces.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=rf"pieces\.jsonl:2: not a piece: .*({message})"):
        read_pieces([str(tmp_path)], PROFILE, clipped=True)


def test_pieces_of_an_unknown_encoding_or_of_other_audio(
    corpus: Path, tmp_path: Path, batcher: Batcher
) -> None:
    file = tmp_path / "pieces.jsonl"
    first, second, *_ = (corpus / "pieces.jsonl").read_bytes().splitlines(keepends=True)
    file.write_bytes(first + second.replace(b"one", b"\xff\xfe"))
    with pytest.raises(DataError, match=r"pieces\.jsonl:2: not a piece: .*utf-8"):
        read_pieces([str(tmp_path)], PROFILE, clipped=True)
    row = json.loads(first)
    row["start_s"] = 100.0
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"ends after .* is it another file than was prepared"):
        PreparedCorpora(make_config(tmp_path), batcher)
