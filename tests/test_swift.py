"""The export for ms-swift: messages, audio beside them, whole or not at all. ms-swift itself is not
needed here; `scripts/verify-swift` runs it."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings

from speaker_reasoner import audio
from speaker_reasoner.cli import main
from speaker_reasoner.data.cache import condition
from speaker_reasoner.data.dialogues import SINGLE_TURN, dialogue, single_turn
from speaker_reasoner.errors import DataError, OutputError, ProtocolError
from speaker_reasoner.protocol import Answer, Audio, Profile, Text, Trace
from speaker_reasoner.protocol.markup import MARKUP
from speaker_reasoner.protocol.observations import Reference
from speaker_reasoner.train.batches import Clip, Example
from speaker_reasoner.train.swift import LAUNCH, SwiftExport, to_row

from .conftest import noise
from .references import chunks

PROFILE = Profile(decimals=1, chunk_s=30.0, cache_s=20.0)
SAID = [
    Reference(1, "female", 8_000, 24_000, "good morning"),
    Reference(2, "male", 26_000, 30_000, "hello"),
]


def spelled_out(row: dict[str, Any]) -> str:
    """What Qwen's chat template makes of messages."""
    text = "\n".join(
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>"
        for message in row["messages"]
    )
    return text.replace("<audio>", "<|audio_start|><|audio_pad|><|audio_end|>")


def seen(trace: Trace) -> str:
    """What the model sees of a trace."""
    text = ""
    for part in trace.parts:
        match part:
            case Text(said):
                text += said
            case Audio():
                text += MARKUP.audio
            case Answer(said, closed=closed):
                text += said + MARKUP.end * closed
    return text


def traces(segments: list[Reference], samples: int) -> list[Trace]:
    """Every kind of dialogue over a chunk."""
    past = [Reference(s.speaker, s.gender, 0, 16_000, s.text) for s in segments[:2]]
    entries, numbered = condition(past, np.zeros(16_000, np.float32), segments)
    return [
        *(single_turn(task, segments, samples, PROFILE) for task in SINGLE_TURN),
        dialogue(segments, samples, PROFILE),
        dialogue(numbered, samples, PROFILE, cache=entries),
        dialogue(segments, samples, replace(PROFILE, language="zh", turn_text="O{turn}")),
    ]


@settings(max_examples=40, deadline=None)
@given(chunks())
def test_messages_say_what_the_trace_shows(chunk: tuple[list[Reference], int]) -> None:
    for trace in traces(*chunk):
        paths = [f"{n}.flac" for n in range(len(trace.audio))]
        row = to_row(trace, paths)
        assert spelled_out(row) == seen(trace)
        assert row["audios"] == paths
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * len(trace.answers)
        asked = "".join(m["content"] for m in row["messages"] if m["role"] == "user")
        assert asked.count("<audio>") == len(paths)


def test_what_messages_cannot_say_is_refused() -> None:
    whole = dialogue(SAID, 32_000, PROFILE)
    with pytest.raises(ProtocolError, match="turn 3 of the trace is cut off"):
        to_row(dialogue(SAID, 32_000, PROFILE, answer=False), [])
    with pytest.raises(ProtocolError, match="expected an answer"):
        to_row(Trace(whole.parts[:-1]), [])
    with pytest.raises(ProtocolError, match="expected an answer"):
        to_row(Trace(), [])
    with pytest.raises(ProtocolError, match="not a user turn"):
        to_row(Trace(whole.parts[1:]), [])
    system = Text("<|im_start|>system\nBe brief.<|im_end|>\n")
    with pytest.raises(ProtocolError, match="not a user turn"):
        to_row(Trace((system, *whole.parts)), [])
    for tag in ("<audio>", "<img>", "<start-image>"):
        said = [replace(SAID[0], text=f"the tag {tag} it is")]
        with pytest.raises(DataError, match=f"{tag}.*remove it from the annotation"):
            to_row(dialogue(said, 32_000, PROFILE), [])
    for harmless in ("<image>", "<box>", "a < b"):
        to_row(dialogue([replace(SAID[0], text=harmless)], 32_000, PROFILE), [])


def example(samples: Any, *cached: Any) -> Example:
    """A dialogue over samples, after clips of a cache."""
    past = [Reference(1, "female", 0, len(clip), "so") for clip in cached]
    entries, said = condition(past, np.zeros(1, np.float32), SAID)
    entries = [replace(e, samples=clip) for e, clip in zip(entries, cached, strict=True)]
    trace = dialogue(said, len(samples), PROFILE, cache=entries)
    return Example(trace, tuple(Clip(one) for one in (samples, *cached)))


