"""The paper's ablation in small: gain from turns and from the speaker cache at equal training budget.

    python benchmarks/stages.py train base            # likewise sot, multi-turn, multi-turn+sac
    python benchmarks/stages.py score

Every row begins from the same model, which is trained for no task: audio tower and embeddings of the
embedded checkpoint under decoder layers at random weights. Each then takes the same number of steps of as many
seconds of audio, with the same losses on frames beside the answer. `multi-turn` spends half of them on
stage 1, `multi-turn+sac` half on stage 1 and a quarter on each of stages 2 and 3.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import soundfile as sf
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from common import store
from heldout_set import BANK, held_out, reference
from meetings import LONG
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.data.banks import bank
from speaker_reasoner.data.simulate import meeting
from speaker_reasoner.engines.base import Request, Session
from speaker_reasoner.engines.checkpoint import find_checkpoint, load_thinker
from speaker_reasoner.engines.thinker import audio_tower
from speaker_reasoner.evaluate import (
    Counts,
    ErrorCounts,
    Normalisation,
    Scores,
    bootstrap,
    score,
    total,
)
from speaker_reasoner.evaluate.breakdown import compare, subsets
from speaker_reasoner.evaluate.pairs import Pair
from speaker_reasoner.evaluate.words import combination_errors
from speaker_reasoner.longform.chunks import Chunk, chunks
from speaker_reasoner.protocol import Profile
from speaker_reasoner.protocol.grammar import TurnRules
from speaker_reasoner.protocol.markup import ANSWER, ANSWER_END
from speaker_reasoner.protocol.trace import opening
from speaker_reasoner.protocol.turns import parse_lines
from speaker_reasoner.train.config import Kind, StageConfig, TrainingConfig, load_config
from speaker_reasoner.train.schedule import Schedule
from speaker_reasoner.train.stages import train
from speaker_reasoner.transcript import Segment

STEPS = 1800
AUDIO_S = 64.0
SEED = 20
HEARD = Kind("base", 0.15, "tower", AUDIO_S)
"""A share of every stage in which the tower alone learns on."""

SHARES: dict[str, tuple[tuple[str, int, float], ...]] = {
    "sot": (("sot", 1, 1.0),),
    "base": (("base", 1, 1.0),),
    "multi-turn": (("base", 1, 0.5), ("dialogue", 2, 0.5)),
    "multi-turn+sac": (("base", 1, 0.5), ("dialogue", 2, 0.25), ("cached", 3, 0.25)),
}
"""Task, stage and share of the steps of each row, in order."""
TITLES = {
    "sot": "SOT",
    "base": "Base (stage 1)",
    "multi-turn": "Multi-turn (stages 1, 2)",
    "multi-turn+sac": "Multi-turn + SAC (stages 1, 2, 3)",
}


def configuration(task: str, steps: int) -> TrainingConfig:
    """Return the configuration of one stage with one task."""
    config = load_config("tiny")
    kinds = [Kind(task, 0.85, "all", AUDIO_S), HEARD]
    if task == "cached":
        kinds = [Kind(task, 0.6, "all", AUDIO_S), Kind("dialogue", 0.25, "all", AUDIO_S), HEARD]
    schedule = Schedule(steps, 1.4e-3, warm_up_steps=30, floor=0.02)
    stage = StageConfig(schedule, tuple(kinds), chunk_s=(4.0, 30.0), growth=0.3)
    names = {"dialogue": "dialogues", "cached": "cached"}
    none = {"warm_up": None, "single_pass": None, "dialogues": None, "cached": None}
    return replace(
        config,
        **{**none, names.get(task, "single_pass"): stage},
        seed=SEED,
        witness=None,
        run=replace(config.run, dialogue_steps=0),
    )


def beginning(folder: Path) -> Path:
    """The model that every row begins from."""
    if folder.exists():
        return folder
    files = find_checkpoint(None)
    thinker = load_thinker(files, torch.float32)
    torch.manual_seed(SEED)
    fresh = type(thinker)(thinker.config)
    audio_tower(fresh).load_state_dict(audio_tower(thinker).state_dict())
    fresh.get_input_embeddings().load_state_dict(thinker.get_input_embeddings().state_dict())
    fresh.save_pretrained(folder)
    files.tokenizer.save_pretrained(folder)
    files.extractor.save_pretrained(folder)
    profile = files.profile()
    assert profile is not None
    replace(profile, training={}, word_confidence_floor=None).save(folder)
    return folder


def train_row(row: str, runs: Path, banks: Path) -> None:
    """Train a row, each stage from the last; the stages that rows share are trained once."""
    start = beginning(runs / "beginning")
    done = ""
    for task, stage, share in SHARES[row]:
        done += f"{'-' if done else ''}{task}-{share:g}"
        folder = runs / done
        if not (folder / f"stage-{stage}").exists():
            config = configuration(task, round(STEPS * share))
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "banks").exists():
                (folder / "banks").symlink_to(banks.resolve())
            train(config, folder, stages=(stage,), start=start)
        start = folder / f"stage-{stage}"


def trained(row: str, runs: Path) -> Path:
    """The checkpoint that `train_row` wrote last."""
    name = "-".join(f"{task}-{share:g}" for task, _, share in SHARES[row])
    return runs / name / f"stage-{SHARES[row][-1][1]}"


def single_turns(engine: Any, task: str, clips: Sequence[Any]) -> list[str]:
    """Return the model's text of one turn over each whole chunk."""
    profile, texts = engine.profile, []
    for first in range(0, len(clips), 8):
        requests = []
        for samples in clips[first : first + 8]:
            ticks = len(samples) * profile.ticks_per_s // 16_000
            rules = TurnRules(profile, 0, ticks, task=task)
            parts = opening(profile, len(samples), task=task)
            requests.append(Request(Session(samples), parts, rules))
        texts += [reply.text for reply in engine.ask(requests)]
    return texts


