"""Dialogues of a small corpus, as our training and as ms-swift's encode them; see scripts/verify-swift.

    python scripts/swift/verify.py VENV WORK

The corpus is the example recording, several times over, and a noise with whatever a transcript may hold.
It is prepared in pieces of 8 to 12 s and of 40 to 50 s, and exported for all three stages. ms-swift then
goes through every dialogue once, at a learning rate of zero, and each is compared: all token ids, audio
included; the ids under the loss mask; the loss, which says that the audio is the same, too. At last it
trains two steps a stage, and what it wrote must load here and move the text model's attention alone.
"""

import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile as sf
import torch

from speaker_reasoner import audio
from speaker_reasoner.data.corpora import prepare
from speaker_reasoner.engines.checkpoint import EMBEDDED, Checkpoint, load_checkpoint
from speaker_reasoner.train.batches import IGNORED, Batcher, Example
from speaker_reasoner.train.config import load_config
from speaker_reasoner.train.export import export_corpora
from speaker_reasoner.train.swift import SwiftExport

EXAMPLE = Path(__file__).parents[2] / "examples"
ODD = [
    "<image> <bbox> <ref-object> <video>",
    "你好，世界",
    'it\'s 3.5 "yes" [noise] (ha) a: b',
    "Ünïcödé 🙂 {x}",
    "<think> no </think> <box>[0.0, 1.0]</box> </answer>",
    "",
]
CONFIG = """
seed = 1
[model]
base = "{work}/model"
method = "lora"
[profile]
decimals = 1
chunk_s = 50.0
max_turns = 60
max_speakers = 8
cache_s = 20.0
[run]
[corpora]
train = ["{work}/short/all", "{work}/long/all"]
cache = {{ empty_rate = 0.0, absence_rate = 0.0 }}
[single_pass]
schedule = {{ steps = 1, learning_rate = 1e-4 }}
kinds = [{{ task = "base" }}, {{ task = "sot" }}, {{ task = "times" }}, {{ task = "count" }}]
[dialogues]
schedule = {{ steps = 1, learning_rate = 1e-4 }}
kinds = [{{ task = "dialogue" }}]
[cached]
schedule = {{ steps = 1, learning_rate = 1e-4 }}
kinds = [{{ task = "cached" }}]
"""
CPU = [
    *("--torch_dtype", "float32", "--use_cpu", "true"),
    *("--dataloader_num_workers", "0", "--report_to", "none"),
]
LOSS_TOLERANCE = 0.005
"""Relative. Logs hold four digits, and ms-swift's processor computes the features of a dialogue's clips
together: the last frames of the shorter ones see zeros behind them."""


def main(venv: Path, work: Path) -> int:
    shutil.copytree(EMBEDDED, work / "model")  # whatever happens to it meanwhile
    examples = export(work)
    exported = work / "export"
    encoded = run(
        venv,
        exported,
        work / "still",
        record=work / "encoded.jsonl",
        options=[
            *("--learning_rate", "0", "--gradient_accumulation_steps", "1", "--logging_steps", "1"),
            *("--dataset_shuffle", "false", "--train_dataloader_shuffle", "false"),
            *("--external_plugins", "plugin.py", str(Path(__file__).parent / "record.py")),
        ],
    )
    checkpoint = load_checkpoint(work / "model", device="cpu")
    wrong = compare(exported, examples, encoded, checkpoint)
    wrong += compare_losses(work / "still", examples, checkpoint)
    run(venv, exported, work / "trained", options=["--max_steps", "2"])
    wrong += load_trained(work / "model", work / "trained")
    wrong += unknown_options(venv, exported / "megatron.sh")
    print("\n".join(wrong) or "all the same")
    return 1 if wrong else 0


