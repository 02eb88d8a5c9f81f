"""Write held-out meetings as files, for `speaker-reasoner evaluate run`: audio and SegLST references.

    python benchmarks/meetings.py -o runs/meetings-long --long --count 10
    speaker-reasoner evaluate run --model tiny --data runs/meetings-long --long-form -o runs/out

Voices, sentences and rooms are of the held-out side; the same call writes the same samples.
"""

import argparse
from pathlib import Path

import soundfile as sf
from rich.progress import track

from heldout_set import BANK, MEETINGS, reference
from speaker_reasoner.data.banks import bank
from speaker_reasoner.data.simulate import MeetingConfig, meeting
from speaker_reasoner.formats import write

LONG = MeetingConfig(speakers=(2, 3), utterances=(50, 70), max_duration_s=180.0, silence_rate=0.0)
"""Fifty to seventy utterances in at most three minutes, two or three people."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--long", action="store_true", help="about two minutes each, not up to 20 s"
    )
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    arguments = parser.parse_args()
    voices = bank(BANK, arguments.banks)
    config, kind = (LONG, "long") if arguments.long else (MEETINGS, "held-out")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for i in track(range(arguments.count), description="meetings"):
        one = meeting(voices, config, f"{kind} {i}")
        name = f"{kind.replace('-', '')}-{i:03d}"
        sf.write(arguments.output / f"{name}.flac", one.samples, 16_000)
        write(reference(one, name), arguments.output, ["seglst"])


if __name__ == "__main__":
    main()