def changes(text: str, chunk: Chunk) -> list[Segment]:
    """Return the lines of a transcript that states only changes of speaker.

    Each line gets a speaker of its own, and times that give their order alone.
    """
    answer = text.removeprefix(ANSWER).removesuffix(ANSWER_END).strip()
    lines = [line.strip() for line in answer.split("\n") if line.strip()]
    start, length_s = chunk.start_samples / 16_000, len(chunk.samples) / 16_000
    step = length_s / max(1, len(lines))
    return [
        Segment(f"{chunk.start_samples}-{i}", start + i * step, start + (i + 1) * step, line)
        for i, line in enumerate(lines)
    ]


def timed(text: str, chunk: Chunk, profile: Profile) -> list[Segment]:
    """Lines of a whole transcript in one turn."""
    start_s, tick = chunk.start_samples / 16_000, profile.ticks_per_s
    label = f"{chunk.start_samples}-Speaker"
    return [
        Segment(
            f"{label}{line.speaker}",
            start_s + line.start / tick,
            start_s + line.end / tick,
            line.text,
            line.gender,
        )
        for line in parse_lines(text, profile)
    ]


def transcribe(engine: Any, row: str, recordings: Sequence[tuple[Any, Transcript]]) -> list[Pair]:
    """Transcribe every recording by a row's model, without a witness."""
    pairs = []
    if row in ("sot", "base"):
        for samples, truth in track(recordings, description=row):
            cut = list(chunks([samples], engine.profile.chunk_s))
            texts = single_turns(engine, row, [chunk.samples for chunk in cut])
            segments: list[Segment] = []
            for text, chunk in zip(texts, cut, strict=True):
                lines = changes(text, chunk) if row == "sot" else timed(text, chunk, engine.profile)
                segments += lines
            hypothesis = Transcript(truth.recording, truth.duration_s, tuple(segments))
            pairs.append(Pair(truth.recording, truth, hypothesis))
        return pairs
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for samples, truth in recordings:
            paths.append(Path(folder) / f"{truth.recording}.wav")
            sf.write(paths[-1], samples, 16_000, subtype="FLOAT")
        transcriber = Transcriber(engine, batch=8, witness=None, detect=None)
        results = track(transcriber.transcribe_all(paths), description=row, total=len(paths))
        for result, (_, truth) in zip(results, recordings, strict=True):
            if not isinstance(result, Transcript):
                raise result.error
            pairs.append(Pair(truth.recording, truth, result))
    return pairs


