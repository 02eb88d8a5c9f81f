"""Whose voices a real recording holds, by every witness: number of speakers and DER.

    python benchmarks/real.py podcast_3spk.mp3 podcast_3spk.json [--witnesses tower,resemblyzer]

The reference is JSON with `audio_duration` and a list `segments` of speaker, start and end, as VibeVoice's examples
have it. The lines are the embedded checkpoint's, which does not know such words: only who speaks when is scored. Each
witness is asked twice, once told how many people there are. Takes the extras eval and resemblyzer.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from common import store
from speaker_reasoner import Segment, Transcriber, Transcript, load_engine
from speaker_reasoner.evaluate import score


def reference(path: Path) -> Transcript:
    stored = json.loads(path.read_text(encoding="utf-8"))
    segments = tuple(
        Segment(str(s["speaker"]), s["start"], s["end"], "") for s in stored["segments"]
    )
    return Transcript(path.stem, stored["audio_duration"], segments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--witnesses", default="tower,resemblyzer")
    arguments = parser.parse_args()
    engine, truth = load_engine(), reference(arguments.reference)
    people = len(truth.speakers)
    table = Table("", "speakers", "DER (0.25 s)", "confusion")
    rows = []
    for witness in arguments.witnesses.split(","):
        transcriber = Transcriber(engine, witness=witness, batch=4)
        for known in (None, (people, people)):
            found = transcriber.transcribe(arguments.recording, speakers=known)
            counts = score(truth, found).to_json()["der_025"]
            row = {
                "witness": witness,
                "count_known": known is not None,
                "speakers": len(found.speakers),
                "der_025": counts,
            }
            rows.append(row)
            told = f"{witness}, told that there are {people}" if known else witness
            confused = counts["confusion_s"] / counts["reference_s"]
            table.add_row(
                told,
                str(row["speakers"]),
                f"{100 * counts['rate']:.1f} %",
                f"{100 * confused:.1f} %",
            )
    stored = {
        "recording": arguments.recording.name,
        "duration_s": truth.duration_s,
        "people": people,
        "rows": rows,
    }
    path = store("real", stored)
    Console().print(table)
    Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()
