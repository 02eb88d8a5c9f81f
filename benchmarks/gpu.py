"""Steps and dialogues of the released models' sizes on one GPU, with random weights: each way of reading, in turn.

    python benchmarks/gpu.py [--models qwen3-omni-30b-a3b qwen2.5-omni-7b] [--at-once 1 16] [--context 1000]

For each model: the time of a step (one new token of each dialogue after a context), captured as a CUDA graph and not;
then whole dialogues over the example recording with this engine's grammar, whose words are random as the weights are.
The floor of a step is the bytes of the parameters that one token meets over the measured rate of a copy. Where there is
no GPU, `--models tiny` runs the embedded checkpoint through the same code without captures.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from common import spread, store
from speaker_reasoner import audio, load_engine
from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.engines.checkpoint import Checkpoint
from speaker_reasoner.engines.joined import JoinedText
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.memory import Held, TextReader
from speaker_reasoner.engines.placed import PlacedText
from speaker_reasoner.reasoner import Dialogue, run
from speaker_reasoner.train.shapes import load_model

EXAMPLE = Path(__file__).parent.parent / "examples" / "meeting.flac"
MOST_TOKENS = 60  # of a turn of random words


def made(name: str, device: str) -> Checkpoint:
    """A checkpoint of a model's sizes with random weights; the embedded one for `tiny`."""
    own = load_engine("tiny", device=device, dtype="float32").checkpoint
    if name == "tiny":
        return own
    shell = load_model(name).thinker
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        thinker = type(shell)(shell.config).eval()
    torch.set_default_dtype(torch.float32)
    thinker.config.audio_token_id = own.thinker.config.audio_token_id
    return replace(own, name=name, thinker=thinker)


def seconds_of(work: Callable[[], Any], device: str) -> float:
    synchronise(device)
    begun = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begun


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def floor_s(name: str, device: str) -> float | None:
    """Return a step's least time: that of copying the bfloat16 weights that one token reads."""
    if device != "cuda":
        return None
    held = torch.empty(1 << 30, dtype=torch.float32, device=device)
    other = torch.empty_like(held)
    copied = min(seconds_of(lambda: other.copy_(held), device) for _ in range(5))
    rate = 2 * held.nbytes / copied
    return load_model(name).parameters.text_active * 2 / rate


@torch.inference_mode()
def steps(
    reader: TextReader, thinker: Any, at_once: int, context: int, device: str
) -> dict[str, float]:
    """Seconds of a step of one token for each of some dialogues."""
    width = thinker.get_input_embeddings().weight.shape[1]
    rows = [Held() for _ in range(at_once)]
    given = torch.randn(context, width, dtype=thinker.dtype, device=device) * 0.02
    for row in rows:
        reader.read([row], [given], [1])
    one = [given[:1]] * at_once
    ones = [1] * at_once
    for _ in range(5):  # the first captures
        reader.read(rows, one, ones)
    taken = spread([seconds_of(lambda: reader.read(rows, one, ones), device) for _ in range(30)])
    reader.release()
    return taken


def dialogues(engine: TransformersEngine, at_once: int, device: str) -> dict[str, Any]:
    """Whole dialogues over the example recording, the second time: the first captures."""
    clip = audio.load(EXAMPLE)
    written = 0

    def work() -> None:
        nonlocal written
        asked = [Dialogue(clip, engine.profile) for _ in range(at_once)]
        for _ in run(asked, engine):
            pass
        written = sum(len(a.ids) for d in asked if d.outcome for a in d.outcome.trace.answers)

    work()
    taken = seconds_of(work, device)
    return {
        "seconds": round(taken, 3),
        "tokens": written,
        "tokens_a_second": round(written / taken, 1),
        "audio_s_a_second": round(at_once * len(clip) / SAMPLE_RATE_HZ / taken, 2),
    }


def measured(name: str, at_once: Sequence[int], context: int, device: str) -> dict[str, Any]:
    """Measure one model in all ways."""
    checkpoint = made(name, device)
    thinker = checkpoint.thinker
    ways: dict[str, Callable[[], TextReader]] = {
        "joined": lambda: JoinedText(thinker),
        "places": lambda: PlacedText(thinker, capture=False),
    }
    if device == "cuda":
        ways["captured"] = lambda: PlacedText(thinker, capture=True)
    result: dict[str, Any] = {"floor_s": floor_s(name, device), "step_s": {}, "dialogue": {}}
    for way, make in ways.items():
        for count in at_once:
            taken = steps(make(), thinker, count, context, device)
            result["step_s"].setdefault(way, {})[str(count)] = taken
            engine = TransformersEngine(checkpoint, max_new_tokens=MOST_TOKENS)
            engine.text = make()
            result["dialogue"].setdefault(way, {})[str(count)] = dialogues(engine, count, device)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["qwen3-omni-30b-a3b", "qwen2.5-omni-7b"])
    parser.add_argument("--at-once", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--context", type=int, default=1000)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and arguments.models != ["tiny"]:
        parser.error("no GPU; without one, --models tiny tries the same code")
    rows: dict[str, Any] = {}
    table = Table("model", "way", "at once", "ms a step", "tokens a second", "audio s a second")
    for name in arguments.models:
        rows[name] = measured(name, arguments.at_once, arguments.context, device)
        for way, counts in rows[name]["step_s"].items():
            for count, taken in counts.items():
                spoken = rows[name]["dialogue"][way][count]
                cells = f"{taken['median'] * 1e3:.2f}", spoken["tokens_a_second"]
                table.add_row(name, way, count, *map(str, cells), str(spoken["audio_s_a_second"]))
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    Console().print(table)
    card = torch.cuda.get_device_name() if device == "cuda" else None
    if card is None:
        return  # only results of a GPU are stored
    path = store("gpu", {"card": card, "cuda": torch.version.cuda, "models": rows})
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()
