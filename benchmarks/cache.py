"""Compares settings of the speaker cache: recency, entries for each person, budget.

    python benchmarks/cache.py [--meetings 3] [--minutes 5]

One setting is changed at a time, on meetings of development voices, which are of the training side and
yet not among those that the embedded checkpoint learned from. The cache works alone: no voices are
compared.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile as sf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from calibrate import DEVELOPMENT
from common import store
from heldout_set import reference
from longform import draw
from speaker_reasoner import Transcriber, Transcript, load_engine
from speaker_reasoner.data.banks import bank
from speaker_reasoner.evaluate import bootstrap, score, total
from speaker_reasoner.voices.cache import CacheRules

DEFAULT: dict[str, Any] = {"alpha": 1.0, "entries": 2, "budget_s": 20.0}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"alpha": 0.0},
    {"alpha": 4.0},
    {"entries": 1},
    {"entries": 3},
    {"budget_s": 8.0},
    {"budget_s": 14.0},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meetings", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--model", default="tiny", help="another checkpoint than the embedded one")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    engine = load_engine(arguments.model)
    trained = engine.profile
    voices = bank(DEVELOPMENT, arguments.banks)
    held = [draw(voices, arguments.minutes, 100 + i) for i in range(arguments.meetings)]
    truths = [reference(one, f"cache-{i:02d}") for i, one in enumerate(held)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for one, truth in zip(held, truths, strict=True):
            paths.append(Path(folder) / f"{truth.recording}.flac")
            sf.write(paths[-1], one.samples, 16_000)
        for change in track(CHANGES, description="settings"):
            setting = {**DEFAULT, **change}
            engine.profile = replace(trained, cache_s=setting["budget_s"])
            rules = CacheRules(alpha=setting["alpha"], entries=setting["entries"])
            transcriber = Transcriber(engine, rules=rules, witness=None, batch=8)
            transcripts = list(transcriber.transcribe_all(paths))
            scores = [
                score(truth, one)
                for truth, one in zip(truths, transcripts, strict=True)
                if isinstance(one, Transcript)
            ]
            interval = bootstrap(scores, lambda summed: summed.cpwer.rate)
            rows.append({**setting, **total(scores).to_json(), "interval_95_cpwer": interval})
    stored = {
        "meetings": len(held),
        "minutes": round(sum(len(one.samples) for one in held) / 960_000, 1),
        "engine": engine.describe(),
        "settings": rows,
    }
    path = store("cache", stored)
    table = Table("alpha", "entries", "budget", "cpWER", "DER (0.25 s)", "WER")
    for row in rows:
        rates = [f"{100 * row[name]['rate']:.1f} %" for name in ("cpwer", "der_025", "wer")]
        table.add_row(f"{row['alpha']:g}", str(row["entries"]), f"{row['budget_s']:g} s", *rates)
    Console().print(table)
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()