def scored(row: str, pairs: Sequence[Pair]) -> list[Scores]:
    """Score pairs; for SOT, which names no speakers, an oracle gives each line to the best fitting speaker."""
    scores = [score(p.reference, p.hypothesis, times=row != "sot") for p in pairs]
    if row != "sot":
        return scores
    words = Normalisation().words
    rows = []
    for pair, one in zip(pairs, scores, strict=True):
        ours, theirs = (
            [(s, words(s.text)) for s in side.segments]
            for side in (pair.reference, pair.hypothesis)
        )
        turned = combination_errors(theirs, ours)
        fitted = ErrorCounts(
            turned.deletions,
            turned.insertions,
            turned.substitutions,
            sum(len(spoken) for _, spoken in ours),
        )
        rows.append(replace(one, cpwer=fitted, speaker_count=Counts(0, 0)))
    return rows


def errors(scores: Sequence[Scores]) -> dict[str, tuple[float, float]]:
    """Word errors and reference words of each recording, for a paired comparison."""
    return {
        str(i): (s.cpwer.errors, s.cpwer.reference_words)
        for i, s in enumerate(scores)
        if s.cpwer is not None
    }


def measure(runs: Path, banks: Path) -> dict[str, Any]:
    """Every row on the held-out pieces, and on whole held-out meetings of two minutes."""
    pieces = [(one.meeting.samples, one.reference) for one in held_out(banks)]
    voices = bank(BANK, banks)
    wholes = []
    for i in range(10):
        one = meeting(voices, LONG, f"long {i}")
        wholes.append((one.samples, reference(one, f"long-{i:03d}")))
    rows: dict[str, Any] = {}
    of_pieces: dict[str, list[Scores]] = {}
    for row in SHARES:
        engine = load_engine(trained(row, runs))
        pairs = transcribe(engine, row, pieces)
        scores = of_pieces[row] = scored(row, pairs)
        rows[row] = {
            "title": TITLES[row],
            "pieces": {
                **total(scores).to_json(),
                "intervals_95": {"cpwer": bootstrap(scores, lambda s: s.cpwer.rate)},
                "subsets": subsets(pairs, scores, Normalisation()),
            },
        }
        if row != "sot":
            scores = scored(row, transcribe(engine, row, wholes))
            rows[row]["whole"] = {
                **total(scores).to_json(),
                "intervals_95": {"cpwer": bootstrap(scores, lambda s: s.cpwer.rate)},
            }
    paired = {}
    for one, other in pairwise(SHARES):
        comparison = compare(errors(of_pieces[other]), errors(of_pieces[one]))
        paired[f"{other} against {one}"] = {
            "cpwer_difference": round(comparison.difference, 4),
            "interval_95": [round(end, 4) for end in comparison.interval],
        }
    return {"rows": rows, "paired": paired}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/stages"), help="models and logs")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("row", choices=SHARES)
    commands.add_parser("score")
    arguments = parser.parse_args()
    if arguments.command == "train":
        train_row(arguments.row, arguments.runs, arguments.banks)
        return
    budget = {"steps": STEPS, "audio_s": STEPS * AUDIO_S, "seed": SEED}
    stored = {"budget": budget, "shares": SHARES, **measure(arguments.runs, arguments.banks)}
    path = store("stages", stored)
    show(stored)
    Console(stderr=True).print(f"wrote {path}")


def show(stored: dict[str, Any]) -> None:
    table = Table(
        "", "WER", "cpWER", "DER (0.25 s)", "gender", "count", "whole: cpWER", "whole: DER"
    )
    for row in stored["rows"].values():
        cells = []
        for part, names in (
            ("pieces", ("wer", "cpwer", "der_025", "gender", "speaker_count")),
            ("whole", ("cpwer", "der_025")),
        ):
            for name in names:
                rate = ((row.get(part) or {}).get(name) or {}).get("rate")
                cells.append("–" if rate is None else f"{100 * rate:.1f} %")
        table.add_row(row["title"], *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