def test_slices_are_the_traces(tmp_path: Path) -> None:
    chunk, cached = noise(2.0), noise(1.5, seed=1)
    with SwiftExport(tmp_path / "out") as out:
        out.add("dialogues", "a/b 1", example(chunk))
        out.add("cached", "a/b 1", example(chunk, cached))
        report = out.finish({"seed": 7})
    said = json.loads((tmp_path / "out/export.json").read_text())
    assert said == report and said["seed"] == 7
    written = said["written"]
    assert written["dialogues"] == {"dialogues": 1, "cached": 1}
    assert written["turns"] == {"dialogues": 3, "cached": 3}
    files = sorted(p.name for p in (tmp_path / "out/audio/a_b_1").iterdir())
    assert len(files) == written["audio_files"] == 4  # the chunk, two slices, the cached clip: once
    assert "cached-1.flac" in files
    for name, clips in (("dialogues", (chunk,)), ("cached", (chunk, cached))):
        [line] = (tmp_path / f"out/{name}.jsonl").read_text().splitlines()
        made = example(*clips)
        for path, part in zip(json.loads(line)["audios"], made.trace.audio, strict=True):
            samples = audio.load(tmp_path / "out" / path)
            expected = clips[part.clip][part.start_samples : part.end_samples]
            assert len(samples) == max(len(expected), 16_000)
            assert np.abs(samples[: len(expected)] - expected).max() <= 2**-16
            assert not samples[len(expected) :].any()
    for name in ("plugin.py", "sft.sh", "megatron.sh"):
        assert (tmp_path / "out" / name).read_bytes() == (LAUNCH / name).read_bytes()
    assert os.access(tmp_path / "out/sft.sh", os.X_OK)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_16_bit_sources_stay_exact_and_loud_samples_are_counted(tmp_path: Path) -> None:
    chunk = np.linspace(-1.25, 1.25, 32_000, dtype=np.float32)
    chunk = np.round(chunk * 32_768) / np.float32(32_768)
    with SwiftExport(tmp_path / "out") as out:
        out.add(
            "single_pass", "a", Example(single_turn("base", SAID, 32_000, PROFILE), (Clip(chunk),))
        )
        loud = out.finish({})["written"]["loud_samples"]
    [path] = (tmp_path / "out/audio/a").iterdir()
    held = audio.load(path)
    inside = np.abs(chunk) < 1
    assert np.array_equal(held[inside], chunk[inside])
    assert loud == (np.abs(chunk) > 1).sum() > 1000


