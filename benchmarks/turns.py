"""Seconds of a dialogue of 5, 10 and 20 turns: with and without kept keys and values, with the answer
assembled and written by the model, with and without the grammar.

    python benchmarks/turns.py [--repeats 5]

Every variant writes the same turns (those of the reference dialogue, token by token), so that only the
engine's work differs. Variants of one repeat run one after the other; ratios are taken within a repeat.
"""

import argparse
import random
import time
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from common import spread, store
from speaker_reasoner import load_engine
from speaker_reasoner.data.dialogues import dialogue
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.protocol import Trace
from speaker_reasoner.protocol.matcher import advance
from speaker_reasoner.protocol.observations import Reference
from speaker_reasoner.reasoner import Dialogue, run

UTTERANCE_S, PAUSE_S = 1.6, 0.4


class Forced(TransformersEngine):
    """Writes given turns: the model computes every token, the grammar checks it, the text is fixed."""

    def follow(self, trace: Trace) -> None:
        encode = self.checkpoint.tokenizer.encode
        self.turns = [
            [*encode(a.text, add_special_tokens=False), *([self.end_id] if a.closed else [])]
            for a in trace.answers
        ]

    def _pick(self, row: Any, logits: Any, place: int) -> int:
        token = self.turns[row.request.rules.turn][len(row.ids)]
        if self.constrained:
            self.vocabulary.choose(logits.likely(place), lambda: logits.all(place), row.state)
            row.state = advance(row.state, self.vocabulary.tokens[token] or b"")
        return token


def meeting(turns: int) -> tuple[list[Reference], int]:
    """Two people who take turns, one observation each."""
    rng = random.Random(turns)
    words = ["we", "should", "bring", "the", "small", "map", "to", "the", "office", "on", "friday"]
    step = round((UTTERANCE_S + PAUSE_S) * 16_000)
    rows = []
    for i in range(turns):
        first = i * step
        text = " ".join(rng.choices(words, k=5))
        gender = ("female", "male")[i % 2]
        rows.append(Reference(i % 2 + 1, gender, first, first + round(UTTERANCE_S * 16_000), text))
    return rows, turns * step


def measure(engine: Forced, samples: Any, rows: list[Reference], answer: str) -> float:
    engine.follow(dialogue(rows, len(samples), engine.profile, answer=answer == "model"))
    one = Dialogue(samples, engine.profile, answer=answer)
    begun = time.perf_counter()
    for _ in run([one], engine):
        pass
    seconds = time.perf_counter() - begun
    assert one.outcome and one.outcome.stop == "answered", one.outcome
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    arguments = parser.parse_args()
    import numpy as np

    checkpoint = load_engine(arguments.model).checkpoint
    variants = {
        "kept": (Forced(checkpoint), "assembled"),
        "recomputed": (Forced(checkpoint, keep_cache=False), "assembled"),
        "answer-model": (Forced(checkpoint), "model"),
        "no-grammar": (Forced(checkpoint, constrained=False), "model"),
    }
    rows_out = []
    for turns in (5, 10, 20):
        rows, count = meeting(turns)
        samples = np.random.default_rng(turns).standard_normal(count).astype(np.float32) * 0.05
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for repeat in track(range(arguments.repeats + 1), description=f"{turns} turns"):
            for name, (engine, answer) in variants.items():
                value = measure(engine, samples, rows, answer)
                if repeat:
                    seconds[name].append(value)
        ratios = {
            "recomputed/kept": _ratios(seconds, "recomputed", "kept"),
            "answer-model/assembled": _ratios(seconds, "answer-model", "kept"),
            "grammar/no-grammar": _ratios(seconds, "answer-model", "no-grammar"),
        }
        rows_out.append(
            {
                "turns": turns,
                "audio_s": count / 16_000,
                "seconds": {name: spread(values) for name, values in seconds.items()},
                "ratios": {name: spread(values) for name, values in ratios.items()},
            }
        )
    path = store("turns", {"repeats": arguments.repeats, "dialogues": rows_out})
    show(rows_out)
    Console(stderr=True).print(f"wrote {path}")


def _ratios(seconds: dict[str, list[float]], one: str, other: str) -> list[float]:
    return [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("turns", "kept (s)", *rows[0]["ratios"])
    for row in rows:
        ratios = [
            f"{r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})" for r in row["ratios"].values()
        ]
        table.add_row(str(row["turns"]), f"{row['seconds']['kept']['median']:.2f}", *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()
