"""Set a checkpoint's domain floor: the word confidence that 98 of 100 development meetings reach.

    python benchmarks/calibrate.py

Development meetings are drawn as the held-out ones are, from other seeds: the floor never sees the
meetings that measure it. Writes `word_confidence_floor` into the checkpoint's profile.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from common import store
from heldout import confidence, transcripts
from speaker_reasoner import load_engine
from speaker_reasoner.data.simulate import bank, meeting
from speaker_reasoner.engines.checkpoint import EMBEDDED
from speaker_reasoner.evaluate.heldout import BANK, MEETINGS, HeldOut, reference

COUNT, REACHED = 100, 0.98


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="folder of the checkpoint")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    engine = load_engine(arguments.model)
    voices = bank(BANK, arguments.banks)
    drawn = [meeting(voices, MEETINGS, f"development {i}") for i in range(COUNT)]
    meetings = [HeldOut(m, reference(m, f"development-{i:03d}")) for i, m in enumerate(drawn)]
    results, _ = transcripts(engine, meetings, "assembled", None)
    sure = sorted(c for t in results if (c := confidence(t)) is not None)
    floor = round(sure[round((1 - REACHED) * len(sure))], 3)
    replace(engine.profile, word_confidence_floor=floor).save(arguments.model)
    path = store("calibration", {"meetings": COUNT, "lowest": round(sure[0], 4), "floor": floor})
    Console(stderr=True).print(f"floor {floor}; wrote {path}")


if __name__ == "__main__":
    main()
