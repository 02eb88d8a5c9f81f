"""Forwards of the text model for each token that is written: with drafts of the next tokens, and one by one.

    python benchmarks/steps.py [--recordings 20] [--repeats 3]

The recordings are the first held-out meetings where the synthesisers are installed, else the example. Each is one
dialogue, one at a time, its answer assembled or written by the model. Both ways run in turn; their tokens must be the
same.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from common import spread, store, weights
from heldout_set import held_out
from speaker_reasoner import audio, load_engine
from speaker_reasoner.audio import SAMPLE_RATE_HZ, Samples
from speaker_reasoner.engines.base import Reply, Request
from speaker_reasoner.engines.checkpoint import Checkpoint
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.errors import DataError
from speaker_reasoner.reasoner import Dialogue, run

WAYS = {"drafts": None, "one by one": 0}


class Counting(TransformersEngine):
    """Counts forwards of the text model, and keeps what is written."""

    forwards = 0

    def __init__(self, checkpoint: Checkpoint, **options: Any) -> None:
        super().__init__(checkpoint, **options)
        read = self.text.read

        def counted(*arguments: Any) -> Any:
            self.forwards += 1
            return read(*arguments)

        self.text.read = counted  # type: ignore[method-assign]

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        replies = super().ask(requests)
        self.ids += [reply.ids for reply in replies]
        self.probabilities += [p for reply in replies for p in reply.probabilities]
        return replies


def clips(banks: Path, count: int) -> list[Samples]:
    try:
        return [one.meeting.samples for one in held_out(banks, count)]
    except DataError as error:
        Console(stderr=True).print(f"{error}; the example recording it is")
        return [audio.load(Path(__file__).parent.parent / "examples" / "meeting.flac")]


def measure(engine: Counting, recordings: Sequence[Samples], answer: str) -> float:
    engine.forwards, engine.ids, engine.probabilities = 0, [], []
    begun = time.perf_counter()
    for samples in recordings:
        for _ in run([Dialogue(samples, engine.profile, answer=answer)], engine):
            pass
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    arguments = parser.parse_args()
    recordings = clips(arguments.banks, arguments.recordings)
    checkpoint = load_engine(arguments.model).checkpoint
    engines = {name: Counting(checkpoint, lookahead=ahead) for name, ahead in WAYS.items()}
    rows: dict[str, Any] = {}
    for answer in ("assembled", "model"):
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for repeat in track(range(arguments.repeats + 1), description=answer):
            for name, engine in engines.items():
                value = measure(engine, recordings, answer)
                if repeat:
                    seconds[name].append(value)
        one, other = engines["drafts"], engines["one by one"]
        tokens = sum(map(len, one.ids))
        differ = np.abs(np.array(one.probabilities) - np.array(other.probabilities))
        rows[answer] = {
            "tokens": tokens,
            "same_tokens": one.ids == other.ids,
            "largest_difference_of_a_probability": float(differ.max()),
            "forwards_a_token": {n: round(e.forwards / tokens, 4) for n, e in engines.items()},
            "seconds": {name: spread(values) for name, values in seconds.items()},
            "times_faster": spread(
                [a / b for a, b in zip(seconds["one by one"], seconds["drafts"], strict=True)]
            ),
        }
    path = store(
        "steps",
        {
            "repeats": arguments.repeats,
            "recordings": len(recordings),
            "audio_s": round(sum(map(len, recordings)) / SAMPLE_RATE_HZ, 1),
            "weights": weights(checkpoint),
            "answers": rows,
        },
    )
    table = Table("answer", "forwards a token", "one by one", "times faster", "same tokens")
    for answer, row in rows.items():
        faster = row["times_faster"]
        table.add_row(
            answer,
            *(f"{value:.3f}" for value in row["forwards_a_token"].values()),
            f"{faster['median']:.2f} ({faster['min']:.2f}-{faster['max']:.2f})",
            str(row["same_tokens"]),
        )
    Console().print(table)
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()