def export(work: Path) -> dict[str, list[Example]]:
    """Prepare the corpus and export it; the examples by file, in the order of its lines."""
    write_corpus(work / "corpus")
    for name, lengths in (("short", (8.0, 12.0)), ("long", (40.0, 50.0))):
        prepare("folder", work / "corpus", work / name, pieces_s=lengths)
    config = work / "config.toml"
    config.write_text(CONFIG.format(work=work))
    examples: dict[str, list[Example]] = defaultdict(list)
    add = SwiftExport.add

    def noted(self: SwiftExport, file: str, chunk: str, example: Example) -> None:
        add(self, file, chunk, example)
        examples[file].append(example)

    with patch.object(SwiftExport, "add", noted):
        report = export_corpora(load_config(config), work / "export", strict=True)
    print(json.dumps(report["written"]))
    return examples


def write_corpus(folder: Path) -> None:
    """`talk`: the example six times over. `odd`: noise, overlaps, short segments, odd texts."""
    folder.mkdir()
    samples = audio.load(EXAMPLE / "meeting.flac")
    said = json.loads((EXAMPLE / "meeting.seglst.json").read_text(encoding="utf-8"))
    length_s = len(samples) / audio.SAMPLE_RATE_HZ
    rows = []
    for again in range(6):
        for row in said:
            times = {k: row[k] + again * length_s for k in ("start_time", "end_time")}
            rows.append({**row, **times, "session_id": "talk"})
    sf.write(folder / "talk.flac", np.tile(samples, 6), audio.SAMPLE_RATE_HZ)
    rng = random.Random(0)
    for turn in range(26):
        start_s = 0.5 + turn * 1.7 + rng.uniform(-0.4, 0.4)
        times = {"start_time": start_s, "end_time": start_s + rng.choice([0.2, 0.6, 1.5, 2.5])}
        speaker = rng.randint(1, 4)
        gender = ("female", "male", "unknown")[speaker % 3]
        who = {"session_id": "odd", "speaker": f"s{speaker}", "gender": gender}
        rows.append({**who, **times, "words": ODD[turn % len(ODD)]})
    noise = np.random.default_rng(0).standard_normal(46 * audio.SAMPLE_RATE_HZ) * 0.05
    sf.write(folder / "odd.flac", noise, audio.SAMPLE_RATE_HZ)
    for name in ("talk", "odd"):
        own = [row for row in rows if row["session_id"] == name]
        (folder / f"{name}.seglst.json").write_text(json.dumps(own), encoding="utf-8")