def test_nothing_is_left_of_what_fails(tmp_path: Path, file_size_limit: Any) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        SwiftExport(tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        SwiftExport(tmp_path / "file")
    with pytest.raises(DataError, match="no dialogue"), SwiftExport(tmp_path / "none") as out:
        out.finish({})
    with (
        pytest.raises(OutputError, match="nothing of the export was left"),
        SwiftExport(tmp_path / "disk") as out,
        file_size_limit(4096),
    ):
        out.add("dialogues", "a", example(noise(2.0)))
    with pytest.raises(KeyboardInterrupt), SwiftExport(tmp_path / "stopped") as out:
        out.add("dialogues", "a", example(noise(2.0)))
        raise KeyboardInterrupt
    with (
        pytest.raises(DataError, match="two chunks are named 'a'"),
        SwiftExport(tmp_path / "t") as out,
    ):
        out.add("dialogues", "a", example(noise(2.0)))
        out.add("dialogues", "a", example(noise(2.0, seed=1)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    with SwiftExport(tmp_path / "empty") as out:
        out.add("dialogues", "a", example(noise(2.0)))
        out.finish({})
    assert (tmp_path / "empty/dialogues.jsonl").exists()


CONFIG = """
[model]
base = "of no matter"
method = "lora"
[profile]
chunk_s = 10.0
max_speakers = {speakers}
[run]
[corpora]
train = ["{corpus}"]
check = ["{corpus}"]
cache = {{ empty_rate = 0.0, absence_rate = 0.0 }}
[single_pass]
schedule = {{ steps = 1, learning_rate = 1e-4 }}
kinds = [{{ task = "base" }}, {{ task = "count" }}]
[dialogues]
schedule = {{ steps = 1, learning_rate = 1e-4 }}
kinds = [{{ task = "dialogue" }}]
[cached]
schedule = {{ steps = 1, learning_rate = 1e-4 }}
kinds = [{{ task = "cached" }}]
"""


def configured(folder: Path, corpus: Path, speakers: int = 4) -> Path:
    path = folder / "config.toml"
    path.write_text(CONFIG.format(corpus=corpus, speakers=speakers))
    return path


def test_every_piece_once_a_stage(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path, corpus)
    pieces = len((corpus / "pieces.jsonl").read_text().splitlines())
    for name in ("out", "again"):
        assert main(["export", "swift", str(config), "-o", str(tmp_path / name)]) == 0
    output = capsys.readouterr().err
    assert "cached.check.jsonl" in output and "wrote" in output
    out = tmp_path / "out"
    stages = ["single_pass", "dialogues", "cached"]
    for name in (f"{stage}{side}.jsonl" for stage in stages for side in ("", ".check")):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        rows = [json.loads(line) for line in (out / name).read_text().splitlines()]
        assert len(rows) == pieces
        assert all((out / path).is_file() for row in rows for path in row["audios"])
        cached = sum(any("-1.flac" in path for path in row["audios"]) for row in rows)
        assert cached > 4 if name.startswith("cached") else cached == 0
    asked = {
        json.loads(line)["messages"][0]["content"]
        for line in (out / "single_pass.jsonl").read_text().splitlines()
    }
    assert len(asked) == 2  # of both kinds


def test_broken_corpora(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "corpus"
    shutil.copytree(corpus, copy)
    file = copy / "pieces.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["segments"][0]["text"] = "an <audio> tag"
    rows[1]["duration_s"] = 9.0
    rows[1]["start_s"] = 20.0  # beyond the end of the recording
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = configured(tmp_path, copy)
    out = tmp_path / "out"
    assert main(["export", "swift", str(config), "-o", str(out)]) == 0
    output = " ".join(capsys.readouterr().err.split())
    assert "left out: 2 pieces: audio shorter than the piece" in output
    assert "dropped: audio shorter than the piece: 1" in output and "ends after 24.000 s" in output
    assert "dropped: text taken for media:" in output and "<audio>" in output
    assert len((out / "dialogues.jsonl").read_text().splitlines()) == len(rows) - 2
    assert main(["export", "swift", str(config), "-o", str(tmp_path / "s"), "--strict"]) == 1
    assert "without --strict it is left out" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
    assert main(["export", "swift", str(config), "-o", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err
    few = configured(tmp_path, copy, speakers=2)
    assert main(["export", "swift", str(few), "-o", str(tmp_path / "few")]) == 0
    assert "more speakers than profile.max_speakers, 2" in capsys.readouterr().err
    config = configured(tmp_path, copy)
    rows[2]["audio"] = str(tmp_path / "gone.wav")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["export", "swift", str(config), "-o", str(tmp_path / "g")]) == 0
    output = " ".join(capsys.readouterr().err.split())
    assert "dropped: audio missing: 1" in output and "gone.wav': cannot be read" in output
    assert len((tmp_path / "g/dialogues.jsonl").read_text().splitlines()) == len(rows) - 3
    damaged = tmp_path / "damaged.wav"  # behind a header that is whole
    soundfile.write(damaged, np.full(24 * 16_000, np.nan), 16_000, subtype="FLOAT")
    rows[2]["audio"] = str(damaged)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["export", "swift", str(config), "-o", str(tmp_path / "d")]) == 0
    assert "dropped: audio damaged: 6" in capsys.readouterr().err
    assert main(["export", "swift", "tiny", "-o", str(tmp_path / "t")]) == 1
    assert "no table corpora" in capsys.readouterr().err


def test_the_launch_script_passes_over_what_is_done(tmp_path: Path) -> None:
    """Stages in order, each from the last one's adapter; a stopped one goes on."""
    folder, bin_ = tmp_path / "export", tmp_path / "bin"
    folder.mkdir()
    bin_.mkdir()
    shutil.copy(LAUNCH / "sft.sh", folder)
    for stage in ("single_pass", "dialogues", "cached"):
        (folder / f"{stage}.jsonl").touch()
    (folder / "dialogues.check.jsonl").touch()
    swift = bin_ / "swift"
    swift.write_text(
        "#!/bin/bash\n"
        'echo "$PWD $@" >> "$LOG"\n'
        'while [ "$1" != --output_dir ]; do shift; done\n'
        'mkdir -p "$2/checkpoint-9" "$2/checkpoint-10"\n'
        '[[ "$2" != */"$FAIL" ]]\n'
    )
    swift.chmod(0o755)

    def run(fail: str) -> tuple[int, list[str]]:
        log = tmp_path / "log"
        log.write_text("")
        path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [folder / "sft.sh", "runs/new", "--max_steps", "2"],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "LOG": str(log), "FAIL": fail, "NPROC_PER_NODE": "8"},
            capture_output=True,
        )
        return done.returncode, log.read_text().splitlines()

    out = tmp_path / "runs/new"
    code, calls = run(fail="dialogues")
    assert code != 0 and len(calls) == 2
    assert all(call.startswith(f"{folder} sft --model Qwen/") for call in calls)
    assert all(call.endswith("--max_steps 2") and "--deepspeed zero2" in call for call in calls)
    assert "--adapters" not in calls[0] and "--val_dataset" not in calls[0]
    assert f"--adapters {out}/single_pass/checkpoint-10 " in calls[1]
    assert "--val_dataset dialogues.check.jsonl" in calls[1]
    code, calls = run(fail="")
    assert code == 0 and len(calls) == 2
    assert f"--resume_from_checkpoint {out}/dialogues/checkpoint-10 " in calls[0]
    assert f"--adapters {out}/dialogues/checkpoint-10 " in calls[1]
    assert run(fail="") == (0, [])
