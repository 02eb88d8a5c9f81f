"""Draw the example recording: a simulated meeting of two people, voices and sentences never trained on.

    python examples/make_meeting.py

The first seed whose meeting has two speakers and lasts 6 to 10 seconds is taken, whatever the checkpoint
makes of it; it is not one of the meetings that score the checkpoint.
"""

import sys
from pathlib import Path

import soundfile as sf

from speaker_reasoner import formats
from speaker_reasoner.data.banks import bank
from speaker_reasoner.data.simulate import meeting

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from heldout_set import BANK, MEETINGS, HeldOut, reference


def main() -> None:
    folder = Path(__file__).parent
    voices = bank(BANK, Path("runs/banks"))
    for seed in range(1000):
        drawn = meeting(voices, MEETINGS, f"example {seed}")
        known = HeldOut(drawn, reference(drawn, "meeting"))
        if len(known.reference.speakers) == 2 and 6 <= known.reference.duration_s <= 10:
            break
    sf.write(folder / "meeting.flac", drawn.samples, 16_000)
    formats.write(known.reference, folder, ["seglst"])
    print(f"seed {seed}: {len(drawn.samples) / 16_000:.1f} s, {len(drawn.spoken)} utterances")


if __name__ == "__main__":
    main()