def run(
    venv: Path, exported: Path, out: Path, *, options: list[str], record: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Run sft.sh; return the recorded rows by dialogue."""
    environment = {
        **os.environ,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
        "MODEL": str(out.parent / "model"),
        "RECORD": str(record),
        "USE_HF": "1",
        "HF_HUB_OFFLINE": "1",
    }
    log = out.with_suffix(".log")
    with log.open("w") as file:
        done = subprocess.run(
            [exported / "sft.sh", out, *CPU, *options],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        raise SystemExit(f"sft.sh failed:\n{log.read_text()[-4000:]}")
    if record is None:
        return {}
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    return {key(row): row for row in rows}


def key(row: dict[str, Any]) -> str:
    said = [[message["role"], message["content"]] for message in row["messages"]]
    return json.dumps([said, row["audios"]])


def compare(
    exported: Path,
    examples: dict[str, list[Example]],
    encoded: dict[str, dict[str, Any]],
    checkpoint: Checkpoint,
) -> list[str]:
    """Compare token ids and loss masks; return the differences."""
    batcher = Batcher(checkpoint.thinker, checkpoint.tokenizer, checkpoint.extractor)
    wrong = []
    for file, own in examples.items():
        lines = (exported / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
        tokens = sounds = taught = 0
        for number, (line, example) in enumerate(zip(lines, own, strict=True), start=1):
            theirs = encoded.get(key(json.loads(line)))
            if theirs is None:
                wrong.append(f"{file}:{number}: ms-swift never saw it as it was written")
                continue
            batch = batcher.batch([example], random.Random(0), augment=False)
            ids, labels = batch.ids[0].tolist(), batch.labels[0].tolist()
            for what, ours, other in (
                ("ids", ids, theirs["ids"]),
                ("labels", labels, theirs["labels"]),
            ):
                if ours != other:
                    wrong.append(f"{file}:{number}: {what}: {difference(ours, other, checkpoint)}")
            tokens += len(ids)
            sounds += ids.count(batcher.audio_id)
            taught += sum(label != IGNORED for label in labels)
        print(f"{file}: {len(own)} dialogues, {tokens} tokens, {sounds} of audio, {taught} taught")
    return wrong


def difference(ours: list[int], theirs: list[int], checkpoint: Checkpoint) -> str:
    """The first place where two rows differ, and how many of each are taught."""
    at = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    texts = []
    for row in (ours, theirs):
        near = [token for token in row[at : at + 12] if token != IGNORED]
        count = sum(token != IGNORED for token in row)
        texts.append(f"{checkpoint.tokenizer.decode(near)!r} ({count} of {len(row)})")
    return f"at {at}: ours {texts[0]}, ms-swift's {texts[1]}"


def compare_losses(
    out: Path, examples: dict[str, list[Example]], checkpoint: Checkpoint
) -> list[str]:
    """Compare the loss of every dialogue under the same weights; return the differences."""
    batcher = Batcher(checkpoint.thinker, checkpoint.tokenizer, checkpoint.extractor)
    wrong, most = [], 0.0
    for file, own in examples.items():
        rows = [
            json.loads(line) for line in (out / file / "logging.jsonl").read_text().splitlines()
        ]
        theirs = [float(row["loss"]) for row in rows if "loss" in row]
        for number, (example, loss) in enumerate(zip(own, theirs, strict=True), start=1):
            batch = batcher.batch([example], random.Random(0), augment=False)
            with torch.no_grad():
                ours = float(
                    checkpoint.thinker(
                        input_ids=batch.ids,
                        attention_mask=batch.mask,
                        input_features=batch.features,
                        feature_attention_mask=batch.feature_mask,
                        labels=batch.labels,
                    ).loss
                )
            off = abs(ours - loss) / ours
            most = max(most, off)
            if off > LOSS_TOLERANCE:
                wrong.append(f"{file}:{number}: loss: ours {ours:.5f}, ms-swift's {loss:.5f}")
    print(f"losses differ by {most:.2%} at most")
    return wrong


def load_trained(model: Path, out: Path) -> list[str]:
    """Check that the adapter of the last stage loads here, and moves the text model's attention alone."""
    [adapter] = (out / "cached").glob("checkpoint-*")
    before, after = (load_checkpoint(folder, device="cpu") for folder in (model, adapter))
    moved = {
        name: torch.equal(a, b)
        for (name, a), b in zip(
            before.thinker.named_parameters(), after.thinker.parameters(), strict=True
        )
    }
    wrong = [
        f"{adapter}: {'leaves' if same else 'moves'} {name}"
        for name, same in moved.items()
        if same == bool(re.search(r"language_model\.layers\.\d+\.self_attn\.[qkvo]_proj", name))
    ]
    print(f"adapter of three stages: {list(moved.values()).count(False)} weights moved")
    return wrong


def unknown_options(venv: Path, script: Path) -> list[str]:
    """Options of megatron.sh, which cannot run here, that this release of ms-swift does not have."""
    [package] = venv.glob("lib/python*/site-packages/swift")
    known: set[str] = set()
    for file in (*package.glob("arguments/**/*.py"), *package.glob("megatron/arguments/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                known.add(node.target.id)
    used = re.findall(r"^ +--(\w+)", script.read_text(), flags=re.MULTILINE)
    print(f"megatron.sh: {len(used)} options looked up")
    return [f"megatron.sh: ms-swift has no --{name}" for name in used if name not in known]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
