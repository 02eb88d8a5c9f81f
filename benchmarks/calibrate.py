"""Fits a checkpoint's confidence floor and voice calibration on development meetings, and writes them into it.

    python benchmarks/calibrate.py floor     # the word confidence that 98 of 100 meetings reach
    python benchmarks/calibrate.py voices    # the odds of the voice head

Meetings for the floor are drawn as the held-out ones are, from other seeds, so that it never depends on the meetings
that measure it. Those for the voices are of development voices, which are of the training side and yet not among those
that the embedded checkpoint learned from.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from common import store
from heldout import confidence, transcripts
from heldout_set import BANK, MEETINGS, HeldOut, reference
from speaker_reasoner import load_engine
from speaker_reasoner.data.banks import BankConfig, bank
from speaker_reasoner.data.simulate import MeetingConfig, meeting
from speaker_reasoner.engines.checkpoint import EMBEDDED
from speaker_reasoner.engines.voice_head import load_voice_head
from speaker_reasoner.train.config import load_config
from speaker_reasoner.train.voice_head import calibrate

COUNT, REACHED = 100, 0.98
DEVELOPMENT = BankConfig(evaluation=False, voices=160, sentences=30, seed=12)
ALIKE_RATE = 0.35
"""Share of meetings with voices of few synthesisers, as in the held-out ones."""
LIVELY = MeetingConfig(
    speakers=(3, 6),
    utterances=(20, 30),
    max_duration_s=90.0,
    silence_rate=0.0,
    reverb_rate=0.5,
    snr_db=(15.0, 45.0),
    alike_rate=ALIKE_RATE,
)


def fit_floor(engine: Any, model: Path, banks: Path) -> dict[str, Any]:
    voices = bank(BANK, banks)
    drawn = [meeting(voices, MEETINGS, f"development {i}") for i in range(COUNT)]
    meetings = [HeldOut(m, reference(m, f"development-{i:03d}")) for i, m in enumerate(drawn)]
    results, _ = transcripts(engine, meetings, "assembled", None)
    sure = sorted(c for t in results if (c := confidence(t)) is not None)
    floor = round(sure[round((1 - REACHED) * len(sure))], 3)
    replace(engine.profile, word_confidence_floor=floor).save(model)
    return {"meetings": COUNT, "lowest": round(sure[0], 4), "floor": floor}


def fit_voices(engine: Any, model: Path, banks: Path) -> dict[str, Any]:
    head = load_voice_head(model, engine.checkpoint.thinker)
    if head is None:
        raise SystemExit(f"{model} has no voice head")
    head.requires_grad_(True)
    checkpoint, voices = engine.checkpoint, bank(DEVELOPMENT, banks)
    config = load_config("tiny").witness
    assert config is not None
    calibrate(head, checkpoint.thinker, checkpoint.extractor, voices, LIVELY, config, 1, count=40)
    head.save(model)
    return {
        "meetings": 40,
        "threshold": round(float(head.threshold), 4),
        "elsewhere": round(float(head.elsewhere), 4),
        "scale": round(float(head.slope.exp()), 2),
        "settle_s": round(float(head.settle_s), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("floor", "voices"))
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="folder of the checkpoint")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    engine = load_engine(arguments.model)
    fit = fit_floor if arguments.what == "floor" else fit_voices
    stored = fit(engine, arguments.model, arguments.banks)
    name = "calibration" if arguments.what == "floor" else "calibration-voices"
    path = store(name, stored)
    Console(stderr=True).print(f"{stored}; wrote {path}")


if __name__ == "__main__":
    main()
