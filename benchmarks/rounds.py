"""Compares checkpoints of several rounds of training on voices that none was trained on.

    python benchmarks/rounds.py before=PATH after=PATH [--count 60] [--no-witness] [--name rounds]

Chunks are drawn as the held-out ones are, of speakers who are neither trained on nor held out: variants of espeak,
and two voices of RHVoice that read English as Russians do. The choice by them does not depend on the held-out
meetings, which measure the chosen checkpoint.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.table import Table

from calibrate import ALIKE_RATE
from common import store, weights
from heldout import transcripts
from heldout_set import MEETINGS, HeldOut, reference
from linking import strange_voices
from speaker_reasoner import load_engine
from speaker_reasoner.data import banks
from speaker_reasoner.data.banks import BankConfig, VoiceBank, load_bank
from speaker_reasoner.data.bases import draw_voice
from speaker_reasoner.data.people import Base, SyntheticVoice
from speaker_reasoner.data.simulate import meeting
from speaker_reasoner.evaluate import score, total


def accented_voices(config: BankConfig) -> list[SyntheticVoice]:
    """Draw people of RHVoice's voices that are not among `speaker_reasoner.data.bases.BASES`."""
    rng = random.Random("accented")
    bases = [Base("rhvoice", "Lyubov", "female"), Base("rhvoice", "Evgeniy-Eng", "male")]
    return [draw_voice(rng, f"a{i:03d}", bases[i % 2]) for i in range(config.voices)]


KINDS = {
    "variants": (strange_voices, BankConfig(evaluation=False, voices=64, sentences=24, seed=78)),
    "accents": (accented_voices, BankConfig(evaluation=False, voices=24, sentences=24, seed=79)),
}


def chunks(kind: str, folder: Path, count: int) -> list[HeldOut]:
    drawn, config = KINDS[kind]
    path = folder / f"bank-{kind}-{config.voices}x{config.sentences}.npz"
    if not path.exists():
        with mock.patch.object(banks, "_draw_voices", drawn):
            banks.build_bank(config).save(path)
    bases = {(one.base.family, one.base.variant): one.base for one in drawn(config)}
    with mock.patch.object(banks, "base_of", lambda *names: bases[names]):
        voices: VoiceBank = load_bank(path)
    meetings = replace(MEETINGS, alike_rate=ALIKE_RATE if kind == "variants" else 0.0)
    held = (meeting(voices, meetings, f"rounds {kind} {i}") for i in range(count))
    return [HeldOut(one, reference(one, f"{kind}-{i:03d}")) for i, one in enumerate(held)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="NAME=PATH", help="checkpoints to compare")
    parser.add_argument("--count", type=int, default=60, help="chunks of each kind")
    parser.add_argument("--no-witness", action="store_true", help="trust the dialogues alone")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("--name", default="rounds", help="of the stored result")
    arguments = parser.parse_args()
    held = {kind: chunks(kind, arguments.banks, arguments.count) for kind in KINDS}
    table = Table("", "chunks", "cpWER", "WER", "DER (0.25 s)", "gender", "speaker count")
    stored = {}
    for name, path in (model.split("=", 1) for model in arguments.models):
        engine = load_engine(path)
        witness = None if arguments.no_witness else engine.witness("tower")
        stored[name] = {"weights": weights(engine.checkpoint)}
        for kind, meetings in held.items():
            results, _ = transcripts(engine, meetings, "assembled", witness)
            pairs = zip(meetings, results, strict=True)
            summed = total(
                [score(one.reference, hypothesis) for one, hypothesis in pairs]
            ).to_json()
            stored[name][kind] = summed
            keys = ("cpwer", "wer", "der_025", "gender", "speaker_count")
            rates = (f"{100 * summed[key]['rate']:.1f} %" for key in keys)
            table.add_row(f"{name}, {kind}", str(len(meetings)), *rates)
    Console().print(table)
    if arguments.models:
        path = store(arguments.name, {"witness": not arguments.no_witness, "models": stored})
        Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()
